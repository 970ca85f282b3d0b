"""LLVM IR as text: vectors of one width, loops, and the functions of mathematics that
hardware does not have."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cingulum.simulation.noise import MULTIPLIERS, ROUNDS, WEYL


@dataclass(frozen=True)
class Numbers:
    """The number type of a kernel and how many of them the target handles at once."""

    bits: int
    lanes: int

    @property
    def scalar(self) -> str:
        return "float" if self.bits == 32 else "double"

    @property
    def vector(self) -> str:
        return f"<{self.lanes} x {self.scalar}>"

    @property
    def whole(self) -> str:
        return f"<{self.lanes} x i{self.bits}>"

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def suffix(self) -> str:
        return f"v{self.lanes}f{self.bits}"

    def literal(self, number: float) -> str:
        """A number exactly as this type holds it."""
        if math.isnan(number):
            return "0x7FF8000000000000"
        if self.bits == 32:
            number = struct.unpack(
                "f", struct.pack("f", max(min(number, 3.4028234e38), -3.4028234e38))
            )[0]
        return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"

    def splat(self, number: float) -> str:
        return f"splat ({self.scalar} {self.literal(number)})"


@dataclass
class Code:
    """A function body being written. Methods append a line and return the name of its
    result."""

    numbers: Numbers
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def name(self) -> str:
        self.count += 1
        return f"%t{self.count}"

    def do(self, text: str) -> str:
        """A line with a result."""
        name = self.name()
        self.lines.append(f"  {name} = {text}")
        return name

    def say(self, text: str) -> None:
        """A line without a result."""
        self.lines.append(f"  {text}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    # Whole numbers of 64 bits: sizes, steps, pointers.

    def add(self, a: object, b: object) -> str:
        return self.do(f"add i64 {a}, {b}")

    def sub(self, a: object, b: object) -> str:
        return self.do(f"sub i64 {a}, {b}")

    def mul(self, a: object, b: object) -> str:
        return self.do(f"mul i64 {a}, {b}")

    def udiv(self, a: object, b: object) -> str:
        return self.do(f"udiv i64 {a}, {b}")

    def least(self, a: object, b: object) -> str:
        return self.do(
            f"select i1 {self.do(f'icmp slt i64 {a}, {b}')}, i64 {a}, i64 {b}"
        )

    def at(self, pointer: str, *elements: object) -> str:
        """Pointer to an element; several offsets are added."""
        for element in elements:
            pointer = self.do(
                f"getelementptr {self.numbers.scalar}, ptr {pointer}, i64 {element}"
            )
        return pointer

    def copy(self, target: str, source: str, elements: object) -> None:
        size = self.mul(elements, self.numbers.bytes)
        self.say(
            f"call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, i64 "
            f"{size}, i1 false)"
        )

    def clear(self, target: str, elements: object) -> None:
        size = self.mul(elements, self.numbers.bytes)
        self.say(
            f"call void @llvm.memset.p0.i64(ptr {target}, i8 0, i64 {size}, i1 false)"
        )

    @contextmanager
    def loop(self, start: object, end: object, down: bool = False) -> Iterator[str]:
        """From start to end − 1; `down`: from end − 1 to start."""
        self.count += 1
        tag = f"l{self.count}"
        where = self.do("alloca i64")
        self.say(f"store i64 {self.sub(end, 1) if down else start}, ptr {where}")
        self.say(f"br label %{tag}.test")
        self.label(f"{tag}.test")
        i = self.do(f"load i64, ptr {where}")
        going = self.do(
            f"icmp sge i64 {i}, {start}" if down else f"icmp slt i64 {i}, {end}"
        )
        self.say(f"br i1 {going}, label %{tag}.body, label %{tag}.end")
        self.label(f"{tag}.body")
        yield i
        self.say(f"store i64 {self.sub(i, 1) if down else self.add(i, 1)}, ptr {where}")
        self.say(f"br label %{tag}.test")
        self.label(f"{tag}.end")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        self.count += 1
        tag = f"w{self.count}"
        self.say(f"br i1 {condition}, label %{tag}.yes, label %{tag}.end")
        self.label(f"{tag}.yes")
        yield
        self.say(f"br label %{tag}.end")
        self.label(f"{tag}.end")

    # Vectors of numbers.

    def load(self, pointer: str) -> str:
        n = self.numbers
        return self.do(f"load {n.vector}, ptr {pointer}, align {n.lanes * n.bytes}")

    def store(self, value: str, pointer: str) -> None:
        n = self.numbers
        self.say(f"store {n.vector} {value}, ptr {pointer}, align {n.lanes * n.bytes}")

    def spread(self, pointer: str) -> str:
        """One number in every lane."""
        n = self.numbers
        return self.broadcast(
            self.do(f"load {n.scalar}, ptr {pointer}, align {n.bytes}")
        )

    def broadcast(self, scalar: str) -> str:
        n = self.numbers
        one = self.do(f"insertelement {n.vector} poison, {n.scalar} {scalar}, i64 0")
        return self.do(
            f"shufflevector {n.vector} {one}, {n.vector} poison, <{n.lanes} x i32> "
            "zeroinitializer"
        )

    def f(self, operation: str, a: str, b: str) -> str:
        # Products may join a following sum where the target can (contract); nothing
        # else is reordered.
        return self.do(f"{operation} contract {self.numbers.vector} {a}, {b}")

    def number(self, value: float) -> str:
        return self.numbers.splat(value)

    def compare(self, kind: str, a: str, b: str) -> str:
        return self.do(f"fcmp {kind} {self.numbers.vector} {a}, {b}")

    def choose(self, condition: str, a: str, b: str) -> str:
        n = self.numbers
        return self.do(
            f"select <{n.lanes} x i1> {condition}, {n.vector} {a}, {n.vector} {b}"
        )

    def horner(self, x: str, coefficients: list[float]) -> str:
        """Polynomial, highest power first."""
        value = self.number(coefficients[0])
        for c in coefficients[1:]:
            value = self.f("fadd", self.f("fmul", value, x), self.number(c))
        return value

    def i(self, operation: str, a: str, b: object) -> str:
        """Whole-number operation in every lane; b may be a plain number."""
        n = self.numbers
        b = b if isinstance(b, str) else f"splat (i{n.bits} {b})"
        return self.do(f"{operation} {n.whole} {a}, {b}")

    def as_whole(self, a: str) -> str:
        return self.do(f"bitcast {self.numbers.vector} {a} to {self.numbers.whole}")

    def as_number(self, a: str) -> str:
        return self.do(f"bitcast {self.numbers.whole} {a} to {self.numbers.vector}")


@dataclass(frozen=True)
class Format:
    """What a floating-point format needs to know of itself."""

    mantissa: int
    bias: int
    magic: float
    exp_high: float
    exp_low: float
    ln2_high: float
    ln2_low: float
    taylor: int
    atanh: int
    half_pi: tuple[float, float, float]

    @property
    def magic_bits(self) -> int:
        # 1.5 · 2^mantissa: adding it leaves a whole number in the lowest bits.
        return ((self.mantissa + self.bias) << self.mantissa) | (
            1 << (self.mantissa - 1)
        )


FORMATS = {
    32: Format(
        23,
        127,
        1.5 * 2**23,
        89.0,
        -104.0,
        0.693145751953125,
        1.42860677e-6,
        8,
        5,
        (1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8),
    ),
    64: Format(
        52,
        1023,
        1.5 * 2**52,
        710.0,
        -746.0,
        6.93147180369123816490e-01,
        1.90821492927058770002e-10,
        14,
        11,
        (
            1.57079632673412561417,
            6.07710050630396597660e-11,
            2.02226624879595063154e-21,
        ),
    ),
}


def _whole_part(c: Code, x: str, scale: float) -> tuple[str, str]:
    """round(x · scale), as a number and as whole bits, without any rounding
    instruction."""
    form = FORMATS[c.numbers.bits]
    shifted = c.f("fadd", c.f("fmul", x, c.number(scale)), c.number(form.magic))
    return c.f("fsub", shifted, c.number(form.magic)), c.i(
        "sub", c.as_whole(shifted), form.magic_bits
    )


def _power_of_two(c: Code, k: str) -> str:
    form = FORMATS[c.numbers.bits]
    return c.as_number(c.i("shl", c.i("add", k, form.bias), form.mantissa))


def _reduced(c: Code, x: str) -> tuple[str, str]:
    """x = k ln 2 + r with |r| ≤ ½ ln 2: r, and k as whole bits. Comparisons with NaN
    are false, so NaN goes through."""
    form = FORMATS[c.numbers.bits]
    k, bits = _whole_part(c, x, 1 / math.log(2))
    r = c.f(
        "fsub",
        c.f("fsub", x, c.f("fmul", k, c.number(form.ln2_high))),
        c.f("fmul", k, c.number(form.ln2_low)),
    )
    return r, bits


def _held(c: Code, x: str, low: float, high: float) -> str:
    x = c.choose(c.compare("ogt", x, c.number(high)), c.number(high), x)
    return c.choose(c.compare("olt", x, c.number(low)), c.number(low), x)


def exp(c: Code, x: str) -> str:
    form = FORMATS[c.numbers.bits]
    r, k = _reduced(c, _held(c, x, form.exp_low, form.exp_high))
    grown = c.horner(r, [1 / math.factorial(i) for i in range(form.taylor - 1, -1, -1)])
    # In two halves, so that the largest and smallest numbers come out right.
    half = c.i("ashr", k, 1)
    return c.f(
        "fmul",
        c.f("fmul", grown, _power_of_two(c, half)),
        _power_of_two(c, c.i("sub", k, half)),
    )


def expm1(c: Code, x: str) -> str:
    form = FORMATS[c.numbers.bits]
    r, k = _reduced(c, _held(c, x, -60.0, form.exp_high))
    grown = c.horner(r, [1 / math.factorial(i) for i in range(form.taylor + 1, 0, -1)])
    grown = c.f("fmul", grown, r)
    half = c.i("ashr", k, 1)
    rest = c.i("sub", k, half)
    first, second = _power_of_two(c, half), _power_of_two(c, rest)
    inverse = _power_of_two(c, c.i("sub", f"splat (i{c.numbers.bits} 0)", rest))
    return c.f(
        "fmul",
        c.f("fadd", c.f("fmul", grown, first), c.f("fsub", first, inverse)),
        second,
    )


def plain_log(c: Code, x: str) -> str:
    """Logarithm of a positive normal number."""
    form = FORMATS[c.numbers.bits]
    bits = c.as_whole(x)
    k = c.i("sub", c.i("lshr", bits, form.mantissa), form.bias)
    m = c.i(
        "or", c.i("and", bits, (1 << form.mantissa) - 1), form.bias << form.mantissa
    )
    m = c.as_number(m)
    large = c.compare("ogt", m, c.number(math.sqrt(2)))
    m = c.choose(large, c.f("fmul", m, c.number(0.5)), m)
    k = c.f("fsub", c.as_number(c.i("add", k, form.magic_bits)), c.number(form.magic))
    k = c.choose(large, c.f("fadd", k, c.number(1.0)), k)
    s = c.f("fdiv", c.f("fsub", m, c.number(1.0)), c.f("fadd", m, c.number(1.0)))
    z = c.f("fmul", s, s)
    series = c.horner(z, [2 / (2 * i + 1) for i in range(form.atanh - 1, 0, -1)])
    twice = c.f("fadd", s, s)
    value = c.f("fadd", c.f("fmul", c.f("fmul", series, z), s), twice)
    value = c.f("fadd", c.f("fmul", k, c.number(form.ln2_low)), value)
    return c.f("fadd", c.f("fmul", k, c.number(form.ln2_high)), value)


def log(c: Code, x: str) -> str:
    form = FORMATS[c.numbers.bits]
    small = c.compare("olt", x, c.number(2.0 ** (1 - form.bias)))
    scaled = c.choose(small, c.f("fmul", x, c.number(2.0 ** (form.mantissa + 2))), x)
    value = plain_log(c, scaled)
    shift = c.choose(small, c.number((form.mantissa + 2) * math.log(2)), c.number(0.0))
    value = c.f("fsub", value, shift)
    value = c.choose(c.compare("oeq", x, c.number(0.0)), _infinity(c, -1), value)
    value = c.choose(c.compare("olt", x, c.number(0.0)), _nan(c), value)
    value = c.choose(c.compare("oeq", x, _infinity(c, 1)), x, value)
    return c.choose(c.compare("uno", x, x), x, value)


def _infinity(c: Code, sign: int) -> str:
    return (
        f"splat ({c.numbers.scalar} "
        f"{'0x7FF0000000000000' if sign > 0 else '0xFFF0000000000000'})"
    )


def _nan(c: Code) -> str:
    return f"splat ({c.numbers.scalar} 0x7FF8000000000000)"


def log1p(c: Code, x: str) -> str:
    one = c.number(1.0)
    u = c.f("fadd", x, one)
    value = c.f("fdiv", c.f("fmul", log(c, u), x), c.f("fsub", u, one))
    value = c.choose(c.compare("oeq", u, one), x, value)
    return c.choose(c.compare("oeq", x, _infinity(c, 1)), x, value)


def _circle(c: Code, r: str) -> tuple[str, str]:
    """Sine and cosine of |r| ≤ π/4."""
    terms = 6 if c.numbers.bits == 32 else 10
    z = c.f("fmul", r, r)
    sine = c.horner(
        z, [(-1) ** i / math.factorial(2 * i + 1) for i in range(terms - 1, 0, -1)]
    )
    sine = c.f("fadd", c.f("fmul", c.f("fmul", sine, z), r), r)
    return sine, c.horner(
        z, [(-1) ** i / math.factorial(2 * i) for i in range(terms, -1, -1)]
    )


def _turned(c: Code, r: str, quarter: str) -> tuple[str, str]:
    """Sine and cosine of r plus whole quarter turns."""
    sine, cosine = _circle(c, r)
    zero, n = f"splat (i{c.numbers.bits} 0)", c.numbers
    odd = c.do(f"icmp ne {n.whole} {c.i('and', quarter, 1)}, {zero}")
    a, b = c.choose(odd, cosine, sine), c.choose(odd, sine, cosine)
    sine_sign = c.i("shl", c.i("and", quarter, 2), n.bits - 2)
    cosine_sign = c.i("shl", c.i("and", c.i("add", quarter, 1), 2), n.bits - 2)
    signed = [
        c.as_number(c.i("xor", c.as_whole(v), s))
        for v, s in ((a, sine_sign), (b, cosine_sign))
    ]
    return signed[0], signed[1]


def _sin_cos(c: Code, x: str) -> tuple[str, str]:
    quarter, bits = _whole_part(c, x, 2 / math.pi)
    r = x
    for part in FORMATS[c.numbers.bits].half_pi:
        r = c.f("fsub", r, c.f("fmul", quarter, c.number(part)))
    return _turned(c, r, bits)


def intrinsic(name: str):  # type: ignore[no-untyped-def]
    def call(c: Code, x: str) -> str:
        n = c.numbers
        return c.do(f"call {n.vector} @llvm.{name}.{n.suffix}({n.vector} {x})")

    return call


FUNCTIONS = {
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "sin": lambda c, x: _sin_cos(c, x)[0],
    "cos": lambda c, x: _sin_cos(c, x)[1],
    "sqrt": intrinsic("sqrt"),
    "abs": intrinsic("fabs"),
    "rint": lambda c, x: _whole_part(c, x, 1.0)[0],
}


def philox_normals(c: Code, counter: list[str], key: tuple[str, str]) -> list[str]:
    """Four vectors of standard normal numbers; the same stream as
    `cingulum.simulation.noise`.

    counter: four vectors of 32-bit words; key: two i32 values
    """
    lanes = c.numbers.lanes
    words, long = f"<{lanes} x i32>", f"<{lanes} x i64>"

    def spread(value: str) -> str:
        one = c.do(f"insertelement {words} poison, i32 {value}, i64 0")
        return c.do(
            f"shufflevector {words} {one}, {words} poison, {words} zeroinitializer"
        )

    def product(a: str, multiplier: int) -> tuple[str, str]:
        wide = c.do(f"zext {words} {a} to {long}")
        wide = c.do(f"mul nuw {long} {wide}, splat (i64 {multiplier})")
        high = c.do(f"lshr {long} {wide}, splat (i64 32)")
        return c.do(f"trunc {long} {high} to {words}"), c.do(
            f"mul {words} {a}, splat (i32 {multiplier - 2**32})"
        )

    a, b, e, d = counter
    keys = list(key)
    for turn in range(ROUNDS):
        if turn:
            keys = [
                c.do(f"add i32 {k}, {w - 2**32}")
                for k, w in zip(keys, WEYL, strict=True)
            ]
        (high_a, low_a), (high_e, low_e) = (
            product(a, MULTIPLIERS[0]),
            product(e, MULTIPLIERS[1]),
        )
        mixed = [c.do(f"xor {words} {x}, {y}") for x, y in ((high_e, b), (high_a, d))]
        a = c.do(f"xor {words} {mixed[0]}, {spread(keys[0])}")
        e = c.do(f"xor {words} {mixed[1]}, {spread(keys[1])}")
        b, d = low_e, low_a
    return [*_box_muller(c, a, b), *_box_muller(c, e, d)]


def _box_muller(c: Code, for_radius: str, for_angle: str) -> tuple[str, str]:
    n = c.numbers
    words = f"<{n.lanes} x i32>"
    uniform = c.do(f"uitofp {words} {for_radius} to {n.vector}")
    uniform = c.f("fadd", c.f("fmul", uniform, c.number(2.0**-32)), c.number(2.0**-33))
    radius = FUNCTIONS["sqrt"](c, c.f("fmul", plain_log(c, uniform), c.number(-2.0)))
    half = c.do(f"sitofp {words} {for_angle} to {n.vector}")
    half = c.f("fmul", half, c.number(2.0**-31))  # in half turns, −1 to 1
    quarter, bits = _whole_part(c, half, 2.0)
    rest = c.f("fsub", half, c.f("fmul", quarter, c.number(0.5)))
    sine, cosine = _turned(c, c.f("fmul", rest, c.number(math.pi)), bits)
    return c.f("fmul", radius, cosine), c.f("fmul", radius, sine)
