"""A visit's regional signals, wherever they come from: averaged here over the voxels of
a cleaned run, or averaged and cleaned by another pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from cingulum.errors import InputError
from cingulum.io.files import JsonObject
from cingulum.io.readers.xcpd import RegionalTable, read_regional_table
from cingulum.signals.atlas import Atlas, NamedAtlas
from cingulum.signals.parcellation import regional_series
from cingulum.timeseries import TimeSeries

if TYPE_CHECKING:
    from cingulum.signals.visit_data import VisitData

NAMES_SHOWN = 3
"""Regions that an error lists of either side."""


@dataclass(frozen=True, eq=False)
class RegionalRun:
    """Regional signals of one run.

    coverage: of every region, 0 to 1, by name
    settings: how the run was cleaned, for a sidecar
    source: the file, for errors
    """

    series: TimeSeries
    coverage: pd.Series
    settings: JsonObject
    source: Path


def regional_run(data: VisitData, atlas: Atlas) -> RegionalRun:
    """The signals of a visit in the regions of an atlas.

    Where regions are known by name only, those of a table that another pipeline cleaned
    (in standard deviations: what was cleaned has no mean, and so no percent), else
    averages over the voxels of the visit's own run.
    """
    if isinstance(atlas, NamedAtlas):
        return _from_table(read_regional_table(data.visit, atlas.name), atlas)
    series, coverage = regional_series(data.bold, atlas)
    if data.bold.unit != "percent":
        standardised = torch.as_tensor(_standardised(series.data.numpy()))
        series = replace(series, data=standardised, unit="SD")
    return RegionalRun(series, coverage, data.bold.settings, data.visit["bold"])


def _from_table(table: RegionalTable, atlas: NamedAtlas) -> RegionalRun:
    check_same_regions(table.path, table.regions, atlas)
    # By name, never by order alone.
    position = {region: row for row, region in enumerate(table.regions)}
    signals = table.signals[[position[region] for region in atlas.regions]]
    standardised = _standardised(signals)
    series = TimeSeries(torch.as_tensor(standardised), table.tr, atlas.regions, "SD")
    is_covered = np.isfinite(standardised).all(1).astype(float)
    coverage = pd.Series(is_covered, index=list(atlas.regions), name="coverage")
    return RegionalRun(series, coverage, table.settings, table.path)


def _standardised(signals: np.ndarray) -> np.ndarray:
    """Signals (region, time) with mean 0 and standard deviation 1; NaN for a region
    that is constant or has a gap."""
    centred = signals - signals.mean(1, keepdims=True)
    spread = centred.std(1, keepdims=True)
    # Rounding errors of a constant are no signal.
    varies = spread > 1e-12 * np.abs(signals).max(1, keepdims=True)
    unknown = np.full_like(centred, np.nan)
    return np.divide(centred, spread, out=unknown, where=varies)


def check_same_regions(path: Path, regions: tuple[str, ...], atlas: Atlas) -> None:
    """Raises InputError, saying which names are on which side, where a file has other
    regions than an atlas; their order does not matter."""
    if len(set(regions)) != len(regions):
        raise InputError(f"{path}: two of its regions have the same name.")
    only_here = [name for name in regions if name not in set(atlas.regions)]
    only_there = [name for name in atlas.regions if name not in set(regions)]
    if only_here or only_there:
        raise InputError(
            f"{path}: its regions are not those of {atlas.name}: only here "
            f"{_listed(only_here)}; only there {_listed(only_there)}."
        )


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
