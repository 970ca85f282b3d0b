"""From results to the sections of a report: everything that is printed is one of these
numbers first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cingulum.features.cohort_features import CohortFeatures, FitEvidence
from cingulum.features.registry import model_label
from cingulum.inference import linear_network
from cingulum.inference.resting import RestingFit
from cingulum.io.cohort import Cohort
from cingulum.measures import edges, similarity
from cingulum.prediction import Evaluation
from cingulum.prediction.conformal import conformal_reach
from cingulum.prediction.decision_calibration import DecisionCalibration
from cingulum.prediction.lee2019 import PublishedRegression
from cingulum.prediction.regression import Ratings
from cingulum.prediction.scores import Score
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.report.results import (
    NOT_ASKED,
    PUBLISHED,
    Age,
    CalibrationSection,
    CohortSection,
    Conformal,
    Estimands,
    EvaluationSection,
    EvaluationSettings,
    FitSection,
    FittedBrain,
    FittedBrainSection,
    PainRatings,
    Performance,
    PublishedSection,
    RegressionSection,
    SingleScan,
    Spread,
    TwoVisits,
    VisitFitsSection,
)

OLDEST_TOLD = 90
"""Years above which an age could identify a person."""


def spread(values: Iterable[float]) -> Spread:
    """Mean, SD and range of what is known."""
    numbers = np.asarray(list(values), dtype=float)
    numbers = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return Spread(None, None, None, None)
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return Spread(float(numbers.mean()), sd, float(numbers.min()), float(numbers.max()))


def cohort_section(cohort: Cohort) -> CohortSection:
    """Who was scanned, and the pain they reported at the first and the second visit."""
    ratings = cohort.ratings
    pain = ratings.pivot(index="participant", columns="state", values="pain")
    return CohortSection(
        patients=len(pain),
        visits=2 * len(pain),
        first_session=_sessions_of_state(ratings, 0),
        second_session=_sessions_of_state(ratings, 1),
        pain=PainRatings(
            first=spread(pain[0]),
            second=spread(pain[1]),
            change=spread(pain[1] - pain[0]),
        ),
        pain_rose_in=int((pain[1] > pain[0]).sum()),
        orders=_orders(ratings),
        age=_age(cohort.people),
        sex=_sex(cohort.people),
    )


def _sessions_of_state(ratings: pd.DataFrame, state: int) -> list[str]:
    return sorted(ratings.loc[ratings["state"] == state, "session"].unique())


def _orders(ratings: pd.DataFrame) -> dict[str, int]:
    """How many patients had their sessions in each order, the commonest first."""
    by_patient = ratings.sort_values("state").groupby("participant")["session"]
    counts = by_patient.agg(", then ".join).value_counts()
    return {str(order): int(count) for order, count in counts.items()}


def _age(people: pd.DataFrame) -> Age | None:
    """Of those whose age is a number; high ages are not told."""
    if "age" not in people:
        return None
    age = pd.to_numeric(people["age"], errors="coerce").clip(upper=OLDEST_TOLD)
    if not age.notna().any():
        return None
    return Age(**asdict(spread(age)), known=int(age.notna().sum()))


def _sex(people: pd.DataFrame) -> dict[str, int]:
    if "sex" not in people:
        return {}
    counts = people["sex"].fillna("n/a").value_counts()
    return {str(sex): int(count) for sex, count in counts.items()}


def visit_section(features: CohortFeatures) -> dict[str, TwoVisits]:
    """Features with one number per visit, at the first and the second visit."""
    section = {}
    for name, values in features.values.items():
        if values.shape[-1] != 1:
            continue
        label = f"{model_label(name)}, {features.units[name]}"
        section[label] = TwoVisits(spread(values[:, 0, 0]), spread(values[:, 1, 0]))
    return section


def performance_section(evaluation: Evaluation) -> dict[str, Performance]:
    """Performance of every model."""
    return {name: _performance(score) for name, score in evaluation.scores.items()}


def _performance(score: Score) -> Performance:
    return Performance(
        accuracy=score.accuracy,
        accuracy_ci=score.accuracy_ci,
        accuracy_exact_ci=score.accuracy_exact_ci,
        auc=score.auc,
        auc_ci=score.auc_ci,
        single_scan_auc=score.single_scan_auc,
        p=score.p,
        p_auc=score.p_auc,
        patients=int(np.isfinite(score.decisions).sum()),
        permutations=score.permutations,
        null_accuracy=spread(score.null) if len(score.null) else None,
    )


def regression_section(ratings: Ratings, level: float = 0.9) -> RegressionSection:
    """A regression of ratings between patients, beside its baselines."""
    scans = ratings.scans
    residuals = scans.rating - ratings.predicted
    return RegressionSection(
        participants=len(scans.names),
        scans=len(scans.rating),
        figures=ratings.performance,
        intervals=ratings.intervals,
        p=ratings.p,
        p_pooled=ratings.p_pooled,
        null_r_within_state=spread(ratings.null) if len(ratings.null) else None,
        baselines=ratings.baselines,
        conformal=Conformal(level, conformal_reach(residuals, scans.patient, level)),
        model=ratings.model,
        on=ratings.on,
        folds=int(ratings.folds.max()) + 1,
        permutations=ratings.permutations,
    )


def published_section(published: PublishedRegression) -> PublishedSection:
    """The recipe of 2019, with what it gives on noise."""
    return PublishedSection(
        label=published.label,
        train_r=published.train_r,
        train_rmse=published.train_rmse,
        test_r=published.test_r,
        test_rmse=published.test_rmse,
        p=published.p,
        noise_r=published.noise_r,
        noise_range=published.noise_range,
    )


def evaluation_section(evaluation: StudyEvaluation) -> EvaluationSection:
    """Everything that was asked of pairs of visits."""
    return EvaluationSection(
        estimands=_estimands(evaluation),
        contributions=evaluation.paired.contributions,
        notes=list(evaluation.words),
        dose_response=evaluation.dose,
        calibration=_calibration(evaluation.calibration),
        audit=list(evaluation.checks),
        learning_curve=evaluation.learning,
    )


def _estimands(evaluation: StudyEvaluation) -> Estimands:
    paired = evaluation.paired
    between: dict[str, RegressionSection | PublishedSection | str] = {
        visits: regression_section(ratings)
        for visits, ratings in evaluation.ratings.items()
    }
    if evaluation.published is not None:
        between[PUBLISHED] = published_section(evaluation.published)
    if not between:
        reasons = "; ".join(evaluation.words)
        between[NOT_ASKED] = reasons or "no ratings were given"
    single = {
        name: SingleScan(
            score.single_scan_auc, score.single_scan_auc_ci, score.single_scan_p
        )
        for name, score in paired.scores.items()
    }
    return Estimands(performance_section(paired), single, between)


def _calibration(calibration: DecisionCalibration | None) -> CalibrationSection | None:
    if calibration is None:
        return None
    return CalibrationSection(calibration.brier, calibration.curve)


def evaluation_settings(
    evaluation: Evaluation, features: CohortFeatures
) -> EvaluationSettings:
    """What the evaluation did."""
    columns = {
        name: varying_columns(values) for name, values in features.values.items()
    }
    return EvaluationSettings(
        patients=len(evaluation.patients),
        C=list(evaluation.C),
        folds=int(evaluation.folds.max()) + 1,
        fusion=evaluation.fusion,
        scaled=list(evaluation.scaled),
        confounds=list(evaluation.confounds),
        stop_after=evaluation.stop_after,
        dropped=evaluation.dropped,
        missing=evaluation.missing,
        inner_folds=evaluation.inner_folds,
        permutations=evaluation.permutations,
        seed=evaluation.seed,
        fused=evaluation.fused,
        columns=columns,
    )


def varying_columns(values: np.ndarray) -> int:
    """Columns that differ somewhere: a map's voxels outside the brain do not count."""
    rows = values.reshape(-1, values.shape[-1])
    rows = rows[~np.isnan(rows).all(1)]
    return int((np.ptp(rows, axis=0) > 0).sum()) if len(rows) else 0


def fit_section(
    verified: RestingFit, weights: Tensor, train: Tensor, heldout: Tensor | None
) -> FitSection:
    """A verified fit beside its controls."""
    return FitSection(
        fc_r=_fit_correlations(verified, weights, train, heldout),
        mean_fc={**verified.levels, "recorded": edges(train).mean().item()},
        regions=train.shape[-1],
        parameters=verified.parameters,
        control_parameters=verified.control.parameters,
        estimates={
            name: spread(value.reshape(-1).tolist())
            for name, value in verified.fit.estimates.items()
        },
        loop_gain=verified.fit.loop_gain.item(),
        slowest_return_per_s=verified.stability.slowest,
        simulated_minutes=verified.simulated_minutes,
        time_step_ms=1000 * verified.dt,
        seconds=verified.seconds,
    )


def _fit_correlations(
    verified: RestingFit, weights: Tensor, train: Tensor, heldout: Tensor | None
) -> dict[str, float]:
    """Correlations of the fit and its controls with the data it was fitted to and, if
    there are any, held-out data."""
    parts = {"train": train}
    if heldout is not None:
        parts["heldout"] = heldout
    fc_r = {"sc_fc": similarity(weights.to(train), train).item()}
    if heldout is not None:
        fc_r["ceiling"] = similarity(train, heldout.to(train)).item()
    for part, connectivity in parts.items():
        against = verified.against(connectivity)
        fc_r[part] = against["free_running"]
        fc_r[f"analytic_{part}"] = against["analytic"]
        fc_r[f"linear_control_{part}"] = against["linear_control"]
    return fc_r


def fitted_brain_section(fit: FittedBrain) -> FittedBrainSection:
    """A fit with the source of its data."""
    section = fit_section(fit.verified, fit.weights, fit.train, fit.heldout)
    return FittedBrainSection(**vars(section), source=fit.source)


def visit_fits_section(evidence: FitEvidence, parameters: int) -> VisitFitsSection:
    """Brains fitted to visits, two per patient, beside the controls they are read
    against."""
    connectome = evidence.connectome
    recorded = torch.as_tensor(evidence.recorded)
    modelled = torch.as_tensor(evidence.fc)
    mean = recorded.mean(0)
    control = linear_network(connectome, mean, regional=2)
    structure = connectome.weights.to(recorded).expand_as(recorded)
    others = _mean_of_others(recorded)
    return VisitFitsSection(
        visits=len(recorded),
        regions=recorded.shape[-1],
        parameters=parameters,
        fc_r=spread(evidence.fc_r.tolist()),
        mean_fc={
            "recorded": edges(mean).mean().item(),
            "fitted": edges(modelled).mean().item(),
        },
        mean_fc_r=similarity(modelled.mean(0), mean).item(),
        linear_control=control.fc_r,
        baseline=spread(similarity(others, recorded).tolist()),
        sc_fc=spread(similarity(structure, recorded).tolist()),
        loop_gain=spread(evidence.loop_gain.tolist()),
    )


def _mean_of_others(recorded: Tensor) -> Tensor:
    """Mean connectivity of the other patients, for every visit (two per patient)."""
    if len(recorded) <= 2:
        return recorded
    own = recorded.unflatten(0, (-1, 2)).sum(1).repeat_interleave(2, 0)
    return (recorded.sum(0) - own) / (len(recorded) - 2)
