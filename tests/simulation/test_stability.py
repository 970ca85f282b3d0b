import math

import numpy as np
import pytest
import torch

from cingulum.brain import Brain, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import Hopf, Linear, ReducedWongWang
from cingulum.simulation import balanced, fixed_point, stability
from cingulum.simulation.linear.eigenvalues import growth
from cingulum.simulation.linear.equilibrium import linearise


def connectome(n=8):
    positions = 80 * torch.rand(n, 3, generator=torch.Generator().manual_seed(8)) - 40
    return distance_rule(positions, tuple(f"r{i}" for i in range(n)))


def test_a_linear_network_has_the_eigenvalues_of_its_weights():
    brain = Brain(Linear(tau=0.1), connectome(), strength=0.5)
    exact = (0.5 * torch.linalg.eigvalsh(brain.connectome.weights) - 1) / 0.1
    found = stability(brain)
    np.testing.assert_allclose(found.rates.real, exact.flip(0), rtol=1e-9)
    assert (
        found.margin == pytest.approx(-exact[-1].item())
        and found.kind == "fold"
        and found.stable
    )
    assert "stable" in str(found) and "fold" in str(found)


def test_an_oscillator_is_near_a_hopf_bifurcation():
    found = stability(Brain(Hopf(a=-2.0, frequency=10.0), connectome(), strength=0.0))
    assert (found.kind, found.margin) == (
        "hopf",
        pytest.approx(2.0),
    ) and found.frequency == pytest.approx(10.0)
    beyond = stability(Brain(Hopf(a=1.0, frequency=10.0), connectome(), strength=0.0))
    assert not beyond.stable and "UNSTABLE" in str(beyond)


def test_the_distance_has_its_gradient():
    strength = torch.tensor(0.6, requires_grad=True)

    def lead(value):
        brain = balanced(
            with_values(Brain(ReducedWongWang(), connectome()), {"strength": value})
        )
        return growth(linearise(brain, fixed_point(brain)))

    (slope,) = torch.autograd.grad(lead(strength), strength)
    with torch.no_grad():
        differences = (
            lead(torch.tensor(0.6 + 1e-5)) - lead(torch.tensor(0.6 - 1e-5))
        ) / 2e-5
    assert slope.item() == pytest.approx(differences.item(), rel=1e-5)
    assert math.isclose(
        -lead(strength).item(),
        stability(
            balanced(
                with_values(Brain(ReducedWongWang(), connectome()), {"strength": 0.6})
            )
        ).margin,
    )
