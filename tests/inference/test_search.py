"""The search by gradient: optimisers, starts, interruption, patience, free kinds,
methods, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import LogNormal, Normal, Uniform

from cingulum.brain import Connectome, with_values
from cingulum.brain.masses import JansenRit
from cingulum.errors import ConvergenceError, InputError
from cingulum.inference import (
    Cleaning,
    Gains,
    Likelihood,
    Mapped,
    Runs,
    fc_error,
    fc_mismatch,
    fit,
)
from cingulum.inference.optimise import _SearchState
from cingulum.simulation import analytic_fc, balanced
from cingulum.timeseries import TimeSeries

PRIOR = {"strength": LogNormal(np.log(0.3), 0.7)}
QUICK = {"prepare": balanced, "method": "analytic", "steps": 60}


@pytest.fixture
def target(brain):
    return analytic_fc(balanced(with_values(brain, {"strength": 0.5})))


@pytest.mark.parametrize("optimiser", ["Adam", "RMSprop", "Adagrad", "LBFGS", "Newton"])
def test_optimisers_lead_to_the_same_place(brain, target, optimiser):
    rate = {"Adagrad": 0.3, "LBFGS": 0.5}.get(optimiser, 0.05)
    result = fit(
        brain,
        target,
        PRIOR,
        objective={fc_mismatch: 100.0},
        optimiser=optimiser,
        rate=rate,
        **QUICK,
    )
    assert result.estimates["strength"].item() == pytest.approx(0.5, rel=0.02)


def test_an_optimiser_may_be_a_function(brain, target):
    def heavy(parameters, lr):
        return torch.optim.SGD(parameters, lr=lr / 500, momentum=0.8)

    result = fit(
        brain, target, PRIOR, objective={fc_mismatch: 100.0}, optimiser=heavy, **QUICK
    )
    assert result.estimates["strength"].item() == pytest.approx(0.5, rel=0.05)
    with pytest.raises(InputError, match="Adam"):
        fit(brain, target, PRIOR, optimiser="Adamm", **QUICK)


def test_an_interrupted_fit_goes_on_to_the_same_numbers(
    brain, target, tmp_path, monkeypatch
):
    free = PRIOR | {"mass.w_plus": LogNormal(np.log(1.4), 0.1).expand([8])}
    whole = fit(brain, target, free, starts=2, **QUICK)
    step, file = _SearchState.step, tmp_path / "fit.pt"

    def interrupted(self, assess, number, method):
        if number == 40:
            raise KeyboardInterrupt
        step(self, assess, number, method)

    monkeypatch.setattr(_SearchState, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(brain, target, free, starts=2, checkpoint=file, **QUICK)
    monkeypatch.setattr(_SearchState, "step", step)
    resumed = fit(brain, target, free, starts=2, checkpoint=file, **QUICK)
    for path, value in whole.estimates.items():
        torch.testing.assert_close(resumed.estimates[path], value, rtol=0, atol=0)
    assert resumed.history.equals(whole.history)
    other = free | {"strength": LogNormal(np.log(0.3), 0.1)}
    changes = [
        {"starts": 3},
        {"starts": 2, "objective": fc_error},
        {"starts": 2, "prepare": lambda b: b},
    ]
    for changed in changes:
        with pytest.raises(InputError, match="other settings or data"):
            fit(brain, target, free, checkpoint=file, **{**QUICK, **changed})
    with pytest.raises(InputError, match="other settings or data"):
        fit(brain, target, other, starts=2, checkpoint=file, **QUICK)
    with pytest.raises(InputError, match="keeps no checkpoint"):
        fit(brain, target, free, checkpoint=file, **{**QUICK, "optimiser": "Newton"})
    file.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="is not a checkpoint"):
        fit(brain, target, free, starts=2, checkpoint=file, **QUICK)


@pytest.mark.slow
def test_patience_ends_a_search_that_goes_nowhere(brain, target):
    settings = {**QUICK, "steps": 150, "rate": 0.1}
    result = fit(brain, target, PRIOR, patience=20, **settings)
    assert 20 < len(result.history) < 150
    assert result.estimates["strength"].item() == pytest.approx(
        fit(brain, target, PRIOR, patience=None, **settings)
        .estimates["strength"]
        .item(),
        rel=0.02,
    )
    assert {"method", "step", "loss", "fc_mismatch", "fc_r", "loop_gain"} <= set(
        result.history
    )


def test_several_starts_keep_the_best_one(brain, target):
    short = {**QUICK, "steps": 3}
    result = [
        fit(
            brain, target, PRIOR, objective={fc_error: 100.0}, starts=n, seed=4, **short
        )
        for n in (1, 8)
    ]
    single, best = (f.problem.analytic(f.theta).loss.item() for f in result)
    assert best < single
    with pytest.raises(InputError, match="at least 1"):
        fit(brain, target, PRIOR, starts=0, **QUICK)


def test_lines_in_maps_and_their_names(brain):
    maps = torch.randn(2, 8, generator=torch.Generator().manual_seed(2))
    truth = torch.exp(np.log(1.4) + 0.08 * maps[0])
    target = analytic_fc(balanced(with_values(brain, {"mass.w_plus": truth})))
    free = {
        "mass.w_plus": Mapped(
            LogNormal(np.log(1.4), 0.05), maps, 0.2, ("myelin", "gradient")
        )
    }
    result = fit(
        brain,
        target,
        free,
        objective={fc_error: 100.0},
        **{**QUICK, "optimiser": "Newton"},
    )
    assert result.coordinates() == [
        "mass.w_plus mean",
        "mass.w_plus myelin",
        "mass.w_plus gradient",
    ]
    assert result.theta["mass.w_plus"][1:].tolist() == pytest.approx(
        [0.08, 0.0], abs=0.02
    )
    assert np.corrcoef(result.brain.mass.w_plus, truth)[0, 1] > 0.98
    with pytest.raises(InputError, match="maps"):
        fit(
            brain,
            target,
            {"mass.w_plus": Mapped(LogNormal(0.3, 0.1), maps[:, :5])},
            **QUICK,
        )


@pytest.mark.slow
def test_connection_weights_keep_what_is_absent_absent(brain):
    weights = brain.connectome.weights.clone()
    weights[0, 1] = weights[1, 0] = 0.0
    brain = with_values(brain, {"connectome": Connectome(weights, brain.regions)})
    stronger = weights.clone()
    stronger[2, 3] = stronger[3, 2] = 3 * weights[2, 3]
    target = analytic_fc(
        balanced(
            with_values(brain, {"connectome": Connectome(stronger, brain.regions)})
        )
    )
    free = {"connectome.weights": Gains(spread=1.0)}
    result = fit(
        brain, target, free, objective={fc_error: 100.0}, **{**QUICK, "steps": 100}
    )
    fitted = result.brain.connectome.weights
    assert fitted[0, 1] == 0 and torch.equal(fitted, fitted.T)
    assert (fitted / weights.clamp_min(1e-12))[2, 3] > 1.7 and result.fc_r > 0.999
    # Shrunk towards the tractography: with a narrow prior nearly nothing moves.
    held = fit(
        brain, target, {"connectome.weights": Gains(spread=0.01)}, **QUICK
    ).brain.connectome.weights
    assert (held - weights).abs().max() < 0.1 * (fitted - weights).abs().max()


def test_both_roads_say_which_of_them_gave_the_numbers(brain, scan):
    runs = Runs(minutes=1.0, runs=1, discard=5.0)
    result = fit(brain, scan(), PRIOR, prepare=balanced, steps=20, refine=2, runs=runs)
    assert set(result.history["method"]) == {"analytic", "simulated"} and result.method[
        0
    ] in ("analytic", "simulated")
    only = fit(
        brain, scan(), PRIOR, prepare=balanced, method="simulated", steps=3, runs=runs
    )
    assert only.method == ["simulated"] and set(only.history["method"]) == {"simulated"}
    assert "method" in str(result) and "leading eigenvalue" in str(result)
    with pytest.raises(InputError, match="method"):
        fit(brain, scan(), PRIOR, method="analytical")


def test_simulated_road_finds_the_planted_coupling(brain, scan):
    """Common noise: the same seed on both sides, so that the loss has its foot at the
    truth, not near it."""
    runs = Runs(
        minutes=4.0,
        runs=1,
        dt=0.004,
        discard=30.0,
        vascular_step=0.004,
        seed=1,
        fresh=False,
    )
    recorded = scan(0.6, 240.0)
    result = fit(
        brain,
        recorded,
        {"strength": LogNormal(np.log(0.4), 0.5)},
        objective={fc_error: 100.0},
        prepare=balanced,
        method="simulated",
        steps=25,
        rate=0.05,
        runs=runs,
    )
    assert result.estimates["strength"].item() == pytest.approx(0.6, rel=0.1)
    assert result.history["loss"].iloc[-1] < result.history["loss"].iloc[0]


@pytest.mark.slow
def test_the_search_can_be_asked_to_stay_near_the_bifurcation(brain, target):
    margins = [
        fit(
            brain, target, PRIOR, near_bifurcation=wanted, **{**QUICK, "steps": 80}
        ).stability.margin
        for wanted in (2.0, 4.0)
    ]
    assert margins == pytest.approx([2.0, 4.0], rel=0.1)


@pytest.mark.slow
def test_a_start_that_is_unstable_is_moved_or_refused_with_its_eigenvalue(
    brain, target
):
    result = fit(
        brain,
        target,
        {"strength": LogNormal(np.log(3.0), 0.5)},
        objective={fc_mismatch: 100.0},
        **QUICK,
    )
    assert result.loop_gain < 0.9 and result.stability.stable
    with pytest.raises(InputError, match="leading local eigenvalue"):
        fit(
            with_values(brain, {"strength": 5.0}),
            target,
            {"mass.w_plus": LogNormal(np.log(1.4), 0.05)},
            **QUICK,
        )
    unruly = with_values(brain, {"mass": JansenRit(p=120.0), "strength": 0.1})
    with pytest.raises((InputError, ConvergenceError), match="stable"):
        fit(
            unruly,
            target,
            {"mass.a": LogNormal(np.log(100.0), 0.01)},
            method="analytic",
            steps=5,
        )


def without_connection(brain):
    weights = brain.connectome.weights.clone()
    weights[3] = weights[:, 3] = 0.0
    return with_values(brain, {"connectome": Connectome(weights, brain.regions)})


def holed(signal):
    data = signal.data.clone()
    data[2, 5] = float("nan")
    return replace(signal, data=data)


BAD = {
    "a region without connection": (
        without_connection,
        lambda s: s,
        PRIOR,
        {},
        "no connection: r3",
    ),
    "too short": (
        lambda b: b,
        lambda s: s.between(0, 15),
        PRIOR,
        {},
        "15 samples is too short",
    ),
    "another TR": (
        lambda b: with_values(b, {"sensor.tr": 2.0}),
        lambda s: s,
        PRIOR,
        {},
        "the brain's sensor 2.0",
    ),
    "NaN": (lambda b: b, holed, PRIOR, {}, "r2|NaN|finite|missing"),
    "NaN in connectivity": (
        lambda b: b,
        lambda s: torch.full((8, 8), float("nan")),
        PRIOR,
        {},
        "has NaN",
    ),
    "a prior over values that cannot be": (
        lambda b: b,
        lambda s: s,
        {"noise": Normal(0.0, 1.0)},
        {},
        "noise",
    ),
    "a prior above the domain": (
        lambda b: b,
        lambda s: s,
        {"sensor.response.kappa": Uniform(-5.0, -1.0)},
        {},
        "kappa",
    ),
    "a prior bounded below zero": (
        lambda b: b,
        lambda s: s,
        {"strength": Uniform(-0.5, 1.0)},
        {},
        "below zero",
    ),
    "nothing free": (lambda b: b, lambda s: s, {}, {}, "free"),
    "a band beyond Nyquist": (
        lambda b: b,
        lambda s: s,
        PRIOR,
        {"cleaning": Cleaning(band=(0.8, 2.0))},
        "Nyquist",
    ),
    "the likelihood of a matrix": (
        lambda b: b,
        lambda s: torch.eye(8),
        PRIOR,
        {"objective": Likelihood()},
        "Series",
    ),
    "recordings of two lengths": (
        lambda b: b,
        lambda s: [s, s.between(0, 300)],
        PRIOR,
        {},
        "one length",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_a_clear_error(brain, scan, case):
    change, damage, free, options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        fit(change(brain), damage(scan()), free, **{**QUICK, "steps": 2} | options)


def test_recordings_of_other_regions_are_refused(brain, scan):
    signal = scan()
    with pytest.raises(InputError, match="same regions in the same order"):
        fit(brain, TimeSeries(signal.data, 0.72, signal.regions[::-1]), PRIOR, **QUICK)
