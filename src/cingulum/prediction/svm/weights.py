"""Weights of machines fitted on everybody: for pictures, never for performance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cingulum.prediction.svm import solver
from cingulum.prediction.svm.nested import ModalityKernel
from cingulum.prediction.svm.products import inverse_mean_square


class FittedWeights(NamedTuple):
    """Of one modality: weights and activation pattern (feature,) in the features'
    units, and the coefficients (patient,) of the differences that give the weights."""

    weights: np.ndarray
    pattern: np.ndarray
    dual: np.ndarray


def weights_on_everybody(
    values: np.ndarray, kernel: ModalityKernel, penalty: float
) -> FittedWeights:
    """values: (patient, visit, feature)."""
    available = kernel.available
    residual = kernel.residual[available][:, available]
    # The machine was trained on differences without confounds: the same weights in the
    # differences as they are.
    coefficients = _duals_on_everybody(kernel, penalty)[available] @ residual
    differences = values[available, 1] - values[available, 0]
    weights = coefficients.astype(values.dtype) @ differences
    if kernel.scale:
        weights = weights * inverse_mean_square(residual @ differences)
    everybody = np.zeros(len(available))
    everybody[available] = coefficients
    return FittedWeights(weights, activation_pattern(differences, weights), everybody)


def _duals_on_everybody(kernel: ModalityKernel, penalty: float) -> np.ndarray:
    """Duals (patient,); 0 for patients without the modality."""
    signs = kernel.available[None].astype(float)
    # Each difference counts for itself and its mirror image, hence twice C.
    return solver.duals(kernel.shared.gram, signs, 2 * penalty)[0]


def activation_pattern(differences: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Covariance of the features with the decision of a linear model, over its variance
    (Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067); mirrored differences have
    mean zero."""
    decision = differences @ weights
    size = np.square(decision).sum()
    if size <= 0:
        return np.zeros(differences.shape[1])
    return differences.T @ decision / size
