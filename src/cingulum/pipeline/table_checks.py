"""Columns of a table that may not be features, judged by name and by number."""

from __future__ import annotations

import re

import numpy as np

from cingulum.io.files import is_text
from cingulum.pipeline.prepared_table import BIDS_LABELS, PreparedTable
from cingulum.pipeline.table_pairs import visit_pairs
from cingulum.pipeline.table_request import Question, Request
from cingulum.pipeline.telling_columns import (
    FAR,
    NEARLY_ALL,
    SITE_P,
    TELLS_THE_MEAN,
    Telling,
    constant_columns,
    deciding_columns,
    far_values,
    site_columns,
)
from cingulum.prediction.leak_audit import Check

DOUBTFUL = re.compile(
    r"(^|_)(fd|motion|movement|age|sex|gender|date|time|order|run|trial|scanner|site)(_|$)",
    re.I,
)
"""Names of columns that are rarely meant as features."""

NEAR = 0.95
"""Correlation with the outcome beyond which a column is named."""


def column_checks(prepared: PreparedTable, request: Request) -> list[Check]:
    """Warnings about features that look like confounds, like the outcome or like the
    answer, about values far from all others, and about what could not be read."""
    return [
        *_reading_checks(prepared),
        *_confound_checks(prepared, request),
        *_outcome_checks(prepared, request.question.outcome),
        *_answer_checks(prepared, request.question),
        *_distance_checks(prepared, request.question),
        *_site_checks(prepared, request),
    ]


def _reading_checks(prepared: PreparedTable) -> list[Check]:
    return [
        Check("how the table is read", float("nan"), "as written", "warn", f"{words}.")
        for words in prepared.remarks
    ]


def _answer_checks(prepared: PreparedTable, question: Question) -> list[Check]:
    """Columns that alone decide nearly everybody: within persons by the sign of their
    change, between them by their mean."""
    table = prepared.table
    values = table[prepared.features]
    outcome = table[question.outcome].to_numpy(float)
    if not question.is_paired:
        people = table[question.group].to_numpy()
        return [
            Check(
                "a column that tells the outcome",
                telling.share,
                f"below {TELLS_THE_MEAN}",
                "fail",
                f"{telling.column} is the same at all visits of a person and "
                f"correlates {telling.share:.2f} with their mean {question.outcome}: "
                "is it their mean, or the outcome at one visit?",
            )
            for telling in constant_columns(values, outcome, people)
        ]
    pairs = visit_pairs(prepared, question)
    first, second = pairs.rows.T
    rises = pairs.second_is_higher
    return [
        Check(
            "a column that tells the answer",
            telling.share,
            f"below {NEARLY_ALL:.0%} of participants",
            "fail" if telling.is_indicator else "warn",
            _deciding_words(telling, question.outcome),
        )
        for telling in deciding_columns(values, first, second, rises)
    ]


def _deciding_words(telling: Telling, outcome: str) -> str:
    words = (
        f"{telling.column} alone tells at which visit {outcome} was higher, in "
        f"{100 * telling.share:.0f} % of participants"
    )
    if telling.is_indicator:
        return f"{words}, and takes few values: it is the answer in other words."
    return f"{words}. A measurement can do that; a score of the outcome can, too."


def _distance_checks(prepared: PreparedTable, question: Question) -> list[Check]:
    people = prepared.table[question.group].astype(str)
    return [
        Check(
            "a value far from all others",
            far.distance,
            f"below {FAR:g} robust SD",
            "warn",
            f"{far.column} is {far.value:g} in a row of {people.iloc[far.row]}, "
            f"{far.distance:.3g} robust standard deviations from the median: one "
            "person then decides scales and slopes. If it is a code for missing, "
            "leave the cell empty.",
        )
        for far in far_values(prepared.table[prepared.features])
    ]


def _site_checks(prepared: PreparedTable, request: Request) -> list[Check]:
    """Between participants, a site that was not named passes for knowledge."""
    question = request.question
    if question.is_paired or request.columns.site is not None:
        return []
    table = prepared.table
    outcome = table[question.outcome].to_numpy(float)
    people = table[question.group].to_numpy()
    roles = {question.group, question.order, *BIDS_LABELS}
    words = [column for column in table if is_text(table[column])]
    candidates = [str(column) for column in words if column not in roles]
    return [
        Check(
            "a column that looks like a site",
            p,
            f"p above {SITE_P}",
            "warn",
            f"{column} looks like a site, and {question.outcome} differs between its "
            f"values (F test, p = {p:.2g}). What is predicted may be the site: say "
            f"--site {column}.",
        )
        for column, p in site_columns(table, candidates, outcome, people)
    ]


def _confound_checks(prepared: PreparedTable, request: Request) -> list[Check]:
    # Columns that were chosen by name are meant.
    if request.columns.features or request.columns.modalities:
        return []
    doubtful = [column for column in prepared.features if DOUBTFUL.search(column)]
    if not doubtful:
        return []
    words = (
        f"Taken as features: {', '.join(doubtful)}. If they are not, name them in "
        "--controls or --confounds, or choose --features."
    )
    number = float(len(doubtful))
    return [Check("columns that may be confounds", number, "none", "warn", words)]


def _outcome_checks(prepared: PreparedTable, outcome: str) -> list[Check]:
    checks = []
    observed = prepared.table[outcome].to_numpy(float)
    for column in prepared.features:
        r = _known_correlation(prepared.table[column].to_numpy(float), observed)
        # It is not a number where the outcome does not vary.
        if abs(r) <= NEAR or np.isnan(r):
            continue
        words = (
            f"{column} alone correlates {r:.2f} with {outcome}: is it the outcome in "
            "other words?"
        )
        expected = f"below {NEAR}"
        checks.append(Check("a column like the outcome", r, expected, "warn", words))
    return checks


def _known_correlation(values: np.ndarray, observed: np.ndarray) -> float:
    """Correlation over rows with a value; 0 where too few of them differ to tell."""
    known = np.isfinite(values)
    # Three points often lie near a line by chance.
    if known.sum() <= 3 or np.ptp(values[known]) == 0:
        return 0.0
    return float(np.corrcoef(values[known], observed[known])[0, 1])
