"""Independent units of work, by processes here or by a Dask cluster: retried, recorded,
and the rest goes on.

A unit is a function and its arguments; what it makes it writes itself, whole or not at
all, under a name that says what it was made from. So it does not matter who does a
unit, in which order, or whether somebody did it before.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import Executor as Pool
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from typing import Any

from cingulum.errors import InputError

AHEAD = 2
"""Units handed out for every worker: one under way, one waiting, so that no worker
waits for us."""

SINGLE = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Executor:
    """Who does the work.

    cluster: empty: processes of this machine; `local`, `slurm`: a Dask cluster of our
        own; else the address of a Dask scheduler (tcp://host:8786) that is running
        already
    jobs: processes, or SLURM jobs; default one a core. memory: GB that all processes
        here may take together
    retries: how often a unit that fails unexpectedly is tried again
    """

    cluster: str = ""
    jobs: int | None = None
    memory: float | None = None
    retries: int = 1

    def __post_init__(self) -> None:
        if self.cluster not in ("", "local", "slurm") and "://" not in self.cluster:
            raise InputError(
                "--cluster takes local, slurm or the address of a scheduler "
                f"(tcp://host:8786); came {self.cluster!r}."
            )
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"--n-jobs must be at least 1; came {self.jobs}.")
        if self.memory is not None and not self.memory > 0:
            raise InputError(f"--mem is in GB, above 0; came {self.memory}.")

    def workers(self, need: float = 0.0) -> int:
        """Processes here, as memory allows at `need` GB each."""
        count = self.jobs or len(os.sched_getaffinity(0))
        return (
            count
            if self.memory is None or not need
            else max(1, min(count, int(self.memory / need)))
        )


@dataclass(frozen=True)
class TaskFailure:
    """A unit that could not be done, and why."""

    reason: str


def map_tasks(
    work: Callable[..., Any],
    units: Sequence[tuple],
    executor: Executor | None = None,
    *,
    need: float = 0.0,
    again: Callable[[Any], bool] = lambda result: False,
) -> Iterator[tuple[int, Any]]:
    """Pairs (index, result of work(*units[index])), in the order they finish.

    A unit that failed on every try gives a `TaskFailure`.

    need: GB that a unit takes; again: whether a result is of the kind that is worth
    another try (a disk that was full).
    An interrupt ends the workers, and no unit is
    left half done on disk.
    """
    executor = executor or Executor()
    if not executor.cluster and (
        len(units) < 2 or min(executor.workers(need), len(units)) == 1
    ):
        yield from (
            (i, _alone(work, unit, executor.retries, again))
            for i, unit in enumerate(units)
        )
    elif executor.cluster:
        client = _client(executor)
        pool = client.get_executor(pure=False, retries=0)
        yield from _hand_out(
            work,
            units,
            executor.retries,
            again,
            lambda: pool,
            _width(executor, client),
        )
    else:
        width = min(executor.workers(need), len(units))
        yield from _hand_out(
            work, units, executor.retries, again, lambda: _processes(width), width
        )


def _alone(
    work: Callable, unit: tuple, retries: int, again: Callable[[Any], bool]
) -> Any:
    for left in range(retries, -1, -1):
        try:
            result = work(*unit)
        except Exception as trouble:
            result = TaskFailure(_told(trouble))
        if not left or not (isinstance(result, TaskFailure) or again(result)):
            return result
    raise AssertionError("unreachable")


def _hand_out(
    work: Callable,
    units: Sequence[tuple],
    retries: int,
    again: Callable[[Any], bool],
    executor: Callable[[], Pool],
    width: int,
) -> Iterator[tuple[int, Any]]:
    """Keep every worker busy. Where a process dies (killed for memory, say), the units
    that it may have taken down are tried one at a time, so that only the guilty one is
    lost."""
    waiting, alone = (
        deque((i, retries) for i in range(len(units))),
        deque[tuple[int, int]](),
    )
    under_way: dict[Future, tuple[int, int]] = {}
    solitary: set[int] = set()
    try:
        while waiting or alone or under_way:
            while waiting and len(under_way) < AHEAD * width:
                i, left = waiting.popleft()
                under_way[executor().submit(work, *units[i])] = (i, left)
            if alone and not under_way:
                i, left = alone.popleft()
                solitary.add(i)
                under_way[executor().submit(work, *units[i])] = (i, left)
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            broken = [(future, under_way.pop(future)) for future in done]
            for future, (i, left) in broken:
                trouble = future.exception()
                result = (
                    future.result() if trouble is None else TaskFailure(_told(trouble))
                )
                broke = isinstance(trouble, BrokenProcessPool)
                if broke and i not in solitary:
                    alone.append(
                        (i, left)
                    )  # perhaps another's fault: this costs no try
                elif trouble is None and not again(result) or not left or broke:
                    yield i, result
                else:
                    waiting.append((i, left - 1))
    except KeyboardInterrupt:
        if hasattr(executor(), "_executor_manager_thread"):
            executor().shutdown(wait=False, kill_workers=True)  # type: ignore[call-arg]
        raise
    finally:
        for future in under_way:
            future.cancel()


def _told(trouble: BaseException) -> str:
    if isinstance(trouble, InputError):
        return str(trouble)
    if (
        isinstance(trouble, BrokenProcessPool)
        or type(trouble).__name__ == "KilledWorker"
    ):
        return (
            "the process that did it was ended from outside, most often for want of "
            "memory: give --mem, or fewer "
            "--n-jobs"
        )
    return f"unexpected {type(trouble).__name__}: {trouble} (please report it)"


def _processes(width: int) -> Pool:
    """Processes that are kept for the next call; a broken pool is replaced."""
    from loky import get_reusable_executor

    return get_reusable_executor(
        width, timeout=60, env=SINGLE, initializer=_follow, initargs=(os.getpid(),)
    )


def _follow(parent: int) -> None:
    """End this worker when the process that started it is gone, also by kill -9."""
    from loky import process_executor

    # Loky takes a worker that has loaded torch, or a larger image than the first, for
    # one that leaks.
    process_executor._MAX_MEMORY_LEAK_SIZE = 4_000_000_000

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def _client(executor: Executor) -> Any:
    """A Dask client that is kept until this process ends: a cluster of its own is
    started once, since its jobs may have to wait in a queue."""
    try:
        from dask.distributed import Client
    except ImportError:
        raise InputError(
            "--cluster needs Dask: pip install 'cingulum[cluster]'."
        ) from None
    cluster = {"local": _local, "slurm": _slurm}.get(
        executor.cluster, lambda executor: executor.cluster
    )(executor)
    try:
        client = Client(cluster, timeout=30, set_as_default=False)
    except (OSError, ValueError) as trouble:
        raise InputError(
            f"--cluster {executor.cluster}: no Dask scheduler answers there "
            f"({trouble})."
        ) from None
    atexit.register(_close, client, cluster)
    print(f"Dask dashboard: {client.dashboard_link}", file=sys.stderr, flush=True)
    _first_worker(client, executor)
    return client


def _first_worker(client: Any, executor: Executor, patience: float = 60.0) -> None:
    """Wait for a worker: jobs may stand in a queue for hours, but not without a
    word."""
    began = time.monotonic()
    while True:
        try:
            return client.wait_for_workers(1, timeout=patience)
        except TimeoutError:
            print(
                f"no worker at {executor.cluster} yet after "
                f"{(time.monotonic() - began) / 60:.0f} min; still waiting "
                "(Ctrl-C ends it, and nothing is lost)",
                file=sys.stderr,
                flush=True,
            )


def _close(client: Any, cluster: Any) -> None:
    client.close()
    if not isinstance(cluster, str):
        cluster.close()


def _local(executor: Executor) -> Any:
    from dask.distributed import LocalCluster

    width = executor.workers()
    memory = f"{executor.memory / width}GB" if executor.memory else "auto"
    return LocalCluster(  # type: ignore[no-untyped-call]
        width,
        threads_per_worker=1,
        memory_limit=memory,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
    )


def _slurm(executor: Executor) -> Any:
    try:
        import dask
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError(
            "--cluster slurm needs dask-jobqueue: pip install 'cingulum[cluster]'."
        ) from None
    own = dask.config.get("jobqueue.slurm.job-script-prologue", None) or []
    try:
        cluster = SLURMCluster(
            job_script_prologue=[*own, *(f"export {k}={v}" for k, v in SINGLE.items())]
        )
    except (ValueError, TypeError) as trouble:
        raise InputError(
            f"--cluster slurm: {trouble}. Queue, cores, memory and walltime are read "
            "from "
            "~/.config/dask/jobqueue.yaml; docs/cluster.md has an example."
        ) from None
    cluster.scale(jobs=executor.jobs or 1)
    return cluster


def _width(executor: Executor, client: Any) -> int:
    """Units that can be done at once: by the workers that are there, or by those that
    the SLURM jobs will have."""
    here = sum(client.nthreads().values())
    if executor.cluster != "slurm":
        return max(here, 1)
    import dask

    return max(
        here,
        (executor.jobs or 1) * (dask.config.get("jobqueue.slurm.processes", 1) or 1),
    )
