"""Kernels by what they are made for: traced, written and compiled once, from memory or
from disk afterwards."""

from __future__ import annotations

import ctypes
from collections.abc import Hashable
from dataclasses import dataclass, fields

import numpy as np
import torch

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import Dynamics, parameters, resting
from cingulum.content import key_or_none
from cingulum.simulation.compiler import machine_code
from cingulum.simulation.compiler.arguments import KernelArguments
from cingulum.simulation.compiler.ir import NumberType
from cingulum.simulation.compiler.layout import Shape
from cingulum.simulation.compiler.module_text import write_module
from cingulum.simulation.compiler.tracing import Equations, Form, trace
from cingulum.simulation.state import Run, SimulationState, history_slots

KERNEL_FUNCTION = ctypes.CFUNCTYPE(
    ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
)
"""The address of a table, and the first and last segment of a call."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """Machine code for one form and shape, and the text it was made from."""

    form: Form
    shape: Shape
    equations: Equations
    text: str
    code: machine_code.LoadedCode

    def call(self, name: str, table: np.ndarray, start: int, stop: int) -> int:
        """Call `forward` or `backward` for the segments from start to stop − 1."""
        # ctypes releases the interpreter's lock, so that threads run side by side.
        function = KERNEL_FUNCTION(self.code.addresses[name])
        return int(function(table.ctypes.data, start, stop))


_kernels: dict[Hashable, Kernel] = {}
_traced: dict[Hashable, Equations] = {}


def kernel_for(brain: Brain, scheme: str = "euler") -> Kernel:
    """The kernel that a run of this brain from rest would use."""
    x = brain.resting_state()
    start = SimulationState(x, resting(brain.sensor.response, x[0]), 0)
    delays = brain.delays()
    # The clock and the length of a run are no part of its kernel.
    run = Run(
        brain,
        start,
        dt=0.001,
        per_vascular=1,
        per_tr=1,
        volumes=1,
        scheme=scheme,
        seed=0,
        delays=delays,
        slots=0 if delays is None else history_slots(delays),
    )
    return kernel_of(KernelArguments.of(run), machine_code.host())


def kernel_of(arguments: KernelArguments, target: machine_code.Target) -> Kernel:
    """The kernel that fits, from memory, from disk, or made now."""
    form = _form(arguments)
    shape = _shape(arguments, form, target)
    models = _identity(arguments.mass), _identity(arguments.response)
    key = (models, form, shape, target)
    if key not in _kernels:
        equations = _equations(arguments, form, (models, form))
        text = write_module(equations, form, shape, target)
        code = machine_code.load(text, target, gradient=form.gradient)
        _kernels[key] = Kernel(form, shape, equations, text, code)
    return _kernels[key]


def _equations(arguments: KernelArguments, form: Form, key: Hashable) -> Equations:
    # Tracing takes longest, and shapes and targets share it.
    if key not in _traced:
        _traced[key] = trace(arguments.mass, arguments.response, form)
    return _traced[key]


def _form(arguments: KernelArguments) -> Form:
    wanted = arguments.wanted
    return Form(
        scheme=arguments.scheme,
        stimulated=arguments.has("stimulus"),
        noisy=arguments.noisy,
        mass=tuple(parameters(arguments.mass)),
        response=tuple(parameters(arguments.response)),
        wanted=tuple(path for path in arguments.paths if path in wanted),
        stimulus_gradient="stimulus" in wanted,
        gradient=bool(wanted),
    )


def _shape(
    arguments: KernelArguments, form: Form, target: machine_code.Target
) -> Shape:
    x, wanted = arguments["x"], arguments.wanted
    bits = 32 if x.dtype == torch.float32 else 64
    return Shape(
        regions=x.shape[-1],
        states=x.shape[0],
        vascular=arguments["y"].shape[0],
        couplings=arguments.mass.couplings,
        number_type=NumberType(bits, 8 * target.vector_bytes // bits),
        regional=tuple(_is_regional(arguments, path) for path in form.parameters),
        delayed=arguments.has("delays"),
        weights_gradient="weights" in wanted,
        delays_gradient="delays" in wanted,
    )


def _is_regional(arguments: KernelArguments, path: str) -> bool:
    """Whether a parameter has one value per region; time steps, which are no arguments,
    have not."""
    return arguments.has(path) and arguments[path].shape[1] > 1


def _identity(model: Dynamics) -> Hashable:
    """What the equations of a model depend on, beside its parameters: the code that
    they call, and the values that are built into it."""
    declared = parameters(model)
    # mypy does not know that every model is a dataclass.
    names = [field.name for field in fields(model)]  # type: ignore[arg-type]
    fixed = {n: getattr(model, n) for n in names if n not in declared}
    key = key_or_none(type(model), fixed)
    # Nothing says whether such a model is still the same: it is traced anew.
    return object() if key is None else key
