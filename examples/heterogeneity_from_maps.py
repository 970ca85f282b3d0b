"""Regions that differ along a map: two numbers instead of one a region, and whether the
map is the right one."""

import math

import torch
from torch.distributions import LogNormal

from cingulum import (
    Brain,
    Likelihood,
    Mapped,
    ReducedWongWang,
    Sensor,
    balanced,
    fit,
    laplace,
    simulate,
    with_values,
)
from cingulum.brain.connectome import distance_rule
from cingulum.inference import Cleaning
from cingulum.signals.atlas import pain_atlas

torch.set_default_dtype(torch.float64)
atlas = pain_atlas()
centres = torch.tensor(atlas.centres)[:26]
brain = Brain(
    ReducedWongWang(),
    distance_rule(centres, atlas.regions[:26]),
    Sensor(tr=0.72, noise=0.005),
    strength=0.4,
)

# Stand-ins for myelin, receptor or gradient maps, z-scored: from front to back, and one
# that has nothing to do with it.
front = (centres[:, 1] - centres[:, 1].mean()) / centres[:, 1].std()
other = torch.randn(26, generator=torch.Generator().manual_seed(1))
maps = torch.stack([front, (other - other.mean()) / other.std()])

person = balanced(
    with_values(brain, {"mass.w_plus": 1.4 * torch.exp(0.08 * front), "noise": 0.015})
)
scan = simulate(
    person, 1440.0, dt=0.004, discard=60.0, vascular_step=0.004, seed=2
).signal

free = {
    "strength": LogNormal(math.log(0.3), 0.5),
    "noise": LogNormal(math.log(0.02), 0.5),
    "mass.w_plus": Mapped(
        LogNormal(math.log(1.4), 0.01), maps, spread=0.2, names=("front", "other")
    ),
}
fitted = fit(
    brain,
    scan,
    free,
    objective=Likelihood(),
    cleaning=Cleaning(band=(0.008, 0.25), bins=16),
    prepare=balanced,
    method="analytic",
    optimiser="Newton",
    steps=20,
)
print("planted: slope 0.08 on 'front', 0 on 'other'")
print(
    laplace(fitted)
    .table()
    .drop(columns=["recording", "shrinkage"])
    .round(4)
    .to_string(index=False)
)
