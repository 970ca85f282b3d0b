"""A feature of your own: one number a visit, read, checked and cleaned by what is
there; a table comes with it.

The dataset here is synthetic, so that this runs anywhere; give your own folder instead.
"""

import tempfile
from pathlib import Path

import numpy as np

from cingulum import synthesize, visits, write_features
from cingulum.datasets import CohortSettings
from cingulum.features import Column, Feature, HeadMotion, Measurement
from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.signals.visit_data import VisitData


class GlobalSignal(Feature):
    """Standard deviation of the mean over the brain of the cleaned BOLD, and its share
    of the voxels' own."""

    name = "global"
    label = "Global signal"
    summary = "signal that the whole brain shares"
    unit = "see columns"
    meaning = "signal that the whole brain shares"
    # A visit that lacks one of these has no such feature, and is told by name.
    needs = (BOLD, MASK, CONFOUNDS)
    file = "func/{visit}_desc-global_timeseries.tsv"

    def columns(self) -> list[Column]:
        return [
            Column(
                "deviation",
                "percent BOLD",
                "standard deviation of the mean over the brain",
            ),
            Column("share", "1", "that, by the mean standard deviation of the voxels"),
        ]

    def measure(self, data: VisitData) -> Measurement:
        signals = data.bold.signals  # (voxel, kept volume), percent, confounds out
        deviation = signals.mean(0).std()
        return Measurement(np.array([deviation, deviation / signals.std(1).mean()]))


folder = Path(tempfile.mkdtemp())
dataset = synthesize(
    folder / "dataset", CohortSettings(patients=3, voxel=9.0, volumes=60, tr=2.0)
)

# One visit, by hand.
print(
    "one visit:", GlobalSignal().measure(VisitData(visits(dataset)[0])).values.round(3)
)

# Every visit. The same again measures nothing anew: the key is the files' content, the
# settings and the version.
written = write_features(
    dataset,
    folder / "results",
    MeasurementPlan({"global": GlobalSignal(), "motion": HeadMotion()}),
)
columns = ["participant_id", "session_id", "global_deviation", "global_share", "motion"]
print(written.table[columns].round(3).to_string(index=False))
