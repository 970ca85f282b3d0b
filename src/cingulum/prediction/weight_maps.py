"""Where in the brain: weights and activation patterns with permutation tests and
bootstrap.

Every map is a combination of the patients' difference images, so thousands of permuted
or resampled maps are one matrix product, and their means and standard deviations never
need the maps at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from cingulum.errors import InputError
from cingulum.prediction.compiled_statistics import count_extremes
from cingulum.prediction.permutation import (
    Jobs,
    fdr,
    in_blocks,
    max_statistic_p,
    row_blocks,
    sign_flips,
)
from cingulum.prediction.svm import solver
from cingulum.prediction.svm.products import inner_products
from cingulum.progress import track
from cingulum.random_streams import Stream, generator

CHUNK = 256
"""Features computed together: their permuted maps fit into the processor's cache."""

BLOCK = 128
"""SVMs fitted together."""

HALVINGS = 50
"""Random divisions of the patients into halves behind `reproducibility`."""


@dataclass(frozen=True, eq=False)
class MapTest:
    """A map and its permutation test, (feature,) each.

    z: in root mean squares over all flips; p: two-sided, by count, (b + 1) / (m + 1);
    p_fwe: against the largest |z| of every permutation; q: false discovery rate of
    Benjamini and Hochberg, from the normal tail beyond |z|. NaN where the feature never
    changes.

    Counted p never go below 1 / (m + 1), which over 200,000 voxels no false discovery
    rate could use. A sum of flipped signs has tails no heavier than the normal
    (Hoeffding 1963), so the normal tail replaces more permutations.
    """

    values: np.ndarray
    z: np.ndarray
    p: np.ndarray
    p_fwe: np.ndarray
    q: np.ndarray
    permutations: int


@dataclass(frozen=True, eq=False)
class WeightStability:
    """Weights of resampled patients, (feature,) each.

    ratio: mean over standard deviation; same_sign: share of resamples with the sign of
    the map; reproducibility: mean correlation of the maps of two halves of the patients
    """

    ratio: np.ndarray
    same_sign: np.ndarray
    reproducibility: float
    resamples: int


@dataclass(frozen=True, eq=False)
class WeightMaps:
    """weights: of the SVM fitted to all patients; pattern: Haufe et al. 2014,
    doi:10.1016/j.neuroimage.2013.10.067."""

    weights: MapTest
    pattern: MapTest
    stability: WeightStability


def map_weights(
    values: np.ndarray,
    *,
    C: float = 1.0,
    permutations: int = 5000,
    resamples: int = 1000,
    seed: int = 0,
    jobs: Jobs = 1,
    show_progress: bool = False,
) -> WeightMaps:
    """Weight and pattern maps of the paired SVM of values (patient, visit, feature).

    No patient may be missing. Patients' visits are swapped as in `evaluate`, and the
    SVM is refitted each time. Patterns are covariances of the features with the
    decision, over its variance. jobs: who fits the SVMs, as for `evaluate`.
    """
    differences = _complete_differences(values)
    draws = _Draws.of(len(differences), permutations, resamples, seed)
    # Each difference counts for itself and its mirror image, hence twice C.
    svms = _PairedSvms(inner_products(differences), 2 * C, jobs, show_progress)
    flipped = svms.duals(draws.signs, "flipped maps")
    patterns = _patterns(flipped, svms.gram)
    return WeightMaps(
        weights=_tested(flipped, differences, "weights", show_progress),
        pattern=_tested(patterns, differences, "patterns", show_progress),
        stability=_stability(svms, draws, flipped[0], differences),
    )


def _complete_differences(values: np.ndarray) -> np.ndarray:
    """Difference images (patient, feature) of values (patient, visit, feature)."""
    # float32 halves the memory and time of maps; sums of patients need no more digits.
    differences = np.asarray(values[:, 1] - values[:, 0], np.float32)
    if not np.isfinite(differences).all():
        raise InputError(
            "Maps need patients that have the modality whole: leave those with NaN out."
        )
    return differences


def threshold_fdr(test: MapTest, level: float = 0.05) -> float:
    """Smallest |z| among features below this false discovery rate; infinite if there is
    none."""
    below = test.q <= level
    return float(np.abs(test.z[below]).min()) if below.any() else float("inf")


# Combinations of difference images


@dataclass(frozen=True, eq=False)
class _Draws:
    """How the patients' differences count in each SVM (problem, patient).

    signs: the observed ones, then flips; resampled: how often a patient was drawn;
    halves: first halves of all divisions, then their complements
    """

    signs: np.ndarray
    resampled: np.ndarray
    halves: np.ndarray

    @staticmethod
    def of(n: int, permutations: int, resamples: int, seed: int) -> _Draws:
        # One stream, in this order, or maps of earlier runs could not be reproduced.
        rng = generator(seed, Stream.WEIGHT_MAPS)
        flips = sign_flips(permutations, n, rng)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        halves = _halves(n, rng)
        return _Draws(
            signs=np.concatenate([np.ones((1, n)), flips]),
            resampled=drawn.astype(float),
            halves=halves,
        )


def _halves(n: int, rng: np.random.Generator) -> np.ndarray:
    """Which patients are in the first half of each division, then in the second (2 ·
    halving, patient)."""
    sides = [rng.permuted(np.arange(n) % 2) for _ in range(HALVINGS)]
    second = np.stack(sides).astype(float)
    return np.concatenate([1 - second, second])


@dataclass(frozen=True, eq=False)
class _SvmDuals:
    """Duals (problem, patient) of SVMs fitted to signs, or to how often each patient
    counts (problem, patient)."""

    gram: np.ndarray
    box: float

    def __call__(self, signs: np.ndarray) -> np.ndarray:
        return np.asarray(solver.duals(self.gram, signs, self.box))


@dataclass(frozen=True, eq=False)
class _PairedSvms:
    """SVMs of one modality, and who fits them."""

    gram: np.ndarray
    box: float
    jobs: Jobs
    show_progress: bool

    def duals(self, signs: np.ndarray, label: str) -> np.ndarray:
        """Duals (problem, patient), fitted block by block."""
        work = _SvmDuals(self.gram, self.box)
        fitted = in_blocks(
            work, row_blocks(signs, BLOCK), self.jobs, self.show_progress, label
        )
        return np.concatenate(list(fitted))


def _patterns(duals: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Combinations (problem, patient) whose maps are activation patterns."""
    # Covariances with the decision are combinations of the same images, too.
    decision = duals @ gram
    return decision / np.square(decision).sum(1, keepdims=True).clip(1e-300)


def _map_sd(covariance: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """Standard deviation (feature,) of maps whose combinations have this covariance
    (patient, patient)."""
    weighted = covariance.astype(np.float32) @ differences
    variance = np.einsum("if,if->f", differences, weighted)
    # float32 may leave variances just below 0.
    return np.sqrt(variance.clip(0))


# Permutation test


def _tested(
    combinations: np.ndarray, differences: np.ndarray, label: str, show: bool
) -> MapTest:
    """Test of the map of the first of the combinations (1 + permutation, patient)."""
    images = _ScaledImages.of(combinations, differences)
    features = len(images.sd)
    observed = combinations[0]
    permuted = combinations[1:].astype(np.float32)
    values = np.zeros(features)
    z = np.zeros(features)
    extremes = _Extremes.none(features, len(permuted))
    # Permuted maps of all features would not fit into memory.
    for chunk in track(list(_chunks(features)), label, show=show):
        scaled = images.chunk(chunk)
        values[chunk] = observed @ differences[:, chunk]
        z[chunk] = observed @ scaled
        extremes.count(permuted @ scaled, z[chunk], chunk)
    return extremes.test(values, np.where(images.varies, z, np.nan))


@dataclass(frozen=True, eq=False)
class _ScaledImages:
    """Difference images (patient, feature), and the standard deviation (feature,) of
    their maps over all flips."""

    differences: np.ndarray
    sd: np.ndarray
    varies: np.ndarray

    @staticmethod
    def of(combinations: np.ndarray, differences: np.ndarray) -> _ScaledImages:
        # Flips are symmetric, so the centre is 0; the observed map is one of those that
        # make the spread, or |z| of the observed and of the permuted ones could not be
        # exchanged.
        spread = combinations.T @ combinations / len(combinations)
        sd = _map_sd(spread, differences)
        return _ScaledImages(differences, sd, sd > 1e-12 * (sd.max() or 1.0))

    def chunk(self, columns: slice) -> np.ndarray:
        """Images whose maps are z; 0 where the feature never changes."""
        block = self.differences[:, columns]
        zeros = np.zeros_like(block)
        varies = self.varies[columns]
        return np.divide(block, self.sd[columns], out=zeros, where=varies)


@dataclass(frozen=True, eq=False)
class _Extremes:
    """hits (feature,): permutations with at least the observed |z|; largest
    (permutation,): |z| over all features. Both are counted up chunk by chunk."""

    hits: np.ndarray
    largest: np.ndarray

    @staticmethod
    def none(features: int, permutations: int) -> _Extremes:
        return _Extremes(np.zeros(features), np.zeros(permutations, np.float32))

    def count(self, permuted: np.ndarray, z: np.ndarray, chunk: slice) -> None:
        # float32 as the permuted maps are, so that equal maps tie.
        size = np.abs(z).astype(np.float32)
        count_extremes(permuted, size, self.hits[chunk], self.largest)

    def test(self, values: np.ndarray, z: np.ndarray) -> MapTest:
        """z (feature,): NaN where the feature never changes."""
        known = np.isfinite(z)
        p_fwe = max_statistic_p(np.abs(z), self.largest)
        return MapTest(
            values=values,
            z=z,
            p=np.where(known, self._p, np.nan),
            p_fwe=np.where(known, p_fwe, np.nan),
            q=fdr(2 * norm.sf(np.abs(z))),
            permutations=len(self.largest),
        )

    @property
    def _p(self) -> np.ndarray:
        """By count; the observed map is one of the flips, so that p is never 0."""
        return (self.hits + 1) / (len(self.largest) + 1)


def _chunks(features: int) -> Iterator[slice]:
    for start in range(0, features, CHUNK):
        yield slice(start, start + CHUNK)


# Stability


def _stability(
    svms: _PairedSvms, draws: _Draws, observed: np.ndarray, differences: np.ndarray
) -> WeightStability:
    """observed (patient,): duals of the SVM fitted to all patients."""
    resampled = svms.duals(draws.resampled, "resampled maps")
    halves = svms.duals(draws.halves, "maps of halves")
    return WeightStability(
        ratio=_bootstrap_ratio(resampled, differences),
        same_sign=_same_sign(resampled, observed, differences),
        reproducibility=_reproducibility(halves, svms.gram),
        resamples=len(resampled),
    )


def _bootstrap_ratio(resampled: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """Mean over standard deviation (feature,) of the maps of resampled patients."""
    mean = resampled.mean(0).astype(np.float32) @ differences
    covariance = np.atleast_2d(np.cov(resampled.T, bias=True))
    sd = _map_sd(covariance, differences)
    # A feature that never changes has no ratio.
    undefined = np.full_like(mean, np.nan)
    return np.divide(mean, sd, out=undefined, where=sd > 0)


def _same_sign(
    resampled: np.ndarray, observed: np.ndarray, differences: np.ndarray
) -> np.ndarray:
    """Share (feature,) of resamples whose map has the sign of the observed one."""
    share = np.zeros(differences.shape[1])
    observed = observed.astype(np.float32)
    resampled = resampled.astype(np.float32)
    # Maps of all resamples at once would not fit into memory.
    for chunk in _chunks(len(share)):
        share[chunk] = _agreement(resampled, observed, differences[:, chunk])
    return share


def _agreement(
    resampled: np.ndarray, observed: np.ndarray, images: np.ndarray
) -> np.ndarray:
    same = np.sign(resampled @ images) == np.sign(observed @ images)
    return same.mean(0)


def _reproducibility(halves: np.ndarray, gram: np.ndarray) -> float:
    """Mean correlation of the maps of two halves (2 · halving, patient)."""
    first, second = np.split(halves, 2)
    # Correlation about zero, so that it needs inner products only.
    inner = _map_products(first, gram, second)
    # A half that agrees on nothing has a map of zeros.
    correlation = inner / _product_of_norms(first, gram, second).clip(1e-300)
    return float(correlation.mean())


def _product_of_norms(a: np.ndarray, gram: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(_map_products(a, gram, a) * _map_products(b, gram, b))


def _map_products(a: np.ndarray, gram: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Inner products (row,) of the maps of combinations a and b (row, patient)."""
    return np.einsum("ri,ij,rj->r", a, gram, b)
