"""Do predictions follow a confound rather than the answer?

The partial and the full confounder test of Spisak 2022
(doi:10.1093/gigascience/giac082)
by the conditional permutation test of Berrett et al. 2020 (doi:10.1111/rssb.12340):
values are exchanged between people with probabilities under which their dependence on a
third variable stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.preprocessing import SplineTransformer

from cingulum.prediction.permutation import p_value
from cingulum.random_streams import Stream, generator

EXCHANGES = 50
"""Rounds of pairwise exchange between two permutations, as in Berrett et al. 2020."""

FEWEST = 10
"""Independent people below which nothing is tested."""

FEWEST_FOR_SPLINES = 40
"""People below which a curve is a parabola: a spline would follow each of them."""

KNOTS = 4

SMALLEST = 1e-300
"""Variances below this are this, so that nothing is divided by 0."""


@dataclass(frozen=True)
class ConfounderTests:
    """partial: p of predictions that depend on the confound only as far as the answer
    does; full: p of predictions that depend on the answer only as far as the confound
    does
    r_squared: share of the predictions' variance that a curve of the confound explains
    """

    partial: float
    full: float
    r_squared: float


def confounder_tests(
    answer: np.ndarray,
    predicted: np.ndarray,
    confound: np.ndarray,
    *,
    permutations: int = 1000,
    seed: int = 0,
) -> ConfounderTests:
    """Both tests of out-of-fold predictions; a row (person,) per independent person.

    A small `partial` says that the confound drives the predictions; a large `full` that
    the answer adds nothing to the confound. People with a missing value are left out.
    """
    known = np.isfinite(answer) & np.isfinite(predicted) & np.isfinite(confound)
    y, prediction, c = answer[known], predicted[known], confound[known]
    rng = generator(seed, Stream.CONFOUNDER_TEST)
    confounds = _permuted_given(c, y, permutations, rng)
    answers = _permuted_given(y, c, permutations, rng)
    explained = _curve_r_squared(prediction, c[None])
    return ConfounderTests(
        partial=p_value(explained[0], _curve_r_squared(prediction, confounds)),
        full=p_value(
            _curve_r_squared(prediction, y[None])[0],
            _curve_r_squared(prediction, answers),
        ),
        r_squared=float(explained[0]),
    )


def is_testable(values: np.ndarray) -> bool:
    """Whether enough people differ in a variable (person,) for a test of it."""
    known = values[np.isfinite(values)]
    if len(known) < FEWEST:
        return False
    # Of a variable that a few people alone have, chance decides everything.
    most_frequent = np.unique(known, return_counts=True)[1].max()
    return bool(len(known) - most_frequent >= FEWEST / 2)


def independent_means(
    values: Sequence[np.ndarray], member: np.ndarray | None
) -> tuple[np.ndarray, ...]:
    """Means of each variable (row,) over the rows of a person or family; as they are
    without `member` (row,)."""
    if member is None:
        return tuple(np.asarray(one, float) for one in values)
    number = np.unique(member, return_inverse=True)[1]
    rows = np.bincount(number)
    return tuple(np.bincount(number, one) / rows for one in values)


def _permuted_given(
    x: np.ndarray, z: np.ndarray, permutations: int, rng: np.random.Generator
) -> np.ndarray:
    """Permutations (permutation, person) of x that keep how x and z depend on each
    other."""
    odds = _ExchangeOdds.of(x, z)
    rounds = [rng.permutation(len(x)) for _ in range(EXCHANGES)]
    # Back from the observed order, and forward again many times: observed and permuted
    # orders are exchangeable (Besag and Clifford 1989), few rounds or many.
    start = _exchange_pairs(np.arange(len(x))[None], odds, rounds[::-1], rng)
    owner = _exchange_pairs(np.tile(start, (permutations, 1)), odds, rounds, rng)
    return x[owner]


@dataclass(frozen=True, eq=False)
class _ExchangeOdds:
    """How likely two people could have each other's x: each (person,), of what goes
    with x, and of what stays with the person."""

    carried: np.ndarray
    own: np.ndarray

    @staticmethod
    def of(x: np.ndarray, z: np.ndarray) -> _ExchangeOdds:
        """By a normal distribution about a curve: of x by z, or of z by x, whichever
        curve explains more. A confound that acts along a parabola has no mean given the
        answer, but the answer has one given the confound."""
        x_by_z, z_by_x = _CurveFit.of(x, z), _CurveFit.of(z, x)
        if x_by_z.r_squared >= z_by_x.r_squared:
            return _ExchangeOdds(x / x_by_z.variance, x_by_z.mean)
        return _ExchangeOdds(z_by_x.mean / z_by_x.variance, z)

    def log(self, owner: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Logarithm of the odds (permutation, pair) that person `one` and person
        `other` exchange what they have by `owner`."""
        gap = self.carried[owner[:, other]] - self.carried[owner[:, one]]
        return gap * (self.own[one] - self.own[other])


@dataclass(frozen=True, eq=False)
class _CurveFit:
    """A curve of one variable by another: mean (person,), variance about it, and the
    share of the variance that it explains."""

    mean: np.ndarray
    variance: float
    r_squared: float

    @staticmethod
    def of(target: np.ndarray, by: np.ndarray) -> _CurveFit:
        if np.ptp(target) <= 1e-12 * np.abs(target).max():
            # Of a constant there is nothing to explain, and its variance is rounding.
            return _CurveFit(np.full(len(target), target.mean()), 1.0, 0.0)
        basis = _curve(by)
        mean = basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
        left = float(((target - mean) ** 2).sum())
        degrees = max(len(target) - np.linalg.matrix_rank(basis), 1)
        total = max(float(((target - target.mean()) ** 2).sum()), SMALLEST)
        return _CurveFit(mean, max(left / degrees, SMALLEST), 1 - left / total)


def _exchange_pairs(
    owner: np.ndarray,
    odds: _ExchangeOdds,
    rounds: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """owner (permutation, person) of each value after rounds, each an order of people
    whose two halves exchange theirs with the probability that the odds ask for."""
    owner = owner.copy()
    pairs = owner.shape[1] // 2
    for order in rounds:
        one, other = order[:pairs], order[pairs : 2 * pairs]
        probability = expit(odds.log(owner, one, other))
        accepted = rng.random(probability.shape) < probability
        of_one, of_other = owner[:, one], owner[:, other]
        owner[:, one] = np.where(accepted, of_other, of_one)
        owner[:, other] = np.where(accepted, of_one, of_other)
    return owner


def _curve(z: np.ndarray) -> np.ndarray:
    """Columns whose combinations are curves of z (person,), a constant among them."""
    if len(z) < FEWEST_FOR_SPLINES or len(np.unique(z)) < KNOTS:
        return _parabola(z)
    splines = SplineTransformer(n_knots=KNOTS, knots="quantile", extrapolation="linear")
    return splines.fit_transform(z[:, None])


def _parabola(z: np.ndarray) -> np.ndarray:
    spread = z.std()
    standardised = (z - z.mean()) / (spread if spread > 0 else 1.0)
    return np.stack([np.ones_like(z), standardised, standardised**2], -1)


def _curve_r_squared(predicted: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Share of the variance of `predicted` (person,) that a parabola of each row of x
    (permutation, person) explains: (permutation,)."""
    centred = predicted - predicted.mean()
    total = max(float((centred**2).sum()), SMALLEST)
    bases = np.stack([_parabola(row)[:, 1:] for row in x])
    bases = bases - bases.mean(1, keepdims=True)
    orthonormal = _orthonormal(bases)
    return ((centred @ orthonormal) ** 2).sum(-1) / total


def _orthonormal(bases: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span those of each basis (permutation, person, column);
    0 where a column adds nothing (a confound of two values)."""
    left, size, _ = np.linalg.svd(bases, full_matrices=False)
    return np.where(size[:, None] > 1e-9 * max(SMALLEST, size.max()), left, 0.0)
