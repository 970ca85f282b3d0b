"""Connectivity of a seed with every voxel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cingulum.errors import InputError
from cingulum.features.feature import Feature, Measurement
from cingulum.io.files import read_bytes
from cingulum.io.images import read_image
from cingulum.signals.atlas import SphereAtlas, check_space
from cingulum.signals.bold import Bold
from cingulum.signals.parcellation import sphere_mask
from cingulum.signals.visit_data import VisitData

S1_BACK = ((-18.0, -38.0, 72.0), (18.0, -38.0, 72.0))
"""Bilateral representation of the back in S1, MNI mm (Lee et al. 2019, supplement)."""

KINDS = {
    "effect": (
        "percent BOLD per seed SD",
        "regression estimate on the standardised mean seed signal",
    ),
    "correlation": ("1", "Pearson correlation with the mean seed signal"),
    "fisherz": (
        "1",
        "Fisher z (inverse hyperbolic tangent) of the correlation with the mean seed "
        "signal",
    ),
}


def seed_map(bold: Bold, seed: np.ndarray, kind: str = "effect") -> np.ndarray:
    """Connectivity (x, y, z) of every voxel with the mean raw signal of the voxels in
    `seed` (x, y, z), by KINDS.

    Zero outside the brain mask. Raises InputError when the seed has no varying signal.
    """
    signals, inside = bold.signals, seed[bold.mask]
    level = bold.level[inside, None]
    signal = (
        (signals[inside] * level).sum(0) / level.sum()
        if inside.any()
        else np.zeros(signals.shape[1])
    )
    if signal.std() < 1e-9:
        raise InputError(
            "The seed lies outside the brain mask or has a constant signal."
        )
    signal = (signal - signal.mean()) / signal.std()
    estimate = (signals @ signal) / len(signal)
    if kind != "effect":
        spread = signals.std(1, dtype=float)
        estimate = np.where(spread > 0, estimate / np.where(spread > 0, spread, 1), 0.0)
    if kind == "fisherz":
        estimate = np.arctanh(np.clip(estimate, -1 + 1e-12, 1 - 1e-12))
    found = np.zeros(bold.mask.shape)
    found[bold.mask] = estimate
    return found


class SeedConnectivity(Feature):
    """S1CONN of Lee et al. 2019, doi:10.1097/j.pain.0000000000001417: S1-back seed, two
    4 mm spheres as one.

    centres, radius: spheres, MNI mm; mask: a NIfTI image instead (non-zero voxels, on
        the grid of the BOLD runs)
    kind: effect (as published), correlation or fisherz; label: for file names
    """

    name: ClassVar = "s1conn"
    unit: ClassVar = "percent BOLD per seed SD"
    meaning: ClassVar = "connectivity of the back area of S1 with every voxel"
    needs: ClassVar = ("bold", "mask", "confounds")
    is_map: ClassVar = True

    def __init__(
        self,
        centres: Sequence[Sequence[float]] = S1_BACK,
        radius: float = 4.0,
        mask: Path | None = None,
        kind: str = "effect",
        label: str = "S1back",
    ) -> None:
        if kind not in KINDS:
            raise InputError(
                f"Unknown kind of seed connectivity {kind!r}. Known are "
                f"{', '.join(KINDS)}."
            )
        self.centres, self.radius, self.kind = centres, radius, kind
        self.mask = None if mask is None else Path(mask)
        self.file = f"func/{{visit}}_seed-{label}_stat-{kind}_boldmap.nii.gz"  # type: ignore[misc]
        self.unit = KINDS[kind][0]  # type: ignore[misc]

    def settings(self) -> Mapping[str, Any]:
        centres = [list(centre) for centre in self.centres]
        if (
            self.mask is not None
        ):  # by its name and content: a path would tell names, and content may change
            seed = {
                "SeedMask": self.mask.name,
                "SeedMaskSHA256": hashlib.sha256(read_bytes(self.mask)).hexdigest(),
            }
            return {**seed, "Kind": self.kind}
        return {"SeedCentres": centres, "SeedRadius": self.radius, "Kind": self.kind}

    def measure(self, opened: VisitData) -> Measurement:
        bold = opened.bold
        values = seed_map(bold, self._seed(bold), self.kind).astype(np.float32)
        return Measurement(
            values, bold.affine, {**bold.settings, "Statistic": KINDS[self.kind][1]}
        )

    def _seed(self, bold: Bold) -> np.ndarray:
        if self.mask is None:
            check_space(
                SphereAtlas((), np.empty((0, 3)), name="the seed"),
                bold.space,
                "The BOLD run",
            )
            return sphere_mask(self.centres, self.radius, bold.mask.shape, bold.affine)
        image = read_image(self.mask, 3)
        if image.shape != bold.mask.shape or not np.allclose(
            image.affine, bold.affine, atol=1e-3
        ):
            raise InputError(
                f"{self.mask.name}: its grid {image.shape} is not that of the BOLD run "
                f"{bold.mask.shape}."
            )
        return np.asarray(image.dataobj) != 0
