"""Cleaning in the right order, and runs that cannot be cleaned."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cingulum.errors import InputError
from cingulum.features import BoldQuality, SeedConnectivity
from cingulum.io.files import read_table, write_bytes, write_table
from cingulum.io.images import read_image, write_image
from cingulum.io.visit import visits
from cingulum.signals.atlas import SphereAtlas, pain_atlas
from cingulum.signals.bold import STRATEGIES, Denoising, read_bold
from cingulum.signals.parcellation import regional_series
from cingulum.signals.visit_data import VisitData

GRID, VOLUMES, TR = (20, 24, 20), 200, 2.0
AFFINE = np.array([[8.0, 0, 0, -76], [0, 8.0, 0, -108], [0, 0, 8.0, -68], [0, 0, 0, 1]])
STEM = "sub-01_ses-pre_task-rest"


def regressors(rng):
    """fMRIPrep's columns for every strategy but ICA-AROMA."""
    table = {}
    for axis in "xyz":
        for kind, size in (("trans", 0.05), ("rot", 0.001)):
            base = size * rng.normal(size=VOLUMES).cumsum() / 5
            slope = np.r_[np.nan, np.diff(base)]
            table |= {f"{kind}_{axis}": base, f"{kind}_{axis}_derivative1": slope}
            table |= {
                f"{kind}_{axis}_power2": base**2,
                f"{kind}_{axis}_derivative1_power2": slope**2,
            }
    for name in ("csf", "white_matter", "global_signal"):
        base = 1000 + rng.normal(0, 3, VOLUMES)
        slope = np.r_[np.nan, np.diff(base)]
        table |= {name: base, f"{name}_derivative1": slope, f"{name}_power2": base**2}
        table |= {f"{name}_derivative1_power2": slope**2}
    for k in range(6):
        table[f"cosine{k:02d}"] = np.cos(
            np.pi * (k + 1) * (np.arange(VOLUMES) + 0.5) / VOLUMES
        )
        table[f"a_comp_cor_{k:02d}"] = rng.normal(size=VOLUMES)
    table["framewise_displacement"] = np.r_[
        np.nan, np.abs(rng.normal(0.1, 0.03, VOLUMES - 1))
    ]
    table["std_dvars"] = np.r_[np.nan, np.abs(rng.normal(1.0, 0.1, VOLUMES - 1))]
    return pd.DataFrame(table)


def write(
    root, signal=None, spikes=(), change=lambda table: table, tr=TR, mask_affine=AFFINE
):
    """A visit of noise voxels, with `signal` (percent) in all of them, and head jerks
    at `spikes`."""
    rng = np.random.default_rng(0)
    func = root / "derivatives" / "fmriprep" / "sub-01" / "ses-pre" / "func"
    func.mkdir(parents=True)
    (root / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    index = np.indices(GRID) - (np.array(GRID)[:, None, None, None] - 1) / 2
    mask = (index**2 / (0.4 * np.array(GRID)[:, None, None, None]) ** 2).sum(0) < 1
    table = regressors(rng)
    percent = rng.normal(0, 0.5, (*GRID, VOLUMES)) + (0 if signal is None else signal)
    for spike in spikes:
        table.loc[spike, ["framewise_displacement", "std_dvars"]] = [2.0, 5.0]
        percent[..., spike] += 30.0
    data = 1000 * (1 + percent / 100) * mask[..., None]
    stem = func / f"{STEM}_space-MNI152NLin2009cAsym"
    write_image(
        func / f"{stem.name}_desc-preproc_bold.nii.gz",
        data.astype(np.float32),
        AFFINE,
        TR,
    )
    (func / f"{stem.name}_desc-preproc_bold.json").write_text(
        json.dumps({"RepetitionTime": tr})
    )
    write_image(
        func / f"{stem.name}_desc-brain_mask.nii.gz", mask.astype(np.uint8), mask_affine
    )
    write_table(func / f"{STEM}_desc-confounds_timeseries.tsv", change(table))
    components = {
        f"a_comp_cor_{k:02d}": {
            "Mask": "combined",
            "Method": "aCompCor",
            "Retained": True,
        }
        for k in range(6)
    }
    (func / f"{STEM}_desc-confounds_timeseries.json").write_text(json.dumps(components))
    return visits(root)[0]


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"aroma", "none"}))
def test_what_is_regressed_is_gone(tmp_path, strategy):
    """Signals are orthogonal to every confound of the strategy, and in percent of their
    mean."""
    from nilearn.interfaces.fmriprep import load_confounds

    visit = write(tmp_path)
    bold = read_bold(visit, Denoising(strategy))
    options = dict(STRATEGIES[strategy])
    columns, _ = load_confounds(
        str(visit["bold"]), strategy=options.pop("strategy"), **options
    )
    confounds = columns.to_numpy()[bold.kept]
    left = (
        bold.signals
        @ (confounds - confounds.mean(0))
        / np.linalg.norm(confounds - confounds.mean(0), axis=0)
    )
    size = np.linalg.norm(bold.signals, axis=1, keepdims=True)
    assert np.abs(left / size).max() < 1e-3 and 0.3 < bold.signals.std() < 0.6


def test_a_filter_keeps_its_band_and_the_rest_is_gone(tmp_path):
    clock = np.arange(VOLUMES) * TR
    slow, fast = np.sin(2 * np.pi * 0.05 * clock), np.sin(2 * np.pi * 0.2 * clock)
    bold = read_bold(
        write(tmp_path, slow + fast), Denoising("none", low_pass=0.1, high_pass=0.01)
    )
    mean = bold.signals.mean(0)
    kept = [abs(mean @ wave) / (wave @ wave) for wave in (slow, fast)]
    assert kept[0] > 0.9 and kept[1] < 0.03


def test_censored_volumes_do_not_ring_into_their_neighbours(tmp_path):
    """A jerk of 30 percent: filtered before censoring it leaks into its neighbours (the
    wrong order); interpolated, filtered and censored (the right one) the kept volumes
    are as if it had not been."""
    clock = np.arange(VOLUMES) * TR
    wave = np.sin(2 * np.pi * 0.05 * clock)
    band = {"low_pass": 0.1, "high_pass": 0.01}
    wrong = read_bold(
        write(tmp_path / "a", wave, spikes=[80]), Denoising("none", **band)
    )
    right = read_bold(
        write(tmp_path / "b", wave, spikes=[80]), Denoising("none", scrub=0.5, **band)
    )
    clean = read_bold(write(tmp_path / "c", wave), Denoising("none", **band))
    assert (
        not right.kept[80] and right.kept.sum() == right.signals.shape[1] == VOLUMES - 1
    )
    near = [77, 78, 79, 81, 82, 83]
    off = np.abs(wrong.signals.mean(0) - clean.signals.mean(0))[near].max()
    still = np.abs(right.signals.mean(0) - clean.signals.mean(0)[right.kept])[
        [77, 78, 79, 80, 81, 82]
    ].max()
    assert off > 1.0 and still < 0.2


def test_scrubbing_leaves_out_short_rests_too(tmp_path):
    """Two jerks with three volumes between them: nilearn's rule drops the three as well
    (Power et al. 2014)."""
    bold = read_bold(write(tmp_path, spikes=[50, 54]), Denoising("scrubbing"))
    assert not bold.kept[50:55].any() and bold.kept[:50].all() and bold.kept[55:].all()
    assert bold.settings["VolumesKept"] == VOLUMES - 5


def no_column(name):
    return lambda table: table.drop(columns=name)


@pytest.mark.parametrize(
    ("options", "strategy", "message"),
    [
        (
            {"change": no_column("trans_x")},
            "basic",
            "lacks what the strategy basic needs",
        ),
        (
            {"change": lambda table: table.iloc[:-5]},
            "basic",
            "195 rows for 200 volumes",
        ),
        (
            {"change": lambda table: table.assign(csf=np.nan)},
            "basic",
            "missing values in csf|lacks what",
        ),
        (
            {"spikes": range(0, 190, 4)},
            "scrubbing",
            "degrees of freedom; 30 are needed|lacks what",
        ),
        ({"tr": 2000}, "basic", "is it in ms"),
        ({"tr": 1.0}, "basic", "the header says TR = 2 s, its sidecar 1 s"),
        ({"tr": "2 s"}, "basic", "must be a number of seconds"),
        (
            {"mask_affine": AFFINE + np.eye(4, k=3) * 4},
            "basic",
            "its affine is not that of its mask",
        ),
    ],
)
def test_runs_that_cannot_be_cleaned_say_why(tmp_path, options, strategy, message):
    with pytest.raises(InputError, match=message):
        read_bold(write(tmp_path, **options), Denoising(strategy))


def test_denoising_must_make_sense(tmp_path):
    with pytest.raises(InputError, match="Known are basic, friston24"):
        Denoising("acompcor")
    with pytest.raises(InputError, match="must lie above"):
        Denoising(low_pass=0.01, high_pass=0.1)
    with pytest.raises(InputError, match="below 0.25 Hz"):
        read_bold(write(tmp_path), Denoising(low_pass=0.3))


def test_an_empty_mask_or_run_is_refused(tmp_path):
    visit = write(tmp_path)
    image = read_image(visit["mask"], 3)
    write_image(visit["mask"], np.zeros(GRID, np.uint8), image.affine)
    with pytest.raises(InputError, match="the mask is damaged"):
        read_bold(visit)
    assert len(read_table(visit["confounds"])) == VOLUMES


def test_a_run_that_never_changes_is_refused(tmp_path):
    visit = write(tmp_path)
    image = read_image(visit["bold"], 4)
    write_image(visit["bold"], np.full(image.shape, 7, np.int16), image.affine, TR)
    with pytest.raises(InputError, match="missing, zero or constant"):
        read_bold(visit)


def test_steady_state_volumes_are_left_out_by_any_strategy(tmp_path):
    """fMRIPrep marks the first volumes before the steady state; nilearn leaves them
    out, and so do we."""

    def marked(table):
        return table.assign(non_steady_state_outlier00=np.r_[1, np.zeros(VOLUMES - 1)])

    bold = read_bold(write(tmp_path, change=marked))
    assert (
        not bold.kept[0]
        and bold.kept[1:].all()
        and bold.signals.shape[1] == VOLUMES - 1
    )


def changed(visit, change):
    """The visit's BOLD, every value of it changed: change(data, mask) in place."""
    image = read_image(visit["bold"], 4)
    data, mask = (
        np.asarray(image.dataobj).copy(),
        np.asarray(read_image(visit["mask"], 3).dataobj) > 0,
    )
    change(data, mask)
    content = nib.Nifti1Image(data, image.affine)
    content.header.set_xyzt_units("mm", "sec")
    content.header.set_zooms((8, 8, 8, TR))
    write_bytes(visit["bold"], content.to_bytes())


def test_nan_outside_the_brain_is_nobodys_business(tmp_path):
    visit = write(tmp_path)
    before = read_bold(visit)
    changed(visit, lambda data, mask: data.__setitem__(~mask, np.nan))
    np.testing.assert_allclose(read_bold(visit).signals, before.signals, atol=1e-5)


def test_dead_voxels_are_not_covered(tmp_path):
    """The lower slices are empty inside the mask: they leave the mask, so that no
    region counts them."""
    visit = write(tmp_path)
    before = read_bold(visit).mask.sum()

    def empty(data, mask):
        data[:, :, :8] = 0
        data[3, 3, 3] = np.nan

    changed(visit, empty)
    found = read_bold(visit)
    assert not found.mask[:, :, :8].any() and found.mask.sum() < before
    assert np.isfinite(found.signals).all() and (found.signals.std(1) > 0).all()


def test_a_voxel_in_the_dropout_does_not_drown_its_region(tmp_path):
    """Six voxels of a region, one with a tenth of the signal and the same noise in raw
    units: the region is the mean of raw signals, in which that voxel weighs little;
        below a twentieth it is no brain at all."""
    atlas = SphereAtlas(("here",), np.array([[4.0, -12.0, 12.0]]), 9.0)
    visit = write(tmp_path, np.sin(np.arange(VOLUMES)))
    clean = read_bold(visit, Denoising("none"))
    true = regional_series(clean, atlas)[0].data[0]
    for level, covered in ((100.0, True), (10.0, False)):
        rng = np.random.default_rng(0)

        def faint(data, mask, level=level, rng=rng):
            data[10, 12, 10] = level + 5 * rng.normal(size=VOLUMES)

        changed(visit, faint)
        bold = read_bold(visit, Denoising("none"))
        series, coverage = regional_series(bold, atlas)
        assert bold.mask[10, 12, 10] == covered
        assert np.corrcoef(series.data[0], true)[0, 1] > 0.98


def test_signal_to_noise_is_that_of_the_kept_volumes(tmp_path):
    def marked(table):
        return table.assign(non_steady_state_outlier00=np.r_[1, np.zeros(VOLUMES - 1)])

    visit = write(tmp_path, change=marked)
    before = read_bold(visit).tsnr
    changed(visit, lambda data, mask: data.__setitem__((..., 0), data[..., 0] * 1.6))
    assert read_bold(visit).tsnr == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("space", ["space-T1w_", "", "space-MNIInfant_"])
def test_mni_regions_are_not_laid_over_other_spaces(tmp_path, space):
    visit = write(tmp_path)
    for path in list(visit["bold"].parent.iterdir()):
        path.rename(
            path.with_name(path.name.replace("space-MNI152NLin2009cAsym_", space))
        )
    bold = read_bold(visits(tmp_path)[0])
    with pytest.raises(InputError, match="adult MNI space"):
        regional_series(bold, pain_atlas())
    with pytest.raises(InputError, match="the regions of the seed in MNI"):
        SeedConnectivity().measure(VisitData(visits(tmp_path)[0]))
    found = BoldQuality().measure(VisitData(visits(tmp_path)[0]))
    assert np.isnan(found.values[5]) and np.isfinite(found.values[0])


def test_scrubbing_by_displacement_does_not_ask_for_dvars(tmp_path):
    def shaky(table):
        return table.assign(
            std_dvars=np.where(np.arange(VOLUMES) % 5 == 0, 1.6, 1.0)
        ).drop(columns="std_dvars")

    bold = read_bold(
        write(tmp_path, spikes=[50], change=shaky), Denoising("basic", scrub=0.5)
    )
    assert not bold.kept[50] and bold.kept.sum() == VOLUMES - 1
    assert (
        "DVARS" not in bold.settings["Denoising"]["Description"]
        and "DVARS" in Denoising("scrubbing").description()
    )


def test_compcor_keeps_its_cosines_under_a_filter(tmp_path):
    assert read_bold(write(tmp_path), Denoising("compcor", high_pass=0.008)).kept.all()
    with pytest.raises(InputError, match='"desc": "nonaggrDenoised"'):
        read_bold(visits(tmp_path)[0], Denoising("aroma"))
