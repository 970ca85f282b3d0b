"""From the features and the evaluation of a cohort to what people read: summary.json,
tables, weight maps, the model, and report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from cingulum.features import StudyRecipe
from cingulum.features.cohort_features import CohortFeatures
from cingulum.features.registry import FEATURES
from cingulum.io.cohort import Cohort
from cingulum.prediction import Evaluation, PairedSVC
from cingulum.prediction.map_peaks import peaks
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.study_evaluation import MANY, StudyEvaluation
from cingulum.prediction.weight_maps import WeightMaps, map_weights, threshold_fdr
from cingulum.report.figures import MappedModel, fit_pictures, study_pictures
from cingulum.report.guidelines import checklist
from cingulum.report.manifest import Page, ReportManifest, write_report
from cingulum.report.quality_panel import quality_section, quality_table
from cingulum.report.references import cited_by_study
from cingulum.report.results import (
    FittedBrain,
    Gaps,
    MapSection,
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
"""A count cannot tell small p apart, and maps are cheap: never fewer sign flips."""

MANY_FLIPS = 500
"""Of many patients maps are not cheap."""

CONFOUNDS_NOTE = (
    "Maps and patterns are of features as they are: confounds were regressed out for "
    "the scores only."
)


@dataclass(frozen=True, eq=False)
class StudyMaterial:
    """What a report is made from.

    mapped: weight maps by feature
    fit: a fit to show beside the study
    planted: correlation of what was read with the truth, for synthetic cohorts
    notes: sentences put before the other warnings
    recipe: how recordings were treated; pipelines: what made the derivatives
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

    jobs: who permutes, as for `evaluate`
    """
    paired = evaluation.paired
    is_small = len(paired.patients) <= MANY
    flips = FEWEST_FLIPS if is_small else MANY_FLIPS
    mapped = {}
    for name in features.grids:
        if name not in paired.weights:
            continue
        values = features.values[name]
        complete = values[~np.isnan(values).all((1, 2))]
        mapped[name] = map_weights(
            complete,
            permutations=max(paired.permutations, flips),
            resamples=1000 if is_small else 200,
            seed=paired.seed,
            jobs=jobs,
            show_progress=show_progress,
        )
    return mapped


def write_study_report(
    material: StudyMaterial, manifest: ReportManifest
) -> dict[str, Any]:
    """Write report.html, summary.json, features.tsv, predictions.tsv, patterns/, maps/
    and model/ to the manifest's folder; returns the summary."""
    features = material.features
    paired = material.evaluation.paired
    mapped = {
        name: MappedModel(one, _write_maps(manifest, name, features, one))
        for name, one in material.mapped.items()
    }
    results = study_results(material, mapped)
    pictures = [
        *study_pictures(material.cohort, features, material.evaluation, mapped),
        *fit_pictures(features, material.fit),
    ]
    _write_model(manifest, features, paired)
    manifest.table("features.tsv", features.table(material.cohort.ratings))
    manifest.table("predictions.tsv", paired.predictions())
    for visits, ratings in material.evaluation.ratings.items():
        manifest.table(f"predictions_between_{visits}.tsv", ratings.predictions())
    page = Page("page.html", summary_of(results), pictures, cited_by_study(results))
    return write_report(manifest, page, {"checklist": checklist(results)})


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
        maps={name: _map_section(one) for name, one in mapped.items()},
        gaps=_gaps(cohort, features),
        provenance=_provenance(material),
        flags=features.flags,
        fit=fitted_brain_section(material.fit) if material.fit else None,
        visit_fits=_visit_fits(features),
        planted=material.planted,
        notes=material.notes,
        synthetic=material.synthetic,
    )


def summary_of(results: StudyResults) -> dict[str, Any]:
    """The content of summary.json, by the schema of docs/summary_schema.json."""
    section = to_plain(results.section)
    if results.evaluation.confounds:
        section["notes"].append(CONFOUNDS_NOTE)
    provenance = to_plain(results.provenance)
    provenance["recipe"] = provenance["recipe"] or {}
    return {
        "title": results.title,
        "cohort": to_plain(results.cohort),
        "visits": to_plain(results.visits),
        "prediction": to_plain(results.prediction),
        "evaluation": to_plain(results.evaluation),
        **section,
        "fit": to_plain(results.fit),
        "visit_fits": to_plain(results.visit_fits),
        "planted": to_plain(results.planted),
        "flags": to_plain(results.flags),
        **to_plain(results.gaps),
        **provenance,
        "quality": to_plain(results.quality),
        "maps": to_plain(results.maps),
        "lead": lead(results),
        "warnings": to_plain(warnings(results)),
        "methods": methods(results),
    }


def _gaps(cohort: Cohort, features: CohortFeatures) -> Gaps:
    return Gaps(
        {f"sub-{name}": reason for name, reason in cohort.left_out.items()},
        [f"sub-{name}" for name in cohort.absent],
        {f"sub-{name}": why for name, why in sorted(features.lacking.items())},
    )


def _provenance(material: StudyMaterial) -> Provenance:
    return Provenance(
        versions=software_versions(),
        recipe=material.recipe,
        mapped={
            name: one.pattern.permutations for name, one in material.mapped.items()
        },
        pipelines=list(material.pipelines),
        equations=material.features.equations,
        pages=list(material.pages),
    )


def _visit_fits(features: CohortFeatures) -> VisitFitsSection | None:
    """The brains fitted to visits, of the first feature that has their
    connectivity."""
    for name, evidence in features.evidence.items():
        return visit_fits_section(evidence, len(features.columns[name]))
    return None


def _map_section(mapped: MappedModel) -> MapSection:
    pattern = mapped.maps.pattern
    return MapSection(
        features=int(np.isfinite(pattern.z).sum()),
        below_fdr=int((pattern.q <= 0.05).sum()),
        below_fwe=int((pattern.p_fwe <= 0.05).sum()),
        weights_below_fdr=int((mapped.maps.weights.q <= 0.05).sum()),
        reproducibility=mapped.maps.stability.reproducibility,
        peaks=mapped.peaks.head(12).to_dict("records"),
    )


def _write_maps(
    manifest: ReportManifest, name: str, features: CohortFeatures, found: WeightMaps
) -> pd.DataFrame:
    """Maps of a feature as NIfTI, and its table of peaks below a false discovery rate
    of .05 (else at p < .01, uncorrected, and so named)."""
    grid = features.grids[name]
    images = {f"patterns/{name}_pattern": found.pattern.values}
    for what, part in (("weights", found.weights), ("pattern", found.pattern)):
        images[f"maps/{name}_{what}_z"] = part.z
        images[f"maps/{name}_{what}_q"] = _one_where_unknown(part.q)
        images[f"maps/{name}_{what}_pfwe"] = _one_where_unknown(part.p_fwe)
    images[f"maps/{name}_weights"] = found.weights.values
    images[f"maps/{name}_stability"] = found.stability.ratio
    for file, values in images.items():
        image = np.nan_to_num(values).reshape(grid.shape).astype(np.float32)
        manifest.image(f"{file}.nii.gz", image, grid.affine)
    level = threshold_fdr(found.pattern)
    is_corrected = bool(np.isfinite(level))
    threshold = float(norm.isf(0.005))
    if is_corrected:
        # A little lower, so that the voxel that decides the threshold is a peak.
        threshold = max(level - 1e-6, 2.0)
    z = np.nan_to_num(found.pattern.z).reshape(grid.shape)
    table = peaks(z, grid.affine, threshold=threshold, voxels=0)
    named = "FDR .05" if is_corrected else "p < .01, uncorrected"
    table.insert(0, "threshold", named)
    manifest.table(f"maps/{name}_peaks.tsv", table)
    return table


def _one_where_unknown(p: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(p), p, 1.0)


def _write_model(
    manifest: ReportManifest, features: CohortFeatures, evaluation: Evaluation
) -> None:
    """Weights of everything fused, fitted on everybody, as `cingulum signature export`
    signs them."""
    modalities = {}
    for name in evaluation.fused:
        weights = evaluation.weights[name]
        if name in features.grids:
            grid = features.grids[name]
            file = f"{name}_weights.nii.gz"
            image = weights.reshape(grid.shape).astype(np.float32)
            manifest.image(f"model/{file}", image, grid.affine)
        else:
            file = f"{name}_weights.tsv"
            columns = [column or name for column in features.columns[name]]
            table = pd.DataFrame({"column": columns, "weight": weights})
            manifest.table(f"model/{file}", table)
        unit = _signature_unit(name, features)
        modalities[name] = {"File": file, "Unit": unit}
    description = {
        "Modalities": modalities,
        "Fusion": fusion_weights(evaluation),
        "Confounds": list(evaluation.confounds),
        "TrainedOn": sorted(source[:16] for source in features.sources),
    }
    manifest.json("model/model.json", description)


def _signature_unit(name: str, features: CohortFeatures) -> str:
    """The unit of a feature in the words of signatures."""
    own = FEATURES[name].signature_unit if name in FEATURES else ""
    return own or features.units[name]


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
        mean = np.nanmean(decisions, 0)
        variance = np.nanvar(decisions, 0, ddof=1)
        weights = np.maximum(0.0, 2 * mean / variance)
    else:
        complete = decisions[np.isfinite(decisions).all(1)]
        penalty = evaluation.C[len(evaluation.C) // 2]
        signs = np.ones(len(complete), int)
        weights = PairedSVC(C=penalty).fit(complete, signs).coef_[0]
    return dict(zip(evaluation.fused, weights.tolist(), strict=True))
