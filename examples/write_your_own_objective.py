"""An objective of your own: a function of two views, the model's and the recording's,
small where they agree."""

import torch
from torch import Tensor
from torch.distributions import LogNormal

from cingulum import (
    Brain,
    ReducedWongWang,
    Sensor,
    balanced,
    fit,
    simulate,
    with_values,
)
from cingulum.brain.connectome import distance_rule
from cingulum.inference import fc_mismatch
from cingulum.inference.views import View
from cingulum.measures import edges
from cingulum.signals.atlas import pain_atlas

torch.set_default_dtype(torch.float64)


def spread_mismatch(model: View, recorded: View) -> Tensor:
    """Squared difference of the logarithms of how far connectivity is spread over the
    pairs of regions."""
    return (edges(model.fc).std(-1) / edges(recorded.fc).std(-1)).log().square()


atlas = pain_atlas()
connectome = distance_rule(torch.tensor(atlas.centres)[:24], atlas.regions[:24])
brain = Brain(ReducedWongWang(), connectome, Sensor(tr=2.0))
person = balanced(with_values(brain, {"strength": 0.6}))
scan = simulate(person, 20 * 60.0, dt=0.004, discard=20.0, seed=2).bold

free = {"strength": LogNormal(-1.5, 0.7)}
options = {"prepare": balanced, "method": "analytic", "steps": 150}
for name, objective in {
    "pattern alone": fc_mismatch,
    "spread alone": spread_mismatch,
    "pattern and a tenth of spread": {fc_mismatch: 1.0, spread_mismatch: 0.1},
    "the same, as one function": lambda m, r: (
        fc_mismatch(m, r) + 0.1 * spread_mismatch(m, r)
    ),
}.items():
    fitted = fit(brain, scan, free, objective=objective, **options)
    print(
        f"{name:30} strength {fitted.estimates['strength'].item():.3f}, FC r "
        f"{fitted.fc_r.item():.3f}"
    )
print("planted                        strength 0.600")
