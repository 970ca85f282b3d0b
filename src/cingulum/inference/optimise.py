"""The search: any torch optimiser; the best stable point is kept, the state can be
resumed, and it stops when nothing improves any more."""

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
from cingulum.inference.problem import Assessment, Theta
from cingulum.progress import track

Optimiser = str | Callable[..., torch.optim.Optimizer]
Assess = Callable[[Theta, int], Assessment]
"""(coordinates, step) → loss there; simulations take new noise at every step."""

Row = dict[str, float | str]
"""One step of the history: its numbers by name, and the method."""

SMOOTHING = 0.9
"""Share of the past in the smoothed loss that decides when to stop."""

IMPROVEMENT = 1e-4
"""Smallest decrease of the smoothed loss, relative to it, that counts."""

CHECKPOINT_STEPS = 25
"""Steps from one write of a checkpoint to the next."""

NEVER = 2**60
"""More steps than any search takes: the patience of a search without patience."""


@dataclass(frozen=True)
class OptimiserSettings:
    """How a search by gradient goes.

    optimiser: a name in torch.optim, or a callable (parameters, lr=…)
    rate: learning rate, in coordinates
    patience: a batch member's result is final when its smoothed loss has not improved
        for so many steps, and the search ends when all are; None takes all steps
    """

    steps: int
    rate: float = 0.05
    optimiser: Optimiser = "Adam"
    patience: int | None = None
    show_progress: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """Where the state of a search is written, and the fingerprint of the settings and
    data it belongs to."""

    path: Path
    fingerprint: str


@dataclass
class SearchResult:
    """The best point of every batch member and its loss.

    rows: the history, one row per step; last: where the search ended, which is not
    always the best
    """

    theta: Theta
    loss: Tensor
    rows: list[Row]
    last: Theta = field(default_factory=dict)


def search(
    assess: Assess,
    theta: Theta,
    settings: OptimiserSettings,
    *,
    method: str,
    checkpoint: Checkpoint | None = None,
) -> SearchResult:
    """Minimise the loss by gradient steps from `theta`; batch members do not influence
    each other.

    method: the name of it in the history
    checkpoint: the state is written every 25 steps; a search with the same settings
        resumes there and gives what an uninterrupted one gives

    Raises InputError for an unknown optimiser or a checkpoint of other settings.
    """
    optimiser = make_optimiser(settings.optimiser, settings.rate)
    state = _SearchState(theta, optimiser, settings.patience)
    first = 0
    if checkpoint and checkpoint.path.exists():
        first = state.load(checkpoint)
    steps = track(
        range(first, settings.steps),
        f"fit ({method})",
        show=settings.show_progress,
        note=state.note,
    )
    for step in steps:
        state.step(assess, step, method)
        if checkpoint and _is_checkpoint_due(step, settings.steps):
            # With the number of the step to go on with.
            state.save(checkpoint, step + 1)
        if state.settled:
            break
    return state.result()


def _is_checkpoint_due(step: int, steps: int) -> bool:
    is_last = step == steps - 1
    return is_last or step % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1


def make_optimiser(
    optimiser: Optimiser, rate: float
) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """An optimiser by its name in torch.optim, or any callable (parameters, lr=…).

    Raises InputError for an unknown name.
    """
    if not isinstance(optimiser, str):
        return lambda tensors: optimiser(tensors, lr=rate)
    known = {
        name
        for name, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    # The base class is in the same namespace and optimises nothing.
    known.discard("Optimizer")
    if optimiser not in known:
        raise InputError(
            f"Unknown optimiser {optimiser!r}; torch.optim has "
            f"{', '.join(sorted(known))}."
        )
    return lambda tensors: getattr(torch.optim, optimiser)(tensors, lr=rate)


class _SearchState:
    """The state of a search: the current point, the optimiser's memory, and the best
    point so far."""

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
        self.best_theta = _detached(theta)
        # One number per start and recording: no member influences another.
        like = next(iter(theta.values()))
        members = like.shape[:-1]
        self.best_loss = like.new_full(members, torch.inf)
        self.smoothed_loss = like.new_full(members, torch.inf)
        self.lowest_smoothed = like.new_full(members, torch.inf)
        self.steps_since = torch.zeros(members, dtype=torch.long)
        self.rows: list[Row] = []

    def step(self, assess: Assess, step: int, method: str) -> None:
        """One step of the optimiser, the best point and the history updated."""
        # Some optimisers (LBFGS) evaluate several points a step; the first is the
        # current one, which is what the best point and the history are made of.
        assessments: list[Assessment] = []

        def closure() -> Tensor:
            self.optimiser.zero_grad()
            assessment = assess(self.theta, step)
            total = self._backward(assessment.loss)
            if not assessments:
                self._keep_better(assessment)
            assessments.append(assessment)
            return total

        self.optimiser.step(closure)  # type: ignore[arg-type]
        current = assessments[0]
        # After the optimiser's step, which would overwrite it.
        self._return_halfway(~torch.isfinite(current.loss.detach()))
        self.rows.append(_row(current, step, method))

    def _backward(self, loss: Tensor) -> Tensor:
        """Gradients of every member; zero for members without a finite loss."""
        total = torch.where(torch.isfinite(loss), loss, 0.0).sum()
        total.backward()  # type: ignore[no-untyped-call]
        for value in self.theta.values():
            # Members without a finite loss may leave NaN; the others must go on.
            if value.grad is not None:
                value.grad.nan_to_num_(0.0, 0.0, 0.0)
        return total

    def _return_halfway(self, outside: Tensor) -> None:
        """Move members that left the domain half the way back to their best point."""
        if not outside.any():
            return
        for path, value in self.theta.items():
            current = value.detach()
            halfway = (current + self.best_theta[path]) / 2
            value.data.copy_(torch.where(outside.unsqueeze(-1), halfway, current))

    def _keep_better(self, assessment: Assessment) -> None:
        """Keep the point of members that improved, unless their result was final."""
        loss = assessment.loss.detach()
        patience = self.patience or NEVER
        active = self.steps_since < patience
        better = (loss < self.best_loss) & assessment.stable & active
        self.best_loss = torch.where(better, loss, self.best_loss)
        for path, value in self.theta.items():
            self.best_theta[path] = torch.where(
                better.unsqueeze(-1), value.detach(), self.best_theta[path]
            )
        improved = self._smooth(loss)
        self.steps_since = torch.where(improved & active, 0, self.steps_since + 1)

    def _smooth(self, loss: Tensor) -> Tensor:
        """Update the smoothed loss; returns which members' is lower than ever."""
        is_first = torch.isinf(self.smoothed_loss)
        moving = SMOOTHING * self.smoothed_loss + (1 - SMOOTHING) * loss
        smoothed = torch.where(is_first, loss, moving)
        # A step out of the domain leaves it as it was.
        is_finite = torch.isfinite(smoothed)
        self.smoothed_loss = torch.where(is_finite, smoothed, self.smoothed_loss)
        # Bounded, so that a first loss that is infinite, or one near zero, can improve.
        scale = self.lowest_smoothed.abs().clamp_max(1e6).clamp_min(1e-3)
        improved = self.smoothed_loss < self.lowest_smoothed - IMPROVEMENT * scale
        self.lowest_smoothed = torch.where(
            improved, self.smoothed_loss, self.lowest_smoothed
        )
        return improved

    @property
    def settled(self) -> bool:
        """Whether every member's result is final."""
        if self.patience is None:
            return False
        return bool((self.steps_since >= self.patience).all())

    def note(self) -> str:
        """The last step, for the progress bar."""
        if not self.rows:
            return ""
        row = self.rows[-1]
        return f"loss {row['loss']:.4g}, fc r {row['fc_r']:.3f}"

    def result(self) -> SearchResult:
        return SearchResult(
            theta=self.best_theta,
            loss=self.best_loss,
            rows=self.rows,
            last=_detached(self.theta),
        )

    def save(self, checkpoint: Checkpoint, step: int) -> None:
        """Write the state, plain tensors and numbers only, whole or not at all."""
        path = checkpoint.path
        state = {
            "fingerprint": checkpoint.fingerprint,
            "step": step,
            "theta": {key: value.detach() for key, value in self.theta.items()},
            "optimiser": self.optimiser.state_dict(),
            "kept": self.best_theta,
            "numbers": [
                self.best_loss,
                self.smoothed_loss,
                self.lowest_smoothed,
                self.steps_since,
            ],
            "rows": self.rows,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        # Replaced in one move: an interruption while writing leaves the old one. The
        # process in the name, because two may write beside each other.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, checkpoint: Checkpoint) -> int:
        """Take over a state that was written; returns the step to go on with."""
        state = _read_state(checkpoint)
        # In place: the optimiser holds these very tensors.
        for key, value in state["theta"].items():
            self.theta[key].data.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.best_theta = state["kept"]
        self.rows = state["rows"]
        best, smoothed, lowest, since = state["numbers"]
        self.best_loss = best
        self.smoothed_loss = smoothed
        self.lowest_smoothed = lowest
        self.steps_since = since
        return int(state["step"])


def _read_state(checkpoint: Checkpoint) -> dict:
    """What `save` wrote. Raises InputError for another file, or other settings."""
    path = checkpoint.path
    try:
        # Plain tensors and numbers only: loading a file runs no code from it.
        state = torch.load(path, weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} is not a checkpoint of a fit ({error}). Remove it to start afresh."
        ) from None
    if state.get("fingerprint") != checkpoint.fingerprint:
        raise InputError(
            f"{path} belongs to a fit with other settings or data. Name another "
            "checkpoint, or remove this one."
        )
    return state


def _detached(theta: Theta) -> Theta:
    return {path: value.detach().clone() for path, value in theta.items()}


def _row(assessment: Assessment, step: int, method: str) -> Row:
    """Means over starts and batch."""
    row: Row = {
        "method": method,
        "step": step,
        "loss": assessment.loss.detach().mean().item(),
    }
    for name, value in assessment.terms.items():
        row[name] = value.detach().mean().item()
    row["fc_r"] = assessment.fc_r.mean().item()
    row["loop_gain"] = assessment.gain.mean().item()
    return row


def fingerprint_of(*parts: object) -> str:
    """A digest of settings and data, so that a checkpoint is not continued with
    others."""
    digest = hashlib.sha256()
    for part in parts:
        for piece in _bytes_of(part):
            digest.update(piece)
    return digest.hexdigest()


def _bytes_of(part: object) -> Iterator[bytes]:
    """Content of values nested in any way, in order."""
    if isinstance(part, Tensor):
        yield part.detach().cpu().contiguous().numpy().tobytes()
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield type(part).__name__.encode()
        for entry in dataclasses.fields(part):
            yield from _bytes_of(getattr(part, entry.name))
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _bytes_of(key)
            yield from _bytes_of(value)
    elif isinstance(part, tuple | list):
        for value in part:
            yield from _bytes_of(value)
    else:
        yield repr(part).encode()
