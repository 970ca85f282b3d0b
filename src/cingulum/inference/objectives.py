"""What a fit tries to make small."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.measures import edges, similarity


def fc_mismatch(
    modelled: Float[Tensor, "*batch region region"], recorded: Float[Tensor, "*batch region region"]
) -> Float[Tensor, "*batch"]:
    """−log(½ + ½ r) for the correlation r of two connectivity matrices (Griffiths et al. 2022, FC term).

    Zero for r = 1. Blind to the level and spread of connectivity, which are therefore reported beside a fit.
    """
    return -torch.log(0.5 + 0.5 * similarity(modelled, recorded))


def fc_error(
    modelled: Float[Tensor, "*batch region region"], recorded: Float[Tensor, "*batch region region"]
) -> Float[Tensor, "*batch"]:
    """Mean squared error over the pairs of regions, relative to the spread of the recorded connectivity.

    Zero for a perfect model, 1 for a model that knows the recorded mean only. Sees the level, which tells the coupling
    strength, where `fc_mismatch` does not; but what measurement noise takes from the recorded level, it takes for
    weak coupling.
    """
    return (edges(modelled) - edges(recorded)).square().mean(-1) / edges(recorded).var(-1)
