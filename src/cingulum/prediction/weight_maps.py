"""Where in the brain: weights and activation patterns with permutation and bootstrap,
and tables of peaks.

Every map is a combination of the patients' difference images, so thousands of permuted
or resampled maps are one matrix product, and their means and standard deviations never
need the maps at all.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from cingulum.errors import InputError
from cingulum.prediction.compiled_statistics import count_extremes
from cingulum.prediction.permutation import (
    Jobs,
    fdr,
    in_blocks,
    max_statistic_p,
    sign_flips,
)
from cingulum.prediction.svm import solver
from cingulum.prediction.svm.products import inner_products
from cingulum.progress import track
from cingulum.random_streams import Stream, generator
from cingulum.signals.atlas import named_atlas

CHUNK = 256
"""Features worked on together: permuted maps stay in the cache."""

BLOCK = 128
"""Machines fitted together."""


@dataclass(frozen=True, eq=False)
class Inference:
    """A map against its permutations, (feature,) each.

    z: in root mean squares over all flips; p: two-sided, by count, (b + 1) / (m + 1);
    p_fwe: against the largest |z| of every permutation; q: false discovery rate of
    Benjamini and Hochberg, from the normal tail beyond |z|. NaN where the feature never
    changes.

    Counted p never go below 1 / (m + 1), which over 200,000 voxels no false discovery
    rate could use. A sum of flipped signs has tails no heavier than the normal
    (Hoeffding 1963), so the normal tail stands in for more permutations.
    """

    values: np.ndarray
    z: np.ndarray
    p: np.ndarray
    p_fwe: np.ndarray
    q: np.ndarray
    permutations: int


@dataclass(frozen=True, eq=False)
class WeightStability:
    """What resampled patients make of a map, (feature,) each: mean over standard
    deviation, and share of resamples with the sign of the map; reproducibility: mean
    correlation of the maps of two halves of the patients."""

    ratio: np.ndarray
    same_sign: np.ndarray
    reproducibility: float
    resamples: int


@dataclass(frozen=True, eq=False)
class WeightMaps:
    """weights of the machine fitted on everybody; pattern: Haufe et al. 2014,
    doi:10.1016/j.neuroimage.2013.10.067."""

    weights: Inference
    pattern: Inference
    stability: WeightStability


def maps(
    values: np.ndarray,
    *,
    C: float = 1.0,
    permutations: int = 5000,
    resamples: int = 1000,
    seed: int = 0,
    jobs: Jobs = 1,
    show_progress: bool = False,
) -> WeightMaps:
    """values (patient, visit, feature), no patient missing; jobs: who fits the
    machines, as for `evaluate`.

    Patients' visits are swapped as in `evaluate`; the machine is fitted anew each time.
    Patterns are covariances of the features with the decision, over its variance.
    """
    differences = np.asarray(values[:, 1] - values[:, 0], np.float32)
    if not np.isfinite(differences).all():
        raise InputError(
            "Maps need patients that have the modality whole: leave those with NaN out."
        )
    n = len(differences)
    gram = inner_products(differences)
    rng = generator(seed, Stream.WEIGHT_MAPS)
    signs = np.concatenate([np.ones((1, n)), sign_flips(permutations, n, rng)])
    work = _Machines(gram, 2 * C)

    def fitted(times: np.ndarray, label: str) -> np.ndarray:
        blocks = [times[i : i + BLOCK] for i in range(0, len(times), BLOCK)]
        return np.concatenate(list(in_blocks(work, blocks, jobs, show_progress, label)))

    beta = fitted(signs, "flipped maps")
    weights = _against(beta, differences, "weights", show_progress)
    pattern = _against(_pattern(beta, gram), differences, "patterns", show_progress)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    boot = fitted(drawn, "resampled maps")
    halves = np.stack([rng.permuted(np.arange(n) % 2) for _ in range(50)])
    halves = fitted(
        np.concatenate([halves == 0, halves == 1]).astype(float), "maps of halves"
    )
    return WeightMaps(
        weights, pattern, _stability(boot, beta[0], halves, gram, differences)
    )


@dataclass(frozen=True, eq=False)
class _Machines:
    """Duals (problem, patient) of machines fitted on signs, or on how often each
    patient counts (problem, patient)."""

    gram: np.ndarray
    box: float

    def __call__(self, signs: np.ndarray) -> np.ndarray:
        return np.asarray(solver.duals(self.gram, signs, self.box))


def _pattern(beta: np.ndarray, gram: np.ndarray) -> np.ndarray:
    decision = beta @ gram
    return decision / np.square(decision).sum(1, keepdims=True).clip(1e-300)


def _against(
    made: np.ndarray, differences: np.ndarray, label: str, show: bool
) -> Inference:
    """made: combinations (1 + permutation, patient), the first of them observed."""
    # Flips are symmetric, so the centre is 0; the observed map is one of those that
    # make the spread, or |z| of the
    # observed and of the permuted ones could not be exchanged.
    own, null = made[0], made[1:].astype(np.float32)
    features, m = differences.shape[1], len(null)
    spread = made.T @ made / len(made)
    value, z, hits = (np.zeros(features) for _ in range(3))
    largest = np.zeros(m, np.float32)
    sd = np.sqrt(
        np.einsum(
            "if,if->f", differences, spread.astype(np.float32) @ differences
        ).clip(0)
    )
    alive = sd > 1e-12 * (sd.max() or 1.0)
    chunks = range(0, features, CHUNK)
    for start in track(chunks, label, total=len(chunks), show=show):
        here = slice(start, start + CHUNK)
        d = differences[:, here]
        scaled = np.divide(d, sd[here], out=np.zeros_like(d), where=alive[here])
        value[here] = own @ d
        z[here] = own @ scaled
        count_extremes(
            null @ scaled, np.abs(z[here]).astype(np.float32), hits[here], largest
        )
    p = np.where(alive, (hits + 1) / (m + 1), np.nan)
    p_fwe = np.where(alive, max_statistic_p(np.abs(z), largest), np.nan)
    z = np.where(alive, z, np.nan)
    return Inference(value, z, p, p_fwe, fdr(2 * norm.sf(np.abs(z))), m)


def _stability(
    boot: np.ndarray,
    own: np.ndarray,
    halves: np.ndarray,
    gram: np.ndarray,
    d: np.ndarray,
) -> WeightStability:
    centre, spread = boot.mean(0), np.atleast_2d(np.cov(boot.T, bias=True))
    mean = centre.astype(np.float32) @ d
    sd = np.sqrt(np.einsum("if,if->f", d, spread.astype(np.float32) @ d).clip(0))
    same, few = np.zeros(d.shape[1]), boot.astype(np.float32)
    for start in range(0, d.shape[1], CHUNK):
        block = d[:, start : start + CHUNK]
        same[start : start + CHUNK] = (
            np.sign(few @ block) == np.sign(own.astype(np.float32) @ block)
        ).mean(0)
    ratio = np.divide(mean, sd, out=np.full_like(mean, np.nan), where=sd > 0)
    a, b = np.split(halves, 2)
    # correlation about zero, so that it needs inner products only
    inner = np.einsum("ri,ij,rj->r", a, gram, b)
    size = np.sqrt(
        np.einsum("ri,ij,rj->r", a, gram, a) * np.einsum("ri,ij,rj->r", b, gram, b)
    )
    return WeightStability(
        ratio, same, float((inner / size.clip(1e-300)).mean()), len(boot)
    )


def threshold_fdr(found: Inference, level: float = 0.05) -> float:
    """Smallest |z| among features below this false discovery rate; infinite if there is
    none."""
    below = found.q <= level
    return float(np.abs(found.z[below]).min()) if below.any() else float("inf")


def peaks(
    z: np.ndarray,
    affine: np.ndarray,
    *,
    threshold: float = norm.isf(0.01),
    voxels: int = 10,
    atlas: str = "dosenbach160",
) -> pd.DataFrame:
    """Clusters of a z-map (x, y, z) in MNI space beyond ±threshold with more than so
    many voxels, and their peaks.

    Columns: cluster, x, y, z (mm), peak (z), size_mm3, region and distance_mm: the
    nearest region of the atlas (one of nilearn's coordinate atlases, or pain52).
    nilearn's `get_clusters_table` does the work.
    """
    import nibabel as nib
    from nilearn.reporting import get_clusters_table

    image = nib.Nifti1Image(np.nan_to_num(z).astype(np.float32), affine)
    columns = ["cluster", "x", "y", "z", "peak", "size_mm3", "region", "distance_mm"]
    if not np.isfinite(threshold) or not (np.abs(np.nan_to_num(z)) > threshold).any():
        return pd.DataFrame(columns=columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one of the two signs has no cluster
        table = get_clusters_table(
            image, threshold, cluster_threshold=voxels, two_sided=True
        )
    if not len(table):
        return pd.DataFrame(columns=columns)
    table.columns = columns[:6]
    places = named_atlas(atlas)
    apart = np.linalg.norm(
        table[["x", "y", "z"]].to_numpy(float)[:, None]
        - np.asarray(places.centres)[None],
        axis=-1,
    )
    nearest = apart.argmin(1)
    table["region"] = [places.regions[i] for i in nearest]
    table["distance_mm"] = apart.min(1).round(1)
    return table.sort_values("peak", key=np.abs, ascending=False).reset_index(drop=True)
