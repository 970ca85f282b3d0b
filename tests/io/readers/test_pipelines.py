"""What XCP-D and ASLPrep wrote is read without a voxel, by `features` and `run`."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.io.readers.aslprep import read_regional_flow
from cingulum.io.readers.xcpd import read_regional_table
from cingulum.io.visit import visits
from tests.io.readers.pipelines import (
    ATLAS,
    REGIONS,
    TR,
    VOLUMES,
    aslprep_visit,
    dataset,
    paired_dataset,
    table,
    xcpd_visit,
)


@pytest.mark.parametrize("entity", ["seg", "atlas"])
def test_connectivity_is_that_of_the_table(tmp_path, entity):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    series = xcpd_visit(root, "sub-01", 1, entity=entity)
    aslprep = dataset(tmp_path / "aslprep", "ASLPrep")
    flow = aslprep_visit(aslprep, "sub-01", 2)
    out = tmp_path / "out"
    command = ["features", str(root), str(out), "--derivatives", str(aslprep)]
    assert main([*command, "--atlas", ATLAS, "--features", "fc", "cbf", "motion"]) == 0
    row = pd.read_csv(out / "features.tsv", sep="\t").iloc[0]
    # The censored volume counts in no correlation.
    kept = series.drop(index=5)
    expected = np.arctanh(kept.corr().to_numpy()[np.tril_indices(len(REGIONS), -1)])
    measured = row[[name for name in row.index if name.startswith("fc_")]]
    np.testing.assert_allclose(measured.to_numpy(float), expected, atol=1e-6)
    for region in REGIONS:
        column = "cbf_" + region.replace("-", "_")
        assert row[column] == pytest.approx(flow[region], abs=1e-4)
    assert 0.05 < row["motion"] < 0.15


def test_a_paired_study_without_a_voxel(tmp_path, capsys):
    """The planted rise of connectivity is found, the controls are there, and the
    methods say where the signals come from."""
    raw = paired_dataset(tmp_path / "raw", 12)
    out = tmp_path / "out"
    command = ["run", str(raw), str(out), "group", "--atlas", ATLAS]
    options = ["--modalities", "fc", "cbf", "--permutations", "99"]
    assert main([*command, *options]) == 0, capsys.readouterr().err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["prediction"]["fc"]["accuracy"] >= 0.9
    assert "motion" in summary["prediction"]
    assert not (out / "failures.tsv").exists()


def own_visit(root: Path):
    (visit,) = visits(root)
    return visit


def test_volumes_that_are_empty_or_censored_are_left_out(tmp_path):
    root = dataset(tmp_path, "XCP-D")
    series = xcpd_visit(root, "sub-01", 1)
    read = read_regional_table(own_visit(root), ATLAS)
    assert read.signals.shape == (len(REGIONS), VOLUMES - 1) and read.tr == 2.0
    (path,) = root.rglob(f"*seg-{ATLAS}_stat-mean_timeseries.tsv")
    series.iloc[7] = np.nan
    table(path, series)
    assert read_regional_table(own_visit(root), ATLAS).signals.shape[1] == VOLUMES - 2
    # A table of the kept volumes only, as XCP-D writes it when asked to.
    table(path, series.drop(index=[5, 7]).dropna())
    with pytest.raises(InputError, match="118 volumes, but .*lists 120, 119"):
        read_regional_table(own_visit(root), ATLAS)


def test_a_region_that_is_not_covered_keeps_its_columns(tmp_path):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    series = xcpd_visit(root, "sub-01", 1)
    (path,) = root.rglob(f"*seg-{ATLAS}_stat-mean_timeseries.tsv")
    table(path, series.assign(Thalamus=np.nan))
    out = tmp_path / "out"
    command = ["features", str(root), str(out), "--atlas", ATLAS]
    assert main([*command, "--features", "fc", "quality"]) == 0
    row = pd.read_csv(out / "features.tsv", sep="\t").iloc[0]
    with_thalamus = [name for name in row.index if "Thalamus" in name]
    assert len(with_thalamus) == 5 and row[with_thalamus].isna().all()
    assert row["quality_regions_missing"] == 1 and "Thalamus" in row["flags"]


def test_other_names_are_named(tmp_path, capsys):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    xcpd_visit(root, "sub-01", 1)
    other = (*REGIONS[:-1], "Pallidum")
    xcpd_visit(root, "sub-02", 2, regions=other)
    out = tmp_path / "out"
    command = ["features", str(root), str(out), "--atlas", ATLAS, "--features", "fc"]
    assert main(command) == 3
    assert "only here Pallidum; only there Thalamus" in capsys.readouterr().err
    assert main([*command[:4], "Nowhere", *command[5:]]) == 4
    assert f"tables of {ATLAS}, Glasser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.assign(x=["a"] * len(t)), "'x' holds text"),
        (lambda t: t.iloc[:3], "volumes"),
        (lambda t: t.set_axis([*REGIONS[:-1], REGIONS[0]], axis=1), "regions"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, capsys, damage, message):
    root = dataset(tmp_path, "XCP-D")
    series = xcpd_visit(root, "sub-01", 1)
    (path,) = root.rglob(f"*seg-{ATLAS}_stat-mean_timeseries.tsv")
    for file in root.rglob("*outliers.tsv"):
        file.unlink()
    table(path, damage(series))
    out = tmp_path / "out"
    command = ["features", str(root), str(out), "--atlas", ATLAS, "--features", "fc"]
    assert main(command) in (3, 4)
    assert message in capsys.readouterr().err


def test_the_repetition_time_is_asked_for(tmp_path):
    root = dataset(tmp_path, "XCP-D")
    xcpd_visit(root, "sub-01", 1)
    for file in root.rglob("*timeseries.json"):
        file.write_text("{}")
    with pytest.raises(InputError, match="repetition time is not known"):
        read_regional_table(own_visit(root), ATLAS)


def test_flow_of_other_releases_and_of_failed_scans(tmp_path):
    root = dataset(tmp_path, "ASLPrep")
    flow = aslprep_visit(root, "sub-01", 1)
    (path,) = root.rglob(f"*atlas-{ATLAS}_cbf.tsv")
    table(path, pd.DataFrame({"node": flow.index, "cbf": flow.to_numpy()}))
    read = read_regional_flow(own_visit(root), ATLAS)
    np.testing.assert_allclose(read[list(REGIONS)], flow[list(REGIONS)])
    table(path, (0 * flow).to_frame().T)
    with pytest.raises(InputError, match="ml/100 g/min"):
        read_regional_flow(own_visit(root), ATLAS)


def test_two_runs_are_joined_and_a_joined_table_is_taken_instead(tmp_path):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    first = xcpd_visit(root, "sub-01", 1, run="_run-01")
    second = xcpd_visit(root, "sub-01", 2, run="_run-02")
    kept = [table.drop(index=5) for table in (first, second)]
    z = [(table - table.mean()) / table.std(ddof=0) for table in kept]
    expected = pd.concat(z).corr().to_numpy()[np.tril_indices(len(REGIONS), -1)]
    values = own_connectivity(root, tmp_path / "two")
    np.testing.assert_allclose(np.tanh(values), expected, atol=1e-6)
    # As XCP-D writes it with --combine-runs.
    joined = xcpd_visit(root, "sub-01", 3)
    expected = joined.drop(index=5).corr().to_numpy()
    values = own_connectivity(root, tmp_path / "joined")
    lower = expected[np.tril_indices(len(REGIONS), -1)]
    np.testing.assert_allclose(np.tanh(values), lower, atol=1e-6)


def own_connectivity(root, out):
    command = ["features", str(root), str(out), "--atlas", ATLAS, "--features", "fc"]
    assert main(command) == 0
    table = pd.read_csv(out / "features.tsv", sep="\t")
    return table.filter(like="fc_").to_numpy()[0]


def test_a_region_that_one_visit_lacks_costs_its_columns_not_its_person(
    tmp_path, capsys
):
    """Of 20 regions one is not covered in one visit: a tenth of the pairs."""
    regions = tuple(f"region{k:02d}" for k in range(20))
    raw = paired_dataset(tmp_path / "raw", 10, regions)
    (path,) = raw.rglob(f"sub-03_ses-2*seg-{ATLAS}_stat-mean_timeseries.tsv")
    series = pd.read_csv(path, sep="\t")
    table(path, series.assign(region05=np.nan))
    out = tmp_path / "out"
    command = ["run", str(raw), str(out), "group", "--atlas", ATLAS]
    options = ["--modalities", "fc", "--permutations", "19"]
    assert main([*command, *options]) == 0, capsys.readouterr().err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cohort"]["patients"] == 10
    (flag,) = [name for name in summary["flags"] if "left out for everybody" in name]
    assert "19 columns" in flag and summary["flags"][flag] == 1
    written = pd.read_csv(out / "features.tsv", sep="\t")
    connections = written.filter(like="fc ")
    assert connections.shape[1] == 171 and connections.notna().all(axis=None)
    assert not connections.columns.str.contains("region05").any()


def write_ptseries(path, series):
    """As XCP-D writes what it averaged over the surface (CIFTI-2)."""
    names = list(series.columns)
    places = [np.array([[k, 0, 0]]) for k in range(len(names))]
    affine = np.diag([2.0, 2, 2, 1])
    shape = (len(names) + 1, 5, 5)
    empty = [{} for _ in names]
    parcels = nib.cifti2.ParcelsAxis(names, places, empty, affine, shape)
    time = nib.cifti2.SeriesAxis(0, TR, len(series), "SECOND")
    nib.save(nib.Cifti2Image(series.to_numpy(), (time, parcels)), path)


def test_cifti_of_the_surface_is_read_as_the_table_is(tmp_path):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    xcpd_visit(root, "sub-01", 1)
    expected = own_connectivity(root, tmp_path / "table")
    for path in root.rglob("*_timeseries.tsv"):
        series = pd.read_csv(path, sep="\t")
        stem = path.name.replace("_stat-mean_timeseries.tsv", "")
        name = f"{stem}_den-91k_stat-mean_timeseries.ptseries.nii"
        write_ptseries(path.with_name(name), series)
    # Beside each other, the table is taken.
    (visit,) = visits(root)
    assert visit[f"series:{ATLAS}"].suffix == ".tsv"
    for path in root.rglob("*_timeseries.tsv"):
        path.unlink()
    for path in root.rglob("*_timeseries.json"):
        path.unlink()
    # The repetition time is in the file.
    found = own_connectivity(root, tmp_path / "cifti")
    np.testing.assert_allclose(found, expected, atol=1e-6)
