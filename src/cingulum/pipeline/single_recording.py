"""One recording given as plain arrays: fit a brain to its first part, and compare it
with the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from cingulum.brain import Brain, Connectome, Sensor, with_values
from cingulum.brain.connectome import check_symmetry
from cingulum.brain.dynamics import get
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.inference import published_fit, resting_fit
from cingulum.inference.free_parameters import declaration
from cingulum.inference.resting import RestingFit
from cingulum.io.files import (
    JsonObject,
    read_json,
    read_matrix,
    read_square_matrix,
    whole_folder,
    write_bytes,
    write_json,
    write_matrix,
)
from cingulum.io.model_files import write_brain
from cingulum.io.readers.qsirecon import read_mat_connectivity
from cingulum.io.readers.tvb import read_tvb_connectivity
from cingulum.measures import fc, similarity
from cingulum.report import plots
from cingulum.report.results import to_plain
from cingulum.report.summarise import fit_section
from cingulum.simulation import balanced, simulate, time_step
from cingulum.timeseries import TimeSeries, check_signals
from cingulum.versions import software_versions

# A correlation of so few volumes has a standard error of almost 0.2.
FEWEST_VOLUMES = 30
"""Volumes below which a part of a recording says nothing about connectivity."""

PUBLISHED_SCHEME = "griffiths2022"

SETTLING = 20.0
"""s of a simulation that are dropped, while the haemodynamics settle."""

Values = Mapping[str, float | list[float]]
"""Parameters by path: one number, or one per region."""


@dataclass(frozen=True)
class FitOptions:
    """How a recording is fitted.

    tr: repetition time, s
    holdout: share of the recording, at its end, that the fit never sees; 0 leaves none
    seed, minutes: of the free-running simulation
    scheme: `griffiths2022` also re-runs the published training on the same part, as a
        comparison: its gains are the same whatever the data
        (docs/decisions/009-published-scheme.md), so it is no estimate
    """

    tr: float
    holdout: float = 0.5
    seed: int = 0
    minutes: float = 64.0
    scheme: str = "cingulum"

    def __post_init__(self) -> None:
        # A share of 1 would leave nothing to fit.
        if not 0 <= self.holdout < 1:
            raise InputError(
                "--holdout is a share of the recording, 0 to below 1; got "
                f"{self.holdout}."
            )


@dataclass(frozen=True)
class SimulationOptions:
    """How a recording is simulated.

    tr: repetition time, s; duration: s
    estimates: a fit.json; values: single parameters by path, which win over it
    """

    tr: float
    duration: float
    estimates: Path | None = None
    values: Mapping[str, float] | None = None
    seed: int = 0


def read_connectome(path: Path, regions: Sequence[str] | None = None) -> Connectome:
    """A connectome from a square matrix file, a `_connectivity.mat` of QSIRecon (of the
    atlas with these regions, else of its only one), or a connectivity (.zip) of The
    Virtual Brain, which has names and lengths and may be directed; scaled to comparable
    strength. Raises InputError naming the file."""
    path = Path(path)
    if path.suffix == ".zip":
        return _tvb_connectome(path)
    matrix, names = _weights_and_names(path, regions)
    weights = torch.as_tensor(matrix, dtype=torch.float64)
    if names is None:
        # An atlas replaces these by its own.
        names = tuple(f"region {i + 1}" for i in range(len(weights)))
    try:
        # Tracts are counted in arbitrary units: only their proportions mean anything.
        connectome = Connectome(weights, names).normalised()
        check_symmetry(connectome)
        return connectome
    except InputError as error:
        # `Connectome` does not know which file its weights are from.
        raise InputError(f"{path}: {error}") from None


def _weights_and_names(
    path: Path, regions: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if path.suffix != ".mat":
        return read_square_matrix(path)
    read = read_mat_connectivity(path, regions=regions)
    return read.weights, read.regions


def _tvb_connectome(path: Path) -> Connectome:
    read = read_tvb_connectivity(path)
    weights = torch.as_tensor(read.weights)
    lengths = None if read.lengths is None else torch.as_tensor(read.lengths)
    try:
        return Connectome(weights, read.regions, lengths).normalised()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_atlas_connectome(path: Path, regions: tuple[str, ...]) -> Connectome:
    """A connectome for the regions of an atlas: by their names where the file has
    names, else in the order of the atlas."""
    connectome = read_connectome(path, regions)
    if len(connectome.regions) != len(regions):
        raise InputError(
            f"{path}: expected {len(regions)} × {len(regions)} weights, in the order "
            f"of the atlas; got {len(connectome.regions)} regions."
        )
    if set(connectome.regions) == set(regions):
        return _reordered(connectome, regions)
    return replace(connectome, regions=regions)


def _reordered(connectome: Connectome, regions: tuple[str, ...]) -> Connectome:
    order = [connectome.regions.index(region) for region in regions]
    weights = connectome.weights[order][:, order]
    return replace(connectome, weights=weights, regions=regions)


def read_regional_series(path: Path, tr: float, regions: tuple[str, ...]) -> TimeSeries:
    """A recording (region × time, or time × region) from a matrix file.

    Raises InputError when neither side has the connectome's number of regions, or a
    region is missing or constant.
    """
    data = read_matrix(path)
    n = len(regions)
    if n not in data.shape:
        raise InputError(_other_regions(path, n, data.shape))
    # A square matrix is ambiguous: it is read as region × time.
    if data.shape[0] != n:
        data = data.T
    series = TimeSeries(torch.as_tensor(data, dtype=torch.float64), tr, regions)
    check_signals(series, str(path))
    return series


def _other_regions(path: Path, n: int, shape: tuple[int, ...]) -> str:
    return (
        f"{path}: the connectome has {n} regions, but this recording has shape "
        f"{shape}. Expected {n} × time or time × {n}: use the same parcellation, in "
        "the same order, for both."
    )


@dataclass(frozen=True, eq=False)
class _Split:
    """A recording, with the connectivity of the part to fit and of the held-out part
    (None: nothing is held out)."""

    series: TimeSeries
    train: Tensor
    heldout: Tensor | None

    @classmethod
    def of(cls, path: Path, series: TimeSeries, holdout: float) -> _Split:
        return cls(series, *split_connectivity(path, series, holdout))


def fit_recording(
    weights: Path,
    bold: Path,
    out: Path,
    options: FitOptions,
    show_progress: bool = False,
) -> JsonObject:
    """Fit one recording and write fit.json, fc_model.tsv, fit.png and model/, the
    fitted brain for `read_brain`, to a new folder `out`; returns the content of
    fit.json."""
    connectome = read_connectome(weights)
    series = read_regional_series(bold, options.tr, connectome.regions)
    split = _Split.of(bold, series, options.holdout)
    # The folder appears under its name only when everything in it is written.
    with whole_folder(out) as folder:
        verified = resting_fit(
            connectome,
            split.train,
            options.tr,
            seed=options.seed,
            minutes=options.minutes,
            show_progress=show_progress,
        )
        content = _content_of_fit(verified, connectome, split, options)
        if options.scheme == PUBLISHED_SCHEME:
            first_part = series.between(0, volumes_to_fit(series, options.holdout))
            content["comparison"] = _published_comparison(
                weights, first_part, split.heldout, show_progress
            )
        write_json(folder / "fit.json", content)
        provenance = {name: content[name] for name in ("settings", "fc_r")}
        brain = verified.fit.brain
        write_brain(brain, folder / "model", label="fit", provenance=provenance)
        _write_connectivity(folder, verified.simulated_fc.numpy(), split.train.numpy())
    return content


def _content_of_fit(
    verified: RestingFit, connectome: Connectome, split: _Split, options: FitOptions
) -> JsonObject:
    """The content of fit.json."""
    section = fit_section(verified, connectome.weights, split.train, split.heldout)
    # What most readers look for is above, all else in the details.
    details = to_plain(section)
    estimates = verified.fit.estimates
    return {
        "estimates": {name: value.tolist() for name, value in estimates.items()},
        "fc_r": _written_correlations(details.pop("fc_r")),
        "seconds": details.pop("seconds"),
        "details": details,
        "settings": {
            "tr": options.tr,
            "holdout": options.holdout,
            "seed": options.seed,
            "volumes": split.series.data.shape[-1],
        },
        "versions": software_versions(),
    }


def _write_connectivity(folder: Path, simulated: np.ndarray, train: np.ndarray) -> None:
    """The connectivity of the free-running brain, and a figure beside the recorded."""
    write_matrix(folder / "fc_model.tsv", simulated)
    figure = plots.draw_connectivity_pair(train, simulated, "recorded (fitted part)")
    write_bytes(folder / "fit.png", figure)


def volumes_to_fit(series: TimeSeries, holdout: float) -> int:
    """Volumes of the part that is fitted."""
    # The end is held out, and not every other volume: neighbours are alike.
    volumes = series.data.shape[-1]
    return volumes - round(holdout * volumes)


def _published_comparison(
    weights: Path, train: TimeSeries, heldout: Tensor | None, show_progress: bool
) -> JsonObject:
    """What the scheme of Griffiths et al. 2022 (variant A) reports of the same
    recording, in float32 as it was."""
    # Counts, not the scaled connectome: that scheme scales them in its own way.
    counts = torch.as_tensor(read_matrix(weights), dtype=torch.float32)
    published = published_fit(counts, train.data.float(), show_progress=show_progress)
    free_running = published.free_running_fc.double()
    heldout_r = None
    if heldout is not None:
        heldout_r = similarity(free_running, heldout).item()
    return {
        "scheme": "griffiths2022, variant A: a comparison, not an estimate; see "
        "docs/decisions/009-published-scheme.md",
        "estimates": {
            name: value.item() for name, value in published.estimates.items()
        },
        "fc_r": {
            "in_training": published.training_fc_r[-1].item(),
            "train_free_running": published.free_running_fc_r.item(),
            "heldout_free_running": heldout_r,
        },
    }


def split_connectivity(
    path: Path, series: TimeSeries, holdout: float
) -> tuple[Tensor, Tensor | None]:
    """Connectivity of the part to fit and of the part that is held out (None: nothing
    is).

    Raises InputError, naming the file, where a part is too short, or a region has no
    signal in it.
    """
    fitted = volumes_to_fit(series, holdout)
    _check_volumes(path, series.data.shape[-1], fitted, holdout)
    if not holdout:
        check_signals(series, str(path))
        return fc(series.data), None
    # A region may have a signal in the whole recording and be constant in a part.
    for part in (series.between(0, fitted), series.between(fitted)):
        check_signals(part, str(path))
    return fc(series.data[:, :fitted]), fc(series.data[:, fitted:])


def _check_volumes(path: Path, volumes: int, fitted: int, holdout: float) -> None:
    left = volumes - fitted
    if fitted < FEWEST_VOLUMES or (holdout and left < FEWEST_VOLUMES):
        raise InputError(
            f"{path}: {volumes} volumes leave {fitted} to fit and {left} held out; "
            f"each needs {FEWEST_VOLUMES}. Give a longer recording, or --holdout 0."
        )


def _written_correlations(fc_r: Mapping[str, float]) -> dict[str, float | None]:
    """The correlations of a fit under the names of fit.json."""
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
    options: SimulationOptions,
    show_progress: bool = False,
) -> TimeSeries:
    """Simulate BOLD of the two-state reduced Wong-Wang network and write it (region ×
    time) with a JSON sidecar.

    Local inhibition is balanced to 3 Hz unless `mass.J_i` is given.
    """
    connectome = read_connectome(weights)
    estimates = _read_estimates(options.estimates, len(connectome.regions))
    # What is on the command line wins over the file.
    values: Values = {**estimates, **(options.values or {})}
    brain = _brain(connectome, options.tr, values)
    # Gradients of a long simulation would fill the memory.
    with torch.no_grad():
        simulation = simulate(
            brain,
            options.duration,
            dt=time_step(options.tr),
            seed=options.seed,
            discard=SETTLING,
            show_progress=show_progress,
        )
    _write_simulation(out, simulation.bold, options, values)
    return simulation.bold


def _write_simulation(
    out: Path, bold: TimeSeries, options: SimulationOptions, values: Values
) -> None:
    write_matrix(out, bold.data.numpy())
    # With the weights, all that is needed to simulate the same recording again.
    sidecar = {
        "RepetitionTime": options.tr,
        "Units": bold.unit,
        "Axes": ["region", "time"],
        "Seed": options.seed,
        "Given": values,
    }
    write_json(Path(out).with_suffix(".json"), sidecar)


def _brain(connectome: Connectome, tr: float, values: Values) -> Brain:
    """The two-state reduced Wong-Wang network with these values."""
    tensors = {}
    for name, value in values.items():
        tensors[name] = torch.tensor(value, dtype=torch.float64)
    model = Brain(ReducedWongWang(), connectome, Sensor(tr=tr))
    for name in values:
        # Raises for an unknown name, with the nearest known one.
        get(model, name)
        # Raises for what is no parameter, such as sensor.tr, which has an option.
        declaration(model, name)
    brain = with_values(model, tensors)
    # Balancing would replace the inhibition that the user asked for.
    if "mass.J_i" in values:
        return brain
    return balanced(brain)


def _read_estimates(path: Path | None, regions: int) -> Values:
    """Estimates of a fit.json for a connectome of so many regions; none without a
    file."""
    if path is None:
        return {}
    estimates = read_json(path).get("estimates")
    if not _are_estimates(estimates):
        raise InputError(
            f"{path}: expected a fit.json with estimates, as `cingulum fit` writes it."
        )
    for name, value in estimates.items():
        _check_regions(path, name, value, regions)
    return {
        name: np.asarray(value, dtype=float).tolist()
        for name, value in estimates.items()
    }


def _are_estimates(estimates: object) -> TypeGuard[JsonObject]:
    """Whether they are numbers, or lists, by name."""
    if not isinstance(estimates, dict):
        return False
    return all(isinstance(value, int | float | list) for value in estimates.values())


def _check_regions(
    path: Path, name: str, value: float | list[float], regions: int
) -> None:
    if isinstance(value, list) and len(value) != regions:
        raise InputError(
            f"{path}: {name} has {len(value)} values for a connectome of {regions} "
            "regions; give the connectome that was fitted."
        )
