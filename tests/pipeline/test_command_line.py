"""The commands a newcomer types, from dataset to report, and what they say when
something is wrong."""

import html
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.report.viewers import script_hash


def run_group(bids, out, *more):
    return main(["run", str(bids), str(out), "group", "--permutations", "19", *more])


def leftovers(folder):
    """Files that a failed command must not leave: results, and halves of anything."""
    if not folder.exists():
        return []
    return [
        p.name
        for p in folder.rglob("*")
        if p.name in {"report.html", "summary.json", "features.tsv", "fit.json"}
        or "partial" in p.name
    ]


@pytest.fixture(scope="module")
def analysed(small_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("analysed") / "results"
    assert (
        main(
            [
                "run",
                str(small_cohort),
                str(out),
                "participant",
                "--participant-label",
                "01",
                "sub-02",
            ]
        )
        == 0
    )
    assert sorted(p.name for p in out.glob("sub-*")) == [
        "sub-01",
        "sub-01.html",
        "sub-02",
        "sub-02.html",
    ]
    first = next((out / "sub-01").rglob("*_cbf.nii.gz"))
    before = first.stat().st_mtime_ns
    assert run_group(small_cohort, out) == 0
    assert first.stat().st_mtime_ns == before, "what was measured before must be kept"
    return out


def test_group_measures_the_rest_and_writes_every_result(analysed):
    summary = json.loads((analysed / "summary.json").read_text())
    models = {"s1conn", "rcbf", "hfhrv", "mechanism", "motion", "rate", "fused"}
    assert set(summary["prediction"]) - {"breath"} == models and summary["fit"] is None
    for figures in summary["prediction"].values():
        assert (
            0
            <= figures["accuracy_ci"][0]
            <= figures["accuracy"]
            <= figures["accuracy_ci"][1]
            <= 1
        )
        assert 0 < figures["p"] <= 1 and 0 <= figures["auc"] <= 1
    assert (
        len(list(analysed.glob("sub-*/")))
        == len(list(analysed.glob("sub-*.html")))
        == 10
    )
    table = pd.read_csv(analysed / "features.tsv", sep="\t")
    assert len(table) == 20 and {
        "participant",
        "pain",
        "hfhrv",
        "motion",
        "mechanism strength",
    } <= set(table)


@pytest.mark.parametrize("name", ["report.html", "sub-01.html"])
def test_a_page_asks_nothing_of_the_network(analysed, name):
    """Only scripts that the policy knows by their hash; sources are data; links lead to
    DOIs, other pages, or down."""
    page = (analysed / name).read_text()
    policy = html.unescape(
        re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    )
    assert (
        policy.startswith("default-src 'none'; script-src 'sha256-")
        and "http" not in policy
    )
    assert "<script" not in page, "scripts run in the frames of viewers only"
    for frame in re.findall(r'srcdoc="([^"]*)"', page):
        scripts = re.findall(r"<script[^>]*>(.*?)</script>", html.unescape(frame), re.S)
        assert scripts and all(script_hash(script) in policy for script in scripts)
        assert not re.findall(r'(?:src|href)="(?!data:)', html.unescape(frame))
    outside = re.sub(r'srcdoc="[^"]*"', "", page)
    assert not re.findall(r'src="(?!data:)', outside)
    links = re.findall(r'href="(?!data:|#)([^"]*)"', outside)
    assert all(
        re.fullmatch(r"https://doi\.org/\S+|report\.html|sub-\w+\.html", link)
        for link in links
    )
    assert outside.count("<img ") == outside.count('alt="') >= 3


def test_every_figure_in_the_reports_tables_is_in_the_summary(analysed):
    numbers = []

    def collect(value):
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                collect(inner)
        elif isinstance(value, int | float):
            numbers.append(float(value))

    collect(json.loads((analysed / "summary.json").read_text()))
    page = re.sub(
        r"<details.*?</details>", "", (analysed / "report.html").read_text(), flags=re.S
    )  # figures' tables
    cells = " ".join(re.findall(r"<td>(.*?)</td>", page)).replace("−", "-")
    printed = re.findall(r"(?<![\d.])-?\d+(?:\.\d+)?", cells.replace("–", " "))
    assert len(printed) > 60
    for text in printed:
        digits = len(text.partition(".")[2])
        known = any(
            round(scale * n, digits) == float(text)
            for n in numbers
            for scale in (1, 100)
        )
        assert known, f"{text} stands in the report but not in summary.json"


def test_measurements_carry_unit_and_source(analysed):
    sidecar = json.loads(next((analysed / "sub-01").rglob("*_cbf.json")).read_text())
    assert (
        sidecar["Units"] == "1 (whole-brain mean)"
        and len(sidecar["SourceSHA256"]) == 64
    )


def test_planted_values_are_read_back(analysed, small_cohort):
    """Planted heart rate variability is reached up to sampling error of 100 s of pulse;
    motion exactly."""
    table = pd.read_csv(analysed / "features.tsv", sep="\t", dtype={"participant": str})
    truth = pd.read_csv(
        small_cohort / "sourcedata" / "truth.tsv", sep="\t", dtype={"participant": str}
    )
    joined = table.merge(
        truth, on=["participant", "session"], suffixes=("", "_planted")
    )
    assert np.corrcoef(joined["hfhrv"], joined["ln_hf"])[0, 1] > 0.9
    np.testing.assert_allclose(joined["motion"], joined["motion_planted"], rtol=1e-6)
    np.testing.assert_allclose(joined["pain"], joined["pain_planted"])


def remove(pattern):
    def damage(bids):
        for path in bids.rglob(pattern):
            path.unlink()

    return damage


def cut_short(pattern):
    def damage(bids):
        path = next(bids.rglob(pattern))
        path.write_bytes(path.read_bytes()[:-200])

    return damage


def flip_byte(bids):
    path = next(bids.rglob("*_cbf.nii.gz"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def not_an_image(bids):
    next(bids.rglob("*_desc-preproc_bold.nii.gz")).write_bytes(b"hello")


def no_pain(bids):
    path = bids / "sub-03" / "sub-03_sessions.tsv"
    path.write_text("session_id\tpain\nses-pre\tn/a\nses-post\t40\n")


def pain_in_words(bids):
    path = bids / "sub-03" / "sub-03_sessions.tsv"
    path.write_text("session_id\tpain\nses-pre\ta lot\nses-post\t40\n")


def one_visit(bids):
    for path in bids.rglob("*sub-04_ses-post*"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (
            remove("sub-02_ses-pre*_cbf.nii.gz"),
            [],
            "sub-02_ses-pre has no perfusion recording",
        ),
        (remove("*_physio.tsv.gz"), [], "has no cardiac recording"),
        (one_visit, [], "sub-04 has 1 visit"),
        (no_pain, [], "expected a pain rating from 0 to 100"),
        (pain_in_words, [], "expected a pain rating from 0 to 100"),
        (cut_short("*_desc-preproc_bold.nii.gz"), [], "damaged gzip file"),
        (cut_short("*_cbf.nii.gz"), [], "damaged gzip file"),
        (flip_byte, [], "damaged"),
        (not_an_image, [], "damaged gzip file"),
        (remove("dataset_description.json"), [], "expected a BIDS dataset"),
        (
            lambda bids: None,
            ["--participant-label", "01", "99"],
            "No such participant: 99",
        ),
        (
            lambda bids: None,
            ["--modalities", "eeg"],
            "takes s1conn, rcbf, cbf, hfhrv, fc, mechanism, physiology; got 'eeg'",
        ),
        (
            lambda bids: None,
            ["--participant-label", "01", "02"],
            "at least 10 participants; got 2",
        ),
        (
            lambda bids: None,
            ["--connectome", "nowhere.tsv"],
            "nowhere.tsv: cannot be read",
        ),
    ],
)
def test_bad_datasets_get_one_clear_error(
    own_cohort, tmp_path, capsys, damage, options, message
):
    damage(own_cohort)
    options = options or ["--modalities", "rcbf", "s1conn", "hfhrv"]
    assert run_group(own_cohort, tmp_path / "out", *options) == 4
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said
    assert leftovers(tmp_path / "out") == []


def test_a_missing_modality_can_be_left_out(own_cohort, tmp_path):
    remove("*_cbf.nii.gz")(own_cohort)
    assert run_group(own_cohort, tmp_path / "out", "--modalities", "hfhrv") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(summary["prediction"]) - {"breath"} == {"hfhrv", "rate"}


def test_a_folder_of_somebody_else_is_not_written_to(small_cohort, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert run_group(small_cohort, tmp_path, "--modalities", "hfhrv") == 4
    assert "name another output folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    assert main(["synthesize", str(tmp_path), "--patients", "2"]) == 4


HEAVY = re.compile(r"\| +(numpy|pandas|torch)\b")
"""Libraries in the output of -X importtime that take longer to load than help does."""


def test_help_teaches_with_an_example_and_is_quick():
    program = [sys.executable, "-X", "importtime", "-m", "cingulum"]
    done = subprocess.run([*program, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and not HEAVY.search(done.stderr)
    for command in ("demo", "fetch", "synthesize", "run", "fit", "simulate"):
        assert command in done.stdout
        told = subprocess.run(
            [sys.executable, "-m", "cingulum", command, "--help"],
            capture_output=True,
            text=True,
        )
        assert (
            f"example:\n  {'CINGULUM_DATA=~/data ' * (command == 'fetch')}cingulum "
            f"{command}" in told.stdout
        )


def test_an_error_in_a_setting_is_quick():
    program = [sys.executable, "-X", "importtime", "-m", "cingulum"]
    words = "run in out group --modalities bold".split()
    done = subprocess.run([*program, *words], capture_output=True, text=True)
    assert done.returncode == 4 and "takes s1conn" in done.stderr
    assert not HEAVY.search(done.stderr)


def test_wrong_usage_is_code_2():
    with pytest.raises(SystemExit) as stop:
        main(["run", "somewhere"])
    assert stop.value.code == 2


def test_the_output_is_a_bids_derivative(analysed):
    """By the schema package: the description has every required field, what is not
    ignored is known, and names use known entities in the schema's order (stat and seed
    come from the proposals for derivatives)."""
    pathspec = pytest.importorskip("pathspec")
    schema = pytest.importorskip("bidsschematools.schema").load_schema()
    described = json.loads((analysed / "dataset_description.json").read_text())
    rules = [
        rule
        for rule in schema.rules.json.dataset.values()
        if "raw" not in str(rule.selectors)
        and "genetic" not in str(rule.selectors).lower()
    ]
    levels = {
        name: level for rule in rules for name, level in rule.get("fields", {}).items()
    }
    required = {name for name, level in levels.items() if level == "required"}
    assert {"Name", "BIDSVersion", "GeneratedBy"} <= required <= set(described)
    assert described["DatasetType"] == "derivative"
    version = tuple(map(int, described["BIDSVersion"].split(".")))
    assert version <= tuple(
        int(part) for part in schema.bids_version.split("-")[0].split(".")
    )
    spec = pathspec.PathSpec.from_lines(
        "gitignore", (analysed / ".bidsignore").read_text().splitlines()
    )
    files = [
        str(p.relative_to(analysed))
        for p in analysed.rglob("*")
        if p.is_file() and p.name != ".bidsignore"
    ]
    assert sorted(f for f in files if not spec.match_file(f)) == [
        "dataset_description.json"
    ]
    short = {name: schema.objects.entities[name].name for name in schema.rules.entities}
    order = [*short.values()]
    for file in (f for f in files if f.startswith("sub-") and "/" in f):
        folders, name = file.split("/")[:-1], file.split("/")[-1]
        keys = [
            part.partition("-")[0] for part in name.partition(".")[0].split("_")[:-1]
        ]
        known = [key for key in keys if key not in ("stat", "seed")]
        assert known == sorted(known, key=order.index), file
        assert folders[-1] in schema.objects.datatypes and name.startswith(
            "_".join(folders[:-1])
        ), file
