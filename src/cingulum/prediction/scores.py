"""What an evaluation of paired visits found, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cingulum.prediction.statistics import Interval, right
from cingulum.prediction.svm.nested import Fusion


@dataclass(frozen=True, eq=False)
class Score:
    """Performance of one model.

    decisions: one a patient, out of fold; > 0 means the later visit was recognised; NaN
        for a patient without data
    accuracy_ci, auc_ci: bootstrap over patients; accuracy_exact_ci: Clopper-Pearson
    auc: of the mirrored decisions (signed-rank, as in Lee et al. 2019)
    scans: out-of-fold scores (patient, visit) of single scans; single_scan_auc: second
        visits against first ones
    p: sign-flip permutation, one-sided, of the accuracy (equal accuracies are ranked by
        AUC); p_auc, single_scan_p
    null: the permuted accuracies
    permutations: how many it took (fewer with early stopping)
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


@dataclass(frozen=True)
class Difference:
    """One model minus another, on the patients that both decide: accuracy and paired
    AUC with bootstrap intervals over patients, and McNemar's exact two-sided p."""

    accuracy: float
    accuracy_ci: Interval
    auc: float
    auc_ci: Interval
    mcnemar: float


@dataclass(frozen=True)
class Contribution:
    """What one modality adds to the fusion of the others.

    weight: mean weight in the fused machine; accuracy, auc: of the fusion without it;
    gains: with − without, with bootstrap intervals over patients; p: the modality's
    differences alone change sign, everything else stays (its weight in the fusion is
    learnt anew), one-sided, of the fused accuracy with AUC deciding ties: does it carry
    any information? A copy of another modality does, and adds nothing: that is what
    gains and mcnemar (exact, two-sided, of the patients on whom the two fusions
    disagree) are for
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
    weights of models fitted on everybody, and what was done.

    weights: per modality (feature,), for pictures only: performance never comes from
        them
    patterns: the same as activation patterns, which may be read as where the effect is
        (Haufe et al. 2014)
    duals: per modality, the coefficients (patient,) that make the weights out of the
        patients' differences
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

    def table(self) -> pd.DataFrame:
        """One row a model."""
        rows = [
            {
                "model": name,
                "accuracy": s.accuracy,
                "accuracy_low": s.accuracy_ci.low,
                "accuracy_high": s.accuracy_ci.high,
                "auc": s.auc,
                "single_scan_auc": s.single_scan_auc,
                "p": s.p,
            }
            for name, s in self.scores.items()
        ]
        return pd.DataFrame(rows)

    def predictions(self) -> pd.DataFrame:
        """One row a patient and model: fold, decision, scores of both scans; all out of
        fold."""
        parts = [
            pd.DataFrame(
                {
                    "participant_id": self.patients,
                    "model": name,
                    "fold": self.folds,
                    "decision": s.decisions,
                    "correct": right(s.decisions),
                    "score_first": s.scans[:, 0],
                    "score_second": s.scans[:, 1],
                }
            )
            for name, s in self.scores.items()
        ]
        return pd.concat(parts, ignore_index=True)
