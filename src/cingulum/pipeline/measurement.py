"""Measure every visit once and keep the result, so that an interrupted or repeated run
goes on where it was."""

from __future__ import annotations

import errno
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cingulum import __version__
from cingulum.cache import status
from cingulum.cache.store import key_of
from cingulum.errors import InputError
from cingulum.features import FEATURES, Feature, FeatureOptions, Measurement, Origin
from cingulum.io import Visit
from cingulum.io.files import (
    read_json,
    read_json_or_empty,
    read_matrix,
    remove_partial_files,
    write_bytes,
    write_json,
    write_matrix,
)
from cingulum.io.images import read_image, write_image
from cingulum.parallel import Executor, TaskFailure, map_tasks
from cingulum.progress import track
from cingulum.signals.asl import Constants
from cingulum.signals.bold import Denoising
from cingulum.signals.visit_data import VisitData

CONTROLS = ("motion", "rate", "breath")
"""Scored, and kept out of the fusion: head motion beside BOLD, heart rate and breathing
beside the pulse."""


ORIGIN = (status.RECIPE, "SourceSHA256")
"""What a sidecar calls the parts of an `Origin`."""


@dataclass(frozen=True, eq=False)
class MeasurementPlan:
    """What is measured of every visit, and how its recordings are treated."""

    features: Mapping[str, Feature]
    denoising: Denoising = Denoising()
    constants: Constants = field(default_factory=Constants)


@dataclass(frozen=True)
class Failure:
    """A feature that a visit does not have, and why; unexpected: another try may
    help."""

    participant: str
    session: str
    feature: str
    reason: str
    unexpected: bool = False


def features(
    names: Sequence[str], choices: FeatureOptions | None = None
) -> dict[str, Feature]:
    """Features by name. Raises InputError for an unknown one."""
    unknown = [name for name in names if name not in FEATURES]
    if unknown or not names:
        raise InputError(
            f"Unknown feature {', '.join(unknown)}. Known are {', '.join(FEATURES)}."
        )
    choices = choices or FeatureOptions()
    return {name: FEATURES[name](choices) for name in names}


def modalities(
    names: Sequence[str], choices: FeatureOptions | None = None
) -> dict[str, Feature]:
    """The features of the paired study; head motion and quality are measured beside
    BOLD, heart rate and breathing beside the pulse, as controls.

    Raises InputError for an unknown name.
    """
    if not names:
        raise InputError(
            f"At least one feature must be measured. Known are {', '.join(FEATURES)}."
        )
    known = features((*names, "motion", "quality", "hrv"), choices)
    beside = {"motion": "bold", "quality": "bold", "hrv": "cardiac"}
    added = [
        control
        for control, kind in beside.items()
        if any(kind in known[name].needs for name in names)
    ]
    return {name: known[name] for name in (*names, *added)}


def measure_visits(
    visits: Sequence[Visit],
    plan: MeasurementPlan,
    out: Path,
    *,
    work: Path | None = None,
    folders: Sequence[Path] = (),
    executor: Executor | None = None,
    show_progress: bool = False,
) -> list[Failure]:
    """Measure visits, each a unit of its own; what fails is told and entered in the
    ledger, and the rest goes on.

    A measurement made before by this version from files with the same content is kept.
    work: where the ledger is kept (default: work/ in `out`); folders: whose names are
        taken out of reasons
    """
    work, folders = Path(work or Path(out) / "work"), [*folders, out, Path.home()]
    remove_partial_files(Path(out))
    status.expect(
        work,
        visits,
        {visit.name: status.files_of(visit, plan.features) for visit in visits},
        recipes(plan),
    )
    failures: list[Failure] = []
    seconds: list[float] = []
    units = [(visit, plan, Path(out)) for visit in visits]
    done = map_tasks(
        _measure, units, executor, need=_memory(visits), again=_worth_another_try
    )

    def tell() -> str:
        return f"{len(failures)} failed" if failures else ""

    for i, found in track(
        done, "measure", total=len(visits), show=show_progress, note=tell
    ):
        visit = visits[i]
        if isinstance(found, TaskFailure):
            why = found.reason
            found = _Done(
                [
                    Failure(visit.participant, visit.session, name, why)
                    for name in plan.features
                ]
            )
        seconds += [found.seconds] * bool(found.seconds)
        told = [
            replace(one, reason=status.without_folders(one.reason, folders))
            for one in found.failures
        ]
        status.note(
            work, visit, {one.feature: one.reason for one in told}, plan.features
        )
        failures += told
    if seconds:
        status.note_seconds(work, "measure", sum(seconds) / len(seconds))
    return sorted(failures, key=lambda one: (one.participant, one.session, one.feature))


@dataclass(frozen=True)
class _Done:
    """What failed of a visit, and the seconds it took; 0 where everything was there
    already."""

    failures: list[Failure]
    seconds: float = 0.0


def _worth_another_try(done: _Done) -> bool:
    return any(failure.unexpected for failure in done.failures)


def _memory(visits: Sequence[Visit]) -> float:
    """GB that measuring a visit takes: three copies of its BOLD in float32, beside the
    libraries."""
    packed = max(
        (visit["bold"].stat().st_size for visit in visits if "bold" in visit.files),
        default=0,
    )
    return (
        0.6 + 3 * 2.5 * packed / 1e9
    )  # packed images unfold to about two and a half times their size in float32


def measured(visit: Visit, feature: Feature, out: Path) -> Path:
    """Where a visit's measurement is kept."""
    return Path(out) / visit.folder / feature.file.format(visit=visit.name)


def load(visit: Visit, feature: Feature, out: Path) -> Measurement:
    """A visit's measurement, read back. Raises InputError where it was not measured
    yet."""
    path = measured(visit, feature, out)
    if not path.is_file():
        raise InputError(
            f"{path}: not measured yet. Run `cingulum run BIDS_DIR OUT_DIR "
            "participant` first."
        )
    told = read_json(_sidecar(path))
    rest = (
        told.get("Details", {}),
        told.get("Flags", []),
        Origin(*(str(told.get(k, "")) for k in ORIGIN)),
    )
    if feature.is_map:
        image = read_image(path, 3)
        return Measurement(np.asarray(image.dataobj), image.affine, *rest)
    return Measurement(read_matrix(path), None, *rest)


def _measure(visit: Visit, plan: MeasurementPlan, out: Path) -> _Done:
    began, fresh = time.monotonic(), False
    opened, digests, failures = (
        VisitData(visit, plan.denoising, plan.constants),
        dict[Path, str](),
        [],
    )
    for feature in plan.features.values():
        try:
            path = measured(visit, feature, out)
            origin = Origin(
                recipe_key(feature, plan), contents(visit, feature, digests)
            )
            if not known(path, origin):
                fresh = True
                save(
                    path,
                    feature,
                    feature.measure(opened),
                    origin,
                    _sources(visit, feature),
                )
        except InputError as trouble:
            failures.append(
                Failure(visit.participant, visit.session, feature.name, str(trouble))
            )
        except Exception as trouble:
            reason = (
                f"unexpected {type(trouble).__name__}: {trouble} (please report it)"
            )
            if isinstance(trouble, OSError) and trouble.errno in (
                errno.ENOSPC,
                errno.EDQUOT,
                errno.EROFS,
                errno.EACCES,
            ):
                reason = (
                    f"cannot write to the output folder ({trouble.strerror}). "
                    "Make room, or give another OUT_DIR."
                )
            failures.append(
                Failure(
                    visit.participant,
                    visit.session,
                    feature.name,
                    reason,
                    unexpected=True,
                )
            )
    return _Done(failures, time.monotonic() - began if fresh else 0.0)


def recipes(plan: MeasurementPlan) -> dict[str, str]:
    """By feature, the hash of its recipe."""
    return {name: recipe_key(feature, plan) for name, feature in plan.features.items()}


def recipe_key(feature: Feature, plan: MeasurementPlan) -> str:
    """SHA-256 of what a measurement depends on beside its recordings: the feature's
    settings, how recordings are treated, and the software that computes."""
    told: dict[str, Any] = {
        "feature": feature.name,
        "settings": dict(feature.settings()),
    }
    if "bold" in feature.needs:
        told["denoising"] = asdict(plan.denoising)
    if "perfusion" in feature.needs:
        told["constants"] = asdict(plan.constants)
    return key_of(**told)


def contents(
    visit: Visit, feature: Feature, digests: dict[Path, str] | None = None
) -> str:
    """SHA-256 of the recordings that a measurement reads, and of their metadata.

    digests: of files, to be used again by the next feature. Raises InputError for a
        recording that is not there.
    """
    digests, digest = {} if digests is None else digests, hashlib.sha256()
    for kind in feature.kinds(visit):
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
        gone = (
            " Its content is elsewhere; fetch it first (datalad get)."
            if path.is_symlink()
            else ""
        )
        raise InputError(
            f"{path}: cannot be read ({trouble.strerror or trouble}).{gone}"
        ) from None


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name.partition(".")[0] + ".json")


def known(path: Path, origin: Origin) -> bool:
    """Whether a measurement of these recordings by this recipe is there, and whole."""
    told = read_json_or_empty(_sidecar(path))
    return (
        path.is_file()
        and [told.get(k) for k in ORIGIN] == list(origin)
        and told.get("ResultSHA256") == _digest(path)
    )


def _sources(visit: Visit, feature: Feature) -> list[str]:
    """BIDS URIs of what was read; never an absolute path, which would name people and
    machines."""
    found = []
    for kind in feature.kinds(visit):
        path, root = visit[kind], visit.root
        inside = path.is_relative_to(root)
        found.append(
            f"bids::{path.relative_to(root).as_posix()}" if inside else path.name
        )
    return found


def save(
    path: Path,
    feature: Feature,
    measurement: Measurement,
    origin: Origin,
    sources: Sequence[str] = (),
) -> None:
    """Write a measurement as NIfTI or table, with a sidecar that tells its unit and
    what it was made from, and how."""
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
        **dict(zip(ORIGIN, origin, strict=True)),
        "ResultSHA256": _digest(path),
        "Settings": plain(feature.settings()),
        "Details": plain(measurement.details),
        "Flags": list(measurement.flags),
        "GeneratedBy": [{"Name": "cingulum", "Version": __version__}],
    }
    if feature.is_map:
        content["SkullStripped"] = (
            True  # of a derivative's image BIDS requires to say it
        )
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


def check_out(out: Path) -> None:
    """Raises InputError for a folder that holds other things than an output of ours."""
    path = Path(out) / "dataset_description.json"
    if path.is_file():
        if "cingulum" not in [name for name, _ in generated_by(path)]:
            raise InputError(
                f"{out}: is a dataset that cingulum did not write; name another output "
                "folder."
            )
    elif Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise InputError(
            f"{out}: is not empty and not an output of cingulum (no "
            "dataset_description.json that says so); name "
            "another output folder."
        )


PLAIN = re.compile(r"[A-Za-z0-9][\w .+()-]{0,39}")
"""What names and versions of software look like; others, which may be paths or names of
people, are not repeated."""


def generated_by(path: Path) -> list[tuple[str, str]]:
    """Name and version of what made a dataset, as its description says."""
    told = read_json(path).get("GeneratedBy")
    tools = [
        tool
        for tool in (told if isinstance(told, list) else [told])
        if isinstance(tool, dict)
    ]
    pairs = [(tool.get("Name"), tool.get("Version")) for tool in tools]
    return [(n, v if _plain(v) else "") for n, v in pairs if _plain(n)]  # type: ignore[misc]


def _plain(text: Any) -> bool:
    return isinstance(text, str) and PLAIN.fullmatch(text) is not None


def describe(out: Path) -> None:
    """Make `out` a BIDS derivative dataset. Raises InputError if it is another kind of
    folder."""
    path = Path(out) / "dataset_description.json"
    check_out(out)
    if path.is_file():
        return
    made = [{"Name": "cingulum", "Version": __version__}]
    content = {
        "Name": "cingulum features",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": made,
    }
    write_json(path, content)
    # names after the proposals for derivatives of fMRI and perfusion, which the schema
    # lacks so far
    ignored = (
        "*_seed-*\n*_relmat.*\n*_timeseries.*\n*_cbf.*\n*_att.*\n*_fit.*\n*_physio.*\n"
        "*.html\nsummary.json\nfeatures.*\nfailures.tsv\nstudy.toml\nconnectome.npy\nreferences.bib\npredictions*\n"
        "patterns/\nmaps/\nmodel/\nfigures/\nwork/\n"
    )
    write_bytes(Path(out) / ".bidsignore", ignored.encode())
