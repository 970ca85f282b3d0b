"""From a BIDS dataset to one table of features: read, checked, cleaned, measured; a
damaged visit stops nobody.

The dataset here is synthetic (`cingulum synthesize`), so that this runs anywhere; give
your own folder instead.
"""

import tempfile
from pathlib import Path

from cingulum import Denoising, synthesize, visits, write_features
from cingulum.datasets import CohortSettings
from cingulum.features import build_features
from cingulum.parallel import Executor
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.signals.visit_data import VisitData

folder = Path(tempfile.mkdtemp())
dataset = synthesize(
    folder / "dataset", CohortSettings(patients=3, voxel=9.0, volumes=60, tr=2.0)
)

# One visit, data by hand.
visit = visits(dataset)[0]
data = VisitData(visit, Denoising("friston24"))
print(
    f"{visit.name}: {len(data.heartbeat.beats)} beats, "
    f"{data.heartbeat.corrected:.0%} corrected"
)
print(
    f"whole-brain blood flow {data.perfusion.cbf[data.perfusion.mask].mean():.0f} "
    "ml/100 g/min"
)
print(f"BOLD: {data.bold.kept.sum()} volumes kept, tSNR {data.bold.tsnr:.0f}")

# A file that was cut short on its way here.
broken = visits(dataset)[1]["cardiac"]
broken.write_bytes(broken.read_bytes()[:-100])

# Every visit, every feature that was asked for.
plan = MeasurementPlan(
    build_features(["hrv", "cbf", "fc", "quality"]), Denoising("friston24")
)
written = write_features(dataset, folder / "results", plan, executor=Executor(jobs=1))
print(
    written.table[
        [
            "participant_id",
            "session_id",
            "hrv_rate",
            "cbf_grey_matter",
            "quality_tsnr",
            "failed",
        ]
    ].round(1)
)
for failure in written.failures:
    print(
        f"{failure.participant} {failure.session} {failure.feature}: {failure.reason}"
    )
