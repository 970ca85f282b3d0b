"""Do others compute the same? Drifts, stochastic paths, BOLD, inhibition and
connectivity against other people's code.

    python benchmarks/conformance [--oracles FOLDER] [--json FILE]

The others are installed apart, each in an environment of its own (TVB is GPL; cuBNM's
wheel needs numpy 1), and are only ever run as other processes that read and write .npz
files. To make them (in the default folder):

    for name in tvb-library tvboptim "cubnm numpy<2"; do
        folder=~/.cache/cingulum-oracles/${name%% *}; python -m venv $folder;
        $folder/bin/pip install $name
    done

One that is missing is named as not installed. A minute on one core. Not asked, because
their equations are known to be wrong (docs: peers): vbi's WW_sde, neurolib 0.6.2's
Wong-Wang model, the level of brainmass's BOLD.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cingulum.brain import Brain, Connectome, Sensor, masses, with_values
from cingulum.brain.dynamics import Dynamics, get, parameters
from cingulum.brain.haemodynamics import CONVENTIONS, Amplifier, BalloonWindkessel
from cingulum.measures import fc, fcd
from cingulum.simulation import balanced, simulate

HERE = Path(__file__).parent
REGIONS, STRENGTH = 50, 0.3
DURATION, TR, DT, BW_STEP = 18.0, 0.72, 1e-4, 1e-3
WINDOW, STEP = 42, 7
CUBNM = CONVENTIONS["time-constants-cubnm-0.1.0"]
KEPT = {"JansenRit": ("to_E", "to_P", "to_I")}
"""Parameters without a counterpart elsewhere: pathways of other regions onto pyramidal
cells and inhibition."""
INSTEAD = {"Kuramoto": {"frequency": 0.1}, "JansenRit": {"p": 12.0}}
"""Other centres than the defaults, where those would drown the coupling."""
WIDTH = {"WilsonCowan": 0.3}
"""How far states without a domain lie from rest; elsewhere about as far as the resting
value is large."""


@dataclass(frozen=True)
class Row:
    """One check: the largest difference as a share of the largest value, and the most
    that is allowed."""

    check: str
    oracle: str
    difference: float | None = None
    allowed: float = 1e-12
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return self.note or "not installed"
        return "agrees" if self.difference <= self.allowed else "DIFFERS"


def connectome(n: int, seed: int) -> Connectome:
    raw = torch.rand(n, n, generator=torch.Generator().manual_seed(seed))
    raw = raw * (raw > 0.5)
    return Connectome(
        (raw + raw.mT).fill_diagonal_(0.0), tuple(map(str, range(n)))
    ).normalised()


def varied(mass: Dynamics, generator: torch.Generator) -> Dynamics:
    """The mass with every parameter regional, within a tenth of its default (zeros:
    within a tenth of the range)."""
    kept, instead = (table.get(type(mass).__name__, {}) for table in (KEPT, INSTEAD))
    values = {}
    for name, p in parameters(mass).items():
        share, centre = (
            0.2 * torch.rand(REGIONS, generator=generator) - 0.1,
            instead.get(name, p.default),
        )
        values[name] = centre * (1 + share) if centre else share * min(p.high, 1.0)
    return with_values(
        mass, {name: value for name, value in values.items() if name not in kept}
    )


def states(mass: Dynamics, generator: torch.Generator) -> torch.Tensor:
    """Random states over the domain they declare, or around rest (`WIDTH`)."""
    rows, width = [], WIDTH.get(type(mass).__name__, 1.0)
    for state in mass.states:
        share = torch.rand(REGIONS, generator=generator)
        if state.low is not None and state.high is not None:
            rows.append(state.low + (state.high - state.low) * share)
        else:
            rows.append(
                state.rest
                + max(width, abs(state.rest))
                * (share if state.low == 0 else 2 * share - 1)
            )
    return torch.stack(rows)


def network() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the oracles are given, and our drift of every mass on the same network."""
    generator = torch.Generator().manual_seed(1)
    joined = connectome(REGIONS, 0)
    given, ours = {"W": joined.weights.numpy(), "strength": np.array(STRENGTH)}, {}
    for name in masses.__all__:
        mass = varied(getattr(masses, name)(), generator)
        x = states(mass, generator)
        ours[name] = Brain(mass, joined, strength=STRENGTH).drift(x).numpy()
        given[name] = x.numpy()
        for key in parameters(mass):
            given[f"{name}.{key}"] = np.broadcast_to(
                np.asarray(getattr(mass, key), dtype=float), REGIONS
            ).copy()
    x = 0.5 + torch.rand(4, REGIONS, generator=generator)
    u, balloon = (
        torch.rand(REGIONS, generator=generator),
        CONVENTIONS["tvb-2.10-balloon"],
    )
    given |= {"balloon": x.numpy(), "balloon.u": u.numpy()}
    ours["balloon"] = torch.cat(
        [balloon.drift(x, u), balloon.output(x).unsqueeze(0)]
    ).numpy()
    return given, ours


def noticed(name: str, given: dict[str, np.ndarray], ours: np.ndarray) -> float:
    """The least that a change of one part in 100 of any one compared parameter moves
    the drift (share of its row)."""
    mass = getattr(masses, name)()
    brain = with_values(
        Brain(mass, connectome(REGIONS, 0), strength=STRENGTH),
        {
            f"mass.{key}": torch.as_tensor(given[f"{name}.{key}"])
            for key in parameters(mass)
        },
    )
    compared = [
        "strength",
        *(f"mass.{key}" for key in parameters(mass) if key not in KEPT.get(name, ())),
    ]
    x = torch.as_tensor(given[name])
    return min(
        apart(with_values(brain, {key: 1.01 * get(brain, key)}).drift(x), ours)
        for key in compared
    )


def asked(
    oracle: str, package: str, folder: Path, given: dict[str, np.ndarray]
) -> dict[str, np.ndarray] | None:
    """The oracle's answer, from a process of its own; None where it is not
    installed."""
    python = folder / package / "bin" / "python"
    if not python.exists():
        return None
    with tempfile.TemporaryDirectory() as place:
        question, answer = Path(place) / "given.npz", Path(place) / "answer.npz"
        np.savez(question, **given)
        clean = {
            k: v
            for k, v in os.environ.items()
            if k not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        subprocess.run(
            [python, HERE / f"of_{oracle}.py", question, answer],
            check=True,
            cwd=place,
            env=clean,
            capture_output=True,
        )
        return dict(np.load(answer))


def apart(ours: np.ndarray | torch.Tensor, theirs: np.ndarray) -> float:
    """Largest difference, row by row, as a share of the row's largest value."""
    ours = np.atleast_2d(np.asarray(ours))
    theirs = np.atleast_2d(theirs)
    return float((np.abs(ours - theirs).max(-1) / np.abs(theirs).max(-1)).max())


def drifts(oracle: str, package: str, folder: Path) -> Iterator[Row]:
    given, ours = network()
    found = asked(oracle, package, folder, given)
    for name, drift in ours.items():
        check = (
            "drift and signal, haemodynamics of TVB"
            if name == "balloon"
            else f"drift, {name}"
        )
        if found is None:
            yield Row(check, package)
        elif name not in found:
            yield Row(check, str(found["version"]), note="no counterpart")
        else:
            moved = (
                ""
                if name == "balloon"
                else f"1 % of any parameter: {noticed(name, given, drift):.0e}"
            )
            yield Row(
                check, str(found["version"]), apart(drift, found[name]), note=moved
            )
    for name, keys in KEPT.items():
        yield Row(f"{name}: {', '.join(keys[1:])}", package, note="no counterpart")


def path(folder: Path) -> Iterator[Row]:
    """cuBNM: its noise replayed through our engine, and everything it makes of the
    path."""
    n, generator = 20, np.random.default_rng(0)
    joined = connectome(n, 2)
    signal = np.cumsum(generator.standard_normal((n, 400)), 1)
    given = {
        "W": joined.weights.numpy(),
        "strength": np.array(0.5),
        "duration": np.array(DURATION),
        "tr": np.array(TR),
        "signal": signal,
        "window": np.array(WINDOW),
        "step": np.array(STEP),
    }
    found = asked("cubnm", "cubnm", folder, given)
    if found is None:
        yield Row("path, BOLD, inhibition, FC, FCD", "cubnm")
        return
    name = str(found["version"])
    brain = Brain(
        masses.ReducedWongWang(),
        joined,
        Sensor(CUBNM, TR),
        strength=0.5,
        noise=0.01 * 1000**0.5,
    )
    S_E, S_I, bold, last = replayed(brain, found["noise"])
    yield Row("path of S_E, its noise, 180 000 steps", name, apart(S_E, found["S_E"].T))
    yield Row("path of S_I, its noise, 180 000 steps", name, apart(S_I, found["S_I"].T))
    yield Row(
        "BOLD, its order of updates",
        name,
        apart(in_its_order(last, CUBNM), found["bold"].T),
        1e-10,
    )
    yield Row(
        "BOLD, our order (all at once; mean over the ms)",
        name,
        apart(bold, found["bold"].T),
        1e-2,
        "first order in the step of 1 ms",
    )
    yield Row(
        "J_i of feedback inhibition",
        name,
        apart(balanced(brain).mass.J_i, found["J_i"]),
        1e-8,
        "cuBNM's working point has ten digits",
    )
    x = torch.as_tensor(signal)
    yield Row("FC", name, apart(fc(x), found["fc"]))
    yield Row(
        f"FCD, {WINDOW + 1} volumes, step {STEP}",
        name,
        apart(fcd(x, WINDOW + 1, STEP), found["fcd"]),
    )


def replayed(brain: Brain, noise: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Our path under given noise: S_E and S_I each TR, BOLD, and S_E at the end of
    every ms."""
    z = torch.as_tensor(noise).permute(2, 3, 0, 1).flatten(0, 1)
    start = torch.full((2, len(brain.regions)), 0.001)

    def seen(sensor: Sensor, step: float) -> torch.Tensor:
        run = simulate(
            with_values(brain, {"sensor": sensor}),
            DURATION,
            dt=DT,
            start=start,
            noise=z,
            vascular_step=step,
        )
        return run.signal.data

    # A filter as short as its step hands on what the step before it saw.
    last = seen(Sensor(Amplifier(tau=DT), BW_STEP), DT)
    per_volume = round(TR / BW_STEP)
    return (
        last[:, per_volume - 1 :: per_volume],
        ended(brain, z, start),
        seen(brain.sensor, BW_STEP),
        last,
    )


def ended(brain: Brain, z: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """S_I at the end of every TR, from a run that is stopped and continued there."""
    per, moment, found = round(TR / DT), start, []
    for k in range(round(DURATION / TR)):
        moment = simulate(
            brain,
            TR,
            dt=DT,
            start=moment,
            noise=z[k * per : (k + 1) * per],
            vascular_step=BW_STEP,
        ).end
        found.append(moment.neural[1])
    return torch.stack(found, -1)


def in_its_order(drive: torch.Tensor, model: BalloonWindkessel) -> torch.Tensor:
    """BOLD as cuBNM integrates it: s first, flow from the new s, and q from the new v
    (but the old flow)."""
    s, f, v, q = torch.zeros(len(drive)), *torch.ones(3, len(drive))
    found, per_volume = [], round(TR / BW_STEP)
    for k, u in enumerate(drive.T):
        s = s + BW_STEP * model.drift(torch.stack([s, f, v, q]), u)[0]
        ahead = f + BW_STEP * s
        v = v + BW_STEP * model.drift(torch.stack([s, f, v, q]), u)[2]
        q = q + BW_STEP * model.drift(torch.stack([s, f, v, q]), u)[3]
        f = ahead
        if (k + 1) % per_volume == 0:
            found.append(model.output(torch.stack([s, f, v, q])))
    return torch.stack(found, -1)


def shown(row: Row) -> str:
    number = "" if row.difference is None else f"{row.difference:9.1e}"
    note = f"  ({row.note})" if row.difference is not None and row.note else ""
    return f"{row.check:50s} {row.oracle:20s} {number:>9s}  {row.verdict}{note}"


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path.home() / ".cache" / "cingulum-oracles"
    arguments.add_argument(
        "--oracles", type=Path, default=default, help="where their environments lie"
    )
    arguments.add_argument("--json", type=Path, help="write the rows here")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    print(
        f"{'check':50s} {'oracle':20s} {'largest':>9s}  verdict   (relative to the "
        "largest value)"
    )
    rows = []
    folder = given.oracles.expanduser().absolute()
    for part in (
        drifts("tvb", "tvb-library", folder),
        drifts("tvboptim", "tvboptim", folder),
        path(folder),
    ):
        for row in part:
            print(shown(row), flush=True)
            rows.append(row)
    if given.json:
        given.json.write_text(
            json.dumps(
                [{**asdict(row), "verdict": row.verdict} for row in rows], indent=1
            )
        )
    sys.exit(any(row.verdict == "DIFFERS" for row in rows))


if __name__ == "__main__":
    main()
