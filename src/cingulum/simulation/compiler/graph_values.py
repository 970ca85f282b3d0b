"""What the rules of the compiler share: the call that they are a rule for, and numbers
as values of the small language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import Node

from cingulum.simulation.compiler.ssa import Program

LANES = 61
"""Length of the region axis while tracing: a prime that no other axis is likely to
have, so that the regions can be recognised by it."""


class CannotLower(Exception):
    """An operation that the engine does not know; the message names it."""


@dataclass(frozen=True, eq=False)
class Call:
    """An operation of the graph that is being lowered.

    shape: of its result in torch; None for a list of tensors
    """

    program: Program
    node: Node
    shape: tuple[int, ...] | None

    def shape_of(self, position: int) -> tuple[int, ...]:
        """The shape in torch of an argument, which may be a plain number."""
        argument = self.node.args[position]
        if not isinstance(argument, Node):
            return ()
        return tuple(argument.meta["tensor_meta"].shape)

    def refuse_regions(self, position: int, axis: int) -> None:
        """Raises CannotLower where an axis of an argument is that of the regions."""
        if self.shape_of(position)[axis] == LANES:
            raise CannotLower(
                f"torch.ops.{self.node.target} along the regions: a drift must not "
                "mix regions"
            )


def numbers(program: Program, values: Any) -> np.ndarray:
    """Numbers as constants of the program, in an array of the same shape."""
    values = np.asarray(values, dtype=float)
    rows = np.empty(values.shape, dtype=object)
    for index in np.ndindex(*values.shape):
        rows[index] = program.const(float(values[index]))
    return rows
