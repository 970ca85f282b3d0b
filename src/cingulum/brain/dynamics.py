"""What every neural mass and every haemodynamic model is: states, parameters, a drift
and an output."""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.errors import InputError

Value = float | Tensor
"""A parameter: a number, or a tensor with one value per region `(region,)`, or one per
member of a batch, `(batch, 1)` or `(batch, region)`."""


@dataclass(frozen=True)
class Parameter:
    """What is known of a parameter where it is declared."""

    default: float
    unit: str
    low: float
    high: float
    meaning: str


@dataclass(frozen=True)
class State:
    """A state variable: its resting value, the domain outside which it has no meaning,
    and its share of the noise."""

    name: str
    rest: float
    low: float | None = None
    high: float | None = None
    noise: float = 1.0

    @property
    def is_bounded(self) -> bool:
        """Whether the state has a domain that a step could leave."""
        return self.low is not None or self.high is not None

    def confine(
        self, values: Float[Tensor, "*batch region"]
    ) -> Float[Tensor, "*batch region"]:
        """Values of the state brought back into its domain."""
        # `clamp` refuses to be called without a bound.
        if not self.is_bounded:
            return values
        return values.clamp(self.low, self.high)


def param(default: float, unit: str, low: float, high: float, meaning: str) -> Any:
    """Declare a parameter once: its default, unit, plausible range and meaning."""
    return field(
        default=default,
        metadata={"parameter": Parameter(default, unit, low, high, meaning)},
    )


class Dynamics(ABC):
    """A model of one region: subclasses are frozen dataclasses whose fields are
    declared with `param`.

    `drift` and `output` are pure functions of states `(state, *batch, region)` and
    input `(coupling, *batch, region)`; regions do not see each other inside them, which
    is what makes linearisation and compilation simple. Of a sensor's response, which
    joins no regions, input and output have no coupling axis (`Response`).
    """

    states: ClassVar[tuple[State, ...]]
    couplings: ClassVar[int] = 1
    """Number of signals that travel between regions: the length of the first axis of
    `output` and of the input `u`, also where there is only one signal."""

    @abstractmethod
    def drift(
        self,
        x: Float[Tensor, "state *batch region"],
        u: Float[Tensor, "coupling *batch region"],
    ) -> Float[Tensor, "state *batch region"]:
        """Time derivative of the states, per second, under input `u`: what the region
        receives of each signal. A mass with one unpacks it: `(received,) = u`."""

    @abstractmethod
    def output(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "coupling *batch region"]:
        """What leaves the region for others, signal by signal.

        A mass that sends its first state returns `x[:1]`; one that sends a computed
        signal, `signal[None]`.
        """

    def activity(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "*batch region"]:
        """What drives the scanner: the first signal of the output, unless the mass
        defines it otherwise."""
        return self.output(x)[0]


class Response(Dynamics):
    """What a sensor makes of a region's activity: haemodynamics, or an amplifier.

    Nothing travels between regions, so that neither the drive nor the output has a
    coupling axis.
    """

    couplings: ClassVar[int] = 0

    @abstractmethod
    def drift(
        self, x: Float[Tensor, "state *batch region"], u: Float[Tensor, "*batch region"]
    ) -> Float[Tensor, "state *batch region"]:
        """Time derivative of the states, per second, under the activity `u`."""

    def advance(
        self,
        x: Float[Tensor, "state *batch region"],
        u: Float[Tensor, "*batch region"],
        h: Value,
    ) -> Float[Tensor, "state *batch region"]:
        """The states after a step of h seconds under constant activity: Euler's step,
        unless the response knows its own solution."""
        return x + h * self.drift(x, u)

    @abstractmethod
    def output(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "*batch region"]:
        """The recorded signal."""

    def activity(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "*batch region"]:
        """The recorded signal."""
        return self.output(x)


def resting(
    model: Dynamics, like: Float[Tensor, "*batch region"]
) -> Float[Tensor, "state *batch region"]:
    """A model's states at rest, with the shape, dtype and device of `like`."""
    return torch.stack([torch.full_like(like, state.rest) for state in model.states])


def scale_noise(
    model: Dynamics, z: Float[Tensor, "state *batch region"]
) -> Float[Tensor, "state *batch region"]:
    """Standard normal numbers times each state's share of the noise."""
    shares = [state.noise for state in model.states]
    # Most models share noise evenly; then there is nothing to multiply and stack.
    if all(share == 1.0 for share in shares):
        return z
    components = zip(z, shares, strict=True)
    return torch.stack([share * component for component, share in components])


def confine(
    model: Dynamics, x: Float[Tensor, "state *batch region"]
) -> Float[Tensor, "state *batch region"]:
    """States brought back into the domain that they declare (a gating variable cannot
    be negative)."""
    if not any(state.is_bounded for state in model.states):
        return x
    pairs = zip(x, model.states, strict=True)
    return torch.stack([state.confine(component) for component, state in pairs])


def as_tensor_like(value: Value, like: Tensor) -> Tensor:
    """A parameter as a tensor with the dtype and on the device of `like`."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def zero_input(
    mass: Dynamics, like: Float[Tensor, "*batch region"]
) -> Float[Tensor, "coupling *batch region"]:
    """The input of regions that receive nothing."""
    return like.new_zeros((mass.couplings, *like.shape))


def parameters(model: Any) -> dict[str, Parameter]:
    """The declared parameters of a model, by name."""
    declared = {}
    for f in dataclasses.fields(model):
        if "parameter" in f.metadata:
            declared[f.name] = f.metadata["parameter"]
    return declared


Model = TypeVar("Model")


def with_values(model: Model, values: dict[str, Any]) -> Model:
    """The same model with other values: `with_values(brain, {"mass.J_i": 1.2,
    "strength": 2.0})`.

    Raises InputError for a name that the model does not have.
    """
    for path, value in values.items():
        name, _, inner_path = path.partition(".")
        _check_name(model, name)
        if inner_path:
            value = with_values(getattr(model, name), {inner_path: value})
        # Any value with declared parameters is a dataclass; the type of `model` stays
        # open so that a Brain in gives a Brain out.
        model = dataclasses.replace(model, **{name: value})  # type: ignore[type-var]
    return model


def get(model: Any, path: str) -> Any:
    """The value at a dotted path: `get(brain, "mass.J_i")`."""
    for name in path.split("."):
        _check_name(model, name)
        model = getattr(model, name)
    return model


def _check_name(model: Any, name: str) -> None:
    # Fields that are no parameters count too: `with_values` also replaces a connectome.
    names = [f.name for f in dataclasses.fields(model)]
    if name in names:
        return
    nearest = difflib.get_close_matches(name, names, 1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise InputError(
        f"{type(model).__name__} has no parameter {name!r}. It has: "
        f"{', '.join(names)}.{hint}"
    )
