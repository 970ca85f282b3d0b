"""Fits of many people, each with their own connectome, TR and length; estimates that
borrow strength from the group; one tidy table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from cingulum.brain.brain import Brain
from cingulum.brain.connectome import Connectome
from cingulum.brain.dynamics import with_values
from cingulum.errors import InputError
from cingulum.inference.fitting import FitSettings, fit_problem, make_problem
from cingulum.inference.free_parameters import Free, FreeParameter
from cingulum.inference.objectives import Likelihood, Objective
from cingulum.inference.posterior import Posterior, laplace
from cingulum.inference.problem import Problem, Runs, Theta, split
from cingulum.inference.views import Cleaning
from cingulum.measures import icc
from cingulum.timeseries import TimeSeries

RELIABLE = 0.4
"""ICC below which a parameter is flagged: people then differ less from each other than
runs of one person do."""

TINY_VARIANCE = 1e-12
"""Keeps the variance between people positive, also where all have the same estimate."""


@dataclass(frozen=True, eq=False)
class CohortRecording:
    """One run of one person: the signals, and the person's own connectome where there
    is one."""

    person: str
    signal: TimeSeries
    run: str = "1"
    connectome: Connectome | None = None

    @property
    def name(self) -> str:
        return f"{self.person} run {self.run}"


@dataclass(frozen=True, eq=False)
class CohortFit:
    """Fitted parameters of many recordings.

    table: tidy, one row per recording and coordinate: person, run, parameter, region,
        estimate, low, high, shrinkage
    coordinates: in the unconstrained coordinates, where group effects are linear
    alone: the same before any shrinkage towards the group, from which reliability is
        computed
    group: one row per coordinate: mean and spread between people (coordinates), and the
        effect of every covariate
    """

    table: pd.DataFrame
    coordinates: Float[Tensor, "recording coordinate"]
    alone: Float[Tensor, "recording coordinate"]
    sd: Float[Tensor, "recording coordinate"]
    group: pd.DataFrame
    recordings: Sequence[CohortRecording]

    def wide(self) -> pd.DataFrame:
        """One row per recording, one column per parameter: features like any other."""
        names = (self.table["parameter"] + " " + self.table["region"]).str.strip()
        table = self.table.assign(name=names)
        return table.pivot(index=["person", "run"], columns="name", values="estimate")

    def reliability(self) -> pd.DataFrame:
        """Test-retest ICC(2,1) of every coordinate over the people with two runs,
        flagged where below .4.

        Raises InputError when fewer than five people have two runs.
        """
        pairs = _first_two_runs(self.recordings)
        if len(pairs) < 5:
            raise InputError(
                "Reliability needs at least five people with two runs; came "
                f"{len(pairs)}."
            )
        # From (person, run, coordinate) to what `icc` takes: (coordinate, person, run).
        values = icc(self.alone[torch.tensor(pairs)].permute(2, 0, 1))
        return pd.DataFrame(
            {
                "coordinate": self.group["coordinate"],
                "icc": values,
                "reliable": values >= RELIABLE,
            }
        )


def _first_two_runs(recordings: Sequence[CohortRecording]) -> list[list[int]]:
    """Indices of the first two recordings of everyone who has two."""
    people = pd.Series([recording.person for recording in recordings])
    pairs = []
    for runs in people.groupby(people).groups.values():
        if len(runs) >= 2:
            pairs.append(list(runs[:2]))
    return pairs


def fit_cohort(
    brain: Brain,
    recordings: Sequence[CohortRecording],
    free: Mapping[str, Free],
    *,
    shrink: bool = False,
    covariates: pd.DataFrame | None = None,
    objective: Objective | dict[Objective, float] | None = None,
    cleaning: Cleaning = Cleaning(band=(0.008, 0.25), bins=16),
    show_progress: bool = False,
    **options: Any,
) -> CohortFit:
    """Fit every recording, those of equal TR and length in one batch, with the
    uncertainty of every estimate.

    brain: what all share; a recording's own connectome replaces the brain's, its TR the
        sensor's
    shrink: fit again with a prior that is normal around a group mean (plus covariates'
        effects), whose mean, spread and effects are estimated from all (empirical
        Bayes). Uses other people's data: inside a cross-validation it belongs into the
        folds
    covariates: one row per recording (age, site, medication); z-score them
    objective: default `Likelihood()`; options: further ones of `fit`

    Raises InputError for an empty cohort, recordings or connectomes of other regions,
    two recordings of one name, or covariates that do not match.
    """
    _check_recordings(brain, recordings)
    design = _design(covariates, len(recordings))
    # One of the options of `fit`, named in the signature because everybody wants it.
    options |= {"show_progress": show_progress}
    settings = _settings(brain, free, objective or Likelihood(), cleaning, **options)
    individual = _estimate(settings, recordings, None)
    group = _group_distribution(individual, design.to(individual.coordinates))
    final = individual
    if shrink:
        final = _estimate(settings, recordings, group)
    return CohortFit(
        table=_tidy(final, recordings),
        coordinates=final.coordinates,
        alone=individual.coordinates,
        sd=final.sd,
        group=_group_table(individual.names, group, covariates),
        recordings=recordings,
    )


def _check_recordings(brain: Brain, recordings: Sequence[CohortRecording]) -> None:
    """Refuse recordings that cannot be told apart, or whose regions are not the
    brain's."""
    if not recordings:
        raise InputError("The cohort is empty: give at least one CohortRecording.")
    _check_names(recordings)
    for recording in recordings:
        _check_regions(brain, recording)


def _check_names(recordings: Sequence[CohortRecording]) -> None:
    counts = Counter((recording.person, recording.run) for recording in recordings)
    repeated = [key for key, count in counts.items() if count > 1]
    if repeated:
        names = sorted(f"{person} run {run}" for person, run in repeated)
        raise InputError(
            "Recordings need different names; more than one is called "
            f"{', '.join(names[:3])}."
        )


def _check_regions(brain: Brain, recording: CohortRecording) -> None:
    if not _regions_match(brain, recording):
        raise InputError(
            f"{recording.name}: signal and connectome must name the brain's regions in "
            "the brain's order."
        )


def _regions_match(brain: Brain, recording: CohortRecording) -> bool:
    # Order too: rows of signals and connectome are matched by position.
    if recording.signal.regions != (brain.sensor.channels or brain.regions):
        return False
    own = recording.connectome
    return own is None or own.regions == brain.regions


def _design(
    covariates: pd.DataFrame | None, count: int
) -> Float[Tensor, "recording effect"]:
    """Design matrix of the group: a column of ones, and the covariates."""
    ones = torch.ones(count, 1, dtype=torch.float64)
    if covariates is None:
        return ones
    values = torch.as_tensor(covariates.to_numpy(dtype=float))
    if len(values) != count or not torch.isfinite(values).all():
        raise InputError(
            f"Covariates need a finite row for each of the {count} recordings; came "
            f"{len(values)} rows."
        )
    return torch.cat([ones, values], 1)


@dataclass(frozen=True, eq=False)
class _Settings:
    """What all batches share: how their problems are stated, and how `fit_problem`
    searches them (`search`)."""

    brain: Brain
    free: Mapping[str, Free]
    objective: Objective | dict[Objective, float]
    cleaning: Cleaning
    prepare: Callable[[Brain], Brain]
    runs: Runs
    near_bifurcation: float | None
    search: Mapping[str, Any]

    def problem(self, brain: Brain, signal: TimeSeries) -> Problem:
        return make_problem(
            brain,
            signal,
            self.free,
            self.objective,
            self.prepare,
            self.cleaning,
            self.runs,
            self.near_bifurcation,
        )


def _settings(
    brain: Brain,
    free: Mapping[str, Free],
    objective: Objective | dict[Objective, float],
    cleaning: Cleaning,
    **options: Any,
) -> _Settings:
    """Sort options of `fit` into those of the problem and those of the search."""
    prepare = options.pop("prepare", _unchanged)
    runs = options.pop("runs", Runs())
    near_bifurcation = options.pop("near_bifurcation", None)
    # Newton's method, because intervals need the exact optimum.
    search = {"method": "analytic", "optimiser": "Newton", "steps": 20} | options
    return _Settings(
        brain, free, objective, cleaning, prepare, runs, near_bifurcation, search
    )


def _unchanged(brain: Brain) -> Brain:
    return brain


@dataclass(frozen=True, eq=False)
class _BatchPosterior:
    """The posterior of recordings that were fitted together, and their positions in the
    cohort."""

    positions: list[int]
    posterior: Posterior


@dataclass(frozen=True, eq=False)
class _Estimates:
    """Estimates of every recording, in the order of the cohort; prior: its standard
    deviation."""

    coordinates: Float[Tensor, "recording coordinate"]
    sd: Float[Tensor, "recording coordinate"]
    prior: Float[Tensor, "recording coordinate"]
    batches: list[_BatchPosterior]

    @property
    def names(self) -> list[str]:
        return list(self.batches[0].posterior.names)


@dataclass(frozen=True, eq=False)
class _GroupDistribution:
    """Normal distribution of the coordinates between people.

    expected: of each recording, given its covariates
    spread: standard deviation around it
    effects: of a column of ones and of every covariate
    """

    expected: Float[Tensor, "recording coordinate"]
    spread: Float[Tensor, "coordinate"]
    effects: Float[Tensor, "effect coordinate"]


def _estimate(
    settings: _Settings,
    recordings: Sequence[CohortRecording],
    group: _GroupDistribution | None,
) -> _Estimates:
    """Fit all recordings, under their own priors or under that of a group."""
    batches = []
    for positions in _batches(recordings):
        members = [recordings[i] for i in positions]
        problem = _batch_problem(settings, members)
        if group is not None:
            expected = group.expected[positions]
            problem = _with_group_prior(problem, expected, group.spread)
        fitted = fit_problem(problem, FitSettings(**settings.search))
        batches.append(_BatchPosterior(positions, laplace(fitted)))
    return _in_order(batches)


def _batches(recordings: Sequence[CohortRecording]) -> list[list[int]]:
    """Positions of recordings that one batch can hold: those of the same TR and
    length."""
    batches: dict[tuple[float, int], list[int]] = {}
    for i, recording in enumerate(recordings):
        signal = recording.signal
        batches.setdefault((signal.tr, signal.data.shape[-1]), []).append(i)
    return list(batches.values())


def _in_order(batches: list[_BatchPosterior]) -> _Estimates:
    """Estimates of all batches, in the order of the cohort."""
    positions: list[int] = []
    for batch in batches:
        positions += batch.positions
    order = torch.tensor(positions).argsort()
    posteriors = [batch.posterior for batch in batches]
    # Batches are put behind each other, then sorted back.
    return _Estimates(
        coordinates=torch.cat([posterior.mean for posterior in posteriors])[order],
        sd=torch.cat([posterior.sd for posterior in posteriors])[order],
        prior=torch.cat([posterior.prior for posterior in posteriors])[order],
        batches=batches,
    )


def _batch_problem(settings: _Settings, members: list[CohortRecording]) -> Problem:
    """One problem for recordings of equal TR and length."""
    signal = members[0].signal
    brain = with_values(settings.brain, {"sensor.tr": signal.tr})
    # One connectome for all is not repeated: that of the brain stays without a batch.
    if any(member.connectome is not None for member in members):
        stacked = _stacked_connectomes(brain, members)
        brain = with_values(brain, {"connectome": stacked})
    # All in one batch: their parameters are independent, their gradients computed once.
    data = torch.stack([member.signal.data for member in members])
    return settings.problem(brain, replace(signal, data=data))


def _stacked_connectomes(brain: Brain, members: list[CohortRecording]) -> Connectome:
    """A batch of connectomes: each member's own, or else the brain's."""
    connectomes = [_connectome_of(brain, member) for member in members]
    weights = torch.stack([connectome.weights for connectome in connectomes])
    lengths = _stacked_lengths(brain.connectome, connectomes)
    return Connectome(weights, brain.regions, lengths)


def _connectome_of(brain: Brain, member: CohortRecording) -> Connectome:
    if member.connectome is None:
        return brain.connectome
    return member.connectome


def _stacked_lengths(
    default: Connectome, connectomes: list[Connectome]
) -> Float[Tensor, "member region region"] | None:
    """Tract lengths of every connectome, those of the default where it has none itself;
    None if nobody has any."""
    lengths = []
    for connectome in connectomes:
        own = default.lengths if connectome.lengths is None else connectome.lengths
        if own is not None:
            lengths.append(own)
    if not lengths:
        return None
    if len(lengths) < len(connectomes):
        raise InputError(
            "Some connectomes have tract lengths and others, like the brain's own, "
            "have none."
        )
    return torch.stack(lengths)


def _with_group_prior(
    problem: Problem,
    expected: Float[Tensor, "member coordinate"],
    spread: Float[Tensor, "coordinate"],
) -> Problem:
    """The same problem, its priors replaced by that of the group."""
    means: Theta = split(problem, expected)
    sds: Theta = split(problem, spread)
    kinds: dict[str, FreeParameter] = {}
    for path, kind in problem.free_parameters.items():
        kinds[path] = _GroupPrior(kind, means[path], sds[path])
    return replace(problem, free_parameters=kinds)


class _GroupPrior(FreeParameter):
    """A free parameter whose prior is the group: normal around what is expected of each
    person."""

    def __init__(self, kind: FreeParameter, mean: Tensor, sd: Tensor) -> None:
        self.kind = kind
        self.mean = mean
        self.sd = sd
        self.size = kind.size
        self.names = kind.names
        # Its presence tells that coordinates have a unit in which to report them.
        if hasattr(kind, "transform"):
            self.transform = kind.transform

    def start(self, like: Tensor) -> Tensor:
        # One start for all people, as the search has it.
        return self.mean.mean(0).to(like)

    def spread(self, like: Tensor) -> Tensor:
        return self.sd.to(like)

    def value(self, theta: Tensor) -> Any:
        return self.kind.value(theta)

    def coordinates(self, value: Tensor) -> Tensor:
        return self.kind.coordinates(value)

    def reported(self, theta: Tensor) -> Tensor:
        return self.kind.reported(theta)

    def metadata(self) -> tuple:
        return self.mean, self.sd, self.names

    def log_prior(self, theta: Tensor) -> Tensor:
        return Normal(self.mean, self.sd).log_prob(theta).sum(-1)


def _group_distribution(
    estimates: _Estimates, design: Float[Tensor, "recording effect"], rounds: int = 1000
) -> _GroupDistribution:
    """Maximum likelihood of the normal hierarchical model, by EM.

    The estimates themselves still lean on their individual prior, which matters only
    where the data say little.
    """
    theta = estimates.coordinates
    within = _variance_by_data(estimates)
    between = theta.var(0, correction=0) + TINY_VARIANCE
    # EM is slow where people hardly differ, and a round is cheap.
    for _ in range(rounds):
        effects = _weighted_effects(theta, design, 1 / (between + within))
        updated = _updated_variance(theta - design @ effects, between, within)
        change = (updated / between).log().abs()
        between = updated
        if (change < 1e-6).all():
            break
    return _GroupDistribution(design @ effects, between.sqrt(), effects)


def _variance_by_data(estimates: _Estimates) -> Float[Tensor, "recording coordinate"]:
    """The variance that the data alone would leave: precision of the posterior less
    that of the prior."""
    precision = 1 / estimates.sd**2 - 1 / estimates.prior**2
    # Where the data say next to nothing, the difference may be rounded below zero.
    return 1 / precision.clamp_min(1e-3 / estimates.prior**2)


def _weighted_effects(
    theta: Float[Tensor, "recording coordinate"],
    design: Float[Tensor, "recording effect"],
    weights: Float[Tensor, "recording coordinate"],
) -> Float[Tensor, "effect coordinate"]:
    """Weighted least squares, the weights of every coordinate its own."""
    effects = []
    for values, weight in zip(theta.T, weights.T, strict=True):
        root = weight.sqrt()
        weighted = design * root.unsqueeze(-1)
        # Ordinary least squares of what is multiplied by the root of its weight.
        target = (values * root).unsqueeze(-1)
        effects.append(torch.linalg.lstsq(weighted, target).solution[:, 0])
    return torch.stack(effects, -1)


def _updated_variance(
    residual: Float[Tensor, "recording coordinate"],
    between: Float[Tensor, "coordinate"],
    within: Float[Tensor, "recording coordinate"],
) -> Float[Tensor, "coordinate"]:
    """The variance between people that maximises the expected likelihood."""
    # How far an estimate is believed: 1 where the data alone determine it.
    share = between / (between + within)
    # Square of each person's expected deviation, and the variance that it has left.
    expected = (share * residual) ** 2 + share * within
    return expected.mean(0) + TINY_VARIANCE


def _group_table(
    names: list[str], group: _GroupDistribution, covariates: pd.DataFrame | None
) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "coordinate": names,
            "mean": group.expected.mean(0).numpy(),
            "spread": group.spread,
        }
    )
    if covariates is None:
        return table
    # The first effect is that of the column of ones.
    for name, effect in zip(covariates.columns, group.effects[1:], strict=True):
        table[str(name)] = effect.numpy()
    return table


def _tidy(estimates: _Estimates, recordings: Sequence[CohortRecording]) -> pd.DataFrame:
    """The tables of all batches as one, in the order of the cohort, with person and
    run."""
    tables = []
    for batch in estimates.batches:
        table = batch.posterior.table()
        table["recording"] = [batch.positions[i] for i in table["recording"]]
        tables.append(table)
    table = pd.concat(tables).sort_values("recording", kind="stable")
    table = table.reset_index(drop=True)
    # The positions have served to sort; names replace them.
    rows = [recordings[i] for i in table["recording"]]
    table.insert(0, "person", [recording.person for recording in rows])
    table.insert(1, "run", [recording.run for recording in rows])
    return table.drop(columns="recording")
