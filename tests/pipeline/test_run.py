"""`cingulum run` as a BIDS App: order of options, study files, failures, status, and
the same bits whoever works."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main, parser
from cingulum.cli.run import chosen_study
from cingulum.features import FeatureRows, Measurement, Physiology
from cingulum.features.heart_rate import HighFrequencyVariability
from cingulum.io.visit import Visit
from cingulum.pipeline.config import StudyConfig, read_study
from cingulum.pipeline.feature_table import FeatureResult, FeatureTable
from cingulum.pipeline.paired_study import study_cohort
from cingulum.pipeline.paths import RunPaths
from cingulum.pipeline.study_settings import pipelines_of

FAST = ["--modalities", "hfhrv"]


def digest(folder):
    """Every file that a run shows, with its content; work/ is not shown."""
    kept = (
        p
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file() and "work" not in p.relative_to(folder).parts
    )
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


@pytest.mark.parametrize(
    "words",
    [
        "run in out group --participant-label 01 02 --n-jobs 2",
        "run --n-jobs 2 in out group --participant-label 01 02",
        "run in --n-jobs 2 out group --participant-label 01 02",
        "run --participant-label 01 02 --n-jobs 2 in out group",
        "run in out --participant-label 01 02 --n-jobs 2 group",
    ],
)
def test_options_stand_anywhere_where_it_is_clear(words):
    given = parser().parse_args(words.split())
    assert (str(given.bids_dir), str(given.out_dir), given.level) == (
        "in",
        "out",
        "group",
    )
    assert given.participant_label == ["01", "02"] and given.n_jobs == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "run --participant-label 01 02 in out participant",
            "--participant-label takes every word that follows: BIDS_DIR OUT_DIR "
            "participant come before the options: cingulum run BIDS_DIR OUT_DIR "
            "participant --participant-label LABEL …",
        ),
        (
            "run in --n-jobs 2 --participant-label 01 02 out",
            "BIDS_DIR OUT_DIR group come before the options: cingulum run",
        ),
        (
            "features in --features hrv fc out",
            "cingulum features BIDS_DIR OUT_DIR --features NAME …",
        ),
        (
            "predict --confounds age sex table.tsv --outcome pain --out x",
            "FEATURES come before the options",
        ),
    ],
)
def test_the_right_order_is_shown_where_an_option_took_the_folders(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(words.split())
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_order_is_no_advice_where_it_is_not_the_trouble(capsys):
    for words in ("run in", "predict table.tsv --confounds age sex"):
        with pytest.raises(SystemExit):
            parser().parse_args(words.split())
        said = capsys.readouterr().err
        assert "are required" in said and "come before" not in said


def test_a_seed_has_negative_numbers():
    for words in (
        "--seed -18 -38 72 in out",
        "in --seed -18 -38 72 out",
        "in out --seed -18 -38 72",
    ):
        given = parser().parse_args(f"features {words}".split())
        assert (str(given.bids_dir), str(given.out_dir), given.seed) == (
            "in",
            "out",
            [[-18.0, -38.0, 72.0]],
        )


def test_a_typo_has_a_suggestion(capsys):
    for words in (
        "run in out group --permutation-s 3",
        "run in --permutation-s 3 out group",
    ):
        with pytest.raises(SystemExit) as stop:
            main(words.split())
        assert (
            stop.value.code == 2
            and "Did you mean --permutations?" in capsys.readouterr().err
        )
    with pytest.raises(SystemExit):
        main("run in out group -- more".split())
    assert "Did you mean" not in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["rnu", "in", "out", "group"])
    assert "Did you mean run?" in capsys.readouterr().err


def test_options_win_over_the_study_file(tmp_path):
    (tmp_path / "s.toml").write_text(
        "[prediction]\nfusion = 'kernels'\npermutations = 99\n"
    )
    words = (
        f"run in out group --study {tmp_path / 's.toml'} --permutations 199 "
        "--session-label pre --scrub 0.5"
    )
    study = chosen_study(parser().parse_args(words.split()))
    assert study.prediction.fusion == "kernels" and study.prediction.permutations == 199
    assert study.dataset.sessions == ("pre",) and study.features.scrub == 0.5


def test_options_take_back_what_the_study_file_says(tmp_path):
    settings = (
        "scrub = 0.5\nlow_pass = 0.1\n[prediction]\nfuse_controls = "
        "true\nstop_after = 20\nconfounds = ['age']\n"
    )
    (tmp_path / "s.toml").write_text(f"[features]\n{settings}")
    words = f"run in out group --study {tmp_path / 's.toml'}"
    assert chosen_study(parser().parse_args(words.split())).prediction.stop_after == 20
    words += (
        " --scrub none --low-pass none --no-fuse-controls --stop-after none --confounds"
    )
    study = chosen_study(parser().parse_args(words.split()))
    assert (study.features, study.prediction) == (
        StudyConfig().features,
        StudyConfig().prediction,
    )


def test_dry_run_writes_nothing(small_cohort, tmp_path, capsys):
    assert (
        main(
            [
                "run",
                str(small_cohort),
                str(tmp_path / "out"),
                "participant",
                "--dry-run",
                *FAST,
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert (
        "10 participants, 20 visits" in said
        and "20 visits to do" in said
        and not (tmp_path / "out").exists()
    )


def test_a_failed_visit_is_recorded_and_the_rest_goes_on(own_cohort, tmp_path, capsys):
    out = tmp_path / "out"
    damaged = next(own_cohort.rglob("sub-02_ses-pre*_physio.tsv.gz"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-200])
    options = ["--participant-label", "01", "02", "--n-jobs", "1", *FAST]
    assert main(["run", str(own_cohort), str(out), "participant", *options]) == 3
    table = pd.read_csv(out / "failures.tsv", sep="\t", dtype=str)
    assert (
        set(table["participant"]) == {"02"}
        and table["reason"].str.contains("damaged gzip").all()
    )
    assert str(own_cohort) not in (out / "failures.tsv").read_text()
    capsys.readouterr()
    assert main(["status", str(out)]) == 3
    said = capsys.readouterr().out
    assert (
        "failed (2): sub-02 ses-pre" in said
        and "to finish: cingulum run BIDS_DIR" in said
    )
    damaged.write_bytes(whole)
    assert main(["run", str(own_cohort), str(out), "participant", *options]) == 0
    assert not (out / "failures.tsv").exists() and main(["status", str(out)]) == 0
    assert read_study(out / "study.toml").dataset.participants == ()


def test_what_other_settings_or_software_made_is_not_done(
    small_cohort, tmp_path, capsys, monkeypatch
):
    """Neither for the run, nor for its plan, nor for `status`."""
    out = tmp_path / "out"
    command = [
        "run",
        str(small_cohort),
        str(out),
        "participant",
        "--participant-label",
        "01",
        "--n-jobs",
        "1",
    ]
    assert main([*command, *FAST]) == 0
    capsys.readouterr()
    assert (
        main([*command, *FAST, "--dry-run"]) == 0
        and "everything is measured already" in capsys.readouterr().out
    )
    assert main([*command, *FAST, "--dry-run", "--strategy", "gsr"]) == 0
    assert "everything is measured already" in capsys.readouterr().out, (
        "the pulse has no denoising"
    )
    monkeypatch.setattr(
        "cingulum.cache.keys.package_versions", lambda: {"torch": "another"}
    )
    assert (
        main([*command, *FAST, "--dry-run"]) == 0
        and "2 visits to do" in capsys.readouterr().out
    )
    page = next((out / "work" / "visits").glob("*.json"))
    told = json.loads(page.read_text())
    page.write_text(
        json.dumps({**told, "recipes": dict.fromkeys(told["recipes"], "another")})
    )
    assert main(["status", str(out)]) == 3
    measured = next(out.rglob("*_desc-hfhrv_physio.tsv"))
    before = measured.stat().st_mtime_ns
    assert main([*command, *FAST]) == 0 and measured.stat().st_mtime_ns > before
    capsys.readouterr()
    assert main(["status", str(out)]) == 0


def test_status_of_nothing_says_what_it_wants(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 4
    assert "nothing was begun here" in capsys.readouterr().err


def with_eleventh(cohort):
    """The cohort with sub-11, a copy of sub-10: with one of them lost, the ten that a
    study needs are left."""
    for path in sorted(cohort.rglob("*sub-10*"), reverse=True):
        if path.is_dir():
            shutil.copytree(path, str(path).replace("sub-10", "sub-11"))
    for path in cohort.rglob("*sub-10*"):
        if "sub-11" in str(path.parent):
            path.rename(str(path).replace("sub-10", "sub-11"))
    table = cohort / "participants.tsv"
    last = table.read_text().rstrip("\n").split("\n")[-1]
    table.write_text(
        table.read_text().rstrip("\n") + "\n" + last.replace("sub-10", "sub-11") + "\n"
    )
    return cohort


def test_a_participant_that_failed_is_left_out_and_told(own_cohort, tmp_path):
    """Eleven with one that fails: ten are analysed, and the page says so first."""
    with_eleventh(own_cohort)
    next(own_cohort.rglob("sub-11_ses-pre*_physio.tsv.gz")).write_bytes(b"")
    out = tmp_path / "out"
    assert (
        main(["run", str(own_cohort), str(out), "group", "--permutations", "19", *FAST])
        == 3
    )
    summary = json.loads((out / "summary.json").read_text())
    assert (
        list(summary["left_out"]) == ["sub-11"] and summary["cohort"]["patients"] == 10
    )
    assert (
        "sub-11" in summary["warnings"][1]["text"]
        and summary["warnings"][1]["kind"] == "serious"
    )


@pytest.mark.parametrize("missing", ["complete", "log_odds"])
def test_a_feature_without_a_number_costs_its_participant_only(
    own_cohort, tmp_path, monkeypatch, capsys, missing
):
    """A visit without any power: the study goes on, and names who was left out, or
    judged by the rest."""
    with_eleventh(own_cohort)
    finish = HighFrequencyVariability.finish

    def without_power(self, measurements, show_progress=False):
        rows = finish(self, measurements)
        if len(rows.table) == 22:  # the last is sub-11; without it they are fewer
            rows.table.iloc[-1] = -np.inf
        return rows

    monkeypatch.setattr(HighFrequencyVariability, "finish", without_power)
    out, extra = tmp_path / "out", ["--missing", missing, "--permutations", "19"]
    modalities = ["--modalities", "hfhrv", *(["rcbf"] if missing == "log_odds" else [])]
    if (
        missing == "log_odds"
    ):  # a copy of a participant is refused, so its blood flow must differ
        for path in own_cohort.rglob("sub-11_*_cbf.nii.gz"):
            image = nib.load(path)
            nib.save(
                nib.Nifti1Image(image.get_fdata(dtype=np.float32) ** 1.1, image.affine),
                path,
            )
    assert main(["run", str(own_cohort), str(out), "group", *modalities, *extra]) == 3
    summary = json.loads((out / "summary.json").read_text())
    why = "hfhrv is no finite number at this visit"
    told = {"left_out": {"sub-11": why}, "lacking": {}}
    if missing == "log_odds":
        told = {"left_out": {}, "lacking": {"sub-11": {"hfhrv": why}}}
        assert summary["maps"]["rcbf"]["features"] > 0, (
            "a map of those who have the modality"
        )
    assert {name: summary[name] for name in told} == told
    assert "summary.json says why" in capsys.readouterr().err and any(
        "sub-11" in warning["text"] for warning in summary["warnings"]
    )


def test_a_spread_that_is_not_known_leaves_nobody_out():
    table = pd.DataFrame(
        {"strength": [1.0, 2.0, np.nan], "sd strength": [0.1, np.nan, np.nan]}
    )
    for name in ("noise", "sensor.noise"):
        table[[name, f"sd {name}"]] = table[["strength", "sd strength"]]
    feature = Physiology()
    names = [column.name for column in feature.columns()]
    visits = [Visit("01", session) for session in ("a", "b", "c")]
    result = FeatureResult(
        feature, visits, [Measurement(np.zeros(1))] * 3, FeatureRows(table[names])
    )
    failures = FeatureTable(visits, {"physiology": result}, []).without_numbers()
    assert [(failure.session, failure.reason) for failure in failures] == [
        ("c", "physiology is no finite number at this visit")
    ]


def test_a_report_and_its_pages_are_one(small_cohort, tmp_path, capsys):
    """Another report takes down what it does not consist of; `participant` leaves the
    pages of a report alone."""
    out = tmp_path / "out"
    command, few = ["run", str(small_cohort), str(out)], ["--permutations", "19"]
    assert main([*command, "participant", "--participant-label", "01", *FAST]) == 0
    alone = (out / "sub-01.html").read_text()
    assert "Median of all visits" not in alone and "stands apart" not in alone
    assert main([*command, "group", *FAST, *few]) == 0
    page = (out / "sub-01.html").read_bytes()
    assert (
        b"Median of all visits" in page
        and (out / "model" / "hfhrv_weights.tsv").is_file()
    )
    capsys.readouterr()
    assert main([*command, "participant", "--participant-label", "01", *FAST]) == 0
    assert (
        out / "sub-01.html"
    ).read_bytes() == page and "belong to report.html" in capsys.readouterr().out
    assert main([*command, "group", "--modalities", "rcbf", *few]) == 0
    summary = json.loads((out / "summary.json").read_text())
    shown = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    shown = {
        name
        for name in shown
        if not name.startswith(("work/", ".")) and "/ses-" not in name
    }
    assert not (out / "model" / "hfhrv_weights.tsv").exists() and set(
        summary["pages"]
    ) < set(summary["files"])
    assert shown == {
        *summary["files"],
        "summary.json",
        "report.html",
        "dataset_description.json",
    }
    settings = (out / "study.toml").read_bytes()
    assert main([*command, "participant", "--participant-label", "01", *FAST]) == 0
    assert main([*command, "group", *FAST, "--participant-label", "01"]) == 4
    assert (out / "study.toml").read_bytes() == settings, "it belongs to the report"
    assert read_study(out / "work" / "study.toml").features.modalities == ("hfhrv",)


def test_who_left_the_dataset_leaves_the_book(own_cohort, tmp_path):
    next(own_cohort.rglob("sub-02_ses-pre*_physio.tsv.gz")).write_bytes(b"")
    out = tmp_path / "out"
    command = ["run", str(own_cohort), str(out), "participant", "--n-jobs", "1", *FAST]
    assert main(command) == 3 and (out / "failures.tsv").is_file()
    for folder in sorted(own_cohort.rglob("sub-02")):
        shutil.rmtree(folder)
    assert (
        main([*command, "--participant-label", "01"]) == 0
        and (out / "failures.tsv").is_file()
    )
    assert (
        main(command) == 0
        and not (out / "failures.tsv").exists()
        and main(["status", str(out)]) == 0
    )


def test_a_site_that_is_not_told_is_no_site(small_cohort, tmp_path, capsys):
    cohort = Path(shutil.copytree(small_cohort, tmp_path / "cohort"))
    table = pd.read_csv(cohort / "participants.tsv", sep="\t", dtype=str)
    table["scanner"] = ["a"] * 9 + ["n/a"]
    table.to_csv(cohort / "participants.tsv", sep="\t", index=False)
    assert (
        main(
            [
                "run",
                str(cohort),
                str(tmp_path / "out"),
                "group",
                "--site",
                "scanner",
                *FAST,
            ]
        )
        == 4
    )
    assert "scanner (the site) is missing for sub-10" in capsys.readouterr().err


def test_members_of_a_family_are_kept_together(small_cohort, tmp_path):
    """Two of ten people are siblings: in the methods of the report and in the folds."""
    cohort = Path(shutil.copytree(small_cohort, tmp_path / "cohort"))
    families = ["smith", "smith", *(f"f{k}" for k in range(8))]
    rewrite(cohort, lambda table: table.assign(household=families))
    command = ["run", str(cohort), str(tmp_path / "out"), "group"]
    assert main([*command, "--family", "household", *FAST]) == 0
    predictions = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    fused = predictions[predictions["model"] == predictions["model"].iloc[-1]]
    folds = fused["fold"].to_numpy()
    assert folds[0] == folds[1] and len(set(folds)) == 9
    text = (tmp_path / "out" / "report.html").read_text()
    assert "Members of one family (household of participants.tsv)" in text


@pytest.mark.parametrize("name", ["=1+1", "sub-a\x1b[31mb", "01 02"])
def test_names_of_participants_are_labels(small_cohort, tmp_path, capsys, name):
    cohort = Path(shutil.copytree(small_cohort, tmp_path / "cohort"))
    more = pd.DataFrame({"participant_id": [name]})
    rewrite(cohort, lambda table: pd.concat([table, more]))
    assert main(["run", str(cohort), str(tmp_path / "out"), "group", *FAST]) == 4
    error = capsys.readouterr().err
    assert "is no label" in error and "\x1b" not in error


def rewrite(cohort, change):
    path = cohort / "participants.tsv"
    change(pd.read_csv(path, sep="\t", dtype=str)).to_csv(
        path, sep="\t", index=False, na_rep="n/a"
    )


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: t[["participant_id"]], None),
        (lambda t: t.assign(age=["89+", *t["age"][1:]]), "years (known of 9)"),
        (lambda t: t.assign(age=None, sex=None), None),
    ],
)
def test_age_and_sex_need_not_be_known(own_cohort, tmp_path, change, said):
    rewrite(own_cohort, change)
    out = tmp_path / "out"
    assert (
        main(["run", str(own_cohort), str(out), "group", "--permutations", "19", *FAST])
        == 0
    )
    page = (out / "report.html").read_text()
    assert ("years" in page.split("<h2")[2]) == (said is not None) and (
        said is None or said in page
    )


def test_who_lacks_a_map_is_judged_by_the_rest_and_counted_right(own_cohort, tmp_path):
    """Of eleven, sub-05 lacks blood flow, sub-11 everything; tables, lead and checklist
    count those who were judged."""
    with_eleventh(own_cohort)
    for path in [
        *own_cohort.rglob("sub-05_ses-pre*_cbf.nii.gz"),
        *own_cohort.rglob("sub-11_ses-pre*_cbf.nii.gz"),
        *own_cohort.rglob("sub-11_*_physio.tsv.gz"),
    ]:
        path.unlink()
    out = tmp_path / "out"
    options = [
        "--modalities",
        "hfhrv",
        "rcbf",
        "--missing",
        "log_odds",
        "--permutations",
        "19",
    ]
    assert main(["run", str(own_cohort), str(out), "group", *options]) == 3
    s = json.loads((out / "summary.json").read_text())
    assert list(s["left_out"]) == ["sub-11"] and list(s["lacking"]) == ["sub-05"]
    assert (
        list(s["lacking"]["sub-05"]) == ["rcbf"] and s["evaluation"]["patients"] == 10
    )
    assert s["prediction"]["rcbf"]["patients"] == 9 and "of 10 patients" in s["lead"]
    assert (
        s["evaluation"]["columns"]["rcbf"] > 1000
        and s["evaluation"]["columns"]["hfhrv"] == 1
    )
    assert read_study(out / "study.toml").prediction.fusion == "log_odds"


def test_what_we_wrote_and_find_damaged_is_made_anew(small_cohort, tmp_path, capsys):
    out = tmp_path / "out"
    command = [
        "run",
        str(small_cohort),
        str(out),
        "participant",
        "--participant-label",
        "01",
        "--n-jobs",
        "1",
        *FAST,
    ]
    assert main(command) == 0
    whole = digest(out)
    for path in (
        *out.rglob("*hfhrv_physio.json"),
        *(out / "work" / "visits").glob("*.json"),
        out / "work/seconds.json",
    ):
        path.write_text("")
    assert main(["status", str(out)]) in (3, 4)
    assert (
        main(command) == 0 and digest(out) == whole and main(["status", str(out)]) == 0
    )


def test_a_plan_tells_what_a_run_would_refuse(own_cohort, tmp_path, capsys):
    """Before anything is measured: recordings that are gone, columns that are not
    there, too few people."""
    out = tmp_path / "out"
    command = ["run", str(own_cohort), str(out), "group", *FAST]
    assert main([*command[:3], "participant", "--participant-label", "01", *FAST]) == 0
    next(own_cohort.rglob("sub-01_ses-pre*_physio.tsv.gz")).unlink()
    for options, code, said in (
        ([], 0, "hfhrv 20 1 18 1"),
        (["--site", "scanner"], 4, "no column 'scanner'"),
        (["--confounds", "bmi"], 4, "Unknown confound 'bmi'"),
        (["--participant-label", "01", "02"], 4, "at least 10 participants; got 2"),
        (["--modalities"], 4, "At least one feature"),
    ):
        for dry in (["--dry-run"], *([[]] if code else [])):
            capsys.readouterr()
            assert main([*command, *options, *dry]) == code
            told = capsys.readouterr()
            assert (
                said in " ".join((told.out + told.err).split())
                and "measure:" not in told.err
            )
    assert (
        main(["run", str(own_cohort), str(own_cohort), "group", "--dry-run", *FAST])
        == 4
    )
    assert "is a dataset that cingulum did not write" in capsys.readouterr().err


def test_only_names_of_software_are_repeated(own_cohort, tmp_path):
    """Descriptions hold paths and names of people, and of many kinds of mistakes."""
    derivative = own_cohort / "derivatives" / "fmriprep" / "dataset_description.json"
    told = json.loads(derivative.read_text())
    for tools, said in (
        (
            [
                {"Name": "fMRIPrep", "Version": "24.1.0"},
                {"Name": "/home/jdoe/prep on srv.hosp.de", "Version": "1"},
            ],
            "fMRIPrep 24.1.0",
        ),
        ([{"Name": "fMRIPrep", "Version": "/data/Doe"}], "fMRIPrep"),
        ({"Name": "fMRIPrep", "Version": "1"}, "fMRIPrep 1"),
        (5, ""),
        ("x", ""),
        ([5, {"Name": ["a"]}], ""),
    ):
        derivative.write_text(json.dumps({**told, "GeneratedBy": tools}))
        found = pipelines_of(
            RunPaths.of(own_cohort, own_cohort / "derivatives" / "cingulum")
        )
        assert [name for name in found if name.startswith("fMRI")] == (
            [said] if said else []
        )


def test_nobody_vanishes(own_cohort, tmp_path):
    rewrite(
        own_cohort,
        lambda t: pd.concat(
            [t, pd.DataFrame({"participant_id": ["sub-77", "sub-Zoë"]})]
        ),
    )
    paths = RunPaths.of(own_cohort, tmp_path / "out")
    cohort = study_cohort(StudyConfig(), paths)
    assert cohort.absent == ("77", "Zoë") and len(cohort.participants) == 10


def test_maps_that_do_not_cover_the_same_are_flagged(own_cohort, tmp_path):
    path = next(own_cohort.rglob("sub-03_ses-pre*_cbf.nii.gz"))
    image = nib.load(path)
    values = image.get_fdata(dtype=np.float32)
    values[: len(values) // 2] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), path)
    out = tmp_path / "out"
    assert (
        main(
            [
                "run",
                str(own_cohort),
                str(out),
                "group",
                "--modalities",
                "rcbf",
                "--permutations",
                "19",
            ]
        )
        == 0
    )
    summary = json.loads((out / "summary.json").read_text())
    assert (
        summary["flags"][
            "rcbf: the map covers other parts of the brain than at the other visit"
        ]
        == 2
    )


def test_folders_are_the_same_from_anywhere(monkeypatch, tmp_path):
    """A worker of a cluster may stand in another folder."""
    monkeypatch.chdir(tmp_path)
    paths = RunPaths.of(Path("in"), Path("out"), (Path("more"),), Path("work"))
    assert (paths.bids, paths.out, paths.work) == (
        tmp_path / "in",
        tmp_path / "out",
        tmp_path / "work",
    )
    study = chosen_study(
        parser().parse_args("run in out group --connectome weights.npy".split())
    )
    assert study.features.connectome == str(tmp_path / "weights.npy")
    assert (
        paths.derivatives == (tmp_path / "more",)
        and paths.without_folders(f"{tmp_path}/in/sub-01: bad") == "sub-01: bad"
    )


@pytest.mark.slow
def test_the_same_bits_at_any_worker_count(small_cohort, tmp_path):
    """All modalities and the report: one process, two, and a Dask cluster of two."""
    runs = {
        "one": ["--n-jobs", "1"],
        "two": ["--n-jobs", "2"],
        "dask": ["--n-jobs", "2", "--cluster", "local"],
    }
    for name, options in runs.items():
        command = [
            "run",
            str(small_cohort),
            str(tmp_path / name),
            "group",
            "--permutations",
            "199",
            *options,
        ]
        assert main(command) == 0
    one = digest(tmp_path / "one")
    for other in ("two", "dask"):
        found = digest(tmp_path / other)
        assert found.keys() == one.keys()
        assert [name for name in one if found[name] != one[name]] == []


def test_work_lies_where_it_is_told_and_can_be_done_anew(
    small_cohort, tmp_path, capsys
):
    out, work = tmp_path / "out", tmp_path / "work"
    options = [
        "participant",
        "--participant-label",
        "01",
        "--n-jobs",
        "1",
        "--work-dir",
        str(work),
        *FAST,
    ]
    command = ["run", str(small_cohort), str(out), *options]
    assert main(command) == 0 and work.is_dir() and not (out / "work").exists()
    assert (
        main(["status", str(out)]) == 4
        and main(["status", str(out), "--work-dir", str(work)]) == 0
    )
    measured = next(out.rglob("*_desc-hfhrv_physio.tsv"))
    before = measured.stat().st_mtime_ns
    assert main(command) == 0 and measured.stat().st_mtime_ns == before
    (work / "thesis.txt").write_text("years of work")
    assert main([*command, "--no-resume"]) == 0 and measured.stat().st_mtime_ns > before
    assert (work / "thesis.txt").is_file(), "a work folder may hold what is not ours"


def test_several_jobs_on_one_folder_tell_all_that_failed(own_cohort, tmp_path):
    """As in an array of SLURM jobs, one participant each: the last one, in which
    nothing fails, hides nothing."""
    for person in ("01", "02"):
        next(own_cohort.rglob(f"sub-{person}_ses-pre*_physio.tsv.gz")).write_bytes(b"")
    out = tmp_path / "out"
    for person, code in (("01", 3), ("02", 3), ("03", 0)):
        options = ["--participant-label", person, "--n-jobs", "1", *FAST]
        assert main(["run", str(own_cohort), str(out), "participant", *options]) == code
    table = pd.read_csv(out / "failures.tsv", sep="\t", dtype=str)
    assert set(table["participant"]) == {"01", "02"}


def test_who_cannot_be_analysed_is_told_without_folders(own_cohort, tmp_path):
    """A rating that is missing, and somebody that participants.tsv does not know."""
    (own_cohort / "sub-03" / "sub-03_sessions.tsv").write_text(
        "session_id\tpain\nses-pre\tn/a\nses-post\t40\n"
    )
    people = own_cohort / "participants.tsv"
    people.write_text(
        "\n".join(
            line
            for line in people.read_text().split("\n")
            if not line.startswith("sub-04")
        )
    )
    paths = RunPaths.of(own_cohort, tmp_path / "out")
    cohort = study_cohort(StudyConfig(), paths)
    assert (
        list(cohort.left_out) == ["03"] and str(own_cohort) not in cohort.left_out["03"]
    )
    assert "sub-03/sub-03_sessions.tsv" in cohort.left_out["03"]
    assert list(cohort.people["participant_id"]) == [
        f"sub-{p}" for p in cohort.participants
    ]
    assert cohort.people.set_index("participant_id").loc["sub-04"].isna().all()
