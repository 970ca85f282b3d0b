"""The results of a study, as the report shows them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cingulum.inference.resting import RestingFit


@dataclass(frozen=True, eq=False)
class FittedBrain:
    """A fit to show beside a study: where its data come from, and the connectivity it
    is held against."""

    source: str
    verified: RestingFit
    regions: tuple[str, ...]
    weights: torch.Tensor
    train: torch.Tensor
    heldout: torch.Tensor
