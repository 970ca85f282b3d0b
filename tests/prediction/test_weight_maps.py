import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.prediction import evaluate
from cingulum.prediction.map_peaks import peaks
from cingulum.prediction.permutation import sign_flips
from cingulum.prediction.svm import solver
from cingulum.prediction.weight_maps import map_weights, threshold_fdr


def smooth(rng, n, grid=(6, 7, 8), planted=None, size=2.0):
    values = rng.normal(size=(n, 2, *grid))
    for axis in (2, 3, 4):
        values = (values + np.roll(values, 1, axis)) / np.sqrt(2)
    if planted is not None:
        values[:, 1, planted] += size
    return values.reshape(n, 2, -1)


def test_maps_equal_permutations_done_one_by_one():
    rng = np.random.default_rng(0)
    values = smooth(rng, 14)
    maps = map_weights(values, permutations=60, resamples=50, seed=4)
    d = (values[:, 1] - values[:, 0]).astype(np.float32).astype(float)
    signs = np.concatenate(
        [np.ones((1, 14)), sign_flips(60, 14, np.random.default_rng((4, 0, 3)))]
    )
    beta = solver.duals(d @ d.T, signs, 2.0)
    w = beta @ d
    decision = w @ d.T
    pattern = decision @ d / np.square(decision).sum(1, keepdims=True)
    for part, permuted in ((maps.weights, w), (maps.pattern, pattern)):
        np.testing.assert_allclose(part.values, permuted[0], rtol=1e-4, atol=1e-7)
        z = permuted / np.sqrt(np.square(permuted).mean(0))
        np.testing.assert_allclose(part.z, z[0], rtol=1e-3, atol=1e-3)
        close = np.abs(np.abs(z[1:]) - np.abs(z[0])) < 1e-4  # ties within float32
        count = (1 + (np.abs(z[1:]) >= np.abs(z[0])).sum(0)) / 61
        assert (np.abs(part.p - count) <= close.sum(0) / 61 + 1e-9).all()
        largest = np.abs(z[1:]).max(1)
        np.testing.assert_allclose(
            part.p_fwe, (1 + (largest[:, None] >= np.abs(z[0])).sum(0)) / 61, atol=0.017
        )
    names = [str(i) for i in range(14)]
    np.testing.assert_allclose(
        evaluate({"a": values}, names, permutations=0).weights["a"],
        w[0],
        rtol=1e-4,
        atol=1e-7,
    )


def test_family_wise_error_and_false_discovery_rate_hold():
    """100 null cohorts: at least one voxel below .05 in at most 12 (P = .002 under 5
    %), by either."""
    errors = np.zeros(2)
    for seed in range(100):
        part = map_weights(
            smooth(np.random.default_rng(seed), 16, (4, 4, 5)),
            permutations=99,
            resamples=2,
            seed=seed,
        ).pattern
        errors += [(part.p_fwe <= 0.05).any(), (part.q <= 0.05).any()]
    assert (errors <= 12).all()


def test_a_planted_region_is_found_and_named():
    """A blob of 15 mm at the posterior cingulate, in a brain-sized box of 6 mm voxels:
    the peak of the pattern lies within 8 mm of its centre, and what is below an FDR of
    .05 lies in it or beside it."""
    grid, affine = (26, 32, 28), np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = [-75, -110, -70]
    centre = np.round(np.linalg.solve(affine, [0, -56, 20, 1])[:3]).astype(int)
    cube = tuple(slice(c - 1, c + 2) for c in centre)
    apart = np.linalg.norm(np.moveaxis(np.indices(grid), 0, -1) - centre, axis=-1)
    blob = np.exp(-((6 * apart / 15) ** 2) * 4 * np.log(2))
    rng = np.random.default_rng(0)
    values = smooth(rng, 40, grid)
    values.reshape(40, 2, *grid)[:, 1] += 4.0 * blob
    maps = map_weights(values, permutations=2000, resamples=200)
    z = maps.pattern.z.reshape(grid)
    where = (affine @ [*np.unravel_index(np.abs(z).argmax(), grid), 1])[:3]
    planted = (affine @ [*centre, 1])[:3]
    assert np.linalg.norm(where - planted) <= 8
    below = np.argwhere((maps.pattern.q <= 0.05).reshape(grid))
    far = np.linalg.norm(below - centre, axis=1) * 6 > 25
    assert len(below) >= 10 and np.mean(far) <= 0.1, (
        "beyond the smoothed blob only what FDR .05 allows"
    )
    table = peaks(
        np.nan_to_num(z),
        affine,
        threshold=threshold_fdr(maps.pattern) - 1e-6,
        voxels=0,
    )
    assert np.linalg.norm(table.loc[0, ["x", "y", "z"]].to_numpy(float) - planted) <= 8
    assert table.loc[0, "distance_mm"] < 15 and isinstance(table.loc[0, "region"], str)
    inside = maps.stability.same_sign.reshape(grid)[cube]
    assert inside.mean() > 0.95 and maps.stability.reproducibility > 0


def test_voxels_outside_the_brain_are_not_known_and_do_not_count():
    values = smooth(np.random.default_rng(1), 12)
    values[..., :50] = 0
    maps = map_weights(values, permutations=19, resamples=5).pattern
    assert (
        np.isnan(maps.z[:50]).all()
        and np.isnan(maps.q[:50]).all()
        and np.isfinite(maps.q[50:]).all()
    )
    assert len(peaks(np.zeros((4, 4, 4)), np.eye(4))) == 0


def test_incomplete_patients_are_refused():
    values = smooth(np.random.default_rng(1), 12)
    values[3] = np.nan
    with pytest.raises(InputError, match="whole"):
        map_weights(values, permutations=19)
