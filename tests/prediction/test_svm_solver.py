"""The compiled machine against scikit-learn's, where it is easy and where it is not."""

import numpy as np
import pytest
from sklearn.svm import SVC

from cingulum.prediction.svm import responses, solver


def theirs(gram, signs, box):
    """Signed duals of libsvm through the origin: mirrored copies with half the penalty
    share one dual."""
    rows = np.flatnonzero(signs)
    k, s = gram[np.ix_(rows, rows)], np.sign(signs[rows])
    mirrored = np.block([[k, -k], [-k, k]])
    weight = np.tile(np.abs(signs[rows]), 2)
    model = SVC(kernel="precomputed", C=box / 2, tol=1e-10).fit(
        mirrored, np.concatenate([s, -s]), weight
    )
    dual = np.zeros(2 * len(rows))
    dual[model.support_] = model.dual_coef_[0]
    signed = np.zeros(len(gram))
    signed[rows] = dual[: len(rows)] - dual[len(rows) :]
    return signed


def objective(gram, signs, dual):
    return 0.5 * dual @ gram @ dual - np.sign(signs) @ dual


@pytest.mark.parametrize(
    ("n", "p", "box"),
    [(20, 1, 2), (20, 3, 2), (25, 25, 0.1), (25, 300, 2), (40, 12, 50), (30, 8, 1e-3)],
)
def test_equals_libsvm(n, p, box):
    """Weights where they are unique; duals may differ where patients are linearly
    dependent, objectives may not."""
    rng = np.random.default_rng(n * p)
    x = rng.normal(size=(n, p)) * np.exp(-np.arange(p) / 20)
    gram, signs = (
        x @ x.T,
        rng.choice([-1.0, 0.0, 1.0, 2.0], p=[0.4, 0.1, 0.4, 0.1], size=(5, n)),
    )
    for s, dual in zip(signs, solver.duals(gram, signs, float(box)), strict=True):
        expected = theirs(gram, s, box)
        assert objective(gram, s, dual) <= objective(gram, s, expected) + 1e-7 * (
            1 + abs(objective(gram, s, expected))
        )
        np.testing.assert_allclose(
            x.T @ dual, x.T @ expected, atol=2e-4 * np.abs(x.T @ expected).max()
        )
        assert (dual[s == 0] == 0).all() and (
            np.abs(dual) <= box * np.abs(s) + 1e-12
        ).all()


def test_patients_that_are_alike_opposite_or_nil_do_no_harm():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4))
    x = np.concatenate([x, x, -x, np.zeros((2, 4))])
    gram = x @ x.T
    signs = rng.choice([-1.0, 1.0], size=(50, len(x)))
    for s, dual in zip(signs, solver.duals(gram, signs, 2.0), strict=True):
        margins = s * (gram @ dual)
        assert (margins[dual == 0] >= 1 - 1e-6).all() or (
            np.diag(gram)[dual == 0] == 0
        ).any()
        np.testing.assert_allclose(x.T @ dual, x.T @ theirs(gram, s, 2.0), atol=1e-4)


def test_coordinate_descent_ends_where_the_active_set_does():
    """One event is allowed, so that coordinate descent does the rest."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 60))
    gram, signs = x @ x.T, rng.choice([-1.0, 1.0], size=(4, 30))
    np.testing.assert_allclose(
        solver.duals(gram, signs, 2.0, 1), solver.duals(gram, signs, 2.0), atol=1e-7
    )


@pytest.mark.parametrize("p", [2, 9, 200])
def test_leaving_out_equals_never_having_had(p):
    """Outer and inner responses from the models with everybody, against each model
    fitted from nothing."""
    rng = np.random.default_rng(p)
    n, parts = 18, 3
    first, d = rng.normal(size=(n, p)), rng.normal(size=(n, p)) + 0.3
    gram, cross = d @ d.T, first @ d.T
    outer, inner = rng.permutation(n) % 6, rng.permutation(n) % parts
    signs = rng.choice([-1.0, 1.0], size=(3, n))
    nil = np.zeros((6, parts + 1, n))
    decision, score, inside, inside_score = responses.held_out(
        gram, cross, nil, signs, outer, inner, 2.0
    )
    for b, s in enumerate(signs):
        for f in range(6):
            dual = solver.duals(gram, np.where(outer == f, 0.0, s)[None], 2.0)[0]
            np.testing.assert_allclose(
                decision[b, outer == f], (s * (gram @ dual))[outer == f], atol=1e-6
            )
            np.testing.assert_allclose(
                score[b, outer == f], (cross @ dual)[outer == f], atol=1e-6
            )
            for k in range(parts):
                rows = (inner == k) & (outer != f)
                dual = solver.duals(
                    gram, np.where((outer == f) | (inner == k), 0.0, s)[None], 2.0
                )[0]
                np.testing.assert_allclose(
                    inside[b, f, rows], (s * (gram @ dual))[rows], atol=1e-6
                )
                np.testing.assert_allclose(
                    inside_score[b, f, rows], (cross @ dual)[rows], atol=1e-6
                )
            assert (inside[b, f, outer == f] == 0).all()


@pytest.mark.parametrize("copies", [1, 3])
def test_outer_models_do_not_depend_on_inner_responses(copies):
    """With one mean scan per fold there are no inner models; copies of patients leave
    some problems to coordinate descent."""
    rng = np.random.default_rng(5)
    d = np.tile(rng.normal(size=(6, 4)), (copies, 1))
    n = len(d)
    gram, outer, inner = d @ d.T, np.arange(n), np.arange(n) % 3
    signs = rng.choice([-1.0, 1.0], size=(20, n))
    with_inner = responses.held_out(
        gram, gram, np.zeros((n, 4, n)), signs, outer, inner, 2.0
    )
    without = responses.held_out(
        gram, gram, np.zeros((n, 1, n)), signs, outer, inner, 2.0
    )
    np.testing.assert_array_equal(without[0], with_inner[0])
    np.testing.assert_array_equal(without[1], with_inner[1])


def test_ten_orders_of_magnitude_in_scale_change_nothing():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(15, 40))
    signs = np.ones((1, 15))
    small = solver.duals((1e-5 * x) @ (1e-5 * x).T, signs, 1e20)[0]
    large = solver.duals((1e5 * x) @ (1e5 * x).T, signs, 1e20)[0]
    np.testing.assert_allclose(small * 1e-10, large * 1e10, rtol=1e-6)
