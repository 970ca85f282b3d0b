"""The standard fit of a resting recording: what is free, where the search starts, and
how the result is verified."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, LogNormal

from cingulum.brain import Brain, Connectome, Sensor
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.inference.fitting import Fit, fit
from cingulum.inference.linear_control import LinearNetwork, linear_network
from cingulum.inference.problem import cast
from cingulum.measures import edges, fc, similarity
from cingulum.simulation import balanced
from cingulum.simulation.linear.eigenvalues import Stability
from cingulum.simulation.simulation import simulate, time_step


@dataclass(frozen=True, eq=False)
class RestingFit:
    """A fit, the same brain run freely, and the controls both are read against.

    simulated_fc: of the free-running simulation, which never sees the recording
    control: linear network with as many free parameters, fitted to the same recording
    """

    fit: Fit
    simulated_fc: Float[Tensor, "region region"]
    simulated_minutes: float
    dt: float
    control: LinearNetwork
    stability: Stability
    parameters: int
    seconds: float

    def against(self, recorded: Float[Tensor, "region region"]) -> dict[str, float]:
        """Correlation of every model with a recorded connectivity, in the training data
        or held out."""
        models = {
            "free_running": self.simulated_fc,
            "analytic": self.fit.fc,
            "linear_control": self.control.fc,
        }
        return {
            name: similarity(model.to(recorded), recorded).item()
            for name, model in models.items()
        }

    @property
    def levels(self) -> dict[str, float]:
        """Mean connectivity of each model: the objective does not see it."""
        models = {"free_running": self.simulated_fc, "analytic": self.fit.fc}
        return {name: edges(model).mean().item() for name, model in models.items()}


def resting_priors(n: int) -> dict[str, Distribution]:
    """Free in a resting fit: global coupling, and recurrent excitation and noise of
    every region (1 + 2N numbers)."""
    return {
        "strength": LogNormal(math.log(0.3), 0.7),
        "mass.w_plus": LogNormal(math.log(1.4), 0.1).expand([n]),
        "noise": LogNormal(math.log(0.01), 0.5).expand([n]),
    }


def resting_fit(
    connectome: Connectome,
    recorded: Float[Tensor, "region region"],
    tr: float,
    *,
    seed: int = 0,
    steps: int = 300,
    minutes: float = 64.0,
    show_progress: bool = False,
) -> RestingFit:
    """Fit the two-state reduced Wong-Wang network to resting connectivity, then verify
    it by free-running simulation.

    Local inhibition follows in closed form so that every region fires at 3 Hz (feedback
    inhibition control). The search is on the analytic connectivity; `minutes` of BOLD
    are then simulated in runs of four minutes.
    """
    if not minutes * 60 >= 10 * tr:
        raise InputError(
            f"minutes must cover at least ten volumes; came {minutes:g} min with a TR "
            f"of {tr:g} s."
        )
    began = time.monotonic()
    brain = Brain(ReducedWongWang(), connectome, Sensor(tr=tr))
    priors = resting_priors(len(connectome.regions))
    found = fit(
        brain,
        recorded,
        priors,
        prepare=balanced,
        method="analytic",
        steps=steps,
        show_progress=show_progress,
    )
    control = linear_network(connectome, recorded, regional=2)
    dt = time_step(tr)
    simulated = free_running_fc(found.brain, dt, minutes, seed, show_progress)
    size = sum(value.numel() for value in found.estimates.values())
    return RestingFit(
        found,
        simulated,
        minutes,
        dt,
        control,
        found.stability,
        size,
        time.monotonic() - began,
    )


def free_running_fc(
    brain: Brain, dt: float, minutes: float, seed: int, show_progress: bool = False
) -> Tensor:
    """Connectivity of runs of at most four minutes in one batch, in float32, pooled
    over time within runs."""
    length = min(minutes, 4.0)
    runs = round(minutes / length)
    run = simulate(
        cast(brain, torch.float32),
        60 * length,
        dt=dt,
        seed=seed,
        batch=(runs,),
        discard=20.0,
        show_progress=show_progress,
    )
    signals = run.bold.data.double()
    signals = signals - signals.mean(-1, keepdim=True)
    return fc(signals.movedim(0, 1).flatten(1))
