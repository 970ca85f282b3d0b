"""One row a visit. To add a feature: write its file, add its line here and in
FEATURES."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cingulum.features.blood_flow import RegionalPerfusion, RelativePerfusion
from cingulum.features.bold_quality import Quality
from cingulum.features.connectivity_dynamics import ConnectivityDynamics
from cingulum.features.feature import (
    Column,
    Feature,
    FeatureOptions,
    Measurement,
    Origin,
)
from cingulum.features.heart_rate import HeartRateVariability, HighFrequencyVariability
from cingulum.features.mechanism import Mechanism, physiology
from cingulum.features.motion import HeadMotion
from cingulum.features.parcel_connectivity import ParcelConnectivity
from cingulum.features.quantified import ArrivalTime, BloodFlow
from cingulum.features.seed_connectivity import SeedConnectivity
from cingulum.features.tangent import Tangent

FEATURES: Mapping[str, Callable[[FeatureOptions], Feature]] = MappingProxyType(
    {
        "s1conn": lambda of: SeedConnectivity(**of.seed),
        "rcbf": lambda of: RelativePerfusion(),
        "cbf": lambda of: RegionalPerfusion(of.atlas),
        "cbfmap": lambda of: BloodFlow(),
        "att": lambda of: ArrivalTime(),
        "hfhrv": lambda of: HighFrequencyVariability(),
        "hrv": lambda of: HeartRateVariability(of.spectrum),
        "fc": lambda of: ParcelConnectivity(of.atlas, of.fc),
        "fcd": lambda of: ConnectivityDynamics(of.atlas),
        "mechanism": lambda of: Mechanism(atlas=of.atlas, connectome=of.connectome),
        "physiology": lambda of: physiology(of.atlas, of.connectome),
        "motion": lambda of: HeadMotion(),
        "quality": lambda of: Quality(of.atlas),
    }
)
"""Every feature by name, as a study's choices make it."""

__all__ = [
    "FEATURES",
    "ArrivalTime",
    "BloodFlow",
    "Choices",
    "Column",
    "ConnectivityDynamics",
    "Feature",
    "HeadMotion",
    "HeartRateVariability",
    "HighFrequencyVariability",
    "Measurement",
    "Origin",
    "Mechanism",
    "ParcelConnectivity",
    "Quality",
    "RegionalPerfusion",
    "RelativePerfusion",
    "SeedConnectivity",
    "Tangent",
    "physiology",
]
