"""Columns of participants.tsv that an evaluation asks for: where people were seen, and
what is regressed out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io import Cohort
from cingulum.pipeline.measurement import CONTROLS


def check_columns(cohort: Cohort, site: str | None, confounds: Sequence[str]) -> None:
    """Raises InputError for a site or confounds (controls apart: they are measured)
    that are not told of everybody."""
    people = rows_of(cohort, cohort.participants)
    if site is not None:
        sites_of(people, site)
    for name in confounds:
        if name not in CONTROLS:
            number_of(name, people, CONTROLS)


def rows_of(cohort: Cohort, patients: Sequence[str]) -> pd.DataFrame:
    """A row of participants.tsv for each patient, by label."""
    return cohort.people.set_index(
        cohort.people["participant_id"].str.removeprefix("sub-")
    ).loc[list(patients)]


def sites_of(people: pd.DataFrame, column: str) -> np.ndarray:
    """(patient,) where each was seen."""
    if column not in people:
        raise InputError(
            f"participants.tsv has no column {column!r}; it has "
            f"{', '.join(map(str, people.columns))}."
        )
    gaps = [f"sub-{name}" for name in people.index[people[column].isna()]]
    if gaps:
        raise InputError(
            f"participants.tsv: {column} (the site) is not told of "
            f"{', '.join(gaps[:5])}"
            f"{' and others' if len(gaps) > 5 else ''}; fill it in, or leave them out."
        )
    sites = people[column].astype(str)
    if sites.value_counts().max() == 1:
        raise InputError(
            f"participants.tsv: every participant has another {column}; ratings are "
            "exchanged inside "
            "sites, so that each needs several."
        )
    return sites.to_numpy()


def number_of(name: str, people: pd.DataFrame, controls: Sequence[str]) -> np.ndarray:
    """(patient,) of a column of participants.tsv: numbers, or two groups."""
    if name not in people:
        known = [*controls, *map(str, people.columns)]
        raise InputError(f"Unknown confound {name!r}. Known are {', '.join(known)}.")
    column = people[name]
    values = pd.to_numeric(column, errors="coerce")
    if values.isna().any() and column.notna().all() and column.nunique() == 2:
        values = (column == column.iloc[0]).astype(float)
    if values.isna().any():
        first = f"sub-{values.index[values.isna()][0]}"
        raise InputError(
            f"Confound {name!r} of participants.tsv must be numbers or two groups, and "
            "complete; it is "
            f"not for {first}."
        )
    return values.to_numpy(float)
