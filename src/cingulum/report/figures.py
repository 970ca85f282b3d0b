"""The figures of a study's page, each with its table; maps with a viewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cingulum.features import FEATURES
from cingulum.features.cohort_features import CohortFeatures
from cingulum.features.registry import model_label
from cingulum.io.cohort import Cohort
from cingulum.prediction import Evaluation
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.prediction.weight_maps import WeightMaps, threshold_fdr
from cingulum.report import plots, tables
from cingulum.report.feature_overview import overview
from cingulum.report.page import Picture
from cingulum.report.quality_panel import quality_table
from cingulum.report.results import BOTH_VISITS, FittedBrain
from cingulum.report.viewers import brain_viewer

PARAMETER_NAMES = {
    "mass.w_plus": "recurrent excitation",
    "noise": "noise level",
}
"""Regional parameters whose patterns are drawn, and what they are called."""

MATRICES_ALT = (
    "Recorded and modelled connectivity matrices, and a scatter of one against the "
    "other."
)


@dataclass(frozen=True, eq=False)
class MappedModel:
    """A weight map with its table of peaks."""

    maps: WeightMaps
    peaks: pd.DataFrame


def study_pictures(
    cohort: Cohort,
    features: CohortFeatures,
    evaluation: StudyEvaluation,
    mapped: Mapping[str, MappedModel],
) -> list[Picture]:
    """Figures of cohort, quality, prediction, maps and fitted parameters."""
    pictures = [_pain(cohort), *_quality(features, cohort), *_prediction(evaluation)]
    for name in features.grids:
        pictures += _map_pictures(name, features, evaluation.paired, mapped.get(name))
    for name in FEATURES:
        if name in features.shown:
            pictures += _parameters(name, features)
    for name in FEATURES:
        if name in evaluation.paired.patterns:
            pictures += _region_patterns(name, features, evaluation.paired)
    return pictures


def _pain(cohort: Cohort) -> Picture:
    return Picture(
        "cohort",
        plots.draw_pain(cohort.ratings),
        "Pain at both visits, one line a patient.",
        "Pain at both visits. Grey: patients; black: mean.",
        "pain",
        tables.pain_table(cohort.ratings),
    )


def _quality(features: CohortFeatures, cohort: Cohort) -> list[Picture]:
    table = quality_table(features, cohort)
    drawn = overview(table, features.column_units)
    if drawn is None:
        return []
    alt = (
        "A panel for every measure of quality, a dot for every visit; visits that "
        "stand apart are named."
    )
    return [Picture("quality", drawn, alt, "Quality of every visit.", "quality", table)]


def _prediction(evaluation: StudyEvaluation) -> list[Picture]:
    paired = evaluation.paired
    pictures = [
        Picture(
            "prediction",
            plots.draw_performance(paired),
            "Left: accuracy of each model with its interval. Right: ROC curve of each "
            "model.",
            "Left: accuracy with 95 % interval, against the middle 95 % of permuted "
            "accuracies (grey). Right: ROC of the mirrored paired decisions.",
            "roc",
            tables.roc_table(paired),
        ),
        Picture(
            "prediction",
            plots.draw_permutations(paired),
            "Histograms of permuted accuracies, one for each model, with the accuracy "
            "that was found as a line.",
            "Accuracies under permutation (grey) and as found (red).",
            "permuted",
            tables.permutation_table(paired),
        ),
    ]
    ratings = evaluation.ratings.get(BOTH_VISITS)
    if ratings is not None:
        pictures.append(
            Picture(
                "findings",
                plots.draw_predicted_observed(ratings),
                "Left: rated against predicted pain, a line a patient. Right: "
                "histogram of permuted correlations.",
                "Pain of patients never seen: rated against predicted, and permuted "
                "correlations (grey).",
                "predicted",
                ratings.predictions(),
            )
        )
    if evaluation.calibration is not None:
        curve = evaluation.calibration.curve
        pictures.append(
            Picture(
                "findings",
                plots.draw_curves(curve, evaluation.learning),
                "Left: share of answers that came true against probability. Right: "
                "accuracy against number of patients.",
                "Left: how well probabilities are meant. Right: accuracy with fewer "
                "patients.",
                "calibration",
                tables.curve_table(curve, evaluation.learning),
            )
        )
    return pictures


def _map_pictures(
    name: str,
    features: CohortFeatures,
    evaluation: Evaluation,
    mapped: MappedModel | None,
) -> list[Picture]:
    """The pattern of a feature that is a map and, where its inference was made, the
    stability of its weights."""
    if mapped is None and name not in evaluation.patterns:
        return []
    label = model_label(name)
    shape, affine = features.grids[name]
    if mapped is None:
        values = evaluation.patterns[name].reshape(shape)
        threshold = None
        caption = f"{label}: the strongest tenth of voxels"
    else:
        values = np.nan_to_num(mapped.maps.pattern.z).reshape(shape)
        threshold, caption = _threshold(label, mapped.maps)
    pattern = Picture(
        "maps",
        plots.draw_brain_map(values, affine, threshold),
        f"Axial slices with the pattern of {label}.",
        f"{caption}; red rises with the second visit, blue falls.",
        f"{name}_peaks",
        None if mapped is None else mapped.peaks,
        brain_viewer(values, affine, threshold),
    )
    if mapped is None:
        return [pattern]
    ratio = np.nan_to_num(mapped.maps.stability.ratio).reshape(shape)
    stability = Picture(
        "maps",
        plots.draw_brain_map(ratio, affine),
        f"Axial slices with the stability of the weights of {label}.",
        f"{label}, stability: mean of a voxel's weight over bootstrap samples of "
        "patients, by its standard deviation; the strongest tenth (the whole map: "
        f"maps/{name}_stability.nii.gz).",
        viewer=brain_viewer(ratio, affine),
    )
    return [pattern, stability]


def _threshold(label: str, maps: WeightMaps) -> tuple[float | None, str]:
    """From which z a map is shown, and the caption that says so."""
    level = threshold_fdr(maps.pattern)
    if not np.isfinite(level):
        return None, (
            f"{label}: no voxel below a false discovery rate of .05; shown are the "
            "strongest tenth"
        )
    # A little lower, so that the voxel that decides the threshold is shown.
    return max(level - 1e-6, 1e-3), (
        f"{label}: z of the pattern against permutations, false discovery rate below "
        ".05"
    )


def _parameters(name: str, features: CohortFeatures) -> list[Picture]:
    """Fitted parameters of every visit: those that are one for the whole brain."""
    table = features.shown[name]
    columns = features.fitted_columns.get(name, [])
    names = [column.name for column in columns if not column.region]
    if not names:
        return []
    errors = None
    how = "point estimates"
    if f"sd {names[0]}" in table:
        errors = table[[f"sd {parameter}" for parameter in names]]
        errors = errors.set_axis(names, axis=1)
        how = "with their posterior standard deviations (Laplace)"
    return [
        Picture(
            "parameters",
            plots.draw_estimates(table[names], errors, "units of prior SD"),
            f"Fitted {', '.join(names)} of every visit, in order of size.",
            f"Fitted parameters of every visit's brain, {how}; grey: one prior "
            "standard deviation.",
            f"{name}_parameters",
            table,
        )
    ]


def _region_patterns(
    name: str, features: CohortFeatures, evaluation: Evaluation
) -> list[Picture]:
    """Patterns of the regional parameters of a fitted feature, on a glass brain."""
    atlas = features.atlas
    columns = features.fitted_columns.get(name, [])
    pictures = []
    for parameter, label in PARAMETER_NAMES.items():
        rows = [
            i
            for i, column in enumerate(columns)
            if column.parameter == parameter and column.region
        ]
        if len(rows) != len(atlas.regions):
            continue
        values = evaluation.patterns[name][rows]
        pictures.append(
            Picture(
                "maps",
                plots.draw_region_map(values, atlas.centres),
                f"Glass brain with the pattern of fitted {label} in {len(rows)} "
                "regions.",
                f"{name.capitalize()}: fitted {label}; red rises with the second "
                "visit, blue falls; size is strength.",
                f"{name}_{parameter.split('.')[-1]}",
                tables.region_table(values, atlas.regions, "pattern"),
            )
        )
    return pictures


def fit_pictures(features: CohortFeatures, fit: FittedBrain | None) -> list[Picture]:
    """Recorded and modelled connectivity, of the group's fit and of the mean over
    visits."""
    pictures = []
    if fit:
        recorded = fit.train.numpy()
        modelled = fit.verified.simulated_fc.numpy()
        pictures.append(
            Picture(
                "fit",
                plots.draw_connectivity_pair(recorded, modelled, "recorded (training)"),
                MATRICES_ALT,
                "Training connectivity and the fitted brain running freely.",
                "fc_group",
                tables.edge_table(recorded, modelled, fit.regions),
            )
        )
    for evidence in features.evidence.values():
        recorded = evidence.recorded.mean(0)
        modelled = evidence.fc.mean(0)
        pictures.append(
            Picture(
                "visit_fits",
                plots.draw_connectivity_pair(
                    recorded, modelled, "recorded (mean of visits)"
                ),
                MATRICES_ALT,
                "Mean over visits: recorded, and analytic of the fitted brains.",
                "fc_visits",
                tables.edge_table(recorded, modelled, features.atlas.regions),
            )
        )
    return pictures
