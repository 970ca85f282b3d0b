import numpy as np
import pytest
import torch

from cingulum.datasets import CohortSettings, synthesize
from cingulum.datasets.synthetic_truth import draw_truth
from cingulum.errors import InputError
from cingulum.io.cohort import read_cohort


def test_the_ratings_have_the_published_marginals():
    """Lee et al. 2019: 31.6 ± 19.0 and 55.2 ± 18.9, r .79; 2000 patients, so a standard
    error of .4."""
    pain = draw_truth(CohortSettings(2000))["pain"].to_numpy().reshape(-1, 2)
    assert pain.mean(0) == pytest.approx([31.6, 55.2], abs=1.3)
    assert pain.std(0) == pytest.approx([19.0, 18.9], abs=1.3)
    assert np.corrcoef(pain.T)[0, 1] == pytest.approx(0.79, abs=0.03)
    assert pain.min() >= 0 and pain.max() <= 100


def test_a_null_cohort_has_no_mean_difference():
    """Every planted quantity but pain: |t| < 4 over 2000 patients (false alarm 6e-5
    each)."""
    rows = draw_truth(CohortSettings(2000, effect="none", seed=3))
    for name in (
        "connection",
        "perfusion",
        "ln_hf",
        "motion",
        "coupling",
        "heart_rate",
    ):
        change = np.diff(rows[name].to_numpy().reshape(-1, 2), axis=1).ravel()
        assert abs(change.mean() / (change.std() / np.sqrt(len(change)))) < 4, name


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    torch.set_default_dtype(torch.float32)
    settings = CohortSettings(2, voxel=9.0, volumes=40, tr=0.5)
    first, second = (synthesize(tmp_path / name, settings) for name in "ab")
    names = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert names == sorted(
        p.relative_to(second) for p in second.rglob("*") if p.is_file()
    )
    assert all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in names
    )


def test_layout_is_what_our_readers_and_others_expect(small_cohort):
    from nilearn.interfaces.bids import get_bids_files

    cohort = read_cohort(small_cohort)
    assert len(cohort.participants) == 10 and len(cohort.visits) == 20
    assert all(
        set(v.files) == {"bold", "mask", "confounds", "perfusion", "cardiac"}
        for v in cohort.visits
    )
    found = get_bids_files(
        small_cohort / "derivatives" / "fmriprep", file_tag="bold", file_type="nii.gz"
    )
    assert len(found) == 20


@pytest.mark.parametrize(
    "options", [{"patients": 1}, {"effect": "huge"}, {"voxel": 20.0}, {"volumes": 5}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(InputError):
        CohortSettings(**options)
