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
    summary = _NoiseSummary.of(noise)
    return PublishedRegression(
        train_r=fit.train_r,
        train_rmse=fit.train_rmse,
        test_r=fit.test_r,
        test_rmse=fit.test_rmse,
        p=p_value(fit.test_r, np.array(null)),
        noise_r=summary.mean,
        noise_range=summary.range,
        noise=np.array(noise),
        test_visit=test_visit,
        predicted=fit.predicted,
        label=summary.label,
    )


@dataclass(frozen=True)
class _NoiseSummary:
    """Mean and middle 95 % of the test r on noise."""

    mean: float
    range: Interval

    @staticmethod
    def of(values: list[float]) -> _NoiseSummary:
        low, high = np.quantile(values, [0.025, 0.975])
        return _NoiseSummary(float(np.mean(values)), Interval(float(low), float(high)))

    @property
    def _verdict(self) -> str:
        # On noise a split of patients has no r above 0 on average.
        return "leaks:" if self.mean > LEAKING_R else "is no split of patients;"

    @property
    def label(self) -> str:
        """What is printed beside the published figures."""
        return (
            f"The published split {self._verdict} on white noise of the same shape it "
            f"gives a test r of {self.mean:.2f} ({self.range.low:.2f} to "
            f"{self.range.high:.2f}). Shown for comparison, never as a result."
        )


def _check_complete(modalities: dict[str, np.ndarray], patients: int) -> None:
    for values in modalities.values():
        if not _is_complete(values, patients):
            raise InputError(
                "The published recipe needs finite features (patient, 2, feature) of "
                "every patient."
            )


def _is_complete(values: np.ndarray, patients: int) -> bool:
    return values.shape[:2] == (patients, 2) and bool(np.isfinite(values).all())


def _test_visits(patients: int, rng: np.random.Generator) -> np.ndarray:
    """Which visit of each patient is the test scan; the first of half of them."""
    return rng.permuted(np.arange(patients) % 2)


def group_responses(values: np.ndarray, C: float = 1.0) -> np.ndarray:
    """Responses (patient, visit) of all scans to the paired SVM fitted to all patients:
    in-sample."""
    differences = (values[:, 1] - values[:, 0]).astype(np.float64)
    return values @ _weights(differences, C)


def _weights(differences: np.ndarray, C: float) -> np.ndarray:
    """Weights (feature,) of the SVM fitted to all differences (patient, feature)."""
    everybody = np.ones((1, len(differences)))
    # Each difference counts for itself and its mirror image, hence twice C.
    dual = solver.duals(differences @ differences.T, everybody, 2 * C)[0]
    return dual @ differences


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
    rated = _of_visit(ratings, 1 - test_visit)
    truth = _of_visit(ratings, test_visit)
    scaled = _scaled(responses, test_visit)
    x = _of_visit(scaled, 1 - test_visit)
    model = SVR(kernel="linear", max_iter=1_000_000).fit(x, rated)
    fitted = model.predict(x)
    predicted = model.predict(_of_visit(scaled, test_visit))
    return _Fit(
        train_r=float(pearson_r(fitted, rated)),
        train_rmse=_rmse(fitted, rated),
        test_r=float(pearson_r(predicted, truth)),
        test_rmse=_rmse(predicted, truth),
        predicted=predicted,
    )


def _scaled(responses: np.ndarray, test_visit: np.ndarray) -> np.ndarray:
    """Responses about their training mean, in training standard deviations."""
    # The published scaling is not known; without any, large units never converge.
    training = _of_visit(responses, 1 - test_visit)
    return (responses - training.mean(0)) / _training_size(training)


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
    # The noise first, then the split: the order is part of what a seed means.
    noise = [_noise(n, features, rng) for features in widths]
    responses = _group_responses(noise, C)
    return _fit(responses, ratings, _test_visits(n, rng)).test_r


def _noise(patients: int, features: int, rng: np.random.Generator) -> np.ndarray:
    """White noise (patient, visit, feature)."""
    return rng.normal(size=(patients, 2, min(features, NOISE_FEATURES)))
