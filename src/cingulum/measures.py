"""What is computed from signals: pure, batched, differentiable; used for recordings and
simulations alike."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cingulum.timeseries import TimeSeries


def centred(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """Deviations from the mean over the last axis."""
    return x - x.mean(-1, keepdim=True)


def fc(
    x: Float[Tensor, "*batch region time"] | TimeSeries,
) -> Float[Tensor, "*batch region region"]:
    """Functional connectivity: Pearson correlation between every pair of regions."""
    if isinstance(x, TimeSeries):
        x = x.data
    deviations = centred(x)
    unit = deviations / deviations.norm(dim=-1, keepdim=True)
    return unit @ unit.mT


def correlation(
    covariance: Float[Tensor, "*batch region region"],
) -> Float[Tensor, "*batch region region"]:
    """The correlation matrix that belongs to a covariance matrix."""
    scale = covariance.diagonal(dim1=-2, dim2=-1).rsqrt()
    return covariance * scale.unsqueeze(-1) * scale.unsqueeze(-2)


def edges(
    matrix: Float[Tensor, "*batch region region"],
) -> Float[Tensor, "*batch edge"]:
    """The entries below the diagonal, one for each pair of regions."""
    n = matrix.shape[-1]
    row, column = torch.tril_indices(n, n, offset=-1, device=matrix.device)
    return matrix[..., row, column]


def pearson(
    a: Float[Tensor, "*#batch n"], b: Float[Tensor, "*#batch n"]
) -> Float[Tensor, "*batch"]:
    """Pearson correlation along the last axis."""
    a = centred(a)
    b = centred(b)
    return _inner_product(a, b) / (a.norm(dim=-1) * b.norm(dim=-1))


def _inner_product(
    a: Float[Tensor, "*#batch n"], b: Float[Tensor, "*#batch n"]
) -> Float[Tensor, "*batch"]:
    """Sum of products over the last axis."""
    return (a * b).sum(-1)


def similarity(
    a: Float[Tensor, "*#batch region region"], b: Float[Tensor, "*#batch region region"]
) -> Float[Tensor, "*batch"]:
    """How alike two connectivity matrices are: Pearson correlation of their edges."""
    return pearson(edges(a), edges(b))


def covariance(
    x: Float[Tensor, "*batch region time"],
) -> Float[Tensor, "*batch region region"]:
    """Covariance between every pair of regions over the whole recording."""
    deviations = centred(x)
    return deviations @ deviations.mT / (x.shape[-1] - 1)


def partial(
    covariance: Float[Tensor, "*batch region region"],
) -> Float[Tensor, "*batch region region"]:
    """Correlation of every pair of regions given all others, from an invertible
    covariance: −P_ij / √(P_ii P_jj)."""
    negative = -correlation(torch.linalg.inv(covariance))
    # The sign is right everywhere but on the diagonal, where −1 becomes 1.
    eye = torch.eye(negative.shape[-1], dtype=negative.dtype, device=negative.device)
    return negative + 2 * eye


def lag_one(x: Float[Tensor, "*batch region time"]) -> Float[Tensor, "*batch region"]:
    """Autocorrelation of every region between a sample and the next: how smooth a
    signal is."""
    deviations = centred(x)
    later = deviations[..., 1:]
    earlier = deviations[..., :-1]
    return _inner_product(later, earlier) / deviations.square().sum(-1)


def without_global_signal(
    covariance: Float[Tensor, "*batch region region"],
) -> Float[Tensor, "*batch region region"]:
    """Covariance after regressing the mean over regions out of every region: the exact
    effect, in closed form."""
    with_mean = covariance.mean(-1, keepdim=True)
    return covariance - with_mean @ with_mean.mT / with_mean.mean(-2, keepdim=True)


def band_passed(
    x: Float[Tensor, "*batch region time"], tr: float, band: tuple[float, float]
) -> Float[Tensor, "*batch region time"]:
    """The signal with only the frequencies low ≤ f ≤ high (Hz) left: an exact cut in
    the Fourier domain."""
    low, high = band
    n = x.shape[-1]
    f = torch.fft.rfftfreq(n, tr, device=x.device)
    spectrum = torch.fft.rfft(centred(x)) * ((f >= low) & (f <= high))
    return torch.fft.irfft(spectrum, n=n)


def fcd(
    x: Float[Tensor, "*batch region time"], window: int, step: int
) -> Float[Tensor, "*batch window window"]:
    """Functional connectivity dynamics: how alike connectivity is between every two
    windows.

    window, step: samples. The distribution depends on both as much as on the brain, so
    they are part of any result.
    """
    return fc(windowed_edges(x, window, step))


def fcd_of_edges(
    x: Float[Tensor, "*batch region time"],
    window: int,
    step: int,
    kept: Bool[Tensor, "edge"],
) -> Float[Tensor, "*batch pair"]:
    """Values below the diagonal of `fcd`, with only the edges that `kept` marks (within
    hemispheres, say)."""
    return edges(fc(windowed_edges(x, window, step)[..., kept]))


def windowed_edges(
    x: Float[Tensor, "*batch region time"], window: int, step: int
) -> Tensor:
    """Connectivity of every window, (*batch, window, edge)."""
    return edges(fc(x.unfold(-1, window, step).movedim(-2, -3)))


def ks_distance(a: Float[Tensor, "*m"], b: Float[Tensor, "*n"]) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest gap between their
    distribution functions. All elements of a tensor are one sample."""
    # The largest gap is at one of the values.
    values = torch.cat([a.flatten(), b.flatten()])
    gaps = _distribution(a, values) - _distribution(b, values)
    return gaps.abs().max().item()


def _distribution(sample: Tensor, values: Tensor) -> Tensor:
    """Share of a sample that is not above each value."""
    ordered = sample.flatten().sort().values
    return torch.searchsorted(ordered, values, right=True) / sample.numel()


def psd(
    x: Float[Tensor, "*batch region time"], tr: float
) -> tuple[Tensor, Float[Tensor, "*batch region frequency"]]:
    """Frequencies (Hz) and two-sided periodogram (unit² per Hz) of every region,
    without the mean."""
    n = x.shape[-1]
    f = torch.fft.rfftfreq(n, tr, device=x.device, dtype=x.dtype)
    power = torch.fft.rfft(centred(x)).abs().square() * tr / n
    # Frequency 0 is the mean.
    return f[1:], power[..., 1:]


def metastability(
    x: Float[Tensor, "*batch region time"],
    tr: float,
    band: tuple[float, float] = (0.04, 0.07),
) -> Float[Tensor, "*batch"]:
    """Standard deviation over time of the regions' phase synchrony (Kuramoto order) in
    a narrow band (Hz)."""
    order = _phase_factors(band_passed(x, tr, band)).mean(-2).abs()
    return order.std(-1)


def _phase_factors(x: Float[Tensor, "*batch time"]) -> Complex[Tensor, "*batch time"]:
    """exp(iφ) of a signal's phase φ."""
    analytic = analytic_signal(x)
    # Where the envelope is zero there is no phase: such a region counts as none.
    return analytic / analytic.abs().clamp_min(1e-30)


def analytic_signal(x: Float[Tensor, "... time"]) -> Complex[Tensor, "... time"]:
    """The complex signal whose modulus is the envelope and whose angle is the phase
    (Hilbert transform)."""
    return torch.fft.ifft(torch.fft.fft(x) * _analytic_weights(x))


def _analytic_weights(x: Tensor) -> Tensor:
    """Weights of the discrete Fourier transform: negative frequencies off, their
    positive twins doubled."""
    n = x.shape[-1]
    weights = torch.zeros(n, dtype=x.dtype, device=x.device)
    # The mean, and with an even number of samples the highest frequency, have no twin.
    weights[0] = 1
    weights[1 : math.ceil(n / 2)] = 2
    if n % 2 == 0:
        weights[n // 2] = 1
    return weights


def icc(x: Float[Tensor, "*batch person visit"]) -> Float[Tensor, "*batch"]:
    """Test-retest reliability ICC(2,1): two-way random effects, absolute agreement
    (Shrout and Fleiss 1979, doi:10.1037/0033-2909.86.2.420)."""
    n, k = x.shape[-2:]
    grand = x.mean((-2, -1), keepdim=True)
    person = x.mean(-1, keepdim=True)
    visit = x.mean(-2, keepdim=True)
    # Mean squares of the two-way analysis of variance; both axes weigh each mean by
    # the number of values in it.
    persons = k * _sum_of_squares(person - grand) / (n - 1)
    visits = n * _sum_of_squares(visit - grand) / (k - 1)
    error = _sum_of_squares(x - person - visit + grand) / ((n - 1) * (k - 1))
    total = persons + (k - 1) * error + k * (visits - error) / n
    return (persons - error) / total


def _sum_of_squares(deviations: Tensor) -> Tensor:
    return deviations.square().sum((-2, -1))
