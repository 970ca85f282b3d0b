"""The published scheme: its parts by hand, and the gradient of a window against a
tape."""

import numpy as np
import pytest
import torch

from cingulum.errors import InputError
from cingulum.inference.published import griffiths2022_model as model
from cingulum.inference.published.griffiths2022 import leave_gradient, published_fit
from cingulum.inference.published.griffiths2022_model import (
    TWO_PARAMETERS,
    VARIANTS,
    PublishedNetwork,
    PublishedParameters,
    published_model,
)
from cingulum.measures import fc, similarity


def connectome(n=8, seed=0):
    weights = torch.rand(n, n, generator=torch.Generator().manual_seed(seed))
    return ((weights + weights.mT) / 2).fill_diagonal_(0.0)


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numbers(**values):
    return {name: torch.tensor([value]) for name, value in values.items()}


def test_firing_is_guarded_as_published():
    """(a x − b) = 0 gives 1e-5 / (1e-5 d) = 1/d; elsewhere R of the dossier's table to
    the offsets' size."""
    a, b, d = (torch.tensor(value) for value in (310.0, 125.0, 0.16))
    assert model.firing(b / a, a, b, d).item() == pytest.approx(6.25)
    assert model.firing(torch.tensor(0.2), a, b, d).item() == pytest.approx(
        (1e-5 + 63) / (1.6e-6 + np.expm1(10.08))
    )
    x = torch.tensor([0.3, 0.4, 0.5, 1.0])
    exact = torch.tensor([0.1923824, 5.7633276, 30.2489411, 185.0])
    torch.testing.assert_close(model.firing(x, a, b, d), exact, rtol=2e-5, atol=0)
    assert (model.firing(torch.tensor([-1.0, 0.0]), a, b, d) > 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_laplacian_has_zero_row_sums(name):
    base = model.normalised_counts(connectome())
    assert base.norm().item() == pytest.approx(1) and base.diagonal().abs().sum() == 0
    for gains in ({}, {"w": 0.3 * noise(2, 8, 8)}):
        laplacian = model.negative_laplacian(VARIANTS[name], base, gains)
        assert laplacian.sum(-1).abs().max() < 1e-12
        torch.testing.assert_close(laplacian, laplacian.mT)


def test_bifurcation_term_by_hand():
    at = numbers(A=0.5, B=20.0, C=10.0, g_IE=0.1, g_EI=0.1)
    value = 0.501 * 0.101**2 - 20.001 * 0.101 + 10.001 - 0.101
    assert model.bifurcation_term(at).item() == pytest.approx(5 * value**2)
    clipped = numbers(A=-0.3, B=20.0, C=10.0, g_IE=0.4, g_EI=-2.0)
    value = 0.001 * 0.401**2 - 20.001 * 0.401 + 10.001 - 0.001
    assert model.bifurcation_term(clipped).item() == pytest.approx(5 * value**2)


def test_entropy_term_by_hand():
    """E = 0.5 everywhere gives −ln 2; I = 0.1 gives half of 0.1 ln 0.1 + 0.9 ln 0.9."""
    neural = torch.stack([torch.full((6, 1, 3), 0.5), torch.full((6, 1, 3), 0.1)])
    expected = 0.1 * (-np.log(2) + 0.5 * (0.1 * np.log(0.1) + 0.9 * np.log(0.9)))
    assert model.entropy_term(neural).item() == pytest.approx(expected)


def test_first_loss_of_variant_b_by_hand():
    """Priors −ln v at their means; of states held at 0.5: 2500 (0.1² + 0.2²) − 2 ln
    2500 − 2 ln 100."""
    p = model.start_values(VARIANTS["B"], TWO_PARAMETERS, torch.zeros(1, 3))
    terms = VARIANTS["B"].penalties(
        p, TWO_PARAMETERS.prior, torch.full((2, 6, 1, 3), 0.5), torch.ones(4, 2, 1, 3)
    )
    assert terms["prior_g_IE"].item() == pytest.approx(-np.log(0.3))
    states = sum(terms[f"prior_{state}"].item() for state in ("E", "I", "f", "v"))
    assert states == pytest.approx(
        2500 * (0.1**2 + 0.2**2) - 2 * np.log(2500) - 2 * np.log(100)
    )


def test_resting_blood_follows_its_fixed_point():
    """E = 0.22 held: f = 1 + 0.41 E, v = f^0.32 (dossier §1.4), where variant B's blood
    stays."""
    E = torch.full((1, 1, 2), 0.22)
    f = torch.tensor(1 + 0.41 * 0.22)
    v = f**0.32
    q = v * (1 - 0.66 ** (1 / f)) / 0.34
    rest = (
        torch.stack([torch.zeros(()), f, v, q]).reshape(4, 1, 1, 1).expand(4, 1, 1, 2)
    )
    k = model.step_constants(
        model.start_values(VARIANTS["B"], TWO_PARAMETERS, torch.zeros(1, 2))
    )
    torch.testing.assert_close(model.blood_step(VARIANTS["B"], k, rest, E), rest)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("free_weights", [False, True])
def test_gradient_of_a_window_is_that_of_the_tape(name, free_weights):
    variant, like = VARIANTS[name], torch.zeros(2, 5)
    generator = torch.Generator().manual_seed(3)
    base, piece = model.normalised_counts(connectome(5)), noise(2, 5, 20)
    p = model.start_values(variant, variant.start, like)
    if free_weights:
        p["w"] = 0.1 * noise(2, 5, 5)
    free = {n: v.requires_grad_() for n, v in p.items() if n != "I_0"}
    state = model.initial_states(like, generator)
    drawn = model.window_noise(variant, like, generator)
    network = PublishedNetwork(variant, base, p)
    k, laplacian = network.constants, network.laplacian
    path = model.simulate_window(variant, k, laplacian, state, drawn.neural)
    _, terms = leave_gradient(network, list(free.values()), path, drawn, piece)
    s, h = [state.neural], [state.blood]
    for kick in drawn.neural.split(1, 1):
        received = model.received_from(laplacian, s[-1][0])
        h.append(model.blood_step(variant, k, h[-1], s[-1][0]))
        s.append(model.neural_step(variant, k, s[-1], received, kick))
    volumes = torch.cat(h, 1)[:, variant.steps :: variant.steps]
    bold = model.bold_signal(k, volumes, drawn.scanner)
    loss = -torch.log(0.5 + 0.5 * similarity(fc(bold), fc(piece)))
    neural = torch.cat(s, 1)[:, 1:]
    penalties = variant.penalties(p, variant.start.prior, neural, volumes)
    loss = loss + sum(penalties.values())
    torch.testing.assert_close(terms["loss"], loss.detach())
    taped = torch.autograd.grad(loss.sum(), list(free.values()), materialize_grads=True)
    for (label, value), expected in zip(free.items(), taped, strict=True):
        torch.testing.assert_close(
            value.grad, expected, rtol=1e-9, atol=1e-9, msg=label
        )


def test_fits_side_by_side_do_not_feel_each_other():
    first, other = noise(2, 5, 45).float(), noise(2, 5, 45, seed=2).float()
    other[0] = first[0]
    fits = [
        published_fit(connectome(5), bold, epochs=1, test_windows=1)
        for bold in (first, other)
    ]
    a, b = (fit.history.query("fit == 0").to_numpy() for fit in fits)
    np.testing.assert_array_equal(a, b)
    assert len(fits[0].history) == 2 * 2, (
        "45 volumes are two windows; five volumes are dropped"
    )
    assert (fits[0].history["fc"].to_numpy() != fits[1].history["fc"].to_numpy()).any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_seeds(variant):
    weights, bold = connectome(5).float(), noise(3, 2, 5, 40).float()
    options = {"variant": variant, "epochs": 2, "test_windows": 2, "free_weights": True}
    fit, again = (published_fit(weights, bold, seed=5, **options) for _ in range(2))
    assert fit.history.equals(again.history) and torch.equal(
        fit.free_running_fc, again.free_running_fc
    )
    assert fit.estimates["g_IE"].shape == fit.free_running_fc_r.shape == (3, 2)
    assert (
        fit.training_fc.shape
        == fit.free_running_fc.shape
        == fit.weights.shape
        == (3, 2, 5, 5)
    )
    assert fit.training_fc_r.shape == (3, 2, 2) and fit.weights.dtype == torch.float32
    assert len(fit.history) == 2 * 2 * 6 and {"loss", "fc", "g_EE"} < set(fit.history)
    single = published_fit(
        weights, bold[0, 0], variant=variant, epochs=1, test_windows=1
    )
    assert single.estimates["g_IE"].ndim == 0 and single.weights.shape == (5, 5)


def test_model_takes_one_truth_a_simulation():
    truths = PublishedParameters(
        g_IE=torch.tensor([0.42, 0.2]), g_EI=torch.tensor([0.42, 0.8]), std_out=0.0
    )
    bold = published_model(connectome(6).float(), truths, 30, batch=(2,), seed=4)
    assert (
        bold.shape == (2, 6, 30)
        and bold.dtype == torch.float32
        and (bold[0] != bold[1]).any()
    )
    assert 0.5 < bold.mean() < 2, "BOLD of about 1.2 at E of about 0.2 (dossier §1.4)"


def test_what_cannot_be_fitted_is_said():
    weights = connectome(5)
    with pytest.raises(InputError, match="variants A, B; got 'C'"):
        published_fit(weights, noise(5, 40), variant="C")
    with pytest.raises(
        InputError, match=r"5 regions and 20 volumes or more.*shape \(4, 40\)"
    ):
        published_fit(weights, noise(4, 40))
    with pytest.raises(InputError, match="varies in every region and window"):
        published_fit(weights, torch.cat([noise(5, 20), torch.ones(5, 20)], -1))
    with pytest.raises(InputError, match="at least one volume"):
        published_model(weights, PublishedParameters(), 0)
