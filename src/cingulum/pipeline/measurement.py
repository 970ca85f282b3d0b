"""Measure every visit once and keep the result, so that an interrupted or repeated run
resumes where it was."""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cingulum.errors import InputError
from cingulum.features import Feature, Origin
from cingulum.io.files import remove_partial_files
from cingulum.io.recording_kinds import BOLD
from cingulum.io.visit import Visit
from cingulum.parallel import TaskFailure, map_tasks
from cingulum.pipeline.measurement_cache import (
    Digests,
    MeasurementPlan,
    is_current,
    measurement_path,
    save_measurement,
    source_uris,
)
from cingulum.pipeline.paths import Run
from cingulum.progress import track
from cingulum.signals.visit_data import VisitData

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""Errors of a full disk or a folder that forbids writing."""

LIBRARIES = 0.6
"""GB that the libraries of a process take."""

UNPACKED = 2.5
"""How much larger BOLD is in float32 than packed, about."""

COPIES = 3
"""Copies of a visit's BOLD that cleaning holds at a time."""


@dataclass(frozen=True)
class Failure:
    """A feature that a visit does not have, and why; unexpected: another try may
    help."""

    participant: str
    session: str
    feature: str
    reason: str
    unexpected: bool = False

    @classmethod
    def of(
        cls, visit: Visit, feature: str, reason: str, unexpected: bool = False
    ) -> Failure:
        return cls(*visit.key, feature, reason, unexpected)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.participant, self.session, self.feature


@dataclass(frozen=True)
class _MeasuredVisit:
    """What failed of a visit, and the seconds it took; 0 where everything was there
    already."""

    failures: list[Failure]
    seconds: float = 0.0


def measure_visits(
    visits: Sequence[Visit], plan: MeasurementPlan, run: Run
) -> list[Failure]:
    """Measure visits, each by itself; what fails is recorded, and the rest goes on.

    A measurement made before by this version from files with the same content is kept.
    """
    remove_partial_files(run.paths.out)
    status = run.paths.status
    recipes = plan.recipes()
    for visit in visits:
        status.expect(visit, plan.expected_of(visit, recipes))
    results = map_tasks(
        _measure_visit,
        [(visit, plan, run.paths.out) for visit in visits],
        run.executor,
        memory_per_task=_memory(visits),
        retry_if=_worth_another_try,
    )
    failures: list[Failure] = []
    seconds: list[float] = []

    def progress_note() -> str:
        return f"{len(failures)} failed" if failures else ""

    for index, result in track(
        results,
        "measure",
        total=len(visits),
        show=run.show_progress,
        note=progress_note,
    ):
        visit = visits[index]
        if isinstance(result, TaskFailure):
            result = _all_failed(visit, plan, result.reason)
        if result.seconds:
            seconds.append(result.seconds)
        failures += _recorded(visit, result.failures, plan, run)
    if seconds:
        status.note_seconds("measure", sum(seconds) / len(seconds))
    return sorted(failures, key=lambda failure: failure.key)


def _all_failed(visit: Visit, plan: MeasurementPlan, reason: str) -> _MeasuredVisit:
    return _MeasuredVisit([Failure.of(visit, name, reason) for name in plan.features])


def _recorded(
    visit: Visit, failures: Sequence[Failure], plan: MeasurementPlan, run: Run
) -> list[Failure]:
    """Record what became of a visit; returns its failures without folders of this
    machine."""
    private = [
        replace(failure, reason=run.paths.without_folders(failure.reason))
        for failure in failures
    ]
    reasons = {failure.feature: failure.reason for failure in private}
    run.paths.status.note(visit, reasons, plan.features)
    return private


def _worth_another_try(result: _MeasuredVisit) -> bool:
    return any(failure.unexpected for failure in result.failures)


def _memory(visits: Sequence[Visit]) -> float:
    """GB that measuring a visit takes."""
    sizes = [
        visit[BOLD.name].stat().st_size for visit in visits if BOLD.name in visit.files
    ]
    packed = max(sizes, default=0) / 1e9
    return LIBRARIES + COPIES * UNPACKED * packed


def _measure_visit(visit: Visit, plan: MeasurementPlan, out: Path) -> _MeasuredVisit:
    """Measure what of a visit is not current yet, and keep it."""
    began = time.monotonic()
    data = VisitData(visit, plan.denoising, plan.constants)
    digests = Digests()
    anything_new = False
    failures = []
    for feature in plan.features.values():
        try:
            path = measurement_path(visit, feature, out)
            origin = Origin(
                plan.recipe_of(feature), digests.of_recordings(visit, feature)
            )
            if not is_current(path, origin):
                anything_new = True
                _measure_feature(path, feature, data, origin)
        except InputError as error:
            failures.append(Failure.of(visit, feature.name, str(error)))
        except Exception as error:  # one visit must not end the run
            reason = _unexpected(error)
            failures.append(Failure.of(visit, feature.name, reason, unexpected=True))
    seconds = time.monotonic() - began
    return _MeasuredVisit(failures, seconds if anything_new else 0.0)


def _measure_feature(
    path: Path, feature: Feature, data: VisitData, origin: Origin
) -> None:
    measurement = feature.measure(data)
    save_measurement(
        path, feature, measurement, origin, source_uris(data.visit, feature)
    )


def _unexpected(error: Exception) -> str:
    """An unexpected error in words for the user."""
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        return (
            f"cannot write to the output folder ({error.strerror}). Make room, or give "
            "another OUT_DIR."
        )
    return f"unexpected {type(error).__name__}: {error} (please report it)"
