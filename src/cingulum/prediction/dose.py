"""Do larger changes in pain give larger decisions of the forced choice?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from cingulum.prediction.intervals import correlation_interval
from cingulum.prediction.permutation import p_value
from cingulum.prediction.statistics import Interval, pearson_r
from cingulum.random_streams import Stream, generator


@dataclass(frozen=True)
class DoseResponse:
    """Pearson's r with its interval and Spearman's rho of decisions and
    changes.

    p: patients exchange their changes; one-sided, of r
    partial_r: given the changes of the confounds; None without confounds
    """

    r: float
    r_ci: Interval
    rho: float
    p: float
    partial_r: float | None


def dose_response(
    decisions: np.ndarray,
    change: np.ndarray,
    confounds: np.ndarray | None = None,
    *,
    permutations: int = 5000,
    seed: int = 0,
) -> DoseResponse:
    """decisions: out of fold (patient,); change: of the rating (patient,); confounds:
    their changes (patient, confound). Patients with NaN are left out."""
    known = np.isfinite(decisions) & np.isfinite(change)
    decisions = decisions[known]
    change = change[known]
    rng = generator(seed, Stream.DOSE_RESPONSE)
    r = float(pearson_r(decisions, change))
    null = _null_correlations(decisions, change, permutations, rng)
    partial_r = None
    if confounds is not None:
        partial_r = _partial_correlation(decisions, change, confounds[known])
    return DoseResponse(
        r=r,
        r_ci=correlation_interval(r, len(decisions)),
        rho=_rank_correlation(decisions, change),
        p=p_value(r, null),
        partial_r=partial_r,
    )


def _null_correlations(
    decisions: np.ndarray, change: np.ndarray, times: int, rng: np.random.Generator
) -> np.ndarray:
    exchanged = rng.permuted(np.tile(change, (times, 1)), axis=1)
    return pearson_r(decisions[None], exchanged)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho; 0 where one of the two does not vary, as for `correlation`."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


def _partial_correlation(a: np.ndarray, b: np.ndarray, confounds: np.ndarray) -> float:
    """Correlation of what a regression on confounds (patient, confound) leaves of
    both."""
    design = np.column_stack([np.ones(len(a)), confounds])
    return float(pearson_r(_residual(a, design), _residual(b, design)))


def _residual(values: np.ndarray, design: np.ndarray) -> np.ndarray:
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
