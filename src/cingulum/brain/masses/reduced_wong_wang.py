"""The two-state reduced Wong-Wang mass (excitatory and inhibitory gating) of Deco et
al. 2014."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param


def transfer(current: Tensor, a: Value, b: Value, d: Value) -> Tensor:
    """Firing rate in Hz for an input current in nA: H(I) = (a I − b) / (1 − exp(−d (a I
    − b))), equation 5.

    The working point of this model lies at a I = b, where H is 0/0 and its derivative a
    difference of infinities: near it a series takes over, so that value and gradient
    are exact in float32 and float64.
    """
    drive = a * current - b
    if not torch.is_grad_enabled():
        # The value alone needs no series: expm1 is exact near zero, and the nudge only
        # matters at zero itself.
        drive = drive + 1e-30
        return drive / -torch.expm1(-d * drive)
    # e^60 is still finite in float32; H is below 1e-24 Hz there.
    return _smooth_ramp((d * drive).clamp_min(-60.0)) / d


def _smooth_ramp(u: Tensor) -> Tensor:
    """u / (1 − exp(−u)) with exact gradients everywhere."""
    near = u.abs() < 0.25
    # Each branch gets harmless arguments where the other is taken: `where` would
    # otherwise pass on the NaN of the gradient that it discards.
    series = _bernoulli_series(torch.where(near, u, 0.0))
    far = torch.where(near, 1.0, u)
    return torch.where(near, series, far / -torch.expm1(-far))


def _bernoulli_series(v: Tensor) -> Tensor:
    """v / (1 − exp(−v)) by its Taylor series, exact to rounding for |v| < 1/4."""
    # Nested (Horner's scheme): few operations, and small terms added first.
    w = v * v
    even = 1 - w / 60 * (1 - w / 42 * (1 - w / 40 * (1 - w * 5 / 198)))
    return 1 + v / 2 + w / 12 * even


def nmda_gating(S: Tensor, rate: Tensor, tau: Value, gamma: Value) -> Tensor:
    """Rate of change of NMDA gating, which saturates: spikes open only channels that
    are closed (equation 8)."""
    return -S / tau + (1 - S) * gamma * rate


def gaba_gating(S: Tensor, rate: Tensor, tau: Value, gamma: Value) -> Tensor:
    """Rate of change of GABA gating, which does not saturate (equation 9)."""
    return -S / tau + gamma * rate


@dataclass(frozen=True, eq=False)
class ReducedWongWang(Dynamics):
    """Equations 4–9 of Deco et al. 2014, doi:10.1523/JNEUROSCI.5068-13.2014, on one
    clock in seconds.

    The paper gives times in ms and rates in Hz; here γ_E is 0.641 and γ_I is 1 because
    time is in seconds. The one input is the coupling-weighted sum of the other regions'
    S_E; the mass multiplies it by J_N.
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
    I_0: Value = param(0.382, "nA", 0.2, 0.45, "background current")
    W_E: Value = param(
        1.0, "1", 0.5, 1.5, "share of the background current that reaches excitation"
    )
    W_I: Value = param(
        0.7, "1", 0.3, 1.0, "share of the background current that reaches inhibition"
    )
    w_plus: Value = param(1.4, "1", 0.5, 2.0, "recurrent excitation")
    J_N: Value = param(0.15, "nA", 0.05, 0.3, "NMDA synaptic coupling")
    J_i: Value = param(1.0, "nA", 0.2, 4.0, "local inhibition of excitation")

    # The resting values are the isolated node's equilibrium (excitatory rate 3.08 Hz).
    states: ClassVar = (
        State("S_E", 0.1647572, 0.0, 1.0),
        State("S_I", 0.0392184, 0.0, 1.0),
    )

    def currents(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Input currents of both populations, nA (equations 4 and 6)."""
        S_E, S_I = x
        (received,) = u
        excitation = self.J_N * (self.w_plus * S_E + received)
        I_E = self.W_E * self.I_0 + excitation - self.J_i * S_I
        I_I = self.W_I * self.I_0 + self.J_N * S_E - S_I
        return I_E, I_I

    def rates(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Firing rates of both populations, Hz (equations 5 and 7)."""
        I_E, I_I = self.currents(x, u)
        r_E = transfer(I_E, self.a_E, self.b_E, self.d_E)
        r_I = transfer(I_I, self.a_I, self.b_I, self.d_I)
        return r_E, r_I

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        S_E, S_I = x
        r_E, r_I = self.rates(x, u)
        dS_E = nmda_gating(S_E, r_E, self.tau_E, self.gamma_E)
        dS_I = gaba_gating(S_I, r_I, self.tau_I, self.gamma_I)
        return torch.stack([dS_E, dS_I])

    def output(self, x: Tensor) -> Tensor:
        return x[:1]
