"""Bifurcations of a region: equilibria along a parameter, and the number of stable
states over two."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cingulum.report.plots import BLUE, GREY, RED, hide_frame
from cingulum.simulation.linear.branches import Curve


def bifurcation_diagram(curve: Curve, state: str | None = None) -> Figure:
    """Equilibria along the parameter: stable ones as solid lines, unstable ones dashed,
    folds and Hopf points marked.

    state: which one to show; default is the first. `cingulum.report.plots.png` makes a
        picture of the figure.
    """
    # A curve's columns are branch, parameter, states, and what is known of stability.
    y = state or curve.table.columns[2]
    figure, ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
    hide_frame(ax)
    for _, branch in curve.table.groupby("branch", sort=False):
        _draw_branch(ax, branch, curve.parameter, y)
    _mark_bifurcations(ax, curve, y)
    ax.set(xlabel=curve.parameter, ylabel=y)
    return figure


def _draw_branch(ax: Axes, branch: pd.DataFrame, x: str, y: str) -> None:
    stable = branch["stable"].astype(bool)
    # Points of the other kind become gaps, so that a branch is interrupted there.
    ax.plot(branch[x], branch[y].where(stable), "-", color=BLUE, lw=1.8)
    ax.plot(branch[x], branch[y].where(~stable), "--", color=GREY, lw=1.8)


def _mark_bifurcations(ax: Axes, curve: Curve, y: str) -> None:
    """Folds as circles, Hopf points as squares, with a legend of those there are."""
    x = curve.parameter
    if len(curve.folds):
        ax.plot(curve.folds[x], curve.folds[y], "o", color=RED, label="fold", ms=6)
    if len(curve.hopfs):
        ax.plot(curve.hopfs[x], curve.hopfs[y], "s", color=RED, label="Hopf", ms=6)
    if len(curve.folds) or len(curve.hopfs):
        ax.legend(frameon=False)


def stability_plane(table: pd.DataFrame) -> Figure:
    """The map of `stability_map`: how many stable states a region has over two
    parameters (Griffiths 2022, fig. 2B)."""
    first, second = table.columns[:2]
    plane = table.pivot(index=second, columns=first, values="stable")
    most = int(plane.to_numpy().max())
    figure, ax = plt.subplots(figsize=(4.8, 3.8), layout="constrained")
    # One colour for each number of states, centred on the whole numbers.
    mesh = ax.pcolormesh(
        plane.columns,
        plane.index,
        plane,
        cmap=plt.get_cmap("cividis", most + 1),
        vmin=-0.5,
        vmax=most + 0.5,
        shading="nearest",
    )
    bar = figure.colorbar(mesh, ax=ax, ticks=np.arange(most + 1))
    bar.set_label("stable states")
    ax.set(xlabel=first, ylabel=second)
    return figure
