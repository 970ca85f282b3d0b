"""Safe reading and atomic writing: whatever is read is checked to its last byte,
whatever is written is whole."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import platform
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cingulum.errors import InputError

JsonObject: TypeAlias = dict[str, Any]
"""The content of a JSON file: field names and whatever values its author wrote."""

BUDGET = 8 * 1024**3
"""Bytes that one image may unpack to (a Human Connectome run has 4 GB); a larger claim
is refused before memory is allocated, and so is a smaller claim by a file that is far
too small for it (images.LARGEST_COMPRESSION)."""

TABLE_BUDGET = 128 * 1024**2
"""Bytes that one table or sidecar may unpack to: an hour of four channels at 1000 Hz
stays below it."""

SEPARATORS = {".tsv": "\t", ".csv": ",", ".txt": r"\s+"}
"""What stands between the numbers of a text matrix, by file ending."""


def read_bytes(path: Path, budget: int = TABLE_BUDGET) -> bytes:
    """The content of a file, unpacked if its name ends in .gz, with the checksum
    verified to the end.

    nibabel stops when it has what it wants and so misses damage; reading to the end
    does not. Unpacking stops at the budget, so a small file that claims to be a large
    one costs neither time nor memory. Raises InputError for a missing, unreadable,
    damaged or oversized file, or one that is no regular file.
    """
    path = Path(path)
    with _read_errors(path):
        _check_size(path, budget)
        if path.suffix == ".gz":
            return _unpack(path, budget)
        return path.read_bytes()


def read_start(path: Path, length: int) -> bytes:
    """The first bytes of a file, unpacked if its name ends in .gz; nothing is
    verified."""
    path = Path(path)
    with _read_errors(path), _open_unpacked(path) as stream:
        return stream.read(length)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes an InputError."""
    # Opening a named pipe would wait forever, so this comes before any reading.
    if path.exists() and not path.is_file():
        raise InputError(
            f"{path}: cannot be read: expected a file, not a folder or device."
        )
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: damaged gzip file ({error}). Copy it again from its source."
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}).{_datalad_hint(path)}"
        ) from None


def _datalad_hint(path: Path) -> str:
    # In a DataLad clone, a link without its target is a file not yet downloaded.
    if not path.is_symlink():
        return ""
    return " Its content is elsewhere; fetch it first (datalad get)."


def _check_size(path: Path, budget: int) -> None:
    size = path.stat().st_size
    if size > budget:
        raise InputError(
            f"{path}: {_mebibytes(size)} are more than the {_mebibytes(budget)} "
            "expected; refused."
        )


def _unpack(path: Path, budget: int) -> bytes:
    content = bytearray()
    with gzip.open(path, "rb") as stream:
        # By the megabyte, so that a bomb is noticed before it fills the memory.
        while chunk := stream.read(1 << 20):
            content += chunk
            if len(content) > budget:
                raise InputError(
                    f"{path}: unfolds to more than the {_mebibytes(budget)} expected; "
                    "refused."
                )
    return bytes(content)


def _open_unpacked(path: Path) -> gzip.GzipFile | io.BufferedReader:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


def _mebibytes(size: int) -> str:
    return f"{size / 1024**2:.0f} MiB"


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A tab-separated table (.tsv or .tsv.gz); `n/a` is missing.

    options: of pandas' read_csv
    """
    content = read_bytes(path)
    settings = {"sep": "\t", "na_values": ["n/a"], **options}
    try:
        return pd.read_csv(io.BytesIO(content), **settings)
    # pandas' own parser errors are ValueErrors.
    except (ValueError, OverflowError, csv.Error) as error:
        raise InputError(
            f"{path}: not a readable tab-separated table ({error})."
        ) from None


def read_json(path: Path) -> JsonObject:
    """A JSON object. Raises InputError for invalid JSON or another kind of value."""
    raw = read_bytes(path)
    try:
        content = json.loads(raw)
    # Deep nesting exhausts the parser's recursion.
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not valid JSON ({error}). Repair it with any JSON editor."
        ) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected a JSON object; got {type(content).__name__}."
        )
    return content


def read_json_or_empty(path: Path) -> JsonObject:
    """A JSON object that this package wrote; empty where the file is missing or
    damaged, so that the caller computes it again."""
    if not path.is_file():
        return {}
    try:
        return read_json(path)
    except InputError:
        return {}


def read_matrix(path: Path) -> np.ndarray:
    """A matrix of numbers from .npy, .npz (one array), .tsv, .csv or .txt (no
    header)."""
    path = Path(path)
    content = read_bytes(path)
    try:
        matrix = np.asarray(_parse_matrix(path, content), dtype=float)
    # An InputError is a ValueError too, and says more than the message below.
    except InputError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, pd.errors.ParserError) as error:
        raise InputError(
            f"{path}: not a readable matrix of numbers ({error})."
        ) from None
    if matrix.ndim != 2:
        raise InputError(
            f"{path}: expected a matrix (2 dimensions); got shape {matrix.shape}."
        )
    return matrix


def _parse_matrix(path: Path, content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    if path.suffix in {".npy", ".npz"}:
        return _parse_numpy(path, stream)
    if path.suffix in SEPARATORS:
        separator = SEPARATORS[path.suffix]
        table = pd.read_csv(stream, sep=separator, header=None, na_values=["n/a"])
        return table.to_numpy(float)
    raise InputError(
        f"{path}: expected .npy, .npz, .tsv, .csv or .txt; got "
        f"{path.suffix or 'no suffix'}."
    )


def _parse_numpy(path: Path, stream: io.BytesIO) -> np.ndarray:
    # A pickle inside the file could run code.
    loaded = np.load(stream, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    return _only_array(path, loaded)


def _only_array(path: Path, archive: Any) -> np.ndarray:
    if len(archive.files) != 1:
        raise InputError(
            f"{path}: expected one array in the .npz; got {len(archive.files)} "
            f"({archive.files})."
        )
    # numpy would unpack whatever the archive claims, so the claim is checked first.
    _check_claim(path, archive)
    return archive[archive.files[0]]


def _check_claim(path: Path, archive: Any) -> None:
    claimed = sum(member.file_size for member in archive.zip.infolist())
    if claimed > TABLE_BUDGET:
        raise InputError(
            f"{path}: unfolds to {_mebibytes(claimed)}, more than the "
            f"{_mebibytes(TABLE_BUDGET)} expected; refused."
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a .gz is packed without name or time, so that
    nothing personal is in it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=1, mtime=0)
    partial = _partial_path(path)
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        # In a folder that cannot be written, the error above is the one to report.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _partial_path(path: Path) -> Path:
    """Where a file is kept while it is written: in the same folder, since only within
    one file system a rename is atomic."""
    return path.with_name(f".{path.name}.{_writer()}.partial")


def _writer() -> str:
    """Who writes: a hash of this machine's name, and the number of this process."""
    return f"{_machine()}-{os.getpid()}"


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def remove_partial_files(folder: Path) -> None:
    """Remove the partial files and folders that killed processes of this machine left
    behind; those of running processes stay."""
    # Without /proc nothing shows whether a process still runs.
    if not Path("/proc").exists():
        return
    for partial in Path(folder).rglob(".*.partial"):
        if _is_abandoned(partial):
            _remove(partial)


def _is_abandoned(partial: Path) -> bool:
    machine, _, process = partial.name.split(".")[-2].partition("-")
    # On a shared disk, process numbers of another machine say nothing about ours.
    if machine != _machine() or not process.isdigit():
        return False
    return not Path(f"/proc/{process}").exists()


def _remove(path: Path) -> None:
    # Another process may be removing the same path.
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write a matrix as .npy, .tsv or .csv without header (missing: n/a). Raises
    InputError for another ending."""
    path = Path(path)
    if path.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, matrix, allow_pickle=False)
        write_bytes(path, buffer.getvalue())
    elif path.suffix in {".tsv", ".csv"}:
        separator = SEPARATORS[path.suffix]
        lines = [separator.join(map(_number_text, row)) + "\n" for row in matrix]
        write_bytes(path, "".join(lines).encode())
    else:
        raise InputError(f"{path}: expected a name ending in .npy, .tsv or .csv.")


def _number_text(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return f"{value:.9g}"


def write_json(path: Path, content: JsonObject) -> None:
    """Write a JSON object, indented for readers."""
    text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_table(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a tab-separated table; missing is `n/a`.

    options: of pandas' to_csv
    """
    text = table.to_csv(sep="\t", na_rep="n/a", index=False, **options)
    write_bytes(path, text.encode())


def check_vacant(target: Path) -> None:
    """Raises InputError where a path already holds something; an empty folder is
    fine."""
    if not target.exists():
        return
    if not target.is_dir() or any(target.iterdir()):
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
    partial = _partial_path(target)
    partial.mkdir()
    try:
        yield partial
        # Renaming onto an existing folder, even an empty one, fails on Windows.
        if target.exists():
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def slug(text: str) -> str:
    """A column name that statistics programs take: letters, digits and underscores."""
    return re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")
