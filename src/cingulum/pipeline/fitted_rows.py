"""From measurements to rows: quick features at once, fitted ones in batches by
processes, each visit's row kept."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.cache.status import RECIPE, note_seconds
from cingulum.cache.store import Store, key_of
from cingulum.errors import ConvergenceError, InputError
from cingulum.features import Feature, Measurement
from cingulum.io import Visit
from cingulum.io.files import read_json_or_empty, write_json, write_table
from cingulum.parallel import Executor, TaskFailure, map_tasks
from cingulum.pipeline.measurement import measured as place_of
from cingulum.progress import track

Rows = tuple[pd.DataFrame, list[tuple[int, str]]]
"""A row a visit (NaN where it failed), and which failed, with the reason."""


def finish(
    feature: Feature,
    visits: Sequence[Visit],
    measured: Sequence[Measurement],
    out: Path,
    work: Path,
    executor: Executor | None = None,
    show_progress: bool = False,
) -> Rows:
    """Rows of all visits. Where `finish` is long work, each visit's row is kept in
    `work` and told beside its measurement, so that an interrupted run loses at most the
    batches under way.

    A row does not depend, to the last bit, on the visits that were in its batch, nor on
    who did it: fits always run in batches of one size, since other sizes take other
        kernels.
    """
    if not measured or not feature.fitted:
        return _quick(feature, measured)
    store, keys = Store(work), [_key(feature, one) for one in measured]
    files = [file_of(visit, feature, out) for visit in visits]
    todo = [k for k, key in enumerate(keys) if not _done(store, key, files[k])]
    batches, failed = list(_batches(todo, measured, feature.fitted)), dict[int, str]()
    units = [
        (
            feature,
            [measured[k] for k in batch],
            [keys[k] for k in batch],
            [files[k] for k in batch],
            store,
        )
        for batch in batches
    ]
    label = f"{feature.name}, {feature.fitted} visits at a time"
    began = time.monotonic()
    for i, lost in track(
        map_tasks(_fit, units, executor), label, total=len(units), show=show_progress
    ):
        reasons = (
            [(place, lost.reason) for place in range(len(batches[i]))]
            if isinstance(lost, TaskFailure)
            else lost
        )
        failed |= {batches[i][place]: reason for place, reason in reasons}
    if todo:
        width = min((executor or Executor()).workers(), len(units))
        note_seconds(work, feature.name, (time.monotonic() - began) * width / len(todo))
    return _assembled(feature, [store.get(key) for key in keys], failed), sorted(
        failed.items()
    )


def kept_fits(
    feature: Feature,
    visits: Sequence[Visit],
    measured: Sequence[Measurement],
    out: Path,
    work: Path,
) -> pd.DataFrame | None:
    """Rows of fits that were made before, with what was kept beside them; None where
    one is not there, or the feature is none that is fitted."""
    if not feature.fitted:
        return None
    found = [Store(work).get(_key(feature, one)) for one in measured]
    return None if any(one is None for one in found) else _assembled(feature, found, {})


def file_of(visit: Visit, feature: Feature, out: Path) -> Path:
    """The row of a fitted visit, for people: a table with a header, described beside
    it."""
    return place_of(visit, feature, out).with_name(
        f"{visit.name}_desc-{feature.name}_fit.tsv"
    )


def _quick(feature: Feature, measured: Sequence[Measurement]) -> Rows:
    """All visits at once; where that fails, one by one, so that the others keep their
    rows."""
    if not measured:
        return pd.DataFrame(columns=[column.name for column in feature.columns()]), []
    try:
        return feature.finish(measured), []
    except (InputError, ConvergenceError):
        found = [_one(feature, [one]) for one in measured]
        rows = [
            None if isinstance(one, str) else {"row": one.to_numpy(float)[0]}
            for one in found
        ]
        lost = [(k, one) for k, one in enumerate(found) if isinstance(one, str)]
        return _assembled(feature, rows, dict(lost)), lost


def _one(feature: Feature, measured: list[Measurement]) -> pd.DataFrame | str:
    try:
        return feature.finish(measured)
    except (InputError, ConvergenceError) as trouble:
        return str(trouble)


def _key(feature: Feature, measured: Measurement) -> str:
    return key_of(
        feature=feature.name,
        settings=dict(feature.settings()),
        of=list(measured.origin),
        batch=feature.fitted,
    )


def _done(store: Store, key: str, file: Path) -> bool:
    return (
        file.is_file()
        and read_json_or_empty(file.with_suffix(".json")).get("Of") == key
        and store.get(key) is not None
    )


def _batches(
    todo: list[int], measured: Sequence[Measurement], size: int
) -> Iterable[list[int]]:
    """Visits to be fitted together: those with a connectome of their own apart from
    those with the group's."""
    kinds = sorted({str(measured[k].details.get("Connectome")) for k in todo})
    for kind in kinds:
        alike = [k for k in todo if str(measured[k].details.get("Connectome")) == kind]
        yield from (alike[i : i + size] for i in range(0, len(alike), size))


def _fit(
    feature: Feature,
    measured: list[Measurement],
    keys: list[str],
    files: list[Path],
    store: Store,
) -> list[tuple[int, str]]:
    """Fit a batch and keep its rows; returns the places that failed, with the
    reason."""
    found = _one(feature, _filled(measured, feature.fitted))
    if isinstance(found, pd.DataFrame):
        for place, (key, file) in enumerate(zip(keys, files, strict=True)):
            _keep(
                feature,
                found,
                place,
                {"Of": key, RECIPE: measured[place].origin.recipe},
                file,
                store,
            )
        return []
    if len(measured) == 1:
        return [(0, found)]
    lost = []
    for place, one in enumerate(measured):
        lost += [
            (place, why)
            for _, why in _fit(feature, [one], [keys[place]], [files[place]], store)
        ]
    return lost


def _filled(measured: list[Measurement], size: int) -> list[Measurement]:
    return [*measured, *[measured[-1]] * (size - len(measured))]


def _keep(
    feature: Feature,
    table: pd.DataFrame,
    place: int,
    origin: dict[str, str],
    file: Path,
    store: Store,
) -> None:
    row = table.iloc[[place]].to_numpy(float)
    store.put(
        origin["Of"],
        {"row": row[0], **{name: value[place] for name, value in table.attrs.items()}},
    )
    write_table(file, pd.DataFrame(row, columns=table.columns), float_format="%.9g")
    columns = {
        c.name or feature.name: {"Description": c.meaning, "Units": c.unit}
        for c in feature.columns()
    }
    write_json(file.with_suffix(".json"), {**columns, **origin})


def _assembled(
    feature: Feature, found: Sequence[dict[str, Any] | None], failed: dict[int, str]
) -> pd.DataFrame:
    names = [column.name for column in feature.columns()]
    rows = np.full((len(found), len(names)), np.nan)
    for k, one in enumerate(found):
        if one is not None and k not in failed:
            rows[k] = one["row"]
    table = pd.DataFrame(rows, columns=names)
    here = [one for k, one in enumerate(found) if one is not None and k not in failed]
    if here:
        table.attrs = {
            name: np.stack([one[name] for one in here])
            for name in here[0]
            if name != "row"
        }
    return table
