"""Cerebral blood flow: relative to the whole brain at every voxel, and in regions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from cingulum.features.feature import Column, Feature, Measurement
from cingulum.io.images import read_image
from cingulum.io.spaces import adult_mni
from cingulum.io.visit import Visit
from cingulum.signals.asl import Perfusion
from cingulum.signals.atlas import Atlas, atlas_metadata, pain_atlas
from cingulum.signals.parcellation import parcellate
from cingulum.signals.visit_data import VisitData


def relative(cbf: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """CBF divided by its mean over the brain mask: mean 1, free of every global
    calibration constant."""
    return np.where(mask, cbf / cbf[mask].mean(), 0.0)


def sources(visit: Visit) -> tuple[str, ...]:
    """What blood flow is read from: a CBF map where there is one, else raw ASL."""
    if visit.has("perfusion") or not visit.has("asl"):
        visit["perfusion"]
        return ("perfusion", "cbfmask") if "cbfmask" in visit.files else ("perfusion",)
    visit["asl"], visit["aslcontext"]
    return (
        ("asl", "aslcontext", "m0scan")
        if visit.has("m0scan")
        else ("asl", "aslcontext")
    )


class RelativePerfusion(Feature):
    """rCBF of Lee et al. 2019: the units of their published weights are whole-brain
    mean = 1."""

    name: ClassVar = "rcbf"
    unit: ClassVar = "1 (whole-brain mean)"
    meaning: ClassVar = (
        "cerebral blood flow at every voxel, relative to the whole brain"
    )
    needs: ClassVar = ("perfusion",)
    file: ClassVar = "perf/{visit}_desc-relative_cbf.nii.gz"
    is_map: ClassVar = True

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        return sources(visit)

    def measure(self, opened: VisitData) -> Measurement:
        found = opened.perfusion
        values = relative(found.cbf, found.mask).astype(np.float32)
        details = {
            **found.settings,
            "WholeBrainMean": float(found.cbf[found.mask].mean()),
        }
        return Measurement(values, found.affine, details, found.flags)


class RegionalPerfusion(Feature):
    """Absolute CBF: mean of the whole brain, of grey matter, and of every region of an
    atlas (maps in MNI space)."""

    name: ClassVar = "cbf"
    unit: ClassVar = "ml/100 g/min"
    meaning: ClassVar = "cerebral blood flow"
    needs: ClassVar = ("perfusion",)

    def __init__(self, atlas: Atlas | None = None) -> None:
        self.atlas = atlas or pain_atlas()
        self.file = f"perf/{{visit}}_atlas-{self.atlas.name}_cbf.tsv"  # type: ignore[misc]

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        return (*sources(visit), *(["grey"] if "grey" in visit.files else []))

    def settings(self) -> Mapping[str, Any]:
        return atlas_metadata(self.atlas)

    def columns(self) -> list[Column]:
        regions = [
            Column(region, self.unit, "mean CBF of the region")
            for region in self.atlas.regions
        ]
        return [
            Column("whole brain", self.unit, "mean CBF over the brain mask"),
            Column(
                "grey matter",
                self.unit,
                "mean CBF where grey matter has probability above ½",
            ),
            *regions,
        ]

    def measure(self, opened: VisitData) -> Measurement:
        found, flags = opened.perfusion, list(opened.perfusion.flags)
        grey, where = _grey(opened.visit, found)
        inside = found.mask & grey if grey is not None else found.mask
        values = [
            found.cbf[found.mask].mean(),
            found.cbf[inside].mean() if grey is not None and inside.any() else np.nan,
        ]
        regions = np.full(len(self.atlas.regions), np.nan)
        details = {**found.settings, "GreyMatter": where}
        if adult_mni(found.space) or (found.space and found.space == self.atlas.space):
            regions, coverage = parcellate(
                found.cbf[found.mask], found.mask, found.affine, self.atlas
            )
            details["Coverage"] = coverage.round(4).to_dict()
        else:
            flags.append("regions need CBF in MNI space: n/a")
        return Measurement(
            np.concatenate([values, regions]), details=details, flags=flags
        )


def _grey(visit: Visit, found: Perfusion) -> tuple[np.ndarray | None, str]:
    """Where grey matter is likelier than not, and how that is known."""
    if "grey" in visit.files:
        image = read_image(visit["grey"], 3)
        if image.shape == found.cbf.shape and np.allclose(
            image.affine, found.affine, atol=1e-3
        ):
            return np.asarray(
                image.dataobj
            ) > 0.5, "the participant's own probability map, above 0.5"
    if not adult_mni(found.space):
        return None, "not known in native space"
    return _template(
        found.cbf.shape, found.affine.tobytes()
    ), "nilearn's MNI152 template, above half of its maximum"


@lru_cache(maxsize=4)  # visits share a grid
def _template(shape: tuple[int, ...], affine: bytes) -> np.ndarray:
    import nibabel as nib
    from nilearn.datasets import load_mni152_gm_template
    from nilearn.image import resample_to_img

    target = nib.Nifti1Image(
        np.zeros(shape, np.float32), np.frombuffer(affine).reshape(4, 4)
    )
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
