"""What the figures show, as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cingulum.prediction import Evaluation
from cingulum.prediction.regression import Ratings
from cingulum.report.plots import roc_points


def pain(ratings: pd.DataFrame) -> pd.DataFrame:
    """A row a patient: pain at the first and the second visit."""
    wide = ratings.pivot(
        index="participant", columns="state", values="pain"
    ).reset_index()
    return wide.set_axis(["participant", "first visit", "second visit"], axis=1)


def performance(evaluation: Evaluation) -> pd.DataFrame:
    """Accuracy with its interval and what permutations give (a row a model, rate
    'accuracy'), then the ROC curves."""
    rows: list[list[Any]] = []
    for name, score in evaluation.scores.items():
        low, high = (
            np.quantile(score.null, [0.025, 0.975])
            if len(score.null)
            else (np.nan, np.nan)
        )
        rows.append(
            [
                name,
                "accuracy",
                score.accuracy,
                score.accuracy_ci.low,
                score.accuracy_ci.high,
                low,
                high,
            ]
        )
    head = [
        "model",
        "what",
        "value",
        "interval low",
        "interval high",
        "permuted 2.5 %",
        "permuted 97.5 %",
    ]
    return pd.DataFrame(rows, columns=head)


def roc(evaluation: Evaluation) -> pd.DataFrame:
    """Points of every model's curve."""
    parts = []
    for name, score in evaluation.scores.items():
        reach, hit = roc_points(score.decisions)
        parts.append(
            pd.DataFrame(
                {"model": name, "1 - specificity": reach, "sensitivity": hit}
            ).drop_duplicates()
        )
    return pd.concat(parts, ignore_index=True)


def permuted(evaluation: Evaluation) -> pd.DataFrame:
    """How often each accuracy came up among the permutations."""
    parts = []
    for name, score in evaluation.scores.items():
        value, count = np.unique(np.round(score.null, 6), return_counts=True)
        parts.append(
            pd.DataFrame({"model": name, "accuracy": value, "permutations": count})
        )
    return pd.concat(parts, ignore_index=True)


def predicted(found: Ratings) -> pd.DataFrame:
    """A row a scan: rating and out-of-fold prediction."""
    return found.predictions()


def curves(calibration: np.ndarray, learning: list[dict[str, Any]]) -> pd.DataFrame:
    """Calibration (probability given, share that came true, number) and the learning
    curve."""
    meant = pd.DataFrame(calibration[:, :3], columns=["x", "y", "n"]).assign(
        curve="calibration"
    )
    grown = [
        {
            "curve": "learning",
            "x": row["patients"],
            "y": row["accuracy"],
            "sd": row["sd"],
        }
        for row in learning
    ]
    table = pd.concat([meant, pd.DataFrame(grown)], ignore_index=True)
    return table[["curve", "x", "y", *(c for c in ("n", "sd") if c in table)]]


def edges(
    recorded: np.ndarray, modelled: np.ndarray, regions: tuple[str, ...]
) -> pd.DataFrame:
    """A row a pair of regions: recorded and modelled correlation."""
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


def regions(values: np.ndarray, names: tuple[str, ...], what: str) -> pd.DataFrame:
    return pd.DataFrame({"region": names, what: values})
