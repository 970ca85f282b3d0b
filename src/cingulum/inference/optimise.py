"""The search: any torch optimiser, best stable point kept, resumable, stopped when
nothing improves any more."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cingulum.errors import InputError
from cingulum.inference.problem import Assessed, Theta
from cingulum.progress import track

Optimiser = str | Callable[..., torch.optim.Optimizer]
SMOOTHING = 0.9
"""Share of the past in the smoothed loss that decides when to stop."""


@dataclass
class SearchResult:
    """Where a search got: the best point of every batch member, its loss, and a row a
    step."""

    theta: Theta
    loss: Tensor
    rows: list[dict[str, float | str]]
    last: Theta = field(default_factory=dict)


def search(
    assess: Callable[[Theta, int], Assessed],
    theta: Theta,
    *,
    method: str,
    steps: int,
    rate: float,
    optimiser: Optimiser = "Adam",
    patience: int | None = None,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    show_progress: bool = False,
) -> SearchResult:
    """Make the loss small by gradient steps from `theta`; batch members do not
    influence each other.

    patience: a member stops to be updated in the result when its smoothed loss has not
        improved for so many steps, and the search ends when all have; None runs all
        steps
    checkpoint: where the state is written every 25 steps; a search with the same
        settings goes on from there and gives what an uninterrupted one gives
    Raises InputError for an unknown optimiser or a checkpoint of other settings.
    """
    walk = _Walk(theta, make_optimiser(optimiser, rate), patience)
    begin = (
        walk.load(checkpoint, fingerprint) if checkpoint and checkpoint.exists() else 0
    )
    left = range(begin, steps)
    for step in track(left, f"fit ({method})", show=show_progress, note=walk.note):
        walk.step(assess, step, method)
        if checkpoint and (step % 25 == 24 or step == steps - 1):
            walk.save(checkpoint, fingerprint, step + 1)
        if walk.settled:
            break
    return walk.result()


def make_optimiser(
    name: Optimiser, rate: float
) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """An optimiser by its name in torch.optim, or any callable (parameters, lr=…)."""
    if not isinstance(name, str):
        return lambda tensors: name(tensors, lr=rate)
    known = [
        k
        for k, v in vars(torch.optim).items()
        if isinstance(v, type) and issubclass(v, torch.optim.Optimizer)
    ]
    if name not in known or name == "Optimizer":
        raise InputError(
            f"Unknown optimiser {name!r}; torch.optim has "
            f"{', '.join(sorted(set(known) - {'Optimizer'}))}."
        )
    return lambda tensors: getattr(torch.optim, name)(tensors, lr=rate)


class _Walk:
    """The state of a search: where it is, the optimiser's memory, and the best met so
    far."""

    def __init__(
        self,
        theta: Theta,
        optimiser: Callable[[list[Tensor]], torch.optim.Optimizer],
        patience: int | None,
    ) -> None:
        self.theta = {
            path: value.detach().clone().requires_grad_()
            for path, value in theta.items()
        }
        self.optimiser = optimiser(list(self.theta.values()))
        self.patience = patience
        shape = next(iter(theta.values())).shape[:-1]
        like = next(iter(theta.values()))
        self.best = like.new_full(shape, torch.inf)
        self.kept = {path: value.detach().clone() for path, value in theta.items()}
        self.smooth, self.lowest = (
            like.new_full(shape, torch.inf),
            like.new_full(shape, torch.inf),
        )
        self.since = torch.zeros(shape, dtype=torch.long)
        self.rows: list[dict[str, float | str]] = []

    def step(
        self, assess: Callable[[Theta, int], Assessed], step: int, method: str
    ) -> None:
        first: list[Assessed] = []

        def closure() -> Tensor:
            self.optimiser.zero_grad()
            found = assess(self.theta, step)
            total = torch.where(torch.isfinite(found.loss), found.loss, 0.0).sum()
            total.backward()  # type: ignore[no-untyped-call]
            for value in self.theta.values():
                if value.grad is not None:
                    value.grad.nan_to_num_(0.0, 0.0, 0.0)
            if not first:
                first.append(found)
                self._keep(found)
            return total

        self.optimiser.step(closure)  # type: ignore[arg-type]
        found = first[0]
        self._turn_back(~torch.isfinite(found.loss.detach()))
        row: dict[str, float | str] = {
            "method": method,
            "step": step,
            "loss": found.loss.detach().mean().item(),
        }
        row |= {
            name: value.detach().mean().item() for name, value in found.terms.items()
        }
        row |= {"fc_r": found.fc_r.mean().item(), "loop_gain": found.gain.mean().item()}
        self.rows.append(row)

    def _turn_back(self, lost: Tensor) -> None:
        """Members that ran out of the domain go half the way back to their best
        point."""
        if lost.any():
            for path, value in self.theta.items():
                half = (value.detach() + self.kept[path]) / 2
                value.data.copy_(torch.where(lost.unsqueeze(-1), half, value.detach()))

    def _keep(self, found: Assessed) -> None:
        """Take over members that improved, unless they had settled before."""
        loss = found.loss.detach()
        active = self.since < (self.patience or 2**60)
        better = (loss < self.best) & found.stable & active
        self.best = torch.where(better, loss, self.best)
        for path, value in self.theta.items():
            self.kept[path] = torch.where(
                better.unsqueeze(-1), value.detach(), self.kept[path]
            )
        smooth = torch.where(
            torch.isinf(self.smooth),
            loss,
            SMOOTHING * self.smooth + (1 - SMOOTHING) * loss,
        )
        self.smooth = torch.where(torch.isfinite(smooth), smooth, self.smooth)
        improved = self.smooth < self.lowest - 1e-4 * self.lowest.abs().clamp_max(
            1e6
        ).clamp_min(1e-3)
        self.lowest = torch.where(improved, self.smooth, self.lowest)
        self.since = torch.where(improved & active, 0, self.since + 1)

    @property
    def settled(self) -> bool:
        return self.patience is not None and bool((self.since >= self.patience).all())

    def note(self) -> str:
        return (
            f"loss {self.rows[-1]['loss']:.4g}, fc r {self.rows[-1]['fc_r']:.3f}"
            if self.rows
            else ""
        )

    def result(self) -> SearchResult:
        return SearchResult(
            self.kept,
            self.best,
            self.rows,
            {k: v.detach().clone() for k, v in self.theta.items()},
        )

    def save(self, path: Path, fingerprint: str, step: int) -> None:
        """Plain tensors and numbers only, written whole or not at all; read back with
        weights_only."""
        state = {
            "fingerprint": fingerprint,
            "step": step,
            "theta": {k: v.detach() for k, v in self.theta.items()},
            "optimiser": self.optimiser.state_dict(),
            "kept": self.kept,
            "numbers": [self.best, self.smooth, self.lowest, self.since],
            "rows": self.rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, beside)
        os.replace(beside, path)

    def load(self, path: Path, fingerprint: str) -> int:
        try:
            state = torch.load(path, weights_only=True)
        except Exception as trouble:
            raise InputError(
                f"{path} is not a checkpoint of a fit ({trouble}). Remove it to begin "
                "anew."
            ) from None
        if state.get("fingerprint") != fingerprint:
            raise InputError(
                f"{path} belongs to a fit with other settings or data. Name another "
                "checkpoint, or remove this one."
            )
        for key, value in state["theta"].items():
            self.theta[key].data.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.kept, self.rows = state["kept"], state["rows"]
        self.best, self.smooth, self.lowest, self.since = state["numbers"]
        return int(state["step"])


def fingerprint_of(*parts: object) -> str:
    """A digest of settings and data, so that a checkpoint is not continued with
    others."""
    digest = hashlib.sha256()
    for part in parts:
        for piece in _pieces(part):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(part: object) -> Iterator[bytes]:
    if isinstance(part, Tensor):
        yield part.detach().cpu().contiguous().numpy().tobytes()
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield type(part).__name__.encode()
        for f in dataclasses.fields(part):
            yield from _pieces(getattr(part, f.name))
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _pieces(key)
            yield from _pieces(value)
    elif isinstance(part, tuple | list):
        for value in part:
            yield from _pieces(value)
    else:
        yield repr(part).encode()
