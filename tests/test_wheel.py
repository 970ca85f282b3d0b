"""The wheel, as others get it: what is inside, and that it works away from the
clone."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def _own():
    """The environment without paths to other packages."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV")
    }


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the installed hatchling: no network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
    run(sys.executable, "-m", "pip", "wheel", *options, ROOT)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_whole_package_is_inside_and_nothing_else(names):
    source = ROOT / "src"
    wanted = {
        path.relative_to(source).as_posix()
        for path in (source / "cingulum").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    inside = {
        name for name in names if not re.match(r"cingulum-[^/]+\.dist-info/", name)
    }
    assert inside == wanted


def test_templates_data_and_licence_are_inside(names):
    assert any(
        name.startswith("cingulum/report/templates/") and name.endswith(".html")
        for name in names
    )
    assert {"cingulum/data/pain52.tsv", "cingulum/data/hcp_schaefer100.sha256"} <= names
    assert any(
        re.fullmatch(r"cingulum-[^/]+\.dist-info/licenses/LICENSE", name)
        for name in names
    )
    assert not any(
        Path(name).name.startswith(("test_", "conftest"))
        or name.startswith(("docs", "examples"))
        for name in names
    )


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """Python of a fresh environment with the wheel in it; all else it takes from the
    environment of these tests."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    # By its own pip, and before it sees the others: the pip of these tests would take
    # their own clone away.
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        env=_own(),
    )
    site = Path(
        run(
            python,
            "-c",
            "import sysconfig; print(sysconfig.get_path('purelib'))",
            env=_own(),
        ).strip()
    )
    # Only a path: its own .pth files, such as the editable clone's, are not read.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_cingulum_is_that_of_the_wheel(elsewhere, tmp_path):
    place = run(
        elsewhere,
        "-c",
        "import cingulum; print(cingulum.__file__)",
        cwd=tmp_path,
        env=_own(),
    ).strip()
    assert Path(place).is_relative_to(elsewhere.parents[1]), place
    assert not Path(place).is_relative_to(ROOT)


def test_the_program_runs(elsewhere, tmp_path):
    assert run(
        elsewhere.parent / "cingulum", "--version", cwd=tmp_path, env=_own()
    ).startswith("cingulum ")


def test_tests_pass_against_the_wheel(elsewhere, tmp_path):
    """The clone's tests, from outside the clone: no conftest but theirs, and the
    wheel's package."""
    tests = [
        ROOT / "tests" / name
        for name in ("test_measures.py", "pipeline/test_config.py", "brain")
    ]
    guard = tmp_path / "guard.py"
    guard.write_text(
        "import cingulum\nassert not "
        f"cingulum.__file__.startswith({str(ROOT / 'src')!r})\n"
    )
    said = run(
        elsewhere,
        "-m",
        "pytest",
        "-p",
        "guard",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        ROOT,
        *tests,
        cwd=tmp_path,
        env={**_own(), "PYTHONPATH": str(tmp_path)},
    )
    assert "passed" in said and "failed" not in said
