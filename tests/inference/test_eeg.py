"""EEG from end to end: 62 channels over a Jansen-Rit network with delays, at rest and
after a pulse."""

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.haemodynamics import Amplifier
from cingulum.brain.leadfield import electrode_cap, sphere_leadfield
from cingulum.brain.masses import JansenRit, Kuramoto
from cingulum.errors import InputError
from cingulum.inference import Cleaning, Runs, Spectrum, fit, time_course
from cingulum.inference.problem import at_rest
from cingulum.inference.views import binned, check_recording
from cingulum.measures import psd
from cingulum.simulation import cross_spectrum, fixed_point, simulate, stability
from cingulum.simulation.simulation import largest_local_step
from cingulum.timeseries import TimeSeries

CENTRES = {"mass.a": 100.0, "mass.b": 55.0, "mass.C": 118.0, "strength": 1.5}
SPREADS = {"mass.a": 0.08, "mass.b": 0.08, "mass.C": 0.06, "strength": 0.4}


def prior(*names):
    return {name: LogNormal(math.log(CENTRES[name]), SPREADS[name]) for name in names}


def eeg_brain(tr=0.002, n=20, **mass):
    """Damped alpha (C 118, b 55 and p 200 are below the Hopf bifurcation), tracts up to
    14 cm at 4 m/s."""
    around = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    positions = 70 * around / around.norm(dim=1, keepdim=True)
    positions[:, 2] = positions[:, 2].abs()
    electrodes, names = electrode_cap(62)
    sensor = Sensor(
        Amplifier(),
        tr,
        "uV",
        leadfield=sphere_leadfield(positions, electrodes),
        channels=names,
    )
    connectome = distance_rule(positions, tuple(f"r{i}" for i in range(n)))
    model = JansenRit(**{"C": 118.0, "b": 55.0, "p": 200.0, "to_E": 10.0} | mass)
    return Brain(model, connectome, sensor, strength=1.5, speed=4.0, noise=0.0)


def pulse(brain, tr=0.002, regions=5):
    """300 pulses/s for 10 ms, from 10 ms on, into the first regions."""
    drive = torch.zeros(len(brain.regions), round(0.020 / tr))
    drive[:regions, round(0.010 / tr) :] = 300.0
    return TimeSeries(drive, tr, brain.regions, "1/s")


def evoked(brain, batch=(), seconds=0.4, seed=3):
    start = at_rest(brain, batch)
    return simulate(
        brain,
        seconds,
        dt=0.0005,
        scheme="heun",
        start=start,
        stimulus=pulse(brain, brain.sensor.tr),
        seed=seed,
    ).signal


def epoch(brain, **settings):
    return Runs(
        0.4 / 60,
        1,
        0.0005,
        0.0,
        pulse(brain, brain.sensor.tr),
        fresh=False,
        scheme="heun",
        **settings,
    )


def resting(brain, seconds=60.0, seed=1):
    return simulate(
        brain, seconds, dt=0.0005, scheme="heun", discard=5.0, seed=seed
    ).signal


def test_channels_see_regions_through_the_leadfield():
    brain = eeg_brain()
    plain = with_values(brain, {"sensor.leadfield": None, "sensor.channels": None})
    seen, regional = evoked(brain), evoked(plain)
    assert (
        seen.data.shape == (62, 200)
        and seen.regions == brain.sensor.channels
        and seen.unit == "uV"
    )
    torch.testing.assert_close(seen.data, brain.sensor.leadfield @ regional.data)
    other = replace(seen, regions=tuple(f"x{i}" for i in range(62)))
    check_recording(seen, brain.sensor.channels, brain.sensor.tr)
    with pytest.raises(InputError, match="the recording has 62"):
        check_recording(other, brain.sensor.channels, brain.sensor.tr)


def test_alpha_peaks_near_ten_hertz():
    """Default Jansen-Rit columns at p = 120 and 200 oscillate by themselves; measured
    10.1 and 10.7 Hz."""
    for p, gain in ((120.0, 0.2), (200.0, 0.5)):
        brain = with_values(
            eeg_brain(0.004, C=135.0, b=50.0, p=p), {"strength": gain, "noise": 1.0}
        )
        centres = torch.arange(5.0, 40.0, 0.25)
        power = binned(*psd(resting(brain).data, 0.004), centres).mean(0)
        assert 10.0 <= centres[power.argmax()].item() <= 11.0


@pytest.mark.parametrize(
    ("mass", "strength", "noise"),
    [({}, 1.5, 1.0), ({"C": 135.0, "b": 50.0, "p": 60.0}, 0.05, 0.1)],
)
def test_the_closed_form_is_the_spectrum_of_a_long_simulation(mass, strength, noise):
    """120 s, 62 channels, half-hertz bins: each is uncertain by 1/√60 = 13 %, their
    mean by less than 3 %.

    At p = 60 default columns are so near the Hopf bifurcation (damping .2 /s) that only
    small noise leaves them linear.
    """
    brain = with_values(
        eeg_brain(0.004, **mass),
        {"strength": strength, "noise": noise, "sensor.noise": 0.01},
    )
    assert stability(brain).stable
    fine = torch.arange(4.0125, 29.0, 0.025)
    centres = torch.arange(4.25, 29.0, 0.5)
    modelled = cross_spectrum(brain, fine).real.diagonal(dim1=-2, dim2=-1).mT
    modelled = binned(fine, modelled, centres)
    ratio = (binned(*psd(resting(brain, 120.0).data, 0.004), centres) / modelled).log()
    assert abs(ratio.mean()) < 0.05 and ratio.std() < 0.2
    assert centres[modelled.mean(0).argmax()] == pytest.approx(9.75, abs=0.75)


def test_without_noise_the_evoked_response_is_all_there_is():
    """Nothing before the pulse, potentials of microvolts after it, and rest again."""
    brain = eeg_brain()
    response = evoked(brain).data
    change = (response - response[:, :1]).abs().amax(0)
    assert (
        change[:5].max() < 1e-9
        and 1.0 < change.max() < 50.0
        and change[-1] < change.max() / 5
    )
    torch.testing.assert_close(response, evoked(brain, seed=9).data)


def test_finds_planted_parameters_in_an_evoked_response():
    """One person, an epoch of 400 ms; tests/science has twelve, with gain and
    conduction speed free as well."""
    brain, truth = (
        eeg_brain(),
        {"mass.a": 108.0, "mass.b": 51.0, "mass.C": 112.0, "strength": 2.0},
    )
    recorded = evoked(with_values(brain, truth | {"sensor.noise": 0.3}))
    result = fit(
        brain,
        recorded,
        prior(*truth),
        objective={time_course: 30.0},
        method="simulated",
        runs=epoch(brain),
        cleaning=Cleaning(band=(1.0, 100.0)),
        optimiser="Newton",
        steps=15,
    )
    for name, margin in {
        "mass.a": 0.01,
        "mass.b": 0.03,
        "mass.C": 0.02,
        "strength": 0.15,
    }.items():
        assert result.estimates[name].item() == pytest.approx(
            truth[name], rel=margin
        ), name


@pytest.mark.slow
def test_adam_and_several_starts_lead_to_the_same_place():
    brain, truth = eeg_brain(), {"mass.a": 106.0, "strength": 2.0}
    recorded = evoked(with_values(brain, truth))
    result = fit(
        brain,
        recorded,
        prior(*truth),
        objective={time_course: 30.0},
        method="simulated",
        runs=epoch(brain),
        cleaning=Cleaning(band=(1.0, 100.0)),
        starts=2,
        steps=60,
    )
    assert result.estimates["mass.a"].item() == pytest.approx(106.0, rel=0.01)
    assert result.estimates["strength"].item() == pytest.approx(
        2.0, rel=0.1
    ) and result.method == ["simulated"]


def test_finds_planted_rates_in_the_resting_spectrum():
    brain = with_values(eeg_brain(0.004), {"noise": 1.0, "sensor.noise": 0.02})
    truth = {"mass.a": 94.0, "mass.b": 59.0}
    result = fit(
        brain,
        resting(with_values(brain, truth), 120.0),
        prior(*truth),
        objective=Spectrum((3.0, 40.0), 38),
        method="analytic",
        cleaning=Cleaning(band=(2.0, 45.0)),
        optimiser="Newton",
        steps=10,
    )
    for name, value in truth.items():
        assert result.estimates[name].item() == pytest.approx(value, rel=0.03), name


def test_frequencies_outside_the_band_do_not_count():
    f, power = (
        torch.arange(1.0, 101.0),
        torch.where(torch.arange(1.0, 101.0) > 45.0, 1e6, 1.0),
    )
    torch.testing.assert_close(
        binned(f, power, torch.tensor([10.0, 20.0, 30.0])), torch.ones(3)
    )
    with pytest.raises(InputError, match="ask for fewer bins"):
        binned(f, power, torch.linspace(10.0, 11.0, 5))


def test_the_amplifier_is_stepped_as_finely_as_it_needs():
    """At 250 Hz a haemodynamic step of 4 ms would blow up a filter of 1 ms; gain scales
    what comes out."""
    brain = eeg_brain(0.004)
    signal, louder = (
        evoked(with_values(brain, {"sensor.response.gain": gain})).data
        for gain in (1.0, 3.0)
    )
    assert torch.isfinite(signal).all()
    torch.testing.assert_close(louder, 3 * signal)


def test_heun_may_step_further_than_euler_where_damping_is_weak():
    brain = with_values(eeg_brain(C=135.0, b=50.0, p=60.0), {"strength": 0.0})
    x = fixed_point(brain)
    assert (
        largest_local_step(brain, x)
        < 0.0003
        < 0.004
        < largest_local_step(brain, x, "heun")
        < 0.008
    )


def test_an_equilibrium_amid_a_limit_cycle_is_found():
    """Where the first continuation circles for ever, one of shorter steps arrives."""
    circling = {
        "mass.a": 124.32750778,
        "mass.b": 38.51468554,
        "mass.C": 140.78240024,
        "strength": 2.080500982,
    }
    brain = with_values(eeg_brain(p=120.0), circling)
    assert brain.drift(fixed_point(brain)).abs().max() < 1e-6


def test_phases_that_turn_for_ever_begin_at_rest():
    brain = Brain(Kuramoto(), eeg_brain().connectome)
    torch.testing.assert_close(at_rest(brain, (2,)).neural, brain.resting_state((2,)))
