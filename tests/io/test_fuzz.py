"""Damage: every flipped bit and every cut is refused; whatever else is thrown in, one
kind of error comes out."""

import gzip
import io
import json
import struct
import time
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cingulum.errors import InputError
from cingulum.io.files import read_bytes, read_json, read_table, write_bytes
from cingulum.io.images import read_image, write_image
from cingulum.io.parcellated import read_parcellated_series
from cingulum.io.visit import visits
from cingulum.signals.asl_protocol import read_protocol
from cingulum.signals.atlas import read_atlas
from cingulum.signals.heartbeat import read_physio

AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
GZIP_HEADER = 10


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """An image and a table, as written by us and by gzip's default."""
    folder, rng = tmp_path_factory.mktemp("packed"), np.random.default_rng(0)
    image = folder / "map.nii.gz"
    write_image(image, rng.normal(50, 10, (12, 14, 12)).astype(np.float32), AFFINE)
    table = folder / "physio.tsv.gz"
    write_bytes(
        table,
        "".join(f"{v:.4f}\t{w:.4f}\n" for v, w in rng.normal(size=(2000, 2))).encode(),
    )
    return {"image": image, "table": table}


def read(path):
    return (
        read_image(path, 3)
        if path.name.endswith(".nii.gz")
        else read_table(path, header=None)
    )


@pytest.mark.parametrize("kind", ["image", "table"])
def test_a_thousand_flipped_bits_are_all_refused(packed, tmp_path, kind):
    """Anywhere in the compressed body or its checksum; nibabel reads most such images
    without a word."""
    rng, content = np.random.default_rng(1), packed[kind].read_bytes()
    path, silent = tmp_path / packed[kind].name, 0
    for _ in range(500):
        damaged = bytearray(content)
        bit = int(rng.integers(8 * GZIP_HEADER, 8 * len(damaged)))
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            read(path)
        if kind == "image":
            try:
                silent += nib.load(path).get_fdata().size > 0
            except Exception:  # noqa: S110 - nibabel raises four kinds
                pass
    assert kind == "table" or silent > 100, "or the test shows nothing"


@pytest.mark.parametrize("kind", ["image", "table"])
def test_fifty_cuts_are_all_refused(packed, tmp_path, kind):
    rng, content = np.random.default_rng(2), packed[kind].read_bytes()
    path = tmp_path / packed[kind].name
    for length in [
        *rng.integers(0, len(content), 41),
        *range(len(content) - 9, len(content)),
    ]:
        path.write_bytes(content[: int(length)])
        with pytest.raises(InputError):
            read(path)


def test_flips_in_the_gzip_header_change_nothing_or_are_refused(packed, tmp_path):
    """Time stamp and operating system may be anything; the content then is still the
    same."""
    content, path = packed["table"].read_bytes(), tmp_path / "physio.tsv.gz"
    for bit in range(8 * GZIP_HEADER):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert read_bytes(path) == read_bytes(packed["table"])
        except InputError:
            pass


def zeros(size, level=9):
    """A gzip file of zeros."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=level) as stream:
        for _ in range(size >> 24):
            stream.write(bytes(1 << 24))
    return packed.getvalue()


@pytest.fixture(scope="module")
def two_gigabytes():
    return zeros(2 << 30, 1)


def honest_header(shape):
    return nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), AFFINE).header.copy(), shape


@pytest.mark.parametrize(
    "kind", ["table", "claims little", "claims all", "claims the impossible"]
)
def test_a_bomb_of_two_gigabytes_is_refused_in_a_second(two_gigabytes, tmp_path, kind):
    """Two gigabytes of zeros in some megabytes: as a table, and as images with honest
    and lying headers."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_sform(AFFINE, 2)
    header["pixdim"][1:4] = 6
    shape = {
        "claims little": (12, 14, 12),
        "claims all": (100, 100, 100, 500),
        "claims the impossible": (30000, 30000, 300, 300),
    }
    path = tmp_path / ("bomb.tsv.gz" if kind == "table" else "bomb.nii.gz")
    front = b""
    if kind != "table":
        header.set_data_shape(shape[kind])
        header["vox_offset"] = 352
        front = gzip.compress(header.binaryblock + bytes(4))
    path.write_bytes(front + two_gigabytes)
    began = time.perf_counter()
    with pytest.raises(InputError, match="refused|NaN"):
        read_table(path) if kind == "table" else read_image(
            path, 3 if kind == "claims little" else 4
        )
    assert time.perf_counter() - began < 1.0


def test_devices_and_folders_are_no_files(tmp_path):
    for path in (tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match="not a folder or device"):
            read_bytes(path)


# Any exception but an InputError that names the file, or more than five seconds, fails
# the tests below.
ONLY_INPUT_ERRORS = settings(
    max_examples=60,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MANY = settings(
    max_examples=2000,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

changes = st.lists(
    st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    "ArterialSpinLabelingType",
    "PostLabelingDelay",
    "LabelingDuration",
    "M0Type",
    "M0Estimate",
    "RepetitionTimePreparation",
    "MagneticFieldStrength",
    "MRAcquisitionType",
    "SliceTiming",
    "BackgroundSuppression",
    "BackgroundSuppressionNumberPulses",
    "LabelingEfficiency",
    "BolusCutOffFlag",
    "BolusCutOffDelayTime",
)
GOOD = {
    "ArterialSpinLabelingType": "PCASL",
    "PostLabelingDelay": 1.8,
    "LabelingDuration": 1.8,
    "M0Type": "Separate",
    "RepetitionTimePreparation": 4.5,
    "BackgroundSuppression": True,
}
real = st.sampled_from(
    [
        "PASL",
        "PCASL",
        "Included",
        "Estimate",
        True,
        0,
        -1,
        1.8,
        1800,
        [1.8],
        [1.8, 1.8],
        "2D",
        1e308,
    ]
)
sidecars = st.dictionaries(st.sampled_from(FIELDS), real | values, max_size=4)


@contextmanager
def refusal_names(path):
    """What is inside may be refused, with a message that names the file."""
    try:
        yield
    except InputError as error:
        assert Path(path).name in str(error)


def mutated_image(folder, nifti2, edits):
    kind = nib.Nifti2Image if nifti2 else nib.Nifti1Image
    image = kind(
        np.random.default_rng(0).normal(50, 10, (12, 14, 12)).astype(np.float32), AFFINE
    )
    image.header.set_xyzt_units("mm", "sec")
    content = bytearray(image.to_bytes())
    for place, value in edits:
        content[place] = value
    path = folder / "mutated.nii"
    path.write_bytes(content)
    with refusal_names(path):
        image = read_image(path, 3)
        assert np.isfinite(image.get_fdata()).all()
        assert abs(np.linalg.det(image.affine[:3, :3])) > 0


def mutated_sidecar(fields):
    with refusal_names("asl.nii.gz"):
        read_protocol("asl.nii.gz", {**GOOD, **fields}, ("control", "label"), (4, 4, 5))


def mutated_physio(folder, fields, text):
    path = folder / "x_physio.tsv.gz"
    write_bytes(path, text.encode(errors="replace"))
    with refusal_names(path):
        assert read_physio(path, fields).rate > 0


def mutated_json(folder, raw):
    for reader, name in ((read_json, "x.json"), (read_table, "x.tsv")):
        path = folder / name
        path.write_bytes(raw)
        with refusal_names(path):
            reader(path)


def mutated_series(folder, edits, kind):
    content = bytearray(SERIES[kind])
    suffix = {"cifti": ".ptseries.nii", "gifti": ".func.gii"}[kind]
    for place, value in edits:
        content[place * 7 % len(content)] = value
    path = folder / f"x{suffix}"
    path.write_bytes(content)
    with refusal_names(path):
        assert read_parcellated_series(path, path, 1.0).data.ndim == 2


def _cifti():
    parcels = nib.cifti2.ParcelsAxis(
        ["a", "b", "c"],
        [np.array([[i, 0, 0]]) for i in range(3)],
        [{} for _ in range(3)],
        AFFINE,
        (12, 14, 12),
    )
    series = nib.cifti2.SeriesAxis(0, 0.72, 20, "SECOND")
    return nib.Cifti2Image(np.arange(60.0).reshape(20, 3), (series, parcels)).to_bytes()


def _gifti():
    arrays = [
        nib.gifti.GiftiDataArray(
            np.arange(8, dtype=np.float32) + i, "NIFTI_INTENT_TIME_SERIES"
        )
        for i in range(5)
    ]
    return nib.GiftiImage(darrays=arrays).to_bytes()


SERIES = {"cifti": _cifti(), "gifti": _gifti()}

raw_json = (
    st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | values.map(lambda v: json.dumps(v).encode())
)


@ONLY_INPUT_ERRORS
@given(nifti2=st.booleans(), edits=changes)
def test_mutated_headers(tmp_path, nifti2, edits):
    mutated_image(tmp_path, nifti2, edits)


@ONLY_INPUT_ERRORS
@given(fields=sidecars)
def test_mutated_asl_sidecars(fields):
    mutated_sidecar(fields)


@ONLY_INPUT_ERRORS
@given(
    fields=st.dictionaries(st.sampled_from(["Columns", "SamplingFrequency"]), values),
    text=st.text(max_size=60),
)
def test_mutated_physio(tmp_path, fields, text):
    mutated_physio(tmp_path, fields, text)


@ONLY_INPUT_ERRORS
@given(raw=raw_json)
def test_mutated_json_and_tables(tmp_path, raw):
    mutated_json(tmp_path, raw)


@ONLY_INPUT_ERRORS
@given(
    edits=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    kind=st.sampled_from(["cifti", "gifti"]),
)
def test_mutated_cifti_and_gifti(tmp_path, edits, kind):
    mutated_series(tmp_path, edits, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["image", "sidecar", "physio", "json", "series"])
def test_ten_thousand_mutations(tmp_path, name):
    """2000 of each: no crash, no hang (5 s), one exception type."""
    tests = {
        "image": given(nifti2=st.booleans(), edits=changes)(
            lambda **k: mutated_image(tmp_path, **k)
        ),
        "sidecar": given(fields=sidecars)(lambda fields: mutated_sidecar(fields)),
        "physio": given(
            fields=st.dictionaries(
                st.sampled_from(["Columns", "SamplingFrequency"]), values
            ),
            text=st.text(max_size=60),
        )(lambda **k: mutated_physio(tmp_path, **k)),
        "json": given(raw=raw_json)(lambda raw: mutated_json(tmp_path, raw)),
        "series": given(
            edits=st.lists(
                st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6
            ),
            kind=st.sampled_from(["cifti", "gifti"]),
        )(lambda **k: mutated_series(tmp_path, **k)),
    }
    MANY(tests[name])()


def test_a_damaged_affine_is_flagged(tmp_path):
    """300 random changes of the affine that a reader would notice (a voxel moved by
    more than a voxel): ≥ 95 % refused.

    A header has no checksum; what is caught, is caught by plausibility: right angles,
    voxel size, position."""
    rng, caught, total = np.random.default_rng(4), 0, 0
    image = nib.Nifti1Image(rng.normal(50, 10, (30, 36, 28)).astype(np.float32), None)
    affine = np.array(
        [[6.0, 0, 0, -84], [0, 6.0, 0, -120], [0, 0, 6.0, -66], [0, 0, 0, 1]]
    )
    image.set_qform(affine, 4)
    image.set_sform(affine, 4)
    clean = image.to_bytes()
    corners = np.array(
        [[i, j, k, 1] for i in (0, 29) for j in (0, 35) for k in (0, 27)]
    ).T
    while total < 300:
        content = bytearray(clean)
        content[280 + int(rng.integers(0, 48))] = int(rng.integers(0, 256))
        new = np.vstack(
            [np.frombuffer(bytes(content[280:328]), "<f4").reshape(3, 4), [0, 0, 0, 1]]
        )
        with np.errstate(all="ignore"):
            moved = np.abs(new @ corners - affine @ corners).max()
        if not moved < 6.0:
            total += 1
            path = tmp_path / "x.nii"
            path.write_bytes(content)
            try:
                read_image(path, 3, space="MNI152NLin2009cAsym")
            except InputError:
                caught += 1
    assert caught >= 0.95 * total


def test_time_units_are_converted_and_strange_ones_refused(tmp_path):
    for unit, step, expected in (
        ("msec", 2000.0, 2.0),
        ("sec", 2.0, 2.0),
        ("unknown", 2.0, 2.0),
        ("usec", 2e6, 2.0),
    ):
        image = nib.Nifti1Image(np.ones((12, 14, 12, 3), np.float32), AFFINE)
        image.header.set_xyzt_units("mm", unit)
        image.header.set_zooms((6, 6, 6, step))
        (tmp_path / "x.nii").write_bytes(image.to_bytes())
        assert read_image(tmp_path / "x.nii", 4).header.get_zooms()[3] == pytest.approx(
            expected
        )
    image.header.set_xyzt_units("mm", "hz")
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    with pytest.raises(InputError, match="measured in hz"):
        read_image(tmp_path / "x.nii", 4)
    image.header.set_xyzt_units("meter", "sec")
    (tmp_path / "x.nii").write_bytes(image.to_bytes())
    with pytest.raises(InputError, match="measures space in meter"):
        read_image(tmp_path / "x.nii", 4)


def test_parcellated_series_come_with_names_and_tr(tmp_path):
    (tmp_path / "x.ptseries.nii").write_bytes(SERIES["cifti"])
    found = read_parcellated_series(tmp_path / "x.ptseries.nii")
    assert found.regions == ("a", "b", "c") and found.tr == pytest.approx(0.72)
    np.testing.assert_array_equal(found.data.numpy(), np.arange(60.0).reshape(20, 3).T)
    (tmp_path / "x.func.gii").write_bytes(SERIES["gifti"])
    labels = nib.GiftiImage(
        darrays=[
            nib.gifti.GiftiDataArray(
                np.array([0, 1, 1, 2, 2, 2, 0, 0], np.int32), "NIFTI_INTENT_LABEL"
            )
        ]
    )
    for key, name in ((0, "???"), (1, "one"), (2, "two"), (3, "gone")):
        label = nib.gifti.GiftiLabel(key)
        label.label = name
        labels.labeltable.labels.append(label)
    (tmp_path / "x.label.gii").write_bytes(labels.to_bytes())
    found = read_parcellated_series(
        tmp_path / "x.func.gii", tmp_path / "x.label.gii", tr=2.0
    )
    assert found.regions == ("one", "two", "gone") and np.isnan(found.data[2]).all()
    np.testing.assert_allclose(found.data[0], 1.5 + np.arange(5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><GIFTI>&a;</GIFTI>',
            "XML entities",
        ),
        (
            b'<GIFTI><DataArray Encoding="ExternalFileBinary" '
            b'ExternalFileName="/etc/passwd"/></GIFTI>',
            "another file",
        ),
        (b"<GIFTI>", "not a readable GIFTI"),
    ],
)
def test_gifti_files_cannot_point_or_unfold(tmp_path, content, message):
    (tmp_path / "x.func.gii").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_parcellated_series(tmp_path / "x.func.gii", tmp_path / "x.func.gii", 1.0)


def test_nothing_runs_code_from_data():
    """No pickle, eval, yaml.load, or unsafe torch.load and np.load anywhere in the
    package."""
    import re

    import cingulum

    wrong = re.compile(
        r"\bpickle\.|\bimport "
        r"pickle|(?<![\w.])(?:eval|exec)\(|yaml\.load\(|allow_pickle=True|weights_only=False"
    )
    loads = re.compile(r"(?:torch|np)\.load\([^()]*(?:\([^()]*\)[^()]*)*\)")
    for path in Path(cingulum.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not wrong.search(text), f"{path}: {wrong.search(text)}"
        for call in loads.findall(text):
            assert "weights_only=True" in call or "allow_pickle=False" in call, (
                f"{path}: {call}"
            )


def test_visits_and_atlases_of_nonsense_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected a BIDS dataset"):
        visits(tmp_path)
    (tmp_path / "a.tsv").write_bytes(struct.pack("<I", 7))
    (tmp_path / "a.nii").write_bytes(b"no")
    with pytest.raises(InputError):
        read_atlas(tmp_path / "a.nii")
