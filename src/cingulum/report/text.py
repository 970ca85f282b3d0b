"""What the results mean, in sentences: the lead, the warnings and the methods of a
report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cingulum.features import FEATURES, Control, StudyRecipe
from cingulum.features.registry import all_controls, model_label
from cingulum.prediction import Contribution
from cingulum.prediction.statistics import RESAMPLES
from cingulum.report.results import (
    Caution,
    EvaluationSettings,
    FitSection,
    Gaps,
    StudyResults,
)
from cingulum.signals.bold import Denoising

ONE_ORDER = 0.65
"""Share of patients with the same order of visits beyond which the order may be what is
recognised."""

NAMED = 20
"""Participants that are named with their reason; all are in summary.json."""

FEW_PATIENTS = 100
"""Patients below which intervals are wide."""

SIGNIFICANT = 0.05

FUSIONS = {
    "stacked": (
        "a second such machine on the decision values of {names}, trained on responses "
        "from {folds} inner folds that saw neither the judged nor the tested patient"
    ),
    "kernels": (
        "one machine on the kernels of {names}, each weighted by its agreement with "
        "the training labels"
    ),
    "log_odds": (
        "Gaussian log-odds of the decision values of {names}, calibrated on responses "
        "from {folds} inner folds, that add; below zero they count as zero"
    ),
}


def p_words(p: float) -> str:
    """p is never 0: the smallest says what it is smaller than."""
    return "p < 0.001" if p < 0.0005 else f"p = {p:.3f}"


def lead(results: StudyResults) -> str:
    """The result in two sentences."""
    best = results.best
    score = results.prediction[best]
    interval = score.accuracy_ci
    verdict = "not distinguishable from guessing"
    if score.p < SIGNIFICANT:
        verdict = "better than guessing"
    text = (
        f"Of two visits of a patient it had never seen, the model “{model_label(best)}”"
        f" recognised the second in {100 * score.accuracy:.1f} % of {score.patients} "
        f"patients (95 % interval {100 * interval.low:.1f} to "
        f"{100 * interval.high:.1f} %, {p_words(score.p)}): {verdict}."
    )
    if score.single_scan_auc is None and best != "fused":
        return text
    return (
        f"{text} This is a comparison of two visits of one person, not a diagnosis "
        "from one scan."
    )


def warnings(results: StudyResults) -> list[Caution]:
    """What a reader must know before believing the page; the serious ones first."""
    cautions = [
        *_about_data(results),
        *gap_warnings(results.gaps),
        *_about_order(results),
        *_about_controls(results),
        *_about_size(results),
        _note(
            "The paired AUC is that of mirrored decisions (as in Lee et al. 2019), a "
            "signed-rank quantity. “Single-scan AUC” tells what one scan alone would."
        ),
        *_about_features(results),
        *_about_fits(results),
        *_about_audit(results),
    ]
    notes = [_serious(note) for note in results.notes]
    return notes + sorted(cautions, key=lambda caution: caution.kind != "serious")


def _about_data(results: StudyResults) -> Iterator[Caution]:
    if results.synthetic:
        yield _serious(
            "The patients on this page are synthetic: no person was scanned."
        )


def gap_warnings(gaps: Gaps) -> list[Caution]:
    """Who was left out, and who was analysed without some modality, and why."""
    cautions = []
    if gaps.absent:
        cautions.append(_note(_absent_text(gaps.absent)))
    left_out = [
        f"{name} was left out: {reason}" for name, reason in gaps.left_out.items()
    ]
    lacking = [
        f"{name} has no {', no '.join(reasons)} and was judged by the other "
        f"modalities: {'; '.join(dict.fromkeys(reasons.values()))}"
        for name, reasons in gaps.lacking.items()
    ]
    cautions += _first_of(left_out, "left_out")
    cautions += _first_of(lacking, "lacking")
    return cautions


def _absent_text(absent: Sequence[str]) -> str:
    names = ", ".join(absent[:NAMED])
    more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
    return (
        f"participants.tsv also names {names}{more}: no visit of theirs was found "
        "(labels are letters and digits)."
    )


def _first_of(texts: Sequence[str], key: str) -> list[Caution]:
    """The first sentences of a kind: a hundred of them would bury the rest."""
    cautions = [_serious(text) for text in texts[:NAMED]]
    if len(texts) > NAMED:
        cautions.append(
            _serious(
                f"{len(texts) - NAMED} more of this kind are named in summary.json "
                f"({key})."
            )
        )
    return cautions


def _about_order(results: StudyResults) -> Iterator[Caution]:
    """Whether the order of visits, or their pain, could be what is recognised."""
    cohort = results.cohort
    order, count = next(iter(cohort.orders.items()))
    if count > ONE_ORDER * cohort.patients:
        who = f"{count} of {cohort.patients} patients"
        if count == cohort.patients:
            who = "Every patient"
        yield _serious(
            f"{who} had the visits in the same order ({order}). Whatever else changed "
            "with time or order cannot be told apart from pain."
        )
    if cohort.pain_rose_in < cohort.patients:
        yield _serious(
            f"Pain rose in only {cohort.pain_rose_in} of {cohort.patients} patients: "
            "here, recognising the second visit is not the same as recognising the "
            "more painful one."
        )


def _about_controls(results: StudyResults) -> Iterator[Caution]:
    """What each control achieves by itself."""
    for _, control in all_controls():
        score = results.prediction.get(control.name)
        if score is None:
            continue
        name = control.label.removesuffix(" (control)")
        text = (
            f"{name} alone recognises the visit in {100 * score.accuracy:.1f} % of "
            f"patients ({p_words(score.p)}); read the {control.held_against} results "
            "against it."
        )
        yield _serious(text) if score.p < SIGNIFICANT else _note(text)


def _about_size(results: StudyResults) -> Iterator[Caution]:
    if results.cohort.patients < FEW_PATIENTS:
        yield _serious(
            f"{results.cohort.patients} patients: intervals are wide, and they "
            "resample the tested patients only; the models were not refitted."
        )


def _about_features(results: StudyResults) -> Iterator[Caution]:
    """What features say of themselves."""
    for name in results.prediction:
        if name in FEATURES and FEATURES[name].caution:
            yield _note(FEATURES[name].caution)


def _about_audit(results: StudyResults) -> Iterator[Caution]:
    """A failed check of the leak audit, and whether a feature of which it is asked
    adds anything."""
    for check in results.section.audit:
        if check.verdict == "fail":
            yield _serious(f"Leak audit: {check.words}")
    for name, contribution in results.section.contributions.items():
        subject = FEATURES[name].contribution_subject if name in FEATURES else ""
        if subject:
            yield _note(_contribution_text(subject, contribution))


def _contribution_text(subject: str, contribution: Contribution) -> str:
    verdict = "are not shown to add to"
    if contribution.p < SIGNIFICANT:
        verdict = "add to"
    gain = contribution.auc_gain_ci
    return (
        f"{subject} {verdict} the other modalities: paired AUC {contribution.auc:.3f} "
        f"without them, {contribution.auc_gain:+.3f} with them (95 % interval "
        f"{gain.low:+.3f} to {gain.high:+.3f}, {p_words(contribution.p)})."
    )


def _about_fits(results: StudyResults) -> Iterator[Caution]:
    """How far a fitted brain may be believed."""
    fit = results.fit
    if fit and fit.fc_r["linear_control_heldout"] >= fit.fc_r["heldout"]:
        yield _note(
            "A linear network of equal size explains held-out connectivity better (r = "
            f"{fit.fc_r['linear_control_heldout']:.3f}) than the fitted brain (r = "
            f"{fit.fc_r['heldout']:.3f}): the fit by itself is no evidence for the "
            "physiology of the model."
        )
    if results.visit_fits:
        yield _note(
            "Mechanism parameters are estimates given the model and a connectome from "
            "a distance rule (unless one was supplied). Measurement noise lowers "
            "recorded connectivity and so the fitted coupling: compare visits, not "
            "absolute values."
        )


def _serious(text: str) -> Caution:
    return Caution("serious", text)


def _note(text: str) -> Caution:
    return Caution("note", text)


def methods(results: StudyResults) -> list[str]:
    """Paragraphs for a methods section, with the settings of this run."""
    provenance = results.provenance
    recipe = provenance.recipe or StudyRecipe(Denoising().description())
    paragraphs = []
    if provenance.pipelines:
        paragraphs.append(
            f"Preprocessing, as the derivatives say: {', '.join(provenance.pipelines)}."
        )
    fused = results.evaluation.fused
    for name in fused:
        text = FEATURES[name].methods_text(recipe) if name in FEATURES else ""
        if text:
            paragraphs.append(text)
    for _, control in all_controls():
        if control.name in results.prediction:
            paragraphs.append(_control_text(control, fused))
    for equation in provenance.equations:
        paragraphs.append(f"Blood flow was quantified from raw ASL: {equation}.")
    paragraphs.append(_evaluation_text(results, recipe))
    if results.fit:
        paragraphs.append(_fit_text(results.fit))
    return paragraphs


def _control_text(control: Control, fused: Sequence[str]) -> str:
    use = "kept out of the fusion"
    if control.name in fused:
        use = "fused like the modalities"
    return f"{control.methods_text}, {use}."


def _evaluation_text(results: StudyResults, recipe: StudyRecipe) -> str:
    """How the prediction was made and tested."""
    settings = results.evaluation
    sentences = [_classifier_text(settings)]
    if len(settings.fused) > 1:
        fusion = FUSIONS[settings.fusion].format(
            names=", ".join(settings.fused), folds=settings.inner_folds
        )
        sentences.append(f"Fusion: {fusion}.")
    if settings.missing:
        lacking = [f"{count} {name}" for name, count in settings.missing.items()]
        sentences.append(
            "Participants that lack a modality were kept and judged by the others "
            f"(lacking: {', '.join(lacking)})."
        )
    if settings.confounds:
        confounds = ", ".join(settings.confounds)
        sentences.append(f"Regressed out in every fold: {confounds}.")
    sentences.append(_test_text(settings))
    if results.section.contributions:
        sentences.append(
            "Contributions: one modality's signs flipped, the others kept."
        )
    if results.provenance.mapped:
        sentences.append(_maps_text(results.provenance.mapped))
    regression = _regression_text(results, recipe)
    if regression:
        sentences.append(regression)
    return " ".join(sentences)


def _classifier_text(settings: EvaluationSettings) -> str:
    folds = f"{settings.folds} folds of patients"
    if settings.folds == settings.patients:
        folds = "leave-one-patient-out"
    penalties = ", ".join(f"{penalty:g}" for penalty in settings.C)
    if len(settings.C) > 1:
        penalties += " (tuned inside the folds)"
    return (
        "Evaluation: linear support vector machine through the origin on the "
        "difference of a patient's two visits and its mirror image (C = "
        f"{penalties}), {folds} over {settings.patients} patients."
    )


def _test_text(settings: EvaluationSettings) -> str:
    flips = f"{settings.permutations} sign flips, (b + 1)/(m + 1)"
    if settings.stop_after:
        flips = (
            f"at most {settings.permutations} sign flips, of each model until "
            f"{settings.stop_after} were as good (Besag and Clifford 1991)"
        )
    return (
        f"p: {flips}, whole patients and all modalities together, everything refitted; "
        "one-sided, of the accuracy, AUC deciding between equal ones; seed "
        f"{settings.seed}. Intervals: {RESAMPLES} bootstrap samples of patients."
    )


def _maps_text(mapped: Mapping[str, int]) -> str:
    flips = [f"{name}: {count} sign flips" for name, count in mapped.items()]
    return (
        f"Maps ({', '.join(flips)}): z in permuted standard deviations, "
        "Benjamini-Hochberg false discovery rates."
    )


def _regression_text(results: StudyResults, recipe: StudyRecipe) -> str:
    regression = results.section.estimands.of_both_visits
    if regression is None:
        return ""
    inside = ""
    if recipe.site:
        inside = f" inside their site ({recipe.site} of participants.tsv)"
    return (
        f"Between patients: {regression.model} regression on {regression.on}, "
        f"{regression.folds} folds of patients, tuned inside them, machines fitted "
        f"anew in each; p: whole patients exchange their ratings{inside}, of the "
        "correlation within states."
    )


def _fit_text(fit: FitSection) -> str:
    return (
        f"Fitted brain: {fit.parameters} parameters by Adam on the zero-frequency "
        "analytic connectivity at the balanced working point, kept away from "
        "instability; Balloon-Windkessel haemodynamics (Friston 2003 with rates κ = "
        "0.65, γ = 0.41 per second); verified by "
        f"{fit.simulated_minutes:.0f} minutes of Euler-Maruyama simulation at "
        f"{fit.time_step_ms:.3g} ms. Control: linear stochastic network with "
        f"{fit.control_parameters} free parameters fitted to the same data."
    )
