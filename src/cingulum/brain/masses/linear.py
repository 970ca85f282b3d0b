"""The linear stochastic mass: the simplest region there is, and the yardstick for all
others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param


@dataclass(frozen=True, eq=False)
class Linear(Dynamics):
    """dx = (−x + gain · u) / τ: an Ornstein-Uhlenbeck process on the connectome (Galán
    2008, doi:10.1371/journal.pone.0002148). Its covariance has a closed form, the
    solution of a Lyapunov equation."""

    tau: Value = param(0.1, "s", 0.001, 10.0, "decay time")
    gain: Value = param(1.0, "1", 0.0, 10.0, "answer to input")

    states: ClassVar = (State("x", 0.0),)

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        (received,) = u
        return torch.stack([(self.gain * received - x[0]) / self.tau])

    def output(self, x: Tensor) -> Tensor:
        return x
