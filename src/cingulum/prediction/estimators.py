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
    """What paired machines have in common: two labels that are signs, a plane through
    the origin."""

    coef_: np.ndarray
    classes_: np.ndarray

    def _signs(self, X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        classes = np.unique(y)
        if set(classes.tolist()) <= {0, 1}:
            classes = np.array([0, 1])
        if len(classes) != 2:
            raise ValueError(
                "Only binary classification is supported. Expected two classes: "
                "labels 0 (first − second) and 1 "
                f"(second − first), or any two of your own; came {len(classes)} "
                f"class{'es'[: 2 * (len(classes) > 1)]}: "
                f"{classes[:5]}."
            )
        self.classes_ = classes
        return X, np.where(y == classes[1], 1.0, -1.0)

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """Decision responses (patient,): positive for the second class."""
        check_is_fitted(self)
        return (
            validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
            @ self.coef_[0]
        )

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Labels (patient,)."""
        decided = (self.decision_function(X) > 0).astype(int)
        return self.classes_[decided]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class PairedSVC(_Paired):
    """Linear SVM on paired differences, through the origin.

    Parameters: C, penalty of the mirrored problem (scikit-learn's `SVC(kernel="linear",
        C=C)` on {+d, −d}).

    fit(X, y): X (patient, feature), one difference a patient; y: 1 where the difference
    is second − first, 0 where it is first − second (any two labels will do, the larger
    one is positive). Attributes: `coef_` (1, feature), `intercept_` (0 by symmetry),
    `dual_coef_` (1, patient), signed, `classes_`.
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> PairedSVC:
        X, signs = self._signs(X, y)
        self.dual_coef_ = _duals(X, signs, self.C)[None]
        self.coef_ = self.dual_coef_ @ X
        self.intercept_ = np.zeros(1)
        return self


class FusedPairedSVC(_Paired):
    """A paired machine a block of columns, and a second one on their decisions, learnt
    on responses from inner folds.

    Parameters: widths, number of columns of each block (None: one block); inner_folds;
        C.

    Attributes: as PairedSVC, and `fusion_` (block,), the weights of the blocks'
    decisions. Un-nested stacking would score 58 % on noise (53 patients, two maps and a
    scalar); this one scores 50 %.
    """

    def __init__(
        self, widths: Sequence[int] | None = None, inner_folds: int = 4, C: float = 1.0
    ) -> None:
        self.widths = widths
        self.inner_folds = inner_folds
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> FusedPairedSVC:
        X, signs = self._signs(X, y)
        widths = [X.shape[1]] if self.widths is None else list(self.widths)
        if sum(widths) != X.shape[1] or min(widths) < 1:
            raise ValueError(
                f"widths are to add up to the {X.shape[1]} columns of X; came {widths}."
            )
        blocks = np.split(X, np.cumsum(widths)[:-1], axis=1)
        parts = np.arange(len(X)) % max(2, min(self.inner_folds, len(X) // 2))
        coefs = [_duals(block, signs, self.C) @ block for block in blocks]
        self.fusion_ = np.ones(1)
        if len(blocks) > 1:
            inside = np.stack(
                [_inner_responses(block, signs, parts, self.C) for block in blocks], 1
            )
            self.fusion_ = _duals(inside, np.ones(len(X)), self.C) @ inside
        self.coef_ = np.concatenate(
            [w * c for w, c in zip(self.fusion_, coefs, strict=True)]
        )[None]
        self.intercept_ = np.zeros(1)
        return self


def _duals(X: np.ndarray, signs: np.ndarray, C: float) -> np.ndarray:
    if not C > 0:
        raise ValueError(f"C must be positive; came {C}.")
    gram = (X @ X.T).astype(np.float64)
    return solver.duals(gram, signs[None], 2.0 * C)[0]


def _inner_responses(
    X: np.ndarray, signs: np.ndarray, parts: np.ndarray, C: float
) -> np.ndarray:
    """Decisions of patients by machines that did not see their part, in the frame in
    which every label is +1."""
    gram = (X @ X.T).astype(np.float64)
    kept = np.where(parts != np.arange(parts.max() + 1)[:, None], signs, 0.0)
    return (solver.duals(gram, kept, 2.0 * C) @ gram)[parts, np.arange(len(X))] * signs
