"""The compiler: a brain's equations, written in plain torch, as machine code with exact
gradients."""

from __future__ import annotations

from cingulum.brain.brain import Brain
from cingulum.errors import InputError
from cingulum.simulation.compiler import machine_code
from cingulum.simulation.compiler.compiled import run_compiled as run_compiled
from cingulum.simulation.compiler.graph_values import CannotLower as CannotLower
from cingulum.simulation.compiler.kernels import Kernel, kernel_for
from cingulum.simulation.compiler.machine_code import processor as processor

VIEWS = ("steps", "llvm", "assembly")


def show(brain: Brain, what: str = "steps", *, scheme: str = "euler") -> str:
    """What the compiler makes of a brain, to read.

    what: `steps`, the equations of a region as single operations; `llvm`, the whole
    time loop as LLVM IR; `assembly`, the machine code for this processor. Parameters
    that require a gradient bring the adjoint with them.
    """
    if what not in VIEWS:
        raise InputError(f"what must be one of {', '.join(VIEWS)}; got {what!r}.")
    kernel = kernel_for(brain, scheme)
    if what == "llvm":
        return kernel.text
    if what == "assembly":
        return machine_code.assembly(kernel.text, machine_code.host())
    return _listing(kernel)


def _listing(kernel: Kernel) -> str:
    functions = {**kernel.equations.forward, **kernel.equations.backward}
    return "\n\n".join(function.listing() for function in functions.values())
