"""Regional signals: a coordinate atlas laid over a brain image, the full label list always returned."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
import torch

from cingulum.errors import InputError
from cingulum.timeseries import TimeSeries


@dataclass(frozen=True, eq=False)
class Atlas:
    """Regions as spheres around MNI coordinates: names, centres (region, 3) in mm, radius in mm."""

    regions: tuple[str, ...]
    centres: np.ndarray
    radius: float = 8.0


def pain_atlas() -> Atlas:
    """52 regions of the pain literature with MNI coordinates, the S1-back seeds of Lee et al. 2019 among them."""
    with (files("cingulum") / "data" / "pain52.tsv").open() as source:
        table = pd.read_csv(source, sep="\t")
    return Atlas(tuple(table["name"]), table[["x", "y", "z"]].to_numpy(float))


def voxel_centres(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """World coordinates (voxel, 3) in mm of every voxel of a grid, in C order."""
    index = np.indices(shape[:3]).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).T


def membership(atlas: Atlas, centres: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (region, voxel) that average each sphere over the voxels `inside`, and the coverage of each sphere.

    A voxel belongs to the nearest centre within the radius. Coverage is the share of a sphere's voxels that are
    inside; a region without any has coverage 0 and weights NaN: it is never dropped.
    """
    distance = np.linalg.norm(atlas.centres[:, None] - centres[None], axis=-1)
    mine = (distance <= atlas.radius) & (distance == distance.min(axis=0))
    kept = mine & inside
    with np.errstate(invalid="ignore", divide="ignore"):
        return kept / kept.sum(1, keepdims=True), kept.sum(1) / np.maximum(mine.sum(1), 1)


def parcellate(
    data: np.ndarray, affine: np.ndarray, inside: np.ndarray, tr: float, atlas: Atlas
) -> tuple[TimeSeries, pd.Series]:
    """Regional mean signals of a 4-D image, and the coverage of every region.

    data: (x, y, z, time); inside: (x, y, z) brain mask
    """
    weights, coverage = membership(atlas, voxel_centres(data.shape, affine), inside.ravel())
    signals = np.full((len(atlas.regions), data.shape[-1]), np.nan)
    seen = coverage > 0
    signals[seen] = weights[seen] @ data.reshape(-1, data.shape[-1])
    series = TimeSeries(torch.as_tensor(signals), tr, atlas.regions, "percent")
    return series, pd.Series(coverage, index=list(atlas.regions), name="coverage")


def sphere(centres: list[tuple[float, float, float]], radius: float, grid: Any, affine: np.ndarray) -> np.ndarray:
    """Mask (x, y, z) of the voxels whose centre lies within `radius` mm of any of the centres.

    On a grid coarser than the sphere the voxel that holds a centre is always included.
    Raises InputError for a centre outside the grid.
    """
    world = voxel_centres(grid, affine)
    distance = np.linalg.norm(world[None] - np.asarray(centres)[:, None], axis=-1)
    reach = np.linalg.norm(affine[:3, :3], axis=0).max()
    if (distance.min(1) > reach).any():
        raise InputError(f"Seed {centres} lies outside the image; is the image in MNI space?")
    nearest = distance == distance.min(1, keepdims=True)
    return ((distance <= radius) | nearest).any(0).reshape(grid)
