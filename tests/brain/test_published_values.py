"""Values computed by others: the dossiers name their sources."""

import numpy as np
import pytest
import torch

from cingulum.brain import BalloonWindkessel, Brain, Connectome, with_values
from cingulum.brain.haemodynamics import time_constants
from cingulum.brain.masses import ReducedWongWang, WilsonCowan
from cingulum.brain.masses.reduced_wong_wang import transfer
from cingulum.simulation import balanced, fixed_point, simulate, stability
from cingulum.simulation.linear.balance import inhibitory_gating
from cingulum.simulation.simulation import largest_local_step

PAIR = Connectome(torch.ones(2, 2, dtype=torch.float64), ("a", "b"))


def isolated(mass=None, **values):
    return with_values(
        Brain(mass or ReducedWongWang(), PAIR, strength=0.0, noise=0.0), values
    )


@pytest.mark.parametrize(
    ("current", "excitatory", "inhibitory"),
    [
        (0.0, 2.576e-7, 3.6331e-5),
        (0.2, 0.0026404, 0.4966545),
        (0.3, 0.1923824, 15.6492006),
        (0.4, 5.7633276, 69.1709440),
        (125 / 310, 6.25, 71.1317938),
        (0.5, 30.2489411, 130.5015306),
        (1.0, 185.0, 438.0),
    ],
)
@pytest.mark.parametrize("grad", [True, False], ids=["differentiable", "value only"])
def test_transfer_function(current, excitatory, inhibitory, grad):
    """Griffiths dossier §1.3 (exact formula)."""
    with torch.set_grad_enabled(grad):
        x = torch.tensor(current)
        assert transfer(x, 310.0, 125.0, 0.16).item() == pytest.approx(
            excitatory, rel=2e-4
        )
        assert transfer(x, 615.0, 177.0, 0.087).item() == pytest.approx(
            inhibitory, rel=2e-5
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transfer_function_is_smooth_through_its_singular_point(dtype):
    current = (
        (torch.linspace(-0.01, 0.01, 4001, dtype=torch.float64) + 125 / 310)
        .to(dtype)
        .requires_grad_()
    )
    rate = transfer(current, 310.0, 125.0, 0.16)
    (slope,) = torch.autograd.grad(rate.sum(), current)
    u = 0.16 * (310 * current.detach().double() - 125)
    exact = 310 * (1 / -torch.expm1(-u) - u * torch.exp(-u) / torch.expm1(-u) ** 2)
    away = u.abs() > 0.05  # nearer, the textbook derivative itself has lost its digits
    tolerance = 2e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(
        slope.double()[away], exact[away], rtol=tolerance, atol=0
    )
    assert torch.isfinite(slope).all() and (slope.diff() > -1e-2).all()


def test_isolated_node_rests_at_three_hertz():
    """cuBNM's working point (peers §4.1)."""
    brain = isolated()
    x = fixed_point(brain)
    r_E, r_I = brain.mass.rates(x, torch.zeros(1, 2))
    np.testing.assert_allclose(x[:, 0], [0.1647572075, 0.0392184486], atol=1e-9)
    np.testing.assert_allclose(
        [r_E[0], r_I[0]], [3.0773270642, 3.9218448632], atol=1e-7
    )


def test_derivative_of_tvb():
    """TVB's derivative per ms at S_E .2, S_I .05, long-range current .03 nA (peers
    §4.1)."""
    mass = ReducedWongWang()
    x, u = torch.tensor([[0.2], [0.05]]), torch.tensor([[0.03 / 0.15]])
    np.testing.assert_allclose(
        mass.drift(x, u)[:, 0] / 1000, [1.26692982072e-3, -1.7675286216e-3], rtol=1e-10
    )
    np.testing.assert_allclose(
        [r.item() for r in mass.rates(x, u)], [6.37076798113, 3.2324713784], rtol=1e-10
    )


@pytest.mark.parametrize(
    ("I_0", "g_EE", "g_IE", "g_EI", "start", "expected"),
    [
        (0.32, 0.1, 0.1, 0.1, (0.02, 0.01), (0.02822508, 0.01000753, 0.453118)),
        (0.2, 0.5, 0.14, 0.15, (0.0, 0.0), (0.00016951, 0.00032962, 0.002645)),
        (0.2, 0.5, 0.14, 0.15, (0.49, 0.007), (0.49639958, 0.00684799, 15.377555)),
        (0.2, 0.5, 0.14, 0.15, (0.8, 0.02), (0.78910248, 0.02175364, 58.371911)),
    ],
)
def test_equilibria_of_the_gain_parameterisation(
    I_0, g_EE, g_IE, g_EI, start, expected
):
    """Griffiths dossier §1.9; g_EI = J_N, g_IE = J_i, g_EE = w_+ J_N."""
    mass = ReducedWongWang(I_0=I_0, J_N=g_EI, w_plus=g_EE / g_EI, J_i=g_IE)
    brain = Brain(mass, PAIR, strength=0.0)
    x = fixed_point(brain, torch.tensor(start).reshape(2, 1).expand(2, 2), damping=0.0)
    rate = mass.rates(x, torch.zeros(1, 2))[0][0]
    np.testing.assert_allclose(
        [*x[:, 0].tolist(), rate.item()], expected, rtol=2e-5, atol=1e-8
    )


@pytest.mark.parametrize(
    ("J_i", "J_N", "g_EE", "S_E"),
    [
        (0.0001, 0.0001, 0.454712, 0.662113),
        (0.1, 0.1, 0.455495, 0.661694),
        (0.42, 0.42, 0.534008, 0.637060),
    ],
)
def test_fold_of_the_single_node(J_i, J_N, g_EE, S_E):
    """At the published fold (dossier §1.9, I_0 = .2) the equilibrium and the local
    Jacobian's singularity coincide."""

    def determinant(x, g):
        mass = ReducedWongWang(I_0=0.2, J_N=J_N, w_plus=g / J_N, J_i=J_i)
        jacobian = torch.autograd.functional.jacobian(
            lambda y: mass.drift(y[:, None], torch.zeros(1, 1))[:, 0], x
        )
        return mass.drift(
            x[:, None], torch.zeros(1, 1)
        ).abs().max(), torch.linalg.eigvals(jacobian).real.max()

    mass = ReducedWongWang(I_0=0.2, J_N=J_N, w_plus=g_EE / J_N, J_i=J_i)
    x = torch.stack([torch.tensor(S_E), inhibitory_gating(mass, torch.tensor(S_E))])
    drift, growth = determinant(x, g_EE)
    assert drift < 1e-4 and growth.abs() < 1e-2


def test_haemodynamic_fixed_point_in_the_time_constant_convention():
    """Griffiths dossier §1.4: activity .22 gives f 1.0902, v 1.0280 and BOLD near 1.25
    (their unit is ours / E_0)."""
    balloon = time_constants()
    x = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
    for _ in range(6000):
        x = x + 0.01 * balloon.drift(x, torch.tensor([0.22]))
    s, f, v, q = x[:, 0].tolist()
    assert (f, v) == pytest.approx((1.0902, 1.0280), abs=5e-5)
    assert q == pytest.approx(v * (1 - 0.66 ** (1 / f)) / 0.34, abs=1e-9)
    # Read off their plot to two digits: .22 ± .005 in activity alone is ± .03 in BOLD.
    assert balloon.output(x).item() / 0.34 == pytest.approx(1.25, abs=0.06)


def test_the_two_haemodynamic_conventions_peak_where_others_measured():
    """A 1 s pulse peaks at 3.6-4.0 s with rates, at 2.2-2.6 s with time constants
    (peers §4.2)."""
    for balloon, low, high in (
        (BalloonWindkessel(), 3.6, 4.0),
        (time_constants(), 2.2, 2.6),
    ):
        x, signal = torch.tensor([[0.0], [1.0], [1.0], [1.0]]), []
        for step in range(1000):
            x = x + 0.01 * balloon.drift(x, torch.tensor([0.1 if step < 100 else 0.0]))
            signal.append(balloon.output(x).item())
        assert low - 0.05 <= 0.01 * (int(np.argmax(signal)) + 1) <= high + 0.05


def test_wilson_cowan_rests_without_input_and_cycles_with_it():
    """Figure 11 of Wilson and Cowan 1972: a limit cycle at P = 1.25, c = 16, 12, 15,
    3."""
    for P, cycles in ((0.0, False), (1.25, True)):
        mass, x, seen = WilsonCowan(P=P), torch.tensor([[0.1], [0.05]]), []
        for step in range(4000):
            x = x + 2e-4 * mass.drift(x, torch.zeros(1, 1))
            if step > 2000:
                seen.append(x[0].item())
        assert (max(seen) - min(seen) > 0.1) is cycles


@pytest.fixture
def group_brain(hcp_folder):
    weights = np.load(
        hcp_folder / "sc/group-train706/ctx_parc-schaefer-100_desc-strength.npz"
    )["arr_0"]
    names = tuple(f"parcel {i}" for i in range(100))
    return Brain(
        ReducedWongWang(),
        Connectome(torch.tensor(weights), names).normalised(),
        strength=0.5,
        noise=0.0,
    )


def test_feedback_inhibition_equals_that_of_cubnm(group_brain):
    """cuBNM on the Human Connectome group, G = .5 (peers §4.1): first three w_IE and
    their mean."""
    J_i = balanced(group_brain).mass.J_i
    np.testing.assert_allclose(J_i[:3], [1.14403195, 1.37534722, 1.29482037], rtol=1e-7)
    assert J_i.mean().item() == pytest.approx(1.31507597, rel=1e-7)


def test_balanced_network_sits_at_three_hertz_and_euler_below_nine_milliseconds(
    group_brain,
):
    brain = balanced(group_brain)
    x = fixed_point(brain)
    np.testing.assert_allclose(
        brain.mass.rates(x, brain.coupling(x))[0], 3.0773270642, rtol=1e-6
    )
    assert stability(brain, x).largest_step == pytest.approx(8.7e-3, abs=1e-4)
    assert largest_local_step(brain, x) == pytest.approx(8.7e-3, abs=2e-4)


def test_unbalanced_network_settles_where_cubnm_settles(group_brain):
    """10 s without noise from .001, G .5, J_i 1 (peers §4.1). The fixed point does not
    depend on dt."""
    end = simulate(group_brain, 10.08, start=torch.full((2, 100), 0.001)).end.neural
    rates = group_brain.mass.rates(end, group_brain.coupling(end))[0]
    np.testing.assert_allclose(
        [rates.mean(), end[0].mean()], [20.091248, 0.541547], rtol=2e-6
    )
    np.testing.assert_allclose(rates[:3], [10.076045, 25.313654, 20.140093], rtol=2e-6)
