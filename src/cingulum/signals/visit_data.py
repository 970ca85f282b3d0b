"""A visit with its recordings: each is read, checked and cleaned once, when a feature
first asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from cingulum.io.recording_kinds import CONFOUNDS

# Features are listed in help texts and error messages, which must not wait for numpy,
# nibabel and nilearn.
if TYPE_CHECKING:
    import numpy as np

    from cingulum.io.visit import Visit
    from cingulum.signals.asl import Constants, Perfusion
    from cingulum.signals.bold import Bold, Denoising
    from cingulum.signals.heartbeat import Heartbeat

Content = TypeVar("Content")


@dataclass(frozen=True)
class Reader(Generic[Content]):
    """What becomes of a recording once it is read.

    name: of what it gives
    read: from a visit to the checked content; raises InputError where the recording is
        missing or unfit
    """

    name: str
    read: Callable[[VisitData], Content]


@dataclass(eq=False)
class VisitData:
    """The recordings of one visit.

    denoising, constants: how BOLD is cleaned and raw ASL quantified; None: the defaults
    """

    visit: Visit
    denoising: Denoising | None = None
    constants: Constants | None = None
    _contents: dict[Reader[Any], Any] = field(default_factory=dict, repr=False)

    def get(self, reader: Reader[Content]) -> Content:
        """What a reader makes of the visit; the same object at every call."""
        if reader not in self._contents:
            self._contents[reader] = reader.read(self)
        return cast(Content, self._contents[reader])

    @cached_property
    def runs(self) -> tuple[VisitData, ...]:
        """The data of each run, where the visit has several."""
        return tuple(
            VisitData(visit, self.denoising, self.constants)
            for visit in self.visit.runs
        )

    @property
    def bold(self) -> Bold:
        """The cleaned BOLD run."""
        return self.get(BOLD_RUN)

    @property
    def displacement(self) -> np.ndarray:
        """Framewise displacement, mm, (volume − 1,)."""
        return self.get(DISPLACEMENT)

    @property
    def perfusion(self) -> Perfusion:
        """Cerebral blood flow, read from a map or quantified from raw ASL."""
        return self.get(BLOOD_FLOW)

    @property
    def heartbeat(self) -> Heartbeat:
        """The corrected beats of the heart."""
        return self.get(HEARTBEAT)


def _bold(data: VisitData) -> Bold:
    from cingulum.signals.bold import Denoising, read_bold

    return read_bold(data.visit, data.denoising or Denoising())


def _displacement(data: VisitData) -> np.ndarray:
    from cingulum.io.readers.xcpd import MOTION, displacement_of
    from cingulum.signals.bold import framewise_displacement

    # fMRIPrep's own where there is one: filters of other pipelines change it.
    if data.visit.has(CONFOUNDS.name) or not data.visit.has(MOTION.name):
        return framewise_displacement(data.visit)
    return displacement_of(data.visit)


def _blood_flow(data: VisitData) -> Perfusion:
    from cingulum.signals.asl import Constants, read_perfusion

    return read_perfusion(data.visit, data.constants or Constants())


def _heartbeat(data: VisitData) -> Heartbeat:
    from cingulum.signals.heartbeat import read_heartbeat

    return read_heartbeat(data.visit)


BOLD_RUN = Reader("cleaned BOLD", _bold)
DISPLACEMENT = Reader("framewise displacement", _displacement)
BLOOD_FLOW = Reader("cerebral blood flow", _blood_flow)
HEARTBEAT = Reader("heartbeat", _heartbeat)
