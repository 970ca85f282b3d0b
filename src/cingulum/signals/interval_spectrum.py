"""Spectral power of the intervals between heartbeats, in ms²."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    _check_method(method)
    tachogram = _Tachogram.of(beats, good)
    if method == "lomb":
        return _power_within(tachogram.lomb_scargle(), band)
    estimate = welch_spectrum if method == "welch" else autoregressive_spectrum
    return _interpolated_power(tachogram, band, rate, estimate)


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise InputError(
            f"Unknown spectral method {method!r}. Known are {', '.join(METHODS)}."
        )


@dataclass(frozen=True, eq=False)
class _Tachogram:
    """Intervals that count, in ms, and the time in s at which each ends."""

    times: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, beats: np.ndarray, good: np.ndarray | None) -> _Tachogram:
        intervals = 1000 * np.diff(beats)
        usable = np.ones(len(intervals), bool) if good is None else good
        _check_enough(int(usable.sum()))
        return cls(np.asarray(beats)[1:][usable], intervals[usable])

    @property
    def usual(self) -> float:
        """Median interval, s."""
        return float(np.median(self.values)) / 1000

    @property
    def duration(self) -> float:
        return self.times[-1] - self.times[0]

    def lomb_scargle(self) -> Spectrum:
        seconds = self.usual * len(self.values)
        return lomb_scargle_spectrum(self.times, self.values, seconds)

    def stretches(self) -> Iterator[_Tachogram]:
        """Parts without a long gap between beats, where they hold enough."""
        gaps = np.flatnonzero(np.diff(self.times) > LONG_GAP)
        for part in np.split(np.arange(len(self.times)), gaps + 1):
            if len(part) >= FEWEST_INTERVALS:
                yield _Tachogram(self.times[part], self.values[part])

    def evenly_sampled(self, rate: float) -> np.ndarray:
        spline = CubicSpline(self.times, self.values)
        return spline(np.arange(self.times[0], self.times[-1], 1 / rate))


def _check_enough(count: int) -> None:
    if count < FEWEST_INTERVALS:
        raise InputError(
            f"Only {count} usable beat intervals; at least {FEWEST_INTERVALS} "
            "are needed."
        )


def _interpolated_power(
    tachogram: _Tachogram,
    band: tuple[float, float],
    rate: float,
    estimate: Callable[[np.ndarray, float], Spectrum],
) -> float:
    """Power averaged over stretches without a long gap, each weighted by its length."""
    # Of the whole recording: a short stretch may hold slow beats only.
    usual = tachogram.usual
    total = 0.0
    seconds = 0.0
    for stretch in tachogram.stretches():
        spectrum = estimate(stretch.evenly_sampled(rate), rate)
        power = _power_within(_without_damping(spectrum, usual), band)
        unobserved = _unobserved_seconds(stretch.times, usual, band)
        observed = 1 - unobserved / stretch.duration
        total += stretch.duration * power / observed
        seconds += stretch.duration
    _check_any_stretch(seconds)
    return total / seconds


def _without_damping(spectrum: Spectrum, usual: float) -> Spectrum:
    """The spectrum before a spline through one interval per beat damped it."""
    frequency, density = spectrum
    return frequency, density / spline_response(frequency * usual) ** 2


def _check_any_stretch(seconds: float) -> None:
    if seconds == 0:
        raise InputError(
            f"No stretch of beats without a gap of {LONG_GAP:g} s holds "
            f"{FEWEST_INTERVALS} of them."
        )


def _unobserved_seconds(
    times: np.ndarray, usual: float, band: tuple[float, float]
) -> float:
    """Seconds in which a rhythm of the band could not be observed: a line drawn across
    more than a quarter of its period hardly carries it, across less it does."""
    missing = np.diff(times) - usual
    longest = _quarter_period(band) - 0.5 * usual
    return float(missing[missing > longest].sum())


def _quarter_period(band: tuple[float, float]) -> float:
    # Of the band's middle on a logarithmic scale.
    return 0.25 / np.sqrt(band[0] * band[1])


def _power_within(spectrum: Spectrum, band: tuple[float, float]) -> float:
    frequency, density = spectrum
    inside = (frequency >= band[0]) & (frequency <= band[1])
    return float(np.trapezoid(density[inside], frequency[inside]))


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
    covariance = _autocovariance(detrend(tachogram), order)
    # A pure sine has a singular system.
    covariance[0] *= 1 + 1e-9
    weights = solve_toeplitz(covariance[:-1], covariance[1:])
    power = covariance[0] - weights @ covariance[1:]
    # Padded, so that narrow peaks are sampled too.
    response = np.fft.rfft(np.r_[1.0, -weights], 1 << 17)
    frequency = np.linspace(0, rate / 2, len(response))
    return frequency, 2 * power / rate / np.abs(response) ** 2


def _autocovariance(signal: np.ndarray, order: int) -> np.ndarray:
    """Autocovariance at lags 0 to `order`, divided by the length at every lag: only so
    is the process stationary."""
    n = len(signal)
    products = [signal[: n - lag] @ signal[lag:] for lag in range(order + 1)]
    return np.array(products) / n


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
