"""How good decisions and predictions are, with the uncertainty of a finite number of
patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binomtest, norm, rankdata


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


RESAMPLES = 2000
"""Bootstrap samples of patients behind every interval."""


def resamples(n: int, rng: np.random.Generator, times: int = RESAMPLES) -> np.ndarray:
    """Rows (times, n) of patients drawn with replacement."""
    return rng.integers(n, size=(times, n))


def percentile(values: np.ndarray, level: float = 0.95) -> Interval:
    """The middle `level` of bootstrapped statistics; those that could not be computed
    (NaN) are left out."""
    known = np.asarray(values)[np.isfinite(values)]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def exact_interval(correct: float, n: int) -> Interval:
    """95 % Clopper-Pearson interval of a proportion; `correct` may be a half count."""
    # Not scipy's binomtest: it takes whole counts only, and gives the same for them.
    low = beta.ppf(0.025, correct, n - correct + 1) if correct > 0 else 0.0
    high = beta.ppf(0.975, correct + 1, n - correct) if correct < n else 1.0
    return Interval(float(low), float(high))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """McNemar's exact two-sided p that two models recognise equally many of the same
    patients; decisions (patient,) each. Patients on whom either is undecided do not
    count."""
    decided = (first != 0) & (second != 0)
    by_first = first[decided] > 0
    by_second = second[decided] > 0
    only_first = int((by_first & ~by_second).sum())
    only_second = int((by_second & ~by_first).sum())
    disagreements = only_first + only_second
    if not disagreements:
        return 1.0
    return float(binomtest(only_first, disagreements).pvalue)


@dataclass(frozen=True, eq=False)
class DeLong:
    """AUC of one or more models on the same independent cases, and their covariance
    (DeLong et al. 1988, doi:10.2307/2531595). The two visits of a patient are not
    independent cases: for those use a patient bootstrap."""

    aucs: np.ndarray
    covariance: np.ndarray

    def interval(self, model: int = 0, level: float = 0.95) -> Interval:
        """Normal interval of one AUC, cut to 0 to 1."""
        error = np.sqrt(self.covariance[model, model])
        reach = norm.ppf((1 + level) / 2) * error
        return Interval(
            max(0.0, float(self.aucs[model] - reach)),
            min(1.0, float(self.aucs[model] + reach)),
        )

    def p(self, a: int = 0, b: int = 1) -> float:
        """Two-sided p that two models have the same AUC."""
        covariance = self.covariance
        variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        gap = abs(self.aucs[a] - self.aucs[b])
        # A model against itself, or two that rank all cases alike.
        if variance <= 0:
            return 1.0 if gap < 1e-12 else 0.0
        return float(2 * norm.sf(gap / np.sqrt(variance)))


def delong(positive: np.ndarray, negative: np.ndarray) -> DeLong:
    """AUCs and their covariance from midranks (Sun and Xu 2014,
    doi:10.1109/LSP.2014.2337313).

    positive: scores (model, positive case); negative: (model, negative case)
    """
    positive = np.atleast_2d(positive)
    negative = np.atleast_2d(negative)
    n = positive.shape[1]
    m = negative.shape[1]
    ranks = rankdata(np.concatenate([positive, negative], 1), axis=1)
    # Share of the negatives below each positive, and of the positives above each
    # negative.
    below = (ranks[:, :n] - rankdata(positive, axis=1)) / m
    above = 1 - (ranks[:, n:] - rankdata(negative, axis=1)) / n
    from_positives = np.atleast_2d(np.cov(below)) / n
    from_negatives = np.atleast_2d(np.cov(above)) / m
    return DeLong(below.mean(1), from_positives + from_negatives)


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
    a = a - a.mean(-1, keepdims=True)
    # First by the largest, so that squares neither overflow nor vanish.
    a = a / np.abs(a).max(-1, keepdims=True).clip(1e-300)
    return a / np.sqrt(np.square(a).sum(-1, keepdims=True)).clip(1e-300)
