"""Intervals for one patient's rating that hold for patients not seen before."""

from __future__ import annotations

import numpy as np

from cingulum.errors import InputError


def conformal_reach(
    residuals: np.ndarray, patient: np.ndarray, level: float = 0.9
) -> float:
    """Half width of the interval around a new patient's prediction; infinite where
    there are too few patients.

    residuals: out of fold (scan,); patient (scan,): whose scan it is

    Scans of one patient are not exchangeable with those of others, patients are: each
    patient has weight 1/(n + 1), shared by that patient's scans, and the new patient
    the remaining 1/(n + 1) (CDF pooling of Dunn, Wasserman and Ramdas 2023,
    doi:10.1080/01621459.2022.2060112).
    """
    _check_level(level)
    size = np.abs(residuals)
    return _weighted_quantile(size, _weights(patient), level)


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    """Smallest value up to which the weights reach the level; infinite if there is
    none."""
    order = np.argsort(values)
    # Sums of weights that should equal the level may fall short of it by rounding.
    covered = np.cumsum(weights[order]) >= level - 1e-12
    # The new patient's own residual, which may be any size, has the remaining weight.
    if not covered.any():
        return float("inf")
    return float(values[order][covered.argmax()])


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level is between 0 and 1; got {level}.")


def _weights(patient: np.ndarray) -> np.ndarray:
    """Weight of each scan (scan,): all scans of a patient have 1/(n + 1) together."""
    _, member, count = np.unique(patient, return_inverse=True, return_counts=True)
    return 1 / (count[member] * (len(count) + 1))


def conformal_intervals(
    predicted: np.ndarray,
    rating: np.ndarray,
    patient: np.ndarray,
    level: float = 0.9,
    group: np.ndarray | None = None,
) -> np.ndarray:
    """Intervals (scan, 2) of tested patients, each from the out-of-fold residuals of
    the other patients.

    They hold on average over patients: of those who are harder to predict they cover
    less. group (scan,): intervals that hold in each group by itself (Mondrian; Vovk
    2012, doi:10.1007/s10994-013-5355-6), and are infinite in groups of too few.
    """
    of_group = np.zeros(len(patient), int) if group is None else np.asarray(group)
    reach = np.empty(len(predicted))
    for i in np.unique(patient):
        own = patient == i
        # A patient's own residuals would make its interval fit them.
        others = ~own & (of_group == of_group[own][0])
        residuals = rating[others] - predicted[others]
        reach[own] = conformal_reach(residuals, patient[others], level)
    return np.stack([predicted - reach, predicted + reach], 1)
