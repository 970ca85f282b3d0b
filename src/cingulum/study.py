"""One study: a BIDS dataset in, features of every visit and the evaluation of all of them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, parallel_config

from cingulum import __version__
from cingulum.brain.connectome import Connectome
from cingulum.errors import InputError
from cingulum.features import (
    Feature,
    HeadMotion,
    HighFrequencyVariability,
    Measurement,
    Mechanism,
    RelativePerfusion,
    SeedConnectivity,
)
from cingulum.prediction import Evaluation, evaluate
from cingulum.progress import track
from cingulum.recordings import Cohort, Visit, read_cohort
from cingulum.recordings.files import read_image, read_json, read_matrix, write_bytes, write_image, write_json
from cingulum.recordings.opened import Opened

MODALITIES = ("s1conn", "rcbf", "hfhrv", "mechanism")
CONTROLS = ("motion",)


def features(modalities: Sequence[str] = MODALITIES, connectome: Connectome | None = None) -> dict[str, Feature]:
    """The features of a study by name; head motion is always measured, as a control.

    Raises InputError for an unknown name.
    """
    known: dict[str, Feature] = {
        f.name: f
        for f in (
            SeedConnectivity(),
            RelativePerfusion(),
            HighFrequencyVariability(),
            Mechanism(connectome=connectome),
            HeadMotion(),
        )
    }
    unknown = [name for name in modalities if name not in MODALITIES]
    if unknown or not modalities:
        raise InputError(f"Unknown modality {', '.join(unknown)}. Known are {', '.join(MODALITIES)}.")
    needs_bold = any(name in modalities for name in ("s1conn", "mechanism"))
    return {name: known[name] for name in (*modalities, *(CONTROLS if needs_bold else ()))}


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a whole cohort.

    values: by feature, (patient, visit, column), visits in the order first, second
    columns: by feature, names of the columns; for maps the voxel's index in the flattened grid
    grids: for maps, shape and affine
    """

    values: dict[str, np.ndarray]
    columns: dict[str, list[str]]
    grids: dict[str, tuple[tuple[int, ...], np.ndarray]]
    patients: list[str]


def participants(
    bids: Path,
    out: Path,
    *,
    labels: Sequence[str] | None = None,
    modalities: Sequence[str] = MODALITIES,
    connectome: Connectome | None = None,
    show_progress: bool = False,
) -> Cohort:
    """Measure every visit of the participants and write the features below `out` as BIDS derivatives.

    Every recording that is needed is looked for before the first is measured. Raises InputError, naming visit and
    file, for whatever is missing or damaged; visits already measured stay.
    """
    cohort, wanted = read_cohort(bids, labels), features(modalities, connectome)
    for visit in cohort.visits:
        for name in wanted:
            for kind in _NEEDS[name]:
                visit[kind]
    describe(out)
    with parallel_config("loky", inner_max_num_threads=1):
        done = Parallel(n_jobs=os.cpu_count(), return_as="generator")(
            delayed(_measure)(visit, wanted, out) for visit in cohort.visits
        )
        for _ in track(done, "measure", total=len(cohort.visits), show=show_progress):
            pass
    return cohort


_NEEDS = {
    "s1conn": ("bold", "mask", "confounds"),
    "mechanism": ("bold", "mask", "confounds"),
    "motion": ("confounds",),
    "rcbf": ("perfusion",),
    "hfhrv": ("cardiac",),
}


def measured(visit: Visit, feature: Feature, out: Path) -> Path:
    """Where a visit's measurement is kept."""
    folder = Path(out) / f"sub-{visit.participant}" / f"ses-{visit.session}"
    return folder / feature.file.format(visit=visit.name)


def _measure(visit: Visit, wanted: dict[str, Feature], out: Path) -> None:
    opened = Opened(visit)
    for feature in wanted.values():
        save(measured(visit, feature, out), feature, feature.measure(opened))


def save(path: Path, feature: Feature, measurement: Measurement) -> None:
    """Write a measurement as NIfTI or table, with a sidecar that tells its unit."""
    if measurement.affine is not None:
        write_image(path, measurement.values, measurement.affine)
    else:
        rows = np.atleast_2d(measurement.values)
        write_bytes(path, "".join("\t".join(f"{v:.9g}" for v in row) + "\n" for row in rows).encode())
    sidecar = Path(str(path).removesuffix(".nii.gz").removesuffix(".tsv") + ".json")
    write_json(sidecar, {"Feature": feature.name, "Description": feature.meaning, "Units": feature.unit})


def describe(out: Path) -> None:
    """Make `out` a BIDS derivative dataset. Raises InputError if it is another kind of folder."""
    path = Path(out) / "dataset_description.json"
    if path.is_file():
        made_by = [tool.get("Name") for tool in read_json(path).get("GeneratedBy", [])]
        if "cingulum" not in made_by:
            raise InputError(f"{out}: is a dataset that cingulum did not write; name another output folder.")
        return
    if Path(out).is_dir() and any(Path(out).iterdir()):
        raise InputError(f"{out}: is not empty and not an output of cingulum; name another output folder.")
    made = [{"Name": "cingulum", "Version": __version__}]
    content = {"Name": "cingulum features", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": made}
    write_json(path, content)
    write_bytes(Path(out) / ".bidsignore", b"*_seed-*\n*_relmat.*\n*_desc-hfhrv_*\n*.html\nsummary.json\n")


def gather(
    cohort: Cohort, out: Path, modalities: Sequence[str] = MODALITIES, connectome: Connectome | None = None
) -> Features:
    """Read the measurements of a cohort back; the mechanism is fitted here, all visits in one batch.

    Columns of a map are the voxels that vary somewhere; maps must share one grid (InputError otherwise).
    """
    values, columns, grids = {}, {}, {}
    order = cohort.ratings.sort_values(["participant", "state"])
    found = {(v.participant, v.session): v for v in cohort.visits}
    ordered = [found[key] for key in zip(order["participant"], order["session"], strict=True)]
    for name, feature in features(modalities, connectome).items():
        rows, grid = _rows(feature, ordered, out)
        if grid is not None:
            grids[name] = grid
        table = feature.finish(rows)
        values[name] = table.to_numpy(float).reshape(len(ordered) // 2, 2, -1)
        columns[name] = [str(column) for column in table.columns]
    return Features(values, columns, grids, cohort.participants)


def _rows(feature: Feature, visits: list[Visit], out: Path) -> tuple[np.ndarray, tuple | None]:
    rows, grid, first = [], None, None
    for visit in visits:
        path = measured(visit, feature, out)
        if not path.is_file():
            raise InputError(f"{path}: not measured yet. Run `cingulum run BIDS_DIR {out} participant` first.")
        if not path.name.endswith(".nii.gz"):
            rows.append(read_matrix(path).ravel())
            continue
        image = read_image(path, 3)
        if first is not None and (image.shape != first.shape or not np.allclose(image.affine, first.affine)):
            raise InputError(f"{path}: its grid {image.shape} differs from that of {visits[0].name}, {first.shape}.")
        first = first or image
        grid = (image.shape, image.affine)
        rows.append(np.asarray(image.dataobj).ravel())
    return np.stack(rows), grid


def group(
    cohort: Cohort, measured_features: Features, *, permutations: int = 1000, seed: int = 0, show_progress: bool = False
) -> Evaluation:
    """Evaluate every modality and their fusion over a cohort."""
    return evaluate(
        measured_features.values,
        measured_features.patients,
        controls=CONTROLS,
        permutations=permutations,
        seed=seed,
        show_progress=show_progress,
    )


def feature_table(cohort: Cohort, measured_features: Features) -> pd.DataFrame:
    """One row a visit with every feature that is not a map, beside the rating."""
    table = cohort.ratings.sort_values(["participant", "state"]).reset_index(drop=True)
    for name, values in measured_features.values.items():
        if name not in measured_features.grids:
            flat = values.reshape(len(table), -1)
            heads = [name] if flat.shape[1] == 1 else [f"{name}: {c}" for c in measured_features.columns[name]]
            table = table.join(pd.DataFrame(flat, columns=heads))
    return table
