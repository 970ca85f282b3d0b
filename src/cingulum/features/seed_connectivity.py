"""Connectivity of a seed with every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cingulum.errors import InputError
from cingulum.features.feature import (
    Feature,
    FeatureOption,
    FeatureOptions,
    Measurement,
    Role,
    Settings,
    StudyRecipe,
)
from cingulum.features.recordings_of_regions import run_recordings
from cingulum.features.registry import register_feature
from cingulum.features.run_combination import (
    DESCRIPTIONS,
    RunCombination,
    combined_correlations,
    combined_measurement,
    volumes_of,
    weighted_mean,
)
from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK

if TYPE_CHECKING:
    import numpy as np

    from cingulum.io.visit import Visit
    from cingulum.signals.bold import Bold
    from cingulum.signals.visit_data import VisitData

S1_BACK = ((-18.0, -38.0, 72.0), (18.0, -38.0, 72.0))
"""Bilateral representation of the back in S1, MNI mm (Lee et al. 2019, supplement)."""

DEFAULT_RADIUS = 4.0
"""mm, as published."""

LARGEST_RADIUS = 50
"""mm: no area of the cortex is larger, so that a larger number is a mistake."""


class Statistic(NamedTuple):
    """What a seed map shows at every voxel."""

    unit: str
    meaning: str


STATISTICS = {
    "effect": Statistic(
        "percent BOLD per seed SD",
        "regression estimate on the standardised mean seed signal",
    ),
    "correlation": Statistic("1", "Pearson correlation with the mean seed signal"),
    "fisherz": Statistic(
        "1",
        "Fisher z (inverse hyperbolic tangent) of the correlation with the mean seed "
        "signal",
    ),
}


@register_feature
class SeedConnectivity(Feature):
    """S1CONN of Lee et al. 2019, doi:10.1097/j.pain.0000000000001417: the seed is two
    4 mm spheres on the back area of S1.

    centres, radius: spheres, MNI mm
    mask: a NIfTI image instead (non-zero voxels, on the grid of the BOLD runs)
    kind: effect (as published), correlation or fisherz
    label: of the seed, for file names
    """

    name = "s1conn"
    label = "S1-back connectivity (BOLD)"
    summary = "map: connectivity of the back area of S1 with every voxel"
    unit = "percent BOLD per seed SD"
    signature_unit = "regression estimate"
    meaning = "connectivity of the back area of S1 with every voxel"
    needs = (BOLD, MASK, CONFOUNDS)
    file = "func/{visit}_seed-S1back_stat-effect_boldmap.nii.gz"
    role = Role.PREDICTOR
    chosen_by_default = True
    is_map = True
    colour = "#1f5f8b"
    options = (
        FeatureOption(
            "seed",
            "centre of the seed of s1conn, MNI mm; may be repeated (default: the back "
            "area of S1, both sides)",
            parse=float,
            metavar=("X", "Y", "Z"),
            values=3,
            repeatable=True,
        ),
        FeatureOption(
            "seed_radius", "", default=DEFAULT_RADIUS, parse=float, metavar="MM"
        ),
        FeatureOption(
            "seed_mask",
            "NIfTI mask as seed, on the grid of the BOLD runs",
            parse=Path,
            metavar="FILE",
        ),
        FeatureOption(
            "seed_label",
            "of the seed, for file names: letters and digits",
            metavar="NAME",
        ),
        FeatureOption(
            "seed_kind",
            "statistic of the seed map",
            default="effect",
            choices=tuple(STATISTICS),
        ),
    )
    references = ("abraham2014",)

    def __init__(
        self,
        centres: Sequence[Sequence[float]] = S1_BACK,
        radius: float = DEFAULT_RADIUS,
        mask: Path | None = None,
        kind: str = "effect",
        label: str = "S1back",
    ) -> None:
        if kind not in STATISTICS:
            raise InputError(
                f"Unknown kind of seed connectivity {kind!r}. Known are "
                f"{', '.join(STATISTICS)}."
            )
        self.centres = centres
        self.radius = radius
        self.kind = kind
        self.mask = None if mask is None else Path(mask)
        # Seed and statistic in the name, so that maps of several seeds can be kept.
        self.file = f"func/{{visit}}_seed-{label}_stat-{kind}_boldmap.nii.gz"
        self.unit = STATISTICS[kind].unit

    @classmethod
    def from_options(cls, options: FeatureOptions) -> SeedConnectivity:
        values = options.values
        radius = values.get("seed_radius", DEFAULT_RADIUS)
        _check_radius(radius)
        return cls(
            values.get("seed") or S1_BACK,
            radius,
            values.get("seed_mask"),
            values.get("seed_kind", "effect"),
            _seed_label(values),
        )

    def settings(self) -> Settings:
        if self.mask is not None:
            return {**self._mask_settings(self.mask), "Kind": self.kind}
        return {**self._sphere_settings(), "Kind": self.kind}

    def _sphere_settings(self) -> Settings:
        # Lists, because JSON gives tuples back as lists.
        centres = [list(centre) for centre in self.centres]
        return {"SeedCentres": centres, "SeedRadius": self.radius}

    def _mask_settings(self, mask: Path) -> Settings:
        """A mask by its name and content: a path would reveal names of people, and the
        content may change."""
        import hashlib

        from cingulum.io.files import read_bytes

        digest = hashlib.sha256(read_bytes(mask)).hexdigest()
        return {"SeedMask": mask.name, "SeedMaskSHA256": digest}

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return run_recordings(visit)

    def measure(self, data: VisitData) -> Measurement:
        import numpy as np

        bold = data.bold
        if self.kind == "effect" and bold.unit != "percent":
            raise InputError(
                f"{data.visit['bold']}: was cleaned down to a mean of zero, so that "
                "there is no percent of BOLD. Ask for --seed-kind correlation or "
                "fisherz."
            )
        # Half the size on disk, and still more digits than a map is good for.
        values = seed_map(bold, self._seed(bold), self.kind).astype(np.float32)
        details = {**bold.settings, "Statistic": STATISTICS[self.kind].meaning}
        return Measurement(values, bold.affine, details)

    def combine_runs(
        self, runs: Sequence[Measurement], method: RunCombination
    ) -> Measurement:
        import numpy as np

        # Seeds are standardised within their run, so that estimates of joined runs are
        # means, too; Fisher z of the seed's kinds are what `fisherz` maps hold already.
        maps = [_without_outside(run.values) for run in runs]
        volumes = [volumes_of(run) for run in runs]
        if self.kind == "correlation":
            combined = combined_correlations(maps, volumes, method)
            description = DESCRIPTIONS[method]
        else:
            combined = weighted_mean(maps, volumes)
            description = "mean of the runs' maps, weighted by kept volumes"
        values = np.nan_to_num(combined).astype(np.float32)
        return combined_measurement(runs, values, description)

    def _seed(self, bold: Bold) -> np.ndarray:
        """Voxels of the seed (x, y, z) on the grid of the run."""
        if self.mask is None:
            return self._spheres(bold)
        return self._masked(self.mask, bold)

    def _spheres(self, bold: Bold) -> np.ndarray:
        import numpy as np

        from cingulum.signals.atlas import SphereAtlas, check_space
        from cingulum.signals.parcellation import sphere_mask

        # Coordinates are in MNI space: in any other they would name other places.
        in_mni = SphereAtlas((), np.empty((0, 3)), name="the seed")
        check_space(in_mni, bold.space, "The BOLD run")
        return sphere_mask(self.centres, self.radius, bold.mask.shape, bold.affine)

    def _masked(self, mask: Path, bold: Bold) -> np.ndarray:
        import numpy as np

        from cingulum.io.images import read_image

        image = read_image(mask, 3)
        same_shape = image.shape == bold.mask.shape
        if not same_shape or not np.allclose(image.affine, bold.affine, atol=1e-3):
            raise InputError(
                f"{mask.name}: its grid {image.shape} is not that of the BOLD run "
                f"{bold.mask.shape}."
            )
        return np.asarray(image.dataobj) != 0

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        return (
            "S1-back connectivity: preprocessed BOLD in percent of the voxel mean; "
            f"nuisance regression with nilearn's {recipe.denoising}; regression "
            "estimate of the standardised mean signal of two 4 mm spheres at MNI ±18, "
            "−38, 72 (Lee et al. 2019, doi:10.1097/j.pain.0000000000001417) at every "
            "voxel."
        )


def _seed_label(values: Settings) -> str:
    """The name of the seed in file names."""
    is_own = values.get("seed") or values.get("seed_mask")
    label = values.get("seed_label") or ("seed" if is_own else "S1back")
    # Other characters separate the parts of a BIDS file name.
    if not label.isalnum():
        raise InputError(f"--seed-label takes letters and digits; got {label!r}.")
    return label


def _check_radius(radius: float) -> None:
    if not 0 < radius <= LARGEST_RADIUS:
        raise InputError(
            f"--seed-radius is a length in mm, above 0 to {LARGEST_RADIUS}; got "
            f"{radius}."
        )


def seed_map(bold: Bold, seed: np.ndarray, kind: str = "effect") -> np.ndarray:
    """Connectivity (x, y, z) of every voxel with the mean raw signal of the voxels in
    `seed` (x, y, z), as STATISTICS says.

    Zero outside the brain mask. Raises InputError when the seed has no varying signal.
    """
    import numpy as np

    signals = bold.signals
    signal = _standardised(_mean_raw_signal(bold, seed))
    estimate = (signals @ signal) / len(signal)
    if kind != "effect":
        estimate = _correlations(estimate, signals)
    if kind == "fisherz":
        # A voxel that is the whole seed correlates with it perfectly.
        estimate = np.arctanh(np.clip(estimate, -1 + 1e-12, 1 - 1e-12))
    values = np.zeros(bold.mask.shape)
    values[bold.mask] = estimate
    return values


def _without_outside(values: np.ndarray) -> np.ndarray:
    """A map (x, y, z) with NaN instead of the zeros outside its mask."""
    import numpy as np

    return np.where(values == 0, np.nan, values)


def _standardised(signal: np.ndarray) -> np.ndarray:
    # Not `== 0`: the mean of equal numbers differs from them in the last bits.
    if signal.std() < 1e-9:
        raise InputError(
            "The seed lies outside the brain mask or has a constant signal."
        )
    return (signal - signal.mean()) / signal.std()


def _correlations(estimate: np.ndarray, signals: np.ndarray) -> np.ndarray:
    """Regression estimates (voxel,) as correlations; 0 for a constant voxel."""
    import numpy as np

    spread = signals.std(1, dtype=float)
    # Divided by 1 where there is no spread, so that NumPy does not warn.
    divisor = np.where(spread > 0, spread, 1)
    return np.where(spread > 0, estimate / divisor, 0.0)


def _mean_raw_signal(bold: Bold, seed: np.ndarray) -> np.ndarray:
    """Mean over the seed (time,) of the signals before each voxel was divided by its
    own mean."""
    import numpy as np

    # Cleaned signals are in percent of each voxel's mean; times that mean, voxels count
    # as they do in the mean of the raw signals.
    inside = seed[bold.mask]
    # A constant signal: the caller's error says what may be wrong.
    if not inside.any():
        return np.zeros(bold.signals.shape[1])
    level = bold.level[inside, None]
    return (bold.signals[inside] * level).sum(0) / level.sum()
