"""Safe reading and atomic writing: whatever is read is checked to its last byte, whatever is written is whole."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from cingulum.errors import InputError

BUDGET = 2 * 1024**3
"""Bytes that one file may unfold to; a larger claim is refused before memory is taken."""


def read_bytes(path: Path, budget: int = BUDGET) -> bytes:
    """The content of a file, unpacked if its name ends in .gz, with the checksum verified to the end.

    nibabel stops when it has what it wants and so misses damage; reading to the end does not.
    Raises InputError for a missing, unreadable, damaged or oversized file.
    """
    try:
        raw = Path(path).read_bytes()
        if not str(path).endswith(".gz"):
            return raw
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as stream:
            content = stream.read(budget + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as trouble:
        raise InputError(f"{path}: damaged gzip file ({trouble}). Copy it again from its source.") from None
    except OSError as trouble:
        raise InputError(f"{path}: cannot be read ({trouble.strerror or trouble}).") from None
    if len(content) > budget:
        raise InputError(f"{path}: unfolds to more than {budget / 1024**3:.0f} GiB; refused.")
    return content


def read_image(path: Path, dimensions: int) -> nib.Nifti1Image:
    """A NIfTI image with `dimensions` axes, checked: gzip checksum, size, affine, voxel size, finite data.

    Raises InputError naming the file, the finding and the remedy.
    """
    content = read_bytes(path)
    kind = nib.Nifti2Image if content[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") else nib.Nifti1Image
    try:
        image = kind.from_bytes(content)
        shape = image.shape
        if int(np.prod(shape, dtype=np.int64)) * 4 > BUDGET:
            raise InputError(f"{path}: header claims {shape}, more than {BUDGET / 1024**3:.0f} GiB; refused.")
        data = image.get_fdata(dtype=np.float32)
    except InputError:
        raise
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, OSError, ValueError) as trouble:
        raise InputError(f"{path}: not a readable NIfTI image ({trouble}). Expected .nii or .nii.gz.") from None
    except OverflowError as trouble:
        raise InputError(f"{path}: damaged NIfTI header ({trouble}).") from None
    _check_plausible(path, image, data, dimensions)
    return nib.Nifti1Image(data, image.affine, image.header)


def _check_plausible(path: Path, image: Any, data: np.ndarray, dimensions: int) -> None:
    if data.ndim != dimensions:
        raise InputError(f"{path}: expected an image with {dimensions} dimensions; came shape {data.shape}.")
    zooms = np.linalg.norm(image.affine[:3, :3], axis=0)
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-6:
        raise InputError(f"{path}: its affine is not invertible; the header is damaged.")
    if not ((zooms >= 0.2) & (zooms <= 20)).all():
        raise InputError(f"{path}: voxel size {np.round(zooms, 3)} mm is implausible (expected 0.2 to 20 mm).")
    extent = zooms * data.shape[:3]
    if not ((extent >= 20) & (extent <= 1000)).all():
        raise InputError(f"{path}: field of view {np.round(extent)} mm is implausible for a head.")
    if not np.isfinite(data).all():
        raise InputError(f"{path}: {np.mean(~np.isfinite(data)):.1%} of its values are NaN or infinite.")


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A tab-separated table (.tsv or .tsv.gz); `n/a` is missing."""
    try:
        return pd.read_csv(io.BytesIO(read_bytes(path)), sep="\t", na_values=["n/a"], **options)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as trouble:
        raise InputError(f"{path}: not a readable tab-separated table ({trouble}).") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        content = json.loads(read_bytes(path))
    except ValueError as trouble:
        raise InputError(f"{path}: not valid JSON ({trouble}).") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object; came {type(content).__name__}.")
    return content


def read_matrix(path: Path) -> np.ndarray:
    """A matrix of numbers from .npy, .npz (one array), .tsv or .csv (no header)."""
    path = Path(path)
    content = read_bytes(path)
    try:
        if path.suffix in {".npy", ".npz"}:
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            matrix = loaded if isinstance(loaded, np.ndarray) else _only_array(path, loaded)
        elif path.suffix in {".tsv", ".csv", ".txt"}:
            separator = {".tsv": "\t", ".csv": ",", ".txt": r"\s+"}[path.suffix]
            matrix = pd.read_csv(io.BytesIO(content), sep=separator, header=None, na_values=["n/a"]).to_numpy(float)
        else:
            raise InputError(f"{path}: expected .npy, .npz, .tsv, .csv or .txt; came {path.suffix or 'no suffix'}.")
        matrix = np.asarray(matrix, dtype=float)
    except InputError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile, pd.errors.ParserError) as trouble:
        raise InputError(f"{path}: not a readable matrix of numbers ({trouble}).") from None
    if matrix.ndim != 2:
        raise InputError(f"{path}: expected a matrix (2 dimensions); came shape {matrix.shape}.")
    return matrix


def _only_array(path: Path, archive: Any) -> np.ndarray:
    if len(archive.files) != 1:
        raise InputError(f"{path}: expected one array in the .npz; came {len(archive.files)} ({archive.files}).")
    return archive[archive.files[0]]


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a .gz is packed without name or time, so that nothing personal is in it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=1, mtime=0)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write a matrix as .npy, .tsv or .csv without header. Raises InputError for another ending."""
    path, separators = Path(path), {".tsv": "\t", ".csv": ","}
    if path.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, matrix, allow_pickle=False)
        write_bytes(path, buffer.getvalue())
    elif path.suffix in separators:
        rows = (separators[path.suffix].join(f"{value:.9g}" for value in row) + "\n" for row in matrix)
        write_bytes(path, "".join(rows).encode())
    else:
        raise InputError(f"{path}: expected a name ending in .npy, .tsv or .csv.")


def write_image(path: Path, data: np.ndarray, affine: np.ndarray, tr: float | None = None) -> None:
    """Write a NIfTI image in mm (and s); 4-D data needs its `tr`."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    write_bytes(path, image.to_bytes())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, readable."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_table(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a tab-separated table; missing is `n/a`."""
    write_bytes(path, table.to_csv(sep="\t", na_rep="n/a", index=False, **options).encode())


def check_vacant(target: Path) -> None:
    """Refuse a place that already holds something."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: already exists and is not empty. Name another place, or remove it first.")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to write into that appears as `target` only when everything in it is written.

    Raises InputError if `target` already holds something.
    """
    import shutil

    target = Path(target)
    check_vacant(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.mkdir()
    try:
        yield partial
        if target.exists():
            target.rmdir()
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
