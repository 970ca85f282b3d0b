"""A mass that breaks its own declarations is named, with what to change."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from cingulum.brain import Brain, Connectome, with_values
from cingulum.brain.dynamics import Dynamics, State, Value, param
from cingulum.brain.masses import WongWang
from cingulum.brain.sensor import Sensor
from cingulum.errors import InputError
from cingulum.simulation import equilibria, fixed_point, simulate, stability

REGIONS = tuple("abc")


@dataclass(frozen=True, eq=False)
class TwoSignals(Dynamics):
    """Two coupling variables, declared or not."""

    rate: Value = param(1.0, "1/s", 0.1, 10.0, "rate of return")

    states: ClassVar = (State("x", 0.0), State("y", 0.0))
    couplings: ClassVar = 2

    def drift(self, x, u):
        from_x, from_y = u
        return torch.stack([from_x - self.rate * x[0], from_y - self.rate * x[1]])

    def output(self, x):
        return torch.stack([x[0], x[1]])


class DeclaresOne(TwoSignals):
    couplings: ClassVar = 1


class SendsOne(TwoSignals):
    """Declares two signals and sends one."""

    def output(self, x):
        return x[0]


class WithoutAxis(DeclaresOne):
    """One signal as it was before it had an axis."""

    def output(self, x):
        return x[0]


class DeclaresOneTakesTwo(DeclaresOne):
    """Its output keeps to the declaration, its drift does not."""

    def output(self, x):
        return x[:1]


class StackedInput(DeclaresOneTakesTwo):
    """Takes the only signal for a value per region."""

    def drift(self, x, u):
        return torch.stack([u - self.rate * x[0], u - self.rate * x[1]])


class DeclaresTwoTakesOne(TwoSignals):
    def drift(self, x, u):
        return torch.stack([u - self.rate * x[0], -self.rate * x[1]])


class AddsItsInput(TwoSignals):
    """Takes the two signals for one without an error of shapes."""

    def drift(self, x, u):
        return u.unsqueeze(0) - self.rate * x


class OneRate(TwoSignals):
    def drift(self, x, u):
        return torch.stack([u[0] - self.rate * x[0]])


class ThreeStates(TwoSignals):
    def drift(self, x, u):
        return torch.stack([u[0] - x[0], u[1] - x[1], -x[2]])


class StackedActivity(TwoSignals):
    def activity(self, x):
        return x


def brain(mass, **options):
    weights = torch.ones(3, 3) - torch.eye(3)
    return Brain(mass, Connectome(weights, REGIONS), strength=0.1, **options)


CASES = [
    (
        DeclaresOne,
        r"DeclaresOne\.output must return shape \(1, 3\), as couplings = 1 declares; "
        r"got \(2, 3\)\. Declare `couplings: ClassVar = 2`",
    ),
    (
        SendsOne,
        r"SendsOne\.output must return shape \(2, 3\), as couplings = 2 declares; got "
        r"\(3,\)\. Return torch\.stack of 2 signals, or declare `couplings: ClassVar = "
        r"1` and return `signal\[None\]`",
    ),
    (
        WithoutAxis,
        r"WithoutAxis\.output must return shape \(1, 3\), as couplings = 1 declares; "
        r"got \(3,\)\. .*return `x\[:1\]`, or `signal\[None\]`, and unpack .*"
        r"`\(received,\) = u`",
    ),
    (
        StackedInput,
        r"StackedInput\.drift must return shape \(2, 3\), .*got \(2, 1, 3\)\. Return "
        r"torch\.stack of 2 rates, .*\(one: `\(received,\) = u`\)",
    ),
    (
        DeclaresOneTakesTwo,
        r"DeclaresOneTakesTwo\.drift failed on 2 states x of shape \(2, 3\) and an "
        r"input u of shape \(1, 3\), as couplings = 1 declares: .*Make `drift` take",
    ),
    (
        DeclaresTwoTakesOne,
        r"DeclaresTwoTakesOne\.drift failed on .* input u of shape \(2, 3\), as "
        r"couplings = 2 declares",
    ),
    (
        AddsItsInput,
        r"AddsItsInput\.drift must return shape \(2, 3\), .*got \(1, 2, 3\)\. Return "
        r"torch\.stack of 2 rates",
    ),
    (
        OneRate,
        r"OneRate\.drift must return shape \(2, 3\), the rate of each of the declared "
        r"states x, y; got \(1, 3\)\. Return torch\.stack of 2 rates, or declare 1 "
        r"states",
    ),
    (ThreeStates, r"ThreeStates\.drift failed on 2 states x of shape \(2, 3\)"),
    (
        StackedActivity,
        r"StackedActivity\.activity must return shape \(3,\), .*got \(2, 3\)",
    ),
]
RUNS = {
    "simulate": lambda mass: simulate(brain(mass), 1.44),
    "reference": lambda mass: simulate(brain(mass), 1.44, engine="reference"),
    "fixed_point": lambda mass: fixed_point(brain(mass)),
    "stability": lambda mass: stability(brain(mass)),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize(
    ("mass", "message"), CASES, ids=lambda c: getattr(c, "__name__", "")
)
def test_says_which_mass_breaks_its_declaration_and_what_to_change(mass, message, run):
    with pytest.raises(InputError, match=message):
        run(mass())


def test_equilibria_of_one_region_say_so_too():
    with pytest.raises(InputError, match="DeclaresOne.output must return shape"):
        equilibria(DeclaresOne())


def test_a_parameter_with_values_for_another_number_of_regions_is_named():
    with pytest.raises(InputError, match="mass.rate has 4 values.*3 .one per region"):
        with_values(brain(TwoSignals()), {"mass.rate": torch.ones(4)})


def test_a_mass_that_keeps_to_its_declaration_runs_batched_or_not():
    strength = torch.tensor([[0.1], [0.2]])
    batched = with_values(brain(TwoSignals()), {"strength": strength})
    assert simulate(brain(TwoSignals()), 1.44).bold.data.shape == (3, 2)
    assert simulate(batched, 1.44).bold.data.shape == (2, 3, 2)


def test_states_without_a_batch_are_fine_under_batched_parameters():
    batched = with_values(brain(WongWang()), {"strength": torch.tensor([[0.1], [0.2]])})
    assert fixed_point(batched, torch.full((1, 3), 0.1)).shape == (1, 2, 3)


@pytest.mark.parametrize("members", [2, 3])
def test_couplings_are_not_paired_with_members_of_a_batch(members):
    """Two signals beside a batch of as many, or of more, strengths or connectomes."""
    alone = brain(TwoSignals())
    shares = torch.linspace(0.1, 0.3, members)
    weights = shares[:, None, None] * alone.connectome.weights
    joined = Connectome(weights, REGIONS)
    x = torch.tensor([[0.1, 0.2, 0.4], [0.3, -0.1, 0.2]])
    expected = shares[:, None] * alone.coupling(x).unsqueeze(1)
    strengths = with_values(alone, {"strength": 0.1 * shares[:, None]})
    connectomes = with_values(alone, {"connectome": joined})
    for batched in (strengths, connectomes):
        torch.testing.assert_close(batched.coupling(x), expected)
        settled = fixed_point(batched, x)
        assert settled.shape == (2, members, 3)
        for engine in ("reference", "compiled"):
            run = simulate(batched, 1.44, start=x, engine=engine)
            assert run.bold.data.shape == (members, 3, 2)


def test_a_mass_is_no_response_of_a_sensor():
    with pytest.raises(InputError, match="Derive your class from Response"):
        Sensor(response=TwoSignals())
