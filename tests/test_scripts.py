"""The set-up scripts hand their options on, and do not take them for something else."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def installed_clone(tmp_path):
    """A clone whose environment is up to date, with programs that only say what they
    were given."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("python", "cingulum", "mkdocs"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@"\n')
        (programs / name).chmod(0o755)
    command = "cat pyproject.toml constraints.txt | cksum"
    stamp = subprocess.run(
        command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.strip()
    for extra in ("core", "dev", "docs"):
        (tmp_path / ".venv" / f"installed-{extra}").write_text(stamp)
    return tmp_path


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("demo", "cingulum demo --offline --patients 12"),
        (
            "test",
            "python -m pytest -n auto --maxprocesses 4 --dist loadfile --offline "
            "--patients 12",
        ),
        ("docs", "mkdocs build --strict --offline --patients 12"),
    ],
)
def test_options_reach_the_program(installed_clone, script, said):
    command = [installed_clone / "scripts" / script, "--offline", "--patients", "12"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == said
