"""What a run would do: how many visits, how many of them are done, and how long the
rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cingulum.cache.status import is_made
from cingulum.features import Feature
from cingulum.io.derivatives import check_output_folder
from cingulum.io.visit import Visit
from cingulum.parallel import Executor
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.measurement_cache import expected_files
from cingulum.pipeline.paired_study import check_study, study_cohort
from cingulum.pipeline.paths import RunPaths, StudyRun
from cingulum.pipeline.study_settings import plan_of, study_visits


@dataclass(frozen=True)
class _Progress:
    """How far one feature is."""

    visits: int
    done: int
    no_recording: int

    def to_dict(self) -> dict[str, int]:
        to_do = self.visits - self.no_recording - self.done
        return {
            "visits": self.visits,
            "done": self.done,
            "to do": to_do,
            "no recording": self.no_recording,
        }


def describe_plan(study: StudyConfig, run: StudyRun, level: str) -> str:
    """The plan in words: done is what was made by these settings and this software.

    Nothing is written, and no recording is read: only the run itself notices that a
    recording was exchanged since.
    """
    check_output_folder(run.paths.out)
    is_prediction = level == "group" and study.analysis == "prediction"
    visits = _planned_visits(study, run.paths, is_prediction)
    table = _progress_table(study, visits, run.paths)
    people = len({visit.participant for visit in visits})
    lines = [
        f"{people} participants, {len(visits)} visits; nothing is written by "
        "--dry-run.",
        "",
        table.to_string(),
        "",
        _time_left(table, run),
    ]
    if is_prediction:
        lines.append(
            f"then {study.prediction.permutations} permutations, maps, the report and "
            "a page a participant"
        )
    return "\n".join(lines)


def _planned_visits(
    study: StudyConfig, paths: RunPaths, is_prediction: bool
) -> Sequence[Visit]:
    """The visits of a study. Raises InputError for all that would stop the run."""
    if not is_prediction:
        return study_visits(study, paths)
    # Not everybody in the dataset can be analysed: a prediction needs rated pairs.
    cohort = study_cohort(study, paths)
    check_study(study, cohort)
    return cohort.visits


def _progress_table(
    study: StudyConfig, visits: Sequence[Visit], paths: RunPaths
) -> pd.DataFrame:
    if study.analysis == "model":
        return _fits(study, visits, paths)
    return _measurements(study, visits, paths)


def _measurements(
    study: StudyConfig, visits: Sequence[Visit], paths: RunPaths
) -> pd.DataFrame:
    """A row per feature: visits, done, to do, and visits that lack its recordings."""
    plan = plan_of(study, paths)
    rows = {}
    for name, feature in plan.features.items():
        recipe = plan.recipe_of(feature)
        done = [
            is_made(paths.out, expected_files(visit, feature), recipe)
            for visit in visits
        ]
        rows[name] = _progress(visits, done, feature).to_dict()
    return pd.DataFrame.from_dict(rows, orient="index")


def _fits(study: StudyConfig, visits: Sequence[Visit], paths: RunPaths) -> pd.DataFrame:
    # Late: the report of a model study imports more than a plan needs.
    from cingulum.pipeline.model_study import FIT, fit_path, fit_recipe, reading_feature

    feature = reading_feature(study, paths)
    recipe = fit_recipe(study, feature)
    done = [is_made(paths.out, [str(fit_path(visit))], recipe) for visit in visits]
    row = _progress(visits, done, feature).to_dict()
    return pd.DataFrame.from_dict({FIT: row}, orient="index")


def _progress(
    visits: Sequence[Visit], done: Sequence[bool], feature: Feature
) -> _Progress:
    """How many visits are done, and how many lack a recording."""
    finished = 0
    absent = 0
    for visit, is_done in zip(visits, done, strict=True):
        # A result whose recording was removed no longer counts.
        if not feature.has_recordings(visit):
            absent += 1
        elif is_done:
            finished += 1
    return _Progress(len(visits), finished, absent)


def _time_left(table: pd.DataFrame, run: StudyRun) -> str:
    """From what visits took so far in this folder; no guess where none was measured."""
    # A visit is to do as long as any of its features is.
    to_do = int(table["to do"].max())
    if not to_do:
        return "everything is measured already"
    # Measuring, and fitting of every feature that is fitted.
    seconds = sum(run.paths.status.seconds().values())
    if not seconds:
        return f"{to_do} visits to do; how long one takes is known once some were done"
    width = _width(run.executor)
    minutes = to_do * seconds / width / 60
    return (
        f"{to_do} visits to do, about {minutes:.1f} min by {width} at a time "
        f"({seconds:.1f} s a visit so far)"
    )


def _width(executor: Executor) -> int:
    """Visits at a time, without starting a cluster to ask it."""
    if executor.cluster:
        return executor.jobs or 1
    return executor.workers()
