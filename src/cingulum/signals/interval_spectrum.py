"""Spectral power of the intervals between heartbeats, in ms²."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_toeplitz
from scipy.signal import detrend, lombscargle, welch

from cingulum.errors import InputError

HF_BAND = (0.15, 0.40)
LF_BAND = (0.04, 0.15)
"""Hz; Task Force of the ESC and NASPE 1996, doi:10.1161/01.CIR.93.5.1043."""

METHODS = ("welch", "lomb", "ar")

LONG_GAP = 5.0
"""s without a beat that counts: what is before and after are separate stretches, and
their spectra are averaged."""

FEWEST_INTERVALS = 30

WINDOW = 128.0
"""s of a window of Welch's method: ten cycles of the slowest HF rhythm and more."""

Spectrum = tuple[np.ndarray, np.ndarray]
"""Frequencies in Hz, and power density in ms²/Hz."""


def band_power(
    beats: np.ndarray,
    band: tuple[float, float] = HF_BAND,
    rate: float = 4.0,
    method: str = "welch",
    good: np.ndarray | None = None,
) -> float:
    """Power of the beat intervals in a frequency band, ms².

    beats: times in s
    good: (interval,) which intervals count; default all
    method: `welch`: intervals interpolated (cubic) at `rate` Hz, linearly detrended,
        Hann windows of 128 s, half overlapping; `ar`: the same signal, autoregressive
        spectrum of order 16 (Yule-Walker); `lomb`: Lomb-Scargle of the intervals as
        they are, without interpolation

    A cubic spline through one value per beat damps fast rhythms: breathing at 0.36 Hz
    and 57 beats per minute loses a quarter of its power. The known response of the
    spline is divided out of the interpolated spectra. Stretches apart by LONG_GAP are
    averaged, and power refers to the share of time in which beats were recorded.
    Raises InputError for an unknown method or too few intervals.
    """
    if method not in METHODS:
        raise InputError(
            f"Unknown spectral method {method!r}. Known are {', '.join(METHODS)}."
        )
    intervals = 1000 * np.diff(beats)
    usable = np.ones(len(intervals), bool) if good is None else good
    if usable.sum() < FEWEST_INTERVALS:
        raise InputError(
            f"Only {usable.sum()} usable beat intervals; at least {FEWEST_INTERVALS} "
            "are needed."
        )
    times = np.asarray(beats)[1:][usable]
    values = intervals[usable]
    usual = float(np.median(values)) / 1000
    if method == "lomb":
        spectrum = lomb_scargle_spectrum(times, values, usual * len(values))
        return _power_within(spectrum, band)
    estimate = welch_spectrum if method == "welch" else autoregressive_spectrum
    return _interpolated_power(times, values, band, rate, estimate)


def _interpolated_power(
    times: np.ndarray,
    values: np.ndarray,
    band: tuple[float, float],
    rate: float,
    estimate: Callable[[np.ndarray, float], Spectrum],
) -> float:
    """Power averaged over stretches without a long gap, each weighted by its length."""
    usual = float(np.median(values)) / 1000
    total = 0.0
    seconds = 0.0
    for stretch in _stretches(times):
        when = times[stretch]
        duration = when[-1] - when[0]
        tachogram = _evenly_sampled(when, values[stretch], rate)
        frequency, density = estimate(tachogram, rate)
        density = density / spline_response(frequency * usual) ** 2
        observed = 1 - _unobserved_seconds(when, usual, band) / duration
        total += duration * _power_within((frequency, density), band) / observed
        seconds += duration
    if seconds == 0:
        raise InputError(
            f"No stretch of beats without a gap of {LONG_GAP:g} s holds "
            f"{FEWEST_INTERVALS} of them."
        )
    return total / seconds


def _stretches(times: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of beats without a long gap between them, where there are enough."""
    gaps = np.flatnonzero(np.diff(times) > LONG_GAP)
    for stretch in np.split(np.arange(len(times)), gaps + 1):
        if len(stretch) >= FEWEST_INTERVALS:
            yield stretch


def _unobserved_seconds(
    times: np.ndarray, usual: float, band: tuple[float, float]
) -> float:
    """Seconds in which a rhythm of the band could not be observed: a line drawn across
    more than a quarter of its period hardly carries it, across less it does."""
    missing = np.diff(times) - usual
    quarter_period = 0.25 / np.sqrt(band[0] * band[1])
    return float(missing[missing > quarter_period - 0.5 * usual].sum())


def _power_within(spectrum: Spectrum, band: tuple[float, float]) -> float:
    frequency, density = spectrum
    inside = (frequency >= band[0]) & (frequency <= band[1])
    return float(np.trapezoid(density[inside], frequency[inside]))


def _evenly_sampled(times: np.ndarray, values: np.ndarray, rate: float) -> np.ndarray:
    return CubicSpline(times, values)(np.arange(times[0], times[-1], 1 / rate))


def spline_response(x: np.ndarray) -> np.ndarray:
    """Amplitude that cubic spline interpolation leaves of a sine of x cycles per
    sample; beyond ½, that at ½.

    The cardinal cubic spline of Unser 1999, doi:10.1109/79.799930.
    """
    x = np.minimum(x, 0.5)
    return np.sinc(x) ** 4 / sum(np.sinc(x - k) ** 4 for k in range(-4, 5))


def welch_spectrum(tachogram: np.ndarray, rate: float) -> Spectrum:
    """Spectrum by Welch's method, linearly detrended."""
    window = min(len(tachogram), int(WINDOW * rate))
    return welch(tachogram, rate, nperseg=window, detrend="linear")


def autoregressive_spectrum(
    tachogram: np.ndarray, rate: float, order: int = 16
) -> Spectrum:
    """Spectrum of the autoregressive process with the signal's first autocovariances
    (Yule-Walker)."""
    signal = detrend(tachogram)
    n = len(signal)
    products = [signal[: n - lag] @ signal[lag:] for lag in range(order + 1)]
    covariance = np.array(products) / n
    covariance[0] *= 1 + 1e-9  # a pure sine has a singular system
    weights = solve_toeplitz(covariance[:-1], covariance[1:])
    power = covariance[0] - weights @ covariance[1:]
    response = np.fft.rfft(np.r_[1.0, -weights], 1 << 17)
    frequency = np.linspace(0, rate / 2, len(response))
    return frequency, 2 * power / rate / np.abs(response) ** 2


def lomb_scargle_spectrum(
    times: np.ndarray, values: np.ndarray, seconds: float
) -> Spectrum:
    """Lomb-Scargle periodogram of the detrended intervals.

    seconds: of intervals that count, without what was corrected between them
    """
    trend = np.polynomial.Polynomial.fit(times, values, 1)
    frequency = np.arange(0.02, 0.5, 1 / (8 * (times[-1] - times[0])))
    power = lombscargle(times, values - trend(times), 2 * np.pi * frequency)
    # Scaled so that a sine of amplitude A integrates to A²/2.
    return frequency, 2 * seconds / len(times) * power
