"""How good decisions and predictions are, with the uncertainty of a finite number of
patients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binomtest, norm, rankdata

from cingulum.prediction.svm import solver


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def accuracy(decisions: np.ndarray) -> np.ndarray:
    """Share of patients (last axis) whose later visit is recognised: decision > 0; an
    undecided one counts half."""
    return ((decisions > 0) + 0.5 * (decisions == 0)).mean(-1)


def paired_auc(decisions: np.ndarray) -> float:
    """AUC of the mirrored decisions {d} against {−d}, the figure of Lee et al. 2019.

    It equals P(d_i + d_j > 0) over pairs of patients, a signed-rank quantity, and is
    **not** the AUC of single scans.
    """
    return float(solver.mirrored_auc(np.atleast_2d(np.asarray(decisions, float)))[0])


def rounded(decisions: np.ndarray) -> np.ndarray:
    """Decisions (…, patient) to nine digits of the largest: ties are ties, not what
    rounding makes of them."""
    top = np.abs(decisions).max(-1, keepdims=True).clip(1e-300)
    return np.round(decisions / top, 9) * top


def right(decisions: np.ndarray) -> np.ndarray:
    """1 for a recognised patient, 0 for one that is not, ½ for an undecided one, NaN
    without data."""
    return np.where(
        np.isfinite(decisions), (decisions > 0) + 0.5 * (decisions == 0), np.nan
    )


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive case scores above a negative one; ties count half."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


RESAMPLES = 2000
"""Bootstrap samples of patients behind every interval."""


def resamples(n: int, rng: np.random.Generator, times: int = RESAMPLES) -> np.ndarray:
    """Rows (times, n) of patients drawn with replacement."""
    return rng.integers(n, size=(times, n))


def percentile(values: np.ndarray, level: float = 0.95) -> Interval:
    """The middle `level` of bootstrapped figures; those that could not be computed
    (NaN) are left out."""
    known = np.asarray(values)[np.isfinite(values)]
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def bootstrap(
    n: int,
    figure: Callable[[np.ndarray], float],
    rng: np.random.Generator,
    times: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of figure(rows) over resampled patients. Models are not
    refitted: it is the uncertainty of the patients under test, given their
        decisions."""
    return percentile(
        np.array([figure(rows) for rows in resamples(n, rng, times)]), level
    )


def exact_interval(correct: float, n: int) -> Interval:
    """95 % Clopper-Pearson interval of a proportion."""
    low = beta.ppf(0.025, correct, n - correct + 1) if correct > 0 else 0.0
    high = beta.ppf(0.975, correct + 1, n - correct) if correct < n else 1.0
    return Interval(float(low), float(high))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided exact p that two models recognise equally many of the same patients;
    decisions (patient,) each. Patients on whom either is undecided do not count."""
    decided = (first != 0) & (second != 0)
    first, second = first[decided], second[decided]
    only_first = int(((first > 0) & ~(second > 0)).sum())
    only_second = int(((second > 0) & ~(first > 0)).sum())
    apart = only_first + only_second
    return float(binomtest(only_first, apart).pvalue) if apart else 1.0


@dataclass(frozen=True, eq=False)
class DeLong:
    """AUC of one or more models on the same independent cases, and their covariance
    (DeLong et al. 1988, doi:10.2307/2531595). The two visits of a patient are not
    independent cases: for those use a patient bootstrap."""

    aucs: np.ndarray
    covariance: np.ndarray

    def interval(self, model: int = 0, level: float = 0.95) -> Interval:
        reach = norm.ppf((1 + level) / 2) * np.sqrt(self.covariance[model, model])
        return Interval(
            max(0.0, float(self.aucs[model] - reach)),
            min(1.0, float(self.aucs[model] + reach)),
        )

    def p(self, a: int = 0, b: int = 1) -> float:
        """Two-sided p that two models have the same AUC."""
        v = self.covariance
        variance = v[a, a] + v[b, b] - 2 * v[a, b]
        apart = self.aucs[a] - self.aucs[b]
        if variance <= 0:
            return 1.0 if abs(apart) < 1e-12 else 0.0
        return float(2 * norm.sf(abs(apart) / np.sqrt(variance)))


def delong(positive: np.ndarray, negative: np.ndarray) -> DeLong:
    """positive: scores (model, positive case); negative: (model, negative case).
    Midranks (Sun and Xu 2014)."""
    positive, negative = np.atleast_2d(positive), np.atleast_2d(negative)
    n, m = positive.shape[1], negative.shape[1]
    together = rankdata(np.concatenate([positive, negative], 1), axis=1)
    above = (
        together[:, :n] - rankdata(positive, axis=1)
    ) / m  # placement of each positive among the negatives
    below = 1 - (together[:, n:] - rankdata(negative, axis=1)) / n
    covariance = np.atleast_2d(np.cov(above)) / n + np.atleast_2d(np.cov(below)) / m
    return DeLong(above.mean(1), covariance)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson r over the last axis; 0 where one of the two does not vary (a constant
    predicts nothing)."""
    varies = varying(a) & varying(b)
    a, b = _unit(a), _unit(b)
    return np.where(varies, (a * b).sum(-1), 0.0)


def varying(a: np.ndarray) -> np.ndarray:
    """Whether values differ along the last axis by more than rounding."""
    return np.ptp(a, axis=-1) > 1e-10 * np.abs(a).max(-1)


def _unit(a: np.ndarray) -> np.ndarray:
    a = a - a.mean(-1, keepdims=True)
    a = a / np.abs(a).max(-1, keepdims=True).clip(1e-300)
    return a / np.sqrt(np.square(a).sum(-1, keepdims=True)).clip(1e-300)


def fusion_of_independent(aucs: np.ndarray) -> tuple[float, float]:
    """Mirrored AUC and accuracy that independent Gaussian decisions with these mirrored
    AUCs would reach together: d² adds, d = Φ⁻¹(AUC) / √2 (lee2019.md §3.2)."""
    d = np.sqrt(np.square(norm.ppf(np.asarray(aucs)) / np.sqrt(2)).sum())
    return float(norm.cdf(np.sqrt(2) * d)), float(norm.cdf(d))
