"""Plant parameters, scan, and find them again with intervals: five people, one batch,
maximum likelihood."""

import math

import matplotlib.pyplot as plt
import torch
from torch.distributions import LogNormal

from cingulum import (
    Brain,
    Likelihood,
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
from cingulum.inference.problem import at_rest
from cingulum.signals.atlas import pain_atlas

torch.set_default_dtype(torch.float64)
atlas = pain_atlas()
connectome = distance_rule(torch.tensor(atlas.centres)[:20], atlas.regions[:20])
brain = Brain(ReducedWongWang(), connectome, Sensor(tr=0.72))

people, draw = 5, torch.Generator().manual_seed(0)
planted = {
    "strength": 0.2 + 0.4 * torch.rand(people, 1, generator=draw),
    "noise": 0.01 + 0.01 * torch.rand(people, 1, generator=draw),
    "sensor.noise": 0.004 + 0.008 * torch.rand(people, 1, generator=draw),
}
persons = balanced(with_values(brain, planted))
recorded = simulate(
    persons,
    864.0,
    dt=0.004,
    discard=60.0,
    batch=(people,),
    start=at_rest(persons, (people,)),
    vascular_step=0.004,
).signal

# Priors are wide and centred elsewhere. Whittle's likelihood uses the whole spectrum,
# so intervals are honest.
free = {
    "strength": LogNormal(math.log(0.25), 0.8),
    "noise": LogNormal(math.log(0.02), 0.8),
    "sensor.noise": LogNormal(math.log(0.004), 0.8),
}
fitted = fit(
    brain,
    recorded,
    free,
    objective=Likelihood(),
    cleaning=Cleaning(band=(0.008, 0.25), bins=16),
    prepare=balanced,
    method="analytic",
    optimiser="Newton",
    steps=20,
)
table = laplace(fitted).table(level=0.9)
table["planted"] = [
    planted[row.parameter][row.recording].item() for row in table.itertuples()
]
table["inside"] = (table["low"] < table["planted"]) & (table["planted"] < table["high"])
print(table.drop(columns="region").round(4).to_string(index=False))
print(
    f"{table['inside'].sum()} of {len(table)} intervals of 90 % hold what was planted"
)

figure, axes = plt.subplots(1, len(free), figsize=(10, 3.2), layout="constrained")
for ax, (name, rows) in zip(axes, table.groupby("parameter", sort=False), strict=True):
    reach = [rows["estimate"] - rows["low"], rows["high"] - rows["estimate"]]
    ax.errorbar(rows["planted"], rows["estimate"], yerr=reach, fmt="o")
    ax.axline((rows["planted"].mean(),) * 2, slope=1, color="grey", lw=0.8)
    ax.set(title=name, xlabel="planted", ylabel="estimated, 90 %")
figure.savefig("recover_parameters.png", dpi=120)
