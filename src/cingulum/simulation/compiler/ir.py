"""LLVM IR as text: values with the operators of arithmetic, loops, and the lines of one
function.

`x * scale + 1.0` on a `Vector` appends two instructions to the function that is being
written and gives the name of the second result, so that code which writes IR reads like
the arithmetic it writes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

FLOAT32_MAX = 3.4028234e38
NAN_BITS = "0x7FF8000000000000"
INFINITY_BITS = {1: "0x7FF0000000000000", -1: "0xFFF0000000000000"}


@dataclass(frozen=True)
class NumberType:
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
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def vector_bytes(self) -> int:
        return self.lanes * self.bytes

    @property
    def suffix(self) -> str:
        """How the names of LLVM's intrinsic functions end for this type."""
        return f"v{self.lanes}f{self.bits}"

    def literal(self, number: float) -> str:
        """A number exactly as this type holds it."""
        if math.isnan(number):
            return NAN_BITS
        if self.bits == 32:
            number = _as_float32(number)
        # LLVM writes float32 constants, too, with the sixteen digits of a double.
        (pattern,) = struct.unpack("<Q", struct.pack("<d", number))
        return f"0x{pattern:016X}"

    def splat(self, number: float) -> str:
        """A constant vector with the same number in every lane."""
        return f"splat ({self.scalar} {self.literal(number)})"


def _as_float32(number: float) -> float:
    # Infinity is a float32 as well, and must not become the largest number.
    if math.isinf(number):
        return number
    # struct refuses numbers beyond the largest float32.
    bounded = max(min(number, FLOAT32_MAX), -FLOAT32_MAX)
    return struct.unpack("f", struct.pack("f", bounded))[0]


@dataclass
class Code:
    """The body of a function that is being written, line by line."""

    number_type: NumberType
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def assign(self, instruction: str) -> str:
        """Append an instruction that has a result; the name of the result."""
        self.count += 1
        name = f"%t{self.count}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def emit(self, instruction: str) -> None:
        """Append an instruction without a result."""
        self.lines.append(f"  {instruction}")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def _tag(self, letter: str) -> str:
        """A new name for the labels of a loop or a condition."""
        # Values and labels share one counter, so that no name occurs twice.
        self.count += 1
        return f"{letter}{self.count}"

    # Values.

    def integer(self, instruction: str) -> Integer:
        return Integer(self, self.assign(instruction))

    def argument(self, name: str) -> Integer:
        """An i64 argument of the function."""
        return Integer(self, f"%{name}")

    def pointer(self, name: str) -> Pointer:
        """An argument of the function that points to numbers."""
        return Pointer(self, f"%{name}", self.number_type.scalar)

    def constant(self, number: float) -> Vector:
        return Vector(self, self.number_type.splat(number))

    def infinity(self, sign: int) -> Vector:
        return Vector(self, f"splat ({self.number_type.scalar} {INFINITY_BITS[sign]})")

    def lanes_of(self, element: str) -> str:
        """The type of a vector of these elements."""
        return f"<{self.number_type.lanes} x {element}>"

    def in_every_lane(self, element: str, scalar: object) -> str:
        """A vector with one scalar in every lane."""
        kind = self.lanes_of(element)
        first = self.assign(f"insertelement {kind} poison, {element} {scalar}, i64 0")
        order = f"{self.lanes_of('i32')} zeroinitializer"
        return self.assign(f"shufflevector {kind} {first}, {kind} poison, {order}")

    def numbers_in_every_lane(self, scalar: str) -> Vector:
        return Vector(self, self.in_every_lane(self.number_type.scalar, scalar))

    def words_in_every_lane(self, word: str) -> Bits:
        """A vector with one 32-bit word in every lane."""
        return Bits(self, self.in_every_lane("i32", word), 32)

    # Memory.

    def copy(self, target: Pointer, source: Pointer, elements: Integer | int) -> None:
        size = self._bytes(elements)
        self.emit(
            f"call void @llvm.memmove.p0.p0.i64(ptr {target}, ptr {source}, i64 "
            f"{size}, i1 false)"
        )

    def clear(self, target: Pointer, elements: Integer | int) -> None:
        size = self._bytes(elements)
        self.emit(
            f"call void @llvm.memset.p0.i64(ptr {target}, i8 0, i64 {size}, i1 false)"
        )

    def _bytes(self, elements: Integer | int) -> Integer:
        return self.integer(f"mul i64 {elements}, {self.number_type.bytes}")

    # Flow.

    @contextmanager
    def loop(self, start: Integer | int, end: Integer | int) -> Iterator[Integer]:
        """From start to end − 1."""
        tag = self._tag("l")
        # On the stack; LLVM's optimiser makes registers of it, and phi nodes.
        counter = Variable(self, Integer)
        counter.set(start)
        i = self._loop_head(tag, counter, f"slt i64 {{}}, {end}")
        yield i
        counter.set(i + 1)
        self._loop_foot(tag)

    @contextmanager
    def loop_down(self, start: Integer | int, end: Integer) -> Iterator[Integer]:
        """From end − 1 to start."""
        tag = self._tag("l")
        counter = Variable(self, Integer)
        counter.set(end - 1)
        i = self._loop_head(tag, counter, f"sge i64 {{}}, {start}")
        yield i
        counter.set(i - 1)
        self._loop_foot(tag)

    def _loop_head(self, tag: str, counter: Variable[Integer], test: str) -> Integer:
        self.emit(f"br label %{tag}.test")
        self.label(f"{tag}.test")
        i = counter.get()
        continues = self.assign(f"icmp {test.format(i)}")
        self.emit(f"br i1 {continues}, label %{tag}.body, label %{tag}.end")
        self.label(f"{tag}.body")
        return i

    def _loop_foot(self, tag: str) -> None:
        self.emit(f"br label %{tag}.test")
        self.label(f"{tag}.end")

    @contextmanager
    def when(self, condition: Condition) -> Iterator[None]:
        """What is written inside is done only where the condition holds."""
        tag = self._tag("w")
        self.emit(f"br i1 {condition}, label %{tag}.yes, label %{tag}.end")
        self.label(f"{tag}.yes")
        yield
        self.emit(f"br label %{tag}.end")
        self.label(f"{tag}.end")

    def return_early(self, value: Integer) -> None:
        self.emit(f"ret i64 {value}")
        # What follows a return must be a block of its own.
        self.label(f"after{self.count}.{len(self.lines)}")

    def function(self, head: str) -> str:
        """The whole text of a function that only this module calls."""
        return self._define(f"internal void @{head}", "ret void")

    def exported_function(self, head: str) -> str:
        """The whole text of a function for Python to call; it ends with 0."""
        return self._define(f"i64 @{head}", "ret i64 0")

    def _define(self, head: str, end: str) -> str:
        # Space on the stack is reserved once, at the beginning, not in every turn of a
        # loop.
        reserved = [line for line in self.lines if "= alloca" in line]
        body = [line for line in self.lines if "= alloca" not in line]
        first = f"define {head} #0 {{"
        return "\n".join([first, "entry:", *reserved, *body, f"  {end}", "}"])


@dataclass(frozen=True, eq=False)
class Value:
    """The result of an instruction, by its name in the text."""

    code: Code
    name: str

    def __str__(self) -> str:
        return self.name

    @classmethod
    def type_in(cls, code: Code) -> str:
        """The LLVM type of such a value."""
        raise NotImplementedError


# Values compare by identity (eq=False): two names are two results.


@dataclass(frozen=True, eq=False)
class Condition(Value):
    """One i1: true or false."""

    def choose(self, a: Integer | int, b: Integer | int) -> Integer:
        return self.code.integer(f"select i1 {self}, i64 {a}, i64 {b}")


@dataclass(frozen=True, eq=False)
class Integer(Value):
    """One i64: a count, a step or an offset."""

    @classmethod
    def type_in(cls, code: Code) -> str:
        return "i64"

    def __add__(self, other: Integer | int) -> Integer:
        return self.code.integer(f"add i64 {self}, {other}")

    def __radd__(self, other: int) -> Integer:
        return self.code.integer(f"add i64 {other}, {self}")

    def __sub__(self, other: Integer | int) -> Integer:
        return self.code.integer(f"sub i64 {self}, {other}")

    def __mul__(self, other: Integer | int) -> Integer:
        return self.code.integer(f"mul i64 {self}, {other}")

    def __floordiv__(self, other: Integer | int) -> Integer:
        return self.code.integer(f"udiv i64 {self}, {other}")

    def __mod__(self, other: Integer | int) -> Integer:
        return self.code.integer(f"urem i64 {self}, {other}")

    def __and__(self, other: int) -> Integer:
        return self.code.integer(f"and i64 {self}, {other}")

    def __rshift__(self, other: int) -> Integer:
        return self.code.integer(f"lshr i64 {self}, {other}")

    def compare(self, kind: str, other: Integer | int) -> Condition:
        """kind: LLVM's name of an integer comparison, such as eq, ne or sgt."""
        return Condition(
            self.code, self.code.assign(f"icmp {kind} i64 {self}, {other}")
        )

    def smaller(self, other: Integer) -> Integer:
        """The smaller of two."""
        return self.compare("slt", other).choose(self, other)

    def word(self) -> str:
        """Its lower 32 bits."""
        return self.code.assign(f"trunc i64 {self} to i32")

    def scalar(self) -> str:
        """As one number of the kernel's type."""
        return self.code.assign(f"sitofp i64 {self} to {self.code.number_type.scalar}")


@dataclass(frozen=True, eq=False)
class Pointer(Value):
    """The address of an element of an array."""

    element: str

    def at(self, *offsets: Integer | int) -> Pointer:
        """The address so many elements later; several offsets are added."""
        # One instruction per offset: what does not change in a loop can leave it.
        name = self.name
        for offset in offsets:
            name = self.code.assign(
                f"getelementptr {self.element}, ptr {name}, i64 {offset}"
            )
        return Pointer(self.code, name, self.element)

    def load(self) -> Vector:
        kind = self.code.number_type
        instruction = f"load {kind.vector}, ptr {self}, align {kind.vector_bytes}"
        return Vector(self.code, self.code.assign(instruction))

    def store(self, value: Vector) -> None:
        kind = self.code.number_type
        self.code.emit(
            f"store {kind.vector} {value}, ptr {self}, align {kind.vector_bytes}"
        )

    def add(self, value: Vector) -> None:
        """Add to the vector that is stored there."""
        self.store(self.load() + value)

    def load_in_every_lane(self) -> Vector:
        """One number, in every lane."""
        kind = self.code.number_type
        scalar = self.code.assign(f"load {kind.scalar}, ptr {self}, align {kind.bytes}")
        return self.code.numbers_in_every_lane(scalar)


@dataclass(frozen=True, eq=False)
class Mask(Value):
    """True or false in every lane."""

    @classmethod
    def type_in(cls, code: Code) -> str:
        return code.lanes_of("i1")

    def _combine(self, operation: str, other: object) -> Mask:
        kind = Mask.type_in(self.code)
        return Mask(self.code, self.code.assign(f"{operation} {kind} {self}, {other}"))

    def __and__(self, other: Mask) -> Mask:
        return self._combine("and", other)

    def __or__(self, other: Mask) -> Mask:
        return self._combine("or", other)

    def __invert__(self) -> Mask:
        return self._combine("xor", "splat (i1 true)")

    def choose(self, a: Vector | float, b: Vector | float) -> Vector:
        """a where true, b where false."""
        kind = self.code.number_type
        first, second = _operand(kind, a), _operand(kind, b)
        return Vector(
            self.code,
            self.code.assign(
                f"select {Mask.type_in(self.code)} {self}, {kind.vector} {first}, "
                f"{kind.vector} {second}"
            ),
        )

    def any(self) -> Condition:
        """Whether it is true in some lane."""
        lanes = self.code.number_type.lanes
        kind = Mask.type_in(self.code)
        bits = self.code.assign(f"bitcast {kind} {self} to i{lanes}")
        return Condition(self.code, self.code.assign(f"icmp ne i{lanes} {bits}, 0"))


@dataclass(frozen=True, eq=False)
class Vector(Value):
    """One number in every lane."""

    @classmethod
    def type_in(cls, code: Code) -> str:
        return code.number_type.vector

    def _combine(self, operation: str, a: object, b: object) -> Vector:
        # Products may join a following sum where the target can (contract); nothing
        # else is reordered.
        kind = self.code.number_type.vector
        return Vector(
            self.code, self.code.assign(f"{operation} contract {kind} {a}, {b}")
        )

    def __add__(self, other: Vector | float) -> Vector:
        return self._combine("fadd", self, _operand(self.code.number_type, other))

    def __sub__(self, other: Vector | float) -> Vector:
        return self._combine("fsub", self, _operand(self.code.number_type, other))

    def __mul__(self, other: Vector | float) -> Vector:
        return self._combine("fmul", self, _operand(self.code.number_type, other))

    def __truediv__(self, other: Vector | float) -> Vector:
        return self._combine("fdiv", self, _operand(self.code.number_type, other))

    def __rtruediv__(self, other: float) -> Vector:
        return self._combine("fdiv", _operand(self.code.number_type, other), self)

    def __neg__(self) -> Vector:
        kind = self.code.number_type.vector
        return Vector(self.code, self.code.assign(f"fneg {kind} {self}"))

    def _compare(self, kind: str, other: Vector | float) -> Mask:
        number_type = self.code.number_type
        operand = _operand(number_type, other)
        return Mask(
            self.code,
            self.code.assign(f"fcmp {kind} {number_type.vector} {self}, {operand}"),
        )

    # Ordered comparisons: false where either is not a number.

    def __lt__(self, other: Vector | float) -> Mask:
        return self._compare("olt", other)

    def __le__(self, other: Vector | float) -> Mask:
        return self._compare("ole", other)

    def __gt__(self, other: Vector | float) -> Mask:
        return self._compare("ogt", other)

    def equals(self, other: Vector | float) -> Mask:
        return self._compare("oeq", other)

    def is_nan(self) -> Mask:
        return self._compare("uno", self)

    def is_not_finite(self) -> Mask:
        # Infinity minus infinity is not a number. Without `contract`, and so by hand.
        kind = self.code.number_type.vector
        zero = Vector(self.code, self.code.assign(f"fsub {kind} {self}, {self}"))
        return zero.is_nan()

    def bits(self) -> Bits:
        """The same bits as whole numbers."""
        kind = self.code.number_type
        whole = self.code.lanes_of(f"i{kind.bits}")
        name = self.code.assign(f"bitcast {kind.vector} {self} to {whole}")
        return Bits(self.code, name, kind.bits)

    def intrinsic(self, name: str) -> Vector:
        """A function that LLVM has itself."""
        kind = self.code.number_type
        call = f"call {kind.vector} @llvm.{name}.{kind.suffix}({kind.vector} {self})"
        return Vector(self.code, self.code.assign(call))

    def from_library(self, name: str, *others: Vector) -> Vector:
        """A function of the C library, called in double precision for one lane after
        the other."""
        kind = self.code.number_type
        result = f"{kind.vector} poison"
        vectors = (self, *others)
        for lane in range(kind.lanes):
            doubles = [f"double {vector._lane(lane)}" for vector in vectors]
            value = self.code.assign(f"call double @{name}({', '.join(doubles)})")
            if kind.bits == 32:
                value = self.code.assign(f"fptrunc double {value} to float")
            filled = self.code.assign(
                f"insertelement {result}, {kind.scalar} {value}, i64 {lane}"
            )
            result = f"{kind.vector} {filled}"
        return Vector(self.code, filled)

    def _lane(self, lane: int) -> str:
        """One number, in double precision."""
        kind = self.code.number_type
        value = self.code.assign(f"extractelement {kind.vector} {self}, i64 {lane}")
        if kind.bits == 64:
            return value
        return self.code.assign(f"fpext float {value} to double")

    def rounded_to_float32(self) -> Vector:
        kind = self.code.number_type
        if kind.bits == 32:
            return self
        single = f"<{kind.lanes} x float>"
        name = self.code.assign(f"fptrunc {kind.vector} {self} to {single}")
        return Vector(
            self.code, self.code.assign(f"fpext {single} {name} to {kind.vector}")
        )


def _operand(number_type: NumberType, value: Vector | float) -> str:
    """A vector's name, or a plain number as a constant vector."""
    if isinstance(value, Vector):
        return value.name
    return number_type.splat(value)


@dataclass(frozen=True, eq=False)
class Bits(Value):
    """A whole number of `width` bits in every lane. The other operand may be a plain
    number."""

    width: int

    @property
    def type(self) -> str:
        return self.code.lanes_of(f"i{self.width}")

    # Shifts to the right are of two kinds, and so have no operator.

    def combine(self, operation: str, other: Bits | int) -> Bits:
        """operation: LLVM's name, such as `lshr` and `ashr` for shifts to the right."""
        operand = other if isinstance(other, Bits) else f"splat (i{self.width} {other})"
        name = self.code.assign(f"{operation} {self.type} {self}, {operand}")
        return Bits(self.code, name, self.width)

    def __add__(self, other: Bits | int) -> Bits:
        return self.combine("add", other)

    def __sub__(self, other: Bits | int) -> Bits:
        return self.combine("sub", other)

    def __mul__(self, other: int) -> Bits:
        return self.combine("mul", other)

    def __lshift__(self, other: int) -> Bits:
        return self.combine("shl", other)

    def __and__(self, other: int) -> Bits:
        return self.combine("and", other)

    def __or__(self, other: int) -> Bits:
        return self.combine("or", other)

    def __xor__(self, other: Bits) -> Bits:
        return self.combine("xor", other)

    def __neg__(self) -> Bits:
        zero = Bits(self.code, f"splat (i{self.width} 0)", self.width)
        return zero - self

    def is_nonzero(self) -> Mask:
        test = f"icmp ne {self.type} {self}, splat (i{self.width} 0)"
        return Mask(self.code, self.code.assign(test))

    def resized(self, instruction: str, width: int) -> Bits:
        """instruction: `zext` or `trunc`."""
        kind = self.code.lanes_of(f"i{width}")
        name = self.code.assign(f"{instruction} {self.type} {self} to {kind}")
        return Bits(self.code, name, width)

    def converted(self, instruction: str) -> Vector:
        """The numbers nearest to these whole numbers; instruction: `uitofp` or
        `sitofp`."""
        kind = self.code.number_type.vector
        name = self.code.assign(f"{instruction} {self.type} {self} to {kind}")
        return Vector(self.code, name)

    def as_numbers(self) -> Vector:
        """The numbers that have these bits."""
        return self.converted("bitcast")


Kind = TypeVar("Kind", bound=Value)


class Variable(Generic[Kind]):
    """A place on the stack, for a value that changes in a loop."""

    def __init__(self, code: Code, kind: type[Kind]) -> None:
        self.code = code
        self.kind = kind
        self.type = kind.type_in(code)
        self.address = code.assign(f"alloca {self.type}")

    def get(self) -> Kind:
        name = self.code.assign(f"load {self.type}, ptr {self.address}")
        return self.kind(self.code, name)

    def set(self, value: object) -> None:
        """value: of the kind, or a constant as LLVM writes it."""
        self.code.emit(f"store {self.type} {value}, ptr {self.address}")
