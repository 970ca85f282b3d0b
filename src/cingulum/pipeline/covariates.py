"""Columns of participants.tsv that an evaluation asks for: where people were scanned,
to which family they belong, and what is regressed out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features.registry import control_names
from cingulum.io.cohort import Cohort
from cingulum.io.files import as_numbers

LISTED = 5
"""Participants that an error message names."""


def check_columns(
    cohort: Cohort, site: str | None, family: str | None, confounds: Sequence[str]
) -> None:
    """Raises InputError for a site, a family or confounds (controls apart: they are
    measured) that some participant lacks."""
    people = participant_rows(cohort, cohort.participants)
    if site is not None:
        site_labels(people, site)
    if family is not None:
        family_labels(people, family)
    _check_confounds(people, confounds)


def _check_confounds(people: pd.DataFrame, confounds: Sequence[str]) -> None:
    # Controls are columns of features, and known only after measuring.
    controls = control_names()
    for name in confounds:
        if name not in controls:
            confound_values(name, people, controls)


def participant_rows(cohort: Cohort, participants: Sequence[str]) -> pd.DataFrame:
    """A row of participants.tsv for each participant, by label."""
    labels = cohort.people["participant_id"].str.removeprefix("sub-")
    return cohort.people.set_index(labels).loc[list(participants)]


def site_labels(people: pd.DataFrame, column: str) -> np.ndarray:
    """(patient,) where each was scanned.

    Raises InputError for a column that is missing, incomplete, or different for
    everybody.
    """
    sites = _complete_column(people, column, "the site")
    # A label of a participant, or a date: no site.
    if sites.value_counts().max() == 1:
        raise InputError(
            f"participants.tsv: every participant has another {column}; ratings are "
            "exchanged inside sites, so that each needs several."
        )
    return sites.to_numpy()


def family_labels(people: pd.DataFrame, column: str) -> np.ndarray:
    """(patient,) the family of each; people without relatives have one of their own.

    Raises InputError for a column that is missing or incomplete.
    """
    return _complete_column(people, column, "the family").to_numpy()


def _complete_column(people: pd.DataFrame, column: str, meaning: str) -> pd.Series:
    """A column as text, known for everybody."""
    if column not in people:
        known = ", ".join(map(str, people.columns))
        raise InputError(f"participants.tsv has no column {column!r}; it has {known}.")
    _check_no_gaps(people, column, meaning)
    return people[column].astype(str)


def _check_no_gaps(people: pd.DataFrame, column: str, meaning: str) -> None:
    gaps = [f"sub-{name}" for name in people.index[people[column].isna()]]
    if gaps:
        more = " and others" if len(gaps) > LISTED else ""
        raise InputError(
            f"participants.tsv: {column} ({meaning}) is missing for "
            f"{', '.join(gaps[:LISTED])}{more}; fill it in, or leave them out."
        )


def confound_values(
    name: str, people: pd.DataFrame, controls: Sequence[str]
) -> np.ndarray:
    """(patient,) of a column of participants.tsv: numbers, or two groups.

    controls: further names that the error for an unknown column lists
    """
    if name not in people:
        known = [*controls, *map(str, people.columns)]
        raise InputError(f"Unknown confound {name!r}. Known are {', '.join(known)}.")
    values = _as_numbers(people[name])
    unknown = values.index[values.isna()]
    if len(unknown):
        raise InputError(
            f"Confound {name!r} of participants.tsv must be numbers or two groups, and "
            f"complete; it is not for sub-{unknown[0]}."
        )
    return values.to_numpy(float)


def _as_numbers(column: pd.Series) -> pd.Series:
    """A column as numbers, two groups as 0 and 1; NaN for what is neither."""
    values = as_numbers(column)
    is_two_groups = column.notna().all() and column.nunique() == 2
    # Which group is 1 does not matter: a regression takes either out alike.
    if values.isna().any() and is_two_groups:
        return (column == column.iloc[0]).astype(float)
    return values
