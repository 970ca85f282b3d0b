"""The table of sizes and addresses that machine code is called with."""

from __future__ import annotations

import numpy as np

from cingulum.simulation.compiler.layout import (
    SLOTS,
    gradient_slot,
    parameter_slot,
    table_length,
)
from cingulum.simulation.compiler.tracing import Form

SLOT_OF = {name: index for index, name in enumerate(SLOTS)}


class BlockTable:
    """The table of one block of simulations. It keeps the arrays whose addresses it
    holds."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.values = np.zeros(table_length(form), np.int64)
        self.arrays: dict[str, np.ndarray] = {}

    def set_sizes(self, **sizes: int) -> None:
        for name, size in sizes.items():
            self.values[SLOT_OF[name]] = size

    def set_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """By names of SLOTS."""
        for name, array in arrays.items():
            self._hold(SLOT_OF[name], name, array)

    def set_parameter(self, path: str, value: np.ndarray) -> None:
        """value: (1 or simulation, 1 or width)."""
        slot = parameter_slot(self.form, path)
        self._hold(slot, f"parameter {path}", value)
        # A stride of 0: every simulation reads the same row.
        has_row_each = value.shape[0] > 1
        self.values[slot + 1] = value.shape[1] * has_row_each

    def set_gradient(self, path: str, gradient: np.ndarray) -> None:
        self._hold(gradient_slot(self.form, path), f"gradient {path}", gradient)

    def _hold(self, slot: int, name: str, array: np.ndarray) -> None:
        # numpy would free an array whose address only machine code knows.
        self.values[slot] = array.ctypes.data
        self.arrays[name] = array
