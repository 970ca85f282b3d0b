"""The control that keeps a fit honest: a linear network with as many free parameters, and no physiology."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.connectome import Connectome
from cingulum.measures import correlation, similarity


@dataclass(frozen=True, eq=False)
class LinearNetwork:
    """A fitted linear stochastic network: its connectivity, its fit, and how many numbers were free."""

    fc: Float[Tensor, "region region"]
    fc_r: float
    parameters: int


def linear_network(
    connectome: Connectome,
    recorded: Float[Tensor, "region region"],
    *,
    regional: int = 1,
    steps: int = 400,
    rate: float = 0.05,
) -> LinearNetwork:
    """Fit FC = corr((1 − W)⁻¹ D (1 − W)⁻ᵀ), W from log1p of the weights, by Adam.

    regional: sets of N regional parameters beside the global coupling: 0 none, 1 noise level D, 2 also an input gain.
    With free connection weights such a network reaches the data's own reliability, so a mechanistic fit must be read
    against the control of its own size.
    """
    n = len(connectome.regions)
    base = torch.log1p(connectome.weights / connectome.weights[connectome.weights > 0].min())
    base = base / torch.linalg.eigvalsh(base)[-1]
    coupling = base.new_zeros(()).requires_grad_()
    noise, gain = (base.new_zeros(n).requires_grad_() for _ in range(2))
    free = [coupling, noise, gain][: 1 + regional]
    search = torch.optim.Adam(free, lr=rate)
    for _ in range(steps):
        search.zero_grad()
        loss = -torch.log(0.5 + 0.5 * similarity(_linear_fc(base, coupling, noise, gain), recorded))
        loss.backward()  # type: ignore[no-untyped-call]
        search.step()
    with torch.no_grad():
        modelled = _linear_fc(base, coupling, noise, gain)
    return LinearNetwork(modelled, similarity(modelled, recorded).item(), 1 + regional * n)


def _linear_fc(base: Tensor, coupling: Tensor, noise: Tensor, gain: Tensor) -> Tensor:
    # The gains enter symmetrically and the whole is rescaled, so that the network is stable for every parameter.
    scale = torch.exp(gain / 2)
    joined = scale.unsqueeze(-1) * base * scale.unsqueeze(-2)
    joined = torch.sigmoid(coupling) * joined / torch.linalg.eigvalsh(joined)[-1]
    eye = torch.eye(base.shape[-1], dtype=base.dtype)
    mixing = torch.linalg.solve(eye - joined, torch.diag(torch.exp(noise)))
    return correlation(mixing @ mixing.T)
