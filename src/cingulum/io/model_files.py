"""A brain as files in the layout of the BIDS proposal for computational models (BEP034,
as The Virtual Brain Ontology reads it: net/, eq/, param/), and back.

Numbers come back bit for bit. Nothing in the files is code: a model is known by the
name of its class, which must be one of ours or given by the reader.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cingulum.brain import Brain, Connectome, Sensor, haemodynamics, masses
from cingulum.brain.dynamics import Dynamics, parameters
from cingulum.errors import InputError
from cingulum.io.files import (
    JsonObject,
    as_numbers,
    read_json,
    read_table,
    whole_folder,
    write_bytes,
    write_json,
)
from cingulum.versions import software_versions

BEP034 = "1.0.0"

DTYPES = {"float32": torch.float32, "float64": torch.float64}

INFINITE = "infinite"
"""How a value without bound is written, since JSON has no number for it."""


def write_brain(
    brain: Brain,
    folder: Path,
    *,
    label: str = "model",
    provenance: JsonObject | None = None,
) -> None:
    """Write a brain to a new folder: weights, lengths, names of the regions, equations
    by name, and every parameter.

    label: letters and digits, for the names of the files
    provenance: what else is known of it, as a JSON object
    Raises InputError for a batch of connectomes, a value that cannot be written, and a
    folder that holds something already.
    """
    if not label.isalnum():
        raise InputError(f"A label consists of letters and digits; got {label!r}.")
    weights = brain.connectome.weights
    if weights.ndim != 2:
        raise InputError(
            f"A brain is written with one connectome; this one has {len(weights)}. "
            "Write its members one by one."
        )
    with whole_folder(Path(folder)) as root:
        files = _Files(root, label)
        write_json(root / "dataset_description.json", _description())
        _write_network(brain.connectome, files)
        _write_leadfield(brain, files)
        write_json(files.equations, _equations(brain))
        write_json(files.parameters, _parameters(brain, provenance or {}))


def read_brain(folder: Path, models: Sequence[type[Dynamics]] = ()) -> Brain:
    """A brain that `write_brain` wrote, number by number.

    models: classes of masses and responses that are not ours
    Raises InputError for missing or damaged files, and a model of an unknown name.
    """
    root = Path(folder)
    files = _Files(root, _label_in(root))
    content = read_json(files.parameters)
    equations = read_json(files.equations)
    known = _known_models(models)
    connectome = _read_network(files)
    values = _section(content, "Parameters", files.parameters)
    mass = _model(equations, "Model", known, values, "mass.", files)
    response = _model(equations, "Response", known, values, "sensor.response.", files)
    own = _values_below(values, "", files.parameters)
    sensor = _sensor(content, response, values, files)
    try:
        return Brain(mass, connectome, sensor, **own)
    except TypeError as error:
        raise InputError(f"{files.parameters}: {error}.") from None


@dataclasses.dataclass(frozen=True)
class _Files:
    """The files of one brain."""

    root: Path
    label: str

    def _path(self, folder: str, ending: str) -> Path:
        return self.root / folder / f"desc-{self.label}_{ending}"

    @property
    def weights(self) -> Path:
        return self._path("net", "net-weights.tsv")

    @property
    def distances(self) -> Path:
        return self._path("net", "net-distances.tsv")

    @property
    def leadfield(self) -> Path:
        return self._path("net", "net-leadfield.tsv")

    @property
    def equations(self) -> Path:
        return self._path("eq", "eq.json")

    @property
    def parameters(self) -> Path:
        return self._path("param", "param.json")


def _description() -> JsonObject:
    versions = software_versions()
    return {
        "Name": "A computational model written by Cingulum",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "Cingulum", "Version": versions["cingulum"]}],
        "BEP034Version": BEP034,
    }


def _write_network(connectome: Connectome, files: _Files) -> None:
    names = connectome.regions
    weights = "connection weights: what a row receives from a column"
    _write_matrix(files.weights, connectome.weights, names, names, weights)
    if connectome.lengths is not None:
        lengths = "tract lengths, mm"
        _write_matrix(files.distances, connectome.lengths, names, names, lengths)


def _write_leadfield(brain: Brain, files: _Files) -> None:
    sensor = brain.sensor
    if sensor.leadfield is not None and sensor.channels is not None:
        meaning = "weight of every region (column) in every channel (row)"
        _write_matrix(
            files.leadfield, sensor.leadfield, sensor.channels, brain.regions, meaning
        )


def _write_matrix(
    path: Path,
    matrix: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    meaning: str,
) -> None:
    """A table with names of rows and columns, and its sidecar."""
    # As Python writes numbers, which come back bit for bit.
    lines = ["\t".join(["", *columns])]
    values = matrix.detach().double().tolist()
    for name, row in zip(rows, values, strict=True):
        lines.append("\t".join([name, *map(repr, row)]))
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    sidecar = {
        "Description": meaning,
        "NumberOfRows": len(rows),
        "NumberOfColumns": len(columns),
        "DataType": str(matrix.dtype).removeprefix("torch."),
    }
    write_json(path.with_suffix(".json"), sidecar)


def _equations(brain: Brain) -> JsonObject:
    mass = _described(brain.mass)
    return {
        # What other readers of the proposal look for.
        "ModelType": mass["Name"],
        "StateVariables": mass["StateVariables"],
        "Parameters": mass["Parameters"],
        "Model": mass,
        "Response": _described(brain.sensor.response),
        "SourceCode": "https://pypi.org/project/cingulum",
    }


def _described(model: Dynamics) -> JsonObject:
    """A model by name, with what people need to recognise it."""
    lines = (type(model).__doc__ or "").strip().splitlines()
    declared = {
        name: {"Description": one.meaning, "Units": one.unit}
        for name, one in parameters(model).items()
    }
    return {
        "Name": type(model).__name__,
        "Description": lines[0] if lines else "",
        "StateVariables": [state.name for state in model.states],
        "Parameters": declared,
    }


def _parameters(brain: Brain, provenance: JsonObject) -> JsonObject:
    sensor = brain.sensor
    values = {
        **_written(brain, ""),
        **_written(brain.mass, "mass."),
        **_written(sensor.response, "sensor.response."),
        **_written(sensor, "sensor."),
    }
    return {
        "ModelEq": "eq",
        "Network": "net",
        "Parameters": values,
        "Sensor": {
            "RepetitionTime": sensor.tr,
            "Units": sensor.unit,
            "Channels": None if sensor.channels is None else list(sensor.channels),
        },
        "Versions": software_versions(),
        "Provenance": provenance,
    }


PARTS = ("mass", "connectome", "sensor", "response", "tr", "unit", "leadfield")
"""Fields of brain and sensor that are written elsewhere."""


def _written(model: Any, path: str) -> dict[str, Any]:
    """Values of a model by path."""
    values = {}
    for field in dataclasses.fields(model):
        if field.name not in (*PARTS, "channels"):
            name = f"{path}{field.name}"
            values[name] = _plain(name, getattr(model, field.name))
    return values


def _plain(name: str, value: Any) -> Any:
    """A value as JSON has it, exactly."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return {"DataType": kind, "Values": value.detach().double().tolist()}
    if isinstance(value, float) and math.isinf(value) and value > 0:
        return INFINITE
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"{name} is a {type(value).__name__}, which cannot be written to a file; "
        "expected numbers, texts or tensors."
    )


# Reading


def _label_in(root: Path) -> str:
    found = sorted((root / "param").glob("desc-*_param.json"))
    if len(found) != 1:
        raise InputError(
            f"{root}: expected one file param/desc-<label>_param.json, as write_brain "
            f"writes it; got {len(found)}."
        )
    return found[0].name.removeprefix("desc-").removesuffix("_param.json")


def _known_models(models: Sequence[type[Dynamics]]) -> dict[str, type[Dynamics]]:
    ours = [getattr(masses, name) for name in masses.__all__]
    responses = [
        value
        for value in vars(haemodynamics).values()
        if isinstance(value, type) and issubclass(value, Dynamics)
    ]
    return {model.__name__: model for model in (*responses, *ours, *models)}


def _read_network(files: _Files) -> Connectome:
    regions, weights = _read_tensor(files.weights)
    lengths = None
    if files.distances.is_file():
        names, lengths = _read_tensor(files.distances)
        if names != regions:
            raise InputError(f"{files.distances}: its regions are not those of net.")
    return Connectome(weights, regions, lengths)


def _read_tensor(path: Path) -> tuple[tuple[str, ...], Tensor]:
    """Names of the columns, and the values."""
    table = read_table(path, header=None, dtype=str, keep_default_na=False)
    names = tuple(table.iloc[0, 1:])
    columns = [as_numbers(table.iloc[1:, k]) for k in range(1, table.shape[1])]
    values = np.array(columns, dtype=float).T
    if not columns or not np.isfinite(values).all():
        raise InputError(
            f"{path}: expected a table of numbers with the names of rows and columns."
        )
    kind = read_json(path.with_suffix(".json")).get("DataType")
    return names, torch.as_tensor(values).to(_dtype(path, kind))


def _dtype(path: Path, kind: object) -> torch.dtype:
    if kind not in DTYPES:
        raise InputError(f"{path}: DataType is float32 or float64; got {kind!r}.")
    return DTYPES[str(kind)]


def _section(content: JsonObject, name: str, path: Path) -> JsonObject:
    section = content.get(name)
    if not isinstance(section, Mapping):
        raise InputError(f"{path}: expected an object {name}; got {section!r}.")
    return dict(section)


def _model(
    equations: JsonObject,
    role: str,
    known: Mapping[str, type[Dynamics]],
    values: JsonObject,
    path: str,
    files: _Files,
) -> Any:
    """A model of the class that the equations name, with its values."""
    name = _section(equations, role, files.equations).get("Name")
    if name not in known:
        raise InputError(
            f"{files.equations}: the model {name!r} is not known; known are "
            f"{', '.join(sorted(known))}. Give the class of your own with models=."
        )
    own = _values_below(values, path, files.parameters)
    try:
        return known[str(name)](**own)
    except TypeError as error:
        raise InputError(f"{files.parameters}: {error}.") from None


def _values_below(values: JsonObject, path: str, file: Path) -> dict[str, Any]:
    """Values by name of what is directly below a path."""
    own = {}
    for name, value in values.items():
        rest = name.removeprefix(path)
        if name.startswith(path) and "." not in rest:
            own[rest] = _value(name, value, file)
    return own


def _value(name: str, value: Any, file: Path) -> Any:
    if value == INFINITE:
        return math.inf
    if not isinstance(value, Mapping):
        return value
    kind = _dtype(file, value.get("DataType"))
    try:
        numbers = np.asarray(value.get("Values"), dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{file}: {name} holds no numbers.") from None
    return torch.as_tensor(numbers).to(kind)


def _sensor(
    content: JsonObject, response: Any, values: JsonObject, files: _Files
) -> Sensor:
    written = _section(content, "Sensor", files.parameters)
    own = _values_below(values, "sensor.", files.parameters)
    leadfield = None
    if files.leadfield.is_file():
        _, leadfield = _read_tensor(files.leadfield)
    channels = written.get("Channels")
    return Sensor(
        response,
        written.get("RepetitionTime", math.nan),
        str(written.get("Units")),
        leadfield=leadfield,
        channels=None if channels is None else tuple(map(str, channels)),
        **own,
    )
