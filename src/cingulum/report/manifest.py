"""The files of a report as one set: what the folder's earlier report had, and this one
has not, goes."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import read_json, write_bytes, write_json, write_table
from cingulum.io.images import write_image

OURS = re.compile(
    r"((patterns|maps|model|figures)/[\w.-]+|[\w-]+\.(tsv|bib|html)|study\.toml|connectome\.npy)"
)
"""What files of a report are called."""


@dataclass(frozen=True, eq=False)
class ReportManifest:
    """Writes files below `out`, and keeps their names with the SHA-256 of their
    content."""

    out: Path
    files: dict[str, str] = field(default_factory=dict)

    def table(self, name: str, table: pd.DataFrame, **options: Any) -> None:
        write_table(Path(self.out) / name, table, **options)
        self.enter(name)

    def image(self, name: str, values: np.ndarray, affine: np.ndarray) -> None:
        write_image(Path(self.out) / name, values, affine)
        self.enter(name)

    def json(self, name: str, content: dict[str, Any]) -> None:
        write_json(Path(self.out) / name, content)
        self.enter(name)

    def bytes(self, name: str, content: bytes) -> None:
        write_bytes(Path(self.out) / name, content)
        self.enter(name)

    def enter(self, name: str) -> None:
        """A file that was written already."""
        self.files[name] = _digest(Path(self.out) / name)

    def clear(self) -> None:
        """Remove what the last report consisted of, as it was written then, except what
        this one consists of too."""
        for name, digest in read_manifest(self.out).items():
            path = Path(self.out) / name
            if (
                name not in self.files
                and path.is_file()
                and not path.is_symlink()
                and _digest(path) == digest
            ):
                path.unlink()
                if (
                    path.parent != Path(self.out)
                    and not path.parent.is_symlink()
                    and not any(path.parent.iterdir())
                ):
                    path.parent.rmdir()


def read_manifest(out: Path) -> dict[str, str]:
    """The files that the report in this folder consists of, pages of participants among
    them, with their SHA-256; empty where there is none, or, with a warning, where its
    summary cannot be read."""
    path = Path(out) / "summary.json"
    if not path.is_file():
        return {}
    try:
        files = read_json(path).get("files")
    except InputError as trouble:
        warnings.warn(
            f"Files of the earlier report may stay beside the new ones: {trouble}",
            stacklevel=2,
        )
        return {}
    named = files.items() if isinstance(files, dict) else ()
    return {
        name: digest
        for name, digest in named
        if OURS.fullmatch(name) and isinstance(digest, str)
    }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
