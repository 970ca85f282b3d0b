"""Columns of a table that may not be features, judged by name and by number."""

from __future__ import annotations

import re

import numpy as np

from cingulum.pipeline.prepared_table import PreparedTable
from cingulum.pipeline.table_request import Request
from cingulum.prediction.leak_audit import Check

DOUBTFUL = re.compile(
    r"(^|_)(fd|motion|movement|age|sex|gender|date|time|order|run|trial|scanner|site)(_|$)",
    re.I,
)
"""Names of columns that are rarely meant as features."""

NEAR = 0.95
"""Correlation with the outcome beyond which a column is named."""


def column_checks(prepared: PreparedTable, request: Request) -> list[Check]:
    """Warnings about features that look like confounds, or like the outcome."""
    return [
        *_confound_checks(prepared, request),
        *_outcome_checks(prepared, request.question.outcome),
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
