import gzip

import nibabel as nib
import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.io.files import (
    read_bytes,
    read_matrix,
    whole_folder,
    write_bytes,
    write_matrix,
)
from cingulum.io.images import read_image, write_image

AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "map.nii.gz"
    write_image(
        path, np.random.default_rng(0).random((20, 24, 20), dtype=np.float32), AFFINE
    )
    return path


def test_an_image_comes_back_as_written(image):
    found = read_image(image, 3)
    np.testing.assert_array_equal(
        found.dataobj, np.random.default_rng(0).random((20, 24, 20), dtype=np.float32)
    )
    np.testing.assert_array_equal(found.affine, AFFINE)


def test_a_wrong_checksum_is_found_where_nibabel_sees_nothing(image):
    content = bytearray(image.read_bytes())
    content[-8] ^= 0xFF  # the first byte of the CRC
    image.write_bytes(content)
    assert nib.load(image).get_fdata().shape == (20, 24, 20)
    with pytest.raises(InputError, match="damaged gzip file"):
        read_image(image, 3)


def test_more_than_the_budget_is_refused(tmp_path):
    path = tmp_path / "bomb.tsv.gz"
    path.write_bytes(gzip.compress(b"0" * 100_000))
    with pytest.raises(InputError, match="unfolds to more than"):
        read_bytes(path, budget=10_000)


@pytest.mark.parametrize(
    ("affine", "data", "message"),
    [
        (np.diag([6.0, 6.0, 0.0, 1.0]), np.ones((20, 24, 20)), "not invertible"),
        (np.diag([6000.0, 6000.0, 6000.0, 1.0]), np.ones((20, 24, 20)), "voxel size"),
        (AFFINE, np.ones((2, 24, 20)), "field of view"),
        (AFFINE, np.full((20, 24, 20), np.nan), "NaN or infinite"),
        (AFFINE + np.eye(4, k=1) * 2, np.ones((20, 24, 20)), "sheared"),
        (
            AFFINE + 5000 * np.eye(4, k=3),
            np.ones((20, 24, 20)),
            "its origin lies 5000 mm away",
        ),
        (AFFINE, np.ones((20, 24, 20, 3)), "expected an image with 3 dimensions"),
    ],
)
def test_headers_and_data_must_be_plausible(tmp_path, affine, data, message):
    path = tmp_path / "map.nii.gz"
    image = nib.Nifti1Image(data.astype(np.float32), None)
    image.header.set_sform(affine, 2)
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    write_bytes(path, image.to_bytes())
    with pytest.raises(InputError, match=message):
        read_image(path, 3)


def test_pickled_arrays_are_never_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([[{"a": 1}]], dtype=object))
    with pytest.raises(InputError, match="not a readable matrix"):
        read_matrix(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.tsv", "x.csv"])
def test_matrices_come_back_as_written(tmp_path, name):
    matrix = np.random.default_rng(0).normal(size=(3, 5))
    write_matrix(tmp_path / name, matrix)
    np.testing.assert_allclose(read_matrix(tmp_path / name), matrix, rtol=1e-8)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_compressed_files_hold_neither_name_nor_time(tmp_path):
    write_bytes(tmp_path / "a.tsv.gz", b"1\n")
    first = (tmp_path / "a.tsv.gz").read_bytes()
    assert (
        first[4:8] == b"\0\0\0\0"
        and b"a.tsv" not in first
        and gzip.decompress(first) == b"1\n"
    )


def test_two_positions_in_one_header_must_be_one(tmp_path):
    image = nib.Nifti1Image(np.ones((20, 24, 20), np.float32), AFFINE)
    image.set_qform(AFFINE, 1)
    moved = AFFINE.copy()
    moved[0, 3] = 30
    image.set_sform(moved, 1)
    write_bytes(tmp_path / "map.nii", image.to_bytes())
    with pytest.raises(
        InputError, match="q-form and s-form place the image differently"
    ):
        read_image(tmp_path / "map.nii", 3)


def test_voxel_sizes_of_header_and_affine_must_agree(tmp_path):
    image = nib.Nifti1Image(np.ones((20, 24, 20), np.float32), AFFINE)
    image.header["pixdim"][1] = 3
    write_bytes(tmp_path / "map.nii", image.to_bytes())
    with pytest.raises(InputError, match="one is damaged"):
        read_image(tmp_path / "map.nii", 3)


def test_an_image_in_mni_space_holds_its_origin(tmp_path):
    affine = AFFINE.copy()
    affine[:3, 3] = 200
    write_image(tmp_path / "map.nii", np.ones((20, 24, 20), np.float32), affine)
    assert read_image(tmp_path / "map.nii", 3).shape == (20, 24, 20)
    with pytest.raises(InputError, match="does not hold that space's origin"):
        read_image(tmp_path / "map.nii", 3, space="MNI152NLin2009cAsym")


def test_values_must_be_plain_numbers(tmp_path):
    image = nib.Nifti1Image(np.ones((20, 24, 20), np.complex64), AFFINE)
    write_bytes(tmp_path / "map.nii", image.to_bytes())
    with pytest.raises(InputError, match="expected plain numbers"):
        read_image(tmp_path / "map.nii", 3)


def test_an_impossible_quaternion_is_refused(tmp_path):
    image = nib.Nifti1Image(np.ones((20, 24, 20), np.float32), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 1)
    image.header["quatern_b"] = 2.0
    write_bytes(tmp_path / "map.nii", image.to_bytes())
    with pytest.raises(InputError, match="q-form or s-form is impossible"):
        read_image(tmp_path / "map.nii", 3)


def test_long_runs_are_read(tmp_path):
    """A header that claims 4 GB is no reason to refuse (Human Connectome runs have it);
    a small file that does is."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((91, 109, 91, 1200))
    (tmp_path / "run.nii").write_bytes(header.binaryblock + bytes(4))
    with pytest.raises(
        InputError, match="bytes of the 4332619200"
    ):  # the claim is accepted, the data are not there
        read_image(tmp_path / "run.nii", 4)
