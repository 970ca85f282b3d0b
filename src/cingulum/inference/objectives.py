"""What a fit tries to make small."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.measures import similarity


def fc_mismatch(
    modelled: Float[Tensor, "*batch region region"], recorded: Float[Tensor, "*batch region region"]
) -> Float[Tensor, "*batch"]:
    """−log(½ + ½ r) for the correlation r of two connectivity matrices (Griffiths et al. 2022, FC term).

    Zero for r = 1. Blind to the level and spread of connectivity, which are therefore reported beside a fit.
    """
    return -torch.log(0.5 + 0.5 * similarity(modelled, recorded))
