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
from cingulum.io.files import as_numbers
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

OLDEST_REPORTED = 90
"""Years above which an age could identify a person."""


def spread(values: Iterable[float]) -> Spread:
    """Mean, SD and range of the values that are finite."""
    numbers = np.asarray(list(values), dtype=float)
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return Spread(None, None, None, None)
    return Spread(
        mean=float(known.mean()),
        sd=_standard_deviation(known),
        low=float(known.min()),
        high=float(known.max()),
    )


def _standard_deviation(values: np.ndarray) -> float:
    # The SD of a sample is not defined for a single value, and JSON has no NaN.
    if len(values) == 1:
        return 0.0
    return float(values.std(ddof=1))


def _spread_of_permutations(null: np.ndarray) -> Spread | None:
    """None where nothing was permuted."""
    if not len(null):
        return None
    return spread(null)


def _number_of_folds(folds: np.ndarray) -> int:
    # Folds are numbered from 0.
    return int(folds.max()) + 1


def cohort_section(cohort: Cohort) -> CohortSection:
    """Who was scanned, and the pain they reported at the first and the second visit."""
    ratings = cohort.ratings
    pain = ratings.pivot(index="participant", columns="state", values="pain")
    return CohortSection(
        patients=len(pain),
        # The cohort holds patients with both visits only.
        visits=2 * len(pain),
        first_session=_sessions_of_state(ratings, 0),
        second_session=_sessions_of_state(ratings, 1),
        pain=_pain(pain),
        pain_rose_in=int((pain[1] > pain[0]).sum()),
        orders=_orders(ratings),
        age=_age(cohort.people),
        sex=_sex(cohort.people),
    )


def _pain(pain: pd.DataFrame) -> PainRatings:
    """From a row per patient, a column per state."""
    first = pain[0]
    second = pain[1]
    return PainRatings(
        first=spread(first), second=spread(second), change=spread(second - first)
    )


def _sessions_of_state(ratings: pd.DataFrame, state: int) -> list[str]:
    return sorted(ratings.loc[ratings["state"] == state, "session"].unique())


def _orders(ratings: pd.DataFrame) -> dict[str, int]:
    """How many patients had their sessions in each order, the commonest first."""
    by_patient = ratings.sort_values("state").groupby("participant")["session"]
    return _counts(by_patient.agg(", then ".join))


def _counts(labels: pd.Series) -> dict[str, int]:
    """How often each label occurs, the commonest first."""
    counts = labels.value_counts()
    return {str(label): int(count) for label, count in counts.items()}


def _age(people: pd.DataFrame) -> Age | None:
    """Of the participants whose age is a number; high ages are capped."""
    # The column is optional in BIDS.
    if "age" not in people:
        return None
    # Ages may be written as "n/a" or, by rule of privacy, as "89+".
    age = as_numbers(people["age"]).clip(upper=OLDEST_REPORTED)
    known = int(age.notna().sum())
    if not known:
        return None
    return Age(**asdict(spread(age)), known=known)


def _sex(people: pd.DataFrame) -> dict[str, int]:
    if "sex" not in people:
        return {}
    return _counts(people["sex"].fillna("n/a"))


def visit_section(features: CohortFeatures) -> dict[str, TwoVisits]:
    """Features with one number per visit, at the first and the second visit."""
    section = {}
    for name, values in features.values.items():
        # Means over the columns of a map or a fitted brain would have no meaning.
        if values.shape[-1] == 1:
            label = f"{model_label(name)}, {features.units[name]}"
            section[label] = _two_visits(values[..., 0])
    return section


def _two_visits(values: np.ndarray) -> TwoVisits:
    """From values (patient, visit)."""
    return TwoVisits(first=spread(values[:, 0]), second=spread(values[:, 1]))


def performance_section(evaluation: Evaluation) -> dict[str, Performance]:
    """How well each model identifies the visit that hurt more."""
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
        # Patients who lack a modality have no decision of its model.
        patients=int(np.isfinite(score.decisions).sum()),
        permutations=score.permutations,
        null_accuracy=_spread_of_permutations(score.null),
    )


def regression_section(ratings: Ratings, level: float = 0.9) -> RegressionSection:
    """A regression of ratings between patients, beside its baselines.

    level: of the conformal prediction intervals
    """
    scans = ratings.scans
    return RegressionSection(
        participants=len(scans.names),
        scans=len(scans.rating),
        figures=ratings.performance,
        intervals=ratings.intervals,
        p=ratings.p,
        p_pooled=ratings.p_pooled,
        null_r_within_state=_spread_of_permutations(ratings.null),
        baselines=ratings.baselines,
        conformal=_conformal(ratings, level),
        model=ratings.model,
        on=ratings.on,
        folds=_number_of_folds(ratings.folds),
        permutations=ratings.permutations,
    )


def _conformal(ratings: Ratings, level: float) -> Conformal:
    scans = ratings.scans
    residuals = scans.rating - ratings.predicted
    # By patient: two scans of one person are not exchangeable with those of others.
    reach = conformal_reach(residuals, scans.patient, level)
    return Conformal(level, reach)


def published_section(published: PublishedRegression) -> PublishedSection:
    """The recipe of Lee et al. 2019, with its results on noise."""
    return PublishedSection(
        label=published.label,
        train_r=published.train_r,
        train_rmse=published.train_rmse,
        test_r=published.test_r,
        test_rmse=published.test_rmse,
        p=published.p,
        # What noise reaches shows how much of the published figure means nothing.
        noise_r=published.noise_r,
        noise_range=published.noise_range,
    )


def evaluation_section(evaluation: StudyEvaluation) -> EvaluationSection:
    """Everything that was evaluated on pairs of visits."""
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
    scores = evaluation.paired.scores
    return Estimands(
        forced_choice=performance_section(evaluation.paired),
        single_interval={name: _single_scan(score) for name, score in scores.items()},
        between_patients=_between_patients(evaluation),
    )


def _single_scan(score: Score) -> SingleScan:
    return SingleScan(
        auc=score.single_scan_auc,
        auc_ci=score.single_scan_auc_ci,
        p=score.single_scan_p,
    )


BetweenPatients = dict[str, RegressionSection | PublishedSection | str]


def _between_patients(evaluation: StudyEvaluation) -> BetweenPatients:
    """Every regression between patients or, without any, the reason."""
    sections: BetweenPatients = {}
    for visits, ratings in evaluation.ratings.items():
        sections[visits] = regression_section(ratings)
    if evaluation.published is not None:
        sections[PUBLISHED] = published_section(evaluation.published)
    # An empty object would leave open whether something went wrong.
    if not sections:
        sections[NOT_ASKED] = "; ".join(evaluation.words) or "no ratings were given"
    return sections


def _calibration(calibration: DecisionCalibration | None) -> CalibrationSection | None:
    if calibration is None:
        return None
    return CalibrationSection(calibration.brier, calibration.curve)


def evaluation_settings(
    evaluation: Evaluation, features: CohortFeatures
) -> EvaluationSettings:
    """How the models were trained and tested."""
    return EvaluationSettings(
        patients=len(evaluation.patients),
        C=list(evaluation.C),
        folds=_number_of_folds(evaluation.folds),
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
        columns=_column_counts(features),
    )


def _column_counts(features: CohortFeatures) -> dict[str, int]:
    return {name: varying_columns(values) for name, values in features.values.items()}


def varying_columns(values: np.ndarray) -> int:
    """Columns that are not constant: a map's voxels outside the brain do not count."""
    rows = values.reshape(-1, values.shape[-1])
    # Visits without the feature are all NaN.
    rows = rows[~np.isnan(rows).all(1)]
    if not len(rows):
        return 0
    return int((np.ptp(rows, axis=0) > 0).sum())


def fit_section(
    verified: RestingFit, weights: Tensor, train: Tensor, heldout: Tensor | None
) -> FitSection:
    """A verified fit beside its controls.

    weights: of the connectome; train, heldout: connectivity; all (region, region)
    """
    return FitSection(
        fc_r=_fit_correlations(verified, weights, train, heldout),
        # A fit may have the right pattern at the wrong level, so levels are shown too.
        mean_fc={**verified.levels, "recorded": _mean_connectivity(train)},
        regions=train.shape[-1],
        parameters=verified.parameters,
        control_parameters=verified.control.parameters,
        estimates=_estimate_spreads(verified),
        loop_gain=verified.fit.loop_gain.item(),
        slowest_return_per_s=verified.stability.slowest,
        simulated_minutes=verified.simulated_minutes,
        # Steps of simulation are usually given in milliseconds.
        time_step_ms=1000 * verified.dt,
        seconds=verified.seconds,
    )


def _estimate_spreads(verified: RestingFit) -> dict[str, Spread]:
    """Estimates over regions, by parameter."""
    spreads = {}
    for name, value in verified.fit.estimates.items():
        # A parameter of the whole brain has no axis of regions.
        spreads[name] = spread(value.reshape(-1).tolist())
    return spreads


def _mean_connectivity(connectivity: Tensor) -> float:
    """Over pairs of regions and, where there are several matrices, over them."""
    return edges(connectivity).mean().item()


def _fit_correlations(
    verified: RestingFit, weights: Tensor, train: Tensor, heldout: Tensor | None
) -> dict[str, float]:
    """Correlations of the fit and its controls with the data it was fitted to and, if
    there are any, held-out data."""
    correlations = {"sc_fc": similarity(weights.to(train), train).item()}
    if heldout is None:
        return correlations | _part_correlations(verified, "train", train)
    # No model can be expected to explain held-out data better than the data do.
    correlations["ceiling"] = similarity(train, heldout.to(train)).item()
    correlations |= _part_correlations(verified, "train", train)
    return correlations | _part_correlations(verified, "heldout", heldout)


def _part_correlations(
    verified: RestingFit, part: str, connectivity: Tensor
) -> dict[str, float]:
    """Correlations of the fit and its control with one part of the data."""
    against = verified.against(connectivity)
    return {
        part: against["free_running"],
        f"analytic_{part}": against["analytic"],
        f"linear_control_{part}": against["linear_control"],
    }


def fitted_brain_section(fit: FittedBrain) -> FittedBrainSection:
    """A fit, and where its data come from."""
    section = fit_section(fit.verified, fit.weights, fit.train, fit.heldout)
    return FittedBrainSection(**vars(section), source=fit.source)


def visit_fits_section(evidence: FitEvidence, parameters: int) -> VisitFitsSection:
    """Brains fitted to visits, two per patient, beside the controls they are compared
    with.

    parameters: that were fitted to a visit
    """
    recorded = torch.as_tensor(evidence.recorded)
    modelled = torch.as_tensor(evidence.fc)
    mean = recorded.mean(0)
    # 2: the noise level and the gain of every region are free, so that the control is
    # about as flexible as the fitted brain.
    control = linear_network(evidence.connectome, mean, regional=2)
    structure = evidence.connectome.weights.to(recorded).expand_as(recorded)
    return VisitFitsSection(
        visits=len(recorded),
        regions=recorded.shape[-1],
        parameters=parameters,
        fc_r=spread(evidence.fc_r.tolist()),
        mean_fc={
            "recorded": _mean_connectivity(mean),
            "fitted": _mean_connectivity(modelled),
        },
        mean_fc_r=similarity(modelled.mean(0), mean).item(),
        linear_control=control.fc_r,
        baseline=_similarity_spread(_mean_of_others(recorded), recorded),
        sc_fc=_similarity_spread(structure, recorded),
        loop_gain=spread(evidence.loop_gain.tolist()),
    )


def _similarity_spread(predicted: Tensor, recorded: Tensor) -> Spread:
    """Correlations with the recorded connectivity, over visits."""
    return spread(similarity(predicted, recorded).tolist())


def _mean_of_others(recorded: Tensor) -> Tensor:
    """Mean connectivity of the other patients, for every visit (two per patient)."""
    # A single patient has no others.
    if len(recorded) <= 2:
        return recorded
    # Both visits of a patient are left out: they resemble each other.
    own = recorded.unflatten(0, (-1, 2)).sum(1).repeat_interleave(2, 0)
    return (recorded.sum(0) - own) / (len(recorded) - 2)
