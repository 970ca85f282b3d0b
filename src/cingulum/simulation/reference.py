"""The reference engine: the equations one step after the other in plain torch. Slow,
obvious, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cingulum.brain.dynamics import as_tensor_like, confine, scale_noise
from cingulum.progress import track
from cingulum.simulation.noise import standard_normal
from cingulum.simulation.state import (
    Outcome,
    Run,
    SimulationState,
    constant_history,
    diverged,
)


@dataclass(frozen=True)
class _Inputs:
    """What drives the neurons beside their coupling, step by step."""

    noise: Iterator[Tensor]
    stimulus: Iterator[Tensor | None]


def run_reference(run: Run) -> Outcome:
    """Do the run; gradients are torch's own. Raises ConvergenceError with the first
    step and region that diverge."""
    state = _with_history(run)
    inputs = _inputs(run, 0)
    frames = []
    activity = []
    for volume in track(range(run.volumes), "simulate", show=run.show_progress):
        before = state
        state, mean_activity = _volume(run, before, inputs)
        # One look per volume: looking at every step would cost more than the step.
        if not _is_finite(state):
            _raise_where_diverged(run, before, volume)
        frames.append(run.brain.sensor.response.output(state.vascular))
        activity.append(mean_activity)
    return Outcome(torch.stack(frames), torch.stack(activity), state)


def _raise_where_diverged(run: Run, before: SimulationState, volume: int) -> None:
    """The volume once more, looking at every step; its noise can be drawn again."""
    done = volume * run.per_tr * run.per_vascular
    _volume(run, before, _inputs(run, done), check_every_step=True)


def _with_history(run: Run) -> SimulationState:
    """The start; where there are delays, with a past."""
    start = run.start
    if run.delays is None or start.past is not None:
        return start
    past = constant_history(run.slots, run.brain.mass.output(start.neural))
    return replace(start, past=past)


def _inputs(run: Run, done: int) -> _Inputs:
    """Noise and stimulus from step `done` of the run on."""
    return _Inputs(_noise(run, done), _stimulus(run, done))


def _noise(run: Run, done: int) -> Iterator[Tensor]:
    if run.noise is not None:
        return iter(run.noise[done:])
    start = run.start
    states = len(run.brain.mass.states)
    step = start.step + done
    return standard_normal(run.seed, states, start.neural[0], step, run.first)


def _stimulus(run: Run, done: int) -> Iterator[Tensor | None]:
    for step in range(done, run.steps):
        yield None if run.stimulus is None else run.stimulus[step // run.hold]


def _volume(
    run: Run, state: SimulationState, inputs: _Inputs, check_every_step: bool = False
) -> tuple[SimulationState, Tensor]:
    """The state one volume later, and the mean activity in between."""
    total = torch.zeros_like(state.neural[0])
    for _ in range(run.per_tr):
        state, mean_activity = _vascular_step(run, state, inputs, check_every_step)
        total = total + mean_activity
    return state, total / run.per_tr


def _vascular_step(
    run: Run, state: SimulationState, inputs: _Inputs, check_every_step: bool
) -> tuple[SimulationState, Tensor]:
    """The state one haemodynamic step later, and the mean activity that drove it."""
    total = torch.zeros_like(state.neural[0])
    # Activity is averaged over a haemodynamic step: haemodynamics are slow against it.
    for _ in range(run.per_vascular):
        before = run.brain.mass.activity(state.neural)
        state = _neural_step(run, state, next(inputs.stimulus), next(inputs.noise))
        # The mean of the two ends of a step: activity after it alone would be half a
        # step late, and too strong at high frequencies.
        total = total + (before + run.brain.mass.activity(state.neural)) / 2
        if check_every_step:
            _check_finite(run, state.neural, state.step)
    mean_activity = total / run.per_vascular
    state = replace(state, vascular=_response(run, state.vascular, mean_activity))
    if check_every_step:
        _check_finite(run, state.vascular, state.step)
    return state, mean_activity


def _response(run: Run, y: Tensor, activity: Tensor) -> Tensor:
    """The sensor's states one haemodynamic step later."""
    response = run.brain.sensor.response
    return confine(response, response.advance(y, activity, run.vascular_step))


def _is_finite(state: SimulationState) -> bool:
    neural = torch.isfinite(state.neural).all()
    vascular = torch.isfinite(state.vascular).all()
    return bool(neural & vascular)


def _check_finite(run: Run, x: Tensor, step: int) -> None:
    finite = torch.isfinite(x).all(0)
    if not finite.all():
        raise diverged(run.brain, finite, step, run.dt)


def _neural_step(
    run: Run, state: SimulationState, stimulus: Tensor | None, noise: Tensor
) -> SimulationState:
    """One step of the scheme: Euler-Maruyama, or Heun with the same noise in predictor
    and corrector."""
    mass = run.brain.mass
    x = state.neural
    kick = _kick(run, noise)
    slope = _drift(run, x, state.past, stimulus)
    after = confine(mass, x + run.dt * slope + kick)
    if run.scheme == "heun":
        past_ahead = _remember(run, state.past, after)
        slope_ahead = _drift(run, after, past_ahead, stimulus)
        after = confine(mass, x + run.dt / 2 * (slope + slope_ahead) + kick)
    past = _remember(run, state.past, after)
    return replace(state, neural=after, step=state.step + 1, past=past)


def _kick(run: Run, noise: Tensor) -> Tensor:
    """What noise adds to every state in one step."""
    amplitude = as_tensor_like(run.brain.noise, run.start.neural)
    return amplitude * run.dt**0.5 * scale_noise(run.brain.mass, noise)


def _drift(run: Run, x: Tensor, past: Tensor | None, stimulus: Tensor | None) -> Tensor:
    mass = run.brain.mass
    if past is None:
        u = run.brain.coupling(x)
    else:
        u = run.brain.strength * _delayed_input(run, past)
    if stimulus is None:
        return mass.drift(x, u)
    # A stimulus is one number per region: it enters the first coupling variable.
    return mass.drift(x, torch.cat([u[:1] + stimulus, u[1:]]))


def _delayed_input(run: Run, past: Tensor) -> Tensor:
    """Σ_j weights_ij · output_j(t − delay_ij), the past read between two steps so that
    delays have a gradient."""
    assert run.delays is not None
    # The slot itself has no gradient; the share between two slots carries it.
    slots = torch.floor(run.delays.detach())
    share = _pairs(run.delays - slots)
    weights = _pairs(run.brain.connectome.weights)
    newer = _sent(past, slots.long())
    older = _sent(past, slots.long() + 1)
    received = (weights * ((1 - share) * newer + share * older)).sum(2)
    return received.movedim(-1, 0).reshape(past.shape[1:])


def _pairs(value: Tensor) -> Tensor:
    """(*batch, receiver, sender) as (batch, receiver, sender, 1)."""
    return value.reshape(-1, *value.shape[-2:]).unsqueeze(-1)


def _sent(past: Tensor, slots: Tensor) -> Tensor:
    """What each sender sent `slots` steps ago to each receiver: (batch, receiver,
    sender, coupling)."""
    n = past.shape[-1]
    # (slot, batch, sender, coupling)
    flat = past.reshape(*past.shape[:2], -1, n).movedim(1, 3)
    batch = flat.shape[1]
    slots = slots.reshape(-1, n, n).expand(batch, n, n)
    member = torch.arange(batch, device=slots.device)[:, None, None]
    sender = torch.arange(n, device=slots.device)
    return flat[slots, member, sender]


def _remember(run: Run, past: Tensor | None, x: Tensor) -> Tensor | None:
    """The past one step later: the newest outputs in front, the oldest dropped."""
    if past is None:
        return None
    return torch.cat([run.brain.mass.output(x).unsqueeze(0), past[:-1]])
