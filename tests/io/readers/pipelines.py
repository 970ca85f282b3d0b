"""Trees as XCP-D and ASLPrep write them, contents made here: names with `atlas-` and
ASLPrep's are from their own lists of expected outputs (xcp_d/tests/data,
aslprep/tests/data)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io

REGIONS = ("LH_Vis_1", "LH_Vis_2", "RH_SomMot_1", "LH-Insula", "RH-Insula", "Thalamus")
ATLAS = "4S156Parcels"
TR = 2.0
VOLUMES = 120


def dataset(root: Path, name: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    description = {
        "Name": name,
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": name, "Version": "1.0.0"}],
    }
    (root / "dataset_description.json").write_text(json.dumps(description))
    return root


def table(path: Path, content: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content.to_csv(path, sep="\t", index=False, na_rep="n/a")


def xcpd_visit(
    root: Path,
    visit: str,
    seed: int,
    *,
    entity: str = "seg",
    strength: float = 0.5,
    regions: tuple[str, ...] = REGIONS,
    run: str = "",
) -> pd.DataFrame:
    """Cleaned signals of one visit, with what XCP-D writes beside them."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(VOLUMES, 1))
    signals = rng.normal(size=(VOLUMES, len(regions))) + strength * common
    # Cleaned signals have no mean, and the scale of the scanner.
    series = pd.DataFrame(137.0 * (signals - signals.mean(0)), columns=list(regions))
    folder = root.joinpath(*visit.split("_")) / "func"
    stem = f"{visit}_task-rest{run}"
    ending = "_stat-mean" if entity == "seg" else ""
    for atlas in (ATLAS, "Glasser"):
        name = f"{stem}_space-MNI152NLin2009cAsym_{entity}-{atlas}{ending}_timeseries"
        table(folder / f"{name}.tsv", series)
        (folder / f"{name}.json").write_text(json.dumps({"RepetitionTime": TR}))
    relmat = f"{stem}_space-MNI152NLin2009cAsym_{entity}-{ATLAS}"
    table(
        folder / f"{relmat}_stat-pearsoncorrelation_relmat.tsv",
        series.corr().rename_axis("Node").reset_index(),
    )
    motion = pd.DataFrame({"framewise_displacement": rng.uniform(0, 0.2, VOLUMES)})
    motion.loc[0, "framewise_displacement"] = np.nan
    table(folder / f"{stem}_motion.tsv", motion)
    outliers = pd.DataFrame({"framewise_displacement": np.zeros(VOLUMES, int)})
    outliers.iloc[5] = 1
    table(folder / f"{stem}_outliers.tsv", outliers)
    return series


def aslprep_visit(root: Path, visit: str, seed: int) -> pd.Series:
    """Blood flow in regions, a row of them, as ASLPrep names it."""
    rng = np.random.default_rng(seed)
    flow = pd.Series(rng.uniform(30, 70, len(REGIONS)), index=list(REGIONS))
    folder = root.joinpath(*visit.split("_")) / "perf"
    for desc in ("", "_desc-score", "_desc-scrub"):
        name = f"{visit}_atlas-{ATLAS}{desc}_cbf.tsv"
        # Another order than that of the signals.
        table(folder / name, flow[::-1].to_frame().T)
    coverage = pd.DataFrame([np.ones(len(REGIONS))], columns=list(REGIONS))
    table(folder / f"{visit}_atlas-{ATLAS}_coverage.tsv", coverage)
    return flow


def paired_dataset(
    root: Path, patients: int, regions: tuple[str, ...] = REGIONS
) -> Path:
    """A raw dataset of two rated sessions a patient, whose derivatives are below it;
    connectivity rises with pain."""
    raw = dataset(root, "raw")
    (raw / "dataset_description.json").write_text(
        json.dumps({"Name": "raw", "BIDSVersion": "1.9.0"})
    )
    names = [f"sub-{k + 1:02d}" for k in range(patients)]
    table(raw / "participants.tsv", pd.DataFrame({"participant_id": names}))
    xcpd = dataset(raw / "derivatives" / "xcp_d", "XCP-D")
    aslprep = dataset(raw / "derivatives" / "aslprep", "ASLPrep")
    for k, name in enumerate(names):
        sessions = pd.DataFrame(
            {"session_id": ["ses-1", "ses-2"], "pain": [20 + k % 7, 60 - k % 5]}
        )
        table(raw / name / f"{name}_sessions.tsv", sessions)
        for number in (1, 2):
            visit = f"{name}_ses-{number}"
            strength = 0.3 + 0.7 * (number - 1)
            seed = 10 * k + number
            xcpd_visit(xcpd, visit, seed, strength=strength, regions=regions)
            aslprep_visit(aslprep, visit, 500 + 10 * k + number)
    return raw


def qsirecon_visit(root: Path, visit: str, seed: int) -> pd.DataFrame:
    """Streamline counts of two atlases and three measures in one MATLAB file, under the
    keys that QSIRecon documents."""
    rng = np.random.default_rng(seed)
    # Another order than that of the signals.
    regions = REGIONS[::-1]
    content: dict[str, object] = {"command": "tck2connectome"}
    counts = {}
    for atlas, names in ((ATLAS, regions), ("Two", ("a", "b"))):
        content[f"atlas_{atlas}_region_ids"] = np.arange(1, len(names) + 1)
        content[f"atlas_{atlas}_region_labels"] = np.array(names)
        for measure in ("radius2_count", "sift_radius2_count", "radius2_meanlength"):
            weights = rng.integers(1, 500, (len(names), len(names))).astype(float)
            weights = np.triu(weights, 1) + np.triu(weights, 1).T
            content[f"atlas_{atlas}_{measure}_connectivity"] = weights
            counts[atlas, measure] = pd.DataFrame(weights, names, names)
    folder = root.joinpath(*visit.split("_")) / "dwi"
    folder.mkdir(parents=True)
    name = f"{visit}_space-T1w_desc-preproc_connectivity.mat"
    scipy.io.savemat(folder / name, content, do_compression=True)
    return counts[ATLAS, "sift_radius2_count"]
