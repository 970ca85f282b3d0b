"""Heart rate variability in stated units, bands and methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cingulum.errors import InputError
from cingulum.features.feature import Column, Feature, Measurement
from cingulum.io.visit import Visit
from cingulum.signals.heartbeat import Heartbeat
from cingulum.signals.visit_data import VisitData

HF_BAND = (0.15, 0.40)
LF_BAND = (0.04, 0.15)
"""Hz; Task Force of the ESC and NASPE 1996, doi:10.1161/01.CIR.93.5.1043."""

METHODS = ("welch", "lomb", "ar")

LONG_GAP = 5.0
"""s without a beat that counts: what is before and after are separate stretches, and
their spectra are averaged."""


def band_power(
    beats: np.ndarray,
    band: tuple[float, float] = HF_BAND,
    rate: float = 4.0,
    method: str = "welch",
    good: np.ndarray | None = None,
) -> float:
    """Power of the beat intervals in a frequency band, ms².

    beats: times in s; good: (interval,) which intervals count, default all
    method: "welch": intervals interpolated (cubic) at `rate` Hz, linearly detrended,
    Hann windows of 128 s, half overlapping; "ar": the same signal, autoregressive
    spectrum of order 16 (Yule-Walker); "lomb": Lomb-Scargle of the intervals as they
    come, without interpolation A cubic spline through one value a beat damps fast
    rhythms (breathing at .36 Hz and 57 beats a minute loses a quarter of its power);
    its known response is divided out of the interpolated spectra. Stretches apart by
    LONG_GAP are averaged, and power stands on the share of time that was seen. Raises
    InputError for an unknown method or no intervals.
    """
    intervals = 1000 * np.diff(beats)
    kept = np.ones(len(intervals), bool) if good is None else good
    if method not in METHODS:
        raise InputError(
            f"Unknown spectral method {method!r}. Known are {', '.join(METHODS)}."
        )
    if kept.sum() < 30:
        raise InputError(
            f"Only {kept.sum()} usable beat intervals; at least 30 are needed."
        )
    when, values = np.asarray(beats)[1:][kept], intervals[kept]
    usual = float(np.median(values)) / 1000
    if method == "lomb":
        return _within(*_lomb(when, values, usual * len(values)), band)
    total, weight = 0.0, 0.0
    for part in np.split(
        np.arange(len(when)), np.flatnonzero(np.diff(when) > LONG_GAP) + 1
    ):
        duration = when[part[-1]] - when[part[0]]
        if len(part) < 30:
            continue
        tachogram = _evenly(when[part], values[part], rate)
        frequency, density = (
            _welch(tachogram, rate)
            if method == "welch"
            else _autoregressive(tachogram, rate)
        )
        density = density / spline_response(frequency * usual) ** 2
        seen = 1 - _unseen(when[part], usual, band) / duration
        total, weight = (
            total + duration * _within(frequency, density, band) / seen,
            weight + duration,
        )
    if weight == 0:
        raise InputError(
            f"No stretch of beats without a gap of {LONG_GAP:g} s holds 30 of them."
        )
    return total / weight


def _unseen(when: np.ndarray, usual: float, band: tuple[float, float]) -> float:
    """Seconds in which a rhythm of the band was not seen: a line drawn across more than
    a quarter of its period hardly carries it, across less it does."""
    missing = np.diff(when) - usual
    return float(
        missing[missing > 0.25 / np.sqrt(band[0] * band[1]) - 0.5 * usual].sum()
    )


def _within(
    frequency: np.ndarray, density: np.ndarray, band: tuple[float, float]
) -> float:
    inside = (frequency >= band[0]) & (frequency <= band[1])
    return float(np.trapezoid(density[inside], frequency[inside]))


def _evenly(when: np.ndarray, values: np.ndarray, rate: float) -> np.ndarray:
    from scipy.interpolate import CubicSpline

    return CubicSpline(when, values)(np.arange(when[0], when[-1], 1 / rate))


def _welch(tachogram: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.signal import welch

    window = min(len(tachogram), int(128 * rate))
    return welch(tachogram, rate, nperseg=window, detrend="linear")


def spline_response(x: np.ndarray) -> np.ndarray:
    """Amplitude that cubic spline interpolation leaves of a sine of x cycles a sample;
    beyond ½, that at ½.

    The cardinal cubic spline of Unser 1999, doi:10.1109/79.799930.
    """
    x = np.minimum(x, 0.5)
    return np.sinc(x) ** 4 / sum(np.sinc(x - k) ** 4 for k in range(-4, 5))


def _autoregressive(
    tachogram: np.ndarray, rate: float, order: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Spectrum of the autoregressive process with the signal's first autocovariances
    (Yule-Walker)."""
    from scipy.linalg import solve_toeplitz
    from scipy.signal import detrend

    signal = detrend(tachogram)
    n = len(signal)
    covariance = (
        np.array([signal[: n - lag] @ signal[lag:] for lag in range(order + 1)]) / n
    )
    covariance[0] *= 1 + 1e-9  # a pure sine has a singular system
    weights = solve_toeplitz(covariance[:-1], covariance[1:])
    power = covariance[0] - weights @ covariance[1:]
    response = np.fft.rfft(np.r_[1.0, -weights], 1 << 17)
    return np.linspace(0, rate / 2, len(response)), 2 * power / rate / np.abs(
        response
    ) ** 2


def _lomb(
    when: np.ndarray, values: np.ndarray, seen: float
) -> tuple[np.ndarray, np.ndarray]:
    """seen: seconds of intervals that count, without what was corrected between
    them."""
    from scipy.signal import lombscargle

    trend = np.polynomial.Polynomial.fit(when, values, 1)
    frequency = np.arange(0.02, 0.5, 1 / (8 * (when[-1] - when[0])))
    power = lombscargle(when, values - trend(when), 2 * np.pi * frequency)
    return frequency, 2 * seen / len(
        when
    ) * power  # so that a sine of amplitude A integrates to A²/2


def _logarithm(power: float) -> float:
    if power <= 0:
        raise InputError(
            "The beat intervals do not vary at all; their variability has no logarithm."
        )
    return float(np.log(power))


def _told(heart: Heartbeat, method: str) -> dict[str, object]:
    """What a sidecar says of the beats."""
    kind = (
        "pulse-rate variability (from a pulse wave)"
        if heart.source == "pulse"
        else "heart rate variability"
    )
    return {
        "Kind": kind,
        "Source": heart.source,
        "Beats": len(heart.beats),
        "CorrectedShare": heart.corrected,
        "Corrections": dict(heart.counts),
        "Method": method,
        "HFBand": list(HF_BAND),
        "LFBand": list(LF_BAND),
        "BreathingRate": heart.breath,
        "Seconds": heart.seconds,
    }


def _flags(heart: Heartbeat) -> tuple[str, ...]:
    flags = list(heart.flags)
    if heart.breath is not None and not HF_BAND[0] <= heart.breath <= HF_BAND[1]:
        flags.append(
            f"breathing at {heart.breath:.2f} Hz lies outside the HF band, which then "
            "misses vagal tone"
        )
    if heart.seconds < 120:
        flags.append(
            f"only {heart.seconds:.0f} s of beats: spectral values are unreliable "
            "below two minutes"
        )
    return tuple(flags)


def _kinds(visit: Visit) -> tuple[str, ...]:
    visit["cardiac"]
    return ("cardiac", "respiratory") if "respiratory" in visit.files else ("cardiac",)


class HighFrequencyVariability(Feature):
    """HFHRV of Lee et al. 2019: natural logarithm of HF power; pulse-rate variability
    where it comes from a pulse."""

    name: ClassVar = "hfhrv"
    unit: ClassVar = "ln ms²"
    meaning: ClassVar = (
        "high-frequency (0.15–0.40 Hz) variability of the beat intervals"
    )
    needs: ClassVar = ("cardiac",)
    file: ClassVar = "func/{visit}_recording-cardiac_desc-hfhrv_physio.tsv"

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        return _kinds(visit)

    def measure(self, opened: VisitData) -> Measurement:
        heart = opened.heartbeat
        value = _logarithm(band_power(heart.beats, good=heart.good))
        return Measurement(
            np.array([value]), details=_told(heart, "welch"), flags=_flags(heart)
        )


class HeartRateVariability(Feature):
    """Rate, time-domain and spectral measures of the beat intervals; artefacts
    corrected, their share reported.

    method: how the spectrum is estimated, as `band_power` says
    """

    name: ClassVar = "hrv"
    unit: ClassVar = "see columns"
    meaning: ClassVar = "rate and variability of the beat intervals"
    needs: ClassVar = ("cardiac",)
    file: ClassVar = "func/{visit}_recording-cardiac_desc-hrv_physio.tsv"

    COLUMNS: ClassVar = {
        "rate": ("1/min", "mean heart rate"),
        "sdnn": ("ms", "standard deviation of the intervals"),
        "rmssd": ("ms", "root mean square of successive differences"),
        "ln_hf": ("ln ms²", "logarithm of power 0.15–0.40 Hz"),
        "ln_lf": ("ln ms²", "logarithm of power 0.04–0.15 Hz"),
        "corrected": ("1", "share of intervals that were corrected"),
        "breath": ("Hz", "main frequency of breathing"),
    }

    def __init__(self, method: str = "welch") -> None:
        if method not in METHODS:
            raise InputError(
                f"Unknown spectral method {method!r}. Known are {', '.join(METHODS)}."
            )
        self.method = method

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        return _kinds(visit)

    def settings(self) -> Mapping[str, Any]:
        return {"Method": self.method}

    def columns(self) -> list[Column]:
        return [
            Column(name, unit, meaning)
            for name, (unit, meaning) in self.COLUMNS.items()
        ]

    def measure(self, opened: VisitData) -> Measurement:
        heart = opened.heartbeat
        clean, together = (
            1000 * heart.intervals[heart.good],
            heart.good[1:] & heart.good[:-1],
        )
        steps = 1000 * np.diff(heart.intervals)[together]
        power = [
            _logarithm(
                band_power(heart.beats, band, method=self.method, good=heart.good)
            )
            for band in (HF_BAND, LF_BAND)
        ]
        values = [
            60_000 / clean.mean(),
            clean.std(ddof=1),
            float(np.sqrt(np.mean(steps**2))),
            *power,
            heart.corrected,
            np.nan if heart.breath is None else heart.breath,
        ]
        return Measurement(
            np.array(values), details=_told(heart, self.method), flags=_flags(heart)
        )
