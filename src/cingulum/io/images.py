"""Images read safely: NIfTI-1 and -2, and parcellated series in CIFTI-2 and GIFTI,
refused when implausible."""

from __future__ import annotations

import base64
import math
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from cingulum.errors import InputError
from cingulum.io.files import BUDGET, read_bytes, read_start, write_bytes
from cingulum.timeseries import TimeSeries

MOST_FOLDED = 100
"""Ratio of unpacked to packed size above which a large image is a bomb: real runs fold
to a tenth."""

PADDING = 64 * 1024
"""Bytes behind the data that a file may have."""

ARRAY = 128 * 1024**2
"""Bytes that one array of a GIFTI file may unfold to."""

SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


def read_image(
    path: Path, dimensions: int, *, allow_nan: bool = False, space: str = ""
) -> nib.Nifti1Image:
    """A NIfTI-1 or NIfTI-2 image with `dimensions` axes, as float32, checked to its
    last byte.

    Checked: what the header claims against the budget before anything is read, gzip
    checksum, affine (invertible, without shear, q- and s-form alike), voxel size, field
    of view, spatial unit, finite values (`allow_nan` sets NaN to zero instead, for maps
    that mark the outside so). The fourth zoom comes back in seconds whatever unit the
    header used.
    space: when it begins with MNI, the image must also reach over the origin of that
    space Raises InputError naming the file, the finding and the remedy.
    """
    path = Path(path)
    image = _opened(path)
    try:
        data = image.get_fdata(dtype=np.float32, caching="unchanged")
    except (
        Exception
    ) as trouble:  # nibabel raises whatever a damaged header makes it stumble over
        raise InputError(
            f"{path}: not a readable NIfTI image ({trouble}). Expected .nii or .nii.gz."
        ) from None
    _check_geometry(path, image, dimensions)
    if space.startswith("MNI"):
        _check_origin(path, image)
    if allow_nan:
        data = np.nan_to_num(data, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if not np.isfinite(data).all():
        raise InputError(
            f"{path}: {np.mean(~np.isfinite(data)):.1%} of its values are NaN or "
            "infinite; the header or the "
            "computation that wrote it is damaged."
        )
    made = nib.Nifti1Image(data, image.affine)
    made.header.set_xyzt_units("mm", "sec")
    if dimensions == 4:
        made.header.set_zooms((*made.header.get_zooms()[:3], _tr(path, image)))
    return made


def read_voxels(
    path: Path, inside: np.ndarray, like: nib.Nifti1Image, what: str, space: str = ""
) -> tuple[np.ndarray, float]:
    """The time courses (voxel, time) of the voxels `inside` (x, y, z) of a 4-D image,
    as float32, and its TR (s).

    All that `read_image` checks, and that it lies on the grid of `like` (called `what`
    in errors); but volume by volume, so that no more memory is taken than file and
    voxels need, and values outside the mask may be anything.
    """
    path = Path(path)
    image = _opened(path)
    _check_geometry(path, image, 4)
    if space.startswith("MNI"):
        _check_origin(path, image)
    check_same_grid(path, image, like, what)
    signals = np.empty((int(inside.sum()), image.shape[3]), dtype=np.float32)
    try:
        for volume in range(image.shape[3]):
            signals[:, volume] = np.asarray(
                image.dataobj[..., volume], dtype=np.float32
            )[inside]
    except (
        Exception
    ) as trouble:  # nibabel raises whatever a damaged header makes it stumble over
        raise InputError(
            f"{path}: not a readable NIfTI image ({trouble}). Expected .nii or .nii.gz."
        ) from None
    return signals, _tr(path, image)


def _content(path: Path) -> bytes:
    claimed = _claim(path)
    content = read_bytes(path, claimed + PADDING)
    if (
        len(content) < claimed
    ):  # said here, because nibabel takes the claimed memory before it notices
        raise InputError(
            f"{path}: holds {len(content)} bytes of the {claimed} that its header "
            "claims; cut short. Copy it again."
        )
    return content


def _opened(path: Path) -> Any:
    content = _content(path)
    try:
        image = _kind(content).from_bytes(content)
        if np.dtype(image.get_data_dtype()).kind not in "iuf":
            raise InputError(
                f"{path}: holds {image.get_data_dtype()} values; expected plain "
                "numbers."
            )
        return image
    except InputError:
        raise
    except (
        Exception
    ) as trouble:  # nibabel raises whatever a damaged header makes it stumble over
        raise InputError(
            f"{path}: not a readable NIfTI image ({trouble}). Expected .nii or .nii.gz."
        ) from None


def check_same_grid(
    path: Path, image: nib.Nifti1Image, other: nib.Nifti1Image, what: str
) -> None:
    """Raises InputError when two images do not lie on one grid: same shape, corners
    within a twentieth of a voxel."""
    if image.shape[:3] != other.shape[:3]:
        raise InputError(
            f"{path}: its grid {image.shape[:3]} is not that of {what} "
            f"{other.shape[:3]}."
        )
    apart = corners_apart(image.affine, other.affine, image.shape)
    if apart > 0.05 * np.linalg.norm(other.affine[:3, :3], axis=0).min():
        raise InputError(
            f"{path}: its affine is not that of {what} (corners lie {apart:.3g} mm "
            "apart). Take both from one run of "
            "one program."
        )


def corners_apart(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> float:
    """Largest distance (mm) between the corners of one grid under two affines."""
    corners = np.array(
        [
            [i, j, k, 1]
            for i in (0, shape[0])
            for j in (0, shape[1])
            for k in (0, shape[2])
        ]
    ).T
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())


def _kind(content: bytes) -> Any:
    return (
        nib.Nifti2Image
        if content[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
        else nib.Nifti1Image
    )


def read_header(path: Path) -> Any:
    """The NIfTI header of an image, nothing else. Raises InputError where it cannot be
    one."""
    path = Path(path)
    start = read_start(path, 540)
    kind = _kind(start).header_class
    try:
        header = kind(start[: kind.sizeof_hdr])
        header.get_data_shape(), header.get_data_dtype().itemsize
        return header
    except (
        Exception
    ) as trouble:  # nibabel raises whatever a damaged header makes it stumble over
        raise InputError(
            f"{path}: not a readable NIfTI image ({trouble}). Expected .nii or .nii.gz."
        ) from None


def _claim(path: Path) -> int:
    """Bytes that the header says the unpacked file has. Raises InputError where that is
    more than is sensible."""
    header = read_header(path)
    shape = [int(n) for n in header.get_data_shape()]
    voxels = math.prod(shape)
    offset = float(header["vox_offset"])
    size = (
        int(offset) if math.isfinite(offset) else -1
    ) + voxels * header.get_data_dtype().itemsize
    if size <= 0 or voxels <= 0 or size > BUDGET:
        raise InputError(
            f"{path}: header claims {tuple(shape)}, not between 1 voxel and "
            f"{BUDGET / 1024**3:.0f} GiB; refused. Cut "
            "or downsample the run if it really is that large."
        )
    packed = path.stat().st_size
    if path.suffix == ".gz" and size > 100 * 1024**2 and size > MOST_FOLDED * packed:
        raise InputError(
            f"{path}: header claims {size / 1024**2:.0f} MiB in a file of {packed} "
            "bytes; refused."
        )
    return size


def _check_geometry(path: Path, image: Any, dimensions: int) -> None:
    affine, shape = image.affine, image.shape
    if len(shape) != dimensions or 0 in shape:
        raise InputError(
            f"{path}: expected an image with {dimensions} dimensions; came shape "
            f"{shape}."
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(
            f"{path}: its affine is not invertible; the header is damaged."
        )
    spatial, _ = _units(path, image)
    if spatial not in ("mm", "unknown"):
        raise InputError(
            f"{path}: its header measures space in {spatial}; expected mm. Repair the "
            "header."
        )
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    if not ((zooms >= 0.2) & (zooms <= 20)).all():
        raise InputError(
            f"{path}: voxel size {np.round(zooms, 3)} mm is implausible (expected 0.2 "
            "to 20 mm)."
        )
    turned = (affine[:3, :3] / zooms).T @ (affine[:3, :3] / zooms)
    if np.abs(turned - np.eye(3)).max() > 0.02:
        raise InputError(
            f"{path}: its affine is sheared (axes not at right angles); the header is "
            "damaged."
        )
    stated = np.abs(np.asarray(image.header["pixdim"][1:4], dtype=float))
    if not np.allclose(stated, zooms, rtol=0.02):
        raise InputError(
            f"{path}: the header gives voxels of {np.round(stated, 3)} mm, its affine "
            f"{np.round(zooms, 3)} mm; one is "
            "damaged."
        )
    extent = zooms * shape[:3]
    if not ((extent >= 20) & (extent <= 1000)).all():
        raise InputError(
            f"{path}: field of view {np.round(extent)} mm is implausible for a head."
        )
    if np.abs(affine[:3, 3]).max() > 1000:
        raise InputError(
            f"{path}: its origin lies {np.abs(affine[:3, 3]).max():.0f} mm away; the "
            "header is damaged."
        )
    _check_forms(path, image)


def _units(path: Path, image: Any) -> tuple[str, str]:
    try:
        return image.header.get_xyzt_units()
    except KeyError as code:
        raise InputError(
            f"{path}: its header has a unit that NIfTI does not know ({code}); it is "
            "damaged."
        ) from None


def _check_forms(path: Path, image: Any) -> None:
    """Where a header gives two positions, they must be one: programs differ in which
    one they read."""
    try:
        qform, qcode = image.get_qform(coded=True)
        sform, scode = image.get_sform(coded=True)
    except (ValueError, KeyError, OverflowError) as trouble:
        raise InputError(
            f"{path}: its q-form or s-form is impossible ({trouble}); the header is "
            "damaged."
        ) from None
    if (
        qcode > 0
        and scode > 0
        and qcode == scode
        and not np.allclose(qform, sform, atol=0.5)
    ):
        raise InputError(
            f"{path}: its q-form and s-form place the image differently (by up to "
            f"{np.abs(qform - sform).max():.1f} "
            "mm); the header is damaged."
        )


def _check_origin(path: Path, image: Any) -> None:
    """An image in a standard space holds that space's origin, the anterior
    commissure."""
    origin = np.linalg.solve(image.affine, [0, 0, 0, 1])[:3]
    if not ((origin > -0.5) & (origin < np.asarray(image.shape[:3]) - 0.5)).all():
        raise InputError(
            f"{path}: is named as MNI space, but does not hold that space's origin (it "
            "would be voxel "
            f"{np.round(origin, 1)} of {image.shape[:3]}); the header is damaged, or "
            "the name is wrong."
        )


def _tr(path: Path, image: Any) -> float:
    _, temporal = _units(path, image)
    if temporal not in SECONDS:
        raise InputError(
            f"{path}: its fourth axis is measured in {temporal}; expected a time "
            "series in seconds."
        )
    return float(image.header["pixdim"][4]) * SECONDS[temporal]


def write_image(
    path: Path, data: np.ndarray, affine: np.ndarray, tr: float | None = None
) -> None:
    """Write a NIfTI image in mm (and s); 4-D data needs its `tr`."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    write_bytes(path, image.to_bytes())


def read_series(
    path: Path, labels: Path | None = None, tr: float | None = None
) -> TimeSeries:
    """Regional signals that come parcellated: CIFTI-2 `.ptseries.nii`, or GIFTI
    `.func.gii` with a `.label.gii`.

    CIFTI knows its regions and TR; a GIFTI series needs `labels` (one region a vertex)
    and `tr` in seconds. Vertices labelled 0 or `???` are no region; a region without a
    vertex is NaN, never dropped. Raises InputError for another kind of file, damaged
    content, or sizes that do not match.
    """
    path = Path(path)
    if path.name.endswith(".ptseries.nii"):
        return _cifti_series(path)
    if path.name.endswith(".func.gii"):
        if labels is None or tr is None:
            raise InputError(
                f"{path}: a GIFTI series needs labels (a .label.gii of the same "
                "surface) and tr (s)."
            )
        return _gifti_series(path, Path(labels), tr)
    raise InputError(f"{path}: expected .ptseries.nii (CIFTI-2) or .func.gii (GIFTI).")


def _cifti_series(path: Path) -> TimeSeries:
    content = _content(path)
    _refuse_entities(path, content)
    try:
        image = nib.Cifti2Image.from_bytes(content)
        axes = [image.header.get_axis(i) for i in range(image.ndim)]
        time = next(axis for axis in axes if isinstance(axis, nib.cifti2.SeriesAxis))
        parcels = next(
            axis for axis in axes if isinstance(axis, nib.cifti2.ParcelsAxis)
        )
        data = np.asarray(image.get_fdata(), dtype=float)
        data = data.T if isinstance(axes[0], nib.cifti2.SeriesAxis) else data
        step = float(time.step) * {"SECOND": 1.0}[time.unit]
        return TimeSeries(
            torch.as_tensor(data.copy()),
            step,
            tuple(str(name) for name in parcels.name),
        )
    except InputError:
        raise
    except (
        Exception
    ) as trouble:  # nibabel raises whatever damaged XML makes it stumble over
        raise InputError(
            f"{path}: not a readable CIFTI-2 parcellated series in seconds "
            f"({type(trouble).__name__}: {trouble})."
        ) from None


def _gifti_series(path: Path, labels: Path, tr: float) -> TimeSeries:
    signals = np.stack(_gifti_arrays(path)[0])
    (marks, *more), table = _gifti_arrays(labels)
    if more or marks.shape != signals.shape[1:]:
        raise InputError(
            f"{labels}: expected one label for each of {signals.shape[1]} vertices; "
            f"came {len(more) + 1} array(s) of "
            f"shape {marks.shape}."
        )
    names = {key: name for key, name in table.items() if key != 0 and name != "???"}
    if not names:
        raise InputError(f"{labels}: its label table names no region.")
    rows = [
        signals[:, marks == key].mean(1)
        if (marks == key).any()
        else np.full(len(signals), np.nan)
        for key in names
    ]
    return TimeSeries(
        torch.as_tensor(np.stack(rows), dtype=torch.float64), tr, tuple(names.values())
    )


def _gifti_arrays(path: Path) -> tuple[Sequence[np.ndarray], dict[int, str]]:
    content = read_bytes(path)
    _refuse_entities(path, content)
    if b"ExternalFileBinary" in content:
        raise InputError(
            f"{path}: points to data in another file; expected the data inside."
        )
    for text in re.findall(rb"<Data>([^<]*)</Data>", content):
        _refuse_bomb(path, text)
    try:
        image = nib.GiftiImage.from_bytes(content)
        arrays = [np.asarray(array.data) for array in image.darrays]
        if not arrays or any(
            array.ndim != 1 or array.shape != arrays[0].shape for array in arrays
        ):
            raise InputError(f"{path}: expected one value a vertex in every array.")
        return arrays, {
            int(k): str(v) for k, v in image.labeltable.get_labels_as_dict().items()
        }
    except InputError:
        raise
    except (
        Exception
    ) as trouble:  # nibabel raises whatever damaged XML makes it stumble over
        raise InputError(
            f"{path}: not a readable GIFTI file ({type(trouble).__name__}: {trouble})."
        ) from None


def _refuse_entities(path: Path, content: bytes) -> None:
    if b"<!ENTITY" in content:
        raise InputError(
            f"{path}: declares XML entities, which no program of this kind writes; "
            "refused."
        )


def _refuse_bomb(path: Path, text: bytes) -> None:
    try:
        unpacker = zlib.decompressobj()
        unpacker.decompress(base64.b64decode(text), ARRAY)
    except (ValueError, zlib.error):
        return  # not compressed, or damaged: nibabel will say so
    if unpacker.unconsumed_tail:
        raise InputError(
            f"{path}: one array unfolds to more than {ARRAY // 1024**2} MiB; refused."
        )
