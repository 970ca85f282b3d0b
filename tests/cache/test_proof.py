"""What is kept is believed only with a proof: a digest of every byte, the recipe that
is asked for, and an owner."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cingulum.cache.store import Store
from cingulum.io.derivatives import is_sealed, sealed
from cingulum.private_cache import cache_root, is_trusted, private_folder
from cingulum.simulation.compiler import machine_code

KEY = "ab" + 62 * "0"


@pytest.fixture
def kept(tmp_path) -> tuple[Store, Path]:
    store = Store(tmp_path)
    store.put(KEY, {"row": np.arange(12.0), "fused": np.ones((128, 12))})
    (path,) = tmp_path.rglob("*.npz")
    return store, path


def test_every_flipped_bit_is_noticed(kept):
    store, path = kept
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for place in generator.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        assert store.get(KEY) is None
    path.write_bytes(whole)
    assert store.get(KEY)["fused"].shape == (128, 12)


def test_a_result_under_another_key_is_not_that_of_the_key(kept):
    store, path = kept
    other = KEY[:-1] + "1"
    path.rename(path.with_name(f"{other}.npz"))
    assert store.get(other) is None


def test_clearing_removes_only_what_we_named(kept, tmp_path):
    store, path = kept
    foreign = tmp_path / "kept" / "precious.txt"
    beside = path.with_name("notes.npz")
    foreign.write_text("ten years of work")
    beside.write_text("mine")
    store.clear()
    assert foreign.exists() and beside.exists() and not path.exists()


@pytest.mark.parametrize("change", [{"a": 2}, {"b": [1, 3]}, {"c": 0}])
def test_a_changed_sidecar_is_noticed(change):
    content = sealed({"a": 1, "b": (1, 2)})
    read_back = json.loads(json.dumps(content))
    assert is_sealed(read_back) and not is_sealed({**read_back, **change})


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_code_is_not_read_where_others_may_write(tmp_path, mode):
    folder = tmp_path / "cache"
    folder.mkdir()
    path = folder / "kernel.o"
    machine_code.keep(path, b"code")
    assert machine_code.read(path) == b"code"
    folder.chmod(mode)
    assert machine_code.read(path) is None and private_folder(folder) is None
    folder.chmod(0o700)
    assert machine_code.read(path) == b"code"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_code_of_another_user_is_removed(tmp_path):
    path = tmp_path / "cache" / "kernel.o"
    machine_code.keep(path, b"code")
    os.chown(path, 65534, 65534)
    assert not is_trusted(path)
    assert machine_code.read(path) is None and not path.exists()


def test_kept_files_are_readable_by_their_owner_only(tmp_path):
    folder = private_folder(tmp_path / "cache")
    assert folder is not None and stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    for name in ("CINGULUM_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cache_root() is None and machine_code.cache_folder() is None


def test_a_damaged_file_of_numba_is_removed_before_it_is_read(tmp_path):
    """Also one that lies in NUMBA_CACHE_DIR is never used."""
    environment = {
        **os.environ,
        "CINGULUM_CACHE": str(tmp_path / "ours"),
        "NUMBA_CACHE_DIR": str(tmp_path / "others"),
    }
    program = (
        "import numpy as np; from cingulum.prediction import compiled_statistics as c; "
        "print(c.two_sample_auc(np.array([[2.0, 3.0]]), np.array([[1.0, 2.5]])))"
    )

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    first = run()
    files = list((tmp_path / "ours").rglob("*.nbc"))
    assert files and not (tmp_path / "others").exists()
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    assert run() == first
