"""How a brain runs: stochastic integration in time, BOLD sampled every TR, by machine
code or by plain torch."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain, resting
from cingulum.errors import InputError
from cingulum.simulation.compiler import CannotLower, run_compiled
from cingulum.simulation.linear.equilibrium import local_rates
from cingulum.simulation.noise import standard_normal
from cingulum.simulation.reference import run_reference
from cingulum.simulation.state import SCHEMES, Outcome, Run, SimulationState, longest
from cingulum.timeseries import TimeSeries

SENSOR_STREAM = 0x5E450000_00000000
"""Changes the seed's upper half, so that measurement noise is independent of the
neurons'."""

ENGINES = ("auto", "compiled", "reference")


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a run gives: the sensor's signal, the mean activity of every region, and the
    moment it ended in."""

    signal: TimeSeries
    activity: Float[Tensor, "*batch region"]
    end: SimulationState

    @property
    def bold(self) -> TimeSeries:
        """The signal, by the name it has in fMRI."""
        return self.signal


def simulate(
    brain: Brain,
    duration: float,
    *,
    dt: float = 0.001,
    start: SimulationState | Float[Tensor, "state *batch region"] | None = None,
    stimulus: TimeSeries | None = None,
    seed: int = 0,
    noise: Float[Tensor, "step state *batch region"] | None = None,
    batch: tuple[int, ...] | None = None,
    discard: float = 0.0,
    vascular_step: float = 0.010,
    scheme: str = "euler",
    engine: str = "auto",
    threads: int | None = None,
    show_progress: bool = False,
) -> Simulation:
    """Run a brain for `duration` seconds and watch it through its sensor.

    dt: neural step in s; `vascular_step` (s) is rounded to whole neural steps and to
        divide the TR, and shortened to the fastest time constant of the sensor's
        response (1 ms for an EEG amplifier)
    start: states to begin from (default: rest), or the end of an earlier run with the
        same seed and steps
    stimulus: input added to the coupling input from the first step on, held between its
        samples; after its end none
    noise: standard normal numbers to use instead of drawn ones, for every step
        including those discarded
    batch: leading shape of the states; default is what the brain's parameters imply
    discard: seconds run before the recording begins, so that transients are gone
    scheme: `euler` (Euler-Maruyama) or `heun` (stochastic Heun; two evaluations a step)
    engine: `compiled` makes machine code of the equations, `reference` is plain torch
        on any device and gives the same numbers to rounding; `auto` compiles where it
        can and says so where it cannot
    threads: simulations of a batch side by side; default is torch's own number of
        threads

    Returns a Simulation; its signal has shape (*batch, region or channel, time).
    Everything is differentiable: parameters, weights, conduction speed, start and
    stimulus. Noise depends on seed, simulation, step, state, region. Warns when dt is
    longer than the equations allow; raises ConvergenceError if the run diverges.
    """
    volumes, skipped = (
        int(duration / brain.sensor.tr + 1e-9),
        int(discard / brain.sensor.tr + 0.999999),
    )
    if volumes < 1:
        raise InputError(
            f"A run must last at least one TR ({brain.sensor.tr} s); came {duration} s."
        )
    for word, known, given in (
        ("scheme", SCHEMES, scheme),
        ("engine", ENGINES, engine),
    ):
        if given not in known:
            raise InputError(
                f"{word} must be one of {', '.join(known)}; came {given!r}."
            )
    now = _begin(brain, start, stimulus, batch)
    _warn_if_coarse(brain, now.neural, dt, scheme)
    vascular_step = min(vascular_step, _fastest_time(brain, now))
    run = _run(
        brain,
        now,
        dt,
        vascular_step,
        skipped + volumes,
        scheme,
        seed,
        stimulus,
        noise,
        show_progress,
    )
    found = _engine(run, engine, threads)
    signal = _measured(run, found.bold)[skipped:].movedim(0, -1)
    series = TimeSeries(
        signal,
        brain.sensor.tr,
        brain.sensor.channels or brain.regions,
        brain.sensor.unit,
    )
    return Simulation(series, found.activity[skipped:].mean(0), found.end)


def _measured(
    run: Run, signal: Float[Tensor, "volume *batch region"]
) -> Float[Tensor, "volume *batch channel"]:
    """The signal as the channels see it, with the sensor's own noise (a stream of its
    own, one draw a volume)."""
    sensor = run.brain.sensor
    signal = sensor.seen(signal)
    if not isinstance(sensor.noise, Tensor) and sensor.noise == 0:
        return signal
    first = run.start.step // (run.per_tr * run.per_vascular)
    drawn = standard_normal(run.seed ^ SENSOR_STREAM, 1, signal[0], first)
    noise = torch.cat(list(itertools.islice(drawn, signal.shape[0])))
    return (
        signal
        + torch.as_tensor(sensor.noise, dtype=signal.dtype, device=signal.device)
        * noise
    )


def _run(
    brain: Brain,
    now: SimulationState,
    dt: float,
    vascular_step: float,
    volumes: int,
    scheme: str,
    seed: int,
    stimulus: TimeSeries | None,
    noise: Tensor | None,
    show_progress: bool,
) -> Run:
    per_vascular, per_tr = clock(dt, vascular_step, brain.sensor.tr)
    delays = brain.delays()
    delays = None if delays is None else (delays / dt).to(now.neural)
    slots = 0 if delays is None else longest(delays)
    if now.past is not None and now.past.shape[0] != slots:
        raise InputError(
            f"The start remembers {now.past.shape[0]} steps of outputs; these delays "
            f"need {slots}. Continue with the "
            "same lengths, speed and dt."
        )
    run = Run(
        brain,
        now,
        dt,
        per_vascular,
        per_tr,
        volumes,
        scheme,
        seed,
        delays,
        slots,
        noise=noise,
        show_progress=show_progress,
    )
    if noise is not None and noise.shape[0] < run.steps:
        raise InputError(
            f"Given noise must cover all {run.steps} steps; came {noise.shape[0]}."
        )
    if stimulus is None:
        return run
    rows, hold = _rows(brain, now, stimulus, dt, run.steps)
    return replace(run, stimulus=rows, hold=hold)


def _rows(
    brain: Brain, now: SimulationState, stimulus: TimeSeries, dt: float, steps: int
) -> tuple[Tensor, int]:
    """The stimulus as rows (row, *batch, region), one for every `hold` steps."""
    hold = round(stimulus.tr / dt)
    if hold < 1 or abs(hold * dt - stimulus.tr) > 1e-6 * stimulus.tr:
        raise InputError(
            f"A stimulus sample ({stimulus.tr} s) must last a whole number of time "
            f"steps ({dt} s)."
        )
    if stimulus.regions != brain.regions:
        raise InputError(
            f"The stimulus names {len(stimulus.regions)} regions, the brain "
            f"{len(brain.regions)}; they "
            "must be the same in the same order."
        )
    rows = stimulus.data.movedim(-1, 0).to(now.neural)[: -(-steps // hold)]
    missing = -(-steps // hold) - rows.shape[0]
    return torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])]), hold


def _engine(run: Run, engine: str, threads: int | None) -> Outcome:
    if engine == "reference":
        return run_reference(run)
    try:
        return run_compiled(run, threads=threads)
    except CannotLower as trouble:
        if engine == "compiled":
            raise InputError(
                f"This brain cannot be compiled: {trouble}. Use engine='auto' or "
                "'reference'."
            ) from None
        warnings.warn(
            "Running in plain torch, which is slow: the compiler does not know "
            f"{trouble}.",
            stacklevel=3,
        )
        return run_reference(run)


def time_step(tr: float, wanted: float = 0.002) -> float:
    """The time step nearest below `wanted` (s) of which the TR is a whole number."""
    return tr / math.ceil(tr / wanted - 1e-9)


def clock(dt: float, vascular_step: float, tr: float) -> tuple[int, int]:
    """Neural steps a haemodynamic step, and haemodynamic steps a TR.

    Raises InputError if the TR is not a whole number of neural steps: then the
    simulated TR would be another one.
    """
    steps = round(tr / dt)
    if steps < 1 or abs(steps * dt - tr) > 1e-6 * tr:
        raise InputError(
            f"The TR ({tr} s) must be a whole number of time steps; dt = {dt} s gives "
            f"{tr / dt:.4f}. "
            f"Take for example dt = {tr / max(1, round(tr / 0.001)):.6g}."
        )
    wanted = max(1, round(vascular_step / dt))
    inner = max(k for k in range(1, wanted + 1) if steps % k == 0)
    return inner, steps // inner


def _begin(
    brain: Brain,
    start: SimulationState | Tensor | None,
    stimulus: TimeSeries | None,
    batch: tuple[int, ...] | None,
) -> SimulationState:
    if isinstance(start, SimulationState):
        return start
    if start is None:
        implied = [
            brain.batch,
            stimulus.data.shape[:-2] if stimulus else (),
            brain.connectome.weights.shape[:-2],
        ]
        start = brain.resting_state(
            tuple(torch.broadcast_shapes(*implied)) if batch is None else batch
        )
    return SimulationState(start, resting(brain.sensor.response, start[0]), 0)


def _fastest_time(brain: Brain, now: SimulationState) -> float:
    """Shortest time constant (s) of the sensor's response near its rest."""
    response, still = brain.sensor.response, torch.zeros_like(now.neural[0].detach())
    with torch.enable_grad():
        states = resting(response, still).requires_grad_()
        rates = response.drift(states, still)
        rows = [
            torch.autograd.grad(
                r.sum(), states, retain_graph=True, materialize_grads=True
            )[0]
            for r in rates
        ]
    local = torch.stack(rows).movedim((0, 1), (-2, -1)).detach()
    return 1 / torch.linalg.eigvals(local).abs().max().item()


def _warn_if_coarse(brain: Brain, x: Tensor, dt: float, scheme: str) -> None:
    limit = largest_local_step(brain, x, scheme)
    if dt > limit:
        warnings.warn(
            f"dt = {dt} s is longer than this brain allows: explicit steps are stable "
            f"below {limit:.4g} s.",
            stacklevel=3,
        )


def largest_local_step(brain: Brain, x: Tensor, scheme: str = "euler") -> float:
    """The longest explicit step (s) under which every decaying local mode at x still
    decays.

    Euler's is 2 |Re λ| / |λ|², which a weakly damped oscillation makes very short;
    Heun's has no such form and is found to a hundredth, by trying steps up to 2 / |λ|.
    """
    rates = local_rates(brain, x)
    decaying = rates[rates.real < 0]
    if not decaying.numel():
        return float("inf")
    if scheme == "euler":
        return (-2 * decaying.real / decaying.abs() ** 2).min().item()
    tried = (2 / decaying.abs()).unsqueeze(-1) * torch.linspace(0.01, 1.0, 100).to(
        decaying.real
    )
    z = decaying.unsqueeze(-1) * tried
    grows = (1 + z + z**2 / 2).abs() > 1
    return tried.masked_fill(~grows, torch.inf).amin(-1).min().item()
