"""Connectivities of The Virtual Brain."""

from __future__ import annotations

import bz2
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cingulum import read_connectome
from cingulum.errors import InputError
from cingulum.io.readers.tvb import read_tvb_connectivity
from tests.io.damage import number_refused

NAMES = ("rA1", "rA2", "lHC", "lV1")


def text(matrix: np.ndarray) -> str:
    lines = io.StringIO()
    np.savetxt(lines, matrix)
    return lines.getvalue()


def contents(seed: int = 0) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (4, 4)).astype(float)
    np.fill_diagonal(weights, 0)
    centres = rng.normal(size=(4, 3))
    lines = [f"{n} {x} {y} {z}" for n, (x, y, z) in zip(NAMES, centres, strict=True)]
    return {
        "weights.txt": text(weights),
        "tract_lengths.txt": text(100 * rng.random((4, 4))),
        "centres.txt": "\n".join(lines),
        "areas.txt": "1\n2\n3\n4\n",
        "info.txt": "anything",
    }


def archive(path: Path, files: dict[str, str], folder: str = "", packed: bool = False):
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            if packed:
                made.writestr(f"{folder}{name}.bz2", bz2.compress(content.encode()))
            else:
                made.writestr(folder + name, content)
    return path


@pytest.mark.parametrize("folder", ["", "connectivity_4/"])
@pytest.mark.parametrize("packed", [False, True])
def test_layouts_that_tvb_writes(tmp_path, folder, packed):
    files = contents()
    path = archive(tmp_path / "c.zip", files, folder, packed)
    read = read_tvb_connectivity(path)
    assert read.regions == NAMES
    for name, matrix in (("weights", read.weights), ("tract_lengths", read.lengths)):
        expected = np.loadtxt(io.StringIO(files[f"{name}.txt"]))
        np.testing.assert_array_equal(matrix, expected)
    connectome = read_connectome(path)
    assert connectome.regions == NAMES and connectome.lengths is not None
    # Directed, as tracers are; what a row receives from a column.
    scaled = connectome.weights.numpy() * read.weights.sum() / 4
    np.testing.assert_allclose(scaled, read.weights, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("weights.txt"), "weights.txt"),
        (lambda f: f.pop("centres.txt"), "centres.txt"),
        (lambda f: f.update({"weights.txt": "1 2\n3 4\n"}), "4 regions"),
        (lambda f: f.update({"weights.txt": "a b"}), "archive of The Virtual Brain"),
        (lambda f: f.update({"centres.txt": "rA1 1 2\n"}), "three coordinates"),
    ],
)
def test_what_is_no_connectivity(tmp_path, change, message):
    files = contents()
    change(files)
    with pytest.raises(InputError, match=message):
        read_tvb_connectivity(archive(tmp_path / "c.zip", files))


@pytest.mark.parametrize("packed", [False, True])
def test_bombs_and_paths_out_of_the_archive(tmp_path, monkeypatch, packed):
    monkeypatch.setattr("cingulum.io.readers.tvb.BUDGET", 10_000)
    files = contents() | {"areas.txt": "0" * 20_000}
    with pytest.raises(InputError, match="unpacks to more"):
        read_tvb_connectivity(archive(tmp_path / "bomb.zip", files, packed=packed))
    monkeypatch.undo()
    outside = archive(tmp_path / "c.zip", contents(), folder="../../outside/")
    assert read_tvb_connectivity(outside).regions == NAMES
    assert not (tmp_path.parent / "outside").exists()


@pytest.mark.parametrize(
    "times", [1000, pytest.param(10_000, marks=pytest.mark.slow)], ids=str
)
def test_damaged_archives_raise_one_kind_of_error(tmp_path, times):
    path = archive(tmp_path / "damaged.zip", contents())
    refused = number_refused(lambda: read_tvb_connectivity(path), path, times)
    # The rest was damaged where nothing is read.
    assert refused >= times / 2
