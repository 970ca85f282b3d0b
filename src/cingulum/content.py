"""Digests of values and of code, so that what is kept is used only for what it was
made of.

A function counts by what it does: its code, the values it has hold of, and the
functions and values of its module that it uses. Software that is installed counts by
its version, and this package by its source.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np

PACKAGE = "cingulum"

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, slice)

CACHED = {"_cached_x_y", "_inv", "_validate_args"}
"""Attributes of distributions that depend on what they were used for."""

WITHOUT_INFLUENCE = {"cli", "report"}
"""Parts of this package on which no kept number depends."""


class NoContent(TypeError):
    """A value of which nothing says whether it is still the same."""


def content_digest(*values: object) -> str:
    """SHA-256 of the content of values nested in any way.

    Raises NoContent for a value that cannot be compared, such as an open file.
    """
    return _Walk().digest(values).hex()


@cache
def source_digest() -> str:
    """SHA-256 of this package's source, which changes where its version does not: from
    commit to commit."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        relative = path.relative_to(folder)
        if relative.parts[0] not in WITHOUT_INFLUENCE:
            digest.update(f"{relative.as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


class _Walk:
    """A value's content as pieces of bytes, in an order that depends on nothing else.

    known: digests by address, with the values themselves, so that no address is used
        for another value meanwhile
    under_way: addresses of the values that are being gone through, outermost first: a
        function that calls itself is met again inside itself
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[object, bytes]] = {}
        self.under_way: list[int] = []

    def digest(self, value: object) -> bytes:
        address = id(value)
        if address not in self.known:
            self.under_way.append(address)
            digest = hashlib.sha256()
            for piece in self._of_object(value):
                # Lengths keep neighbouring pieces apart.
                digest.update(f"{len(piece)}:".encode())
                digest.update(piece)
            self.under_way.pop()
            self.known[address] = value, digest.digest()
        return self.known[address][1]

    def pieces(self, value: object) -> Iterator[bytes]:
        if isinstance(value, PLAIN):
            yield f"{type(value).__name__} {value!r}".encode()
        elif id(value) in self.under_way:
            yield f"inside itself {self.under_way.index(id(value))}".encode()
        else:
            yield self.digest(value)

    def _of_object(self, value: Any) -> Iterator[bytes]:
        if _is_of_torch(value, "Tensor"):
            yield f"tensor {value.dtype} {tuple(value.shape)}".encode()
            yield value.detach().cpu().contiguous().numpy().tobytes()
        elif isinstance(value, np.ndarray) and value.dtype != object:
            yield f"array {value.dtype.str} {value.shape}".encode()
            yield np.ascontiguousarray(value).tobytes()
        elif isinstance(value, np.generic):
            yield f"number {value.dtype.str} {value!r}".encode()
        elif isinstance(value, tuple | list | np.ndarray):
            yield f"{type(value).__name__} {len(value)}".encode()
            for part in value:
                yield from self.pieces(part)
        elif isinstance(value, dict | types.MappingProxyType):
            yield f"dict {len(value)}".encode()
            for key, part in value.items():
                yield from self.pieces(key)
                yield from self.pieces(part)
        elif isinstance(value, set | frozenset):
            yield f"set {len(value)}".encode()
            # A set has no order; its members' own digests have.
            yield from sorted(_Walk().digest([part]) for part in value)
        elif isinstance(value, PurePath) or _is_of_torch(value, "dtype", "device"):
            yield f"{type(value).__name__} {value}".encode()
        else:
            yield from self._of_code_or_instance(value)

    def _of_code_or_instance(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, types.FunctionType):
            yield from self._of_function(value)
        elif isinstance(value, type):
            yield from self._of_class(value)
        elif isinstance(value, types.ModuleType):
            yield f"module {value.__name__} {_version(value.__name__)}".encode()
        elif isinstance(value, types.CodeType):
            yield from self._of_code(value)
        elif isinstance(value, WRAPPERS):
            yield repr(type(value)).encode()
            yield from self.pieces(_wrapped(value))
        elif callable(value) and hasattr(value, "__wrapped__"):
            # What a decorator such as `functools.cache` stands before.
            yield type(value).__name__.encode()
            yield from self.pieces(value.__wrapped__)
        elif callable(value) and hasattr(value, "__qualname__"):
            module = getattr(value, "__module__", None) or ""
            version = _version(module)
            yield f"built in {module}.{value.__qualname__} {version}".encode()
        else:
            yield from self._of_instance(value)

    def _of_function(self, function: types.FunctionType) -> Iterator[bytes]:
        name = f"{function.__module__}.{function.__qualname__}"
        yield f"function {name}".encode()
        inner = getattr(function, "__wrapped__", None)
        if inner is not None:
            yield from self.pieces(inner)
            return
        yield from self.pieces(function.__defaults__)
        yield from self.pieces(function.__kwdefaults__)
        cells = function.__closure__ or ()
        if _is_installed(function):
            yield _version(function.__module__).encode()
        else:
            yield from self._of_code(function.__code__)
            yield from self._of_globals(function)
        for cell in cells:
            # A cell is empty before its variable is assigned.
            with_content = [cell.cell_contents] if _is_filled(cell) else []
            yield from self.pieces(with_content)

    def _of_code(self, code: types.CodeType) -> Iterator[bytes]:
        yield code.co_code
        yield repr(code.co_names + code.co_varnames + code.co_freevars).encode()
        # Constants hold the code of inner functions, too.
        yield from self.pieces(tuple(code.co_consts))

    def _of_globals(self, function: types.FunctionType) -> Iterator[bytes]:
        """What a function uses of its module. Of this package the source is known."""
        if _top_package(function.__module__) == PACKAGE:
            yield source_digest().encode()
            return
        names = set(_names(function.__code__))
        for name in sorted(names & function.__globals__.keys()):
            value = function.__globals__[name]
            yield name.encode()
            if isinstance(value, types.ModuleType) and not _is_installed(value):
                yield from self._of_module(value, names)
            else:
                yield from self.pieces(value)

    def _of_module(self, module: types.ModuleType, names: set[str]) -> Iterator[bytes]:
        """What a function may use of a module that is the user's own."""
        for name in sorted(names & vars(module).keys()):
            yield name.encode()
            yield from self.pieces(vars(module)[name])

    def _of_class(self, kind: type) -> Iterator[bytes]:
        yield f"class {kind.__module__}.{kind.__qualname__}".encode()
        for base in kind.__mro__:
            if _is_installed(base):
                yield f"{base.__qualname__} {_version(base.__module__)}".encode()
                continue
            for name, value in sorted(vars(base).items()):
                if _counts(name):
                    yield name.encode()
                    yield from self.pieces(value)

    def _of_instance(self, value: Any) -> Iterator[bytes]:
        yield from self.pieces(type(value))
        if _is_distribution(value):
            kept = {k: v for k, v in sorted(vars(value).items()) if k not in CACHED}
            yield from self.pieces(kept)
        elif dataclasses.is_dataclass(value):
            for entry in dataclasses.fields(value):
                yield entry.name.encode()
                yield from self.pieces(getattr(value, entry.name))
        elif hasattr(value, "__dict__"):
            yield from self.pieces(dict(sorted(vars(value).items())))
        else:
            raise NoContent(
                f"a {type(value).__module__}.{type(value).__qualname__}, of which "
                "nothing says whether it is still the same"
            )


def _is_of_torch(value: object, *names: str) -> bool:
    # Without torch, which takes seconds to import, there are none of its values.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(
        value, tuple(getattr(torch, name) for name in names)
    )


def _is_distribution(value: object) -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    kinds = torch.distributions.Distribution, torch.distributions.Transform
    return isinstance(value, kinds)


WRAPPERS = (
    types.MethodType,
    functools.partial,
    property,
    staticmethod,
    classmethod,
)
"""What holds a function of the user's, and the values that it is given."""


def _wrapped(value: Any) -> tuple:
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if isinstance(value, property):
        return value.fget, value.fset
    return (value.__func__,)


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _counts(name: str) -> bool:
    """Whether an attribute of a class has a part in what it computes."""
    is_special = name.startswith("__") and name.endswith("__")
    return not is_special and name != "_abc_impl" or name in ("__call__", "__init__")


def _names(code: types.CodeType) -> Iterator[str]:
    """Global names and attributes that code uses, inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _top_package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _is_installed(value: Any) -> bool:
    """Whether a function, class or module belongs to Python or to an installed
    package, whose version stands for its code. This package's does not."""
    if isinstance(value, types.ModuleType):
        module = value.__name__
    else:
        module = value.__module__ or ""
    top = _top_package(module)
    if top == PACKAGE:
        return False
    return top in sys.stdlib_module_names or _lies_among_installed(top)


@cache
def _lies_among_installed(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None)
    # What is typed in or defined by `python -c` has no file.
    if file is None:
        return False
    path = Path(file).resolve()
    return any(path.is_relative_to(folder) for folder in _installed_folders())


@cache
def _installed_folders() -> tuple[Path, ...]:
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple(Path(sysconfig.get_path(name)).resolve() for name in names)


@cache
def _version(module: str) -> str:
    top = _top_package(module)
    if top == PACKAGE:
        return source_digest()
    return str(getattr(sys.modules.get(top), "__version__", ""))


def key_or_none(*values: object) -> str | None:
    """A digest; None for values that cannot be compared."""
    try:
        return content_digest(*values)
    except NoContent:
        return None
