"""A fit as a function: from coordinates of the free parameters to the loss and its
terms, for all recordings at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import with_values
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.free_parameters import FreeParameter, brain_with
from cingulum.inference.objectives import Objective, is_likelihood, name_of
from cingulum.inference.views import Analytic, Cleaning, Recorded, Simulated, View
from cingulum.measures import similarity
from cingulum.simulation.linear.eigenvalues import growth
from cingulum.simulation.linear.equilibrium import Linearisation, fixed_point, linearise
from cingulum.simulation.linear.spectrum import rest_under
from cingulum.simulation.simulation import simulate, time_step
from cingulum.simulation.state import SimulationState
from cingulum.timeseries import TimeSeries

Theta = dict[str, Float[Tensor, "*batch size"]]

METHODS = ("both", "analytic", "simulated")

LOOP_GAIN_LIMIT = 0.9
"""Largest gain of one passage through the network that a fit may end with; at 1 the
equilibrium is lost in a fold."""

PENALTY_START = 0.97
"""Share of the largest loop gain at which the penalty begins: below it, data and prior
alone decide."""

SETTLED_DRIFT = 1e-3
"""Largest drift (per second) of a point that counts as an equilibrium; the solver goes
far below it where there is one."""

LOCAL_SHARE = 0.25
"""An isolated region must return to its equilibrium at least at this share of the rate
of an isolated region with default parameters.

Nearer to either edge the basin of the working point is so narrow that noise leaves it:
measured on the Human Connectome group, free-running connectivity then agrees with the
analytic one at r = .66 instead of .99.
"""


@dataclass(frozen=True)
class Runs:
    """How the simulated method simulates: `runs` of `minutes` in parallel, pooled.

    minutes: of each run; a fraction for an evoked response: 0.4 / 60 is an epoch of
        400 ms
    dt: s; None takes the longest step up to 4 ms that divides the TR
    discard: s left out at the start; the run begins at the equilibrium
    stimulus: an input added to every run, for evoked responses
    vascular_step: s, of the haemodynamics
    fresh: new noise at every step of the search
    scheme: `euler`, or `heun`, which weakly damped oscillations need (Euler's method
        feeds them energy)
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
class Assessment:
    """The loss at one point of the search, and what decides whether to keep the point;
    one value per batch member.

    terms: value of every objective, unweighted, by its name
    fc_r: correlation with the recorded connectivity; NaN where it was not computed
    gain: loop gain; growth: leading growth rate (1/s); both NaN for simulations
    stable: whether the search may keep the point
    """

    loss: Float[Tensor, "*batch"]
    terms: dict[str, Tensor]
    fc_r: Float[Tensor, "*batch"]
    gain: Float[Tensor, "*batch"]
    growth: Float[Tensor, "*batch"]
    stable: Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """Everything that determines the loss, and nothing of how it is minimised.

    free_parameters: by path
    objective: weights by objective
    symmetric: whether the network's interactions are symmetric, so that its spectrum is
        real
    local_rate: slowest local return (1/s) that is allowed; 0 where an undisturbed
        region does not return
    """

    brain: Brain
    recorded: Recorded
    free_parameters: dict[str, FreeParameter]
    objective: dict[Objective, float]
    prepare: Callable[[Brain], Brain]
    cleaning: Cleaning
    runs: Runs
    near_bifurcation: float | None
    symmetric: bool
    local_rate: float

    def metadata(self) -> tuple:
        """All that determines where a search ends, for the fingerprint of a checkpoint;
        functions count by their names, because their code cannot be compared."""
        recorded = self.recorded.fc
        if self.recorded.has_series:
            recorded = self.recorded.raw.data
        objectives = [
            (_description(objective), weight)
            for objective, weight in self.objective.items()
        ]
        priors = [
            (path, parameter.metadata())
            for path, parameter in self.free_parameters.items()
        ]
        prepare = getattr(self.prepare, "__qualname__", repr(self.prepare))
        return self.brain, recorded, objectives, priors, prepare, self.runs

    def coordinate_names(self) -> list[str]:
        """Path and region, map or connection of every coordinate."""
        return [
            f"{path} {name}".strip()
            for path, parameter in self.free_parameters.items()
            for name in parameter.names
        ]

    def values(self, theta: Theta) -> dict[str, Tensor]:
        """The free parameters at these coordinates, by path."""
        return {
            path: parameter.value(theta[path])
            for path, parameter in self.free_parameters.items()
        }

    def candidate(self, theta: Theta) -> Brain:
        """The brain at these coordinates, prepared."""
        return self.prepare(brain_with(self.brain, self.values(theta)))

    def log_prior(self, theta: Theta) -> Tensor:
        densities = [
            parameter.log_prior(theta[path])
            for path, parameter in self.free_parameters.items()
        ]
        return torch.stack(densities).sum(0)

    def analytic(self, theta: Theta, with_fc_r: bool = True) -> Assessment:
        """Loss in closed form, with penalties that keep the search among stable brains.

        with_fc_r: whether to correlate connectivity with the recorded one, which takes
            a third of a likelihood's time and is not needed for gradients
        """
        brain = self.candidate(theta)
        x = fixed_point(brain, strict=False)
        at = linearise(brain, x)
        gain = self._loop_gain(at)
        view = Analytic(brain, self.cleaning, x, _scaled_below_fold(at, gain))
        loss, terms = self._mismatch(view)

        local = at.local_growth
        lead = growth(at) if self._needs_eigenvalues else local.amax(-1)
        if self.near_bifurcation is not None:
            terms["near_bifurcation"] = _log_distance(lead, self.near_bifurcation)
        loss = loss - self.log_prior(theta)
        for penalty in self._penalties(gain, local, lead, terms):
            loss = loss + penalty

        return Assessment(
            loss=loss,
            terms=terms,
            fc_r=self._fc_r(view) if with_fc_r else torch.full_like(loss, torch.nan),
            gain=gain.detach(),
            growth=lead.detach(),
            stable=_is_settled(brain, x) & self._is_stable(gain, local, lead).detach(),
        )

    @property
    def _needs_eigenvalues(self) -> bool:
        """Whether the growth of single regions does not bound that of the network.

        Regions that oscillate can lose stability together although each is stable and
        no fold is near.
        """
        if self.near_bifurcation is not None:
            return True
        return not self.symmetric or not self.local_rate

    def _penalties(
        self, gain: Tensor, local: Tensor, lead: Tensor, terms: dict[str, Tensor]
    ) -> Iterator[Tensor]:
        """What is added to the loss near and beyond the limits of stability."""
        excess = gain - PENALTY_START * LOOP_GAIN_LIMIT
        yield 1e5 * excess.clamp_min(0) ** 2
        if self.local_rate:
            # From twice the slowest rate allowed, so that the limit itself is not met.
            slowness = (local / self.local_rate + 2).clamp_min(0)
            yield 1e3 * slowness.square().sum(-1)
        if self._needs_eigenvalues:
            yield 1e4 * lead.clamp_min(0) ** 2
        if self.near_bifurcation is not None:
            yield 100 * terms["near_bifurcation"]

    def _is_stable(self, gain: Tensor, local: Tensor, lead: Tensor) -> Tensor:
        stable = (gain < LOOP_GAIN_LIMIT) & (local.amax(-1) < -self.local_rate)
        if self._needs_eigenvalues:
            stable = stable & (lead < 0)
        return stable

    def _loop_gain(self, at: Linearisation) -> Tensor:
        """Largest eigenvalue of one passage through the network."""
        if self.symmetric:
            # With gains h ≥ 0 and symmetric weights W, √h W √h has the spectrum of h W,
            # and a gradient where eigenvalues meet.
            root = at.gain[..., 0, 0].abs().sqrt()
            loop = root.unsqueeze(-1) * at.coupling * root.unsqueeze(-2)
            return torch.linalg.eigvalsh(loop)[..., -1]
        return torch.linalg.eigvals(at.loop.detach()).real.amax(-1)

    def _mismatch(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the objectives, and each of them by its name."""
        total: Tensor | float = 0.0
        terms: dict[str, Tensor] = {}
        for objective, weight in self.objective.items():
            value = objective(view, self.recorded)
            name = name_of(objective)
            # Two of one class, such as the spectrum of two bands, are both reported.
            if name in terms:
                name = f"{name} {len(terms) + 1}"
            terms[name] = value
            scale = 1.0 if is_likelihood(objective) else self.edges
            total = total + weight * value * scale
        return torch.as_tensor(total), terms

    def _fc_r(self, view: View) -> Tensor:
        with torch.no_grad():
            return similarity(view.fc, self.recorded.fc)

    @property
    def edges(self) -> float:
        """Number of pairs of regions, or of channels behind a leadfield."""
        n = len(self.brain.sensor.channels or self.brain.regions)
        return n * (n - 1) / 2

    def simulated(self, theta: Theta, seed: int) -> Assessment:
        """Loss of free-running simulations; gradients go through all of them."""
        view = self.simulate(self.candidate(theta), seed)
        loss, terms = self._mismatch(view)
        loss = loss - self.log_prior(theta)
        unknown = torch.full_like(loss.detach(), torch.nan)
        return Assessment(
            loss=loss,
            terms=terms,
            fc_r=similarity(view.fc.detach(), self.recorded.fc),
            gain=unknown,
            growth=unknown,
            stable=torch.isfinite(loss.detach()),
        )

    def simulate(self, brain: Brain, seed: int) -> Simulated:
        """Free-running simulations of one brain or batch, from its equilibrium."""
        runs = self.runs
        # Half the time in single precision, which long runs need; evoked responses are
        # short, and small against the resting potential.
        simulated = cast(brain, torch.float32) if runs.stimulus is None else brain
        people = torch.broadcast_shapes(self.recorded.batch, brain.batch)
        batch = (runs.runs, *people)
        dt = time_step(brain.sensor.tr, 0.004) if runs.dt is None else runs.dt
        signal = simulate(
            simulated,
            60 * runs.minutes,
            dt=dt,
            start=at_rest(simulated, batch),
            stimulus=runs.stimulus,
            batch=batch,
            discard=runs.discard,
            vascular_step=runs.vascular_step,
            scheme=runs.scheme,
            seed=seed,
        ).signal
        data = signal.data.to(brain.connectome.weights)
        return Simulated(brain, replace(signal, data=data), self.cleaning)


def _description(objective: Objective) -> str:
    return repr(objective) if is_dataclass(objective) else name_of(objective)


def _scaled_below_fold(at: Linearisation, gain: Tensor) -> Linearisation:
    """The linearisation, with the coupling scaled back where it is beyond the fold.

    There the closed form still gives numbers, of no meaning and sometimes a good fit.
    At the edge of stability only the penalty has a gradient along the coupling.
    """
    scale = (0.99 / gain.clamp_min(0.99))[..., None, None]
    return replace(at, coupling=at.coupling * scale)


def _log_distance(lead: Tensor, wanted: float) -> Tensor:
    """Squared logarithm of the distance from instability over the wanted one."""
    distance = (-lead).clamp_min(1e-6) / wanted
    return distance.log().square()


def _is_settled(brain: Brain, x: Tensor) -> Tensor:
    return brain.drift(x).detach().abs().amax((0, -1)) < SETTLED_DRIFT


def at_rest(brain: Brain, batch: tuple[int, ...]) -> SimulationState:
    """The brain's equilibrium and the sensor's response to it: a run from here has no
    transient but that of the noise.

    A mass without an equilibrium (phases that turn for ever) begins at its declared
    resting values.
    """
    try:
        x = fixed_point(brain)
    except ConvergenceError:
        x = brain.resting_state()
    y = rest_under(brain.sensor.response, brain.mass.activity(x))
    return SimulationState(_expanded(x, batch), _expanded(y, batch), step=0)


def _expanded(
    states: Float[Tensor, "state *members region"], batch: tuple[int, ...]
) -> Float[Tensor, "state *batch region"]:
    """States of some batch members repeated for a whole batch, one copy each."""
    count, region = states.shape[0], states.shape[-1]
    missing = len(batch) + 2 - states.ndim
    aligned = states.reshape(count, *[1] * missing, *states.shape[1:])
    return aligned.expand(count, *batch, region).contiguous()


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The same brain with every floating-point tensor in another precision;
    differentiable."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changes = {
        field.name: cast(getattr(value, field.name), dtype)
        for field in dataclasses.fields(value)
    }
    return replace(value, **changes)


def undisturbed_rate(brain: Brain) -> float:
    """Rate (1/s) at which an isolated region with default parameters returns to its
    equilibrium; 0 if it does not (it oscillates)."""
    isolated = with_values(brain, {"mass": type(brain.mass)(), "strength": 0.0})
    try:
        at = linearise(isolated, fixed_point(isolated))
    except (ConvergenceError, TypeError):
        # Without an equilibrium there is no rate to be near to.
        return 0.0
    return max(0.0, -at.local_growth.max().item())


def check_method(method: str) -> None:
    """Refuse an unknown method."""
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}; got {method!r}.")


def joined(theta: Theta) -> Float[Tensor, "*batch coordinate"]:
    """All coordinates in one row."""
    return torch.cat(list(theta.values()), -1)


def split(problem: Problem, row: Float[Tensor, "*batch coordinate"]) -> Theta:
    """The inverse of `joined`: coordinates by path."""
    sizes = [parameter.size for parameter in problem.free_parameters.values()]
    parts = row.split(sizes, -1)
    return dict(zip(problem.free_parameters, parts, strict=True))
