"""The two-state Wong-Wang mass in the gains of Griffiths et al. 2022, coupled through
the negative Laplacian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param
from cingulum.brain.masses.reduced_wong_wang import gaba_gating, nmda_gating, transfer


@dataclass(frozen=True, eq=False)
class GainWongWang(Dynamics):
    """Equations 4–13 of Griffiths et al. 2022, doi:10.1101/2022.05.19.492664, on one
    clock in seconds.

    The same node as `ReducedWongWang` with g_EE = w_+ J_N, g_EI = J_N, g_IE = J_i and
    the global gain g as the brain's strength; but regions are joined by g Σ_j C_ij (E_j
    − E_i), the negative Laplacian of the published code (the text prints the other
    sign). The squashing of states after every step, which the published code needs
    because its neurons and haemodynamics run on different clocks, is left out
    (docs/decisions/002).
    """

    tau_E: Value = param(0.100, "s", 0.05, 0.2, "decay of NMDA gating")
    tau_I: Value = param(0.010, "s", 0.005, 0.02, "decay of GABA gating")
    gamma_E: Value = param(
        0.641, "1", 0.3, 1.0, "gating opened by one excitatory spike"
    )
    gamma_I: Value = param(1.0, "1", 0.5, 2.0, "gating opened by one inhibitory spike")
    a_E: Value = param(
        310.0, "1/nC", 200.0, 400.0, "gain of the excitatory transfer function"
    )
    b_E: Value = param(
        125.0, "Hz", 100.0, 150.0, "threshold of the excitatory transfer function"
    )
    d_E: Value = param(
        0.16, "s", 0.1, 0.2, "curvature of the excitatory transfer function"
    )
    a_I: Value = param(
        615.0, "1/nC", 400.0, 800.0, "gain of the inhibitory transfer function"
    )
    b_I: Value = param(
        177.0, "Hz", 140.0, 210.0, "threshold of the inhibitory transfer function"
    )
    d_I: Value = param(
        0.087, "s", 0.05, 0.12, "curvature of the inhibitory transfer function"
    )
    I_0: Value = param(0.32, "nA", 0.1, 0.5, "background current")
    W_E: Value = param(
        1.0, "1", 0.5, 1.5, "share of the background current that reaches excitation"
    )
    W_I: Value = param(
        0.7, "1", 0.3, 1.0, "share of the background current that reaches inhibition"
    )
    g_EE: Value = param(0.1, "nA", 0.0, 6.0, "excitation by excitation")
    g_IE: Value = param(0.1, "nA", 0.0, 16.0, "excitation by inhibition (subtracted)")
    g_EI: Value = param(0.1, "nA", 0.0, 2.0, "inhibition by excitation")

    # The resting values are the isolated node's equilibrium.
    states: ClassVar = (
        State("E", 0.02822508, 0.0, 1.0),
        State("I", 0.01000753, 0.0, 1.0),
    )
    couplings: ClassVar = 2

    def currents(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Input currents of both populations, nA."""
        E, I = x
        # Σ_j C_ij E_j and Σ_j C_ij: together the Laplacian, also with delays.
        from_others, weight = u
        own = self.W_E * self.I_0 + self.g_EE * E
        I_E = own + from_others - weight * E - self.g_IE * I
        I_I = self.W_I * self.I_0 + self.g_EI * E - I
        return I_E, I_I

    def rates(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Firing rates of both populations, Hz."""
        I_E, I_I = self.currents(x, u)
        r_E = transfer(I_E, self.a_E, self.b_E, self.d_E)
        r_I = transfer(I_I, self.a_I, self.b_I, self.d_I)
        return r_E, r_I

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        E, I = x
        r_E, r_I = self.rates(x, u)
        dE = nmda_gating(E, r_E, self.tau_E, self.gamma_E)
        dI = gaba_gating(I, r_I, self.tau_I, self.gamma_I)
        return torch.stack([dE, dI])

    def output(self, x: Tensor) -> Tensor:
        return torch.stack([x[0], torch.ones_like(x[0])])
