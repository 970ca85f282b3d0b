"""The regions of a study: an atlas by name or from a file, or those of tables that
another pipeline wrote into the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cingulum.errors import InputError
from cingulum.io.bids_index import BidsFile, index
from cingulum.io.readers.aslprep import LABEL_COLUMNS, REGIONAL_FLOW
from cingulum.io.readers.xcpd import REGIONAL_SERIES, column_names
from cingulum.io.spaces import adult_mni
from cingulum.signals.atlas import (
    Atlas,
    NamedAtlas,
    is_image_name,
    named_atlas,
    read_atlas,
)
from cingulum.signals.atlas_names import ATLASES

KINDS = (REGIONAL_SERIES, REGIONAL_FLOW)
"""Tables whose columns are regions, in the order in which they are asked."""


def atlas_of_dataset(name: str, bids: Path, derivatives: Sequence[Path] = ()) -> Atlas:
    """An atlas by name, from an image, or by the label (`seg-`, `atlas-`) of tables in
    the dataset or its derivatives.

    Raises InputError, listing the labels that there are, where nothing has the name.
    """
    if name in ATLASES or is_image_name(name):
        return named_atlas(name)
    tables = dict(_tables(bids, derivatives))
    if name in tables:
        roots = index(bids, derivatives).roots
        return _with_positions(_regions(tables[name].path), name, roots)
    known = ", ".join(sorted(tables))
    if not known:
        # The error of an unknown name, which lists those that need no dataset.
        return named_atlas(name)
    raise InputError(
        f"No atlas is called {name!r}. The dataset has tables of {known}; known beside "
        f"them are {', '.join(ATLASES)}, or the path of a NIfTI image with its label "
        "table (.tsv) beside it."
    )


def _tables(bids: Path, derivatives: Sequence[Path]) -> Iterator[tuple[str, BidsFile]]:
    """The first table of each label."""
    dataset = index(bids, derivatives)
    seen = set()
    for kind in KINDS:
        for file in dataset.find(**kind.query):
            label = kind.label_of(file.entities)
            if label and label not in seen:
                seen.add(label)
                yield label, file


def _with_positions(
    regions: tuple[str, ...], name: str, roots: Sequence[Path]
) -> NamedAtlas:
    """Regions with their centres, where a dataset has an image that names them all."""
    for root in roots:
        # Where XCP-D, ASLPrep and QSIRecon copy what they parcellated with.
        for path in sorted(root.glob(f"atlases/**/*atlas-{name}_*dseg.nii.gz")):
            image = read_atlas(path)
            position = dict(zip(image.regions, image.centres, strict=True))
            if adult_mni(image.space) and set(regions) <= set(position):
                centres = np.stack([position[region] for region in regions])
                return NamedAtlas(regions, name, centres)
    return NamedAtlas.without_positions(regions, name)


def _regions(path: Path) -> tuple[str, ...]:
    return tuple(name for name in column_names(path) if name not in LABEL_COLUMNS)
