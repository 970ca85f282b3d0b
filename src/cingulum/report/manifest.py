"""The files of a report as one set: those of the folder's earlier report that are not
part of the new one are removed."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import (
    JsonObject,
    read_json,
    write_bytes,
    write_json,
    write_table,
)
from cingulum.io.images import write_image
from cingulum.report.page import Picture, render
from cingulum.report.references import Reference, bibtex, listed
from cingulum.report.results import to_plain

# A summary could name any file of the disk for removal: only these are believed.
OURS = re.compile(
    r"((patterns|maps|model|figures)/[\w.-]+|[\w-]+\.(tsv|bib|html)|study\.toml|"
    r"connectome\.npy)"
)
"""Names that files of a report have."""


@dataclass(eq=False)
class ReportManifest:
    """Writes files below `out`, and keeps their names with the SHA-256 of their
    content."""

    out: Path
    files: dict[str, str] = field(default_factory=dict)

    def table(
        self, name: str, table: pd.DataFrame, float_format: str | None = None
    ) -> None:
        """Write a table; float_format: as pandas takes it."""
        write_table(self._path(name), table, float_format=float_format)
        self.enter(name)

    def image(self, name: str, values: np.ndarray, affine: np.ndarray) -> None:
        """Write a NIfTI image."""
        write_image(self._path(name), values, affine)
        self.enter(name)

    def json(self, name: str, content: JsonObject) -> None:
        """Write a JSON file."""
        write_json(self._path(name), content)
        self.enter(name)

    def bytes(self, name: str, content: bytes) -> None:
        """Write any file."""
        write_bytes(self._path(name), content)
        self.enter(name)

    def enter(self, name: str) -> None:
        """Add a file that was written already."""
        self.files[name] = _digest(self._path(name))

    def _path(self, name: str) -> Path:
        return Path(self.out) / name

    def remove_earlier(self) -> None:
        """Remove the files of the folder's earlier report that nobody changed and that
        are not part of this one."""
        for name, digest in read_manifest(self.out).items():
            path = self._path(name)
            if name not in self.files and _is_unchanged(path, digest):
                path.unlink()
                self._remove_if_empty(path.parent)

    def _remove_if_empty(self, folder: Path) -> None:
        # The report's own folder stays, and so does one that only a link leads to.
        if folder == Path(self.out) or folder.is_symlink():
            return
        if not any(folder.iterdir()):
            folder.rmdir()


@dataclass(frozen=True, eq=False)
class Page:
    """A report's page: its template, its content, its figures, and the keys of the
    references it cites."""

    template: str
    content: JsonObject
    pictures: Sequence[Picture]
    citations: Sequence[str]

    @property
    def references(self) -> list[Reference]:
        return listed(self.citations)


def write_report(
    manifest: ReportManifest,
    page: Page,
    extra: JsonObject | None = None,
) -> JsonObject:
    """Write the tables of figures, references.bib, summary.json and report.html, and
    remove other files of the earlier report in this folder.

    extra: content of the page that is not in summary.json
    Returns the summary as it is written.
    """
    _write_figure_tables(manifest, page.pictures)
    manifest.bytes("references.bib", bibtex(page.citations).encode())
    # Pages of participants are written before the report of the study.
    for name in page.content.get("pages", ()):
        manifest.enter(name)
    summary = to_plain({**page.content, "files": manifest.files})
    printed = {**summary, "references": page.references, **(extra or {})}
    # Whatever fails in the template fails before the earlier report is touched.
    report = render(page.template, printed, page.pictures).encode()
    # The earlier summary names the earlier files, so it is replaced afterwards.
    manifest.remove_earlier()
    write_json(manifest.out / "summary.json", summary)
    write_bytes(manifest.out / "report.html", report)
    return summary


def _write_figure_tables(manifest: ReportManifest, pictures: Sequence[Picture]) -> None:
    for picture in pictures:
        if picture.table is not None:
            # Nine digits restore single precision.
            manifest.table(f"figures/{picture.name}.tsv", picture.table, "%.9g")


def read_manifest(out: Path) -> dict[str, str]:
    """The files of the report in this folder, pages of participants among them, with
    their SHA-256; empty where there is no report or, with a warning, where its summary
    cannot be read."""
    path = Path(out) / "summary.json"
    if not path.is_file():
        return {}
    try:
        files = read_json(path).get("files")
    except InputError as error:
        warnings.warn(
            f"Files of the earlier report may stay beside the new ones: {error}",
            stacklevel=2,
        )
        return {}
    # The summary of another program, or of a version before the manifest.
    if not isinstance(files, dict):
        return {}
    return _believable(files)


def _believable(files: JsonObject) -> dict[str, str]:
    """The entries that a report may have written."""
    entries = {}
    for name, digest in files.items():
        if OURS.fullmatch(name) and isinstance(digest, str):
            entries[name] = digest
    return entries


def _is_unchanged(path: Path, digest: str) -> bool:
    """Whether a file is still as the report wrote it; one that was changed since then
    belongs to whoever changed it."""
    if not path.is_file() or path.is_symlink():
        return False
    return _digest(path) == digest


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
