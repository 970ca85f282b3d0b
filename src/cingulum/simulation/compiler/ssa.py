"""The small language between torch and machine code: every line a value, made once,
from values made before it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

COMPARISONS = {"lt", "le", "eq"}
LOGIC = {"and", "or", "not"}


@dataclass
class Program:
    """Values in the order they are made. Equal values are made once; constants are
    folded; `x + 0`, `x · 1` vanish.

    lines: (operation, operands); an input is ("input", name), a constant ("const",
        number)
    """

    lines: list[tuple] = field(default_factory=list)
    known: dict[tuple, int] = field(default_factory=dict)

    def _line(self, *line) -> int:  # type: ignore[no-untyped-def]
        if line not in self.known:
            self.known[line] = len(self.lines)
            self.lines.append(line)
        return self.known[line]

    def input(self, name: str) -> int:
        return self._line("input", name)

    def const(self, number: float) -> int:
        # 0.0 and -0.0 are equal keys but not equal numbers.
        return self._line("const", float(number), math.copysign(1.0, number))

    def number(self, value: int) -> float | None:
        """The number that a value is, if it is a constant."""
        line = self.lines[value]
        return line[1] if line[0] == "const" else None

    def is_bool(self, value: int) -> bool:
        line = self.lines[value]
        return line[0] in COMPARISONS or line[0] in LOGIC

    def add(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        if x is not None and y is not None:
            return self.const(x + y)
        if x == 0:
            return b
        if y == 0:
            return a
        if self.lines[b][0] == "neg":
            return self.sub(a, self.lines[b][1])
        if self.lines[a][0] == "neg":
            return self.sub(b, self.lines[a][1])
        return self._line("add", *sorted((a, b)))

    def sub(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        if x is not None and y is not None:
            return self.const(x - y)
        if y == 0:
            return a
        if x == 0:
            return self.neg(b)
        if self.lines[b][0] == "neg":
            return self.add(a, self.lines[b][1])
        return self._line("sub", a, b)

    def neg(self, a: int) -> int:
        x = self.number(a)
        if x is not None:
            return self.const(-x)
        if self.lines[a][0] == "neg":
            return self.lines[a][1]
        return self._line("neg", a)

    def mul(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        if x is not None and y is not None:
            return self.const(x * y)
        for number, other in ((x, b), (y, a)):
            if number == 0:
                return self.const(0.0)
            if number == 1:
                return other
            if number == -1:
                return self.neg(other)
        negative = (self.lines[a][0] == "neg") + (self.lines[b][0] == "neg")
        if negative:
            a, b = (
                self.lines[v][1] if self.lines[v][0] == "neg" else v for v in (a, b)
            )
            return self.neg(self.mul(a, b)) if negative == 1 else self.mul(a, b)
        return self._line("mul", *sorted((a, b)))

    def div(self, a: int, b: int) -> int:
        x, y = self.number(a), self.number(b)
        if x is not None and y is not None and y != 0:
            return self.const(x / y)
        if x == 0:
            return self.const(0.0)
        if y is not None and y != 0 and math.frexp(y)[0] in (0.5, -0.5):
            return self.mul(a, self.const(1 / y))  # exact: a power of two
        if self.lines[a][0] == "neg":
            return self.neg(self.div(self.lines[a][1], b))
        return self._line("div", a, b)

    def call(self, name: str, *operands: int) -> int:
        """Any other operation: sqrt exp expm1 log log1p sin cos abs rint; lt le eq; and
        or not; select."""
        if name == "select":
            condition, a, b = operands
            if a == b:
                return a
            if self.lines[condition][0] == "not":
                return self._line("select", self.lines[condition][1], b, a)
        if name == "not" and self.lines[operands[0]][0] == "not":
            return self.lines[operands[0]][1]
        return self._line(name, *operands)

    def power(self, x: int, exponent: int) -> int:
        """x to the exponent: products for small whole numbers, exp(exponent · log x)
        otherwise."""
        number = self.number(exponent)
        if number is not None and number == int(number) and abs(number) <= 8:
            return self._whole_power(x, int(number))
        if number == 0.5:
            return self.call("sqrt", x)
        size = self.call(
            "exp", self.mul(exponent, self.call("log", self.call("abs", x)))
        )
        if number is None:
            size = self.call(
                "select",
                self.call("eq", exponent, self.const(0.0)),
                self.const(1.0),
                size,
            )
        return self.call(
            "select",
            self.call("lt", x, self.const(0.0)),
            self._below_zero(size, exponent),
            size,
        )

    def _below_zero(self, size: int, exponent: int) -> int:
        """The power of a negative number: its sign for a whole exponent, not a number
        for any other."""
        half = self.mul(self.const(0.5), exponent)
        whole, even = (
            self.call("eq", v, self.call("rint", v)) for v in (exponent, half)
        )
        signed = self.call("select", even, size, self.neg(size))
        return self.call("select", whole, signed, self.const(math.nan))

    def _whole_power(self, x: int, exponent: int) -> int:
        if exponent < 0:
            return self.div(self.const(1.0), self._whole_power(x, -exponent))
        if exponent == 0:
            return self.const(1.0)
        half = self._whole_power(x, exponent // 2)
        square = self.mul(half, half)
        return self.mul(square, x) if exponent % 2 else square

    def needed(self, results: list[int]) -> list[int]:
        """The values on which the results depend, in order."""
        marked, stack = set(), list(results)
        while stack:
            value = stack.pop()
            if value not in marked:
                marked.add(value)
                if self.lines[value][0] not in ("input", "const"):
                    stack.extend(self.lines[value][1:])
        return sorted(marked)
