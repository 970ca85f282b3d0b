"""`cingulum features`: any dataset as one table, with a row per visit, every column
described and every failure listed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum import __version__
from cingulum.errors import InputError
from cingulum.features import Column, Feature
from cingulum.features.feature import Settings
from cingulum.io.derivatives import describe_dataset
from cingulum.io.files import slug, write_bytes, write_json, write_table
from cingulum.io.visit import Filters, Visit, visits
from cingulum.parallel import Executor
from cingulum.pipeline.feature_table import FeatureResult, FeatureTable
from cingulum.pipeline.measurement import Failure, measure_visits
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.pipeline.paths import RunPaths, StudyRun
from cingulum.report.feature_overview import overview

ColumnDescriptions = dict[str, Settings]
"""By column of a table, what its JSON says of it."""

REMARKS: ColumnDescriptions = {
    "failed": {
        "Description": "Features that could not be measured; failures.tsv says why"
    },
    "flags": {"Description": "What a reader should know of this visit's recordings"},
}
"""The last two columns of the table."""


@dataclass(frozen=True, eq=False)
class ExportedFeatures:
    """The table of `cingulum features`.

    table: a row per visit, missing values NaN; columns: what each is
    failures: what could not be measured, and why
    skipped: features that no visit has the recordings for
    """

    table: pd.DataFrame
    columns: ColumnDescriptions
    failures: Sequence[Failure]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class VisitSelection:
    """Which visits of a dataset: labels with or without `sub-` and `ses-`, None for
    all; filters as `read_filters` gives them."""

    participants: Sequence[str] | None = None
    sessions: Sequence[str] | None = None
    filters: Filters | None = None

    def visits(self, paths: RunPaths) -> list[Visit]:
        """The visits. Raises InputError for a folder that is no dataset, or unknown
        labels."""
        return visits(
            paths.bids,
            self.participants,
            sessions=self.sessions,
            filters=self.filters,
            derivatives=paths.derivatives,
        )


def write_features(  # noqa: PLR0913 - the Python face of a command, as its options
    bids: Path,
    out: Path,
    plan: MeasurementPlan,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Filters | None = None,
    derivatives: Sequence[Path] = (),
    skip_absent: bool = True,
    executor: Executor | None = None,
    work: Path | None = None,
    show_progress: bool = False,
) -> ExportedFeatures:
    """Measure every visit and write features.tsv, .json and .png, failures.tsv and
    voxelwise maps to `out`.

    skip_absent: leave out features whose recordings no visit has (else they are
        failures)
    executor: who does the work; work: where fits are kept (default: work/ in `out`)
    A visit's row depends on no other visit. Interrupted, the same call resumes where it
    was. Raises InputError where there is no dataset, no visit, or nothing to measure.
    """
    paths = RunPaths.of(bids, out, derivatives, work)
    run = StudyRun(paths, executor or Executor(), show_progress)
    selected = VisitSelection(participants, sessions, filters).visits(paths)
    skipped: tuple[str, ...] = ()
    if skip_absent:
        skipped = _without_recordings(selected, plan.features)
    # Most often a wrong folder; an empty table would not say so.
    if len(skipped) == len(plan.features):
        raise InputError(_nothing_to_measure(bids, selected, plan.features))
    measured = {name: f for name, f in plan.features.items() if name not in skipped}
    describe_dataset(out)
    possible = replace(plan, features=measured)
    failures = measure_visits(selected, possible, run)
    table = FeatureTable.build(selected, possible, run, failures)
    exported = _export(table, skipped)
    _write(Path(out), exported, plan)
    return exported


def _without_recordings(
    visits: Sequence[Visit], features: Mapping[str, Feature]
) -> tuple[str, ...]:
    """Features that no visit has the recordings for."""
    absent = []
    for name, feature in features.items():
        if not any(feature.has_recordings(visit) for visit in visits):
            absent.append(name)
    return tuple(absent)


def _nothing_to_measure(
    bids: Path, visits: Sequence[Visit], features: Mapping[str, Feature]
) -> str:
    kinds = {kind.name for feature in features.values() for kind in feature.needs}
    return (
        f"{bids}: its {len(visits)} visits have the recordings of none of these "
        f"features: {', '.join(features)}. They read: {', '.join(sorted(kinds))}. Is "
        "the derivatives folder below the dataset, or named with --derivatives?"
    )


def _export(table: FeatureTable, skipped: tuple[str, ...]) -> ExportedFeatures:
    """The whole table, its description and its failures."""
    parts = [_identifiers(table.visits)]
    columns: ColumnDescriptions = {
        "participant_id": {"Description": "Participant"},
        "session_id": {"Description": "Session of the visit"},
    }
    for result in table.results.values():
        # Maps are files of their own.
        if result.feature.is_map:
            continue
        descriptions = _column_descriptions(result.feature)
        columns |= descriptions
        parts.append(_values_of_all(result, table.visits, list(descriptions)))
    parts.append(_remarks(table))
    columns |= REMARKS
    return ExportedFeatures(pd.concat(parts, axis=1), columns, table.failures, skipped)


def _identifiers(visits: Sequence[Visit]) -> pd.DataFrame:
    participants = [f"sub-{visit.participant}" for visit in visits]
    # A dataset without sessions has n/a in that column, as BIDS asks.
    sessions = [f"ses-{v.session}" if v.session else np.nan for v in visits]
    return pd.DataFrame({"participant_id": participants, "session_id": sessions})


def _column_descriptions(feature: Feature) -> ColumnDescriptions:
    """What describes the columns of one feature, by their names in the table."""
    method = _method_of(feature)
    descriptions: ColumnDescriptions = {}
    columns = feature.columns()
    for column in columns:
        name = slug(f"{feature.name} {column.name}")
        descriptions[name] = _description(feature, column, method)
    # A slug keeps letters and digits only, so that two names may become one.
    if len(descriptions) != len(columns):
        raise InputError(
            f"{feature.name}: two of its regions have the same name in letters and "
            "digits; rename one in the atlas."
        )
    return descriptions


def _method_of(feature: Feature) -> Settings:
    """How a feature is measured: its class and settings."""
    return {
        "Feature": feature.name,
        "Class": type(feature).__name__,
        **feature.settings(),
    }


def _description(feature: Feature, column: Column, method: Settings) -> Settings:
    long_name = feature.name
    if column.name:
        long_name = f"{feature.name}: {column.name}"
    return {
        "LongName": long_name,
        "Description": column.meaning,
        "Units": column.unit,
        "Method": method,
        "Software": f"cingulum {__version__}",
    }


def _values_of_all(
    result: FeatureResult, visits: Sequence[Visit], names: list[str]
) -> pd.DataFrame:
    """A feature's columns with a row for every visit, NaN where it is missing."""
    position = {visit.key: i for i, visit in enumerate(visits)}
    rows = [position[visit.key] for visit in result.visits]
    # A visit that failed keeps its row: who reads the table sees the gap.
    values = np.full((len(visits), len(names)), np.nan)
    values[rows] = result.table.to_numpy(float)
    return pd.DataFrame(values, columns=names)


def _remarks(table: FeatureTable) -> pd.DataFrame:
    """What failed of every visit, and what a reader should know of it."""
    failed = _texts_by_visit((f.visit_key, f.feature) for f in table.failures)
    flags = _texts_by_visit((visit.key, flag) for visit, flag in table.flags())
    return pd.DataFrame(
        {
            "failed": _joined(failed, ", ", table.visits),
            "flags": _joined(flags, "; ", table.visits),
        }
    )


def _joined(
    texts: Mapping[tuple[str, str], Sequence[str]],
    separator: str,
    visits: Sequence[Visit],
) -> list[str | float]:
    """A cell per visit. NaN is written as n/a; an empty cell is not valid in BIDS."""
    return [separator.join(texts.get(visit.key, [])) or np.nan for visit in visits]


def _texts_by_visit(
    texts: Iterable[tuple[tuple[str, str], str]],
) -> dict[tuple[str, str], list[str]]:
    """Texts by participant and session, each text once, in the order of occurrence."""
    by_visit: dict[tuple[str, str], list[str]] = {}
    for key, text in texts:
        listed = by_visit.setdefault(key, [])
        # Several features read one recording, and flag it alike.
        if text not in listed:
            listed.append(text)
    return by_visit


def _write(out: Path, exported: ExportedFeatures, plan: MeasurementPlan) -> None:
    write_table(out / "features.tsv", exported.table)
    description = {
        **exported.columns,
        "GeneratedBy": {"Name": "cingulum", "Version": __version__},
        "Denoising": plan.denoising.description(),
        "Skipped": list(exported.skipped),
    }
    write_json(out / "features.json", description)
    figure = overview(exported.table, _units(exported.columns))
    # Nothing is drawn of a table without numbers.
    if figure:
        write_bytes(out / "features.png", figure)
    _write_failures(out / "failures.tsv", exported.failures)


def _units(columns: ColumnDescriptions) -> dict[str, str]:
    return {name: entry.get("Units", "") for name, entry in columns.items()}


def _write_failures(path: Path, failures: Sequence[Failure]) -> None:
    """Write what failed; without failures, remove the table of an earlier run."""
    if not failures:
        path.unlink(missing_ok=True)
        return
    write_table(path, _failures_table(failures))


def _failures_table(failures: Sequence[Failure]) -> pd.DataFrame:
    table = pd.DataFrame([asdict(failure) for failure in failures])
    # It only decides whether a task is tried again.
    return table.drop(columns="unexpected")
