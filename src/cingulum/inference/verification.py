"""What a fit is worth: its free-running and held-out performance, next to that of
simpler predictors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.fitting import Fit, fit, stability_in_words
from cingulum.inference.free_parameters import Free
from cingulum.inference.linear_control import (
    LinearNetwork,
    equal_control,
    individual_part,
)
from cingulum.inference.objectives import FcdMismatch
from cingulum.inference.views import Recorded, Simulated
from cingulum.measures import edges, lag_one, similarity
from cingulum.simulation.linear.eigenvalues import Stability
from cingulum.timeseries import TimeSeries


@dataclass(frozen=True, eq=False)
class Verification:
    """How well a fitted brain and its rivals predict connectivity.

    table: one row per model: `free_parameters`, FC correlation with the `train` and the
        `held_out` data, `spread` (SD over seeds, held out), and `individual`, the
        correlation of what model and recording have beyond the group
    notes: other figures: mean connectivity, lag-one autocorrelation, FCD distance (KS)
        with its window
    stability: None for a brain without an equilibrium
    fc: of the free-running runs, pooled; they never saw a recording
    """

    fit: Fit
    table: pd.DataFrame
    notes: dict[str, float]
    fc: Float[Tensor, "region region"]
    control: LinearNetwork | None
    stability: Stability | None

    def __str__(self) -> str:
        table = self.table.round(3).to_string(na_rep="–")
        stability = stability_in_words(self.fit)
        return "\n".join([table, *self._note_lines(), f"  {stability}"])

    def _note_lines(self) -> list[str]:
        return [f"  {name}: {value:.3f}" for name, value in self.notes.items()]


def verify(
    fitted: Fit,
    held_out: TimeSeries | Float[Tensor, "region region"] | None = None,
    *,
    group: Float[Tensor, "region region"] | None = None,
    seeds: int = 5,
    seed: int = 0,
) -> Verification:
    """Simulate a fitted brain freely with several seeds and compare it with the
    controls.

    held_out: what the fit never saw: another run, another group, or the second half
    group: connectivity of a group, as a predictor of this person (r .80–.85 on Human
        Connectome subjects: no published mechanistic fit of a subject beats it), and as
        what is subtracted for the individual part
    seeds: free-running simulations; each is as long as `Runs` of the fit says (runs ×
        minutes)

    Raises InputError for a fit of several recordings at once.
    """
    if fitted.fc_r.ndim:
        raise InputError(
            "Verify one recording at a time: fit it alone, or take one brain of the "
            "batch."
        )
    train = fitted.problem.recorded
    test = _recorded(held_out, fitted)
    targets = _Targets(train.fc, None if test is None else test.fc, group)
    views, runs = _simulations(fitted, seeds, seed)
    # The mean of the runs has less sampling noise than any of them.
    pooled = runs.mean(0)
    control = _control(fitted)
    table = _table(_predictors(fitted, pooled, control, targets), targets)
    table.loc[FREE_RUNNING, "spread"] = _spread(runs, targets.test)
    return Verification(
        fit=fitted,
        table=table,
        notes=_notes(views[0], train if test is None else test, pooled),
        fc=pooled,
        control=control,
        stability=_stability(fitted),
    )


def _stability(fitted: Fit) -> Stability | None:
    # A brain may never come to rest; its simulations are worth what they are worth.
    try:
        return fitted.stability
    except ConvergenceError:
        return None


FREE_RUNNING = "free-running model"
"""Row of `Verification.table` that a fit is judged by."""


@dataclass(frozen=True, eq=False)
class _Targets:
    """Connectivity that predictors are compared with."""

    train: Float[Tensor, "region region"]
    held_out: Float[Tensor, "region region"] | None
    group: Float[Tensor, "region region"] | None

    @property
    def test(self) -> Float[Tensor, "region region"]:
        """The held-out data, or where there are none the training data."""
        return self.train if self.held_out is None else self.held_out


@dataclass(frozen=True, eq=False)
class _Predictor:
    """A prediction of connectivity, and how many numbers were fitted to make it."""

    fc: Float[Tensor, "region region"]
    free_parameters: int = 0


def _recorded(
    held_out: TimeSeries | Float[Tensor, "region region"] | None, fitted: Fit
) -> Recorded | None:
    if held_out is None:
        return None
    return Recorded(held_out, fitted.brain, fitted.problem.cleaning)


def _simulations(
    fitted: Fit, seeds: int, seed: int
) -> tuple[list[Simulated], Float[Tensor, "seed region region"]]:
    """Free-running simulations, one per seed, and their connectivity."""
    simulate = fitted.problem.simulate
    with torch.no_grad():
        views = [simulate(fitted.brain, seed + k) for k in range(seeds)]
        return views, torch.stack([view.fc for view in views])


def _control(fitted: Fit) -> LinearNetwork | None:
    # Sensor channels are not regions: connectome and control then have no counterpart.
    if fitted.brain.sensor.leadfield is not None:
        return None
    problem = fitted.problem
    return equal_control(
        fitted.brain.connectome, problem.recorded.fc, problem.free_parameters
    )


def _predictors(
    fitted: Fit, simulated: Tensor, control: LinearNetwork | None, targets: _Targets
) -> dict[str, _Predictor]:
    """The fitted brain and its rivals, by the names of the table's rows."""
    size = len(fitted.coordinates())
    # Order of the rows: the brain itself, then rivals that know less, then more.
    predictors = {
        FREE_RUNNING: _Predictor(simulated, size),
        "analytic model": _Predictor(fitted.fc, size),
    }
    if control is not None:
        # As it was before the fit, which may have changed weights.
        weights = fitted.problem.brain.connectome.weights
        predictors["linear control"] = _Predictor(control.fc, control.parameters)
        predictors["connectome (SC–FC)"] = _Predictor(weights)
    if targets.group is not None:
        group = targets.group.to(targets.train)
        predictors["group connectivity"] = _Predictor(group)
    if targets.held_out is not None:
        predictors["the recording itself (reliability)"] = _Predictor(targets.train)
    return predictors


def _table(predictors: dict[str, _Predictor], targets: _Targets) -> pd.DataFrame:
    rows = {}
    for name, predictor in predictors.items():
        rows[name] = _row(predictor, targets)
    return pd.DataFrame(rows).T


def _row(predictor: _Predictor, targets: _Targets) -> dict[str, float]:
    held_out = float("nan")
    if targets.held_out is not None:
        held_out = similarity(predictor.fc, targets.held_out).item()
    return {
        "free_parameters": float(predictor.free_parameters),
        "train": similarity(predictor.fc, targets.train).item(),
        "held_out": held_out,
        "spread": float("nan"),
        "individual": _individual(predictor.fc, targets),
    }


def _individual(model: Tensor, targets: _Targets) -> float:
    if targets.group is None:
        return float("nan")
    group = targets.group.to(model)
    # The group itself has nothing beyond the group: a correlation with zeros.
    if torch.equal(model, group):
        return float("nan")
    return individual_part(model, targets.test, group)


def _spread(runs: Tensor, target: Tensor) -> float:
    """SD over seeds of the correlation with a connectivity."""
    # A single run has no spread; torch would warn of it.
    if len(runs) < 2:
        return float("nan")
    return similarity(runs, target).std().item()


def _notes(view: Simulated, recorded: Recorded, pooled: Tensor) -> dict[str, float]:
    """Figures that no correlation of connectivity shows, of recording and model."""
    notes = {
        "mean connectivity, recorded": edges(recorded.fc).mean().item(),
        "mean connectivity, model": edges(pooled).mean().item(),
    }
    try:
        series = recorded.series
    except InputError:
        # Only its connectivity was given, which has no time courses.
        return notes
    notes["lag-one autocorrelation, recorded"] = lag_one(series.data).mean().item()
    notes["lag-one autocorrelation, model"] = lag_one(view.series.data).mean().item()
    # A recording shorter than two windows has no dynamics of connectivity to compare.
    with suppress(InputError):
        notes[_fcd_name()] = FcdMismatch().exact(view, recorded)
    return notes


def _fcd_name() -> str:
    dynamics = FcdMismatch()
    return f"FCD distance (KS; windows {dynamics.window:g} s, step {dynamics.step:g} s)"


def fit_and_verify(
    brain: Brain,
    recorded: TimeSeries,
    free: Mapping[str, Free],
    held_out: TimeSeries | None = None,
    *,
    group: Tensor | None = None,
    seeds: int = 5,
    **options: Any,
) -> Verification:
    """Fit a recording and verify it on another, or fit its first half and verify on the
    second."""
    if held_out is None:
        # Not alternating samples: those next to each other are alike.
        half = recorded.data.shape[-1] // 2
        held_out = replace(recorded, data=recorded.data[..., half:])
        recorded = recorded.between(0, half)
    fitted = fit(brain, recorded, free, **options)
    return verify(fitted, held_out, group=group, seeds=seeds)
