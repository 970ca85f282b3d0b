"""Names of coordinate spaces, as fMRIPrep and TemplateFlow write them."""

from __future__ import annotations

from pathlib import Path


def adult_mni(space: str) -> bool:
    """Whether a space is one of the adult MNI templates, in which millimetres mean the
    same places to a voxel or so; MNIInfant and MNIPediatricAsym are not."""
    return space == "MNI" or space.startswith(("MNI152", "MNI305", "MNIColin27"))


def space_of(path: Path) -> str:
    """The space that a file's name gives (`space-…`), empty for native space."""
    return path.name.partition("space-")[2].partition("_")[0]
