"""Any table of features, made ready for a prediction: who is who, which visit is which,
what may be a feature."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features.registry import quality_feature_names
from cingulum.io.files import read_json, read_table
from cingulum.prediction.regression import Model
from cingulum.prediction.settings import Fusion, Missing

"""Features of `cingulum features` that are scored, and kept out of the fusion."""

KNOWN_ORDERS = (
    ("pre", "post"),
    ("before", "after"),
    ("baseline", "followup"),
    ("low", "high"),
)
"""Session labels whose alphabetical order is not the order in time."""

MISSING = ("", "n/a", "NaN", "nan")
"""What says that a value is missing."""

LARGEST = 1e100
"""Beyond it, products of features leave the range of numbers."""


@dataclass(frozen=True)
class Request:
    """What to predict from which columns, and how. modalities: name → patterns of
    column names; none: as the table's .json groups them, else all numeric columns
    together."""

    outcome: str
    group: str = "participant_id"
    design: str = "paired"
    order: str | None = None
    features: tuple[str, ...] = ()
    modalities: dict[str, tuple[str, ...]] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    confounds: tuple[str, ...] = ()
    site: str | None = None
    harmonise: bool = False
    fusion: Fusion = "stacked"
    missing: Missing = "complete"
    model: Model = "ridge"
    folds: int | None = None
    C: tuple[float, ...] = (1.0,)
    scale: bool = True
    permutations: int = 5000
    stop_after: int | None = None
    level: float = 0.9
    seed: int = 0
    force: bool = False


@dataclass(frozen=True, eq=False)
class PreparedTable:
    """A table made ready: rows with an outcome, in the order of the visits; columns by
    modality; what was left out."""

    table: pd.DataFrame
    columns: dict[str, list[str]]
    controls: tuple[str, ...]
    left_out: dict[str, Any]


def sensible(request: Request) -> None:
    if request.design not in ("paired", "between"):
        raise InputError(f"--design is paired or between; came {request.design!r}.")
    if request.seed < 0:
        raise InputError(f"--seed is a whole number from 0; came {request.seed}.")
    if request.harmonise and (request.site is None or request.design == "paired"):
        raise InputError(
            "--harmonise needs --site, and --design between: in the difference of two "
            "visits of a person sites cancel."
        )
    used = {request.outcome: "the outcome", request.group: "the group"}
    for column in (
        *request.confounds,
        *request.features,
        *(c for m in request.modalities.values() for c in m),
    ):
        if column in used:
            raise InputError(
                f"{column} is {used[column]}: as a feature or confound it would give "
                "the answer away."
            )
    if "fused" in request.modalities:
        raise InputError(
            "A modality cannot be called fused: that is the name of their fusion."
        )


def read(path: Path, request: Request) -> PreparedTable:
    """The table, checked: columns are there, groups and outcome are usable, features
    are numbers."""
    path = Path(path)
    table = _table(
        path,
        {request.group, request.site, request.order, "session_id", "participant_id"},
    )
    order = request.order or ("session_id" if "session_id" in table else None)
    for column in (
        request.outcome,
        request.group,
        request.order,
        request.site,
        *request.confounds,
    ):
        if column is not None and column not in table:
            raise InputError(_unknown(column, table, path))
    outcome = pd.to_numeric(table[request.outcome], errors="coerce")
    unread = (outcome.isna() & table[request.outcome].notna()) | np.isinf(outcome)
    if unread.any():
        raise InputError(
            f"{path}: the outcome {request.outcome} must be finite numbers; row "
            f"{unread.idxmax() + 2} has "
            f"{table[request.outcome][unread.idxmax()]!r}. Code it as numbers first."
        )
    lost = {
        "rows without outcome": outcome.isna(),
        f"rows without {request.group}": table[request.group].isna(),
    }
    for column in dict.fromkeys(c for c in (order, request.site) if c):
        lost[f"rows without {column}"] = table[column].isna()
    left_out: dict[str, Any] = {what: int(rows.sum()) for what, rows in lost.items()}
    kept = ~np.any(list(lost.values()), axis=0)
    table = table.assign(**{request.outcome: outcome})[kept].reset_index(drop=True)
    if not len(table):
        raise InputError(
            f"{path}: no row has both {request.outcome} and {request.group}."
        )
    if order and table.duplicated([request.group, order]).any():
        twice = table[table.duplicated([request.group, order])].iloc[0]
        raise InputError(
            f"{path}: {twice[request.group]} has {order} {twice[order]!r} more than "
            "once. A row is a scan: average or "
            "leave out repeated runs first."
        )
    reserved = {
        request.outcome,
        request.group,
        request.site,
        order,
        "session_id",
        "participant_id",
        *request.confounds,
    }
    confounds = {c: _confound(table[c], c, path) for c in request.confounds}
    table = table.assign(**confounds)
    rank, state = _ranks(table, request.group, order)
    columns, controls = _modalities(table, path, request, reserved, rank, left_out)
    return PreparedTable(
        table.assign(_rank=rank, _state=state),
        columns,
        controls,
        {k: v for k, v in left_out.items() if v},
    )


def _table(path: Path, words: set[str | None]) -> pd.DataFrame:
    """The table; columns that name people, sites and visits stay text, so that 001 and
    1E5 are what they are."""
    dtype = {str(column): str for column in words if column}
    separator = "," if path.suffix == ".csv" else "\t"
    head = read_table(path, sep=separator, dtype=str, nrows=1)
    if head.shape[1] == 1 and any(
        mark in str(head.columns[0]) for mark in (";", ",", "\t")
    ):
        mark = "commas" if separator == "," else "tabs"
        raise InputError(
            f"{path}: reads as one column, {head.columns[0]!r}. Expected {mark} "
            "between columns, and points in numbers."
        )
    return read_table(
        path, sep=separator, dtype=dtype, keep_default_na=False, na_values=[*MISSING]
    )


def _confound(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Numbers, or two groups as 0 and 1."""
    values = pd.to_numeric(column, errors="coerce")
    if (values.isna() & column.notna()).any() and column.dropna().nunique() == 2:
        values = (column == column.dropna().iloc[0]).astype(float).where(column.notna())
    if (values.isna() & column.notna()).any() or np.isinf(values).any():
        raise InputError(
            f"{path}: the confound {name} must be finite numbers, or two groups."
        )
    return values


def _unknown(column: str, table: pd.DataFrame, path: Path) -> str:
    near = difflib.get_close_matches(column, map(str, table.columns), 3, 0.5)
    hint = (
        f"Did you mean {' or '.join(near)}?"
        if near
        else f"It has {', '.join(map(str, table.columns[:12]))} …"
    )
    return f"{path}: has no column {column!r}. {hint}"


def _natural(text: object) -> tuple:
    label = re.sub(r"^ses-", "", str(text)).lower()
    for pair in KNOWN_ORDERS:
        if label in pair:
            return ((0, float(pair.index(label)), ""),)
    pieces = re.split(r"([0-9]+)", label)
    return tuple(
        (0, float(part), "") if part.isascii() and part.isdigit() else (1, 0.0, part)
        for part in pieces
        if part
    )


def _ranks(
    table: pd.DataFrame, group: str, order: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Which visit of its participant a row is, from 0 (without `order`, as the rows
    come), and which state.

    The state is the label of the visit where labels are shared by participants, so that
    a lost scan moves no other into its place; where nearly every scan has a label of
    its own (dates), it is the rank.
    """
    ranks = np.zeros(len(table), int)
    if order is None:
        ranks = table.groupby(group, sort=False).cumcount().to_numpy()
        return ranks, ranks
    numbers = pd.to_numeric(table[order], errors="coerce")
    keys = (
        [((0, x, ""),) for x in numbers]
        if numbers.notna().all()
        else [_natural(x) for x in table[order]]
    )
    for _, rows in table.groupby(group, sort=False).indices.items():
        for rank, place in enumerate(
            sorted(range(len(rows)), key=lambda k: keys[rows[k]])
        ):
            ranks[rows[place]] = rank
    labels = sorted(set(keys))
    if len(labels) > max(4, 2 * (ranks.max() + 1)):
        return ranks, ranks
    return ranks, np.array([labels.index(key) for key in keys])


def _modalities(
    table: pd.DataFrame,
    path: Path,
    request: Request,
    reserved: set,
    rank: np.ndarray,
    left_out: dict[str, Any],
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    numeric = [
        c
        for c in table.columns
        if c not in reserved and pd.api.types.is_numeric_dtype(table[c])
    ]
    words = [
        str(c)
        for c in table.columns
        if c not in reserved and c not in numeric and c not in ("failed", "flags")
    ]
    if request.features:
        numeric = _matching(request.features, numeric, table, path)
    elif words:
        left_out["columns that are not numbers"] = words
    infinite = [
        c for c in numeric if (np.abs(table[c].to_numpy(float)) > LARGEST).any()
    ]
    if infinite:
        raise InputError(
            f"{path}: {', '.join(infinite[:5])}: values that are infinite or beyond "
            f"{LARGEST:g}. Repair or leave those "
            "columns out."
        )
    telling = _telling(table, numeric, request, rank)
    asked = [
        c
        for c in telling
        if c in request.features or any(c in m for m in request.modalities.values())
    ]
    if asked:
        raise InputError(
            f"{path}: {', '.join(asked)}: {telling[asked[0]]}. That is the answer, not "
            "a feature."
        )
    left_out["columns that give the answer away"] = [
        f"{c} ({why})" for c, why in telling.items()
    ]
    numeric = [c for c in numeric if c not in telling]
    empty = [c for c in numeric if table[c].isna().mean() > 0.5]
    constant = [c for c in numeric if c not in empty and table[c].nunique() < 2]
    left_out["columns missing in most rows"], left_out["constant columns"] = (
        empty,
        constant,
    )
    numeric = [c for c in numeric if c not in empty and c not in constant]
    if request.modalities:
        columns = {
            name: _matching(patterns, numeric, table, path)
            for name, patterns in request.modalities.items()
        }
    else:
        columns = _described(path, numeric)
    controls = tuple(
        c
        for c in quality_feature_names()
        if c in columns and len(columns) > 1 and not request.modalities
    )
    for name in request.controls:
        if name not in columns:
            columns[name] = _matching((name,), numeric, table, path)
            columns = {
                k: [c for c in v if k == name or c not in columns[name]]
                for k, v in columns.items()
            }
        controls += (name,)
    columns = {name: found for name, found in columns.items() if found}
    if not set(columns) - set(controls):
        raise InputError(
            f"{path}: no feature column is left. Features are numeric columns that "
            "vary; left out: "
            f"{ {k: v for k, v in left_out.items() if v} }."
        )
    return columns, controls


def _telling(
    table: pd.DataFrame, numeric: list[str], request: Request, rank: np.ndarray
) -> dict[str, str]:
    """Columns that are the outcome over again, or number the visits."""
    found, outcome = {}, table[request.outcome].to_numpy(float)
    for column in numeric:
        x = table[column].to_numpy(float)
        known = np.isfinite(x)
        if known.sum() < 3 or np.ptp(x[known]) == 0:
            continue
        if (
            np.ptp(outcome[known]) > 0
            and abs(np.corrcoef(x[known], outcome[known])[0, 1]) > 1 - 1e-9
        ):
            found[column] = "repeats the outcome"
        elif (
            np.ptp(rank[known]) > 0
            and abs(np.corrcoef(x[known], rank[known])[0, 1]) > 1 - 1e-9
        ):
            found[column] = "numbers the visits"
    return found


def _matching(
    patterns: Sequence[str], numeric: list[str], table: pd.DataFrame, path: Path
) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        hits = [c for c in numeric if fnmatch.fnmatchcase(c, pattern)]
        if not hits:
            if pattern in table:
                raise InputError(
                    f"{path}: {pattern} cannot be a feature: "
                    f"{_why_not(table[pattern])}."
                )
            raise InputError(_unknown(pattern, table, path))
        found += [c for c in hits if c not in found]
    return found


def _why_not(column: pd.Series) -> str:
    if not pd.api.types.is_numeric_dtype(column):
        return "it is not numeric"
    if column.isna().mean() > 0.5:
        return "it is missing in most rows"
    return (
        "it does not vary"
        if column.nunique() < 2
        else "it is the outcome, a confound or the name of something"
    )


def _described(path: Path, numeric: list[str]) -> dict[str, list[str]]:
    """Columns grouped by the feature that made them, as `cingulum features` describes
    them; else all together."""
    sidecar = path.with_suffix(".json")
    told = read_json(sidecar) if sidecar.is_file() else {}
    groups: dict[str, list[str]] = {}
    for column in numeric:
        method = (
            told.get(column, {}).get("Method")
            if isinstance(told.get(column), dict)
            else None
        )
        groups.setdefault(
            str(method["Feature"])
            if isinstance(method, dict) and "Feature" in method
            else "",
            [],
        ).append(column)
    if set(groups) == {""}:
        return {"features": numeric}
    return {name or "other": columns for name, columns in groups.items()}
