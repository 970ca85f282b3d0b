"""What every mass promises. A new mass is found by its export line."""

import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from cingulum.brain import Brain, Connectome, masses
from cingulum.brain.dynamics import Dynamics, parameters, with_values
from cingulum.brain.haemodynamics import (
    CONVENTIONS,
    Amplifier,
    BalloonWindkessel,
    CanonicalResponse,
    LogBalloonWindkessel,
)
from cingulum.simulation import simulate

MODELS = [getattr(masses, name)() for name in masses.__all__]
ALL = [
    *MODELS,
    BalloonWindkessel(),
    LogBalloonWindkessel(),
    CanonicalResponse(),
    Amplifier(),
]


def name(model):
    return type(model).__name__


def near_rest(model, *shape):
    generator = torch.Generator().manual_seed(0)
    rest = torch.tensor([s.rest for s in model.states]).reshape(-1, *[1] * len(shape))
    return (
        rest + 0.02 * torch.rand(len(model.states), *shape, generator=generator) + 0.01
    )


def inputs(model, *shape):
    # A response joins no regions: its drive has no coupling axis.
    front = () if model.couplings == 0 else (model.couplings,)
    return 0.1 * torch.rand(*front, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", ALL, ids=name)
def test_declares_every_field_with_unit_range_and_meaning(model):
    declared = parameters(model)
    assert isinstance(model, Dynamics) and list(declared) == [
        f.name for f in fields(model)
    ]
    for key, p in declared.items():
        assert p.unit and p.meaning, key
        assert p.low <= p.default <= p.high, key


@pytest.mark.parametrize("model", ALL, ids=name)
def test_regional_and_batched_shapes_agree(model):
    x, u = near_rest(model, 3, 5), inputs(model, 3, 5)
    together = model.drift(x, u)
    alone = torch.stack([model.drift(x[:, b], u[..., b, :]) for b in range(3)], 1)
    assert (
        together.shape == x.shape
        and model.output(x).shape == u.shape
        and model.activity(x).shape == (3, 5)
    )
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("model", ALL, ids=name)
def test_every_parameter_broadcasts_over_regions(model):
    x, u = near_rest(model, 5), inputs(model, 5)
    regional = with_values(
        model,
        {
            key: torch.full((5,), float(getattr(model, key)))
            for key in parameters(model)
        },
    )
    torch.testing.assert_close(regional.drift(x, u), model.drift(x, u))


@pytest.mark.parametrize("model", ALL, ids=name)
def test_drift_and_output_have_exact_gradients(model):
    x, u = near_rest(model, 3).requires_grad_(), inputs(model, 3).requires_grad_()
    values = {
        k: torch.full((3,), float(getattr(model, k)), requires_grad=True)
        for k in parameters(model)
    }

    def both(x, u, *p):
        m = with_values(model, dict(zip(values, p, strict=True)))
        return m.drift(x, u), m.output(x)

    assert torch.autograd.gradcheck(both, (x, u, *values.values()))


@pytest.mark.parametrize("mass", MODELS, ids=name)
def test_stays_finite_under_long_noise(mass):
    weights = torch.rand(6, 6).fill_diagonal_(0)
    brain = Brain(
        mass,
        Connectome(weights + weights.T, tuple("abcdef")).normalised(),
        strength=0.3,
        noise=0.1,
    )
    bold = simulate(brain, 20 * 0.72, dt=0.001, seed=1).bold
    assert torch.isfinite(bold.data).all() and (bold.data.std(-1) > 0).all()


def test_every_mass_of_the_folder_is_exported():
    folder = Path(masses.__file__).parent
    assert len(MODELS) == len([p for p in folder.glob("*.py") if p.stem != "__init__"])
    assert all(math.isfinite(s.rest) for m in MODELS for s in m.states)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_haemodynamic_convention_rests_at_zero_and_answers(name):
    model = CONVENTIONS[name]
    x = torch.tensor([[s.rest] for s in model.states])
    assert (
        model.output(x).abs().max() < 1e-12
        and model.drift(x, torch.zeros(1)).abs().max() < 1e-12
    )
    for _ in range(300):
        x = x + 0.01 * model.drift(x, torch.full((1,), 0.1))
    assert model.output(x).item() > 0.01
