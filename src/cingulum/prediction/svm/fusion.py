"""One decision out of several modalities: stacked machines, weighted kernels, or
log-odds that add."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cingulum.prediction.compiled_statistics import mirrored_auc, two_sample_auc
from cingulum.prediction.statistics import accuracy, rounded
from cingulum.prediction.svm import compiled_fusion
from cingulum.prediction.svm.nested import FoldPlan, ModalityKernel, OutOfFold
from cingulum.prediction.svm.products import mean_scan_products


class ModelResponses(NamedTuple):
    """decision and scores of the scan labelled first (problem, n), both as if every
    label were +1; available (n,): who has data."""

    decision: np.ndarray
    first: np.ndarray
    available: np.ndarray

    @property
    def statistics(self) -> np.ndarray:
        """Accuracy, mirrored AUC and single-scan AUC (3, problem)."""
        decision = rounded(self.decision[:, self.available])
        single_scan_auc = self._single_scan_auc(decision)
        return np.stack([accuracy(decision), mirrored_auc(decision), single_scan_auc])

    def _single_scan_auc(self, decision: np.ndarray) -> np.ndarray:
        """AUC (problem,) of second visits against first ones; decision: rounded, of
        those who have data."""
        first = self.first[:, self.available]
        # Both visits by the same largest value, so that equal scans are still equal.
        scans = rounded(np.concatenate([first, first + decision], 1))
        first, second = np.split(scans, 2, axis=1)
        return two_sample_auc(second, first)


class FusedResponses(NamedTuple):
    """The fusion as a model, and the mean weights (problem, modality) of its parts."""

    model: ModelResponses
    weights: np.ndarray


class AllResponses(NamedTuple):
    """Of every model under some signs: responses by name (modalities, then `fused`),
    what the unimodal machines gave, and weights (problem, modality) of the fusion."""

    models: dict[str, ModelResponses]
    held_out: dict[str, OutOfFold]
    weights: np.ndarray


def decide(
    plan: FoldPlan,
    kernels: dict[str, ModalityKernel],
    fused: list[str],
    signs: np.ndarray,
) -> AllResponses:
    """Every model under these signs (problem, n)."""
    held_out = {}
    models = {}
    for name, kernel in kernels.items():
        responses = _labelled(kernel.held_out(signs), signs)
        held_out[name] = responses
        models[name] = ModelResponses(
            responses.decision, responses.first, kernel.available
        )
    # One modality alone has no weight in a fusion.
    weights = np.zeros((len(signs), len(fused)))
    if len(fused) > 1:
        models["fused"], weights = fuse(plan, kernels, fused, held_out, signs)
    return AllResponses(models, held_out, weights)


def _labelled(responses: OutOfFold, signs: np.ndarray) -> OutOfFold:
    """With the scores of the scans labelled first, not of first visits."""
    first = labelled_first(responses.first, responses.decision, signs)
    return responses._replace(first=first)


def labelled_first(
    first: np.ndarray, decision: np.ndarray, signs: np.ndarray
) -> np.ndarray:
    """Scores of the scan labelled first. Where a sign is flipped that is the second
    visit: its score is first + difference, and the difference is −decision there."""
    return np.where(signs < 0, first - decision, first)


def fuse(
    plan: FoldPlan,
    kernels: dict[str, ModalityKernel],
    names: list[str],
    held_out: dict[str, OutOfFold],
    signs: np.ndarray,
) -> FusedResponses:
    """The fusion of the modalities `names`. `signs` matter to kernels only: the others
    fuse responses, which are already in the frame of the labels."""
    fused = [kernels[name] for name in names]
    if plan.fusion == "kernels":
        return _fuse_kernels(plan, fused, signs)
    available = np.stack([kernel.available for kernel in fused], -1)
    responses = StackedResponses.of([held_out[name] for name in names])
    if plan.fusion == "stacked":
        return _fuse_stacked(plan, available, responses)
    return _fuse_log_odds(plan, available, responses)


class StackedResponses(NamedTuple):
    """Unimodal responses with modality as the last axis: inside (problem, fold, n,
    modality); decision, first (problem, n, modality)."""

    inside: np.ndarray
    decision: np.ndarray
    first: np.ndarray

    @staticmethod
    def of(held_out: list[OutOfFold]) -> StackedResponses:
        """A modality with one problem serves all problems of the others."""
        decisions, firsts, insides, _ = zip(*held_out, strict=True)
        problems = max(map(len, decisions))
        return StackedResponses(
            _stack(insides, problems),
            _stack(decisions, problems),
            _stack(firsts, problems),
        )


def _stack(arrays: Iterable[np.ndarray], problems: int) -> np.ndarray:
    repeated = []
    for array in arrays:
        # Repeated without a copy.
        repeated.append(np.broadcast_to(array, (problems, *array.shape[1:])))
    return np.stack(repeated, -1)


def _fuse_stacked(
    plan: FoldPlan, available: np.ndarray, responses: StackedResponses
) -> FusedResponses:
    complete = np.asarray(available.all(1))
    decision, first, weights = compiled_fusion.stacked(
        responses.inside,
        responses.decision,
        responses.first,
        plan.outer,
        complete,
        2 * plan.penalty,
    )
    return FusedResponses(ModelResponses(decision, first, complete), weights)


def _fuse_log_odds(
    plan: FoldPlan, available: np.ndarray, responses: StackedResponses
) -> FusedResponses:
    slopes = log_odds(responses.inside, available, plan)
    # A patient without a modality gets nothing from it.
    weights = slopes[:, plan.outer] * available
    model = ModelResponses(
        (weights * responses.decision).sum(-1),
        (weights * responses.first).sum(-1),
        np.asarray(available.any(1)),
    )
    return FusedResponses(model, slopes.mean(1))


def log_odds(inside: np.ndarray, available: np.ndarray, plan: FoldPlan) -> np.ndarray:
    """Slopes (problem, fold, modality) of log-odds in the decision d ~ N(±μ, σ²): 2 μ /
    σ², not below zero."""
    judged = (available[None] & plan.is_training[..., None]).astype(float)
    count = judged.sum(1)
    # At least 1, so that a fold without training patients is not divided by 0.
    mean = (inside * judged).sum(2) / np.maximum(count, 1)
    squares = np.square(inside - mean[:, :, None]) * judged
    variance = squares.sum(2) / np.maximum(count - 1, 1)
    # Of fewer than three training patients nothing is learnt.
    return np.where(count < 3, 0.0, _slopes(mean, variance))


def _slopes(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    # A modality that never errs the same way has no variance: it counts as sure, not as
    # infinitely sure.
    floor = 1e-12 * np.square(mean) + 1e-300
    return np.maximum(0.0, 2 * mean / np.maximum(variance, floor))


@dataclass(frozen=True, eq=False)
class _Kernels:
    """Inner products of several modalities (modality, n, n)."""

    grams: np.ndarray
    crosses: np.ndarray
    complete: np.ndarray

    @staticmethod
    def of(kernels: list[ModalityKernel]) -> _Kernels:
        return _Kernels(
            np.stack([kernel.shared.gram for kernel in kernels]),
            np.stack([kernel.shared.cross for kernel in kernels]),
            np.all([kernel.available for kernel in kernels], axis=0),
        )

    def flipped(self, modality: int, signs: np.ndarray) -> _Kernels:
        """With the differences of one modality flipped where signs (n,) are −1."""
        grams = self.grams.copy()
        crosses = self.crosses.copy()
        grams[modality] *= np.outer(signs, signs)
        crosses[modality] = self._labelled_cross(modality, signs) * signs[None]
        return _Kernels(grams, crosses, self.complete)

    def _labelled_cross(self, modality: int, signs: np.ndarray) -> np.ndarray:
        """Products of the scans labelled first with the unflipped differences."""
        gram = self.grams[modality]
        cross = self.crosses[modality]
        # Where visits are swapped, the second one is labelled first.
        return np.where(signs[:, None] < 0, cross + gram, cross)

    def aligned(
        self, plan: FoldPlan, signs: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decisions, scores of first visits and weights of the fused machine."""
        return compiled_fusion.aligned(
            self.grams,
            self.crosses,
            self._mean_scans(plan),
            signs,
            plan.outer,
            self.complete,
            2 * plan.penalty,
        )

    def _mean_scans(self, plan: FoldPlan) -> np.ndarray:
        """Products of each fold's mean training scan (modality, fold, n)."""
        # Of outer models only, which come last.
        trains = plan.trains[:, -1] * self.complete
        products = []
        for gram, cross in zip(self.grams, self.crosses, strict=True):
            products.append(mean_scan_products(gram, cross, trains))
        return np.stack(products)


def _fuse_kernels(
    plan: FoldPlan, fused: list[ModalityKernel], signs: np.ndarray
) -> FusedResponses:
    kernels = _Kernels.of(fused)
    decision, first, weights = kernels.aligned(plan, signs)
    first = labelled_first(first, decision, signs)
    return FusedResponses(ModelResponses(decision, first, kernels.complete), weights)


def fuse_with_flipped(
    plan: FoldPlan, fused: list[ModalityKernel], modality: int, signs: np.ndarray
) -> ModelResponses:
    """Kernel fusion with the differences of one modality alone flipped, under every
    row of signs (problem, n)."""
    kernels = _Kernels.of(fused)
    labels = np.ones((1, signs.shape[1]))
    decisions = []
    firsts = []
    for row in signs:
        decision, first, _ = kernels.flipped(modality, row).aligned(plan, labels)
        decisions.append(decision)
        firsts.append(first)
    return ModelResponses(
        np.concatenate(decisions), np.concatenate(firsts), kernels.complete
    )
