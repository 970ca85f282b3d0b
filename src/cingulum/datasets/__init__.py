"""Real data, fetched from their publisher, and synthetic data with known ground
truth."""

from cingulum.datasets.synthetic import synthesize as synthesize
from cingulum.datasets.synthetic_truth import CohortSettings as CohortSettings
