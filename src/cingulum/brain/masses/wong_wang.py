"""The one-state Wong-Wang mass: NMDA gating of an excitatory population with effective
inhibition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param
from cingulum.brain.masses.reduced_wong_wang import nmda_gating, transfer


@dataclass(frozen=True, eq=False)
class WongWang(Dynamics):
    """Equations 1–3 of Deco et al. 2013, doi:10.1523/JNEUROSCI.1091-13.2013, in seconds
    (γ .641/1000 per ms there)."""

    tau_S: Value = param(0.100, "s", 0.05, 0.2, "decay of NMDA gating")
    gamma: Value = param(0.641, "1", 0.3, 1.0, "gating opened by one spike")
    a: Value = param(270.0, "1/nC", 200.0, 400.0, "gain of the transfer function")
    b: Value = param(108.0, "Hz", 80.0, 150.0, "threshold of the transfer function")
    d: Value = param(0.154, "s", 0.1, 0.2, "curvature of the transfer function")
    I_0: Value = param(0.3, "nA", 0.1, 0.45, "external current")
    w: Value = param(0.9, "1", 0.0, 1.2, "local recurrence")
    J_N: Value = param(0.2609, "nA", 0.1, 0.4, "synaptic coupling")

    # The resting value is in the basin of the quiet state.
    states: ClassVar = (State("S", 0.05, 0.0, 1.0),)

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        (S,) = x
        (received,) = u
        current = self.J_N * (self.w * S + received) + self.I_0
        rate = transfer(current, self.a, self.b, self.d)
        return torch.stack([nmda_gating(S, rate, self.tau_S, self.gamma)])

    def output(self, x: Tensor) -> Tensor:
        return x[:1]
