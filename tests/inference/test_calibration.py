import os

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import Brain
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.brain.sensor import Sensor
from cingulum.errors import InputError
from cingulum.inference.simulation_calibration import (
    Calibration,
    by_laplace,
    calibrate,
    default_priors,
    stable_truths,
)
from cingulum.report.plots import png
from cingulum.report.rank_plots import rank_plot
from cingulum.simulation import balanced


def brain_of(n=6):
    positions = 80 * torch.rand(n, 3, generator=torch.Generator().manual_seed(8)) - 40
    return Brain(
        ReducedWongWang(),
        distance_rule(positions, tuple(f"r{i}" for i in range(n))),
        Sensor(tr=0.72),
    )


TWO = {
    "noise": LogNormal(np.log(0.015), 0.4),
    "sensor.noise": LogNormal(np.log(0.007), 0.5),
}


def of_ranks(ranks, draws=99):
    table = pd.DataFrame({"a": ranks})
    return Calibration(table, table / (draws + 1), table / (draws + 1), draws)


@pytest.fixture(scope="module")
def common():
    torch.set_default_dtype(torch.float64)
    return {
        "fits": 60,
        "duration": 200 * 0.72,
        "prepare": balanced,
        "batch": 30,
        "dt": 0.004,
        "seed": 3,
    }


@pytest.fixture(scope="module")
def kept():
    """Draws by seed, so that a test may ask for them again without fitting again."""
    return {}


@pytest.fixture(scope="module")
def honest(common, kept, tmp_path_factory):
    def keeping(problem, count, seed):
        kept[seed] = by_laplace(problem, count, seed)
        return kept[seed]

    file = tmp_path_factory.mktemp("kept") / "sbc.npz"
    return calibrate(brain_of(), TWO, **common, posterior=keeping, checkpoint=file)


@pytest.mark.slow
def test_ranks_and_tables_of_a_calibrated_posterior(honest):
    assert honest.ranks.shape == (60, 2) and honest.failed == 0
    assert honest.ranks.min().min() >= 0 and honest.ranks.max().max() <= 99
    # Sixty fits and a 90 % interval: 47 to 59 inside with probability .998.
    covered = honest.coverage((0.9,))
    assert (
        covered["covered"].between(47 / 60, 59.5 / 60).all()
        and (covered["low"] < 0.9).all()
    )
    assert honest.uniformity(alarm=0.001)["uniform"].all()
    assert (honest.recovery()["r"] > 0.9).all()
    assert "calibration by 60 fits" in str(honest)


@pytest.mark.slow
def test_overconfidence_is_caught(common, honest, kept):
    def overconfident(problem, count, seed):
        """Laplace's draws, three times too near to their centre."""
        return kept[seed].mean(0) + (kept[seed] - kept[seed].mean(0)) / 3

    narrow = calibrate(brain_of(), TWO, **common, posterior=overconfident)
    assert not narrow.uniformity(alarm=0.001)["uniform"].any()
    assert (narrow.coverage((0.9,))["high"] < 0.9).all()


@pytest.mark.slow
def test_an_interrupted_calibration_goes_on_to_the_same_ranks(
    common, honest, kept, tmp_path, monkeypatch
):
    # What is interrupted by lies outside of the function, whose content is its key.
    monkeypatch.setenv("CALLS_LEFT", "1")

    def interrupted(problem, count, seed):
        left = int(os.environ["CALLS_LEFT"])
        if left == 0:
            raise KeyboardInterrupt
        os.environ["CALLS_LEFT"] = str(left - 1)
        return kept[seed]

    file = tmp_path / "sbc.npz"
    with pytest.raises(KeyboardInterrupt):
        calibrate(brain_of(), TWO, **common, posterior=interrupted, checkpoint=file)
    assert len(np.load(file)["done"]) == 30
    with pytest.raises(InputError, match="other settings"):
        calibrate(brain_of(), TWO, **common, checkpoint=file)
    monkeypatch.setenv("CALLS_LEFT", "100")
    again = calibrate(brain_of(), TWO, **common, posterior=interrupted, checkpoint=file)
    pd.testing.assert_frame_equal(again.ranks, honest.ranks)
    pd.testing.assert_frame_equal(again.estimates, honest.estimates)
    with pytest.raises(InputError, match="other settings"):
        calibrate(brain_of(), TWO, **common | {"seed": 4}, checkpoint=file)


def test_tables_against_known_ranks():
    uniform = of_ranks(np.repeat(np.arange(100), 5))
    assert np.allclose(uniform.coverage()["covered"], uniform.coverage()["nominal"])
    assert uniform.uniformity()["uniform"].all()
    assert not of_ranks(np.repeat(np.arange(50), 10)).uniformity()["uniform"].any()


def test_uniformity_alarms_as_rarely_as_it_says():
    generator = np.random.default_rng(5)
    alarms = [
        not of_ranks(generator.integers(0, 100, 200))
        .uniformity(alarm=0.05)["uniform"]
        .all()
        for _ in range(400)
    ]
    assert sum(alarms) <= 33  # binomial(400, .05): 33 or fewer with probability .998


@pytest.mark.slow
def test_truths_come_from_the_prior_where_the_brain_is_stable():
    free = {"strength": LogNormal(np.log(0.35), 0.4)}
    truths, refused = stable_truths(brain_of(), free, 100, balanced, 0)
    assert refused < 0.02 and abs(truths.mean().item() - np.log(0.35)) < 4 * 0.4 / 10
    _, refused = stable_truths(
        brain_of(), {"strength": LogNormal(np.log(1.5), 0.4)}, 20, balanced, 0
    )
    assert refused > 0.1


def test_a_failed_fit_is_counted_and_left_out(common):
    from cingulum.errors import ConvergenceError

    def sometimes(problem, count, seed):
        if problem.recorded.batch[0] > 1 or seed % 7 == 0:
            raise ConvergenceError("no")
        return torch.zeros(count, 1, 2)

    found = calibrate(
        brain_of(), TWO, **common | {"fits": 10, "batch": 10}, posterior=sometimes
    )
    assert 1 <= found.failed <= 2 and len(found.ranks) == 10 - found.failed


@pytest.mark.slow
def test_rank_plot_is_a_picture(honest):
    assert png(rank_plot(honest)).startswith(b"\x89PNG")


def test_default_priors_name_what_a_brain_has():
    truths, refused = stable_truths(brain_of(), default_priors(), 50, balanced, 0)
    assert truths.shape == (50, 4) and refused < 0.1
