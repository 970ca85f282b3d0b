"""Connection weights as QSIRecon writes them, and one person's whole tree."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import scipy.io

from cingulum import read_connectome
from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.io.readers.mat5 import read_mat
from cingulum.io.readers.qsirecon import read_mat_connectivity
from cingulum.io.visit import visits
from cingulum.signals.atlas import NamedAtlas
from cingulum.signals.visit_connectome import own_connectome
from tests.io.damage import number_refused
from tests.io.readers.pipelines import (
    ATLAS,
    REGIONS,
    aslprep_visit,
    dataset,
    paired_dataset,
    qsirecon_visit,
    xcpd_visit,
)

NOWHERE = np.full((len(REGIONS), 3), np.nan)
NAMED = NamedAtlas(REGIONS, ATLAS, NOWHERE)


@pytest.fixture
def qsirecon(tmp_path):
    """The dataset, its file, and the expected weights in the order of the atlas."""
    root = dataset(tmp_path / "qsirecon", "QSIRecon")
    counts = qsirecon_visit(root, "sub-01", 1)
    (path,) = root.rglob("*.mat")
    return root, path, counts.loc[list(REGIONS), list(REGIONS)].to_numpy()


def test_weights_are_matched_by_name_and_weighted_counts_come_first(qsirecon):
    root, path, expected = qsirecon
    (visit,) = visits(xcpd_root(root))
    weights = own_connectome(visit, NAMED)
    np.testing.assert_array_equal(weights, expected)
    read = read_mat_connectivity(path, regions=REGIONS)
    assert (read.atlas, read.measure) == (ATLAS, "sift_radius2_count")


def xcpd_root(root):
    # Tractography alone makes no visit.
    xcpd_visit(root, "sub-01", 1)
    return root


def test_one_person_of_three_pipelines_without_a_voxel(tmp_path, qsirecon, capsys):
    """XCP-D, ASLPrep and QSIRecon: three features from one command."""
    root, path, expected = qsirecon
    xcpd = dataset(tmp_path / "xcp_d", "XCP-D")
    xcpd_visit(xcpd, "sub-01", 1)
    aslprep = dataset(tmp_path / "aslprep", "ASLPrep")
    aslprep_visit(aslprep, "sub-01", 2)
    out = tmp_path / "out"
    command = ["features", str(xcpd), str(out), "-d", str(aslprep), str(root)]
    features = ["--atlas", ATLAS, "--features", "fc", "cbf", "mechanism"]
    assert main([*command, *features]) == 0, capsys.readouterr().err
    row = pd.read_csv(out / "features.tsv", sep="\t").iloc[0]
    for name in ("fc_", "cbf_", "mechanism_"):
        assert row.filter(like=name).notna().all() and len(row.filter(like=name)) >= 6
    (kept,) = out.glob("sub-01/func/*mechanism*relmat.tsv")
    values = np.loadtxt(kept, delimiter="\t")
    np.testing.assert_allclose(values[:, len(REGIONS) :], expected)
    sidecar = json.loads(kept.with_suffix(".json").read_text())
    assert sidecar["Details"]["Connectome"] == "own"
    assert any(path.name in source for source in sidecar["Sources"])


def test_without_a_connectome_of_its_own_a_visit_is_refused(tmp_path, capsys):
    xcpd = dataset(tmp_path / "xcp_d", "XCP-D")
    xcpd_visit(xcpd, "sub-01", 1)
    out = tmp_path / "out"
    command = ["features", str(xcpd), str(out), "--atlas", ATLAS]
    assert main([*command, "--features", "mechanism"]) in (3, 4)
    assert "--connectome" in capsys.readouterr().err


def test_a_table_with_names_is_matched_by_name(tmp_path):
    root = dataset(tmp_path / "qsirecon", "QSIRecon")
    xcpd_visit(root, "sub-01", 1)
    rng = np.random.default_rng(0)
    weights = pd.DataFrame(rng.random((6, 6)), REGIONS[::-1], REGIONS[::-1])
    folder = root / "sub-01" / "dwi"
    folder.mkdir()
    weights.to_csv(folder / "sub-01_relmat.tsv", sep="\t", index=False)
    (visit,) = visits(root)
    expected = weights.loc[list(REGIONS), list(REGIONS)].to_numpy()
    np.testing.assert_allclose(own_connectome(visit, NAMED), expected)
    other = NamedAtlas((*REGIONS[:-1], "Pons"), ATLAS, NOWHERE)
    with pytest.raises(InputError, match="only here Thalamus; only there Pons"):
        own_connectome(visit, other)


def test_a_file_of_one_atlas_is_a_connectome(tmp_path, qsirecon):
    _, path, _ = qsirecon
    content = scipy.io.loadmat(path)
    one = {k: v for k, v in content.items() if "_Two_" in k}
    scipy.io.savemat(tmp_path / "one.mat", one)
    assert read_connectome(tmp_path / "one.mat").regions == ("a", "b")
    with pytest.raises(InputError, match=f"holds the atlases {ATLAS}, Two"):
        read_connectome(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop(f"atlas_{ATLAS}_region_labels"), "Choose one of them"),
        (lambda c: [c.pop(k) for k in list(c) if "labels" in k], "names of regions"),
        (
            lambda c: [c.pop(k) for k in list(c) if "_count_" in k],
            None,
        ),
        (
            lambda c: c.update(
                {f"atlas_{ATLAS}_sift_radius2_count_connectivity": np.ones((3, 3))}
            ),
            r"has shape \(3, 3\)",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, qsirecon, change, message):
    _, path, _ = qsirecon
    content = {k: v for k, v in scipy.io.loadmat(path).items() if k[0] != "_"}
    change(content)
    changed = tmp_path / "changed.mat"
    scipy.io.savemat(changed, content)
    if message is None:
        # A single measure is taken, whatever it is.
        read = read_mat_connectivity(changed, ATLAS, REGIONS)
        assert read.measure == "radius2_meanlength"
        return
    with pytest.raises(InputError, match=message):
        read_mat_connectivity(changed, ATLAS, REGIONS)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path, qsirecon, monkeypatch):
    _, path, _ = qsirecon
    monkeypatch.setattr("cingulum.io.readers.mat5.BUDGET", 1000)
    with pytest.raises(InputError, match="unpacks to more"):
        read_mat_connectivity(path, ATLAS)


@pytest.mark.parametrize(
    "times", [1000, pytest.param(10_000, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_files_raise_one_kind_of_error(tmp_path, qsirecon, times, compressed):
    _, path, _ = qsirecon
    content = {k: v for k, v in scipy.io.loadmat(path).items() if k[0] != "_"}
    damaged = tmp_path / "damaged.mat"
    scipy.io.savemat(damaged, content, do_compression=compressed)
    refused = number_refused(
        lambda: read_mat_connectivity(damaged, ATLAS, REGIONS), damaged, times
    )
    assert refused >= times / 2


def test_matlab_7_3_is_named(tmp_path):
    path = tmp_path / "new.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b" "))
    with pytest.raises(InputError, match="'-v7'"):
        read_mat_connectivity(path)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(12.0).reshape(3, 4),
        np.arange(5, dtype=np.uint8),
        np.array([[1, -2]], np.int32),
        np.float32([[0.5]]),
        np.arange(24, dtype=np.int64).reshape(2, 3, 4),
    ],
    ids=["double", "bytes", "whole numbers", "single", "three dimensions"],
)
def test_arrays_are_those_that_scipy_reads(tmp_path, value, compressed):
    """scipy reads what is whole; it is what is damaged that ends it."""
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"x": value}, do_compression=compressed)
    np.testing.assert_array_equal(
        read_mat(path.read_bytes())["x"], scipy.io.loadmat(path)["x"]
    )


def test_texts_and_cells(tmp_path):
    path = tmp_path / "x.mat"
    names = ("Thalamus", "HN", "Äther")
    content = {
        "rows": np.array(names),
        "cells": np.array(names, dtype=object),
        "structure": {"a": 1.0},
        "complex": np.array([1j]),
    }
    scipy.io.savemat(path, content)
    read = read_mat(path.read_bytes())
    assert read["rows"] == read["cells"] == names
    assert not {"structure", "complex"} & set(read)


@pytest.mark.slow
def test_a_study_of_three_pipelines(tmp_path, capsys):
    """Ten people at two visits: predicted from connectivity, blood flow and the
    parameters of brains on their own connectomes."""
    raw = paired_dataset(tmp_path / "raw", 10)
    root = dataset(raw / "derivatives" / "qsirecon", "QSIRecon")
    for person in range(10):
        for session in (1, 2):
            qsirecon_visit(root, f"sub-{person + 1:02d}_ses-{session}", person)
    out = tmp_path / "out"
    command = ["run", str(raw), str(out), "group", "--atlas", ATLAS]
    options = ["--modalities", "fc", "cbf", "mechanism", "--permutations", "19"]
    assert main([*command, *options]) == 0, capsys.readouterr().err
    summary = json.loads((out / "summary.json").read_text())
    assert {"fc", "cbf", "mechanism", "fused"} <= set(summary["prediction"])
    assert summary["prediction"]["fc"]["accuracy"] >= 0.8
    assert not (out / "failures.tsv").exists()
