"""What people have in hand becomes what a brain keeps, or is refused by name: nothing
unchecked reaches the engine, and nothing changes behind a brain's back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import LogNormal

from cingulum import (
    Brain,
    Connectome,
    InputError,
    JansenRit,
    Kuramoto,
    Linear,
    ReducedWongWang,
    Sensor,
    TimeSeries,
    balanced,
    fc,
    fit,
    simulate,
    with_values,
)
from cingulum.brain.connectome import check_symmetry
from cingulum.brain.haemodynamics import Amplifier
from cingulum.inference import FcdMismatch, Likelihood, Runs, fc_mismatch
from cingulum.measures import edges

NAMES = tuple("abcdef")


def weights(n: int = 6) -> torch.Tensor:
    w = torch.rand(n, n, generator=torch.Generator().manual_seed(0))
    return w + w.T


def brain(mass=None, **settings) -> Brain:
    connectome = Connectome(weights(), NAMES).normalised()
    return Brain(mass or Linear(), connectome, Sensor(tr=0.1), **settings)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (-torch.ones(6, 6), "not negative"),
        (torch.full((6, 6), math.nan), "finite"),
        (torch.ones(5, 5), r"shape \(6, 6\)"),
        ("long", "array of numbers"),
    ],
)
def test_lengths_that_are_none(lengths, message):
    with pytest.raises(InputError, match=message):
        Connectome(weights(), NAMES, lengths)


@pytest.mark.parametrize("speed", [-5.0, 0.0, math.nan])
def test_a_speed_that_is_none(speed):
    connectome = Connectome(weights(), NAMES, torch.full((6, 6), 30.0))
    moving = Brain(Linear(), connectome, Sensor(tr=0.1), speed=speed)
    with pytest.raises(InputError, match="speed"):
        simulate(moving, 0.5)


def test_delays_are_checked_whatever_they_were_made_of():
    """A connectome whose check was passed by, as a fit's own: the engine does not
    trust it."""
    connectome = Connectome(weights(), NAMES, torch.full((6, 6), 30.0))
    object.__setattr__(connectome, "lengths", torch.full((6, 6), -3e5))
    with pytest.raises(InputError, match="delays"):
        simulate(Brain(Linear(), connectome, Sensor(tr=0.1), speed=1.0), 0.5)


@pytest.mark.parametrize("names", [("a",) * 6, ("", *NAMES[1:]), (1, 2, 3, 4, 5, 6)])
def test_names_that_are_none(names):
    with pytest.raises(InputError, match="Region"):
        Connectome(weights(), names)


@pytest.mark.parametrize(
    ("path", "count"),
    [("noise", 5), ("strength", 3), ("sensor.response.V_0", 3), ("sensor.noise", 2)],
)
def test_regional_values_of_another_number_of_regions(path, count):
    with pytest.raises(InputError, match=f"{path} has {count} values"):
        with_values(brain(), {path: torch.full((count,), 0.02)})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mass.tau_E", 100.0),
        ("mass.tau_I", 10.0),
        ("strength", -3.0),
        ("noise", -0.01),
        ("sensor.response.tau", 980.0),
    ],
)
def test_values_outside_their_range_are_warned_about(path, value):
    strange = with_values(brain(ReducedWongWang()), {path: value})
    with pytest.warns(UserWarning, match=f"{path} = .*plausible range"):
        simulate(strange, 0.5, dt=0.001, start=strange.resting_state())


@pytest.mark.parametrize(
    ("path", "value"), [("mass.tau_E", -0.1), ("strength", math.nan)]
)
def test_values_without_any_sense_are_refused(path, value):
    with pytest.raises(InputError, match=path):
        simulate(with_values(brain(ReducedWongWang()), {path: value}), 0.5)


@pytest.mark.wrong_types
@pytest.mark.parametrize("value", ["0.5", None, [], {"a": 1}, 1j])
def test_values_that_are_no_numbers(value):
    with pytest.raises(InputError, match="strength"):
        brain(strength=value)


@pytest.mark.wrong_types
def test_numbers_of_any_kind():
    counts = (10 * weights()).round().long()
    for given in (counts, counts.numpy(), counts.tolist(), counts.double().numpy()):
        connectome = Connectome(given, list(NAMES)).normalised()
        run = Brain(Linear(), connectome, Sensor(tr=0.1), strength=np.float32(0.3))
        assert simulate(run, 0.2).bold.data.shape == (6, 2)


@pytest.mark.parametrize(
    ("leadfield", "message"),
    [
        (torch.ones(5, 6).index_fill(0, torch.tensor(3), math.nan), "c4"),
        (torch.ones(5, 5), "6 regions"),
        (torch.ones(6, 5), "6 regions"),
        (torch.ones(6), r"\(channel, region\)"),
    ],
)
def test_leadfields_that_are_none(leadfield, message):
    with pytest.raises(InputError, match=message):
        sensor = Sensor(Amplifier(), tr=0.004, leadfield=leadfield)
        Brain(JansenRit(), Connectome(weights(), NAMES), sensor)


def test_a_brain_does_not_change_with_what_it_was_made_of():
    lengths, strength = torch.ones(6, 6), torch.full((6,), 0.3)
    tau = torch.full((6,), 0.2)
    made = Brain(Linear(tau), Connectome(weights(), NAMES, lengths), strength=strength)
    for tensor in (lengths, strength, tau):
        tensor *= 7
    assert made.connectome.lengths.max() == 1.0
    assert made.strength.max().item() == pytest.approx(0.3)
    assert made.mass.tau.max().item() == pytest.approx(0.2)


def test_a_value_with_a_gradient_stays_the_owners():
    strength = torch.tensor(0.3, requires_grad=True)
    assert brain(strength=strength).strength is strength


def test_one_region_and_directed_connectomes_run():
    alone = Connectome(torch.zeros(1, 1), ("column",))
    sensor = Sensor(Amplifier(), tr=0.004)
    run = simulate(Brain(JansenRit(), alone.normalised(), sensor), 0.2, dt=0.0005)
    assert torch.isfinite(run.signal.data).all()
    directed = Connectome([[0, 0, 0], [0, 0, 0], [1, 1, 0]], ("C1", "C2", "C3"))
    assert not directed.is_symmetric
    with pytest.raises(InputError, match="symmetric"):
        check_symmetry(directed)
    ends = [
        simulate(Brain(Linear(), directed, Sensor(tr=0.1)), 0.5, engine=engine).end
        for engine in ("compiled", "reference")
    ]
    torch.testing.assert_close(ends[0].neural, ends[1].neural, rtol=1e-10, atol=1e-12)


def test_a_default_run_has_no_transient():
    """Connectivity of the first five minutes is that of later ones; from rest it is
    near one everywhere."""
    model = Brain(ReducedWongWang(), brain().connectome, Sensor(tr=1.0), strength=0.3)
    model = balanced(model)

    def mean_fc(**settings) -> float:
        run = simulate(model, 300.0, dt=0.004, seed=1, **settings)
        return edges(fc(run.bold)).mean().item()

    assert abs(mean_fc() - mean_fc(discard=20.0)) < 0.05
    assert mean_fc(start=model.resting_state()) > 0.9


def test_a_brain_that_never_rests_says_where_it_begins():
    turning = brain(Kuramoto(frequency=torch.linspace(0.04, 0.08, 6)), strength=0.3)
    with pytest.warns(UserWarning, match="discard"):
        simulate(turning, 0.5, dt=0.01)


def test_a_member_of_a_batch_can_be_run_alone():
    strengths = torch.linspace(0.1, 0.5, 6).unsqueeze(-1)
    many = balanced(with_values(brain(ReducedWongWang()), {"strength": strengths}))
    sweep = simulate(many, 2.0, dt=0.004, seed=3).bold.data
    one = balanced(with_values(brain(ReducedWongWang()), {"strength": strengths[4]}))
    for engine in ("compiled", "reference"):
        alone = simulate(one, 2.0, dt=0.004, seed=3, first=4, engine=engine).bold.data
        torch.testing.assert_close(alone, sweep[4], rtol=1e-9, atol=1e-12)


@pytest.mark.wrong_types
@pytest.mark.parametrize("seed", [None, 1.5, -1, True, "0"])
def test_seeds_that_are_none(seed):
    with pytest.raises(InputError, match="seed"):
        simulate(brain(), 0.5, seed=seed)


@pytest.mark.parametrize("tr", [0.8754, 1.0505, 2.0833])
def test_the_step_that_an_error_advises_is_taken(tr):
    run = Brain(Linear(), brain().connectome, Sensor(tr=tr))
    with pytest.raises(InputError) as caught:
        simulate(run, 5.0)
    advised = float(str(caught.value).split("dt = ")[-1].rstrip("."))
    assert simulate(run, 5.0, dt=advised).bold.data.shape == (6, int(5.0 / tr))


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0, 4.0])
def test_an_amplifier_filters_at_any_step(ratio):
    """The answer to activity that stays the same is 1 − exp(−t / τ), however long the
    steps are beside τ."""
    response = Amplifier(tau=0.002)
    y, u = torch.zeros(1, 3), torch.ones(3)
    for _ in range(4):
        y = response.advance(y, u, ratio * 0.002)
    expected = 1 - math.exp(-4 * ratio)
    torch.testing.assert_close(y[0], torch.full((3,), expected))


def recording(unit: str = "percent") -> TimeSeries:
    generator = torch.Generator().manual_seed(0)
    return TimeSeries(torch.randn(6, 120, generator=generator), 0.1, NAMES, unit)


FREE = {"strength": LogNormal(-1.0, 0.5)}


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("recorded", "free", "objective", "message"),
    [
        (recording().data.numpy(), FREE, fc_mismatch, "TimeSeries"),
        (recording(), {"strength": 0.5}, fc_mismatch, "prior"),
        (recording(), FREE, "fc", "function of two views"),
        (3 * torch.eye(6), FREE, fc_mismatch, "no matrix of correlations"),
    ],
)
def test_what_a_fit_cannot_take(recorded, free, objective, message):
    with pytest.raises(InputError, match=message):
        fit(brain(), recorded, free, objective=objective, steps=1)


def test_units_are_compared_where_they_matter():
    options = {"method": "analytic", "steps": 1, "objective": Likelihood()}
    with pytest.warns(UserWarning, match=r"in a\.u\., the sensor gives percent"):
        fit(brain(), recording("a.u."), FREE, **options)


def test_time_courses_wait_for_the_simulations():
    """An objective that the closed form cannot see does not keep the others from a
    warm start; alone, it is fitted by simulations only."""
    runs = Runs(minutes=0.5, runs=1, discard=0.0)
    dynamics = FcdMismatch(window=3.0, step=1.0)
    options = {"method": "both", "steps": 2, "refine": 2, "runs": runs}
    both = fit(
        brain(),
        recording(),
        FREE,
        objective={fc_mismatch: 1.0, dynamics: 1.0},
        **options,
    )
    methods = both.history.groupby("method")["FcdMismatch"].count()
    assert methods["analytic"] == 0 and methods["simulated"] > 0
    alone = fit(brain(), recording(), FREE, objective=dynamics, **options)
    assert set(alone.history["method"]) == {"simulated"}
