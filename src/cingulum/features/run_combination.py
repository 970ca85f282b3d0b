"""Several runs of a visit as one measurement: each run is cleaned and measured by
itself, and the measurements are combined, so that nothing is correlated across the end
of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from cingulum.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cingulum.features.feature import Measurement


class RunCombination(StrEnum):
    """How correlations of several runs become one.

    JOINED: as if the runs, each standardised, were one: Σ n_k r_k / Σ n_k
    FISHER: by the mean of Fisher z, weighted by kept volumes
    """

    JOINED = "joined"
    FISHER = "fisher"


DESCRIPTIONS = {
    RunCombination.JOINED: "joined, each run standardised by itself: mean correlation "
    "weighted by kept volumes",
    RunCombination.FISHER: "mean Fisher z weighted by kept volumes",
}


def volumes_of(measurement: Measurement) -> float:
    """Volumes that a run's measurement is made of, by its own details."""
    details = measurement.details
    return float(details.get("VolumesKept") or details.get("Volumes") or 1.0)


def weighted_mean(values: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Mean over runs of arrays of one shape; a value that a run lacks (NaN) is that of
    the others. Raises InputError for arrays of different shapes."""
    import numpy as np

    check_same_shapes(values)
    stacked = np.stack([np.asarray(value, float) for value in values])
    weight = np.asarray(weights, float).reshape(-1, *[1] * (stacked.ndim - 1))
    total = (weight * np.isfinite(stacked)).sum(0)
    summed = np.nansum(weight * stacked, 0)
    unknown = np.full(summed.shape, np.nan)
    return np.divide(summed, total, out=unknown, where=total > 0)


def check_same_shapes(values: Sequence[np.ndarray]) -> None:
    """Raises InputError where runs have other regions or another grid."""
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        raise InputError(
            f"Runs of one visit have different shapes ({shapes}), so that they cannot "
            "be combined. Choose one with --bids-filter-file."
        )


def combined_correlations(
    values: Sequence[np.ndarray], weights: Sequence[float], method: RunCombination
) -> np.ndarray:
    """Correlations of several runs as one."""
    import numpy as np

    if method == RunCombination.JOINED:
        return weighted_mean(values, weights)
    limit = 1 - 1e-12
    # Diagonals of 1 have no Fisher z, and stay what they are.
    z = [np.arctanh(np.clip(value, -limit, limit)) for value in values]
    combined = np.tanh(weighted_mean(z, weights))
    is_one = np.all([value == 1 for value in values], axis=0)
    return np.where(is_one, 1.0, combined)


def combined_measurement(
    runs: Sequence[Measurement], values: np.ndarray, description: str
) -> Measurement:
    """A measurement with the details of the first run, and what was combined.

    Raises InputError for maps on different grids.
    """
    import numpy as np

    first = runs[0]
    for run in runs[1:]:
        if first.affine is not None and not np.allclose(first.place, run.place):
            raise InputError(
                "Runs of one visit lie on different grids, so that their maps cannot "
                "be combined. Choose one with --bids-filter-file."
            )
    flags = sorted({flag for run in runs for flag in run.flags})
    details = {
        **first.details,
        "Runs": [
            {
                name: run.details[name]
                for name in ("RepetitionTime", "Volumes", "VolumesKept")
                if name in run.details
            }
            for run in runs
        ],
        "RunsCombined": description,
    }
    for name in ("Volumes", "VolumesKept"):
        if name in first.details:
            details[name] = sum(run.details[name] for run in runs)
    return replace(first, values=values, details=details, flags=flags)
