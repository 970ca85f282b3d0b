import nibabel as nib
import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.features.connectivity import S1_BACK, seed_map
from cingulum.recordings.bold import Bold
from cingulum.recordings.parcellation import pain_atlas, parcellate, sphere, voxel_centres

AFFINE = np.array([[4.0, 0, 0, -88], [0, 4.0, 0, -124], [0, 0, 4.0, -70], [0, 0, 0, 1]])
GRID = (45, 54, 46)


def test_regions_outside_the_mask_stay_in_the_table():
    atlas, rng = pain_atlas(), np.random.default_rng(0)
    data = rng.normal(size=(*GRID, 5))
    inside = voxel_centres(GRID, AFFINE)[:, 0].reshape(GRID) < 0  # the left half only
    series, coverage = parcellate(data, AFFINE, inside, 2.0, atlas)
    right = atlas.centres[:, 0] > atlas.radius
    assert series.regions == atlas.regions and list(coverage.index) == list(atlas.regions)
    assert (coverage[right] == 0).all() and np.isnan(series.data[right]).all()
    assert (coverage[atlas.centres[:, 0] < -atlas.radius] == 1).all() and np.isfinite(series.data[~right]).any()


def test_a_region_is_the_mean_of_its_nearest_voxels():
    atlas = pain_atlas()
    centres = voxel_centres(GRID, AFFINE)
    data = centres @ np.array([1.0, 10.0, 100.0])  # linear in space, so a sphere's mean is its centre's value
    series, _ = parcellate(data.reshape(*GRID, 1), AFFINE, np.ones(GRID, bool), 2.0, atlas)
    distance = np.linalg.norm(atlas.centres[:, None] - centres[None], axis=-1)
    for i in range(len(atlas.regions)):
        mine = (distance[i] <= 8) & (distance.argmin(0) == i)
        assert series.data[i, 0].item() == pytest.approx(data[mine].mean())


def test_seed_is_the_published_one(lee2019_folder):
    """The S1-back mask of Lee et al. 2019, voxel by voxel on its own grid (two 4 mm spheres, 33 voxels each)."""
    published = nib.load(lee2019_folder / "s1back_roi.nii.gz")
    mask = np.asarray(published.dataobj) > 0
    ours = sphere(S1_BACK, 4.0, mask.shape, published.affine)
    assert ours.sum() == 66 and np.array_equal(ours, mask)


def test_seed_map_is_the_regression_on_the_standardised_seed():
    rng, mask = np.random.default_rng(1), np.ones(GRID, bool)
    seed = sphere(S1_BACK, 4.0, GRID, AFFINE)
    signal = rng.normal(size=60)
    signal -= signal.mean()
    data = rng.normal(size=(*GRID, 60)) * 1e-3
    data[seed] = signal
    data[10, 10, 10] = 3 * signal + 7
    found = seed_map(Bold(data, mask, AFFINE, 2.0), S1_BACK, 4.0)
    assert found[10, 10, 10] == pytest.approx(3 * signal.std()) and found[seed].mean() == pytest.approx(signal.std())


def test_a_seed_outside_the_image_or_without_signal_is_refused():
    with pytest.raises(InputError, match="outside the image"):
        sphere([(300.0, 0.0, 0.0)], 4.0, GRID, AFFINE)
    flat = Bold(np.ones((*GRID, 10)), np.ones(GRID, bool), AFFINE, 2.0)
    with pytest.raises(InputError, match="constant signal"):
        seed_map(flat, S1_BACK, 4.0)
