"""The tensors of a run in their canonical shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import Dynamics, Response, Value, parameters
from cingulum.simulation.compiler.tracing import MASS, RESPONSE
from cingulum.simulation.state import Run, constant_history

ARRAYS = ("x", "y", "past", "weights", "delays", "stimulus")
"""What a run is given beside its parameters."""


@dataclass(frozen=True, eq=False)
class KernelArguments:
    """The tensors of a run in their canonical shapes; whatever broadcasting they had is
    torch's to undo.

    names: of the tensors: first those of ARRAYS that there are, then parameter paths
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    simulations: int
    mass: Dynamics
    response: Response
    scheme: str
    noisy: bool

    @classmethod
    def of(cls, run: Run) -> KernelArguments:
        brain, x = run.brain, run.start.neural
        batch = x.shape[1:-1]
        tensors = _arrays(run, batch)
        for path, value in _parameter_values(brain).items():
            parameter = torch.as_tensor(value, dtype=x.dtype)
            # A plain number becomes a tensor: another number needs no other code.
            tensors[path] = _as_simulation_by_region(parameter, batch)
        return cls(
            tuple(tensors),
            tuple(tensor.to(x.dtype) for tensor in tensors.values()),
            batch.numel(),
            brain.mass,
            brain.sensor.response,
            run.scheme,
            _is_noisy(run),
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.names.index(name)]

    def has(self, name: str) -> bool:
        return name in self.names

    def is_shared(self, name: str) -> bool:
        """Whether all simulations share an array; delays that there are not, they
        do."""
        return not self.has(name) or self[name].shape[0] == 1

    @property
    def paths(self) -> list[str]:
        """The names that are parameters."""
        return [name for name in self.names if name not in ARRAYS]

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of tensors whose gradient is asked for."""
        if not torch.is_grad_enabled():
            return ()
        pairs = zip(self.names, self.tensors, strict=True)
        return tuple(name for name, tensor in pairs if tensor.requires_grad)


def _arrays(run: Run, batch: torch.Size) -> dict[str, Tensor]:
    x, y = run.start.neural, run.start.vascular
    count, regions = batch.numel(), x.shape[-1]
    past = _past(run)
    couplings = run.brain.mass.couplings
    arrays = {
        "x": x.reshape(x.shape[0], count, regions),
        "y": y.reshape(-1, count, regions),
        "past": past.reshape(past.shape[0], couplings, count, regions),
        "weights": _as_simulation_by_pair(run.brain.connectome.weights, batch),
    }
    if run.delays is not None:
        arrays["delays"] = _as_simulation_by_pair(run.delays, batch)
    if run.stimulus is not None:
        arrays["stimulus"] = _for_every_simulation(run.stimulus, batch)
    return arrays


def _past(run: Run) -> Tensor:
    """Outputs (slot, coupling, *batch, region), newest first."""
    if run.start.past is not None:
        return run.start.past
    # A run from rest, or without delays, has none; code needs at least the present.
    return constant_history(max(run.slots, 1), run.brain.mass.output(run.start.neural))


def _for_every_simulation(stimulus: Tensor, batch: torch.Size) -> Tensor:
    """(row, simulation, region)."""
    rows, regions = stimulus.shape[0], stimulus.shape[-1]
    # Axes of the batch that the stimulus lacks are put behind its rows.
    missing_axes = [1] * (len(batch) + 2 - stimulus.ndim)
    whole = stimulus.reshape(rows, *missing_axes, *stimulus.shape[1:])
    return whole.expand(rows, *batch, regions).reshape(rows, batch.numel(), regions)


def _is_noisy(run: Run) -> bool:
    # A tensor may have a gradient, so it counts as noise even where it is 0.
    noise = run.brain.noise
    return run.noise is not None or isinstance(noise, Tensor) or noise != 0


def _parameter_values(brain: Brain) -> dict[str, Value]:
    """Every parameter by path, as the brain has it."""
    mass, response = brain.mass, brain.sensor.response
    values: dict[str, Value] = {"strength": brain.strength, "noise": brain.noise}
    for name in parameters(mass):
        values[f"{MASS}{name}"] = getattr(mass, name)
    for name in parameters(response):
        values[f"{RESPONSE}{name}"] = getattr(response, name)
    return values


def _as_simulation_by_region(value: Tensor, batch: torch.Size) -> Tensor:
    """(1 or simulation, 1 or region)."""
    # What all simulations share stays one row, which the processor keeps at hand.
    if value.ndim <= 1 or value.shape[:-1].numel() == 1:
        return value.reshape(1, -1)
    regions = value.shape[-1]
    return value.expand(*batch, regions).reshape(-1, regions)


def _as_simulation_by_pair(value: Tensor, batch: torch.Size) -> Tensor:
    """(1 or simulation, region, region)."""
    regions = value.shape[-1]
    if value.shape[:-2].numel() == 1:
        return value.reshape(1, regions, regions)
    return value.expand(*batch, regions, regions).reshape(-1, regions, regions)
