"""A page from hostile labels: shown, never obeyed."""

import numpy as np
import pandas as pd

from cingulum.prediction import evaluate
from cingulum.report import Picture, render, summarise
from cingulum.report.text import NAMED, lead, methods, warnings
from cingulum.versions import software_versions

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def summary_of(label):
    rng = np.random.default_rng(0)
    people = [f"{i:02d}" for i in range(12)]
    evaluation = evaluate(
        {"hfhrv": rng.normal(size=(12, 2, 1))}, people, permutations=19
    )
    ratings = pd.DataFrame(
        {
            "participant": np.repeat(people, 2),
            "session": np.tile([label, "post"], 12),
            "state": np.tile([0, 1], 12),
            "pain": rng.uniform(0, 100, 24),
        }
    )
    s = {
        "title": label,
        "cohort": summarise.cohort(
            pd.DataFrame({"age": [95.0] * 12, "sex": [label] * 12}), ratings
        ),
        "visits": {},
        "prediction": summarise.prediction(evaluation),
        "evaluation": summarise.setting(evaluation, {"hfhrv": 1}),
        "fit": None,
        "visit_fits": None,
        "planted": None,
        "flags": {label: 2},
        "equations": [label],
        "versions": software_versions(),
        "seconds": 1.0,
    }
    return s | {
        "lead": lead(s),
        "warnings": warnings(s, False),
        "methods": methods(s),
    }


def test_labels_are_escaped():
    page = render(summary_of(HOSTILE), [Picture("cohort", b"png", HOSTILE, HOSTILE)])
    assert (
        "<script" not in page
        and "onerror=alert(2)>" not in page
        and "&lt;script&gt;" in page
    )


def test_ages_of_ninety_and_more_are_capped():
    assert summary_of("pre")["cohort"]["age"]["high"] == 90


def test_pain_that_did_not_rise_is_a_warning():
    texts = [w["text"] for w in summary_of("pre")["warnings"]]
    assert any(
        "not the same as recognising the more painful one" in text for text in texts
    )
    assert any("same order (pre, then post)" in text for text in texts)


def test_gaps_are_named_and_a_hundred_of_them_do_not_bury_the_rest():
    s = summary_of("pre")
    s["left_out"] = {f"sub-{i:03d}": "no rating" for i in range(100)}
    s["lacking"] = {"sub-x": {"rcbf": "damaged gzip file"}}
    texts = [warning["text"] for warning in warnings(s, False)]
    assert sum("was left out: no rating" in text for text in texts) == NAMED
    assert any(text.startswith(f"{100 - NAMED} more of this kind") for text in texts)
    assert (
        "sub-x has no rcbf and was judged by the other modalities: damaged gzip file"
        in texts
    )


def test_methods_tell_where_ratings_were_exchanged():
    s = summary_of("pre")
    s["estimands"] = {
        "between_patients": {"both": {"model": "ridge", "on": "responses", "folds": 10}}
    }
    assert "inside their site" not in " ".join(methods(s))
    told = " ".join(methods({**s, "recipe": {"site": "scanner"}}))
    assert (
        "exchange their ratings inside their site (scanner of participants.tsv)" in told
    )


def test_one_order_is_a_warning_though_it_is_not_everybodys():
    s = summary_of("pre")
    for one, said in (
        (12, "Every patient had"),
        (11, "11 of 12 patients had"),
        (7, None),
    ):
        s["cohort"]["orders"] = {
            "pre, then post": one,
            **({"post, then pre": 12 - one} if one < 12 else {}),
        }
        texts = [
            w["text"]
            for w in warnings(s, False)
            if "the same order (pre, then post)" in w["text"]
        ]
        assert [text.startswith(said) for text in texts] == ([True] if said else [])


def test_methods_tell_what_controls_are_and_where_they_stand():
    s = summary_of("pre")
    s["prediction"]["motion"] = s["prediction"]["hfhrv"]
    assert any(
        "framewise displacement, a control, kept out" in text for text in methods(s)
    )
    s["evaluation"]["fused"] = ["hfhrv", "motion"]
    assert any(
        "framewise displacement, a control, fused like" in text for text in methods(s)
    )


def test_a_hundred_visits_that_stand_apart_do_not_fill_the_page():
    s = summary_of("pre")
    far = [
        {"visit": f"sub-{i:03d}", "measure": "motion", "value": 1.0, "median": 0.1}
        for i in range(100)
    ]
    page = render({**s, "quality": {"limit": 3.5, "measures": ["motion"], "far": far}})
    assert (
        "<summary>80 more</summary>" in page
        and page.count("motion 1 (median 0.1)") == 100
    )
