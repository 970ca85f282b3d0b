"""From results to plain numbers: everything a report prints is in these dictionaries
first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cingulum.brain.connectome import Connectome
from cingulum.inference import linear_network
from cingulum.inference.resting import RestingFit
from cingulum.measures import edges, similarity
from cingulum.prediction import Evaluation
from cingulum.prediction.conformal import conformal_reach
from cingulum.prediction.decision_calibration import DecisionCalibration
from cingulum.prediction.dose import DoseResponse
from cingulum.prediction.leak_audit import Check
from cingulum.prediction.lee2019 import PublishedRegression
from cingulum.prediction.regression import Ratings
from cingulum.prediction.study_evaluation import StudyEvaluation

LABELS = {
    "s1conn": "S1-back connectivity (BOLD)",
    "rcbf": "Relative blood flow (ASL)",
    "hfhrv": "Heart rate variability (pulse)",
    "mechanism": "Mechanism (fitted model)",
    "physiology": "Physiology (fitted model)",
    "fused": "All fused",
    "motion": "Head motion (control)",
    "rate": "Heart rate (control)",
    "breath": "Breathing (control)",
}
"""What the models are called for a reader."""

Numbers = dict[str, Any]


def spread(values: Iterable[float]) -> Numbers:
    """Mean, SD and range of what is known."""
    v = np.asarray(list(values), dtype=float)
    v = v[np.isfinite(v)]
    if not len(v):
        return dict.fromkeys(("mean", "sd", "low", "high"))
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
        "second_session": sorted(
            ratings.loc[ratings["state"] == 1, "session"].unique()
        ),
        "pain": {
            "first": spread(wide[0]),
            "second": spread(wide[1]),
            "change": spread(wide[1] - wide[0]),
        },
        "pain_rose_in": int((wide[1] > wide[0]).sum()),
        "orders": _orders(ratings),
        "age": _age(people),
        "sex": {},
    }
    if "sex" in people:
        found["sex"] = {
            str(k): int(v)
            for k, v in people["sex"].fillna("n/a").value_counts().items()
        }
    return found


def _orders(ratings: pd.DataFrame) -> dict[str, int]:
    """How many patients had their sessions in each order, the most common first."""
    order = (
        ratings.sort_values("state")
        .groupby("participant")["session"]
        .agg(", then ".join)
    )
    return {str(k): int(v) for k, v in order.value_counts().items()}


def _age(people: pd.DataFrame) -> Numbers | None:
    """Of those whose age is a number; `known`: how many they are."""
    if "age" not in people:
        return None
    age = pd.to_numeric(people["age"], errors="coerce").clip(upper=90)
    return (
        {**spread(age), "known": int(age.notna().sum())} if age.notna().any() else None
    )


def visits(scalars: dict[str, np.ndarray]) -> Numbers:
    """Features with one number a visit, at the first and the second visit: (patient,
    visit) each."""
    return {
        name: {"first": spread(v[:, 0]), "second": spread(v[:, 1])}
        for name, v in scalars.items()
    }


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
            "p_auc": s.p_auc,
            "patients": int(np.isfinite(s.decisions).sum()),
            "permutations": s.permutations,
            "null_accuracy": spread(s.null) if len(s.null) else None,
        }
        for name, s in evaluation.scores.items()
    }


def contributions(evaluation: Evaluation) -> Numbers:
    """What each modality adds to the fusion of the others."""
    return {name: plain(asdict(c)) for name, c in evaluation.contributions.items()}


def single_interval(evaluation: Evaluation) -> Numbers:
    """What one scan alone would tell, model by model."""
    return {
        name: {
            "auc": s.single_scan_auc,
            "auc_ci": [s.single_scan_auc_ci.low, s.single_scan_auc_ci.high],
            "p": s.single_scan_p,
        }
        for name, s in evaluation.scores.items()
    }


def ratings(found: Ratings, level: float = 0.9) -> Numbers:
    """A regression of ratings between patients, beside its baselines."""
    s = found.scans
    return {
        "participants": len(s.names),
        "scans": len(s.rating),
        "figures": found.performance,
        "intervals": {name: [i.low, i.high] for name, i in found.intervals.items()},
        "p": found.p,
        "p_pooled": found.p_pooled,
        "null_r_within_state": spread(found.null) if len(found.null) else None,
        "baselines": found.baselines,
        "conformal": {
            "level": level,
            "reach": conformal_reach(s.rating - found.predicted, s.patient, level),
        },
        "model": found.model,
        "on": found.on,
        "folds": int(found.folds.max()) + 1,
        "permutations": found.permutations,
    }


def published(found: PublishedRegression) -> Numbers:
    """The recipe of 2019, with what it gives on noise."""
    return {
        "label": found.label,
        "train_r": found.train_r,
        "train_rmse": found.train_rmse,
        "test_r": found.test_r,
        "test_rmse": found.test_rmse,
        "p": found.p,
        "noise_r": found.noise_r,
        "noise_range": [found.noise_range.low, found.noise_range.high],
    }


def estimands(
    paired: Evaluation,
    regressions: dict[str, Ratings],
    recipe: PublishedRegression | None,
    why_not: list[str],
) -> Numbers:
    """The three questions, each with its own figures; never pooled."""
    between: Numbers = {visits: ratings(r) for visits, r in regressions.items()}
    if recipe is not None:
        between["published_2019"] = published(recipe)
    return {
        "forced_choice": prediction(paired),
        "single_interval": single_interval(paired),
        "between_patients": between
        or {"not asked": "; ".join(why_not) or "no ratings were given"},
    }


def evidence(
    dose: DoseResponse | None,
    calibration: DecisionCalibration | None,
    checks: list[Check],
    learning: list,
) -> Numbers:
    """Dose-response, calibration, leak audit and learning curve."""
    return {
        "dose_response": None if dose is None else plain(asdict(dose)),
        "calibration": None
        if calibration is None
        else {"brier": calibration.brier, "curve": calibration.curve.tolist()},
        "audit": [plain(asdict(check)) for check in checks],
        "learning_curve": plain(learning),
    }


def study_sections(found: StudyEvaluation) -> dict[str, Any]:
    """The evaluation of a study as plain numbers."""
    return {
        "estimands": estimands(
            found.paired, found.ratings, found.published, found.words
        ),
        "contributions": contributions(found.paired),
        "notes": found.words,
        **evidence(found.dose, found.calibration, found.checks, found.learning),
    }


def plain(value: Any) -> Any:
    """The same in JSON's types: arrays as lists, intervals as pairs, what is not finite
    as None."""
    if isinstance(value, dict):
        if set(value) == {"low", "high"}:
            return [plain(value["low"]), plain(value["high"])]
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def setting(evaluation: Evaluation, columns: dict[str, int]) -> Numbers:
    """What the evaluation did."""
    return {
        "patients": len(evaluation.patients),
        "C": list(evaluation.C),
        "folds": int(evaluation.folds.max()) + 1,
        "fusion": evaluation.fusion,
        "scaled": list(evaluation.scaled),
        "confounds": list(evaluation.confounds),
        "stop_after": evaluation.stop_after,
        "dropped": evaluation.dropped,
        "missing": evaluation.missing,
        "inner_folds": evaluation.inner_folds,
        "permutations": evaluation.permutations,
        "seed": evaluation.seed,
        "fused": evaluation.fused,
        "columns": columns,
    }


def fitted(
    verified: RestingFit, weights: Tensor, train: Tensor, heldout: Tensor | None
) -> Numbers:
    """A verified fit beside its controls: correlations with the training data and, if
    there are any, held-out data."""
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
        "estimates": {
            name: spread(value.reshape(-1).tolist())
            for name, value in verified.fit.estimates.items()
        },
        "loop_gain": verified.fit.loop_gain.item(),
        "slowest_return_per_s": verified.stability.slowest,
        "simulated_minutes": verified.simulated_minutes,
        "time_step_ms": 1000 * verified.dt,
        "seconds": verified.seconds,
    }


def visit_fits(
    fc: np.ndarray,
    recorded: np.ndarray,
    fc_r: np.ndarray,
    loop_gain: np.ndarray,
    connectome: Connectome,
    parameters: int,
) -> Numbers:
    """Brains fitted to visits, connectivity (visit, region, region), two a patient,
    beside the controls they are read against."""
    seen = torch.as_tensor(recorded)
    pairs = seen.unflatten(0, (-1, 2)).sum(1).repeat_interleave(2, 0)
    others = (seen.sum(0) - pairs) / (len(seen) - 2) if len(seen) > 2 else seen
    mean, modelled = seen.mean(0), torch.as_tensor(fc)
    control = linear_network(connectome, mean, regional=2)
    return {
        "visits": len(seen),
        "regions": seen.shape[-1],
        "parameters": parameters,
        "fc_r": spread(fc_r.tolist()),
        "mean_fc": {
            "recorded": edges(mean).mean().item(),
            "fitted": edges(modelled).mean().item(),
        },
        "mean_fc_r": similarity(modelled.mean(0), mean).item(),
        "linear_control": control.fc_r,
        "baseline": spread(similarity(others, seen).tolist()),
        "sc_fc": spread(
            similarity(connectome.weights.to(seen).expand_as(seen), seen).tolist()
        ),
        "loop_gain": spread(loop_gain.tolist()),
    }
