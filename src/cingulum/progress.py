"""Progress of long work: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(work: Iterable[T], label: str, total: int | None = None, show: bool = True) -> Iterator[T]:
    """Go through `work`, telling how far it is and how long it will take.

    On a terminal this is a live bar; elsewhere a line at every quarter, so that cluster logs stay readable.
    """
    if total is None and isinstance(work, Sized):
        total = len(work)
    if not show:
        yield from work
    elif sys.stderr.isatty():
        yield from _bar(work, label, total)
    else:
        yield from _lines(work, label, total)


def _bar(work: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import track as rich_track

    yield from rich_track(work, description=label, total=total, console=Console(stderr=True))


def _lines(work: Iterable[T], label: str, total: int | None) -> Iterator[T]:
    began, told = time.monotonic(), 0
    for done, item in enumerate(work, start=1):
        yield item
        quarter = 4 * done // total if total else 0
        if quarter > told:
            told = quarter
            print(f"  {label}: {done}/{total} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
