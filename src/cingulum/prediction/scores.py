"""The results of an evaluation of paired visits, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cingulum.prediction.settings import Fusion
from cingulum.prediction.statistics import Interval, correctness


@dataclass(frozen=True, eq=False)
class Score:
    """Performance of one model.

    decisions: one per patient, out of fold; > 0 means the second visit was recognised;
        NaN for a patient without data
    accuracy_exact_ci: Clopper-Pearson, exact for independent decisions; the other
        intervals: see `cingulum.prediction.intervals`
    auc: of the mirrored decisions (signed-rank, as in Lee et al. 2019)
    scans: out-of-fold scores (patient, visit) of single scans; single_scan_auc: second
        visits against first ones
    p: sign-flip permutation, one-sided, of the accuracy (equal accuracies are ranked by
        AUC); p_auc, single_scan_p
    null: the permuted accuracies
    permutations: how many were needed (fewer with early stopping)
    """

    decisions: np.ndarray
    accuracy: float
    accuracy_ci: Interval
    accuracy_exact_ci: Interval
    auc: float
    auc_ci: Interval
    scans: np.ndarray
    single_scan_auc: float
    single_scan_auc_ci: Interval
    single_scan_p: float
    p: float
    p_auc: float
    null: np.ndarray = field(repr=False)
    null_auc: np.ndarray = field(repr=False)
    permutations: int

    def summary(self) -> dict[str, float]:
        """The figures of one row of `Evaluation.table`."""
        return {
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_ci.low,
            "accuracy_high": self.accuracy_ci.high,
            "auc": self.auc,
            "single_scan_auc": self.single_scan_auc,
            "p": self.p,
        }


@dataclass(frozen=True)
class Difference:
    """One model minus another, on the patients that both decide: accuracy and paired
    AUC with intervals, and McNemar's exact two-sided p."""

    accuracy: float
    accuracy_ci: Interval
    auc: float
    auc_ci: Interval
    mcnemar: float


@dataclass(frozen=True)
class Contribution:
    """What one modality adds to the fusion of the others.

    weight: mean weight in the fused machine
    accuracy, auc: of the fusion without it
    accuracy_gain, auc_gain: with − without, with intervals
    p: one-sided, of the fused accuracy with AUC deciding ties, when the differences of
        this modality alone change sign and the fusion is trained again: does it carry
        any information? A copy of another modality does, and adds nothing, which gains
        and mcnemar show
    mcnemar: exact two-sided p, from the patients on whom the two fusions disagree
    """

    weight: float
    accuracy: float
    auc: float
    accuracy_gain: float
    accuracy_gain_ci: Interval
    auc_gain: float
    auc_gain_ci: Interval
    p: float
    mcnemar: float


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores by model name (modalities, then `fused`), contributions to the fusion,
    weights of models fitted on everybody, and the settings.

    weights: per modality (feature,), for pictures only: performance never comes from
        them
    patterns: the same as activation patterns, which show where the effect is (Haufe et
        al. 2014, doi:10.1016/j.neuroimage.2013.10.067)
    duals: per modality, the coefficients (patient,) of the patients' differences that
        give the weights
    folds, parts: outer fold and inner part of each patient
    dropped: patients left out since a modality was missing; missing: per modality, how
        many patients lack it
    """

    scores: dict[str, Score]
    contributions: dict[str, Contribution]
    weights: dict[str, np.ndarray]
    patterns: dict[str, np.ndarray]
    duals: dict[str, np.ndarray]
    patients: list[str]
    fused: list[str]
    permutations: int
    folds: np.ndarray
    parts: np.ndarray
    inner_folds: int
    C: tuple[float, ...]
    seed: int
    fusion: Fusion
    scaled: tuple[str, ...] = ()
    confounds: tuple[str, ...] = ()
    stop_after: int | None = None
    dropped: list[str] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """The model whose score is reported first: the fusion, or the only modality."""
        # One modality alone is not fused.
        return "fused" if "fused" in self.scores else self.fused[0]

    def table(self) -> pd.DataFrame:
        """One row per model."""
        rows = []
        for name, score in self.scores.items():
            rows.append({"model": name, **score.summary()})
        return pd.DataFrame(rows)

    def predictions(self) -> pd.DataFrame:
        """One row per patient and model: fold, decision, scores of both scans; all out
        of fold."""
        tables = [self._predictions_of(name) for name in self.scores]
        # Rows are numbered through: patients occur once per model.
        return pd.concat(tables, ignore_index=True)

    def _predictions_of(self, model: str) -> pd.DataFrame:
        score = self.scores[model]
        columns = {
            "participant_id": self.patients,
            "model": model,
            "fold": self.folds,
            "decision": score.decisions,
            "correct": correctness(score.decisions),
            "score_first": score.scans[:, 0],
            "score_second": score.scans[:, 1],
        }
        return pd.DataFrame(columns)
