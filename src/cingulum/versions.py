"""The software that makes the numbers."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

PACKAGES = (
    "cingulum",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "nilearn",
    "nibabel",
    "neurokit2",
)


@cache
def packages() -> dict[str, str]:
    """Packages that numbers depend on to the last bit, with their versions."""
    return {name: version(name) for name in PACKAGES}


def versions() -> dict[str, str]:
    """Python and packages, for people."""
    return {"python": platform.python_version(), **packages()}
