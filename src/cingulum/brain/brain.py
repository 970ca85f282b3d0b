"""Brain: masses joined by a connectome and watched by a sensor. A value; change it with
`with_values`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.connectome import Connectome
from cingulum.brain.dynamics import Dynamics, Value, param, parameters, resting
from cingulum.brain.sensor import Sensor
from cingulum.brain.values import check_ranges, own_values, with_own_values
from cingulum.errors import InputError


@dataclass(frozen=True, eq=False)
class Brain:
    """Neural masses on a connectome, recorded by a sensor.

    A parameter is a number, or a tensor of shape (*batch, 1) or (*batch, region). The
    brain keeps copies of tensors without a gradient, so that it does not change with
    what it was made of.

    Raises InputError for values that are no numbers or of another size, and for a
    leadfield of other regions.
    """

    mass: Dynamics
    connectome: Connectome
    sensor: Sensor = Sensor()
    strength: Value = param(0.5, "1", 0.0, 5.0, "global coupling (G)")
    # How much is plausible depends on the states, whose units differ between masses.
    noise: Value = param(
        0.01,
        "s^-1/2",
        0.0,
        math.inf,
        "amplitude of the white noise on every neural state (sigma)",
    )
    speed: Value = param(
        math.inf,
        "m/s",
        1.0,
        math.inf,
        "conduction speed along the tracts; infinite: no delays",
    )

    def __post_init__(self) -> None:
        n = len(self.regions)
        sensor = self.sensor
        _check_leadfield(sensor, n)
        channels = n if sensor.channels is None else len(sensor.channels)
        response = with_own_values(sensor.response, "sensor.response.", n)
        sensor = with_own_values(
            replace(sensor, response=response), "sensor.", channels
        )
        own = {
            **own_values(self, "", n),
            "mass": with_own_values(self.mass, "mass.", n),
            "sensor": sensor,
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)

    def check_ranges(self) -> None:
        """Warn of parameters outside their plausible range; raises InputError for
        those that make no sense."""
        check_ranges(self)
        check_ranges(self.mass, "mass.")
        check_ranges(self.sensor, "sensor.")
        check_ranges(self.sensor.response, "sensor.response.")

    @property
    def regions(self) -> tuple[str, ...]:
        return self.connectome.regions

    @property
    def batch(self) -> tuple[int, ...]:
        """Batch dimensions implied by the parameters and the weights."""
        shapes = [self.connectome.weights.shape[:-2]]
        for model in (self, self.mass, self.sensor, self.sensor.response):
            shapes += _batch_shapes(model)
        return tuple(torch.broadcast_shapes(*shapes))

    def resting_state(
        self, batch: tuple[int, ...] | None = None
    ) -> Float[Tensor, "state *batch region"]:
        """Every state at its declared resting value."""
        if batch is None:
            batch = self.batch
        shape = (*batch, len(self.regions))
        return resting(self.mass, self.connectome.weights.new_empty(shape))

    def batched(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "state *members region"]:
        """States x for every member of the batch that the parameters imply."""
        own_batch = x.shape[1:-1]
        batch = torch.broadcast_shapes(own_batch, self.batch)
        # States would otherwise be paired with the members of a batch that they lack.
        missing_axes = [1] * (len(batch) - len(own_batch))
        aligned = x.reshape(x.shape[0], *missing_axes, *x.shape[1:])
        return aligned.expand(-1, *batch, -1)

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
        metres = self.connectome.lengths * 1e-3
        speed = torch.as_tensor(self.speed)
        if not (speed.detach() > 0).all():
            raise InputError(
                f"The conduction speed must be above 0 m/s; got {speed.min().item():g}."
            )
        if speed.ndim:
            # Lengths have one axis more than parameters: (*batch, receiver, sender).
            speed = speed.unsqueeze(-1)
        return metres / speed

    def coupling(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "coupling *members region"]:
        """What each region receives of each signal from all others without delay:
        strength · Σ_j weights_ij · output_j."""
        output = self._with_batch_axes(self.mass.output(x))
        return self.strength * _weighted_sums(self.connectome.weights, output)

    def _with_batch_axes(
        self, output: Float[Tensor, "coupling *batch region"]
    ) -> Float[Tensor, "coupling *members region"]:
        """Outputs with at least as many batch axes as strength and weights have."""
        strength_axes = torch.as_tensor(self.strength).ndim - 1
        weights_axes = self.connectome.weights.ndim - 2
        missing_axes = max(strength_axes, weights_axes) - (output.ndim - 2)
        if missing_axes <= 0:
            return output
        # Otherwise the couplings of states without a batch would be paired with the
        # members of a batch of strengths or weights.
        return output.unflatten(0, (-1, *[1] * missing_axes))

    def drift(
        self, x: Float[Tensor, "state *batch region"]
    ) -> Float[Tensor, "state *batch region"]:
        """Time derivative of the whole network's neural states, per second."""
        return self.mass.drift(x, self.coupling(x))


def _check_leadfield(sensor: Sensor, n: int) -> None:
    if sensor.leadfield is None or sensor.leadfield.shape[-1] == n:
        return
    raise InputError(
        f"The leadfield has shape {tuple(sensor.leadfield.shape)}; expected (channel, "
        f"region) with {n} regions, in the connectome's order."
    )


def _weighted_sums(
    weights: Float[Tensor, "*#batch region region"],
    output: Float[Tensor, "coupling *#batch region"],
) -> Float[Tensor, "coupling *members region"]:
    """Σ_j weights_ij · output_j for every signal."""
    if weights.ndim == 2:
        # One connectome for the whole batch: a single product of two matrices.
        return output @ weights.mT
    return (weights @ output.unsqueeze(-1)).squeeze(-1)


def _batch_shapes(model: Any) -> list[torch.Size]:
    """Batch dimensions of a model's own parameters."""
    values = [getattr(model, name) for name in parameters(model)]
    # The last axis is regional; only axes before it are a batch.
    return [value.shape[:-1] for value in values if isinstance(value, Tensor)]
