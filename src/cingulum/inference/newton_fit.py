"""Newton's method for few parameters and many recordings: a handful of rounds to the
exact optimum of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cingulum.errors import ConvergenceError
from cingulum.inference.optimise import SearchResult
from cingulum.inference.problem import Assessed, Problem, Theta, joined, split
from cingulum.progress import track

CHUNK = 8
"""Points that are evaluated together: enough to share work, few enough for memory."""

Assess = Callable[[Theta], Assessed]

REACH = 2.0
"""Longest step, in prior standard deviations."""


def newton(
    problem: Problem,
    theta: Theta,
    rounds: int = 20,
    tolerance: float = 1e-3,
    show_progress: bool = False,
    assess: Assess | None = None,
    method: str = "analytic",
) -> SearchResult:
    """Damped Newton steps, every batch member for itself, until the predicted gain is
    below `tolerance`.

    The Hessian is made of differences of gradients: 2 P of them a round, for P
    coordinates. Where it is not positive the step follows |eigenvalue| (saddle-free
    Newton, Dauphin et al. 2014, arXiv:1406.2572); a step that does not help is
    shortened, and damped more in the next round.

    assess: what the loss is; default: the problem's closed form. Simulations will do
        where their noise is always the same, or none (evoked responses)
    """
    assess = assess or problem.analytic
    row, unit = joined(theta), prior_sd(problem)
    here = _assess(problem, row, assess)
    loss = torch.where(here.stable, here.loss, torch.inf)
    damping, done = torch.ones_like(loss), torch.zeros_like(loss, dtype=torch.bool)
    rows: list[dict[str, float | str]] = []
    r = here.fc_r
    for number in track(
        range(rounds), "fit (Newton)", show=show_progress, note=lambda: _note(rows)
    ):
        slope, curvature = derivatives(problem, row, assess=assess)
        step, gain = _step(slope, curvature, damping)
        done = done | (gain < tolerance)
        better = torch.zeros_like(done)
        for share in (1.0, 0.3, 0.08):
            ahead = row + share * step * unit
            found = _assess(problem, ahead, assess)
            take = (found.loss < loss) & found.stable & ~done & ~better
            row, loss = (
                torch.where(take.unsqueeze(-1), ahead, row),
                torch.where(take, found.loss, loss),
            )
            better = better | take
            if (better | done).all():
                break
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-4, 1e6)
        done = done | (damping >= 1e6)
        r = torch.where(better, found.fc_r, r)
        rows.append(
            {
                "method": method,
                "step": number,
                "loss": loss.mean().item(),
                "fc_r": r.mean().item(),
            }
        )
        if done.all():
            break
    return SearchResult(split(problem, row), loss, rows, split(problem, row))


def prior_sd(problem: Problem) -> Tensor:
    """Standard deviation of every coordinate beforehand."""
    like = problem.brain.connectome.weights
    return torch.cat([kind.spread(like) for kind in problem.kinds.values()], -1)


def derivatives(
    problem: Problem,
    row: Tensor,
    step: float = 1e-3,
    chunk: int = CHUNK,
    assess: Assess | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient (*batch, coordinate) and Hessian of the loss, both per prior standard
    deviation.

    step: of the differences, in prior standard deviations.
    """
    unit = prior_sd(problem)
    count = row.shape[-1]
    moves = step * torch.cat(
        [torch.eye(count, dtype=row.dtype), -torch.eye(count, dtype=row.dtype)]
    )
    points = row + unit * moves.reshape(2 * count, *[1] * (row.ndim - 1), count)
    size = max(1, chunk * 8 // max(1, row[..., 0].numel() * 8))
    assess = (
        assess
        if assess is not None and assess != problem.analytic
        else partial(problem.analytic, tell=False)
    )
    slopes = (
        torch.cat([_slope(problem, part, assess) for part in points.split(size)]) * unit
    )
    up, down = slopes.split(count)
    hessian = ((up - down) / (2 * step)).movedim(0, -2)
    return slopes.mean(0), (hessian + hessian.mT) / 2


def _slope(problem: Problem, points: Tensor, assess: Assess) -> Tensor:
    points = points.detach().requires_grad_()
    loss = assess(split(problem, points)).loss
    if not torch.isfinite(loss).all():
        raise ConvergenceError(
            "The objective is not finite beside the point reached: the fit lies at an "
            "edge."
        )
    return torch.autograd.grad(loss.sum(), points)[0]


def _assess(problem: Problem, row: Tensor, assess: Assess) -> Assessed:
    with torch.no_grad():
        return assess(split(problem, row))


def _step(slope: Tensor, curvature: Tensor, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The step and the gain it promises, both in prior standard deviations."""
    values, vectors = torch.linalg.eigh(curvature)
    size = values.abs().clamp_min(0.1) + damping.unsqueeze(-1)
    along = (vectors.mT @ slope.unsqueeze(-1)).squeeze(-1)
    step = -(vectors @ (along / size).unsqueeze(-1)).squeeze(-1)
    length = step.norm(dim=-1, keepdim=True)
    gain = (along.square() / values.abs().clamp_min(0.1)).sum(-1) / 2
    return step * (REACH / length).clamp_max(1.0), gain


def _note(rows: list[dict[str, float | str]]) -> str:
    return f"loss {rows[-1]['loss']:.6g}" if rows else ""
