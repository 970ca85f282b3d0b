"""From results to plain numbers: everything a report prints is in these dictionaries first."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from cingulum.brain.connectome import Connectome
from cingulum.inference import Fit, linear_network
from cingulum.inference.protocol import Verified
from cingulum.measures import edges, similarity
from cingulum.prediction import Evaluation

LABELS = {
    "s1conn": "S1-back connectivity (BOLD)",
    "rcbf": "Relative blood flow (ASL)",
    "hfhrv": "Heart rate variability (pulse)",
    "mechanism": "Mechanism (fitted model)",
    "fused": "All fused",
    "motion": "Head motion (control)",
}
"""What the models are called for a reader."""

Numbers = dict[str, Any]


def spread(values: Iterable[float]) -> Numbers:
    """Mean, SD and range."""
    v = np.asarray(list(values), dtype=float)
    return {
        "mean": float(v.mean()),
        "sd": float(v.std(ddof=1)) if len(v) > 1 else 0.0,
        "low": float(v.min()),
        "high": float(v.max()),
    }


def cohort(people: pd.DataFrame, ratings: pd.DataFrame) -> Numbers:
    """Who was seen, and the pain they reported at the first and the second visit."""
    wide = ratings.pivot(index="participant", columns="state", values="pain")
    found: Numbers = {
        "patients": len(wide),
        "visits": 2 * len(wide),
        "first_session": sorted(ratings.loc[ratings["state"] == 0, "session"].unique()),
        "second_session": sorted(ratings.loc[ratings["state"] == 1, "session"].unique()),
        "pain": {"first": spread(wide[0]), "second": spread(wide[1]), "change": spread(wide[1] - wide[0])},
        "pain_rose_in": int((wide[1] > wide[0]).sum()),
    }
    if "age" in people and pd.to_numeric(people["age"], errors="coerce").notna().all():
        found["age"] = spread(pd.to_numeric(people["age"]).clip(upper=90))
    if "sex" in people:
        found["sex"] = {str(k): int(v) for k, v in people["sex"].fillna("n/a").value_counts().items()}
    return found


def visits(scalars: dict[str, np.ndarray]) -> Numbers:
    """Features with one number a visit, at the first and the second visit: (patient, visit) each."""
    return {name: {"first": spread(v[:, 0]), "second": spread(v[:, 1])} for name, v in scalars.items()}


def prediction(evaluation: Evaluation) -> Numbers:
    """Performance of every model."""
    return {
        name: {
            "accuracy": s.accuracy,
            "accuracy_ci": [s.accuracy_ci.low, s.accuracy_ci.high],
            "accuracy_exact_ci": [s.accuracy_exact_ci.low, s.accuracy_exact_ci.high],
            "auc": s.auc,
            "auc_ci": [s.auc_ci.low, s.auc_ci.high],
            "single_scan_auc": s.single_scan_auc,
            "p": s.p,
            "null_accuracy": spread(s.null) if len(s.null) else None,
        }
        for name, s in evaluation.scores.items()
    }


def setting(evaluation: Evaluation, columns: dict[str, int]) -> Numbers:
    """What the evaluation did."""
    return {
        "patients": len(evaluation.patients),
        "C": evaluation.C,
        "inner_folds": evaluation.inner_folds,
        "permutations": evaluation.permutations,
        "seed": evaluation.seed,
        "fused": evaluation.fused,
        "columns": columns,
    }


def fitted(verified: Verified, weights: Tensor, train: Tensor, heldout: Tensor | None) -> Numbers:
    """A verified fit beside its controls: correlations with the training data and, if there are any, held-out data."""
    against = {"train": verified.against(train)}
    if heldout is not None:
        against["heldout"] = verified.against(heldout)
    fc_r: Numbers = {part: found["free_running"] for part, found in against.items()}
    fc_r["sc_fc"] = similarity(weights.to(train), train).item()
    if heldout is not None:
        fc_r["ceiling"] = similarity(train, heldout.to(train)).item()
    for part, found in against.items():
        fc_r[f"analytic_{part}"] = found["analytic"]
        fc_r[f"linear_control_{part}"] = found["linear_control"]
    return {
        "fc_r": fc_r,
        "mean_fc": {**verified.levels, "recorded": edges(train).mean().item()},
        "regions": train.shape[-1],
        "parameters": verified.parameters,
        "control_parameters": verified.control.parameters,
        "estimates": {name: spread(value.reshape(-1).tolist()) for name, value in verified.fit.estimates.items()},
        "loop_gain": verified.fit.loop_gain.item(),
        "slowest_return_per_s": verified.stability.slowest,
        "simulated_minutes": verified.simulated_minutes,
        "time_step_ms": 1000 * verified.dt,
        "seconds": verified.seconds,
    }


def versions() -> Numbers:
    """Software that made the numbers."""
    packages = ("cingulum", "torch", "numpy", "scipy", "scikit-learn", "nilearn", "nibabel", "neurokit2")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def visit_fits(fit: Fit, recorded: Tensor, connectome: Connectome) -> Numbers:
    """Brains fitted to visits (visit, region, region), two a patient, beside the controls they are read against."""
    total = recorded.sum(0)
    pairs = recorded.unflatten(0, (-1, 2)).sum(1).repeat_interleave(2, 0)
    others = (total - pairs) / (len(recorded) - 2) if len(recorded) > 2 else recorded
    mean = recorded.mean(0)
    control = linear_network(connectome, mean, regional=2)
    return {
        "visits": len(recorded),
        "regions": recorded.shape[-1],
        "parameters": sum(value[0].numel() for value in fit.estimates.values()),
        "fc_r": spread(fit.fc_r.tolist()),
        "mean_fc": {"recorded": edges(mean).mean().item(), "fitted": edges(fit.fc).mean().item()},
        "mean_fc_r": similarity(fit.fc.mean(0), mean).item(),
        "linear_control": control.fc_r,
        "baseline": spread(similarity(others, recorded).tolist()),
        "sc_fc": spread(similarity(connectome.weights.to(recorded).expand_as(recorded), recorded).tolist()),
        "loop_gain": spread(fit.loop_gain.tolist()),
    }
