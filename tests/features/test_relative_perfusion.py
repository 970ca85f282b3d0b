from dataclasses import replace

import numpy as np
import pytest

from cingulum.features.blood_flow import RegionalPerfusion, relative
from cingulum.signals.atlas import pain_atlas


def test_whole_brain_mean_is_one_and_units_do_not_matter():
    cbf = np.random.default_rng(0).uniform(20, 80, (5, 6, 7))
    cbf[0] = 0  # outside the brain
    found = relative(cbf, cbf != 0)
    assert found[1:].mean() == pytest.approx(1.0) and (found[0] == 0).all()
    np.testing.assert_allclose(relative(0.0166 * cbf, cbf != 0), found)


def test_published_weights_expect_these_units(lee2019_folder):
    """Applied to a map with whole-brain mean 1, the published rCBF weights answer on
    the scale of their training data (pain page: decision values of order 1); raw ml/100
    g/min would be some fifty times off."""
    import nibabel as nib

    weights = np.asarray(nib.load(lee2019_folder / "paired_svm_rcbf.nii.gz").dataobj)
    inside = weights != 0
    rng = np.random.default_rng(0)
    first, second = (
        np.where(inside, 50 + 15 * rng.normal(size=weights.shape), 0) for _ in range(2)
    )
    response = float(
        (weights * (relative(second, inside) - relative(first, inside))).sum()
    )
    raw = float((weights * (second - first)).sum())
    assert abs(raw / response) == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize(
    ("atlas", "image", "same"),
    [
        ("MNI152NLin2009cAsym", "MNI152NLin6Asym", True),
        ("T1w", "T1w", True),
        ("T1w", "MNI152NLin2009cAsym", False),
        ("MNI152NLin2009cAsym", "", False),
    ],
)
def test_regions_are_looked_for_in_their_own_space_only(atlas, image, same):
    regions = replace(pain_atlas(), space=atlas)
    assert RegionalPerfusion(regions)._covers(image) == same
