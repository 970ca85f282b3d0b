"""Intervals for one patient's rating that hold for patients not seen before, and how
well probabilities are meant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from cingulum.errors import InputError


def conformal_reach(
    residuals: np.ndarray, patient: np.ndarray, level: float = 0.9
) -> float:
    """Half width of the interval around a new patient's prediction.

    residuals: out of fold (scan,); patient: whose scan. Scans of one patient are not
        exchangeable with those of
    others, patients are: each patient has weight 1/(n + 1), shared by the own scans,
    and the new one the rest (CDF pooling of Dunn, Wasserman and Ramdas 2023,
    doi:10.1080/01621459.2022.2060112). Infinite where n is too small.
    """
    if not 0 < level < 1:
        raise InputError(f"level is between 0 and 1; came {level}.")
    size = np.abs(residuals)
    _, which, count = np.unique(patient, return_inverse=True, return_counts=True)
    weight = 1 / (count[which] * (len(count) + 1))
    order = np.argsort(size)
    reached = np.cumsum(weight[order]) >= level - 1e-12
    return float(size[order][reached.argmax()]) if reached.any() else float("inf")


def conformal_intervals(
    predicted: np.ndarray, rating: np.ndarray, patient: np.ndarray, level: float = 0.9
) -> np.ndarray:
    """Intervals (scan, 2) of patients under test, each from the other patients'
    out-of-fold residuals."""
    found, residuals = np.empty((len(predicted), 2)), rating - predicted
    for i in np.unique(patient):
        own = patient == i
        reach = conformal_reach(residuals[~own], patient[~own], level)
        found[own] = predicted[own, None] + np.array([-reach, reach])
    return found


@dataclass(frozen=True, eq=False)
class DecisionCalibration:
    """probability: given to the right answer (patient,), by a logistic curve through
    the origin on the other patients' out-of-fold decisions; brier: mean squared error
    (.25 for guessing); curve: of the mirrored answers, columns mean probability, share
    correct, number."""

    probability: np.ndarray
    brier: float
    curve: np.ndarray


def calibrate_decisions(decisions: np.ndarray, bins: int = 5) -> DecisionCalibration:
    """decisions: out of fold (patient,), NaN for patients without data."""
    known = np.flatnonzero(np.isfinite(decisions))
    probability = np.full(len(decisions), np.nan)
    size = np.abs(decisions[known]).mean() or 1.0
    for i in known:
        others = decisions[known[known != i], None] / size
        x, y = np.concatenate([others, -others]), np.repeat([1, 0], len(others))
        model = LogisticRegression(fit_intercept=False, C=100.0).fit(x, y)
        probability[i] = model.predict_proba([[decisions[i] / size]])[0, 1]
    p = probability[known]
    both, right = np.concatenate([p, 1 - p]), np.repeat([1.0, 0.0], len(p))
    edges = np.quantile(both, np.linspace(0, 1, bins + 1))
    member = np.clip(np.searchsorted(edges, both, side="right") - 1, 0, bins - 1)
    curve = [
        [both[member == k].mean(), right[member == k].mean(), (member == k).sum()]
        for k in range(bins)
        if (member == k).any()
    ]
    return DecisionCalibration(
        probability, float(np.square(1 - p).mean()), np.array(curve)
    )
