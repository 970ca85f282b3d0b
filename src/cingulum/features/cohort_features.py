"""Features of a whole cohort, as predictions and reports take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from cingulum.brain.connectome import Connectome
from cingulum.features.feature import Column
from cingulum.signals.atlas import Atlas, pain_atlas


class Grid(NamedTuple):
    """Shape of a map, and the affine from its voxels to mm."""

    shape: tuple[int, ...]
    affine: np.ndarray


@dataclass(frozen=True, eq=False)
class FitEvidence:
    """What the brains fitted to the visits of a cohort look like.

    fc, recorded: modelled and recorded connectivity (visit, region, region)
    fc_r: their correlation (visit,); loop_gain: (visit,)
    connectome: of the model
    """

    fc: np.ndarray
    recorded: np.ndarray
    fc_r: np.ndarray
    loop_gain: np.ndarray
    connectome: Connectome


@dataclass(frozen=True, eq=False)
class CohortFeatures:
    """Features of a whole cohort.

    values: by feature or control, (patient, visit, column), visits in the order first,
        second
    columns: by feature, names of the columns; for maps the voxel's index in the
        flattened grid
    units: by feature
    grids: of maps
    patients: labels, in the order of `values`
    evidence: by feature that is fitted, its fits
    flagged: what readers should know of recordings, and of which visits
    equations: of quantified blood flow
    sources: SHA-256 of the recordings that every measurement was made from
    shown: by feature, tables (a row per visit) that are shown and not predicted from:
        quality, heart, fitted parameters
    column_units: by column of those tables
    fitted_columns: by feature that is fitted, its estimated parameters in the order of
        `columns`
    atlas: regions of the fitted brains
    lacking: by participant that is analysed without some feature, by that feature, why
    """

    values: Mapping[str, np.ndarray]
    columns: Mapping[str, list[str]]
    units: Mapping[str, str]
    grids: Mapping[str, Grid]
    patients: list[str]
    evidence: Mapping[str, FitEvidence] = field(default_factory=dict)
    flagged: Mapping[str, set[str]] = field(default_factory=dict)
    equations: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    shown: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    column_units: Mapping[str, str] = field(default_factory=dict)
    fitted_columns: Mapping[str, list[Column]] = field(default_factory=dict)
    atlas: Atlas = field(default_factory=pain_atlas)
    lacking: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def flags(self) -> dict[str, int]:
        """What readers should know of recordings, and of how many visits."""
        return {flag: len(visits) for flag, visits in self.flagged.items()}

    def table(self, ratings: pd.DataFrame) -> pd.DataFrame:
        """One row per visit: the rating, and every feature that is not a map."""
        table = ratings.sort_values(["participant", "state"]).reset_index(drop=True)
        for name, values in self.values.items():
            # A column per voxel would be no table for people.
            if name in self.grids:
                continue
            flat = values.reshape(len(table), -1)
            # A feature of one number is a column by the feature's own name.
            heads = [name]
            if flat.shape[1] > 1:
                heads = [f"{name} {column}" for column in self.columns[name]]
            table = table.join(pd.DataFrame(flat, columns=heads))
        return table
