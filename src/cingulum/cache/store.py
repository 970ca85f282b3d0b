"""Results of long work under the hash of everything they depend on: whole or not there,
the same whoever made them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cingulum.io.files import write_bytes

FOLDER = "kept"
"""The folder of kept results within a work folder."""

KEPT_NAME = re.compile("[0-9a-f]{64}[.]npz")

DIGEST_BYTES = 32
"""SHA-256 of the key and of all that follows, in front of every result: a zip archive's
own checksums are reached only where everything else is in order."""


@dataclass(frozen=True)
class Store:
    """A folder of results; it may be removed at any time, and only costs computing them
    again."""

    folder: Path

    def get(self, key: str) -> dict[str, np.ndarray] | None:
        """The arrays under a key; None where there are none, or they are damaged."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        digest, archive = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(key.encode() + archive).digest() != digest:
            return None
        return _load(archive)

    def put(self, key: str, arrays: Mapping[str, ArrayLike]) -> None:
        """Keep arrays under a key."""
        buffer = io.BytesIO()
        content: dict[str, Any] = {}
        for name, value in arrays.items():
            content[name] = np.asarray(value)
        np.savez(buffer, **content)
        archive = buffer.getvalue()
        digest = hashlib.sha256(key.encode() + archive).digest()
        # In one piece, because a process may be killed at any moment.
        write_bytes(self._path(key), digest + archive)

    def clear(self) -> None:
        """Remove every kept result; whatever else lies in the folder stays."""
        for path in (Path(self.folder) / FOLDER).glob("*/*.npz"):
            if KEPT_NAME.fullmatch(path.name) and path.parent.name == path.name[:2]:
                path.unlink(missing_ok=True)
        for folder in (Path(self.folder) / FOLDER).glob("??"):
            # A folder that holds something else refuses.
            with suppress(OSError):
                folder.rmdir()

    def _path(self, key: str) -> Path:
        # Thousands of files in a single folder would be slow on network disks.
        return Path(self.folder) / FOLDER / key[:2] / f"{key}.npz"


def _load(archive: bytes) -> dict[str, np.ndarray]:
    # No pickles: a file from elsewhere must not run code.
    with np.load(io.BytesIO(archive), allow_pickle=False) as content:
        return {name: content[name] for name in content.files}
