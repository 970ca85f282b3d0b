"""What the results mean, in sentences: the lead, the warnings and the methods of a
report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from scipy.stats import binomtest

from cingulum.features import FEATURES, Control, StudyRecipe
from cingulum.features.registry import all_controls, model_label
from cingulum.prediction import Contribution
from cingulum.report.results import (
    Caution,
    CohortSection,
    EvaluationSettings,
    FitSection,
    Gaps,
    Performance,
    StudyResults,
)
from cingulum.signals.bold import Denoising

ONE_ORDER = 0.65
"""Share of patients with the same order of visits above which a model may recognise the
order instead of pain."""

NAMED = 20
"""Participants that are listed with their reason; all are in summary.json."""

FEW_PATIENTS = 100
"""Number of patients below which intervals are wide."""

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

SMALLEST_P = 0.0005
"""p that would be printed as 0.000."""

PAIRED_AUC_NOTE = (
    "The paired AUC is that of mirrored decisions (as in Lee et al. 2019), a "
    "signed-rank quantity. “Single-scan AUC” tells what one scan alone would."
)

NOT_A_DIAGNOSIS = (
    "This is a comparison of two visits of one person, not a diagnosis from one scan."
)

MECHANISM_NOTE = (
    "Mechanism parameters are estimates given the model and a connectome from "
    "a distance rule (unless one was supplied). Measurement noise lowers "
    "recorded connectivity and so the fitted coupling: compare visits, not "
    "absolute values."
)


def p_words(p: float) -> str:
    """p in words; never 0, since the smallest only has an upper limit."""
    if p < SMALLEST_P:
        return "p < 0.001"
    return f"p = {p:.3f}"


def lead(results: StudyResults) -> str:
    """The result in two sentences."""
    best = results.best
    score = results.prediction[best]
    text = _score_text(best, score)
    # Without a score of single scans, one modality is not taken for a diagnostic test.
    if score.single_scan_auc is None and best != "fused":
        return text
    return f"{text} {NOT_A_DIAGNOSIS}"


def _score_text(model: str, score: Performance) -> str:
    label = model_label(model)
    interval = score.accuracy_ci
    verdict = "not distinguishable from guessing"
    if score.p < SIGNIFICANT:
        verdict = "better than guessing"
    return (
        f"Of two visits of a patient it had never seen, the model “{label}”"
        f" recognised the one with more pain in {100 * score.accuracy:.1f} % of "
        f"{score.patients} patients (95 % interval {100 * interval.low:.1f} to "
        f"{100 * interval.high:.1f} %, {p_words(score.p)}): {verdict}."
    )


def warnings(results: StudyResults) -> list[Caution]:
    """What a reader must know before believing the page; the serious ones first."""
    cautions = [
        *_about_data(results),
        *gap_warnings(results.gaps),
        *_about_order(results),
        *_about_controls(results),
        *_about_size(results),
        _note(PAIRED_AUC_NOTE),
        *_about_features(results),
        *_about_fits(results),
        *_about_audit(results),
    ]
    # Sorting keeps the order above within each kind.
    cautions.sort(key=lambda caution: caution.kind != "serious")
    # Notes of the caller are about the data as a whole, so they come first.
    return [*(_serious(note) for note in results.notes), *cautions]


def _about_data(results: StudyResults) -> Iterator[Caution]:
    if results.synthetic:
        yield _serious(
            "The patients on this page are synthetic: no person was scanned."
        )


def gap_warnings(gaps: Gaps) -> list[Caution]:
    """Who was left out, and who was analysed without some modality, and why."""
    left_out = []
    for name, reason in gaps.left_out.items():
        left_out.append(f"{name} was left out: {reason}")
    lacking = []
    for name, reasons in gaps.lacking.items():
        lacking.append(_lacking_text(name, reasons))
    return [
        *_about_absent(gaps.absent),
        *_first_of(left_out, "left_out"),
        *_first_of(lacking, "lacking"),
    ]


def _lacking_text(name: str, reasons: Mapping[str, str]) -> str:
    # One damaged file may explain several modalities: its reason is printed once.
    different = dict.fromkeys(reasons.values())
    return (
        f"{name} has no {', no '.join(reasons)} and was judged by the other "
        f"modalities: {'; '.join(different)}"
    )


def _about_absent(absent: Sequence[str]) -> Iterator[Caution]:
    if absent:
        yield _note(_absent_text(absent))


def _absent_text(absent: Sequence[str]) -> str:
    names = ", ".join(absent[:NAMED])
    more = ""
    if len(absent) > NAMED:
        more = f" and {len(absent) - NAMED} more"
    return (
        f"participants.tsv also names {names}{more}: no visit of theirs was found "
        "(labels are letters and digits)."
    )


def _first_of(texts: Sequence[str], key: str) -> list[Caution]:
    """The first sentences of a kind: a hundred of them would bury the others.

    key: of summary.json, where all are
    """
    cautions = [_serious(text) for text in texts[:NAMED]]
    hidden = len(texts) - NAMED
    if hidden > 0:
        more = f"{hidden} more of this kind are named in summary.json ({key})."
        cautions.append(_serious(more))
    return cautions


def _about_order(results: StudyResults) -> Iterator[Caution]:
    """Whether the order of visits could be what is recognised: where most people had
    more pain at the same one of them."""
    cohort = results.cohort
    rose = cohort.pain_rose_in
    share = max(rose, cohort.patients - rose) / cohort.patients
    p = binomtest(rose, cohort.patients).pvalue
    # Orders are sorted: the first is the commonest.
    order, count = next(iter(cohort.orders.items()))
    if count > ONE_ORDER * cohort.patients and p < SIGNIFICANT:
        yield _serious(_same_order_text(cohort, order, count))
    if rose < cohort.patients:
        yield _note(
            f"Pain rose from the first to the second visit in {rose} of "
            f"{cohort.patients} patients: who knows nothing but the order is right in "
            f"{100 * share:.0f} % at best ({p_words(p)})."
        )


def _same_order_text(cohort: CohortSection, order: str, count: int) -> str:
    who = f"{count} of {cohort.patients} patients"
    if count == cohort.patients:
        who = "Every patient"
    return (
        f"{who} had the visits in the same order ({order}). Whatever else changed "
        "with time or order cannot be told apart from pain."
    )


def _about_controls(results: StudyResults) -> Iterator[Caution]:
    """What each control achieves by itself."""
    for _, control in all_controls():
        if control.name in results.prediction:
            yield _about_control(control, results.prediction[control.name])


def _about_control(control: Control, score: Performance) -> Caution:
    name = control.label.removesuffix(" (control)")
    text = (
        f"{name} alone recognises the visit in {100 * score.accuracy:.1f} % of "
        f"patients ({p_words(score.p)}); read the {control.held_against} results "
        "against it."
    )
    if score.accuracy_exact_ci.high < 0.5:
        text = (
            f"{name} alone carries no information (right in "
            f"{100 * score.accuracy:.1f} % of patients, far below guessing)."
        )
    # A control that carries information may explain the main result.
    if score.p < SIGNIFICANT:
        return _serious(text)
    return _note(text)


def _about_size(results: StudyResults) -> Iterator[Caution]:
    if results.cohort.patients < FEW_PATIENTS:
        yield _serious(f"{results.cohort.patients} patients: intervals are wide.")


def _about_features(results: StudyResults) -> Iterator[Caution]:
    """The cautions that features declare themselves."""
    for name in results.prediction:
        # Fusions and the caller's own columns are no registered features.
        if name in FEATURES and FEATURES[name].caution:
            yield _note(FEATURES[name].caution)


def _about_audit(results: StudyResults) -> Iterator[Caution]:
    """Failed checks of the leak audit, and whether a feature that declares a question
    adds anything."""
    for check in results.section.audit:
        if check.verdict == "fail":
            yield _serious(f"Leak audit: {check.words}")
    for name, contribution in results.section.contributions.items():
        subject = _contribution_subject(name)
        if subject:
            yield _note(_contribution_text(subject, contribution))


def _contribution_subject(name: str) -> str:
    if name not in FEATURES:
        return ""
    return FEATURES[name].contribution_subject


def _contribution_text(subject: str, contribution: Contribution) -> str:
    # No significant gain is no proof that there is none.
    verdict = "are not shown to add to"
    if contribution.p < SIGNIFICANT:
        verdict = "add to"
    without = contribution.auc
    change = contribution.auc_gain
    interval = contribution.auc_gain_ci
    return (
        f"{subject} {verdict} the other modalities: paired AUC {without:.3f} without "
        f"and {without + change:.3f} with them (change {change:+.3f}, 95 % interval "
        f"{interval.low:+.3f} to {interval.high:+.3f}, {p_words(contribution.p)})."
    )


def _about_fits(results: StudyResults) -> Iterator[Caution]:
    """How far a fitted brain may be believed."""
    if results.fit is not None:
        yield from _about_linear_control(results.fit.fc_r)
    if results.visit_fits is not None:
        yield _note(MECHANISM_NOTE)


def _about_linear_control(fc_r: Mapping[str, float]) -> Iterator[Caution]:
    """Where the linear network explains held-out data as well as the fitted brain."""
    control = fc_r["linear_control_heldout"]
    fitted = fc_r["heldout"]
    if control >= fitted:
        yield _note(
            "A linear network of equal size explains held-out connectivity better (r = "
            f"{control:.3f}) than the fitted brain (r = {fitted:.3f}): the fit by "
            "itself is no evidence for the physiology of the model."
        )


def _serious(text: str) -> Caution:
    return Caution("serious", text)


def _note(text: str) -> Caution:
    return Caution("note", text)


def methods(results: StudyResults) -> list[str]:
    """Paragraphs for a methods section, with the settings of this run."""
    # The demo gives no recipe: it treats recordings by the defaults.
    recipe = results.provenance.recipe or StudyRecipe(Denoising().description())
    # In the order in which papers describe an analysis.
    return [
        *_preprocessing_texts(results.provenance.pipelines),
        *_feature_texts(results.evaluation.fused, recipe),
        *_control_texts(results),
        *_blood_flow_texts(results.provenance.equations),
        _evaluation_text(results, recipe),
        *_fit_texts(results.fit),
    ]


def _preprocessing_texts(pipelines: Sequence[str]) -> Iterator[str]:
    if pipelines:
        yield f"Preprocessing, as the derivatives say: {', '.join(pipelines)}."


def _feature_texts(fused: Sequence[str], recipe: StudyRecipe) -> Iterator[str]:
    for name in fused:
        text = FEATURES[name].methods_text(recipe) if name in FEATURES else ""
        if text:
            yield text


def _control_texts(results: StudyResults) -> Iterator[str]:
    for _, control in all_controls():
        if control.name in results.prediction:
            yield _control_text(control, results.evaluation.fused)


def _control_text(control: Control, fused: Sequence[str]) -> str:
    use = "kept out of the fusion"
    if control.name in fused:
        use = "fused like the modalities"
    return f"{control.methods_text}, {use}."


def _blood_flow_texts(equations: Sequence[str]) -> Iterator[str]:
    for equation in equations:
        yield f"Blood flow was quantified from raw ASL: {equation}."


def _fit_texts(fit: FitSection | None) -> Iterator[str]:
    if fit is not None:
        yield _fit_text(fit)


def _evaluation_text(results: StudyResults, recipe: StudyRecipe) -> str:
    """How the prediction was made and tested."""
    settings = results.evaluation
    sentences = [
        _classifier_text(settings),
        _fusion_text(settings),
        _missing_text(settings.missing),
        _confounds_text(settings.confounds),
        _family_text(recipe.family),
        _test_text(settings),
        _contributions_text(results.section.contributions),
        _maps_text(results.provenance.mapped),
        _regression_text(results, recipe),
    ]
    # What was not done has an empty sentence.
    return " ".join(filter(None, sentences))


def _classifier_text(settings: EvaluationSettings) -> str:
    return (
        "Evaluation: linear support vector machine through the origin on the "
        "difference of a patient's two visits and its mirror image (C = "
        f"{_penalties_text(settings.C)}), {_folds_text(settings)} over "
        f"{settings.patients} patients."
    )


def _penalties_text(penalties: Sequence[float]) -> str:
    text = ", ".join(f"{penalty:g}" for penalty in penalties)
    if len(penalties) > 1:
        text += " (tuned inside the folds)"
    return text


def _folds_text(settings: EvaluationSettings) -> str:
    if settings.folds == settings.patients:
        return "leave-one-patient-out"
    return f"{settings.folds} folds of patients"


def _fusion_text(settings: EvaluationSettings) -> str:
    # A single modality is not fused with anything.
    if len(settings.fused) < 2:
        return ""
    names = ", ".join(settings.fused)
    template = FUSIONS[settings.fusion]
    fusion = template.format(names=names, folds=settings.inner_folds)
    return f"Fusion: {fusion}."


def _missing_text(missing: Mapping[str, int]) -> str:
    if not missing:
        return ""
    counts = [f"{count} {name}" for name, count in missing.items()]
    return (
        "Participants that lack a modality were kept and judged by the others "
        f"(lacking: {', '.join(counts)})."
    )


def _confounds_text(confounds: Sequence[str]) -> str:
    if not confounds:
        return ""
    return f"Regressed out in every fold: {', '.join(confounds)}."


def _family_text(family: str | None) -> str:
    if not family:
        return ""
    return (
        f"Members of one family ({family} of participants.tsv) were left out, flipped "
        "and exchanged together, and count as one person in intervals."
    )


def _test_text(settings: EvaluationSettings) -> str:
    return (
        f"p: {_flips_text(settings)}, whole patients and all modalities together, "
        "everything refitted; one-sided, of the accuracy, AUC deciding between equal "
        f"ones; seed {settings.seed}. Intervals: Clopper-Pearson for accuracies, "
        "Newcombe (2006) for AUCs, Bonett and Price (2012) for gains, widened for what "
        "cross-validation adds; their upper ends are never below those of guessing."
    )


def _flips_text(settings: EvaluationSettings) -> str:
    if not settings.stop_after:
        return f"{settings.permutations} sign flips, (b + 1)/(m + 1)"
    # A sequential test has another estimate of p, whose source is cited.
    return (
        f"at most {settings.permutations} sign flips, of each model until "
        f"{settings.stop_after} were as good (Besag and Clifford 1991)"
    )


def _contributions_text(contributions: Mapping[str, Contribution]) -> str:
    if not contributions:
        return ""
    return "Contributions: one modality's signs flipped, the others kept."


def _maps_text(mapped: Mapping[str, int]) -> str:
    if not mapped:
        return ""
    flips = [f"{name}: {count} sign flips" for name, count in mapped.items()]
    return (
        f"Maps ({', '.join(flips)}): z in permuted standard deviations, "
        "Benjamini-Hochberg false discovery rates."
    )


def _regression_text(results: StudyResults, recipe: StudyRecipe) -> str:
    regression = results.section.estimands.of_both_visits
    if regression is None:
        return ""
    return (
        f"Between patients: {regression.model} regression on {regression.on}, "
        f"{regression.folds} folds of patients, tuned inside them, machines fitted "
        "anew in each; p: whole patients exchange their ratings"
        f"{_site_text(recipe.site)}, of the correlation within states."
    )


def _site_text(site: str | None) -> str:
    # Sites may differ in scanner and in patients: an exchange between them would mix
    # both into the null distribution.
    if not site:
        return ""
    return f" inside their site ({site} of participants.tsv)"


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
