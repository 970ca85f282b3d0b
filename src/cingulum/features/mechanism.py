"""Mechanism: the fitted parameters of a whole-brain model are features like any
other."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch.distributions import Distribution, LogNormal, biject_to

from cingulum.brain import Brain, Connectome, balanced, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.features.feature import Column, Feature, Measurement
from cingulum.inference import CohortRecording, Likelihood, fc_error, fit, fit_cohort
from cingulum.io.visit import Visit
from cingulum.measures import fc
from cingulum.signals.atlas import Atlas, pain_atlas, told
from cingulum.signals.parcellation import regional_series
from cingulum.signals.visit_data import VisitData
from cingulum.timeseries import TimeSeries, check_signals


def atlas_connectome(atlas: Atlas) -> Connectome:
    """Distance-rule connectome of an atlas, for cohorts without tractography."""
    return distance_rule(
        torch.as_tensor(atlas.centres, dtype=torch.float64), atlas.regions
    )


def mechanism_priors(n: int) -> dict[str, Distribution]:
    """What is free in a visit's brain: global coupling, and recurrent excitation and
    noise of every region.

    The priors are narrow: six minutes of BOLD say little about one region.
    """
    return {
        "strength": LogNormal(math.log(0.4), 0.4),
        "mass.w_plus": LogNormal(math.log(1.4), 0.05).expand([n]),
        "noise": LogNormal(math.log(0.01), 0.2).expand([n]),
    }


AMPLITUDE = 0.012
"""Percent: overall SD of the BOLD that the default brain makes with coupling .4 and
noise .02. Recorded amplitude depends on field strength, echo time and voxel size, so
the likelihood sees signals scaled to this one."""


def physiology_priors() -> dict[str, Distribution]:
    """What six minutes can tell with an interval: one value a brain of coupling and of
    neural and measurement noise."""
    return {
        "strength": LogNormal(math.log(0.4), 0.5),
        "noise": LogNormal(math.log(0.015), 0.7),
        "sensor.noise": LogNormal(math.log(0.7 * AMPLITUDE), 0.7),
    }


class Mechanism(Feature):
    """A whole-brain model fitted to each visit's parcellated BOLD, all visits in one
    batch, each for itself.

    brain: the model; a visit's own connectome, where its derivatives hold one for the
        atlas, replaces the brain's
    free: by parameter path, priors as for `fit`; default: coupling, and recurrent
        excitation and noise by region
    objective: a connectivity objective as for `fit` (default `fc_error`, which sees the
        level of connectivity: without it the coupling is not determined,
        docs/decisions/004), or `Likelihood()`. Only the likelihood gives honest
        intervals, and only then is every column followed by its standard deviation (`sd
        …`). The likelihood sees each visit's signals scaled to one overall amplitude
        (AMPLITUDE).
    Columns are parameters in units of their priors (unconstrained value minus prior
    mean, by prior SD), which makes them comparable without looking at other people. The
    table's `attrs` carry the modelled and recorded connectivity of every visit, their
    correlation and the loop gain.
    """

    name: ClassVar = "mechanism"
    unit: ClassVar = "prior SD"
    meaning: ClassVar = (
        "fitted coupling, recurrent excitation and noise level of the whole-brain model"
    )
    needs: ClassVar = ("bold", "mask", "confounds")
    fitted: ClassVar = 20

    def __init__(
        self,
        brain: Brain | None = None,
        free: Mapping[str, Distribution] | None = None,
        *,
        atlas: Atlas | None = None,
        connectome: Connectome | None = None,
        objective: Any = fc_error,
        steps: int = 120,
        name: str = "mechanism",
        meaning: str | None = None,
    ) -> None:
        self.atlas = atlas or pain_atlas()
        self.brain = brain or Brain(
            ReducedWongWang(), connectome or atlas_connectome(self.atlas)
        )
        self.free = free or mechanism_priors(len(self.atlas.regions))
        self.objective, self.steps = objective, steps
        self.likely = isinstance(objective, Likelihood)
        if self.likely:  # its graphs are large, and larger batches gain no time
            self.fitted = 5  # type: ignore[misc]
        self.name = name  # type: ignore[misc]
        self.meaning = meaning or type(self).meaning  # type: ignore[misc]
        stat = "mean_timeseries" if self.likely else "pearsoncorrelation_relmat"
        self.file = (  # type: ignore[misc]
            f"func/{{visit}}_atlas-{self.atlas.name}_desc-{name}_stat-{stat}.tsv"  # type: ignore[misc]
        )
        if self.brain.regions != self.atlas.regions:
            raise InputError(
                f"The connectome must have the {len(self.atlas.regions)} regions of "
                "the atlas; it has "
                f"{len(self.brain.regions)}."
            )

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        return (
            *super().kinds(visit),
            *(["connectome"] if visit.has("connectome") else []),
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            **told(self.atlas),
            "Mass": type(self.brain.mass).__name__,
            "Free": {path: str(prior) for path, prior in self.free.items()},
            "Objective": getattr(
                self.objective, "__name__", type(self.objective).__name__
            ),
            "Steps": self.steps,
            "ModelSHA256": _digest(self.brain, self.free, self.objective),
        }

    def measure(self, opened: VisitData) -> Measurement:
        """Connectivity (region, region), or signals (region, time) for the likelihood,
        and the visit's own connectome behind it, where there is one."""
        series, _ = regional_series(opened.bold, self.atlas)
        check_signals(series, str(opened.visit["bold"]))
        signals = series.data.double()
        if self.likely:
            signals = signals - signals.mean(-1, keepdim=True)
            signals = signals * (AMPLITUDE / signals.std())
        values = signals.numpy() if self.likely else fc(signals).numpy()
        own, n = opened.connectome, len(self.atlas.regions)
        if own is not None and own.shape != (n, n):
            raise InputError(
                f"{opened.visit['connectome']}: expected {n} × {n} weights, in the "
                f"order of {self.atlas.name}; came "
                f"{own.shape}."
            )
        details = {
            **opened.bold.settings,
            "Connectome": "group" if own is None else "own",
        }
        return Measurement(
            values if own is None else np.hstack([values, own]), details=details
        )

    def columns(self) -> list[Column]:
        names = [
            name
            for path, prior in self.free.items()
            for name in self._names(path, prior)
        ]
        sds = [f"sd {name}" for name in names] if self.likely else []
        return [
            *[Column(name, self.unit, f"fitted {name}") for name in names],
            *[
                Column(name, self.unit, "standard deviation of the estimate (Laplace)")
                for name in sds
            ],
        ]

    def finish(
        self, measured: Sequence[Measurement], show_progress: bool = False
    ) -> pd.DataFrame:
        n, own = (
            len(self.atlas.regions),
            [one.details.get("Connectome") == "own" for one in measured],
        )
        values = [torch.as_tensor(one.values, dtype=torch.float64) for one in measured]
        weights = [
            v[:, -n:] if mine else None for v, mine in zip(values, own, strict=True)
        ]
        values = [v[:, :-n] if mine else v for v, mine in zip(values, own, strict=True)]
        connectomes = [
            None if w is None else Connectome(w, self.atlas.regions).normalised()
            for w in weights
        ]
        if self.likely:
            return self._by_likelihood(measured, values, connectomes, show_progress)
        recorded, brain = torch.stack(values), self.brain
        if any(own):
            every = [(c or brain.connectome).weights.double() for c in connectomes]
            brain = with_values(
                brain, {"connectome": Connectome(torch.stack(every), brain.regions)}
            )
        found = fit(
            brain,
            recorded,
            self.free,
            objective=self.objective,
            prepare=balanced,
            method="analytic",
            steps=self.steps,
            patience=None,
            show_progress=show_progress,
        )
        columns = {}
        for path, prior in self.free.items():
            standard = _standardise(
                found.estimates[path].reshape(len(measured), -1), prior
            )
            columns.update(dict(zip(self._names(path, prior), standard.T, strict=True)))
        table = pd.DataFrame(columns)
        told = {
            "fc": found.fc,
            "recorded": recorded,
            "fc_r": found.fc_r,
            "loop_gain": found.loop_gain,
        }
        table.attrs = {name: value.detach().numpy() for name, value in told.items()}
        return table

    def _by_likelihood(
        self,
        measured: Sequence[Measurement],
        values: list[torch.Tensor],
        connectomes: list[Connectome | None],
        show_progress: bool,
    ) -> pd.DataFrame:
        trs = [float(one.details["RepetitionTime"]) for one in measured]
        rows = [
            CohortRecording(
                f"{i:06d}",
                TimeSeries(v, tr, self.atlas.regions, "percent"),
                connectome=c,
            )
            for i, (v, tr, c) in enumerate(zip(values, trs, connectomes, strict=True))
        ]
        found = fit_cohort(
            self.brain,
            rows,
            self.free,
            objective=self.objective,
            prepare=balanced,
            show_progress=show_progress,
        )
        priors = [
            prior for path, prior in self.free.items() for _ in self._names(path, prior)
        ]
        centre, spread = np.array([_unconstrained(prior) for prior in priors]).T
        mean, sd = (
            (found.coordinates.numpy() - centre) / spread,
            found.sd.numpy() / spread,
        )
        return pd.DataFrame(
            np.hstack([mean, sd]), columns=[column.name for column in self.columns()]
        )

    def _names(self, path: str, prior: Distribution) -> list[str]:
        return (
            [f"{path} {region}" for region in self.atlas.regions]
            if len(prior.batch_shape)
            else [path]
        )


def physiology(
    atlas: Atlas | None = None, connectome: Connectome | None = None
) -> Mechanism:
    """Global coupling and noise of each visit's brain, with their standard deviations:
    fitted by likelihood."""
    return Mechanism(
        free=physiology_priors(),
        atlas=atlas,
        connectome=connectome,
        objective=Likelihood(),
        name="physiology",
        meaning="global coupling, neural noise and measurement noise of the "
        "whole-brain model, with uncertainty",
    )


def _digest(*parts: Any) -> str:
    """What tells one model from another: all its numbers, hashed."""
    digest = hashlib.sha256()
    for part in parts:
        _feed(digest, part)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(value.detach().double().contiguous().numpy().tobytes())
    elif isinstance(
        value, Distribution
    ):  # draws with a fixed seed tell one prior from another, whatever its kind
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _feed(digest, value.sample((4,)))
    elif is_dataclass(value):
        digest.update(type(value).__name__.encode())
        for part in fields(value):
            _feed(digest, getattr(value, part.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    else:
        digest.update(getattr(value, "__qualname__", repr(value)).encode())


def _standardise(values: torch.Tensor, prior: Distribution) -> np.ndarray:
    """Unconstrained values against the prior's own unconstrained spread."""
    centre, spread = _unconstrained(prior)
    return ((biject_to(prior.support).inv(values) - centre) / spread).numpy()


def _unconstrained(prior: Distribution) -> tuple[float, float]:
    """Mean and SD of a prior in unconstrained coordinates, estimated once with a fixed
    seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = biject_to(prior.support).inv(prior.sample((4000,)).double())
    return drawn.mean().item(), drawn.std().item()
