"""Atlases: named regions as spheres, as a label image or as probability maps, in
millimetres of a standard space."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import JsonObject, read_table
from cingulum.io.images import read_header, read_image
from cingulum.io.spaces import adult_mni
from cingulum.signals.atlas_names import ATLASES


@dataclass(frozen=True, eq=False)
class SphereAtlas:
    """Regions as spheres around MNI coordinates: names, centres (region, 3) in mm,
    radius in mm (one for all, or one for each)."""

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
        # scipy.ndimage takes a moment to import, and few need the centres.
        from scipy.ndimage import center_of_mass

        present = np.isin(self.values, self.image)
        index = np.full((len(self.values), 3), np.nan)
        ones = np.ones(self.image.shape, np.float32)
        found = center_of_mass(ones, self.image, self.values[present])
        index[present] = np.reshape(found, (-1, 3))
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]


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


@dataclass(frozen=True, eq=False)
class NamedAtlas:
    """Regions of tables that other pipelines wrote: their names and, where the dataset
    has the image, their centres (region, 3), mm; NaN where they are not known."""

    regions: tuple[str, ...]
    name: str
    centres: np.ndarray
    space: str = ""

    @staticmethod
    def without_positions(regions: Sequence[str], name: str) -> NamedAtlas:
        unknown = np.full((len(regions), 3), np.nan)
        return NamedAtlas(tuple(regions), name, unknown)


Atlas = SphereAtlas | LabelAtlas | ProbabilisticAtlas | NamedAtlas


def _centre(weight: np.ndarray, affine: np.ndarray) -> np.ndarray:
    # A region may have lost all its voxels when its atlas was resampled.
    if weight.sum() == 0:
        return np.full(3, np.nan)
    return affine[:3, :3] @ _mean_index(weight) + affine[:3, 3]


def _mean_index(weight: np.ndarray) -> np.ndarray:
    """Centre of gravity (3,) in voxels."""
    total = weight.sum()
    axes = np.indices(weight.shape)
    return np.array([(weight * axis).sum() / total for axis in axes])


def check_space(atlas: Atlas, space: str, what: str) -> None:
    """Raises InputError where an atlas and an image do not lie in one space (a file
    without `space-` is in its own)."""
    if not is_same_space(atlas.space, space):
        raise InputError(
            f"{what}: lies in {space or 'native'} space, the regions of {atlas.name} "
            f"in {atlas.space}. Give it in adult MNI space (fMRIPrep: --output-spaces "
            "MNI152NLin2009cAsym), or an atlas named with the same space-."
        )


def is_of_tables(atlas: Atlas) -> bool:
    """Whether its regions are those of tables, and no voxels are looked up."""
    return isinstance(atlas, NamedAtlas)


def has_positions(atlas: Atlas) -> bool:
    """Whether it is known where in the brain all regions are."""
    return bool(np.isfinite(atlas.centres).all())


def is_same_space(first: str, second: str) -> bool:
    """Whether a position in mm is the same place in both spaces."""
    # Millimetres mean the same places in all adult MNI templates.
    return first == second or (adult_mni(first) and adult_mni(second))


def atlas_metadata(atlas: Atlas) -> JsonObject:
    """What sidecars say of an atlas: its name, its regions, and a hash of their
    positions, by which the same atlas is recognised."""
    return {
        "Atlas": atlas.name,
        "Regions": list(atlas.regions),
        "AtlasSHA256": _position_hash(atlas),
    }


def _position_hash(atlas: Atlas) -> str:
    digest = hashlib.sha256()
    for numbers in _positions(atlas):
        # As 64-bit numbers, so that the type of an image does not change the hash.
        digest.update(np.ascontiguousarray(numbers, dtype=float).tobytes())
    return digest.hexdigest()


def _positions(atlas: Atlas) -> Iterator[np.ndarray | float]:
    """Every field of an atlas that holds numbers."""
    for field in fields(atlas):
        value = getattr(atlas, field.name)
        if isinstance(value, np.ndarray | float | int):
            yield value


def named_atlas(name: str) -> Atlas:
    """An atlas by name (one of `ATLASES`, all of them offline), or from a file.

    A file is a NIfTI image of labels (3-D) or probabilities (4-D) with its table beside
    it: `<stem>.tsv` with the columns index and name or label (BIDS `_dseg.tsv`), or one
    for all spaces and resolutions, as AtlasPack has it. Its space is what its name says
    (space- or tpl-), MNI where it says nothing.
    """
    if name in _LOADERS:
        return _LOADERS[name](name)
    if not is_image_name(name):
        raise InputError(
            f"No atlas is called {name!r}. Known are {', '.join(ATLASES)}, or the path "
            "of a NIfTI image (.nii, .nii.gz) with its label table (.tsv) beside it."
        )
    return read_atlas(Path(name))


def is_image_name(name: str) -> bool:
    return name.endswith((".nii", ".nii.gz"))


def pain_atlas() -> SphereAtlas:
    """52 regions of the pain literature with MNI coordinates, the S1-back seeds of Lee
    et al. 2019 among them."""
    return _pain("pain52")


def _pain(name: str) -> SphereAtlas:
    with (files("cingulum") / "data" / f"{name}.tsv").open() as source:
        table = pd.read_csv(source, sep="\t")
    return SphereAtlas(tuple(table["name"]), _coordinates(table), name=name)


# Coordinates of the next three come with nilearn, whose documentation names the papers.
# Radii are those of the papers: 5 mm, or one for each region. nilearn takes a second to
# import and most studies use another atlas, so that it is imported inside functions.


def _power(name: str) -> SphereAtlas:
    from nilearn.datasets import fetch_coords_power_2011

    rois = fetch_coords_power_2011().rois
    regions = tuple(f"power {number}" for number in rois["roi"])
    return SphereAtlas(regions, _coordinates(rois), 5.0, name)


def _dosenbach(name: str) -> SphereAtlas:
    from nilearn.datasets import fetch_coords_dosenbach_2010

    atlas = fetch_coords_dosenbach_2010()
    regions = tuple(map(str, atlas.labels))
    return SphereAtlas(regions, _coordinates(atlas.rois), 5.0, name)


def _seitzman(name: str) -> SphereAtlas:
    from nilearn.datasets import fetch_coords_seitzman_2018

    atlas = fetch_coords_seitzman_2018(ordered_regions=True)
    regions = tuple(
        f"{network} {number}" for number, network in enumerate(atlas.networks, 1)
    )
    radii = np.asarray(atlas.radius, dtype=float)
    return SphereAtlas(regions, _coordinates(atlas.rois), radii, name)


def _coordinates(table: pd.DataFrame) -> np.ndarray:
    return table[["x", "y", "z"]].to_numpy(float)


_LOADERS: dict[str, Callable[[str], Atlas]] = {
    "pain52": _pain,
    "power264": _power,
    "dosenbach160": _dosenbach,
    "seitzman300": _seitzman,
}
"""How each named atlas is loaded; the loader is given the name. To add an atlas, add a
line, and its name to `ATLASES`."""


def read_atlas(
    path: Path, table: Path | None = None
) -> LabelAtlas | ProbabilisticAtlas:
    """An atlas from a NIfTI image and its table (columns index and name; for maps, one
    row per map in order).

    table: default, the .tsv beside the image
    Raises InputError for labels that are no whole numbers, image labels that the table
    does not name, or names that occur twice.
    """
    path = Path(path)
    table = Path(table) if table else _table_beside(path)
    source = _AtlasFile(path, table, _read_region_table(table))
    if len(read_header(path).get_data_shape()) == 4:
        return source.read_maps()
    return source.read_labels()


def _table_beside(path: Path) -> Path:
    # Both endings of .nii.gz at once.
    stem = path.name.partition(".")[0]
    own = path.with_name(stem + ".tsv")
    # AtlasPack writes one table for all spaces and resolutions.
    parts = [p for p in stem.split("_") if not p.startswith(("space-", "res-"))]
    common = path.with_name("_".join(parts) + ".tsv")
    return common if common.is_file() and not own.is_file() else own


def _read_region_table(path: Path) -> pd.DataFrame:
    rows = read_table(path)
    # AtlasPack and XCP-D call names labels.
    if "name" not in rows and "label" in rows:
        rows = rows.rename(columns={"label": "name"})
    if not _has_names(rows):
        raise InputError(
            f"{path}: expected a column `name` (or `label`) with a different name in "
            "every row (and `index`)."
        )
    return rows


def _has_names(rows: pd.DataFrame) -> bool:
    if "name" not in rows:
        return False
    names = rows["name"]
    return not names.duplicated().any() and not names.isna().any()


@dataclass(frozen=True)
class _AtlasFile:
    """An atlas on disk: its image, its table, and the rows of the table."""

    path: Path
    table: Path
    rows: pd.DataFrame

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(self.rows["name"].astype(str))

    @property
    def stem(self) -> str:
        return self.path.name.partition(".")[0]

    @property
    def name(self) -> str:
        return self.entity("atlas") or self.stem

    @property
    def space(self) -> str:
        # TemplateFlow calls the space of an atlas its template.
        return self.entity("space") or self.entity("tpl") or "MNI"

    def entity(self, key: str) -> str:
        """What the file's name gives for an entity, or an empty text."""
        return self.stem.partition(f"{key}-")[2].partition("_")[0]

    def read_maps(self) -> ProbabilisticAtlas:
        image = read_image(self.path, 4)
        # Region first, as everywhere else.
        maps = np.moveaxis(np.asarray(image.dataobj), -1, 0)
        self._check_maps(maps)
        return ProbabilisticAtlas(
            self.regions, maps, image.affine, self.name, self.space
        )

    def _check_maps(self, maps: np.ndarray) -> None:
        if len(maps) != len(self.regions):
            raise InputError(
                f"{self.path}: {len(maps)} maps, but {self.table.name} names "
                f"{len(self.regions)}."
            )
        if maps.min() < 0:
            raise InputError(
                f"{self.path}: probability maps may not be negative; the smallest "
                f"value is {maps.min():.3g}."
            )

    def read_labels(self) -> LabelAtlas:
        image = read_image(self.path, 3)
        voxels = np.asarray(image.dataobj)
        labels = self._labels(voxels)
        # Label 0 is the background in every program, even where a table names it.
        is_region = labels != 0
        names = np.array(self.regions, dtype=object)
        return LabelAtlas(
            tuple(names[is_region]),
            labels[is_region],
            voxels.astype(np.int32),
            image.affine,
            self.name,
            self.space,
        )

    def _labels(self, voxels: np.ndarray) -> np.ndarray:
        """The label of every row, checked against those of the image."""
        # Images of integers are often stored as floating-point numbers.
        if (voxels != np.round(voxels)).any() or "index" not in self.rows:
            raise InputError(
                f"{self.path}: expected whole-number labels, and their `index` in "
                f"{self.table.name}."
            )
        labels = self.rows["index"].to_numpy()
        self._check_different(labels)
        self._check_named(voxels, labels)
        return labels

    def _check_different(self, labels: np.ndarray) -> None:
        is_whole = np.issubdtype(labels.dtype, np.integer)
        if not is_whole or len(set(labels)) != len(labels):
            raise InputError(
                f"{self.table}: `index` must be a different whole number in every row."
            )

    def _check_named(self, voxels: np.ndarray, labels: np.ndarray) -> None:
        in_image = set(np.unique(voxels).astype(int))
        unnamed = sorted(in_image - set(labels.tolist()) - {0})
        if unnamed:
            raise InputError(
                f"{self.table}: does not name the label(s) "
                f"{', '.join(map(str, unnamed[:8]))} of {self.path.name}."
            )
