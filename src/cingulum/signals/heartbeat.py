"""Beats from an ECG, a pulse wave or a list of beats, as BIDS physio files hold them;
and the breathing beside them."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.checks import is_number
from cingulum.io.files import JsonObject, is_text, read_table
from cingulum.io.images import read_header
from cingulum.io.recording_kinds import BOLD
from cingulum.io.visit import Visit
from cingulum.signals.interval_spectrum import band_power
from cingulum.signals.pulse_quality import (
    PLACED_ALIKE,
    USELESS,
    holds_rates,
    look_alike,
    quality_flags,
    share_at_rails,
    times_by_shape,
    top_of_parabola,
)

MOST_ARTEFACTS = 0.2
"""Share of corrected intervals above which a recording is refused."""

MANY_ARTEFACTS = 0.05
"""Share above which it is flagged (Task Force 1996 asks for 85 to 95 % normal
intervals)."""

PEAKED = 7.0
"""Kurtosis of the slope that separates ECG (10 to 17) from pulse (3 to 5), with noise
up to a tenth of the peak."""

CARDIAC_COLUMNS = (
    "cardiac",
    "ecg",
    "ekg",
    "ppg",
    "ppu",
    "puls",
    "pleth",
    "bvp",
    "oxi",
)
RESPIRATORY_COLUMNS = ("respiratory", "resp", "respiration", "breathing")
"""What the names of such columns begin with."""

ECG_WORDS = ("ecg", "ekg", "electrocardio")
PULSE_WORDS = ("ppg", "ppu", "puls", "pleth", "bvp", "oxi", "piezo")
"""What descriptions of such recordings contain."""

SLOWEST = {"ECG": 100, "pulse": 20, "beats": 50}
"""Hz below which beats cannot be placed: a pulse is smooth between samples, triggers
are not."""

ALL_BUT_A_LITTLE = 0.95
"""Share of a recording or run below which it is said that a part of it is meant."""

FEWEST_BEATS = 60
"""About a minute of them."""

SHORTEST_INTERVAL = 0.3
LONGEST_INTERVAL = 2.0
"""s: no resting heart beats faster or slower than this for eleven beats."""


@dataclass(frozen=True, eq=False)
class Heartbeat:
    """Beat times in s, corrected, and what had to be done to them.

    good: (interval,) the intervals between beats that are as recorded, neither moved
        nor filled in
    corrected: share of intervals that had to be corrected
    counts: how many, by kind
    source: ECG, pulse or beats; values from a pulse are pulse-rate variability
    seconds: length of what was recorded, without missing samples
    breath: main frequency of breathing, Hz, where it was recorded
    """

    beats: np.ndarray
    good: np.ndarray
    corrected: float
    counts: Mapping[str, int]
    source: str
    seconds: float
    breath: float | None = None
    flags: tuple[str, ...] = field(default=())

    @property
    def intervals(self) -> np.ndarray:
        """Seconds between beats."""
        return np.diff(self.beats)


@dataclass(frozen=True, eq=False)
class PhysioRecording:
    """Columns of a physio file by name, their sampling rate in Hz, and its sidecar."""

    columns: Mapping[str, pd.Series]
    rate: float
    fields: JsonObject

    def first_column(self, beginnings: tuple[str, ...]) -> str | None:
        """The first column whose name begins with one of these words, in any case."""
        for name in self.columns:
            if name.lower().startswith(beginnings):
                return name
        return None

    def values(self, name: str) -> np.ndarray:
        return self.columns[name].to_numpy(float)

    def signal(self, beginnings: tuple[str, ...]) -> np.ndarray:
        """Values (time,) of the first column whose name begins with one of these words.

        Raises InputError where there is none.
        """
        name = self.first_column(beginnings)
        if name is None:
            raise InputError(
                f"Expected a column named {beginnings[0]}; the recording has "
                f"{', '.join(self.columns)}."
            )
        return self.values(name)


@dataclass(frozen=True, eq=False)
class _CardiacSignal:
    """The cardiac column of a recording, n/a as NaN; rate in Hz."""

    path: Path
    name: str
    values: np.ndarray
    rate: float
    fields: JsonObject

    @property
    def missing(self) -> np.ndarray:
        return ~np.isfinite(self.values)

    @property
    def seconds(self) -> float:
        return float((~self.missing).sum() / self.rate)


@dataclass(frozen=True, eq=False)
class _DetectedBeats:
    """Beat times in s, before correction."""

    times: np.ndarray
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Peaks:
    """Sample numbers of the peaks of a cleaned signal, and whether the signal was
    recorded upside down."""

    samples: np.ndarray
    cleaned: np.ndarray
    inverted: bool

    @classmethod
    def of(cls, samples: Sequence[int], cleaned: np.ndarray, inverted: bool) -> _Peaks:
        # NeuroKit2 returns lists, arrays or Series, by version and detector.
        numbers = np.asarray(samples, dtype=int)
        return cls(numbers, np.asarray(cleaned, dtype=float), inverted)


def read_heartbeat(visit: Visit) -> Heartbeat:
    """A visit's beats, and its breathing where that was recorded.

    The columns are those that the sidecar names: one of cardiac, ecg, ppg, pulse. The
    kind of a `cardiac` column follows from its description, the recording's name, or
    its shape (and is then flagged). Raises InputError for a missing column, a recording
    without beats, or one with too many artefacts.
    """
    path = visit["cardiac"]
    whole = read_physio(path, visit.metadata("cardiac"))
    recording, window_flags = _during_run(visit, whole)
    signal = _cardiac_signal(path, recording)
    source = _source(signal)
    detected = _detect_beats(signal, source.name)
    heart = correct_beats(detected.times, str(path))
    breath = _breath(visit, recording)
    return replace(
        heart,
        source=source.name,
        seconds=signal.seconds,
        breath=breath.frequency,
        flags=(
            *source.flags,
            *window_flags,
            *detected.flags,
            *_artefact_flags(heart),
            *breath.flags,
        ),
    )


def _artefact_flags(heart: Heartbeat) -> list[str]:
    if heart.corrected <= MANY_ARTEFACTS:
        return []
    return [f"{heart.corrected:.1%} of the beat intervals were corrected"]


def _during_run(
    visit: Visit, recording: PhysioRecording
) -> tuple[PhysioRecording, tuple[str, ...]]:
    """The part of a recording that was made during the visit's run, by its StartTime
    and the run's length: what was recorded before and after may be another state."""
    seconds = _run_seconds(visit)
    start = recording.fields.get("StartTime", 0.0)
    if seconds is None or not is_number(start):
        return recording, ()
    samples = len(next(iter(recording.columns.values())))
    # Half a sample, so that rounding moves neither end.
    first = max(0, math.ceil(-start * recording.rate - 0.5))
    last = min(samples, math.floor((seconds - start) * recording.rate + 0.5))
    if last <= first:
        raise InputError(
            f"{visit['cardiac']}: was not recorded during the run: it starts at "
            f"{start:g} s (StartTime) and the run lasts {seconds:.0f} s."
        )
    during = {name: c.iloc[first:last] for name, c in recording.columns.items()}
    return replace(recording, columns=during), _window_flags(
        (last - first) / recording.rate, samples / recording.rate, seconds
    )


def _window_flags(kept: float, recorded: float, run: float) -> tuple[str, ...]:
    flags = []
    if kept < ALL_BUT_A_LITTLE * recorded:
        flags.append(
            f"recorded for {recorded:.0f} s, longer than the run: the {run:.0f} s of "
            "the run were used"
        )
    if kept < ALL_BUT_A_LITTLE * run:
        flags.append(f"covers {kept:.0f} s of the run's {run:.0f} s")
    return tuple(flags)


def _run_seconds(visit: Visit) -> float | None:
    """Length of the visit's BOLD run; None where there is none of the same task."""
    path = visit.files.get(BOLD.name)
    if path is None or _task(path) != _task(visit["cardiac"]):
        return None
    header = read_header(path)
    shape = header.get_data_shape()
    tr = visit.metadata(BOLD.name).get("RepetitionTime")
    if len(shape) != 4 or not is_number(tr):
        return None
    return float(shape[3] * tr)


def _task(path: Path) -> str | None:
    match = re.search(r"_task-([A-Za-z0-9+]+)", path.name)
    return match.group(1) if match else None


def _cardiac_signal(path: Path, recording: PhysioRecording) -> _CardiacSignal:
    name = recording.first_column(CARDIAC_COLUMNS)
    if name is None:
        raise InputError(
            f"{path}: expected a column named cardiac; its JSON lists "
            f"{', '.join(recording.columns)}."
        )
    values = recording.values(name)
    _check_varies(path, values)
    return _CardiacSignal(path, name, values, recording.rate, recording.fields)


def _check_varies(path: Path, values: np.ndarray) -> None:
    if _is_flat(values):
        raise InputError(f"{path}: the cardiac signal is constant or mostly missing.")


def read_physio(path: Path, fields: JsonObject) -> PhysioRecording:
    """A BIDS physio file, with the columns that its sidecar names.

    Raises InputError for a sidecar without Columns or SamplingFrequency, or with other
    columns than the table.
    """
    names = fields.get("Columns")
    rate = fields.get("SamplingFrequency")
    if not _are_names(names) or not is_number(rate):
        raise InputError(
            f"{path}: its JSON must give Columns and SamplingFrequency (Hz)."
        )
    _check_sampling_frequency(path, rate)
    return PhysioRecording(_read_columns(path, names), float(rate), fields)


def _read_columns(path: Path, names: list[str]) -> dict[str, pd.Series]:
    # BIDS physio tables have no header line.
    table = read_table(path, header=None)
    _check_column_count(path, table, names)
    columns = {name: table[number] for number, name in enumerate(names)}
    _check_numbers(path, columns)
    return columns


def _check_sampling_frequency(path: Path, rate: float) -> None:
    if not 0.5 <= rate <= 50_000:
        raise InputError(
            f"{path}: SamplingFrequency {rate:g} Hz is implausible (0.5 to 50000; is "
            "it a period?)."
        )


def _check_column_count(path: Path, table: pd.DataFrame, names: list[str]) -> None:
    # With a name that occurs twice, one of the two columns would be lost.
    are_different = len(set(names)) == len(names)
    if table.shape[1] != len(names) or not are_different:
        raise InputError(f"{path}: {_column_counts(table, names)}")


def _column_counts(table: pd.DataFrame, names: list[str]) -> str:
    return f"its JSON lists {len(names)} columns; the table has {table.shape[1]}."


def _are_names(value: Any) -> TypeGuard[list[str]]:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(name, str) for name in value)


def _check_numbers(path: Path, columns: Mapping[str, pd.Series]) -> None:
    for name, column in columns.items():
        if is_text(column):
            raise InputError(
                f"{path}: the column {name} holds text; expected numbers, without a "
                "header line."
            )


def correct_beats(beats: np.ndarray, source: str = "beats") -> Heartbeat:
    """Beat times with missed, extra and ectopic beats repaired, every repair counted.

    An interval is an artefact when it differs from the median of its 11 neighbours by
    more than a fifth, or by more than four (robust) standard deviations where the heart
    varies that much (at most 45 %). Kinds as in Lipponen and Tarvainen 2019
    (doi:10.1080/03091902.2019.1640306): a long one of about k intervals hides k − 1
    beats (filled in evenly); two short ones that make one hold an extra beat (removed);
    a short and a long one that make two hold an ectopic beat (moved to the middle);
    others are kept in place and marked. No repaired interval counts as good.
    source: named in errors
    Raises InputError for less than a minute of beats, or too many artefacts.
    """
    beats = np.asarray(beats, dtype=float)
    _check_enough_beats(source, len(beats))
    repaired = _repair_all(beats)
    _check_artefacts(source, repaired.share)
    return repaired.heartbeat(seconds=float(beats[-1] - beats[0]))


def _check_enough_beats(source: str, count: int) -> None:
    if count < FEWEST_BEATS:
        raise InputError(
            f"{source}: only {count} beats found; at least a minute of them is needed."
        )


def _check_artefacts(source: str, share: float) -> None:
    if share > MOST_ARTEFACTS:
        raise InputError(
            f"{source}: {share:.0%} of the beat intervals are artefacts (limit "
            f"{MOST_ARTEFACTS:.0%}); leave this visit's heart recording out, or "
            "annotate its beats by hand."
        )


@dataclass(frozen=True)
class _Repair:
    """What is done at an interval: the kind of artefact (empty for none), the beats
    that follow, and how many recorded intervals they replace."""

    kind: str
    beats: Sequence[float]
    intervals: int = 1

    @property
    def artefacts(self) -> int:
        # An interval of three beats has two missed ones in it.
        if self.kind == "missed":
            return len(self.beats) - 1
        return 1


@dataclass
class _RepairedBeats:
    """Beats so far, which intervals between them are as recorded, and what was
    repaired."""

    times: list[float]
    good: list[bool] = field(default_factory=list)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("missed", "extra", "ectopic", "irregular"), 0
        )
    )

    @property
    def share(self) -> float:
        """Share of intervals that had to be repaired."""
        return 1 - sum(self.good) / len(self.good)

    def add(self, repair: _Repair) -> None:
        self.times.extend(repair.beats)
        self.good.extend([repair.kind == ""] * len(repair.beats))
        if repair.kind:
            self.counts[repair.kind] += repair.artefacts

    def heartbeat(self, seconds: float) -> Heartbeat:
        times = np.array(self.times)
        good = np.array(self.good)
        return Heartbeat(times, good, self.share, self.counts, "beats", seconds)


def _repair_all(beats: np.ndarray) -> _RepairedBeats:
    series = _BeatSeries.of(beats)
    repaired = _RepairedBeats([beats[0]])
    interval = 0
    while interval < len(series.ratio):
        repair = series.repair(interval)
        repaired.add(repair)
        interval += repair.intervals
    return repaired


@dataclass(frozen=True, eq=False)
class _BeatSeries:
    """Beats; the ratio of each interval to its neighbours' median, and whether it is
    off."""

    beats: np.ndarray
    ratio: np.ndarray
    is_off: np.ndarray

    @classmethod
    def of(cls, beats: np.ndarray) -> _BeatSeries:
        intervals = np.diff(beats)
        usual = _running_median(intervals)
        ratio = intervals / usual
        is_off = _is_outlier(ratio)
        # Where many beats in a row are wrong, the median is wrong, too.
        is_off |= (usual < SHORTEST_INTERVAL) | (usual > LONGEST_INTERVAL)
        return cls(beats, ratio, is_off)

    def repair(self, i: int) -> _Repair:
        beats = self.beats
        if not self.is_off[i]:
            return _Repair("", [beats[i + 1]])
        if self._is_extra(i):
            return _Repair("extra", [beats[i + 2]], 2)
        if self._is_ectopic(i):
            middle = (beats[i] + beats[i + 2]) / 2
            return _Repair("ectopic", [middle, beats[i + 2]], 2)
        return self._filled_in(i)

    def _filled_in(self, i: int) -> _Repair:
        """A long interval with the beats that it hides, evenly; others as they are."""
        missed = self._missed_beats(i)
        times = np.linspace(self.beats[i], self.beats[i + 1], missed + 2)[1:]
        return _Repair("missed" if missed else "irregular", list(times))

    def _missed_beats(self, i: int) -> int:
        # A little less than two usual intervals: the heart may have sped up.
        if self.ratio[i] <= 1.6:
            return 0
        return round(float(self.ratio[i])) - 1

    def _next_ratio(self, i: int) -> float:
        # NaN after the last interval, so that every comparison with it fails.
        if i + 1 == len(self.ratio):
            return np.nan
        return self.ratio[i + 1]

    def _is_extra(self, i: int) -> bool:
        """Whether this short interval and the next make one."""
        following = self._next_ratio(i)
        both_short = self.ratio[i] < 1 and following < 1
        return both_short and abs(self.ratio[i] + following - 1) < 0.35

    def _is_ectopic(self, i: int) -> bool:
        """Whether the beat between this interval and the next is early or late: both
        are off, in opposite directions, and together they make two."""
        following = self._next_ratio(i)
        # Written so that NaN after the last interval gives no.
        if not abs(self.ratio[i] + following - 2) < 0.35:
            return False
        return self.is_off[i + 1] and (self.ratio[i] - 1) * (following - 1) < 0


def _is_outlier(ratio: np.ndarray) -> np.ndarray:
    """Which intervals differ more from their neighbours than this heart varies."""
    # 1.4826 makes the median deviation of normal values their standard deviation.
    spread = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
    return np.abs(ratio - 1) > np.clip(4 * spread, 0.2, 0.45)


def _running_median(intervals: np.ndarray) -> np.ndarray:
    # scipy.ndimage takes a moment to import, and most visits have no heartbeat.
    from scipy.ndimage import median_filter

    return median_filter(intervals, size=11, mode="nearest")


@dataclass(frozen=True)
class _Source:
    """What a cardiac column is (ECG, pulse or beats), and what a reader should know."""

    name: str
    flags: tuple[str, ...] = ()


def _source(signal: _CardiacSignal) -> _Source:
    stated = _stated_source(signal)
    if stated is not None:
        return _Source(stated)
    name = _source_by_shape(signal)
    flag = (
        "the file does not say whether cardiac is an ECG or a pulse: taken as "
        f"{name} by its shape"
    )
    return _Source(name, (flag,))


def _stated_source(signal: _CardiacSignal) -> str | None:
    """ECG, pulse or beats, as file and sidecar describe the column; None where they do
    not."""
    # Triggers, however wide, are two values or three; no wave is.
    if len(np.unique(signal.values[~signal.missing])) <= 3:
        return "beats"
    description = _description(signal)
    if _has_word(description, ECG_WORDS):
        return "ECG"
    return "pulse" if _has_word(description, PULSE_WORDS) else None


def _has_word(description: str, words: Sequence[str]) -> bool:
    return any(word in description for word in words)


def _description(signal: _CardiacSignal) -> str:
    """All words about the column, in lower case."""
    about = signal.fields.get(signal.name)
    words = [signal.name, _recording_label(signal.path)]
    if isinstance(about, dict):
        words += map(str, about.values())
    words.append(str(signal.fields.get("MeasurementType", "")))
    return " ".join(words).lower()


def _recording_label(path: Path) -> str:
    return path.name.partition("_recording-")[2].partition("_")[0]


def _source_by_shape(signal: _CardiacSignal) -> str:
    if _peakedness(_filled(signal.values), signal.rate) > PEAKED:
        return "ECG"
    return "pulse"


def _peakedness(signal: np.ndarray, rate: float) -> float:
    """Kurtosis of the slope: R waves are steep and rare, a pulse rises softly all the
    time."""
    slope = np.diff(_smoothed(signal, rate))
    # The smallest double keeps a constant signal from dividing by zero.
    return float(np.mean(slope**4) / max(np.mean(slope**2) ** 2, 1e-300))


def _smoothed(signal: np.ndarray, rate: float) -> np.ndarray:
    """Sums over 30 ms: noise from sample to sample would count as steep."""
    width = max(1, round(0.03 * rate))
    return np.convolve(signal, np.ones(width), "valid")


def _filled(signal: np.ndarray) -> np.ndarray:
    """A signal with its missing samples interpolated."""
    known = np.flatnonzero(np.isfinite(signal))
    return np.interp(np.arange(len(signal)), known, signal[known])


def _detect_beats(signal: _CardiacSignal, source: str) -> _DetectedBeats:
    _check_rate(signal, source)
    if source == "beats":
        return _triggered_beats(signal)
    _check_is_wave(signal)
    peaks = _peaks_of(signal, source)
    samples = _usable(peaks.samples, signal.missing)
    is_alike = look_alike(peaks.cleaned, samples, signal.rate, source)
    flags = list(_quality_flags(signal, float(is_alike.mean())))
    times = (samples + top_of_parabola(peaks.cleaned, samples)) / signal.rate
    second_opinion = times_by_shape(peaks.cleaned, samples, signal.rate, source)
    flags += _placing_flags(times, second_opinion)
    if peaks.inverted:
        flags.append(f"the {source} was recorded upside down and has been turned")
    return _DetectedBeats(times, tuple(flags))


def _check_is_wave(signal: _CardiacSignal) -> None:
    if holds_rates(signal.values, signal.rate):
        raise InputError(
            f"{signal.path}: {signal.name} holds heart rates (beats a minute), and no "
            "wave: there are no beats in it to be found. Give the pulse or the ECG."
        )


def _quality_flags(signal: _CardiacSignal, alike: float) -> Iterator[str]:
    """What a reader should know of the wave, a share of whose beats look alike. Raises
    InputError for one in which hardly a beat looks like another."""
    if alike < USELESS:
        raise InputError(
            f"{signal.path}: only {alike:.0%} of the beats found have the shape of the "
            "others: the signal is too poor to place them. Leave this visit's heart "
            "recording out, or annotate its beats by hand."
        )
    yield from quality_flags(share_at_rails(signal.values), alike)


def _placing_flags(times: np.ndarray, second_opinion: np.ndarray) -> Iterator[str]:
    """Whether the HF power of beats depends on how they were placed."""
    try:
        by_peak, by_shape = _ln_hf(times), _ln_hf(second_opinion)
    # Too few beats: the recording is refused elsewhere, in words about its beats.
    except InputError:
        return
    if abs(by_peak - by_shape) > PLACED_ALIKE:
        yield (
            "the times of the beats are uncertain: ln HF power is "
            f"{by_peak:.2f} from the peaks of the wave and {by_shape:.2f} from its "
            "shape around them"
        )


def _ln_hf(times: np.ndarray) -> float:
    heart = correct_beats(times)
    power = band_power(heart.beats, good=heart.good)
    # The smallest double, since a pacemaker has no power at all.
    return math.log(max(power, 1e-300))


def _peaks_of(signal: _CardiacSignal, source: str) -> _Peaks:
    try:
        return _find_peaks(_filled(signal.values), signal.rate, source)
    # NeuroKit2 raises several kinds of error for a signal without beats.
    except Exception as error:
        raise InputError(
            f"{signal.path}: no beats found in the {source} signal ({error})."
        ) from None


def _check_rate(signal: _CardiacSignal, source: str) -> None:
    if signal.rate < SLOWEST[source]:
        raise InputError(
            f"{signal.path}: {signal.rate:g} Hz is too slow to place the beats of "
            f"{_needed_rate(source)}."
        )


def _needed_rate(source: str) -> str:
    if source == "ECG":
        return f"an ECG (at least {SLOWEST[source]} Hz, or 50 Hz for triggers)"
    return f"a pulse (at least {SLOWEST[source]} Hz)"


def _triggered_beats(signal: _CardiacSignal) -> _DetectedBeats:
    """A beat at the begin of every trigger."""
    times = _begins(_trigger_is_on(signal)) / signal.rate
    if signal.rate >= 100:
        return _DetectedBeats(times)
    flag = f"triggers at {signal.rate:g} Hz: rounding of the beats adds to HF power"
    return _DetectedBeats(times, (flag,))


def _trigger_is_on(signal: _CardiacSignal) -> np.ndarray:
    lowest = np.nanmin(signal.values)
    highest = np.nanmax(signal.values)
    is_on = (signal.values > (lowest + highest) / 2) & ~signal.missing
    # Triggers are short, so a signal that is mostly high is inverted.
    if is_on.mean() > 0.5:
        return ~is_on & ~signal.missing
    return is_on


def _begins(is_on: np.ndarray) -> np.ndarray:
    """Sample numbers at which a signal is switched on."""
    was_on = np.r_[False, is_on[:-1]]
    return np.flatnonzero(is_on & ~was_on)


def _usable(samples: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Peaks with a sample on either side, and not in what was interpolated."""
    last = len(missing) - 1
    inner = samples[(samples > 0) & (samples < last)]
    return inner[~missing[inner]]


def _find_peaks(signal: np.ndarray, rate: float, source: str) -> _Peaks:
    """NeuroKit2's cleaning and detectors: its own for ECG, Elgendi et al. 2013 for the
    pulse; upside down too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source == "ECG":
            return _ecg_peaks(signal, rate)
        return _pulse_peaks(signal, rate)


def _ecg_peaks(signal: np.ndarray, rate: float) -> _Peaks:
    # NeuroKit2 takes seconds to import.
    import neurokit2 as nk

    upright, inverted = nk.ecg_invert(signal, sampling_rate=rate)
    cleaned = nk.ecg_clean(upright, sampling_rate=rate)
    samples = nk.ecg_peaks(cleaned, sampling_rate=rate)[1]["ECG_R_Peaks"]
    return _Peaks.of(samples, cleaned, bool(inverted))


def _pulse_peaks(signal: np.ndarray, rate: float) -> _Peaks:
    import neurokit2 as nk

    cleaned = nk.ppg_clean(signal, sampling_rate=rate)
    inverted = _is_inverted_pulse(cleaned)
    if inverted:
        cleaned = -cleaned
    samples = nk.ppg_findpeaks(cleaned, sampling_rate=rate)["PPG_Peaks"]
    return _Peaks.of(samples, cleaned, inverted)


def _is_inverted_pulse(cleaned: np.ndarray) -> bool:
    from scipy.stats import skew

    # A pulse is short and high above a long low: skewed to the right.
    return bool(skew(cleaned) < -0.2)


@dataclass(frozen=True)
class _Breath:
    """Main frequency of breathing, Hz (None where it is not known), and flags."""

    frequency: float | None = None
    flags: tuple[str, ...] = ()


def _breath(visit: Visit, recording: PhysioRecording) -> _Breath:
    # Breathing is in the same file as the heartbeat, or in a file of its own.
    if recording.first_column(RESPIRATORY_COLUMNS) is not None:
        return _breath_in(recording)
    if not visit.has("respiratory"):
        return _Breath()
    try:
        path = visit["respiratory"]
        own = read_physio(path, visit.metadata("respiratory"))
    # Flagged and not refused, since only a check of the heartbeat depends on it.
    except InputError as error:
        reason = str(error).rpartition(": ")[2]
        return _Breath(flags=(f"breathing could not be read: {reason}",))
    return _breath_in(own)


def _breath_in(recording: PhysioRecording) -> _Breath:
    name = recording.first_column(RESPIRATORY_COLUMNS)
    if name is None:
        return _Breath()
    return _Breath(breathing_rate(recording.values(name), recording.rate))


def breathing_rate(signal: np.ndarray, rate: float) -> float | None:
    """Frequency (Hz) at which breathing is strongest between .05 and 1 Hz; None where
    there is no signal."""
    if not _has_breathing(signal, rate):
        return None
    return _strongest_frequency(_filled(signal), rate)


def _strongest_frequency(signal: np.ndarray, rate: float) -> float:
    from scipy.signal import welch

    # Segments of a minute resolve the slowest breathing of interest.
    segment = min(len(signal), int(60 * rate))
    frequency, density = welch(signal, rate, nperseg=segment, detrend="linear")
    in_band = (frequency >= 0.05) & (frequency <= 1.0)
    return float(frequency[in_band][density[in_band].argmax()])


def _has_breathing(signal: np.ndarray, rate: float) -> bool:
    """Whether at least half is known, it changes, and it lasts half a minute."""
    return not _is_flat(signal) and len(signal) / rate >= 30


def _is_flat(values: np.ndarray) -> bool:
    """Whether a signal is constant or mostly missing."""
    known = np.isfinite(values)
    # In this order, since an empty array has no range.
    return bool(known.mean() < 0.5 or np.ptp(values[known]) == 0)
