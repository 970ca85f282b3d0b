"""How connectivity changes within a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cingulum.errors import InputError
from cingulum.features.feature import (
    Column,
    Feature,
    FeatureOptions,
    Measurement,
    Settings,
)
from cingulum.features.recordings_of_regions import regional_recordings
from cingulum.features.registry import register_feature
from cingulum.features.run_combination import (
    RunCombination,
    combined_measurement,
    volumes_of,
    weighted_mean,
)
from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from cingulum.io.visit import Visit
    from cingulum.signals.atlas import Atlas
    from cingulum.signals.visit_data import VisitData

FEWEST_VOLUMES = 10
"""Volumes of a window below which its correlations say nothing."""


@register_feature
class ConnectivityDynamics(Feature):
    """Functional connectivity dynamics over sliding windows (Hansen et al. 2015,
    doi:10.1016/j.neuroimage.2014.11.001).

    window, step: s. Both decide the values as much as the brain does: compare only runs
    with the same two. Censored volumes are left out, and windows run over the rest.
    """

    name = "fcd"
    label = "Connectivity dynamics"
    summary = "how connectivity between regions changes within the run"
    unit = "1"
    meaning = "how alike connectivity is between windows of a run"
    needs = (BOLD, MASK, CONFOUNDS)
    overview = ("mean",)

    def __init__(
        self, atlas: Atlas | None = None, window: float = 60.0, step: float = 6.0
    ) -> None:
        from cingulum.signals.atlas import pain_atlas

        self.atlas = atlas or pain_atlas()
        self.window = window
        self.step = step
        self.file = f"func/{{visit}}_atlas-{self.atlas.name}_desc-fcd_timeseries.tsv"

    file = "func/{visit}_desc-fcd_timeseries.tsv"

    @classmethod
    def from_options(cls, options: FeatureOptions) -> ConnectivityDynamics:
        return cls(options.atlas)

    def settings(self) -> Settings:
        from cingulum.signals.atlas import atlas_metadata

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

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return regional_recordings(visit, self.atlas)

    def measure(self, data: VisitData) -> Measurement:
        import numpy as np
        import torch

        from cingulum.measures import fcd
        from cingulum.signals.regional_signals import regional_run

        run = regional_run(data, self.atlas)
        series = run.series
        # A region without a signal correlates with nothing.
        has_signal = torch.isfinite(series.data).all(-1) & (series.data.std(-1) > 0)
        signals = series.data[has_signal]
        # In volumes: the same seconds are comparable between repetition times.
        window = max(1, round(self.window / series.tr))
        step = max(1, round(self.step / series.tr))
        self._check_length(run.source, signals, window, series.tr)
        matrix = fcd(signals, window, step)
        values = _without_overlap(matrix, window, step).numpy()
        details = {
            **run.settings,
            "Window": self.window,
            "Step": self.step,
            "Windows": len(matrix),
        }
        return Measurement(np.array([values.mean(), values.std()]), details=details)

    def combine_runs(
        self, runs: Sequence[Measurement], method: RunCombination
    ) -> Measurement:
        volumes = [volumes_of(run) for run in runs]
        mean = weighted_mean([run.values for run in runs], volumes)
        description = "windows within runs only; means weighted by kept volumes"
        return combined_measurement(runs, mean, description)

    def _check_length(
        self, source: Path, signals: Tensor, window: int, tr: float
    ) -> None:
        regions, volumes = signals.shape
        # With fewer than three windows that do not overlap there is no spread to speak
        # of, and with two regions a window has a single correlation.
        if window >= FEWEST_VOLUMES and volumes >= 3 * window and regions >= 3:
            return
        raise InputError(
            f"{source}: {volumes} volumes of {tr:g} s in {regions} regions "
            f"are too few for windows of {self.window:g} s: at least three, of ten "
            "volumes or more."
        )


def _without_overlap(matrix: Tensor, window: int, step: int) -> Tensor:
    """Similarities of the pairs of windows that share no volume; windows that do are
    alike for that reason alone."""
    import torch

    # Steps from a window to the next that begins after its end, rounded up.
    apart = -(-window // step)
    start = torch.arange(len(matrix))
    return matrix[(start[:, None] - start) >= apart]
