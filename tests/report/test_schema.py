"""The schema of summary.json: as it is published, and as summaries are written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from cingulum.prediction.statistics import Interval
from cingulum.report.results import (
    BOTH_VISITS,
    CalibrationSection,
    Caution,
    Conformal,
    Gaps,
    MapSection,
    Outlier,
    Peak,
    QualitySection,
    RegressionSection,
    Spread,
    to_plain,
)
from cingulum.report.schema import summary_schema
from cingulum.report.study import summary_of
from tests.report.test_page import results_of

PUBLISHED_SCHEMA = Path(__file__).parents[2] / "docs" / "summary_schema.json"

CURVE = np.array([[0.25, 0.3, 6.0], [0.75, np.nan, 6.0]])

PEAK = Peak("FDR .05", "1a", 4.0, -8.0, 12.0, 3.2, "", "ACC 19", 5.5)

REGRESSION = RegressionSection(
    participants=12,
    scans=24,
    figures={"r": float("nan")},
    intervals={"r": Interval(-0.2, 0.4)},
    p=0.5,
    p_pooled=0.5,
    null_r_within_state=Spread(0.0, 0.1, -0.2, 0.2),
    baselines={"mean": {"r": 0.0}},
    conformal=Conformal(0.9, 30.0),
    model="ridge",
    on="responses",
    folds=10,
    permutations=19,
)


def full_results():
    """Results with sections that a small study lacks."""
    results = results_of("pre")
    estimands = replace(
        results.section.estimands, between_patients={BOTH_VISITS: REGRESSION}
    )
    section = replace(
        results.section,
        estimands=estimands,
        calibration=CalibrationSection(0.2, CURVE),
    )
    return replace(
        results,
        section=section,
        quality=QualitySection(
            3.5, ["motion"], [Outlier("sub-01", "motion", 1.0, 0.1)]
        ),
        maps={"rcbf": MapSection(343, 10, 2, 0, float("nan"), [PEAK])},
        gaps=Gaps({"sub-13": "no rating"}, ["sub-14"], {"sub-01": {"rcbf": "damaged"}}),
    )


def validator():
    return Draft202012Validator(summary_schema())


def written(results):
    """A summary as it is read back from its file."""
    content = to_plain({**summary_of(results), "files": {"features.tsv": "0" * 64}})
    return json.loads(json.dumps(content, allow_nan=False))


def test_the_published_schema_is_that_of_the_classes():
    published = json.loads(PUBLISHED_SCHEMA.read_text(encoding="utf-8"))
    assert published == summary_schema(), (
        "docs/summary_schema.json is not the schema of the report's classes: run "
        "scripts/summary-schema"
    )


def test_the_schema_is_valid_itself():
    Draft202012Validator.check_schema(summary_schema())


@pytest.mark.parametrize("make", [lambda: results_of("pre"), full_results])
def test_summaries_follow_the_schema(make):
    errors = validator().iter_errors(written(make()))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("planted", {"r": "high"}),
        ("warnings", [to_plain(Caution("note", "text")) | {"more": 1}]),
        ("unknown", 1),
    ],
)
def test_other_content_is_refused(key, value):
    assert not validator().is_valid(written(results_of("pre")) | {key: value})
