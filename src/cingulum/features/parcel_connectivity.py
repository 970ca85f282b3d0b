"""Connectivity between the regions of an atlas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cingulum.errors import InputError
from cingulum.features.feature import Column, Feature, Measurement
from cingulum.measures import covariance, fc, partial
from cingulum.signals.atlas import Atlas, atlas_metadata, pain_atlas
from cingulum.signals.parcellation import regional_series
from cingulum.signals.visit_data import VisitData

KINDS = ("correlation", "partial", "covariance")


def with_missing(measure: Any, signals: Tensor) -> Tensor:
    """A matrix measure (region, region) of the regions that have a signal; NaN in rows
    and columns of the others."""
    seen = torch.isfinite(signals).all(-1) & (signals.std(-1) > 0)
    matrix = torch.full((len(signals), len(signals)), float("nan"), dtype=signals.dtype)
    if seen.sum() > 1:
        matrix[torch.outer(seen, seen)] = measure(signals[seen]).flatten()
    return matrix


class ParcelConnectivity(Feature):
    """Functional connectivity of every pair of regions; correlations as Fisher z.

    kind: correlation; partial (of each pair given all other regions; from the inverse
        of the covariance, shrunk as Ledoit and Wolf 2004,
        doi:10.1016/S0047-259X(03)00096-4, shrink it, as nilearn does); covariance (with
        the
        variances on its diagonal: what `Tangent` takes)
    A region that the mask does not reach is NaN in every visit's same columns, never
    dropped.
    """

    name: ClassVar = "fc"
    unit: ClassVar = "Fisher z"
    meaning: ClassVar = "functional connectivity between regions"
    needs: ClassVar = ("bold", "mask", "confounds")

    def __init__(self, atlas: Atlas | None = None, kind: str = "correlation") -> None:
        if kind not in KINDS:
            raise InputError(
                f"Unknown kind of connectivity {kind!r}. Known are {', '.join(KINDS)}."
            )
        self.atlas, self.kind = atlas or pain_atlas(), kind
        stat = {
            "correlation": "pearsoncorrelation",
            "partial": "partialcorrelation",
            "covariance": "covariance",
        }[kind]
        self.file = f"func/{{visit}}_atlas-{self.atlas.name}_stat-{stat}_relmat.tsv"  # type: ignore[misc]
        self.unit = "percent²" if kind == "covariance" else "Fisher z"  # type: ignore[misc]

    def settings(self) -> Mapping[str, Any]:
        return {**atlas_metadata(self.atlas), "Kind": self.kind}

    def measure(self, opened: VisitData) -> Measurement:
        series, coverage = regional_series(opened.bold, self.atlas)
        if (coverage > 0).sum() < 2:
            raise InputError(
                f"{opened.visit['bold']}: fewer than two regions of {self.atlas.name} "
                "lie in the mask."
            )
        matrix = with_missing(MEASURES[self.kind], series.data)
        lost = [region for region, share in coverage.items() if share == 0]
        flags = [
            f"{len(lost)} region(s) of {self.atlas.name} outside the mask: "
            f"{', '.join(lost[:3])}"
        ] * bool(lost)
        details = {**opened.bold.settings, "Coverage": coverage.round(4).to_dict()}
        return Measurement(matrix.numpy(), details=details, flags=flags)

    def columns(self) -> list[Column]:
        regions = self.atlas.regions
        meaning = f"{self.kind} of regional BOLD"
        return [
            Column(f"{regions[i]} – {regions[j]}", self.unit, meaning)
            for i, j in zip(*self._pairs(), strict=True)
        ]

    def finish(
        self, measured: Sequence[Measurement], show_progress: bool = False
    ) -> pd.DataFrame:
        i, j = self._pairs()
        rows = np.stack([one.values[i, j] for one in measured])
        if self.kind != "covariance":
            rows = np.arctanh(np.clip(rows, -1 + 1e-12, 1 - 1e-12))
        return pd.DataFrame(rows, columns=[column.name for column in self.columns()])

    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        return np.tril_indices(
            len(self.atlas.regions), 0 if self.kind == "covariance" else -1
        )


def shrunk_partial(signals: Tensor) -> Tensor:
    """Partial correlation from the Ledoit-Wolf covariance of signals (region, time)."""
    from sklearn.covariance import ledoit_wolf

    return partial(torch.as_tensor(ledoit_wolf(signals.T.numpy())[0]))


MEASURES = {"correlation": fc, "partial": shrunk_partial, "covariance": covariance}
