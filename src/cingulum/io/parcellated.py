"""Regional signals that other programs have parcellated: CIFTI-2 and GIFTI."""

from __future__ import annotations

import base64
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from cingulum.errors import InputError
from cingulum.io.files import parse_errors, read_bytes
from cingulum.io.images import read_content
from cingulum.timeseries import TimeSeries

ARRAY_BUDGET = 128 * 1024**2
"""Bytes that one array of a GIFTI file may unpack to."""

UNLABELLED = 0
"""The label of vertices that belong to no region; so does any label named `???`."""


@dataclass(frozen=True)
class GiftiFile:
    """Arrays of a GIFTI file, each (vertex,), and the names of its label table."""

    arrays: list[np.ndarray]
    names: dict[int, str]


def read_parcellated_series(
    path: Path, labels: Path | None = None, tr: float | None = None
) -> TimeSeries:
    """Regional signals from CIFTI-2 (`.ptseries.nii`), or from GIFTI (`.func.gii`) with
    a `.label.gii`.

    CIFTI knows its regions and TR; a GIFTI series needs `labels` (one region for each
    vertex) and `tr` in seconds. Vertices labelled 0 or `???` are no region; a region
    without a vertex is NaN, never dropped. Raises InputError for another kind of file,
    damaged content, or sizes that do not match.
    """
    path = Path(path)
    if path.name.endswith(".ptseries.nii"):
        return _read_cifti(path)
    _check_is_gifti(path)
    if labels is None or tr is None:
        raise InputError(
            f"{path}: a GIFTI series needs labels (a .label.gii of the same surface) "
            "and tr (s)."
        )
    return _read_gifti(path, Path(labels), tr)


def _check_is_gifti(path: Path) -> None:
    if not path.name.endswith(".func.gii"):
        raise InputError(
            f"{path}: expected .ptseries.nii (CIFTI-2) or .func.gii (GIFTI)."
        )


def _read_cifti(path: Path) -> TimeSeries:
    content = read_content(path)
    _refuse_entities(path, content)
    with parse_errors(path, "CIFTI-2 parcellated series in seconds"):
        image = nib.Cifti2Image.from_bytes(content)
        return _cifti_series(image)


def _cifti_series(image: Any) -> TimeSeries:
    axes = [image.header.get_axis(number) for number in range(image.ndim)]
    time = _axis(axes, nib.cifti2.SeriesAxis)
    parcels = _axis(axes, nib.cifti2.ParcelsAxis)
    data = np.asarray(image.get_fdata(), dtype=float)
    # Usually time comes first; a TimeSeries has regions first.
    if time is axes[0]:
        data = data.T
    signals = torch.as_tensor(data.copy())
    return TimeSeries(signals, _step_seconds(time), tuple(map(str, parcels.name)))


def _step_seconds(time: Any) -> float:
    # Any other unit is no time series, and the KeyError says so.
    return float(time.step) * {"SECOND": 1.0}[time.unit]


def _axis(axes: list[Any], kind: type) -> Any:
    return next(axis for axis in axes if isinstance(axis, kind))


def _read_gifti(path: Path, labels: Path, tr: float) -> TimeSeries:
    signals = np.stack(_parse_gifti(path).arrays)
    label_file = _parse_gifti(labels)
    vertex_labels = _vertex_labels(labels, label_file, signals.shape[1])
    names = _region_names(labels, label_file)
    means = _region_means(signals, vertex_labels, list(names))
    return TimeSeries(torch.as_tensor(means), tr, tuple(names.values()))


def _region_means(
    signals: np.ndarray, vertex_labels: np.ndarray, labels: list[int]
) -> np.ndarray:
    """Mean signals (region, time) over the vertices with each label."""
    means = [_vertex_mean(signals, vertex_labels == label) for label in labels]
    return np.stack(means).astype(np.float64)


def _vertex_labels(path: Path, file: GiftiFile, vertices: int) -> np.ndarray:
    labels = file.arrays[0]
    if len(file.arrays) > 1 or labels.shape != (vertices,):
        raise InputError(
            f"{path}: expected one label for each of {vertices} vertices; got "
            f"{len(file.arrays)} array(s) of shape {labels.shape}."
        )
    return labels


def _region_names(path: Path, file: GiftiFile) -> dict[int, str]:
    names: dict[int, str] = {}
    for label, name in file.names.items():
        # FreeSurfer and Workbench call vertices without a region so.
        if label != UNLABELLED and name != "???":
            names[label] = name
    if not names:
        raise InputError(f"{path}: its label table names no region.")
    return names


def _vertex_mean(signals: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Mean signal (time,) of a region, NaN where it has no vertex."""
    if not vertices.any():
        return np.full(len(signals), np.nan)
    return signals[:, vertices].mean(1)


def _parse_gifti(path: Path) -> GiftiFile:
    content = read_bytes(path)
    # Before nibabel sees the content, which follows all that the file says.
    _refuse_entities(path, content)
    _refuse_external_data(path, content)
    for text in re.findall(rb"<Data>([^<]*)</Data>", content):
        _refuse_bomb(path, text)
    with parse_errors(path, "GIFTI file"):
        image = nib.GiftiImage.from_bytes(content)
        return _gifti_content(path, image)


def _gifti_content(path: Path, image: nib.GiftiImage) -> GiftiFile:
    arrays = [np.asarray(array.data) for array in image.darrays]
    _check_arrays(path, arrays)
    table = image.labeltable.get_labels_as_dict()
    return GiftiFile(arrays, {int(key): str(name) for key, name in table.items()})


def _check_arrays(path: Path, arrays: list[np.ndarray]) -> None:
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 1:
        raise InputError(f"{path}: expected one value a vertex in every array.")


XML_ENCODINGS = ("ascii", "utf-16-le", "utf-16-be")
"""In which an XML parser reads a declaration."""


def _refuse_entities(path: Path, content: bytes) -> None:
    # Entities that contain each other unfold to any size, or read other files.
    if any("<!ENTITY".encode(encoding) in content for encoding in XML_ENCODINGS):
        raise InputError(
            f"{path}: declares XML entities, which no program of this kind writes; "
            "refused."
        )


def _refuse_external_data(path: Path, content: bytes) -> None:
    # A shared dataset could otherwise read any file of its user.
    if b"ExternalFileBinary" in content:
        raise InputError(
            f"{path}: points to data in another file; expected the data inside."
        )


def _refuse_bomb(path: Path, text: bytes) -> None:
    if _unfolds_beyond(text, ARRAY_BUDGET):
        raise InputError(
            f"{path}: one array unfolds to more than {ARRAY_BUDGET // 1024**2} MiB; "
            "refused."
        )


def _unfolds_beyond(text: bytes, budget: int) -> bool:
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(base64.b64decode(text), budget)
    # Not compressed, or damaged: nibabel will say so.
    except (ValueError, zlib.error):
        return False
    return bool(unpacker.unconsumed_tail)
