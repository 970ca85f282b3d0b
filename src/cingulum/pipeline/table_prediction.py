"""A prediction from any table of features: one row a scan, whoever made it."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import write_bytes, write_json, write_table
from cingulum.pipeline.prepared_table import PreparedTable, Request, read, sensible
from cingulum.prediction.conformal import conformal_intervals
from cingulum.prediction.leak_audit import Check, audit_ratings
from cingulum.prediction.regression import Ratings, RegressionSettings, regress
from cingulum.prediction.scan_kernels import feature_kernel
from cingulum.prediction.scans import Scans
from cingulum.prediction.study_evaluation import StudyEvaluation, evaluate_study
from cingulum.prediction.svm.products import copy_of
from cingulum.random_streams import Stream, generator
from cingulum.report import plots
from cingulum.report.page import render_prediction
from cingulum.report.results import to_plain
from cingulum.report.summarise import evaluation_section, regression_section
from cingulum.versions import versions

WRITTEN = (
    "predictions.tsv",
    "predictions_between.tsv",
    "weights.tsv",
    "prediction.png",
    "summary.json",
    "report.html",
)
"""Files of an earlier run that would lie beside this one's."""

DOUBTFUL = re.compile(
    r"(^|_)(fd|motion|movement|age|sex|gender|date|time|order|run|trial|scanner|site)(_|$)",
    re.I,
)
"""Names of columns that are rarely meant as features."""

NEAR = 0.95
"""Correlation with the outcome beyond which a column is named."""


def predict(
    path: Path,
    out: Path,
    request: Request,
    *,
    jobs: int | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Evaluate a prediction from a table; writes summary.json, predictions.tsv,
    weights.tsv, prediction.png and report.html to `out`, and returns the summary.

    paired: which of a participant's two visits had the higher outcome? The first and
        the second visit are taken by
    session_id or by `order`. between: the outcome itself, of participants never seen.

    jobs: threads. Raises InputError for columns that are not there, too few
        participants, outcomes that do not vary.
    """
    sensible(request)
    asked = read(path, request)
    made = _paired if request.design == "paired" else _between
    summary, tables, picture = made(asked, request, jobs, show_progress)
    fusion = "log_odds" if request.missing == "log_odds" else request.fusion
    settings = {
        k: v
        for k, v in asdict(replace(request, fusion=fusion)).items()
        if v not in ((), None, {})
    }
    summary["audit"] += _doubts(asked, request)
    summary["notes"] = [*summary.get("notes", []), *_ignored(request)]
    summary |= {
        "columns": asked.columns,
        "left_out": asked.left_out,
        "settings": settings,
        "versions": versions(),
    }
    out = Path(out)
    for name in WRITTEN:
        (out / name).unlink(missing_ok=True)
    for name, table in tables.items():
        write_table(out / f"{name}.tsv", table)
    write_bytes(out / "prediction.png", picture)
    write_json(out / "summary.json", to_plain(summary))
    write_bytes(
        out / "report.html",
        render_prediction(to_plain(summary), picture).encode(),
    )
    return summary


def _doubts(asked: PreparedTable, request: Request) -> list[dict[str, Any]]:
    """Columns whose name, or whose agreement with the outcome, says that they may not
    be features."""
    found, outcome = [], asked.table[request.outcome].to_numpy(float)
    features = [
        c
        for name, columns in asked.columns.items()
        if name not in asked.controls
        for c in columns
    ]
    named = [c for c in features if DOUBTFUL.search(c)]
    if named and not request.features and not request.modalities:
        words = (
            f"Taken as features: {', '.join(named)}. If they are not, name them in "
            "--controls or --confounds, or "
            "choose --features."
        )
        found.append(
            Check(
                "columns that may be confounds",
                float(len(named)),
                "none",
                "warn",
                words,
            )
        )
    for column in features:
        x = asked.table[column].to_numpy(float)
        known = np.isfinite(x)
        r = (
            float(np.corrcoef(x[known], outcome[known])[0, 1])
            if known.sum() > 3 and np.ptp(x[known]) > 0
            else 0.0
        )
        if abs(r) > NEAR:
            words = (
                f"{column} alone correlates {r:.2f} with {request.outcome}: is it "
                "the outcome in other words?"
            )
            found.append(
                Check("a column like the outcome", r, f"below {NEAR}", "warn", words)
            )
    return [asdict(check) for check in found]


def _ignored(request: Request) -> list[str]:
    if request.design == "paired":
        return []
    plain = Request("", "")
    used = [
        f"--{name.replace('_', '-')}"
        for name in ("fusion", "missing", "C")
        if getattr(request, name) != getattr(plain, name)
    ]
    words = (
        f"{', '.join(used)}: of the forced choice; the regression takes complete "
        "rows and adds kernels."
    )
    return [words] if used else []


def _paired(
    asked: PreparedTable, request: Request, jobs: int | None, show: bool
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
        "question": "Which of a participant's two visits had the higher "
        f"{request.outcome}?",
        "score_name": "accuracy",
        "score": score.accuracy,
        "interval": [score.accuracy_ci.low, score.accuracy_ci.high],
        "p": score.p,
        "permutations": score.permutations,
        "participants": len(found.paired.patients),
        **to_plain(evaluation_section(found)),
    }
    summary["lead"] = (
        "Of two visits of a participant it had never seen, the model named the one "
        f"with the higher {request.outcome} "
        f"in {100 * score.accuracy:.1f} % of {len(found.paired.patients)} participants "
        "(95 % interval "
        f"{100 * score.accuracy_ci.low:.1f} to {100 * score.accuracy_ci.high:.1f} %, p "
        f"= {score.p:.4f})."
    )
    summary["notes"].append("An undecided participant (decision 0) counts half.")
    tables = {
        "predictions": _named(asked, request, found),
        "weights": _weights(asked, found),
    }
    if "both" in found.ratings:
        tables["predictions_between"] = _rated(found.ratings["both"], request.level)
    return summary, tables, plots.draw_performance(found.paired)


def _found(
    asked: PreparedTable, request: Request, jobs: int | None, show: bool, rated: bool
) -> StudyEvaluation:
    """Everything asked of pairs of visits; with `rated`, of the ratings between
    participants too."""
    patients, ratings, rows = _pairs(asked, request)
    values = {
        name: asked.table[columns].to_numpy(float)[rows]
        for name, columns in asked.columns.items()
    }
    for name, v in values.items():
        gaps = np.isnan(v).any(1)  # (participant, column)
        if gaps.any():
            empty = [
                c
                for c, gap in zip(asked.columns[name], gaps.any(0), strict=True)
                if gap
            ]
            who = [p for p, gap in zip(patients, gaps.any(1), strict=True) if gap]
            asked.left_out[
                f"participants without all of {name} (missing: {', '.join(empty[:5])})"
            ] = who
            v[gaps.any(1)] = np.nan
    confounds = {c: asked.table[c].to_numpy(float)[rows] for c in request.confounds}
    sites = (
        asked.table[request.site].astype(str).to_numpy()[rows[:, 0]]
        if request.site
        else None
    )
    return evaluate_study(
        values,
        patients,
        ratings=ratings if rated else None,
        higher=ratings[:, 1] > ratings[:, 0],
        controls=asked.controls,
        scale=tuple(values) if request.scale and request.fusion != "kernels" else (),
        confounds=confounds or None,
        sites=sites,
        fusion=request.fusion,
        missing=request.missing,
        C=request.C,
        folds=request.folds if request.design == "paired" else None,
        on="features",
        model=request.model,
        permutations=request.permutations,
        stop_after=request.stop_after,
        learning=rated,
        seed=request.seed,
        jobs=jobs,
        force=request.force,
        show_progress=show,
    )


def _pairs(
    asked: PreparedTable, request: Request
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Participants with two visits, their outcomes (participant, 2) and rows of the
    table (participant, 2)."""
    groups = asked.table.groupby(request.group, sort=True).indices
    ranks, outcome = (
        asked.table["_rank"].to_numpy(),
        asked.table[request.outcome].to_numpy(float),
    )
    ordered = {
        name: rows[np.argsort(ranks[rows])][:2]
        for name, rows in groups.items()
        if len(rows) >= 2
    }
    asked.left_out["participants with one visit"] = [
        n for n, rows in groups.items() if len(rows) < 2
    ]
    asked.left_out["visits after the second"] = int(
        sum(max(0, len(rows) - 2) for rows in groups.values())
    )
    same = [
        name for name, rows in ordered.items() if outcome[rows[0]] == outcome[rows[1]]
    ]
    asked.left_out["participants whose outcome did not change"] = same
    kept = [name for name in ordered if name not in set(same)]
    for key in [k for k, v in asked.left_out.items() if not v]:
        del asked.left_out[key]
    if not kept:
        raise InputError(
            "The paired design needs participants with two visits and different "
            f"{request.outcome}; of {len(groups)} "
            f"in {request.group}, {len(ordered)} have two visits, and the outcome "
            "changes in none. Is --group the "
            "column that names people? For one visit a person use --design between."
        )
    rows = np.stack([ordered[name] for name in kept])
    return kept, outcome[rows], rows


def _between(
    asked: PreparedTable, request: Request, jobs: int | None, show: bool
) -> tuple[dict[str, Any], dict[str, pd.DataFrame], bytes]:
    table = _whole(asked, request)
    found = _regressed(asked, request, table, jobs, show)
    low, high = (
        found.intervals["r_within_state"].low,
        found.intervals["r_within_state"].high,
    )
    states = len(np.unique(found.scans.state)) > 1
    summary: dict[str, Any] = {
        "design": "between",
        "question": f"How high is {request.outcome} in a participant never seen?",
        "score_name": "r_within_state" if states else "r",
        "score": found.performance["r_within_state"],
        "interval": [low, high],
        "p": found.p,
        "permutations": found.permutations,
        "participants": len(found.scans.names),
        "estimands": {"between_patients": {"all": to_plain(regression_section(found))}},
        "audit": [
            asdict(check) for check in audit_ratings(found, noise=20, seed=request.seed)
        ],
        "notes": [],
    }
    paired = _also_paired(asked, request, jobs)
    if isinstance(paired, StudyEvaluation):
        again = to_plain(evaluation_section(paired))
        summary["estimands"] = {**again["estimands"], **summary["estimands"]}
        summary["audit"] += again["audit"]
    else:
        summary["estimands"]["forced_choice"] = summary["estimands"][
            "single_interval"
        ] = {"not asked": paired}
    everybody, taken = asked.table[request.group].nunique(), len(found.scans.names)
    of, where = (
        taken if taken == everybody else f"{taken} of {everybody}",
        "within states " if states else "",
    )
    summary["lead"] = (
        f"Predicted {request.outcome} of {of} participants never seen correlates with "
        f"r = {summary['score']:.2f} "
        f"{where}(95 % interval {low:.2f} to {high:.2f}, p = {found.p:.4f}); "
        f"prediction R² = {found.performance['r2']:.2f}."
    )
    return (
        summary,
        {"predictions": _rated(found, request.level)},
        plots.draw_predicted_observed(found),
    )


def _whole(asked: PreparedTable, request: Request) -> pd.DataFrame:
    """Rows that have every feature and confound, of enough participants; says what is
    missing where."""
    used = [
        c
        for name, columns in asked.columns.items()
        for c in columns
        if name not in asked.controls
    ]
    needed = [*used, *request.confounds]
    whole = asked.table[needed].notna().all(axis=1)
    if (~whole).any():
        gaps = asked.table[needed].isna().sum().sort_values(ascending=False).head(5)
        words = ", ".join(
            f"{column} {number}" for column, number in gaps.items() if number
        )
        asked.left_out["rows with missing values"] = [
            f"{int((~whole).sum())} ({words})"
        ]
    table = asked.table[whole].reset_index(drop=True)
    people = table[request.group].nunique()
    if people < (4 if request.force else 10):
        raise InputError(
            "Regression between participants needs at least 10 of them with complete "
            f"rows; came {people}. --force "
            "goes down to 4."
        )
    twins = copy_of([table[used].to_numpy(float)], table[request.group].to_numpy())
    if twins:
        one, other = table.loc[list(twins), request.group]
        raise InputError(
            f"A row of {one} and one of {other} have the same features to the last "
            "digit: one is a copy of the other, "
            "and could be tested on itself. Leave one out."
        )
    return table


def _regressed(
    asked: PreparedTable,
    request: Request,
    table: pd.DataFrame,
    jobs: int | None,
    show: bool,
) -> Ratings:
    """The regression of whole rows on the outcome."""
    names = sorted(table[request.group].unique())
    sites = table[request.site].astype(str) if request.site else None
    scans = Scans(
        table[request.group].map({name: i for i, name in enumerate(names)}).to_numpy(),
        table["_state"].to_numpy(),
        table[request.outcome].to_numpy(float),
        names,
        None
        if sites is None
        else sites.groupby(table[request.group]).first().loc[names].to_numpy(),
    )
    rows = {
        n: table[columns].to_numpy(float)
        for n, columns in asked.columns.items()
        if n not in asked.controls
    }
    extra = (
        table[list(request.confounds)].to_numpy(float) if request.confounds else None
    )
    site_rows = sites.to_numpy() if sites is not None and request.harmonise else None
    others = (
        {"confounds": feature_kernel({"confounds": extra}, ("confounds",))}
        if extra is not None
        else {}
    )
    for name in asked.controls:
        column = table[asked.columns[name]]
        others[name] = feature_kernel(
            {name: column.fillna(column.mean()).to_numpy(float)}, (name,)
        )
    folds = min(10, len(names)) if request.folds is None else request.folds
    outer = scans.folds(folds, generator(request.seed, Stream.REGRESSION_FOLDS))
    kernel = feature_kernel(
        rows, tuple(rows) if request.scale else (), extra, site_rows
    )
    settings = RegressionSettings(
        model=request.model,
        permutations=request.permutations,
        stop_after=request.stop_after,
        seed=request.seed,
    )
    return regress(
        scans,
        kernel,
        outer,
        settings,
        baselines=others,
        jobs=jobs,
        show_progress=show,
    )


def _also_paired(
    asked: PreparedTable, request: Request, jobs: int | None
) -> StudyEvaluation | str:
    """The paired estimands of the same table, or why they cannot be had."""
    try:
        again = PreparedTable(asked.table, asked.columns, asked.controls, {})
        return _found(
            again,
            replace(request, stop_after=request.stop_after or 20),
            jobs,
            False,
            rated=False,
        )
    except InputError as trouble:
        return str(trouble)


def _rated(found: Ratings, level: float) -> pd.DataFrame:
    """Predictions with a conformal interval each."""
    table = found.predictions()
    reach = conformal_intervals(
        found.predicted, found.scans.rating, found.scans.patient, level
    )
    return table.assign(low=reach[:, 0], high=reach[:, 1], level=level)


def _named(
    asked: PreparedTable, request: Request, found: StudyEvaluation
) -> pd.DataFrame:
    """Every prediction, with the visits it is about: the one with the lower outcome,
    and the one with the higher."""
    table = found.paired.predictions().rename(
        columns={"score_first": "score_lower", "score_second": "score_higher"}
    )
    patients, ratings, rows = _pairs(
        PreparedTable(asked.table, asked.columns, asked.controls, {}), request
    )
    higher = (ratings[:, 1] > ratings[:, 0]).astype(int)
    order = request.order or ("session_id" if "session_id" in asked.table else None)
    labels = (
        asked.table[order].astype(str)
        if order
        else asked.table["_rank"].map(lambda k: f"visit {k + 1}")
    )
    place = {p: i for i, p in enumerate(patients)}
    at = table["participant_id"].map(place).to_numpy()
    for side, pick in (("lower", 1 - higher), ("higher", higher)):
        row = rows[np.arange(len(rows)), pick]
        table[f"visit_{side}"] = labels.to_numpy()[row][at]
        table[f"outcome_{side}"] = asked.table[request.outcome].to_numpy(float)[row][at]
    return table


def _weights(asked: PreparedTable, found: StudyEvaluation) -> pd.DataFrame:
    """A row a column: weight on the difference in the column's own units, and its
    activation pattern."""
    rows = [
        {"modality": name, "column": column, "weight": w, "pattern": a}
        for name, columns in asked.columns.items()
        for column, w, a in zip(
            columns,
            found.paired.weights[name],
            found.paired.patterns[name],
            strict=True,
        )
    ]
    return pd.DataFrame(rows)
