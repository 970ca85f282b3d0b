"""A preprocessed BOLD run, cleaned: read, checked, in percent of its mean, filtered, confounds out, censored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from cingulum.errors import InputError
from cingulum.recordings.bids import Visit
from cingulum.recordings.files import read_table
from cingulum.recordings.images import check_same_grid, read_image

STRATEGIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "basic": {"strategy": ("motion", "high_pass", "wm_csf"), "motion": "basic", "wm_csf": "basic"},
        "friston24": {"strategy": ("motion", "high_pass", "wm_csf"), "motion": "full", "wm_csf": "basic"},
        "compcor": {"strategy": ("motion", "high_pass", "compcor"), "motion": "full", "n_compcor": 5},
        "gsr": {"strategy": ("motion", "high_pass", "wm_csf", "global_signal"), "motion": "full", "wm_csf": "full",
                "global_signal": "full"},
        "scrubbing": {"strategy": ("motion", "high_pass", "wm_csf", "scrub"), "motion": "full", "wm_csf": "full"},
        "aroma": {"strategy": ("high_pass", "wm_csf", "ica_aroma"), "wm_csf": "basic"},
        "none": {"strategy": ()},
    }
)  # fmt: skip
"""Named strategies, in the terms of nilearn's `load_confounds` (its documentation names the papers)."""

FEWEST = 30
"""Volumes, beyond the number of regressors, below which a run says nothing about connectivity."""

BLOCK = 20_000
"""Voxels cleaned at a time, so that memory stays small."""


@dataclass(frozen=True)
class Denoising:
    """What is taken out of a BOLD run, by name.

    strategy: one of STRATEGIES
    scrub: framewise displacement (mm) above which volumes are left out, with runs shorter than five volumes between
        them (Power et al. 2014, doi:10.1016/j.neuroimage.2013.08.048); None: none, or .5 for strategy "scrubbing"
    low_pass, high_pass: Butterworth cut-offs, Hz; a high-pass replaces the strategy's slow cosines
    Order (Lindquist et al. 2019, doi:10.1002/hbm.24528): censored volumes are interpolated, signals and confounds
    filtered alike, confounds regressed on the kept volumes, censored volumes left out.
    """

    strategy: str = "basic"
    scrub: float | None = None
    low_pass: float | None = None
    high_pass: float | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(f"Unknown denoising strategy {self.strategy!r}. Known are {', '.join(STRATEGIES)}.")
        if self.scrub is not None and not 0 < self.scrub < 10:
            raise InputError(f"scrub is a displacement in mm, such as 0.5; came {self.scrub}.")
        if self.low_pass and self.high_pass and self.low_pass <= self.high_pass:
            raise InputError(f"low_pass {self.low_pass} Hz must lie above high_pass {self.high_pass} Hz.")

    def words(self) -> str:
        """What is done, for a sidecar or a methods section."""
        parts = [f"strategy {self.strategy} ({', '.join(STRATEGIES[self.strategy]['strategy']) or 'nothing'})"]
        if self.censors:
            parts.append(f"volumes above {self.threshold} mm displacement left out")
        if self.low_pass or self.high_pass:
            parts.append(f"band {self.high_pass or 0} to {self.low_pass or 'Nyquist'} Hz")
        return "; ".join(parts)

    @property
    def censors(self) -> bool:
        return self.scrub is not None or "scrub" in STRATEGIES[self.strategy]["strategy"]

    @property
    def threshold(self) -> float:
        return 0.5 if self.scrub is None else self.scrub


@dataclass(frozen=True, eq=False)
class Bold:
    """signals (voxel inside, kept volume) in percent of the voxel's mean, mask (x, y, z), affine, tr in s.

    kept: (volume,), which volumes stayed
    tsnr: median over the mask of mean by standard deviation, before cleaning
    """

    signals: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    tr: float
    kept: np.ndarray
    tsnr: float
    denoising: Denoising = Denoising()

    @property
    def settings(self) -> dict[str, Any]:
        """What was done, for a sidecar."""
        return {
            "Denoising": {**asdict(self.denoising), "Description": self.denoising.words()},
            "RepetitionTime": self.tr,
            "Volumes": len(self.kept),
            "VolumesKept": int(self.kept.sum()),
        }


def read_bold(visit: Visit, denoising: Denoising = Denoising()) -> Bold:
    """A visit's preprocessed BOLD, cleaned, as fMRIPrep names and describes it.

    Raises InputError for damaged files, a mask on another grid, a TR that header and sidecar give differently,
    confounds of another length, or too few volumes left.
    """
    path = visit["bold"]
    space = _space(path)
    image, mask = read_image(path, 4, space=space), read_image(visit["mask"], 3, space=space)
    check_same_grid(visit["mask"], mask, image, "the BOLD run")
    inside = np.asarray(mask.dataobj) > 0.5
    if not 0.001 < inside.mean() < 0.999:
        raise InputError(f"{visit['mask']}: marks {inside.mean():.1%} of the image as brain; the mask is damaged.")
    tr = repetition_time(path, float(image.header.get_zooms()[3]), visit.metadata("bold"))
    signals = np.asarray(image.dataobj)[inside]
    confounds, kept = _confounds(visit, denoising, signals.shape[1])
    mean = signals.mean(1, dtype=float, keepdims=True)
    spread = signals.std(1, dtype=float, keepdims=True)
    alive = (np.abs(mean) > 1e-6) & (spread > 0)
    if not alive.any():
        raise InputError(f"{path}: every voxel inside the mask is zero or constant.")
    tsnr = float(np.median((mean / np.where(alive, spread, 1))[alive]))
    percent = np.where(alive, 100 * (signals - mean) / np.where(alive, mean, 1), 0.0).astype(np.float32)
    cleaned = _clean(percent, confounds, kept, tr, denoising)
    return Bold(cleaned, inside, image.affine, tr, kept, tsnr, denoising)


def repetition_time(path: Path, header: float, fields: Mapping[str, Any]) -> float:
    """TR in s from the sidecar, checked against the header."""
    stated = fields.get("RepetitionTime", header)
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise InputError(f"{path}: RepetitionTime in its sidecar must be a number of seconds; came {stated!r}.")
    if not 0.1 <= stated <= 10:
        raise InputError(f"{path}: a TR of {stated} s is implausible (expected 0.1 to 10 s; is it in ms?).")
    if header and abs(stated - header) > 0.01 * stated:  # some programs leave the header's at zero
        raise InputError(
            f"{path}: the header says TR = {header:.4g} s, its sidecar {stated:.4g} s. Repair one of them."
        )
    return float(stated)


def framewise_displacement(visit: Visit) -> np.ndarray:
    """Head motion from volume to volume, mm, from fMRIPrep's confounds; the first has none."""
    path = visit["confounds"]
    table = read_table(path)
    if "framewise_displacement" not in table:
        raise InputError(f"{path}: expected a column framewise_displacement, as fMRIPrep writes it.")
    values = _numbers(path, table["framewise_displacement"])[1:]
    if not np.isfinite(values).any() or np.nanmin(values) < 0:
        raise InputError(f"{path}: framewise_displacement is empty or negative.")
    return values


def _numbers(path: Path, column: Any) -> np.ndarray:
    try:
        return column.to_numpy(float)
    except ValueError as trouble:
        raise InputError(f"{path}: {column.name} holds something that is no number ({trouble}).") from None


def _space(path: Path) -> str:
    return path.name.partition("space-")[2].partition("_")[0]


def _confounds(visit: Visit, denoising: Denoising, volumes: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Confound columns (volume, column), or None for strategy none, and which volumes stay."""
    from nilearn.interfaces.fmriprep import load_confounds

    options, path = dict(STRATEGIES[denoising.strategy]), visit["confounds"]
    parts = [part for part in options.pop("strategy") if part != "high_pass" or not denoising.high_pass]
    parts += ["scrub"] * (denoising.censors and "scrub" not in parts)
    read_table(path)  # the clear error, if the file is damaged
    if not parts:
        return None, np.ones(volumes, bool)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            limits = {"fd_threshold": denoising.threshold} if denoising.censors else {}
            table, kept = load_confounds(str(visit["bold"]), strategy=tuple(parts), demean=True, **options, **limits)
        columns = table.to_numpy(float)
    except Exception as trouble:  # nilearn raises whatever a strange table makes it stumble over
        raise InputError(f"{path}: lacks what the strategy {denoising.strategy} needs ({trouble}).") from None
    if len(columns) != volumes:
        raise InputError(f"{path}: {len(columns)} rows for {volumes} volumes.")
    if not np.isfinite(columns).all():
        empty = [str(name) for name, bad in zip(table, ~np.isfinite(columns).all(0), strict=True) if bad]
        raise InputError(f"{path}: missing values in {', '.join(empty[:5])}; run fMRIPrep again or choose --strategy.")
    stays = np.ones(volumes, bool)
    if kept is not None:
        stays = np.isin(np.arange(volumes), kept)
    left = int(stays.sum()) - columns.shape[1]
    if left < FEWEST:
        raise InputError(
            f"{visit['bold']}: {int(stays.sum())} of {volumes} volumes stay and {columns.shape[1]} confounds are "
            f"regressed out, which leaves {left} degrees of freedom; {FEWEST} are needed. Leave the visit out, or "
            "choose a milder --strategy or --scrub."
        )
    return columns if columns.shape[1] else None, stays


def _clean(
    percent: np.ndarray, confounds: np.ndarray | None, kept: np.ndarray, tr: float, denoising: Denoising
) -> np.ndarray:
    """nilearn's order of operations on blocks of voxels (voxel, volume); censored volumes are gone afterwards."""
    from nilearn.signal import clean

    band = {"low_pass": denoising.low_pass, "high_pass": denoising.high_pass, "t_r": tr}
    nyquist = 0.5 / tr
    if max(denoising.low_pass or 0, denoising.high_pass or 0) >= nyquist:
        raise InputError(f"The filter must lie below {nyquist:.3g} Hz, half of the sampling rate (TR {tr} s).")
    options = {"filter": "butterworth", **band} if denoising.low_pass or denoising.high_pass else {"filter": False}
    cleaned = np.empty((len(percent), int(kept.sum())), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, len(percent), BLOCK):
            block = slice(start, start + BLOCK)
            cleaned[block] = clean(
                percent[block].T.astype(float),
                confounds=confounds,
                sample_mask=None if kept.all() else np.flatnonzero(kept),
                detrend=True,
                standardize=False,
                standardize_confounds=confounds is not None,
                **options,
            ).T
    return cleaned
