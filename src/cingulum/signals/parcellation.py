"""Regional signals: an atlas laid over a brain image, the full list of regions always
returned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import map_coordinates
from scipy.sparse import csr_array, vstack
from scipy.spatial import cKDTree

from cingulum.errors import InputError
from cingulum.signals.atlas import (
    Atlas,
    LabelAtlas,
    ProbabilisticAtlas,
    SphereAtlas,
    check_space,
)
from cingulum.timeseries import TimeSeries


def voxel_centres(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World coordinates (voxel, 3) in mm of every voxel of a grid, in C order."""
    index = np.indices(shape[:3]).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).T


def membership(
    atlas: Atlas, inside: np.ndarray, affine: np.ndarray
) -> tuple[csr_array, np.ndarray]:
    """Weights (region, voxel inside) that average each region over the mask, and the
    coverage of each region.

    inside: (x, y, z) brain mask on the data's grid, which has `affine`
    A voxel takes the label, the probability or the nearest sphere at its centre; label
    images are looked up at the nearest voxel, as nilearn's label masker does. Coverage
    (0 to 1) is the share of the region's own volume that lies in the mask. A region
    without a voxel has coverage 0 and no weight: its row is empty, never dropped.
    """
    return _laid(
        atlas,
        inside.shape,
        np.packbits(inside).tobytes(),
        np.asarray(affine, dtype=float).tobytes(),
    )


@lru_cache(maxsize=8)  # the features of one visit share atlas and mask
def _laid(
    atlas: Atlas, shape: tuple[int, ...], mask: bytes, where: bytes
) -> tuple[csr_array, np.ndarray]:
    packed = np.frombuffer(mask, dtype=np.uint8)
    inside = (
        np.unpackbits(packed, count=int(np.prod(shape))).astype(bool).reshape(shape)
    )
    lay = {SphereAtlas: _spheres, LabelAtlas: _labels, ProbabilisticAtlas: _maps}[
        type(atlas)
    ]
    weights, coverage = lay(atlas, inside, np.frombuffer(where).reshape(4, 4))  # type: ignore[operator]
    total = np.asarray(weights.sum(1)).ravel()
    scaled = weights.multiply(1 / np.where(total > 0, total, 1)[:, None])
    return csr_array(scaled), np.where(total > 0, coverage, 0.0)


def parcellate(
    signals: np.ndarray,
    inside: np.ndarray,
    affine: np.ndarray,
    atlas: Atlas,
    level: np.ndarray | None = None,
) -> tuple[np.ndarray, pd.Series]:
    """Regional means (region, …) of the voxels inside a mask, NaN where a region has
    none, and every coverage.

    signals: (voxel inside, …) in C order of `inside` (x, y, z); level: weight of every
        voxel, default all alike
    """
    weights, coverage = membership(atlas, inside, affine)
    if level is not None:
        weights = csr_array(weights.multiply(level))
        total = np.asarray(weights.sum(1)).ravel()
        weights = csr_array(
            weights.multiply(1 / np.where(total > 0, total, 1)[:, None])
        )
    means = np.asarray(weights @ signals.astype(float))
    means[coverage == 0] = np.nan
    return means, pd.Series(coverage, index=list(atlas.regions), name="coverage")


def regional_series(bold: Any, atlas: Atlas) -> tuple[TimeSeries, pd.Series]:
    """Regional signals of a cleaned BOLD run (percent of the region's mean signal), and
    the coverage of every region.

    Raises InputError where run and atlas lie in different spaces.
    """
    check_space(atlas, bold.space, "The BOLD run")
    means, coverage = parcellate(
        bold.signals, bold.mask, bold.affine, atlas, bold.level
    )
    return TimeSeries(
        torch.as_tensor(means), bold.tr, atlas.regions, "percent"
    ), coverage


def sphere(
    centres: Sequence[Sequence[float]], radius: float, grid: Any, affine: np.ndarray
) -> np.ndarray:
    """Mask (x, y, z) of the voxels whose centre lies within `radius` mm of any of the
    centres.

    On a grid coarser than the sphere the voxel that holds a centre is always included.
    Raises InputError for a centre outside the grid.
    """
    world = voxel_centres(grid, affine)
    distance = np.linalg.norm(
        world[None] - np.asarray(centres, dtype=float)[:, None], axis=-1
    )
    reach = np.linalg.norm(affine[:3, :3], axis=0).max()
    if (distance.min(1) > reach).any():
        raise InputError(
            f"Seed {centres} lies outside the image; is the image in MNI space?"
        )
    nearest = distance == distance.min(1, keepdims=True)
    return ((distance <= radius) | nearest).any(0).reshape(grid)


def _spheres(
    atlas: SphereAtlas, inside: np.ndarray, affine: np.ndarray
) -> tuple[csr_array, np.ndarray]:
    tree, number = cKDTree(atlas.centres), _numbers(inside)
    radii = np.broadcast_to(np.asarray(atlas.radius, dtype=float), len(atlas.regions))
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    rows, columns, coverage = [], [], np.zeros(len(atlas.regions))
    for region, (centre, radius) in enumerate(zip(atlas.centres, radii, strict=True)):
        middle = np.linalg.solve(affine, [*centre, 1.0])[:3]
        reach = np.ceil(radius / zooms).astype(int) + 1
        steps = np.stack(
            np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), -1
        ).reshape(-1, 3)
        index = np.round(middle).astype(int) + steps
        world = index @ affine[:3, :3].T + affine[:3, 3]
        mine = np.linalg.norm(world - centre, axis=1) <= radius
        mine &= tree.query(world)[1] == region
        seen = _at(number, index[mine])
        rows.append(np.full((seen >= 0).sum(), region))
        columns.append(seen[seen >= 0])
        coverage[region] = (seen >= 0).mean() if mine.any() else 0.0
    shape = (len(atlas.regions), int(inside.sum()))
    where = (np.concatenate(rows), np.concatenate(columns))
    return csr_array((np.ones(len(where[0])), where), shape=shape), coverage


def _labels(
    atlas: LabelAtlas, inside: np.ndarray, affine: np.ndarray
) -> tuple[csr_array, np.ndarray]:
    order = np.argsort(atlas.values)
    own = np.round(_other_index(np.argwhere(inside), affine, atlas.affine)).astype(int)
    value = _at(atlas.image, own, outside=0)
    place = np.searchsorted(atlas.values[order], value).clip(max=len(order) - 1)
    known = atlas.values[order][place] == value
    rows, columns = order[place[known]], np.flatnonzero(known)
    weights = csr_array(
        (np.ones(len(rows)), (rows, columns)), shape=(len(order), len(value))
    )
    points = np.argwhere(np.isin(atlas.image, atlas.values))
    marks = atlas.image[tuple(points.T)]
    back = np.round(_other_index(points, atlas.affine, affine)).astype(int)
    seen = _at(inside, back, outside=False)
    total = np.array([(marks == v).sum() for v in atlas.values])
    found = np.array([(marks[seen] == v).sum() for v in atlas.values])
    return weights, found / np.maximum(total, 1)


def _maps(
    atlas: ProbabilisticAtlas, inside: np.ndarray, affine: np.ndarray
) -> tuple[csr_array, np.ndarray]:
    where = _other_index(np.argwhere(inside), affine, atlas.affine).T
    rows = [
        csr_array(map_coordinates(one, where, order=1, mode="constant")[None])
        for one in atlas.image
    ]
    scale = abs(np.linalg.det(affine[:3, :3]) / np.linalg.det(atlas.affine[:3, :3]))
    total = atlas.image.reshape(len(rows), -1).sum(1)
    found = np.array([row.sum() for row in rows]) * scale
    return csr_array(vstack(rows)), np.clip(found / np.where(total > 0, total, 1), 0, 1)


def _other_index(
    index: np.ndarray, affine: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Where voxels (voxel, 3) of one grid lie in another, as fractional voxel
    indices."""
    turn = np.linalg.inv(other) @ affine
    return index @ turn[:3, :3].T + turn[:3, 3]


def _numbers(inside: np.ndarray) -> np.ndarray:
    """The running number of every voxel inside a mask, −1 outside."""
    number = np.full(inside.shape, -1)
    number[inside] = np.arange(inside.sum())
    return number


def _at(image: np.ndarray, index: np.ndarray, outside: Any = -1) -> np.ndarray:
    """Values of an image at voxel indices (voxel, 3); `outside` beyond its edges."""
    fits = ((index >= 0) & (index < image.shape)).all(1)
    found = np.full(len(index), outside, dtype=image.dtype)
    found[fits] = image[tuple(index[fits].T)]
    return found
