"""Measurements that are kept: where, whether they are current, and how they are read
back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from cingulum import __version__
from cingulum.cache.keys import key_of
from cingulum.cache.status import RECIPE, Expected
from cingulum.content import NoContent, content_digest
from cingulum.errors import InputError
from cingulum.features import Feature, Measurement, Origin
from cingulum.features.run_combination import RunCombination
from cingulum.io.derivatives import is_sealed, sealed, sidecar_of, to_json
from cingulum.io.files import (
    JsonObject,
    read_json,
    read_json_or_empty,
    read_matrix,
    write_json,
    write_matrix,
)
from cingulum.io.images import read_image, write_image
from cingulum.io.recording_kinds import Treatment
from cingulum.io.visit import Visit
from cingulum.signals.asl import Constants
from cingulum.signals.bold import Denoising

SOURCE = "SourceSHA256"

ORIGIN = (RECIPE, SOURCE)
"""What a sidecar calls the parts of an `Origin`."""

RESULT = "ResultSHA256"


@dataclass(frozen=True, eq=False)
class MeasurementPlan:
    """What is measured of every visit, and how its recordings are treated."""

    features: Mapping[str, Feature]
    denoising: Denoising = Denoising()
    constants: Constants = field(default_factory=Constants)
    runs: RunCombination = RunCombination.JOINED

    def recipe_of(self, feature: Feature) -> str:
        """SHA-256 of what a measurement depends on beside its recordings: the feature's
        settings, how recordings are treated, and the software that computes."""
        # Only what this feature depends on: another setting must not redo it.
        treatments = {kind.treatment for kind in feature.needs}
        parts = {
            "feature": feature.name,
            "settings": dict(feature.settings()),
            "code": _code_of(feature),
        }
        if Treatment.DENOISING in treatments:
            parts["denoising"] = asdict(self.denoising)
            parts["runs"] = str(self.runs)
        if Treatment.KINETIC_CONSTANTS in treatments:
            parts["constants"] = asdict(self.constants)
        return key_of(**parts)

    def recipes(self) -> dict[str, str]:
        """By feature, the hash of its recipe."""
        return {name: self.recipe_of(f) for name, f in self.features.items()}

    def expected_of(self, visit: Visit, recipes: Mapping[str, str]) -> Expected:
        """The files that a visit will have."""
        files = {
            name: expected_files(visit, feature)
            for name, feature in self.features.items()
        }
        return Expected(files, recipes)


def _code_of(feature: Feature) -> str:
    """The code of a feature and, where it is the user's own, of what it calls. Raises
    InputError for code that cannot be compared."""
    try:
        return content_digest(type(feature))
    except NoContent as error:
        raise InputError(
            f"{feature.name}: the code of this feature uses {error}, so that kept "
            "measurements could be those of other code. Give its settings as numbers, "
            "texts or arrays."
        ) from None


def expected_files(visit: Visit, feature: Feature) -> list[str]:
    """The files, below the output folder, of a visit's measurement and, where a model
    is fitted, of its row."""
    paths = [measurement_path(visit, feature, Path())]
    if feature.batch_size:
        paths.append(row_path(visit, feature, Path()))
    return [path.as_posix() for path in paths]


def measurement_path(visit: Visit, feature: Feature, out: Path) -> Path:
    """Where a visit's measurement is kept."""
    return Path(out) / visit.folder / feature.file.format(visit=visit.name)


def row_path(visit: Visit, feature: Feature, out: Path) -> Path:
    """Where the row of a fitted visit is written, for people: a table with a header,
    described beside it."""
    name = f"{visit.name}_desc-{feature.name}_fit.tsv"
    return measurement_path(visit, feature, out).with_name(name)


def load_measurement(
    visit: Visit, feature: Feature, out: Path, recipe: str
) -> Measurement:
    """A visit's measurement, read back.

    recipe: by which it must have been made (`MeasurementPlan.recipe_of`)
    Raises InputError where it was not measured yet, was measured otherwise, or was
    changed since.
    """
    path = measurement_path(visit, feature, out)
    if not path.is_file():
        raise InputError(
            f"{path}: not measured yet. Run `cingulum run BIDS_DIR OUT_DIR "
            "participant` first."
        )
    sidecar = read_json(sidecar_of(path))
    _check_measured_so(path, sidecar, recipe)
    values, affine = _read_values(path, feature.is_map)
    return Measurement(
        values,
        affine,
        sidecar.get("Details", {}),
        sidecar.get("Flags", []),
        Origin(*(str(sidecar.get(name, "")) for name in ORIGIN)),
    )


def _check_measured_so(path: Path, sidecar: JsonObject, recipe: str) -> None:
    if sidecar.get(RECIPE) != recipe:
        raise InputError(
            f"{path}: was measured with other settings or another version than this "
            "study asks for. Another study may be running in the same folder: give "
            "each an OUT_DIR of its own."
        )
    if not is_sealed(sidecar) or sidecar.get(RESULT) != file_digest(path):
        raise InputError(
            f"{path}: was changed after it was measured, or is damaged. Remove it and "
            "run the command again: it will be measured anew."
        )


def _read_values(path: Path, is_map: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of a measurement, and the affine of a map."""
    if not is_map:
        return read_matrix(path), None
    image = read_image(path, 3)
    return np.asarray(image.dataobj), image.affine


def save_measurement(
    path: Path,
    feature: Feature,
    measurement: Measurement,
    origin: Origin,
    sources: Sequence[str] = (),
    not_used: Sequence[str] = (),
) -> None:
    """Write a measurement as NIfTI or table, with a sidecar of its unit, its settings
    and what it was made from."""
    # Of what was written, not of what lies there: another process may write, too.
    digest = _write_values(path, measurement)
    content = {
        "Feature": feature.name,
        "Description": feature.meaning,
        "Units": feature.unit,
        "Sources": list(sources),
        **({"NotUsed": list(not_used)} if not_used else {}),
        **dict(zip(ORIGIN, origin, strict=True)),
        # A file that is damaged later no longer counts as current.
        RESULT: digest,
        "Settings": to_json(feature.settings()),
        "Details": to_json(measurement.details),
        "Flags": list(measurement.flags),
        "GeneratedBy": [{"Name": "cingulum", "Version": __version__}],
    }
    if feature.is_map:
        # BIDS requires a derivative's image to say it.
        content["SkullStripped"] = True
    write_json(sidecar_of(path), sealed(content))


def _write_values(path: Path, measurement: Measurement) -> str:
    """SHA-256 of what was written."""
    if measurement.affine is not None:
        return write_image(path, measurement.values, measurement.affine)
    return write_matrix(path, np.atleast_2d(measurement.values))


def is_current(path: Path, origin: Origin) -> bool:
    """Whether a measurement of these recordings by this recipe is there, and whole."""
    if not path.is_file():
        return False
    sidecar = read_json_or_empty(sidecar_of(path))
    # The cheap comparison first: hashing a file reads all of it.
    same_origin = [sidecar.get(name) for name in ORIGIN] == list(origin)
    if not same_origin or not is_sealed(sidecar):
        return False
    return sidecar.get(RESULT) == file_digest(path)


class Digests:
    """SHA-256 of files, each read once."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}

    def of_recordings(self, visit: Visit, feature: Feature) -> str:
        """SHA-256 of the recordings that a measurement reads, and of their metadata.

        Raises InputError for a recording that is not there.
        """
        digest = hashlib.sha256()
        for path in _files_read(visit, feature):
            digest.update(self._of_file(path).encode())
        return digest.hexdigest()

    def _of_file(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = file_digest(path)
        return self._known[path]


def _files_read(visit: Visit, feature: Feature) -> Iterator[Path]:
    for run in runs_measured(visit, feature):
        for kind in feature.recordings(run):
            yield run[kind]
            # Metadata count too: a corrected repetition time changes the result.
            yield from run.sidecars.get(kind, ())


def runs_measured(visit: Visit, feature: Feature) -> tuple[Visit, ...]:
    """The visit itself, or its runs where a feature reads something that there is one
    of for every run."""
    try:
        feature.recordings(visit)
    except InputError:
        if not visit.runs:
            raise
        return visit.runs
    return (visit,)


def file_digest(path: Path) -> str:
    """SHA-256 of a file. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: OSError) -> str:
    message = f"{path}: cannot be read ({error.strerror or error})."
    # DataLad puts links where content was not fetched.
    if path.is_symlink():
        message += " Its content is elsewhere; fetch it first (datalad get)."
    return message


def source_uris(visit: Visit, feature: Feature) -> list[str]:
    """BIDS URIs of what was read; never an absolute path, which would name people and
    machines."""
    uris = []
    for run in runs_measured(visit, feature):
        for kind in feature.recordings(run):
            uri = _uri(run[kind], visit.root)
            # A connectome, say, belongs to all runs.
            if uri not in uris:
                uris.append(uri)
    return uris


def _uri(path: Path, root: Path) -> str:
    # Derivatives may be outside the dataset; only their names are published.
    if path.is_relative_to(root):
        return f"bids::{path.relative_to(root).as_posix()}"
    return path.name
