"""Real data that is fetched, and synthetic data whose truth is known."""

from cingulum.datasets.synthetic import CohortSettings as CohortSettings
from cingulum.datasets.synthetic import synthesize as synthesize
