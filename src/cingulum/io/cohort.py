"""A paired study on disk: participants, their two visits in order, and the pain rating
at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.bids_index import check_labels
from cingulum.io.files import as_numbers, read_table
from cingulum.io.outcome import PAIN, OutcomeTables, RatedOutcome, sessions_path
from cingulum.io.visit import Filters, Visit, visits

RATING_COLUMNS = ["participant", "session", "state", "pain"]


@dataclass(frozen=True)
class Cohort:
    """Visits of all participants, two each: first the lower, then the higher state, as
    the sessions table orders them.

    ratings: one row per visit: participant, session, state (0 first, 1 second), pain
        (the outcome, whatever it is called in its table)
    people: participants.tsv
    left_out: participants that cannot be analysed, with the reason
    absent: rows of participants.tsv without any visit that could be read
    outcome: what was rated
    """

    visits: tuple[Visit, ...]
    ratings: pd.DataFrame
    people: pd.DataFrame
    left_out: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    outcome: RatedOutcome = RatedOutcome()

    @property
    def participants(self) -> list[str]:
        return sorted({visit.participant for visit in self.visits})

    def without(self, reasons: Mapping[str, str]) -> Cohort:
        """The cohort without some participants, each with the reason. Raises
        InputError, with the first reason, where nobody is left."""
        ratings = _rows_without(self.ratings, self.ratings["participant"], reasons)
        # Without a reason there was no visit, which reading reports.
        if ratings.empty and reasons:
            raise InputError(_nobody_left(reasons))
        labels = self.people["participant_id"].str.removeprefix("sub-")
        return Cohort(
            tuple(visit for visit in self.visits if visit.participant not in reasons),
            ratings,
            _rows_without(self.people, labels, reasons),
            {**self.left_out, **reasons},
            self.absent,
            self.outcome,
        )


def _rows_without(
    table: pd.DataFrame, participants: pd.Series, left_out: Iterable[str]
) -> pd.DataFrame:
    """The rows of a table whose participant is not left out."""
    leaves = participants.isin(set(left_out))
    return table[~leaves].reset_index(drop=True)


def _nobody_left(reasons: Mapping[str, str]) -> str:
    first = min(reasons)
    return f"No participant can be analysed. The first, sub-{first}: {reasons[first]}"


class Rating(NamedTuple):
    """Pain (0–100, NaN where unknown) of a participant at a session."""

    participant: str
    session: str
    pain: float


def read_cohort(
    root: Path,
    participants: Sequence[str] | None = None,
    *,
    sessions: Sequence[str] | None = None,
    filters: Filters | None = None,
    derivatives: Sequence[Path] = (),
    outcome: RatedOutcome = RatedOutcome(),
) -> Cohort:
    """Read a dataset with two visits per participant; options as for `visits`.

    outcome: what is rated at each visit; `ratings` calls it pain

    A participant with fewer or more than two visits, or without a rating, is left out
    and listed in `left_out`. Raises InputError where nobody is left.
    """
    root = Path(root)
    readable = visits(
        root, participants, sessions=sessions, filters=filters, derivatives=derivatives
    )
    # As text, since 01 would be read as the number 1.
    table = read_table(_participants_path(root), dtype={"participant_id": str})
    ratings, left_out = _read_ratings(OutcomeTables(root, outcome), readable)
    labels = sorted(_sessions_of(readable))
    # Somebody who was not to be read is not absent.
    absent = [] if participants else _absent(table, labels)
    people = _people(root, table, labels)
    cohort = Cohort(
        tuple(readable), ratings, people, absent=tuple(absent), outcome=outcome
    )
    return cohort.without(left_out)


def _participants_path(root: Path) -> Path:
    return root / "participants.tsv"


def _read_ratings(
    outcomes: OutcomeTables, readable: Sequence[Visit]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Ratings of all participants that have two, and of the others the reason."""
    tables = []
    left_out = {}
    for participant, sessions in sorted(_sessions_of(readable).items()):
        # One participant's damaged table does not stop the others.
        try:
            ratings = _ratings(outcomes, participant, sessions)
            _check_changed(ratings, outcomes.outcome)
            tables.append(ratings)
        except InputError as error:
            left_out[participant] = str(error)
    return _stacked(tables), left_out


def _check_changed(ratings: pd.DataFrame, outcome: RatedOutcome) -> None:
    """Raises InputError where neither visit is the one with more pain."""
    if ratings[PAIN].nunique() < 2:
        which = "neither hurt more"
        if outcome.column != PAIN:
            which = f"neither has more {outcome.column}"
        raise InputError(f"{outcome.column} is the same at both visits: {which}")


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    # pandas refuses to stack nothing; the error for nobody left comes later.
    if not tables:
        return pd.DataFrame(columns=RATING_COLUMNS)
    return pd.concat(tables, ignore_index=True)


def _absent(table: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """Participants of the table without a visit."""
    if "participant_id" not in table:
        return []
    names = table["participant_id"].dropna().astype(str)
    return sorted(set(names.str.removeprefix("sub-")) - set(labels))


def _people(root: Path, table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """A row of participants.tsv for each participant, empty for those that are not in
    it; labels with or without `sub-`.

    Raises InputError for a table without participant_id, or a participant with two
    rows.
    """
    path = _participants_path(root)
    _check_columns(path, table, ("participant_id",))
    check_labels(path, table["participant_id"])
    # A table with a row a visit: of a person, what the first row says.
    if "session_id" in table:
        table = table.drop_duplicates("participant_id").drop(columns="session_id")
    names = _full_names(table["participant_id"])
    _check_one_row_each(path, names)
    # A row for everybody with a visit, so that rows and participants correspond.
    people = pd.DataFrame({"participant_id": [f"sub-{label}" for label in labels]})
    return people.merge(table.assign(participant_id=names), how="left")


def _full_names(participants: pd.Series) -> pd.Series:
    """Participants with `sub-`, which some tables leave out."""
    return "sub-" + participants.astype(str).str.removeprefix("sub-")


def _check_columns(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    if not set(columns) <= set(table):
        raise InputError(
            f"{path}: expected the column(s) {' and '.join(columns)}; got "
            f"{', '.join(map(str, table))}."
        )


def _check_one_row_each(path: Path, names: pd.Series) -> None:
    repeated = sorted(set(names[names.duplicated()]))
    if repeated:
        raise InputError(
            f"{path}: {', '.join(repeated[:5])} has more than one row; leave one."
        )


def _sessions_of(readable: Sequence[Visit]) -> dict[str, list[str]]:
    """Sessions by participant."""
    sessions: dict[str, list[str]] = {}
    for visit in readable:
        sessions.setdefault(visit.participant, []).append(visit.session)
    return sessions


def _ratings(
    tables: OutcomeTables, participant: str, sessions: list[str]
) -> pd.DataFrame:
    """Both rows of a participant, as in `Cohort.ratings`."""
    _check_two_visits(participant, sessions)
    rated = tables.of_participant(participant)
    own = rated.table[rated.table["session"].isin(sessions)]
    _check_rated(rated.path, own, sessions, tables.outcome)
    own = own.rename(columns={"outcome": PAIN})
    return own.assign(participant=participant, state=[0, 1])[RATING_COLUMNS]


def _check_rated(
    path: Path, own: pd.DataFrame, sessions: Sequence[str], outcome: RatedOutcome
) -> None:
    # NaN is not between any numbers.
    is_rated = own["outcome"].between(outcome.low, outcome.high)
    if len(own) != 2 or not is_rated.all():
        noun = "a pain rating" if outcome.column == PAIN else outcome.column
        raise InputError(
            f"{path}: expected {noun} from {outcome.scale} for each of "
            f"{', '.join(sessions)}."
        )


def _check_two_visits(participant: str, sessions: Sequence[str]) -> None:
    if len(sessions) != 2:
        names = ", ".join(map("ses-{}".format, sessions))
        raise InputError(
            f"sub-{participant} has {len(sessions)} visit(s) ({names}); the paired "
            "design needs two. Leave the participant out with --participant-label, or "
            "add the missing visit."
        )


def ordered_ratings(root: Path, readable: Sequence[Visit]) -> list[Rating]:
    """Participant, session and pain (NaN where unknown), in the order of the sessions
    tables or else of the labels."""
    ratings: list[Rating] = []
    for participant, sessions in sorted(_sessions_of(readable).items()):
        pain = _known_pain(sessions_path(Path(root), participant))
        for session in _in_order(sessions, list(pain)):
            ratings.append(Rating(participant, session, pain.get(session, np.nan)))
    return ratings


def _in_order(sessions: Sequence[str], table_order: Sequence[str]) -> list[str]:
    # The table's order is that of time; what it does not list comes last.
    listed = [session for session in table_order if session in sessions]
    return listed + sorted(set(sessions) - set(listed))


def _known_pain(path: Path) -> dict[str, float]:
    """Pain at every session of a sessions table, in its order; empty where the table
    is missing or names no sessions."""
    if not path.is_file():
        return {}
    table = read_table(path, dtype={"session_id": str})
    # Only scores need the order, and they do without it.
    if "session_id" not in table:
        return {}
    labels = table["session_id"].str.removeprefix("ses-")
    if "pain" not in table:
        return dict.fromkeys(labels, np.nan)
    return dict(zip(labels, as_numbers(table["pain"]), strict=True))


def ordered_visits(root: Path, readable: Sequence[Visit]) -> list[Visit]:
    """Visits by participant, in the order of the sessions tables; in that of the labels
    where a table is damaged."""
    by_participant: dict[str, dict[str, Visit]] = {}
    for visit in readable:
        by_participant.setdefault(visit.participant, {})[visit.session] = visit
    ordered: list[Visit] = []
    for participant in sorted(by_participant):
        ordered += _visits_in_time(root, by_participant[participant])
    return ordered


def _visits_in_time(root: Path, own: Mapping[str, Visit]) -> Iterator[Visit]:
    for session in _session_order(root, own):
        yield own[session]


def _session_order(root: Path, own: Mapping[str, Visit]) -> list[str]:
    """Sessions of a participant in time."""
    try:
        ratings = ordered_ratings(root, list(own.values()))
    # A damaged table is reported where its ratings are needed.
    except InputError:
        return sorted(own)
    return [rating.session for rating in ratings]
