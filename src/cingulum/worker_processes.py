"""Worker processes that are stopped, and would keep everybody waiting."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

STOPPED = "T"
"""State of a process, in Linux's words, that waits for SIGCONT."""

PATIENCE_SECONDS = 2.0
"""Between two looks at a process: a debugger, or the shell, stops one for a moment."""


def end_stopped_workers() -> None:
    """End child processes of this one that somebody has stopped (SIGSTOP) while this
    one goes on; their tasks are done again. Does nothing where there is no /proc."""
    stopped = _stopped_children()
    if not stopped:
        return
    # When everything is stopped together (Ctrl-Z, a suspended job), children are often
    # continued a moment after their parent.
    time.sleep(PATIENCE_SECONDS)
    for process in sorted(stopped & _stopped_children()):
        print(
            f"worker process {process} was stopped from outside: it is ended, and its "
            "task is done again",
            file=sys.stderr,
            flush=True,
        )
        os.kill(process, signal.SIGKILL)


def _stopped_children() -> set[int]:
    return {child for child in _children() if _state(child) == STOPPED}


def _children() -> set[int]:
    """Process numbers of the children of this process, whichever thread began them."""
    children: set[int] = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            children.update(int(number) for number in listing.read_text().split())
        # A thread may have ended in between.
        except OSError:
            continue
    return children


def _state(process: int) -> str:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    # The name, in parentheses, may contain anything.
    return status.rpartition(")")[2].split()[0]
