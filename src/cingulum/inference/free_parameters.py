"""What a fit may change: one value, one a region, a line in regional maps, or every
connection.

Each kind turns unconstrained coordinates into values, and says how probable the
coordinates are beforehand. The coordinates of a prior are those of
`torch.distributions.biject_to(prior.support)`; densities are in coordinates, so that a
mode and its curvature mean the same whatever the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal, biject_to

from cingulum.brain.brain import Brain
from cingulum.brain.connectome import Connectome
from cingulum.brain.dynamics import Parameter, get, parameters, with_values
from cingulum.errors import InputError


@dataclass(frozen=True, eq=False)
class Mapped:
    """A regional parameter that is a line in given maps (myelin, receptors, gradients).

    value_i = T(θ_0 + Σ_k θ_k map_k,i), T the transform of the prior's support. `prior`
    is for the region at the maps' zero; the slopes are normal with standard deviation
    `spread`, in coordinates. Give z-scored maps.

    maps: (map, region)
    """

    prior: Distribution
    maps: Float[Tensor, "map region"]
    spread: float = 0.2
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.maps.ndim != 2 or not torch.isfinite(self.maps).all():
            raise InputError(
                "Maps must be finite, of shape (map, region); came "
                f"{tuple(self.maps.shape)}."
            )
        if not self.names:
            object.__setattr__(
                self, "names", tuple(f"map{k + 1}" for k in range(len(self.maps)))
            )


@dataclass(frozen=True)
class Gains:
    """Every connection free: weights = exp(θ) ⊙ SC, absent connections stay absent
    (Griffiths et al. 2022).

    θ is normal with standard deviation `spread`: the prior that shrinks towards the
        tractography.
    """

    spread: float = 0.5
    symmetric: bool = True


Free = Distribution | Mapped | Gains


class FreeParameter:
    """One free parameter as the search sees it: `size` coordinates in, a value for
    `put` out."""

    size: int
    names: tuple[str, ...]

    def begin(self, like: Tensor) -> Tensor:
        """Coordinates to start from, (size,)."""
        raise NotImplementedError

    def spread(self, like: Tensor) -> Tensor:
        """Prior standard deviation of the coordinates, for further starts, (size,)."""
        raise NotImplementedError

    def value(self, theta: Float[Tensor, "*batch size"]) -> Any:
        raise NotImplementedError

    def log_prior(self, theta: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch"]:
        raise NotImplementedError

    def told(self) -> tuple:
        """What distinguishes this prior from others, for the fingerprint of a
        checkpoint."""
        raise NotImplementedError


class _Plain(FreeParameter):
    """One value, or one a region."""

    def __init__(self, prior: Distribution, names: tuple[str, ...]) -> None:
        self.prior, self.names, self.size = prior, names, len(names)
        self.transform = biject_to(prior.support)

    def told(self) -> tuple:
        return type(self.prior).__name__, self.prior.mean, self.prior.stddev, self.names

    def begin(self, like: Tensor) -> Tensor:
        return self.transform.inv(self.prior.mean).to(like).expand(self.size).clone()

    @cached_property
    def _spread(self) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.transform.inv(self.prior.sample((2000,)).double()).std(0)

    def spread(self, like: Tensor) -> Tensor:
        return self._spread.to(like).expand(self.size)

    def value(self, theta: Tensor) -> Tensor:
        return self.transform(theta)

    def log_prior(self, theta: Tensor) -> Tensor:
        value = self.transform(theta)
        return (
            self.prior.log_prob(value)
            + self.transform.log_abs_det_jacobian(theta, value)
        ).sum(-1)


class _Line(FreeParameter):
    """A line in maps."""

    def __init__(self, mapped: Mapped) -> None:
        self.average, self.mapped = _Plain(mapped.prior, ("mean",)), mapped
        self.size, self.names = 1 + len(mapped.maps), ("mean", *mapped.names)

    def told(self) -> tuple:
        return *self.average.told(), self.mapped.maps, self.mapped.spread

    def begin(self, like: Tensor) -> Tensor:
        return torch.cat([self.average.begin(like), like.new_zeros(self.size - 1)])

    def spread(self, like: Tensor) -> Tensor:
        return torch.cat(
            [
                self.average.spread(like),
                like.new_full((self.size - 1,), self.mapped.spread),
            ]
        )

    def value(self, theta: Tensor) -> Tensor:
        return self.average.transform(
            theta[..., :1] + theta[..., 1:] @ self.mapped.maps.to(theta)
        )

    def log_prior(self, theta: Tensor) -> Tensor:
        slopes = Normal(0.0, self.mapped.spread).log_prob(theta[..., 1:]).sum(-1)
        return self.average.log_prior(theta[..., :1]) + slopes


class _Connections(FreeParameter):
    """Weights of existing connections."""

    def __init__(self, gains: Gains, connectome: Connectome) -> None:
        self.gains, self.connectome = gains, connectome
        weights = connectome.weights
        if weights.ndim > 2:
            raise InputError(
                "Free connection weights need one connectome shared by all recordings; "
                "came a batch."
            )
        where = torch.triu(weights, 1) > 0 if gains.symmetric else weights > 0
        self.rows, self.columns = where.nonzero(as_tuple=True)
        self.size = len(self.rows)
        self.names = tuple(
            f"{i}-{j}"
            for i, j in zip(self.rows.tolist(), self.columns.tolist(), strict=True)
        )

    def told(self) -> tuple:
        return self.gains.spread, self.names

    def begin(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.size)

    def spread(self, like: Tensor) -> Tensor:
        return like.new_full((self.size,), self.gains.spread)

    def value(self, theta: Tensor) -> Tensor:
        weights = self.connectome.weights
        gained = weights[self.rows, self.columns] * theta.exp()
        full = torch.zeros(
            *theta.shape[:-1], *weights.shape, dtype=theta.dtype, device=theta.device
        )
        full[..., self.rows, self.columns] = gained
        if self.gains.symmetric:
            full[..., self.columns, self.rows] = gained
        return full

    def log_prior(self, theta: Tensor) -> Tensor:
        return Normal(0.0, self.gains.spread).log_prob(theta).sum(-1)


def free_parameters_of(
    brain: Brain, free: Mapping[str, Free]
) -> dict[str, FreeParameter]:
    """Every free parameter, checked against the brain."""
    if not free:
        raise InputError(
            "Nothing is free: give free={'strength': LogNormal(-1.0, 0.5)} or the like."
        )
    return {path: _kind(brain, path, given) for path, given in free.items()}


def _kind(brain: Brain, path: str, given: Free) -> FreeParameter:
    get(brain, path)
    n = len(brain.regions)
    if isinstance(given, Gains):
        if path != "connectome.weights":
            raise InputError(f"Gains are for 'connectome.weights'; came {path!r}.")
        return _Connections(given, brain.connectome)
    declared = declaration(brain, path)
    if isinstance(given, Mapped):
        if given.maps.shape[1] != n:
            raise InputError(
                f"The maps of {path!r} have {given.maps.shape[1]} regions, the brain "
                f"{n}."
            )
        _check_domain(path, declared, given.prior)
        return _Line(given)
    size = tuple(given.batch_shape) or (1,)
    many = len(brain.sensor.channels or brain.regions) if path == "sensor.noise" else n
    if size not in {(1,), (many,)}:
        raise InputError(
            f"The prior of {path!r} has batch shape {size}: expected () for one value, "
            f"or ({many},) for one a region."
        )
    _check_domain(path, declared, given)
    names = (
        brain.sensor.channels or brain.regions
        if path == "sensor.noise"
        else brain.regions
    )
    return _Plain(given, ("",) if size == (1,) else names)


def declaration(brain: Brain, path: str) -> Parameter:
    """What is declared of the parameter at a path. Raises InputError for what is no
    parameter."""
    *inner, last = path.split(".")
    model = get(brain, ".".join(inner)) if inner else brain
    declared = parameters(model)
    if last not in declared:
        raise InputError(
            f"{path!r} is not a parameter with a number; free may be: "
            f"{', '.join(declared)}."
        )
    return declared[last]


def _check_domain(path: str, declared: Parameter, prior: Distribution) -> None:
    mean = torch.as_tensor(prior.mean)
    if (
        (mean < declared.low).any()
        or (mean > declared.high).any()
        or not torch.isfinite(mean).all()
    ):
        raise InputError(
            f"The prior of {path!r} has mean {mean.flatten()[0].item():.4g} "
            f"{declared.unit}, outside the parameter's "
            f"domain {declared.low:g} to {declared.high:g} ({declared.meaning}). "
            "Centre it inside."
        )
    bound = getattr(prior.support, "lower_bound", None)
    if declared.low >= 0 and (bound is None or (torch.as_tensor(bound) < 0).any()):
        low = (mean - 3 * torch.as_tensor(prior.stddev)).min().item()
        if low < 0:
            raise InputError(
                f"The prior of {path!r} reaches below zero ({low:.3g} three standard "
                "deviations down), where the "
                "parameter has no meaning. Take a LogNormal, or a narrower prior."
            )


def placed(brain: Brain, values: dict[str, Any]) -> Brain:
    """The brain with these values; weights go past the connectome's symmetry check, as
    each direction may be free."""
    plain = {
        path: value for path, value in values.items() if path != "connectome.weights"
    }
    if "connectome.weights" in values:
        plain["connectome"] = joined_weights(
            brain.connectome, values["connectome.weights"]
        )
    return with_values(brain, plain)


def joined_weights(connectome: Connectome, weights: Tensor) -> Connectome:
    """The connectome with other weights, which need not be symmetric: a fit may free
    each direction."""
    made = object.__new__(Connectome)
    for name, value in {
        "weights": weights,
        "regions": connectome.regions,
        "lengths": connectome.lengths,
    }.items():
        object.__setattr__(made, name, value)
    return made
