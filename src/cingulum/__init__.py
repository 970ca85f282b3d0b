"""Cingulum: from a patient's recordings to the mechanism and the score."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "balanced": "cingulum.simulation",
    "BalloonWindkessel": "cingulum.brain",
    "Brain": "cingulum.brain",
    "Connectome": "cingulum.brain",
    "Dynamics": "cingulum.brain",
    "with_values": "cingulum.brain",
    "Sensor": "cingulum.brain",
    "param": "cingulum.brain.dynamics",
    "State": "cingulum.brain.dynamics",
    "GainWongWang": "cingulum.brain.masses",
    "Hopf": "cingulum.brain.masses",
    "JansenRit": "cingulum.brain.masses",
    "Kuramoto": "cingulum.brain.masses",
    "Linear": "cingulum.brain.masses",
    "MontbrioPazoRoxin": "cingulum.brain.masses",
    "ReducedWongWang": "cingulum.brain.masses",
    "WilsonCowan": "cingulum.brain.masses",
    "WongWang": "cingulum.brain.masses",
    "ConvergenceError": "cingulum.errors",
    "InputError": "cingulum.errors",
    "evaluate": "cingulum.prediction",
    "evaluate_ratings": "cingulum.prediction",
    "FusedPairedSVC": "cingulum.prediction",
    "Evaluation": "cingulum.prediction",
    "PairedSVC": "cingulum.prediction",
    "TimeSeries": "cingulum.timeseries",
    "analytic_fc": "cingulum.simulation",
    "continuation": "cingulum.simulation",
    "cross_spectrum": "cingulum.simulation",
    "equilibria": "cingulum.simulation",
    "fixed_point": "cingulum.simulation",
    "held_rate": "cingulum.simulation",
    "simulate": "cingulum.simulation",
    "stability": "cingulum.simulation",
    "stability_map": "cingulum.simulation",
    "fc": "cingulum.measures",
    "similarity": "cingulum.measures",
    "amortise": "cingulum.inference",
    "calibrate": "cingulum.inference",
    "Cleaning": "cingulum.inference",
    "Fit": "cingulum.inference",
    "fit": "cingulum.inference",
    "fit_and_verify": "cingulum.inference",
    "fit_cohort": "cingulum.inference",
    "CohortRecording": "cingulum.inference",
    "Gains": "cingulum.inference",
    "laplace": "cingulum.inference",
    "Likelihood": "cingulum.inference",
    "linear_network": "cingulum.inference",
    "Mapped": "cingulum.inference",
    "profile": "cingulum.inference",
    "published_fit": "cingulum.inference",
    "resting_fit": "cingulum.inference",
    "Runs": "cingulum.inference",
    "verify": "cingulum.inference",
    "Denoising": "cingulum.signals.bold",
    "read_cohort": "cingulum.io.cohort",
    "read_brain": "cingulum.io.model_files",
    "read_connectome": "cingulum.pipeline.single_recording",
    "visits": "cingulum.io.visit",
    "SeedConnectivity": "cingulum.features",
    "Tangent": "cingulum.features.tangent",
    "write_brain": "cingulum.io.model_files",
    "write_features": "cingulum.pipeline.feature_export",
    "synthesize": "cingulum.datasets",
}
"""The public vocabulary and where each word lives: imported when first used, so that
`cingulum --help` is quick."""

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'cingulum' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
