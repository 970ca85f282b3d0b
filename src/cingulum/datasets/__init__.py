"""Real data that is fetched, and synthetic data whose truth is known."""

from cingulum.datasets.synthetic import Settings as Settings
from cingulum.datasets.synthetic import synthesize as synthesize
