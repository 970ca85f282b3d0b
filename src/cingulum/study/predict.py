"""A prediction from any table of features: one row a scan, whoever made it."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.prediction.between import Model, Ratings, of_features, regress
from cingulum.prediction.conformal import conformal_intervals
from cingulum.prediction.heldout import Fusion, Missing
from cingulum.prediction.scans import Scans
from cingulum.recordings.files import read_bytes, read_json, read_table, write_bytes, write_json, write_table
from cingulum.report import plots, summarise
from cingulum.report.page import render_prediction
from cingulum.study.findings import Findings, find, told

CONTROL_FEATURES = ("motion", "quality")
"""Features of `cingulum features` that are scored, and kept out of the fusion."""

KNOWN_ORDERS = (("pre", "post"), ("before", "after"), ("baseline", "followup"), ("low", "high"))
"""Session labels whose alphabetical order is not the order in time."""


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
    asked = read(path, request)
    if request.design == "paired":
        summary, tables, picture = _paired(asked, request, jobs, show_progress)
    elif request.design == "between":
        summary, tables, picture = _between(asked, request, jobs, show_progress)
    else:
        raise InputError(f"--design is paired or between; came {request.design!r}.")
    settings = {k: v for k, v in asdict(request).items() if v not in ((), None, {})}
    summary |= {"columns": asked.columns, "left_out": asked.left_out, "settings": settings,
                "versions": summarise.versions()}  # fmt: skip
    out = Path(out)
    for name, table in tables.items():
        write_table(out / f"{name}.tsv", table)
    write_bytes(out / "prediction.png", picture)
    write_json(out / "summary.json", summarise.plain(summary))
    write_bytes(out / "report.html", render_prediction(summarise.plain(summary), picture).encode())
    return summary


# Reading


def read(path: Path, request: Request) -> Asked:
    """The table, checked: columns are there, groups and outcome are usable, features are numbers."""
    path = Path(path)
    table = _table(path)
    order = request.order or ("session_id" if "session_id" in table else None)
    for column in (request.outcome, request.group, request.order, request.site, *request.confounds):
        if column is not None and column not in table:
            raise InputError(_unknown(column, table, path))
    outcome = pd.to_numeric(table[request.outcome], errors="coerce")
    unread = outcome.isna() & table[request.outcome].notna()
    if unread.any():
        raise InputError(f"{path}: the outcome {request.outcome} must be numbers; row {unread.idxmax() + 2} has "
                         f"{table[request.outcome][unread.idxmax()]!r}. Code it as numbers first.")  # fmt: skip
    nobody = table[request.group].isna()
    left_out: dict[str, Any] = {
        "rows without outcome": int(outcome.isna().sum()),
        "rows without group": int(nobody.sum()),
    }
    table = table.assign(**{request.outcome: outcome})[outcome.notna() & ~nobody].reset_index(drop=True)
    if not len(table):
        raise InputError(f"{path}: no row has both {request.outcome} and {request.group}.")
    table[request.group] = table[request.group].astype(str)
    table["_rank"] = _ranks(table, request.group, order)
    reserved = {request.outcome, request.group, request.site, order, "session_id", "_rank", *request.confounds}
    columns, controls = _modalities(table, path, request, reserved, left_out)
    for confound in request.confounds:
        table[confound] = pd.to_numeric(table[confound], errors="coerce")
    return Asked(table, columns, controls, {k: v for k, v in left_out.items() if v})


def _table(path: Path) -> pd.DataFrame:
    if path.suffix == ".csv":
        import io

        try:
            return pd.read_csv(io.BytesIO(read_bytes(path)), na_values=["n/a"])
        except ValueError as trouble:
            raise InputError(f"{path}: not a readable comma-separated table ({trouble}).") from None
    return read_table(path)


def _unknown(column: str, table: pd.DataFrame, path: Path) -> str:
    near = difflib.get_close_matches(column, map(str, table.columns), 3, 0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"It has {', '.join(map(str, table.columns[:12]))} …"
    return f"{path}: has no column {column!r}. {hint}"


def _natural(text: object) -> tuple:
    if isinstance(text, (int, float, np.number)):
        return ((0, float(text), ""),)
    label = re.sub(r"^ses-", "", str(text)).lower()
    for pair in KNOWN_ORDERS:
        if label in pair:
            return ((0, float(pair.index(label)), ""),)
    return tuple(
        (0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in re.split(r"(\d+)", label) if part
    )


def _ranks(table: pd.DataFrame, group: str, order: str | None) -> np.ndarray:
    """Which visit of its participant a row is, from 0; ties keep the order of the file."""
    ranks = np.zeros(len(table), int)
    for _, rows in table.groupby(group, sort=False).indices.items():
        keys = [_natural(table[order].iloc[i]) if order else () for i in rows]
        for rank, place in enumerate(sorted(range(len(rows)), key=lambda k: keys[k])):
            ranks[rows[place]] = rank
    return ranks


def _modalities(
    table: pd.DataFrame, path: Path, request: Request, reserved: set, left_out: dict[str, Any]
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    numeric = [c for c in table.columns if c not in reserved and pd.api.types.is_numeric_dtype(table[c])]
    words = [str(c) for c in table.columns if c not in reserved and c not in numeric and c not in ("failed", "flags")]
    if request.features:
        numeric = _matching(request.features, numeric, table, path)
    elif words:
        left_out["columns that are not numbers"] = words
    infinite = [c for c in numeric if np.isinf(table[c].to_numpy(float)).any()]
    if infinite:
        raise InputError(f"{path}: {', '.join(infinite[:5])}: infinite values. Repair or leave those columns out.")
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


def _matching(patterns: Sequence[str], numeric: list[str], table: pd.DataFrame, path: Path) -> list[str]:
    found: list[str] = []
    for pattern in patterns:
        hits = [c for c in numeric if fnmatch.fnmatchcase(c, pattern)]
        if not hits:
            if pattern in table:
                raise InputError(f"{path}: {pattern} cannot be a feature: it is not numeric, does not vary, is mostly "
                                 "missing, or has another part.")  # fmt: skip
            raise InputError(_unknown(pattern, table, path))
        found += [c for c in hits if c not in found]
    return found


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
    patients, ratings, rows = _pairs(asked, request)
    values = {name: asked.table[columns].to_numpy(float)[rows] for name, columns in asked.columns.items()}
    for name, v in values.items():
        partly = np.isnan(v).any((1, 2))
        v[partly] = np.nan
        if partly.any():
            asked.left_out[f"participants without {name}"] = int(partly.sum())
    higher = (ratings[:, 1] > ratings[:, 0]).astype(int)
    turn = np.stack([1 - higher, higher], 1)
    take = lambda v: np.take_along_axis(v, turn.reshape(*turn.shape, *[1] * (v.ndim - 2)), 1)  # noqa: E731
    confounds = {c: take(asked.table[c].to_numpy(float)[rows]) for c in request.confounds}
    sites = asked.table[request.site].astype(str).to_numpy()[rows[:, 0]] if request.site else None
    found = find(
        {name: take(v) for name, v in values.items()}, patients, ratings=take(ratings), rose=higher.astype(bool),
        controls=asked.controls, scale=tuple(values) if request.scale and request.fusion != "kernels" else (),
        confounds=confounds or None, sites=sites, fusion=request.fusion, missing=request.missing, C=request.C,
        folds=request.folds, on="features", model=request.model, permutations=request.permutations,
        stop_after=request.stop_after, seed=request.seed, jobs=jobs, force=request.force, show_progress=show,
    )  # fmt: skip
    if found.paired.dropped:
        asked.left_out["participants that lack a modality"] = found.paired.dropped
    if found.paired.missing:
        asked.left_out["participants kept without"] = found.paired.missing
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
    tables = {"predictions": found.paired.predictions(), "weights": _weights(asked, found)}
    if "both" in found.ratings:
        tables["predictions_between"] = _rated(found.ratings["both"], request.level)
    return summary, tables, plots.performance(found.paired)


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
        asked.left_out["rows with missing values"] = int((~whole).sum())
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
        table[request.group].map(place).to_numpy(), _ranks(table, request.group, "_rank"),
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
    outer = scans.folds(request.folds or min(10, len(names)), rng)
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
        "audit": [],
    }
    paired = _also_paired(asked, request, jobs, show)
    if isinstance(paired, Findings):
        again = told(paired)
        summary["estimands"] = {**again["estimands"], **summary["estimands"]}
        summary["audit"] = again["audit"]
    else:
        summary["estimands"]["forced_choice"] = summary["estimands"]["single_interval"] = {"not asked": paired}
    where = "" if summary["score_name"] == "r" else "within states "
    low, high = summary["interval"]
    summary["lead"] = (
        f"Predicted {request.outcome} of {len(names)} participants never seen correlates with "
        f"r = {summary['score']:.2f} {where}(95 % interval {low:.2f} to {high:.2f}, p = {found.p:.4f}); "
        f"prediction R² = {found.figures['r2']:.2f}."
    )
    return summary, {"predictions": _rated(found, request.level)}, plots.predicted_observed(found)


def _also_paired(asked: Asked, request: Request, jobs: int | None, show: bool) -> Findings | str:
    """The paired estimands of the same table, or why they cannot be had."""
    try:
        again = Asked(asked.table, asked.columns, asked.controls, {})
        patients, ratings, rows = _pairs(again, request)
        higher = (ratings[:, 1] > ratings[:, 0]).astype(int)
        turn = np.stack([1 - higher, higher], 1)
        values = {n: asked.table[c].to_numpy(float)[rows] for n, c in asked.columns.items()}
        values = {n: np.take_along_axis(np.where(np.isnan(v).any((1, 2), keepdims=True), np.nan, v), turn[..., None], 1)
                  for n, v in values.items()}  # fmt: skip
        return find(values, patients, rose=higher.astype(bool), controls=asked.controls, fusion=request.fusion,
                    scale=tuple(values) if request.scale and request.fusion != "kernels" else (), learning=False,
                    permutations=request.permutations, stop_after=request.stop_after or 20, seed=request.seed,
                    jobs=jobs, force=request.force)  # fmt: skip
    except InputError as trouble:
        return str(trouble)


def _rated(found: Ratings, level: float) -> pd.DataFrame:
    """Predictions with a conformal interval each."""
    table = found.predictions()
    reach = conformal_intervals(found.predicted, found.scans.rating, found.scans.patient, level)
    return table.assign(low=reach[:, 0], high=reach[:, 1], level=level)


def _weights(asked: Asked, found: Findings) -> pd.DataFrame:
    """A row a column: weight on the difference in the column's own units, and its activation pattern."""
    rows = [
        {"modality": name, "column": column, "weight": w, "pattern": a}
        for name, columns in asked.columns.items()
        for column, w, a in zip(columns, found.paired.weights[name], found.paired.patterns[name], strict=True)
    ]
    return pd.DataFrame(rows)
