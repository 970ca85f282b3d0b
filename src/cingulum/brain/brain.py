"""Brain: masses joined by a connectome and watched by a sensor. A value; change it with
`put`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.connectome import Connectome
from cingulum.brain.dynamics import Dynamics, Value, param, parameters
from cingulum.brain.haemodynamics import BalloonWindkessel
from cingulum.errors import InputError


@dataclass(frozen=True, eq=False)
class Sensor:
    """A scanner: the response that turns activity into signal, and the time between two
    samples (s).

    leadfield: (channel, region), for EEG and MEG: what each channel sees of each
        region; None: one channel a region
    channels: their names; default c1, c2, …
    noise: standard deviation of the measurement noise, in `unit`: one value, or one a
        channel

    Raises InputError when leadfield and channel names do not belong together.
    """

    response: Dynamics = BalloonWindkessel()
    tr: float = 0.72
    unit: str = "percent"
    noise: Value = param(
        0.0,
        "unit of the signal",
        0.0,
        math.inf,
        "standard deviation of the measurement noise",
    )
    leadfield: Float[Tensor, "channel region"] | None = None
    channels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.leadfield is None:
            return
        rows = self.leadfield.shape[-2]
        if self.channels is None:
            object.__setattr__(
                self, "channels", tuple(f"c{i + 1}" for i in range(rows))
            )
        elif len(self.channels) != rows:
            raise InputError(
                f"The leadfield has {rows} channels, but {len(self.channels)} names "
                "were given."
            )

    def seen(self, signal: Float[Tensor, "... region"]) -> Float[Tensor, "... channel"]:
        """Regional signals as the channels see them."""
        return signal if self.leadfield is None else signal @ self.leadfield.mT


@dataclass(frozen=True, eq=False)
class Brain:
    """Neural masses on a connectome, seen through a sensor."""

    mass: Dynamics
    connectome: Connectome
    sensor: Sensor = Sensor()
    strength: Value = param(0.5, "1", 0.0, 5.0, "global coupling (G)")
    noise: Value = param(
        0.01,
        "s^-1/2",
        0.0,
        0.5,
        "amplitude of the white noise on every neural state (sigma)",
    )
    speed: Value = param(
        math.inf,
        "m/s",
        1.0,
        math.inf,
        "conduction speed along the tracts; infinite: no delays",
    )

    @property
    def regions(self) -> tuple[str, ...]:
        return self.connectome.regions

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch dimensions implied by the parameters and the weights."""
        parts = (self, self.mass, self.sensor, self.sensor.response)
        values = [getattr(model, name) for model in parts for name in parameters(model)]
        shapes = [
            value.shape[:-1]
            for value in values
            if isinstance(value, Tensor) and value.ndim > 1
        ]
        return tuple(
            torch.broadcast_shapes(self.connectome.weights.shape[:-2], *shapes)
        )

    def resting_state(
        self, batch: tuple[int, ...] | None = None
    ) -> Float[Tensor, "state *batch region"]:
        """Every state at its declared resting value."""
        shape = (*(self.batch if batch is None else batch), len(self.regions))
        return resting(self.mass, self.connectome.weights.new_empty(shape))

    def delays(self) -> Float[Tensor, "*batch region region"] | None:
        """Conduction delays in s, lengths / speed; None at infinite speed.

        Raises InputError without tract lengths.
        """
        if not isinstance(self.speed, Tensor) and math.isinf(self.speed):
            return None
        if self.connectome.lengths is None:
            raise InputError(
                "A finite conduction speed needs tract lengths (mm): give the "
                "connectome its lengths."
            )
        speed = torch.as_tensor(self.speed)
        return (
            self.connectome.lengths
            * 1e-3
            / (speed.unsqueeze(-1) if speed.ndim else speed)
        )

    def coupling(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "*batch region"]:
        """What each region receives from all others without delay: strength · Σ_j
        weights_ij · output_j.

        A mass with several coupling variables has them in front.
        """
        weights, output = self.connectome.weights, self.mass.output(x)
        if weights.ndim == 2:
            return self.strength * (output @ weights.mT)
        return self.strength * (weights @ output.unsqueeze(-1)).squeeze(-1)

    def drift(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "state *batch region"]:
        """Time derivative of the whole network's neural states, per second."""
        return self.mass.drift(x, self.coupling(x))


def resting(
    model: Dynamics, like: Float[Tensor, "*batch region"]
) -> Float[Tensor, "state *batch region"]:
    """A model's states at rest, with the shape, dtype and device of `like`."""
    return torch.stack([torch.full_like(like, state.rest) for state in model.states])


def shaken(
    model: Dynamics, z: Float[Tensor, "state *batch region"]
) -> Float[Tensor, "state *batch region"]:
    """Standard normal numbers times each state's share of the noise."""
    if all(state.noise == 1.0 for state in model.states):
        return z
    return torch.stack(
        [
            state.noise * component
            for component, state in zip(z, model.states, strict=True)
        ]
    )


def confine(
    model: Dynamics, x: Float[Tensor, "state *batch region"]
) -> Float[Tensor, "state *batch region"]:
    """Keep states inside the domain they declare (a gating variable cannot be
    negative)."""
    if all(state.low is None and state.high is None for state in model.states):
        return x
    return torch.stack(
        [
            component
            if state.low is None and state.high is None
            else component.clamp(state.low, state.high)
            for component, state in zip(x, model.states, strict=True)
        ]
    )
