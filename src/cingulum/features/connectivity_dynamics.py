"""How connectivity changes within a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from cingulum.errors import InputError
from cingulum.features.feature import Column, Feature, Measurement
from cingulum.measures import fcd
from cingulum.signals.atlas import Atlas, atlas_metadata, pain_atlas
from cingulum.signals.parcellation import regional_series
from cingulum.signals.visit_data import VisitData


class ConnectivityDynamics(Feature):
    """Functional connectivity dynamics (Hansen et al. 2015,
    doi:10.1016/j.neuroimage.2014.11.001) over sliding windows.

    window, step: s; both decide the values as much as the brain does, so compare only
    runs with the same two Volumes that were censored are left out and windows run over
    the rest.
    """

    name: ClassVar = "fcd"
    unit: ClassVar = "1"
    meaning: ClassVar = "how alike connectivity is between windows of a run"
    needs: ClassVar = ("bold", "mask", "confounds")

    def __init__(
        self, atlas: Atlas | None = None, window: float = 60.0, step: float = 6.0
    ) -> None:
        self.atlas, self.window, self.step = atlas or pain_atlas(), window, step
        self.file = f"func/{{visit}}_atlas-{self.atlas.name}_desc-fcd_timeseries.tsv"  # type: ignore[misc]

    def settings(self) -> Mapping[str, Any]:
        return {**atlas_metadata(self.atlas), "Window": self.window, "Step": self.step}

    def columns(self) -> list[Column]:
        return [
            Column(
                "mean",
                "1",
                "mean similarity of connectivity between windows that do not overlap",
            ),
            Column(
                "sd",
                "1",
                "its standard deviation: how much connectivity comes and goes",
            ),
        ]

    def measure(self, opened: VisitData) -> Measurement:
        series, _ = regional_series(opened.bold, self.atlas)
        signals = series.data[
            torch.isfinite(series.data).all(-1) & (series.data.std(-1) > 0)
        ]
        window, step = (
            max(1, round(seconds / series.tr)) for seconds in (self.window, self.step)
        )
        if window < 10 or signals.shape[-1] < 3 * window or len(signals) < 3:
            raise InputError(
                f"{opened.visit['bold']}: {signals.shape[-1]} volumes of {series.tr:g} "
                f"s in {len(signals)} regions are "
                f"too few for windows of {self.window:g} s: at least three, of ten "
                "volumes or more."
            )
        matrix = fcd(signals, window, step)
        apart = -(-window // step)
        start = torch.arange(len(matrix))
        values = matrix[(start[:, None] - start) >= apart].numpy()
        details = {
            **opened.bold.settings,
            "Window": self.window,
            "Step": self.step,
            "Windows": len(matrix),
        }
        return Measurement(np.array([values.mean(), values.std()]), details=details)
