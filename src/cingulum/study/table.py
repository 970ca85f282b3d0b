"""The feature table of any dataset: a row a visit, every column described, every failure told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum import __version__
from cingulum.errors import ConvergenceError, InputError
from cingulum.features import Feature, Measurement
from cingulum.progress import track
from cingulum.recordings import Visit, visits
from cingulum.recordings.files import read_json, read_matrix, write_bytes, write_json, write_matrix, write_table
from cingulum.report.overview import overview
from cingulum.study.measure import Failure, Plan, describe, load, measure_visits, parallel
from cingulum.study.measure import measured as place_of


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """table: a row a visit, missing values NaN; columns: what each is; failures: what could not be measured, and why;
    skipped: features that no visit has the recordings for."""

    table: pd.DataFrame
    columns: dict[str, dict[str, Any]]
    failures: list[Failure]
    skipped: tuple[str, ...] = ()


def write_features(
    bids: Path,
    out: Path,
    plan: Plan,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    derivatives: Sequence[Path] = (),
    skip_absent: bool = True,
    jobs: int | None = None,
    show_progress: bool = False,
) -> FeatureTable:
    """Measure every visit and write features.tsv, .json and .png, failures.tsv and voxelwise maps to `out`.

    skip_absent: leave out features whose recordings no visit has (else they are failures)
    A visit's row depends on no other visit. Interrupted, the same call goes on where it was.
    Raises InputError where there is no dataset, no visit, or nothing to measure.
    """
    found = visits(bids, participants, sessions=sessions, filters=filters, derivatives=derivatives)
    skipped = _absent(found, plan.features) if skip_absent else ()
    if len(skipped) == len(plan.features):
        raise InputError(
            f"{bids}: its {len(found)} visits have the recordings of none of these features: {', '.join(skipped)}. "
            f"{_needs(plan.features)}"
        )
    wanted = {name: feature for name, feature in plan.features.items() if name not in skipped}
    describe(out)
    failures = measure_visits(
        found, Plan(wanted, plan.denoising, plan.constants), out, jobs=jobs, show_progress=show_progress
    )
    failures = [_without_folder(failure, bids, derivatives) for failure in failures]
    made = _assemble(found, wanted, out, failures, jobs, show_progress)
    _write(out, made, skipped, plan)
    return FeatureTable(made.table, made.columns, made.failures, skipped)


def slug(text: str) -> str:
    """A column name that statistics programs take: letters, digits and underscores."""
    return re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_")


def _absent(found: Sequence[Visit], features: Mapping[str, Feature]) -> tuple[str, ...]:
    return tuple(name for name, feature in features.items() if not any(_reads(visit, feature) for visit in found))


def _reads(visit: Visit, feature: Feature) -> bool:
    try:
        feature.kinds(visit)
    except InputError:
        return any(kind in visit.crowded for kind in feature.needs)
    return True


def _needs(features: Mapping[str, Feature]) -> str:
    kinds = sorted({kind for feature in features.values() for kind in feature.needs})
    return f"They read: {', '.join(kinds)}. Is the derivatives folder below the dataset, or named with --derivatives?"


def _assemble(
    found: Sequence[Visit],
    wanted: Mapping[str, Feature],
    out: Path,
    failures: list[Failure],
    jobs: int | None,
    show: bool,
) -> FeatureTable:
    failed = {(one.participant, one.session, one.feature) for one in failures}
    table = pd.DataFrame({
        "participant_id": [f"sub-{visit.participant}" for visit in found],
        "session_id": [f"ses-{visit.session}" if visit.session else np.nan for visit in found],
    })  # fmt: skip
    columns: dict[str, dict[str, Any]] = {
        "participant_id": {"Description": "Participant"},
        "session_id": {"Description": "Session of the visit"},
    }
    notes: list[list[str]] = [[] for _ in found]
    parts, failures = [table], list(failures)
    for name, feature in wanted.items():
        have = [i for i, visit in enumerate(found) if (visit.participant, visit.session, name) not in failed]
        if feature.is_map:
            flags = [load(found[i], feature, out).flags for i in have]
        else:
            measured = [load(found[i], feature, out) for i in have]
            flags = [one.flags for one in measured]
            if feature.fitted:
                values, lost = _fitted(feature, [found[i] for i in have], measured, out, jobs, show)
            else:
                values, lost = _finish(feature, measured, show)
            failures += [Failure(found[have[k]].participant, found[have[k]].session, name, why) for k, why in lost]
            part, told = _columns(name, feature, values, have, len(found))
            columns |= told
            parts.append(part)
        for i, raised in zip(have, flags, strict=True):
            notes[i] += [flag for flag in raised if flag not in notes[i]]
    gone: dict[tuple[str, str], list[str]] = {(one.participant, one.session): [] for one in failures}
    for one in failures:
        gone[one.participant, one.session].append(one.feature)
    last = pd.DataFrame({
        "failed": [", ".join(gone.get((v.participant, v.session), [])) or np.nan for v in found],
        "flags": ["; ".join(note) or np.nan for note in notes],
    })  # fmt: skip
    columns |= {
        "failed": {"Description": "Features that could not be measured; failures.tsv says why"},
        "flags": {"Description": "What a reader should know of this visit's recordings"},
    }
    return FeatureTable(pd.concat([*parts, last], axis=1), columns, failures)


def _finish(feature: Feature, measured: list[Measurement], show: bool) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Rows of visits in one batch; where the batch fails, one by one, so that the others keep theirs."""
    names = [column.name for column in feature.columns()]
    if not measured:
        return pd.DataFrame(columns=names), []
    try:
        return feature.finish(measured, show), []
    except (InputError, ConvergenceError):
        rows, lost = [], []
        for k, one in enumerate(measured):
            try:
                rows.append(feature.finish([one]))
            except (InputError, ConvergenceError) as trouble:
                lost.append((k, str(trouble)))
                rows.append(pd.DataFrame([[np.nan] * len(names)], columns=names))
        return pd.concat(rows, ignore_index=True), lost


def _fitted(
    feature: Feature, found: Sequence[Visit], measured: list[Measurement], out: Path, jobs: int | None, show: bool
) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Rows of a feature whose `finish` is long work: in batches by processes, each visit's row kept beside its
    measurement, so that an interrupted run loses at most the batches under way."""
    kept = [_row_of(visit, feature, out) for visit in found]
    rows = [_kept(path, one) for path, one in zip(kept, measured, strict=True)]
    todo = [k for k, row in enumerate(rows) if row is None]
    batches = [todo[i : i + feature.fitted] for i in range(0, len(todo), feature.fitted)]
    lost: list[tuple[int, str]] = []
    work = ((feature, [measured[k] for k in batch], False) for batch in batches)
    done = parallel(_finish, work, len(batches), jobs)
    label = f"{feature.name}, {feature.fitted} visits at a time"
    for batch, (table, failed) in zip(batches, track(done, label, total=len(batches), show=show), strict=True):
        failing = dict(failed)
        lost += [(batch[place], why) for place, why in failed]
        for place, k in enumerate(batch):
            row = rows[k] = table.iloc[place].to_numpy(float)
            if place not in failing:
                write_matrix(kept[k], np.atleast_2d(row))
                write_json(kept[k].with_suffix(".json"), {"Of": measured[k].source, "Columns": list(table.columns)})
    names = [column.name for column in feature.columns()]
    return pd.DataFrame(np.stack(rows) if rows else None, columns=names), lost  # type: ignore[arg-type]


def _row_of(visit: Visit, feature: Feature, out: Path) -> Path:
    path = place_of(visit, feature, out)
    return path.with_name(f"{visit.name}_desc-{feature.name}_fit.tsv")


def _kept(path: Path, measured: Measurement) -> np.ndarray | None:
    """A row fitted before to the same measurement."""
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    if read_json(path.with_suffix(".json")).get("Of") != measured.source:
        return None
    return read_matrix(path)[0]


def _columns(
    name: str, feature: Feature, values: pd.DataFrame, have: list[int], count: int
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """The columns of one feature for all visits, and what describes them."""
    told = {
        slug(f"{name} {column.name}"): {
            "LongName": f"{name}: {column.name}" if column.name else name,
            "Description": column.meaning,
            "Units": column.unit,
            "Method": {"Feature": name, "Class": type(feature).__name__, **feature.settings()},
            "Software": f"cingulum {__version__}",
        }
        for column in feature.columns()
    }
    if len(told) != len(feature.columns()):
        raise InputError(
            f"{name}: two of its regions have the same name in letters and digits; rename one in the atlas."
        )
    full = np.full((count, len(told)), np.nan)
    full[have] = values.to_numpy(float)
    return pd.DataFrame(full, columns=list(told)), told


def _without_folder(failure: Failure, bids: Path, derivatives: Sequence[Path]) -> Failure:
    """The reason without the folders of this machine, which would name people."""
    reason = failure.reason
    for folder in (Path(bids), *map(Path, derivatives)):
        for text in {str(folder), str(folder.resolve())} - {".", "/"}:
            reason = re.sub(rf"(?<![\w./-]){re.escape(text)}/", "", reason)
            reason = re.sub(rf"(?<![\w./-]){re.escape(text)}(?![\w/])", folder.resolve().name, reason)
    return Failure(failure.participant, failure.session, failure.feature, reason)


def _write(out: Path, made: FeatureTable, skipped: tuple[str, ...], plan: Plan) -> None:
    out = Path(out)
    write_table(out / "features.tsv", made.table)
    settings = {"Denoising": plan.denoising.words(), "Skipped": list(skipped)}
    write_json(
        out / "features.json", {**made.columns, "GeneratedBy": {"Name": "cingulum", "Version": __version__}, **settings}
    )
    picture = overview(made.table, made.columns)
    if picture:
        write_bytes(out / "features.png", picture)
    if made.failures:
        write_table(out / "failures.tsv", pd.DataFrame([asdict(one) for one in made.failures]))
    else:
        (out / "failures.tsv").unlink(missing_ok=True)
