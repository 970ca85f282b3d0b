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
from cingulum.prediction.confounds import with_curves
from cingulum.prediction.intervals import warn_of_bootstrap
from cingulum.prediction.paired_features import (
    PairedFeatures,
    response_kernel,
    stacked_confounds,
)
from cingulum.prediction.permutation import (
    ALIKE,
    Jobs,
    check_enough,
    in_blocks,
    stopped_p,
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
    performance,
    performance_intervals,
    r_within_state,
)
from cingulum.prediction.scan_kernels import ScanKernel
from cingulum.prediction.scans import Scans, paired_scans
from cingulum.prediction.statistics import Interval, pearson_r
from cingulum.prediction.svm.nested import FoldPlan
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

BLOCK = 250
"""Permutations of ridge computed together."""

SVR_BLOCK = 20
"""Permutations of support vector regression computed together: each is fitted on its
own, so that small blocks let an early stop take effect."""


@dataclass(frozen=True)
class RegressionSettings:
    """How ratings are predicted and tested.

    on: recorded in the result; the caller chooses what the kernels are computed from
    inner_folds: parts of the training patients that choose the ridge penalty
    permutations, stop_after: stop once so many permutations reach the observed values
        of both p (`sequential_p`); None: all permutations
    """

    model: Model = "ridge"
    on: Predictors = "features"
    inner_folds: int = 4
    permutations: int = 5000
    stop_after: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_predictors(self.on)
        _check_model(self.model)
        check_enough(self.stop_after)


def _check_predictors(on: str) -> None:
    if on not in ("responses", "features"):
        raise InputError(f"on is responses or features; got {on!r}.")


def _check_model(model: str) -> None:
    if model not in MODELS:
        raise InputError(f"model is ridge, kernel_ridge or svr; got {model!r}.")


@dataclass(frozen=True, eq=False)
class Ratings:
    """Out-of-fold predictions of ratings and their performance.

    predicted: one per scan of `scans`; performance: by the names of MEASURES;
        intervals: of those that have one
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
                # Names, not numbers, which only the order of a table gives meaning.
                "participant_id": [scans.names[i] for i in scans.patient],
                "state": scans.state,
                "fold": self.folds[scans.patient],
                "rating": scans.rating,
                "predicted": self.predicted,
                # r is of predictions and ratings less this mean, which differs between
                # folds.
                "training_mean": training_means(scans, self.folds),
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
    blocks: Sequence[str] | None = None,
    harmonise: bool = False,
    permutations: int = 5000,
    stop_after: int | None = None,
    bootstrap: int | None = None,
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
    blocks (patient,): patients of one block (a family) are left out together, and
        exchange their ratings as a whole
    bootstrap: without effect since intervals no longer resample (deprecated)
    harmonise: remove site differences in mean and variance from features (`ComBat`)

    Raises InputError for shapes that do not fit, missing values, copies of a patient
    and fewer than 10 patients.
    """
    warn_of_bootstrap(bootstrap)
    settings = RegressionSettings(
        model, on, inner_folds, permutations, stop_after, seed
    )
    _check_ratings(ratings, len(patients))
    paired = PairedFeatures(
        modalities, scale, with_curves(stacked_confounds(confounds))
    )
    paired.check(patients)
    columns = VISIT_COLUMNS[visits]
    families = None if blocks is None else np.asarray([str(b) for b in blocks])
    scans = paired_scans(ratings[:, columns], list(patients), sites, families)
    outer = scans.folds(folds, generator(seed, Stream.REGRESSION_FOLDS))
    if on == "responses":
        responses = paired.responses(_response_plan(outer, settings, C))
        kernel = response_kernel(responses, columns)
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


def _check_ratings(ratings: np.ndarray, patients: int) -> None:
    if ratings.shape != (patients, 2):
        raise InputError(
            f"Expected ratings (patient, 2) of {patients} patients; got "
            f"{ratings.shape}."
        )


def _response_plan(
    outer: np.ndarray, settings: RegressionSettings, C: float
) -> FoldPlan:
    """Folds of the SVMs: the outer ones of the regression, and inner ones of their
    own."""
    rng = generator(settings.seed, Stream.INNER_FOLDS)
    inner = rng.permutation(len(outer)) % settings.inner_folds
    return FoldPlan(outer, inner, (C,), "stacked")


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
    # One stream in this order: inner folds, then permutations. Another order
    # would change every published number.
    rng = generator(settings.seed, Stream.REGRESSION_PERMUTATION)
    division = _Division.of(scans, outer, settings.inner_folds, rng)
    folds = division.folds(kernel, settings.model)
    predictions = division.predictions(folds)
    exchanged = scans.exchanged(settings.permutations, rng)
    permutations = _Permutations(folds, scans.state, settings.stop_after)
    null = permutations.run(predictions, exchanged, jobs, show_progress)
    measures = performance(predictions)
    p, used = stopped_p(
        measures["r_within_state"], null.within, permutations.stop_after
    )
    p_pooled, _ = stopped_p(measures["r"], null.pooled, permutations.stop_after)
    return Ratings(
        scans=scans,
        folds=outer,
        predicted=predictions.predicted,
        performance=measures,
        intervals=performance_intervals(predictions, measures),
        p=p,
        p_pooled=p_pooled,
        null=null.within,
        baselines=division.baselines(baselines or {}),
        model=settings.model,
        on=settings.on,
        permutations=used,
        seed=settings.seed,
    )


# Predictions and what they are compared with


@dataclass(frozen=True, eq=False)
class _Division:
    """Outer and inner fold of each patient (patient,), which all models share, so that
    their performance can be compared."""

    scans: Scans
    outer: np.ndarray
    inner: np.ndarray

    @staticmethod
    def of(
        scans: Scans, outer: np.ndarray, parts: int, rng: np.random.Generator
    ) -> _Division:
        # Patients or families, not scans, are dealt into parts: their scans are alike.
        member = np.arange(len(scans.names))
        if scans.family is not None:
            member = np.unique(scans.family, return_inverse=True)[1]
        inner = (rng.permutation(member.max() + 1) % parts)[member]
        return _Division(scans, outer, inner)

    def folds(self, kernel: ScanKernel, model: Model) -> list[RegressionFold]:
        return regression_folds(self.scans, kernel, self.outer, self.inner, model)

    def predictions(self, folds: list[RegressionFold]) -> RatingPredictions:
        deviation = out_of_fold(folds, self.scans.rating[:, None])[:, 0]
        return self._around_mean(deviation)

    def baselines(self, kernels: dict[str, ScanKernel]) -> dict[str, dict[str, float]]:
        """Performance of the training mean, of the training mean of each state where
        there are states, and of a ridge regression on each of the kernels."""
        measures = {"training mean": self._training_mean()}
        # With one state, its mean is the training mean again.
        if len(np.unique(self.scans.state)) > 1:
            measures["state only"] = performance(self._state_only())
        for name, kernel in kernels.items():
            measures[name] = self._ridge_on(kernel)
        return measures

    def _ridge_on(self, kernel: ScanKernel) -> dict[str, float]:
        return performance(self.predictions(self.folds(kernel, "ridge")))

    def _training_mean(self) -> dict[str, float]:
        nothing = self._around_mean(np.zeros(len(self.scans.rating)))
        # Training means differ a little between folds; a line through them would only
        # describe the folds.
        return {**performance(nothing), "slope": NAN, "intercept": NAN}

    def _state_only(self) -> RatingPredictions:
        state_means = training_state_means(self.scans, self.outer)
        return self._around_mean(state_means - training_means(self.scans, self.outer))

    def _around_mean(self, deviation: np.ndarray) -> RatingPredictions:
        mean = training_means(self.scans, self.outer)
        return RatingPredictions(self.scans, deviation, mean)


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
    return np.stack([within, pearson_r(predicted, ratings)])


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
        observed = self._observed(predictions)
        work = _PermutedCorrelations(self.folds, self.state)
        # So that no permutations at all give an empty null, not an error.
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

    def _observed(self, predictions: RatingPredictions) -> np.ndarray:
        """Both correlations (2, 1) of the ratings as they are."""
        deviation = predictions.deviation[None]
        return _both_correlations(self.state, deviation, predictions.scans.rating[None])

    def _blocks(self, exchanged: np.ndarray) -> list[np.ndarray]:
        size = self._block_size
        starts = range(0, exchanged.shape[1], size)
        return [exchanged[:, start : start + size] for start in starts]

    @property
    def _block_size(self) -> int:
        # All folds share the model.
        return SVR_BLOCK if self.folds[0].model == "svr" else BLOCK

    def _may_stop(self, reached: np.ndarray) -> bool:
        # Both p need their permutations, so that the later of the two decides.
        return self.stop_after is not None and reached.min() >= self.stop_after
