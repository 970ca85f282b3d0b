"""Connectivity in the tangent space of a group: an estimator, because the group is
other people."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from cingulum.errors import InputError


class Tangent(TransformerMixin, BaseEstimator):
    """Covariances as departures from the training people's geometric mean (Varoquaux et
    al. 2010, doi:10.1007/978-3-642-15705-9_25); fit it inside the folds, as
    `make_pipeline(Tangent(), SVC())` does.

    X: (visit, region·(region + 1)/2), lower triangles row by row, as
        `ParcelConnectivity(kind="covariance")` gives
    shrinkage: share of the mean variance put on every diagonal, so that short runs have
        an inverse
    transform: the same size, off-diagonal entries times √2, so that distances are those
        of the matrices
    """

    def __init__(
        self, shrinkage: float = 0.05, tol: float = 1e-8, max_iter: int = 100
    ) -> None:
        self.shrinkage = shrinkage
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any = None) -> Tangent:
        """The geometric mean of the covariances, and its inverse root."""
        X = validate_data(self, X, dtype=np.float64)
        matrices = self._matrices(X)
        mean = _geometric_mean(matrices, self.tol, self.max_iter)
        self.mean_ = mean
        self.whitening_ = _spectral(mean, lambda v: v**-0.5)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Logarithms of the whitened covariances."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        white = self.whitening_ @ self._matrices(X) @ self.whitening_
        logs = _spectral((white + white.swapaxes(-1, -2)) / 2, np.log)
        row, column = np.tril_indices(logs.shape[-1])
        return logs[:, row, column] * np.where(row == column, 1.0, np.sqrt(2))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """As many names as columns came in."""
        names = (
            getattr(self, "feature_names_in_", None)
            if input_features is None
            else input_features
        )
        return np.array(
            [f"tangent {i}" for i in range(self.n_features_in_)]
            if names is None
            else names,
            dtype=object,
        )

    def _matrices(self, X: np.ndarray) -> np.ndarray:
        n = round((np.sqrt(8 * X.shape[1] + 1) - 1) / 2)
        if n * (n + 1) // 2 != X.shape[1]:
            raise InputError(
                "Tangent needs lower triangles with diagonals, n(n + 1)/2 columns; "
                f"came {X.shape[1]}."
            )
        matrices = np.zeros((len(X), n, n))
        row, column = np.tril_indices(n)
        matrices[:, row, column] = matrices[:, column, row] = X
        level = np.einsum("kii->k", matrices) / n
        shrunk = (1 - self.shrinkage) * matrices + self.shrinkage * level[
            :, None, None
        ] * np.eye(n)
        if (np.linalg.eigvalsh(shrunk)[:, 0] <= 0).any():
            raise InputError(
                "Tangent needs covariances (positive definite); give a larger "
                "`shrinkage`, or check X."
            )
        return shrunk


def _spectral(matrix: np.ndarray, function: Any) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * function(values)[..., None, :]) @ vectors.swapaxes(-1, -2)


def _geometric_mean(matrices: np.ndarray, tol: float, max_iter: int) -> np.ndarray:
    """Where the logarithms of the whitened matrices average to zero (Fréchet mean), by
    steps along their average."""
    mean = _spectral(_spectral(matrices, np.log).mean(0), np.exp)
    step, before = 1.0, np.inf
    for _ in range(max_iter):
        root, inverse = _spectral(mean, np.sqrt), _spectral(mean, lambda v: v**-0.5)
        average = _spectral(inverse @ matrices @ inverse, np.log).mean(0)
        size = float(np.linalg.norm(average))
        if size < tol * np.sqrt(len(mean)):
            break
        step = step / 2 if size > before else step
        before = size
        mean = root @ _spectral(step * average, np.exp) @ root
    return mean
