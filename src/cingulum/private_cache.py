"""Where code that was compiled is kept: folders and files that nobody else can write,
since whoever writes there decides what is run."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_root() -> Path | None:
    """CINGULUM_CACHE, or `cingulum` in the user's cache; None for a user without a
    home, as in some containers."""
    chosen = os.environ.get("CINGULUM_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "cingulum"
    home = home_folder()
    return None if home is None else home / ".cache" / "cingulum"


def home_folder() -> Path | None:
    """The user's home; None for a user that the system does not know, as in some
    containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def private_folder(folder: Path) -> Path | None:
    """The folder, made if it is missing; None where it cannot be made, or others may
    write there."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    if not is_trusted(folder) or not os.access(folder, os.W_OK):
        return None
    return folder


def is_trusted(path: Path) -> bool:
    """Whether a file or folder belongs to this user or to root, and nobody else may
    write to it."""
    # Windows has no owners and modes of this kind.
    if os.name != "posix":
        return True
    try:
        status = path.stat()
    except OSError:
        return False
    belongs_to_us = status.st_uid in (os.getuid(), 0)
    return belongs_to_us and not status.st_mode & OTHERS_MAY_WRITE


def remove(path: Path) -> None:
    """Remove a file that must not be used."""
    # Another process may have been quicker, or the file is not ours.
    with suppress(OSError):
        path.unlink()
