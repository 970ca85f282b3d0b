import pytest
import torch

from cingulum.brain import Brain, Connectome, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang, WilsonCowan
from cingulum.brain.sensor import Sensor
from cingulum.errors import InputError
from cingulum.measures import fc, similarity
from cingulum.simulation import analytic_fc, balanced, fixed_point, simulate, stability
from cingulum.simulation.linear.equilibrium import linearise


def small_brain(n=12, strength=0.5, **kwargs):
    positions = 60 * torch.rand(n, 3, generator=torch.Generator().manual_seed(3)) - 30
    connectome = distance_rule(positions, tuple(f"r{i}" for i in range(n)))
    return balanced(Brain(ReducedWongWang(), connectome, strength=strength, **kwargs))


def test_same_seed_same_run_other_seed_other_run():
    brain = small_brain()
    first, again, other = (
        simulate(brain, 5.0, dt=0.002, seed=s).bold.data for s in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_continuing_equals_one_long_run_bit_for_bit():
    brain = small_brain()
    whole = simulate(brain, 8 * 0.72, dt=0.002, seed=4)
    half = simulate(brain, 4 * 0.72, dt=0.002, seed=4)
    rest = simulate(brain, 4 * 0.72, dt=0.002, seed=4, start=half.end)
    assert torch.equal(torch.cat([half.bold.data, rest.bold.data], -1), whole.bold.data)


def test_gradient_of_a_simulated_signal_by_every_parameter_and_weight():
    brain = small_brain(4, sensor=Sensor(tr=0.1))

    def signal(strength, J_i, log_weights, noise):
        changed = with_values(
            brain, {"strength": strength, "mass.J_i": J_i, "noise": noise}
        )
        weights = log_weights.exp()
        joined = Connectome(weights + weights.T, brain.regions)
        return simulate(
            with_values(changed, {"connectome": joined}),
            0.3,
            dt=0.005,
            vascular_step=0.02,
        ).bold.data

    log_weights = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) - 2
    values = [
        torch.tensor(0.5),
        brain.mass.J_i.detach(),
        log_weights,
        torch.tensor(0.02),
    ]
    assert torch.autograd.gradcheck(
        signal, [v.clone().requires_grad_() for v in values]
    )


def test_warns_of_a_step_that_the_equations_do_not_allow():
    with pytest.warns(UserWarning, match="stable below 0.008"):
        simulate(small_brain(), 1.5, dt=0.010)


def test_a_tr_that_is_no_whole_number_of_steps_is_refused():
    with pytest.raises(InputError, match="whole number of time steps"):
        simulate(small_brain(), 5.0, dt=0.0007)


@pytest.mark.parametrize(
    "mass", [ReducedWongWang(), WilsonCowan()], ids=lambda m: type(m).__name__
)
def test_linearisation_equals_the_jacobian_of_the_whole_network(mass):
    brain = with_values(small_brain(5), {"mass": mass})
    x = fixed_point(brain)
    whole = torch.autograd.functional.jacobian(
        lambda y: brain.drift(y.reshape(x.shape)).flatten(), x.flatten()
    )
    torch.testing.assert_close(linearise(brain, x).jacobian(), whole)


def test_slow_covariance_is_the_zero_frequency_cross_spectrum():
    """A⁻¹ Q A⁻ᵀ of the whole network, restricted to the outputs."""
    brain = small_brain(6, noise=0.02)
    x = fixed_point(brain)
    inverse = torch.linalg.inv(linearise(brain, x).jacobian())
    covariance = (0.02**2 * inverse @ inverse.T)[:6, :6]
    scale = covariance.diagonal().sqrt()
    torch.testing.assert_close(analytic_fc(brain), covariance / scale[:, None] / scale)


def test_analytic_fc_has_exact_gradients():
    brain = small_brain(4)

    def connectivity(strength, w_plus):
        return analytic_fc(
            balanced(with_values(brain, {"strength": strength, "mass.w_plus": w_plus}))
        )

    assert torch.autograd.gradcheck(
        connectivity,
        (torch.tensor([0.4]).requires_grad_(), torch.full((4,), 1.3).requires_grad_()),
    )


def test_unbalanced_fixed_point_has_exact_gradients():
    brain = small_brain(4)

    def point(strength, J_i):
        return fixed_point(with_values(brain, {"strength": strength, "mass.J_i": J_i}))

    assert torch.autograd.gradcheck(
        point,
        (torch.tensor([0.3]).requires_grad_(), torch.full((4,), 1.2).requires_grad_()),
    )


def test_analytic_fc_agrees_with_a_long_simulation():
    """Small noise, stable point: what remains is the sampling error of 128 × 4
    minutes."""
    brain = small_brain(12, strength=0.6)
    single = with_values(
        brain, {"connectome": brain.connectome, "mass.J_i": brain.mass.J_i}
    )
    run = simulate(
        single, 240.0, dt=0.004, batch=(128,), discard=20.0, seed=5
    ).bold.data
    assert similarity(fc(run).mean(0), analytic_fc(brain)) > 0.97
    assert stability(brain, fixed_point(brain)).stable
