"""A dataset as visits: one participant at one session, with the recordings of that
time, each with its sidecars."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cingulum.errors import InputError
from cingulum.io.bids_index import (
    BidsFile,
    EntityQuery,
    Index,
    entity_query,
    index,
    inside,
    merged,
)
from cingulum.io.files import JsonObject, read_json
from cingulum.io.readers import aslprep, xcpd  # noqa: F401 - they register their kinds
from cingulum.io.recording_kinds import (
    ASL,
    M0_SCAN,
    RECORDING_KINDS,
    RecordingKind,
    is_cleaned,
    kind_of,
)
from cingulum.io.spaces import adult_mni

Filters = Mapping[str, EntityQuery]
"""Further entities that a file must have, by kind of recording."""

FilesByKind = dict[str, list[BidsFile]]

LABELS_SHOWN = 8
"""Labels that an error lists; a study may have thousands."""

NOT_SHARED = ("desc", "suffix", "extension", "datatype", "label")
"""Entities that say what a file is, not which recording it belongs to."""


@dataclass(frozen=True)
class Visit:
    """One participant at one session; `visit["bold"]` is the path of that recording.

    session: empty where the dataset has no sessions
    files, sidecars: by kind; sidecars from the most general to the most specific
    ambiguous: kinds with several files, none of them chosen
    outside: the first link of the dataset that leads out of it and was therefore left
        out
    not_used: by kind, files in other output spaces, resolutions or of other sensors
        than the one that was taken
    runs: where recordings are ambiguous only because there are several runs, the visit
        once for each, with the files of that run
    """

    participant: str
    session: str
    files: Mapping[str, Path] = field(default_factory=dict)
    sidecars: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    root: Path = Path(".")
    outside: str = ""
    not_used: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    runs: tuple[Visit, ...] = ()

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
            f'{{"{kind_of(kind).name}": {{"task": "rest", "run": 1}}}}.'
        )

    def _no_file(self, kind: str) -> str:
        return (
            f"{self.name} has no {kind} recording: expected a file "
            f"{self.name}{_expected_ending(kind)}{_expected_column(kind)} in the "
            "dataset or below its derivatives/. Add it, leave the participant out with "
            "--participant-label, or leave the feature out with --features (of "
            f"`cingulum run`: --modalities).{self._left_out_links()}"
        )

    def _left_out_links(self) -> str:
        # The recording may be behind one of them.
        if not self.outside:
            return ""
        return (
            " Links that lead out of the dataset were left out, such as "
            f"{self.outside}."
        )

    def metadata(self, kind: str) -> JsonObject:
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
    session. A missing or ambiguous recording is an error only when it is used, so that
    an ambiguous visit does not stop the others.
    """
    dataset = index(root, derivatives)
    filters = filters or {}
    candidates = _all_candidates(dataset, filters)
    keys = _visit_keys(candidates)
    participants_wanted = _participants_wanted(dataset, keys, participants)
    sessions_wanted = _sessions_wanted(keys, sessions)
    files_of = _by_participant(candidates)
    selected = []
    for participant, session in keys:
        if participant in participants_wanted and session in sessions_wanted:
            files = files_of.get(participant, {})
            selection = _Selection(dataset, filters, session, files)
            selected.append(selection.visit(participant))
    return selected


def read_filters(path: Path) -> dict[str, EntityQuery]:
    """A filter file as fMRIPrep reads it: {"bold": {"task": "rest", …}, …}.

    Raises InputError for an unknown kind or entity, with the nearest known one.
    """
    return checked_filters(read_json(path), str(path))


def checked_filters(content: Filters, source: str) -> dict[str, EntityQuery]:
    """Filters in short entity names; an entity that must be absent is null or, in TOML,
    false.

    Raises InputError, naming the source, for an unknown kind or entity.
    """
    filters = {}
    for kind, query in content.items():
        _check_filter(kind, query, source)
        filters[kind] = entity_query(_with_nulls(query), f"{source}: {kind}")
    return filters


def _check_filter(kind: str, query: object, source: str) -> None:
    if kind not in RECORDING_KINDS:
        raise InputError(
            f"{source}: no kind of recording is called {kind!r}.{_nearest_kind(kind)}"
        )
    if not isinstance(query, dict):
        raise InputError(
            f"{source}: {kind} needs an object of entities; got {query!r}."
        )


def _with_nulls(query: EntityQuery) -> EntityQuery:
    # TOML has no null, so there an absent entity is written as false.
    return {name: None if value is False else value for name, value in query.items()}


def _nearest_kind(name: str) -> str:
    near = difflib.get_close_matches(name, RECORDING_KINDS, 1)
    if near:
        return f" Did you mean {near[0]}?"
    return f" Known are {', '.join(RECORDING_KINDS)}."


def _expected_ending(kind: str) -> str:
    """What follows the visit in the name of a recording."""
    query = kind_of(kind).query
    label = kind.partition(":")[2]
    if label:
        return f"*_seg-{label}*_{_first(query['suffix'])}{_first(query['extension'])}"
    desc = f"*_desc-{_first(query['desc'])}" if query.get("desc") else "*"
    return f"{desc}_{_first(query['suffix'])}{_first(query['extension'])}"


def _expected_column(kind: str) -> str:
    """What must be in a recording that is known by its columns."""
    columns = kind_of(kind).columns
    if not columns:
        return ""
    return f" with a column {' or '.join(columns)} in its JSON"


def _first(value: Any) -> str:
    # Where several endings fit, an error shows the usual one.
    if isinstance(value, list):
        return str(value[0])
    return str(value)


def _label_list(labels: set[str]) -> str:
    """How many labels there are, and the first of them."""
    shown = ", ".join(sorted(labels)[:LABELS_SHOWN])
    more = " …" if len(labels) > LABELS_SHOWN else ""
    return f"{len(labels)}: {shown}{more}"


def _all_candidates(dataset: Index, filters: Filters) -> FilesByKind:
    """Files that may be recordings, by kind."""
    candidates: FilesByKind = {}
    for name, kind in RECORDING_KINDS.items():
        candidates[name] = _candidates(dataset, kind, filters.get(name, {}))
    return candidates


def _candidates(
    dataset: Index, kind: RecordingKind, extra: EntityQuery
) -> list[BidsFile]:
    """Files of a dataset that may be recordings of one kind."""
    # The user's filter wins over the kind's own entities.
    files = dataset.find(**{**kind.query, **extra})
    if not kind.columns:
        return files
    return [file for file in files if _has_column(dataset, file, kind.columns)]


def _has_column(dataset: Index, file: BidsFile, columns: Sequence[str]) -> bool:
    """Whether a table without a header says in its JSON that it has such a column."""
    names = dataset.metadata(file).get("Columns", [])
    if not isinstance(names, list):
        return False
    # Scanners' programs differ in capitals.
    return not _lowered(names).isdisjoint(_lowered(columns))


def _lowered(names: Sequence[object]) -> set[str]:
    return {str(name).lower() for name in names}


def _visit_keys(candidates: Mapping[str, list[BidsFile]]) -> list[tuple[str, str]]:
    """Participant and session of every visit."""
    keys: set[tuple[str, str]] = set()
    for name, files in candidates.items():
        # What may belong to all visits of a participant makes no visit by itself.
        if not RECORDING_KINDS[name].shared:
            keys.update(_key(file) for file in files if _has_participant(file))
    return sorted(keys)


def _has_participant(file: BidsFile) -> bool:
    return "sub" in file.entities


def _key(file: BidsFile) -> tuple[str, str]:
    return file.entities["sub"], file.entities.get("ses", "")


def _sessions_wanted(
    keys: Sequence[tuple[str, str]], sessions: Sequence[str] | None
) -> set[str]:
    available = {session for _, session in keys}
    if sessions is None:
        return available
    wanted = {label.removeprefix("ses-") for label in sessions}
    _check_known("session", sorted(wanted - available), available)
    return wanted


def _check_known(what: str, unknown: Sequence[str], available: set[str]) -> None:
    if unknown:
        raise InputError(
            f"No such {what}: {', '.join(unknown)}. The dataset has "
            f"{_label_list(available)}."
        )


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
    # In the order in which they were typed.
    unknown = [label for label in wanted if label not in available]
    _check_known("participant", unknown, available)
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


def _by_participant(candidates: FilesByKind) -> dict[str, FilesByKind]:
    """Files of every participant by kind, those that belong to everybody included."""
    table = _own_files(candidates)
    for kind, files in candidates.items():
        # A connectome of the group lies at the root of a dataset, for example.
        common = [file for file in files if not _has_participant(file)]
        for own in table.values():
            own[kind] = [*common, *own.get(kind, [])]
    return table


def _own_files(candidates: FilesByKind) -> dict[str, FilesByKind]:
    table: dict[str, FilesByKind] = {}
    for kind, files in candidates.items():
        for file in filter(_has_participant, files):
            own = table.setdefault(file.entities["sub"], {})
            own.setdefault(kind, []).append(file)
    return table


@dataclass
class _Selection:
    """The files of one visit, chosen kind by kind: a later kind must fit the earlier.

    candidates: of the participant, all sessions
    """

    dataset: Index
    filters: Filters
    session: str
    candidates: FilesByKind
    chosen: dict[str, BidsFile] = field(default_factory=dict)
    ambiguous: dict[str, tuple[str, ...]] = field(default_factory=dict)
    not_used: dict[str, tuple[str, ...]] = field(default_factory=dict)
    run_labels: set[str] = field(default_factory=set)

    def visit(self, participant: str) -> Visit:
        """The visit, with the only file of each kind that fits it."""
        for kind in RECORDING_KINDS.values():
            self._choose(kind)
        return Visit(
            participant,
            self.session,
            {name: file.path for name, file in self.chosen.items()},
            {name: self._sidecars(file) for name, file in self.chosen.items()},
            self.ambiguous,
            self.dataset.roots[0],
            next(iter(self.dataset.left_out), ""),
            self.not_used,
            self._runs(participant),
        )

    def _runs(self, participant: str) -> tuple[Visit, ...]:
        """The visit once for each run, where there are several."""
        labels = sorted(self.run_labels, key=_run_number)
        return tuple(self._only_run(label).visit(participant) for label in labels)

    def _only_run(self, label: str) -> _Selection:
        """The same selection without files of other runs."""
        candidates = {
            kind: [file for file in files if file.entities.get("run", label) == label]
            for kind, files in self.candidates.items()
        }
        return _Selection(self.dataset, self.filters, self.session, candidates)

    def _sidecars(self, file: BidsFile) -> tuple[Path, ...]:
        return tuple(sidecar.path for sidecar in self.dataset.sidecars(file))

    def _choose(self, kind: RecordingKind) -> None:
        files = self._best_matches(kind)
        if not kind.by:
            self._choose_among(files, kind.name)
            return
        labels = {kind.label_of(file.entities) for file in files}
        # A file without the entity that tells files apart is of another kind.
        for label in sorted(labels - {""}):
            own = [file for file in files if kind.label_of(file.entities) == label]
            if kind.first_extension:
                own = _of_first_extension(own, kind)
            self._choose_among(own, kind.named(label))

    def _choose_among(self, files: list[BidsFile], name: str) -> None:
        preferred = _most_preferred(files)
        if len(preferred) > 1 and _may_be_joined(kind_of(name), preferred):
            preferred = _of_joined_runs(preferred)
        if len(preferred) == 1:
            self.chosen[name] = preferred[0]
            if len(files) > 1:
                others = [file for file in files if file is not preferred[0]]
                self.not_used[name] = tuple(file.path.name for file in others)
        elif files:
            # An error only where the recording is used: see `Visit.__getitem__`.
            self.ambiguous[name] = tuple(file.path.name for file in files)
            self.run_labels |= _labels_of_runs(files)

    def _best_matches(self, kind: RecordingKind) -> list[BidsFile]:
        """The files of a kind that fit the visit's other files best."""
        files = self._of_session(kind)
        files = self._of_preferred_description(kind, files)
        files = self._accompanying(kind, files)
        files = self._in_preferred_space(kind, files)
        if kind.shared:
            files = _most_specific(files)
        if kind == M0_SCAN and ASL.name in self.chosen:
            return self._intended_for(self.chosen[ASL.name], files)
        return files

    def _of_session(self, kind: RecordingKind) -> list[BidsFile]:
        files = []
        for file in self.candidates.get(kind.name, []):
            # Anatomy, for example, may be kept outside of the sessions.
            belongs_to_all = kind.shared and "ses" not in file.entities
            if belongs_to_all or file.entities.get("ses", "") == self.session:
                files.append(file)
        return files

    def _of_preferred_description(
        self, kind: RecordingKind, files: list[BidsFile]
    ) -> list[BidsFile]:
        """Those with the first `desc` that any file has, unless the user names one."""
        if "desc" in self._filter(kind):
            return files
        for description in kind.descriptions:
            own = [file for file in files if file.entities.get("desc") == description]
            if own:
                return own
        return files

    def _accompanying(
        self, kind: RecordingKind, files: list[BidsFile]
    ) -> list[BidsFile]:
        """Files that fit the recording that they accompany, if it was chosen."""
        main = self.chosen.get(kind.accompanies or "")
        if main is None:
            return files
        return _most_specific([file for file in files if _accompanies(file, main)])

    def _in_preferred_space(
        self, kind: RecordingKind, files: list[BidsFile]
    ) -> list[BidsFile]:
        # A filter that names a space is the user's decision.
        if not kind.prefers_standard_space or "space" in self._filter(kind):
            return files
        return [file for file in files if _is_standard(file)] or files

    def _filter(self, kind: RecordingKind) -> EntityQuery:
        return self.filters.get(kind.name, {})

    def _intended_for(self, asl: BidsFile, files: list[BidsFile]) -> list[BidsFile]:
        """M0 scans that say they are for this run; those that say nothing, if none
        does."""
        named = []
        silent = []
        for file in files:
            targets = _targets(self.dataset, file)
            if targets is None:
                silent.append(file)
            elif _names_run(file, targets, asl):
                named.append(file)
        return named or silent


SPACES = ("MNI152NLin2009cAsym", "MNI152NLin6Asym")
"""Output spaces in the order in which they are taken; then other standard spaces, then
those of a participant."""

HEART_RECORDINGS = ("ecg", "cardiac", "pulse", "ppg", "physio", None)
"""Recordings of the heart in the order in which they are taken: an ECG places beats
better than a pulse."""


def _most_preferred(files: list[BidsFile]) -> list[BidsFile]:
    """Of files that differ in space, resolution or recording only, the first in the
    documented order; others are left as they are."""
    alike = {(file.dataset, _without_preference(file)) for file in files}
    by_preference = {_preference(file): file for file in files}
    if len(alike) != 1 or len(by_preference) != len(files):
        return files
    return [by_preference[min(by_preference)]]


def _without_preference(file: BidsFile, *others: str) -> tuple[tuple[str, str], ...]:
    entities = dict(file.entities)
    for name in ("space", "res", "recording", "extension", *others):
        entities.pop(name, None)
    return tuple(sorted(entities.items()))


def _of_first_extension(files: list[BidsFile], kind: RecordingKind) -> list[BidsFile]:
    """Those with the first extension of the kind's query that any file has."""
    for extension in kind.query["extension"] or ():
        own = [file for file in files if file.entities["extension"] == extension]
        if own:
            return own
    return files


def _may_be_joined(kind: RecordingKind, files: list[BidsFile]) -> bool:
    return kind.is_of_joined_runs or all(is_cleaned(file.path) for file in files)


def _of_joined_runs(files: list[BidsFile]) -> list[BidsFile]:
    """The table without a run among tables of single runs, where there is one."""
    joined = [file for file in files if "run" not in file.entities]
    alike = {(file.dataset, _without_preference(file, "run")) for file in files}
    return joined if len(joined) == 1 and len(alike) == 1 else files


def _labels_of_runs(files: list[BidsFile]) -> set[str]:
    """Runs of files that are otherwise alike; empty where something else differs,
    too."""
    alike = {(file.dataset, _without_preference(file, "run")) for file in files}
    labels = {file.entities.get("run", "") for file in files}
    if len(alike) != 1 or "" in labels:
        return set()
    return labels if len(labels) > 1 else set()


def _run_number(label: str) -> tuple[int, str]:
    # Run 10 after run 2; labels that are no numbers come last.
    return (int(label) if label.isascii() and label.isdigit() else 10**9, label)


def _preference(file: BidsFile) -> tuple[int, int, str, int]:
    space = file.entities.get("space", "")
    standard = len(SPACES) if adult_mni(space) else len(SPACES) + 1
    rank = SPACES.index(space) if space in SPACES else standard
    resolution = file.entities.get("res", "")
    # Without a resolution it is the template's own, and 2 mm the usual one.
    order = {"": 0, "2": 1, "native": 3}.get(resolution, 2)
    recording = file.entities.get("recording")
    named = recording.lower() if recording else None
    known = HEART_RECORDINGS.index(named) if named in HEART_RECORDINGS else 99
    return rank, order, resolution, known


def _is_standard(file: BidsFile) -> bool:
    return adult_mni(file.entities.get("space", ""))


def _targets(dataset: Index, file: BidsFile) -> list[object] | None:
    """The files that an M0 scan is intended for; None where its sidecar is silent."""
    targets = dataset.metadata(file).get("IntendedFor")
    if targets is None or isinstance(targets, list):
        return targets
    return [targets]


def _names_run(file: BidsFile, targets: Sequence[object], asl: BidsFile) -> bool:
    # Every entry is checked, also after the one that matches.
    return any([_names_file(file, target, asl) for target in targets])


def _most_specific(files: list[BidsFile]) -> list[BidsFile]:
    """Those that share most entities with what they accompany."""
    most = max(map(_entity_count, files), default=0)
    return [file for file in files if _entity_count(file) == most]


def _entity_count(file: BidsFile) -> int:
    return len(file.entities)


def _accompanies(file: BidsFile, main: BidsFile) -> bool:
    """Whether no entity of a file contradicts the file that it accompanies."""
    for name, label in file.entities.items():
        if name not in NOT_SHARED and main.entities.get(name) != label:
            return False
    return True


def _names_file(file: BidsFile, target: object, asl: BidsFile) -> bool:
    """Whether an IntendedFor entry names the ASL run."""
    if not isinstance(target, str):
        raise InputError(f"{file.path}: IntendedFor must name files; got {target!r}.")
    path = inside(file.dataset, _below_root(file, target))
    return path.name == asl.path.name


def _below_root(file: BidsFile, target: str) -> str:
    # Old entries are relative to the participant's folder, newer ones are BIDS URIs.
    if target.startswith(("bids:", "sub-")):
        return target
    return f"sub-{file.entities['sub']}/{target}"
