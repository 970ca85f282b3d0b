"""The feature table: what was measured of many visits, read back from where it is kept,
with models fitted where a feature asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import Feature, FeatureRows, Measurement
from cingulum.io.visit import Visit
from cingulum.pipeline.fitted_rows import finish_rows
from cingulum.pipeline.measurement import Failure, failed_keys
from cingulum.pipeline.measurement_cache import MeasurementPlan, load_measurement
from cingulum.pipeline.paths import StudyRun

MOST_LEFT_OUT = 0.2
"""Share of a feature's columns that may be left out because some visit lacks them."""


@dataclass(frozen=True, eq=False)
class FeatureResult:
    """One feature of the visits that have it.

    visits, measurements: in one order
    rows: a row per such visit, NaN where finishing failed; None for maps
    left_out: columns that predict nothing, since they are unknown at some visit
    """

    feature: Feature
    visits: Sequence[Visit]
    measurements: Sequence[Measurement]
    rows: FeatureRows | None
    left_out: frozenset[str] = frozenset()

    def measured(self) -> Iterator[tuple[Visit, Measurement]]:
        """Each visit with its measurement."""
        return zip(self.visits, self.measurements, strict=True)

    @property
    def predicted_from(self) -> pd.DataFrame:
        """The columns that may predict: standard errors are shown only."""
        table = self.table
        if self.feature.is_map:
            return table
        names = [column.name for column in self.feature.value_columns()]
        return table[[name for name in names if name not in self.left_out]]

    def without_rare_gaps(self) -> FeatureResult:
        """Without the columns that some visits lack, where these are few: a region that
        a run does not cover costs its columns, not everybody who lacks it.

        Visits that lack most columns failed as a whole, and say nothing of a column.
        """
        if self.rows is None or self.feature.missing_is_gap:
            return self
        table = self.predicted_from
        known = np.isfinite(table.to_numpy(float))
        mostly_known = known.mean(1) >= 1 - MOST_LEFT_OUT
        gaps = ~known[mostly_known].all(0)
        if not gaps.any() or gaps.mean() > MOST_LEFT_OUT:
            return self
        return replace(self, left_out=frozenset(table.columns[gaps]))

    def visits_with_gaps(self) -> set[str]:
        """Names of the visits that lack a column that was left out."""
        if not self.left_out:
            return set()
        known = np.isfinite(self.table[sorted(self.left_out)].to_numpy(float)).all(1)
        visits = zip(self.visits, known, strict=True)
        return {visit.name for visit, is_known in visits if not is_known}

    def incomplete_visits(self) -> list[Visit]:
        """Visits at which a column that predicts is no finite number."""
        # Maps have no rows, and some features may have gaps.
        if self.rows is None or self.feature.missing_is_gap:
            return []
        complete = np.isfinite(self.predicted_from.to_numpy(float)).all(1)
        visits = zip(self.visits, complete, strict=True)
        return [visit for visit, is_complete in visits if not is_complete]

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
        plan: MeasurementPlan,
        run: StudyRun,
        failures: Sequence[Failure] = (),
    ) -> FeatureTable:
        """Read back what was measured of visits, and fit what is to be fitted.

        plan: by which they were measured
        run: whose cache the measurements are in, and who fits
        failures: of measuring; those visits are passed over
        Raises InputError for a visit that neither was measured by this plan nor failed.
        """
        failed = failed_keys(failures)
        results = {}
        all_failures = list(failures)
        for name, feature in plan.features.items():
            # What was not measured has nothing to read.
            available = [v for v in visits if (*v.key, name) not in failed]
            result, failures_of_fits = _result_of(feature, available, plan, run)
            results[name] = result
            all_failures += failures_of_fits
        return cls(visits, results, all_failures)

    def without_rare_gaps(self) -> FeatureTable:
        """Every feature without the few columns that some visits lack."""
        results = {
            name: result.without_rare_gaps() for name, result in self.results.items()
        }
        return replace(self, results=results)

    def without_numbers(self) -> list[Failure]:
        """Visits at which a feature gave no number (the logarithm of nothing, say), and
        which did not fail otherwise."""
        known = failed_keys(self.failures)
        failures = []
        for name, result in self.results.items():
            for visit in result.incomplete_visits():
                if (*visit.key, name) not in known:
                    reason = f"{name} is no finite number at this visit"
                    failures.append(Failure.of(visit, name, reason))
        return failures

    def flags(self) -> Iterator[tuple[Visit, str]]:
        """What a reader should know of the recordings of a visit, feature by
        feature."""
        for result in self.results.values():
            for visit, measurement in result.measured():
                for flag in measurement.flags:
                    yield visit, flag


def _result_of(
    feature: Feature, visits: Sequence[Visit], plan: MeasurementPlan, run: StudyRun
) -> tuple[FeatureResult, list[Failure]]:
    """One feature of the visits that were measured, and what failed of fitting it."""
    recipe, out = plan.recipe_of(feature), run.paths.out
    measurements = [load_measurement(v, feature, out, recipe) for v in visits]
    # Maps stay images: as rows, the voxels of all visits would fill the memory.
    if feature.is_map:
        return FeatureResult(feature, visits, measurements, None), []
    check_lengths(feature, measurements)
    finished = finish_rows(feature, visits, measurements, run)
    failures = []
    for i, reason in finished.failures.items():
        # Reasons are printed in reports, and folders would name people.
        private = run.paths.without_folders(reason)
        failures.append(Failure.of(visits[i], feature.name, private))
    return FeatureResult(feature, visits, measurements, finished.rows), failures


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
