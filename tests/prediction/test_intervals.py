"""Intervals that hold what they say, and checks that ask the right question."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from cingulum import evaluate, evaluate_ratings
from cingulum.prediction.conformal import conformal_intervals
from cingulum.prediction.confounds import with_curves
from cingulum.prediction.intervals import (
    accuracy_gain_interval,
    accuracy_interval,
    auc_gain_interval,
    correlation_interval,
    mirrored_auc_interval,
    single_scan_auc_interval,
)
from cingulum.prediction.leak_audit import _order_oracle


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


def forced_choice(n: int, effect: float, seed: int):
    """`evaluate` on one feature with an effect and four without; what its model reaches
    on new people, whose features are independent."""
    rng = np.random.default_rng((seed, n))
    values = rng.normal(size=(n, 2, 5))
    values[:, 1, 0] += effect
    names = [str(i) for i in range(n)]
    result = evaluate({"m": values}, names, permutations=0, jobs=1, seed=seed)
    # Fitted on everybody: nearly the models of the folds.
    weights = result.weights["m"]
    distance = effect * weights[0] / np.linalg.norm(weights)
    return result.scores["m"], distance


@pytest.mark.slow
@pytest.mark.parametrize(("n", "effect"), [(12, 2.5), (20, 0.0), (20, 1.0), (53, 0.7)])
def test_intervals_of_forced_choices_hold_what_they_say(n, effect):
    """Of 80 cohorts; 68 or fewer at a coverage of .95 has a false-alarm rate of .0005,
    at .92 of .02; three intervals and four settings."""
    held = np.zeros(3, int)
    for seed in range(80):
        score, distance = forced_choice(n, effect, seed)
        truths = norm.cdf([distance / np.sqrt(2), distance, distance / 2])
        intervals = [score.accuracy_ci, score.auc_ci, score.single_scan_auc_ci]
        for k, (interval, truth) in enumerate(zip(intervals, truths, strict=True)):
            held[k] += interval.low <= truth <= interval.high
    assert (held >= 69).all(), held


def test_intervals_of_accuracies_and_areas():
    """Known answers, and no end that claims to know the opposite."""
    perfect = accuracy_interval(1.0, 12)
    assert (round(perfect.low, 3), perfect.high) == (0.735, 1.0), "Clopper-Pearson"
    assert accuracy_interval(0.1, 20).high == accuracy_interval(0.5, 20).high
    for interval in (mirrored_auc_interval(1.0, 12), mirrored_auc_interval(0.97, 12)):
        assert 0.5 < interval.low < 0.8 and interval.high == 1.0
    assert mirrored_auc_interval(0.2, 20).high == mirrored_auc_interval(0.5, 20).high
    alike = np.repeat(np.arange(40.0)[:, None], 2, 1)
    unrelated = np.stack([np.arange(40.0), np.arange(40.0)[::-1]], 1)
    narrow = single_scan_auc_interval(0.6, alike, 40)
    wide = single_scan_auc_interval(0.6, unrelated, 40)
    assert wide.low < narrow.low < 0.6 < narrow.high < wide.high
    assert np.isnan(mirrored_auc_interval(1.0, 1).low)


def test_a_gain_is_never_certain_and_never_over_a_model_below_chance():
    right, wrong = np.ones(20), -np.ones(20)
    same = auc_gain_interval(right, right, 20)
    assert same.low < 0 < same.high
    gain = accuracy_gain_interval(right, wrong, 20)
    assert gain.low < 0.5 < gain.high <= 1.0
    assert accuracy_gain_interval(right, right, 20).low < 0


def test_a_family_counts_as_one_person():
    values = np.random.default_rng(1).normal(size=(20, 2, 4))
    values[:, 1, 0] += 2
    names = [str(i) for i in range(20)]
    options = {"permutations": 0, "folds": 5}
    alone = evaluate({"m": values}, names, **options).scores["m"]
    families = np.repeat([f"f{k}" for k in range(10)], 2)
    together = evaluate({"m": values}, names, blocks=families, **options).scores["m"]
    expected = accuracy_interval(together.accuracy, 10)
    assert together.accuracy_ci == expected
    width = alone.accuracy_ci.high - alone.accuracy_ci.low
    assert together.accuracy_ci.high - together.accuracy_ci.low > width


def test_errors_that_are_printed_with_an_interval_and_those_that_are_not():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2, 3))
    names = [str(i) for i in range(30)]
    result = evaluate_ratings({"a": x}, x[..., 0], names, on="features", permutations=0)
    for name in ("rmse", "mae"):
        interval = result.intervals[name]
        assert 0 < interval.low < result.performance[name] < interval.high
    assert not {"r2", "slope", "intercept"} & set(result.intervals)
