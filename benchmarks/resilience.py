"""Does a run that is killed, again and again, end as one that is left alone?

    python benchmarks/resilience.py [--kills 50] [--dask]

A cohort of ten patients is analysed (`cingulum run … group`) once undisturbed. Then it
is begun in a new folder and the main process killed (SIGKILL) at a random instant,
again and again, until one run comes to its end; as often as it
takes for all kills. Looked at after every kill: no file with its final name is partial
(each equals that of the undisturbed run), and what was finished before is not done
again. With --dask a worker of a local Dask cluster is killed instead, in the middle of
one run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cingulum.datasets import CohortSettings, synthesize

LAST = {"report.html", "summary.json", "features.tsv", "study.toml", "failures.tsv"}


def command(bids: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "cingulum",
        "run",
        str(bids),
        str(out),
        "group",
        "--permutations",
        "199",
        *more,
    ]


def shown(out: Path) -> dict[str, str]:
    """Digest of every file that a user sees; work/ and hidden files are not shown."""
    files = (
        p
        for p in out.rglob("*")
        if p.is_file()
        and not any(
            part.startswith(".") or part == "work" for part in p.relative_to(out).parts
        )
    )
    return {
        str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in files
    }


def finished(out: Path) -> dict[str, int]:
    """When each result of a unit was written: measurements, fits, blocks of
    permutations."""
    files = [*out.glob("sub-*/**/*.*"), *out.glob("work/kept/*/*.npz")]
    return {
        str(p.relative_to(out)): p.stat().st_mtime_ns
        for p in files
        if p.is_file() and p.name[0] != "."
    }


def kill_and_look(
    bids: Path, out: Path, whole: dict[str, str], longest: float, rng: random.Random
) -> tuple[bool, int]:
    """One run, killed after a random time; whether it came to its end before, and units
    done twice."""
    before = finished(out)
    run = subprocess.Popen(
        command(bids, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        run.wait(timeout=rng.uniform(3.0, 0.6 * longest))
        ended = True
        assert run.returncode == 0, f"a rerun failed with {run.returncode}"
    except subprocess.TimeoutExpired:
        run.send_signal(signal.SIGKILL)
        run.wait()
        ended = False
    time.sleep(1.2)  # workers notice within half a second that nobody is there
    for name, digest in shown(out).items():
        assert whole.get(name) == digest, (
            f"{name} is partial, or not what an undisturbed run writes"
        )
    after = finished(out)
    return ended, sum(after.get(name) != when for name, when in before.items())


def kills(
    folder: Path, bids: Path, whole: dict[str, str], longest: float, count: int
) -> None:
    rng, done, runs, twice = random.Random(0), 0, 0, 0
    while done < count:
        out = folder / f"killed{runs}"
        runs += 1
        for _ in range(1000):
            ended, again = kill_and_look(bids, out, whole, longest, rng)
            twice += again
            if ended:
                break
            done += 1
        assert shown(out) == whole
        shutil.rmtree(out)
        print(
            f"{done} kills, {runs} runs came to their end; {twice} finished results "
            "written again",
            flush=True,
        )
    print(
        f"{done} kills in {runs} runs: every run ended with the {len(whole)} files of "
        "the undisturbed one, bit for "
        f"bit; finished results that were done again: {twice}"
    )


def kill_a_worker(folder: Path, bids: Path, whole: dict[str, str]) -> None:
    """A worker of a local Dask cluster is killed while it measures."""
    out = folder / "dask"
    options = ("--cluster", "local", "--n-jobs", "2")
    run = subprocess.Popen(
        command(bids, out, *options),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(out.glob("sub-*/**/*.json")):
        time.sleep(0.05)
    worker = _workers(run.pid)[0]
    os.kill(worker, signal.SIGKILL)
    assert run.wait() == 0 and shown(out) == whole
    print(
        f"a Dask worker (process {worker}) killed while it measured: the {len(whole)} "
        "files are the same, bit for bit"
    )


def _workers(parent: int) -> list[int]:
    """Processes below ours that do the work: those with the most memory."""
    import psutil

    below = psutil.Process(parent).children(recursive=True)
    return [
        p.pid
        for p in sorted(below, key=lambda p: -p.memory_info().rss)
        if "spawn_main" in " ".join(p.cmdline())
    ]


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--kills", type=int, default=50)
    asked.add_argument("--dask", action="store_true", help="kill a Dask worker instead")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bids = synthesize(
            folder / "cohort", CohortSettings(10, voxel=9.0, volumes=40, tr=2.0)
        )
        began = time.monotonic()
        subprocess.run(command(bids, folder / "whole"), check=True, capture_output=True)
        longest = time.monotonic() - began
        whole = shown(folder / "whole")
        print(f"undisturbed: {longest:.0f} s, {len(whole)} files", flush=True)
        if given.dask:
            kill_a_worker(folder, bids, whole)
        else:
            kills(folder, bids, whole, longest, given.kills)


if __name__ == "__main__":
    main()
