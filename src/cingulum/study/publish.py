"""From gathered features to what people read: evaluation, summary.json, features.tsv, pattern maps and report.html."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cingulum.inference.protocol import Verified
from cingulum.prediction import Evaluation, evaluate
from cingulum.recordings import Cohort
from cingulum.recordings.atlas import pain_atlas
from cingulum.recordings.files import write_bytes, write_json, write_table
from cingulum.recordings.images import write_image
from cingulum.report import Picture, plots, render, summarise, words
from cingulum.study.gather import Features
from cingulum.study.measure import CONTROLS


@dataclass(frozen=True, eq=False)
class FittedBrain:
    """A fit to show beside a study: where its data come from, and the connectivity it is held against."""

    source: str
    verified: Verified
    weights: torch.Tensor
    train: torch.Tensor
    heldout: torch.Tensor


def evaluated(
    features: Features, *, permutations: int = 1000, seed: int = 0, show_progress: bool = False
) -> Evaluation:
    """Evaluate every modality and their fusion over a cohort."""
    return evaluate(
        features.values,
        features.patients,
        controls=CONTROLS,
        permutations=permutations,
        seed=seed,
        show_progress=show_progress,
    )


def publish(
    out: Path,
    title: str,
    cohort: Cohort,
    features: Features,
    evaluation: Evaluation,
    *,
    seconds: float,
    fit: FittedBrain | None = None,
    planted: dict[str, float] | None = None,
    notes: tuple[str, ...] = (),
    synthetic: bool = False,
) -> dict[str, Any]:
    """Write report.html, summary.json, features.tsv and patterns/ to `out`; returns the summary.

    planted: correlation of what was read with the truth, for synthetic cohorts
    notes: sentences put before the other warnings
    """
    summary = _summary(title, cohort, features, evaluation, fit, planted, notes, synthetic)
    pictures = [*_study_pictures(cohort, features, evaluation), *_fit_pictures(features, fit)]
    for name, (shape, affine) in features.grids.items():
        if name in evaluation.patterns:
            pattern = evaluation.patterns[name].reshape(shape).astype(np.float32)
            write_image(out / "patterns" / f"{name}_pattern.nii.gz", pattern, affine)
    write_table(out / "features.tsv", features.table(cohort.ratings))
    summary["seconds"] = seconds
    write_json(out / "summary.json", summary)
    write_bytes(out / "report.html", render(summary, pictures).encode())
    return summary


def _summary(
    title: str,
    cohort: Cohort,
    features: Features,
    evaluation: Evaluation,
    fit: FittedBrain | None,
    planted: dict[str, float] | None,
    notes: tuple[str, ...],
    synthetic: bool,
) -> dict[str, Any]:
    scalars = {
        f"{summarise.LABELS.get(name, name)}, {features.units[name]}": values[..., 0]
        for name, values in features.values.items()
        if values.shape[-1] == 1
    }
    s: dict[str, Any] = {
        "title": title,
        "cohort": summarise.cohort(cohort.people, cohort.ratings),
        "visits": summarise.visits(scalars),
        "prediction": summarise.prediction(evaluation),
        "evaluation": summarise.setting(evaluation, {n: _varying(v) for n, v in features.values.items()}),
        "fit": None,
        "visit_fits": None,
        "planted": planted,
        "flags": features.flags,
        "equations": features.equations,
        "versions": summarise.versions(),
    }
    if fit:
        s["fit"] = {"source": fit.source, **summarise.fitted(fit.verified, fit.weights, fit.train, fit.heldout)}
    if "fit" in features.evidence.get("mechanism", {}):
        s["visit_fits"] = summarise.visit_fits(**features.evidence["mechanism"])
    s["lead"] = words.lead(s)
    s["warnings"] = [{"kind": "serious", "text": note} for note in notes] + words.warnings(s, synthetic)
    s["methods"] = words.methods(s)
    return s


def _varying(values: np.ndarray) -> int:
    """Columns that differ somewhere: a map's voxels outside the brain do not count."""
    return int((np.ptp(values.reshape(-1, values.shape[-1]), axis=0) > 0).sum())


def _study_pictures(cohort: Cohort, features: Features, evaluation: Evaluation) -> list[Picture]:
    found = [
        Picture("cohort", plots.pain(cohort.ratings), "Pain at both visits, one line a patient.", "Grey: patients; "
                "black: mean."),
        Picture(
            "prediction",
            plots.performance(evaluation),
            "Left: accuracy of each model with its interval. Right: ROC curve of each model. The numbers are in the "
            "table above.",
            "Left: accuracy with 95 % interval, against the middle 95 % of permuted accuracies (grey). Right: ROC of "
            "the mirrored paired decisions.",
        ),
    ]  # fmt: skip
    for name, (shape, affine) in features.grids.items():
        picture = plots.brain_map(evaluation.patterns[name].reshape(shape), affine)
        label = summarise.LABELS.get(name, name)
        found.append(Picture("maps", picture, f"Axial slices with the pattern of {label}.", f"{label}: the strongest "
                             "tenth of voxels; red rises with the second visit, blue falls."))  # fmt: skip
    if "mechanism" in evaluation.patterns:
        found.extend(_mechanism_pictures(features, evaluation))
    return found


def _mechanism_pictures(features: Features, evaluation: Evaluation) -> list[Picture]:
    atlas, columns = pain_atlas(), features.columns["mechanism"]
    index = {column: i for i, column in enumerate(columns)}
    found = []
    for path, label in (("mass.w_plus", "recurrent excitation"), ("noise", "noise level")):
        rows = [index[f"{path} {region}"] for region in atlas.regions if f"{path} {region}" in index]
        if len(rows) == len(atlas.regions):
            values = evaluation.patterns["mechanism"][rows]
            found.append(Picture("maps", plots.region_map(values, atlas.centres), f"Glass brain with the pattern of "
                                 f"fitted {label} in {len(rows)} regions.", f"Mechanism: fitted {label}; red rises "
                                 "with the second visit, blue falls; size is strength."))  # fmt: skip
    return found


def _fit_pictures(features: Features, fit: FittedBrain | None) -> list[Picture]:
    found = []
    alt = "Recorded and modelled connectivity matrices, and a scatter of one against the other."
    if fit:
        pair = plots.connectivity_pair(fit.train.numpy(), fit.verified.simulated_fc.numpy(), "recorded (training)")
        found.append(Picture("fit", pair, alt, "Training connectivity and the fitted brain running freely."))
    evidence = features.evidence.get("mechanism", {})
    if "fit" in evidence:
        pair = plots.connectivity_pair(
            evidence["recorded"].mean(0).numpy(), evidence["fit"].fc.mean(0).numpy(), "recorded (mean of visits)"
        )
        found.append(Picture("visit_fits", pair, alt, "Mean over visits: recorded, and analytic of the fitted brains."))
    return found
