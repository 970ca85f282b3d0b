"""Features of a 200-visit cohort: seconds a visit, peak memory of all processes, and
what the time is spent on.

    python benchmarks/features.py [--patients 100] [--voxel 4] [--jobs 2]

The share of numerical work is told from a profile of one process over ten visits;
reading counts as numerical where it unpacks and verifies. The index is compared with
pybids (without metadata) on 24,000 files in the same run.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import shutil
import tempfile
import threading
import time
from pathlib import Path

import torch

from cingulum.datasets import CohortSettings, synthesize
from cingulum.features import build_features
from cingulum.io.bids_index import index
from cingulum.io.visit import visits
from cingulum.parallel import Executor
from cingulum.pipeline.feature_export import write_features
from cingulum.pipeline.measurement import _measure_visit
from cingulum.pipeline.measurement_cache import MeasurementPlan

NAMES = [
    "s1conn",
    "rcbf",
    "cbf",
    "hfhrv",
    "hrv",
    "fc",
    "fcd",
    "motion",
    "quality",
    "mechanism",
    "physiology",
]
OWN = "mask and scale BOLD"
WORK = {
    "unpack and verify images": ("images.py", "read_image"),
    "unpack and verify BOLD": ("images.py", "read_voxels"),
    OWN: ("bold.py", "read_bold"),
    "clean BOLD": ("bold.py", "_clean"),
    "confounds (nilearn, pandas)": ("bold.py", "_confounds"),
    "beats (NeuroKit2) and physio": ("heartbeat.py", "read_heartbeat"),
    "means and deviations": ("_methods.py", "_std"),
    "spectra of beats": ("heart_rate.py", "band_power"),
    "regions": ("parcellation.py", "parcellate"),
    "seed maps": ("connectivity.py", "seed_map"),
    "connectivity dynamics": ("measures.py", "fcd"),
    "pack and write maps": ("images.py", "write_image"),
    "hash sources": ("measure.py", "_digest"),
    "write tables and sidecars": ("files.py", "write_matrix"),
    "sidecars": ("files.py", "write_json"),
}
NOT_NUMERICAL = {"hash sources", "write tables and sidecars", "sidecars"}


class Peak:
    """Largest memory of this process and its children (bytes), sampled five times a
    second.

    Proportional set size: what processes share (libraries) counts once, not once a
        process."""

    def __enter__(self) -> Peak:
        self.bytes, self.stop = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _watch(self) -> None:
        import os

        group = os.getpgid(os.getpid())
        while not self.stop.wait(0.2):
            total = 0
            for entry in Path("/proc").iterdir():
                if not entry.name.isdigit():
                    continue
                try:
                    if os.getpgid(int(entry.name)) == group:
                        text = (entry / "smaps_rollup").read_text()
                        total += 1024 * int(text.partition("\nPss:")[2].split()[0])
                except (OSError, IndexError, ValueError):
                    continue
            self.bytes = max(self.bytes, total)


def profile(bids: Path, out: Path) -> None:
    """Where ten visits spend their time."""
    plan, some = MeasurementPlan(build_features(NAMES)), visits(bids)[:11]
    _measure_visit(some[0], plan, out)  # imports and caches
    watch, began = cProfile.Profile(), time.perf_counter()
    watch.enable()
    for visit in some[1:]:
        _measure_visit(visit, plan, out)
    watch.disable()
    total = time.perf_counter() - began
    rows = pstats.Stats(watch).stats  # type: ignore[attr-defined]
    numerical = 0.0
    print(f"\n{'one process, ten visits':34} {'ms a visit':>10} {'share':>7}")
    for label, (file, function) in WORK.items():
        column = (
            2 if label == OWN else 3
        )  # its own time, not that of the functions it calls
        spent = sum(
            v[column]
            for (where, _, name), v in rows.items()
            if where.endswith(file) and name == function
        )
        numerical += 0 if label in NOT_NUMERICAL else spent
        print(f"{label:34} {100 * spent:10.1f} {spent / total:7.1%}")
    print(f"{'all':34} {100 * total:10.1f}    numerical work {numerical / total:.0%}")


def cohort(patients: int, voxel: float, jobs: int, folder: Path) -> None:
    torch.set_default_dtype(torch.float32)
    bids = synthesize(
        folder / "bids", CohortSettings(patients, voxel=voxel), show_progress=True
    )
    torch.set_default_dtype(torch.float64)
    size = sum(p.stat().st_size for p in bids.rglob("*") if p.is_file())
    began = time.perf_counter()
    with Peak() as peak:
        made = write_features(
            bids,
            folder / "out",
            MeasurementPlan(build_features(NAMES)),
            executor=Executor(jobs=jobs),
            show_progress=True,
        )
    spent = time.perf_counter() - began
    print(
        f"\n{len(made.table)} visits, {voxel:g} mm, {size / 1e9:.2f} GB on disk, "
        f"{jobs} processes: {spent:.0f} s, "
        f"{spent / len(made.table):.2f} s a visit; peak memory of all "
        f"{peak.bytes / 1e9:.2f} GB; "
        f"{made.table.shape[1]} columns, {len(made.failures)} failures"
    )
    began = time.perf_counter()
    write_features(
        bids,
        folder / "out",
        MeasurementPlan(build_features(NAMES)),
        executor=Executor(jobs=jobs),
    )
    print(f"the same again, everything kept: {time.perf_counter() - began:.0f} s")
    profile(bids, folder / "profile")


def many_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.8.0"}'
    )
    ends = {
        "func": [
            "task-rest_bold.nii.gz",
            "task-rest_bold.json",
            "task-rest_events.tsv",
            "task-rest_physio.tsv.gz",
            "task-rest_physio.json",
        ],
        "anat": ["T1w.nii.gz", "T1w.json"],
        "perf": [
            "asl.nii.gz",
            "asl.json",
            "aslcontext.tsv",
            "m0scan.nii.gz",
            "m0scan.json",
        ],
    }
    for person in range(1000):
        for session in ("pre", "post"):
            for datatype, names in ends.items():
                place = folder / f"sub-{person:04d}" / f"ses-{session}" / datatype
                place.mkdir(parents=True)
                for name in names:
                    (place / f"sub-{person:04d}_ses-{session}_{name}").write_text(
                        "{}" if name.endswith("json") else ""
                    )
    index(folder)
    began = time.perf_counter()
    count = len(index(folder).files)
    ours = time.perf_counter() - began
    print(f"\nindex of {count} files without metadata: {ours:.2f} s")
    try:
        from bids import BIDSLayout, BIDSLayoutIndexer
    except ImportError:
        print("pybids is not installed: no ratio")
        return
    began = time.perf_counter()
    BIDSLayout(
        folder,
        validate=False,
        indexer=BIDSLayoutIndexer(validate=False, index_metadata=False),
    )
    theirs = time.perf_counter() - began
    print(
        f"pybids, without metadata: {theirs:.2f} s, {theirs / ours:.0f} times as long"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--patients", type=int, default=100)
    arguments.add_argument("--voxel", type=float, default=4.0)
    arguments.add_argument("--jobs", type=int, default=2)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="cingulum-features-"))
    try:
        many_files(folder / "many")
        cohort(given.patients, given.voxel, given.jobs, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
