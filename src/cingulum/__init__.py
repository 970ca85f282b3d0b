"""Cingulum: from a patient's recordings to the mechanism and the score."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "BalloonWindkessel": "cingulum.brain",
    "Brain": "cingulum.brain",
    "Connectome": "cingulum.brain",
    "Dynamics": "cingulum.brain",
    "Sensor": "cingulum.brain",
    "balanced": "cingulum.brain",
    "put": "cingulum.brain",
    "param": "cingulum.brain.dynamics",
    "State": "cingulum.brain.dynamics",
    "ReducedWongWang": "cingulum.brain.masses",
    "WilsonCowan": "cingulum.brain.masses",
    "InputError": "cingulum.errors",
    "ConvergenceError": "cingulum.errors",
    "Evaluation": "cingulum.prediction",
    "PairedSVC": "cingulum.prediction",
    "evaluate": "cingulum.prediction",
    "TimeSeries": "cingulum.timeseries",
    "analytic_fc": "cingulum.simulation",
    "fixed_point": "cingulum.simulation",
    "simulate": "cingulum.simulation",
    "stability": "cingulum.simulation",
    "fc": "cingulum.measures",
    "similarity": "cingulum.measures",
    "Fit": "cingulum.inference",
    "fit": "cingulum.inference",
    "linear_network": "cingulum.inference",
    "resting_fit": "cingulum.inference",
    "read_cohort": "cingulum.recordings",
    "synthesize": "cingulum.datasets",
}
"""The public vocabulary and where each word lives: imported when first used, so that `cingulum --help` is quick."""

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'cingulum' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
