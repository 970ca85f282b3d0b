"""What a run is: its clock, what drives it, and the state it starts from. Both engines
are given the same."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.errors import ConvergenceError

SCHEMES = ("euler", "heun")


@dataclass(frozen=True, eq=False)
class SimulationState:
    """A brain in the middle of a run: pass it as `start` and the run continues bit for
    bit.

    past: outputs (slot, coupling, *batch, region), newest first; only where there are
        delays
    """

    neural: Float[Tensor, "state *batch region"]
    vascular: Float[Tensor, "vascular_state *batch region"]
    step: int
    past: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """One simulation to be done.

    dt: s
    per_vascular: neural steps per haemodynamic step
    per_tr: haemodynamic steps per volume
    delays: (*batch, region, region) in steps, or None
    slots: outputs that must be remembered for the longest delay
    stimulus: added input (row, *batch, region), one row for every `hold` steps from
        step 0 of the run, or None
    noise: standard normal numbers (step, state, *batch, region) to use instead of drawn
        ones, or None
    first: number of the first simulation of the batch, among those that share a seed
    """

    brain: Brain
    start: SimulationState
    dt: float
    per_vascular: int
    per_tr: int
    volumes: int
    scheme: str
    seed: int
    delays: Tensor | None = None
    slots: int = 0
    stimulus: Tensor | None = None
    hold: int = 1
    noise: Tensor | None = None
    first: int = 0
    show_progress: bool = False

    @property
    def steps(self) -> int:
        """Neural steps of the whole run."""
        return self.volumes * self.per_tr * self.per_vascular

    @property
    def vascular_step(self) -> float:
        """Seconds of a haemodynamic step."""
        return self.dt * self.per_vascular


@dataclass(frozen=True, eq=False)
class Outcome:
    """What an engine returns.

    bold: (volume, *batch, region), before the channels of the sensor
    activity: the same shape, mean over each volume
    end: the state the run ended in
    """

    bold: Tensor
    activity: Tensor
    end: SimulationState


def diverged(brain: Brain, ok: Tensor, step: int, dt: float) -> ConvergenceError:
    """The error for a run that left the finite numbers at `step`; ok: (*batch,
    region)."""
    # The first in the order of simulations and regions.
    *member, region = (~ok).nonzero()[0].tolist()
    batch = f" of simulation {tuple(member)}" if member else ""
    return ConvergenceError(
        f"The simulation diverged at step {step} ({step * dt:.4g} s), first in region "
        f"{brain.regions[region]!r}{batch}. Take a smaller dt, or a weaker coupling."
    )


def constant_history(slots: int, output: Tensor) -> Tensor:
    """A past in which every output was what it is now: (slot, coupling, *batch,
    region)."""
    return output.unsqueeze(0).expand(slots, *output.shape).contiguous()


def history_slots(delays: Tensor) -> int:
    """Outputs that must be remembered for delays in steps."""
    # The present one, and one beyond the longest delay, to interpolate towards.
    return int(torch.floor(delays.detach().max())) + 2
