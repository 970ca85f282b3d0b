"""A page for each participant, written from what was measured and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.cache.keys import key_of
from cingulum.cache.store import Store
from cingulum.features import Feature, Measurement
from cingulum.features.mechanism import FittedFeature
from cingulum.io.files import write_bytes
from cingulum.io.visit import Visit
from cingulum.parallel import TaskFailure, map_tasks
from cingulum.pipeline.fitted_rows import kept_rows
from cingulum.pipeline.measurement import Failure
from cingulum.pipeline.measurement_cache import load_measurement
from cingulum.pipeline.paths import Run
from cingulum.progress import track
from cingulum.report.page import Picture, render
from cingulum.report.participant import (
    FailedFeature,
    Figure,
    MeasuredColumn,
    ModelDecision,
    ParticipantPage,
    decisions_of,
    draw_fits,
    draw_maps,
    fit_picture,
    map_picture,
    measured_columns,
    visit_label,
)
from cingulum.report.results import to_plain

DIGEST = "digest"
"""The name under which the SHA-256 of a written page is kept."""

FailedKeys = frozenset[tuple[str, str, str]]


@dataclass(frozen=True, eq=False)
class StudyContext:
    """What the pages of a study print beside the measurements.

    ratings: participant, session, state, pain
    decisions: out of fold, as `Evaluation.predictions` gives them
    """

    ratings: pd.DataFrame
    decisions: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _PageTask:
    """What a worker needs to write one page.

    content: without what only the measurements tell (flags)
    measured, store: where measurements and kept results are; out: where the page goes
    """

    content: ParticipantPage
    visits: Sequence[Visit]
    features: Mapping[str, Feature]
    failed: FailedKeys
    measured: Path
    store: Store
    out: Path


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured of one feature at the visits of a participant that have it."""

    feature: Feature
    visits: Sequence[Visit]
    measurements: Sequence[Measurement]


def write_pages(
    visits: Sequence[Visit],
    features: Mapping[str, Feature],
    failures: Sequence[Failure],
    run: Run,
    *,
    study: StudyContext | None = None,
    out: Path | None = None,
) -> list[str]:
    """Write sub-<label>.html for every participant; returns their names. With a study
    they set each visit against the median of all.

    visits: of a participant in the order in which they are shown
    out: where pages go (default: the output folder of the run)
    """
    failed = frozenset(failure.key for failure in failures)
    columns = _all_columns(visits, features, failed, run)
    by_participant: dict[str, list[Visit]] = {}
    for visit in visits:
        by_participant.setdefault(visit.participant, []).append(visit)
    participants = sorted(by_participant)
    tasks = []
    for participant in participants:
        own = by_participant[participant]
        content = _page_content(participant, own, columns, failures, study)
        tasks.append(
            _PageTask(
                content,
                own,
                features,
                failed,
                run.paths.out,
                run.paths.store,
                Path(out or run.paths.out),
            )
        )
    results = map_tasks(_write_page, [(task,) for task in tasks], run.executor)
    for i, result in track(
        results, "pages of participants", total=len(tasks), show=run.show_progress
    ):
        if isinstance(result, TaskFailure):
            raise RuntimeError(
                f"The page of sub-{participants[i]} could not be made: {result.reason}"
            )
    return [f"sub-{participant}.html" for participant in participants]


def _available(
    visits: Sequence[Visit], feature: str, failed: FailedKeys
) -> list[Visit]:
    return [visit for visit in visits if (*visit.key, feature) not in failed]


def _all_columns(
    visits: Sequence[Visit],
    features: Mapping[str, Feature],
    failed: FailedKeys,
    run: Run,
) -> list[MeasuredColumn]:
    """Every number of every visit, and whether it is far from those of the others."""
    columns = []
    for name, feature in features.items():
        available = _available(visits, name, failed)
        if feature.is_map or not available:
            continue
        measurements = [
            load_measurement(visit, feature, run.paths.out) for visit in available
        ]
        rows = kept_rows(feature, measurements, run.paths.store)
        if rows is None:
            rows = feature.finish(measurements)
        columns += measured_columns(feature, available, rows.table)
    return columns


def _page_content(
    participant: str,
    visits: Sequence[Visit],
    columns: Sequence[MeasuredColumn],
    failures: Sequence[Failure],
    study: StudyContext | None,
) -> ParticipantPage:
    rows = [column.row(visits, study is not None) for column in columns]
    own_failures = sorted(
        (failure for failure in failures if failure.participant == participant),
        key=lambda failure: failure.key,
    )
    pain = {} if study is None else _pain_of(participant, study.ratings)
    return ParticipantPage(
        title=f"sub-{participant}",
        visits=[visit_label(visit) for visit in visits],
        pain=[pain.get(visit.session) for visit in visits],
        numbers=[row for row in rows if row is not None],
        failed=[
            FailedFeature(
                failure.session or "the visit", failure.feature, failure.reason
            )
            for failure in own_failures
        ],
        decisions=[] if study is None else _decisions_on(participant, study.decisions),
        of_study=study is not None,
    )


def _pain_of(participant: str, ratings: pd.DataFrame) -> dict[str, float]:
    own = ratings[ratings["participant"] == participant]
    return {row.session: float(row.pain) for row in own.itertuples()}


def _decisions_on(participant: str, decisions: pd.DataFrame) -> list[ModelDecision]:
    own = decisions[decisions["participant_id"].astype(str) == participant]
    return decisions_of(own if len(own) else None)


def _write_page(task: _PageTask) -> None:
    """Write a page, unless the same page is there already."""
    measured = [_measured(feature, task) for feature in task.features.values()]
    content = replace(task.content, flags=_flags(measured))
    printed = to_plain(content)
    sources = [[one.origin for one in part.measurements] for part in measured]
    path = task.out / f"{content.title}.html"
    key = key_of(page=printed, sources=sources)
    kept = task.store.get(key)
    if kept is not None and path.is_file():
        if _digest(path.read_bytes()) == str(kept[DIGEST]):
            return
    pictures: list[Picture] = []
    for part in measured:
        if part.visits:
            pictures += _pictures(part, task.store)
    page = render("participant.html", printed, pictures).encode()
    write_bytes(path, page)
    task.store.put(key, {DIGEST: _digest(page)})


def _measured(feature: Feature, task: _PageTask) -> _Measured:
    visits = _available(task.visits, feature.name, task.failed)
    measurements = [load_measurement(one, feature, task.measured) for one in visits]
    return _Measured(feature, visits, measurements)


def _flags(measured: Sequence[_Measured]) -> dict[str, list[str]]:
    """What the recordings were flagged for, and at which visits."""
    flags: dict[str, set[str]] = {}
    for part in measured:
        for visit, measurement in zip(part.visits, part.measurements, strict=True):
            for flag in measurement.flags:
                flags.setdefault(flag, set()).add(visit.session)
    return {flag: sorted(sessions) for flag, sessions in flags.items()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pictures(measured: _Measured, store: Store) -> list[Picture]:
    """The figures of one feature of a participant."""
    feature = measured.feature
    visits = measured.visits
    measurements = measured.measurements
    if feature.is_map:
        figure = _drawn_once(
            measured, store, lambda: draw_maps(feature, visits, measurements)
        )
        return [map_picture(feature, visits, measurements, figure)]
    if not isinstance(feature, FittedFeature):
        return []
    rows = kept_rows(feature, measurements, store)
    if rows is None or "fc" not in rows.arrays:
        return []
    figure = _drawn_once(measured, store, lambda: draw_fits(visits, rows))
    return [fit_picture(feature, visits, rows, figure)]


def _drawn_once(
    measured: _Measured, store: Store, draw: Callable[[], Figure]
) -> Figure:
    """A figure, kept: the page around it is written anew whenever the study changes."""
    key = key_of(
        figure=measured.feature.name,
        settings=dict(measured.feature.settings()),
        of=[measurement.origin for measurement in measured.measurements],
        visits=[visit.session for visit in measured.visits],
    )
    kept = store.get(key)
    if kept is None:
        figure = draw()
        kept = {
            "png": np.frombuffer(figure.png, np.uint8),
            "viewer": np.asarray(figure.viewer),
        }
        store.put(key, kept)
    return Figure(kept["png"].tobytes(), str(kept["viewer"]))
