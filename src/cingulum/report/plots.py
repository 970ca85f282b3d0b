"""Figures of results, as PNG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib

# Before pyplot is imported: figures are only written to files, also without a screen.
matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cingulum.features.registry import model_colour, model_label
from cingulum.io.outcome import RatedOutcome
from cingulum.prediction import Evaluation
from cingulum.prediction.regression import Ratings
from cingulum.prediction.scores import Score

BLUE = "#1f5f8b"
RED = "#b5482f"
INK = "#1c2430"
DARK_GREY = "#56606e"
GREY = "#9aa3ae"
LIGHT_GREY = "#d5dae1"
NULL_BAND = "#e3e6ea"
STATE_COLOURS = (BLUE, RED, "#3b7d4f", "#7a5ba6")

PANELS_PER_ROW = 4
"""Histograms beside each other in a figure of permutations."""

SLICE_HEIGHTS = np.linspace(-24, 66, 7)
"""Axial slices of the plain maps, mm above the anterior commissure."""


def png(figure: Figure) -> bytes:
    """The figure as PNG, without the date or host that a file may carry."""
    buffer = io.BytesIO()
    # Warnings of layouts and fonts are not the user's to mend.
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
) -> tuple[Figure, Sequence[Axes]]:
    """A figure with axes side by side; width and height of each, inches."""
    figure, axes = plt.subplots(
        1,
        columns,
        figsize=(width * columns, height),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes[0]:
        hide_frame(ax)
    return figure, list(axes[0])


def hide_frame(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)


def draw_pain(ratings: pd.DataFrame, outcome: RatedOutcome = RatedOutcome()) -> bytes:
    """Pain, or another outcome, at the two visits, one line per patient."""
    pain = ratings.pivot(index="participant", columns="state", values="pain")
    wide = pain.to_numpy()
    figure, (ax,) = _axes(1)
    ax.plot([0, 1], wide.T, color=GREY, lw=0.8)
    ax.plot([0, 1], wide.mean(0), color=INK, lw=3, marker="o")
    ax.set(
        xticks=[0, 1],
        xticklabels=["first visit", "second visit"],
        ylabel=f"{outcome.column} ({outcome.low:g}–{outcome.high:g})",
        xlim=(-0.2, 1.2),
    )
    return png(figure)


def draw_performance(evaluation: Evaluation) -> bytes:
    """Accuracy with its interval against the permuted accuracies, and the ROC of the
    mirrored decisions."""
    figure, (accuracy_ax, roc_ax) = _axes(2, 5.2, 4.0)
    # The first model is drawn last, so that it is at the top of the axis.
    names = list(evaluation.scores)[::-1]
    fused = (*evaluation.fused, "fused")
    for row, name in enumerate(names):
        score = evaluation.scores[name]
        _accuracy_bar(accuracy_ax, row, score, model_colour(name))
        _roc_curve(roc_ax, name, score, "-" if name in fused else "--")
    _label_rows(accuracy_ax, list(map(model_label, names)))
    _finish_accuracy(accuracy_ax)
    _finish_roc(roc_ax)
    return png(figure)


def _label_rows(ax: Axes, labels: Sequence[str]) -> None:
    """Labels of the rows at heights 0, 1, …"""
    ax.set(yticks=range(len(labels)), yticklabels=labels)


def _accuracy_bar(ax: Axes, row: int, score: Score, colour: str) -> None:
    """A model's accuracy and interval, over the middle 95 % of its permutations."""
    level = [row, row]
    if len(score.null):
        ax.plot(
            np.quantile(score.null, [0.025, 0.975]),
            level,
            color=NULL_BAND,
            lw=14,
            solid_capstyle="butt",
            zorder=0,
        )
    interval = score.accuracy_ci
    ax.plot([interval.low, interval.high], level, color=colour, lw=2)
    ax.plot(score.accuracy, row, "o", color=colour, ms=8)


def _finish_accuracy(ax: Axes) -> None:
    """The line of chance, and the range that accuracies of interest are in."""
    ax.axvline(0.5, color=DARK_GREY, lw=0.8, ls=":")
    ax.set(xlim=(0.2, 1.02), xlabel="accuracy (grey: 95 % of permutations)")


def _roc_curve(ax: Axes, name: str, score: Score, style: str) -> None:
    false_positive_rate, sensitivity = roc_points(score.decisions)
    ax.plot(
        false_positive_rate,
        sensitivity,
        style,
        color=model_colour(name),
        lw=2.6 if name == "fused" else 1.4,
        label=model_label(name),
    )


def _finish_roc(ax: Axes) -> None:
    """The diagonal of chance, and a legend in the order of the models."""
    _diagonal(ax, 0, 1)
    ax.set(xlabel="1 − specificity", ylabel="sensitivity", aspect="equal")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="lower right")


def _diagonal(ax: Axes, low: float, high: float) -> None:
    ax.plot([low, high], [low, high], color=GREY, lw=0.8, ls=":")


def roc_points(decisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 − specificity and sensitivity of mirrored decisions, from the strictest
    threshold to the laxest."""
    decisions = decisions[np.isfinite(decisions)]
    # Every pair of visits can be read in both directions: a decision of one visit is
    # the negative decision of the other.
    thresholds = np.sort(np.concatenate([decisions, -decisions]))[::-1]
    sensitivity = (decisions[None] >= thresholds[:, None]).mean(1)
    false_positive_rate = (-decisions[None] >= thresholds[:, None]).mean(1)
    start = [0]
    return (
        np.concatenate([start, false_positive_rate]),
        np.concatenate([start, sensitivity]),
    )


def draw_predicted_observed(ratings: Ratings) -> bytes:
    """Observed against predicted ratings, a line joining the scans of each patient, and
    the permuted correlations."""
    figure, (scatter_ax, null_ax) = _axes(2, 4.6, 4.0)
    _join_scans(scatter_ax, ratings)
    _scatter_states(scatter_ax, ratings)
    observed = ratings.scans.rating
    _diagonal(scatter_ax, observed.min(), observed.max())
    scatter_ax.set(xlabel="predicted, out of fold", ylabel="rated")
    scatter_ax.legend(frameon=False, fontsize=8)
    r = ratings.performance["r_within_state"]
    _histogram(null_ax, ratings.null, r, "r within states")
    return png(figure)


def _join_scans(ax: Axes, ratings: Ratings) -> None:
    """A line through the scans of each patient, behind the points."""
    scans = ratings.scans
    for patient in np.unique(scans.patient):
        rows = scans.patient == patient
        ax.plot(
            ratings.predicted[rows],
            scans.rating[rows],
            color=LIGHT_GREY,
            lw=0.8,
            zorder=0,
        )


def _scatter_states(ax: Axes, ratings: Ratings) -> None:
    """A point per scan, coloured by its state."""
    scans = ratings.scans
    states = np.unique(scans.state)
    for k, state in enumerate(states):
        rows = scans.state == state
        ax.plot(
            ratings.predicted[rows],
            scans.rating[rows],
            "o",
            ms=4,
            color=STATE_COLOURS[k % len(STATE_COLOURS)],
            label="scans" if len(states) == 1 else f"visit {k + 1}",
        )


def draw_permutations(evaluation: Evaluation) -> bytes:
    """Accuracy of every model against its permutations."""
    scores = evaluation.scores
    panel_rows = -(-len(scores) // PANELS_PER_ROW)
    figure, axes = plt.subplots(
        panel_rows,
        PANELS_PER_ROW,
        figsize=(11, 2.4 * panel_rows),
        layout="constrained",
        squeeze=False,
    )
    # Panels that are left over in the last row.
    for ax in axes.flat[len(scores) :]:
        ax.set_axis_off()
    for ax, (name, score) in zip(axes.flat, scores.items(), strict=False):
        _histogram(ax, score.null, score.accuracy, "accuracy")
        ax.set_title(model_label(name), fontsize=9)
        # The caption says it once for all panels.
        ax.set_xlabel("")
    return png(figure)


def _histogram(ax: Axes, null: np.ndarray, observed: float, label: str) -> None:
    """Permuted values, with the observed value as a line."""
    if len(null):
        ax.hist(null, bins=40, color="#c5ccd5")
    ax.axvline(observed, color=RED, lw=2)
    ax.set(xlabel=f"{label} (grey: permuted, red: found)", yticks=[])


def draw_curves(
    calibration: np.ndarray, learning: Sequence[Mapping[str, float]]
) -> bytes:
    """Calibration of decisions (rows: probability, share correct, number), and accuracy
    with fewer patients."""
    figure, (calibration_ax, learning_ax) = _axes(2, 4.4, 3.6)
    _diagonal(calibration_ax, 0, 1)
    calibration_ax.plot(calibration[:, 0], calibration[:, 1], "o-", color=BLUE)
    calibration_ax.set(
        xlabel="probability given",
        ylabel="share that came true",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    if learning:
        _learning_curve(learning_ax, learning)
    else:
        learning_ax.set_axis_off()
    return png(figure)


def _learning_curve(ax: Axes, learning: Sequence[Mapping[str, float]]) -> None:
    """Accuracy by number of patients, with a band of one SD over subsets."""
    curve = pd.DataFrame(list(learning))
    sizes = curve["patients"].to_numpy()
    accuracy = curve["accuracy"].to_numpy(float)
    # All patients together are a single subset, whose SD is missing.
    sd = np.nan_to_num(curve["sd"].to_numpy(float))
    ax.fill_between(sizes, accuracy - sd, accuracy + sd, color="#c5d6e3")
    ax.plot(sizes, accuracy, "o-", color=BLUE)
    ax.axhline(0.5, color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="patients", ylabel="accuracy (band: SD of subsets)")


def strongest_tenth(values: np.ndarray) -> float:
    """The absolute value that a tenth of a map's voxels exceeds; voxels at 0 are
    outside the brain and do not count."""
    inside = np.abs(values[values != 0])
    return float(np.quantile(inside, 0.9)) if inside.size else 0.0


def draw_brain_map(
    values: np.ndarray, affine: np.ndarray, threshold: float | None = None
) -> bytes:
    """A map (x, y, z) on the standard brain in seven axial slices; without a threshold,
    its strongest tenth of voxels."""
    # Imported where it is used: nilearn takes seconds to load.
    import nibabel as nib
    from nilearn.plotting import plot_stat_map

    if threshold is None:
        threshold = strongest_tenth(values)
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


def draw_region_map(values: np.ndarray, centres: np.ndarray) -> bytes:
    """One value per region, at its MNI centre, on a glass brain."""
    from nilearn.plotting import plot_markers

    # Wide enough for the four views: left, top, right and front.
    figure = plt.figure(figsize=(10, 3.2))
    # A map of zeros has no scale of its own.
    limit = float(np.abs(values).max()) or 1.0
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


def draw_connectivity_pair(
    recorded: np.ndarray, modelled: np.ndarray, source: str = "recorded"
) -> bytes:
    """Recorded and modelled connectivity (region, region) side by side, and edge
    against edge.

    source: title of the recorded matrix
    """
    figure, (recorded_ax, modelled_ax, edges_ax) = _axes(3, 4.0, 3.7)
    limit = _largest_edge([recorded, modelled])
    _connectivity_matrix(recorded_ax, recorded, source, limit)
    _connectivity_matrix(modelled_ax, modelled, "fitted brain", limit)
    # One bar for both: they share a scale.
    figure.colorbar(
        modelled_ax.images[0], ax=modelled_ax, shrink=0.8, label="correlation"
    )
    _scatter_edges(edges_ax, recorded, modelled)
    edges_ax.set(xlabel=source, ylabel="fitted brain", title="every pair of regions")
    return png(figure)


def _largest_edge(matrices: Sequence[np.ndarray]) -> float:
    """The common limit of the colour scale. The 99th percentile off the diagonal: a few
    extreme edges would leave the others pale."""
    off_diagonal = ~np.eye(len(matrices[0]), dtype=bool)
    return max(
        float(np.quantile(np.abs(matrix[off_diagonal]), 0.99)) for matrix in matrices
    )


def _connectivity_matrix(
    ax: Axes, matrix: np.ndarray, title: str, limit: float
) -> None:
    ax.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.set(title=title, xlabel="region", ylabel="region")


def _scatter_edges(ax: Axes, recorded: np.ndarray, modelled: np.ndarray) -> None:
    below_diagonal = np.tril_indices(len(recorded), -1)
    x = recorded[below_diagonal]
    y = modelled[below_diagonal]
    # Thousands of points: pale, so that where they are dense is seen.
    ax.plot(x, y, ".", ms=2, alpha=0.35, color=BLUE, rasterized=True)
    _diagonal(ax, min(x.min(), y.min()), max(x.max(), y.max()))


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Pictures of one size below each other, as a single image on one colour scale.

    rows: the pictures; row_labels: one for each
    ticks, tick_labels: along the width, in pixels
    centre, limit: the colour scale covers centre ± limit; colour_label: what it shows
    """

    rows: Sequence[np.ndarray]
    row_labels: Sequence[str]
    ticks: np.ndarray
    tick_labels: Sequence[str]
    centre: float
    limit: float
    colour_label: str = ""

    def draw(self) -> bytes:
        """The image as PNG: a fraction of the time that an axis for each picture would
        take."""
        image = np.vstack(self.rows)
        height = 10.5 * image.shape[0] / image.shape[1]
        figure, ax = plt.subplots(figsize=(10.5, height))
        shown = ax.imshow(
            image,
            cmap="RdBu_r",
            vmin=self.centre - self.limit,
            vmax=self.centre + self.limit,
            interpolation="nearest",
        )
        self._label(ax)
        figure.colorbar(shown, ax=ax, fraction=0.02, pad=0.01, label=self.colour_label)
        return png(figure)

    def _label(self, ax: Axes) -> None:
        row_height = self.rows[0].shape[0]
        # Pixels have their centres at whole numbers: an image begins at -0.5.
        middles = (np.arange(len(self.rows)) + 0.5) * row_height - 0.5
        ax.set_xticks(self.ticks, self.tick_labels, fontsize=8)
        ax.set_yticks(middles, self.row_labels, fontsize=8, rotation=90, va="center")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)


def draw_slices(
    maps: Sequence[tuple[str, np.ndarray]], affine: np.ndarray, centre: float = 0.0
) -> bytes:
    """Maps (x, y, z) of one grid, with a label each, as rows of seven axial slices on
    one scale around `centre`; quick and plain."""
    labels, volumes = zip(*maps, strict=True)
    width, _, depth = volumes[0].shape
    planes = _planes(affine, depth)
    mosaic = Mosaic(
        rows=[_axial_slices(values, planes) for values in volumes],
        row_labels=labels,
        ticks=(np.arange(len(planes)) + 0.5) * width - 0.5,
        tick_labels=[f"z {height:.0f} mm" for height in SLICE_HEIGHTS],
        centre=centre,
        limit=_common_limit(volumes, centre),
    )
    return mosaic.draw()


def _planes(affine: np.ndarray, depth: int) -> np.ndarray:
    """Indices of the slices nearest to SLICE_HEIGHTS."""
    indices = (SLICE_HEIGHTS - affine[2, 3]) / affine[2, 2]
    # A map that does not cover the whole brain repeats its outermost slice.
    return np.rint(indices).astype(int).clip(0, depth - 1)


def _common_limit(maps: Sequence[np.ndarray], centre: float) -> float:
    """How far the colour scale extends from its centre: the 98th percentile, since a
    few extreme voxels would leave the others pale."""
    departures = [np.abs(values[values != 0] - centre) for values in maps]
    limit = float(np.quantile(np.concatenate(departures), 0.98))
    # A map that is flat has no scale of its own.
    return limit or 1.0


def _axial_slices(values: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Slices side by side, anterior up; voxels at 0 are outside the brain and stay
    white."""
    slices = []
    for plane in planes:
        axial = values[..., plane]
        slices.append(np.where(axial == 0, np.nan, axial).T[::-1])
    return np.hstack(slices)


def draw_matrices(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]], heads: Sequence[str], label: str
) -> bytes:
    """Matrices of one size, on one scale around 0.

    rows: a label and the matrices of each row; heads: of the columns; label: of the
        colour scale
    """
    labels, matrix_rows = zip(*rows, strict=True)
    size = len(matrix_rows[0][0])
    # What is missing is drawn white.
    gap = np.full((size, max(1, size // 20)), np.nan)
    step = size + gap.shape[1]
    mosaic = Mosaic(
        rows=[_with_gaps(matrices, gap) for matrices in matrix_rows],
        row_labels=labels,
        ticks=(size - 1) / 2 + np.arange(len(heads)) * step,
        tick_labels=heads,
        centre=0.0,
        limit=max(map(_largest_edge, matrix_rows)),
        colour_label=label,
    )
    return mosaic.draw()


def _with_gaps(matrices: Sequence[np.ndarray], gap: np.ndarray) -> np.ndarray:
    """Matrices side by side with a gap between neighbours."""
    parts = [matrices[0]]
    for matrix in matrices[1:]:
        parts += [gap, matrix]
    return np.hstack(parts)


def draw_estimates(
    table: pd.DataFrame, spread: pd.DataFrame | None, label: str
) -> bytes:
    """Fitted parameters (one row per visit, one column per parameter): a dot per visit,
    with its standard deviation where the fit gives one, over the prior mean ± SD (0 ±
    1)."""
    figure, axes = _axes(table.shape[1], 3.1, 2.8)
    for ax, name in zip(axes, table.columns, strict=True):
        sd = None if spread is None else spread[name].to_numpy(float)
        _draw_parameter(ax, table[name].to_numpy(float), sd)
        ax.set(title=name, xticks=[], xlabel="visits, in order", ylabel=label)
    return png(figure)


def _draw_parameter(ax: Axes, values: np.ndarray, sd: np.ndarray | None) -> None:
    """Estimates in order of size, over the prior mean ± SD."""
    order = np.argsort(values)
    ordered = values[order]
    positions = np.arange(len(values))
    ax.axhspan(-1, 1, color="#eef1f4")
    if sd is not None:
        ax.errorbar(positions, ordered, sd[order], fmt="none", ecolor=GREY, lw=0.8)
    ax.plot(positions, ordered, ".", color=BLUE, ms=4)


def draw_controls(table: pd.DataFrame, labels: Mapping[str, str]) -> bytes:
    """Correlations (one row per visit, one column per model): a dot per visit, and the
    mean.

    labels: by column, the first one highlighted; columns without values are left out
    """
    shown = [name for name in labels if table[name].notna().any()]
    figure, (ax,) = _axes(1, 7.5, 3.4)
    # A fixed seed, so that the same results give the same file.
    jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(table))
    # From the bottom up, so that the first model is at the top.
    upwards = shown[::-1]
    for row, name in enumerate(upwards):
        colour = BLUE if name == shown[0] else DARK_GREY
        _dots_and_mean(ax, table[name].to_numpy(float), row, jitter, colour)
    _label_rows(ax, [labels[name] for name in upwards])
    ax.set_xlabel("correlation")
    return png(figure)


def _dots_and_mean(
    ax: Axes, values: np.ndarray, row: int, jitter: np.ndarray, colour: str
) -> None:
    """Values scattered along a row, and their mean as an upright line."""
    ax.plot(values, row + jitter, ".", color=colour, ms=4, alpha=0.6)
    mean = np.nanmean(values)
    ax.plot([mean, mean], [row - 0.3, row + 0.3], color=colour, lw=2.5)
