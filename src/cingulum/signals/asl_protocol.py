"""How an ASL run was acquired, from its BIDS sidecar: every value checked for presence,
unit and plausibility."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cingulum.errors import InputError
from cingulum.io.checks import all_between, are_numbers, is_number
from cingulum.io.files import JsonObject
from cingulum.signals.asl_kinetics import PARTITION, T1_BLOOD, T1_TISSUE

EFFICIENCY = {"CASL": 0.68, "PCASL": 0.85, "PASL": 0.98}
"""α by labelling: Alsop et al. 2015, doi:10.1002/mrm.25197; CASL Wang et al. 2005,
doi:10.1148/radiol.2351031663."""

PULSE_EFFICIENCY = 0.95
"""What each background suppression pulse leaves of the label: a convention of ASLPrep
and others, no measurement."""

VOLUME_TYPES = frozenset({"control", "label", "m0scan", "deltam", "cbf", "noRF", "n/a"})
"""What aslcontext.tsv may call a volume (BIDS)."""

UNLABELLED_TYPES = frozenset({"cbf", "m0scan", "n/a", "noRF"})
"""Volumes that need no delay and no label duration."""

M0_TYPES = ("Separate", "Included", "Estimate", "Absent")

LOOK_LOCKER_FLAG = (
    "Look-Locker readout: what its pulses take of the label is not modelled, flow "
    "reads too low"
)
SLICE_TIMING_FLAG = (
    "SliceTiming missing in a 2-D readout: upper slices are read later than assumed"
)

DEFAULT_FIELD_STRENGTH = 3.0
"""T, where the sidecar gives none: that of most ASL studies."""

LONGEST = 6.0
"""s: no delay and no slice of an ASL run is later."""


@dataclass(frozen=True)
class Constants:
    """What a quantification takes from the literature; None: by field strength and
    labelling (docs/recordings.md).

    t1b, t1t: T1 of blood and grey matter, s
    alpha: efficiency of labelling
    lam: partition coefficient, ml/g
    """

    t1b: float | None = None
    t1t: float | None = None
    alpha: float | None = None
    lam: float = PARTITION


@dataclass(frozen=True, eq=False)
class Protocol:
    """An ASL acquisition; times in s, one value per volume where volumes may differ.

    labelling: CASL, PCASL or PASL
    volume_type: as aslcontext.tsv names them
    pld: (volume,) delay after labelling, for PASL the inversion time TI
    tau: (volume,) label duration, for PASL the time to bolus cut-off (TI1)
    slices: when each slice is read out after the first, of a shape that broadcasts with
        (x, y, z); 0 for 3-D readouts
    tr: (volume,) RepetitionTimePreparation
    flags: what a reader should know, by name
    """

    labelling: str
    volume_type: tuple[str, ...]
    pld: np.ndarray
    tau: np.ndarray
    slices: np.ndarray
    tr: np.ndarray
    alpha: float
    field_strength: float
    t1b: float
    t1t: float
    m0_type: str
    m0_estimate: float | None
    suppressed: bool
    flags: tuple[str, ...] = field(default=())

    @property
    def pulsed(self) -> bool:
        return self.labelling == "PASL"

    def volumes(self, kind: str) -> np.ndarray:
        """Indices of the volumes of one type."""
        return np.flatnonzero(np.array(self.volume_type) == kind)


def read_protocol(
    path: Path,
    fields: JsonObject,
    volume_type: tuple[str, ...],
    shape: tuple[int, ...],
    constants: Constants = Constants(),
) -> Protocol:
    """The protocol of a run of len(volume_type) volumes of `shape` (x, y, z).

    constants: alpha, t1b and t1t replace those of the sidecar and the literature where
        they are not None
    Raises InputError, by field, for what is missing or cannot be (a delay in ms, a TR
    of zero, …).
    """
    _check_volume_types(path, volume_type)
    sidecar = _Sidecar(Path(path), fields, len(volume_type))
    labelling = sidecar.choice("ArterialSpinLabelingType", tuple(EFFICIENCY))
    m0_type = sidecar.choice("M0Type", M0_TYPES)
    strength = sidecar.number(
        "MagneticFieldStrength", 0.3, 12.0, DEFAULT_FIELD_STRENGTH
    )
    # T1 changes little over the 0.1 T by which magnets of one name differ.
    nearest = _nearest_field_strength(strength)
    return Protocol(
        labelling,
        volume_type,
        pld=_delays(sidecar, volume_type),
        tau=_durations(sidecar, volume_type, labelling),
        slices=_slice_times(sidecar, shape),
        tr=_repetition_times(sidecar),
        alpha=constants.alpha or _efficiency(sidecar, labelling),
        field_strength=strength,
        t1b=constants.t1b or T1_BLOOD[nearest],
        t1t=constants.t1t or T1_TISSUE[nearest],
        m0_type=m0_type,
        m0_estimate=_m0_estimate(sidecar, m0_type),
        suppressed=sidecar.suppressed,
        flags=_flags(sidecar, strength, constants),
    )


def _check_volume_types(path: Path, volume_type: tuple[str, ...]) -> None:
    unknown = sorted(set(volume_type) - VOLUME_TYPES)
    if unknown:
        raise InputError(
            f"{path}: aslcontext names {', '.join(unknown)}; BIDS knows "
            f"{', '.join(sorted(VOLUME_TYPES))}."
        )


@dataclass(frozen=True)
class _Sidecar:
    """The fields of a run's JSON file; each is checked when it is read."""

    path: Path
    fields: JsonObject
    volumes: int

    @property
    def suppressed(self) -> bool:
        """Whether background signal was suppressed."""
        return bool(self.fields.get("BackgroundSuppression", False))

    def error(self, text: str) -> InputError:
        return InputError(f"{self.path}: {text}")

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        value = self.fields.get(name)
        if value not in known:
            raise self.error(
                f"its JSON must give {name}, one of {', '.join(known)}; got {value!r}."
            )
        return str(value)

    def number(
        self, name: str, low: float, high: float, default: float | None = None
    ) -> float:
        value = self.fields.get(name, default)
        if not is_number(value) or not low <= value <= high:
            raise self.error(
                f"{name} must be a number from {low:g} to {high:g}; got {value!r}."
            )
        return float(value)

    def seconds(self, name: str, low: float, high: float) -> np.ndarray:
        """(volume,) of a field with one number or one per volume, in seconds."""
        seconds = self._numbers(name)
        if len(seconds) not in (1, self.volumes):
            raise self.error(
                f"{name} has {len(seconds)} values for {self.volumes} volumes."
            )
        self._check_range(name, seconds, low, high)
        # A copy, since a broadcast array cannot be written to.
        return np.broadcast_to(seconds, (self.volumes,)).copy()

    def _check_range(
        self, name: str, seconds: np.ndarray, low: float, high: float
    ) -> None:
        if not all_between(seconds, low, high):
            raise self.error(
                f"{name} must be {low:g} to {high:g} s; got {self.fields.get(name)!r}."
                f"{_milliseconds_hint(seconds.max(), high)}"
            )

    def _numbers(self, name: str) -> np.ndarray:
        value = self.fields.get(name)
        values = value if isinstance(value, list) else [value]
        if not values or not are_numbers(values):
            raise self.error(
                f"its JSON must give {name} in seconds (BIDS requires it); got "
                f"{value!r}."
            )
        return np.asarray(values, dtype=float)


def _milliseconds_hint(largest: float, high: float) -> str:
    if largest <= 10 * high:
        return ""
    return f" {largest:g} looks like milliseconds; BIDS has seconds."


def _nearest_field_strength(strength: float) -> float:
    """The field strength, of those with published T1, that is closest."""
    return min(T1_BLOOD, key=lambda known: abs(known - strength))


def _delays(sidecar: _Sidecar, volume_type: tuple[str, ...]) -> np.ndarray:
    if _only_unlabelled(volume_type):
        return np.zeros(len(volume_type))
    return sidecar.seconds("PostLabelingDelay", 0.0, LONGEST)


def _durations(
    sidecar: _Sidecar, volume_type: tuple[str, ...], labelling: str
) -> np.ndarray:
    if _only_unlabelled(volume_type):
        # Maps that the scanner computed need no label duration.
        return np.ones(len(volume_type))
    if labelling == "PASL":
        return _bolus_duration(sidecar)
    return sidecar.seconds("LabelingDuration", 0.0, 5.0)


def _only_unlabelled(volume_type: tuple[str, ...]) -> bool:
    return set(volume_type) <= UNLABELLED_TYPES


def _bolus_duration(sidecar: _Sidecar) -> np.ndarray:
    _check_bolus_cut_off(sidecar)
    delay = sidecar.fields.get("BolusCutOffDelayTime")
    # Q2TIPS cuts the bolus off by several pulses; the first ends it.
    first = first_value(delay)
    if not _is_bolus_length(first):
        raise sidecar.error(
            "PASL needs BolusCutOffDelayTime, 0.1 to 3 s (Q2TIPS: first and last); got "
            f"{delay!r}."
        )
    return np.full(sidecar.volumes, float(first))


def _is_bolus_length(value: Any) -> bool:
    return is_number(value) and 0.1 <= value <= 3


def _check_bolus_cut_off(sidecar: _Sidecar) -> None:
    if sidecar.fields.get("BolusCutOffFlag") is not True:
        raise sidecar.error(
            "PASL without bolus cut-off (BolusCutOffFlag must be true): the length of "
            "the bolus is unknown, so that its signal cannot be turned into flow. "
            "Quantify relative signal elsewhere."
        )


def first_value(value: Any) -> Any:
    """The first of a list, or the value itself: BIDS allows both for many fields."""
    if isinstance(value, list) and value:
        return value[0]
    return value


def _slice_times(sidecar: _Sidecar, shape: tuple[int, ...]) -> np.ndarray:
    """As in `Protocol.slices`."""
    listed = sidecar.fields.get("SliceTiming")
    # A 3-D readout has no slices, whatever a converter wrote.
    if sidecar.fields.get("MRAcquisitionType") == "3D" or listed is None:
        return np.zeros((1, 1, 1))
    direction = _slice_direction(sidecar)
    axis = "ijk".index(direction[0])
    times = _checked_slice_times(sidecar, listed, shape[axis])
    # With −, BIDS counts from the last slice.
    if direction.endswith("-"):
        times = times[::-1]
    return _along(axis, times)


def _along(axis: int, times: np.ndarray) -> np.ndarray:
    """Times of a shape that broadcasts with (x, y, z)."""
    shape = [1, 1, 1]
    shape[axis] = -1
    return times.reshape(shape)


def _slice_direction(sidecar: _Sidecar) -> str:
    # BIDS: along the third axis where nothing else is stated.
    direction = sidecar.fields.get("SliceEncodingDirection", "k")
    if direction not in ("i", "j", "k", "i-", "j-", "k-"):
        raise sidecar.error(
            "SliceEncodingDirection must be i, j or k, with or without -; got "
            f"{direction!r}."
        )
    return direction


def _checked_slice_times(sidecar: _Sidecar, listed: Any, slices: int) -> np.ndarray:
    """Times (slice,) after the first."""
    if not are_numbers(listed):
        raise sidecar.error(f"SliceTiming must be a list of seconds; got {listed!r}.")
    if len(listed) != slices:
        raise sidecar.error(
            f"SliceTiming has {len(listed)} values for {slices} slices."
        )
    times = np.asarray(listed, dtype=float)
    _check_slice_range(sidecar, times)
    # The delay is that of the slice read out first, whatever its time is called.
    return times - times.min()


def _check_slice_range(sidecar: _Sidecar, times: np.ndarray) -> None:
    if not all_between(times, 0.0, LONGEST):
        raise sidecar.error(
            f"SliceTiming must be 0 to {LONGEST:g} s (is it in ms?); its largest is "
            f"{times.max():g}."
        )


def _repetition_times(sidecar: _Sidecar) -> np.ndarray:
    times = sidecar.seconds("RepetitionTimePreparation", 0.0, 30.0)
    if (times <= 0).any():
        raise sidecar.error(
            "RepetitionTimePreparation is 0 (which made other programs write zero flow "
            "without a word). Enter the true repetition time, s; vendors' converters "
            "often leave it out."
        )
    return times


def _efficiency(sidecar: _Sidecar, labelling: str) -> float:
    if "LabelingEfficiency" in sidecar.fields:
        return sidecar.number("LabelingEfficiency", 0.2, 1.0)
    if not sidecar.suppressed:
        return EFFICIENCY[labelling]
    # Every suppression pulse also inverts the label, and none inverts perfectly.
    return EFFICIENCY[labelling] * PULSE_EFFICIENCY ** _suppression_pulses(sidecar)


def _suppression_pulses(sidecar: _Sidecar) -> float:
    pulses = sidecar.fields.get("BackgroundSuppressionNumberPulses")
    # The fewest that suppress anything; `_suppression_flags` tells the reader.
    if pulses is None:
        return 1
    _check_pulses(sidecar, pulses)
    return pulses


def _check_pulses(sidecar: _Sidecar, pulses: Any) -> None:
    if not is_number(pulses) or not 0 <= pulses <= 10:
        raise sidecar.error(
            f"BackgroundSuppressionNumberPulses must be 0 to 10; got {pulses!r}."
        )


def _m0_estimate(sidecar: _Sidecar, m0_type: str) -> float | None:
    if m0_type != "Estimate":
        return None
    return sidecar.number("M0Estimate", 1e-6, 1e12)


def _flags(sidecar: _Sidecar, strength: float, constants: Constants) -> tuple[str, ...]:
    """What was assumed where the sidecar says too little."""
    return (
        *_field_strength_flags(sidecar, strength, constants),
        *_readout_flags(sidecar),
        *_suppression_flags(sidecar, constants),
    )


def _field_strength_flags(
    sidecar: _Sidecar, strength: float, constants: Constants
) -> list[str]:
    flags = []
    if "MagneticFieldStrength" not in sidecar.fields:
        flags.append("MagneticFieldStrength missing: 3 T assumed")
    # Both T1 may be the user's own.
    if constants.t1b is None or constants.t1t is None:
        flags += _relaxation_flags(strength)
    return flags


def _relaxation_flags(strength: float) -> list[str]:
    nearest = _nearest_field_strength(strength)
    # 2.89 T is 3 T; at 2 T no published T1 is near.
    if abs(nearest - strength) <= 0.3:
        return []
    return [f"T1 at {strength:g} T taken from {nearest:g} T"]


def _readout_flags(sidecar: _Sidecar) -> list[str]:
    flags = []
    if sidecar.fields.get("LookLocker") is True:
        flags.append(LOOK_LOCKER_FLAG)
    if _lacks_slice_times(sidecar.fields):
        flags.append(SLICE_TIMING_FLAG)
    return flags


def _lacks_slice_times(fields: JsonObject) -> bool:
    return fields.get("MRAcquisitionType") == "2D" and fields.get("SliceTiming") is None


def _suppression_flags(sidecar: _Sidecar, constants: Constants) -> list[str]:
    """A flag where the efficiency rests on an assumed number of pulses."""
    # An efficiency that somebody states includes the pulses.
    if constants.alpha or "LabelingEfficiency" in sidecar.fields:
        return []
    pulses = sidecar.fields.get("BackgroundSuppressionNumberPulses")
    if not sidecar.suppressed or pulses is not None:
        return []
    return ["BackgroundSuppressionNumberPulses missing: one pulse assumed"]
