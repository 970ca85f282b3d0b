"""The scoreboard of a fit."""

import numpy as np
import pytest
import torch
from torch.distributions import LogNormal

from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.haemodynamics import Amplifier
from cingulum.brain.leadfield import electrode_cap, sphere_leadfield
from cingulum.brain.masses import JansenRit
from cingulum.errors import InputError
from cingulum.inference import (
    Cleaning,
    Gains,
    Mapped,
    Runs,
    Spectrum,
    fit,
    fit_and_verify,
    verify,
)
from cingulum.inference.free_parameters import free_parameters_of
from cingulum.inference.linear_control import (
    equal_control,
    individual_part,
    linear_network,
)
from cingulum.simulation import analytic_fc, balanced, simulate

FREE = {
    "strength": LogNormal(np.log(0.3), 0.5),
    "noise": LogNormal(np.log(0.01), 0.5).expand([8]),
}
RUNS = Runs(minutes=4.0, runs=1, discard=20.0)


def test_scoreboard_has_every_rival(brain, scan):
    first, second = scan(0.8, seed=1), scan(0.8, seed=2)
    group = analytic_fc(balanced(with_values(brain, {"strength": 0.6})))
    found = fit(
        brain, first, FREE, prepare=balanced, method="analytic", steps=60, runs=RUNS
    )
    board = verify(found, second, group=group, seeds=3)
    assert set(board.table.index) == {
        "free-running model",
        "analytic model",
        "linear control",
        "connectome (SC–FC)",
        "group connectivity",
        "the recording itself (reliability)",
    }
    assert board.table.loc[
        "the recording itself (reliability)", "train"
    ] == pytest.approx(1.0)
    assert board.table.loc["free-running model", "free_parameters"] == 9
    assert board.table.loc["linear control", "free_parameters"] == 9
    assert 0 < board.table.loc["free-running model", "spread"] < 0.5
    assert board.table["held_out"].between(-1, 1).all() and np.isnan(
        board.table.loc["group connectivity", "individual"]
    )
    text = str(board)
    assert (
        "lag-one" in text
        and "FCD distance (KS; windows 60 s" in text
        and "leading eigenvalue" in text
    )


def test_a_recording_alone_is_split_in_halves(brain, scan):
    board = fit_and_verify(
        brain,
        scan(0.8),
        FREE,
        seeds=2,
        prepare=balanced,
        method="analytic",
        steps=20,
        runs=RUNS,
    )
    assert board.fit.problem.recorded.series.data.shape[-1] == 300
    assert board.table["held_out"].notna().all()


def test_batches_are_verified_one_by_one(brain, scan):
    pair = fit(
        brain,
        [scan(seed=1), scan(seed=2)],
        FREE,
        prepare=balanced,
        method="analytic",
        steps=2,
    )
    with pytest.raises(InputError, match="one recording at a time"):
        verify(pair)
    with pytest.raises(InputError, match="one brain"):
        _ = pair.stability


def test_the_control_is_as_free_as_the_fit(brain):
    target = analytic_fc(balanced(with_values(brain, {"strength": 0.6})))
    maps = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    line = Mapped(LogNormal(-4.0, 0.5), maps)
    for free, size in (
        ({}, 1),
        (FREE, 9),
        ({"noise": line}, 3),
        ({"connectome.weights": Gains()}, 29),
    ):
        free = {"strength": FREE["strength"]} | free
        control = equal_control(
            brain.connectome, target, free_parameters_of(brain, free)
        )
        assert control.parameters == size
    run = linear_network(brain.connectome, target, weights=True)
    assert run.fc_r > 0.999
    torch.testing.assert_close(
        analytic_fc(run.brain(brain.connectome)), run.fc, atol=2e-3, rtol=0
    )


def test_the_individual_part_is_what_goes_beyond_the_group():
    draw = torch.Generator().manual_seed(0)
    group, own, noise = (torch.randn(30, 30, generator=draw) for _ in range(3))
    group, own, noise = ((m + m.T) / 2 for m in (group, own, noise))
    assert individual_part(group + own, group + 2 * own, group) == pytest.approx(1.0)
    assert abs(individual_part(group + noise, group + own, group)) < 0.2


@pytest.mark.slow
def test_channels_are_verified_without_controls_that_are_regions():
    positions = 60 * torch.nn.functional.normalize(
        torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    )
    electrodes, names = electrode_cap(10)
    sensor = Sensor(
        Amplifier(),
        0.004,
        "uV",
        leadfield=sphere_leadfield(positions, electrodes),
        channels=names,
    )
    mass, regions = (
        JansenRit(C=118.0, b=55.0, p=200.0),
        tuple(f"r{i}" for i in range(8)),
    )
    brain = Brain(mass, distance_rule(positions, regions), sensor, strength=1.5)
    brain = with_values(brain, {"noise": 1.0, "sensor.noise": 0.02})
    signal = simulate(brain, 20.0, dt=0.001, scheme="heun", discard=2.0, seed=1).signal
    found = fit(
        brain,
        signal,
        {"mass.a": LogNormal(np.log(100.0), 0.05)},
        objective=Spectrum((3.0, 40.0), 20),
        method="analytic",
        cleaning=Cleaning(band=(2.0, 45.0)),
        optimiser="Newton",
        steps=3,
        runs=Runs(minutes=0.2, runs=1, dt=0.001, discard=1.0, scheme="heun"),
    )
    board = verify(found, seeds=2)
    assert board.control is None and "linear control" not in board.table.index
