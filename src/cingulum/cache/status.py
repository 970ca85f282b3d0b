"""What is expected of every visit, and what became of it: the book that `cingulum
status` reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import read_json_or_empty, write_json

if TYPE_CHECKING:
    from cingulum.features import Feature
    from cingulum.io import Visit

COLUMNS = ["participant", "session", "feature", "state", "reason"]


RECIPE = "RecipeSHA256"
"""What sidecars call the hash of how a result was made."""


def expect(
    work: Path,
    visits: Sequence[Visit],
    files: Mapping[str, Mapping[str, list[str]]],
    recipes: Mapping[str, str],
) -> None:
    """Enter what is expected of visits: by visit and feature, files below the output
    folder, made by this recipe."""
    for visit in visits:
        page = _page(work, visit)
        content: dict[str, Any] = {
            "participant": visit.participant,
            "session": visit.session,
        }
        content |= {"expected": dict(files[visit.name]), "recipes": dict(recipes)}
        known = read_json_or_empty(page)
        if {name: known.get(name) for name in content} != content:
            write_json(page, {**content, "failed": {}})


def keep_only(work: Path, visits: Iterable[Visit]) -> None:
    """Take everybody else out of the book."""
    names = {_page(work, visit) for visit in visits}
    for page in set((Path(work) / "visits").glob("*.json")) - names:
        page.unlink(missing_ok=True)


def note(
    work: Path, visit: Visit, failed: Mapping[str, str], of: Iterable[str]
) -> None:
    """Enter what became of some features of a visit: those in `failed` have a reason,
    the others are well."""
    page = _page(work, visit)
    content = read_json_or_empty(page)
    before = content.get("failed", {})
    after = {name: why for name, why in before.items() if name not in set(of)} | dict(
        failed
    )
    if after != before:
        write_json(page, {**content, "failed": after})


def state(out: Path, work: Path | None = None) -> pd.DataFrame:
    """A row a visit and feature: done, failed (with the reason) or missing.

    Raises InputError for a folder in which nothing was begun.
    """
    files = sorted((Path(work or Path(out) / "work") / "visits").glob("*.json"))
    pages = [page for page in map(read_json_or_empty, files) if page]
    if not pages:
        raise InputError(
            f"{out}: nothing was begun here. Expected the OUT_DIR of `cingulum run` or "
            "`cingulum features`"
            "; if it was run with --work-dir, give that too."
        )
    rows = []
    for content in pages:
        for feature, files in content["expected"].items():
            why = content["failed"].get(feature, "")
            done = made(out, files, content["recipes"][feature])
            state = "failed" if why else "done" if done else "missing"
            rows.append(
                [content["participant"], content["session"], feature, state, why]
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def made(out: Path, files: Iterable[str], recipe: str) -> bool:
    """Whether files are there, made by this recipe. That their recordings are the same
    only a run finds out."""
    return all(_recipe(Path(out) / file) == recipe for file in files)


def _recipe(path: Path) -> str | None:
    """How a file was made, as it or the JSON beside it says; None where there is
    none."""
    told = path.with_name(path.name.partition(".")[0] + ".json")
    return read_json_or_empty(told).get(RECIPE) if path.is_file() else None


SECONDS = "seconds.json"


def spent(work: Path) -> dict[str, float]:
    """Seconds that a visit took here so far, by what was done to it; empty before the
    first."""
    return read_json_or_empty(Path(work) / SECONDS)


def note_seconds(work: Path, what: str, seconds: float) -> None:
    write_json(Path(work) / SECONDS, {**spent(work), what: round(seconds, 3)})


def _page(work: Path, visit: Visit) -> Path:
    return Path(work) / "visits" / f"{visit.name}.json"


def files_of(visit: Visit, features: Mapping[str, Feature]) -> dict[str, list[str]]:
    """By feature, the files that its measurement and, where a model is fitted, its row
    will have."""
    found = {}
    for name, feature in features.items():
        own = (visit.folder / feature.file.format(visit=visit.name)).as_posix()
        fitted = (
            Path(own).with_name(f"{visit.name}_desc-{feature.name}_fit.tsv").as_posix()
        )
        found[name] = [own, fitted] if feature.fitted else [own]
    return found


def without_folders(text: str, folders: Iterable[Path]) -> str:
    """The text without folders of this machine, which would name people."""
    for folder in folders:
        for place in {str(folder), str(Path(folder).resolve())} - {".", "/"}:
            text = re.sub(rf"(?<![\w./-]){re.escape(place)}/", "", text)
            text = re.sub(
                rf"(?<![\w./-]){re.escape(place)}(?![\w/])",
                Path(folder).resolve().name,
                text,
            )
    return text
