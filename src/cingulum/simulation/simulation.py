"""How a brain runs: stochastic integration in time, BOLD sampled every TR, by compiled
code or by plain torch."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import as_tensor_like, resting
from cingulum.brain.mass_contract import check_brain
from cingulum.errors import ConvergenceError, InputError
from cingulum.simulation.compiler import CannotLower, run_compiled
from cingulum.simulation.linear.equilibrium import fixed_point, local_rates
from cingulum.simulation.linear.jacobian import local_drift
from cingulum.simulation.linear.spectrum import rest_under
from cingulum.simulation.noise import standard_normal
from cingulum.simulation.reference import run_reference
from cingulum.simulation.state import (
    SCHEMES,
    Outcome,
    Run,
    SimulationState,
    history_slots,
)
from cingulum.timeseries import TimeSeries

SENSOR_STREAM = 0x5E450000_00000000
"""Changes the seed's upper half, so that measurement noise is independent of the
neurons'."""

ENGINES = ("auto", "compiled", "reference")


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a run gives: the sensor's signal, the mean activity of every region, and the
    state it ended in."""

    signal: TimeSeries
    activity: Float[Tensor, "*batch region"]
    end: SimulationState

    @property
    def bold(self) -> TimeSeries:
        """The signal, by the name it has in fMRI."""
        return self.signal


# The one verb of simulation: what callers set, they set by keyword, one at a time.
def simulate(  # noqa: PLR0913
    brain: Brain,
    duration: float,
    *,
    dt: float = 0.001,
    start: SimulationState | Float[Tensor, "state *batch region"] | None = None,
    stimulus: TimeSeries | None = None,
    seed: int = 0,
    noise: Float[Tensor, "step state *batch region"] | None = None,
    batch: tuple[int, ...] | None = None,
    first: int = 0,
    discard: float = 0.0,
    vascular_step: float = 0.010,
    scheme: str = "euler",
    engine: str = "auto",
    threads: int | None = None,
    show_progress: bool = False,
) -> Simulation:
    """Run a brain for `duration` seconds and record it with its sensor.

    dt: neural step in s; `vascular_step` (s) is rounded to whole neural steps and to
        divide the TR, and shortened to the fastest time constant of the sensor's
        response (1 ms for an EEG amplifier)
    start: states to begin from, or the end of an earlier run with the same seed and
        steps. Default: the brain's equilibrium and the sensor's response to it, so that
        nothing of the recording is a transient; a brain without an equilibrium begins
        at its declared resting values, and a warning says so
    stimulus: input added to the coupling input from the first step on, held between its
        samples; after its end none. Of a mass with several coupling variables it enters
        the first only (`from_a` of Hopf, `sine` of Kuramoto)
    noise: standard normal numbers to use instead of drawn ones, for every step
        including those discarded
    batch: leading shape of the states; default is what the brain's parameters imply
    first: number of the first simulation: with `first=4`, a single run has the noise of
        number 4 (from 0) of a batch with the same seed
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
    longer than the equations allow; raises InputError for a mass that breaks its own
    declarations, ConvergenceError if the run diverges.
    """
    check_whole_number("seed", seed)
    check_whole_number("first", first)
    brain.check_ranges()
    settings = SimulationSettings(
        dt=dt,
        start=start,
        stimulus=stimulus,
        seed=seed,
        noise=noise,
        batch=batch,
        first=first,
        discard=discard,
        vascular_step=vascular_step,
        scheme=scheme,
        engine=engine,
        threads=threads,
        show_progress=show_progress,
    )
    return simulate_candidate(brain, duration, settings)


@dataclass(frozen=True, eq=False)
class SimulationSettings:
    """How a brain is run; every field is explained at `simulate`."""

    dt: float = 0.001
    start: SimulationState | Float[Tensor, "state *batch region"] | None = None
    stimulus: TimeSeries | None = None
    seed: int = 0
    noise: Float[Tensor, "step state *batch region"] | None = None
    batch: tuple[int, ...] | None = None
    first: int = 0
    discard: float = 0.0
    vascular_step: float = 0.010
    scheme: str = "euler"
    engine: str = "auto"
    threads: int | None = None
    show_progress: bool = False


def simulate_candidate(
    brain: Brain, duration: float, settings: SimulationSettings
) -> Simulation:
    """`simulate` for a point on the way of a search: nobody is warned of its values,
    which may be outside of their ranges for a moment."""
    volumes = _recorded_volumes(duration, brain.sensor.tr)
    # Rounded up: the whole transient is left out.
    skipped = int(settings.discard / brain.sensor.tr + 0.999999)
    run = _prepared(brain, skipped + volumes, settings)
    outcome = _run(run, settings.engine, settings.threads)
    return _simulation(run, outcome, skipped)


def _prepared(brain: Brain, volumes: int, settings: SimulationSettings) -> Run:
    """All that an engine needs, checked."""
    dt, scheme = settings.dt, settings.scheme
    _check_choice("scheme", scheme, SCHEMES)
    _check_choice("engine", settings.engine, ENGINES)
    state = _first_state(brain, settings)
    check_brain(brain, state.neural)
    _warn_if_coarse(brain, state.neural, dt, scheme)
    # Half of the fastest time: a response must follow what it filters.
    vascular_step = min(settings.vascular_step, _fastest_time(brain, state) / 2)
    per_vascular, per_tr = clock(dt, vascular_step, brain.sensor.tr)
    delays = _delays_in_steps(brain, state, dt)
    run = Run(
        brain,
        state,
        dt,
        per_vascular,
        per_tr,
        volumes,
        scheme,
        settings.seed,
        delays,
        slots=0 if delays is None else history_slots(delays),
        noise=settings.noise,
        first=settings.first,
        show_progress=settings.show_progress,
    )
    _check_history(run)
    _check_noise(run)
    if settings.stimulus is None:
        return run
    return _with_stimulus(run, settings.stimulus)


def _recorded_volumes(duration: float, tr: float) -> int:
    # A whole number of TRs that rounding has put a hair below it counts as whole.
    volumes = int(duration / tr + 1e-9)
    if volumes < 1:
        raise InputError(f"A run must last at least one TR ({tr} s); got {duration} s.")
    return volumes


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")


def _first_state(brain: Brain, settings: SimulationSettings) -> SimulationState:
    start, batch = settings.start, settings.batch
    # The end of an earlier run brings its sensor's state and its clock with it.
    if isinstance(start, SimulationState):
        return start
    if start is None:
        if batch is None:
            batch = _default_batch(brain, settings.stimulus)
        return _settled_state(brain, batch)
    start = brain.batched(start)
    return SimulationState(start, resting(brain.sensor.response, start[0]), 0)


def _settled_state(brain: Brain, batch: tuple[int, ...]) -> SimulationState:
    """Where a run without a start begins."""
    try:
        return _rounded(settled_state(brain, batch))
    # A drift without a derivative, as of a floor division, is a RuntimeError of torch.
    except (ConvergenceError, RuntimeError, NotImplementedError):
        # stacklevel: the line of the user that called `simulate`; so below.
        warnings.warn(
            "No equilibrium was found near this brain's resting values: the run begins "
            "at these, and its beginning is a transient. Leave it out with discard.",
            stacklevel=6,
        )
    start = brain.batched(brain.resting_state(batch))
    return SimulationState(start, resting(brain.sensor.response, start[0]), 0)


def _rounded(state: SimulationState) -> SimulationState:
    """States rounded to a hundred-thousandth of their size, far below their noise.

    An equilibrium that is found together with those of a batch differs in its last
    bits from one that is found alone; a simulation must not.
    """
    return replace(
        state,
        neural=_rounded_tensor(state.neural),
        vascular=_rounded_tensor(state.vascular),
    )


def _rounded_tensor(x: Tensor) -> Tensor:
    # A gradient is that of the equilibrium, and checked against differences.
    if x.requires_grad:
        return x
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(mantissa * 2.0**16) * 2.0**-16, exponent)


def settled_state(brain: Brain, batch: tuple[int, ...]) -> SimulationState:
    """The brain's equilibrium and the sensor's response to it: a run from here has no
    transient but that of the noise. Raises ConvergenceError without an equilibrium."""
    x = fixed_point(brain)
    y = rest_under(brain.sensor.response, brain.mass.activity(x))
    return SimulationState(_expanded(x, batch), _expanded(y, batch), step=0)


def _expanded(
    states: Float[Tensor, "state *members region"], batch: tuple[int, ...]
) -> Float[Tensor, "state *batch region"]:
    """States of some batch members repeated for a whole batch, one copy each."""
    count, region = states.shape[0], states.shape[-1]
    missing = len(batch) + 2 - states.ndim
    aligned = states.reshape(count, *[1] * missing, *states.shape[1:])
    # An expanded tensor shares its memory; every member of a run has its own states.
    return aligned.expand(count, *batch, region).contiguous()


def check_whole_number(name: str, value: object) -> None:
    """Raises InputError unless it is a whole number of 64 bits, not negative."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not 0 <= int(value) < 2**64:  # type: ignore[call-overload]
        raise InputError(f"{name} must be a whole number from 0; got {value!r}.")


def _default_batch(brain: Brain, stimulus: TimeSeries | None) -> tuple[int, ...]:
    # A batch of stimuli makes a batch of runs.
    stimuli = stimulus.data.shape[:-2] if stimulus else ()
    return tuple(torch.broadcast_shapes(brain.batch, stimuli))


def _delays_in_steps(brain: Brain, state: SimulationState, dt: float) -> Tensor | None:
    delays = brain.delays()
    if delays is None:
        return None
    steps = (delays / dt).to(state.neural)
    # Whatever the connectome was made of: the engine reads where these point.
    known = steps.detach()
    if not torch.isfinite(known).all() or (known < 0).any():
        raise InputError(
            "Conduction delays must be finite and not negative; check tract lengths "
            "and speed."
        )
    return steps


def _check_history(run: Run) -> None:
    # Slots are counted in steps: another speed, length or dt would read the wrong one.
    past = run.start.past
    if past is not None and past.shape[0] != run.slots:
        raise InputError(
            f"The start remembers {past.shape[0]} steps of outputs; these delays "
            f"need {run.slots}. Continue with the same lengths, speed and dt."
        )


def _check_noise(run: Run) -> None:
    if run.noise is not None and run.noise.shape[0] < run.steps:
        raise InputError(
            f"Given noise must cover all {run.steps} steps; got {run.noise.shape[0]}."
        )


def _with_stimulus(run: Run, stimulus: TimeSeries) -> Run:
    """The run with the stimulus as rows (row, *batch, region), one for every `hold`
    steps, zero after its end."""
    hold = round(stimulus.tr / run.dt)
    if hold < 1 or not _divides(run.dt, stimulus.tr):
        raise InputError(
            f"A stimulus sample ({stimulus.tr} s) must last a whole number of time "
            f"steps ({run.dt} s)."
        )
    _check_stimulus_regions(run.brain, stimulus)
    needed = math.ceil(run.steps / hold)
    rows = stimulus.data.movedim(-1, 0).to(run.start.neural)[:needed]
    silence = rows.new_zeros(needed - rows.shape[0], *rows.shape[1:])
    return replace(run, stimulus=torch.cat([rows, silence]), hold=hold)


def _check_stimulus_regions(brain: Brain, stimulus: TimeSeries) -> None:
    if stimulus.regions != brain.regions:
        raise InputError(
            f"The stimulus names {len(stimulus.regions)} regions, the brain "
            f"{len(brain.regions)}; they must be the same in the same order."
        )


def _divides(dt: float, duration: float) -> bool:
    """Whether a duration is a whole number of steps, to a millionth of it."""
    return abs(round(duration / dt) * dt - duration) <= 1e-6 * duration


def _run(run: Run, engine: str, threads: int | None) -> Outcome:
    if engine == "reference":
        return run_reference(run)
    try:
        return run_compiled(run, threads=threads)
    except CannotLower as error:
        if engine == "compiled":
            raise InputError(
                f"This brain cannot be compiled: {error}. Use engine='auto' or "
                "'reference'."
            ) from None
        # stacklevel 4: the line of the user that called `simulate`.
        warnings.warn(
            "Running in plain torch, which is slow: the compiler does not know "
            f"{error}.",
            stacklevel=4,
        )
        return run_reference(run)


def _simulation(run: Run, outcome: Outcome, skipped: int) -> Simulation:
    """What the sensor recorded after the volumes that are discarded."""
    sensor = run.brain.sensor
    # Discarded volumes draw measurement noise too, so that a longer transient leaves
    # the noise of a later time as it is.
    signal = _recorded(run, outcome.bold)[skipped:].movedim(0, -1)
    channels = sensor.channels or run.brain.regions
    series = TimeSeries(signal, sensor.tr, channels, sensor.unit)
    return Simulation(series, outcome.activity[skipped:].mean(0), outcome.end)


def _recorded(
    run: Run, signal: Float[Tensor, "volume *batch region"]
) -> Float[Tensor, "volume *batch channel"]:
    """The signal of every channel, with the sensor's own noise (a stream of its own,
    one draw per volume)."""
    sensor = run.brain.sensor
    signal = sensor.project(signal)
    # Noise is drawn for a tensor of zeros: it may be a parameter with a gradient.
    if not isinstance(sensor.noise, Tensor) and sensor.noise == 0:
        return signal
    return signal + as_tensor_like(sensor.noise, signal) * _sensor_noise(run, signal)


def _sensor_noise(run: Run, signal: Tensor) -> Tensor:
    """Standard normal numbers, one for every value of the signal."""
    first_volume = run.start.step // (run.per_tr * run.per_vascular)
    stream = run.seed ^ SENSOR_STREAM
    draws = standard_normal(stream, 1, signal[0], first_volume, run.first)
    return torch.cat(list(itertools.islice(draws, signal.shape[0])))


def time_step(tr: float, wanted: float = 0.002) -> float:
    """The time step nearest below `wanted` (s) of which the TR is a whole number."""
    return tr / math.ceil(tr / wanted - 1e-9)


def clock(dt: float, vascular_step: float, tr: float) -> tuple[int, int]:
    """Neural steps per haemodynamic step, and haemodynamic steps per TR.

    Raises InputError if the TR is not a whole number of neural steps: then the
    simulated TR would be another one.
    """
    steps = round(tr / dt)
    if steps < 1 or not _divides(dt, tr):
        raise _indivisible_tr(dt, tr)
    # Haemodynamic steps must divide the TR, so that volumes end with one.
    per_vascular = _largest_divisor(steps, max(1, round(vascular_step / dt)))
    return per_vascular, steps // per_vascular


def _indivisible_tr(dt: float, tr: float) -> InputError:
    near_a_millisecond = tr / max(1, round(tr / 0.001))
    return InputError(
        f"The TR ({tr} s) must be a whole number of time steps; dt = {dt} s gives "
        f"{tr / dt:.4f}. Take for example dt = {near_a_millisecond!r}."
    )


def _largest_divisor(n: int, limit: int) -> int:
    """The largest divisor of n up to a limit."""
    return max(k for k in range(1, limit + 1) if n % k == 0)


def _fastest_time(brain: Brain, state: SimulationState) -> float:
    """Shortest time constant (s) of the sensor's response near its rest."""
    response = brain.sensor.response
    still = torch.zeros_like(state.neural[0].detach())
    jacobian = local_drift(response, resting(response, still), still).jacobian
    fastest_rate = torch.linalg.eigvals(jacobian).abs().max().item()
    return 1 / fastest_rate


def _warn_if_coarse(brain: Brain, x: Tensor, dt: float, scheme: str) -> None:
    try:
        limit = largest_local_step(brain, x, scheme)
    # torch has no derivative of some operations (a floor division, say), and the
    # equations can be run without one.
    except (RuntimeError, NotImplementedError):
        return
    if dt > limit:
        warnings.warn(
            f"dt = {dt} s is longer than this brain allows: explicit steps are stable "
            f"below {limit:.4g} s.",
            stacklevel=5,
        )


def largest_local_step(brain: Brain, x: Tensor, scheme: str = "euler") -> float:
    """The longest explicit step (s) under which every decaying local mode at x still
    decays.

    Euler's is 2 |Re λ| / |λ|², which a weakly damped oscillation makes very short;
    Heun's has no such form and is found to a hundredth, by trying steps up to 2 / |λ|.
    """
    rates = local_rates(brain, x)
    # Growing modes grow under any step.
    decaying = rates[rates.real < 0]
    if not decaying.numel():
        return float("inf")
    if scheme == "euler":
        return _largest_euler_step(decaying)
    return _largest_heun_step(decaying)


def _largest_euler_step(rates: Tensor) -> float:
    # |1 + λ dt| = 1, solved for dt.
    return (-2 * rates.real / rates.abs() ** 2).min().item()


def _largest_heun_step(rates: Tensor) -> float:
    hundredths = torch.linspace(0.01, 1.0, 100).to(rates.real)
    steps = (2 / rates.abs()).unsqueeze(-1) * hundredths
    z = rates.unsqueeze(-1) * steps
    # The factor by which a mode grows in one of Heun's steps.
    grows = (1 + z + z**2 / 2).abs() > 1
    return steps.masked_fill(~grows, torch.inf).amin(-1).min().item()
