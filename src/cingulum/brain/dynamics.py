"""What every neural mass and every haemodynamic model is: states, parameters, a drift
and an output."""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float
from torch import Tensor

from cingulum.errors import InputError

Value = float | Tensor
"""A parameter: a number, one a region `(region,)`, or one a batch member `(batch, 1)`
or `(batch, region)`."""


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
    """A state variable: where it rests, the domain outside which it has no meaning, and
    its share of the noise."""

    name: str
    rest: float
    low: float | None = None
    high: float | None = None
    noise: float = 1.0


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
    input `(*batch, region)`; regions do not see each other inside them, which is what
    makes linearisation and compilation simple.
    """

    states: ClassVar[tuple[State, ...]]
    couplings: ClassVar[int] = 1
    """Signals that travel between regions. With more than one, `output` and the input
    `u` have them in front: `(coupling, *batch, region)`."""

    @abstractmethod
    def drift(
        self, x: Float[Tensor, "state *batch region"], u: Float[Tensor, "*batch region"]
    ) -> Float[Tensor, "state *batch region"]:
        """Time derivative of the states, per second, under input `u`."""

    @abstractmethod
    def output(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "*batch region"]:
        """What leaves the region: to other regions, or to the scanner."""

    def activity(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "*batch region"]:
        """What drives the scanner: the output, unless the model says otherwise (the
        first of several)."""
        return self.output(x) if self.couplings == 1 else self.output(x)[0]


def parameters(model: Any) -> dict[str, Parameter]:
    """The declared parameters of a model, by name."""
    return {
        f.name: f.metadata["parameter"]
        for f in dataclasses.fields(model)
        if "parameter" in f.metadata
    }


Model = TypeVar("Model")


def with_values(model: Model, values: dict[str, Any]) -> Model:
    """The same model with other values: `put(brain, {"mass.J_i": 1.2, "strength":
    2.0})`.

    Raises InputError for a name that the model does not have.
    """
    for path, value in values.items():
        head, _, rest = path.partition(".")
        _check_name(model, head)
        inner = with_values(getattr(model, head), {rest: value}) if rest else value
        model = dataclasses.replace(model, **{head: inner})  # type: ignore[type-var]
    return model


def get(model: Any, path: str) -> Any:
    """The value at a dotted path: `get(brain, "mass.J_i")`."""
    for name in path.split("."):
        _check_name(model, name)
        model = getattr(model, name)
    return model


def _check_name(model: Any, name: str) -> None:
    names = [f.name for f in dataclasses.fields(model)]
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"{type(model).__name__} has no parameter {name!r}. It has: "
            f"{', '.join(names)}.{hint}"
        )
