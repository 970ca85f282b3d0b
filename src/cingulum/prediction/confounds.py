"""Confounds and sites taken out by estimators that are fitted on training data only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data


class Deconfounder(TransformerMixin, BaseEstimator):
    """Regress confounds out of features; put it first in a `Pipeline`, so that every
    fold fits it anew.

    Parameters: confounds, columns of X (positions) that are confounds; they are
    regressed out of the others, with an intercept, and left out of the result. Features
    come back with their training mean.
    """

    def __init__(self, confounds: Sequence[int] = ()) -> None:
        self.confounds = confounds

    def fit(self, X: np.ndarray, y: object = None) -> Deconfounder:
        X = validate_data(self, X, dtype=np.float64)
        self.kept_ = _others(self.confounds, X.shape[1])
        confounds = X[:, list(self.confounds)]
        self.centre_ = confounds.mean(0)
        self.slope_ = np.linalg.pinv(confounds - self.centre_, rcond=1e-8) @ (
            X[:, self.kept_] - X[:, self.kept_].mean(0)
        )
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return (
            X[:, self.kept_] - (X[:, list(self.confounds)] - self.centre_) @ self.slope_
        )


class ComBat(TransformerMixin, BaseEstimator):
    """Take location and scale of sites out of features, with empirical Bayes (Johnson
    et al. 2007, doi:10.1093/biostatistics/kxj037; Fortin et al. 2018,
    doi:10.1016/j.neuroimage.2017.11.024).

    Parameters: site, column of X (position) with a number a site (None: one site,
    nothing is done); covariates, columns whose effect is kept (age, sex), never the
    outcome: `fit` refuses a covariate that is, or repeats, y;
    unseen: what becomes of a site that was not in training: `refuse`, an error, or
    `unadjusted`, its features are taken as if from the average site. The columns of
    site and covariates are left out of the result.
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
        if self.unseen not in ("refuse", "unadjusted"):
            raise ValueError(f"unseen is refuse or unadjusted; came {self.unseen!r}.")
        self._refuse_outcome(X, y)
        taken = [*([] if self.site is None else [self.site]), *self.covariates]
        self.kept_ = _others(taken, X.shape[1])
        sites = np.zeros(len(X)) if self.site is None else X[:, self.site]
        self.sites_, member, count = np.unique(
            sites, return_inverse=True, return_counts=True
        )
        if self.site is not None and count.min() < 2:
            raise ValueError(
                "Every site needs at least two training scans; site "
                f"{self.sites_[count.argmin()]:g} has 1."
            )
        covariates, features = X[:, list(self.covariates)], X[:, self.kept_]
        self.centre_ = covariates.mean(0)
        design = np.column_stack(
            [np.eye(len(self.sites_))[member], covariates - self.centre_]
        )
        if np.linalg.matrix_rank(design) < design.shape[1]:
            raise ValueError(
                "Covariates and sites cannot be told apart: a covariate is constant "
                "within every site."
            )
        fitted = np.linalg.lstsq(design, features, rcond=None)[0]
        self.mean_ = count @ fitted[: len(count)] / len(X)
        self.slope_ = fitted[len(count) :]
        self.scale_ = np.sqrt(np.square(features - design @ fitted).mean(0))
        self.scale_[self.scale_ <= 1e-12 * np.abs(features).max(0)] = 0.0
        self.shift_, self.spread_ = self._bayes(self._standard(X), member)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        if len(self.sites_) == 1 and self.site is None:
            return X[:, self.kept_].copy()
        z, sites = self._standard(X), X[:, self.site]
        new = ~np.isin(sites, self.sites_)
        if new.any() and self.unseen == "refuse":
            raise ValueError(
                f"Site {sites[new][0]:g} was not in training, so its effect is not "
                "known. Leave it out, or say "
                "unseen='unadjusted' to take it as an average site."
            )
        for k, site in enumerate(self.sites_):
            rows = sites == site
            z[rows] = (z[rows] - self.shift_[k]) / self.spread_[k]
        return z * self.scale_ + self._expected(X)

    def _expected(self, X: np.ndarray) -> np.ndarray:
        return self.mean_ + (X[:, list(self.covariates)] - self.centre_) @ self.slope_

    def _standard(self, X: np.ndarray) -> np.ndarray:
        left = X[:, self.kept_] - self._expected(X)
        return np.divide(
            left, self.scale_, out=np.zeros_like(left), where=self.scale_ > 0
        )

    def _bayes(
        self, z: np.ndarray, member: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shifts and spreads (site, feature), shrunk towards the site's mean over
        features."""
        shifts, spreads = [], []
        for k in range(len(self.sites_)):
            own = z[member == k]
            n, shift, variance = len(own), own.mean(0), own.var(0, ddof=1).clip(1e-12)
            if z.shape[1] < 3 or np.ptp(shift) == 0:
                shifts.append(shift)
                spreads.append(np.sqrt(variance))
                continue
            prior, prior_variance = shift.mean(), shift.var(ddof=1)
            v, v2 = variance.mean(), max(variance.var(ddof=1), 1e-12)
            a, b = 2 + v**2 / v2, v + v**3 / v2
            g, d = shift, variance
            for _ in range(200):
                g_new = (n * prior_variance * shift + d * prior) / (
                    n * prior_variance + d
                )
                d_new = (b + 0.5 * np.square(own - g_new).sum(0)) / (n / 2 + a - 1)
                settled = max(np.abs(g_new - g).max(), np.abs(d_new - d).max()) < 1e-8
                g, d = g_new, d_new
                if settled:
                    break
            shifts.append(g)
            spreads.append(np.sqrt(d))
        return np.array(shifts), np.array(spreads)

    def _refuse_outcome(self, X: np.ndarray, y: np.ndarray | None) -> None:
        if y is None or not len(self.covariates):
            return
        given = np.asarray(y)
        outcome = (
            given
            if given.dtype.kind in "fiu"
            else np.unique(given, return_inverse=True)[1]
        )
        for column in self.covariates:
            covariate = X[:, column]
            varied = np.ptp(outcome) > 0 and np.ptp(covariate) > 0
            if varied and abs(np.corrcoef(covariate, outcome)[0, 1]) > 0.999:
                raise ValueError(
                    f"Covariate column {column} is the outcome. Keeping the outcome's "
                    "effect while sites are adjusted "
                    "puts the answer into the features: leave it out."
                )


def _others(taken: Sequence[int], columns: int) -> np.ndarray:
    outside = [c for c in taken if not -columns <= c < columns]
    if outside:
        raise ValueError(f"Columns {outside} are not among the {columns} columns of X.")
    kept = np.setdiff1d(np.arange(columns), np.arange(columns)[list(taken)])
    if not len(kept):
        raise ValueError("No feature is left beside confounds, sites and covariates.")
    return kept
