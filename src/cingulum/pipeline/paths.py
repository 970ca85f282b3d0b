"""Where a run reads and writes, and who does the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cingulum.cache.status import RunStatus, without_folders
from cingulum.cache.store import Store
from cingulum.parallel import Executor
from cingulum.private_cache import home_folder


@dataclass(frozen=True)
class RunPaths:
    """The folders of a run; make it with `RunPaths.of`, which resolves them.

    bids: dataset; out: output folder; derivatives: further derivative datasets
    work: where what is half done is kept
    """

    bids: Path
    out: Path
    derivatives: tuple[Path, ...]
    work: Path

    @classmethod
    def of(
        cls,
        bids: Path,
        out: Path,
        derivatives: Sequence[Path] = (),
        work: Path | None = None,
    ) -> RunPaths:
        """Absolute folders: workers of a cluster may run in another one. The default
        of `work` is work/ in `out`."""
        return cls(
            Path(bids).absolute(),
            Path(out).absolute(),
            tuple(Path(folder).absolute() for folder in derivatives),
            Path(work or Path(out) / "work").absolute(),
        )

    @property
    def status(self) -> RunStatus:
        return RunStatus(self.work)

    @property
    def store(self) -> Store:
        return Store(self.work)

    def without_folders(self, text: str) -> str:
        """The text without folders of this machine, which would name people."""
        # The home folder too: a path elsewhere in it has the name of its owner.
        folders = [self.bids, *self.derivatives, self.out, self.work]
        home = home_folder()
        if home is not None:
            folders.append(home)
        # The longest first: one may be inside another.
        folders.sort(key=lambda folder: -len(str(folder)))
        return without_folders(text, folders)


@dataclass(frozen=True)
class StudyRun:
    """A run: its folders, who does the work, and whether progress is shown."""

    paths: RunPaths
    executor: Executor = field(default_factory=Executor)
    show_progress: bool = False
