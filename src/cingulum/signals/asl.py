"""Cerebral blood flow: a map read from ASLPrep and its kind, or quantified from raw ASL
as BIDS describes it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cingulum.errors import InputError
from cingulum.io.files import read_table
from cingulum.io.images import check_same_grid, read_image
from cingulum.io.visit import Visit
from cingulum.signals.asl_kinetics import (
    PARTITION,
    PER_100_G_MIN,
    Kinetics,
    invert,
    single_delay_pasl,
    single_delay_pcasl,
)
from cingulum.signals.asl_protocol import Protocol, read_protocol

PLAUSIBLE = (5.0, 200.0)
"""ml/100 g/min: a brain's mean outside of this is an error of quantification."""

USUAL = (20.0, 100.0)
"""ml/100 g/min: a brain's mean outside of this is flagged."""

LONG_TR = 5.0
"""s: an M0 image with a shorter repetition time has not recovered and is corrected
(Alsop et al. 2015)."""


@dataclass(frozen=True)
class Constants:
    """What a quantification takes from the literature; None: by field strength and
    labelling (docs/recordings.md).

    t1b, t1t: T1 of blood and grey matter, s; alpha: efficiency of labelling; lam:
        partition coefficient, ml/g
    """

    t1b: float | None = None
    t1t: float | None = None
    alpha: float | None = None
    lam: float = PARTITION


@dataclass(frozen=True, eq=False)
class Perfusion:
    """CBF (x, y, z) in ml/100 g/min, zero outside the brain `mask`; the affine; how it
    came about.

    arrival: arterial arrival time (x, y, z) in s, of multi-delay runs
    space: the space in the file's name, empty for native space
    equation: with the values put into it; settings: for the sidecar; flags: what a
        reader should know, by name
    """

    cbf: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    space: str = ""
    arrival: np.ndarray | None = None
    equation: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def read_perfusion(visit: Visit, constants: Constants = Constants()) -> Perfusion:
    """A visit's blood flow: the CBF map where there is one, else quantified from its
    ASL run.

    Raises InputError where neither is there, or where the flow cannot be that of a
    brain.
    """
    if visit.has("perfusion") or not visit.has("asl"):
        return _read_map(visit)
    return quantify(visit, constants)


def quantify(visit: Visit, constants: Constants = Constants()) -> Perfusion:
    """CBF from an ASL run, its context and M0: one delay by the consensus equation,
    several by the kinetic model.

    Raises InputError by name for every gate of docs/recordings.md: what is missing, in
    a wrong unit, swapped or implausible.
    """
    path = visit["asl"]
    image = _any_dimensions(path)
    data = np.asarray(image.dataobj, dtype=float)
    data = data if data.ndim == 4 else data[..., None]  # a single deltam or cbf volume
    context = _context(visit, data.shape[-1])
    given = {k: v for k, v in asdict(constants).items() if v is not None}
    protocol = read_protocol(
        path, visit.metadata("asl"), context, data.shape[:3], given
    )
    flags = [
        *protocol.flags,
        "raw ASL: not motion-corrected, in native space (ASLPrep does both)",
    ]
    if len(protocol.where("cbf")):
        return _scanner_map(path, image, data, protocol, flags)
    differences, delays, tau = _differences(path, data, protocol, flags)
    m0 = _m0(visit, image, data, protocol, flags)
    mask = _mask(path, _reference(data, protocol, m0), image.affine)
    ratio = np.where(
        mask[..., None], differences / np.where(m0 > 0, m0, np.inf)[..., None], 0.0
    )
    _check_sign(path, ratio[mask], protocol)
    solve = _one_delay if len(delays) == 1 else _several_delays
    cbf, arrival, equation = solve(ratio, mask, delays, tau, protocol, constants)
    if len(delays) == 1 and not protocol.pulsed and delays[0] < 1.5:
        flags.append(
            f"delay of {delays[0]:g} s is short: label still in arteries inflates and "
            "deflates flow by region"
        )
    settings = {
        "ArterialSpinLabelingType": protocol.labelling,
        "Delays": delays.tolist(),
        "LabelDuration": tau.tolist(),
        "SliceTimes": protocol.slices.ravel().tolist(),
        "LabelingEfficiency": protocol.alpha,
        "T1Blood": protocol.t1b,
        "T1Tissue": protocol.t1t,
        "PartitionCoefficient": constants.lam,
        "M0Type": protocol.m0_type,
        "Equation": equation,
    }
    return _judged(
        path,
        Perfusion(
            cbf, mask, image.affine, "", arrival, equation, settings, tuple(flags)
        ),
    )


def _read_map(visit: Visit) -> Perfusion:
    path = visit["perfusion"]
    space = path.name.partition("space-")[2].partition("_")[0]
    image = read_image(path, 3, allow_nan=True, space=space)
    cbf, fields = np.asarray(image.dataobj), visit.metadata("perfusion")
    unit = str(fields.get("Units", "mL/100 g/min")).lower()
    if not all(part in unit for part in ("ml", "100", "min")):
        raise InputError(
            f"{path}: its sidecar gives the unit {fields['Units']!r}; expected mL/100 "
            "g/min."
        )
    mask = cbf != 0
    if "cbfmask" in visit.files:
        brain = read_image(visit["cbfmask"], 3)
        check_same_grid(visit["cbfmask"], brain, image, "the CBF map")
        mask &= np.asarray(brain.dataobj) > 0.5
    if not mask.any():
        raise InputError(
            f"{path}: the CBF map is zero everywhere; quantification failed."
        )
    cbf = np.where(mask, cbf, 0.0)
    return _judged(
        path, Perfusion(cbf, mask, image.affine, space, settings={"Read": "CBF map"})
    )


def _judged(path: Path, found: Perfusion) -> Perfusion:
    """Refuse flow that no brain has; flag what few have."""
    mean = float(found.cbf[found.mask].mean())
    if not PLAUSIBLE[0] <= mean <= PLAUSIBLE[1]:
        raise InputError(
            f"{path}: mean CBF {mean:.3g} is implausible ({PLAUSIBLE[0]:g} to "
            f"{PLAUSIBLE[1]:g} ml/100 g/min). Check "
            "M0 and its scaling, delays, label duration and background suppression."
        )
    if USUAL[0] <= mean <= USUAL[1]:
        return found
    note = f"mean CBF {mean:.0f} is unusual ({USUAL[0]:g} to {USUAL[1]:g} ml/100 g/min)"
    return Perfusion(**{**vars(found), "flags": (*found.flags, note)})


def _context(visit: Visit, volumes: int) -> tuple[str, ...]:
    path = visit["aslcontext"]
    table = read_table(path, keep_default_na=False)
    if "volume_type" not in table:
        raise InputError(
            f"{path}: expected a column volume_type; came {', '.join(map(str, table))}."
        )
    context = tuple(table["volume_type"].fillna("n/a").astype(str).str.strip())
    if len(context) != volumes:
        raise InputError(
            f"{path}: names {len(context)} volumes; the run has {volumes}."
        )
    return context


def _differences(
    path: Path, data: np.ndarray, protocol: Protocol, flags: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean ΔM (x, y, z, delay) at every delay, the delays and the label durations."""
    made, control, label = (
        protocol.where(kind) for kind in ("deltam", "control", "label")
    )
    if not len(made) and (len(control) == 0 or len(label) == 0):
        raise InputError(
            f"{path}: aslcontext names {len(control)} control, {len(label)} label and "
            "no deltam volumes; control and "
            "label, deltam, or cbf are needed."
        )
    keys = sorted(
        {(protocol.pld[i], protocol.tau[i]) for i in (made if len(made) else label)}
    )
    found = []
    for delay, tau in keys:
        here = np.isclose(protocol.pld, delay) & np.isclose(protocol.tau, tau)
        if len(made):
            found.append(data[..., made[here[made]]].mean(-1))
            continue
        controls, labels = control[here[control]], label[here[label]]
        if len(controls) == 0:
            raise InputError(
                f"{path}: {len(labels)} label and no control volumes at a delay of "
                f"{delay:g} s. Is PostLabelingDelay "
                "listed in another order than aslcontext?"
            )
        if len(controls) != len(labels):
            flags.append(
                f"{len(controls)} control and {len(labels)} label volumes at a delay "
                f"of {delay:g} s"
            )
        found.append(data[..., controls].mean(-1) - data[..., labels].mean(-1))
    delays, taus = np.array(keys).T
    if protocol.tau[protocol.where("label")].size and (taus <= 0).any():
        raise InputError(f"{path}: LabelingDuration is 0 for a labelled volume.")
    return np.stack(found, -1), delays, taus


def _m0(
    visit: Visit,
    asl: nib.Nifti1Image,
    data: np.ndarray,
    protocol: Protocol,
    flags: list[str],
) -> np.ndarray:
    """Equilibrium magnetisation (x, y, z), whatever way it was got, corrected for a
    short repetition time."""
    path = visit["asl"]
    if protocol.m0_type == "Estimate":
        flags.append(
            "M0 is one number for the whole brain (M0Estimate): coil sensitivity is "
            "not corrected"
        )
        return np.full(data.shape[:3], protocol.m0_estimate, dtype=float)
    if protocol.m0_type == "Separate":
        scan = visit["m0scan"]
        image = _any_dimensions(scan)
        check_same_grid(scan, image, asl, "the ASL run")
        m0 = np.asarray(image.dataobj, dtype=float)
        m0, tr = (m0.mean(-1) if m0.ndim == 4 else m0), _m0_tr(visit, scan)
    else:
        wanted = "m0scan" if protocol.m0_type == "Included" else "control"
        chosen = protocol.where(wanted)
        if protocol.m0_type == "Absent" and (protocol.suppressed or not len(chosen)):
            raise InputError(
                f"{path}: M0Type is Absent and the control images are "
                f"{'suppressed' if len(chosen) else 'missing'}, so "
                "that nothing tells the equilibrium magnetisation. Give an M0 scan or "
                "M0Estimate."
            )
        if not len(chosen):
            raise InputError(
                f"{path}: M0Type is Included, but aslcontext names no m0scan volume."
            )
        if wanted == "control":
            flags.append("M0 absent: the mean control image stands for it")
        m0, tr = data[..., chosen].mean(-1), float(protocol.tr[chosen].mean())
    if tr < LONG_TR:
        flags.append(
            f"M0 with a repetition time of {tr:g} s: divided by 1 − "
            f"exp(−TR/{protocol.t1t:g} s)"
        )
        m0 = m0 / (1 - np.exp(-tr / protocol.t1t))
    return m0


def _any_dimensions(path: Path) -> nib.Nifti1Image:
    from cingulum.io.images import read_header

    return read_image(path, len(read_header(path).get_data_shape()))


def _m0_tr(visit: Visit, path: Path) -> float:
    value = visit.metadata("m0scan").get("RepetitionTimePreparation")
    value = value[0] if isinstance(value, list) and value else value
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= 30
    ):
        raise InputError(
            f"{path}: its JSON must give RepetitionTimePreparation, above 0 to 30 s "
            "(without it, M0 cannot be "
            f"corrected for recovery); came {value!r}."
        )
    return float(value)


def _reference(data: np.ndarray, protocol: Protocol, m0: np.ndarray) -> np.ndarray:
    """The image that shows the brain best."""
    if protocol.m0_type != "Estimate":
        return m0
    control = protocol.where("control")
    return data[..., control if len(control) else protocol.where("deltam")].mean(-1)


def _mask(path: Path, reference: np.ndarray, affine: np.ndarray) -> np.ndarray:
    from nilearn.masking import compute_epi_mask

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = nib.Nifti1Image(
                np.clip(reference, 0, None).astype(np.float32), affine
            )
            mask = np.asarray(compute_epi_mask(image, opening=1).dataobj) > 0
    except (
        Exception
    ) as trouble:  # nilearn raises several kinds for an image without a head in it
        raise InputError(
            f"{path}: no brain found in its M0 or control image ({trouble})."
        ) from None
    if not 0.01 < mask.mean() < 0.95:
        raise InputError(
            f"{path}: its M0 or control image shows no brain ({mask.mean():.1%} of the "
            "voxels stand out)."
        )
    return mask & (reference > 0)


def _check_sign(path: Path, ratio: np.ndarray, protocol: Protocol) -> None:
    mean = float(ratio.mean())
    if mean < 0:
        pair = (
            "deltam is negative"
            if len(protocol.where("deltam"))
            else "control minus label is negative"
        )
        raise InputError(
            f"{path}: {pair} on average ({100 * mean:.2f} % of M0): control and label "
            "look swapped. Repair "
            "aslcontext.tsv."
        )
    if mean > 0.05:
        raise InputError(
            f"{path}: the difference is {100 * mean:.1f} % of M0; 0.1 to 3 % is usual. "
            "M0 is on another scale than the "
            "ASL run (vendors scale them differently)."
        )


def _one_delay(
    ratio: np.ndarray,
    mask: np.ndarray,
    delays: np.ndarray,
    tau: np.ndarray,
    p: Protocol,
    c: Constants,
) -> tuple[np.ndarray, None, str]:
    delay = delays[0] + p.slices  # later slices wait longer
    one = np.ones(1)
    if p.pulsed:
        cbf = single_delay_pasl(
            ratio[..., 0],
            one,
            ti=delay,
            ti1=tau[0],
            alpha=p.alpha,
            t1b=p.t1b,
            lam=c.lam,
        )
        factor = float(
            single_delay_pasl(
                one, one, ti=delays, ti1=tau[0], alpha=p.alpha, t1b=p.t1b, lam=c.lam
            )[0]
        )
        form = (
            f"6000·{c.lam:g}·ΔM·exp({delays[0]:g}/{p.t1b:g}) / "
            f"(2·{p.alpha:.4g}·{tau[0]:g}·M0)"
        )
    else:
        cbf = single_delay_pcasl(
            ratio[..., 0],
            one,
            pld=delay,
            tau=tau[0],
            alpha=p.alpha,
            t1b=p.t1b,
            lam=c.lam,
        )
        factor = float(
            single_delay_pcasl(
                one, one, pld=delays, tau=tau[0], alpha=p.alpha, t1b=p.t1b, lam=c.lam
            )[0]
        )
        form = (
            f"6000·{c.lam:g}·ΔM·exp({delays[0]:g}/{p.t1b:g}) / "
            f"(2·{p.alpha:.4g}·{p.t1b:g}·M0·(1 − "
            f"exp(−{tau[0]:g}/{p.t1b:g})))"
        )
    later = (
        f", delay + {p.slices.max():g} s in the last slice" if p.slices.any() else ""
    )
    return (
        np.where(mask, cbf, 0.0),
        None,
        f"CBF = {form} = {factor:.1f}·ΔM/M0 (Alsop et al. 2015{later})",
    )


def _several_delays(
    ratio: np.ndarray,
    mask: np.ndarray,
    delays: np.ndarray,
    tau: np.ndarray,
    p: Protocol,
    c: Constants,
) -> tuple[np.ndarray, np.ndarray, str]:
    kinetics = Kinetics(p.pulsed, tau, p.alpha, p.t1b, p.t1t, c.lam)
    begin = delays if p.pulsed else delays + tau
    t = (np.broadcast_to(p.slices, mask.shape)[..., None] + begin)[mask]
    f, arrival, _ = invert(ratio[mask], t, kinetics)
    cbf, late = np.zeros(mask.shape), np.zeros(mask.shape)
    cbf[mask], late[mask] = f, np.nan_to_num(arrival)
    equation = (
        f"ΔM(t)/M0 = 2·{p.alpha:.4g}·f/{c.lam:g}·∫ c(s)·exp(−(t − s)/T1') ds, 1/T1' = "
        f"1/{p.t1t:g} + f/{c.lam:g}, "
        f"T1 of blood {p.t1b:g} s, {len(delays)} delays {delays[0]:g} to "
        f"{delays[-1]:g} s, f in ml/g/s times "
        f"{PER_100_G_MIN:g} and arrival time by least squares (Buxton et al. 1998)"
    )
    return cbf, late, equation


def _scanner_map(
    path: Path,
    image: nib.Nifti1Image,
    data: np.ndarray,
    protocol: Protocol,
    flags: list[str],
) -> Perfusion:
    cbf = data[..., protocol.where("cbf")].mean(-1)
    mask = cbf > 0
    if not mask.any():
        raise InputError(f"{path}: its cbf volumes are zero everywhere.")
    flags.append("CBF as computed by the scanner; its constants are not known")
    settings = {"Read": "cbf volumes of the ASL run"}
    return _judged(
        path,
        Perfusion(
            np.where(mask, cbf, 0),
            mask,
            image.affine,
            "",
            None,
            "",
            settings,
            tuple(flags),
        ),
    )
