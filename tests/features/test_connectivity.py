"""Connectivity against closed forms and against nilearn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone

from cingulum.errors import InputError
from cingulum.features import ParcelConnectivity
from cingulum.features.parcel_connectivity import shrunk_partial, with_missing
from cingulum.features.tangent import Tangent
from cingulum.measures import correlation, covariance, fc, partial


def mixed(n=6, time=400, seed=0):
    """Signals (region, time) of correlated regions."""
    rng = np.random.default_rng(seed)
    return torch.as_tensor(rng.normal(size=(n, n)) @ rng.normal(size=(n, time)))


def test_correlation_and_partial_correlation_are_the_closed_forms():
    """Within 1e-12 of numpy's correlation and of the regression definition of partial
    correlation."""
    signals = mixed()
    np.testing.assert_allclose(fc(signals).numpy(), np.corrcoef(signals), atol=1e-12)
    found = partial(covariance(signals)).numpy()
    x = (signals - signals.mean(-1, keepdim=True)).numpy()
    for i, j in ((0, 1), (2, 5)):
        others = np.delete(x, [i, j], axis=0).T
        left = [
            v - others @ np.linalg.lstsq(others, v, rcond=None)[0] for v in (x[i], x[j])
        ]
        assert found[i, j] == pytest.approx(np.corrcoef(left)[0, 1], abs=1e-12)
    np.testing.assert_allclose(np.diag(found), 1.0, atol=1e-12)


def test_a_chain_has_no_partial_correlation_across_its_link():
    """1 → 2 → 3: regions 1 and 3 correlate, but not given 2 (precision known in closed
    form)."""
    precision = torch.tensor(
        [[1.0, -0.5, 0.0], [-0.5, 1.0, -0.5], [0.0, -0.5, 1.0]], dtype=torch.float64
    )
    cov = torch.linalg.inv(precision)
    assert correlation(cov)[0, 2] > 0.3 and partial(cov)[0, 2].abs() < 1e-12
    np.testing.assert_allclose(partial(cov)[0, 1], 0.5, atol=1e-12)


def test_partial_correlation_is_nilearns():
    from nilearn.connectome import ConnectivityMeasure

    signals = mixed(time=120)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = ConnectivityMeasure(
            kind="partial correlation", standardize=None
        ).fit_transform([signals.T.numpy()])[0]
    np.testing.assert_allclose(shrunk_partial(signals).numpy(), peer, atol=1e-8)


def test_tangent_is_nilearns_on_the_same_covariances():
    from nilearn.connectome import ConnectivityMeasure
    from sklearn.covariance import EmpiricalCovariance

    people = [mixed(seed=seed) for seed in range(12)]
    rows = np.stack([np.cov(p, bias=True)[np.tril_indices(6)] for p in people])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = ConnectivityMeasure(
            kind="tangent",
            cov_estimator=EmpiricalCovariance(store_precision=False),
            standardize=None,
        )
        theirs = peer.fit([p.T.numpy() for p in people[:8]]).transform(
            [p.T.numpy() for p in people]
        )
    ours = Tangent(shrinkage=0.0).fit(rows[:8]).transform(rows)
    row, column = np.tril_indices(6)
    scale = np.where(row == column, 1.0, np.sqrt(2))
    np.testing.assert_allclose(ours, theirs[:, row, column] * scale, atol=2e-5)


def test_tangent_is_a_well_behaved_estimator_that_learns_from_training_people_only():
    rows = np.stack(
        [np.cov(mixed(seed=seed))[np.tril_indices(6)] for seed in range(10)]
    )
    model = clone(Tangent(shrinkage=0.1))
    alone = model.fit(rows[:5]).transform(rows[9:])
    again = model.fit(rows[:5]).transform(rows)[9:]
    np.testing.assert_allclose(alone, again, atol=1e-10)
    np.testing.assert_allclose(
        model.fit(rows).transform(rows).mean(0), 0, atol=1e-6
    )  # the mean is the mean
    with pytest.raises(InputError, match="lower triangles"):
        Tangent().fit(rows[:, :7])
    with pytest.raises(InputError, match="positive definite"):
        Tangent(shrinkage=0.0).fit(-rows)


def test_missing_regions_are_missing_and_nothing_else_moves():
    signals = mixed()
    holed = signals.clone()
    holed[2] = torch.nan
    for measure in (fc, covariance):
        found, full = with_missing(measure, holed), measure(signals)
        seen = [0, 1, 3, 4, 5]
        np.testing.assert_allclose(
            found[seen][:, seen], full[seen][:, seen], atol=1e-14
        )
        assert torch.isnan(found[2]).all() and torch.isnan(found[:, 2]).all()


def test_kinds_are_named():
    with pytest.raises(InputError, match="Known are correlation, partial, covariance"):
        ParcelConnectivity(kind="tangent")
