import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from cingulum.prediction.confounds import ComBat, Deconfounder


def scans(n=90, p=40, seed=0):
    """Three sites that shift and stretch features; age is kept, a site's mean age
    differs."""
    rng = np.random.default_rng(seed)
    site = np.arange(n) % 3
    age = rng.normal(40, 8, n) + 4 * site
    clean = rng.normal(size=(n, p)) + 0.1 * (age - age.mean())[:, None]
    x = (
        clean * np.array([1, 2, 0.5])[site][:, None]
        + np.array([0, 3, -2])[site][:, None]
    )
    return np.column_stack([site, age, x]), clean, site, age


def test_sites_shift_and_stretch_no_longer_and_age_stays():
    x, _, site, age = scans()
    adjusted = ComBat(site=0, covariates=(1,)).fit_transform(x)
    left = (
        adjusted
        - np.column_stack([np.ones(90), age])
        @ np.linalg.lstsq(np.column_stack([np.ones(90), age]), adjusted)[0]
    )
    means = np.array([left[site == k].mean() for k in range(3)])
    spreads = np.array([left[site == k].std(0).mean() for k in range(3)])
    assert np.abs(means).max() < 0.15 and spreads.max() / spreads.min() < 1.25
    design = np.column_stack([np.ones(90), age - age.mean()])
    slope = np.linalg.lstsq(design, adjusted)[0][1].mean()
    assert 0.07 < slope < 0.2


def test_without_shrinkage_it_is_the_textbook():
    """With two features the empirical prior is not used: each site is standardised and
    given the pooled scale."""
    x, _, site, _ = scans(p=2)
    x = x[:, [0, 2, 3]]
    adjusted = ComBat(site=0).fit_transform(x)
    for k in range(3):
        own = adjusted[site == k]
        np.testing.assert_allclose(own.mean(0), x[:, 1:].mean(0), atol=1e-9)
    np.testing.assert_allclose(adjusted[site == 0].std(0), adjusted[site == 1].std(0))


def test_a_transform_of_training_data_does_not_know_test_data():
    x, *_ = scans()
    model = ComBat(site=0, covariates=(1,)).fit(x[:60])
    np.testing.assert_array_equal(
        model.transform(x[60:75]), model.transform(x[60:])[:15]
    )


def test_the_outcome_is_refused_as_covariate():
    x, _, _, age = scans()
    for y in (age, -2 * age + 1):
        with pytest.raises(ValueError, match="is the outcome"):
            ComBat(site=0, covariates=(1,)).fit(x, y)
    labelled = x.copy()
    labelled[:, 1] = np.arange(90) % 2
    with pytest.raises(ValueError, match="is the outcome"):
        ComBat(site=0, covariates=(1,)).fit(
            labelled, np.where(np.arange(90) % 2, "post", "pre")
        )


def test_unseen_sites_follow_the_rule_that_was_given():
    x, *_ = scans()
    new = x[:5].copy()
    new[:, 0] = 9
    with pytest.raises(ValueError, match="Site 9 was not in training"):
        ComBat(site=0, covariates=(1,)).fit(x).transform(new)
    kept = ComBat(site=0, covariates=(1,), unseen="unadjusted").fit(x).transform(new)
    np.testing.assert_allclose(kept, new[:, 2:])


def test_what_cannot_be_separated_is_refused():
    x, *_ = scans()
    x[:, 1] = x[:, 0]
    with pytest.raises(ValueError, match="cannot be separated"):
        ComBat(site=0, covariates=(1,)).fit(x)
    x[0, 0] = 7
    with pytest.raises(ValueError, match="at least two training scans"):
        ComBat(site=0).fit(x)
    with pytest.raises(ValueError, match="not among the 42 columns"):
        Deconfounder(confounds=(50,)).fit(x)


def test_deconfounding_leaves_no_slope_in_training_and_learns_nothing_from_tests():
    rng = np.random.default_rng(0)
    c = rng.normal(size=(50, 2))
    x = np.column_stack([c, rng.normal(size=(50, 4)) + c @ rng.normal(size=(2, 4))])
    model = make_pipeline(Deconfounder(confounds=(0, 1))).fit(x[:40])
    left = model.transform(x[:40])
    np.testing.assert_allclose(
        c[:40].T @ (left - left.mean(0)) - 40 * np.outer(c[:40].mean(0), 0 * left[0]),
        0,
        atol=1e-9,
    )
    np.testing.assert_array_equal(
        model.transform(x[40:45]), model.transform(x[40:])[:5]
    )
