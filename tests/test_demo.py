"""The demo from end to end, small."""

import pytest
import torch

from cingulum.datasets import CohortSettings
from cingulum.demonstration import run_demo


@pytest.mark.slow
def test_the_demo_tells_the_whole_story(tmp_path):
    torch.set_default_dtype(torch.float32)
    settings = CohortSettings(10, voxel=9.0, volumes=50, tr=2.0)
    summary = run_demo(tmp_path, offline=True, settings=settings, permutations=19)
    assert (tmp_path / "report.html").stat().st_size < 15e6 and (
        tmp_path / "sub-01.html"
    ).is_file()
    assert (
        summary["fit"]["fc_r"]["heldout"] > 0.3
        and summary["planted"]["head motion"] > 0.99
    )
    assert summary["pages"] == [f"sub-{i:02d}.html" for i in range(1, 11)]
