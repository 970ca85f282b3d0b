"""The mechanism as a feature: own connectomes, own models, honest standard
deviations."""

import json

import numpy as np
import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.features import Measurement, Mechanism, Physiology
from cingulum.features.brain_fitting import AMPLITUDE, atlas_connectome
from cingulum.inference import fc_error, fc_level
from cingulum.io.files import write_matrix
from cingulum.io.visit import visits
from cingulum.signals.atlas import pain_atlas
from cingulum.signals.visit_data import VisitData
from cingulum.simulation import balanced, simulate


def give_connectome(bids, session, weights):
    folder = bids / "derivatives" / "tractography" / "sub-01" / f"ses-{session}" / "dwi"
    path = folder / f"sub-01_ses-{session}_atlas-pain52_stat-streamlines_relmat.tsv"
    write_matrix(path, weights)
    (folder.parents[2] / "dataset_description.json").write_text(
        json.dumps({"Name": "x", "BIDSVersion": "1.10.0"})
    )


def test_a_visits_own_connectome_is_used_and_only_its(own_cohort):
    """Tractography in the derivatives of one visit: that visit's fit changes, the
    other's does not."""
    feature = Mechanism(steps=5)
    before = [feature.measure(VisitData(visit)) for visit in visits(own_cohort, ["01"])]
    rng = np.random.default_rng(0)
    weights = np.exp(rng.normal(size=(52, 52)))
    give_connectome(
        own_cohort, "post", weights + weights.T - np.diag(np.diag(weights + weights.T))
    )
    after = [feature.measure(VisitData(visit)) for visit in visits(own_cohort, ["01"])]
    assert [one.details["Connectome"] for one in after] == ["own", "group"]
    was, now = (feature.finish(rows).table.to_numpy() for rows in (before, after))
    np.testing.assert_allclose(now[1], was[1], atol=1e-6)
    assert np.abs(now[0] - was[0]).max() > 0.01
    give_connectome(own_cohort, "post", weights[:10, :10])
    with pytest.raises(
        InputError, match="expected 52 × 52 weights, in the order of pain52"
    ):
        feature.measure(VisitData(visits(own_cohort, ["01"])[0]))


def test_any_brain_and_any_parameters(own_cohort):
    brain = Brain(ReducedWongWang(tau_E=0.08), atlas_connectome(pain_atlas()))
    feature = Mechanism(brain, {"strength": LogNormal(-1.0, 0.5)}, steps=5)
    visit = visits(own_cohort, ["01"])[0]
    table = feature.finish([feature.measure(VisitData(visit))]).table
    assert list(table) == ["strength"] and feature.settings() != Mechanism().settings()
    told = [
        Mechanism(brain, {"strength": prior}, steps=5, objective=objective).settings()[
            "ModelSHA256"
        ]
        for prior in (LogNormal(-1.0, 0.5), LogNormal(-1.0, 0.6))
        for objective in (fc_error, fc_level)
    ]
    told += [
        Mechanism(
            with_values(brain, {"noise": value}), {"strength": LogNormal(-1.0, 0.5)}
        ).settings()["ModelSHA256"]
        for value in (0.02, 0.03)
    ]
    assert len(set(told)) == 6, (
        "every change of prior, objective or brain must make kept fits stale"
    )


@pytest.mark.slow
def test_standard_deviations_of_physiology_hold_what_they_say():
    """Twelve six-minute runs of brains with known coupling and noise: coupling follows
    the truth (r > .8, found .91),
    and errors are of the size that the standard deviations say: mean square of z below
    2.5 (measured 1.2; with 36 of them, right intervals exceed 2.5 in fewer than 1 of
    10,000 runs), none beyond 4."""
    atlas, rng = pain_atlas(), np.random.default_rng(0)
    coupling, noise = (
        0.4 * np.exp(rng.normal(0, 0.4, 12)),
        0.02 * np.exp(rng.normal(0, 0.2, 12)),
    )
    feature, measured, truth = Physiology(), [], []
    for k in range(12):
        brain = Brain(ReducedWongWang(), atlas_connectome(atlas), Sensor(tr=2.0))
        brain = balanced(
            with_values(
                brain, {"strength": float(coupling[k]), "noise": float(noise[k])}
            )
        )
        signals = simulate(brain, 360.0, dt=0.004, seed=k, discard=20.0).bold.data
        sd = 0.5 * signals.std()
        signals = signals + sd * torch.randn(
            signals.shape, generator=torch.Generator().manual_seed(k)
        )
        signals = signals - signals.mean(-1, keepdim=True)
        scale = AMPLITUDE / signals.std()
        truth.append([coupling[k], noise[k] * scale.item(), (sd * scale).item()])
        details = {"RepetitionTime": 2.0, "Connectome": "group"}
        measured.append(Measurement((signals * scale).numpy(), details=details))
    table = feature.finish(measured).table
    names, z = ["strength", "noise", "sensor.noise"], []
    for name, prior, true in zip(
        names, feature.fitting.free.values(), np.log(truth).T, strict=True
    ):
        expected = (true - prior.loc.item()) / prior.scale.item()
        z.append((table[name] - expected) / table[f"sd {name}"])
        print(name, np.corrcoef(table[name], expected)[0, 1], np.mean(z[-1] ** 2))
        # After scaling to one amplitude the noises hardly differ between runs; coupling
        # does.
        assert name != "strength" or np.corrcoef(table[name], expected)[0, 1] > 0.8
    assert np.mean(np.square(z)) < 2.5 and np.abs(z).max() < 4
