"""Kernels by what they are made for: traced, printed and compiled once, from memory or
from disk afterwards."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, fields

import numpy as np
import torch

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import Dynamics, parameters, resting
from cingulum.simulation.compiler import machine_code
from cingulum.simulation.compiler.given import ARRAYS, KernelArguments
from cingulum.simulation.compiler.kernel import module
from cingulum.simulation.compiler.parts import Shape
from cingulum.simulation.compiler.text import Numbers
from cingulum.simulation.compiler.tracing import Equations, Form, trace
from cingulum.simulation.state import Run, SimulationState, history_slots


@dataclass(frozen=True, eq=False)
class Kernel:
    """Machine code for one form and shape, and the text it was made from."""

    form: Form
    shape: Shape
    equations: Equations
    text: str
    code: machine_code.Loaded

    def call(self, name: str, table: np.ndarray, start: int, stop: int) -> int:
        address = self.code.addresses[name]
        function = ctypes.CFUNCTYPE(
            ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
        )(address)
        return int(function(table.ctypes.data, start, stop))


_kernels: dict[tuple, Kernel] = {}
_traced: dict[tuple, Equations] = {}


def kernel_for(brain: Brain, scheme: str = "euler") -> Kernel:
    """The kernel that a run of this brain from rest would use."""
    x = brain.resting_state()
    delays = brain.delays()
    start = SimulationState(x, resting(brain.sensor.response, x[0]), 0)
    run = Run(
        brain,
        start,
        0.001,
        1,
        1,
        1,
        scheme,
        0,
        delays,
        0 if delays is None else history_slots(delays),
    )
    return kernel_of(KernelArguments.of(run), machine_code.host())


def kernel_of(given: KernelArguments, target: machine_code.Target) -> Kernel:
    """The kernel that fits, from memory, from disk, or made now."""
    wanted = given.wanted
    mass, response = (tuple(parameters(m)) for m in (given.mass, given.response))
    paths = [name for name in given.names if name not in ARRAYS]
    form = Form(
        given.scheme,
        "stimulus" in given.names,
        given.noisy,
        mass,
        response,
        tuple(p for p in paths if p in wanted),
        "stimulus" in wanted,
        bool(wanted),
    )
    x = given["x"]
    bits = 32 if x.dtype == torch.float32 else 64
    shape = Shape(
        x.shape[-1],
        x.shape[0],
        given["y"].shape[0],
        given.mass.couplings,
        Numbers(bits, 8 * target.vector_bytes // bits),
        tuple(p in given.names and given[p].shape[1] > 1 for p in form.parameters),
        "delays" in given.names,
        "weights" in wanted,
        "delays" in wanted,
    )
    code = _code_of(given.mass), _code_of(given.response)
    known = (*code, form, shape, target)
    if known not in _kernels:
        if (*code, form) not in _traced:
            _traced[(*code, form)] = trace(given.mass, given.response, form)
        equations = _traced[(*code, form)]
        text = module(equations, form, shape, target)
        _kernels[known] = Kernel(
            form,
            shape,
            equations,
            text,
            machine_code.load(text, target, gradient=form.gradient),
        )
    return _kernels[known]


def _code_of(model: Dynamics) -> tuple:
    """What the equations of a model depend on, beside its parameters."""
    declared = parameters(model)
    fixed = tuple(
        (f.name, repr(getattr(model, f.name)))
        for f in fields(model)  # type: ignore[arg-type]
        if f.name not in declared
    )  # type: ignore[arg-type]
    kind = type(model)
    return kind, kind.drift, kind.output, kind.activity, kind.states, fixed
