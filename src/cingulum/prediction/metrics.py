"""How good a paired decision is, with the uncertainty of a finite number of patients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, rankdata


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def accuracy(decisions: np.ndarray) -> np.ndarray:
    """Share of patients (last axis) whose later visit is recognised: decision > 0; an undecided one counts half."""
    return ((decisions > 0) + 0.5 * (decisions == 0)).mean(-1)


def paired_auc(decisions: np.ndarray) -> float:
    """AUC of the mirrored decisions {d} against {−d}, the figure of Lee et al. 2019.

    It equals P(d_i + d_j > 0) over pairs of patients, a signed-rank quantity, and is **not** the AUC of single scans.
    """
    return auc(decisions, -decisions)


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive case scores above a negative one; ties count half."""
    ranks = rankdata(np.concatenate([positive, negative]))
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def bootstrap(decisions: np.ndarray, figure, rng: np.random.Generator, times: int = 2000) -> Interval:  # type: ignore[no-untyped-def]
    """95 % percentile interval over resampled patients. The models are not refitted: it is the uncertainty of the
    test patients, given the decisions."""
    drawn = rng.integers(len(decisions), size=(times, len(decisions)))
    low, high = np.quantile([figure(decisions[rows]) for rows in drawn], [0.025, 0.975])
    return Interval(float(low), float(high))


def exact_interval(correct: float, n: int) -> Interval:
    """95 % Clopper-Pearson interval of a proportion."""
    low = beta.ppf(0.025, correct, n - correct + 1) if correct > 0 else 0.0
    high = beta.ppf(0.975, correct + 1, n - correct) if correct < n else 1.0
    return Interval(float(low), float(high))
