"""Versions of the software that the numbers come from."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

# A new version of one of these may change a number in its last bits, so that cached
# measurements of another version are not used.
PACKAGES = (
    "cingulum",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "nilearn",
    "nibabel",
    "neurokit2",
    "numba",
    "llvmlite",
)


# Reading the metadata of a package takes milliseconds, and every cache key needs it.
@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on to the last bit."""
    return {name: _version_or_none(name) for name in PACKAGES}


def _version_or_none(name: str) -> str:
    # Some platforms have no llvmlite; equations then run in plain torch.
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages, for reports."""
    return {"python": platform.python_version(), **package_versions()}
