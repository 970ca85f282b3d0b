"""Whether a cardiac column is a wave of beats, and a good one: values that are rates,
flat tops, beats that do not look like the others or whose time depends on how it is
measured."""

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

FEWEST_ALIKE = 0.98
"""Share of such beats below which a recording is flagged."""

PLACING = {"ECG": 0.03, "pulse": 0.12}
"""Seconds before and after a peak whose shape tells the time of the beat."""

PLACED_ALIKE = 0.12
"""Difference in ln HF power between both ways of placing beats above which a recording
is flagged."""

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


def look_alike(
    values: np.ndarray, beats: np.ndarray, rate: float, source: str
) -> np.ndarray:
    """Which beats (beat,) have a wave that correlates with the median wave (template
    matching, Orphanidou et al. 2015, doi:10.1109/JBHI.2014.2338351); True at the ends
    of the signal, where there is no whole wave.

    values: the signal in the band in which beats are looked for, without gaps
    beats: sample numbers; source: ECG or pulse
    """
    before, after = (round(seconds * rate) for seconds in WINDOWS[source])
    is_inside = (beats >= before) & (beats + after < len(values))
    if is_inside.sum() < 2:
        return np.zeros(len(beats), bool)
    waves = values[beats[is_inside][:, None] + np.arange(-before, after)]
    template = _unit(np.median(waves, 0))
    is_alike = np.ones(len(beats), bool)
    is_alike[is_inside] = _unit(waves) @ template >= ALIKE
    return is_alike


def times_by_shape(
    values: np.ndarray, beats: np.ndarray, rate: float, source: str
) -> np.ndarray:
    """Times (beat,) in s at which the wave near each peak resembles the median wave
    most: a second opinion, which noise moves less than the peak itself. Beats at the
    ends of the signal are left out. Waves of long beats are wide, which moves their
    peak and their shape apart; this is no uncertainty and is taken out.

    values, beats, source: as of `look_alike`
    """
    reach = round(PLACING[source] * rate)
    inner = beats[(beats >= 2 * reach) & (beats + 2 * reach < len(values))]
    if len(inner) < 2 or reach < 2:
        return np.array([])
    window = np.arange(-reach, reach)
    template = _unit(np.median(values[inner[:, None] + window], 0))
    lags = np.arange(-reach, reach + 1)
    likeness = np.stack(
        [_unit(values[(inner + lag)[:, None] + window]) @ template for lag in lags], 1
    )
    # Without the first and the last lag, which have one neighbour only.
    best = likeness[:, 1:-1].argmax(1) + 1
    first_of_row = likeness.shape[1] * np.arange(len(best))
    fraction = top_of_parabola(likeness.ravel(), first_of_row + best)
    by_shape = (inner + lags[best] + fraction) / rate
    by_peak = (inner + top_of_parabola(values, inner)) / rate
    return by_peak + _without_length(by_shape - by_peak, np.diff(by_shape))


def _without_length(shifts: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """What a regression of shifts (beat,) on the interval before and after each beat
    leaves."""
    design = np.column_stack(
        [np.ones(len(shifts)), np.r_[intervals[0], intervals], np.r_[intervals, 0]]
    )
    design[-1, 2] = intervals[-1]
    return shifts - design @ np.linalg.lstsq(design, shifts, rcond=None)[0]


def top_of_parabola(values: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Where between samples a peak lies: the top of the parabola through it and its
    neighbours, in samples from the peak."""
    before = values[peaks - 1]
    after = values[peaks + 1]
    curvature = before - 2 * values[peaks] + after
    # Three equal samples have no top.
    has_top = np.abs(curvature) > 1e-12
    divisor = np.where(has_top, 2 * curvature, 1.0)
    shift = np.where(has_top, (before - after) / divisor, 0.0)
    return np.clip(shift, -0.5, 0.5)


def _unit(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(-1, keepdims=True)
    length = np.sqrt((centred**2).sum(-1, keepdims=True))
    return centred / np.where(length > 0, length, 1.0)


def quality_flags(rails: float, alike: float) -> Iterator[str]:
    """What a reader should know of the signal."""
    if rails > AT_A_RAIL:
        yield (
            f"the signal is clipped: {rails:.1%} of its samples lie at one end of its "
            "range, where the time of a beat is unknown"
        )
    if alike < FEWEST_ALIKE:
        yield (
            f"poor signal: only {alike:.0%} of the beats have the shape of the others"
        )
