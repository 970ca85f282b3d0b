"""A task that takes too long is ended, so that the others need not wait for it."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cingulum.errors import InputError

GRACE_SECONDS = 60.0
"""How long a task may take to stop when it is told to. Machine code is not interrupted:
a worker process that is still in it then is ended as a whole."""

TOOK_TOO_LONG = "took longer than --time-limit allows, and was ended"


class TimeExceeded(InputError):
    """A task took longer than it may."""

    # Python raises it without words in a thread that is interrupted.
    def __init__(self, words: str = TOOK_TOO_LONG) -> None:
        super().__init__(words)


@dataclass(frozen=True)
class TimeLimit:
    """How long one task may take, and whether the process it runs in may be ended for
    it, as a worker may be, when it does not stop within the grace."""

    seconds: float
    may_end_process: bool = False
    grace: float = GRACE_SECONDS

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments). Raises TimeExceeded when it takes too long."""
        with self._last_resort(), self._interrupted():
            return function(*arguments)

    def _interrupted(self) -> Any:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and hasattr(signal, "setitimer"):
            return _alarm(self.seconds)
        return _thread_timer(self.seconds)

    @contextmanager
    def _last_resort(self) -> Iterator[None]:
        """End the process where an interruption is not heard."""
        if not self.may_end_process:
            yield
            return
        timer = threading.Timer(self.seconds + self.grace, os._exit, (1,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise TimeExceeded here after so many seconds, also while waiting for a file."""

    def ring(*_: object) -> None:
        raise TimeExceeded

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _thread_timer(seconds: float) -> Iterator[None]:
    """Raise TimeExceeded in this thread, which no signal reaches (a worker of Dask)."""
    thread = ctypes.c_ulong(threading.get_ident())

    def interrupt() -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            thread, ctypes.py_object(TimeExceeded)
        )

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
