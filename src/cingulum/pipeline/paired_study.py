"""A paired study from dataset to results: participant by participant, then the group;
whatever is done is not done twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd

from cingulum.cache.blocks import kept_blocks
from cingulum.cache.status import FAILED
from cingulum.errors import InputError
from cingulum.features import Feature
from cingulum.features.cohort_features import CohortFeatures
from cingulum.features.registry import control_names
from cingulum.io.cohort import Cohort, ordered_visits, read_cohort
from cingulum.io.derivatives import describe_dataset, is_synthetic
from cingulum.io.files import JsonObject, write_table
from cingulum.io.outcome import RatedOutcome
from cingulum.io.visit import Visit
from cingulum.pipeline.cohort_table import cohort_features
from cingulum.pipeline.config import PredictionConfig, StudyConfig, write_study
from cingulum.pipeline.covariates import (
    check_columns,
    confound_values,
    family_labels,
    participant_rows,
    site_labels,
)
from cingulum.pipeline.feature_table import FeatureTable
from cingulum.pipeline.measurement import Failure, failed_keys, measure_visits
from cingulum.pipeline.measurement_cache import MeasurementPlan, expected_files
from cingulum.pipeline.participant_pages import StudyContext, write_pages
from cingulum.pipeline.paths import RunPaths, StudyRun
from cingulum.pipeline.study_settings import (
    is_about_everybody,
    pipelines_of,
    plan_of,
    recipe_of,
    selection_of,
    study_visits,
)
from cingulum.prediction.paired_visits import PairedVisits
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.settings import (
    Fusion,
    Missing,
    Permutations,
    Svm,
    Validation,
)
from cingulum.prediction.study_evaluation import (
    RatingRegression,
    StudyData,
    StudyEvaluation,
    evaluate_study,
)
from cingulum.report.manifest import ReportManifest
from cingulum.report.study import StudyMaterial, study_maps, write_study_report

# Below this even a perfect score could be chance.
FEWEST_PARTICIPANTS = 10


@dataclass(frozen=True, eq=False)
class MeasuredVisits:
    """What was measured: visits, the plan by which, and what failed."""

    visits: list[Visit]
    plan: MeasurementPlan
    failures: list[Failure]


def measure_study(
    study: StudyConfig, run: StudyRun, visits: Sequence[Visit] | None = None
) -> MeasuredVisits:
    """Measure every visit of a study, and fit where a model is to be fitted. What fails
    is recorded, and the rest goes on.

    Raises InputError where nothing could be measured at all.
    """
    plan = plan_of(study, run.paths)
    if visits is None:
        visits = study_visits(study, run.paths)
    describe_dataset(run.paths.out)
    forget_absent_visits(study, run.paths)
    failures = measure_visits(visits, plan, run)
    failures = _fit_models(visits, plan, failures, run)
    _check_some_measured(failures, len(plan.features) * len(visits))
    write_failures(run.paths)
    return MeasuredVisits(list(visits), plan, failures)


def _check_some_measured(failures: Sequence[Failure], expected: int) -> None:
    # Everything of everybody: a wrong setting rather than bad recordings.
    if expected and len(failures) == expected:
        raise InputError(
            f"Nothing could be measured. The first reason: {failures[0].reason}"
        )


def _fit_models(
    visits: Sequence[Visit],
    plan: MeasurementPlan,
    failures: Sequence[Failure],
    run: StudyRun,
) -> list[Failure]:
    """Fit the features that are models, and record which visits failed; returns all
    failures."""
    fitted = {name: f for name, f in plan.features.items() if f.batch_size}
    table = FeatureTable.build(visits, replace(plan, features=fitted), run, failures)
    # What was not measured could not be fitted, and is on record already.
    unmeasured = failed_keys(failures)
    reasons = {failure.key: failure.reason for failure in table.failures}
    for name in fitted:
        for visit in visits:
            key = (*visit.key, name)
            if key not in unmeasured:
                _record_fit(visit, name, reasons.get(key), run)
    return list(table.failures)


def _record_fit(visit: Visit, feature: str, reason: str | None, run: StudyRun) -> None:
    """Record whether a model was fitted to a visit; reason: why not."""
    reasons = {}
    if reason is not None:
        reasons[feature] = reason
    run.paths.status.note(visit, reasons, [feature])


def forget_absent_visits(study: StudyConfig, paths: RunPaths) -> None:
    """Remove visits that left the dataset from the record, where the study is about
    everybody."""
    if is_about_everybody(study):
        paths.status.keep_only(study_visits(study, paths))


def write_failures(paths: RunPaths) -> None:
    """Write failures.tsv from the record, so that it lists the failures of all jobs on
    one folder; where nothing failed, the file is removed."""
    # Always the whole file: a job may have repaired what another one failed at.
    path = paths.out / "failures.tsv"
    table = paths.status.table(paths.out)
    failed = table[table["state"] == FAILED].drop(columns="state")
    if len(failed):
        write_table(path, failed)
    else:
        path.unlink(missing_ok=True)


def run_paired_study(study: StudyConfig, run: StudyRun) -> JsonObject:
    """Everything of a paired study: measure what is missing, predict, report; returns
    the summary.

    Raises InputError where fewer than 10 participants are left to analyse.
    """
    study = _with_possible_fusion(study)
    cohort = study_cohort(study, run.paths)
    # Before hours of measuring, not after.
    check_study(study, cohort)
    begin_study(study, run.paths)
    measured = measure_study(study, run, cohort.visits)
    # From here on the cohort is smaller: without those whose measurements failed.
    features, cohort = features_of_cohort(study, run, measured, cohort)
    jobs = kept_blocks(run.paths.store, run.executor)
    evaluation = _evaluate(study, run, features, cohort, jobs)
    pages = _write_participant_pages(run, measured, cohort, evaluation)
    material = StudyMaterial(
        study.title or _default_title(cohort),
        cohort,
        features,
        evaluation,
        study_maps(features, evaluation, jobs, run.show_progress),
        recipe=recipe_of(study, run.paths),
        pipelines=pipelines_of(run.paths),
        pages=pages,
        synthetic=is_synthetic(run.paths.bids),
    )
    # With the report, so that study.toml in the folder is that of the report.
    manifest = ReportManifest(run.paths.out)
    write_study(study, manifest)
    return write_study_report(material, manifest)


def _with_possible_fusion(study: StudyConfig) -> StudyConfig:
    """The study; with missing modalities it adds log-odds, the only fusion that can do
    without one."""
    if study.prediction.missing != "log_odds":
        return study
    prediction = replace(study.prediction, fusion="log_odds")
    return replace(study, prediction=prediction)


def _evaluate(
    study: StudyConfig,
    run: StudyRun,
    features: CohortFeatures,
    cohort: Cohort,
    jobs: Jobs,
) -> StudyEvaluation:
    """The evaluation. Raises InputError that also says who had to be left out: that is
    often why too few participants are left."""
    try:
        return evaluate_cohort(
            features,
            cohort,
            study.prediction,
            jobs=jobs,
            show_progress=run.show_progress,
        )
    except InputError as error:
        raise InputError(f"{error}{_who_was_left_out(cohort)}") from None


def _write_participant_pages(
    run: StudyRun, measured: MeasuredVisits, cohort: Cohort, evaluation: StudyEvaluation
) -> list[str]:
    decisions = evaluation.paired.predictions()
    return write_pages(
        ordered_visits(run.paths.bids, measured.visits),
        measured.plan,
        measured.failures,
        run,
        study=StudyContext(cohort.ratings, decisions),
    )


def _default_title(cohort: Cohort) -> str:
    count = len(cohort.participants)
    return f"Which visit hurt more? {count} patients, two visits each"


def features_of_cohort(
    study: StudyConfig, run: StudyRun, measured: MeasuredVisits, cohort: Cohort
) -> tuple[CohortFeatures, Cohort]:
    """The features of a cohort, and who is left of it."""
    table = FeatureTable.build(cohort.visits, measured.plan, run, measured.failures)
    return cohort_features(cohort, table, study.prediction.missing)


def evaluate_cohort(
    features: CohortFeatures,
    cohort: Cohort,
    config: PredictionConfig,
    *,
    jobs: Jobs = None,
    learning: bool = True,
    show_progress: bool = False,
) -> StudyEvaluation:
    """The whole evaluation of a cohort: each modality and their fusion, single scans,
    ratings between patients, audit.

    A confound that does not differ between the visits of a person (age, sex) matters
    between patients only.
    """
    people = participant_rows(cohort, features.patients)
    sites = None
    if config.site is not None:
        sites = site_labels(people, config.site)
    visits = _paired_visits(features, people, config)
    ratings = _ratings(cohort, features.patients)
    return evaluate_study(
        # Which visit hurt more, and not which came later: orders may be balanced.
        StudyData(visits, ratings, higher=ratings[:, 1] > ratings[:, 0], sites=sites),
        svm=_svm(config),
        validation=Validation(seed=config.seed),
        permutations=Permutations(config.permutations, config.stop_after),
        regression=RatingRegression(),
        learning=learning,
        jobs=jobs,
        show_progress=show_progress,
    )


def _ratings(cohort: Cohort, patients: Sequence[str]) -> np.ndarray:
    """Pain (patient, visit), in the order of the features."""
    ratings = cohort.ratings.pivot(index="participant", columns="state", values="pain")
    return ratings.loc[list(patients)].to_numpy(float)


def _svm(config: PredictionConfig) -> Svm:
    # Both are choices of a study file, checked when it was read.
    fusion = cast(Fusion, config.fusion)
    missing = cast(Missing, config.missing)
    return Svm(fusion=fusion, missing=missing)


def _paired_visits(
    features: CohortFeatures, people: pd.DataFrame, config: PredictionConfig
) -> PairedVisits:
    """What is predicted from, with the controls that were measured and the confounds
    that are regressed out."""
    controls = [name for name in control_names() if name in features.values]
    confounds = {}
    for name in config.confounds:
        confounds[name] = _confound(name, features, people, controls)
    # Controls that are fused count as modalities.
    kept_apart: tuple[str, ...] = ()
    if not config.fuse_controls:
        kept_apart = tuple(controls)
    return PairedVisits(
        dict(features.values),
        features.patients,
        controls=kept_apart,
        confounds=confounds,
        blocks=_families(people, config.family),
    )


def _families(people: pd.DataFrame, column: str | None) -> np.ndarray | None:
    return None if column is None else family_labels(people, column)


def _confound(
    name: str,
    features: CohortFeatures,
    people: pd.DataFrame,
    controls: Sequence[str],
) -> np.ndarray:
    """(patient, visit) of a control, or of a column of participants.tsv."""
    if name in controls:
        return features.values[name][..., 0]
    # A column of participants.tsv is the same at both visits.
    per_patient = confound_values(name, people, controls)
    return np.repeat(per_patient[:, None], 2, 1)


def _who_was_left_out(cohort: Cohort) -> str:
    if not cohort.left_out:
        return ""
    name, reason = next(iter(cohort.left_out.items()))
    return (
        f" {len(cohort.left_out)} participant(s) had to be left out; the first, "
        f"sub-{name}: {reason}"
    )


def check_study(study: StudyConfig, cohort: Cohort) -> None:
    """Raises InputError for what would stop a study after hours of measuring: too few
    participants, or a site, a family or confounds that participants.tsv lacks."""
    _check_size(cohort)
    config = study.prediction
    check_columns(cohort, config.site, config.family, config.confounds)


def _check_size(cohort: Cohort) -> None:
    count = len(cohort.participants)
    if count < FEWEST_PARTICIPANTS:
        raise InputError(
            f"A prediction needs at least {FEWEST_PARTICIPANTS} participants; got "
            f"{count}.{_who_was_left_out(cohort)}"
        )


def study_cohort(study: StudyConfig, paths: RunPaths) -> Cohort:
    """The participants and visits that a paired study is about."""
    selection = selection_of(study)
    cohort = read_cohort(
        paths.bids,
        selection.participants,
        sessions=selection.sessions,
        filters=selection.filters,
        derivatives=paths.derivatives,
        outcome=outcome_of(study),
    )
    return replace(cohort, left_out=_without_folders(cohort.left_out, paths))


def outcome_of(study: StudyConfig) -> RatedOutcome:
    """What a study is about. Raises InputError for a scale without two ends."""
    ends = study.prediction.outcome_range
    if len(ends) != 2:
        raise InputError(
            "--outcome-range takes two numbers, the lowest and the highest possible "
            f"outcome; got {len(ends)}."
        )
    return RatedOutcome(study.prediction.outcome, *ends)


def _without_folders(reasons: Mapping[str, str], paths: RunPaths) -> dict[str, str]:
    # Reasons are printed in reports, and folders would name people.
    return {name: paths.without_folders(text) for name, text in reasons.items()}


def begin_study(study: StudyConfig, paths: RunPaths) -> None:
    """Write the settings of the study that is being done: to the work folder and, as
    long as there is no report of an earlier study, to the output folder.

    Raises InputError for an output folder that is not ours.
    """
    describe_dataset(paths.out)
    write_study(study, ReportManifest(paths.work))
    # Beside a report, study.toml must say how that report was made.
    if not (paths.out / "report.html").is_file():
        write_study(study, ReportManifest(paths.out))


def forget_study(study: StudyConfig, paths: RunPaths) -> None:
    """Remove what a study measured and fitted, so that everything is done again.

    Of the work folder, which may be anywhere and hold anything, only results that we
    named are removed, and only where the study is about everybody.
    """
    if not (paths.out / "dataset_description.json").is_file():
        return
    # Raises for a folder that is not ours.
    describe_dataset(paths.out)
    features = plan_of(study, paths).features
    for visit in study_visits(study, paths):
        _forget_visit(visit, list(features.values()), paths)
    if is_about_everybody(study):
        paths.store.clear()


def _forget_visit(visit: Visit, features: Sequence[Feature], paths: RunPaths) -> None:
    """Remove the measurements and fits of a visit."""
    for feature in features:
        _forget_feature(visit, feature, paths)
    # The numbers of a model study, which are no feature.
    for fit in (paths.out / visit.folder).rglob("*_fit.json"):
        fit.unlink()


def _forget_feature(visit: Visit, feature: Feature, paths: RunPaths) -> None:
    for file in expected_files(visit, feature):
        (paths.out / file).unlink(missing_ok=True)
