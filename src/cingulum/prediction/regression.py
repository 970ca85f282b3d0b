"""How much does it hurt? Regression of ratings between patients, with patients never on
both sides of a split.

Three questions are kept apart: who is in more pain than others in the same state
(`r_within_state`, which is what p is about), who rates high on average (`r_patients`),
and by how much a person changes (`r_change`). The pooled `r` mixes them: knowing only
the state (before or after), and nothing else, reaches r = .53 on the ratings of Lee et
al. 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.prediction.permutation import (
    ALIKE,
    Jobs,
    check_enough,
    in_blocks,
    p_value,
    sequential_p,
)
from cingulum.prediction.rating_models import (
    MODELS,
    Model,
    RegressionFold,
    out_of_fold,
    regression_folds,
    training_means,
    training_state_means,
)
from cingulum.prediction.rating_performance import (
    NAN,
    RatingPredictions,
    bootstrap_performance,
    performance,
    r_within_state,
)
from cingulum.prediction.scan_kernels import (
    ScanKernel,
    column_kernel,
    feature_kernel,
)
from cingulum.prediction.scans import Scans, paired_scans
from cingulum.prediction.statistics import Interval, correlation
from cingulum.prediction.svm.nested import FoldPlan, ModalityKernel
from cingulum.prediction.svm.products import copy_of
from cingulum.random_streams import Stream, generator

Predictors = Literal["responses", "features"]
"""What ratings are predicted from: the decision responses of paired SVMs, or the
features themselves."""

Visits = Literal["both", "first", "second"]

VISIT_COLUMNS: dict[str, tuple[int, ...]] = {
    "both": (0, 1),
    "first": (0,),
    "second": (1,),
}

MINIMUM_PATIENTS = 10

BLOCK = 250
"""Permutations of ridge computed together."""

SVR_BLOCK = 20
"""Permutations of support vector regression computed together: each is fitted on its
own, so that small blocks let an early stop take effect."""


@dataclass(frozen=True)
class RegressionSettings:
    """How ratings are predicted and tested.

    on: recorded in the result; what the kernels are made of is up to the caller
    inner_folds: parts of the training patients that choose the ridge penalty
    permutations, stop_after: stop once so many permutations reach the observed values
        of both p (`sequential_p`); None: all permutations
    bootstrap: resamples of patients behind the intervals
    """

    model: Model = "ridge"
    on: Predictors = "features"
    inner_folds: int = 4
    permutations: int = 5000
    stop_after: int | None = None
    bootstrap: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.on not in ("responses", "features"):
            raise InputError(f"on is responses or features; got {self.on!r}.")
        if self.model not in MODELS:
            raise InputError(
                f"model is ridge, kernel_ridge or svr; got {self.model!r}."
            )
        check_enough(self.stop_after)


@dataclass(frozen=True, eq=False)
class Ratings:
    """Out-of-fold predictions of ratings and their performance.

    predicted: one per scan of `scans`; performance and intervals (patient bootstrap):
        by the names of MEASURES
    p: whole patients exchange their ratings; one-sided, of r_within_state; null: its
        permuted values
    p_pooled: the same permutations, of the pooled r (whose null keeps what the state
        alone gives)
    baselines: performance of the training mean, of the mean of each state, and of the
        confounds where there are any
    """

    scans: Scans
    folds: np.ndarray
    predicted: np.ndarray
    performance: dict[str, float]
    intervals: dict[str, Interval]
    p: float
    p_pooled: float
    null: np.ndarray = field(repr=False)
    baselines: dict[str, dict[str, float]]
    model: Model
    on: str
    permutations: int
    seed: int

    def predictions(self) -> pd.DataFrame:
        """One row per scan, out of fold."""
        scans = self.scans
        return pd.DataFrame(
            {
                "participant_id": [scans.names[i] for i in scans.patient],
                "state": scans.state,
                "fold": self.folds[scans.patient],
                "rating": scans.rating,
                "predicted": self.predicted,
            }
        )


# Keywords instead of settings: this is the call that users write, as of `evaluate`.
def evaluate_ratings(  # noqa: PLR0913
    modalities: dict[str, np.ndarray],
    ratings: np.ndarray,
    patients: Sequence[str],
    *,
    visits: Visits = "both",
    on: Predictors = "responses",
    model: Model = "ridge",
    folds: int | None = 10,
    inner_folds: int = 4,
    C: float = 1.0,
    scale: tuple[str, ...] = (),
    confounds: dict[str, np.ndarray] | None = None,
    sites: np.ndarray | None = None,
    harmonise: bool = False,
    permutations: int = 5000,
    stop_after: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> Ratings:
    """Predict ratings (patient, visit) of patients not used for training.

    modalities: by name (patient, visit, feature); on `responses`, each is reduced to
        the decision response of its paired SVM, refitted in every fold (and, for
        training patients, without them); on `features`, kernels are added, each with
        mean diagonal 1
    confounds: by name (patient, visit), regressed out of the features in every fold
    sites (patient,): patients exchange ratings inside their site only
    harmonise: remove site differences in mean and variance from features (`ComBat`)

    Raises InputError for shapes that do not fit, missing values, copies of a patient
    and fewer than 10 patients.
    """
    settings = RegressionSettings(
        model, on, inner_folds, permutations, stop_after, bootstrap, seed
    )
    _check_ratings(ratings, len(patients))
    paired = PairedFeatures(modalities, scale, _stacked_confounds(confounds))
    paired.check(patients)
    columns = VISIT_COLUMNS[visits]
    scans = paired_scans(ratings[:, columns], list(patients), sites)
    outer = scans.folds(folds, generator(seed, Stream.REGRESSION_FOLDS))
    if on == "responses":
        kernel = _response_kernel(paired.responses(outer, settings, C), columns)
    else:
        kernel = paired.kernel(columns, sites if harmonise else None)
    return regress(
        scans,
        kernel,
        outer,
        settings,
        baselines=paired.confound_baseline(columns),
        jobs=jobs,
        show_progress=show_progress,
    )


def regress(
    scans: Scans,
    kernel: ScanKernel,
    outer: np.ndarray,
    settings: RegressionSettings | None = None,
    *,
    baselines: dict[str, ScanKernel] | None = None,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> Ratings:
    """The evaluation behind `evaluate_ratings`, of any scans and inner products.

    outer: fold of each patient; baselines: by name, what a ridge regression is run on
    for comparison
    """
    settings = settings or RegressionSettings()
    # One stream in this order: inner folds, permutations, bootstrap. Another order
    # would change every published number.
    rng = generator(settings.seed, Stream.REGRESSION_PERMUTATION)
    inner = rng.permutation(len(scans.names)) % settings.inner_folds
    folds = regression_folds(scans, kernel, outer, inner, settings.model)
    predictions = _predictions(scans, folds, training_means(scans, outer))
    exchanged = scans.exchanged(settings.permutations, rng)
    permuting = _Permutations(folds, scans.state, settings.stop_after)
    null = permuting.run(predictions, exchanged, jobs, show_progress)
    intervals = bootstrap_performance(predictions, rng, settings.bootstrap)
    alone = _simple_baselines(predictions, outer)
    for name, other in (baselines or {}).items():
        other_folds = regression_folds(scans, other, outer, inner, "ridge")
        alone[name] = performance(_predictions(scans, other_folds, predictions.mean))
    measures = performance(predictions)
    p, used = permuting.p(measures["r_within_state"], null.within)
    p_pooled, _ = permuting.p(measures["r"], null.pooled)
    return Ratings(
        scans=scans,
        folds=outer,
        predicted=predictions.predicted,
        performance=measures,
        intervals=intervals,
        p=p,
        p_pooled=p_pooled,
        null=null.within,
        baselines=alone,
        model=settings.model,
        on=settings.on,
        permutations=used,
        seed=settings.seed,
    )


# Input


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
        twins = copy_of(list(self.modalities.values()))
        if twins:
            raise InputError(
                f"{patients[twins[0]]} and {patients[twins[1]]} have the same features "
                "to the last digit: one is a copy of the other and would be tested on "
                "itself. Leave one out."
            )
        # After the other checks, whose messages tell more about a table that is wrong.
        if len(patients) < MINIMUM_PATIENTS:
            raise InputError(
                f"Regression between patients needs at least {MINIMUM_PATIENTS} "
                f"patients; got {len(patients)}."
            )

    def kernel(self, visits: tuple[int, ...], sites: np.ndarray | None) -> ScanKernel:
        """Kernel of the features of some visits; sites (patient,): removed."""
        rows = {name: _scan_rows(v, visits) for name, v in self.modalities.items()}
        site_rows = None if sites is None else np.repeat(sites, len(visits))
        return feature_kernel(rows, self.scale, self._confound_rows(visits), site_rows)

    def confound_baseline(self, visits: tuple[int, ...]) -> dict[str, ScanKernel]:
        """Kernel of the confounds alone, by name; empty without any."""
        rows = self._confound_rows(visits)
        if rows is None:
            return {}
        return {"confounds": column_kernel(lambda fold: rows)}

    def _confound_rows(self, visits: tuple[int, ...]) -> np.ndarray | None:
        return None if self.confounds is None else _scan_rows(self.confounds, visits)

    def responses(
        self, outer: np.ndarray, settings: RegressionSettings, C: float
    ) -> np.ndarray:
        """Decision responses (fold, patient, visit, modality): of a fold's own patients
        by SVMs trained without the fold; of the others by SVMs trained without the fold
        and without them."""
        n = len(outer)
        rng = generator(settings.seed, Stream.INNER_FOLDS)
        inner = rng.permutation(n) % settings.inner_folds
        plan = FoldPlan(outer, inner, (C,), "stacked")
        responses = np.empty((plan.folds, n, 2, len(self.modalities)))
        for m, name in enumerate(self.modalities):
            responses[..., m] = self._responses_to(name, plan)
        return responses

    def _responses_to(self, name: str, plan: FoldPlan) -> np.ndarray:
        """Decision responses (fold, patient, visit) to one modality."""
        values = self.modalities[name]
        n = len(values)
        kernel = ModalityKernel.of(
            plan, values, np.ones(n, bool), name in self.scale, self.confounds, True
        )
        held = kernel.held(np.ones((1, n)))
        tested = plan.outer == np.arange(plan.folds)[:, None]
        first = np.where(tested, held.first, held.inside_first[0])
        change = np.where(tested, held.decision, held.inside[0])
        return np.stack([first, first + change], -1)


def _response_kernel(responses: np.ndarray, visits: tuple[int, ...]) -> ScanKernel:
    """Kernel of decision responses (fold, patient, visit, modality)."""
    return column_kernel(lambda fold: _scan_rows(responses[fold], visits))


def _check_ratings(ratings: np.ndarray, patients: int) -> None:
    if ratings.shape != (patients, 2):
        raise InputError(
            f"Expected ratings (patient, 2) of {patients} patients; got "
            f"{ratings.shape}."
        )


def _check_features(name: str, values: np.ndarray, patients: int) -> None:
    if values.shape[:2] != (patients, 2) or not np.isfinite(values).all():
        raise InputError(
            f"{name}: expected finite values (patient, 2, feature) of {patients} "
            f"patients; got {values.shape}."
        )


def _stacked_confounds(confounds: dict[str, np.ndarray] | None) -> np.ndarray | None:
    """Confounds (patient, visit, confound), or None."""
    if not confounds:
        return None
    stacked = np.stack([np.asarray(c, float) for c in confounds.values()], -1)
    if not np.isfinite(stacked).all():
        raise InputError(
            f"Confounds {', '.join(confounds)}: values are missing or infinite."
        )
    return stacked


def _scan_rows(values: np.ndarray, visits: tuple[int, ...]) -> np.ndarray:
    """Rows (scan, feature) of values (patient, visit, feature)."""
    return values[:, visits].reshape(len(values) * len(visits), -1)


# Predictions and what they are compared with


def _predictions(
    scans: Scans, folds: list[RegressionFold], mean: np.ndarray
) -> RatingPredictions:
    deviation = out_of_fold(folds, scans.rating[:, None])[:, 0]
    return RatingPredictions(scans, deviation, mean)


def _simple_baselines(
    predictions: RatingPredictions, outer: np.ndarray
) -> dict[str, dict[str, float]]:
    """Performance of the training mean and, where there are states, of the training
    mean of each."""
    scans = predictions.scans
    mean = predictions.mean
    nothing = performance(RatingPredictions(scans, np.zeros_like(mean), mean))
    # Training means differ a little between folds; a line through them means nothing.
    baselines = {"training mean": {**nothing, "slope": NAN, "intercept": NAN}}
    if len(np.unique(scans.state)) > 1:
        deviation = training_state_means(scans, outer) - mean
        state_only = RatingPredictions(scans, deviation, mean)
        baselines["state only"] = performance(state_only)
    return baselines


# Permutations


@dataclass(frozen=True, eq=False)
class _NullCorrelations:
    """Correlations of permuted ratings (permutation,): within states, and pooled."""

    within: np.ndarray
    pooled: np.ndarray


@dataclass(frozen=True, eq=False)
class _PermutedCorrelations:
    """r within states and pooled r (2, permutation) of a block (scan, permutation) of
    exchanged ratings."""

    folds: list[RegressionFold]
    state: np.ndarray

    def __call__(self, block: np.ndarray) -> np.ndarray:
        predictions = out_of_fold(self.folds, block)
        return _both_correlations(self.state, predictions.T, block.T)


def _both_correlations(
    state: np.ndarray, predicted: np.ndarray, ratings: np.ndarray
) -> np.ndarray:
    """r within states and pooled r (2, problem) of rows (problem, scan)."""
    within = r_within_state(state, predicted, ratings)
    return np.stack([within, correlation(predicted, ratings)])


@dataclass(frozen=True, eq=False)
class _Permutations:
    """The permutation test of a regression, with or without an early stop."""

    folds: list[RegressionFold]
    state: np.ndarray
    stop_after: int | None

    def run(
        self,
        predictions: RatingPredictions,
        exchanged: np.ndarray,
        jobs: Jobs,
        show_progress: bool,
    ) -> _NullCorrelations:
        """Correlations of exchanged ratings (scan, permutation); as many as needed with
        an early stop."""
        observed = _both_correlations(
            self.state, predictions.deviation[None], predictions.scans.rating[None]
        )
        work = _PermutedCorrelations(self.folds, self.state)
        correlations = [np.zeros((2, 0))]
        reached = np.zeros(2, int)
        blocks = self._blocks(exchanged)
        for block in in_blocks(work, blocks, jobs, show_progress):
            correlations.append(block)
            reached += (block >= observed - ALIKE).sum(1)
            if self._may_stop(reached):
                break
        within, pooled = np.concatenate(correlations, 1)
        return _NullCorrelations(within, pooled)

    def _blocks(self, exchanged: np.ndarray) -> list[np.ndarray]:
        size = SVR_BLOCK if self.folds[0].model == "svr" else BLOCK
        starts = range(0, exchanged.shape[1], size)
        return [exchanged[:, start : start + size] for start in starts]

    def _may_stop(self, reached: np.ndarray) -> bool:
        # Both p need their permutations, so that the later of the two decides.
        return self.stop_after is not None and reached.min() >= self.stop_after

    def p(self, observed: float, null: np.ndarray) -> tuple[float, int]:
        """One-sided p and the number of permutations it used."""
        if self.stop_after is None:
            return p_value(observed, null), len(null)
        return sequential_p(observed, null, self.stop_after)
