"""Where a region changes its mind: equilibria along a parameter, and the map of
stability over two."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cingulum.simulation.linear.branches import Curve


def bifurcation_diagram(curve: Curve, state: str | None = None) -> Figure:
    """Equilibria along the parameter: stable ones drawn through, unstable ones dashed,
    folds and Hopf points marked.

    state: which to show; default is the first. Make a picture of it with
        `cingulum.report.plots.png`.
    """
    x, y = curve.parameter, state or curve.table.columns[2]
    figure, ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
    ax.spines[["top", "right"]].set_visible(False)
    for _, branch in curve.table.groupby("branch", sort=False):
        for stable, style in ((True, "-"), (False, "--")):
            shown = branch[y].where(branch["stable"] == stable)
            ax.plot(
                branch[x],
                shown,
                style,
                color="#1f5f8b" if stable else "#9aa3ae",
                lw=1.8,
            )
    for name, points, mark in (("fold", curve.folds, "o"), ("Hopf", curve.hopfs, "s")):
        if len(points):
            ax.plot(points[x], points[y], mark, color="#b5482f", label=name, ms=6)
    if len(curve.folds) or len(curve.hopfs):
        ax.legend(frameon=False)
    ax.set(xlabel=x, ylabel=y)
    return figure


def stability_plane(table: pd.DataFrame) -> Figure:
    """The map of `stability_map`: how many stable states a region has over two
    parameters (Griffiths 2022, fig. 2B)."""
    first, second = table.columns[:2]
    plane = table.pivot(index=second, columns=first, values="stable")
    most = int(plane.to_numpy().max())
    figure, ax = plt.subplots(figsize=(4.8, 3.8), layout="constrained")
    colours = plt.get_cmap("cividis", most + 1)
    shown = ax.pcolormesh(
        plane.columns,
        plane.index,
        plane,
        cmap=colours,
        vmin=-0.5,
        vmax=most + 0.5,
        shading="nearest",
    )
    bar = figure.colorbar(shown, ax=ax, ticks=np.arange(most + 1))
    bar.set_label("stable states")
    ax.set(xlabel=first, ylabel=second)
    return figure
