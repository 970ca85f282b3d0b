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
from cingulum.features import Feature, FeatureRows, Measurement, Origin
from cingulum.features.mechanism import FittedFeature
from cingulum.io.files import write_bytes
from cingulum.io.visit import Visit
from cingulum.parallel import TaskFailure, map_tasks
from cingulum.pipeline.fitted_rows import kept_rows
from cingulum.pipeline.measurement import Failure, FailureKey, failed_keys
from cingulum.pipeline.measurement_cache import MeasurementPlan, load_measurement
from cingulum.pipeline.paths import StudyRun
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


@dataclass(frozen=True, eq=False)
class StudyContext:
    """What the pages of a study print beside the measurements.

    ratings: participant, session, state, pain
    decisions: out of fold, as `Evaluation.predictions` gives them
    """

    ratings: pd.DataFrame
    decisions: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Sources:
    """Where the numbers of all pages come from.

    recipes: by feature, how it must have been measured
    measured, store: where measurements and kept results are
    """

    features: Mapping[str, Feature]
    recipes: Mapping[str, str]
    failed: frozenset[FailureKey]
    measured: Path
    store: Store

    def of_feature(self, feature: Feature, visits: Sequence[Visit]) -> _Measured:
        """What was measured of a feature at those visits that have it."""
        available = [v for v in visits if (*v.key, feature.name) not in self.failed]
        recipe = self.recipes[feature.name]
        measurements = [
            load_measurement(v, feature, self.measured, recipe) for v in available
        ]
        return _Measured(feature, available, measurements)


@dataclass(frozen=True, eq=False)
class _PageTask:
    """What a worker needs to write one page.

    content: without the flags, which are read with the measurements
    out: the folder that the page is written to
    """

    content: ParticipantPage
    visits: Sequence[Visit]
    sources: _Sources
    out: Path


@dataclass(frozen=True, eq=False)
class _Measured:
    """What was measured of one feature at the visits of a participant that have it."""

    feature: Feature
    visits: Sequence[Visit]
    measurements: Sequence[Measurement]

    @property
    def origins(self) -> list[Origin]:
        """What each measurement was made from, and how."""
        return [measurement.origin for measurement in self.measurements]


def write_pages(
    visits: Sequence[Visit],
    plan: MeasurementPlan,
    failures: Sequence[Failure],
    run: StudyRun,
    *,
    study: StudyContext | None = None,
    out: Path | None = None,
) -> list[str]:
    """Write sub-<label>.html for every participant; returns their names. With a study
    they set each visit against the median of all.

    visits: of a participant in the order in which they are shown
    out: where pages go (default: the output folder of the run)
    """
    # What failed has no measurement to read back.
    failed = failed_keys(failures)
    paths = run.paths
    sources = _Sources(plan.features, plan.recipes(), failed, paths.out, paths.store)
    columns = _all_columns(visits, sources)
    folder = Path(out or run.paths.out)
    tasks = []
    for participant, own in _by_participant(visits).items():
        content = _page_content(participant, own, columns, failures, study)
        tasks.append(_PageTask(content, own, sources, folder))
    _write_all(tasks, run)
    return [_file_name(task.content) for task in tasks]


def _by_participant(visits: Sequence[Visit]) -> dict[str, list[Visit]]:
    """Visits of each participant, by label in alphabetical order."""
    by_participant: dict[str, list[Visit]] = {}
    for visit in visits:
        by_participant.setdefault(visit.participant, []).append(visit)
    return dict(sorted(by_participant.items()))


def _file_name(content: ParticipantPage) -> str:
    return f"{content.title}.html"


def _write_all(tasks: Sequence[_PageTask], run: StudyRun) -> None:
    """Write all pages. A page that cannot be written is an error of the program: what
    failed of the recordings is printed on the page."""
    results = track(
        map_tasks(_write_page, [(task,) for task in tasks], run.executor),
        "pages of participants",
        total=len(tasks),
        show=run.show_progress,
    )
    for i, result in results:
        if isinstance(result, TaskFailure):
            page = tasks[i].content.title
            raise RuntimeError(f"The page of {page} could not be made: {result.reason}")


def _all_columns(visits: Sequence[Visit], sources: _Sources) -> list[MeasuredColumn]:
    """Every number of every visit, and whether it is far from those of the others."""
    columns: list[MeasuredColumn] = []
    for feature in sources.features.values():
        # Maps are drawn; they have no columns to print.
        if feature.is_map:
            continue
        measured = sources.of_feature(feature, visits)
        if measured.visits:
            rows = _rows(measured, sources.store)
            columns += measured_columns(feature, measured.visits, rows.table)
    return columns


def _rows(measured: _Measured, store: Store) -> FeatureRows:
    """Rows of a feature: kept fits, or finished now where that is quick."""
    rows = kept_rows(measured.feature, measured.measurements, store)
    # Only features that are fitted have kept rows.
    if rows is None:
        rows = measured.feature.finish(measured.measurements)
    return rows


def _page_content(
    participant: str,
    visits: Sequence[Visit],
    columns: Sequence[MeasuredColumn],
    failures: Sequence[Failure],
    study: StudyContext | None,
) -> ParticipantPage:
    rows = [column.row(visits, study is not None) for column in columns]
    # A page of a single participant job belongs to no finished study.
    pain: dict[str, float] = {}
    decisions: list[ModelDecision] = []
    if study is not None:
        pain = _pain_of(participant, study.ratings)
        decisions = _decisions_on(participant, study.decisions)
    return ParticipantPage(
        title=f"sub-{participant}",
        visits=[visit_label(visit) for visit in visits],
        pain=[pain.get(visit.session) for visit in visits],
        numbers=[row for row in rows if row is not None],
        failed=_failed_features(participant, failures),
        decisions=decisions,
        of_study=study is not None,
    )


def _failed_features(
    participant: str, failures: Sequence[Failure]
) -> list[FailedFeature]:
    """What could not be measured of a participant, by session and feature."""
    own = [failure for failure in failures if failure.participant == participant]
    # Sorted, so that the page does not depend on which task ended first.
    own.sort(key=lambda failure: failure.key)
    listed = []
    for failure in own:
        # A dataset without sessions has one visit per participant, without a name.
        session = failure.session or "the visit"
        listed.append(FailedFeature(session, failure.feature, failure.reason))
    return listed


def _pain_of(participant: str, ratings: pd.DataFrame) -> dict[str, float]:
    own = ratings[ratings["participant"] == participant]
    return {row.session: float(row.pain) for row in own.itertuples()}


def _decisions_on(participant: str, decisions: pd.DataFrame) -> list[ModelDecision]:
    # A label that looks like a number may have been read as one.
    own = decisions[decisions["participant_id"].astype(str) == participant]
    if own.empty:
        return decisions_of(None)
    return decisions_of(own)


def _write_page(task: _PageTask) -> None:
    """Write a page, unless the same page is there already."""
    sources = task.sources
    measured = [sources.of_feature(f, task.visits) for f in sources.features.values()]
    content = replace(task.content, flags=_flags(measured))
    # The key covers the numbers as printed and the recordings behind the figures.
    printed = to_plain(content)
    path = task.out / _file_name(content)
    origins = [part.origins for part in measured]
    key = key_of(page=printed, sources=origins)
    if _is_written(path, key, sources.store):
        return
    page = render("participant.html", printed, _all_pictures(measured, sources.store))
    written = page.encode()
    write_bytes(path, written)
    sources.store.put(key, {DIGEST: _digest(written)})


def _is_written(path: Path, key: str, store: Store) -> bool:
    """Whether a page is there, with the content that was written under this key."""
    kept = store.get(key)
    return kept is not None and _has_digest(path, str(kept[DIGEST]))


def _has_digest(path: Path, digest: str) -> bool:
    # The file may be another study's by now, or edited by hand.
    return path.is_file() and _digest(path.read_bytes()) == digest


def _all_pictures(measured: Sequence[_Measured], store: Store) -> list[Picture]:
    pictures: list[Picture] = []
    for part in measured:
        # Nothing is drawn of a feature that failed at every visit.
        if part.visits:
            pictures += _pictures(part, store)
    return pictures


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
    if measured.feature.is_map:
        return [_map_picture(measured, store)]
    if isinstance(measured.feature, FittedFeature):
        return _fit_pictures(measured, measured.feature, store)
    return []


def _map_picture(measured: _Measured, store: Store) -> Picture:
    feature, visits = measured.feature, measured.visits
    measurements = measured.measurements
    figure = _drawn_once(
        measured, store, lambda: draw_maps(feature, visits, measurements)
    )
    return map_picture(feature, visits, measurements, figure)


def _fit_pictures(
    measured: _Measured, feature: FittedFeature, store: Store
) -> list[Picture]:
    visits = measured.visits
    rows = kept_rows(feature, measured.measurements, store)
    # A fit by likelihood has no modelled connectivity to draw.
    if rows is None or "fc" not in rows.arrays:
        return []
    figure = _drawn_once(measured, store, lambda: draw_fits(visits, rows))
    return [fit_picture(feature, visits, rows, figure)]


def _drawn_once(
    measured: _Measured, store: Store, draw: Callable[[], Figure]
) -> Figure:
    """A figure, kept: the page around it is written again whenever the study
    changes."""
    key = key_of(
        figure=measured.feature.name,
        settings=dict(measured.feature.settings()),
        of=measured.origins,
        visits=[visit.session for visit in measured.visits],
    )
    kept = store.get(key)
    if kept is None:
        kept = _figure_arrays(draw())
        store.put(key, kept)
    return Figure(kept["png"].tobytes(), str(kept["viewer"]))


def _figure_arrays(figure: Figure) -> dict[str, np.ndarray]:
    """A figure as the store keeps it: it holds arrays only."""
    return {
        "png": np.frombuffer(figure.png, np.uint8),
        "viewer": np.asarray(figure.viewer),
    }
