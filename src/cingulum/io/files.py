"""Safe reading and atomic writing: whatever is read is checked to its last byte,
whatever is written is whole."""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
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
    with parse_errors(path, "tab-separated table"):
        return parse_table(content, **settings)


def parse_table(content: bytes, **options: Any) -> pd.DataFrame:
    """A table of text. Its numbers are read by Python itself: pandas' own parser reads
    outside of its memory where an exponent is huge, and loses the last bit of others.

    options: of pandas' read_csv
    """
    # The Python engine, which some separators need, has no other way to read numbers.
    if options.get("engine") != "python":
        options["float_precision"] = "round_trip"
    return pd.read_csv(io.BytesIO(content), **options)


NUMBER = re.compile(
    r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE
)
"""A number as texts hold it, digits of other alphabets excluded."""


def is_text(column: pd.Series) -> bool:
    """Whether a column holds texts, in any of the types that versions of pandas have
    for them."""
    return column.dtype == object or isinstance(column.dtype, pd.StringDtype)


def as_numbers(column: pd.Series) -> pd.Series:
    """A column as float, NaN for what is no number. Texts are read by Python itself:
    `pandas.to_numeric` reads outside of its memory where an exponent is huge."""
    if column.dtype.kind in "fiub":
        values = column.to_numpy(float, na_value=np.nan)
    else:
        values = np.array([_as_number(cell) for cell in column], dtype=float)
    return pd.Series(values, column.index, name=column.name)


def _as_number(cell: Any) -> float:
    if isinstance(cell, int | float | np.number):
        return float(cell)
    text = str(cell).strip()
    return float(text) if NUMBER.fullmatch(text) else float("nan")


@contextmanager
def parse_errors(path: Path, what: str) -> Iterator[None]:
    """Raises InputError for whatever is raised inside: the file is no `what`."""
    try:
        yield
    except InputError:
        raise
    # Parsers raise whatever damaged content makes them stumble over.
    except Exception as error:
        raise InputError(
            f"{path}: not a readable {what} ({type(error).__name__}: {error})."
        ) from None


def read_json(path: Path) -> JsonObject:
    """A JSON object. Raises InputError for invalid JSON or another kind of value."""
    raw = read_bytes(path)
    with parse_errors(path, "JSON file"):
        content = json.loads(raw)
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
    with parse_errors(path, "matrix of numbers"):
        matrix = np.asarray(_parse_matrix(path, content), dtype=float)
    if matrix.ndim != 2:
        raise InputError(
            f"{path}: expected a matrix (2 dimensions); got shape {matrix.shape}."
        )
    return matrix


def read_square_matrix(path: Path) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """A square matrix of numbers, and the names of its columns where the file has them:
    a first row of texts, and perhaps the same texts as its first column.

    Raises InputError for another shape, and where rows and columns have other names.
    """
    path = Path(path)
    names = _names_in(path)
    matrix = read_matrix(path) if names is None else _named_matrix(path, names)
    rows, columns = matrix.shape
    if rows != columns:
        raise InputError(
            f"{path}: connection weights must be a square matrix; got {matrix.shape}."
        )
    return matrix, names


def _names_in(path: Path) -> tuple[str, ...] | None:
    """The texts of a table's first row; None where it holds numbers only."""
    if path.suffix not in SEPARATORS:
        return None
    first = _text_table(path, nrows=1).iloc[0].tolist()
    if all(_is_numeric(cell) for cell in first):
        return None
    # Above row names stands nothing, or a word for them.
    columns = _text_table(path).shape[0] - 1
    return tuple(first[-columns:]) if columns else tuple(first)


def _named_matrix(path: Path, names: tuple[str, ...]) -> np.ndarray:
    table = _text_table(path)
    body = table.iloc[1:]
    if body.shape[1] == len(names) + 1:
        rows = tuple(body.iloc[:, 0])
        if rows != names:
            unlike = next((r, c) for r, c in zip(rows, names, strict=False) if r != c)
            raise InputError(
                f"{path}: rows and columns must have the same names in the same order; "
                f"row {unlike[0]!r} stands where column {unlike[1]!r} does."
            )
        body = body.iloc[:, 1:]
    with parse_errors(path, "matrix of numbers under a row of names"):
        return body.to_numpy(float)


def _text_table(path: Path, **options: Any) -> pd.DataFrame:
    content = read_bytes(path)
    with parse_errors(path, "table"):
        return parse_table(
            content,
            sep=SEPARATORS[path.suffix],
            header=None,
            dtype=str,
            keep_default_na=False,
            **options,
        )


def _is_numeric(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "n/a"
    return True


def _parse_matrix(path: Path, content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    if path.suffix in {".npy", ".npz"}:
        return _parse_numpy(path, stream)
    if path.suffix in SEPARATORS:
        separator = SEPARATORS[path.suffix]
        table = parse_table(content, sep=separator, header=None, na_values=["n/a"])
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


def write_bytes(path: Path, content: bytes) -> str:
    """Write a file whole or not at all; returns its SHA-256. A .gz is packed without
    name or time, so that nothing personal is in it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=1, mtime=0)
    partial = _partial_path(path)
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            # A rename may reach the disk before what was written.
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        # In a folder that cannot be written, the error above is the one to report.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


def _partial_path(path: Path) -> Path:
    """Where a file is kept while it is written: in the same folder, since only within
    one file system a rename is atomic."""
    return path.with_name(f".{path.name}.{_writer()}.partial")


def _writer() -> str:
    """Who writes: a hash of this machine's name, and the number of this process."""
    return f"{_machine()}-{os.getpid()}"


def _machine() -> str:
    """This machine, and the space in which its process numbers count: a container may
    have one of its own under the same name."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{zlib.crc32(f'{platform.node()} {space}'.encode()):08x}"


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
    if machine != _machine() or not is_whole_number(process):
        return False
    return not Path(f"/proc/{process}").exists()


def _remove(path: Path) -> None:
    # Another process may be removing the same path.
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_matrix(path: Path, matrix: np.ndarray) -> str:
    """Write a matrix as .npy, .tsv or .csv without header (missing: n/a); returns the
    file's SHA-256. Raises InputError for another ending."""
    path = Path(path)
    if path.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, matrix, allow_pickle=False)
        return write_bytes(path, buffer.getvalue())
    if path.suffix in {".tsv", ".csv"}:
        separator = SEPARATORS[path.suffix]
        lines = [separator.join(map(_number_text, row)) + "\n" for row in matrix]
        return write_bytes(path, "".join(lines).encode())
    raise InputError(f"{path}: expected a name ending in .npy, .tsv or .csv.")


def _number_text(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    return f"{value:.9g}"


def write_json(path: Path, content: JsonObject) -> None:
    """Write a JSON object, indented for readers."""
    text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_table(path: Path, table: pd.DataFrame, **options: Any) -> str:
    """Write a tab-separated table; missing is `n/a`. Returns the file's SHA-256.

    options: of pandas' to_csv
    """
    text = table.to_csv(sep="\t", na_rep="n/a", index=False, **options)
    return write_bytes(path, text.encode())


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
    _remove_abandoned(target)
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


def _remove_abandoned(target: Path) -> None:
    """Remove what killed processes left of writing to `target`."""
    if not Path("/proc").exists():
        return
    for partial in target.parent.glob(f".{glob.escape(target.name)}.*.partial"):
        if _is_abandoned(partial):
            _remove(partial)


@contextmanager
def replaced_files(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """A folder to write files into that then take the place of earlier ones in
    `folder`. Until all of them are written, nothing there changes.

    names: of the files that belong together: those that are not written any more are
        removed
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # Within the folder, since only within one file system a rename is atomic.
    target = folder / "results"
    _remove_abandoned(target)
    partial = _partial_path(target)
    partial.mkdir()
    try:
        yield partial
        written = {path.name for path in partial.iterdir()}
        for name in sorted(written):
            (partial / name).replace(folder / name)
        for name in set(names) - written:
            (folder / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_whole_number(text: str) -> bool:
    """Whether a text is a whole number in ASCII digits, which `int` reads; isdigit
    alone accepts superscripts, too."""
    return text.isascii() and text.isdigit()


def slug(text: str) -> str:
    """A column name that statistics programs take: letters, digits and underscores."""
    return re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")
