"""Rest: firing, BOLD and its connectivity; where the working point is, and how far from instability."""

import torch

from cingulum import Brain, ReducedWongWang, Sensor, balanced, fc, fixed_point, put, similarity, simulate, stability
from cingulum.brain.connectome import distance_rule
from cingulum.measures import edges, fcd, lag_one
from cingulum.recordings.atlas import pain_atlas
from cingulum.simulation import analytic_fc

torch.set_default_dtype(torch.float64)
atlas = pain_atlas()
connectome = distance_rule(torch.tensor(atlas.centres), atlas.regions)

# What is measured carries noise of its own: `sensor.noise` is in percent BOLD, like the signal.
sensor = Sensor(tr=0.72, noise=0.007)
brain = balanced(Brain(ReducedWongWang(), connectome, sensor, strength=0.85, noise=0.02))

rest = fixed_point(brain)
rates, _ = brain.mass.rates(rest, brain.coupling(rest))
print(f"every region fires at {rates.min():.2f} to {rates.max():.2f} Hz: feedback inhibition holds it there")
print(stability(brain))

scan = simulate(brain, 10 * 60.0, dt=0.004, discard=30.0, seed=1).signal
print(f"{scan.data.shape[0]} regions, {scan.data.shape[1]} volumes of {scan.tr} s, in {scan.unit}")
quiet = put(brain, {"sensor.noise": 0.0})
clean = simulate(quiet, 10 * 60.0, dt=0.004, discard=30.0, seed=1).signal
print(
    f"lag-one autocorrelation {lag_one(clean.data).mean():.2f}, with measurement noise {lag_one(scan.data).mean():.2f}"
)

known = analytic_fc(quiet)
r = similarity(known, fc(clean.data)).item()
print(f"connectivity in closed form, without a simulation, agrees with ten minutes of it at r = {r:.2f}")
dynamics = edges(fcd(clean.data, window=83, step=5))
print(f"connectivity between windows of a minute: r = {dynamics.mean():.2f} ± {dynamics.std():.2f}")
