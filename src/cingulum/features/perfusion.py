"""Cerebral blood flow, relative to the whole brain."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cingulum.features.feature import Feature, Measurement
from cingulum.recordings.opened import Opened


def relative(cbf: np.ndarray) -> np.ndarray:
    """CBF divided by its mean over the brain (non-zero voxels): mean 1, free of every global calibration constant."""
    brain = cbf != 0
    return np.where(brain, cbf / cbf[brain].mean(), 0.0)


class RelativePerfusion(Feature):
    """rCBF of Lee et al. 2019: the units of their published weights are whole-brain mean = 1."""

    name: ClassVar = "rcbf"
    unit: ClassVar = "1 (whole-brain mean)"
    meaning: ClassVar = "cerebral blood flow at every voxel, relative to the whole brain"
    needs: ClassVar = ("perfusion",)
    file: ClassVar = "perf/{visit}_desc-relative_cbf.nii.gz"

    def measure(self, opened: Opened) -> Measurement:
        cbf, affine = opened.perfusion
        return Measurement(relative(cbf).astype(np.float32), affine)
