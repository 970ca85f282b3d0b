"""Tables of clusters and peaks of a z-map, with the nearest region of an atlas."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from scipy.stats import norm

from cingulum.signals.atlas import Atlas, named_atlas

CLUSTER_COLUMNS = ["cluster", "x", "y", "z", "peak", "size_mm3"]
"""Our names of the columns of nilearn's table, in its order."""

COLUMNS = [*CLUSTER_COLUMNS, "region", "distance_mm"]


def peaks(
    z: np.ndarray,
    affine: np.ndarray,
    *,
    threshold: float = norm.isf(0.01),
    voxels: int = 10,
    atlas: str = "dosenbach160",
) -> pd.DataFrame:
    """Clusters of a z-map (x, y, z) in MNI space beyond ±threshold with more than so
    many voxels, and their peaks.

    Columns: cluster, x, y, z (mm), peak (z), size_mm3, region and distance_mm: the
    nearest region of the atlas (one of nilearn's coordinate atlases, or pain52), empty
    where the nearest is too far to name the peak after it.
    nilearn's `get_clusters_table` does the work.
    """
    z = np.nan_to_num(z)
    table = _clusters(z, affine, threshold, voxels)
    if not len(table):
        return pd.DataFrame(columns=COLUMNS)
    table.columns = CLUSTER_COLUMNS
    table = _with_regions(table, named_atlas(atlas))
    return table.sort_values("peak", key=np.abs, ascending=False).reset_index(drop=True)


FARTHEST_REGION = 8.0
"""mm from a region's centre up to which a peak is called after it."""


def _with_regions(table: pd.DataFrame, atlas: Atlas) -> pd.DataFrame:
    """The table with the nearest region of each peak."""
    positions = table[["x", "y", "z"]].to_numpy(float)
    distance = _distances(positions, np.asarray(atlas.centres))
    nearest = distance.argmin(1)
    away = distance.min(1)
    regions = [
        atlas.regions[i] if mm <= FARTHEST_REGION else ""
        for i, mm in zip(nearest, away, strict=True)
    ]
    return table.assign(region=regions, distance_mm=away.round(1))


def _is_exceeded(z: np.ndarray, threshold: float) -> bool:
    return bool(np.isfinite(threshold) and (np.abs(z) > threshold).any())


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between points (a, b) of two lists (point, 3), in mm."""
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def _clusters(
    z: np.ndarray, affine: np.ndarray, threshold: float, voxels: int
) -> pd.DataFrame:
    # nilearn takes neither an infinite threshold nor a map without any cluster.
    if not _is_exceeded(z, threshold):
        return pd.DataFrame()
    # Imported late: nilearn's reporting takes a second that most commands need not pay.
    import nibabel as nib
    from nilearn.reporting import get_clusters_table

    image = nib.Nifti1Image(z.astype(np.float32), affine)
    with warnings.catch_warnings():
        # It warns where one of the two signs has no cluster.
        warnings.simplefilter("ignore")
        return get_clusters_table(
            image, threshold, cluster_threshold=voxels, two_sided=True
        )
