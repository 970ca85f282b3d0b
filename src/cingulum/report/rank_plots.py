"""Rank plots: where true values lie among the draws of their posteriors, against the
band expected of a calibrated posterior."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binom

from cingulum.inference.simulation_calibration import Calibration
from cingulum.report.plots import BLUE, GREY, NULL_BAND, hide_frame

PANELS_PER_ROW = 4

MOST_BINS = 20

FITS_PER_BAR = 5
"""Fits expected in a bar at least: with fewer, the band covers nearly everything."""


def rank_plot(
    calibration: Calibration, bins: int | None = None, level: float = 0.99
) -> Figure:
    """A histogram of ranks for every coordinate, with the band that holds the bars of a
    uniform histogram.

    A hill says that intervals are too wide, a valley that they are too narrow, a slope
    that estimates are biased.

    bins: a divisor of draws + 1, so that bars hold equally many ranks; default: the
        largest up to 20 that leaves at least five fits per bar
    level: share of the bars of a calibrated posterior inside the band, bar by bar

    `cingulum.report.plots.png` makes a picture of the figure.
    """
    ranks = calibration.ranks
    possible_ranks = calibration.draws + 1
    bins = bins or _number_of_bins(possible_ranks, len(ranks))
    # Ranks are whole numbers: edges lie between them.
    edges = np.linspace(-0.5, possible_ranks - 0.5, bins + 1)
    figure, panels = _panels(ranks.shape[1])
    for ax, (name, values) in zip(panels, ranks.items(), strict=True):
        _draw_uniform(ax, len(ranks), bins, level)
        ax.hist(values, edges.tolist(), color=BLUE, rwidth=0.92, zorder=2)
        ax.set(title=name, xlim=(edges[0], edges[-1]))
        ax.set_xlabel(f"rank among {calibration.draws} draws")
    for ax in panels[::PANELS_PER_ROW]:
        ax.set_ylabel(f"fits (grey: {level:.0%} of a uniform)")
    return figure


def _panels(number: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, row by row."""
    columns = min(PANELS_PER_ROW, number)
    rows = math.ceil(number / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.4 * columns, 2.6 * rows),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for ax in axes.flat:
        hide_frame(ax)
    for ax in axes.flat[number:]:
        ax.set_visible(False)
    return figure, list(axes.flat[:number])


def _draw_uniform(ax: Axes, fits: int, bins: int, level: float) -> None:
    """The expected height of a bar, and the central interval that holds it with
    probability `level`: counts are binomial."""
    tails = [0.5 - level / 2, 0.5 + level / 2]
    low, high = binom.ppf(tails, fits, 1 / bins)
    ax.axhspan(low, high, color=NULL_BAND, zorder=0)
    ax.axhline(fits / bins, color=GREY, lw=0.8, zorder=1)


def _number_of_bins(possible_ranks: int, fits: int) -> int:
    """The largest divisor of the number of ranks within the limits; 1 always is."""
    # Unequal bars would bend the histogram of a calibrated posterior.
    limit = max(2, min(MOST_BINS, fits // FITS_PER_BAR))
    for bins in range(limit, 1, -1):
        if possible_ranks % bins == 0:
            return bins
    return 1
