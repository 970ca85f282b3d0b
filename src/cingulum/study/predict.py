"""A prediction from any table of features: one row a scan, whoever made it."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.prediction.audit import Check, audit_ratings
from cingulum.prediction.between import Model, Ratings, of_features, regress
from cingulum.prediction.conformal import conformal_intervals
from cingulum.prediction.heldout import Fusion, Missing
from cingulum.prediction.scans import Scans
from cingulum.recordings.files import read_json, read_table, write_bytes, write_json, write_table
from cingulum.report import plots, summarise
from cingulum.report.page import render_prediction
from cingulum.study.findings import Findings, find, told

CONTROL_FEATURES = ("motion", "quality")
"""Features of `cingulum features` that are scored, and kept out of the fusion."""

KNOWN_ORDERS = (("pre", "post"), ("before", "after"), ("baseline", "followup"), ("low", "high"))
"""Session labels whose alphabetical order is not the order in time."""

MISSING = ("", "n/a", "NaN", "nan")
"""What says that a value is missing."""

WRITTEN = (
    "predictions.tsv", "predictions_between.tsv", "weights.tsv", "prediction.png", "summary.json", "report.html"
)  # fmt: skip
"""Files of an earlier run that would lie beside this one's."""

DOUBTFUL = re.compile(r"(^|_)(fd|motion|movement|age|sex|gender|date|time|order|run|trial|scanner|site)(_|$)", re.I)
"""Names of columns that are rarely meant as features."""

MANY = 100
"""Participants beyond which the paired design deals them into 20 folds."""

NEAR = 0.95
"""Correlation with the outcome beyond which a column is named."""

LARGEST = 1e100
"""Beyond it, products of features leave the range of numbers."""


@dataclass(frozen=True)
class Request:
    """What to predict from which columns, and how. modalities: name → patterns of column names; none: as the table's
    .json groups them, else all numeric columns together."""

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
class Asked:
    """A table made ready: rows with an outcome, in the order of the visits; columns by modality; what was left out."""

    table: pd.DataFrame
    columns: dict[str, list[str]]
    controls: tuple[str, ...]
    left_out: dict[str, Any]


def predict(
    path: Path, out: Path, request: Request, *, jobs: int | None = None, show_progress: bool = False
) -> dict[str, Any]:
    """Evaluate a prediction from a table; writes summary.json, predictions.tsv, weights.tsv, prediction.png and
    report.html to `out`, and returns the summary.

    paired: which of a participant's two visits had the higher outcome? The first and the second visit are taken by
    session_id or by `order`. between: the outcome itself, of participants never seen.

    Raises InputError for columns that are not there, too few participants, and outcomes that do not vary.
    """
    _sensible(request)
    asked = read(path, request)
    made = _paired if request.design == "paired" else _between
    summary, tables, picture = made(asked, request, jobs, show_progress)
    fusion = "log_odds" if request.missing == "log_odds" else request.fusion
    settings = {k: v for k, v in asdict(replace(request, fusion=fusion)).items() if v not in ((), None, {})}
    summary["audit"] += _doubts(asked, request)
    summary["notes"] = [*summary.get("notes", []), *_ignored(request)]
    summary |= {"columns": asked.columns, "left_out": asked.left_out, "settings": settings,
                "versions": summarise.versions()}  # fmt: skip
    out = Path(out)
    for name in WRITTEN:
        (out / name).unlink(missing_ok=True)
    for name, table in tables.items():
        write_table(out / f"{name}.tsv", table)
    write_bytes(out / "prediction.png", picture)
    write_json(out / "summary.json", summarise.plain(summary))
    write_bytes(out / "report.html", render_prediction(summarise.plain(summary), picture).encode())
    return summary


def _doubts(asked: Asked, request: Request) -> list[dict[str, Any]]:
    """Columns whose name, or whose agreement with the outcome, says that they may not be features."""
    found, outcome = [], asked.table[request.outcome].to_numpy(float)
    features = [c for name, columns in asked.columns.items() if name not in asked.controls for c in columns]
    named = [c for c in features if DOUBTFUL.search(c)]
    if named and not request.features and not request.modalities:
        words = (
            f"Taken as features: {', '.join(named)}. If they are not, name them in --controls or --confounds, or "
            "choose --features."
        )
        found.append(Check("columns that may be confounds", float(len(named)), "none", "warn", words))
    for column in features:
        x = asked.table[column].to_numpy(float)
        known = np.isfinite(x)
        r = float(np.corrcoef(x[known], outcome[known])[0, 1]) if known.sum() > 3 and np.ptp(x[known]) > 0 else 0.0
        if abs(r) > NEAR:
            words = f"{column} alone correlates {r:.2f} with {request.outcome}: is it the outcome in other words?"
            found.append(Check("a column like the outcome", r, f"below {NEAR}", "warn", words))
    return [asdict(check) for check in found]


def _ignored(request: Request) -> list[str]:
    if request.design == "paired":
        return []
    plain = Request("", "")
    used = [f"--{name.replace('_', '-')}" for name in ("fusion", "missing", "C")
            if getattr(request, name) != getattr(plain, name)]  # fmt: skip
    return (
        [f"{', '.join(used)}: of the forced choice; the regression takes complete rows and adds kernels."]
        if used
        else []
    )


# Reading


def _sensible(request: Request) -> None:
    if request.design not in ("paired", "between"):
        raise InputError(f"--design is paired or between; came {request.design!r}.")
    if request.seed < 0:
        raise InputError(f"--seed is a whole number from 0; came {request.seed}.")
    if request.harmonise and (request.site is None or request.design == "paired"):
        raise InputError(
            "--harmonise needs --site, and --design between: in the difference of two visits of a person sites cancel."
        )
    used = {request.outcome: "the outcome", request.group: "the group"}
    for column in (*request.confounds, *request.features, *(c for m in request.modalities.values() for c in m)):
        if column in used:
            raise InputError(f"{column} is {used[column]}: as a feature or confound it would give the answer away.")
    if "fused" in request.modalities:
        raise InputError("A modality cannot be called fused: that is the name of their fusion.")


def read(path: Path, request: Request) -> Asked:
    """The table, checked: columns are there, groups and outcome are usable, features are numbers."""
    path = Path(path)
    table = _table(path, {request.group, request.site, request.order, "session_id", "participant_id"})
    order = request.order or ("session_id" if "session_id" in table else None)
    for column in (request.outcome, request.group, request.order, request.site, *request.confounds):
        if column is not None and column not in table:
            raise InputError(_unknown(column, table, path))
    outcome = pd.to_numeric(table[request.outcome], errors="coerce")
    unread = (outcome.isna() & table[request.outcome].notna()) | np.isinf(outcome)
    if unread.any():
        raise InputError(f"{path}: the outcome {request.outcome} must be finite numbers; row {unread.idxmax() + 2} has "
                         f"{table[request.outcome][unread.idxmax()]!r}. Code it as numbers first.")  # fmt: skip
    lost = {"rows without outcome": outcome.isna(), f"rows without {request.group}": table[request.group].isna()}
    for column in dict.fromkeys(c for c in (order, request.site) if c):
        lost[f"rows without {column}"] = table[column].isna()
    left_out: dict[str, Any] = {what: int(rows.sum()) for what, rows in lost.items()}
    kept = ~np.any(list(lost.values()), axis=0)
    table = table.assign(**{request.outcome: outcome})[kept].reset_index(drop=True)
    if not len(table):
        raise InputError(f"{path}: no row has both {request.outcome} and {request.group}.")
    if order and table.duplicated([request.group, order]).any():
        twice = table[table.duplicated([request.group, order])].iloc[0]
        raise InputError(
            f"{path}: {twice[request.group]} has {order} {twice[order]!r} more than once. A row is a scan: average or "
            "leave out repeated runs first."
        )
    reserved = {request.outcome, request.group, request.site, order, "session_id", "participant_id", *request.confounds}
    confounds = {c: _confound(table[c], c, path) for c in request.confounds}
    table = table.assign(**confounds)
    rank, state = _ranks(table, request.group, order)
    columns, controls = _modalities(table, path, request, reserved, rank, left_out)
    return Asked(table.assign(_rank=rank, _state=state), columns, controls, {k: v for k, v in left_out.items() if v})


def _table(path: Path, words: set[str | None]) -> pd.DataFrame:
    """The table; columns that name people, sites and visits stay text, so that 001 and 1E5 are what they are."""
    dtype = {str(column): str for column in words if column}
    separator = "," if path.suffix == ".csv" else "\t"
    head = read_table(path, sep=separator, dtype=str, nrows=1)
    if head.shape[1] == 1 and any(mark in str(head.columns[0]) for mark in (";", ",", "\t")):
        mark = "commas" if separator == "," else "tabs"
        raise InputError(
            f"{path}: reads as one column, {head.columns[0]!r}. Expected {mark} between columns, and points in numbers."
        )
    return read_table(path, sep=separator, dtype=dtype, keep_default_na=False, na_values=[*MISSING])


def _confound(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Numbers, or two groups as 0 and 1."""
    values = pd.to_numeric(column, errors="coerce")
    if (values.isna() & column.notna()).any() and column.dropna().nunique() == 2:
        values = (column == column.dropna().iloc[0]).astype(float).where(column.notna())
    if (values.isna() & column.notna()).any() or np.isinf(values).any():
        raise InputError(f"{path}: the confound {name} must be finite numbers, or two groups.")
    return values


def _unknown(column: str, table: pd.DataFrame, path: Path) -> str:
    near = difflib.get_close_matches(column, map(str, table.columns), 3, 0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(map(str, table.columns[:12]))} …"
    return f"{path}: has no column {column!r}. {hint}"


def _natural(text: object) -> tuple:
    label = re.sub(r"^ses-", "", str(text)).lower()
    for pair in KNOWN_ORDERS:
        if label in pair:
            return ((0, float(pair.index(label)), ""),)
    pieces = re.split(r"([0-9]+)", label)
    return tuple(
        (0, float(part), "") if part.isascii() and part.isdigit() else (1, 0.0, part) for part in pieces if part
    )


def _ranks(table: pd.DataFrame, group: str, order: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Which visit of its participant a row is, from 0 (without `order`, as the rows come), and which state.

    The state is the label of the visit where labels are shared by participants, so that a lost scan moves no other
    into its place; where nearly every scan has a label of its own (dates), it is the rank.
    """
    ranks = np.zeros(len(table), int)
    if order is None:
        ranks = table.groupby(group, sort=False).cumcount().to_numpy()
        return ranks, ranks
    numbers = pd.to_numeric(table[order], errors="coerce")
    keys = [((0, x, ""),) for x in numbers] if numbers.notna().all() else [_natural(x) for x in table[order]]
    for _, rows in table.groupby(group, sort=False).indices.items():
        for rank, place in enumerate(sorted(range(len(rows)), key=lambda k: keys[rows[k]])):
            ranks[rows[place]] = rank
    labels = sorted(set(keys))
    if len(labels) > max(4, 2 * (ranks.max() + 1)):
        return ranks, ranks
    return ranks, np.array([labels.index(key) for key in keys])


def _modalities(
    table: pd.DataFrame, path: Path, request: Request, reserved: set, rank: np.ndarray, left_out: dict[str, Any]
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    numeric = [c for c in table.columns if c not in reserved and pd.api.types.is_numeric_dtype(table[c])]
    words = [str(c) for c in table.columns if c not in reserved and c not in numeric and c not in ("failed", "flags")]
    if request.features:
        numeric = _matching(request.features, numeric, table, path)
    elif words:
        left_out["columns that are not numbers"] = words
    infinite = [c for c in numeric if (np.abs(table[c].to_numpy(float)) > LARGEST).any()]
    if infinite:
        raise InputError(
            f"{path}: {', '.join(infinite[:5])}: values that are infinite or beyond {LARGEST:g}. Repair or leave those "
            "columns out."
        )
    telling = _telling(table, numeric, request, rank)
    asked = [c for c in telling if c in request.features or any(c in m for m in request.modalities.values())]
    if asked:
        raise InputError(f"{path}: {', '.join(asked)}: {telling[asked[0]]}. That is the answer, not a feature.")
    left_out["columns that give the answer away"] = [f"{c} ({why})" for c, why in telling.items()]
    numeric = [c for c in numeric if c not in telling]
    empty = [c for c in numeric if table[c].isna().mean() > 0.5]
    constant = [c for c in numeric if c not in empty and table[c].nunique() < 2]
    left_out["columns missing in most rows"], left_out["constant columns"] = empty, constant
    numeric = [c for c in numeric if c not in empty and c not in constant]
    if request.modalities:
        columns = {name: _matching(patterns, numeric, table, path) for name, patterns in request.modalities.items()}
    else:
        columns = _described(path, numeric)
    controls = tuple(c for c in CONTROL_FEATURES if c in columns and len(columns) > 1 and not request.modalities)
    for name in request.controls:
        if name not in columns:
            columns[name] = _matching((name,), numeric, table, path)
            columns = {k: [c for c in v if k == name or c not in columns[name]] for k, v in columns.items()}
        controls += (name,)
    columns = {name: found for name, found in columns.items() if found}
    if not set(columns) - set(controls):
        raise InputError(f"{path}: no feature column is left. Features are numeric columns that vary; left out: "
                         f"{ {k: v for k, v in left_out.items() if v} }.")  # fmt: skip
    return columns, controls


def _telling(table: pd.DataFrame, numeric: list[str], request: Request, rank: np.ndarray) -> dict[str, str]:
    """Columns that are the outcome over again, or number the visits."""
    found, outcome = {}, table[request.outcome].to_numpy(float)
    for column in numeric:
        x = table[column].to_numpy(float)
        known = np.isfinite(x)
        if known.sum() < 3 or np.ptp(x[known]) == 0:
            continue
        if np.ptp(outcome[known]) > 0 and abs(np.corrcoef(x[known], outcome[known])[0, 1]) > 1 - 1e-9:
            found[column] = "repeats the outcome"
        elif np.ptp(rank[known]) > 0 and abs(np.corrcoef(x[known], rank[known])[0, 1]) > 1 - 1e-9:
            found[column] = "numbers the visits"
    return found


def _matching(patterns: Sequence[str], numeric: list[str], table: pd.DataFrame, path: Path) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        hits = [c for c in numeric if fnmatch.fnmatchcase(c, pattern)]
        if not hits:
            if pattern in table:
                raise InputError(f"{path}: {pattern} cannot be a feature: {_why_not(table[pattern])}.")
            raise InputError(_unknown(pattern, table, path))
        found += [c for c in hits if c not in found]
    return found


def _why_not(column: pd.Series) -> str:
    if not pd.api.types.is_numeric_dtype(column):
        return "it is not numeric"
    if column.isna().mean() > 0.5:
        return "it is missing in most rows"
    return "it does not vary" if column.nunique() < 2 else "it is the outcome, a confound or the name of something"


def _described(path: Path, numeric: list[str]) -> dict[str, list[str]]:
    """Columns grouped by the feature that made them, as `cingulum features` describes them; else all together."""
    sidecar = path.with_suffix(".json")
    told = read_json(sidecar) if sidecar.is_file() else {}
    groups: dict[str, list[str]] = {}
    for column in numeric:
        method = told.get(column, {}).get("Method") if isinstance(told.get(column), dict) else None
        groups.setdefault(
            str(method["Feature"]) if isinstance(method, dict) and "Feature" in method else "", []
        ).append(column)
    if set(groups) == {""}:
        return {"features": numeric}
    return {name or "other": columns for name, columns in groups.items()}


# Designs


def _paired(
    asked: Asked, request: Request, jobs: int | None, show: bool
) -> tuple[dict[str, Any], dict[str, pd.DataFrame], bytes]:
    found = _found(asked, request, jobs, show, rated=True)
    if found.paired.dropped:
        lack = "every modality" if request.missing == "log_odds" else "a modality"
        asked.left_out[f"participants that lack {lack}"] = found.paired.dropped
    if found.paired.missing:
        kept = [f"{name}: {number}" for name, number in found.paired.missing.items()]
        asked.left_out["kept, though without a modality"] = kept
    score = found.paired.scores[found.best]
    summary: dict[str, Any] = {
        "design": "paired",
        "question": f"Which of a participant's two visits had the higher {request.outcome}?",
        "score_name": "accuracy",
        "score": score.accuracy,
        "interval": [score.accuracy_ci.low, score.accuracy_ci.high],
        "p": score.p,
        "permutations": score.permutations,
        "participants": len(found.paired.patients),
        **told(found),
    }
    summary["lead"] = (
        f"Of two visits of a participant it had never seen, the model named the one with the higher {request.outcome} "
        f"in {100 * score.accuracy:.1f} % of {len(found.paired.patients)} participants (95 % interval "
        f"{100 * score.accuracy_ci.low:.1f} to {100 * score.accuracy_ci.high:.1f} %, p = {score.p:.4f})."
    )
    summary["notes"].append("An undecided participant (decision 0) counts half.")
    tables = {"predictions": _named(asked, request, found), "weights": _weights(asked, found)}
    if "both" in found.ratings:
        tables["predictions_between"] = _rated(found.ratings["both"], request.level)
    return summary, tables, plots.performance(found.paired)


def _found(asked: Asked, request: Request, jobs: int | None, show: bool, rated: bool) -> Findings:
    """Everything asked of pairs of visits; with `rated`, of the ratings between participants too."""
    patients, ratings, rows = _pairs(asked, request)
    values = {name: asked.table[columns].to_numpy(float)[rows] for name, columns in asked.columns.items()}
    v0 = {name: v.copy() for name, v in values.items()}
    for name, v in values.items():
        partly = np.isnan(v).any((1, 2))
        v[partly] = np.nan
        if partly.any():
            empty = [c for k, c in enumerate(asked.columns[name]) if np.isnan(v0[name][..., k]).any()]
            who = [p for p, out in zip(patients, partly, strict=True) if out]
            asked.left_out[f"participants without all of {name} (missing: {', '.join(empty[:5])})"] = who
    confounds = {c: asked.table[c].to_numpy(float)[rows] for c in request.confounds}
    sites = asked.table[request.site].astype(str).to_numpy()[rows[:, 0]] if request.site else None
    return find(
        values, patients, ratings=ratings if rated else None, higher=ratings[:, 1] > ratings[:, 0],
        controls=asked.controls, scale=tuple(values) if request.scale and request.fusion != "kernels" else (),
        confounds=confounds or None, sites=sites, fusion=request.fusion, missing=request.missing, C=request.C,
        folds=_folds(request, len(patients)), on="features", model=request.model,
        permutations=request.permutations, stop_after=request.stop_after, learning=rated, seed=request.seed, jobs=jobs,
        force=request.force, show_progress=show,
    )  # fmt: skip


def _folds(request: Request, participants: int) -> int | None:
    """One participant at a time up to MANY; beyond, that costs much and tells no more than folds do."""
    if request.design == "paired" and request.folds is not None:
        return request.folds
    return None if participants <= MANY else 20


def _pairs(asked: Asked, request: Request) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Participants with two visits, their outcomes (participant, 2) and rows of the table (participant, 2)."""
    groups = asked.table.groupby(request.group, sort=True).indices
    ranks, outcome = asked.table["_rank"].to_numpy(), asked.table[request.outcome].to_numpy(float)
    ordered = {name: rows[np.argsort(ranks[rows])][:2] for name, rows in groups.items() if len(rows) >= 2}
    asked.left_out["participants with one visit"] = [n for n, rows in groups.items() if len(rows) < 2]
    asked.left_out["visits after the second"] = int(sum(max(0, len(rows) - 2) for rows in groups.values()))
    same = [name for name, rows in ordered.items() if outcome[rows[0]] == outcome[rows[1]]]
    asked.left_out["participants whose outcome did not change"] = same
    kept = [name for name in ordered if name not in set(same)]
    for key in [k for k, v in asked.left_out.items() if not v]:
        del asked.left_out[key]
    if not kept:
        raise InputError(
            f"The paired design needs participants with two visits and different {request.outcome}; of {len(groups)} "
            f"in {request.group}, {len(ordered)} have two visits, and the outcome changes in none. Is --group the "
            "column that names people? For one visit a person use --design between."
        )
    rows = np.stack([ordered[name] for name in kept])
    return kept, outcome[rows], rows


def _between(
    asked: Asked, request: Request, jobs: int | None, show: bool
) -> tuple[dict[str, Any], dict[str, pd.DataFrame], bytes]:
    used = [c for name, columns in asked.columns.items() for c in columns if name not in asked.controls]
    needed = [*used, *request.confounds]
    whole = asked.table[needed].notna().all(axis=1)
    if (~whole).any():
        gaps = asked.table[needed].isna().sum()
        gaps = gaps[gaps > 0].sort_values(ascending=False).head(5)
        told_gaps = ", ".join(f"{column} {number}" for column, number in gaps.items())
        asked.left_out["rows with missing values"] = [f"{int((~whole).sum())} ({told_gaps})"]
    table = asked.table[whole].reset_index(drop=True)
    names = sorted(table[request.group].unique())
    if len(names) < (4 if request.force else 10):
        raise InputError(
            f"Regression between participants needs at least 10 of them with complete rows; came {len(names)}. "
            "--force goes down to 4."
        )
    place = {name: i for i, name in enumerate(names)}
    sites = table[request.site].astype(str) if request.site else None
    scans = Scans(
        table[request.group].map(place).to_numpy(), table["_state"].to_numpy(),
        table[request.outcome].to_numpy(float), names,
        None if sites is None else sites.groupby(table[request.group]).first().loc[names].to_numpy(),
    )  # fmt: skip
    rows = {
        name: table[columns].to_numpy(float) for name, columns in asked.columns.items() if name not in asked.controls
    }
    extra = table[list(request.confounds)].to_numpy(float) if request.confounds else None
    site_rows = sites.to_numpy() if sites is not None and request.harmonise else None
    kernel = of_features(rows, tuple(rows) if request.scale else (), extra, site_rows)
    rng = np.random.default_rng((request.seed, 0, 4))
    outer = scans.folds(min(10, len(names)) if request.folds is None else request.folds, rng)
    others = {"confounds": of_features({"confounds": extra}, ("confounds",))} if extra is not None else {}
    for name in asked.controls:
        column = table[asked.columns[name]]
        others[name] = of_features({name: column.fillna(column.mean()).to_numpy(float)}, (name,))
    found = regress(scans, kernel, outer, model=request.model, others=others, permutations=request.permutations,
                    stop_after=request.stop_after, seed=request.seed, jobs=jobs, show_progress=show)  # fmt: skip
    summary: dict[str, Any] = {
        "design": "between",
        "question": f"How high is {request.outcome} in a participant never seen?",
        "score_name": "r_within_state" if len(np.unique(scans.state)) > 1 else "r",
        "score": found.figures["r_within_state"],
        "interval": [found.intervals["r_within_state"].low, found.intervals["r_within_state"].high],
        "p": found.p,
        "permutations": found.permutations,
        "participants": len(names),
        "estimands": {"between_patients": {"all": summarise.ratings(found)}},
        "audit": [asdict(check) for check in audit_ratings(found, noise=20, seed=request.seed)],
        "notes": [],
    }
    paired = _also_paired(asked, request, jobs)
    if isinstance(paired, Findings):
        again = told(paired)
        summary["estimands"] = {**again["estimands"], **summary["estimands"]}
        summary["audit"] += again["audit"]
    else:
        summary["estimands"]["forced_choice"] = summary["estimands"]["single_interval"] = {"not asked": paired}
    where = "" if summary["score_name"] == "r" else "within states "
    low, high = summary["interval"]
    everybody = asked.table[request.group].nunique()
    of = f"{len(names)}" if len(names) == everybody else f"{len(names)} of {everybody}"
    summary["lead"] = (
        f"Predicted {request.outcome} of {of} participants never seen correlates with "
        f"r = {summary['score']:.2f} {where}(95 % interval {low:.2f} to {high:.2f}, p = {found.p:.4f}); "
        f"prediction R² = {found.figures['r2']:.2f}."
    )
    return summary, {"predictions": _rated(found, request.level)}, plots.predicted_observed(found)


def _also_paired(asked: Asked, request: Request, jobs: int | None) -> Findings | str:
    """The paired estimands of the same table, or why they cannot be had."""
    try:
        again = Asked(asked.table, asked.columns, asked.controls, {})
        return _found(again, replace(request, stop_after=request.stop_after or 20), jobs, False, rated=False)
    except InputError as trouble:
        return str(trouble)


def _rated(found: Ratings, level: float) -> pd.DataFrame:
    """Predictions with a conformal interval each."""
    table = found.predictions()
    reach = conformal_intervals(found.predicted, found.scans.rating, found.scans.patient, level)
    return table.assign(low=reach[:, 0], high=reach[:, 1], level=level)


def _named(asked: Asked, request: Request, found: Findings) -> pd.DataFrame:
    """Every prediction, with the visits it is about: the one with the lower outcome, and the one with the higher."""
    table = found.paired.predictions().rename(columns={"score_first": "score_lower", "score_second": "score_higher"})
    patients, ratings, rows = _pairs(Asked(asked.table, asked.columns, asked.controls, {}), request)
    higher = (ratings[:, 1] > ratings[:, 0]).astype(int)
    order = request.order or ("session_id" if "session_id" in asked.table else None)
    labels = asked.table[order].astype(str) if order else asked.table["_rank"].map(lambda k: f"visit {k + 1}")
    place = {p: i for i, p in enumerate(patients)}
    at = table["participant_id"].map(place).to_numpy()
    for side, pick in (("lower", 1 - higher), ("higher", higher)):
        row = rows[np.arange(len(rows)), pick]
        table[f"visit_{side}"] = labels.to_numpy()[row][at]
        table[f"outcome_{side}"] = asked.table[request.outcome].to_numpy(float)[row][at]
    return table


def _weights(asked: Asked, found: Findings) -> pd.DataFrame:
    """A row a column: weight on the difference in the column's own units, and its activation pattern."""
    rows = [
        {"modality": name, "column": column, "weight": w, "pattern": a}
        for name, columns in asked.columns.items()
        for column, w, a in zip(columns, found.paired.weights[name], found.paired.patterns[name], strict=True)
    ]
    return pd.DataFrame(rows)
