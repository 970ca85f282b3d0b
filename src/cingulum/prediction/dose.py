"""Does a larger decision of the forced choice go with a larger change in pain?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from cingulum.prediction.permutation import p_value
from cingulum.prediction.statistics import Interval, pearson_r, percentile, resamples
from cingulum.random_streams import Stream, generator


@dataclass(frozen=True)
class DoseResponse:
    """r, Spearman's rho, p: patients exchange their changes
    (one-sided, of r); partial_r: given the changes of the confounds."""

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
    their changes (patient, k)."""
    known = np.isfinite(decisions) & np.isfinite(change)
    d, c = decisions[known], change[known]
    rng = generator(seed, Stream.DOSE_RESPONSE)
    r = float(pearson_r(d, c))
    null = pearson_r(d[None], rng.permuted(np.tile(c, (permutations, 1)), axis=1))
    rows = resamples(len(d), rng)
    partial = None
    if confounds is not None:
        design = np.column_stack([np.ones(len(d)), confounds[known]])
        left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (d, c)]
        partial = float(pearson_r(*left))
    rho = float(spearmanr(d, c).statistic) if np.ptp(d) > 0 and np.ptp(c) > 0 else 0.0
    return DoseResponse(
        r, percentile(pearson_r(d[rows], c[rows])), rho, p_value(r, null), partial
    )
