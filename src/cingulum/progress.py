"""Progress of long work: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(
    work: Iterable[T],
    label: str,
    total: int | None = None,
    show: bool = True,
    note: Callable[[], str] = lambda: "",
) -> Iterator[T]:
    """Go through `work`, telling how far it is and how long it will take.

    On a terminal this is a live bar; elsewhere a line at every quarter, so that cluster
    logs stay readable.
    note: asked at every item for what else there is to tell (the present loss)
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, note="")
        for item in work:
            yield item
            progress.update(task, advance=1, note=note())


def _lines(
    work: Iterable[T], label: str, total: int | None, note: Callable[[], str]
) -> Iterator[T]:
    began, told = time.monotonic(), 0
    for done, item in enumerate(work, start=1):
        yield item
        quarter = 4 * done // total if total else 0
        if quarter > told:
            told = quarter
            spent = time.monotonic() - began
            left = (
                f", about {spent * (total - done) / done:.0f} s left"
                if total and done < total
                else ""
            )
            line = f"  {label}: {done}/{total} ({spent:.0f} s{left}) {note()}"
            print(line.rstrip(), file=sys.stderr, flush=True)
