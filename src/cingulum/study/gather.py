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
from cingulum.features import Feature
from cingulum.recordings import Cohort, Visit
from cingulum.recordings.files import read_matrix
from cingulum.recordings.images import read_image
from cingulum.study.measure import MODALITIES, features, measured


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a whole cohort.

    values: by feature, (patient, visit, column), visits in the order first, second
    columns: by feature, names of the columns; for maps the voxel's index in the flattened grid
    units: by feature
    grids: for maps, shape and affine
    evidence: what a feature tells beside its columns (for the mechanism, the fits)
    """

    values: dict[str, np.ndarray]
    columns: dict[str, list[str]]
    units: dict[str, str]
    grids: dict[str, tuple[tuple[int, ...], np.ndarray]]
    patients: list[str]
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)

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
    modalities: Sequence[str] = MODALITIES,
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
    wanted = features(modalities, connectome)
    gathered = Features({}, {}, {n: f.unit for n, f in wanted.items()}, {}, cohort.participants)
    for name, feature in wanted.items():
        rows, grid = _rows(feature, ordered, out)
        if grid is not None:
            gathered.grids[name] = grid
        table = feature.finish(rows, show_progress)
        gathered.values[name] = table.to_numpy(float).reshape(len(ordered) // 2, 2, -1)
        gathered.columns[name] = [str(column) for column in table.columns]
        gathered.evidence[name] = dict(table.attrs)
    return gathered


def _rows(feature: Feature, visits: list[Visit], out: Path) -> tuple[np.ndarray, tuple | None]:
    rows: list[np.ndarray] = []
    grid: tuple | None = None
    for visit in visits:
        path = measured(visit, feature, out)
        if not path.is_file():
            raise InputError(f"{path}: not measured yet. Run `cingulum run BIDS_DIR {out} participant` first.")
        if not path.name.endswith(".nii.gz"):
            rows.append(read_matrix(path).ravel())
            continue
        image = read_image(path, 3)
        if grid is not None and (image.shape != grid[0] or not np.allclose(image.affine, grid[1])):
            raise InputError(
                f"{path}: its grid {image.shape} differs from {grid[0]}, that of {visits[0].name}. All visits must be "
                "resampled to one grid (one --output-spaces resolution of fMRIPrep and ASLPrep)."
            )
        grid = (image.shape, image.affine)
        rows.append(np.asarray(image.dataobj).ravel())
    if len({row.size for row in rows}) > 1:
        raise InputError(f"{feature.name}: visits have measurements of different length; measure them again.")
    return np.stack(rows), grid
