"""Calibrated probabilities of decisions: does 80 % mean right in 80 of 100 patients?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

PENALTY = 100.0
"""C of the logistic regression: just enough regularisation for a finite slope where all
decisions are right."""


@dataclass(frozen=True, eq=False)
class DecisionCalibration:
    """Calibrated probabilities and how far they are from the truth.

    probability (patient,): of the correct answer, by a logistic curve through the
        origin fitted to the other patients' out-of-fold decisions; NaN without data
    brier: mean squared error (.25 for guessing)
    curve: of the mirrored answers, columns mean probability, share correct, number
    """

    probability: np.ndarray
    brier: float
    curve: np.ndarray


def calibrate_decisions(decisions: np.ndarray, bins: int = 5) -> DecisionCalibration:
    """decisions: out of fold (patient,), NaN for patients without data."""
    known = np.isfinite(decisions)
    calibrated = _probabilities(decisions[known])
    probability = np.full(len(decisions), np.nan)
    probability[known] = calibrated
    return DecisionCalibration(
        probability, _brier(calibrated), _curve(calibrated, bins)
    )


def _brier(probability: np.ndarray) -> float:
    """Mean squared error of probabilities of the correct answer."""
    return float(np.square(1 - probability).mean())


def _probabilities(decisions: np.ndarray) -> np.ndarray:
    """Probability of each decision's sign to be right, from the other decisions."""
    # Without units, so that the penalty of the regression means the same for any SVM.
    size = np.abs(decisions).mean() or 1.0
    scaled = decisions[:, None] / size
    patients = range(len(decisions))
    return np.array([_probability_from_others(scaled, i) for i in patients])


def _probability_from_others(scaled: np.ndarray, patient: int) -> float:
    curve = _logistic_curve(np.delete(scaled, patient, axis=0))
    return float(curve.predict_proba(scaled[[patient]])[0, 1])


def _logistic_curve(decisions: np.ndarray) -> LogisticRegression:
    """Through the origin, fitted to decisions (patient, 1) that should be positive."""
    # Mirrored, since which visit is called the second is a convention.
    x = np.concatenate([decisions, -decisions])
    y = np.repeat([1, 0], len(decisions))
    return LogisticRegression(fit_intercept=False, C=PENALTY).fit(x, y)


def _curve(probability: np.ndarray, bins: int) -> np.ndarray:
    """Rows (bin, 3): mean probability, share correct, number of answers."""
    answers = np.concatenate([probability, 1 - probability])
    correct = np.repeat([1.0, 0.0], len(probability))
    member = _quantile_bins(answers, bins)
    # Equal answers may leave a bin empty.
    rows = [_curve_row(answers, correct, member == k) for k in np.unique(member)]
    return np.array(rows)


def _curve_row(
    answers: np.ndarray, correct: np.ndarray, inside: np.ndarray
) -> list[float]:
    return [answers[inside].mean(), correct[inside].mean(), inside.sum()]


def _quantile_bins(values: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each value; quantiles, so that no bin has only a handful of values."""
    shares = np.linspace(0, 1, bins + 1)
    edges = np.quantile(values, shares)
    member = np.searchsorted(edges, values, side="right") - 1
    # The largest value is its own edge.
    return np.clip(member, 0, bins - 1)
