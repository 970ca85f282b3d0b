"""What each objective sees, and that all are zero for the truth and have gradients."""

import numpy as np
import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import with_values
from cingulum.errors import InputError
from cingulum.inference import (
    Cleaning,
    FcdMismatch,
    Metastability,
    Rate,
    Runs,
    Spectrum,
    fc_error,
    fc_geodesic,
    fc_level,
    fc_mismatch,
    fit,
    lag_mismatch,
    time_course,
)
from cingulum.inference.views import Analytic, Recorded, Simulated
from cingulum.simulation import balanced, simulate
from cingulum.timeseries import TimeSeries

MATRIX = [fc_mismatch, fc_error, fc_level, fc_geodesic]
SIGNAL = [
    lag_mismatch,
    Spectrum(bins=8),
    time_course,
    Metastability(),
    FcdMismatch(60.0, 10.0),
]


def free_running(brain, cleaning=Cleaning()):
    run = simulate(
        brain,
        400 * 0.72,
        dt=0.004,
        discard=20.0,
        vascular_step=0.004,
        seed=1,
        batch=(1,),
    ).signal
    return Simulated(brain, run, cleaning), TimeSeries(
        run.data[0].detach(), run.tr, run.regions, run.unit
    )


@pytest.mark.parametrize(
    "objective", MATRIX + SIGNAL, ids=lambda o: getattr(o, "__name__", type(o).__name__)
)
def test_zero_at_the_truth_and_not_elsewhere_with_a_gradient(brain, objective):
    strength = torch.tensor(0.8, requires_grad=True)
    same, recorded = free_running(balanced(with_values(brain, {"strength": 0.4})))
    seen = Recorded(recorded, brain, Cleaning())
    assert objective(same, seen).abs().max() < 1e-12
    other, _ = free_running(balanced(with_values(brain, {"strength": strength})))
    mismatch = objective(other, seen)
    assert mismatch > 1e-6
    assert torch.autograd.grad(mismatch, strength)[0].abs() > 1e-8


def test_correlation_is_blind_to_the_level_and_the_others_are_not(brain):
    random = torch.rand(8, 8).round(decimals=1)
    off_diagonal = 0.2 * (1 - torch.eye(8)) * (random + random.T)
    recorded = Recorded(torch.eye(8) + off_diagonal, brain, Cleaning())
    raised = Recorded(recorded.fc + 0.2 * (1 - torch.eye(8)), brain, Cleaning())
    assert fc_mismatch(raised, recorded) < 1e-12
    assert (
        fc_level(raised, recorded) == pytest.approx(fc_error(raised, recorded).item())
        and fc_level(raised, recorded) > 0.1
    )


def test_the_geodesic_distance_is_the_mean_squared_logarithm(brain):
    scaled = Recorded(torch.eye(8), brain, Cleaning())
    assert fc_geodesic(scaled, scaled).item() == pytest.approx(0.0, abs=1e-12)
    pair = torch.eye(8)
    pair[0, 1] = pair[1, 0] = 0.5
    # Shrunk by a hundredth: eigenvalues 1 ± .495 in two of eight directions.
    expected = (np.log(1.495) ** 2 + np.log(0.505) ** 2) / 8
    assert fc_geodesic(
        scaled, Recorded(pair, brain, Cleaning())
    ).item() == pytest.approx(expected, rel=1e-9)


def test_rate_holds_the_working_point(brain):
    recorded = Recorded(torch.eye(8), brain, Cleaning())
    held = Analytic(balanced(brain))
    assert Rate(3.0774)(held, recorded) < 1e-8
    assert Rate(6.0)(held, recorded).item() == pytest.approx(
        (1 - 3.0774 / 6) ** 2, rel=1e-4
    )


@pytest.mark.slow
def test_several_objectives_are_weighed_and_each_is_reported(brain, scan):
    prior = {
        "strength": LogNormal(np.log(0.3), 0.5),
        "mass.J_i": LogNormal(0.0, 0.2).expand([8]),
    }
    result = fit(
        brain,
        scan(),
        prior,
        objective={fc_mismatch: 1.0, Rate(): 10.0},
        method="analytic",
        steps=150,
        rate=0.03,
    )
    assert {"fc_mismatch", "Rate"} <= set(result.history)
    assert result.history["Rate"].iloc[-1] < 0.1 * result.history["Rate"].iloc[0]
    rates = Analytic(result.brain).rate
    assert (rates - 3.0).abs().max() < 0.5, "feedback inhibition by penalty"


def test_an_objective_that_a_road_cannot_serve_says_which_can(brain, scan):
    with pytest.raises(InputError, match="method='simulated'"):
        fit(
            brain,
            scan(),
            {"strength": LogNormal(-1.0, 0.5)},
            objective=time_course,
            method="analytic",
            steps=2,
        )
    with pytest.raises(InputError, match="windows of 600"):
        fit(
            brain,
            scan(),
            {"strength": LogNormal(-1.0, 0.5)},
            objective=FcdMismatch(600.0),
            method="simulated",
            steps=1,
            runs=Runs(minutes=1.0, runs=1),
        )


def test_exact_distance_of_connectivity_dynamics(brain):
    one, recorded = free_running(balanced(brain))
    dynamics = FcdMismatch(60.0, 10.0)
    assert dynamics.exact(one, Recorded(recorded, brain, Cleaning())) == 0.0
    other, _ = free_running(
        balanced(with_values(brain, {"strength": 0.9, "sensor.noise": 0.0}))
    )
    assert 0.1 < dynamics.exact(other, Recorded(recorded, brain, Cleaning())) <= 1.0


@pytest.mark.parametrize(
    "cleaning",
    [Cleaning(band=(0.01, 0.1)), Cleaning(global_signal=False), Cleaning((0.01, 0.2))],
)
def test_recording_and_model_are_cleaned_alike(brain, cleaning):
    """Free-running and analytic connectivity agree under every treatment: 2400 volumes,
    correlation above .9."""
    model = balanced(with_values(brain, {"strength": 0.8}))
    run = simulate(
        model, 2400 * 0.72, dt=0.004, discard=30.0, vascular_step=0.004, seed=3
    ).signal
    seen, known = Recorded(run, model, cleaning), Analytic(model, cleaning)
    pair = torch.stack(
        [m[torch.tril(torch.ones(8, 8), -1) > 0] for m in (seen.fc, known.fc)]
    )
    assert torch.corrcoef(pair)[0, 1] > 0.9 and (pair[0] - pair[1]).abs().mean() < 0.06


def test_spectra_are_compared_as_recorded_whatever_the_band(brain):
    """A band would cut the recording's spectrum and not the model's."""
    model = balanced(with_values(brain, {"strength": 0.4}))
    run = simulate(
        model, 1500.0, dt=0.004, discard=30.0, vascular_step=0.004, seed=3
    ).signal
    gaps = []
    for cleaning in (Cleaning(), Cleaning(band=(0.01, 0.1))):
        pair = Analytic(model, cleaning), Recorded(run, model, cleaning)
        gaps.append((Spectrum(bins=10)(*pair), lag_mismatch(*pair)))
    assert gaps[0] == gaps[1] and gaps[0][0] < 0.1 and gaps[0][1] < 0.002


def test_two_of_one_kind_are_both_reported(brain, scan):
    aims = {Spectrum(bins=4): 1.0, Spectrum(bins=8): 1.0}
    result = fit(
        brain,
        scan(),
        {"strength": LogNormal(-1.0, 0.5)},
        objective=aims,
        method="analytic",
        steps=2,
    )
    assert {"Spectrum", "Spectrum 2"} <= set(result.history)
