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
FREE = ("strength", "noise", "mass.J_i", "mass.w_plus", "mass.tau_E")
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
    base = balanced(
        Brain(ReducedWongWang(), connectome(n), Sensor(tr=TR), strength=0.3)
    )
    values: dict[str, Any] = {
        "strength": torch.full((batch, 1), 0.3),
        "noise": torch.full((n,), 0.01),
        "mass.J_i": base.mass.J_i,
        "mass.w_plus": torch.full((n,), 1.4),
        "mass.tau_E": torch.full((n,), 0.1),
    }
    values = {
        path: v.detach().to(dtype).clone().requires_grad_(gradient)
        for path, v in values.items()
    }
    joined = Connectome(base.connectome.weights.to(dtype), base.regions)
    object.__setattr__(joined, "weights", joined.weights.requires_grad_(gradient))
    return with_values(base, {**values, "connectome": joined}), [
        *values.values(),
        joined.weights,
    ]


def ours(
    engine: str,
    n: int,
    batch: int,
    dtype: str,
    gradient: bool,
    steps: int,
    **options: Any,
) -> Callable[[], Any]:
    made, leaves = brain(n, batch, DTYPES[dtype], gradient)
    start = torch.stack(
        [torch.full((batch, n), s.rest, dtype=DTYPES[dtype]) for s in made.mass.states]
    )

    def once() -> Any:
        with torch.set_grad_enabled(gradient):
            run = simulate(
                made, steps * DT, dt=DT, start=start, engine=engine, **options
            )
            return (
                torch.autograd.grad(run.bold.data.square().sum(), leaves)
                if gradient
                else run
            )

    return once


def jax_equations(
    n: int, batch: int, dtype: str
) -> tuple[Callable, Callable, tuple, Any, Any]:
    """Drift of the network, haemodynamics, parameters and both resting states, as JAX
    functions and arrays."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", dtype == "float64")
    made, leaves = brain(n, batch, DTYPES[dtype], False)
    m, r = made.mass, made.sensor.response

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


def able(peer: str, batch: int, dtype: str, gradient: bool) -> bool:
    """Whether a peer does this at all (and in a sensible time)."""
    if peer == "neurolib":
        return batch == 1 and dtype == "float64" and not gradient
    if peer == "tvboptim":
        return batch == 1
    return batch < 64


PEERS: dict[str, tuple[str, Callable]] = {
    "jax": ("jax", jax_scan),
    "vbjax": ("vbjax", vbjax_sde),
    "tvboptim": ("tvboptim", tvboptim_network),
    "neurolib": ("neurolib", neurolib_ww),
}


def installed() -> list[str]:
    return [
        name
        for name, (package, _) in PEERS.items()
        if importlib.util.find_spec(package)
    ]


def seconds(
    once: Callable[[], Any],
    repeats: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> float:
    once()
    found = []
    for _ in range(repeats):
        began = clock()
        once()
        found.append(clock() - began)
    return min(found)


def matmul_bound(dtype: str) -> float:
    """Billions of operations a second that one thread reaches in a large matrix
    product."""
    a, b = (torch.randn(1024, 1024, dtype=DTYPES[dtype]) for _ in range(2))
    return 2 * 1024**3 / seconds(lambda: a @ b, 5) / 1e9


def grid(quick: bool, peers: list[str]) -> list[dict[str, Any]]:
    rows = []
    for n in (100,) if quick else (68, 100, 200, 400):
        for batch in (1, 8) if quick else (1, 8, 64):
            for dtype in DTYPES:
                for mode in ("forward", "gradient"):
                    gradient = mode == "gradient"
                    for engine in (
                        "compiled",
                        "reference",
                        *(p for p in peers if able(p, batch, dtype, gradient)),
                    ):
                        # Enough steps for about a tenth of a second, in whole volumes.
                        budget = {"compiled": 1e7, "reference": 1}.get(engine, 1e6) / (
                            3 if gradient else 1
                        )
                        steps = PER_VOLUME * min(
                            200, max(1, round(budget / (n * batch * PER_VOLUME)))
                        )
                        options = (n, batch, dtype, gradient, steps)
                        once = (
                            PEERS[engine][1](*options)
                            if engine in PEERS
                            else ours(engine, *options)
                        )
                        taken = (
                            seconds(once, 1 if engine == "reference" else 3)
                            / (steps * n * batch)
                            * 1e9
                        )
                        rows.append(
                            {
                                "engine": engine,
                                "mode": mode,
                                "N": n,
                                "B": batch,
                                "dtype": dtype,
                                "ns_per_node_step": taken,
                            }
                        )
                    shown(rows, n, batch, dtype, mode)
    return rows


def shown(
    rows: list[dict[str, Any]], n: int, batch: int, dtype: str, mode: str
) -> None:
    here = {
        r["engine"]: r["ns_per_node_step"]
        for r in rows
        if (r["N"], r["B"], r["dtype"], r["mode"]) == (n, batch, dtype, mode)
    }
    own = here.pop("compiled")
    ratios = "  ".join(f"{name} {taken / own:.1f}×" for name, taken in here.items())
    print(f"{n:4d} {batch:3d} {dtype} {mode:9s} {own:8.2f}      {ratios}", flush=True)


def first_calls() -> dict[str, float]:
    """Seconds of the first run in a fresh process: with nothing kept on disk, and with
    the machine code kept."""
    code = (
        "import time; a = time.perf_counter(); import torch, "
        "cingulum.simulation.compiler, sys; torch.set_num_threads(1);"
        "sys.path.insert(0, 'benchmarks'); import engine; b = time.perf_counter();"
        "engine.ours('compiled', 100, 1, 'float32', {}, 100)(); print(b - a, "
        "time.perf_counter() - b)"
    )
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for name in ("first", "cached"):
            for mode in ("forward", "gradient"):
                told = subprocess.run(
                    [sys.executable, "-c", code.format(mode == "gradient")],
                    check=True,
                    text=True,
                    capture_output=True,
                    env={**os.environ, "CINGULUM_CACHE": place},
                )
                imports, call = map(float, told.stdout.split())
                found[f"{name} {mode}"], found["imports"] = call, imports
    return found


def precision() -> float:
    """Correlation over weights of the float32 gradient with the float64 one, through
    1e5 steps."""
    found = [ours("compiled", 68, 1, dtype, True, 100_000)() for dtype in DTYPES]
    return pearson(found[0][-1].double().flatten(), found[1][-1].flatten()).item()


def memory() -> float:
    """MB held for the backward pass of ten minutes: N = 100, dt 1 ms, 6e5 steps,
    float64 (arrays of numpy)."""
    tracemalloc.start()
    ours("compiled", 100, 1, "float64", True, 600_000)()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return peak


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--json", type=Path, help="write the rows here")
    arguments.add_argument("--quick", action="store_true", help="N = 100 only")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # Before the peers, whose own threads would share the cores.
    pair = [
        ours("compiled", 100, 16, "float32", False, 60_000, threads=threads)
        for threads in (1, 2)
    ]
    alone, together = (seconds(once, 5, time.perf_counter) for once in pair)
    peers = installed()
    print(
        f"Peers that are installed: {', '.join(peers) or 'none'} (of "
        f"{', '.join(PEERS)})."
    )
    print("   N   B dtype   mode      compiled, ns  others, as multiples of it")
    rows = grid(given.quick, peers)
    facts: dict[str, Any] = {"two threads, times faster (wall)": alone / together}
    facts |= {f"matmul {d}, GFLOP/s": matmul_bound(d) for d in DTYPES}
    for r in rows:
        if (r["engine"], r["N"], r["B"], r["mode"]) == ("compiled", 400, 8, "forward"):
            reached = (2 * 400 + 155) / r["ns_per_node_step"]
            facts[f"N 400, B 8, {r['dtype']}: share of the bound"] = (
                reached / facts[f"matmul {r['dtype']}, GFLOP/s"]
            )
    facts |= {f"{k}, s": v for k, v in first_calls().items()}
    facts["gradient of 6e5 steps, MB held"] = memory()
    facts["float32 against float64 gradient through 1e5 steps, r"] = precision()
    for name, value in facts.items():
        print(f"{name}: {value:.3g}")
    if given.json:
        given.json.write_text(
            json.dumps(
                {"rows": rows, "facts": facts, "numpy": np.__version__}, indent=1
            )
        )


if __name__ == "__main__":
    main()
