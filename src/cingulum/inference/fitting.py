"""How parameters are found: by formula first, then by simulation; priors, several
starts, many recordings at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.free_parameters import Free, free_parameters_of
from cingulum.inference.newton_fit import newton
from cingulum.inference.objectives import Objective, fc_mismatch
from cingulum.inference.optimise import Optimiser, SearchResult, fingerprint_of, search
from cingulum.inference.problem import (
    LOCAL_SHARE,
    Assessed,
    Problem,
    Runs,
    Theta,
    check_method,
    undisturbed_rate,
)
from cingulum.inference.views import Analytic, Cleaning, Recorded
from cingulum.measures import similarity
from cingulum.simulation.linear.eigenvalues import Stability, stability
from cingulum.timeseries import TimeSeries


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted brain: `put` into place and ready to run.

    estimates: fitted values by path; (*batch,) for a global parameter, (*batch, region)
        for a regional one
    fc, fc_r: the model's analytic connectivity, and its correlation with the recorded
        one, one a batch member; NaN where the brain has no equilibrium. In-sample:
        `cingulum.verify` gives free-running and held-out figures
    loop_gain: distance to instability: 0 is uncoupled, 1 is a fold
    method: which method each batch member's estimates come from
    history: a row a step: method, loss, every objective, fc_r and loop gain (mean over
        starts and batch)
    theta: unconstrained coordinates of the free parameters; problem: what they are
        coordinates of
    """

    brain: Brain
    estimates: dict[str, Tensor]
    fc: Float[Tensor, "*batch region region"]
    fc_r: Float[Tensor, "*batch"]
    loop_gain: Float[Tensor, "*batch"]
    method: list[str]
    history: pd.DataFrame
    theta: Theta
    problem: Problem

    @cached_property
    def stability(self) -> Stability:
        """Of a fit to one recording."""
        if self.fc_r.ndim:
            raise InputError(
                "Stability is told one brain at a time: take one batch member's brain."
            )
        return stability(self.brain)

    def coordinates(self) -> list[str]:
        """Names of the free coordinates: the path, and the region, map or
        connection."""
        return [
            f"{path} {name}".strip()
            for path, kind in self.problem.kinds.items()
            for name in kind.names
        ]

    def __str__(self) -> str:
        lines = [
            f"fit of {len(self.coordinates())} free numbers; analytic FC r "
            f"{self.fc_r.mean().item():.3f} in sample"
        ]
        lines += [
            f"  {k} = {v.item():.4g}"
            for k, v in self.estimates.items()
            if v.numel() == 1
        ]
        lines += [f"  method: {', '.join(sorted(set(self.method)))}"]
        if not self.fc_r.ndim:
            lines += [f"  {self.stability}"]
        return "\n".join(lines)


def fit(
    brain: Brain,
    recorded: TimeSeries | Float[Tensor, "*batch region region"] | Sequence[TimeSeries],
    free: Mapping[str, Free],
    *,
    objective: Objective | dict[Objective, float] = fc_mismatch,
    prepare: Callable[[Brain], Brain] = lambda brain: brain,
    method: str = "both",
    cleaning: Cleaning = Cleaning(),
    steps: int = 300,
    rate: float = 0.05,
    optimiser: Optimiser = "Adam",
    starts: int = 1,
    patience: int | None = 50,
    refine: int = 15,
    runs: Runs = Runs(),
    near_bifurcation: float | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Fit:
    """Estimate free parameters from recordings; a batch is fitted at once, each
    recording for itself.

    recorded: time series (leading dimensions, or a sequence of equal ones, are a
        batch), or functional connectivity
    free: by parameter path: a `torch.distributions` prior (batch shape () is one value,
        (region,) one a region), `Mapped` (a line in regional maps), or `Gains` for
        "connectome.weights"
    objective: (model view, recorded view) → mismatch, or several with weights
        (`cingulum.inference.objectives`)
    prepare: applied to every candidate, for parameters that follow from others
        (`cingulum.balanced`)
    method: `analytic`: closed form at the equilibrium; `simulated`: free-running
        simulations, gradients through all of them; `both`: analytic, then `refine`
        simulated steps, kept for a recording only where new noise confirms them
    cleaning: band and global-signal treatment of connectivity and time courses, of
        recording and model alike; spectra, lags and the likelihood take signals as
        recorded
    optimiser: a name in torch.optim, or a callable; "Newton" goes to the exact optimum
        in some ten rounds where parameters are few, as intervals need; starts: how
        many, the first at the prior means; patience: stop where the smoothed loss has
        not improved for so many steps; checkpoint: a file to resume from
    near_bifurcation: wanted distance (1/s) of the leading eigenvalue from instability,
        as a penalty

    The best point whose equilibrium is stable is kept; with method="simulated", the
    best whose runs stayed finite. A start without stable equilibrium is moved to weaker
    coupling if the coupling is free, and refused with its eigenvalue if not.
    Raises InputError for what cannot be used, ConvergenceError if no stable point was
    met.
    """
    problem = make_problem(
        brain, recorded, free, objective, prepare, cleaning, runs, near_bifurcation
    )
    return fit_problem(
        problem,
        method=method,
        steps=steps,
        rate=rate,
        optimiser=optimiser,
        starts=starts,
        patience=patience,
        refine=refine,
        checkpoint=checkpoint,
        seed=seed,
        show_progress=show_progress,
    )


def fit_problem(
    problem: Problem,
    *,
    method: str = "both",
    steps: int = 300,
    rate: float = 0.05,
    optimiser: Optimiser = "Adam",
    starts: int = 1,
    patience: int | None = 50,
    refine: int = 15,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Fit:
    """Search a problem made by `make_problem`; what `fit` does with its problem."""
    check_method(method)
    if optimiser == "Newton" and checkpoint:
        raise InputError(
            "Newton's method takes some ten rounds and keeps no checkpoint: leave it "
            "out, or take Adam."
        )
    theta, file = (
        _begin(problem, starts, seed),
        Path(checkpoint) if checkpoint else None,
    )
    name = (
        optimiser
        if isinstance(optimiser, str)
        else getattr(optimiser, "__name__", type(optimiser).__name__)
    )
    settings = (
        steps,
        rate,
        name,
        starts,
        patience,
        refine,
        seed,
        method,
        problem.cleaning,
        problem.near_bifurcation,
    )
    common: dict[str, Any] = {
        "optimiser": optimiser,
        "fingerprint": fingerprint_of(problem.told(), theta, settings),
        "show_progress": show_progress,
    }
    rows: list[dict] = []
    methods = torch.zeros(next(iter(theta.values())).shape[1:-1], dtype=torch.long)
    if method != "simulated":
        theta = _moved_to_stability(problem, theta)
        if optimiser == "Newton":
            found = newton(problem, theta, steps, show_progress=show_progress)
            common["optimiser"] = (
                "Adam"  # for what is simulated, where curvature drowns in noise
            )
        else:
            found = search(
                lambda t, _: problem.analytic(t),
                theta,
                method="analytic",
                steps=steps,
                rate=rate,
                patience=patience,
                checkpoint=file,
                **common,
            )
        theta, rows = _best_start(found), found.rows
    if method == "analytic":
        return _finish(problem, theta, methods, rows)
    beside = file.with_name(file.name + ".simulated") if file else None
    if method == "simulated" and optimiser == "Newton":
        found = newton(
            problem,
            theta,
            steps,
            show_progress=show_progress,
            method=method,
            assess=lambda t: problem.simulated(t, problem.runs.seed),
        )
        return _finish(problem, _best_start(found), methods + 1, found.rows)
    if method == "simulated":
        found = search(
            _simulator(problem),
            theta,
            method=method,
            steps=steps,
            rate=rate,
            patience=patience,
            checkpoint=beside,
            **common,
        )
        return _finish(problem, _best_start(found), methods + 1, found.rows)
    found = search(
        _simulator(problem),
        theta,
        method="simulated",
        steps=refine,
        rate=rate / 4,
        checkpoint=beside,
        **common,
    )
    theta, methods = _confirmed(problem, theta, found)
    return _finish(problem, theta, methods, rows + found.rows)


def _simulator(problem: Problem) -> Callable[[Theta, int], Assessed]:
    """The simulated loss, with new noise at every step of the search if the runs are to
    be fresh."""
    runs = problem.runs
    return lambda theta, step: problem.simulated(
        theta, runs.seed + (1 + step if runs.fresh else 0)
    )


def make_problem(
    brain: Brain,
    recorded: TimeSeries | Tensor | Sequence[TimeSeries],
    free: Mapping[str, Free],
    objective: Objective | dict[Objective, float],
    prepare: Callable[[Brain], Brain],
    cleaning: Cleaning,
    runs: Runs,
    near_bifurcation: float | None,
) -> Problem:
    """The fit as a function, everything given checked once."""
    kinds = free_parameters_of(brain, free)
    seen = Recorded(_stacked(recorded), brain, cleaning)
    weights = brain.connectome.weights
    if (weights.sum(-1) == 0).any():
        lonely = (
            (weights.sum(-1) == 0)
            .reshape(-1, weights.shape[-1])
            .any(0)
            .nonzero()[:, 0]
            .tolist()
        )
        names = ", ".join(brain.regions[i] for i in lonely[:5])
        raise InputError(
            f"{len(lonely)} region(s) have no connection: {names}. Leave them out of "
            "connectome and recording: a "
            "model cannot explain their connectivity."
        )
    gains = getattr(free.get("connectome.weights"), "symmetric", True)
    same = torch.allclose(weights, weights.mT)
    return Problem(
        brain=brain,
        recorded=seen,
        kinds=kinds,
        objective=objective if isinstance(objective, dict) else {objective: 1.0},
        prepare=prepare,
        cleaning=cleaning,
        runs=runs,
        near_bifurcation=near_bifurcation,
        symmetric=brain.mass.couplings == 1 and same and gains,
        local_rate=LOCAL_SHARE * undisturbed_rate(brain),
    )


def _stacked(
    recorded: TimeSeries | Tensor | Sequence[TimeSeries],
) -> TimeSeries | Tensor:
    if isinstance(recorded, TimeSeries | Tensor):
        return recorded
    if len({(r.tr, r.regions, r.data.shape) for r in recorded}) != 1:
        raise InputError(
            "A batch of recordings needs one TR, one length and the same regions; came "
            f"{sorted({(r.tr, r.data.shape[-1]) for r in recorded})} (TR, samples). "
            "`fit_cohort` takes such."
        )
    return replace(recorded[0], data=torch.stack([r.data for r in recorded]))


def _begin(problem: Problem, starts: int, seed: int) -> Theta:
    """Coordinates (start, *batch, size): the first start at the prior centre, others
    drawn from the prior."""
    like, batch = (
        problem.brain.connectome.weights,
        torch.broadcast_shapes(problem.recorded.batch, problem.brain.batch),
    )
    if starts < 1:
        raise InputError(f"starts must be at least 1; came {starts}.")
    generator = torch.Generator().manual_seed(seed)
    theta = {}
    for path, kind in problem.kinds.items():
        centre, spread = kind.begin(like), kind.spread(like)
        drawn = torch.randn(
            starts, *batch, kind.size, generator=generator, dtype=like.dtype
        )
        drawn[0] = 0.0
        theta[path] = centre + spread * drawn
    return theta


def _moved_to_stability(problem: Problem, theta: Theta) -> Theta:
    """Weaken the coupling of starts that have no stable equilibrium, or refuse them."""
    kind = problem.kinds.get("strength")
    for _ in range(12):
        with torch.no_grad():
            try:
                ok = problem.analytic(theta)
                stable, lead = ok.stable, ok.growth
            except ConvergenceError:
                shape = next(iter(theta.values())).shape[:-1]
                stable, lead = (
                    torch.zeros(shape, dtype=torch.bool),
                    torch.full(shape, torch.nan),
                )
        if stable.all():
            return theta
        if kind is None or kind.names != ("",):
            worst = lead[~stable].flatten()[0].item()
            raise InputError(
                "The starting point has no stable equilibrium with margin (leading "
                f"local eigenvalue {worst:.3g} /s, "
                "loop gain limit 0.9). Free 'strength', or start from a weaker "
                "coupling."
            )
        transform = kind.transform  # type: ignore[attr-defined]
        weaker = transform.inv(0.7 * transform(theta["strength"]))
        theta = theta | {
            "strength": torch.where(stable.unsqueeze(-1), theta["strength"], weaker)
        }
    raise ConvergenceError(
        "No stable equilibrium near the start, even at a hundredth of the coupling: "
        "check the priors of the local "
        "parameters with `cingulum.stability`."
    )


def _best_start(found: SearchResult) -> Theta:
    """The best start of every recording."""
    loss, which = found.loss.min(0)
    if not torch.isfinite(loss).all():
        raise ConvergenceError(
            "No stable equilibrium was met during the search. Centre the prior of the "
            "coupling strength lower, "
            "or take a smaller learning rate."
        )
    take = which[None, ..., None]
    theta = {
        path: value.gather(0, take.expand(1, *value.shape[1:])).squeeze(0)
        for path, value in found.theta.items()
    }
    return theta


def _confirmed(
    problem: Problem, before: Theta, found: SearchResult
) -> tuple[Theta, Tensor]:
    """Refined coordinates where they are stable and three runs of new noise give them a
    lower loss."""
    after = found.last
    with torch.no_grad():
        seeds = [problem.runs.seed + 100_000 + k for k in range(3)]
        gain = torch.stack(
            [_loss(problem, before, s) - _loss(problem, after, s) for s in seeds]
        ).mean(0)
        try:
            stable = problem.analytic(after).stable
        except ConvergenceError:
            stable = torch.zeros_like(gain, dtype=torch.bool)
    better = (gain > 0) & stable
    theta = {
        path: torch.where(better.unsqueeze(-1), after[path], before[path])
        for path in before
    }
    return theta, better.long()


def _loss(problem: Problem, theta: Theta, seed: int) -> Tensor:
    try:
        found: Assessed = problem.simulated(theta, seed)
    except ConvergenceError:
        return torch.full(problem.recorded.batch, torch.inf)
    return found.loss


def _finish(problem: Problem, theta: Theta, methods: Tensor, rows: list[dict]) -> Fit:
    with torch.no_grad():
        fitted = problem.candidate(theta)
        try:
            modelled = Analytic(fitted, problem.cleaning).fc
            gain = problem.analytic(theta).gain
        except (ConvergenceError, InputError):
            modelled = torch.full_like(problem.recorded.fc, torch.nan)
            gain = torch.full_like(modelled[..., 0, 0], torch.nan)
        values = {path: kind.value(theta[path]) for path, kind in problem.kinds.items()}
    estimates = {
        path: value.squeeze(-1) if problem.kinds[path].names == ("",) else value
        for path, value in values.items()
    }
    names = ["analytic", "simulated"]
    return Fit(
        brain=fitted,
        estimates=estimates,
        fc=modelled,
        fc_r=similarity(modelled, problem.recorded.fc),
        loop_gain=gain,
        method=[names[i] for i in methods.flatten().tolist()],
        history=pd.DataFrame(rows),
        theta=theta,
        problem=problem,
    )
