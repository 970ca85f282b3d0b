"""Features of a whole cohort, read back from where each visit's measurements were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.brain.connectome import Connectome
from cingulum.errors import InputError
from cingulum.features import Feature, Measurement
from cingulum.recordings import Cohort, Visit
from cingulum.study.measure import MODALITIES, load, measured, modalities


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a whole cohort.

    values: by feature, (patient, visit, column), visits in the order first, second
    columns: by feature, names of the columns; for maps the voxel's index in the flattened grid
    units: by feature
    grids: for maps, shape and affine
    evidence: what a feature tells beside its columns (for the mechanism, the fits)
    flags: what readers should know of recordings, and of how many visits; equations: of quantified blood flow
    sources: SHA-256 of what every measurement was made from
    """

    values: dict[str, np.ndarray]
    columns: dict[str, list[str]]
    units: dict[str, str]
    grids: dict[str, tuple[tuple[int, ...], np.ndarray]]
    patients: list[str]
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)
    equations: list[str] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)

    def table(self, ratings: pd.DataFrame) -> pd.DataFrame:
        """One row a visit: the rating, and every feature that is not a map."""
        table = ratings.sort_values(["participant", "state"]).reset_index(drop=True)
        for name in self.values.keys() - self.grids.keys():
            flat = self.values[name].reshape(len(table), -1)
            heads = [name] if flat.shape[1] == 1 else [f"{name} {column}" for column in self.columns[name]]
            table = table.join(pd.DataFrame(flat, columns=heads))
        return table


def gather(
    cohort: Cohort,
    out: Path,
    names: Sequence[str] = MODALITIES,
    connectome: Connectome | None = None,
    *,
    show_progress: bool = False,
) -> Features:
    """Read the measurements of a cohort back; the mechanism is fitted here, all visits in one batch.

    Raises InputError for a visit not measured yet, or maps on different grids.
    """
    order = cohort.ratings.sort_values(["participant", "state"])
    found = {(v.participant, v.session): v for v in cohort.visits}
    ordered = [found[key] for key in zip(order["participant"], order["session"], strict=True)]
    wanted = modalities(names, connectome)
    gathered = Features({}, {}, {n: f.unit for n, f in wanted.items()}, {}, cohort.participants)
    for name, feature in wanted.items():
        rows = [load(visit, feature, out) for visit in ordered]
        _tell(gathered, rows)
        if feature.is_map:
            gathered.grids[name] = _one_grid(feature, rows, ordered, out)
        elif len({row.values.shape for row in rows}) > 1:
            raise InputError(f"{name}: visits have measurements of different length; measure them again.")
        table = feature.finish(rows, show_progress)
        if name == "hrv":
            _heart_controls(gathered, table)
            continue
        gathered.values[name] = table.to_numpy(float).reshape(len(ordered) // 2, 2, -1)
        gathered.columns[name] = [str(column) for column in table.columns]
        gathered.evidence[name] = dict(table.attrs)
    return gathered


def _heart_controls(gathered: Features, table: pd.DataFrame) -> None:
    """Heart rate and breathing as controls; breathing only where every visit has it."""
    for name, unit in (("rate", "1/min"), ("breath", "Hz")):
        values = table[name].to_numpy(float)
        gathered.units[name] = unit
        if np.isfinite(values).all() and np.ptp(values) > 0:
            gathered.values[name] = values.reshape(-1, 2, 1)
            gathered.columns[name] = [name]


def _tell(gathered: Features, rows: list[Measurement]) -> None:
    for row in rows:
        gathered.sources.add(row.source)
        for flag in row.flags:
            gathered.flags[flag] = gathered.flags.get(flag, 0) + 1
        equation = row.details.get("Equation")
        if equation and equation not in gathered.equations:
            gathered.equations.append(str(equation))


def _one_grid(
    feature: Feature, rows: list[Measurement], visits: list[Visit], out: Path
) -> tuple[tuple[int, ...], np.ndarray]:
    first = rows[0]
    assert first.affine is not None
    for visit, row in zip(visits, rows, strict=True):
        assert row.affine is not None
        if row.values.shape != first.values.shape or not np.allclose(row.affine, first.affine):
            raise InputError(
                f"{measured(visit, feature, out)}: its grid {row.values.shape} differs from {first.values.shape}, that "
                f"of {visits[0].name}. All visits must be resampled to one grid (one --output-spaces resolution of "
                "fMRIPrep and ASLPrep)."
            )
    return first.values.shape, first.affine
