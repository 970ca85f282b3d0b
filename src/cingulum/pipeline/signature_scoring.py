"""Score recordings with the weights of a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import build_features
from cingulum.io.cohort import Rating, ordered_ratings
from cingulum.io.derivatives import describe_dataset
from cingulum.io.files import read_table, write_json, write_table
from cingulum.io.images import read_image
from cingulum.pipeline.feature_export import VisitSelection
from cingulum.pipeline.feature_table import FeatureResult, FeatureTable
from cingulum.pipeline.measurement import Failure, measure_visits
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.pipeline.paths import Run
from cingulum.prediction.signature import (
    ModalityWeights,
    Signature,
    read_signature,
)
from cingulum.prediction.signature_scores import (
    SignatureScores,
    score_columns,
    score_maps,
)
from cingulum.prediction.statistics import exact_interval
from cingulum.report.results import to_plain
from cingulum.versions import software_versions

WORDS = (
    "Scores of single scans are not calibrated: only differences between visits of one "
    "person were validated. Left and right cannot be checked from the data."
)

ORIGIN_DIGITS = 16
"""Digits of the hashes by which a signature knows what it was trained on."""


class Scan(NamedTuple):
    """What a feature measured at a visit; affine: of a map."""

    values: np.ndarray
    affine: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Scans:
    """What is to be scored.

    order: visits in the order of time
    by_visit: by participant and session, by modality
    columns: by modality that is no map, the names of its columns
    failures: what could not be measured
    trained_on: participants that the signature was trained on
    """

    order: Sequence[Rating]
    by_visit: Mapping[tuple[str, str], dict[str, Scan]]
    columns: Mapping[str, list[str]]
    failures: Sequence[Failure] = ()
    trained_on: AbstractSet[str] = frozenset()


def apply_to_bids(
    signature: Path, selection: VisitSelection, run: Run
) -> dict[str, Any]:
    """Measure what the signature needs of every visit, and score it; returns the
    summary.

    Writes scores.tsv (a row per scan and modality), decisions.tsv (a row per
    participant with two visits) and summary.json. A visit that lacks a recording is
    told and scored on the rest.
    """
    signed = read_signature(signature)
    paths = run.paths
    visits = selection.visits(paths)
    features = build_features(list(signed.parts))
    describe_dataset(paths.out)
    failures = measure_visits(visits, MeasurementPlan(features), run)
    table = FeatureTable.build(visits, features, run, failures)
    by_visit: dict[tuple[str, str], dict[str, Scan]] = {v.key: {} for v in visits}
    failed = {failure.key for failure in table.failures}
    columns = {}
    for name, result in table.results.items():
        if result.rows is not None and result.visits:
            columns[name] = [column or name for column in result.table.columns]
        for key, scan in _scans_of(result):
            if (*key, name) not in failed:
                by_visit[key][name] = scan
    scans = Scans(
        ordered_ratings(paths.bids, visits),
        by_visit,
        columns,
        table.failures,
        _trained_on(signed, table),
    )
    return _write_scores(signed, scans, paths.out)


def _scans_of(result: FeatureResult) -> list[tuple[tuple[str, str], Scan]]:
    """By visit, what the feature measured."""
    keys = [visit.key for visit in result.visits]
    if result.feature.is_map:
        scans = [Scan(one.values, one.affine) for one in result.measurements]
    else:
        scans = [Scan(row, None) for row in result.table.to_numpy(float)]
    return list(zip(keys, scans, strict=True))


def _trained_on(signed: Signature, table: FeatureTable) -> set[str]:
    """Participants whose recordings the signature was trained on."""
    trained = set(signed.metadata.get("TrainedOn", []))
    participants = set()
    for result in table.results.values():
        for visit, measurement in zip(result.visits, result.measurements, strict=True):
            if measurement.origin.recordings[:ORIGIN_DIGITS] in trained:
                participants.add(visit.participant)
    return participants


def apply_to_table(signature: Path, table: Path, out: Path) -> dict[str, Any]:
    """Score scans that a table names: columns participant_id, session_id, one per
    modality (a NIfTI file, relative to the table, or a number), and pain where it is
    known; sessions in the order of the rows."""
    signed = read_signature(signature)
    rows = read_table(
        table,
        dtype={"participant_id": str, "session_id": str},
        sep="," if Path(table).suffix == ".csv" else "\t",
    )
    modalities = [name for name in signed.parts if name in rows]
    if not {"participant_id", "session_id"} <= set(rows) or not modalities:
        raise InputError(
            f"{table}: expected the columns participant_id, session_id and at least "
            f"one of {', '.join(signed.parts)}; came "
            f"{', '.join(map(str, rows.columns))}."
        )
    by_visit: dict[tuple[str, str], dict[str, Scan]] = {}
    for row in rows.to_dict("records"):
        key = (row["participant_id"], row["session_id"])
        scans = by_visit.setdefault(key, {})
        for name in modalities:
            if not pd.isna(row[name]):
                is_map = signed.parts[name].is_map
                scans[name] = _scan_in_table(row[name], is_map, Path(table).parent)
    columns = {name: list(signed.parts[name].columns) for name in modalities}
    return _write_scores(signed, Scans(_order_of(rows), by_visit, columns), out)


def _order_of(rows: pd.DataFrame) -> list[Rating]:
    """Visits in the order of the rows."""
    pain = pd.Series(np.nan, rows.index)
    if "pain" in rows:
        pain = pd.to_numeric(rows["pain"], errors="coerce")
    return [
        Rating(participant, session, float(rating))
        for participant, session, rating in zip(
            rows["participant_id"], rows["session_id"], pain, strict=True
        )
    ]


def _scan_in_table(cell: object, is_map: bool, folder: Path) -> Scan:
    if not is_map:
        return Scan(np.array([float(str(cell))]), None)
    image = read_image(folder / str(cell), 3, allow_nan=True)
    return Scan(np.asarray(image.dataobj), image.affine)


@dataclass(eq=False)
class _Scored:
    """Scores, decisions and flags as they are collected."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)


def _write_scores(signed: Signature, scans: Scans, out: Path) -> dict[str, Any]:
    """Score every scan, decide on every participant with two visits, and write what
    came of it; returns the summary."""
    scored = _Scored()
    if scans.trained_on:
        scored.flags.add(
            f"the signature was trained on {len(scans.trained_on)} of these "
            "participants: their scores are in-sample and say nothing about new ones"
        )
    by_participant: dict[str, list[Rating]] = {}
    for visit in scans.order:
        by_participant.setdefault(visit.participant, []).append(visit)
    for participant, visits in by_participant.items():
        _score_participant(signed, scans, participant, visits, scored)
    if not scored.rows:
        first = ""
        if scans.failures:
            first = f" The first reason: {scans.failures[0].reason}"
        raise InputError(f"No scan could be scored with {signed.name}.{first}")
    write_table(Path(out) / "scores.tsv", pd.DataFrame(scored.rows))
    decisions = pd.DataFrame(scored.decisions)
    if len(decisions):
        write_table(Path(out) / "decisions.tsv", decisions)
    scored_visits = {(r["participant_id"], r["session_id"]) for r in scored.rows}
    summary = {
        "signature": signed.name,
        "told": dict(signed.metadata),
        "participants": len(by_participant),
        "scans": len(scored_visits),
        "participants_with_two_visits": len(decisions),
        "models": {
            name: _accuracy_of(decisions, name)
            for name in (*signed.parts, "fused")
            if name in decisions
        },
        "flags": sorted(scored.flags),
        "failures": [_written_failure(failure) for failure in scans.failures],
        "words": WORDS,
        "versions": software_versions(),
    }
    write_json(Path(out) / "summary.json", to_plain(summary))
    return summary


def _written_failure(failure: Failure) -> dict[str, str]:
    return {
        "participant": failure.participant,
        "session": failure.session,
        "modality": failure.feature,
        "reason": failure.reason,
    }


def _score_participant(
    signed: Signature,
    scans: Scans,
    participant: str,
    visits: Sequence[Rating],
    scored: _Scored,
) -> None:
    scores: dict[str, dict[str, float]] = {}
    for name, part in signed.parts.items():
        sessions = [
            visit.session
            for visit in visits
            if name in scans.by_visit[participant, visit.session]
        ]
        if not sessions:
            continue
        own = [scans.by_visit[participant, session][name] for session in sessions]
        what = f"sub-{participant.removeprefix('sub-')}, {name}"
        applied = _apply(part, own, scans.columns.get(name, []), what)
        scored.flags |= set(applied.flags)
        scores[name] = dict(zip(sessions, applied.scores.tolist(), strict=True))
        for session in sessions:
            scored.rows.append(
                {
                    "participant_id": participant,
                    "session_id": session,
                    "modality": name,
                    "score": scores[name][session],
                    "coverage": applied.coverage,
                }
            )
    if len(visits) >= 2:
        scored.decisions.append(_decision(signed, visits[0], visits[1], scores))


def _apply(
    part: ModalityWeights, scans: Sequence[Scan], columns: Sequence[str], what: str
) -> SignatureScores:
    """Scores of one modality at the visits of one participant."""
    if not part.is_map:
        values = np.stack([scan.values.ravel() for scan in scans])
        return score_columns(part, values, list(columns), what)
    first = scans[0]
    if first.affine is None or not all(_same_grid(scan, first) for scan in scans):
        raise InputError(
            f"{what}: the visits lie on different grids; resample them to one."
        )
    return score_maps(part, [scan.values for scan in scans], first.affine, what)


def _same_grid(scan: Scan, other: Scan) -> bool:
    if scan.affine is None or other.affine is None:
        return False
    same_shape = scan.values.shape == other.values.shape
    return same_shape and np.allclose(scan.affine, other.affine)


def _decision(
    signed: Signature,
    first: Rating,
    second: Rating,
    scores: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Which of two visits each model says hurt more: positive for the second."""
    row: dict[str, Any] = {
        "participant_id": first.participant,
        "first": first.session,
        "second": second.session,
        "pain_change": second.pain - first.pain,
    }
    for name, part in signed.parts.items():
        own = scores.get(name, {})
        row[name] = np.nan
        if first.session in own and second.session in own:
            row[name] = own[second.session] - own[first.session] + part.intercept
    if signed.fusion:
        weighted = [weight * row[name] for name, weight in signed.fusion.items()]
        row["fused"] = sum(weighted)
    return row


def _accuracy_of(decisions: pd.DataFrame, name: str) -> dict[str, Any]:
    """How often the sign of the decision is that of the change in pain, where that is
    known."""
    decision = decisions[name]
    change = decisions["pain_change"]
    known = decision.notna() & change.notna() & (change != 0)
    figures: dict[str, Any] = {
        "decided": int(decision.notna().sum()),
        "second_visit_higher": int((decision > 0).sum()),
    }
    if known.any():
        right = np.sign(decision[known]) == np.sign(change[known])
        interval = exact_interval(float(right.sum()), int(known.sum()))
        figures["pain_known"] = int(known.sum())
        figures["accuracy"] = float(right.mean())
        figures["accuracy_exact_ci"] = [interval.low, interval.high]
    return figures
