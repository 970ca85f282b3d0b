"""What a fit tries to make small. An objective is a function of two views, the model's
and the recording's.

`fit(objective={fc_mismatch: 1.0, Rate(3.0): 0.1})` weighs several, and each is reported
by its name. An objective with `per_edge = False` is a log-likelihood already; others
are multiplied by the number of edges, the scale on which they stand against the priors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.errors import InputError
from cingulum.inference.views import Analytic, Recorded, View
from cingulum.measures import (
    edges,
    fcd,
    ks_distance,
    lag_one,
    metastability,
    similarity,
)

Objective = Callable[[View, View], Tensor]
Loss = Float[Tensor, "*batch"]


def fc_mismatch(model: View, recorded: View) -> Loss:
    """−log(½ + ½ r) for the correlation r of two connectivity matrices (Griffiths et
    al. 2022, FC term).

    Zero for r = 1. Blind to the level and spread of connectivity, which are therefore
    reported beside a fit.
    """
    return -torch.log(0.5 + 0.5 * similarity(model.fc, recorded.fc))


def fc_error(model: View, recorded: View) -> Loss:
    """Mean squared error over the pairs of regions, relative to the spread of the
    recorded connectivity.

    Zero for a perfect model, 1 for a model that knows the recorded mean only. Sees the
    level, which tells the coupling strength, where `fc_mismatch` does not; but what
    measurement noise takes from the recorded level, it takes for weak coupling, unless
    the sensor's noise is part of the model.
    """
    return (edges(model.fc) - edges(recorded.fc)).square().mean(-1) / edges(
        recorded.fc
    ).var(-1)


def fc_level(model: View, recorded: View) -> Loss:
    """Squared difference of the mean connectivity, relative to the spread of the
    recorded one."""
    return (edges(model.fc).mean(-1) - edges(recorded.fc).mean(-1)).square() / edges(
        recorded.fc
    ).var(-1)


def fc_geodesic(model: View, recorded: View) -> Loss:
    """Mean squared log-eigenvalue of FC_model⁻¹ FC_recorded: the affine-invariant
    distance of the two matrices (Venkatesh et al. 2020,
    doi:10.1016/j.neuroimage.2019.116398), both shrunk by a hundredth towards
    independence."""
    n = model.fc.shape[-1]
    eye = torch.eye(n, dtype=model.fc.dtype, device=model.fc.device)
    a, b = (0.99 * m.fc + 0.01 * eye for m in (model, recorded))
    root = torch.linalg.cholesky(a)
    inner = torch.linalg.solve_triangular(root, b, upper=False)
    both = torch.linalg.solve_triangular(root, inner.mT, upper=False)
    return (
        torch.linalg.eigvalsh((both + both.mT) / 2)
        .clamp_min(1e-10)
        .log()
        .square()
        .mean(-1)
    )


def lag_mismatch(model: View, recorded: View) -> Loss:
    """Squared difference of the regions' lag-one autocorrelation: whether the model is
    as rough as the data (as
    recorded: neither is cleaned)."""
    lags = [_lag(view) for view in (model, recorded)]
    return (lags[0] - lags[1]).square().mean(-1)


def _lag(view: View) -> Tensor:
    if isinstance(view, Analytic):
        f = torch.linspace(0.002, 0.5 / view.brain.sensor.tr, 60, dtype=view.x.dtype)
        power = view.psd(f)
        wave = torch.cos(2 * torch.pi * f * view.brain.sensor.tr)
        return (power * wave).sum(-1) / power.sum(-1)
    lag = lag_one(view.uncleaned.data)
    return lag if isinstance(view, Recorded) else lag.mean(0)


@dataclass(frozen=True)
class Spectrum:
    """Mean squared difference of the log power of every region at `bins` frequencies of
    a band (Hz).

    Signals are taken as recorded, without the fit's `Cleaning`. The level is taken out
    (a sensor's scale is arbitrary) unless `level` is true.
    """

    band: tuple[float, float] = (0.01, 0.25)
    bins: int = 16
    level: bool = False

    def __call__(self, model: View, recorded: View) -> Loss:
        f = torch.linspace(*self.band, self.bins, dtype=torch.float64)
        a, b = (view.psd(f).clamp_min(1e-300).log() for view in (model, recorded))
        gap = a - b
        gap = gap if self.level else gap - gap.mean((-2, -1), keepdim=True)
        return gap.square().mean((-2, -1))


@dataclass(frozen=True)
class Likelihood:
    """Whittle's likelihood of the recording under the model's cross-spectrum: minus its
    logarithm.

    Asymptotically the exact likelihood of a stationary Gaussian process (Whittle 1953;
    multivariate: Dunsmuir 1979, doi:10.1214/aos/1176344671), so estimates are efficient
        and the curvature at the optimum gives honest intervals.
    It sees all that is linear: level, connectivity, spectrum, measurement noise.
    Frequencies are averaged in the bins of the fit's `Cleaning`, whose band limits
    them; its treatment of the global signal does not enter.
    """

    per_edge: ClassVar[bool] = False

    def __call__(self, model: View, recorded: View) -> Loss:
        if not isinstance(model, Analytic) or not isinstance(recorded, Recorded):
            raise InputError(
                "The likelihood needs method='analytic' and a recording given as a "
                "TimeSeries."
            )
        f, count, power = recorded.cross_periodogram
        spectrum = model.cross_spectrum(f)
        root = torch.linalg.cholesky((spectrum + spectrum.mH) / 2)
        fitted = torch.cholesky_solve(
            power.to(root.dtype).expand(*root.shape[:-2], *power.shape[-2:]), root
        )
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        misfit = fitted.diagonal(dim1=-2, dim2=-1).real.sum(-1)
        return (count * (log_det + misfit)).sum(-1)


@dataclass(frozen=True)
class Rate:
    """Squared distance of every region's excitatory rate from a working point, relative
    to it."""

    target: float = 3.0

    def __call__(self, model: View, recorded: View) -> Loss:
        return ((model.rate - self.target) / self.target).square().mean(-1)


@dataclass(frozen=True)
class FcdMismatch:
    """Distance of the distributions of connectivity dynamics (FCD): mean gap between
    their quantiles.

    A differentiable stand-in (Wasserstein-1) for the Kolmogorov-Smirnov distance, which
    `exact` gives. window, step: s. Needs simulations and a TimeSeries.
    """

    window: float = 60.0
    step: float = 3.6

    def __call__(self, model: View, recorded: View) -> Loss:
        q = torch.linspace(0.02, 0.98, 49, dtype=model.series.data.dtype)
        runs = [
            torch.quantile(self.values(view), q, dim=-1) for view in (model, recorded)
        ]
        return (runs[0].mean(1) - runs[1]).abs().mean(0)

    def values(self, view: View) -> Float[Tensor, "*batch pair"]:
        series = view.series
        window, step = (max(1, round(t / series.tr)) for t in (self.window, self.step))
        if series.data.shape[-1] < 2 * window:
            raise InputError(
                f"Connectivity dynamics need at least two windows of {self.window} s; "
                "the series lasts "
                f"{series.duration:.0f} s."
            )
        return edges(fcd(series.data, window, step))

    def exact(self, model: View, recorded: View) -> float:
        """Kolmogorov-Smirnov distance, all windows pooled."""
        return ks_distance(self.values(model).detach(), self.values(recorded).detach())


def time_course(model: View, recorded: View) -> Loss:
    """Mean squared error of the signals, relative to the recording's variance: for
    evoked responses."""
    a, b = model.series.data.mean(0), recorded.series.data
    return (a - b).square().mean((-2, -1)) / b.var((-2, -1))


@dataclass(frozen=True)
class Metastability:
    """Squared difference of metastability in a narrow band (Hz); needs simulations and
    a TimeSeries."""

    band: tuple[float, float] = (0.04, 0.07)

    def __call__(self, model: View, recorded: View) -> Loss:
        a, b = model.series, recorded.series
        gap = metastability(a.data, a.tr, self.band).mean(0) - metastability(
            b.data, b.tr, self.band
        )
        return (gap / 0.1).square()


def name_of(objective: Objective) -> str:
    """How an objective is called in tables: fc_mismatch, Rate, …"""
    return getattr(objective, "__name__", type(objective).__name__)
