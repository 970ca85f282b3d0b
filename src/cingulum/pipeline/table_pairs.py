"""The paired design on a table: which of a participant's two visits had the higher
outcome?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.pipeline.prepared_table import RANK, PreparedTable
from cingulum.pipeline.table_columns import without_empty
from cingulum.pipeline.table_request import ModelOptions, Question, Request
from cingulum.prediction import Evaluation
from cingulum.prediction.paired_visits import PairedVisits
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.settings import Permutations, Svm, Validation
from cingulum.prediction.study_evaluation import (
    RatingRegression,
    StudyData,
    StudyEvaluation,
    evaluate_study,
)
from cingulum.report.table_results import LeftOut

COLUMNS_SHOWN = 5
"""Incomplete columns of a modality that a reason names."""


@dataclass(frozen=True, eq=False)
class VisitPairs:
    """The first two visits of each participant whose outcome changed.

    rows: of the prepared table (participant, visit), in the order of the visits
    outcomes: (participant, visit); left_out: participants and visits, by reason
    """

    participants: list[str]
    rows: np.ndarray
    outcomes: np.ndarray
    left_out: LeftOut

    @property
    def second_is_higher(self) -> np.ndarray:
        """(participant,)"""
        return self.outcomes[:, 1] > self.outcomes[:, 0]

    def rows_by_outcome(self) -> dict[str, np.ndarray]:
        """Rows of the visits with the lower and with the higher outcome
        (participant,)."""
        first, second = self.rows.T
        return {
            "lower": np.where(self.second_is_higher, first, second),
            "higher": np.where(self.second_is_higher, second, first),
        }


@dataclass(frozen=True, eq=False)
class PairedPrediction:
    """The evaluation of pairs of visits; left_out: participants, by reason."""

    pairs: VisitPairs
    evaluation: StudyEvaluation
    left_out: LeftOut


def visit_pairs(prepared: PreparedTable, question: Question) -> VisitPairs:
    """Raises InputError where no participant has two visits of different outcome."""
    outcome = prepared.table[question.outcome].to_numpy(float)
    visits = _visits_in_order(prepared.table, question.group)
    single = []
    unchanged = []
    kept = {}
    for name, rows in visits.items():
        if len(rows) < 2:
            single.append(name)
        elif outcome[rows[0]] == outcome[rows[1]]:
            # Neither visit is the one with the higher outcome.
            unchanged.append(name)
        else:
            kept[name] = rows[:2]
    if not kept:
        raise _no_pairs(question, len(visits), len(unchanged))
    left_out: LeftOut = {
        "participants with one visit": single,
        "visits after the second": _number_of_later(visits),
        "participants whose outcome did not change": unchanged,
    }
    pairs = np.stack(list(kept.values()))
    return VisitPairs(list(kept), pairs, outcome[pairs], without_empty(left_out))


def _number_of_later(visits: Mapping[str, np.ndarray]) -> int:
    """Visits after the second of their participant."""
    return sum(len(rows[2:]) for rows in visits.values())


def _no_pairs(question: Question, participants: int, with_two: int) -> InputError:
    return InputError(
        "The paired design needs participants with two visits and different "
        f"{question.outcome}; of {participants} in {question.group}, {with_two} have "
        "two visits, and the outcome changes in none. Is --group the column that names "
        "people? For one visit a person use --design between."
    )


def _visits_in_order(table: pd.DataFrame, group: str) -> dict[str, np.ndarray]:
    """Rows of each participant, the first visit first."""
    ranks = table[RANK].to_numpy()
    # Sorted by name, so that results do not depend on the order of the rows.
    visits = table.groupby(group, sort=True).indices
    return {str(name): rows[np.argsort(ranks[rows])] for name, rows in visits.items()}


def predict_pairs(
    prepared: PreparedTable,
    request: Request,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> PairedPrediction:
    """Everything asked of pairs of visits. In the paired design also the learning curve
    and, of the same participants, the ratings between them."""
    question = request.question
    pairs = visit_pairs(prepared, question)
    values, incomplete = _modality_values(prepared, pairs)
    visits = PairedVisits(
        values,
        pairs.participants,
        prepared.controls,
        _confounds(prepared, pairs, request.columns.confounds),
        _labels_of(prepared, pairs, request.columns.family),
    )
    study = StudyData(
        visits,
        # In the other design ratings have a regression of their own.
        ratings=pairs.outcomes if question.is_paired else None,
        higher=pairs.second_is_higher,
        sites=_labels_of(prepared, pairs, request.columns.site),
    )
    evaluation = evaluate_study(
        study,
        svm=_svm(request.model, values),
        validation=_validation(request),
        permutations=Permutations(
            request.evaluation.permutations, request.evaluation.stop_after
        ),
        regression=RatingRegression("features", request.model.model),
        learning=question.is_paired,
        jobs=jobs,
        show_progress=show_progress,
    )
    lacking = _lacking_modalities(evaluation.paired, request.model)
    left_out = {**pairs.left_out, **incomplete, **lacking}
    return PairedPrediction(pairs, evaluation, left_out)


def _modality_values(
    prepared: PreparedTable, pairs: VisitPairs
) -> tuple[dict[str, np.ndarray], LeftOut]:
    """Values by modality (participant, visit, column). A participant without all
    columns of a modality at both visits lacks it: all its values are missing."""
    values = {}
    left_out = {}
    for name, columns in prepared.columns.items():
        measured = prepared.numbers(columns)[pairs.rows]
        gaps = np.isnan(measured).any(1)  # (participant, column)
        incomplete = gaps.any(1)
        if incomplete.any():
            missing = list(compress(columns, gaps.any(0)))
            reason = _gap_reason(name, missing)
            left_out[reason] = list(compress(pairs.participants, incomplete))
        # A support vector machine takes a modality whole or not at all.
        measured[incomplete] = np.nan
        values[name] = measured
    return values, left_out


def _gap_reason(modality: str, missing: Sequence[str]) -> str:
    named = ", ".join(missing[:COLUMNS_SHOWN])
    return f"participants without all of {modality} (missing: {named})"


def _svm(model: ModelOptions, values: Mapping[str, np.ndarray]) -> Svm:
    """Every modality is standardised in every fold, if any is."""
    # `Svm` refuses to scale what is fused as kernels; here scaling is the default, and
    # should not keep users from choosing that fusion.
    scale = tuple(values) if model.is_scaled else ()
    return Svm(model.C, scale, model.fusion, model.missing)


def _validation(request: Request) -> Validation:
    evaluation = request.evaluation
    # In the other design the number of folds is that of the regression.
    folds = request.model.folds if request.question.is_paired else None
    return Validation(folds, seed=evaluation.seed, force=evaluation.force)


def _confounds(
    prepared: PreparedTable, pairs: VisitPairs, columns: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """By name (participant, visit)."""
    confounds = {}
    for column in columns:
        confounds[column] = prepared.table[column].to_numpy(float)[pairs.rows]
    return confounds


def _labels_of(
    prepared: PreparedTable, pairs: VisitPairs, column: str | None
) -> np.ndarray | None:
    """The site, or the family, of each participant's first visit."""
    if column is None:
        return None
    first_visits = pairs.rows[:, 0]
    return prepared.table[column].astype(str).to_numpy()[first_visits]


def _lacking_modalities(evaluation: Evaluation, model: ModelOptions) -> LeftOut:
    """Participants that were dropped, or kept, though they lack a modality."""
    left_out: dict[str, list[str]] = {}
    # With log-odds a participant is dropped only if nothing is left to decide by.
    lack = "a modality"
    if model.missing == "log_odds":
        lack = "every modality"
    if evaluation.dropped:
        left_out[f"participants that lack {lack}"] = list(evaluation.dropped)
    if evaluation.missing:
        kept = [f"{name}: {number}" for name, number in evaluation.missing.items()]
        left_out["kept, though without a modality"] = kept
    return left_out


def pair_predictions(
    prepared: PreparedTable, question: Question, prediction: PairedPrediction
) -> pd.DataFrame:
    """Every out-of-fold prediction, with the visits it is about: the one with the lower
    outcome, and the one with the higher."""
    pairs = prediction.pairs
    table = prediction.evaluation.paired.predictions()
    table = table.rename(
        columns={"score_first": "score_lower", "score_second": "score_higher"}
    )
    # The evaluation may have dropped participants, and has a row for each model.
    participants = pd.Index(pairs.participants).get_indexer(table["participant_id"])
    labels = _visit_labels(prepared)
    outcome = prepared.table[question.outcome].to_numpy(float)
    for side, visit_rows in pairs.rows_by_outcome().items():
        rows = visit_rows[participants]
        table[f"visit_{side}"] = labels[rows]
        table[f"outcome_{side}"] = outcome[rows]
    return table


def _visit_labels(prepared: PreparedTable) -> np.ndarray:
    """What the visit of each row is called."""
    if prepared.order:
        return prepared.table[prepared.order].astype(str).to_numpy()
    return np.array([f"visit {rank + 1}" for rank in prepared.table[RANK]], object)


def weight_table(prepared: PreparedTable, evaluation: Evaluation) -> pd.DataFrame:
    """One row per column: weight on the difference in the column's own units, and its
    activation pattern."""
    # Controls are scored, too, and have weights of their own.
    parts = []
    for modality, columns in prepared.columns.items():
        part = {
            "modality": modality,
            "column": columns,
            "weight": evaluation.weights[modality],
            "pattern": evaluation.patterns[modality],
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)
