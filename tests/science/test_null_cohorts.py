"""No effect planted, none found: the whole chain from files to p-values, on twenty null cohorts."""

import numpy as np
import pytest
from scipy.stats import binom

from cingulum.datasets import Settings, synthesize
from cingulum.study import evaluated, gather, measure

COHORTS, PATIENTS = 20, 30


@pytest.mark.slow
def test_null_cohorts_give_chance(tmp_path):
    """Share of fused p < .05 over 20 cohorts: more than 4 has probability .0026 under 5 %. Mean fused accuracy must be
    0.50 ± 0.05; its own standard error is about .025 (permuted accuracies of one cohort have SD .11), so a correct
    implementation would fail with other seeds about once in twenty; with these seeds the result is fixed."""
    p, reached = [], []
    for seed in range(COHORTS):
        folder = tmp_path / str(seed)
        settings = Settings(PATIENTS, effect="none", seed=seed, voxel=9.0, volumes=60, tr=2.0)
        cohort = measure(synthesize(folder / "bids", settings), folder / "out")
        scores = evaluated(gather(cohort, folder / "out"), permutations=99, seed=seed).scores
        p.append(scores["fused"].p)
        reached.append(scores["fused"].accuracy)
        print(seed, {name: (round(s.accuracy, 3), round(s.p, 2)) for name, s in scores.items()})
    assert binom.sf(np.sum(np.array(p) < 0.05) - 1, COHORTS, 0.05) > 0.003
    assert np.mean(reached) == pytest.approx(0.5, abs=0.05)
