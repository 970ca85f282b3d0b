import pytest
import torch

from cingulum.brain import Brain, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import GainWongWang, Hopf, ReducedWongWang
from cingulum.errors import ConvergenceError, InputError
from cingulum.simulation import balanced, fixed_point, held_rate


def connectome(n=8):
    positions = 80 * torch.rand(n, 3, generator=torch.Generator().manual_seed(8)) - 40
    return distance_rule(positions, tuple(f"r{i}" for i in range(n)))


def rates(brain):
    x = fixed_point(brain)
    return brain.mass.rates(x, brain.coupling(x))[0]


def test_equals_the_closed_form_with_its_gradient():
    strength = torch.tensor([[0.3], [0.6]], requires_grad=True)
    brain = Brain(ReducedWongWang(), connectome(), strength=strength)
    closed = balanced(brain)
    solved = held_rate(brain, rates(closed).detach())
    torch.testing.assert_close(solved.mass.J_i, closed.mass.J_i, rtol=0, atol=1e-9)
    ours, theirs = (
        torch.autograd.grad((b.mass.J_i * torch.arange(8.0)).sum(), strength)[0]
        for b in (solved, closed)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_holds_the_rate_of_a_mass_that_has_no_closed_form():
    brain = Brain(GainWongWang(), connectome(), strength=0.01)
    wanted = 1.1 * rates(brain)
    found = held_rate(brain, wanted, "mass.I_0")
    torch.testing.assert_close(rates(found), wanted, rtol=1e-8, atol=0)
    assert (found.mass.I_0 > brain.mass.I_0).all()


def test_says_why_it_cannot():
    with pytest.raises(ConvergenceError, match="outside its range"):
        held_rate(Brain(GainWongWang(), connectome(), strength=0.01), 3.0, "mass.g_IE")
    with pytest.raises(InputError, match="no firing rates"):
        held_rate(Brain(Hopf(), connectome()), 3.0, "mass.a")
    with pytest.raises(InputError, match="J_j"):
        held_rate(
            with_values(Brain(ReducedWongWang(), connectome()), {"strength": 0.3}),
            3.0,
            "mass.J_j",
        )
