"""From the feature table of a cohort to arrays by patient and visit, and who is left of
the cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import (
    Column,
    ColumnKind,
    Control,
    Feature,
    FeatureRows,
    Measurement,
    Role,
)
from cingulum.features.cohort_features import CohortFeatures, FitEvidence, Grid
from cingulum.features.mechanism import FittedFeature
from cingulum.io.cohort import Cohort
from cingulum.io.files import slug
from cingulum.io.visit import Visit
from cingulum.pipeline.feature_table import FeatureResult, FeatureTable
from cingulum.pipeline.measurement import Failure
from cingulum.signals.atlas import Atlas, pain_atlas

UNEVEN = 0.1
"""Share of the voxels with a value at either visit that may lack one at the other."""


def cohort_features(
    cohort: Cohort, table: FeatureTable, missing: str = "complete"
) -> tuple[CohortFeatures, Cohort]:
    """The features of a cohort, and who is left of it.

    missing: `complete` leaves out participants that lack a feature; else their values
        are NaN at both visits, and only those without anything to predict from are
        left out
    Raises InputError for maps on different grids, or nobody left.
    """
    failures = [*table.failures, *table.without_numbers()]
    predictors = [
        name
        for name, result in table.results.items()
        if result.feature.role is Role.PREDICTOR
    ]
    if missing == "complete":
        cohort = _complete(cohort, failures)
    else:
        cohort = _with_some_predictor(cohort, failures, predictors)
    assembly = _Assembly(_visits_in_order(cohort))
    lacking = {(failure.participant, failure.feature) for failure in failures}
    for name, result in table.results.items():
        own = _of_cohort(result, cohort, {p for p, f in lacking if f == name})
        if own.visits:
            assembly.add(own)
    features = {name: result.feature for name, result in table.results.items()}
    return assembly.features(cohort, features, failures, predictors), cohort


def _complete(cohort: Cohort, failures: Sequence[Failure]) -> Cohort:
    """Those who have every feature."""
    reasons: dict[str, str] = {}
    for failure in failures:
        if failure.participant in cohort.participants:
            reasons.setdefault(failure.participant, failure.reason)
    return cohort.without(reasons)


def _with_some_predictor(
    cohort: Cohort, failures: Sequence[Failure], predictors: Sequence[str]
) -> Cohort:
    """Those who have some feature to predict from."""
    lacking = _lacking(cohort.participants, failures, predictors)
    reasons = {
        participant: "; ".join(dict.fromkeys(by_feature.values()))
        for participant, by_feature in lacking.items()
        if len(by_feature) == len(predictors)
    }
    return cohort.without(reasons)


def _lacking(
    participants: Sequence[str], failures: Sequence[Failure], predictors: Sequence[str]
) -> dict[str, dict[str, str]]:
    """By participant, the predictors that are missing, with the first reason."""
    lacking: dict[str, dict[str, str]] = {}
    for failure in failures:
        if failure.participant in participants and failure.feature in predictors:
            by_feature = lacking.setdefault(failure.participant, {})
            by_feature.setdefault(failure.feature, failure.reason)
    return lacking


def _visits_in_order(cohort: Cohort) -> list[Visit]:
    """Visits by participant, first and second."""
    order = cohort.ratings.sort_values(["participant", "state"])
    by_key = {visit.key: visit for visit in cohort.visits}
    keys = zip(order["participant"], order["session"], strict=True)
    return [by_key[key] for key in keys]


def _of_cohort(
    result: FeatureResult, cohort: Cohort, lacking: set[str]
) -> FeatureResult:
    """The part of a result that belongs to participants who are left and have the
    feature at every visit."""
    order = {visit.key: i for i, visit in enumerate(_visits_in_order(cohort))}
    kept = [
        i
        for i, visit in enumerate(result.visits)
        if visit.key in order and visit.participant not in lacking
    ]
    kept.sort(key=lambda i: order[result.visits[i].key])
    rows = result.rows
    if rows is not None:
        arrays = {name: values[kept] for name, values in rows.arrays.items()}
        rows = FeatureRows(rows.table.iloc[kept].reset_index(drop=True), arrays)
    return FeatureResult(
        result.feature,
        [result.visits[i] for i in kept],
        [result.measurements[i] for i in kept],
        rows,
    )


@dataclass(eq=False)
class _Assembly:
    """Collects features into their places among all visits of a cohort."""

    visits: list[Visit]
    values: dict[str, np.ndarray] = field(default_factory=dict)
    columns: dict[str, list[str]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    grids: dict[str, Grid] = field(default_factory=dict)
    evidence: dict[str, FitEvidence] = field(default_factory=dict)
    flagged: dict[str, set[str]] = field(default_factory=dict)
    equations: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)
    shown: dict[str, pd.DataFrame] = field(default_factory=dict)

    def add(self, result: FeatureResult) -> None:
        """Put a feature's values into their places."""
        feature = result.feature
        name = feature.name
        self._add_remarks(result)
        if feature.is_map:
            self.grids[name] = common_grid(result)
            self._flag_uneven(result)
        table = self._of_all_visits(result.visits, result.table)
        for control in feature.controls:
            if control.name != name:
                self._add_control(control, table)
        if feature.missing_is_gap:
            self.shown[name] = table
            return
        predicting = self._of_all_visits(result.visits, result.predicted_from)
        self.values[name] = self._by_patient(predicting.to_numpy(float))
        self.columns[name] = [str(column) for column in predicting.columns]
        if isinstance(feature, FittedFeature):
            self.shown[name] = table
            self._add_evidence(feature, result)

    def _of_all_visits(
        self, visits: Sequence[Visit], table: pd.DataFrame
    ) -> pd.DataFrame:
        """A table with a row for every visit of the cohort, NaN where it is missing."""
        position = {visit.key: i for i, visit in enumerate(self.visits)}
        full = pd.DataFrame(
            np.full((len(self.visits), table.shape[1]), np.nan), columns=table.columns
        )
        full.iloc[[position[visit.key] for visit in visits]] = table.to_numpy(float)
        return full

    def _by_patient(self, values: np.ndarray) -> np.ndarray:
        """(patient, visit, column) from (visit, column)."""
        return values.reshape(len(self.visits) // 2, 2, -1)

    def _add_remarks(self, result: FeatureResult) -> None:
        for visit, measurement in zip(result.visits, result.measurements, strict=True):
            self.sources.add(measurement.origin.recordings)
            for flag in measurement.flags:
                self.flagged.setdefault(flag, set()).add(visit.name)
            equation = measurement.details.get("Equation")
            if equation and equation not in self.equations:
                self.equations.append(str(equation))

    def _flag_uneven(self, result: FeatureResult) -> None:
        uneven = unevenly_covered(result.visits, result.measurements)
        if uneven:
            flag = (
                f"{result.feature.name}: the map covers other parts of the brain than "
                "at the other visit"
            )
            self.flagged[flag] = uneven

    def _add_control(self, control: Control, table: pd.DataFrame) -> None:
        """A column that predictors are held against, where it is known and varies."""
        values = table[control.column].to_numpy(float)
        finite = np.isfinite(values)
        self.units[control.name] = control.unit
        usable = finite.all() if control.must_be_complete else finite.any()
        if usable and np.ptp(values[finite]) > 0:
            self.values[control.name] = values.reshape(-1, 2, 1)
            self.columns[control.name] = [control.name]
        elif control.missing_text and finite.any():
            self.flagged[control.missing_text] = {
                visit.name
                for visit, known in zip(self.visits, finite, strict=True)
                if not known
            }

    def _add_evidence(self, feature: FittedFeature, result: FeatureResult) -> None:
        arrays = result.rows.arrays if result.rows is not None else {}
        if "fc" in arrays:
            connectome = feature.fitting.brain.connectome
            self.evidence[feature.name] = FitEvidence(**arrays, connectome=connectome)

    def features(
        self,
        cohort: Cohort,
        features: Mapping[str, Feature],
        failures: Sequence[Failure],
        predictors: Sequence[str],
    ) -> CohortFeatures:
        """Everything that was collected."""
        units = {name: feature.unit for name, feature in features.items()}
        return CohortFeatures(
            self.values,
            self.columns,
            units | self.units,
            self.grids,
            cohort.participants,
            self.evidence,
            self.flagged,
            self.equations,
            self.sources,
            self.shown,
            _column_units(features),
            _fitted_columns(features),
            _fitted_atlas(features),
            _lacking(cohort.participants, failures, predictors),
        )


def _column_units(features: Mapping[str, Feature]) -> dict[str, str]:
    units = {}
    for name, feature in features.items():
        for column in feature.columns():
            units[slug(f"{name} {column.name}")] = column.unit
    return units


def _fitted_columns(features: Mapping[str, Feature]) -> dict[str, list[Column]]:
    """Estimated parameters of the features that are fitted."""
    fitted = {}
    for name, feature in features.items():
        if isinstance(feature, FittedFeature):
            columns = feature.columns()
            fitted[name] = [c for c in columns if c.kind is ColumnKind.VALUE]
    return fitted


def _fitted_atlas(features: Mapping[str, Feature]) -> Atlas:
    """Regions of the fitted brains; the default ones where none is fitted."""
    for feature in features.values():
        if isinstance(feature, FittedFeature):
            return feature.atlas
    return pain_atlas()


def unevenly_covered(visits: Sequence[Visit], maps: Sequence[Measurement]) -> set[str]:
    """Names of visits of people whose two maps do not cover the same voxels: what is
    missing would count as a change."""
    covered: dict[str, list[tuple[str, np.ndarray]]] = {}
    for visit, measurement in zip(visits, maps, strict=True):
        coverage = (visit.name, measurement.values != 0)
        covered.setdefault(visit.participant, []).append(coverage)
    uneven = set()
    for pair in covered.values():
        if len(pair) != 2:
            continue
        (first, in_first), (second, in_second) = pair
        differing = (in_first ^ in_second).sum()
        if differing > UNEVEN * (in_first | in_second).sum():
            uneven |= {first, second}
    return uneven


def common_grid(result: FeatureResult) -> Grid:
    """The one grid of all maps. Raises InputError where they differ."""
    first = result.measurements[0]
    grid = _grid_of(first)
    for visit, measurement in zip(result.visits, result.measurements, strict=True):
        shape, affine = _grid_of(measurement)
        if shape != grid.shape or not np.allclose(affine, grid.affine):
            name = result.feature.file.format(visit=visit.name).rpartition("/")[2]
            raise InputError(
                f"{name}: its grid {shape} differs from {grid.shape}, that of "
                f"{result.visits[0].name}. All visits must be on one grid (one "
                "--output-spaces resolution of fMRIPrep and ASLPrep)."
            )
    return grid


def _grid_of(measurement: Measurement) -> Grid:
    return Grid(measurement.values.shape, measurement.place)
