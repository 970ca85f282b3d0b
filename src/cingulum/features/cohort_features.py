"""Features of a whole cohort, as predictions and reports take them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cingulum.signals.atlas import Atlas, pain_atlas


@dataclass(frozen=True, eq=False)
class CohortFeatures:
    """Features of a whole cohort.

    values: by feature, (patient, visit, column), visits in the order first, second
    columns: by feature, names of the columns; for maps the voxel's index in the
        flattened grid
    units: by feature
    grids: for maps, shape and affine
    evidence: what a feature tells beside its columns (for the mechanism, the fits)
    flagged: what readers should know of recordings, and of which visits; equations: of
        quantified blood flow
    sources: SHA-256 of the recordings that every measurement was made from
    told: by feature, tables (a row a visit) that are shown and not predicted from:
        quality, heart, fitted parameters
    units_of: by column of those tables; atlas: regions of the fitted brains
    lacking: by participant that is analysed without some feature, by that feature, why
    """

    values: dict[str, np.ndarray]
    columns: dict[str, list[str]]
    units: dict[str, str]
    grids: dict[str, tuple[tuple[int, ...], np.ndarray]]
    patients: list[str]
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    flagged: dict[str, set[str]] = field(default_factory=dict)
    equations: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    told: dict[str, pd.DataFrame] = field(default_factory=dict)
    units_of: dict[str, dict[str, Any]] = field(default_factory=dict)
    atlas: Atlas = field(default_factory=pain_atlas)
    lacking: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, int]:
        """What readers should know of recordings, and of how many visits."""
        return {flag: len(visits) for flag, visits in self.flagged.items()}

    def table(self, ratings: pd.DataFrame) -> pd.DataFrame:
        """One row a visit: the rating, and every feature that is not a map."""
        table = ratings.sort_values(["participant", "state"]).reset_index(drop=True)
        for name in (name for name in self.values if name not in self.grids):
            flat = self.values[name].reshape(len(table), -1)
            heads = (
                [name]
                if flat.shape[1] == 1
                else [f"{name} {column}" for column in self.columns[name]]
            )
            table = table.join(pd.DataFrame(flat, columns=heads))
        return table
