"""What every feature promises, tested once for all: a new one is tested the moment it
is exported."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from cingulum.features import (
    FEATURES,
    ConnectivityDynamics,
    FeatureOptions,
    Mechanism,
    build_features,
)
from cingulum.features.feature import FeatureOption
from cingulum.io.visit import visits
from cingulum.parallel import Executor
from cingulum.pipeline.feature_export import write_features
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.signals.visit_data import VisitData

SLOW_TO_FIT = {"mechanism", "physiology"}


@pytest.fixture(scope="module")
def opened_visits(small_cohort):
    return [VisitData(visit) for visit in visits(small_cohort)[:4]]


def feature_of_a_short_run(name):
    if name == "fcd":
        return ConnectivityDynamics(window=24.0)  # the test's runs last 100 s
    if name == "mechanism":
        return Mechanism(steps=5)
    return FEATURES[name].from_options(FeatureOptions())


@pytest.fixture(scope="module")
def measured(opened_visits):
    """A feature by its name, with its rows of four visits."""
    torch.set_default_dtype(torch.float64)

    # Each by itself: a feature that cannot be measured fails its own tests only.
    @cache
    def measure(name):
        absent = missing_recordings(name, opened_visits[0])
        if absent:
            pytest.skip(
                f"the synthetic cohort has no {absent}: test {name} on a recording "
                "of its own, as tests/signals/test_asl.py and test_promises.py do"
            )
        feature = feature_of_a_short_run(name)
        return feature, [feature.measure(data) for data in opened_visits]

    return measure


def missing_recordings(name, data):
    absent = [k.name for k in FEATURES[name].needs if not data.visit.has(k.name)]
    return ", ".join(absent)


@pytest.mark.parametrize("name", FEATURES)
def test_names_units_and_settings_can_be_written(measured, name):
    feature, rows = measured(name)
    assert feature.name == name and feature.unit and feature.meaning
    assert feature.needs and "{visit}" in feature.file
    json.dumps(dict(feature.settings()))
    for column in feature.columns():
        assert column.unit and column.meaning
    assert len({row.values.shape for row in rows}) == 1, "same columns for everybody"
    assert all(row.affine is not None for row in rows) == feature.is_map


@pytest.mark.parametrize("name", FEATURES)
def test_measuring_is_deterministic(measured, small_cohort, name):
    feature, rows = measured(name)
    again = feature.measure(VisitData(visits(small_cohort)[0]))
    np.testing.assert_array_equal(again.values, rows[0].values)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow) if n == "physiology" else n
        for n in FEATURES
    ],
)
def test_a_visits_row_depends_on_no_other_visit(measured, name):
    """All four at once, in another order, and alone: the same rows (fits: to 1e-6 of a
    prior SD)."""
    feature, rows = measured(name)
    together = feature.finish(rows).table.to_numpy(float)
    turned = feature.finish(rows[::-1]).table.to_numpy(float)[::-1]
    alone = np.vstack([feature.finish([row]).table.to_numpy(float) for row in rows[:2]])
    tolerance = {"atol": 1e-6} if name in SLOW_TO_FIT else {"rtol": 0, "atol": 0}
    np.testing.assert_allclose(turned, together, **tolerance)
    np.testing.assert_allclose(alone, together[:2], **tolerance)
    if not feature.is_map:
        assert together.shape[1] == len(feature.columns())


def test_rows_of_the_table_depend_on_no_other_visit(small_cohort, tmp_path):
    """The whole way, to the bit: three visits of two people, and one of them alone."""
    torch.set_default_dtype(torch.float64)
    names = ["s1conn", "rcbf", "cbf", "hrv", "fc", "quality"]
    both = write_features(
        small_cohort,
        tmp_path / "both",
        MeasurementPlan(build_features(names)),
        participants=["01", "02"],
        executor=Executor(jobs=1),
    )
    one = write_features(
        small_cohort,
        tmp_path / "one",
        MeasurementPlan(build_features(names)),
        participants=["02"],
        sessions=["post"],
        executor=Executor(jobs=1),
    )
    mine = both.table[
        (both.table["participant_id"] == "sub-02")
        & (both.table["session_id"] == "ses-post")
    ]
    pd.testing.assert_frame_equal(mine.reset_index(drop=True), one.table)
    for path in (tmp_path / "one").rglob("*.nii.gz"):
        assert (
            path.read_bytes()
            == (tmp_path / "both" / path.relative_to(tmp_path / "one")).read_bytes()
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mechanism", "physiology"])
def test_fitted_rows_depend_on_no_other_visit(small_cohort, tmp_path, name):
    """To the bit, whoever else is in the batch, and whoever does it: one visit alone,
    and the third of four."""
    alone = write_features(
        small_cohort,
        tmp_path / "one",
        MeasurementPlan(build_features([name])),
        participants=["02"],
        sessions=["pre"],
    )
    among = write_features(
        small_cohort,
        tmp_path / "all",
        MeasurementPlan(build_features([name])),
        participants=["01", "02"],
        executor=Executor(jobs=2),
    )
    mine = among.table[
        (among.table["participant_id"] == "sub-02")
        & (among.table["session_id"] == "ses-pre")
    ]
    pd.testing.assert_frame_equal(
        mine.reset_index(drop=True), alone.table, check_exact=True
    )


def test_a_repeatable_option_has_no_default():
    """argparse would append to it, and fail only when the option is typed."""
    with pytest.raises(ValueError, match="repeatable and has a default"):
        FeatureOption("band", "of frequencies", default=(0.01, 0.1), repeatable=True)
