"""Whether intervals contain the truth as often as they claim: parameters drawn from the
prior, recordings simulated from them, fits, and the ranks of the truths.

Simulation-based calibration (Talts et al. 2018, arXiv:1804.06788): if a truth is drawn
from the prior and a recording from the truth, then the truth is one more draw of the
posterior, and its rank among L draws is uniform on 0 … L.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from scipy.stats import binomtest, chisquare, kstest, linregress
from torch import Tensor
from torch.distributions import Distribution, LogNormal, biject_to

from cingulum.brain.brain import Brain
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.fitting import Fit, FitSettings, fit_problem, make_problem
from cingulum.inference.free_parameters import Free, FreeParameter, Gains, Mapped
from cingulum.inference.objectives import Likelihood, Objective
from cingulum.inference.optimise import fingerprint_of
from cingulum.inference.posterior import laplace, reweighed
from cingulum.inference.problem import (
    Problem,
    Runs,
    Theta,
    at_rest,
    joined,
    split,
    unchanged,
)
from cingulum.inference.views import Cleaning
from cingulum.io.files import write_bytes
from cingulum.progress import track
from cingulum.simulation.simulation import (
    SimulationSettings,
    simulate_candidate,
    time_step,
)
from cingulum.timeseries import TimeSeries

Draws = Float[Tensor, "draw recording coordinate"]
PosteriorSampler = Callable[[Problem, int, int], Draws]
"""A posterior: (problem of many recordings, number of draws, seed) → draws in
unconstrained coordinates."""

LIKELIHOOD_CLEANING = Cleaning(band=(0.008, 0.25), bins=16)

DISCARDED = 60.0
"""Seconds left out at the start of every simulated recording."""

LONGEST_STEP = 0.002
"""Seconds; of the neural and the haemodynamic equations alike."""

PROPOSALS = 50
"""Draws from the prior whose stability is examined in one batch."""


def default_priors() -> dict[str, Free]:
    """What a recording of rest determines of one brain: coupling, neural and
    measurement noise, and a haemodynamic rate.

    Centres are those of a balanced `ReducedWongWang` whose BOLD varies by some tenths
    of a percent; widths are a factor of about 1.5 (coupling, neural noise), 1.65
    (measurement noise) and 1.2 (kappa).
    """
    return {
        "strength": _around(0.35, 0.4),
        "noise": _around(0.015, 0.4),
        "sensor.noise": _around(0.007, 0.5),
        "sensor.response.kappa": _around(0.65, 0.2),
    }


def _around(median: float, width: float) -> LogNormal:
    return LogNormal(float(np.log(median)), width)


@dataclass(frozen=True, eq=False)
class Calibration:
    """The ranks of true values among draws of their posteriors.

    ranks, truths, estimates: one row per fit, one column per coordinate. Rank: how many
        of the draws are below the truth, 0 … `draws`; truths and estimates (means of
        the draws): in the unconstrained coordinates
    refused: share of the prior's draws that have no stable equilibrium by the search's
        own limits. They are drawn again, so that truths come from the prior truncated
        there, which no posterior here knows: few are of no consequence
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
        """How often central intervals contain the truth: one row per coordinate and
        level.

        level: what was asked for; `nominal`: the nearest that ranks among so many draws
        can express; low, high: exact binomial 95 % interval of `covered` (Clopper and
        Pearson 1934)
        """
        rows = []
        for name, ranks in self.ranks.items():
            for level in levels:
                row = _coverage(ranks.to_numpy(), self.draws, level)
                rows.append({"coordinate": name, "level": level, **row})
        return pd.DataFrame(rows)

    def uniformity(self, bins: int | None = None, alarm: float = 0.01) -> pd.DataFrame:
        """Tests of uniform ranks, one row per coordinate: χ² over `bins`, and
        Kolmogorov-Smirnov.

        bins: by default at least five fits in each, at most 20
        alarm: the chance that a calibrated posterior has any `uniform` = False in the
            whole table (Bonferroni, at most)
        """
        bins = bins or max(2, min(20, len(self.ranks) // 5))
        # Ranks are whole numbers; breaking their ties at random (with a fixed seed)
        # makes Kolmogorov-Smirnov's test exact.
        noise = np.random.default_rng(0).random(self.ranks.shape)
        positions = (self.ranks.to_numpy() + noise) / (self.draws + 1)
        threshold = alarm / (2 * positions.shape[1])
        rows = []
        for name, column in zip(self.ranks.columns, positions.T, strict=True):
            tests = _uniformity(column, bins, threshold)
            rows.append({"coordinate": name, **tests})
        return pd.DataFrame(rows)

    def recovery(self) -> pd.DataFrame:
        """How well estimates follow truths, one row per coordinate: correlation, slope,
        and mean error in unconstrained coordinates."""
        rows = []
        for name in self.truths:
            row = _recovery(self.truths[name], self.estimates[name])
            rows.append({"coordinate": name, **row})
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        lines = [
            f"calibration by {len(self.ranks)} fits; {self.refused:.1%} of the "
            f"prior refused, {self.failed} failed"
        ]
        for table in (self.coverage(), self.uniformity(), self.recovery()):
            lines.append(table.to_string(index=False, float_format="%.3g"))
        return "\n".join(lines)


def _coverage(ranks: np.ndarray, draws: int, level: float) -> dict[str, float]:
    """How often the central interval between two draws contains the truth."""
    # The truth is one more draw: of draws + 1 ranks, as many are left out on either
    # side as the level allows.
    outside = round((1 - level) / 2 * (draws + 1))
    covered = (ranks >= outside) & (ranks <= draws - outside)
    count = int(covered.sum())
    interval = binomtest(count, len(ranks)).proportion_ci(0.95, method="exact")
    return {
        "nominal": 1 - 2 * outside / (draws + 1),
        "covered": count / len(ranks),
        "low": interval.low,
        "high": interval.high,
    }


def _recovery(truth: pd.Series, estimate: pd.Series) -> dict[str, float]:
    line = linregress(truth, estimate)
    bias = (estimate - truth).mean()
    return {"r": line.rvalue, "slope": line.slope, "bias": bias}


def _uniformity(
    positions: np.ndarray, bins: int, threshold: float
) -> dict[str, float | bool]:
    """Two tests of whether positions are uniform between 0 and 1."""
    counts, _ = np.histogram(positions, bins, (0.0, 1.0))
    chi_square_p = chisquare(counts).pvalue
    ks_p = kstest(positions, "uniform").pvalue
    return {
        "chi_square_p": chi_square_p,
        "ks_p": ks_p,
        "threshold": threshold,
        # Both must pass: they see different departures.
        "uniform": min(chi_square_p, ks_p) >= threshold,
    }


def by_laplace(problem: Problem, count: int, seed: int) -> Draws:
    """Draws of Laplace's approximation around the optimum that Newton's method
    finds."""
    return joined(laplace(_optimum(problem)).sample(count, seed))


def by_importance(problem: Problem, count: int, seed: int) -> Draws:
    """Laplace's draws reweighed by the objective itself (`reweighed`): they follow a
    skewed posterior too, at twice the time."""
    draws, _ = reweighed(laplace(_optimum(problem)), count, seed)
    return joined(draws)


def _optimum(problem: Problem) -> Fit:
    # Curvature means something only at the optimum itself, which Newton reaches.
    return fit_problem(
        problem, FitSettings(method="analytic", optimiser="Newton", steps=30)
    )


# Each option is set by its name, and has the name that it has in `fit` or `simulate`.
def calibrate(  # noqa: PLR0913
    brain: Brain,
    free: Mapping[str, Free],
    *,
    fits: int = 300,
    duration: float = 864.0,
    prepare: Callable[[Brain], Brain] = unchanged,
    objective: Objective | dict[Objective, float] = Likelihood(),
    cleaning: Cleaning = LIKELIHOOD_CLEANING,
    posterior: PosteriorSampler = by_laplace,
    draws: int = 99,
    batch: int = 50,
    dt: float | None = None,
    vascular_step: float = LONGEST_STEP,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    show_progress: bool = False,
) -> Calibration:
    """Simulation-based calibration: `fits` truths from the prior, each recorded,
    fitted, and ranked.

    free, prepare, objective, cleaning: as in `fit`; recordings are free-running
        simulations of `duration` seconds of the non-linear brain with the sensor's
        noise, from its equilibrium, the first minute left out
    posterior: what is to be checked; `Amortised.sampler` is another
    batch: fits at a time
    dt, vascular_step: s, as in `simulate`; dt None is the longest up to 2 ms that
        divides the TR. Haemodynamics in steps of 10 ms decay more slowly, by γ · 10 ms
        (0.6 % of κ), which a calibration does notice
    checkpoint: a file (.npz, plain numbers) written after every batch, from which the
        same call continues

    Raises InputError for a checkpoint of other settings, or priors of which nearly
    nothing is stable.
    """
    _check_counts(fits, draws, batch)
    setup = _Setup(
        brain=brain,
        free=free,
        prepare=prepare,
        objective=objective if isinstance(objective, dict) else {objective: 1.0},
        cleaning=cleaning,
        duration=duration,
        dt=dt,
        vascular_step=vascular_step,
        posterior=posterior,
        draws=draws,
        batch=batch,
        seed=seed,
    )
    truths, refused = stable_truths(brain, free, fits, prepare, seed)
    file = _Checkpoint.at(checkpoint, setup, truths)
    results = file.read(setup.size)
    batches = range(len(results), fits, batch)
    for first in track(batches, "calibration", show=show_progress):
        part = truths[first : first + batch]
        # Numbered by fit, so that an interrupted calibration continues with the seeds
        # it would have had.
        ranked = _ranked(setup, part, seed + 1 + first)
        results = np.concatenate([results, ranked])
        file.write(results)
    return _calibration(setup, truths, results, refused)


def _check_counts(fits: int, draws: int, batch: int) -> None:
    if min(fits, draws, batch) < 1:
        raise InputError(
            f"fits, draws and batch must be at least 1; came {fits}, {draws} and "
            f"{batch}."
        )


Results = Float[np.ndarray, "fit 2 coordinate"]
"""Of every fit the ranks of the truths and the means of the draws; NaN where it
failed."""


def _calibration(
    setup: _Setup, truths: Tensor, results: Results, refused: float
) -> Calibration:
    """The tables, without the fits that failed."""
    names = setup.problem_without_recording.coordinate_names()
    succeeded = np.isfinite(results).all((1, 2))

    def table(values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values[succeeded], columns=names)

    return Calibration(
        ranks=table(results[:, 0]).astype(int),
        truths=table(truths.numpy()),
        estimates=table(results[:, 1]),
        draws=setup.draws,
        refused=refused,
        failed=int((~succeeded).sum()),
    )


@dataclass(frozen=True, eq=False)
class _Setup:
    """What is the same for every batch: how recordings are simulated and fitted, and
    the posterior that is checked."""

    brain: Brain
    free: Mapping[str, Free]
    prepare: Callable[[Brain], Brain]
    objective: dict[Objective, float]
    cleaning: Cleaning
    duration: float
    dt: float | None
    vascular_step: float
    posterior: PosteriorSampler
    draws: int
    batch: int
    seed: int

    @cached_property
    def problem_without_recording(self) -> Problem:
        return bare_problem(self.brain, self.free, self.prepare)

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return sum(
            kind.size
            for kind in self.problem_without_recording.free_parameters.values()
        )

    def recordings(self, truths: Tensor, seed: int) -> TimeSeries:
        return simulate_recordings(
            self.problem_without_recording,
            truths,
            self.duration,
            dt=self.dt,
            vascular_step=self.vascular_step,
            seed=seed,
        )

    def draw(self, recorded: TimeSeries, seed: int) -> Draws:
        """Draws of the posterior of every recording. Raises ConvergenceError if one of
        them could not be fitted."""
        problem = make_problem(
            self.brain,
            recorded,
            self.free,
            self.objective,
            self.prepare,
            self.cleaning,
            Runs(),
            near_bifurcation=None,
        )
        return self.posterior(problem, self.draws, seed)

    def fingerprint(self, truths: Tensor) -> str:
        """What a checkpoint must have been written with."""
        functions = [self.prepare, self.posterior]
        aims = list(self.objective.items())
        numbers = (
            self.duration,
            self.dt,
            self.vascular_step,
            self.seed,
            self.draws,
            self.batch,
        )
        return fingerprint_of(
            self.brain, truths, self.cleaning, functions, aims, numbers
        )


def _ranked(
    setup: _Setup, truths: Float[Tensor, "fit coordinate"], seed: int
) -> Results:
    """Results of one batch."""
    recorded = setup.recordings(truths, seed)
    try:
        drawn = setup.draw(recorded, seed)
    except ConvergenceError:
        # At least one of them failed; which, only fits of single recordings can tell.
        drawn = _drawn_singly(setup, recorded, seed)
    ranks = (drawn < truths).sum(0).to(drawn)
    succeeded = torch.isfinite(drawn).all(0)
    ranks = torch.where(succeeded, ranks, torch.nan)
    return torch.stack([ranks, drawn.mean(0)], 1).numpy()


def _drawn_singly(setup: _Setup, recorded: TimeSeries, seed: int) -> Draws:
    """Draws for each recording fitted by itself; NaN where that fails."""
    parts = []
    for i, data in enumerate(recorded.data):
        single = replace(recorded, data=data.unsqueeze(0))
        parts.append(_drawn_or_nan(setup, single, seed + i))
    return torch.cat(parts, 1)


def _drawn_or_nan(setup: _Setup, single: TimeSeries, seed: int) -> Draws:
    try:
        return setup.draw(single, seed)
    except ConvergenceError:
        shape = (setup.draws, 1, setup.size)
        return single.data.new_full(shape, torch.nan)


@dataclass(frozen=True)
class _Checkpoint:
    """Results of finished batches in a file, valid for one fingerprint; without a path,
    nothing is written or read."""

    path: Path | None
    key: str

    @classmethod
    def at(cls, path: str | Path | None, setup: _Setup, truths: Tensor) -> _Checkpoint:
        if path is None or path == "":
            return cls(None, "")
        return cls(Path(path), setup.fingerprint(truths))

    def read(self, size: int) -> Results:
        """What is finished; of no fits if nothing is. Raises InputError for a file that
        belongs to another calibration, or to none."""
        if self.path is None or not self.path.exists():
            return np.zeros((0, 2, size))
        key, results = _read_checkpoint(self.path)
        if key != self.key:
            raise InputError(
                f"{self.path} belongs to a calibration with other settings. Name "
                "another checkpoint, or remove it."
            )
        return results

    def write(self, results: Results) -> None:
        """Plain numbers, written whole or not at all."""
        if self.path is None:
            return
        # Through a buffer, as numpy would append .npz to any other ending.
        buffer = io.BytesIO()
        np.savez(buffer, key=np.array(self.key), done=results)
        write_bytes(self.path, buffer.getvalue())


def _read_checkpoint(path: Path) -> tuple[str, Results]:
    """Key and results. Raises InputError for any other file."""
    try:
        # Never unpickle: a file may come from anywhere.
        with np.load(path, allow_pickle=False) as content:
            return str(content["key"]), content["done"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a checkpoint of a calibration ({error}). Remove it to "
            "start again."
        ) from None


def simulate_recordings(
    problem: Problem,
    truths: Float[Tensor, "fit coordinate"],
    duration: float,
    *,
    dt: float | None = None,
    vascular_step: float = LONGEST_STEP,
    seed: int = 0,
) -> TimeSeries:
    """Free-running recordings (fit, region or channel, time) of brains at these
    coordinates."""
    brain = problem.candidate(split(problem, truths))
    batch = (len(truths),)
    # From the equilibrium, so that a minute is enough to forget the start.
    settings = SimulationSettings(
        dt=time_step(brain.sensor.tr, LONGEST_STEP) if dt is None else dt,
        start=at_rest(brain, batch),
        batch=batch,
        discard=DISCARDED,
        vascular_step=vascular_step,
        seed=seed,
    )
    return simulate_candidate(brain, duration, settings).signal


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
    parts: list[Tensor] = []
    drawn = kept = 0
    while kept < count:
        # The constant lets a small count meet some bad luck.
        if drawn >= 20 * (count + 20):
            raise InputError(
                f"Of {drawn} draws from the priors {kept} have a stable equilibrium "
                "with margin. Centre 'strength' lower, or look at one brain with "
                "`cingulum.stability`."
            )
        # Far apart, so that batches of one seed are not those of a neighbouring seed.
        theta = _drawn_from_priors(problem, free, PROPOSALS, seed + 7919 * drawn)
        stable = joined(theta)[_stable(problem, theta)]
        parts.append(stable)
        drawn += PROPOSALS
        kept += len(stable)
    return torch.cat(parts)[:count], 1 - kept / drawn


def bare_problem(
    brain: Brain, free: Mapping[str, Free], prepare: Callable[[Brain], Brain]
) -> Problem:
    """The problem without a recording: enough to name its coordinates, and to know
    which of them are stable."""
    n = len(brain.sensor.channels or brain.regions)
    # The connectivity of a recording whose regions have nothing in common.
    placeholder = torch.eye(n, dtype=brain.connectome.weights.dtype)
    return make_problem(
        brain,
        placeholder,
        free,
        _indifferent,
        prepare,
        Cleaning(bins=2),
        Runs(),
        near_bifurcation=None,
    )


def _indifferent(model: object, recorded: object) -> Tensor:
    """An objective for which every model is as good."""
    return torch.zeros(())


def _drawn_from_priors(
    problem: Problem, free: Mapping[str, Free], count: int, seed: int
) -> Theta:
    theta = {}
    # torch.distributions draw from the global generator, which is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for path, kind in problem.free_parameters.items():
            drawn = _drawn_from_prior(free[path], kind, count)
            theta[path] = drawn.to(problem.brain.connectome.weights)
    return theta


def _drawn_from_prior(
    prior: Free, kind: FreeParameter, count: int
) -> Float[Tensor, "count size"]:
    """Unconstrained coordinates of one free parameter, drawn from its prior."""
    if isinstance(prior, Gains):
        return prior.spread * torch.randn(count, kind.size)
    if isinstance(prior, Mapped):
        level = _unconstrained(prior.prior, (count, 1))
        slopes = prior.spread * torch.randn(count, kind.size - 1).to(level)
        return torch.cat([level, slopes], -1)
    return _unconstrained(prior, (count, kind.size))


def _unconstrained(
    prior: Distribution, shape: tuple[int, int]
) -> Float[Tensor, "count size"]:
    """Draws of a distribution, mapped from its support to the real line."""
    values = prior.sample(shape[:1]).reshape(shape)
    return biject_to(prior.support).inv(values)


def _stable(problem: Problem, theta: Theta) -> Bool[Tensor, "count"]:
    """Which points have an equilibrium that the search would keep."""
    try:
        with torch.no_grad():
            return problem.analytic(theta).stable
    except ConvergenceError:
        # At least one cannot be assessed; which, only single points can tell.
        points = _single_points(theta)
    if len(points) == 1:
        return torch.zeros(1, dtype=torch.bool)
    return torch.cat([_stable(problem, point) for point in points])


def _single_points(theta: Theta) -> list[Theta]:
    count = len(joined(theta))
    return [_point(theta, i) for i in range(count)]


def _point(theta: Theta, i: int) -> Theta:
    # A slice, not an index: the batch dimension stays.
    return {path: part[i : i + 1] for path, part in theta.items()}
