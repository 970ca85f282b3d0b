"""Thirty identifiers planted where datasets carry them, and none in what a run
writes."""

import gzip
import io
import json
import platform
import socket
import zipfile

import nibabel as nib
import numpy as np
import pytest

from cingulum.cli import main

SIDECAR = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "AcquisitionDateTime",
    "StudyDate",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "DeviceSerialNumber",
    "ReferringPhysicianName",
    "OperatorsName",
    "StudyInstanceUID",
    "Comment",
)
DATASET = (
    "Name",
    "Authors",
    "Acknowledgements",
    "HowToAcknowledge",
    "Funding",
    "EthicsApprovals",
    "DatasetDOI",
)
IMAGE = {"descrip": 80, "aux_file": 24, "intent_name": 16, "db_name": 18}


def secret(i):
    """Something that comes about nowhere by chance."""
    return f"Zq{i:02d}xV"


@pytest.fixture
def planted(own_cohort, tmp_path, monkeypatch):
    """The cohort in a folder named after somebody, with identifiers in every place that
    we know of."""
    names = iter(secret(i) for i in range(100))
    used = []

    def new():
        used.append(next(names))
        return used[-1]

    bids = own_cohort.rename(tmp_path / f"study-of-{new()}")
    _table(
        bids / "participants.tsv", {"name": new(), "birthday": new(), "address": new()}
    )
    for sessions in bids.glob("sub-*/sub-*_sessions.tsv"):
        _table(sessions, {"acq_time": used[0], "note": used[1]})
    for path in bids.rglob("*.json"):
        content = json.loads(path.read_text())
        if path.name == "dataset_description.json":
            continue
        path.write_text(
            json.dumps(
                content | {name: secret(50 + i) for i, name in enumerate(SIDECAR)}
            )
        )
    used += [secret(50 + i) for i in range(len(SIDECAR))]
    told = {name: new() for name in DATASET}
    told["Authors"], told["Funding"] = [told["Authors"]], [told["Funding"]]
    for path in bids.rglob("dataset_description.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | told))
    (bids / "README").write_text(new())
    header = {field: new() for field in IMAGE}
    stored = new()
    for path in bids.rglob("*.nii.gz"):
        image = nib.load(path)
        for field, size in IMAGE.items():
            image.header[field] = header[field].encode()[:size]
        buffer = io.BytesIO()
        with gzip.GzipFile(
            f"{stored}.nii", "wb", compresslevel=1, fileobj=buffer
        ) as packed:
            packed.write(
                nib.Nifti1Image(
                    np.asanyarray(image.dataobj), image.affine, image.header
                ).to_bytes()
            )
        path.write_bytes(buffer.getvalue())
    home = tmp_path / f"home-{new()}"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", new())
    host = new()
    monkeypatch.setattr(platform, "node", lambda: host)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    weights = np.abs(np.random.default_rng(0).normal(size=(52, 52)))
    np.savetxt(
        home / "sc.tsv",
        weights + weights.T - 2 * np.diag(np.diag(weights)),
        delimiter="\t",
    )
    return bids, home, used


def _table(path, columns):
    head, *rows = path.read_text().rstrip("\n").split("\n")
    lines = [
        head + "\t" + "\t".join(columns),
        *(row + "\t" + "\t".join(columns.values()) for row in rows),
    ]
    path.write_text("\n".join(lines) + "\n")


def contents(folder):
    """Every file with its name, unpacked where it is packed."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        raw = path.read_bytes()
        yield path, path.name.encode() + raw
        if path.suffix == ".gz":
            yield path, gzip.decompress(raw)
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield path, name.encode() + archive.read(name)


@pytest.mark.slow
def test_no_identifier_comes_out(planted, tmp_path):
    bids, home, used = planted
    assert len(used) >= 30
    people = bids / "participants.tsv"
    head, first, *rest = people.read_text().split("\n")
    age = head.split("\t").index("age")
    cells = first.split("\t")
    cells[age] = "97"
    people.write_text("\n".join([head, "\t".join(cells), *rest]))
    out = tmp_path / "results"
    damaged = next(bids.rglob("sub-02_ses-pre*_physio.tsv.gz"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    options = [
        "--connectome",
        str(home / "sc.tsv"),
        "--modalities",
        "rcbf",
        "hfhrv",
        "mechanism",
        "--fusion",
        "log_odds",
    ]
    main(["run", str(bids), str(out), "participant", *options])
    assert (out / "failures.tsv").is_file() and (out / "connectome.npy").is_file()
    more = ["--missing", "log_odds", "--confounds", "age", "--permutations", "19"]
    main(["run", str(bids), str(out), "group", *options, *more])
    assert (out / "report.html").is_file() and (out / "sub-01.html").is_file()
    words = [word.encode() for word in (*used, str(tmp_path))]
    found = {
        (str(path.relative_to(out)), w)
        for path, content in contents(out)
        for w in words
        if w in content
    }
    assert found == set()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cohort"]["age"]["high"] == 90
