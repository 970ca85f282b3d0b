"""Signatures: weights to be shared, with what must be known to apply them elsewhere.

A signature is a folder: NIfTI maps or a table of weights, signature.json (units, space,
intercepts, hashes, how it was made) and a model card. Nothing in it is code. The
published maps of Lee et al. 2019 are read in their own layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum import __version__
from cingulum.errors import InputError
from cingulum.io.files import (
    parse_errors,
    read_json,
    read_table,
    whole_folder,
    write_bytes,
    write_json,
    write_table,
)
from cingulum.io.images import read_image, write_image

JsonObject = Mapping[str, Any]

RELATIVE_FLOW = "1 (whole-brain mean)"
"""Unit of blood flow divided by its whole-brain mean."""

REGRESSION_ESTIMATE = "regression estimate"
"""Unit of seed connectivity."""

LOG_POWER = "ln(ms²)"
"""Unit of the logarithm of heart rate variability."""

LEE2019 = {
    "rcbf": ("paired_svm_rcbf.nii.gz", 5.15896642e-05, RELATIVE_FLOW),
    "s1conn": ("paired_svm_s1conn.nii.gz", 6.00711600e-05, REGRESSION_ESTIMATE),
}
"""Published maps, their intercepts and units."""

LEE2019_HFHRV = -2.17344043
"""Published weight of HF-HRV; its intercept is 0."""

LEE2019_METADATA = {
    "Citation": "Lee et al. 2019, doi:10.1097/j.pain.0000000000001417",
    "Trained": "53 patients with chronic low back pain, before and after "
    "manoeuvres that raise pain",
    "Space": "MNI152, 2 mm",
    "Fusion": "the weights of the fused machine were not published",
}


@dataclass(frozen=True, eq=False)
class ModalityWeights:
    """Weights of one modality: a map (x, y, z) with its affine, or a vector with the
    names of its columns.

    unit: of the data it may be applied to; intercept: of the decision on second − first
        visit
    """

    weights: np.ndarray
    unit: str
    intercept: float = 0.0
    affine: np.ndarray | None = None
    columns: tuple[str, ...] = ()

    @property
    def is_map(self) -> bool:
        return self.affine is not None


@dataclass(frozen=True, eq=False)
class Signature:
    """parts: by modality; fusion: weights of the parts' decisions, empty where none
    were published; metadata: the other fields of signature.json (training,
    preprocessing, licence, citation)."""

    name: str
    parts: Mapping[str, ModalityWeights]
    fusion: Mapping[str, float] = field(default_factory=dict)
    metadata: JsonObject = field(default_factory=dict)


# Reading


def read_signature(folder: Path) -> Signature:
    """A signature written by `write_signature`, checked by its hashes, or the published
    maps of 2019.

    Raises InputError for a folder that is neither, and for files changed since they
    were signed.
    """
    folder = Path(folder)
    if (folder / "signature.json").is_file():
        return _read_own(folder)
    if _has_published_maps(folder):
        return _read_published(folder)
    raise _no_signature(folder)


def _has_published_maps(folder: Path) -> bool:
    return all((folder / file).is_file() for file, _, _ in LEE2019.values())


def _no_signature(folder: Path) -> InputError:
    published = ", ".join(file for file, _, _ in LEE2019.values())
    if folder.name.lower() == "lee2019":
        return InputError(
            f"{folder}: the weights of Lee et al. 2019 do not come with cingulum, and "
            "we know of no place from which they may be downloaded: ask the authors "
            "(doi:10.1097/j.pain.0000000000001417), put the maps into a folder "
            f"({published}) and give that folder."
        )
    return InputError(
        f"{folder}: is not a signature. Expected signature.json (made by `cingulum "
        f"signature export`), or the published maps of 2019 ({published})."
    )


def _read_published(folder: Path) -> Signature:
    parts = {}
    for name, (file, intercept, unit) in LEE2019.items():
        parts[name] = _read_published_map(folder / file, unit, intercept)
    hfhrv = np.array([LEE2019_HFHRV])
    parts["hfhrv"] = ModalityWeights(hfhrv, LOG_POWER, columns=("hfhrv",))
    return Signature("lee2019", parts, {}, LEE2019_METADATA)


def _read_published_map(path: Path, unit: str, intercept: float) -> ModalityWeights:
    # The published files have a fourth axis with one volume.
    image = read_image(path, 4)
    weights = np.asarray(image.dataobj, float)[..., 0]
    _check_not_empty(weights, path)
    return ModalityWeights(weights, unit, intercept, image.affine)


def _check_not_empty(weights: np.ndarray, path: Path) -> None:
    # What is left of a map where a download or a conversion failed.
    if not weights.any():
        raise InputError(f"{path}: expected a map of weights; it is zero everywhere.")


def _read_own(folder: Path) -> Signature:
    path = folder / "signature.json"
    metadata = read_json(path)
    # Whatever is wrong with a file that somebody edited, the remedy is the same.
    with parse_errors(path, "signature; export it again"):
        return _signature_of(metadata, folder)


def _signature_of(metadata: JsonObject, folder: Path) -> Signature:
    parts = {}
    for name, entry in metadata["Modalities"].items():
        parts[name] = _read_weights(folder, entry)
    name = str(metadata.get("Name", folder.name))
    return Signature(name, parts, _fusion_weights(metadata), metadata)


def _fusion_weights(metadata: JsonObject) -> dict[str, float]:
    # Signatures of one modality have none.
    weights = metadata.get("Fusion", {})
    return {str(name): float(weight) for name, weight in weights.items()}


def _read_weights(folder: Path, entry: JsonObject) -> ModalityWeights:
    """Weights of an entry of `Modalities` in signature.json."""
    path = _signed_file(folder, entry)
    unit = entry["Unit"]
    intercept = float(entry["Intercept"])
    if path.suffix == ".tsv":
        return read_column_weights(path, unit, intercept)
    return read_map_weights(path, unit, intercept)


def _signed_file(folder: Path, entry: JsonObject) -> Path:
    # Only the name: a signature must not point to files outside its folder.
    path = folder / Path(entry["File"]).name
    _check_hash(path, entry["SHA256"])
    return path


def _check_hash(path: Path, expected: str) -> None:
    if _sha256(path) != expected:
        raise InputError(
            f"{path}: is not the file that was signed (SHA-256 differs). Fetch the "
            "signature again."
        )


def read_column_weights(path: Path, unit: str, intercept: float) -> ModalityWeights:
    """Weights of a table with the columns column and weight."""
    table = read_table(path)
    weights = table["weight"].to_numpy(float)
    columns = tuple(table["column"].astype(str))
    return ModalityWeights(weights, unit, intercept, columns=columns)


def read_map_weights(path: Path, unit: str, intercept: float) -> ModalityWeights:
    """Weights of a NIfTI map."""
    image = read_image(path, 3)
    weights = np.asarray(image.dataobj, float)
    return ModalityWeights(weights, unit, intercept, image.affine)


# Of the file, not of the weights in it, so that any program can check it.
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Writing


def write_signature(signature: Signature, folder: Path, card: str) -> Path:
    """Write a signature to a new folder: maps or tables, signature.json with their
    hashes, model_card.md."""
    folder = Path(folder)
    # A signature that others may have fetched is never overwritten.
    with whole_folder(folder) as partial:
        entries = {}
        for name, part in signature.parts.items():
            entries[name] = _write_weights(partial, name, part)
        metadata = dict(_metadata_to_write(signature, entries))
        write_json(partial / "signature.json", metadata)
        write_bytes(partial / "model_card.md", card.encode())
    return folder


def _metadata_to_write(
    signature: Signature, entries: dict[str, dict[str, str | float]]
) -> JsonObject:
    # What a signature was read with gives way to what is written now.
    return {
        "Name": signature.name,
        **signature.metadata,
        "Modalities": entries,
        "Fusion": dict(signature.fusion),
        "GeneratedBy": [{"Name": "cingulum", "Version": __version__}],
    }


def _write_weights(
    folder: Path, name: str, part: ModalityWeights
) -> dict[str, str | float]:
    """Writes one file of weights; returns its entry in signature.json."""
    path = _write_file(folder, name, part)
    return {
        "File": path.name,
        "Unit": part.unit,
        "Intercept": part.intercept,
        "SHA256": _sha256(path),
    }


def _write_file(folder: Path, name: str, part: ModalityWeights) -> Path:
    """Writes a map, or a table where the weights are of columns."""
    if part.affine is None:
        path = folder / f"{name}_weights.tsv"
        write_table(path, _column_table(part))
        return path
    path = folder / f"{name}_weights.nii.gz"
    write_image(path, part.weights.astype(np.float32), part.affine)
    return path


def _column_table(part: ModalityWeights) -> pd.DataFrame:
    return pd.DataFrame({"column": part.columns, "weight": part.weights})
