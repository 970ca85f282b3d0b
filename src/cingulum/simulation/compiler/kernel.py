"""A whole module of LLVM IR for one kind of brain."""

from __future__ import annotations

from cingulum.simulation.compiler.adjoint import Adjoint
from cingulum.simulation.compiler.machine_code import Target
from cingulum.simulation.compiler.parts import Shape
from cingulum.simulation.compiler.tracing import Equations, Form


def module(equations: Equations, form: Form, shape: Shape, target: Target) -> str:
    """The text of a module with the functions `forward` and, if gradients were traced,
    `backward`."""
    writer = Adjoint(form, shape, target)
    parts = [writer.pointwise(p) for p in equations.forward.values()]
    parts += [writer.product("multiply", False), writer.noise(), writer.forward()]
    if equations.backward:
        parts += [writer.pointwise(p) for p in equations.backward.values()]
        parts += [writer.product("multiply_add", True), writer.backward()]
    if shape.delayed:
        parts += [writer.gather(), *([writer.scatter()] if equations.backward else [])]
    n = shape.numbers
    declared = [
        "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)",
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        *(
            f"declare {n.vector} @llvm.{f}.{n.suffix}({n.vector})"
            for f in ("sqrt", "fabs")
        ),
        f"declare {n.scalar} @llvm.vector.reduce.fadd.{n.suffix}({n.scalar}, "
        f"{n.vector})",
        f"declare {n.vector} @llvm.masked.gather.{n.suffix}.v{n.lanes}p0(<{n.lanes} x "
        f"ptr>, i32, <{n.lanes} x i1>, "
        f"{n.vector})",
        f"declare void @llvm.masked.scatter.{n.suffix}.v{n.lanes}p0({n.vector}, "
        f"<{n.lanes} x ptr>, i32, "
        f"<{n.lanes} x i1>)",
    ]
    wide = str(8 * target.vector_bytes)
    attributes = (
        f'attributes #0 = {{ nounwind "prefer-vector-width"="{wide}" '
        f'"min-legal-vector-width"="{wide}" }}'
    )
    return "\n\n".join(["\n".join(declared), *parts, attributes, ""])
