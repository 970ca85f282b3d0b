"""How much does it hurt? Regression of ratings between patients, with patients never on
both sides of a split.

Three questions are kept apart: whom does it hurt more than others in the same state
(`r_within_state`, which is what p is about), who rates high on average (`r_patients`),
and by how much does a person change (`r_change`). The pooled `r`
mixes them: whoever knows before from after, and nothing else, reaches r = .53 on the
    ratings of Lee et al. 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.svm import SVR

from cingulum.errors import InputError
from cingulum.prediction.confounds import ComBat
from cingulum.prediction.permutation import (
    ALIKE,
    Jobs,
    check_enough,
    in_blocks,
    p_value,
    sequential_p,
)
from cingulum.prediction.scans import Scans, of_pairs
from cingulum.prediction.statistics import (
    Interval,
    pearson_r,
    percentile,
    resamples,
    varying,
)
from cingulum.prediction.svm.nested import FoldPlan, ModalityKernel
from cingulum.prediction.svm.products import copy_of
from cingulum.random_streams import Stream, generator

Model = Literal["ridge", "kernel_ridge", "svr"]
On = Literal["responses", "features"]
Visits = Literal["both", "first", "second"]

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Of ridge, in units of the mean diagonal of the training kernel; tuned inside the
folds."""

FIGURES = (
    "r",
    "r_within_state",
    "r_patients",
    "r_change",
    "r2",
    "rmse",
    "mae",
    "slope",
    "intercept",
)
"""What is told of predictions. Correlations are of predictions minus their fold's
training mean: with that mean in them, a model that predicts nothing correlates
negatively with ratings it never saw. r2: prediction R², 1 − squared error / that of the
training mean, not a squared r; slope, intercept: of the ratings on the predictions (1
and 0 when calibrated). Errors are of unadjusted predictions."""

BLOCK = 250
"""Permutations worked on together."""

Kernel = Callable[[np.ndarray, int], np.ndarray]
"""From the training scans (scan,) and the fold that is left out to inner products
(scan, scan)."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Out-of-fold predictions of ratings and what they are worth.

    predicted: one a scan of `scans`; figures and intervals (patient bootstrap) by the
        names of FIGURES
    p: whole patients exchange their ratings; one-sided, of r_within_state; null: its
        permuted values
    p_pooled: the same permutations, of the pooled r (whose null keeps what the state
        alone gives)
    baselines: figures of the training mean, of the mean of each state, and of the
        confounds where there are any
    """

    scans: Scans
    folds: np.ndarray
    predicted: np.ndarray
    figures: dict[str, float]
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
        """One row a scan, out of fold."""
        s = self.scans
        return pd.DataFrame(
            {
                "participant_id": [s.names[i] for i in s.patient],
                "state": s.state,
                "fold": self.folds[s.patient],
                "rating": s.rating,
                "predicted": self.predicted,
            }
        )


def evaluate_ratings(
    modalities: dict[str, np.ndarray],
    ratings: np.ndarray,
    patients: Sequence[str],
    *,
    visits: Visits = "both",
    on: On = "responses",
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
    """Predict ratings (patient, visit) of patients never seen.

    modalities: by name (patient, visit, feature); on `responses`, each is reduced to
    the decision response of its paired machine, fitted anew in every fold (and, for
    training patients, without them); on `features`, kernels are added, each with mean
    diagonal 1
    confounds: by name (patient, visit), regressed out of the features in every fold;
    sites (patient,): patients exchange ratings inside their site only; harmonise: take
    sites' location and scale out of features (`ComBat`)
    """
    n = len(patients)
    if ratings.shape != (n, 2):
        raise InputError(
            f"Expected ratings (patient, 2) of {n} patients; came {ratings.shape}."
        )
    for name, v in modalities.items():
        if v.shape[:2] != (n, 2) or not np.isfinite(v).all():
            raise InputError(
                f"{name}: expected finite values (patient, 2, feature) of {n} "
                f"patients; came {v.shape}."
            )
    twins = copy_of(list(modalities.values()))
    if twins:
        raise InputError(
            f"{patients[twins[0]]} and {patients[twins[1]]} have the same features to "
            "the last digit: one is a copy "
            "of the other and would be tested on itself. Leave one out."
        )
    if n < 10:
        raise InputError(
            f"Regression between patients needs at least 10 patients; came {n}."
        )
    taken = {"both": (0, 1), "first": (0,), "second": (1,)}[visits]
    scans = of_pairs(ratings[:, taken], list(patients), sites)
    rng = generator(seed, Stream.REGRESSION_FOLDS)
    outer = scans.folds(folds, rng)
    extra = (
        None
        if not confounds
        else np.stack([np.asarray(c, float) for c in confounds.values()], -1)
    )
    if extra is not None and not np.isfinite(extra).all():
        raise InputError(
            f"Confounds {', '.join(confounds or {})}: values are missing or infinite."
        )
    if on == "responses":
        change = None if extra is None else extra
        responses = _responses(modalities, outer, inner_folds, C, scale, change, seed)
        kernel = of_columns(
            lambda f: responses[f][:, taken].reshape(n * len(taken), -1)
        )
    elif on == "features":
        rows = {
            m: v[:, taken].reshape(n * len(taken), -1) for m, v in modalities.items()
        }
        flat = None if extra is None else extra[:, taken].reshape(n * len(taken), -1)
        of_site = (
            np.repeat(sites, len(taken)) if harmonise and sites is not None else None
        )
        kernel = of_features(rows, scale, flat, of_site)
    else:
        raise InputError(f"on is responses or features; came {on!r}.")
    others = (
        {}
        if extra is None
        else {
            "confounds": of_columns(
                lambda f: extra[:, taken].reshape(n * len(taken), -1)
            )
        }
    )
    return regress(
        scans,
        kernel,
        outer,
        on=on,
        model=model,
        inner_folds=inner_folds,
        others=others,
        permutations=permutations,
        stop_after=stop_after,
        bootstrap=bootstrap,
        seed=seed,
        jobs=jobs,
        show_progress=show_progress,
    )


def regress(
    scans: Scans,
    kernel: Kernel,
    outer: np.ndarray,
    *,
    on: str = "features",
    model: Model = "ridge",
    inner_folds: int = 4,
    others: dict[str, Kernel] | None = None,
    permutations: int = 5000,
    stop_after: int | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> Ratings:
    """The evaluation behind `evaluate_ratings`, of any scans and inner products. outer:
    fold of each patient."""
    if model not in ("ridge", "kernel_ridge", "svr"):
        raise InputError(f"model is ridge, kernel_ridge or svr; came {model!r}.")
    check_enough(stop_after)
    rng = generator(seed, Stream.REGRESSION_PERMUTATION)
    inner = rng.permutation(len(scans.names)) % inner_folds
    machines = _fold_machines(scans, kernel, outer, inner, model)
    deviation = _predict(machines, scans.rating[:, None])[:, 0]
    drawn = scans.exchanged(permutations, rng)
    within, pooled = _permuted(
        machines, scans, drawn, deviation, stop_after, jobs, show_progress
    )
    mean = _training_means(scans, outer, by_state=False)
    found = figures(scans, deviation, mean)
    boot = _bootstrap(scans, deviation, mean, rng, bootstrap)
    nothing = figures(scans, np.zeros_like(mean), mean)
    baselines = {
        "training mean": {**nothing, "slope": float("nan"), "intercept": float("nan")}
    }
    if len(np.unique(scans.state)) > 1:
        baselines["state only"] = figures(
            scans, _training_means(scans, outer, by_state=True) - mean, mean
        )
    for name, other in (others or {}).items():
        alone = _fold_machines(scans, other, outer, inner, "ridge")
        baselines[name] = figures(
            scans, _predict(alone, scans.rating[:, None])[:, 0], mean
        )
    (p, looked), (p_pooled, _) = (
        (p_value(found[k], v), len(v))
        if stop_after is None
        else sequential_p(found[k], v, stop_after)
        for k, v in (("r_within_state", within), ("r", pooled))
    )
    return Ratings(
        scans,
        outer,
        deviation + mean,
        found,
        boot,
        p,
        p_pooled,
        within,
        baselines,
        model,
        on,
        looked,
        seed,
    )


# Inner products


def _responses(
    modalities: dict[str, np.ndarray],
    outer: np.ndarray,
    parts: int,
    C: float,
    scale: tuple[str, ...],
    confounds: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """(fold, patient, visit, modality): of a fold's own patients by machines that saw
    no one of the fold; of the others by machines that, moreover, did not see them."""
    n = len(outer)
    plan = FoldPlan(
        outer,
        generator(seed, Stream.INNER_FOLDS).permutation(n) % parts,
        (C,),
        "stacked",
    )
    found = np.empty((plan.folds, n, 2, len(modalities)))
    for m, (name, values) in enumerate(modalities.items()):
        room = ModalityKernel.of(
            plan, values, np.ones(n, bool), name in scale, confounds, True
        )
        held = room.held_out(np.ones((1, n)))
        tested = outer == np.arange(plan.folds)[:, None]
        first = np.where(tested, held.first, held.inside_first[0])
        found[:, :, 0, m] = first
        found[:, :, 1, m] = first + np.where(tested, held.decision, held.inside[0])
    return found


def of_columns(columns: Callable[[int], np.ndarray]) -> Kernel:
    """Inner products of columns (scan, column) that may differ from fold to fold,
    standardised by training scans."""

    def kernel(train: np.ndarray, fold: int) -> np.ndarray:
        x = _standardised(columns(fold), train)
        return x @ x.T / x.shape[1]

    return kernel


def of_features(
    rows: dict[str, np.ndarray],
    scale: tuple[str, ...] = (),
    confounds: np.ndarray | None = None,
    sites: np.ndarray | None = None,
) -> Kernel:
    """Inner products of modalities (scan, feature), each with mean training diagonal 1,
    added up.

    scale: modalities whose features are standardised; confounds (scan, confound) are
    regressed out; sites (scan,): location and scale of sites are taken out (`ComBat`; a
    site that was not in training is taken as an average one). Everything is fitted to
    the training scans of the fold.
    """
    shared = {}
    if sites is None:
        shared = {
            name: v.astype(np.float64) @ v.astype(np.float64).T
            for name, v in rows.items()
            if name not in scale
        }
    member = (
        None
        if sites is None
        else np.unique(sites, return_inverse=True)[1].astype(float)
    )

    def kernel(train: np.ndarray, fold: int) -> np.ndarray:
        n = len(train)
        design = (
            np.ones((n, 1))
            if confounds is None
            else np.column_stack([np.ones(n), confounds])
        )
        slope = np.zeros((design.shape[1], n))
        slope[:, train] = np.linalg.pinv(design[train], rcond=1e-8)
        left, total = np.eye(n) - design @ slope, np.zeros((n, n))
        for name, v in rows.items():
            if name in shared:
                part = left @ shared[name] @ left.T
            else:
                x = left @ (v if member is None else _harmonised(v, member, train))
                x = _standardised(x, train) if name in scale else x
                part = x @ x.T
            size = np.trace(part[np.ix_(train, train)]) / train.sum()
            total += part / size if size > 0 else 0.0
        return total

    return kernel


def _standardised(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    x = x - x[train].mean(0)
    size = x[train].std(0)
    return np.divide(
        x,
        size,
        out=np.zeros_like(x),
        where=size > 1e-12 * np.abs(x).max(initial=1e-300),
    )


def _harmonised(x: np.ndarray, member: np.ndarray, train: np.ndarray) -> np.ndarray:
    """A site with fewer than two training scans is taken as an average one too."""
    both, count = (
        np.column_stack([member, x]),
        np.bincount(member[train].astype(int), minlength=int(member.max()) + 1),
    )
    known = train & (count[member.astype(int)] >= 2)
    return (
        ComBat(site=0, unseen="unadjusted").fit(both[known]).transform(both)
        if known.any()
        else x
    )


# Machines: everything but the ratings, fold by fold


@dataclass(frozen=True, eq=False)
class _Fold:
    """One fold: rows, kernel, and its inner divisions of the training rows."""

    train: np.ndarray
    test: np.ndarray
    kernel: np.ndarray
    inner: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    model: Model


def _fold_machines(
    scans: Scans, kernel: Kernel, outer: np.ndarray, inner: np.ndarray, model: Model
) -> list[_Fold]:
    found = []
    for f in range(int(outer.max()) + 1):
        train = outer[scans.patient] != f
        parts = []
        for k in np.unique(inner) if model != "svr" else ():
            keep = train & (inner[scans.patient] != k)
            judge = train & (inner[scans.patient] == k)
            if keep.any() and judge.any():
                parts.append((keep, judge, _shaped(kernel(keep, f), keep, model)))
        found.append(
            _Fold(train, ~train, _shaped(kernel(train, f), train, model), parts, model)
        )
    return found


def _shaped(kernel: np.ndarray, train: np.ndarray, model: Model) -> np.ndarray:
    """Mean training diagonal 1; for kernel ridge, Gaussian with the median squared
    distance as its width."""
    size = np.trace(kernel[np.ix_(train, train)]) / train.sum()
    kernel = kernel / size if size > 0 else kernel
    if model != "kernel_ridge":
        return kernel
    diagonal = np.diag(kernel)
    apart = np.maximum(0, diagonal[:, None] + diagonal[None] - 2 * kernel)
    width = np.median(apart[np.ix_(train, train)][~np.eye(train.sum(), dtype=bool)])
    return np.exp(-apart / (width or 1.0))


def _predict(machines: list[_Fold], ratings: np.ndarray) -> np.ndarray:
    """ratings (scan, problem) → out-of-fold predictions, minus the training mean."""
    found = np.empty_like(ratings)
    for fold in machines:
        found[fold.test] = (
            _svr(fold, ratings) if fold.model == "svr" else _ridge(fold, ratings)
        )
    return found


def _ridge(fold: _Fold, ratings: np.ndarray) -> np.ndarray:
    errors = np.zeros((len(PENALTIES), ratings.shape[1]))
    for keep, judge, kernel in fold.inner:
        for k, hat in enumerate(_hats(kernel, keep, judge)):
            errors[k] += np.square(
                ratings[judge] - ratings[keep].mean(0) - _linear(hat, ratings[keep])
            ).sum(0)
    best = errors.argmin(0)
    found = np.empty((int(fold.test.sum()), ratings.shape[1]))
    for k, hat in enumerate(_hats(fold.kernel, fold.train, fold.test)):
        chosen = best == k
        if chosen.any():
            found[:, chosen] = _linear(hat, ratings[fold.train][:, chosen])
    return found


def _hats(kernel: np.ndarray, train: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    """For each penalty the matrix that makes predictions of the centred training
    ratings."""
    values, vectors = np.linalg.eigh(kernel[np.ix_(train, train)])
    from_train = kernel[np.ix_(test, train)] @ vectors
    return [
        (from_train / (values.clip(0) + penalty)) @ vectors.T for penalty in PENALTIES
    ]


def _linear(hat: np.ndarray, ratings: np.ndarray) -> np.ndarray:
    return hat @ (ratings - ratings.mean(0))


def _svr(fold: _Fold, ratings: np.ndarray) -> np.ndarray:
    """scikit-learn's, C = 1 and ε = 0.1 in units of the training ratings' standard
    deviation."""
    k = fold.kernel[np.ix_(fold.train, fold.train)]
    tested = fold.kernel[np.ix_(fold.test, fold.train)]
    found = np.empty((len(tested), ratings.shape[1]))
    for p in range(ratings.shape[1]):
        y = ratings[fold.train, p]
        centre, size = y.mean(), y.std() or 1.0
        found[:, p] = (
            SVR(kernel="precomputed").fit(k, (y - centre) / size).predict(tested) * size
        )
    return found


@dataclass(frozen=True, eq=False)
class _Permuting:
    """r within states and pooled r of a block (scan, permutation) of exchanged
    ratings."""

    machines: list[_Fold]
    state: np.ndarray

    def __call__(self, block: np.ndarray) -> np.ndarray:
        guesses = _predict(self.machines, block)
        return np.stack(
            [_r_within(self.state, guesses.T, block.T), pearson_r(guesses.T, block.T)]
        )


def _permuted(
    machines: list[_Fold],
    scans: Scans,
    drawn: np.ndarray,
    deviation: np.ndarray,
    stop_after: int | None,
    jobs: Jobs,
    show: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Permuted r within states and pooled r; as many as needed with early stopping."""
    size = BLOCK if machines[0].model != "svr" else 20
    blocks = [drawn[:, i : i + size] for i in range(0, drawn.shape[1], size)]
    y = scans.rating
    observed = np.stack(
        [
            _r_within(scans.state, deviation[None], y[None]),
            pearson_r(deviation, y)[None],
        ]
    )

    found: list[np.ndarray] = []
    hits = np.zeros(2, int)
    for rows in in_blocks(_Permuting(machines, scans.state), blocks, jobs, show):
        found.append(rows)
        hits += (rows >= observed - ALIKE).sum(1)
        if stop_after is not None and hits.min() >= stop_after:
            break
    both = np.concatenate(found, 1) if found else np.zeros((2, 0))
    return both[0], both[1]


# Figures


def _r_within(
    state: np.ndarray, predicted: np.ndarray, ratings: np.ndarray
) -> np.ndarray:
    """Correlation (problem,) after the mean of each state is taken out of both; rows
    (problem, scan)."""
    predicted, ratings = predicted.copy(), ratings.copy()
    for value in np.unique(state):
        rows = state == value
        predicted[:, rows] -= predicted[:, rows].mean(1, keepdims=True)
        ratings[:, rows] -= ratings[:, rows].mean(1, keepdims=True)
    return pearson_r(predicted, ratings)


def figures(scans: Scans, deviation: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    """FIGURES of predictions deviation + mean (scan,), the mean being that of the
    training ratings. NaN where there is one state only."""
    everybody = np.arange(len(scans.names))
    return _figures(
        scans,
        deviation,
        mean,
        np.arange(len(mean)),
        _per_patient(scans, deviation)[everybody],
    )


def _figures(
    scans: Scans,
    deviation: np.ndarray,
    mean: np.ndarray,
    rows: np.ndarray,
    each: np.ndarray,
) -> dict[str, float]:
    """The same of some rows (scan,), with `each` of their patients as `_per_patient`
    has it."""
    y, deviation, mean, state = (
        scans.rating[rows],
        deviation[rows],
        mean[rows],
        scans.state[rows],
    )
    predicted, change = deviation + mean, each[np.isfinite(each[:, 2]), 2:]
    spread = predicted - predicted.mean()
    steep = float(np.square(spread).sum())
    slope = (
        float((spread * (y - y.mean())).sum() / steep)
        if varying(predicted)
        else float("nan")
    )
    return {
        "r": float(pearson_r(deviation, y)),
        "r_within_state": float(_r_within(state, deviation[None], y[None])[0]),
        "r_patients": float(pearson_r(each[:, 0], each[:, 1])),
        "r_change": float(pearson_r(change[:, 0], change[:, 1]))
        if len(change) > 2
        else float("nan"),
        "r2": float(1 - np.square(predicted - y).sum() / np.square(mean - y).sum()),
        "rmse": float(np.sqrt(np.square(predicted - y).mean())),
        "mae": float(np.abs(predicted - y).mean()),
        "slope": slope,
        "intercept": float(y.mean() - slope * predicted.mean()),
    }


def _per_patient(scans: Scans, deviation: np.ndarray) -> np.ndarray:
    """(patient, 4): mean of deviations and of ratings; change of both from the first
    state to the last, or NaN."""
    found = np.full((len(scans.names), 4), np.nan)
    both = np.stack([deviation, scans.rating], 1)
    for i in range(len(found)):
        rows = np.flatnonzero(scans.patient == i)
        rows = rows[np.argsort(scans.state[rows], kind="stable")]
        found[i, :2] = both[rows].mean(0)
        if scans.state[rows[0]] != scans.state[rows[-1]]:
            found[i, 2:] = both[rows[-1]] - both[rows[0]]
    return found


def _training_means(scans: Scans, outer: np.ndarray, by_state: bool) -> np.ndarray:
    found = np.empty(len(scans.rating))
    for i, (patient, state) in enumerate(zip(scans.patient, scans.state, strict=True)):
        train = outer[scans.patient] != outer[patient]
        found[i] = scans.rating[
            train & (scans.state == state) if by_state else train
        ].mean()
    return found


def _bootstrap(
    scans: Scans,
    deviation: np.ndarray,
    mean: np.ndarray,
    rng: np.random.Generator,
    times: int,
) -> dict[str, Interval]:
    rows = [np.flatnonzero(scans.patient == i) for i in range(len(scans.names))]
    each, drawn = _per_patient(scans, deviation), []
    for patients in resamples(len(rows), rng, times):
        taken = np.concatenate([rows[i] for i in patients])
        if np.ptp(scans.rating[taken]) > 0:
            drawn.append(_figures(scans, deviation, mean, taken, each[patients]))
    return {
        name: percentile(np.array([d[name] for d in drawn], float)) for name in FIGURES
    }
