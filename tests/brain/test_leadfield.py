import math

import pytest
import torch

from cingulum.brain.leadfield import electrode_cap, sphere_leadfield
from cingulum.errors import InputError

INSIDE = torch.tensor(
    [[20.0, -30.0, 50.0], [-60.0, 10.0, 5.0], [0.0, 0.0, 70.0]], dtype=torch.float64
)


def cap():
    return electrode_cap()[0]


def along_the_axis(orientation, depth=60.0, radius=100.0, terms=200):
    """Potential of a dipole on the z axis as a series of Legendre functions, which the
    closed form must sum: Σ (2n + 1)/n f^(n-1) [n p_r P_n + p_t P_n¹ cos φ] / (4π σ
        R²)."""
    x, _, z = (cap() / radius).T
    legendre = [torch.ones_like(z), z]
    slope = [torch.zeros_like(z), torch.ones_like(z)]
    for n in range(2, terms):
        legendre.append(((2 * n - 1) * z * legendre[-1] - (n - 1) * legendre[-2]) / n)
        slope.append(n * legendre[n - 1] + z * slope[-1])
    total = torch.zeros_like(z)
    for n in range(1, terms):
        radial, tangential = n * legendre[n], x * slope[n]
        total += (
            (2 * n + 1)
            / n
            * (depth / radius) ** (n - 1)
            * (orientation[2] * radial + orientation[0] * tangential)
        )
    return 1e3 * total / (4 * math.pi * 0.33 * radius**2)


@pytest.mark.parametrize(
    "orientation", [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.6, 0.0, 0.8]]
)
def test_agrees_with_the_series_of_legendre_functions(orientation):
    where = torch.tensor([[0.0, 0.0, 60.0]])
    field = sphere_leadfield(
        where, cap(), torch.tensor([orientation]), reference="none"
    )
    torch.testing.assert_close(
        field[:, 0], along_the_axis(orientation), rtol=1e-9, atol=1e-12
    )


def test_a_dipole_at_the_centre_has_thrice_its_potential_in_an_infinite_conductor():
    field = sphere_leadfield(
        torch.zeros(1, 3), cap(), torch.tensor([[0.0, 0.0, 5.0]]), reference="none"
    )
    torch.testing.assert_close(
        field[:, 0], 3e3 * cap()[:, 2] / 100 / (4 * math.pi * 0.33 * 100**2)
    )


def test_shape_reference_and_dipoles_point_outwards():
    free, average = (
        sphere_leadfield(INSIDE, cap(), reference=r) for r in ("none", "average")
    )
    assert average.shape == (62, 3) and average.mean(0).abs().max() < 1e-12
    torch.testing.assert_close(average, free - free.mean(0))
    nearest = torch.cdist(cap(), INSIDE).argmin(0)
    assert (average[nearest, torch.arange(3)] > 0).all(), (
        "positive above a dipole that points outwards"
    )


def test_moving_head_and_cap_together_changes_nothing():
    there = (3.0, -18.0, 8.0)
    moved = sphere_leadfield(
        INSIDE + torch.tensor(there), cap() + torch.tensor(there), centre=there
    )
    torch.testing.assert_close(moved, sphere_leadfield(INSIDE, cap()))


def test_the_cap_is_even_and_named():
    positions, names = electrode_cap(62)
    apart = torch.cdist(positions, positions).fill_diagonal_(torch.inf).amin(1)
    assert positions.shape == (62, 3) and names[0] == "E1" and len(set(names)) == 62
    torch.testing.assert_close(cap().norm(dim=1), torch.full((62,), 100.0))
    assert apart.max() / apart.min() < 1.6 and positions[:, 2].min() > -100 * math.sin(
        math.radians(20)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"positions": INSIDE[:, :2]},
            r"positions must be finite coordinates of shape \(number, 3\); got \(3, "
            r"2\)",
        ),
        ({"electrodes": torch.full((62, 3), torch.nan)}, "electrodes must be finite"),
        ({"positions": electrode_cap()[0][4:5].double()}, "lies on an electrode"),
        ({"positions": 2 * INSIDE}, "inside the sphere of the electrodes"),
        ({"electrodes": electrode_cap()[0] + 20.0}, "on one sphere around the centre"),
        ({"orientations": INSIDE[:2]}, "positions' shape"),
        ({"positions": INSIDE * 0}, "has no direction"),
        ({"reference": "Cz"}, "reference must be one of average, none"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        sphere_leadfield(**{"positions": INSIDE, "electrodes": cap()} | change)


def test_a_cap_needs_electrodes():
    with pytest.raises(InputError, match="at least 2 electrodes"):
        electrode_cap(1)
