"""A BIDS dataset and its derivatives, as visits: one participant, one session, and the files recorded then."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cingulum.errors import InputError
from cingulum.recordings.files import read_json

KINDS: dict[str, dict[str, str]] = {
    "bold": {"suffix": "bold", "desc": "preproc", "extension": ".nii.gz"},
    "mask": {"suffix": "mask", "desc": "brain", "extension": ".nii.gz", "datatype": "func"},
    "confounds": {"suffix": "timeseries", "desc": "confounds", "extension": ".tsv"},
    "perfusion": {"suffix": "cbf", "extension": ".nii.gz"},
    "cardiac": {"suffix": "physio", "extension": ".tsv.gz"},
}
"""What we look for, in the names that fMRIPrep, ASLPrep and BIDS give."""


@dataclass(frozen=True)
class Visit:
    """One participant at one session; `visit["bold"]` is the path of that recording."""

    participant: str
    session: str
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"sub-{self.participant}_ses-{self.session}"

    def __getitem__(self, kind: str) -> Path:
        """Path of a recording. Raises InputError, saying what was looked for, when the visit lacks it."""
        if kind not in self.files:
            wanted = KINDS[kind]
            desc = f"*_desc-{wanted['desc']}" if "desc" in wanted else "*"
            raise InputError(
                f"{self.name} has no {kind} recording: expected a file {self.name}{desc}_{wanted['suffix']}"
                f"{wanted['extension']} in the dataset or below its derivatives/. Add it, leave the participant out "
                "with --participant-label, or leave the modality out with --modalities."
            )
        return self.files[kind]


def visits(root: Path, participants: Sequence[str] | None = None) -> list[Visit]:
    """Every visit of a dataset (raw files and everything below derivatives/), in order of name.

    participants: labels with or without `sub-`; default all
    Raises InputError for a folder that is no dataset, an unknown participant, or two files for one recording.
    """
    root = Path(root)
    if not (root / "dataset_description.json").is_file():
        raise InputError(f"{root}: expected a BIDS dataset with a dataset_description.json in it; found none.")
    read_json(root / "dataset_description.json")
    found: dict[tuple[str, str], dict[str, list[Path]]] = {}
    for path, entities in _files(root):
        kind = _kind(entities)
        if "sub" in entities and "ses" in entities and kind:
            found.setdefault((entities["sub"], entities["ses"]), {}).setdefault(kind, []).append(path)
    wanted = _wanted(root, sorted({participant for participant, _ in found}), participants)
    return [Visit(p, s, _single(p, s, kinds)) for (p, s), kinds in sorted(found.items()) if p in wanted]


def entities_of(name: str) -> dict[str, str]:
    """The entities, suffix and extension in a BIDS file name: sub-01_ses-pre_desc-x_bold.nii.gz."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
    return {**entities, "suffix": suffix, "extension": dot + extension}


def _files(root: Path) -> list[tuple[Path, dict[str, str]]]:
    rows = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(d for d in below if not d.startswith(".") and d != "sourcedata")
        for name in sorted(names):
            if name.startswith("sub-"):
                rows.append((Path(folder, name), {**entities_of(name), "datatype": Path(folder).name}))
    return rows


def _kind(entities: dict[str, str]) -> str | None:
    standard = entities.get("space", "MNI").startswith("MNI")
    for kind, wanted in KINDS.items():
        if standard and all(entities.get(key) == value for key, value in wanted.items()):
            # An undescribed CBF map is ASLPrep's standard one; basil or score variants are chosen by the user.
            if kind != "perfusion" or "desc" not in entities:
                return kind
    return None


def _wanted(root: Path, known: list[str], asked: Sequence[str] | None) -> set[str]:
    if not known:
        raise InputError(
            f"{root}: no visits found. Expected files named sub-<label>_ses-<label>_… such as those of fMRIPrep "
            "(desc-preproc_bold), ASLPrep (cbf) and BIDS physio, in the dataset or below its derivatives/."
        )
    labels = known if asked is None else [label.removeprefix("sub-") for label in asked]
    unknown = [label for label in labels if label not in known]
    if unknown:
        some = ", ".join(known[:8]) + (" …" if len(known) > 8 else "")
        raise InputError(f"No such participant: {', '.join(unknown)}. The dataset has {len(known)}: {some}.")
    return set(labels)


def _single(participant: str, session: str, kinds: dict[str, list[Path]]) -> dict[str, Path]:
    for kind, paths in kinds.items():
        if len(paths) > 1:
            raise InputError(
                f"sub-{participant}_ses-{session} has {len(paths)} files for {kind}: {paths[0].name} and "
                f"{paths[1].name}. Keep one run and one MNI space a visit."
            )
    return {kind: paths[0] for kind, paths in kinds.items()}
