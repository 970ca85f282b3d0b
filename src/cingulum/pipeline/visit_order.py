"""The order of visits from their labels: numbers by size, dates by the calendar, words
of studies (baseline, post, follow-up) by their place in time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import as_numbers, is_whole_number

SortKey = tuple[tuple[int, float, str], ...]
"""What visits are sorted by: first their place in time where it is known, then numbers
by size and words by alphabet."""

STAGES = (
    (r"screening|scr", -1e6),
    (r"pre|before|baseline|bl|first|initial|low|off", 0.0),
    (r"during|mid|middle|interim", 5e5),
    (r"post|after|second|end|final|high|on", 1e6),
    (r"third", 2e6),
    (r"follow[ _-]?up|fu", 3e6),
)
"""Words with which labels begin, and their place in time, in days; times after the
beginning, such as `3 months`, lie between the first two that are not negative."""

UNITS = {
    "hour": 1 / 24,
    "h": 1 / 24,
    "day": 1.0,
    "d": 1.0,
    "week": 7.0,
    "wk": 7.0,
    "w": 7.0,
    "month": 30.4,
    "mo": 30.4,
    "year": 365.25,
    "y": 365.25,
}
"""Days in the units that labels have."""

_UNIT = r"(hour|h|day|d|week|wk|w|month|mo|year|y)s?"
NUMBER_UNIT = re.compile(rf"([+-]?\d+(?:\.\d+)?)[ _-]*{_UNIT}")
UNIT_NUMBER = re.compile(rf"{_UNIT}[ _]*([+-]?\d+(?:\.\d+)?)")
ISO_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
WRITTEN_DATE = re.compile(r"(\d{1,2})[./-](\d{1,2})[./-](\d{4})")


def sort_keys(labels: pd.Series, path: Path | None = None) -> list[SortKey]:
    """A key for each label. Raises InputError for dates of which nothing says whether
    the day or the month comes first."""
    # Numbers with signs, points or exponents are compared as such, if all are numbers.
    numbers = as_numbers(labels)
    if numbers.notna().all():
        return [((0, float(number), ""),) for number in numbers]
    texts = [_plain(label) for label in labels]
    month_first = _month_comes_first(texts, path)
    negative = _negative_words(texts)
    return [_key(text, month_first, negative) for text in texts]


def natural_key(label: object) -> SortKey:
    """The key of a label alone: ses-2 before ses-10, and pre before post."""
    text = _plain(label)
    return _key(text, _month_comes_first([text], None), frozenset())


def _plain(label: object) -> str:
    # Labels come with and without the prefix of BIDS.
    return re.sub(r"^ses-", "", str(label)).strip().lower()


def _key(text: str, month_first: bool, negative: frozenset[str]) -> SortKey:
    day = _calendar_day(text, month_first)
    if day is not None:
        return ((0, float(day), ""),)
    days = _days(text)
    if days is not None:
        return ((0, days, ""),)
    for words, place in STAGES:
        # A whole word, or the beginning of one as in prescan, with a number perhaps.
        match = re.match(rf"({words})", text)
        if match and _ends_a_word(match.group(1), text[match.end() :]):
            return ((0, place, ""), *_pieces(text[match.end() :]))
    head, _, tail = text.rpartition("-")
    if head in negative and is_whole_number(tail):
        return (*_pieces(head), (0, -float(tail), ""))
    return _pieces(text)


def _ends_a_word(word: str, rest: str) -> bool:
    """Whether a stage's word stands for itself: short ones must not be the beginning of
    another word (`on` of `one`)."""
    return len(word) > 2 and word not in ("end", "low", "off") or not rest[:1].isalpha()


def _days(text: str) -> float | None:
    """Days after the beginning, of labels such as `3 months` and `day -1`."""
    match = NUMBER_UNIT.fullmatch(text)
    if match:
        return float(match.group(1)) * UNITS[match.group(2)]
    match = UNIT_NUMBER.fullmatch(text)
    if match:
        return float(match.group(2)) * UNITS[match.group(1)]
    return None


def _calendar_day(text: str, month_first: bool) -> int | None:
    match = ISO_DATE.fullmatch(text)
    if match:
        year, month, day = map(int, match.groups())
        return _ordinal(year, month, day)
    match = WRITTEN_DATE.fullmatch(text)
    if not match:
        return None
    first, second, year = map(int, match.groups())
    month, day = (first, second) if month_first else (second, first)
    return _ordinal(year, month, day)


def _ordinal(year: int, month: int, day: int) -> int | None:
    try:
        return date(year, month, day).toordinal()
    except ValueError:
        return None


def _month_comes_first(texts: Iterable[str], path: Path | None) -> bool:
    """Whether dates are written month first; a number above 12 tells."""
    dates = [match for text in texts if (match := WRITTEN_DATE.fullmatch(text))]
    day_first = any(int(match.group(1)) > 12 for match in dates)
    month_first = any(int(match.group(2)) > 12 for match in dates)
    is_unclear = len(dates) > 1 and not day_first and not month_first
    if path is not None and (is_unclear or (day_first and month_first)):
        raise InputError(
            f"{path}: dates such as {dates[0].group(0)!r} may have the day or the "
            "month first. Write them as 2026-11-30."
        )
    return month_first


def _negative_words(texts: list[str]) -> frozenset[str]:
    """Words before which `-1` is a number below 0, as where T-1 stands beside T1."""
    found = set()
    for text in texts:
        head, _, tail = text.rpartition("-")
        if head and is_whole_number(tail) and f"{head}{tail}" in texts:
            found.add(head)
    return frozenset(found)


def _pieces(text: str) -> SortKey:
    """Numbers in a label by size, what stands between them by alphabet."""
    pieces = re.split(r"([0-9]+)", text)
    return tuple(_piece_key(piece) for piece in pieces if piece)


def _piece_key(piece: str) -> tuple[int, float, str]:
    if is_whole_number(piece):
        return (0, float(piece), "")
    return (1, 0.0, piece)
