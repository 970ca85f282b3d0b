"""Poor recordings of the heart are refused or flagged: of what is accepted without a
flag, the HF power is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.signals import heartbeat
from cingulum.signals.interval_spectrum import band_power
from cingulum.signals.pulse_quality import holds_rates, share_at_rails

RATE = {"pulse": 100, "ECG": 250}
SECONDS = 240


def beats(seed: int) -> np.ndarray:
    """Beat times with a respiratory and a slow rhythm."""
    rng = np.random.default_rng(seed)
    rate, size = rng.uniform(55, 80), rng.uniform(0.02, 0.06)
    times, t = [], 0.6
    while t < SECONDS:
        times.append(t)
        breath = size * np.sin(2 * np.pi * 0.25 * t)
        t += 60 / rate + breath + 0.02 * np.sin(2 * np.pi * 0.09 * t)
    return np.array(times)


def wave(times: np.ndarray, source: str) -> np.ndarray:
    """A pulse wave or an ECG without noise."""
    clock = np.arange(SECONDS * RATE[source]) / RATE[source]
    parts = {
        "pulse": ((0.0, 0.07, 1.0), (0.3, 0.08, 0.3)),
        "ECG": ((0.0, 0.01, 1.0), (0.03, 0.01, -0.2), (0.28, 0.04, 0.15)),
    }[source]
    y = np.zeros(len(clock))
    for time in times:
        for delay, width, height in parts:
            near = np.abs(clock - time - delay) < 6 * width
            away = (clock[near] - time - delay) / width
            y[near] += height * np.exp(-(away**2) / 2)
    return y


def degraded(y: np.ndarray, how: str, rng: np.random.Generator) -> np.ndarray:
    n, spread = len(y), y.std()
    if how == "noise":
        return y + rng.uniform(0, 1.2) * spread * rng.normal(size=n)
    if how == "spikes":
        spiked = y.copy()
        spiked[rng.integers(0, n, 60)] += 10 * spread
        return spiked
    if how == "clipped":
        return np.clip(y, None, np.quantile(y, rng.uniform(0.7, 0.98)))
    if how == "moved":
        slow = np.convolve(rng.normal(size=n + 99), np.ones(100) / 10, "valid")
        return y + 3 * spread * slow * (np.arange(n) < n / 5)
    return y + 0.02 * spread * rng.normal(size=n)


def measured(y: np.ndarray, source: str) -> tuple[float, tuple[str, ...]]:
    """ln HF and flags. Raises InputError where the recording is refused."""
    signal = heartbeat._CardiacSignal(Path("a"), "cardiac", y, RATE[source], {})
    found = heartbeat._detect_beats(signal, source)
    heart = heartbeat.correct_beats(found.times)
    flags = (*found.flags, *heartbeat._artefact_flags(heart))
    return float(np.log(band_power(heart.beats, good=heart.good))), flags


@pytest.mark.slow
def test_unflagged_recordings_are_right():
    """On 200 degraded recordings, at most one in fifty of those accepted without a flag
    is off by more than .2 in ln HF; clean ones pass without a flag."""
    rng = np.random.default_rng(0)
    errors, clean_flags = [], 0
    for seed in range(20):
        times = beats(seed)
        truth = np.log(band_power(times))
        for source in ("pulse", "ECG"):
            y = wave(times, source)
            for how in ("noise", "spikes", "clipped", "moved", "clean"):
                try:
                    value, flags = measured(degraded(y, how, rng), source)
                except InputError:
                    continue
                clean_flags += how == "clean" and bool(flags)
                if not flags:
                    errors.append(abs(value - truth))
    errors = np.array(errors)
    assert len(errors) >= 40 and clean_flags == 0
    assert np.mean(errors > 0.2) <= 0.02


@pytest.mark.parametrize("source", ["pulse", "ECG"])
def test_flat_tops_are_flagged(source):
    y = wave(beats(1), source)
    flat = np.clip(y, None, np.quantile(y, 0.93))
    assert share_at_rails(y) < 0.001 < share_at_rails(flat)
    assert any("clipped" in flag for flag in measured(flat, source)[1])


def test_rates_are_no_wave():
    times = beats(2)
    clock = np.arange(0, SECONDS, 0.01)
    rates = np.interp(clock, times[1:], 60 / np.diff(times))
    assert holds_rates(rates, 100) and not holds_rates(wave(times, "pulse"), 100)
    # A wave that happens to lie where rates do.
    assert not holds_rates(80 + 20 * wave(times, "pulse"), 100)
    with pytest.raises(InputError, match="heart rates"):
        measured(rates, "pulse")


def visit_with_run(root: Path, values: np.ndarray, start: float, volumes: int):
    """A visit with a pulse and a BOLD run of so many volumes, 2 s each."""
    import gzip
    import json

    from cingulum.io.images import write_image
    from cingulum.io.visit import visits

    folder, stem = root / "sub-01" / "func", "sub-01_task-rest"
    folder.mkdir(parents=True)
    (root / "dataset_description.json").write_text("{}")
    image = folder / f"{stem}_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"
    write_image(image, np.zeros((4, 4, 4, volumes), np.float32), np.eye(4), tr=2.0)
    image.with_name(image.name.replace(".nii.gz", ".json")).write_text(
        json.dumps({"RepetitionTime": 2.0})
    )
    text = "\n".join(f"{value:.5f}" for value in values)
    physio = folder / f"{stem}_recording-pulse_physio.tsv.gz"
    physio.write_bytes(gzip.compress(text.encode()))
    fields = {"SamplingFrequency": 100, "StartTime": start, "Columns": ["cardiac"]}
    physio.with_name(physio.name.replace(".tsv.gz", ".json")).write_text(
        json.dumps(fields)
    )
    (visit,) = visits(root)
    return visit


def test_only_the_run_counts(tmp_path):
    """Four minutes of another heart before the run are not the run's."""
    run, other = wave(beats(1), "pulse"), wave(beats(5), "pulse")
    alone = heartbeat.read_heartbeat(visit_with_run(tmp_path / "a", run, 0.0, 120))
    both = np.concatenate([other, run, other])
    visit = visit_with_run(tmp_path / "b", both, -SECONDS, 120)
    longer = heartbeat.read_heartbeat(visit)
    np.testing.assert_allclose(
        longer.intervals[2:50], alone.intervals[2:50], atol=0.002
    )
    assert longer.seconds == pytest.approx(240) and "longer" in " ".join(longer.flags)
    elsewhere = visit_with_run(tmp_path / "c", run, 400.0, 120)
    with pytest.raises(InputError, match="StartTime"):
        heartbeat.read_heartbeat(elsewhere)
