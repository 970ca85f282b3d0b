"""Kinds of recordings: how each is recognised by its name in a BIDS dataset.

A kind is declared once, here or in the file of its reader, and registered. Nothing else
knows how its files are called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

IMAGE = [".nii.gz", ".nii"]


class Treatment(StrEnum):
    """Settings of a run that change what is read from a kind of recording."""

    DENOISING = "denoising"
    KINETIC_CONSTANTS = "constants"


@dataclass(frozen=True)
class RecordingKind:
    """How a kind of recording is recognised.

    name: as users write it in filter files
    query: entities as for `Index.find`
    accompanies: name of the kind whose entities this file must not contradict
    prefers_standard_space: an image in MNI space is taken before one in another space
    shared: may also belong to all visits of a participant (anatomy, tractography)
    columns: where set, the file's JSON must list at least one of these columns, in any
        capitals; so one physiological file may serve several kinds
    treatment: the settings that change what is read from it, if any
    by: where set, a visit may have several files of the kind, which these entities (the
        first that a name has) tell apart: each is a recording of its own, called
        `kind:label`
    is_of_joined_runs: of tables of single runs and one whose name has no run, the
        latter is of all runs together, and taken (XCP-D's `--combine-runs`)
    descriptions: values of `desc` in the order in which they are taken
    first_extension: whether, of the same content in files of several extensions, the
        one is taken that the query names first
    """

    name: str
    query: Mapping[str, str | list[str] | list[str | None] | None]
    accompanies: str | None = None
    prefers_standard_space: bool = False
    shared: bool = False
    columns: tuple[str, ...] = ()
    treatment: Treatment | None = None
    by: tuple[str, ...] = ()
    is_of_joined_runs: bool = False
    descriptions: tuple[str, ...] = ()
    first_extension: bool = False

    def named(self, label: str) -> str:
        """Name of the recording with this label, for a kind with `by`."""
        return f"{self.name}:{label}"

    def label_of(self, entities: Mapping[str, str]) -> str:
        """The label that tells a file from others of the kind; empty where its name
        has none."""
        return next((entities[name] for name in self.by if name in entities), "")


def kind_of(recording: str) -> RecordingKind:
    """The kind of a recording by its name, `bold` or `series:4S156Parcels`."""
    return RECORDING_KINDS[recording.partition(":")[0]]


_REGISTERED: dict[str, RecordingKind] = {}

RECORDING_KINDS: Mapping[str, RecordingKind] = MappingProxyType(_REGISTERED)
"""Every registered kind by name, in the order in which files are chosen."""


def register_recording_kind(kind: RecordingKind) -> RecordingKind:
    """Make datasets be searched for a kind of recording; returns the kind.

    Raises ValueError for a name that is taken by another kind.
    """
    if _REGISTERED.get(kind.name, kind) != kind:
        raise ValueError(f"Another kind of recording is called {kind.name!r} already.")
    _REGISTERED[kind.name] = kind
    return kind


PREPROCESSED = "preproc"
CLEANED = ("denoised", "residual")
"""What XCP-D and tedana call runs that they cleaned; nothing is regressed out again."""


def description_of(path: Path) -> str:
    """The entity `desc` in the name of a file; empty where there is none."""
    named = re.search(r"_desc-([A-Za-z0-9]+)_", path.name)
    return named[1] if named else ""


def is_cleaned(path: Path) -> bool:
    """Whether a BOLD run was cleaned by the pipeline that wrote it."""
    return description_of(path) in CLEANED


BOLD = register_recording_kind(
    RecordingKind(
        "bold",
        {"suffix": "bold", "desc": [PREPROCESSED, *CLEANED], "extension": IMAGE},
        prefers_standard_space=True,
        treatment=Treatment.DENOISING,
        descriptions=(PREPROCESSED, *CLEANED),
    )
)
MASK = register_recording_kind(
    RecordingKind(
        "mask",
        {"suffix": "mask", "desc": "brain", "extension": IMAGE, "datatype": "func"},
        accompanies="bold",
        prefers_standard_space=True,
    )
)
CONFOUNDS = register_recording_kind(
    RecordingKind(
        "confounds",
        {
            "suffix": ["timeseries", "regressors"],
            "desc": "confounds",
            "extension": ".tsv",
        },
        accompanies="bold",
    )
)
# An undescribed CBF map is ASLPrep's standard one; basil or score variants are chosen
# with a filter file.
PERFUSION = register_recording_kind(
    RecordingKind(
        "perfusion",
        {"suffix": "cbf", "extension": IMAGE, "desc": None},
        prefers_standard_space=True,
        treatment=Treatment.KINETIC_CONSTANTS,
    )
)
ASL = register_recording_kind(
    RecordingKind(
        "asl", {"suffix": "asl", "extension": IMAGE, "desc": None, "space": None}
    )
)
ASL_CONTEXT = register_recording_kind(
    RecordingKind(
        "aslcontext",
        {"suffix": "aslcontext", "extension": ".tsv"},
        accompanies="asl",
        shared=True,
    )
)
M0_SCAN = register_recording_kind(
    RecordingKind(
        "m0scan",
        {
            "suffix": "m0scan",
            "datatype": "perf",
            "extension": IMAGE,
            "desc": None,
            "space": None,
        },
    )
)
CARDIAC = register_recording_kind(
    RecordingKind(
        "cardiac",
        {
            "suffix": "physio",
            "extension": ".tsv.gz",
            "recording": [
                None,
                "cardiac",
                "pulse",
                "ppg",
                "ecg",
                "ECG",
                "PPG",
                "physio",
            ],
        },
    )
)
RESPIRATORY = register_recording_kind(
    RecordingKind(
        "respiratory",
        {
            "suffix": "physio",
            "extension": ".tsv.gz",
            "recording": ["respiratory", "resp", "respiration", "breathing"],
        },
    )
)
CBF_MASK = register_recording_kind(
    RecordingKind(
        "cbfmask",
        {"suffix": "mask", "desc": "brain", "extension": IMAGE, "datatype": "perf"},
        accompanies="perfusion",
    )
)
GREY_MATTER = register_recording_kind(
    RecordingKind(
        "grey",
        {"suffix": "probseg", "label": "GM", "extension": IMAGE},
        accompanies="perfusion",
        shared=True,
    )
)
CONNECTOME = register_recording_kind(
    RecordingKind(
        "connectome",
        {
            "suffix": ["relmat", "connectivity"],
            "datatype": "dwi",
            "extension": [".tsv", ".csv", ".mat"],
        },
        shared=True,
    )
)
