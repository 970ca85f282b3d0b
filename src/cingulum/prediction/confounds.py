"""Confounds and site effects removed by estimators that are fitted to training data
only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

ITERATIONS = 200
"""Limit for empirical Bayes estimates that do not settle."""

SETTLED = 1e-8
"""Largest change of an estimate, in standard deviations, that ends the iteration."""


def with_curves(confounds: np.ndarray | None) -> np.ndarray | None:
    """Confounds (…, confound) and their squares, so that a curve is taken out of the
    features with the straight line; two groups (sex, scanner) have no curve.

    A confound that acts along a curve would otherwise pass for prediction.
    """
    if confounds is None:
        return None
    curves = []
    for number in range(confounds.shape[-1]):
        values = confounds[..., number]
        if len(np.unique(values)) > 2:
            centred = (values - values.mean()) / values.std()
            curves.append(centred**2)
    return np.stack([*np.moveaxis(confounds, -1, 0), *curves], -1)


class Deconfounder(TransformerMixin, BaseEstimator):
    """Regress confounds out of features; put it first in a `Pipeline`, so that it is
    refitted in every fold.

    Parameters: confounds, columns of X (positions) that are confounds; they are
    regressed out of the others, with an intercept, and left out of the result. Features
    keep their training mean.
    """

    def __init__(self, confounds: Sequence[int] = ()) -> None:
        self.confounds = confounds

    def fit(self, X: np.ndarray, y: object = None) -> Deconfounder:
        X = validate_data(self, X, dtype=np.float64)
        self.kept_ = _others(self.confounds, X.shape[1])
        self.centre_ = self._confounds(X).mean(0)
        features = X[:, self.kept_]
        # The pseudo-inverse lets confounds repeat each other.
        inverse = np.linalg.pinv(self._centred(X), rcond=1e-8)
        self.slope_ = inverse @ (features - features.mean(0))
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return X[:, self.kept_] - self._centred(X) @ self.slope_

    def _confounds(self, X: np.ndarray) -> np.ndarray:
        return X[:, list(self.confounds)]

    def _centred(self, X: np.ndarray) -> np.ndarray:
        """Confounds about their training mean, so that features keep theirs."""
        return self._confounds(X) - self.centre_


class ComBat(TransformerMixin, BaseEstimator):
    """Remove site differences in mean and variance from features, with empirical Bayes
    (Johnson et al. 2007, doi:10.1093/biostatistics/kxj037; Fortin et al. 2018,
    doi:10.1016/j.neuroimage.2017.11.024).

    Parameters:
    site: column of X (position) with one number per site; None: one site, nothing is
        done
    covariates: columns whose effect is kept (age, sex), never the outcome: `fit`
        refuses a covariate that is, or repeats, y
    unseen: how to treat a site that was not in training: `refuse` raises ValueError,
        `unadjusted` takes its features as if they came from the average site

    The columns of site and covariates are left out of the result.
    """

    def __init__(
        self,
        site: int | None = None,
        covariates: Sequence[int] = (),
        unseen: Literal["refuse", "unadjusted"] = "refuse",
    ) -> None:
        self.site = site
        self.covariates = covariates
        self.unseen = unseen

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> ComBat:
        X = validate_data(self, X, dtype=np.float64)
        _check_unseen(self.unseen)
        _refuse_outcome(X, self.covariates, y)
        self.kept_ = _others(self._set_aside(), X.shape[1])
        self.sites_, member = np.unique(self._sites(X), return_inverse=True)
        self._refuse_single_scans(member)
        self._fit_pooled(X, member)
        self._fit_sites(self._standardised(X), member)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        if self.site is None:
            return X[:, self.kept_]
        return self._harmonised(X)

    def _harmonised(self, X: np.ndarray) -> np.ndarray:
        sites = self._sites(X)
        self._refuse_unseen(sites)
        z = self._without_sites(self._standardised(X), sites)
        return z * self.scale_ + self._expected(X)

    def _without_sites(self, z: np.ndarray, sites: np.ndarray) -> np.ndarray:
        """Standardised features (scan, feature) without site effects; those of unseen
        sites stay as they are, which is the average site."""
        adjusted = z.copy()
        for k, site in enumerate(self.sites_):
            rows = sites == site
            adjusted[rows] = (z[rows] - self.shift_[k]) / self.spread_[k]
        return adjusted

    def _set_aside(self) -> list[int]:
        """Columns that are not features."""
        if self.site is None:
            return list(self.covariates)
        return [self.site, *self.covariates]

    def _sites(self, X: np.ndarray) -> np.ndarray:
        return np.zeros(len(X)) if self.site is None else X[:, self.site]

    def _covariates(self, X: np.ndarray) -> np.ndarray:
        return X[:, list(self.covariates)]

    def _fit_pooled(self, X: np.ndarray, member: np.ndarray) -> None:
        """Mean, effects of the covariates and standard deviation over all sites; member
        (scan,): number of the site."""
        features = X[:, self.kept_]
        self.centre_ = self._covariates(X).mean(0)
        design = self._design(X, member)
        fitted = np.linalg.lstsq(design, features, rcond=None)[0]
        count = np.bincount(member)
        # The average site: sites weighted by their number of scans, as in the paper.
        self.mean_ = count @ fitted[: len(count)] / len(X)
        self.slope_ = fitted[len(count) :]
        self.scale_ = _scale(features - design @ fitted, features)

    def _design(self, X: np.ndarray, member: np.ndarray) -> np.ndarray:
        """Columns of sites and covariates."""
        of_site = np.eye(len(self.sites_))[member]
        design = np.column_stack([of_site, self._covariates(X) - self.centre_])
        _check_separable(design)
        return design

    def _fit_sites(self, z: np.ndarray, member: np.ndarray) -> None:
        """Shift and spread (site, feature) of standardised features."""
        effects = [_site_effect(z[member == k]) for k in range(len(self.sites_))]
        self.shift_ = np.array([effect.shift for effect in effects])
        self.spread_ = np.sqrt([effect.variance for effect in effects])

    def _expected(self, X: np.ndarray) -> np.ndarray:
        """Features of the average site, given the covariates."""
        return self.mean_ + (self._covariates(X) - self.centre_) @ self.slope_

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        residual = X[:, self.kept_] - self._expected(X)
        zeros = np.zeros_like(residual)
        return np.divide(residual, self.scale_, out=zeros, where=self.scale_ > 0)

    def _refuse_single_scans(self, member: np.ndarray) -> None:
        if self.site is None:
            return
        # One scan has no variance.
        count = np.bincount(member)
        if count.min() < 2:
            raise _single_scan_error(self.sites_[count.argmin()])

    def _refuse_unseen(self, sites: np.ndarray) -> None:
        new = sites[~np.isin(sites, self.sites_)]
        if len(new) and self.unseen == "refuse":
            raise _unseen_error(new[0])


def _single_scan_error(site: float) -> ValueError:
    return ValueError(
        f"Every site needs at least two training scans; site {site:g} has 1."
    )


def _unseen_error(site: float) -> ValueError:
    return ValueError(
        f"Site {site:g} was not in training, so its effect is not known. Leave it out, "
        "or say unseen='unadjusted' to treat it as an average site."
    )


def _check_separable(design: np.ndarray) -> None:
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError(
            "Covariates and sites cannot be separated: a covariate is constant within "
            "every site."
        )


def _check_unseen(unseen: str) -> None:
    if unseen not in ("refuse", "unadjusted"):
        raise ValueError(f"unseen is refuse or unadjusted; got {unseen!r}.")


@dataclass(frozen=True, eq=False)
class _SiteEffect:
    """Shift and variance (feature,) of a site, in standardised features."""

    shift: np.ndarray
    variance: np.ndarray


@dataclass(frozen=True)
class _Prior:
    """Over the features of a site: normal for shifts, inverse gamma for variances, as
    in Johnson et al. 2007."""

    shift_mean: float
    shift_variance: float
    shape: float
    rate: float

    @staticmethod
    def of(effect: _SiteEffect) -> _Prior:
        """By the moments of the estimates over features."""
        shift = effect.shift
        mean = effect.variance.mean()
        # Variances that are all the same would make the prior infinitely sure.
        variance = max(effect.variance.var(ddof=1), 1e-12)
        return _Prior(
            shift_mean=shift.mean(),
            shift_variance=shift.var(ddof=1),
            shape=2 + mean**2 / variance,
            rate=mean + mean**3 / variance,
        )

    def updated(
        self, z: np.ndarray, raw: _SiteEffect, effect: _SiteEffect
    ) -> _SiteEffect:
        """Posterior means given the other of the two estimates; z (scan, feature)."""
        shift = self._shift(len(z), raw.shift, effect.variance)
        return _SiteEffect(shift, self._variance(z - shift))

    def _variance(self, residual: np.ndarray) -> np.ndarray:
        """Mean of the inverse gamma posterior; residual (scan, feature)."""
        squares = np.square(residual).sum(0)
        return (self.rate + 0.5 * squares) / (len(residual) / 2 + self.shape - 1)

    def _shift(self, n: int, raw: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Mean of n scans' raw shift and the prior's, weighted by their precision."""
        weighted = n * self.shift_variance * raw + variance * self.shift_mean
        return weighted / (n * self.shift_variance + variance)


def _site_effect(z: np.ndarray) -> _SiteEffect:
    """Shift and variance of a site's standardised features (scan, feature), shrunk
    towards their mean over features."""
    # A feature that is constant in this site only would be divided by 0.
    raw = _SiteEffect(z.mean(0), z.var(0, ddof=1).clip(1e-12))
    # A prior over features needs at least three that differ.
    if z.shape[1] < 3 or np.ptp(raw.shift) == 0:
        return raw
    return _shrunk(z, raw)


def _shrunk(z: np.ndarray, raw: _SiteEffect) -> _SiteEffect:
    """Empirical Bayes estimates: shift and variance in turn until they settle."""
    prior = _Prior.of(raw)
    effect = raw
    for _ in range(ITERATIONS):
        previous = effect
        effect = prior.updated(z, raw, previous)
        if _largest_change(effect, previous) < SETTLED:
            break
    return effect


def _scale(residual: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Standard deviation (feature,) of the residual, 0 for constant features."""
    scale = np.sqrt(np.square(residual).mean(0))
    # A constant feature has a spread of rounding errors, which must not be scaled up.
    scale[scale <= 1e-12 * np.abs(features).max(0)] = 0.0
    return scale


def _largest_change(a: _SiteEffect, b: _SiteEffect) -> float:
    shift = np.abs(a.shift - b.shift).max()
    variance = np.abs(a.variance - b.variance).max()
    return float(max(shift, variance))


def _refuse_outcome(
    X: np.ndarray, covariates: Sequence[int], y: np.ndarray | None
) -> None:
    """Raises ValueError where a covariate is the outcome in the same or other units."""
    if y is None or not len(covariates):
        return
    outcome = _as_numbers(y)
    for column in covariates:
        if _same_up_to_scale(X[:, column], outcome):
            raise _outcome_error(column)


def _outcome_error(column: int) -> ValueError:
    return ValueError(
        f"Covariate column {column} is the outcome. Keeping the outcome's effect while "
        "sites are adjusted puts the answer into the features: leave it out."
    )


def _as_numbers(y: np.ndarray) -> np.ndarray:
    outcome = np.asarray(y)
    if outcome.dtype.kind in "fiu":
        return outcome
    # Labels of two groups are numbered, so that they can be compared, too.
    return np.unique(outcome, return_inverse=True)[1]


def _same_up_to_scale(a: np.ndarray, b: np.ndarray) -> bool:
    # A constant has no correlation.
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return False
    # Below 1, so that a rounded copy of the outcome is recognised as well.
    return bool(abs(np.corrcoef(a, b)[0, 1]) > 0.999)


def _others(aside: Sequence[int], columns: int) -> np.ndarray:
    """Positions of the columns that are not set aside."""
    _check_positions(aside, columns)
    positions = np.arange(columns)
    kept = np.setdiff1d(positions, positions[list(aside)])
    if not len(kept):
        raise ValueError("No feature is left beside confounds, sites and covariates.")
    return kept


def _check_positions(aside: Sequence[int], columns: int) -> None:
    # Negative ones count from the end, as everywhere in Python.
    outside = [c for c in aside if not -columns <= c < columns]
    if outside:
        raise ValueError(f"Columns {outside} are not among the {columns} columns of X.")
