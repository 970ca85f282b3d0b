"""How well does the machinery use the machine, and how far does it reach?

    python benchmarks/scale.py [units] [overhead] [cohort --participants 1000
    --permutations 99]

units: brains fitted to recordings, by one process and by two; overhead: what the
machinery takes beyond the units' own time; cohort: a cohort of tiny images from dataset
to report, with time and memory of all processes, and the time of index and plan alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from cingulum import parallel
from cingulum.datasets import CohortSettings, synthesize
from cingulum.features import Measurement, Mechanism
from cingulum.parallel import Executor, TaskFailure, map_tasks
from cingulum.signals.atlas import pain_atlas

UNITS = 12


def fit(seed: int) -> float:
    """Brains fitted to the noise of four recordings: three to four seconds of
    compute."""
    regions, rng = len(pain_atlas().regions), np.random.default_rng(seed)
    noise = rng.normal(size=(4, regions, 120)) + 0.5 * rng.normal(size=(4, 1, 120))
    rows = Mechanism().finish([Measurement(np.corrcoef(x)) for x in noise])
    return float(rows.table.to_numpy().sum())


def timed(jobs: int) -> tuple[float, list[float]]:
    """Seconds of all units by so many processes that are running already, and their
    results in order."""
    list(
        map_tasks(fit, [(1000 + k,) for k in range(max(jobs, 2))], Executor(jobs=jobs))
    )  # imports and caches
    began = time.perf_counter()
    found = dict(map_tasks(fit, [(k,) for k in range(UNITS)], Executor(jobs=jobs)))
    assert not any(isinstance(one, TaskFailure) for one in found.values())
    return time.perf_counter() - began, [found[k] for k in range(UNITS)]


def units() -> None:
    one, first = timed(1)
    two, second = timed(2)
    assert first == second, "one process and two must give the same bits"
    print(
        f"{UNITS} fits of four recordings: one process {one:.1f} s, two {two:.1f} s, "
        f"efficiency {one / two / 2:.0%}; "
        "same bits"
    )


def overhead() -> None:
    """What a run through one process takes beyond the work itself, which each unit
    times for itself: the speed of this core may change between two runs, but not inside
        one."""
    pool = parallel._ProcessPool(1)
    policy = parallel._RetryPolicy(1, parallel._never)
    handed = partial(parallel._map_in_pool, pool=pool, policy=policy)
    list(handed(clocked, [(1000,)]))  # imports and caches
    began = time.perf_counter()
    inside = sum(
        seconds for _, seconds in handed(clocked, [(k,) for k in range(UNITS)])
    )
    whole = time.perf_counter() - began
    print(
        f"{UNITS} units by one process: {whole:.2f} s, of which {inside:.2f} s are "
        f"work: {whole / inside - 1:+.2%}"
    )


def clocked(seed: int) -> float:
    began = time.perf_counter()
    fit(seed)
    return time.perf_counter() - began


def cohort(participants: int, permutations: int, folder: Path) -> None:
    bids = folder / "cohort"
    if not bids.exists():
        began = time.perf_counter()
        synthesize(bids, CohortSettings(participants, voxel=9.0, volumes=40, tr=2.0))
        print(
            f"cohort of {participants} participants made in "
            f"{time.perf_counter() - began:.0f} s",
            flush=True,
        )
    for level in ("plan", "participant", "group"):
        seconds, memory = _command(bids, folder / "out", level, permutations)
        print(
            f"{level:12} {seconds:7.1f} s, {memory:.2f} GB at most, all processes",
            flush=True,
        )


def _command(
    bids: Path, out: Path, level: str, permutations: int
) -> tuple[float, float]:
    words = ["participant", "--dry-run"] if level == "plan" else [level]
    command = [
        sys.executable,
        "-m",
        "cingulum",
        "run",
        str(bids),
        str(out),
        *words,
        "--modalities",
        "s1conn",
        "rcbf",
        "hfhrv",
        "mechanism",
        "--permutations",
        str(permutations),
    ]
    began, most, log = (
        time.perf_counter(),
        [0.0],
        (out.parent / f"{level}.log").open("w"),
    )
    run = subprocess.Popen(command, stdout=log, stderr=log)
    watch = threading.Thread(target=_watch, args=(run, most))
    watch.start()
    if run.wait():
        raise SystemExit(
            f"{level} failed: {(out.parent / f'{level}.log').read_text()[-2000:]}"
        )
    watch.join()
    return time.perf_counter() - began, most[0]


def _watch(run: subprocess.Popen, most: list[float]) -> None:
    while run.poll() is None:
        try:
            main = psutil.Process(run.pid)
            sizes = [
                p.memory_info().rss for p in (main, *main.children(recursive=True))
            ]
            most[0] = max(most[0], sum(sizes) / 1e9)
        except psutil.Error:
            pass
        time.sleep(0.5)


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("what", nargs="*", default=["units", "overhead", "cohort"])
    asked.add_argument("--participants", type=int, default=1000)
    asked.add_argument(
        "--permutations",
        type=int,
        default=99,
        help="one of a thousand patients takes about 15 s",
    )
    asked.add_argument(
        "--folder", type=Path, help="keep the cohort and its results here"
    )
    given = asked.parse_args()
    for what in given.what:
        if what == "cohort":
            with tempfile.TemporaryDirectory() as temporary:
                cohort(
                    given.participants,
                    given.permutations,
                    given.folder or Path(temporary),
                )
        else:
            {"units": units, "overhead": overhead}[what]()


if __name__ == "__main__":
    main()
