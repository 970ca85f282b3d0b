"""Inner products between scans, refitted to the training scans of every fold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cingulum.prediction.confounds import ComBat
from cingulum.prediction.svm.products import inner_products

ScanKernel = Callable[[np.ndarray, int], np.ndarray]
"""From the training scans (scan,), as booleans, and the number of the fold that is left
out to inner products (scan, scan)."""

MINIMUM_OF_SITE = 2
"""Training scans below which a site's spread cannot be estimated."""


def column_kernel(columns: Callable[[int], np.ndarray]) -> ScanKernel:
    """Inner products of columns (scan, column) that may differ from fold to fold,
    standardised on the training scans."""

    def kernel(train: np.ndarray, fold: int) -> np.ndarray:
        # Responses to modalities have units of their own.
        x = _standardised(columns(fold), train)
        return x @ x.T / x.shape[1]

    return kernel


def feature_kernel(
    rows: dict[str, np.ndarray],
    scale: tuple[str, ...] = (),
    confounds: np.ndarray | None = None,
    sites: np.ndarray | None = None,
) -> ScanKernel:
    """Sum of the inner products of all modalities (scan, feature), each scaled to mean
    training diagonal 1.

    scale: modalities whose features are standardised
    confounds (scan, confound): regressed out of the features
    sites (scan,): site differences in mean and variance are removed (`ComBat`); a site
        without training scans is treated as an average one

    Everything is fitted to the training scans of the fold.
    """
    if sites is not None:
        member = np.unique(sites, return_inverse=True)[1].astype(float)
        return _FeatureKernel(rows, scale, confounds, member, {})
    # Removing confounds is linear in the scans, so that products of features that are
    # neither scaled nor harmonised need one pass over the features, not one per fold.
    unscaled = [name for name in rows if name not in scale]
    shared = {name: inner_products(rows[name]) for name in unscaled}
    return _FeatureKernel(rows, scale, confounds, None, shared)


@dataclass(frozen=True, eq=False)
class _FeatureKernel:
    """The kernel of `feature_kernel`. site (scan,): numbers of sites; shared: inner
    products (scan, scan) of the modalities that all folds share."""

    rows: dict[str, np.ndarray]
    scale: tuple[str, ...]
    confounds: np.ndarray | None
    site: np.ndarray | None
    shared: dict[str, np.ndarray]

    def __call__(self, train: np.ndarray, fold: int) -> np.ndarray:
        residual = _residual_maker(self.confounds, train)
        total = np.zeros_like(residual)
        for name in self.rows:
            products = self._modality(name, residual, train)
            size = mean_diagonal(products, train)
            # A modality that does not vary among training scans adds nothing.
            if size > 0:
                total += products / size
        return total

    def _modality(
        self, name: str, residual: np.ndarray, train: np.ndarray
    ) -> np.ndarray:
        if name in self.shared:
            return residual @ self.shared[name] @ residual.T
        x = residual @ self._without_sites(self.rows[name], train)
        # Last, so that features have variance 1 after all else was removed.
        if name in self.scale:
            x = _standardised(x, train)
        return x @ x.T

    def _without_sites(self, x: np.ndarray, train: np.ndarray) -> np.ndarray:
        if self.site is None:
            return x
        return _harmonised(x, self.site, train)


def mean_diagonal(kernel: np.ndarray, train: np.ndarray) -> float:
    """Mean of the diagonal over training scans."""
    return float(np.trace(kernel[np.ix_(train, train)]) / train.sum())


def _residual_maker(confounds: np.ndarray | None, train: np.ndarray) -> np.ndarray:
    """Matrix (scan, scan) that takes the training scans' regression on confounds, with
    an intercept, out of features."""
    n = len(train)
    design = _design(confounds, n)
    # The pseudo-inverse lets confounds repeat each other.
    slope = np.zeros((design.shape[1], n))
    slope[:, train] = np.linalg.pinv(design[train], rcond=1e-8)
    return np.eye(n) - design @ slope


def _design(confounds: np.ndarray | None, scans: int) -> np.ndarray:
    """Columns of the regression: the intercept, and confounds where there are any."""
    intercept = np.ones((scans, 1))
    if confounds is None:
        return intercept
    return np.column_stack([intercept, confounds])


def _standardised(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    centred = x - x[train].mean(0)
    size = centred[train].std(0)
    # A constant column has a spread of rounding errors; it becomes 0, not noise.
    varies = size > 1e-12 * np.abs(centred).max(initial=1e-300)
    return np.divide(centred, size, out=np.zeros_like(centred), where=varies)


def _harmonised(x: np.ndarray, site: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Features without site effects; x as it is where no site has enough training
    scans."""
    known = train & _is_of_large_site(site, train)
    if not known.any():
        return x
    with_site = np.column_stack([site, x])
    combat = ComBat(site=0, unseen="unadjusted").fit(with_site[known])
    return combat.transform(with_site)


def _is_of_large_site(site: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(scan,): whether a scan's site has enough training scans; a site that is too
    small is treated as an unseen one."""
    member = site.astype(int)
    count = np.bincount(member[train], minlength=int(site.max()) + 1)
    return count[member] >= MINIMUM_OF_SITE
