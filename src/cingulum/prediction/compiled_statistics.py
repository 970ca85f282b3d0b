"""Statistics of many permutations at once, as machine code."""

from __future__ import annotations

import numpy as np

from cingulum.prediction.compilation import compiled


@compiled
def mirrored_auc(decisions):  # type: ignore[no-untyped-def]
    """AUC of the mirrored decisions {d} against {−d} of rows (problem, n), the figure
    of Lee et al. 2019.

    It equals P(d_i + d_j > 0) over pairs of patients, ties half, a signed-rank
    quantity, and is **not** the AUC of single scans.
    """
    problems, n = decisions.shape
    areas = np.empty(problems)
    for p in range(problems):
        d = decisions[p]
        wins = 0.0
        for i in range(n):
            for j in range(n):
                total = d[i] + d[j]
                wins += (total > 0.0) + 0.5 * (total == 0.0)
        areas[p] = wins / (n * n)
    return areas


@compiled
def two_sample_auc(positive, negative):  # type: ignore[no-untyped-def]
    """P(positive > negative), ties half, of rows (problem, n)."""
    problems, n = positive.shape
    m = negative.shape[1]
    areas = np.empty(problems)
    for p in range(problems):
        wins = 0.0
        for i in range(n):
            for j in range(m):
                above = positive[p, i]
                below = negative[p, j]
                wins += (above > below) + 0.5 * (above == below)
        areas[p] = wins / (n * m)
    return areas


@compiled
def count_extremes(null, observed, hits, largest):  # type: ignore[no-untyped-def]
    """Add to `hits` (feature,) how many permuted values `null` (permutation, feature)
    are at least as large in size as the observed one, and raise `largest`
    (permutation,) to the largest of every permutation; both in place."""
    # Values that differ by rounding of float32 alone are ties, and count.
    tie = np.float32(1 - 1e-6)
    for b in range(len(null)):
        row = null[b]
        top = largest[b]
        for f in range(len(row)):
            size = abs(row[f])
            hits[f] += size >= observed[f] * tie
            top = max(top, size)
        largest[b] = top
