"""What is computed from signals: pure, batched, differentiable; used for recordings and simulations alike."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fc(x: Float[Tensor, "*batch region time"]) -> Float[Tensor, "*batch region region"]:
    """Functional connectivity: Pearson correlation between every pair of regions."""
    centred = x - x.mean(-1, keepdim=True)
    unit = centred / centred.norm(dim=-1, keepdim=True)
    return unit @ unit.mT


def correlation(covariance: Float[Tensor, "*batch region region"]) -> Float[Tensor, "*batch region region"]:
    """The correlation matrix that belongs to a covariance matrix."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).rsqrt()
    return covariance * scale.unsqueeze(-1) * scale.unsqueeze(-2)


def edges(matrix: Float[Tensor, "*batch region region"]) -> Float[Tensor, "*batch edge"]:
    """The entries below the diagonal, one for each pair of regions."""
    n = matrix.shape[-1]
    row, column = torch.tril_indices(n, n, offset=-1, device=matrix.device)
    return matrix[..., row, column]


def pearson(a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    """Pearson correlation along the last axis."""
    a = a - a.mean(-1, keepdim=True)
    b = b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def similarity(
    a: Float[Tensor, "*batch region region"], b: Float[Tensor, "*batch region region"]
) -> Float[Tensor, "*batch"]:
    """How alike two connectivity matrices are: Pearson correlation of their edges."""
    return pearson(edges(a), edges(b))
