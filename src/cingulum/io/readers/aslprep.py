"""ASLPrep: mean blood flow in the regions of an atlas (`atlas-…_cbf.tsv`), and how much
of each region the scan covers (`_coverage.tsv`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.io.files import as_numbers, read_table
from cingulum.io.readers.xcpd import PARCELLATION
from cingulum.io.recording_kinds import RecordingKind, register_recording_kind

if TYPE_CHECKING:
    from cingulum.io.visit import Visit

# Undescribed, as of maps: basil, score and scrub are chosen with a filter file.
REGIONAL_FLOW = register_recording_kind(
    RecordingKind(
        "regionalcbf",
        {"suffix": "cbf", "datatype": "perf", "extension": ".tsv", "desc": None},
        by=PARCELLATION,
    )
)

LARGEST_FLOW = 1000.0
"""ml/100 g/min: more is another quantity, or a scan that failed."""


def read_regional_flow(visit: Visit, atlas: str) -> pd.Series:
    """Blood flow (ml/100 g/min) by region, NaN where the scan does not reach.

    Raises InputError for a missing table, one without a single row of numbers, or
    impossible values.
    """
    path = visit[REGIONAL_FLOW.named(atlas)]
    table = _one_row(path, read_table(path))
    values = as_numbers(table.iloc[0])
    values.index = values.index.map(str)
    known = values[np.isfinite(values)]
    if not len(known) or known.abs().max() > LARGEST_FLOW or not known.any():
        raise InputError(
            f"{path}: expected blood flow of regions in ml/100 g/min; got values from "
            f"{known.min():g} to {known.max():g}."
        )
    return values


def _one_row(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """A row of regions; also a column of names beside one of values, and columns of
    labels before the regions."""
    named = [name for name in ("node", "region", "name", "label") if name in table]
    if named and len(table) > 1:
        numbers = table.select_dtypes("number")
        return pd.DataFrame([numbers.iloc[:, -1].to_numpy()], columns=table[named[0]])
    table = table.drop(columns=[c for c in table if str(c) in LABEL_COLUMNS])
    if len(table) != 1:
        raise InputError(f"{path}: expected one row, a column a region.")
    return table


LABEL_COLUMNS = ("atlas", "sub", "ses", "task", "run", "statistic", "Unnamed: 0")
"""Columns that may stand before the regions."""
