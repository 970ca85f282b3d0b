"""Make a brain, scan it, and estimate its coupling from the scan."""

import torch
from torch.distributions import LogNormal

from cingulum import Brain, ReducedWongWang, Sensor, balanced, fc, fit, put, similarity, simulate
from cingulum.brain.connectome import distance_rule
from cingulum.recordings.atlas import pain_atlas

torch.set_default_dtype(torch.float64)
atlas = pain_atlas()  # 52 regions with MNI coordinates
connectome = distance_rule(torch.tensor(atlas.centres), atlas.regions)
brain = Brain(ReducedWongWang(), connectome, Sensor(tr=2.0))

person = balanced(put(brain, {"strength": 0.8}))  # brains are values: put makes another one
scan = simulate(person, 10 * 60.0, dt=0.004, discard=20.0, seed=1).bold  # 52 regions × 300 volumes, percent

found = fit(brain, scan, {"strength": LogNormal(-1.0, 0.7)}, prepare=balanced)
print(f"planted 0.800, estimated {found.estimates['strength'].item():.3f}")
print(f"the fitted brain's connectivity explains the scan's with r = {found.fc_r.item():.3f}")
print(f"the connectome alone does with r = {similarity(connectome.weights, fc(scan.data)).item():.3f}")
