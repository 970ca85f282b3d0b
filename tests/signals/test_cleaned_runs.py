"""Runs that another pipeline cleaned: XCP-D's (mean zero, no mask), tedana's (with a
mean), and ICA-AROMA's, whose recipe goes on."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.io.images import write_image
from cingulum.io.visit import visits
from cingulum.signals.atlas import read_atlas
from cingulum.signals.bold import Denoising, read_bold
from cingulum.signals.parcellation import regional_series

AFFINE = np.array([[6.0, 0, 0, -72], [0, 6.0, 0, -105], [0, 0, 6.0, -60], [0, 0, 0, 1]])
GRID, VOLUMES, TR = (24, 30, 24), 120, 2.0
REGIONS = ("LH_Vis_1", "RH_Vis_1", "LH_Insula", "Thalamus")
SPACE = "space-MNI152NLin2009cAsym_res-2"


def labels():
    image = np.zeros(GRID, np.int16)
    for number in range(4):
        image[4 + 4 * number : 7 + 4 * number, 10:18, 8:14] = number + 1
    return image


def write_atlas(folder):
    folder.mkdir(parents=True)
    path = folder / "atlas-Four_space-MNI152NLin2009cAsym_dseg.nii.gz"
    write_image(path, labels(), AFFINE)
    table = pd.DataFrame({"index": [1, 2, 3, 4], "label": REGIONS})
    table.to_csv(folder / f"{path.name[:-7]}.tsv", sep="\t", index=False)
    return path


def dataset(root, name):
    root.mkdir(parents=True)
    description = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "derivative"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def brain():
    index = np.indices(GRID) - (np.array(GRID)[:, None, None, None] - 1) / 2
    size = np.array(GRID)[:, None, None, None]
    return (index**2 / (0.45 * size) ** 2).sum(0) < 1


def noise(seed):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=VOLUMES)
    return rng.normal(size=(*GRID, VOLUMES)) + 0.5 * common


def write_run(root, run="", seed=1, desc="denoised", mean=0.0):
    """A cleaned image, and the table that its pipeline made of it."""
    func = root / "sub-01" / "func"
    func.mkdir(parents=True, exist_ok=True)
    signals = noise(seed)
    signals -= signals.mean(-1, keepdims=True)
    data = ((signals + mean) * brain()[..., None]).astype(np.float32)
    stem = f"sub-01_task-rest{run}"
    image = func / f"{stem}_{SPACE}_desc-{desc}_bold"
    write_image(func / f"{image.name}.nii.gz", data, AFFINE, TR)
    (func / f"{image.name}.json").write_text(json.dumps({"RepetitionTime": TR}))
    number = labels()
    series = {
        region: data[(number == k + 1) & brain()].astype(float).mean(0)
        for k, region in enumerate(REGIONS)
    }
    table = pd.DataFrame(series)
    name = f"{stem}_space-MNI152NLin2009cAsym_seg-Four_stat-mean_timeseries"
    table.to_csv(func / f"{name}.tsv", sep="\t", index=False)
    (func / f"{name}.json").write_text(json.dumps({"RepetitionTime": TR}))
    outliers = pd.DataFrame({"framewise_displacement": np.zeros(VOLUMES, int)})
    outliers.to_csv(func / f"{stem}_outliers.tsv", sep="\t", index=False)
    return table


def connectivity(root, out, *options):
    command = ["features", str(root), str(out), "--features", "fc", *options]
    assert main(command) == 0
    return pd.read_csv(out / "features.tsv", sep="\t").filter(like="fc_").to_numpy()[0]


def test_our_parcellation_of_the_image_is_the_table_of_the_pipeline(tmp_path):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    write_run(root)
    atlas = write_atlas(tmp_path / "atlases")
    voxels = connectivity(root, tmp_path / "voxels", "--atlas", str(atlas))
    table = connectivity(root, tmp_path / "table", "--atlas", "Four")
    np.testing.assert_allclose(voxels, table, atol=1e-6)
    (sidecar,) = (tmp_path / "voxels").glob("sub-01/func/*relmat.json")
    denoising = json.loads(sidecar.read_text())["Details"]["Denoising"]
    assert "nothing is regressed out again" in denoising["Description"]


def test_joined_runs_of_the_pipeline_are_taken(tmp_path):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    atlas = write_atlas(tmp_path / "atlases")
    for seed, run in enumerate(("_run-01", "_run-02", "")):
        write_run(root, run, seed)
    voxels = connectivity(root, tmp_path / "voxels", "--atlas", str(atlas))
    table = connectivity(root, tmp_path / "table", "--atlas", "Four")
    np.testing.assert_allclose(voxels, table, atol=1e-6)
    [visit] = visits(root)
    assert "run" not in visit["bold"].name


def test_a_cleaned_run_has_no_percent_and_says_so(tmp_path, capsys):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    write_run(root)
    bold = read_bold(visits(root)[0])
    assert bold.unit == "as cleaned" and np.isnan(bold.tsnr)
    # Outside the head nothing varies.
    np.testing.assert_array_equal(bold.mask, brain())
    out = tmp_path / "out"
    assert main(["features", str(root), str(out), "--features", "s1conn"]) in (3, 4)
    assert "--seed-kind correlation" in capsys.readouterr().err
    options = ["--features", "s1conn", "--seed-kind", "fisherz"]
    options += ["--seed", "0", "-20", "10", "--seed-label", "middle"]
    assert main(["features", str(root), str(out), *options]) == 0


def test_a_cleaned_run_with_a_mean_is_in_percent(tmp_path):
    """tedana's, in which the mean is left."""
    root = dataset(tmp_path / "tedana", "tedana")
    write_run(root, mean=1000.0)
    atlas = read_atlas(write_atlas(tmp_path / "atlases"))
    bold = read_bold(visits(root)[0])
    assert bold.unit == "percent"
    assert bold.signals.std() == pytest.approx(0.11, abs=0.01)
    assert regional_series(bold, atlas).series.unit == "percent"


def test_a_preprocessed_run_is_taken_before_a_cleaned_one(tmp_path):
    root = dataset(tmp_path / "all", "both")
    write_run(root, mean=1000.0, desc="preproc")
    write_run(root, desc="denoised")
    assert "desc-preproc" in visits(root)[0]["bold"].name


def confounds(func, stem):
    rng = np.random.default_rng(0)
    table = {name: rng.normal(size=VOLUMES) for name in ("csf", "white_matter")}
    table["cosine00"] = np.cos(np.pi * (np.arange(VOLUMES) + 0.5) / VOLUMES)
    table["framewise_displacement"] = np.r_[np.nan, np.full(VOLUMES - 1, 0.1)]
    name = f"{stem}_desc-confounds_timeseries.tsv"
    func.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(table)
    frame.to_csv(func / name, sep="\t", index=False, na_rep="n/a")
    return frame


@pytest.fixture
def aroma(tmp_path):
    """fMRIPost-AROMA's run in its own dataset, confounds and mask in fMRIPrep's."""
    root = dataset(tmp_path / "aroma", "fMRIPost-AROMA")
    write_run(root, mean=1000.0, desc="nonaggrDenoised")
    fmriprep = dataset(tmp_path / "fmriprep", "fMRIPrep")
    func = fmriprep / "sub-01" / "func"
    confounds(func, "sub-01_task-rest")
    mask = func / f"sub-01_task-rest_{SPACE}_desc-brain_mask.nii.gz"
    write_image(mask, brain().astype(np.uint8), AFFINE)
    filters = {"bold": {"desc": "nonaggrDenoised"}}
    return visits(root, filters=filters, derivatives=[fmriprep])[0]


def test_aroma_goes_on_with_fluid_white_matter_and_drifts(aroma):
    bold = read_bold(aroma, Denoising("aroma"))
    # The regressors are gone from the cleaned signals.
    table = pd.read_csv(aroma["confounds"], sep="\t")
    for name in ("csf", "white_matter", "cosine00"):
        regressor = table[name].to_numpy() - table[name].mean()
        assert np.abs(bold.signals @ regressor).max() < 1e-2


def test_aroma_is_no_place_for_motion_regression(aroma):
    with pytest.raises(InputError, match="took motion out already"):
        read_bold(aroma, Denoising("basic"))


def test_a_cleaned_run_with_a_wrong_table_of_outliers_is_refused(tmp_path):
    root = dataset(tmp_path / "xcp_d", "XCP-D")
    write_run(root)
    (outliers,) = root.rglob("*outliers.tsv")
    outliers.write_text("framewise_displacement\n" + "1\n" * 7)
    with pytest.raises(InputError, match="lists 7"):
        read_bold(visits(root)[0])


def test_atlas_image_is_read_with_the_names_of_its_table(tmp_path):
    path = write_atlas(tmp_path / "atlases")
    assert read_atlas(path).regions == REGIONS
    assert nib.load(path).shape == GRID
