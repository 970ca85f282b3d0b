"""Science runs of minutes: the group fit on real brains, and the planted effects of
2019 found again."""

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter

from cingulum.datasets import CohortSettings, hcp, synthesize
from cingulum.datasets.synthetic_recordings import (
    CONNECTED,
    PERFUSION_DOWN,
    PERFUSION_UP,
)
from cingulum.inference import resting_fit
from cingulum.inference.resting import free_running_fc
from cingulum.io.cohort import read_cohort
from cingulum.measures import similarity
from cingulum.pipeline.config import PredictionConfig, StudyConfig
from cingulum.pipeline.paired_study import (
    evaluate_cohort,
    features_of_cohort,
    measure_study,
)
from cingulum.pipeline.paths import RunPaths, StudyRun
from cingulum.prediction.weight_maps import map_weights
from cingulum.signals.atlas import pain_atlas
from cingulum.signals.parcellation import voxel_centres
from cingulum.simulation import time_step


@pytest.mark.slow
def test_group_fit_runs_freely_and_holds_out(hcp_folder):
    """Measured .637 / .620 free-running over 64 minutes (another seed: .641 / .624).
    The linear control of equal size reaches .72 / .71 (whole-brain page §8): the
    mechanistic fit stays below it, and far above SC–FC .26."""
    train, heldout = hcp.group_fc(hcp_folder), hcp.group_fc(hcp_folder, "group-test303")
    found = resting_fit(hcp.connectome(hcp_folder), train, 0.72, minutes=64.0)
    here, there = found.against(train), found.against(heldout)
    assert 0.58 < here["free_running"] < 0.70 and 0.56 < there["free_running"] < 0.70
    assert here["linear_control"] == pytest.approx(0.72, abs=0.015)
    assert there["linear_control"] == pytest.approx(0.71, abs=0.015)
    # One run agrees only .94–.97 with the analytic answer, because it agrees only .96
    # with the next run; six runs
    # averaged leave .969 (measured), so what is left is the linearisation's own error.
    again = [
        free_running_fc(found.fit.brain, time_step(0.72), 64.0, seed)
        for seed in range(100, 105)
    ]
    mean = torch.stack([found.simulated_fc, *again]).mean(0)
    assert similarity(mean, found.fit.fc).item() > 0.96, (
        "the linearisation must hold where we fit"
    )
    assert found.stability.stable and found.fit.loop_gain < 0.9


@pytest.mark.slow
def test_planted_effects_are_found(tmp_path):
    """Fused accuracy's bootstrap interval must exclude 0.5 (measured .91 [.81, .98]
    with seed 0)."""
    torch.set_default_dtype(torch.float32)
    bids = synthesize(tmp_path / "bids", CohortSettings(53))
    torch.set_default_dtype(torch.float64)
    study = StudyConfig()
    run = StudyRun(RunPaths.of(bids, tmp_path / "out"))
    cohort = read_cohort(bids)
    measured = measure_study(study, run, cohort.visits)
    features, _ = features_of_cohort(study, run, measured, cohort)
    config = PredictionConfig(permutations=99)
    evaluation = evaluate_cohort(features, cohort, config, learning=False)
    scores = evaluation.paired.scores
    assert scores["fused"].accuracy_ci.low > 0.5 and scores["fused"].p <= 0.05
    print(
        {name: (round(s.accuracy, 3), s.accuracy_ci, s.p) for name, s in scores.items()}
    )
    for name in ("s1conn", "rcbf", "hfhrv"):
        assert scores[name].accuracy > 0.6, name
    _planted_regions(features)


def _planted_regions(features):
    """13 regions in blobs of 24 mm FWHM on 6 mm voxels: z above 2 at every centre; a
    peak within 8 mm of at least 8 (the two thalami, 24 mm apart, make one); no voxel of
    flow below an FDR of .05 beyond 25 mm of a planted centre."""
    atlas, near = pain_atlas(), 0
    centre = dict(zip(atlas.regions, atlas.centres, strict=True))
    planted = {
        "rcbf": [*((n, 1) for n in PERFUSION_UP), *((n, -1) for n in PERFUSION_DOWN)],
        "s1conn": [(n, 1) for n in CONNECTED],
    }
    for name, regions in planted.items():
        shape, affine = features.grids[name]
        found = map_weights(
            features.values[name], permutations=2000, resamples=10
        ).pattern
        z, where = (
            np.nan_to_num(found.z).reshape(shape),
            voxel_centres(shape, affine).reshape(*shape, 3),
        )
        far = np.full(shape, np.inf)
        for region, sign in regions:
            apart = np.linalg.norm(where - centre[region], axis=-1)
            far = np.minimum(far, apart)
            assert (sign * z).ravel()[apart.argmin()] > 2, region
            peaks = (sign * z == maximum_filter(sign * z, 3)) & (sign * z > 2)
            near += bool(apart[peaks].min() <= 8)
        below = (found.q <= 0.05).reshape(shape)
        print(name, int(below.sum()), int((far[below] > 25).sum()))
        assert below.sum() > 20 and np.mean(far[below] > 25) <= (
            0 if name == "rcbf" else 0.2
        )
    print("peaks within 8 mm:", near, "of 13")
    assert near >= 8
