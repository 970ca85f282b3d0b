"""`cingulum features`: the table, its description, failures that stop nobody, and going
on after an interruption."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cingulum.cache.status import without_folders
from cingulum.cli import main
from cingulum.io.images import write_image
from cingulum.signals.parcellation import sphere_mask

FAST = ["rcbf", "cbf", "hrv", "fc", "quality", "motion", "s1conn"]


def run(bids, out, *more):
    return main(["features", str(bids), str(out), "--n-jobs", "1", *more])


@pytest.fixture(scope="module")
def made(small_cohort, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "out"
    assert (
        main(
            [
                "features",
                str(small_cohort),
                str(out),
                "--n-jobs",
                "2",
                "--features",
                *FAST,
            ]
        )
        == 0
    )
    return out


def test_every_column_is_described(made):
    table, told = (
        pd.read_csv(made / "features.tsv", sep="\t"),
        json.loads((made / "features.json").read_text()),
    )
    assert len(table) == 20 and list(table.columns[:2]) == [
        "participant_id",
        "session_id",
    ]
    for column in table.columns[2:-2]:
        about = told[column]
        assert (
            about["Units"]
            and about["Description"]
            and about["Method"]["Feature"] in FAST
        )
        assert about["Software"].startswith("cingulum ")
    assert (
        told["hrv_ln_hf"]["Units"] == "ln ms²"
        and told["cbf_grey_matter"]["Units"] == "ml/100 g/min"
    )
    assert told["Denoising"].startswith("strategy basic")
    assert (
        table["cbf_grey_matter"].between(20, 100).all()
        and table["hrv_rate"].between(40, 100).all()
    )
    assert not (made / "failures.tsv").exists()
    assert (made / "features.png").read_bytes().startswith(b"\x89PNG")


def test_maps_are_images_with_sidecars_that_tell_source_and_way(made):
    for path in made.rglob("*.nii.gz"):
        told = json.loads(
            path.with_name(path.name.removesuffix(".nii.gz") + ".json").read_text()
        )
        assert (
            told["Units"]
            and told["Sources"][0].startswith("bids::derivatives/")
            and len(told["SourceSHA256"]) == 64
        )
    assert (
        len(list(made.rglob("*_boldmap.nii.gz")))
        == len(list(made.rglob("*_cbf.nii.gz")))
        == 20
    )


def test_nothing_written_names_this_machine(made, small_cohort):
    for path in made.rglob("*"):
        if path.is_file() and path.suffix in {".json", ".tsv"}:
            assert str(small_cohort.parent) not in path.read_text()


def test_a_failed_visit_is_told_and_the_others_go_on(own_cohort, tmp_path, capsys):
    for pattern in ("sub-03_ses-pre*_cbf.nii.gz", "sub-05_ses-post*_physio.tsv.gz"):
        path = next(own_cohort.rglob(pattern))
        path.write_bytes(path.read_bytes()[:-40])
    next(own_cohort.rglob("sub-07_ses-pre*_physio.tsv.gz")).unlink()
    assert run(own_cohort, tmp_path / "out", "--features", "rcbf", "cbf", "hrv") == 3
    table = pd.read_csv(tmp_path / "out" / "features.tsv", sep="\t").set_index(
        ["participant_id", "session_id"]
    )
    failures = pd.read_csv(tmp_path / "out" / "failures.tsv", sep="\t", dtype=str)
    assert len(table) == 20 and len(failures) == 4
    assert set(failures["feature"][failures["participant"] == "03"]) == {"rcbf", "cbf"}
    assert (
        failures["reason"]
        .str.contains("damaged gzip file|has no cardiac recording")
        .all()
    )
    assert not failures["reason"].str.contains(str(tmp_path)).any(), (
        "no path of this machine"
    )
    assert np.isnan(table.loc[("sub-03", "ses-pre"), "cbf_whole_brain"])
    assert np.isfinite(table.loc[("sub-03", "ses-pre"), "hrv_rate"])
    assert (
        table["cbf_whole_brain"].isna().sum() == 1
        and table["hrv_rate"].isna().sum() == 2
    )
    assert table.loc[("sub-05", "ses-post"), "failed"] == "hrv"
    assert "4 measurement(s) failed" in capsys.readouterr().err


def test_what_is_repaired_is_measured_and_the_rest_is_kept(own_cohort, tmp_path):
    path = next(own_cohort.rglob("sub-03_ses-pre*_cbf.nii.gz"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert run(own_cohort, tmp_path / "out", "--features", "cbf") == 3
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*_cbf.tsv")}
    path.write_bytes(whole)
    assert run(own_cohort, tmp_path / "out", "--features", "cbf") == 0
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*_cbf.tsv")}
    assert (
        len(times) == 19
        and len(after) == 20
        and all(after[p] == t for p, t in times.items())
    )
    assert not (tmp_path / "out" / "failures.tsv").exists()


def test_reasons_lose_folders_and_nothing_else():
    text = (
        "/home/ann/ds/sub-01/x_bold.nii.gz: TR 2.5 s. See /home/ann/ds and "
        "ds/sub-02/y.json, not odds/even."
    )
    for folder in (Path("."), Path("ds"), Path("/home/ann/ds")):
        reason = without_folders(text, [folder])
        assert (
            "2.5 s. See" in reason
            and "x_bold.nii.gz" in reason
            and "odds/even." in reason
        )
    assert "ann" not in without_folders(text, [Path("/home/ann/ds")])


def test_other_settings_are_measured_anew(small_cohort, tmp_path):
    options = ["--features", "fc", "--participant-label", "01"]
    assert run(small_cohort, tmp_path, *options) == 0
    first = pd.read_csv(tmp_path / "features.tsv", sep="\t")
    assert (
        run(
            small_cohort, tmp_path, *options, "--low-pass", "0.1", "--high-pass", "0.01"
        )
        == 0
    )
    second = pd.read_csv(tmp_path / "features.tsv", sep="\t")
    assert list(first) == list(second) and not np.allclose(
        first.iloc[:, 2:-2], second.iloc[:, 2:-2]
    )


def test_features_without_recordings_are_skipped_unless_asked_for(
    own_cohort, tmp_path, capsys
):
    for path in [
        *own_cohort.rglob("*_physio.tsv.gz"),
        *own_cohort.rglob("*_bold.nii.gz"),
    ]:
        path.unlink()
    assert run(own_cohort, tmp_path / "a") == 0
    said = capsys.readouterr().out
    skipped = (
        said.partition("Skipped, since no visit has the recordings: ")[2]
        .split("\n")[0]
        .split(", ")
    )
    assert {"s1conn", "hfhrv", "hrv", "fc", "att"} <= set(skipped) and not {
        "cbf",
        "rcbf",
    } & set(skipped)
    assert run(own_cohort, tmp_path / "b", "--features", "hrv", "cbf") == 3


def test_a_dataset_without_anything_says_what_was_looked_for(tmp_path, capsys):
    (tmp_path / "ds" / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "ds" / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    (tmp_path / "ds" / "sub-01" / "anat" / "sub-01_T1w.nii.gz").write_text("")
    assert run(tmp_path / "ds", tmp_path / "out") == 4
    assert "no visits found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features", "eeg"], "Unknown feature eeg. Known are s1conn, rcbf"),
        (["--atlas", "schaefer"], "No atlas is called 'schaefer'"),
        (["--strategy", "fsl"], "Unknown denoising strategy 'fsl'"),
        (["--scrub", "50"], "scrub is a displacement in mm"),
        (
            ["--session-label", "mid"],
            "No such session: mid. The dataset has 2: post, pre",
        ),
        (["--n-jobs", "0"], "--n-jobs must be at least 1"),
        (["--bids-filter-file", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--derivatives", "nowhere"], "nowhere: is no folder"),
        (["--connectome", "nowhere.tsv"], "nowhere.tsv: cannot be read"),
    ],
)
def test_wrong_options_get_one_clear_error(
    small_cohort, tmp_path, capsys, options, message
):
    assert run(small_cohort, tmp_path / "out", *options) == 4
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_any_seed_or_mask(small_cohort, tmp_path):
    options = [
        "--features",
        "s1conn",
        "--participant-label",
        "01",
        "--session-label",
        "pre",
    ]
    own = [
        "--seed",
        "-38",
        "14",
        "-4",
        "--seed-radius",
        "9",
        "--seed-label",
        "insula",
        "--seed-kind",
        "fisherz",
    ]
    run(small_cohort, tmp_path / "a", *options, *own)
    path = next((tmp_path / "a").rglob("*_boldmap.nii.gz"))
    assert path.name == "sub-01_ses-pre_seed-insula_stat-fisherz_boldmap.nii.gz"
    values = nib.load(path)
    mask = sphere_mask([(-38.0, 14.0, -4.0)], 9.0, values.shape, values.affine)
    write_image(tmp_path / "mask.nii.gz", mask.astype(np.uint8), values.affine)
    run(
        small_cohort,
        tmp_path / "b",
        *options,
        "--seed-mask",
        str(tmp_path / "mask.nii.gz"),
        "--seed-kind",
        "fisherz",
    )
    again = nib.load(next((tmp_path / "b").rglob("*_boldmap.nii.gz")))
    np.testing.assert_array_equal(values.get_fdata(), again.get_fdata())
    assert (
        str(tmp_path) not in next((tmp_path / "b").rglob("*_boldmap.json")).read_text()
    ), "no path of this machine"
    write_image(
        tmp_path / "mask.nii.gz", np.roll(mask, 1, 0).astype(np.uint8), values.affine
    )
    run(
        small_cohort,
        tmp_path / "b",
        *options,
        "--seed-mask",
        str(tmp_path / "mask.nii.gz"),
        "--seed-kind",
        "fisherz",
    )
    moved = nib.load(next((tmp_path / "b").rglob("*_boldmap.nii.gz")))
    assert not np.array_equal(moved.get_fdata(), again.get_fdata()), (
        "another mask of the same name is another seed"
    )
    assert run(small_cohort, tmp_path / "c", *options, "--seed", "300", "0", "0") == 3


def test_any_atlas_gives_the_same_columns_to_everybody(small_cohort, tmp_path):
    assert (
        run(
            small_cohort,
            tmp_path,
            "--features",
            "cbf",
            "--atlas",
            "power264",
            "--participant-label",
            "01",
            "02",
        )
        == 0
    )
    table = pd.read_csv(tmp_path / "features.tsv", sep="\t")
    assert len([c for c in table if c.startswith("cbf_power_")]) == 264
