"""A run that is killed goes on where it was and ends as one that is left alone; fifty
kills are in benchmarks/resilience.py."""

import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cingulum.cli import main
from tests.pipeline.test_run import digest

pytestmark = pytest.mark.slow


def command(bids, out):
    people = ["--participant-label", "01", "02", "03", "04"]
    return [sys.executable, "-m", "cingulum", "run", bids, out, "participant", *people]


def results(out):
    """When each measurement and fit was written."""
    files = [*out.glob("sub-*/**/*.*"), *out.glob("work/kept/*/*.npz")]
    return {
        path: path.stat().st_mtime_ns
        for path in files
        if path.is_file() and not path.name.startswith(".")
    }


def test_kills_change_nothing(small_cohort, tmp_path):
    """Four kills (SIGKILL) at random instants of the work, each followed by a look at
    what is there."""
    began = time.monotonic()
    subprocess.run(
        command(small_cohort, tmp_path / "whole"), check=True, capture_output=True
    )
    longest, whole = time.monotonic() - began, digest(tmp_path / "whole")
    rng, out, known = random.Random(1), tmp_path / "killed", {}
    for _ in range(4):
        run = subprocess.Popen(
            command(small_cohort, out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.4, 0.9) * longest)
        run.send_signal(signal.SIGKILL)
        run.wait()
        time.sleep(1.2)  # workers notice within half a second that nobody is there
        found = digest(out)
        assert all(
            whole.get(name) == content
            for name, content in found.items()
            if "/." not in f"/{name}"
        )
        now = results(out)
        assert all(now.get(path) == when for path, when in known.items()), (
            "what was finished was done again"
        )
        known = now
    subprocess.run(command(small_cohort, out), check=True, capture_output=True)
    assert digest(out) == whole and not list(out.rglob(".*.partial"))


def test_two_datasets_on_one_folder_are_refused_and_nothing_is_lost(
    small_cohort, tmp_path, capsys
):
    """People are called sub-01 in both. A dataset that was moved is the same one."""
    out = tmp_path / "out"
    options = ["participant", "--modalities", "hfhrv", "--n-jobs", "1"]
    only = ["--participant-label", "01", "02"]
    moved = tmp_path / "moved"
    shutil.copytree(small_cohort, moved)
    assert main(["run", str(small_cohort), str(out), *options, *only]) == 0
    assert main(["run", str(moved), str(out), *options, *only]) == 0
    kept = {path: path.read_bytes() for path in out.rglob("*_physio*.tsv")}
    other = tmp_path / "other"
    settings = ["--patients", "4", "--voxel", "8", "--volumes", "60", "--seed", "9"]
    assert main(["synthesize", str(other), *settings]) == 0
    capsys.readouterr()
    assert main(["run", str(other), str(out), *options, *only]) == 4
    assert "measurements of other recordings" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in kept} == kept
    assert main(["run", str(other), str(out), *options, *only, "--no-resume"]) == 0
