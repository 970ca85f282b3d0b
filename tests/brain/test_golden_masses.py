"""Golden numbers that other people's code gave; `benchmarks/conformance` makes such
comparisons afresh.

Drifts: tvb-library 2.10.0, of three regions joined by TVB's own coupling functions at
strength .5. tvboptim 0.4.0 gave the same to 1e-15 for every mass. Printed to 12 digits,
hence the tolerance.
"""

import numpy as np
import pytest
import torch

from cingulum.brain import Brain, Connectome, Sensor, masses, with_values
from cingulum.brain.haemodynamics import CONVENTIONS
from cingulum.simulation import simulate

WEIGHTS = [[0.0, 0.5, 0.3], [0.5, 0.0, 0.2], [0.3, 0.2, 0.0]]
GATING = [[0.05, 0.2, 0.6], [0.02, 0.05, 0.3]]


def brain(mass, **options):
    return Brain(
        mass,
        Connectome(torch.tensor(WEIGHTS), ("a", "b", "c")),
        strength=0.5,
        **options,
    )


DRIFTS = {
    "WongWang": (
        {},
        [[0.05, 0.3, 0.7]],
        [[0.986218459725, -0.54590726137, -2.96517145703]],
    ),
    "ReducedWongWang": (
        {},
        GATING,
        [
            [2.46146726028, -0.0353227426055, -5.99883835943],
            [2.20212004087, -1.7675286216, -29.9993727112],
        ],
    ),
    "GainWongWang": (
        {},
        GATING,
        [
            [8.22118135793, -1.58289448861, -5.99770978761],
            [-1.27439710679, -4.61607699968, -29.9999837079],
        ],
    ),
    "WilsonCowan": (
        {},
        [[0.05, 0.2, 0.4], [0.02, 0.1, 0.3]],
        [
            [-5.36180866423, -18.2291695816, -37.1176134965],
            [-2.27805802993, 0.83254912067, 44.8587466611],
        ],
    ),
    "JansenRit": (
        {},
        [
            [0.05, 0.1, 0.15],
            [10, 18, 25],
            [5, 12, 20],
            [0.5, 0, -1],
            [20, -50, 100],
            [-10, 40, 5],
        ],
        [
            [0.5, 0.0, -1.0],
            [20.0, -50.0, 100.0],
            [-10.0, 40.0, 5.0],
            [-9.23537795755, -187.5, -709.235377958],
            [41203.0500446, 42113.9250555, -55390.1777764],
            [3727.93248398, 701.222717819, 18493.8075477],
        ],
    ),
    "Hopf": (
        {},
        [[0.1, -0.3, 0.5], [0.2, 0.4, -0.1]],
        [
            [-0.109831853072, 0.135336293856, -0.248584073464],
            [0.0224159265359, -0.302247779608, 0.280079632679],
        ],
    ),
    "MontbrioPazoRoxin": (
        {},
        [[5.0, 20.0, 80.0], [-2.0, -0.5, 0.3]],
        [
            [1183.09886184, 1183.09886184, 7983.09886184],
            [-10.4674011003, -205.228417604, 80.0953183303],
        ],
    ),
    # At .1 Hz: at the default 40 Hz the coupling would be lost behind the frequency.
    "Kuramoto": (
        {"frequency": 0.1},
        [[0.1, 2.0, -1.0]],
        [[0.731212448631, 0.37763150799, 0.776111635533]],
    ),
    "Linear": ({}, [[0.2, -0.5, 1.0]], [[-1.75, 6.5, -10.2]]),
}


@pytest.mark.parametrize("name", masses.__all__)
def test_drift_of_tvb(name):
    if name not in DRIFTS:
        pytest.skip(f"no golden values of {name} in DRIFTS")
    values, x, expected = DRIFTS[name]
    drift = brain(with_values(getattr(masses, name)(), values)).drift(
        torch.tensor(x, dtype=torch.float64)
    )
    np.testing.assert_allclose(drift, expected, rtol=5e-11, atol=1e-12)


def test_golden_numbers_are_of_masses_that_exist():
    assert set(DRIFTS) <= set(masses.__all__)


def test_haemodynamics_of_tvb():
    """TVB 2.10.0's BalloonModel with its defaults: four derivatives, and its signal (V0
    = 4, percent)."""
    model = CONVENTIONS["tvb-2.10-balloon"]
    x = torch.tensor(
        [[0.1, -0.05, 0.0], [1.2, 0.9, 1.5], [1.05, 0.97, 1.2], [0.9, 1.02, 0.7]]
    )
    expected = [
        [-0.00382395382395, 0.101911976912, 0.152777777778],
        [0.1, -0.05, 0.0],
        [0.0360136102142, -0.00939254568367, -0.273299633042],
        [0.0425710246856, 0.0187948648487, 0.0521364606227],
    ]
    np.testing.assert_allclose(
        model.drift(x, torch.tensor([0.2, 0.0, 0.5])), expected, rtol=5e-11, atol=1e-14
    )
    np.testing.assert_allclose(
        model.output(x), [1.12334171429, -0.203048313402, 3.26050133333], rtol=5e-11
    )


@pytest.mark.parametrize(
    ("step", "bold", "apart"),
    [
        (
            1e-3,
            [
                [0.413225121973, 0.39517828654, 0.341524560613],
                [0.788442823098, 0.756374866754, 0.650524701287],
            ],
            2e-3,
        ),
        (
            1e-4,
            [
                [0.412381820332, 0.394371996861, 0.340837406277],
                [0.788414950649, 0.75634810545, 0.650501800197],
            ],
            2e-4,
        ),
    ],
    ids=["1 ms", "0.1 ms"],
)
def test_path_and_bold_of_cubnm(step, bold, apart):
    """cubnm 0.1.0, G .5, no noise, from .001: states after 7.2 s, BOLD of volumes 3 and
    10.

    The states are the same to the last printed digit. cuBNM updates its haemodynamic
    states one after the other, we update all at once: schemes of first order, so that a
    tenth of the step brings them ten times nearer.
    """
    watched = brain(
        masses.ReducedWongWang(),
        sensor=Sensor(CONVENTIONS["time-constants-cubnm-0.1.0"]),
        noise=0.0,
    )
    run = simulate(
        watched, 7.2, dt=1e-4, vascular_step=step, start=torch.full((2, 3), 0.001)
    )
    expected = [
        [0.413848699711, 0.395071035645, 0.334332056689],
        [0.0625180135285, 0.0606548279108, 0.054734388568],
    ]
    np.testing.assert_allclose(run.end.neural, expected, rtol=5e-12)
    np.testing.assert_allclose(run.bold.data[:, [2, 9]].T, bold, rtol=apart)
