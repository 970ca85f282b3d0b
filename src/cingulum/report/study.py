"""From the features and the evaluation of a cohort to what people read: summary.json,
tables, weight maps, the model, and report.html."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.stats import norm

from cingulum.features import StudyRecipe
from cingulum.features.cohort_features import CohortFeatures, Grid
from cingulum.features.registry import FEATURES
from cingulum.io.cohort import Cohort
from cingulum.io.files import JsonObject
from cingulum.io.outcome import PAIN, RatedOutcome
from cingulum.prediction import Evaluation, PairedSVC
from cingulum.prediction.map_peaks import peaks
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.study_evaluation import MANY, StudyEvaluation
from cingulum.prediction.weight_maps import (
    MapTest,
    WeightMaps,
    map_weights,
    threshold_fdr,
)
from cingulum.report.figures import MappedModel, fit_pictures, study_pictures
from cingulum.report.guidelines import checklist
from cingulum.report.manifest import Page, ReportManifest, write_report
from cingulum.report.quality_panel import quality_section, quality_table
from cingulum.report.references import cited_by_study
from cingulum.report.results import (
    FittedBrain,
    FittedBrainSection,
    Gaps,
    MapSection,
    Peak,
    Provenance,
    StudyResults,
    VisitFitsSection,
    to_plain,
)
from cingulum.report.summarise import (
    cohort_section,
    evaluation_section,
    evaluation_settings,
    fitted_brain_section,
    performance_section,
    visit_fits_section,
    visit_section,
)
from cingulum.report.text import lead, methods, warnings
from cingulum.versions import software_versions

FEWEST_FLIPS = 5000
"""Sign flips of a map, at least: with fewer, small p-values of voxels are coarse."""

MANY_FLIPS = 500
"""The same for many patients, whose maps take long."""

RESAMPLES = 1000
"""Bootstrap samples for the stability of weights."""

MANY_RESAMPLES = 200
"""The same for many patients."""

LOWEST_PEAK = 2.0
"""z below which no voxel is listed as a peak, however low the corrected threshold."""

UNCORRECTED = 0.005
"""One-sided p of the threshold where nothing survives correction: two-sided .01."""

SIGNIFICANT = 0.05

MOST_PEAKS = 12
"""Peaks in summary.json and on the page; the table beside it has all."""

SHORT_HASH = 16
"""Digits of a SHA-256 by which a signature knows what it was trained on."""

CONFOUNDS_NOTE = (
    "Maps and patterns are of features as they are: confounds were regressed out for "
    "the scores only."
)


Reason = TypeVar("Reason")


@dataclass(frozen=True, eq=False)
class StudyMaterial:
    """The inputs of a report.

    mapped: weight maps by feature
    fit: a fit to show beside the study
    planted: correlation of estimates with the truth, for synthetic cohorts
    notes: sentences put before the other warnings
    recipe: how recordings were processed; pipelines: that wrote the derivatives
    pages: files of the participants' pages beside the report
    synthetic: whether nobody was scanned
    """

    title: str
    cohort: Cohort
    features: CohortFeatures
    evaluation: StudyEvaluation
    mapped: Mapping[str, WeightMaps]
    fit: FittedBrain | None = None
    planted: Mapping[str, float] | None = None
    notes: Sequence[str] = ()
    recipe: StudyRecipe | None = None
    pipelines: Sequence[str] = ()
    pages: Sequence[str] = ()
    synthetic: bool = False


def study_maps(
    features: CohortFeatures,
    evaluation: StudyEvaluation,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> dict[str, WeightMaps]:
    """Weight maps, with their inference, of every feature that is a map.

    jobs: who computes the permutations, as for `evaluate`
    """
    mapped = {}
    for name in features.grids:
        # Features that were measured and not predicted from have no weights.
        if name not in evaluation.paired.weights:
            continue
        values = _complete(features.values[name])
        mapped[name] = _feature_maps(values, evaluation.paired, jobs, show_progress)
    return mapped


def _complete(values: np.ndarray) -> np.ndarray:
    """Values (patient, visit, column) of the patients that have the feature."""
    return values[~np.isnan(values).all((1, 2))]


def _feature_maps(
    values: np.ndarray, evaluation: Evaluation, jobs: Jobs, show_progress: bool
) -> WeightMaps:
    is_small = len(evaluation.patients) <= MANY
    flips = FEWEST_FLIPS if is_small else MANY_FLIPS
    return map_weights(
        values,
        permutations=max(evaluation.permutations, flips),
        resamples=RESAMPLES if is_small else MANY_RESAMPLES,
        seed=evaluation.seed,
        jobs=jobs,
        show_progress=show_progress,
    )


def write_study_report(material: StudyMaterial, manifest: ReportManifest) -> JsonObject:
    """Write report.html, summary.json, features.tsv, predictions.tsv, patterns/, maps/
    and model/ to the manifest's folder; returns the summary."""
    features = material.features
    mapped = _write_all_maps(material, manifest)
    results = study_results(material, mapped)
    pictures = [
        *study_pictures(material.cohort, features, material.evaluation, mapped),
        *fit_pictures(features, material.fit),
    ]
    _write_model(manifest, features, material.evaluation.paired)
    _write_tables(material, manifest)
    page = Page("page.html", summary_of(results), pictures, cited_by_study(results))
    return write_report(manifest, page, {"checklist": checklist(results)})


def _write_all_maps(
    material: StudyMaterial, manifest: ReportManifest
) -> dict[str, MappedModel]:
    """Write the maps and peaks of every feature that is a map."""
    mapped = {}
    for name, maps in material.mapped.items():
        grid = material.features.grids[name]
        _write_images(manifest, name, grid, maps)
        table = _peaks(grid, maps.pattern)
        manifest.table(f"maps/{name}_peaks.tsv", table)
        mapped[name] = MappedModel(maps, table)
    return mapped


def _write_tables(material: StudyMaterial, manifest: ReportManifest) -> None:
    evaluation = material.evaluation
    manifest.table("features.tsv", material.features.table(material.cohort.ratings))
    manifest.table("predictions.tsv", evaluation.paired.predictions())
    for visits, ratings in evaluation.ratings.items():
        manifest.table(f"predictions_between_{visits}.tsv", ratings.predictions())


def study_results(
    material: StudyMaterial, mapped: Mapping[str, MappedModel]
) -> StudyResults:
    """Everything that the report prints, in sections."""
    cohort = material.cohort
    features = material.features
    paired = material.evaluation.paired
    return StudyResults(
        title=material.title,
        cohort=cohort_section(cohort),
        visits=visit_section(features),
        prediction=performance_section(paired),
        evaluation=evaluation_settings(paired, features),
        section=evaluation_section(material.evaluation),
        quality=quality_section(quality_table(features, cohort)),
        maps={name: _map_section(model) for name, model in mapped.items()},
        gaps=_gaps(cohort, features),
        provenance=_provenance(material),
        flags=features.flags,
        fit=_fit(material.fit),
        visit_fits=_visit_fits(features),
        planted=material.planted,
        notes=[*_about_outcome(material.cohort.outcome), *material.notes],
        synthetic=material.synthetic,
    )


def summary_of(results: StudyResults) -> JsonObject:
    """The content of summary.json, by the schema of docs/summary_schema.json."""
    # Readers look through the file from its top, so the keys keep this order.
    return {
        "title": results.title,
        "cohort": to_plain(results.cohort),
        "visits": to_plain(results.visits),
        "prediction": to_plain(results.prediction),
        "evaluation": to_plain(results.evaluation),
        **_plain_evaluation(results),
        "fit": to_plain(results.fit),
        "visit_fits": to_plain(results.visit_fits),
        "planted": to_plain(results.planted),
        "flags": to_plain(results.flags),
        **to_plain(results.gaps),
        **_plain_provenance(results.provenance),
        "quality": to_plain(results.quality),
        "maps": to_plain(results.maps),
        "lead": lead(results),
        "warnings": to_plain(warnings(results)),
        "methods": methods(results),
    }


def _plain_evaluation(results: StudyResults) -> JsonObject:
    section = to_plain(results.section)
    if results.evaluation.confounds:
        section["notes"].append(CONFOUNDS_NOTE)
    return section


def _plain_provenance(provenance: Provenance) -> JsonObject:
    plain = to_plain(provenance)
    # An empty object, so that readers' scripts can look keys up without a check.
    plain["recipe"] = plain["recipe"] or {}
    return plain


def _gaps(cohort: Cohort, features: CohortFeatures) -> Gaps:
    return Gaps(
        left_out=_by_participant(cohort.left_out),
        absent=[f"sub-{label}" for label in cohort.absent],
        # Features are measured in any order; the report keeps that of the labels.
        lacking=_by_participant(dict(sorted(features.lacking.items()))),
    )


def _by_participant(reasons: Mapping[str, Reason]) -> dict[str, Reason]:
    """By participant as BIDS writes it, instead of its bare label."""
    return {f"sub-{label}": reason for label, reason in reasons.items()}


def _provenance(material: StudyMaterial) -> Provenance:
    return Provenance(
        versions=software_versions(),
        recipe=material.recipe,
        mapped=_permutations_of_maps(material.mapped),
        pipelines=list(material.pipelines),
        equations=material.features.equations,
        pages=list(material.pages),
    )


def _permutations_of_maps(mapped: Mapping[str, WeightMaps]) -> dict[str, int]:
    return {name: maps.pattern.permutations for name, maps in mapped.items()}


def _fit(fit: FittedBrain | None) -> FittedBrainSection | None:
    if fit is None:
        return None
    return fitted_brain_section(fit)


def _visit_fits(features: CohortFeatures) -> VisitFitsSection | None:
    """The brains fitted to visits, of the first feature that has their
    connectivity."""
    if not features.evidence:
        return None
    name, evidence = next(iter(features.evidence.items()))
    return visit_fits_section(evidence, len(features.columns[name]))


def _map_section(mapped: MappedModel) -> MapSection:
    pattern = mapped.maps.pattern
    return MapSection(
        # Voxels outside the brain have no z.
        features=int(np.isfinite(pattern.z).sum()),
        below_fdr=_significant(pattern.q),
        below_fwe=_significant(pattern.p_fwe),
        weights_below_fdr=_significant(mapped.maps.weights.q),
        reproducibility=mapped.maps.stability.reproducibility,
        peaks=_peak_rows(mapped.peaks),
    )


def _significant(p: np.ndarray) -> int:
    """Number of voxels; those without a p-value do not count."""
    return int((p <= SIGNIFICANT).sum())


def _peak_rows(table: pd.DataFrame) -> list[Peak]:
    rows = table.head(MOST_PEAKS).to_dict("records")
    return [Peak(**row) for row in rows]


def _write_images(
    manifest: ReportManifest, name: str, grid: Grid, maps: WeightMaps
) -> None:
    """Write the maps of a feature as NIfTI."""
    images = {
        f"patterns/{name}_pattern": maps.pattern.values,
        **_inference_images(f"maps/{name}_weights", maps.weights),
        **_inference_images(f"maps/{name}_pattern", maps.pattern),
        f"maps/{name}_weights": maps.weights.values,
        f"maps/{name}_stability": maps.stability.ratio,
    }
    for file, values in images.items():
        # Viewers of NIfTI draw NaN in surprising ways; outside the brain is 0.
        image = np.nan_to_num(values).reshape(grid.shape).astype(np.float32)
        manifest.image(f"{file}.nii.gz", image, grid.affine)


def _inference_images(start: str, test: MapTest) -> dict[str, np.ndarray]:
    """z, false discovery rate and familywise p of a map, by file."""
    return {
        f"{start}_z": test.z,
        f"{start}_q": _one_where_unknown(test.q),
        f"{start}_pfwe": _one_where_unknown(test.p_fwe),
    }


def _one_where_unknown(p: np.ndarray) -> np.ndarray:
    # A 0 outside the brain would be the smallest p of the map.
    return np.where(np.isfinite(p), p, 1.0)


def _peaks(grid: Grid, pattern: MapTest) -> pd.DataFrame:
    """Peaks of a pattern below a false discovery rate of .05 (else at p < .01,
    uncorrected, and so named)."""
    threshold, label = _peak_threshold(pattern)
    z = np.nan_to_num(pattern.z).reshape(grid.shape)
    table = peaks(z, grid.affine, threshold=threshold, voxels=0)
    table.insert(0, "threshold", label)
    return table


def _peak_threshold(pattern: MapTest) -> tuple[float, str]:
    """z beyond which voxels are peaks, and its name in the table."""
    level = threshold_fdr(pattern)
    if not np.isfinite(level):
        return float(norm.isf(UNCORRECTED)), "p < .01, uncorrected"
    # A little lower, so that the voxel that decides the threshold is a peak.
    return max(level - 1e-6, LOWEST_PEAK), "FDR .05"


def _write_model(
    manifest: ReportManifest, features: CohortFeatures, evaluation: Evaluation
) -> None:
    """Weights of everything fused, fitted on everybody, as `cingulum signature export`
    signs them."""
    modalities = {}
    for name in evaluation.fused:
        file = _write_weights(manifest, name, features, evaluation.weights[name])
        # Keys of model.json are written in BIDS style.
        modalities[name] = {"File": file, "Unit": _signature_unit(name, features)}
    description = {
        "Modalities": modalities,
        "Fusion": fusion_weights(evaluation),
        "Confounds": list(evaluation.confounds),
        # Whose recordings a signature has seen, without naming anybody.
        "TrainedOn": sorted(source[:SHORT_HASH] for source in features.sources),
    }
    manifest.json("model/model.json", description)


def _write_weights(
    manifest: ReportManifest, name: str, features: CohortFeatures, weights: np.ndarray
) -> str:
    """Write the weights of a feature, as a map where it is one; returns the file."""
    if name in features.grids:
        grid = features.grids[name]
        file = f"{name}_weights.nii.gz"
        image = weights.reshape(grid.shape).astype(np.float32)
        manifest.image(f"model/{file}", image, grid.affine)
        return file
    file = f"{name}_weights.tsv"
    manifest.table(f"model/{file}", _weight_table(name, features, weights))
    return file


def _weight_table(
    name: str, features: CohortFeatures, weights: np.ndarray
) -> pd.DataFrame:
    # The column of a feature with one number has no name of its own.
    columns = [column or name for column in features.columns[name]]
    return pd.DataFrame({"column": columns, "weight": weights})


def _signature_unit(name: str, features: CohortFeatures) -> str:
    """The unit of a feature in the words of signatures."""
    unit = FEATURES[name].signature_unit if name in FEATURES else ""
    return unit or features.units[name]


def fusion_weights(evaluation: Evaluation) -> dict[str, float]:
    """What the modalities' decisions are multiplied by, from everybody's out-of-fold
    decisions; empty for kernels, whose fusion is no sum of decisions."""
    if len(evaluation.fused) < 2:
        return dict.fromkeys(evaluation.fused, 1.0)
    if evaluation.fusion == "kernels":
        return {}
    scores = [evaluation.scores[name].decisions for name in evaluation.fused]
    decisions = np.stack(scores, 1)
    if evaluation.fusion == "log_odds":
        weights = _log_odds_weights(decisions)
    else:
        weights = _stacked_weights(decisions, evaluation.C)
    return dict(zip(evaluation.fused, weights.tolist(), strict=True))


def _log_odds_weights(decisions: np.ndarray) -> np.ndarray:
    """Slopes of the log-odds of Gaussian decisions (patient, modality)."""
    mean = np.nanmean(decisions, 0)
    variance = np.nanvar(decisions, 0, ddof=1)
    # Decisions are mirrored, so both classes have this variance and means ±mean. A
    # modality that is worse than chance counts as nothing.
    return np.maximum(0.0, 2 * mean / variance)


def _stacked_weights(decisions: np.ndarray, penalties: Sequence[float]) -> np.ndarray:
    """Weights of the second support vector machine on decisions (patient,
    modality)."""
    complete = decisions[np.isfinite(decisions).all(1)]
    # Folds may have chosen different penalties; the middle one is a compromise.
    penalty = penalties[len(penalties) // 2]
    signs = np.ones(len(complete), int)
    return PairedSVC(C=penalty).fit(complete, signs).coef_[0]


def _about_outcome(outcome: RatedOutcome) -> Iterator[str]:
    """What pain means on a page about something else."""
    if outcome.column != PAIN:
        yield (
            f"What this page calls pain is the column {outcome.column} of the dataset, "
            f"on its scale of {outcome.scale}."
        )
