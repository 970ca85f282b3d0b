"""Items of reporting guidelines, answered where the software knows: TRIPOD+AI
(doi:10.1136/bmj-2023-078378) and the COBIDAS checklist of the Organization for Human
Brain Mapping (doi:10.1038/nn.4500). Topics are in our words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cingulum.report.results import Age, CohortSection, StudyResults
from cingulum.report.text import p_words, warnings

Answer = Callable[[StudyResults], str]

TRIPOD, COBIDAS = "TRIPOD+AI", "COBIDAS"


@dataclass(frozen=True)
class Item:
    """An item of a guideline.

    number: in the guideline, or its section
    answer: from the results; empty where only the authors know
    """

    guideline: str
    number: str
    topic: str
    answer: Answer


@dataclass(frozen=True)
class AnsweredItem:
    """An item with its answer in words; empty where the authors must answer."""

    guideline: str
    number: str
    topic: str
    answer: str


def checklist(results: StudyResults) -> list[AnsweredItem]:
    """Every item with its answer."""
    return [_answered(item, results) for item in ITEMS]


def _answered(item: Item, results: StudyResults) -> AnsweredItem:
    return AnsweredItem(item.guideline, item.number, item.topic, item.answer(results))


def _for_authors(results: StudyResults) -> str:
    """No answer: the page leaves the place empty for the authors."""
    return ""


def _always(text: str) -> Answer:
    """The same answer for every study."""
    return lambda results: text


def _sample(results: StudyResults) -> str:
    text = (
        f"{results.evaluation.patients} participants with two visits each were analysed"
    )
    # Exclusions are part of the sample: TRIPOD wants the flow of participants.
    if results.gaps.left_out:
        text += f"; {_left_out(results)}"
    return f"{text}. No sample size calculation."


def _left_out(results: StudyResults) -> str:
    return f"{len(results.gaps.left_out)} left out, each named with its reason"


def _missing(results: StudyResults) -> str:
    missing = results.evaluation.missing
    if missing:
        counts = [f"{count} lacking in {name}" for name, count in missing.items()]
        return f"Participants that lack a modality were kept: {', '.join(counts)}"
    text = "No participant that was analysed lacks a modality."
    # Whoever was left out may have been so for missing data.
    if results.gaps.left_out:
        text += f" {_left_out(results)}."
    return text


def _performance(results: StudyResults) -> str:
    score = results.prediction[results.best]
    interval = score.accuracy_ci
    return (
        f"Accuracy {100 * score.accuracy:.1f} % (95 % interval "
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}), paired AUC "
        f"{score.auc:.3f}, {p_words(score.p)}; every model in the table."
    )


def _outcome(results: StudyResults) -> str:
    also = ""
    if results.section.estimands.of_both_visits is not None:
        also = ", and the rating itself between patients"
    return (
        "Pain rated from 0 to 100 at each visit; predicted: which visit hurt more"
        f"{also}."
    )


def _predictors(results: StudyResults) -> str:
    settings = results.evaluation
    counts = [f"{name} ({settings.columns[name]} columns)" for name in settings.fused]
    return f"{', '.join(counts)}; none was selected."


def _validation(results: StudyResults) -> str:
    settings = results.evaluation
    # Inner folds tune the penalty and train the fusion; without either there are none.
    inner = ""
    if len(settings.fused) > 1 or len(settings.C) > 1:
        inner = f" and {settings.inner_folds} inner"
    return (
        f"Internal: {settings.folds} outer{inner} folds of whole patients; no external "
        "validation."
    )


def _stability(results: StudyResults) -> str:
    agreement = []
    for name, section in results.maps.items():
        # Unknown where the patients could not be divided into halves.
        if section.reproducibility is not None:
            agreement.append(f"r = {section.reproducibility:.2f} ({name})")
    if not agreement:
        return ""
    return f"Weights of halves of the patients agree with {', '.join(agreement)}"


def _demographics(results: StudyResults) -> str:
    texts = [_age_text(results.cohort), _sex_text(results.cohort)]
    # participants.tsv may lack either column.
    return "; ".join(filter(None, texts))


def _age_text(cohort: CohortSection) -> str:
    if cohort.age is None:
        return ""
    return f"age {_mean_and_sd(cohort.age)} years{_known(cohort.age, cohort.patients)}"


def _mean_and_sd(age: Age) -> str:
    return f"{age.mean:.1f} ± {age.sd:.1f}"


def _known(age: Age, patients: int) -> str:
    if age.known >= patients:
        return ""
    return f" (known of {age.known})"


def _sex_text(cohort: CohortSection) -> str:
    if not cohort.sex:
        return ""
    counts = [f"{sex} {count}" for sex, count in cohort.sex.items()]
    return f"sex {', '.join(counts)}"


def _participants(results: StudyResults) -> str:
    # A cohort without demographics still has its numbers.
    return " ".join(filter(None, [_sample(results), _demographics(results)]))


def _numbers(results: StudyResults) -> str:
    patients = results.evaluation.patients
    return f"{patients} participants, {2 * patients} visits."


def _limitations(results: StudyResults) -> str:
    return (
        f"{len(warnings(results))} warnings first on this page; the rest is for the "
        "authors."
    )


def _software(results: StudyResults) -> str:
    versions = results.provenance.versions
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _preprocessing(results: StudyResults) -> str:
    pipelines = results.provenance.pipelines
    # Without a name in the derivatives only the authors know.
    if not pipelines:
        return ""
    return f"As the derivatives say: {', '.join(pipelines)}."


def _quality(results: StudyResults) -> str:
    far = results.quality.far
    visits = len({outlier.visit for outlier in far})
    return (
        f"Table of quality with {len(far)} values that stand apart, at {visits} visits."
    )


def _correction(results: StudyResults) -> str:
    models = "Models: each p by itself, uncorrected."
    if not results.maps:
        return models
    return f"Maps: false discovery rate and largest-statistic permutation. {models}"


# In the order of the guidelines, which the page keeps.
ITEMS = (
    Item(TRIPOD, "1–2", "Title and abstract name the kind of study", _for_authors),
    Item(TRIPOD, "3–4", "Background, intended use, objectives", _for_authors),
    Item(TRIPOD, "5", "Sources and dates of the data", _for_authors),
    Item(TRIPOD, "6", "Setting, eligibility, treatments", _for_authors),
    Item(
        TRIPOD,
        "7",
        "Preparation of the data",
        _always("Section Methods; settings in study.toml."),
    ),
    Item(TRIPOD, "8", "RatedOutcome, how and when it was assessed", _outcome),
    Item(TRIPOD, "9", "Predictors, how they were chosen and measured", _predictors),
    Item(TRIPOD, "10", "Sample size", _sample),
    Item(TRIPOD, "11", "Missing data", _missing),
    Item(
        TRIPOD,
        "12",
        "Analytical methods, internal validation, measures of performance",
        _validation,
    ),
    Item(
        TRIPOD,
        "13",
        "Imbalance of classes",
        _always("None: each patient gives one visit to either class."),
    ),
    Item(TRIPOD, "14", "Fairness", _for_authors),
    Item(
        TRIPOD,
        "15",
        "Output of the model",
        _always("Decision values a patient (predictions.tsv)."),
    ),
    Item(
        TRIPOD,
        "16",
        "Differences between training and evaluation data",
        _always("None: one dataset, patients apart."),
    ),
    Item(TRIPOD, "17", "Ethical approval", _for_authors),
    Item(
        TRIPOD,
        "18",
        "Funding, protocol, registration, sharing of data and code",
        _always(
            "Settings are in study.toml, weights in model/; the rest is for the "
            "authors."
        ),
    ),
    Item(TRIPOD, "19", "Involvement of patients and the public", _for_authors),
    Item(TRIPOD, "20", "Participants: flow and characteristics", _participants),
    Item(TRIPOD, "21", "Numbers in each analysis", _numbers),
    Item(
        TRIPOD,
        "22",
        "Specification of the model",
        _always("Weights in model/, signed by `cingulum signature export`."),
    ),
    Item(TRIPOD, "23", "Performance with intervals", _performance),
    Item(TRIPOD, "24", "Updating of the model", _always("None.")),
    Item(TRIPOD, "25–27", "Interpretation, limitations, usability", _limitations),
    Item(
        COBIDAS,
        "Experimental design",
        "Number of subjects, exclusions, demographics",
        _participants,
    ),
    Item(COBIDAS, "Acquisition", "Scanner, sequence and its parameters", _for_authors),
    Item(
        COBIDAS,
        "Preprocessing",
        "Software, versions, order of the steps",
        _preprocessing,
    ),
    Item(
        COBIDAS, "Quality control", "Motion, signal, exclusions for quality", _quality
    ),
    Item(COBIDAS, "Statistical modelling", "Predictive analysis", _validation),
    Item(COBIDAS, "Statistical inference", "Correction for tests", _correction),
    Item(COBIDAS, "Results", "Maps, tables of peaks, all tests reported", _stability),
    Item(COBIDAS, "Reproducibility", "Software with versions, settings", _software),
)
