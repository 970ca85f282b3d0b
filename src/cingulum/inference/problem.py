"""A fit as a function: from coordinates of the free parameters to the loss and its
terms, for all recordings at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import resting, with_values
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.free_parameters import FreeParameter, brain_with
from cingulum.inference.objectives import Objective, name_of, scale_of
from cingulum.inference.stability_limits import StabilityLimits, scaled_below_fold
from cingulum.inference.views import Analytic, Cleaning, Recorded, Simulated, View
from cingulum.measures import similarity
from cingulum.simulation.linear.equilibrium import fixed_point, linearise
from cingulum.simulation.simulation import (
    SimulationSettings,
    settled_state,
    simulate_candidate,
    time_step,
)
from cingulum.simulation.state import SimulationState
from cingulum.timeseries import TimeSeries

Theta = dict[str, Float[Tensor, "*batch size"]]

METHODS = ("both", "analytic", "simulated")

SETTLED_DRIFT = 1e-3
"""Largest drift (per second) of a point that counts as an equilibrium; the solver goes
far below it where there is one."""

LONGEST_STEP = 0.004
"""Longest step of a simulation, s, where the user leaves the choice."""


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

    def step(self, tr: float) -> float:
        """Step of the integration at a TR, s."""
        return time_step(tr, LONGEST_STEP) if self.dt is None else self.dt


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
    prepare: applied to every candidate
    """

    brain: Brain
    recorded: Recorded
    free_parameters: dict[str, FreeParameter]
    objective: dict[Objective, float]
    prepare: Callable[[Brain], Brain]
    cleaning: Cleaning
    runs: Runs
    limits: StabilityLimits

    def metadata(self) -> tuple:
        """All that determines where a search ends, for the fingerprint of a
        checkpoint."""
        objectives = list(self.objective.items())
        priors = [
            (path, parameter.metadata())
            for path, parameter in self.free_parameters.items()
        ]
        data = self.recorded.data
        return self.brain, data, objectives, priors, self.prepare, self.runs

    def coordinate_names(self) -> list[str]:
        """Path and region, map or connection of every coordinate."""
        # Stripped, because a global parameter has no name but its path.
        return [
            f"{path} {name}".strip()
            for path, parameter in self.free_parameters.items()
            for name in parameter.names
        ]

    @property
    def sizes(self) -> list[int]:
        """Number of coordinates of each free parameter."""
        return [parameter.size for parameter in self.free_parameters.values()]

    def values(self, theta: Theta) -> dict[str, Tensor]:
        """The free parameters at these coordinates, by path."""
        return {
            path: parameter.value(theta[path])
            for path, parameter in self.free_parameters.items()
        }

    def candidate(self, theta: Theta) -> Brain:
        """The brain at these coordinates, prepared."""
        # Prepared last: what follows from the free parameters needs their values.
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
        # Where there is no equilibrium the point is refused below, not the whole batch.
        x = fixed_point(brain, strict=False)
        at = linearise(brain, x)
        gain = self.limits.loop_gain(at)
        view = Analytic(brain, self.cleaning, x, scaled_below_fold(at, gain))
        loss, terms = self._mismatch(view)
        margins = self.limits.margins(at, gain)
        loss = loss - self.log_prior(theta)
        for penalty in self.limits.penalties(margins):
            loss = loss + penalty
        return Assessment(
            loss=loss,
            terms=terms | self.limits.terms(margins),
            fc_r=self._fc_r(view) if with_fc_r else _unknown(loss),
            gain=gain.detach(),
            growth=margins.lead.detach(),
            stable=_is_settled(brain, x) & self.limits.are_met(margins),
        )

    def _mismatch(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted sum of the objectives, and each of them by its name."""
        total: Tensor | float = 0.0
        terms: dict[str, Tensor] = {}
        for objective, weight in self.objective.items():
            value = objective(view, self.recorded)
            terms[_unused_name(objective, terms)] = value
            scale = scale_of(objective, self.channels)
            total = total + weight * value * scale
        return torch.as_tensor(total), terms

    def _fc_r(self, view: View) -> Tensor:
        # For the history only: no gradient goes through it.
        with torch.no_grad():
            return similarity(view.fc, self.recorded.fc)

    @property
    def channels(self) -> int:
        """Number of regions, or of channels behind a leadfield."""
        return len(self.brain.sensor.channels or self.brain.regions)

    def simulated(self, theta: Theta, seed: int) -> Assessment:
        """Loss of free-running simulations; gradients go through all of them."""
        view = self.simulate(self.candidate(theta), seed)
        loss, terms = self._mismatch(view)
        loss = loss - self.log_prior(theta)
        return Assessment(
            loss=loss,
            terms=terms,
            # Reported, not fitted.
            fc_r=similarity(view.fc.detach(), self.recorded.fc),
            # A run need not be near an equilibrium, so none is looked for.
            gain=_unknown(loss),
            growth=_unknown(loss),
            stable=torch.isfinite(loss.detach()),
        )

    def simulate(self, brain: Brain, seed: int) -> Simulated:
        """Free-running simulations of one brain or batch, from its equilibrium."""
        runs = self.runs
        # Long runs in single precision, for speed; evoked responses are short.
        simulated = cast(brain, torch.float32) if runs.stimulus is None else brain
        members = torch.broadcast_shapes(self.recorded.batch, brain.batch)
        batch = (runs.runs, *members)
        settings = SimulationSettings(
            dt=runs.step(brain.sensor.tr),
            start=at_rest(simulated, batch),
            stimulus=runs.stimulus,
            batch=batch,
            discard=runs.discard,
            vascular_step=runs.vascular_step,
            scheme=runs.scheme,
            seed=seed,
        )
        signal = simulate_candidate(simulated, 60 * runs.minutes, settings).signal
        # Back in the precision of the recording it is compared with.
        data = signal.data.to(brain.connectome.weights)
        return Simulated(brain, replace(signal, data=data), self.cleaning)


def _unused_name(objective: Objective, terms: dict[str, Tensor]) -> str:
    """The objective's name, numbered where it is taken: two spectra of different bands
    are both reported."""
    name = name_of(objective)
    return f"{name} {len(terms) + 1}" if name in terms else name


def _unknown(loss: Tensor) -> Float[Tensor, "*batch"]:
    return torch.full_like(loss.detach(), torch.nan)


def _is_settled(brain: Brain, x: Tensor) -> Tensor:
    return brain.drift(x).detach().abs().amax((0, -1)) < SETTLED_DRIFT


def unchanged(brain: Brain) -> Brain:
    """The brain itself, where nothing follows from the free parameters."""
    return brain


def at_rest(brain: Brain, batch: tuple[int, ...]) -> SimulationState:
    """Where a run of a candidate begins: its equilibrium, and the sensor's response to
    it.

    A mass without an equilibrium (phases that turn for ever) begins at its declared
    resting values.
    """
    try:
        return settled_state(brain, batch)
    except ConvergenceError:
        x = brain.batched(brain.resting_state(batch))
        return SimulationState(x, resting(brain.sensor.response, x[0]), step=0)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The same brain with every floating-point tensor in another precision;
    differentiable."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    # Brains nest: a mass, a connectome, a sensor with a response.
    changes = {
        field.name: cast(getattr(value, field.name), dtype)
        for field in dataclasses.fields(value)
    }
    return replace(value, **changes)


def undisturbed_rate(brain: Brain) -> float:
    """Rate (1/s) at which an isolated region with default parameters returns to its
    equilibrium; 0 if it does not (it oscillates)."""
    # The reference is the mass as declared, whatever its parameters are in this brain.
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


def members_of(theta: Theta) -> torch.Size:
    """Shape of the batch: starts and recordings."""
    return next(iter(theta.values())).shape[:-1]


def choose(
    condition: Bool[Tensor, "*batch"], chosen: Tensor, otherwise: Tensor
) -> Float[Tensor, "*batch size"]:
    """Coordinates of one point or of another, for every batch member."""
    return torch.where(condition.unsqueeze(-1), chosen, otherwise)


def joined(theta: Theta) -> Float[Tensor, "*batch coordinate"]:
    """All coordinates in one row."""
    return torch.cat(list(theta.values()), -1)


def split(problem: Problem, row: Float[Tensor, "*batch coordinate"]) -> Theta:
    """The inverse of `joined`: coordinates by path."""
    parts = row.split(problem.sizes, -1)
    return dict(zip(problem.free_parameters, parts, strict=True))
