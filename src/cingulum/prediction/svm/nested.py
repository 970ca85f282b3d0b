"""Responses of patients to machines that never saw them: who may be seen by whom, one
modality at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.svm import solver
from cingulum.prediction.svm.products import (
    Products,
    middle,
    products,
    products_each,
    residual,
)
from cingulum.random_streams import Stream, generator

Fusion = Literal["stacked", "kernels", "log_odds"]
Missing = Literal["complete", "log_odds"]


@dataclass(frozen=True, eq=False)
class FoldPlan:
    """outer (patient,): who is tested together; inner (patient,): who is judged
    together inside; C: rising."""

    outer: np.ndarray
    inner: np.ndarray
    C: tuple[float, ...]
    fusion: Fusion

    @staticmethod
    def of(
        n: int,
        folds: int | None,
        parts: int,
        C: tuple[float, ...],
        fusion: Fusion,
        seed: int,
        blocks: np.ndarray | None = None,
    ) -> FoldPlan:
        """Patients of a block (a family) are dealt together; without folds, one block
        is left out at a time."""
        member = (
            np.arange(n)
            if blocks is None
            else np.unique(blocks, return_inverse=True)[1]
        )
        n = int(member.max()) + 1
        if folds is not None and not 2 <= folds <= n:
            raise InputError(
                f"folds is between 2 and the number of patients, {n}; came {folds}."
            )
        if not 2 <= parts <= n // 2:
            raise InputError(
                f"inner_folds is between 2 and half the patients, {n // 2}; came "
                f"{parts}."
            )
        if not all(0 < c < np.inf for c in C):
            raise InputError(f"C must be positive; came {', '.join(map(str, C))}.")
        if fusion not in ("stacked", "kernels", "log_odds"):
            raise InputError(
                f"fusion is stacked, kernels or log_odds; came {fusion!r}."
            )
        rng = generator(seed, Stream.INNER_FOLDS)
        outer = np.arange(n) if folds is None else rng.permutation(n) % folds
        return FoldPlan(
            outer[member],
            (rng.permutation(n) % parts)[member],
            tuple(sorted(C)),
            fusion,
        )

    @property
    def penalty(self) -> float:
        """Of the second machine and of kernels: the middle one."""
        return self.C[len(self.C) // 2]

    @property
    def trains(self) -> np.ndarray:
        """(fold, part + 1, patient): who trains the model without the fold and the
        part; the last part is nobody."""
        outside = self.outer != np.arange(self.folds)[:, None]
        apart = self.inner != np.arange(self.parts + 1)[:, None]
        return outside[:, None] & apart[None]

    @property
    def folds(self) -> int:
        return int(self.outer.max()) + 1

    @property
    def parts(self) -> int:
        return int(self.inner.max()) + 1


class OutOfFold(NamedTuple):
    """decision, first (problem, n) by models without the patient's fold; inside,
    inside_first (problem, fold, n)."""

    decision: np.ndarray
    first: np.ndarray
    inside: np.ndarray
    inside_first: np.ndarray


@dataclass(frozen=True, eq=False)
class ModalityKernel:
    """One modality: who has it, its inner products, and whether inner responses are
    wanted."""

    plan: FoldPlan
    here: np.ndarray
    shared: Products
    each: Products | None
    trains: np.ndarray | None
    inside: bool
    residual: np.ndarray
    scale: bool = False

    @staticmethod
    def of(
        plan: FoldPlan,
        values: np.ndarray,
        here: np.ndarray,
        scale: bool,
        confounds: np.ndarray | None,
        fused: bool,
    ) -> ModalityKernel:
        inside = fused or len(plan.C) > 1
        if not scale and confounds is None:
            return ModalityKernel(
                plan,
                here,
                products(values, here),
                None,
                None,
                inside,
                np.eye(len(here)),
            )
        marked = plan.trains  # outer models first, then inner ones fold by fold
        trains = (
            np.concatenate([marked[:, -1], marked[:, :-1].reshape(-1, len(here))])
            if inside
            else marked[:, -1]
        )
        everybody = products_each(
            values, here, np.ones((1, len(here)), bool), scale, confounds
        )
        shared = Products(everybody.gram[0], everybody.cross[0])
        left, _ = residual(confounds, here, len(here))
        each = products_each(values, here, trains, scale, confounds)
        return ModalityKernel(plan, here, shared, each, trains, inside, left, scale)

    def held(self, signs: np.ndarray) -> OutOfFold:
        """Responses under these signs (problem, n), C tuned where there are several."""
        each = [self._held(signs * self.here, c) for c in self.plan.C]
        if len(each) == 1:
            return each[0]
        counted = np.stack(
            [self._inner_accuracy(h.inside) for h in each]
        )  # (C, problem, fold)
        best = counted.argmax(0)  # the smallest of equals
        mine = best[:, self.plan.outer]  # (problem, n)
        return OutOfFold(
            np.take_along_axis(np.stack([h.decision for h in each]), mine[None], 0)[0],
            np.take_along_axis(np.stack([h.first for h in each]), mine[None], 0)[0],
            np.take_along_axis(
                np.stack([h.inside for h in each]), best[None, :, :, None], 0
            )[0],
            np.take_along_axis(
                np.stack([h.inside_first for h in each]), best[None, :, :, None], 0
            )[0],
        )

    def _inner_accuracy(self, inside: np.ndarray) -> np.ndarray:
        judged = self.here & (self.plan.outer != np.arange(self.plan.folds)[:, None])
        hit = ((inside > 0) + 0.5 * (inside == 0)) * judged
        return hit.sum(-1) / judged.sum(-1)

    def _held(self, signs: np.ndarray, C: float) -> OutOfFold:
        plan = self.plan
        if self.each is None:
            parts = plan.parts if self.inside else 0
            gram, cross = self.shared.gram, self.shared.cross
            centre = middle(gram, cross, plan.trains * self.here)
            centre = centre if parts else np.ascontiguousarray(centre[:, -1:])
            return OutOfFold(
                *solver.held_out(
                    gram,
                    cross,
                    centre,
                    signs,
                    plan.outer,
                    plan.inner,
                    plan.folds,
                    parts,
                    2 * C,
                )
            )
        kept = np.asarray(self.trains, float)
        centre = middle(self.each.gram, self.each.cross, kept * self.here)
        decision, first = solver.held_out_each(
            self.each.gram, self.each.cross, centre, kept, signs, 2 * C
        )
        rows = np.arange(len(plan.outer))
        inner = (
            plan.folds + np.arange(plan.folds)[:, None] * plan.parts + plan.inner[None]
        )
        inside = inside_first = np.zeros((len(signs), 0, len(rows)))
        if self.inside:
            inside, inside_first = decision[:, inner, rows], first[:, inner, rows]
        return OutOfFold(
            decision[:, plan.outer, rows],
            first[:, plan.outer, rows],
            inside,
            inside_first,
        )
