"""XCP-D: regional BOLD that is cleaned already (`_timeseries.tsv`), head motion
(`_motion.tsv`) and volumes with too much of it (`_outliers.tsv`).

Its releases name the parcellation `atlas-` or `seg-`; giga_connectome and others write
the same tables. Columns are regions, rows volumes, without a column of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.checks import is_number
from cingulum.io.files import JsonObject, read_table
from cingulum.io.recording_kinds import RecordingKind, register_recording_kind

if TYPE_CHECKING:
    from cingulum.io.visit import Visit
    from cingulum.timeseries import TimeSeries

PTSERIES = ".ptseries.nii"
"""CIFTI-2 with one signal a region, of the surface pipelines."""

PARCELLATION = ("seg", "atlas")
"""Entities that name the regions of a table."""

REGIONAL_SERIES = register_recording_kind(
    RecordingKind(
        "series",
        {
            "suffix": "timeseries",
            # XCP-D writes surfaces' signals both ways.
            "extension": [".tsv", PTSERIES],
            "datatype": "func",
            "desc": None,
            "stat": [None, "mean"],
        },
        prefers_standard_space=True,
        by=PARCELLATION,
        first_extension=True,
        is_of_joined_runs=True,
    )
)
MOTION = register_recording_kind(
    RecordingKind(
        "motion",
        {"suffix": "motion", "datatype": "func", "extension": ".tsv"},
        is_of_joined_runs=True,
    )
)
OUTLIERS = register_recording_kind(
    RecordingKind(
        "outliers",
        {"suffix": "outliers", "datatype": "func", "extension": ".tsv"},
        is_of_joined_runs=True,
    )
)

FEWEST_VOLUMES = 10


@dataclass(frozen=True, eq=False)
class RegionalTable:
    """Regional signals as a pipeline cleaned them.

    signals: (region, kept volume), NaN for a region that the run does not cover
    tr: s
    volumes: rows of the table, censored ones included
    """

    path: Path
    regions: tuple[str, ...]
    signals: np.ndarray
    tr: float
    volumes: int

    @property
    def settings(self) -> JsonObject:
        """What is known of the cleaning, for a sidecar."""
        return {
            "Denoising": {
                "Description": "as the pipeline that wrote the table did it; nothing "
                "is regressed out again"
            },
            "RepetitionTime": self.tr,
            "Volumes": self.volumes,
            "VolumesKept": self.signals.shape[1],
        }


def read_regional_table(visit: Visit, parcellation: str) -> RegionalTable:
    """The cleaned signals of a visit in the regions of one parcellation.

    Volumes that are n/a everywhere, or that `_outliers.tsv` marks, are left out.
    Raises InputError for a missing table, text in it, too few volumes, or an unknown
    repetition time.
    """
    name = REGIONAL_SERIES.named(parcellation)
    path = visit[name]
    values, tr = _signals(path)
    regions = tuple(map(str, values.columns))
    kept = kept_volumes(visit, path, values.notna().any(axis=1).to_numpy())
    if kept.sum() < FEWEST_VOLUMES:
        raise InputError(
            f"{path}: {kept.sum()} of {len(values)} volumes are left; at least "
            f"{FEWEST_VOLUMES} are needed."
        )
    return RegionalTable(
        path,
        regions,
        values.to_numpy()[kept].T,
        tr or _repetition_time(visit, name, path),
        len(values),
    )


def _signals(path: Path) -> tuple[pd.DataFrame, float | None]:
    """A row per volume, a column per region; and the repetition time, where the file
    itself knows it."""
    if path.name.endswith(PTSERIES):
        series = _cifti(path)
        frame = pd.DataFrame(series.data.T.numpy(), columns=list(series.regions))
        return frame, series.tr
    table = _numbers(path, read_table(path))
    return table.set_axis(column_names(path), axis=1), None


def _cifti(path: Path) -> TimeSeries:
    # Torch, which series are kept in, takes a second to import.
    from cingulum.io.parcellated import read_parcellated_series

    return read_parcellated_series(path)


def column_names(path: Path) -> tuple[str, ...]:
    """The names in the first line of a table, or of the parcels of CIFTI-2.

    Raises InputError where two are the same, which pandas would rename.
    """
    if path.name.endswith(PTSERIES):
        return _cifti(path).regions
    first = read_table(path, header=None, nrows=1, dtype=str).iloc[0]
    names = tuple(map(str, first))
    if len(set(names)) != len(names):
        raise InputError(f"{path}: two of its regions have the same name.")
    return names


def _numbers(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    for name, column in table.items():
        if column.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: the column {name!r} holds text; expected one column of "
                "numbers a region, with its name above."
            )
    return table.astype(float)


def kept_volumes(visit: Visit, path: Path, kept: np.ndarray) -> np.ndarray:
    """Which volumes (volume,) are neither empty, as `kept` says, nor censored.

    Raises InputError where the table of outliers is of another number of volumes.
    """
    if not visit.has(OUTLIERS.name):
        return kept
    censored = _is_outlier(visit[OUTLIERS.name])
    # A table of the volumes that were kept has lost the others already.
    if len(kept) == int((~censored).sum()):
        return kept
    if len(censored) != len(kept):
        raise InputError(
            f"{path}: {len(kept)} volumes, but {visit[OUTLIERS.name].name} lists "
            f"{len(censored)}, {int((~censored).sum())} of them kept."
        )
    return kept & ~censored


def _is_outlier(path: Path) -> np.ndarray:
    """Which volumes are marked in any column."""
    table = _numbers(path, read_table(path))
    return (table.to_numpy() > 0).any(1)


def _repetition_time(visit: Visit, name: str, path: Path) -> float:
    """From the sidecar of the table, or of the run that it was made of."""
    for kind in (name, "bold"):
        fields = visit.metadata(kind)
        for field, invert in (("RepetitionTime", False), ("SamplingFrequency", True)):
            value = fields.get(field)
            if is_number(value) and value > 0:
                return 1 / value if invert else float(value)
    raise InputError(
        f"{path}: the repetition time is not known: its JSON gives neither "
        "RepetitionTime nor SamplingFrequency (Hz), and there is no preprocessed BOLD "
        'beside it. Write {"RepetitionTime": 2.0} to '
        f"{path.name.removesuffix('.tsv')}.json."
    )


def displacement_of(visit: Visit) -> np.ndarray:
    """Framewise displacement (volume − 1,), mm, from `_motion.tsv`."""
    path = visit[MOTION.name]
    table = read_table(path)
    if "framewise_displacement" not in table:
        raise InputError(
            f"{path}: expected a column framewise_displacement; got "
            f"{', '.join(map(str, table))}."
        )
    # The first volume has none before it.
    return _numbers(path, table[["framewise_displacement"]]).to_numpy()[1:, 0]
