"""A run in machine code, inside one autograd function."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cingulum.simulation.compiler import machine_code
from cingulum.simulation.compiler.arguments import KernelArguments
from cingulum.simulation.compiler.execution import Execution
from cingulum.simulation.compiler.graph_values import CannotLower
from cingulum.simulation.compiler.kernels import kernel_of
from cingulum.simulation.compiler.passes import BackwardPass, ForwardPass
from cingulum.simulation.state import Outcome, Run, SimulationState


def run_compiled(run: Run, *, threads: int | None = None) -> Outcome:
    """Do the run in machine code.

    Raises CannotLower where the reference engine must be used, and ConvergenceError
    with the first step and region that diverge.
    """
    _check_machine(run)
    arguments = KernelArguments.of(run)
    kernel = kernel_of(arguments, machine_code.host())
    execution = Execution(run, arguments, kernel, threads or torch.get_num_threads())
    bold, activity, x, y, past = _Simulate.apply(execution, *arguments.tensors)
    batch_and_regions = run.start.neural.shape[1:]
    # Without delays the past is only the present output, which follows from x.
    remembered = None
    if run.delays is not None:
        couplings = run.brain.mass.couplings
        remembered = past.reshape(-1, couplings, *batch_and_regions)
    end = SimulationState(
        x.reshape(-1, *batch_and_regions),
        y.reshape(-1, *batch_and_regions),
        run.start.step + run.steps,
        remembered,
    )
    return Outcome(
        bold.reshape(-1, *batch_and_regions),
        activity.reshape(-1, *batch_and_regions),
        end,
    )


def _check_machine(run: Run) -> None:
    if not machine_code.available():
        raise CannotLower("this platform (llvmlite is not installed)")
    device = run.start.neural.device
    if device.type != "cpu":
        raise CannotLower(f"tensors on {device} (machine code is made for the CPU)")
    if run.noise is not None and run.noise.requires_grad:
        raise CannotLower("a gradient of the noise itself")


RESULTS = ("bold", "activity", "x", "y", "past")


class _Simulate(torch.autograd.Function):
    """bold, activity, x, y, past ← machine code ← everything a run is given."""

    @staticmethod
    def forward(ctx: Any, execution: Execution, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.execution = execution
        results = ForwardPass(execution)
        results.run()
        regions = execution.shape.regions
        return tuple(_unpadded(getattr(results, name), regions) for name in RESULTS)

    # torch declares one gradient per result; they are taken together here.
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        execution: Execution = ctx.execution
        of_results = {
            name: execution.padded(gradient)
            for name, gradient in zip(RESULTS, gradients, strict=True)
        }
        backward_pass = BackwardPass(execution, of_results)
        backward_pass.run()
        arguments = execution.arguments
        # The execution is an argument, too, but has no gradient.
        of_execution = None
        of_tensors = [
            _gradient(tensor, backward_pass.by_input.get(name), execution.shape.regions)
            for name, tensor in zip(arguments.names, arguments.tensors, strict=True)
        ]
        return (of_execution, *of_tensors)


def _gradient(tensor: Tensor, padded: np.ndarray | None, regions: int) -> Tensor | None:
    """The gradient of an input, in its shape: summed over simulations and regions that
    share a value."""
    if padded is None or not tensor.requires_grad:
        return None
    # Machine code gives one gradient per simulation and region.
    gradient = _unpadded(padded, regions)
    if gradient.shape == tensor.shape:
        return gradient
    return gradient.sum_to_size(tensor.shape)


def _unpadded(padded: np.ndarray, regions: int) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(padded[..., :regions]))
