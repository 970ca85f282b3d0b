"""The figures of a study's page, each with its table; maps with a viewer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cingulum.features import FEATURES, Column
from cingulum.features.cohort_features import CohortFeatures, FitEvidence
from cingulum.features.feature import standard_error_name
from cingulum.features.registry import model_label
from cingulum.io.cohort import Cohort
from cingulum.prediction import Evaluation
from cingulum.prediction.decision_calibration import DecisionCalibration
from cingulum.prediction.regression import Ratings
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.prediction.weight_maps import WeightMaps, threshold_fdr
from cingulum.report import plots, tables
from cingulum.report.feature_overview import overview
from cingulum.report.page import Picture
from cingulum.report.quality_panel import quality_table
from cingulum.report.results import BOTH_VISITS, FittedBrain
from cingulum.report.viewers import brain_viewer
from cingulum.signals.atlas import has_positions

PARAMETER_NAMES = {
    "mass.w_plus": "recurrent excitation",
    "noise": "noise level",
}
"""Regional parameters whose patterns are drawn, with their names in captions."""

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
    # The order of a section's figures on the page.
    return [
        _pain(cohort),
        *_quality(features, cohort),
        *_prediction(evaluation),
        *_maps(features, evaluation.paired, mapped),
        *_all_parameters(features),
        *_all_region_patterns(features, evaluation.paired),
    ]


def _pain(cohort: Cohort) -> Picture:
    return Picture(
        "cohort",
        plots.draw_pain(cohort.ratings, cohort.outcome),
        "Pain at both visits, one line a patient.",
        "Pain at both visits. Grey: patients; black: mean.",
        "pain",
        tables.pain_table(cohort.ratings),
    )


def _quality(features: CohortFeatures, cohort: Cohort) -> list[Picture]:
    table = quality_table(features, cohort)
    drawn = overview(table, features.column_units)
    # Derivatives without confounds files have no measure of quality.
    if drawn is None:
        return []
    alt = (
        "A panel for every measure of quality, a dot for every visit; visits that "
        "stand apart are named."
    )
    return [Picture("quality", drawn, alt, "Quality of every visit.", "quality", table)]


def _prediction(evaluation: StudyEvaluation) -> list[Picture]:
    pictures = [_performance(evaluation.paired), _permuted(evaluation.paired)]
    ratings = evaluation.ratings.get(BOTH_VISITS)
    if ratings is not None:
        pictures.append(_predicted_ratings(ratings))
    if evaluation.calibration is not None:
        pictures.append(_curves(evaluation.calibration, evaluation.learning))
    return pictures


def _performance(evaluation: Evaluation) -> Picture:
    return Picture(
        "prediction",
        plots.draw_performance(evaluation),
        "Left: accuracy of each model with its interval. Right: ROC curve of each "
        "model.",
        "Left: accuracy with 95 % interval, against the middle 95 % of permuted "
        "accuracies (grey). Right: ROC of the mirrored paired decisions.",
        "roc",
        tables.roc_table(evaluation),
    )


def _permuted(evaluation: Evaluation) -> Picture:
    return Picture(
        "prediction",
        plots.draw_permutations(evaluation),
        "Histograms of permuted accuracies, one for each model, with the accuracy "
        "that was found as a line.",
        "Accuracies under permutation (grey) and as found (red).",
        "permuted",
        tables.permutation_table(evaluation),
    )


def _predicted_ratings(ratings: Ratings) -> Picture:
    return Picture(
        "findings",
        plots.draw_predicted_observed(ratings),
        "Left: rated against predicted pain, a line a patient. Right: "
        "histogram of permuted correlations.",
        "Pain of patients never seen: rated against predicted, and permuted "
        "correlations (grey).",
        "predicted",
        ratings.predictions(),
    )


def _curves(
    calibration: DecisionCalibration, learning: list[dict[str, float]]
) -> Picture:
    return Picture(
        "findings",
        plots.draw_curves(calibration.curve, learning),
        "Left: share of answers that came true against probability. Right: "
        "accuracy against number of patients.",
        "Left: how well probabilities are meant. Right: accuracy with fewer patients.",
        "calibration",
        tables.curve_table(calibration.curve, learning),
    )


def _maps(
    features: CohortFeatures,
    evaluation: Evaluation,
    mapped: Mapping[str, MappedModel],
) -> list[Picture]:
    """Features that are maps, with or without their inference."""
    pictures = []
    for name in features.grids:
        if name in mapped:
            pictures += _tested_map(name, features, mapped[name])
        # Inference takes long and may have been switched off.
        elif name in evaluation.patterns:
            pictures.append(_untested_map(name, features, evaluation))
    return pictures


@dataclass(frozen=True, eq=False)
class _ShownMap:
    """A map (x, y, z) from the threshold on (None: its strongest tenth)."""

    values: np.ndarray
    affine: np.ndarray
    threshold: float | None
    label: str

    def pattern(
        self, caption: str, name: str, table: pd.DataFrame | None = None
    ) -> Picture:
        """The figure of a pattern, with a viewer."""
        return Picture(
            "maps",
            plots.draw_brain_map(self.values, self.affine, self.threshold),
            f"Axial slices with the pattern of {self.label}.",
            f"{caption}; red rises with the visit that hurt more, blue falls.",
            name,
            table,
            brain_viewer(self.values, self.affine, self.threshold),
        )


def _untested_map(
    name: str, features: CohortFeatures, evaluation: Evaluation
) -> Picture:
    """The pattern of a feature that is a map."""
    shape, affine = features.grids[name]
    label = model_label(name)
    # Without inference there is no threshold to show it from.
    shown = _ShownMap(evaluation.patterns[name].reshape(shape), affine, None, label)
    return shown.pattern(f"{label}: the strongest tenth of voxels", f"{name}_peaks")


def _tested_map(
    name: str, features: CohortFeatures, mapped: MappedModel
) -> list[Picture]:
    """The pattern of a feature that is a map, and the stability of its weights."""
    shape, affine = features.grids[name]
    label = model_label(name)
    threshold, caption = _threshold(label, mapped.maps)
    # Constant voxels have neither z nor stability; they are drawn as background.
    z = np.nan_to_num(mapped.maps.pattern.z).reshape(shape)
    shown = _ShownMap(z, affine, threshold, label)
    ratio = np.nan_to_num(mapped.maps.stability.ratio).reshape(shape)
    return [
        shown.pattern(caption, f"{name}_peaks", mapped.peaks),
        _stability(name, _ShownMap(ratio, affine, None, label)),
    ]


def _stability(name: str, shown: _ShownMap) -> Picture:
    return Picture(
        "maps",
        plots.draw_brain_map(shown.values, shown.affine),
        f"Axial slices with the stability of the weights of {shown.label}.",
        f"{shown.label}, stability: mean of a voxel's weight over bootstrap samples of "
        "patients, by its standard deviation; the strongest tenth (the whole map: "
        f"maps/{name}_stability.nii.gz).",
        # No table: a map of every voxel is a file of its own.
        viewer=brain_viewer(shown.values, shown.affine),
    )


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


def _all_parameters(features: CohortFeatures) -> list[Picture]:
    """Fitted parameters, in the order in which features are registered."""
    pictures = []
    for name in FEATURES:
        if name in features.shown:
            pictures += _parameters(name, features)
    return pictures


def _parameters(name: str, features: CohortFeatures) -> list[Picture]:
    """Fitted parameters of every visit: those with one value for the whole brain."""
    table = features.shown[name]
    columns = features.fitted_columns.get(name, [])
    # Those of single regions are drawn as patterns on a glass brain.
    names = [column.name for column in columns if not column.region]
    if not names:
        return []
    errors = _standard_deviations(table, names)
    how = "point estimates"
    if errors is not None:
        how = "with their posterior standard deviations (Laplace)"
    picture = Picture(
        "parameters",
        plots.draw_estimates(table[names], errors, "units of prior SD"),
        f"Fitted {', '.join(names)} of every visit, in order of size.",
        f"Fitted parameters of every visit's brain, {how}; grey: one prior "
        "standard deviation.",
        f"{name}_parameters",
        table,
    )
    return [picture]


def _standard_deviations(table: pd.DataFrame, names: list[str]) -> pd.DataFrame | None:
    """Posterior standard deviations by parameter; None for point estimates."""
    # Fits have them for all parameters or for none.
    columns = [standard_error_name(parameter) for parameter in names]
    if columns[0] not in table:
        return None
    return table[columns].set_axis(names, axis=1)


def _all_region_patterns(
    features: CohortFeatures, evaluation: Evaluation
) -> list[Picture]:
    """Patterns of regional parameters, in the order in which features are
    registered."""
    pictures = []
    for name in FEATURES:
        if name in evaluation.patterns:
            pictures += _region_patterns(name, features, evaluation.patterns[name])
    return pictures


def _region_patterns(
    name: str, features: CohortFeatures, pattern: np.ndarray
) -> list[Picture]:
    """Patterns of the regional parameters of a fitted feature, on a glass brain."""
    # Regions of foreign tables are known by name only.
    if not has_positions(features.atlas):
        return []
    columns = features.fitted_columns.get(name, [])
    pictures = []
    for parameter in PARAMETER_NAMES:
        rows = _regional_rows(columns, parameter)
        # Without a value for every region there is no map.
        if len(rows) == len(features.atlas.regions):
            pictures.append(_glass_brain(name, parameter, features, pattern[rows]))
    return pictures


def _regional_rows(columns: list[Column], parameter: str) -> list[int]:
    """Which columns are the values of a parameter in single regions."""
    rows = []
    for i, column in enumerate(columns):
        if column.parameter == parameter and column.region:
            rows.append(i)
    return rows


def _glass_brain(
    name: str, parameter: str, features: CohortFeatures, values: np.ndarray
) -> Picture:
    atlas = features.atlas
    label = PARAMETER_NAMES[parameter]
    # The prefix "mass." would read like a file ending.
    file = f"{name}_{parameter.split('.')[-1]}"
    return Picture(
        "maps",
        plots.draw_region_map(values, atlas.centres),
        f"Glass brain with the pattern of fitted {label} in {len(values)} regions.",
        f"{name.capitalize()}: fitted {label}; red rises with the visit "
        "that hurt more, blue falls; size is strength.",
        file,
        tables.region_table(values, atlas.regions, "pattern"),
    )


def fit_pictures(features: CohortFeatures, fit: FittedBrain | None) -> list[Picture]:
    """Recorded and modelled connectivity, of the group's fit and of the mean over
    visits."""
    pictures = []
    if fit is not None:
        pictures.append(_group_fit(fit))
    for evidence in features.evidence.values():
        pictures.append(_visit_fits(evidence, features.atlas.regions))
    return pictures


def _group_fit(fit: FittedBrain) -> Picture:
    recorded = fit.train.numpy()
    modelled = fit.verified.simulated_fc.numpy()
    return Picture(
        "fit",
        plots.draw_connectivity_pair(recorded, modelled, "recorded (training)"),
        MATRICES_ALT,
        "Training connectivity and the fitted brain running freely.",
        "fc_group",
        tables.edge_table(recorded, modelled, fit.regions),
    )


def _visit_fits(evidence: FitEvidence, regions: tuple[str, ...]) -> Picture:
    recorded = evidence.recorded.mean(0)
    modelled = evidence.fc.mean(0)
    return Picture(
        "visit_fits",
        plots.draw_connectivity_pair(recorded, modelled, "recorded (mean of visits)"),
        MATRICES_ALT,
        "Mean over visits: recorded, and analytic of the fitted brains.",
        "fc_visits",
        tables.edge_table(recorded, modelled, regions),
    )
