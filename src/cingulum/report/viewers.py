"""Maps to slice with the mouse: nilearn's viewer, made to run inside a page that trusts
only scripts it knows."""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

_SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.S)


@dataclass(frozen=True)
class Viewer:
    """A document for a sandboxed frame: it asks nothing of the network, and its scripts
    are known by their hash."""

    html: str

    @property
    def hashes(self) -> list[str]:
        return [script_hash(script) for script in _SCRIPT.findall(self.html)]


def script_hash(script: str) -> str:
    """A script as a content security policy names it."""
    return (
        "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    )


def policy(viewers: Iterable[Viewer]) -> str:
    """The content security policy of a page with these viewers: their scripts and
    inline styles, and nothing else."""
    known = sorted({one for viewer in viewers for one in viewer.hashes})
    scripts = " ".join(f"'{one}'" for one in known) or "'none'"
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src "
        "data:; base-uri 'none'; "
        "form-action 'none'"
    )


def brain_viewer(
    values: np.ndarray,
    affine: np.ndarray,
    threshold: float | None = None,
    *,
    resolution: int = 2,
) -> Viewer:
    """A map (x, y, z) on the standard brain; no threshold: its strongest tenth of
    voxels.

    resolution: of the brain, mm; at 3 a viewer takes a third of the time and of the
        space that it takes at 2
    """
    import nibabel as nib
    from nilearn.plotting import view_img

    strong = np.abs(values[values != 0])
    if threshold is None:
        threshold = float(np.quantile(strong, 0.9)) if strong.size else 0.0
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
    return Viewer(_tamed(html))


@cache
def _brain(resolution: int) -> Any:
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=resolution)


def _tamed(html: str) -> str:
    """Without the icon that nilearn fetches from the network, with names in place of
    random ones (the same map gives the same bytes), and with words for those who do not
    see it."""
    html = re.sub(r"<link\b[^>]*>", "", html)
    for i, name in enumerate(dict.fromkeys(re.findall(r"-([0-9a-f]{32})\b", html))):
        html = html.replace(name, f"viewer{i}")
    html = html.replace(
        '<input type="range"', '<input type="range" aria-label="Opacity"'
    )
    html = html.replace(
        "<canvas ", '<canvas role="img" aria-label="Three slices through the map" ', 1
    )
    return html.replace("<head>", '<head><meta charset="utf-8">', 1)
