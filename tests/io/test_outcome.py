"""Outcomes by name and scale, from sessions tables, phenotype/ and participants.tsv."""

import json

import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.io.cohort import read_cohort
from cingulum.io.outcome import RatedOutcome
from cingulum.pipeline.config import StudyConfig, with_options
from cingulum.pipeline.paired_study import outcome_of
from tests.io.readers.pipelines import ATLAS, paired_dataset, table

PEOPLE = 10


@pytest.fixture
def raw(tmp_path):
    return paired_dataset(tmp_path / "raw", PEOPLE)


def without_pain(raw):
    """Takes pain out of the sessions tables, and returns it: a row a visit."""
    rows = []
    for path in sorted(raw.glob("sub-*/*_sessions.tsv")):
        own = pd.read_csv(path, sep="\t")
        rows.append(own.assign(participant_id=path.parent.name))
        own.drop(columns="pain").to_csv(path, sep="\t", index=False)
    return pd.concat(rows, ignore_index=True)


def ratings(root, **settings):
    return read_cohort(root, outcome=RatedOutcome(**settings)).ratings


def test_another_column_of_the_sessions_tables(raw):
    expected = ratings(raw)
    for path in raw.glob("sub-*/*_sessions.tsv"):
        own = pd.read_csv(path, sep="\t")
        own["anxiety"] = own["pain"] / 25 - 1
        own.drop(columns="pain").to_csv(path, sep="\t", index=False)
    found = ratings(raw, column="anxiety", low=-1, high=3)
    assert found["pain"].to_numpy() == pytest.approx(expected["pain"] / 25 - 1)
    assert found.drop(columns="pain").equals(expected.drop(columns="pain"))


@pytest.mark.parametrize("name", ["phenotype/bpi.tsv", "participants.tsv"])
def test_a_table_with_a_row_a_visit(raw, name):
    expected = ratings(raw)
    long = without_pain(raw)
    # Backwards: the order of visits is that of the sessions tables.
    table(raw / name, long[::-1])
    assert ratings(raw).equals(expected)


def test_two_tables_with_the_column_ask_which(raw):
    long = without_pain(raw)
    table(raw / "phenotype" / "bpi.tsv", long)
    table(raw / "phenotype" / "diary.tsv", long.assign(pain=100 - long["pain"]))
    with pytest.raises(InputError, match=r"--outcome bpi\.pain"):
        ratings(raw)
    found = ratings(raw, column="diary.pain")
    bpi = ratings(raw, column="bpi.pain")
    assert found["pain"].to_numpy() == pytest.approx(100 - bpi["pain"].to_numpy())


def test_what_is_missing_names_the_places_and_the_option(raw):
    with pytest.raises(InputError, match="phenotype/.*--outcome"):
        ratings(raw, column="anxiety")


def test_a_value_beyond_the_scale_is_refused(raw):
    with pytest.raises(InputError, match="expected a pain rating from 0 to 10"):
        ratings(raw, high=10)


@pytest.mark.parametrize("ends", [(100.0, 0.0), (0.0, float("nan")), (5.0, 5.0)])
def test_scales_that_are_none(ends):
    with pytest.raises(InputError, match="--outcome-range"):
        RatedOutcome("pain", *ends)


def test_one_end_is_no_scale():
    study = with_options(StudyConfig(), {"prediction.outcome_range": [3]})
    with pytest.raises(InputError, match="two numbers.*got 1"):
        outcome_of(study)


def test_run_on_another_outcome(raw, tmp_path):
    long = without_pain(raw)
    scale = long.assign(nrs=long["pain"] / 10).drop(columns="pain")
    table(raw / "phenotype" / "bpi.tsv", scale)
    out = tmp_path / "out"
    command = ["run", str(raw), str(out), "group", "--atlas", ATLAS]
    options = ["--modalities", "fc", "--permutations", "19", "--outcome", "nrs"]
    assert main([*command, *options, "--outcome-range", "0", "10"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cohort"]["patients"] == PEOPLE
    page = (out / "report.html").read_text()
    assert "What this page calls pain is the column nrs" in page
    study = (out / "study.toml").read_text()
    assert 'outcome = "nrs"' in study and "outcome_range = [0.0, 10.0]" in study
