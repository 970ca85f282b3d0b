"""Inner products of the patients' differences, and what may be fitted to training
patients before a machine is trained.

A linear machine needs only inner products: one pass over the voxels of a modality.
Removing confounds is linear in the patients, so it happens among the inner products;
scaling needs the features themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

CHUNK = 20_000
"""Features worked on together: float32 maps never become float64 copies as a whole."""

DISTINCTIVE_COLUMNS = 3
"""Columns that must differ between most rows before equal rows count as copies."""


@dataclass(frozen=True, eq=False)
class PairedProducts:
    """gram (…, n, n): inner products of differences with differences; cross (…, n, n):
    of first visits with differences. A leading axis, where there is one, is of models.
    """

    gram: np.ndarray
    cross: np.ndarray


def copy_of(
    tables: Sequence[np.ndarray], allowed: np.ndarray | None = None
) -> tuple[int, int] | None:
    """The first two rows that are equal to the last digit in all tables (row, …), or
    None; rows with the same value of `allowed` (a family) may be. Only where at least
    three columns differ between most rows: ordinal scales coincide by chance.
    """
    rows: dict[bytes, int] = {}
    for i in range(len(tables[0])):
        # The first row with these digits, which may be this one.
        twin = rows.setdefault(_digest(tables, i), i)
        if twin == i or _may_be_alike(allowed, twin, i):
            continue
        if _is_distinctive(tables, i):
            return twin, i
    return None


def _may_be_alike(allowed: np.ndarray | None, a: int, b: int) -> bool:
    return allowed is not None and bool(allowed[a] == allowed[b])


def _digest(tables: Sequence[np.ndarray], row: int) -> bytes:
    # Table by table, so that values cannot move from one table to the next unnoticed.
    digests = [blake2b(table[row].tobytes()).digest() for table in tables]
    return blake2b(b"".join(digests)).digest()


def _is_distinctive(tables: Sequence[np.ndarray], row: int) -> bool:
    """Whether enough columns that this row has take different values in most rows."""
    columns: list[np.ndarray] = []
    for table in tables:
        # Of maps the first 200 voxels are enough, and quick.
        columns.extend(table.reshape(len(table), -1).T[:200])
    # A gap is the same in every row that lacks the column.
    present = [column for column in columns if np.isfinite(column[row])]
    return sum(map(_differs_in_most, present)) >= DISTINCTIVE_COLUMNS


def _differs_in_most(column: np.ndarray) -> bool:
    return len(np.unique(column)) > len(column) / 2


def order_visits(values: np.ndarray, higher: np.ndarray) -> np.ndarray:
    """Values (patient, visit, …) with the visit to be recognised second; higher
    (patient,): whether it already is."""
    values = np.asarray(values)
    is_second = np.asarray(higher, bool)
    # One axis for each of the values, so that a patient's sign reaches all of them.
    column = is_second.reshape(-1, *[1] * (values.ndim - 1))
    return np.where(column, values, values[:, ::-1])


def mean_scan_products(
    gram: np.ndarray, cross: np.ndarray, trains: np.ndarray
) -> np.ndarray:
    """Inner products (…, n) of the mean training scan, over both visits, with the
    differences; trains (…, n) marks patients. Swapping a patient's visits does not
    change it."""
    share = trains / trains.sum(-1, keepdims=True).clip(1)
    return np.einsum("...i,...ij->...j", share, cross + gram / 2)


def inner_products(rows: np.ndarray) -> np.ndarray:
    """(row, row) of rows (row, feature), in float64."""
    gram = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], CHUNK):
        block = rows[:, start : start + CHUNK].astype(np.float64)
        gram += block @ block.T
    return gram


def paired_products(values: np.ndarray, available: np.ndarray) -> PairedProducts:
    """Inner products of values (patient, visit, feature) as they are; patients that are
    not `available` have zero differences."""
    n = len(values)
    gram = np.zeros((n, n))
    cross = np.zeros((n, n))
    for first, difference in _chunks(values, available):
        gram += difference @ difference.T
        cross += first @ difference.T
    return PairedProducts(gram, cross)


def fitted_products(
    values: np.ndarray,
    available: np.ndarray,
    trains: np.ndarray,
    scale: bool,
    confounds: np.ndarray | None,
) -> PairedProducts:
    """Inner products (model, n, n) after what is fitted to each model's training
    patients, trains (model, n).

    confounds: (patient, visit, confound), regressed out of differences by their
    differences, through the origin, so that swapping a patient's visits changes nothing
    else; scale: features divided by the root mean square of their differences
    """
    # One pass over the features serves all models, unless these are scaled.
    unscaled = None if scale else paired_products(values, available)
    grams = []
    crosses = []
    for training in trains & available:
        regression = ConfoundRegression.of(confounds, training)
        if unscaled is None:
            fitted = _scaled_products(values, available, training, regression)
        else:
            fitted = regression.removed_from(unscaled)
        grams.append(fitted.gram)
        crosses.append(fitted.cross)
    return PairedProducts(np.stack(grams), np.stack(crosses))


def _scaled_products(
    values: np.ndarray,
    available: np.ndarray,
    training: np.ndarray,
    regression: ConfoundRegression,
) -> PairedProducts:
    n = len(values)
    gram = np.zeros((n, n))
    cross = np.zeros((n, n))
    for first, difference in _chunks(values, available):
        first_left = first - regression.from_first @ difference
        left = regression.from_difference @ difference
        # The scale is that of the training patients, after the confounds are out.
        weight = inverse_mean_square(left[training])
        gram += (left * weight) @ left.T
        cross += (first_left * weight) @ left.T
    return PairedProducts(gram, cross)


def inverse_mean_square(differences: np.ndarray) -> np.ndarray:
    """What products of scaled features are multiplied by: 1 / mean square difference; 0
    for a feature that never changes."""
    size = np.square(differences).mean(0)
    return np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)


def _chunks(
    values: np.ndarray, available: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """First visits and differences (patient, feature), some features at a time."""
    for start in range(0, values.shape[-1], CHUNK):
        block = values[..., start : start + CHUNK]
        known = np.where(available[:, None, None], block, 0).astype(np.float64)
        yield known[:, 0], known[:, 1] - known[:, 0]


@dataclass(frozen=True, eq=False)
class ConfoundRegression:
    """Linear maps (n, n) that remove the training patients' regression on confounds.

    from_difference: what is left of the differences is from_difference @ difference;
    from_first: what is left of first visits is first − from_first @ difference
    """

    from_difference: np.ndarray
    from_first: np.ndarray

    @staticmethod
    def of(confounds: np.ndarray | None, training: np.ndarray) -> ConfoundRegression:
        """confounds: (patient, visit, confound); training (patient,): on whom the
        regression is fitted."""
        n = len(training)
        if confounds is None:
            return ConfoundRegression(np.eye(n), np.zeros((n, n)))
        change = confounds[:, 1] - confounds[:, 0]
        slope = np.zeros((change.shape[1], n))
        # Confounds that (nearly) repeat each other are regressed out once.
        slope[:, training] = np.linalg.pinv(change[training], rcond=1e-8)
        return ConfoundRegression(np.eye(n) - change @ slope, confounds[:, 0] @ slope)

    def removed_from(self, products: PairedProducts) -> PairedProducts:
        """Inner products of what is left."""
        left = self.from_difference
        cross = products.cross - self.from_first @ products.gram
        return PairedProducts(left @ products.gram @ left.T, cross @ left.T)
