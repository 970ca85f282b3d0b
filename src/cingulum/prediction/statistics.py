"""How good decisions and predictions are, with the uncertainty of a finite number of
patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def accuracy(decisions: np.ndarray) -> np.ndarray:
    """Share of patients (last axis) whose second visit is recognised: decision > 0; an
    undecided one counts half."""
    return ((decisions > 0) + 0.5 * (decisions == 0)).mean(-1)


def rounded(decisions: np.ndarray) -> np.ndarray:
    """Decisions (…, patient) to nine digits of the largest, so that ties stay ties in
    spite of rounding errors."""
    top = np.abs(decisions).max(-1, keepdims=True).clip(1e-300)
    return np.round(decisions / top, 9) * top


def correctness(decisions: np.ndarray) -> np.ndarray:
    """1 for a patient whose second visit is recognised, 0 for one whose is not, ½ for
    an undecided one, NaN without data."""
    correct = (decisions > 0) + 0.5 * (decisions == 0)
    return np.where(np.isfinite(decisions), correct, np.nan)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """McNemar's exact two-sided p that two models recognise equally many of the same
    patients; decisions (patient,) each. Patients on whom either is undecided do not
    count."""
    decided = (first != 0) & (second != 0)
    by_first = first[decided] > 0
    by_second = second[decided] > 0
    # Patients that both or neither recognise say nothing about which is better.
    disagreements = int((by_first != by_second).sum())
    return _sign_test(int((by_first & ~by_second).sum()), disagreements)


def _sign_test(wins: int, number: int) -> float:
    """Exact two-sided p of so many wins where either side is equally likely."""
    # Without any disagreement there is nothing against equality.
    if not number:
        return 1.0
    return float(binomtest(wins, number).pvalue)


def pearson_r(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r over the last axis; 0 where one of the two does not vary (a constant
    predicts nothing)."""
    varies = varying(a) & varying(b)
    r = (_centred_unit(a) * _centred_unit(b)).sum(-1)
    return np.where(varies, r, 0.0)


def varying(a: np.ndarray) -> np.ndarray:
    """Whether values differ along the last axis by more than rounding."""
    return np.ptp(a, axis=-1) > 1e-10 * np.abs(a).max(-1)


def _centred_unit(a: np.ndarray) -> np.ndarray:
    """Rows less their mean, with length 1."""
    centred = a - a.mean(-1, keepdims=True)
    # First by the largest, so that squares neither overflow nor vanish.
    scaled = centred / np.abs(centred).max(-1, keepdims=True).clip(1e-300)
    return scaled / _length(scaled).clip(1e-300)


def _length(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(rows).sum(-1, keepdims=True))
