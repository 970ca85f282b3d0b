"""A page for each participant: quality first, then what was measured at each visit, and
what the models said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.cache.store import Store, key_of
from cingulum.features import Feature
from cingulum.io import Visit
from cingulum.io.files import slug, write_bytes
from cingulum.parallel import Executor, TaskFailure, map_tasks
from cingulum.pipeline.fitted_rows import kept_fits
from cingulum.pipeline.measurement import Failure, load
from cingulum.progress import track
from cingulum.report import Picture, plots, summarise, tables
from cingulum.report.feature_overview import far_out
from cingulum.report.page import render_participant
from cingulum.report.viewers import Viewer, brain_viewer
from cingulum.versions import software_versions

VIEWED = 3
"""Resolution of a page's viewers, mm: there are two a participant, and maps of one
person are smooth."""

CENTRE = {"rcbf": 1.0, "cbfmap": 0.0, "s1conn": 0.0}
"""The value of a map that is drawn white."""


def write_pages(
    visits: Sequence[Visit],
    wanted: Mapping[str, Feature],
    failures: Sequence[Failure],
    out: Path,
    work: Path,
    *,
    to: Path | None = None,
    ratings: pd.DataFrame | None = None,
    decisions: pd.DataFrame | None = None,
    executor: Executor | None = None,
    show_progress: bool = False,
) -> list[str]:
    """Write sub-<label>.html for every participant; returns their names. With ratings
    they are pages of a study, which set each visit against the median of all.

    visits: of a participant in the order in which they are shown
    out: where the measurements are; to: where pages go, if elsewhere
    ratings: participant, session, state, pain; decisions: out-of-fold, as
        `Evaluation.predictions` gives them
    """
    measured = _numbers(visits, wanted, failures, out, work)
    theirs: dict[str, list[Visit]] = {}
    for visit in visits:
        theirs.setdefault(visit.participant, []).append(visit)
    people, numbers, decided = (
        sorted(theirs),
        _by(measured, "participant"),
        _by(decisions, "participant_id"),
    )
    rated = None if ratings is None else _by(ratings, "participant")
    lost = {(one.participant, one.session, one.feature): one.reason for one in failures}
    units = []
    for person in people:
        own, given = (
            theirs[person],
            None if rated is None else rated.get(person, ratings),
        )
        told = _told(
            person,
            own,
            numbers.get(person, measured[:0]),
            lost,
            given,
            decided.get(person),
        )
        units.append(
            (
                told,
                own,
                {n: f for n, f in wanted.items()},
                set(lost),
                Path(out),
                Path(work),
                Path(to or out),
            )
        )
    done = map_tasks(_write, units, executor)
    for i, result in track(
        done, "pages of participants", total=len(units), show=show_progress
    ):
        if isinstance(result, TaskFailure):
            raise RuntimeError(
                f"The page of sub-{people[i]} could not be made: {result.reason}"
            )
    return [f"sub-{person}.html" for person in people]


def _by(table: pd.DataFrame | None, column: str) -> dict[str, pd.DataFrame]:
    """Rows by person."""
    return (
        {}
        if table is None
        else {str(person): rows for person, rows in table.groupby(column, sort=False)}
    )


def _numbers(
    visits: Sequence[Visit],
    wanted: Mapping[str, Feature],
    failures: Sequence[Failure],
    out: Path,
    work: Path,
) -> pd.DataFrame:
    """A row a visit and number: what it is, its unit, its value, and whether it stands
    apart from all visits."""
    lost = {(one.participant, one.session, one.feature) for one in failures}
    parts = []
    for name, feature in wanted.items():
        here = [
            v
            for v in visits
            if not feature.is_map and (v.participant, v.session, name) not in lost
        ]
        if not here:
            continue
        rows = [load(visit, feature, out) for visit in here]
        fits = kept_fits(feature, here, rows, out, work)
        table = fits if fits is not None else feature.finish(rows)
        columns = {c.name: c for c in feature.columns()}
        shown = [
            c
            for c in table.columns
            if not feature.fitted or " " not in str(c) or str(c).startswith("sd ")
        ]
        for column in shown[:40]:
            values = table[column].to_numpy(float)
            if np.isnan(values).all():
                continue
            told = columns.get(str(column), feature.columns()[0])
            part = {
                "participant": [v.participant for v in here],
                "visit": [v.name for v in here],
                "measure": slug(f"{name} {column}"),
                "meaning": told.meaning,
                "unit": told.unit,
                "value": values,
                "median": np.nanmedian(values),
                "far": far_out(values),
                "feature": name,
            }
            parts.append(pd.DataFrame(part))
    head = [
        "participant",
        "visit",
        "measure",
        "meaning",
        "unit",
        "value",
        "median",
        "far",
        "feature",
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=head)


def _told(
    person: str,
    own: list[Visit],
    measured: pd.DataFrame,
    lost: dict[tuple[str, str, str], str],
    ratings: pd.DataFrame | None,
    decisions: pd.DataFrame | None,
) -> dict[str, Any]:
    """Everything the page prints."""
    rows, of_study = [], ratings is not None
    for measure, part in measured.groupby("measure", sort=False):
        by = part.set_index("visit")
        cells = [_one(by, visit.name, of_study) for visit in own]
        first = part.iloc[0]
        of_quality = first["feature"] in ("quality", "motion")
        rows.append(
            {
                "measure": measure,
                "meaning": first["meaning"],
                "unit": first["unit"],
                "cells": cells,
                "median": float(first["median"]) if of_study else None,
                "quality": of_quality,
            }
        )
    pain = (
        {}
        if ratings is None
        else {
            row.session: float(row.pain)
            for row in ratings[ratings["participant"] == person].itertuples()
        }
    )
    said = [] if decisions is None else _said(decisions)
    return {
        "title": f"sub-{person}",
        "visits": [visit.session or "the visit" for visit in own],
        "pain": [pain.get(visit.session) for visit in own],
        "numbers": rows,
        "failed": [
            {"visit": s or "the visit", "feature": f, "reason": why}
            for (p, s, f), why in sorted(lost.items())
            if p == person
        ],
        "decisions": said,
        "of_study": of_study,
        "versions": software_versions(),
    }


def _one(by: pd.DataFrame, visit: str, of_study: bool) -> dict[str, Any]:
    if visit not in by.index:
        return {"value": None, "far": False}
    return {
        "value": float(by.loc[visit, "value"]),
        "far": of_study and bool(by.loc[visit, "far"]),
    }


def _said(own: pd.DataFrame) -> list[dict[str, Any]]:
    """What each model, that never saw this participant, said of the two visits."""
    return [
        {
            "model": summarise.LABELS.get(row.model, row.model),
            "decision": float(row.decision),
            "answer": {1.0: "right", 0.0: "wrong"}.get(float(row.correct), "undecided"),
        }
        for row in own.itertuples()
        if np.isfinite(row.decision)
    ]


def _write(
    told: dict[str, Any],
    own: list[Visit],
    wanted: Mapping[str, Feature],
    lost: set[tuple[str, str, str]],
    out: Path,
    work: Path,
    to: Path,
) -> None:
    rows = {}
    for name, feature in wanted.items():
        here = [
            visit
            for visit in own
            if (visit.participant, visit.session, name) not in lost
        ]
        rows[name] = (here, [load(visit, feature, out) for visit in here])
    flags: dict[str, set[str]] = {}
    for here, measured in rows.values():
        for visit, row in zip(here, measured, strict=True):
            for flag in row.flags:
                flags.setdefault(flag, set()).add(visit.session)
    told = summarise.plain(
        {**told, "flags": {flag: sorted(where) for flag, where in flags.items()}}
    )
    sources = [[row.origin for row in measured] for _, measured in rows.values()]
    page, store, key = (
        to / f"{told['title']}.html",
        Store(work),
        key_of(page=told, sources=sources),
    )
    kept = store.get(key)
    if (
        kept is not None
        and page.is_file()
        and _digest(page.read_bytes()) == str(kept["digest"])
    ):
        return
    pictures = [
        one
        for name, (here, measured) in rows.items()
        for one in _pictures(wanted[name], here, measured, out, store)
    ]
    content = render_participant(told, pictures).encode()
    write_bytes(page, content)
    store.put(key, {"digest": _digest(content)})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pictures(
    feature: Feature, here: list[Visit], rows: list[Any], out: Path, store: Store
) -> list[Picture]:
    if not here:
        return []
    if feature.is_map:
        return [_map(feature, here, rows, store)]
    return _fits(feature, here, rows, out, store) if feature.fitted else []


def _drawn(
    store: Store,
    feature: Feature,
    here: list[Visit],
    rows: list[Any],
    draw: Callable[[], tuple[bytes, str]],
) -> tuple[bytes, Viewer | None]:
    """A figure and its viewer, drawn once: the page around them is written anew
    whenever the study changes."""
    sessions = [visit.session for visit in here]
    key = key_of(
        figure=feature.name,
        settings=dict(feature.settings()),
        of=[row.origin for row in rows],
        visits=sessions,
    )
    found = store.get(key)
    if found is None:
        png, viewer = draw()
        found = {"png": np.frombuffer(png, np.uint8), "viewer": np.asarray(viewer)}
        store.put(key, found)
    return found["png"].tobytes(), Viewer(str(found["viewer"])) if str(
        found["viewer"]
    ) else None


def _map(feature: Feature, here: list[Visit], rows: list[Any], store: Store) -> Picture:
    label, centre = (
        summarise.LABELS.get(feature.name, feature.name),
        CENTRE.get(feature.name, 0.0),
    )
    affine = rows[0].affine
    maps = [
        (visit.session or "the visit", row.values)
        for visit, row in zip(here, rows, strict=True)
    ]
    alike = len({values.shape for _, values in maps}) == 1
    shown = maps if alike else maps[:1]
    pair = alike and len(maps) == 2

    def draw() -> tuple[bytes, str]:
        sliced = (
            maps[1][1] - maps[0][1] if pair else maps[0][1] - centre * (maps[0][1] != 0)
        )
        return plots.slices(shown, affine, centre), brain_viewer(
            sliced, affine, resolution=VIEWED
        ).html

    drawn, viewer = _drawn(store, feature, here, rows, draw)
    which = f"; the viewer shows {maps[1][0]} minus {maps[0][0]}" if pair else ""
    return Picture(
        "maps",
        drawn,
        f"Axial slices of {label}, a row for each visit.",
        f"{label} ({feature.unit}){which}.",
        viewer=viewer,
    )


def _fits(
    feature: Feature, here: list[Visit], rows: list[Any], out: Path, store: Store
) -> list[Picture]:
    table = kept_fits(feature, here, rows, out, store.folder)
    if table is None or "fc" not in table.attrs:
        return []
    sessions = [visit.session or "the visit" for visit in here]
    seen, modelled, r = (table.attrs[name] for name in ("recorded", "fc", "fc_r"))
    pairs = [(name, (seen[k], modelled[k])) for k, name in enumerate(sessions)]

    def draw() -> tuple[bytes, str]:
        return plots.matrices(pairs, ("recorded", "fitted brain"), "correlation"), ""

    drawn, _ = _drawn(store, feature, here, rows, draw)
    told = ", ".join(f"{name} r = {float(r[k]):.3f}" for k, name in enumerate(sessions))
    regions = feature.atlas.regions  # type: ignore[attr-defined]
    parts = [
        tables.edges(seen[k], modelled[k], regions).assign(visit=name)
        for k, name in enumerate(sessions)
    ]
    alt = (
        "Matrices of connectivity between regions, a row for each visit: recorded, "
        "and of the fitted brain."
    )
    caption = f"Recorded connectivity and that of the fitted brain, in-sample ({told})."
    return [
        Picture(
            "fits",
            drawn,
            alt,
            caption,
            f"fc_{here[0].participant}",
            pd.concat(parts, ignore_index=True),
        )
    ]
