"""What a run would do: how many units, how many of them are done, and how long the rest
will take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cingulum.cache import status
from cingulum.io import Visit
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.measurement import check_out, recipes
from cingulum.pipeline.paired_study import (
    RunPaths,
    check_asked,
    cohort_of,
    found,
    planned,
)


def told(study: StudyConfig, place: RunPaths, level: str) -> str:
    """The plan in words: done is what was made by these settings and this software.
    Nothing is written, and no recording is read, so one that was exchanged since is
    found by the run only."""
    check_out(place.out)
    if level == "group" and study.analysis == "prediction":
        cohort = cohort_of(study, place)
        check_asked(study, cohort)
        seen = list(cohort.visits)
    else:
        seen = found(study, place)
    table = (
        _fits(study, seen, place.out)
        if study.analysis == "model"
        else _measurements(study, seen, place.out)
    )
    people = len({visit.participant for visit in seen})
    lines = [
        f"{people} participants, {len(seen)} visits; nothing is written by --dry-run.",
        "",
    ]
    lines += [table.to_string(), "", _time(table, place)]
    if level == "group" and study.analysis == "prediction":
        lines.append(
            f"then {study.prediction.permutations} permutations, maps, the report and "
            "a page a participant"
        )
    return "\n".join(lines)


def _measurements(study: StudyConfig, seen: Sequence[Visit], out: Path) -> pd.DataFrame:
    """A row a feature: visits, done, to do, and visits that lack its recordings."""
    plan = planned(study)
    wanted, how = plan.features, recipes(plan)
    files = {visit.name: status.files_of(visit, wanted) for visit in seen}
    rows = {}
    for name, feature in wanted.items():
        rows[name] = _row(
            seen,
            [status.made(out, files[visit.name][name], how[name]) for visit in seen],
            feature.needs,
        )
    return pd.DataFrame.from_dict(rows, orient="index")


def _fits(study: StudyConfig, seen: Sequence[Visit], out: Path) -> pd.DataFrame:
    from cingulum.pipeline.model_study import FIT, file_of, recipe_of

    recipe = recipe_of(study)
    done = [status.made(out, [str(file_of(visit))], recipe) for visit in seen]
    return pd.DataFrame.from_dict(
        {FIT: _row(seen, done, ("bold", "mask", "confounds"))}, orient="index"
    )


def _row(
    seen: Sequence[Visit], made: Sequence[bool], needs: Sequence[str]
) -> dict[str, int]:
    """Where the recording is gone, what was made of it counts no more."""
    here = [all(visit.has(kind) for kind in needs) for visit in seen]
    done = sum(m and h for m, h in zip(made, here, strict=True))
    return {
        "visits": len(seen),
        "done": done,
        "to do": sum(here) - done,
        "no recording": len(seen) - sum(here),
    }


def _time(table: pd.DataFrame, place: RunPaths) -> str:
    """From what visits took here before; no guess where none was measured."""
    todo = int(table["to do"].max())
    if not todo:
        return "everything is measured already"
    spent = sum(status.spent(place.keep).values())
    if not spent:
        return f"{todo} visits to do; how long one takes is known once some were done"
    width = (
        place.executor.workers()
        if not place.executor.cluster
        else place.executor.jobs or 1
    )
    minutes = todo * spent / width / 60
    return (
        f"{todo} visits to do, about {minutes:.1f} min by {width} at a time "
        f"({spent:.1f} s a visit so far)"
    )
