"""Connectivity of a seed with every voxel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cingulum.errors import InputError
from cingulum.features.feature import Feature, Measurement
from cingulum.recordings.bold import Bold
from cingulum.recordings.opened import Opened
from cingulum.recordings.parcellation import sphere

S1_BACK = [(-18.0, -38.0, 72.0), (18.0, -38.0, 72.0)]
"""Bilateral representation of the back in S1, MNI mm (Lee et al. 2019, supplement)."""


def seed_map(bold: Bold, centres: list[tuple[float, float, float]], radius: float) -> np.ndarray:
    """Regression estimate (x, y, z) of the standardised mean seed signal at every voxel, percent BOLD a seed SD.

    Zero outside the brain mask. Raises InputError when the seed has no varying signal.
    """
    seed = sphere(centres, radius, bold.mask.shape, bold.affine) & bold.mask
    signal = bold.data[seed].mean(0) if seed.any() else np.zeros(bold.data.shape[-1])
    if signal.std() < 1e-9:
        raise InputError(f"The seed at {centres} lies outside the brain mask or has a constant signal.")
    signal = (signal - signal.mean()) / signal.std()
    return bold.data @ signal / len(signal)


class SeedConnectivity(Feature):
    """S1CONN of Lee et al. 2019, doi:10.1097/j.pain.0000000000001417: S1-back seed, two 4 mm spheres as one."""

    name: ClassVar = "s1conn"
    unit: ClassVar = "percent BOLD per seed SD"
    meaning: ClassVar = "connectivity of the back area of S1 with every voxel"
    needs: ClassVar = ("bold", "mask", "confounds")
    file: ClassVar = "func/{visit}_seed-S1back_stat-effect_boldmap.nii.gz"

    def measure(self, opened: Opened) -> Measurement:
        bold = opened.bold
        return Measurement(seed_map(bold, S1_BACK, 4.0).astype(np.float32), bold.affine)
