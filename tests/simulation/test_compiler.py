"""The compiled engine gives what the reference gives: values to 1e-12, gradients to
1e-9, for every mass."""

import math
import subprocess
import sys
import tracemalloc
import warnings
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from cingulum.brain import Brain, Connectome, masses, with_values
from cingulum.brain.dynamics import Dynamics, State, Value, param, parameters
from cingulum.brain.sensor import Sensor
from cingulum.errors import ConvergenceError, InputError
from cingulum.simulation import compiler, simulate
from cingulum.simulation.compiler import kernels, machine_code
from cingulum.simulation.compiler.ir import NumberType
from cingulum.timeseries import TimeSeries

MASSES = [getattr(masses, name)() for name in masses.__all__]


@dataclass(frozen=True, eq=False)
class ThreePathways(Dynamics):
    """A mass as a user might write it in a script: three coupling variables, one of
    them read with a lag."""

    rate: Value = param(8.0, "1/s", 1.0, 20.0, "decay")
    gain: Value = param(0.7, "1", 0.0, 2.0, "gain")

    states: ClassVar = (State("a", 0.1), State("b", 0.0), State("c", 0.2, -1.0, 1.0))
    couplings: ClassVar = 3

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        a, b, c = x
        p, q, r = u
        da = -self.rate * a + torch.tanh(self.gain * p) + torch.sin(b)
        db = -self.rate * b + torch.nn.functional.softplus(q - a) - torch.log1p(c * c)
        dc = -self.rate * (c - 0.1) + torch.exp(-(r**2)) / (1 + a.abs()) ** 1.5
        return torch.stack([da, db, dc])

    def output(self, x: Tensor) -> Tensor:
        return torch.stack([x[0], torch.sigmoid(x[1]), x[2] - x[0]])

    def activity(self, x: Tensor) -> Tensor:
        return 0.1 + 0.2 * x[0] ** 2


ALL = [*MASSES, ThreePathways()]


def name(mass):
    return type(mass).__name__


def brain_of(
    mass,
    n=19,
    batch=(),
    delays=False,
    regional=True,
    weights_each=False,
    dtype=torch.float64,
):
    rng = torch.Generator().manual_seed(n)

    def draw(*shape):
        return torch.rand(*shape, generator=rng, dtype=torch.float64)

    raw = draw(*(batch if weights_each else ()), n, n)
    connectome = Connectome(raw + raw.mT, tuple(f"r{i}" for i in range(n))).normalised()
    lengths = 40 * draw(n, n)
    connectome = Connectome(
        connectome.weights.to(dtype),
        connectome.regions,
        (lengths + lengths.T).to(dtype),
    )
    brain = Brain(mass, connectome, Sensor(tr=0.08), strength=0.4, noise=0.02)
    first = next(iter(parameters(mass)))
    value = getattr(mass, first) * (0.9 + 0.2 * draw(n if regional else 1))
    brain = with_values(
        brain,
        {
            f"mass.{first}": value.to(dtype),
            "sensor.response.tau": torch.tensor(0.9, dtype=dtype),
        },
    )
    if batch:
        brain = with_values(
            brain, {"strength": (0.3 + 0.2 * draw(*batch, 1)).to(dtype)}
        )
    return (
        with_values(brain, {"speed": torch.tensor(3.0, dtype=dtype)})
        if delays
        else brain
    )


SETTINGS = {"dt": 0.004, "vascular_step": 0.02, "seed": 11}


def wave(brain, samples=9):
    rng = torch.Generator().manual_seed(1)
    data = 0.05 * torch.rand(
        len(brain.regions), samples, generator=rng, dtype=torch.float64
    )
    return TimeSeries(data, 0.02, brain.regions)


def everything(
    brain, how, *, batch=None, scheme="euler", stimulated=False, duration=0.32
):
    """BOLD, activity and end, and the gradient of a number made of them by every
    input."""
    leaves = {
        "weights": brain.connectome.weights,
        "strength": torch.as_tensor(brain.strength),
    }
    leaves |= {
        k: getattr(brain.mass, k)
        for k in parameters(brain.mass)
        if isinstance(getattr(brain.mass, k), Tensor)
    }
    leaves |= {
        "tau": brain.sensor.response.tau,
        "noise": torch.tensor(0.02, dtype=torch.float64),
    }
    if isinstance(brain.speed, Tensor):
        leaves["speed"] = brain.speed
    stimulus = wave(brain) if stimulated else None
    if stimulus:
        leaves["stimulus"] = stimulus.data
    start = brain.resting_state(batch) + 0.01
    leaves["start"] = start
    leaves = {k: v.clone().requires_grad_() for k, v in leaves.items()}
    paths = {k: f"mass.{k}" for k in parameters(brain.mass)} | {
        "tau": "sensor.response.tau"
    }
    direct = {
        paths.get(k, k): v
        for k, v in leaves.items()
        if k not in ("weights", "stimulus", "start")
    }
    changed = with_values(brain, direct)
    # Past the symmetry check of a connectome, so that every weight has a gradient of
    # its own.
    free = Connectome(brain.connectome.weights, brain.regions, brain.connectome.lengths)
    object.__setattr__(free, "weights", leaves["weights"])
    if stimulus:
        stimulus = TimeSeries(leaves["stimulus"], stimulus.tr, stimulus.regions)
    run = simulate(
        with_values(changed, {"connectome": free}),
        duration,
        start=leaves["start"],
        stimulus=stimulus,
        scheme=scheme,
        engine=how,
        **SETTINGS,
    )
    made = [run.bold.data, run.activity, run.end.neural, run.end.vascular]
    rng = torch.Generator().manual_seed(5)
    number = sum(
        (v * torch.rand(v.shape, generator=rng, dtype=torch.float64)).sum()
        for v in made
    )
    return made, dict(
        zip(leaves, torch.autograd.grad(number, list(leaves.values())), strict=True)
    )


def assert_same(brain, **options):
    (values, gradients), (expected, exact) = (
        everything(brain, e, **options) for e in ("compiled", "reference")
    )
    for value, right in zip(values, expected, strict=True):
        torch.testing.assert_close(
            value, right, rtol=1e-12, atol=1e-13 * max(1.0, right.abs().max().item())
        )
    for key, right in exact.items():
        scale = right.abs().max()
        assert scale > 0, key
        torch.testing.assert_close(
            gradients[key] / scale,
            right / scale,
            rtol=0,
            atol=1e-9,
            msg=lambda m, k=key: k + m,
        )


@pytest.mark.parametrize("delays", [False, True], ids=["direct", "delayed"])
@pytest.mark.parametrize("batch", [None, (5,)], ids=["one", "five"])
@pytest.mark.parametrize("mass", ALL, ids=name)
def test_compiled_equals_reference(mass, batch, delays):
    assert_same(brain_of(mass, batch=batch or (), delays=delays), batch=batch)


@pytest.mark.parametrize("delays", [False, True], ids=["direct", "delayed"])
@pytest.mark.parametrize("mass", ALL, ids=name)
def test_heun_with_a_stimulus(mass, delays):
    assert_same(
        brain_of(mass, batch=(3,), delays=delays),
        batch=(3,),
        scheme="heun",
        stimulated=True,
    )


@pytest.mark.parametrize("mass", ALL, ids=name)
def test_a_large_batch(mass):
    assert_same(brain_of(mass, n=7, batch=(64,)), batch=(64,), duration=0.16)


def test_one_connectome_each_and_a_batch_of_two_axes():
    assert_same(
        brain_of(masses.ReducedWongWang(), n=7, batch=(3,), weights_each=True),
        batch=(3,),
    )
    assert_same(
        brain_of(ThreePathways(), n=7, batch=(3,), weights_each=True, delays=True),
        batch=(3,),
    )
    assert_same(brain_of(masses.WilsonCowan(), n=7, batch=(2, 3)), batch=(2, 3))


def test_many_segments_and_checkpoints():
    """Runs longer than a segment, with delays longer than a TR."""
    brain = with_values(
        brain_of(masses.ReducedWongWang(), n=5, delays=True),
        {"speed": torch.tensor(0.5, dtype=torch.float64)},
    )
    assert_same(brain, duration=2.4)
    assert_same(brain_of(masses.ReducedWongWang(), n=5), duration=2.4)


def test_gradients_by_finite_differences():
    brain = brain_of(masses.ReducedWongWang(), n=5, delays=True)

    def signal(speed, strength, w):
        changed = with_values(
            brain, {"speed": speed, "strength": strength, "mass.tau_E": w}
        )
        return simulate(changed, 0.16, engine="compiled", **SETTINGS).bold.data

    values = [torch.tensor(3.0), torch.tensor(0.4), torch.full((5,), 0.1)]
    assert torch.autograd.gradcheck(
        signal, [v.clone().requires_grad_() for v in values], atol=1e-6
    )


@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3"])
def test_older_processors_give_the_same_numbers(cpu, monkeypatch):
    if "x86_64" not in machine_code.llvm.get_process_triple():
        pytest.skip("these are x86 processors")
    monkeypatch.setattr(machine_code, "host", lambda: machine_code.older(cpu))
    assert_same(brain_of(ThreePathways(), delays=True, batch=(2,)), batch=(2,))
    assert_same(brain_of(masses.ReducedWongWang(), batch=(9,)), batch=(9,))


def test_single_precision_follows_double():
    runs = [
        simulate(
            brain_of(masses.ReducedWongWang(), dtype=d),
            0.8,
            engine="compiled",
            start=None,
            **SETTINGS,
        ).bold.data
        for d in (torch.float32, torch.float64)
    ]
    assert runs[0].dtype == torch.float32
    torch.testing.assert_close(runs[0].double(), runs[1], rtol=2e-3, atol=2e-5)


def test_threads_and_blocks_do_not_change_a_simulation():
    brain = brain_of(masses.ReducedWongWang(), n=7, batch=(20,))
    one, two = (
        simulate(brain, 0.32, threads=t, engine="compiled", **SETTINGS).bold.data
        for t in (1, 2)
    )
    alone = simulate(
        with_values(brain, {"strength": brain.strength[:1]}),
        0.32,
        engine="compiled",
        **SETTINGS,
    ).bold.data
    assert torch.equal(one, two) and torch.equal(one[:1], alone)


def test_continuing_with_delays_equals_one_long_run_bit_for_bit():
    brain = brain_of(masses.ReducedWongWang(), delays=True)
    for how in ("compiled", "reference"):
        whole = simulate(brain, 0.64, engine=how, **SETTINGS)
        half = simulate(brain, 0.32, engine=how, **SETTINGS)
        rest = simulate(brain, 0.32, engine=how, start=half.end, **SETTINGS)
        assert torch.equal(
            torch.cat([half.bold.data, rest.bold.data], -1), whole.bold.data
        ), how


def test_given_noise_is_used():
    brain, steps = brain_of(masses.ReducedWongWang(), n=5), 80
    noise = torch.randn(steps, 2, 5, generator=torch.Generator().manual_seed(0))
    runs = [
        simulate(brain, 0.32, engine=e, noise=noise, **SETTINGS).bold.data
        for e in ("compiled", "reference")
    ]
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_ten_minutes_fits_in_200_mb():
    """100 regions at 1 ms, 6e5 steps, float64: plain torch would keep about 30 GB (252
    bytes a region and step)."""
    brain = with_values(
        brain_of(masses.ReducedWongWang(), n=100),
        {"strength": torch.tensor(0.3, requires_grad=True)},
    )
    tracemalloc.start()
    run = simulate(brain, 600.0, dt=0.001, vascular_step=0.01, engine="compiled")
    run.bold.data.square().mean().backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert torch.isfinite(brain.strength.grad) and peak < 200e6


@dataclass(frozen=True, eq=False)
class Mixing(Dynamics):
    """A mass that breaks the rule that regions do not see each other."""

    rate: Value = param(8.0, "1/s", 1.0, 20.0, "decay")
    states: ClassVar = (State("a", 0.1),)

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        (received,) = u
        return -self.rate * (x - x.mean(-1, keepdim=True)) + received

    def output(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


def test_what_cannot_be_compiled_runs_in_the_reference_with_one_warning():
    brain = with_values(
        brain_of(masses.ReducedWongWang(), n=5),
        {"mass": Mixing(rate=torch.tensor(8.0))},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = brain.resting_state()
        run = simulate(brain, 0.16, start=start, **SETTINGS)
    assert len(caught) == 1 and "mean" in str(caught[0].message)
    reference = simulate(brain, 0.16, engine="reference", start=start, **SETTINGS)
    assert torch.equal(run.bold.data, reference.bold.data)
    with pytest.raises(InputError, match="cannot be compiled"):
        simulate(brain, 0.16, engine="compiled", **SETTINGS)


@dataclass(frozen=True, eq=False)
class Exploding(Dynamics):
    rate: Value = param(1.0, "1/s", 0.0, 1e3, "growth")
    states: ClassVar = (State("a", 0.1),)

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        return self.rate * x**3

    def output(self, x: Tensor) -> Tensor:
        return x * 0.0


def test_divergence_names_step_and_region_alike_in_both_engines():
    rate = torch.ones(5).index_fill(0, torch.tensor([3]), 3000.0)
    brain = with_values(
        brain_of(masses.ReducedWongWang(), n=5),
        {"mass": Exploding(rate=rate), "noise": 0.0},
    )
    said = []
    for how in ("compiled", "reference"):
        with (
            pytest.raises(ConvergenceError, match="first in region 'r3'") as caught,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            start = brain.resting_state()
            simulate(brain, 1.6, engine=how, start=start, **SETTINGS)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_a_damaged_cache_entry_is_thrown_away(tmp_path, monkeypatch):
    monkeypatch.setenv("CINGULUM_CACHE", str(tmp_path))
    monkeypatch.setattr(kernels, "_kernels", {})
    brain = brain_of(masses.WilsonCowan(), n=5)
    first = simulate(brain, 0.16, engine="compiled", **SETTINGS).bold.data
    (entry,) = tmp_path.glob("*.o")
    whole = entry.read_bytes()
    for damage in (b"", whole[:100], whole[:-1] + bytes([whole[-1] ^ 1])):
        entry.write_bytes(damage)
        assert machine_code.read(entry) is None and not entry.exists()
        monkeypatch.setattr(kernels, "_kernels", {})
        assert torch.equal(
            simulate(brain, 0.16, engine="compiled", **SETTINGS).bold.data, first
        )
        assert entry.read_bytes() == whole


def random_mass(seed: int) -> Dynamics:
    """A mass whose drift is a random smooth expression of the operations that the
    engine knows."""
    rng = torch.Generator().manual_seed(seed)

    def pick(n):
        return int(torch.randint(n, (), generator=rng))

    single = [
        torch.sin,
        torch.cos,
        torch.tanh,
        torch.sigmoid,
        torch.nn.functional.softplus,
        torch.square,
    ]
    single += [
        lambda a: torch.exp(-a * a),
        lambda a: torch.log1p(a * a),
        lambda a: (1 + a * a).sqrt(),
    ]
    single += [
        lambda a: torch.log(2 + a * a),
        lambda a: (1 + a * a).pow(-1.3),
        lambda a: torch.expm1(torch.tanh(a)),
    ]
    single += [
        lambda a: 1 / (1 + a * a),
        lambda a: a.clamp(-3, 3),
        lambda a: torch.where(a > 9, a * a, a),
    ]
    pair = [
        torch.add,
        torch.mul,
        torch.sub,
        lambda a, b: a / (2 + b.cos()),
        lambda a, b: torch.lerp(a, b, 0.3),
    ]
    pair += [
        lambda a, b: torch.maximum(a, b - 9),
        lambda a, b: torch.stack([a, b]).sum(0),
    ]
    plan = [(pick(len(single)), pick(len(pair)), pick(4), pick(4)) for _ in range(6)]

    @dataclass(frozen=True, eq=False)
    class Random(Dynamics):
        k: Value = param(0.5, "1", 0.0, 1.0, "anything")

        states: ClassVar = (State("a", 0.1), State("b", 0.2))

        def drift(self, x: Tensor, u: Tensor) -> Tensor:
            (received,) = u
            values = [x[0], x[1], received, self.k * x[0]]
            for one, two, i, j in plan:
                values[i] = single[one](pair[two](values[i], values[j]))
            return torch.stack(
                [
                    -4 * x[0] + values[0].tanh(),
                    -4 * x[1] + (values[1] + self.k * values[2]).tanh(),
                ]
            )

        def output(self, x: Tensor) -> Tensor:
            return (x[0] + self.k * x[1])[None]

        def activity(self, x: Tensor) -> Tensor:
            return 0.1 * torch.sigmoid(x[0])

    return Random()


@pytest.mark.parametrize("seed", range(12))
def test_random_step_functions(seed):
    assert_same(brain_of(random_mass(seed), n=6), duration=0.16)


@dataclass(frozen=True, eq=False)
class Powers(Dynamics):
    """Powers of negative numbers, with exponents that are parameters or too large to be
    multiplied out."""

    n: Value = param(3.0, "1", 1.0, 4.0, "odd exponent")
    m: Value = param(2.0, "1", 1.0, 4.0, "even exponent")
    states: ClassVar = (State("a", -0.4),)

    def drift(self, x: Tensor, u: Tensor) -> Tensor:
        (received,) = u
        return -4 * (x + 0.4) + 0.5 * x**self.n - x**self.m + x**10 + 0.1 * received

    def output(self, x: Tensor) -> Tensor:
        return x


def test_powers_of_negative_numbers():
    brain = with_values(brain_of(masses.ReducedWongWang(), n=5), {"mass": Powers()})
    runs = [
        simulate(brain, 0.32, engine=how, **SETTINGS).bold.data
        for how in ("compiled", "reference")
    ]
    torch.testing.assert_close(*runs, rtol=1e-12, atol=1e-14)
    assert torch.isfinite(runs[0]).all() and runs[0].std() > 0


def test_the_generated_code_can_be_seen():
    brain = brain_of(masses.ReducedWongWang(), n=5)
    assert "mass.tau_E" in compiler.show(brain) and "define" in compiler.show(
        brain, "llvm"
    )
    assert "forward" in compiler.show(brain, "assembly")
    with pytest.raises(InputError, match="must be one of"):
        compiler.show(brain, "pictures")


def test_a_brain_without_tract_lengths_cannot_have_delays():
    brain = brain_of(masses.ReducedWongWang(), n=5)
    plain = Connectome(brain.connectome.weights, brain.regions)
    with pytest.raises(InputError, match="tract lengths"):
        simulate(
            with_values(brain, {"connectome": plain, "speed": 3.0}), 0.16, **SETTINGS
        )


INTERRUPTED = """
import signal, sys, time, threading, os
import torch
from cingulum import Brain, Connectome, ReducedWongWang, simulate
raw = torch.ones(60, 60)
connectome = Connectome(raw, tuple(map(str, range(60)))).normalised()
brain = Brain(ReducedWongWang(), connectome, strength=0.1)
simulate(brain, 0.72, batch=(16,), engine="compiled")
# A shell lets what it starts in the background ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
sent = []
def send():
    time.sleep(1.0)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send).start()
try:
    simulate(brain, 36000.0, batch=(16,), engine="compiled", threads=int(sys.argv[1]))
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_an_interrupt_comes_through_within_a_second(threads):
    """Ten hours of sixteen brains, interrupted after a second; five seconds are allowed
    on a busy machine."""
    told = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, threads],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert float(told.stdout) < 5.0


def test_constants_beyond_float32_are_the_largest_and_infinity_stays():
    single = NumberType(32, 8)
    assert single.literal(math.inf) == "0x7FF0000000000000"
    assert single.literal(1e300) == single.literal(torch.finfo(torch.float32).max)
