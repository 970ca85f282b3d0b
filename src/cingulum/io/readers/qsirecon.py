"""QSIRecon (and QSIPrep before it): connection weights of a visit by atlas and measure
in one `_connectivity.mat`, with the names of the regions.

Keys are `atlas_<atlas>_region_labels` and `atlas_<atlas>_<measure>_connectivity`, as
its documentation has them (connectivity_matrices).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cingulum.errors import InputError
from cingulum.io.files import parse_errors, read_bytes
from cingulum.io.readers.mat5 import Content, read_mat

MEASURES = (
    "sift_invnodevol_radius2_count",
    "sift_radius2_count",
    "invnodevol_radius2_count",
    "radius2_count",
)
"""Counts of streamlines in the order in which they are taken: weighted by SIFT2 first,
then by node volume."""

LABELS = re.compile(r"atlas_(?P<atlas>.+)_region_labels")


@dataclass(frozen=True, eq=False)
class MatConnectivity:
    """weights (region, region) of one measure of one atlas."""

    atlas: str
    measure: str
    regions: tuple[str, ...]
    weights: np.ndarray


def read_mat_connectivity(
    path: Path, atlas: str = "", regions: Sequence[str] | None = None
) -> MatConnectivity:
    """The weights of the atlas that has exactly these regions, in any order; else of
    the atlas with this name; else of the only one.

    Raises InputError for a file that is damaged, too large or of MATLAB 7.3, an atlas
    that it does not hold, and several measures of which none is a known count.
    """
    path = Path(path)
    content = read_bytes(path)
    with parse_errors(path, "MATLAB file of connectivity"):
        variables = read_mat(content)
    labels = _labels(variables)
    chosen = _chosen_atlas(path, labels, atlas, regions)
    measure = _chosen_measure(path, chosen, variables)
    weights = np.asarray(variables[f"atlas_{chosen}_{measure}_connectivity"], float)
    n = len(labels[chosen])
    if weights.shape != (n, n):
        raise InputError(
            f"{path}: {measure} of the atlas {chosen} has shape {weights.shape}; it "
            f"names {n} regions."
        )
    return MatConnectivity(chosen, measure, labels[chosen], weights)


def _labels(variables: Mapping[str, Content]) -> dict[str, tuple[str, ...]]:
    """Names of regions by atlas."""
    labels = {}
    for name, value in variables.items():
        match = LABELS.fullmatch(name)
        if match and isinstance(value, tuple):
            labels[match["atlas"]] = tuple(text.strip() for text in value)
    return labels


def _chosen_atlas(
    path: Path,
    labels: Mapping[str, tuple[str, ...]],
    atlas: str,
    regions: Sequence[str] | None,
) -> str:
    if not labels:
        raise InputError(
            f"{path}: expected names of regions, such as "
            "atlas_4S156Parcels_region_labels; it holds none."
        )
    if regions is not None:
        for name, own in labels.items():
            if set(own) == set(regions):
                return name
    if atlas in labels:
        return atlas
    if len(labels) == 1 and not atlas:
        return next(iter(labels))
    raise InputError(
        f"{path}: holds the atlases {', '.join(sorted(labels))}, none of them with the "
        f"regions of {atlas or 'yours'}. Choose one of them with --atlas."
    )


def _chosen_measure(path: Path, atlas: str, variables: Mapping[str, Content]) -> str:
    start, ending = f"atlas_{atlas}_", "_connectivity"
    measures = [
        name.removeprefix(start).removesuffix(ending)
        for name, value in variables.items()
        if name.startswith(start)
        and name.endswith(ending)
        and isinstance(value, np.ndarray)
    ]
    for known in MEASURES:
        if known in measures:
            return known
    if len(measures) == 1:
        return measures[0]
    raise InputError(
        f"{path}: holds the measures {', '.join(sorted(measures)) or 'none'} for the "
        f"atlas {atlas}; expected one of {', '.join(MEASURES)}. Write the one that you "
        "want as a table (names above) to …_connectivity.tsv."
    )
