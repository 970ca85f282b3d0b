"""What a fit minimises. An objective is a function of two views, the model's and the
recording's.

`fit(objective={fc_mismatch: 1.0, Rate(3.0): 0.1})` weighs several, and each is reported
by its name. An objective with `per_edge = False` is minus a log-likelihood; others are
multiplied by the number of pairs of regions (or of numbers that they compare, where
those are more), which puts them on the scale of the priors.

A new objective is a function or frozen dataclass here and an export line in
`cingulum.inference`; tests/contracts/test_objectives.py then tests it.
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
from cingulum.measures import edges, fcd, ks_distance, metastability, similarity
from cingulum.timeseries import TimeSeries

Objective = Callable[[View, View], Tensor]
Loss = Float[Tensor, "*batch"]


def fc_mismatch(model: View, recorded: View) -> Loss:
    """−log(½ + ½ r) for the correlation r of two connectivity matrices (Griffiths et
    al. 2022, FC term).

    Zero for r = 1. Blind to the level and spread of connectivity, which are therefore
    reported with a fit.
    """
    return -torch.log(0.5 + 0.5 * similarity(model.fc, recorded.fc))


def fc_error(model: View, recorded: View) -> Loss:
    """Mean squared error over the pairs of regions, relative to the variance of the
    recorded connectivity.

    Zero for a perfect model, 1 for a model that knows the recorded mean only. Sees the
    level, which determines the coupling strength, where `fc_mismatch` does not; but
    where measurement noise lowers the recorded level, it mistakes that for weak
    coupling, unless the sensor's noise is part of the model.
    """
    target = _pairs(recorded)
    error = _pairs(model) - target
    return error.square().mean(-1) / target.var(-1)


def fc_level(model: View, recorded: View) -> Loss:
    """Squared difference of the mean connectivity, relative to the variance of the
    recorded one."""
    target = _pairs(recorded)
    difference = _pairs(model).mean(-1) - target.mean(-1)
    return difference.square() / target.var(-1)


def _pairs(view: View) -> Float[Tensor, "*batch pair"]:
    """Connectivity of every pair of regions once."""
    return edges(view.fc)


def fc_geodesic(model: View, recorded: View) -> Loss:
    """Mean squared log-eigenvalue of FC_model⁻¹ FC_recorded: the affine-invariant
    distance of the two matrices (Venkatesh et al. 2020,
    doi:10.1016/j.neuroimage.2019.116398), both shrunk by 1 % towards independence."""
    modelled = _shrunk(model.fc)
    target = _shrunk(recorded.fc)
    # Whitened by the model's Cholesky root: symmetric, with the same eigenvalues.
    root = torch.linalg.cholesky(modelled)
    left = torch.linalg.solve_triangular(root, target, upper=False)
    whitened = torch.linalg.solve_triangular(root, left.mT, upper=False)
    # A recording shorter than its regions are many has eigenvalues near zero.
    eigenvalues = torch.linalg.eigvalsh(_hermitian(whitened)).clamp_min(1e-10)
    return eigenvalues.log().square().mean(-1)


def _hermitian(matrix: Tensor) -> Tensor:
    """Without the asymmetry of rounding, which factorisations do not forgive."""
    return (matrix + matrix.mH) / 2


def _shrunk(matrix: Tensor) -> Tensor:
    """99 % of a matrix and 1 % of the identity: invertible even for few samples."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return 0.99 * matrix + 0.01 * eye


def lag_mismatch(model: View, recorded: View) -> Loss:
    """Squared difference of the regions' lag-one autocorrelation: whether the model is
    as rough as the data. Neither is cleaned."""
    return (model.lag_one - recorded.lag_one).square().mean(-1)


@dataclass(frozen=True)
class Spectrum:
    """Mean squared difference of the log power of every region at `bins` frequencies of
    a band (Hz).

    Signals are taken as recorded, without the fit's `Cleaning`. The mean over regions
    and frequencies is removed, because a sensor's scale is arbitrary, unless `level` is
    true.
    """

    band: tuple[float, float] = (0.01, 0.25)
    bins: int = 16
    level: bool = False

    def count(self, channels: int) -> int:
        """How many numbers are compared."""
        return channels * self.bins

    def __call__(self, model: View, recorded: View) -> Loss:
        f = torch.linspace(*self.band, self.bins, dtype=torch.float64)
        difference = _log_power(model, f) - _log_power(recorded, f)
        if not self.level:
            difference = difference - difference.mean((-2, -1), keepdim=True)
        return difference.square().mean((-2, -1))


def _log_power(view: View, frequencies: Tensor) -> Tensor:
    # A silent channel has no power; its logarithm must stay finite.
    return view.psd(frequencies).clamp_min(1e-300).log()


@dataclass(frozen=True)
class Likelihood:
    """Minus the logarithm of Whittle's likelihood of the recording under the model's
    cross-spectrum.

    Asymptotically the exact likelihood of a stationary Gaussian process (Whittle 1953;
    multivariate: Dunsmuir 1979, doi:10.1214/aos/1176344671), so estimates are efficient
    and the curvature at the optimum gives honest intervals. It sees all that is linear:
    level, connectivity, spectrum, measurement noise. Frequencies are averaged in the
    bins of the fit's `Cleaning`, whose band limits them; its treatment of the global
    signal does not enter.
    """

    per_edge: ClassVar[bool] = False

    def __call__(self, model: View, recorded: View) -> Loss:
        if not isinstance(model, Analytic) or not isinstance(recorded, Recorded):
            raise InputError(
                "The likelihood needs method='analytic' and a recording given as a "
                "TimeSeries."
            )
        observed = recorded.cross_periodogram
        spectrum = model.cross_spectrum(observed.frequencies)
        root = torch.linalg.cholesky(_hermitian(spectrum))
        log_determinant = 2 * root.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        misfit = _whitened_trace(root, observed.power)
        return (observed.counts * (log_determinant + misfit)).sum(-1)


def _whitened_trace(root: Tensor, power: Tensor) -> Tensor:
    """Trace of S⁻¹ P, for S given by its Cholesky root."""
    power = power.to(root.dtype).expand(*root.shape[:-2], *power.shape[-2:])
    whitened = torch.cholesky_solve(power, root)
    return whitened.diagonal(dim1=-2, dim2=-1).real.sum(-1)


@dataclass(frozen=True)
class Rate:
    """Squared relative distance of every region's excitatory rate from a working point.

    target: Hz
    """

    target: float = 3.0

    def __call__(self, model: View, recorded: View) -> Loss:
        deviation = (model.rate - self.target) / self.target
        return deviation.square().mean(-1)


@dataclass(frozen=True)
class FcdMismatch:
    """Distance of the distributions of connectivity dynamics (FCD): mean difference of
    their quantiles.

    A differentiable stand-in (Wasserstein-1) for the Kolmogorov-Smirnov distance, which
    `exact` gives. window, step: s. Needs simulations and a TimeSeries.
    """

    window: float = 60.0
    step: float = 3.6

    def __call__(self, model: View, recorded: View) -> Loss:
        # Of each run, then their mean: windows of different runs are not compared.
        modelled = _quantiles(self.values(model)).mean(0)
        observed = _quantiles(self.values(recorded))
        return (modelled - observed).abs().mean(-1)

    def values(self, view: View) -> Float[Tensor, "*batch pair"]:
        """Similarity of every pair of windows. Raises InputError for a series shorter
        than two windows."""
        series = view.series
        window = max(1, round(self.window / series.tr))
        step = max(1, round(self.step / series.tr))
        if series.data.shape[-1] < 2 * window:
            raise InputError(
                f"Connectivity dynamics need at least two windows of {self.window} s; "
                f"the series lasts {series.duration:.0f} s. Take a shorter window."
            )
        return edges(fcd(series.data, window, step))

    def exact(self, model: View, recorded: View) -> float:
        """Kolmogorov-Smirnov distance, all windows pooled."""
        return ks_distance(self.values(model).detach(), self.values(recorded).detach())


def _quantiles(
    values: Float[Tensor, "*batch pair"],
) -> Float[Tensor, "*batch quantile"]:
    # Inside the extremes, which depend on the number of windows.
    shares = torch.linspace(0.02, 0.98, 49, dtype=values.dtype)
    # Last, so that several starts or candidates broadcast against one recording.
    return torch.quantile(values, shares, dim=-1).movedim(0, -1)


def time_course(model: View, recorded: View) -> Loss:
    """Mean squared error of the signals, relative to the recording's variance: for
    evoked responses."""
    # Over runs, whose noise differs while the response is the same.
    modelled = model.series.data.mean(0)
    observed = recorded.series.data
    error = (modelled - observed).square().mean((-2, -1))
    return error / observed.var((-2, -1))


@dataclass(frozen=True)
class Metastability:
    """Squared difference of metastability in a narrow band (Hz), in tenths; needs
    simulations and a TimeSeries."""

    band: tuple[float, float] = (0.04, 0.07)

    def __call__(self, model: View, recorded: View) -> Loss:
        difference = self._of(model.series).mean(0) - self._of(recorded.series)
        return (difference / 0.1).square()

    def _of(self, series: TimeSeries) -> Tensor:
        return metastability(series.data, series.tr, self.band)


def name_of(objective: Objective) -> str:
    """The name of an objective in tables: fc_mismatch, Rate, …"""
    return getattr(objective, "__name__", type(objective).__name__)


def scale_of(objective: Objective, channels: int) -> float:
    """What an objective is multiplied by: a mean over pairs of channels times their
    number is a sum, as a likelihood is. An objective that compares more numbers than
    there are pairs, as in a recording of few channels, says how many (`count`)."""
    if is_likelihood(objective):
        return 1.0
    pairs = channels * (channels - 1) / 2
    count = getattr(objective, "count", None)
    compared = channels if count is None else count(channels)
    return float(max(pairs, compared))


def sees_scale(objective: Objective) -> bool:
    """Whether an objective compares amplitudes, so that recording and model must be in
    one unit."""
    if isinstance(objective, Spectrum):
        return objective.level
    is_ours = isinstance(objective, Likelihood) or objective is time_course
    return is_ours or bool(getattr(objective, "sees_scale", False))


def is_likelihood(objective: Objective) -> bool:
    """Whether an objective is minus a log-likelihood, which needs no scale."""
    return not getattr(objective, "per_edge", True)
