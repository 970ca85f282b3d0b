"""Maps quantified from raw ASL: absolute blood flow and, from several delays, when the
blood arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cingulum.errors import InputError
from cingulum.features.blood_flow import perfusion_sources
from cingulum.features.feature import Feature, Measurement
from cingulum.features.registry import register_feature
from cingulum.io.recording_kinds import ASL, PERFUSION

if TYPE_CHECKING:
    import numpy as np

    from cingulum.io.visit import Visit
    from cingulum.signals.asl import Perfusion
    from cingulum.signals.visit_data import VisitData


@register_feature
class BloodFlow(Feature):
    """CBF in ml/100 g/min at every voxel, quantified from raw ASL; visits that have a
    CBF map need no other."""

    name = "cbfmap"
    label = "Blood flow map"
    summary = "map from raw ASL: absolute blood flow"
    unit = "ml/100 g/min"
    meaning = "cerebral blood flow at every voxel, quantified from raw ASL"
    needs = (ASL,)
    file = "perf/{visit}_cbf.nii.gz"
    is_map = True

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return quantified_from(visit)

    def measure(self, data: VisitData) -> Measurement:
        perfusion = data.perfusion
        return _map_of(perfusion.cbf, perfusion)


@register_feature
class ArrivalTime(Feature):
    """Arterial arrival time at every voxel, from ASL with several delays (Buxton et al.
    1998, doi:10.1002/mrm.1910400308)."""

    name = "att"
    label = "Arterial arrival time"
    summary = "map from raw ASL with several delays: arrival time"
    unit = "s"
    meaning = "when labelled blood arrives at every voxel"
    needs = (ASL,)
    file = "perf/{visit}_att.nii.gz"
    is_map = True

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        names = quantified_from(visit)
        if number_of_delays(visit) < 2:
            raise InputError(
                f"{visit.name}: one delay does not tell when blood arrives; several "
                "are needed."
            )
        return names

    def measure(self, data: VisitData) -> Measurement:
        perfusion = data.perfusion
        if perfusion.arrival is None:
            raise InputError(
                f"{data.visit['asl']}: its volumes have one delay, although its JSON "
                "lists several."
            )
        return _map_of(perfusion.arrival, perfusion)


def quantified_from(visit: Visit) -> tuple[str, ...]:
    """The recordings that a visit's blood flow is quantified from.

    Raises InputError for a visit without raw ASL, or with a CBF map.
    """
    if visit.has(PERFUSION.name):
        raise InputError(f"{visit.name} has a CBF map already: nothing is quantified.")
    # Raises for a visit without raw ASL.
    visit[ASL.name]
    return perfusion_sources(visit)


def number_of_delays(visit: Visit) -> int:
    """How many different delays a visit's ASL run has."""
    delays = visit.metadata(ASL.name).get("PostLabelingDelay")
    # A single number holds for all volumes.
    if not isinstance(delays, list):
        return 1
    # A delay of 0 belongs to the M0 volumes of the run.
    return len({str(delay) for delay in delays if delay})


def _map_of(values: np.ndarray, perfusion: Perfusion) -> Measurement:
    import numpy as np

    # Half the size on disk, and still more digits than a map is good for.
    return Measurement(
        values.astype(np.float32),
        perfusion.affine,
        perfusion.settings,
        perfusion.flags,
    )
