"""What a BIDS dataset holds: files by their entities, sidecars by inheritance, tables;
never a byte outside of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import JsonObject, is_whole_number, read_json, read_table

EntityQuery: TypeAlias = dict[str, Any]
"""Wanted entities, each a text, a number, a list of them, or None for absent: as the
user wrote them, so that their types are checked in `entity_query`."""

LONG = {
    "subject": "sub",
    "session": "ses",
    "acquisition": "acq",
    "direction": "dir",
    "reconstruction": "rec",
    "resolution": "res",
    "density": "den",
    "description": "desc",
    "segmentation": "seg",
    "ceagent": "ce",
    "tracer": "trc",
    "hemisphere": "hemi",
    "processing": "proc",
    "modality": "mod",
    "staining": "stain",
    "inversion": "inv",
    "mtransfer": "mt",
}
"""Entity names as pybids and fMRIPrep's filter files write them, and as file names
abbreviate them."""

SHORT = frozenset(LONG.values()) | frozenset(
    "task run echo recording space label atlas cohort flip split chunk sample part "
    "volume model subset nucleus voi stat "
    "from to mode res".split()
)
NOT_LABELS = frozenset({"suffix", "extension", "datatype"})
"""What a BidsFile lists beside the labels of its name."""

KEYS = SHORT | NOT_LABELS

NOT_DATA = frozenset({"sourcedata", "code", "stimuli", "models", "derivatives"})
"""Folders at a dataset's root that hold no recordings of that dataset (BIDS);
derivatives are datasets of their own."""

FOLDERS_AS_FILES = (".zarr", ".ds")
"""Endings of folders that are one recording each: nobody looks for files in them."""

_NAME = re.compile(r"\A\w[\w+.-]*\Z")
_LABEL = re.compile(r"\A[A-Za-z0-9+]+\Z")


@dataclass(frozen=True, slots=True)
class BidsFile:
    """One file: where it is, which dataset it belongs to, and what its name says.

    entities: by short name (sub, ses, task, …), with suffix, extension and datatype
        (its folder: func, perf, …)
    """

    # Text, since 24,000 Path objects would take longer than reading all the folders.
    where: str
    dataset: Path
    entities: dict[str, str]

    @property
    def path(self) -> Path:
        return Path(self.where)

    @property
    def relative(self) -> str:
        """Path within its dataset, with `/`."""
        return self.path.relative_to(self.dataset).as_posix()


@dataclass(frozen=True, eq=False)
class Index:
    """All files of a dataset and of the derivatives below or beside it.

    roots: the dataset first, then its derivatives
    files: in order of path
    left_out: links that lead out of their dataset; they are never followed
    """

    roots: tuple[Path, ...]
    files: tuple[BidsFile, ...]
    left_out: tuple[str, ...] = ()

    def find(self, **wanted: Any) -> list[BidsFile]:
        """Files whose entities match, in order of path.

        A value may be a string or number, a list (any of them), or None (the entity
        must be absent); names may be short (`sub`) or long (`subject`). Raises
        InputError for an entity that BIDS does not know.
        """
        query = entity_query(wanted, "find")
        # Few files have the suffix, so that a query is quick in large datasets.
        candidates = self._with_suffix(query.get("suffix"))
        matching = [file for file in candidates if matches(file.entities, query)]
        return sorted(matching, key=_location)

    def sidecars(
        self, file: BidsFile, extension: str = ".json", suffix: str | None = None
    ) -> list[BidsFile]:
        """Files that apply to `file` by the inheritance principle, from the most
        general to the most specific."""
        suffix = suffix or file.entities["suffix"]
        applying: list[BidsFile] = []
        # Down from the root; within a folder, a name with more labels is more specific.
        for folder in _folders_down(file):
            siblings = self._by_folder.get((folder, suffix, extension), ())
            inherited = [other for other in siblings if _applies(other, file)]
            applying += sorted(inherited, key=_specificity)
        return applying

    def metadata(self, file: BidsFile) -> JsonObject:
        """All fields of all sidecars that apply; the more specific wins. Raises
        InputError for a damaged one."""
        return merged([sidecar.path for sidecar in self.sidecars(file)])

    @cached_property
    def participants(self) -> pd.DataFrame:
        """participants.tsv, or the labels found on disk where there is none."""
        path = self.roots[0] / "participants.tsv"
        # The file is optional in BIDS.
        if not path.is_file():
            names = [f"sub-{label}" for label in self.labels]
            return pd.DataFrame({"participant_id": names})
        table = read_table(path, dtype={"participant_id": str})
        if "participant_id" not in table:
            raise InputError(
                f"{path}: expected a column participant_id; got "
                f"{', '.join(map(str, table))}."
            )
        check_labels(path, table["participant_id"])
        return table

    def sessions(self, participant: str) -> pd.DataFrame | None:
        """sub-<label>_sessions.tsv, if there is one."""
        name = f"sub-{participant}"
        path = self.roots[0] / name / f"{name}_sessions.tsv"
        return _optional_table(path, "session_id")

    def scans(self, participant: str, session: str = "") -> pd.DataFrame | None:
        """sub-<label>[_ses-<label>]_scans.tsv, if there is one."""
        parts = [f"sub-{participant}"]
        if session:
            parts.append(f"ses-{session}")
        folder = self.roots[0].joinpath(*parts)
        return _optional_table(folder / f"{'_'.join(parts)}_scans.tsv", "filename")

    @cached_property
    def labels(self) -> list[str]:
        """Participants that have files, without `sub-`."""
        labels = {file.entities.get("sub", "") for file in self.files}
        return sorted(labels - {""})

    def _with_suffix(self, suffix: Any) -> Iterator[BidsFile]:
        """Files that a query for this suffix can match (None: all)."""
        suffixes: Iterable[str] = self._by_suffix
        if isinstance(suffix, str):
            suffixes = [suffix]
        elif isinstance(suffix, list):
            suffixes = suffix
        for name in suffixes:
            yield from self._by_suffix.get(name, ())

    @cached_property
    def _by_suffix(self) -> dict[str, list[BidsFile]]:
        table: dict[str, list[BidsFile]] = {}
        for file in self.files:
            table.setdefault(file.entities["suffix"], []).append(file)
        return table

    @cached_property
    def _by_folder(self) -> dict[tuple[str, str, str], list[BidsFile]]:
        """By folder, suffix and extension."""
        table: dict[tuple[str, str, str], list[BidsFile]] = {}
        for file in self.files:
            folder = os.path.dirname(file.where)
            key = (folder, file.entities["suffix"], file.entities["extension"])
            table.setdefault(key, []).append(file)
        return table


def check_labels(path: Path, participants: pd.Series) -> None:
    """Raises InputError for participants of a table whose names cannot be labels: tabs,
    escape sequences or formulas among them would reach terminals and spreadsheets.

    Letters of other alphabets, which labels must not have either, are let through: such
    participants have no files, and are listed as absent.
    """
    for name in participants.dropna().astype(str):
        if not _NAME.match(name.removeprefix("sub-")):
            raise InputError(
                f"{path}: participant_id {name!r} is no label (letters and digits, "
                "with or without sub-). Rename it there and in the files."
            )


def index(root: Path, derivatives: Sequence[Path] = ()) -> Index:
    """Index a dataset, everything below its derivatives/, and further derivative
    datasets. Reads names only.

    24,000 files take some tenths of a second; sidecars are read when their metadata are
    asked for. Raises InputError for a folder that is no dataset.
    """
    root = Path(root)
    _check_dataset(root)
    roots = [root, *map(Path, _derivatives_of(root))]
    for folder in derivatives:
        roots += _datasets_in(Path(folder))
    roots = _without_repeats(roots)
    # Links may lead from one dataset of the index into another.
    real_roots = [os.path.realpath(dataset) for dataset in roots]
    files: list[BidsFile] = []
    left_out: list[str] = []
    for dataset in roots:
        scan = _scan(dataset, real_roots)
        files += scan.files
        left_out += scan.left_out
    return Index(tuple(roots), tuple(sorted(files, key=_location)), tuple(left_out))


def _check_dataset(root: Path) -> None:
    description = root / "dataset_description.json"
    if not description.is_file():
        raise InputError(
            f"{root}: expected a BIDS dataset with a dataset_description.json in it; "
            "found none."
        )
    # Nothing in it is needed, but a damaged one is reported at once.
    read_json(description)


def _without_repeats(roots: Sequence[Path]) -> list[Path]:
    """Each dataset once, where several paths or links lead to it: under its first
    name, in the place of its last mention."""
    names: dict[str, Path] = {}
    for dataset in reversed(roots):
        names[os.path.realpath(dataset)] = dataset
    return list(names.values())[::-1]


def entities_of(name: str) -> dict[str, str] | None:
    """The entities, suffix and extension in a BIDS file name
    (`sub-01_ses-pre_desc-x_bold.nii.gz`); None for others."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("-")
        if not key or not value:
            return None
        entities[key] = value
    # A name that ends in a pair has no suffix, so it is no BIDS name.
    if not suffix or "-" in suffix:
        return None
    entities["suffix"] = suffix
    entities["extension"] = dot + extension
    return entities


def entity_query(wanted: EntityQuery, source: str) -> EntityQuery:
    """A query in short entity names. Raises InputError, naming the source and the
    nearest known entity, for one that BIDS lacks."""
    query = {}
    for name, value in wanted.items():
        short = LONG.get(name, name)
        if short not in KEYS:
            raise InputError(
                f"{source}: BIDS has no entity {name!r}.{_nearest_entity(name)}"
            )
        if not _is_query_value(value):
            raise InputError(
                f"{source}: {name} needs a text, a number, a list of them, or null; "
                f"got {value!r}."
            )
        query[short] = value
    return query


def _nearest_entity(name: str) -> str:
    # Only mistakes need it, and every command that reads a dataset would load it.
    import difflib

    nearest = difflib.get_close_matches(name, sorted(KEYS | set(LONG)), 1)
    if nearest:
        return f" Did you mean {nearest[0]}?"
    return f" Known are {', '.join(sorted(KEYS))}."


def _is_query_value(value: Any) -> bool:
    return value is None or isinstance(value, str | int | list | tuple)


def matches(entities: dict[str, str], query: EntityQuery) -> bool:
    """Whether a file has the wanted entities; numbers match with or without leading
    zeros."""
    return all(_fits(entities.get(name), value) for name, value in query.items())


def _fits(label: str | None, wanted: Any) -> bool:
    # As in fMRIPrep's filter files, null asks for files without that entity.
    if wanted is None:
        return label is None
    if isinstance(wanted, list | tuple):
        return any(_fits(label, choice) for choice in wanted)
    if label is None:
        return False
    return _same_label(label, str(wanted))


def _same_label(label: str, wanted: str) -> bool:
    if label == wanted:
        return True
    # run-1 and run-01 are both seen in the wild, even within one dataset.
    return (
        is_whole_number(label) and is_whole_number(wanted) and int(label) == int(wanted)
    )


def merged(sidecars: Iterable[Path]) -> JsonObject:
    """Fields of several JSON files, later ones winning."""
    content: JsonObject = {}
    for path in sidecars:
        # BIDS: a field replaces the inherited one whole, lists included.
        content.update(read_json(path))
    return content


def inside(root: Path, relative: str) -> Path:
    """A path that a file of the dataset names (`bids::sub-01/…`, or relative to the
    dataset), kept inside of it.

    Raises InputError for an absolute path, `..` or a link that leads out of the
    dataset, or another dataset's URI.
    """
    text = relative.removeprefix("bids::")
    # Links to other datasets (DatasetLinks) are not followed.
    if text.startswith("bids:"):
        raise InputError(
            f"{relative}: names another dataset; expected bids::… (this one)."
        )
    path = Path(root) / text
    # `..` is refused as such: behind a link, it leads elsewhere than the text says.
    climbs = Path(text).is_absolute() or ".." in Path(text).parts
    if climbs or not _within(str(path), os.path.realpath(root)):
        raise InputError(
            f"{relative}: leads out of the dataset {Path(root).name}; refused."
        )
    return path


def _within(path: str, real_root: str) -> bool:
    real = os.path.realpath(path)
    # With the separator, so that /data/ds1 does not contain /data/ds10.
    return real == real_root or real.startswith(real_root + os.sep)


def _derivatives_of(root: Path) -> Iterator[str]:
    """Derivative datasets below root: each folder of derivatives/, and derivatives/
    itself if it is one."""
    top = os.path.join(root, "derivatives")
    # A link could lead to a folder above, and the search would never end.
    if not os.path.isdir(top) or os.path.islink(top):
        return
    if os.path.isfile(os.path.join(top, "dataset_description.json")):
        yield top
        return
    # Sorted, since file systems list a folder in different orders.
    for entry in sorted(_entries(top), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield entry.path
            yield from _derivatives_of(Path(entry.path))


def _datasets_in(folder: Path) -> list[Path]:
    """A derivative dataset and those below it; of a folder that only holds datasets,
    those."""
    if not folder.is_dir():
        raise InputError(f"--derivatives {folder}: is no folder.")
    if _is_dataset(folder):
        return [folder, *map(Path, _derivatives_of(folder))]
    datasets: list[Path] = []
    for inner in sorted(folder.iterdir()):
        if _is_dataset(inner):
            datasets += _datasets_in(inner)
    # Derivatives of older programs lack a description; their files still count.
    return datasets or [folder]


def _is_dataset(folder: Path) -> bool:
    return (folder / "dataset_description.json").is_file()


@dataclass
class _Scan:
    """Files of one dataset, as they are found, and the links that lead out of it.

    real_roots: of all datasets of the index; links are followed as long as they stay
        inside one of them, as DataLad's do, whose contents lie in the superdataset's
        .git
    """

    dataset: Path
    real_roots: Sequence[str]
    files: list[BidsFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add_folder(self, folder: str) -> list[str]:
        """Adds the files of a folder; returns the folders in it."""
        folders = []
        for entry in _entries(folder):
            if _is_ignored(entry, at_root=folder == str(self.dataset)):
                continue
            if entry.is_symlink() and not self._leads_inside(entry.path):
                self.left_out.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                self._add_file(entry, os.path.basename(folder))
        return [inner for inner in folders if not inner.endswith(FOLDERS_AS_FILES)]

    def _leads_inside(self, link: str) -> bool:
        return any(_within(link, root) for root in self.real_roots)

    def _add_file(self, entry: os.DirEntry[str], datatype: str) -> None:
        entities = entities_of(entry.name)
        # Participant labels become file names and HTML, so no other signs are let in.
        if entities is None or not _LABEL.match(entities.get("sub", "0")):
            return
        entities["datatype"] = datatype
        self.files.append(BidsFile(entry.path, self.dataset, entities))


def _scan(dataset: Path, real_roots: Sequence[str]) -> _Scan:
    scan = _Scan(dataset, real_roots)
    folders = [str(dataset)]
    while folders:
        folders += scan.add_folder(folders.pop())
    return scan


def _is_ignored(entry: os.DirEntry[str], at_root: bool) -> bool:
    if entry.name.startswith("."):
        return True
    # A link of that name is looked at, so that one leading out is reported.
    return at_root and entry.name in NOT_DATA and not entry.is_symlink()


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        # Listed whole, so that few folders are open at a time.
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}). Give read permission."
        ) from None


def _folders_down(file: BidsFile) -> list[str]:
    """Folders from the dataset's root down to the file's own."""
    folder = os.path.dirname(file.where)
    root = str(file.dataset)
    chain = [folder]
    # The second test ends the climb where root and folder are spelt differently.
    while folder != root and len(folder) > len(root):
        folder = os.path.dirname(folder)
        chain.append(folder)
    return chain[::-1]


def _applies(general: BidsFile, specific: BidsFile) -> bool:
    """Whether every label of one file is also the other's."""
    for name, label in general.entities.items():
        # A sidecar has another extension, and the root is no folder func.
        if name in NOT_LABELS:
            continue
        if specific.entities.get(name) != label:
            return False
    return True


def _location(file: BidsFile) -> str:
    return file.where


def _specificity(file: BidsFile) -> int:
    return len(file.entities)


def _optional_table(path: Path, text_column: str) -> pd.DataFrame | None:
    """A table, if there is one; the column is text even where all labels are digits."""
    # Optional in BIDS.
    if not path.is_file():
        return None
    return read_table(path, dtype={text_column: str})
