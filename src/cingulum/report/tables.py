"""The numbers behind the figures, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cingulum.prediction import Evaluation
from cingulum.report.plots import roc_points


def pain_table(ratings: pd.DataFrame) -> pd.DataFrame:
    """One row per patient: pain at the first and the second visit."""
    wide = ratings.pivot(index="participant", columns="state", values="pain")
    columns = ["participant", "first visit", "second visit"]
    return wide.reset_index().set_axis(columns, axis=1)


def roc_table(evaluation: Evaluation) -> pd.DataFrame:
    """Points of every model's ROC curve."""
    curves = []
    for name, score in evaluation.scores.items():
        false_positive_rate, sensitivity = roc_points(score.decisions)
        curve = pd.DataFrame(
            {
                "model": name,
                "1 - specificity": false_positive_rate,
                "sensitivity": sensitivity,
            }
        )
        # Ties between decisions give the same point several times.
        curves.append(curve.drop_duplicates())
    return pd.concat(curves, ignore_index=True)


def permutation_table(evaluation: Evaluation) -> pd.DataFrame:
    """How often each accuracy came up among the permutations of each model."""
    parts = []
    for name, score in evaluation.scores.items():
        # Rounded, so that equal accuracies that differ in the last digit are counted
        # together.
        rounded = np.round(score.null, 6)
        accuracies, counts = np.unique(rounded, return_counts=True)
        part = {"model": name, "accuracy": accuracies, "permutations": counts}
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def curve_table(
    calibration: np.ndarray, learning: Sequence[Mapping[str, float]]
) -> pd.DataFrame:
    """Calibration (x: probability, y: share that came true, n: number) and the learning
    curve (x: patients, y: accuracy, sd)."""
    calibration_rows = pd.DataFrame(calibration[:, :3], columns=["x", "y", "n"])
    learning_rows = [
        {
            "curve": "learning",
            "x": row["patients"],
            "y": row["accuracy"],
            "sd": row["sd"],
        }
        for row in learning
    ]
    parts = [
        calibration_rows.assign(curve="calibration"),
        pd.DataFrame(learning_rows),
    ]
    table = pd.concat(parts, ignore_index=True)
    # There is no sd without a learning curve.
    columns = [name for name in ("curve", "x", "y", "n", "sd") if name in table]
    return table[columns]


def edge_table(
    recorded: np.ndarray, modelled: np.ndarray, regions: Sequence[str]
) -> pd.DataFrame:
    """One row per pair of regions: recorded and modelled correlation."""
    # Connectivity is symmetric: the lower triangle holds every pair once.
    i, j = np.tril_indices(len(recorded), -1)
    names = np.asarray(regions)
    return pd.DataFrame(
        {
            "region": names[j],
            "other": names[i],
            "recorded": recorded[i, j],
            "modelled": modelled[i, j],
        }
    )


def region_table(
    values: np.ndarray, regions: Sequence[str], value_name: str
) -> pd.DataFrame:
    """One row per region and its value, in a column called `value_name`."""
    return pd.DataFrame({"region": regions, value_name: values})
