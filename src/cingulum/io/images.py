"""NIfTI-1 and -2 images read safely: refused where damaged or implausible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cingulum.errors import InputError
from cingulum.io.files import BUDGET, read_bytes, read_start, write_bytes

LARGEST_COMPRESSION = 100
"""Ratio of unpacked to packed size above which a large image is a bomb: real runs
shrink to a tenth."""

NEVER_A_BOMB = 100 * 1024**2
"""Bytes up to which an image may compress as well as it likes: a mask is almost all
zeros, and unpacking it costs little."""

PADDING = 64 * 1024
"""Bytes behind the data that a file may have."""

SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
"""Length in s of each unit of time in a header; without a unit, programs write
seconds."""

NIFTI2_STARTS = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
"""First bytes of a NIfTI-2 file (header size 540), in either byte order."""

HEADER_BYTES = 540
"""Length of the longer of the two headers."""


def read_image(
    path: Path, dimensions: int, *, allow_nan: bool = False, space: str = ""
) -> nib.Nifti1Image:
    """A NIfTI-1 or NIfTI-2 image with `dimensions` axes, as float32, checked to its
    last byte.

    Checked: what the header claims against the budget before anything is read, gzip
    checksum, affine (invertible, without shear, q- and s-form alike), voxel size, field
    of view, spatial unit, finite values (`allow_nan` sets NaN to zero instead, for maps
    that mark the outside so). The fourth zoom is returned in seconds whatever unit the
    header used.
    space: when it begins with MNI, the image must also contain the origin of that space

    Raises InputError naming the file, the finding and the remedy.
    """
    path = Path(path)
    image = _load(path)
    with _nifti_errors(path):
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
    _check_geometry(path, image, dimensions, space)
    if allow_nan:
        # Infinities stay, and are refused below: no program marks the outside by them.
        values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    _check_finite(path, values)
    clean = nib.Nifti1Image(values, image.affine)
    clean.header.set_xyzt_units("mm", "sec")
    if dimensions == 4:
        _set_tr(clean, _tr(path, image))
    return clean


def read_voxels(
    path: Path, inside: np.ndarray, like: nib.Nifti1Image, what: str, space: str = ""
) -> tuple[np.ndarray, float]:
    """The time courses (voxel, time) of the voxels `inside` (x, y, z) of a 4-D image,
    as float32, and its TR (s).

    All that `read_image` checks, and that the image lies on the grid of `like` (called
    `what` in errors); but volume by volume, so that no more memory is taken than file
    and voxels need, and values outside the mask may be anything.
    """
    path = Path(path)
    image = _load(path)
    _check_geometry(path, image, 4, space)
    check_same_grid(path, image, like, what)
    signals = np.empty((int(inside.sum()), image.shape[3]), dtype=np.float32)
    with _nifti_errors(path):
        for time in range(image.shape[3]):
            volume = np.asarray(image.dataobj[..., time], dtype=np.float32)
            signals[:, time] = volume[inside]
    return signals, _tr(path, image)


def read_content(path: Path) -> bytes:
    """The unpacked bytes of a NIfTI file, as many as its header claims. Raises
    InputError where it claims too much or holds too little."""
    claimed = _claimed_size(path)
    content = read_bytes(path, claimed + PADDING)
    # nibabel allocates the claimed memory before it notices that the file is shorter.
    if len(content) < claimed:
        raise InputError(
            f"{path}: holds {len(content)} bytes of the {claimed} that its header "
            "claims; cut short. Copy it again."
        )
    return content


@contextmanager
def _nifti_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    # nibabel raises whatever a damaged header makes it stumble over.
    except Exception as error:
        raise InputError(
            f"{path}: not a readable NIfTI image ({error}). Expected .nii or .nii.gz."
        ) from None


def _load(path: Path) -> Any:
    content = read_content(path)
    with _nifti_errors(path):
        image = _image_class(content).from_bytes(content)
        _check_plain_numbers(path, image)
    return image


def _image_class(content: bytes) -> Any:
    if content[:4] in NIFTI2_STARTS:
        return nib.Nifti2Image
    return nib.Nifti1Image


def _check_plain_numbers(path: Path, image: Any) -> None:
    # Integers, unsigned integers and floats; not complex numbers or colours.
    if np.dtype(image.get_data_dtype()).kind not in "iuf":
        raise InputError(
            f"{path}: holds {image.get_data_dtype()} values; expected plain numbers."
        )


def _check_finite(path: Path, values: np.ndarray) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(
            f"{path}: {np.mean(~finite):.1%} of its values are NaN or infinite; the "
            "header or the computation that wrote it is damaged."
        )


def read_header(path: Path) -> Any:
    """The NIfTI header of an image, nothing else. Raises InputError where the file
    holds none."""
    path = Path(path)
    start = read_start(path, HEADER_BYTES)
    header_class = _image_class(start).header_class
    with _nifti_errors(path):
        header = header_class(start[: header_class.sizeof_hdr])
        # nibabel decodes both only when asked; a damaged header shall fail here.
        header.get_data_shape()
        header.get_data_dtype()
    return header


def _claimed_size(path: Path) -> int:
    """Bytes that the header says the unpacked file has. Raises InputError where that is
    more than is sensible."""
    header = read_header(path)
    shape = tuple(int(length) for length in header.get_data_shape())
    voxels = math.prod(shape)
    size = _data_offset(header) + voxels * header.get_data_dtype().itemsize
    if size <= 0 or voxels <= 0 or size > BUDGET:
        raise InputError(
            f"{path}: header claims {shape}, not between 1 voxel and "
            f"{BUDGET / 1024**3:.0f} GiB; refused. Cut or downsample the run if it "
            "really is that large."
        )
    if path.suffix == ".gz":
        _check_compression(path, size)
    return size


def _data_offset(header: Any) -> int:
    offset = float(header["vox_offset"])
    if not math.isfinite(offset):
        return -1
    return int(offset)


def _check_compression(path: Path, size: int) -> None:
    packed = path.stat().st_size
    if size > NEVER_A_BOMB and size > LARGEST_COMPRESSION * packed:
        raise InputError(
            f"{path}: header claims {size / 1024**2:.0f} MiB in a file of {packed} "
            "bytes; refused."
        )


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
    smallest_voxel = voxel_size(other.affine).min()
    if apart > 0.05 * smallest_voxel:
        raise InputError(
            f"{path}: its affine is not that of {what} (corners lie {apart:.3g} mm "
            "apart). Take both from one run of one program."
        )


def corners_apart(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> float:
    """Largest distance (mm) between the corners of one grid under two affines."""
    ends = [(0, length) for length in shape[:3]]
    corners = np.array([[*corner, 1] for corner in itertools.product(*ends)]).T
    shifts = ((a - b) @ corners)[:3]
    return float(np.linalg.norm(shifts, axis=0).max())


def voxel_size(affine: np.ndarray) -> np.ndarray:
    """Edge lengths (3,) of a voxel, mm."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def _check_geometry(path: Path, image: Any, dimensions: int, space: str = "") -> None:
    """Raises InputError for an image whose axes, affine or position no head scan has.

    space: when it begins with MNI, the image must contain the origin of that space
    """
    _check_dimensions(path, image.shape, dimensions)
    _check_invertible(path, image.affine)
    _check_unit(path, image)
    _check_voxel_size(path, image.affine)
    _check_shear(path, image.affine)
    _check_stated_voxel_size(path, image)
    _check_field_of_view(path, image)
    _check_offset(path, image.affine)
    _check_forms(path, image)
    if space.startswith("MNI"):
        _check_origin(path, image)


def _check_dimensions(path: Path, shape: tuple[int, ...], dimensions: int) -> None:
    if len(shape) != dimensions or 0 in shape:
        raise InputError(
            f"{path}: expected an image with {dimensions} dimensions; got shape "
            f"{shape}."
        )


def _check_invertible(path: Path, affine: np.ndarray) -> None:
    # A determinant with NaN in it would pass the second test.
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(
            f"{path}: its affine is not invertible; the header is damaged."
        )


def _check_unit(path: Path, image: Any) -> None:
    unit, _ = _units(path, image)
    if unit not in ("mm", "unknown"):
        raise InputError(
            f"{path}: its header measures space in {unit}; expected mm. Repair the "
            "header."
        )


def _check_voxel_size(path: Path, affine: np.ndarray) -> None:
    size = voxel_size(affine)
    if not ((size >= 0.2) & (size <= 20)).all():
        raise InputError(
            f"{path}: voxel size {np.round(size, 3)} mm is implausible (expected 0.2 "
            "to 20 mm)."
        )


def _check_shear(path: Path, affine: np.ndarray) -> None:
    directions = affine[:3, :3] / voxel_size(affine)
    # Cosines of the angles between the axes: the identity where all are right angles.
    cosines = directions.T @ directions
    if np.abs(cosines - np.eye(3)).max() > 0.02:
        raise InputError(
            f"{path}: its affine is sheared (axes not at right angles); the header is "
            "damaged."
        )


def _check_stated_voxel_size(path: Path, image: Any) -> None:
    size = voxel_size(image.affine)
    # Negative by an old convention for flipped axes.
    stated = np.abs(np.asarray(image.header["pixdim"][1:4], dtype=float))
    if not np.allclose(stated, size, rtol=0.02):
        raise InputError(
            f"{path}: the header gives voxels of {np.round(stated, 3)} mm, its affine "
            f"{np.round(size, 3)} mm; one is damaged."
        )


def _check_field_of_view(path: Path, image: Any) -> None:
    extent = voxel_size(image.affine) * image.shape[:3]
    if not ((extent >= 20) & (extent <= 1000)).all():
        raise InputError(
            f"{path}: field of view {np.round(extent)} mm is implausible for a head."
        )


def _check_offset(path: Path, affine: np.ndarray) -> None:
    distance = np.abs(affine[:3, 3]).max()
    if distance > 1000:
        raise InputError(
            f"{path}: its origin lies {distance:.0f} mm away; the header is damaged."
        )


def _units(path: Path, image: Any) -> tuple[str, str]:
    """Units of space and time, as the header names them."""
    try:
        return image.header.get_xyzt_units()
    except KeyError as code:
        raise InputError(
            f"{path}: its header has a unit that NIfTI does not know ({code}); it is "
            "damaged."
        ) from None


def _check_forms(path: Path, image: Any) -> None:
    """Where a header gives two positions, they must agree: programs differ in which
    one they read."""
    try:
        qform, qform_code = image.get_qform(coded=True)
        sform, sform_code = image.get_sform(coded=True)
    except (ValueError, KeyError, OverflowError) as error:
        raise InputError(
            f"{path}: its q-form or s-form is impossible ({error}); the header is "
            "damaged."
        ) from None
    # Code 0 means not set; different codes mean different spaces, which may differ.
    if qform_code <= 0 or qform_code != sform_code:
        return
    if not np.allclose(qform, sform, atol=0.5):
        raise InputError(
            f"{path}: its q-form and s-form place the image differently (by up to "
            f"{np.abs(qform - sform).max():.1f} mm); the header is damaged."
        )


def _check_origin(path: Path, image: Any) -> None:
    """An image in a standard space contains that space's origin, the anterior
    commissure."""
    origin = np.linalg.solve(image.affine, [0, 0, 0, 1])[:3]
    # A voxel reaches half an index to either side of its centre.
    last = np.asarray(image.shape[:3]) - 0.5
    if not ((origin > -0.5) & (origin < last)).all():
        raise InputError(
            f"{path}: is named as MNI space, but does not hold that space's origin (it "
            f"would be voxel {np.round(origin, 1)} of {image.shape[:3]}); the header "
            "is damaged, or the name is wrong."
        )


def _tr(path: Path, image: Any) -> float:
    """Time from volume to volume, s."""
    _, unit = _units(path, image)
    if unit not in SECONDS:
        raise InputError(
            f"{path}: its fourth axis is measured in {unit}; expected a time series in "
            "seconds."
        )
    return float(image.header["pixdim"][4]) * SECONDS[unit]


def _set_tr(image: nib.Nifti1Image, tr: float) -> None:
    image.header.set_zooms((*image.header.get_zooms()[:3], tr))


def write_image(
    path: Path, data: np.ndarray, affine: np.ndarray, tr: float | None = None
) -> None:
    """Write a NIfTI image in mm (and s); 4-D data needs its `tr`."""
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        _set_tr(image, tr)
    write_bytes(path, image.to_bytes())
