"""Heart rate variability against tachograms whose power is known by construction."""

import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.signals.interval_spectrum import METHODS, band_power, spline_response


def beats_of(frequency, amplitude, mean=0.9, duration=360.0):
    """Beats whose intervals (s) swing sinusoidally by `amplitude` ms: their power is
    amplitude² / 2 ms²."""
    beats = [0.0]
    while beats[-1] < duration:
        beats.append(
            beats[-1]
            + mean
            + amplitude / 1000 * np.sin(2 * np.pi * frequency * beats[-1])
        )
    return np.array(beats)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frequency", [0.17, 0.2, 0.25, 0.3, 0.36])
@pytest.mark.parametrize("amplitude", [5.0, 10.0, 20.0, 40.0, 60.0])
def test_power_of_a_known_tachogram_within_two_percent(frequency, amplitude, method):
    """Five amplitudes, five breathing rates, three hearts (57 to 75 beats a minute):
    asked for are 5 %."""
    for mean in (0.8, 0.9, 1.05):
        found = band_power(beats_of(frequency, amplitude, mean), method=method)
        assert found == pytest.approx(amplitude**2 / 2, rel=0.02)


def test_without_the_splines_response_fast_breathing_would_lose_a_quarter():
    """The correction is needed: at .36 Hz and 57 beats a minute, .76 of the power is
    what interpolation leaves."""
    assert spline_response(np.array([0.36 * 1.05]))[0] ** 2 == pytest.approx(
        0.76, abs=0.02
    )
    assert spline_response(np.array([0.0]))[0] == pytest.approx(1.0)


@pytest.mark.parametrize("method", METHODS)
def test_low_frequencies_stay_outside_the_band(method):
    assert band_power(beats_of(0.08, 60.0), method=method) < 0.02 * 60.0**2 / 2
    assert band_power(
        beats_of(0.08, 60.0), (0.04, 0.15), method=method
    ) == pytest.approx(60.0**2 / 2, rel=0.03)


def test_methods_agree_on_a_broad_spectrum():
    """Breathing that wanders: three estimates of one power, within 15 % of each
    other."""
    rng, beats = np.random.default_rng(0), [0.0]
    phase = 0.0
    while beats[-1] < 360:
        phase += 2 * np.pi * (0.25 + 0.03 * rng.normal()) * 0.9
        beats.append(beats[-1] + 0.9 + 0.04 * np.sin(phase))
    powers = [band_power(np.array(beats), method=method) for method in METHODS]
    assert max(powers) / min(powers) < 1.15


def rhythms(mean=0.9, duration=300.0):
    """Beats with breathing at .25 Hz and a slow wave at .1 Hz, of 450 ms² each."""
    beats = [0.0]
    while beats[-1] < duration:
        now = beats[-1]
        beats.append(
            now
            + mean
            + 0.03 * (np.sin(2 * np.pi * 0.25 * now) + np.sin(2 * np.pi * 0.1 * now))
        )
    return np.array(beats)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hole", ["25 s", "45 s", "every twelfth beat"])
def test_what_was_not_seen_takes_no_power_away(method, hole):
    """Half a minute lost anywhere, three quarters, or every twelfth beat ectopic: HF
    and LF within 15 % of 450 ms²."""
    beats = rhythms()
    for start in (40.0, 120.0, 200.0):
        good = np.ones(len(beats) - 1, bool)
        if hole == "every twelfth beat":
            good[int(start) % 12 :: 12] = good[1 + int(start) % 12 :: 12] = False
        else:
            good[
                (beats[1:] > start) & (beats[:-1] < start + float(hole.split()[0]))
            ] = False
        for band in ((0.15, 0.40), (0.04, 0.15)):
            assert band_power(beats, band, method=method, good=good) == pytest.approx(
                450, rel=0.15
            )


def test_unknown_methods_and_too_few_intervals_are_refused():
    with pytest.raises(InputError, match="Known are welch, lomb, ar"):
        band_power(beats_of(0.25, 20.0), method="fft")
    with pytest.raises(InputError, match="at least 30"):
        band_power(np.arange(20.0))
