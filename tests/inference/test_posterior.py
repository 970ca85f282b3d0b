"""Intervals, ridges and profiles."""

import numpy as np
import pytest
import torch
from torch.distributions import Gamma, HalfNormal, LogNormal, Uniform

from cingulum.errors import InputError
from cingulum.inference import Cleaning, Gains, Likelihood, Runs, fit, laplace, profile
from cingulum.inference.posterior import reweighed
from cingulum.simulation import balanced

LIKELY = {
    "objective": Likelihood(),
    "cleaning": Cleaning(band=(0.008, 0.25), bins=12),
    "prepare": balanced,
    "method": "analytic",
    "optimiser": "Newton",
    "steps": 20,
}
COUPLED = {
    "strength": LogNormal(np.log(0.3), 0.7),
    "noise": LogNormal(np.log(0.01), 0.5),
}
SENSED = COUPLED | {"sensor.noise": LogNormal(np.log(0.004), 0.5)}


@pytest.fixture
def result(brain, scan):
    return fit(brain, scan(0.5), SENSED, **LIKELY)


def test_newton_ends_where_the_gradient_vanishes(result):
    theta = {
        path: value.clone().requires_grad_() for path, value in result.theta.items()
    }
    result.problem.analytic(theta).loss.backward()
    steep = torch.cat([value.grad for value in theta.values()]).abs()
    assert (steep * laplace(result).sd < 0.02).all(), (
        "less than a fiftieth of a standard deviation from the optimum"
    )


def test_intervals_hold_the_truth_and_shrink_with_the_recording(brain, scan, result):
    table = laplace(result).table(0.99).set_index("parameter")
    for name, truth in {"strength": 0.5, "noise": 0.015, "sensor.noise": 0.005}.items():
        assert table.loc[name, "low"] < truth < table.loc[name, "high"]
    assert (table["shrinkage"] > 0.5).all() and (table["shrinkage"] < 1).all()
    longer = laplace(fit(brain, scan(0.5, 2400 * 0.72), SENSED, **LIKELY))
    ratio = laplace(result).sd / longer.sd
    assert (ratio[1:] > 1.5).all() and (ratio[1:] < 2.7).all(), (
        "four times the data: half the deviation"
    )


def test_what_the_data_cannot_tell_apart_is_named(brain, scan):
    """Recurrent excitation and neural noise both raise the level of BOLD: only their
    combination is known."""
    ridge = COUPLED | {"mass.w_plus": LogNormal(np.log(1.4), 0.2)}
    posterior = laplace(fit(brain, scan(0.5), ridge, **LIKELY))
    worst = posterior.directions().iloc[0]
    assert "mass.w_plus" in worst["direction"] and worst["precision"] < 50
    assert posterior.directions()["precision"].iloc[-1] > 100 * worst["precision"]


@pytest.mark.slow
def test_draws_have_the_posteriors_mean_and_spread(result):
    posterior = laplace(result)
    for draws in (
        posterior.sample(4000, seed=1),
        reweighed(posterior, 2000, seed=1)[0],
    ):
        both = torch.cat([draws[path] for path in result.theta], -1)
        assert ((both.mean(0) - posterior.mean).abs() < 0.35 * posterior.sd).all()
        assert (both.std(0) / posterior.sd).log().abs().max() < 0.35
    assert reweighed(posterior, 10, seed=1)[1] > 0.3


@pytest.mark.slow
def test_a_profile_agrees_with_the_curvature_where_it_is_quadratic(result):
    posterior = laplace(result)
    table = profile(
        result, "sensor.noise", points=7, spread=2.0, steps=40, posterior=posterior
    )
    assert table["rise"].min() == 0 and table["rise"].idxmin() == 3
    ends = table["rise"].iloc[[0, -1]]
    assert ends.between(1.2, 3.2).all(), "two standard deviations are a rise of two"
    assert table["inside"].tolist() == [False, True, True, True, True, True, False]


def test_a_fit_that_did_not_arrive_or_meets_the_limit_is_said_so(brain, scan):
    lost = {**LIKELY, "optimiser": "Adam", "steps": 5}
    with pytest.warns(UserWarning, match="had not arrived"):
        laplace(fit(brain, scan(0.5), SENSED, **lost))
    with pytest.raises(InputError, match="method='analytic'"):
        laplace(
            fit(
                brain,
                scan(0.5),
                COUPLED,
                prepare=balanced,
                method="simulated",
                steps=1,
                runs=Runs(minutes=1.0, runs=1),
            )
        )


@pytest.mark.parametrize(
    "prior",
    [LogNormal(-4.0, 0.5), Gamma(2.0, 100.0), Uniform(0.001, 0.05), HalfNormal(0.02)],
)
def test_data_that_say_nothing_leave_any_prior_as_it_was(brain, scan, prior):
    nothing = {
        **LIKELY,
        "objective": lambda model, recorded: 0 * model.fc.sum((-2, -1)),
    }
    posterior = laplace(fit(brain, scan(0.5), {"noise": prior}, **nothing))
    assert posterior.table()["shrinkage"].item() == pytest.approx(0.0, abs=0.02)
    assert not posterior.directions()["identifiable"].any()


def test_what_cannot_be_asked(brain, scan, result):
    with pytest.raises(InputError, match="No coordinate 'w'"):
        profile(result, "w")
    pair = fit(brain, [scan(0.4), scan(0.6, seed=2)], COUPLED, **LIKELY)
    posterior = laplace(pair)
    assert posterior.mean.shape == (2, 2) and len(posterior.table()) == 4
    assert posterior.mean[0, 0] < posterior.mean[1, 0]
    with pytest.raises(InputError, match="one of the 2 recordings"):
        posterior.directions()
    with pytest.raises(InputError, match="one recording"):
        profile(pair, "strength")
    wires = fit(
        brain,
        scan(),
        {"connectome.weights": Gains()},
        prepare=balanced,
        method="analytic",
        steps=80,
    )
    assert laplace(wires).mean.shape == (28,)
