"""Atlases: named regions as spheres, as a label image or as probability maps, in
millimetres of a standard space."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import read_table
from cingulum.io.images import read_header, read_image
from cingulum.io.spaces import adult_mni


@dataclass(frozen=True, eq=False)
class SphereAtlas:
    """Regions as spheres around MNI coordinates: names, centres (region, 3) in mm,
    radius in mm (one, or one each)."""

    regions: tuple[str, ...]
    centres: np.ndarray
    radius: float | np.ndarray = 8.0
    name: str = "spheres"
    space: str = "MNI"


@dataclass(frozen=True, eq=False)
class LabelAtlas:
    """Regions as the values of an image: names, the value of each, image (x, y, z) of
    integers, affine.

    A region whose value is nowhere in the image stays in the list; it has coverage 0
    everywhere.
    """

    regions: tuple[str, ...]
    values: np.ndarray
    image: np.ndarray
    affine: np.ndarray
    name: str = "labels"
    space: str = "MNI"

    @cached_property
    def centres(self) -> np.ndarray:
        """Centre of gravity (region, 3) of each region, mm; NaN for one without a
        voxel."""
        return np.stack(
            [
                _centre((self.image == value).astype(float), self.affine)
                for value in self.values
            ]
        )


@dataclass(frozen=True, eq=False)
class ProbabilisticAtlas:
    """Regions as probability maps (region, x, y, z), with their affine."""

    regions: tuple[str, ...]
    image: np.ndarray
    affine: np.ndarray
    name: str = "maps"
    space: str = "MNI"

    @cached_property
    def centres(self) -> np.ndarray:
        """Centre of gravity (region, 3) of each map, mm."""
        return np.stack([_centre(image, self.affine) for image in self.image])


Atlas = SphereAtlas | LabelAtlas | ProbabilisticAtlas


def check_space(atlas: Atlas, space: str, what: str) -> None:
    """Raises InputError where an atlas and an image do not lie in one space (a file
    without `space-` is in its own)."""
    if atlas.space != space and not (adult_mni(atlas.space) and adult_mni(space)):
        raise InputError(
            f"{what}: lies in {space or 'native'} space, the regions of {atlas.name} "
            f"in {atlas.space}. Give it in "
            "adult MNI space (fMRIPrep: --output-spaces MNI152NLin2009cAsym), or an "
            "atlas named with the same space-."
        )


def told(atlas: Atlas) -> dict[str, object]:
    """An atlas for sidecars and for knowing it again: its name, its regions, and a hash
    of where they lie."""
    digest = hashlib.sha256()
    for part in fields(atlas):
        value = getattr(atlas, part.name)
        if isinstance(value, np.ndarray | float | int):
            digest.update(np.ascontiguousarray(value, dtype=float).tobytes())
    return {
        "Atlas": atlas.name,
        "Regions": list(atlas.regions),
        "AtlasSHA256": digest.hexdigest(),
    }


def pain_atlas() -> SphereAtlas:
    """52 regions of the pain literature with MNI coordinates, the S1-back seeds of Lee
    et al. 2019 among them."""
    with (files("cingulum") / "data" / "pain52.tsv").open() as source:
        table = pd.read_csv(source, sep="\t")
    return SphereAtlas(
        tuple(table["name"]), table[["x", "y", "z"]].to_numpy(float), name="pain52"
    )


def named_atlas(name: str) -> Atlas:
    """An atlas by name, all of them offline (`pain52`, `power264`, `dosenbach160`,
    `seitzman300`), or from a file.

    A file is a NIfTI image of labels (3-D) or probabilities (4-D) with its table beside
    it: `<stem>.tsv` with the columns index and name (BIDS `_dseg.tsv`). Its space is
    what its name says (space- or tpl-), MNI where it says nothing. Coordinates come
    from nilearn, which names their papers.
    """
    if name in _COORDINATES:
        return _COORDINATES[name]()
    path = Path(name)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(
            f"No atlas is called {name!r}. Known are {', '.join(_COORDINATES)}, or the "
            "path of a NIfTI image "
            "(.nii, .nii.gz) with its label table (.tsv) beside it."
        )
    return read_atlas(path)


def read_atlas(
    path: Path, table: Path | None = None
) -> LabelAtlas | ProbabilisticAtlas:
    """An atlas from a NIfTI image and its table (columns index and name; for maps, one
    row a map in order).

    Raises InputError for labels that are no whole numbers, image labels that the table
    does not name, or names given twice.
    """
    path = Path(path)
    stem = path.name.partition(".")[0]
    table = Path(table) if table else path.with_name(stem + ".tsv")
    rows = read_table(table)
    if (
        "name" not in rows
        or rows["name"].duplicated().any()
        or rows["name"].isna().any()
    ):
        raise InputError(
            f"{table}: expected a column `name` with a different name in every row "
            "(and `index`)."
        )
    names = tuple(rows["name"].astype(str))
    atlas = stem.partition("atlas-")[2].partition("_")[0] or stem
    space = (stem.partition("space-")[2] or stem.partition("tpl-")[2]).partition("_")[
        0
    ] or "MNI"
    if len(read_header(path).get_data_shape()) == 4:
        image = read_image(path, 4)
        maps = np.moveaxis(np.asarray(image.dataobj), -1, 0)
        if len(maps) != len(names):
            raise InputError(
                f"{path}: {len(maps)} maps, but {table.name} names {len(names)}."
            )
        if maps.min() < 0:
            raise InputError(
                f"{path}: probability maps may not be negative; the smallest value is "
                f"{maps.min():.3g}."
            )
        return ProbabilisticAtlas(names, maps, image.affine, atlas, space)
    image = read_image(path, 3)
    data = np.asarray(image.dataobj)
    if (data != np.round(data)).any() or "index" not in rows:
        raise InputError(
            f"{path}: expected whole-number labels, and their `index` in {table.name}."
        )
    labels = rows["index"].to_numpy()
    if not np.issubdtype(labels.dtype, np.integer) or len(set(labels)) != len(labels):
        raise InputError(
            f"{table}: `index` must be a different whole number in every row."
        )
    kept = labels != 0
    unnamed = sorted(set(np.unique(data).astype(int)) - set(labels.tolist()) - {0})
    if unnamed:
        raise InputError(
            f"{table}: does not name the label(s) {', '.join(map(str, unnamed[:8]))} "
            f"of {path.name}."
        )
    chosen = tuple(name for name, keep in zip(names, kept, strict=True) if keep)
    return LabelAtlas(
        chosen, labels[kept], data.astype(np.int32), image.affine, atlas, space
    )


def _centre(weight: np.ndarray, affine: np.ndarray) -> np.ndarray:
    if weight.sum() == 0:
        return np.full(3, np.nan)
    where = np.array(
        [(weight * axis).sum() / weight.sum() for axis in np.indices(weight.shape)]
    )
    return affine[:3, :3] @ where + affine[:3, 3]


def _power() -> SphereAtlas:
    from nilearn.datasets import fetch_coords_power_2011

    rois = fetch_coords_power_2011().rois
    names = tuple(f"power {number}" for number in rois["roi"])
    return SphereAtlas(names, rois[["x", "y", "z"]].to_numpy(float), 5.0, "power264")


def _dosenbach() -> SphereAtlas:
    from nilearn.datasets import fetch_coords_dosenbach_2010

    found = fetch_coords_dosenbach_2010()
    return SphereAtlas(
        tuple(map(str, found.labels)),
        found.rois[["x", "y", "z"]].to_numpy(float),
        5.0,
        "dosenbach160",
    )


def _seitzman() -> SphereAtlas:
    from nilearn.datasets import fetch_coords_seitzman_2018

    found = fetch_coords_seitzman_2018(ordered_regions=True)
    names = tuple(f"{net} {i + 1}" for i, net in enumerate(found.networks))
    radius = np.asarray(found.radius, dtype=float)
    return SphereAtlas(
        names, found.rois[["x", "y", "z"]].to_numpy(float), radius, "seitzman300"
    )


_COORDINATES = {
    "pain52": pain_atlas,
    "power264": _power,
    "dosenbach160": _dosenbach,
    "seitzman300": _seitzman,
}
