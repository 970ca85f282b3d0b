import subprocess
import sys
import warnings

import nibabel as nib
import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.features.seed_connectivity import S1_BACK, seed_map
from cingulum.io.files import write_bytes
from cingulum.io.images import write_image
from cingulum.signals.atlas import (
    LabelAtlas,
    ProbabilisticAtlas,
    SphereAtlas,
    named_atlas,
    pain_atlas,
    read_atlas,
)
from cingulum.signals.atlas_names import ATLASES
from cingulum.signals.bold import Bold
from cingulum.signals.parcellation import (
    membership,
    parcellate,
    sphere_mask,
    voxel_centres,
)

AFFINE = np.array([[4.0, 0, 0, -88], [0, 4.0, 0, -124], [0, 0, 4.0, -70], [0, 0, 0, 1]])
GRID = (45, 54, 46)
EVERYWHERE = np.ones(GRID, bool)


def bold_of(signals, mask=EVERYWHERE, affine=AFFINE):
    """A cleaned run from signals (x, y, z, time)."""
    kept, level = np.ones(signals.shape[-1], bool), np.full(mask.sum(), 1000.0)
    return Bold(signals[mask].astype(np.float32), mask, affine, 2.0, kept, 50.0, level)


def blocks(size=3.0, shape=(60, 72, 60), seed=0):
    """A label image of 30 compact parcels on a grid of its own, and its affine."""
    rng = np.random.default_rng(seed)
    affine = np.array(
        [[size, 0, 0, -88], [0, size, 0, -124], [0, 0, size, -70], [0, 0, 0, 1]]
    )
    centres = voxel_centres(shape, affine)
    seeds = rng.uniform([-60, -90, -40], [60, 60, 60], (30, 3))
    nearest = np.linalg.norm(centres[:, None] - seeds[None], axis=-1)
    return np.where(nearest.min(1) < 25, nearest.argmin(1) + 1, 0).reshape(
        shape
    ), affine


def test_regions_outside_the_mask_stay_in_the_table():
    atlas, rng = pain_atlas(), np.random.default_rng(0)
    inside = voxel_centres(GRID, AFFINE)[:, 0].reshape(GRID) < 0  # the left half only
    means, coverage = parcellate(
        rng.normal(size=(inside.sum(), 5)), inside, AFFINE, atlas
    )
    right = atlas.centres[:, 0] > atlas.radius
    assert list(coverage.index) == list(atlas.regions) and means.shape == (52, 5)
    assert (coverage[right] == 0).all() and np.isnan(means[right]).all()
    assert (coverage[atlas.centres[:, 0] < -atlas.radius] == 1).all() and np.isfinite(
        means[~right]
    ).any()


def test_a_region_is_the_mean_of_its_nearest_voxels():
    atlas, centres = pain_atlas(), voxel_centres(GRID, AFFINE)
    data = centres @ np.array(
        [1.0, 10.0, 100.0]
    )  # linear in space, so a sphere's mean is its centre's value
    means, _ = parcellate(data[:, None], EVERYWHERE, AFFINE, atlas)
    distance = np.linalg.norm(atlas.centres[:, None] - centres[None], axis=-1)
    for i in range(len(atlas.regions)):
        mine = (distance[i] <= 8) & (distance.argmin(0) == i)
        assert means[i, 0] == pytest.approx(data[mine].mean())


def test_a_sphere_that_the_image_cuts_is_not_called_covered():
    """A sphere at the edge of the field of view: half of it has no voxel."""
    atlas = SphereAtlas(("edge",), np.array([[-88.0, 0.0, 0.0]]), 8.0)
    _, coverage = membership(atlas, EVERYWHERE, AFFINE)
    assert 0.4 < coverage[0] < 0.75


def test_label_means_are_nilearns_where_it_has_them():
    """Same parcels on another grid: nilearn's masker agrees to rounding, and drops the
    parcel that we keep as NaN."""
    from nilearn.maskers import NiftiLabelsMasker

    labels, affine = blocks()
    labels[0, 0, 0] = 31  # one voxel far outside of the mask
    rng = np.random.default_rng(1)
    data = rng.normal(size=(*GRID, 4)).astype(np.float32)
    mask = (
        np.linalg.norm(voxel_centres(GRID, AFFINE) - [0, -18, 8], axis=1).reshape(GRID)
        < 75
    )
    atlas = LabelAtlas(
        tuple(f"r{i}" for i in range(1, 32)),
        np.arange(1, 32),
        labels.astype(np.int32),
        affine,
    )
    means, coverage = parcellate(data[mask], mask, AFFINE, atlas)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masker = NiftiLabelsMasker(
            nib.Nifti1Image(labels.astype(np.int32), affine),
            mask_img=nib.Nifti1Image(mask.astype(np.uint8), AFFINE),
            resampling_target="data",
            standardize=None,
        )
        peer = masker.fit_transform(nib.Nifti1Image(data, AFFINE)).T
    seen = ~np.isnan(means).any(1)
    assert coverage.iloc[30] == 0 and not seen[30] and len(means) == 31
    np.testing.assert_allclose(means[seen], peer[: seen.sum()], atol=1e-6)


def test_coverage_is_the_share_of_the_parcels_own_voxels():
    labels, affine = blocks()
    mask = voxel_centres(GRID, AFFINE)[:, 1].reshape(GRID) < 0
    atlas = LabelAtlas(
        tuple(f"r{i}" for i in range(1, 31)),
        np.arange(1, 31),
        labels.astype(np.int32),
        affine,
    )
    _, coverage = membership(atlas, mask, AFFINE)
    y = voxel_centres(labels.shape, affine)[:, 1].reshape(labels.shape)
    for i, share in enumerate(coverage, start=1):
        expected = (
            y[labels == i] < -2
        ).mean()  # the last voxel inside ends two mm before the origin
        assert share == pytest.approx(expected, abs=0.06)


def test_probability_maps_are_weighted_means():
    shape, affine = (45, 54, 46), AFFINE
    rng = np.random.default_rng(2)
    maps = rng.random((3, *shape)) * (rng.random((3, *shape)) > 0.9)
    data = rng.normal(size=(*GRID, 6))
    means, coverage = parcellate(
        data[EVERYWHERE],
        EVERYWHERE,
        AFFINE,
        ProbabilisticAtlas(("a", "b", "c"), maps, affine),
    )
    for i in range(3):
        np.testing.assert_allclose(
            means[i],
            (maps[i][..., None] * data).sum((0, 1, 2)) / maps[i].sum(),
            atol=1e-10,
        )
    np.testing.assert_allclose(coverage, 1.0)


@pytest.mark.parametrize(
    ("name", "count"), [("power264", 264), ("dosenbach160", 160), ("seitzman300", 300)]
)
def test_nilearns_coordinate_atlases_come_without_network(name, count):
    atlas = named_atlas(name)
    assert len(atlas.regions) == len(
        set(atlas.regions)
    ) == count and atlas.centres.shape == (count, 3)
    weights, coverage = membership(atlas, EVERYWHERE, AFFINE)
    assert weights.shape == (count, EVERYWHERE.sum()) and (coverage > 0).mean() > 0.9


def written_atlas(folder, labels, affine, rows):
    path = folder / "atlas-Blocks_dseg.nii.gz"
    write_image(path, labels.astype(np.int16), affine)
    write_bytes(folder / "atlas-Blocks_dseg.tsv", ("index\tname\n" + rows).encode())
    return path


def test_an_atlas_file_brings_its_names_missing_ones_too(tmp_path):
    labels, affine = blocks()
    rows = "0\tbackground\n" + "".join(f"{i}\tparcel {i}\n" for i in range(1, 34))
    atlas = named_atlas(str(written_atlas(tmp_path, labels, affine, rows)))
    assert (
        atlas.name == "Blocks"
        and len(atlas.regions) == 33
        and "background" not in atlas.regions
    )
    _, coverage = membership(atlas, EVERYWHERE, AFFINE)
    assert (coverage[:30] > 0.5).all() and (coverage[30:] == 0).all()
    assert np.isnan(atlas.centres[30:]).all() and np.isfinite(atlas.centres[:30]).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1\tonly one\n", "does not name the label"),
        ("1\ta\n2\ta\n", "a different name in every row"),
        ("1\ta\n1\tb\n", "a different whole number"),
    ],
)
def test_label_tables_must_fit(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_atlas(written_atlas(tmp_path, *blocks(), rows))


def test_an_unknown_atlas_is_told_the_known_ones():
    with pytest.raises(InputError, match="Known are pain52, power264"):
        named_atlas("shaefer")


@pytest.mark.parametrize("name", ATLASES)
def test_every_named_atlas_is_complete(name):
    atlas = named_atlas(name)
    assert atlas.name == name and len(set(atlas.regions)) == len(atlas.regions)
    assert atlas.centres.shape == (len(atlas.regions), 3)
    assert np.isfinite(atlas.centres).all()


def test_names_of_atlases_load_no_heavy_library():
    """The command line reads them for its help."""
    code = (
        "import sys; from cingulum.signals.atlas_names import ATLASES; "
        "print({'numpy', 'pandas', 'nibabel', 'nilearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_seed_is_the_published_one(lee2019_folder):
    """The S1-back mask of Lee et al. 2019, voxel by voxel on its own grid (two 4 mm
    spheres, 33 voxels each)."""
    published = nib.load(lee2019_folder / "s1back_roi.nii.gz")
    mask = np.asarray(published.dataobj) > 0
    ours = sphere_mask(S1_BACK, 4.0, mask.shape, published.affine)
    assert ours.sum() == 66 and np.array_equal(ours, mask)


def test_seed_map_is_the_regression_on_the_standardised_seed():
    rng = np.random.default_rng(1)
    seed = sphere_mask(S1_BACK, 4.0, GRID, AFFINE)
    signal = rng.normal(size=60)
    signal -= signal.mean()
    data = rng.normal(size=(*GRID, 60)) * 1e-3
    data[seed] = signal
    data[10, 10, 10] = 3 * signal + 7
    found = seed_map(bold_of(data), seed)
    assert found[10, 10, 10] == pytest.approx(3 * signal.std(), rel=1e-5)
    assert found[seed].mean() == pytest.approx(signal.std(), rel=1e-5)


def test_seed_correlation_is_nilearns():
    """nilearn's documented way: standardised seed and voxel signals, their product over
    the number of samples; then Fisher z. Agreement to 1e-6."""
    from nilearn.maskers import NiftiMasker, NiftiSpheresMasker

    rng = np.random.default_rng(3)
    mask = (
        np.linalg.norm(voxel_centres(GRID, AFFINE) - [0, -18, 20], axis=1).reshape(GRID)
        < 70
    )
    data = rng.normal(size=(*GRID, 50))
    image = nib.Nifti1Image(data, AFFINE)
    mask_image = nib.Nifti1Image(mask.astype(np.uint8), AFFINE)
    options = {"standardize": "zscore_sample", "mask_img": mask_image}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seed_signal = NiftiSpheresMasker(
            [(0, -18, 20)], radius=6, **options
        ).fit_transform(image)
        voxels = NiftiMasker(**options).fit_transform(image)
    r = (voxels.T @ seed_signal)[:, 0] / (len(seed_signal) - 1)
    seed = sphere_mask([(0.0, -18.0, 20.0)], 6.0, GRID, AFFINE)
    ours = seed_map(bold_of(data, mask), seed, "correlation")
    np.testing.assert_allclose(ours[mask], r, atol=1e-6)
    inner = np.abs(r) < 0.9
    ours = seed_map(bold_of(data, mask), seed, "fisherz")
    np.testing.assert_allclose(ours[mask][inner], np.arctanh(r[inner]), atol=1e-5)


def test_a_seed_outside_the_image_or_without_signal_is_refused():
    with pytest.raises(InputError, match="outside the image"):
        sphere_mask([(300.0, 0.0, 0.0)], 4.0, GRID, AFFINE)
    with pytest.raises(InputError, match="constant signal"):
        seed_map(bold_of(np.ones((*GRID, 10))), sphere_mask(S1_BACK, 4.0, GRID, AFFINE))
