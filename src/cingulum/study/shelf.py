"""The files of a report as one set: what the folder's earlier report had, and this one has not, goes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.recordings.files import read_json, write_bytes, write_json, write_table
from cingulum.recordings.images import write_image


@dataclass(frozen=True, eq=False)
class Shelf:
    """Writes files below `out`, and keeps their names with the SHA-256 of their content."""

    out: Path
    files: dict[str, str] = field(default_factory=dict)

    def table(self, name: str, table: pd.DataFrame, **options: Any) -> None:
        write_table(self._at(name), table, **options)
        self._enter(name)

    def image(self, name: str, values: np.ndarray, affine: np.ndarray) -> None:
        write_image(self._at(name), values, affine)
        self._enter(name)

    def json(self, name: str, content: dict[str, Any]) -> None:
        write_json(self._at(name), content)
        self._enter(name)

    def bytes(self, name: str, content: bytes) -> None:
        write_bytes(self._at(name), content)
        self._enter(name)

    def clear(self, others: Iterable[str] = ()) -> None:
        """Remove what the last report consisted of, except what is written already and `others`."""
        for name in standing(self.out) - set(self.files) - set(others):
            self._at(name).unlink(missing_ok=True)
            for folder in self._at(name).relative_to(self.out).parents[:-1]:
                if (self.out / folder).is_dir() and not any((self.out / folder).iterdir()):
                    (self.out / folder).rmdir()

    def _at(self, name: str) -> Path:
        return Path(self.out) / name

    def _enter(self, name: str) -> None:
        self.files[name] = hashlib.sha256(self._at(name).read_bytes()).hexdigest()


def standing(out: Path) -> set[str]:
    """Names of the files that the report in this folder consists of, pages of participants among them; empty where
    there is none, or its summary cannot be read."""
    try:
        told = read_json(Path(out) / "summary.json")
    except InputError:
        return set()
    names = [*(told.get("files") or {}), *(told.get("pages") or [])]
    return {name for name in names if isinstance(name, str) and _inside(name)}


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and path != PurePosixPath(".")
