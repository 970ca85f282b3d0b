"""From the feature table of a cohort to arrays by patient and visit, and who is left of
the cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import (
    Column,
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

# Masks of two visits always differ a little at the edge of the brain.
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
    table = table.without_rare_gaps()
    failures = [*table.failures, *table.without_numbers()]
    features = {name: result.feature for name, result in table.results.items()}
    predictors = _predictors(features)
    if missing == "complete":
        cohort = _complete(cohort, failures)
    else:
        cohort = _with_some_predictor(cohort, failures, predictors)
    assembly = _Assembly(_visits_in_order(cohort))
    for name, result in table.results.items():
        own = _of_cohort(result, cohort, _participants_lacking(name, failures))
        if own.visits:
            assembly.add(own)
    return assembly.features(cohort, features, failures, predictors), cohort


def _predictors(features: Mapping[str, Feature]) -> list[str]:
    """Names of the features that are predicted from."""
    return [name for name, f in features.items() if f.role is Role.PREDICTOR]


def _participants_lacking(feature: str, failures: Sequence[Failure]) -> set[str]:
    """Participants who lack a feature at some visit: a pair needs both."""
    return {f.participant for f in failures if f.feature == feature}


def _complete(cohort: Cohort, failures: Sequence[Failure]) -> Cohort:
    """Those who have every feature."""
    reasons: dict[str, str] = {}
    for failure in failures:
        if failure.participant in cohort.participants:
            # The first reason: the others often follow from it.
            reasons.setdefault(failure.participant, failure.reason)
    return cohort.without(reasons)


def _with_some_predictor(
    cohort: Cohort, failures: Sequence[Failure], predictors: Sequence[str]
) -> Cohort:
    """Those who have some feature to predict from."""
    lacking = _lacking(cohort.participants, failures, predictors)
    reasons = {}
    for participant, by_feature in lacking.items():
        if len(by_feature) == len(predictors):
            # Several features may fail for one reason, which is then listed once.
            reasons[participant] = "; ".join(dict.fromkeys(by_feature.values()))
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
    # `state` is the order of the two visits: features are compared as second − first.
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
    kept = []
    for i, visit in enumerate(result.visits):
        if visit.key in order and visit.participant not in lacking:
            kept.append(i)
    kept.sort(key=lambda i: order[result.visits[i].key])
    return _selected(result, kept)


def _selected(result: FeatureResult, kept: list[int]) -> FeatureResult:
    """Some visits of a result, in the order of `kept`."""
    rows = result.rows
    if rows is not None:
        rows = _selected_rows(rows, kept)
    return replace(
        result,
        visits=[result.visits[i] for i in kept],
        measurements=[result.measurements[i] for i in kept],
        rows=rows,
    )


def _selected_rows(rows: FeatureRows, kept: list[int]) -> FeatureRows:
    arrays = {name: values[kept] for name, values in rows.arrays.items()}
    return FeatureRows(rows.table.iloc[kept].reset_index(drop=True), arrays)


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
        self._flag_left_out(result)
        # Maps must be on one grid before voxels are compared.
        if feature.is_map:
            self.grids[name] = common_grid(result)
            self._flag_uneven(result)
        table = self._of_all_visits(result.visits, result.table)
        for control in feature.controls:
            # A feature that is its own control is added below, as every feature.
            if control.name != name:
                self._add_control(control, table)
        if not feature.missing_is_gap:
            self._add_values(result)
        if isinstance(feature, FittedFeature):
            self._add_evidence(feature, result)
        # Maps and single numbers are shown elsewhere.
        if feature.missing_is_gap or isinstance(feature, FittedFeature):
            self.shown[name] = table

    def _add_values(self, result: FeatureResult) -> None:
        """The columns that predict, by patient and visit."""
        name = result.feature.name
        table = self._of_all_visits(result.visits, result.predicted_from)
        self.values[name] = self._by_patient(table.to_numpy(float))
        self.columns[name] = [str(column) for column in table.columns]

    def _of_all_visits(
        self, visits: Sequence[Visit], table: pd.DataFrame
    ) -> pd.DataFrame:
        """A table with a row for every visit of the cohort, NaN where it is missing."""
        position = {visit.key: i for i, visit in enumerate(self.visits)}
        rows = [position[visit.key] for visit in visits]
        values = np.full((len(self.visits), table.shape[1]), np.nan)
        values[rows] = table.to_numpy(float)
        return pd.DataFrame(values, columns=table.columns)

    def _by_patient(self, values: np.ndarray) -> np.ndarray:
        """(patient, visit, column) from (visit, column)."""
        return values.reshape(len(self.visits) // 2, 2, -1)

    def _add_remarks(self, result: FeatureResult) -> None:
        for visit, measurement in result.measured():
            self.sources.add(measurement.origin.recordings)
            self._add_equation(measurement)
            for flag in measurement.flags:
                self.flagged.setdefault(flag, set()).add(visit.name)

    def _add_equation(self, measurement: Measurement) -> None:
        """The equation of quantified blood flow, for the methods section."""
        equation = measurement.details.get("Equation")
        # Most visits share one, and a list keeps the order in which they occur.
        if equation and equation not in self.equations:
            self.equations.append(str(equation))

    def _flag_left_out(self, result: FeatureResult) -> None:
        """Flag visits that lack columns which were left out for everybody."""
        count = len(result.left_out)
        if count:
            first = min(result.left_out)
            flag = (
                f"{result.feature.name}: lacks some of {count} columns, such as "
                f"{first}, which are left out for everybody"
            )
            self.flagged[flag] = result.visits_with_gaps()

    def _flag_uneven(self, result: FeatureResult) -> None:
        """Flag visits whose map covers other voxels than the person's other map."""
        uneven = unevenly_covered(result.visits, result.measurements)
        if uneven:
            flag = (
                f"{result.feature.name}: the map covers other parts of the brain than "
                "at the other visit"
            )
            self.flagged[flag] = uneven

    def _add_control(self, control: Control, table: pd.DataFrame) -> None:
        """Add a control, where it is known and varies between visits."""
        values = table[control.column].to_numpy(float)
        known = np.isfinite(values)
        self.units[control.name] = control.unit
        usable = known.all() if control.must_be_complete else known.any()
        # A constant explains nothing, and would be divided by its spread of 0.
        if usable and np.ptp(values[known]) > 0:
            self.values[control.name] = values.reshape(-1, 2, 1)
            self.columns[control.name] = [control.name]
        elif control.missing_text and known.any():
            self.flagged[control.missing_text] = self._visits_without(known)

    def _visits_without(self, known: np.ndarray) -> set[str]:
        """Names of the visits where a value is not known."""
        visits = zip(self.visits, known, strict=True)
        return {visit.name for visit, is_known in visits if not is_known}

    def _add_evidence(self, feature: FittedFeature, result: FeatureResult) -> None:
        # A fit by likelihood keeps no modelled connectivity to show.
        if result.rows is None or "fc" not in result.rows.arrays:
            return
        connectome = feature.fitting.brain.connectome
        evidence = FitEvidence(**result.rows.arrays, connectome=connectome)
        self.evidence[feature.name] = evidence

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
            fitted[name] = feature.value_columns()
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
    coverages: dict[str, dict[str, np.ndarray]] = {}
    for visit, measurement in zip(visits, maps, strict=True):
        # Maps are zero outside the mask.
        covered = measurement.values != 0
        coverages.setdefault(visit.participant, {})[visit.name] = covered
    uneven: set[str] = set()
    for by_visit in coverages.values():
        if len(by_visit) == 2 and _differ(*by_visit.values()):
            uneven |= set(by_visit)
    return uneven


def _differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two coverages differ by more than a share of all voxels."""
    return (first ^ second).sum() > UNEVEN * (first | second).sum()


def common_grid(result: FeatureResult) -> Grid:
    """The one grid of all maps. Raises InputError where they differ."""
    first = result.measurements[0]
    grid = _grid_of(first)
    for visit, measurement in result.measured():
        shape, affine = _grid_of(measurement)
        # Affines pass through files, which keep them in float32.
        if shape != grid.shape or not np.allclose(affine, grid.affine):
            raise InputError(_other_grid(result, visit, shape, grid))
    return grid


def _other_grid(
    result: FeatureResult, visit: Visit, shape: tuple[int, ...], grid: Grid
) -> str:
    name = result.feature.file.format(visit=visit.name).rpartition("/")[2]
    return (
        f"{name}: its grid {shape} differs from {grid.shape}, that of "
        f"{result.visits[0].name}. All visits must be on one grid (one "
        "--output-spaces resolution of fMRIPrep and ASLPrep)."
    )


def _grid_of(measurement: Measurement) -> Grid:
    return Grid(measurement.values.shape, measurement.place)
