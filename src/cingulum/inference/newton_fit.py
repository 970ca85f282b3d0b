"""Newton's method for few parameters and many recordings: some ten rounds to the exact
optimum of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.errors import ConvergenceError
from cingulum.inference.optimise import Row, SearchResult, mean_of
from cingulum.inference.problem import (
    Assessment,
    Problem,
    Theta,
    choose,
    joined,
    split,
)
from cingulum.progress import track

CHUNK = 8
"""Points that are evaluated together: enough to share work, few enough for memory."""

AssessPoint = Callable[[Theta], Assessment]

MAX_STEP = 2.0
"""Longest step, in prior standard deviations."""

STEP_SHARES = (1.0, 0.3, 0.08)
"""Shares of the step that are tried, until one lowers the loss."""

MAX_DAMPING = 1e6
"""Damping at which a member is left where it is: its steps no longer move it."""

SMALLEST_CURVATURE = 0.1
"""Curvature, relative to the prior's, below which it no longer scales the step."""


@dataclass
class _NewtonState:
    """Where a search by Newton's method is; one entry per batch member.

    row: coordinates, (*batch, coordinate)
    damping: added to the curvature, in prior precisions
    """

    row: Tensor
    loss: Tensor
    fc_r: Tensor
    damping: Tensor
    done: Tensor

    def accept(self, row: Tensor, assessment: Assessment, candidates: Tensor) -> Tensor:
        """Move the candidates whose loss is lower at `row`; returns which moved."""
        lower = (assessment.loss < self.loss) & assessment.stable
        moved = lower & ~self.done & candidates
        self.row = choose(moved, row, self.row)
        self.loss = torch.where(moved, assessment.loss, self.loss)
        return moved

    def means(self) -> dict[str, float]:
        """Of the history: means over starts and batch."""
        return {"loss": mean_of(self.loss), "fc_r": mean_of(self.fc_r)}

    def adapt_damping(self, better: Tensor) -> None:
        """Less after a step that helped, more after one that did not."""
        damping = torch.where(better, self.damping / 10, self.damping * 10)
        # Bounded below, so that a failure after many successes is answered at once.
        self.damping = damping.clamp(1e-4, MAX_DAMPING)
        self.done = self.done | (self.damping >= MAX_DAMPING)


def fit_by_newton(
    problem: Problem,
    theta: Theta,
    rounds: int = 20,
    *,
    tolerance: float = 1e-3,
    show_progress: bool = False,
    assess: AssessPoint | None = None,
    method: str = "analytic",
) -> SearchResult:
    """Damped Newton steps, every batch member for itself, until the predicted gain is
    below `tolerance`.

    The Hessian is computed from differences of gradients: 2 P of them per round, for P
    coordinates. Where it is not positive the step follows |eigenvalue| (saddle-free
    Newton, Dauphin et al. 2014, arXiv:1406.2572); a step that does not help is
    shortened, and damped more in the next round.

    assess: the loss; default: the problem's closed form. Simulations are possible where
        their noise is always the same, or absent (evoked responses)
    method: the name of it in the history

    Raises ConvergenceError where the loss is not finite beside a point.
    """
    assess = assess or problem.analytic
    state = _initial_state(problem, joined(theta), assess)
    rows: list[Row] = []
    numbers = track(
        range(rounds), "fit (Newton)", show=show_progress, note=lambda: _note(rows)
    )
    for number in numbers:
        slope, curvature = slope_and_curvature(problem, state.row, assess=assess)
        step, gain = _damped_step(slope, curvature, state.damping)
        # Members that are done stay where they are while the others go on.
        state.done = state.done | (gain < tolerance)
        better = _take_step(problem, state, step, assess)
        state.adapt_damping(better)
        rows.append({"method": method, "step": number, **state.means()})
        if state.done.all():
            break
    end = split(problem, state.row)
    return SearchResult(theta=end, loss=state.loss, rows=rows, last=end)


def _initial_state(problem: Problem, row: Tensor, assess: AssessPoint) -> _NewtonState:
    assessment = _assess_row(problem, row, assess)
    # Any stable point is better than an unstable start.
    loss = torch.where(assessment.stable, assessment.loss, torch.inf)
    return _NewtonState(
        row=row,
        loss=loss,
        fc_r=assessment.fc_r,
        damping=torch.ones_like(loss),
        done=torch.zeros_like(loss, dtype=torch.bool),
    )


def _take_step(
    problem: Problem, state: _NewtonState, step: Tensor, assess: AssessPoint
) -> Tensor:
    """Take the longest share of the step that lowers the loss; returns which members
    moved."""
    unit = prior_sd(problem)
    better = torch.zeros_like(state.done)
    fc_r = state.fc_r
    for share in STEP_SHARES:
        ahead = state.row + share * step * unit
        assessment = _assess_row(problem, ahead, assess)
        better = better | state.accept(ahead, assessment, ~better)
        fc_r = assessment.fc_r
        if (better | state.done).all():
            break
    state.fc_r = torch.where(better, fc_r, state.fc_r)
    return better


def prior_sd(problem: Problem) -> Float[Tensor, "coordinate"]:
    """Prior standard deviation of every coordinate."""
    like = problem.brain.connectome.weights
    spreads = [parameter.spread(like) for parameter in problem.free_parameters.values()]
    return torch.cat(spreads)


def slope_and_curvature(
    problem: Problem,
    row: Tensor,
    step: float = 1e-3,
    assess: AssessPoint | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient (*batch, coordinate) and Hessian (*batch, coordinate, coordinate) of the
    loss, both per prior standard deviation.

    step: of the central differences, in prior standard deviations
    assess: the loss; default: the problem's closed form
    """
    if assess is None or assess == problem.analytic:
        # Gradients do without the correlation, which takes a third of the time.
        assess = partial(problem.analytic, with_fc_r=False)
    unit = prior_sd(problem)
    points = row + unit * _central_moves(row, step)
    slopes = []
    for part in points.split(_points_at_once(row)):
        slopes.append(_slope(problem, part, assess))
    slope = torch.cat(slopes) * unit
    up, down = slope.split(row.shape[-1])
    hessian = ((up - down) / (2 * step)).movedim(0, -2)
    # The mean over all points is the central estimate of the gradient itself; a Hessian
    # of differences is symmetric only up to their error.
    return slope.mean(0), (hessian + hessian.mT) / 2


def _central_moves(row: Tensor, step: float) -> Tensor:
    """One step up, then one down along every coordinate, (2 coordinate, 1…,
    coordinate)."""
    count = row.shape[-1]
    eye = torch.eye(count, dtype=row.dtype)
    moves = step * torch.cat([eye, -eye])
    return moves.reshape(2 * count, *[1] * (row.ndim - 1), count)


def _points_at_once(row: Tensor) -> int:
    """Points of all members that are evaluated together: at most 8, fewer for large
    batches."""
    members = row[..., 0].numel()
    return max(1, CHUNK // max(1, members))


def _slope(problem: Problem, points: Tensor, assess: AssessPoint) -> Tensor:
    """Gradient at every point."""
    points = points.detach().requires_grad_()
    loss = assess(split(problem, points)).loss
    if not torch.isfinite(loss).all():
        raise ConvergenceError(
            "The objective is not finite beside the point reached: the fit is at the "
            "edge of the parameters' domain. Centre the priors further inside it."
        )
    # A point's loss depends on its own coordinates only: the sum has every gradient.
    return torch.autograd.grad(loss.sum(), points)[0]


def _assess_row(problem: Problem, row: Tensor, assess: AssessPoint) -> Assessment:
    with torch.no_grad():
        return assess(split(problem, row))


def _damped_step(
    slope: Tensor, curvature: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor]:
    """The step and the decrease of the loss it promises, both in prior standard
    deviations."""
    values, vectors = torch.linalg.eigh(curvature)
    # Along directions of negative curvature too, the step goes downhill.
    sizes = values.abs().clamp_min(SMALLEST_CURVATURE)
    along = times(vectors.mT, slope)
    damped = along / (sizes + damping.unsqueeze(-1))
    step = -times(vectors, damped)
    length = step.norm(dim=-1, keepdim=True)
    # Without damping: a step that was damped must not pass for convergence.
    gain = (along.square() / sizes).sum(-1) / 2
    return step * (MAX_STEP / length).clamp_max(1.0), gain


def times(matrix: Tensor, vector: Tensor) -> Float[Tensor, "*batch coordinate"]:
    """Matrix times vector, for every batch member."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _note(rows: list[Row]) -> str:
    return f"loss {rows[-1]['loss']:.6g}" if rows else ""
