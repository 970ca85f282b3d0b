"""How often do 95 % intervals hold what they estimate? In simulated cohorts, whose
truth is known in closed form.

    python benchmarks/coverage.py [--cohorts 1000]

Forced choice: differences between visits are normal with unit variance, all features
but the first without any effect, and the model that is left-one-out is the difference
of means (a support vector machine on few patients is much the same, and `evaluate`
itself is simulated in tests/prediction/test_intervals.py). Ratings: ridge regression.
The truth is what the models of the folds reach on new people.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from cingulum.prediction import intervals
from cingulum.prediction.compiled_statistics import mirrored_auc, two_sample_auc
from cingulum.prediction.statistics import Interval, accuracy

SIZES = (12, 20, 53)
FEATURES = (1, 30)
EFFECTS = (0.0, 0.3, 0.6, 1.0, 1.5, 2.5)
"""Mean difference between visits of the first feature, in standard deviations."""

RESEMBLANCES = (0.0, 0.5, 0.9)
"""Correlation of both visits of a person."""

CORRELATIONS = (0.0, 0.3, 0.6, 0.9)
"""Of the first feature with the rating."""

PENALTY = 0.3
"""Of the ridge regression, by its patients and their unit variance."""


@dataclass(frozen=True)
class Model:
    """Of many cohorts: differences between scores of both visits (cohort, patient),
    those scores (cohort, patient, visit), and, by fold, mean and standard deviation of
    the difference (cohort, fold) and standard deviation of the score in new people."""

    decisions: np.ndarray
    scans: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    spread_of_scan: np.ndarray

    @property
    def true_accuracy(self) -> np.ndarray:
        return norm.cdf(self.mean / self.spread).mean(-1)

    @property
    def true_mirrored_auc(self) -> np.ndarray:
        return _beyond_zero(self.mean, self.spread)

    @property
    def true_single_scan_auc(self) -> np.ndarray:
        # A second scan lies above another person's first one by one mean difference.
        return _beyond_zero(self.mean / 2, self.spread_of_scan)


def _beyond_zero(mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Chance (cohort,) that normal scores of any two folds add to more than 0."""
    sums = mean[:, :, None] + mean[:, None]
    spreads = np.hypot(spread[:, :, None], spread[:, None])
    return norm.cdf(sums / spreads).mean((1, 2))


def simulated(
    rng: np.random.Generator,
    cohorts: int,
    n: int,
    features: int,
    effect: float,
    resemblance: float = 0.5,
) -> Model:
    """Cohorts whose differences have unit variance, left one out."""
    variance = 1 / (2 * (1 - resemblance))
    shape = (cohorts, n, features)
    level = np.sqrt(resemblance * variance) * rng.normal(size=shape)
    first = level + np.sqrt(0.5) * rng.normal(size=shape)
    second = level + np.sqrt(0.5) * rng.normal(size=shape)
    second[..., 0] += effect
    differences = second - first
    weights = (differences.sum(1, keepdims=True) - differences) / (n - 1)
    scans = np.stack([(weights * first).sum(-1), (weights * second).sum(-1)], -1)
    length = np.linalg.norm(weights, axis=-1)
    return Model(
        decisions=scans[..., 1] - scans[..., 0],
        scans=scans,
        mean=weights[..., 0] * effect,
        spread=length,
        spread_of_scan=length * np.sqrt(variance),
    )


Coverage = tuple[str, float]


def decisions(rng: np.random.Generator, cohorts: int, n: int) -> Iterator[Coverage]:
    """Accuracy and AUC of one model."""
    for features in FEATURES:
        for effect in EFFECTS:
            model = simulated(rng, cohorts, n, features, effect)
            setting = f"{features} features, effect {effect}"
            yield (
                f"accuracy, {setting}",
                held(
                    lambda d: intervals.accuracy_interval(float(accuracy(d)), n),
                    model.decisions,
                    model.true_accuracy,
                ),
            )
            yield (
                f"mirrored AUC, {setting}",
                held(
                    lambda d: intervals.mirrored_auc_interval(
                        float(mirrored_auc(d[None])[0]), n
                    ),
                    model.decisions,
                    model.true_mirrored_auc,
                ),
            )


def single_scans(rng: np.random.Generator, cohorts: int, n: int) -> Iterator[Coverage]:
    """AUC of single scans."""
    for features in FEATURES:
        for resemblance in RESEMBLANCES:
            for effect in EFFECTS:
                model = simulated(rng, cohorts, n, features, effect, resemblance)
                yield (
                    f"single-scan AUC, {features} features, effect {effect}, "
                    f"resemblance {resemblance}",
                    held(
                        _single_scan_interval, model.scans, model.true_single_scan_auc
                    ),
                )


def _single_scan_interval(scans: np.ndarray) -> Interval:
    auc = float(two_sample_auc(scans[None, :, 1], scans[None, :, 0])[0])
    return intervals.single_scan_auc_interval(auc, scans, len(scans))


def gains(rng: np.random.Generator, cohorts: int, n: int) -> Iterator[Coverage]:
    """One model minus another, and the sum of both minus one of them."""
    for features in FEATURES:
        for effect in EFFECTS:
            for other_effect in (0.0, effect):
                a = simulated(rng, cohorts, n, features, effect)
                b = simulated(rng, cohorts, n, features, other_effect)
                for name, first in (("a - b", a), ("(a + b) - b", _sum(a, b))):
                    setting = f"{name}, {features} features, {effect}, {other_effect}"
                    yield from _gains_of(setting, first, b, n)


def _sum(a: Model, b: Model) -> Model:
    """Both models, whose features are independent, added."""
    return Model(
        decisions=a.decisions + b.decisions,
        scans=a.scans + b.scans,
        mean=a.mean + b.mean,
        spread=np.hypot(a.spread, b.spread),
        spread_of_scan=np.hypot(a.spread_of_scan, b.spread_of_scan),
    )


def _gains_of(setting: str, first: Model, second: Model, n: int) -> Iterator[Coverage]:
    both = np.stack([first.decisions, second.decisions], 1)
    yield (
        f"gain in accuracy, {setting}",
        held(
            lambda d: intervals.accuracy_gain_interval(d[0], d[1], n),
            both,
            first.true_accuracy - second.true_accuracy,
        ),
    )
    yield (
        f"gain in AUC, {setting}",
        held(
            lambda d: intervals.auc_gain_interval(d[0], d[1], n),
            both,
            first.true_mirrored_auc - second.true_mirrored_auc,
        ),
    )


def ratings(rng: np.random.Generator, cohorts: int, n: int) -> Iterator[Coverage]:
    """Errors of predicted ratings, of normal and of heavier tails."""
    for tails in ("normal", "t4"):
        for rho in CORRELATIONS:
            error, true = _ridge_errors(rng, cohorts, n, rho, tails)
            yield (
                f"RMSE, {tails} errors, r {rho}",
                held(
                    lambda e: intervals.rmse_interval(e**2, n),
                    error,
                    np.sqrt(np.square(true).mean(-1)),
                ),
            )
            if tails == "normal":
                yield (
                    f"MAE, r {rho}",
                    held(
                        lambda e: intervals.mae_interval(np.abs(e), n),
                        error,
                        np.sqrt(2 / np.pi) * true.mean(-1),
                    ),
                )


def _ridge_errors(
    rng: np.random.Generator, cohorts: int, n: int, rho: float, tails: str
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold errors (cohort, patient) of ratings with unit variance, and the root
    mean square error (cohort, fold) that each fold's model makes in new people."""
    x = rng.normal(size=(cohorts, n))
    noise = rng.normal(size=x.shape)
    if tails == "t4":
        noise = rng.standard_t(4, size=x.shape) / np.sqrt(2)
    left = np.sqrt(1 - rho**2)
    y = rho * x + left * noise
    count = n - 1
    mean_x = (x.sum(1, keepdims=True) - x) / count
    mean_y = (y.sum(1, keepdims=True) - y) / count
    square = ((x**2).sum(1, keepdims=True) - x**2) / count - mean_x**2
    product = ((x * y).sum(1, keepdims=True) - x * y) / count - mean_x * mean_y
    slope = product / (square + PENALTY)
    offset = mean_y - slope * mean_x
    error = offset + slope * x - y
    true = np.sqrt(offset**2 + (slope - rho) ** 2 + left**2)
    return error, true


def held(
    interval: Callable[[np.ndarray], Interval], observed: np.ndarray, truth: np.ndarray
) -> float:
    """Share of cohorts whose interval holds their truth."""
    ends = [interval(one) for one in observed]
    low = np.array([i.low for i in ends])
    high = np.array([i.high for i in ends])
    return float(((low <= truth) & (truth <= high)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--every", action="store_true", help="print every setting")
    options = parser.parse_args()
    for experiment in (decisions, single_scans, gains, ratings):
        shares: dict[tuple[str, int], list[float]] = {}
        for n in SIZES:
            rng = np.random.default_rng(n)
            for setting, share in experiment(rng, options.cohorts, n):
                if options.every:
                    print(f"  n = {n}, {setting}: {100 * share:.1f} %")
                figure = setting.split(",")[0] + (" (t4)" if "t4" in setting else "")
                shares.setdefault((figure, n), []).append(share)
        for (figure, n), of_settings in shares.items():
            low, high = 100 * min(of_settings), 100 * max(of_settings)
            print(f"{figure:24} n = {n:3}: {low:5.1f} to {high:5.1f} %", flush=True)


if __name__ == "__main__":
    main()
