import numpy as np
import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import Brain, Connectome, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.inference import fit, linear_network
from cingulum.inference.objectives import fc_mismatch
from cingulum.simulation import analytic_fc, balanced
from cingulum.timeseries import TimeSeries


def exact(modelled, recorded):
    """The target is free of noise, so the data may outweigh the prior by far."""
    return 1000 * fc_mismatch(modelled, recorded)


def brain_of(n=10):
    positions = 80 * torch.rand(n, 3, generator=torch.Generator().manual_seed(8)) - 40
    return Brain(
        ReducedWongWang(),
        distance_rule(positions, tuple(f"r{i}" for i in range(n))),
        strength=0.3,
    )


@pytest.mark.slow
def test_recovers_planted_coupling_that_its_prior_is_not_centred_on():
    brain, prior = brain_of(), {"strength": LogNormal(np.log(0.3), 0.7)}
    for truth in (0.2, 0.5, 0.9):
        target = analytic_fc(balanced(with_values(brain, {"strength": truth})))
        result = fit(
            brain,
            target,
            prior,
            objective=exact,
            prepare=balanced,
            method="analytic",
            steps=150,
        )
        assert result.estimates["strength"].item() == pytest.approx(truth, rel=0.05)
        assert result.fc_r.item() > 0.99


def test_recovers_regional_excitation():
    brain = brain_of()
    truth = 1.4 + 0.15 * torch.randn(10, generator=torch.Generator().manual_seed(1))
    target = analytic_fc(balanced(with_values(brain, {"mass.w_plus": truth})))
    result = fit(
        brain,
        target,
        {"mass.w_plus": LogNormal(np.log(1.4), 0.2).expand([10])},
        prepare=balanced,
        method="analytic",
        steps=300,
    )
    assert np.corrcoef(result.estimates["mass.w_plus"], truth)[0, 1] > 0.9


def test_a_batch_member_does_not_depend_on_the_others():
    brain, prior = brain_of(), {"strength": LogNormal(np.log(0.3), 0.7)}
    targets = torch.stack(
        [analytic_fc(balanced(with_values(brain, {"strength": s}))) for s in (0.2, 0.6)]
    )
    together = fit(brain, targets, prior, prepare=balanced, method="analytic", steps=60)
    alone = [
        fit(brain, t, prior, prepare=balanced, method="analytic", steps=60)
        .estimates["strength"]
        .item()
        for t in targets
    ]
    np.testing.assert_allclose(together.estimates["strength"], alone, rtol=1e-6)


def test_regions_must_match():
    signals = TimeSeries(torch.randn(9, 50), 0.72, tuple(f"r{i}" for i in range(9)))
    with pytest.raises(InputError, match="the recording has 9, the connectome 10"):
        fit(brain_of(), signals, {"strength": LogNormal(-1.0, 0.5)})


def test_unknown_parameter_names_the_known_ones():
    with pytest.raises(InputError, match="Did you mean 'strength'"):
        fit(brain_of(), torch.eye(10), {"strenght": LogNormal(-1.0, 0.5)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w - 2 * w[0, 1], "must not be negative"),
        (lambda w: w * float("nan"), "must be finite"),
        (lambda w: w[:5], r"shape \(10, 10\); got \(5, 10\)"),
        (lambda w: w * 0, "no connection at all"),
    ],
)
def test_weights_that_are_no_connectome_are_refused(change, message):
    good = brain_of().connectome
    with pytest.raises(InputError, match=message):
        Connectome(change(good.weights), good.regions)


@pytest.mark.slow
def test_linear_control_reaches_the_published_fit(hcp_folder):
    """Whole-brain page §8: .25 with global coupling only, .69/.68 with regional noise,
    .72/.71 with gains too."""
    weights = np.load(
        hcp_folder / "sc/group-train706/ctx_parc-schaefer-100_desc-strength.npz"
    )["arr_0"]
    recorded = torch.tensor(
        np.load(
            hcp_folder / "fc/group-train706/REST/ctx_parc-schaefer-100_desc-fc.npz"
        )["arr_0"]
    )
    connectome = Connectome(torch.tensor(weights), tuple(map(str, range(100))))
    for regional, published in ((0, 0.25), (1, 0.69), (2, 0.72)):
        assert linear_network(
            connectome, recorded, regional=regional
        ).fc_r == pytest.approx(published, abs=0.015)
