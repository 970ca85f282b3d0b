"""The small language between torch and machine code, in static single assignment: each
value is assigned once, from values before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

COMPARISONS = {"lt", "le", "eq"}
LOGIC = {"and", "or", "not"}
LEAVES = {"input", "const"}

LARGEST_PRODUCT = 8
"""The largest whole exponent that is multiplied out."""


@dataclass(frozen=True)
class Operation:
    """What a value is: an operation on earlier values, an input by name, or a number.

    sign: of the number, since 0.0 and -0.0 are equal keys but not equal numbers
    """

    name: str
    operands: tuple[int, ...] = ()
    input: str = ""
    number: float | None = None
    sign: float = 0.0

    def __str__(self) -> str:
        if self.name == "input":
            return f"input {self.input}"
        if self.name == "const":
            return f"const {self.number}"
        operands = " ".join(f"%{operand}" for operand in self.operands)
        return f"{self.name} {operands}"


@dataclass
class Program:
    """Operations in order; a value is the index of its operation.

    Equal values are computed once; constants are folded; `x + 0` and `x · 1` vanish.
    """

    operations: list[Operation] = field(default_factory=list)
    known: dict[Operation, int] = field(default_factory=dict)

    def _value(self, operation: Operation) -> int:
        if operation not in self.known:
            self.known[operation] = len(self.operations)
            self.operations.append(operation)
        return self.known[operation]

    def _apply(self, name: str, *operands: int) -> int:
        return self._value(Operation(name, operands))

    def input(self, name: str) -> int:
        return self._value(Operation("input", input=name))

    def const(self, number: float) -> int:
        number = float(number)
        sign = math.copysign(1.0, number)
        return self._value(Operation("const", number=number, sign=sign))

    def number(self, value: int) -> float | None:
        """The number that a value is, if it is a constant."""
        return self.operations[value].number

    def is_bool(self, value: int) -> bool:
        name = self.operations[value].name
        return name in COMPARISONS or name in LOGIC

    def _negated(self, value: int) -> int | None:
        """What a value is the negative of, if it is a negation."""
        operation = self.operations[value]
        return operation.operands[0] if operation.name == "neg" else None

    def add(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        if x is not None and y is not None:
            return self.const(x + y)
        if x == 0:
            return b
        if y == 0:
            return a
        minus_b, minus_a = self._negated(b), self._negated(a)
        if minus_b is not None:
            return self.sub(a, minus_b)
        if minus_a is not None:
            return self.sub(b, minus_a)
        # In one order, so that a + b and b + a are one value.
        return self._apply("add", *sorted((a, b)))

    def sub(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        if x is not None and y is not None:
            return self.const(x - y)
        if y == 0:
            return a
        if x == 0:
            return self.neg(b)
        minus_b = self._negated(b)
        if minus_b is not None:
            return self.add(a, minus_b)
        return self._apply("sub", a, b)

    def neg(self, a: int) -> int:
        x = self.number(a)
        if x is not None:
            return self.const(-x)
        minus_a = self._negated(a)
        if minus_a is not None:
            return minus_a
        return self._apply("neg", a)

    def mul(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        if x is not None and y is not None:
            return self.const(x * y)
        if x in (0, 1, -1):
            return self._times_unit(x, b)
        if y in (0, 1, -1):
            return self._times_unit(y, a)
        return self._product(a, b)

    def _product(self, a: int, b: int) -> int:
        minus_a, minus_b = self._negated(a), self._negated(b)
        # Signs move outwards, where they cancel or join a sum.
        if minus_a is not None and minus_b is not None:
            return self.mul(minus_a, minus_b)
        if minus_a is not None:
            return self.neg(self.mul(minus_a, b))
        if minus_b is not None:
            return self.neg(self.mul(a, minus_b))
        # In one order, so that a · b and b · a are one value.
        return self._apply("mul", *sorted((a, b)))

    def _times_unit(self, factor: float | None, value: int) -> int:
        # 0 · infinity would not be a number, but a state that diverges is noticed by
        # itself.
        if factor == 0:
            return self.const(0.0)
        if factor == 1:
            return value
        return self.neg(value)

    def div(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        # A division by 0 is left to the processor, which gives infinity.
        if x is not None and y is not None and y != 0:
            return self.const(x / y)
        if x == 0:
            return self.const(0.0)
        if y is not None and _is_power_of_two(y):
            return self.mul(a, self.const(1 / y))
        minus_a = self._negated(a)
        if minus_a is not None:
            return self.neg(self.div(minus_a, b))
        return self._apply("div", a, b)

    def to_float32(self, value: int) -> int:
        """Rounded to the nearest number of single precision."""
        number = self.number(value)
        if number is not None:
            return self.const(_nearest_float32(number))
        # A choice between two such numbers is one of them.
        operation = self.operations[value]
        if operation.name == "select":
            chosen = [self.number(v) for v in operation.operands[1:]]
            if all(n is not None and n == _nearest_float32(n) for n in chosen):
                return value
        return self.call("float32", value)

    def call(self, name: str, *operands: int) -> int:
        """Any other operation by its name: functions (exp, sin, floor, …), lt le eq;
        and or not; select; quotient, which is never rewritten as a product."""
        if name == "select":
            return self._select(*operands)
        if name == "not":
            inner = self.operations[operands[0]]
            if inner.name == "not":
                return inner.operands[0]
        return self._apply(name, *operands)

    def _select(self, condition: int, a: int, b: int) -> int:
        if a == b:
            return a
        test = self.operations[condition]
        # Instead of the condition being turned, the branches change places.
        if test.name == "not":
            return self._apply("select", test.operands[0], b, a)
        return self._apply("select", condition, a, b)

    def power(self, x: int, exponent: int) -> int:
        """x to the exponent: products for small whole numbers, exp(exponent · log x)
        otherwise."""
        number = self.number(exponent)
        # Products are right for negative x, too, and faster than a logarithm.
        if number is not None and _is_small_whole(number):
            return self._whole_power(x, int(number))
        if number == 0.5:
            return self.call("sqrt", x)
        logarithm = self.call("log", self.call("abs", x))
        size = self.call("exp", self.mul(exponent, logarithm))
        if number is None:
            # Also where x is 0 or infinite, anything to the power 0 is 1.
            is_zero = self.call("eq", exponent, self.const(0.0))
            size = self.call("select", is_zero, self.const(1.0), size)
        # Everything so far is the power of |x|.
        is_negative = self.call("lt", x, self.const(0.0))
        below_zero = self._below_zero(size, exponent)
        return self.call("select", is_negative, below_zero, size)

    def _below_zero(self, size: int, exponent: int) -> int:
        """The power of a negative number: its sign for a whole exponent, not a number
        for any other."""
        half = self.mul(self.const(0.5), exponent)
        is_whole = self.call("eq", exponent, self.call("rint", exponent))
        is_even = self.call("eq", half, self.call("rint", half))
        signed = self.call("select", is_even, size, self.neg(size))
        return self.call("select", is_whole, signed, self.const(math.nan))

    def _whole_power(self, x: int, exponent: int) -> int:
        if exponent < 0:
            return self.div(self.const(1.0), self._whole_power(x, -exponent))
        if exponent == 0:
            return self.const(1.0)
        # Squaring: x^8 takes three products.
        half = self._whole_power(x, exponent // 2)
        square = self.mul(half, half)
        return self.mul(square, x) if exponent % 2 else square

    def needed(self, results: list[int]) -> list[int]:
        """The values on which the results depend, in order."""
        # A stack of its own: a deep expression would exceed Python's recursion limit.
        marked: set[int] = set()
        stack = list(results)
        while stack:
            value = stack.pop()
            if value not in marked:
                marked.add(value)
                stack.extend(self.operations[value].operands)
        return sorted(marked)


def _nearest_float32(number: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _is_power_of_two(number: float) -> bool:
    """Whether division by the number is exact multiplication by its inverse."""
    return number != 0 and math.frexp(number)[0] in (0.5, -0.5)


def _is_small_whole(number: float) -> bool:
    return number.is_integer() and abs(number) <= LARGEST_PRODUCT
