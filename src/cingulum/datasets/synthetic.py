"""A whole cohort with planted truth: 53 patients, two visits, BOLD from our own
simulator, CBF, pulse, ratings.

Design and marginals of Lee et al. 2019 (doi:10.1097/j.pain.0000000000001417), in MNI
space on a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter

from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.connectome import Connectome, distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.io.files import (
    check_vacant,
    whole_folder,
    write_bytes,
    write_json,
    write_table,
)
from cingulum.io.images import write_image
from cingulum.progress import track
from cingulum.random_streams import CohortStream, cohort_generator
from cingulum.signals.atlas import SphereAtlas, pain_atlas
from cingulum.signals.parcellation import voxel_centres
from cingulum.simulation import balanced, simulate, time_step

SESSIONS = ("pre", "post")
COMPONENTS = 6
"""Columns of aCompCor in the confounds."""

SPACE = "MNI152NLin2009cAsym"

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
CONNECTED = ("frontoinsular L", "frontoinsular R", "anterior midcingulate")
"""Regions whose connection with the back area of S1 grows with pain (Lee et al. 2019,
table S2)."""


@dataclass(frozen=True)
class Effect:
    """What differs between the visits, mean over patients. All zero is a null cohort:
    visits are exchangeable."""

    connection: float
    perfusion: float
    hf: float
    motion: float


EFFECTS = {
    "lee2019": Effect(connection=0.8, perfusion=0.10, hf=-0.29, motion=0.008),
    "none": Effect(0, 0, 0, 0),
}


@dataclass(frozen=True)
class CohortSettings:
    """Everything that decides what a cohort contains."""

    patients: int = 53
    effect: str = "lee2019"
    seed: int = 0
    voxel: float = 6.0
    volumes: int = 120
    tr: float = 3.0

    def __post_init__(self) -> None:
        if self.effect not in EFFECTS:
            raise InputError(
                f"effect must be one of {', '.join(EFFECTS)}; came {self.effect!r}."
            )
        if self.patients < 2 or self.volumes < 40 or not 4 <= self.voxel <= 9:
            raise InputError(
                "A cohort needs at least 2 patients, 40 volumes and voxels of 4 to 9 "
                "mm; came "
                f"{self.patients}, {self.volumes}, {self.voxel:g} mm."
            )


def synthesize(
    target: Path, settings: CohortSettings | None = None, *, show_progress: bool = False
) -> Path:
    """Write a synthetic cohort as a BIDS dataset with fMRIPrep- and ASLPrep-style
    derivatives.

    The planted truth goes to `sourcedata/truth.tsv` and `truth.json`, which no reader
    of ours looks at. Raises InputError if `target` is not empty. Nothing is left behind
    when writing fails.
    """
    settings = settings or CohortSettings()
    check_vacant(Path(target))
    truth = plant(settings)
    atlas, grid = pain_atlas(), _Grid.of_brain(settings.voxel)
    signals = regional_bold(atlas, truth, settings, show_progress)
    with whole_folder(Path(target)) as root:
        _write_descriptions(root, settings, truth)
        rows = track(list(truth.itertuples()), "write", show=show_progress)
        for index, row in enumerate(rows):
            rng = cohort_generator(settings.seed, CohortStream.VISIT, index)
            _write_visit(root, row, signals[index], grid, atlas, settings, rng)
    return Path(target)


def plant(settings: CohortSettings) -> pd.DataFrame:
    """The truth, one row a visit: pain, and the strength of every effect."""
    rng, effect, n = (
        cohort_generator(settings.seed, CohortStream.TRUTH),
        EFFECTS[settings.effect],
        settings.patients,
    )
    pain = _ratings(rng, n)
    dose = (pain[:, 1] - pain[:, 0]) / 23.6
    own_hf = rng.normal(6.02, 1.10, n)
    ln_hf = own_hf[:, None] + rng.normal(
        0, 0.47 / np.sqrt(2), (n, 2)
    )  # 1.15 over people, 0.47 between visits
    ln_hf[:, 1] += effect.hf
    # Hearts that vary much beat slowly; without that link, and beyond these limits,
    # intervals would be impossible.
    ln_hf, heart_rate = (
        ln_hf.clip(3.5, 8.5),
        66 - 5 * (own_hf - 6.02) / 1.10 + rng.normal(0, 6, n),
    )
    motion = 0.036 * np.exp(rng.normal(0, 0.4, (n, 2)))
    rows = pd.DataFrame(
        {
            "participant": np.repeat([f"{i + 1:02d}" for i in range(n)], 2),
            "session": np.tile(SESSIONS, n),
            "pain": pain.ravel(),
            "connection": _visits(
                rng.normal(0, 0.35, (n, 2)), effect.connection * (0.6 + 0.4 * dose)
            ),
            "perfusion": _visits(
                rng.normal(0, 0.04, (n, 2)), effect.perfusion * (0.7 + 0.3 * dose)
            ),
            "ln_hf": ln_hf.ravel(),
            "heart_rate": (np.repeat(heart_rate, 2) + rng.normal(0, 2, 2 * n)).clip(
                48, 90
            ),
            "motion": _visits(motion, np.full(n, effect.motion)),
            "coupling": np.repeat(0.4 * np.exp(rng.normal(0, 0.15, n)), 2)
            * np.exp(rng.normal(0, 0.08, 2 * n)),
        }
    )
    return rows.round({"pain": 1})


def _visits(noise: np.ndarray, gain: np.ndarray) -> np.ndarray:
    noise[:, 1] += gain
    return noise.ravel()


def _ratings(rng: np.random.Generator, n: int) -> np.ndarray:
    """Pain before and after, 0–100: 31.6 ± 19.0, 55.2 ± 18.9, correlation .79; pain
    rose in every patient.

    A bivariate normal cut to the scale and to a rise; its own moments are chosen so
    that the cut one has those.
    """
    first = rng.normal(26.6, 26.8, 20 * n)
    second = (
        49.9
        + 0.836 * (first - 26.6) * 24.5 / 26.8
        + rng.normal(0, 24.5 * np.sqrt(1 - 0.836**2), 20 * n)
    )
    allowed = (first >= 0) & (second <= 100) & (second > first + 1)
    return np.stack([first, second], 1)[allowed][:n]


def regional_bold(
    atlas: SphereAtlas,
    truth: pd.DataFrame,
    settings: CohortSettings,
    show: bool = False,
) -> np.ndarray:
    """Simulated BOLD (visit, region, volume) in percent: one batch, one brain a visit.

    The planted connection adds to the weights between S1-back and the frontoinsular and
    midcingulate regions.
    """
    base = distance_rule(
        torch.as_tensor(atlas.centres, dtype=torch.float32), atlas.regions
    )
    weights = base.weights.repeat(len(truth), 1, 1)
    added = torch.as_tensor(
        0.12 * np.exp(truth["connection"].to_numpy()), dtype=torch.float32
    )
    index = {name: i for i, name in enumerate(atlas.regions)}
    for seed in ("S1 back L", "S1 back R"):
        for region in CONNECTED:
            a, b = index[seed], index[region]
            weights[:, a, b] = weights[:, b, a] = weights[:, a, b] + added
    coupling = torch.as_tensor(
        truth["coupling"].to_numpy(), dtype=torch.float32
    ).unsqueeze(1)
    brain = Brain(
        ReducedWongWang(), Connectome(weights, atlas.regions), Sensor(tr=settings.tr)
    )
    brain = balanced(with_values(brain, {"strength": coupling, "noise": 0.02}))
    duration = settings.volumes * settings.tr
    run = simulate(
        brain,
        duration,
        dt=time_step(settings.tr, 0.003),
        seed=settings.seed,
        discard=21.0,
        show_progress=show,
    )
    signals = run.bold.data.numpy()
    signals = signals - signals.mean(-1, keepdims=True)
    return signals / signals.std()


@dataclass(frozen=True, eq=False)
class _Grid:
    """A coarse MNI grid: brain mask, grey matter share, affine."""

    mask: np.ndarray
    grey: np.ndarray
    affine: np.ndarray

    @classmethod
    def of_brain(cls, voxel: float) -> _Grid:
        from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template
        from nilearn.image import resample_img

        affine = np.diag([voxel, voxel, voxel, 1.0])
        affine[:3, 3] = [-84.0, -120.0, -66.0]
        shape = tuple(
            int(np.ceil(extent / voxel)) + 1 for extent in (168.0, 204.0, 150.0)
        )
        options = {
            "target_affine": affine,
            "target_shape": shape,
            "force_resample": True,
            "copy_header": True,
        }
        grey = resample_img(
            load_mni152_gm_template(resolution=2), interpolation="continuous", **options
        ).get_fdata()
        mask = (
            resample_img(
                load_mni152_brain_mask(resolution=2), interpolation="nearest", **options
            ).get_fdata()
            > 0
        )
        return cls(mask, np.clip(grey / grey.max(), 0, 1), affine)


def _write_visit(
    root: Path,
    row: Any,
    signals: np.ndarray,
    grid: _Grid,
    atlas: SphereAtlas,
    settings: CohortSettings,
    rng: np.random.Generator,
) -> None:
    person, session = f"sub-{row.participant}", f"ses-{row.session}"
    name = f"{person}_{session}"
    fmriprep = root / "derivatives" / "fmriprep" / person / session / "func"
    aslprep = root / "derivatives" / "aslprep" / person / session / "perf"
    confounds = _confounds(row.motion, settings, rng)
    bold = _bold_volumes(signals, confounds, grid, atlas, rng)
    stem = fmriprep / f"{name}_task-rest_space-{SPACE}"
    write_image(
        Path(f"{stem}_desc-preproc_bold.nii.gz"), bold, grid.affine, settings.tr
    )
    write_json(
        Path(f"{stem}_desc-preproc_bold.json"),
        {"RepetitionTime": settings.tr, "TaskName": "rest"},
    )
    write_image(
        Path(f"{stem}_desc-brain_mask.nii.gz"), grid.mask.astype(np.uint8), grid.affine
    )
    write_table(fmriprep / f"{name}_task-rest_desc-confounds_timeseries.tsv", confounds)
    component = {"Mask": "combined", "Method": "aCompCor", "Retained": True}
    told = {f"a_comp_cor_{k:02d}": component for k in range(COMPONENTS)}
    write_json(fmriprep / f"{name}_task-rest_desc-confounds_timeseries.json", told)
    cbf = _perfusion(row, grid, atlas, settings, rng)
    write_image(aslprep / f"{name}_space-{SPACE}_cbf.nii.gz", cbf, grid.affine)
    write_json(aslprep / f"{name}_space-{SPACE}_cbf.json", {"Units": "mL/100 g/min"})
    physio = (
        root / person / session / "func" / f"{name}_task-rest_recording-pulse_physio"
    )
    pulse = _pulse(row.ln_hf, row.heart_rate, settings.volumes * settings.tr, rng)
    write_bytes(
        Path(f"{physio}.tsv.gz"), "\n".join(f"{v:.5f}" for v in pulse).encode() + b"\n"
    )
    write_json(
        Path(f"{physio}.json"),
        {"SamplingFrequency": PULSE_RATE, "StartTime": 0.0, "Columns": ["cardiac"]},
    )


def _bold_volumes(
    signals: np.ndarray,
    confounds: pd.DataFrame,
    grid: _Grid,
    atlas: SphereAtlas,
    rng: np.random.Generator,
) -> np.ndarray:
    """(x, y, z, time): each voxel follows its nearest region, with drift, motion and
    smooth noise, near 1000."""
    centres = voxel_centres(grid.mask.shape, grid.affine)[grid.mask.ravel()]
    nearest = np.linalg.norm(centres[:, None] - atlas.centres[None], axis=-1).argmin(1)
    volumes = signals.shape[-1]
    noise = rng.standard_normal((*grid.mask.shape, volumes), dtype=np.float32)
    noise = gaussian_filter(noise, (0.5, 0.5, 0.5, 0))[grid.mask]
    percent = signals[nearest] + 1.2 * noise / noise.std()
    movement = confounds[[f"trans_{axis}" for axis in "xyz"]].to_numpy().T
    percent = percent + rng.normal(0, 2.0, (len(centres), 3)) @ movement
    percent = percent + rng.normal(0, 0.5, (len(centres), 1)) * np.linspace(
        -1, 1, volumes
    )
    brain = 1000.0 * (0.8 + 0.2 * grid.grey[grid.mask])[:, None] * (1 + percent / 100)
    data = np.zeros((*grid.mask.shape, volumes), dtype=np.int16)
    data[grid.mask] = brain.round()
    return data


def _confounds(
    motion: float, settings: CohortSettings, rng: np.random.Generator
) -> pd.DataFrame:
    """Confounds as fMRIPrep names them; the mean framewise displacement is the planted
    motion."""
    moves = rng.normal(size=(settings.volumes, 6)) * [1, 1, 1, 0.01, 0.01, 0.01]
    displacement = np.abs(np.diff(moves, axis=0)) @ np.array([1, 1, 1, 50, 50, 50])
    scale = motion / displacement.mean()
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    table = pd.DataFrame(moves * scale, columns=names)
    table["framewise_displacement"] = np.concatenate([[np.nan], displacement * scale])
    for name in ("csf", "white_matter", "global_signal"):
        table[name] = 1000 + rng.normal(0, 3, settings.volumes)
    expanded: dict[str, Any] = {}
    for name in [*names, "csf", "white_matter", "global_signal"]:
        slope = table[name].diff()
        expanded |= {f"{name}_derivative1": slope, f"{name}_power2": table[name] ** 2}
        expanded |= {f"{name}_derivative1_power2": slope**2}
    own = rng.spawn(1)[
        0
    ]  # so that what follows draws the same numbers with and without these columns
    expanded |= {
        f"a_comp_cor_{k:02d}": own.normal(size=settings.volumes)
        for k in range(COMPONENTS)
    }
    expanded["std_dvars"] = np.r_[np.nan, own.normal(1.0, 0.1, settings.volumes - 1)]
    table = table.assign(**expanded)
    clock = (np.arange(settings.volumes) + 0.5) / settings.volumes
    for k in range(int(2 * settings.volumes * settings.tr / 128)):
        table[f"cosine{k:02d}"] = np.sqrt(2 / settings.volumes) * np.cos(
            np.pi * (k + 1) * clock
        )
    return table


def _perfusion(
    row: Any,
    grid: _Grid,
    atlas: SphereAtlas,
    settings: CohortSettings,
    rng: np.random.Generator,
) -> np.ndarray:
    """CBF map, ml/100 g/min: grey and white matter, a person's own pattern, a visit's
    noise, and the effect."""
    own = cohort_generator(settings.seed, CohortStream.PERSON, int(row.participant))
    flow = 18 + 42 * grid.grey
    flow = (
        flow
        * (1 + 0.15 * _smooth_field(grid, own))
        * np.exp(own.normal(0, 0.15) + rng.normal(0, 0.08))
    )
    flow = flow * (1 + 0.10 * _smooth_field(grid, rng))
    flow = flow * (1 + row.perfusion * _effect_map(grid, atlas))
    return np.where(grid.mask, np.clip(flow, 1, None), 0).astype(np.float32)


def _smooth_field(
    grid: _Grid, rng: np.random.Generator, fwhm: float = 20.0
) -> np.ndarray:
    field = gaussian_filter(
        rng.standard_normal(grid.mask.shape), fwhm / 2.355 / grid.affine[0, 0]
    )
    return field / field[grid.mask].std()


def _effect_map(grid: _Grid, atlas: SphereAtlas) -> np.ndarray:
    """+1 at regions where flow rises with pain, −1 where it falls, in blobs of 10
    mm."""
    centres, total = (
        voxel_centres(grid.mask.shape, grid.affine),
        np.zeros(grid.mask.size),
    )
    index = {name: i for i, name in enumerate(atlas.regions)}
    for sign, names in ((1.0, PERFUSION_UP), (-1.0, PERFUSION_DOWN)):
        for name in names:
            distance = np.linalg.norm(centres - atlas.centres[index[name]], axis=1)
            total += sign * np.exp(-(distance**2) / (2 * 10.0**2))
    return total.reshape(grid.mask.shape)


PULSE_RATE = 100.0
"""Samples a second of the finger pulse."""


def tachogram(
    ln_hf: float, heart_rate: float, duration: float, rng: np.random.Generator
) -> np.ndarray:
    """Beat times (s) whose intervals have HF power exp(ln_hf) ms² in sinusoids of
    0.18–0.34 Hz, and as much LF."""
    power = np.exp(ln_hf)
    beats, now, mean = [0.0], 0.0, 60.0 / heart_rate
    rhythm = []
    for low, high, share in ((0.18, 0.34, power), (0.05, 0.13, 1.2 * power)):
        frequency = rng.uniform(low, high, 12)
        amplitude = np.sqrt(2 * share * rng.dirichlet(np.full(12, 4.0))) / 1000
        rhythm.append((frequency, amplitude, rng.uniform(0, 2 * np.pi, 12)))
    while now < duration:
        shift = sum(
            float(np.sum(a * np.sin(2 * np.pi * f * now + p))) for f, a, p in rhythm
        )
        now += max(mean + shift, 0.35)
        beats.append(now)
    return np.array(beats)


def _pulse(
    ln_hf: float, heart_rate: float, duration: float, rng: np.random.Generator
) -> np.ndarray:
    """Finger pulse: a systolic and a dicrotic wave after every beat, with a little
    noise."""
    beats = tachogram(ln_hf, heart_rate, duration, rng)
    clock = np.arange(int(duration * PULSE_RATE)) / PULSE_RATE
    since = (
        clock - beats[np.clip(np.searchsorted(beats, clock, side="right") - 1, 0, None)]
    )
    wave = np.exp(-((since - 0.20) ** 2) / (2 * 0.06**2)) + 0.25 * np.exp(
        -((since - 0.45) ** 2) / (2 * 0.06**2)
    )
    return wave + 0.01 * rng.standard_normal(len(clock))


def _write_descriptions(
    root: Path, settings: CohortSettings, truth: pd.DataFrame
) -> None:
    from cingulum import __version__

    made = [{"Name": "cingulum synthesize", "Version": __version__}]
    top = {
        "Name": "Synthetic back-pain cohort",
        "BIDSVersion": "1.10.0",
        "GeneratedBy": made,
    }
    write_json(root / "dataset_description.json", {**top, "DatasetType": "raw"})
    for tool in ("fmriprep", "aslprep"):
        description = {
            **top,
            "Name": f"Synthetic derivatives in the manner of {tool}",
            "DatasetType": "derivative",
        }
        write_json(
            root / "derivatives" / tool / "dataset_description.json", description
        )
    rng = cohort_generator(settings.seed, CohortStream.DEMOGRAPHICS)
    people = sorted(truth["participant"].unique())
    age, sex = (
        rng.normal(37.4, 11.3, len(people)).clip(18, 60).round(),
        rng.choice(["F", "M"], len(people), p=[0.62, 0.38]),
    )
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{p}" for p in people],
            "age": age.astype(int),
            "sex": sex,
        }
    )
    write_table(root / "participants.tsv", table)
    for person, rows in truth.groupby("participant"):
        sessions = pd.DataFrame(
            {"session_id": "ses-" + rows["session"], "pain": rows["pain"]}
        )
        write_table(root / f"sub-{person}" / f"sub-{person}_sessions.tsv", sessions)
    columns = {
        "pain": {
            "Description": "Clinical pain at this visit",
            "Units": "0 (none) to 100 (most imaginable)",
        }
    }
    write_json(root / "sessions.json", columns)
    write_table(root / "sourcedata" / "truth.tsv", truth)
    write_json(
        root / "sourcedata" / "truth.json",
        {
            **vars(settings),
            "version": __version__,
            "means": vars(EFFECTS[settings.effect]),
        },
    )
    write_bytes(root / "README", README.encode())
    write_bytes(root / ".bidsignore", b"sessions.json\n")


README = """\
Synthetic cohort written by `cingulum synthesize`. No person was scanned.

Two visits a patient, ses-pre and ses-post, always in that order. Preprocessed BOLD,
confounds and CBF maps lie below derivatives/ in the names of fMRIPrep and ASLPrep;
there is no raw imaging. The grid is coarse; the space label is the one that readers
expect (the template is the MNI152 template that nilearn ships). Regional BOLD
signals were simulated with a two-state reduced Wong-Wang network; what was planted
is in sourcedata/truth.tsv.
"""
