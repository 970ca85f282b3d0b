import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

from cingulum.errors import InputError
from cingulum.prediction import FusedPairedSVC, PairedSVC, evaluate
from cingulum.prediction.compiled_statistics import mirrored_auc
from cingulum.prediction.confounds import ComBat, Deconfounder


def planted(rng, n, p, effect):
    """n patients, two visits, p features; the second visit is shifted."""
    values = rng.normal(size=(n, 2, p)) @ (
        np.eye(p) + 0.3 * rng.normal(size=(p, p)) / np.sqrt(p)
    )
    values[:, 1] += effect / np.sqrt(p)
    return values


def mirrored(d):
    return np.concatenate([d, -d]), np.repeat([1, 0], len(d))


@pytest.mark.parametrize(
    ("p", "C"), [(1, 1.0), (4, 1.0), (4, 0.05), (30, 1.0), (30, 0.02), (400, 1.0)]
)
def test_equals_scikit_learns_svm_on_mirrored_differences(p, C):
    d = planted(np.random.default_rng(p), 25, p, 1.0)
    d = d[:, 1] - d[:, 0]
    ours = PairedSVC(C=C).fit(d, np.ones(25, int))
    theirs = SVC(kernel="linear", C=C, tol=1e-8).fit(*mirrored(d))
    np.testing.assert_allclose(
        ours.coef_, theirs.coef_, atol=2e-5 * np.abs(theirs.coef_).max()
    )
    assert ours.intercept_ == 0 and abs(theirs.intercept_[0]) < 1e-4


def test_flipping_a_label_equals_swapping_the_visits():
    d = np.random.default_rng(0).normal(size=(20, 12))
    y = np.arange(20) % 2
    swapped = np.where(y[:, None] == 1, d, -d)
    np.testing.assert_allclose(
        PairedSVC().fit(d, y).coef_,
        PairedSVC().fit(swapped, np.ones(20, int)).coef_,
        atol=1e-5,
    )


def test_keeps_scikit_learns_manners():
    model = PairedSVC(C=0.5)
    assert model.get_params() == {"C": 0.5} and clone(model).C == 0.5
    d = np.random.default_rng(0).normal(size=(20, 12)) + 1
    assert (
        set(model.fit(d, np.ones(20, int)).predict(-d)) <= {0, 1}
        and model.n_features_in_ == 12
    )
    with pytest.raises(ValueError, match="labels 0"):
        model.fit(d, np.full(20, 2))


@pytest.mark.parametrize(
    "estimator", [PairedSVC(), FusedPairedSVC(), Deconfounder(), ComBat()], ids=repr
)
def test_scikit_learn_finds_nothing_wrong_with_our_estimators(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that array API checks are skipped
        checks = check_estimator(estimator, on_fail=None)
    assert not [
        (c["check_name"], c["exception"])
        for c in checks
        if c["status"] not in ("passed", "skipped")
    ]


def test_our_estimators_work_in_scikit_learns_pipelines():
    """Responses of cross_val_predict with grouped folds equal a loop, and a fused
    machine is a linear one."""
    rng = np.random.default_rng(0)
    d, y = rng.normal(size=(24, 9)) + 0.5, np.repeat(["after", "before"], 12)
    d[y == "after"] *= -1
    groups = np.arange(24) % 12
    pipe = make_pipeline(
        Deconfounder(confounds=(8,)), FusedPairedSVC(widths=(5, 3), inner_folds=3)
    )
    decisions = cross_val_predict(
        clone(pipe), d, y, groups=groups, cv=GroupKFold(4), method="decision_function"
    )
    train, test = next(GroupKFold(4).split(d, y, groups))
    model = clone(pipe).fit(d[train], y[train])
    np.testing.assert_allclose(decisions[test], model.decision_function(d[test]))
    np.testing.assert_allclose(
        decisions[test], model[0].transform(d[test]) @ model[1].coef_[0]
    )
    assert set(model.predict(d)) <= {"after", "before"} and model[1].fusion_.shape == (
        2,
    )
    with pytest.raises(ValueError, match="add up to the 9"):
        FusedPairedSVC(widths=(5, 3)).fit(d, y)


def test_evaluation_equals_a_plain_scikit_learn_loop():
    """Leave-one-patient-out and nested fusion, written out with SVC."""
    rng = np.random.default_rng(3)
    values = {
        "a": planted(rng, 16, 40, 2.0),
        "b": planted(rng, 16, 1, 1.0),
        "c": planted(rng, 16, 60, 1.0),
    }
    evaluation = evaluate(
        values, [str(i) for i in range(16)], permutations=3, inner_folds=4
    )
    differences = {k: v[:, 1] - v[:, 0] for k, v in values.items()}

    def response(d, train, test):
        model = SVC(kernel="linear", tol=1e-8).fit(*mirrored(d[train]))
        return d[test] @ model.coef_[0]

    fused = []
    for i in range(16):
        others = np.array([j for j in range(16) if j != i])
        fold = evaluation.parts[others]
        inner = np.zeros((15, 3))
        for k in range(4):
            for m, d in enumerate(differences.values()):
                inner[fold == k, m] = response(d, others[fold != k], others[fold == k])
        outer = np.array([response(d, others, [i])[0] for d in differences.values()])
        fused.append(
            outer @ SVC(kernel="linear", tol=1e-8).fit(*mirrored(inner)).coef_[0]
        )
    for name, d in differences.items():
        plain = [
            response(d, [j for j in range(16) if j != i], [i])[0] for i in range(16)
        ]
        np.testing.assert_allclose(
            evaluation.scores[name].decisions, plain, rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(
        evaluation.scores["fused"].decisions, fused, rtol=1e-4, atol=1e-5
    )


def test_the_auc_is_the_mirrored_one():
    d = np.random.default_rng(0).normal(0.5, 1, size=30)
    assert mirrored_auc(d[None])[0] == pytest.approx(
        roc_auc_score(np.repeat([1, 0], 30), np.concatenate([d, -d]))
    )


def test_same_seed_same_numbers_at_any_number_of_workers():
    rng = np.random.default_rng(0)
    values = {"a": planted(rng, 12, 30, 1.0), "b": planted(rng, 12, 2, 1.0)}
    names = list(map(str, range(12)))
    by_two_jobs = evaluate(
        values, names, permutations=120, inner_folds=3, seed=5, jobs=2
    )
    by_one_job = evaluate(
        values, names, permutations=120, inner_folds=3, seed=5, jobs=1
    )
    for name in by_one_job.scores:
        assert np.array_equal(
            by_one_job.scores[name].null, by_two_jobs.scores[name].null
        )
        assert np.array_equal(
            by_one_job.scores[name].decisions, by_two_jobs.scores[name].decisions
        )


def test_missing_values_and_too_few_patients_are_refused():
    values = np.zeros((12, 2, 3))
    with pytest.raises(InputError, match="at least 10"):
        evaluate({"a": values[:5]}, list("abcde"))
    values[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="missing or infinite"):
        evaluate({"a": values}, list("abcdefghijkl"))
