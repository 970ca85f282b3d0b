"""Published weights read and applied as they were meant; other units, spaces and
changed files refused."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from cingulum.errors import InputError
from cingulum.features.seed_connectivity import S1_BACK
from cingulum.prediction.signature import (
    ModalityWeights,
    Signature,
    read_signature,
    write_signature,
)
from cingulum.prediction.signature_scores import score_columns, score_maps

GRID, AFFINE = (20, 24, 18), np.diag([8.0, 8.0, 8.0, 1.0])


@pytest.fixture
def own():
    rng = np.random.default_rng(0)
    brain = np.zeros(GRID, bool)
    brain[3:17, 3:21, 3:12] = True
    weights = np.where(brain, rng.normal(size=GRID), 0)
    parts = {
        "rcbf": ModalityWeights(weights, "1 (whole-brain mean)", 1e-5, AFFINE),
        "hfhrv": ModalityWeights(np.array([-2.0]), "ln(ms²)", 0.0, None, ("hfhrv",)),
    }
    return Signature(
        "ours", parts, {"rcbf": 1.0, "hfhrv": 0.5}, {"Trained": "nobody"}
    ), brain


def flow(brain, seed):
    values = np.where(brain, 1 + 0.1 * np.random.default_rng(seed).normal(size=GRID), 0)
    return np.where(brain, values / values[brain].mean(), 0)


def test_published_maps_have_the_published_size(lee2019_folder):
    """lee2019.md §3.4."""
    parts = read_signature(lee2019_folder).parts
    assert {name: int((p.weights != 0).sum()) for name, p in parts.items()} == {
        "rcbf": 177844,
        "s1conn": 228222,
        "hfhrv": 1,
    }
    assert np.linalg.norm(parts["rcbf"].weights) == pytest.approx(0.117735, rel=5e-6)
    assert np.linalg.norm(parts["s1conn"].weights) == pytest.approx(0.044068, rel=1e-5)
    assert (
        parts["rcbf"].intercept == 5.15896642e-05
        and parts["s1conn"].intercept == 6.00711600e-05
    )
    assert parts["hfhrv"].weights[0] == -2.17344043


def test_all_94_published_peaks_agree_in_sign(lee2019_folder):
    parts, peaks = (
        read_signature(lee2019_folder).parts,
        pd.read_csv(lee2019_folder / "weight_peaks.csv"),
    )
    agree = 0
    for row in peaks.itertuples():
        part = parts[row.modality.lower()]
        i, j, k = np.round(
            np.linalg.solve(part.affine, [row.x, row.y, row.z, 1])[:3]
        ).astype(int)
        agree += bool(np.sign(part.weights[i, j, k]) == np.sign(row.zscore))
    assert (agree, len(peaks)) == (94, 94)


def test_the_seed_is_reproduced_from_its_coordinates(lee2019_folder):
    """Two spheres of 4 mm at ±18, −38, 72 on a 2 mm grid: the published 33 + 33 voxels,
    Dice 1."""
    published = nib.load(lee2019_folder / "s1back_roi.nii.gz")
    mask = np.asarray(published.dataobj) > 0
    where = (
        np.moveaxis(np.indices(mask.shape), 0, -1) @ published.affine[:3, :3].T
        + published.affine[:3, 3]
    )
    ours = (
        np.linalg.norm(where[..., None, :] - np.asarray(S1_BACK), axis=-1) <= 4 + 1e-6
    ).any(-1)
    assert np.array_equal(ours, mask) and ours.sum() == 66 and ours[:45].sum() == 33


def test_published_weights_score_relative_flow_and_refuse_absolute_flow(lee2019_folder):
    part = read_signature(lee2019_folder).parts["rcbf"]
    brain = part.weights != 0
    pattern = np.where(
        brain, 1 + 50 * part.weights, 0
    )  # flow that rises where weights are positive
    flat = np.where(brain, 1.0, 0)
    scores = score_maps(
        part, [flat, pattern / pattern[brain].mean()], part.affine, "test"
    ).scores
    assert scores[1] > scores[0]
    with pytest.raises(InputError, match="mean 50 over the brain.*ml/100 g/min"):
        score_maps(part, [50 * flat, 50 * pattern], part.affine, "test")


def test_a_difference_of_scores_is_the_score_of_the_difference_on_any_grid(own):
    signed, brain = own
    part, a, b = signed.parts["rcbf"], flow(brain, 1), flow(brain, 2)
    scored = score_maps(part, [a, b], AFFINE, "x")
    assert (
        scored.scores[1] - scored.scores[0]
        == pytest.approx((part.weights * (b - a)).sum())
        and scored.coverage == 1
    )
    turned = AFFINE.copy()
    turned[0, 0], turned[0, 3] = (
        -8.0,
        8.0 * (GRID[0] - 1),
    )  # the same brain, stored right to left
    again = score_maps(part, [a[::-1], b[::-1]], turned, "x")
    np.testing.assert_allclose(again.scores, scored.scores, rtol=1e-5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: 60 * m, "mean 60"),
        (lambda m: np.where(np.arange(GRID[1])[None, :, None] < 9, m, 0), "covers"),
        (lambda m: m[:, :, ::-1], "upside down"),
        (lambda m: m[:, ::-1] * 0, "no voxel"),
        (lambda m: np.where(m > 1, np.nan, m), "NaN"),
    ],
)
def test_other_units_little_coverage_and_wrong_ways_are_refused(own, damage, message):
    signed, brain = own
    with pytest.raises(InputError, match=message):
        score_maps(
            signed.parts["rcbf"],
            [damage(flow(brain, 1)), damage(flow(brain, 2))],
            AFFINE,
            "sub-01, rcbf",
        )


def test_power_that_is_no_logarithm_is_refused(own):
    part = own[0].parts["hfhrv"]
    assert score_columns(
        part, np.array([[6.0], [5.5]]), ["hfhrv"], "x"
    ).scores.tolist() == [-12.0, -11.0]
    with pytest.raises(InputError, match="cannot be a logarithm"):
        score_columns(part, np.array([[412.0]]), ["hfhrv"], "x")
    with pytest.raises(InputError, match="lacks hfhrv"):
        score_columns(part, np.array([[6.0]]), ["sdnn"], "x")


def test_a_signature_is_read_back_as_written_and_refused_when_changed(own, tmp_path):
    signed, _ = own
    folder = write_signature(signed, tmp_path / "signed", "# card\n")
    again = read_signature(folder)
    np.testing.assert_allclose(
        again.parts["rcbf"].weights, signed.parts["rcbf"].weights, rtol=1e-6
    )
    assert again.parts["hfhrv"].columns == ("hfhrv",) and again.fusion == signed.fusion
    assert (
        not list(folder.glob("*.pkl"))
        and (folder / "model_card.md").read_text() == "# card\n"
    )
    with pytest.raises(InputError, match="already exists"):
        write_signature(signed, folder, "")
    table = folder / "hfhrv_weights.tsv"
    table.write_text(table.read_text().replace("-2", "-3"))
    with pytest.raises(InputError, match="SHA-256 differs"):
        read_signature(folder)
    metadata = json.loads((folder / "signature.json").read_text())
    del metadata["Modalities"]
    (folder / "signature.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="not a readable signature"):
        read_signature(folder)
    with pytest.raises(InputError, match="is not a signature"):
        read_signature(tmp_path)
