"""A report takes down what the one before it had besides, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cingulum.report.manifest import ReportManifest, read_manifest


def write_report(out, names):
    manifest = ReportManifest(out)
    for name in names:
        manifest.table(name, pd.DataFrame({"x": [1]}))
    manifest.remove_earlier()
    (out / "summary.json").write_text(json.dumps({"files": manifest.files}))


def content(folder):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*")}


def test_what_the_last_report_had_besides_goes(tmp_path):
    (tmp_path / "mine.txt").write_text("notes of the user")
    write_report(
        tmp_path,
        [
            "maps/a.tsv",
            "maps/b.tsv",
            "model/a.tsv",
            "sub-01.html",
            "sub-02.html",
            "figures/c.tsv",
        ],
    )
    (tmp_path / "figures" / "c.tsv").write_text("edited by the user")
    write_report(tmp_path, ["maps/b.tsv", "sub-02.html"])
    kept = {"mine.txt", "figures", "figures/c.tsv"}
    assert content(tmp_path) == {
        "maps",
        "maps/b.tsv",
        "summary.json",
        "sub-02.html",
        *kept,
    }


def test_a_folder_that_is_a_link_stays(tmp_path):
    """Maps on another disk."""
    out, disk = tmp_path / "out", tmp_path / "disk"
    out.mkdir()
    disk.mkdir()
    (out / "maps").symlink_to(disk)
    write_report(out, ["maps/a.tsv", "maps/b.tsv"])
    write_report(out, ["features.tsv"])
    assert content(disk) == set() and content(out) == {
        "maps",
        "features.tsv",
        "summary.json",
    }


def test_files_are_named_with_their_content(tmp_path):
    manifest = ReportManifest(tmp_path)
    manifest.image(
        "maps/a.nii.gz", np.zeros((2, 2, 2), np.float32), np.diag([2.0, 2, 2, 1])
    )
    manifest.bytes("a.bib", b"")
    assert (
        manifest.files["a.bib"]
        == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert set(manifest.files) == {"maps/a.nii.gz", "a.bib"}


@pytest.mark.parametrize(
    "name",
    [
        "../mine.tsv",
        "/mine.tsv",
        "maps/../../mine.tsv",
        "link/mine.tsv",
        ".",
        "maps",
        "work/visits/a.json",
        "dataset_description.json",
        "sub-01/ses-a/func/a.json",
    ],
)
def test_a_summary_cannot_have_other_files_removed(tmp_path, name):
    out, far = tmp_path / "out", tmp_path / "far"
    for path in (
        tmp_path / "mine.tsv",
        out / "maps" / "x",
        out / "work" / "visits" / "a.json",
        far / "mine.tsv",
        out / "dataset_description.json",
        out / "sub-01" / "ses-a" / "func" / "a.json",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (out / "link").symlink_to(far)
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (out / "summary.json").write_text(json.dumps({"files": {name: nothing}}))
    before = content(tmp_path)
    ReportManifest(out).remove_earlier()
    assert content(tmp_path) == before and (far / "mine.tsv").is_file()


@pytest.mark.parametrize("text", ["[]", "{"])
def test_a_damaged_summary_removes_nothing_and_is_told(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.warns(UserWarning, match="may stay beside the new ones"):
        assert read_manifest(tmp_path) == {}


@pytest.mark.parametrize(
    "text", ['{"files": null}', '{"files": 5}', '{"files": {"features.tsv": 3}}', "{}"]
)
def test_a_summary_without_files_removes_nothing(tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    assert read_manifest(tmp_path) == {}
