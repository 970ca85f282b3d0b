"""Models that predict ratings from inner products: ridge, kernel ridge and support
vector regression, fold by fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.svm import SVR

from cingulum.prediction.scan_kernels import ScanKernel, mean_diagonal
from cingulum.prediction.scans import Scans

Model = Literal["ridge", "kernel_ridge", "svr"]

MODELS = ("ridge", "kernel_ridge", "svr")

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Of ridge, in units of the mean diagonal of the training kernel; tuned inside the
folds."""


@dataclass(frozen=True, eq=False)
class Split:
    """Scans to train on, scans to predict (scan,), as booleans, and inner products
    (scan, scan) that were fitted to the former."""

    train: np.ndarray
    test: np.ndarray
    kernel: np.ndarray

    @property
    def among_training(self) -> np.ndarray:
        """Inner products (training scan, training scan)."""
        return self.kernel[np.ix_(self.train, self.train)]

    @property
    def test_with_training(self) -> np.ndarray:
        """Inner products (test scan, training scan)."""
        return self.kernel[np.ix_(self.test, self.train)]


@dataclass(frozen=True, eq=False)
class RegressionFold:
    """All that a fold knows before it sees ratings; inner: splits of its training
    scans, which choose the penalty."""

    outer: Split
    inner: tuple[Split, ...]
    model: Model


def regression_folds(
    scans: Scans, kernel: ScanKernel, outer: np.ndarray, inner: np.ndarray, model: Model
) -> list[RegressionFold]:
    """outer, inner: fold of each patient."""
    folds = []
    for fold in range(int(outer.max()) + 1):
        train = outer[scans.patient] != fold
        split = _split(kernel, train, ~train, fold, model)
        inside = _inner_splits(kernel, train, fold, inner[scans.patient], model)
        folds.append(RegressionFold(split, inside, model))
    return folds


def _inner_splits(
    kernel: ScanKernel, train: np.ndarray, fold: int, inner: np.ndarray, model: Model
) -> tuple[Split, ...]:
    """Splits of the training scans; inner: part of each scan."""
    # SVR keeps scikit-learn's C, so that there is nothing to choose inside.
    if model == "svr":
        return ()
    splits = []
    for part in np.unique(inner):
        kept = train & (inner != part)
        judged = train & (inner == part)
        # With few patients a whole part may lie in the fold that is left out.
        if kept.any() and judged.any():
            splits.append(_split(kernel, kept, judged, fold, model))
    return tuple(splits)


def _split(
    kernel: ScanKernel, train: np.ndarray, test: np.ndarray, fold: int, model: Model
) -> Split:
    fitted = _with_model(kernel(train, fold), train, model)
    return Split(train, test, fitted)


def _with_model(kernel: np.ndarray, train: np.ndarray, model: Model) -> np.ndarray:
    """Kernel with mean training diagonal 1; for kernel ridge, the Gaussian kernel of
    its distances."""
    # With this size a penalty means the same whatever the number of features.
    size = mean_diagonal(kernel, train)
    # A modality that does not vary has no size to be scaled by.
    if size > 0:
        kernel = kernel / size
    if model == "kernel_ridge":
        return _gaussian(kernel, train)
    return kernel


def _gaussian(kernel: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Gaussian kernel with the median squared distance between training scans as its
    width."""
    distance = _squared_distances(kernel)
    different = ~np.eye(train.sum(), dtype=bool)
    # Adapts to the data without a search; each scan's distance of 0 to itself would
    # make it too narrow.
    width = np.median(distance[np.ix_(train, train)][different])
    return np.exp(-distance / (width or 1.0))


def _squared_distances(kernel: np.ndarray) -> np.ndarray:
    diagonal = np.diag(kernel)
    # Rounding may leave squared distances of equal scans just below 0.
    return np.maximum(0, diagonal[:, None] + diagonal[None] - 2 * kernel)


def out_of_fold(folds: list[RegressionFold], ratings: np.ndarray) -> np.ndarray:
    """Predictions (scan, problem) minus the mean of their training ratings, of ratings
    (scan, problem)."""
    predictions = np.empty_like(ratings)
    for fold in folds:
        predict = _svr if fold.model == "svr" else _ridge
        predictions[fold.outer.test] = predict(fold, ratings)
    return predictions


def _ridge(fold: RegressionFold, ratings: np.ndarray) -> np.ndarray:
    """Each problem with the penalty that has the least squared error inside."""
    outer = fold.outer
    best = _inner_errors(fold, ratings).argmin(0)
    predictions = np.empty((int(outer.test.sum()), ratings.shape[1]))
    for k, hat in enumerate(_hat_matrices(outer)):
        # Thousands of permuted ratings with one penalty are one matrix product.
        chosen = best == k
        if chosen.any():
            predictions[:, chosen] = _linear(hat, ratings[outer.train][:, chosen])
    return predictions


def _inner_errors(fold: RegressionFold, ratings: np.ndarray) -> np.ndarray:
    """Squared errors (penalty, problem) over the inner splits."""
    errors = np.zeros((len(PENALTIES), ratings.shape[1]))
    for split in fold.inner:
        for k, hat in enumerate(_hat_matrices(split)):
            errors[k] += _squared_error(split, hat, ratings)
    return errors


def _squared_error(split: Split, hat: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    """Summed over the test scans of a split (problem,)."""
    known = ratings[split.train]
    error = ratings[split.test] - known.mean(0) - _linear(hat, known)
    return np.square(error).sum(0)


def _hat_matrices(split: Split) -> list[np.ndarray]:
    """For each penalty the matrix (test scan, training scan) that turns centred
    training ratings into predictions."""
    # One eigendecomposition serves all penalties and all permuted ratings.
    values, vectors = np.linalg.eigh(split.among_training)
    from_train = split.test_with_training @ vectors
    # Rounding may leave eigenvalues just below 0.
    values = values.clip(0)
    return [(from_train / (values + penalty)) @ vectors.T for penalty in PENALTIES]


def _linear(hat: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    return hat @ (ratings - ratings.mean(0))


def _svr(fold: RegressionFold, ratings: np.ndarray) -> np.ndarray:
    """scikit-learn's, with C = 1 and ε = 0.1 in units of the standard deviation of the
    training ratings."""
    trained = fold.outer.among_training
    tested = fold.outer.test_with_training
    predictions = np.empty((len(tested), ratings.shape[1]))
    for problem, y in enumerate(ratings[fold.outer.train].T):
        predictions[:, problem] = _predicted_by_svr(trained, y, tested)
    return predictions


def _predicted_by_svr(
    trained: np.ndarray, y: np.ndarray, tested: np.ndarray
) -> np.ndarray:
    """Predictions (test scan,) minus the mean of the training ratings y."""
    # C and ε have the unit of the ratings, so these are brought to a standard deviation
    # of 1 (constant ones keep theirs).
    size = y.std() or 1.0
    model = SVR(kernel="precomputed").fit(trained, (y - y.mean()) / size)
    return model.predict(tested) * size


def training_means(scans: Scans, outer: np.ndarray) -> np.ndarray:
    """Mean rating (scan,) of the scans outside a scan's fold; outer: fold of each
    patient."""
    fold = outer[scans.patient]
    return np.array([scans.rating[fold != own].mean() for own in fold])


def training_state_means(scans: Scans, outer: np.ndarray) -> np.ndarray:
    """The same over scans in the state of the scan only."""
    fold = outer[scans.patient]
    means = np.empty(len(fold))
    for scan in range(len(fold)):
        comparable = _comparable(fold, scans.state, scan)
        means[scan] = scans.rating[comparable].mean()
    return means


def _comparable(fold: np.ndarray, state: np.ndarray, scan: int) -> np.ndarray:
    """Scans in the state of the scan, outside its fold."""
    return (fold != fold[scan]) & (state == state[scan])
