"""The Kuramoto mass: a phase that others pull."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param


@dataclass(frozen=True, eq=False)
class Kuramoto(Dynamics):
    """dθ_i = ω_i + G Σ_j C_ij sin(θ_j − θ_i), Kuramoto 1984; as a brain: Cabral et al.
    2011, doi:10.1016/j.neuroimage.2011.04.010. The scanner records sin θ."""

    frequency: Value = param(40.0, "Hz", 0.01, 100.0, "intrinsic frequency")

    states: ClassVar = (State("theta", 0.0),)
    couplings: ClassVar = 2

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        (theta,) = x
        # sin(θ_j − θ_i) taken apart, so that what travels depends on the sender alone.
        sine, cosine = u
        pull = sine * torch.cos(theta) - cosine * torch.sin(theta)
        return torch.stack([2 * math.pi * self.frequency + pull])

    def output(self, x: Tensor) -> Tensor:
        return torch.stack([torch.sin(x[0]), torch.cos(x[0])])
