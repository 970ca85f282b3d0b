"""Quality of a cohort's recordings: the measures, and the visits that are far from the
others."""

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
    table = _visits(cohort)
    for name in _with_role(Role.CONTROL):
        if name in features.values:
            # Values are in the order of the rows: patients, then their visits.
            table[name] = features.values[name].ravel()
    for name in [*_with_role(Role.QUALITY), *_with_role(Role.DESCRIPTIVE)]:
        if name in features.shown:
            table = table.join(_named_columns(name, features.shown[name]))
    return table


def _visits(cohort: Cohort) -> pd.DataFrame:
    """Participant and session of every visit, as BIDS writes them."""
    order = cohort.ratings.sort_values(["participant", "state"])
    participants = [f"sub-{label}" for label in order["participant"]]
    sessions = [_session_id(label) for label in order["session"]]
    return pd.DataFrame({"participant_id": participants, "session_id": sessions})


def _session_id(label: str) -> str | float:
    # BIDS has no label for the session of a dataset without sessions.
    if not label:
        return np.nan
    return f"ses-{label}"


def _with_role(role: Role) -> list[str]:
    """Features of a role, in the order of the registry."""
    return [name for name, feature in FEATURES.items() if feature.role is role]


def _named_columns(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Columns named as in the table of `cingulum features`."""
    names = [slug(f"{name} {column}") for column in table.columns]
    return table.set_axis(names, axis=1)


def quality_section(table: pd.DataFrame) -> QualitySection:
    """Visits that are far from the others in some measure."""
    measures = list(table.columns[IDENTIFIERS:])
    outliers = []
    for measure in measures:
        outliers += _outliers(table, measure)
    return QualitySection(FAR, measures, outliers)


def _outliers(table: pd.DataFrame, measure: str) -> list[Outlier]:
    values = table[measure].to_numpy(float)
    # Some recordings lack a measure throughout, such as noise of cleaned signals.
    if not np.isfinite(values).any():
        return []
    median = float(np.nanmedian(values))
    outliers = []
    for i in np.flatnonzero(far_out(values)):
        visit = _visit_name(table.iloc[i])
        outliers.append(Outlier(visit, measure, values[i], median))
    return outliers


def _visit_name(row: pd.Series) -> str:
    # A missing session leaves the participant alone.
    labels = row.iloc[:IDENTIFIERS].dropna()
    return " ".join(str(label) for label in labels)
