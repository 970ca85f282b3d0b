"""One recording given as plain arrays: fit a brain to its first part, and hold it
against the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cingulum.brain import Brain, Connectome, Sensor, with_values
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.inference import published_fit, resting_fit
from cingulum.io.files import (
    read_json,
    read_matrix,
    whole_folder,
    write_bytes,
    write_json,
    write_matrix,
)
from cingulum.measures import fc, similarity
from cingulum.report import plots, summarise
from cingulum.simulation import balanced, simulate, time_step
from cingulum.timeseries import TimeSeries, check_signals
from cingulum.versions import versions

FEWEST = 30
"""Volumes below which a part of a recording says nothing about connectivity."""


def read_connectome(path: Path) -> Connectome:
    """A connectome from a square matrix file, scaled to comparable strength. Raises
    InputError naming the file."""
    weights = read_matrix(path)
    if weights.shape[0] != weights.shape[1]:
        raise InputError(
            f"{path}: connection weights must be a square matrix; came {weights.shape}."
        )
    try:
        names = tuple(f"region {i + 1}" for i in range(len(weights)))
        return Connectome(
            torch.as_tensor(weights, dtype=torch.float64), names
        ).normalised()
    except InputError as trouble:
        raise InputError(f"{path}: {trouble}") from None


def read_atlas_connectome(path: Path, regions: tuple[str, ...]) -> Connectome:
    """A connectome for the regions of an atlas, in its order."""
    connectome = read_connectome(path)
    if len(connectome.regions) != len(regions):
        raise InputError(
            f"{path}: expected {len(regions)} × {len(regions)} weights, in the order "
            "of the atlas; came "
            f"{len(connectome.regions)} regions."
        )
    return replace(connectome, regions=regions)


def read_series(path: Path, tr: float, regions: tuple[str, ...]) -> TimeSeries:
    """A recording (region × time, or time × region) from a matrix file.

    Raises InputError when neither side has the connectome's number of regions, or a
    region is missing or constant.
    """
    data, n = read_matrix(path), len(regions)
    if n not in data.shape:
        raise InputError(
            f"{path}: the connectome has {n} regions, but this recording has shape "
            f"{data.shape}. Expected {n} × time "
            f"or time × {n}: use the same parcellation, in the same order, for both."
        )
    data = data if data.shape[0] == n else data.T
    series = TimeSeries(torch.as_tensor(data, dtype=torch.float64), tr, regions)
    check_signals(series, str(path))
    return series


def fit_recording(
    weights: Path,
    bold: Path,
    out: Path,
    *,
    tr: float,
    holdout: float = 0.5,
    seed: int = 0,
    minutes: float = 64.0,
    scheme: str = "cingulum",
    show_progress: bool = False,
) -> dict[str, Any]:
    """Fit one recording and write fit.json, fc_model.tsv and fit.png to a new folder
    `out`; returns fit.json's content.

    holdout: share of the recording, at its end, that the fit never sees; 0 leaves none
    scheme: "griffiths2022" also re-runs the published training on the same part, under
        "comparison": its gains are the same whatever the data
        (docs/decisions/009-published-scheme.md), so it is no estimate
    """
    if not 0 <= holdout < 1:
        raise InputError(
            f"--holdout is a share of the recording, 0 to below 1; came {holdout}."
        )
    connectome = read_connectome(weights)
    series = read_series(bold, tr, connectome.regions)
    train, heldout = parts_of(bold, series, holdout)
    with whole_folder(out) as folder:
        verified = resting_fit(
            connectome,
            train,
            tr,
            seed=seed,
            minutes=minutes,
            show_progress=show_progress,
        )
        numbers = summarise.fitted(verified, connectome.weights, train, heldout)
        content = {
            "estimates": {
                name: value.tolist() for name, value in verified.fit.estimates.items()
            },
            "fc_r": _renamed(numbers.pop("fc_r")),
            "seconds": numbers.pop("seconds"),
            "details": numbers,
            "settings": {
                "tr": tr,
                "holdout": holdout,
                "seed": seed,
                "volumes": series.data.shape[-1],
            },
            "versions": versions(),
        }
        if scheme == "griffiths2022":
            content["comparison"] = _published(
                weights,
                series.between(0, kept_volumes(series, holdout)),
                heldout,
                show_progress,
            )
        write_json(folder / "fit.json", content)
        write_matrix(folder / "fc_model.tsv", verified.simulated_fc.numpy())
        pair = plots.connectivity_pair(
            train.numpy(), verified.simulated_fc.numpy(), "recorded (fitted part)"
        )
        write_bytes(folder / "fit.png", pair)
    return content


def kept_volumes(series: TimeSeries, holdout: float) -> int:
    return series.data.shape[-1] - round(holdout * series.data.shape[-1])


def _published(
    weights: Path, train: TimeSeries, heldout: torch.Tensor | None, show_progress: bool
) -> dict[str, Any]:
    """What the scheme of Griffiths et al. 2022 (variant A) reports of the same
    recording, in float32 as it was."""
    counts = torch.as_tensor(read_matrix(weights), dtype=torch.float32)
    found = published_fit(counts, train.data.float(), show_progress=show_progress)
    free = found.free_running_fc.double()
    return {
        "scheme": "griffiths2022, variant A: a comparison, not an estimate; see "
        "docs/decisions/009-published-scheme.md",
        "estimates": {name: value.item() for name, value in found.estimates.items()},
        "fc_r": {
            "in_training": found.training_fc_r[-1].item(),
            "train_free_running": found.free_running_fc_r.item(),
            "heldout_free_running": None
            if heldout is None
            else similarity(free, heldout).item(),
        },
    }


def parts_of(
    path: Path, series: TimeSeries, holdout: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Connectivity of the part to fit and of the part that is held out (None: nothing
    is).

    Raises InputError, naming the file, where a part is too short or a region silent in
    it.
    """
    volumes = series.data.shape[-1]
    kept = kept_volumes(series, holdout)
    if kept < FEWEST or (holdout and volumes - kept < FEWEST):
        raise InputError(
            f"{path}: {volumes} volumes leave {kept} to fit and {volumes - kept} held "
            f"out; each needs {FEWEST}. "
            "Give a longer recording, or --holdout 0."
        )
    for part in (
        (series.between(0, kept), series.between(kept)) if holdout else (series,)
    ):
        check_signals(part, str(path))
    return fc(series.data[:, :kept]), fc(series.data[:, kept:]) if holdout else None


def _renamed(fc_r: dict[str, float]) -> dict[str, float | None]:
    return {
        "train_free_running": fc_r["train"],
        "heldout_free_running": fc_r.get("heldout"),
        "sc_fc": fc_r["sc_fc"],
        "reliability": fc_r.get("ceiling"),
        "analytic_train": fc_r["analytic_train"],
        "analytic_heldout": fc_r.get("analytic_heldout"),
        "linear_control_train": fc_r["linear_control_train"],
        "linear_control_heldout": fc_r.get("linear_control_heldout"),
    }


def simulate_recording(
    weights: Path,
    out: Path,
    *,
    tr: float,
    duration: float,
    estimates: Path | None = None,
    values: dict[str, float] | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> TimeSeries:
    """Simulate BOLD of the two-state reduced Wong-Wang network and write it (region ×
    time) with a JSON sidecar.

    estimates: a fit.json; values: single parameters by path, which win over it. Local
    inhibition is balanced to 3 Hz unless `mass.J_i` is given.
    """
    connectome, found = read_connectome(weights), _estimates(estimates)
    for name, value in found.items():
        if isinstance(value, list) and len(value) != len(connectome.regions):
            raise InputError(
                f"{estimates}: {name} has {len(value)} values for a connectome of "
                f"{len(connectome.regions)} regions; "
                "give the connectome that was fitted."
            )
    given = {**found, **(values or {})}
    brain = Brain(ReducedWongWang(), connectome, Sensor(tr=tr))
    brain = with_values(
        brain,
        {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in given.items()
        },
    )
    brain = brain if "mass.J_i" in given else balanced(brain)
    with torch.no_grad():
        run = simulate(
            brain,
            duration,
            dt=time_step(tr),
            seed=seed,
            discard=20.0,
            show_progress=show_progress,
        )
    write_matrix(out, run.bold.data.numpy())
    sidecar = {
        "RepetitionTime": tr,
        "Units": run.bold.unit,
        "Axes": ["region", "time"],
        "Seed": seed,
        "Given": given,
    }
    write_json(Path(out).with_suffix(".json"), sidecar)
    return run.bold


def _estimates(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    found = read_json(path).get("estimates")
    if not isinstance(found, dict) or not all(
        isinstance(v, int | float | list) for v in found.values()
    ):
        raise InputError(
            f"{path}: expected a fit.json with estimates, as `cingulum fit` writes it."
        )
    return {
        name: np.asarray(value, dtype=float).tolist() for name, value in found.items()
    }
