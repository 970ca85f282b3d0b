"""Feedback inhibition control in closed form: local inhibition that puts every region
at the isolated node's working point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import Dynamics, with_values
from cingulum.brain.masses.reduced_wong_wang import ReducedWongWang, transfer
from cingulum.errors import InputError
from cingulum.simulation.linear.jacobian import derivatives
from cingulum.simulation.linear.root_finding import newton

WORKING_POINT = 0.1647572075
"""S_E of the isolated node at 3.08 Hz (Deco et al. 2014: about 3 Hz)."""


def balanced(brain: Brain) -> Brain:
    """The same brain with J_i such that every region's excitation rests at the 3 Hz
    working point.

    Closed form: at equilibrium every region's input is known, so J_i = (W_E I_0 + J_N
    (w_+ S* + u*) − I*) / S_I* (Demirtaş et al. 2019, doi:10.1016/j.neuron.2019.01.017;
    feedback inhibition of Deco et al. 2014).
    """
    mass = _balanceable(brain.mass)
    S_E = torch.full_like(brain.resting_state()[0], WORKING_POINT)
    S_I = inhibitory_gating(mass, S_E)
    target = excitatory_current(mass, S_E)
    # Only excitation travels between regions, so inhibition may be anything here.
    (received,) = brain.coupling(torch.stack([S_E, S_E]))
    excitation = mass.J_N * (mass.w_plus * S_E + received)
    J_i = (mass.W_E * mass.I_0 + excitation - target) / S_I
    return with_values(brain, {"mass.J_i": J_i})


def _balanceable(mass: Dynamics) -> ReducedWongWang:
    if isinstance(mass, ReducedWongWang):
        return mass
    raise InputError(
        f"Inhibition can be balanced for ReducedWongWang; got {type(mass).__name__}. "
        "For other masses with rates, use held_rate."
    )


def excitatory_current(mass: ReducedWongWang, S_E: Tensor) -> Tensor:
    """The current (nA) that holds S_E: inverse of the transfer function at the rate
    that gating needs."""
    # dS_E = 0, solved for the rate.
    rate = S_E / ((1 - S_E) * mass.gamma_E * mass.tau_E)

    def residual(current: Tensor) -> Tensor:
        return transfer(current, mass.a_E, mass.b_E, mass.d_E) - rate

    return _elementwise_root(residual, torch.full_like(S_E, 0.38))


def inhibitory_gating(mass: ReducedWongWang, S_E: Tensor) -> Tensor:
    """S_I at equilibrium, when excitation is held at S_E."""

    def residual(S_I: Tensor) -> Tensor:
        current = mass.W_I * mass.I_0 + mass.J_N * S_E - S_I
        rate = transfer(current, mass.a_I, mass.b_I, mass.d_I)
        return S_I - mass.tau_I * mass.gamma_I * rate

    return _elementwise_root(residual, torch.full_like(S_E, 0.04))


def _elementwise_root(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The root of an equation that each element solves by itself, with the gradient of
    the solution."""

    def step(x: Tensor) -> Tensor:
        value, slope = _value_and_slope(f, x)
        return -value / slope

    root = newton(step, x, tolerance=1e-12, max_steps=30).root
    # The last step is differentiable in everything the equation depends on.
    _, slope = _value_and_slope(f, root)
    return root - f(root) / slope


def _value_and_slope(f: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = f(x)
        (slope,) = derivatives([value], (x,))
    return value.detach(), slope[0]
