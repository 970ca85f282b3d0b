"""Feedback control of any mass with rates: a local parameter such that every region
fires at a wanted rate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import get, parameters, with_values
from cingulum.errors import ConvergenceError, InputError
from cingulum.simulation.linear.equilibrium import fixed_point


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
    serves as `prepare` of a fit. For `ReducedWongWang` the same is
    known in closed form: `balanced`. Feedback inhibition control: Deco et al. 2014,
        doi:10.1523/JNEUROSCI.5068-13.2014.

    Raises InputError for a mass without rates, ConvergenceError where no value of the
    parameter within its range does.
    """
    if not hasattr(brain.mass, "rates"):
        raise InputError(
            f"{type(brain.mass).__name__} has no firing rates to hold: give it a "
            "method `rates(x, u)`."
        )
    target = torch.as_tensor(rate, dtype=brain.connectome.weights.dtype)
    held = torch.as_tensor(get(brain, parameter)).detach().to(target)
    with torch.no_grad():
        x = fixed_point(brain, strict=False)
        z = torch.cat([x, held.expand_as(x[0]).unsqueeze(0)])
        for _ in range(steps):
            missing = _missing(brain, parameter, target, z)
            if missing.abs().max() < tolerance:
                break
            z = _shorter(
                brain,
                parameter,
                target,
                z,
                _step(brain, parameter, target, z, missing),
                missing,
            )
        else:
            raise ConvergenceError(
                f"No {parameter} holds every region at {rate} Hz (largest drift or "
                "rate error "
                f"{missing.abs().max().item():.2g}): start nearer, weaken the coupling "
                "or ask for another rate."
            )
    _check_range(brain, parameter, z[-1])
    missing = _missing(brain, parameter, target, z)
    return with_values(
        brain, {parameter: (z + _step(brain, parameter, target, z, missing))[-1]}
    )


def _check_range(brain: Brain, parameter: str, found: Tensor) -> None:
    declared = parameters(brain.mass)[parameter.removeprefix("mass.")]
    outside = (found < declared.low) | (found > declared.high)
    if outside.any():
        raise ConvergenceError(
            f"To hold the rate, {parameter} would have to be "
            f"{found[outside][0].item():.3g} in {int(outside.sum())} "
            f"region(s), outside its range {declared.low:g} to {declared.high:g}: ask "
            "for another rate or parameter."
        )


def _missing(
    brain: Brain, parameter: str, target: Tensor, z: Tensor
) -> Float[Tensor, "state+1 *batch region"]:
    """Drift of every state, and by how much the rate is off."""
    x, controlled = z[:-1], with_values(brain, {parameter: z[-1]})
    off = controlled.mass.rates(x, controlled.coupling(x))[0] - target  # type: ignore[attr-defined]
    return torch.cat([controlled.drift(x), off.unsqueeze(0)])


def _step(
    brain: Brain, parameter: str, target: Tensor, z: Tensor, missing: Tensor
) -> Tensor:
    """Newton's step; differentiable in `missing`, the Jacobian held constant (the
    implicit function theorem)."""
    n, batch = z.shape[-1], z.shape[1:-1]
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        values = (
            _missing(brain, parameter, target, at).movedim(0, -2).flatten(-2)
        )  # (*batch, equation)
        size = values.shape[-1]
        total = values.reshape(-1, size).sum(0)
        rows = [torch.autograd.grad(part, at, retain_graph=True)[0] for part in total]
    jacobian = (
        torch.stack(rows, -1).movedim(0, -3).reshape(*batch, size, size).mT.detach()
    )
    flat = missing.movedim(0, -2).flatten(-2)
    step = -torch.linalg.solve(jacobian, flat.unsqueeze(-1)).squeeze(-1)
    return step.unflatten(-1, (-1, n)).movedim(-2, 0)


def _shorter(
    brain: Brain,
    parameter: str,
    target: Tensor,
    z: Tensor,
    step: Tensor,
    missing: Tensor,
) -> Tensor:
    """The longest of a few fractions of the step after which less is missing, for every
    batch member."""
    before, share = missing.abs().amax((0, -1)), torch.ones_like(missing[0, ..., 0])
    for _ in range(6):
        after = (
            _missing(brain, parameter, target, z + share.unsqueeze(-1) * step)
            .abs()
            .amax((0, -1))
        )
        worse = ~(after < before)
        if not worse.any():
            break
        share = torch.where(worse, share / 2, share)
    return z + share.unsqueeze(-1) * step
