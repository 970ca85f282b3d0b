"""The design between participants on a table: how high is the outcome of a participant
not used for training?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.pipeline.prepared_table import STATE, PreparedTable
from cingulum.pipeline.table_pairs import predict_pairs
from cingulum.pipeline.table_request import Request
from cingulum.prediction.conformal import conformal_intervals
from cingulum.prediction.confounds import with_curves
from cingulum.prediction.leak_audit import audit_ratings
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.regression import Ratings, RegressionSettings, regress
from cingulum.prediction.scan_kernels import ScanKernel, feature_kernel
from cingulum.prediction.scans import Scans
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.prediction.svm.products import copy_of
from cingulum.random_streams import Stream, generator
from cingulum.report.table_results import BetweenEvaluation, LeftOut

FEWEST = 10
"""Participants below which a regression has to be forced."""

FEWEST_FORCED = 4
"""Participants below which there is none."""

FOLDS = 10

NOISE_REPEATS = 20
"""Times that the regression is repeated on noise, for its audit."""

STOP_PAIRS_AFTER = 20
"""Pairs of visits are a second question in this design: unless another number is
named, their permutations stop once so many reach the observed score."""

COLUMNS_SHOWN = 5
"""Incomplete columns that a reason names, those with most gaps first."""


@dataclass(frozen=True, eq=False)
class RatingsPrediction:
    """The evaluation between participants; left_out: rows, by reason."""

    evaluation: BetweenEvaluation
    left_out: LeftOut


def predict_ratings(
    prepared: PreparedTable,
    request: Request,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> RatingsPrediction:
    """The regression between participants with its audit and, where the table has them,
    the questions of pairs of visits.

    Raises InputError for too few participants with complete rows, and for copies of
    one.
    """
    # A regression cannot use a row that lacks a feature; pairs are fused by modality
    # and take the whole table.
    complete, left_out = _complete_rows(prepared, request)
    _check_participants(complete.table[request.question.group], request)
    _check_copies(complete, request.question.group)
    ratings = _regression(complete, request, jobs, show_progress)
    checks = audit_ratings(
        ratings,
        noise=NOISE_REPEATS,
        seed=request.evaluation.seed,
        confounds=_measured_confounds(complete, request.columns.confounds),
    )
    # Also those without a complete row, so that the lead can say how many are lost.
    everybody = prepared.table[request.question.group].nunique()
    pairs = _pairs_or_reason(prepared, request, jobs)
    evaluation = BetweenEvaluation(ratings, checks, everybody, pairs)
    return RatingsPrediction(evaluation, left_out)


def _complete_rows(
    prepared: PreparedTable, request: Request
) -> tuple[PreparedTable, LeftOut]:
    """Rows that have every feature and confound, and how many have not."""
    needed = [*prepared.features, *request.columns.confounds]
    gaps = prepared.table[needed].isna()
    incomplete = gaps.any(axis=1)
    table = prepared.table[~incomplete].reset_index(drop=True)
    complete = replace(prepared, table=table)
    if not incomplete.any():
        return complete, {}
    reason = f"{int(incomplete.sum())} ({_gap_counts(gaps)})"
    return complete, {"rows with missing values": [reason]}


def _gap_counts(gaps: pd.DataFrame) -> str:
    """The columns with most missing values, and how many they miss."""
    most = gaps.sum().sort_values(ascending=False).head(COLUMNS_SHOWN)
    counts = [f"{column} {number}" for column, number in most.items() if number]
    return ", ".join(counts)


def _check_participants(groups: pd.Series, request: Request) -> None:
    participants = groups.nunique()
    fewest = FEWEST_FORCED if request.evaluation.force else FEWEST
    if participants < fewest:
        raise InputError(
            f"Regression between participants needs at least {FEWEST} of them with "
            f"complete rows; came {participants}. --force goes down to "
            f"{FEWEST_FORCED}."
        )


def _check_copies(complete: PreparedTable, group: str) -> None:
    participants = complete.table[group]
    # A copy under another name would be in training and test folds at once.
    copies = copy_of([complete.numbers(complete.features)], participants.to_numpy())
    if copies:
        first, second = participants.loc[list(copies)]
        raise InputError(
            f"A row of {first} and one of {second} have the same features to the last "
            "digit: one is a copy of the other, and could be tested on itself. Leave "
            "one out."
        )


def _regression(
    complete: PreparedTable, request: Request, jobs: Jobs, show_progress: bool
) -> Ratings:
    """The regression of the outcome on complete rows."""
    evaluation = request.evaluation
    scans = _scans(complete.table, request)
    folds = request.model.folds
    if folds is None:
        units = scans.names if scans.family is None else set(scans.family)
        folds = min(FOLDS, len(units))
    # A stream of its own: the folds do not depend on what else is drawn.
    rng = generator(evaluation.seed, Stream.REGRESSION_FOLDS)
    settings = RegressionSettings(
        model=request.model.model,
        permutations=evaluation.permutations,
        stop_after=evaluation.stop_after,
        seed=evaluation.seed,
    )
    return regress(
        scans,
        _kernel(complete, request),
        scans.folds(folds, rng),
        settings,
        baselines=_baselines(complete, request.columns.confounds),
        jobs=jobs,
        show_progress=show_progress,
    )


def _scans(table: pd.DataFrame, request: Request) -> Scans:
    question, roles = request.question, request.columns
    participants = table[question.group]
    # Sorted, so that folds do not depend on the order of the rows.
    names = sorted(participants.unique())
    number = dict(zip(names, range(len(names)), strict=True))

    def labels(column: str | None) -> np.ndarray | None:
        if column is None:
            return None
        # A participant belongs to the site, and the family, of its first row.
        by_participant = table[column].astype(str).groupby(participants).first()
        return by_participant.loc[names].to_numpy()

    return Scans(
        participants.map(number).to_numpy(),
        table[STATE].to_numpy(),
        table[question.outcome].to_numpy(float),
        names,
        labels(roles.site),
        labels(roles.family),
    )


def _kernel(complete: PreparedTable, request: Request) -> ScanKernel:
    """Of all features together, without confounds and, if asked, site differences."""
    rows = {}
    for name, columns in complete.feature_modalities.items():
        rows[name] = complete.numbers(columns)
    confounds = _confounds(complete, request.columns.confounds)
    # Sites restrict permutations in any case; they change features only if asked to.
    sites = None
    if request.model.harmonise:
        sites = complete.table[request.columns.site].astype(str).to_numpy()
    scaled = tuple(rows) if request.model.scale else ()
    return feature_kernel(rows, scaled, confounds, sites)


def _confounds(complete: PreparedTable, columns: tuple[str, ...]) -> np.ndarray | None:
    """(row, confound), with their curves."""
    return with_curves(complete.numbers(columns)) if columns else None


def _baselines(
    complete: PreparedTable, confounds: tuple[str, ...]
) -> dict[str, ScanKernel]:
    """Kernels of what knows nothing of the features: confounds, and each control."""
    kernels = {}
    regressed = _confounds(complete, confounds)
    if regressed is not None:
        kernels["confounds"] = _scaled_kernel("confounds", regressed)
    for name in complete.controls:
        columns = complete.table[complete.columns[name]]
        # Rows are complete in their features, but may lack a control.
        filled = columns.fillna(columns.mean()).to_numpy(float)
        kernels[name] = _scaled_kernel(name, filled)
    return kernels


def _measured_confounds(
    complete: PreparedTable, confounds: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Confounds, and controls of one column, by name (row,)."""
    columns = {name: name for name in confounds}
    for name in complete.controls:
        if len(complete.columns[name]) == 1:
            columns[name] = complete.columns[name][0]
    return {
        name: complete.table[column].to_numpy(float) for name, column in columns.items()
    }


def _scaled_kernel(name: str, rows: np.ndarray) -> ScanKernel:
    return feature_kernel({name: rows}, (name,))


def _pairs_or_reason(
    prepared: PreparedTable, request: Request, jobs: Jobs
) -> StudyEvaluation | str:
    """The questions of pairs of visits on the same table, or why they cannot be
    asked."""
    stop_after = request.evaluation.stop_after or STOP_PAIRS_AFTER
    options = replace(request.evaluation, stop_after=stop_after)
    # One visit per participant is no error in this design.
    try:
        return predict_pairs(
            prepared, replace(request, evaluation=options), jobs
        ).evaluation
    except InputError as error:
        return str(error)


def rating_predictions(ratings: Ratings, level: float) -> pd.DataFrame:
    """Every out-of-fold prediction, with its conformal interval."""
    scans = ratings.scans
    intervals = conformal_intervals(
        ratings.predicted, scans.rating, scans.patient, level
    )
    low, high = intervals.T
    return ratings.predictions().assign(low=low, high=high, level=level)
