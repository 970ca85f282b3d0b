"""A neural mass of your own: equations in plain torch; speed, stability, bifurcations
and fitting come with it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.distributions import LogNormal

from cingulum import (
    Brain,
    Dynamics,
    Likelihood,
    Sensor,
    State,
    continuation,
    fit,
    laplace,
    param,
    simulate,
    stability,
    with_values,
)
from cingulum.brain.connectome import distance_rule
from cingulum.brain.dynamics import Value
from cingulum.inference import Cleaning
from cingulum.signals.atlas import pain_atlas

torch.set_default_dtype(torch.float64)


@dataclass(frozen=True, eq=False)
class AdaptingRate(Dynamics):
    """A firing rate r with a saturating answer, tired by an adaptation a of its own."""

    tau: Value = param(0.02, "s", 0.001, 1.0, "time constant of the rate")
    tau_a: Value = param(0.5, "s", 0.05, 10.0, "time constant of adaptation")
    w: Value = param(1.5, "1", 0.0, 20.0, "self-excitation")
    b: Value = param(1.0, "1", 0.0, 20.0, "strength of adaptation")
    I: Value = param(0.3, "1", -5.0, 5.0, "external input")

    states: ClassVar = (State("r", 0.2, noise=1.0), State("a", 0.2, noise=0.0))

    def drift(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        r, a = x
        (received,) = u
        drive = self.w * r - self.b * a + self.I + received
        return torch.stack([(torch.tanh(drive) - r) / self.tau, (r - a) / self.tau_a])

    def output(self, x: torch.Tensor) -> torch.Tensor:
        return x[:1]


curve = continuation(AdaptingRate(I=0.0, b=0.5), "I", -1.0, 1.0)
print("folds:", curve.folds["I"].tolist(), "Hopf points:", curve.hopfs["I"].tolist())
atlas = pain_atlas()
connectome = distance_rule(torch.tensor(atlas.centres)[:12], atlas.regions[:12])
brain = Brain(
    AdaptingRate(w=0.6),
    connectome,
    Sensor(tr=1.0, noise=0.01),
    strength=0.3,
    noise=0.05,
)
print(stability(brain))
scan = simulate(
    with_values(brain, {"strength": 0.45}),
    1800.0,
    dt=0.002,
    discard=60.0,
    vascular_step=0.002,
).signal
options = {
    "objective": Likelihood(),
    "cleaning": Cleaning((0.008, 0.25), bins=12),
    "optimiser": "Newton",
    "steps": 15,
}
fitted = fit(
    brain,
    scan,
    {"strength": LogNormal(-1.2, 0.5), "noise": LogNormal(-3.0, 0.5)},
    method="analytic",
    **options,
)
print("planted: strength 0.45, noise 0.05\n", laplace(fitted).table().round(3))
