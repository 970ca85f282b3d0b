"""Small brains that the tests of this folder share."""

import pytest
import torch

from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.simulation import balanced, simulate


@pytest.fixture
def brain():
    """Eight Wong-Wang regions in a volume of 8 cm, TR .72 s, with measurement noise."""
    positions = 80 * torch.rand(8, 3, generator=torch.Generator().manual_seed(8)) - 40
    connectome = distance_rule(positions, tuple(f"r{i}" for i in range(8)))
    return Brain(
        ReducedWongWang(),
        connectome,
        Sensor(tr=0.72, noise=0.005),
        strength=0.4,
        noise=0.015,
    )


@pytest.fixture
def scan(brain):
    """(strength, seconds, seed) → a recording of the balanced brain."""

    def scanned(strength=0.4, seconds=600 * 0.72, seed=1, **values):
        person = balanced(with_values(brain, {"strength": strength} | values))
        return simulate(
            person, seconds, dt=0.004, discard=30.0, vascular_step=0.004, seed=seed
        ).signal

    return scanned
