"""A preprocessed BOLD run, cleaned: read, checked, in percent of its mean, filtered,
confounds out, censored."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import nibabel as nib
import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.checks import is_number
from cingulum.io.files import JsonObject, read_table
from cingulum.io.images import read_image, read_voxels
from cingulum.io.readers.xcpd import kept_volumes
from cingulum.io.recording_kinds import description_of, is_cleaned
from cingulum.io.spaces import space_of
from cingulum.io.visit import Visit

STRATEGIES: Mapping[str, JsonObject] = MappingProxyType(
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

FEWEST_VOLUMES = 30
"""Volumes, beyond the number of regressors, below which a run says nothing about
connectivity."""

SHORTEST_RUN = 5
"""Volumes between two censored ones below which they are censored too (Power et al.
2014)."""

FAINT = 0.05
"""Share of the brain's median signal below which a voxel shows dropout or the edge of
the field of view, not brain."""

MEAN_IN_SPREADS = 2.0
"""Standard deviations above which the mean of a cleaned run is a signal, and not what
rounding leaves of zero."""

BLOCK = 20_000
"""Voxels cleaned at a time, so that memory stays small."""


@dataclass(frozen=True)
class Denoising:
    """What is removed from a BOLD run, by name.

    strategy: one of STRATEGIES
    scrub: framewise displacement (mm) above which volumes are left out, with runs
        shorter than five volumes between them (Power et al. 2014,
        doi:10.1016/j.neuroimage.2013.08.048); None: none. Strategy "scrubbing" is
        nilearn's: .5 mm, and volumes above 1.5 standardised DVARS as well
    low_pass, high_pass: Butterworth cut-offs, Hz; a high-pass replaces the strategy's
        slow cosines

    Order (Lindquist et al. 2019, doi:10.1002/hbm.24528): censored volumes are
    interpolated, signals and confounds filtered alike, confounds regressed on the kept
    volumes, censored volumes left out.
    """

    strategy: str = "basic"
    scrub: float | None = None
    low_pass: float | None = None
    high_pass: float | None = None

    def __post_init__(self) -> None:
        self._check_strategy()
        self._check_scrub()
        self._check_band()

    def _check_strategy(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(
                f"Unknown denoising strategy {self.strategy!r}. Known are "
                f"{', '.join(STRATEGIES)}."
            )

    def _check_scrub(self) -> None:
        if self.scrub is not None and not 0 < self.scrub < 10:
            raise InputError(
                f"scrub is a displacement in mm, such as 0.5; got {self.scrub}."
            )

    def _check_band(self) -> None:
        if self.low_pass and self.high_pass and self.low_pass <= self.high_pass:
            raise InputError(
                f"low_pass {self.low_pass} Hz must lie above high_pass "
                f"{self.high_pass} Hz."
            )

    def description(self) -> str:
        """What is done, for a sidecar or a methods section."""
        parts = (self._strategy_text(), self._scrubbing_text(), self._band_text())
        return "; ".join(filter(None, parts))

    def _strategy_text(self) -> str:
        return f"strategy {self.strategy} ({', '.join(self.parts) or 'nothing'})"

    def _scrubbing_text(self) -> str:
        if "scrub" in self.parts:
            return (
                f"volumes above {self.threshold} mm displacement or 1.5 standardised "
                "DVARS left out"
            )
        # An empty part is not shown.
        if self.scrub is None:
            return ""
        return f"volumes above {self.scrub} mm displacement left out"

    def _band_text(self) -> str:
        if not self.filters:
            return ""
        return f"band {self.high_pass or 0} to {self.low_pass or 'Nyquist'} Hz"

    @property
    def parts(self) -> tuple[str, ...]:
        """What the strategy consists of, in nilearn's terms."""
        return STRATEGIES[self.strategy]["strategy"]

    @property
    def filters(self) -> bool:
        """Whether a Butterworth filter is applied."""
        return bool(self.low_pass or self.high_pass)

    @property
    def threshold(self) -> float:
        """Displacement (mm) above which the strategy "scrubbing" leaves out volumes."""
        if self.scrub is None:
            return 0.5
        return self.scrub


@dataclass(frozen=True, eq=False)
class Bold:
    """signals (voxel inside, kept volume) in percent of the voxel's mean, mask (x, y,
    z), affine, tr in s.

    mask: the brain mask without voxels that have no signal (constant, not finite, or
        FAINT)
    level: (voxel inside,) mean signal: a region's mean of raw signals, in percent, is
        the mean of voxels weighted by it
    kept: (volume,), which volumes were kept
    tsnr: median over the mask of mean by standard deviation of the kept volumes, before
        cleaning
    space: as the file's name says, empty for native
    unit: percent of the mean; or, of a run that another pipeline cleaned down to a mean
        of zero, as it is there, with level 1 in every voxel
    cleaned_by: what a pipeline called the run that it cleaned, empty for ours
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
    unit: str = "percent"
    cleaned_by: str = ""

    @property
    def settings(self) -> JsonObject:
        """What was done, for a sidecar."""
        return {
            "Denoising": self._denoising_settings(),
            "RepetitionTime": self.tr,
            "Volumes": len(self.kept),
            "VolumesKept": int(self.kept.sum()),
            "Space": self.space or "native",
        }

    def _denoising_settings(self) -> JsonObject:
        if self.cleaned_by:
            return {
                "Description": "as the pipeline that wrote the image "
                f"(desc-{self.cleaned_by}) did it; nothing is regressed out again"
            }
        return {
            **asdict(self.denoising),
            "Description": self.denoising.description(),
        }


@dataclass(frozen=True, eq=False)
class _RawRun:
    """A run before cleaning: time courses (voxel inside, volume), mask and TR in s."""

    signals: np.ndarray
    inside: np.ndarray
    affine: np.ndarray
    tr: float


@dataclass(frozen=True, eq=False)
class _BrainRun:
    """A run without voxels that show no brain; level and tsnr as in `Bold`."""

    signals: np.ndarray
    inside: np.ndarray
    affine: np.ndarray
    tr: float
    level: np.ndarray
    tsnr: float


@dataclass(frozen=True, eq=False)
class _Confounds:
    """Confound columns (volume, column), None where there are none, and which volumes
    (volume,) are kept."""

    columns: np.ndarray | None
    kept: np.ndarray

    @property
    def count(self) -> int:
        return 0 if self.columns is None else self.columns.shape[1]

    @property
    def sample_mask(self) -> np.ndarray | None:
        """Indices of the kept volumes, as nilearn expects them."""
        # Without a mask, nilearn takes a shorter way.
        if self.kept.all():
            return None
        return np.flatnonzero(self.kept)


def read_bold(visit: Visit, denoising: Denoising = Denoising()) -> Bold:
    """A visit's preprocessed BOLD, cleaned, as fMRIPrep names and describes it; a run
    that another pipeline cleaned (CLEANED) is taken as it is.

    Raises InputError for damaged files, a mask on another grid or without signal in it,
    a TR that header and sidecar give differently, confounds of another length, or too
    few volumes left.
    """
    if is_cleaned(visit["bold"]):
        return _read_cleaned(visit)
    run, confounds = _read_brain(visit, denoising)
    percent = _percent_change(run.signals, run.level)
    return Bold(
        _clean(percent, confounds, run.tr, denoising),
        run.inside,
        run.affine,
        run.tr,
        confounds.kept,
        run.tsnr,
        run.level,
        space_of(visit["bold"]),
        denoising,
    )


def _read_cleaned(visit: Visit) -> Bold:
    """A run that another pipeline cleaned, without the volumes that it censored."""
    path = visit["bold"]
    image = _cleaned_voxels(visit)
    kept = kept_volumes(visit, path, np.isfinite(image.signals).any(0))
    signals = image.signals[:, kept]
    _check_long_enough(path, signals.shape[1], len(kept))
    varies = np.isfinite(signals).all(1) & (signals.std(1, dtype=float) > 0)
    # Outside the head nothing varies, so that only a mask makes this a fault.
    if "mask" in visit.files:
        _check_half_alive(path, varies.mean())
    content = _CleanedSignals.of(signals[varies])
    return Bold(
        content.signals,
        _smaller_mask(image.inside, varies),
        image.affine,
        image.tr,
        kept,
        content.tsnr,
        content.level,
        space_of(path),
        unit=content.unit,
        cleaned_by=description_of(path),
    )


def _check_long_enough(path: Path, left: int, volumes: int) -> None:
    if left < FEWEST_VOLUMES:
        raise InputError(
            f"{path}: {left} of {volumes} volumes are left; {FEWEST_VOLUMES} are "
            "needed."
        )


@dataclass(frozen=True, eq=False)
class _CleanedSignals:
    """Signals (voxel, volume) that another pipeline cleaned, as `Bold` has them."""

    signals: np.ndarray
    level: np.ndarray
    tsnr: float
    unit: str

    @staticmethod
    def of(signals: np.ndarray) -> _CleanedSignals:
        """In percent of the mean where it is left, else as they are."""
        level = signals.mean(1, dtype=float)
        spread = signals.std(1, dtype=float)
        tsnr = float(np.median(np.abs(level) / spread)) if len(level) else 0.0
        if tsnr > MEAN_IN_SPREADS:
            return _CleanedSignals(
                _percent_change(signals, level), level, tsnr, "percent"
            )
        # Without a mean there is no percent, and no voxel counts more than another.
        return _CleanedSignals(signals, np.ones(len(level)), np.nan, "as cleaned")


def _cleaned_voxels(visit: Visit) -> _RawRun:
    """All voxels, or those of the brain mask where there is one: XCP-D writes none."""
    if "mask" in visit.files:
        return _read_run(visit)
    path = visit["bold"]
    space = space_of(path)
    image = read_image(path, 4, space=space)
    inside = np.ones(image.shape[:3], bool)
    signals, header_tr = read_voxels(path, inside, image, "itself", space)
    tr = repetition_time(path, header_tr, visit.metadata("bold"))
    return _RawRun(signals, inside, image.affine, tr)


def _read_brain(visit: Visit, denoising: Denoising) -> tuple[_BrainRun, _Confounds]:
    # A function of its own, so that the unmasked run is released before cleaning.
    run = _read_run(visit)
    confounds = _read_confounds(visit, denoising, run.signals.shape[1])
    return _only_brain(visit["bold"], run, confounds.kept), confounds


def _read_run(visit: Visit) -> _RawRun:
    path = visit["bold"]
    space = space_of(path)
    mask = read_image(visit["mask"], 3, space=space)
    inside = _brain(visit["mask"], mask)
    signals, header_tr = read_voxels(path, inside, mask, "its mask", space)
    tr = repetition_time(path, header_tr, visit.metadata("bold"))
    return _RawRun(signals, inside, mask.affine, tr)


def _only_brain(path: Path, run: _RawRun, kept: np.ndarray) -> _BrainRun:
    # In double precision: sums over 500 volumes would lose digits in single.
    level = np.mean(run.signals[:, kept], axis=1, dtype=float)
    spread = np.std(run.signals[:, kept], axis=1, dtype=float)
    alive = _shows_brain(path, run.signals, level, spread)
    tsnr = float(np.median(level[alive] / spread[alive]))
    inside = _smaller_mask(run.inside, alive)
    return _BrainRun(run.signals[alive], inside, run.affine, run.tr, level[alive], tsnr)


def _smaller_mask(inside: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """A mask (x, y, z) with those of its voxels (voxel inside,) that are alive."""
    smaller = inside.copy()
    smaller[smaller] = alive
    return smaller


def _brain(path: Path, mask: nib.Nifti1Image) -> np.ndarray:
    # Resampled masks hold fractions.
    inside = np.asarray(mask.dataobj) > 0.5
    _check_brain_share(path, inside.mean())
    return inside


def _check_brain_share(path: Path, share: float) -> None:
    # Nearly nothing or nearly everything is no brain.
    if not 0.001 < share < 0.999:
        raise InputError(
            f"{path}: marks {share:.1%} of the image as brain; the mask is damaged."
        )


def _percent_change(signals: np.ndarray, level: np.ndarray) -> np.ndarray:
    # Percent, since scanners measure in arbitrary units.
    change = signals - level[:, None]
    return (100 * change / level[:, None]).astype(np.float32)


def _shows_brain(
    path: Path, signals: np.ndarray, level: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """Which voxels (voxel,) inside the mask show brain. Raises InputError where fewer
    than half do."""
    alive = np.isfinite(level) & np.isfinite(signals).all(1) & (spread > 0)
    if alive.any():
        alive &= _is_bright(level, float(np.median(level[alive])))
    _check_half_alive(path, alive.mean())
    return alive


def _is_bright(level: np.ndarray, usual: float) -> np.ndarray:
    # Infinite levels, not alive anyway, would only warn in the comparison.
    return np.nan_to_num(level) > FAINT * usual


def _check_half_alive(path: Path, share: float) -> None:
    if share < 0.5:
        raise InputError(
            f"{path}: {1 - share:.0%} of the voxels inside the mask are missing, zero "
            "or constant; the run or its mask is damaged."
        )


def repetition_time(path: Path, header: float, fields: JsonObject) -> float:
    """TR in s from the sidecar, checked against the header."""
    stated = _stated_tr(path, fields.get("RepetitionTime", header))
    _check_plausible_tr(path, stated)
    _check_same_tr(path, header, stated)
    return float(stated)


def _stated_tr(path: Path, stated: object) -> float:
    if not is_number(stated):
        raise InputError(
            f"{path}: RepetitionTime in its sidecar must be a number of seconds; got "
            f"{stated!r}."
        )
    return stated


def _check_plausible_tr(path: Path, tr: float) -> None:
    # Converters have written ms, and zero.
    if not 0.1 <= tr <= 10:
        raise InputError(
            f"{path}: a TR of {tr} s is implausible (expected 0.1 to 10 s; is it in "
            "ms?)."
        )


def _check_same_tr(path: Path, header: float, stated: float) -> None:
    # Some programs leave the header's at zero.
    if header and abs(stated - header) > 0.01 * stated:
        raise InputError(
            f"{path}: the header says TR = {header:.4g} s, its sidecar {stated:.4g} s. "
            "Repair one of them."
        )


def framewise_displacement(visit: Visit) -> np.ndarray:
    """Head motion from volume to volume (volume − 1,), mm, from fMRIPrep's
    confounds."""
    path = visit["confounds"]
    # The first volume has none before it.
    values = _displacement_column(path)[1:]
    _check_displacement(path, values)
    return values


def _displacement_column(path: Path) -> np.ndarray:
    table = read_table(path)
    if "framewise_displacement" not in table:
        raise InputError(
            f"{path}: expected a column framewise_displacement, as fMRIPrep writes it."
        )
    return _numbers(path, table["framewise_displacement"])


def _check_displacement(path: Path, values: np.ndarray) -> None:
    if not np.isfinite(values).any() or np.nanmin(values) < 0:
        raise InputError(f"{path}: framewise_displacement is empty or negative.")


def _numbers(path: Path, column: pd.Series) -> np.ndarray:
    try:
        return column.to_numpy(float)
    except ValueError as error:
        raise InputError(
            f"{path}: {column.name} holds something that is no number ({error})."
        ) from None


def _read_confounds(visit: Visit, denoising: Denoising, volumes: int) -> _Confounds:
    _check_aroma(visit, denoising)
    # nilearn reads the table too, but says less where it is damaged.
    read_table(visit["confounds"])
    kept = _kept_by_displacement(visit, denoising, volumes)
    confounds = _Confounds(None, kept)
    parts = _confound_parts(denoising)
    if parts:
        confounds = _regressors(visit, denoising, parts, kept)
    _check_volumes_left(visit, confounds.kept, confounds.count)
    return confounds


def _regressors(
    visit: Visit, denoising: Denoising, parts: list[str], kept: np.ndarray
) -> _Confounds:
    table, sample = _load_confounds(visit, denoising, parts)
    _check_complete(visit["confounds"], table, len(kept))
    # nilearn gives the kept volumes as indices, or None where it keeps all.
    if sample is not None:
        kept = kept & np.isin(np.arange(len(kept)), sample)
    # The strategy may consist of censoring only.
    columns = table.to_numpy(float) if table.shape[1] else None
    return _Confounds(columns, kept)


AROMA_RUNS = ("smoothAROMAnonaggr", "nonaggrDenoised")
"""Runs that ICA-AROMA cleaned, as fMRIPrep before 23 and fMRIPost-AROMA call them."""


def _check_aroma(visit: Visit, denoising: Denoising) -> None:
    path = visit["bold"]
    is_aroma_run = description_of(path) in AROMA_RUNS
    if denoising.strategy == "aroma" and not is_aroma_run:
        raise InputError(
            f"{path}: strategy aroma needs a run that ICA-AROMA cleaned; choose it "
            'with --bids-filter-file: {"bold": {"desc": "nonaggrDenoised"}} of '
            "fMRIPost-AROMA, or smoothAROMAnonaggr of fMRIPrep before version 23."
        )
    if is_aroma_run and denoising.strategy not in ("aroma", "none"):
        raise InputError(
            f"{path}: ICA-AROMA took motion out already; with it go --strategy aroma "
            "(white matter, fluid and slow drifts besides) or none."
        )


def _name_for_nilearn(visit: Visit, denoising: Denoising) -> str:
    """The name of an image from which nilearn derives that of the visit's confounds:
    beside them, packed, and called as fMRIPrep calls it."""
    path = visit["confounds"]
    stem = path.name.partition("_desc-confounds_")[0]
    ending = "desc-preproc_bold.nii.gz"
    if denoising.strategy == "aroma":
        ending = "space-MNI152NLin6Asym_desc-smoothAROMAnonaggr_bold.nii.gz"
    return str(path.with_name(f"{stem}_{ending}"))


def _confound_parts(denoising: Denoising) -> list[str]:
    """What nilearn shall load. A Butterworth high-pass replaces the slow cosines, but
    for CompCor: its components were computed with them."""
    parts = list(denoising.parts)
    if denoising.high_pass and "high_pass" in parts:
        parts.remove("high_pass")
        if "compcor" in parts:
            parts.append("high_pass")
    return parts


def _load_confounds(
    visit: Visit, denoising: Denoising, parts: list[str]
) -> tuple[pd.DataFrame, np.ndarray | None]:
    """nilearn's table of confounds, and the indices of the volumes that it keeps (None:
    all)."""
    # nilearn takes a second to import, and most commands read no BOLD.
    from nilearn.interfaces.fmriprep import load_confounds

    options = _confound_options(denoising, parts)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = _name_for_nilearn(visit, denoising)
            table, sample = load_confounds(name, demean=True, **options)
        # A column of text shall fail here, with the others.
        table.to_numpy(float)
    # nilearn raises whatever a strange table makes it stumble over.
    except Exception as error:
        raise InputError(
            f"{visit['confounds']}: lacks what the strategy {denoising.strategy} needs "
            f"({error})."
        ) from None
    return table, sample


def _confound_options(denoising: Denoising, parts: list[str]) -> JsonObject:
    """Options of nilearn's `load_confounds`."""
    options = {**STRATEGIES[denoising.strategy], "strategy": tuple(parts)}
    # An option of a part that is not asked for is an error for nilearn.
    if "scrub" in parts:
        options["fd_threshold"] = denoising.threshold
    return options


def _check_complete(path: Path, table: pd.DataFrame, volumes: int) -> None:
    _check_rows(path, len(table), volumes)
    complete = np.isfinite(table.to_numpy(float)).all(0)
    if not complete.all():
        empty = table.columns[~complete].astype(str)
        raise InputError(
            f"{path}: missing values in {', '.join(empty[:5])}; run fMRIPrep again or "
            "choose --strategy."
        )


def _check_rows(path: Path, rows: int, volumes: int) -> None:
    if rows != volumes:
        raise InputError(f"{path}: {rows} rows for {volumes} volumes.")


def _kept_by_displacement(
    visit: Visit, denoising: Denoising, volumes: int
) -> np.ndarray:
    """Which volumes (volume,) are kept by displacement alone: those below the limit, in
    runs of at least five."""
    if denoising.scrub is None:
        return np.ones(volumes, bool)
    # The first volume has no volume before it, and so no displacement.
    displacement = np.r_[0.0, framewise_displacement(visit)]
    _check_rows(visit["confounds"], len(displacement), volumes)
    # Not `<=`: a volume whose displacement is unknown is kept.
    return _without_short_runs(~(displacement > denoising.scrub))


def _without_short_runs(kept: np.ndarray) -> np.ndarray:
    """Without volumes in runs too short to be filtered."""
    # Padded, so that a run at either end has both edges.
    edges = np.flatnonzero(np.diff(np.r_[False, kept, False].astype(int)))
    kept = kept.copy()
    for start, stop in edges.reshape(-1, 2):
        kept[start:stop] = stop - start >= SHORTEST_RUN
    return kept


def _check_volumes_left(visit: Visit, kept: np.ndarray, regressors: int) -> None:
    # Every regressor fits one volume away.
    left = int(kept.sum()) - regressors
    if left < FEWEST_VOLUMES:
        raise InputError(
            f"{visit['bold']}: {_volumes_text(kept, regressors)}, which leaves {left} "
            f"degrees of freedom; {FEWEST_VOLUMES} are needed. Leave the visit out, or "
            "choose a milder --strategy or --scrub."
        )


def _volumes_text(kept: np.ndarray, regressors: int) -> str:
    return (
        f"{int(kept.sum())} of {len(kept)} volumes stay and {regressors} confounds are "
        "regressed out"
    )


def _clean(
    percent: np.ndarray, confounds: _Confounds, tr: float, denoising: Denoising
) -> np.ndarray:
    """nilearn's order of operations on blocks of voxels (voxel, volume); censored
    volumes are gone afterwards."""
    from nilearn.signal import clean

    options = _clean_options(confounds, tr, denoising)
    # Computed in double precision and kept in single, as the run was read.
    cleaned = np.empty((len(percent), int(confounds.kept.sum())), dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for start in range(0, len(percent), BLOCK):
            block = slice(start, start + BLOCK)
            cleaned[block] = clean(percent[block].T.astype(float), **options).T
    return cleaned


def _clean_options(
    confounds: _Confounds, tr: float, denoising: Denoising
) -> JsonObject:
    """Options of nilearn's `clean`."""
    return {
        "confounds": confounds.columns,
        "standardize_confounds": confounds.columns is not None,
        "sample_mask": confounds.sample_mask,
        "detrend": True,
        "standardize": False,
        **_filter_options(tr, denoising),
    }


def _filter_options(tr: float, denoising: Denoising) -> JsonObject:
    """Options of nilearn's `clean` that concern its filter."""
    _check_below_nyquist(tr, denoising)
    if not denoising.filters:
        return {"filter": False}
    return {
        "filter": "butterworth",
        "low_pass": denoising.low_pass,
        "high_pass": denoising.high_pass,
        "t_r": tr,
    }


def _check_below_nyquist(tr: float, denoising: Denoising) -> None:
    # No filter can part frequencies that the run does not sample.
    nyquist = 0.5 / tr
    if max(denoising.low_pass or 0, denoising.high_pass or 0) >= nyquist:
        raise InputError(
            f"The filter must lie below {nyquist:.3g} Hz, half of the sampling rate "
            f"(TR {tr} s)."
        )
