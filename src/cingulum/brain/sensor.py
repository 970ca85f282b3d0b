"""Sensor: the scanner or amplifier that watches a brain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.dynamics import Response, Value, param
from cingulum.brain.haemodynamics import BalloonWindkessel
from cingulum.brain.values import own_tensor
from cingulum.errors import InputError


@dataclass(frozen=True, eq=False)
class Sensor:
    """A scanner: the response that turns activity into signal, and the time between two
    samples (s).

    leadfield: (channel, region), for EEG and MEG: the weight of every region in every
        channel; None: one channel per region
    channels: names of the channels; default c1, c2, …
    noise: standard deviation of the measurement noise, in `unit`: one value, or one per
        channel

    Raises InputError when leadfield and channel names do not belong together, for a
    leadfield that is not finite, a TR that is no positive number, and a response that
    is a neural mass.
    """

    response: Response = BalloonWindkessel()
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
        # The output of a mass has an axis of couplings, which a recorded signal lacks.
        if not isinstance(self.response, Response):
            raise InputError(
                "The response of a sensor must be a cingulum.brain.Response; got "
                f"{type(self.response).__name__}. Derive your class from Response and "
                "return one value per region from its output."
            )
        check_sampling_interval(self.tr)
        if self.leadfield is None:
            return
        leadfield = own_tensor(self.leadfield, "The leadfield")
        object.__setattr__(self, "leadfield", leadfield)
        _check_finite(leadfield, self.channels)
        # Checked once, here; later code relies on it.
        n_channels = leadfield.shape[-2]
        if self.channels is None:
            object.__setattr__(self, "channels", _default_names(n_channels))
        else:
            _check_names(self.channels, n_channels)

    def project(
        self, signal: Float[Tensor, "... region"]
    ) -> Float[Tensor, "... channel"]:
        """Regional signals as the channels record them, without noise."""
        return signal if self.leadfield is None else signal @ self.leadfield.mT


def check_sampling_interval(tr: Any) -> None:
    """Raises InputError unless it is a positive number of seconds."""
    is_number = isinstance(tr, int | float | np.number) and not isinstance(tr, bool)
    if not is_number or not 0 < tr < math.inf:
        raise InputError(f"tr must be a positive number of seconds; got {tr!r}.")


def _check_finite(leadfield: Tensor, names: tuple[str, ...] | None) -> None:
    if leadfield.ndim != 2:
        raise InputError(
            "The leadfield must have shape (channel, region); got "
            f"{tuple(leadfield.shape)}."
        )
    unknown = (~torch.isfinite(leadfield.detach())).any(-1).nonzero().flatten().tolist()
    if unknown:
        shown = [names[i] if names else f"c{i + 1}" for i in unknown[:5]]
        raise InputError(
            f"The leadfield is not finite in {len(unknown)} channel(s): "
            f"{', '.join(shown)}. Leave bad channels out of leadfield and recording."
        )


def _check_names(names: tuple[str, ...], n_channels: int) -> None:
    if len(names) != n_channels:
        raise InputError(
            f"The leadfield has {n_channels} channels, but {len(names)} names were "
            "given."
        )


def _default_names(n_channels: int) -> tuple[str, ...]:
    return tuple(f"c{i + 1}" for i in range(n_channels))
