"""How good a BOLD run is: what a reader checks before believing anything made from
it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cingulum.features.feature import (
    Column,
    Feature,
    FeatureOptions,
    Measurement,
    Role,
    Settings,
)
from cingulum.features.recordings_of_regions import (
    displacement_source,
    regional_recordings,
)
from cingulum.features.registry import register_feature
from cingulum.features.run_combination import (
    RunCombination,
    combined_measurement,
    weighted_mean,
)
from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from cingulum.io.visit import Visit
    from cingulum.signals.atlas import Atlas
    from cingulum.signals.bold import Bold
    from cingulum.signals.visit_data import VisitData

MOST_MOTION = 0.5
"""mm of mean framewise displacement above which a run is flagged; Parkes et al. 2018
(doi:10.1016/j.neuroimage.2017.12.073) compare .25 and .55."""

# With less than half of a run, little is left to correlate.
FEWEST_KEPT = 0.5
"""Share of the volumes below which a run is flagged."""

# Positions of columns that are no means of runs.
VOLUMES, SUMS, LARGEST, SMALLEST = 2, (2, 3), (1, 7), 6


@register_feature
class BoldQuality(Feature):
    """Motion, volumes kept, signal to noise and coverage of every region."""

    name = "quality"
    label = "Quality of the BOLD run"
    summary = "head motion, volumes kept, signal to noise, coverage"
    unit = "see columns"
    meaning = "quality of the BOLD run"
    needs = (BOLD, MASK, CONFOUNDS)
    file = "func/{visit}_desc-quality_timeseries.tsv"
    role = Role.QUALITY
    measured_beside = (BOLD,)
    # Quality that cannot be measured must not cost a participant.
    missing_is_gap = True
    overview = ("fd mean", "volumes kept", "tsnr", "coverage mean")

    def __init__(self, atlas: Atlas | None = None) -> None:
        from cingulum.signals.atlas import pain_atlas

        self.atlas = atlas or pain_atlas()

    @classmethod
    def from_options(cls, options: FeatureOptions) -> BoldQuality:
        return cls(options.atlas)

    def settings(self) -> Settings:
        from cingulum.signals.atlas import atlas_metadata

        return atlas_metadata(self.atlas)

    def columns(self) -> list[Column]:
        share = "share of a region that lies in the brain mask"
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
            Column("coverage mean", "1", f"mean {share}"),
            Column("coverage min", "1", f"smallest {share}"),
            Column("regions missing", "1", "regions without a voxel in the brain mask"),
        ]

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        names = regional_recordings(visit, self.atlas)
        if CONFOUNDS.name in names:
            return names
        return (*names, *displacement_source(visit))

    def measure(self, data: VisitData) -> Measurement:
        from cingulum.signals.atlas import is_of_tables

        if is_of_tables(self.atlas):
            return self._of_table(data)
        bold = data.bold
        coverage, flags = self._coverage(bold)
        volumes = [len(bold.kept), int(bold.kept.sum())]
        return self._measurement(
            data.displacement, volumes, bold.tsnr, coverage, flags, bold.settings
        )

    def combine_runs(
        self, runs: Sequence[Measurement], method: RunCombination
    ) -> Measurement:
        import numpy as np

        values = np.stack([run.values for run in runs])
        volumes = values[:, VOLUMES]
        combined = weighted_mean(list(values), list(volumes))
        combined[list(SUMS)] = values[:, list(SUMS)].sum(0)
        combined[list(LARGEST)] = values[:, list(LARGEST)].max(0)
        combined[SMALLEST] = values[:, SMALLEST].min()
        description = (
            "volumes added; largest displacement, smallest coverage and most missing "
            "regions of any run; means weighted by volumes"
        )
        return combined_measurement(runs, combined, description)

    def _of_table(self, data: VisitData) -> Measurement:
        """Of a run that another pipeline cleaned, whose noise is not known any more."""
        import numpy as np

        from cingulum.signals.regional_signals import regional_run

        run = regional_run(data, self.atlas)
        volumes = [run.settings["Volumes"], run.settings["VolumesKept"]]
        coverage = run.coverage.to_numpy()
        displacement = data.displacement
        return self._measurement(
            displacement, volumes, np.nan, coverage, [], run.settings
        )

    def _measurement(
        self,
        displacement: np.ndarray,
        volumes: Sequence[int],
        tsnr: float,
        coverage: np.ndarray,
        flags: Sequence[str],
        details: Settings,
    ) -> Measurement:
        """volumes: recorded and kept"""
        import numpy as np

        missing = _regions_missing(coverage)
        # The displacement of the first volume is NaN: it has none before it.
        mean_displacement = np.nanmean(displacement)
        values = [
            mean_displacement,
            np.nanmax(displacement),
            *volumes,
            tsnr,
            coverage.mean(),
            coverage.min(),
            missing,
        ]
        kept = volumes[1] / volumes[0]
        flags = [*flags, *self._flags(mean_displacement, kept, missing)]
        return Measurement(np.array(values, dtype=float), details=details, flags=flags)

    def _coverage(self, bold: Bold) -> tuple[np.ndarray, list[str]]:
        """Share of every region inside the brain mask; NaN, and a flag, where atlas and
        run do not share a space."""
        import numpy as np

        from cingulum.signals.atlas import is_same_space
        from cingulum.signals.parcellation import membership

        if is_same_space(self.atlas.space, bold.space):
            _, coverage = membership(self.atlas, bold.mask, bold.affine)
            return coverage, []
        # Regions of another space would be looked for in the wrong voxels.
        unknown = np.full(len(self.atlas.regions), np.nan)
        return unknown, [f"coverage needs BOLD in {self.atlas.space} space: n/a"]

    def _flags(self, motion: float, kept: float, missing: float) -> list[str]:
        flags = []
        if motion > MOST_MOTION:
            flags.append(
                f"mean framewise displacement {motion:.2f} mm is above {MOST_MOTION} mm"
            )
        if kept < FEWEST_KEPT:
            flags.append(f"only {kept:.0%} of the volumes were kept")
        # False for NaN: what is not known is flagged elsewhere.
        if missing > 0:
            flags.append(
                f"{missing:.0f} region(s) of {self.atlas.name} lie outside the brain "
                "mask"
            )
        return flags


def _regions_missing(coverage: np.ndarray) -> float:
    """How many regions the mask does not reach; NaN where coverage is not known."""
    import numpy as np

    if np.isnan(coverage).any():
        return np.nan
    return float((coverage == 0).sum())
