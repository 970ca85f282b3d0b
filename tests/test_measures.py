"""Measures against closed forms and other people's code."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import hilbert
from scipy.stats import ks_2samp

from cingulum.measures import (
    analytic_signal,
    band_passed,
    covariance,
    edges,
    fc,
    fcd,
    fcd_of_edges,
    ks_distance,
    lag_one,
    metastability,
    psd,
    windowed_edges,
    without_global_signal,
)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_covariance_and_connectivity_are_numpys():
    x = noise(5, 300)
    np.testing.assert_allclose(fc(x), np.corrcoef(x), atol=1e-12)
    np.testing.assert_allclose(covariance(x), np.cov(x), rtol=0.01)


def test_without_global_signal_is_regression_on_the_mean():
    x = noise(6, 400) + 2 * noise(1, 400)
    x = x - x.mean(-1, keepdim=True)
    mean = x.mean(0)
    left = x - (x @ mean / (mean @ mean))[:, None] * mean
    np.testing.assert_allclose(
        without_global_signal(covariance(x)), covariance(left), atol=1e-12
    )


def test_windowed_connectivity_is_corrcoef_of_each_window():
    x = noise(4, 100)
    for k, found in enumerate(windowed_edges(x, 30, 10).unbind(-2)):
        exact = np.corrcoef(x[:, 10 * k : 10 * k + 30])[np.tril_indices(4, -1)]
        np.testing.assert_allclose(np.sort(found), np.sort(exact), atol=1e-12)
    dynamics = fcd(x, 30, 10)
    assert dynamics.shape == (8, 8)
    everywhere = torch.ones(6, dtype=torch.bool)
    np.testing.assert_allclose(
        fcd_of_edges(x, 30, 10, everywhere), edges(dynamics), atol=1e-12
    )


def test_distance_of_distributions_is_scipys():
    a, b = noise(500), 0.3 + noise(400, 1)[:, 0]
    assert ks_distance(a, b) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)


def test_lag_one_of_an_autoregressive_signal():
    """20,000 samples at .7: the standard error is √((1 − .49) / 20000) = .005."""
    x, e = torch.zeros(20_000), noise(20_000)
    for t in range(1, len(x)):
        x[t] = 0.7 * x[t - 1] + e[t]
    assert lag_one(x[None]).item() == pytest.approx(0.7, abs=0.02)


def test_spectrum_adds_up_to_the_variance():
    x = noise(3, 1001)
    f, power = psd(x, 0.72)
    np.testing.assert_allclose(
        2 * (power * (f[1] - f[0])).sum(-1), x.var(-1, correction=0), rtol=1e-9
    )


def test_a_band_lets_through_what_lies_in_it():
    t = 0.72 * torch.arange(1000)
    inside, outside = (
        torch.sin(2 * math.pi * 0.05 * t),
        torch.sin(2 * math.pi * 0.3 * t),
    )
    found = band_passed((inside + outside)[None], 0.72, (0.01, 0.1))[0]
    assert (found - inside)[50:-50].abs().max() < 0.1
    np.testing.assert_allclose(
        analytic_signal(inside[None])[0], hilbert(inside), atol=1e-12
    )


def test_metastability_of_locked_and_of_loose_regions():
    t = 0.72 * torch.arange(2000)
    locked = torch.sin(2 * math.pi * 0.055 * t).expand(10, -1)
    assert metastability(locked, 0.72).item() < 1e-6
    assert metastability(noise(10, 2000), 0.72).item() > 0.1
