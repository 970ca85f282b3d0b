"""What one step of a brain does to one region, traced once from the plain torch that
its author wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functionalize, vjp
from torch.fx.experimental.proxy_tensor import make_fx

from cingulum.brain.dynamics import Dynamics, confine, scale_noise, with_values
from cingulum.simulation.compiler.lowering import LANES, CannotLower, lower
from cingulum.simulation.compiler.ssa import Program


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A function of one region: a program and the values that leave it.

    results: (name, value, adds): the array row it goes to, and whether it is added to
        what is there
    """

    name: str
    program: Program
    results: tuple[tuple[str, int, bool], ...]

    def listing(self) -> str:
        """The operations, a line each."""
        lines = [f"{self.name}:"]
        for v in self.program.needed([v for _, v, _ in self.results]):
            operation, *operands = self.program.lines[v]
            told = (
                operands[:1]
                if operation in ("input", "const")
                else [f"%{o}" for o in operands]
            )
            lines.append(f"  %{v} = {operation} {' '.join(map(str, told))}")
        lines += [
            f"  {name} {'+=' if adds else '='} %{v}" for name, v, adds in self.results
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Form:
    """What a kernel is made for, beside the equations: which inputs are there and which
    gradients are wanted.

    mass, response: parameter names that are tensors or numbers (everything else is a
        constant of the code)
    gradient: whether anything is asked for backwards
    wanted: parameter paths whose gradient is asked for
    """

    scheme: str
    stimulated: bool
    noisy: bool
    mass: tuple[str, ...]
    response: tuple[str, ...]
    wanted: tuple[str, ...] = ()
    stimulus_gradient: bool = False
    gradient: bool = False

    @property
    def neural_parameters(self) -> tuple[str, ...]:
        return (
            "dt",
            "root_dt",
            "strength",
            "noise",
            *(f"mass.{name}" for name in self.mass),
        )

    @property
    def vascular_parameters(self) -> tuple[str, ...]:
        return ("dt_v", *(f"sensor.response.{name}" for name in self.response))

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.neural_parameters, *self.vascular_parameters)


@dataclass(frozen=True, eq=False)
class Equations:
    """The traced functions of a brain: by name, forward and (where gradients are
    wanted) backward."""

    forward: dict[str, Pointwise]
    backward: dict[str, Pointwise]


def trace(mass: Dynamics, response: Dynamics, form: Form) -> Equations:
    """Trace step, output, haemodynamics and observation. Raises CannotLower, naming
    what stands in the way."""
    functions = _neural(mass, form) | _vascular(response, form)
    forward = {name: _forward(name, *f) for name, f in functions.items()}
    backward = {}
    if form.gradient:
        backward = {
            f"{name}_back": _backward(f"{name}_back", form, *f)
            for name, f in functions.items()
        }
    return Equations(forward, backward)


Function = tuple[
    Callable[..., tuple[Tensor, ...]], dict[str, int | None], tuple[str, ...]
]
"""A function, its inputs with their number of rows (None: a plain value), and the names
of its results."""


def _neural(mass: Dynamics, form: Form) -> dict[str, Function]:
    values: dict[str, int | None] = dict.fromkeys(form.neural_parameters)
    inputs: dict[str, int | None] = {"x": len(mass.states), "v": mass.couplings}
    inputs |= {"stimulus": None} if form.stimulated else {}
    noise: dict[str, int | None] = {"z": len(mass.states)} if form.noisy else {}

    def drift(x: Tensor, v: Tensor, p: dict[str, Tensor]) -> Tensor:
        u = p["strength"] * v
        if "stimulus" in p:
            u = torch.cat([u[:1] + p["stimulus"], u[1:]])
        return _with(mass, "mass.", p).drift(x, u if mass.couplings > 1 else u[0])

    def kick(p: dict[str, Tensor]) -> Tensor | float:
        return (
            p["root_dt"] * p["noise"] * scale_noise(mass, p["z"]) if form.noisy else 0.0
        )

    def leave(x: Tensor, p: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        model = _with(mass, "mass.", p)
        out = model.output(x)
        return out if mass.couplings > 1 else out.unsqueeze(0), model.activity(x)

    def euler(**p: Tensor) -> tuple[Tensor, ...]:
        after = confine(mass, p["x"] + p["dt"] * drift(p["x"], p["v"], p) + kick(p))
        return after, *leave(after, p)

    def predict(**p: Tensor) -> tuple[Tensor, ...]:
        ahead = confine(mass, p["x"] + p["dt"] * drift(p["x"], p["v"], p) + kick(p))
        return (leave(ahead, p)[0],)

    def heun(**p: Tensor) -> tuple[Tensor, ...]:
        slope = drift(p["x"], p["v"], p)
        ahead = confine(mass, p["x"] + p["dt"] * slope + kick(p))
        after = confine(
            mass,
            p["x"] + p["dt"] / 2 * (slope + drift(ahead, p["v_ahead"], p)) + kick(p),
        )
        return after, *leave(after, p)

    found: dict[str, Function] = {}
    if form.scheme == "heun":
        found["predict"] = (predict, {**inputs, **noise, **values}, ("out",))
        found["advance"] = (
            heun,
            {**inputs, "v_ahead": mass.couplings, **noise, **values},
            ("x", "out", "activity"),
        )
    else:
        found["advance"] = (
            euler,
            {**inputs, **noise, **values},
            ("x", "out", "activity"),
        )
    return found


def _vascular(response: Dynamics, form: Form) -> dict[str, Function]:
    values: dict[str, int | None] = dict.fromkeys(form.vascular_parameters)
    states = len(response.states)

    def respond(**p: Tensor) -> tuple[Tensor, ...]:
        model = _with(response, "sensor.response.", p)
        return (confine(model, p["y"] + p["dt_v"] * model.drift(p["y"], p["drive"])),)

    def observe(**p: Tensor) -> tuple[Tensor, ...]:
        return (_with(response, "sensor.response.", p).output(p["y"]),)

    return {
        "respond": (respond, {"y": states, "drive": None, **values}, ("y",)),
        "observe": (observe, {"y": states, **values}, ("bold",)),
    }


def _with(model: Dynamics, prefix: str, p: dict[str, Tensor]) -> Dynamics:
    return with_values(
        model,
        {
            path.removeprefix(prefix): v
            for path, v in p.items()
            if path.startswith(prefix)
        },
    )


def _examples(inputs: dict[str, int | None]) -> list[Tensor]:
    return [
        torch.full((LANES,) if n is None else (n, LANES), 0.5, dtype=torch.float64)
        for n in inputs.values()
    ]


def _graph(function: Callable, examples: list[Any]) -> torch.fx.GraphModule:
    try:
        return make_fx(functionalize(function))(*examples)
    except Exception as trouble:  # noqa: BLE001  whatever the author's code raises under tracing ends in the reference
        line = (
            str(trouble).strip().splitlines()[0]
            if str(trouble).strip()
            else type(trouble).__name__
        )
        raise CannotLower(f"code that cannot be traced ({line})") from trouble


def _forward(
    name: str,
    function: Callable,
    inputs: dict[str, int | None],
    results: tuple[str, ...],
) -> Pointwise:
    program, names = Program(), list(inputs)
    with torch.no_grad():
        graph = _graph(
            lambda *a: function(**dict(zip(names, a, strict=True))), _examples(inputs)
        )
    rows = lower(graph, names, program)
    # Activity is gathered over the steps of a haemodynamic step.
    found = [
        (n, v, n == "activity")
        for result, r in zip(results, rows, strict=True)
        for n, v in _named(result, r)
    ]
    return Pointwise(
        name,
        program,
        tuple((n, v, adds or n.startswith("activity")) for n, v, adds in found),
    )


def _backward(
    name: str,
    form: Form,
    function: Callable,
    inputs: dict[str, int | None],
    results: tuple[str, ...],
) -> Pointwise:
    """The vector-Jacobian product: from gradients of the results (`g.<result>`) to
    those of the inputs."""
    program, names = Program(), list(inputs)
    fixed = {"z", "dt", "root_dt", "dt_v"} | (
        {"stimulus"} if not form.stimulus_gradient else set()
    )
    by = [
        n
        for n in names
        if n not in fixed and ("." not in n and n not in PARAMETERS or n in form.wanted)
    ]
    examples = dict(zip(names, _examples(inputs), strict=True))
    with torch.no_grad():
        shapes = function(**examples)

    def back(given: list[Tensor], gradients: list[Tensor]) -> tuple[Tensor, ...]:
        p = dict(zip(names, given, strict=True))

        def of(*values: Tensor) -> tuple[Tensor, ...]:
            return function(**{**p, **dict(zip(by, values, strict=True))})

        return vjp(of, *(p[n] for n in by))[1](tuple(gradients))

    with torch.enable_grad():
        graph = _graph(
            back, [list(examples.values()), [torch.ones_like(s) for s in shapes]]
        )
    rows = lower(graph, [*names, *(f"g.{r}" for r in results)], program)
    # What the step's own state and input receive replaces or joins what is there, as
    # the time loop needs it.
    adds = {"predict_back": {"x", "v"}, "observe_back": {"y"}}.get(name, set())
    found = []
    for n, r in zip(by, rows, strict=True):
        parameter = n in form.wanted or n == "stimulus"
        found += [(f"g.{row}", v, parameter or n in adds) for row, v in _named(n, r)]
    zero = {v for v in range(len(program.lines)) if program.number(v) == 0}
    return Pointwise(
        name, program, tuple((n, v, a) for n, v, a in found if not (a and v in zero))
    )


PARAMETERS = ("strength", "noise")


def _named(name: str, rows: np.ndarray) -> list[tuple[str, int]]:
    rows = np.asarray(rows, dtype=object)
    return [
        (".".join([name, *map(str, index)]), int(rows[index]))
        for index in np.ndindex(*rows.shape)
    ]
