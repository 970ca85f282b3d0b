"""The files of a report as one set: what the folder's earlier report had, and this one
has not, is removed."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import read_json, write_bytes, write_json, write_table
from cingulum.io.images import write_image
from cingulum.report.page import Picture, render
from cingulum.report.references import Reference, bibtex, listed
from cingulum.report.results import to_plain

OURS = re.compile(
    r"((patterns|maps|model|figures)/[\w.-]+|[\w-]+\.(tsv|bib|html)|study\.toml|"
    r"connectome\.npy)"
)
"""What files of a report are called."""


@dataclass(frozen=True, eq=False)
class ReportManifest:
    """Writes files below `out`, and keeps their names with the SHA-256 of their
    content."""

    out: Path
    files: dict[str, str] = field(default_factory=dict)

    def table(
        self, name: str, table: pd.DataFrame, float_format: str | None = None
    ) -> None:
        """Write a table; float_format: as pandas takes it."""
        options = {} if float_format is None else {"float_format": float_format}
        write_table(Path(self.out) / name, table, **options)
        self.enter(name)

    def image(self, name: str, values: np.ndarray, affine: np.ndarray) -> None:
        """Write a NIfTI image."""
        write_image(Path(self.out) / name, values, affine)
        self.enter(name)

    def json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file."""
        write_json(Path(self.out) / name, dict(content))
        self.enter(name)

    def bytes(self, name: str, content: bytes) -> None:
        """Write any file."""
        write_bytes(Path(self.out) / name, content)
        self.enter(name)

    def enter(self, name: str) -> None:
        """A file that was written already."""
        self.files[name] = _digest(Path(self.out) / name)

    def remove_earlier(self) -> None:
        """Remove what the last report consisted of, as it was written then, except what
        this one consists of too."""
        for name, digest in read_manifest(self.out).items():
            path = Path(self.out) / name
            if name in self.files or not path.is_file() or path.is_symlink():
                continue
            # A file that was changed since is not ours any more.
            if _digest(path) == digest:
                path.unlink()
                self._remove_if_empty(path.parent)

    def _remove_if_empty(self, folder: Path) -> None:
        is_own = folder != Path(self.out) and not folder.is_symlink()
        if is_own and not any(folder.iterdir()):
            folder.rmdir()


@dataclass(frozen=True, eq=False)
class Page:
    """A report's page: its template, what it prints, its figures, and the keys of what
    it cites."""

    template: str
    content: Mapping[str, Any]
    pictures: Sequence[Picture]
    citations: Sequence[str]

    @property
    def references(self) -> list[Reference]:
        return listed(self.citations)


def write_report(
    manifest: ReportManifest,
    page: Page,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the tables of figures, references.bib, summary.json and report.html, and
    remove what the earlier report in this folder had besides.

    extra: what the page prints and summary.json does not hold
    Returns the summary as it is written.
    """
    for picture in page.pictures:
        if picture.table is not None:
            manifest.table(
                f"figures/{picture.name}.tsv", picture.table, float_format="%.9g"
            )
    manifest.bytes("references.bib", bibtex(page.citations).encode())
    for name in page.content.get("pages", ()):
        manifest.enter(name)
    summary = to_plain({**page.content, "files": manifest.files})
    printed = {**summary, "references": page.references, **(extra or {})}
    report = render(page.template, printed, page.pictures).encode()
    manifest.remove_earlier()
    write_json(manifest.out / "summary.json", summary)
    write_bytes(manifest.out / "report.html", report)
    return summary


def read_manifest(out: Path) -> dict[str, str]:
    """The files that the report in this folder consists of, pages of participants among
    them, with their SHA-256; empty where there is none, or, with a warning, where its
    summary cannot be read."""
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
    if not isinstance(files, dict):
        return {}
    return {
        name: digest
        for name, digest in files.items()
        if OURS.fullmatch(name) and isinstance(digest, str)
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
