"""What a fit is worth: free-running and held-out figures, beside everything simpler
that predicts as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.errors import InputError
from cingulum.inference.fitting import Fit, fit
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
    """A fit's scoreboard.

    table: a row a model: `free_parameters`, FC correlation with the `train` and the
        `held_out` data, `spread` (SD over seeds, held out), and `individual`, the
        correlation of what both have beyond the group
    notes: other figures: mean connectivity, lag-one autocorrelation, FCD distance (KS)
        with its window
    fc: of the free-running runs, pooled; it never saw a recording
    """

    fit: Fit
    table: pd.DataFrame
    notes: dict[str, float]
    fc: Float[Tensor, "region region"]
    control: LinearNetwork | None
    stability: Stability

    def __str__(self) -> str:
        notes = "\n".join(
            f"  {name}: {value:.3f}" for name, value in self.notes.items()
        )
        shown = self.table.round(3).to_string(na_rep="–")
        return f"{shown}\n{notes}\n  {self.stability}"


def verify(
    found: Fit,
    held_out: TimeSeries | Float[Tensor, "region region"] | None = None,
    *,
    group: Float[Tensor, "region region"] | None = None,
    seeds: int = 5,
    seed: int = 0,
) -> Verification:
    """Run a fitted brain freely with several seeds and set it beside the controls.

    held_out: what the fit never saw: another run, another group, or the second half
    group: connectivity of a group, as a predictor of this person (r .80–.85 on Human
        Connectome subjects: no published mechanistic fit of a subject beats it), and as
            what is taken away for the individual part
    seeds: free-running simulations; each is as long as `Runs` of the fit says (runs ×
    minutes) Raises InputError for a fit of several recordings at once.
    """
    if found.fc_r.ndim:
        raise InputError(
            "Verify one recording at a time: fit it alone, or take one brain of the "
            "batch."
        )
    problem = found.problem
    brain, cleaning, train = found.brain, problem.cleaning, problem.recorded
    test = None if held_out is None else Recorded(held_out, brain, cleaning)
    with torch.no_grad():
        views = [problem.simulate(brain, seed + k) for k in range(seeds)]
        runs = torch.stack([view.fc for view in views])
    seen_alike = (
        brain.sensor.leadfield is None
    )  # channels are not regions: connectome and control have no counterpart
    control = (
        equal_control(brain.connectome, train.fc, problem.free_parameters)
        if seen_alike
        else None
    )
    pooled = runs.mean(0)
    models: dict[str, tuple[int, Tensor]] = {
        "free-running model": (len(found.coordinates()), pooled),
        "analytic model": (len(found.coordinates()), found.fc),
    }
    if control is not None:
        models["linear control"] = (control.parameters, control.fc)
        models["connectome (SC–FC)"] = (0, problem.brain.connectome.weights)
    if group is not None:
        models["group connectivity"] = (0, group.to(train.fc))
    if test is not None:
        models["the recording itself (reliability)"] = (0, train.fc)
    unseen = None if test is None else test.fc
    rows = {
        name: _row(size, model, train.fc, unseen, group)
        for name, (size, model) in models.items()
    }
    table = pd.DataFrame(rows).T
    against = train.fc if test is None else test.fc
    table.loc["free-running model", "spread"] = (
        similarity(runs, against).std().item() if seeds > 1 else float("nan")
    )
    return Verification(
        found,
        table,
        _notes(found, views, test or train, pooled),
        pooled,
        control,
        found.stability,
    )


def _row(
    size: int, model: Tensor, train: Tensor, test: Tensor | None, group: Tensor | None
) -> dict[str, float]:
    nan = float("nan")
    row = {"free_parameters": float(size), "train": similarity(model, train).item()}
    row["held_out"] = nan if test is None else similarity(model, test).item()
    row["spread"] = nan
    alike = group is None or torch.equal(model, group.to(model))
    row["individual"] = (
        nan
        if alike or group is None
        else individual_part(model, train if test is None else test, group.to(model))
    )
    return row


def _notes(
    found: Fit, views: list[Simulated], recorded: Recorded, pooled: Tensor
) -> dict[str, float]:
    notes = {
        "mean connectivity, recorded": edges(recorded.fc).mean().item(),
        "mean connectivity, model": edges(pooled).mean().item(),
    }
    try:
        series = recorded.series
    except InputError:
        return notes
    notes["lag-one autocorrelation, recorded"] = lag_one(series.data).mean().item()
    notes["lag-one autocorrelation, model"] = (
        lag_one(views[0].series.data).mean().item()
    )
    dynamics = FcdMismatch()
    for view in views[:1]:
        try:
            name = (
                f"FCD distance (KS; windows {dynamics.window:g} s, step "
                f"{dynamics.step:g} s)"
            )
            notes[name] = dynamics.exact(view, recorded)
        except InputError:
            pass
    return notes


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
        half = recorded.data.shape[-1] // 2
        recorded, held_out = (
            recorded.between(0, half),
            replace(recorded, data=recorded.data[..., half:]),
        )
    return verify(
        fit(brain, recorded, free, **options), held_out, group=group, seeds=seeds
    )
