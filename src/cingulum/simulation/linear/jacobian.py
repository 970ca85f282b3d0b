"""Jacobians by automatic differentiation: of each region by itself, and of a whole
system of equations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.dynamics import Dynamics


@dataclass(frozen=True, eq=False)
class LocalDrift:
    """The drift of every region by itself at one point, and its Jacobian by the states,
    without gradients."""

    rates: Float[Tensor, "state *batch region"]
    jacobian: Float[Tensor, "*batch region state state"]


def local_drift(
    model: Dynamics,
    x: Float[Tensor, "state *batch region"],
    u: Tensor,
) -> LocalDrift:
    """The drift at states x and its Jacobian; the input u, as `model.drift` takes it,
    is held constant."""
    # Also where the caller wants no gradients: the Jacobian is made of them.
    with torch.enable_grad():
        states = x.detach().clone().requires_grad_()
        rates = model.drift(states, u.detach())
        (by_state,) = derivatives(rates, (states,))
    return LocalDrift(rates.detach(), as_matrices(by_state).detach())


def system_jacobian(
    function: Callable[[Tensor], Tensor], z: Float[Tensor, "*batch unknown"]
) -> Float[Tensor, "*batch equation unknown"]:
    """The full Jacobian of a system of equations, for every batch member: function maps
    (*batch, unknown) to (*batch, equation). Carries no gradient."""
    with torch.enable_grad():
        unknowns = z.detach().requires_grad_()
        equations = function(unknowns)
        # Batch members do not depend on each other, so their sum has each one's
        # derivatives.
        (by_unknown,) = derivatives(equations.movedim(-1, 0), (unknowns,))
    return by_unknown.movedim(0, -1).mT.detach()


def derivatives(
    values: Iterable[Tensor],
    variables: tuple[Tensor, ...],
    *,
    differentiable: bool = False,
) -> tuple[Tensor, ...]:
    """Derivatives of each value by each variable: for every variable a tensor (value,
    *shape of the variable).

    A value is summed over its elements before it is differentiated, which gives every
    element's own derivative as long as no element depends on another's variables:
    regions and batch members do not. Where a value does not depend on a variable, the
    derivative is zero.

    differentiable: whether the derivatives carry gradients themselves
    """
    rows = [_gradient(value, variables, differentiable) for value in values]
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def _gradient(
    value: Tensor, variables: tuple[Tensor, ...], differentiable: bool
) -> tuple[Tensor, ...]:
    # A constant output, or an angle that nothing pulls back.
    if not value.requires_grad:
        return tuple(torch.zeros_like(variable) for variable in variables)
    return torch.autograd.grad(
        value.sum(),
        variables,
        create_graph=differentiable,
        retain_graph=True,
        materialize_grads=True,
    )


def as_matrices(
    derivative: Float[Tensor, "row column *batch region"],
) -> Float[Tensor, "*batch region row column"]:
    """Derivatives with the axes that make a matrix in front, as one matrix for every
    region."""
    return derivative.movedim((0, 1), (-2, -1))


def leading(rates: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalue with the largest real part on the last axis, and its index, which
    keeps that axis."""
    index = rates.real.argmax(-1, keepdim=True)
    return rates.gather(-1, index).squeeze(-1), index


def as_variable(x: Tensor) -> Tensor:
    """A copy of x to differentiate by, which passes gradients on to x."""
    copy = x.clone()
    return copy if copy.requires_grad else copy.requires_grad_()
