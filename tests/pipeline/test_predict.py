"""`cingulum predict` on tables of any origin: what it finds, what it says, what it
refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main


def table(n=24, effect=1.0, seed=0, **more):
    """Two visits a participant; f0 and f1 rise with pain, f2 to f4 do not."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(n):
        trait, pain = rng.normal(size=5), rng.uniform(10, 60)
        for visit, session in enumerate(("ses-pre", "ses-post")):
            x = trait + rng.normal(size=5) * 0.7
            x[:2] += effect * visit
            now = pain + visit * 20 + rng.normal()
            rows.append(
                {
                    "participant_id": f"sub-{i:03d}",
                    "session_id": session,
                    "pain": now,
                    "age": 30 + i % 20,
                    "sex": "MF"[i % 2],
                    "site": "AB"[i % 2],
                    "motion": rng.normal(),
                    **{f"f{k}": x[k] for k in range(5)},
                }
            )
    return pd.DataFrame(rows).assign(**more)


def run(frame, tmp_path, *options, name="t.tsv"):
    path = tmp_path / name
    frame.to_csv(
        path, sep="," if name.endswith("csv") else "\t", index=False, na_rep="n/a"
    )
    code = main(
        [
            "predict",
            str(path),
            "--outcome",
            "pain",
            "--permutations",
            "39",
            "--n-jobs",
            "1",
            "--out",
            str(tmp_path / "out"),
            *options,
        ]
    )
    summary = tmp_path / "out" / "summary.json"
    return code, json.loads(summary.read_text()) if code == 0 else None


FEATURES = ("--features", "f0", "f1", "f2", "f3", "f4")


def test_an_effect_is_found_in_pairs_and_every_prediction_is_written(tmp_path):
    code, found = run(table(effect=1.5), tmp_path, *FEATURES)
    assert (
        code == 0
        and found["score"] > 0.7
        and found["p"] == 1 / 40
        and found["score_name"] == "accuracy"
    )
    assert (
        found["interval"][0] < found["score"] < found["interval"][1]
        and found["participants"] == 24
    )
    assert set(found["estimands"]) == {
        "forced_choice",
        "single_interval",
        "between_patients",
    }
    rows = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    assert (rows["outcome_lower"] < rows["outcome_higher"]).all() and set(
        rows["visit_higher"]
    ) == {"ses-post"}
    np.testing.assert_allclose(
        rows["score_higher"] - rows["score_lower"], rows["decision"], rtol=1e-6
    )
    assert len(rows) == 24 and rows["correct"].mean() == pytest.approx(found["score"])
    assert rows["fold"].nunique() == 24
    between = pd.read_csv(tmp_path / "out" / "predictions_between.tsv", sep="\t")
    assert (between["low"] < between["predicted"]).all() and len(between) == 48
    assert {c["name"] for c in found["audit"]} >= {
        "noise features",
        "shuffled visits",
        "order oracle",
        "published 2019 split",
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and not re.findall(r'(?:src|href)="(?!data:|#)', page)


@pytest.mark.slow
def test_the_last_row_of_the_learning_curve_is_the_score(tmp_path):
    """Scaled, with a confound: the same model, not one of rotated features."""
    _, found = run(table(), tmp_path, *FEATURES, "--confounds", "motion")
    assert found["learning_curve"][-1]["accuracy"] == pytest.approx(found["score"])
    assert found["learning_curve"][-1]["patients"] == 24


def test_the_label_is_the_outcome_not_the_order(tmp_path):
    """Half of the participants come in the other order: the accuracy is that of who
    hurts more."""
    frame = table(seed=1)
    turned = frame["participant_id"].str[-1].isin(list("02468"))
    frame.loc[turned, "session_id"] = frame.loc[turned, "session_id"].map(
        {"ses-pre": "ses-post", "ses-post": "ses-pre"}
    )
    _, found = run(frame, tmp_path, *FEATURES)
    assert found["score"] > 0.7
    checks = {c["name"]: c for c in found["audit"]}
    assert (
        checks["order oracle"]["verdict"] == "pass"
        and "published 2019 split" not in checks
    )
    rows = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    assert set(rows["visit_higher"]) == {"ses-pre", "ses-post"}


def test_ratings_between_participants(tmp_path):
    rng = np.random.default_rng(0)
    frame = table()
    frame["f0"] = frame["pain"] / 10 + 0.3 * rng.normal(size=len(frame))
    code, found = run(frame, tmp_path, "--design", "between", *FEATURES)
    assert (
        code == 0
        and found["score"] > 0.5
        and found["p"] == 1 / 40
        and found["score_name"] == "r_within_state"
    )
    assert (
        "forced_choice" in found["estimands"]
        and found["estimands"]["between_patients"]["all"]["figures"]["r2"] > 0.3
    )
    rows = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    assert rows.groupby("participant_id")["fold"].nunique().max() == 1


@pytest.mark.slow
def test_columns_that_may_not_be_features_are_named(tmp_path, capsys):
    """By their name, and by what they have in common with the outcome, in both
    designs."""
    frame = table()
    frame["unpleasantness"] = 0.9 * frame["pain"] + np.random.default_rng(0).normal(
        size=len(frame)
    )
    for design in ("paired", "between"):
        _, found = run(frame, tmp_path, "--design", design)
        names = [c["name"] for c in found["audit"] if c["verdict"] == "warn"]
        assert (
            "a column like the outcome" in names
            and "columns that may be confounds" in names
        )
        said = capsys.readouterr().out
        assert "unpleasantness alone correlates" in said and "age, motion" in said
    assert any(
        c["name"] == "noise features, ratings" and c["verdict"] == "pass"
        for c in found["audit"]
    )
    assert not (tmp_path / "out" / "weights.tsv").exists(), (
        "what the paired run left is gone"
    )


@pytest.mark.slow
def test_options_of_the_other_design_are_told(tmp_path):
    _, found = run(
        table(),
        tmp_path,
        *FEATURES,
        "--design",
        "between",
        "--fusion",
        "kernels",
        "-C",
        "0.1",
    )
    assert any("--fusion, --C" in note for note in found["notes"])


@pytest.mark.slow
def test_large_units_end(tmp_path):
    """A date as a number once kept the published recipe's SVR from converging."""
    frame = table(14)
    frame["when"] = 20240101 + np.arange(len(frame))
    code, _ = run(frame, tmp_path, "--features", "f*", "when")
    assert code == 0


def test_the_code_of_the_documentation_runs():
    code = (
        (Path(__file__).parents[2] / "docs" / "prediction.md")
        .read_text()
        .split("```python\n")[1]
        .split("```")[0]
    )
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=(12, 2))
    given = {
        "flow": rng.normal(size=(12, 2, 50)),
        "variability": rng.normal(size=(12, 2, 1)),
        "motion": rng.normal(size=(12, 2, 1)),
        "patients": [f"{i:02d}" for i in range(12)],
        "ratings": ratings,
        "higher": ratings[:, 1] > ratings[:, 0],
        "sites": np.arange(12) % 2,
    }
    exec(
        code.replace("(measured, patients,", "(measured, patients, permutations=19,"),
        given,
    )
    assert given["weights"].pattern.z.shape == (50,) and given["checks"]


def test_one_visit_a_participant_is_enough_between(tmp_path):
    frame = table().query("session_id == 'ses-pre'").drop(columns="session_id")
    code, found = run(frame, tmp_path, "--design", "between", *FEATURES)
    assert code == 0 and found["score_name"] == "r"
    assert "not asked" in found["estimands"]["forced_choice"]


def test_a_lost_scan_moves_no_other_into_its_state(tmp_path):
    """Half the participants have only the first visit, half only the second: two
    states, not one."""
    frame = table(30)
    number = frame["participant_id"].str[-3:].astype(int)
    frame = frame[(number % 2 == 0) == (frame["session_id"] == "ses-pre")]
    run(frame, tmp_path, "--design", "between", *FEATURES)
    rows = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    assert rows["state"].nunique() == 2


@pytest.mark.slow
def test_modalities_controls_and_missing_ones(tmp_path):
    frame = table()
    frame.loc[frame["participant_id"].isin(["sub-001", "sub-005"]), ["f3", "f4"]] = (
        np.nan
    )
    options = ("--modality", "a=f0,f1", "--modality", "b=f[34]", "--controls", "motion")
    _, found = run(frame, tmp_path, *options)
    assert (
        set(found["estimands"]["forced_choice"]) == {"a", "b", "motion", "fused"}
        and found["participants"] == 22
    )
    assert found["left_out"]["participants that lack a modality"] == [
        "sub-001",
        "sub-005",
    ]
    assert set(found["contributions"]) == {"a", "b"}
    _, kept = run(
        frame, tmp_path, *options, "--missing", "log_odds", "--fusion", "kernels"
    )
    assert kept["participants"] == 24 and kept["settings"]["fusion"] == "log_odds"


@pytest.mark.slow
def test_names_that_look_like_numbers_stay_names(tmp_path):
    frame = table(12)
    names = ["001", "1E5", "100000", "NA", "1.0", "2", "3", "4", "5", "6", "7", "8"]
    frame["participant_id"] = np.repeat(names, 2)
    _, found = run(frame, tmp_path, *FEATURES)
    assert found["participants"] == 12
    rows = pd.read_csv(
        tmp_path / "out" / "predictions.tsv", sep="\t", dtype=str, keep_default_na=False
    )
    assert set(rows["participant_id"]) == set(names)


@pytest.mark.slow
def test_columns_that_give_the_answer_away_are_left_out_and_told(tmp_path):
    frame = table()
    frame["visit"] = frame["session_id"].map({"ses-pre": 1, "ses-post": 2})
    frame["pain_copy"] = 2 * frame["pain"] + 1
    _, found = run(frame, tmp_path)
    told = " ".join(found["left_out"]["columns that give the answer away"])
    assert (
        "visit (numbers the visits)" in told
        and "pain_copy (repeats the outcome)" in told
    )
    assert not {"visit", "pain_copy", "age_copy"} & set(found["columns"]["features"])


@pytest.mark.slow
def test_csv_and_order_columns(tmp_path):
    frame = table().rename(columns={"session_id": "when"})
    frame["when"] = np.tile([2, 10], 24)
    code, found = run(frame, tmp_path, *FEATURES, "--order", "when", name="t.csv")
    assert code == 0 and found["score"] > 0.7


@pytest.mark.slow
def test_hostile_labels_are_escaped(tmp_path):
    frame = table().rename(columns={"f0": "<script>alert(1)</script>"})
    run(frame, tmp_path)
    assert "<script" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t, ("--outcome", "pian"), "Did you mean pain"),
        (lambda t: t.assign(pain="much"), (), "must be finite numbers.*'much'"),
        (lambda t: t.assign(pain=5.0), (), "outcome changes in none"),
        (
            lambda t: t,
            ("--design", "between", "--outcome", "const"),
            "has no column 'const'",
        ),
        (lambda t: t.head(10), FEATURES, "at least 10 patients; got 5"),
        (lambda t: t.assign(session_id="ses-1"), FEATURES, "more than once"),
        (lambda t: t, ("--features", "sex"), "cannot be a feature: it is not numeric"),
        (lambda t: t, ("--features", "f9"), "Did you mean f"),
        (lambda t: t, ("--confounds", "pain"), "give the answer away"),
        (lambda t: t, ("--harmonise",), "needs --site"),
        (lambda t: t, ("--seed", "-1"), "--seed"),
        (lambda t: t, ("--stop-after", "0"), "at least 1 permutation"),
        (lambda t: t, ("-C", "nan"), "C must be positive"),
        (lambda t: t, ("--folds", "1"), "folds is between 2"),
        (lambda t: t, ("--design", "between", "--folds", "0"), "folds is between 2"),
        (lambda t: t, ("--modality", "a=f1", "--modality", "a=f2"), "came twice"),
        (lambda t: t, ("--modality", "fused=f1"), "cannot be called fused"),
        (lambda t: t.assign(f0=np.inf), (), "infinite"),
        (
            lambda t: pd.concat(
                [t, t[t.participant_id == "sub-003"].assign(participant_id="twin")]
            ),
            FEATURES,
            "a copy of",
        ),
        (
            lambda t: pd.concat([t, t.head(1).assign(participant_id="twin")]),
            (*FEATURES, "--design", "between"),
            "a copy of",
        ),
        (lambda t: t, ("--permutations", "5"), "at least 19"),
        (lambda t: t.query("session_id == 'ses-pre'"), FEATURES, "0 have two visits"),
    ],
)
def test_what_cannot_be_used_is_told(tmp_path, capsys, change, options, message):
    code, _ = run(change(table()), tmp_path, *options)
    said = capsys.readouterr().err
    assert code == 4 and re.search(message, said), said
    assert not (tmp_path / "out" / "summary.json").exists()


@pytest.mark.slow
def test_few_participants_by_force(tmp_path):
    code, found = run(table(6), tmp_path, *FEATURES, "--force")
    assert code == 0 and found["participants"] == 6
