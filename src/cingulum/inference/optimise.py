"""The search: any torch optimiser; the best stable point is kept, the state can be
resumed, and it stops when nothing improves any more."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cingulum.content import NoContent, content_digest
from cingulum.errors import InputError
from cingulum.inference.problem import Assessment, Theta, choose, members_of
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

    def write(self, state: dict) -> None:
        """Write plain tensors and numbers, whole or not at all."""
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # Replaced in one move: an interruption while writing leaves the old one. The
        # process in the name, because two may write at the same time.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def read(self) -> dict:
        """What was written. Raises InputError for another file, or other settings."""
        try:
            # Plain tensors and numbers only: loading a file runs no code from it.
            state = torch.load(self.path, weights_only=True)
        # torch raises whatever damaged bytes make it stumble over.
        except Exception as error:
            raise InputError(
                f"{self.path} is not a checkpoint of a fit ({error}). Remove it to "
                "start afresh."
            ) from None
        if state.get("fingerprint") != self.fingerprint:
            raise InputError(
                f"{self.path} belongs to a fit with other settings or data. Name "
                "another checkpoint, or remove this one."
            )
        return state


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
    # A search that is resumed shows and does only the steps that are left.
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


class _Convergence:
    """The smoothed loss of every member, and for how many steps it has not improved."""

    def __init__(self, like: Tensor, patience: int | None) -> None:
        self.patience = patience
        self.smoothed = like.clone()
        self.lowest = like.clone()
        self.steps_since = torch.zeros(like.shape, dtype=torch.long)

    @property
    def is_active(self) -> Tensor:
        """Which members may still improve."""
        return self.steps_since < (self.patience or NEVER)

    @property
    def is_reached(self) -> bool:
        """Whether every member's result is final."""
        if self.patience is None:
            return False
        return bool((self.steps_since >= self.patience).all())

    def update(self, loss: Tensor) -> None:
        self._smooth(loss)
        improved = self._is_improved()
        self.lowest = torch.where(improved, self.smoothed, self.lowest)
        # A member that was final stays so, whatever its loss does afterwards.
        restarted = improved & self.is_active
        self.steps_since = torch.where(restarted, 0, self.steps_since + 1)

    def _smooth(self, loss: Tensor) -> None:
        moving = SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        # There is no past before the first step.
        smoothed = torch.where(torch.isinf(self.smoothed), loss, moving)
        # A step out of the domain leaves it as it was.
        is_finite = torch.isfinite(smoothed)
        self.smoothed = torch.where(is_finite, smoothed, self.smoothed)

    def _is_improved(self) -> Tensor:
        # Bounded, so that a first loss that is infinite, or one near zero, can improve.
        scale = self.lowest.abs().clamp_max(1e6).clamp_min(1e-3)
        return self.smoothed < self.lowest - IMPROVEMENT * scale


class _SearchState:
    """The state of a search: the current point, the optimiser's memory, and the best
    point so far."""

    def __init__(
        self,
        theta: Theta,
        optimiser: Callable[[list[Tensor]], torch.optim.Optimizer],
        patience: int | None,
    ) -> None:
        self.best_theta = _detached(theta)
        self.theta = _detached(theta)
        for value in self.theta.values():
            value.requires_grad_()
        self.optimiser = optimiser(list(self.theta.values()))
        # One number per start and recording: no member influences another.
        like = next(iter(theta.values()))
        self.best_loss = like.new_full(members_of(theta), torch.inf)
        self.convergence = _Convergence(self.best_loss, patience)
        self.rows: list[Row] = []

    def step(self, assess: Assess, step: int, method: str) -> None:
        """One step of the optimiser; the best point and the history are updated."""
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
        total.backward()
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
            # In place: the optimiser holds these very tensors.
            value.data.copy_(choose(outside, halfway, current))

    def _keep_better(self, assessment: Assessment) -> None:
        """Keep the point of members that improved, unless their result was final."""
        loss = assessment.loss.detach()
        lower = (loss < self.best_loss) & assessment.stable
        better = lower & self.convergence.is_active
        self.best_loss = torch.where(better, loss, self.best_loss)
        for path, value in self.theta.items():
            best = self.best_theta[path]
            self.best_theta[path] = choose(better, value.detach(), best)
        self.convergence.update(loss)

    @property
    def settled(self) -> bool:
        return self.convergence.is_reached

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
        """Write all that the next step depends on."""
        convergence = self.convergence
        checkpoint.write(
            {
                "fingerprint": checkpoint.fingerprint,
                "step": step,
                "theta": {key: value.detach() for key, value in self.theta.items()},
                "optimiser": self.optimiser.state_dict(),
                "kept": self.best_theta,
                "numbers": [
                    self.best_loss,
                    convergence.smoothed,
                    convergence.lowest,
                    convergence.steps_since,
                ],
                "rows": self.rows,
            }
        )

    def load(self, checkpoint: Checkpoint) -> int:
        """Take over a state that was written; returns the step to go on with."""
        state = checkpoint.read()
        # In place: the optimiser holds these very tensors.
        for key, value in state["theta"].items():
            self.theta[key].data.copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        self.best_theta = state["kept"]
        self.rows = state["rows"]
        self.best_loss, *convergence = state["numbers"]
        smoothed, lowest, steps_since = convergence
        self.convergence.smoothed = smoothed
        self.convergence.lowest = lowest
        self.convergence.steps_since = steps_since
        return int(state["step"])


def _detached(theta: Theta) -> Theta:
    return {path: value.detach().clone() for path, value in theta.items()}


def _row(assessment: Assessment, step: int, method: str) -> Row:
    """Means over starts and batch."""
    row: Row = {
        "method": method,
        "step": step,
        "loss": mean_of(assessment.loss),
    }
    for name, value in assessment.terms.items():
        row[name] = mean_of(value)
    row["fc_r"] = mean_of(assessment.fc_r)
    row["loop_gain"] = mean_of(assessment.gain)
    return row


def mean_of(values: Tensor) -> float:
    return values.detach().mean().item()


def fingerprint_of(*parts: object) -> str:
    """A digest of settings, data and functions, so that a checkpoint is not continued
    with others.

    Raises InputError for a value that cannot be compared.
    """
    try:
        return content_digest(*parts)
    except NoContent as error:
        raise InputError(
            f"A checkpoint cannot be proven to belong to this computation: it uses "
            f"{error}. Give a function or a dataclass, or leave the checkpoint out."
        ) from None
