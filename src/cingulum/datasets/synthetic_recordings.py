"""Recordings of a synthetic visit, computed from its truth: BOLD from our own
simulator, confounds, blood flow and pulse, in MNI space on a coarse grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Int16
from scipy.ndimage import gaussian_filter

from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.connectome import Connectome, distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.datasets.synthetic_truth import CohortSettings, VisitTruth
from cingulum.random_streams import CohortStream, cohort_generator
from cingulum.signals.atlas import SphereAtlas
from cingulum.signals.parcellation import voxel_centres
from cingulum.simulation import balanced, simulate, time_step

CORNER = (-84.0, -120.0, -66.0)
EXTENT = (168.0, 204.0, 150.0)
"""Corner and size in mm of a box in MNI space that holds the brain."""

COMPONENTS = 6
"""Columns of aCompCor in the confounds."""

PERFUSION_UP = (
    "posterior cingulate",
    "supplementary motor",
    "thalamus L",
    "thalamus R",
    "dorsolateral prefrontal L",
)
PERFUSION_DOWN = (
    "S1/M1 hand L",
    "S1/M1 hand R",
    "S1 face L",
    "S1 face R",
    "superior temporal L",
)
SEEDS = ("S1 back L", "S1 back R")
CONNECTED = ("frontoinsular L", "frontoinsular R", "anterior midcingulate")
"""Regions whose connection with the back area of S1 grows with pain (Lee et al. 2019,
table S2)."""

PULSE_RATE = 100.0
"""Samples per second of the finger pulse."""

SHORTEST_INTERVAL = 0.35
"""Seconds between two beats, whatever the rhythms would say."""


@dataclass(frozen=True, eq=False)
class ImageGrid:
    """A coarse MNI grid: brain mask, grey matter share, affine."""

    mask: Bool[np.ndarray, "x y z"]
    grey: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]

    @classmethod
    def of_brain(cls, voxel: float) -> ImageGrid:
        """The MNI152 brain in voxels of so many millimetres."""
        # Imported here because nilearn takes seconds, and other commands do without it.
        from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template

        affine = _affine(voxel)
        template = load_mni152_gm_template(resolution=2)
        grey = _resampled(template, affine, interpolation="continuous")
        brain = load_mni152_brain_mask(resolution=2)
        mask = _resampled(brain, affine, interpolation="nearest") > 0
        # Interpolation overshoots at edges.
        return cls(mask, np.clip(grey / grey.max(), 0, 1), affine)

    @property
    def centres(self) -> Float[np.ndarray, "voxel 3"]:
        """Of all voxels, mm."""
        return voxel_centres(self.mask.shape, self.affine)

    @property
    def brain_centres(self) -> Float[np.ndarray, "brain 3"]:
        return self.centres[self.mask.ravel()]

    @property
    def voxel(self) -> float:
        """Edge of a voxel, mm."""
        return self.affine[0, 0]


def _affine(voxel: float) -> Float[np.ndarray, "4 4"]:
    affine = np.diag([voxel, voxel, voxel, 1.0])
    affine[:3, 3] = CORNER
    return affine


def _resampled(
    image: Any, affine: Float[np.ndarray, "4 4"], interpolation: str
) -> Float[np.ndarray, "x y z"]:
    """An image on a grid that holds the brain."""
    from nilearn.image import resample_img

    shape = np.ceil(np.array(EXTENT) / affine[0, 0]).astype(int) + 1
    resampled = resample_img(
        image,
        target_affine=affine,
        target_shape=tuple(shape.tolist()),
        interpolation=interpolation,
        force_resample=True,
        copy_header=True,
    )
    return resampled.get_fdata()


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What all visits of a cohort share."""

    settings: CohortSettings
    atlas: SphereAtlas
    grid: ImageGrid

    def centre_of(self, region: str) -> Float[np.ndarray, "3"]:
        return self.atlas.centres[self.atlas.regions.index(region)]


def regional_bold(
    atlas: SphereAtlas,
    truth: pd.DataFrame,
    settings: CohortSettings,
    show_progress: bool = False,
) -> Float[np.ndarray, "visit region volume"]:
    """Simulated BOLD in units of its overall standard deviation: one batch, one brain
    per visit."""
    added = 0.12 * np.exp(truth["connection"])
    weights = _planted_weights(atlas, _float32(added))
    connectome = Connectome(weights, atlas.regions)
    brain = Brain(ReducedWongWang(), connectome, Sensor(tr=settings.tr))
    coupling = _float32(truth["coupling"]).unsqueeze(1)
    simulation = simulate(
        balanced(with_values(brain, {"strength": coupling, "noise": 0.02})),
        settings.duration,
        dt=time_step(settings.tr, 0.003),
        seed=settings.seed,
        discard=21.0,
        show_progress=show_progress,
    )
    return _standardised(simulation.bold.data.numpy())


def _standardised(
    signals: Float[np.ndarray, "visit region volume"],
) -> Float[np.ndarray, "visit region volume"]:
    signals = signals - signals.mean(-1, keepdims=True)
    # One scale for all: some visits vary more than others.
    return signals / signals.std()


def _float32(column: pd.Series) -> Float[torch.Tensor, "visit"]:
    return torch.as_tensor(column.to_numpy(), dtype=torch.float32)


def _planted_weights(
    atlas: SphereAtlas, added: Float[torch.Tensor, "visit"]
) -> Float[torch.Tensor, "visit region region"]:
    """Weights by distance, to which the planted connection adds between S1-back and the
    frontoinsular and midcingulate regions."""
    centres = torch.as_tensor(atlas.centres, dtype=torch.float32)
    base = distance_rule(centres, atlas.regions)
    weights = base.weights.repeat(len(added), 1, 1)
    for seed in SEEDS:
        for region in CONNECTED:
            a = atlas.regions.index(seed)
            b = atlas.regions.index(region)
            strength = weights[:, a, b] + added
            weights[:, a, b] = strength
            weights[:, b, a] = strength
    return weights


def bold_volumes(
    signals: Float[np.ndarray, "region volume"],
    confounds: pd.DataFrame,
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> Int16[np.ndarray, "x y z volume"]:
    """Each voxel follows its nearest region, with drift, motion and smooth noise, near
    1000."""
    grid = acquisition.grid
    # The order of the draws is part of a seed's cohort.
    noise = _smooth_noise(grid, signals.shape[-1], rng)
    percent = signals[_nearest_region(acquisition)] + noise
    percent = percent + _motion_artefact(confounds, len(percent), rng)
    percent = percent + _drift(percent.shape, rng)
    return _on_grid(grid, percent)


def _nearest_region(acquisition: Acquisition) -> Int[np.ndarray, "voxel"]:
    """Of every voxel in the brain, the index of the region with the nearest centre."""
    centres = acquisition.grid.brain_centres
    between = centres[:, None] - acquisition.atlas.centres[None]
    return np.linalg.norm(between, axis=-1).argmin(1)


def _smooth_noise(
    grid: ImageGrid, volumes: int, rng: np.random.Generator
) -> Float[np.ndarray, "voxel volume"]:
    # Single precision, which halves what is by far the largest array of a cohort.
    noise = rng.standard_normal((*grid.mask.shape, volumes), dtype=np.float32)
    # Smooth in space only: the last axis is time.
    noise = gaussian_filter(noise, (0.5, 0.5, 0.5, 0))[grid.mask]
    return 1.2 * noise / noise.std()


def _motion_artefact(
    confounds: pd.DataFrame, voxels: int, rng: np.random.Generator
) -> Float[np.ndarray, "voxel volume"]:
    """Each voxel follows the translations in its own way."""
    movement = confounds[TRANSLATIONS].to_numpy().T
    return rng.normal(0, 2.0, (voxels, 3)) @ movement


def _drift(
    shape: tuple[int, ...], rng: np.random.Generator
) -> Float[np.ndarray, "voxel volume"]:
    """A line in time, of each voxel its own."""
    voxels, volumes = shape
    return rng.normal(0, 0.5, (voxels, 1)) * np.linspace(-1, 1, volumes)


def _on_grid(
    grid: ImageGrid, percent: Float[np.ndarray, "voxel volume"]
) -> Int16[np.ndarray, "x y z volume"]:
    """Percent of a baseline that is brighter in grey matter; 0 outside the brain."""
    baseline = 1000.0 * (0.8 + 0.2 * grid.grey[grid.mask])
    # Integers, as scanners store them.
    data = np.zeros((*grid.mask.shape, percent.shape[-1]), dtype=np.int16)
    data[grid.mask] = (baseline[:, None] * (1 + percent / 100)).round()
    return data


TRANSLATIONS = ["trans_x", "trans_y", "trans_z"]
ROTATIONS = ["rot_x", "rot_y", "rot_z"]
TISSUES = ["csf", "white_matter", "global_signal"]


def confound_table(
    motion: float, settings: CohortSettings, rng: np.random.Generator
) -> pd.DataFrame:
    """Confounds as fMRIPrep names them; the mean framewise displacement is the planted
    motion."""
    table = _motion(motion, settings.volumes, rng)
    for name in TISSUES:
        table[name] = 1000 + rng.normal(0, 3, settings.volumes)
    # A stream of its own, so that what follows draws the same numbers with and without
    # these columns.
    own = rng.spawn(1)[0]
    columns = _expansions(table)
    for k in range(COMPONENTS):
        columns[f"a_comp_cor_{k:02d}"] = own.normal(size=settings.volumes)
    dvars = own.normal(1.0, 0.1, settings.volumes - 1)
    columns["std_dvars"] = np.r_[np.nan, dvars]
    columns |= _cosines(settings)
    return table.assign(**columns)


def _motion(motion: float, volumes: int, rng: np.random.Generator) -> pd.DataFrame:
    """Six parameters and framewise displacement (Power et al. 2012: rotations count on
    a sphere of 50 mm)."""
    moves = rng.normal(size=(volumes, 6)) * [1, 1, 1, 0.01, 0.01, 0.01]
    displacement = np.abs(np.diff(moves, axis=0)) @ np.array([1, 1, 1, 50, 50, 50])
    # Displacement is proportional to the moves: scaled, its mean is the planted one.
    scale = motion / displacement.mean()
    table = pd.DataFrame(moves * scale, columns=[*TRANSLATIONS, *ROTATIONS])
    # The first volume has none before it.
    table["framewise_displacement"] = np.concatenate([[np.nan], displacement * scale])
    return table


def _expansions(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Derivatives and squares of motion and tissue signals."""
    columns = {}
    for name in [*TRANSLATIONS, *ROTATIONS, *TISSUES]:
        slope = table[name].diff()
        columns[f"{name}_derivative1"] = slope
        columns[f"{name}_power2"] = table[name] ** 2
        columns[f"{name}_derivative1_power2"] = slope**2
    return columns


def _cosines(settings: CohortSettings) -> dict[str, np.ndarray]:
    """Discrete cosines slower than 128 s, fMRIPrep's high-pass filter."""
    volumes = settings.volumes
    # Of type II, sampled in the middle of each volume.
    clock = (np.arange(volumes) + 0.5) / volumes
    columns = {}
    for k in range(int(2 * volumes * settings.tr / 128)):
        wave = np.cos(np.pi * (k + 1) * clock)
        columns[f"cosine{k:02d}"] = np.sqrt(2 / volumes) * wave
    return columns


def perfusion_map(
    visit: VisitTruth, acquisition: Acquisition, rng: np.random.Generator
) -> Float[np.ndarray, "x y z"]:
    """CBF, ml/100 g/min: grey and white matter, a person's own pattern, a visit's
    noise, and the effect."""
    grid = acquisition.grid
    # The person's own stream: both visits have the same pattern.
    own = cohort_generator(
        acquisition.settings.seed, CohortStream.PERSON, int(visit.participant)
    )
    pattern = 1 + 0.15 * _smooth_field(grid, own)
    # Level differs more between people than between visits.
    level = np.exp(own.normal(0, 0.15) + rng.normal(0, 0.08))
    noise = 1 + 0.10 * _smooth_field(grid, rng)
    effect = 1 + visit.perfusion * _effect_map(acquisition)
    flow = (18 + 42 * grid.grey) * pattern * level * noise * effect
    # Noise must not make flow vanish or turn around.
    return np.where(grid.mask, np.clip(flow, 1, None), 0).astype(np.float32)


def _smooth_field(
    grid: ImageGrid, rng: np.random.Generator, fwhm: float = 20.0
) -> Float[np.ndarray, "x y z"]:
    """Noise smoothed to a width in mm, of variance 1 in the brain."""
    noise = rng.standard_normal(grid.mask.shape)
    field = gaussian_filter(noise, _sd_in_voxels(fwhm, grid))
    return field / field[grid.mask].std()


def _sd_in_voxels(fwhm: float, grid: ImageGrid) -> float:
    # A Gaussian is 2.355 standard deviations wide at half its height.
    return fwhm / 2.355 / grid.voxel


def _effect_map(acquisition: Acquisition) -> Float[np.ndarray, "x y z"]:
    """+1 at regions where flow rises with pain, −1 where it falls, in blobs of 10
    mm."""
    grid = acquisition.grid
    total = np.zeros(grid.mask.size)
    for region in PERFUSION_UP:
        total += _blob(grid, acquisition.centre_of(region))
    for region in PERFUSION_DOWN:
        total -= _blob(grid, acquisition.centre_of(region))
    return total.reshape(grid.mask.shape)


def _blob(
    grid: ImageGrid, centre: Float[np.ndarray, "3"], sd: float = 10.0
) -> Float[np.ndarray, "voxel"]:
    return _gaussian(np.linalg.norm(grid.centres - centre, axis=1), sd)


def _gaussian(x: np.ndarray, sd: float) -> np.ndarray:
    """1 at 0."""
    return np.exp(-(x**2) / (2 * sd**2))


@dataclass(frozen=True, eq=False)
class _Rhythm:
    """Oscillations of the intervals between beats: Hz, seconds, radians."""

    frequencies: Float[np.ndarray, "sinusoid"]
    amplitudes: Float[np.ndarray, "sinusoid"]
    phases: Float[np.ndarray, "sinusoid"]

    @classmethod
    def drawn(
        cls, low: float, high: float, power: float, rng: np.random.Generator
    ) -> _Rhythm:
        """Twelve sinusoids between two frequencies, of a total power in ms²."""
        frequencies = rng.uniform(low, high, 12)
        shares = rng.dirichlet(np.full(12, 4.0))
        # A sinusoid of amplitude a has power a² / 2; / 1000: from ms to s.
        amplitudes = np.sqrt(2 * power * shares) / 1000
        return cls(frequencies, amplitudes, rng.uniform(0, 2 * np.pi, 12))

    def shift(self, time: float) -> float:
        waves = np.sin(2 * np.pi * self.frequencies * time + self.phases)
        return float(np.sum(self.amplitudes * waves))


def beat_times(
    ln_hf: float, heart_rate: float, duration: float, rng: np.random.Generator
) -> Float[np.ndarray, "beat"]:
    """Beat times (s) whose intervals have HF power exp(ln_hf) ms² in sinusoids of
    0.18–0.34 Hz, and as much LF."""
    power = np.exp(ln_hf)
    high = _Rhythm.drawn(0.18, 0.34, power, rng)
    low = _Rhythm.drawn(0.05, 0.13, 1.2 * power, rng)
    mean = 60.0 / heart_rate
    beats = [0.0]
    while beats[-1] < duration:
        last = beats[-1]
        interval = mean + (high.shift(last) + low.shift(last))
        beats.append(last + max(interval, SHORTEST_INTERVAL))
    return np.array(beats)


def pulse_wave(
    ln_hf: float, heart_rate: float, duration: float, rng: np.random.Generator
) -> Float[np.ndarray, "sample"]:
    """Finger pulse: a systolic and a dicrotic wave after every beat, with a little
    noise."""
    beats = beat_times(ln_hf, heart_rate, duration, rng)
    clock = np.arange(int(duration * PULSE_RATE)) / PULSE_RATE
    # Every sample belongs to the last beat before it.
    last = np.searchsorted(beats, clock, side="right") - 1
    since = clock - beats[np.clip(last, 0, None)]
    wave = _bump(since, 0.20) + 0.25 * _bump(since, 0.45)
    return wave + 0.01 * rng.standard_normal(len(clock))


def _bump(since: np.ndarray, delay: float, width: float = 0.06) -> np.ndarray:
    return _gaussian(since - delay, width)
