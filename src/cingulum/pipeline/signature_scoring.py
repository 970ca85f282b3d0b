"""Score recordings with the weights of a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import build_features
from cingulum.io.cohort import Rating, ordered_ratings
from cingulum.io.derivatives import describe_dataset
from cingulum.io.files import (
    JsonObject,
    as_numbers,
    read_table,
    write_json,
    write_table,
)
from cingulum.io.images import read_image
from cingulum.io.visit import Visit
from cingulum.pipeline.feature_export import VisitSelection
from cingulum.pipeline.feature_table import FeatureResult, FeatureTable
from cingulum.pipeline.measurement import Failure, failed_keys, measure_visits
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.pipeline.paths import StudyRun
from cingulum.prediction.intervals import exact_interval
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
from cingulum.report.results import to_plain
from cingulum.report.study import SHORT_HASH
from cingulum.versions import software_versions

# People would otherwise read a score as a pain rating.
WORDS = (
    "Scores of single scans are not calibrated: only differences between visits of one "
    "person were validated. Left and right cannot be checked from the data."
)

ScoresByModality = Mapping[str, Mapping[str, float]]
"""By modality, by session."""

LABELS = ("participant_id", "session_id")
"""Columns that every table of scans must have."""

VisitKey = tuple[str, str]
"""Participant and session."""


class Scan(NamedTuple):
    """What a feature measured at a visit; affine: of a map."""

    values: np.ndarray
    affine: np.ndarray | None


ScansByVisit = dict[VisitKey, dict[str, Scan]]
"""By participant and session, by modality."""


@dataclass(frozen=True, eq=False)
class SignatureScans:
    """What is to be scored.

    order: visits in the order of time
    by_visit: by participant and session, by modality
    columns: by modality that is no map, the names of its columns
    failures: what could not be measured
    trained_on: participants that the signature was trained on
    """

    order: Sequence[Rating]
    by_visit: Mapping[VisitKey, dict[str, Scan]]
    columns: Mapping[str, list[str]]
    failures: Sequence[Failure] = ()
    trained_on: AbstractSet[str] = frozenset()

    def by_participant(self) -> dict[str, list[Rating]]:
        """Visits of each participant, in the order of time."""
        visits: dict[str, list[Rating]] = {}
        for visit in self.order:
            visits.setdefault(visit.participant, []).append(visit)
        return visits

    def with_modality(self, visits: Sequence[Rating], modality: str) -> list[Rating]:
        """The visits that have a scan of a modality."""
        return [
            v for v in visits if modality in self.by_visit[v.participant, v.session]
        ]

    def of_modality(self, visits: Sequence[Rating], modality: str) -> list[Scan]:
        """The scans of one modality at visits that have it."""
        return [self.by_visit[v.participant, v.session][modality] for v in visits]


def apply_to_bids(
    signature: Path, selection: VisitSelection, run: StudyRun
) -> JsonObject:
    """Measure what the signature needs of every visit, and score it; returns the
    summary.

    Writes scores.tsv (a row per scan and modality), decisions.tsv (a row per
    participant with two visits) and summary.json. A visit that lacks a recording is
    listed among the failures, and scored on its other modalities.
    """
    signed = read_signature(signature)
    paths = run.paths
    visits = selection.visits(paths)
    features = build_features(list(signed.parts))
    describe_dataset(paths.out)
    plan = MeasurementPlan(features)
    failures = measure_visits(visits, plan, run)
    table = FeatureTable.build(visits, plan, run, failures)
    scans = SignatureScans(
        ordered_ratings(paths.bids, visits),
        _measured_scans(visits, table),
        _column_names(table),
        table.failures,
        _trained_on(signed, table),
    )
    return _write_scores(signed, scans, paths.out)


def _measured_scans(visits: Sequence[Visit], table: FeatureTable) -> ScansByVisit:
    by_visit: ScansByVisit = {visit.key: {} for visit in visits}
    # A fit that failed leaves a row of NaN in the table.
    failed = failed_keys(table.failures)
    for name, result in table.results.items():
        scans = _scans_of(result)
        for visit, scan in zip(result.visits, scans, strict=True):
            if (*visit.key, name) not in failed:
                by_visit[visit.key][name] = scan
    return by_visit


def _scans_of(result: FeatureResult) -> list[Scan]:
    """What a feature measured, in the order of its visits."""
    if result.feature.is_map:
        return [Scan(m.values, m.affine) for m in result.measurements]
    return [Scan(row, None) for row in result.table.to_numpy(float)]


def _column_names(table: FeatureTable) -> dict[str, list[str]]:
    """By feature that is no map, the names of its columns."""
    names = {}
    for name, result in table.results.items():
        if result.rows is not None and result.visits:
            # A feature of one number has a column without a name.
            names[name] = [column or name for column in result.table.columns]
    return names


def _trained_on(signed: Signature, table: FeatureTable) -> set[str]:
    """Participants whose recordings the signature was trained on."""
    # By the content of the recordings: labels differ between datasets.
    trained = set(signed.metadata.get("TrainedOn", []))
    participants = set()
    for result in table.results.values():
        for visit, measurement in result.measured():
            if measurement.origin.recordings[:SHORT_HASH] in trained:
                participants.add(visit.participant)
    return participants


def apply_to_table(signature: Path, table: Path, out: Path) -> JsonObject:
    """Score scans that a table names: columns participant_id, session_id, one per
    modality (a NIfTI file, relative to the table, or a number), and pain where it is
    known; sessions in the order of the rows."""
    signed = read_signature(signature)
    rows = _read_rows(Path(table))
    parts = {name: part for name, part in signed.parts.items() if name in rows}
    if not set(LABELS) <= set(rows) or not parts:
        raise InputError(_unfit_table(table, rows, signed))
    columns = {name: list(part.columns) for name, part in parts.items()}
    by_visit = _listed_scans(rows, parts, Path(table).parent)
    return _write_scores(
        signed, SignatureScans(_order_of(rows), by_visit, columns), out
    )


def _read_rows(path: Path) -> pd.DataFrame:
    # Labels, not numbers: 01 is not 1.
    label_types = dict.fromkeys(LABELS, str)
    separator = "," if path.suffix == ".csv" else "\t"
    return read_table(path, dtype=label_types, sep=separator)


def _unfit_table(path: Path, rows: pd.DataFrame, signed: Signature) -> str:
    return (
        f"{path}: expected the columns participant_id, session_id and at least one of "
        f"{', '.join(signed.parts)}; got {', '.join(map(str, rows.columns))}."
    )


def _listed_scans(
    rows: pd.DataFrame, parts: Mapping[str, ModalityWeights], folder: Path
) -> ScansByVisit:
    """The scans that a table lists; paths are relative to `folder`."""
    by_visit: ScansByVisit = {}
    for row in rows.to_dict("records"):
        key = (row["participant_id"], row["session_id"])
        # Modalities of a visit may be in rows of their own.
        scans = by_visit.setdefault(key, {})
        for name, part in parts.items():
            # An empty cell: the visit lacks this modality.
            if not pd.isna(row[name]):
                scans[name] = _listed_scan(row[name], part.is_map, folder)
    return by_visit


def _listed_scan(cell: object, is_map: bool, folder: Path) -> Scan:
    if not is_map:
        return Scan(np.array([float(str(cell))]), None)
    image = read_image(folder / str(cell), 3, allow_nan=True)
    return Scan(np.asarray(image.dataobj), image.affine)


def _order_of(rows: pd.DataFrame) -> list[Rating]:
    """Every visit once, in the order of the rows."""
    labels = zip(rows["participant_id"], rows["session_id"], strict=True)
    ratings: dict[VisitKey, Rating] = {}
    for key, pain in zip(labels, _pain_of(rows), strict=True):
        known = ratings.get(key)
        # Modalities of a visit may be in rows of their own, its pain in any of them.
        if known is None or np.isnan(known.pain):
            ratings[key] = Rating(*key, float(pain))
    return list(ratings.values())


def _pain_of(rows: pd.DataFrame) -> pd.Series:
    """Pain of every row, NaN where it is not known."""
    # Pain is only needed to say how often the decisions are right.
    if "pain" not in rows:
        return pd.Series(np.nan, rows.index)
    return as_numbers(rows["pain"])


@dataclass(eq=False)
class _Scored:
    """Scores, decisions and flags as they are collected."""

    rows: list[JsonObject] = field(default_factory=list)
    decisions: list[JsonObject] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)

    @property
    def visits(self) -> set[VisitKey]:
        """Visits with a score of at least one modality."""
        return {(row["participant_id"], row["session_id"]) for row in self.rows}

    def add_scores(
        self,
        participant: str,
        modality: str,
        sessions: Sequence[str],
        scores: SignatureScores,
    ) -> dict[str, float]:
        """Add the scores of one modality at the visits of a participant; returns them
        by session."""
        self.flags |= set(scores.flags)
        by_session: dict[str, float] = {}
        for session, score in zip(sessions, scores.scores.tolist(), strict=True):
            row = {
                "participant_id": participant,
                "session_id": session,
                "modality": modality,
                "score": score,
                "coverage": scores.coverage,
            }
            self.rows.append(row)
            by_session[session] = score
        return by_session


def _write_scores(signed: Signature, scans: SignatureScans, out: Path) -> JsonObject:
    """Score every scan, decide on every participant with two visits, and write both;
    returns the summary."""
    scored = _scored(signed, scans)
    # An empty table would look like a success.
    if not scored.rows:
        raise InputError(_nothing_scored(signed, scans.failures))
    write_table(Path(out) / "scores.tsv", pd.DataFrame(scored.rows))
    # Without a participant with two visits there is nothing to decide.
    decisions = pd.DataFrame(scored.decisions)
    if len(decisions):
        write_table(Path(out) / "decisions.tsv", decisions)
    summary = _summary(signed, scans, scored, decisions)
    write_json(Path(out) / "summary.json", to_plain(summary))
    return summary


def _scored(signed: Signature, scans: SignatureScans) -> _Scored:
    """Scores and decisions of every participant."""
    scored = _Scored()
    # In-sample scores look better than those of new people would.
    if scans.trained_on:
        scored.flags.add(_in_sample(len(scans.trained_on)))
    for participant, visits in scans.by_participant().items():
        scores = _score_participant(signed, scans, participant, visits, scored)
        # Later visits are scored, but the decision is between the first two.
        if len(visits) >= 2:
            decision = _decision(signed, visits[0], visits[1], scores)
            scored.decisions.append(decision)
    return scored


def _in_sample(count: int) -> str:
    return (
        f"the signature was trained on {count} of these participants: their scores are "
        "in-sample and say nothing about new ones"
    )


def _nothing_scored(signed: Signature, failures: Sequence[Failure]) -> str:
    message = f"No scan could be scored with {signed.name}."
    if failures:
        message += f" The first reason: {failures[0].reason}"
    return message


def _summary(
    signed: Signature, scans: SignatureScans, scored: _Scored, decisions: pd.DataFrame
) -> JsonObject:
    """The content of summary.json."""
    models = {}
    for name in (*signed.parts, "fused"):
        if name in decisions:
            models[name] = _accuracy_of(decisions, name)
    return {
        "signature": signed.name,
        "told": dict(signed.metadata),
        "participants": len(scans.by_participant()),
        "scans": len(scored.visits),
        "participants_with_two_visits": len(decisions),
        "models": models,
        "flags": sorted(scored.flags),
        "failures": [_written_failure(failure) for failure in scans.failures],
        "words": WORDS,
        "versions": software_versions(),
    }


def _written_failure(failure: Failure) -> dict[str, str]:
    return {
        "participant": failure.participant,
        "session": failure.session,
        "modality": failure.feature,
        "reason": failure.reason,
    }


def _score_participant(
    signed: Signature,
    scans: SignatureScans,
    participant: str,
    visits: Sequence[Rating],
    scored: _Scored,
) -> ScoresByModality:
    """Score the visits of one participant, and add the rows to `scored`."""
    by_modality: dict[str, dict[str, float]] = {}
    # Labels in a table of the user's may have the prefix already.
    person = f"sub-{participant.removeprefix('sub-')}"
    for name, part in signed.parts.items():
        available = scans.with_modality(visits, name)
        if not available:
            continue
        own = scans.of_modality(available, name)
        columns = scans.columns.get(name, [])
        scores = _apply(part, own, columns, f"{person}, {name}")
        sessions = [visit.session for visit in available]
        by_modality[name] = scored.add_scores(participant, name, sessions, scores)
    return by_modality


def _apply(
    part: ModalityWeights, scans: Sequence[Scan], columns: Sequence[str], what: str
) -> SignatureScores:
    """Scores of one modality at the visits of one participant."""
    if not part.is_map:
        values = np.stack([scan.values.ravel() for scan in scans])
        return score_columns(part, values, list(columns), what)
    maps = [scan.values for scan in scans]
    return score_maps(part, maps, _common_affine(scans, what), what)


def _common_affine(scans: Sequence[Scan], what: str) -> np.ndarray:
    """The affine of all maps. Raises InputError where their grids differ: a difference
    of visits is only meant between the same voxels."""
    first = scans[0]
    if first.affine is None or not all(_same_grid(scan, first) for scan in scans):
        raise InputError(
            f"{what}: the visits lie on different grids; resample them to one."
        )
    return first.affine


def _same_grid(scan: Scan, other: Scan) -> bool:
    if scan.affine is None or other.affine is None:
        return False
    same_shape = scan.values.shape == other.values.shape
    return same_shape and np.allclose(scan.affine, other.affine)


def _decision(
    signed: Signature, first: Rating, second: Rating, scores: ScoresByModality
) -> JsonObject:
    """Which of two visits each model says hurt more: positive for the second."""
    decisions = {}
    for name, part in signed.parts.items():
        by_session = scores.get(name, {})
        # NaN where a visit lacks the modality.
        change = _score(by_session, second) - _score(by_session, first)
        decisions[name] = change + part.intercept
    if signed.fusion:
        weighted = [weight * decisions[name] for name, weight in signed.fusion.items()]
        decisions["fused"] = sum(weighted)
    return {
        "participant_id": first.participant,
        "first": first.session,
        "second": second.session,
        "pain_change": second.pain - first.pain,
        **decisions,
    }


def _score(by_session: Mapping[str, float], visit: Rating) -> float:
    return by_session.get(visit.session, np.nan)


def _accuracy_of(decisions: pd.DataFrame, name: str) -> JsonObject:
    """How often the sign of the decision is that of the change in pain, where that is
    known."""
    decision = decisions[name]
    change = decisions["pain_change"]
    # Equal pain at both visits has no right answer.
    known = decision.notna() & change.notna() & (change != 0)
    figures: JsonObject = {
        "decided": int(decision.notna().sum()),
        "second_visit_higher": int((decision > 0).sum()),
    }
    if known.any():
        right = np.sign(decision[known]) == np.sign(change[known])
        figures |= _accuracy_figures(right)
    return figures


def _accuracy_figures(right: pd.Series) -> JsonObject:
    """Share of right decisions, with its exact interval."""
    interval = exact_interval(float(right.sum()), len(right))
    return {
        "pain_known": len(right),
        "accuracy": float(right.mean()),
        "accuracy_exact_ci": [interval.low, interval.high],
    }
