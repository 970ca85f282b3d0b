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
    low, high = np.quantile(known, _tails(level))
    return Interval(float(low), float(high))


def _tails(level: float) -> list[float]:
    """Shares below the two ends of the middle `level`."""
    return [(1 - level) / 2, (1 + level) / 2]


def exact_interval(correct: float, n: int) -> Interval:
    """95 % Clopper-Pearson interval of a proportion; `correct` may be a half count."""
    # Not scipy's binomtest: it takes whole counts only, and gives the same for them.
    return Interval(_lower_bound(correct, n), _upper_bound(correct, n))


def _lower_bound(correct: float, n: int) -> float:
    # The beta distribution is not defined at the end, where the bound is exact.
    if correct <= 0:
        return 0.0
    return float(beta.ppf(0.025, correct, n - correct + 1))


def _upper_bound(correct: float, n: int) -> float:
    # As for the lower one.
    if correct >= n:
        return 1.0
    return float(beta.ppf(0.975, correct + 1, n - correct))


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


@dataclass(frozen=True, eq=False)
class DeLong:
    """AUC of one or more models on the same independent cases, and their covariance
    (DeLong et al. 1988, doi:10.2307/2531595). The two visits of a patient are not
    independent cases: for those use a patient bootstrap."""

    aucs: np.ndarray
    covariance: np.ndarray

    def interval(self, model: int = 0, level: float = 0.95) -> Interval:
        """Normal interval of one AUC, cut to 0 to 1."""
        auc = float(self.aucs[model])
        reach = self._reach(model, level)
        return Interval(max(0.0, auc - reach), min(1.0, auc + reach))

    def _reach(self, model: int, level: float) -> float:
        """Half width of the interval."""
        error = np.sqrt(self.covariance[model, model])
        return float(norm.ppf((1 + level) / 2) * error)

    def p(self, a: int = 0, b: int = 1) -> float:
        """Two-sided p that two models have the same AUC."""
        variance = self._variance_of_difference(a, b)
        gap = abs(self.aucs[a] - self.aucs[b])
        # A model against itself, or two that rank all cases alike.
        if variance <= 0:
            return 1.0 if gap < 1e-12 else 0.0
        return float(2 * norm.sf(gap / np.sqrt(variance)))

    def _variance_of_difference(self, a: int, b: int) -> float:
        covariance = self.covariance
        return float(covariance[a, a] + covariance[b, b] - 2 * covariance[a, b])


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
    covariance = _covariance_of_mean(below) + _covariance_of_mean(above)
    return DeLong(below.mean(1), covariance)


def _covariance_of_mean(shares: np.ndarray) -> np.ndarray:
    """Covariance (model, model) of the means of shares (model, case)."""
    # One model gives a number, not a matrix.
    return np.atleast_2d(np.cov(shares)) / shares.shape[1]


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
