"""The connection weights of a visit's own tractography."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cingulum.errors import InputError
from cingulum.io.files import read_square_matrix
from cingulum.io.readers.qsirecon import read_mat_connectivity
from cingulum.io.recording_kinds import CONNECTOME
from cingulum.signals.regional_signals import check_same_regions

if TYPE_CHECKING:
    from cingulum.io.visit import Visit
    from cingulum.signals.atlas import Atlas


def own_connectome(visit: Visit, atlas: Atlas) -> np.ndarray | None:
    """Weights (region, region) in the order of an atlas, where the derivatives of a
    visit hold them: by name where the file has names, else in the order of the atlas.

    Raises InputError for other regions, or another number of them.
    """
    if not visit.has(CONNECTOME.name):
        return None
    path = visit[CONNECTOME.name]
    weights, regions = _read(path, atlas)
    if regions is not None:
        return _in_order(path, weights, regions, atlas)
    n = len(atlas.regions)
    if weights.shape != (n, n):
        raise InputError(
            f"{path}: expected {n} × {n} weights, in the order of {atlas.name}; got "
            f"{weights.shape}. A first row of names would tell the order."
        )
    return weights


def _read(path: Path, atlas: Atlas) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if path.suffix != ".mat":
        return read_square_matrix(path)
    read = read_mat_connectivity(path, atlas.name, atlas.regions)
    return read.weights, read.regions


def _in_order(
    path: Path, weights: np.ndarray, regions: tuple[str, ...], atlas: Atlas
) -> np.ndarray:
    # Never by order alone.
    check_same_regions(path, regions, atlas)
    order = [regions.index(region) for region in atlas.regions]
    return weights[np.ix_(order, order)]
