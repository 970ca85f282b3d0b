"""A paired study from dataset to results: participant by participant, then the group;
whatever is done is not done twice."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from cingulum.cache.blocks import kept_blocks
from cingulum.cache.status import FAILED
from cingulum.cache.store import FOLDER as KEPT
from cingulum.errors import InputError
from cingulum.features import Feature
from cingulum.features.cohort_features import CohortFeatures
from cingulum.features.registry import control_names
from cingulum.io.cohort import Cohort, ordered_visits, read_cohort
from cingulum.io.derivatives import describe_dataset
from cingulum.io.files import write_table
from cingulum.io.visit import Visit
from cingulum.pipeline.cohort_table import cohort_features
from cingulum.pipeline.config import PredictionConfig, StudyConfig, write_study
from cingulum.pipeline.covariates import (
    check_columns,
    confound_values,
    participant_rows,
    site_labels,
)
from cingulum.pipeline.feature_table import FeatureTable
from cingulum.pipeline.measurement import Failure, measure_visits
from cingulum.pipeline.measurement_cache import expected_files
from cingulum.pipeline.participant_pages import StudyContext, write_pages
from cingulum.pipeline.paths import Run, RunPaths
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

FEWEST_PARTICIPANTS = 10


@dataclass(frozen=True, eq=False)
class MeasuredVisits:
    """What was measured: visits, features by name, and what failed."""

    visits: list[Visit]
    features: dict[str, Feature]
    failures: list[Failure]


def measure_study(
    study: StudyConfig, run: Run, visits: Sequence[Visit] | None = None
) -> MeasuredVisits:
    """Measure every visit of a study, and fit where a model is to be fitted. What fails
    is recorded, and the rest goes on.

    Raises InputError where nothing could be measured at all.
    """
    plan = plan_of(study)
    visits = study_visits(study, run.paths) if visits is None else list(visits)
    describe_dataset(run.paths.out)
    forget_absent_visits(study, run.paths)
    failures = measure_visits(visits, plan, run)
    failures = _fit_models(visits, plan.features, failures, run)
    if visits and len(failures) == len(plan.features) * len(visits):
        raise InputError(
            f"Nothing could be measured. The first reason: {failures[0].reason}"
        )
    write_failures(run.paths)
    return MeasuredVisits(visits, dict(plan.features), failures)


def _fit_models(
    visits: Sequence[Visit],
    features: Mapping[str, Feature],
    failures: Sequence[Failure],
    run: Run,
) -> list[Failure]:
    """Fit the features that are models, and record which visits failed; returns all
    failures."""
    fitted = {name: f for name, f in features.items() if f.batch_size}
    table = FeatureTable.build(visits, fitted, run, failures)
    measured = {failure.key for failure in failures}
    reasons = {failure.key: failure.reason for failure in table.failures}
    for name in fitted:
        for visit in visits:
            key = (*visit.key, name)
            if key in measured:
                continue
            reason = {name: reasons[key]} if key in reasons else {}
            run.paths.status.note(visit, reason, [name])
    return list(table.failures)


def forget_absent_visits(study: StudyConfig, paths: RunPaths) -> None:
    """Remove visits that left the dataset from the record, where the study is about
    everybody."""
    if is_about_everybody(study):
        paths.status.keep_only(study_visits(study, paths))


def write_failures(paths: RunPaths) -> None:
    """Write failures.tsv from the record, so that many jobs on one folder tell all that
    failed; where nothing failed, the file is removed."""
    path = paths.out / "failures.tsv"
    table = paths.status.table(paths.out)
    failed = table[table["state"] == FAILED].drop(columns="state")
    if len(failed):
        write_table(path, failed)
    else:
        path.unlink(missing_ok=True)


def run_paired_study(study: StudyConfig, run: Run) -> dict[str, Any]:
    """Everything of a paired study: measure what is missing, predict, report; returns
    the summary.

    Raises InputError where fewer than 10 participants are left to analyse.
    """
    if study.prediction.missing == "log_odds":
        # The only fusion that can do without a modality.
        prediction = replace(study.prediction, fusion="log_odds")
        study = replace(study, prediction=prediction)
    cohort = study_cohort(study, run.paths)
    check_study(study, cohort)
    begin_study(study, run.paths)
    measured = measure_study(study, run, cohort.visits)
    features, cohort = features_of_cohort(study, run, measured, cohort)
    jobs = kept_blocks(run.paths.store, run.executor)
    try:
        evaluation = evaluate_cohort(
            features,
            cohort,
            study.prediction,
            jobs=jobs,
            show_progress=run.show_progress,
        )
    except InputError as error:
        raise InputError(f"{error}{_who_was_left_out(cohort)}") from None
    default_title = (
        f"Which visit hurt more? {len(cohort.participants)} patients, two visits each"
    )
    pages = write_pages(
        ordered_visits(run.paths.bids, measured.visits),
        measured.features,
        measured.failures,
        run,
        study=StudyContext(cohort.ratings, evaluation.paired.predictions()),
    )
    material = StudyMaterial(
        study.title or default_title,
        cohort,
        features,
        evaluation,
        study_maps(features, evaluation, jobs, run.show_progress),
        recipe=recipe_of(study),
        pipelines=pipelines_of(run.paths),
        pages=pages,
    )
    manifest = ReportManifest(run.paths.out)
    write_study(study, manifest)
    return write_study_report(material, manifest)


def features_of_cohort(
    study: StudyConfig, run: Run, measured: MeasuredVisits, cohort: Cohort
) -> tuple[CohortFeatures, Cohort]:
    """The features of a cohort, and who is left of it."""
    table = FeatureTable.build(cohort.visits, measured.features, run, measured.failures)
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
    """Ask everything of a cohort: each modality and their fusion, single scans, ratings
    between patients, audit.

    A confound that does not differ between the visits of a person (age, sex) matters
    between patients only.
    """
    ratings = cohort.ratings.pivot(index="participant", columns="state", values="pain")
    ratings = ratings.loc[features.patients]
    people = participant_rows(cohort, features.patients)
    sites = None if config.site is None else site_labels(people, config.site)
    controls = [name for name in control_names() if name in features.values]
    confounds = {
        name: _confound(name, features, people, controls) for name in config.confounds
    }
    visits = PairedVisits(
        dict(features.values),
        features.patients,
        controls=() if config.fuse_controls else tuple(controls),
        confounds=confounds,
    )
    fusion, missing = cast(Fusion, config.fusion), cast(Missing, config.missing)
    return evaluate_study(
        StudyData(visits, ratings.to_numpy(float), sites=sites),
        svm=Svm(fusion=fusion, missing=missing),
        validation=Validation(seed=config.seed),
        permutations=Permutations(config.permutations, config.stop_after),
        regression=RatingRegression(),
        learning=learning,
        jobs=jobs,
        show_progress=show_progress,
    )


def _confound(
    name: str,
    features: CohortFeatures,
    people: pd.DataFrame,
    controls: Sequence[str],
) -> np.ndarray:
    """(patient, visit) of a control, or of a column of participants.tsv."""
    if name in controls:
        return features.values[name][..., 0]
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
    participants, or a site or confounds that participants.tsv does not tell."""
    count = len(cohort.participants)
    if count < FEWEST_PARTICIPANTS:
        raise InputError(
            f"A prediction needs at least {FEWEST_PARTICIPANTS} participants; came "
            f"{count}.{_who_was_left_out(cohort)}"
        )
    check_columns(cohort, study.prediction.site, study.prediction.confounds)


def study_cohort(study: StudyConfig, paths: RunPaths) -> Cohort:
    """The participants and visits that a paired study is about."""
    selection = selection_of(study)
    cohort = read_cohort(
        paths.bids,
        selection.participants,
        sessions=selection.sessions,
        filters=selection.filters,
        derivatives=paths.derivatives,
    )
    private = {
        name: paths.without_folders(reason) for name, reason in cohort.left_out.items()
    }
    return replace(cohort, left_out=private)


def begin_study(study: StudyConfig, paths: RunPaths) -> None:
    """Write the study that is being done: in the work folder and, where no report is
    that another study belongs to, in the output folder.

    Raises InputError for an output folder that is not ours.
    """
    describe_dataset(paths.out)
    folders = {paths.work}
    if not (paths.out / "report.html").is_file():
        folders.add(paths.out)
    for folder in folders:
        write_study(study, ReportManifest(folder))


def forget_study(study: StudyConfig, paths: RunPaths) -> None:
    """Remove what a study measured and fitted, so that everything is done anew.

    Of the work folder, which may be anywhere and hold anything, only our own `kept/` is
    removed, and only where the study is about everybody.
    """
    if not (paths.out / "dataset_description.json").is_file():
        return
    describe_dataset(paths.out)  # raises for a folder that is not ours
    plan = plan_of(study)
    for visit in study_visits(study, paths):
        for feature in plan.features.values():
            for file in expected_files(visit, feature):
                (paths.out / file).unlink(missing_ok=True)
        for fit in (paths.out / visit.folder).rglob("*_fit.json"):
            fit.unlink()
    if is_about_everybody(study):
        shutil.rmtree(paths.work / KEPT, ignore_errors=True)
