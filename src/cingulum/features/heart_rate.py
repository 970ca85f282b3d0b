"""High-frequency heart rate variability."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from cingulum.features.feature import Feature, Measurement
from cingulum.recordings.opened import Opened

HF_BAND = (0.15, 0.40)
"""Hz; Task Force of the ESC and NASPE 1996, doi:10.1161/01.CIR.93.5.1043."""


def band_power(beats: np.ndarray, band: tuple[float, float] = HF_BAND, rate: float = 4.0) -> float:
    """Power of the beat intervals in a frequency band, ms².

    Intervals are interpolated (cubic) at `rate` Hz, linearly detrended, and integrated over the band of Welch's
    spectrum (Hann windows of 128 s, half overlapping).
    """
    from scipy.interpolate import CubicSpline
    from scipy.signal import welch

    intervals = 1000 * np.diff(beats)
    clock = np.arange(beats[1], beats[-1], 1 / rate)
    tachogram = CubicSpline(beats[1:], intervals)(clock)
    window = min(len(tachogram), int(128 * rate))
    frequency, density = welch(tachogram, rate, nperseg=window, detrend="linear")
    inside = (frequency >= band[0]) & (frequency <= band[1])
    return float(np.trapezoid(density[inside], frequency[inside]))


class HighFrequencyVariability(Feature):
    """HFHRV of Lee et al. 2019: natural logarithm of HF power; of pulse intervals, so pulse-rate variability."""

    name: ClassVar = "hfhrv"
    unit: ClassVar = "ln ms²"
    meaning: ClassVar = "high-frequency (0.15–0.40 Hz) variability of the beat intervals"
    needs: ClassVar = ("cardiac",)
    file: ClassVar = "func/{visit}_recording-cardiac_desc-hfhrv_physio.tsv"

    def measure(self, opened: Opened) -> Measurement:
        return Measurement(np.array([np.log(band_power(opened.heartbeat.beats))]))
