"""Features of a whole cohort, read back from where each visit's measurements were
kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import Feature, Measurement
from cingulum.features.cohort_features import CohortFeatures
from cingulum.io import Cohort, Visit
from cingulum.io.files import slug
from cingulum.parallel import Executor
from cingulum.pipeline.fitted_rows import finish
from cingulum.pipeline.measurement import CONTROLS, Failure, load
from cingulum.pipeline.measurement import measured as place_of
from cingulum.signals.atlas import Atlas, pain_atlas


def gather(
    cohort: Cohort,
    out: Path,
    wanted: Mapping[str, Feature],
    *,
    work: Path | None = None,
    failures: Sequence[Failure] = (),
    missing: str = "complete",
    executor: Executor | None = None,
    show_progress: bool = False,
) -> tuple[CohortFeatures, Cohort]:
    """Read the measurements of a cohort back, and fit where a model is to be fitted;
    also who is left of the cohort.

    missing: `complete` leaves out participants that lack a feature; else their values
    are NaN at both visits, and only who has nothing to predict from is left out
    Raises InputError for a visit not measured yet, maps on different grids, or nobody
    left.
    """
    work = Path(work or Path(out) / "work")
    predict = [name for name in wanted if name not in (*SHOWN, *CONTROLS)]
    cohort = (
        _complete(cohort, failures)
        if missing == "complete"
        else _with_something(cohort, failures, predict)
    )
    lacking = {(one.participant, one.feature) for one in failures}
    rows, lost = {}, []
    order = _ordered(cohort)
    for name, feature in wanted.items():
        here = [visit for visit in order if (visit.participant, name) not in lacking]
        measured = [load(visit, feature, out) for visit in here]
        table, failed = (
            (None, [])
            if feature.is_map
            else (finish(feature, here, measured, out, work, executor, show_progress))
        )
        failed += _no_number(feature, table, {k for k, _ in failed})
        lost += [
            Failure(here[k].participant, here[k].session, name, why)
            for k, why in failed
        ]
        rows[name] = (here, measured, table)
    # what fits failed on is known now: leave those out, and read again (nothing is
    # fitted twice)
    if lost:
        return gather(
            cohort,
            out,
            wanted,
            work=work,
            failures=[*failures, *lost],
            missing=missing,
            executor=executor,
        )
    gathered = CohortFeatures(
        {},
        {},
        {n: f.unit for n, f in wanted.items()},
        {},
        cohort.participants,
        units_of=_units(wanted),
        atlas=_atlas(wanted),
    )
    for name, feature in wanted.items():
        _enter(gathered, feature, order, *rows[name], out)
    for one in failures:
        if one.participant in gathered.patients and one.feature in predict:
            gathered.lacking.setdefault(one.participant, {}).setdefault(
                one.feature, one.reason
            )
    return gathered, cohort


SHOWN = ("hrv", "quality")
"""Features that are shown beside the others: a number that they lack is a gap in a
table, no reason to leave out."""


def _no_number(
    feature: Feature, table: pd.DataFrame | None, failed: set[int]
) -> list[tuple[int, str]]:
    """Visits at which a feature came to no number (the logarithm of nothing, say)."""
    if table is None or feature.name in SHOWN:
        return []
    bad = ~np.isfinite(table[_estimates(table)].to_numpy(float)).all(1)
    return [
        (int(k), f"{feature.name} is no finite number at this visit")
        for k in np.flatnonzero(bad)
        if k not in failed
    ]


def _estimates(table: pd.DataFrame) -> list[Any]:
    """Columns that predict: standard deviations of estimates are shown only."""
    return [column for column in table.columns if not str(column).startswith("sd ")]


def _units(wanted: Mapping[str, Feature]) -> dict[str, dict[str, Any]]:
    return {
        slug(f"{name} {c.name}"): {"Units": c.unit}
        for name, f in wanted.items()
        for c in f.columns()
    }


def _atlas(wanted: Mapping[str, Feature]) -> Atlas:
    return next((f.atlas for f in wanted.values() if f.fitted), pain_atlas())  # type: ignore[attr-defined]


def _complete(cohort: Cohort, failures: Sequence[Failure]) -> Cohort:
    reasons: dict[str, str] = {}
    for one in failures:
        if one.participant in cohort.participants:
            reasons.setdefault(one.participant, one.reason)
    return cohort.without(reasons)


def _with_something(
    cohort: Cohort, failures: Sequence[Failure], predict: Sequence[str]
) -> Cohort:
    """Those who have some feature to predict from."""
    lacking: dict[str, dict[str, str]] = {}
    for one in failures:
        if one.participant in cohort.participants and one.feature in predict:
            lacking.setdefault(one.participant, {}).setdefault(one.feature, one.reason)
    nothing = {p: why for p, why in lacking.items() if len(why) == len(predict)}
    return cohort.without(
        {p: "; ".join(dict.fromkeys(why.values())) for p, why in nothing.items()}
    )


def _ordered(cohort: Cohort) -> list[Visit]:
    """Visits by participant, first and second."""
    order = cohort.ratings.sort_values(["participant", "state"])
    found = {(visit.participant, visit.session): visit for visit in cohort.visits}
    return [
        found[key] for key in zip(order["participant"], order["session"], strict=True)
    ]


def _enter(
    gathered: CohortFeatures,
    feature: Feature,
    order: list[Visit],
    here: list[Visit],
    measured: list[Measurement],
    table: pd.DataFrame | None,
    out: Path,
) -> None:
    """Put a feature's values into their places among all visits."""
    name, places = feature.name, {visit.name: k for k, visit in enumerate(order)}
    if not measured:
        return
    _tell(gathered, here, measured)
    if feature.is_map:
        gathered.grids[name] = _one_grid(feature, measured, here, out)
        uneven = _uneven(measured, here)
        if uneven:
            gathered.flagged[
                f"{name}: the map covers other parts of the brain than at the other "
                "visit"
            ] = uneven
    elif len({row.values.shape for row in measured}) > 1 and not feature.fitted:
        raise InputError(
            f"{name}: visits have measurements of different length; measure them again."
        )
    if table is None:
        table = feature.finish(measured)
    rows = [places[visit.name] for visit in here]
    full = pd.DataFrame(
        np.full((len(order), table.shape[1]), np.nan), columns=table.columns
    )
    full.iloc[rows] = table.to_numpy(float)
    if name == "hrv":
        _heart_controls(gathered, full, [visit.name for visit in order])
    if name in SHOWN:
        gathered.told[name] = full
        return
    estimates = _estimates(full)
    gathered.values[name] = (
        full[estimates].to_numpy(float).reshape(len(order) // 2, 2, -1)
    )
    gathered.columns[name] = [str(column) for column in estimates]
    if feature.fitted:
        gathered.told[name] = full
        gathered.evidence[name] = {
            **table.attrs,
            "connectome": feature.brain.connectome,  # type: ignore[attr-defined]
        }  # type: ignore[attr-defined]


def _heart_controls(
    gathered: CohortFeatures, table: pd.DataFrame, visits: list[str]
) -> None:
    """Heart rate and breathing as controls; breathing only where every visit has it."""
    for name, unit in (("rate", "1/min"), ("breath", "Hz")):
        values = table[name].to_numpy(float)
        gathered.units[name] = unit
        known = np.isfinite(values) if name == "rate" else np.isfinite(values).all()
        if np.any(known) and np.ptp(values[np.isfinite(values)]) > 0:
            gathered.values[name] = values.reshape(-1, 2, 1)
            gathered.columns[name] = [name]
        elif name == "breath" and np.isfinite(values).any():
            unread = {
                visit
                for visit, value in zip(visits, values, strict=True)
                if not np.isfinite(value)
            }
            gathered.flagged[
                "Breathing could not be read, so breathing is no control here"
            ] = unread


def _tell(
    gathered: CohortFeatures, visits: list[Visit], rows: list[Measurement]
) -> None:
    for visit, row in zip(visits, rows, strict=True):
        gathered.sources.add(row.origin.recordings)
        for flag in row.flags:
            gathered.flagged.setdefault(flag, set()).add(visit.name)
        equation = row.details.get("Equation")
        if equation and equation not in gathered.equations:
            gathered.equations.append(str(equation))


UNEVEN = 0.1
"""Share of the voxels with a value at either visit that may lack one at the other."""


def _uneven(rows: list[Measurement], visits: list[Visit]) -> set[str]:
    """Visits of people whose two maps do not cover the same voxels: what is missing
    would count as a change."""
    covered: dict[str, list[tuple[str, np.ndarray]]] = {}
    for visit, row in zip(visits, rows, strict=True):
        covered.setdefault(visit.participant, []).append((visit.name, row.values != 0))
    found = set()
    for (first, a), (second, b) in (
        pair for pair in covered.values() if len(pair) == 2
    ):
        if (a ^ b).sum() > UNEVEN * (a | b).sum():
            found |= {first, second}
    return found


def _one_grid(
    feature: Feature, rows: list[Measurement], visits: list[Visit], out: Path
) -> tuple[tuple[int, ...], np.ndarray]:
    first = rows[0]
    assert first.affine is not None
    for visit, row in zip(visits, rows, strict=True):
        assert row.affine is not None
        if row.values.shape != first.values.shape or not np.allclose(
            row.affine, first.affine
        ):
            raise InputError(
                f"{place_of(visit, feature, out).name}: its grid {row.values.shape} "
                f"differs from {first.values.shape}, "
                f"that of {visits[0].name}. All visits must be on one grid (one "
                "--output-spaces resolution of "
                "fMRIPrep and ASLPrep)."
            )
    return first.values.shape, first.affine
