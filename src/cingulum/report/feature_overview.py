"""A feature table at a glance: what every visit measures, and which visits stand
apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cingulum.report.plots import png

SHOWN = (
    "quality_fd_mean",
    "quality_volumes_kept",
    "quality_tsnr",
    "quality_coverage_mean",
    "motion",
    "cbf_whole_brain",
    "cbf_grey_matter",
    "hrv_rate",
    "hrv_ln_hf",
    "hrv_corrected",
    "hrv_breath",
    "fcd_mean",
    "physiology_strength",
)
"""Columns worth a look, in this order, where the table has them."""

FAR = 3.5
"""Robust standard deviations from the median at which a visit is named (Iglewicz and
Hoaglin 1993)."""


def far_out(values: np.ndarray) -> np.ndarray:
    """Values (visit,) more than FAR robust standard deviations from the median; none
    where most are alike."""
    if np.isnan(values).all():
        return np.zeros(len(values), bool)
    spread = 1.4826 * np.nanmedian(np.abs(values - np.nanmedian(values)))
    if not spread > 0:
        return np.zeros(len(values), bool)
    return np.abs(values - np.nanmedian(values)) / spread > FAR


def overview(table: pd.DataFrame, columns: dict[str, dict]) -> bytes | None:
    """A panel a column, a dot a visit; those that stand apart are named, missing ones
    counted. None: no columns."""
    import matplotlib.pyplot as plt

    shown = [name for name in SHOWN if name in table and table[name].notna().any()]
    if not shown:
        return None
    wide = min(4, len(shown))
    tall = -(-len(shown) // wide)
    figure, axes = plt.subplots(
        tall,
        wide,
        figsize=(3.1 * wide, 2.5 * tall),
        squeeze=False,
        layout="constrained",
    )
    names = (
        (table["participant_id"] + " " + table["session_id"].fillna("").astype(str))
        .str.strip()
        .to_numpy()
    )
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(table))
    for ax in axes.flat[len(shown) :]:
        ax.set_axis_off()
    for ax, name in zip(axes.flat, shown, strict=False):
        values = table[name].to_numpy(float)
        far = far_out(values)
        ax.scatter(
            spread[~far], values[~far], s=14, color="#1f5f8b", alpha=0.6, linewidths=0
        )
        ax.scatter(spread[far], values[far], s=22, color="#b5482f")
        for i in np.flatnonzero(far)[:5]:
            ax.annotate(
                names[i],
                (spread[i], values[i]),
                fontsize=7,
                xytext=(3, 3),
                textcoords="offset points",
            )
        missing = int(np.isnan(values).sum())
        ax.set_title(name + (f" ({missing} missing)" if missing else ""), fontsize=9)
        ax.set(xticks=[], xlim=(-1, 1), ylabel=columns.get(name, {}).get("Units", ""))
        ax.spines[["top", "right", "bottom"]].set_visible(False)
    return png(figure)
