"""The reference engine: the equations one step after the other in plain torch. Slow,
obvious, on any device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from cingulum.brain.brain import confine, shaken
from cingulum.progress import track
from cingulum.simulation.noise import standard_normal
from cingulum.simulation.state import (
    Outcome,
    Run,
    SimulationState,
    diverged,
    first_past,
    outputs,
)


def run_reference(run: Run) -> Outcome:
    """Do the run; gradients are torch's own. Raises ConvergenceError with the first
    step and region that diverge."""
    now, noise, stimulus = _begin(run), _noise(run, 0), _stimulus(run, 0)
    frames, activity = [], []
    for volume in track(range(run.volumes), "simulate", show=run.show_progress):
        before = now
        now, mean = _volume(run, before, noise, stimulus)
        if not _finite(now).all():
            # Once more, looking at every step; the noise can be drawn again.
            done = volume * run.per_tr * run.per_vascular
            _volume(run, before, _noise(run, done), _stimulus(run, done), watch=True)
        frames.append(run.brain.sensor.response.output(now.vascular))
        activity.append(mean)
    return Outcome(torch.stack(frames), torch.stack(activity), now)


def _begin(run: Run) -> SimulationState:
    start = run.start
    if run.delays is None or start.past is not None:
        return start
    return replace(start, past=first_past(run.slots, outputs(run.brain, start.neural)))


def _volume(
    run: Run,
    now: SimulationState,
    noise: Iterator[Tensor],
    stimulus: Iterator[Tensor | float],
    watch: bool = False,
) -> tuple[SimulationState, Tensor]:
    x, y, past, step = now.neural, now.vascular, now.past, now.step
    mean = torch.zeros_like(x[0])
    for _ in range(run.per_tr):
        driven = torch.zeros_like(x[0])
        for _ in range(run.per_vascular):
            x, past = _step(run, x, past, next(stimulus), next(noise))
            driven, step = driven + run.brain.mass.activity(x), step + 1
            if watch and not torch.isfinite(x).all():
                raise diverged(run.brain, torch.isfinite(x).all(0), step, run.dt)
        y = _vascular(run, y, driven / run.per_vascular)
        if watch and not torch.isfinite(y).all():
            raise diverged(run.brain, torch.isfinite(y).all(0), step, run.dt)
        mean = mean + driven / run.per_vascular
    return SimulationState(x, y, step, past), mean / run.per_tr


def _finite(now: SimulationState) -> Tensor:
    return torch.isfinite(now.neural).all(0) & torch.isfinite(now.vascular).all(0)


def _step(
    run: Run, x: Tensor, past: Tensor | None, stimulus: Tensor | float, noise: Tensor
) -> tuple[Tensor, Tensor | None]:
    brain, dt = run.brain, run.dt
    kick = (
        torch.as_tensor(brain.noise, dtype=x.dtype, device=x.device)
        * dt**0.5
        * shaken(brain.mass, noise)
    )
    slope = _drift(run, x, past, stimulus)
    after = confine(brain.mass, x + dt * slope + kick)
    if run.scheme == "heun":
        ahead = _drift(run, after, _remember(run, past, after), stimulus)
        after = confine(brain.mass, x + dt / 2 * (slope + ahead) + kick)
    return after, _remember(run, past, after)


def _drift(
    run: Run, x: Tensor, past: Tensor | None, stimulus: Tensor | float
) -> Tensor:
    u = (
        run.brain.coupling(x)
        if past is None
        else run.brain.strength * _delayed(run, past)
    )
    if isinstance(stimulus, Tensor):
        u = (
            u + stimulus
            if run.brain.mass.couplings == 1
            else torch.cat([u[:1] + stimulus, u[1:]])
        )
    return run.brain.mass.drift(x, u)


def _delayed(run: Run, past: Tensor) -> Tensor:
    """Σ_j weights_ij · output_j(t − delay_ij), the past read between two steps so that
    delays have a gradient."""
    delays, weights, n = run.delays, run.brain.connectome.weights, past.shape[-1]
    assert delays is not None
    whole = torch.floor(delays.detach())
    part, k = delays - whole, whole.long()
    # (slot, coupling, batch, region) → value at slot k_ij of sender j, for every
    # receiver i
    flat = past.reshape(*past.shape[:2], -1, n)
    batch = flat.shape[2]
    k = k.reshape(-1, n, n).expand(batch, n, n)
    b, j = (
        torch.arange(batch, device=k.device)[:, None, None],
        torch.arange(n, device=k.device),
    )
    here, older = (
        flat.movedim(1, 3)[k + more, b, j] for more in (0, 1)
    )  # (batch, i, j, coupling)
    part, weights = (value.reshape(-1, n, n).unsqueeze(-1) for value in (part, weights))
    received = (weights * ((1 - part) * here + part * older)).sum(2)
    u = received.movedim(-1, 0).reshape(past.shape[1:])
    return u if run.brain.mass.couplings > 1 else u[0]


def _remember(run: Run, past: Tensor | None, x: Tensor) -> Tensor | None:
    return (
        None
        if past is None
        else torch.cat([outputs(run.brain, x).unsqueeze(0), past[:-1]])
    )


def _vascular(run: Run, y: Tensor, drive: Tensor) -> Tensor:
    response = run.brain.sensor.response
    return confine(response, y + run.dt * run.per_vascular * response.drift(y, drive))


def _noise(run: Run, done: int) -> Iterator[Tensor]:
    if run.noise is not None:
        return iter(run.noise[done:])
    return standard_normal(
        run.seed, len(run.brain.mass.states), run.start.neural[0], run.start.step + done
    )


def _stimulus(run: Run, done: int) -> Iterator[Tensor | float]:
    for step in range(done, run.steps):
        yield 0.0 if run.stimulus is None else run.stimulus[step // run.hold]
