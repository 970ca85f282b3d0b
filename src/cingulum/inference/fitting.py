"""The fit: analytic search, then simulated refinement; priors, several starts, many
recordings at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.free_parameters import Free, Gains, free_parameters_of
from cingulum.inference.newton_fit import fit_by_newton
from cingulum.inference.objectives import (
    Objective,
    fc_mismatch,
    name_of,
    sees_scale,
)
from cingulum.inference.optimise import (
    Checkpoint,
    Optimiser,
    OptimiserSettings,
    Row,
    SearchResult,
    fingerprint_of,
    search,
)
from cingulum.inference.problem import (
    Assessment,
    Problem,
    Runs,
    Theta,
    check_method,
    choose,
    members_of,
    unchanged,
    undisturbed_rate,
)
from cingulum.inference.stability_limits import (
    LOCAL_SHARE,
    LOOP_GAIN_LIMIT,
    StabilityLimits,
)
from cingulum.inference.views import Analytic, Cleaning, NotInView, Recorded
from cingulum.measures import similarity
from cingulum.simulation.linear.eigenvalues import Stability, stability
from cingulum.timeseries import TimeSeries

CONFIRMING_RUNS = 3
"""Simulations with new noise that decide whether a refined point is better."""

CONFIRMING_SEED = 100_000
"""Added to the seed of the runs, beyond every step of a search."""

REFINING_RATE = 0.25
"""Learning rate of the refinement, relative to that of the analytic search it begins
at the end of."""

WEAKENING = 0.7
"""Factor by which the coupling of an unstable start is reduced in one attempt."""

WEAKENINGS = 12
"""Attempts: to a hundredth of the coupling."""


@dataclass(frozen=True)
class FitSettings:
    """How a problem is searched; every field is explained at `fit`."""

    method: str = "both"
    steps: int = 300
    rate: float = 0.05
    optimiser: Optimiser = "Adam"
    starts: int = 1
    patience: int | None = 50
    refine: int = 15
    checkpoint: str | Path | None = None
    seed: int = 0
    show_progress: bool = False

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.starts < 1:
            raise InputError(f"starts must be at least 1; got {self.starts}.")
        if self.uses_newton and self.checkpoint:
            raise InputError(
                "Newton's method takes some ten rounds and keeps no checkpoint: leave "
                "it out, or take Adam."
            )

    @property
    def uses_newton(self) -> bool:
        return self.optimiser == "Newton"

    @property
    def first_search(self) -> OptimiserSettings:
        """Of the analytic search, or of the only simulated one."""
        return OptimiserSettings(
            steps=self.steps,
            rate=self.rate,
            optimiser=self.optimiser,
            patience=self.patience,
            show_progress=self.show_progress,
        )

    @property
    def refinement(self) -> OptimiserSettings:
        """Of the simulated steps after the analytic search."""
        # The curvature that Newton's method needs drowns in the noise of simulations.
        optimiser = "Adam" if self.uses_newton else self.optimiser
        return OptimiserSettings(
            steps=self.refine,
            rate=self.rate * REFINING_RATE,
            optimiser=optimiser,
            show_progress=self.show_progress,
        )


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted brain, ready to run.

    estimates: fitted values by path; (*batch,) for a global parameter, (*batch, region)
        for a regional one
    fc, fc_r: the model's analytic connectivity, and its correlation with the recorded
        one, one per batch member; NaN where the brain has no equilibrium. In-sample:
        `cingulum.verify` gives free-running and held-out values
    loop_gain: distance to instability: 0 is uncoupled, 1 is a fold
    method: which method each batch member's estimates come from
    history: one row per step: method, loss, every objective, fc_r and loop gain (means
        over starts and batch)
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
        """Eigenvalues at the equilibrium. Raises InputError for several recordings."""
        if self.fc_r.ndim:
            raise InputError(
                "Stability is computed for one brain at a time: take one batch "
                "member's brain."
            )
        return stability(self.brain)

    def coordinates(self) -> list[str]:
        """Names of the free coordinates: the path, and the region, map or
        connection."""
        return self.problem.coordinate_names()

    def __str__(self) -> str:
        lines = [
            f"fit of {len(self.coordinates())} free numbers; analytic FC r "
            f"{self.fc_r.mean().item():.3f} in sample"
        ]
        for path, value in self.estimates.items():
            if value.numel() == 1:
                lines.append(f"  {path} = {value.item():.4g}")
        lines.append(f"  method: {', '.join(sorted(set(self.method)))}")
        if not self.fc_r.ndim:
            lines.append(f"  {stability_in_words(self)}")
        return "\n".join(lines)


def stability_in_words(fitted: Fit) -> str:
    """The stability of a fitted brain; also for one that never comes to rest."""
    try:
        return str(fitted.stability)
    except ConvergenceError:
        return "no equilibrium was found: stability is unknown"


# The keywords are the vocabulary of the package's main verb, which people type by hand;
# inside they travel as `FitSettings`, `Runs` and `Cleaning`.
def fit(  # noqa: PLR0913
    brain: Brain,
    recorded: TimeSeries | Float[Tensor, "*batch region region"] | Sequence[TimeSeries],
    free: Mapping[str, Free],
    *,
    objective: Objective | dict[Objective, float] = fc_mismatch,
    prepare: Callable[[Brain], Brain] = unchanged,
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
    recording independently of the others.

    recorded: time series (leading dimensions, or a sequence of equal ones, are a
        batch), or functional connectivity
    free: by parameter path: a `torch.distributions` prior (batch shape () is one value,
        (region,) one per region), `Mapped` (a linear function of regional maps), or
        `Gains` for "connectome.weights"
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
    optimiser: a name in torch.optim, or a callable; "Newton" reaches the exact optimum
        in some ten rounds where parameters are few, as intervals need
    starts: how many, the first at the prior means
    patience: stop where the smoothed loss has not improved for so many steps
    runs: how the simulated method simulates
    near_bifurcation: wanted distance (1/s) of the leading eigenvalue from instability,
        as a penalty
    checkpoint: a file to resume from

    The best point whose equilibrium is stable is kept; with method="simulated", the
    best whose runs stayed finite. A start without stable equilibrium is moved to weaker
    coupling if the coupling is free, and refused with its eigenvalue if not.

    Raises InputError for invalid arguments or recordings, ConvergenceError if the
    search found no stable point.
    """
    problem = make_problem(
        brain, recorded, free, objective, prepare, cleaning, runs, near_bifurcation
    )
    settings = FitSettings(
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
    return fit_problem(problem, settings)


def fit_problem(problem: Problem, settings: FitSettings = FitSettings()) -> Fit:
    """Search a problem made by `make_problem`; what `fit` does with its problem."""
    theta = _starting_points(problem, settings.starts, settings.seed)
    fingerprint = _fingerprint(problem, theta, settings)
    if settings.method == "simulated":
        result = _search_simulated(problem, theta, settings, fingerprint)
        best = _best_start(result)
        return _finished(problem, best, result.rows, simulated=_every(best, True))

    in_closed_form = problem
    if settings.method == "both":
        in_closed_form = _in_closed_form(problem, theta)
    if not in_closed_form.objective:
        result = _search_simulated(problem, theta, settings, fingerprint)
        best = _best_start(result)
        return _finished(problem, best, result.rows, simulated=_every(best, True))
    result = _search_analytic(in_closed_form, theta, settings, fingerprint)
    best = _best_start(result)
    if settings.method == "analytic":
        return _finished(problem, best, result.rows, simulated=_every(best, False))

    refined = search(
        _simulator(problem),
        best,
        settings.refinement,
        method="simulated",
        checkpoint=_checkpoint(settings, fingerprint, ".simulated"),
    )
    theta, simulated = _confirmed(problem, best, refined.last)
    return _finished(problem, theta, result.rows + refined.rows, simulated=simulated)


def _in_closed_form(problem: Problem, theta: Theta) -> Problem:
    """The problem with the objectives that a closed form can see: time courses, and
    what is computed from them, wait for the simulations."""
    view = Analytic(problem.candidate(theta), problem.cleaning)
    objectives = {}
    for objective, weight in problem.objective.items():
        try:
            objective(view, problem.recorded)
        except NotInView:
            continue
        # The search moves a start without an equilibrium to one.
        except ConvergenceError:
            pass
        objectives[objective] = weight
    return replace(problem, objective=objectives)


def _every(theta: Theta, value: bool) -> Tensor:
    """The same truth value for every batch member."""
    return torch.full(members_of(theta), value)


def _fingerprint(problem: Problem, theta: Theta, settings: FitSettings) -> str:
    # Without a checkpoint nothing needs to be told apart.
    if not settings.checkpoint:
        return ""
    numbers = (
        settings.steps,
        settings.rate,
        settings.optimiser,
        settings.starts,
        settings.patience,
        settings.refine,
        settings.seed,
        settings.method,
        problem.cleaning,
        problem.limits.near_bifurcation,
    )
    return fingerprint_of(problem.metadata(), theta, numbers)


def _checkpoint(
    settings: FitSettings, fingerprint: str, suffix: str = ""
) -> Checkpoint | None:
    if not settings.checkpoint:
        return None
    # Beside each other: the analytic and the simulated search have a file each.
    path = Path(settings.checkpoint)
    return Checkpoint(path.with_name(path.name + suffix), fingerprint)


def _search_analytic(
    problem: Problem, theta: Theta, settings: FitSettings, fingerprint: str
) -> SearchResult:
    theta = _moved_to_stability(problem, theta)
    if settings.uses_newton:
        # Without patience or a checkpoint: its rounds are few and end by themselves.
        return fit_by_newton(
            problem, theta, settings.steps, show_progress=settings.show_progress
        )
    return search(
        lambda point, step: problem.analytic(point),
        theta,
        settings.first_search,
        method="analytic",
        checkpoint=_checkpoint(settings, fingerprint),
    )


def _search_simulated(
    problem: Problem, theta: Theta, settings: FitSettings, fingerprint: str
) -> SearchResult:
    if settings.uses_newton:
        # Differences of gradients need the same noise at every point.
        return fit_by_newton(
            problem,
            theta,
            settings.steps,
            show_progress=settings.show_progress,
            assess=partial(problem.simulated, seed=problem.runs.seed),
            method="simulated",
        )
    return search(
        _simulator(problem),
        theta,
        settings.first_search,
        method="simulated",
        checkpoint=_checkpoint(settings, fingerprint, ".simulated"),
    )


def _simulator(problem: Problem) -> Callable[[Theta, int], Assessment]:
    """The simulated loss, with new noise at every step of the search if the runs are to
    be fresh."""
    runs = problem.runs

    def assess(theta: Theta, step: int) -> Assessment:
        seed = runs.seed + 1 + step if runs.fresh else runs.seed
        return problem.simulated(theta, seed)

    return assess


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
    """The fit as a function; every argument is checked here, once.

    Raises InputError for priors or recordings that do not belong to the brain, and for
    regions without a connection.
    """
    parameters = free_parameters_of(brain, free)
    objectives = _objectives(objective)
    view = Recorded(_stacked(recorded), brain, cleaning)
    _check_connected(brain)
    _check_unit(view, brain, objectives)
    return Problem(
        brain=brain,
        recorded=view,
        free_parameters=parameters,
        objective=objectives,
        prepare=prepare,
        cleaning=cleaning,
        runs=runs,
        limits=StabilityLimits(
            symmetric=_is_symmetric(brain, free),
            local_rate=LOCAL_SHARE * undisturbed_rate(brain),
            near_bifurcation=near_bifurcation,
        ),
    )


def _objectives(
    objective: Objective | dict[Objective, float],
) -> dict[Objective, float]:
    objectives = objective if isinstance(objective, dict) else {objective: 1.0}
    for each in objectives:
        if not callable(each):
            raise InputError(
                f"An objective is a function of two views, such as "
                f"cingulum.inference.fc_mismatch or Likelihood(); got {each!r}."
            )
    return objectives


def _check_unit(
    recorded: Recorded, brain: Brain, objectives: Mapping[Objective, float]
) -> None:
    """Warn where amplitudes are compared that are in different units."""
    unit = recorded.unit
    scaled = [name_of(objective) for objective in objectives if sees_scale(objective)]
    if unit is None or unit == brain.sensor.unit or not scaled:
        return
    warnings.warn(
        f"The recording is in {unit}, the sensor gives {brain.sensor.unit}, and "
        f"{', '.join(scaled)} compares amplitudes: estimates of noise and gain would "
        "make up for the difference. Bring the recording to the sensor's unit, and "
        "say so in TimeSeries(unit=…).",
        stacklevel=4,
    )


def _check_connected(brain: Brain) -> None:
    weights = brain.connectome.weights
    # A region that only sends, in a directed connectome, is no less connected.
    isolated = weights.sum(-1) + weights.sum(-2) == 0
    if not isolated.any() or len(brain.regions) == 1:
        return
    # Isolated in any member of a batch of connectomes.
    indices = isolated.reshape(-1, isolated.shape[-1]).any(0).nonzero()[:, 0].tolist()
    names = ", ".join(brain.regions[index] for index in indices[:5])
    raise InputError(
        f"{len(indices)} region(s) have no connection: {names}. Leave them out of "
        "connectome and recording: a model cannot explain their connectivity."
    )


def _is_symmetric(brain: Brain, free: Mapping[str, Free]) -> bool:
    """Whether the network's interactions are symmetric, and stay so in the search."""
    if _frees_directions(free):
        return False
    # Several signals between regions mix, and the spectrum is then complex.
    weights = brain.connectome.weights
    return brain.mass.couplings == 1 and torch.allclose(weights, weights.mT)


def _frees_directions(free: Mapping[str, Free]) -> bool:
    """Whether the two directions of a connection are fitted separately."""
    gains = free.get("connectome.weights")
    return isinstance(gains, Gains) and not gains.symmetric


def _stacked(
    recorded: TimeSeries | Tensor | Sequence[TimeSeries],
) -> TimeSeries | Tensor:
    """A sequence of recordings as one batch."""
    if isinstance(recorded, TimeSeries | Tensor):
        return recorded
    is_sequence = isinstance(recorded, Sequence) and not isinstance(recorded, str)
    if not is_sequence or not all(isinstance(run, TimeSeries) for run in recorded):
        raise InputError(
            "The recording must be a cingulum.TimeSeries (or several), or a tensor of "
            f"its connectivity; got {type(recorded).__name__}. Signals in an array "
            "(region, time): TimeSeries(torch.as_tensor(array), tr, regions)."
        )
    if len({(run.tr, run.regions, run.data.shape) for run in recorded}) != 1:
        lengths = sorted({(run.tr, run.data.shape[-1]) for run in recorded})
        raise InputError(
            "A batch of recordings needs one TR, one length and the same regions; got "
            f"{lengths} (TR, samples). `fit_cohort` takes such."
        )
    return replace(recorded[0], data=torch.stack([run.data for run in recorded]))


def _starting_points(problem: Problem, starts: int, seed: int) -> Theta:
    """Coordinates (start, *batch, size): the first start at the centre of the prior,
    the others drawn from it."""
    like = problem.brain.connectome.weights
    batch = torch.broadcast_shapes(problem.recorded.batch, problem.brain.batch)
    generator = torch.Generator().manual_seed(seed)
    theta = {}
    for path, parameter in problem.free_parameters.items():
        # Normal in coordinates: near enough to the prior, and never at its bounds.
        deviation = torch.randn(
            starts, *batch, parameter.size, generator=generator, dtype=like.dtype
        )
        deviation[0] = 0.0
        theta[path] = parameter.start(like) + parameter.spread(like) * deviation
    return theta


def _moved_to_stability(problem: Problem, theta: Theta) -> Theta:
    """Weaken the coupling of starts without a stable equilibrium, or refuse them.

    Raises InputError where the coupling is not one free number, ConvergenceError where
    weakening does not help.
    """
    strength = problem.free_parameters.get("strength")
    for _ in range(WEAKENINGS):
        stable, lead = _stability_of(problem, theta)
        if stable.all():
            return theta
        # The coupling must be one number with a prior of its own to be weakened.
        if strength is None or strength.names != ("",):
            raise _unstable_start(lead[~stable].flatten()[0].item())
        current = theta["strength"]
        weaker = strength.coordinates(WEAKENING * strength.value(current))
        theta = theta | {"strength": choose(stable, current, weaker)}
    raise ConvergenceError(
        "No stable equilibrium near the start, even at a hundredth of the coupling: "
        "check the priors of the local parameters with `cingulum.stability`."
    )


def _unstable_start(growth: float) -> InputError:
    return InputError(
        "The starting point has no stable equilibrium with margin (leading local "
        f"eigenvalue {growth:.3g} /s, loop gain limit {LOOP_GAIN_LIMIT:g}). Free "
        "'strength', or start from a weaker coupling."
    )


def _stability_of(problem: Problem, theta: Theta) -> tuple[Tensor, Tensor]:
    """Whether each point has a stable equilibrium, and its leading growth (1/s)."""
    # Stability does not depend on what is minimised, which may need simulations.
    without_objective = replace(problem, objective={})
    with torch.no_grad():
        try:
            assessment = without_objective.analytic(theta, with_fc_r=False)
        except ConvergenceError:
            # One member that cannot be prepared ends the search for all of them.
            unknown = torch.full(members_of(theta), torch.nan)
            return _every(theta, False), unknown
    return assessment.stable, assessment.growth


def _best_start(result: SearchResult) -> Theta:
    """The best start of every recording. Raises ConvergenceError if none is stable."""
    # The loss of a start that was never stable is still infinite.
    loss, best = result.loss.min(0)
    if not torch.isfinite(loss).all():
        raise ConvergenceError(
            "No stable equilibrium was met during the search. Centre the prior of the "
            "coupling strength lower, or take a smaller learning rate."
        )
    index = best[None, ..., None]
    theta = {}
    for path, value in result.theta.items():
        chosen = value.gather(0, index.expand(1, *value.shape[1:]))
        theta[path] = chosen.squeeze(0)
    return theta


def _confirmed(problem: Problem, before: Theta, after: Theta) -> tuple[Theta, Tensor]:
    """Refined coordinates where they are stable and new noise gives them a lower loss
    on average; also returns which those are."""
    stable, _ = _stability_of(problem, after)
    better = (_mean_decrease(problem, before, after) > 0) & stable
    theta = {path: choose(better, after[path], value) for path, value in before.items()}
    return theta, better


def _mean_decrease(problem: Problem, before: Theta, after: Theta) -> Tensor:
    """Decrease of the simulated loss, mean over runs of new noise."""
    first = problem.runs.seed + CONFIRMING_SEED
    decreases = []
    with torch.no_grad():
        for seed in range(first, first + CONFIRMING_RUNS):
            # The same noise for both, so that most of its effect cancels.
            loss_before = _simulated_loss(problem, before, seed)
            loss_after = _simulated_loss(problem, after, seed)
            decreases.append(loss_before - loss_after)
    return torch.stack(decreases).mean(0)


def _simulated_loss(problem: Problem, theta: Theta, seed: int) -> Tensor:
    try:
        return problem.simulated(theta, seed).loss
    except ConvergenceError:
        # A run that diverges, or that has no state to begin at, is worse than any.
        return torch.full(problem.recorded.batch, torch.inf)


def _finished(
    problem: Problem, theta: Theta, rows: list[Row], *, simulated: Tensor
) -> Fit:
    """The fit at its best coordinates; simulated: which members' come from the
    simulated method."""
    # Without gradients, so that a fit holds no graph and can be copied and written.
    with torch.no_grad():
        brain = problem.candidate(theta)
        connectivity, gain = _analytic_properties(problem, theta, brain)
        values = problem.values(theta)
    return Fit(
        brain=brain,
        estimates={
            path: _without_coordinate_axis(problem, path, value)
            for path, value in values.items()
        },
        fc=connectivity,
        fc_r=similarity(connectivity, problem.recorded.fc),
        loop_gain=gain,
        method=[
            "simulated" if is_simulated else "analytic"
            for is_simulated in simulated.flatten().tolist()
        ],
        history=pd.DataFrame(rows),
        theta=theta,
        problem=problem,
    )


def _analytic_properties(
    problem: Problem, theta: Theta, brain: Brain
) -> tuple[Tensor, Tensor]:
    """Connectivity and loop gain; NaN where simulations need no equilibrium and there
    is none."""
    try:
        connectivity = Analytic(brain, problem.cleaning).fc
        # Not of the objectives, some of which only simulations can see.
        unaimed = replace(problem, objective={})
        gain = unaimed.analytic(theta, with_fc_r=False).gain
    except (ConvergenceError, InputError):
        connectivity = torch.full_like(problem.recorded.fc, torch.nan)
        gain = torch.full_like(connectivity[..., 0, 0], torch.nan)
    return connectivity, gain


def _without_coordinate_axis(problem: Problem, path: str, value: Tensor) -> Tensor:
    """A global parameter is one number per batch member."""
    is_global = problem.free_parameters[path].names == ("",)
    return value.squeeze(-1) if is_global else value
