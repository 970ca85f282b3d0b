"""The Hopf mass (Stuart-Landau): a region at the edge of oscillation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param


@dataclass(frozen=True, eq=False)
class Hopf(Dynamics):
    """Equations 3–4 of Deco et al. 2017, doi:10.1038/s41598-017-03073-5.

    Below a = 0 noise rings at the frequency, above it the region oscillates with
    amplitude √(a / growth). In the paper the equations give BOLD itself, filtered to
    .04–.07 Hz, and growth is 1/s. Regions are joined by differences.
    """

    a: Value = param(-0.02, "1/s", -10.0, 10.0, "distance to the Hopf bifurcation")
    frequency: Value = param(0.05, "Hz", 0.01, 100.0, "intrinsic frequency")
    growth: Value = param(1.0, "1/s", 0.1, 100.0, "strength of the cubic term")

    states: ClassVar = (State("x", 0.0), State("y", 0.0))
    couplings: ClassVar = 3

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        a, b = x
        # Σ_j C_ij (a_j − a_i) with its two sums apart, so that what travels depends on
        # the sender alone.
        from_a, from_b, weight = u
        omega = 2 * math.pi * self.frequency
        shrink = self.a - self.growth * (a * a + b * b)
        da = shrink * a - omega * b + from_a - weight * a
        db = shrink * b + omega * a + from_b - weight * b
        return torch.stack([da, db])

    def output(self, x: Tensor) -> Tensor:
        return torch.stack([x[0], x[1], torch.ones_like(x[0])])
