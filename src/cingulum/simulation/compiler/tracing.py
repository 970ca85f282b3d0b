"""What one step of a brain does to one region, traced once from the plain torch that
its author wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functionalize, vjp
from torch.fx.experimental.proxy_tensor import make_fx

from cingulum.brain.dynamics import (
    Dynamics,
    Response,
    confine,
    scale_noise,
    with_values,
)
from cingulum.simulation.compiler.arithmetic import ELEMENTWISE
from cingulum.simulation.compiler.axes import ARRAYS
from cingulum.simulation.compiler.graph_values import LANES, CannotLower
from cingulum.simulation.compiler.lowering import lower
from cingulum.simulation.compiler.self_check import check_traced, sample, sample_like
from cingulum.simulation.compiler.ssa import Program

MASS = "mass."
RESPONSE = "sensor.response."

WITHOUT_GRADIENT = ("z", "dt", "root_dt", "dt_v")
"""Inputs whose gradient nobody can ask for: noise and time steps."""

ADDED_GRADIENTS = {"predict_back": ("x", "v"), "observe_back": ("y",)}
"""Gradients that join what is there already, by function; all other gradients of states
and received input replace it. The time loop relies on it."""

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Result:
    """A value that leaves a function of one region.

    name: the array row it goes to; value: its index in the program
    adds: whether it is added to what is there
    """

    name: str
    value: int
    adds: bool

    def __str__(self) -> str:
        sign = "+=" if self.adds else "="
        return f"{self.name} {sign} %{self.value}"


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A function of one region: a program and what leaves it."""

    name: str
    program: Program
    results: tuple[Result, ...]

    def needed(self) -> list[int]:
        """The values on which the results depend, in order."""
        return self.program.needed([result.value for result in self.results])

    def inputs(self) -> list[str]:
        """The inputs that are used."""
        names = [self.program.operations[v].input for v in self.needed()]
        # Operations that are no inputs have an empty name.
        return list(filter(None, names))

    def listing(self) -> str:
        """The operations, one per line."""
        lines = [f"{self.name}:"]
        for v in self.needed():
            lines.append(f"  %{v} = {self.program.operations[v]}")
        for result in self.results:
            lines.append(f"  {result}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Form:
    """What a kernel is made for, beside the equations: which inputs there are and which
    gradients are wanted.

    mass, response: parameter names that are tensors or numbers (everything else is a
        constant of the code)
    wanted: parameter paths whose gradient is asked for
    gradient: whether any gradient is asked for
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
        of_mass = [f"{MASS}{name}" for name in self.mass]
        return ("dt", "root_dt", "strength", "noise", *of_mass)

    @property
    def vascular_parameters(self) -> tuple[str, ...]:
        of_response = [f"{RESPONSE}{name}" for name in self.response]
        return ("dt_v", *of_response)

    # Looked up for every slot of every table.
    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return (*self.neural_parameters, *self.vascular_parameters)


@dataclass(frozen=True, eq=False)
class Equations:
    """The traced functions of a brain: by name, forward and (where gradients are
    wanted) backward."""

    forward: dict[str, Pointwise]
    backward: dict[str, Pointwise]


@dataclass(frozen=True, eq=False)
class StepFunction:
    """A part of a step, in torch.

    inputs: number of rows by name; None for a parameter or a single row
    results: names of what it returns
    """

    compute: Callable[[Inputs], tuple[Tensor, ...]]
    inputs: dict[str, int | None]
    results: tuple[str, ...]

    def examples(self) -> list[Tensor]:
        """Inputs of the right shapes, to trace with."""
        return [_example(rows) for rows in self.inputs.values()]

    def samples(self) -> list[Tensor]:
        """Inputs that differ between regions, to check with what was traced."""
        generator = torch.Generator().manual_seed(0)
        return [sample(rows, generator) for rows in self.inputs.values()]


def _example(rows: int | None) -> Tensor:
    shape = (LANES,) if rows is None else (rows, LANES)
    # Inside the domain of logarithms, roots and gating variables.
    return torch.full(shape, 0.5, dtype=torch.float64)


def trace(mass: Dynamics, response: Response, form: Form) -> Equations:
    """Trace step, output, haemodynamics and observation. Raises CannotLower, naming
    what prevents it."""
    neural = NeuralStep(mass, form).functions()
    functions = neural | HaemodynamicStep(response, form).functions()
    forward = {name: _trace(name, f) for name, f in functions.items()}
    if not form.gradient:
        return Equations(forward, {})
    backward = {
        f"{name}_back": _trace_adjoint(f"{name}_back", form, f)
        for name, f in functions.items()
    }
    return Equations(forward, backward)


@dataclass(frozen=True, eq=False)
class NeuralStep:
    """A step of the mass by the scheme of the form. Inputs are states x, received input
    v, standard normal numbers z, the stimulus, and parameters by path."""

    mass: Dynamics
    form: Form

    def functions(self) -> dict[str, StepFunction]:
        mass, form = self.mass, self.form
        rows: dict[str, int | None] = {"x": len(mass.states), "v": mass.couplings}
        if form.stimulated:
            rows["stimulus"] = None
        # The order of inputs is that of loads in the machine code.
        noise: dict[str, int | None] = {}
        if form.noisy:
            noise["z"] = len(mass.states)
        values = dict.fromkeys(form.neural_parameters)
        results = ("x", "out", "activity")
        inputs = {**rows, **noise, **values}
        if form.scheme == "euler":
            return {"advance": StepFunction(self.euler, inputs, results)}
        both_stages = {**rows, "v_ahead": mass.couplings, **noise, **values}
        return {
            "predict": StepFunction(self.predict, inputs, ("out",)),
            "advance": StepFunction(self.heun, both_stages, results),
        }

    def euler(self, p: Inputs) -> tuple[Tensor, ...]:
        after = self._euler_step(p, self._drift(p["x"], p["v"], p))
        return after, self._output(after, p), self._mean_activity(p["x"], after, p)

    def predict(self, p: Inputs) -> tuple[Tensor, ...]:
        """Outputs after Heun's first stage."""
        ahead = self._euler_step(p, self._drift(p["x"], p["v"], p))
        return (self._output(ahead, p),)

    def heun(self, p: Inputs) -> tuple[Tensor, ...]:
        slope = self._drift(p["x"], p["v"], p)
        ahead = self._euler_step(p, slope)
        # Both stages get the same noise, as Heun's scheme for additive noise asks.
        half = p["dt"] / 2
        slopes = slope + self._drift(ahead, p["v_ahead"], p)
        after = confine(self.mass, p["x"] + half * slopes + self._noise(p))
        return after, self._output(after, p), self._mean_activity(p["x"], after, p)

    def _euler_step(self, p: Inputs, slope: Tensor) -> Tensor:
        return confine(self.mass, p["x"] + p["dt"] * slope + self._noise(p))

    def _noise(self, p: Inputs) -> Tensor | float:
        if not self.form.noisy:
            return 0.0
        return p["root_dt"] * p["noise"] * scale_noise(self.mass, p["z"])

    def _drift(self, x: Tensor, received: Tensor, p: Inputs) -> Tensor:
        u = p["strength"] * received
        if self.form.stimulated:
            # The stimulus joins the first coupling variable.
            u = torch.cat([u[:1] + p["stimulus"], u[1:]])
        return _with_inputs(self.mass, MASS, p).drift(x, u)

    def _output(self, x: Tensor, p: Inputs) -> Tensor:
        return _with_inputs(self.mass, MASS, p).output(x)

    def _mean_activity(self, before: Tensor, after: Tensor, p: Inputs) -> Tensor:
        mass = _with_inputs(self.mass, MASS, p)
        return (mass.activity(before) + mass.activity(after)) / 2


@dataclass(frozen=True, eq=False)
class HaemodynamicStep:
    """A step of the haemodynamics, and the signal that is observed. Inputs are states
    y, the drive, and parameters by path."""

    response: Response
    form: Form

    def functions(self) -> dict[str, StepFunction]:
        states = len(self.response.states)
        values = dict.fromkeys(self.form.vascular_parameters)
        observed: dict[str, int | None] = {"y": states, **values}
        driven: dict[str, int | None] = {"y": states, "drive": None, **values}
        return {
            "respond": StepFunction(self.respond, driven, ("y",)),
            "observe": StepFunction(self.observe, observed, ("bold",)),
        }

    def respond(self, p: Inputs) -> tuple[Tensor, ...]:
        response: Any = _with_inputs(self.response, RESPONSE, p)
        after = response.advance(p["y"], p["drive"], p["dt_v"])
        return (confine(response, after),)

    def observe(self, p: Inputs) -> tuple[Tensor, ...]:
        return (_with_inputs(self.response, RESPONSE, p).output(p["y"]),)


def _with_inputs(model: Dynamics, prefix: str, p: Inputs) -> Dynamics:
    """The model with the inputs whose paths have the prefix as its parameters."""
    values = {}
    for path, value in p.items():
        if path.startswith(prefix):
            values[path.removeprefix(prefix)] = value
    return with_values(model, values)


def _graph(
    function: Callable[..., tuple[Tensor, ...]], arguments: Sequence[object]
) -> torch.fx.GraphModule:
    try:
        traced = make_fx(functionalize(function), decomposition_table=_decompositions())
        return traced(*arguments)
    # Whatever the author's code raises under tracing ends in the reference engine.
    except Exception as error:  # noqa: BLE001
        raise CannotLower(
            f"code that cannot be traced ({_first_line(error)})"
        ) from error


@cache
def _decompositions() -> dict[Any, Callable]:
    """How torch itself writes operations that the engine does not know by simpler
    ones."""
    table = torch.export.default_decompositions()
    known = {*ELEMENTWISE, *ARRAYS}
    return {
        operation: steps
        for operation, steps in table.items()
        if str(operation).split(".")[1] not in known
    }


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _trace(name: str, step: StepFunction) -> Pointwise:
    program, names = Program(), list(step.inputs)

    def compute(*arguments: Tensor) -> tuple[Tensor, ...]:
        return step.compute(dict(zip(names, arguments, strict=True)))

    # Otherwise constants of the mass that require a gradient would leave traces.
    with torch.no_grad():
        graph = _graph(compute, step.examples())
    arrays = lower(graph, names, program)
    samples = step.samples()
    with torch.no_grad():
        check_traced(program, names, samples, arrays, compute(*samples))
    results: list[Result] = []
    for result, rows in zip(step.results, arrays, strict=True):
        # Activity is summed over the steps of a haemodynamic step.
        results += _results(result, rows, adds=result == "activity")
    return Pointwise(name, program, tuple(results))


def _trace_adjoint(name: str, form: Form, step: StepFunction) -> Pointwise:
    """The vector-Jacobian product: from gradients of the results (`g.<result>`) to
    those of the inputs."""
    program, names = Program(), list(step.inputs)
    wanted = _differentiated(form, names)
    pull_back = _pull_back(step, wanted)
    arguments = step.examples()
    with torch.no_grad():
        outputs = step.compute(dict(zip(names, arguments, strict=True)))
    # Tracing needs their shapes; the numbers do not matter.
    gradients = [torch.ones_like(output) for output in outputs]
    with torch.enable_grad():
        graph = _graph(pull_back, [arguments, gradients])
    inputs = [*names, *(f"g.{r}" for r in step.results)]
    arrays = lower(graph, inputs, program)
    samples = step.samples()
    pulled = [sample_like(gradient) for gradient in gradients]
    with torch.enable_grad():
        expected = pull_back(samples, pulled)
    check_traced(
        program, inputs, [*samples, *pulled], arrays, [g.detach() for g in expected]
    )
    # Parameters collect their gradient over all steps of the run.
    joins = {*form.wanted, "stimulus", *ADDED_GRADIENTS.get(name, ())}
    results: list[Result] = []
    for wanted_name, rows in zip(wanted, arrays, strict=True):
        results += _results(f"g.{wanted_name}", rows, adds=wanted_name in joins)
    return Pointwise(name, program, tuple(_without_zeros(program, results)))


def _pull_back(
    step: StepFunction, wanted: Sequence[str]
) -> Callable[[list[Tensor], list[Tensor]], tuple[Tensor, ...]]:
    """(inputs, gradients of the results) → gradients of the wanted inputs."""

    def pull_back(
        arguments: list[Tensor], gradients: list[Tensor]
    ) -> tuple[Tensor, ...]:
        inputs = dict(zip(step.inputs, arguments, strict=True))

        def compute(*values: Tensor) -> tuple[Tensor, ...]:
            return step.compute({**inputs, **dict(zip(wanted, values, strict=True))})

        primals = [inputs[name] for name in wanted]
        pull = vjp(compute, *primals)[1]
        return pull(tuple(gradients))

    return pull_back


def _differentiated(form: Form, names: Iterable[str]) -> list[str]:
    """The inputs by which a step is differentiated: its states and received input, and
    what is wanted of the others."""
    fixed = set(WITHOUT_GRADIENT)
    if not form.stimulus_gradient:
        fixed.add("stimulus")
    unwanted = set(form.parameters) - set(form.wanted)
    return [name for name in names if name not in fixed | unwanted]


def _results(name: str, rows: np.ndarray, *, adds: bool) -> list[Result]:
    """The rows of one result, as `name.0`, `name.1`, …"""
    rows = np.asarray(rows, dtype=object)
    results = []
    for index in np.ndindex(*rows.shape):
        row = ".".join([name, *map(str, index)])
        results.append(Result(row, int(rows[index]), adds))
    return results


def _without_zeros(program: Program, results: list[Result]) -> list[Result]:
    """Without adding what is always 0."""
    return [r for r in results if not (r.adds and program.number(r.value) == 0)]
