"""Measure every visit once and keep the result, so that an interrupted or repeated run
resumes where it was."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cingulum.errors import InputError
from cingulum.features import Feature, Measurement, Origin
from cingulum.features.run_combination import RunCombination
from cingulum.io.files import remove_partial_files
from cingulum.io.recording_kinds import BOLD
from cingulum.io.visit import Visit
from cingulum.parallel import TaskFailure, map_tasks, unexpected_error
from cingulum.pipeline.dataset_identity import check_same_dataset
from cingulum.pipeline.measurement_cache import (
    Digests,
    MeasurementPlan,
    is_current,
    measurement_path,
    runs_measured,
    save_measurement,
    source_uris,
)
from cingulum.pipeline.paths import StudyRun
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


FailureKey = tuple[str, str, str]
"""Participant, session, feature."""


@dataclass(frozen=True)
class Failure:
    """A feature that a visit does not have, and why.

    unexpected: another try may help
    """

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
    def key(self) -> FailureKey:
        return self.participant, self.session, self.feature

    @property
    def visit_key(self) -> tuple[str, str]:
        """As `Visit.key`."""
        return self.participant, self.session


def failed_keys(failures: Iterable[Failure]) -> frozenset[FailureKey]:
    """What failed, as (participant, session, feature)."""
    return frozenset(failure.key for failure in failures)


@dataclass(frozen=True)
class _MeasuredVisit:
    """What failed of a visit, and the seconds it took; 0 where everything was there
    already."""

    failures: list[Failure]
    seconds: float = 0.0


def measure_visits(
    visits: Sequence[Visit], plan: MeasurementPlan, run: StudyRun
) -> list[Failure]:
    """Measure visits, each by itself; what fails is recorded, and the others go on.

    A measurement made before by this version from files with the same content is kept.
    """
    _print_choices(visits)
    check_same_dataset(visits, plan, run.paths)
    # An interrupted write leaves a partial file that nothing reads.
    remove_partial_files(run.paths.out)
    recipes = plan.recipes()
    for visit in visits:
        run.paths.status.expect(visit, plan.expected_of(visit, recipes))
    failures: list[Failure] = []
    seconds: list[float] = []
    for visit, result in _measured_visits(visits, plan, recipes, run, failures):
        # A visit that was there already says nothing about how long one takes.
        if result.seconds:
            seconds.append(result.seconds)
        failures += _recorded(visit, result.failures, plan, run)
    if seconds:
        run.paths.status.note_seconds("measure", sum(seconds) / len(seconds))
    # Visits end in any order; files must not depend on it.
    return sorted(failures, key=lambda failure: failure.key)


def _print_choices(visits: Sequence[Visit]) -> None:
    """Say which of several files were taken, kind by kind, with the first visit as an
    example."""
    by_kind: dict[str, list[Visit]] = {}
    for visit in visits:
        for kind in visit.not_used:
            by_kind.setdefault(kind, []).append(visit)
    for kind, concerned in by_kind.items():
        first = concerned[0]
        print(
            f"{kind}: {len(concerned)} visit(s) have several files; taken is "
            f"{first[kind].name}, not {', '.join(first.not_used[kind])} (the order is "
            "in docs/recordings.md; --bids-filter-file chooses another)",
            file=sys.stderr,
        )


def _measured_visits(
    visits: Sequence[Visit],
    plan: MeasurementPlan,
    recipes: Mapping[str, str],
    run: StudyRun,
    failures: Sequence[Failure],
) -> Iterator[tuple[Visit, _MeasuredVisit]]:
    """Each visit with its result, in the order in which they finish; `failures` so far
    are counted beside the progress."""
    results = map_tasks(
        _measure_visit,
        [(visit, plan, recipes, run.paths.out) for visit in visits],
        run.executor,
        memory_per_task=_memory(visits),
        retry_if=_worth_another_try,
    )

    def progress_note() -> str:
        # Nothing to say as long as nothing failed.
        if not failures:
            return ""
        return f"{len(failures)} failed"

    for index, result in track(
        results,
        "measure",
        total=len(visits),
        show=run.show_progress,
        note=progress_note,
    ):
        visit = visits[index]
        # The process ended before it could say which features failed.
        if isinstance(result, TaskFailure):
            result = _all_failed(visit, plan, result.reason)
        yield visit, result


def _all_failed(visit: Visit, plan: MeasurementPlan, reason: str) -> _MeasuredVisit:
    return _MeasuredVisit([Failure.of(visit, name, reason) for name in plan.features])


def _recorded(
    visit: Visit, failures: Sequence[Failure], plan: MeasurementPlan, run: StudyRun
) -> list[Failure]:
    """Record what became of a visit; returns its failures without folders of this
    machine."""
    private = [_without_folders(failure, run) for failure in failures]
    reasons = {failure.feature: failure.reason for failure in private}
    run.paths.status.note(visit, reasons, plan.features)
    return private


def _without_folders(failure: Failure, run: StudyRun) -> Failure:
    return replace(failure, reason=run.paths.without_folders(failure.reason))


def _worth_another_try(result: _MeasuredVisit) -> bool:
    return any(failure.unexpected for failure in result.failures)


def _memory(visits: Sequence[Visit]) -> float:
    """GB that measuring a visit takes."""
    # All workers get as much as the largest visit needs.
    packed = max(map(_packed_bold, visits), default=0.0)
    return LIBRARIES + COPIES * UNPACKED * packed


def _packed_bold(visit: Visit) -> float:
    """GB of a visit's BOLD on disk, all runs together: they are cleaned one by one, and
    kept until every feature is measured."""
    runs = [run for run in (visit, *visit.runs) if BOLD.name in run.files]
    return sum(run[BOLD.name].stat().st_size for run in runs) / 1e9


def _measure_visit(
    visit: Visit, plan: MeasurementPlan, recipes: Mapping[str, str], out: Path
) -> _MeasuredVisit:
    """Measure what of a visit is not current yet, and keep it."""
    began = time.monotonic()
    # Shared by all features, so that each recording is read and cleaned once.
    data = VisitData(visit, plan.denoising, plan.constants)
    digests = Digests()
    anything_new = False
    failures = []
    for feature in plan.features.values():
        try:
            recordings = digests.of_recordings(visit, feature)
            origin = Origin(recipes[feature.name], recordings)
            anything_new |= _measure_if_missing(feature, data, origin, out, plan.runs)
        except InputError as error:
            failures.append(Failure.of(visit, feature.name, str(error)))
        # One visit must not end the run.
        except Exception as error:
            reason = _unexpected(error)
            failures.append(Failure.of(visit, feature.name, reason, unexpected=True))
    if not anything_new:
        return _MeasuredVisit(failures)
    return _MeasuredVisit(failures, time.monotonic() - began)


def _measure_if_missing(
    feature: Feature,
    data: VisitData,
    origin: Origin,
    out: Path,
    combination: RunCombination,
) -> bool:
    """Measure and keep a feature; False where it is current already."""
    path = measurement_path(data.visit, feature, out)
    if is_current(path, origin):
        return False
    measurement = _measured(feature, data, combination)
    sources = source_uris(data.visit, feature)
    not_used = [
        name
        for run in runs_measured(data.visit, feature)
        for kind in feature.recordings(run)
        for name in run.not_used.get(kind, ())
    ]
    save_measurement(path, feature, measurement, origin, sources, not_used)
    return True


def _measured(
    feature: Feature, data: VisitData, combination: RunCombination
) -> Measurement:
    """The measurement of a visit: of its only run, or of several combined."""
    if runs_measured(data.visit, feature) == (data.visit,):
        return feature.measure(data)
    runs = [feature.measure(run) for run in data.runs]
    return feature.combine_runs(runs, combination)


def _unexpected(error: Exception) -> str:
    """An unexpected error in words for the user."""
    if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
        return (
            f"cannot write to the output folder ({error.strerror}). Make room, or give "
            "another OUT_DIR."
        )
    return unexpected_error(error)
