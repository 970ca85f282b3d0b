"""A page from hostile labels: shown, never obeyed. What the words say of results."""

from dataclasses import replace

import numpy as np
import pandas as pd

from cingulum.features import StudyRecipe
from cingulum.features.cohort_features import CohortFeatures
from cingulum.io.cohort import Cohort
from cingulum.io.visit import Visit
from cingulum.prediction import evaluate
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.report.guidelines import checklist
from cingulum.report.page import Picture, render
from cingulum.report.references import cited_by_study, listed
from cingulum.report.results import (
    BOTH_VISITS,
    Conformal,
    Gaps,
    Outlier,
    QualitySection,
    RegressionSection,
)
from cingulum.report.study import StudyMaterial, study_results, summary_of
from cingulum.report.text import NAMED, methods, warnings

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def results_of(label):
    rng = np.random.default_rng(0)
    people = [f"{i:02d}" for i in range(12)]
    values = {"hfhrv": rng.normal(size=(12, 2, 1))}
    ratings = pd.DataFrame(
        {
            "participant": np.repeat(people, 2),
            "session": np.tile([label, "post"], 12),
            "state": np.tile([0, 1], 12),
            "pain": rng.uniform(0, 100, 24),
        }
    )
    visits = tuple(Visit(person, s) for person in people for s in (label, "post"))
    participants = pd.DataFrame({"age": [95.0] * 12, "sex": [label] * 12})
    features = CohortFeatures(
        values,
        {"hfhrv": [""]},
        {"hfhrv": "ln ms²"},
        {},
        people,
        flagged={label: {"sub-01", "sub-02"}},
        equations=[label],
    )
    material = StudyMaterial(
        label,
        Cohort(visits, ratings, participants),
        features,
        StudyEvaluation(evaluate(values, people, permutations=19)),
        {},
    )
    return study_results(material, {})


def page_of(results, pictures=()):
    content = summary_of(results) | {
        "references": listed(cited_by_study(results)),
        "checklist": checklist(results),
    }
    return render("page.html", content, pictures)


def texts_of(results):
    return [warning.text for warning in warnings(results)]


def test_labels_are_escaped():
    page = page_of(results_of(HOSTILE), [Picture("cohort", b"png", HOSTILE, HOSTILE)])
    assert "<script" not in page
    assert "onerror=alert(2)>" not in page
    assert "&lt;script&gt;" in page


def test_ages_of_ninety_and_more_are_capped():
    assert results_of("pre").cohort.age.high == 90


def test_an_order_that_tells_who_hurt_more_is_a_warning():
    """One order of visits is no limit where pain rises in half of the people."""
    results = results_of("pre")
    balanced = replace(results.cohort, pain_rose_in=6)
    texts = texts_of(replace(results, cohort=balanced))
    assert any("in 6 of 12 patients: who knows nothing but" in text for text in texts)
    assert not any("same order (pre, then post)" in text for text in texts)
    always = replace(results.cohort, pain_rose_in=12)
    texts = texts_of(replace(results, cohort=always))
    assert any("same order (pre, then post)" in text for text in texts)


def test_gaps_are_named_and_a_hundred_of_them_do_not_bury_the_rest():
    gaps = Gaps(
        left_out={f"sub-{i:03d}": "no rating" for i in range(100)},
        lacking={"sub-x": {"rcbf": "damaged gzip file"}},
    )
    texts = texts_of(replace(results_of("pre"), gaps=gaps))
    assert sum("was left out: no rating" in text for text in texts) == NAMED
    assert any(text.startswith(f"{100 - NAMED} more of this kind") for text in texts)
    assert (
        "sub-x has no rcbf and was judged by the other modalities: damaged gzip file"
        in texts
    )


def test_methods_tell_where_ratings_were_exchanged():
    results = results_of("pre")
    regression = RegressionSection(
        12,
        24,
        {},
        {},
        0.5,
        0.5,
        None,
        {},
        Conformal(0.9, 1),
        "ridge",
        "responses",
        10,
        19,
    )
    estimands = replace(
        results.section.estimands, between_patients={BOTH_VISITS: regression}
    )
    results = replace(results, section=replace(results.section, estimands=estimands))
    assert "inside their site" not in " ".join(methods(results))
    recipe = StudyRecipe("strategy basic", site="scanner")
    provenance = replace(results.provenance, recipe=recipe)
    text = " ".join(methods(replace(results, provenance=provenance)))
    expected = "exchange their ratings inside their site (scanner of participants.tsv)"
    assert expected in text


def test_one_order_is_a_warning_though_it_is_not_everybodys():
    results = results_of("pre")
    for count, beginning in (
        (12, "Every patient had"),
        (11, "11 of 12 patients had"),
        (7, None),
    ):
        orders = {"pre, then post": count}
        if count < 12:
            orders["post, then pre"] = 12 - count
        cohort = replace(results.cohort, orders=orders, pain_rose_in=12)
        texts = [
            text
            for text in texts_of(replace(results, cohort=cohort))
            if "the same order (pre, then post)" in text
        ]
        assert len(texts) == (beginning is not None)
        assert all(text.startswith(beginning) for text in texts)


def test_methods_tell_what_controls_are_and_how_they_were_used():
    results = results_of("pre")
    prediction = {**results.prediction, "motion": results.prediction["hfhrv"]}
    results = replace(results, prediction=prediction)
    assert any(
        "framewise displacement, a control, kept out" in text
        for text in methods(results)
    )
    evaluation = replace(results.evaluation, fused=["hfhrv", "motion"])
    assert any(
        "framewise displacement, a control, fused like" in text
        for text in methods(replace(results, evaluation=evaluation))
    )


def test_a_hundred_visits_that_stand_apart_do_not_fill_the_page():
    far = [Outlier(f"sub-{i:03d}", "motion", 1.0, 0.1) for i in range(100)]
    quality = QualitySection(3.5, ["motion"], far)
    page = page_of(replace(results_of("pre"), quality=quality))
    assert "<summary>80 more</summary>" in page
    assert page.count("motion 1 (median 0.1)") == 100
