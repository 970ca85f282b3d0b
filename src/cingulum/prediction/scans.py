"""Scans as rows of a regression: whose they are, in which state, what was rated, and
which patients leave together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cingulum.errors import InputError


@dataclass(frozen=True, eq=False)
class Scans:
    """One entry a scan. patient, state: whole numbers; rating: what is to be predicted;
    site: of the patient; names: of the patients."""

    patient: np.ndarray
    state: np.ndarray
    rating: np.ndarray
    names: list[str]
    site: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not np.isfinite(self.rating).all():
            raise InputError(
                f"Ratings: {int((~np.isfinite(self.rating)).sum())} are missing. Leave "
                "those scans out."
            )
        if np.ptp(self.rating) == 0:
            raise InputError(
                f"Ratings are all {self.rating[0]:g}: there is nothing to predict."
            )

    def folds(self, wanted: int | None, rng: np.random.Generator) -> np.ndarray:
        """Fold of each patient; None: one patient at a time."""
        n = len(self.names)
        if wanted is None:
            return np.arange(n)
        if not 2 <= wanted <= n:
            raise InputError(
                f"folds is between 2 and the number of patients, {n}; came {wanted}."
            )
        return rng.permutation(n) % wanted

    def exchanged(self, times: int, rng: np.random.Generator) -> np.ndarray:
        """Ratings (scan, times): whole patients exchange all their ratings with a
        patient of the same site and with as many scans in the same states."""
        n = len(self.names)
        rows = [np.flatnonzero(self.patient == i) for i in range(n)]
        rows = [r[np.argsort(self.state[r], kind="stable")] for r in rows]
        site = (
            np.zeros(n, int)
            if self.site is None
            else np.unique(self.site, return_inverse=True)[1]
        )
        alike: dict[tuple, list[int]] = {}
        for i in range(n):
            alike.setdefault((int(site[i]), *self.state[rows[i]].tolist()), []).append(
                i
            )
        found = np.repeat(self.rating[:, None], times, axis=1)
        for members in alike.values():
            block = np.stack([rows[i] for i in members])  # (patient, scan)
            order = rng.permuted(
                np.tile(np.arange(len(members)), (times, 1)), axis=1
            )  # (times, patient)
            found[block.ravel()] = (
                self.rating[block[order]].reshape(times, block.size).T
            )
        return found


def of_pairs(
    ratings: np.ndarray, patients: list[str], sites: np.ndarray | None = None
) -> Scans:
    """ratings (patient, visit): rows go patient by patient, visit by visit."""
    n, visits = ratings.shape
    return Scans(
        np.repeat(np.arange(n), visits),
        np.tile(np.arange(visits), n),
        ratings.astype(float).ravel(),
        patients,
        sites,
    )
