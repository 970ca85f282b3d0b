"""From measurements to rows: quick features at once, fitted ones in batches by several
processes, each visit's row kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.cache.keys import key_of
from cingulum.cache.status import RECIPE
from cingulum.cache.store import Store
from cingulum.errors import ConvergenceError, InputError
from cingulum.features import Feature, FeatureRows, Measurement
from cingulum.io.derivatives import is_sealed, sealed, sidecar_of
from cingulum.io.files import JsonObject, read_json_or_empty, write_json, write_table
from cingulum.io.visit import Visit
from cingulum.parallel import TaskFailure, map_tasks
from cingulum.pipeline.measurement_cache import RESULT, file_digest, row_path
from cingulum.pipeline.paths import StudyRun
from cingulum.progress import track
from cingulum.simulation.compiler import processor

ROW = "row"
"""The name under which the numbers of a visit's row are kept."""

KEY = "Of"
"""What the description of a row calls the key of the measurement it was made of."""

# Anything else is an error of the program, and must not pass for a gap in the data.
EXPECTED_ERRORS = (InputError, ConvergenceError)

KeptRow = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class RowsOfVisits:
    """A row per visit, NaN where it failed, and the reasons by position."""

    rows: FeatureRows
    failures: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Task:
    """A visit whose row is to be fitted: its measurement, its key, and the file."""

    measurement: Measurement
    key: str
    file: Path


def finish_rows(
    feature: Feature,
    visits: Sequence[Visit],
    measurements: Sequence[Measurement],
    run: StudyRun,
) -> RowsOfVisits:
    """Rows of all visits. Where `finish` is long work, each visit's row is kept, and
    written beside its measurement, so that an interrupted run loses at most the batches
    under way.

    A row does not depend, to the last bit, on the visits that were in its batch, nor on
    who did it: fits always run in batches of one size, since other sizes take other
    kernels.
    """
    if not measurements or not feature.batch_size:
        return _quick_rows(feature, measurements)
    tasks = _tasks(feature, visits, measurements, run.paths.out)
    failures = _fit_missing(feature, tasks, run)
    # Also the rows just fitted are read back, so that a resumed run gives the same.
    kept = [run.paths.store.get(task.key) for task in tasks]
    return RowsOfVisits(_assembled(feature, kept, failures), failures)


def _tasks(
    feature: Feature,
    visits: Sequence[Visit],
    measurements: Sequence[Measurement],
    out: Path,
) -> list[_Task]:
    tasks = []
    for visit, measurement in zip(visits, measurements, strict=True):
        key = _row_key(feature, measurement)
        tasks.append(_Task(measurement, key, row_path(visit, feature, out)))
    return tasks


def kept_rows(
    feature: Feature, measurements: Sequence[Measurement], store: Store
) -> FeatureRows | None:
    """Rows of earlier fits, with the arrays kept beside them; None where a row is
    missing, and for a feature that is not fitted."""
    if not feature.batch_size:
        return None
    kept = [store.get(_row_key(feature, measured)) for measured in measurements]
    # All or none: a figure of part of the visits would mislead.
    if any(row is None for row in kept):
        return None
    return _assembled(feature, kept, {})


def _fit_missing(
    feature: Feature, tasks: Sequence[_Task], run: StudyRun
) -> dict[int, str]:
    """Fit and keep the rows that are missing; returns reasons by position."""
    store = run.paths.store
    missing = [i for i, task in enumerate(tasks) if not _is_kept(store, task)]
    batches = list(_batches(missing, tasks, feature.batch_size))
    began = time.monotonic()
    failures = _fit_batches(feature, batches, tasks, run)
    if missing:
        # Batches run at the same time: a visit costs what a worker spends on it.
        width = min(run.executor.workers(), len(batches))
        worked = (time.monotonic() - began) * width
        run.paths.status.note_seconds(feature.name, worked / len(missing))
    # Batches end in any order; reports list failures in that of the visits.
    return dict(sorted(failures.items()))


def _fit_batches(
    feature: Feature,
    batches: Sequence[list[int]],
    tasks: Sequence[_Task],
    run: StudyRun,
) -> dict[int, str]:
    """Fit batches of positions among the tasks; returns reasons by position."""
    store = run.paths.store
    units = [(feature, [tasks[i] for i in batch], store) for batch in batches]
    results = track(
        map_tasks(_fit_batch, units, run.executor),
        f"{feature.name}, {feature.batch_size} visits at a time",
        total=len(units),
        show=run.show_progress,
    )
    failures: dict[int, str] = {}
    for number, result in results:
        batch = batches[number]
        for place, reason in _reasons(result, len(batch)).items():
            failures[batch[place]] = reason
    return failures


def _reasons(result: dict[int, str] | TaskFailure, size: int) -> dict[int, str]:
    """Reasons by place in a batch; a task that failed takes its whole batch along."""
    if isinstance(result, TaskFailure):
        return dict.fromkeys(range(size), result.reason)
    return result


def _batches(
    missing: Sequence[int], tasks: Sequence[_Task], size: int
) -> Iterator[list[int]]:
    """Visits to be fitted together: those with a connectome of their own apart from
    those with the group's."""
    by_connectome: dict[str, list[int]] = {}
    for i in missing:
        source = str(tasks[i].measurement.details.get("Connectome"))
        by_connectome.setdefault(source, []).append(i)
    # Sorted, so that the batches do not depend on which visit happens to be first.
    for source in sorted(by_connectome):
        yield from _slices(by_connectome[source], size)


def _slices(positions: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(positions), size):
        yield positions[start : start + size]


def _fit_batch(
    feature: Feature, tasks: Sequence[_Task], store: Store
) -> dict[int, str]:
    """Fit a batch and keep its rows; returns the reasons of those that failed, by
    place in the batch."""
    try:
        rows = feature.finish(_full_batch(tasks, feature.batch_size))
    except EXPECTED_ERRORS as error:
        if len(tasks) == 1:
            return {0: str(error)}
        # The error of a batch does not say which visit caused it.
        return _fit_one_by_one(feature, tasks, store)
    for place, task in enumerate(tasks):
        _keep_row(feature, rows, place, task, store)
    return {}


def _full_batch(tasks: Sequence[_Task], size: int) -> list[Measurement]:
    """The measurements of a batch, filled to its size by repeating the last."""
    measurements = [task.measurement for task in tasks]
    padding = [measurements[-1]] * (size - len(measurements))
    return [*measurements, *padding]


def _fit_one_by_one(
    feature: Feature, tasks: Sequence[_Task], store: Store
) -> dict[int, str]:
    """After a batch failed: find out which of its visits did."""
    failures = {}
    for place, task in enumerate(tasks):
        reasons = _fit_batch(feature, [task], store)
        if reasons:
            failures[place] = reasons[0]
    return failures


def _keep_row(
    feature: Feature, rows: FeatureRows, place: int, task: _Task, store: Store
) -> None:
    """Keep a visit's row, and write it for people."""
    row = rows.table.iloc[[place]].to_numpy(float)
    arrays = {name: values[place] for name, values in rows.arrays.items()}
    store.put(task.key, {ROW: row[0], **arrays})
    table = pd.DataFrame(row, columns=rows.table.columns)
    # Rounded for people: the exact numbers are in the store.
    digest = write_table(task.file, table, float_format="%.9g")
    description = {**_row_description(feature, task), RESULT: digest}
    write_json(sidecar_of(task.file), sealed(description))


def _row_description(feature: Feature, task: _Task) -> JsonObject:
    """The JSON beside a visit's row: its columns, and what it was made of."""
    description: JsonObject = {}
    for column in feature.columns():
        # A feature of one number has a column without a name.
        name = column.name or feature.name
        description[name] = {"Description": column.meaning, "Units": column.unit}
    description[KEY] = task.key
    description[RECIPE] = task.measurement.origin.recipe
    return description


def _row_key(feature: Feature, measurement: Measurement) -> str:
    # The size of the batch is part of it: other sizes give other last bits.
    return key_of(
        feature=feature.name,
        settings=dict(feature.settings()),
        of=list(measurement.origin),
        batch=feature.batch_size,
        # A simulation's last bits are those of the processor's vectors.
        processor=processor(),
    )


def _is_kept(store: Store, task: _Task) -> bool:
    # Whoever deletes the table wants it made again.
    if not task.file.is_file():
        return False
    return _is_described(task) and store.get(task.key) is not None


def _is_described(task: _Task) -> bool:
    """Whether the JSON beside a row says that it is of this measurement, and the row is
    as it was written."""
    description = read_json_or_empty(sidecar_of(task.file))
    if description.get(KEY) != task.key or not is_sealed(description):
        return False
    return description.get(RESULT) == file_digest(task.file)


def _quick_rows(feature: Feature, measurements: Sequence[Measurement]) -> RowsOfVisits:
    """All visits at once; where that fails, one by one, so that the others keep their
    rows."""
    if not measurements:
        return RowsOfVisits(FeatureRows(pd.DataFrame(columns=feature.column_names)))
    try:
        return RowsOfVisits(feature.finish(measurements))
    except EXPECTED_ERRORS:
        return _rows_one_by_one(feature, measurements)


def _rows_one_by_one(
    feature: Feature, measurements: Sequence[Measurement]
) -> RowsOfVisits:
    rows: list[KeptRow | None] = []
    failures = {}
    for i, measurement in enumerate(measurements):
        try:
            table = feature.finish([measurement]).table
            rows.append({ROW: table.to_numpy(float)[0]})
        except EXPECTED_ERRORS as error:
            rows.append(None)
            failures[i] = str(error)
    return RowsOfVisits(_assembled(feature, rows, failures), failures)


def _assembled(
    feature: Feature, kept: Sequence[KeptRow | None], failures: Mapping[int, str]
) -> FeatureRows:
    """Kept rows as one table; NaN for those that failed."""
    available: dict[int, KeptRow] = {}
    for i, row in enumerate(kept):
        if row is not None and i not in failures:
            available[i] = row
    table = _kept_table(feature.column_names, available, len(kept))
    return FeatureRows(table, _stacked_arrays(available, len(kept)))


def _kept_table(
    names: list[str], available: Mapping[int, KeptRow], count: int
) -> pd.DataFrame:
    """Kept numbers as a table of all visits; NaN for those that failed."""
    values = np.full((count, len(names)), np.nan)
    for i, row in available.items():
        values[i] = row[ROW]
    return pd.DataFrame(values, columns=names)


def _stacked_arrays(
    available: Mapping[int, KeptRow], count: int
) -> dict[str, np.ndarray]:
    """By name, the arrays that were kept beside the rows, visit by visit."""
    names = set().union(*available.values()) - {ROW}
    return {name: _stacked(name, available, count) for name in names}


def _stacked(name: str, available: Mapping[int, KeptRow], count: int) -> np.ndarray:
    """The arrays of all visits in one; NaN for those that failed."""
    shape = next(iter(available.values()))[name].shape
    stacked = np.full((count, *shape), np.nan)
    for i, row in available.items():
        stacked[i] = row[name]
    return stacked
