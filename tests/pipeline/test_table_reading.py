"""Tables as people write them: read as meant, asked about, or named; nothing that tells
the answer passes without a word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.io.files import as_numbers, is_text
from cingulum.pipeline.table_text import clean_names, read_columns, row_numbers
from cingulum.pipeline.telling_columns import (
    constant_columns,
    deciding_columns,
    far_values,
    refuse_copies,
    site_columns,
)
from cingulum.pipeline.visit_order import natural_key, sort_keys


def read(*values: str) -> tuple[pd.Series, tuple[str, ...]]:
    result = read_columns(pd.DataFrame({"x": list(values)}, dtype=str), [])
    return result.table["x"], result.remarks


@pytest.mark.parametrize("missing", ["NA", "n/a", "NaN", "NULL", ".", "-", "", " na "])
def test_missing_values_as_people_write_them(missing):
    column, remarks = read("1.5", missing, "-2")
    np.testing.assert_array_equal(column, [1.5, np.nan, -2])
    assert not remarks


@pytest.mark.parametrize(
    ("written", "number", "remark"), [("1,5", 1.5, "commas"), ("12 %", 12, "percent")]
)
def test_what_is_read_otherwise_is_said(written, number, remark):
    column, remarks = read("1", written, "3")
    assert column[1] == number and remark in remarks[0]


def test_a_column_of_numbers_with_a_word_is_named_and_words_are_words():
    column, remarks = read("1", "2", "3", "abc")
    assert is_text(column) and "'abc' in row 5" in remarks[0]
    column, remarks = read("a", "b", "3")
    assert list(column) == ["a", "b", "3"] and not remarks


def test_names_with_spaces_are_one_and_doubtful_ones_are_asked():
    names = pd.Series(["P1", "P1 ", " P2"], name="id")
    assert list(clean_names(Path("t.tsv"), names)) == ["P1", "P1", "P2"]
    for pair in (["P01", "p01"], ["P1", "P01"], ["sub-1", "01"]):
        with pytest.raises(InputError, match="case or leading zeros"):
            clean_names(Path("t.tsv"), pd.Series(pair, name="id"))
    clean_names(Path("t.tsv"), pd.Series(["P1", "P10", "P100"], name="id"))


def test_columns_that_number_the_rows():
    table = pd.DataFrame({"Unnamed: 0": [0, 1, 2, 3], "x": [2, 3, 4, 6]})
    assert row_numbers(table) == ["Unnamed: 0"]


@pytest.mark.parametrize(
    "labels",
    [
        ("prescan", "postscan"),
        ("pre1", "post1"),
        ("baseline", "3 months", "6 months", "1 year"),
        ("day -1", "day 1", "day 10"),
        ("screening", "day 1"),
        ("01/12/2019", "15/02/2020"),
        ("2019-12-01", "2020-02-15"),
        ("first", "second", "third"),
        ("V2", "V10"),
        ("ses-2", "ses-10"),
        ("pre", "post", "followup"),
        ("week 2", "1 month"),
        ("1", "2", "10"),
    ],
)
def test_the_order_of_visits(labels):
    keys = [natural_key(label) for label in labels]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)


def test_minus_one_stands_beside_one():
    labels = ["T1", "T-1", "T2"]
    keys = sort_keys(pd.Series(labels))
    assert [labels[i] for i in np.argsort([k[-1][1] for k in keys])][0] == "T-1"
    assert natural_key("run-2") < natural_key("run-10")


def test_dates_that_may_be_read_in_two_ways_are_asked():
    with pytest.raises(InputError, match="2026-11-30"):
        sort_keys(pd.Series(["01/02/2020", "03/04/2020"]), Path("t.tsv"))


def test_columns_that_decide_everybody():
    """A condition decides by two values; of 200 columns of noise with 12 people none
    does (probability of one: .05)."""
    rng = np.random.default_rng(0)
    first, second = np.arange(0, 24, 2), np.arange(1, 24, 2)
    rises = rng.permutation(np.arange(12) < 6)
    values = pd.DataFrame(rng.normal(size=(24, 200)))
    values["condition"] = 0.0
    values.loc[np.where(rises, second, first), "condition"] = 1.0
    found = list(deciding_columns(values, first, second, rises))
    assert [f.column for f in found] == ["condition"] and found[0].is_indicator


def test_columns_that_are_the_mean_of_the_outcome():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(12), 2)
    outcome = rng.normal(size=24) + 3 * rng.normal(size=12)[people]
    means = pd.Series(outcome).groupby(people).transform("mean")
    values = pd.DataFrame({"mean": means, "age": rng.normal(size=12)[people]})
    values["noise"] = rng.normal(size=24)
    (found,) = constant_columns(values, outcome, people)
    assert found.column == "mean" and found.share > 0.99


@pytest.mark.parametrize("value", [-999.0, 1e12, 9999.0])
def test_sentinels_are_named(value):
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(size=(40, 3)), columns=list("abc"))
    assert not list(far_values(values))
    values.loc[7, "b"] = value
    (far,) = far_values(values)
    assert (far.column, far.row, far.value) == ("b", 7, value)


@pytest.mark.parametrize("change", [0.0, 1e-9])
def test_copies_that_differ_a_little(change):
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(size=(20, 30)))
    names = [f"s{i}" for i in range(20)]
    refuse_copies(values, names)
    values.loc[11] = values.loc[4] + change
    values.loc[11, 0] = 5.0
    with pytest.raises(InputError, match="s4 and s11"):
        refuse_copies(values, names)


def test_what_was_measured_once_may_be_in_the_rows_of_all_visits():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(10), 2)
    values = pd.DataFrame(rng.normal(size=(10, 6))[people])
    names = [str(i) for i in range(20)]
    refuse_copies(values, names, people)
    with pytest.raises(InputError, match="copy"):
        refuse_copies(values, names)


def test_ordinal_scales_coincide_and_are_no_copies():
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.integers(0, 4, (40, 5)).astype(float))
    refuse_copies(values, [str(i) for i in range(40)])


def test_a_site_is_recognised():
    rng = np.random.default_rng(0)
    people = np.arange(60)
    site = np.array(list("abc"))[people % 3]
    outcome = rng.normal(size=60) + 3 * (people % 3)
    table = pd.DataFrame({"scanner": site, "name": people.astype(str)})
    (found,) = site_columns(table, ["scanner", "name"], outcome, people)
    assert found[0] == "scanner" and found[1] < 1e-6


def table(n: int = 14, effect: float = 0.0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        trait = rng.normal(size=4)
        for visit in (0, 1):
            row = {"participant_id": f"s{i}", "session_id": f"ses-{visit + 1}"}
            row["pain"] = 30 + 20 * visit + rng.normal()
            x = trait + rng.normal(size=4) + effect * visit
            rows.append(row | {f"f{k}": x[k] for k in range(4)})
    return pd.DataFrame(rows)


def predict(folder: Path, frame: pd.DataFrame, *options: str) -> int:
    frame.to_csv(folder / "t.tsv", sep="\t", index=False, na_rep="n/a")
    words = f"predict {folder / 't.tsv'} --outcome pain --permutations 19 --n-jobs 1"
    return main([*words.split(), "--out", str(folder / "out"), *options])


def summary(folder: Path) -> dict:
    return json.loads((folder / "out" / "summary.json").read_text())


def test_a_perfect_score_has_an_interval(tmp_path):
    assert predict(tmp_path, table(effect=6.0)) == 0
    result = summary(tmp_path)
    assert result["score"] == 1.0 and result["interval"][0] == pytest.approx(
        0.768, abs=1e-3
    )


def test_the_told_r_is_in_the_written_predictions(tmp_path):
    one_visit = table(24, 1.0).iloc[::2]
    assert predict(tmp_path, one_visit, "--design", "between") == 0
    rows = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    away = rows["predicted"] - rows["training_mean"]
    again = np.corrcoef(away, rows["rating"])[0, 1]
    assert again == pytest.approx(summary(tmp_path)["score"], abs=1e-6)


def test_a_table_without_sessions_and_brackets_in_names(tmp_path):
    frame = table(24, 1.0).iloc[::2].assign(session_id=np.nan)
    frame = frame.rename(columns={"f0": "hf[ms2]"})
    options = ["--design", "between", "--features", "hf[ms2]", "f1"]
    assert predict(tmp_path, frame, *options) == 0
    assert "hf[ms2]" in str(summary(tmp_path)["columns"])


def test_the_outcome_may_come_from_the_dataset(tmp_path):
    frame = table()
    for person, rows in frame.groupby("participant_id"):
        folder = tmp_path / "bids" / f"sub-{person}"
        folder.mkdir(parents=True)
        path = folder / f"sub-{person}_sessions.tsv"
        rows[["session_id", "pain"]].to_csv(path, sep="\t", index=False)
    bids = str(tmp_path / "bids")
    assert predict(tmp_path, frame.drop(columns="pain"), "--bids", bids) == 0
    with_dataset = summary(tmp_path)["score"]
    assert predict(tmp_path, frame) == 0
    assert summary(tmp_path)["score"] == with_dataset


def test_an_earlier_result_stands_until_the_new_one_is_written(tmp_path):
    """The disk is full for the second run: all files of the first are there."""
    assert predict(tmp_path, table()) == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    program = (
        "import resource, signal, sys; from cingulum.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY)); "
        "sys.exit(main(sys.argv[1:]))"
    )
    words = f"predict {tmp_path / 't.tsv'} --outcome pain --permutations 19 --n-jobs 1"
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split(), "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "0"},
    )
    assert done.returncode == 4 and "cannot write" in done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_closed_streams(tmp_path):
    table().to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    words = f"predict {tmp_path / 't.tsv'} --outcome pain --permutations 19 --n-jobs 1"
    command = f"{sys.executable} -m cingulum {words} --out {tmp_path}"
    quiet = subprocess.run(f"{command}/a 2>&- >/dev/null", shell=True)
    assert quiet.returncode == 0 and (tmp_path / "a" / "report.html").exists()
    cut = f"set -o pipefail; {command}/b 2>{tmp_path}/said | head -c 0"
    done = subprocess.run(["bash", "-c", cut], check=False)
    assert done.returncode in (0, 141)
    assert "Traceback" not in (tmp_path / "said").read_text()


@pytest.mark.parametrize("value", ["1e2147483648", "1e4294967295", "-1e2147483648"])
def test_exponents_that_end_a_native_parser_are_refused(tmp_path, capsys, value):
    rows = [f"s{i // 2}\t{i % 2}\t{i % 7}\t{(i * 37) % 11}.5" for i in range(24)]
    rows[3] = "\t".join([*rows[3].split("\t")[:3], value])
    path = tmp_path / "t.tsv"
    path.write_text("participant_id\tsession_id\tpain\tx\n" + "\n".join(rows) + "\n")
    options = ["--outcome", "pain", "--permutations", "19"]
    assert main(["predict", str(path), *options, "--out", str(tmp_path / "o")]) == 4
    assert "x" in capsys.readouterr().err


def test_numbers_in_texts():
    texts = ["1", " -2.5 ", "1e3", ".5", "inf", "1_000", "٣", "nan", "a", "", None, 7]
    read = as_numbers(pd.Series(texts, dtype=object)).tolist()
    assert read[:5] == [1.0, -2.5, 1000.0, 0.5, np.inf] and read[-1] == 7.0
    assert np.isnan(read[5:11]).all()
