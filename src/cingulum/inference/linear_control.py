"""The control that keeps a fit honest: a linear network with as many free parameters,
and no physiology."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.connectome import Connectome
from cingulum.brain.masses.linear import Linear
from cingulum.brain.sensor import Sensor
from cingulum.inference.free_parameters import FreeParameter
from cingulum.measures import correlation, edges, similarity


@dataclass(frozen=True, eq=False)
class LinearNetwork:
    """A fitted linear stochastic network: its connectivity, its fit, and how many
    numbers were free.

    weights, noise: W (spectral radius below 1) and the noise amplitudes, so that it can
        be run like any brain
    """

    fc: Float[Tensor, "region region"]
    fc_r: float
    parameters: int
    weights: Float[Tensor, "region region"]
    noise: Float[Tensor, "region"]

    def brain(self, connectome: Connectome, sensor: Sensor = Sensor()) -> Brain:
        """The network as a brain of `Linear` regions, to simulate it through the same
        scanner."""
        return Brain(
            Linear(),
            replace(connectome, weights=self.weights),
            sensor,
            strength=1.0,
            noise=self.noise,
        )


def linear_network(
    connectome: Connectome,
    recorded: Float[Tensor, "region region"],
    *,
    regional: int = 1,
    maps: Float[Tensor, "map region"] | None = None,
    weights: bool = False,
    shrinkage: float = 0.002,
    steps: int = 400,
    rate: float = 0.05,
) -> LinearNetwork:
    """Fit FC = corr((1 − W)⁻¹ D (1 − W)⁻ᵀ), W from log1p of the weights, by Adam.

    regional: what is free beside the global coupling: 0 nothing, 1 the noise level D, 2
        also an input gain
    maps: if given, noise and gain are lines in these maps instead of one number a
        region
    weights: also a gain of every connection, exp(θ), shrunk towards the tractography by
    `shrinkage` · mean θ² With free connection weights such a network reaches the data's
    own reliability, so a mechanistic fit must be read against the control of its own
    size.
    """
    base = torch.log1p(
        connectome.weights / connectome.weights[connectome.weights > 0].min()
    )
    base = base / torch.linalg.eigvalsh(base)[-1]
    n = base.shape[-1]
    basis = torch.eye(n, dtype=base.dtype) if maps is None else maps.to(base)
    lower = torch.tril_indices(n, n, -1)
    lower = lower[:, base[lower[0], lower[1]] > 0]
    coupling = base.new_zeros(()).requires_grad_()
    noise, gain = (base.new_zeros(len(basis)).requires_grad_() for _ in range(2))
    joined = base.new_zeros(lower.shape[1]).requires_grad_()
    free = [coupling, noise, gain][: 1 + regional] + ([joined] if weights else [])

    def modelled() -> tuple[Tensor, Tensor]:
        scaled = _gained(base, lower, joined) if weights else base
        network = _network(scaled, coupling, gain @ basis)
        return _linear_fc(network, noise @ basis), network

    search = torch.optim.Adam(free, lr=rate)
    for _ in range(steps):
        search.zero_grad()
        loss = (
            -torch.log(0.5 + 0.5 * similarity(modelled()[0], recorded))
            + shrinkage * joined.square().mean()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        search.step()
    with torch.no_grad():
        fitted, network = modelled()
        amplitude = torch.exp(noise @ basis)
    size = sum(f.numel() for f in free)
    return LinearNetwork(
        fitted, similarity(fitted, recorded).item(), size, network, amplitude
    )


def equal_control(
    connectome: Connectome,
    recorded: Float[Tensor, "region region"],
    kinds: dict[str, FreeParameter],
) -> LinearNetwork:
    """The linear network whose freedom is like that of a fit: weights, regions, lines
    in maps, or the coupling only."""
    n = len(connectome.regions)
    lines = [
        kind for kind in kinds.values() if getattr(kind, "mapped", None) is not None
    ]
    regional = sum(kind.size == n for kind in kinds.values())
    if "connectome.weights" in kinds:
        return linear_network(
            connectome, recorded, regional=min(regional, 2), weights=True
        )
    if regional or not lines:
        return linear_network(connectome, recorded, regional=min(regional, 2))
    maps = lines[0].mapped.maps  # type: ignore[attr-defined]
    return linear_network(connectome, recorded, regional=min(len(lines), 2), maps=maps)


def _gained(base: Tensor, lower: Tensor, joined: Tensor) -> Tensor:
    values = base[lower[0], lower[1]] * joined.exp()
    half = torch.zeros_like(base).index_put((lower[0], lower[1]), values)
    return half + half.mT


def _network(base: Tensor, coupling: Tensor, gain: Tensor) -> Tensor:
    # The gains enter symmetrically and the whole is rescaled, so that the network is
    # stable for every parameter.
    scale = torch.exp(gain / 2)
    joined = scale.unsqueeze(-1) * base * scale.unsqueeze(-2)
    return torch.sigmoid(coupling) * joined / torch.linalg.eigvalsh(joined)[-1]


def _linear_fc(network: Tensor, noise: Tensor) -> Tensor:
    eye = torch.eye(network.shape[-1], dtype=network.dtype)
    mixing = torch.linalg.solve(eye - network, torch.diag(torch.exp(noise)))
    return correlation(mixing @ mixing.T)


def individual_part(
    model: Float[Tensor, "region region"],
    recorded: Float[Tensor, "region region"],
    group: Float[Tensor, "region region"],
) -> float:
    """How much of what distinguishes a person from the group a model has: correlation
    of both differences."""
    mine, theirs = edges(model) - edges(group), edges(recorded) - edges(group)
    return torch.corrcoef(torch.stack([mine, theirs]))[0, 1].item()
