"""The rules for operations on whole arrays: moving axes, taking parts, sums and matrix
products along axes that are not the regions'."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.fx import Node

from cingulum.simulation.compiler.arithmetic import (
    as_mask,
    as_number,
    maximum,
    minimum,
)
from cingulum.simulation.compiler.graph_values import (
    LANES,
    Call,
    CannotLower,
    numbers,
)
from cingulum.simulation.compiler.ssa import Program

Rows: TypeAlias = Any
"""An array of values of the small language; the axis of the regions has length 1."""


def collapsed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape in torch as that of the rows."""
    return tuple(1 if length == LANES else length for length in shape)


# What changes no number.


def _same(call: Call, a: Any, *_: Any, **__: Any) -> Rows:
    return _rows(call.program, a)


def _rows(p: Program, value: Any) -> Rows:
    return value if isinstance(value, np.ndarray) else numbers(p, value)


def _cast(call: Call, a: Rows, *_: Any, **__: Any) -> Rows:
    """To another type: a fraction is lost where whole numbers are asked for. The type
    of the result itself is given to every operation alike."""
    source = call.node.args[0]
    to = call.node.meta["tensor_meta"].dtype
    is_fraction = (
        isinstance(source, Node)
        and source.meta["tensor_meta"].dtype.is_floating_point
        and not to.is_floating_point
        and to != torch.bool
    )
    if not is_fraction:
        return a
    return _each(call, lambda value: call.program.call("trunc", value), a)


def _each(call: Call, compute: Callable[[int], int], a: Rows) -> Rows:
    result = np.empty(a.shape, dtype=object)
    for index in np.ndindex(*a.shape):
        result[index] = compute(a[index])
    return result


# Moving axes.


def _reshape(call: Call, a: Rows, *_: Any, **__: Any) -> Rows:
    before, after = call.shape_of(0), call.shape or ()
    if _behind_regions(before) != _behind_regions(after):
        raise CannotLower(f"a view of {before} as {after} that mixes regions")
    return a.reshape(collapsed(after))


def _behind_regions(shape: tuple[int, ...]) -> int | None:
    """How many numbers lie between one region and the next; None without regions."""
    if LANES not in shape:
        return None
    return math.prod(shape[shape.index(LANES) + 1 :])


def _as_strided(
    call: Call, a: Rows, size: Any, stride: Sequence[int], offset: int | None = None
) -> Rows:
    """A view by distances in memory: each number is looked up where it lies."""
    return a[_places(call.shape_of(0), call.shape or (), stride, offset or 0)]


def _as_strided_scatter(
    call: Call,
    a: Rows,
    source: Rows,
    size: Any,
    stride: Sequence[int],
    offset: int | None = None,
) -> Rows:
    changed = a.copy()
    places = _places(call.shape_of(0), call.shape_of(1), stride, offset or 0)
    changed[places] = source
    return changed


def _places(
    base: tuple[int, ...], view: tuple[int, ...], stride: Sequence[int], offset: int
) -> tuple[np.ndarray, ...]:
    """Where the numbers of a view lie in the rows of its base, axis by axis."""
    distances = [math.prod(base[axis + 1 :]) for axis in range(len(base))]
    if LANES not in base or LANES not in view:
        raise CannotLower("as_strided without regions")
    region = base.index(LANES)
    if stride[view.index(LANES)] != distances[region]:
        raise CannotLower("as_strided that mixes regions")
    steps = np.indices(collapsed(view))
    flat = offset + np.tensordot(np.array(stride), steps, 1)
    places = np.unravel_index(flat.astype(int), base)
    if places[region].any():
        raise CannotLower("as_strided that mixes regions")
    return places


def _expand(call: Call, a: Any, *_: Any, **__: Any) -> Rows:
    return np.broadcast_to(_rows(call.program, a), collapsed(call.shape or ()))


def _permute(call: Call, a: Rows, dims: Sequence[int]) -> Rows:
    return np.transpose(a, [int(dim) for dim in dims])


def _transpose(call: Call, a: Rows, first: int, second: int) -> Rows:
    return np.swapaxes(a, first, second)


def _t(call: Call, a: Rows) -> Rows:
    return np.transpose(a)


def _flip(call: Call, a: Rows, dims: Sequence[int]) -> Rows:
    for dim in dims:
        call.refuse_regions(0, dim)
    return np.flip(a, tuple(dims))


def _roll(call: Call, a: Rows, shifts: Any, dims: Any = ()) -> Rows:
    axes = [int(dim) for dim in np.atleast_1d(dims)]
    if not axes:
        raise CannotLower("roll without dims")
    for axis in axes:
        call.refuse_regions(0, axis)
    return np.roll(a, [int(shift) for shift in np.atleast_1d(shifts)], axes)


def _repeat(call: Call, a: Rows, counts: Sequence[int]) -> Rows:
    shape = call.shape_of(0)
    aligned = (1,) * (len(counts) - len(shape)) + shape
    for length, count in zip(aligned, counts, strict=True):
        if length == LANES and count != 1:
            raise CannotLower("repeating the regions")
        if length == 1 and count == LANES:
            # One number that is given to every region.
            counts = [1 if c == LANES else c for c in counts]
    return np.tile(a, [int(count) for count in counts])


def _pad(call: Call, a: Rows, widths: Sequence[int], value: float = 0.0) -> Rows:
    filled = call.program.const(float(value))
    # torch names them from the last axis to the first.
    for i in range(len(widths) // 2):
        axis = a.ndim - 1 - i
        before, after = int(widths[2 * i]), int(widths[2 * i + 1])
        if before or after:
            call.refuse_regions(0, axis)
        # Negative widths cut off, as the gradient of padding does.
        kept = slice(max(-before, 0), a.shape[axis] - max(-after, 0))
        a = a[_along(a, axis, kept)]
        added = [(0, 0)] * a.ndim
        added[axis] = (max(before, 0), max(after, 0))
        a = np.pad(a, added, constant_values=filled)
    return a


# Joining and taking parts.


def _stack(call: Call, tensors: list, dim: int = 0) -> Rows:
    rows = np.broadcast_arrays(*(_rows(call.program, tensor) for tensor in tensors))
    return np.stack(rows, dim)


def _cat(call: Call, tensors: list, dim: int = 0) -> Rows:
    first: Any = call.node.args[0]
    shapes = [tuple(node.meta["tensor_meta"].shape) for node in first]
    if any(shape[dim] == LANES for shape in shapes if shape != (0,)):
        raise CannotLower("joining tensors along the regions")
    # torch leaves out empty tensors of whatever shape.
    kept = [t for t, shape in zip(tensors, shapes, strict=True) if shape != (0,)]
    return np.concatenate(kept, dim)


def _unbind(call: Call, a: Rows, dim: int = 0) -> list[Rows]:
    call.refuse_regions(0, dim)
    return [_take(a, i, dim) for i in range(a.shape[dim])]


def _take(a: Rows, i: int, axis: int) -> Rows:
    axis = axis % a.ndim
    # Assigned rather than returned: without axes, numpy would give a plain number.
    part = np.empty(a.shape[:axis] + a.shape[axis + 1 :], dtype=object)
    part[...] = a[_along(a, axis, i)]
    return part


def _along(a: Rows, axis: int, index: Any) -> tuple:
    """An index along one axis; everything along the others."""
    return (*[slice(None)] * (axis % a.ndim), index, ...)


def _select(call: Call, a: Rows, dim: int, index: int) -> Rows:
    call.refuse_regions(0, dim)
    return _take(a, index, dim)


def _slice(
    call: Call,
    a: Rows,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Rows:
    # `[..., :]` changes nothing.
    if call.shape == call.shape_of(0):
        return a
    call.refuse_regions(0, dim)
    return a[_along(a, dim, slice(start, end, step))]


def _split(call: Call, a: Rows, sizes: Sequence[int], dim: int = 0) -> list[Rows]:
    call.refuse_regions(0, dim)
    ends = np.cumsum([int(size) for size in sizes])
    return np.split(a, ends[:-1], dim)


def _select_backward(call: Call, grad: Rows, sizes: list, dim: int, index: int) -> Rows:
    full = _zeros(call)
    full[_along(full, dim, index)] = grad
    return full


def _slice_backward(
    call: Call, grad: Rows, sizes: list, dim: int, start: int, end: int, step: int
) -> Rows:
    full = _zeros(call)
    full[_along(full, dim, slice(start, end, step))] = grad
    return full


def _zeros(call: Call) -> Rows:
    return _full(call, 0.0)


def _full(call: Call, number: Any) -> Rows:
    return numbers(call.program, np.full(collapsed(call.shape or ()), number))


def _select_scatter(call: Call, a: Rows, source: Rows, dim: int, index: int) -> Rows:
    call.refuse_regions(0, dim)
    changed = a.copy()
    changed[_along(a, dim, index)] = source
    return changed


def _slice_scatter(
    call: Call,
    a: Rows,
    source: Rows,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Rows:
    if call.shape_of(1) == call.shape_of(0):
        return source
    call.refuse_regions(0, dim)
    changed = a.copy()
    changed[_along(a, dim, slice(start, end, step))] = source
    return changed


def _index(call: Call, a: Rows, indices: Sequence[Rows | None]) -> Rows:
    return a[_whole_indices(call, indices)]


def _index_put(
    call: Call,
    a: Rows,
    indices: Sequence[Rows | None],
    values: Rows,
    accumulate: bool = False,
) -> Rows:
    changed, places = a.copy(), np.arange(a.size).reshape(a.shape)
    chosen = places[_whole_indices(call, indices)]
    source: Rows = np.broadcast_to(values, chosen.shape)
    flat = changed.reshape(-1)
    for index in np.ndindex(*chosen.shape):
        value, place = source[index], chosen[index]
        flat[place] = call.program.add(flat[place], value) if accumulate else value
    return flat.reshape(a.shape)


def _whole_indices(call: Call, indices: Sequence[Rows | None]) -> tuple:
    """Tensors of constants as numpy takes them for an index."""
    shape, nodes = call.shape_of(0), call.node.args[1]
    result: list[Any] = []
    axis = 0
    for index, node in zip(indices, nodes, strict=True):  # type: ignore[arg-type]
        if index is None:
            result.append(slice(None))
            axis += 1
            continue
        tensor = _constant_tensor(node)
        places = _constants(call, index).astype(int) if tensor is None else tensor
        # A mask of several axes stands for as many of them.
        axes = places.ndim if places.dtype == bool else 1
        if LANES in shape[axis : axis + axes]:
            raise CannotLower("a choice of regions: a drift must not mix regions")
        result.append(places)
        axis += axes
    return tuple(result)


def _constant_tensor(node: Any) -> np.ndarray | None:
    """The tensor of constants that a node stands for, if it is one."""
    if node.op == "get_attr":
        return node.meta["tensor_meta"].detach().cpu().numpy()
    name = str(node.target)
    if name.startswith(("aten.lift_fresh_copy", "aten.clone", "aten.detach")):
        return _constant_tensor(node.args[0])
    return None


def _constants(call: Call, rows: Rows) -> np.ndarray:
    """The numbers that rows are. Raises CannotLower where they depend on states or
    parameters."""
    found = [call.program.number(value) for value in rows.reshape(-1)]
    if any(number is None for number in found):
        raise CannotLower(f"torch.ops.{call.node.target} by a value that changes")
    return np.array(found, dtype=float).reshape(rows.shape)


def _index_select(call: Call, a: Rows, dim: int, index: Rows) -> Rows:
    call.refuse_regions(0, dim)
    return np.take(a, _constants(call, index).astype(int), dim)


def _gather(call: Call, a: Rows, dim: int, index: Rows, **_: Any) -> Rows:
    """Parts at places that are values: a choice among all of them."""
    call.refuse_regions(0, dim)
    p = call.program
    moved, places = np.moveaxis(a, dim, 0), np.moveaxis(index, dim, 0)
    result = np.empty(places.shape, dtype=object)
    for at in np.ndindex(*places.shape):
        chosen = moved[(0, *at[1:])]
        for i in range(1, moved.shape[0]):
            is_here = p.call("eq", places[at], p.const(i))
            chosen = p.call("select", is_here, moved[(i, *at[1:])], chosen)
        result[at] = chosen
    return np.moveaxis(result, 0, dim)


def _scatter(call: Call, a: Rows, dim: int, index: Rows, source: Any) -> Rows:
    call.refuse_regions(0, dim)
    p, changed = call.program, np.moveaxis(a.copy(), dim, 0)
    source = np.broadcast_to(_rows(p, source), index.shape)
    places, values = np.moveaxis(index, dim, 0), np.moveaxis(source, dim, 0)
    for at in np.ndindex(*places.shape):
        for i in range(changed.shape[0]):
            is_here = p.call("eq", places[at], p.const(i))
            before = changed[(i, *at[1:])]
            changed[(i, *at[1:])] = p.call("select", is_here, values[at], before)
    return np.moveaxis(changed, 0, dim)


def _eye(call: Call, *_: Any, **__: Any) -> Rows:
    _refuse_region_numbers(call)
    rows, columns = call.shape or (0, 0)
    return numbers(call.program, np.eye(rows, columns))


def _arange(call: Call, *bounds: Any, **__: Any) -> Rows:
    _refuse_region_numbers(call)
    return numbers(call.program, np.arange(*map(float, bounds)))


def _iota(call: Call, length: int, *, start: int, step: int, **__: Any) -> Rows:
    _refuse_region_numbers(call)
    return numbers(call.program, start + step * np.arange(length))


def _linspace(call: Call, start: float, end: float, steps: int, **__: Any) -> Rows:
    _refuse_region_numbers(call)
    return numbers(call.program, np.linspace(start, end, steps))


def _refuse_region_numbers(call: Call) -> None:
    if LANES in (call.shape or ()):
        raise CannotLower("numbers that depend on a region's position")


# Along axes that are not the regions'.


def _axes(call: Call, dims: Any) -> list[int]:
    """Axes to reduce, the last first, so that those still to come keep their place.
    Without axes torch takes all of them, the regions' too."""
    count = len(call.shape_of(0))
    chosen = list(range(count))
    if dims is not None and np.size(dims):
        chosen = [int(dim) % count for dim in np.atleast_1d(dims)]
    for axis in chosen:
        call.refuse_regions(0, axis)
    return sorted(chosen, reverse=True)


def _reduced(
    call: Call, join: Callable[[int, int], int], a: Rows, dims: Any, keepdim: bool
) -> Rows:
    for axis in _axes(call, dims):
        parts = [_take(a, i, axis) for i in range(a.shape[axis])]
        a = reduce(lambda x, y: _pairs(join, x, y), parts)
        if keepdim:
            a = np.expand_dims(a, axis)
    return a


def _pairs(join: Callable[[int, int], int], a: Rows, b: Rows) -> Rows:
    a, b = np.broadcast_arrays(a, b)
    result = np.empty(a.shape, dtype=object)
    for index in np.ndindex(*a.shape):
        result[index] = join(a[index], b[index])
    return result


def _numbers_of(call: Call, a: Rows) -> Rows:
    return _each(call, lambda value: as_number(call.program, value), a)


def _sum(
    call: Call, a: Rows, dims: Any = None, keepdim: bool = False, **_: Any
) -> Rows:
    if a.size == 0:
        return _zeros(call)
    return _reduced(call, call.program.add, _numbers_of(call, a), dims, keepdim)


def _prod(
    call: Call, a: Rows, dims: Any = None, keepdim: bool = False, **_: Any
) -> Rows:
    return _reduced(call, call.program.mul, _numbers_of(call, a), dims, keepdim)


def _mean(
    call: Call, a: Rows, dims: Any = None, keepdim: bool = False, **_: Any
) -> Rows:
    p = call.program
    count = math.prod(a.shape[axis] for axis in _axes(call, dims))
    total = _sum(call, a, dims, keepdim)
    return _each(call, lambda value: p.div(value, p.const(count)), total)


def _variance(
    call: Call,
    a: Rows,
    dims: Any = None,
    *,
    correction: float | None = None,
    keepdim: bool = False,
) -> Rows:
    p = call.program
    count = math.prod(a.shape[axis] for axis in _axes(call, dims))
    mean = _reduced(call, p.add, a, dims, True)
    mean = _each(call, lambda value: p.div(value, p.const(count)), mean)
    from_mean = _pairs(p.sub, a, mean)
    squares = _each(call, lambda value: p.mul(value, value), from_mean)
    total = _reduced(call, p.add, squares, dims, keepdim)
    # torch divides by n - 1 unless told otherwise.
    freedom = max(count - (1 if correction is None else correction), 0)
    return _each(call, lambda value: p.call("quotient", value, p.const(freedom)), total)


def _norm(
    call: Call, a: Rows, order: float = 2, dims: Any = None, keepdim: bool = False
) -> Rows:
    if order != 2:
        raise CannotLower(f"a norm of order {order}")
    p = call.program
    squares = _each(call, lambda value: p.mul(value, value), a)
    total = _reduced(call, p.add, squares, dims, keepdim)
    return _each(call, lambda value: p.call("sqrt", value), total)


def _extreme(join: Callable[[Program, int, int], int]) -> Callable[..., Rows]:
    def rule(call: Call, a: Rows, dims: Any = None, keepdim: bool = False) -> Rows:
        p = call.program
        return _reduced(
            call, lambda x, y: join(p, x, y), _numbers_of(call, a), dims, keepdim
        )

    return rule


def _extreme_and_place(is_better: str) -> Callable[..., list[Rows]]:
    """max and min along an axis: values and the first index at which they are."""

    def rule(call: Call, a: Rows, dim: int, keepdim: bool = False) -> list[Rows]:
        call.refuse_regions(0, dim)
        p, a = call.program, _numbers_of(call, a)
        best, place = (
            _take(a, 0, dim),
            _each(call, lambda _: p.const(0), _take(a, 0, dim)),
        )
        for i in range(1, a.shape[dim]):
            part = _take(a, i, dim)
            for index in np.ndindex(*part.shape):
                pair = part[index], best[index]
                test = p.call("lt", *(pair if is_better == "lt" else pair[::-1]))
                best[index] = p.call("select", test, part[index], best[index])
                place[index] = p.call("select", test, p.const(i), place[index])
        if keepdim:
            best, place = np.expand_dims(best, dim), np.expand_dims(place, dim)
        return [best, place]

    return rule


def _place(is_better: str) -> Callable[..., Rows]:
    both = _extreme_and_place(is_better)

    def rule(
        call: Call, a: Rows, dim: int | None = None, keepdim: bool = False
    ) -> Rows:
        if dim is None:
            raise CannotLower(f"torch.ops.{call.node.target} without dim")
        return both(call, a, dim, keepdim)[1]

    return rule


def _truths(name: str) -> Callable[..., Rows]:
    """any and all."""

    def rule(call: Call, a: Rows, dims: Any = None, keepdim: bool = False) -> Rows:
        p = call.program
        masks = _each(call, lambda value: as_mask(p, value), a)
        return _reduced(call, lambda x, y: p.call(name, x, y), masks, dims, keepdim)

    return rule


def _running(join: str) -> Callable[..., Rows]:
    """cumsum and cumprod."""

    def rule(call: Call, a: Rows, dim: int, **_: Any) -> Rows:
        call.refuse_regions(0, dim)
        apply = getattr(call.program, join)
        a = _numbers_of(call, a)
        parts = [_take(a, 0, dim)]
        for i in range(1, a.shape[dim]):
            parts.append(_pairs(apply, parts[-1], _take(a, i, dim)))
        return np.stack(parts, dim)

    return rule


def _softmax(call: Call, a: Rows, dim: int, *_: Any) -> Rows:
    p, shifted = call.program, _below_largest(call, a, dim)
    powers = _each(call, lambda value: p.call("exp", value), shifted)
    total = _reduced(call, p.add, powers, dim, True)
    return _pairs(p.div, powers, total)


def _log_softmax(call: Call, a: Rows, dim: int, *_: Any) -> Rows:
    p, shifted = call.program, _below_largest(call, a, dim)
    powers = _each(call, lambda value: p.call("exp", value), shifted)
    total = _reduced(call, p.add, powers, dim, True)
    logarithm = _each(call, lambda value: p.call("log", value), total)
    return _pairs(p.sub, shifted, logarithm)


def _below_largest(call: Call, a: Rows, dim: int) -> Rows:
    """What exp does not overflow of."""
    p = call.program
    largest = _reduced(call, lambda x, y: maximum(p, x, y), a, dim, True)
    return _pairs(p.sub, a, largest)


# Matrix products.


def _product(call: Call, a: Rows, b: Rows, first: int = 0) -> Rows:
    """a @ b, the arguments from `first`; sums over an axis that is not the regions'."""
    shape = call.shape_of(first)
    if shape[-1] == LANES:
        raise CannotLower("a matrix product over regions: a drift must not mix regions")
    p = call.program
    a, b = _numbers_of(call, a), _numbers_of(call, b)
    terms = _pairs(p.mul, a[..., :, :, None], b[..., None, :, :])
    parts = [_take(terms, i, -2) for i in range(terms.shape[-2])]
    return reduce(lambda x, y: _pairs(p.add, x, y), parts)


def _mv(call: Call, a: Rows, b: Rows) -> Rows:
    return _product(call, a, b[:, None])[:, 0]


def _dot(call: Call, a: Rows, b: Rows) -> Rows:
    return _product(call, a[None, :], b[:, None])[0, 0:1].reshape(())


def _addmm(
    call: Call, added: Rows, a: Rows, b: Rows, *, beta: float = 1, alpha: float = 1
) -> Rows:
    p = call.program
    product = _each(
        call, lambda v: p.mul(v, p.const(alpha)), _product(call, a, b, first=1)
    )
    scaled = _each(call, lambda v: p.mul(v, p.const(beta)), added)
    return _pairs(p.add, scaled, product)


ARRAYS: dict[str, Callable] = {
    "stack": _stack,
    "cat": _cat,
    "unbind": _unbind,
    "select": _select,
    "slice": _slice,
    "split_with_sizes": _split,
    "select_backward": _select_backward,
    "slice_backward": _slice_backward,
    "select_scatter": _select_scatter,
    "slice_scatter": _slice_scatter,
    "index": _index,
    "index_put": _index_put,
    "index_select": _index_select,
    "gather": _gather,
    "scatter": _scatter,
    "sum": _sum,
    "mean": _mean,
    "prod": _prod,
    "var": _variance,
    "linalg_vector_norm": _norm,
    "amax": _extreme(maximum),
    "amin": _extreme(minimum),
    "max": _extreme_and_place("gt"),
    "min": _extreme_and_place("lt"),
    "argmax": _place("gt"),
    "argmin": _place("lt"),
    "any": _truths("or"),
    "all": _truths("and"),
    "cumsum": _running("add"),
    "cumprod": _running("mul"),
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "mm": _product,
    "bmm": _product,
    "mv": _mv,
    "dot": _dot,
    "addmm": _addmm,
    "unsqueeze": _reshape,
    "squeeze": _reshape,
    "view": _reshape,
    "_unsafe_view": _reshape,
    "reshape": _reshape,
    "as_strided": _as_strided,
    "as_strided_scatter": _as_strided_scatter,
    "expand": _expand,
    "permute": _permute,
    "transpose": _transpose,
    "t": _t,
    "flip": _flip,
    "roll": _roll,
    "repeat": _repeat,
    "constant_pad_nd": _pad,
    "clone": _same,
    "detach": _same,
    "alias": _same,
    "lift_fresh_copy": _same,
    "contiguous": _same,
    "_to_copy": _cast,
    "prims.convert_element_type": _cast,
    "zeros_like": lambda call, *_, **__: _full(call, 0.0),
    "ones_like": lambda call, *_, **__: _full(call, 1.0),
    "full_like": lambda call, a, number, **__: _full(call, number),
    "new_zeros": lambda call, *_, **__: _full(call, 0.0),
    "new_ones": lambda call, *_, **__: _full(call, 1.0),
    "new_full": lambda call, a, size, number, **__: _full(call, number),
    "zeros": lambda call, *_, **__: _full(call, 0.0),
    "ones": lambda call, *_, **__: _full(call, 1.0),
    "full": lambda call, size, number, **__: _full(call, number),
    "scalar_tensor": lambda call, number, **__: _full(call, number),
    "copy": lambda call, a, b, *_: _expand(call, b),
    "fill": lambda call, a, number: _expand(call, number),
    # What is in an empty tensor is written before it is read.
    "empty": lambda call, *_, **__: _full(call, 0.0),
    "empty_like": lambda call, *_, **__: _full(call, 0.0),
    "empty_permuted": lambda call, *_, **__: _full(call, 0.0),
    "new_empty": lambda call, *_, **__: _full(call, 0.0),
    "new_empty_strided": lambda call, *_, **__: _full(call, 0.0),
    "eye": _eye,
    "arange": _arange,
    "linspace": _linspace,
    "prims.iota": _iota,
}
"""By torch's names (torch.ops.aten)."""
