"""The tensors of a run in their canonical shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import Dynamics, parameters
from cingulum.simulation.state import Run, constant_history, outputs

ARRAYS = ("x", "y", "past", "weights", "delays", "stimulus")
"""What a run is given beside its parameters."""


@dataclass(frozen=True, eq=False)
class KernelArguments:
    """The tensors of a run in their canonical shapes; whatever broadcasting they had is
    torch's to undo."""

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    simulations: int
    mass: Dynamics
    response: Dynamics
    scheme: str
    noisy: bool

    @classmethod
    def of(cls, run: Run) -> KernelArguments:
        brain, x = run.brain, run.start.neural
        batch, n = x.shape[1:-1], x.shape[-1]
        count = int(np.prod(batch, dtype=int))
        past = run.start.past
        if past is None:
            past = constant_history(max(run.slots, 1), outputs(brain, x))
        found = {
            "x": x.reshape(x.shape[0], count, n),
            "y": run.start.vascular.reshape(-1, count, n),
            "past": past.reshape(past.shape[0], brain.mass.couplings, count, n),
            "weights": _joined(brain.connectome.weights, batch, n),
        }
        if run.delays is not None:
            found["delays"] = _joined(run.delays, batch, n)
        if run.stimulus is not None:
            rows = run.stimulus.shape[0]
            missing = len(batch) + 2 - run.stimulus.ndim
            spread = run.stimulus.reshape(
                rows, *[1] * missing, *run.stimulus.shape[1:]
            ).expand(rows, *batch, n)
            found["stimulus"] = spread.reshape(rows, count, n)
        for path, value in _values(brain).items():
            found[path] = _canonical(torch.as_tensor(value, dtype=x.dtype), batch)
        noisy = (
            run.noise is not None or isinstance(brain.noise, Tensor) or brain.noise != 0
        )
        same = tuple(t.to(x.dtype) for t in found.values())
        return cls(
            tuple(found),
            same,
            count,
            brain.mass,
            brain.sensor.response,
            run.scheme,
            noisy,
        )

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.names.index(name)]

    @property
    def wanted(self) -> tuple[str, ...]:
        if not torch.is_grad_enabled():
            return ()
        return tuple(
            name
            for name, tensor in zip(self.names, self.tensors, strict=True)
            if tensor.requires_grad
        )


def _values(brain: Brain) -> dict[str, Any]:
    """Every parameter by path, as it stands in the brain."""
    found = {"strength": brain.strength, "noise": brain.noise}
    found |= {
        f"mass.{name}": getattr(brain.mass, name) for name in parameters(brain.mass)
    }
    response = brain.sensor.response
    return found | {
        f"sensor.response.{name}": getattr(response, name)
        for name in parameters(response)
    }


def _canonical(value: Tensor, batch: tuple[int, ...]) -> Tensor:
    """(1 or simulation, 1 or region)."""
    if value.ndim <= 1:
        return value.reshape(1, -1)
    if value.shape[:-1].numel() == 1:
        return value.reshape(1, -1)
    return value.expand(*batch, value.shape[-1]).reshape(-1, value.shape[-1])


def _joined(value: Tensor, batch: tuple[int, ...], n: int) -> Tensor:
    """(1 or simulation, region, region)."""
    if value.shape[:-2].numel() == 1:
        return value.reshape(1, n, n)
    return value.expand(*batch, n, n).reshape(-1, n, n)
