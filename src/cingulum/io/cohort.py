"""Who was seen, when, and what they said: participants, their two visits in order, and
the rating at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import read_table
from cingulum.io.visit import Visit, visits


@dataclass(frozen=True)
class Cohort:
    """Visits of all participants, two each: first the lower, then the higher state, as
    the sessions table orders them.

    ratings: one row a visit: participant, session, state (0 first, 1 second), pain
        (0–100)
    people: participants.tsv
    left_out: participants that cannot be analysed, with the reason
    absent: rows of participants.tsv without any visit that could be read
    """

    visits: tuple[Visit, ...]
    ratings: pd.DataFrame
    people: pd.DataFrame
    left_out: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @property
    def participants(self) -> list[str]:
        return sorted({visit.participant for visit in self.visits})

    def without(self, reasons: Mapping[str, str]) -> Cohort:
        """The cohort without some participants. Raises InputError, with the first
        reason, where nobody is left."""
        gone = set(reasons)
        ratings = self.ratings[~self.ratings["participant"].isin(gone)].reset_index(
            drop=True
        )
        if ratings.empty and reasons:
            raise InputError(
                f"No participant can be analysed. The first, sub-{min(reasons)}: "
                f"{reasons[min(reasons)]}"
            )
        people = self.people[
            ~self.people["participant_id"].str.removeprefix("sub-").isin(gone)
        ].reset_index(drop=True)
        visits = tuple(visit for visit in self.visits if visit.participant not in gone)
        return Cohort(
            visits, ratings, people, {**self.left_out, **reasons}, self.absent
        )


def read_cohort(
    root: Path,
    participants: Sequence[str] | None = None,
    *,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    derivatives: Sequence[Path] = (),
) -> Cohort:
    """Read a dataset with two visits a participant; options as for `visits`.

    A participant with fewer or more than two visits, or without a rating, is left out
    and told in `left_out`. Raises InputError where nobody is left.
    """
    found = visits(
        root, participants, sessions=sessions, filters=filters, derivatives=derivatives
    )
    people = read_table(Path(root) / "participants.tsv", dtype={"participant_id": str})
    tables, left_out, sessions_of = [], {}, _sessions(found)
    for participant in sorted(sessions_of):
        try:
            tables.append(_ratings(Path(root), participant, sessions_of[participant]))
        except InputError as trouble:
            left_out[participant] = str(trouble)
    empty = pd.DataFrame(columns=["participant", "session", "state", "pain"])
    ratings = pd.concat(tables, ignore_index=True) if tables else empty
    here = sorted({visit.participant for visit in found})
    named = (
        []
        if participants
        else people.get("participant_id", pd.Series(dtype=str)).dropna().astype(str)
    )
    absent = sorted({name.removeprefix("sub-") for name in named} - set(here))
    people = _people(Path(root), people, here)
    return Cohort(tuple(found), ratings, people, absent=tuple(absent)).without(left_out)


def _people(root: Path, table: pd.DataFrame, participants: list[str]) -> pd.DataFrame:
    """A row of participants.tsv for each participant, empty for one that is not in it;
    labels with or without `sub-`.

    Raises InputError for a table without participant_id, or a participant with two
    rows.
    """
    path = root / "participants.tsv"
    if "participant_id" not in table:
        raise InputError(
            f"{path}: expected a column participant_id; came "
            f"{', '.join(map(str, table))}."
        )
    table = table.assign(
        participant_id="sub-"
        + table["participant_id"].astype(str).str.removeprefix("sub-")
    )
    twice = sorted(
        set(table.loc[table["participant_id"].duplicated(), "participant_id"])
    )
    if twice:
        raise InputError(
            f"{path}: {', '.join(twice[:5])} has more than one row; leave one."
        )
    return pd.DataFrame({"participant_id": [f"sub-{p}" for p in participants]}).merge(
        table, how="left"
    )


def _sessions(found: Sequence[Visit]) -> dict[str, list[str]]:
    """By participant."""
    by: dict[str, list[str]] = {}
    for visit in found:
        by.setdefault(visit.participant, []).append(visit.session)
    return by


def _ratings(root: Path, participant: str, sessions: list[str]) -> pd.DataFrame:
    if len(sessions) != 2:
        raise InputError(
            f"sub-{participant} has {len(sessions)} visit(s) "
            f"({', '.join('ses-' + s for s in sessions)}); the paired "
            "design needs two. Leave the participant out with --participant-label, or "
            "add the missing visit."
        )
    path = root / f"sub-{participant}" / f"sub-{participant}_sessions.tsv"
    table = read_table(path, dtype={"session_id": str})
    if not {"session_id", "pain"} <= set(table):
        raise InputError(
            f"{path}: expected the columns session_id and pain; came "
            f"{', '.join(table)}."
        )
    table = table.assign(session=table["session_id"].str.removeprefix("ses-"))
    table = table[table["session"].isin(sessions)].assign(
        pain=lambda t: pd.to_numeric(t["pain"], errors="coerce")
    )
    if len(table) != 2 or not table["pain"].between(0, 100).all():
        raise InputError(
            f"{path}: expected a pain rating from 0 to 100 for each of "
            f"{', '.join(sessions)}."
        )
    return pd.DataFrame(
        {
            "participant": participant,
            "session": table["session"].to_numpy(),
            "state": [0, 1],
            "pain": table["pain"].to_numpy(float),
        }
    )


def in_order(root: Path, found: Sequence[Visit]) -> list[tuple[str, str, float]]:
    """Participant, session and pain (NaN where unknown), in the order of the sessions
    tables or else of the labels."""
    rows = []
    for participant, sessions in sorted(_sessions(found).items()):
        mine = sorted(sessions)
        path = Path(root) / f"sub-{participant}" / f"sub-{participant}_sessions.tsv"
        pain: dict[str, float] = {}
        if path.is_file():
            table = read_table(path, dtype={"session_id": str})
            if "session_id" in table:
                labels = table["session_id"].str.removeprefix("ses-").tolist()
                mine = [s for s in labels if s in mine] + [
                    s for s in mine if s not in labels
                ]
                if "pain" in table:
                    pain = dict(
                        zip(
                            labels,
                            pd.to_numeric(table["pain"], errors="coerce"),
                            strict=True,
                        )
                    )
        rows += [(participant, s, float(pain.get(s, np.nan))) for s in mine]
    return rows


def in_time(root: Path, found: Sequence[Visit]) -> list[Visit]:
    """Visits by participant, in the order of the sessions tables; in that of the labels
    where a table is damaged."""
    by = {(visit.participant, visit.session): visit for visit in found}
    ordered = []
    for participant, sessions in sorted(_sessions(found).items()):
        mine = [by[participant, session] for session in sessions]
        try:
            ordered += [by[p, s] for p, s, _ in in_order(root, mine)]
        except InputError:
            ordered += sorted(mine, key=lambda visit: visit.session)
    return ordered
