"""How an ASL run was acquired, from its BIDS sidecar: every value checked for presence,
unit and plausibility."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cingulum.errors import InputError
from cingulum.signals.asl_kinetics import T1_BLOOD, T1_TISSUE

EFFICIENCY = {"CASL": 0.68, "PCASL": 0.85, "PASL": 0.98}
"""α by labelling: Alsop et al. 2015, doi:10.1002/mrm.25197; CASL Wang et al. 2005,
doi:10.1148/radiol.2351031663."""

PULSE_EFFICIENCY = 0.95
"""What each background suppression pulse leaves of the label: a convention of ASLPrep
and others, no measurement."""

VOLUMES = frozenset({"control", "label", "m0scan", "deltam", "cbf", "noRF", "n/a"})


@dataclass(frozen=True, eq=False)
class Protocol:
    """An ASL acquisition; times in s, one value a volume where volumes may differ.

    labelling: CASL, PCASL or PASL; volume_type: as aslcontext.tsv names them
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

    def where(self, kind: str) -> np.ndarray:
        """Indices of the volumes of one type."""
        return np.flatnonzero(np.array(self.volume_type) == kind)


def read_protocol(
    path: Path,
    fields: Mapping[str, Any],
    volume_type: tuple[str, ...],
    shape: tuple[int, ...],
    constants: Mapping[str, float],
) -> Protocol:
    """The protocol of a run of len(volume_type) volumes of `shape` (x, y, z).

    constants: alpha, t1b or t1t where the user's values shall replace those of the
    sidecar and the literature Raises InputError, by field, for what is missing or
    cannot be (a delay in ms, a TR of zero, …).
    """
    flags: list[str] = []
    read = _Fields(path, fields, len(volume_type))
    unknown = sorted(set(volume_type) - VOLUMES)
    if unknown:
        raise InputError(
            f"{path}: aslcontext names {', '.join(unknown)}; BIDS knows "
            f"{', '.join(sorted(VOLUMES))}."
        )
    labelling = read.choice("ArterialSpinLabelingType", tuple(EFFICIENCY))
    m0_type = read.choice("M0Type", ("Separate", "Included", "Estimate", "Absent"))
    strength = read.number("MagneticFieldStrength", 0.3, 12.0, default=3.0)
    if "MagneticFieldStrength" not in fields:
        flags.append("MagneticFieldStrength missing: 3 T assumed")
    nearest = min(T1_BLOOD, key=lambda known: abs(known - strength))
    if abs(nearest - strength) > 0.3 and not {"t1b", "t1t"} <= set(constants):
        flags.append(f"T1 at {strength:g} T taken from {nearest:g} T")
    if fields.get("LookLocker") is True:
        flags.append(
            "Look-Locker readout: what its pulses take of the label is not modelled, "
            "flow reads too low"
        )
    suppressed = bool(fields.get("BackgroundSuppression", False))
    flow_only = set(volume_type) <= {"cbf", "m0scan", "n/a", "noRF"}
    return Protocol(
        labelling,
        volume_type,
        np.zeros(len(volume_type))
        if flow_only
        else read.seconds("PostLabelingDelay", 0.0, 6.0),
        np.ones(len(volume_type)) if flow_only else _duration(read, labelling),
        _slice_times(read, shape, flags),
        _repetition(read),
        constants.get("alpha") or _efficiency(read, labelling, suppressed, flags),
        strength,
        constants.get("t1b") or T1_BLOOD[nearest],
        constants.get("t1t") or T1_TISSUE[nearest],
        m0_type,
        read.number("M0Estimate", 1e-6, 1e12) if m0_type == "Estimate" else None,
        suppressed,
        tuple(flags),
    )


@dataclass(frozen=True)
class _Fields:
    """A sidecar whose values are asked for one by one."""

    path: Path
    fields: Mapping[str, Any]
    volumes: int

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        value = self.fields.get(name)
        if value not in known:
            raise InputError(
                f"{self.path}: its JSON must give {name}, one of {', '.join(known)}; "
                f"came {value!r}."
            )
        return str(value)

    def number(
        self, name: str, low: float, high: float, default: float | None = None
    ) -> float:
        value = self.fields.get(name, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            raise InputError(
                f"{self.path}: {name} must be a number from {low:g} to {high:g}; came "
                f"{value!r}."
            )
        return float(value)

    def seconds(self, name: str, low: float, high: float) -> np.ndarray:
        """(volume,) of a field that is one number or one a volume, in seconds."""
        value = self.fields.get(name)
        values = value if isinstance(value, list) else [value]
        if not values or any(
            isinstance(v, bool) or not isinstance(v, int | float) for v in values
        ):
            raise InputError(
                f"{self.path}: its JSON must give {name} in seconds (BIDS requires "
                f"it); came {value!r}."
            )
        found = np.asarray(values, dtype=float)
        if len(found) not in (1, self.volumes):
            raise InputError(
                f"{self.path}: {name} has {len(found)} values for {self.volumes} "
                "volumes."
            )
        if not np.isfinite(found).all() or found.min() < low or found.max() > high:
            hint = (
                f" {found.max():g} looks like milliseconds; BIDS has seconds."
                if found.max() > 10 * high
                else ""
            )
            raise InputError(
                f"{self.path}: {name} must be {low:g} to {high:g} s; came "
                f"{value!r}.{hint}"
            )
        return np.broadcast_to(found, (self.volumes,)).copy()


def _duration(read: _Fields, labelling: str) -> np.ndarray:
    if labelling != "PASL":
        return read.seconds("LabelingDuration", 0.0, 5.0)
    if read.fields.get("BolusCutOffFlag") is not True:
        raise InputError(
            f"{read.path}: PASL without bolus cut-off (BolusCutOffFlag must be true): "
            "the length of the bolus is "
            "unknown, so that its signal cannot be turned into flow. Quantify relative "
            "signal elsewhere."
        )
    cut = read.fields.get("BolusCutOffDelayTime")
    first = cut[0] if isinstance(cut, list) and cut else cut
    if (
        isinstance(first, bool)
        or not isinstance(first, int | float)
        or not 0.1 <= first <= 3
    ):
        raise InputError(
            f"{read.path}: PASL needs BolusCutOffDelayTime, 0.1 to 3 s (Q2TIPS: first "
            f"and last); came {cut!r}."
        )
    return np.full(read.volumes, float(first))


def _slice_times(read: _Fields, shape: tuple[int, ...], flags: list[str]) -> np.ndarray:
    times, none = read.fields.get("SliceTiming"), np.zeros((1, 1, 1))
    if read.fields.get("MRAcquisitionType") == "3D":
        return none
    if times is None:
        if read.fields.get("MRAcquisitionType") == "2D":
            flags.append(
                "SliceTiming missing in a 2-D readout: upper slices are read later "
                "than assumed"
            )
        return none
    direction = read.fields.get("SliceEncodingDirection", "k")
    if direction not in ("i", "j", "k", "i-", "j-", "k-"):
        raise InputError(
            f"{read.path}: SliceEncodingDirection must be i, j or k, with or without "
            f"-; came {direction!r}."
        )
    axis = "ijk".index(direction[0])
    if not isinstance(times, list) or any(
        isinstance(v, bool) or not isinstance(v, int | float) for v in times
    ):
        raise InputError(
            f"{read.path}: SliceTiming must be a list of seconds; came {times!r}."
        )
    if len(times) != shape[axis]:
        raise InputError(
            f"{read.path}: SliceTiming has {len(times)} values for {shape[axis]} "
            "slices."
        )
    found = np.asarray(times, dtype=float)
    if not np.isfinite(found).all() or found.min() < 0 or found.max() > 6:
        raise InputError(
            f"{read.path}: SliceTiming must be 0 to 6 s (is it in ms?); its largest is "
            f"{found.max():g}."
        )
    found = (found - found.min())[
        :: -1 if direction.endswith("-") else 1
    ]  # with −, BIDS counts from the last slice
    return found.reshape([-1 if other == axis else 1 for other in range(3)])


def _repetition(read: _Fields) -> np.ndarray:
    found = read.seconds("RepetitionTimePreparation", 0.0, 30.0)
    if (found <= 0).any():
        raise InputError(
            f"{read.path}: RepetitionTimePreparation is 0 (which made other programs "
            "write zero flow without a word). "
            "Enter the true repetition time, s; vendors' converters often leave it out."
        )
    return found


def _efficiency(
    read: _Fields, labelling: str, suppressed: bool, flags: list[str]
) -> float:
    if "LabelingEfficiency" in read.fields:
        return read.number("LabelingEfficiency", 0.2, 1.0)
    if not suppressed:
        return EFFICIENCY[labelling]
    pulses = read.fields.get("BackgroundSuppressionNumberPulses")
    if pulses is None:
        flags.append("BackgroundSuppressionNumberPulses missing: one pulse assumed")
        pulses = 1
    if (
        isinstance(pulses, bool)
        or not isinstance(pulses, int | float)
        or not 0 <= pulses <= 10
        or not math.isfinite(pulses)
    ):
        raise InputError(
            f"{read.path}: BackgroundSuppressionNumberPulses must be 0 to 10; came "
            f"{pulses!r}."
        )
    return EFFICIENCY[labelling] * PULSE_EFFICIENCY**pulses
