"""One row per visit. To add a feature: write its file, import it here."""

from cingulum.features.feature import (
    Column,
    ColumnKind,
    Control,
    Feature,
    FeatureOption,
    FeatureOptions,
    FeatureRows,
    Measurement,
    Origin,
    Role,
    StudyRecipe,
)
from cingulum.features.registry import (
    FEATURES,
    build_features,
    default_predictor_names,
    predictor_names,
    register_feature,
    study_features,
)

# The order of these imports is the order of the features everywhere.
# isort: off
from cingulum.features.seed_connectivity import SeedConnectivity
from cingulum.features.blood_flow import RelativePerfusion, RegionalPerfusion
from cingulum.features.quantified import BloodFlow, ArrivalTime
from cingulum.features.heart_rate import HighFrequencyVariability, HeartRateVariability
from cingulum.features.parcel_connectivity import ParcelConnectivity
from cingulum.features.connectivity_dynamics import ConnectivityDynamics
from cingulum.features.mechanism import Mechanism, Physiology
from cingulum.features.motion import HeadMotion
from cingulum.features.bold_quality import BoldQuality
# isort: on

__all__ = [
    "FEATURES",
    "ArrivalTime",
    "BloodFlow",
    "BoldQuality",
    "Column",
    "ColumnKind",
    "ConnectivityDynamics",
    "Control",
    "Feature",
    "FeatureOption",
    "FeatureOptions",
    "FeatureRows",
    "HeadMotion",
    "HeartRateVariability",
    "HighFrequencyVariability",
    "Measurement",
    "Mechanism",
    "Origin",
    "ParcelConnectivity",
    "Physiology",
    "RegionalPerfusion",
    "RelativePerfusion",
    "Role",
    "SeedConnectivity",
    "StudyRecipe",
    "build_features",
    "default_predictor_names",
    "predictor_names",
    "register_feature",
    "study_features",
]
