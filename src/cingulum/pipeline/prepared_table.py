"""Any table of features, checked and ready for a prediction: who is who, which visit is
which, and which columns are features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import as_numbers, read_table
from cingulum.pipeline.bids_columns import with_bids_columns
from cingulum.pipeline.table_columns import (
    ColumnChoice,
    ColumnSource,
    choose_columns,
    without_empty,
)
from cingulum.pipeline.table_request import Question, Request
from cingulum.pipeline.table_text import (
    ReadTable,
    clean_names,
    read_columns,
    row_numbers,
)
from cingulum.pipeline.visit_order import SortKey, sort_keys
from cingulum.report.table_results import LeftOut

RANK = "_rank"
"""Column that a prepared table gets: which visit of its participant a row is, from
0."""

STATE = "_state"
"""Column that a prepared table gets: which state a row was measured in, from 0."""

BIDS_LABELS = ("participant_id", "session_id")
"""Columns of a BIDS table that name a row: never features."""

MISSING = ("", "n/a", "NaN", "nan")
"""Texts that mean that a value is missing."""


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """A table ready for a prediction.

    table: rows with an outcome, and their RANK and STATE
    columns: of features, by modality; controls: modalities that are not fused
    order: the column that orders visits; None: the order of the rows
    left_out: rows and columns that were dropped, by reason
    remarks: what was read otherwise than it is written, or could not be read
    """

    table: pd.DataFrame
    columns: Mapping[str, list[str]]
    controls: tuple[str, ...]
    order: str | None
    left_out: LeftOut
    remarks: tuple[str, ...] = ()

    @property
    def feature_modalities(self) -> dict[str, list[str]]:
        """Columns by modality, without controls."""
        return {
            modality: columns
            for modality, columns in self.columns.items()
            if modality not in self.controls
        }

    @property
    def features(self) -> list[str]:
        """Columns of all modalities that are not controls."""
        features: list[str] = []
        for columns in self.feature_modalities.values():
            features += columns
        return features

    def numbers(self, columns: Sequence[str]) -> np.ndarray:
        """Values (row, column)."""
        return self.table[list(columns)].to_numpy(float)


def prepare_table(path: Path, request: Request) -> PreparedTable:
    """Read and check a table of features.

    Raises InputError for columns that are missing, outcomes and features that are not
    finite numbers, repeated visits, and where no feature is left.
    """
    read = _read(path, request)
    source = ColumnSource(path, read.table)
    _check_names(source, request)
    question = request.question
    order = _order_column(question, source.table)
    numbered = row_numbers(source.table)
    table, dropped = _complete_rows(source, request, order)
    _check_rows(path, table, question, order)
    table = _with_numeric_confounds(path, table, request.columns.confounds)
    visits = _visits(path, table, question.group, order)
    reserved = _reserved(request, order)
    # A column that was asked for by name is meant.
    numbered = [c for c in numbered if c not in {*reserved, *request.columns.features}]
    choice = choose_columns(
        ColumnSource(path, table), request, {*reserved, *numbered}, visits.rank
    )
    of_rows: LeftOut = {"columns that number the rows": numbered}
    left_out = without_empty({**dropped, **of_rows, **choice.left_out})
    _check_features(path, choice, left_out)
    # Added last, so that they are never taken for features.
    table = table.assign(**{RANK: visits.rank, STATE: visits.state})
    return PreparedTable(
        table, choice.columns, choice.controls, order, left_out, read.remarks
    )


def _read(path: Path, request: Request) -> ReadTable:
    """The table. Columns that name people, sites and visits stay text, so that 001 and
    1E5 remain what they are."""
    question = request.question
    roles = request.columns
    named = {question.group, question.order, roles.site, roles.family, *BIDS_LABELS}
    labels = [label for label in named if label]
    separator = "," if path.suffix == ".csv" else "\t"
    _check_separator(path, separator)
    table = read_table(
        path,
        sep=separator,
        dtype=dict.fromkeys(labels, str),
        # pandas would also take NA, NULL and None for missing: they can be labels.
        keep_default_na=False,
        na_values=[*MISSING],
    )
    for label in labels:
        if label in table:
            table[label] = _clean_label(path, table[label], question.group)
    if question.bids is not None:
        columns = [question.outcome, *filter(None, named), *roles.confounds]
        table = with_bids_columns(table, question.bids, columns)
    return read_columns(table, labels)


def _clean_label(path: Path, column: pd.Series, group: str) -> pd.Series:
    # Of sites and visits, 1 and 01 may be two.
    return clean_names(path, column) if column.name == group else column.str.strip()


def _check_separator(path: Path, separator: str) -> None:
    """A file with another separator reads as a single column."""
    header = read_table(path, sep=separator, dtype=str, nrows=1).columns
    if len(header) != 1:
        return
    text = str(header[0])
    if any(mark in text for mark in (";", ",", "\t")):
        expected = "commas" if separator == "," else "tabs"
        raise InputError(
            f"{path}: reads as one column, {text!r}. Expected {expected} between "
            "columns, and points in numbers."
        )


def _check_names(source: ColumnSource, request: Request) -> None:
    question = request.question
    named = (
        question.outcome,
        question.group,
        question.order,
        request.columns.site,
        request.columns.family,
        *request.columns.confounds,
    )
    for column in named:
        if column is not None and column not in source.table:
            raise source.unknown_column(column)


def _order_column(question: Question, table: pd.DataFrame) -> str | None:
    if question.order:
        return question.order
    # `cingulum features` writes the column also for datasets without sessions.
    if "session_id" in table and table["session_id"].notna().any():
        return "session_id"
    return None


def _finite_outcome(source: ColumnSource, column: str) -> pd.Series:
    """The outcome as numbers; missing values stay missing."""
    written = source.table[column]
    outcome = as_numbers(written)
    # What is written but is no number must not pass for a missing value.
    is_text = outcome.isna() & written.notna()
    unusable = is_text | np.isinf(outcome)
    if unusable.any():
        row = unusable.idxmax()
        # Lines of the file: from 1, and after the header.
        raise InputError(
            f"{source.path}: the outcome {column} must be finite numbers; row "
            f"{row + 2} has {written[row]!r}. Code it as numbers first."
        )
    return outcome


def _complete_rows(
    source: ColumnSource, request: Request, order: str | None
) -> tuple[pd.DataFrame, LeftOut]:
    """Rows that have what every row needs, and how many have not, by reason."""
    outcome = _finite_outcome(source, request.question.outcome)
    incomplete = _incomplete_rows(source.table, outcome, request, order)
    kept = ~np.any(list(incomplete.values()), axis=0)
    table = source.table.assign(**{request.question.outcome: outcome})
    dropped = {reason: int(rows.sum()) for reason, rows in incomplete.items()}
    return table[kept].reset_index(drop=True), dropped


def _incomplete_rows(
    table: pd.DataFrame, outcome: pd.Series, request: Request, order: str | None
) -> dict[str, pd.Series]:
    """Which rows lack what every row needs, by reason."""
    group = request.question.group
    incomplete = {
        "rows without outcome": outcome.isna(),
        f"rows without {group}": table[group].isna(),
    }
    for column in (order, request.columns.site, request.columns.family):
        if column:
            incomplete[f"rows without {column}"] = table[column].isna()
    return incomplete


def _check_rows(
    path: Path, table: pd.DataFrame, question: Question, order: str | None
) -> None:
    """There are rows, and each is the only one of its visit."""
    group = question.group
    if table.empty:
        raise InputError(f"{path}: no row has both {question.outcome} and {group}.")
    if not order:
        return
    # A participant's repeated runs would be taken for visits.
    repeated = table[table.duplicated([group, order])]
    if len(repeated):
        visit = repeated.iloc[0]
        raise InputError(
            f"{path}: {visit[group]} has {order} {visit[order]!r} more than once. A "
            "row is a scan: average or leave out repeated runs first."
        )


def _with_numeric_confounds(
    path: Path, table: pd.DataFrame, confounds: Sequence[str]
) -> pd.DataFrame:
    for name in confounds:
        table = table.assign(**{name: _numeric_confound(path, table[name])})
    return table


def _numeric_confound(path: Path, column: pd.Series) -> pd.Series:
    """A confound as numbers; two groups become 0 and 1."""
    numbers = as_numbers(column)
    groups = column.dropna()
    # Such as sex or scanner. Which group is 0 makes no difference to a regression.
    if _has_text(column, numbers) and groups.nunique() == 2:
        is_first = column == groups.iloc[0]
        numbers = is_first.astype(float).where(column.notna())
    if _has_text(column, numbers) or np.isinf(numbers).any():
        raise InputError(
            f"{path}: the confound {column.name} must be finite numbers, or two groups."
        )
    return numbers


def _has_text(column: pd.Series, numbers: pd.Series) -> bool:
    """Whether values were written that are no numbers."""
    return bool((numbers.isna() & column.notna()).any())


def _check_features(path: Path, choice: ColumnChoice, left_out: LeftOut) -> None:
    if not set(choice.columns) - set(choice.controls):
        raise InputError(
            f"{path}: no feature column is left. Features are numeric columns that "
            f"vary; left out: {left_out}."
        )


def _reserved(request: Request, order: str | None) -> set[str | None]:
    """Columns that have a role other than feature."""
    return {
        request.question.outcome,
        request.question.group,
        request.columns.site,
        request.columns.family,
        order,
        *BIDS_LABELS,
        *request.columns.confounds,
    }


@dataclass(frozen=True, eq=False)
class _Visits:
    """Of each row: which visit of its participant it is, and in which state."""

    rank: np.ndarray
    state: np.ndarray


def _visits(path: Path, table: pd.DataFrame, group: str, order: str | None) -> _Visits:
    """Visits in the order of a column, or else of the rows."""
    visits = table.groupby(group, sort=False)
    if order is None:
        rank = visits.cumcount().to_numpy()
        return _Visits(rank, rank)
    keys = sort_keys(table[order], path)
    rank = np.zeros(len(table), int)
    for rows in visits.indices.values():
        in_order = sorted(rows, key=lambda row: keys[row])
        rank[in_order] = np.arange(len(rows))
    return _Visits(rank, _states(keys, rank))


def _states(keys: Sequence[SortKey], rank: np.ndarray) -> np.ndarray:
    """The label of the visit where participants share labels, so that a lost scan moves
    no other into its place; where nearly every scan has a label of its own (dates), the
    rank."""
    labels = sorted(set(keys))
    # Twice as many, so that a few odd labels do not count as dates; four for tables
    # with one visit per participant.
    most_visits = rank.max() + 1
    if len(labels) > max(4, 2 * most_visits):
        return rank
    positions = dict(zip(labels, range(len(labels)), strict=True))
    return np.array([positions[key] for key in keys])
