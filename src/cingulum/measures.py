"""What is computed from signals: pure, batched, differentiable; used for recordings and
simulations alike."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def fc(x: Float[Tensor, "*batch region time"]) -> Float[Tensor, "*batch region region"]:
    """Functional connectivity: Pearson correlation between every pair of regions."""
    centred = x - x.mean(-1, keepdim=True)
    unit = centred / centred.norm(dim=-1, keepdim=True)
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
    a: Float[Tensor, "*batch n"], b: Float[Tensor, "*batch n"]
) -> Float[Tensor, "*batch"]:
    """Pearson correlation along the last axis."""
    a = a - a.mean(-1, keepdim=True)
    b = b - b.mean(-1, keepdim=True)
    return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))


def similarity(
    a: Float[Tensor, "*batch region region"], b: Float[Tensor, "*batch region region"]
) -> Float[Tensor, "*batch"]:
    """How alike two connectivity matrices are: Pearson correlation of their edges."""
    return pearson(edges(a), edges(b))


def covariance(
    x: Float[Tensor, "*batch region time"],
) -> Float[Tensor, "*batch region region"]:
    """Covariance between every pair of regions over the whole recording."""
    centred = x - x.mean(-1, keepdim=True)
    return centred @ centred.mT / (x.shape[-1] - 1)


def partial(
    covariance: Float[Tensor, "*batch region region"],
) -> Float[Tensor, "*batch region region"]:
    """Correlation of every pair of regions given all others, from an invertible
    covariance: −P_ij / √(P_ii P_jj)."""
    precision = torch.linalg.inv(covariance)
    found = -correlation(precision)
    return found + 2 * torch.eye(
        found.shape[-1], dtype=found.dtype, device=found.device
    )


def lag_one(x: Float[Tensor, "*batch region time"]) -> Float[Tensor, "*batch region"]:
    """Autocorrelation of every region between a sample and the next: how smooth a
    signal is."""
    centred = x - x.mean(-1, keepdim=True)
    return (centred[..., 1:] * centred[..., :-1]).sum(-1) / centred.square().sum(-1)


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
    kept = torch.fft.rfftfreq(x.shape[-1], tr, device=x.device)
    inside = (kept >= band[0]) & (kept <= band[1])
    spectrum = torch.fft.rfft(x - x.mean(-1, keepdim=True)) * inside
    return torch.fft.irfft(spectrum, n=x.shape[-1])


def fcd(
    x: Float[Tensor, "*batch region time"], window: int, step: int
) -> Float[Tensor, "*batch window window"]:
    """Functional connectivity dynamics: how alike connectivity is between every two
    windows.

    window, step: samples. The distribution depends on both as much as on the brain
    (whole-brain page §4.2), so they are part of any result.
    """
    return _alike(windowed_edges(x, window, step))


def fcd_of_edges(
    x: Float[Tensor, "*batch region time"],
    window: int,
    step: int,
    kept: Float[Tensor, "edge"],
) -> Float[Tensor, "*batch pair"]:
    """Values below the diagonal of `fcd`, with only the edges that `kept` marks (within
    hemispheres, say)."""
    return edges(_alike(windowed_edges(x, window, step)[..., kept]))


def windowed_edges(
    x: Float[Tensor, "*batch region time"], window: int, step: int
) -> Tensor:
    """Connectivity of every window, (*batch, window, edge)."""
    return edges(fc(x.unfold(-1, window, step).movedim(-2, -3)))


def _alike(patterns: Tensor) -> Tensor:
    patterns = patterns - patterns.mean(-1, keepdim=True)
    unit = patterns / patterns.norm(dim=-1, keepdim=True)
    return unit @ unit.mT


def ks_distance(a: Float[Tensor, "m"], b: Float[Tensor, "n"]) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest gap between their
    distribution functions."""
    a, b = a.flatten().sort().values, b.flatten().sort().values
    both = torch.cat([a, b])
    of_a = torch.searchsorted(a, both, right=True) / a.numel()
    of_b = torch.searchsorted(b, both, right=True) / b.numel()
    return (of_a - of_b).abs().max().item()


def psd(
    x: Float[Tensor, "*batch region time"], tr: float
) -> tuple[Tensor, Float[Tensor, "*batch region frequency"]]:
    """Frequencies (Hz) and two-sided periodogram (unit² per Hz) of every region,
    without the mean."""
    centred = x - x.mean(-1, keepdim=True)
    power = torch.fft.rfft(centred).abs().square() * tr / x.shape[-1]
    return torch.fft.rfftfreq(x.shape[-1], tr, device=x.device, dtype=x.dtype)[
        1:
    ], power[..., 1:]


def metastability(
    x: Float[Tensor, "*batch region time"],
    tr: float,
    band: tuple[float, float] = (0.04, 0.07),
) -> Float[Tensor, "*batch"]:
    """Standard deviation over time of the regions' phase synchrony (Kuramoto order) in
    a narrow band (Hz)."""
    phase = analytic_signal(band_passed(x, tr, band))
    order = (phase / phase.abs().clamp_min(1e-30)).mean(-2).abs()
    return order.std(-1)


def analytic_signal(x: Float[Tensor, "... time"]) -> Float[Tensor, "... time"]:
    """The complex signal whose modulus is the envelope and whose angle is the phase
    (Hilbert transform)."""
    n = x.shape[-1]
    keep = torch.zeros(n, dtype=x.dtype, device=x.device)
    keep[0], keep[1 : math.ceil(n / 2)] = 1, 2
    if n % 2 == 0:
        keep[n // 2] = 1
    return torch.fft.ifft(torch.fft.fft(x) * keep)


def icc(x: Float[Tensor, "*batch person visit"]) -> Float[Tensor, "*batch"]:
    """Test-retest reliability ICC(2,1): two-way random effects, absolute agreement
    (Shrout and Fleiss 1979)."""
    n, k = x.shape[-2:]
    grand, person, visit = (
        x.mean((-2, -1), keepdim=True),
        x.mean(-1, keepdim=True),
        x.mean(-2, keepdim=True),
    )
    between = k * (person - grand).square().sum((-2, -1)) / (n - 1)
    visits = n * (visit - grand).square().sum((-2, -1)) / (k - 1)
    left = (x - person - visit + grand).square().sum((-2, -1)) / ((n - 1) * (k - 1))
    return (between - left) / (between + (k - 1) * left + k * (visits - left) / n)
