"""What each electrode sees of each region: the potential of current dipoles in a
homogeneous sphere.

A stand-in that needs no head model, for simulations, tests and planning. A study of
real EEG or MEG gives its own leadfield, for example MNE's, averaged over the vertices
of each region:

    forward = mne.convert_forward_solution(mne.read_forward_solution(file),
    surf_ori=True, force_fixed=True) at = np.concatenate([s["vertno"] for s in
    forward["src"]])  # hemisphere by hemisphere, as the columns are leadfield =
    np.stack([forward["sol"]["data"][:, region_of[at] == i].mean(1) for i in
    range(n_regions)], 1) Sensor(Amplifier(), leadfield=torch.tensor(leadfield -
    leadfield.mean(0)), channels=tuple(forward.ch_names))

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
    if reference not in REFERENCES:
        raise InputError(
            f"reference must be one of {', '.join(REFERENCES)}; came {reference!r}."
        )
    for word, points in (("positions", positions), ("electrodes", electrodes)):
        _check_points(word, points)
    middle = positions.new_tensor(centre)
    source, electrode = positions - middle, electrodes.to(positions) - middle
    radius = _radius(source, electrode)
    moment = _directions(source, orientations)
    apart = electrode.unsqueeze(1) - source  # (channel, region, 3)
    distance = apart.norm(dim=-1, keepdim=True)
    inner = (
        radius**2
        - (electrode.unsqueeze(1) * source).sum(-1, keepdim=True)
        + radius * distance
    )
    surface = (electrode.unsqueeze(1) + radius * apart / distance) / (radius * inner)
    field = ((2 * apart / distance**3 + surface) * moment).sum(-1)
    microvolts = 1e3 * field / (4 * math.pi * conductivity)  # nA m, mm and S/m
    return microvolts - microvolts.mean(0) if reference == "average" else microvolts


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
            f"A cap needs at least 2 electrodes and a positive radius; came {n} and "
            f"{radius} mm."
        )
    step = torch.arange(n, dtype=torch.get_default_dtype())
    up = 1 - (1 + math.sin(math.radians(20.0))) * (step + 0.5) / n
    around = math.pi * (3 - math.sqrt(5.0)) * step
    flat = (1 - up**2).sqrt()
    sphere = torch.stack([flat * around.cos(), flat * around.sin(), up], -1)
    return radius * sphere + torch.tensor(centre), tuple(f"E{i + 1}" for i in range(n))


def _check_points(word: str, points: Tensor) -> None:
    if points.ndim != 2 or points.shape[-1] != 3 or not torch.isfinite(points).all():
        raise InputError(
            f"{word} must be finite coordinates of shape (number, 3); came "
            f"{tuple(points.shape)}."
        )


def _directions(source: Tensor, orientations: Tensor | None) -> Tensor:
    """Unit vectors along the dipoles."""
    moment = source if orientations is None else orientations.to(source)
    if moment.shape != source.shape:
        raise InputError(
            f"orientations must have the positions' shape {tuple(source.shape)}; came "
            f"{tuple(moment.shape)}."
        )
    length = moment.norm(dim=-1, keepdim=True)
    if not (length > 0).all():
        raise InputError(
            "A dipole has no direction: its orientation is zero, or it lies at the "
            "sphere's centre, from which no "
            "way is outwards. Give orientations of a length above zero."
        )
    return moment / length


def _radius(source: Tensor, electrode: Tensor) -> Tensor:
    """The sphere's radius, once everything is where it must be."""
    away = electrode.norm(dim=-1)
    radius = away.mean()
    if (away - radius).abs().max() > 0.01 * radius:
        raise InputError(
            "Electrodes must lie on one sphere around the centre; they are "
            f"{away.min().item():.4g} to "
            f"{away.max().item():.4g} mm away. Give the sphere's centre, or project "
            "them onto the sphere."
        )
    if (torch.cdist(electrode, source) < 1e-6 * radius).any():
        raise InputError(
            "A region lies on an electrode, where its potential is infinite. Move one "
            "of the two."
        )
    depth = source.norm(dim=-1).max()
    if depth >= radius:
        raise InputError(
            "Regions must lie inside the sphere of the electrodes (radius "
            f"{radius.item():.4g} mm); one is "
            f"{depth.item():.4g} mm from the centre. Give the sphere's centre, or a "
            "wider cap."
        )
    return radius
