"""The Jansen-Rit mass: a cortical column of pyramidal cells, excitatory and inhibitory
interneurons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, Value, param


def synapse(
    firing: Tensor, v: Tensor, v_rate: Tensor, amplitude: Value, rate: Value
) -> Tensor:
    """Second derivative (mV/s²) of a postsynaptic potential v under firing: the kernel
    amplitude · rate · t · exp(−rate t) as a differential equation (equation 1)."""
    return amplitude * rate * firing - 2 * rate * v_rate - rate**2 * v


@dataclass(frozen=True, eq=False)
class JansenRit(Dynamics):
    """Equations 2–6 of Jansen and Rit 1995, doi:10.1007/BF00199471; states in mV, their
    rates in mV/s.

    What travels between regions is the firing of pyramidal cells. It may reach three
    populations, each with its own weight: excitatory interneurons (where the paper puts
    all input), pyramidal cells, and inhibitory interneurons (the three pathways of Momi
    et al. 2023, doi:10.7554/eLife.83232). The scanner records the pyramidal membrane
    potential. Noise is fluctuation of the input p: its amplitude, in pulses/s per √s,
    is multiplied by the default A a. With p between 120 and 320 an isolated column
    oscillates in the alpha band, near 10 Hz.
    """

    A: Value = param(
        3.25, "mV", 2.6, 9.75, "amplitude of excitatory postsynaptic potentials"
    )
    B: Value = param(
        22.0, "mV", 17.6, 110.0, "amplitude of inhibitory postsynaptic potentials"
    )
    a: Value = param(100.0, "1/s", 50.0, 200.0, "rate of excitatory synapses")
    b: Value = param(50.0, "1/s", 25.0, 100.0, "rate of inhibitory synapses")
    C: Value = param(
        135.0,
        "1",
        65.0,
        1350.0,
        "contacts between populations (C_1; the others are its shares)",
    )
    c_2: Value = param(0.8, "1", 0.4, 1.0, "excitatory feedback, as a share of C")
    c_3: Value = param(
        0.25, "1", 0.1, 0.5, "pyramidal cells to inhibition, as a share of C"
    )
    c_4: Value = param(
        0.25, "1", 0.1, 0.5, "inhibition to pyramidal cells, as a share of C"
    )
    e_0: Value = param(2.5, "1/s", 1.25, 5.0, "half the largest firing rate")
    v_0: Value = param(
        6.0, "mV", 3.0, 10.0, "potential of half the largest firing rate"
    )
    r: Value = param(0.56, "1/mV", 0.3, 0.8, "steepness of the sigmoid")
    p: Value = param(120.0, "1/s", 0.0, 320.0, "input from elsewhere")
    to_E: Value = param(
        1.0, "1", 0.0, 10.0, "weight of other regions on excitatory interneurons"
    )
    to_P: Value = param(
        0.0, "1", 0.0, 10.0, "weight of other regions on pyramidal cells"
    )
    to_I: Value = param(
        0.0, "1", 0.0, 10.0, "weight of other regions on inhibitory interneurons"
    )

    # Resting values near the oscillation at p = 120, so that little of a run is
    # transient.
    states: ClassVar = (
        State("P", 0.1, noise=0.0),
        State("E", 18.0, noise=0.0),
        State("I", 12.0, noise=0.0),
        State("P_rate", 0.0, noise=0.0),
        # The default A a, so that noise is in the unit of p.
        State("E_rate", 0.0, noise=325.0),
        State("I_rate", 0.0, noise=0.0),
    )

    def firing(self, v: Tensor) -> Tensor:
        """Firing rate (1/s) at membrane potential v (equation 2)."""
        return 2 * self.e_0 * torch.sigmoid(self.r * (v - self.v_0))

    def arriving(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Firing rates (1/s) that arrive at each kind of synapse."""
        P, E, I, *_ = x
        (received,) = u
        own_excitation = self.c_2 * self.C * self.firing(self.C * P)
        own_inhibition = self.c_4 * self.C * self.firing(self.c_3 * self.C * P)
        onto_P = self.firing(E - I) + self.to_P * received
        onto_E = self.p + own_excitation + self.to_E * received
        onto_I = own_inhibition + self.to_I * received
        return onto_P, onto_E, onto_I

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        P, E, I, P_rate, E_rate, I_rate = x
        onto_P, onto_E, onto_I = self.arriving(x, u)
        dP = synapse(onto_P, P, P_rate, self.A, self.a)
        dE = synapse(onto_E, E, E_rate, self.A, self.a)
        dI = synapse(onto_I, I, I_rate, self.B, self.b)
        return torch.stack([P_rate, E_rate, I_rate, dP, dE, dI])

    def output(self, x: Tensor) -> Tensor:
        return self.firing(x[1] - x[2])[None]

    def activity(self, x: Tensor) -> Tensor:
        return x[1] - x[2]
