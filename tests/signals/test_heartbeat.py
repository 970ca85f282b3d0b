"""Beats: found in noise, repaired where they are wrong, refused where there are
none."""

import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.features.heart_rate import HeartRateVariability
from cingulum.io.files import write_bytes
from cingulum.signals.heartbeat import breathing_rate, correct_beats, read_heartbeat
from cingulum.signals.interval_spectrum import band_power
from cingulum.signals.visit_data import VisitData


def heart(seed=0, duration=300.0, mean=0.9, breath=0.25):
    """Beat times with breathing and slow rhythms and a little noise."""
    rng, beats = np.random.default_rng(seed), [0.5]
    while beats[-1] < duration:
        now = beats[-1]
        swing = 0.04 * np.sin(2 * np.pi * breath * now) + 0.03 * np.sin(
            2 * np.pi * 0.1 * now
        )
        beats.append(now + mean + swing + 0.01 * rng.normal())
    return np.array(beats)


WAVES = {
    "ecg": [
        (-0.2, 0.12, 0.025),
        (-0.03, -0.12, 0.01),
        (0, 1.0, 0.012),
        (0.03, -0.2, 0.012),
        (0.28, 0.3, 0.045),
    ],
    "pulse": [(0.2, 1.0, 0.06), (0.45, 0.35, 0.08)],
}


def signal_of(beats, kind, rate, noise, seed=0):
    """ECG (P, Q, R, S, T waves) or pulse (systolic and dicrotic wave) of given beats;
    noise in parts of the peak."""
    clock = np.arange(int((beats[-1] + 1) * rate)) / rate
    y = 0.2 * np.sin(2 * np.pi * 0.2 * clock) if kind == "ecg" else np.zeros(len(clock))
    for delay, height, width in WAVES[kind]:
        for beat in beats:
            here = slice(
                max(int((beat + delay - 6 * width) * rate), 0),
                int((beat + delay + 6 * width) * rate),
            )
            y[here] += height * np.exp(
                -((clock[here] - beat - delay) ** 2) / (2 * width**2)
            )
    return y + noise * np.random.default_rng(seed).normal(size=len(clock))


def nearest(found, true):
    """Distance (s) from every true beat to the nearest found one."""
    place = np.searchsorted(found, true).clip(1, len(found) - 1)
    return np.minimum(np.abs(found[place] - true), np.abs(found[place - 1] - true))


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize(("kind", "rate"), [("ecg", 250.0), ("pulse", 100.0)])
def test_beats_are_found_in_noise(physio, tmp_path, kind, rate, noise):
    """Sensitivity ≥ .99 up to noise of .2 of the peak, ≥ .97 at .3 (found within 50
    ms)."""
    beats = heart()
    visit = physio(
        tmp_path, {"cardiac": signal_of(beats, kind, rate, noise)}, rate, recording=kind
    )
    found = read_heartbeat(visit)
    assert found.source == {"ecg": "ECG", "pulse": "pulse"}[kind]
    assert found.flags == () or noise > 0.1, (
        "no artefact may be seen in a clean recording"
    )
    inner = beats[(beats > 2) & (beats < beats[-1] - 2)] + (
        0.2 if kind == "pulse" else 0
    )
    assert (nearest(found.beats, inner) < 0.05).mean() >= (
        0.97 if noise == 0.3 else 0.99
    )


def damaged(beats, seed):
    """Four beats lost, five ectopic, three extra; returns times and what was done."""
    rng, wrong = np.random.default_rng(seed), beats.copy()
    ectopic, lost, extra = (
        np.array([50, 100, 150, 200, 250]),
        np.array([30, 80, 130, 180]),
        np.array([60, 120, 240]),
    )
    wrong[ectopic] -= rng.uniform(0.22, 0.35, 5)
    between = beats[extra] + rng.uniform(0.3, 0.7, 3) * (
        beats[extra + 1] - beats[extra]
    )
    return np.sort(np.r_[np.delete(wrong, lost), between])


def test_artefacts_are_found_repaired_and_counted():
    """40 hearts, 480 artefacts: at least 95 % found as what they are, at most one false
    alarm in a thousand beats."""
    right, clean, beats_seen = 0, 0, 0
    for seed in range(40):
        beats = heart(seed)
        found = correct_beats(damaged(beats, seed))
        counts = {**found.counts}
        right += (
            min(counts["missed"], 4)
            + min(counts["extra"], 3)
            + min(counts["ectopic"], 5)
        )
        untouched = correct_beats(beats)
        clean += sum(untouched.counts.values())
        beats_seen += len(beats)
        assert found.counts["irregular"] <= 2 and 0.03 < found.corrected < 0.08
    assert right >= 0.95 * 480 and clean <= beats_seen / 1000


def test_power_survives_artefacts():
    """Twelve artefacts in five minutes multiply uncorrected HF power; corrected, it
    stays within 20 % (20 hearts)."""
    for seed in range(20):
        beats = heart(seed)
        true, wrong = band_power(beats), damaged(beats, seed)
        found = correct_beats(wrong)
        assert band_power(wrong) > 3 * true
        assert band_power(found.beats, good=found.good) == pytest.approx(true, rel=0.2)


@pytest.mark.parametrize("gap", ["flat", "missing"])
def test_dropouts_are_counted_as_missed_beats(physio, tmp_path, gap):
    """Six seconds without signal, flat or n/a: some six beats are filled in, none of
    them counts."""
    beats = heart()
    signal = signal_of(beats, "pulse", 100.0, 0.02)
    signal[12_000:12_600] = np.nan if gap == "missing" else 0.0
    found = read_heartbeat(physio(tmp_path, {"cardiac": signal}, 100.0))
    inside = (found.beats[1:] > 120) & (found.beats[:-1] < 126)
    assert found.counts["missed"] >= 4 and not found.good[inside].any()
    assert band_power(found.beats, good=found.good) == pytest.approx(
        band_power(beats), rel=0.2
    )


def test_a_list_of_beats_is_taken_as_it_is(physio, tmp_path):
    beats = heart()
    train = np.zeros(int((beats[-1] + 1) * 500))
    train[np.round(beats * 500).astype(int)] = 1
    found = read_heartbeat(
        physio(tmp_path / "a", {"cardiac": train}, 500.0, recording=None)
    )
    assert found.source == "beats" and np.abs(found.beats - beats).max() <= 0.001
    wide = np.convolve(train, np.ones(150))[
        : len(train)
    ]  # triggers of .3 s, as scanners write them
    for name in (None, "pulse"):
        found = read_heartbeat(
            physio(tmp_path / f"b{name}", {"cardiac": wide}, 500.0, recording=name)
        )
        assert found.source == "beats" and np.abs(found.beats - beats).max() <= 0.001
    assert (
        read_heartbeat(physio(tmp_path / "c", {"cardiac": -wide}, 500.0)).source
        == "beats"
    )
    with pytest.raises(InputError, match="too slow to place the beats"):
        read_heartbeat(physio(tmp_path / "d", {"cardiac": wide[::25]}, 20.0))
    coarse = read_heartbeat(physio(tmp_path / "e", {"cardiac": wide[::8]}, 62.5))
    assert any("rounding of the beats" in flag for flag in coarse.flags)


@pytest.mark.parametrize(
    ("kind", "rate", "source"), [("ecg", 250.0, "ECG"), ("pulse", 100.0, "pulse")]
)
def test_what_is_not_said_is_read_off_the_signal_and_flagged(
    physio, tmp_path, kind, rate, source
):
    signal = signal_of(heart(), kind, rate, 0.05)
    found = read_heartbeat(physio(tmp_path, {"cardiac": signal}, rate, recording=None))
    assert found.source == source and any(
        "does not say" in flag for flag in found.flags
    )


@pytest.mark.parametrize(("kind", "rate"), [("ecg", 250.0), ("pulse", 100.0)])
@pytest.mark.parametrize("mean", [0.5, 0.9, 1.4])
def test_recordings_upside_down_are_turned(physio, tmp_path, kind, rate, mean):
    """Swapped leads, a photodiode the other way round: same beats as upright, at any
    heart rate, and flagged."""
    signal = signal_of(heart(mean=mean), kind, rate, 0.05)
    upright = read_heartbeat(
        physio(tmp_path / "a", {"cardiac": signal}, rate, recording=kind)
    )
    turned = read_heartbeat(
        physio(tmp_path / "b", {"cardiac": -signal}, rate, recording=kind)
    )
    assert (nearest(turned.beats, upright.beats) < 0.01).mean() > 0.99
    assert any("upside down" in flag for flag in turned.flags) and not any(
        "upside" in f for f in upright.flags
    )


def test_a_description_in_the_sidecar_says_what_cardiac_is(physio, tmp_path):
    told = {
        "cardiac": {"Description": "pulse oximeter, left index finger", "Units": "a.u."}
    }
    found = read_heartbeat(
        physio(
            tmp_path,
            {"cardiac": signal_of(heart(), "pulse", 100.0, 0.05)},
            100.0,
            None,
            **told,
        )
    )
    assert found.source == "pulse" and found.flags == ()


@pytest.mark.parametrize(
    "column", ["PPU", "PULS", "puls_wave", "BVP", "oximeter", "Plethysmogram", "PPG"]
)
def test_pulses_under_the_names_that_scanners_give_them(physio, tmp_path, column):
    wave = signal_of(heart(), "pulse", 100.0, 0.05)
    found = read_heartbeat(physio(tmp_path, {column: wave}, 100.0, None))
    assert found.source == "pulse" and found.flags == ()


def test_an_ecg_needs_a_hundred_samples_a_second(physio, tmp_path):
    with pytest.raises(InputError, match="too slow to place the beats of an ECG"):
        read_heartbeat(
            physio(tmp_path, {"ecg": signal_of(heart(), "ecg", 90.0, 0.0)}, 90.0)
        )


def test_text_in_the_table_is_refused(physio, tmp_path):
    visit = physio(tmp_path, {"cardiac": np.random.rand(9000)}, 100.0)
    write_bytes(visit["cardiac"], b"cardiac\n" + b"0.1\n" * 9000)
    with pytest.raises(
        InputError, match="holds text; expected numbers, without a header line"
    ):
        read_heartbeat(visit)


def test_slow_breathing_and_short_recordings_are_flagged(physio, tmp_path):
    beats = heart(duration=100.0)
    pulse = signal_of(beats, "pulse", 100.0, 0.02)
    breath = np.sin(2 * np.pi * 0.09 * np.arange(len(pulse)) / 100)
    visit = physio(tmp_path, {"cardiac": pulse, "respiratory": breath}, 100.0)
    found = HeartRateVariability("lomb").measure(VisitData(visit))
    flags = "; ".join(found.flags)
    assert (
        "breathing at 0.0" in flags
        and "outside the HF band" in flags
        and "below two minutes" in flags
    )
    assert (
        found.details["Kind"].startswith("pulse-rate variability")
        and found.details["Method"] == "lomb"
    )
    assert len(found.values) == len(HeartRateVariability().columns())


def test_breathing_is_found_beside_the_heart(physio, tmp_path):
    beats = heart()
    pulse = signal_of(beats, "pulse", 100.0, 0.02)
    breath = np.sin(2 * np.pi * 0.09 * np.arange(len(pulse)) / 100)
    found = read_heartbeat(
        physio(tmp_path, {"cardiac": pulse, "respiratory": breath}, 100.0)
    )
    assert found.breath == pytest.approx(0.09, abs=0.01)
    assert breathing_rate(np.zeros(5000), 100.0) is None


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"respiratory": np.random.rand(9000)}, {}, "expected a column named cardiac"),
        ({"cardiac": np.zeros(9000)}, {}, "constant or mostly missing"),
        ({"cardiac": np.full(9000, np.nan)}, {}, "constant or mostly missing"),
        (
            {"cardiac": signal_of(heart(duration=30.0), "pulse", 100.0, 0.0)},
            {},
            "at least a minute",
        ),
        (
            {"cardiac": np.random.default_rng(0).normal(size=30_000)},
            {},
            "artefacts \\(limit 20%\\)|at least a minute|too poor",
        ),
        (
            {"cardiac": np.random.rand(9000)},
            {"Columns": ["cardiac", "respiratory"]},
            "lists 2 columns; the table",
        ),
        (
            {"cardiac": np.random.rand(9000)},
            {"SamplingFrequency": "100"},
            "must give Columns and SamplingFrequency",
        ),
        (
            {"cardiac": np.random.rand(9000)},
            {"SamplingFrequency": 0.01},
            "is it a period",
        ),
        (
            {"cardiac": np.random.rand(9000)},
            {"SamplingFrequency": 10},
            "too slow to place the beats",
        ),
    ],
)
def test_recordings_that_cannot_be_used_say_why(
    physio, tmp_path, columns, fields, message
):
    with pytest.raises(InputError, match=message):
        read_heartbeat(physio(tmp_path, columns, 100.0, **fields))
