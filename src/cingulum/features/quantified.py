"""Maps quantified from raw ASL: absolute blood flow and, from several delays, when the
blood arrives."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cingulum.errors import InputError
from cingulum.features.blood_flow import sources
from cingulum.features.feature import Feature, Measurement
from cingulum.io.visit import Visit
from cingulum.signals.visit_data import VisitData


def delays(visit: Visit) -> int:
    """How many different delays a visit's ASL run has."""
    told = visit.metadata("asl").get("PostLabelingDelay")
    return len({str(delay) for delay in told if delay}) if isinstance(told, list) else 1


class BloodFlow(Feature):
    """CBF in ml/100 g/min at every voxel, of visits whose flow is quantified here
    (others have their map already)."""

    name: ClassVar = "cbfmap"
    unit: ClassVar = "ml/100 g/min"
    meaning: ClassVar = "cerebral blood flow at every voxel, quantified from raw ASL"
    needs: ClassVar = ("asl",)
    file: ClassVar = "perf/{visit}_cbf.nii.gz"
    is_map: ClassVar = True

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        if visit.has("perfusion"):
            raise InputError(
                f"{visit.name} has a CBF map already: nothing is quantified."
            )
        visit["asl"]
        return sources(visit)

    def measure(self, opened: VisitData) -> Measurement:
        found = opened.perfusion
        return Measurement(
            found.cbf.astype(np.float32), found.affine, found.settings, found.flags
        )


class ArrivalTime(Feature):
    """Arterial arrival time at every voxel, from ASL with several delays (Buxton et al.
    1998)."""

    name: ClassVar = "att"
    unit: ClassVar = "s"
    meaning: ClassVar = "when labelled blood arrives at every voxel"
    needs: ClassVar = ("asl",)
    file: ClassVar = "perf/{visit}_att.nii.gz"
    is_map: ClassVar = True

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        kinds = BloodFlow().kinds(visit)
        if delays(visit) < 2:
            raise InputError(
                f"{visit.name}: one delay does not tell when blood arrives; several "
                "are needed."
            )
        return kinds

    def measure(self, opened: VisitData) -> Measurement:
        found = opened.perfusion
        if found.arrival is None:
            raise InputError(
                f"{opened.visit['asl']}: its volumes have one delay, although its JSON "
                "lists several."
            )
        return Measurement(
            found.arrival.astype(np.float32), found.affine, found.settings, found.flags
        )
