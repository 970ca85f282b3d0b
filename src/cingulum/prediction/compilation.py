"""Numba functions, kept between processes where nobody else can write.

Numba's cache is a pickle with machine code and without a checksum. It is therefore used
only in a folder of our own, never in NUMBA_CACHE_DIR or beside the package, and every
file in it is compared with a digest of ours before numba reads any. Where there is no
such folder, functions are compiled in memory.
"""

from __future__ import annotations

import atexit
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba

from cingulum.content import source_digest
from cingulum.private_cache import cache_root, is_trusted, private_folder, remove

Function = TypeVar("Function", bound=Callable[..., Any])

DIGEST = ".sha256"
"""The ending of the file with the digest of a kept file."""


def compiled(function: Function) -> Function:
    """The function in machine code, without Python's lock and without checks for
    division by zero."""
    folder = _checked_folder()
    if folder is None:
        return _compiled(function, is_kept=False)
    # Numba asks for the folder when a function is decorated.
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(folder)
    try:
        return _compiled(function, is_kept=True)
    finally:
        config.CACHE_DIR = before


def _compiled(function: Function, is_kept: bool) -> Any:
    return numba.njit(cache=is_kept, nogil=True, error_model="numpy")(function)


@cache
def _checked_folder() -> Path | None:
    """Where this version's functions are kept; None where nothing can be kept."""
    root = cache_root()
    if root is None or private_folder(root / "numba") is None:
        return None
    # Numba looks at a function's own file only, not at those it calls.
    name = f"{source_digest()[:16]}-{numba.__version__}"
    folder = private_folder(root / "numba" / name)
    if folder is None:
        return None
    _remove_unproven(folder)
    atexit.register(_write_digests, folder)
    return folder


def _kept_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.nb?") if path.is_file()]


def _remove_unproven(folder: Path) -> None:
    """Remove what has no digest, another one, or another owner."""
    for path in _kept_files(folder):
        if not is_trusted(path) or _digest(path) != _noted_digest(path):
            remove(path)


def _write_digests(folder: Path) -> None:
    for path in _kept_files(folder):
        digest = _digest(path)
        if digest and digest != _noted_digest(path):
            _note(path, digest)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _noted_digest(path: Path) -> str:
    try:
        return path.with_name(path.name + DIGEST).read_text()
    except OSError:
        return ""


def _note(path: Path, digest: str) -> None:
    try:
        path.with_name(path.name + DIGEST).write_text(digest)
    # A full disk costs compiling once more.
    except OSError:
        remove(path)
