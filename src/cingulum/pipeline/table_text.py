"""From what people write into tables to names and numbers: missing values as R and
others write them, decimal commas, spaces around names, columns that number the rows.
What is read otherwise than it is written is said."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import as_numbers, is_text

MISSING_NUMBERS = frozenset(
    {"", ".", "-", "?", "na", "n/a", "nan", "null", "none", "missing", "#n/a"}
)
"""Texts that mean, in a column of numbers, that a value is missing. In a column of
labels, NA and None may be names."""

DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+(e[+-]?\d+)?", re.I)
PERCENT = re.compile(r"[+-]?\d+([.,]\d+)?\s*%")

MOSTLY_NUMBERS = 0.5
"""Share of a column's values that are numbers, from which the others are unreadable
numbers, and not words."""


@dataclass(frozen=True, eq=False)
class ReadTable:
    """A table with numbers as numbers; remarks: what was read otherwise than it is
    written, or could not be read."""

    table: pd.DataFrame
    remarks: tuple[str, ...]


def read_columns(table: pd.DataFrame, labels: Sequence[str]) -> ReadTable:
    """Turn columns of numbers that were written as texts into numbers.

    labels: columns that stay texts
    """
    remarks: list[str] = []
    read = {}
    for name in table.columns:
        column = table[name]
        if name not in labels and is_text(column):
            read[name] = _as_numbers(str(name), column, remarks)
    return ReadTable(table.assign(**read) if read else table, tuple(remarks))


def _as_numbers(name: str, column: pd.Series, remarks: list[str]) -> pd.Series:
    """The column as numbers; unchanged where it holds words."""
    written = _Written.of(column)
    if not written.is_mostly_numbers:
        return column
    if written.unreadable.any():
        remarks.append(written.unreadable_words(name, column))
        return column
    if written.commas.any():
        remarks.append(f"{name}: decimal commas were read as points")
    if written.percents.any():
        remarks.append(f"{name}: percent signs were left out")
    return written.numbers


@dataclass(frozen=True, eq=False)
class _Written:
    """A column of texts as numbers, and (row,) which texts have a decimal comma, a
    percent sign, or are no number; known: which are not missing."""

    numbers: pd.Series
    commas: np.ndarray
    percents: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, column: pd.Series) -> _Written:
        texts = column.astype("string").str.strip()
        is_missing = texts.isna() | texts.str.lower().isin(MISSING_NUMBERS)
        texts = texts.where(~is_missing)
        commas, percents = (
            texts.str.fullmatch(pattern).fillna(False).to_numpy(bool)
            for pattern in (DECIMAL_COMMA, PERCENT)
        )
        plain = texts.mask(percents, texts.str.rstrip("%").str.strip())
        with_points = plain.str.replace(",", ".", regex=False)
        plain = plain.mask(commas | percents, with_points)
        numbers = as_numbers(plain)
        return cls(numbers, commas, percents, ~is_missing.to_numpy(bool))

    @property
    def unreadable(self) -> np.ndarray:
        return self.known & self.numbers.isna().to_numpy()

    @property
    def is_mostly_numbers(self) -> bool:
        readable = int((self.known & ~self.unreadable).sum())
        return readable > MOSTLY_NUMBERS * self.known.sum()

    def unreadable_words(self, name: str, column: pd.Series) -> str:
        row = int(np.flatnonzero(self.unreadable)[0])
        return (
            f"{name} is left out: {int(self.unreadable.sum())} of its values are no "
            f"numbers, the first {column.iloc[row]!r} in row {row + 2}. Repair them, "
            "or leave the cells empty"
        )


def clean_names(path: Path, column: pd.Series) -> pd.Series:
    """Names without spaces at their ends.

    Raises InputError for names that differ only by case or leading zeros: they may be
    one person or two.
    """
    names = column.str.strip()
    alike: dict[str, set[str]] = defaultdict(set)
    for name in names.dropna().unique():
        alike[_loose(name)].add(name)
    for spellings in alike.values():
        if len(spellings) > 1:
            shown = " and ".join(repr(name) for name in sorted(spellings)[:3])
            raise InputError(
                f"{path}: {column.name} has {shown}, which differ by case or leading "
                "zeros only. Write one name for one person, and names that differ "
                "otherwise for two."
            )
    return names


def _loose(name: str) -> str:
    """A name without what people write in several ways."""
    without_prefix = re.sub(r"^sub-", "", name.casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", without_prefix)


def row_numbers(table: pd.DataFrame) -> list[str]:
    """Columns that number the rows, as pandas and R write them: 0, 1, 2, … in the order
    of the file."""
    return [str(name) for name in table.columns if _counts_rows(table[name])]


def _counts_rows(column: pd.Series) -> bool:
    if not pd.api.types.is_numeric_dtype(column) or len(column) < 3:
        return False
    values = column.to_numpy(float)
    return bool(np.isfinite(values).all() and (np.diff(values) == 1).all())
