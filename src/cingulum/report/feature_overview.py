"""A feature table at a glance: what every visit measures, and which visits are far from
the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cingulum.features import FEATURES, Role
from cingulum.io.files import slug
from cingulum.report.plots import png

FAR = 3.5
"""Robust standard deviations from the median at which a visit is named (Iglewicz and
Hoaglin 1993)."""

CONSISTENT = 1.4826
"""What makes the median absolute deviation a standard deviation for normal values."""

PANELS_PER_ROW = 4
NAMED = 5


def overview_columns() -> list[str]:
    """Columns worth a look, those on quality first."""
    first = (Role.QUALITY, Role.CONTROL)
    features = sorted(FEATURES.values(), key=lambda feature: feature.role not in first)
    return [slug(f"{f.name} {column}") for f in features for column in f.overview]


def far_out(values: np.ndarray) -> np.ndarray:
    """Which values (visit,) are more than FAR robust standard deviations from the
    median; none where most are alike."""
    if np.isnan(values).all():
        return np.zeros(len(values), bool)
    deviation = np.abs(values - np.nanmedian(values))
    scale = CONSISTENT * np.nanmedian(deviation)
    if not scale > 0:
        return np.zeros(len(values), bool)
    return deviation / scale > FAR


def overview(table: pd.DataFrame, units: Mapping[str, str]) -> bytes | None:
    """A panel per column, a dot per visit; visits that are far from the others are
    named, missing ones counted. None: the table has none of the columns."""
    shown = [
        name
        for name in overview_columns()
        if name in table and table[name].notna().any()
    ]
    if not shown:
        return None
    wide = min(PANELS_PER_ROW, len(shown))
    tall = -(-len(shown) // wide)
    figure, axes = plt.subplots(
        tall,
        wide,
        figsize=(3.1 * wide, 2.5 * tall),
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    labels = _visit_labels(table)
    for ax, name in zip(axes.flat, shown, strict=False):
        _draw_panel(ax, table[name], labels, units.get(name, ""))
    return png(figure)


def _visit_labels(table: pd.DataFrame) -> Sequence[str]:
    sessions = table["session_id"].fillna("").astype(str)
    return (table["participant_id"] + " " + sessions).str.strip().to_numpy()


def _draw_panel(ax: Axes, column: pd.Series, labels: Sequence[str], unit: str) -> None:
    values = column.to_numpy(float)
    far = far_out(values)
    # Sideways only so that dots do not cover each other; always the same way.
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(values))
    ax.scatter(
        spread[~far], values[~far], s=14, color="#1f5f8b", alpha=0.6, linewidths=0
    )
    ax.scatter(spread[far], values[far], s=22, color="#b5482f")
    for i in np.flatnonzero(far)[:NAMED]:
        ax.annotate(
            labels[i],
            (spread[i], values[i]),
            fontsize=7,
            xytext=(3, 3),
            textcoords="offset points",
        )
    missing = int(np.isnan(values).sum())
    remark = f" ({missing} missing)" if missing else ""
    ax.set_title(f"{column.name}{remark}", fontsize=9)
    ax.set(xticks=[], xlim=(-1, 1), ylabel=unit)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
