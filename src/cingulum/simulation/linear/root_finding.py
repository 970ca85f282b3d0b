"""Newton's method and its safeguarded forms: what every search for a root in this
package iterates.

Each function is given the step (which solves the linear system that fits its problem)
and says where the iteration ended. Roots that carry gradients take one more step that
is differentiable: at a root it changes nothing but the gradient (implicit function
theorem).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Inexact
from torch import Tensor

Point = TypeVar("Point", Tensor, np.ndarray)


@dataclass(frozen=True, eq=False)
class Iterate(Generic[Point]):
    """Where an iteration ended: the last point at which a step was computed, that step,
    and whether the search converged there."""

    x: Point
    step: Point
    converged: bool

    @property
    def root(self) -> Point:
        """The point after the last step."""
        return self.x + self.step


def newton(
    step: Callable[[Point], Point],
    x: Point,
    *,
    tolerance: float,
    max_steps: int,
    relative: bool = False,
) -> Iterate[Point]:
    """Plain Newton's method: x + step(x), until the largest element of a step falls
    below `tolerance` (times 1 + the largest element of x, if `relative`).

    max_steps: at least 1; the iterate is not `converged` when they do not suffice
    """
    for _ in range(max_steps):
        before = x
        change = step(before)
        scale = 1 + abs(before).max() if relative else 1
        if abs(change).max() < tolerance * scale:
            return Iterate(before, change, converged=True)
        x = before + change
    return Iterate(before, change, converged=False)


def capped_newton(
    step: Callable[[Tensor], Tensor],
    x: Float[Tensor, "state *start"],
    *,
    steps: int,
) -> Float[Tensor, "state *start"]:
    """Newton's method from many starts at once, each step shortened to at most about
    half of the point it starts from; a fixed number of steps, converged or not."""
    for _ in range(steps):
        change = step(x)
        # A start at which the Jacobian is singular does not move.
        x = x + torch.nan_to_num(change / _excess(change, x), 0.0, 0.0, 0.0)
    return x


def _excess(change: Tensor, x: Tensor) -> Float[Tensor, "*start"]:
    """How many times longer a step is than it may be; at least 1."""
    # Longer steps would leap over other roots, and most starts end in the same one.
    return (change.abs() / (0.2 + 0.5 * x.abs())).amax(0).clamp_min(1.0)


def pseudo_transient(
    residual: Callable[[Tensor], Tensor],
    advance: Callable[[Tensor, Tensor, Tensor | float], Tensor],
    x: Float[Tensor, "state *batch region"],
    *,
    damping: float,
    tolerance: float,
    max_steps: int,
) -> tuple[Float[Tensor, "state *batch region"], float]:
    """Pseudo-transient continuation: implicit time steps of 1/damping that lengthen
    while the residual falls and turn into Newton steps (Kelley and Keyes 1998,
    doi:10.1137/S0036142996304796). It ends at the root that the dynamics would
    approach.

    advance: (point, residual, damping per batch member) to the next point
    Returns the last point and the largest residual known, that of the point before it
    when `max_steps` do not suffice.
    """
    current_damping: Tensor | float = damping
    previous_size = None
    for _ in range(max_steps):
        missing = residual(x)
        size = member_size(missing)
        if size.max() < tolerance:
            break
        if previous_size is not None:
            current_damping = _relaxed(current_damping, size / previous_size)
        previous_size = size
        x = advance(x, missing, current_damping)
    return x, size.max().item()


def _relaxed(damping: Tensor | float, change: Tensor) -> Tensor:
    """The damping of the next step, by the factor by which the residual has changed."""
    # Switched evolution relaxation: steps lengthen as the residual shrinks.
    return (damping * change.clamp(0.01, 10.0)).clamp_max(1e4)


def line_search_newton(
    residual: Callable[[Tensor], Tensor],
    step: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, "state *batch region"],
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[Float[Tensor, "state *batch region"], Tensor]:
    """Newton's method with a backtracking line search for every batch member.

    step: (point, residual there) to Newton's step
    Returns the last point and the residual that decided, below `tolerance` everywhere
    if the search converged.
    """
    for _ in range(max_steps):
        missing = residual(x)
        if missing.abs().max() < tolerance:
            break
        x = _backtrack(residual, x, step(x, missing), missing)
    return x, missing


def _backtrack(
    residual: Callable[[Tensor], Tensor], x: Tensor, step: Tensor, missing: Tensor
) -> Tensor:
    """The point after the longest of a few fractions of the step that lessens the
    residual, chosen for every batch member by itself."""
    before = member_size(missing)
    share = torch.ones_like(missing[0, ..., 0])
    # Six halvings: a step that has to be shorter than 1/64 starts from the wrong place.
    for _ in range(6):
        after = member_size(residual(x + share.unsqueeze(-1) * step))
        # NaN counts as worse.
        worse = ~(after < before)
        if not worse.any():
            break
        share = torch.where(worse, share / 2, share)
    return x + share.unsqueeze(-1) * step


def member_size(
    residual: Float[Tensor, "state *batch region"],
) -> Float[Tensor, "*batch"]:
    """The largest residual of every batch member."""
    return residual.abs().amax((0, -1))


def regional_step(
    jacobian: Float[Tensor, "*batch region state state"],
    residual: Float[Tensor, "state *batch region"],
) -> Float[Tensor, "state *batch region"]:
    """Newton's step of regions that are not joined, each by itself."""
    return -solve_vector(jacobian, residual.movedim(0, -1)).movedim(-1, 0)


def solve_vector(
    matrix: Inexact[Tensor, "*#batch n n"], vector: Inexact[Tensor, "*#batch n"]
) -> Inexact[Tensor, "*members n"]:
    """The solution of matrix · x = vector."""
    return torch.linalg.solve(matrix, vector.unsqueeze(-1)).squeeze(-1)
