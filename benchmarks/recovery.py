"""Are parameters found that were planted, with intervals that hold them, and is nothing
found where nothing is?

    python benchmarks/recovery.py [--fits 40] [--jobs 2]

100 Schaefer regions on the tractography of the Human Connectome Project (`cingulum
fetch hcp`), 1200 volumes of 0.72 s, balanced two-state Wong-Wang regions with
measurement noise. Truths are uniform over a range; priors are wide and centred
elsewhere. The same fits are then given data without the thing sought: white noise, and
every region's own signal with its phases shuffled. Shuffling takes connectivity away,
so the coupling must not be found; it keeps all spectra, and with them rightly what
spectra tell (amplitudes, haemodynamic rate, their slope along the map).
"""

import argparse
import math
import os
import time

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # one thread a process, also in those of joblib

import joblib
import pandas as pd
import torch
from scipy.stats import binomtest, linregress
from torch.distributions import LogNormal

from cingulum.brain import Brain, Sensor
from cingulum.brain.masses import ReducedWongWang
from cingulum.datasets import hcp
from cingulum.inference import Cleaning, Likelihood, Mapped, fit, laplace
from cingulum.inference.simulation_calibration import bare_problem, simulate_recordings
from cingulum.simulation import balanced
from cingulum.timeseries import TimeSeries

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
TR, VOLUMES = 0.72, 1200
FOLDER = hcp.fetch()
MYELIN = hcp.regional_maps(FOLDER)[[3]]
RANGES = {
    "strength": (0.2, 0.6),
    "noise": (0.008, 0.024),
    "sensor.noise": (0.004, 0.014),
    "sensor.response.kappa": (0.5, 0.85),
}
"""Truths, uniform in the logarithm; the slope of w_plus on the myelin map is uniform on
−.15 … .15."""
SLOPE = 0.15
LEVEL = LogNormal(math.log(1.4), 0.005)
"""The mean of w_plus is held: with strength and noise it makes a ridge, as the last
table shows."""


def priors() -> dict:
    """Centred on the upper third of each range; a standard deviation is half of it
    (w_plus slope: .2 around zero)."""
    free: dict = {}
    for path, (low, high) in RANGES.items():
        centre, spread = (
            math.log(low) + 0.67 * math.log(high / low),
            0.5 * math.log(high / low),
        )
        free[path] = LogNormal(centre, spread)
    return free | {"mass.w_plus": Mapped(LEVEL, MYELIN, 0.2, ("myelin",))}


def planted(count: int) -> torch.Tensor:
    """Coordinates (fit, coordinate) of the truths, in the order of `priors`."""
    share = torch.rand(
        count, len(RANGES) + 1, generator=torch.Generator().manual_seed(0)
    )
    low, high = (
        torch.tensor([math.log(r[i]) for r in RANGES.values()]) for i in (0, 1)
    )
    slope = SLOPE * (2 * share[:, -1:] - 1)
    return torch.cat(
        [
            low + (high - low) * share[:, :-1],
            torch.full((count, 1), math.log(1.4)),
            slope,
        ],
        1,
    )


def found_in(brain: Brain, recorded: TimeSeries, free: dict, rounds: int = 30):  # type: ignore[no-untyped-def]
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    fitted = fit(
        brain,
        recorded,
        free,
        objective=Likelihood(),
        prepare=balanced,
        method="analytic",
        cleaning=Cleaning(band=(0.008, 0.25), bins=16),
        optimiser="Newton",
        steps=rounds,
    )
    return laplace(fitted)


def scores(names, truths, mean, sd) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    rows = []
    for k, name in enumerate(names):
        if truths[:, k].std() < 1e-9:
            continue
        line = linregress(truths[:, k], mean[:, k])
        inside = int(((mean[:, k] - truths[:, k]).abs() < 1.645 * sd[:, k]).sum())
        low, high = binomtest(inside, len(truths)).proportion_ci(0.95, method="exact")
        rows.append(
            {
                "parameter": name,
                "r": line.rvalue,
                "slope": line.slope,
                "rmse (log or coordinate)": (mean[:, k] - truths[:, k])
                .square()
                .mean()
                .sqrt()
                .item(),
                "90 % intervals that hold it": inside / len(truths),
                "from": low,
                "to": high,
            }
        )
    return pd.DataFrame(rows).set_index("parameter")


def white(x: torch.Tensor) -> torch.Tensor:
    """Of one amplitude for all regions and people: of each region's own, it would still
    tell the map of amplitudes."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return x.mean(-1, keepdim=True) + x.std(-1).mean() * noise


def shuffled_phases(x: torch.Tensor) -> torch.Tensor:
    waves = torch.fft.rfft(x)
    turn = (
        2
        * math.pi
        * torch.rand(waves.shape, generator=torch.Generator().manual_seed(2))
    )
    turn[..., 0] = 0.0
    return torch.fft.irfft(waves * torch.exp(1j * turn), x.shape[-1])


def show(title: str, table: pd.DataFrame) -> None:
    print(f"\n## {title}\n\n{table.round(3).to_string()}", flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument(
        "--fits", type=int, default=40, help="truths; the controls take ten of them"
    )
    asked.add_argument("--jobs", type=int, default=2, help="processes")
    given = asked.parse_args()
    count = given.fits
    brain, free = (
        Brain(ReducedWongWang(), hcp.connectome(FOLDER).normalised(), Sensor(tr=TR)),
        priors(),
    )
    problem, truths, began = (
        bare_problem(brain, free, balanced),
        planted(count),
        time.perf_counter(),
    )
    recorded = simulate_recordings(problem, truths, VOLUMES * TR, seed=1)
    print(
        f"{count} recordings simulated in {time.perf_counter() - began:.0f} s",
        flush=True,
    )
    began = time.perf_counter()
    tasks = [
        joblib.delayed(found_in)(brain, TimeSeries(x, TR, brain.regions), free)
        for x in recorded.data.split(5)
    ]
    parts = joblib.Parallel(given.jobs)(tasks)
    names = parts[0].names
    mean, sd = (torch.cat([getattr(p, key) for p in parts]) for key in ("mean", "sd"))
    seconds = time.perf_counter() - began
    print(
        f"{count} fits with intervals in {seconds:.0f} s, {seconds / count:.1f} s "
        f"each, with {given.jobs} processes",
        flush=True,
    )
    show(f"Planted and found, {count} truths", scores(names, truths, mean, sd))
    rows = {}
    damages = {"white noise": white, "phases shuffled": shuffled_phases}
    # On data without connectivity the search drifts along flat directions: a dozen
    # rounds tell where to.
    spoilt = [
        joblib.delayed(found_in)(
            brain, TimeSeries(damage(recorded.data[:10]), TR, brain.regions), free, 12
        )
        for damage in damages.values()
    ]
    for kind, wrong in zip(damages, joblib.Parallel(given.jobs)(spoilt), strict=True):
        for k, name in enumerate(names):
            if truths[:, k].std() > 1e-9:
                line = linregress(truths[:10, k], wrong.mean[:, k])
                rows[kind, name] = {
                    "r with truth": line.rvalue,
                    "slope": line.slope,
                    "truths, mean": truths[:10, k].mean().item(),
                    "found, mean": wrong.mean[:, k].mean().item(),
                    "found, SD": wrong.mean[:, k].std().item(),
                }
    show(
        "The same fits of data without connectivity (ten truths; logarithms)",
        pd.DataFrame(rows).T,
    )
    wide = {k: v for k, v in free.items() if k != "mass.w_plus"} | {
        "mass.w_plus": LogNormal(math.log(1.4), 0.15)
    }
    first = TimeSeries(recorded.data[:1], TR, brain.regions)
    show(
        "Ridges, mean of w_plus free as well (precision relative to the prior's)",
        found_in(brain, first, wide).directions(0),
    )


if __name__ == "__main__":
    main()
