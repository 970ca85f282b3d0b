"""A whole module of LLVM IR for one kind of brain."""

from __future__ import annotations

from cingulum.simulation.compiler.adjoint import backward
from cingulum.simulation.compiler.delays import gather, scatter
from cingulum.simulation.compiler.ir import NumberType
from cingulum.simulation.compiler.layout import KernelSpec, Shape
from cingulum.simulation.compiler.loop import forward
from cingulum.simulation.compiler.machine_code import Target
from cingulum.simulation.compiler.mathematics import LIBRARY_FUNCTIONS
from cingulum.simulation.compiler.noise import draw
from cingulum.simulation.compiler.pointwise import arrays_of, pointwise_code
from cingulum.simulation.compiler.product import product_code
from cingulum.simulation.compiler.tracing import Equations, Form


def write_module(equations: Equations, form: Form, shape: Shape, target: Target) -> str:
    """The text of a module with the functions `forward` and, if gradients were traced,
    `backward`."""
    pointwise_functions = {**equations.forward, **equations.backward}
    arguments = {
        name: arrays_of(function, form)
        for name, function in pointwise_functions.items()
    }
    spec = KernelSpec(form, shape, target, arguments)
    functions = _forward_functions(spec, equations)
    if equations.backward:
        functions += _backward_functions(spec, equations)
    if shape.delayed:
        functions.append(gather(spec))
        if equations.backward:
            functions.append(scatter(spec))
    parts = [_declarations(shape.number_type), *functions, _attributes(target), ""]
    return "\n\n".join(parts)


def _forward_functions(spec: KernelSpec, equations: Equations) -> list[str]:
    functions = [
        pointwise_code(spec, function) for function in equations.forward.values()
    ]
    multiply = product_code(spec, "multiply", adds=False)
    return [*functions, multiply, draw(spec), forward(spec)]


def _backward_functions(spec: KernelSpec, equations: Equations) -> list[str]:
    functions = [
        pointwise_code(spec, function) for function in equations.backward.values()
    ]
    multiply_add = product_code(spec, "multiply_add", adds=True)
    return [*functions, multiply_add, backward(spec)]


def _declarations(kind: NumberType) -> str:
    """Functions of LLVM and of the C library that are called."""
    vector, scalar, suffix = kind.vector, kind.scalar, kind.suffix
    addresses, mask = f"<{kind.lanes} x ptr>", f"<{kind.lanes} x i1>"
    indexed = f"{suffix}.v{kind.lanes}p0"
    rounding = [
        f"declare {vector} @llvm.{name}.{suffix}({vector})"
        for name in ("rint", "floor", "ceil", "trunc")
    ]
    library = [
        f"declare double @{name}({', '.join(['double'] * operands)})"
        for name, operands in LIBRARY_FUNCTIONS.items()
    ]
    return "\n".join(
        [
            *rounding,
            *library,
            "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)",
            "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
            f"declare {vector} @llvm.sqrt.{suffix}({vector})",
            f"declare {vector} @llvm.fabs.{suffix}({vector})",
            f"declare {scalar} @llvm.vector.reduce.fadd.{suffix}({scalar}, {vector})",
            f"declare {vector} @llvm.masked.gather.{indexed}"
            f"({addresses}, i32, {mask}, {vector})",
            f"declare void @llvm.masked.scatter.{indexed}"
            f"({vector}, {addresses}, i32, {mask})",
        ]
    )


def _attributes(target: Target) -> str:
    # LLVM prefers vectors of 32 bytes even where 64 are to be had.
    bits = str(8 * target.vector_bytes)
    return (
        f'attributes #0 = {{ nounwind "prefer-vector-width"="{bits}" '
        f'"min-legal-vector-width"="{bits}" }}'
    )
