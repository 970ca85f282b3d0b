"""From a traced torch graph to the small language: one value for every number of a
tensor that does not depend on the region.

A tensor of the graph becomes an array of values with the same axes, in which the axis
of the regions has length 1. Whatever only moves axes about is therefore numpy's work,
elementwise operations broadcast as in torch, and constants of any shape keep their
meaning. Numbers keep the type that torch gives them: truth values are masks, whole
numbers are whole, and what torch rounds to float32 is rounded.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from cingulum.simulation.compiler.arithmetic import ELEMENTWISE, as_mask, as_number
from cingulum.simulation.compiler.axes import ARRAYS, collapsed
from cingulum.simulation.compiler.graph_values import (
    LANES,
    Call,
    CannotLower,
    numbers,
)
from cingulum.simulation.compiler.ssa import Program

WHOLE = (torch.int64, torch.int32)
"""Types of whole numbers; smaller ones overflow, which the engine does not."""


def lower(
    graph: torch.fx.GraphModule, names: list[str], program: Program
) -> list[np.ndarray]:
    """Values of the graph's results, as arrays over all axes but the regions', which is
    the last.

    names: one per input of the graph, in order; an input of shape (k, LANES) becomes
        the inputs `name.0` … `name.k-1`

    Raises CannotLower for an operation it does not know, or one in which regions see
    each other.
    """
    values: dict[Node, Any] = {}
    input_names = iter(names)
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            shape = node.meta["tensor_meta"].shape
            values[node] = _input(program, next(input_names), shape)
        elif node.op == "get_attr":
            constant = getattr(graph, node.target)
            # A tensor has the shape and the type that the meta data of others have.
            node.meta["tensor_meta"] = constant
            values[node] = _constant(program, constant)
        elif node.op == "call_function":
            values[node] = _apply(program, node, values)
        elif node.op == "output":
            return [_result(program, node, values) for node in _results(node)]
    raise CannotLower("a graph without result")


def _results(output: Node) -> Sequence[Any]:
    """The nodes that a graph returns."""
    results: Any = output.args[0]
    return results if isinstance(results, tuple | list) else [results]


def _result(p: Program, node: Node, values: dict[Node, Any]) -> np.ndarray:
    rows = values[node]
    shape = _shape(node)
    if shape is not None and shape[-1:] != (LANES,):
        raise CannotLower(f"a result of shape {shape} whose last axis is no region's")
    # A mass may return a condition: its truth values count as 1 and 0.
    return _each(as_number, p, rows)[..., 0]


def _input(program: Program, name: str, shape: torch.Size) -> np.ndarray:
    rows = np.empty(collapsed(tuple(shape)), dtype=object)
    for index in np.ndindex(*rows.shape):
        # The last index is that of the region.
        rows[index] = program.input(".".join([name, *map(str, index[:-1])]))
    return rows


def _constant(program: Program, tensor: Tensor) -> np.ndarray:
    # Only by chance would a constant have as many values as the traced regions, so this
    # is one that the mass built from the shape of its input.
    if LANES in tensor.shape:
        raise CannotLower(
            "a constant tensor with one value per region (declare it as a parameter)"
        )
    values = numbers(program, tensor.detach().cpu().double().numpy())
    return _of_type(program, values, tensor.dtype)


def _apply(p: Program, node: Node, values: dict[Node, Any]) -> Any:
    arguments = torch.fx.node.map_arg(node.args, values.__getitem__)
    options = torch.fx.node.map_arg(node.kwargs, values.__getitem__)
    if node.target is operator.getitem:
        # One of the several tensors that an operation such as unbind returned.
        tensors: Any
        tensors, position = arguments
        return _checked(p, node, tensors[position])
    name = str(node.target).removeprefix("aten.")
    operation, _, _ = name.partition(".")
    if name.startswith("prims."):
        operation = ".".join(name.split(".")[:2])
    call = Call(p, node, _shape(node))
    if operation in ELEMENTWISE:
        result = _elementwise(call, operation, arguments, options)
    elif operation in ARRAYS:
        result = _array_operation(call, operation, arguments, options)
    else:
        raise CannotLower(f"torch.ops.{node.target}")
    return _checked(p, node, result)


def _array_operation(
    call: Call, operation: str, arguments: tuple, options: dict
) -> Any:
    try:
        return ARRAYS[operation](call, *arguments, **options)
    # Another form of the operation than the rule is written for.
    except (TypeError, ValueError) as error:
        raise CannotLower(f"torch.ops.{call.node.target} ({error})") from error


def _shape(node: Node) -> tuple[int, ...] | None:
    """The shape of an operation's result; None for a list of tensors."""
    shape = getattr(node.meta.get("tensor_meta"), "shape", None)
    return tuple(shape) if isinstance(shape, torch.Size) else None


def _checked(p: Program, node: Node, rows: Any) -> Any:
    """An operation's result with the type that torch gives it. Raises CannotLower where
    its shape is not torch's, or regions see each other."""
    shape = _shape(node)
    # A list of tensors is checked when one of them is taken.
    if shape is None:
        return rows
    if shape.count(LANES) > 1:
        raise CannotLower("an operation between regions: a drift must not mix regions")
    if rows.shape != collapsed(shape):
        raise CannotLower(f"torch.ops.{node.target} with a result of shape {shape}")
    return _of_type(p, rows, node.meta["tensor_meta"].dtype)


def _of_type(p: Program, rows: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    if dtype == torch.bool:
        return _each(as_mask, p, rows)
    if dtype == torch.float64 or dtype in WHOLE:
        return _each(as_number, p, rows)
    if dtype == torch.float32:
        return _each(_rounded_to_float32, p, rows)
    raise CannotLower(f"numbers of type {dtype}")


def _rounded_to_float32(p: Program, value: int) -> int:
    return p.to_float32(as_number(p, value))


def _each(convert: Any, p: Program, rows: np.ndarray) -> np.ndarray:
    result = np.empty(rows.shape, dtype=object)
    for index in np.ndindex(*rows.shape):
        result[index] = convert(p, rows[index])
    return result


def _elementwise(
    call: Call, operation: str, arguments: tuple, options: dict
) -> np.ndarray:
    """Apply a rule on values, broadcasting; None (an absent bound, say) is handed
    on."""
    p, rule = call.program, ELEMENTWISE[operation]
    if rule.of_truth_values and not all(map(_is_truth, call.node.all_input_nodes)):
        raise CannotLower(f"torch.ops.{call.node.target} of whole numbers")
    operands = [_operand(p, argument) for argument in arguments]
    if _computes_in_float32(call.node):
        operands = [_in_float32(p, operand) for operand in operands]
    shapes = [a.shape for a in operands if isinstance(a, np.ndarray)]
    shape = np.broadcast_shapes(*shapes)
    broadcast = [_broadcast(operand, shape) for operand in operands]
    result = np.empty(shape, dtype=object)
    for index in np.ndindex(*shape):
        values = [_element(operand, index) for operand in broadcast]
        result[index] = rule(p, *values, **options)
    return result


def _computes_in_float32(node: Node) -> bool:
    """Whether torch brings the operands of an operation to float32 first, plain numbers
    among them."""
    inputs = [n.meta["tensor_meta"] for n in node.all_input_nodes]
    if not any(meta.dtype == torch.float32 for meta in inputs):
        return False
    # A tensor without axes does not decide the type of one with axes.
    with_axes = [meta for meta in inputs if len(meta.shape)] or inputs
    return all(meta.dtype != torch.float64 for meta in with_axes)


def _in_float32(p: Program, operand: Any) -> Any:
    if isinstance(operand, np.ndarray):
        return _each(_rounded_unless_truth, p, operand)
    return operand


def _rounded_unless_truth(p: Program, value: int) -> int:
    return value if p.is_bool(value) else p.to_float32(value)


def _is_truth(node: Node) -> bool:
    return node.meta["tensor_meta"].dtype == torch.bool


def _operand(p: Program, argument: Any) -> Any:
    if argument is None or isinstance(argument, str):
        return argument
    return argument if isinstance(argument, np.ndarray) else numbers(p, argument)


def _broadcast(operand: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(operand, np.ndarray):
        return np.broadcast_to(operand, shape)
    return operand


def _element(operand: Any, index: tuple[int, ...]) -> Any:
    return operand[index] if isinstance(operand, np.ndarray) else operand
