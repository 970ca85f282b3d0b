"""The outcome of every visit: a column of the sessions tables, or of a table of the
dataset with a row a visit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import as_numbers, read_table

PAIN = "pain"


@dataclass(frozen=True)
class RatedOutcome:
    """What a study is about.

    column: of a table, or `<table>.<column>` where several tables have it
    low, high: the ends of its scale, both possible
    """

    column: str = PAIN
    low: float = 0.0
    high: float = 100.0

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if not all(map(math.isfinite, ends)) or not self.low < self.high:
            raise InputError(
                f"--outcome-range takes the lowest and the highest possible {PAIN}, in "
                f"this order; got {self.low:g} and {self.high:g}."
            )

    @property
    def is_default(self) -> bool:
        return self == RatedOutcome()

    @property
    def scale(self) -> str:
        """As an error or an axis names it: 0 to 100."""
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, eq=False)
class RatedSessions:
    """Sessions of one participant and the outcome at each (NaN for what is no number),
    in the order of the table; path: the table, for errors."""

    path: Path
    table: pd.DataFrame


class OutcomeTables:
    """Where the outcome of a dataset's visits stands."""

    def __init__(self, root: Path, outcome: RatedOutcome) -> None:
        self.root = Path(root)
        self.outcome = outcome
        self._common: tuple[Path, pd.DataFrame] | None = None
        self._is_searched = False

    def of_participant(self, participant: str) -> RatedSessions:
        """Sessions and outcome of a participant: of the participant's own sessions
        table where it has the column, else of the dataset's. The order is that of the
        sessions table, where there is one.

        Raises InputError where no table has the column.
        """
        own_path = sessions_path(self.root, participant)
        own = read_sessions(own_path) if own_path.is_file() else None
        if own is not None and self.outcome.column in own:
            values = as_numbers(own[self.outcome.column])
            return _rated(own_path, own["session_id"], values)
        common = self._common_table()
        if common is None:
            raise InputError(self._nowhere(own_path, own))
        path, table = common
        rows = table[table["participant_id"] == participant]
        if own is not None:
            rows = _in_order_of(own["session_id"], rows)
        return _rated(path, rows["session_id"], rows["outcome"])

    def _common_table(self) -> tuple[Path, pd.DataFrame] | None:
        """The table of the dataset that has the outcome, read once."""
        if not self._is_searched:
            self._is_searched = True
            self._common = _find_table(self.root, self.outcome.column)
        return self._common

    def _nowhere(self, own_path: Path, own: pd.DataFrame | None) -> str:
        column = self.outcome.column
        if own is not None:
            names = ", ".join(map(str, own))
            return (
                f"{own_path}: expected the column(s) session_id and {column}; got "
                f"{names}. It may also stand in a table of phenotype/ or in "
                "participants.tsv, with the columns participant_id and session_id; "
                "--outcome names another column."
            )
        return (
            f"{own_path}: no such file, and neither participants.tsv nor a table of "
            f"phenotype/ has the columns participant_id, session_id and {column}. "
            "--outcome names another column."
        )


def sessions_path(root: Path, participant: str) -> Path:
    return root / f"sub-{participant}" / f"sub-{participant}_sessions.tsv"


def read_sessions(path: Path) -> pd.DataFrame:
    """A sessions table, its labels without `ses-`. Raises InputError without
    session_id."""
    table = read_table(path, dtype={"session_id": str})
    if "session_id" not in table:
        names = ", ".join(map(str, table))
        raise InputError(f"{path}: expected the column(s) session_id; got {names}.")
    return table.assign(session_id=table["session_id"].str.removeprefix("ses-"))


def _rated(path: Path, sessions: pd.Series, values: pd.Series) -> RatedSessions:
    table = pd.DataFrame({"session": sessions, "outcome": values})
    return RatedSessions(path, table.reset_index(drop=True))


def _in_order_of(sessions: pd.Series, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of a sessions table; those that it does not list come last."""
    rank: Mapping[str, int] = {label: k for k, label in enumerate(sessions)}
    order = [rank.get(label, len(rank)) for label in rows["session_id"]]
    return rows.iloc[np.argsort(order, kind="stable")]


def _find_table(root: Path, column: str) -> tuple[Path, pd.DataFrame] | None:
    """The only table of phenotype/, or else participants.tsv, that has the column and a
    row a visit.

    Raises InputError where several of phenotype/ have it.
    """
    table_name, dot, name = column.rpartition(".")
    found = []
    for path in sorted((root / "phenotype").glob("*.tsv")):
        wanted = column
        if dot and path.stem == table_name:
            wanted = name
        table = _visits_of(path, wanted)
        if table is not None:
            found.append((path, table))
    if len(found) > 1:
        names = " and ".join(path.name for path, _ in found)
        first = found[0][0].stem
        raise InputError(
            f"{root / 'phenotype'}: {names} have a column {column}. Say which one, "
            f"such as --outcome {first}.{column}."
        )
    if found:
        return found[0]
    path = root / "participants.tsv"
    table = _visits_of(path, column) if path.is_file() else None
    return None if table is None else (path, table)


def _visits_of(path: Path, column: str) -> pd.DataFrame | None:
    """participant_id, session_id (labels) and outcome of a table; None where it has not
    all three columns."""
    labels = {"participant_id": str, "session_id": str}
    table = read_table(path, dtype=labels)
    if not {*labels, column} <= set(table):
        return None
    return pd.DataFrame(
        {
            "participant_id": table["participant_id"].str.removeprefix("sub-"),
            "session_id": table["session_id"].str.removeprefix("ses-"),
            "outcome": as_numbers(table[column]),
        }
    )
