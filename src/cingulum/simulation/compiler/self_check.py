"""A traced function once more in numbers, beside the code that it was traced from.

Whatever tracing may have taken for a constant (the number of regions, a choice made in
Python) and whatever a rule may have got wrong shows as another number: such equations
are left to the reference engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cingulum.simulation.compiler.graph_values import CannotLower
from cingulum.simulation.compiler.ssa import Operation, Program

REGIONS = 47
"""Another number than while tracing, so that equations which depend on it differ."""

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""Tolerance: formulas that differ in their rounding agree far better, other equations
far worse."""

OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "neg": torch.neg,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "quotient": torch.div,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "select": torch.where,
    "rint": torch.round,
    "float32": lambda x: x.float().double(),
    **{
        name: getattr(torch, name)
        for name in (
            "exp expm1 log log1p sin cos sqrt abs floor ceil trunc fmod hypot atan2 "
            "atan asin acos asinh acosh atanh erf erfc lgamma"
        ).split()
    },
}
"""The small language, in torch."""


def sample(rows: int | None, generator: torch.Generator) -> Tensor:
    """Values of an input, another in every region: half of them where gating variables
    are, the others on both sides of 0, near and far."""
    shape = (REGIONS,) if rows is None else (rows, REGIONS)
    inside = torch.rand(shape, generator=generator, dtype=torch.float64)
    around = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = inside
    third, sixth = REGIONS // 3, REGIONS // 6
    values[..., :third] = 2 * around[..., :third]
    values[..., :sixth] = 30 * around[..., :sixth]
    return values


def sample_like(tensor: Tensor) -> Tensor:
    """Gradients of a result, another in every region."""
    generator = torch.Generator().manual_seed(1)
    shape = (*tensor.shape[:-1], REGIONS)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def run_program(
    program: Program, results: Sequence[int], inputs: dict[str, Tensor]
) -> Any:
    """The values of a program's results; inputs by the names of their rows."""
    values: dict[int, Tensor] = {}
    for index in program.needed(list(results)):
        values[index] = _value(program.operations[index], values, inputs)
    return [values[index].expand(REGIONS) for index in results]


def _value(
    operation: Operation, values: dict[int, Tensor], inputs: dict[str, Tensor]
) -> Tensor:
    if operation.name == "input":
        return inputs[operation.input]
    if operation.number is not None:
        return torch.tensor(operation.number, dtype=torch.float64)
    operands = [values[operand] for operand in operation.operands]
    return OPERATIONS[operation.name](*operands)


def by_row(names: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors as the rows that the program's inputs are called after."""
    rows: dict[str, Tensor] = {}
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.ndim == 1:
            rows[name] = tensor
            continue
        for i, row in enumerate(tensor):
            rows[f"{name}.{i}"] = row
    return rows


def check_traced(
    program: Program,
    names: Sequence[str],
    tensors: Sequence[Tensor],
    traced: Sequence[Any],
    expected: Sequence[Tensor],
) -> None:
    """Raises CannotLower where a program gives other numbers than the code that it was
    traced from.

    names, tensors: of the inputs
    traced: arrays of values for each result; expected: the results of the code
    """
    inputs = by_row(names, tensors)
    for rows, result in zip(traced, expected, strict=True):
        wanted = result.reshape(-1, REGIONS).double()
        values = torch.stack(run_program(program, list(rows.reshape(-1)), inputs))
        # Far outside of its domain, a mass may overflow on the way in one order only.
        matters = torch.isfinite(wanted)
        scale = wanted.abs() * RELATIVE + ABSOLUTE
        differs = ((values - wanted).abs() <= scale).logical_not() & matters
        if differs.any():
            raise CannotLower(
                "code that gives other numbers once it is traced (does it use the "
                "number of regions, or choose by a value?)"
            )
