"""HF-HRV against tachograms whose power is known by construction."""

import json

import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.features.heart_rate import band_power
from cingulum.recordings.files import write_bytes
from cingulum.recordings.heartbeat import read_heartbeat


def beats_of(frequency, amplitude, mean=0.9, duration=360.0):
    """Beats whose intervals (s) swing sinusoidally by `amplitude` ms: their power is amplitude² / 2 ms²."""
    beats = [0.0]
    while beats[-1] < duration:
        beats.append(beats[-1] + mean + amplitude / 1000 * np.sin(2 * np.pi * frequency * beats[-1]))
    return np.array(beats)


@pytest.mark.parametrize(("frequency", "amplitude"), [(0.2, 30.0), (0.25, 60.0), (0.3, 20.0)])
def test_power_of_a_known_tachogram_within_five_percent(frequency, amplitude):
    assert band_power(beats_of(frequency, amplitude)) == pytest.approx(amplitude**2 / 2, rel=0.05)


def test_low_frequencies_stay_outside_the_band():
    assert band_power(beats_of(0.08, 60.0)) < 0.01 * 60.0**2 / 2
    assert band_power(beats_of(0.08, 60.0), (0.04, 0.15)) == pytest.approx(60.0**2 / 2, rel=0.05)


def pulse_file(folder, beats, rate=100.0, columns=("cardiac",)):
    clock = np.arange(int(beats[-1] * rate)) / rate
    since = clock - beats[np.clip(np.searchsorted(beats, clock, side="right") - 1, 0, None)]
    wave = np.exp(-((since - 0.2) ** 2) / (2 * 0.06**2)) + 0.25 * np.exp(-((since - 0.45) ** 2) / (2 * 0.06**2))
    path = folder / "sub-01_ses-pre_task-rest_physio.tsv.gz"
    write_bytes(path, "\n".join(f"{v:.5f}" for v in wave).encode())
    sidecar = {"SamplingFrequency": rate, "StartTime": 0, "Columns": list(columns)}
    path.with_name("sub-01_ses-pre_task-rest_physio.json").write_text(json.dumps(sidecar))
    return path


def test_power_survives_the_way_through_a_pulse_wave(tmp_path):
    """100 samples a second and peak detection in between: within 10 %."""
    found = read_heartbeat(pulse_file(tmp_path, beats_of(0.25, 40.0)))
    assert band_power(found.beats) == pytest.approx(800.0, rel=0.10) and found.corrected < 0.02


def test_missed_beats_are_corrected_and_counted(tmp_path):
    """Every twentieth beat is lost; without correction the power is wrong many times over."""
    beats = beats_of(0.25, 40.0)
    found = read_heartbeat(pulse_file(tmp_path, np.delete(beats, np.arange(10, len(beats) - 10, 20))))
    assert 0.03 < found.corrected < 0.08
    assert band_power(found.beats) == pytest.approx(800.0, rel=0.25)


def test_a_recording_that_is_no_pulse_is_refused(tmp_path):
    path = pulse_file(tmp_path, beats_of(0.25, 40.0), columns=("respiratory",))
    with pytest.raises(InputError, match="expected a column named cardiac"):
        read_heartbeat(path)
    path = pulse_file(tmp_path, beats_of(0.25, 40.0, duration=30.0))
    with pytest.raises(InputError, match="at least a minute"):
        read_heartbeat(path)
