"""From LLVM IR to machine code: for this processor or another, kept on disk so that it
is made once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

try:
    import llvmlite.binding as llvm
except ImportError:  # no wheel for this platform: the reference engine does everything
    llvm = None

CHECK = 32
"""Bytes of SHA-256 in front of every kept object."""


@dataclass(frozen=True)
class Target:
    """A processor: its name and features for LLVM, the bytes of a vector, and how many
    vectors it has at hand."""

    cpu: str
    features: str
    vector_bytes: int
    registers: int

    @property
    def tile_rows(self) -> tuple[int, ...]:
        """Rows of a matrix product that are worked on together, largest first."""
        return (8, 4, 1) if self.registers >= 32 else (4, 1)

    def tile_vectors(self, rows: int) -> int:
        """Vectors of each of these rows that fit into the registers beside what is
        loaded."""
        free = self.registers - (8 if self.registers >= 32 else 4)
        return max(1, min(14, free // rows))


def available() -> bool:
    return llvm is not None


@cache
def host() -> Target:
    """The processor that this runs on."""
    _initialise()
    found = llvm.get_host_cpu_features()
    arm = "neon" in found or "aarch64" in llvm.get_process_triple()
    wide = 64 if found.get("avx512f") else 32 if found.get("avx2") else 16
    registers = 32 if wide == 64 or arm else 16
    return Target(llvm.get_host_cpu_name(), found.flatten(), wide, registers)


def older(cpu: str) -> Target:
    """A generic processor by LLVM's name: `x86-64` (SSE2), `x86-64-v3` (AVX2),
    `x86-64-v4` (AVX-512)."""
    wide = {"x86-64": 16, "x86-64-v2": 16, "x86-64-v3": 32, "x86-64-v4": 64}[cpu]
    return Target(cpu, "", wide, 32 if wide == 64 else 16)


@cache
def _initialise() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


@dataclass(frozen=True, eq=False)
class Loaded:
    """Machine code in memory. Holds the engine, without which the addresses would be
    gone."""

    engine: object
    addresses: dict[str, int]


def load(text: str, target: Target, *, gradient: bool) -> Loaded:
    """Machine code for an IR module: from disk if it was made before, else compiled and
    kept."""
    _initialise()
    path = cache_folder() / f"{key(text, target)}.o"
    machine = _machine(target)
    code = read(path)
    if code is None:
        code = compile_object(text, machine)
        keep(path, code)
    empty = llvm.parse_assembly("")
    empty.triple = llvm.get_process_triple()
    engine = llvm.create_mcjit_compiler(empty, machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    names = ["forward", "backward"] if gradient else ["forward"]
    return Loaded(engine, {name: engine.get_function_address(name) for name in names})


def _machine(target: Target):  # type: ignore[no-untyped-def]
    found = llvm.Target.from_triple(llvm.get_process_triple())
    return found.create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=3,
        reloc="pic",
        codemodel="jitdefault",
    )


def compile_object(text: str, machine) -> bytes:  # type: ignore[no-untyped-def]
    """Optimise a module for a target machine; the bytes of an object file."""
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    optimise(module, machine)
    return bytes(machine.emit_object(module))


def optimise(module, machine) -> None:  # type: ignore[no-untyped-def]
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.slp_vectorization = options.loop_vectorization = (
        False  # vectors are explicit here
    )
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)


def assembly(text: str, target: Target) -> str:
    """The assembler text of a module, to look at."""
    _initialise()
    machine = _machine(target)
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    optimise(module, machine)
    return str(machine.emit_assembly(module))


def key(text: str, target: Target) -> str:
    """What machine code depends on: the module, the processor, and who compiles it."""
    versions = (
        f"{llvm.__version__ if hasattr(llvm, '__version__') else ''} "
        f"{llvm.llvm_version_info}"
    )
    return hashlib.sha256(
        "\0".join([text, target.cpu, target.features, versions]).encode()
    ).hexdigest()


def cache_folder() -> Path:
    """Where compiled objects are kept: CINGULUM_CACHE, or `engine` in the user's
    cache."""
    named = os.environ.get("CINGULUM_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(named) if named else base / "cingulum" / "engine"


def read(path: Path) -> bytes | None:
    """A kept object whose checksum is right. A damaged one is removed and never
    executed."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[CHECK:]).digest() == content[:CHECK]:
        return content[CHECK:]
    with suppress(OSError):
        path.unlink()
    return None


def keep(path: Path, code: bytes) -> None:
    """Write an object so that another process sees all of it or nothing. A full or
    read-only disk is no error."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            stream.write(hashlib.sha256(code).digest() + code)
        os.replace(stream.name, path)
