"""The figures of a study's page, each with its table; maps with a viewer."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cingulum.features.cohort_features import CohortFeatures
from cingulum.io import Cohort
from cingulum.prediction import Evaluation
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.prediction.weight_maps import WeightMaps, threshold_fdr
from cingulum.report import Picture, plots, quality_panel, summarise, tables
from cingulum.report.results import FittedBrain
from cingulum.report.viewers import brain_viewer


def study_pictures(
    cohort: Cohort,
    features: CohortFeatures,
    findings: StudyEvaluation,
    found_maps: dict[str, WeightMaps],
    peaks: dict[str, pd.DataFrame],
) -> list[Picture]:
    """Figures of cohort, quality, prediction and maps."""
    found = [
        Picture(
            "cohort",
            plots.pain(cohort.ratings),
            "Pain at both visits, one line a patient.",
            "Pain at both visits. Grey: patients; black: mean.",
            "pain",
            tables.pain(cohort.ratings),
        ),
        *_quality(features, cohort),
        *_prediction(findings),
    ]
    for name in features.grids:
        found.extend(
            _map_pictures(
                name, features, findings.paired, found_maps.get(name), peaks.get(name)
            )
        )
    for name in ("mechanism", "physiology"):
        if name in features.told:
            found.extend(_parameters(name, features))
    if "mechanism" in findings.paired.patterns:
        found.extend(_region_patterns(features, findings.paired))
    return found


def _quality(features: CohortFeatures, cohort: Cohort) -> list[Picture]:
    table = quality_panel.quality_table(features, cohort)
    drawn = quality_panel.picture(table, features.units_of)
    if drawn is None:
        return []
    alt = (
        "A panel for every measure of quality, a dot for every visit; visits that "
        "stand apart are named."
    )
    return [Picture("quality", drawn, alt, "Quality of every visit.", "quality", table)]


def _prediction(findings: StudyEvaluation) -> list[Picture]:
    evaluation = findings.paired
    found = [
        Picture(
            "prediction",
            plots.performance(evaluation),
            "Left: accuracy of each model with its interval. Right: ROC curve of each "
            "model.",
            "Left: accuracy with 95 % interval, against the middle 95 % of permuted "
            "accuracies (grey). Right: ROC of "
            "the mirrored paired decisions.",
            "roc",
            tables.roc(evaluation),
        ),
        Picture(
            "prediction",
            plots.permuted(evaluation),
            "Histograms of permuted accuracies, one for each model, with the "
            "accuracy that was found as a line.",
            "Accuracies under permutation (grey) and as found (red).",
            "permuted",
            tables.permuted(evaluation),
        ),
    ]
    if "both" in findings.ratings:
        found.append(
            Picture(
                "findings",
                plots.predicted_observed(findings.ratings["both"]),
                "Left: rated against predicted pain, a line a patient. Right: "
                "histogram of permuted correlations.",
                "Pain of patients never seen: rated against predicted, and permuted "
                "correlations (grey).",
                "predicted",
                tables.predicted(findings.ratings["both"]),
            )
        )
    if findings.calibration is not None:
        curve = findings.calibration.curve
        found.append(
            Picture(
                "findings",
                plots.curves(curve, findings.learning),
                "Left: share of answers that came true against probability. Right: "
                "accuracy against number of patients.",
                "Left: how well probabilities are meant. Right: accuracy with fewer "
                "patients.",
                "calibration",
                tables.curves(curve, findings.learning),
            )
        )
    return found


def _map_pictures(
    name: str,
    features: CohortFeatures,
    evaluation: Evaluation,
    found: WeightMaps | None,
    peaks: pd.DataFrame | None,
) -> list[Picture]:
    label, (shape, affine) = summarise.LABELS.get(name, name), features.grids[name]
    if found is None:
        if name not in evaluation.patterns:
            return []
        values, threshold = evaluation.patterns[name].reshape(shape), None
        caption = f"{label}: the strongest tenth of voxels"
    else:
        values, level = (
            np.nan_to_num(found.pattern.z).reshape(shape),
            threshold_fdr(found.pattern),
        )
        threshold = max(level - 1e-6, 1e-3) if np.isfinite(level) else None
        caption = (
            f"{label}: z of the pattern against permutations, false discovery "
            "rate below .05"
        )
        if threshold is None:
            caption = (
                f"{label}: no voxel below a false discovery rate of .05; shown "
                "are the strongest tenth"
            )
    pictures = [
        Picture(
            "maps",
            plots.brain_map(values, affine, threshold),
            f"Axial slices with the pattern of {label}.",
            f"{caption}; red rises with the second visit, blue falls.",
            f"{name}_peaks",
            peaks,
            brain_viewer(values, affine, threshold),
        )
    ]
    if found is not None:
        ratio = np.nan_to_num(found.stability.ratio).reshape(shape)
        pictures.append(
            Picture(
                "maps",
                plots.brain_map(ratio, affine),
                f"Axial slices with the stability of the weights of {label}.",
                f"{label}, stability: mean of a voxel's weight over bootstrap samples "
                "of patients, by its standard "
                "deviation; the strongest tenth (the whole map: "
                f"maps/{name}_stability.nii.gz).",
                viewer=brain_viewer(ratio, affine),
            )
        )
    return pictures


def _parameters(name: str, features: CohortFeatures) -> list[Picture]:
    """Fitted parameters of every visit: those that are one for the whole brain."""
    told = features.told[name]
    whole = [c for c in told.columns if " " not in str(c)]
    if not whole:
        return []
    spread = (
        told[[f"sd {c}" for c in whole]].set_axis(whole, axis=1)
        if f"sd {whole[0]}" in told
        else None
    )
    drawn = plots.estimates(told[whole], spread, "units of prior SD")
    how = (
        "with their posterior standard deviations (Laplace)"
        if spread is not None
        else "point estimates"
    )
    caption = (
        f"Fitted parameters of every visit's brain, {how}; grey: one prior "
        "standard deviation."
    )
    return [
        Picture(
            "parameters",
            drawn,
            f"Fitted {', '.join(whole)} of every visit, in order of size.",
            caption,
            f"{name}_parameters",
            told,
        )
    ]


def _region_patterns(features: CohortFeatures, evaluation: Evaluation) -> list[Picture]:
    atlas, columns = features.atlas, features.columns["mechanism"]
    index = {column: i for i, column in enumerate(columns)}
    found = []
    for path, label in (
        ("mass.w_plus", "recurrent excitation"),
        ("noise", "noise level"),
    ):
        rows = [
            index[f"{path} {region}"]
            for region in atlas.regions
            if f"{path} {region}" in index
        ]
        if len(rows) == len(atlas.regions):
            values = evaluation.patterns["mechanism"][rows]
            found.append(
                Picture(
                    "maps",
                    plots.region_map(values, atlas.centres),
                    f"Glass brain with the pattern of fitted {label} in {len(rows)} "
                    "regions.",
                    f"Mechanism: fitted {label}; red rises with the second visit, blue "
                    "falls; size is strength.",
                    f"mechanism_{path.split('.')[-1]}",
                    tables.regions(values, atlas.regions, "pattern"),
                )
            )
    return found


def fit_pictures(features: CohortFeatures, fit: FittedBrain | None) -> list[Picture]:
    """Recorded and modelled connectivity, of the group's fit and of the mean over
    visits."""
    found = []
    alt = (
        "Recorded and modelled connectivity matrices, and a scatter of one against "
        "the other."
    )
    if fit:
        recorded, modelled = fit.train.numpy(), fit.verified.simulated_fc.numpy()
        found.append(
            Picture(
                "fit",
                plots.connectivity_pair(recorded, modelled, "recorded (training)"),
                alt,
                "Training connectivity and the fitted brain running freely.",
                "fc_group",
                tables.edges(recorded, modelled, fit.regions),
            )
        )
    evidence = features.evidence.get("mechanism", {})
    if "fc" in evidence:
        recorded, modelled = evidence["recorded"].mean(0), evidence["fc"].mean(0)
        found.append(
            Picture(
                "visit_fits",
                plots.connectivity_pair(
                    recorded, modelled, "recorded (mean of visits)"
                ),
                alt,
                "Mean over visits: recorded, and analytic of the fitted brains.",
                "fc_visits",
                tables.edges(recorded, modelled, features.atlas.regions),
            )
        )
    return found
