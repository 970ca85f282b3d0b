"""The ground truth of a synthetic cohort: how much pain each patient has at each visit,
and how strong every effect on their recordings is.

Design and marginals of Lee et al. 2019 (doi:10.1097/j.pain.0000000000001417).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from jaxtyping import Float

from cingulum.errors import InputError
from cingulum.random_streams import CohortStream, cohort_generator

SESSIONS = ("pre", "post")

MEAN_RISE = 23.6
"""Mean rise of pain between the visits; a rise of this size is a dose of 1."""

HF_MEAN = 6.02
"""Mean over people of ln HF power (ms²)."""

HF_SD_PEOPLE = 1.10
"""Standard deviation of it between people."""

HF_SD_VISITS = 0.47
"""Standard deviation of the difference between two visits of one person."""


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
    "none": Effect(connection=0, perfusion=0, hf=0, motion=0),
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
                f"effect must be one of {', '.join(EFFECTS)}; got {self.effect!r}."
            )
        if self.patients < 2 or self.volumes < 40 or not 4 <= self.voxel <= 9:
            raise InputError(
                "A cohort needs at least 2 patients, 40 volumes and voxels of 4 to 9 "
                f"mm; got {self.patients}, {self.volumes}, {self.voxel:g} mm."
            )

    @property
    def duration(self) -> float:
        """Seconds of every functional recording."""
        return self.volumes * self.tr


@dataclass(frozen=True)
class VisitTruth:
    """One row of the truth.

    pain: rating, 0-100
    connection: logarithm of the strength of the planted connection
    perfusion: relative change of blood flow where it rises with pain
    ln_hf, heart_rate: logarithm of HF power (ms²), beats per minute
    motion: mean framewise displacement, mm
    coupling: global coupling strength of the simulated brain
    """

    participant: str
    session: str
    pain: float
    connection: float
    perfusion: float
    ln_hf: float
    heart_rate: float
    motion: float
    coupling: float

    @property
    def subject_label(self) -> str:
        return f"sub-{self.participant}"

    @property
    def session_label(self) -> str:
        return f"ses-{self.session}"

    @property
    def name(self) -> str:
        """What the names of its files begin with."""
        return f"{self.subject_label}_{self.session_label}"


def visits_of(truth: pd.DataFrame) -> list[VisitTruth]:
    return [VisitTruth(*row) for row in truth.itertuples(index=False, name=None)]


def draw_truth(settings: CohortSettings) -> pd.DataFrame:
    """The truth: one row per visit, its columns the fields of `VisitTruth`."""
    # The order of the draws is part of a seed's cohort: new quantities go to the end.
    rng = cohort_generator(settings.seed, CohortStream.TRUTH)
    effect = EFFECTS[settings.effect]
    n = settings.patients
    pain = _ratings(rng, n)
    # Effects grow with a patient's own rise of pain.
    dose = (pain[:, 1] - pain[:, 0]) / MEAN_RISE
    own_hf, ln_hf = _hf_power(rng, n, effect.hf)
    resting_rate = _resting_rate(rng, own_hf)
    rows = {
        "participant": np.repeat(_participants(n), 2),
        "session": np.tile(SESSIONS, n),
        "pain": pain.ravel(),
        "ln_hf": ln_hf.ravel(),
        "motion": _motion(rng, n, effect.motion),
        "connection": _connection(rng, effect.connection, dose),
        "perfusion": _perfusion(rng, effect.perfusion, dose),
        "heart_rate": _heart_rate(rng, resting_rate),
        "coupling": _coupling(rng, n),
    }
    return _table(rows)


def _table(quantities: dict[str, np.ndarray]) -> pd.DataFrame:
    columns = [field.name for field in fields(VisitTruth)]
    # What is written as a rating is the rating: nothing knows further decimals.
    return pd.DataFrame(quantities)[columns].round({"pain": 1})


def _participants(n: int) -> list[str]:
    return [f"{i + 1:02d}" for i in range(n)]


def _connection(
    rng: np.random.Generator, effect: float, dose: Float[np.ndarray, "patient"]
) -> Float[np.ndarray, "visit"]:
    """Part of the effect is the same for all, part grows with the rise of pain."""
    noise = rng.normal(0, 0.35, (len(dose), 2))
    return _raised(noise, effect * (0.6 + 0.4 * dose))


def _perfusion(
    rng: np.random.Generator, effect: float, dose: Float[np.ndarray, "patient"]
) -> Float[np.ndarray, "visit"]:
    """Like `_connection`, but less of it depends on pain."""
    noise = rng.normal(0, 0.04, (len(dose), 2))
    return _raised(noise, effect * (0.7 + 0.3 * dose))


def _motion(
    rng: np.random.Generator, n: int, effect: float
) -> Float[np.ndarray, "visit"]:
    """Mean framewise displacement: log-normal, and larger at the second visit."""
    still = 0.036 * _log_normal(rng, 0.4, (n, 2))
    return _raised(still, np.full(n, effect))


def _raised(
    values: Float[np.ndarray, "patient 2"], rise: Float[np.ndarray, "patient"]
) -> Float[np.ndarray, "visit"]:
    """Values of all visits, those of the second raised."""
    second = values[:, 1] + rise
    return np.stack([values[:, 0], second], 1).ravel()


def _ratings(rng: np.random.Generator, n: int) -> Float[np.ndarray, "patient 2"]:
    """Pain before and after, 0–100: 31.6 ± 19.0, 55.2 ± 18.9, correlation .79; pain
    rose in every patient.

    A bivariate normal truncated to the scale and to a rise; its own moments are chosen
    so that the truncated one has those.
    """
    # Twenty times as many as needed, as most pairs are outside of what is allowed.
    first = rng.normal(26.6, 26.8, 20 * n)
    residual = rng.normal(0, 24.5 * np.sqrt(1 - 0.836**2), 20 * n)
    second = 49.9 + 0.836 * (first - 26.6) * 24.5 / 26.8 + residual
    # At least one point more: ratings have one decimal and must differ.
    allowed = (first >= 0) & (second <= 100) & (second > first + 1)
    return np.stack([first, second], 1)[allowed][:n]


def _hf_power(
    rng: np.random.Generator, n: int, effect: float
) -> tuple[Float[np.ndarray, "patient"], Float[np.ndarray, "patient 2"]]:
    """ln HF power: typical of each patient, and at each visit."""
    own = rng.normal(HF_MEAN, HF_SD_PEOPLE, n)
    # Two independent visits differ by √2 times the standard deviation of one.
    ln_hf = own[:, None] + rng.normal(0, HF_SD_VISITS / np.sqrt(2), (n, 2))
    ln_hf[:, 1] += effect
    # Beyond these limits, intervals between beats would be impossible.
    return own, ln_hf.clip(3.5, 8.5)


def _resting_rate(
    rng: np.random.Generator, own_hf: Float[np.ndarray, "patient"]
) -> Float[np.ndarray, "patient"]:
    """Beats per minute. Hearts that vary much beat slowly; without that link, too,
    intervals would be impossible."""
    slower = 5 * (own_hf - HF_MEAN) / HF_SD_PEOPLE
    return 66 - slower + rng.normal(0, 6, len(own_hf))


def _heart_rate(
    rng: np.random.Generator, resting: Float[np.ndarray, "patient"]
) -> Float[np.ndarray, "visit"]:
    """Beats per minute at each visit."""
    variation = rng.normal(0, 2, 2 * len(resting))
    return (np.repeat(resting, 2) + variation).clip(48, 90)


def _coupling(rng: np.random.Generator, n: int) -> Float[np.ndarray, "visit"]:
    """Global coupling, which differs more between people than between visits."""
    own = 0.4 * _log_normal(rng, 0.15, n)
    return np.repeat(own, 2) * _log_normal(rng, 0.08, 2 * n)


def _log_normal(
    rng: np.random.Generator, sd: float, shape: int | tuple[int, int]
) -> np.ndarray:
    """Positive numbers with a median of 1; sd: of their logarithms."""
    return np.exp(rng.normal(0, sd, shape))
