"""What a BIDS dataset holds: files by their entities, sidecars by inheritance, tables;
never a byte outside of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import read_json, read_table

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
"""Entity names as pybids and fMRIPrep's filter files write them, and as they stand in
file names."""

SHORT = frozenset(LONG.values()) | frozenset(
    "task run echo recording space label atlas cohort flip split chunk sample part "
    "volume model subset nucleus voi "
    "from to mode res".split()
)
KEYS = SHORT | {"suffix", "extension", "datatype"}

NOT_DATA = frozenset({"sourcedata", "code", "stimuli", "models", "derivatives"})
"""Folders at a dataset's root that hold no recordings of that dataset (BIDS);
derivatives are datasets of their own."""

_LABEL = re.compile(r"^[A-Za-z0-9+]+$")


@dataclass(frozen=True, slots=True)
class BidsFile:
    """One file: where it is, which dataset it belongs to, and what its name says.

    entities: by short name (sub, ses, task, …), with suffix, extension and datatype
        (its folder: func, perf, …)
    """

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
        suffixes = query.get("suffix")
        pools = (
            [suffixes]
            if isinstance(suffixes, str)
            else suffixes
            if isinstance(suffixes, list)
            else self._by_suffix
        )
        files = [
            f
            for suffix in pools
            for f in self._by_suffix.get(suffix, ())
            if matches(f.entities, query)
        ]
        return sorted(files, key=lambda file: file.where)

    def sidecars(
        self, file: BidsFile, extension: str = ".json", suffix: str | None = None
    ) -> list[BidsFile]:
        """Files that apply to `file` by the inheritance principle, from the most
        general to the most specific."""
        suffix = suffix or file.entities["suffix"]
        found = []
        for depth, folder in enumerate(_folders_down(file)):
            for other in self._by_folder.get((folder, suffix, extension), ()):
                if _applies(other.entities, file.entities):
                    found.append((depth, len(other.entities), other))
        return [other for _, _, other in sorted(found, key=lambda row: row[:2])]

    def metadata(self, file: BidsFile) -> dict[str, Any]:
        """All fields of all sidecars that apply; the more specific wins. Raises
        InputError for a damaged one."""
        return merged([sidecar.path for sidecar in self.sidecars(file)])

    @cached_property
    def participants(self) -> pd.DataFrame:
        """participants.tsv, or the labels found on disk where there is none."""
        path = self.roots[0] / "participants.tsv"
        if path.is_file():
            table = read_table(path, dtype={"participant_id": str})
            if "participant_id" not in table:
                raise InputError(
                    f"{path}: expected a column participant_id; came "
                    f"{', '.join(map(str, table))}."
                )
            return table
        return pd.DataFrame(
            {"participant_id": [f"sub-{label}" for label in self.labels]}
        )

    def sessions(self, participant: str) -> pd.DataFrame | None:
        """sub-<label>_sessions.tsv, if there is one."""
        name = f"sub-{participant}"
        return _optional(
            self.roots[0] / name / f"{name}_sessions.tsv", {"session_id": str}
        )

    def scans(self, participant: str, session: str = "") -> pd.DataFrame | None:
        """sub-<label>[_ses-<label>]_scans.tsv, if there is one."""
        parts = [f"sub-{participant}"] + [f"ses-{session}"] * bool(session)
        return _optional(
            self.roots[0].joinpath(*parts) / f"{'_'.join(parts)}_scans.tsv",
            {"filename": str},
        )

    @cached_property
    def labels(self) -> list[str]:
        """Participants that have files, without `sub-`."""
        return sorted(
            {file.entities["sub"] for file in self.files if "sub" in file.entities}
        )

    @cached_property
    def _by_suffix(self) -> dict[str, list[BidsFile]]:
        table: dict[str, list[BidsFile]] = {}
        for file in self.files:
            table.setdefault(file.entities["suffix"], []).append(file)
        return table

    @cached_property
    def _by_folder(self) -> dict[tuple[str, str, str], list[BidsFile]]:
        table: dict[tuple[str, str, str], list[BidsFile]] = {}
        for file in self.files:
            key = (
                os.path.dirname(file.where),
                file.entities["suffix"],
                file.entities["extension"],
            )
            table.setdefault(key, []).append(file)
        return table


def index(root: Path, derivatives: Sequence[Path] = ()) -> Index:
    """Index a dataset, everything below its derivatives/, and further derivative
    datasets. Reads names only.

    24,000 files take some tenths of a second; sidecars are read when their metadata are
    asked for. Raises InputError for a folder that is no dataset.
    """
    root = Path(root)
    if not (root / "dataset_description.json").is_file():
        raise InputError(
            f"{root}: expected a BIDS dataset with a dataset_description.json in it; "
            "found none."
        )
    read_json(root / "dataset_description.json")
    roots = [root, *map(Path, _derivatives_of(root))]
    for folder in derivatives:
        if not Path(folder).is_dir():
            raise InputError(f"--derivatives {folder}: is no folder.")
        roots += _datasets_in(Path(folder))
    roots = list(
        {os.path.realpath(dataset): dataset for dataset in reversed(roots)}.values()
    )[::-1]  # each once
    files: list[BidsFile] = []
    left_out: list[str] = []
    allowed = [os.path.realpath(dataset) for dataset in roots]
    for dataset in roots:
        files += _files(dataset, allowed, left_out)
    return Index(
        tuple(roots), tuple(sorted(files, key=lambda file: file.where)), tuple(left_out)
    )


def entities_of(name: str) -> dict[str, str] | None:
    """The entities, suffix and extension in a BIDS file name
    (`sub-01_ses-pre_desc-x_bold.nii.gz`); None for others."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    entities: dict[str, str] = {}
    for pair in pairs:
        key, dash, value = pair.partition("-")
        if not dash or not key or not value:
            return None
        entities[key] = value
    if not suffix or "-" in suffix:
        return None
    entities["suffix"], entities["extension"] = suffix, dot + extension
    return entities


def entity_query(wanted: dict[str, Any], source: str) -> dict[str, Any]:
    """A query in short entity names. Raises InputError, with the nearest known name,
    for one that BIDS lacks."""
    import difflib

    query = {}
    for key, value in wanted.items():
        short = LONG.get(key, key)
        if short not in KEYS:
            near = difflib.get_close_matches(key, sorted(KEYS | set(LONG)), 1)
            hint = (
                f" Did you mean {near[0]}?"
                if near
                else f" Known are {', '.join(sorted(KEYS))}."
            )
            raise InputError(f"{source}: BIDS has no entity {key!r}.{hint}")
        if isinstance(value, dict) or not (
            value is None or isinstance(value, str | int | list | tuple)
        ):
            raise InputError(
                f"{source}: {key} needs a text, a number, a list of them, or null; "
                f"came {value!r}."
            )
        query[short] = value
    return query


def matches(entities: dict[str, str], query: dict[str, Any]) -> bool:
    """Whether a file's entities are as asked; numbers match with or without leading
    zeros."""
    return all(_is(entities.get(key), value) for key, value in query.items())


def _is(came: str | None, wanted: Any) -> bool:
    if wanted is None:
        return came is None
    if isinstance(wanted, list | tuple):
        return any(_is(came, one) for one in wanted)
    if came is None:
        return False
    text = str(wanted)
    return came == text or (
        came.isdigit() and text.isdigit() and int(came) == int(text)
    )


def merged(sidecars: Iterable[Path]) -> dict[str, Any]:
    """Fields of several JSON files, later ones winning."""
    content: dict[str, Any] = {}
    for path in sidecars:
        content.update(read_json(path))
    return content


def inside(root: Path, relative: str) -> Path:
    """A path that a file of the dataset names (`bids::sub-01/…`, or relative to the
    dataset), kept inside of it.

    Raises InputError for an absolute path, `..` or a link that leads out of the
    dataset, or another dataset's URI.
    """
    text = relative.removeprefix("bids::")
    if text.startswith("bids:"):
        raise InputError(
            f"{relative}: names another dataset; expected bids::… (this one)."
        )
    path = Path(root) / text
    if (
        Path(text).is_absolute()
        or ".." in Path(text).parts
        or not _within(str(path), os.path.realpath(root))
    ):
        raise InputError(
            f"{relative}: leads out of the dataset {Path(root).name}; refused."
        )
    return path


def _within(path: str, real_root: str) -> bool:
    real = os.path.realpath(path)
    return real == real_root or real.startswith(real_root + os.sep)


def _derivatives_of(root: Path) -> Iterator[str]:
    """Derivative datasets below root: each folder of derivatives/, and derivatives/
    itself if it is one."""
    top = os.path.join(root, "derivatives")
    if not os.path.isdir(top) or os.path.islink(top):
        return
    if os.path.isfile(os.path.join(top, "dataset_description.json")):
        yield top
        return
    for entry in sorted(_entries(top), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            yield entry.path
            yield from _derivatives_of(Path(entry.path))


def _datasets_in(folder: Path) -> list[Path]:
    """A derivative dataset and those below it; of a folder that only holds datasets,
    those."""
    if (folder / "dataset_description.json").is_file():
        return [folder, *map(Path, _derivatives_of(folder))]
    inner = [
        path
        for path in sorted(folder.iterdir())
        if (path / "dataset_description.json").is_file()
    ]
    return [each for path in inner for each in _datasets_in(path)] or [folder]


def _files(
    dataset: Path, allowed: Sequence[str], left_out: list[str]
) -> list[BidsFile]:
    """Files of one dataset; links are followed as long as they stay inside one of the
    `allowed` (real) roots, as DataLad's do, whose contents lie in the superdataset's
    .git."""
    found: list[BidsFile] = []
    folders = [str(dataset)]
    while folders:
        folder = folders.pop()
        at_root = folder == str(dataset)
        datatype = os.path.basename(folder)
        for entry in _entries(folder):
            name = entry.name
            if name.startswith(".") or (
                at_root and name in NOT_DATA and not entry.is_symlink()
            ):
                continue
            if entry.is_symlink() and not any(
                _within(entry.path, root) for root in allowed
            ):
                left_out.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                if not name.endswith((".zarr", ".ds")):
                    folders.append(entry.path)
            elif (entities := entities_of(name)) is not None and _LABEL.match(
                entities.get("sub", "0")
            ):
                entities["datatype"] = datatype
                found.append(BidsFile(entry.path, dataset, entities))
    return found


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as trouble:
        raise InputError(
            f"{folder}: cannot be read ({trouble.strerror}). Give read permission."
        ) from None


def _folders_down(file: BidsFile) -> list[str]:
    """Folders from the dataset's root down to the file's own."""
    folder, root = os.path.dirname(file.where), str(file.dataset)
    chain = [folder]
    while folder != root and len(folder) > len(root):
        folder = os.path.dirname(folder)
        chain.append(folder)
    return chain[::-1]


def _applies(general: dict[str, str], specific: dict[str, str]) -> bool:
    return all(
        specific.get(k) == v
        for k, v in general.items()
        if k not in ("suffix", "extension", "datatype")
    )


def _optional(path: Path, types: dict[str, type]) -> pd.DataFrame | None:
    return read_table(path, dtype=types) if path.is_file() else None
