"""How a prediction is trained and tested, as values that are passed on whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.permutation import check_enough

Fusion = Literal["stacked", "kernels", "log_odds"]
"""How modalities are combined: an SVM on the unimodal decision values (as in Lee et al.
2019), one SVM on weighted kernels, or summed log-odds."""

Missing = Literal["complete", "log_odds"]
"""Patients that lack a modality: excluded, or kept by the log-odds of their others."""


@dataclass(frozen=True)
class Validation:
    """How patients are dealt into training and test sets.

    folds: outer folds; None leaves one patient (or block of patients) out at a time
    inner_folds: parts of the training patients on which fusion and penalty are learnt
    force: also with fewer than 10 patients, and then with fewer inner folds if need be
    """

    folds: int | None = None
    inner_folds: int = 4
    seed: int = 0
    force: bool = False


@dataclass(frozen=True)
class Permutations:
    """The permutation test: n permutations, or fewer once `stop_after` of them reach
    the observed value (Besag and Clifford 1991); None: always all of them."""

    n: int = 5000
    stop_after: int | None = None

    def __post_init__(self) -> None:
        check_enough(self.stop_after)


@dataclass(frozen=True)
class Svm:
    """The paired support vector machines and their fusion.

    C: penalties of the mirrored problem; several are tuned inside the folds
    scale: modalities whose features are divided by the training patients' root mean
        square difference
    missing: what is done about patients that lack a modality; `log_odds` implies that
        fusion
    """

    C: tuple[float, ...] = (1.0,)
    scale: tuple[str, ...] = ()
    fusion: Fusion = "stacked"
    missing: Missing = "complete"

    def __post_init__(self) -> None:
        # Penalties are compared from the smallest, whatever order they were typed in.
        rising = tuple(sorted(float(c) for c in self.C))
        object.__setattr__(self, "C", rising)
        _check_penalties(rising)
        _check_fusion(self.fusion)
        _check_missing(self.missing)
        object.__setattr__(self, "fusion", possible_fusion(self.fusion, self.missing))


def possible_fusion(fusion: Fusion, missing: Missing) -> Fusion:
    """Only log-odds can do without the decision of a missing modality."""
    return "log_odds" if missing == "log_odds" else fusion


def _check_penalties(penalties: tuple[float, ...]) -> None:
    if not penalties or not all(map(_is_penalty, penalties)):
        listed = ", ".join(map(str, penalties))
        raise InputError(f"C must be positive; got {listed}.")


def _is_penalty(c: float) -> bool:
    # NaN compares as false.
    return 0 < c < np.inf


def _check_fusion(fusion: str) -> None:
    if fusion not in ("stacked", "kernels", "log_odds"):
        raise InputError(f"fusion is stacked, kernels or log_odds; got {fusion!r}.")


def _check_missing(missing: str) -> None:
    if missing not in ("complete", "log_odds"):
        raise InputError(f"missing is complete or log_odds; got {missing!r}.")
