"""Names that cases of `../shared/cases` import, as they were at commit 5caa35e, in
terms of what is there now."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cingulum.errors import InputError
from cingulum.features import build_features
from cingulum.io.derivatives import describe_dataset
from cingulum.parallel import Executor
from cingulum.pipeline import measurement_cache
from cingulum.pipeline.measurement import measure_visits as _measure_visits
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.pipeline.paths import RunPaths, StudyRun

features = build_features
describe = describe_dataset
write_matrix = measurement_cache.write_matrix

_plans: dict[int, MeasurementPlan] = {}


def Crew(cluster: str = "", jobs: int | None = None) -> Executor:
    return Executor(cluster, jobs)


def Plan(features, *options) -> MeasurementPlan:
    plan = MeasurementPlan(features, *options)
    _plans.update(dict.fromkeys(map(id, features.values()), plan))
    return plan


def measure_visits(visits, plan, out, crew):
    measurement_cache.write_matrix = write_matrix
    run = StudyRun(RunPaths.of(visits[0].root, Path(out)), crew)
    return _measure_visits(visits, plan, run)


def load(visit, feature, out):
    """NaN where reading is refused."""
    recipe = _plans[id(feature)].recipe_of(feature)
    try:
        return measurement_cache.load_measurement(visit, feature, out, recipe)
    except InputError as error:
        print("refused:", error)
        return SimpleNamespace(values=np.array([np.nan]))


def Features(values, columns, units, extra, patients):
    from cingulum.pipeline.cohort_table import CohortFeatures

    return SimpleNamespace(kind=CohortFeatures, values=values, patients=patients)


def evaluated(features, cohort, permutations, jobs, learning):
    from cingulum.pipeline.config import PredictionConfig
    from cingulum.pipeline.paired_study import evaluate_cohort

    config = PredictionConfig(permutations=permutations)
    result = evaluate_cohort(features, cohort, config, jobs=jobs, learning=learning)
    return SimpleNamespace(paired=result.paired, checks=result.checks)
