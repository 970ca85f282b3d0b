"""A prediction from any table of features: one row per scan, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cingulum.io.files import replaced_files, write_bytes, write_json, write_table
from cingulum.pipeline.prepared_table import PreparedTable, prepare_table
from cingulum.pipeline.table_checks import column_checks
from cingulum.pipeline.table_pairs import (
    pair_predictions,
    predict_pairs,
    weight_table,
)
from cingulum.pipeline.table_ratings import predict_ratings, rating_predictions
from cingulum.pipeline.table_request import Request
from cingulum.pipeline.telling_columns import refuse_copies
from cingulum.prediction.permutation import Jobs
from cingulum.report import plots
from cingulum.report.page import render_prediction
from cingulum.report.results import BOTH_VISITS
from cingulum.report.table_results import (
    LeftOut,
    TableResults,
    TableUse,
    between_results,
    paired_results,
)
from cingulum.versions import software_versions

WRITTEN = (
    "predictions.tsv",
    "predictions_between.tsv",
    "weights.tsv",
    "prediction.png",
    "summary.json",
    "report.html",
)
"""Every file that some run writes: those of an earlier run are removed."""


@dataclass(frozen=True, eq=False)
class _Output:
    """What is written: tables by the name of their file, and a figure as PNG."""

    results: TableResults
    tables: dict[str, pd.DataFrame]
    figure: bytes


def predict(
    path: Path,
    out: Path,
    request: Request,
    *,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> TableResults:
    """Evaluate a prediction from a table, and write summary.json, predictions.tsv,
    prediction.png, report.html and, paired, weights.tsv to `out`.

    paired: which of a participant's two visits had the higher outcome? The first and
        the second visit are taken by session_id or by `order`.
    between: the outcome itself, of participants not used for training.

    jobs: threads

    Raises InputError for columns that are missing, too few participants, and outcomes
    that do not vary.
    """
    prepared = prepare_table(Path(path), request)
    features = prepared.table[prepared.features]
    # Between participants, what was measured once may stand in the rows of all visits.
    people = prepared.table[request.question.group].to_numpy()
    refuse_copies(
        features,
        _scan_names(prepared, request),
        None if request.question.is_paired else people,
    )
    evaluate_design = _paired if request.question.is_paired else _between
    output = evaluate_design(prepared, request, jobs, show_progress)
    # After the audit of the evaluation: these concern the table, not the model.
    results = output.results.with_remarks(
        column_checks(prepared, request), request.ignored_options()
    )
    _write(Path(out), results, output)
    return results


def _scan_names(prepared: PreparedTable, request: Request) -> list[str]:
    """What each row is called in messages."""
    people = prepared.table[request.question.group].astype(str)
    if prepared.order is None:
        return [f"of {person}" for person in people]
    visits = prepared.table[prepared.order].astype(str)
    return [
        f"{visit} of {person}" for person, visit in zip(people, visits, strict=True)
    ]


def _paired(
    prepared: PreparedTable, request: Request, jobs: Jobs, show_progress: bool
) -> _Output:
    question = request.question
    prediction = predict_pairs(prepared, request, jobs, show_progress)
    evaluation = prediction.evaluation
    tables = {
        "predictions": pair_predictions(prepared, question, prediction),
        "weights": weight_table(prepared, evaluation.paired),
    }
    ratings = evaluation.ratings.get(BOTH_VISITS)
    if ratings is not None:
        level = request.evaluation.level
        tables["predictions_between"] = rating_predictions(ratings, level)
    use = _table_use(prepared, request, prediction.left_out)
    return _Output(
        paired_results(evaluation, question.outcome, use),
        tables,
        plots.draw_performance(evaluation.paired),
    )


def _between(
    prepared: PreparedTable, request: Request, jobs: Jobs, show_progress: bool
) -> _Output:
    prediction = predict_ratings(prepared, request, jobs, show_progress)
    ratings = prediction.evaluation.ratings
    use = _table_use(prepared, request, prediction.left_out)
    return _Output(
        between_results(prediction.evaluation, request.question.outcome, use),
        {"predictions": rating_predictions(ratings, request.evaluation.level)},
        plots.draw_predicted_observed(ratings),
    )


def _table_use(
    prepared: PreparedTable, request: Request, left_out: LeftOut
) -> TableUse:
    """left_out: what the evaluation left out of the prepared table."""
    return TableUse(
        columns=prepared.columns,
        left_out={**prepared.left_out, **left_out},
        settings=request.settings(),
        versions=software_versions(),
    )


def _write(out: Path, results: TableResults, output: _Output) -> None:
    # A run of the other design writes other files: none of an earlier one remains.
    with replaced_files(out, WRITTEN) as folder:
        for name, table in output.tables.items():
            write_table(folder / f"{name}.tsv", table)
        # The page prints the same numbers that the file holds.
        summary = results.to_summary()
        write_bytes(folder / "prediction.png", output.figure)
        write_json(folder / "summary.json", summary)
        page = render_prediction(summary, output.figure)
        write_bytes(folder / "report.html", page.encode())
