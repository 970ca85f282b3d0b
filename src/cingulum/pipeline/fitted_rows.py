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
from cingulum.io.derivatives import sidecar_of
from cingulum.io.files import read_json_or_empty, write_json, write_table
from cingulum.io.visit import Visit
from cingulum.parallel import TaskFailure, map_tasks
from cingulum.pipeline.measurement_cache import row_path
from cingulum.pipeline.paths import Run
from cingulum.progress import track

ROW = "row"
"""The name under which the numbers of a visit's row are kept."""

KEY = "Of"
"""What the description of a row calls the key of the measurement it was made of."""

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
    run: Run,
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
    out = run.paths.out
    tasks = [
        _Task(
            measurement, _row_key(feature, measurement), row_path(visit, feature, out)
        )
        for visit, measurement in zip(visits, measurements, strict=True)
    ]
    failures = _fit_missing(feature, tasks, run)
    kept = [run.paths.store.get(task.key) for task in tasks]
    return RowsOfVisits(_assembled(feature, kept, failures), failures)


def kept_rows(
    feature: Feature, measurements: Sequence[Measurement], store: Store
) -> FeatureRows | None:
    """Rows of fits that were made before, with what was kept beside them; None where
    one is missing, or the feature is none that is fitted."""
    if not feature.batch_size:
        return None
    kept = [store.get(_row_key(feature, one)) for one in measurements]
    if any(row is None for row in kept):
        return None
    return _assembled(feature, kept, {})


def _fit_missing(feature: Feature, tasks: Sequence[_Task], run: Run) -> dict[int, str]:
    """Fit and keep the rows that are not there yet; returns reasons by position."""
    store = run.paths.store
    missing = [i for i, task in enumerate(tasks) if not _is_kept(store, task)]
    batches = list(_batches(missing, tasks, feature.batch_size))
    units = [(feature, [tasks[i] for i in batch], store) for batch in batches]
    failures: dict[int, str] = {}
    began = time.monotonic()
    for number, result in track(
        map_tasks(_fit_batch, units, run.executor),
        f"{feature.name}, {feature.batch_size} visits at a time",
        total=len(units),
        show=run.show_progress,
    ):
        batch = batches[number]
        if isinstance(result, TaskFailure):
            result = dict.fromkeys(range(len(batch)), result.reason)
        for place, reason in result.items():
            failures[batch[place]] = reason
    if missing:
        width = min(run.executor.workers(), len(units))
        seconds = (time.monotonic() - began) * width / len(missing)
        run.paths.status.note_seconds(feature.name, seconds)
    return dict(sorted(failures.items()))


def _batches(
    missing: Sequence[int], tasks: Sequence[_Task], size: int
) -> Iterator[list[int]]:
    """Visits to be fitted together: those with a connectome of their own apart from
    those with the group's."""
    by_connectome: dict[str, list[int]] = {}
    for i in missing:
        source = str(tasks[i].measurement.details.get("Connectome"))
        by_connectome.setdefault(source, []).append(i)
    for source in sorted(by_connectome):
        alike = by_connectome[source]
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _fit_batch(
    feature: Feature, tasks: Sequence[_Task], store: Store
) -> dict[int, str]:
    """Fit a batch and keep its rows; returns the reasons of those that failed, by
    place in the batch."""
    measurements = [task.measurement for task in tasks]
    # Repeating the last visit fills the batch to its one size.
    padding = [measurements[-1]] * (feature.batch_size - len(measurements))
    try:
        rows = feature.finish([*measurements, *padding])
    except EXPECTED_ERRORS as error:
        if len(tasks) == 1:
            return {0: str(error)}
        return _fit_one_by_one(feature, tasks, store)
    for place, task in enumerate(tasks):
        _keep_row(feature, rows, place, task, store)
    return {}


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
    write_table(task.file, table, float_format="%.9g")
    description: dict[str, object] = {
        column.name or feature.name: {
            "Description": column.meaning,
            "Units": column.unit,
        }
        for column in feature.columns()
    }
    description[KEY] = task.key
    description[RECIPE] = task.measurement.origin.recipe
    write_json(sidecar_of(task.file), description)


def _row_key(feature: Feature, measurement: Measurement) -> str:
    return key_of(
        feature=feature.name,
        settings=dict(feature.settings()),
        of=list(measurement.origin),
        batch=feature.batch_size,
    )


def _is_kept(store: Store, task: _Task) -> bool:
    if not task.file.is_file():
        return False
    described = read_json_or_empty(sidecar_of(task.file)).get(KEY) == task.key
    return described and store.get(task.key) is not None


def _quick_rows(feature: Feature, measurements: Sequence[Measurement]) -> RowsOfVisits:
    """All visits at once; where that fails, one by one, so that the others keep their
    rows."""
    if not measurements:
        names = [column.name for column in feature.columns()]
        return RowsOfVisits(FeatureRows(pd.DataFrame(columns=names)))
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
    names = [column.name for column in feature.columns()]
    values = np.full((len(kept), len(names)), np.nan)
    available = {}
    for i, row in enumerate(kept):
        if row is not None and i not in failures:
            values[i] = row[ROW]
            available[i] = row
    arrays = {}
    for name in set().union(*available.values()) - {ROW}:
        arrays[name] = _stacked(name, available, len(kept))
    return FeatureRows(pd.DataFrame(values, columns=names), arrays)


def _stacked(name: str, available: Mapping[int, KeptRow], count: int) -> np.ndarray:
    """Arrays of visits as one; NaN for those that failed."""
    shape = next(iter(available.values()))[name].shape
    stacked = np.full((count, *shape), np.nan)
    for i, row in available.items():
        stacked[i] = row[name]
    return stacked
