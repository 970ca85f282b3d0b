"""Beats from a pulse or ECG recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cingulum.errors import InputError
from cingulum.recordings.files import read_json, read_table

MOST_ARTEFACTS = 0.2
"""Share of corrected intervals above which a recording is refused."""


@dataclass(frozen=True)
class Heartbeat:
    """Beat times in s, and the share of intervals that had to be corrected."""

    beats: np.ndarray
    corrected: float


def read_heartbeat(path: Path) -> Heartbeat:
    """Beats of a BIDS `_physio.tsv.gz` with a `cardiac` column (its JSON names columns and sampling frequency).

    Peaks by NeuroKit2's pulse detector (Elgendi et al. 2013), placed between samples by a parabola through the three
    highest; intervals outside 0.3–2 s, or 30 % off the median of their eleven neighbours, are interpolated.
    Raises InputError for a missing column or a recording with too many artefacts.
    """
    sidecar = read_json(Path(str(path).removesuffix(".tsv.gz") + ".json"))
    try:
        columns, rate = sidecar["Columns"], float(sidecar["SamplingFrequency"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: its JSON must give Columns and SamplingFrequency (Hz).") from None
    if "cardiac" not in columns:
        raise InputError(f"{path}: expected a column named cardiac; its JSON lists {', '.join(columns)}.")
    table = read_table(path, header=None)
    if table.shape[1] != len(columns):
        raise InputError(f"{path}: its JSON lists {len(columns)} columns; the table has {table.shape[1]}.")
    signal = table[columns.index("cardiac")].to_numpy(float)
    if not np.isfinite(signal).all() or np.ptp(signal) == 0:
        raise InputError(f"{path}: the cardiac signal is constant or has missing samples.")
    return _clean(path, _peaks(signal, rate))


def _peaks(signal: np.ndarray, rate: float) -> np.ndarray:
    import neurokit2 as nk

    cleaned = nk.ppg_clean(signal, sampling_rate=rate)
    peaks = np.asarray(nk.ppg_findpeaks(cleaned, sampling_rate=rate)["PPG_Peaks"], dtype=int)
    peaks = peaks[(peaks > 0) & (peaks < len(signal) - 1)]
    before, at, after = cleaned[peaks - 1], cleaned[peaks], cleaned[peaks + 1]
    bend = before - 2 * at + after
    shift = np.where(np.abs(bend) > 1e-12, (before - after) / (2 * bend), 0.0)
    return (peaks + np.clip(shift, -0.5, 0.5)) / rate


def _clean(path: Path, beats: np.ndarray) -> Heartbeat:
    from scipy.ndimage import median_filter

    intervals = np.diff(beats)
    if len(intervals) < 60:
        raise InputError(f"{path}: only {len(beats)} beats found; at least a minute of pulse is needed.")
    usual = median_filter(intervals, size=11, mode="nearest")
    bad = (intervals < 0.3) | (intervals > 2.0) | (np.abs(intervals - usual) > 0.3 * usual)
    if bad.mean() > MOST_ARTEFACTS:
        raise InputError(
            f"{path}: {bad.mean():.0%} of the beat intervals are artefacts (limit {MOST_ARTEFACTS:.0%}); leave this "
            "visit's heart recording out, or annotate its beats by hand."
        )
    index = np.arange(len(intervals))
    intervals = np.interp(index, index[~bad], intervals[~bad])
    return Heartbeat(beats[0] + np.concatenate([[0.0], np.cumsum(intervals)]), float(bad.mean()))
