"""How parameters are found: gradient descent on the analytic connectivity, priors, best stable result kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, biject_to

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import get, put
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference.objectives import fc_mismatch
from cingulum.measures import correlation, fc, similarity
from cingulum.progress import track
from cingulum.simulation.equilibrium import fixed_point, linearise, slow_covariance
from cingulum.timeseries import TimeSeries, check_signals

LOOP_GAIN = 0.9
"""Largest gain of one passage through the network that a fit may end with; at 1 the equilibrium is lost in a fold."""

LOCAL_RATE = 3.0
"""Smallest rate (1/s) at which every region by itself must return to equilibrium.

Nearer to either edge the basin of the working point is so narrow that noise leaves it: measured on the Human
Connectome group, free-running connectivity then agrees with the analytic one at r = .66 instead of .99.
"""


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted brain: `put` into place and ready to run.

    estimates: fitted values by path; (*batch,) for a global parameter, (*batch, region) for a regional one
    fc, fc_r: the model's analytic connectivity, and its correlation with the recorded one, one a batch member
    loop_gain: distance to instability: 0 is uncoupled, 1 is a fold
    history: loss and fc_r at every step (mean over the batch)
    """

    brain: Brain
    estimates: dict[str, Tensor]
    fc: Float[Tensor, "*batch region region"]
    fc_r: Float[Tensor, "*batch"]
    loop_gain: Float[Tensor, "*batch"]
    history: pd.DataFrame


def fit(
    brain: Brain,
    recorded: TimeSeries | Float[Tensor, "*batch region region"],
    free: dict[str, Distribution],
    *,
    objective: Callable[[Tensor, Tensor], Tensor] = fc_mismatch,
    prepare: Callable[[Brain], Brain] = lambda brain: brain,
    steps: int = 300,
    rate: float = 0.05,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    show_progress: bool = False,
) -> Fit:
    """Estimate free parameters from recorded connectivity; a batch of recordings is fitted at once, independently.

    recorded: time series, or functional connectivity directly; leading dimensions are a batch of recordings
    free: prior by parameter path: its support gives the transform, its log density the penalty, its batch shape the
        granularity: () is one value a recording, (region,) one a region
    objective: (modelled FC, recorded FC) → mismatch, one a batch member; multiplied by the number of edges, the
        scale on which it stands against the priors
    prepare: applied to every candidate, for parameters that follow from others (`cingulum.brain.balanced`)

    The search starts at the prior means and keeps, for each batch member, the best point whose equilibrium is stable.
    Raises InputError for mismatched regions, ConvergenceError if no stable point was met.
    """
    target = _target(brain, recorded)
    thetas = {path: _start(path, prior, target) for path, prior in free.items()}
    for path in free:
        get(brain, path)
    search = optimiser(list(thetas.values()), lr=rate)
    best = _Best(target)
    rows = []
    for step in track(range(steps), "fit", show=show_progress):
        values = {path: biject_to(free[path].support)(theta) for path, theta in thetas.items()}
        candidate = prepare(put(brain, values))
        modelled, gain, growth = _slow_fc(candidate)
        loss = objective(modelled, target) * _edges(target) - _log_prior(values, free, target)
        loss = loss + 1e4 * (gain - 0.9 * LOOP_GAIN).clamp_min(0) ** 2
        loss = loss + 1e2 * (growth + 2 * LOCAL_RATE).clamp_min(0).square().sum(-1)
        search.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        best.update(loss.detach(), (gain < LOOP_GAIN) & (growth.amax(-1) < -LOCAL_RATE), values)
        rows.append((step, loss.mean().item(), similarity(modelled.detach(), target).mean().item()))
        search.step()
    return _finish(brain, target, best.result(), prepare, rows)


def _target(brain: Brain, recorded: TimeSeries | Tensor) -> Tensor:
    n = len(brain.regions)
    if isinstance(recorded, TimeSeries):
        if recorded.regions != brain.regions:
            raise InputError(
                f"Recording and connectome must name the same regions in the same order; the recording has "
                f"{len(recorded.regions)}, the connectome {n}."
            )
        check_signals(recorded, "recording")
        recorded = fc(recorded.data)
    if recorded.shape[-2:] != (n, n):
        raise InputError(
            f"The connectome has {n} regions; the recorded connectivity has shape {tuple(recorded.shape)}."
        )
    return recorded.detach().to(brain.connectome.weights)


def _start(path: str, prior: Distribution, target: Tensor) -> Tensor:
    granularity = tuple(prior.batch_shape) or (1,)
    if granularity not in {(1,), (target.shape[-1],)}:
        raise InputError(
            f"The prior of {path!r} has batch shape {granularity}: expected () for one value, or "
            f"({target.shape[-1]},) for one a region."
        )
    centre = biject_to(prior.support).inv(prior.mean).to(target)
    return centre.expand(*target.shape[:-2], *granularity).clone().requires_grad_()


def _slow_fc(brain: Brain) -> tuple[Tensor, Tensor, Tensor]:
    """Analytic FC, loop gain and local growth. With gains h ≥ 0 and symmetric weights the loop's spectrum is real.

    Past the fold the closed form still gives numbers, of no meaning and sometimes a good fit: there the coupling is
    scaled back to the edge of stability, so that only the penalty has a gradient along it.
    """
    at = linearise(brain, fixed_point(brain))
    root = at.gain.abs().sqrt()
    gain = torch.linalg.eigvalsh(root.unsqueeze(-1) * at.coupling * root.unsqueeze(-2))[..., -1]
    held = (0.99 / gain.clamp_min(0.99))[..., None, None]
    noise = torch.as_tensor(brain.noise, dtype=at.local.dtype, device=at.local.device)
    return correlation(slow_covariance(replace(at, coupling=at.coupling * held), noise)), gain, at.local_growth


def _edges(target: Tensor) -> float:
    n = target.shape[-1]
    return n * (n - 1) / 2


def _log_prior(values: dict[str, Tensor], free: dict[str, Distribution], target: Tensor) -> Tensor:
    total = target.new_zeros(target.shape[:-2])
    for path, prior in free.items():
        total = total + prior.log_prob(values[path]).sum(-1)
    return total


class _Best:
    """The best stable values met so far, for each batch member separately."""

    def __init__(self, target: Tensor) -> None:
        self.loss = target.new_full(target.shape[:-2], float("inf"))
        self.values: dict[str, Tensor] = {}

    def update(self, loss: Tensor, stable: Tensor, values: dict[str, Tensor]) -> None:
        better = (loss < self.loss) & stable
        self.loss = torch.where(better, loss, self.loss)
        for path, value in values.items():
            value = value.detach()
            self.values[path] = torch.where(better.unsqueeze(-1), value, self.values.get(path, value))

    def result(self) -> dict[str, Tensor]:
        if not torch.isfinite(self.loss).all():
            raise ConvergenceError(
                "No stable equilibrium was met during the search. Centre the prior of the coupling strength lower, "
                "or take a smaller learning rate."
            )
        return self.values


def _finish(
    brain: Brain, target: Tensor, values: dict[str, Tensor], prepare: Callable[[Brain], Brain], rows: list[tuple]
) -> Fit:
    with torch.no_grad():
        fitted = prepare(put(brain, values))
        modelled, gain, _ = _slow_fc(fitted)
    estimates = {path: value.squeeze(-1) if value.shape[-1] == 1 else value for path, value in values.items()}
    history = pd.DataFrame(rows, columns=["step", "loss", "fc_r"])
    return Fit(fitted, estimates, modelled, similarity(modelled, target), gain, history)
