"""From gathered features to what people read: evaluation, summary.json, features.tsv,
pattern maps and report.html."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from cingulum.features.cohort_features import CohortFeatures
from cingulum.io import Cohort
from cingulum.io.files import write_bytes, write_json
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.covariates import number_of, rows_of, sites_of
from cingulum.pipeline.measurement import CONTROLS
from cingulum.pipeline.study_file import write_study
from cingulum.prediction import Evaluation, PairedSVC
from cingulum.prediction.map_peaks import peaks
from cingulum.prediction.paired_visits import PairedVisits
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.settings import (
    Fusion,
    Missing,
    Permutations,
    Svm,
    Validation,
)
from cingulum.prediction.study_evaluation import (
    MANY,
    RatingRegression,
    StudyData,
    StudyEvaluation,
    evaluate_study,
)
from cingulum.prediction.weight_maps import WeightMaps, map_weights, threshold_fdr
from cingulum.report import Picture, quality_panel, render, summarise, text
from cingulum.report.figures import fit_pictures, study_pictures
from cingulum.report.manifest import ReportManifest
from cingulum.report.references import bibtex, cited
from cingulum.report.results import FittedBrain
from cingulum.versions import versions


def evaluated(
    features: CohortFeatures,
    cohort: Cohort,
    *,
    permutations: int = 5000,
    seed: int = 0,
    fusion: Fusion = "stacked",
    confounds: Sequence[str] = (),
    fuse_controls: bool = False,
    site: str | None = None,
    stop_after: int | None = None,
    missing: Missing = "complete",
    jobs: Jobs = None,
    learning: bool = True,
    show_progress: bool = False,
) -> StudyEvaluation:
    """Ask everything of a cohort: each modality and their fusion, single scans, ratings
    between patients, audit.

    confounds: controls (motion, rate, breath) or columns of participants.tsv, regressed
    out inside the folds; what does not differ between the visits of a person (age, sex)
    matters between patients only
    fuse_controls: controls join the fusion, as in the supplement of Lee et al. 2019
    site: column of participants.tsv; ratings are exchanged inside sites only
    """
    ratings = cohort.ratings.pivot(
        index="participant", columns="state", values="pain"
    ).loc[features.patients]
    people = rows_of(cohort, features.patients)
    sites = None if site is None else sites_of(people, site)
    controls = () if fuse_controls else CONTROLS
    visits = PairedVisits(
        features.values,
        features.patients,
        tuple(name for name in controls if name in features.values),
        {name: _confound(name, features, people) for name in confounds},
    )
    return evaluate_study(
        StudyData(visits, ratings.to_numpy(float), sites=sites),
        svm=Svm(fusion=fusion, missing=missing),
        validation=Validation(seed=seed),
        permutations=Permutations(permutations, stop_after),
        regression=RatingRegression(),
        learning=learning,
        jobs=jobs,
        show_progress=show_progress,
    )


def _confound(name: str, features: CohortFeatures, people: pd.DataFrame) -> np.ndarray:
    """(patient, visit) of a control, or of a column of participants.tsv: numbers, or
    two groups."""
    if name in CONTROLS and name in features.values:
        return features.values[name][..., 0]
    return np.repeat(
        number_of(name, people, [c for c in CONTROLS if c in features.values])[:, None],
        2,
        1,
    )


def publish(
    out: Path,
    title: str,
    cohort: Cohort,
    features: CohortFeatures,
    findings: StudyEvaluation,
    *,
    study: StudyConfig | None = None,
    fit: FittedBrain | None = None,
    planted: dict[str, float] | None = None,
    notes: tuple[str, ...] = (),
    recipe: dict[str, Any] | None = None,
    pipelines: Sequence[str] = (),
    pages: Sequence[str] = (),
    synthetic: bool = False,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Write report.html, summary.json, features.tsv, predictions.tsv, patterns/, maps/
    and model/ to `out`; returns the summary.

    study: its settings, for study.toml
    jobs: who permutes maps, as for `evaluate`
    planted: correlation of what was read with the truth, for synthetic cohorts
    notes: sentences put before the other warnings
    recipe: denoising, atlas, number of regions and origin of the connectome in words,
        for the methods
    pipelines: what made the derivatives, with versions; pages: files of the
        participants' pages beside the report
    """
    # Never fewer than 5000 flips: a count cannot tell small p apart, and maps are
    # cheap. Of many patients they are not.
    flips, resamples = (
        (5000, 1000) if len(findings.paired.patients) <= MANY else (500, 200)
    )
    found = {
        name: map_weights(
            _whole(features.values[name]),
            permutations=max(findings.paired.permutations, flips),
            resamples=resamples,
            seed=findings.paired.seed,
            jobs=jobs,
            show_progress=show_progress,
        )
        for name in features.grids
        if name in findings.paired.weights
    }
    shelf = ReportManifest(Path(out))
    tables = {
        name: _write_maps(shelf, name, features, one) for name, one in found.items()
    }
    told = {
        "recipe": recipe or {},
        "mapped": {name: one.pattern.permutations for name, one in found.items()},
        "pipelines": list(pipelines),
        "pages": list(pages),
    }
    summary = _summary(
        title, cohort, features, findings, fit, planted, notes, synthetic, told
    )
    summary["quality"] = quality_panel.told(
        quality_panel.quality_table(features, cohort)
    )
    summary["maps"] = {
        name: _told_map(one, tables[name]) for name, one in found.items()
    }
    pictures = [
        *study_pictures(cohort, features, findings, found, tables),
        *fit_pictures(features, fit),
    ]
    _write_model(shelf, features, findings.paired)
    shelf.table("features.tsv", features.table(cohort.ratings))
    shelf.table("predictions.tsv", findings.paired.predictions())
    for visits, one in findings.ratings.items():
        shelf.table(f"predictions_between_{visits}.tsv", one.predictions())
    return write_report(shelf, summary, pictures, render, study)


def _whole(values: np.ndarray) -> np.ndarray:
    """Of those who have the modality."""
    return values[~np.isnan(values).all((1, 2))]


def write_report(
    shelf: ReportManifest,
    summary: dict[str, Any],
    pictures: Sequence[Picture],
    render: Callable[[dict[str, Any], Sequence[Picture]], str],
    study: StudyConfig | None = None,
) -> dict[str, Any]:
    """Write the tables of figures, references.bib, study.toml, summary.json and
    report.html, and take down what the report that stood here before had besides;
    returns the summary as it is written."""
    if study is not None:
        write_study(study, shelf)
    for picture in pictures:
        if picture.table is not None:
            shelf.table(
                f"figures/{picture.name}.tsv", picture.table, float_format="%.9g"
            )
    shelf.bytes("references.bib", bibtex(cited(summary)).encode())
    for page in summary.get("pages", ()):
        shelf.enter(page)
    summary = summarise.plain({**summary, "files": shelf.files})
    report = render(summary, pictures).encode()
    shelf.clear()
    write_json(shelf.out / "summary.json", summary)
    write_bytes(shelf.out / "report.html", report)
    return summary


def _write_maps(
    shelf: ReportManifest, name: str, features: CohortFeatures, found: WeightMaps
) -> pd.DataFrame:
    """Maps of a modality as NIfTI, and its table of peaks below a false discovery rate
    of .05 (else at p < .01, uncorrected, and so named)."""
    shape, affine = features.grids[name]

    def write(folder: str, what: str, values: np.ndarray) -> None:
        image = np.nan_to_num(values).reshape(shape).astype(np.float32)
        shelf.image(f"{folder}/{name}_{what}.nii.gz", image, affine)

    write("patterns", "pattern", found.pattern.values)
    for what, part in (("weights", found.weights), ("pattern", found.pattern)):
        write("maps", f"{what}_z", part.z)
        write("maps", f"{what}_q", np.where(np.isfinite(part.q), part.q, 1.0))
        write(
            "maps", f"{what}_pfwe", np.where(np.isfinite(part.p_fwe), part.p_fwe, 1.0)
        )
    write("maps", "weights", found.weights.values)
    write("maps", "stability", found.stability.ratio)
    level = threshold_fdr(found.pattern)
    corrected = bool(np.isfinite(level))
    threshold = max(level - 1e-6, 2.0) if corrected else float(norm.isf(0.005))
    table = peaks(
        np.nan_to_num(found.pattern.z).reshape(shape),
        affine,
        threshold=threshold,
        voxels=0,
    )
    table.insert(0, "threshold", "FDR .05" if corrected else "p < .01, uncorrected")
    shelf.table(f"maps/{name}_peaks.tsv", table)
    return table


def _told_map(found: WeightMaps, table: pd.DataFrame) -> dict[str, Any]:
    return {
        "features": int(np.isfinite(found.pattern.z).sum()),
        "below_fdr": int((found.pattern.q <= 0.05).sum()),
        "below_fwe": int((found.pattern.p_fwe <= 0.05).sum()),
        "weights_below_fdr": int((found.weights.q <= 0.05).sum()),
        "reproducibility": found.stability.reproducibility,
        "peaks": table.head(12).to_dict("records"),
    }


def _write_model(
    shelf: ReportManifest, features: CohortFeatures, evaluation: Evaluation
) -> None:
    """Weights of everything fused, fitted on everybody, as `cingulum signature export`
    signs them."""
    told: dict[str, Any] = {"Modalities": {}}
    for name in evaluation.fused:
        weights, unit = evaluation.weights[name], features.units[name]
        if name in features.grids:
            shape, affine = features.grids[name]
            file = f"{name}_weights.nii.gz"
            shelf.image(
                f"model/{file}", weights.reshape(shape).astype(np.float32), affine
            )
        else:
            file = f"{name}_weights.tsv"
            columns = [column or name for column in features.columns[name]]
            shelf.table(
                f"model/{file}", pd.DataFrame({"column": columns, "weight": weights})
            )
        told["Modalities"][name] = {"File": file, "Unit": _unit(name, unit)}
    told["Fusion"] = _fusion_weights(evaluation)
    told["Confounds"] = list(evaluation.confounds)
    told["TrainedOn"] = sorted(source[:16] for source in features.sources)
    shelf.json("model/model.json", told)


def _unit(name: str, unit: str) -> str:
    return {"hfhrv": "ln(ms²)", "s1conn": "regression estimate"}.get(name, unit)


def _fusion_weights(evaluation: Evaluation) -> dict[str, float]:
    """What the modalities' decisions are multiplied by, from everybody's out-of-fold
    decisions; empty for kernels, whose fusion is no sum of decisions."""
    if len(evaluation.fused) < 2:
        return {name: 1.0 for name in evaluation.fused}
    if evaluation.fusion == "kernels":
        return {}
    decisions = np.stack(
        [evaluation.scores[name].decisions for name in evaluation.fused], 1
    )
    if evaluation.fusion == "log_odds":
        mean, variance = np.nanmean(decisions, 0), np.nanvar(decisions, 0, ddof=1)
        weights = np.maximum(0.0, 2 * mean / variance)
    else:
        whole = decisions[np.isfinite(decisions).all(1)]
        weights = (
            PairedSVC(C=evaluation.C[len(evaluation.C) // 2])
            .fit(whole, np.ones(len(whole), int))
            .coef_[0]
        )
    return dict(zip(evaluation.fused, weights.tolist(), strict=True))


def _summary(
    title: str,
    cohort: Cohort,
    features: CohortFeatures,
    findings: StudyEvaluation,
    fit: FittedBrain | None,
    planted: dict[str, float] | None,
    notes: tuple[str, ...],
    synthetic: bool,
    more: dict[str, Any],
) -> dict[str, Any]:
    scalars = {
        f"{summarise.LABELS.get(name, name)}, {features.units[name]}": values[..., 0]
        for name, values in features.values.items()
        if values.shape[-1] == 1
    }
    evaluation = findings.paired
    s: dict[str, Any] = {
        "title": title,
        "cohort": summarise.cohort(cohort.people, cohort.ratings),
        "visits": summarise.visits(scalars),
        "prediction": summarise.prediction(evaluation),
        "evaluation": summarise.setting(
            evaluation, {n: _varying(v) for n, v in features.values.items()}
        ),
        **summarise.study_sections(findings),
        "fit": None,
        "visit_fits": None,
        "planted": planted,
        "flags": features.flags,
        "equations": features.equations,
        "left_out": {f"sub-{name}": why for name, why in cohort.left_out.items()},
        "absent": [f"sub-{name}" for name in cohort.absent],
        "lacking": {
            f"sub-{name}": why for name, why in sorted(features.lacking.items())
        },
        "versions": versions(),
        **more,
    }
    if fit:
        s["fit"] = {
            "source": fit.source,
            **summarise.fitted(fit.verified, fit.weights, fit.train, fit.heldout),
        }
    if "fc" in features.evidence.get("mechanism", {}):
        parameters = len(features.columns["mechanism"])
        s["visit_fits"] = summarise.visit_fits(
            **features.evidence["mechanism"], parameters=parameters
        )
    if evaluation.confounds:
        note = (
            "Maps and patterns are of features as they are: confounds were "
            "regressed out for the scores only."
        )
        s["notes"] = [*s["notes"], note]
    s["lead"] = text.lead(s)
    s["warnings"] = [
        {"kind": "serious", "text": note} for note in notes
    ] + text.warnings(s, synthetic)
    s["methods"] = text.methods(s)
    return s


def _varying(values: np.ndarray) -> int:
    """Columns that differ somewhere: a map's voxels outside the brain do not count."""
    rows = values.reshape(-1, values.shape[-1])
    rows = rows[~np.isnan(rows).all(1)]
    return int((np.ptp(rows, axis=0) > 0).sum()) if len(rows) else 0
