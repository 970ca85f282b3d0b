"""Independent tasks, run by local processes or on a Dask cluster. A task that fails is
retried, then recorded, and the others go on.

A task is a function and its arguments. The function writes its own result, whole or not
at all, under a name derived from its inputs. It therefore does not matter which worker
runs a task, in which order, or whether it was run before.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

from cingulum.errors import InputError
from cingulum.time_limit import TimeExceeded, TimeLimit
from cingulum.worker_processes import end_stopped_workers

TASKS_PER_WORKER = 2
"""Tasks submitted per worker: one running and one queued, so that no worker waits for
this process."""

SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
"""Environment of a worker: the tasks themselves share the cores."""

# Loky restarts a worker that has grown by 300 MB since its first task. Ours grow once,
# by loading torch or a larger image than the first, and do not leak.
LOKY_SETTINGS = {"LOKY_MAX_MEMORY_LEAK_SIZE": "4e9"}

# Workers are kept this long for the next call: starting one and importing torch in it
# takes seconds.
IDLE_SECONDS = 60

# No signal reaches a worker when its parent is killed: it has to look.
PARENT_CHECK_SECONDS = 0.5

CONNECTION_TIMEOUT_SECONDS = 30

CHECK_SECONDS = 15.0
"""How often the workers are looked at while nothing finishes."""

HEARTBEAT_SECONDS = 600.0
"""How often it is said that tasks are running while none finishes."""

LONGEST_TASK_HOURS = 12.0
"""A task that takes longer is ended, unless more is asked for."""

LOOPBACK = "127.0.0.1:0"
"""An address that only this machine reaches, at any free port."""


MOST_HOURS = 10_000
"""More than a year; no clock of a process takes an infinite time."""


@dataclass(frozen=True)
class Executor:
    """Where tasks run.

    cluster: empty: processes on this computer; `local`, `slurm`: a new Dask cluster;
        otherwise the address of a running Dask scheduler (tcp://host:8786)
    jobs: number of processes (default: all cores), or of SLURM jobs (default: 1)
    memory: limit for all local processes together, in GB
    retries: how often a task that fails unexpectedly is tried again
    time_limit: hours after which a task is ended and counted as failed

    Raises InputError for an unknown cluster, fewer than one job, no memory or no time.
    """

    cluster: str = ""
    jobs: int | None = None
    memory: float | None = None
    retries: int = 1
    time_limit: float = LONGEST_TASK_HOURS

    def __post_init__(self) -> None:
        _check_cluster(self.cluster)
        if self.jobs is not None and self.jobs < 1:
            raise InputError(f"--n-jobs must be at least 1; got {self.jobs}.")
        # Not `<= 0`, which would let NaN pass.
        if self.memory is not None and not self.memory > 0:
            raise InputError(f"--mem is in GB, above 0; got {self.memory}.")
        if not 0 < self.time_limit <= MOST_HOURS:
            raise InputError(
                f"--time-limit is in hours, above 0 and up to {MOST_HOURS}; got "
                f"{self.time_limit}."
            )

    def workers(self, memory_per_task: float = 0.0) -> int:
        """Local processes that fit into the memory at `memory_per_task` GB each."""
        count = self.jobs or len(os.sched_getaffinity(0))
        if self.memory is None or not memory_per_task:
            return count
        fitting = int(self.memory / memory_per_task)
        return max(1, min(count, fitting))


def _check_cluster(cluster: str) -> None:
    if cluster not in ("", "local", "slurm") and "://" not in cluster:
        raise InputError(
            "--cluster takes local, slurm or the address of a scheduler "
            f"(tcp://host:8786); got {cluster!r}."
        )


@dataclass(frozen=True)
class TaskFailure:
    """A task that failed on every attempt, and why; is_final: another attempt would
    fail, too."""

    reason: str
    is_final: bool = False


def _never(result: Any) -> bool:
    return False


def map_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple],
    executor: Executor | None = None,
    *,
    memory_per_task: float = 0.0,
    retry_if: Callable[[Any], bool] = _never,
) -> Iterator[tuple[int, Any]]:
    """Pairs (index, function(*tasks[index])), in the order in which tasks finish.

    A task that fails on every attempt gives a `TaskFailure`.

    memory_per_task: GB that one task takes
    retry_if: whether a result is worth another attempt (the disk was full, say)

    An interrupt ends the workers; no result is left half written.
    """
    executor = executor or Executor()
    policy = _RetryPolicy(executor.retries, retry_if)
    seconds = executor.time_limit * 3600
    if executor.cluster:
        limited = _Limited(function, TimeLimit(seconds))
        yield from _map_in_pool(limited, tasks, _DaskPool(executor), policy)
        return
    workers = min(executor.workers(memory_per_task), len(tasks))
    if workers > 1 and not _processes_can_share():
        print(
            "no shared memory for several processes (/dev/shm is missing or "
            "read-only): everything is done in this one, as with --n-jobs 1",
            file=sys.stderr,
        )
        workers = 1
    if workers > 1:
        limited = _Limited(function, TimeLimit(seconds, may_end_process=True))
        yield from _map_in_pool(limited, tasks, _ProcessPool(workers), policy)
        return
    limited = _Limited(function, TimeLimit(seconds))
    for index, arguments in enumerate(tasks):
        yield index, _run_in_this_process(limited, arguments, policy)


@dataclass(frozen=True)
class _Limited:
    """A function that is ended when it takes too long."""

    function: Callable[..., Any]
    limit: TimeLimit

    def __call__(self, *arguments: Any) -> Any:
        return self.limit.call(self.function, *arguments)


@cache
def _processes_can_share() -> bool:
    """Whether processes can have a semaphore together, which containers may lack."""
    from multiprocessing import get_context

    try:
        get_context("spawn").Semaphore()
    except (OSError, ImportError):
        return False
    return True


@dataclass(frozen=True)
class _RetryPolicy:
    """How often, and after which results, a task is tried again."""

    retries: int
    retry_if: Callable[[Any], bool]

    def accepts(self, result: Any) -> bool:
        """Whether a result needs no further attempt."""
        if isinstance(result, TaskFailure):
            return result.is_final
        return not self.retry_if(result)


def _run_in_this_process(
    function: Callable, arguments: tuple, policy: _RetryPolicy
) -> Any:
    for _ in range(policy.retries):
        result = _attempt(function, arguments)
        if policy.accepts(result):
            return result
    return _attempt(function, arguments)


def _attempt(function: Callable, arguments: tuple) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        return _failure(error)


def _failure(error: BaseException) -> TaskFailure:
    # What took too long would take as long again.
    return TaskFailure(_reason(error), is_final=isinstance(error, TimeExceeded))


def _reason(error: BaseException) -> str:
    """Why a task failed, in words for the user."""
    if isinstance(error, InputError):
        return str(error)
    if _was_killed(error):
        return (
            "the process that did it was ended from outside, most often for want of "
            "memory: give --mem, or fewer --n-jobs (or it took longer than "
            "--time-limit)"
        )
    return unexpected_error(error)


def unexpected_error(error: BaseException) -> str:
    """An error of the program, in words for the user."""
    return f"unexpected {type(error).__name__}: {error} (please report it)"


def _was_killed(error: BaseException) -> bool:
    """Whether the process of a task ended under it."""
    # Known by name only: neither Dask nor loky need be imported. A pool is also broken
    # by a task that cannot be read where it was sent, which is a fault of ours.
    return type(error).__name__ in ("KilledWorker", "TerminatedWorkerError")


class _Pool(Protocol):
    """Workers that tasks are submitted to."""

    @property
    def workers(self) -> int:
        """Tasks that run at the same time."""

    def submit(self, function: Callable, arguments: tuple) -> Future: ...

    def kill(self) -> None:
        """End tasks that are running, after an interrupt."""

    def check(self) -> None:
        """Look after the workers; called while nothing finishes."""


def _map_in_pool(
    function: Callable, tasks: Sequence[tuple], pool: _Pool, policy: _RetryPolicy
) -> Iterator[tuple[int, Any]]:
    numbered = enumerate(tasks)
    waiting = [_Task(index, task, policy.retries) for index, task in numbered]
    return _Dispatcher(function, waiting, pool, policy).results()


@dataclass(frozen=True)
class _Task:
    """Arguments of one call, their place in the sequence and the attempts left."""

    index: int
    arguments: tuple
    retries_left: int
    runs_alone: bool = False


class _Dispatcher:
    """Keeps every worker of a pool busy.

    A process that dies (killed for memory, say) breaks its pool, and every task that
    was submitted fails with it. These suspects are then run one at a time, so that only
    the task that ends its process is given up.
    """

    def __init__(
        self,
        function: Callable,
        tasks: Iterable[_Task],
        pool: _Pool,
        policy: _RetryPolicy,
    ) -> None:
        self._function = function
        self._pool = pool
        self._policy = policy
        self._waiting = deque(tasks)
        self._suspects: deque[_Task] = deque()
        self._submitted: dict[Future, _Task] = {}

    def results(self) -> Iterator[tuple[int, Any]]:
        """Pairs (index, result), in the order in which tasks finish."""
        try:
            while self._waiting or self._suspects or self._submitted:
                self._submit()
                yield from self._collect(self._wait_for_any())
        except KeyboardInterrupt:
            self._pool.kill()
            raise
        finally:
            for future in self._submitted:
                future.cancel()

    def _wait_for_any(self) -> set[Future]:
        """Tasks that have finished; while there is none, the workers are looked at."""
        start = last_heartbeat = time.monotonic()
        while True:
            finished, _ = wait(self._submitted, CHECK_SECONDS, FIRST_COMPLETED)
            if finished:
                return finished
            self._pool.check()
            if time.monotonic() - last_heartbeat >= HEARTBEAT_SECONDS:
                last_heartbeat = time.monotonic()
                _print_heartbeat(len(self._submitted), last_heartbeat - start)

    def _submit(self) -> None:
        limit = TASKS_PER_WORKER * self._pool.workers
        while self._waiting and len(self._submitted) < limit:
            self._submit_task(self._waiting.popleft())
        if self._suspects and not self._submitted:
            suspect = self._suspects.popleft()
            self._submit_task(replace(suspect, runs_alone=True))

    def _submit_task(self, task: _Task) -> None:
        future = self._pool.submit(self._function, task.arguments)
        self._submitted[future] = task

    def _collect(self, futures: Iterable[Future]) -> Iterator[tuple[int, Any]]:
        """Results that are final; the other tasks go back into a queue."""
        # All are removed first: whoever reads the results may stop at any of them.
        finished = [(future, self._submitted.pop(future)) for future in futures]
        for future, task in finished:
            pool_broke = isinstance(future.exception(), BrokenProcessPool)
            if pool_broke and not task.runs_alone:
                # Perhaps the fault of another task: this costs no attempt.
                self._suspects.append(task)
                continue
            result = _result(future)
            if pool_broke or self._is_final(result, task):
                # A task that ended its process alone would do so again.
                yield task.index, result
            else:
                self._waiting.append(replace(task, retries_left=task.retries_left - 1))

    def _is_final(self, result: Any, task: _Task) -> bool:
        return self._policy.accepts(result) or not task.retries_left


def _print_heartbeat(tasks: int, seconds: float) -> None:
    print(
        f"no task has finished for {seconds / 60:.0f} min; {tasks} are running or next "
        "(--time-limit ends those that take too long)",
        file=sys.stderr,
        flush=True,
    )


def _result(future: Future) -> Any:
    error = future.exception()
    if error is None:
        return future.result()
    return _failure(error)


@dataclass(frozen=True)
class _ProcessPool:
    """Processes on this computer, kept for the next call."""

    workers: int

    def submit(self, function: Callable, arguments: tuple) -> Future:
        return self._executor().submit(function, *arguments)

    def kill(self) -> None:
        self._executor().shutdown(wait=False, kill_workers=True)

    def check(self) -> None:
        end_stopped_workers()

    def _executor(self) -> Any:
        # Loky is asked for the pool at every task, because it replaces a broken one.
        from loky import get_reusable_executor

        return get_reusable_executor(
            self.workers,
            timeout=IDLE_SECONDS,
            env=SINGLE_THREADED | LOKY_SETTINGS,
            initializer=_end_with_parent,
            initargs=(os.getpid(),),
        )


def _end_with_parent(parent: int) -> None:
    """End this worker when the process that started it is gone, even by kill -9."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _DaskPool:
    """Workers of a Dask cluster."""

    def __init__(self, executor: Executor) -> None:
        client = _client(executor)
        self.workers = _cluster_width(executor, client)
        # Pure tasks would be merged where their arguments are equal; retries are ours.
        self._executor = client.get_executor(pure=False, retries=0)

    def submit(self, function: Callable, arguments: tuple) -> Future:
        return self._executor.submit(function, *arguments)

    def kill(self) -> None:
        # A cluster of ours ends with this process, another's workers are not ours to
        # end, and the dispatcher cancels what is queued.
        return None

    def check(self) -> None:
        # Dask's scheduler looks after its own workers.
        return None


@cache
def _client(executor: Executor) -> Any:
    """A Dask client that is kept until this process ends.

    A cluster of our own is started only once, since its jobs may wait in a queue.
    """
    _check_dask()
    cluster = _cluster(executor)
    client = _connected(cluster, executor.cluster)
    atexit.register(_close, client, cluster)
    print(f"Dask dashboard: {client.dashboard_link}", file=sys.stderr, flush=True)
    _wait_for_worker(client, executor)
    return client


def _connected(cluster: Any, name: str) -> Any:
    """A client of a cluster. Raises InputError where no scheduler answers."""
    from dask.distributed import Client

    try:
        return Client(cluster, timeout=CONNECTION_TIMEOUT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--cluster {name}: no Dask scheduler answers there ({error})."
        ) from None


def _check_dask() -> None:
    """Raises InputError where Dask is not installed."""
    if find_spec("distributed") is None:
        raise InputError("--cluster needs Dask: pip install 'cingulum[cluster]'.")


def _cluster(executor: Executor) -> Any:
    """A new Dask cluster, or the address of a running one."""
    if executor.cluster == "local":
        return _local_cluster(executor)
    if executor.cluster == "slurm":
        return _slurm_cluster(executor)
    return executor.cluster


def _wait_for_worker(client: Any, executor: Executor, patience: float = 60.0) -> None:
    """Wait for the first worker, and say so every `patience` seconds: jobs may stay in
    a queue for hours."""
    start = time.monotonic()
    while True:
        try:
            return client.wait_for_workers(1, timeout=patience)
        except TimeoutError:
            _print_waiting(executor.cluster, start)


def _print_waiting(cluster: str, start: float) -> None:
    minutes = (time.monotonic() - start) / 60
    print(
        f"no worker at {cluster} yet after {minutes:.0f} min; still waiting "
        "(Ctrl-C ends it, and nothing is lost)",
        file=sys.stderr,
        flush=True,
    )


def _close(client: Any, cluster: Any) -> None:
    client.close()
    # A scheduler that was running already, known by its address, goes on running.
    if not isinstance(cluster, str):
        cluster.close()


def _local_cluster(executor: Executor) -> Any:
    from dask.distributed import LocalCluster

    workers = executor.workers()
    return LocalCluster(
        workers,
        threads_per_worker=1,
        memory_limit=_memory_limit(executor, workers),
        dashboard_address=LOOPBACK,
        host="127.0.0.1",
        security=_security(),
    )


def _security() -> Any:
    """Certificates for this cluster alone: whoever may connect to a scheduler can run
    any code as its user, on one machine as on a network."""
    from dask.distributed import Security

    try:
        return Security.temporary()
    except ImportError:
        raise InputError(
            "--cluster needs the package cryptography, without which other users could "
            "run code as you: pip install 'cingulum[cluster]'."
        ) from None


def _memory_limit(executor: Executor, workers: int) -> str:
    """The memory of each worker, as Dask writes it."""
    if not executor.memory:
        return "auto"
    return f"{executor.memory / workers}GB"


def _slurm_cluster(executor: Executor) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError(
            "--cluster slurm needs dask-jobqueue: pip install 'cingulum[cluster]'."
        ) from None
    try:
        cluster = SLURMCluster(
            job_script_prologue=_job_prologue(),
            security=_security(),
            scheduler_options={"dashboard_address": LOOPBACK},
        )
    except (ValueError, TypeError) as error:
        raise InputError(
            f"--cluster slurm: {error}. Queue, cores, memory and walltime are read "
            "from ~/.config/dask/jobqueue.yaml; docs/cluster.md has an example."
        ) from None
    cluster.scale(jobs=executor.jobs or 1)
    return cluster


def _job_prologue() -> list[str]:
    """Lines that every SLURM job starts with."""
    import dask

    # The option replaces the prologue of the user's own file, so that it is repeated.
    prologue = list(dask.config.get("jobqueue.slurm.job-script-prologue", None) or [])
    for name, value in SINGLE_THREADED.items():
        prologue.append(f"export {name}={value}")
    return prologue


def _cluster_width(executor: Executor, client: Any) -> int:
    """Tasks that run at the same time: on the workers that are up, or on those that the
    SLURM jobs will bring."""
    threads = sum(client.nthreads().values())
    if executor.cluster != "slurm":
        return max(threads, 1)
    import dask

    jobs = executor.jobs or 1
    processes_per_job = dask.config.get("jobqueue.slurm.processes", 1) or 1
    return max(threads, jobs * processes_per_job)
