"""Everything asked of one set of paired features: three estimands, controls, leak audit; never pooled, never apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cingulum.prediction import Evaluation, evaluate
from cingulum.prediction.audit import Check, audit
from cingulum.prediction.between import DoseResponse, Model, On, Ratings, Visits, dose_response, evaluate_ratings
from cingulum.prediction.conformal import Calibration, calibrate_decisions
from cingulum.prediction.heldout import Fusion, Missing
from cingulum.prediction.learning import compact, learning_curve
from cingulum.prediction.lee2019 import PublishedRegression, published_regression
from cingulum.report import summarise


@dataclass(frozen=True, eq=False)
class Findings:
    """paired: forced choice and single scans; ratings: between patients, by `both`, `first`, `second` visits;
    published: the 2019 recipe, for comparison; dose: decisions against changes; calibration: of the best model's
    decisions; checks: the leak audit; learning: rows (patients, accuracy, sd); words: what could not be asked, why."""

    paired: Evaluation
    ratings: dict[str, Ratings] = field(default_factory=dict)
    published: PublishedRegression | None = None
    dose: DoseResponse | None = None
    calibration: Calibration | None = None
    checks: list[Check] = field(default_factory=list)
    learning: list[dict[str, float]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def best(self) -> str:
        """The model whose score is told first: the fusion, or the only modality."""
        return "fused" if "fused" in self.paired.scores else self.paired.fused[0]


def find(
    values: dict[str, np.ndarray],
    patients: Sequence[str],
    *,
    ratings: np.ndarray | None = None,
    rose: np.ndarray | None = None,
    controls: tuple[str, ...] = (),
    scale: tuple[str, ...] = (),
    confounds: dict[str, np.ndarray] | None = None,
    sites: np.ndarray | None = None,
    fusion: Fusion = "stacked",
    missing: Missing = "complete",
    C: float | Sequence[float] = 1.0,
    folds: int | None = None,
    on: On = "responses",
    model: Model = "ridge",
    permutations: int = 5000,
    stop_after: int | None = None,
    learning: bool = True,
    seed: int = 0,
    jobs: int | None = None,
    force: bool = False,
    show_progress: bool = False,
) -> Findings:
    """values: by modality (patient, visit, feature); ratings (patient, visit); rose (patient,): whether the second
    visit was the later one. Further options: `evaluate` and `evaluate_ratings`."""
    paired = evaluate(
        values, patients, controls=controls, permutations=permutations, folds=folds, C=C, fusion=fusion, scale=scale,
        confounds=confounds, missing=missing, stop_after=stop_after, seed=seed, jobs=jobs, force=force,
        show_progress=show_progress)  # fmt: skip
    words: list[str] = []
    kept = [i for i, p in enumerate(patients) if str(p) in set(paired.patients)]
    part = {name: v[kept] for name, v in values.items()}
    best = paired.scores["fused" if "fused" in paired.scores else paired.fused[0]]
    regressions: dict[str, Ratings] = {}
    published, dose = None, None
    if ratings is not None:
        asked = {name: compact(part[name]) if name not in scale else part[name] for name in paired.fused}
        regressions, published = _between(asked, ratings[kept], paired, words, confounds, kept, sites, scale, on, model,
                                          permutations, stop_after, seed, jobs)  # fmt: skip
        extra = None if not confounds else np.stack([(c[:, 1] - c[:, 0])[kept] for c in confounds.values()], -1)
        change = ratings[kept, 1] - ratings[kept, 0]
        dose = dose_response(best.decisions, change, extra, permutations=max(permutations, 19), seed=seed)
    checks = audit(
        part, paired, rose=None if rose is None else rose[kept], ratings=regressions.get("both"), published=published,
        seed=seed)  # fmt: skip
    curve = []
    if learning and len(kept) >= 20 and not paired.missing:
        chosen = {name: part[name] for name in paired.fused}
        curve = learning_curve(chosen, paired.patients, fusion=fusion, scale=scale, C=C, seed=seed, repeats=10)
        curve = curve.to_dict("records")
    return Findings(paired, regressions, published, dose, calibrate_decisions(best.decisions), checks, curve, words)


def told(found: Findings) -> dict[str, Any]:
    """The findings as plain numbers."""
    return {
        "estimands": summarise.estimands(found.paired, found.ratings, found.published, found.words),
        "contributions": summarise.contributions(found.paired),
        **summarise.evidence(found.dose, found.calibration, found.checks, found.learning),
    }


def _between(
    values: dict[str, np.ndarray],
    ratings: np.ndarray,
    paired: Evaluation,
    words: list[str],
    confounds: dict[str, np.ndarray] | None,
    kept: list[int],
    sites: np.ndarray | None,
    scale: tuple[str, ...],
    on: On,
    model: Model,
    permutations: int,
    stop_after: int | None,
    seed: int,
    jobs: int | None,
) -> tuple[dict[str, Ratings], PublishedRegression | None]:
    if len(paired.patients) < 10:
        words.append("Between patients: fewer than 10 patients.")
        return {}, None
    if any(np.isnan(v).any() for v in values.values()):
        words.append("Between patients: some patients lack a modality; ask with complete cases.")
        return {}, None
    found: dict[str, Ratings] = {}
    given = None if not confounds else {name: c[kept] for name, c in confounds.items()}
    asked: tuple[tuple[Visits, np.ndarray], ...] = (
        ("both", ratings), ("first", ratings[:, 0]), ("second", ratings[:, 1])
    )  # fmt: skip
    for visits, given_ratings in asked:
        if np.ptp(given_ratings) == 0:
            words.append(f"Between patients, {visits} visits: all ratings are the same.")
            continue
        found[visits] = evaluate_ratings(
            values, ratings, paired.patients, visits=visits, on=on, model=model, scale=scale, confounds=given,
            sites=None if sites is None else sites[kept], permutations=permutations, stop_after=stop_after, seed=seed,
            jobs=jobs)  # fmt: skip
    return found, published_regression(values, ratings, seed=seed)
