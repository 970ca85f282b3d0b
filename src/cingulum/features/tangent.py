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
    `make_pipeline(Tangent(), SVC())` does. pyRiemann does the geometry.

    X: (visit, region·(region + 1)/2), lower triangles row by row, as
        `ParcelConnectivity(kind="covariance")` gives
    shrinkage: share of the mean variance put on every diagonal, so that short runs have
        an inverse
    tol, max_iter: the search for the mean ends when the logarithms of the whitened
        covariances average to less than tol (root mean square norm of a row), or after
        max_iter steps, with a warning. Nearly singular covariances (as many time points
        as regions, no shrinkage) do not reach the default tol
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
        """The geometric mean of the covariances, `mean_` (region, region)."""
        # Imported late: pyRiemann loads all its classifiers, which takes a second.
        from pyriemann.utils.mean import mean_riemann

        X = validate_data(self, X, dtype=np.float64)
        matrices = self._matrices(X)
        # pyRiemann compares the norm of the whole matrix, which grows with its size.
        tol = self.tol * np.sqrt(matrices.shape[-1])
        self.mean_ = mean_riemann(matrices, tol=tol, maxiter=self.max_iter)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Logarithms of the whitened covariances."""
        from pyriemann.utils.tangentspace import tangent_space

        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        upper = tangent_space(self._matrices(X), self.mean_, metric="riemann")
        return upper[:, _lower_in_upper(len(self.mean_))]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the input columns, or numbered names where there are none."""
        # scikit-learn sets `feature_names_in_` only where X was a data frame.
        names = input_features
        if names is None:
            names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"tangent {i}" for i in range(self.n_features_in_)]
        return np.array(names, dtype=object)

    def _matrices(self, X: np.ndarray) -> np.ndarray:
        """Shrunk covariances (visit, region, region)."""
        matrices = _symmetric(X)
        n = matrices.shape[-1]
        # Towards a multiple of the identity, as large as the matrix is on average.
        level = np.einsum("kii->k", matrices) / n
        target = level[:, None, None] * np.eye(n)
        shrunk = (1 - self.shrinkage) * matrices + self.shrinkage * target
        if (np.linalg.eigvalsh(shrunk)[:, 0] <= 0).any():
            raise InputError(
                "Tangent needs covariances (positive definite); give a larger "
                "`shrinkage`, or check X."
            )
        return shrunk


def _symmetric(lower: np.ndarray) -> np.ndarray:
    """Matrices (visit, region, region) of lower triangles row by row."""
    n = _regions(lower.shape[1])
    matrices = np.zeros((len(lower), n, n))
    row, column = np.tril_indices(n)
    matrices[:, row, column] = lower
    matrices[:, column, row] = lower
    return matrices


def _regions(columns: int) -> int:
    """Rows of the matrix whose lower triangle has so many entries."""
    n = round((np.sqrt(8 * columns + 1) - 1) / 2)
    if n * (n + 1) // 2 != columns:
        raise InputError(
            "Tangent needs lower triangles with diagonals, n(n + 1)/2 columns; got "
            f"{columns}."
        )
    return n


def _lower_in_upper(n: int) -> np.ndarray:
    """Position of the entries of a lower triangle, row by row, in an upper one: ours is
    the order of `ParcelConnectivity`, pyRiemann's is the other."""
    position = np.zeros((n, n), int)
    position[np.triu_indices(n)] = np.arange(n * (n + 1) // 2)
    row, column = np.tril_indices(n)
    return position[column, row]
