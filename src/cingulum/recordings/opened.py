"""A visit with its recordings open: each is read, checked and cleaned once, when first asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cingulum.errors import InputError
from cingulum.recordings.bids import Visit
from cingulum.recordings.bold import Bold, framewise_displacement, read_bold
from cingulum.recordings.heartbeat import Heartbeat, read_heartbeat
from cingulum.recordings.images import read_image


class Opened:
    """Recordings of one visit: `opened.bold`, `opened.perfusion`, `opened.heartbeat`, `opened.displacement`."""

    def __init__(self, visit: Visit) -> None:
        self.visit = visit

    @cached_property
    def bold(self) -> Bold:
        return read_bold(self.visit)

    @cached_property
    def perfusion(self) -> tuple[np.ndarray, np.ndarray]:
        """CBF (x, y, z) in ml/100 g/min, and its affine. Raises InputError where the map cannot be CBF."""
        image = read_image(self.visit["perfusion"], 3)
        data = np.asarray(image.dataobj)
        brain = data[data != 0]
        if brain.size == 0:
            raise InputError(f"{self.visit['perfusion']}: the CBF map is zero everywhere; quantification failed.")
        if not 5 <= brain.mean() <= 200:
            raise InputError(
                f"{self.visit['perfusion']}: mean CBF {brain.mean():.3g} is implausible (5 to 200 ml/100 g/min)."
            )
        return data, image.affine

    @cached_property
    def heartbeat(self) -> Heartbeat:
        return read_heartbeat(self.visit["cardiac"])

    @cached_property
    def displacement(self) -> np.ndarray:
        return framewise_displacement(self.visit)
