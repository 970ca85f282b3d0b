"""What people give for numbers, made into what a brain keeps: tensors of its own, of
the right size, and within reason."""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cingulum.brain.dynamics import Parameter, Value, parameters
from cingulum.errors import InputError

NUMBERS = (bool, int, float, np.number)


def own_tensor(value: Any, what: str) -> Tensor:
    """An array of numbers as a floating-point tensor that nobody else changes.

    A tensor with a gradient is kept as it is: its owner changes it on purpose, and
    wants the gradient. Raises InputError for anything but numbers.
    """
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{what} must be an array of numbers; got {_described(value)}."
        ) from None
    if tensor.is_complex():
        raise InputError(f"{what} must be real numbers; got {tensor.dtype}.")
    if not tensor.is_floating_point():
        return tensor.to(torch.get_default_dtype())
    return tensor if tensor.requires_grad else tensor.clone()


def own_value(value: Any, what: str) -> Value:
    """A parameter's value: a number, or a tensor of its own."""
    if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point():
        # A tensor without axes broadcasts like a number, and may be on another device.
        return own_tensor(value, what)
    if isinstance(value, NUMBERS):
        return float(value)
    return own_tensor(value, what)


def with_own_values(model: Any, path: str, size: int) -> Any:
    """The model with `own_values`."""
    return dataclasses.replace(model, **own_values(model, path, size))


def own_values(model: Any, path: str, size: int) -> dict[str, Value]:
    """The declared parameters of a model as values of its own.

    path: of the model within the brain, for the error messages
    size: how many values a tensor may have on its last axis, beside one
    Raises InputError for a value that is no number, and for another size.
    """
    values = {}
    for name in parameters(model):
        what = f"{path}{name}"
        value = own_value(getattr(model, name), what)
        _check_size(value, what, size)
        values[name] = value
    return values


def _check_size(value: Value, what: str, size: int) -> None:
    if not isinstance(value, Tensor) or value.ndim == 0:
        return
    if value.shape[-1] not in (1, size):
        raise InputError(
            f"{what} has {value.shape[-1]} values on its last axis; expected one, or "
            f"{size} (one per region). A batch needs an axis of its own before it: "
            f"shape ({value.shape[-1]}, 1)."
        )


TIMES = ("s", "ms")
"""Units of time constants, which are above 0."""


def check_ranges(model: Any, path: str = "") -> None:
    """Look at the values of a model's declared parameters: nonsense is refused, values
    outside the plausible range are warned about.

    Raises InputError for a value that is not finite where its range is, and for a time
    constant that is not positive.
    """
    for name, declared in parameters(model).items():
        _check_range(f"{path}{name}", getattr(model, name), declared)


def _check_range(what: str, value: Value, declared: Parameter) -> None:
    lowest, highest = _extremes(value)
    may_be_infinite = math.isinf(declared.high)
    if math.isnan(lowest) or (math.isinf(highest) and not may_be_infinite):
        raise InputError(
            f"{what} is not a finite number in every region ({declared.meaning}, "
            f"{declared.unit})."
        )
    # Other quantities may be negative: a frequency then turns the other way.
    if declared.unit in TIMES and lowest <= 0:
        raise InputError(
            f"{what} = {lowest:.6g} must be above 0 ({declared.meaning}, "
            f"{declared.unit})."
        )
    if lowest < declared.low or highest > declared.high:
        outside = lowest if lowest < declared.low else highest
        warnings.warn(
            f"{what} = {outside:.6g} is outside its plausible range, {declared.low:g} "
            f"to {declared.high:g} {declared.unit} ({declared.meaning}). Is it given "
            "in that unit?",
            # The line of the user that called `simulate`.
            stacklevel=5,
        )


def _extremes(value: Value) -> tuple[float, float]:
    if not isinstance(value, Tensor):
        return float(value), float(value)
    known = value.detach()
    if torch.isnan(known).any():
        return math.nan, math.nan
    return known.min().item(), known.max().item()


def _described(value: Any) -> str:
    return repr(value) if isinstance(value, str) else type(value).__name__
