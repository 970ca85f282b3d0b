"""Intervals that hold what they say, and checks that ask the right question."""

from __future__ import annotations

import numpy as np
import pytest

from cingulum import evaluate_ratings
from cingulum.prediction.conformal import conformal_intervals
from cingulum.prediction.confounds import with_curves
from cingulum.prediction.leak_audit import _order_oracle
from cingulum.prediction.rating_performance import correlation_interval


def cohort(n: int, rho: float, seed: int):
    """One feature that correlates rho with the rating of n people."""
    rng = np.random.default_rng((seed, int(100 * rho)))
    x = rng.normal(size=(n, 1, 1))
    y = rho * x[..., 0] + np.sqrt(1 - rho**2) * rng.normal(size=(n, 1))
    result = evaluate_ratings(
        {"a": np.repeat(x, 2, 1)},
        np.repeat(y, 2, 1),
        [str(i) for i in range(n)],
        visits="first",
        on="features",
        scale=("a",),
        permutations=19,
        bootstrap=0,
        jobs=1,
        seed=seed,
    )
    return result.intervals["r"], result.p


@pytest.mark.slow
@pytest.mark.parametrize(("n", "rho"), [(12, 0.5), (20, 0.0), (20, 0.5), (53, 0.85)])
def test_the_interval_of_r_holds_what_it_says(n, rho):
    """Of 60 cohorts; 51 or fewer at a coverage of .95 has a false-alarm rate of .003
    each."""
    intervals = [cohort(n, rho, seed)[0] for seed in range(60)]
    assert sum(i.low <= rho <= i.high for i in intervals) >= 52


def test_the_interval_of_r_never_denies_that_nothing_is_known():
    for r in (-0.9, -0.4, 0.0):
        assert correlation_interval(r, 20).high > 0.4
    narrow, wide = correlation_interval(0.6, 200), correlation_interval(0.6, 20)
    assert wide.low < narrow.low < 0.6 < narrow.high < wide.high
    assert np.isnan(correlation_interval(0.5, 3).low)


@pytest.mark.parametrize(
    ("later", "number", "verdict"),
    [(50, 100, "pass"), (64, 100, "warn"), (6, 10, "pass"), (10, 10, "warn")],
)
def test_orders_are_tested_and_not_held_against_a_fixed_share(later, number, verdict):
    assert _order_oracle(np.arange(number) < later).verdict == verdict


def test_curves_of_confounds():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=(30, 2)), rng.integers(0, 2, (30, 2))], -1)
    curved = with_curves(values)
    assert curved.shape == (30, 2, 3), "two groups have no curve"
    square = ((values[..., 0] - values[..., 0].mean()) / values[..., 0].std()) ** 2
    np.testing.assert_allclose(curved[..., 2], square)


def test_conformal_intervals_hold_in_groups_where_these_are_given():
    """A fifth of the patients are three times as noisy: on average over patients 90 %
    are covered, of these few; by group, 90 % of both."""
    rng = np.random.default_rng(0)
    n = 2000
    group = (rng.random(n) < 0.2).astype(int)
    rating = np.where(group, 3, 1) * rng.normal(size=n)
    patient = np.arange(n)[:400]
    group, rating = group[:400], rating[:400]

    def covered(**options: np.ndarray) -> np.ndarray:
        ends = conformal_intervals(np.zeros(400), rating, patient, 0.9, **options)
        return (ends[:, 0] <= rating) & (rating <= ends[:, 1])

    assert covered().mean() == pytest.approx(0.9, abs=0.02)
    assert covered()[group == 1].mean() < 0.75
    for value in (0, 1):
        assert covered(group=group)[group == value].mean() > 0.85
