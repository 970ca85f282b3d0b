"""Stimulate a brain, record 62 channels of EEG, and find its synapses and its coupling
in the evoked response."""

import torch
from torch.distributions import LogNormal

from cingulum import Brain, Sensor, TimeSeries, fit, simulate, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.haemodynamics import Amplifier
from cingulum.brain.leadfield import electrode_cap, sphere_leadfield
from cingulum.brain.masses import JansenRit
from cingulum.inference import Cleaning, Runs, time_course
from cingulum.inference.problem import at_rest
from cingulum.signals.atlas import pain_atlas

torch.set_default_dtype(torch.float64)

# Head. 52 regions with MNI coordinates; 62 electrodes on a sphere around them;
# microvolts against the average.
atlas, centre = pain_atlas(), (0.0, -18.0, 8.0)
positions = torch.tensor(atlas.centres, dtype=torch.float64)
electrodes, channels = electrode_cap(62, radius=100.0, centre=centre)
leadfield = sphere_leadfield(positions, electrodes, centre=centre)
sensor = Sensor(
    Amplifier(), tr=0.002, unit="uV", leadfield=leadfield, channels=channels
)

# Brain. Jansen-Rit columns with damped alpha, joined by a distance rule at 4 m/s.
mass = JansenRit(C=118.0, b=55.0, p=200.0, to_E=10.0)
brain = Brain(
    mass,
    distance_rule(positions, atlas.regions),
    sensor,
    strength=1.5,
    speed=4.0,
    noise=0.0,
)

# Stimulation. 300 pulses/s for 10 ms into the five regions nearest to the left motor
# cortex.
target = (positions - torch.tensor([-37.0, -21.0, 58.0])).norm(dim=1).argsort()[:5]
pulse = torch.zeros(len(atlas.regions), 10)
pulse[target, 5:] = 300.0
stimulus = TimeSeries(pulse, 0.002, atlas.regions, "1/s")

# Person. Faster inhibition, slower excitation and stronger coupling than the prior
# expects; noise as after averaging.
planted = {"mass.a": 94.0, "mass.b": 60.0, "mass.C": 122.0, "strength": 2.1}
person = with_values(brain, planted)
recorded = simulate(
    with_values(person, {"sensor.noise": 0.3}),
    0.4,
    dt=0.0005,
    scheme="heun",
    start=at_rest(person, ()),
    stimulus=stimulus,
).signal

# Fit. Gradients run through the simulated epoch; means are taken out, as high-pass
# filters do. The weight makes the
# relative squared error a log-likelihood: samples/2 × signal/noise power, an objective
# being multiplied by 62·61/2.
power = (recorded.data - recorded.data.mean(-1, keepdim=True)).square().mean().item()
weight = recorded.data.numel() / 2 * power / 0.3**2 / (62 * 61 / 2)
free = {
    "mass.a": LogNormal(4.605, 0.08),
    "mass.b": LogNormal(4.007, 0.08),
    "mass.C": LogNormal(4.771, 0.06),
}
fitted = fit(
    brain,
    recorded,
    free | {"strength": LogNormal(0.405, 0.4)},
    objective={time_course: weight},
    method="simulated",
    runs=Runs(
        minutes=0.4 / 60,
        runs=1,
        dt=0.0005,
        discard=0.0,
        stimulus=stimulus,
        fresh=False,
        scheme="heun",
    ),
    cleaning=Cleaning(band=(1.0, 100.0)),
    optimiser="Newton",
    steps=15,
)
for name, value in planted.items():
    centre_of_prior = free[name].mean.item() if name in free else 1.5
    print(
        f"{name}: prior {centre_of_prior:.4g}, planted {value:.4g}, found "
        f"{fitted.estimates[name].item():.4g}"
    )
