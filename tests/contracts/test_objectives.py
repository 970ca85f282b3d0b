"""What every objective promises. A new objective is found by its export line."""

import inspect

import pytest
import torch

from cingulum import inference
from cingulum.brain import Brain, Sensor, with_values
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.inference import Cleaning, objectives
from cingulum.inference.objectives import is_likelihood, name_of
from cingulum.inference.views import Analytic, Recorded, Simulated
from cingulum.simulation import balanced, simulate

TRUTH, WEAKER, STRONGER = 0.4, 0.2, 0.8
"""Coupling strengths: of the recording, and of two models that are wrong."""

METHODS = ("analytic", "simulated")


def is_objective(value):
    """A function of (model, recorded), or a class whose instances are called so."""
    function = value.__call__ if inspect.isclass(value) else value
    if not inspect.isfunction(function):
        return False
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return names == ["model", "recorded"]


EXPORTED = [value for value in vars(inference).values() if is_objective(value)]
OBJECTIVES = [
    value() if inspect.isclass(value) else value  # classes with their defaults
    for value in EXPORTED
]


@pytest.fixture(scope="module")
def brain():
    """Eight balanced regions at the true coupling, with measurement noise."""
    torch.set_default_dtype(torch.float64)  # before the fixture of every test does
    positions = 80 * torch.rand(8, 3, generator=torch.Generator().manual_seed(8)) - 40
    connectome = distance_rule(positions, tuple(f"r{i}" for i in range(8)))
    sensor = Sensor(tr=0.72, noise=0.005)
    plain = Brain(ReducedWongWang(), connectome, sensor, strength=TRUTH, noise=0.015)
    return balanced(plain)


@pytest.fixture(scope="module")
def view(brain):
    """(method, strength or batch of them) → a view of the model, of one noise."""

    def viewed(method, strength):
        model = with_values(brain, {"strength": strength})
        if method == "analytic":
            return Analytic(model)
        return Simulated(model, run(model))

    return viewed


@pytest.fixture(scope="module")
def recorded(brain):
    """The recording: the simulated view's only run at the true coupling."""
    signal = run(with_values(brain, {"strength": torch.tensor(TRUTH)}))
    single = signal.data[0].detach()
    series = type(signal)(single, signal.tr, signal.regions, signal.unit)
    return Recorded(series, brain, Cleaning())


def run(model):
    """One free run of five minutes, in front of the batch."""
    return simulate(
        model,
        300.0,
        dt=0.004,
        discard=20.0,
        vascular_step=0.004,
        seed=1,
        batch=(1, *model.batch),
    ).signal


@pytest.fixture(scope="module")
def methods(view, recorded):
    """Objective → methods whose views it can be computed from."""

    def possible(objective):
        serving = []
        for method in METHODS:
            try:
                objective(view(method, torch.tensor(TRUTH)), recorded)
            except InputError:
                continue
            serving.append(method)
        return serving

    return possible


def test_every_objective_is_exported():
    """What the module defines, a user of the package finds."""
    defined = [
        value
        for name, value in vars(objectives).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == objectives.__name__
        and is_objective(value)
    ]
    assert defined and set(defined) <= set(EXPORTED)
    assert len({name_of(objective) for objective in OBJECTIVES}) == len(OBJECTIVES)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name_of)
def test_is_a_finite_number_with_a_gradient(view, recorded, methods, objective):
    serving = methods(objective)
    assert serving, "needs the analytic or the simulated view"
    for method in serving:
        strength = torch.tensor(STRONGER, requires_grad=True)
        mismatch = objective(view(method, strength), recorded)
        assert mismatch.shape == () and torch.isfinite(mismatch)
        (slope,) = torch.autograd.grad(mismatch, strength)
        assert torch.isfinite(slope) and slope != 0


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name_of)
def test_gives_every_batch_member_its_own_number(view, recorded, methods, objective):
    strengths = torch.tensor([[WEAKER], [TRUTH], [STRONGER]])
    for method in methods(objective):
        # Simulations of several members draw other noise than one alone.
        together = objective(view(method, strengths), recorded)
        assert together.shape == (3,) and torch.isfinite(together).all()
        if method == "analytic":
            alone = [
                objective(view(method, strength), recorded) for strength in strengths
            ]
            torch.testing.assert_close(together, torch.stack(alone).reshape(3))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name_of)
def test_is_smallest_at_the_truth(view, recorded, methods, objective):
    """Simulated with the recording's noise where possible: against the closed form, a
    recording is uncertain. A wrong coupling also moves the working point."""
    method = methods(objective)[-1]
    truth, weaker, stronger = (
        objective(view(method, torch.tensor(strength)), recorded)
        for strength in (TRUTH, WEAKER, STRONGER)
    )
    assert truth < weaker and truth < stronger


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name_of)
def test_is_zero_where_the_model_is_the_recording(view, recorded, methods, objective):
    """Of every mismatch between model and recording; a likelihood has no zero, and a
    penalty does not look at the recording."""
    if is_likelihood(objective) or "simulated" not in methods(objective):
        pytest.skip("has no zero")
    same = view("simulated", torch.tensor(TRUTH))
    other = Recorded(torch.eye(8), same.brain, Cleaning())
    if _ignores_recording(objective, same, recorded, other):
        pytest.skip("does not look at the recording")
    assert objective(same, recorded).abs() < 1e-12


def _ignores_recording(objective, model, recorded, other):
    try:
        return bool(objective(model, recorded) == objective(model, other))
    except InputError:  # it needs signals, which the other recording does not have
        return False
