"""The three studies of examples/studies, as they stand, on a synthetic cohort."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from cingulum.cli import main
from cingulum.datasets import CohortSettings, synthesize
from cingulum.pipeline.config import read_study

STUDIES = sorted((Path(__file__).parents[2] / "examples" / "studies").glob("*.toml"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Ten patients, four minutes each, so that half a recording is enough for a fit."""
    torch.set_default_dtype(torch.float32)
    return synthesize(
        tmp_path_factory.mktemp("studies") / "cohort",
        CohortSettings(10, voxel=9.0, volumes=130, tr=2.0),
    )


def test_every_study_file_is_valid():
    assert [path.stem for path in STUDIES] == [
        "griffiths2022",
        "heat_pain",
        "lee2019",
        "mechanism_pain",
    ]
    assert [read_study(path).analysis for path in STUDIES] == [
        "model",
        "prediction",
        "prediction",
        "prediction",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "study",
    # Of real data, which the tests of that dataset run.
    [path for path in STUDIES if path.stem != "heat_pain"],
    ids=lambda path: path.stem,
)
def test_a_study_runs_from_dataset_to_report(cohort, tmp_path, study):
    out = tmp_path / "out"
    few = (
        ["--minutes", "4"]
        if study.stem == "griffiths2022"
        else ["--permutations", "99"]
    )
    assert (
        main(["run", str(cohort), str(out), "group", "--study", str(study), *few]) == 0
    )
    summary = json.loads((out / "summary.json").read_text())
    page = (out / "report.html").read_text()
    assert (
        summary["title"] in page
        and read_study(out / "study.toml").title == read_study(study).title
    )
    if study.stem == "griffiths2022":
        table = pd.read_csv(out / "features.tsv", sep="\t")
        assert len(table) == 20 and table[
            ["free_running", "linear_control", "baseline", "ceiling"]
        ].notna().all(None)
        assert {
            "free_running",
            "linear_control",
            "baseline",
            "sc_fc",
            "ceiling",
        } == set(summary["models"])
    else:
        assert {"s1conn", "rcbf", "hfhrv", "fused"} <= set(summary["prediction"])
        assert (out / "sub-01.html").is_file() and "@article{lee2019" in (
            out / "references.bib"
        ).read_text()
    if study.stem == "mechanism_pain":
        assert {"mechanism", "physiology"} <= set(summary["contributions"])
        assert "posterior standard deviations" in page
