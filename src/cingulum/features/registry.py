"""Every feature by name, and what studies ask of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from cingulum.errors import InputError
from cingulum.features.feature import Control, Feature, FeatureOptions, Role
from cingulum.io.recording_kinds import RecordingKind

FeatureClass = TypeVar("FeatureClass", bound=type[Feature])

REQUIRED = ("name", "label", "summary", "unit", "meaning", "needs", "file")
"""What a feature must declare before it can be registered."""

# Only `register_feature` writes to it; everybody else has the read-only view below.
_REGISTERED: dict[str, type[Feature]] = {}

FEATURES: Mapping[str, type[Feature]] = MappingProxyType(_REGISTERED)
"""Every registered feature by name, in the order of registration."""


def register_feature(feature: FeatureClass) -> FeatureClass:
    """Class decorator: make a feature known to every command and report.

    Raises ValueError for a missing fact, or a name that another feature has.
    """
    _check_facts(feature)
    _check_name(feature)
    _REGISTERED[feature.name] = feature
    return feature


def _check_facts(feature: type[Feature]) -> None:
    missing = [fact for fact in REQUIRED if not hasattr(feature, fact)]
    if missing:
        raise ValueError(
            f"{feature.__name__} must declare {', '.join(missing)} before it can be "
            "registered as a feature."
        )


def _check_name(feature: type[Feature]) -> None:
    namesake = _REGISTERED.get(feature.name)
    # A notebook cell that is run again defines the same class a second time.
    if namesake is not None and namesake.__qualname__ != feature.__qualname__:
        raise ValueError(
            f"{feature.__name__}: the feature {namesake.__name__} is called "
            f"{feature.name!r} already; choose another name."
        )


def build_features(
    names: Sequence[str], options: FeatureOptions | None = None
) -> dict[str, Feature]:
    """Features by name, as a study's options make them.

    Raises InputError for an unknown name.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown or not names:
        raise InputError(f"Unknown feature {', '.join(unknown)}. {_known()}")
    options = options or FeatureOptions()
    return {name: FEATURES[name].from_options(options) for name in names}


def _known() -> str:
    return f"Known are {', '.join(FEATURES)}."


def study_features(
    names: Sequence[str], options: FeatureOptions | None = None
) -> dict[str, Feature]:
    """The features of a study, and beside them its controls and quality features: head
    motion and quality beside BOLD, heart rate and breathing beside the pulse.

    Raises InputError for an unknown name.
    """
    if not names:
        raise InputError(f"At least one feature must be measured. {_known()}")
    chosen = build_features(names, options)
    return build_features([*names, *_measured_beside(chosen)], options)


def _measured_beside(features: Mapping[str, Feature]) -> list[str]:
    """Names of the controls and quality features of the same recordings."""
    recordings: set[str] = set()
    for feature in features.values():
        recordings |= _names(feature.needs)
    return [f.name for f in _by_role() if recordings & _names(f.measured_beside)]


# Kinds hold dictionaries, and so cannot be in a set themselves.
def _names(kinds: Iterable[RecordingKind]) -> set[str]:
    return {kind.name for kind in kinds}


def _by_role() -> list[type[Feature]]:
    """Every feature: predictors, then controls, then what is only shown."""
    # Stable: within a role, features stay in the order of registration.
    roles = list(Role)
    return sorted(FEATURES.values(), key=lambda feature: roles.index(feature.role))


def predictor_names() -> tuple[str, ...]:
    """Features that a study may predict from."""
    return tuple(n for n, f in FEATURES.items() if f.role is Role.PREDICTOR)


def default_predictor_names() -> tuple[str, ...]:
    """Features that a study predicts from where it does not say which."""
    return tuple(n for n, f in FEATURES.items() if f.chosen_by_default)


def quality_feature_names() -> tuple[str, ...]:
    """Features that tell how good recordings are, and predict nothing."""
    roles = (Role.CONTROL, Role.QUALITY)
    return tuple(feature.name for feature in _by_role() if feature.role in roles)


def all_controls() -> Iterator[tuple[type[Feature], Control]]:
    """Every control with the feature whose column it is."""
    for feature in _by_role():
        for control in feature.controls:
            yield feature, control


def control_names() -> tuple[str, ...]:
    """What studies score by itself and keep out of the fusion."""
    return tuple(control.name for _, control in all_controls())


def model_label(name: str) -> str:
    """What a model is called for a reader: of a feature, a control, or all fused."""
    if name == "fused":
        return "All fused"
    described = _control_or_feature(name)
    if described is None:
        return name
    return described.label


def model_colour(name: str) -> str:
    """The colour of a model in every figure."""
    if name == "fused":
        return "#1c2430"
    described = _control_or_feature(name)
    if described is None:
        return "#56606e"
    return described.colour


def _control_or_feature(name: str) -> Control | type[Feature] | None:
    # First controls: a control has its own label where it shares a feature's name.
    for _, control in all_controls():
        if control.name == name:
            return control
    return FEATURES.get(name)
