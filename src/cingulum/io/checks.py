"""Checks of values that users' files hold."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number."""
    # Python counts true and false as whole numbers; JSON does not.
    if isinstance(value, bool):
        return False
    return isinstance(value, int | float)


def are_numbers(values: Any) -> TypeGuard[list[float]]:
    """Whether a JSON value is a list of numbers."""
    return isinstance(values, list) and all(map(is_number, values))


def all_between(values: np.ndarray, low: float, high: float) -> bool:
    """Whether all values lie in a range, its ends included; NaN does not."""
    return bool(((values >= low) & (values <= high)).all())
