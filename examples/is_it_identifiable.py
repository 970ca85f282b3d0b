"""Is my parameter identifiable? Curvature names what the data cannot tell apart; a
profile shows it for one of them."""

import math

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
    profile,
    simulate,
    with_values,
)
from cingulum.brain.connectome import distance_rule
from cingulum.inference import Cleaning
from cingulum.signals.atlas import pain_atlas

torch.set_default_dtype(torch.float64)
atlas = pain_atlas()
connectome = distance_rule(torch.tensor(atlas.centres)[:16], atlas.regions[:16])
brain = Brain(ReducedWongWang(), connectome, Sensor(tr=0.72, noise=0.005))
person = balanced(with_values(brain, {"strength": 0.4, "noise": 0.015}))
scan = simulate(
    person, 864.0, dt=0.004, discard=60.0, vascular_step=0.004, seed=3
).signal

free = {
    "strength": LogNormal(math.log(0.3), 0.5),
    "noise": LogNormal(math.log(0.015), 0.5),
    "mass.w_plus": LogNormal(math.log(1.4), 0.2),
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
    steps=30,
)
posterior = laplace(fitted)
print(
    "How much is known beyond the prior, the worst first (1: nothing; directions are "
    "in units of the prior):\n"
)
print(posterior.directions().round(2).to_string(index=False))
print("\nRecurrent excitation, held at each value while all others do their best:\n")
print(
    profile(fitted, "mass.w_plus", points=9, steps=30, posterior=posterior)
    .round(3)
    .to_string(index=False)
)
print(
    f"\nplanted 1.400; standard deviation {posterior.sd[2].item():.3f} of a prior's "
    "0.200 (logarithm)"
)
