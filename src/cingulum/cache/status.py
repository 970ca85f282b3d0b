"""What is expected of every visit, and what became of it: the record that `cingulum
status` reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from cingulum.errors import InputError
from cingulum.io.derivatives import sidecar_of
from cingulum.io.files import (
    JsonObject,
    parse_errors,
    read_json_or_empty,
    write_json,
)

if TYPE_CHECKING:
    from cingulum.io.visit import Visit

COLUMNS = ["participant", "session", "feature", "state", "reason"]

RECIPE = "RecipeSHA256"
"""What sidecars call the hash of how a result was made."""

SECONDS = "seconds.json"

DONE, FAILED, MISSING = "done", "failed", "missing"


@dataclass(frozen=True)
class Expected:
    """What a run will make of a visit.

    files: by feature, below the output folder
    recipes: by feature, the hash of how they are made
    """

    files: Mapping[str, list[str]]
    recipes: Mapping[str, str]


@dataclass(frozen=True)
class RunStatus:
    """The records of a work folder, one file per visit."""

    work: Path

    def expect(self, visit: Visit, expected: Expected) -> None:
        """Record what is expected of a visit; an earlier record of something else is
        replaced."""
        content: JsonObject = {
            "participant": visit.participant,
            "session": visit.session,
            "expected": dict(expected.files),
            "recipes": dict(expected.recipes),
        }
        record = self._record(visit)
        earlier = read_json_or_empty(record)
        # A record of the same is kept, with the failures that are noted in it.
        if {name: earlier.get(name) for name in content} != content:
            write_json(record, {**content, "failed": {}})

    def keep_only(self, visits: Iterable[Visit]) -> None:
        """Remove the records of all other visits."""
        records = {self._record(visit) for visit in visits}
        for record in set(self._folder.glob("*.json")) - records:
            record.unlink(missing_ok=True)

    def note(
        self, visit: Visit, reasons: Mapping[str, str], features: Iterable[str]
    ) -> None:
        """Record what became of some features of a visit: those with a reason failed,
        the others did not."""
        record = self._record(visit)
        content = read_json_or_empty(record)
        before = content.get("failed", {})
        after = _without(before, set(features)) | dict(reasons)
        # Many visits of a resumed run are as they were: their files stay untouched.
        if after != before:
            write_json(record, {**content, "failed": after})

    def table(self, out: Path) -> pd.DataFrame:
        """A row per visit and feature: done, failed (with the reason) or missing.

        Raises InputError for a folder in which nothing was begun.
        """
        records = [
            read_json_or_empty(path) for path in sorted(self._folder.glob("*.json"))
        ]
        records = [record for record in records if record]
        if not records:
            raise InputError(
                f"{out}: nothing was begun here. Expected the OUT_DIR of `cingulum "
                "run` or `cingulum features`; if it was run with --work-dir, give that "
                "too."
            )
        rows = []
        for record in records:
            with parse_errors(self._folder, "record of a run; run the command again"):
                rows += _rows_of(record, out)
        return pd.DataFrame(rows, columns=COLUMNS)

    def seconds(self) -> dict[str, float]:
        """Seconds that a visit took here so far, by what was done to it; empty before
        the first."""
        return read_json_or_empty(self.work / SECONDS)

    def note_seconds(self, what: str, seconds: float) -> None:
        write_json(self.work / SECONDS, {**self.seconds(), what: round(seconds, 3)})

    @property
    def _folder(self) -> Path:
        return self.work / "visits"

    def _record(self, visit: Visit) -> Path:
        return self._folder / f"{visit.name}.json"


def status_table(out: Path, work: Path | None = None) -> pd.DataFrame:
    """What became of every visit and feature of an output folder.

    work: where the run kept its records (default: work/ in `out`)
    """
    return RunStatus(work or Path(out) / "work").table(out)


def _rows_of(record: JsonObject, out: Path) -> list[list[str]]:
    rows = []
    for feature, files in record["expected"].items():
        reason = record["failed"].get(feature, "")
        is_done = is_made(out, files, record["recipes"][feature])
        visit = [record["participant"], record["session"]]
        rows.append([*visit, feature, _state(reason, is_done), reason])
    return rows


def _state(reason: str, is_done: bool) -> str:
    # A failure counts even where files of an earlier, successful run are left.
    if reason:
        return FAILED
    if is_done:
        return DONE
    return MISSING


def _without(reasons: Mapping[str, str], features: AbstractSet[str]) -> dict[str, str]:
    """Reasons of the other features."""
    return {name: text for name, text in reasons.items() if name not in features}


def is_made(out: Path, files: Iterable[str], recipe: str) -> bool:
    """Whether files are there, made by this recipe.

    That their recordings are the same only a run finds out.
    """
    return all(_recipe_of(Path(out) / file) == recipe for file in files)


def _recipe_of(path: Path) -> str | None:
    """How a file was made, as it or the JSON beside it says; None for no such file."""
    if not path.is_file():
        return None
    return read_json_or_empty(sidecar_of(path)).get(RECIPE)


def without_folders(text: str, folders: Iterable[Path]) -> str:
    """The text without folders of this machine, which would name people."""
    for folder in folders:
        resolved = Path(folder).resolve()
        # Messages may have a folder as the user gave it, or without its links.
        for written in {str(folder), str(resolved)} - {".", "/"}:
            text = _without_folder(text, written, resolved.name)
    return text


def _without_folder(text: str, written: str, name: str) -> str:
    """The text with paths below a folder made relative, and the folder itself by its
    name."""
    # Not inside a longer path or word: /data is not meant in /my/data.
    start = rf"(?<![\w./-]){re.escape(written)}"
    text = re.sub(rf"{start}/", "", text)
    return re.sub(rf"{start}(?![\w/])", name, text)
