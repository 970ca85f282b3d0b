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
from cingulum.prediction.between import Ratings
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
        figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _axes(columns: int, width: float = 4.2, height: float = 3.8) -> tuple[Figure, Sequence[Any]]:
    figure, axes = plt.subplots(1, columns, figsize=(width * columns, height), squeeze=False, layout="constrained")
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, list(axes[0])


def pain(ratings: pd.DataFrame) -> bytes:
    """Pain at the two visits, a line a patient."""
    wide = ratings.pivot(index="participant", columns="state", values="pain").to_numpy()
    figure, (ax,) = _axes(1)
    ax.plot([0, 1], wide.T, color="#9aa3ae", lw=0.8)
    ax.plot([0, 1], wide.mean(0), color="#1c2430", lw=3, marker="o")
    ax.set(xticks=[0, 1], xticklabels=["first visit", "second visit"], ylabel="pain (0–100)", xlim=(-0.2, 1.2))
    return png(figure)


def performance(evaluation: Evaluation) -> bytes:
    """Accuracy with its interval against the permuted accuracies, and the ROC of the mirrored decisions."""
    figure, (bars, roc) = _axes(2, 5.2, 4.0)
    names = list(evaluation.scores)[::-1]
    for row, name in enumerate(names):
        score, colour = evaluation.scores[name], COLOURS.get(name, "#56606e")
        if len(score.null):
            low, high = np.quantile(score.null, [0.025, 0.975])
            bars.plot([low, high], [row, row], color="#e3e6ea", lw=14, solid_capstyle="butt", zorder=0)
        bars.plot([score.accuracy_ci.low, score.accuracy_ci.high], [row, row], color=colour, lw=2)
        bars.plot(score.accuracy, row, "o", color=colour, ms=8)
        reach, hit = _roc(score.decisions)
        style = "--" if name not in (*evaluation.fused, "fused") else "-"
        roc.plot(reach, hit, style, color=colour, lw=2.6 if name == "fused" else 1.4, label=LABELS.get(name, name))
    bars.axvline(0.5, color="#56606e", lw=0.8, ls=":")
    bars.set(yticks=range(len(names)), yticklabels=[LABELS.get(n, n) for n in names], xlim=(0.2, 1.02))
    bars.set_xlabel("accuracy (grey: 95 % of permutations)")
    roc.plot([0, 1], [0, 1], color="#9aa3ae", lw=0.8, ls=":")
    roc.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    handles, labels = roc.get_legend_handles_labels()
    roc.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="lower right")
    return png(figure)


def _roc(decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    thresholds = np.sort(np.concatenate([decisions, -decisions]))[::-1]
    hit = (decisions[None] >= thresholds[:, None]).mean(1)
    reach = (-decisions[None] >= thresholds[:, None]).mean(1)
    return np.concatenate([[0], reach]), np.concatenate([[0], hit])


def predicted_observed(found: Ratings) -> bytes:
    """Observed against predicted ratings, a line joining the scans of a patient, and the permuted correlations."""
    figure, (scatter, null) = _axes(2, 4.6, 4.0)
    s, colours = found.scans, ("#1f5f8b", "#b5482f", "#3b7d4f", "#7a5ba6")
    for i in np.unique(s.patient):
        rows = s.patient == i
        scatter.plot(found.predicted[rows], s.rating[rows], color="#d5dae1", lw=0.8, zorder=0)
    for k, state in enumerate(np.unique(s.state)):
        rows = s.state == state
        label = "scans" if len(np.unique(s.state)) == 1 else f"visit {k + 1}"
        scatter.plot(found.predicted[rows], s.rating[rows], "o", ms=4, color=colours[k % 4], label=label)
    low, high = s.rating.min(), s.rating.max()
    scatter.plot([low, high], [low, high], color="#9aa3ae", lw=0.8, ls=":")
    scatter.set(xlabel="predicted, out of fold", ylabel="rated")
    scatter.legend(frameon=False, fontsize=8)
    _histogram(null, found.null, found.figures["r_within_state"], "r within states")
    return png(figure)


def permuted(evaluation: Evaluation, name: str) -> bytes:
    """Accuracy of a model against its permutations."""
    figure, (ax,) = _axes(1, 4.6, 3.4)
    _histogram(ax, evaluation.scores[name].null, evaluation.scores[name].accuracy, "accuracy")
    return png(figure)


def _histogram(ax: Any, null: np.ndarray, observed: float, label: str) -> None:
    if len(null):
        ax.hist(null, bins=40, color="#c5ccd5")
    ax.axvline(observed, color="#b5482f", lw=2)
    ax.set(xlabel=f"{label} (grey: permuted, red: found)", yticks=[])


def curves(calibration: np.ndarray, learning: list[dict[str, Any]]) -> bytes:
    """Calibration of decisions (rows: probability, share correct, number), and accuracy with fewer patients."""
    figure, (meant, grown) = _axes(2, 4.4, 3.6)
    meant.plot([0, 1], [0, 1], color="#9aa3ae", lw=0.8, ls=":")
    meant.plot(calibration[:, 0], calibration[:, 1], "o-", color="#1f5f8b")
    meant.set(xlabel="probability given", ylabel="share that came true", xlim=(0, 1), ylim=(0, 1))
    if learning:
        sizes = [row["patients"] for row in learning]
        reached = np.array([row["accuracy"] for row in learning])
        spread = np.nan_to_num(np.array([row["sd"] if row["sd"] is not None else 0 for row in learning], float))
        grown.fill_between(sizes, reached - spread, reached + spread, color="#c5d6e3")
        grown.plot(sizes, reached, "o-", color="#1f5f8b")
        grown.axhline(0.5, color="#9aa3ae", lw=0.8, ls=":")
        grown.set(xlabel="patients", ylabel="accuracy (band: SD of subsets)")
    else:
        grown.set_axis_off()
    return png(figure)


def brain_map(values: np.ndarray, affine: np.ndarray, threshold: float | None = None) -> bytes:
    """A map (x, y, z) on the standard brain in seven axial slices; no threshold: its strongest tenth of voxels."""
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


def connectivity_pair(recorded: np.ndarray, modelled: np.ndarray, source: str = "recorded") -> bytes:
    """Recorded and modelled connectivity side by side, and edge against edge."""
    figure, (left, middle, right) = _axes(3, 4.0, 3.7)
    apart = ~np.eye(len(recorded), dtype=bool)
    limit = max(float(np.quantile(np.abs(matrix[apart]), 0.99)) for matrix in (recorded, modelled))
    for ax, matrix, title in ((left, recorded, source), (middle, modelled, "fitted brain")):
        shown = ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.set(title=title, xlabel="region", ylabel="region")
    figure.colorbar(shown, ax=middle, shrink=0.8, label="correlation")
    edge = np.tril_indices(len(recorded), -1)
    right.plot(recorded[edge], modelled[edge], ".", ms=2, alpha=0.35, color="#1f5f8b", rasterized=True)
    low, high = min(recorded[edge].min(), modelled[edge].min()), max(recorded[edge].max(), modelled[edge].max())
    right.plot([low, high], [low, high], color="#9aa3ae", lw=0.8, ls=":")
    right.set(xlabel=source, ylabel="fitted brain", title="every pair of regions")
    return png(figure)
