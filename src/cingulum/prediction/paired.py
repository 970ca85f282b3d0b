"""The paired support vector machine: which of a person's two visits is the one in more pain?

Each patient is one difference image d = second − first visit. Training on {+d: 1, −d: 0} is the same as a linear SVM
through the origin on one copy with twice the penalty; the label is a sign. So everything happens in the n × n Gram
matrix of the differences, and a permutation that swaps a patient's visits is a flipped sign.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor


def hinge_weights(
    x: Tensor, signs: Tensor, C: float, *, start: Tensor | None = None, tolerance: float = 1e-4, sweeps: int = 2000
) -> tuple[Tensor, Tensor]:
    """Many linear SVMs through the origin at once, by dual coordinate descent.

    x: (sample, feature), shared by all problems
    signs: (sample, problem): +1 or −1, 0 for a sample that is left out
    C: penalty of the mirrored problem; the single copy has 2 C
    start: duals to begin from, for example those of a problem with one sample more
    tolerance: largest change of a sample's margin in the last sweep

    Returns weights (feature, problem) and signed duals (sample, problem), weights = xᵀ duals.
    Hsieh et al. 2008, doi:10.1145/1390156.1390208, algorithm 1, with L1 loss. For few features see `few_weights`.
    """
    gram, done = x @ x.T, torch.zeros_like(signs)
    dual = torch.zeros_like(signs) if start is None else start * signs.abs()
    going, s, margin = torch.arange(signs.shape[1]), signs, gram @ dual
    for _ in range(sweeps):
        change = _sweep(gram, s, dual, margin, 2 * C)
        open_ = change > tolerance
        if open_.sum() < 0.8 * len(open_):
            done[:, going[~open_]] = dual[:, ~open_]
            going, s, dual = going[open_], s[:, open_], dual[:, open_]
            margin = gram @ dual
        if len(going) == 0:
            break
    done[:, going] = dual
    return x.T @ done, done


def _sweep(gram: Tensor, signs: Tensor, dual: Tensor, margin: Tensor, box: float, block: int = 8) -> Tensor:
    """One pass over all samples, in place; returns the largest change of a sample's margin, for every problem.

    Samples are taken in blocks: inside a block margins are kept up to date one by one, outside by one matrix product.
    """
    change = torch.zeros_like(signs[0])
    for rows in torch.arange(len(gram)).split(block):
        here, before = slice(int(rows[0]), int(rows[-1]) + 1), dual[rows[0] : rows[-1] + 1].clone()
        local, own = margin[here], gram[here, here]
        for k, j in enumerate(rows.tolist()):
            diagonal = own[k, k].clamp_min(1e-12)
            step = (dual[j] + (signs[j] - local[k]) / diagonal).mul_(signs[j]).clamp_(0, box).mul_(signs[j])
            step.sub_(dual[j])
            dual[j] += step
            local.addmm_(own[:, k : k + 1], step.unsqueeze(0))
            torch.maximum(change, step.abs_().mul_(diagonal), out=change)
        moved = dual[here] - before
        margin[: here.start].addmm_(gram[: here.start, here], moved)
        margin[here.stop :].addmm_(gram[here.stop :, here], moved)
    return change


def few_weights(x: Tensor, signs: Tensor, C: float, *, iterations: int = 25) -> Tensor:
    """The same machines for a handful of features, where coordinate descent zigzags: an interior-point method.

    x: (sample, feature) shared, or (sample, feature, problem); returns weights (feature, problem).
    The dual is min ½ |Zᵀα|² − Σα in the box [0, 2C]; its Newton system is diagonal plus a matrix of rank `feature`.
    """
    z = (x if x.ndim == 3 else x.unsqueeze(-1)) * signs.unsqueeze(1)
    z = z.permute(2, 0, 1)  # (problem, sample, feature)
    box = 2 * C
    alpha = torch.full(z.shape[:2], box / 2, dtype=z.dtype)
    lower, upper = torch.ones_like(alpha), torch.ones_like(alpha)
    eye = torch.eye(z.shape[-1], dtype=z.dtype)
    for _ in range(iterations):
        room = box - alpha
        gap = (lower * alpha + upper * room).mean(1, keepdim=True) / 2
        if gap.max() < 1e-9:
            break
        target = 0.1 * gap
        slope = (z @ (z.mT @ alpha.unsqueeze(-1))).squeeze(-1) - 1
        diagonal = lower / alpha + upper / room
        r = (target / alpha - target / room - slope) / diagonal
        scaled = z / diagonal.unsqueeze(-1)
        inner = torch.linalg.solve(eye + z.mT @ scaled, z.mT @ r.unsqueeze(-1))
        step = r - (scaled @ inner).squeeze(-1)
        step_lower = (target - lower * step) / alpha - lower
        step_upper = (target + upper * step) / room - upper
        values = torch.cat([alpha, room, lower, upper], 1)
        change = torch.cat([step, -step, step_lower, step_upper], 1)
        reach = torch.where(change < 0, -values / change, torch.inf).amin(1, keepdim=True)
        length = (0.99 * reach).clamp_max(1.0)
        alpha = (alpha + length * step).clamp(1e-12, box - 1e-12)
        lower = (lower + length * step_lower).clamp_min(1e-12)
        upper = (upper + length * step_upper).clamp_min(1e-12)
    return (z.mT @ alpha.unsqueeze(-1)).squeeze(-1).T


def one_weight(x: Tensor, signs: Tensor, C: float) -> Tensor:
    """The same for one feature: bisection of the slope of the objective ½ w² + 2C Σ max(0, 1 − s x w)."""
    signed = signs * x
    high = 2 * C * signed.abs().sum(0)
    low = -high
    for _ in range(50):
        w = (low + high) / 2
        rising = w > 2 * C * (signed * (signed * w < 1)).sum(0)
        low, high = torch.where(rising, low, w), torch.where(rising, w, high)
    return ((low + high) / 2).unsqueeze(0)


def solve(x: Tensor, signs: Tensor, C: float, start: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Weights (feature, problem) by the method that suits the number of features, and duals to start the next from."""
    if x.shape[1] == 1:
        return one_weight(x, signs, C), None
    if x.shape[1] <= FEW:
        return few_weights(x, signs, C), None
    return hinge_weights(x, signs, C, start=start, tolerance=1e-3)


FEW = 8
"""Up to so many features the interior-point method is the faster one."""


def gram_factor(differences: np.ndarray) -> Tensor:
    """Coordinates (patient, patient) with the same inner products as the differences (patient, feature)."""
    gram = torch.as_tensor(differences @ differences.T, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    keep = values > 1e-12 * values[-1].clamp_min(1e-300)
    return vectors[:, keep] * values[keep].sqrt()


def span(factor: Tensor, weights: Tensor) -> np.ndarray:
    """Coefficients (patient, problem) that make the weights out of the patients' differences."""
    return np.linalg.lstsq(factor.numpy().T, weights.numpy(), rcond=None)[0]


class PairedSVC(ClassifierMixin, BaseEstimator):
    """Linear SVM on paired differences, through the origin.

    Parameters: C, penalty of the mirrored problem (scikit-learn's `SVC(kernel="linear", C=C)` on {+d, −d}).

    fit(X, y): X (patient, feature), one difference a patient; y: 1 where the difference is second − first, 0 where it
    is first − second. Attributes: `coef_` (1, feature), `intercept_` (0 by symmetry), `classes_`.
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, X: np.ndarray, y: np.ndarray) -> PairedSVC:
        X, y = validate_data(self, X, y, dtype=np.float64)
        if not set(np.unique(y)) <= {0, 1}:
            raise ValueError(f"Expected labels 0 (first − second) and 1 (second − first); came {np.unique(y)[:5]}.")
        self.classes_ = np.array([0, 1])
        signs = torch.as_tensor(2.0 * y - 1.0, dtype=torch.float64).unsqueeze(1)
        factor = gram_factor(X)
        if factor.shape[1] <= FEW:
            weights = few_weights(factor, signs, self.C, iterations=60)
        else:
            weights, _ = hinge_weights(factor, signs, self.C, tolerance=1e-7, sweeps=100_000)
        self.coef_ = span(factor, weights).T @ X
        self.intercept_ = np.zeros(1)
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=np.float64) @ self.coef_[0]

    def predict(self, X: np.ndarray) -> np.ndarray:
        return (self.decision_function(X) > 0).astype(int)
