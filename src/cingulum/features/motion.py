"""Head motion: a control, not a feature to be proud of."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cingulum.features.feature import Feature, Measurement
from cingulum.signals.visit_data import VisitData


class HeadMotion(Feature):
    """Mean framewise displacement of the BOLD run (Power et al. 2012, as fMRIPrep
    computes it)."""

    name: ClassVar = "motion"
    unit: ClassVar = "mm"
    meaning: ClassVar = "mean head motion from volume to volume"
    needs: ClassVar = ("confounds",)
    file: ClassVar = "func/{visit}_desc-motion_timeseries.tsv"

    def measure(self, opened: VisitData) -> Measurement:
        return Measurement(np.array([np.nanmean(opened.displacement)]))
