"""The between-patient regression as it was published in 2019, for comparison only: both
of its leaks are in it.

Group weights are fitted to all patients, so that every response tells before from after
without error; then 106 scans are split so that one scan of each patient is on either
side. On noise the test r is .10 to .54. `evaluate_ratings` asks the same question
without the leaks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from sklearn.svm import SVR

from cingulum.errors import InputError
from cingulum.prediction.permutation import exchanges, p_value
from cingulum.prediction.statistics import Interval, pearson_r
from cingulum.prediction.svm import solver
from cingulum.random_streams import Stream, generator

NOISE_FEATURES = 2000
"""Noise features at most: beyond many times the number of patients, more of them change
nothing."""

LEAKING_R = 0.1
"""Mean test r on noise from which the label says that the split leaks."""


@dataclass(frozen=True, eq=False)
class PublishedRegression:
    """What the published recipe gives, and what it gives on noise. None of it is
    evidence about new patients.

    train_r, test_r, rmse: of unadjusted predictions
    p: whole patients exchange ratings, so that its null has the leak in it
    noise_r, noise_range: mean and middle 95 % of the recipe's test r on white noise of
        the same shape
    """

    train_r: float
    train_rmse: float
    test_r: float
    test_rmse: float
    p: float
    noise_r: float
    noise_range: Interval
    noise: np.ndarray = field(repr=False)
    test_visit: np.ndarray
    predicted: np.ndarray
    label: str


def published_regression(
    modalities: dict[str, np.ndarray],
    ratings: np.ndarray,
    *,
    C: float = 1.0,
    permutations: int = 200,
    noises: int = 40,
    seed: int = 0,
) -> PublishedRegression:
    """Run the recipe of 2019: `SVR(kernel="linear")` with scikit-learn's defaults on
    the group responses, each in units of its training standard deviation.

    modalities: by name (patient, visit, feature); ratings (patient, visit); the second
        visit is the one in more pain
    """
    n = len(ratings)
    _check_complete(modalities, n)
    # One stream: the split, exchanged ratings, noise.
    rng = generator(seed, Stream.PUBLISHED_REGRESSION)
    test_visit = _test_visits(n, rng)
    responses = _group_responses(modalities.values(), C)
    fit = _fit(responses, ratings, test_visit)
    orders = exchanges(permutations, n, rng)
    null = [_fit(responses, ratings[order], test_visit).test_r for order in orders]
    widths = [values.shape[-1] for values in modalities.values()]
    noise = [_test_r_on_noise(widths, ratings, C, rng) for _ in range(noises)]
    noise_r = float(np.mean(noise))
    noise_range = _middle_range(noise)
    return PublishedRegression(
        train_r=fit.train_r,
        train_rmse=fit.train_rmse,
        test_r=fit.test_r,
        test_rmse=fit.test_rmse,
        p=p_value(fit.test_r, np.array(null)),
        noise_r=noise_r,
        noise_range=noise_range,
        noise=np.array(noise),
        test_visit=test_visit,
        predicted=fit.predicted,
        label=_label(noise_r, noise_range),
    )


def _middle_range(values: list[float]) -> Interval:
    """Where the middle 95 % lie."""
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


def _check_complete(modalities: dict[str, np.ndarray], patients: int) -> None:
    for values in modalities.values():
        if values.shape[:2] != (patients, 2) or not np.isfinite(values).all():
            raise InputError(
                "The published recipe needs finite features (patient, 2, feature) of "
                "every patient."
            )


def _test_visits(patients: int, rng: np.random.Generator) -> np.ndarray:
    """Which visit of each patient is the test scan; the first of half of them."""
    return rng.permuted(np.arange(patients) % 2)


def _label(noise_r: float, noise_range: Interval) -> str:
    leaks = "leaks: on" if noise_r > LEAKING_R else "is no split of patients; on"
    return (
        f"The published split {leaks} white noise of the same shape it gives a test r "
        f"of {noise_r:.2f} ({noise_range.low:.2f} to {noise_range.high:.2f}). Shown "
        "for comparison, never as a result."
    )


def group_responses(values: np.ndarray, C: float = 1.0) -> np.ndarray:
    """Responses (patient, visit) of all scans to the paired SVM fitted to all patients:
    in-sample."""
    differences = (values[:, 1] - values[:, 0]).astype(np.float64)
    everybody = np.ones((1, len(differences)))
    # Each difference stands for itself and its mirror image, hence twice C.
    dual = solver.duals(differences @ differences.T, everybody, 2 * C)[0]
    return values @ (dual @ differences)


def _group_responses(modalities: Iterable[np.ndarray], C: float) -> np.ndarray:
    """(patient, visit, modality)."""
    return np.stack([group_responses(values, C) for values in modalities], -1)


@dataclass(frozen=True, eq=False)
class _Fit:
    """Performance on both sides of the split; predicted (patient,): of the test
    scans."""

    train_r: float
    train_rmse: float
    test_r: float
    test_rmse: float
    predicted: np.ndarray


def _fit(responses: np.ndarray, ratings: np.ndarray, test_visit: np.ndarray) -> _Fit:
    """responses (patient, visit, modality), ratings (patient, visit)."""
    trained = _of_visit(responses, 1 - test_visit)
    rated = _of_visit(ratings, 1 - test_visit)
    truth = _of_visit(ratings, test_visit)
    # The published scaling is not known; without any, large units never converge.
    centre = trained.mean(0)
    size = _training_size(trained)
    x = (trained - centre) / size
    model = SVR(kernel="linear", max_iter=1_000_000).fit(x, rated)
    fitted = model.predict(x)
    predicted = model.predict((_of_visit(responses, test_visit) - centre) / size)
    return _Fit(
        train_r=float(pearson_r(fitted, rated)),
        train_rmse=_rmse(fitted, rated),
        test_r=float(pearson_r(predicted, truth)),
        test_rmse=_rmse(predicted, truth),
        predicted=predicted,
    )


def _of_visit(values: np.ndarray, visit: np.ndarray) -> np.ndarray:
    """Entries (patient, …) of one visit of each patient; values (patient, visit, …)."""
    return values[np.arange(len(visit)), visit]


def _training_size(x: np.ndarray) -> np.ndarray:
    """Standard deviation of columns; infinite for constant ones, which become 0."""
    size = x.std(0)
    varies = size > 1e-12 * np.abs(x).max(0)
    return np.where(varies, size, np.inf)


def _rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a - b).mean()))


def _test_r_on_noise(
    widths: list[int], ratings: np.ndarray, C: float, rng: np.random.Generator
) -> float:
    """widths: number of features of each modality."""
    n = len(ratings)
    noise = []
    for features in widths:
        shape = (n, 2, min(features, NOISE_FEATURES))
        noise.append(rng.normal(size=shape))
    responses = _group_responses(noise, C)
    return _fit(responses, ratings, _test_visits(n, rng)).test_r
