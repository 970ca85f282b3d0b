"""Scores of scans by a signature, with checks of unit, coverage and orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.signature import (
    LOG_POWER,
    REGRESSION_ESTIMATE,
    RELATIVE_FLOW,
    ModalityWeights,
)

COVERAGE = 0.8
"""Least share of the squared weights that must lie where the data do."""

FULL_COVERAGE = 0.95
"""Share of the squared weights below which the coverage is reported."""

CREDIBLE_MEAN = (0.8, 1.25)
"""Whole-brain mean of relative blood flow; 1 by definition, up to masks and
smoothing."""

CREDIBLE_SPREAD = (0.02, 7)
"""Standard deviation of differences in seed connectivity: .35 in the published data
(lee2019.md §3.4), a factor of twenty either way."""

LARGEST_LOG_POWER = 15
"""Larger values cannot be logarithms of a heart rate variability in ms²."""

SHIFTS = range(-8, 9, 2)
"""Shifts in voxels that are tried with a flipped brain."""


@dataclass(frozen=True)
class SignatureScores:
    """Scores of one modality, one per scan; coverage: share of the squared weights
    where there are data; flags: what limits their meaning."""

    scores: np.ndarray
    coverage: float
    flags: tuple[str, ...]


def score_maps(
    part: ModalityWeights, maps: Sequence[np.ndarray], affine: np.ndarray, what: str
) -> SignatureScores:
    """Scores w · x of maps (x, y, z) on one grid, zero outside the brain; what: named
    in errors.

    The maps are resampled to the grid of the weights; voxels that any of them lacks are
    left out of all, so that a difference of two scores is the score of the difference.
    Raises InputError for other units, little coverage, and maps that are flipped.
    """
    data = np.stack([np.asarray(values, np.float32) for values in maps])
    inside = _inside_all(data, what)
    flags = _check_unit(part.unit, data[:, inside], what)
    # A voxel counts where most of it was inside the brain before resampling.
    mask = _resampled(inside.astype(np.float32), affine, part) > 0.5
    _check_orientation(part, mask, what)
    weights = np.where(mask, part.weights, 0.0)
    coverage = _squares(weights) / _squares(part.weights)
    flags += _check_coverage(coverage, what)
    # One map at a time, since a grid of many would not fit into memory.
    scores = []
    for values in data:
        scores.append(_score(weights, _resampled(values, affine, part)))
    return SignatureScores(np.array(scores), coverage, flags)


def _score(weights: np.ndarray, values: np.ndarray) -> float:
    return float((weights * values).sum())


def _squares(weights: np.ndarray) -> float:
    return float(np.square(weights).sum())


def _inside_all(data: np.ndarray, what: str) -> np.ndarray:
    """Voxels inside the brain of every scan; data (scan, x, y, z)."""
    _check_finite(data, what)
    inside = (data != 0).all(0)
    if not inside.any():
        raise InputError(f"{what}: has no voxel inside the brain of every scan.")
    return inside


def _check_finite(data: np.ndarray, what: str) -> None:
    if not np.isfinite(data).all():
        raise InputError(
            f"{what}: NaN or infinite values; expected zero outside the brain."
        )


def score_columns(
    part: ModalityWeights, values: np.ndarray, columns: Sequence[str], what: str
) -> SignatureScores:
    """Scores of values (scan, column). Raises InputError for columns that are missing
    and for other units."""
    _check_columns(part, columns, what)
    # By name: a table may have its columns in any order.
    order = [list(columns).index(column) for column in part.columns]
    x = np.asarray(values, float)[:, order]
    _check_values(part, x, what)
    return SignatureScores(x @ part.weights, 1.0, ())


def _check_values(part: ModalityWeights, x: np.ndarray, what: str) -> None:
    if not np.isfinite(x).all():
        raise InputError(f"{what}: values are missing.")
    if part.unit == LOG_POWER:
        _check_log_power(x, what)


def _check_columns(part: ModalityWeights, columns: Sequence[str], what: str) -> None:
    missing = [column for column in part.columns if column not in columns]
    if missing:
        # A few examples are enough to find the mistake.
        listed = ", ".join(missing[:5])
        number = len(part.columns)
        raise InputError(
            f"{what}: lacks {listed}; the signature needs {number} columns."
        )


# Units


def _check_unit(unit: str, data: np.ndarray, what: str) -> tuple[str, ...]:
    """Raises InputError for data (scan, voxel) that cannot have the unit; returns
    flags."""
    if unit == RELATIVE_FLOW:
        _check_relative_flow(data.mean(1), what)
    if unit == REGRESSION_ESTIMATE and len(data) > 1:
        return _flag_spread(data)
    return ()


def _check_relative_flow(means: np.ndarray, what: str) -> None:
    """means (scan,): over the brain."""
    low, high = CREDIBLE_MEAN
    if ((low <= means) & (means <= high)).all():
        return
    raise _flow_error(_farthest_from_one(means), what)


def _farthest_from_one(means: np.ndarray) -> float:
    # As a factor, so that 0.5 is as far as 2.
    factor = np.abs(np.log(np.abs(means).clip(1e-9)))
    return float(means[factor.argmax()])


def _flow_error(worst: float, what: str) -> InputError:
    # Grey and white matter together have a mean flow of about 50 ml/100 g/min.
    hint = " That looks like ml/100 g/min." if 15 < worst < 150 else ""
    return InputError(
        f"{what}: blood flow has mean {worst:.3g} over the brain; the signature is for "
        f"maps divided by their whole-brain mean (1).{hint} Divide each map by its "
        "mean over the brain."
    )


def _flag_spread(data: np.ndarray) -> tuple[str, ...]:
    spread = float(np.diff(data, axis=0).std())
    low, high = CREDIBLE_SPREAD
    if low < spread < high:
        return ()
    return (_spread_words(spread),)


def _spread_words(spread: float) -> str:
    return (
        f"differences between scans have SD {spread:.3g}; the published data had about "
        "0.35"
    )


def _check_log_power(x: np.ndarray, what: str) -> None:
    size = np.abs(x)
    if (size > LARGEST_LOG_POWER).any():
        raise InputError(
            # The largest, which a user finds most easily in the table.
            f"{what}: {x.flat[size.argmax()]:.4g} cannot be a logarithm of ms²: take "
            "the natural logarithm of the power first."
        )


# Space


def _check_coverage(coverage: float, what: str) -> tuple[str, ...]:
    if coverage < COVERAGE:
        raise _coverage_error(coverage, what)
    if coverage < FULL_COVERAGE:
        return (f"covers {coverage:.0%} of the signature's squared weights",)
    return ()


def _coverage_error(coverage: float, what: str) -> InputError:
    return InputError(
        f"{what}: covers {coverage:.0%} of the signature's squared weights; at least "
        f"{COVERAGE:.0%} is needed. Was the whole brain scanned, and is the map in the "
        "signature's space?"
    )


def _check_orientation(part: ModalityWeights, mask: np.ndarray, what: str) -> None:
    """Raises InputError for maps whose brain overlaps the signature's better when
    turned upside down or back to front.

    Left and right are too alike to be distinguished by the outline of the brain.
    """
    target = part.weights != 0
    overlap = float((mask & target).sum())
    for axis, flip in ((1, "back to front"), (2, "upside down")):
        # Clearly better, since a brain flipped the right way round overlaps as well.
        if _best_overlap(np.flip(mask, axis), target, axis) > 1.1 * overlap:
            raise _orientation_error(flip, what)


def _orientation_error(flip: str, what: str) -> InputError:
    return InputError(
        f"{what}: lies {flip}: turned, it would overlap the signature better. Check "
        "the affine."
    )


def _best_overlap(flipped: np.ndarray, target: np.ndarray, axis: int) -> int:
    """Voxels in common over some shifts along the axis: a brain is seldom centred, so
    that a flip moves it, too."""
    return max(_overlap(np.roll(flipped, shift, axis), target) for shift in SHIFTS)


def _overlap(mask: np.ndarray, target: np.ndarray) -> int:
    return int((mask & target).sum())


def _resampled(
    data: np.ndarray, affine: np.ndarray, part: ModalityWeights
) -> np.ndarray:
    """Data on the grid of the weights, linearly interpolated, zero outside."""
    from scipy.ndimage import affine_transform

    if part.affine is None:
        raise TypeError("Maps need the weights of a map; these are of columns.")
    shape = part.weights.shape
    # On the same grid interpolation would only add rounding errors.
    if data.shape == shape and np.allclose(affine, part.affine):
        return data
    # From voxels of the weights to voxels of the data.
    back = np.linalg.inv(affine) @ part.affine
    return affine_transform(
        data, back[:3, :3], back[:3, 3], output_shape=shape, order=1
    )
