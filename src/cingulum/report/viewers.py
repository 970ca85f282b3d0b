"""Maps to slice with the mouse: nilearn's viewer, changed so that it runs inside a page
that trusts only scripts it knows."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from cingulum.report.plots import strongest_tenth

if TYPE_CHECKING:
    from nibabel import Nifti1Image

SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.S)

RANDOM_NAME = re.compile(r"-([0-9a-f]{32})\b")
"""nilearn names elements by random numbers."""


@dataclass(frozen=True)
class Viewer:
    """A document for a sandboxed frame: it requests nothing from the network, and its
    scripts are known by their hash."""

    html: str

    @property
    def hashes(self) -> list[str]:
        return list(map(script_hash, SCRIPT.findall(self.html)))


def script_hash(script: str) -> str:
    """A script as a content security policy names it."""
    digest = hashlib.sha256(script.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def policy(viewers: Iterable[Viewer]) -> str:
    """The content security policy of a page with these viewers: their scripts and
    inline styles, and nothing else."""
    # Sorted and each only once, so that the same page gives the same bytes.
    hashes: set[str] = set()
    for viewer in viewers:
        hashes.update(viewer.hashes)
    quoted = [f"'{script}'" for script in sorted(hashes)]
    scripts = " ".join(quoted) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src "
        "data:; base-uri 'none'; form-action 'none'"
    )


def brain_viewer(
    values: np.ndarray,
    affine: np.ndarray,
    threshold: float | None = None,
    *,
    resolution: int = 2,
) -> Viewer:
    """A map (x, y, z) on the standard brain; without a threshold, its strongest tenth
    of voxels.

    resolution: of the brain, mm; at 3 a viewer takes a third of the time and of the
        space that it takes at 2
    """
    # Imported where it is used: nilearn takes seconds to load.
    import nibabel as nib
    from nilearn.plotting import view_img

    if threshold is None:
        threshold = strongest_tenth(values)
    image = nib.Nifti1Image(values.astype(np.float32), affine)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        html = view_img(
            image,
            bg_img=_brain(resolution),
            threshold=threshold,
            cmap="RdBu_r",
            symmetric_cmap=True,
        ).html
    return Viewer(_self_contained(html))


@cache
def _brain(resolution: int) -> Nifti1Image:
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=resolution)


def _self_contained(html: str) -> str:
    # The only link is an icon that would be fetched from the network.
    html = re.sub(r"<link\b[^>]*>", "", html)
    html = _with_fixed_names(html)
    html = _with_descriptions(html)
    return html.replace("<head>", '<head><meta charset="utf-8">', 1)


def _with_fixed_names(html: str) -> str:
    """Elements numbered instead of named at random: the same map gives the same
    bytes."""
    random_names = dict.fromkeys(RANDOM_NAME.findall(html))
    for number, name in enumerate(random_names):
        html = html.replace(name, f"viewer{number}")
    return html


def _with_descriptions(html: str) -> str:
    """With words for screen readers."""
    html = html.replace(
        '<input type="range"', '<input type="range" aria-label="Opacity"'
    )
    # The first canvas shows the slices.
    return html.replace(
        "<canvas ", '<canvas role="img" aria-label="Three slices through the map" ', 1
    )
