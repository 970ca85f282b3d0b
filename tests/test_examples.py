"""Examples are the manual: each runs, and the README shows the same code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cingulum.datasets import hcp
from cingulum.datasets.published_wheel import DataUnavailable

ROOT = Path(__file__).parents[1]


QUICK = ("first_steps",)
"""Examples that the default tests run; the others, of some ten seconds each, run with
the science runs."""


def examples():
    for path in sorted((ROOT / "examples").glob("*.py")):
        yield pytest.param(
            path, id=path.stem, marks=[] if path.stem in QUICK else pytest.mark.slow
        )


@pytest.mark.parametrize("example", examples())
def test_runs_and_is_short(example, tmp_path):
    if "datasets import hcp" in example.read_text():
        try:
            hcp.fetch()
        except DataUnavailable as trouble:
            pytest.skip(f"Human Connectome data cannot be had here: {trouble}")
    assert len(example.read_text().splitlines()) <= 100
    settings = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, example],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=settings,
    )
    assert done.returncode == 0 and done.stdout, done.stderr


def test_the_readme_shows_the_example():
    code = (
        (ROOT / "examples" / "first_steps.py").read_text().split('"""\n', 1)[1].strip()
    )
    assert code in (ROOT / "README.md").read_text()
