"""Recovery from simulated TMS-EEG: twelve people, 62 channels, epochs of 400 ms, six
parameters free at once."""

import math

import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.haemodynamics import Amplifier
from cingulum.brain.leadfield import electrode_cap, sphere_leadfield
from cingulum.brain.masses import JansenRit
from cingulum.inference import Cleaning, Runs, fit, time_course
from cingulum.inference.problem import at_rest
from cingulum.measures import pearson
from cingulum.simulation import simulate
from cingulum.timeseries import TimeSeries

TR, NOISE, PEOPLE = 0.001, 0.3, 12
PRIORS = {
    "mass.a": (100.0, 0.08),
    "mass.b": (55.0, 0.08),
    "mass.C": (118.0, 0.06),
    "sensor.response.gain": (1.0, 0.3),
    "strength": (1.5, 0.4),
    "speed": (4.0, 0.4),
}


def brain_and_pulse():
    around = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    positions = 70 * around / around.norm(dim=1, keepdim=True)
    positions[:, 2] = positions[:, 2].abs()
    electrodes, names = electrode_cap(62)
    sensor = Sensor(
        Amplifier(),
        TR,
        "uV",
        leadfield=sphere_leadfield(positions, electrodes),
        channels=names,
    )
    connectome = distance_rule(positions, tuple(f"r{i}" for i in range(20)))
    mass = JansenRit(C=118.0, b=55.0, p=200.0, to_E=10.0)
    drive = torch.zeros(20, 20)
    drive[:5, 10:] = 300.0  # pulses/s, from 10 to 20 ms
    brain = Brain(mass, connectome, sensor, strength=1.5, speed=4.0, noise=0.0)
    return brain, TimeSeries(drive, TR, brain.regions, "1/s")


def recovered(seed):
    """Planted and found values, in units of the prior's standard deviation from its
    centre: {name: (2, person)}."""
    brain, stimulus = brain_and_pulse()
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(PEOPLE, 1, generator=generator) for name in PRIORS}
    truth = {
        name: PRIORS[name][0] * torch.exp(PRIORS[name][1] * z)
        for name, z in drawn.items()
    }
    people = with_values(brain, truth)
    recorded = simulate(
        with_values(people, {"sensor.noise": NOISE}),
        0.4,
        dt=0.0005,
        scheme="heun",
        start=at_rest(people, (PEOPLE,)),
        stimulus=stimulus,
        seed=seed,
    ).signal
    found = fit(
        brain,
        recorded,
        {name: LogNormal(math.log(m), s) for name, (m, s) in PRIORS.items()},
        objective={time_course: weight(recorded)},
        method="simulated",
        optimiser="Newton",
        steps=25,
        cleaning=Cleaning(band=(1.0, 100.0)),
        runs=Runs(0.4 / 60, 1, 0.0005, 0.0, stimulus, fresh=False, scheme="heun"),
    )
    scaled = {
        name: (found.estimates[name] / PRIORS[name][0]).log() / PRIORS[name][1]
        for name in PRIORS
    }
    return {name: torch.stack([drawn[name][:, 0], scaled[name]]) for name in PRIORS}


def weight(recorded):
    """What makes the relative squared error a Gaussian log-likelihood of white noise of
    known amplitude."""
    channels, samples = recorded.data.shape[-2:]
    power = (
        (recorded.data - recorded.data.mean(-1, keepdim=True))
        .var((-2, -1))
        .mean()
        .item()
    )
    return channels * samples / 2 * power / NOISE**2 / (channels * (channels - 1) / 2)


MARGINS = {  # least correlation and slope, largest error in prior standard deviations
    "mass.a": (0.995, 0.95, 0.06),
    "mass.b": (0.93, 0.75, 0.3),
    "mass.C": (0.97, 0.8, 0.25),
    "sensor.response.gain": (0.995, 0.95, 0.03),
    "strength": (0.95, 0.85, 0.3),
    "speed": (0.7, 0.5, 0.8),
}
"""Measured (seeds 5 and 6): r 1.000, .957/.997, .992/.997, 1.000, .982/.994 and
.77/.93; slopes 1.00, .82/.99, .85/.99, 1.00, 1.07/1.02 and .64/.70. Losses lie 0.5 to 8
below those at the truth and three starts end in the same places: what is left is the
data's noise and the prior's pull, not the search. Inhibition (b) and contacts (C) share
a ridge."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_six_parameters_are_recovered_from_evoked_responses(seed):
    for name, (planted, found) in recovered(seed).items():
        r = pearson(planted, found).item()
        slope = ((planted - planted.mean()) * found).sum() / (
            planted - planted.mean()
        ).square().sum()
        error = (found - planted).square().mean().sqrt().item()
        least_r, least_slope, most = MARGINS[name]
        assert r > least_r and least_slope < slope < 2 - least_slope and error < most, (
            name
        )
        print(
            f"{name}: r {r:.4f}, slope {slope:.3f}, error {error:.3f} prior sd = "
            f"{error * PRIORS[name][1]:.4f} (log)"
        )
