"""Tasks: every one is done or accounted for, whatever happens to the
processes."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cingulum.errors import InputError
from cingulum.parallel import Executor, TaskFailure, _wait_for_worker, map_tasks
from cingulum.time_limit import TimeExceeded, TimeLimit


def square(x):
    return x * x


def fail_once(folder, x):
    """Fails the first time it sees x."""
    mark = Path(folder) / str(x)
    if not mark.exists():
        mark.touch()
        raise RuntimeError("the disk hiccups")
    return x


def deadly(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return x


def deadly_or_flaky(folder, x):
    time.sleep(0.05)
    return deadly(x) if x == 3 else fail_once(folder, x)


def always_fails(x):
    raise ValueError(f"no {x}")


def sleeps_at_3(x):
    if x == 3:
        time.sleep(60)
    return x


def stops_itself_once(folder, x):
    """Somebody stops its process, once."""
    mark = Path(folder) / "stopped"
    if x == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return x


def done(work, units, executor):
    return dict(map_tasks(work, units, executor))


@pytest.mark.parametrize("executor", [Executor(jobs=1), Executor(jobs=2)])
def test_every_unit_is_done_once(executor):
    assert done(square, [(x,) for x in range(20)], executor) == {
        x: x * x for x in range(20)
    }
    assert done(square, [], executor) == {}


@pytest.mark.parametrize("executor", [Executor(jobs=1), Executor(jobs=2)])
def test_failures_are_tried_again_then_recorded(executor, tmp_path):
    assert done(fail_once, [(tmp_path, x) for x in range(4)], executor) == {
        x: x for x in range(4)
    }
    failures = done(always_fails, [(1,), (2,)], executor)
    assert all(
        isinstance(failure, TaskFailure)
        and "unexpected ValueError: no" in failure.reason
        for failure in failures.values()
    )


def test_a_process_that_is_killed_loses_its_unit_only():
    results = done(deadly, [(x,) for x in range(8)], Executor(jobs=2))
    assert {x: r for x, r in results.items() if x != 3} == {
        x: x for x in range(8) if x != 3
    }
    assert isinstance(results[3], TaskFailure) and "want of memory" in results[3].reason


def test_a_crash_costs_others_no_try(tmp_path):
    """Units that fail once for themselves are done although another one kills its
    process, again and again."""
    results = done(deadly_or_flaky, [(tmp_path, x) for x in range(8)], Executor(jobs=2))
    assert {x: r for x, r in results.items() if x != 3} == {
        x: x for x in range(8) if x != 3
    }
    assert isinstance(results[3], TaskFailure)


def test_wrong_executors_are_refused():
    with pytest.raises(InputError, match="local, slurm or the address"):
        Executor("slrum")
    with pytest.raises(InputError, match="--n-jobs"):
        Executor(jobs=0)
    assert (
        Executor(jobs=8, memory=10).workers(memory_per_task=3) == 3
        and Executor(jobs=2, memory=1).workers(memory_per_task=3) == 1
    )


SLEEPER = """
import os, sys, time
from pathlib import Path
from cingulum.parallel import Executor, map_tasks
def sleep(folder, i):
    Path(folder, f"{i}-{os.getpid()}").touch()
    time.sleep(30)
list(map_tasks(sleep, [(sys.argv[1], i) for i in range(2)], Executor(jobs=2)))
"""


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """kill -9 of the main process leaves no worker behind."""
    main = subprocess.Popen([sys.executable, "-c", SLEEPER, str(tmp_path)])
    for _ in range(200):
        if len(list(tmp_path.iterdir())) == 2:
            break
        time.sleep(0.1)
    workers = [int(p.name.partition("-")[2]) for p in tmp_path.iterdir()]
    assert len(set(workers)) == 2
    main.kill()
    main.wait()
    for _ in range(50):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            break
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.slow
def test_a_dask_cluster_does_the_same(tmp_path):
    pytest.importorskip("distributed")
    units = [(x,) for x in range(20)]
    assert done(square, units, Executor("local", jobs=2)) == {
        x: x * x for x in range(20)
    }
    results = done(deadly, [(x,) for x in range(6)], Executor("local", jobs=2))
    assert {x: r for x, r in results.items() if x != 3} == {
        x: x for x in range(6) if x != 3
    }
    assert isinstance(results[3], TaskFailure)
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        done(square, units, Executor("tcp://127.0.0.1:9"))


def test_a_queue_is_waited_for_with_a_word(capsys):
    class Client:
        calls = 0

        def wait_for_workers(self, number, timeout):
            self.calls += 1
            if self.calls < 3:
                raise TimeoutError

    client = Client()
    _wait_for_worker(client, Executor("tcp://host:8786"), patience=0.0)
    assert (
        client.calls == 3
        and capsys.readouterr().err.count("no worker at tcp://host:8786 yet") == 2
    )


@pytest.mark.slow
def test_a_cluster_of_our_own_is_encrypted_and_local():
    """Whoever can connect to a scheduler runs code as its user."""
    from cingulum.parallel import _client

    client = _client(Executor("local", jobs=1))
    assert client.scheduler.address.startswith("tls://127.0.0.1")
    assert "127.0.0.1" in client.dashboard_link


def test_without_shared_memory_everything_is_done_here(monkeypatch, capsys):
    from cingulum import parallel

    monkeypatch.setattr(parallel, "_processes_can_share", lambda: False)
    assert done(square, [(2,), (3,)], Executor(jobs=2)) == {0: 4, 1: 9}
    assert "shared memory" in capsys.readouterr().err


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_task_that_takes_too_long_is_ended_and_the_others_are_done(jobs):
    executor = Executor(jobs=jobs, time_limit=1.0 / 3600)
    start = time.monotonic()
    results = done(sleeps_at_3, [(x,) for x in range(6)], executor)
    # Once: it would take as long again.
    assert time.monotonic() - start < 20
    assert "--time-limit" in results.pop(3).reason
    assert results == {x: x for x in (0, 1, 2, 4, 5)}


def test_a_task_in_a_thread_is_ended_too():
    """As workers of Dask run theirs."""

    def busy():
        while True:
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(TimeLimit(0.2).call, busy)
        with pytest.raises(TimeExceeded, match="--time-limit"):
            future.result(timeout=20)


def test_a_process_that_hears_nothing_is_ended():
    """Machine code, say: here the alarm is blocked."""
    code = (
        "import signal, time\n"
        "from cingulum.time_limit import TimeLimit\n"
        "def deaf():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})\n"
        "    time.sleep(60)\n"
        "TimeLimit(0.2, may_end_process=True, grace=0.2).call(deaf)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=30)
    assert ended.returncode == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_stopped_worker_is_noticed_and_its_task_done_again(
    tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr("cingulum.parallel.CHECK_SECONDS", 1.0)
    tasks = [(tmp_path, x) for x in range(6)]
    results = done(stops_itself_once, tasks, Executor(jobs=2))
    assert results == {x: x for x in range(6)}
    assert "was stopped from outside" in capfd.readouterr().err


def test_it_is_said_that_tasks_are_running(monkeypatch, capfd):
    monkeypatch.setattr("cingulum.parallel.CHECK_SECONDS", 0.1)
    monkeypatch.setattr("cingulum.parallel.HEARTBEAT_SECONDS", 0.5)
    executor = Executor(jobs=2, time_limit=2.0 / 3600)
    done(sleeps_at_3, [(3,), (3,)], executor)
    assert "no task has finished for" in capfd.readouterr().err


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf")])
def test_no_time_is_refused(hours):
    with pytest.raises(InputError, match="--time-limit"):
        Executor(time_limit=hours)
