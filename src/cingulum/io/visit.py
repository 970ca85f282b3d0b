"""A dataset as visits: one participant, one session, and the recordings of that time,
each with its sidecars."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cingulum.errors import InputError
from cingulum.io.bids_index import BidsFile, Index, entity_query, index, inside, merged
from cingulum.io.files import read_json
from cingulum.io.spaces import adult_mni

IMAGE = [".nii.gz", ".nii"]


@dataclass(frozen=True)
class RecordingKind:
    """How a kind of recording is recognised.

    query: entities as for `Index.find`
    of: the kind that it accompanies: its entities must not contradict that file's
    standard: an image in MNI space is preferred to one in another space
    shared: may also belong to all visits of a participant (anatomy, tractography)
    """

    query: Mapping[str, Any]
    of: str | None = None
    standard: bool = False
    shared: bool = False


KINDS: dict[str, RecordingKind] = {
    "bold": RecordingKind(
        {"suffix": "bold", "desc": "preproc", "extension": IMAGE}, standard=True
    ),
    "mask": RecordingKind(
        {"suffix": "mask", "desc": "brain", "extension": IMAGE, "datatype": "func"},
        of="bold",
        standard=True,
    ),
    "confounds": RecordingKind(
        {
            "suffix": ["timeseries", "regressors"],
            "desc": "confounds",
            "extension": ".tsv",
        },
        of="bold",
    ),
    # An undescribed CBF map is ASLPrep's standard one; basil or score variants are
    # chosen with a filter file.
    "perfusion": RecordingKind(
        {"suffix": "cbf", "extension": IMAGE, "desc": None}, standard=True
    ),
    "asl": RecordingKind(
        {"suffix": "asl", "extension": IMAGE, "desc": None, "space": None}
    ),
    "aslcontext": RecordingKind(
        {"suffix": "aslcontext", "extension": ".tsv"}, of="asl", shared=True
    ),
    "m0scan": RecordingKind(
        {
            "suffix": "m0scan",
            "datatype": "perf",
            "extension": IMAGE,
            "desc": None,
            "space": None,
        }
    ),
    "cardiac": RecordingKind(
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
        }
    ),
    "respiratory": RecordingKind(
        {
            "suffix": "physio",
            "extension": ".tsv.gz",
            "recording": ["respiratory", "resp", "respiration", "breathing"],
        }
    ),
    "cbfmask": RecordingKind(
        {"suffix": "mask", "desc": "brain", "extension": IMAGE, "datatype": "perf"},
        of="perfusion",
    ),
    "grey": RecordingKind(
        {"suffix": "probseg", "label": "GM", "extension": IMAGE},
        of="perfusion",
        shared=True,
    ),
    "connectome": RecordingKind(
        {
            "suffix": ["relmat", "connectivity"],
            "datatype": "dwi",
            "extension": [".tsv", ".csv"],
        },
        shared=True,
    ),
}
"""What we look for, in the names that BIDS, fMRIPrep and ASLPrep give."""


@dataclass(frozen=True)
class Visit:
    """One participant at one session; `visit["bold"]` is the path of that recording.

    session: empty where the dataset has no sessions
    files, sidecars: by kind; sidecars from the most general to the most specific
    crowded: kinds with several files, none of them chosen
    outside: the first link of the dataset that leads out of it and was therefore left
        out
    """

    participant: str
    session: str
    files: Mapping[str, Path] = field(default_factory=dict)
    sidecars: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    crowded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: Path = Path(".")
    outside: str = ""

    @property
    def name(self) -> str:
        return f"sub-{self.participant}" + (
            f"_ses-{self.session}" if self.session else ""
        )

    @property
    def folder(self) -> Path:
        """Where a dataset keeps the visit: sub-…/ses-…"""
        return Path(*self.name.split("_"))

    def has(self, kind: str) -> bool:
        """Whether the visit has that recording (or several of it)."""
        return kind in self.files or kind in self.crowded

    def __getitem__(self, kind: str) -> Path:
        """Path of a recording. Raises InputError, saying what was looked for, when the
        visit has none or several."""
        if kind in self.crowded:
            some = self.crowded[kind]
            raise InputError(
                f"{self.name} has {len(some)} files for {kind}: {some[0]} and "
                f"{some[1]}. Choose one with "
                f'--bids-filter-file, a JSON file such as {{"{kind}": {{"task": '
                f'"rest", "run": 1}}}}.'
            )
        if kind not in self.files:
            query = KINDS[kind].query
            ending, suffix = _first(query["extension"]), _first(query["suffix"])
            desc = f"*_desc-{query['desc']}" if query.get("desc") else "*"
            raise InputError(
                f"{self.name} has no {kind} recording: expected a file "
                f"{self.name}{desc}_{suffix}{ending} in the "
                "dataset or below its derivatives/. Add it, leave the participant out "
                "with --participant-label, or "
                "leave the feature out with --features (of `cingulum run`: "
                f"--modalities).{self._links()}"
            )
        return self.files[kind]

    def _links(self) -> str:
        return (
            " Links that lead out of the dataset were left out, such as "
            f"{self.outside}."
            if self.outside
            else ""
        )

    def metadata(self, kind: str) -> dict[str, Any]:
        """The sidecar fields of a recording, inherited ones included."""
        return merged(self.sidecars.get(kind, ()))


def visits(
    root: Path,
    participants: Sequence[str] | None = None,
    *,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    derivatives: Sequence[Path] = (),
) -> list[Visit]:
    """Every visit of a dataset (raw files, everything below derivatives/, other
    `derivatives`), in order of name.

    participants, sessions: labels with or without `sub-`, `ses-`; default all
    filters: by kind, further entities, as `read_filters` gives them
    Raises InputError for a folder that is no dataset or an unknown participant. A
    missing or ambiguous recording is an error only when it is asked for, so that one
    crowded visit does not stop the others.
    """
    found, filters = index(root, derivatives), filters or {}
    candidates = {
        name: found.find(**{**kind.query, **filters.get(name, {})})
        for name, kind in KINDS.items()
    }
    keys = sorted(
        {
            (file.entities["sub"], file.entities.get("ses", ""))
            for name, files in candidates.items()
            for file in files
            if not KINDS[name].shared and "sub" in file.entities
        }
    )
    wanted = _wanted(
        found, sorted({participant for participant, _ in keys}), participants
    )
    asked = (
        None if sessions is None else {label.removeprefix("ses-") for label in sessions}
    )
    unknown = sorted((asked or set()) - {session for _, session in keys})
    if unknown:
        raise InputError(
            f"No such session: {', '.join(unknown)}. The dataset has "
            f"{_list({s for _, s in keys})}."
        )
    mine = _by_participant(candidates)
    return [
        _visit(found, p, s, mine.get(p, {}), filters)
        for p, s in keys
        if p in wanted and (asked is None or s in asked)
    ]


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """A filter file as fMRIPrep reads it: {"bold": {"task": "rest", "space":
    "MNI152NLin6Asym"}, …}.

    Raises InputError for an unknown kind or entity, with the nearest known one.
    """
    return checked_filters(read_json(path), str(path))


def checked_filters(
    content: Mapping[str, Any], source: str
) -> dict[str, dict[str, Any]]:
    """Filters in short entity names; an entity that must be absent is null or, in TOML,
    false.

    Raises InputError, naming the source, for an unknown kind or entity.
    """
    for kind, query in content.items():
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, 1)
            hint = (
                f" Did you mean {near[0]}?"
                if near
                else f" Known are {', '.join(KINDS)}."
            )
            raise InputError(
                f"{source}: no kind of recording is called {kind!r}.{hint}"
            )
        if not isinstance(query, dict):
            raise InputError(
                f"{source}: {kind} needs an object of entities; came {query!r}."
            )
    absent = {
        kind: {k: None if v is False else v for k, v in query.items()}
        for kind, query in content.items()
    }
    return {
        kind: entity_query(query, f"{source}: {kind}") for kind, query in absent.items()
    }


def _first(value: Any) -> str:
    return str(value[0] if isinstance(value, list) else value)


def _list(labels: set[str]) -> str:
    shown = sorted(labels)
    return f"{len(shown)}: {', '.join(shown[:8])}{' …' if len(shown) > 8 else ''}"


def _by_participant(
    candidates: Mapping[str, list[BidsFile]],
) -> dict[str, dict[str, list[BidsFile]]]:
    table: dict[str, dict[str, list[BidsFile]]] = {}
    everyone = {
        name: [f for f in files if "sub" not in f.entities]
        for name, files in candidates.items()
    }
    for name, files in candidates.items():
        for file in files:
            if "sub" in file.entities:
                mine = table.setdefault(file.entities["sub"], {})
                mine.setdefault(name, list(everyone[name])).append(file)
    for mine in table.values():
        for name, files in everyone.items():
            if files:
                mine.setdefault(name, files)
    return table


def _visit(
    found: Index,
    participant: str,
    session: str,
    mine: Mapping[str, list[BidsFile]],
    filters: Mapping[str, Any],
) -> Visit:
    chosen: dict[str, BidsFile] = {}
    crowded: dict[str, tuple[str, ...]] = {}
    for name, kind in KINDS.items():
        files = [
            file
            for file in mine.get(name, [])
            if file.entities.get("ses", "") == session
            or (kind.shared and "ses" not in file.entities)
        ]
        if kind.of in chosen:
            files = _closest(
                [file for file in files if _accompanies(file, chosen[kind.of])]
            )
        if kind.standard and "space" not in filters.get(name, {}):
            files = [
                f for f in files if adult_mni(f.entities.get("space", ""))
            ] or files
        if kind.shared:
            files = _closest(files)
        if name == "m0scan" and "asl" in chosen:
            files = _intended(found, files, chosen["asl"])
        if len(files) == 1:
            chosen[name] = files[0]
        elif files:
            crowded[name] = tuple(file.path.name for file in files)
    return Visit(
        participant,
        session,
        {name: file.path for name, file in chosen.items()},
        {
            name: tuple(side.path for side in found.sidecars(file))
            for name, file in chosen.items()
        },
        crowded,
        found.roots[0],
        found.left_out[0] if found.left_out else "",
    )


def _closest(files: list[BidsFile]) -> list[BidsFile]:
    """Those that share most entities with what they accompany."""
    return [
        file
        for file in files
        if len(file.entities) == max(len(other.entities) for other in files)
    ]


def _accompanies(file: BidsFile, main: BidsFile) -> bool:
    own = {
        k: v
        for k, v in file.entities.items()
        if k not in ("desc", "suffix", "extension", "datatype", "label")
    }
    return all(main.entities.get(key) == value for key, value in own.items())


def _intended(found: Index, files: list[BidsFile], asl: BidsFile) -> list[BidsFile]:
    """M0 scans that say they are for this run; those that say nothing, if none does."""
    named, silent = [], []
    for file in files:
        targets = found.metadata(file).get("IntendedFor")
        if targets is None:
            silent.append(file)
            continue
        for target in targets if isinstance(targets, list) else [targets]:
            if not isinstance(target, str):
                raise InputError(
                    f"{file.path}: IntendedFor must name files; came {target!r}."
                )
            below = (
                ""
                if target.startswith("bids:") or target.startswith("sub-")
                else f"sub-{file.entities['sub']}/"
            )
            if inside(file.dataset, below + target).name == asl.path.name:
                named.append(file)
    return named or silent


def _wanted(found: Index, known: list[str], asked: Sequence[str] | None) -> set[str]:
    if not known:
        links = found.left_out
        outside = (
            f" {len(links)} link(s) that lead out of the dataset were left out, such "
            f"as {links[0]}: name such a folder "
            "with --derivatives."
            if links
            else ""
        )
        raise InputError(
            f"{found.roots[0]}: no visits found. Expected files named "
            "sub-<label>[_ses-<label>]_… such as those of "
            "fMRIPrep (desc-preproc_bold), ASLPrep (cbf), raw ASL (asl) and BIDS "
            "physio, in the dataset or below its "
            f"derivatives/.{outside}"
        )
    labels = known if asked is None else [label.removeprefix("sub-") for label in asked]
    unknown = [label for label in labels if label not in known]
    if unknown:
        raise InputError(
            f"No such participant: {', '.join(unknown)}. The dataset has "
            f"{_list(set(known))}."
        )
    return set(labels)
