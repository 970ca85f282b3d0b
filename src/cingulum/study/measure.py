"""Measure every visit once and keep the result, so that an interrupted or repeated run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config

from cingulum import __version__
from cingulum.brain.connectome import Connectome
from cingulum.errors import InputError
from cingulum.features import FEATURES, Choices, Feature, Measurement
from cingulum.progress import track
from cingulum.recordings import Cohort, Visit, read_cohort
from cingulum.recordings.bold import Denoising
from cingulum.recordings.files import read_json, read_matrix, write_bytes, write_json, write_matrix
from cingulum.recordings.images import read_image, write_image
from cingulum.recordings.opened import Opened
from cingulum.recordings.perfusion import Constants

MODALITIES = ("s1conn", "rcbf", "hfhrv", "mechanism")
CONTROLS = ("motion", "rate", "breath")
"""Scored, and kept out of the fusion: head motion beside BOLD, heart rate and breathing beside the pulse."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What is measured of every visit, and how its recordings are treated."""

    features: Mapping[str, Feature]
    denoising: Denoising = Denoising()
    constants: Constants = field(default_factory=Constants)


@dataclass(frozen=True)
class Failure:
    """A feature that a visit does not have, and why."""

    participant: str
    session: str
    feature: str
    reason: str


def features(names: Sequence[str], choices: Choices | None = None) -> dict[str, Feature]:
    """Features by name. Raises InputError for an unknown one."""
    unknown = [name for name in names if name not in FEATURES]
    if unknown or not names:
        raise InputError(f"Unknown feature {', '.join(unknown)}. Known are {', '.join(FEATURES)}.")
    choices = choices or Choices()
    return {name: FEATURES[name](choices) for name in names}


def modalities(names: Sequence[str] = MODALITIES, connectome: Connectome | None = None) -> dict[str, Feature]:
    """The features of the paired study; head motion is measured beside BOLD, heart rate and breathing beside the
    pulse, as controls.

    Raises InputError for an unknown name.
    """
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names:
        raise InputError(f"Unknown modality {', '.join(unknown)}. Known are {', '.join(MODALITIES)}.")
    known = features((*names, "motion", "hrv"), Choices(connectome=connectome))
    beside = {"motion": "bold", "hrv": "cardiac"}
    added = [control for control, kind in beside.items() if any(kind in known[name].needs for name in names)]
    return {name: known[name] for name in (*names, *added)}


def measure(
    bids: Path,
    out: Path,
    *,
    labels: Sequence[str] | None = None,
    names: Sequence[str] = MODALITIES,
    connectome: Connectome | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    derivatives: Sequence[Path] = (),
    show_progress: bool = False,
) -> Cohort:
    """Measure every visit of the participants of a paired study and write the features below `out`.

    Every recording that is needed is looked for before the first is measured. A measurement made before by this
    version from files with the same content is kept. Raises InputError, naming visit and file, for whatever is
    missing, damaged or unfit, after all other visits have been measured.
    """
    cohort = read_cohort(bids, labels, filters=filters, derivatives=derivatives)
    wanted = modalities(names, connectome)
    for visit in cohort.visits:
        for feature in wanted.values():
            feature.kinds(visit)
    describe(out)
    failures = measure_visits(cohort.visits, Plan(wanted), out, show_progress=show_progress)
    if failures:
        more = f" (and {len(failures) - 1} more of this kind of trouble)" if len(failures) > 1 else ""
        raise InputError(f"{failures[0].reason}{more}")
    return cohort


def measure_visits(
    visits: Sequence[Visit], plan: Plan, out: Path, *, jobs: int | None = None, show_progress: bool = False
) -> list[Failure]:
    """Measure visits in processes of their own; what fails is told, and the rest goes on.

    jobs: processes, default one a core
    """
    failures: list[Failure] = []
    done = parallel(_measure, ((visit, plan, out) for visit in visits), len(visits), jobs)

    def note() -> str:
        return f"{len(failures)} failed" if failures else ""

    for found in track(done, "measure", total=len(visits), show=show_progress, note=note):
        failures += found
    return sorted(failures, key=lambda one: (one.participant, one.session, one.feature))


def parallel(work: Callable, arguments: Iterable[tuple], total: int, jobs: int | None = None) -> Iterator[Any]:
    """Results of work(*arguments) in order, by processes with one thread each; default one process a core."""
    jobs = min(jobs or len(os.sched_getaffinity(0)), max(total, 1))
    with parallel_config("loky", inner_max_num_threads=1):
        yield from Parallel(n_jobs=jobs, return_as="generator")(delayed(work)(*one) for one in arguments)


def measured(visit: Visit, feature: Feature, out: Path) -> Path:
    """Where a visit's measurement is kept."""
    return Path(out) / visit.folder / feature.file.format(visit=visit.name)


def load(visit: Visit, feature: Feature, out: Path) -> Measurement:
    """A visit's measurement, read back. Raises InputError where it was not measured yet."""
    path = measured(visit, feature, out)
    if not path.is_file():
        raise InputError(f"{path}: not measured yet. Run `cingulum run BIDS_DIR {out} participant` first.")
    told = read_json(_sidecar(path))
    details, flags, source = told.get("Details", {}), told.get("Flags", []), str(told.get("SourceSHA256", ""))
    if feature.is_map:
        image = read_image(path, 3)
        return Measurement(np.asarray(image.dataobj), image.affine, details, flags, source)
    return Measurement(read_matrix(path), None, details, flags, source)


def _measure(visit: Visit, plan: Plan, out: Path) -> list[Failure]:
    opened, digests, failures = Opened(visit, plan.denoising, plan.constants), dict[Path, str](), []
    for feature in plan.features.values():
        try:
            path, source = measured(visit, feature, out), fingerprint(visit, feature, plan, digests)
            if not _known(path, source):
                save(path, feature, feature.measure(opened), source, _sources(visit, feature))
        except InputError as trouble:
            failures.append(Failure(visit.participant, visit.session, feature.name, str(trouble)))
        except (MemoryError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as trouble:
            reason = f"unexpected {type(trouble).__name__}: {trouble} (please report it)"
            failures.append(Failure(visit.participant, visit.session, feature.name, reason))
    return failures


def fingerprint(visit: Visit, feature: Feature, plan: Plan, digests: dict[Path, str] | None = None) -> str:
    """SHA-256 of what a measurement depends on: this version, the feature's settings, its files and their metadata.

    digests: of files, to be used again by the next feature
    """
    digests = {} if digests is None else digests
    kinds = feature.kinds(visit)
    told: dict[str, Any] = {"version": __version__, "feature": feature.name, "settings": feature.settings()}
    if "bold" in kinds:
        told["denoising"] = asdict(plan.denoising)
    if "asl" in kinds:
        told["constants"] = asdict(plan.constants)
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for kind in kinds:
        for part in (visit[kind], *visit.sidecars.get(kind, ())):
            if part not in digests:
                digests[part] = _digest(part)
            digest.update(digests[part].encode())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as trouble:
        gone = " Its content is elsewhere; fetch it first (datalad get)." if path.is_symlink() else ""
        raise InputError(f"{path}: cannot be read ({trouble.strerror or trouble}).{gone}") from None


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.partition(".")[0] + ".json")


def _known(path: Path, source: str) -> bool:
    sidecar = _sidecar(path)
    return path.is_file() and sidecar.is_file() and read_json(sidecar).get("SourceSHA256") == source


def _sources(visit: Visit, feature: Feature) -> list[str]:
    """BIDS URIs of what was read; never an absolute path, which would name people and machines."""
    found = []
    for kind in feature.kinds(visit):
        path, root = visit[kind], visit.root
        inside = path.is_relative_to(root)
        found.append(f"bids::{path.relative_to(root).as_posix()}" if inside else path.name)
    return found


def save(path: Path, feature: Feature, measurement: Measurement, source: str, sources: Sequence[str] = ()) -> None:
    """Write a measurement as NIfTI or table, with a sidecar that tells its unit and what it was made from, and how."""
    if feature.is_map:
        assert measurement.affine is not None
        write_image(path, measurement.values, measurement.affine)
    else:
        write_matrix(path, np.atleast_2d(measurement.values))
    content = {
        "Feature": feature.name,
        "Description": feature.meaning,
        "Units": feature.unit,
        "Sources": list(sources),
        "SourceSHA256": source,
        "Settings": plain(feature.settings()),
        "Details": plain(measurement.details),
        "Flags": list(measurement.flags),
        "GeneratedBy": [{"Name": "cingulum", "Version": __version__}],
    }
    write_json(_sidecar(path), content)


def plain(value: Any) -> Any:
    """Values in JSON's types; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


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
    ignored = (
        "*_seed-*\n*_relmat.*\n*_desc-hfhrv_*\n*_desc-hrv_*\n*_timeseries.tsv\n*_cbf.tsv\n*_desc-relative_*\n*.html\n"
        "summary.json\nfeatures.*\nfailures.tsv\npredictions*\npatterns/\nmaps/\nmodel/\n"
    )
    write_bytes(Path(out) / ".bidsignore", ignored.encode())
