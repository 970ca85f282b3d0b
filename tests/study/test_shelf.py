"""A report takes down what the one before it had besides, and nothing else."""

import json

import numpy as np
import pandas as pd
import pytest

from cingulum.study.shelf import Shelf, standing


def put_up(out, names, pages=()):
    shelf = Shelf(out)
    for name in names:
        shelf.table(name, pd.DataFrame({"x": [1]}))
    shelf.clear(pages)
    (out / "summary.json").write_text(json.dumps({"files": shelf.files, "pages": list(pages)}))
    for page in pages:
        (out / page).touch()


def test_what_the_last_report_had_besides_goes(tmp_path):
    (tmp_path / "mine.txt").write_text("notes of the user")
    put_up(tmp_path, ["maps/a.tsv", "maps/b.tsv", "model/a.tsv"], ["sub-01.html", "sub-02.html"])
    put_up(tmp_path, ["maps/b.tsv"], ["sub-02.html"])
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"mine.txt", "maps", "maps/b.tsv", "summary.json", "sub-02.html"}


def test_files_are_named_with_their_content(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.image("maps/a.nii.gz", np.zeros((2, 2, 2), np.float32), np.diag([2.0, 2, 2, 1]))
    shelf.bytes("a.bib", b"")
    assert shelf.files["a.bib"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert set(shelf.files) == {"maps/a.nii.gz", "a.bib"}


@pytest.mark.parametrize("name", ["../mine.txt", "/mine.txt", "maps/../../mine.txt", ".", 3])
def test_a_summary_cannot_have_files_elsewhere_removed(tmp_path, name):
    (tmp_path / "mine.txt").touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text(json.dumps({"files": {str(name): ""}, "pages": [name]}))
    assert standing(out) <= {"3"}
    Shelf(out).clear()
    assert (tmp_path / "mine.txt").is_file()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"files": null}'])
def test_a_damaged_summary_removes_nothing(tmp_path, content):
    (tmp_path / "summary.json").write_text(content)
    assert standing(tmp_path) == set()
