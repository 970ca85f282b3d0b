"""A feature table at a glance: the measures of every visit, and the visits that are far
from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cingulum.features import FEATURES, Role
from cingulum.io.files import slug
from cingulum.report.plots import png

FAR = 3.5
"""Robust standard deviations from the median at which a visit is named (Iglewicz and
Hoaglin 1993)."""

CONSISTENT = 1.4826
"""Standard deviation of normal values, in units of their median absolute deviation."""

PANELS_PER_ROW = 4

# In inches.
PANEL_WIDTH = 3.1
PANEL_HEIGHT = 2.5

NAMED = 5
"""Labels per panel: more would cover each other."""

USUAL_COLOUR = "#1f5f8b"
FAR_COLOUR = "#b5482f"

LOOKED_AT_FIRST = (Role.QUALITY, Role.CONTROL)


def overview_columns() -> list[str]:
    """Columns worth a look, those on quality first."""
    # Sorting keeps the order of the registry within each half.
    features = sorted(
        FEATURES.values(), key=lambda feature: feature.role not in LOOKED_AT_FIRST
    )
    columns = []
    for feature in features:
        columns += [slug(f"{feature.name} {column}") for column in feature.overview]
    return columns


def far_out(values: np.ndarray) -> np.ndarray:
    """Which values (visit,) are more than FAR robust standard deviations from the
    median; none where most are alike."""
    # The median of nothing would be a warning.
    if np.isnan(values).all():
        return np.zeros(len(values), bool)
    deviation = np.abs(values - np.nanmedian(values))
    scale = CONSISTENT * np.nanmedian(deviation)
    # Written so that a scale that is NaN is refused as well.
    if not scale > 0:
        return np.zeros(len(values), bool)
    return deviation / scale > FAR


def overview(table: pd.DataFrame, units: Mapping[str, str]) -> bytes | None:
    """A panel per column, a dot per visit; visits that are far from the others are
    named, missing ones counted. None: the table has none of the columns."""
    columns = _known_columns(table)
    if not columns:
        return None
    figure, axes = _panels(len(columns))
    labels = _visit_labels(table)
    # There may be more axes than columns.
    for ax, name in zip(axes, columns, strict=False):
        _draw_panel(ax, table[name], labels, units.get(name, ""))
    return png(figure)


def _known_columns(table: pd.DataFrame) -> list[str]:
    """Columns worth a look of which the table has at least one value."""
    columns = []
    for name in overview_columns():
        if name in table and table[name].notna().any():
            columns.append(name)
    return columns


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with axes in rows; those beyond the count are empty."""
    wide = min(PANELS_PER_ROW, count)
    # Rounded up: a last row that is not full is a row too.
    tall = -(-count // wide)
    figure, grid = plt.subplots(
        tall,
        wide,
        figsize=(PANEL_WIDTH * wide, PANEL_HEIGHT * tall),
        squeeze=False,
        layout="constrained",
    )
    axes = list(grid.flat)
    for ax in axes[count:]:
        ax.set_axis_off()
    return figure, axes


def _visit_labels(table: pd.DataFrame) -> Sequence[str]:
    # A dataset without sessions leaves the column empty.
    sessions = table["session_id"].fillna("").astype(str)
    return (table["participant_id"] + " " + sessions).str.strip().to_numpy()


def _draw_panel(ax: Axes, column: pd.Series, labels: Sequence[str], unit: str) -> None:
    values = column.to_numpy(float)
    _draw_dots(ax, values, labels)
    ax.set_title(_panel_title(str(column.name), values), fontsize=9)
    # Positions along x have no meaning.
    ax.set(xticks=[], xlim=(-1, 1), ylabel=unit)
    ax.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_dots(ax: Axes, values: np.ndarray, labels: Sequence[str]) -> None:
    """A dot per visit; those that are far from the others are larger and named."""
    far = far_out(values)
    # Sideways only so that dots do not cover each other; always the same way.
    x = np.random.default_rng(0).uniform(-0.3, 0.3, len(values))
    ax.scatter(x[~far], values[~far], s=14, color=USUAL_COLOUR, alpha=0.6, linewidths=0)
    ax.scatter(x[far], values[far], s=22, color=FAR_COLOUR)
    for i in np.flatnonzero(far)[:NAMED]:
        _write_label(ax, labels[i], (x[i], values[i]))


def _write_label(ax: Axes, label: str, position: tuple[float, float]) -> None:
    # Three points aside, so that the label does not cover its dot.
    ax.annotate(label, position, fontsize=7, xytext=(3, 3), textcoords="offset points")


def _panel_title(name: str, values: np.ndarray) -> str:
    missing = int(np.isnan(values).sum())
    if not missing:
        return name
    return f"{name} ({missing} missing)"
