"""The between-patient regression as it was published, for comparison only: both of its
leaks are in it.

Group weights are fitted on all patients, so that every response tells before from after
without error; then 106 scans are split so that one scan of each patient is on either
side. On noise the test r is .10 to .54. `evaluate_ratings` asks the same question
without the leaks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from sklearn.svm import SVR

from cingulum.errors import InputError
from cingulum.prediction.permutation import exchanges, p_value
from cingulum.prediction.statistics import Interval, pearson_r
from cingulum.prediction.svm import solver
from cingulum.random_streams import Stream, generator

NOISE_FEATURES = 2000
"""Noise maps are made no larger: beyond many times the patients their size changes
nothing."""


@dataclass(frozen=True, eq=False)
class PublishedRegression:
    """What the published recipe gives, and what it gives on noise. None of it is
    evidence about new patients.

    train_r, test_r, rmse: of unadjusted predictions; p: whole patients exchange
    ratings, so that its null has the leak in it; noise_r: mean test r of the recipe on
    white noise of the same shape, noise_range the middle 95 %
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
    if any(
        not np.isfinite(v).all() or v.shape[:2] != (n, 2) for v in modalities.values()
    ):
        raise InputError(
            "The published recipe needs finite features (patient, 2, feature) of every "
            "patient."
        )
    rng = generator(seed, Stream.PUBLISHED_REGRESSION)
    side = rng.permuted(
        np.arange(n) % 2
    )  # which visit of a patient is a test scan; half of each
    responses = np.stack([group_responses(v, C) for v in modalities.values()], -1)
    train_r, train_rmse, test_r, test_rmse, predicted = _split_fit(
        responses, ratings, side
    )
    orders = exchanges(permutations, n, rng)
    null = np.array(
        [_split_fit(responses, ratings[order], side)[2] for order in orders]
    )
    noise = np.array([_on_noise(modalities, ratings, C, rng) for _ in range(noises)])
    low, high = np.quantile(noise, [0.025, 0.975])
    leaks = "leaks: on" if noise.mean() > 0.1 else "is no split of patients; on"
    label = (
        f"The published split {leaks} white noise of the same shape it gives a test r "
        f"of {noise.mean():.2f} "
        f"({low:.2f} to {high:.2f}). Shown for comparison, never as a result."
    )
    return PublishedRegression(
        train_r,
        train_rmse,
        test_r,
        test_rmse,
        p_value(test_r, null),
        float(noise.mean()),
        Interval(float(low), float(high)),
        noise,
        side,
        predicted,
        label,
    )


def group_responses(values: np.ndarray, C: float = 1.0) -> np.ndarray:
    """Responses (patient, visit) of all scans to the paired machine fitted on all
    patients: in-sample."""
    d = (values[:, 1] - values[:, 0]).astype(np.float64)
    dual = solver.duals(d @ d.T, np.ones((1, len(d))), 2 * C)[0]
    return values @ (dual @ d)


def _split_fit(
    responses: np.ndarray, ratings: np.ndarray, side: np.ndarray
) -> tuple[float, float, float, float, np.ndarray]:
    rows = np.arange(len(side))
    x, y = responses[rows, 1 - side], ratings[rows, 1 - side]
    centre, size = (
        x.mean(0),
        x.std(0),
    )  # published scaling is not known; without any, large units never converge
    size = np.where(size > 1e-12 * np.abs(x).max(0), size, np.inf)
    model = SVR(kernel="linear", max_iter=1_000_000).fit((x - centre) / size, y)
    fitted, predicted = (
        model.predict((x - centre) / size),
        model.predict((responses[rows, side] - centre) / size),
    )
    truth = ratings[rows, side]
    error = [
        float(np.sqrt(np.square(a - b).mean()))
        for a, b in ((fitted, y), (predicted, truth))
    ]
    return (
        float(pearson_r(fitted, y)),
        error[0],
        float(pearson_r(predicted, truth)),
        error[1],
        predicted,
    )


def _on_noise(
    modalities: dict[str, np.ndarray],
    ratings: np.ndarray,
    C: float,
    rng: np.random.Generator,
) -> float:
    n = len(ratings)
    parts = [
        rng.normal(size=(n, 2, min(v.shape[-1], NOISE_FEATURES)))
        for v in modalities.values()
    ]
    responses = np.stack([group_responses(v, C) for v in parts], -1)
    return _split_fit(responses, ratings, rng.permuted(np.arange(n) % 2))[2]
