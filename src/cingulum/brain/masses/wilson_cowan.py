"""The Wilson-Cowan mass: proportions of excitatory and inhibitory cells firing, with
refractoriness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, as_tensor_like, param


def response(x: Tensor, a: Value, theta: Value) -> Tensor:
    """Proportion of cells that fire under input x, shifted so that no input gives none
    (equation 15)."""
    return torch.sigmoid(a * (x - theta)) - offset(x, a, theta)


def offset(like: Tensor, a: Value, theta: Value) -> Tensor:
    """The plain sigmoid's value at zero input, which `response` takes off."""
    return torch.sigmoid(as_tensor_like(-a * theta, like))


@dataclass(frozen=True, eq=False)
class WilsonCowan(Dynamics):
    """Equations 11–12 of Wilson and Cowan 1972, doi:10.1016/S0006-3495(72)86068-5;
    constants of its figure 11.

    With P = 1.25 the isolated mass has a limit cycle (figure 11), with P = 0 it rests.
    Time in seconds.
    """

    tau_E: Value = param(
        0.008, "s", 0.004, 0.02, "membrane time constant of excitation"
    )
    tau_I: Value = param(
        0.008, "s", 0.004, 0.02, "membrane time constant of inhibition"
    )
    c_1: Value = param(16.0, "1", 5.0, 25.0, "excitation by excitation")
    c_2: Value = param(12.0, "1", 5.0, 25.0, "excitation by inhibition (subtracted)")
    c_3: Value = param(15.0, "1", 5.0, 25.0, "inhibition by excitation")
    c_4: Value = param(3.0, "1", 0.0, 15.0, "inhibition by inhibition (subtracted)")
    a_e: Value = param(1.3, "1", 0.5, 2.0, "steepness of the excitatory response")
    theta_e: Value = param(4.0, "1", 2.0, 6.0, "threshold of the excitatory response")
    a_i: Value = param(2.0, "1", 0.5, 3.0, "steepness of the inhibitory response")
    theta_i: Value = param(3.7, "1", 2.0, 6.0, "threshold of the inhibitory response")
    r_e: Value = param(1.0, "1", 0.5, 2.0, "refractoriness of excitation")
    r_i: Value = param(1.0, "1", 0.5, 2.0, "refractoriness of inhibition")
    P: Value = param(0.0, "1", 0.0, 3.0, "external input to excitation")
    Q: Value = param(0.0, "1", 0.0, 3.0, "external input to inhibition")

    states: ClassVar = (State("E", 0.0), State("I", 0.0))

    def inputs(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Input to both populations."""
        E, I = x
        (received,) = u
        onto_E = self.c_1 * E - self.c_2 * I + self.P + received
        onto_I = self.c_3 * E - self.c_4 * I + self.Q
        return onto_E, onto_I

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        E, I = x
        # The largest value of each response: not 1, because it is shifted.
        k_e = 1 - offset(x, self.a_e, self.theta_e)
        k_i = 1 - offset(x, self.a_i, self.theta_i)
        onto_E, onto_I = self.inputs(x, u)
        S_e = response(onto_E, self.a_e, self.theta_e)
        S_i = response(onto_I, self.a_i, self.theta_i)
        dE = (-E + (k_e - self.r_e * E) * S_e) / self.tau_E
        dI = (-I + (k_i - self.r_i * I) * S_i) / self.tau_I
        return torch.stack([dE, dI])

    def output(self, x: Tensor) -> Tensor:
        return x[:1]
