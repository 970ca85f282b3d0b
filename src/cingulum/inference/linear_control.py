"""The control for a mechanistic fit: a linear network with as many free parameters and
no physiology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.connectome import Connectome
from cingulum.brain.masses.linear import Linear
from cingulum.brain.sensor import Sensor
from cingulum.inference.free_parameters import FreeParameter, Mapped
from cingulum.measures import correlation, edges, similarity


@dataclass(frozen=True, eq=False)
class LinearNetwork:
    """A fitted linear stochastic network.

    fc, fc_r: its functional connectivity, and the correlation with the recorded one
    parameters: how many numbers were free
    weights, noise: W (spectral radius below 1) and the noise amplitudes, with which it
        can be simulated like any brain
    """

    fc: Float[Tensor, "region region"]
    fc_r: float
    parameters: int
    weights: Float[Tensor, "region region"]
    noise: Float[Tensor, "region"]

    def brain(self, connectome: Connectome, sensor: Sensor = Sensor()) -> Brain:
        """The network as a brain of `Linear` regions, to simulate it with the same
        sensor."""
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
    maps: if given, noise and gain are linear combinations of these maps instead of one
        number per region
    weights: also a gain of every connection, exp(θ), shrunk towards the tractography by
        `shrinkage` · mean θ²

    With free connection weights such a network reaches the test–retest reliability of
    the data, so a mechanistic fit must be compared with the control of its own size.
    """
    model = _model(connectome, maps, gained=weights)
    free = model.free(regional)
    _descend(model, free, recorded, _Search(shrinkage, steps, rate))
    with torch.no_grad():
        network = model.network()
        fitted = model.fc(network)
        amplitude = torch.exp(model.log_noise())
    return LinearNetwork(
        fc=fitted,
        fc_r=similarity(fitted, recorded).item(),
        parameters=sum(parameter.numel() for parameter in free),
        weights=network,
        noise=amplitude,
    )


@dataclass(frozen=True, eq=False)
class _LinearModel:
    """The network as a function of unconstrained parameters, all zero at the start.

    base: logarithmic connection weights, largest eigenvalue 1
    basis: what noise and gain are combinations of; the identity for one number per
        region
    connections: row and column of every connection below the diagonal
    gained: whether connections have gains; they are left out of the computation if not
    """

    base: Float[Tensor, "region region"]
    basis: Float[Tensor, "map region"]
    connections: Int[Tensor, "2 connection"]
    gained: bool
    coupling: Float[Tensor, ""]
    noise: Float[Tensor, "map"]
    gain: Float[Tensor, "map"]
    log_weights: Float[Tensor, "connection"]

    def free(self, regional: int) -> list[Tensor]:
        """The parameters that are fitted."""
        parameters = [self.coupling, self.noise, self.gain][: 1 + regional]
        if self.gained:
            parameters.append(self.log_weights)
        return parameters

    def network(self) -> Float[Tensor, "region region"]:
        """W, of spectral radius below 1."""
        return _network(self._gained_base(), self.coupling, self.gain @ self.basis)

    def _gained_base(self) -> Float[Tensor, "region region"]:
        if not self.gained:
            return self.base
        return _gained(self.base, self.connections, self.log_weights)

    def log_noise(self) -> Float[Tensor, "region"]:
        return self.noise @ self.basis

    def fc(
        self, network: Float[Tensor, "region region"]
    ) -> Float[Tensor, "region region"]:
        return _linear_fc(network, self.log_noise())


def _model(
    connectome: Connectome, maps: Float[Tensor, "map region"] | None, gained: bool
) -> _LinearModel:
    base = _log_weights(connectome)
    basis = torch.eye(len(base), dtype=base.dtype) if maps is None else maps.to(base)
    connections = _connections(base)
    return _LinearModel(
        base=base,
        basis=basis,
        connections=connections,
        gained=gained,
        coupling=base.new_zeros(()).requires_grad_(),
        noise=base.new_zeros(len(basis)).requires_grad_(),
        gain=base.new_zeros(len(basis)).requires_grad_(),
        log_weights=base.new_zeros(connections.shape[1]).requires_grad_(),
    )


def _log_weights(connectome: Connectome) -> Float[Tensor, "region region"]:
    """log1p of the weights in units of the smallest, scaled to a largest eigenvalue of
    1."""
    # Tract counts span orders of magnitude.
    weights = connectome.weights
    base = torch.log1p(weights / weights[weights > 0].min())
    return base / _largest_eigenvalue(base)


def _largest_eigenvalue(symmetric: Tensor) -> Float[Tensor, ""]:
    return torch.linalg.eigvalsh(symmetric)[-1]


def _connections(base: Tensor) -> Int[Tensor, "2 connection"]:
    n = len(base)
    pairs = torch.tril_indices(n, n, -1)
    # Gains change connections that tractography found; they add none.
    connected = base[pairs[0], pairs[1]] > 0
    return pairs[:, connected]


@dataclass(frozen=True)
class _Search:
    """Settings of Adam, and the weight of the penalty on connection gains."""

    shrinkage: float
    steps: int
    rate: float


def _descend(
    model: _LinearModel, free: list[Tensor], recorded: Tensor, settings: _Search
) -> None:
    """Leave the fitted values in the parameters."""
    optimiser = torch.optim.Adam(free, lr=settings.rate)
    for _ in range(settings.steps):
        optimiser.zero_grad()
        loss = _loss(model, recorded, settings.shrinkage)
        loss.backward()
        optimiser.step()


def _loss(model: _LinearModel, recorded: Tensor, shrinkage: float) -> Tensor:
    r = similarity(model.fc(model.network()), recorded)
    # The same function of r as `fc_mismatch`, so that the control pursues what the fit
    # pursues.
    mismatch = -torch.log(0.5 + 0.5 * r)
    return mismatch + shrinkage * model.log_weights.square().mean()


def _gained(
    base: Float[Tensor, "region region"],
    connections: Int[Tensor, "2 connection"],
    log_gain: Float[Tensor, "connection"],
) -> Float[Tensor, "region region"]:
    # Below the diagonal only, then mirrored: the network stays symmetric.
    rows, columns = connections
    values = base[rows, columns] * log_gain.exp()
    half = torch.zeros_like(base).index_put((rows, columns), values)
    return half + half.mT


def _network(
    base: Float[Tensor, "region region"],
    coupling: Float[Tensor, ""],
    log_gain: Float[Tensor, "region"],
) -> Float[Tensor, "region region"]:
    # The gains enter symmetrically and the whole is rescaled, so that the network is
    # stable for every parameter.
    scale = torch.exp(log_gain / 2)
    scaled = scale.unsqueeze(-1) * base * scale.unsqueeze(-2)
    return torch.sigmoid(coupling) * scaled / _largest_eigenvalue(scaled)


def _linear_fc(
    network: Float[Tensor, "region region"], log_noise: Float[Tensor, "region"]
) -> Float[Tensor, "region region"]:
    """Stationary correlation of x = W x + noise: covariance (1 − W)⁻¹ D (1 − W)⁻ᵀ."""
    eye = torch.eye(network.shape[-1], dtype=network.dtype)
    mixing = torch.linalg.solve(eye - network, torch.diag(torch.exp(log_noise)))
    return correlation(mixing @ mixing.T)


def equal_control(
    connectome: Connectome,
    recorded: Float[Tensor, "region region"],
    kinds: dict[str, FreeParameter],
) -> LinearNetwork:
    """The linear network with the kind of freedom a fit had: connection weights,
    regions, lines in maps, or the coupling only."""
    regional = _regional_parameters(connectome, kinds)
    if "connectome.weights" in kinds:
        return linear_network(connectome, recorded, regional=regional, weights=True)
    mapped = _mapped_parameters(kinds)
    if regional or not mapped:
        return linear_network(connectome, recorded, regional=regional)
    return linear_network(
        connectome,
        recorded,
        regional=_at_most_two(mapped),
        maps=mapped[0].maps,
    )


def _regional_parameters(
    connectome: Connectome, kinds: dict[str, FreeParameter]
) -> int:
    n = len(connectome.regions)
    return _at_most_two([kind for kind in kinds.values() if kind.size == n])


def _mapped_parameters(kinds: dict[str, FreeParameter]) -> list[Mapped]:
    """What is free as a line in maps."""
    lines = [getattr(kind, "mapped", None) for kind in kinds.values()]
    return [line for line in lines if line is not None]


def _at_most_two(parameters: Sequence[object]) -> int:
    # The control has two regional parameters to offer, noise and input gain.
    return min(len(parameters), 2)


def individual_part(
    model: Float[Tensor, "region region"],
    recorded: Float[Tensor, "region region"],
    group: Float[Tensor, "region region"],
) -> float:
    """How much of what distinguishes a person from the group a model explains: the
    correlation of model − group with recorded − group."""
    both = torch.stack([_beyond(group, model), _beyond(group, recorded)])
    return torch.corrcoef(both)[0, 1].item()


def _beyond(group: Tensor, fc: Tensor) -> Float[Tensor, "pair"]:
    return edges(fc) - edges(group)
