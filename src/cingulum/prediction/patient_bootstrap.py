"""Uncertainty of a finite number of patients: statistics of patients drawn with
replacement. Models are not refitted: it is the uncertainty of the patients under test,
whose decisions are fixed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cingulum.prediction.compiled_statistics import mirrored_auc, two_sample_auc
from cingulum.prediction.statistics import resamples


@dataclass(frozen=True, eq=False)
class PatientResamples:
    """Rows of resampled patients, one array per resample."""

    rows: list[np.ndarray]

    @staticmethod
    def draw(
        n: int, blocks: np.ndarray | None, rng: np.random.Generator, times: int
    ) -> PatientResamples:
        """Of n patients; blocks (families) are drawn whole."""
        if blocks is None:
            return PatientResamples(list(resamples(n, rng, times)))
        members = _members(blocks)
        rows = []
        for drawn in resamples(len(members), rng, times):
            rows.append(np.concatenate([members[i] for i in drawn]))
        return PatientResamples(rows)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Means of values (patient,), without NaN; NaN for a resample of nobody."""
        known = np.isfinite(values)
        if known.all() and self._equally_long:
            return values[np.stack(self.rows)].mean(1)
        # Zeros in place of NaN, which leave a sum as it is.
        sums = self._sums(np.where(known, values, 0))
        counts = self._sums(known)
        unknown = np.full(len(self.rows), np.nan)
        return np.divide(sums, counts, out=unknown, where=counts > 0)

    def _sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of each resample; their lengths may differ."""
        return np.array([values[rows].sum() for rows in self.rows])

    def mirrored_auc(self, decisions: np.ndarray) -> np.ndarray:
        """AUCs of the mirrored decisions (patient,)."""
        known = np.isfinite(decisions)
        return self._statistic(known, lambda rows: mirrored_auc(decisions[rows]))

    def single_scan_auc(self, scans: np.ndarray) -> np.ndarray:
        """AUCs of second visits against first ones; scans: (patient, visit)."""
        known = np.isfinite(scans[:, 0])
        return self._statistic(
            known, lambda rows: two_sample_auc(scans[rows, 1], scans[rows, 0])
        )

    @property
    def _equally_long(self) -> bool:
        return len({len(rows) for rows in self.rows}) == 1

    def _statistic(
        self, known: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """statistic: (resample,) of rows (resample, patient). All resamples at once
        where each has as many patients, since that is much faster."""
        if known.all() and self._equally_long:
            return statistic(np.stack(self.rows))
        return np.array([_of_known(rows[known[rows]], statistic) for rows in self.rows])


def _members(blocks: np.ndarray) -> list[np.ndarray]:
    """Rows of the patients of each block."""
    return [np.flatnonzero(blocks == block) for block in np.unique(blocks)]


def _of_known(rows: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> float:
    """The statistic of one resample; NaN where it drew nobody with data."""
    if not len(rows):
        return float("nan")
    return float(statistic(rows[None])[0])
