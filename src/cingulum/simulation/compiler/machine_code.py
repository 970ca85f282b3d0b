"""From LLVM IR to machine code: for this processor or another, kept on disk so that it
is compiled once."""

from __future__ import annotations

import ctypes
import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cingulum.private_cache import cache_root, is_trusted, remove
from cingulum.simulation.compiler.mathematics import LIBRARY_FUNCTIONS

try:
    import llvmlite.binding as llvm
except ImportError:  # no wheel for this platform: the reference engine does everything
    llvm = None

CHECKSUM_BYTES = 32
"""Of the SHA-256 in front of every object that is kept."""

VECTOR_BYTES = {"x86-64": 16, "x86-64-v2": 16, "x86-64-v3": 32, "x86-64-v4": 64}
"""Of generic processors, by LLVM's names."""


@dataclass(frozen=True)
class Target:
    """A processor: its name and features for LLVM, the bytes of a vector, and how many
    vectors it has at hand."""

    cpu: str
    features: str
    vector_bytes: int
    registers: int

    @property
    def has_many_registers(self) -> bool:
        return self.registers >= 32

    @property
    def tile_rows(self) -> tuple[int, ...]:
        """Rows of a matrix product that are worked on together, largest first."""
        return (8, 4, 1) if self.has_many_registers else (4, 1)

    def tile_vectors(self, rows: int) -> int:
        """Vectors of each of these rows that fit into the registers beside what is
        loaded."""
        for_loads = 8 if self.has_many_registers else 4
        free = self.registers - for_loads
        # A single row would otherwise take all of them, and code would grow.
        return max(1, min(14, free // rows))


def available() -> bool:
    """Whether machine code can be made on this platform."""
    return llvm is not None


@cache
def host() -> Target:
    """The processor that this runs on."""
    _initialise()
    features = llvm.get_host_cpu_features()
    is_arm = "neon" in features or "aarch64" in llvm.get_process_triple()
    vector_bytes = _widest_vector(features)
    registers = 32 if vector_bytes == 64 or is_arm else 16
    name = llvm.get_host_cpu_name()
    return Target(name, features.flatten(), vector_bytes, registers)


def processor() -> str:
    """What the last bits of a simulation depend on; empty where no machine code is
    made."""
    return repr(host()) if available() else ""


def _widest_vector(features: Any) -> int:
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") else 16


def older(cpu: str) -> Target:
    """A generic processor by LLVM's name: `x86-64` (SSE2), `x86-64-v3` (AVX2),
    `x86-64-v4` (AVX-512)."""
    vector_bytes = VECTOR_BYTES[cpu]
    registers = 32 if vector_bytes == 64 else 16
    return Target(cpu, "", vector_bytes, registers)


@cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # None is what is loaded already: the C library among it, which Python itself uses.
    library = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("ucrtbase")
    for name in LIBRARY_FUNCTIONS:
        function = getattr(library, name)
        address = ctypes.cast(function, ctypes.c_void_p).value
        llvm.add_symbol(name, address)


@dataclass(frozen=True, eq=False)
class LoadedCode:
    """Machine code in memory. Holds LLVM's engine, without which the addresses would be
    gone."""

    engine: object
    addresses: dict[str, int]


def load(text: str, target: Target, *, gradient: bool) -> LoadedCode:
    """Machine code for an IR module: from disk if it was compiled before, else compiled
    and kept."""
    _initialise()
    machine = _machine(target)
    code = _object(text, target, machine)
    # An engine needs a module to begin with, and objects are added to it.
    empty = llvm.parse_assembly("")
    empty.triple = llvm.get_process_triple()
    engine = llvm.create_mcjit_compiler(empty, machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    names = ["forward"]
    if gradient:
        names.append("backward")
    addresses = {name: engine.get_function_address(name) for name in names}
    return LoadedCode(engine, addresses)


def _object(text: str, target: Target, machine: Any) -> bytes:
    """A kept object, or a new one, which is kept."""
    folder = cache_folder()
    if folder is None:
        return compile_object(text, machine)
    # Compiling takes about a second, loading a few milliseconds.
    path = folder / f"{key(text, target)}.o"
    code = read(path)
    if code is None:
        code = compile_object(text, machine)
        keep(path, code)
    return code


def _machine(target: Target) -> Any:
    """LLVM's target machine for a processor."""
    triple = llvm.Target.from_triple(llvm.get_process_triple())
    return triple.create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=3,
        reloc="pic",
        # The loader chooses the addresses.
        codemodel="jitdefault",
    )


def compile_object(text: str, machine: Any) -> bytes:
    """Optimise a module for a target machine; the bytes of an object file."""
    module = _parse(text, machine)
    module.verify()
    _optimise(module, machine)
    return bytes(machine.emit_object(module))


def assembly(text: str, target: Target) -> str:
    """The assembler text of a module, to look at."""
    _initialise()
    machine = _machine(target)
    module = _parse(text, machine)
    _optimise(module, machine)
    return str(machine.emit_assembly(module))


def _parse(text: str, machine: Any) -> Any:
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    return module


def _optimise(module: Any, machine: Any) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    # The text is written in vectors already.
    options.slp_vectorization = False
    options.loop_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def key(text: str, target: Target) -> str:
    """What machine code depends on: the module, the processor, and who compiles it."""
    # Of the two versions, llvmlite's is not in every release.
    llvmlite_version = getattr(llvm, "__version__", "")
    versions = f"{llvmlite_version} {llvm.llvm_version_info}"
    parts = [text, target.cpu, target.features, versions]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def cache_folder() -> Path | None:
    """Where compiled objects are kept: CINGULUM_CACHE, or `engine` in the user's cache;
    None for a user without a home."""
    if os.environ.get("CINGULUM_CACHE"):
        return cache_root()
    root = cache_root()
    return None if root is None else root / "engine"


def read(path: Path) -> bytes | None:
    """A kept object of this user's whose checksum is right. A damaged one, or one that
    another user put there, is removed and never executed."""
    # Whoever may write there could have put the checksum there, too.
    if not is_trusted(path.parent):
        return None
    try:
        content = path.read_bytes()
    except OSError:
        return None
    checksum, code = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
    if is_trusted(path) and hashlib.sha256(code).digest() == checksum:
        return code
    remove(path)
    return None


def keep(path: Path, code: bytes) -> None:
    """Write an object so that another process sees all of it or nothing. A full or
    read-only disk is no error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Written under another name and renamed, which no reader sees half done.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(hashlib.sha256(code).digest() + code)
            stream.flush()
            # A rename may reach the disk before what was written.
            os.fsync(stream.fileno())
        os.replace(stream.name, path)
