"""The leak audit: quiet where all is well, loud where it is not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cingulum.prediction import evaluate
from cingulum.prediction.decision_calibration import calibrate_decisions
from cingulum.prediction.leak_audit import audit, failed
from cingulum.prediction.learning_curves import compact, learning_curve
from cingulum.prediction.lee2019 import published_regression
from cingulum.prediction.paired_evaluation import p_of_kept_orders
from cingulum.prediction.paired_visits import PairedVisits
from cingulum.prediction.regression import evaluate_ratings
from cingulum.prediction.settings import Svm, Validation

NAMES = [f"sub-{i:02d}" for i in range(40)]


@pytest.fixture(scope="module")
def study():
    rng = np.random.default_rng(0)
    values = {"a": rng.normal(size=(40, 2, 300)), "motion": rng.normal(size=(40, 2, 1))}
    values["a"][:, 1] += 0.12
    values["motion"][:, 1] += 1.5
    ratings = (
        40
        + 10 * rng.normal(size=(40, 1))
        + np.array([0, 20])
        + rng.normal(size=(40, 2))
    )
    return (
        values,
        ratings,
        evaluate(values, NAMES, controls=("motion",), permutations=99),
    )


def test_every_way_around_the_brain_is_asked(study):
    values, ratings, evaluation = study
    only = {"a": values["a"]}
    rated = evaluate_ratings(
        only,
        ratings,
        NAMES,
        permutations=49,
        confounds={"motion": values["motion"][..., 0]},
    )
    recipe = published_regression(only, ratings, permutations=1, noises=10)
    checks = {
        c.name: c
        for c in audit(
            values, evaluation, rose=np.ones(40, bool), ratings=rated, published=recipe
        )
    }
    assert (
        checks["noise features"].verdict == "pass"
        and abs(checks["noise features"].found - 0.5) < 0.1
    )
    assert (
        checks["shuffled visits"].verdict == "pass"
        and checks["shuffled patients"].verdict == "pass"
    )
    assert (
        checks["order oracle"].verdict == "warn" and checks["order oracle"].found == 1.0
    )
    assert (
        checks["motion alone"].verdict == "warn"
        and "motion" in checks["motion alone"].words
    )
    assert (
        checks["state-only oracle"].found > 0.5 and "confounds alone, ratings" in checks
    )
    assert (
        checks["published 2019 split"].verdict != "pass" and recipe.noise_range.low > 0
    ), "the sentinel sees the leak"
    assert failed(list(checks.values())) == []


def test_a_pipeline_that_beats_its_own_permutations_on_average_fails(study):
    values, _, evaluation = study
    leaky = replace(evaluation.scores["a"], null=np.full(99, 0.7))
    checks = audit(
        values, replace(evaluation, scores={**evaluation.scores, "a": leaky}), repeats=5
    )
    assert [c.name for c in failed(checks)] == ["shuffled visits"]


def test_a_balanced_order_passes(study):
    values, _, evaluation = study
    checks = {
        c.name: c
        for c in audit(values, evaluation, rose=np.arange(40) % 2 == 0, repeats=5)
    }
    assert checks["order oracle"].verdict == "pass"


def test_learning_curves_rise_with_patients_and_end_at_the_score(study):
    values, _, evaluation = study
    curve = learning_curve({"a": values["a"]}, NAMES, repeats=15, sizes=(10, 20, 40))
    assert curve["patients"].tolist() == [10, 20, 40]
    assert curve["accuracy"].iloc[0] < curve["accuracy"].iloc[-1] + 0.05
    assert curve["accuracy"].iloc[-1] == pytest.approx(evaluation.scores["a"].accuracy)


def test_compacted_features_have_the_same_inner_products():
    values = np.random.default_rng(0).normal(size=(6, 2, 5000)).astype(np.float32)
    small = compact(values)
    assert small.shape == (6, 2, 12)
    a, b = values.reshape(12, -1).astype(float), small.reshape(12, -1)
    np.testing.assert_allclose(b @ b.T, a @ a.T, rtol=1e-4, atol=1e-2)


def test_probabilities_are_meant_as_they_are_said():
    """Gaussian decisions with d = 1: the Brier score of the true log-odds is .126
    (integrated here); ours, learnt from 200 patients, within .03; noise gives .25."""
    rng = np.random.default_rng(0)
    d = rng.normal(1, 1, size=200)
    calibration = calibrate_decisions(d)
    many = rng.normal(1, 1, size=200_000)
    assert calibration.brier == pytest.approx(
        np.mean((1 - 1 / (1 + np.exp(-2 * many))) ** 2), abs=0.03
    )
    assert calibration.curve.shape[1] == 3 and calibration.curve[:, 2].sum() == 400
    assert np.abs(calibration.curve[:, 0] - calibration.curve[:, 1]).max() < 0.15
    assert calibrate_decisions(rng.normal(size=200)).brier == pytest.approx(
        0.25, abs=0.02
    )
    assert np.isnan(calibrate_decisions(np.append(d[:20], np.nan)).probability[-1])


def test_whoever_does_the_work_finds_the_same(study):
    values, _, evaluation = study
    by_one_job, by_two_jobs = (
        audit(values, evaluation, repeats=4, jobs=jobs)[0] for jobs in (1, 2)
    )
    assert by_one_job == by_two_jobs
    a, b = (
        learning_curve({"a": values["a"]}, NAMES, repeats=3, sizes=(10, 20), jobs=jobs)
        for jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def of_orders(rng, n, share, order_effect, pain_effect):
    """Visits with the more painful one second, and whether it came later."""
    later = np.arange(n) < share * n
    values = rng.normal(size=(n, 2, 10))
    values[:, 1] += pain_effect
    sign = np.where(later, 1.0, -1.0)[:, None]
    values[:, 0] -= order_effect * sign / 2
    values[:, 1] += order_effect * sign / 2
    return values, later


@pytest.mark.parametrize("what", ["order", "pain"])
def test_what_order_alone_predicts_is_no_evidence_where_orders_are_kept(what):
    """85 % had more pain later. The usual p takes an effect of order for pain."""
    rng = np.random.default_rng(1)
    effects = (3.0, 0.0) if what == "order" else (0.0, 1.0)
    values, later = of_orders(rng, 40, 0.85, *effects)
    evaluation = evaluate({"a": values}, NAMES, permutations=199)
    checks = {
        check.name: check
        for check in audit({"a": values}, evaluation, rose=later, repeats=2)
    }
    assert evaluation.scores["a"].p < 0.05
    assert checks["order oracle"].verdict == "warn"
    kept = checks["kept orders"]
    assert kept.verdict == ("warn" if what == "order" else "pass")
    if what == "order":
        assert kept.found > 0.05


def test_where_everybody_has_one_order_nothing_can_be_exchanged():
    rng = np.random.default_rng(2)
    values, _ = of_orders(rng, 40, 1.0, 0.0, 1.0)
    evaluation = evaluate({"a": values}, NAMES, permutations=9)
    checks = audit({"a": values}, evaluation, rose=np.ones(40, bool), repeats=2)
    assert "kept orders" not in {check.name for check in checks}


@pytest.mark.slow
def test_p_of_kept_orders_is_uniform_though_order_has_an_effect():
    """400 cohorts of 20, 75 % with more pain later: at 5 %, more than 34 come by chance
    in one of 1,000 runs (binomial)."""
    rng = np.random.default_rng(3)
    found = []
    for seed in range(400):
        values, later = of_orders(rng, 20, 0.75, 1.0, 0.0)
        p = p_of_kept_orders(
            PairedVisits({"a": values}, NAMES[:20]),
            later,
            svm=Svm(),
            validation=Validation(None, 4, seed, False),
            permutations=99,
        )
        found.append(p)
    assert np.sum(np.array(found) <= 0.05) <= 34
    assert 0.4 < np.mean(found) < 0.65
