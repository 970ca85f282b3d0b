"""Paired support vector machines as scikit-learn estimators: which of a person's two
visits is the one in more pain?

Each patient is one difference image d = second − first visit. Training on {+d: 1, −d:
0} is the same as a linear SVM through the origin on one copy with twice the penalty;
the label is a sign.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from cingulum.prediction.svm import solver


class _Paired(ClassifierMixin, BaseEstimator):
    """What paired machines have in common: two labels that are signs, and a decision
    plane through the origin."""

    coef_: np.ndarray
    classes_: np.ndarray

    def _signs(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_ = _two_classes(y)
        return X, np.where(y == self.classes_[1], 1.0, -1.0)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Decision responses (patient,): positive for the second class."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return X @ self.coef_[0]

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Labels (patient,)."""
        decided = (self.decision_function(X) > 0).astype(int)
        return self.classes_[decided]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _two_classes(y: np.ndarray) -> np.ndarray:
    """The two labels. Raises ValueError for more, and for a single one of a user's
    own."""
    classes = np.unique(y)
    # Differences of one direction only are enough: the other is their mirror image.
    if set(classes.tolist()) <= {0, 1}:
        return np.array([0, 1])
    if len(classes) != 2:
        raise _class_error(classes)
    return classes


def _class_error(classes: np.ndarray) -> ValueError:
    # scikit-learn's estimator checks look for its own words in the message.
    plural = "class" if len(classes) == 1 else "classes"
    return ValueError(
        "Only binary classification is supported. Expected two classes: "
        "labels 0 (first − second) and 1 "
        f"(second − first), or any two of your own; got {len(classes)} "
        f"{plural}: {classes[:5]}."
    )


class PairedSVC(_Paired):
    """Linear SVM on paired differences, through the origin.

    Parameters: C, penalty of the mirrored problem (scikit-learn's `SVC(kernel="linear",
    C=C)` on {+d, −d}).

    fit(X, y): X (patient, feature), one difference per patient; y: 1 where the
    difference is second − first, 0 where it is first − second (any two labels will do,
    the larger one is positive).

    Attributes: `coef_` (1, feature), `intercept_` (0 by symmetry), `dual_coef_` (1,
    patient), signed, `classes_`.
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> PairedSVC:
        X, signs = self._signs(X, y)
        # In the shapes of scikit-learn's SVC.
        self.dual_coef_ = _duals(X, signs, self.C)[None]
        self.coef_ = self.dual_coef_ @ X
        self.intercept_ = np.zeros(1)
        return self


class FusedPairedSVC(_Paired):
    """A paired machine for each block of columns, and a second one on their decisions,
    trained on responses from inner folds.

    Parameters: widths, number of columns of each block (None: one block); inner_folds;
    C.

    Attributes: as PairedSVC, and `fusion_` (block,), the weights of the blocks'
    decisions. Stacking without inner folds would score 58 % on noise (53 patients, two
    maps and a scalar); this one scores 50 %.
    """

    def __init__(
        self, widths: Sequence[int] | None = None, inner_folds: int = 4, C: float = 1.0
    ) -> None:
        self.widths = widths
        self.inner_folds = inner_folds
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> FusedPairedSVC:
        X, signs = self._signs(X, y)
        blocks = self._blocks(X)
        self.fusion_ = self._block_weights(blocks, signs)
        self.coef_ = self._fused_weights(blocks, signs)[None]
        self.intercept_ = np.zeros(1)
        return self

    def _fused_weights(
        self, blocks: Sequence[np.ndarray], signs: np.ndarray
    ) -> np.ndarray:
        """Weights (feature,) of one linear machine: each block's, times the weight of
        its decision."""
        weighted = []
        for weight, block in zip(self.fusion_, blocks, strict=True):
            weighted.append(weight * (_duals(block, signs, self.C) @ block))
        return np.concatenate(weighted)

    def _blocks(self, X: np.ndarray) -> list[np.ndarray]:
        """Columns of X, as `widths` says."""
        if self.widths is None:
            return [X]
        widths = list(self.widths)
        _check_widths(widths, X.shape[1])
        return np.split(X, np.cumsum(widths)[:-1], axis=1)

    def _block_weights(
        self, blocks: Sequence[np.ndarray], signs: np.ndarray
    ) -> np.ndarray:
        if len(blocks) == 1:
            return np.ones(1)
        parts = self._parts(len(signs))
        responses = [_inner_responses(block, signs, parts, self.C) for block in blocks]
        inside = np.stack(responses, 1)
        # Responses are in the frame in which every label is +1.
        return _duals(inside, np.ones(len(signs)), self.C) @ inside

    def _parts(self, patients: int) -> np.ndarray:
        """Inner part of each patient (patient,)."""
        # At least two parts, and two patients in each where there are enough.
        number = max(2, min(self.inner_folds, patients // 2))
        return np.arange(patients) % number


def _check_widths(widths: list[int], columns: int) -> None:
    if sum(widths) != columns or min(widths) < 1:
        raise ValueError(
            f"widths are to add up to the {columns} columns of X; got {widths}."
        )


def _duals(X: np.ndarray, signs: np.ndarray, C: float) -> np.ndarray:
    """Signed duals (patient,) of the machine trained on rows X."""
    # Written so that NaN is refused as well.
    if not C > 0:
        raise ValueError(f"C must be positive; got {C}.")
    return solver.duals(_gram(X), signs[None], 2.0 * C)[0]


def _gram(X: np.ndarray) -> np.ndarray:
    """Inner products of rows, in the precision of the solver."""
    return (X @ X.T).astype(np.float64)


def _inner_responses(
    X: np.ndarray, signs: np.ndarray, parts: np.ndarray, C: float
) -> np.ndarray:
    """Decisions of patients by machines that did not see their part, in the frame in
    which every label is +1."""
    gram = _gram(X)
    is_training = parts != np.arange(parts.max() + 1)[:, None]
    # A sign of 0 leaves a patient out.
    kept = np.where(is_training, signs, 0.0)
    decisions = solver.duals(gram, kept, 2.0 * C) @ gram
    return decisions[parts, np.arange(len(X))] * signs
