"""Griffiths et al. 2022 re-run: what its training recovers from data, from noise, and
beside a model never trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cingulum.brain.connectome import distance_rule
from cingulum.inference.published.griffiths2022 import published_fit
from cingulum.inference.published.griffiths2022_model import (
    TWO_PARAMETERS,
    PublishedParameters,
    normalised_counts,
    published_model,
)
from cingulum.measures import fc, similarity


@pytest.fixture(autouse=True)
def _float32(_float64):
    """As the original."""
    torch.set_default_dtype(torch.float32)


def random_connectome(draw):
    weights = torch.rand(20, 20, generator=draw)
    return ((weights + weights.mT) / 2).fill_diagonal_(0.0)


def noise_of(weights, draw):
    """White noise, and noise whose correlations are those of a linear network on the
    connectome."""
    base = normalised_counts(weights)
    mixing = torch.linalg.inv(
        torch.eye(20) - 0.7 * base / torch.linalg.eigvalsh(base)[-1]
    )
    white, other = torch.randn(2, 20, 1200, generator=draw)
    return torch.stack([white, mixing @ other])


@pytest.mark.slow
def test_variant_a_recovers_the_same_gains_from_noise_and_from_any_truth():
    """Measured g_IE .4497 and g_EI .4492 in all four data sets, to the fourth digit as
    in the dossier (§3.4): they are the foot of a typed-in parabola. g and g_EE end
    half-way between their start and the prior mean, which is trained too and comes to
    meet them (measured within .001)."""
    draw = torch.Generator().manual_seed(0)
    weights = random_connectome(draw)
    truths = PublishedParameters(
        g_EE=3.5, g_IE=torch.tensor([0.42, 0.2]), g_EI=torch.tensor([0.42, 0.8])
    )
    data = torch.cat(
        [
            noise_of(weights, draw),
            published_model(weights, truths, 1200, batch=(2,), seed=1),
        ]
    )
    start = PublishedParameters(
        g=torch.tensor([99.8, 99.9, 100.1, 100.2]),
        g_EE=torch.tensor([2.8, 3.2, 2.9, 3.1]),
    )
    found = published_fit(
        weights, data, start=start, epochs=4, test_windows=20, seed=2
    ).estimates
    print({name: value.numpy().round(4) for name, value in found.items()})
    np.testing.assert_allclose(found["g_IE"], 0.4497, atol=2e-4)
    np.testing.assert_allclose(found["g_EI"], 0.4492, atol=4e-4)
    assert np.ptp(found["g_IE"].numpy()) < 1e-4 and np.ptp(found["g_EI"].numpy()) < 2e-4
    np.testing.assert_allclose(found["g"], (start.g + 100) / 2, atol=0.02)
    np.testing.assert_allclose(found["g_EE"], (start.g_EE + 3) / 2, atol=0.05)


@pytest.mark.slow
def test_variant_b_recovers_the_same_gains_from_noise_and_from_its_own_output():
    """Measured 9.595 and .431 within .002 in all three (other connectomes and noise
    levels 9.58 to 9.62, .43 to .48). The dossier has 9.434 and .578, likewise equal
    between data sets, with a connectome it does not name."""
    draw = torch.Generator().manual_seed(0)
    weights = random_connectome(draw)
    own = published_model(
        weights, replace(TWO_PARAMETERS, g_IE=8.0, g_EI=0.5), 1200, variant="B", seed=1
    )
    data = torch.cat([noise_of(weights, draw), own[None]])
    start = replace(TWO_PARAMETERS, g_IE=9.90, g_EI=0.81)
    fit = published_fit(
        weights, data, variant="B", start=start, epochs=10, test_windows=20, seed=3
    )
    print({name: value.numpy().round(4) for name, value in fit.estimates.items()})
    g_IE, g_EI = (fit.estimates[name].numpy() for name in ("g_IE", "g_EI"))
    np.testing.assert_allclose(g_IE, 9.594, atol=0.03)
    np.testing.assert_allclose(g_EI, 0.431, atol=0.03)
    assert np.ptp(g_IE) < 0.01 and np.ptp(g_EI) < 0.02, "spread between data sets"
    first, last = (
        fit.history.query(f"epoch == {epoch} and window == 59") for epoch in (0, 9)
    )
    share = first[["prior_E", "prior_I"]].sum(axis=1) / first["loss"]
    assert (share > 0.95).all() and (last["loss"] < 0).all(), (
        "the state priors are nearly all of the loss, then run away"
    )


def distance_connectome():
    """66 mirrored regions on a sphere; a rule so narrow that the output tells the
    connectome (wider ones: 009)."""
    half = torch.randn(33, 3, generator=torch.Generator().manual_seed(0))
    half = 70 * half / half.norm(dim=-1, keepdim=True)
    positions = torch.cat([half, half * torch.tensor([-1.0, 1.0, 1.0])])
    return distance_rule(
        positions, tuple(f"r{i}" for i in range(66)), scale=8.0
    ).weights


ROWS = {
    "A": (
        PublishedParameters(g_EE=3.5, g_IE=0.42, g_EI=0.42),
        PublishedParameters(
            g=torch.tensor([99.7, 100.0, 100.3]), g_EE=torch.tensor([3.2, 2.8, 3.0])
        ),
        {
            "training": 0.73,
            "free": 0.75,
            "truth": 0.76,
            "untrained": 0.75,
            "connectome": 0.78,
        },
    ),
    "B": (
        replace(TWO_PARAMETERS, g_IE=8.0, g_EI=0.5),
        replace(
            TWO_PARAMETERS,
            g_IE=torch.tensor([12.3, 10.0, 6.6]),
            prior={"g_IE": (10.0, 0.25), "g_EI": (1.0, 25.0)},
        ),
        {
            "training": 0.85,
            "free": 0.88,
            "truth": 0.88,
            "untrained": 0.85,
            "connectome": 0.79,
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ROWS)
def test_published_correlations_are_those_of_a_model_never_trained(variant):
    """The paper's rows: four parameters (A) .83 in training and .85 free, two
    parameters (B) .84 and .87.

    ROWS holds what was measured here, to be met within .05 (three draws); training
    stands still after three epochs, so 6 are run instead of 20. It adds nothing in A
    and .03 in B to start values never trained (on tractography .10 in
    A, by training the noise away: decision 009).
    """
    weights, (truth, start, measured) = distance_connectome(), ROWS[variant]
    options = {"variant": variant, "batch": (3,)}
    data, again = (
        published_model(weights, truth, n, seed=n, **options) for n in (1200, 2400)
    )
    rate = {"A": 0.01, "B": 0.002}[variant]
    fit = published_fit(
        weights, data, variant=variant, start=start, epochs=6, rate=rate, seed=4
    )
    target, untrained = (
        fc(data),
        published_model(weights, start, 2400, seed=3, **options),
    )
    r = {"training": fit.training_fc_r[:, -3:].mean(-1), "free": fit.free_running_fc_r}
    r |= {
        "truth": similarity(fc(again), target),
        "untrained": similarity(fc(untrained), target),
    }
    r |= {
        "connectome": similarity(normalised_counts(weights).expand(3, -1, -1), target)
    }
    print({name: value.numpy().round(3) for name, value in r.items()})
    print({name: value.numpy().round(4) for name, value in fit.estimates.items()})
    for name, expected in measured.items():
        assert r[name].mean().item() == pytest.approx(expected, abs=0.05), name
    assert r["free"].mean() - r["untrained"].mean() < 0.06, (
        "the level is not the training's"
    )
    moved = {"A": "g", "B": "g_IE"}[variant]
    assert np.corrcoef(fit.estimates[moved], getattr(start, moved))[0, 1] > 0.98, (
        "the estimate is the start"
    )
