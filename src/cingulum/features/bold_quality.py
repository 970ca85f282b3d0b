"""How good a BOLD run is: what a reader checks before believing anything made from
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cingulum.features.feature import Column, Feature, Measurement
from cingulum.io.spaces import adult_mni
from cingulum.signals.atlas import Atlas, atlas_metadata, pain_atlas
from cingulum.signals.parcellation import membership
from cingulum.signals.visit_data import VisitData

MOST_MOTION = 0.5
"""mm of mean framewise displacement above which a run is flagged; Parkes et al. 2018
(doi:10.1016/j.neuroimage.2017.12.073) compare .25 and .55."""


class Quality(Feature):
    """Motion, volumes kept, signal to noise and coverage of every region."""

    name: ClassVar = "quality"
    unit: ClassVar = "see columns"
    meaning: ClassVar = "quality of the BOLD run"
    needs: ClassVar = ("bold", "mask", "confounds")

    def __init__(self, atlas: Atlas | None = None) -> None:
        self.atlas = atlas or pain_atlas()
        self.file = "func/{visit}_desc-quality_timeseries.tsv"  # type: ignore[misc]

    def settings(self) -> Mapping[str, Any]:
        return atlas_metadata(self.atlas)

    def columns(self) -> list[Column]:
        return [
            Column("fd mean", "mm", "mean framewise displacement"),
            Column("fd max", "mm", "largest framewise displacement"),
            Column("volumes", "1", "volumes recorded"),
            Column("volumes kept", "1", "volumes kept after scrubbing"),
            Column(
                "tsnr",
                "1",
                "median over the brain of temporal mean by standard deviation, before "
                "cleaning",
            ),
            Column(
                "coverage mean",
                "1",
                "mean share of a region that lies in the brain mask",
            ),
            Column(
                "coverage min",
                "1",
                "smallest share of a region that lies in the brain mask",
            ),
            Column("regions missing", "1", "regions without a voxel in the brain mask"),
        ]

    def measure(self, opened: VisitData) -> Measurement:
        bold, moved = opened.bold, opened.displacement
        flags = []
        if adult_mni(bold.space) or bold.space == self.atlas.space:
            _, coverage = membership(self.atlas, bold.mask, bold.affine)
        else:
            coverage = np.full(len(self.atlas.regions), np.nan)
            flags.append(f"coverage needs BOLD in {self.atlas.space} space: n/a")
        values = [
            np.nanmean(moved),
            np.nanmax(moved),
            len(bold.kept),
            bold.kept.sum(),
            bold.tsnr,
            coverage.mean(),
            coverage.min(),
            (coverage == 0).sum() if np.isfinite(coverage).all() else np.nan,
        ]
        if values[0] > MOST_MOTION:
            flags.append(
                f"mean framewise displacement {values[0]:.2f} mm is above "
                f"{MOST_MOTION} mm"
            )
        if bold.kept.mean() < 0.5:
            flags.append(f"only {bold.kept.mean():.0%} of the volumes were kept")
        if values[7] > 0:
            flags.append(
                f"{values[7]:.0f} region(s) of {self.atlas.name} lie outside the brain "
                "mask"
            )
        return Measurement(
            np.array(values, dtype=float), details=bold.settings, flags=flags
        )
