"""Many people: own connectome, TR and length; leaning on the group; reliability."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import Connectome, with_values
from cingulum.errors import InputError
from cingulum.inference import CohortRecording, fit_cohort
from cingulum.inference.cohort_fit import _Estimates, _group_distribution
from cingulum.measures import icc
from cingulum.simulation import balanced, simulate

FREE = {"strength": LogNormal(np.log(0.3), 0.7), "noise": LogNormal(np.log(0.01), 0.5)}
PEOPLE = 6


@pytest.fixture
def recordings(brain):
    """Six people, two runs each, of two lengths and TRs; every other one has a
    connectome of their own."""
    found = []
    draw = torch.Generator().manual_seed(3)
    coupling = torch.linspace(0.25, 0.7, PEOPLE)
    for k in range(PEOPLE):
        own = None
        if k % 2:
            change = torch.exp(0.3 * torch.randn(8, 8, generator=draw))
            own = Connectome(
                brain.connectome.weights * (change + change.T) / 2, brain.regions
            )
        person = with_values(
            brain, {"strength": coupling[k], "sensor.tr": 0.72 if k < 4 else 1.0}
        )
        person = balanced(with_values(person, {"connectome": own} if own else {}))
        for run in (1, 2):
            length = (400 if k != 1 else 500) * person.sensor.tr
            signal = simulate(
                person,
                length,
                dt=0.004,
                discard=30.0,
                vascular_step=0.004,
                seed=10 * k + run,
            ).signal
            found.append(CohortRecording(f"p{k}", signal, str(run), own))
    return found


@pytest.mark.slow
def test_everybody_is_fitted_with_what_is_theirs(brain, recordings):
    cohort = fit_cohort(brain, recordings, FREE, prepare=balanced)
    wide = cohort.wide()
    assert wide.shape == (12, 2) and list(wide.columns) == ["noise", "strength"]
    truth = np.repeat(np.linspace(0.25, 0.7, PEOPLE), 2)
    assert np.corrcoef(wide["strength"], truth)[0, 1] > 0.8
    assert (cohort.table["low"] < cohort.table["estimate"]).all()
    assert set(cohort.table["person"]) == {f"p{k}" for k in range(PEOPLE)}
    reliability = cohort.reliability().set_index("coordinate")
    assert (
        reliability.loc["strength", "icc"] > 0.6
        and reliability.loc["strength", "reliable"]
    )
    assert reliability.loc["noise", "icc"] < reliability.loc["strength", "icc"], (
        "all have the same noise"
    )


@pytest.mark.slow
def test_leaning_on_the_group_shrinks_and_finds_a_covariate(brain, recordings):
    alone = fit_cohort(brain, recordings, FREE, prepare=balanced)
    age = pd.DataFrame({"age": np.repeat(np.linspace(-1.5, 1.5, PEOPLE), 2)})
    group = fit_cohort(
        brain, recordings, FREE, prepare=balanced, shrink=True, covariates=age
    )
    k = list(group.group["coordinate"]).index("strength")
    # log .7 − log .25 over three standard units of age.
    assert group.group["age"][k] == pytest.approx(np.log(0.7 / 0.25) / 3, abs=0.12)
    assert (group.sd <= alone.sd + 1e-9).all()
    assert group.coordinates[:, 1 - k].std() < alone.coordinates[:, 1 - k].std()


def test_reliability_is_that_of_shrout_and_fleiss():
    """Their table 2 and 4: four judges of six targets, ICC(2,1) = .29."""
    ratings = torch.tensor(
        [
            [9, 2, 5, 8],
            [6, 1, 3, 2],
            [8, 4, 6, 8],
            [7, 1, 2, 6],
            [10, 5, 6, 9],
            [6, 2, 4, 7],
        ]
    )
    assert icc(ratings.double()).item() == pytest.approx(0.29, abs=0.005)


def test_the_group_is_what_the_likelihood_of_the_hierarchy_says():
    """Known answers: the same estimate four times has no spread; 400 people of spread
    .1 ± .1 have .1, slope .3."""
    draw = torch.Generator().manual_seed(0)

    def group(theta, sd, design):
        count = len(theta)
        prior = torch.full((count, 1), 100.0)
        return _group_distribution(
            _Estimates(theta, sd.expand(count, 1), prior, []), design
        )

    same = group(torch.full((4, 1), 0.3), torch.tensor([[0.09]]), torch.ones(4, 1))
    assert same.spread.item() < 1e-3
    assert same.expected.mean(0)[0].item() == pytest.approx(0.3)
    age = torch.randn(400, 1, generator=draw)
    theta = (
        0.3 * age
        + 0.1 * torch.randn(400, 1, generator=draw)
        + 0.1 * torch.randn(400, 1, generator=draw)
    )
    people = group(
        theta, torch.tensor([[0.1]]), torch.cat([torch.ones(400, 1), age], 1)
    )
    # Standard errors: .0075 of the spread, .007 of the slope.
    assert people.spread.item() == pytest.approx(0.1, abs=0.03)
    assert people.effects[1].item() == pytest.approx(0.3, abs=0.03)


def test_own_tract_lengths_count(brain, recordings):
    brain, people = with_values(brain, {"speed": 5.0}), []
    for far in (1.0, 10.0):
        own = Connectome(
            brain.connectome.weights, brain.regions, far * brain.connectome.lengths
        )
        people.append(CohortRecording(f"far {far}", recordings[0].signal, "1", own))
    wide = fit_cohort(brain, people, FREE, prepare=balanced).wide()
    assert wide["strength"].iloc[0] != wide["strength"].iloc[1]


def test_cohorts_that_cannot_be_used(brain, recordings):
    turned = replace(
        recordings[1], signal=replace(recordings[1].signal, regions=brain.regions[::-1])
    )
    with pytest.raises(InputError, match="p0 run 2: signal and connectome"):
        fit_cohort(brain, [recordings[0], turned], FREE)
    with pytest.raises(InputError, match="more than one is called p0 run 1"):
        fit_cohort(brain, [recordings[0], recordings[0]], FREE)
    with pytest.raises(InputError, match="empty"):
        fit_cohort(brain, [], FREE)
    with pytest.raises(InputError, match="finite row for each of the 12"):
        fit_cohort(
            brain, recordings, FREE, covariates=pd.DataFrame({"age": [1.0, np.nan]})
        )
    few = fit_cohort(brain, recordings[:4], FREE, prepare=balanced)
    with pytest.raises(InputError, match="at least five people"):
        few.reliability()
