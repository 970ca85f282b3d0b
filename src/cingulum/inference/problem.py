"""A fit as a function: coordinates of the free parameters in, loss and its parts out,
for every recording at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import with_values
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.free_parameters import FreeParameter, placed
from cingulum.inference.objectives import Objective, name_of
from cingulum.inference.views import Analytic, Cleaning, Recorded, Simulated
from cingulum.measures import similarity
from cingulum.simulation.linear.eigenvalues import growth
from cingulum.simulation.linear.equilibrium import Linearisation, fixed_point, linearise
from cingulum.simulation.linear.spectrum import rest_under
from cingulum.simulation.simulation import simulate, time_step
from cingulum.simulation.state import SimulationState
from cingulum.timeseries import TimeSeries

Theta = dict[str, Float[Tensor, "*batch size"]]

LOOP_GAIN = 0.9
"""Largest gain of one passage through the network that a fit may end with; at 1 the
equilibrium is lost in a fold."""

WALL = 0.97
"""Share of the largest loop gain at which the penalty begins: what lies below is left
to the data and the prior."""

SETTLED = 1e-3
"""Largest drift (per second) at a point that is taken for an equilibrium; the solver
itself goes far below."""

LOCAL_SHARE = 0.25
"""A region by itself must return at least at this share of the rate at which an
undisturbed one does.

Nearer to either edge the basin of the working point is so narrow that noise leaves it:
measured on the Human Connectome group, free-running connectivity then agrees with the
analytic one at r = .66 instead of .99.
"""


@dataclass(frozen=True)
class Runs:
    """How the simulated method simulates: `runs` of `minutes` side by side, pooled.

    minutes: a fraction for an evoked response: 0.4 / 60 is an epoch of 400 ms
    dt: s; None takes the longest step up to 4 ms that divides the TR
    scheme: `euler`, or `heun`, which weakly damped oscillations need (Euler's method
        feeds them energy)
    discard: s left out at the start; the run begins at the equilibrium
    stimulus: an input added to every run (an evoked response); fresh: new noise at
        every step of the search
    """

    minutes: float = 4.0
    runs: int = 4
    dt: float | None = None
    discard: float = 20.0
    stimulus: TimeSeries | None = None
    vascular_step: float = 0.010
    seed: int = 0
    fresh: bool = True
    scheme: str = "euler"


@dataclass(frozen=True, eq=False)
class Assessed:
    """One point of the search: loss and its parts, and whether it may be kept, one a
    batch member."""

    loss: Float[Tensor, "*batch"]
    terms: dict[str, Tensor]
    fc_r: Float[Tensor, "*batch"]
    gain: Float[Tensor, "*batch"]
    growth: Float[Tensor, "*batch"]
    stable: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything a search needs to know, and nothing of how it searches."""

    brain: Brain
    recorded: Recorded
    kinds: dict[str, FreeParameter]
    objective: dict[Objective, float]
    prepare: Callable[[Brain], Brain]
    cleaning: Cleaning
    runs: Runs
    near_bifurcation: float | None
    symmetric: bool
    local_rate: float
    """Slowest local return (1/s) that is allowed; 0 where an undisturbed region does
    not return."""

    def told(self) -> tuple:
        """All that decides where a search goes, for the fingerprint of a checkpoint;
        functions count by their names."""
        aims = [
            (repr(o) if is_dataclass(o) else name_of(o), weight)
            for o, weight in self.objective.items()
        ]
        seen = self.recorded.raw.data if self.recorded.has_series else self.recorded.fc
        prior = [(path, kind.told()) for path, kind in self.kinds.items()]
        name = getattr(self.prepare, "__qualname__", repr(self.prepare))
        return self.brain, seen, aims, prior, name, self.runs

    def candidate(self, theta: Theta) -> Brain:
        values = {path: kind.value(theta[path]) for path, kind in self.kinds.items()}
        return self.prepare(placed(self.brain, values))

    def log_prior(self, theta: Theta) -> Tensor:
        return torch.stack(
            [kind.log_prior(theta[path]) for path, kind in self.kinds.items()]
        ).sum(0)

    def analytic(self, theta: Theta, tell: bool = True) -> Assessed:
        """Loss by formula, with penalties that keep the search among stable brains.

        tell: whether to correlate connectivity with the recorded, which costs a third
            of a likelihood's time and which gradients do without (it is NaN then)
        """
        brain = self.candidate(theta)
        x = fixed_point(brain, strict=False)
        settled = brain.drift(x).detach().abs().amax((0, -1)) < SETTLED
        at = linearise(brain, x)
        gain = self._loop_gain(at)
        # Past the fold the closed form still gives numbers, of no meaning and sometimes
        # a good fit: there the
        # coupling is scaled back to the edge of stability, so that only the penalty has
        # a gradient along it.
        held = (0.99 / gain.clamp_min(0.99))[..., None, None]
        view = Analytic(
            brain, self.cleaning, x, replace(at, coupling=at.coupling * held)
        )
        loss, terms = self._mismatch(view)
        local = at.local_growth
        limit = -self.local_rate
        loss = (
            loss
            - self.log_prior(theta)
            + 1e5 * (gain - WALL * LOOP_GAIN).clamp_min(0) ** 2
        )
        stable = settled & (gain < LOOP_GAIN) & (local.amax(-1) < limit)
        lead = local.amax(-1)
        if self.local_rate:
            loss = loss + 1e3 * (local / self.local_rate + 2).clamp_min(0).square().sum(
                -1
            )
        # Regions that oscillate can lose stability together although each is stable and
        # no fold is near.
        if (
            self.near_bifurcation is not None
            or not self.symmetric
            or not self.local_rate
        ):
            lead = growth(at)
            stable = stable & (lead < 0)
            loss = loss + 1e4 * lead.clamp_min(0) ** 2
        if self.near_bifurcation is not None:
            distance = (-lead).clamp_min(1e-6) / self.near_bifurcation
            terms["near_bifurcation"] = distance.log().square()
            loss = loss + 100 * terms["near_bifurcation"]
        with torch.no_grad():
            r = (
                similarity(view.fc, self.recorded.fc)
                if tell
                else torch.full_like(loss, torch.nan)
            )
        return Assessed(loss, terms, r, gain.detach(), lead.detach(), stable.detach())

    def _loop_gain(self, at: Linearisation) -> Tensor:
        """Largest eigenvalue of the loop; with gains h ≥ 0 and symmetric weights its
        spectrum is real."""
        if self.symmetric:
            root = at.gain[..., 0, 0].abs().sqrt()
            return torch.linalg.eigvalsh(
                root.unsqueeze(-1) * at.coupling * root.unsqueeze(-2)
            )[..., -1]
        return torch.linalg.eigvals(at.loop.detach()).real.amax(-1)

    def _mismatch(self, view: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total: Tensor | float = 0.0
        terms: dict[str, Tensor] = {}
        edges = self.edges
        for objective, weight in self.objective.items():
            value = objective(view, self.recorded)
            name = name_of(objective)
            terms[name if name not in terms else f"{name} {len(terms) + 1}"] = value
            total = total + weight * value * (
                edges if getattr(objective, "per_edge", True) else 1.0
            )
        return torch.as_tensor(total), terms

    @property
    def edges(self) -> float:
        n = len(self.brain.sensor.channels or self.brain.regions)
        return n * (n - 1) / 2

    def simulated(self, theta: Theta, seed: int) -> Assessed:
        """Loss of free-running simulations; gradients run through the whole of them."""
        view = self.simulate(self.candidate(theta), seed)
        loss, terms = self._mismatch(view)
        loss = loss - self.log_prior(theta)
        r = similarity(view.fc.detach(), self.recorded.fc)
        unknown = torch.full_like(loss.detach(), torch.nan)
        return Assessed(loss, terms, r, unknown, unknown, torch.isfinite(loss.detach()))

    def simulate(self, brain: Brain, seed: int) -> Simulated:
        """Free-running simulations of one brain or batch, from its equilibrium, in
        float32 where data are long."""
        how = self.runs
        tr = brain.sensor.tr
        single = cast(brain, torch.float32) if how.stimulus is None else brain
        batch = (how.runs, *torch.broadcast_shapes(self.recorded.batch, brain.batch))
        run = simulate(
            single,
            60 * how.minutes,
            dt=time_step(tr, 0.004) if how.dt is None else how.dt,
            start=at_rest(single, batch),
            stimulus=how.stimulus,
            batch=batch,
            discard=how.discard,
            vascular_step=how.vascular_step,
            scheme=how.scheme,
            seed=seed,
        )
        return Simulated(
            brain,
            replace(run.signal, data=run.signal.data.to(brain.connectome.weights)),
            self.cleaning,
        )


def at_rest(brain: Brain, batch: tuple[int, ...]) -> SimulationState:
    """The brain's equilibrium and the sensor's answer to it: where a run has no
    transient but the noise's own.

    A mass without an equilibrium (phases that turn for ever) begins at its declared
    resting values.
    """
    try:
        x = fixed_point(brain)
    except ConvergenceError:
        x = brain.resting_state()
    y = rest_under(brain.sensor.response, brain.mass.activity(x))

    def spread(s: Tensor) -> Tensor:
        missing = len(batch) + 2 - s.ndim
        return (
            s.reshape(len(s), *[1] * missing, *s.shape[1:])
            .expand(len(s), *batch, s.shape[-1])
            .contiguous()
        )

    return SimulationState(spread(x), spread(y), step=0)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The same brain with every floating tensor in another precision; gradients
    pass."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if not dataclasses.is_dataclass(value):
        return value
    made = object.__new__(
        type(value)
    )  # values that passed their checks once need not pass them in less precision
    for field in dataclasses.fields(value):
        object.__setattr__(made, field.name, cast(getattr(value, field.name), dtype))
    return made


def undisturbed_rate(brain: Brain) -> float:
    """Rate (1/s) at which a region with default parameters returns by itself; 0 if it
    does not (it oscillates)."""
    plain = with_values(brain, {"mass": type(brain.mass)(), "strength": 0.0})
    try:
        at = linearise(plain, fixed_point(plain))
    except (
        ConvergenceError,
        TypeError,
    ):  # no equilibrium, or no default mass: nothing to be near to
        return 0.0
    return max(0.0, -at.local_growth.max().item())


def check_method(method: str) -> None:
    """Refuse an unknown method."""
    if method not in METHODS:
        raise InputError(
            f"method must be one of {', '.join(METHODS)}; came {method!r}."
        )


METHODS = ("both", "analytic", "simulated")


def joined(theta: Theta) -> Float[Tensor, "*batch coordinate"]:
    """All coordinates in one row."""
    return torch.cat(list(theta.values()), -1)


def split(problem: Problem, row: Float[Tensor, "*batch coordinate"]) -> Theta:
    """Coordinates by path again."""
    parts = row.split([kind.size for kind in problem.kinds.values()], -1)
    return dict(zip(problem.kinds, parts, strict=True))
