"""Pictures of results, as PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cingulum.prediction import Evaluation
from cingulum.prediction.regression import Ratings
from cingulum.report.summarise import LABELS

COLOURS = {
    "s1conn": "#1f5f8b",
    "rcbf": "#b5482f",
    "hfhrv": "#7a5ba6",
    "mechanism": "#3b7d4f",
    "fused": "#1c2430",
    "motion": "#9aa3ae",
    "rate": "#9aa3ae",
    "breath": "#9aa3ae",
}


def png(figure: Figure) -> bytes:
    """The figure as PNG, without the date or host that a picture may carry."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(
            buffer,
            format="png",
            dpi=110,
            bbox_inches="tight",
            metadata={"Software": None},
        )
    plt.close(figure)
    return buffer.getvalue()


def _axes(
    columns: int, width: float = 4.2, height: float = 3.8
) -> tuple[Figure, Sequence[Any]]:
    figure, axes = plt.subplots(
        1,
        columns,
        figsize=(width * columns, height),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def pain(ratings: pd.DataFrame) -> bytes:
    """Pain at the two visits, a line a patient."""
    wide = ratings.pivot(index="participant", columns="state", values="pain").to_numpy()
    figure, (ax,) = _axes(1)
    ax.plot([0, 1], wide.T, color="#9aa3ae", lw=0.8)
    ax.plot([0, 1], wide.mean(0), color="#1c2430", lw=3, marker="o")
    ax.set(
        xticks=[0, 1],
        xticklabels=["first visit", "second visit"],
        ylabel="pain (0–100)",
        xlim=(-0.2, 1.2),
    )
    return png(figure)


def performance(evaluation: Evaluation) -> bytes:
    """Accuracy with its interval against the permuted accuracies, and the ROC of the
    mirrored decisions."""
    figure, (bars, roc) = _axes(2, 5.2, 4.0)
    names = list(evaluation.scores)[::-1]
    for row, name in enumerate(names):
        score, colour = evaluation.scores[name], COLOURS.get(name, "#56606e")
        if len(score.null):
            low, high = np.quantile(score.null, [0.025, 0.975])
            bars.plot(
                [low, high],
                [row, row],
                color="#e3e6ea",
                lw=14,
                solid_capstyle="butt",
                zorder=0,
            )
        bars.plot(
            [score.accuracy_ci.low, score.accuracy_ci.high],
            [row, row],
            color=colour,
            lw=2,
        )
        bars.plot(score.accuracy, row, "o", color=colour, ms=8)
        reach, hit = roc_points(score.decisions)
        style = "--" if name not in (*evaluation.fused, "fused") else "-"
        roc.plot(
            reach,
            hit,
            style,
            color=colour,
            lw=2.6 if name == "fused" else 1.4,
            label=LABELS.get(name, name),
        )
    bars.axvline(0.5, color="#56606e", lw=0.8, ls=":")
    bars.set(
        yticks=range(len(names)),
        yticklabels=[LABELS.get(n, n) for n in names],
        xlim=(0.2, 1.02),
    )
    bars.set_xlabel("accuracy (grey: 95 % of permutations)")
    roc.plot([0, 1], [0, 1], color="#9aa3ae", lw=0.8, ls=":")
    roc.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    handles, labels = roc.get_legend_handles_labels()
    roc.legend(
        handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="lower right"
    )
    return png(figure)


def roc_points(decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 − specificity and sensitivity of mirrored decisions, from the strictest
    threshold to the laxest."""
    decisions = decisions[np.isfinite(decisions)]
    thresholds = np.sort(np.concatenate([decisions, -decisions]))[::-1]
    hit = (decisions[None] >= thresholds[:, None]).mean(1)
    reach = (-decisions[None] >= thresholds[:, None]).mean(1)
    return np.concatenate([[0], reach]), np.concatenate([[0], hit])


def predicted_observed(found: Ratings) -> bytes:
    """Observed against predicted ratings, a line joining the scans of a patient, and
    the permuted correlations."""
    figure, (scatter, null) = _axes(2, 4.6, 4.0)
    s, colours = found.scans, ("#1f5f8b", "#b5482f", "#3b7d4f", "#7a5ba6")
    for i in np.unique(s.patient):
        rows = s.patient == i
        scatter.plot(
            found.predicted[rows], s.rating[rows], color="#d5dae1", lw=0.8, zorder=0
        )
    for k, state in enumerate(np.unique(s.state)):
        rows = s.state == state
        label = "scans" if len(np.unique(s.state)) == 1 else f"visit {k + 1}"
        scatter.plot(
            found.predicted[rows],
            s.rating[rows],
            "o",
            ms=4,
            color=colours[k % 4],
            label=label,
        )
    low, high = s.rating.min(), s.rating.max()
    scatter.plot([low, high], [low, high], color="#9aa3ae", lw=0.8, ls=":")
    scatter.set(xlabel="predicted, out of fold", ylabel="rated")
    scatter.legend(frameon=False, fontsize=8)
    _histogram(null, found.null, found.performance["r_within_state"], "r within states")
    return png(figure)


def permuted(evaluation: Evaluation) -> bytes:
    """Accuracy of every model against its permutations."""
    names = list(evaluation.scores)
    figure, axes = plt.subplots(
        -(-len(names) // 4),
        4,
        figsize=(11, 2.4 * -(-len(names) // 4)),
        layout="constrained",
        squeeze=False,
    )
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, names, strict=False):
        _histogram(
            ax,
            evaluation.scores[name].null,
            evaluation.scores[name].accuracy,
            "accuracy",
        )
        ax.set_title(LABELS.get(name, name), fontsize=9)
        ax.set_xlabel("")
    return png(figure)


def _histogram(ax: Any, null: np.ndarray, observed: float, label: str) -> None:
    if len(null):
        ax.hist(null, bins=40, color="#c5ccd5")
    ax.axvline(observed, color="#b5482f", lw=2)
    ax.set(xlabel=f"{label} (grey: permuted, red: found)", yticks=[])


def curves(calibration: np.ndarray, learning: list[dict[str, Any]]) -> bytes:
    """Calibration of decisions (rows: probability, share correct, number), and accuracy
    with fewer patients."""
    figure, (meant, grown) = _axes(2, 4.4, 3.6)
    meant.plot([0, 1], [0, 1], color="#9aa3ae", lw=0.8, ls=":")
    meant.plot(calibration[:, 0], calibration[:, 1], "o-", color="#1f5f8b")
    meant.set(
        xlabel="probability given",
        ylabel="share that came true",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    if learning:
        sizes = [row["patients"] for row in learning]
        reached = np.array([row["accuracy"] for row in learning])
        spread = np.nan_to_num(
            np.array(
                [row["sd"] if row["sd"] is not None else 0 for row in learning], float
            )
        )
        grown.fill_between(sizes, reached - spread, reached + spread, color="#c5d6e3")
        grown.plot(sizes, reached, "o-", color="#1f5f8b")
        grown.axhline(0.5, color="#9aa3ae", lw=0.8, ls=":")
        grown.set(xlabel="patients", ylabel="accuracy (band: SD of subsets)")
    else:
        grown.set_axis_off()
    return png(figure)


def brain_map(
    values: np.ndarray, affine: np.ndarray, threshold: float | None = None
) -> bytes:
    """A map (x, y, z) on the standard brain in seven axial slices; no threshold: its
    strongest tenth of voxels."""
    import nibabel as nib
    from nilearn.plotting import plot_stat_map

    strong = np.abs(values[values != 0])
    if threshold is None:
        threshold = float(np.quantile(strong, 0.9)) if strong.size else 0.0
    figure = plt.figure(figsize=(11, 2.3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plot_stat_map(
            nib.Nifti1Image(values.astype(np.float32), affine),
            display_mode="z",
            cut_coords=(-24, -8, 4, 16, 30, 48, 66),
            threshold=threshold,
            figure=figure,
            cmap="RdBu_r",
            draw_cross=False,
        )
    return png(figure)


def region_map(values: np.ndarray, centres: np.ndarray) -> bytes:
    """A value a region, at its MNI centre, seen through a glass brain."""
    from nilearn.plotting import plot_markers

    figure, limit = plt.figure(figsize=(10, 3.2)), float(np.abs(values).max()) or 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plot_markers(
            values,
            centres,
            node_size=20 + 100 * np.abs(values) / limit,
            node_cmap="RdBu_r",
            node_vmin=-limit,
            node_vmax=limit,
            display_mode="lyrz",
            figure=figure,
        )
    return png(figure)


def connectivity_pair(
    recorded: np.ndarray, modelled: np.ndarray, source: str = "recorded"
) -> bytes:
    """Recorded and modelled connectivity side by side, and edge against edge."""
    figure, (left, middle, right) = _axes(3, 4.0, 3.7)
    apart = ~np.eye(len(recorded), dtype=bool)
    limit = max(
        float(np.quantile(np.abs(matrix[apart]), 0.99))
        for matrix in (recorded, modelled)
    )
    for ax, matrix, title in (
        (left, recorded, source),
        (middle, modelled, "fitted brain"),
    ):
        shown = ax.imshow(
            matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
        )
        ax.set(title=title, xlabel="region", ylabel="region")
    figure.colorbar(shown, ax=middle, shrink=0.8, label="correlation")
    edge = np.tril_indices(len(recorded), -1)
    right.plot(
        recorded[edge],
        modelled[edge],
        ".",
        ms=2,
        alpha=0.35,
        color="#1f5f8b",
        rasterized=True,
    )
    low, high = (
        min(recorded[edge].min(), modelled[edge].min()),
        max(recorded[edge].max(), modelled[edge].max()),
    )
    right.plot([low, high], [low, high], color="#9aa3ae", lw=0.8, ls=":")
    right.set(xlabel=source, ylabel="fitted brain", title="every pair of regions")
    return png(figure)


def slices(
    maps: Sequence[tuple[str, np.ndarray]], affine: np.ndarray, centre: float = 0.0
) -> bytes:
    """Maps (x, y, z) of one grid as rows of seven axial slices, on one scale around
    `centre`; quick and plain."""
    heights = np.linspace(-24, 66, 7)
    planes = (
        np.rint((heights - affine[2, 3]) / affine[2, 2])
        .astype(int)
        .clip(0, maps[0][1].shape[2] - 1)
    )
    limit = (
        float(
            np.quantile(
                np.concatenate([np.abs(v[v != 0] - centre) for _, v in maps]), 0.98
            )
        )
        or 1.0
    )
    rows = [
        np.hstack([np.where(v[..., k] == 0, np.nan, v[..., k]).T[::-1] for k in planes])
        for _, v in maps
    ]
    across = [(i + 0.5) * maps[0][1].shape[0] - 0.5 for i in range(7)]
    ticks = (across, [f"z {z:.0f} mm" for z in heights])
    return _mosaic(rows, [label for label, _ in maps], ticks, centre, limit, "")


def matrices(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], heads: Sequence[str], label: str
) -> bytes:
    """Matrices of one size in rows, with a label each, and columns, with a head each,
    on one scale around 0."""
    n = len(rows[0][1][0])
    apart = ~np.eye(n, dtype=bool)
    limit = max(
        float(np.quantile(np.abs(m[apart]), 0.99)) for _, row in rows for m in row
    )
    gap = np.full((n, max(1, n // 20)), np.nan)
    joined = [
        np.hstack([part for m in row for part in (m, gap)][:-1]) for _, row in rows
    ]
    across = [(n - 1) / 2 + i * (n + gap.shape[1]) for i in range(len(heads))]
    return _mosaic(
        joined, [name for name, _ in rows], (across, list(heads)), 0.0, limit, label
    )


def _mosaic(
    rows: Sequence[np.ndarray],
    names: Sequence[str],
    ticks: tuple[list[float], list[str]],
    centre: float,
    limit: float,
    label: str,
) -> bytes:
    """Pictures below each other as one image: a fraction of the time that an axis for
    each would take."""
    whole, tall = np.vstack(rows), rows[0].shape[0]
    figure, ax = plt.subplots(figsize=(10.5, 10.5 * whole.shape[0] / whole.shape[1]))
    drawn = ax.imshow(
        whole,
        cmap="RdBu_r",
        vmin=centre - limit,
        vmax=centre + limit,
        interpolation="nearest",
    )
    ax.set_xticks(ticks[0], ticks[1], fontsize=8)
    ax.set_yticks(
        [(i + 0.5) * tall - 0.5 for i in range(len(rows))],
        names,
        fontsize=8,
        rotation=90,
        va="center",
    )
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    figure.colorbar(drawn, ax=ax, fraction=0.02, pad=0.01, label=label)
    return png(figure)


def estimates(table: pd.DataFrame, spread: pd.DataFrame | None, label: str) -> bytes:
    """Fitted parameters (a row a visit, a column a parameter): a dot a visit, with its
    standard deviation where the fit gives one; prior mean 0 and SD 1."""
    names = list(table.columns)
    figure, axes = plt.subplots(
        1,
        len(names),
        figsize=(3.1 * len(names), 2.8),
        squeeze=False,
        layout="constrained",
    )
    for ax, name in zip(axes[0], names, strict=True):
        values = table[name].to_numpy(float)
        order = np.argsort(values)
        ax.axhspan(-1, 1, color="#eef1f4")
        if spread is not None:
            ax.errorbar(
                np.arange(len(values)),
                values[order],
                spread[name].to_numpy(float)[order],
                fmt="none",
                ecolor="#9aa3ae",
                lw=0.8,
            )
        ax.plot(np.arange(len(values)), values[order], ".", color="#1f5f8b", ms=4)
        ax.set(title=name, xticks=[], xlabel="visits, in order", ylabel=label)
        ax.spines[["top", "right"]].set_visible(False)
    return png(figure)


def controls(table: pd.DataFrame, labels: dict[str, str]) -> bytes:
    """Correlations (a row a visit, a column a model): a dot a visit, and the mean."""
    shown = [name for name in labels if table[name].notna().any()]
    figure, (ax,) = _axes(1, 7.5, 3.4)
    spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(table))
    for row, name in enumerate(shown[::-1]):
        values = table[name].to_numpy(float)
        colour = "#1f5f8b" if name == shown[0] else "#56606e"
        ax.plot(values, row + spread, ".", color=colour, ms=4, alpha=0.6)
        ax.plot([np.nanmean(values)] * 2, [row - 0.3, row + 0.3], color=colour, lw=2.5)
    ax.set(
        yticks=range(len(shown)),
        yticklabels=[labels[n] for n in shown[::-1]],
        xlabel="correlation",
    )
    return png(figure)
