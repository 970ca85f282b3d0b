"""A study from dataset to report: participant by participant, then the group; whatever
is done is not done twice."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cingulum.brain.connectome import Connectome
from cingulum.cache import status
from cingulum.cache.store import Store
from cingulum.errors import InputError
from cingulum.features import Feature, FeatureOptions
from cingulum.features.cohort_features import CohortFeatures
from cingulum.io import Cohort, Visit, read_cohort, visits
from cingulum.io.bids_index import index
from cingulum.io.cohort import ordered_visits
from cingulum.io.files import write_table
from cingulum.io.visit import checked_filters
from cingulum.parallel import Executor
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.covariates import check_columns
from cingulum.pipeline.fitted_rows import finish
from cingulum.pipeline.gathering import gather
from cingulum.pipeline.measurement import (
    Failure,
    MeasurementPlan,
    describe,
    generated_by,
    load,
    measure_visits,
    modalities,
)
from cingulum.pipeline.study_file import write_study
from cingulum.report.manifest import ReportManifest
from cingulum.signals.atlas import Atlas, named_atlas
from cingulum.signals.bold import Denoising


@dataclass(frozen=True)
class RunPaths:
    """Where a study is done, and by whom.

    derivatives: further derivative datasets; work: where what is half done is kept
        (default: work/ in `out`)
    """

    bids: Path
    out: Path
    derivatives: tuple[Path, ...] = ()
    work: Path | None = None
    executor: Executor = field(default_factory=Executor)
    show_progress: bool = False

    def __post_init__(self) -> None:
        """Folders as they are seen from anywhere: workers of a cluster may stand in
        another one."""
        work = None if self.work is None else Path(self.work).absolute()
        apart = tuple(Path(folder).absolute() for folder in self.derivatives)
        for name, value in {
            "bids": Path(self.bids).absolute(),
            "out": Path(self.out).absolute(),
            "derivatives": apart,
            "work": work,
        }.items():
            object.__setattr__(self, name, value)

    @property
    def keep(self) -> Path:
        return Path(self.work or Path(self.out) / "work")

    def anonymous(self, text: str) -> str:
        """The text without folders of this machine, which would name people."""
        folders = [self.bids, *self.derivatives, self.out, self.keep, Path.home()]
        return status.without_folders(
            text, sorted(folders, key=lambda folder: -len(str(folder)))
        )


@dataclass(frozen=True, eq=False)
class MeasuredVisits:
    """What was measured: visits, features by name, and what failed."""

    visits: list[Visit]
    wanted: dict[str, Feature]
    failures: list[Failure]


def planned(study: StudyConfig) -> MeasurementPlan:
    """What a study measures of every visit. Raises InputError for an unfit
    connectome."""
    atlas, connectome = atlas_and_connectome(study)
    return MeasurementPlan(
        modalities(
            study.features.modalities,
            FeatureOptions(atlas=atlas, connectome=connectome),
        ),
        denoising(study),
    )


def atlas_and_connectome(study: StudyConfig) -> tuple[Atlas, Connectome | None]:
    """The regions of the fitted brains, and their connections where a file names
    them."""
    told = study.features
    atlas = named_atlas(told.atlas)
    if not told.connectome:
        return atlas, None
    from cingulum.pipeline.single_recording import read_atlas_connectome

    return atlas, read_atlas_connectome(Path(told.connectome), atlas.regions)


def denoising(study: StudyConfig) -> Denoising:
    told = study.features
    return Denoising(told.strategy, told.scrub, told.low_pass, told.high_pass)


def found(study: StudyConfig, place: RunPaths) -> list[Visit]:
    """The visits that a study is about. Raises InputError for a folder that is no
    dataset, or unknown labels."""
    told = study.dataset
    return visits(
        place.bids,
        told.participants or None,
        sessions=told.sessions or None,
        filters=checked_filters(told.filters, "filters"),
        derivatives=place.derivatives,
    )


def take(
    study: StudyConfig, place: RunPaths, seen: Sequence[Visit] | None = None
) -> MeasuredVisits:
    """Measure every visit, and fit where a model is to be fitted. What fails is
    recorded, and the rest goes on.

    Raises InputError where nothing could be measured at all.
    """
    plan = planned(study)
    seen = list(seen) if seen is not None else found(study, place)
    describe(place.out)
    strike_out(study, place)
    folders = [place.bids, *place.derivatives, place.keep]
    failures = measure_visits(
        seen,
        plan,
        place.out,
        work=place.keep,
        folders=folders,
        executor=place.executor,
        show_progress=place.show_progress,
    )
    failed = {(one.participant, one.session, one.feature) for one in failures}
    for name, feature in plan.features.items():
        if feature.fitted:
            here = [
                visit
                for visit in seen
                if (visit.participant, visit.session, name) not in failed
            ]
            rows = [load(visit, feature, place.out) for visit in here]
            _, lost = finish(
                feature,
                here,
                rows,
                place.out,
                place.keep,
                place.executor,
                place.show_progress,
            )
            lost = [(k, place.anonymous(why)) for k, why in lost]
            failures += [
                Failure(here[k].participant, here[k].session, name, why)
                for k, why in lost
            ]
            for visit in here:
                why = {here[k].name: why for k, why in lost}.get(visit.name)
                status.note(place.keep, visit, {name: why} if why else {}, [name])
    if len({(one.participant, one.session) for one in failures}) == len(
        seen
    ) and _nothing(failures, plan, seen):
        raise InputError(
            f"Nothing could be measured. The first reason: {failures[0].reason}"
        )
    note_failures(place)
    return MeasuredVisits(seen, dict(plan.features), failures)


def _nothing(
    failures: list[Failure], plan: MeasurementPlan, seen: Sequence[Visit]
) -> bool:
    return len(failures) == len(plan.features) * len(seen)


def strike_out(study: StudyConfig, place: RunPaths) -> None:
    """Take visits that left the dataset out of the ledger, where the study is about
    everybody."""
    told = study.dataset
    if not (told.participants or told.sessions):
        status.keep_only(place.keep, found(study, place))


def note_failures(place: RunPaths) -> None:
    """Write failures.tsv from the ledger, so that many jobs on one folder tell all that
    failed; none: it goes."""
    path, table = Path(place.out) / "failures.tsv", status.state(place.out, place.keep)
    failed = table[table["state"] == "failed"].drop(columns="state")
    if len(failed):
        write_table(path, failed)
    else:
        path.unlink(missing_ok=True)


def group(study: StudyConfig, place: RunPaths) -> dict[str, Any]:
    """Everything of a paired study: measure what is missing, predict, report; returns
    the summary.

    Raises InputError where fewer than 10 participants are left to analyse.
    """
    from cingulum.cache.blocks import kept
    from cingulum.pipeline.participant_pages import write_pages
    from cingulum.pipeline.study_report import evaluated, publish

    if (
        study.prediction.missing == "log_odds"
    ):  # which is the only fusion that can do without a modality
        study = replace(study, prediction=replace(study.prediction, fusion="log_odds"))
    cohort = cohort_of(study, place)
    check_asked(study, cohort)
    begin(study, place)
    taken = take(study, place, cohort.visits)
    features, cohort = gathered(study, place, taken, cohort)
    told, jobs = study.prediction, kept(Store(place.keep), place.executor)
    try:
        findings = evaluated(
            features,
            cohort,
            permutations=told.permutations,
            seed=told.seed,
            fusion=told.fusion,  # type: ignore[arg-type]
            missing=told.missing,  # type: ignore[arg-type]
            confounds=told.confounds,
            fuse_controls=told.fuse_controls,
            site=told.site,  # type: ignore[arg-type]
            stop_after=told.stop_after,
            jobs=jobs,
            show_progress=place.show_progress,
        )
    except InputError as trouble:
        raise InputError(f"{trouble}{_lost(cohort)}") from None
    title = (
        study.title
        or f"Which visit hurt more? {len(cohort.participants)} patients, two visits "
        "each"
    )
    pages = write_pages(
        ordered_visits(place.bids, taken.visits),
        taken.wanted,
        taken.failures,
        place.out,
        place.keep,
        ratings=cohort.ratings,
        decisions=findings.paired.predictions(),
        executor=place.executor,
        show_progress=place.show_progress,
    )
    return publish(
        place.out,
        title,
        cohort,
        features,
        findings,
        study=study,
        recipe=recipe(study),
        pipelines=pipelines(place),
        pages=pages,
        jobs=jobs,
        show_progress=place.show_progress,
    )


def recipe(study: StudyConfig) -> dict[str, Any]:
    """How recordings were treated, in the words of the methods."""
    atlas, connectome = atlas_and_connectome(study)
    origin = (
        "a distance rule" if connectome is None else "the weights of connectome.npy"
    )
    words = denoising(study).description()
    return {
        "denoising": words,
        "atlas": atlas.name,
        "regions": len(atlas.regions),
        "connectome": origin,
        "site": study.prediction.site,
    }


def pipelines(place: RunPaths) -> list[str]:
    """What made the derivatives, with versions, as they say themselves."""
    roots = [
        root
        for root in index(place.bids, place.derivatives).roots[1:]
        if root.resolve() != place.out.resolve()
    ]
    told = [
        path for root in roots if (path := root / "dataset_description.json").is_file()
    ]
    return sorted(
        {
            f"{name} {version}".strip()
            for path in told
            for name, version in generated_by(path)
        }
    )


def _lost(cohort: Cohort) -> str:
    if not cohort.left_out:
        return ""
    name, why = next(iter(cohort.left_out.items()))
    return (
        f" {len(cohort.left_out)} participant(s) had to be left out; the first, "
        f"sub-{name}: {why}"
    )


def check_asked(study: StudyConfig, cohort: Cohort) -> None:
    """Raises InputError for what would stop a study after hours of measuring: too few
    participants, or a site or confounds that participants.tsv does not tell."""
    if len(cohort.participants) < 10:
        raise InputError(
            "A prediction needs at least 10 participants; came "
            f"{len(cohort.participants)}."
            f"{_lost(cohort)}"
        )
    check_columns(cohort, study.prediction.site, study.prediction.confounds)


def cohort_of(study: StudyConfig, place: RunPaths) -> Cohort:
    """The participants and visits that a paired study is about."""
    told = study.dataset
    cohort = read_cohort(
        place.bids,
        told.participants or None,
        sessions=told.sessions or None,
        filters=checked_filters(told.filters, "filters"),
        derivatives=place.derivatives,
    )
    return replace(
        cohort,
        left_out={name: place.anonymous(why) for name, why in cohort.left_out.items()},
    )


def gathered(
    study: StudyConfig, place: RunPaths, taken: MeasuredVisits, cohort: Cohort
) -> tuple[CohortFeatures, Cohort]:
    """The features of a cohort, and who is left of it."""
    return gather(
        cohort,
        place.out,
        taken.wanted,
        work=place.keep,
        failures=taken.failures,
        missing=study.prediction.missing,
        executor=place.executor,
    )


def begin(study: StudyConfig, place: RunPaths) -> None:
    """Note the study that is being done: in the work folder and, where no report stands
    that another one belongs to, in the output folder. Raises InputError for an output
    folder that is not ours."""
    describe(place.out)
    for folder in {
        place.keep,
        *([] if (place.out / "report.html").is_file() else [place.out]),
    }:
        write_study(study, ReportManifest(folder))


def forget(study: StudyConfig, place: RunPaths) -> None:
    """Take back what a study measured and fitted, so that everything is done anew. Of
    the work folder, which may be anywhere and hold anything, only our own `kept/` goes,
    and only where the study is about everybody."""
    if not (Path(place.out) / "dataset_description.json").is_file():
        return
    describe(place.out)  # raises for a folder that is not ours
    plan = planned(study)
    for visit in found(study, place):
        for files in status.files_of(visit, plan.features).values():
            for file in files:
                (Path(place.out) / file).unlink(missing_ok=True)
        for fit in (Path(place.out) / visit.folder).rglob("*_fit.json"):
            fit.unlink()
    if not (study.dataset.participants or study.dataset.sessions):
        shutil.rmtree(place.keep / "kept", ignore_errors=True)
