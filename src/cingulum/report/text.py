"""What the numbers mean, in sentences: the lead, the warnings and the methods of a
report."""

from __future__ import annotations

from typing import Any

from cingulum.features.heart_rate import HF_BAND
from cingulum.report.summarise import LABELS
from cingulum.signals.bold import Denoising

Numbers = dict[str, Any]


def p_words(p: float) -> str:
    """p is never 0: the smallest says what it is smaller than."""
    return "p < 0.001" if p < 0.0005 else f"p = {p:.3f}"


def lead(s: Numbers) -> str:
    """The result in two sentences."""
    best = "fused" if "fused" in s["prediction"] else s["evaluation"]["fused"][0]
    m = s["prediction"][best]
    low, high = m["accuracy_ci"]
    verdict = (
        "better than guessing" if m["p"] < 0.05 else "not distinguishable from guessing"
    )
    text = (
        f"Of two visits of a patient it had never seen, the model “{LABELS[best]}” "
        "recognised the second in "
        f"{100 * m['accuracy']:.1f} % of {m['patients']} patients (95 % interval "
        f"{100 * low:.1f} to "
        f"{100 * high:.1f} %, {p_words(m['p'])}): {verdict}."
    )
    if m["single_scan_auc"] is not None or best == "fused":
        return (
            text
            + " This is a comparison of two visits of one person, not a diagnosis from "
            "one scan."
        )
    return text


def warnings(s: Numbers, synthetic: bool) -> list[Numbers]:
    """What a reader must know before believing the page; the serious ones first."""
    found = []
    if synthetic:
        found.append(
            _serious("The patients on this page are synthetic: no person was scanned.")
        )
    found += _gaps(s)
    order, most = next(iter(s["cohort"]["orders"].items()))
    if most > ONE_ORDER * s["cohort"]["patients"]:
        everybody = most == s["cohort"]["patients"]
        who = (
            "Every patient"
            if everybody
            else f"{most} of {s['cohort']['patients']} patients"
        )
        found.append(
            _serious(
                f"{who} had the visits in the same order ({order}). Whatever else "
                "changed with time or order cannot be "
                "told apart from pain."
            )
        )
    if s["cohort"]["pain_rose_in"] < s["cohort"]["patients"]:
        found.append(
            _serious(
                f"Pain rose in only {s['cohort']['pain_rose_in']} of "
                f"{s['cohort']['patients']} patients: here, "
                "recognising the second visit is not the same as recognising the more "
                "painful one."
            )
        )
    for control, what in (
        ("motion", "BOLD"),
        ("rate", "pulse and blood flow"),
        ("breath", "pulse and blood flow"),
    ):
        alone = s["prediction"].get(control)
        if alone:
            kind = _serious if alone["p"] < 0.05 else _note
            name = LABELS[control].removesuffix(" (control)")
            found.append(
                kind(
                    f"{name} alone recognises the visit in "
                    f"{100 * alone['accuracy']:.1f} % of patients "
                    f"({p_words(alone['p'])}); read the {what} results against it."
                )
            )
    if s["cohort"]["patients"] < 100:
        found.append(
            _serious(
                f"{s['cohort']['patients']} patients: intervals are wide, and they "
                "resample the tested patients only; "
                "the models were not refitted."
            )
        )
    found.append(
        _note(
            "The paired AUC is that of mirrored decisions (as in Lee et al. 2019), a "
            "signed-rank quantity. "
            "“Single-scan AUC” tells what one scan alone would."
        )
    )
    if "hfhrv" in s["prediction"]:
        found.append(
            _note(
                "Heart rate variability comes from the finger pulse: strictly, pulse "
                "rate variability."
            )
        )
    return sorted(
        found + _fit_warnings(s) + _audit_warnings(s),
        key=lambda w: w["kind"] != "serious",
    )


def _audit_warnings(s: Numbers) -> list[Numbers]:
    """A failed check of the leak audit, and whether the mechanism adds anything."""
    found = [
        _serious(f"Leak audit: {c['words']}")
        for c in s.get("audit", [])
        if c["verdict"] == "fail"
    ]
    added = s.get("contributions", {}).get("mechanism")
    if added:
        low, high = added["auc_gain_ci"]
        verdict = "add to" if added["p"] < 0.05 else "are not shown to add to"
        found.append(
            _note(
                f"The fitted mechanism's parameters {verdict} the other modalities: "
                f"paired AUC {added['auc']:.3f} "
                f"without them, {added['auc_gain']:+.3f} with them (95 % interval "
                f"{low:+.3f} to {high:+.3f}, "
                f"{p_words(added['p'])})."
            )
        )
    return found


ONE_ORDER = 0.65
"""Share of patients with the same order of visits beyond which the order may be what is
recognised."""

NAMED = 20
"""Participants that are named with their reason; all are in summary.json."""


def _gaps(s: Numbers) -> list[Numbers]:
    """Who was left out, and who was analysed without some modality, and why."""
    out = [f"{name} was left out: {why}" for name, why in s.get("left_out", {}).items()]
    kept = [
        f"{name} has no {', no '.join(lacking)} and was judged by the other "
        "modalities: " + "; ".join(dict.fromkeys(lacking.values()))
        for name, lacking in s.get("lacking", {}).items()
    ]
    found, absent = [], s.get("absent", [])
    if absent:
        shown = ", ".join(absent[:NAMED]) + (
            f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        )
        text = (
            f"participants.tsv also names {shown}: no visit of theirs was found "
            "(labels are letters and digits)."
        )
        found.append(_note(text))
    for texts, where in ((out, "left_out"), (kept, "lacking")):
        more = [
            f"{len(texts) - NAMED} more of this kind are named in summary.json "
            f"({where})."
        ]
        found += [
            _serious(text) for text in texts[:NAMED] + more * (len(texts) > NAMED)
        ]
    return found


def _fit_warnings(s: Numbers) -> list[Numbers]:
    found = []
    fit = s.get("fit")
    if fit and fit["fc_r"]["linear_control_heldout"] >= fit["fc_r"]["heldout"]:
        found.append(
            _note(
                "A linear network of equal size explains held-out connectivity better "
                "(r = "
                f"{fit['fc_r']['linear_control_heldout']:.3f}) than the fitted brain "
                f"(r = {fit['fc_r']['heldout']:.3f})"
                ": the fit by itself is no evidence for the physiology of the model."
            )
        )
    if s.get("visit_fits"):
        found.append(
            _note(
                "Mechanism parameters are estimates given the model and a connectome "
                "from a distance rule (unless one "
                "was supplied). Measurement noise lowers recorded connectivity and so "
                "the fitted coupling: compare "
                "visits, not absolute values."
            )
        )
    return found


def _serious(text: str) -> Numbers:
    return {"kind": "serious", "text": text}


def _note(text: str) -> Numbers:
    return {"kind": "note", "text": text}


def methods(s: Numbers) -> list[str]:
    """Paragraphs for a methods section, with the settings of this run."""
    told = {
        "denoising": Denoising().description(),
        "atlas": "pain52",
        "regions": 52,
        "connectome": "a distance rule",
    }
    told |= s.get("recipe", {})
    fused = s["evaluation"]["fused"]
    texts = [_TEXTS[name].format(**told) for name in fused if name in _TEXTS]
    if s.get("pipelines"):
        texts.insert(
            0, f"Preprocessing, as the derivatives say: {', '.join(s['pipelines'])}."
        )
    for name in (name for name in _CONTROLS if name in s["prediction"]):
        texts.append(
            f"{_CONTROLS[name]}, "
            + (
                "fused like the modalities."
                if name in fused
                else "kept out of the fusion."
            )
        )
    texts += [
        f"Blood flow was quantified from raw ASL: {equation}."
        for equation in s.get("equations", [])
    ]
    return [*texts, _evaluation(s), *([_fit(s)] if s.get("fit") else [])]


_TEXTS = {
    "s1conn": (
        "S1-back connectivity: preprocessed BOLD in percent of the voxel mean; "
        "nuisance regression with nilearn's "
        "{denoising}; regression estimate of the standardised mean signal of two 4 mm "
        "spheres at "
        "MNI ±18, −38, 72 (Lee et al. 2019, doi:10.1097/j.pain.0000000000001417) at "
        "every voxel."
    ),
    "rcbf": "Relative blood flow: CBF map divided by its mean over the brain, at every "
    "voxel.",
    "hfhrv": (
        "Heart rate variability: beats by NeuroKit2 (pulse: Elgendi et al. 2013), "
        "placed between samples; missed, "
        "extra and ectopic beats (a fifth or more off the median of their neighbours) "
        "repaired and left out of the "
        f"spectrum; natural logarithm of the power in ms² between {HF_BAND[0]:.2f} and "
        f"{HF_BAND[1]:.2f} Hz of the "
        "intervals (cubic interpolation at 4 Hz, its damping divided out; Welch, 128 s "
        "Hann windows)."
    ),
    "mechanism": (
        "Mechanism: two-state reduced Wong-Wang network (Deco et al. 2014, "
        "doi:10.1523/JNEUROSCI.5068-13.2014) on the "
        "{regions} regions of the atlas {atlas}, connected by {connectome}; BOLD "
        "cleaned with {denoising}; "
        "local inhibition balanced to 3 Hz in closed form; global coupling, and "
        "recurrent "
        "excitation and noise of every region fitted to each visit's functional "
        "connectivity (squared error) by "
        "gradient (Adam) on the analytic connectivity, with log-normal priors; "
        "features are in units of prior SD."
    ),
    "physiology": (
        "Physiology: two-state reduced Wong-Wang network on the {regions} regions of "
        "the atlas {atlas}, connected by "
        "{connectome}, with global coupling, neural noise and measurement noise free, "
        "fitted to each "
        "visit's regional signals ({denoising}) by their likelihood, with log-normal "
        "priors; features are in units of "
        "prior SD, standard deviations by Laplace's approximation."
    ),
}

_CONTROLS = {
    "motion": "Head motion: mean framewise displacement, a control",
    "rate": "Heart rate: mean over the pulse or ECG recording, a control",
    "breath": "Breathing: main frequency of the respiratory recording, a control",
}


_FUSIONS = {
    "stacked": "a second such machine on the decision values of {names}, trained on "
    "responses from {k} inner folds "
    "that saw neither the judged nor the tested patient",
    "kernels": "one machine on the kernels of {names}, each weighted by its agreement "
    "with the training labels",
    "log_odds": "Gaussian log-odds of the decision values of {names}, calibrated on "
    "responses from {k} inner folds, "
    "that add; below zero they count as zero",
}


def _evaluation(s: Numbers) -> str:
    e = s["evaluation"]
    left_out = (
        "leave-one-patient-out"
        if e["folds"] == e["patients"]
        else f"{e['folds']} folds of patients"
    )
    penalties = ", ".join(f"{c:g}" for c in e["C"]) + (
        " (tuned inside the folds)" if len(e["C"]) > 1 else ""
    )
    text = (
        "Evaluation: linear support vector machine through the origin on the "
        "difference of a patient's two visits "
        f"and its mirror image (C = {penalties}), {left_out} over {e['patients']} "
        "patients."
    )
    if len(e["fused"]) > 1:
        how = _FUSIONS[e["fusion"]].format(
            names=", ".join(e["fused"]), k=e["inner_folds"]
        )
        text += f" Fusion: {how}."
    if e["missing"]:
        lacking = ", ".join(f"{n} {name}" for name, n in e["missing"].items())
        text += (
            " Participants that lack a modality were kept and judged by the "
            f"others (lacking: {lacking})."
        )
    if e["confounds"]:
        text += f" Regressed out in every fold: {', '.join(e['confounds'])}."
    text += (
        f" p: {_flips(e)}, whole patients and all modalities together, everything "
        "refitted; one-sided, of the "
        f"accuracy, AUC deciding between equal ones; seed {e['seed']}. Intervals: 2000 "
        "bootstrap samples of patients."
    )
    if s.get("contributions"):
        text += " Contributions: one modality's signs flipped, the others kept."
    if s.get("mapped"):
        each = ", ".join(
            f"{name}: {flips} sign flips" for name, flips in s["mapped"].items()
        )
        text += (
            f" Maps ({each}): z in permuted standard deviations, "
            "Benjamini-Hochberg false discovery rates."
        )
    return text + _between(s)


def _flips(e: Numbers) -> str:
    if e["stop_after"]:
        return (
            f"at most {e['permutations']} sign flips, of each model until "
            f"{e['stop_after']} were as good (Besag and "
            "Clifford 1991)"
        )
    return f"{e['permutations']} sign flips, (b + 1)/(m + 1)"


def _between(s: Numbers) -> str:
    found = s.get("estimands", {}).get("between_patients", {}).get("both")
    if not found:
        return ""
    site = s.get("recipe", {}).get("site")
    inside = f" inside their site ({site} of participants.tsv)" if site else ""
    return (
        f" Between patients: {found['model']} regression on {found['on']}, "
        f"{found['folds']} folds of patients, tuned "
        "inside them, machines fitted anew in each; p: whole patients exchange their "
        f"ratings{inside}, of the "
        "correlation within states."
    )


def _fit(s: Numbers) -> str:
    f = s["fit"]
    return (
        f"Fitted brain: {f['parameters']} parameters by Adam on the zero-frequency "
        "analytic connectivity at the "
        "balanced working point, kept away from instability; Balloon-Windkessel "
        "haemodynamics (Friston 2003 with rates "
        f"κ = 0.65, γ = 0.41 per second); verified by {f['simulated_minutes']:.0f} "
        "minutes of Euler-Maruyama "
        f"simulation at {f['time_step_ms']:.3g} ms. Control: linear stochastic network "
        "with "
        f"{f['control_parameters']} free parameters fitted to the same data."
    )
