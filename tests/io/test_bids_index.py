"""The index against pybids on the shapes of the official bids-examples, its
speed-relevant promises, and its walls."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.io.bids_index import entities_of, index, inside
from cingulum.io.visit import read_filters, visits

DESCRIPTION = {"Name": "x", "BIDSVersion": "1.8.0"}
DERIVED = {
    **DESCRIPTION,
    "DatasetType": "derivative",
    "GeneratedBy": [{"Name": "fMRIPrep"}],
}


def asl004():
    """One session, two M0 scans: the reverse-phase one in fmap/ is not the
    calibration."""
    yield "dataset_description.json", DESCRIPTION
    for stem, field in (
        ("anat/sub-Sub1_T1w", {}),
        ("perf/sub-Sub1_asl", {"M0Type": "Separate"}),
        ("perf/sub-Sub1_m0scan", {"RepetitionTimePreparation": 5.0}),
        ("fmap/sub-Sub1_dir-pa_m0scan", {"RepetitionTimePreparation": 2.0}),
    ):
        yield f"sub-Sub1/{stem}.nii.gz", None
        yield f"sub-Sub1/{stem}.json", field
    yield "sub-Sub1/perf/sub-Sub1_aslcontext.tsv", None


def trt_7t():
    """7t_trt: sessions, acquisitions and runs; sidecars only at the root."""
    yield "dataset_description.json", DESCRIPTION
    yield "participants.tsv", None
    yield (
        "task-rest_acq-fullbrain_bold.json",
        {"RepetitionTime": 3.0, "TaskName": "rest"},
    )
    yield "task-rest_acq-prefrontal_bold.json", {"RepetitionTime": 4.0}
    yield (
        "task-rest_acq-fullbrain_run-1_physio.json",
        {"Columns": ["cardiac"], "SamplingFrequency": 100},
    )
    for sub in ("01", "02"):
        yield f"sub-{sub}/sub-{sub}_sessions.tsv", None
        for ses in ("1", "2"):
            name = f"sub-{sub}/ses-{ses}/func/sub-{sub}_ses-{ses}_task-rest"
            for part in (
                "_acq-fullbrain_run-1",
                "_acq-fullbrain_run-2",
                "_acq-prefrontal",
            ):
                yield f"{name}{part}_bold.nii.gz", None
                yield f"{name}{part}_physio.tsv.gz", None
            yield f"sub-{sub}/ses-{ses}/anat/sub-{sub}_ses-{ses}_T1w.nii.gz", None
            yield (
                f"sub-{sub}/ses-{ses}/fmap/sub-{sub}_ses-{ses}_run-1_phasediff.json",
                {"EchoTime1": 0.006},
            )


def ds210():
    """Multi-echo, sidecars at the root by echo and one at the participant."""
    yield "dataset_description.json", DESCRIPTION
    for echo in (1, 2, 3):
        yield (
            f"task-rest_echo-{echo}_bold.json",
            {"EchoTime": 0.01 * echo, "RepetitionTime": 2.0},
        )
    yield "task-rest_bold.json", {"TaskName": "rest"}
    yield "sub-03/sub-03_task-rest_bold.json", {"RepetitionTime": 2.47}
    for sub in ("03", "12"):
        for echo in (1, 2, 3):
            yield f"sub-{sub}/func/sub-{sub}_task-rest_echo-{echo}_bold.nii.gz", None
        yield f"sub-{sub}/func/sub-{sub}_task-rest_physio.tsv.gz", None


def synthetic():
    """Raw and fMRIPrep together, two sessions, runs with leading zeros."""
    yield "dataset_description.json", DESCRIPTION
    yield "derivatives/fmriprep/dataset_description.json", DERIVED
    yield "task-nback_bold.json", {"RepetitionTime": 2.5}
    yield "task-rest_bold.json", {"RepetitionTime": 2.5}
    for sub in ("01", "02", "03"):
        for ses in ("01", "02"):
            name = f"sub-{sub}_ses-{ses}"
            yield f"sub-{sub}/ses-{ses}/anat/{name}_T1w.nii.gz", None
            for task in ("task-nback_run-01", "task-nback_run-02", "task-rest"):
                yield f"sub-{sub}/ses-{ses}/func/{name}_{task}_bold.nii.gz", None
                for space in ("MNI152NLin2009cAsym", "T1w"):
                    func = f"derivatives/fmriprep/sub-{sub}/ses-{ses}/func"
                    stem = f"{func}/{name}_{task}_space-{space}"
                    yield f"{stem}_desc-preproc_bold.nii.gz", None
                    yield (
                        f"{stem}_desc-preproc_bold.json",
                        {"SkullStripped": False, "RepetitionTime": 2.5},
                    )
                    yield f"{stem}_desc-brain_mask.nii.gz", None
                func = f"derivatives/fmriprep/sub-{sub}/ses-{ses}/func"
                stem = f"{func}/{name}_{task}_desc-confounds"
                yield f"{stem}_timeseries.tsv", None
                yield f"{stem}_timeseries.json", {"trans_x": {"Units": "mm"}}


def fmriprep_ds000001():
    """A derivative dataset by itself, without sessions, with a resolution entity."""
    yield "dataset_description.json", DERIVED
    for sub in ("10", "11"):
        for run in (1, 2, 3):
            name = f"sub-{sub}/func/sub-{sub}_task-balloonanalogrisktask_run-{run}"
            yield (
                f"{name}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz",
                None,
            )
            yield (
                f"{name}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.json",
                {"RepetitionTime": 2},
            )
            yield f"{name}_space-MNI152NLin2009cAsym_res-2_desc-brain_mask.nii.gz", None
            yield f"{name}_desc-confounds_timeseries.tsv", None


SHAPES = [asl004, trt_7t, ds210, synthetic, fmriprep_ds000001]
NAMES = {
    "subject": "sub",
    "session": "ses",
    "task": "task",
    "run": "run",
    "acquisition": "acq",
    "echo": "echo",
    "space": "space",
    "resolution": "res",
    "res": "res",
    "desc": "desc",
    "direction": "dir",
    "suffix": "suffix",
    "extension": "extension",
    "datatype": "datatype",
}


def laid(root, shape):
    for relative, content in shape():
        path = root / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content) if isinstance(content, dict) else "")
    (root / "participants.tsv").write_text("participant_id\n")
    return root


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_entities_and_metadata_are_those_of_pybids(tmp_path, shape):
    """Every file of the kinds that we read: same entities, same inherited metadata, no
    more and no fewer files."""
    bids = pytest.importorskip("bids", reason="pybids is a test dependency")
    root = laid(tmp_path / "ds", shape)
    ours = index(root)
    derivative = shape is fmriprep_ds000001
    layout = bids.BIDSLayout(
        root,
        validate=False,
        derivatives=not derivative,
        is_derivative=derivative,
        config=["bids", "derivatives"],
    )
    suffixes = (
        "bold",
        "asl",
        "m0scan",
        "mask",
        "timeseries",
        "T1w",
        "physio",
        "aslcontext",
    )
    theirs = {
        file.path: file
        for file in layout.get(
            suffix=suffixes, extension=[".nii.gz", ".tsv", ".tsv.gz"]
        )
    }
    mine = {
        file.where: file
        for file in ours.files
        if file.entities["suffix"] in suffixes and file.entities["extension"] != ".json"
    }
    assert set(mine) == set(theirs) and mine
    for path, file in mine.items():
        told = {
            NAMES[k]: str(v)
            for k, v in theirs[path].get_entities(metadata=False).items()
            if k in NAMES
        }
        assert {k: v.lstrip("0") for k, v in file.entities.items()} == {
            k: v.lstrip("0") for k, v in told.items()
        }
        if file.entities["extension"] == ".nii.gz":
            assert ours.metadata(file) == theirs[path].get_metadata()


def test_visits_find_the_calibration_not_the_reverse_phase_scan(tmp_path):
    (visit,) = visits(laid(tmp_path, asl004))
    assert (
        visit["m0scan"].parent.name == "perf"
        and visit.metadata("m0scan")["RepetitionTimePreparation"] == 5.0
    )
    assert visit.session == "" and visit.name == "sub-Sub1"


def test_standard_space_is_preferred_and_runs_must_be_chosen(tmp_path):
    root = laid(tmp_path, synthetic)
    visit = visits(root, ["01"], sessions=["ses-01"])[0]
    with pytest.raises(
        InputError,
        match="3 files for bold: .*run-01.* Choose one with --bids-filter-file",
    ):
        visit["bold"]
    visit = visits(
        root, ["sub-01"], sessions=["01"], filters={"bold": {"task": "rest"}}
    )[0]
    assert "space-MNI152NLin2009cAsym" in visit["bold"].name
    assert (
        visit["mask"].name
        == "sub-01_ses-01_task-rest_space-MNI152NLin2009cAsym_desc-brain_mask.nii.gz"
    )
    assert (
        visit["confounds"].name
        == "sub-01_ses-01_task-rest_desc-confounds_timeseries.tsv"
    )
    other = visits(root, filters={"bold": {"task": "nback", "run": 2, "space": "T1w"}})[
        0
    ]
    assert (
        "run-02_space-T1w" in other["bold"].name
        and "run-02_space-T1w" in other["mask"].name
    )


def test_further_derivatives_are_read_from_where_they_are(tmp_path):
    root = laid(tmp_path / "raw", trt_7t)
    elsewhere = laid(tmp_path / "elsewhere", fmriprep_ds000001)
    found = visits(root, derivatives=[elsewhere])
    assert {visit.participant for visit in found} == {"01", "02", "10", "11"}
    with pytest.raises(InputError, match="is no folder"):
        visits(root, derivatives=[tmp_path / "nowhere"])


def test_tables_are_read(tmp_path):
    root = laid(tmp_path, trt_7t)
    (root / "participants.tsv").write_text(
        "participant_id\tage\nsub-01\t40\nsub-02\tn/a\n"
    )
    (root / "sub-01/sub-01_sessions.tsv").write_text(
        "session_id\tpain\nses-1\t10\nses-2\t50\n"
    )
    (root / "sub-01/ses-1/sub-01_ses-1_scans.tsv").write_text(
        "filename\tacq_time\nfunc/a.nii.gz\tn/a\n"
    )
    found = index(root)
    assert list(found.participants["age"].isna()) == [False, True] and found.labels == [
        "01",
        "02",
    ]
    assert (
        list(found.sessions("01")["pain"]) == [10, 50] and found.sessions("07") is None
    )
    assert (
        list(found.scans("01", "1")["filename"]) == ["func/a.nii.gz"]
        and found.scans("02", "1") is None
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"blod": {}}, "no kind of recording is called 'blod'. Did you mean bold"),
        (
            {"bold": {"sesion": "1"}},
            "BIDS has no entity 'sesion'. Did you mean session",
        ),
        ({"bold": ["task"]}, "needs an object of entities"),
        ({"bold": {"task": {"a": 1}}}, "task needs a text"),
    ],
)
def test_filter_files_are_checked(tmp_path, content, message):
    (tmp_path / "filter.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_filters(tmp_path / "filter.json")


def test_absent_entities_and_lists_can_be_asked_for(tmp_path):
    found = index(laid(tmp_path, synthetic))
    assert len(found.find(suffix="bold", desc=None, extension=".nii.gz")) == 18
    assert (
        len(found.find(suffix="bold", run=None, space="T1w", extension=".nii.gz")) == 6
    )
    assert (
        len(
            found.find(
                suffix="bold",
                subject=["01", "02"],
                run=2,
                space="T1w",
                extension=".nii.gz",
            )
        )
        == 4
    )


def test_no_link_and_no_name_leads_out_of_the_dataset(tmp_path):
    """Links to files and folders outside, links within, and paths that files name: 0 of
    them is followed outwards."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "sub-09_task-rest_bold.nii.gz").write_text("secret")
    root = laid(tmp_path / "ds", ds210)
    os.symlink(secret, root / "sub-09")
    os.symlink(
        secret / "sub-09_task-rest_bold.nii.gz",
        root / "sub-03/func/sub-03_task-other_bold.nii.gz",
    )
    os.symlink(
        root / "sub-03/func/sub-03_task-rest_echo-1_bold.nii.gz",
        root / "sub-12/func/sub-12_task-linked_bold.nii.gz",
    )
    os.symlink(tmp_path, root / "derivatives")
    found = index(root)
    assert len(found.left_out) == 3 and not any(
        "secret" in os.path.realpath(f.where) for f in found.files
    )
    assert (
        len(found.find(task="linked")) == 1
        and not found.find(task="other")
        and not found.find(sub="09")
    )
    for name in (
        "../secret/x",
        "/etc/passwd",
        "sub-09/sub-09_task-rest_bold.nii.gz",
        "bids:other:sub-01/x",
        "a/../../x",
    ):
        with pytest.raises(InputError, match="leads out of|another dataset"):
            inside(root, name)
    assert inside(root, "bids::sub-03/func/x.nii.gz") == root / "sub-03/func/x.nii.gz"


def test_a_dataset_behind_a_link_is_named_in_the_error(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "ds"
    root.mkdir()
    (root / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    os.symlink(tmp_path / "elsewhere", root / "derivatives")
    with pytest.raises(InputError, match="name such a folder with --derivatives"):
        visits(root)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "sub-01_ses-a_task-rest_bold.nii.gz",
            {"sub": "01", "ses": "a", "task": "rest", "suffix": "bold"},
        ),
        ("sub-01_T1w.json", {"sub": "01", "suffix": "T1w"}),
        ("README", {"suffix": "README"}),
        ("sub-01_run-_bold.nii", None),
        ("sub-01_-x_bold.nii", None),
        ("a__b.txt", None),
        ("sub-01.html", None),
    ],
)
def test_names_are_taken_apart(name, expected):
    found = entities_of(name)
    assert (
        found is None
        if expected is None
        else {k: v for k, v in found.items() if k != "extension"} == expected
    )


def test_participants_with_impossible_labels_are_not_visits(tmp_path):
    root = laid(tmp_path, ds210)
    (root / "sub-0 1_task-rest_physio.tsv.gz").write_text("")
    assert [visit.participant for visit in visits(root)] == ["03", "12"]
    assert np.all([v.files == {} or v.files for v in visits(root)])


def test_a_dataset_named_twice_is_read_once(tmp_path, monkeypatch):
    root = laid(tmp_path / "ds", synthetic)
    once = len(index(root).files)
    monkeypatch.chdir(tmp_path)
    for again in (
        root / "derivatives",
        root / "derivatives" / "fmriprep",
        Path("ds/derivatives"),
    ):
        assert len(index(root, [again]).files) == once
    assert len(index(Path("ds"), [root / "derivatives"]).files) == once


def test_the_mask_of_the_same_space_is_taken(tmp_path):
    """fMRIPrep writes masks in native space as well: not two candidates."""
    root = laid(tmp_path, synthetic)
    native = (
        root
        / "derivatives/fmriprep/sub-01/ses-01/func"
        / "sub-01_ses-01_task-rest_desc-brain_mask.nii.gz"
    )
    native.write_text("")
    visit = visits(
        root,
        ["01"],
        sessions=["01"],
        filters={"bold": {"task": "rest", "space": "T1w"}},
    )[0]
    assert "space-T1w_desc-brain_mask" in visit["mask"].name


def test_grey_matter_is_that_of_the_flows_space(tmp_path):
    root = tmp_path / "ds"
    for space in ("MNI152NLin2009cAsym", "MNI152NLin6Asym"):
        for folder, name in (
            ("perf", f"space-{space}_cbf"),
            ("anat", f"space-{space}_label-GM_probseg"),
        ):
            path = (
                root
                / "derivatives"
                / "aslprep"
                / "sub-01"
                / folder
                / f"sub-01_{name}.nii.gz"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
    (root / "dataset_description.json").write_text(json.dumps(DESCRIPTION))
    (visit,) = visits(root, filters={"perfusion": {"space": "MNI152NLin6Asym"}})
    assert "MNI152NLin6Asym" in visit["grey"].name


def test_links_into_the_superdataset_are_followed(tmp_path):
    """DataLad keeps the contents of a subdataset in the superdataset's .git."""
    root = laid(tmp_path / "ds", synthetic)
    store = root / ".git" / "modules" / "fmriprep" / "annex"
    store.mkdir(parents=True)
    for path in list((root / "derivatives").rglob("*.nii.gz")):
        path.rename(store / path.name)
        os.symlink(store / path.name, path)
    found = index(root)
    assert (
        not found.left_out
        and len(found.find(suffix="bold", desc="preproc", extension=".nii.gz")) == 36
    )
