"""Inner products of the patients' differences, and what may be fitted to training
patients before a machine sees them.

A machine needs only inner products: one pass over the voxels a modality. Removing
confounds is linear in the patients, so it happens among the inner products; scaling
needs the features themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

CHUNK = 20_000
"""Features worked on together: float32 maps never become float64 copies as a whole."""


@dataclass(frozen=True, eq=False)
class Products:
    """gram (n, n): differences with differences; cross (n, n): first visits with
    differences; trains (model, n) is None where all models share them, else both are
    (model, n, n) and `trains` marks each model's training patients."""

    gram: np.ndarray
    cross: np.ndarray


def copy_of(
    tables: Sequence[np.ndarray], allowed: np.ndarray | None = None
) -> tuple[int, int] | None:
    """The first two rows that coincide to the last digit in all tables (row, …), or
    None; rows of one value of `allowed` (a family) may. Only where at least three
    columns tell most rows apart: ordinal scales coincide by chance.
    """
    seen: dict[bytes, int] = {}
    for i in range(len(tables[0])):
        digest = blake2b(
            b"".join(blake2b(t[i].tobytes()).digest() for t in tables)
        ).digest()
        twin = seen.setdefault(digest, i)
        if (
            twin != i
            and (allowed is None or allowed[twin] != allowed[i])
            and _identified(tables, i)
        ):
            return twin, i
    return None


def _identified(tables: Sequence[np.ndarray], row: int) -> bool:
    columns = [
        column
        for t in tables
        for column in t.reshape(len(t), -1).T[:200]
        if np.isfinite(column[row])
    ]
    return sum(len(np.unique(column)) > len(column) / 2 for column in columns) >= 3


def turned(values: np.ndarray, higher: np.ndarray) -> np.ndarray:
    """(patient, visit, …) with the visit to be recognised second; higher (patient,): it
    is so already."""
    values = np.asarray(values)
    return np.where(
        np.asarray(higher, bool).reshape(-1, *[1] * (values.ndim - 1)),
        values,
        values[:, ::-1],
    )


def middle(gram: np.ndarray, cross: np.ndarray, trains: np.ndarray) -> np.ndarray:
    """Inner products (…, n) of the mean training scan, over both visits, with the
    differences; trains (…, n) marks patients. Swapping a patient's visits does not move
    it."""
    mean = trains / trains.sum(-1, keepdims=True).clip(1)
    return np.einsum("...i,...ij->...j", mean, cross + gram / 2)


def inner_products(rows: np.ndarray) -> np.ndarray:
    """(row, row) of rows (row, feature), in float64."""
    found = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], CHUNK):
        block = rows[:, start : start + CHUNK].astype(np.float64)
        found += block @ block.T
    return found


def products(values: np.ndarray, here: np.ndarray) -> Products:
    """values (patient, visit, feature); patients that are not `here` have zero
    differences."""
    n = len(values)
    gram, cross = np.zeros((n, n)), np.zeros((n, n))
    for start in range(0, values.shape[-1], CHUNK):
        first, d = _pair(values[..., start : start + CHUNK], here)
        gram += d @ d.T
        cross += first @ d.T
    return Products(gram, cross)


def products_each(
    values: np.ndarray,
    here: np.ndarray,
    trains: np.ndarray,
    scale: bool,
    confounds: np.ndarray | None,
) -> Products:
    """One pair of matrices a model, after what is fitted to its training patients,
    trains (model, n).

    confounds: (patient, visit, confound), regressed out of differences by their
    differences, through the origin, so that swapping a patient's visits changes nothing
    else; scale: features divided by the root mean square of their differences
    """
    models, n = trains.shape
    gram, cross = np.zeros((models, n, n)), np.zeros((models, n, n))
    shared = None if scale else products(values, here)
    for g in range(models):
        train = trains[g] & here
        left, from_first = residual(confounds, train, n)
        if shared is not None:
            gram[g] = left @ shared.gram @ left.T
            cross[g] = (shared.cross - from_first @ shared.gram) @ left.T
            continue
        for start in range(0, values.shape[-1], CHUNK):
            first, d = _pair(values[..., start : start + CHUNK], here)
            first, d = first - from_first @ d, left @ d
            weight = scales(d[train])
            gram[g] += (d * weight) @ d.T
            cross[g] += (first * weight) @ d.T
    return Products(gram, cross)


def scales(differences: np.ndarray) -> np.ndarray:
    """What products of features are multiplied by: 1 / mean square difference; 0 for a
    feature that never changes."""
    size = np.square(differences).mean(0)
    return np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)


def _pair(values: np.ndarray, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    block = np.where(here[:, None, None], values, 0).astype(np.float64)
    return block[:, 0], block[:, 1] - block[:, 0]


def residual(
    confounds: np.ndarray | None, train: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that take the training patients' regression on confounds out of
    differences, and out of first visits."""
    if confounds is None:
        return np.eye(n), np.zeros((n, n))
    change = confounds[:, 1] - confounds[:, 0]
    slope = np.zeros((change.shape[1], n))
    slope[:, train] = np.linalg.pinv(change[train], rcond=1e-8)
    return np.eye(n) - change @ slope, confounds[:, 0] @ slope
