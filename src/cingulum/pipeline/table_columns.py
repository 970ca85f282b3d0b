"""Which columns of a table are features, and of which modality."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features.registry import quality_feature_names
from cingulum.io.files import read_json
from cingulum.pipeline.table_request import Request
from cingulum.report.table_results import LeftOut

LARGEST = 1e100
"""Beyond it, products of features leave the range of numbers."""

MOSTLY_MISSING = 0.5
"""Share of rows without a value beyond which a column is left out."""

ALWAYS_TEXT = ("failed", "flags")
"""Columns of `cingulum features` that are words by design: nobody misses them."""

NAMES_SHOWN = 12
"""Columns that an error lists when it does not know the one that was named."""


@dataclass(frozen=True, eq=False)
class ColumnSource:
    """A table and the file it was read from, which errors name."""

    path: Path
    table: pd.DataFrame

    def unknown_column(self, column: str) -> InputError:
        """The error for a column that is not there, with the nearest names."""
        names = list(self.table.columns.map(str))
        near = difflib.get_close_matches(column, names, 3, 0.5)
        hint = f"It has {', '.join(names[:NAMES_SHOWN])} …"
        if near:
            hint = f"Did you mean {' or '.join(near)}?"
        return InputError(f"{self.path}: has no column {column!r}. {hint}")

    def matching(self, patterns: Sequence[str], candidates: Sequence[str]) -> list[str]:
        """Candidates that match any of the patterns, in their order. Raises InputError
        for a pattern that matches none."""
        # Keys of a dictionary: no column twice, and in the order of the patterns.
        matches: dict[str, None] = {}
        for pattern in patterns:
            hits = _matches(candidates, pattern)
            if not hits:
                raise self._no_match(pattern)
            matches |= dict.fromkeys(hits)
        return list(matches)

    def _no_match(self, pattern: str) -> InputError:
        if pattern not in self.table:
            return self.unknown_column(pattern)
        reason = _why_no_feature(self.table[pattern])
        return InputError(f"{self.path}: {pattern} cannot be a feature: {reason}.")


def _matches(names: Sequence[str], pattern: str) -> list[str]:
    """Names that match a pattern, case-sensitive on every platform."""
    # A name may have brackets, which mean something else in a pattern.
    if pattern in names:
        return [pattern]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]


def _why_no_feature(column: pd.Series) -> str:
    if not pd.api.types.is_numeric_dtype(column):
        return "it is not numeric"
    if _is_mostly_missing(column):
        return "it is missing in most rows"
    if column.nunique() < 2:
        return "it does not vary"
    return "it is the outcome, a confound or the name of something"


def _is_mostly_missing(column: pd.Series) -> bool:
    return bool(column.isna().mean() > MOSTLY_MISSING)


@dataclass(frozen=True, eq=False)
class ColumnChoice:
    """columns: of features, by modality; controls: modalities that are not fused;
    left_out: columns that are no features, by reason."""

    columns: dict[str, list[str]]
    controls: tuple[str, ...]
    left_out: LeftOut


def without_empty(left_out: LeftOut) -> LeftOut:
    """Only the reasons that apply to something."""
    return {reason: what for reason, what in left_out.items() if what}


def choose_columns(
    source: ColumnSource, request: Request, reserved: set[str | None], rank: np.ndarray
) -> ColumnChoice:
    """Features by modality.

    reserved: columns with another role; rank: which visit of its participant a row is

    Raises InputError for columns named as features that are not, that hold infinite
    values, or that give the outcome away.
    """
    table = source.table
    numeric, text = _candidates(source, request.columns.features, reserved)
    _check_range(source, numeric)
    answers = answer_columns(table, numeric, request.question.outcome, rank)
    _check_answers(source, answers, request)
    usable, uninformative = _informative(table, _without(numeric, answers))
    columns, controls = _modalities(source, request, usable)
    reasons = [f"{column} ({reason})" for column, reason in answers.items()]
    left_out: LeftOut = {
        "columns that are not numbers": text,
        "columns that give the answer away": reasons,
        **uninformative,
    }
    return ColumnChoice(columns, controls, without_empty(left_out))


def _candidates(
    source: ColumnSource, patterns: Sequence[str], reserved: set[str | None]
) -> tuple[list[str], list[str]]:
    """Numeric columns that may be features, and columns that are no numbers."""
    table = source.table
    free = _without(table.columns, {*reserved, *ALWAYS_TEXT})
    numeric = [c for c in free if pd.api.types.is_numeric_dtype(table[c])]
    if patterns:
        # Only what was asked for matters: other columns are not reported.
        return source.matching(patterns, numeric), []
    return numeric, _without(free, numeric)


def _informative(
    table: pd.DataFrame, columns: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Columns that vary and are mostly there, and the others, by reason."""
    empty = []
    constant = []
    informative = []
    for column in columns:
        if _is_mostly_missing(table[column]):
            empty.append(column)
        elif table[column].nunique() < 2:
            constant.append(column)
        else:
            informative.append(column)
    return informative, {
        "columns missing in most rows": empty,
        "constant columns": constant,
    }


def _without(columns: Iterable[str], others: Container[str | None]) -> list[str]:
    return [column for column in columns if column not in others]


def _check_range(source: ColumnSource, columns: Sequence[str]) -> None:
    too_large = []
    for column in columns:
        values = source.table[column].to_numpy(float)
        if (np.abs(values) > LARGEST).any():
            too_large.append(column)
    if too_large:
        raise InputError(
            f"{source.path}: {', '.join(too_large[:5])}: values that are infinite or "
            f"beyond {LARGEST:g}. Repair or leave those columns out."
        )


def answer_columns(
    table: pd.DataFrame, columns: Sequence[str], outcome: str, rank: np.ndarray
) -> dict[str, str]:
    """Columns that give the answer away, and how: they repeat the outcome, or number
    the visits."""
    # A feature would not repeat the outcome to nine digits: such a column is the
    # outcome in another unit, or was computed from it.
    answers = {}
    observed = table[outcome].to_numpy(float)
    for column in columns:
        values = table[column].to_numpy(float)
        known = np.isfinite(values)
        # Any two points lie on a line.
        if known.sum() < 3 or np.ptp(values[known]) == 0:
            continue
        if _is_linear(values[known], observed[known]):
            answers[column] = "repeats the outcome"
        elif _is_linear(values[known], rank[known]):
            answers[column] = "numbers the visits"
    return answers


def _is_linear(values: np.ndarray, reference: np.ndarray) -> bool:
    """Whether values are the reference in another unit."""
    if np.ptp(reference) == 0:
        return False
    return bool(abs(np.corrcoef(values, reference)[0, 1]) > 1 - 1e-9)


def _check_answers(
    source: ColumnSource, answers: dict[str, str], request: Request
) -> None:
    """Left out silently only where nobody named the column as a feature."""
    named = set(request.columns.predictors())
    requested = [column for column in answers if column in named]
    if requested:
        raise InputError(
            f"{source.path}: {', '.join(requested)}: {answers[requested[0]]}. That is "
            "the answer, not a feature."
        )


def _modalities(
    source: ColumnSource, request: Request, usable: Sequence[str]
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Columns by modality, without empty ones; and the modalities that are controls."""
    roles = request.columns
    controls: tuple[str, ...] = ()
    if roles.modalities:
        columns = _requested(source, roles.modalities, usable)
    else:
        columns = _described(source.path, usable)
        controls = _quality_controls(columns)
    for name in roles.controls:
        # A control is a modality, or else a column, which becomes one.
        if name not in columns:
            columns = _split_control(columns, name, source.matching((name,), usable))
    # A modality may have lost its columns to a control.
    columns = {name: members for name, members in columns.items() if members}
    return columns, (*controls, *roles.controls)


def _requested(
    source: ColumnSource,
    modalities: Mapping[str, Sequence[str]],
    usable: Sequence[str],
) -> dict[str, list[str]]:
    """Columns of the modalities that the user named."""
    columns = {}
    for name, patterns in modalities.items():
        columns[name] = source.matching(patterns, usable)
    return columns


def _quality_controls(columns: dict[str, list[str]]) -> tuple[str, ...]:
    """Modalities that measure quality. A quality table alone is what is to be predicted
    from."""
    # Nothing would be left.
    if len(columns) == 1:
        return ()
    return tuple(name for name in quality_feature_names() if name in columns)


def _split_control(
    columns: dict[str, list[str]], control: str, members: list[str]
) -> dict[str, list[str]]:
    """Columns with a control of its own, whose members leave the other modalities."""
    others = {name: _without(group, members) for name, group in columns.items()}
    return {**others, control: members}


def _described(path: Path, columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns grouped by the feature they belong to, as `cingulum features` describes
    them in the table's .json; else all together."""
    # `cingulum features` writes a BIDS sidecar beside its table.
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        # A table from elsewhere: all its columns are one modality.
        return _ungrouped(columns)
    descriptions = read_json(sidecar)
    groups: dict[str, list[str]] = {}
    for column in columns:
        feature = _feature_of(descriptions.get(column))
        groups.setdefault(feature, []).append(column)
    if set(groups) == {""}:
        return _ungrouped(columns)
    return {name or "other": members for name, members in groups.items()}


def _ungrouped(columns: Sequence[str]) -> dict[str, list[str]]:
    return {"features": list(columns)}


def _feature_of(description: object) -> str:
    """The feature that a column's description names; empty where it names none."""
    if not isinstance(description, dict):
        return ""
    method = description.get("Method")
    if not isinstance(method, dict) or "Feature" not in method:
        return ""
    return str(method["Feature"])
