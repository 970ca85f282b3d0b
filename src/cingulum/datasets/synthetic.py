"""A whole cohort with known ground truth, written as a BIDS dataset: 53 patients, two
visits, simulated BOLD, CBF, pulse and ratings."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from cingulum import __version__
from cingulum.datasets.synthetic_recordings import (
    COMPONENTS,
    PULSE_RATE,
    Acquisition,
    ImageGrid,
    bold_volumes,
    confound_table,
    perfusion_map,
    pulse_wave,
    regional_bold,
)
from cingulum.datasets.synthetic_truth import (
    EFFECTS,
    CohortSettings,
    VisitTruth,
    draw_truth,
    visits_of,
)
from cingulum.io.derivatives import SYNTHESIZER
from cingulum.io.files import (
    check_vacant,
    whole_folder,
    write_bytes,
    write_json,
    write_table,
)
from cingulum.io.images import write_image
from cingulum.progress import track
from cingulum.random_streams import CohortStream, cohort_generator
from cingulum.signals.atlas import pain_atlas

SPACE = "MNI152NLin2009cAsym"


def synthesize(
    target: Path, settings: CohortSettings | None = None, *, show_progress: bool = False
) -> Path:
    """Write a synthetic cohort as a BIDS dataset with fMRIPrep- and ASLPrep-style
    derivatives.

    The planted truth goes to `sourcedata/truth.tsv` and `truth.json`, which no reader
    of ours looks at. Raises InputError if `target` is not empty. Nothing is left behind
    when writing fails.
    """
    settings = settings or CohortSettings()
    # Before the simulation, which takes minutes and would be in vain.
    check_vacant(Path(target))
    truth = draw_truth(settings)
    acquisition = Acquisition(
        settings, pain_atlas(), ImageGrid.of_brain(settings.voxel)
    )
    signals = regional_bold(acquisition.atlas, truth, settings, show_progress)
    with whole_folder(Path(target)) as root:
        _write_descriptions(root, settings)
        _write_tables(root, settings, truth)
        visits = track(visits_of(truth), "write", show=show_progress)
        for index, visit in enumerate(visits):
            # A visit's numbers do not depend on how many were written before it.
            rng = cohort_generator(settings.seed, CohortStream.VISIT, index)
            _write_visit(root, visit, signals[index], acquisition, rng)
    return Path(target)


def _write_visit(
    root: Path,
    visit: VisitTruth,
    signals: Float[np.ndarray, "region volume"],
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> None:
    # One generator for all: their order is part of a seed's cohort.
    confounds = confound_table(visit.motion, acquisition.settings, rng)
    _write_bold(
        _folder(root / "derivatives" / "fmriprep", visit, "func"),
        visit,
        bold_volumes(signals, confounds, acquisition, rng),
        acquisition,
    )
    _write_confounds(root, visit, confounds)
    _write_perfusion(root, visit, acquisition, rng)
    _write_pulse(root, visit, acquisition.settings.duration, rng)


def _folder(dataset: Path, visit: VisitTruth, kind: str) -> Path:
    return dataset / visit.subject_label / visit.session_label / kind


def _write_bold(
    folder: Path, visit: VisitTruth, bold: np.ndarray, acquisition: Acquisition
) -> None:
    """Preprocessed BOLD and its mask, as fMRIPrep names them."""
    grid = acquisition.grid
    tr = acquisition.settings.tr
    stem = f"{visit.name}_task-rest_space-{SPACE}_desc-"
    write_image(folder / f"{stem}preproc_bold.nii.gz", bold, grid.affine, tr)
    sidecar = {"RepetitionTime": tr, "TaskName": "rest"}
    write_json(folder / f"{stem}preproc_bold.json", sidecar)
    mask = grid.mask.astype(np.uint8)
    write_image(folder / f"{stem}brain_mask.nii.gz", mask, grid.affine)


def _write_confounds(root: Path, visit: VisitTruth, confounds: pd.DataFrame) -> None:
    folder = _folder(root / "derivatives" / "fmriprep", visit, "func")
    stem = f"{visit.name}_task-rest_desc-confounds_timeseries"
    write_table(folder / f"{stem}.tsv", confounds)
    # Readers choose components by mask and method, which only the sidecar tells.
    component = {"Mask": "combined", "Method": "aCompCor", "Retained": True}
    sidecar = {f"a_comp_cor_{k:02d}": component for k in range(COMPONENTS)}
    write_json(folder / f"{stem}.json", sidecar)


def _write_perfusion(
    root: Path, visit: VisitTruth, acquisition: Acquisition, rng: np.random.Generator
) -> None:
    """A CBF map, as ASLPrep names it."""
    folder = _folder(root / "derivatives" / "aslprep", visit, "perf")
    stem = f"{visit.name}_space-{SPACE}_cbf"
    cbf = perfusion_map(visit, acquisition, rng)
    write_image(folder / f"{stem}.nii.gz", cbf, acquisition.grid.affine)
    write_json(folder / f"{stem}.json", {"Units": "mL/100 g/min"})


def _write_pulse(
    root: Path, visit: VisitTruth, duration: float, rng: np.random.Generator
) -> None:
    """A recording of the pulse, in the raw dataset."""
    folder = _folder(root, visit, "func")
    stem = f"{visit.name}_task-rest_recording-pulse_physio"
    pulse = pulse_wave(visit.ln_hf, visit.heart_rate, duration, rng)
    # BIDS: one row per sample, no header; the sidecar names the column.
    rows = "\n".join(f"{value:.5f}" for value in pulse)
    write_bytes(folder / f"{stem}.tsv.gz", rows.encode() + b"\n")
    write_json(
        folder / f"{stem}.json",
        {"SamplingFrequency": PULSE_RATE, "StartTime": 0.0, "Columns": ["cardiac"]},
    )


def _write_descriptions(root: Path, settings: CohortSettings) -> None:
    """What each dataset is, and how it was made."""
    _write_description(root, "Synthetic back-pain cohort", "raw")
    for tool in ("fmriprep", "aslprep"):
        name = f"Synthetic derivatives in the manner of {tool}"
        _write_description(root / "derivatives" / tool, name, "derivative")
    _write_origin(root / "sourcedata" / "truth.json", settings)
    write_bytes(root / "README", README.encode())
    # The BIDS validator knows no such sidecar of all sessions.
    write_bytes(root / ".bidsignore", b"sessions.json\n")


def _write_description(folder: Path, name: str, kind: str) -> None:
    description = {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "GeneratedBy": [{"Name": SYNTHESIZER, "Version": __version__}],
        "DatasetType": kind,
    }
    write_json(folder / "dataset_description.json", description)


def _write_origin(path: Path, settings: CohortSettings) -> None:
    """Everything that is needed to write the same cohort again."""
    means = asdict(EFFECTS[settings.effect])
    write_json(path, {**asdict(settings), "version": __version__, "means": means})


def _write_tables(root: Path, settings: CohortSettings, truth: pd.DataFrame) -> None:
    """Participants, ratings at every session, and the truth."""
    participants = _participants(settings, sorted(truth["participant"].unique()))
    write_table(root / "participants.tsv", participants)
    for person, rows in truth.groupby("participant"):
        sessions = pd.DataFrame(
            {"session_id": "ses-" + rows["session"], "pain": rows["pain"]}
        )
        write_table(root / f"sub-{person}" / f"sub-{person}_sessions.tsv", sessions)
    write_json(root / "sessions.json", {"pain": PAIN})
    write_table(root / "sourcedata" / "truth.tsv", truth)


PAIN = {
    "Description": "Clinical pain at this visit",
    "Units": "0 (none) to 100 (most imaginable)",
}


def _participants(settings: CohortSettings, people: list[str]) -> pd.DataFrame:
    # A stream of its own: age and sex have nothing to do with pain.
    rng = cohort_generator(settings.seed, CohortStream.DEMOGRAPHICS)
    n = len(people)
    age = rng.normal(37.4, 11.3, n).clip(18, 60).round()
    sex = rng.choice(["F", "M"], n, p=[0.62, 0.38])
    return pd.DataFrame(
        {
            "participant_id": [f"sub-{person}" for person in people],
            "age": age.astype(int),
            "sex": sex,
        }
    )


README = """\
Synthetic cohort written by `cingulum synthesize`. No person was scanned.

Two visits a patient, ses-pre and ses-post, always in that order. Preprocessed BOLD,
confounds and CBF maps lie below derivatives/ in the names of fMRIPrep and ASLPrep;
there is no raw imaging. The grid is coarse; the space label is the one that readers
expect (the template is the MNI152 template that nilearn ships). Regional BOLD
signals were simulated with a two-state reduced Wong-Wang network; what was planted
is in sourcedata/truth.tsv.
"""
