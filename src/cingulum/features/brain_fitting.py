"""A whole-brain model fitted to regional BOLD, and its parameters as columns: what the
features of the mechanism share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.distributions import Distribution, LogNormal, biject_to

from cingulum.brain import Brain, Connectome, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.errors import InputError
from cingulum.features.feature import (
    Column,
    ColumnKind,
    FeatureRows,
    Measurement,
    Settings,
    standard_error_name,
)
from cingulum.inference import CohortRecording, Likelihood, fit, fit_cohort
from cingulum.measures import fc
from cingulum.signals.atlas import Atlas, atlas_metadata, has_positions
from cingulum.signals.regional_signals import regional_run
from cingulum.signals.visit_connectome import own_connectome
from cingulum.signals.visit_data import VisitData
from cingulum.simulation import balanced
from cingulum.timeseries import TimeSeries, check_signals

AMPLITUDE = 0.012
"""Percent: overall SD of the BOLD that the default brain makes with coupling 0.4 and
noise 0.02. Recorded amplitude depends on field strength, echo time and voxel size, so
the likelihood is computed on signals scaled to this one."""

UNIT = "prior SD"

LIKELIHOOD_BATCH = 5
"""Visits that are fitted together by likelihood: its graphs are large, and larger
batches gain no time."""

CONNECTIVITY_BATCH = 20
"""Visits that are fitted together by a connectivity objective."""

Priors = Mapping[str, Distribution]


# The same seed wherever a prior is sampled: columns and keys must not vary.
SEED = 0
DRAWS = 4000


def atlas_connectome(atlas: Atlas) -> Connectome:
    """Distance-rule connectome of an atlas, for cohorts without tractography; of
    regions known by name only, equal connections, which every visit's own replace."""
    if not has_positions(atlas):
        n = len(atlas.regions)
        equal = (torch.ones(n, n, dtype=torch.float64) - torch.eye(n)) / n
        return Connectome(equal, atlas.regions)
    centres = torch.as_tensor(atlas.centres, dtype=torch.float64)
    return distance_rule(centres, atlas.regions)


def mechanism_priors(n: int) -> dict[str, Distribution]:
    """What is free in a visit's brain: global coupling, and recurrent excitation and
    noise of each of n regions.

    The priors are narrow: six minutes of BOLD say little about one region.
    """
    return {
        "strength": LogNormal(math.log(0.4), 0.4),
        "mass.w_plus": LogNormal(math.log(1.4), 0.05).expand([n]),
        "noise": LogNormal(math.log(0.01), 0.2).expand([n]),
    }


def physiology_priors() -> dict[str, Distribution]:
    """What six minutes can tell with an interval: one value per brain of coupling and
    of neural and measurement noise."""
    return {
        "strength": LogNormal(math.log(0.4), 0.5),
        "noise": LogNormal(math.log(0.015), 0.7),
        "sensor.noise": LogNormal(math.log(0.7 * AMPLITUDE), 0.7),
    }


@dataclass(frozen=True, eq=False)
class BrainFitting:
    """How a brain is fitted to each visit, all visits in one batch, each for itself.

    atlas: regions; brain: the model, on those regions
    free: priors by parameter path, as for `fit`
    objective: as for `fit`
    steps: of the optimiser
    needs_own_connectome: whether every visit must have its own, since nothing is known
        of connections otherwise
    """

    atlas: Atlas
    brain: Brain
    free: Priors
    objective: Any
    steps: int
    needs_own_connectome: bool = False

    def __post_init__(self) -> None:
        # Names and order: weights of other regions would be fitted without an error.
        if self.brain.regions != self.atlas.regions:
            raise InputError(
                f"The connectome must have the {len(self.atlas.regions)} regions of "
                f"the atlas; it has {len(self.brain.regions)}."
            )

    @property
    def by_likelihood(self) -> bool:
        """Whether the fit gives standard deviations."""
        return isinstance(self.objective, Likelihood)

    @property
    def batch_size(self) -> int:
        """Visits that are fitted together."""
        if self.by_likelihood:
            return LIKELIHOOD_BATCH
        return CONNECTIVITY_BATCH

    @property
    def statistic(self) -> str:
        """The `stat-` of the file that a visit's signals are kept in."""
        if self.by_likelihood:
            return "mean_timeseries"
        return "pearsoncorrelation_relmat"

    def settings(self) -> Settings:
        objective = self.objective
        name = getattr(objective, "__name__", type(objective).__name__)
        return {
            **atlas_metadata(self.atlas),
            "Mass": type(self.brain.mass).__name__,
            "Free": {path: str(prior) for path, prior in self.free.items()},
            "Objective": name,
            "Steps": self.steps,
            "ModelSHA256": digest_of(self.brain, self.free, objective),
        }

    def measure(self, data: VisitData) -> Measurement:
        """Connectivity (region, region), or signals (region, time) for the likelihood,
        with the visit's own connectome behind it, where there is one."""
        run = regional_run(data, self.atlas)
        # A brain cannot be fitted to a region without a signal.
        check_signals(run.series, str(run.source))
        values = self._values(run.series.data.double())
        own = own_connectome(data.visit, self.atlas)
        if own is None and self.needs_own_connectome:
            raise InputError(
                f"{data.visit.name}: only the names of the regions of "
                f"{self.atlas.name} are known, so that their connections cannot be "
                "estimated from distances, and the visit has no connectome of its own. "
                "Give --connectome (in a study file: connectome), or the image of the "
                "atlas with --atlas."
            )
        source = "group"
        if own is not None:
            # Behind the values, so that a measurement stays a single matrix.
            values = np.hstack([values, own])
            source = "own"
        details = {**run.settings, "Connectome": source}
        return Measurement(values, details=details)

    def _values(self, signals: Tensor) -> np.ndarray:
        if not self.by_likelihood:
            return fc(signals).numpy()
        # One factor for all regions: their amplitudes relative to each other are data.
        signals = signals - signals.mean(-1, keepdim=True)
        signals = signals * (AMPLITUDE / signals.std())
        return signals.numpy()

    def columns(self) -> list[Column]:
        """Estimates and, of a fit by likelihood, then their standard deviations."""
        estimates: list[Column] = []
        for path, prior in self.free.items():
            estimates += self._columns_of(path, prior)
        if not self.by_likelihood:
            return estimates
        return [*estimates, *[_error_of(column) for column in estimates]]

    def _columns_of(self, path: str, prior: Distribution) -> list[Column]:
        """One column for a global parameter, one per region for a regional one."""
        if not prior.batch_shape:
            return [Column(path, UNIT, f"fitted {path}", parameter=path)]
        columns = []
        for region in self.atlas.regions:
            name = f"{path} {region}"
            meaning = f"fitted {name}"
            columns.append(Column(name, UNIT, meaning, parameter=path, region=region))
        return columns

    def rows(
        self, measurements: Sequence[Measurement], show_progress: bool = False
    ) -> FeatureRows:
        """Fit all visits; parameters in units of their priors: unconstrained value
        minus prior mean, divided by the prior SD."""
        recordings = [self._split(measurement) for measurement in measurements]
        if self.by_likelihood:
            return self._rows_by_likelihood(recordings, show_progress)
        return self._rows_by_connectivity(recordings, show_progress)

    def _split(self, measurement: Measurement) -> _Recording:
        """A measurement as recorded values and the visit's own connectome."""
        values = torch.as_tensor(measurement.values, dtype=torch.float64)
        tr = float(measurement.details.get("RepetitionTime", math.nan))
        if measurement.details.get("Connectome") != "own":
            return _Recording(values, None, tr)
        n = len(self.atlas.regions)
        own = Connectome(values[:, -n:], self.atlas.regions).normalised()
        return _Recording(values[:, :-n], own, tr)

    def _rows_by_connectivity(
        self, recordings: Sequence[_Recording], show_progress: bool
    ) -> FeatureRows:
        recorded = torch.stack([recording.values for recording in recordings])
        fitted = fit(
            self._brain_of(recordings),
            recorded,
            self.free,
            objective=self.objective,
            prepare=balanced,
            method="analytic",
            steps=self.steps,
            # In a batch, stopping early for some visits would depend on the others.
            patience=None,
            show_progress=show_progress,
        )
        evidence = {
            "fc": fitted.fc,
            "recorded": recorded,
            "fc_r": fitted.fc_r,
            "loop_gain": fitted.loop_gain,
        }
        table = self._estimates_table(fitted.estimates, len(recordings))
        return FeatureRows(table, _as_arrays(evidence))

    def _estimates_table(
        self, estimates: Mapping[str, Tensor], visits: int
    ) -> pd.DataFrame:
        """Estimates of all visits as columns, in units of their priors."""
        blocks = []
        for path, prior in self.free.items():
            values = estimates[path].reshape(visits, -1)
            blocks.append(in_prior_units(values, prior))
        return self._table(blocks)

    def _table(self, blocks: Sequence[np.ndarray]) -> pd.DataFrame:
        """Blocks of columns, (visit, column) each, as one table with names."""
        names = [column.name for column in self.columns()]
        return pd.DataFrame(np.hstack(blocks), columns=names)

    def _brain_of(self, recordings: Sequence[_Recording]) -> Brain:
        """The model, with a batch of connectomes where some visit has its own."""
        if all(recording.connectome is None for recording in recordings):
            return self.brain
        weights = []
        for recording in recordings:
            connectome = recording.connectome or self.brain.connectome
            weights.append(connectome.weights.double())
        batch = Connectome(torch.stack(weights), self.brain.regions)
        return with_values(self.brain, {"connectome": batch})

    def _rows_by_likelihood(
        self, recordings: Sequence[_Recording], show_progress: bool
    ) -> FeatureRows:
        fitted = fit_cohort(
            self.brain,
            self._cohort_of(recordings),
            self.free,
            objective=self.objective,
            prepare=balanced,
            show_progress=show_progress,
        )
        # Standardised with the prior, not with the cohort: a row must not depend on
        # other people.
        mean, spread = self._prior_scale()
        estimates = (fitted.coordinates.numpy() - mean) / spread
        errors = fitted.sd.numpy() / spread
        return FeatureRows(self._table([estimates, errors]))

    def _cohort_of(self, recordings: Sequence[_Recording]) -> list[CohortRecording]:
        cohort = []
        for i, recording in enumerate(recordings):
            regions = self.atlas.regions
            series = TimeSeries(recording.values, recording.tr, regions, "percent")
            # Numbers of equal length sort in the order of the visits.
            label = f"{i:06d}"
            connectome = recording.connectome
            cohort.append(CohortRecording(label, series, connectome=connectome))
        return cohort

    def _prior_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Unconstrained mean and SD of every coordinate's prior, (coordinate,) each."""
        scales = []
        for path, prior in self.free.items():
            count = len(self._columns_of(path, prior))
            scales += [unconstrained_scale(prior)] * count
        mean, spread = np.array(scales).T
        return mean, spread


@dataclass(frozen=True, eq=False)
class _Recording:
    """What was recorded at a visit: connectivity or signals; TR in s."""

    values: Tensor
    connectome: Connectome | None
    tr: float


def _error_of(column: Column) -> Column:
    """The column of an estimate's standard deviation."""
    meaning = "standard deviation of the estimate (Laplace)"
    name = standard_error_name(column.name)
    return Column(name, UNIT, meaning, ColumnKind.STANDARD_ERROR)


def _as_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in tensors.items()}


def in_prior_units(values: Tensor, prior: Distribution) -> np.ndarray:
    """Unconstrained values against the prior's own unconstrained spread."""
    centre, spread = unconstrained_scale(prior)
    return ((biject_to(prior.support).inv(values) - centre) / spread).numpy()


def unconstrained_scale(prior: Distribution) -> tuple[float, float]:
    """Mean and SD of a prior in unconstrained coordinates, estimated with a fixed
    seed."""
    draws = biject_to(prior.support).inv(_draws(prior, DRAWS).double())
    return draws.mean().item(), draws.std().item()


def _draws(prior: Distribution, count: int) -> Tensor:
    """Draws that are the same every time, and differ between any two priors, whatever
    their kind."""
    # The generator of the caller goes on as if nothing had been drawn.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return prior.sample((count,))


def digest_of(*parts: Any) -> str:
    """A hash of everything in which two models may differ."""
    digest = hashlib.sha256()
    for part in parts:
        _add_to_digest(digest, part)
    # 64 bits are plenty to tell the models of a study apart.
    return digest.hexdigest()[:16]


def _add_to_digest(digest: hashlib._Hash, value: Any) -> None:
    # Numbers, not `repr`, which rounds tensors and abbreviates long ones.
    if isinstance(value, torch.Tensor):
        digest.update(value.detach().double().contiguous().numpy().tobytes())
    elif isinstance(value, Distribution):
        _add_to_digest(digest, _draws(value, 4))
    elif is_dataclass(value):
        digest.update(type(value).__name__.encode())
        for part in fields(value):
            _add_to_digest(digest, getattr(value, part.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(str(key).encode())
            _add_to_digest(digest, value[key])
    else:
        # Functions by their name: the address in their `repr` changes every time.
        digest.update(getattr(value, "__qualname__", repr(value)).encode())
