"""Results of long work under the hash of everything they depend on: whole or not there,
the same whoever made them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cingulum.io.files import write_bytes

FOLDER = "kept"
"""The folder of kept results within a work folder."""

DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is missing or damaged."""


@dataclass(frozen=True)
class Store:
    """A folder of results; it may be removed at any time, and only costs computing them
    again."""

    folder: Path

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays under a key; None where there are none, or they are damaged."""
        try:
            return _load(self._path(key))
        except DAMAGED:
            return None

    def put(self, key: str, arrays: Mapping[str, ArrayLike]) -> None:
        """Keep arrays under a key."""
        buffer = io.BytesIO()
        content: dict[str, Any] = {}
        for name, value in arrays.items():
            content[name] = np.asarray(value)
        np.savez(buffer, **content)
        # In one piece, because a process may be killed at any moment.
        write_bytes(self._path(key), buffer.getvalue())

    def _path(self, key: str) -> Path:
        # Thousands of files in a single folder would be slow on network disks.
        return Path(self.folder) / FOLDER / key[:2] / f"{key}.npz"


def _load(path: Path) -> dict[str, np.ndarray]:
    # No pickles: a file from elsewhere must not run code.
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
