"""The rules for operations on single numbers: torch's name, and what it is in the small
language."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cingulum.simulation.compiler.graph_values import CannotLower
from cingulum.simulation.compiler.ssa import Program


def as_mask(p: Program, value: int) -> int:
    """A number as a truth value: whether it is not 0."""
    if p.is_bool(value):
        return value
    return p.call("not", p.call("eq", value, p.const(0.0)))


def as_number(p: Program, value: int) -> int:
    """A truth value as 1 or 0; a number as it is."""
    if p.is_bool(value):
        return p.call("select", value, p.const(1.0), p.const(0.0))
    return value


@dataclass(frozen=True)
class Rule:
    """What an operation does with values; options are torch's keyword arguments.

    masks: how many operands, from the first, are truth values; the others are numbers
    of_truth_values: whether it is known for truth values only (bitwise operations,
        which mean something else for whole numbers)
    """

    compute: Callable[..., int]
    masks: int = 0
    of_truth_values: bool = False

    def __call__(self, p: Program, *values: int | None, **options: object) -> int:
        operands: list[Any] = []
        for position, value in enumerate(values):
            if value is None or isinstance(value, str):
                operands.append(value)
                continue
            convert = as_mask if position < self.masks else as_number
            operands.append(convert(p, value))
        return self.compute(p, *operands, **options)


def _add(p: Program, a: int, b: int, alpha: float = 1) -> int:
    return p.add(a, p.mul(b, p.const(alpha)))


def _sub(p: Program, a: int, b: int, alpha: float = 1) -> int:
    return p.sub(a, p.mul(b, p.const(alpha)))


def _div(p: Program, a: int, b: int, rounding_mode: str | None = None) -> int:
    if rounding_mode is None:
        return p.div(a, b)
    if rounding_mode == "trunc":
        return p.call("trunc", p.call("quotient", a, b))
    if rounding_mode == "floor":
        return _floor_divide(p, a, b)
    raise CannotLower(f"div with rounding_mode={rounding_mode!r}")


def _remainder(p: Program, a: int, b: int) -> int:
    """With the sign of the divisor, as Python's %."""
    rest = p.call("fmod", a, b)
    return p.call("select", _is_of_other_sign(p, rest, b), p.add(rest, b), rest)


def _is_of_other_sign(p: Program, rest: int, b: int) -> int:
    zero = p.const(0.0)
    is_negative, divides_negative = p.call("lt", rest, zero), p.call("lt", b, zero)
    is_zero = p.call("eq", rest, zero)
    return p.call("and", p.call("not", is_zero), _xor(p, is_negative, divides_negative))


def _floor_divide(p: Program, a: int, b: int) -> int:
    # From the exact remainder: floor(a / b) would round the quotient up first.
    rest = p.call("fmod", a, b)
    quotient = p.call("rint", p.call("quotient", p.sub(a, rest), b))
    below = p.sub(quotient, p.const(1.0))
    result = p.call("select", _is_of_other_sign(p, rest, b), below, quotient)
    by_zero = p.call("eq", b, p.const(0.0))
    return p.call("select", by_zero, p.call("quotient", a, b), result)


def _round(p: Program, x: int, decimals: int = 0) -> int:
    if decimals == 0:
        return p.call("rint", x)
    scale = p.const(10.0 ** abs(decimals))
    if decimals > 0:
        return p.call("quotient", p.call("rint", p.mul(x, scale)), scale)
    return p.mul(p.call("rint", p.call("quotient", x, scale)), scale)


def _sigmoid(p: Program, x: int) -> int:
    # At the far left exp overflows to infinity, and 1 / infinity is the right 0.
    unit = p.const(1.0)
    return p.div(unit, p.add(unit, p.call("exp", p.neg(x))))


def _tanh(p: Program, x: int) -> int:
    # expm1 keeps the precision near 0 that exp would lose:
    # tanh = e / (e + 2) with e = expm1(2x); beyond ±20 it is ±1 in every precision.
    bounded = _clamp(p, p.mul(p.const(2.0), x), p.const(-40.0), p.const(40.0))
    e = p.call("expm1", bounded)
    return p.div(e, p.add(e, p.const(2.0)))


def _sinh(p: Program, x: int) -> int:
    # expm1 keeps the precision near 0: sinh = (e + e / (e + 1)) / 2.
    size = p.call("abs", x)
    e = p.call("expm1", size)
    quotient = p.div(e, p.add(e, p.const(1.0)))
    # The quotient of two infinities is no number, and 1 in the limit.
    is_infinite = p.call("eq", e, p.const(math.inf))
    bounded = p.call("select", is_infinite, p.const(1.0), quotient)
    half = p.mul(p.const(0.5), p.add(e, bounded))
    return p.call("select", p.call("lt", x, p.const(0.0)), p.neg(half), half)


def _cosh(p: Program, x: int) -> int:
    both = p.add(p.call("exp", x), p.call("exp", p.neg(x)))
    return p.mul(p.const(0.5), both)


def _softplus(
    p: Program, x: int, beta: int | None = None, threshold: int | None = None
) -> int:
    # torch's defaults, which it leaves out of the graph.
    if beta is None:
        beta = p.const(1.0)
    limit = threshold
    if limit is None:
        limit = p.const(20.0)
    scaled = p.mul(x, beta)
    # Both branches are computed: without the bound, exp would overflow in the other.
    bounded = _clamp(p, scaled, None, limit)
    soft = p.div(p.call("log1p", p.call("exp", bounded)), beta)
    # As in torch: beyond the threshold it is the identity.
    return p.call("select", p.call("lt", limit, scaled), x, soft)


def _softplus_backward(p: Program, grad: int, x: int, beta: int, threshold: int) -> int:
    scaled = p.mul(x, beta)
    soft = p.mul(grad, _sigmoid(p, scaled))
    return p.call("select", p.call("lt", threshold, scaled), grad, soft)


def _gelu(p: Program, x: int, approximate: str = "none") -> int:
    if approximate == "tanh":
        cube = p.mul(x, p.mul(x, x))
        inner = p.add(x, p.mul(p.const(0.044715), cube))
        size = _tanh(p, p.mul(p.const(math.sqrt(2 / math.pi)), inner))
    else:
        size = p.call("erf", p.mul(x, p.const(math.sqrt(0.5))))
    return p.mul(x, p.mul(p.const(0.5), p.add(p.const(1.0), size)))


def _elu(
    p: Program,
    x: int,
    alpha: int | None = None,
    scale: int | None = None,
    input_scale: int | None = None,
) -> int:
    one = p.const(1.0)
    alpha, scale = (one if v is None else v for v in (alpha, scale))
    inner = x if input_scale is None else p.mul(x, input_scale)
    below = p.mul(alpha, p.call("expm1", inner))
    value = p.call("select", p.call("lt", p.const(0.0), x), x, below)
    return p.mul(scale, value)


def _leaky_relu(p: Program, x: int, slope: int | None = None) -> int:
    slope = p.const(0.01) if slope is None else slope
    return p.call("select", p.call("lt", p.const(0.0), x), x, p.mul(x, slope))


def _hardtanh(
    p: Program, x: int, low: int | None = None, high: int | None = None
) -> int:
    low = p.const(-1.0) if low is None else low
    high = p.const(1.0) if high is None else high
    return _clamp(p, x, low, high)


def _clamp(
    p: Program,
    x: int,
    low: int | None = None,
    high: int | None = None,
    *,
    min: float | None = None,  # noqa: A002  (torch's names)
    max: float | None = None,  # noqa: A002
) -> int:
    low = p.const(min) if min is not None else low
    high = p.const(max) if max is not None else high
    # A comparison with NaN is false, so NaN stays what it is.
    if low is not None:
        x = p.call("select", p.call("lt", x, low), low, x)
    if high is not None:
        x = p.call("select", p.call("lt", high, x), high, x)
    return x


def maximum(p: Program, a: int, b: int) -> int:
    # What is not a number wins, as in torch.
    takes_b = p.call("or", p.call("lt", a, b), _is_nan(p, b))
    return p.call("select", takes_b, b, a)


def minimum(p: Program, a: int, b: int) -> int:
    takes_b = p.call("or", p.call("lt", b, a), _is_nan(p, b))
    return p.call("select", takes_b, b, a)


def _is_nan(p: Program, x: int) -> int:
    return p.call("not", p.call("eq", x, x))


def _where(p: Program, condition: int, a: int, b: int) -> int:
    return p.call("select", condition, a, b)


def _masked_fill(p: Program, a: int, mask: int, value: int) -> int:
    return p.call("select", as_mask(p, mask), value, a)


def _sign(p: Program, x: int) -> int:
    zero, unit = p.const(0.0), p.const(1.0)
    positive = p.call("select", p.call("lt", zero, x), unit, zero)
    return p.call("select", p.call("lt", x, zero), p.const(-1.0), positive)


def _softshrink_backward(p: Program, grad: int, x: int, limit: int) -> int:
    is_inside = p.call("le", p.call("abs", x), limit)
    return p.call("select", is_inside, p.const(0.0), grad)


def _signbit(p: Program, x: int) -> int:
    # One divided by -0 is minus infinity.
    zero = p.const(0.0)
    inverse = p.call("quotient", p.const(1.0), x)
    is_zero = p.call("eq", x, zero)
    is_minus_zero = p.call("and", is_zero, p.call("lt", inverse, zero))
    return p.call("or", p.call("lt", x, zero), is_minus_zero)


def _xor(p: Program, a: int, b: int) -> int:
    either, both = p.call("or", a, b), p.call("and", a, b)
    return p.call("and", either, p.call("not", both))


def _compare(name: str) -> Rule:
    return Rule(lambda p, a, b: p.call(name, a, b))


def _compare_swapped(name: str) -> Rule:
    # a > b is b < a, so that the small language needs three comparisons only.
    return Rule(lambda p, a, b: p.call(name, b, a))


def _call(name: str) -> Rule:
    return Rule(lambda p, *a: p.call(name, *a))


def _scaled(name: str, before: float = 1.0, after: float = 1.0) -> Rule:
    """after · f(before · x): exp2, log10 and their like."""

    def compute(p: Program, x: int) -> int:
        inner = p.mul(p.const(before), x)
        return p.mul(p.const(after), p.call(name, inner))

    return Rule(compute)


def _logic(name: str, of_truth_values: bool = False) -> Rule:
    return Rule(lambda p, *a: p.call(name, *a), 2, of_truth_values)


def _is_infinite(p: Program, x: int) -> int:
    return p.call("eq", p.call("abs", x), p.const(math.inf))


ELEMENTWISE: dict[str, Rule] = {
    "add": Rule(_add),
    "sub": Rule(_sub),
    "rsub": Rule(lambda p, a, b, alpha=1: _sub(p, b, a, alpha)),
    "mul": Rule(lambda p, a, b: p.mul(a, b)),
    "div": Rule(_div),
    "floor_divide": Rule(_floor_divide),
    "remainder": Rule(_remainder),
    "fmod": _call("fmod"),
    "reciprocal": Rule(lambda p, a: p.div(p.const(1.0), a)),
    "neg": Rule(lambda p, a: p.neg(a)),
    "square": Rule(lambda p, a: p.mul(a, a)),
    "pow": Rule(lambda p, a, b: p.power(a, b)),
    "sqrt": _call("sqrt"),
    "rsqrt": Rule(lambda p, a: p.div(p.const(1.0), p.call("sqrt", a))),
    "floor": _call("floor"),
    "ceil": _call("ceil"),
    "trunc": _call("trunc"),
    "round": Rule(_round),
    "exp": _call("exp"),
    "exp2": _scaled("exp", before=math.log(2)),
    "expm1": _call("expm1"),
    "log": _call("log"),
    "log2": _scaled("log", after=1 / math.log(2)),
    "log10": _scaled("log", after=1 / math.log(10)),
    "log1p": _call("log1p"),
    "sin": _call("sin"),
    "cos": _call("cos"),
    "tan": Rule(lambda p, a: p.div(p.call("sin", a), p.call("cos", a))),
    "asin": _call("asin"),
    "acos": _call("acos"),
    "atan": _call("atan"),
    "atan2": _call("atan2"),
    "sinh": Rule(_sinh),
    "cosh": Rule(_cosh),
    "tanh": Rule(_tanh),
    "asinh": _call("asinh"),
    "acosh": _call("acosh"),
    "atanh": _call("atanh"),
    "hypot": _call("hypot"),
    "erf": _call("erf"),
    "erfc": _call("erfc"),
    "lgamma": _call("lgamma"),
    "sigmoid": Rule(_sigmoid),
    "softplus": Rule(_softplus),
    "softplus_backward": Rule(_softplus_backward),
    "gelu": Rule(_gelu),
    "elu": Rule(_elu),
    "leaky_relu": Rule(_leaky_relu),
    "hardtanh": Rule(_hardtanh),
    "relu": Rule(
        lambda p, a: p.call("select", p.call("lt", a, p.const(0.0)), p.const(0.0), a)
    ),
    "abs": _call("abs"),
    "sign": Rule(_sign),
    "sgn": Rule(_sign),
    "signbit": Rule(_signbit),
    "clamp": Rule(_clamp),
    "clamp_min": Rule(lambda p, a, low: _clamp(p, a, low, None)),
    "clamp_max": Rule(lambda p, a, high: _clamp(p, a, None, high)),
    "maximum": Rule(maximum),
    "minimum": Rule(minimum),
    "where": Rule(_where, masks=1),
    "masked_fill": Rule(_masked_fill),
    "lt": _compare("lt"),
    "le": _compare("le"),
    "gt": _compare_swapped("lt"),
    "ge": _compare_swapped("le"),
    "eq": _compare("eq"),
    "ne": Rule(lambda p, a, b: p.call("not", p.call("eq", a, b))),
    "isnan": Rule(_is_nan),
    "isinf": Rule(_is_infinite),
    "logical_and": _logic("and"),
    "logical_or": _logic("or"),
    "logical_xor": Rule(_xor, 2),
    "logical_not": _logic("not"),
    "bitwise_and": _logic("and", of_truth_values=True),
    "bitwise_or": _logic("or", of_truth_values=True),
    "bitwise_xor": Rule(_xor, 2, True),
    "bitwise_not": _logic("not", of_truth_values=True),
    "lerp": Rule(lambda p, a, b, w: p.add(a, p.mul(w, p.sub(b, a)))),
    "addcmul": Rule(
        lambda p, a, b, c, value=1: p.add(a, p.mul(p.const(value), p.mul(b, c)))
    ),
    "addcdiv": Rule(
        lambda p, a, b, c, value=1: p.add(a, p.mul(p.const(value), p.div(b, c)))
    ),
    "sigmoid_backward": Rule(
        lambda p, g, s: p.mul(g, p.mul(s, p.sub(p.const(1.0), s)))
    ),
    "tanh_backward": Rule(lambda p, g, t: p.mul(g, p.sub(p.const(1.0), p.mul(t, t)))),
    "softshrink_backward": Rule(_softshrink_backward),
    "threshold_backward": Rule(
        lambda p, g, x, t: p.call("select", p.call("le", x, t), p.const(0.0), g)
    ),
}
"""By torch's names (torch.ops.aten)."""
