"""Names of coordinate spaces, as fMRIPrep and TemplateFlow write them."""

from __future__ import annotations


def adult_mni(space: str) -> bool:
    """Whether a space is one of the adult MNI templates, in which millimetres mean the
    same places to a voxel or so; MNIInfant and MNIPediatricAsym are not."""
    return space == "MNI" or space.startswith(("MNI152", "MNI305", "MNIColin27"))
