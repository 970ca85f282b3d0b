"""The feature table: what was measured of many visits, read back from where it is kept,
with models fitted where a feature asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import ColumnKind, Feature, FeatureRows, Measurement
from cingulum.io.visit import Visit
from cingulum.pipeline.fitted_rows import finish_rows
from cingulum.pipeline.measurement import Failure
from cingulum.pipeline.measurement_cache import load_measurement
from cingulum.pipeline.paths import Run


@dataclass(frozen=True, eq=False)
class FeatureResult:
    """One feature of the visits that have it.

    visits, measurements: in one order
    rows: a row per such visit, NaN where finishing failed; None for maps
    """

    feature: Feature
    visits: Sequence[Visit]
    measurements: Sequence[Measurement]
    rows: FeatureRows | None

    @property
    def predicted_from(self) -> pd.DataFrame:
        """The columns that may predict: standard errors are shown only."""
        table = self.table
        if self.feature.is_map:
            return table
        names = [
            column.name
            for column in self.feature.columns()
            if column.kind is ColumnKind.VALUE
        ]
        return table[names]

    @property
    def table(self) -> pd.DataFrame:
        """A row per visit; of a map, a column per voxel."""
        if self.rows is not None:
            return self.rows.table
        return self.feature.finish(self.measurements).table


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of visits.

    visits: all of them; results: by feature
    failures: what could not be measured or fitted, and why
    """

    visits: Sequence[Visit]
    results: Mapping[str, FeatureResult]
    failures: Sequence[Failure]

    @classmethod
    def build(
        cls,
        visits: Sequence[Visit],
        features: Mapping[str, Feature],
        run: Run,
        failures: Sequence[Failure] = (),
    ) -> FeatureTable:
        """Read back what was measured of visits, and fit what is to be fitted.

        run: whose cache the measurements are in, and who fits
        failures: of measuring; those visits are passed over
        Raises InputError for a visit that neither was measured nor failed.
        """
        failed = {failure.key for failure in failures}
        results = {}
        new_failures: list[Failure] = []
        for name, feature in features.items():
            available = [v for v in visits if (*v.key, name) not in failed]
            measurements = [
                load_measurement(visit, feature, run.paths.out) for visit in available
            ]
            rows = None
            if not feature.is_map:
                check_lengths(feature, measurements)
                finished = finish_rows(feature, available, measurements, run)
                rows = finished.rows
                for i, reason in finished.failures.items():
                    private = run.paths.without_folders(reason)
                    new_failures.append(Failure.of(available[i], name, private))
            results[name] = FeatureResult(feature, available, measurements, rows)
        return cls(visits, results, [*failures, *new_failures])

    def without_numbers(self) -> list[Failure]:
        """Visits at which a feature came to no number (the logarithm of nothing, say),
        and which did not fail otherwise."""
        known = {failure.key for failure in self.failures}
        failures = []
        for name, result in self.results.items():
            if result.rows is None or result.feature.missing_is_gap:
                continue
            values = result.predicted_from.to_numpy(float)
            complete = np.isfinite(values).all(1)
            for visit, is_complete in zip(result.visits, complete, strict=True):
                if is_complete:
                    continue
                if (*visit.key, name) not in known:
                    reason = f"{name} is no finite number at this visit"
                    failures.append(Failure.of(visit, name, reason))
        return failures

    def flags(self) -> Iterator[tuple[Visit, str]]:
        """What a reader should know of the recordings of a visit, feature by
        feature."""
        for result in self.results.values():
            for visit, measurement in zip(
                result.visits, result.measurements, strict=True
            ):
                for flag in measurement.flags:
                    yield visit, flag


def check_lengths(feature: Feature, measurements: Sequence[Measurement]) -> None:
    """Raises InputError where visits have measurements of different length, as from two
    versions of an atlas. Fitted features take signals of any length."""
    if feature.batch_size:
        return
    if len({measurement.values.shape for measurement in measurements}) > 1:
        raise InputError(
            f"{feature.name}: visits have measurements of different length; measure "
            "them again."
        )
