"""Make a brain, scan it, and estimate its coupling from the scan."""

import torch
from torch.distributions import LogNormal

from cingulum import (
    Brain,
    ReducedWongWang,
    Sensor,
    balanced,
    fc,
    fit,
    similarity,
    simulate,
    with_values,
)
from cingulum.brain.connectome import distance_rule
from cingulum.signals.atlas import pain_atlas

torch.set_default_dtype(torch.float64)
atlas = pain_atlas()  # 52 regions with MNI coordinates
connectome = distance_rule(torch.tensor(atlas.centres), atlas.regions)
brain = Brain(ReducedWongWang(), connectome, Sensor(tr=2.0))

# A Brain is immutable: with_values returns a modified copy.
person = balanced(with_values(brain, {"strength": 0.8}))
simulation = simulate(person, 10 * 60.0, dt=0.004, discard=20.0, seed=1)
scan = simulation.bold  # 52 regions × 300 volumes, percent

fitted = fit(brain, scan, {"strength": LogNormal(-1.0, 0.7)}, prepare=balanced)
structure_r = similarity(connectome.weights, fc(scan.data))
print(f"strength: planted 0.800, estimated {fitted.estimates['strength'].item():.3f}")
print(f"fitted model against the scan's connectivity: r = {fitted.fc_r.item():.3f}")
print(f"connectome alone against the scan's: r = {structure_r.item():.3f}")
