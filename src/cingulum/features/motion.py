"""Head motion: a control, not a feature to be proud of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cingulum.features.feature import Control, Feature, Measurement, Role
from cingulum.features.recordings_of_regions import displacement_source
from cingulum.features.registry import register_feature
from cingulum.features.run_combination import (
    RunCombination,
    combined_measurement,
    volumes_of,
    weighted_mean,
)
from cingulum.io.recording_kinds import BOLD, CONFOUNDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cingulum.io.visit import Visit
    from cingulum.signals.visit_data import VisitData


@register_feature
class HeadMotion(Feature):
    """Mean framewise displacement of the BOLD run (Power et al. 2012,
    doi:10.1016/j.neuroimage.2011.10.018, as fMRIPrep computes it)."""

    name = "motion"
    label = "Head motion (control)"
    summary = "mean framewise displacement"
    unit = "mm"
    meaning = "mean head motion from volume to volume"
    needs = (CONFOUNDS,)
    file = "func/{visit}_desc-motion_timeseries.tsv"
    role = Role.CONTROL
    measured_beside = (BOLD,)
    overview = ("",)
    controls = (
        Control(
            name="motion",
            # The only column has no name of its own.
            column="",
            label=label,
            unit=unit,
            held_against="BOLD",
            methods_text="Head motion: mean framewise displacement, a control",
        ),
    )

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return displacement_source(visit)

    def measure(self, data: VisitData) -> Measurement:
        import numpy as np

        displacement = data.displacement
        # The first volume has no displacement.
        details = {"Volumes": len(displacement) + 1}
        return Measurement(np.array([np.nanmean(displacement)]), details=details)

    def combine_runs(
        self, runs: Sequence[Measurement], method: RunCombination
    ) -> Measurement:
        volumes = [volumes_of(run) for run in runs]
        mean = weighted_mean([run.values for run in runs], volumes)
        return combined_measurement(runs, mean, "mean weighted by volumes")
