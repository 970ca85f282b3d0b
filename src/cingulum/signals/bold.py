"""A preprocessed BOLD run, cleaned: read, checked, in percent of its mean, filtered,
confounds out, censored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from cingulum.errors import InputError
from cingulum.io.files import read_table
from cingulum.io.images import read_image, read_voxels
from cingulum.io.visit import Visit

STRATEGIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "basic": {
            "strategy": ("motion", "high_pass", "wm_csf"),
            "motion": "basic",
            "wm_csf": "basic",
        },
        "friston24": {
            "strategy": ("motion", "high_pass", "wm_csf"),
            "motion": "full",
            "wm_csf": "basic",
        },
        "compcor": {
            "strategy": ("motion", "high_pass", "compcor"),
            "motion": "full",
            "n_compcor": 5,
        },
        "gsr": {
            "strategy": ("motion", "high_pass", "wm_csf", "global_signal"),
            "motion": "full",
            "wm_csf": "full",
            "global_signal": "full",
        },
        "scrubbing": {
            "strategy": ("motion", "high_pass", "wm_csf", "scrub"),
            "motion": "full",
            "wm_csf": "full",
        },
        "aroma": {"strategy": ("high_pass", "wm_csf", "ica_aroma"), "wm_csf": "basic"},
        "none": {"strategy": ()},
    }
)
"""Named strategies, in the terms of nilearn's `load_confounds` (its documentation names
the papers)."""

FEWEST = 30
"""Volumes, beyond the number of regressors, below which a run says nothing about
connectivity."""

FAINT = 0.05
"""Share of the brain's median signal below which a voxel shows dropout or the edge of
the field of view, not brain."""

BLOCK = 20_000
"""Voxels cleaned at a time, so that memory stays small."""


@dataclass(frozen=True)
class Denoising:
    """What is taken out of a BOLD run, by name.

    strategy: one of STRATEGIES
    scrub: framewise displacement (mm) above which volumes are left out, with runs
        shorter than five volumes between them (Power et al. 2014,
        doi:10.1016/j.neuroimage.2013.08.048); None: none. Strategy "scrubbing" is
        nilearn's: .5 mm, and volumes above 1.5 standardised DVARS as well
    low_pass, high_pass: Butterworth cut-offs, Hz; a high-pass replaces the strategy's
    slow cosines Order (Lindquist et al. 2019, doi:10.1002/hbm.24528): censored volumes
    are interpolated, signals and confounds filtered alike, confounds regressed on the
    kept volumes, censored volumes left out.
    """

    strategy: str = "basic"
    scrub: float | None = None
    low_pass: float | None = None
    high_pass: float | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(
                f"Unknown denoising strategy {self.strategy!r}. Known are "
                f"{', '.join(STRATEGIES)}."
            )
        if self.scrub is not None and not 0 < self.scrub < 10:
            raise InputError(
                f"scrub is a displacement in mm, such as 0.5; came {self.scrub}."
            )
        if self.low_pass and self.high_pass and self.low_pass <= self.high_pass:
            raise InputError(
                f"low_pass {self.low_pass} Hz must lie above high_pass "
                f"{self.high_pass} Hz."
            )

    def words(self) -> str:
        """What is done, for a sidecar or a methods section."""
        parts = [
            f"strategy {self.strategy} "
            f"({', '.join(STRATEGIES[self.strategy]['strategy']) or 'nothing'})"
        ]
        if "scrub" in STRATEGIES[self.strategy]["strategy"]:
            parts.append(
                f"volumes above {self.threshold} mm displacement or 1.5 standardised "
                "DVARS left out"
            )
        elif self.scrub is not None:
            parts.append(f"volumes above {self.scrub} mm displacement left out")
        if self.low_pass or self.high_pass:
            parts.append(
                f"band {self.high_pass or 0} to {self.low_pass or 'Nyquist'} Hz"
            )
        return "; ".join(parts)

    @property
    def threshold(self) -> float:
        return 0.5 if self.scrub is None else self.scrub


@dataclass(frozen=True, eq=False)
class Bold:
    """signals (voxel inside, kept volume) in percent of the voxel's mean, mask (x, y,
    z), affine, tr in s.

    mask: the brain mask without voxels that have no signal (constant, not finite, or
        FAINT)
    level: (voxel inside,) mean signal: a region's mean of raw signals, in percent, is
        the mean of voxels weighted by it
    kept: (volume,), which volumes stayed
    tsnr: median over the mask of mean by standard deviation of the kept volumes, before
        cleaning
    space: as the file's name says, empty for native
    """

    signals: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    tr: float
    kept: np.ndarray
    tsnr: float
    level: np.ndarray
    space: str = "MNI"
    denoising: Denoising = Denoising()

    @property
    def settings(self) -> dict[str, Any]:
        """What was done, for a sidecar."""
        return {
            "Denoising": {
                **asdict(self.denoising),
                "Description": self.denoising.words(),
            },
            "RepetitionTime": self.tr,
            "Volumes": len(self.kept),
            "VolumesKept": int(self.kept.sum()),
            "Space": self.space or "native",
        }


def read_bold(visit: Visit, denoising: Denoising = Denoising()) -> Bold:
    """A visit's preprocessed BOLD, cleaned, as fMRIPrep names and describes it.

    Raises InputError for damaged files, a mask on another grid or without signal in it,
    a TR that header and sidecar give differently, confounds of another length, or too
    few volumes left.
    """
    path = visit["bold"]
    space = _space(path)
    mask = read_image(visit["mask"], 3, space=space)
    inside = np.asarray(mask.dataobj) > 0.5
    if not 0.001 < inside.mean() < 0.999:
        raise InputError(
            f"{visit['mask']}: marks {inside.mean():.1%} of the image as brain; the "
            "mask is damaged."
        )
    signals, step = read_voxels(path, inside, mask, "its mask", space)
    tr = repetition_time(path, step, visit.metadata("bold"))
    confounds, kept = _confounds(visit, denoising, signals.shape[1])
    level, spread = (
        f(signals[:, kept], axis=1, dtype=float) for f in (np.mean, np.std)
    )
    alive = _alive(path, signals, level, spread)
    signals, level = signals[alive], level[alive]
    inside[inside] = alive
    percent = (100 * (signals - level[:, None]) / level[:, None]).astype(np.float32)
    cleaned = _clean(percent, confounds, kept, tr, denoising)
    tsnr = float(np.median(level / spread[alive]))
    return Bold(cleaned, inside, mask.affine, tr, kept, tsnr, level, space, denoising)


def _alive(
    path: Path, signals: np.ndarray, level: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Which voxels (voxel,) inside the mask show brain. Raises InputError where fewer
    than half do."""
    alive = np.isfinite(level) & np.isfinite(signals).all(1) & (spread > 0)
    if alive.any():
        alive &= np.nan_to_num(level) > FAINT * np.median(level[alive])
    if alive.mean() < 0.5:
        raise InputError(
            f"{path}: {1 - alive.mean():.0%} of the voxels inside the mask are "
            "missing, zero or constant; the run or "
            "its mask is damaged."
        )
    return alive


def repetition_time(path: Path, header: float, fields: Mapping[str, Any]) -> float:
    """TR in s from the sidecar, checked against the header."""
    stated = fields.get("RepetitionTime", header)
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        raise InputError(
            f"{path}: RepetitionTime in its sidecar must be a number of seconds; came "
            f"{stated!r}."
        )
    if not 0.1 <= stated <= 10:
        raise InputError(
            f"{path}: a TR of {stated} s is implausible (expected 0.1 to 10 s; is it "
            "in ms?)."
        )
    if (
        header and abs(stated - header) > 0.01 * stated
    ):  # some programs leave the header's at zero
        raise InputError(
            f"{path}: the header says TR = {header:.4g} s, its sidecar {stated:.4g} s. "
            "Repair one of them."
        )
    return float(stated)


def framewise_displacement(visit: Visit) -> np.ndarray:
    """Head motion from volume to volume, mm, from fMRIPrep's confounds; the first has
    none."""
    path = visit["confounds"]
    table = read_table(path)
    if "framewise_displacement" not in table:
        raise InputError(
            f"{path}: expected a column framewise_displacement, as fMRIPrep writes it."
        )
    values = _numbers(path, table["framewise_displacement"])[1:]
    if not np.isfinite(values).any() or np.nanmin(values) < 0:
        raise InputError(f"{path}: framewise_displacement is empty or negative.")
    return values


def _numbers(path: Path, column: Any) -> np.ndarray:
    try:
        return column.to_numpy(float)
    except ValueError as trouble:
        raise InputError(
            f"{path}: {column.name} holds something that is no number ({trouble})."
        ) from None


def _space(path: Path) -> str:
    return path.name.partition("space-")[2].partition("_")[0]


def _confounds(
    visit: Visit, denoising: Denoising, volumes: int
) -> tuple[np.ndarray | None, np.ndarray]:
    """Confound columns (volume, column), or None for strategy none, and which volumes
    stay."""
    from nilearn.interfaces.fmriprep import load_confounds

    options, path = dict(STRATEGIES[denoising.strategy]), visit["confounds"]
    parts = [
        part
        for part in options.pop("strategy")
        if part != "high_pass" or not denoising.high_pass
    ]
    if "compcor" in parts or "compcor" in STRATEGIES[denoising.strategy]["strategy"]:
        parts += ["high_pass"] * (
            "high_pass" not in parts
        )  # the components were made with these cosines
    if denoising.strategy == "aroma" and "smoothAROMAnonaggr" not in visit["bold"].name:
        raise InputError(
            f"{visit['bold']}: strategy aroma needs fMRIPrep's denoised run (before "
            "version 23); choose it with "
            '--bids-filter-file: {"bold": {"desc": "smoothAROMAnonaggr"}}.'
        )
    read_table(path)  # the clear error, if the file is damaged
    censored = _censored(visit, denoising, volumes)
    if not parts:
        return None, _enough(visit, censored, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            limits = {"fd_threshold": denoising.threshold} if "scrub" in parts else {}
            table, kept = load_confounds(
                str(visit["bold"]),
                strategy=tuple(parts),
                demean=True,
                **options,
                **limits,
            )
        columns = table.to_numpy(float)
    except (
        Exception
    ) as trouble:  # nilearn raises whatever a strange table makes it stumble over
        raise InputError(
            f"{path}: lacks what the strategy {denoising.strategy} needs ({trouble})."
        ) from None
    if len(columns) != volumes:
        raise InputError(f"{path}: {len(columns)} rows for {volumes} volumes.")
    if not np.isfinite(columns).all():
        empty = [
            str(name)
            for name, bad in zip(table, ~np.isfinite(columns).all(0), strict=True)
            if bad
        ]
        raise InputError(
            f"{path}: missing values in {', '.join(empty[:5])}; run fMRIPrep again or "
            "choose --strategy."
        )
    stays = censored if kept is None else censored & np.isin(np.arange(volumes), kept)
    return columns if columns.shape[1] else None, _enough(
        visit, stays, columns.shape[1]
    )


def _censored(visit: Visit, denoising: Denoising, volumes: int) -> np.ndarray:
    """Which volumes stay by displacement alone: those below the limit, in runs of at
    least five."""
    stays = np.ones(volumes, bool)
    if denoising.scrub is None:
        return stays
    moved = np.r_[0.0, framewise_displacement(visit)]
    if len(moved) != volumes:
        raise InputError(
            f"{visit['confounds']}: {len(moved)} rows for {volumes} volumes."
        )
    stays = ~(moved > denoising.scrub)
    edges = np.flatnonzero(np.diff(np.r_[False, stays, False].astype(int)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        stays[start:stop] = stop - start >= 5
    return stays


def _enough(visit: Visit, stays: np.ndarray, regressors: int) -> np.ndarray:
    left = int(stays.sum()) - regressors
    if left < FEWEST:
        raise InputError(
            f"{visit['bold']}: {int(stays.sum())} of {len(stays)} volumes stay and "
            f"{regressors} confounds are "
            f"regressed out, which leaves {left} degrees of freedom; {FEWEST} are "
            "needed. Leave the visit out, or "
            "choose a milder --strategy or --scrub."
        )
    return stays


def _clean(
    percent: np.ndarray,
    confounds: np.ndarray | None,
    kept: np.ndarray,
    tr: float,
    denoising: Denoising,
) -> np.ndarray:
    """nilearn's order of operations on blocks of voxels (voxel, volume); censored
    volumes are gone afterwards."""
    from nilearn.signal import clean

    band = {"low_pass": denoising.low_pass, "high_pass": denoising.high_pass, "t_r": tr}
    nyquist = 0.5 / tr
    if max(denoising.low_pass or 0, denoising.high_pass or 0) >= nyquist:
        raise InputError(
            f"The filter must lie below {nyquist:.3g} Hz, half of the sampling rate "
            f"(TR {tr} s)."
        )
    options = (
        {"filter": "butterworth", **band}
        if denoising.low_pass or denoising.high_pass
        else {"filter": False}
    )
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
