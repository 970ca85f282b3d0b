"""Regional signals: averages of voxels over the regions of an atlas, with the full list
of regions always returned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, singledispatch
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import map_coordinates
from scipy.sparse import csr_array, vstack
from scipy.spatial import cKDTree

from cingulum.errors import InputError
from cingulum.io.images import voxel_size
from cingulum.signals.atlas import (
    Atlas,
    LabelAtlas,
    NamedAtlas,
    ProbabilisticAtlas,
    SphereAtlas,
    check_space,
)
from cingulum.signals.bold import Bold
from cingulum.timeseries import TimeSeries

NO_VOXEL = -1
"""The running number of a voxel outside the mask or the image."""


NO_REGION = -1
"""The number of a label that no region has."""


class Membership(NamedTuple):
    """Weights (region, voxel inside) that average each region over a mask, and the
    share of each region's own volume (region,) that lies in the mask, 0 to 1."""

    weights: csr_array
    coverage: np.ndarray


class RegionalMeans(NamedTuple):
    """Means (region, …), NaN where a region has no voxel, and the coverage of every
    region, by name."""

    means: np.ndarray
    coverage: pd.Series


class RegionalSeries(NamedTuple):
    """Regional signals, and the coverage of every region, by name."""

    series: TimeSeries
    coverage: pd.Series


def voxel_centres(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """World coordinates (voxel, 3) in mm of every voxel of a grid, in C order."""
    index = np.indices(shape[:3]).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).T


def membership(atlas: Atlas, inside: np.ndarray, affine: np.ndarray) -> Membership:
    """Which voxels of a brain mask belong to which region, and how much of each region
    the mask covers.

    inside: (x, y, z) brain mask on the data's grid, which has `affine`
    A voxel takes the label, the probability or the nearest sphere at its centre; label
    images are looked up at the nearest voxel, as nilearn's label masker does. A region
    without a voxel has coverage 0 and no weight: its row is empty, never dropped.
    """
    # Arrays cannot be the key of a cache; their bytes can.
    mask = np.packbits(inside).tobytes()
    position = np.asarray(affine, dtype=float).tobytes()
    return _cached_membership(atlas, inside.shape, mask, position)


# The features of one visit share atlas and mask.
@lru_cache(maxsize=8)
def _cached_membership(
    atlas: Atlas, shape: tuple[int, ...], mask: bytes, position: bytes
) -> Membership:
    inside = _unpack_mask(mask, shape)
    affine = np.frombuffer(position).reshape(4, 4)
    weights, coverage = _raw_membership(atlas, inside, affine)
    # A region whose weights are all zero has no voxel, whatever its volume in the mask.
    has_voxel = _row_sums(weights) > 0
    return Membership(_with_unit_rows(weights), np.where(has_voxel, coverage, 0.0))


def _unpack_mask(mask: bytes, shape: tuple[int, ...]) -> np.ndarray:
    packed = np.frombuffer(mask, dtype=np.uint8)
    # The last byte may be padded, so the number of voxels is needed.
    bits = np.unpackbits(packed, count=int(np.prod(shape)))
    return bits.astype(bool).reshape(shape)


def _row_sums(weights: csr_array) -> np.ndarray:
    return np.asarray(weights.sum(1)).ravel()


def _with_unit_rows(weights: csr_array) -> csr_array:
    """Weights whose sum over voxels is 1 in every region that has one."""
    total = _row_sums(weights)
    divisor = np.where(total > 0, total, 1)
    return csr_array(weights.multiply(1 / divisor[:, None]))


def parcellate(
    signals: np.ndarray,
    inside: np.ndarray,
    affine: np.ndarray,
    atlas: Atlas,
    level: np.ndarray | None = None,
) -> RegionalMeans:
    """Regional means of the voxels inside a mask, and every coverage.

    signals: (voxel inside, …) in C order of `inside` (x, y, z)
    level: weight of every voxel, by default the same for all
    """
    weights, coverage = membership(atlas, inside, affine)
    if level is not None:
        weights = _with_unit_rows(csr_array(weights.multiply(level)))
    means = np.asarray(weights @ signals.astype(float))
    # An empty row would otherwise read as a mean of zero.
    means[coverage == 0] = np.nan
    return RegionalMeans(means, _named_coverage(atlas, coverage))


def _named_coverage(atlas: Atlas, coverage: np.ndarray) -> pd.Series:
    return pd.Series(coverage, index=list(atlas.regions), name="coverage")


def regional_series(bold: Bold, atlas: Atlas) -> RegionalSeries:
    """Regional signals of a cleaned BOLD run (percent of the region's mean signal), and
    the coverage of every region.

    Raises InputError where run and atlas lie in different spaces.
    """
    check_space(atlas, bold.space, "The BOLD run")
    means, coverage = parcellate(
        bold.signals, bold.mask, bold.affine, atlas, bold.level
    )
    series = TimeSeries(torch.as_tensor(means), bold.tr, atlas.regions, bold.unit)
    return RegionalSeries(series, coverage)


def sphere_mask(
    centres: Sequence[Sequence[float]],
    radius: float,
    grid: Sequence[int],
    affine: np.ndarray,
) -> np.ndarray:
    """Mask (x, y, z) of the voxels whose centre lies within `radius` mm of any of the
    centres.

    On a grid coarser than the sphere the voxel that holds a centre is always included.
    Raises InputError for a centre outside the grid.
    """
    world = voxel_centres(grid, affine)
    points = np.asarray(centres, dtype=float)
    # Distance (centre, voxel) between every pair.
    distance = np.linalg.norm(world[None] - points[:, None], axis=-1)
    smallest = distance.min(1, keepdims=True)
    _check_in_grid(centres, smallest, affine)
    within = (distance <= radius) | (distance == smallest)
    return within.any(0).reshape(grid)


def _check_in_grid(
    centres: Sequence[Sequence[float]], smallest: np.ndarray, affine: np.ndarray
) -> None:
    # A centre inside the grid has a voxel centre nearer than a voxel's edge is long.
    if (smallest > voxel_size(affine).max()).any():
        raise InputError(
            f"Seed {centres} lies outside the image; is the image in MNI space?"
        )


@singledispatch
def _raw_membership(
    atlas: object, inside: np.ndarray, affine: np.ndarray
) -> Membership:
    """Weights before they are scaled to averages, and coverage: one function for each
    kind of atlas."""
    raise TypeError(f"expected an atlas; got {type(atlas).__name__}")


@_raw_membership.register
def _no_membership(
    atlas: NamedAtlas, inside: np.ndarray, affine: np.ndarray
) -> Membership:
    raise InputError(
        f"{atlas.name}: only the names of its regions are known, from tables in the "
        "dataset, and not where they are. Give its image with --atlas."
    )


@_raw_membership.register
def _sphere_membership(
    atlas: SphereAtlas, inside: np.ndarray, affine: np.ndarray
) -> Membership:
    spheres = _Spheres(atlas, affine)
    numbers = _running_numbers(inside)
    coverage = np.zeros(len(atlas.regions))
    columns = []
    for region in range(len(atlas.regions)):
        voxels = _values_at(numbers, spheres.voxels(region), outside=NO_VOXEL)
        in_mask = voxels != NO_VOXEL
        columns.append(voxels[in_mask])
        # A sphere between the centres of large voxels has none.
        if len(voxels) > 0:
            coverage[region] = in_mask.mean()
    return Membership(_rows_of_ones(columns, int(inside.sum())), coverage)


def _rows_of_ones(columns: Sequence[np.ndarray], width: int) -> csr_array:
    """A sparse matrix whose row i has 1 in columns[i]."""
    counts = list(map(len, columns))
    rows = np.repeat(np.arange(len(counts)), counts)
    return _indicator(rows, np.concatenate(columns), (len(counts), width))


class _Spheres:
    """The spheres of an atlas on the grid of an image; where they overlap, a voxel
    belongs to the nearest centre."""

    def __init__(self, atlas: SphereAtlas, affine: np.ndarray) -> None:
        radius = np.asarray(atlas.radius, dtype=float)
        self.radii = np.broadcast_to(radius, len(atlas.regions))
        self.centres = atlas.centres
        self.tree = cKDTree(atlas.centres)
        self.affine = affine

    def voxels(self, region: int) -> np.ndarray:
        """Voxel indices (voxel, 3) of a region, beyond the image's edges too."""
        index = self._box(region)
        return index[self._belongs(index, region)]

    def _belongs(self, index: np.ndarray, region: int) -> np.ndarray:
        """Which voxels are in a region's sphere and nearest to its centre."""
        world = index @ self.affine[:3, :3].T + self.affine[:3, 3]
        distance = np.linalg.norm(world - self.centres[region], axis=1)
        is_nearest = self.tree.query(world)[1] == region
        return (distance <= self.radii[region]) & is_nearest

    def _box(self, region: int) -> np.ndarray:
        """Indices (voxel, 3) of a box that surely holds the sphere: testing every voxel
        of the image would take a hundred times longer."""
        centre = np.linalg.solve(self.affine, [*self.centres[region], 1.0])[:3]
        # One more, since the centre is rounded to a voxel.
        reach = np.ceil(self.radii[region] / voxel_size(self.affine)).astype(int) + 1
        return np.round(centre).astype(int) + _offsets(reach)


@_raw_membership.register
def _label_membership(
    atlas: LabelAtlas, inside: np.ndarray, affine: np.ndarray
) -> Membership:
    weights = _label_weights(atlas, inside, affine)
    return Membership(weights, _label_coverage(atlas, inside, affine))


def _label_weights(
    atlas: LabelAtlas, inside: np.ndarray, affine: np.ndarray
) -> csr_array:
    index = _nearest_index(np.argwhere(inside), affine, atlas.affine)
    labels = _values_at(atlas.image, index, outside=0)
    regions = _region_of_label(labels, atlas.values)
    columns = np.flatnonzero(regions != NO_REGION)
    shape = (len(atlas.values), len(labels))
    return _indicator(regions[columns], columns, shape)


def _region_of_label(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The region that has each label as its value, NO_REGION for other labels."""
    regions = _nearest_above(labels, values)
    return np.where(values[regions] == labels, regions, NO_REGION)


def _nearest_above(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The region with the smallest value that is not below each label."""
    order = np.argsort(values)
    position = np.searchsorted(values[order], labels)
    # A label above all others would be looked up behind the end.
    return order[position.clip(max=len(order) - 1)]


def _label_coverage(
    atlas: LabelAtlas, inside: np.ndarray, affine: np.ndarray
) -> np.ndarray:
    # On the atlas's own grid, so that parts outside the image count as not covered.
    points = np.argwhere(np.isin(atlas.image, atlas.values))
    labels = atlas.image[tuple(points.T)]
    in_mask = _is_inside(points, atlas.affine, inside, affine)
    covered = _counts(labels[in_mask], atlas.values)
    return covered / np.maximum(_counts(labels, atlas.values), 1)


def _is_inside(
    points: np.ndarray, own: np.ndarray, inside: np.ndarray, affine: np.ndarray
) -> np.ndarray:
    """Which voxels (voxel, 3) of a grid with the affine `own` lie in a mask."""
    index = _nearest_index(points, own, affine)
    return _values_at(inside, index, outside=False)


def _counts(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How often each value occurs."""
    return np.array([(labels == value).sum() for value in values])


@_raw_membership.register
def _probability_membership(
    atlas: ProbabilisticAtlas, inside: np.ndarray, affine: np.ndarray
) -> Membership:
    weights = _probability_weights(atlas, inside, affine)
    # Sums over voxels of different size are compared as volumes.
    covered = np.array([row.sum() for row in weights])
    covered = covered * abs(_voxel_volume(affine) / _voxel_volume(atlas.affine))
    total = atlas.image.reshape(len(atlas.image), -1).sum(1)
    coverage = covered / np.where(total > 0, total, 1)
    # Interpolation can give a little more than there is.
    return Membership(csr_array(vstack(weights)), np.clip(coverage, 0, 1))


def _voxel_volume(affine: np.ndarray) -> float:
    """mm³, negative where the axes are left-handed."""
    return np.linalg.det(affine[:3, :3])


def _probability_weights(
    atlas: ProbabilisticAtlas, inside: np.ndarray, affine: np.ndarray
) -> list[csr_array]:
    """The row of every region: its probability at the voxels of the mask."""
    points = _fractional_index(np.argwhere(inside), affine, atlas.affine).T
    return [_interpolated_row(image, points) for image in atlas.image]


def _interpolated_row(image: np.ndarray, points: np.ndarray) -> csr_array:
    # Probability is zero beyond the edges of the image.
    values = map_coordinates(image, points, order=1, mode="constant")
    return csr_array(values[None])


def _offsets(reach: np.ndarray) -> np.ndarray:
    """Every index (voxel, 3) from −reach to reach (3,)."""
    ranges = [np.arange(-steps, steps + 1) for steps in reach]
    return np.stack(np.meshgrid(*ranges, indexing="ij"), -1).reshape(-1, 3)


def _indicator(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]
) -> csr_array:
    """A sparse matrix with 1 at these positions."""
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)


def _fractional_index(
    index: np.ndarray, affine: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Where voxels (voxel, 3) of one grid lie in another, as fractional voxel
    indices."""
    transform = np.linalg.inv(other) @ affine
    return index @ transform[:3, :3].T + transform[:3, 3]


def _nearest_index(
    index: np.ndarray, affine: np.ndarray, other: np.ndarray
) -> np.ndarray:
    return np.round(_fractional_index(index, affine, other)).astype(int)


def _running_numbers(inside: np.ndarray) -> np.ndarray:
    """The running number of every voxel inside a mask, NO_VOXEL outside."""
    numbers = np.full(inside.shape, NO_VOXEL)
    # In C order, in which `signals[inside]` lists voxels.
    numbers[inside] = np.arange(inside.sum())
    return numbers


def _values_at(image: np.ndarray, index: np.ndarray, outside: int) -> np.ndarray:
    """Values of an image at voxel indices (voxel, 3); `outside` beyond its edges."""
    in_image = _in_image(index, image.shape)
    values = np.full(len(index), outside, dtype=image.dtype)
    values[in_image] = image[tuple(index[in_image].T)]
    return values


def _in_image(index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    # A negative index would silently count from the other end.
    return np.all((index >= 0) & (index < shape), axis=1)
