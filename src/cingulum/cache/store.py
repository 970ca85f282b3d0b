"""Results of long work under the hash of everything they depend on: whole or not there,
the same whoever made them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cingulum.io.files import write_bytes
from cingulum.versions import package_versions


def key_of(**told: Any) -> str:
    """SHA-256 of what a result depends on, in JSON's types, and of the software that
    computes it: another version of torch may give another last bit, so results of two
        versions are never mixed."""
    return hashlib.sha256(
        json.dumps({"software": package_versions(), **told}, sort_keys=True).encode()
    ).hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder of results; it may be removed at any time, and only costs computing them
    again."""

    folder: Path

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays under a key; None where there are none, or they are damaged."""
        try:
            with np.load(self._path(key), allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ):
            return None

    def put(self, key: str, arrays: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]
        write_bytes(self._path(key), buffer.getvalue())

    def _path(self, key: str) -> Path:
        return Path(self.folder) / "kept" / key[:2] / f"{key}.npz"
