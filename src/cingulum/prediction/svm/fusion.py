"""One decision out of several modalities: stacked machines, weighted kernels, or
log-odds that add."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cingulum.prediction.statistics import accuracy, rounded
from cingulum.prediction.svm import solver
from cingulum.prediction.svm.nested import FoldPlan, ModalityKernel, OutOfFold
from cingulum.prediction.svm.products import middle


class Model(NamedTuple):
    """decision and scores of the scan labelled first (problem, n), both as if every
    label were +1; who has data."""

    decision: np.ndarray
    first: np.ndarray
    here: np.ndarray

    @property
    def statistics(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Accuracy, mirrored AUC and single-scan AUC (problem,)."""
        d, first = rounded(self.decision[:, self.here]), self.first[:, self.here]
        scans = rounded(np.concatenate([first, first + d], 1))
        first, second = np.split(scans, 2, axis=1)
        return accuracy(d), solver.mirrored_auc(d), solver.two_sample_auc(second, first)


class Decided(NamedTuple):
    models: dict[str, Model]
    held: dict[str, OutOfFold]
    weights: np.ndarray


def decide(
    plan: FoldPlan,
    kernels: dict[str, ModalityKernel],
    fused: list[str],
    signs: np.ndarray,
) -> Decided:
    """Every model under these signs (problem, n)."""
    held = {name: room.held(signs) for name, room in kernels.items()}
    framed = {n: h._replace(first=labelled_first(h, signs)) for n, h in held.items()}
    models = {n: Model(h.decision, h.first, kernels[n].here) for n, h in framed.items()}
    weights = np.zeros((len(signs), len(fused)))
    if len(fused) > 1:
        models["fused"], weights = fuse(plan, kernels, fused, framed, signs)
    return Decided(models, framed, weights)


def labelled_first(held: OutOfFold, signs: np.ndarray) -> np.ndarray:
    """Where a sign is flipped, the second visit (first + difference) is the one
    labelled first."""
    return np.where(signs < 0, held.first - held.decision, held.first)


def fuse(
    plan: FoldPlan,
    kernels: dict[str, ModalityKernel],
    names: list[str],
    held: dict[str, OutOfFold],
    signs: np.ndarray,
) -> tuple[Model, np.ndarray]:
    """The fusion (as a model) and its mean weights (problem, modality). `signs` matter
    to kernels only."""
    here = np.stack([kernels[n].here for n in names], -1)
    if plan.fusion == "kernels":
        taken = np.asarray(here.all(1))
        found, first, weights = solver.aligned(
            *_kernels(
                plan,
                [kernels[n].shared.gram for n in names],
                [kernels[n].shared.cross for n in names],
                taken,
            ),
            signs,
            plan.outer,
            plan.folds,
            taken,
            2 * plan.penalty,
        )
        first = np.where(signs < 0, first - found, first)
        return Model(found, first, taken), weights
    problems = max(len(held[n].decision) for n in names)
    inside, decision, score = (
        np.stack(
            [
                np.broadcast_to(
                    getattr(held[n], part),
                    (problems, *getattr(held[n], part).shape[1:]),
                )
                for n in names
            ],
            -1,
        )
        for part in ("inside", "decision", "first")
    )
    if plan.fusion == "stacked":
        taken = np.asarray(here.all(1))
        found, first, weights = solver.stacked(
            inside, decision, score, plan.outer, taken, 2 * plan.penalty
        )
        return Model(found, first, taken), weights
    slopes = log_odds(inside, here, plan)
    mine = slopes[:, plan.outer] * here
    model = Model(
        (mine * decision).sum(-1), (mine * score).sum(-1), np.asarray(here.any(1))
    )
    return model, slopes.mean(1)


def _kernels(
    plan: FoldPlan,
    grams: list[np.ndarray],
    crosses: list[np.ndarray],
    taken: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inner products (modality, n, n) and those of the mean training scans (modality,
    fold, n)."""
    trains = plan.trains[:, -1] * taken
    return (
        np.stack(grams),
        np.stack(crosses),
        np.stack([middle(g, c, trains) for g, c in zip(grams, crosses, strict=True)]),
    )


def log_odds(inside: np.ndarray, here: np.ndarray, plan: FoldPlan) -> np.ndarray:
    """Slopes (problem, fold, modality) of log-odds in the decision d ~ N(±μ, σ²): 2 μ /
    σ², not below zero."""
    judged = (
        here[None] & (plan.outer != np.arange(plan.folds)[:, None])[..., None]
    ).astype(float)
    count = judged.sum(1)
    mean = (inside * judged).sum(2) / np.maximum(count, 1)
    variance = (np.square(inside - mean[:, :, None]) * judged).sum(2) / np.maximum(
        count - 1, 1
    )
    # Of fewer than three training patients nothing is learnt; a modality that never
    # errs the same way counts as sure.
    return np.where(
        count < 3,
        0.0,
        np.maximum(
            0.0, 2 * mean / np.maximum(variance, 1e-12 * np.square(mean) + 1e-300)
        ),
    )


def one_flipped(
    plan: FoldPlan,
    kernels: dict[str, ModalityKernel],
    names: list[str],
    name: str,
    signs: np.ndarray,
) -> Model:
    """Kernel fusion with the differences of one modality flipped: its inner products
    change sign."""
    flip = {n: signs if n == name else np.ones_like(signs) for n in names}
    grams = np.stack(
        [kernels[n].shared.gram * np.outer(flip[n], flip[n]) for n in names]
    )
    crosses = []
    for n in names:
        cross, gram = kernels[n].shared.cross, kernels[n].shared.gram
        labelled = np.where(
            flip[n][:, None] < 0, cross + gram, cross
        )  # where visits are swapped: the second one
        crosses.append(labelled * flip[n][None])
    taken = np.asarray(np.all([kernels[n].here for n in names], axis=0))
    ones = np.ones((1, len(signs)))
    kernels = _kernels(plan, list(grams), crosses, taken)  # type: ignore[assignment]
    found, first, _ = solver.aligned(  # type: ignore[call-arg]
        *kernels, ones, plan.outer, plan.folds, taken, 2 * plan.penalty
    )
    return Model(found, first, taken)
