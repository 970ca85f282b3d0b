"""NIfTI-1 and -2 images read safely: refused where damaged or implausible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from cingulum.errors import InputError
from cingulum.io.checks import all_between
from cingulum.io.files import (
    BUDGET,
    parse_errors,
    read_bytes,
    read_start,
    write_bytes,
)

LARGEST_COMPRESSION = 100
"""Ratio of unpacked to packed size above which a large image is a bomb: real runs
shrink to a tenth."""

NEVER_A_BOMB = 100 * 1024**2
"""Bytes up to which an image may compress as well as it likes: a mask is almost all
zeros, and unpacking it costs little."""

LARGEST_VOLUME = 200_000_000
"""Voxels of one volume: 230 mm in each direction at 0.4 mm."""

PADDING = 64 * 1024
"""Bytes behind the data that a file may have."""

SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}
"""Length in s of each unit of time in a header; without a unit, programs write
seconds."""

NIFTI2_STARTS = (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
"""First bytes of a NIfTI-2 file (header size 540), in either byte order."""

NIFTI = "NIfTI image, .nii or .nii.gz"
"""What an image should have been, for the error messages."""

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
    # Before the voxels take any memory: a head of millions of them is none.
    geometry = _Geometry(path, image)
    geometry.check(dimensions, space)
    with parse_errors(path, NIFTI):
        # Not cached in the image too, which would double the memory of a run.
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
    if allow_nan:
        # Infinities stay, and are refused below: no program marks the outside by them.
        values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    _check_finite(path, values)
    clean = nib.Nifti1Image(values, image.affine)
    clean.header.set_xyzt_units("mm", "sec")
    if dimensions == 4:
        _set_tr(clean, geometry.tr)
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
    geometry = _Geometry(path, image)
    geometry.check(4, space)
    check_same_grid(path, image, like, what)
    signals = np.empty((int(inside.sum()), image.shape[3]), dtype=np.float32)
    with parse_errors(path, NIFTI):
        # One volume at a time: all voxels of a long run need ten times the memory.
        for time in range(image.shape[3]):
            volume = np.asarray(image.dataobj[..., time], dtype=np.float32)
            signals[:, time] = volume[inside]
    return signals, geometry.tr


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


def _load(path: Path) -> Any:
    # From bytes already checked: nibabel itself stops reading before the checksum.
    content = read_content(path)
    with parse_errors(path, NIFTI):
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
    with parse_errors(path, NIFTI):
        header = header_class(start[: header_class.sizeof_hdr])
        # nibabel decodes both only when asked; a damaged header shall fail here.
        header.get_data_shape()
        header.get_data_dtype()
    return header


def _claimed_size(path: Path) -> int:
    """Bytes that the header says the unpacked file has. Raises InputError where that is
    more than is sensible."""
    header = read_header(path)
    # Python's own integers, whose product cannot overflow.
    shape = tuple(map(int, header.get_data_shape()))
    voxels = math.prod(shape)
    _check_volume(path, shape)
    size = _data_offset(header) + voxels * header.get_data_dtype().itemsize
    if min(size, voxels) <= 0 or size > BUDGET:
        raise InputError(
            f"{path}: header claims {shape}, not between 1 voxel and "
            f"{BUDGET / 1024**3:.0f} GiB; refused. Cut or downsample the run if it "
            "really is that large."
        )
    if path.suffix == ".gz":
        _check_compression(path, size)
    return size


def _check_volume(path: Path, shape: tuple[int, ...]) -> None:
    """Raises InputError for more voxels than a head has, before any of them is read."""
    voxels = math.prod(shape[:3])
    if voxels > LARGEST_VOLUME:
        raise InputError(
            f"{path}: header claims {shape}, {voxels / 1e6:.0f} million voxels a "
            f"volume, where a head of 0.4 mm has {LARGEST_VOLUME / 1e6:.0f}; refused. "
            "Resample it."
        )


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
    _check_same_shape(path, image.shape[:3], other.shape[:3], what)
    # Programs round affines differently, but by far less than would move a label.
    apart = corners_apart(image.affine, other.affine, image.shape)
    smallest_voxel = voxel_size(other.affine).min()
    if apart > 0.05 * smallest_voxel:
        raise InputError(
            f"{path}: its affine is not that of {what} (corners lie {apart:.3g} mm "
            "apart). Take both from one run of one program."
        )


def _check_same_shape(
    path: Path, shape: tuple[int, ...], other: tuple[int, ...], what: str
) -> None:
    if shape != other:
        raise InputError(f"{path}: its grid {shape} is not that of {what} {other}.")


def corners_apart(a: np.ndarray, b: np.ndarray, shape: Sequence[int]) -> float:
    """Largest distance (mm) between the corners of one grid under two affines."""
    ends = [(0, length) for length in shape[:3]]
    corners = np.array([[*corner, 1] for corner in itertools.product(*ends)]).T
    shifts = ((a - b) @ corners)[:3]
    return float(np.linalg.norm(shifts, axis=0).max())


def voxel_size(affine: np.ndarray) -> np.ndarray:
    """Edge lengths (3,) of a voxel, mm."""
    return np.linalg.norm(affine[:3, :3], axis=0)


@dataclass(frozen=True, eq=False)
class _Geometry:
    """Where an image lies by its header; each check raises InputError for what no head
    scan has."""

    path: Path
    image: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape

    @property
    def affine(self) -> np.ndarray:
        return self.image.affine

    @property
    def voxel_size(self) -> np.ndarray:
        return voxel_size(self.affine)

    @property
    def stated_voxel_size(self) -> np.ndarray:
        """What the header states beside the affine."""
        stated = np.asarray(self.image.header["pixdim"][1:4], dtype=float)
        # Negative by an old convention for flipped axes.
        return np.abs(stated)

    @property
    def field_of_view(self) -> np.ndarray:
        return self.voxel_size * self.shape[:3]

    @property
    def offset(self) -> float:
        """Largest distance of the first voxel from the origin along an axis, mm."""
        return np.abs(self.affine[:3, 3]).max()

    @property
    def origin(self) -> np.ndarray:
        """Voxel index (3,) of the point at 0 mm."""
        return np.linalg.solve(self.affine, [0, 0, 0, 1])[:3]

    @property
    def angles(self) -> np.ndarray:
        """Cosines (3, 3) between the axes: the identity where all are at right
        angles."""
        directions = self.affine[:3, :3] / self.voxel_size
        return directions.T @ directions

    @property
    def tr(self) -> float:
        """Time from volume to volume, s."""
        unit = self._units()[1]
        if unit not in SECONDS:
            raise self._error(
                f"its fourth axis is measured in {unit}; expected a time series in "
                "seconds."
            )
        return float(self.image.header["pixdim"][4]) * SECONDS[unit]

    def check(self, dimensions: int, space: str) -> None:
        """space: when it begins with MNI, the image must contain the origin of that
        space"""
        # In this order: without an invertible affine, a voxel has no size.
        self._check_dimensions(dimensions)
        self._check_invertible()
        self._check_unit()
        self._check_voxel_size()
        self._check_shear()
        self._check_stated_voxel_size()
        self._check_field_of_view()
        self._check_offset()
        self._check_forms()
        if space.startswith("MNI"):
            self._check_origin()

    def _error(self, text: str) -> InputError:
        return InputError(f"{self.path}: {text}")

    def _units(self) -> tuple[str, str]:
        """Units of space and time, as the header names them."""
        try:
            return self.image.header.get_xyzt_units()
        except KeyError as code:
            raise self._error(
                f"its header has a unit that NIfTI does not know ({code}); it is "
                "damaged."
            ) from None

    def _check_dimensions(self, dimensions: int) -> None:
        if len(self.shape) != dimensions or 0 in self.shape:
            raise self._error(
                f"expected an image with {dimensions} dimensions; got shape "
                f"{self.shape}."
            )

    def _check_invertible(self) -> None:
        # A determinant with NaN in it would pass the second test.
        finite = np.isfinite(self.affine).all()
        if not finite or abs(np.linalg.det(self.affine[:3, :3])) < 1e-6:
            raise self._error("its affine is not invertible; the header is damaged.")

    def _check_unit(self) -> None:
        unit = self._units()[0]
        # Many programs state no unit, and all of them mean mm.
        if unit not in ("mm", "unknown"):
            raise self._error(
                f"its header measures space in {unit}; expected mm. Repair the header."
            )

    def _check_voxel_size(self) -> None:
        if not all_between(self.voxel_size, 0.2, 20):
            raise self._error(
                f"voxel size {np.round(self.voxel_size, 3)} mm is implausible "
                "(expected 0.2 to 20 mm)."
            )

    def _check_shear(self) -> None:
        # Scanners round their direction cosines, to less than this.
        if np.abs(self.angles - np.eye(3)).max() > 0.02:
            raise self._error(
                "its affine is sheared (axes not at right angles); the header is "
                "damaged."
            )

    def _check_stated_voxel_size(self) -> None:
        if not np.allclose(self.stated_voxel_size, self.voxel_size, rtol=0.02):
            raise self._error(
                f"the header gives voxels of {np.round(self.stated_voxel_size, 3)} mm, "
                f"its affine {np.round(self.voxel_size, 3)} mm; one is damaged."
            )

    def _check_field_of_view(self) -> None:
        if not all_between(self.field_of_view, 20, 1000):
            raise self._error(
                f"field of view {np.round(self.field_of_view)} mm is implausible for a "
                "head."
            )

    def _check_offset(self) -> None:
        # No scanner's bore is longer.
        if self.offset > 1000:
            raise self._error(
                f"its origin lies {self.offset:.0f} mm away; the header is damaged."
            )

    def _check_forms(self) -> None:
        """Where a header gives two positions, they must agree: programs differ in which
        one they read."""
        try:
            qform, qform_code = self.image.get_qform(coded=True)
            sform, sform_code = self.image.get_sform(coded=True)
        except (ValueError, KeyError, OverflowError) as error:
            raise self._error(
                f"its q-form or s-form is impossible ({error}); the header is damaged."
            ) from None
        # Code 0 means not set; different codes mean different spaces, which may differ.
        if qform_code <= 0 or qform_code != sform_code:
            return
        if not np.allclose(qform, sform, atol=0.5):
            raise self._error(
                "its q-form and s-form place the image differently (by up to "
                f"{np.abs(qform - sform).max():.1f} mm); the header is damaged."
            )

    def _check_origin(self) -> None:
        """An image in a standard space contains that space's origin, the anterior
        commissure."""
        # A voxel reaches half an index to either side of its centre.
        last = np.asarray(self.shape[:3]) - 0.5
        if not ((self.origin > -0.5) & (self.origin < last)).all():
            raise self._error(
                "is named as MNI space, but does not hold that space's origin (it "
                f"would be voxel {np.round(self.origin, 1)} of {self.shape[:3]}); the "
                "header is damaged, or the name is wrong."
            )


def _set_tr(image: nib.Nifti1Image, tr: float) -> None:
    image.header.set_zooms((*image.header.get_zooms()[:3], tr))


def write_image(
    path: Path, data: np.ndarray, affine: np.ndarray, tr: float | None = None
) -> str:
    """Write a NIfTI image in mm (and s); 4-D data needs its `tr`. Returns the file's
    SHA-256."""
    image = nib.Nifti1Image(data, affine)
    # Stated, since other programs guess, or refuse, where a header has no units.
    image.header.set_xyzt_units("mm", "sec")
    if tr is not None:
        _set_tr(image, tr)
    return write_bytes(path, image.to_bytes())
