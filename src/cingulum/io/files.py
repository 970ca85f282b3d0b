"""Safe reading and atomic writing: whatever is read is checked to its last byte,
whatever is written is whole."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import platform
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError

BUDGET = 8 * 1024**3
"""Bytes that one image may unfold to (a Human Connectome run has 4 GB); a larger claim
is refused before memory is taken, and so is a smaller one that a small file makes
(images.MOST_FOLDED)."""

TABLE_BUDGET = 128 * 1024**2
"""Bytes that one table or sidecar may unfold to: an hour of four channels at 1000 Hz
stays below it."""


def read_bytes(path: Path, budget: int = TABLE_BUDGET) -> bytes:
    """The content of a file, unpacked if its name ends in .gz, with the checksum
    verified to the end.

    nibabel stops when it has what it wants and so misses damage; reading to the end
    does not. Unpacking stops at the budget, so a small file that claims to be a large
    one costs neither time nor memory. Raises InputError for a missing, unreadable,
    damaged or oversized file, or one that is no regular file.
    """
    path = Path(path)
    with _reading(path):
        if path.stat().st_size > budget:
            raise InputError(
                f"{path}: {_mib(path.stat().st_size)} are more than the {_mib(budget)} "
                "expected; refused."
            )
        return _unpack(path, budget) if path.suffix == ".gz" else path.read_bytes()


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes one kind of error."""
    if path.exists() and not path.is_file():
        raise InputError(
            f"{path}: cannot be read: expected a file, not a folder or device."
        )
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as trouble:
        raise InputError(
            f"{path}: damaged gzip file ({trouble}). Copy it again from its source."
        ) from None
    except OSError as trouble:
        gone = (
            " Its content is elsewhere; fetch it first (datalad get)."
            if path.is_symlink()
            else ""
        )
        raise InputError(
            f"{path}: cannot be read ({trouble.strerror or trouble}).{gone}"
        ) from None


def _unpack(path: Path, budget: int) -> bytes:
    content = bytearray()
    with gzip.open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            content += chunk
            if len(content) > budget:
                raise InputError(
                    f"{path}: unfolds to more than the {_mib(budget)} expected; "
                    "refused."
                )
    return bytes(content)


def read_start(path: Path, length: int) -> bytes:
    """The first bytes of a file, unpacked if its name ends in .gz; nothing is
    verified."""
    path = Path(path)
    with (
        _reading(path),
        gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream,
    ):
        return stream.read(length)


def _mib(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A tab-separated table (.tsv or .tsv.gz); `n/a` is missing. options: of pandas'
    read_csv"""
    content = read_bytes(path)
    try:
        return pd.read_csv(
            io.BytesIO(content), **{"sep": "\t", "na_values": ["n/a"], **options}
        )
    except (
        ValueError,
        OverflowError,
        csv.Error,
    ) as trouble:  # pandas' parser errors are ValueErrors
        raise InputError(
            f"{path}: not a readable tab-separated table ({trouble})."
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    raw = read_bytes(path)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as trouble:
        raise InputError(
            f"{path}: not valid JSON ({trouble}). Repair it with any JSON editor."
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a JSON object; came {type(content).__name__}."
        )
    return content


def read_own(path: Path) -> dict[str, Any]:
    """A JSON object of our own making; empty where it is not there, or damaged: then it
    is made anew."""
    try:
        return read_json(path) if path.is_file() else {}
    except InputError:
        return {}


def read_matrix(path: Path) -> np.ndarray:
    """A matrix of numbers from .npy, .npz (one array), .tsv or .csv (no header)."""
    path = Path(path)
    content = read_bytes(path)
    try:
        if path.suffix in {".npy", ".npz"}:
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            matrix = (
                loaded if isinstance(loaded, np.ndarray) else _only_array(path, loaded)
            )
        elif path.suffix in {".tsv", ".csv", ".txt"}:
            separator = {".tsv": "\t", ".csv": ",", ".txt": r"\s+"}[path.suffix]
            matrix = pd.read_csv(
                io.BytesIO(content), sep=separator, header=None, na_values=["n/a"]
            ).to_numpy(float)
        else:
            raise InputError(
                f"{path}: expected .npy, .npz, .tsv, .csv or .txt; came "
                f"{path.suffix or 'no suffix'}."
            )
        matrix = np.asarray(matrix, dtype=float)
    except InputError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, pd.errors.ParserError) as trouble:
        raise InputError(
            f"{path}: not a readable matrix of numbers ({trouble})."
        ) from None
    if matrix.ndim != 2:
        raise InputError(
            f"{path}: expected a matrix (2 dimensions); came shape {matrix.shape}."
        )
    return matrix


def _only_array(path: Path, archive: Any) -> np.ndarray:
    if len(archive.files) != 1:
        raise InputError(
            f"{path}: expected one array in the .npz; came {len(archive.files)} "
            f"({archive.files})."
        )
    claimed = sum(member.file_size for member in archive.zip.infolist())
    if claimed > TABLE_BUDGET:
        raise InputError(
            f"{path}: unfolds to {_mib(claimed)}, more than the {_mib(TABLE_BUDGET)} "
            "expected; refused."
        )
    return archive[archive.files[0]]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a .gz is packed without name or time, so that
    nothing personal is in it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=1, mtime=0)
    partial = path.with_name(f".{path.name}.{_mine()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        with suppress(
            OSError
        ):  # a folder that cannot be written has a better error to tell
            partial.unlink(missing_ok=True)


def _mine() -> str:
    """Who writes: a hash of this machine's name, and this process."""
    return f"{zlib.crc32(platform.node().encode()):08x}-{os.getpid()}"


def sweep(folder: Path) -> None:
    """Remove halves of files that processes of this machine left when they were killed;
    those of the living stay."""
    here = _mine().partition("-")[0]
    for partial in Path(folder).rglob(".*.partial"):
        host, _, pid = partial.name.split(".")[-2].partition("-")
        if (
            host == here
            and pid.isdigit()
            and not Path(f"/proc/{pid}").exists()
            and Path("/proc").exists()
        ):
            with suppress(OSError):
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write a matrix as .npy, .tsv or .csv without header (missing: n/a). Raises
    InputError for another ending."""
    path, separators = Path(path), {".tsv": "\t", ".csv": ","}
    if path.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, matrix, allow_pickle=False)
        write_bytes(path, buffer.getvalue())
    elif path.suffix in separators:
        rows = (
            separators[path.suffix].join(
                "n/a" if value != value else f"{value:.9g}" for value in row
            )
            + "\n"
            for row in matrix
        )
        write_bytes(path, "".join(rows).encode())
    else:
        raise InputError(f"{path}: expected a name ending in .npy, .tsv or .csv.")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, readable."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_table(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a tab-separated table; missing is `n/a`."""
    write_bytes(
        path, table.to_csv(sep="\t", na_rep="n/a", index=False, **options).encode()
    )


def check_vacant(target: Path) -> None:
    """Refuse a place that already holds something."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(
            f"{target}: already exists and is not empty. Name another place, or remove "
            "it first."
        )


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that appears as `target` only when everything in it is
    written.

    Raises InputError if `target` already holds something.
    """
    target = Path(target)
    check_vacant(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{_mine()}.partial")
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def slug(text: str) -> str:
    """A column name that statistics programs take: letters, digits and underscores."""
    return re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")
