"""Feedback control of any mass with rates: a local parameter such that every region
fires at a wanted rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import get, parameters, with_values
from cingulum.errors import ConvergenceError, InputError
from cingulum.simulation.linear.equilibrium import fixed_point
from cingulum.simulation.linear.jacobian import system_jacobian
from cingulum.simulation.linear.root_finding import line_search_newton, solve_vector


def held_rate(
    brain: Brain,
    rate: float | Tensor = 3.0,
    parameter: str = "mass.J_i",
    *,
    tolerance: float = 1e-9,
    steps: int = 60,
) -> Brain:
    """The same brain with a regional `parameter` such that every region's excitatory
    rate (Hz) is `rate` at rest.

    Equilibrium and parameter are solved for together by Newton's method, and carry
    exact gradients with respect to everything else (implicit differentiation), so it
    serves as `prepare` of a fit. For `ReducedWongWang` the same is known in closed
    form: `balanced`. Feedback inhibition control: Deco et al. 2014,
    doi:10.1523/JNEUROSCI.5068-13.2014.

    Raises InputError for a mass without rates, ConvergenceError where no value of the
    parameter within its range does.
    """
    _check_has_rates(brain)
    target = torch.as_tensor(rate, dtype=brain.connectome.weights.dtype)
    problem = _HeldRate(brain, parameter, target)
    with torch.no_grad():
        z, residual = line_search_newton(
            problem.residual,
            problem.step,
            problem.start(),
            tolerance=tolerance,
            max_steps=steps,
        )
    if not residual.abs().max() < tolerance:
        raise _not_held(parameter, rate, residual)
    # A solution outside the declared range is one of the equations, not of the model.
    _check_range(brain, parameter, z[-1])
    # One more step, differentiable: it carries the gradient of the solution.
    solution = z + problem.step(z, problem.residual(z))
    return with_values(brain, {parameter: solution[-1]})


def _check_has_rates(brain: Brain) -> None:
    if not hasattr(brain.mass, "rates"):
        raise InputError(
            f"{type(brain.mass).__name__} has no firing rates to hold: give it a "
            "method `rates(x, u)`."
        )


def _not_held(
    parameter: str, rate: float | Tensor, residual: Tensor
) -> ConvergenceError:
    return ConvergenceError(
        f"No {parameter} holds every region at {rate} Hz (largest drift or "
        f"rate error {residual.abs().max().item():.2g}): start nearer, weaken the "
        "coupling or ask for another rate."
    )


@dataclass(frozen=True, eq=False)
class _HeldRate:
    """The equations of an equilibrium at the target rate (Hz); unknowns z (state + 1,
    *batch, region) are the states and, last, the parameter."""

    brain: Brain
    parameter: str
    target: Tensor

    def start(self) -> Float[Tensor, "unknown *batch region"]:
        """The equilibrium with the parameter as it is."""
        value = torch.as_tensor(get(self.brain, self.parameter)).detach()
        value = value.to(self.target)
        # The equilibrium need not be reached: the search goes on from wherever it got.
        x = fixed_point(self.brain, strict=False)
        return torch.cat([x, value.expand_as(x[0]).unsqueeze(0)])

    def residual(self, z: Tensor) -> Float[Tensor, "unknown *batch region"]:
        """Drift of every state, and by how much the rate is off."""
        x = z[:-1]
        controlled = with_values(self.brain, {self.parameter: z[-1]})
        # Not every mass has rates: `held_rate` has checked that this one does.
        rates = controlled.mass.rates  # type: ignore[attr-defined]
        rate_error = rates(x, controlled.coupling(x))[0] - self.target
        return torch.cat([controlled.drift(x), rate_error.unsqueeze(0)])

    def step(self, z: Tensor, residual: Tensor) -> Tensor:
        """Newton's step; differentiable in the residual, the Jacobian held constant
        (implicit function theorem)."""
        shape = (z.shape[0], z.shape[-1])

        def equations(unknowns: Tensor) -> Tensor:
            point = unknowns.unflatten(-1, shape).movedim(-2, 0)
            return _flattened(self.residual(point))

        jacobian = system_jacobian(equations, _flattened(z))
        step = -solve_vector(jacobian, _flattened(residual))
        return step.unflatten(-1, shape).movedim(-2, 0)


def _flattened(z: Float[Tensor, "unknown *batch region"]) -> Float[Tensor, "*batch n"]:
    """Unknowns of all regions as one vector for every batch member."""
    return z.movedim(0, -2).flatten(-2)


def _check_range(brain: Brain, parameter: str, values: Tensor) -> None:
    declared = parameters(brain.mass)[parameter.removeprefix("mass.")]
    outside = (values < declared.low) | (values > declared.high)
    if outside.any():
        raise ConvergenceError(
            f"To hold the rate, {parameter} would have to be "
            f"{values[outside][0].item():.3g} in {int(outside.sum())} region(s), "
            f"outside its range {declared.low:g} to {declared.high:g}: ask for another "
            "rate or parameter."
        )
