"""The partial and the full confounder test: their levels, and what they find."""

import numpy as np
import pytest

from cingulum.prediction import evaluate
from cingulum.prediction.confounding import (
    confounder_tests,
    independent_means,
    is_testable,
)
from cingulum.prediction.leak_audit import audit, audit_ratings
from cingulum.prediction.regression import regress
from cingulum.prediction.scan_kernels import feature_kernel
from cingulum.prediction.scans import Scans


def cohort(kind, n, rng):
    """Answer and confound (person,), which depend on each other in one way or
    another."""
    a, b = rng.normal(size=(2, n))
    return {
        "independent": (a, b),
        "the answer follows the confound": (0.7 * b + a, b),
        "along a parabola": (b**2 + a, b),
        "the confound follows the answer": (a, a**2 + b),
        "two groups": ((b > 0) + a, (b > 0) * 1.0),
    }[kind]


KINDS = [
    "independent",
    "the answer follows the confound",
    "along a parabola",
    "the confound follows the answer",
    "two groups",
]


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 20, 53])
@pytest.mark.parametrize("kind", KINDS)
def test_both_tests_keep_their_level(kind, n):
    """200 cohorts: at a level of 5 %, more than 21 false alarms come by chance in one
    of 2,000 comparisons (binomial); of the 30 here, in one run of 60."""
    rng = np.random.default_rng(n)
    partial = full = 0
    for seed in range(200):
        answer, confound = cohort(kind, n, rng)
        by_answer = 0.7 * answer + rng.normal(size=n)
        by_confound = 0.7 * confound + rng.normal(size=n)
        options = {"permutations": 99, "seed": seed}
        tests = confounder_tests(answer, by_answer, confound, **options)
        partial += tests.partial <= 0.05
        full += confounder_tests(answer, by_confound, confound, **options).full <= 0.05
    assert max(partial, full) <= 21


@pytest.mark.parametrize("power", [1, 2], ids=["a line", "a parabola"])
def test_predictions_that_follow_a_confound_are_found(power):
    """53 people, a confound as strong in the predictions as the answer: found in 97 of
    100 cohorts."""
    rng = np.random.default_rng(0)
    confound = rng.normal(size=53)
    answer = 0.5 * confound + rng.normal(size=53)
    predicted = 0.5 * answer + confound**power + 0.5 * rng.normal(size=53)
    tests = confounder_tests(answer, predicted, confound)
    assert tests.partial < 0.01
    assert tests.r_squared > 0.3


def test_people_without_a_value_are_left_out_and_nothing_else_changes():
    rng = np.random.default_rng(1)
    answer, predicted, confound = rng.normal(size=(3, 30))
    whole = confounder_tests(answer, predicted, confound, permutations=99)
    gap = [np.append(values, 1.0) for values in (answer, predicted, confound)]
    gap[2][-1] = np.nan
    assert confounder_tests(*gap, permutations=99) == whole


def test_what_hardly_varies_is_not_tested():
    assert not is_testable(np.zeros(50))
    assert not is_testable(np.append(np.zeros(50), np.ones(4)))
    assert is_testable(np.repeat([0.0, 1.0], 10))
    assert not is_testable(np.arange(9.0))


def test_means_are_of_families():
    family = np.array(["b", "a", "b"])
    (values,) = independent_means([np.array([1.0, 2.0, 5.0])], family)
    assert values.tolist() == [2.0, 3.0]


def test_the_audit_of_decisions_names_the_control_that_drives_them():
    """Patients move more at the visit with more pain, and motion alone is in the
    features."""
    rng = np.random.default_rng(2)
    motion = rng.normal(size=(40, 2, 1))
    motion[:, 1] += 1.0
    features = rng.normal(size=(40, 2, 20)) + 2 * motion
    values = {"fc": features, "motion": motion, "rate": rng.normal(size=(40, 2, 1))}
    names = [f"sub-{i:02d}" for i in range(40)]
    evaluation = evaluate(
        values, names, controls=("motion", "rate"), permutations=9, seed=1
    )
    change = rng.uniform(5, 30, 40)
    checks = {
        check.name: check
        for check in audit(values, evaluation, change=change, repeats=2)
    }
    assert checks["decisions beside motion"].verdict == "warn"
    assert checks["decisions beside motion"].found < 0.01
    assert checks["decisions beside rate"].verdict == "pass"
    assert "full confounder test" in checks["decisions beside rate"].words


def test_the_audit_of_ratings_names_a_confound_along_a_curve():
    """Regressing out the line of age leaves its curve in the predictions."""
    rng = np.random.default_rng(3)
    n = 60
    age = rng.uniform(20, 80, n)
    curve = ((age - 50) / 20) ** 2
    rating = 10 * curve + 8 * rng.normal(size=n) + 40
    features = curve[:, None] + 0.3 * rng.normal(size=(n, 3))
    people = np.arange(n)
    names = [f"sub-{i:02d}" for i in people]
    scans = Scans(people, np.zeros(n, int), rating, names)
    kernel = feature_kernel({"fc": features}, (), age[:, None])
    ratings = regress(scans, kernel, people % 10)
    checks = {
        check.name: check for check in audit_ratings(ratings, confounds={"age": age})
    }
    assert checks["predictions beside age"].verdict == "warn"


def test_r_inside_sites_leaves_out_what_sites_predict():
    """Sites differ in rating and in features; inside them there is nothing."""
    rng = np.random.default_rng(4)
    site = np.repeat(["A", "B", "C"], 20)
    level = np.repeat([0.0, 10.0, 20.0], 20)
    people = np.arange(60)
    names = [f"sub-{i:02d}" for i in people]
    rating = level + rng.normal(size=60)
    scans = Scans(people, np.zeros(60, int), rating, names, site)
    features = level[:, None] + rng.normal(size=(60, 2))
    ratings = regress(scans, feature_kernel({"fc": features}), people % 10)
    assert ratings.performance["r"] > 0.9
    predicted = ratings.predicted - ratings.predictions()["training_mean"].to_numpy()
    inside = [
        (values.reshape(3, 20) - values.reshape(3, 20).mean(1, keepdims=True)).ravel()
        for values in (predicted, rating)
    ]
    expected = np.corrcoef(inside)[0, 1]
    assert ratings.performance["r_within_site"] == pytest.approx(expected)
    interval = ratings.intervals["r_within_site"]
    assert interval.low < expected < interval.high and interval.low < 0.3


@pytest.mark.parametrize("level", [1.0, 1e9])
def test_without_an_answer_that_varies_the_partial_test_is_a_permutation_test(level):
    """As in the paired design without ratings: everybody hurts more at the second
    visit."""
    rng = np.random.default_rng(5)
    confound = rng.normal(size=40)
    follows = confound + 0.3 * rng.normal(size=40)
    answer = np.full(40, level)
    assert confounder_tests(answer, follows, confound).partial < 0.01
    p = [
        confounder_tests(answer, rng.normal(size=40), confound, permutations=99).partial
        for _ in range(20)
    ]
    assert 0.25 < np.mean(p) < 0.75
