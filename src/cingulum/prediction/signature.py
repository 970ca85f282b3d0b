"""Signatures: weights that travel, with the contract that says which data they may be
applied to.

A signature is a folder: NIfTI maps or a table of weights, signature.json (units, space,
intercepts, hashes, how it was made) and a model card. Nothing in it is code. The
published maps of Lee et al. 2019 are read in their own layout.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cingulum import __version__
from cingulum.errors import InputError
from cingulum.io.files import (
    check_vacant,
    read_json,
    read_table,
    write_bytes,
    write_json,
    write_table,
)
from cingulum.io.images import read_image, write_image

RCBF_UNIT = "1 (whole-brain mean)"

LEE2019 = {
    "rcbf": ("paired_svm_rcbf.nii.gz", 5.15896642e-05),
    "s1conn": ("paired_svm_s1conn.nii.gz", 6.00711600e-05),
}
"""Published maps and intercepts. HF-HRV: weight −2.17344043 on ln(ms²), intercept 0."""

COVERAGE = 0.8
"""Least share of the squared weights that must lie where the data do."""

CREDIBLE_MEAN = (0.8, 1.25)
"""Whole-brain mean of relative blood flow; 1 by definition, up to masks and
smoothing."""


@dataclass(frozen=True, eq=False)
class Part:
    """Weights of one modality: a map (x, y, z) with its affine, or a vector with the
    names of its columns.

    unit: of the data it may be applied to; intercept: of the decision on second − first
        visit
    """

    weights: np.ndarray
    unit: str
    intercept: float = 0.0
    affine: np.ndarray | None = None
    columns: tuple[str, ...] = ()

    @property
    def is_map(self) -> bool:
        return self.affine is not None


@dataclass(frozen=True, eq=False)
class Signature:
    """parts: by modality; fusion: weights of the parts' decisions, empty where none was
    published; told: what signature.json says besides (training, preprocessing, licence,
    citation)."""

    name: str
    parts: Mapping[str, Part]
    fusion: Mapping[str, float] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


# Reading and writing


def read_signature(folder: Path) -> Signature:
    """A signature of ours, checked by its hashes, or the published maps of 2019.

    Raises InputError for a folder that is neither, and for files changed since they
    were signed.
    """
    folder = Path(folder)
    if (folder / "signature.json").is_file():
        return _read_own(folder)
    if all((folder / file).is_file() for file, _ in LEE2019.values()):
        return _read_published(folder)
    raise InputError(
        f"{folder}: is not a signature. Expected signature.json (made by `cingulum "
        "signature export`), or the "
        f"published maps of 2019 ({', '.join(file for file, _ in LEE2019.values())})."
    )


def _read_published(folder: Path) -> Signature:
    units = {"rcbf": RCBF_UNIT, "s1conn": "regression estimate"}
    parts = {}
    for name, (file, intercept) in LEE2019.items():
        image = read_image(folder / file, 4)  # one volume
        weights = np.asarray(image.dataobj, float)[..., 0]
        if not weights.any():
            raise InputError(
                f"{folder / file}: expected a map of weights; it is zero everywhere."
            )
        parts[name] = Part(weights, units[name], intercept, image.affine)
    parts["hfhrv"] = Part(np.array([-2.17344043]), "ln(ms²)", 0.0, None, ("hfhrv",))
    told = {
        "Citation": "Lee et al. 2019, doi:10.1097/j.pain.0000000000001417",
        "Trained": "53 patients with chronic low back pain, before and after "
        "manoeuvres that raise pain",
        "Space": "MNI152, 2 mm",
        "Fusion": "the weights of the fused machine were not published",
    }
    return Signature("lee2019", parts, {}, told)


def _read_own(folder: Path) -> Signature:
    told = read_json(folder / "signature.json")
    parts = {}
    try:
        for name, one in told["Modalities"].items():
            path = folder / Path(one["File"]).name
            if hashlib.sha256(path.read_bytes()).hexdigest() != one["SHA256"]:
                raise InputError(
                    f"{path}: is not the file that was signed (SHA-256 differs). Fetch "
                    "the signature again."
                )
            if path.suffix == ".tsv":
                table = read_table(path)
                columns, weights = (
                    tuple(table["column"].astype(str)),
                    table["weight"].to_numpy(float),
                )
                parts[name] = Part(
                    weights, one["Unit"], float(one["Intercept"]), None, columns
                )
            else:
                image = read_image(path, 3)
                weights = np.asarray(image.dataobj, float)
                parts[name] = Part(
                    weights, one["Unit"], float(one["Intercept"]), image.affine
                )
        fusion = {str(name): float(w) for name, w in told.get("Fusion", {}).items()}
    except (KeyError, TypeError, AttributeError, OSError) as trouble:
        raise InputError(
            f"{folder / 'signature.json'}: is not whole ({type(trouble).__name__}: "
            f"{trouble}). Export it "
            "again."
        ) from None
    return Signature(str(told.get("Name", folder.name)), parts, fusion, told)


def write_signature(signature: Signature, folder: Path, card: str) -> Path:
    """Write a signature to a new folder: maps or tables, signature.json with their
    hashes, model_card.md."""
    folder = Path(folder)
    check_vacant(folder)
    told: dict[str, Any] = {"Name": signature.name, **signature.told, "Modalities": {}}
    for name, part in signature.parts.items():
        path = folder / (
            f"{name}_weights.nii.gz" if part.is_map else f"{name}_weights.tsv"
        )
        if part.is_map:
            assert part.affine is not None
            write_image(path, part.weights.astype(np.float32), part.affine)
        else:
            write_table(path, _table(part))
        told["Modalities"][name] = {
            "File": path.name,
            "Unit": part.unit,
            "Intercept": part.intercept,
            "SHA256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
    told |= {
        "Fusion": dict(signature.fusion),
        "GeneratedBy": [{"Name": "cingulum", "Version": __version__}],
    }
    write_json(folder / "signature.json", told)
    write_bytes(folder / "model_card.md", card.encode())
    return folder


def _table(part: Part):  # type: ignore[no-untyped-def]
    import pandas as pd

    return pd.DataFrame({"column": part.columns, "weight": part.weights})


# Applying


@dataclass(frozen=True)
class Applied:
    """What a part makes of data: one score a scan; coverage: share of the squared
    weights where the data lie; flags."""

    scores: np.ndarray
    coverage: float
    flags: tuple[str, ...]


def score_maps(
    part: Part, maps: Sequence[np.ndarray], affine: np.ndarray, what: str
) -> Applied:
    """Scores w · x of maps (x, y, z) on one grid, zero outside the brain; what: named
    in errors.

    The maps are resampled to the grid of the weights; voxels that any of them lacks are
    left out of all, so that a difference of two scores is the score of the difference.
    Raises InputError for other units, little coverage, and maps that lie the wrong way
    round.
    """
    assert part.affine is not None
    data = np.stack([np.asarray(m, np.float32) for m in maps])
    if not np.isfinite(data).all():
        raise InputError(
            f"{what}: NaN or infinite values; expected zero outside the brain."
        )
    inside = (data != 0).all(0)
    flags = _check_unit(part, data, inside, what)
    mask = _onto(inside.astype(np.float32), affine, part) > 0.5
    weights = np.where(mask, part.weights, 0.0)
    coverage = float(np.square(weights).sum() / np.square(part.weights).sum())
    _check_way(part, mask, what)
    if coverage < COVERAGE:
        raise InputError(
            f"{what}: covers {coverage:.0%} of the signature's squared weights; at "
            f"least {COVERAGE:.0%} is needed. Was "
            "the whole brain scanned, and is the map in the signature's space?"
        )
    if coverage < 0.95:
        flags = (*flags, f"covers {coverage:.0%} of the signature's squared weights")
    scores = np.array(
        [float((weights * _onto(one, affine, part)).sum()) for one in data]
    )
    return Applied(scores, coverage, flags)


def score_columns(
    part: Part, values: np.ndarray, columns: Sequence[str], what: str
) -> Applied:
    """Scores of values (scan, column). Raises InputError for columns that are missing
    and for other units."""
    lost = [c for c in part.columns if c not in columns]
    if lost:
        raise InputError(
            f"{what}: lacks {', '.join(lost[:5])}; the signature needs "
            f"{len(part.columns)} columns."
        )
    x = np.asarray(values, float)[:, [list(columns).index(c) for c in part.columns]]
    if not np.isfinite(x).all():
        raise InputError(f"{what}: values are missing.")
    if part.unit == "ln(ms²)" and (np.abs(x) > 15).any():
        raise InputError(
            f"{what}: {x.flat[np.abs(x).argmax()]:.4g} cannot be a logarithm of ms²: "
            "take the natural "
            "logarithm of the power first."
        )
    return Applied(x @ part.weights, 1.0, ())


def _check_unit(
    part: Part, data: np.ndarray, inside: np.ndarray, what: str
) -> tuple[str, ...]:
    if not inside.any():
        raise InputError(f"{what}: has no voxel inside the brain of every scan.")
    if part.unit == RCBF_UNIT:
        means = data[:, inside].mean(1)
        low, high = CREDIBLE_MEAN
        if not ((low <= means) & (means <= high)).all():
            worst = means[np.abs(np.log(np.abs(means).clip(1e-9))).argmax()]
            hint = " That looks like ml/100 g/min." if 15 < worst < 150 else ""
            raise InputError(
                f"{what}: blood flow has mean {worst:.3g} over the brain; the "
                "signature is for maps divided by their "
                f"whole-brain mean (1).{hint} Divide each map by its mean over the "
                "brain."
            )
    if part.unit == "regression estimate" and len(data) > 1:
        spread = float(np.diff(data[:, inside], axis=0).std())
        if (
            not 0.02 < spread < 7
        ):  # .35 in the published data (lee2019.md §3.4), a factor of twenty either way
            return (
                f"differences between scans have SD {spread:.3g}; the published data "
                "had about 0.35",
            )
    return ()


def _check_way(part: Part, mask: np.ndarray, what: str) -> None:
    """Refuse maps whose brain overlaps the signature's better when turned upside down
    or back to front."""
    target = part.weights != 0
    overlap = float((mask & target).sum())
    for axis, way in ((1, "back to front"), (2, "upside down")):
        turned = np.flip(mask, axis)
        for shift in range(-8, 9, 2):
            if (np.roll(turned, shift, axis) & target).sum() > 1.1 * overlap:
                raise InputError(
                    f"{what}: lies {way}: turned, it would overlap the signature "
                    "better. Check the affine."
                )


def _onto(data: np.ndarray, affine: np.ndarray, part: Part) -> np.ndarray:
    """Data on the grid of the weights, linearly interpolated, zero outside."""
    from scipy.ndimage import affine_transform

    assert part.affine is not None
    if data.shape == part.weights.shape and np.allclose(affine, part.affine):
        return data
    back = np.linalg.inv(affine) @ part.affine
    return affine_transform(
        data, back[:3, :3], back[:3, 3], output_shape=part.weights.shape, order=1
    )
