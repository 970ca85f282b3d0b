"""MATLAB files of version 5 to 7 (not 7.3, which is HDF5): arrays of numbers, texts and
cells of texts, in Python alone.

`scipy.io.loadmat` (1.17.1) reads outside of its memory where such a file is damaged:
the eleventh of our random damages ended the process. It cannot be given files of
others. Layout: MathWorks, "MAT-File Format", level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

HEADER_BYTES = 128

BUDGET = 256 * 1024**2
"""Bytes that a file may unpack to."""

MATRIX, COMPRESSED = 14, 15

NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}

CELL, CHARACTERS = 1, 4
NUMERIC_CLASSES = range(6, 16)

COMPLEX = 0x0800


class MatError(ValueError):
    """What is wrong with a file, in words."""


Content = np.ndarray | tuple[str, ...]
"""An array of numbers, or texts: the rows of a character array, or the cells of a
list."""


class _Element(NamedTuple):
    kind: int
    data: memoryview


def read_mat(content: bytes) -> dict[str, Content]:
    """Variables by name; those of other kinds (structures, objects, sparse and complex
    arrays) are left out.

    Raises MatError for another kind of file, one that is damaged, and one that unpacks
    to more than BUDGET.
    """
    order = _byte_order(content)
    left = BUDGET
    variables: dict[str, Content] = {}
    for element in _elements(memoryview(content)[HEADER_BYTES:], order, is_file=True):
        data = element.data
        if element.kind == COMPRESSED:
            data = memoryview(_unpacked(data, left))
            left -= len(data)
            inner = next(_elements(data, order), None)
            if inner is None:
                raise MatError("an element of it is empty")
            element = inner
        if element.kind == MATRIX:
            variable = _Matrix.of(element.data, order)
            value = variable.content(order)
            if value is not None:
                variables[variable.name] = value
    return variables


def _byte_order(content: bytes) -> str:
    """`<` or `>`, as `struct` has them."""
    if content[:8] == b"\x89HDF\r\n\x1a\n" or b"MATLAB 7.3" in content[:HEADER_BYTES]:
        raise MatError("it is of MATLAB 7.3; save it with '-v7'")
    mark = content[126:128]
    if len(content) < HEADER_BYTES or mark not in (b"IM", b"MI"):
        raise MatError("it does not begin as a MATLAB file of version 5")
    return "<" if mark == b"IM" else ">"


def _unpacked(data: memoryview, most: int) -> bytes:
    unpacker = zlib.decompressobj()
    # At most one byte too many, whatever the file claims.
    unpacked = unpacker.decompress(data, most + 1)
    if len(unpacked) > most:
        raise MatError(f"it unpacks to more than {BUDGET // 1024**2} MiB")
    if not unpacker.eof:
        raise MatError("a compressed element of it is cut short")
    return unpacked


def _elements(
    data: memoryview, order: str, is_file: bool = False
) -> Iterator[_Element]:
    """The elements of a file, or of an array, one after the other."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        # A short one has its size, and its content, in the tag.
        is_short = kind > 0xFFFF
        begin = at + 4 if is_short else at + 8
        if is_short:
            kind, size = kind & 0xFFFF, kind >> 16
        if size > len(data) - begin or (is_short and size > 4):
            raise MatError("an element of it claims more bytes than there are")
        yield _Element(kind, data[begin : begin + size])
        if is_short:
            at += 8
        elif is_file and kind == COMPRESSED:
            at = begin + size
        else:
            at = begin + size + -size % 8


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A variable: its class, dimensions, name, and the elements that hold its
    values."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    values: list[_Element]

    @staticmethod
    def of(data: memoryview, order: str) -> _Matrix:
        elements = list(_elements(data, order))
        if len(elements) < 3:
            raise MatError("a variable of it has no name")
        flags, dimensions, name, *values = elements
        if len(flags.data) < 4:
            raise MatError("a variable of it has no class")
        (word,) = struct.unpack_from(f"{order}I", flags.data)
        shape = tuple(_numbers(dimensions, order).astype(int).tolist())
        if not shape or min(shape) < 0:
            raise MatError("a variable of it has no size")
        text = bytes(name.data).decode("utf-8", errors="replace")
        return _Matrix(word & 0xFF, bool(word & COMPLEX), shape, text, values)

    def content(self, order: str) -> Content | None:
        """Its values; None for what is not read."""
        if self.kind == CELL:
            return self._cells(order)
        if self.kind == CHARACTERS:
            return self._rows(order)
        if self.kind in NUMERIC_CLASSES and not self.is_complex:
            return self._array(order)
        return None

    def _array(self, order: str) -> np.ndarray:
        numbers = _numbers(self._only_value(), order)
        return self._in_shape(numbers)

    def _in_shape(self, values: np.ndarray) -> np.ndarray:
        # In Python's whole numbers, which do not overflow.
        count = 1
        for size in self.shape:
            count *= size
        if count != len(values):
            raise MatError(
                f"{self.name} has {len(values)} values for its size {self.shape}"
            )
        return values.reshape(self.shape, order="F")

    def _only_value(self) -> _Element:
        if not self.values:
            raise MatError(f"{self.name} has no values")
        return self.values[0]

    def _rows(self, order: str) -> tuple[str, ...]:
        """The rows of an array of characters, without the blanks behind them."""
        element = self._only_value()
        if element.kind in TEXTS:
            characters = np.array(list(_decoded(element, order)))
        else:
            codes = _numbers(element, order)
            characters = np.array([chr(int(code) % 0x110000) for code in codes])
        if len(self.shape) != 2:
            raise MatError(f"{self.name} is no list of texts")
        rows = self._in_shape(characters)
        return tuple("".join(row).rstrip() for row in rows)

    def _cells(self, order: str) -> tuple[str, ...] | None:
        """The texts of a list of cells; None where any is no text."""
        texts = []
        for element in self.values:
            if element.kind != MATRIX:
                return None
            cell = _Matrix.of(element.data, order)
            if cell.kind != CHARACTERS:
                return None
            texts.append("".join(cell._rows(order)))
        return tuple(texts)


def _numbers(element: _Element, order: str) -> np.ndarray:
    kind = NUMBERS.get(element.kind)
    if kind is None:
        raise MatError("numbers of it are of an unknown type")
    number_type = np.dtype(f"{order}{kind}")
    whole = len(element.data) // number_type.itemsize * number_type.itemsize
    return np.frombuffer(element.data[:whole], number_type)


def _decoded(element: _Element, order: str) -> str:
    encoding = TEXTS[element.kind]
    if element.kind != 16:
        encoding += "-le" if order == "<" else "-be"
    return bytes(element.data).decode(encoding, errors="replace")
