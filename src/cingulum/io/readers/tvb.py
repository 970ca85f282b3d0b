"""The Virtual Brain: a connectivity as a zip of text files (`weights`, `tract_lengths`,
`centres`, each .txt or .txt.bz2), as `Connectivity.from_file` reads it."""

from __future__ import annotations

import bz2
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cingulum.errors import InputError
from cingulum.io.files import parse_errors, read_bytes

BUDGET = 256 * 1024**2
"""Bytes that all files of an archive together may unpack to; ten thousand regions need
less."""


@dataclass(frozen=True, eq=False)
class TvbConnectivity:
    """weights, lengths (mm; None where there are none): (region, region), what a row
    receives from a column; centres (region, 3), mm."""

    regions: tuple[str, ...]
    weights: np.ndarray
    lengths: np.ndarray | None
    centres: np.ndarray


def read_tvb_connectivity(path: Path) -> TvbConnectivity:
    """Raises InputError for another kind of archive, missing or damaged files, one that
    unpacks to more than BUDGET, and sizes that do not match.

    Nothing is written to disk, so that names in the archive lead nowhere.
    """
    path = Path(path)
    content = read_bytes(path)
    with parse_errors(path, "connectivity archive of The Virtual Brain"):
        texts = _texts(path, content)
        regions, centres = _centres(path, texts)
        weights = _square(path, texts, "weights", len(regions))
        if weights is None:
            raise InputError(f"{path}: expected a file weights.txt in the archive.")
        lengths = _square(path, texts, "tract_lengths", len(regions))
    return TvbConnectivity(regions, weights, lengths, centres)


def _texts(path: Path, content: bytes) -> dict[str, str]:
    """Unpacked text by name without folder and endings."""
    texts: dict[str, str] = {}
    left = BUDGET
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            name = PurePosixPath(entry.filename).name
            # macOS puts a second, unreadable file beside every one.
            is_copy = entry.filename.startswith("__MACOSX")
            if is_copy or not name.endswith((".txt", ".txt.bz2")):
                continue
            # Not by the size that the archive claims: at most one byte too many.
            with archive.open(entry) as packed:
                raw = packed.read(left + 1)
            if name.endswith(".bz2"):
                raw = _unpacked(raw, left + 1)
            left -= len(raw)
            if left < 0:
                raise InputError(
                    f"{path}: unpacks to more than {BUDGET // 1024**2} MiB; refused."
                )
            texts[name.partition(".")[0]] = raw.decode("utf-8-sig")
    return texts


def _unpacked(raw: bytes, most: int) -> bytes:
    unpacker = bz2.BZ2Decompressor()
    return unpacker.decompress(raw, most)


def _centres(path: Path, texts: dict[str, str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and centres of the regions: a word and three numbers a line, whatever
    follows, as TVB reads them."""
    # TVB reads either spelling.
    text = texts.get("centres", texts.get("centers"))
    if text is None:
        raise InputError(f"{path}: expected a file centres.txt in the archive.")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if any(len(row) < 4 for row in rows):
        raise InputError(
            f"{path}: expected a name and three coordinates in every line of centres."
        )
    names = tuple(row[0] for row in rows)
    return names, np.array([row[1:4] for row in rows], dtype=float)


def _square(
    path: Path, texts: dict[str, str], name: str, regions: int
) -> np.ndarray | None:
    if name not in texts:
        return None
    matrix = np.loadtxt(io.StringIO(texts[name]), ndmin=2)
    if matrix.shape != (regions, regions):
        raise InputError(
            f"{path}: {name} has shape {matrix.shape}; centres names {regions} regions."
        )
    return matrix
