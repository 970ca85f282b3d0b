"""Of several output spaces, resolutions and recordings of one scan, one is taken in a
documented order; whatever else is several stays the user's to choose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cingulum.errors import InputError
from cingulum.io.visit import Visit, visits

STEM = "sub-01_task-rest"


def visit_of(root: Path, *names: str) -> Visit:
    folder = root / "sub-01" / "func"
    folder.mkdir(parents=True)
    (root / "dataset_description.json").write_text(json.dumps({"Name": "a"}))
    for name in names:
        (folder / f"{STEM}{name}").write_bytes(b"")
    (visit,) = visits(root)
    return visit


def bold(space: str, more: str = "", ending: str = ".nii.gz") -> str:
    return f"{more}_space-{space}_desc-preproc_bold{ending}"


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ([bold("MNI152NLin6Asym"), bold("MNI152NLin2009cAsym")], 1),
        ([bold("T1w"), bold("MNI152NLin6Asym")], 1),
        (
            [
                "_space-MNI152NLin6Asym_res-1_desc-preproc_bold.nii.gz",
                "_space-MNI152NLin6Asym_res-2_desc-preproc_bold.nii.gz",
            ],
            1,
        ),
        ([bold("MNI152NLin6Asym", ending=".nii")], 0),
    ],
)
def test_the_first_in_the_documented_order_is_taken(tmp_path, names, taken):
    visit = visit_of(tmp_path, *names)
    assert visit["bold"].name == f"{STEM}{names[taken]}"


def test_what_was_not_used_is_kept_for_the_sidecar(tmp_path):
    names = [bold("MNI152NLin6Asym"), bold("MNI152NLin2009cAsym")]
    assert visit_of(tmp_path, *names).not_used["bold"] == (f"{STEM}{names[0]}",)


def test_an_ecg_is_taken_before_a_pulse(tmp_path):
    endings = ["_recording-pulse_physio.tsv.gz", "_recording-ecg_physio.tsv.gz"]
    visit = visit_of(tmp_path, *endings)
    assert visit["cardiac"].name.endswith("ecg_physio.tsv.gz")


def test_runs_stay_the_users_to_choose(tmp_path):
    space = "MNI152NLin6Asym"
    visit = visit_of(tmp_path, bold(space, "_run-1"), bold(space, "_run-2"))
    with pytest.raises(InputError, match="bids-filter-file"):
        visit["bold"]


@pytest.mark.parametrize("label", ["²", "1"])
def test_digits_are_ascii(tmp_path, label):
    """A run called ² is no number, and no error."""
    name = bold("MNI152NLin6Asym", f"_run-{label}")
    root = tmp_path
    folder = root / "sub-01" / "func"
    folder.mkdir(parents=True)
    (folder / f"{STEM}{name}").write_bytes(b"")
    (folder / f"{STEM}{bold('MNI152NLin6Asym', '_run-3')}").write_bytes(b"")
    (root / "dataset_description.json").write_text("{}")
    (visit,) = visits(root, filters={"bold": {"run": 3}})
    assert "run-3" in visit["bold"].name
