"""Limits of stability: which brains a search may keep, and the penalties that lead it
back among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.simulation.linear.eigenvalues import growth
from cingulum.simulation.linear.equilibrium import Linearisation

LOOP_GAIN_LIMIT = 0.9
"""Largest gain of one passage through the network that a fit may end with; at 1 the
equilibrium is lost in a fold."""

PENALTY_START = 0.97
"""Share of the largest loop gain at which the penalty begins: below it, data and prior
alone decide."""

FOLD_EDGE = 0.99
"""Loop gain to which a coupling beyond the fold is scaled back."""

LOCAL_SHARE = 0.25
"""An isolated region must return to its equilibrium at least at this share of the rate
of an isolated region with default parameters.

Nearer to either edge the basin of the working point is so narrow that noise leaves it:
measured on the Human Connectome group, free-running connectivity then agrees with the
analytic one at r = .66 instead of .99.
"""


@dataclass(frozen=True, eq=False)
class StabilityMargins:
    """How far a linearised brain is from instability, one value per batch member.

    gain: loop gain, the largest eigenvalue of one passage through the network
    local: growth rate of each region by itself, 1/s
    lead: leading growth rate of the network, 1/s
    """

    gain: Float[Tensor, "*batch"]
    local: Float[Tensor, "*batch region"]
    lead: Float[Tensor, "*batch"]


@dataclass(frozen=True)
class StabilityLimits:
    """What a search requires of the stability of a candidate.

    symmetric: whether the network's interactions are symmetric, so that its spectrum is
        real
    local_rate: slowest return of an isolated region that is allowed, 1/s; 0 where a
        region with default parameters does not return
    near_bifurcation: wanted distance of the leading eigenvalue from instability, 1/s
    """

    symmetric: bool
    local_rate: float
    near_bifurcation: float | None = None

    def loop_gain(self, at: Linearisation) -> Float[Tensor, "*batch"]:
        """Largest eigenvalue of one passage through the network; differentiable where
        interactions are symmetric."""
        if self.symmetric:
            return _symmetric_loop_gain(at)
        # Without a gradient: `lead` has one, and leads away from the same instability.
        return torch.linalg.eigvals(at.loop.detach()).real.amax(-1)

    def margins(self, at: Linearisation, gain: Tensor) -> StabilityMargins:
        """Distances of a linearised brain from instability, its loop gain known."""
        local = at.local_growth
        # Eigenvalues of the whole network take long: only where they are needed.
        lead = growth(at) if self.needs_eigenvalues else local.amax(-1)
        return StabilityMargins(gain, local, lead)

    @property
    def needs_eigenvalues(self) -> bool:
        """Whether the growth of single regions does not bound that of the network.

        Regions that oscillate can lose stability together although each is stable and
        no fold is near.
        """
        if self.near_bifurcation is not None:
            return True
        return not self.symmetric or not self.local_rate

    def are_met(self, margins: StabilityMargins) -> Tensor:
        """Whether the search may keep a candidate, one per batch member."""
        slowest = margins.local.amax(-1)
        stable = (margins.gain < LOOP_GAIN_LIMIT) & (slowest < -self.local_rate)
        if self.needs_eigenvalues:
            stable = stable & (margins.lead < 0)
        return stable.detach()

    def penalties(self, margins: StabilityMargins) -> Iterator[Tensor]:
        """What is added to the loss near and beyond the limits.

        All but the last are zero further inside, so that they bias no fit there.
        """
        excess = margins.gain - PENALTY_START * LOOP_GAIN_LIMIT
        yield 1e5 * excess.clamp_min(0) ** 2
        if self.local_rate:
            yield 1e3 * self._local_excess(margins.local)
        if self.needs_eigenvalues:
            yield 1e4 * margins.lead.clamp_min(0) ** 2
        if self.near_bifurcation is not None:
            yield 100 * _log_distance(margins.lead, self.near_bifurcation)

    def _local_excess(self, local: Tensor) -> Float[Tensor, "*batch"]:
        # From twice the slowest rate allowed, so that no search ends at the limit.
        excess = (local / self.local_rate + 2).clamp_min(0)
        return excess.square().sum(-1)

    def terms(self, margins: StabilityMargins) -> dict[str, Tensor]:
        """What the history shows besides the objectives."""
        if self.near_bifurcation is None:
            return {}
        distance = _log_distance(margins.lead, self.near_bifurcation)
        return {"near_bifurcation": distance}


def _symmetric_loop_gain(at: Linearisation) -> Float[Tensor, "*batch"]:
    # With gains h ≥ 0 and symmetric weights W, √h W √h is symmetric and has the
    # spectrum of h W: real, and differentiable.
    root = at.gain[..., 0, 0].abs().sqrt()
    loop = root.unsqueeze(-1) * at.coupling * root.unsqueeze(-2)
    return torch.linalg.eigvalsh(loop)[..., -1]


def _log_distance(lead: Tensor, wanted: float) -> Float[Tensor, "*batch"]:
    """Squared logarithm of the distance from instability over the wanted one."""
    distance = (-lead).clamp_min(1e-6) / wanted
    return distance.log().square()


def scaled_below_fold(at: Linearisation, gain: Tensor) -> Linearisation:
    """The linearisation, with the coupling scaled back where it is beyond the fold.

    There the closed form still gives numbers, of no meaning and sometimes a good fit.
    At the edge of stability only the penalty has a gradient along the coupling.
    """
    scale = (FOLD_EDGE / gain.clamp_min(FOLD_EDGE))[..., None, None]
    return replace(at, coupling=at.coupling * scale)
