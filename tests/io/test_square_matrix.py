"""Matrices of connections as people keep them: bare, with a header, with both."""

from __future__ import annotations

import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.io.files import read_square_matrix

BARE = "0\t1\t2\n1\t0\t3\n2\t3\t0\n"
HEADED = "L a\tL b\tR c\n" + BARE
BOTH = "\tL a\tL b\tR c\nL a\t0\t1\t2\nL b\t1\t0\t3\nR c\t2\t3\t0\n"
NAMES = ("L a", "L b", "R c")


@pytest.mark.parametrize(
    ("text", "names"), [(BARE, None), (HEADED, NAMES), (BOTH, NAMES)]
)
def test_names_are_read_where_there_are_some(tmp_path, text, names):
    path = tmp_path / "sc.tsv"
    path.write_text(text)
    matrix, read = read_square_matrix(path)
    assert read == names
    np.testing.assert_array_equal(matrix, [[0, 1, 2], [1, 0, 3], [2, 3, 0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOTH.replace("\nL b", "\nX"), "row 'X' stands where column 'L b'"),
        (HEADED.replace("3", "three"), "not a readable matrix"),
        (HEADED + "1\t2\t3\n", "square"),
        ("", "not a readable"),
    ],
)
def test_what_is_no_matrix(tmp_path, text, message):
    path = tmp_path / "sc.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_square_matrix(path)
