"""95 % confidence intervals of out-of-fold performance.

None of them resamples predictions. Those of patients who were left out depend on each
other through the models that the others share, and lean away from the truth where
features know little. Resampled as if they were fixed and independent, they held the
truth in 66 to 85 % of simulated cohorts of 12 to 53 patients, and had no width at a
perfect score. The constants below are the smallest that held it in 92 % or more
(`benchmarks/coverage.py`).

A figure below chance says that nothing is known, not that the opposite is. The upper
end of an interval is therefore never below that of a figure at chance, and a gain over
a model below chance may be as small as the gain over chance.

n is the number of independent people: families where there are any, else patients.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.stats import beta, rankdata, t

from cingulum.prediction.statistics import Interval, correctness, pearson_r

NAN = float("nan")

UNKNOWN = Interval(NAN, NAN)

CHANCE = 0.5

Z = 1.96
"""Standard errors to either end of a 95 % interval of a normal variable."""

EXTRA_VARIANCE = 0.3
"""Share by which the variance of an AUC at chance exceeds that of independent
decisions; it falls to 0 at a perfect AUC."""

AUC_PESSIMISM = 0.2
"""By how much longer the interval of an AUC at chance reaches upwards."""

CORRELATION_PESSIMISM = 0.63
"""By how much longer the interval of a correlation of 0 reaches upwards."""

GAIN_FACTOR = 1.1
"""By how much longer intervals of gains and of errors are than those of independent
patients."""

SMALLEST_SHARE = 0.3
"""Least share of the variance of an AUC of unrelated scans that is left where both
scans of a patient resemble each other."""

GRID = np.linspace(1e-6, 1 - 1e-6, 4001)
"""True AUCs that are asked whether they agree with the observed one."""


def warn_of_bootstrap(bootstrap: int | None) -> None:
    """Say that an option of earlier versions has no effect any more."""
    if bootstrap is not None:
        warnings.warn(
            "bootstrap has no effect: intervals no longer resample fixed predictions, "
            "which held too seldom. Leave it out.",
            DeprecationWarning,
            stacklevel=3,
        )


def independent_people(families: np.ndarray | None, known: np.ndarray) -> int:
    """n of the intervals below; family of each patient (patient,), known (patient,):
    who has data."""
    if families is None:
        return int(known.sum())
    return len(np.unique(families[known]))


def exact_interval(correct: float, n: int) -> Interval:
    """Clopper-Pearson interval of a proportion; `correct` may be a half count."""
    # Not scipy's binomtest: it takes whole counts only, and gives the same for them.
    return Interval(_lower_bound(correct, n), _upper_bound(correct, n))


def accuracy_interval(accuracy: float, n: int) -> Interval:
    """Of out-of-fold decisions between two visits: Clopper-Pearson, whose upper end is
    that of half of the patients where fewer are recognised."""
    correct = accuracy * n
    best = max(correct, CHANCE * n)
    return Interval(_lower_bound(correct, n), _upper_bound(best, n))


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


def mirrored_auc_interval(auc: float, n: int) -> Interval:
    """Of the AUC of n decisions against their mirror images."""
    # Both samples are the same patients, which doubles the variance.
    return _auc_interval(auc, n, share=2.0)


def single_scan_auc_interval(auc: float, scans: np.ndarray, n: int) -> Interval:
    """Of the AUC of second scans against first ones; scans: scores (patient, visit)."""
    return _auc_interval(auc, n, _share_of_variance(scans, n))


def _share_of_variance(scans: np.ndarray, n: int) -> float:
    """Variance of the AUC of n pairs by that of as many unrelated scans."""
    first = rankdata(scans[:, 0])
    second = rankdata(scans[:, 1])
    resemblance = float(pearson_r(first, second))
    # One standard error of the resemblance is kept in reserve.
    share = 1 - resemblance + 1 / np.sqrt(n)
    return float(np.clip(share, SMALLEST_SHARE, 1.0))


def _auc_interval(auc: float, n: int, share: float) -> Interval:
    """All true AUCs whose standard error holds the observed one (Newcombe 2006, method
    5, doi:10.1002/sim.2324)."""
    if n < 2 or not np.isfinite(auc):
        return UNKNOWN
    reach = Z * np.sqrt(share * _auc_variance(GRID, n))
    best = max(auc, CHANCE)
    upward = reach * (1 + AUC_PESSIMISM * _distance_from_perfect(best))
    low = GRID[np.abs(GRID - auc) <= reach].min(initial=auc)
    high = GRID[np.abs(GRID - best) <= upward].max(initial=best)
    # Near 1 the variance does not show that an AUC moves in steps of pairs.
    step = 2 / n**2
    return Interval(float(low), float(min(high + step, 1.0)))


def _auc_variance(auc: np.ndarray, n: int) -> np.ndarray:
    """Of n positives and n negatives with exponential scores (Hanley and McNeil 1982,
    doi:10.1148/radiology.143.1.7063747), and larger near chance."""
    # Written for AUCs above one half; below, the samples change places.
    above = np.maximum(auc, 1 - auc)
    two_positives = above / (2 - above)
    two_negatives = 2 * above**2 / (1 + above)
    pairs = two_positives + two_negatives - 2 * above**2
    variance = (above * (1 - above) + (n - 1) * pairs) / n**2
    return variance * (1 + EXTRA_VARIANCE * _distance_from_perfect(above))


def _distance_from_perfect(auc):  # type: ignore[no-untyped-def]
    """0 for a perfect AUC, 1 for one half."""
    return 2 * (1 - auc)


def accuracy_gain_interval(first: np.ndarray, second: np.ndarray, n: int) -> Interval:
    """Of the accuracy of one model minus that of another; decisions (patient,) of the
    same patients (Bonett and Price 2012, doi:10.3102/1076998611411915)."""
    if n < 2:
        return UNKNOWN
    gains = correctness(first) - correctness(second)
    people = len(gains)
    # One more patient for either model, so that no gain is certain.
    more = (n * np.maximum(gains, 0).sum() / people + 1) / (n + 2)
    fewer = (n * np.maximum(-gains, 0).sum() / people + 1) / (n + 2)
    variance = (more + fewer - (more - fewer) ** 2) / (n + 2)
    return _gain_interval(
        correctness(first).mean(), correctness(second).mean(), float(variance), n
    )


def auc_gain_interval(first: np.ndarray, second: np.ndarray, n: int) -> Interval:
    """Of the mirrored AUC of one model minus that of another; decisions (patient,) of
    the same patients.

    The variance is that of the patients' parts in both AUCs (DeLong et al. 1988,
    doi:10.2307/2531595), and of one more patient for either model, who decides
    everything.
    """
    if n < 2:
        return UNKNOWN
    parts_of_first = _parts_in_auc(first)
    parts_of_second = _parts_in_auc(second)
    # A patient is in both samples of a mirrored AUC.
    parts = 2 * (parts_of_first - parts_of_second)
    spread = float(np.square(parts - parts.mean()).mean())
    variance = (n * spread + 2) / ((n + 1) * (n + 2))
    return _gain_interval(parts_of_first.mean(), parts_of_second.mean(), variance, n)


def _parts_in_auc(decisions: np.ndarray) -> np.ndarray:
    """Share of patients (patient,) with whom a patient's decision is positive on
    average; their mean is the mirrored AUC."""
    totals = decisions[:, None] + decisions[None]
    return ((totals > 0) + 0.5 * (totals == 0)).mean(1)


def _gain_interval(first: float, second: float, variance: float, n: int) -> Interval:
    """first, second: what two models reach, 1/2 being chance."""
    smallest = min(first - second, first - max(second, CHANCE))
    largest = max(first - second, max(first, CHANCE) - second)
    # As the estimate is drawn in by one patient for either model.
    shrink = n / (n + 2)
    reach = GAIN_FACTOR * _t_quantile(n) * np.sqrt(variance)
    return Interval(
        float(max(shrink * smallest - reach, -1.0)),
        float(min(shrink * largest + reach, 1.0)),
    )


def _t_quantile(n: int) -> float:
    return float(t.ppf(0.975, n - 1))


def correlation_interval(r: float, n: int) -> Interval:
    """Of a cross-validated correlation, by Fisher's z.

    Simulated (one feature, ridge, true r 0 to .85, 12, 20 and 53 patients), it holds
    the truth in 94 to 100 % of cohorts; resampling fixed predictions, in 70 to 85 %.
    """
    if n <= 3 or not np.isfinite(r):
        return UNKNOWN
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    reach = Z / np.sqrt(n - 3)
    upward = reach * (1 + CORRELATION_PESSIMISM * (1 - max(r, 0.0)))
    low, high = np.tanh(z - reach), np.tanh(max(z, 0.0) + upward)
    return Interval(float(low), float(high))


def rmse_interval(squared_errors: np.ndarray, n: int) -> Interval:
    """Of the root of the mean squared error; squared_errors (patient,): means over each
    patient's scans."""
    # Half of the logarithm, since the root is taken.
    low, high = _error_ends(squared_errors, n, spread_of_normal=np.sqrt(2))
    return Interval(float(np.sqrt(low)), float(np.sqrt(high)))


def mae_interval(absolute_errors: np.ndarray, n: int) -> Interval:
    """Of the mean absolute error; absolute_errors (patient,): means over each patient's
    scans."""
    low, high = _error_ends(absolute_errors, n, spread_of_normal=np.sqrt(np.pi / 2 - 1))
    return Interval(low, high)


def _error_ends(
    errors: np.ndarray, n: int, spread_of_normal: float
) -> tuple[float, float]:
    """Ends of the interval of the mean of errors (patient,), on a logarithmic scale.

    Few patients seldom show the largest errors, so that the spread of errors is taken
    to be at least that of normal ones. With heavier tails (t with 4 degrees of freedom)
    the interval still holds the truth in 85 to 93 % of cohorts only.
    """
    mean = float(errors.mean())
    if n < 2 or mean <= 0:
        return NAN, NAN
    spread = max(float(errors.std()) / mean, spread_of_normal)
    factor = np.exp(GAIN_FACTOR * _t_quantile(n) * spread / np.sqrt(n))
    return float(mean / factor), float(mean * factor)
