"""Columns that a table of features lacks, from the tables of its BIDS dataset: what a
session or a participant was like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import read_table

PARTICIPANT, SESSION = "participant_id", "session_id"


def with_bids_columns(
    table: pd.DataFrame, dataset: Path, columns: Sequence[str]
) -> pd.DataFrame:
    """The table with those of the columns that it lacks, from sub-*_sessions.tsv or
    else participants.tsv.

    Raises InputError where the table does not say whose scan a row is.
    """
    wanted = [name for name in dict.fromkeys(columns) if name not in table]
    if not wanted:
        return table
    if PARTICIPANT not in table:
        raise InputError(
            f"--bids needs the column {PARTICIPANT} in the table, to know whose scan a "
            "row is."
        )
    by_session = _sessions(dataset, table[PARTICIPANT].dropna().unique())
    table = _joined(table, by_session, wanted, [PARTICIPANT, SESSION])
    people = dataset / "participants.tsv"
    if people.is_file():
        by_person = read_table(people, dtype={PARTICIPANT: str})
        table = _joined(table, by_person, wanted, [PARTICIPANT])
    return table


def _sessions(dataset: Path, participants: Sequence[str]) -> pd.DataFrame:
    tables = []
    for participant in participants:
        label = str(participant).removeprefix("sub-")
        path = dataset / f"sub-{label}" / f"sub-{label}_sessions.tsv"
        if path.is_file():
            sessions = read_table(path, dtype={SESSION: str})
            tables.append(sessions.assign(**{PARTICIPANT: participant}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _joined(
    table: pd.DataFrame, other: pd.DataFrame, wanted: Sequence[str], by: list[str]
) -> pd.DataFrame:
    new = [name for name in wanted if name in other and name not in table]
    if not new or not set(by) <= set(other) & set(table):
        return table
    keyed = other.drop_duplicates(by)[[*by, *new]]
    return table.merge(keyed, on=by, how="left")
