"""A visit with its recordings open: each is read, checked and cleaned once, when first
asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cingulum.io.files import read_matrix
from cingulum.io.visit import Visit
from cingulum.signals.asl import Constants, Perfusion, read_perfusion
from cingulum.signals.bold import Bold, Denoising, framewise_displacement, read_bold
from cingulum.signals.heartbeat import Heartbeat, read_heartbeat


class VisitData:
    """Recordings of one visit: `bold`, `displacement`, `perfusion`, `heartbeat`,
    `connectome`.

    denoising, constants: how BOLD is cleaned and raw ASL quantified
    """

    def __init__(
        self,
        visit: Visit,
        denoising: Denoising = Denoising(),
        constants: Constants = Constants(),
    ) -> None:
        self.visit, self.denoising, self.constants = visit, denoising, constants

    @cached_property
    def bold(self) -> Bold:
        return read_bold(self.visit, self.denoising)

    @cached_property
    def displacement(self) -> np.ndarray:
        """Framewise displacement, mm, (volume − 1,)."""
        return framewise_displacement(self.visit)

    @cached_property
    def perfusion(self) -> Perfusion:
        return read_perfusion(self.visit, self.constants)

    @cached_property
    def heartbeat(self) -> Heartbeat:
        return read_heartbeat(self.visit)

    @cached_property
    def connectome(self) -> np.ndarray | None:
        """The visit's own connection weights (region, region), where its derivatives
        hold them."""
        return (
            read_matrix(self.visit["connectome"])
            if self.visit.has("connectome")
            else None
        )
