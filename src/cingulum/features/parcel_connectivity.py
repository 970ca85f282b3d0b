"""Connectivity between the regions of an atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cingulum.errors import InputError
from cingulum.features.feature import (
    Column,
    Feature,
    FeatureOption,
    FeatureOptions,
    FeatureRows,
    Measurement,
    Role,
    Settings,
    StudyRecipe,
)
from cingulum.features.recordings_of_regions import regional_recordings
from cingulum.features.registry import register_feature
from cingulum.features.run_combination import (
    DESCRIPTIONS,
    RunCombination,
    combined_correlations,
    combined_measurement,
    volumes_of,
    weighted_mean,
)
from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from cingulum.io.visit import Visit
    from cingulum.signals.atlas import Atlas
    from cingulum.signals.regional_signals import RegionalRun
    from cingulum.signals.visit_data import VisitData

STATISTICS = {
    "correlation": "pearsoncorrelation",
    "partial": "partialcorrelation",
    "covariance": "covariance",
}
"""Kinds of connectivity, and the `stat-` of their files."""


@register_feature
class ParcelConnectivity(Feature):
    """Functional connectivity of every pair of regions; correlations as Fisher z.

    kind: `correlation`; `partial`, of each pair given all other regions, from the
        inverse of the Ledoit-Wolf covariance (2004,
        doi:10.1016/S0047-259X(03)00096-4), as nilearn does; `covariance`, with the
        variances on its diagonal, which is what `Tangent` takes
    A region that the mask does not reach is NaN in the same columns of every visit,
    never dropped.
    """

    name = "fc"
    label = "Connectivity between regions"
    summary = "connectivity between regions"
    unit = "Fisher z"
    meaning = "functional connectivity between regions"
    needs = (BOLD, MASK, CONFOUNDS)
    file = "func/{visit}_relmat.tsv"
    role = Role.PREDICTOR
    colour = "#6a5a9c"
    references = ("abraham2014",)
    options = (
        FeatureOption(
            "fc_kind",
            "kind of connectivity between regions",
            default="correlation",
            choices=tuple(STATISTICS),
        ),
    )

    def __init__(self, atlas: Atlas | None = None, kind: str = "correlation") -> None:
        from cingulum.signals.atlas import pain_atlas

        if kind not in STATISTICS:
            raise InputError(
                f"Unknown kind of connectivity {kind!r}. Known are "
                f"{', '.join(STATISTICS)}."
            )
        self.atlas = atlas or pain_atlas()
        self.kind = kind
        stat = STATISTICS[kind]
        self.file = f"func/{{visit}}_atlas-{self.atlas.name}_stat-{stat}_relmat.tsv"
        self.unit = "percent²" if kind == "covariance" else "Fisher z"

    @classmethod
    def from_options(cls, options: FeatureOptions) -> ParcelConnectivity:
        return cls(options.atlas, options.values.get("fc_kind", "correlation"))

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        return (
            "Connectivity: Fisher z of the correlations between all pairs of the "
            f"{recipe.regions} regions of the atlas {recipe.atlas}; BOLD cleaned with "
            f"{recipe.denoising}."
        )

    def settings(self) -> Settings:
        from cingulum.signals.atlas import atlas_metadata

        return {**atlas_metadata(self.atlas), "Kind": self.kind}

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return regional_recordings(visit, self.atlas)

    def measure(self, data: VisitData) -> Measurement:
        from cingulum.signals.regional_signals import regional_run

        run = regional_run(data, self.atlas)
        # A single region has no pair.
        if (run.coverage > 0).sum() < 2:
            raise InputError(
                f"{run.source}: fewer than two regions of {self.atlas.name} lie in the "
                "mask."
            )
        self._check_unit(run)
        matrix = with_missing(measure_of(self.kind), run.series.data)
        outside = [str(region) for region in run.coverage.index[run.coverage == 0]]
        flags = self._flags(outside)
        details = {**run.settings, "Coverage": run.coverage.round(4).to_dict()}
        return Measurement(matrix.numpy(), details=details, flags=flags)

    def combine_runs(
        self, runs: Sequence[Measurement], method: RunCombination
    ) -> Measurement:
        if self.kind == "partial":
            # Partial correlations of joined runs are no mean of theirs.
            method = RunCombination.FISHER
        volumes = [volumes_of(run) for run in runs]
        values = [run.values for run in runs]
        if self.kind == "covariance":
            combined = weighted_mean(values, volumes)
            description = "covariance within runs, weighted by kept volumes"
        else:
            combined = combined_correlations(values, volumes, method)
            description = DESCRIPTIONS[method]
        return combined_measurement(runs, combined, description)

    def _check_unit(self, run: RegionalRun) -> None:
        if self.kind == "covariance" and run.series.unit != "percent":
            raise InputError(
                f"{run.source}: holds signals that were cleaned already and have no "
                "percent, so that they have no covariance to be compared. Ask for "
                "--fc-kind correlation or partial."
            )

    def _flags(self, outside: Sequence[str]) -> list[str]:
        """outside: regions that the mask does not reach"""
        if not outside:
            return []
        # The first three are enough to see where the mask ends.
        return [
            f"{len(outside)} region(s) of {self.atlas.name} outside the mask: "
            f"{', '.join(outside[:3])}"
        ]

    def columns(self) -> list[Column]:
        regions = self.atlas.regions
        meaning = f"{self.kind} of regional BOLD"
        rows, columns = self._pairs()
        return [
            Column(f"{regions[i]} – {regions[j]}", self.unit, meaning)
            for i, j in zip(rows, columns, strict=True)
        ]

    def finish(
        self, measurements: Sequence[Measurement], show_progress: bool = False
    ) -> FeatureRows:
        import numpy as np
        import pandas as pd

        pairs = self._pairs()
        rows = np.stack([measurement.values[pairs] for measurement in measurements])
        if self.kind != "covariance":
            # A correlation of exactly 1 has no Fisher z.
            rows = np.arctanh(np.clip(rows, -1 + 1e-12, 1 - 1e-12))
        return FeatureRows(pd.DataFrame(rows, columns=self.column_names))

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the lower triangle; variances only with covariances."""
        import numpy as np

        # The matrix is symmetric; the diagonal of a correlation is 1.
        diagonal = 0 if self.kind == "covariance" else -1
        return np.tril_indices(len(self.atlas.regions), diagonal)


def with_missing(measure: Callable[[Tensor], Tensor], signals: Tensor) -> Tensor:
    """A matrix measure (region, region) of the regions that have a signal; NaN in rows
    and columns of the others."""
    import torch

    # Left in, a region without a signal would make every partial correlation NaN.
    has_signal = torch.isfinite(signals).all(-1) & (signals.std(-1) > 0)
    matrix = torch.full((len(signals), len(signals)), float("nan"), dtype=signals.dtype)
    # All NaN where no pair is left.
    if has_signal.sum() > 1:
        pairs = torch.outer(has_signal, has_signal)
        matrix[pairs] = measure(signals[has_signal]).flatten()
    return matrix


def shrunk_partial(signals: Tensor) -> Tensor:
    """Partial correlation from the Ledoit-Wolf covariance of signals (region, time)."""
    import torch
    from sklearn.covariance import ledoit_wolf

    from cingulum.measures import partial

    # Shrunk, because short runs of many regions have no invertible covariance.
    covariance, _ = ledoit_wolf(signals.T.numpy())
    return partial(torch.as_tensor(covariance))


def measure_of(kind: str) -> Callable[[Tensor], Tensor]:
    """The matrix measure of a kind of connectivity."""
    from cingulum.measures import covariance, fc

    measures = {"correlation": fc, "partial": shrunk_partial, "covariance": covariance}
    return measures[kind]
