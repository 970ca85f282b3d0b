"""Cerebral blood flow: relative to the whole brain at every voxel, and in regions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from cingulum.features.feature import (
    Column,
    Feature,
    FeatureOptions,
    Measurement,
    Role,
    Settings,
    StudyRecipe,
)
from cingulum.features.registry import register_feature
from cingulum.io.recording_kinds import (
    ASL,
    ASL_CONTEXT,
    CBF_MASK,
    GREY_MATTER,
    M0_SCAN,
    PERFUSION,
)

if TYPE_CHECKING:
    import numpy as np

    from cingulum.io.visit import Visit
    from cingulum.signals.asl import Perfusion
    from cingulum.signals.atlas import Atlas
    from cingulum.signals.visit_data import VisitData


@register_feature
class RelativePerfusion(Feature):
    """rCBF of Lee et al. 2019 (doi:10.1097/j.pain.0000000000001417): the units of their
    published weights are whole-brain mean = 1."""

    name = "rcbf"
    label = "Relative blood flow (ASL)"
    summary = "map: blood flow relative to the whole brain"
    unit = "1 (whole-brain mean)"
    meaning = "cerebral blood flow at every voxel, relative to the whole brain"
    needs = (PERFUSION,)
    file = "perf/{visit}_desc-relative_cbf.nii.gz"
    role = Role.PREDICTOR
    chosen_by_default = True
    is_map = True
    map_centre = 1.0
    colour = "#b5482f"
    references = ("abraham2014",)

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return perfusion_sources(visit)

    def measure(self, data: VisitData) -> Measurement:
        import numpy as np

        perfusion = data.perfusion
        # Half the size on disk, and still more digits than a map is good for.
        values = relative(perfusion.cbf, perfusion.mask).astype(np.float32)
        mean = float(perfusion.cbf[perfusion.mask].mean())
        details = {**perfusion.settings, "WholeBrainMean": mean}
        return Measurement(values, perfusion.affine, details, perfusion.flags)

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        return (
            "Relative blood flow: CBF map divided by its mean over the brain, at every "
            "voxel."
        )


@register_feature
class RegionalPerfusion(Feature):
    """Absolute CBF: mean of the whole brain, of grey matter, and of every region of an
    atlas (maps in MNI space)."""

    name = "cbf"
    label = "Regional blood flow"
    summary = "blood flow: whole brain, grey matter, regions (ml/100 g/min)"
    unit = "ml/100 g/min"
    meaning = "cerebral blood flow"
    needs = (PERFUSION,)
    file = "perf/{visit}_cbf.tsv"
    role = Role.PREDICTOR
    colour = "#c98a3b"
    overview = ("whole brain", "grey matter")

    def __init__(self, atlas: Atlas | None = None) -> None:
        from cingulum.signals.atlas import pain_atlas

        self.atlas = atlas or pain_atlas()
        self.file = f"perf/{{visit}}_atlas-{self.atlas.name}_cbf.tsv"

    @classmethod
    def from_options(cls, options: FeatureOptions) -> RegionalPerfusion:
        return cls(options.atlas)

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        from cingulum.signals.atlas import is_of_tables

        if is_of_tables(self.atlas):
            return self._recordings_of_table(visit)
        names = perfusion_sources(visit)
        if GREY_MATTER.name in visit.files:
            return (*names, GREY_MATTER.name)
        return names

    def _recordings_of_table(self, visit: Visit) -> tuple[str, ...]:
        from cingulum.io.readers.aslprep import REGIONAL_FLOW

        table = REGIONAL_FLOW.named(self.atlas.name)
        visit[table]
        return (table,)

    def settings(self) -> Settings:
        from cingulum.signals.atlas import atlas_metadata

        return atlas_metadata(self.atlas)

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        return (
            "Regional blood flow: CBF (ml/100 g/min), averaged over the regions of the "
            f"atlas {recipe.atlas}, and over whole brain and grey matter where there "
            "is a map."
        )

    def columns(self) -> list[Column]:
        from cingulum.signals.atlas import is_of_tables

        regions = [self._column_of(region) for region in self.atlas.regions]
        # A table of another pipeline has regions only.
        if is_of_tables(self.atlas):
            return regions
        whole_brain = Column("whole brain", self.unit, "mean CBF over the brain mask")
        grey_matter = Column(
            "grey matter",
            self.unit,
            "mean CBF where grey matter has probability above ½",
        )
        return [whole_brain, grey_matter, *regions]

    def _column_of(self, region: str) -> Column:
        return Column(region, self.unit, "mean CBF of the region", region=region)

    def measure(self, data: VisitData) -> Measurement:
        import numpy as np

        from cingulum.signals.atlas import is_of_tables

        if is_of_tables(self.atlas):
            return self._of_table(data)
        perfusion = data.perfusion
        grey, source = grey_matter(data.visit, perfusion)
        whole_brain = perfusion.cbf[perfusion.mask].mean()
        values = [whole_brain, _mean_within(grey, perfusion)]
        flags = list(perfusion.flags)
        details = {**perfusion.settings, "GreyMatter": source}
        # Without the atlas's space, the columns stay and are empty.
        regions = np.full(len(self.atlas.regions), np.nan)
        if self._covers(perfusion.space):
            regions, details["Coverage"] = self._regional_means(perfusion)
        else:
            flags.append("regions need CBF in MNI space: n/a")
        return Measurement(
            np.concatenate([values, regions]), details=details, flags=flags
        )

    def _of_table(self, data: VisitData) -> Measurement:
        """Regions as ASLPrep averaged them."""
        from cingulum.io.readers.aslprep import REGIONAL_FLOW, read_regional_flow
        from cingulum.signals.regional_signals import check_same_regions

        path = data.visit[REGIONAL_FLOW.named(self.atlas.name)]
        flow = read_regional_flow(data.visit, self.atlas.name)
        check_same_regions(path, tuple(flow.index), self.atlas)
        # By name, never by order alone.
        return Measurement(flow[list(self.atlas.regions)].to_numpy(float))

    def _covers(self, space: str) -> bool:
        """Whether the atlas and an image in this space name the same places."""
        from cingulum.signals.atlas import is_same_space

        return is_same_space(self.atlas.space, space)

    def _regional_means(
        self, perfusion: Perfusion
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Mean flow (region,), and the share of every region inside the mask."""
        from cingulum.signals.parcellation import parcellate

        values, coverage = parcellate(
            perfusion.cbf[perfusion.mask], perfusion.mask, perfusion.affine, self.atlas
        )
        return values, coverage.round(4).to_dict()


def _mean_within(grey: np.ndarray | None, perfusion: Perfusion) -> float:
    """Mean flow of the grey matter inside the mask; NaN where none is known."""
    import numpy as np

    if grey is None:
        return np.nan
    within = perfusion.mask & grey
    if not within.any():
        return np.nan
    return perfusion.cbf[within].mean()


def relative(cbf: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """CBF divided by its mean over the brain mask: mean 1, free of every global
    calibration constant."""
    import numpy as np

    return np.where(mask, cbf / cbf[mask].mean(), 0.0)


def perfusion_sources(visit: Visit) -> tuple[str, ...]:
    """What blood flow is read from: a CBF map where there is one, else raw ASL.

    Raises InputError for a visit that has neither.
    """
    if visit.has(PERFUSION.name) or not visit.has(ASL.name):
        # Without either, the error should ask for the map, which most users have.
        visit[PERFUSION.name]
        if CBF_MASK.name in visit.files:
            return (PERFUSION.name, CBF_MASK.name)
        return (PERFUSION.name,)
    for kind in (ASL, ASL_CONTEXT):
        visit[kind.name]
    # M0 may also be a volume of the ASL run itself.
    if visit.has(M0_SCAN.name):
        return (ASL.name, ASL_CONTEXT.name, M0_SCAN.name)
    return (ASL.name, ASL_CONTEXT.name)


def grey_matter(visit: Visit, perfusion: Perfusion) -> tuple[np.ndarray | None, str]:
    """Where grey matter is likelier than not (x, y, z), and how that is known."""
    from cingulum.io.spaces import adult_mni

    own = _own_grey_matter(visit, perfusion)
    if own is not None:
        return own, "the participant's own probability map, above 0.5"
    # The template is in MNI space, and so must the map be.
    if not adult_mni(perfusion.space):
        return None, "not known in native space"
    # Bytes, because the cache needs an argument that can be hashed.
    template = _template(perfusion.cbf.shape, perfusion.affine.tobytes())
    return template, "nilearn's MNI152 template, above half of its maximum"


def _own_grey_matter(visit: Visit, perfusion: Perfusion) -> np.ndarray | None:
    """The participant's own grey matter, where there is a map of it on this grid."""
    import numpy as np

    from cingulum.io.images import read_image

    if GREY_MATTER.name not in visit.files:
        return None
    image = read_image(visit[GREY_MATTER.name], 3)
    same_shape = image.shape == perfusion.cbf.shape
    # Programs write affines with rounding errors of their own.
    if not same_shape or not np.allclose(image.affine, perfusion.affine, atol=1e-3):
        return None
    return np.asarray(image.dataobj) > 0.5


# Visits of a study share a grid, and resampling takes a second.
@lru_cache(maxsize=4)
def _template(shape: tuple[int, ...], affine: bytes) -> np.ndarray:
    import nibabel as nib
    import numpy as np
    from nilearn.datasets import load_mni152_gm_template
    from nilearn.image import resample_to_img

    grid = np.frombuffer(affine).reshape(4, 4)
    target = nib.Nifti1Image(np.zeros(shape, np.float32), grid)
    template = load_mni152_gm_template(resolution=2)
    grey = resample_to_img(
        template,
        target,
        interpolation="continuous",
        force_resample=True,
        copy_header=True,
    )
    data = np.asarray(grey.dataobj)
    return data > 0.5 * data.max()
