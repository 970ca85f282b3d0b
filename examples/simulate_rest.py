"""Rest: firing, BOLD and its connectivity; where the working point is, and how far from
instability."""

import matplotlib.pyplot as plt
import torch

from cingulum import (
    Brain,
    ReducedWongWang,
    Sensor,
    balanced,
    fc,
    fixed_point,
    similarity,
    simulate,
    stability,
    with_values,
)
from cingulum.brain.connectome import distance_rule
from cingulum.measures import edges, fcd, lag_one
from cingulum.signals.atlas import pain_atlas
from cingulum.simulation import analytic_fc

torch.set_default_dtype(torch.float64)
atlas = pain_atlas()
connectome = distance_rule(torch.tensor(atlas.centres), atlas.regions)

# What is measured carries noise of its own: `sensor.noise` is in percent BOLD, like the
# signal.
sensor = Sensor(tr=0.72, noise=0.007)
brain = balanced(
    Brain(ReducedWongWang(), connectome, sensor, strength=0.85, noise=0.02)
)

rest = fixed_point(brain)
rates, _ = brain.mass.rates(rest, brain.coupling(rest))
print(
    f"every region fires at {rates.min():.2f} to {rates.max():.2f} Hz: feedback "
    "inhibition holds it there"
)
print(stability(brain))

scan = simulate(brain, 10 * 60.0, dt=0.004, discard=30.0, seed=1).signal
print(
    f"{scan.data.shape[0]} regions, {scan.data.shape[1]} volumes of {scan.tr} s, in "
    f"{scan.unit}"
)
quiet = with_values(brain, {"sensor.noise": 0.0})
clean = simulate(quiet, 10 * 60.0, dt=0.004, discard=30.0, seed=1).signal
print(
    f"lag-one autocorrelation {lag_one(clean.data).mean():.2f}, with measurement noise "
    f"{lag_one(scan.data).mean():.2f}"
)

known = analytic_fc(quiet)
r = similarity(known, fc(clean.data)).item()
print(
    "connectivity in closed form, without a simulation, agrees with ten minutes of it "
    f"at r = {r:.2f}"
)
dynamics = edges(fcd(clean.data, window=83, step=5))
print(
    f"connectivity between windows of a minute: r = {dynamics.mean():.2f} ± "
    f"{dynamics.std():.2f}"
)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
left.plot(
    scan.tr * torch.arange(200), scan.data[:4, :200].T + 0.05 * torch.arange(4), lw=0.8
)
left.set(xlabel="s", ylabel="BOLD, % (four regions)", yticks=[])
right.imshow(
    fc(clean.data) - torch.eye(len(clean.data)), cmap="RdBu_r", vmin=-0.6, vmax=0.6
)
right.set(title="connectivity of the simulation", xlabel="region", ylabel="region")
figure.savefig("simulate_rest.png", dpi=120)
