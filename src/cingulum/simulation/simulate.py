"""How a brain runs: Euler-Maruyama in time, BOLD sampled every TR. The reference engine, plain torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain, confine, resting
from cingulum.errors import ConvergenceError, InputError
from cingulum.progress import track
from cingulum.simulation.equilibrium import linearise
from cingulum.timeseries import TimeSeries

BLOCK = 128
"""Steps whose noise is drawn together; part of the meaning of a seed, so never changed lightly."""


@dataclass(frozen=True, eq=False)
class Moment:
    """A brain caught in the middle of a run: pass it as `start` and the run goes on bit for bit."""

    neural: Float[Tensor, "state *batch region"]
    vascular: Float[Tensor, "state *batch region"]
    step: int


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a run gives: the signal, the mean neural output of every region, and the moment it ended in."""

    bold: TimeSeries
    activity: Float[Tensor, "*batch region"]
    end: Moment


def simulate(
    brain: Brain,
    duration: float,
    *,
    dt: float = 0.001,
    start: Moment | Float[Tensor, "state *batch region"] | None = None,
    seed: int = 0,
    batch: tuple[int, ...] | None = None,
    discard: float = 0.0,
    vascular_step: float = 0.010,
    show_progress: bool = False,
) -> Simulation:
    """Run a brain for `duration` seconds and watch it through its sensor.

    dt: neural step in s; `vascular_step` (s) is rounded to whole neural steps and to divide the TR
    start: states to begin from (default: rest), or the end of an earlier run with the same seed and steps
    batch: leading shape of the states; default is what the brain's parameters imply
    discard: seconds run before the recording begins, so that transients are gone

    Returns a Simulation; BOLD has shape (*batch, region, time). Noise depends on (seed, step) only.
    Warns when dt is longer than the equations allow; raises ConvergenceError if the run diverges.
    """
    per_vascular, per_tr = clock(dt, vascular_step, brain.sensor.tr)
    volumes, skipped = int(duration / brain.sensor.tr + 1e-9), int(discard / brain.sensor.tr + 0.999999)
    if volumes < 1:
        raise InputError(f"A run must last at least one TR ({brain.sensor.tr} s); came {duration} s.")
    now = _begin(brain, start, batch)
    _warn_if_coarse(brain, now.neural, dt)
    noise = _noise(brain, now, dt, seed)
    frames, total = [], torch.zeros_like(now.neural[0])
    differentiable = torch.is_grad_enabled() and brain.drift(now.neural).requires_grad
    with torch.set_grad_enabled(differentiable):
        for volume in track(range(skipped + volumes), "simulate", show=show_progress):
            now, activity = _one_volume(brain, now, dt, per_vascular, per_tr, noise)
            _check_finite(brain, now, dt)
            if volume >= skipped:
                frames.append(brain.sensor.response.output(now.vascular))
                total = total + activity
    bold = TimeSeries(torch.stack(frames, -1), brain.sensor.tr, brain.regions, brain.sensor.unit)
    return Simulation(bold, total / volumes, now)


def time_step(tr: float, wanted: float = 0.002) -> float:
    """The time step nearest below `wanted` (s) of which the TR is a whole number."""
    return tr / math.ceil(tr / wanted - 1e-9)


def clock(dt: float, vascular_step: float, tr: float) -> tuple[int, int]:
    """Neural steps a haemodynamic step, and haemodynamic steps a TR.

    Raises InputError if the TR is not a whole number of neural steps: then the simulated TR would be another one.
    """
    steps = round(tr / dt)
    if steps < 1 or abs(steps * dt - tr) > 1e-6 * tr:
        raise InputError(
            f"The TR ({tr} s) must be a whole number of time steps; dt = {dt} s gives {tr / dt:.4f}. "
            f"Take for example dt = {tr / max(1, round(tr / 0.001)):.6g}."
        )
    wanted = max(1, round(vascular_step / dt))
    inner = max(k for k in range(1, wanted + 1) if steps % k == 0)
    return inner, steps // inner


def _begin(brain: Brain, start: Moment | Tensor | None, batch: tuple[int, ...] | None) -> Moment:
    if isinstance(start, Moment):
        return start
    neural = brain.resting_state(batch) if start is None else start
    return Moment(neural, resting(brain.sensor.response, neural[0]), 0)


def _one_volume(
    brain: Brain, now: Moment, dt: float, inner: int, outer: int, noise: Iterator[Tensor]
) -> tuple[Moment, Tensor]:
    x, y, response = now.neural, now.vascular, brain.sensor.response
    activity = torch.zeros_like(x[0])
    for _ in range(outer):
        driven = torch.zeros_like(x[0])
        for _ in range(inner):
            x = confine(brain.mass, x + dt * brain.drift(x) + next(noise))
            driven = driven + brain.mass.output(x)
        y = confine(response, y + dt * inner * response.drift(y, driven / inner))
        activity = activity + driven
    return Moment(x, y, now.step + inner * outer), activity / (inner * outer)


def _noise(brain: Brain, now: Moment, dt: float, seed: int) -> Iterator[Tensor]:
    """Noise increments from step `now.step` on: each block of steps has a generator of its own."""
    scale = torch.as_tensor(brain.noise, dtype=now.neural.dtype, device=now.neural.device) * dt**0.5
    block, offset = divmod(now.step, BLOCK)
    while True:
        # torch's CPU generator takes 32 bits of its seed, so (seed, block) is hashed into them.
        key = int(np.random.SeedSequence((seed, block)).generate_state(1)[0])
        generator = torch.Generator(now.neural.device).manual_seed(key)
        normal = torch.randn(
            BLOCK, *now.neural.shape, generator=generator, dtype=now.neural.dtype, device=now.neural.device
        )
        for step in range(offset, BLOCK):
            yield scale * normal[step]
        block, offset = block + 1, 0


def _check_finite(brain: Brain, now: Moment, dt: float) -> None:
    ok = torch.isfinite(now.neural).all(0) & torch.isfinite(now.vascular).all(0)
    if not ok.all():
        region = brain.regions[int((~ok).nonzero()[0, -1])]
        raise ConvergenceError(
            f"The simulation diverged before {now.step * dt:.2f} s, first seen in region {region!r}. "
            "Take a smaller dt, or a weaker coupling."
        )


def _warn_if_coarse(brain: Brain, x: Tensor, dt: float) -> None:
    limit = largest_local_step(brain, x)
    if dt > limit:
        warnings.warn(
            f"dt = {dt} s is longer than this brain allows: explicit steps are stable below {limit:.4g} s.",
            stacklevel=3,
        )


def largest_local_step(brain: Brain, x: Tensor) -> float:
    """The longest explicit Euler step (s) under which the fastest decaying local mode at x still decays."""
    with torch.no_grad():
        rates = torch.linalg.eigvals(linearise(brain, x).local)
    decaying = rates[rates.real < 0]
    return (-2 * decaying.real / decaying.abs() ** 2).min().item() if decaying.numel() else float("inf")
