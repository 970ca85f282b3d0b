"""What reporting guidelines ask, answered where the software knows: TRIPOD+AI
(doi:10.1136/bmj-2023-078378) and the COBIDAS checklist of the Organization for Human
Brain Mapping (doi:10.1038/nn.4500). Topics are in our words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cingulum.report.text import p_words

Numbers = dict[str, Any]


class Item(NamedTuple):
    """number: in the guideline; answer: from the summary, empty where only the authors
    know."""

    guideline: str
    number: str
    topic: str
    answer: Callable[[Numbers], str]


def _authors(s: Numbers) -> str:
    return ""


def _sample(s: Numbers) -> str:
    out = (
        f"; {len(s['left_out'])} left out, each named with its reason"
        if s.get("left_out")
        else ""
    )
    n = s["evaluation"]["patients"]
    return (
        f"{n} participants with two visits each were analysed{out}. No sample size "
        "calculation."
    )


def _missing(s: Numbers) -> str:
    kept = s["evaluation"]["missing"]
    if kept:
        return "Participants that lack a modality were kept: " + ", ".join(
            f"{n} lacking in {k}" for n, k in kept.items()
        )
    left = (
        f" {len(s['left_out'])} left out, each named with its reason."
        if s.get("left_out")
        else ""
    )
    return "No participant that was analysed lacks a modality." + left


def _performance(s: Numbers) -> str:
    best = "fused" if "fused" in s["prediction"] else s["evaluation"]["fused"][0]
    m = s["prediction"][best]
    return (
        f"Accuracy {100 * m['accuracy']:.1f} % (95 % interval "
        f"{100 * m['accuracy_ci'][0]:.1f} to "
        f"{100 * m['accuracy_ci'][1]:.1f}), paired AUC {m['auc']:.3f}, "
        f"{p_words(m['p'])}; every model in the table."
    )


def _outcome(s: Numbers) -> str:
    rated = s.get("estimands", {}).get("between_patients", {}).get("both")
    also = ", and the rating itself between patients" if rated else ""
    return (
        "Pain rated from 0 to 100 at each visit; predicted: which visit came "
        f"second{also}."
    )


def _predictors(s: Numbers) -> str:
    columns = s["evaluation"]["columns"]
    return (
        ", ".join(
            f"{name} ({columns[name]} columns)" for name in s["evaluation"]["fused"]
        )
        + "; none was selected."
    )


def _validation(s: Numbers) -> str:
    e = s["evaluation"]
    inner = (
        f" and {e['inner_folds']} inner"
        if len(e["fused"]) > 1 or len(e["C"]) > 1
        else ""
    )
    return (
        f"Internal: {e['folds']} outer{inner} folds of whole patients; no external "
        "validation."
    )


def _stability(s: Numbers) -> str:
    found = {
        n: m["reproducibility"]
        for n, m in s.get("maps", {}).items()
        if m["reproducibility"] is not None
    }
    return (
        "Weights of halves of the patients agree with "
        + ", ".join(f"r = {r:.2f} ({n})" for n, r in found.items())
        if found
        else ""
    )


def _demographics(s: Numbers) -> str:
    age, sex = s["cohort"].get("age"), s["cohort"].get("sex")
    of = (
        f" (known of {age['known']})"
        if age and age["known"] < s["cohort"]["patients"]
        else ""
    )
    parts = [f"age {age['mean']:.1f} ± {age['sd']:.1f} years{of}"] if age else []
    parts += ["sex " + ", ".join(f"{k} {v}" for k, v in sex.items())] if sex else []
    return "; ".join(parts)


def _software(s: Numbers) -> str:
    return ", ".join(f"{name} {number}" for name, number in s["versions"].items())


def _preprocessing(s: Numbers) -> str:
    told = s.get("pipelines", [])
    return f"As the derivatives say: {', '.join(told)}." if told else ""


def _quality(s: Numbers) -> str:
    return (
        f"Table of quality with {len(s['quality']['far'])} visits that stand apart."
        if s.get("quality")
        else ""
    )


ITEMS = (
    Item("TRIPOD+AI", "1–2", "Title and abstract name the kind of study", _authors),
    Item("TRIPOD+AI", "3–4", "Background, intended use, objectives", _authors),
    Item("TRIPOD+AI", "5", "Sources and dates of the data", _authors),
    Item("TRIPOD+AI", "6", "Setting, eligibility, treatments", _authors),
    Item(
        "TRIPOD+AI",
        "7",
        "Preparation of the data",
        lambda s: "Section Methods; settings in study.toml.",
    ),
    Item("TRIPOD+AI", "8", "Outcome, how and when it was assessed", _outcome),
    Item(
        "TRIPOD+AI", "9", "Predictors, how they were chosen and measured", _predictors
    ),
    Item("TRIPOD+AI", "10", "Sample size", _sample),
    Item("TRIPOD+AI", "11", "Missing data", _missing),
    Item(
        "TRIPOD+AI",
        "12",
        "Analytical methods, internal validation, measures of performance",
        _validation,
    ),
    Item(
        "TRIPOD+AI",
        "13",
        "Imbalance of classes",
        lambda s: "None: each patient gives one visit to either class.",
    ),
    Item("TRIPOD+AI", "14", "Fairness", _authors),
    Item(
        "TRIPOD+AI",
        "15",
        "Output of the model",
        lambda s: "Decision values a patient (predictions.tsv).",
    ),
    Item(
        "TRIPOD+AI",
        "16",
        "Differences between training and evaluation data",
        lambda s: "None: one dataset, patients apart.",
    ),
    Item("TRIPOD+AI", "17", "Ethical approval", _authors),
    Item(
        "TRIPOD+AI",
        "18",
        "Funding, protocol, registration, sharing of data and code",
        lambda s: (
            "Settings are in "
            "study.toml, weights in model/; the rest is for the authors."
        ),
    ),
    Item("TRIPOD+AI", "19", "Involvement of patients and the public", _authors),
    Item(
        "TRIPOD+AI",
        "20",
        "Participants: flow and characteristics",
        lambda s: " ".join(filter(None, [_sample(s), _demographics(s)])),
    ),
    Item(
        "TRIPOD+AI",
        "21",
        "Numbers in each analysis",
        lambda s: (
            f"{s['evaluation']['patients']} participants, "
            f"{2 * s['evaluation']['patients']} visits."
        ),
    ),
    Item(
        "TRIPOD+AI",
        "22",
        "Specification of the model",
        lambda s: "Weights in model/, signed by `cingulum signature export`.",
    ),
    Item("TRIPOD+AI", "23", "Performance with intervals", _performance),
    Item("TRIPOD+AI", "24", "Updating of the model", lambda s: "None."),
    Item(
        "TRIPOD+AI",
        "25–27",
        "Interpretation, limitations, usability",
        lambda s: (
            f"{len(s['warnings'])} warnings "
            "first on this page; the rest is for the authors."
        ),
    ),
    Item(
        "COBIDAS",
        "Experimental design",
        "Number of subjects, exclusions, demographics",
        lambda s: " ".join(filter(None, [_sample(s), _demographics(s)])),
    ),
    Item("COBIDAS", "Acquisition", "Scanner, sequence and its parameters", _authors),
    Item(
        "COBIDAS",
        "Preprocessing",
        "Software, versions, order of the steps",
        _preprocessing,
    ),
    Item(
        "COBIDAS", "Quality control", "Motion, signal, exclusions for quality", _quality
    ),
    Item("COBIDAS", "Statistical modelling", "Predictive analysis", _validation),
    Item(
        "COBIDAS",
        "Statistical inference",
        "Correction for tests",
        lambda s: (
            (
                "Maps: false discovery rate and largest-statistic permutation. "
                if s.get("maps")
                else ""
            )
            + "Models: each p by itself, uncorrected."
        ),
    ),
    Item("COBIDAS", "Results", "Maps, tables of peaks, all tests reported", _stability),
    Item("COBIDAS", "Reproducibility", "Software with versions, settings", _software),
)


def checklist(s: Numbers) -> list[dict[str, str]]:
    """Every item with its answer; empty where the authors must answer."""
    return [
        {
            "guideline": i.guideline,
            "number": i.number,
            "topic": i.topic,
            "answer": i.answer(s),
        }
        for i in ITEMS
    ]
