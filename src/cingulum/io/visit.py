"""A dataset as visits: one participant at one session, with the recordings of that
time, each with its sidecars."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cingulum.errors import InputError
from cingulum.io.bids_index import BidsFile, Index, entity_query, index, inside, merged
from cingulum.io.files import read_json
from cingulum.io.recording_kinds import (
    ASL,
    M0_SCAN,
    RECORDING_KINDS,
    RecordingKind,
)
from cingulum.io.spaces import adult_mni

Filters = Mapping[str, Mapping[str, Any]]
"""Further entities that a file must have, by kind of recording."""

FilesByKind = dict[str, list[BidsFile]]


@dataclass(frozen=True)
class Visit:
    """One participant at one session; `visit["bold"]` is the path of that recording.

    session: empty where the dataset has no sessions
    files, sidecars: by kind; sidecars from the most general to the most specific
    ambiguous: kinds with several files, none of them chosen
    outside: the first link of the dataset that leads out of it and was therefore left
        out
    """

    participant: str
    session: str
    files: Mapping[str, Path] = field(default_factory=dict)
    sidecars: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: Path = Path(".")
    outside: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Participant and session, without `sub-` and `ses-`."""
        return self.participant, self.session

    @property
    def name(self) -> str:
        """The visit as BIDS files name it: sub-<label>[_ses-<label>]."""
        session = f"_ses-{self.session}" if self.session else ""
        return f"sub-{self.participant}{session}"

    @property
    def folder(self) -> Path:
        """Where a dataset keeps the visit: sub-…/ses-…"""
        return Path(*self.name.split("_"))

    def has(self, kind: str) -> bool:
        """Whether the visit has that recording (or several of it)."""
        return kind in self.files or kind in self.ambiguous

    def __getitem__(self, kind: str) -> Path:
        """Path of a recording.

        Raises InputError, saying what was looked for, when the visit has none or
        several.
        """
        if kind in self.ambiguous:
            raise InputError(self._several_files(kind))
        if kind not in self.files:
            raise InputError(self._no_file(kind))
        return self.files[kind]

    def _several_files(self, kind: str) -> str:
        names = self.ambiguous[kind]
        return (
            f"{self.name} has {len(names)} files for {kind}: {names[0]} and "
            f"{names[1]}. Choose one with --bids-filter-file, a JSON file such as "
            f'{{"{kind}": {{"task": "rest", "run": 1}}}}.'
        )

    def _no_file(self, kind: str) -> str:
        query = RECORDING_KINDS[kind].query
        ending = _first(query["extension"])
        suffix = _first(query["suffix"])
        desc = f"*_desc-{query['desc']}" if query.get("desc") else "*"
        links = ""
        if self.outside:
            links = (
                " Links that lead out of the dataset were left out, such as "
                f"{self.outside}."
            )
        return (
            f"{self.name} has no {kind} recording: expected a file "
            f"{self.name}{desc}_{suffix}{ending} in the dataset or below its "
            "derivatives/. Add it, leave the participant out with "
            "--participant-label, or leave the feature out with --features (of "
            f"`cingulum run`: --modalities).{links}"
        )

    def metadata(self, kind: str) -> dict[str, Any]:
        """The sidecar fields of a recording, inherited ones included."""
        return merged(self.sidecars.get(kind, ()))


def visits(
    root: Path,
    participants: Sequence[str] | None = None,
    *,
    sessions: Sequence[str] | None = None,
    filters: Filters | None = None,
    derivatives: Sequence[Path] = (),
) -> list[Visit]:
    """Every visit of a dataset (raw files, everything below derivatives/, other
    `derivatives`), in order of name.

    participants, sessions: labels with or without `sub-`, `ses-`; default all
    filters: by kind, further entities, as `read_filters` gives them
    Raises InputError for a folder that is no dataset, or an unknown participant or
    session. A missing or ambiguous recording is an error only when it is asked for, so
    that one ambiguous visit does not stop the others.
    """
    dataset = index(root, derivatives)
    filters = filters or {}
    candidates = {
        name: _candidates(dataset, kind, filters.get(name, {}))
        for name, kind in RECORDING_KINDS.items()
    }
    keys = _visit_keys(candidates)
    participants_wanted = _participants_wanted(dataset, keys, participants)
    sessions_wanted = _sessions_wanted(keys, sessions)
    files_of = _by_participant(candidates)
    return [
        _visit(dataset, key, files_of.get(key[0], {}), filters)
        for key in keys
        if key[0] in participants_wanted and key[1] in sessions_wanted
    ]


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """A filter file as fMRIPrep reads it: {"bold": {"task": "rest", …}, …}.

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
    filters = {}
    for kind, query in content.items():
        if kind not in RECORDING_KINDS:
            raise InputError(
                f"{source}: no kind of recording is called {kind!r}."
                f"{_nearest_kind(kind)}"
            )
        if not isinstance(query, dict):
            raise InputError(
                f"{source}: {kind} needs an object of entities; got {query!r}."
            )
        # TOML has no null, so there an absent entity is written as false.
        absent = {key: None if v is False else v for key, v in query.items()}
        filters[kind] = entity_query(absent, f"{source}: {kind}")
    return filters


def _nearest_kind(name: str) -> str:
    near = difflib.get_close_matches(name, RECORDING_KINDS, 1)
    if near:
        return f" Did you mean {near[0]}?"
    return f" Known are {', '.join(RECORDING_KINDS)}."


def _first(value: Any) -> str:
    return str(value[0] if isinstance(value, list) else value)


def _label_list(labels: set[str]) -> str:
    """How many labels there are, and the first of them."""
    ordered = sorted(labels)
    more = " …" if len(ordered) > 8 else ""
    return f"{len(ordered)}: {', '.join(ordered[:8])}{more}"


def _candidates(
    dataset: Index, kind: RecordingKind, extra: Mapping[str, Any]
) -> list[BidsFile]:
    """Files of a dataset that may be recordings of one kind."""
    files = dataset.find(**{**kind.query, **extra})
    if not kind.columns:
        return files
    return [file for file in files if _has_column(dataset, file, kind.columns)]


def _has_column(dataset: Index, file: BidsFile, columns: Sequence[str]) -> bool:
    """Whether a table without a header says in its JSON that it has such a column."""
    names = dataset.metadata(file).get("Columns", [])
    if not isinstance(names, list):
        return False
    lowered = {str(name).lower() for name in names}
    return bool(lowered & {column.lower() for column in columns})


def _visit_keys(candidates: Mapping[str, list[BidsFile]]) -> list[tuple[str, str]]:
    """Participant and session of every visit. What may belong to all visits of a
    participant makes no visit by itself."""
    keys = set()
    for name, files in candidates.items():
        if RECORDING_KINDS[name].shared:
            continue
        for file in files:
            if "sub" in file.entities:
                keys.add((file.entities["sub"], file.entities.get("ses", "")))
    return sorted(keys)


def _sessions_wanted(
    keys: Sequence[tuple[str, str]], sessions: Sequence[str] | None
) -> set[str]:
    available = {session for _, session in keys}
    if sessions is None:
        return available
    wanted = {label.removeprefix("ses-") for label in sessions}
    unknown = sorted(wanted - available)
    if unknown:
        raise InputError(
            f"No such session: {', '.join(unknown)}. The dataset has "
            f"{_label_list(available)}."
        )
    return wanted


def _participants_wanted(
    dataset: Index,
    keys: Sequence[tuple[str, str]],
    participants: Sequence[str] | None,
) -> set[str]:
    available = {participant for participant, _ in keys}
    if not available:
        raise InputError(_no_visits(dataset))
    if participants is None:
        return available
    wanted = [label.removeprefix("sub-") for label in participants]
    unknown = [label for label in wanted if label not in available]
    if unknown:
        raise InputError(
            f"No such participant: {', '.join(unknown)}. The dataset has "
            f"{_label_list(available)}."
        )
    return set(wanted)


def _no_visits(dataset: Index) -> str:
    links = dataset.left_out
    outside = ""
    if links:
        outside = (
            f" {len(links)} link(s) that lead out of the dataset were left out, such "
            f"as {links[0]}: name such a folder with --derivatives."
        )
    return (
        f"{dataset.roots[0]}: no visits found. Expected files named "
        "sub-<label>[_ses-<label>]_… such as those of fMRIPrep (desc-preproc_bold), "
        "ASLPrep (cbf), raw ASL (asl) and BIDS physio, in the dataset or below its "
        f"derivatives/.{outside}"
    )


def _by_participant(
    candidates: Mapping[str, list[BidsFile]],
) -> dict[str, FilesByKind]:
    """Files of every participant by kind, those that belong to everybody included."""
    table: dict[str, FilesByKind] = {}
    everybody = {
        kind: [file for file in files if "sub" not in file.entities]
        for kind, files in candidates.items()
    }
    for kind, files in candidates.items():
        for file in files:
            if "sub" in file.entities:
                own = table.setdefault(file.entities["sub"], {})
                own.setdefault(kind, list(everybody[kind])).append(file)
    for own in table.values():
        for kind, files in everybody.items():
            if files:
                own.setdefault(kind, files)
    return table


def _visit(
    dataset: Index, key: tuple[str, str], files_of: FilesByKind, filters: Filters
) -> Visit:
    """One visit, with the one file of each kind that fits it."""
    chosen: dict[str, BidsFile] = {}
    ambiguous: dict[str, tuple[str, ...]] = {}
    for name, kind in RECORDING_KINDS.items():
        in_session = _of_session(files_of.get(name, []), key[1], kind.shared)
        space_is_filtered = "space" in filters.get(name, {})
        files = _best_matches(kind, in_session, chosen, space_is_filtered)
        if kind == M0_SCAN and ASL.name in chosen:
            files = _intended_for(dataset, files, chosen[ASL.name])
        if len(files) == 1:
            chosen[name] = files[0]
        elif files:
            ambiguous[name] = tuple(file.path.name for file in files)
    return Visit(
        *key,
        {name: file.path for name, file in chosen.items()},
        {name: _sidecar_paths(dataset, file) for name, file in chosen.items()},
        ambiguous,
        dataset.roots[0],
        dataset.left_out[0] if dataset.left_out else "",
    )


def _sidecar_paths(dataset: Index, file: BidsFile) -> tuple[Path, ...]:
    return tuple(sidecar.path for sidecar in dataset.sidecars(file))


def _of_session(
    files: Sequence[BidsFile], session: str, shared: bool
) -> list[BidsFile]:
    return [
        file
        for file in files
        if file.entities.get("ses", "") == session
        or (shared and "ses" not in file.entities)
    ]


def _best_matches(
    kind: RecordingKind,
    files: list[BidsFile],
    chosen: Mapping[str, BidsFile],
    space_is_filtered: bool,
) -> list[BidsFile]:
    """The files of a kind that fit the visit's other files best."""
    main = chosen.get(kind.accompanies) if kind.accompanies else None
    if main is not None:
        files = _most_specific([file for file in files if _accompanies(file, main)])
    if kind.prefers_standard_space and not space_is_filtered:
        standard = [f for f in files if adult_mni(f.entities.get("space", ""))]
        files = standard or files
    return _most_specific(files) if kind.shared else files


def _most_specific(files: list[BidsFile]) -> list[BidsFile]:
    """Those that share most entities with what they accompany."""
    most = max((len(file.entities) for file in files), default=0)
    return [file for file in files if len(file.entities) == most]


def _accompanies(file: BidsFile, main: BidsFile) -> bool:
    """Whether no entity of a file contradicts the file that it accompanies."""
    free = ("desc", "suffix", "extension", "datatype", "label")
    own = {key: value for key, value in file.entities.items() if key not in free}
    return all(main.entities.get(key) == value for key, value in own.items())


def _intended_for(
    dataset: Index, files: list[BidsFile], asl: BidsFile
) -> list[BidsFile]:
    """M0 scans that say they are for this run; those that say nothing, if none does."""
    named = []
    silent = []
    for file in files:
        targets = dataset.metadata(file).get("IntendedFor")
        if targets is None:
            silent.append(file)
            continue
        for target in targets if isinstance(targets, list) else [targets]:
            if _names_file(file, target, asl):
                named.append(file)
    return named or silent


def _names_file(file: BidsFile, target: object, asl: BidsFile) -> bool:
    """Whether an IntendedFor entry names the ASL run."""
    if not isinstance(target, str):
        raise InputError(f"{file.path}: IntendedFor must name files; got {target!r}.")
    # Old entries are relative to the participant's folder, newer ones are BIDS URIs.
    is_full = target.startswith(("bids:", "sub-"))
    below = "" if is_full else f"sub-{file.entities['sub']}/"
    return inside(file.dataset, below + target).name == asl.path.name
