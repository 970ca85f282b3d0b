import os
import shutil
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _float64():
    """Tests compute in float64 unless they ask for less."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def shared_data() -> Path:
    """Where real data lies: CINGULUM_DATA, or ../shared/data beside the clone."""
    return Path(os.environ.get("CINGULUM_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture
def hcp_folder() -> Path:
    folder = shared_data() / "hcp_schaefer100"
    if not folder.is_dir():
        pytest.skip(f"Human Connectome data not found at {folder}; run `cingulum fetch hcp` or set CINGULUM_DATA")
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
    from cingulum.datasets import Settings, synthesize

    torch.set_default_dtype(torch.float32)
    return synthesize(tmp_path_factory.mktemp("small") / "cohort", Settings(10, voxel=9.0, volumes=50, tr=2.0))


@pytest.fixture
def own_cohort(small_cohort, tmp_path) -> Path:
    """A copy of the small cohort that a test may damage."""
    return Path(shutil.copytree(small_cohort, tmp_path / "cohort"))
