"""What a run would do: how many visits, how many of them are done, and how long the
rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cingulum.cache.status import is_made
from cingulum.io.derivatives import check_output_folder
from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK, RecordingKind
from cingulum.io.visit import Visit
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.measurement_cache import expected_files
from cingulum.pipeline.paired_study import check_study, study_cohort
from cingulum.pipeline.paths import Run, RunPaths
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


def describe_plan(study: StudyConfig, run: Run, level: str) -> str:
    """The plan in words: done is what was made by these settings and this software.

    Nothing is written, and no recording is read, so one that was exchanged since is
    found by the run only.
    """
    paths = run.paths
    check_output_folder(paths.out)
    is_prediction = level == "group" and study.analysis == "prediction"
    if is_prediction:
        cohort = study_cohort(study, paths)
        check_study(study, cohort)
        visits = list(cohort.visits)
    else:
        visits = study_visits(study, paths)
    if study.analysis == "model":
        table = _fits(study, visits, paths)
    else:
        table = _measurements(study, visits, paths)
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


def _measurements(
    study: StudyConfig, visits: Sequence[Visit], paths: RunPaths
) -> pd.DataFrame:
    """A row per feature: visits, done, to do, and visits that lack its recordings."""
    plan = plan_of(study)
    recipes = plan.recipes()
    rows = {}
    for name, feature in plan.features.items():
        made = [
            is_made(paths.out, expected_files(visit, feature), recipes[name])
            for visit in visits
        ]
        rows[name] = _progress(visits, made, feature.needs).to_dict()
    return pd.DataFrame.from_dict(rows, orient="index")


def _fits(study: StudyConfig, visits: Sequence[Visit], paths: RunPaths) -> pd.DataFrame:
    from cingulum.pipeline.model_study import FIT, fit_path, fit_recipe

    recipe = fit_recipe(study)
    made = [is_made(paths.out, [str(fit_path(visit))], recipe) for visit in visits]
    row = _progress(visits, made, (BOLD, MASK, CONFOUNDS)).to_dict()
    return pd.DataFrame.from_dict({FIT: row}, orient="index")


def _progress(
    visits: Sequence[Visit], made: Sequence[bool], needs: Sequence[RecordingKind]
) -> _Progress:
    """Where the recording is gone, what was made of it counts no more."""
    done = 0
    absent = 0
    for visit, is_done in zip(visits, made, strict=True):
        if not all(visit.has(kind.name) for kind in needs):
            absent += 1
        elif is_done:
            done += 1
    return _Progress(len(visits), done, absent)


def _time_left(table: pd.DataFrame, run: Run) -> str:
    """From what visits took here before; no guess where none was measured."""
    to_do = int(table["to do"].max())
    if not to_do:
        return "everything is measured already"
    seconds = sum(run.paths.status.seconds().values())
    if not seconds:
        return f"{to_do} visits to do; how long one takes is known once some were done"
    executor = run.executor
    width = (executor.jobs or 1) if executor.cluster else executor.workers()
    minutes = to_do * seconds / width / 60
    return (
        f"{to_do} visits to do, about {minutes:.1f} min by {width} at a time "
        f"({seconds:.1f} s a visit so far)"
    )
