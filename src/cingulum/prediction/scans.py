"""Scans as rows of a regression: of which patient, in which state, with which rating,
and which patients are left out together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.permutation import dealt_into_folds, exchanges


@dataclass(frozen=True, eq=False)
class Scans:
    """One entry per scan. patient, state: whole numbers; rating: what is to be
    predicted; names, site: one entry per patient."""

    patient: np.ndarray
    state: np.ndarray
    rating: np.ndarray
    names: list[str]
    site: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_known(self.rating)
        _check_varying(self.rating)

    def rows_of(self, patient: int) -> np.ndarray:
        """Rows of a patient's scans, by state."""
        rows = np.flatnonzero(self.patient == patient)
        # Stable, so that scans in the same state keep the order of the table.
        return rows[np.argsort(self.state[rows], kind="stable")]

    def folds(self, number: int | None, rng: np.random.Generator) -> np.ndarray:
        """Fold of each patient (patient,); with None, one patient is left out at a
        time."""
        return dealt_into_folds(len(self.names), number, rng)

    def exchanged(self, times: int, rng: np.random.Generator) -> np.ndarray:
        """Permuted ratings (scan, times): whole patients exchange all their ratings
        with a patient of the same site and with as many scans in the same states."""
        ratings = np.repeat(self.rating[:, None], times, axis=1)
        for rows in self._exchangeable():
            order = exchanges(times, len(rows), rng)  # (times, patient)
            permuted = self.rating[rows[order]]  # (times, patient, scan)
            # Ratings move with their states: what the state alone predicts is kept.
            ratings[rows.ravel()] = permuted.reshape(times, rows.size).T
        return ratings

    def _exchangeable(self) -> list[np.ndarray]:
        """Rows (patient, scan) of each group of patients that may exchange ratings."""
        groups: dict[tuple[int, ...], list[np.ndarray]] = {}
        for patient, site in enumerate(self._site_numbers().tolist()):
            rows = self.rows_of(patient)
            groups.setdefault(self._condition(site, rows), []).append(rows)
        return [np.stack(rows) for rows in groups.values()]

    def _condition(self, site: int, rows: np.ndarray) -> tuple[int, ...]:
        # Site and states, so that ratings of other conditions never mix.
        return site, *self.state[rows].tolist()

    def _site_numbers(self) -> np.ndarray:
        """Site of each patient as a whole number; one site where none are named."""
        if self.site is None:
            return np.zeros(len(self.names), int)
        return np.unique(self.site, return_inverse=True)[1]


def _check_known(rating: np.ndarray) -> None:
    missing = int((~np.isfinite(rating)).sum())
    if missing:
        raise InputError(f"Ratings: {missing} are missing. Leave those scans out.")


def _check_varying(rating: np.ndarray) -> None:
    # A constant is predicted without error by any model.
    if np.ptp(rating) == 0:
        raise InputError(f"Ratings are all {rating[0]:g}: there is nothing to predict.")


def paired_scans(
    ratings: np.ndarray, patients: list[str], sites: np.ndarray | None = None
) -> Scans:
    """Scans of ratings (patient, visit): patient by patient, visit by visit."""
    n, visits = ratings.shape
    return Scans(
        patient=np.repeat(np.arange(n), visits),
        state=np.tile(np.arange(visits), n),
        rating=ratings.astype(float).ravel(),
        names=patients,
        site=sites,
    )
