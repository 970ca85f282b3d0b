import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cingulum.io.files import write_bytes, write_table
from cingulum.io.images import write_image
from cingulum.io.visit import Visit, visits

torch.set_num_threads(1)


SHAPE_CHECKED = ("brain", "simulation", "inference", "science", "contracts")
"""Folders whose tests scripts/check-shapes runs with annotated shapes checked, so that
CI need not run them again without."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    for item in items:
        if item.path.relative_to(tests).parts[0] in SHAPE_CHECKED:
            item.add_marker("shape_checked")


@pytest.fixture(autouse=True)
def _float64():
    """Tests compute in float64 unless they ask for less."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def shared_data() -> Path:
    """Where real data lies: CINGULUM_DATA, or ../shared/data beside the clone."""
    return Path(
        os.environ.get("CINGULUM_DATA", Path(__file__).parents[2] / "shared" / "data")
    )


@pytest.fixture
def hcp_folder() -> Path:
    folder = shared_data() / "hcp_schaefer100"
    if not folder.is_dir():
        pytest.skip(
            f"Human Connectome data not found at {folder}; run `cingulum fetch hcp` or "
            "set CINGULUM_DATA"
        )
    return folder


@pytest.fixture
def lee2019_folder() -> Path:
    folder = shared_data() / "lee2019"
    if not folder.is_dir():
        pytest.skip(f"Lee 2019 data not found at {folder}; set CINGULUM_DATA")
    return folder


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory) -> Path:
    """Ten patients on a very coarse grid; tests must not change it."""
    from cingulum.datasets import CohortSettings, synthesize

    torch.set_default_dtype(torch.float32)
    return synthesize(
        tmp_path_factory.mktemp("small") / "cohort",
        CohortSettings(10, voxel=9.0, volumes=50, tr=2.0),
    )


@pytest.fixture
def own_cohort(small_cohort, tmp_path) -> Path:
    """A copy of the small cohort that a test may damage."""
    return Path(shutil.copytree(small_cohort, tmp_path / "cohort"))


NAME = "sub-01_ses-pre"


def head(shape=(24, 28, 14), affine=None):
    """Voxels of an ellipsoid brain."""
    index = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    return (index**2 / (0.38 * np.array(shape)[:, None, None, None]) ** 2).sum(0) < 1


def dataset(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset_description.json").write_text(
        '{"Name": "test", "BIDSVersion": "1.10.0"}'
    )
    return root


def only_visit(root: Path) -> Visit:
    (found,) = visits(root)
    return found


def write_asl(
    root: Path,
    differences,
    m0,
    *,
    m0_type="Separate",
    m0_tr=10.0,
    context=None,
    control=1000.0,
    **fields,
):
    """An ASL run with known ΔM (x, y, z, delay) of one pair a delay; returns the visit.

    context: volume types, default control, label a delay; fields: of the sidecar, None
        leaves one out
    """
    folder = dataset(root) / "sub-01" / "ses-pre" / "perf"
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = [-96, -112, -56]
    differences = np.asarray(differences, dtype=float)
    brain = (m0 > 0)[..., None]
    volumes, types = [], []
    for k in range(differences.shape[-1]):
        level = control * brain[..., 0]
        volumes += [level, level - differences[..., k]]
        types += ["control", "label"]
    if m0_type == "Included":
        volumes, types = [m0, *volumes], ["m0scan", *types]
    data = np.stack(volumes, -1)
    sidecar = {
        "ArterialSpinLabelingType": "PCASL",
        "PostLabelingDelay": 1.8,
        "LabelingDuration": 1.8,
        "BackgroundSuppression": False,
        "M0Type": m0_type,
        "RepetitionTimePreparation": 4.5,
        "MagneticFieldStrength": 3,
        "MRAcquisitionType": "3D",
    } | fields
    image = folder / f"{NAME}_asl.nii.gz"
    write_image(image, data.astype(np.float32), affine, 4.5)
    (folder / f"{NAME}_asl.json").write_text(
        json.dumps({k: v for k, v in sidecar.items() if v is not None})
    )
    write_table(
        folder / f"{NAME}_aslcontext.tsv",
        pd.DataFrame({"volume_type": context or types}),
    )
    if m0_type == "Separate":
        write_image(folder / f"{NAME}_m0scan.nii.gz", m0.astype(np.float32), affine)
        m0_fields = {} if m0_tr is None else {"RepetitionTimePreparation": m0_tr}
        (folder / f"{NAME}_m0scan.json").write_text(json.dumps(m0_fields))
    return only_visit(root)


def write_physio(root: Path, columns: dict, rate: float, recording="pulse", **fields):
    """A physio file with these columns; returns the visit."""
    folder = dataset(root) / "sub-01" / "ses-pre" / "func"
    stem = (
        f"{NAME}_task-rest"
        + (f"_recording-{recording}" if recording else "")
        + "_physio"
    )
    table = np.column_stack(list(columns.values()))
    lines = ["\t".join("n/a" if v != v else f"{v:.6g}" for v in row) for row in table]
    write_bytes(folder / f"{stem}.tsv.gz", ("\n".join(lines) + "\n").encode())
    sidecar = {
        "SamplingFrequency": rate,
        "StartTime": 0,
        "Columns": list(columns),
    } | fields
    (folder / f"{stem}.json").write_text(json.dumps(sidecar))
    return only_visit(root)


@pytest.fixture
def asl():
    return write_asl


@pytest.fixture
def physio():
    return write_physio


@pytest.fixture
def brain_mask():
    return head()
