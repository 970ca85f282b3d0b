"""The feature table of any dataset: a row a visit, every column described, every
failure told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum import __version__
from cingulum.errors import InputError
from cingulum.features import Feature
from cingulum.io import Visit, visits
from cingulum.io.files import slug, write_bytes, write_json, write_table
from cingulum.parallel import Executor
from cingulum.pipeline.fitted_rows import finish
from cingulum.pipeline.measurement import (
    Failure,
    MeasurementPlan,
    describe,
    load,
    measure_visits,
)
from cingulum.report.feature_overview import overview


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """table: a row a visit, missing values NaN; columns: what each is; failures: what
    could not be measured, and why;
    skipped: features that no visit has the recordings for."""

    table: pd.DataFrame
    columns: dict[str, dict[str, Any]]
    failures: list[Failure]
    skipped: tuple[str, ...] = ()


def write_features(
    bids: Path,
    out: Path,
    plan: MeasurementPlan,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    derivatives: Sequence[Path] = (),
    skip_absent: bool = True,
    executor: Executor | None = None,
    work: Path | None = None,
    show_progress: bool = False,
) -> FeatureTable:
    """Measure every visit and write features.tsv, .json and .png, failures.tsv and
    voxelwise maps to `out`.

    skip_absent: leave out features whose recordings no visit has (else they are
        failures)
    crew: who does the work; work: where fits are kept (default: work/ in `out`)
    A visit's row depends on no other visit. Interrupted, the same call goes on where it
    was. Raises InputError where there is no dataset, no visit, or nothing to measure.
    """
    found = visits(
        bids, participants, sessions=sessions, filters=filters, derivatives=derivatives
    )
    skipped = _absent(found, plan.features) if skip_absent else ()
    if len(skipped) == len(plan.features):
        raise InputError(
            f"{bids}: its {len(found)} visits have the recordings of none of these "
            f"features: {', '.join(skipped)}. "
            f"{_needs(plan.features)}"
        )
    wanted = {
        name: feature for name, feature in plan.features.items() if name not in skipped
    }
    describe(out)
    work, folders = (
        Path(work or Path(out) / "work"),
        [Path(bids), *map(Path, derivatives)],
    )
    only = MeasurementPlan(wanted, plan.denoising, plan.constants)
    failures = measure_visits(
        found,
        only,
        out,
        work=work,
        folders=folders,
        executor=executor,
        show_progress=show_progress,
    )
    made = _assemble(found, wanted, out, work, failures, executor, show_progress)
    _write(out, made, skipped, plan)
    return FeatureTable(made.table, made.columns, made.failures, skipped)


def _absent(found: Sequence[Visit], features: Mapping[str, Feature]) -> tuple[str, ...]:
    return tuple(
        name
        for name, feature in features.items()
        if not any(_reads(visit, feature) for visit in found)
    )


def _reads(visit: Visit, feature: Feature) -> bool:
    try:
        feature.kinds(visit)
    except InputError:
        return any(kind in visit.crowded for kind in feature.needs)
    return True


def _needs(features: Mapping[str, Feature]) -> str:
    kinds = sorted({kind for feature in features.values() for kind in feature.needs})
    return (
        f"They read: {', '.join(kinds)}. Is the derivatives folder below the "
        "dataset, or named with --derivatives?"
    )


def _assemble(
    found: Sequence[Visit],
    wanted: Mapping[str, Feature],
    out: Path,
    work: Path,
    failures: list[Failure],
    executor: Executor | None,
    show: bool,
) -> FeatureTable:
    failed = {(one.participant, one.session, one.feature) for one in failures}
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{visit.participant}" for visit in found],
            "session_id": [
                f"ses-{visit.session}" if visit.session else np.nan for visit in found
            ],
        }
    )
    columns: dict[str, dict[str, Any]] = {
        "participant_id": {"Description": "Participant"},
        "session_id": {"Description": "Session of the visit"},
    }
    notes: list[list[str]] = [[] for _ in found]
    parts, failures = [table], list(failures)
    for name, feature in wanted.items():
        have = [
            i
            for i, visit in enumerate(found)
            if (visit.participant, visit.session, name) not in failed
        ]
        if feature.is_map:
            flags = [load(found[i], feature, out).flags for i in have]
        else:
            measured = [load(found[i], feature, out) for i in have]
            flags = [one.flags for one in measured]
            values, lost = finish(
                feature, [found[i] for i in have], measured, out, work, executor, show
            )
            failures += [
                Failure(found[have[k]].participant, found[have[k]].session, name, why)
                for k, why in lost
            ]
            part, told = _columns(name, feature, values, have, len(found))
            columns |= told
            parts.append(part)
        for i, raised in zip(have, flags, strict=True):
            notes[i] += [flag for flag in raised if flag not in notes[i]]
    gone: dict[tuple[str, str], list[str]] = {
        (one.participant, one.session): [] for one in failures
    }
    for one in failures:
        gone[one.participant, one.session].append(one.feature)
    last = pd.DataFrame(
        {
            "failed": [
                ", ".join(gone.get((v.participant, v.session), [])) or np.nan
                for v in found
            ],
            "flags": ["; ".join(note) or np.nan for note in notes],
        }
    )
    columns |= {
        "failed": {
            "Description": "Features that could not be measured; failures.tsv says why"
        },
        "flags": {
            "Description": "What a reader should know of this visit's recordings"
        },
    }
    return FeatureTable(pd.concat([*parts, last], axis=1), columns, failures)


def _columns(
    name: str, feature: Feature, values: pd.DataFrame, have: list[int], count: int
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """The columns of one feature for all visits, and what describes them."""
    told = {
        slug(f"{name} {column.name}"): {
            "LongName": f"{name}: {column.name}" if column.name else name,
            "Description": column.meaning,
            "Units": column.unit,
            "Method": {
                "Feature": name,
                "Class": type(feature).__name__,
                **feature.settings(),
            },
            "Software": f"cingulum {__version__}",
        }
        for column in feature.columns()
    }
    if len(told) != len(feature.columns()):
        raise InputError(
            f"{name}: two of its regions have the same name in letters and digits; "
            "rename one in the atlas."
        )
    full = np.full((count, len(told)), np.nan)
    full[have] = values.to_numpy(float)
    return pd.DataFrame(full, columns=list(told)), told


def _write(
    out: Path, made: FeatureTable, skipped: tuple[str, ...], plan: MeasurementPlan
) -> None:
    out = Path(out)
    write_table(out / "features.tsv", made.table)
    settings = {"Denoising": plan.denoising.description(), "Skipped": list(skipped)}
    write_json(
        out / "features.json",
        {
            **made.columns,
            "GeneratedBy": {"Name": "cingulum", "Version": __version__},
            **settings,
        },
    )
    picture = overview(made.table, made.columns)
    if picture:
        write_bytes(out / "features.png", picture)
    if made.failures:
        write_table(
            out / "failures.tsv",
            pd.DataFrame([asdict(one) for one in made.failures]).drop(
                columns="unexpected"
            ),
        )
    else:
        (out / "failures.tsv").unlink(missing_ok=True)
