"""Whether intervals are honest: truths from the prior, recordings of them, fits, and
where the truths come to lie.

Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788): if a truth is drawn
from the prior and a recording from the truth, then the truth is one more draw of the
posterior, and its rank among L draws is uniform on 0 … L.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.stats import binomtest, chisquare, kstest, linregress
from torch import Tensor
from torch.distributions import LogNormal

from cingulum.brain.brain import Brain
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.fitting import Fit, FitSettings, fit_problem, make_problem
from cingulum.inference.free_parameters import Free, FreeParameter, Gains, Mapped
from cingulum.inference.objectives import Likelihood, Objective, name_of
from cingulum.inference.optimise import fingerprint_of
from cingulum.inference.posterior import laplace, reweighed
from cingulum.inference.problem import Problem, Runs, Theta, at_rest, joined, split
from cingulum.inference.views import Cleaning
from cingulum.progress import track
from cingulum.simulation.simulation import simulate, time_step
from cingulum.timeseries import TimeSeries

Draws = Float[Tensor, "draw recording coordinate"]
Maker = Callable[[Problem, int, int], Draws]
"""A posterior: (problem of many recordings, number of draws, seed) → draws in
unconstrained coordinates."""

LIKELIHOOD_CLEANING = Cleaning(band=(0.008, 0.25), bins=16)


def default_priors() -> dict[str, Free]:
    """What a recording of rest tells of one brain: coupling, neural and measurement
    noise, and a haemodynamic rate.

    Centres are those of a balanced `ReducedWongWang` whose BOLD varies by some tenths
    of a percent; widths are a factor of about 1.5 (coupling, neural noise), 1.65
    (measurement noise) and 1.2 (kappa).
    """
    centres = {
        "strength": (0.35, 0.4),
        "noise": (0.015, 0.4),
        "sensor.noise": (0.007, 0.5),
    }
    centres |= {"sensor.response.kappa": (0.65, 0.2)}
    return {
        path: LogNormal(float(np.log(centre)), width)
        for path, (centre, width) in centres.items()
    }


@dataclass(frozen=True, eq=False)
class Calibration:
    """Where truths lie among their posteriors' draws.

    ranks, truths, estimates: a row a fit, a column a coordinate. Rank: how many of the
        draws are below the truth, 0 … `draws`; truths and estimates (means of the
        draws): in the unconstrained coordinates
    refused: share of the prior's draws that have no stable equilibrium by the search's
        own limits. They are drawn again, so that truths come from the prior cut there,
        which no posterior here knows: few are of no consequence
    failed: fits that found no optimum; they are left out, and many would make
        everything else worthless
    """

    ranks: pd.DataFrame
    truths: pd.DataFrame
    estimates: pd.DataFrame
    draws: int
    refused: float = 0.0
    failed: int = 0

    def coverage(self, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)) -> pd.DataFrame:
        """How often central intervals hold the truth: a row a coordinate and level.

        level: what was asked, rounded to what ranks among so many draws can tell
        (`nominal`); low, high: exact binomial 95 % interval of `covered` (Clopper and
        Pearson 1934)
        """
        rows = []
        for name, ranks in self.ranks.items():
            for level in levels:
                left = round((1 - level) / 2 * (self.draws + 1))
                inside = int(((ranks >= left) & (ranks <= self.draws - left)).sum())
                span = binomtest(inside, len(ranks)).proportion_ci(0.95, method="exact")
                nominal = 1 - 2 * left / (self.draws + 1)
                rows.append(
                    (name, level, nominal, inside / len(ranks), span.low, span.high)
                )
        return pd.DataFrame(
            rows, columns=["coordinate", "level", "nominal", "covered", "low", "high"]
        )

    def uniformity(self, bins: int | None = None, alarm: float = 0.01) -> pd.DataFrame:
        """Tests of uniform ranks, a row a coordinate: χ² over `bins`, and
        Kolmogorov-Smirnov.

        bins: at least five fits in each, at most 20; ranks are whole numbers, so ties
        in the second test are broken at random (a fixed seed), which makes it exact
        alarm: the chance that a calibrated posterior has any `uniform` = False in the
            whole table (Bonferroni, at most)
        """
        bins = bins or max(2, min(20, len(self.ranks) // 5))
        noise = np.random.default_rng(0).random(self.ranks.shape)
        spread = (self.ranks.to_numpy() + noise) / (self.draws + 1)
        limit = alarm / (2 * spread.shape[1])
        rows = []
        for name, shares in zip(self.ranks.columns, spread.T, strict=True):
            chi = chisquare(np.histogram(shares, bins, (0.0, 1.0))[0]).pvalue
            smirnov = kstest(shares, "uniform").pvalue
            rows.append((name, chi, smirnov, limit, min(chi, smirnov) >= limit))
        return pd.DataFrame(
            rows, columns=["coordinate", "chi_square_p", "ks_p", "threshold", "uniform"]
        )

    def recovery(self) -> pd.DataFrame:
        """How well estimates follow truths, a row a coordinate, in coordinates: r,
        slope, and mean error."""
        rows = []
        for name in self.truths:
            truth, found = self.truths[name], self.estimates[name]
            line = linregress(truth, found)
            rows.append((name, line.rvalue, line.slope, (found - truth).mean()))
        return pd.DataFrame(rows, columns=["coordinate", "r", "slope", "bias"])

    def __str__(self) -> str:
        told = (
            f"calibration by {len(self.ranks)} fits; {self.refused:.1%} of the "
            f"prior refused, {self.failed} failed"
        )
        tables = (self.coverage(), self.uniformity(), self.recovery())
        return "\n".join(
            [told, *(t.to_string(index=False, float_format="%.3g") for t in tables)]
        )


def by_laplace(problem: Problem, count: int, seed: int) -> Draws:
    """Draws of Laplace's approximation around the optimum that Newton's method
    finds."""
    return joined(laplace(_optimum(problem)).sample(count, seed))


def by_importance(problem: Problem, count: int, seed: int) -> Draws:
    """Laplace's draws reweighed by the objective itself (`reweighed`): of the skewed
    posterior, at twice the time."""
    return joined(reweighed(laplace(_optimum(problem)), count, seed)[0])


def _optimum(problem: Problem) -> Fit:
    settings = FitSettings(method="analytic", optimiser="Newton", steps=30)
    return fit_problem(problem, settings)


def calibrate(
    brain: Brain,
    free: Mapping[str, Free],
    *,
    fits: int = 300,
    duration: float = 864.0,
    prepare: Callable[[Brain], Brain] = lambda brain: brain,
    objective: Objective | dict[Objective, float] = Likelihood(),
    cleaning: Cleaning = LIKELIHOOD_CLEANING,
    posterior: Maker = by_laplace,
    draws: int = 99,
    batch: int = 50,
    dt: float | None = None,
    vascular_step: float = 0.002,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    show_progress: bool = False,
) -> Calibration:
    """Simulation-based calibration: `fits` truths from the prior, each recorded,
    fitted, and ranked.

    free, prepare, objective, cleaning: as in `fit`; recordings are free-running
        simulations of `duration` seconds of the non-linear brain with the sensor's
        noise, from its equilibrium, the first minute left out
    posterior: what is to be checked; `Amortised.maker` is another
    batch: fits at a time
    dt, vascular_step: s, as in `simulate`; dt None is the longest up to 2 ms that
        divides the TR. Haemodynamics in steps of 10 ms decay more slowly, by γ · 10 ms
        (0.6 % of κ), which a calibration does notice
    checkpoint: a file (.npz, plain numbers) written after every batch; the same call
        goes on from it

    Raises InputError for a checkpoint of other settings, or priors of which nearly
    nothing is stable.
    """
    if fits < 1 or draws < 1 or batch < 1:
        raise InputError(
            f"fits, draws and batch must be at least 1; came {fits}, {draws} and "
            f"{batch}."
        )
    settings = (
        duration,
        objective if isinstance(objective, dict) else {objective: 1.0},
        prepare,
        cleaning,
        dt,
    )
    lab = _Lab(brain, free, *settings, vascular_step, seed)
    truths, refused = stable_truths(brain, free, fits, prepare, seed)
    names = [
        f"{path} {name}".strip()
        for path, kind in lab.kinds.items()
        for name in kind.names
    ]
    file, key = (
        Path(checkpoint) if checkpoint else None,
        _key(lab, truths, posterior, draws, batch),
    )
    done = (
        _load(file, key)
        if file and file.exists()
        else np.zeros((0, 2, truths.shape[1]))
    )
    for first in track(
        range(len(done), fits, batch), "calibration", show=show_progress
    ):
        found = _ranked(
            lab, truths[first : first + batch], posterior, draws, seed + 1 + first
        )
        done = np.concatenate([done, found])
        if file:
            _save(file, key, done)
    good = np.isfinite(done).all((1, 2))
    tables = [
        pd.DataFrame(part[good], columns=names)
        for part in (done[:, 0], truths.numpy(), done[:, 1])
    ]
    return Calibration(
        tables[0].astype(int), tables[1], tables[2], draws, refused, int((~good).sum())
    )


@dataclass(frozen=True, eq=False)
class _Lab:
    """Where recordings are made and problems stated."""

    brain: Brain
    free: Mapping[str, Free]
    duration: float
    objective: dict[Objective, float]
    prepare: Callable[[Brain], Brain]
    cleaning: Cleaning
    dt: float | None
    vascular_step: float
    seed: int

    @property
    def kinds(self) -> dict[str, FreeParameter]:
        return bare_problem(self.brain, self.free, self.prepare).free_parameters

    def recording(self, truths: Tensor, seed: int) -> TimeSeries:
        return recordings_of(
            bare_problem(self.brain, self.free, self.prepare),
            truths,
            self.duration,
            dt=self.dt,
            vascular_step=self.vascular_step,
            seed=seed,
        )

    def problem(self, recorded: TimeSeries) -> Problem:
        given = (
            self.brain,
            recorded,
            self.free,
            self.objective,
            self.prepare,
            self.cleaning,
        )
        return make_problem(*given, Runs(), None)


def _ranked(
    lab: _Lab, truths: Tensor, posterior: Maker, draws: int, seed: int
) -> np.ndarray:
    """Ranks and estimates (fit, 2, coordinate) of one batch; NaN where a fit failed."""
    recorded = lab.recording(truths, seed)
    try:
        drawn = posterior(lab.problem(recorded), draws, seed)
    except ConvergenceError:  # one of them: which, only fits of single recordings tell
        drawn = torch.stack(
            [
                _alone(lab, recorded, i, posterior, draws, seed)
                for i in range(len(truths))
            ],
            1,
        )
    ranks = torch.where(
        torch.isfinite(drawn).all(0), (drawn < truths).sum(0).to(drawn), torch.nan
    )
    return torch.stack([ranks, drawn.mean(0)], 1).numpy()


def _alone(
    lab: _Lab, recorded: TimeSeries, index: int, posterior: Maker, draws: int, seed: int
) -> Tensor:
    one = TimeSeries(
        recorded.data[index : index + 1], recorded.tr, recorded.regions, recorded.unit
    )
    try:
        return posterior(lab.problem(one), draws, seed + index)[:, 0]
    except ConvergenceError:
        size = sum(kind.size for kind in lab.kinds.values())
        return torch.full((draws, size), torch.nan, dtype=recorded.data.dtype)


def recordings_of(
    problem: Problem,
    truths: Float[Tensor, "fit coordinate"],
    duration: float,
    *,
    dt: float | None = None,
    vascular_step: float = 0.002,
    seed: int = 0,
) -> TimeSeries:
    """Free-running recordings (fit, region or channel, time) of brains at these
    coordinates."""
    brain = problem.candidate(split(problem, truths))
    tr, batch = brain.sensor.tr, (len(truths),)
    step = time_step(tr, 0.002) if dt is None else dt
    start = at_rest(brain, batch)
    return simulate(
        brain,
        duration,
        dt=step,
        start=start,
        batch=batch,
        discard=60.0,
        vascular_step=vascular_step,
        seed=seed,
    ).signal


def stable_truths(
    brain: Brain,
    free: Mapping[str, Free],
    count: int,
    prepare: Callable[[Brain], Brain],
    seed: int,
) -> tuple[Float[Tensor, "count coordinate"], float]:
    """Draws from the prior whose equilibrium the search would keep, and the share that
    was refused.

    Raises InputError when fewer than one in twenty is kept.
    """
    problem = bare_problem(brain, free, prepare)
    kept: list[Tensor] = []
    asked = 0
    while sum(map(len, kept)) < count:
        if asked >= 20 * (count + 20):
            raise InputError(
                f"Of {asked} draws from the priors {sum(map(len, kept))} have a stable "
                "equilibrium with margin. Centre "
                "'strength' lower, or look at one brain with `cingulum.stability`."
            )
        theta = _drawn(problem, free, 50, seed + 7919 * asked)
        stable = _stable(problem, theta)
        kept.append(joined(theta)[stable])
        asked += 50
    return torch.cat(kept)[:count], 1 - sum(map(len, kept)) / asked


def bare_problem(
    brain: Brain, free: Mapping[str, Free], prepare: Callable[[Brain], Brain]
) -> Problem:
    """The problem without a recording: what is needed to tell coordinates, and whether
    they are stable."""
    n = len(brain.sensor.channels or brain.regions)
    nothing = torch.eye(n, dtype=brain.connectome.weights.dtype)
    return make_problem(
        brain, nothing, free, _indifferent, prepare, Cleaning(bins=2), Runs(), None
    )


def _indifferent(model: object, recorded: object) -> Tensor:
    return torch.zeros(())


def _drawn(problem: Problem, free: Mapping[str, Free], count: int, seed: int) -> Theta:
    like = problem.brain.connectome.weights
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            path: _from_prior(free[path], kind, count).to(like)
            for path, kind in problem.free_parameters.items()
        }


def _from_prior(
    given: Free, kind: FreeParameter, count: int
) -> Float[Tensor, "count size"]:
    """Coordinates drawn from what is free; a prior's own draws, carried to the line."""
    if isinstance(given, Gains):
        return given.spread * torch.randn(count, kind.size)
    if isinstance(given, Mapped):
        level = kind.average.transform.inv(  # type: ignore[attr-defined]
            given.prior.sample((count,)).reshape(count, 1)
        )  # type: ignore[attr-defined]
        return torch.cat(
            [level, given.spread * torch.randn(count, kind.size - 1).to(level)], -1
        )
    return kind.transform.inv(given.sample((count,)).reshape(count, kind.size))  # type: ignore[attr-defined]


def _stable(problem: Problem, theta: Theta) -> Tensor:
    with torch.no_grad():
        try:
            return problem.analytic(theta).stable
        except ConvergenceError:
            if len(joined(theta)) == 1:
                return torch.zeros(1, dtype=torch.bool)
        single = [
            {path: part[i : i + 1] for path, part in theta.items()}
            for i in range(len(joined(theta)))
        ]
        return torch.cat([_stable(problem, one) for one in single])


def _key(lab: _Lab, truths: Tensor, posterior: Maker, draws: int, batch: int) -> str:
    """What a checkpoint must have been made with; functions count by name, for their
    code cannot be compared."""
    names = [
        getattr(f, "__qualname__", type(f).__name__) for f in (lab.prepare, posterior)
    ]
    aims = {name_of(objective): weight for objective, weight in lab.objective.items()}
    clock = (lab.duration, lab.dt, lab.vascular_step, lab.seed, draws, batch)
    return fingerprint_of(lab.brain, truths, lab.cleaning, names, aims, clock)


def _save(path: Path, key: str, done: np.ndarray) -> None:
    """Ranks and estimates so far, as plain numbers, written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez(beside, key=np.array(key), done=done)
    os.replace(beside, path)


def _load(path: Path, key: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as kept:
            theirs, done = str(kept["key"]), kept["done"]
    except (OSError, ValueError, KeyError) as trouble:
        raise InputError(
            f"{path} is not a checkpoint of a calibration ({trouble}). Remove it to "
            "begin anew."
        ) from None
    if theirs != key:
        raise InputError(
            f"{path} belongs to a calibration with other settings. Name another "
            "checkpoint, or remove it."
        )
    return done
