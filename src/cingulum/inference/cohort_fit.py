"""Many people at once: own connectome, TR and length each; parameters that lean on the
group; a tidy table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from cingulum.brain.brain import Brain
from cingulum.brain.connectome import Connectome
from cingulum.brain.dynamics import with_values
from cingulum.errors import InputError
from cingulum.inference.fitting import Fit, FitSettings, fit_problem, make_problem
from cingulum.inference.free_parameters import Free, FreeParameter
from cingulum.inference.objectives import Likelihood, Objective
from cingulum.inference.posterior import Posterior, laplace
from cingulum.inference.problem import Runs, Theta, split
from cingulum.inference.views import Cleaning
from cingulum.measures import icc
from cingulum.timeseries import TimeSeries

RELIABLE = 0.4
"""ICC below which a parameter is flagged: differences between people then say less than
differences between runs."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of one person: the signals, and the person's own connectome where there
    is one."""

    person: str
    signal: TimeSeries
    run: str = "1"
    connectome: Connectome | None = None


@dataclass(frozen=True, eq=False)
class CohortFit:
    """Fitted parameters of many recordings.

    table: tidy, a row a recording and coordinate: person, run, parameter, region,
        estimate, low, high, shrinkage
    coordinates: (recording, coordinate), in the unconstrained coordinates where group
        effects are linear
    alone: the same before any leaning on the group: what reliability is told from
    group: a row a coordinate: mean and spread between people (coordinates), and the
        effect of every covariate
    """

    table: pd.DataFrame
    coordinates: Float[Tensor, "recording coordinate"]
    alone: Float[Tensor, "recording coordinate"]
    sd: Float[Tensor, "recording coordinate"]
    group: pd.DataFrame
    recordings: Sequence[Recording]

    def wide(self) -> pd.DataFrame:
        """A row a recording, a column a parameter: features like any other."""
        table = self.table.assign(
            name=(self.table["parameter"] + " " + self.table["region"]).str.strip()
        )
        return table.pivot(index=["person", "run"], columns="name", values="estimate")

    def reliability(self) -> pd.DataFrame:
        """Test-retest ICC(2,1) of every coordinate over the people with two runs,
        flagged where below .4.

        Raises InputError when fewer than five people have two runs.
        """
        people = pd.Series([r.person for r in self.recordings])
        twice = [
            list(index[:2])
            for index in people.groupby(people).groups.values()
            if len(index) >= 2
        ]
        if len(twice) < 5:
            raise InputError(
                "Reliability needs at least five people with two runs; came "
                f"{len(twice)}."
            )
        pairs = self.alone[torch.tensor(twice)].permute(
            2, 0, 1
        )  # (coordinate, person, run)
        values = icc(pairs)
        return pd.DataFrame(
            {
                "coordinate": self.group["coordinate"],
                "icc": values,
                "reliable": values >= RELIABLE,
            }
        )


class _Shrunk(FreeParameter):
    """A free parameter whose prior is the group: normal around each person's own
    expectation."""

    def __init__(self, kind: FreeParameter, mean: Tensor, sd: Tensor) -> None:
        self.kind, self.mean, self.sd = kind, mean, sd
        self.size, self.names = kind.size, kind.names
        if hasattr(kind, "transform"):
            self.transform = kind.transform

    def start(self, like: Tensor) -> Tensor:
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


@dataclass(frozen=True, eq=False)
class _Round:
    coordinates: Tensor
    sd: Tensor
    prior: Tensor
    tables: list[tuple[list[int], Posterior]]


def fit_cohort(
    brain: Brain,
    recordings: Sequence[Recording],
    free: Mapping[str, Free],
    *,
    shrink: bool = False,
    covariates: pd.DataFrame | None = None,
    objective: Objective | dict[Objective, float] | None = None,
    cleaning: Cleaning = Cleaning(band=(0.008, 0.25), bins=16),
    show_progress: bool = False,
    **options: Any,
) -> CohortFit:
    """Fit every recording, those of equal TR and length in one batch, and tell how sure
    each estimate is.

    brain: what all share; a recording's own connectome replaces the brain's, its TR the
        sensor's
    shrink: lean on the group: fitted again with a prior normal around a group mean
        (plus covariates' effects), whose mean, spread and effects are estimated from
        all (empirical Bayes). Uses other people's data: inside a cross-validation it
        belongs into the folds
    covariates: a row a recording (age, site, medication); z-score them
    objective: default `Likelihood()`; options: further ones of `fit`

    Raises InputError for an empty cohort, recordings or connectomes of other regions,
    two recordings of one name, or covariates that do not match.
    """
    _check(brain, recordings)
    design = _design(covariates, len(recordings))
    groups = _alike(recordings)
    options = {
        "objective": objective or Likelihood(),
        "cleaning": cleaning,
        "show_progress": show_progress,
    } | options
    found = _round(brain, recordings, groups, free, None, options)
    design, names = design.to(found.coordinates), _names(found)
    mean, sd, effects = _group(found, design)
    alone = found.coordinates
    if shrink:
        found = _round(brain, recordings, groups, free, (design @ effects, sd), options)
    group = pd.DataFrame({"coordinate": names, "mean": mean, "spread": sd})
    for k, name in enumerate([] if covariates is None else covariates.columns):
        group[str(name)] = effects[k + 1].numpy()
    return CohortFit(
        _tidy(found, recordings), found.coordinates, alone, found.sd, group, recordings
    )


def _check(brain: Brain, recordings: Sequence[Recording]) -> None:
    """Refuse recordings that cannot be told apart, or whose regions are not the
    brain's."""
    if not recordings:
        raise InputError("The cohort is empty: give at least one Recording.")
    names = [(r.person, r.run) for r in recordings]
    twice = {
        f"{person} run {run}" for person, run in names if names.count((person, run)) > 1
    }
    if twice:
        raise InputError(
            "Recordings need different names; more than one is called "
            f"{', '.join(sorted(twice)[:3])}."
        )
    channels = brain.sensor.channels or brain.regions
    for r in recordings:
        if r.signal.regions != channels or (
            r.connectome is not None and r.connectome.regions != brain.regions
        ):
            raise InputError(
                f"{r.person} run {r.run}: signal and connectome must name the brain's "
                "regions in the brain's order."
            )


def _design(covariates: pd.DataFrame | None, count: int) -> Tensor:
    if covariates is None:
        return torch.ones(count, 1, dtype=torch.float64)
    values = torch.as_tensor(covariates.to_numpy(dtype=float))
    if len(values) != count or not torch.isfinite(values).all():
        raise InputError(
            f"Covariates need a finite row for each of the {count} recordings; came "
            f"{len(values)} rows."
        )
    return torch.cat([torch.ones(count, 1, dtype=torch.float64), values], 1)


def _alike(recordings: Sequence[Recording]) -> list[list[int]]:
    """Recordings that one batch can hold: the same TR and length."""
    groups: dict[tuple[float, int], list[int]] = {}
    for i, r in enumerate(recordings):
        groups.setdefault((r.signal.tr, r.signal.data.shape[-1]), []).append(i)
    return list(groups.values())


def _round(
    brain: Brain,
    recordings: Sequence[Recording],
    groups: list[list[int]],
    free: Mapping[str, Free],
    prior: tuple[Tensor, Tensor] | None,
    options: dict[str, Any],
) -> _Round:
    rows: list[Tensor] = [torch.empty(0)] * len(recordings)
    sds: list[Tensor] = list(rows)
    priors: list[Tensor] = list(rows)
    tables = []
    for index in groups:
        found = _fit_group(
            brain,
            [recordings[i] for i in index],
            free,
            prior and (prior[0][index], prior[1]),
            options,
        )
        posterior = laplace(found)
        tables.append((index, posterior))
        for i, row, sd, before in zip(
            index, posterior.mean, posterior.sd, posterior.prior, strict=True
        ):
            rows[i], sds[i], priors[i] = row, sd, before
    return _Round(torch.stack(rows), torch.stack(sds), torch.stack(priors), tables)


def _fit_group(
    brain: Brain,
    members: list[Recording],
    free: Mapping[str, Free],
    prior: tuple[Tensor, Tensor] | None,
    options: dict[str, Any],
) -> Fit:
    brain = with_values(brain, {"sensor.tr": members[0].signal.tr})
    if any(r.connectome is not None for r in members):
        own = [r.connectome or brain.connectome for r in members]
        lengths = [
            brain.connectome.lengths if c.lengths is None else c.lengths for c in own
        ]
        if any(one is None for one in lengths) and any(
            one is not None for one in lengths
        ):
            raise InputError(
                "Some connectomes have tract lengths and others, like the brain's own, "
                "have none."
            )
        joined = (
            None
            if lengths[0] is None
            else torch.stack([one for one in lengths if one is not None])
        )
        together = (torch.stack([c.weights for c in own]), brain.regions, joined)
        brain = with_values(brain, {"connectome": Connectome(*together)})
    signal = replace(
        members[0].signal, data=torch.stack([r.signal.data for r in members])
    )
    choices: dict[str, Any] = {
        "prepare": lambda b: b,
        "runs": Runs(),
        "near_bifurcation": None,
    } | options
    keys = ("objective", "prepare", "cleaning", "runs", "near_bifurcation")
    problem = make_problem(brain, signal, free, **{k: choices[k] for k in keys})
    if prior is not None:
        problem = replace(problem, free_parameters=_leaning(problem, *prior))
    defaults: dict[str, Any] = {
        "method": "analytic",
        "optimiser": "Newton",
        "steps": 20,
    }
    settings: dict[str, Any] = {k: v for k, v in options.items() if k not in keys}
    return fit_problem(problem, FitSettings(**defaults | settings))


def _leaning(problem: Any, mean: Tensor, sd: Tensor) -> dict[str, FreeParameter]:
    means: Theta = split(problem, mean)
    sds: Theta = split(problem, sd)
    return {
        path: _Shrunk(kind, means[path], sds[path])
        for path, kind in problem.free_parameters.items()
    }


def _group(
    found: _Round, design: Tensor, rounds: int = 1000
) -> tuple[np.ndarray, Tensor, Tensor]:
    """Group mean, spread between people, and covariate effects: maximum likelihood of
    the normal hierarchical model.

    By EM; `within` is the variance that the data alone would leave. The estimates
    themselves still lean on their individual prior, which matters only where the data
    say little.
    """
    within = 1 / (1 / found.sd**2 - 1 / found.prior**2).clamp_min(1e-3 / found.prior**2)
    theta, variance = found.coordinates, found.coordinates.var(0, correction=0) + 1e-12
    for _ in range(rounds):
        weights = 1 / (variance + within)
        effects = torch.stack(
            [
                torch.linalg.lstsq(
                    design * w.sqrt().unsqueeze(-1), (t * w.sqrt()).unsqueeze(-1)
                ).solution[:, 0]
                for t, w in zip(theta.T, weights.T, strict=True)
            ],
            -1,
        )
        share = variance / (variance + within)
        left = theta - design @ effects
        before, variance = (
            variance,
            ((share * left) ** 2 + share * within).mean(0) + 1e-12,
        )
        if ((variance / before).log().abs() < 1e-6).all():
            break
    return (design @ effects).mean(0).numpy(), variance.sqrt(), effects


def _names(found: _Round) -> list[str]:
    return list(found.tables[0][1].names)


def _tidy(found: _Round, recordings: Sequence[Recording]) -> pd.DataFrame:
    tables = []
    for index, posterior in found.tables:
        table = posterior.table()
        table["recording"] = [index[i] for i in table["recording"]]
        tables.append(table)
    table = (
        pd.concat(tables).sort_values("recording", kind="stable").reset_index(drop=True)
    )
    table.insert(0, "person", [recordings[i].person for i in table["recording"]])
    table.insert(1, "run", [recordings[i].run for i in table["recording"]])
    return table.drop(columns="recording")
