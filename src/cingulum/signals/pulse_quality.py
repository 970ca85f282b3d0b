"""Whether a cardiac column is a wave of beats, and a good one: values that are rates,
flat tops, beats that do not look like the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SLOWEST_BEAT = 0.6
"""Hz: what a heart does not beat more slowly than at rest."""

FEWEST_FAST = 0.2
"""Share of a signal's variance above `SLOWEST_BEAT` below which it is no wave."""

RATES = (30.0, 220.0)
"""Beats a minute: between which nearly all values of a rate lie."""

SMOOTH = 3.0
"""Beats a minute: what a rate that was resampled varies within a beat."""

AT_A_RAIL = 0.005
"""Share of samples at the largest or smallest value that is flagged: a signal that is
not cut touches each of them once or twice."""

WINDOWS = {"ECG": (0.08, 0.08), "pulse": (0.3, 0.4)}
"""Seconds before and after a beat that its shape is compared over."""

ALIKE = 0.9
"""Correlation with the template from which a beat looks like the others."""

FEWEST_ALIKE = {"ECG": 0.95, "pulse": 0.97}
"""Share of such beats below which a recording is flagged: a wave that is smooth moves
further under a spike than a sharp one."""

USELESS = 0.5
"""Share below which it is refused."""


def holds_rates(values: np.ndarray, rate: float) -> bool:
    """Whether a column holds heart rates (beats a minute), and no wave: plausible
    numbers that vary more slowly than a heart beats.

    values: n/a as NaN; rate: samples a second
    """
    known = values[np.isfinite(values)]
    low, high = RATES
    if len(known) < 2 or np.mean((known > low) & (known < high)) < 0.99:
        return False
    deviations = known - known.mean()
    power = np.abs(np.fft.rfft(deviations)) ** 2
    frequencies = np.fft.rfftfreq(len(deviations), 1 / rate)
    total = power.sum()
    if total == 0:
        return False
    fast = power[frequencies >= SLOWEST_BEAT].sum()
    fast_deviation = np.sqrt(fast / total) * deviations.std()
    return bool(fast / total < FEWEST_FAST and fast_deviation < SMOOTH)


def share_at_rails(values: np.ndarray) -> float:
    """Share of samples at the largest or at the smallest value, whichever is more, in
    rows of two or more."""
    known = values[np.isfinite(values)]
    return max(_share_at(known, known.max()), _share_at(known, known.min()))


def _share_at(values: np.ndarray, rail: float) -> float:
    is_there = values == rail
    # A single sample is an ordinary peak.
    in_a_row = is_there & (np.r_[is_there[1:], False] | np.r_[False, is_there[:-1]])
    return float(in_a_row.mean())


def share_alike(
    values: np.ndarray, beats: np.ndarray, rate: float, source: str
) -> float:
    """Share of beats whose wave correlates with the median wave (template matching,
    Orphanidou et al. 2015, doi:10.1109/JBHI.2014.2338351).

    values: the signal in the band in which beats are looked for, without gaps
    beats: sample numbers; source: ECG or pulse
    """
    waves = _waves(values, beats, rate, WINDOWS[source])
    if len(waves) < 2:
        return 0.0
    template = _unit(np.median(waves, 0))
    correlations = _unit(waves) @ template
    return float(np.mean(correlations >= ALIKE))


def _waves(
    values: np.ndarray, beats: np.ndarray, rate: float, window: tuple[float, float]
) -> np.ndarray:
    """(beat, sample): the signal around each beat."""
    before, after = (round(seconds * rate) for seconds in window)
    inside = beats[(beats >= before) & (beats + after < len(values))]
    return np.array([values[beat - before : beat + after] for beat in inside])


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(-1, keepdims=True)
    length = np.sqrt((centred**2).sum(-1, keepdims=True))
    return centred / np.where(length > 0, length, 1.0)


def quality_flags(rails: float, alike: float, source: str) -> Iterator[str]:
    """What a reader should know of the signal."""
    if rails > AT_A_RAIL:
        yield (
            f"the signal is clipped: {rails:.1%} of its samples lie at one end of its "
            "range, where the time of a beat is unknown"
        )
    if alike < FEWEST_ALIKE[source]:
        yield (
            f"poor signal: only {alike:.0%} of the beats have the shape of the others"
        )
