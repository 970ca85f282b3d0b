"""Scans as rows of a regression: of which patient, in which state, with which rating,
and which patients are left out together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.permutation import dealt_into_folds, exchanges

MOST_ALONE = 0.5
"""Share of scans without a partner for an exchange above which there is no test."""


@dataclass(frozen=True, eq=False)
class Scans:
    """One entry per scan. patient, state: whole numbers; rating: what is to be
    predicted; names, site, family: one entry per patient.

    A family is left out together, and exchanges its ratings as a whole.
    """

    patient: np.ndarray
    state: np.ndarray
    rating: np.ndarray
    names: list[str]
    site: np.ndarray | None = None
    family: np.ndarray | None = None

    def __post_init__(self) -> None:
        _check_known(self.rating)
        _check_varying(self.rating)

    def rows_of(self, patient: int) -> np.ndarray:
        """Rows of a patient's scans, by state."""
        rows = np.flatnonzero(self.patient == patient)
        # Stable, so that scans in the same state keep the order of the table.
        return rows[np.argsort(self.state[rows], kind="stable")]

    def folds(self, number: int | None, rng: np.random.Generator) -> np.ndarray:
        """Fold of each patient (patient,); with None, one patient, or one family, is
        left out at a time."""
        if self.family is None:
            return dealt_into_folds(len(self.names), number, rng)
        families, member = np.unique(self.family, return_inverse=True)
        return dealt_into_folds(len(families), number, rng)[member]

    def exchanged(self, times: int, rng: np.random.Generator) -> np.ndarray:
        """Permuted ratings (scan, times): whole patients exchange all their ratings
        with a patient of the same site and with as many scans in the same states; of
        families, whole families with those of as many members.

        Raises InputError where hardly anybody has somebody to exchange with.
        """
        ratings = np.repeat(self.rating[:, None], times, axis=1)
        for rows in self._exchangeable():
            order = exchanges(times, len(rows), rng)  # (times, patient)
            permuted = self.rating[rows[order]]  # (times, patient, scan)
            # Ratings move with their states: what the state alone predicts is kept.
            ratings[rows.ravel()] = permuted.reshape(times, rows.size).T
        return ratings

    def _exchangeable(self) -> list[np.ndarray]:
        """Rows (unit, scan) of each group of patients or families that may exchange
        ratings."""
        groups: dict[tuple[int, ...], list[np.ndarray]] = {}
        sites = self._site_numbers()
        for members in self._units():
            rows = [self.rows_of(patient) for patient in members]
            # By their states: members with other scans must not change places.
            rows.sort(key=lambda own: self.state[own].tolist())
            condition = self._condition(sites[members[0]], rows)
            groups.setdefault(condition, []).append(np.concatenate(rows))
        stacked = [np.stack(rows) for rows in groups.values()]
        self._check_partners(stacked)
        return stacked

    def _units(self) -> list[np.ndarray]:
        """The patients of each unit that is exchanged."""
        if self.family is None:
            return [np.array([patient]) for patient in range(len(self.names))]
        member = np.unique(self.family, return_inverse=True)[1]
        return [np.flatnonzero(member == unit) for unit in range(member.max() + 1)]

    def _condition(self, site: int, rows: list[np.ndarray]) -> tuple[int, ...]:
        # Site and states, so that ratings of other conditions never mix; -1 between
        # the members of a family.
        states = [value for own in rows for value in (*self.state[own].tolist(), -1)]
        return int(site), *states

    def _check_partners(self, groups: list[np.ndarray]) -> None:
        alone = sum(rows.size for rows in groups if len(rows) == 1)
        if alone > MOST_ALONE * len(self.rating):
            raise InputError(
                f"{alone} of {len(self.rating)} scans have nobody to exchange their "
                "outcome with (same site, as many members of the family, same "
                "visits): no permutation test is possible. Leave out --site or "
                "--family, or join small sites."
            )

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
    ratings: np.ndarray,
    patients: list[str],
    sites: np.ndarray | None = None,
    families: np.ndarray | None = None,
) -> Scans:
    """Scans of ratings (patient, visit): patient by patient, visit by visit."""
    n, visits = ratings.shape
    return Scans(
        patient=np.repeat(np.arange(n), visits),
        state=np.tile(np.arange(visits), n),
        rating=ratings.astype(float).ravel(),
        names=patients,
        site=sites,
        family=families,
    )
