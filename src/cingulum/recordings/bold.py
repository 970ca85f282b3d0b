"""A preprocessed BOLD run, cleaned: read, checked, confounds regressed, in percent of its mean."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cingulum.errors import InputError
from cingulum.recordings.bids import Visit
from cingulum.recordings.files import read_json, read_table
from cingulum.recordings.images import read_image

CONFOUNDS = ("motion", "high_pass", "wm_csf")
"""nilearn's strategy: six motion parameters, slow cosines, mean white-matter and fluid signals."""


@dataclass(frozen=True, eq=False)
class Bold:
    """data (x, y, z, time) in percent of the voxel mean, brain mask (x, y, z), affine, tr in s."""

    data: np.ndarray
    mask: np.ndarray
    affine: np.ndarray
    tr: float


def read_bold(visit: Visit) -> Bold:
    """A visit's preprocessed BOLD with its confounds regressed out, as fMRIPrep names and describes them.

    Raises InputError for damaged files, a mask on another grid, a TR that header and sidecar give differently, or
    confounds of another length.
    """
    path = visit["bold"]
    image, mask = read_image(path, 4), read_image(visit["mask"], 3)
    if mask.shape != image.shape[:3] or not np.allclose(mask.affine, image.affine, atol=1e-3):
        raise InputError(f"{visit['mask']}: its grid {mask.shape} is not that of the BOLD run {image.shape[:3]}.")
    inside = np.asarray(mask.dataobj) > 0
    tr = repetition_time(path, float(image.header.get_zooms()[3]))
    data = np.asarray(image.dataobj)
    cleaned = np.zeros_like(data)
    cleaned[inside] = _percent(data[inside], _confounds(visit, data.shape[-1]), tr)
    return Bold(cleaned, inside, image.affine, tr)


def repetition_time(path: Path, header: float) -> float:
    """TR in s from the sidecar, checked against the header."""
    sidecar = Path(str(path).removesuffix(".nii.gz") + ".json")
    stated = float(read_json(sidecar).get("RepetitionTime", header)) if sidecar.is_file() else header
    if not 0.1 <= stated <= 10:
        raise InputError(f"{path}: a TR of {stated} s is implausible (expected 0.1 to 10 s; is it in ms?).")
    if abs(stated - header) > 0.01 * stated:
        raise InputError(
            f"{path}: the header says TR = {header:.4g} s, its sidecar {stated:.4g} s. Repair one of them."
        )
    return stated


def framewise_displacement(visit: Visit) -> np.ndarray:
    """Head motion from volume to volume, mm, from fMRIPrep's confounds; the first has none."""
    path = visit["confounds"]
    table = read_table(path)
    if "framewise_displacement" not in table:
        raise InputError(f"{path}: expected a column framewise_displacement, as fMRIPrep writes it.")
    return table["framewise_displacement"].to_numpy(float)[1:]


def _confounds(visit: Visit, volumes: int) -> np.ndarray:
    from nilearn.interfaces.fmriprep import load_confounds

    read_table(visit["confounds"])  # the clear error, if the file is damaged
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table, _ = load_confounds(
                str(visit["bold"]), strategy=CONFOUNDS, motion="basic", wm_csf="basic", demean=True
            )
    except (ValueError, KeyError) as trouble:
        raise InputError(f"{visit['confounds']}: lacks what the strategy {CONFOUNDS} needs ({trouble}).") from None
    if len(table) != volumes:
        raise InputError(f"{visit['confounds']}: {len(table)} rows for {volumes} volumes.")
    return table.to_numpy(float)


def _percent(signals: np.ndarray, confounds: np.ndarray, tr: float) -> np.ndarray:
    """Voxel signals (voxel, time) as percent of their mean, confounds projected out."""
    mean = signals.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        percent = np.where(np.abs(mean) > 1e-6, 100 * (signals - mean) / mean, 0.0)
    design, _ = np.linalg.qr(np.column_stack([np.ones(len(confounds)), confounds]))
    return percent - (percent @ design) @ design.T
