"""The Montbrió-Pazó-Roxin mass: the exact mean field of quadratic integrate-and-fire
neurons."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param


@dataclass(frozen=True, eq=False)
class MontbrioPazoRoxin(Dynamics):
    """Equation 12 of Montbrió, Pazó and Roxin 2015, doi:10.1103/PhysRevX.5.021028, with
    the time constant kept.

    r is in Hz and V without unit. With the defaults (η −5, J 15, Δ 1: figure 2 of the
    paper) a region is bistable. What is received adds to the recurrent rate, in units
    of J r.
    """

    tau: Value = param(0.010, "s", 0.005, 1.0, "membrane time constant")
    Delta: Value = param(1.0, "1", 0.1, 4.0, "half-width of the spread of excitability")
    eta: Value = param(-5.0, "1", -20.0, 20.0, "centre of the spread of excitability")
    J: Value = param(15.0, "1", 0.0, 30.0, "recurrent synaptic weight")
    I: Value = param(0.0, "1", -10.0, 10.0, "external current")

    # The resting values lie near the quieter of the two stable equilibria (8.1 Hz).
    states: ClassVar = (State("r", 7.2, 0.0), State("V", -2.2))

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        r, V = x
        (received,) = u
        dr = (self.Delta / (math.pi * self.tau) + 2 * r * V) / self.tau
        recurrent = self.tau * (self.J * r + received)
        reset = (math.pi * self.tau * r) ** 2
        dV = (V**2 + self.eta + self.I + recurrent - reset) / self.tau
        return torch.stack([dr, dV])

    def output(self, x: Tensor) -> Tensor:
        return x[:1]

    def activity(self, x: Tensor) -> Tensor:
        # Spikes in a membrane time: of order one, as haemodynamic models expect.
        return self.tau * x[0]
