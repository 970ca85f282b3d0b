"""No effect planted, none found: the whole chain from files to p-values, on sixteen
null cohorts."""

import numpy as np
import pandas as pd
import pytest
from joblib import Parallel, delayed, parallel_config
from scipy.stats import binom

from cingulum.datasets import CohortSettings, synthesize
from cingulum.features.registry import control_names
from cingulum.io.cohort import read_cohort
from cingulum.parallel import Executor
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.paired_study import features_of_cohort, measure_study
from cingulum.pipeline.paths import RunPaths, StudyRun
from cingulum.prediction import evaluate

COHORTS, PATIENTS = 16, 30


def one_cohort(folder, seed):
    bids = synthesize(
        folder / "bids",
        CohortSettings(
            PATIENTS, effect="none", seed=seed, voxel=9.0, volumes=40, tr=2.0
        ),
    )
    study = StudyConfig()
    run = StudyRun(RunPaths.of(bids, folder / "out"), Executor(jobs=1))
    cohort = read_cohort(bids)
    measured = measure_study(study, run, cohort.visits)
    features, _ = features_of_cohort(study, run, measured, cohort)
    controls = tuple(name for name in control_names() if name in features.values)
    options = {
        "permutations": 99,
        "contributions": False,
        "seed": seed,
        "jobs": 1,
    }
    scores = evaluate(
        features.values, features.patients, controls=controls, **options
    ).scores
    return {"seed": seed, "p": scores["fused"].p} | {
        name: s.accuracy for name, s in scores.items()
    }


@pytest.mark.slow
def test_null_cohorts_give_chance(tmp_path):
    """Share of fused p < .05 over 16 cohorts: more than 4 has probability .0009 under 5
    %. Mean accuracies must be 0.50 ± 0.10, three standard errors (permuted accuracies
    of one cohort have SD .13: the decisions of a leave-one-out loop hang together). A
        thousand cohorts of features are in test_prediction_nulls."""
    with parallel_config("loky", inner_max_num_threads=1):
        rows = Parallel(n_jobs=2)(
            delayed(one_cohort)(tmp_path / str(seed), seed) for seed in range(COHORTS)
        )
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(), table.mean().round(3).to_string(), sep="\n")
    assert binom.sf(np.sum(table["p"] < 0.05) - 1, COHORTS, 0.05) > 0.001
    assert table["fused"].mean() == pytest.approx(0.5, abs=0.10)
    assert table.drop(columns=["seed", "p"]).to_numpy().mean() == pytest.approx(
        0.5, abs=0.10
    )
