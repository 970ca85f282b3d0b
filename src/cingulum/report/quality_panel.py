"""Quality of a cohort's recordings: what was measured, and which visits are far from
the others."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cingulum.features import FEATURES, Role
from cingulum.features.cohort_features import CohortFeatures
from cingulum.io.cohort import Cohort
from cingulum.io.files import slug
from cingulum.report.feature_overview import FAR, far_out
from cingulum.report.results import Outlier, QualitySection

IDENTIFIERS = 2
"""Columns of the quality table that name the visit."""


def quality_table(features: CohortFeatures, cohort: Cohort) -> pd.DataFrame:
    """A row per visit: participant_id, session_id, features that are controls, and the
    columns of those that are only shown."""
    order = cohort.ratings.sort_values(["participant", "state"])
    sessions = [f"ses-{label}" if label else np.nan for label in order["session"]]
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{label}" for label in order["participant"]],
            "session_id": sessions,
        }
    )
    for name, feature in FEATURES.items():
        if feature.role is Role.CONTROL and name in features.values:
            table[name] = features.values[name].ravel()
    for role in (Role.QUALITY, Role.DESCRIPTIVE):
        for name, feature in FEATURES.items():
            if feature.role is role and name in features.shown:
                table = table.join(_named_columns(name, features.shown[name]))
    return table


def _named_columns(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Columns named as in the table of `cingulum features`."""
    names = [slug(f"{name} {column}") for column in table.columns]
    return table.set_axis(names, axis=1)


def quality_section(table: pd.DataFrame) -> QualitySection:
    """Visits that are far from the others in some measure."""
    measures = list(table.columns[IDENTIFIERS:])
    outliers = []
    for measure in measures:
        values = table[measure].to_numpy(float)
        median = float(np.nanmedian(values))
        for i in np.flatnonzero(far_out(values)):
            visit = _visit_name(table.iloc[i])
            outliers.append(Outlier(visit, measure, values[i], median))
    return QualitySection(FAR, measures, outliers)


def _visit_name(row: pd.Series) -> str:
    labels = row.iloc[:IDENTIFIERS].dropna()
    return " ".join(str(label) for label in labels)
