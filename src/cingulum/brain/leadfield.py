"""The potential of each region's dipole at each electrode, in a homogeneous sphere.

A stand-in that needs no head model, for simulations, tests and planning. A study of
real EEG or MEG gives its own leadfield, for example MNE's, averaged over the vertices
of each region:

    forward = mne.convert_forward_solution(
        mne.read_forward_solution(file), surf_ori=True, force_fixed=True
    )
    # hemisphere by hemisphere, as the columns are
    at = np.concatenate([s["vertno"] for s in forward["src"]])
    columns = [
        forward["sol"]["data"][:, region_of[at] == i].mean(1) for i in range(n_regions)
    ]
    leadfield = np.stack(columns, 1)
    Sensor(
        Amplifier(),
        leadfield=torch.tensor(leadfield - leadfield.mean(0)),
        channels=tuple(forward.ch_names),
    )

with `region_of` the region of every vertex (both hemispheres apart, in practice); less
its mean over the channels, as an average-referenced recording is.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.errors import InputError

REFERENCES = ("average", "none")


def sphere_leadfield(
    positions: Float[Tensor, "region 3"],
    electrodes: Float[Tensor, "channel 3"],
    orientations: Float[Tensor, "region 3"] | None = None,
    reference: str = "average",
    *,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
    conductivity: float = 0.33,
) -> Float[Tensor, "channel region"]:
    """Potential (µV) at every electrode for a dipole of 1 nA m in every region, in a
    homogeneous conducting sphere.

    The electrodes lie on the sphere's surface. Derivative along the dipole of the
    potential of point sources in a sphere, Frank 1952, doi:10.1063/1.1702037. Skull and
    skin, which blur the map, are left out.

    positions, electrodes: mm, in the same coordinates; centre: the sphere's, in them
    orientations: directions of the dipoles (their length does not matter); default:
        outwards from the centre
    reference: `average` takes the mean over electrodes out; `none` leaves potentials
        against infinity
    conductivity: S/m

    Raises InputError for positions that are not (…, 3), electrodes that lie on no
    common sphere, regions on an electrode or outside the sphere.
    """
    _check_reference(reference)
    _check_points("positions", positions)
    _check_points("electrodes", electrodes)
    middle = positions.new_tensor(centre)
    source = positions - middle
    electrode = electrodes.to(positions) - middle
    radius = _radius(source, electrode)
    moment = _directions(source, orientations)
    potential = (_lead_vectors(source, electrode, radius) * moment).sum(-1)
    # nA m, mm and S/m give mV; 1e3 makes it µV.
    microvolts = 1e3 * potential / (4 * math.pi * conductivity)
    # An average reference is what most recordings are given.
    return microvolts - microvolts.mean(0) if reference == "average" else microvolts


def _check_reference(reference: str) -> None:
    if reference not in REFERENCES:
        raise InputError(
            f"reference must be one of {', '.join(REFERENCES)}; got {reference!r}."
        )


def _lead_vectors(
    source: Float[Tensor, "region 3"],
    electrode: Float[Tensor, "channel 3"],
    radius: Tensor,
) -> Float[Tensor, "channel region 3"]:
    """Potential at each electrode per unit of dipole moment along each axis, times 4πσ:
    the gradient of Frank's point-source potential."""
    offset = electrode.unsqueeze(1) - source
    distance = offset.norm(dim=-1, keepdim=True)
    projection = (electrode.unsqueeze(1) * source).sum(-1, keepdim=True)
    inner = radius**2 - projection + radius * distance
    # What the sphere's insulating surface adds to the unbounded medium's 2 r / |r|³.
    surface = (electrode.unsqueeze(1) + radius * offset / distance) / (radius * inner)
    return 2 * offset / distance**3 + surface


def electrode_cap(
    n: int = 62,
    radius: float = 100.0,
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> tuple[Float[Tensor, "channel 3"], tuple[str, ...]]:
    """Positions (mm) and names (E1, E2, … from the vertex down) of n electrodes on the
    upper part of a sphere.

    Quasi-uniform: a Fibonacci spiral (Swinbank and Purser 2006, doi:10.1256/qj.05.227)
    from the vertex to 20° below the equator, about as far as caps of the 10-10 system
    reach.

    Raises InputError for fewer than two electrodes or a radius that is not positive.
    """
    if n < 2 or radius <= 0:
        raise InputError(
            f"A cap needs at least 2 electrodes and a positive radius; got {n} and "
            f"{radius} mm."
        )
    names = tuple(f"E{i + 1}" for i in range(n))
    return radius * _fibonacci_cap(n) + torch.tensor(centre), names


def _fibonacci_cap(n: int) -> Float[Tensor, "point 3"]:
    """Points of a Fibonacci spiral on the unit sphere, down to 20° below the
    equator."""
    step = torch.arange(n, dtype=torch.get_default_dtype())
    # Equal steps in height are equal areas of a sphere.
    height = 1 - (1 + math.sin(math.radians(20.0))) * (step + 0.5) / n
    # The golden angle keeps successive turns from lining up.
    azimuth = math.pi * (3 - math.sqrt(5.0)) * step
    horizontal = (1 - height**2).sqrt()
    x = horizontal * azimuth.cos()
    y = horizontal * azimuth.sin()
    return torch.stack([x, y, height], -1)


def _check_points(name: str, points: Tensor) -> None:
    if points.ndim != 2 or points.shape[-1] != 3 or not torch.isfinite(points).all():
        raise InputError(
            f"{name} must be finite coordinates of shape (number, 3); got "
            f"{tuple(points.shape)}."
        )


def _directions(source: Tensor, orientations: Tensor | None) -> Tensor:
    """Unit vectors along the dipoles."""
    # Cortex is folded, so outwards is a stand-in where orientations are not known.
    moment = source if orientations is None else orientations.to(source)
    if moment.shape != source.shape:
        raise InputError(
            f"orientations must have the positions' shape {tuple(source.shape)}; got "
            f"{tuple(moment.shape)}."
        )
    length = moment.norm(dim=-1, keepdim=True)
    _check_lengths(length)
    return moment / length


def _check_lengths(length: Tensor) -> None:
    if not (length > 0).all():
        raise InputError(
            "A dipole has no direction: its orientation is zero, or it lies at the "
            "sphere's centre, from which no way is outwards. Give orientations of a "
            "length above zero."
        )


def _mean_radius(electrode: Tensor) -> Tensor:
    distances = electrode.norm(dim=-1)
    radius = distances.mean()
    # Caps are digitised to a few millimetres.
    if (distances - radius).abs().max() > 0.01 * radius:
        raise InputError(
            "Electrodes must lie on one sphere around the centre; they are "
            f"{distances.min().item():.4g} to {distances.max().item():.4g} mm away. "
            "Give the sphere's centre, or project them onto the sphere."
        )
    return radius


def _radius(source: Tensor, electrode: Tensor) -> Tensor:
    """The sphere's radius, after checking that all electrodes lie on it and all regions
    inside it."""
    radius = _mean_radius(electrode)
    _check_apart(source, electrode, radius)
    _check_inside(source, radius)
    return radius


def _check_apart(source: Tensor, electrode: Tensor, radius: Tensor) -> None:
    # The potential grows with the inverse square of the distance.
    if (torch.cdist(electrode, source) < 1e-6 * radius).any():
        raise InputError(
            "A region lies on an electrode, where its potential is infinite. Move one "
            "of the two."
        )


def _check_inside(source: Tensor, radius: Tensor) -> None:
    farthest = source.norm(dim=-1).max()
    if farthest >= radius:
        raise InputError(
            "Regions must lie inside the sphere of the electrodes (radius "
            f"{radius.item():.4g} mm); one is {farthest.item():.4g} mm from the "
            "centre. Give the sphere's centre, or a wider cap."
        )
