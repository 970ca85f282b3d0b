"""Columns that by themselves tell nearly everybody's answer, values far from all
others, copies of scans, and sites that nobody named: what a model would use without a
word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import f_oneway

from cingulum.errors import InputError

NEARLY_ALL = 0.95
"""Share of participants that a column alone must decide to be named."""

FEWEST_DECIDED = 8
"""Participants below which a column decides all of them by chance too often."""

TELLS_THE_MEAN = 0.9
"""Correlation between persons' constants and their mean outcomes that is named."""

FAR = 100.0
"""Robust standard deviations from the median beyond which a value is named."""

SAME = 1e-6
"""Difference, in standard deviations of a column, below which two values are one."""

SHARE_OF_A_COPY = 0.9
"""Share of columns in which two scans must be the same to be copies."""

FEWEST_COMPARED = 3
"""Columns with a value of its own in most rows: ordinal scales coincide by chance."""

COLUMNS_COMPARED = 400
"""Of more columns, so many evenly spaced ones are compared."""

SITE_P = 0.01


@dataclass(frozen=True)
class Telling:
    """A column that tells the answer.

    share: of participants that it decides, or its correlation with their means
    is_indicator: whether it takes only two or three values, as a condition does
    """

    column: str
    share: float
    is_indicator: bool


def deciding_columns(
    values: pd.DataFrame, first: np.ndarray, second: np.ndarray, rises: np.ndarray
) -> Iterator[Telling]:
    """Columns whose change between two visits has the same sign as the outcome's, or
    the opposite one, in nearly everybody.

    first, second: rows of each participant's visits; rises: whether the outcome does
    """
    for column in values:
        numbers = values[column].to_numpy(float)
        change = numbers[second] - numbers[first]
        known = np.isfinite(change)
        if known.sum() < FEWEST_DECIDED:
            continue
        agrees = np.where(rises, change > 0, change < 0)[known]
        undecided = (change == 0)[known]
        share = float((agrees + 0.5 * undecided).mean())
        share = max(share, 1 - share)
        if share >= NEARLY_ALL:
            sizes = np.unique(np.abs(change[known]))
            yield Telling(str(column), share, len(sizes) <= 2)


def constant_columns(
    values: pd.DataFrame, outcome: np.ndarray, people: np.ndarray
) -> Iterator[Telling]:
    """Columns that are the same at all visits of a person and follow the persons' mean
    outcomes: the mean itself, or the outcome at one visit."""
    groups = pd.Series(outcome).groupby(people)
    if groups.size().max() < 2:
        return
    means = groups.mean()
    for column in values:
        by_person = pd.Series(values[column].to_numpy(float)).groupby(people)
        if by_person.nunique().max() > 1:
            continue
        constants = by_person.first()
        known = constants.notna() & means.notna()
        if known.sum() < FEWEST_DECIDED or constants[known].nunique() < 2:
            continue
        r = float(np.corrcoef(constants[known], means[known])[0, 1])
        if abs(r) > TELLS_THE_MEAN:
            yield Telling(str(column), r, False)


@dataclass(frozen=True)
class FarValue:
    """A value far from all others of its column. distance: robust SDs from the
    median."""

    column: str
    row: int
    value: float
    distance: float


def far_values(values: pd.DataFrame) -> Iterator[FarValue]:
    """The value farthest from the median of each column that has one too far: a code
    for missing (-999), another unit, a slip."""
    for column in values:
        numbers = values[column].to_numpy(float)
        known = np.isfinite(numbers)
        if known.sum() < FEWEST_DECIDED:
            continue
        middle = np.median(numbers[known])
        # 1.4826 makes it a standard deviation where values are normal.
        scale = 1.4826 * np.median(np.abs(numbers[known] - middle))
        if scale == 0:
            continue
        distance = np.where(known, np.abs(numbers - middle) / scale, 0.0)
        row = int(distance.argmax())
        if distance[row] > FAR:
            far = float(distance[row])
            yield FarValue(str(column), row, float(numbers[row]), far)


def refuse_copies(
    values: pd.DataFrame, names: Sequence[str], people: np.ndarray | None = None
) -> None:
    """Raises InputError for two scans that are the same but for rounding, in nearly all
    of their columns: one is a copy of the other.

    names: of the scans, for the message
    people (scan,): whose they are, where scans of one person may be the same (what was
        measured once, in the rows of all visits)
    """
    numbers = _distinctive(values)
    if numbers.shape[1] < FEWEST_COMPARED:
        return
    for i in range(len(numbers) - 1):
        # Unknown values are equal to nothing.
        same = np.abs(numbers[i + 1 :] - numbers[i]) < SAME
        shares = same.mean(1)
        if people is not None:
            shares = np.where(people[i + 1 :] == people[i], 0.0, shares)
        twin = int(shares.argmax())
        if shares[twin] >= SHARE_OF_A_COPY:
            raise InputError(
                f"The scans {names[i]} and {names[i + 1 + twin]} are the same in "
                f"{100 * shares[twin]:.0f} % of their columns: one is a copy of the "
                "other, and could be tested on itself. Leave one out."
            )


def _distinctive(values: pd.DataFrame) -> np.ndarray:
    """Columns in which most rows have a value of their own, in standard deviations."""
    numbers = values.to_numpy(float)
    # Every scan is compared with every other: of thousands, in fewer columns.
    compared = max(FEWEST_COMPARED, min(COLUMNS_COMPARED, 10**9 // len(numbers) ** 2))
    step = max(1, numbers.shape[1] // compared)
    numbers = numbers[:, ::step]
    kept = []
    for column in numbers.T:
        known = column[np.isfinite(column)]
        # Scans that are twice there leave half of the values.
        if len(known) < 3 or len(np.unique(known)) <= len(known) / 3:
            continue
        spread = known.std()
        if spread > 0:
            kept.append(column / spread)
    if not kept:
        return np.zeros((len(numbers), 0))
    return np.stack(kept, 1)


def site_columns(
    table: pd.DataFrame, columns: Sequence[str], outcome: np.ndarray, people: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Columns of words that look like sites, with the p of an F test: few values, one a
    person, and an outcome that differs between them."""
    persons = pd.Series(people)
    for column in columns:
        labels = table[column].astype("string")
        by_person = labels.groupby(people)
        number = labels.nunique()
        if by_person.nunique().max() > 1 or not 2 <= number <= persons.nunique() / 3:
            continue
        means = pd.Series(outcome).groupby(people).mean()
        site_of = by_person.first()
        groups = [means[site_of == site].dropna() for site in site_of.dropna().unique()]
        groups = [group for group in groups if len(group) > 1]
        if len(groups) > 1:
            p = float(f_oneway(*groups).pvalue)
            if p < SITE_P:
                yield column, p
