"""Features of both visits of patients, as inputs of a regression of ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.scan_kernels import (
    ScanKernel,
    column_kernel,
    feature_kernel,
)
from cingulum.prediction.svm.nested import FoldPlan, ModalityKernel
from cingulum.prediction.svm.products import copy_of

MINIMUM_PATIENTS = 10
"""With fewer, the 95 % interval of a correlation of 0 is wider than −.63 to .63."""


@dataclass(frozen=True, eq=False)
class PairedFeatures:
    """Features of both visits, and what is done to them in every fold.

    modalities: by name (patient, visit, feature); scale: those that are standardised;
    confounds (patient, visit, confound): regressed out
    """

    modalities: dict[str, np.ndarray]
    scale: tuple[str, ...] = ()
    confounds: np.ndarray | None = None

    def check(self, patients: Sequence[str]) -> None:
        """Raises InputError for features that do not belong to these patients, for
        missing values, and for patients with the same features."""
        for name, values in self.modalities.items():
            _check_features(name, values, len(patients))
        self._check_copies(patients)
        # After the other checks, whose messages say more about a table that is wrong.
        _check_number(len(patients))

    def _check_copies(self, patients: Sequence[str]) -> None:
        twins = copy_of(list(self.modalities.values()))
        if twins is not None:
            first, second = twins
            raise _copy_error(patients[first], patients[second])

    def kernel(self, visits: tuple[int, ...], sites: np.ndarray | None) -> ScanKernel:
        """Kernel of the features of some visits; sites (patient,): removed."""
        rows = {name: _scan_rows(v, visits) for name, v in self.modalities.items()}
        confounds = self._confound_rows(visits)
        return feature_kernel(rows, self.scale, confounds, _scan_sites(sites, visits))

    def confound_baseline(self, visits: tuple[int, ...]) -> dict[str, ScanKernel]:
        """Kernel of the confounds alone, by name; empty without any."""
        rows = self._confound_rows(visits)
        if rows is None:
            return {}
        return {"confounds": column_kernel(lambda fold: rows)}

    def _confound_rows(self, visits: tuple[int, ...]) -> np.ndarray | None:
        return None if self.confounds is None else _scan_rows(self.confounds, visits)

    def responses(self, plan: FoldPlan) -> np.ndarray:
        """Decision responses (fold, patient, visit, modality) of paired SVMs: of a
        fold's own patients by SVMs trained without the fold; of the others by SVMs
        trained without the fold and without them."""
        shape = (plan.folds, len(plan.outer), 2, len(self.modalities))
        responses = np.empty(shape)
        for m, name in enumerate(self.modalities):
            responses[..., m] = self._responses_to(name, plan)
        return responses

    def _responses_to(self, name: str, plan: FoldPlan) -> np.ndarray:
        """Decision responses (fold, patient, visit) to one modality."""
        kernel = self._svm_kernel(name, plan)
        responses = kernel.held_out(np.ones((1, len(plan.outer))))
        is_tested = ~plan.is_training
        # Training patients need responses by SVMs that never saw them, or a regression
        # would learn from responses that are better than those it meets in the test.
        first = np.where(is_tested, responses.first, responses.inside_first[0])
        change = np.where(is_tested, responses.decision, responses.inside[0])
        return np.stack([first, first + change], -1)

    def _svm_kernel(self, name: str, plan: FoldPlan) -> ModalityKernel:
        values = self.modalities[name]
        # `check` has refused patients without a modality.
        everybody = np.ones(len(values), bool)
        scaled = name in self.scale
        return ModalityKernel.of(
            plan, values, everybody, scaled, self.confounds, fused=True
        )


def _scan_sites(sites: np.ndarray | None, visits: tuple[int, ...]) -> np.ndarray | None:
    # Both visits of a patient are of one site.
    return None if sites is None else np.repeat(sites, len(visits))


def _check_number(patients: int) -> None:
    if patients < MINIMUM_PATIENTS:
        raise InputError(
            f"Regression between patients needs at least {MINIMUM_PATIENTS} patients; "
            f"got {patients}."
        )


def _copy_error(first: str, second: str) -> InputError:
    return InputError(
        f"{first} and {second} have the same features to the last digit: one is a copy "
        "of the other and would be tested on itself. Leave one out."
    )


def response_kernel(responses: np.ndarray, visits: tuple[int, ...]) -> ScanKernel:
    """Kernel of decision responses (fold, patient, visit, modality)."""
    return column_kernel(lambda fold: _scan_rows(responses[fold], visits))


def _check_features(name: str, values: np.ndarray, patients: int) -> None:
    is_whole = values.shape[:2] == (patients, 2) and np.isfinite(values).all()
    if not is_whole:
        raise _feature_error(name, values.shape, patients)


def _feature_error(name: str, shape: tuple[int, ...], patients: int) -> InputError:
    return InputError(
        f"{name}: expected finite values (patient, 2, feature) of {patients} patients; "
        f"got {shape}."
    )


def stacked_confounds(confounds: dict[str, np.ndarray] | None) -> np.ndarray | None:
    """Confounds (patient, visit, confound), or None."""
    if not confounds:
        return None
    stacked = np.stack(list(confounds.values()), -1).astype(float)
    _check_finite_confounds(stacked, list(confounds))
    return stacked


def _check_finite_confounds(stacked: np.ndarray, names: list[str]) -> None:
    if not np.isfinite(stacked).all():
        raise InputError(
            f"Confounds {', '.join(names)}: values are missing or infinite."
        )


def _scan_rows(values: np.ndarray, visits: tuple[int, ...]) -> np.ndarray:
    """Rows (scan, feature) of values (patient, visit, feature)."""
    return values[:, visits].reshape(len(values) * len(visits), -1)
