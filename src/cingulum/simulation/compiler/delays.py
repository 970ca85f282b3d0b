"""Coupling with delays as LLVM IR: every pair of regions reads the past at its own
moment, between two steps."""

from __future__ import annotations

from dataclasses import dataclass

from cingulum.simulation.compiler.ir import (
    Bits,
    Code,
    Integer,
    Pointer,
    Value,
    Variable,
    Vector,
)
from cingulum.simulation.compiler.layout import KernelSpec

GATHER_ARGUMENTS = (
    "ptr %weights, ptr %offsets, ptr %parts, ptr %outputs, ptr noalias %received, "
    "i64 %back"
)
SCATTER_ARGUMENTS = (
    "ptr %weights, ptr %offsets, ptr %parts, ptr %outputs, ptr %g, ptr %g_outputs, "
    "i64 %back, ptr %g_weights, ptr %g_delays"
)


def gather(spec: KernelSpec) -> str:
    """What one simulation receives: received_i = Σ_j weights_ij · output_j, delay_ij
    steps ago.

    offsets: from a region's present output to that of the whole steps ago; parts: what
    is left of each delay, between 0 and 1 step; back: from one step to the step before
    """
    code, shape = Code(spec.shape.number_type), spec.shape
    with code.loop(0, shape.regions) as i:
        row = i * shape.width
        total = Variable(code, Vector)
        total.set("zeroinitializer")
        with code.loop(0, shape.vectors) as panel:
            pairs = _Pairs.load(code, row + panel * shape.number_type.lanes)
            recent, older = pairs.past_outputs()
            # Linear between two steps, so that delays have a gradient.
            value = recent + pairs.part * (older - recent)
            total.set(total.get() + pairs.weight * value)
        scalar = _sum_of_lanes(total.get())
        kind, received = shape.number_type.scalar, code.pointer("received").at(i)
        code.emit(f"store {kind} {scalar}, ptr {received}")
    return code.function(f"gather({GATHER_ARGUMENTS})")


def _sum_of_lanes(vector: Vector) -> str:
    code = vector.code
    kind = code.number_type
    # -0.0 is the number that changes no sum; reassoc allows a tree of additions.
    return code.assign(
        f"call reassoc {kind.scalar} @llvm.vector.reduce.fadd.{kind.suffix}"
        f"({kind.scalar} {kind.literal(-0.0)}, {kind.vector} {vector})"
    )


@dataclass(frozen=True, eq=False)
class _Addresses(Value):
    """An address in every lane."""

    def load(self) -> Vector:
        code = self.code
        kind, lanes = code.number_type, code.number_type.lanes
        name = code.assign(
            f"call {kind.vector} @llvm.masked.gather.{kind.suffix}.v{lanes}p0"
            f"(<{lanes} x ptr> {self}, i32 {kind.bytes}, "
            f"<{lanes} x i1> splat (i1 true), {kind.vector} poison)"
        )
        return Vector(code, name)

    def add(self, value: Vector) -> None:
        """Add to what is stored there. The regions of a vector have different
        addresses."""
        code = self.code
        kind, lanes = code.number_type, code.number_type.lanes
        total = self.load() + value
        code.emit(
            f"call void @llvm.masked.scatter.{kind.suffix}.v{lanes}p0"
            f"({kind.vector} {total}, <{lanes} x ptr> {self}, i32 {kind.bytes}, "
            f"<{lanes} x i1> splat (i1 true))"
        )


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The connections from a vector of regions to one region.

    weight: of each; part: of a step by which the delay exceeds whole steps
    offset: to the output of the whole steps ago; older: one step further
    """

    code: Code
    weight: Vector
    part: Vector
    offset: Bits
    older: Bits

    @classmethod
    def load(cls, code: Code, place: Integer) -> _Pairs:
        weight = code.pointer("weights").at(place).load()
        part = code.pointer("parts").at(place).load()
        words = code.lanes_of("i32")
        offsets = Pointer(code, "%offsets", "i32").at(place)
        # numpy aligns this array for its numbers only, not for vectors.
        offset = Bits(code, code.assign(f"load {words}, ptr {offsets}, align 4"), 32)
        back = code.words_in_every_lane(code.argument("back").word())
        return cls(code, weight, part, offset, offset - back)

    def addresses(self, array: str) -> tuple[_Addresses, _Addresses]:
        """In an array of outputs: where the delay points to, and one step before."""
        return self._address(array, self.offset), self._address(array, self.older)

    def _address(self, array: str, offset: Bits) -> _Addresses:
        element = self.code.number_type.scalar
        name = self.code.assign(
            f"getelementptr {element}, ptr %{array}, {offset.type} {offset}"
        )
        return _Addresses(self.code, name)

    def past_outputs(self) -> tuple[Vector, Vector]:
        """The outputs before and after the moment at which each pair reads."""
        recent, older = self.addresses("outputs")
        return recent.load(), older.load()


def scatter(spec: KernelSpec) -> str:
    """The adjoint of `gather`: adds to the gradients of the past outputs, and where
    wanted of weights and delays."""
    code, shape = Code(spec.shape.number_type), spec.shape
    with code.loop(0, shape.regions) as i:
        row = i * shape.width
        g = code.pointer("g").at(i).load_in_every_lane()
        with code.loop(0, shape.vectors) as panel:
            place = row + panel * shape.number_type.lanes
            _scatter_panel(spec, code, place, g)
    return code.function(f"scatter({SCATTER_ARGUMENTS})")


def _scatter_panel(spec: KernelSpec, code: Code, place: Integer, g: Vector) -> None:
    pairs = _Pairs.load(code, place)
    recent, older = pairs.past_outputs()
    change = older - recent
    if spec.shape.weights_gradient:
        g_weights = code.pointer("g_weights").at(place)
        value = g * (recent + pairs.part * change)
        g_weights.add(value)
    sent = g * pairs.weight
    if spec.shape.delays_gradient:
        g_delays = code.pointer("g_delays").at(place)
        g_delays.store(g_delays.load() + sent * change)
    g_older = sent * pairs.part
    recent_place, older_place = pairs.addresses("g_outputs")
    recent_place.add(sent - g_older)
    older_place.add(g_older)
