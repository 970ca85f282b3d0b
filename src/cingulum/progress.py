"""Progress of long work: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

REPORTS = 4
"""Lines that a log has for each piece of work: one at every quarter."""


def track(
    work: Iterable[T],
    label: str,
    total: int | None = None,
    show: bool = True,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """The items of `work`, while printing how many are done and how long the others
    will take.

    On a terminal this is a live bar; elsewhere a line at every quarter, so that cluster
    logs stay readable.

    note: called after every item for what else to print (the present loss)
    """
    if total is None and isinstance(work, Sized):
        total = len(work)
    if not show:
        yield from work
    elif sys.stderr.isatty():
        yield from _bar(work, label, total, note)
    else:
        yield from _lines(work, label, total, note)


def _bar(
    work: Iterable[T], label: str, total: int | None, note: Callable[[], str]
) -> Iterator[T]:
    # Rich takes a tenth of a second to import, and logs do not need it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # The output is for results, which may be piped.
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, note="")
        for item in work:
            # An item is done when the caller comes back for the next.
            yield item
            progress.update(task, advance=1, note=note())


def _lines(
    work: Iterable[T], label: str, total: int | None, note: Callable[[], str]
) -> Iterator[T]:
    start = time.monotonic()
    reported = 0
    for done, item in enumerate(work, start=1):
        yield item
        # Without a total there is no quarter to report.
        if total and REPORTS * done // total > reported:
            reported = REPORTS * done // total
            seconds = _seconds(time.monotonic() - start, done, total)
            _print_line(f"  {label}: {done}/{total} ({seconds}) {note()}")


def _print_line(line: str) -> None:
    # Without a note, a space is left at the end.
    print(line.rstrip(), file=sys.stderr, flush=True)


def _seconds(elapsed: float, done: int, total: int) -> str:
    """Seconds elapsed, and those still needed at the pace so far."""
    if done >= total:
        return f"{elapsed:.0f} s"
    remaining = elapsed * (total - done) / done
    return f"{elapsed:.0f} s, about {remaining:.0f} s left"
