"""Several runs of one visit: of unequal length and repetition time, combined in closed
form."""

import json

import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.features import ParcelConnectivity
from cingulum.features.heart_rate import HeartRateVariability
from cingulum.features.run_combination import RunCombination
from cingulum.io.images import write_image
from cingulum.io.visit import visits
from cingulum.pipeline.feature_export import write_features
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.signals.atlas import SphereAtlas
from cingulum.signals.bold import Denoising
from cingulum.signals.regional_signals import regional_run
from cingulum.signals.visit_data import VisitData

AFFINE = np.array([[8.0, 0, 0, -76], [0, 8.0, 0, -108], [0, 0, 8.0, -68], [0, 0, 0, 1]])
GRID = (20, 24, 20)
RUNS = {"1": (80, 2.0), "2": (110, 2.0), "10": (64, 1.5), "3": (90, 0.8)}
"""Volumes and repetition time by run."""

PLACES = np.array([[-20.0, -40, 20], [20, -40, 20], [0, 20, 30], [0, -20, 0]])
REGIONS = ("left", "right", "front", "middle")


def write_run(func, run, volumes, tr, seed):
    """A run of correlated noise, with fMRIPrep's names."""
    rng = np.random.default_rng(seed)
    stem = f"sub-01_task-rest_run-{run}"
    image = f"{stem}_space-MNI152NLin2009cAsym"
    common = rng.normal(size=volumes)
    data = 1000 + 5 * rng.normal(size=(*GRID, volumes)) + 3 * common
    bold = f"{image}_desc-preproc_bold"
    write_image(func / f"{bold}.nii.gz", data.astype(np.float32), AFFINE, tr)
    (func / f"{bold}.json").write_text(json.dumps({"RepetitionTime": tr}))
    mask = np.zeros(GRID, np.uint8)
    mask[2:-2, 2:-2, 2:-2] = 1
    write_image(func / f"{image}_desc-brain_mask.nii.gz", mask, AFFINE)
    confounds = pd.DataFrame({"framewise_displacement": rng.uniform(0, 0.3, volumes)})
    confounds.loc[0] = np.nan
    name = f"{stem}_desc-confounds_timeseries.tsv"
    confounds.to_csv(func / name, sep="\t", index=False, na_rep="n/a")


@pytest.fixture(scope="module")
def four_runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    (root / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    func = root / "derivatives" / "fmriprep" / "sub-01" / "func"
    func.mkdir(parents=True)
    for seed, (run, (volumes, tr)) in enumerate(RUNS.items()):
        write_run(func, run, volumes, tr, seed)
    return root


@pytest.fixture
def atlas():
    return SphereAtlas(REGIONS, PLACES, radius=12.0, name="four")


def own_series(visit, atlas):
    """Regional signals of every run by itself, in the order of their numbers."""
    data = VisitData(visit, Denoising("none"))
    return [regional_run(run, atlas).series.data.numpy() for run in data.runs]


def measured(root, out, atlas, method, kind="correlation"):
    feature = ParcelConnectivity(atlas, kind)
    plan = MeasurementPlan({"fc": feature}, Denoising("none"), runs=method)
    result = write_features(root, out, plan)
    assert not result.failures
    table = pd.read_csv(out / "features.tsv", sep="\t")
    [sidecar] = out.glob("sub-01/func/*_relmat.json")
    # In the order of the lower triangle.
    values = table.filter(like="fc_").to_numpy()[0]
    return values, json.loads(sidecar.read_text())


def standardised(series):
    centred = series - series.mean(1, keepdims=True)
    return centred / centred.std(1, keepdims=True)


def test_runs_are_told_apart_and_in_the_order_of_their_numbers(four_runs):
    [visit] = visits(four_runs)
    names = [run["bold"].name.split("_run-")[1].split("_")[0] for run in visit.runs]
    assert names == ["1", "2", "3", "10"]
    # Everything else of a run comes with it.
    for name, run in zip(names, visit.runs, strict=True):
        assert f"_run-{name}_" in run["mask"].name
        assert f"_run-{name}_" in run["confounds"].name
    with pytest.raises(InputError, match="4 files for bold"):
        visit["bold"]


def test_joined_runs_are_the_correlation_of_standardised_runs_side_by_side(
    four_runs, atlas, tmp_path
):
    [visit] = visits(four_runs)
    joined = np.hstack([standardised(s) for s in own_series(visit, atlas)])
    expected = np.arctanh(np.corrcoef(joined)[np.tril_indices(4, -1)])
    found, sidecar = measured(four_runs, tmp_path, atlas, RunCombination.JOINED)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    details = sidecar["Details"]
    assert [run["Volumes"] for run in details["Runs"]] == [80, 110, 90, 64]
    assert [run["RepetitionTime"] for run in details["Runs"]] == [2.0, 2.0, 0.8, 1.5]
    assert details["RunsCombined"].startswith("joined")
    assert details["VolumesKept"] == 344
    assert sum("_bold.nii.gz" in uri for uri in sidecar["Sources"]) == 4


def test_fisher_z_is_weighted_by_kept_volumes(four_runs, atlas, tmp_path):
    [visit] = visits(four_runs)
    series = own_series(visit, atlas)
    z = [np.arctanh(np.corrcoef(s)[np.tril_indices(4, -1)]) for s in series]
    expected = np.average(z, axis=0, weights=[s.shape[1] for s in series])
    found, sidecar = measured(four_runs, tmp_path, atlas, RunCombination.FISHER)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert "Fisher z" in sidecar["Details"]["RunsCombined"]


def test_covariances_are_pooled_within_runs(four_runs, atlas, tmp_path):
    [visit] = visits(four_runs)
    series = own_series(visit, atlas)
    joined = np.hstack([s - s.mean(1, keepdims=True) for s in series])
    rows, columns = np.tril_indices(4)
    found, _ = measured(four_runs, tmp_path, atlas, RunCombination.JOINED, "covariance")
    # Divided by volumes or by volumes − 1 of each run: 1 % of 64 volumes.
    expected = (joined @ joined.T / joined.shape[1])[rows, columns]
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-6)


def test_features_of_voxels_motion_and_quality_take_several_runs(four_runs, tmp_path):
    out = tmp_path / "out"
    options = ["--features", "s1conn", "motion", "quality", "fcd", "--strategy", "none"]
    # Windows of a minute: the shortest runs hold too few.
    assert main(["features", str(four_runs), str(out), *options]) == 3
    assert "too few for windows" in (out / "failures.tsv").read_text()
    rows = pd.read_csv(out / "features.tsv", sep="\t").iloc[0]
    displacements = []
    for run in visits(four_runs)[0].runs:
        table = pd.read_csv(run["confounds"], sep="\t")
        displacements.append(table["framewise_displacement"].to_numpy())
    volumes = [len(one) for one in displacements]
    means = [np.nanmean(one) for one in displacements]
    assert rows["motion"] == pytest.approx(np.average(means, weights=volumes))
    assert rows["quality_volumes"] == 344
    largest = max(np.nanmax(one) for one in displacements)
    assert rows["quality_fd_max"] == pytest.approx(largest)


def test_the_choice_belongs_to_the_recipe(four_runs, atlas):
    feature = ParcelConnectivity(atlas)
    joined = MeasurementPlan({"fc": feature}, runs=RunCombination.JOINED)
    fisher = MeasurementPlan({"fc": feature}, runs=RunCombination.FISHER)
    assert joined.recipe_of(feature) != fisher.recipe_of(feature)


def test_a_chosen_run_is_read_alone(four_runs, tmp_path):
    filters = tmp_path / "filters.json"
    filters.write_text('{"bold": {"run": 2}}')
    out = tmp_path / "out"
    options = ["--features", "quality", "--strategy", "none"]
    filtered = ["--bids-filter-file", str(filters)]
    assert main(["features", str(four_runs), str(out), *options, *filtered]) == 0
    rows = pd.read_csv(out / "features.tsv", sep="\t")
    assert rows["quality_volumes"].tolist() == [110]


def test_files_that_differ_in_more_than_the_run_are_no_runs(four_runs, tmp_path):
    """Two tasks stay a question to the user."""
    func = tmp_path / "sub-01" / "func"
    func.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    write_run(func, "1", 40, 2.0, 0)
    for path in list(func.iterdir()):
        other = path.name.replace("task-rest_run-1", "task-pain_run-2")
        path.with_name(other).write_bytes(path.read_bytes())
    [visit] = visits(tmp_path)
    assert visit.runs == ()


def test_the_filter_to_write_names_what_the_feature_reads():
    with pytest.raises(InputError, match=r'{"cardiac": {"run": 1}}'):
        HeartRateVariability().combine_runs([None, None], RunCombination.JOINED)
