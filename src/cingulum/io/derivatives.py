"""A folder of results as a BIDS derivative dataset: its description, its sidecars, and
whose it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cingulum import __version__
from cingulum.errors import InputError
from cingulum.io.files import read_json, write_bytes, write_json

SAFE_NAME = re.compile(r"[A-Za-z0-9][\w .+()-]{0,39}")
"""What names and versions of software look like; others, which may be paths or names of
people, are not repeated."""

NOT_IN_SCHEMA = """\
*_seed-*
*_relmat.*
*_timeseries.*
*_cbf.*
*_att.*
*_fit.*
*_physio.*
*.html
summary.json
features.*
failures.tsv
study.toml
connectome.npy
references.bib
predictions*
patterns/
maps/
model/
figures/
work/
"""
"""Files of ours that BIDS validators must pass over: names after the proposals for
derivatives of fMRI and perfusion, which the schema lacks so far."""


DESCRIPTION = {
    "Name": "cingulum features",
    "BIDSVersion": "1.10.0",
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "cingulum", "Version": __version__}],
}
"""The content of dataset_description.json."""


def describe_dataset(out: Path) -> None:
    """Make `out` a BIDS derivative dataset. Raises InputError if it is another kind of
    folder."""
    check_output_folder(out)
    path = _description_path(out)
    # A later version leaves the description of the one that began the dataset.
    if path.is_file():
        return
    write_json(path, DESCRIPTION)
    write_bytes(Path(out) / ".bidsignore", NOT_IN_SCHEMA.encode())


def _description_path(out: Path) -> Path:
    return Path(out) / "dataset_description.json"


def check_output_folder(out: Path) -> None:
    """Raises InputError for a folder that holds other things than an output of ours."""
    if _description_path(out).is_file():
        _check_ours(out)
    elif Path(out).exists() and not _is_empty_folder(Path(out)):
        raise InputError(
            f"{out}: is not empty and not an output of cingulum (no "
            "dataset_description.json that says so); name another output folder."
        )


def _check_ours(out: Path) -> None:
    tools = [name for name, _ in generated_by(_description_path(out))]
    if "cingulum" not in tools:
        raise InputError(
            f"{out}: is a dataset that cingulum did not write; name another output "
            "folder."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def generated_by(path: Path) -> list[tuple[str, str]]:
    """Name and version of what made a dataset, as its description says."""
    content = read_json(path).get("GeneratedBy")
    # A list in BIDS; descriptions written by hand often have a single object.
    entries = content if isinstance(content, list) else [content]
    tools = []
    for entry in entries:
        if isinstance(entry, dict) and _is_safe(entry.get("Name")):
            tools.append((entry["Name"], _safe_version(entry.get("Version"))))
    return tools


def _safe_version(version: object) -> str:
    # The name alone still tells what made the dataset.
    if not _is_safe(version):
        return ""
    return str(version)


def _is_safe(text: object) -> bool:
    return isinstance(text, str) and SAFE_NAME.fullmatch(text) is not None


def sidecar_of(path: Path) -> Path:
    """The JSON file beside a file."""
    return path.with_name(path.name.partition(".")[0] + ".json")


def to_json(value: Any) -> Any:
    """Values in JSON's types; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json(item) for item in value]
    return _scalar_to_json(value)


def _scalar_to_json(value: Any) -> Any:
    # NumPy's numbers are none for the json module.
    if isinstance(value, np.generic):
        value = value.item()
    # JSON has no NaN, and what Python writes for it no other program reads.
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
