"""A study of fitted brains: one for every visit, run freely and compared with data that
its fit never saw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cingulum.cache.keys import key_of
from cingulum.cache.status import RECIPE, Expected
from cingulum.cache.store import Store
from cingulum.errors import ConvergenceError, InputError
from cingulum.features import Mechanism
from cingulum.inference import resting_fit
from cingulum.inference.resting import RestingFit
from cingulum.io.derivatives import describe_dataset
from cingulum.io.files import (
    JsonObject,
    read_json_or_empty,
    remove_partial_files,
    write_json,
)
from cingulum.io.visit import Visit
from cingulum.measures import similarity
from cingulum.parallel import TaskFailure, map_tasks
from cingulum.pipeline.config import StudyConfig, write_study
from cingulum.pipeline.fitted_rows import KEY
from cingulum.pipeline.measurement import Failure
from cingulum.pipeline.measurement_cache import Digests, MeasurementPlan
from cingulum.pipeline.paired_study import (
    begin_study,
    forget_absent_visits,
    write_failures,
)
from cingulum.pipeline.paths import RunPaths, StudyRun
from cingulum.pipeline.single_recording import split_connectivity
from cingulum.pipeline.study_settings import (
    atlas_and_connectome,
    denoising_of,
    pipelines_of,
    recipe_of,
    study_visits,
)
from cingulum.progress import track
from cingulum.report.manifest import Page, ReportManifest, write_report
from cingulum.report.models import (
    BASELINE,
    CEILING,
    CONNECTOME,
    FREE_RUNNING,
    LINEAR_CONTROL,
    MeanFit,
    ModelResults,
    compared_models,
    estimate_spreads,
    model_pictures,
    model_summary,
    retest_correlations,
)
from cingulum.report.references import cited_by_models
from cingulum.report.results import to_plain
from cingulum.report.summarise import fit_section
from cingulum.signals.atlas import Atlas
from cingulum.signals.regional_signals import regional_run
from cingulum.signals.visit_data import VisitData

FIT = "model"
"""What the fits are called in the status of a run and in file names."""

NUMBERS = "numbers"
"""The name under which the section of a fit is kept, as JSON."""

KeptFit = Mapping[str, np.ndarray]
"""Connectivity (`train`, `heldout`, `simulated`), estimates by parameter, numbers."""


@dataclass(frozen=True)
class _FittedVisit:
    """The key under which a fit is kept, or why there is none."""

    key: str = ""
    reason: str = ""


def fit_visits(
    study: StudyConfig, run: StudyRun
) -> tuple[list[Visit], list[Failure], dict[str, str]]:
    """Fit a brain to every visit; what was fitted before is kept, what fails is
    recorded, and the other visits are fitted all the same.

    Returns the visits, what failed, and by visit the key under which its fit is kept.
    """
    paths = run.paths
    visits = study_visits(study, paths)
    describe_dataset(paths.out)
    # An interrupted write leaves a partial file that nothing reads.
    remove_partial_files(paths.out)
    # First, because it raises for a connectome that does not fit the atlas.
    feature = reading_feature(study, paths)
    recipe = fit_recipe(study, feature)
    forget_absent_visits(study, paths)
    _expect(visits, recipe, paths)
    keys: dict[str, str] = {}
    failures: list[Failure] = []
    for visit, fitted in _fit_all(visits, study, feature, recipe, run):
        keys[visit.name] = fitted.key
        _record(visit, fitted.reason, paths)
        if fitted.reason:
            failures.append(Failure.of(visit, FIT, fitted.reason))
    _check_some_fitted(visits, failures)
    # Several jobs may fit parts of a dataset: the file lists the failures of all.
    write_failures(paths)
    return visits, failures, keys


def _expect(visits: Sequence[Visit], recipe: str, paths: RunPaths) -> None:
    """Record that every visit is to be fitted by this recipe."""
    for visit in visits:
        files = {FIT: [fit_path(visit).as_posix()]}
        paths.status.expect(visit, Expected(files, {FIT: recipe}))


def _check_some_fitted(visits: Sequence[Visit], failures: Sequence[Failure]) -> None:
    if visits and len(failures) == len(visits):
        raise InputError(
            f"No visit could be fitted. The first reason: {failures[0].reason}"
        )


def _fit_all(
    visits: Sequence[Visit],
    study: StudyConfig,
    feature: Mechanism,
    recipe: str,
    run: StudyRun,
) -> Iterator[tuple[Visit, _FittedVisit]]:
    """Each visit with its fit, in the order in which they finish."""
    paths = run.paths
    work = _FitWork(study, feature, recipe, paths.out, paths.store)
    tasks = [(visit, work) for visit in visits]
    results = map_tasks(_fit_visit, tasks, run.executor)
    for i, result in track(results, "fit", total=len(tasks), show=run.show_progress):
        if isinstance(result, TaskFailure):
            result = _FittedVisit(reason=result.reason)
        # Reasons go into files that are shared, and folders would name people.
        reason = paths.without_folders(result.reason)
        yield visits[i], _FittedVisit(result.key, reason)


def _record(visit: Visit, reason: str, paths: RunPaths) -> None:
    """Note in the status of the run whether a visit was fitted."""
    reasons = {}
    if reason:
        reasons[FIT] = reason
    paths.status.note(visit, reasons, [FIT])


def fit_path(visit: Visit) -> Path:
    """Where the numbers of a visit's fit are kept, below the output folder."""
    return visit.folder / "func" / f"{visit.name}_desc-{FIT}_fit.json"


def fit_recipe(study: StudyConfig, feature: Mechanism) -> str:
    """Hash of all that the fits of a study depend on beside the recordings; feature:
    what reads the same ones."""
    # The recipe of a feature covers atlas, connectome, cleaning and software.
    plan = MeasurementPlan({FIT: feature}, denoising_of(study))
    return key_of(
        of=plan.recipe_of(feature),
        holdout=study.model.holdout,
        minutes=study.model.minutes,
        seed=study.model.seed,
    )


def reading_feature(study: StudyConfig, paths: RunPaths) -> Mechanism:
    """The feature that reads the same recordings as these fits."""
    atlas, connectome = atlas_and_connectome(study, paths)
    return Mechanism(atlas=atlas, connectome=connectome)


@dataclass(frozen=True, eq=False)
class _FitWork:
    """What a worker needs to fit any visit of a study."""

    study: StudyConfig
    feature: Mechanism
    recipe: str
    out: Path
    store: Store


def _fit_visit(visit: Visit, work: _FitWork) -> _FittedVisit:
    """Fit one visit, unless its fit is kept already, and write its numbers."""
    try:
        recordings = Digests().of_recordings(visit, work.feature)
        key = key_of(recipe=work.recipe, of=recordings)
        path = Path(work.out) / fit_path(visit)
        # Whoever deletes the file wants the visit fitted again.
        kept = None
        if path.is_file():
            kept = work.store.get(key)
        if kept is None:
            kept = _fitted(visit, work.study, work.feature)
            work.store.put(key, kept)
        _write_numbers(path, kept, key, work.recipe)
    except (InputError, ConvergenceError) as error:
        return _FittedVisit(reason=str(error))
    return _FittedVisit(key)


def _write_numbers(path: Path, fit: KeptFit, key: str, recipe: str) -> None:
    """Write the numbers of a fit, unless the file says the same."""
    content = {**_numbers(fit), KEY: key, RECIPE: recipe}
    if read_json_or_empty(path) != content:
        write_json(path, content)


def _numbers(fit: KeptFit) -> JsonObject:
    """The section of a fit, as reports print it."""
    return json.loads(str(fit[NUMBERS]))


def _fitted(
    visit: Visit, study: StudyConfig, feature: Mechanism
) -> dict[str, np.ndarray]:
    """Connectivity (recorded, held out, of the free-running brain), estimates, and the
    numbers of the report."""
    model = study.model
    connectome = feature.fitting.brain.connectome
    regional = regional_run(VisitData(visit, denoising_of(study)), feature.atlas)
    series = regional.series
    train, heldout = split_connectivity(regional.source, series, model.holdout)
    verified = resting_fit(
        connectome, train, series.tr, seed=model.seed, minutes=model.minutes
    )
    numbers = to_plain(fit_section(verified, connectome.weights, train, heldout))
    # How long it took differs from run to run, and the file would change with it.
    del numbers["seconds"]
    return _arrays_of(verified, train, heldout, numbers)


def _arrays_of(
    verified: RestingFit, train: Tensor, heldout: Tensor | None, numbers: JsonObject
) -> dict[str, np.ndarray]:
    """A fit as the store keeps it: arrays only, the numbers as a text."""
    arrays = {
        "train": train.numpy(),
        "simulated": verified.simulated_fc.numpy(),
        NUMBERS: np.asarray(json.dumps(numbers)),
    }
    for name, value in verified.fit.estimates.items():
        arrays[name] = value.reshape(-1).numpy()
    if heldout is not None:
        arrays["heldout"] = heldout.numpy()
    return arrays


def run_model_study(study: StudyConfig, run: StudyRun) -> JsonObject:
    """Fit what is missing, compare with every control, and write report.html,
    summary.json, features.tsv and predictions of connectivity; returns the summary."""
    paths = run.paths
    begin_study(study, paths)
    visits, failures, keys = fit_visits(study, run)
    failed = {failure.visit_key for failure in failures}
    fitted = [visit for visit in visits if visit.key not in failed]
    fits = [_kept_fit(paths.store, keys[visit.name], visit) for visit in fitted]
    table = _table(fitted, fits)
    manifest = ReportManifest(paths.out)
    # More digits than a fit is good for would only be noise.
    manifest.table("features.tsv", table, float_format="%.9g")
    write_study(study, manifest)
    results = _results(study, paths, fitted, table, failures)
    feature = reading_feature(study, paths)
    return write_report(manifest, _page(feature.atlas, results, fits, table))


def _page(
    atlas: Atlas,
    results: ModelResults,
    fits: Sequence[KeptFit],
    table: pd.DataFrame,
) -> Page:
    """The report: its numbers, pictures and references."""
    return Page(
        "models.html",
        model_summary(results),
        model_pictures(atlas, _mean_fit(fits), table),
        cited_by_models(results.pipelines),
    )


def _kept_fit(store: Store, key: str, visit: Visit) -> KeptFit:
    # The work folder may be cleaned by somebody else at any time.
    fit = store.get(key)
    if fit is None:
        raise InputError(
            f"{visit.name}: its fit was removed while the report was made. Run the "
            "same command again."
        )
    return fit


def _mean_fit(fits: Sequence[KeptFit]) -> MeanFit:
    return MeanFit(
        _mean(fits, "train"),
        _mean(fits, "simulated"),
        _mean(fits, "mass.w_plus"),
    )


def _mean(fits: Sequence[KeptFit], name: str) -> np.ndarray:
    return np.mean([fit[name] for fit in fits], 0)


def _table(visits: Sequence[Visit], fits: Sequence[KeptFit]) -> pd.DataFrame:
    """A row per visit: correlations with held-out connectivity (with the fitted part
    where nothing was held out) of the brain and every control, then what was
    estimated."""
    against = [torch.as_tensor(fit.get("heldout", fit["train"])) for fit in fits]
    rows = []
    for i, (visit, fit) in enumerate(zip(visits, fits, strict=True)):
        baseline = _baseline(i, visits, against)
        rows.append(_row(visit, fit, baseline))
    return pd.DataFrame(rows)


def _row(visit: Visit, fit: KeptFit, baseline: float) -> dict[str, str | float]:
    """The row of a visit in features.tsv."""
    numbers = _numbers(fit)
    fc_r = numbers["fc_r"]
    # Without held-out data, the fitted part is all there is to compare with.
    part = "heldout" if "heldout" in fit else "train"
    return {
        "participant_id": f"sub-{visit.participant}",
        "session_id": f"ses-{visit.session}",
        FREE_RUNNING: fc_r.get(part),
        LINEAR_CONTROL: fc_r.get(f"linear_control_{part}"),
        BASELINE: baseline,
        CONNECTOME: fc_r["sc_fc"],
        CEILING: fc_r.get("ceiling", np.nan),
        "fitted_part": fc_r["train"],
        "loop_gain": numbers["loop_gain"],
        "strength": float(fit["strength"][0]),
        "w_plus": float(fit["mass.w_plus"].mean()),
        "noise": float(fit["noise"].mean()),
    }


def _baseline(i: int, visits: Sequence[Visit], against: Sequence[Tensor]) -> float:
    """How well the mean connectivity of the other participants predicts a visit's."""
    others = []
    for visit, connectivity in zip(visits, against, strict=True):
        # Other visits of the same person would make the baseline too easy to reach.
        if visit.participant != visits[i].participant:
            others.append(connectivity)
    # With a single participant there is nobody to predict from.
    if not others:
        return np.nan
    return similarity(torch.stack(others).mean(0), against[i]).item()


def _results(
    study: StudyConfig,
    paths: RunPaths,
    visits: Sequence[Visit],
    table: pd.DataFrame,
    failures: Sequence[Failure],
) -> ModelResults:
    people = len({visit.participant for visit in visits})
    return ModelResults(
        title=study.title or f"A brain fitted to every visit: {people} participants",
        participants=people,
        visits=len(visits),
        holdout=study.model.holdout,
        minutes=study.model.minutes,
        models=compared_models(table),
        estimates=estimate_spreads(table),
        retest=retest_correlations(table),
        left_out=_left_out(failures),
        pipelines=pipelines_of(paths),
        recipe=recipe_of(study, paths),
    )


def _left_out(failures: Sequence[Failure]) -> dict[str, str]:
    """By visit that could not be fitted, why."""
    reasons = {}
    for failure in failures:
        visit_name = f"sub-{failure.participant} ses-{failure.session}"
        reasons[visit_name] = failure.reason
    return reasons
