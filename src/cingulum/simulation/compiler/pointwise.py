"""The traced functions as LLVM IR: one region in every lane, vector after vector."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from cingulum.simulation.compiler.ir import Code, Integer, Mask, Pointer, Vector
from cingulum.simulation.compiler.layout import (
    KernelSpec,
    gradient_slot,
    parameter_slot,
    table_integer,
    table_pointer,
)
from cingulum.simulation.compiler.mathematics import FUNCTIONS
from cingulum.simulation.compiler.ssa import LEAVES, Program
from cingulum.simulation.compiler.tracing import Form, Pointwise, Result

GRADIENT = "g."
"""How the names of gradients begin."""

OPERATIONS: dict[str, Callable[..., Any]] = {
    "neg": operator.neg,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "quotient": operator.truediv,
    "lt": operator.lt,
    "le": operator.le,
    "eq": Vector.equals,
    "and": operator.and_,
    "or": operator.or_,
    "not": operator.invert,
    "select": Mask.choose,
    **FUNCTIONS,
}
"""The small language's operations, on vectors."""


def arrays_of(function: Pointwise, form: Form) -> tuple[str, ...]:
    """The arrays that a pointwise function is given, in the order of its arguments.
    Parameters and their gradients come from the table instead."""
    names = [*function.inputs(), *(result.name for result in function.results)]
    arrays = {
        array_of(name)
        for name in names
        if name.removeprefix(GRADIENT) not in form.parameters
    }
    return tuple(sorted(arrays))


def array_of(name: str) -> str:
    """The array that a row such as `x.1` belongs to."""
    head, _, last = name.rpartition(".")
    # The paths of parameters have dots, too, but no numbers behind them.
    if head and last.isdigit():
        return head
    return name


def argument_of(array: str) -> str:
    """An array's name among the arguments of a function."""
    return array.replace(".", "_")


def pointwise_code(spec: KernelSpec, function: Pointwise) -> str:
    """A traced function for one simulation: all regions, vector after vector."""
    body = _Body(spec, function)
    body.load_parameters()
    gradients = body.gradients()
    # Before the loop: once per simulation instead of once per vector.
    body.compute_uniform_values()
    shape = spec.shape
    with body.code.loop(0, shape.vectors) as i:
        lane = i * shape.number_type.lanes
        body.compute_regional_values(lane)
        for result in function.results:
            # Gradients of parameters have places of their own.
            row = gradients.get(result.name) or body.row(result.name)
            body.store(result, row.at(lane))
    arrays = spec.arguments[function.name]
    arguments = "".join(f", ptr noalias %{argument_of(array)}" for array in arrays)
    return body.code.function(f"{function.name}(ptr noalias %A, i64 %sim{arguments})")


class _Body:
    """A traced function that is being written: which of its values are in registers.

    values: by their index in the program; parameters: where those lie that have one
        value per region; inverses: of values that are the same in every region
    """

    def __init__(self, spec: KernelSpec, function: Pointwise) -> None:
        self.spec = spec
        self.program = function.program
        self.results = function.results
        self.needed = function.needed()
        self.code = Code(spec.shape.number_type)
        self.simulation = self.code.argument("sim")
        self.uniform = uniform_values(self.program, self.needed, _shared_inputs(spec))
        self.values: dict[int, Any] = {}
        self.parameters: dict[str, Pointer] = {}
        self.inverses: dict[int, Vector] = {}

    def load_parameters(self) -> None:
        """Load what is the same in every region, and find where the others lie."""
        inputs = {self.program.operations[v].input: v for v in self.needed}
        # In the order of the table, not of use.
        for path in self.spec.form.parameters:
            value = inputs.get(path)
            if value is None:
                continue
            pointer = self._parameter(path)
            if value in self.uniform:
                self.values[value] = pointer.load_in_every_lane()
            else:
                self.parameters[path] = pointer

    def _parameter(self, path: str) -> Pointer:
        slot = parameter_slot(self.spec.form, path)
        address = table_pointer(self.code, slot)
        stride = table_integer(self.code, slot + 1)
        return address.at(self.simulation * stride)

    def gradients(self) -> dict[str, Pointer]:
        """Where the gradients of parameters are added up."""
        form, width = self.spec.form, self.spec.shape.width
        pointers = {}
        for result in self.results:
            path = result.name.removeprefix(GRADIENT)
            if path in form.parameters:
                address = table_pointer(self.code, gradient_slot(form, path))
                pointers[result.name] = address.at(self.simulation * width)
        return pointers

    def compute_uniform_values(self) -> None:
        for v in self.needed:
            if v in self.uniform and v not in self.values:
                self.values[v] = self._compute(v)

    def compute_regional_values(self, lane: Integer) -> None:
        for v in self.needed:
            if v in self.values:
                continue
            operation = self.program.operations[v]
            if operation.name == "input":
                name = operation.input
                row = self.parameters.get(name) or self.row(name)
                self.values[v] = row.at(lane).load()
            else:
                self.values[v] = self._compute(v)

    def row(self, name: str) -> Pointer:
        """The row of an argument: `x.1` is the second of the array `x`."""
        array = array_of(name)
        index = int(name.removeprefix(array).lstrip(".") or 0)
        pointer = self.code.pointer(argument_of(array))
        return pointer.at(index * self.spec.shape.width)

    def store(self, result: Result, place: Pointer) -> None:
        value = self.values[result.value]
        if result.adds:
            place.add(value)
        else:
            place.store(value)

    def _compute(self, v: int) -> Any:
        operation = self.program.operations[v]
        if operation.number is not None:
            return self.code.constant(operation.number)
        if operation.name == "div":
            return self._quotient(v, *operation.operands)
        operands = [self.values[operand] for operand in operation.operands]
        return OPERATIONS[operation.name](*operands)

    def _quotient(self, v: int, dividend: int, divisor: int) -> Vector:
        number = self.program.number(divisor)
        # Division takes several times as long as multiplication.
        if number is not None:
            return self.values[dividend] * (1 / number)
        if divisor in self.uniform and v not in self.uniform:
            return self.values[dividend] * self._inverse(divisor)
        return self.values[dividend] / self.values[divisor]

    def _inverse(self, v: int) -> Vector:
        """One division for all regions. Written in the loop, but the same each time
        round, so that the optimiser takes it out."""
        if v not in self.inverses:
            self.inverses[v] = 1.0 / self.values[v]
        return self.inverses[v]


def _shared_inputs(spec: KernelSpec) -> set[str]:
    """The parameters that have one value for all regions."""
    pairs = zip(spec.form.parameters, spec.shape.regional, strict=True)
    return {path for path, is_regional in pairs if not is_regional}


def uniform_values(
    program: Program, needed: list[int], shared_inputs: set[str]
) -> set[int]:
    """The values that are the same in every region."""
    uniform: set[int] = set()
    for v in needed:
        operation = program.operations[v]
        if operation.name in LEAVES:
            is_uniform = operation.name == "const" or operation.input in shared_inputs
        else:
            is_uniform = uniform.issuperset(operation.operands)
        if is_uniform:
            uniform.add(v)
    return uniform
