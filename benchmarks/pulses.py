"""How often is HF power wrong, without a flag, in poor recordings of the heart?

Waves of NeuroKit2's simulators, degraded in seven ways; the truth is what the clean
wave gives.

    python benchmarks/pulses.py [--recordings 30]
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import neurokit2 as nk
import numpy as np

from cingulum.errors import InputError
from cingulum.signals import heartbeat
from cingulum.signals.interval_spectrum import band_power

RATE = {"pulse": 100, "ECG": 250}
SECONDS = 300
REPEATS = 3
WRONG = 0.2
"""Difference in ln HF that counts as wrong."""

Rng = np.random.Generator


def recording(source: str, seed: int) -> np.ndarray:
    """A clean wave; every recording has another heart."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(55, 85)
    if source == "ECG":
        return nk.ecg_simulate(
            duration=SECONDS,
            sampling_rate=RATE[source],
            heart_rate=rate,
            heart_rate_std=rng.uniform(1, 4),
            noise=0,
            random_state=seed,
            method="ecgsyn",
        )
    return nk.ppg_simulate(
        duration=SECONDS,
        sampling_rate=RATE[source],
        heart_rate=rate,
        frequency_modulation=rng.uniform(0.1, 0.4),
        ibi_randomness=rng.uniform(0.02, 0.1),
        drift=0,
        motion_amplitude=0,
        powerline_amplitude=0,
        burst_number=0,
        random_state=seed,
    )


def noise(y: np.ndarray, rng: Rng) -> np.ndarray:
    return y + rng.uniform(0, 1.2) * y.std() * rng.normal(size=len(y))


def spikes(y: np.ndarray, rng: Rng) -> np.ndarray:
    spiked = y.copy()
    number = rng.integers(20, 200)
    height = rng.choice([-1, 1], number) * rng.uniform(3, 12) * y.std()
    spiked[rng.integers(0, len(y), number)] += height
    return spiked


def clipped(y: np.ndarray, rng: Rng) -> np.ndarray:
    return np.clip(y, None, np.quantile(y, rng.uniform(0.65, 0.98)))


def clipped_twice(y: np.ndarray, rng: Rng) -> np.ndarray:
    low, high = np.quantile(y, [rng.uniform(0, 0.3), rng.uniform(0.7, 0.98)])
    return np.clip(y, low, high)


def moved(y: np.ndarray, rng: Rng) -> np.ndarray:
    """Slow waves of some seconds, as of a moving hand."""
    second = len(y) // SECONDS
    result = y.copy()
    for _ in range(rng.integers(1, 8)):
        begin = rng.integers(0, len(y) - 10 * second)
        length = rng.integers(2 * second, 10 * second)
        steps = rng.normal(size=length + second - 1)
        slow = np.convolve(steps, np.ones(second) / np.sqrt(second), "valid")
        result[begin : begin + length] += rng.uniform(1, 5) * y.std() * slow
    return result


def weak(y: np.ndarray, rng: Rng) -> np.ndarray:
    """A stretch in which the wave is small."""
    result = y + 0.02 * y.std() * rng.normal(size=len(y))
    begin = rng.integers(0, len(y) // 2)
    end = begin + rng.integers(len(y) // 20, len(y) // 4)
    level = y[begin]
    smaller = level + (y[begin:end] - level) * rng.uniform(0.02, 0.3)
    result[begin:end] += smaller - y[begin:end]
    return result


def coarse(y: np.ndarray, rng: Rng) -> np.ndarray:
    """Few steps of the converter."""
    step = y.std() / rng.choice([1, 2, 4])
    return np.round(y / step) * step


DEGRADATIONS: tuple[Callable[[np.ndarray, Rng], np.ndarray], ...] = (
    noise,
    spikes,
    clipped,
    clipped_twice,
    moved,
    weak,
    coarse,
)


def measured(y: np.ndarray, source: str) -> tuple[float, bool]:
    """ln HF and whether the recording was flagged."""
    signal = heartbeat._CardiacSignal(Path("a"), "cardiac", y, RATE[source], {})
    found = heartbeat._detect_beats(signal, source)
    heart = heartbeat.correct_beats(found.times)
    is_flagged = bool(found.flags or heartbeat._artefact_flags(heart))
    return float(np.log(band_power(heart.beats, good=heart.good))), is_flagged


def outcomes(source: str, recordings: int) -> dict[str, Counter[str]]:
    """By degradation, how many were refused, flagged, right and wrong."""
    counts: dict[str, Counter[str]] = {d.__name__: Counter() for d in DEGRADATIONS}
    counts["clean"] = Counter()
    for seed in range(recordings):
        y = recording(source, seed)
        truth, is_flagged = measured(y, source)
        counts["clean"]["flagged" if is_flagged else "right"] += 1
        rng = np.random.default_rng(seed)
        for degradation in DEGRADATIONS:
            for _ in range(REPEATS):
                outcome = _outcome(degradation(y, rng), source, truth)
                counts[degradation.__name__][outcome] += 1
    return counts


def _outcome(y: np.ndarray, source: str, truth: float) -> str:
    try:
        value, is_flagged = measured(y, source)
    except InputError:
        return "refused"
    if is_flagged:
        return "flagged"
    return "wrong" if abs(value - truth) > WRONG else "right"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=30)
    number = parser.parse_args().recordings
    # NeuroKit2 warns of every poor signal.
    warnings.simplefilter("ignore")
    for source in RATE:
        total: Counter[str] = Counter()
        for name, counts in outcomes(source, number).items():
            print(f"{source:6} {name:14} {dict(counts)}", flush=True)
            total += counts
        accepted = total["right"] + total["wrong"]
        share = 100 * total["wrong"] / max(accepted, 1)
        print(
            f"{source}: {total['wrong']} of {accepted} unflagged wrong ({share:.1f} %)"
        )


if __name__ == "__main__":
    main()
