"""How long does one step of one region take? Compiled engine, its plain-torch
reference, and peers, in one run.

    python benchmarks/engine.py [--json FILE] [--quick]

Two-state reduced Wong-Wang with the guarded transfer function, noise drawn in the loop,
haemodynamics every ten steps of 1 ms. Gradients are those of coupling, all weights,
inhibition, recurrent excitation, NMDA decay and noise. Times are processor seconds of
one thread (wall seconds for two threads). Peers are shown where they are installed: JAX
with the same equations; vbjax and tvboptim with the neural ones alone; neurolib with
its own Wong-Wang model, without BOLD.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import numpy as np
import torch

from cingulum.brain import Brain, Connectome, Sensor, with_values
from cingulum.brain.masses import ReducedWongWang
from cingulum.measures import pearson
from cingulum.simulation import balanced, simulate

DTYPES = {"float32": torch.float32, "float64": torch.float64}
TR, DT = 0.1, 0.001
PER_VOLUME = 100


def connectome(n: int) -> Connectome:
    raw = torch.rand(
        n, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    raw = raw * (raw > 0.7)
    return Connectome(raw + raw.T, tuple(map(str, range(n)))).normalised()


def brain(
    n: int, batch: int, dtype: torch.dtype, gradient: bool
) -> tuple[Brain, list[torch.Tensor]]:
    """A brain, and the tensors by which its signal is differentiated."""
    base = balanced(
        Brain(ReducedWongWang(), connectome(n), Sensor(tr=TR), strength=0.3)
    )
    values = {
        "strength": torch.full((batch, 1), 0.3),
        "noise": torch.full((n,), 0.01),
        "mass.J_i": torch.as_tensor(base.mass.J_i),
        "mass.w_plus": torch.full((n,), 1.4),
        "mass.tau_E": torch.full((n,), 0.1),
    }
    for path, value in values.items():
        leaf = value.detach().to(dtype).clone()
        values[path] = leaf.requires_grad_(gradient)
    weights = base.connectome.weights.to(dtype).requires_grad_(gradient)
    joined = Connectome(weights, base.regions)
    changed = with_values(base, {**values, "connectome": joined})
    return changed, [*values.values(), joined.weights]


def ours(
    engine: str,
    n: int,
    batch: int,
    dtype: str,
    gradient: bool,
    steps: int,
    *,
    threads: int | None = None,
) -> Callable[[], Any]:
    """One run of our engine, to be timed."""
    subject, leaves = brain(n, batch, DTYPES[dtype], gradient)
    rest = [
        torch.full((batch, n), state.rest, dtype=DTYPES[dtype])
        for state in subject.mass.states
    ]
    start = torch.stack(rest)

    def simulate_once() -> Any:
        with torch.set_grad_enabled(gradient):
            run = simulate(
                subject,
                steps * DT,
                dt=DT,
                start=start,
                engine=engine,
                threads=threads,
            )
            if not gradient:
                return run
            return torch.autograd.grad(run.bold.data.square().sum(), leaves)

    return simulate_once


def jax_equations(
    n: int, batch: int, dtype: str
) -> tuple[Callable, Callable, tuple, Any, Any]:
    """Drift of the network, haemodynamics, parameters and both resting states, as JAX
    functions and arrays."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    subject, leaves = brain(n, batch, DTYPES[dtype], False)
    m, r = subject.mass, subject.sensor.response

    def transfer(current, a, b, d):
        drive = a * current - b + 1e-30
        u = jnp.clip(d * drive, -60.0, None)
        near = jnp.abs(u) < 0.25
        v = jnp.where(near, u, 0.1)
        w = v * v
        series = (
            1
            + v / 2
            + w / 12 * (1 - w / 60 * (1 - w / 42 * (1 - w / 40 * (1 - w * 5 / 198))))
        )
        far = jnp.where(near, 1.0, u)
        return jnp.where(near, series, far / -jnp.expm1(-far)) / d

    def drift(x, p):
        strength, noise, J_i, w_plus, tau_E, weights = p
        S_E, S_I = x
        u = strength * (S_E @ weights.T)
        r_E = transfer(
            m.W_E * m.I_0 + m.J_N * (w_plus * S_E + u) - J_i * S_I, m.a_E, m.b_E, m.d_E
        )
        r_I = transfer(m.W_I * m.I_0 + m.J_N * S_E - S_I, m.a_I, m.b_I, m.d_I)
        return jnp.stack(
            [
                -S_E / tau_E + (1 - S_E) * m.gamma_E * r_E,
                -S_I / m.tau_I + m.gamma_I * r_I,
            ]
        )

    def vascular(y, drive):
        s, f, v, q = y
        out = v ** (1 / r.alpha)
        extraction = (1 - (1 - r.rho) ** (1 / f)) / r.rho
        slope = [
            drive - r.kappa * s - r.gamma * (f - 1),
            s,
            (f - out) / r.tau,
            (f * extraction - out * q / v) / r.tau,
        ]
        after = y + 10 * DT * jnp.stack(slope)
        return jnp.concatenate([after[:1], jnp.maximum(after[1:], 0.05)])

    p = tuple(jnp.asarray(leaf.detach().numpy()) for leaf in leaves)
    x, y = (
        jnp.stack([jnp.full((batch, n), s.rest, p[-1].dtype) for s in part.states])
        for part in (m, r)
    )
    return drift, vascular, p, x, y


def jax_scan(
    n: int, batch: int, dtype: str, gradient: bool, steps: int
) -> Callable[[], Any]:
    """The same equations as a JAX `lax.scan`, compiled by XLA, checkpointed every
    haemodynamic step."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    drift, vascular, p, x, y = jax_equations(n, batch, dtype)

    def neural(x, key, p):
        kick = p[1] * math.sqrt(DT) * jax.random.normal(key, x.shape, x.dtype)
        return jnp.clip(x + DT * drift(x, p) + kick, 0.0, 1.0)

    @jax.checkpoint
    def outer(carry, key, p):
        def inner(x, key):
            x = neural(x, key, p)
            return x, x[0]

        x, driven = lax.scan(inner, carry[0], jax.random.split(key, 10))
        return (x, vascular(carry[1], driven.mean(0))), carry[1][3]

    def loss(p, key):
        _, q = lax.scan(
            lambda c, k: outer(c, k, p), (x, y), jax.random.split(key, steps // 10)
        )
        return (q**2).sum()

    run, key = (
        jax.jit(jax.value_and_grad(loss) if gradient else loss),
        jax.random.key(0),
    )
    return lambda: jax.block_until_ready(run(p, key))


def vbjax_sde(
    n: int, batch: int, dtype: str, gradient: bool, steps: int
) -> Callable[[], Any]:
    """The neural equations alone in vbjax's `make_sde` (Heun: two evaluations a step;
    noise drawn before)."""
    import jax
    import vbjax

    drift, _, p, x, _ = jax_equations(n, batch, dtype)
    _, loop = vbjax.make_sde(DT, lambda x, p: drift(x, p), 0.01)
    z = vbjax.randn(steps, *x.shape).astype(x.dtype)

    def loss(p):
        return (loop(x, z, p)[:, 0] ** 2).sum()

    run = jax.jit(jax.value_and_grad(loss) if gradient else loss)
    return lambda: jax.block_until_ready(run(p))


def tvboptim_network(
    n: int, batch: int, dtype: str, gradient: bool, steps: int
) -> Callable[[], Any]:
    """The same neural equations as tvboptim ships them (Euler, its own noise, no BOLD),
    one simulation."""
    import equinox
    import jax
    import jax.numpy as jnp
    from tvboptim.experimental.network_dynamics import Network, prepare
    from tvboptim.experimental.network_dynamics.coupling import LinearCoupling
    from tvboptim.experimental.network_dynamics.dynamics.tvb import WongWangExcInh
    from tvboptim.experimental.network_dynamics.graph import DenseGraph
    from tvboptim.experimental.network_dynamics.noise import AdditiveNoise
    from tvboptim.experimental.network_dynamics.solvers import Euler

    _, _, (strength, noise, J_i, w_plus, tau_E, weights), _, _ = jax_equations(
        n, batch, dtype
    )
    coupling = {"instant": LinearCoupling(incoming_states="S_e", G=0.3)}
    network = Network(
        WongWangExcInh(), coupling, DenseGraph(weights), noise=AdditiveNoise(sigma=0.01)
    )
    simulator, fixed = prepare(
        network, Euler(), t0=0.0, t1=1000 * DT * steps, dt=1000 * DT
    )

    def loss(p):
        q = jax.tree.map(lambda leaf: leaf, fixed)
        (
            q.coupling.instant.G,
            q.dynamics.J_i,
            q.dynamics.w_p,
            q.dynamics.tau_e,
            q.noise.sigma,
        ) = p[:5]
        q.graph = equinox.tree_at(lambda graph: graph.weights, fixed.graph, p[5])
        return (simulator(q).ys[:, 0] ** 2).sum()

    p = (
        strength[0, 0],
        J_i.reshape(-1),
        w_plus,
        1000 * tau_E,
        jnp.asarray(0.01, strength.dtype),
        weights,
    )
    run = jax.jit(jax.value_and_grad(loss) if gradient else loss)
    return lambda: jax.block_until_ready(run(p))


def neurolib_ww(
    n: int, batch: int, dtype: str, gradient: bool, steps: int
) -> Callable[[], Any]:
    """neurolib's Wong-Wang model (Numba, float64, no BOLD), one simulation."""
    from neurolib.models.ww import WWModel

    model = WWModel(Cmat=connectome(n).weights.numpy(), Dmat=np.zeros((n, n)), seed=0)
    model.params["duration"], model.params["dt"] = steps * 1000 * DT, 1000 * DT
    return model.run


@dataclass(frozen=True)
class Case:
    """One row of the table: the size of a brain, its number type, and whether gradients
    are timed, too."""

    n: int
    batch: int
    dtype: str
    gradient: bool

    @property
    def mode(self) -> str:
        return "gradient" if self.gradient else "forward"

    def steps(self, engine: str) -> int:
        """Enough for about a tenth of a second, in whole volumes."""
        region_steps = {"compiled": 1e7, "reference": 1}.get(engine, 1e6)
        if self.gradient:
            region_steps /= 3
        volumes = round(region_steps / (self.n * self.batch * PER_VOLUME))
        return PER_VOLUME * min(200, max(1, volumes))

    def engines(self, peers: list[str]) -> list[str]:
        able = [peer for peer in peers if self.is_done_by(peer)]
        return ["compiled", "reference", *able]

    def is_done_by(self, peer: str) -> bool:
        """Whether a peer does this at all (and in a sensible time)."""
        if peer == "neurolib":
            return self.batch == 1 and self.dtype == "float64" and not self.gradient
        if peer == "tvboptim":
            return self.batch == 1
        return self.batch < 64


@dataclass(frozen=True)
class Timing:
    """Nanoseconds per region and step."""

    case: Case
    engine: str
    nanoseconds: float

    def to_dict(self) -> dict[str, str | int | float]:
        return {
            "engine": self.engine,
            "mode": self.case.mode,
            "N": self.case.n,
            "B": self.case.batch,
            "dtype": self.case.dtype,
            "ns_per_node_step": self.nanoseconds,
        }


PEERS: dict[str, tuple[str, Callable]] = {
    "jax": ("jax", jax_scan),
    "vbjax": ("vbjax", vbjax_sde),
    "tvboptim": ("tvboptim", tvboptim_network),
    "neurolib": ("neurolib", neurolib_ww),
}
"""Their packages, and what makes a run to be timed."""


def installed() -> list[str]:
    return [
        name
        for name, (package, _) in PEERS.items()
        if importlib.util.find_spec(package)
    ]


def seconds(
    run: Callable[[], Any],
    repeats: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> float:
    """The least of several timings: what else the machine does only adds."""
    # The first run compiles.
    run()
    timings = []
    for _ in range(repeats):
        began = clock()
        run()
        timings.append(clock() - began)
    return min(timings)


def matmul_bound(dtype: str) -> float:
    """Billions of operations a second that one thread reaches in a large matrix
    product."""
    a, b = (torch.randn(1024, 1024, dtype=DTYPES[dtype]) for _ in range(2))
    return 2 * 1024**3 / seconds(lambda: a @ b, 5) / 1e9


def cases(quick: bool) -> list[Case]:
    sizes = (100,) if quick else (68, 100, 200, 400)
    batches = (1, 8) if quick else (1, 8, 64)
    grid = itertools.product(sizes, batches, DTYPES, (False, True))
    return [Case(*values) for values in grid]


def measure(case: Case, engine: str) -> Timing:
    steps = case.steps(engine)
    options = (case.n, case.batch, case.dtype, case.gradient, steps)
    if engine in PEERS:
        run = PEERS[engine][1](*options)
    else:
        run = ours(engine, *options)
    # The reference takes minutes; its variation does not matter beside the factor.
    repeats = 1 if engine == "reference" else 3
    per_region_and_step = seconds(run, repeats) / (steps * case.n * case.batch)
    return Timing(case, engine, per_region_and_step * 1e9)


def measure_all(quick: bool, peers: list[str]) -> list[Timing]:
    timings = []
    for case in cases(quick):
        of_case = [measure(case, engine) for engine in case.engines(peers)]
        print_row(case, of_case)
        timings += of_case
    return timings


def print_row(case: Case, timings: list[Timing]) -> None:
    own, *others = timings
    ratios = [f"{t.engine} {t.nanoseconds / own.nanoseconds:.1f}×" for t in others]
    print(
        f"{case.n:4d} {case.batch:3d} {case.dtype} {case.mode:9s} "
        f"{own.nanoseconds:8.2f}      {'  '.join(ratios)}",
        flush=True,
    )


FIRST_CALL = """
import sys, time
a = time.perf_counter()
import torch, cingulum.simulation.compiler
torch.set_num_threads(1)
sys.path.insert(0, "benchmarks")
import engine
b = time.perf_counter()
engine.ours("compiled", 100, 1, "float32", {gradient}, 100)()
print(b - a, time.perf_counter() - b)
"""


def first_calls() -> dict[str, float]:
    """Seconds of the first run in a fresh process: with nothing kept on disk, and with
    the machine code kept."""
    durations = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "cached"):
            for mode in ("forward", "gradient"):
                imports, call = first_call(mode == "gradient", folder)
                durations[f"{name} {mode}"] = call
                durations["imports"] = imports
    return durations


def first_call(gradient: bool, cache: str) -> tuple[float, float]:
    """Seconds of importing and of the first run."""
    process = subprocess.run(
        [sys.executable, "-c", FIRST_CALL.format(gradient=gradient)],
        check=True,
        text=True,
        capture_output=True,
        env={**os.environ, "CINGULUM_CACHE": cache},
    )
    imports, call = map(float, process.stdout.split())
    return imports, call


def precision() -> float:
    """Correlation over weights of the float32 gradient with the float64 one, through
    1e5 steps."""
    single, double = (
        ours("compiled", 68, 1, dtype, True, 100_000)()[-1].double().flatten()
        for dtype in DTYPES
    )
    return pearson(single, double).item()


def memory() -> float:
    """MB held for the backward pass of ten minutes: N = 100, dt 1 ms, 6e5 steps,
    float64 (arrays of numpy)."""
    tracemalloc.start()
    ours("compiled", 100, 1, "float64", True, 600_000)()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def speed_up_of_two_threads() -> float:
    """How many times faster two threads are, in wall seconds."""
    alone, together = (
        seconds(
            ours("compiled", 100, 16, "float32", False, 60_000, threads=threads),
            5,
            time.perf_counter,
        )
        for threads in (1, 2)
    )
    return alone / together


def shares_of_bound(
    timings: list[Timing], bounds: dict[str, float]
) -> dict[str, float]:
    """How near the largest product comes to the matrix-product bound, by number
    type."""
    shares = {}
    for timing in timings:
        case = timing.case
        is_largest = (case.n, case.batch, case.mode) == (400, 8, "forward")
        if timing.engine == "compiled" and is_largest:
            # Two operations per weight, and about 155 for the equations of a region.
            reached = (2 * 400 + 155) / timing.nanoseconds
            name = f"N 400, B 8, {case.dtype}: share of the bound"
            shares[name] = reached / bounds[case.dtype]
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="N = 100 only")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # Before the peers, whose own threads would share the cores.
    facts = {"two threads, times faster (wall)": speed_up_of_two_threads()}
    peers = installed()
    names = ", ".join(peers) or "none"
    print(f"Peers that are installed: {names} (of {', '.join(PEERS)}).")
    print("   N   B dtype   mode      compiled, ns  others, as multiples of it")
    timings = measure_all(arguments.quick, peers)
    facts |= closing_facts(timings)
    for name, value in facts.items():
        print(f"{name}: {value:.3g}")
    if arguments.json:
        rows = [timing.to_dict() for timing in timings]
        content = {"rows": rows, "facts": facts, "numpy": np.__version__}
        arguments.json.write_text(json.dumps(content, indent=1))


def closing_facts(timings: list[Timing]) -> dict[str, float]:
    """Figures beside the table."""
    bounds = {dtype: matmul_bound(dtype) for dtype in DTYPES}
    facts = {f"matmul {d}, GFLOP/s": bound for d, bound in bounds.items()}
    facts |= shares_of_bound(timings, bounds)
    facts |= {f"{name}, s": value for name, value in first_calls().items()}
    facts["gradient of 6e5 steps, MB held"] = memory()
    facts["float32 against float64 gradient through 1e5 steps, r"] = precision()
    return facts


if __name__ == "__main__":
    main()
