"""Responses of patients to machines trained without them: who trains which model, one
modality at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.permutation import dealt_into_folds
from cingulum.prediction.settings import Fusion, Svm, Validation
from cingulum.prediction.svm import responses
from cingulum.prediction.svm.products import (
    ConfoundRegression,
    PairedProducts,
    fitted_products,
    mean_scan_products,
    paired_products,
)
from cingulum.random_streams import Stream, generator


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
        n: int, validation: Validation, svm: Svm, blocks: np.ndarray | None = None
    ) -> FoldPlan:
        """Folds of n patients. Patients of a block (a family) are dealt together;
        without folds, one block is left out at a time."""
        block = np.arange(n)
        if blocks is not None:
            block = np.unique(blocks, return_inverse=True)[1]
        number = int(block.max()) + 1
        _check_inner_folds(validation.inner_folds, number)
        # One stream, outer folds first: the order is part of what a seed means.
        rng = generator(validation.seed, Stream.INNER_FOLDS)
        outer = dealt_into_folds(number, validation.folds, rng)
        inner = rng.permutation(number) % validation.inner_folds
        return FoldPlan(outer[block], inner[block], svm.C, svm.fusion)

    @property
    def penalty(self) -> float:
        """Of the second machine and of kernels: the middle one."""
        return self.C[len(self.C) // 2]

    @property
    def is_training(self) -> np.ndarray:
        """(fold, patient): who may train models that are tested on the fold."""
        return self.outer != np.arange(self.folds)[:, None]

    @property
    def trains(self) -> np.ndarray:
        """(fold, part + 1, patient): who trains the model without the fold and the
        part; the last part is nobody."""
        outside_part = self.inner != np.arange(self.parts + 1)[:, None]
        return self.is_training[:, None] & outside_part[None]

    def models(self, with_inner: bool) -> np.ndarray:
        """Who trains each model (model, patient): outer models first, then, where they
        are wanted, the inner ones fold by fold."""
        outer = self.trains[:, -1]
        if not with_inner:
            return outer
        inner = self.trains[:, :-1].reshape(-1, len(self.outer))
        return np.concatenate([outer, inner])

    @property
    def inner_model(self) -> np.ndarray:
        """Row of `models` without each fold and the patient's part (fold, patient)."""
        first_of_fold = self.folds + np.arange(self.folds)[:, None] * self.parts
        return first_of_fold + self.inner[None]

    @property
    def folds(self) -> int:
        return int(self.outer.max()) + 1

    @property
    def parts(self) -> int:
        return int(self.inner.max()) + 1


def _check_inner_folds(folds: int, patients: int) -> None:
    # Half, so that every part of the training patients holds at least two.
    most = patients // 2
    if not 2 <= folds <= most:
        raise InputError(
            f"inner_folds is between 2 and half the patients, {most}; got {folds}."
        )


class OutOfFold(NamedTuple):
    """decision, first (problem, n) by models without the patient's fold; inside,
    inside_first (problem, fold, n) by models without the fold and the patient's part.
    first: scores of first visits."""

    decision: np.ndarray
    first: np.ndarray
    inside: np.ndarray
    inside_first: np.ndarray


@dataclass(frozen=True, eq=False)
class ModalityKernel:
    """One modality: who has it, and its inner products.

    available: (patient,); shared: products of models fitted on everybody; fitted,
    trains: products (model, n, n) and training patients (model, n) of every model,
    where something is fitted before the machine, outer models first, then inner ones
    fold by fold; wants_inside: whether inner responses are wanted; residual: (n, n),
    removes confounds from everybody's differences
    """

    plan: FoldPlan
    available: np.ndarray
    shared: PairedProducts
    fitted: PairedProducts | None
    trains: np.ndarray | None
    wants_inside: bool
    residual: np.ndarray
    scale: bool = False

    @staticmethod
    def of(
        plan: FoldPlan,
        values: np.ndarray,
        available: np.ndarray,
        scale: bool,
        confounds: np.ndarray | None,
        fused: bool,
    ) -> ModalityKernel:
        """values: (patient, visit, feature); confounds: (patient, visit, confound)."""
        # Inner responses train the fusion, and choose the penalty where there are
        # several.
        wants_inside = fused or len(plan.C) > 1
        shared = _products_of_everybody(values, available, scale, confounds)
        # Where nothing is fitted first, all models share these products.
        fitted = None
        trains = None
        if scale or confounds is not None:
            trains = plan.models(wants_inside)
            fitted = fitted_products(values, available, trains, scale, confounds)
        return ModalityKernel(
            plan,
            available,
            shared,
            fitted,
            trains,
            wants_inside,
            ConfoundRegression.of(confounds, available).from_difference,
            scale,
        )

    def held_out(self, signs: np.ndarray) -> OutOfFold:
        """Responses under these signs (problem, n), C tuned where there are several."""
        known = signs * self.available
        by_penalty = [self._with_penalty(known, C) for C in self.plan.C]
        if len(by_penalty) == 1:
            return by_penalty[0]
        return self._tuned(by_penalty)

    def _tuned(self, by_penalty: list[OutOfFold]) -> OutOfFold:
        """Of every fold, the responses by the penalty with the best inner accuracy."""
        best = self._best_penalty(by_penalty)
        of_patient = best[:, self.plan.outer]  # (problem, n)
        decisions, firsts, insides, insides_first = zip(*by_penalty, strict=True)
        return OutOfFold(
            _choose(decisions, of_patient),
            _choose(firsts, of_patient),
            _choose(insides, best[:, :, None]),
            _choose(insides_first, best[:, :, None]),
        )

    def _best_penalty(self, by_penalty: list[OutOfFold]) -> np.ndarray:
        """Index of the penalty (problem, fold)."""
        accuracies = [self._inner_accuracy(each.inside) for each in by_penalty]
        # Of equal ones argmax takes the first, which is the smallest penalty.
        return np.stack(accuracies).argmax(0)

    def _inner_accuracy(self, inside: np.ndarray) -> np.ndarray:
        """(problem, fold): share of correct training patients, undecided ones half."""
        judged = self.available & self.plan.is_training
        correct = ((inside > 0) + 0.5 * (inside == 0)) * judged
        return correct.sum(-1) / judged.sum(-1)

    def _with_penalty(self, signs: np.ndarray, C: float) -> OutOfFold:
        if self.fitted is None or self.trains is None:
            return self._from_shared_products(signs, C)
        return self._from_fitted_products(self.fitted, self.trains, signs, C)

    def _from_shared_products(self, signs: np.ndarray, C: float) -> OutOfFold:
        plan = self.plan
        gram = self.shared.gram
        cross = self.shared.cross
        held_out = responses.held_out(
            gram, cross, self._mean_scans(), signs, plan.outer, plan.inner, 2 * C
        )
        return OutOfFold(*held_out)

    def _mean_scans(self) -> np.ndarray:
        """Products of each model's mean training scan (fold, part + 1, n), the outer
        model last; it alone where no inner responses are wanted."""
        trains = self.plan.trains * self.available
        products = mean_scan_products(self.shared.gram, self.shared.cross, trains)
        if self.wants_inside:
            return products
        # The compiled code expects contiguous arrays.
        return np.ascontiguousarray(products[:, -1:])

    def _from_fitted_products(
        self, fitted: PairedProducts, trains: np.ndarray, signs: np.ndarray, C: float
    ) -> OutOfFold:
        kept = trains.astype(float)
        centre = mean_scan_products(fitted.gram, fitted.cross, kept * self.available)
        decision, first = responses.held_out_each(
            fitted.gram, fitted.cross, centre, kept, signs, 2 * C
        )
        return OutOfFold(
            self._of_outer_models(decision),
            self._of_outer_models(first),
            self._of_inner_models(decision),
            self._of_inner_models(first),
        )

    def _of_outer_models(self, by_model: np.ndarray) -> np.ndarray:
        """Of values (problem, model, n), each patient's by the model without its fold
        (problem, n)."""
        outer = self.plan.outer
        # The model without a fold has the number of the fold.
        return by_model[:, outer, np.arange(len(outer))]

    def _of_inner_models(self, by_model: np.ndarray) -> np.ndarray:
        """The same by the models without a fold and the patient's part (problem, fold,
        n); without folds where no inner models were fitted."""
        problems, _, n = by_model.shape
        if not self.wants_inside:
            return np.zeros((problems, 0, n))
        return by_model[:, self.plan.inner_model, np.arange(n)]


def _products_of_everybody(
    values: np.ndarray,
    available: np.ndarray,
    scale: bool,
    confounds: np.ndarray | None,
) -> PairedProducts:
    """Inner products after what is fitted to all patients."""
    if not scale and confounds is None:
        return paired_products(values, available)
    everybody = np.ones((1, len(available)), bool)
    fitted = fitted_products(values, available, everybody, scale, confounds)
    return PairedProducts(fitted.gram[0], fitted.cross[0])


def _choose(options: Sequence[np.ndarray], which: np.ndarray) -> np.ndarray:
    """Of arrays of one shape, entry by entry that with the index `which`."""
    return np.take_along_axis(np.stack(options), which[None], 0)[0]
