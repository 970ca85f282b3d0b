"""A full disk and one that cannot be written to: a clear word, nothing partial, and the
rest afterwards."""

import subprocess

import pytest

from cingulum.cli import main
from tests.pipeline.test_run import digest

pytestmark = pytest.mark.slow

OPTIONS = [
    "participant",
    "--participant-label",
    "01",
    "02",
    "03",
    "--modalities",
    "rcbf",
    "hfhrv",
    "--n-jobs",
    "2",
]


@pytest.fixture
def disk(tmp_path):
    """A disk of 200 kB, mounted as the output folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", folder],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_afterwards(
    small_cohort, disk, tmp_path, capsys
):
    assert main(["run", str(small_cohort), str(disk), *OPTIONS]) in (3, 4)
    said = capsys.readouterr().err
    assert "No space left" in said or "cannot write" in said
    assert "Traceback" not in said
    assert main(["run", str(small_cohort), str(tmp_path / "whole"), *OPTIONS]) == 0
    whole = digest(tmp_path / "whole")
    for name, content in digest(disk).items():
        assert whole.get(name) == content or name == "failures.tsv", (
            f"{name} is partial"
        )
    remount(disk, "size=100m")
    assert main(["run", str(small_cohort), str(disk), *OPTIONS]) == 0
    assert digest(disk) == whole


def test_a_disk_that_cannot_be_written_is_told(small_cohort, disk, capsys):
    remount(disk, "size=100m")
    assert main(["run", str(small_cohort), str(disk), *OPTIONS[:-6]]) == 0
    remount(disk, "ro")
    capsys.readouterr()
    assert main(["run", str(small_cohort), str(disk), *OPTIONS]) in (3, 4)
    said = capsys.readouterr().err
    assert "Read-only file system" in said and "Traceback" not in said
    remount(disk, "rw")
    assert main(["run", str(small_cohort), str(disk), *OPTIONS]) == 0
