"""The standard fit of a resting-state recording: which parameters are free, where the
search starts, and how the result is verified."""

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

RUN_MINUTES = 4.0
"""Longest single run of a free-running simulation; more minutes are several runs side
by side, in one batch."""


@dataclass(frozen=True, eq=False)
class RestingFit:
    """A fit, the connectivity of the same brain in a free-running simulation, and the
    control that both are compared with.

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
        """Correlation of every model with a recorded connectivity: of the training data
        or held out."""
        return {
            "free_running": _correlation(self.simulated_fc, recorded),
            "analytic": _correlation(self.fit.fc, recorded),
            "linear_control": _correlation(self.control.fc, recorded),
        }

    @property
    def levels(self) -> dict[str, float]:
        """Mean connectivity of each model, which the objective ignores."""
        return {
            "free_running": edges(self.simulated_fc).mean().item(),
            "analytic": edges(self.fit.fc).mean().item(),
        }


def _correlation(model: Tensor, recorded: Tensor) -> float:
    # The simulation may be in another precision than the recording.
    return similarity(model.to(recorded), recorded).item()


def resting_priors(n: int) -> dict[str, Distribution]:
    """Free in a resting fit: global coupling, and recurrent excitation and noise of
    every region (1 + 2N numbers)."""
    return {
        "strength": _around(0.3, 0.7),
        "mass.w_plus": _around(1.4, 0.1).expand([n]),
        "noise": _around(0.01, 0.5).expand([n]),
    }


def _around(median: float, width: float) -> LogNormal:
    return LogNormal(math.log(median), width)


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
    _check_minutes(minutes, tr)
    start = time.monotonic()
    fitted = fit(
        Brain(ReducedWongWang(), connectome, Sensor(tr=tr)),
        recorded,
        resting_priors(len(connectome.regions)),
        prepare=balanced,
        method="analytic",
        steps=steps,
        show_progress=show_progress,
    )
    # Noise and input gain of every region: as many numbers as the fit has.
    control = linear_network(connectome, recorded, regional=2)
    # The longest step that divides the TR, so that volumes fall on steps.
    dt = time_step(tr)
    simulated = free_running_fc(fitted.brain, dt, minutes, seed, show_progress)
    return RestingFit(
        fit=fitted,
        simulated_fc=simulated,
        simulated_minutes=minutes,
        dt=dt,
        control=control,
        stability=fitted.stability,
        parameters=sum(value.numel() for value in fitted.estimates.values()),
        seconds=time.monotonic() - start,
    )


def _check_minutes(minutes: float, tr: float) -> None:
    # "not ≥" instead of "<", so that NaN is refused too.
    if not minutes * 60 >= 10 * tr:
        raise InputError(
            f"minutes must cover at least ten volumes; came {minutes:g} min with a TR "
            f"of {tr:g} s."
        )


def free_running_fc(
    brain: Brain, dt: float, minutes: float, seed: int, show_progress: bool = False
) -> Float[Tensor, "region region"]:
    """Connectivity of free-running simulations in one batch of runs of at most four
    minutes, in float32, pooled over time within runs."""
    length = min(minutes, RUN_MINUTES)
    simulation = simulate(
        cast(brain, torch.float32),
        60 * length,
        dt=dt,
        seed=seed,
        batch=(round(minutes / length),),
        discard=20.0,
        show_progress=show_progress,
    )
    # Each run is centred first, so that differences between the means of runs do not
    # count as correlation.
    signals = simulation.bold.data.double()
    signals = signals - signals.mean(-1, keepdim=True)
    return fc(signals.movedim(0, 1).flatten(1))
