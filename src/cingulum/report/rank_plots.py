"""Rank plots: where truths lie among their posteriors' draws, against the band of a
posterior that is honest."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binom

from cingulum.inference.simulation_calibration import Calibration


def rank_plot(
    calibration: Calibration, bins: int | None = None, level: float = 0.99
) -> Figure:
    """A histogram of ranks for every coordinate, with the band that holds a uniform
    histogram's bars.

    A hill says that intervals are too wide, a valley that they are too narrow, a slope
    that estimates are off to one
    side. bins: a divisor of draws + 1, so that bars hold equally many ranks; default:
        the largest up to 20 that leaves
    at least five fits a bar. level: share of the bars of a calibrated posterior inside
    the band, bar by bar. Show it, or make a picture of it with
    `cingulum.report.plots.png`.
    """
    ranks, most = calibration.ranks, calibration.draws + 1
    bins = bins or _bins(most, len(ranks))
    columns = min(4, ranks.shape[1])
    rows = math.ceil(ranks.shape[1] / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.4 * columns, 2.6 * rows),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    low, high = binom.ppf([0.5 - level / 2, 0.5 + level / 2], len(ranks), 1 / bins)
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    for ax, (name, values) in zip(axes.flat, ranks.items(), strict=False):
        ax.axhspan(low, high, color="#e3e6ea", zorder=0)
        ax.axhline(len(ranks) / bins, color="#9aa3ae", lw=0.8, zorder=1)
        ax.hist(
            values,
            np.linspace(-0.5, most - 0.5, bins + 1),
            color="#1f5f8b",
            rwidth=0.92,
            zorder=2,
        )
        ax.set(
            title=name,
            xlabel=f"rank among {calibration.draws} draws",
            xlim=(-0.5, most - 0.5),
        )
    for ax in axes[:, 0]:
        ax.set_ylabel(f"fits (grey: {level:.0%} of a uniform)")
    for ax in axes.flat[ranks.shape[1] :]:
        ax.set_visible(False)
    return figure


def _bins(most: int, fits: int) -> int:
    limit = max(2, min(20, fits // 5))
    return max((b for b in range(1, limit + 1) if most % b == 0), default=1)
