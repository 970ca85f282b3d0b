"""Everything asked of one set of paired features: three estimands, controls, leak
audit; never pooled, never apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cingulum.prediction import Evaluation, evaluate
from cingulum.prediction.decision_calibration import (
    DecisionCalibration,
    calibrate_decisions,
)
from cingulum.prediction.dose import DoseResponse, dose_response
from cingulum.prediction.leak_audit import Check, audit
from cingulum.prediction.learning_curves import compact, learning_curve
from cingulum.prediction.lee2019 import PublishedRegression, published_regression
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.regression import (
    Model,
    Predictors,
    Ratings,
    Visits,
    evaluate_ratings,
)
from cingulum.prediction.svm.nested import Fusion, Missing
from cingulum.prediction.svm.products import turned

MANY = 100
"""Patients beyond which the forced choice deals them into 20 folds, and the audit
repeats 10 times on noise: one at a time, and 50 times, cost much and tell no more. Maps
    are flipped 500 times then, unless more were asked for."""


@dataclass(frozen=True, eq=False)
class StudyEvaluation:
    """paired: forced choice and single scans; ratings: between patients, by `both`,
    `first`, `second` visits;
    published: the 2019 recipe, for comparison; dose: decisions against changes;
    calibration: of the best model's decisions; checks: the leak audit; learning: rows
        (patients, accuracy, sd); words: what could not be asked, why."""

    paired: Evaluation
    ratings: dict[str, Ratings] = field(default_factory=dict)
    published: PublishedRegression | None = None
    dose: DoseResponse | None = None
    calibration: DecisionCalibration | None = None
    checks: list[Check] = field(default_factory=list)
    learning: list[dict[str, float]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def best(self) -> str:
        """The model whose score is told first: the fusion, or the only modality."""
        return "fused" if "fused" in self.paired.scores else self.paired.fused[0]


def evaluate_study(
    values: dict[str, np.ndarray],
    patients: Sequence[str],
    *,
    ratings: np.ndarray | None = None,
    higher: np.ndarray | None = None,
    controls: tuple[str, ...] = (),
    scale: tuple[str, ...] = (),
    confounds: dict[str, np.ndarray] | None = None,
    sites: np.ndarray | None = None,
    fusion: Fusion = "stacked",
    missing: Missing = "complete",
    C: float | Sequence[float] = 1.0,
    folds: int | None = None,
    on: Predictors = "responses",
    model: Model = "ridge",
    permutations: int = 5000,
    stop_after: int | None = None,
    learning: bool = True,
    seed: int = 0,
    jobs: Jobs = None,
    force: bool = False,
    show_progress: bool = False,
) -> StudyEvaluation:
    """values: by modality (patient, visit, feature), ratings and confounds (patient,
    visit), in the order of time.

    higher (patient,): whether the second visit is the one to be recognised, default
    all. Only the forced choice and
    single scans are turned that way: between patients, a scan's place must not come
        from its own rating.
    folds: default one patient at a time, beyond MANY patients 20. Further options:
        `evaluate` and `evaluate_ratings`.
    """
    folds = 20 if folds is None and len(patients) > MANY else folds
    higher = (
        np.ones(len(patients), bool) if higher is None else np.asarray(higher, bool)
    )
    shown = {name: turned(v, higher) for name, v in values.items()}
    regressed = {name: turned(c, higher) for name, c in (confounds or {}).items()}
    paired = evaluate(
        shown,
        patients,
        controls=controls,
        permutations=permutations,
        folds=folds,
        C=C,
        fusion=fusion,
        scale=scale,
        confounds=regressed,
        missing=missing,
        stop_after=stop_after,
        seed=seed,
        jobs=jobs,
        force=force,
        show_progress=show_progress,
    )
    kept = [i for i, p in enumerate(patients) if str(p) in set(paired.patients)]
    shown, regressed = _rows(shown, kept), _rows(regressed, kept)
    found = StudyEvaluation(paired)
    decisions = paired.scores[found.best].decisions
    found = replace(found, calibration=calibrate_decisions(decisions))
    words: list[str] = []
    if ratings is not None:
        rated = _rows({n: values[n] for n in paired.fused}, kept)
        extra = {
            "scale": scale,
            "confounds": _rows(confounds or {}, kept) or None,
            "on": on,
            "model": model,
            "sites": None if sites is None else np.asarray(sites)[kept],
            "permutations": permutations,
            "stop_after": stop_after,
            "seed": seed,
            "jobs": jobs,
        }
        regressions, published = _between(
            rated, ratings[kept], paired.patients, words, extra
        )
        change = np.diff(turned(ratings, higher)[kept], axis=1)[:, 0]
        moved = (
            np.stack([np.diff(c, axis=1)[:, 0] for c in regressed.values()], -1)
            if regressed
            else None
        )
        dose = dose_response(
            decisions, change, moved, permutations=max(permutations, 19), seed=seed
        )
        found = replace(found, ratings=regressions, published=published, dose=dose)
    checks = audit(
        shown,
        paired,
        rose=higher[kept],
        ratings=found.ratings.get("both"),
        published=found.published,
        confounds=regressed,
        repeats=10 if len(kept) > MANY else 50,
        seed=seed,
        jobs=jobs,
        show_progress=show_progress,
    )
    curve = None
    if learning and len(kept) >= 20 and not paired.missing:
        chosen = {name: shown[name] for name in paired.fused}
        curve = learning_curve(
            chosen,
            paired.patients,
            confounds=regressed,
            folds=folds,
            scale=scale,
            repeats=10,
            fusion=fusion,
            C=C,
            seed=seed,
            jobs=jobs,
            show_progress=show_progress,
        )
    still = [n for n, c in regressed.items() if np.ptp(c, axis=1).max() == 0]
    if still:
        words.append(
            f"{', '.join(still)}: the same at both visits of everybody, so it cancels "
            "in the forced choice."
        )
    return replace(
        found,
        checks=checks,
        learning=[] if curve is None else curve.to_dict("records"),
        words=words,
    )


def _rows(tables: dict[str, np.ndarray], kept: list[int]) -> dict[str, np.ndarray]:
    return {name: table[kept] for name, table in tables.items()}


def _between(
    values: dict[str, np.ndarray],
    ratings: np.ndarray,
    patients: list[str],
    words: list[str],
    options: dict[str, Any],
) -> tuple[dict[str, Ratings], PublishedRegression | None]:
    if len(patients) < 10:
        words.append("Between patients: fewer than 10 patients.")
        return {}, None
    if any(np.isnan(v).any() for v in values.values()):
        words.append(
            "Between patients: some patients lack a modality; ask with complete cases."
        )
        return {}, None
    values = {n: v if n in options["scale"] else compact(v) for n, v in values.items()}
    found: dict[str, Ratings] = {}
    asked: tuple[tuple[Visits, np.ndarray], ...] = (
        ("both", ratings),
        ("first", ratings[:, 0]),
        ("second", ratings[:, 1]),
    )
    for visits, given_ratings in asked:
        if np.ptp(given_ratings) == 0:
            words.append(
                f"Between patients, {visits} visits: all ratings are the same."
            )
            continue
        found[visits] = evaluate_ratings(
            values, ratings, patients, visits=visits, **options
        )
    if not (ratings[:, 1] > ratings[:, 0]).all():
        return (
            found,
            None,
        )  # the published recipe takes the second visit for the one in more pain
    return found, published_regression(values, ratings, seed=options["seed"])
