"""Heart rate variability in stated units, bands and methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cingulum.errors import InputError
from cingulum.features.feature import (
    Column,
    Control,
    Feature,
    FeatureOption,
    FeatureOptions,
    Measurement,
    Role,
    Settings,
    StudyRecipe,
)
from cingulum.features.registry import register_feature
from cingulum.io.recording_kinds import CARDIAC, RESPIRATORY

if TYPE_CHECKING:
    import numpy as np

    from cingulum.io.visit import Visit
    from cingulum.signals.heartbeat import Heartbeat
    from cingulum.signals.visit_data import VisitData

# HF power needs about a minute, LF power about two.
SHORTEST = 120.0
"""s of beats below which spectral values are flagged (Task Force 1996)."""


@register_feature
class HighFrequencyVariability(Feature):
    """HFHRV of Lee et al. 2019 (doi:10.1097/j.pain.0000000000001417): natural logarithm
    of HF power; pulse-rate variability where it comes from a pulse."""

    name = "hfhrv"
    label = "Heart rate variability"
    summary = "logarithm of high-frequency power of the beat intervals"
    unit = "ln ms²"
    signature_unit = "ln(ms²)"
    meaning = "high-frequency (0.15–0.40 Hz) variability of the beat intervals"
    needs = (CARDIAC,)
    file = "func/{visit}_recording-cardiac_desc-hfhrv_physio.tsv"
    role = Role.PREDICTOR
    chosen_by_default = True
    colour = "#7a5ba6"
    references = ("elgendi2013", "makowski2021")
    caution = (
        "Where the heart was recorded as a pulse wave and not as an ECG, heart rate "
        "variability is strictly pulse rate variability."
    )

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return heart_recordings(visit)

    def measure(self, data: VisitData) -> Measurement:
        import numpy as np

        from cingulum.signals.interval_spectrum import band_power

        heart = data.heartbeat
        power = log_power(band_power(heart.beats, good=heart.good))
        return _of_beats(np.array([power]), heart, "welch")

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        from cingulum.signals.interval_spectrum import HF_BAND

        return (
            "Heart rate variability: beats by NeuroKit2 (pulse: Elgendi et al. 2013), "
            "placed between samples; missed, extra and ectopic beats (a fifth or more "
            "off the median of their neighbours) repaired and left out of the "
            "spectrum; natural logarithm of the power in ms² between "
            f"{HF_BAND[0]:.2f} and {HF_BAND[1]:.2f} Hz of the intervals (cubic "
            "interpolation at 4 Hz, its damping divided out; Welch, 128 s Hann "
            "windows)."
        )


@register_feature
class HeartRateVariability(Feature):
    """Rate, time-domain and spectral measures of the beat intervals; artefacts
    corrected, their share reported.

    method: how the spectrum is estimated, as `band_power` says
    """

    name = "hrv"
    label = "Heart rate and its variability"
    summary = "rate, SDNN, RMSSD, HF, LF (ms²), share of corrected beats, breathing"
    unit = "see columns"
    meaning = "rate and variability of the beat intervals"
    needs = (CARDIAC,)
    file = "func/{visit}_recording-cardiac_desc-hrv_physio.tsv"
    measured_beside = (CARDIAC,)
    missing_is_gap = True
    overview = ("rate", "ln_hf", "corrected", "breath")
    options = (
        FeatureOption(
            "spectrum",
            "spectrum of the beat intervals",
            default="welch",
            choices=("welch", "lomb", "ar"),
        ),
    )
    controls = (
        Control(
            name="rate",
            column="rate",
            label="Heart rate (control)",
            unit="1/min",
            held_against="pulse and blood flow",
            methods_text="Heart rate: mean over the pulse or ECG recording, a control",
        ),
        Control(
            name="breath",
            column="breath",
            label="Breathing (control)",
            unit="Hz",
            held_against="pulse and blood flow",
            methods_text=(
                "Breathing: main frequency of the respiratory recording, a control"
            ),
            # Known for some visits only, it would be a control of part of a study.
            must_be_complete=True,
            missing_text=(
                "Breathing could not be read, so breathing is no control here"
            ),
        ),
    )

    def __init__(self, method: str = "welch") -> None:
        from cingulum.signals.interval_spectrum import METHODS

        if method not in METHODS:
            raise InputError(
                f"Unknown spectral method {method!r}. Known are {', '.join(METHODS)}."
            )
        self.method = method

    @classmethod
    def from_options(cls, options: FeatureOptions) -> HeartRateVariability:
        return cls(options.values.get("spectrum", "welch"))

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        return heart_recordings(visit)

    def settings(self) -> Settings:
        return {"Method": self.method}

    def columns(self) -> list[Column]:
        return [
            Column("rate", "1/min", "mean heart rate"),
            Column("sdnn", "ms", "standard deviation of the intervals"),
            Column("rmssd", "ms", "root mean square of successive differences"),
            Column("ln_hf", "ln ms²", "logarithm of power 0.15–0.40 Hz"),
            Column("ln_lf", "ln ms²", "logarithm of power 0.04–0.15 Hz"),
            Column("corrected", "1", "share of intervals that were corrected"),
            Column("breath", "Hz", "main frequency of breathing"),
        ]

    def measure(self, data: VisitData) -> Measurement:
        import numpy as np

        from cingulum.signals.interval_spectrum import HF_BAND, LF_BAND

        heart = data.heartbeat
        values = [
            *_time_domain(heart),
            self._log_power(heart, HF_BAND),
            self._log_power(heart, LF_BAND),
            heart.corrected,
            # Most datasets have no belt: a gap in the table, and no failure.
            np.nan if heart.breath is None else heart.breath,
        ]
        return _of_beats(np.array(values), heart, self.method)

    def _log_power(self, heart: Heartbeat, band: tuple[float, float]) -> float:
        from cingulum.signals.interval_spectrum import band_power

        return log_power(
            band_power(heart.beats, band, method=self.method, good=heart.good)
        )


def _of_beats(values: np.ndarray, heart: Heartbeat, method: str) -> Measurement:
    """A measurement of beat intervals, with what a reader should know of the beats."""
    details = beat_details(heart, method)
    return Measurement(values, details=details, flags=beat_flags(heart))


def _time_domain(heart: Heartbeat) -> tuple[float, float, float]:
    """Rate (1/min), SDNN and RMSSD (ms) of the beat intervals that are no artefacts."""
    import numpy as np

    clean = 1000 * heart.intervals[heart.good]
    # A difference counts where both of its intervals do.
    both_good = heart.good[1:] & heart.good[:-1]
    differences = 1000 * np.diff(heart.intervals)[both_good]
    # ms, as the field gives both; the rate is per minute.
    rmssd = float(np.sqrt(np.mean(differences**2)))
    return 60_000 / clean.mean(), clean.std(ddof=1), rmssd


def heart_recordings(visit: Visit) -> tuple[str, ...]:
    """The cardiac recording, and breathing where it was recorded too."""
    # Raises where there is no cardiac recording; breathing may be missing.
    visit[CARDIAC.name]
    if RESPIRATORY.name in visit.files:
        return (CARDIAC.name, RESPIRATORY.name)
    return (CARDIAC.name,)


def log_power(power: float) -> float:
    """Natural logarithm. Raises InputError for no power at all."""
    import numpy as np

    # A synthetic or clipped recording may have intervals of one length.
    if power <= 0:
        raise InputError(
            "The beat intervals do not vary at all; their variability has no logarithm."
        )
    return float(np.log(power))


def beat_details(heart: Heartbeat, method: str) -> Settings:
    """What a sidecar says of the beats."""
    from cingulum.signals.interval_spectrum import HF_BAND, LF_BAND

    # Of a pulse wave, the delay from the heart to the finger varies too.
    kind = "heart rate variability"
    if heart.source == "pulse":
        kind = "pulse-rate variability (from a pulse wave)"
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


def beat_flags(heart: Heartbeat) -> tuple[str, ...]:
    """What a reader should know of the beats."""
    from cingulum.signals.interval_spectrum import HF_BAND

    flags = list(heart.flags)
    # Vagal tone is seen where breathing modulates the heart rate.
    if heart.breath is not None and not HF_BAND[0] <= heart.breath <= HF_BAND[1]:
        flags.append(
            f"breathing at {heart.breath:.2f} Hz lies outside the HF band, which then "
            "misses vagal tone"
        )
    if heart.seconds < SHORTEST:
        flags.append(
            f"only {heart.seconds:.0f} s of beats: spectral values are unreliable "
            "below two minutes"
        )
    return tuple(flags)
