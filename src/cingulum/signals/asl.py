"""Cerebral blood flow: a map read from ASLPrep and its kind, or quantified from raw ASL
as BIDS describes it."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cingulum.errors import InputError
from cingulum.io.checks import is_number
from cingulum.io.files import JsonObject, read_table
from cingulum.io.images import check_same_grid, read_header, read_image
from cingulum.io.spaces import space_of
from cingulum.io.visit import Visit
from cingulum.signals.asl_kinetics import (
    PER_100_G_MIN,
    Kinetics,
    invert,
    single_delay_pasl,
    single_delay_pcasl,
)
from cingulum.signals.asl_protocol import (
    Constants,
    Protocol,
    first_value,
    read_protocol,
)

PLAUSIBLE = (5.0, 200.0)
"""ml/100 g/min: a brain's mean outside of this is an error of quantification."""

USUAL = (20.0, 100.0)
"""ml/100 g/min: a brain's mean outside of this is flagged."""

LARGEST_DIFFERENCE = 0.05
"""Of M0: a mean difference above this is none of blood; 0.001 to 0.03 is usual."""

LONG_TR = 5.0
"""s: an M0 image with a shorter repetition time has not recovered and is corrected
(Alsop et al. 2015)."""

SHORT_DELAY = 1.5
"""s: with a shorter delay, part of the label is still in arteries."""


@dataclass(frozen=True, eq=False)
class Perfusion:
    """CBF (x, y, z) in ml/100 g/min, zero outside the brain `mask`, with its affine and
    origin.

    space: the space in the file's name, empty for native space
    arrival: arterial arrival time (x, y, z) in s, of multi-delay runs
    equation: with the values put into it
    settings: for the sidecar
    flags: what a reader should know, by name
    """

    cbf: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    space: str = ""
    arrival: np.ndarray | None = None
    equation: str = ""
    settings: JsonObject = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _AslRun:
    """A raw ASL run: image, data (x, y, z, volume) and protocol."""

    visit: Visit
    image: nib.Nifti1Image
    data: np.ndarray
    protocol: Protocol

    @property
    def path(self) -> Path:
        return self.visit["asl"]

    @property
    def affine(self) -> np.ndarray:
        return self.image.affine

    def mean(self, volumes: np.ndarray) -> np.ndarray:
        """Mean (x, y, z) over some volumes."""
        return self.data[..., volumes].mean(-1)


@dataclass(frozen=True, eq=False)
class _Differences:
    """Mean ΔM (x, y, z, delay) with delays and label durations (delay,), s."""

    values: np.ndarray
    delays: np.ndarray
    durations: np.ndarray
    flags: tuple[str, ...]

    @property
    def single(self) -> bool:
        return len(self.delays) == 1


@dataclass(frozen=True, eq=False)
class _Equilibrium:
    """Equilibrium magnetisation M0 (x, y, z)."""

    values: np.ndarray
    flags: tuple[str, ...] = ()

    @property
    def divisor(self) -> np.ndarray:
        # Where M0 is zero, an infinite divisor gives zero without a warning.
        return np.where(self.values > 0, self.values, np.inf)


@dataclass(frozen=True, eq=False)
class _Solution:
    """CBF (x, y, z), arrival (x, y, z) where it was fitted, and the equation."""

    cbf: np.ndarray
    arrival: np.ndarray | None
    equation: str


def read_perfusion(visit: Visit, constants: Constants = Constants()) -> Perfusion:
    """A visit's blood flow: the CBF map where there is one, else quantified from its
    ASL run.

    Raises InputError where neither is there, or where the flow cannot be that of a
    brain.
    """
    # A visit with neither gets the error that asks for a CBF map.
    if visit.has("perfusion") or not visit.has("asl"):
        return _read_map(visit)
    return quantify(visit, constants)


def quantify(visit: Visit, constants: Constants = Constants()) -> Perfusion:
    """CBF from an ASL run, its context and M0: one delay by the consensus equation,
    several by the kinetic model.

    Raises InputError, naming the field or file, for all that docs/recordings.md lists:
    what is missing, in a wrong unit, swapped or implausible.
    """
    run = _read_run(visit, constants)
    # Blood flow that the scanner computed needs no M0 and no differences.
    if len(run.protocol.volumes("cbf")):
        return _scanner_map(run)
    return _quantified(run, constants)


def _quantified(run: _AslRun, constants: Constants) -> Perfusion:
    differences = _differences(run)
    m0 = _equilibrium(run)
    mask = _brain_mask(run, m0)
    ratio = _relative_difference(differences, m0, mask)
    # Before any fit, since swapped labels would fit well with negative flow.
    _check_sign(run, ratio[mask])
    solve = _solve_single_delay if differences.single else _solve_several_delays
    solution = solve(ratio, mask, differences, run.protocol, constants)
    perfusion = Perfusion(
        solution.cbf,
        mask,
        run.affine,
        arrival=solution.arrival,
        equation=solution.equation,
        settings=_settings(run.protocol, differences, constants, solution),
        flags=_quantification_flags(run.protocol, differences, m0),
    )
    return _checked(run.path, perfusion)


def _read_run(visit: Visit, constants: Constants) -> _AslRun:
    path = visit["asl"]
    image = _read_any_dimensions(path)
    data = _with_volume_axis(np.asarray(image.dataobj, dtype=float))
    context = _read_context(visit["aslcontext"], data.shape[-1])
    fields = visit.metadata("asl")
    protocol = read_protocol(path, fields, context, data.shape[:3], constants)
    return _AslRun(visit, image, data, protocol)


def _with_volume_axis(data: np.ndarray) -> np.ndarray:
    # A single deltam or cbf volume may be written without a fourth axis.
    if data.ndim < 4:
        return data[..., None]
    return data


def _read_any_dimensions(path: Path) -> nib.Nifti1Image:
    return read_image(path, len(read_header(path).get_data_shape()))


def _read_context(path: Path, volumes: int) -> tuple[str, ...]:
    """The type of every volume."""
    # pandas would read the type "n/a" as a missing value.
    table = read_table(path, keep_default_na=False)
    if "volume_type" not in table:
        raise InputError(
            f"{path}: expected a column volume_type; got {', '.join(map(str, table))}."
        )
    # An empty cell at the end of a row is read as missing all the same.
    types = table["volume_type"].fillna("n/a").astype(str).str.strip()
    _check_length(path, len(types), volumes)
    return tuple(types)


def _check_length(path: Path, named: int, volumes: int) -> None:
    if named != volumes:
        raise InputError(f"{path}: names {named} volumes; the run has {volumes}.")


def _relative_difference(
    differences: _Differences, m0: _Equilibrium, mask: np.ndarray
) -> np.ndarray:
    """ΔM/M0 (x, y, z, delay), zero outside the mask."""
    ratio = differences.values / m0.divisor[..., None]
    return np.where(mask[..., None], ratio, 0.0)


def _settings(
    protocol: Protocol,
    differences: _Differences,
    constants: Constants,
    solution: _Solution,
) -> JsonObject:
    """For the sidecar, in BIDS' names where it has them."""
    return {
        "ArterialSpinLabelingType": protocol.labelling,
        "Delays": differences.delays.tolist(),
        "LabelDuration": differences.durations.tolist(),
        "SliceTimes": protocol.slices.ravel().tolist(),
        "LabelingEfficiency": protocol.alpha,
        "T1Blood": protocol.t1b,
        "T1Tissue": protocol.t1t,
        "PartitionCoefficient": constants.lam,
        "M0Type": protocol.m0_type,
        "Equation": solution.equation,
    }


def _quantification_flags(
    protocol: Protocol, differences: _Differences, m0: _Equilibrium
) -> tuple[str, ...]:
    return (
        *_raw_flags(protocol),
        *differences.flags,
        *m0.flags,
        *_short_delay_flags(protocol, differences),
    )


def _raw_flags(protocol: Protocol) -> list[str]:
    return [
        *protocol.flags,
        "raw ASL: not motion-corrected, in native space (ASLPrep does both)",
    ]


def _short_delay_flags(protocol: Protocol, differences: _Differences) -> list[str]:
    # In PASL the delay counts from the inversion, and several delays see arrival.
    if not differences.single or protocol.pulsed:
        return []
    return _short_delay_flag(differences.delays[0])


def _short_delay_flag(delay: float) -> list[str]:
    if delay >= SHORT_DELAY:
        return []
    return [
        f"delay of {delay:g} s is short: label still in arteries inflates and deflates "
        "flow by region"
    ]


def _read_map(visit: Visit) -> Perfusion:
    path = visit["perfusion"]
    space = space_of(path)
    image = read_image(path, 3, allow_nan=True, space=space)
    _check_unit(path, visit.metadata("perfusion"))
    mask = _map_mask(visit, image)
    _check_not_empty(path, mask)
    cbf = np.where(mask, np.asarray(image.dataobj), 0.0)
    settings = {"Read": "CBF map"}
    return _checked(path, Perfusion(cbf, mask, image.affine, space, settings=settings))


def _check_not_empty(path: Path, mask: np.ndarray) -> None:
    if not mask.any():
        raise InputError(
            f"{path}: the CBF map is zero everywhere; quantification failed."
        )


def _check_unit(path: Path, fields: JsonObject) -> None:
    unit = str(fields.get("Units", "mL/100 g/min"))
    if not _is_flow_unit(unit.lower()):
        raise InputError(
            f"{path}: its sidecar gives the unit {fields['Units']!r}; expected mL/100 "
            "g/min."
        )


def _is_flow_unit(unit: str) -> bool:
    # Programs write mL/100g/min, ml/100 g/min, mL/(100 g)/min and more.
    return all(part in unit for part in ("ml", "100", "min"))


def _map_mask(visit: Visit, image: nib.Nifti1Image) -> np.ndarray:
    # Programs write zero outside the brain.
    mask = np.asarray(image.dataobj) != 0
    if "cbfmask" not in visit.files:
        return mask
    path = visit["cbfmask"]
    brain = read_image(path, 3)
    check_same_grid(path, brain, image, "the CBF map")
    return mask & (np.asarray(brain.dataobj) > 0.5)


def _checked(path: Path, perfusion: Perfusion) -> Perfusion:
    """Flow that a brain can have, with a flag where few have it. Raises InputError for
    other flow."""
    mean = float(perfusion.cbf[perfusion.mask].mean())
    _check_plausible(path, mean)
    return replace(perfusion, flags=(*perfusion.flags, *_unusual_flags(mean)))


def _unusual_flags(mean: float) -> list[str]:
    low, high = USUAL
    # Infants and patients with shunts may well have it.
    if low <= mean <= high:
        return []
    return [f"mean CBF {mean:.0f} is unusual ({low:g} to {high:g} ml/100 g/min)"]


def _check_plausible(path: Path, mean: float) -> None:
    low, high = PLAUSIBLE
    if not low <= mean <= high:
        raise InputError(
            f"{path}: mean CBF {mean:.3g} is implausible ({low:g} to {high:g} ml/100 "
            "g/min). Check M0 and its scaling, delays, label duration and background "
            "suppression."
        )


def _differences(run: _AslRun) -> _Differences:
    _check_pairs(run)
    subtracted = run.protocol.volumes("deltam")
    # Scanners may store deltam volumes beside the pairs; then the pairs are not needed.
    if len(subtracted):
        return _mean_differences(run, subtracted)
    return _pair_differences(run, run.protocol.volumes("label"))


def _mean_differences(run: _AslRun, volumes: np.ndarray) -> _Differences:
    """Of volumes that the scanner subtracted."""
    timings = _timings(run.protocol, volumes)
    values = [run.mean(timing.select(volumes)) for timing in timings]
    return _stacked(run, timings, values, ())


def _pair_differences(run: _AslRun, labels: np.ndarray) -> _Differences:
    """Of control and label volumes."""
    timings = _timings(run.protocol, labels)
    # All are checked before any is subtracted.
    pairs = [_pairs_at(run, timing) for timing in timings]
    values = [run.mean(pair.control) - run.mean(pair.label) for pair in pairs]
    flags = itertools.chain.from_iterable(pair.flags for pair in pairs)
    return _stacked(run, timings, values, tuple(flags))


@dataclass(frozen=True, eq=False)
class _Timing:
    """A delay and label duration (s), and which volumes (volume,) share them."""

    delay: float
    duration: float
    shared: np.ndarray

    def select(self, volumes: np.ndarray) -> np.ndarray:
        """Those of some volumes that have this timing."""
        return volumes[self.shared[volumes]]


def _timings(protocol: Protocol, volumes: np.ndarray) -> list[_Timing]:
    """The different timings of some volumes, in order of delay."""
    different = {(protocol.pld[volume], protocol.tau[volume]) for volume in volumes}
    return [_timing(protocol, *timing) for timing in sorted(different)]


def _timing(protocol: Protocol, delay: float, duration: float) -> _Timing:
    # Converters leave rounding errors, so equal delays are not always identical.
    shared = np.isclose(protocol.pld, delay) & np.isclose(protocol.tau, duration)
    return _Timing(delay, duration, shared)


def _stacked(
    run: _AslRun,
    timings: list[_Timing],
    values: list[np.ndarray],
    flags: tuple[str, ...],
) -> _Differences:
    delays = np.array([timing.delay for timing in timings])
    durations = np.array([timing.duration for timing in timings])
    _check_durations(run, durations)
    return _Differences(np.stack(values, -1), delays, durations, flags)


def _check_durations(run: _AslRun, durations: np.ndarray) -> None:
    # Flow is the difference divided by what the label duration delivers.
    if len(run.protocol.volumes("label")) and (durations <= 0).any():
        raise InputError(f"{run.path}: LabelingDuration is 0 for a labelled volume.")


def _check_pairs(run: _AslRun) -> None:
    # Subtracted volumes need no pairs.
    if len(run.protocol.volumes("deltam")):
        return
    control = len(run.protocol.volumes("control"))
    label = len(run.protocol.volumes("label"))
    if control == 0 or label == 0:
        raise InputError(f"{run.path}: {_incomplete_context(control, label)}")


def _incomplete_context(control: int, label: int) -> str:
    return (
        f"aslcontext names {control} control, {label} label and no deltam volumes; "
        "control and label, deltam, or cbf are needed."
    )


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Indices of the control and label volumes at one delay."""

    control: np.ndarray
    label: np.ndarray
    delay: float

    @property
    def flags(self) -> list[str]:
        controls = len(self.control)
        labels = len(self.label)
        if controls == labels:
            return []
        return [
            f"{controls} control and {labels} label volumes at a delay of "
            f"{self.delay:g} s"
        ]


def _pairs_at(run: _AslRun, timing: _Timing) -> _Pairs:
    control = timing.select(run.protocol.volumes("control"))
    label = timing.select(run.protocol.volumes("label"))
    pairs = _Pairs(control, label, timing.delay)
    if len(control) == 0:
        raise InputError(f"{run.path}: {_no_control(pairs)}")
    return pairs


def _no_control(pairs: _Pairs) -> str:
    return (
        f"{len(pairs.label)} label and no control volumes at a delay "
        f"of {pairs.delay:g} s. Is PostLabelingDelay listed in another order than "
        "aslcontext?"
    )


def _equilibrium(run: _AslRun) -> _Equilibrium:
    """M0, however it was acquired, corrected for a short repetition time."""
    if run.protocol.m0_type == "Estimate":
        return _estimated(run)
    if run.protocol.m0_type == "Separate":
        return _separate_scan(run)
    if run.protocol.m0_type == "Included":
        return _included_volumes(run)
    return _control_as_m0(run)


def _estimated(run: _AslRun) -> _Equilibrium:
    shape = run.data.shape[:3]
    flag = (
        "M0 is one number for the whole brain (M0Estimate): coil sensitivity "
        "is not corrected"
    )
    values = np.full(shape, run.protocol.m0_estimate, dtype=float)
    return _Equilibrium(values, (flag,))


def _separate_scan(run: _AslRun) -> _Equilibrium:
    path = run.visit["m0scan"]
    image = _read_any_dimensions(path)
    check_same_grid(path, image, run.image, "the ASL run")
    # Several M0 volumes are averaged.
    m0 = _with_volume_axis(np.asarray(image.dataobj, dtype=float)).mean(-1)
    tr = _m0_repetition_time(path, run.visit.metadata("m0scan"))
    return _recovered(m0, tr, run.protocol)


def _included_volumes(run: _AslRun) -> _Equilibrium:
    volumes = run.protocol.volumes("m0scan")
    if not len(volumes):
        raise InputError(
            f"{run.path}: M0Type is Included, but aslcontext names no m0scan volume."
        )
    return _volumes_as_m0(run, volumes)


def _control_as_m0(run: _AslRun) -> _Equilibrium:
    """The mean control image, which is M0 unless background was suppressed."""
    volumes = run.protocol.volumes("control")
    if run.protocol.suppressed or not len(volumes):
        state = "suppressed" if len(volumes) else "missing"
        raise InputError(
            f"{run.path}: M0Type is Absent and the control images are {state}, so that "
            "nothing tells the equilibrium magnetisation. Give an M0 scan or "
            "M0Estimate."
        )
    flag = "M0 absent: the mean control image stands for it"
    return _volumes_as_m0(run, volumes, flag)


def _volumes_as_m0(run: _AslRun, volumes: np.ndarray, *flags: str) -> _Equilibrium:
    tr = float(run.protocol.tr[volumes].mean())
    return _recovered(run.mean(volumes), tr, run.protocol, flags)


def _recovered(
    m0: np.ndarray, tr: float, protocol: Protocol, flags: tuple[str, ...] = ()
) -> _Equilibrium:
    """What M0 would be after a long repetition time."""
    # By then, M0 is within 5 % of what it will be.
    if tr >= LONG_TR:
        return _Equilibrium(m0, flags)
    recovery = 1 - np.exp(-tr / protocol.t1t)
    flag = (
        f"M0 with a repetition time of {tr:g} s: divided by 1 − "
        f"exp(−TR/{protocol.t1t:g} s)"
    )
    return _Equilibrium(m0 / recovery, (*flags, flag))


def _m0_repetition_time(path: Path, fields: JsonObject) -> float:
    value = first_value(fields.get("RepetitionTimePreparation"))
    if not _is_repetition_time(value):
        raise InputError(
            f"{path}: its JSON must give RepetitionTimePreparation, above 0 to 30 s "
            f"(without it, M0 cannot be corrected for recovery); got {value!r}."
        )
    return float(value)


def _is_repetition_time(value: Any) -> bool:
    return is_number(value) and 0 < value <= 30


def _brain_mask(run: _AslRun, m0: _Equilibrium) -> np.ndarray:
    reference = _reference_image(run, m0)
    mask = _mask_of(run, reference)
    _check_mask_size(run.path, mask)
    # What is divided by M0 needs M0 above zero.
    return mask & (reference > 0)


def _mask_of(run: _AslRun, reference: np.ndarray) -> np.ndarray:
    # nilearn looks for the valley in the histogram, which negative values would move.
    image = nib.Nifti1Image(np.clip(reference, 0, None).astype(np.float32), run.affine)
    try:
        return _epi_mask(image)
    # nilearn raises several kinds of error for an image without a head in it.
    except Exception as error:
        raise InputError(
            f"{run.path}: no brain found in its M0 or control image ({error})."
        ) from None


def _epi_mask(image: nib.Nifti1Image) -> np.ndarray:
    # nilearn takes a second to import, and most visits bring a map.
    from nilearn.masking import compute_epi_mask

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(compute_epi_mask(image, opening=1).dataobj) > 0


def _check_mask_size(path: Path, mask: np.ndarray) -> None:
    share = mask.mean()
    if not 0.01 < share < 0.95:
        raise InputError(
            f"{path}: its M0 or control image shows no brain ({share:.1%} of the "
            "voxels stand out)."
        )


def _reference_image(run: _AslRun, m0: _Equilibrium) -> np.ndarray:
    """The image (x, y, z) that shows the brain best."""
    # An estimate is the same number everywhere.
    if run.protocol.m0_type != "Estimate":
        return m0.values
    control = run.protocol.volumes("control")
    return run.mean(control if len(control) else run.protocol.volumes("deltam"))


def _check_sign(run: _AslRun, ratio: np.ndarray) -> None:
    mean = float(ratio.mean())
    if mean < 0:
        raise InputError(
            f"{run.path}: {_subtraction(run)} is negative on average "
            f"({100 * mean:.2f} % of M0): "
            "control and label look swapped. Repair aslcontext.tsv."
        )
    if mean > LARGEST_DIFFERENCE:
        raise InputError(
            f"{run.path}: the difference is {100 * mean:.1f} % of M0; 0.1 to 3 % is "
            "usual. M0 is on another scale than the ASL run (vendors scale them "
            "differently)."
        )


def _subtraction(run: _AslRun) -> str:
    """What the difference is called in aslcontext.tsv."""
    return "deltam" if len(run.protocol.volumes("deltam")) else "control minus label"


def _solve_single_delay(
    ratio: np.ndarray,
    mask: np.ndarray,
    differences: _Differences,
    p: Protocol,
    c: Constants,
) -> _Solution:
    tau = differences.durations[0]
    # Later slices wait longer.
    delay = differences.delays[0] + p.slices
    cbf = _single_delay_flow(ratio[..., 0], delay, tau, p, c)
    equation = _single_delay_equation(differences, p, c)
    return _Solution(np.where(mask, cbf, 0.0), None, equation)


def _single_delay_equation(differences: _Differences, p: Protocol, c: Constants) -> str:
    """The consensus equation and its factor, for the sidecar."""
    tau = differences.durations[0]
    formula = _single_delay_formula(differences.delays[0], tau, p, c)
    factor = _single_delay_flow(np.ones(1), differences.delays, tau, p, c)[0]
    return f"CBF = {formula} = {factor:.1f}·ΔM/M0 (Alsop et al. 2015{_slice_delay(p)})"


def _slice_delay(p: Protocol) -> str:
    if not p.slices.any():
        return ""
    return f", delay + {p.slices.max():g} s in the last slice"


def _single_delay_flow(
    ratio: np.ndarray, delay: np.ndarray, tau: float, p: Protocol, c: Constants
) -> np.ndarray:
    """Flow of ΔM/M0 by the consensus equation of the labelling."""
    # The signal is already divided by M0.
    m0 = np.ones(1)
    if p.pulsed:
        return single_delay_pasl(
            ratio, m0, ti=delay, ti1=tau, alpha=p.alpha, t1b=p.t1b, lam=c.lam
        )
    return single_delay_pcasl(
        ratio, m0, pld=delay, tau=tau, alpha=p.alpha, t1b=p.t1b, lam=c.lam
    )


def _single_delay_formula(delay: float, tau: float, p: Protocol, c: Constants) -> str:
    """The consensus equation with its values."""
    numerator = f"6000·{c.lam:g}·ΔM·exp({delay:g}/{p.t1b:g})"
    return f"{numerator} / (2·{p.alpha:.4g}·{_delivered(tau, p)})"


def _delivered(tau: float, p: Protocol) -> str:
    """The denominator's part that depends on the labelling."""
    if p.pulsed:
        return f"{tau:g}·M0"
    return f"{p.t1b:g}·M0·(1 − exp(−{tau:g}/{p.t1b:g}))"


def _solve_several_delays(
    ratio: np.ndarray,
    mask: np.ndarray,
    differences: _Differences,
    p: Protocol,
    c: Constants,
) -> _Solution:
    kinetics = Kinetics(p.pulsed, differences.durations, p.alpha, p.t1b, p.t1t, c.lam)
    t = _kinetic_times(differences, p, mask)
    estimate = invert(ratio[mask], t, kinetics)
    # Without flow there is no arrival; images mark that by zero, as the outside.
    arrival = np.nan_to_num(estimate.arrival)
    return _Solution(
        _image_of(estimate.flow, mask),
        _image_of(arrival, mask),
        _kinetic_equation(differences.delays, p, c),
    )


def _kinetic_times(
    differences: _Differences, p: Protocol, mask: np.ndarray
) -> np.ndarray:
    """Times (voxel, delay) that the kinetic model counts from the begin of
    labelling."""
    begin = differences.delays
    # The delay of PASL counts from the inversion, which is the begin.
    if not p.pulsed:
        begin = begin + differences.durations
    slices = np.broadcast_to(p.slices, mask.shape)
    return (slices[..., None] + begin)[mask]


def _image_of(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Values (voxel inside,) as an image (x, y, z), zero outside the mask."""
    image = np.zeros(mask.shape)
    image[mask] = values
    return image


def _kinetic_equation(delays: np.ndarray, p: Protocol, c: Constants) -> str:
    return (
        f"ΔM(t)/M0 = 2·{p.alpha:.4g}·f/{c.lam:g}·∫ c(s)·exp(−(t − s)/T1') ds, 1/T1' = "
        f"1/{p.t1t:g} + f/{c.lam:g}, T1 of blood {p.t1b:g} s, {len(delays)} delays "
        f"{delays[0]:g} to {delays[-1]:g} s, f in ml/g/s times {PER_100_G_MIN:g} and "
        "arrival time by least squares (Buxton et al. 1998)"
    )


def _scanner_map(run: _AslRun) -> Perfusion:
    """The CBF volumes that the scanner computed itself."""
    cbf = run.mean(run.protocol.volumes("cbf"))
    mask = cbf > 0
    if not mask.any():
        raise InputError(f"{run.path}: its cbf volumes are zero everywhere.")
    flag = "CBF as computed by the scanner; its constants are not known"
    perfusion = Perfusion(
        np.where(mask, cbf, 0),
        mask,
        run.affine,
        settings={"Read": "cbf volumes of the ASL run"},
        flags=(*_raw_flags(run.protocol), flag),
    )
    return _checked(run.path, perfusion)
