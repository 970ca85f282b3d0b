"""The regions of a study: an atlas by name or from a file, or those of tables that
another pipeline wrote into the dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cingulum.errors import InputError
from cingulum.io.bids_index import BidsFile, index
from cingulum.io.readers.aslprep import LABEL_COLUMNS, REGIONAL_FLOW
from cingulum.io.readers.xcpd import REGIONAL_SERIES, column_names
from cingulum.signals.atlas import Atlas, NamedAtlas, is_image_name, named_atlas
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
        return NamedAtlas(_regions(tables[name].path), name)
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


def _regions(path: Path) -> tuple[str, ...]:
    return tuple(name for name in column_names(path) if name not in LABEL_COLUMNS)
