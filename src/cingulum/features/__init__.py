"""One row a visit. To add a feature: write its file, add its line here."""

from cingulum.features.connectivity import SeedConnectivity
from cingulum.features.feature import Feature, Measurement
from cingulum.features.heart_rate import HighFrequencyVariability
from cingulum.features.mechanism import Mechanism
from cingulum.features.motion import HeadMotion
from cingulum.features.perfusion import RelativePerfusion

__all__ = [
    "Feature",
    "HeadMotion",
    "HighFrequencyVariability",
    "Measurement",
    "Mechanism",
    "RelativePerfusion",
    "SeedConnectivity",
]
