"""Beats from an ECG, a pulse wave or a list of beats, as BIDS physio files hold them;
and the breath beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cingulum.errors import InputError
from cingulum.io.files import read_table
from cingulum.io.visit import Visit

MOST_ARTEFACTS = 0.2
"""Share of corrected intervals above which a recording is refused."""

MANY_ARTEFACTS = 0.05
"""Share above which it is flagged (Task Force 1996 asks for 85 to 95 % normal
intervals)."""

PEAKED = 7.0
"""Kurtosis of the slope that parts ECG (10 to 17) from pulse (3 to 5), with noise up to
a tenth of the peak."""

CARDIAC = ("cardiac", "ecg", "ekg", "ppg", "pulse", "pleth")
RESPIRATORY = ("respiratory", "resp", "respiration", "breathing")
SLOWEST = {"ECG": 100, "pulse": 20, "beats": 50}
"""Hz below which beats cannot be placed: a pulse is smooth between samples, triggers
are not."""


@dataclass(frozen=True, eq=False)
class Heartbeat:
    """Beat times in s, corrected, and what had to be done to them.

    good: (interval,) the intervals between beats that are as recorded, neither moved
        nor filled in
    corrected: share of intervals that had to be corrected; counts: how many, by kind
    source: ECG, pulse or beats; values from a pulse are pulse-rate variability
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


def read_heartbeat(visit: Visit) -> Heartbeat:
    """A visit's beats, and its breathing where that was recorded.

    The columns are those that the sidecar names: one of cardiac, ecg, ppg, pulse. What
    a `cardiac` column is, is taken from its description, the recording's name, or its
    shape (and then flagged). Raises InputError for a missing column, a recording
    without beats, or one with too many artefacts.
    """
    path = visit["cardiac"]
    table, rate, fields = read_physio(path, visit.metadata("cardiac"))
    name = next((column for column in table if _is(column, CARDIAC)), None)
    if name is None:
        raise InputError(
            f"{path}: expected a column named cardiac; its JSON lists "
            f"{', '.join(table)}."
        )
    signal = table[name].to_numpy(float)
    missing = ~np.isfinite(signal)
    if missing.mean() > 0.5 or np.ptp(signal[~missing]) == 0:
        raise InputError(f"{path}: the cardiac signal is constant or mostly missing.")
    flags: list[str] = []
    source = _source(path, name, signal, rate, fields, flags)
    beats = _beats(path, signal, rate, source, flags)
    found = corrected(beats, str(path))
    seen = float((~missing).sum() / rate)
    if found.corrected > MANY_ARTEFACTS:
        flags.append(f"{found.corrected:.1%} of the beat intervals were corrected")
    breath = _breath(visit, table, rate, flags)
    return Heartbeat(
        found.beats,
        found.good,
        found.corrected,
        found.counts,
        source,
        seen,
        breath,
        tuple(flags),
    )


def read_physio(
    path: Path, fields: Mapping[str, Any]
) -> tuple[dict[str, Any], float, Mapping[str, Any]]:
    """Columns of a BIDS physio file by the names in its sidecar, its sampling rate
    (Hz), and the sidecar.

    Raises InputError for a sidecar without Columns or SamplingFrequency, or with other
    columns than the table.
    """
    columns, rate = fields.get("Columns"), fields.get("SamplingFrequency")
    named = (
        isinstance(columns, list)
        and len(columns) > 0
        and all(isinstance(c, str) for c in columns)
    )
    if not named or isinstance(rate, bool) or not isinstance(rate, int | float):
        raise InputError(
            f"{path}: its JSON must give Columns and SamplingFrequency (Hz)."
        )
    if not 0.5 <= rate <= 50_000:
        raise InputError(
            f"{path}: SamplingFrequency {rate:g} Hz is implausible (0.5 to 50000; is "
            "it a period?)."
        )
    table = read_table(path, header=None)
    assert isinstance(columns, list)
    if table.shape[1] != len(columns) or len(set(columns)) != len(columns):
        raise InputError(
            f"{path}: its JSON lists {len(columns)} columns; the table has "
            f"{table.shape[1]}."
        )
    text = [
        name
        for name, (_, column) in zip(columns, table.items(), strict=True)
        if column.dtype == object
    ]
    if text:
        raise InputError(
            f"{path}: the column {text[0]} holds text; expected numbers, without a "
            "header line."
        )
    return {name: table[i] for i, name in enumerate(columns)}, float(rate), fields


def corrected(beats: np.ndarray, source: str = "beats") -> Heartbeat:
    """Beat times with missed, extra and ectopic beats repaired, every repair counted.

    An interval is an artefact when it differs from the median of its 11 neighbours by
    more than a fifth, or by more than four (robust) standard deviations where the heart
    varies that much. Kinds as in Lipponen and Tarvainen 2019
    (doi:10.1080/03091902.2019.1640306): a long one of about k intervals hides k − 1
    beats (filled in evenly); two short ones that make one hold an extra beat (taken
    out); a short and a long one that make two hold an ectopic beat (put in the middle);
    what is left is kept in place and marked. No repaired interval counts as good.
    Raises InputError for less than a minute of beats, or too many artefacts.
    """
    beats = np.asarray(beats, dtype=float)
    if len(beats) < 60:
        raise InputError(
            f"{source}: only {len(beats)} beats found; at least a minute of them is "
            "needed."
        )
    intervals = np.diff(beats)
    usual = _usual(intervals)
    ratio = intervals / usual
    spread = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
    bad = (
        (np.abs(ratio - 1) > np.clip(4 * spread, 0.2, 0.45))
        | (usual < 0.3)
        | (usual > 2.0)
    )
    kept, good = [beats[0]], []
    counts = {"missed": 0, "extra": 0, "ectopic": 0, "irregular": 0}
    i = 0
    while i < len(intervals):
        kind, times, used = _repair(beats, ratio, bad, i)
        kept.extend(times)
        good.extend([kind == ""] * len(times))
        if kind:
            counts[kind] += len(times) - 1 if kind == "missed" else 1
        i += used
    share = 1 - sum(good) / len(good)
    if share > MOST_ARTEFACTS:
        raise InputError(
            f"{source}: {share:.0%} of the beat intervals are artefacts (limit "
            f"{MOST_ARTEFACTS:.0%}); leave this "
            "visit's heart recording out, or annotate its beats by hand."
        )
    return Heartbeat(
        np.array(kept),
        np.array(good),
        share,
        counts,
        "beats",
        float(beats[-1] - beats[0]),
    )


def _repair(
    beats: np.ndarray, ratio: np.ndarray, bad: np.ndarray, i: int
) -> tuple[str, Sequence[float], int]:
    """What is done at interval i: the kind of artefact (empty for none), the beats
    after it, and how many recorded intervals that takes.

    ratio: of each interval to its neighbours' median; bad: whether it is off
    """
    if not bad[i]:
        return "", [beats[i + 1]], 1
    after = ratio[i + 1] if i + 1 < len(ratio) else np.nan
    both = ratio[i] + after
    if ratio[i] < 1 and after < 1 and abs(both - 1) < 0.35:
        return "extra", [beats[i + 2]], 2
    if abs(both - 2) < 0.35 and bad[i + 1] and (ratio[i] - 1) * (after - 1) < 0:
        return "ectopic", [(beats[i] + beats[i + 2]) / 2, beats[i + 2]], 2
    hidden = round(float(ratio[i])) - 1
    if ratio[i] > 1.6 and hidden >= 1:
        return "missed", list(np.linspace(beats[i], beats[i + 1], hidden + 2)[1:]), 1
    return "irregular", [beats[i + 1]], 1


def _usual(intervals: np.ndarray) -> np.ndarray:
    from scipy.ndimage import median_filter

    return median_filter(intervals, size=11, mode="nearest")


def _is(column: str, names: tuple[str, ...]) -> bool:
    return any(column.lower().startswith(name) for name in names)


def _source(
    path: Path,
    name: str,
    signal: np.ndarray,
    rate: float,
    fields: Mapping[str, Any],
    flags: list[str],
) -> str:
    """ECG, pulse or beats: stated where it is, else read off the signal and flagged."""
    about = fields.get(name)
    described = (
        " ".join(str(v) for v in about.values()) if isinstance(about, dict) else ""
    )
    recording = path.name.partition("_recording-")[2].partition("_")[0]
    stated = (
        f"{name} {described} {recording} {fields.get('MeasurementType', '')}".lower()
    )
    if len(np.unique(signal[np.isfinite(signal)])) <= 3:  # triggers, however wide
        return "beats"
    if any(word in stated for word in ("ecg", "ekg", "electrocardio")):
        return "ECG"
    if any(word in stated for word in ("ppg", "pulse", "pleth", "oxi", "piezo")):
        return "pulse"
    found = "ECG" if _peakedness(signal, rate) > PEAKED else "pulse"
    flags.append(
        f"the file does not say whether cardiac is an ECG or a pulse: taken as {found} "
        "by its shape"
    )
    return found


def _peakedness(signal: np.ndarray, rate: float) -> float:
    """Kurtosis of the slope, smoothed over 30 ms: R waves are steep and rare, a pulse
    rises softly all the time."""
    known = np.isfinite(signal)
    width = max(1, round(0.03 * rate))
    smooth = np.convolve(
        np.interp(np.arange(len(signal)), np.flatnonzero(known), signal[known]),
        np.ones(width),
        "valid",
    )
    slope = np.diff(smooth)
    return float(np.mean(slope**4) / max(np.mean(slope**2) ** 2, 1e-300))


def _beats(
    path: Path, signal: np.ndarray, rate: float, source: str, flags: list[str]
) -> np.ndarray:
    missing = ~np.isfinite(signal)
    if rate < SLOWEST[source]:
        raise InputError(
            f"{path}: {rate:g} Hz is too slow to place the beats of "
            f"{'an ECG' if source == 'ECG' else 'a pulse'} "
            f"(at least {SLOWEST[source]} "
            f"Hz{', or 50 Hz for triggers' if source == 'ECG' else ''})."
        )
    if source == "beats":
        on = (signal > (np.nanmin(signal) + np.nanmax(signal)) / 2) & ~missing
        on = on if on.mean() <= 0.5 else ~on & ~missing
        if rate < 100:
            flags.append(
                f"triggers at {rate:g} Hz: rounding of the beats adds to HF power"
            )
        return np.flatnonzero(on & ~np.r_[False, on[:-1]]) / rate
    if missing.any():
        known = np.flatnonzero(~missing)
        signal = np.interp(np.arange(len(signal)), known, signal[known])
    try:
        cleaned, peaks = _peaks(signal, rate, source, flags)
    except (
        Exception
    ) as trouble:  # NeuroKit2 raises several kinds for a signal without beats
        raise InputError(
            f"{path}: no beats found in the {source} signal ({trouble})."
        ) from None
    peaks = peaks[(peaks > 0) & (peaks < len(signal) - 1)]
    peaks = peaks[~missing[peaks]]
    return (peaks + _between_samples(cleaned, peaks)) / rate


def _peaks(
    signal: np.ndarray, rate: float, source: str, flags: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """NeuroKit2's cleaning and detectors: its own for ECG, Elgendi et al. 2013 for the
    pulse; upside down too."""
    import warnings

    import neurokit2 as nk
    from scipy.stats import skew

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if source == "ECG":
            upright, turned = nk.ecg_invert(signal, sampling_rate=rate)
            cleaned = nk.ecg_clean(upright, sampling_rate=rate)
            found = nk.ecg_peaks(cleaned, sampling_rate=rate)[1]["ECG_R_Peaks"]
        else:
            cleaned = nk.ppg_clean(signal, sampling_rate=rate)
            turned = (
                skew(cleaned) < -0.2
            )  # a pulse is short and high above a long low: skewed to the right
            cleaned = -cleaned if turned else cleaned
            found = nk.ppg_findpeaks(cleaned, sampling_rate=rate)["PPG_Peaks"]
    if turned:
        flags.append(f"the {source} was recorded upside down and has been turned")
    return np.asarray(cleaned, dtype=float), np.asarray(found, dtype=int)


def _between_samples(cleaned: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Where between samples a peak lies: the top of the parabola through the three
    highest samples."""
    before, at, after = cleaned[peaks - 1], cleaned[peaks], cleaned[peaks + 1]
    bend = before - 2 * at + after
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(np.abs(bend) > 1e-12, (before - after) / (2 * bend), 0.0)
    return np.clip(shift, -0.5, 0.5)


def _breath(
    visit: Visit, table: Mapping[str, Any], rate: float, flags: list[str]
) -> float | None:
    """Main frequency of breathing, Hz; a recording that cannot be used is flagged,
    since only a check hangs on it."""
    name = next((column for column in table if _is(column, RESPIRATORY)), None)
    try:
        if name is None and visit.has("respiratory"):
            table, rate, _ = read_physio(
                visit["respiratory"], visit.metadata("respiratory")
            )
            name = next((column for column in table if _is(column, RESPIRATORY)), None)
    except InputError as trouble:
        flags.append(f"breathing could not be read: {str(trouble).rpartition(': ')[2]}")
        return None
    return None if name is None else breathing_rate(table[name].to_numpy(float), rate)


def breathing_rate(signal: np.ndarray, rate: float) -> float | None:
    """Frequency (Hz) at which breathing is strongest between .05 and 1 Hz; None where
    there is no signal."""
    from scipy.signal import welch

    known = np.isfinite(signal)
    if known.mean() < 0.5 or np.ptp(signal[known]) == 0 or len(signal) / rate < 30:
        return None
    filled = np.interp(np.arange(len(signal)), np.flatnonzero(known), signal[known])
    frequency, density = welch(
        filled, rate, nperseg=min(len(filled), int(60 * rate)), detrend="linear"
    )
    inside = (frequency >= 0.05) & (frequency <= 1.0)
    return float(frequency[inside][density[inside].argmax()])
