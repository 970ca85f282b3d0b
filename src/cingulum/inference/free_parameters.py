"""What a fit may change: one value, one value per region, a linear function of regional
maps, or the weight of every connection.

A `FreeParameter` turns unconstrained coordinates into values and gives the prior
density of the coordinates. The coordinates of a prior are those of
`torch.distributions.biject_to(prior.support)`; densities are in coordinates, so that a
mode and its curvature mean the same whatever the unit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

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
    """A regional parameter as a linear function of maps (myelin, receptors, gradients).

    value_i = T(θ_0 + Σ_k θ_k map_k,i), T the transform of the prior's support. `prior`
    is for a region where all maps are zero; the slopes are normal with standard
    deviation `spread`, in coordinates. Maps should be z-scored.

    maps: (map, region)
    names: one per map; default map1, map2, …

    Raises InputError for maps that are not finite or not of shape (map, region).
    """

    prior: Distribution
    maps: Float[Tensor, "map region"]
    spread: float = 0.2
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.maps.ndim != 2 or not torch.isfinite(self.maps).all():
            raise InputError(
                "Maps must be finite, of shape (map, region); got shape "
                f"{tuple(self.maps.shape)}. Leave out regions without a value."
            )
        if not self.names:
            numbered = tuple(f"map{k + 1}" for k in range(len(self.maps)))
            object.__setattr__(self, "names", numbered)


@dataclass(frozen=True)
class Gains:
    """Every connection free: weights = exp(θ) ⊙ SC; absent connections stay absent
    (Griffiths et al. 2022, doi:10.1101/2022.05.19.492664).

    spread: standard deviation of the normal prior of θ, which shrinks weights towards
        the tractography
    symmetric: one gain for both directions of a connection
    """

    spread: float = 0.5
    symmetric: bool = True


Free = Distribution | Mapped | Gains


class FreeParameter(ABC):
    """One free parameter as the search sees it: `size` coordinates in, a value for
    `with_values` out.

    names: one per coordinate; the empty string for the only one of a global value
    """

    size: int
    names: tuple[str, ...]

    @abstractmethod
    def start(self, like: Tensor) -> Float[Tensor, "size"]:
        """Coordinates of the prior's centre, in the precision of `like`."""

    @abstractmethod
    def spread(self, like: Tensor) -> Float[Tensor, "size"]:
        """Prior standard deviation of the coordinates, in the precision of `like`."""

    @abstractmethod
    def value(self, theta: Float[Tensor, "*batch size"]) -> Tensor:
        """The parameter at these coordinates."""

    @abstractmethod
    def log_prior(self, theta: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch"]:
        """Logarithm of the prior density of the coordinates."""

    @abstractmethod
    def metadata(self) -> tuple:
        """What distinguishes this prior from others, for the fingerprint of a
        checkpoint."""

    def coordinates(self, value: Tensor) -> Float[Tensor, "*batch size"]:
        """Coordinates of a value. Raises InputError where a value does not determine
        them."""
        raise InputError(
            f"{type(self).__name__} has no coordinates for a value: expected a "
            "parameter with one prior per value. Give a torch.distributions prior."
        )

    def reported(self, theta: Float[Tensor, "*batch size"]) -> Tensor:
        """Coordinates as tables show them: in the parameter's unit where each
        coordinate is one value, unchanged for slopes and gains."""
        return theta


class ConstrainedParameter(FreeParameter):
    """One value, or one value per region, constrained to the support of its prior."""

    def __init__(self, prior: Distribution, names: tuple[str, ...]) -> None:
        self.prior = prior
        self.names = names
        self.size = len(names)
        self.transform = biject_to(prior.support)

    def start(self, like: Tensor) -> Tensor:
        centre = self.coordinates(self.prior.mean).to(like)
        return centre.expand(self.size).clone()

    @cached_property
    def _spread(self) -> Tensor:
        # By sampling, because the standard deviation after the transform has no closed
        # form for most priors. The seed is fixed and the caller's generator untouched:
        # the same prior always gives the same units.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            draws = self.prior.sample((2000,)).double()
        return self.coordinates(draws).std(0)

    def spread(self, like: Tensor) -> Tensor:
        return self._spread.to(like).expand(self.size)

    def value(self, theta: Tensor) -> Tensor:
        return self.transform(theta)

    def coordinates(self, value: Tensor) -> Tensor:
        return self.transform.inv(value)

    def reported(self, theta: Tensor) -> Tensor:
        return self.value(theta)

    def log_prior(self, theta: Tensor) -> Tensor:
        value = self.transform(theta)
        # The Jacobian makes it a density of coordinates, not of values.
        volume = self.transform.log_abs_det_jacobian(theta, value)
        return (self.prior.log_prob(value) + volume).sum(-1)

    def metadata(self) -> tuple:
        return self.prior, self.names


class MappedParameter(FreeParameter):
    """A regional parameter as a linear function of maps: an average and one slope per
    map."""

    def __init__(self, mapped: Mapped) -> None:
        self.mapped = mapped
        self.average = ConstrainedParameter(mapped.prior, ("mean",))
        self.size = 1 + len(mapped.maps)
        self.names = ("mean", *mapped.names)

    def start(self, like: Tensor) -> Tensor:
        # The same value everywhere: no map is known to matter.
        slopes = like.new_zeros(self.size - 1)
        return torch.cat([self.average.start(like), slopes])

    def spread(self, like: Tensor) -> Tensor:
        slopes = like.new_full((self.size - 1,), self.mapped.spread)
        return torch.cat([self.average.spread(like), slopes])

    def value(self, theta: Tensor) -> Tensor:
        average, slopes = theta[..., :1], theta[..., 1:]
        regional = average + slopes @ self.mapped.maps.to(theta)
        return self.average.value(regional)

    def log_prior(self, theta: Tensor) -> Tensor:
        slopes = Normal(0.0, self.mapped.spread).log_prob(theta[..., 1:]).sum(-1)
        return self.average.log_prior(theta[..., :1]) + slopes

    def metadata(self) -> tuple:
        return *self.average.metadata(), self.mapped.maps, self.mapped.spread


class ConnectionGains(FreeParameter):
    """Logarithmic gains of the existing connections.

    Raises InputError for a batch of connectomes.
    """

    def __init__(self, gains: Gains, connectome: Connectome) -> None:
        weights = connectome.weights
        if weights.ndim > 2:
            raise InputError(
                "Free connection weights need one connectome shared by all recordings; "
                f"got a batch of shape {tuple(weights.shape)}. Fit one recording at a "
                "time."
            )
        if gains.symmetric and not connectome.is_symmetric:
            raise InputError(
                "Symmetric gains need a symmetric connectome: this one is directed. "
                "Give Gains(symmetric=False)."
            )
        self.gains = gains
        self.connectome = connectome
        # Of a symmetric pair only the upper one is free.
        present = torch.triu(weights, 1) > 0 if gains.symmetric else weights > 0
        self.rows, self.columns = present.nonzero(as_tuple=True)
        self.size = len(self.rows)
        self.names = _connection_names(self.rows, self.columns)

    def start(self, like: Tensor) -> Tensor:
        return like.new_zeros(self.size)

    def spread(self, like: Tensor) -> Tensor:
        return like.new_full((self.size,), self.gains.spread)

    def value(self, theta: Tensor) -> Tensor:
        weights = self.connectome.weights
        gained = weights[self.rows, self.columns] * theta.exp()
        # Absent connections keep their zero.
        full = theta.new_zeros(*theta.shape[:-1], *weights.shape)
        full[..., self.rows, self.columns] = gained
        if self.gains.symmetric:
            full[..., self.columns, self.rows] = gained
        return full

    def log_prior(self, theta: Tensor) -> Tensor:
        return Normal(0.0, self.gains.spread).log_prob(theta).sum(-1)

    def metadata(self) -> tuple:
        return self.gains.spread, self.names


def _connection_names(rows: Tensor, columns: Tensor) -> tuple[str, ...]:
    """Indices, because names of regions may have hyphens and spaces."""
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return tuple(f"{row}-{column}" for row, column in pairs)


def free_parameters_of(
    brain: Brain, free: Mapping[str, Free]
) -> dict[str, FreeParameter]:
    """Every free parameter by its path, checked against the brain.

    Raises InputError for nothing free, an unknown path, or a prior that does not fit
    the parameter.
    """
    if not free:
        raise InputError(
            "Nothing is free: give free={'strength': LogNormal(-1.0, 0.5)} or the like."
        )
    return {path: _free_parameter(brain, path, prior) for path, prior in free.items()}


def _free_parameter(brain: Brain, path: str, free: Free) -> FreeParameter:
    # Raises InputError with the names there are, for a path that does not exist.
    get(brain, path)
    if isinstance(free, Gains):
        if path != "connectome.weights":
            raise InputError(
                f"Gains are for 'connectome.weights'; got {path!r}. Give "
                "a torch.distributions prior."
            )
        return ConnectionGains(free, brain.connectome)
    declared = declaration(brain, path)
    if not isinstance(free, Mapped | Distribution):
        raise InputError(
            f"What is free needs a prior: give a torch.distributions object for "
            f"{path!r}, such as LogNormal(-1.0, 0.5); got {free!r}. A value that stays "
            "as it is belongs into the brain."
        )
    if isinstance(free, Mapped):
        return _mapped_parameter(brain, path, declared, free)
    return _constrained_parameter(brain, path, declared, free)


def _mapped_parameter(
    brain: Brain, path: str, declared: Parameter, mapped: Mapped
) -> MappedParameter:
    regions = mapped.maps.shape[1]
    if regions != len(brain.regions):
        raise InputError(
            f"The maps of {path!r} have {regions} regions, the brain "
            f"{len(brain.regions)}. Give one column per region of the connectome."
        )
    _check_domain(path, declared, mapped.prior)
    return MappedParameter(mapped)


def _constrained_parameter(
    brain: Brain, path: str, declared: Parameter, prior: Distribution
) -> ConstrainedParameter:
    # Measurement noise belongs to channels, which are not regions behind a leadfield.
    places = brain.regions
    if path == "sensor.noise" and brain.sensor.channels:
        places = brain.sensor.channels
    size = tuple(prior.batch_shape) or (1,)
    if size not in {(1,), (len(places),)}:
        raise InputError(
            f"The prior of {path!r} has batch shape {size}: expected () for one value, "
            f"or ({len(places)},) for one per region."
        )
    _check_domain(path, declared, prior)
    names = ("",) if size == (1,) else places
    return ConstrainedParameter(prior, names)


def declaration(brain: Brain, path: str) -> Parameter:
    """What is declared of the parameter at a path. Raises InputError for a path that is
    not a parameter."""
    # "mass.J_i" is parameter J_i of the brain's mass, "strength" one of the brain.
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
    """Refuse a prior that gives values the parameter cannot have."""
    _check_centre(path, declared, prior)
    if declared.low >= 0 and not _is_never_negative(prior):
        _check_reach(path, prior)


def _check_centre(path: str, declared: Parameter, prior: Distribution) -> None:
    """Refuse a prior centred outside the parameter's domain."""
    mean = torch.as_tensor(prior.mean)
    outside = (mean < declared.low) | (mean > declared.high) | ~torch.isfinite(mean)
    if outside.any():
        raise InputError(
            f"The prior of {path!r} has mean {mean.flatten()[0].item():.4g} "
            f"{declared.unit}, outside the parameter's domain {declared.low:g} to "
            f"{declared.high:g} ({declared.meaning}). Centre it inside."
        )


def _check_reach(path: str, prior: Distribution) -> None:
    """Refuse a prior that reaches below zero."""
    mean = torch.as_tensor(prior.mean)
    # Three standard deviations: a normal prior far above zero is no danger.
    low = (mean - 3 * torch.as_tensor(prior.stddev)).min().item()
    if low < 0:
        raise InputError(
            f"The prior of {path!r} reaches below zero ({low:.3g} three standard "
            "deviations down), where the parameter has no meaning. Take a LogNormal, "
            "or a narrower prior."
        )


def _is_never_negative(prior: Distribution) -> bool:
    # A LogNormal is bounded at zero, a Uniform where it says, a Normal nowhere.
    bound = getattr(prior.support, "lower_bound", None)
    if bound is None:
        return False
    return not bool((torch.as_tensor(bound) < 0).any())


class FittedConnectome(Connectome):
    """A connectome whose weights a fit has changed.

    A fit may free each direction of a connection, so the weights need not be symmetric;
    the measured ones they come from have been checked.
    """

    def __post_init__(self) -> None:
        """No check: the search must survive weights on their way to being refused."""


def brain_with(brain: Brain, values: Mapping[str, Tensor]) -> Brain:
    """The brain with these values; unlike `with_values` it takes asymmetric weights."""
    # Past the connectome's check of symmetry; all else is checked as always.
    changes: dict[str, Tensor | Connectome] = dict(values)
    weights = changes.pop("connectome.weights", None)
    if isinstance(weights, Tensor):
        measured = brain.connectome
        changes["connectome"] = FittedConnectome(
            weights, measured.regions, measured.lengths
        )
    return with_values(brain, changes)
