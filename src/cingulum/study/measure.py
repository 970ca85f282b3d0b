"""Measure every visit once and keep the result, so that an interrupted or repeated run goes on where it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed, parallel_config

from cingulum import __version__
from cingulum.brain.connectome import Connectome
from cingulum.errors import InputError
from cingulum.features import (
    Feature,
    HeadMotion,
    HighFrequencyVariability,
    Measurement,
    Mechanism,
    RelativePerfusion,
    SeedConnectivity,
)
from cingulum.progress import track
from cingulum.recordings import Cohort, Visit, read_cohort
from cingulum.recordings.files import read_json, write_bytes, write_json, write_matrix
from cingulum.recordings.images import write_image
from cingulum.recordings.opened import Opened

MODALITIES = ("s1conn", "rcbf", "hfhrv", "mechanism")
CONTROLS = ("motion",)


def features(modalities: Sequence[str] = MODALITIES, connectome: Connectome | None = None) -> dict[str, Feature]:
    """The features of a study by name; head motion is always measured beside BOLD, as a control.

    Raises InputError for an unknown name.
    """
    known: dict[str, Feature] = {
        f.name: f
        for f in (
            SeedConnectivity(),
            RelativePerfusion(),
            HighFrequencyVariability(),
            Mechanism(connectome=connectome),
            HeadMotion(),
        )
    }
    unknown = [name for name in modalities if name not in MODALITIES]
    if unknown or not modalities:
        raise InputError(f"Unknown modality {', '.join(unknown)}. Known are {', '.join(MODALITIES)}.")
    with_bold = any("bold" in known[name].needs for name in modalities)
    return {name: known[name] for name in (*modalities, *(CONTROLS if with_bold else ()))}


def measure(
    bids: Path,
    out: Path,
    *,
    labels: Sequence[str] | None = None,
    modalities: Sequence[str] = MODALITIES,
    connectome: Connectome | None = None,
    show_progress: bool = False,
) -> Cohort:
    """Measure every visit of the participants and write the features below `out` as BIDS derivatives.

    Every recording that is needed is looked for before the first is measured. A measurement made before by this
    version from files with the same content is kept. Raises InputError, naming visit and file, for whatever is
    missing or damaged; visits already measured stay.
    """
    cohort, wanted = read_cohort(bids, labels), features(modalities, connectome)
    for visit in cohort.visits:
        for feature in wanted.values():
            for kind in feature.needs:
                visit[kind]
    describe(out)
    with parallel_config("loky", inner_max_num_threads=1):
        done = Parallel(n_jobs=os.cpu_count(), return_as="generator")(
            delayed(_measure)(visit, wanted, out) for visit in cohort.visits
        )
        for _ in track(done, "measure", total=len(cohort.visits), show=show_progress):
            pass
    return cohort


def measured(visit: Visit, feature: Feature, out: Path) -> Path:
    """Where a visit's measurement is kept."""
    folder = Path(out) / f"sub-{visit.participant}" / f"ses-{visit.session}"
    return folder / feature.file.format(visit=visit.name)


def _measure(visit: Visit, wanted: dict[str, Feature], out: Path) -> None:
    opened = Opened(visit)
    for feature in wanted.values():
        path, source = measured(visit, feature, out), fingerprint(visit, feature)
        if not _known(path, source):
            save(path, feature, feature.measure(opened), source)


def fingerprint(visit: Visit, feature: Feature) -> str:
    """SHA-256 of what a measurement depends on: this version, the feature, and its files with their sidecars."""
    digest = hashlib.sha256(f"{__version__} {feature.name}".encode())
    for kind in feature.needs:
        path = visit[kind]
        for part in (path, _sidecar(path)):
            if part.is_file():
                digest.update(hashlib.sha256(part.read_bytes()).digest())
    return digest.hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.partition(".")[0] + ".json")


def _known(path: Path, source: str) -> bool:
    sidecar = _sidecar(path)
    return path.is_file() and sidecar.is_file() and read_json(sidecar).get("SourceSHA256") == source


def save(path: Path, feature: Feature, measurement: Measurement, source: str) -> None:
    """Write a measurement as NIfTI or table, with a sidecar that tells its unit and what it was made from."""
    if measurement.affine is not None:
        write_image(path, measurement.values, measurement.affine)
    else:
        write_matrix(path, np.atleast_2d(measurement.values))
    content = {"Feature": feature.name, "Description": feature.meaning, "Units": feature.unit, "SourceSHA256": source}
    write_json(_sidecar(path), content)


def describe(out: Path) -> None:
    """Make `out` a BIDS derivative dataset. Raises InputError if it is another kind of folder."""
    path = Path(out) / "dataset_description.json"
    if path.is_file():
        made_by = [tool.get("Name") for tool in read_json(path).get("GeneratedBy", [])]
        if "cingulum" not in made_by:
            raise InputError(f"{out}: is a dataset that cingulum did not write; name another output folder.")
        return
    if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise InputError(f"{out}: is not empty and not an output of cingulum; name another output folder.")
    made = [{"Name": "cingulum", "Version": __version__}]
    content = {"Name": "cingulum features", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": made}
    write_json(path, content)
    ignored = "*_seed-*\n*_relmat.*\n*_desc-hfhrv_*\n*.html\nsummary.json\nfeatures.tsv\npatterns/\n"
    write_bytes(Path(out) / ".bidsignore", ignored.encode())
