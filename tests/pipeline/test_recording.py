"""One recording as plain arrays: `cingulum simulate` makes it, `cingulum fit` fits
it."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from cingulum import read_brain
from cingulum.brain.connectome import distance_rule
from cingulum.cli import main
from cingulum.pipeline import single_recording
from cingulum.pipeline.single_recording import read_regional_series

N = 8


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    positions = (
        80
        * torch.rand(
            N, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64
        )
        - 40
    )
    weights = distance_rule(positions, tuple("abcdefgh")).weights.numpy()
    np.savetxt(folder / "sc.tsv", weights, delimiter="\t")
    told = [
        "--weights",
        folder / "sc.tsv",
        "--tr",
        "2",
        "--set",
        "strength=0.7",
        "--duration",
        "160",
    ]
    assert main(["simulate", *map(str, told), "--out", str(folder / "bold.npy")]) == 0
    return folder


def fit(folder, out, bold="bold.npy", weights="sc.tsv", *more):
    told = [
        "--weights",
        folder / weights,
        "--bold",
        folder / bold,
        "--tr",
        "2",
        "--minutes",
        "1",
        "--out",
        out,
        *more,
    ]
    return main(["fit", *map(str, told)])


@pytest.fixture(scope="module")
def fitted(files):
    assert fit(files, files / "fitted") == 0
    return files / "fitted"


def test_fit_writes_estimates_and_held_out_figures(files, fitted):
    content = json.loads((fitted / "fit.json").read_text())
    assert {
        "train_free_running",
        "heldout_free_running",
        "sc_fc",
        "reliability",
    } <= set(content["fc_r"])
    assert (
        all(-1 <= r <= 1 for r in content["fc_r"].values()) and content["seconds"] > 0
    )
    assert (
        content["estimates"]["strength"] > 0 and len(content["estimates"]["noise"]) == N
    )
    written = {"fit.json", "fit.png", "fc_model.tsv", "model"}
    assert {p.name for p in fitted.iterdir()} == written
    brain = read_brain(fitted / "model")
    assert brain.noise.flatten().tolist() == content["estimates"]["noise"]
    bold = np.load(files / "bold.npy")
    halves = [
        np.corrcoef(bold[:, part])[np.tril_indices(N, -1)]
        for part in (slice(40), slice(40, None))
    ]
    assert content["fc_r"]["reliability"] == pytest.approx(np.corrcoef(*halves)[0, 1])


def test_time_by_region_and_every_format_read_the_same(files):
    bold, names = np.load(files / "bold.npy"), tuple("abcdefgh")
    np.savez(files / "turned.npz", bold=bold.T)
    np.savetxt(files / "turned.csv", bold.T, delimiter=",")
    for name in ("bold.npy", "turned.npz", "turned.csv"):
        series = read_regional_series(files / name, 2.0, names)
        np.testing.assert_allclose(series.data, bold, rtol=1e-12)


@pytest.mark.slow
def test_without_holdout_nothing_is_called_held_out(files, tmp_path):
    assert fit(files, tmp_path / "fitted", "bold.npy", "sc.tsv", "--holdout", "0") == 0
    fc_r = json.loads((tmp_path / "fitted" / "fit.json").read_text())["fc_r"]
    assert fc_r["heldout_free_running"] is None and fc_r["reliability"] is None


@pytest.mark.slow
def test_the_published_scheme_is_a_comparison_and_labelled_so(
    files, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        single_recording,
        "published_fit",
        partial(single_recording.published_fit, epochs=1, test_windows=3),
    )
    assert (
        fit(
            files,
            tmp_path / "fitted",
            "bold.npy",
            "sc.tsv",
            "--scheme",
            "griffiths2022",
        )
        == 0
    )
    content = json.loads((tmp_path / "fitted" / "fit.json").read_text())
    assert "a comparison, not an estimate" in content["comparison"]["scheme"]
    assert set(content["comparison"]["estimates"]) == {"g", "g_EE", "g_IE", "g_EI"}
    assert -1 <= content["comparison"]["fc_r"]["heldout_free_running"] <= 1
    assert content["estimates"]["strength"] > 0, "the fit itself stays what it is"


def test_a_fitted_brain_can_be_simulated(files, fitted, tmp_path):
    told = [
        "--weights",
        files / "sc.tsv",
        "--tr",
        "2",
        "--duration",
        "20",
        "--estimates",
        fitted / "fit.json",
    ]
    assert (
        main(["simulate", *map(str, told), "--out", str(tmp_path / "again.tsv")]) == 0
    )
    assert np.loadtxt(tmp_path / "again.tsv").shape == (N, 10)


def bold_with(change):
    def write(folder, target):
        bold = np.load(folder / "bold.npy")
        np.save(target / "bold.npy", change(bold))
        (target / "sc.tsv").write_bytes((folder / "sc.tsv").read_bytes())

    return write


def weights_with(change):
    def write(folder, target):
        np.savetxt(
            target / "sc.tsv", change(np.loadtxt(folder / "sc.tsv")), delimiter="\t"
        )
        (target / "bold.npy").write_bytes((folder / "bold.npy").read_bytes())

    return write


def with_value(value):
    def change(x):
        x[3, 5] = value
        return x

    return change


def constant(x):
    x[3] = 7.0
    return x


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            bold_with(lambda x: x[:-1]),
            "the connectome has 8 regions, but this recording has shape (7, 80)",
        ),
        (bold_with(with_value(np.nan)), "missing values (NaN or infinite): region 4"),
        (bold_with(constant), "a constant signal: region 4"),
        (bold_with(lambda x: x[:, :40]), "40 volumes leave 20 to fit"),
        (bold_with(lambda x: x.astype(object)), "not a readable matrix"),
        (weights_with(with_value(-1.0)), "must not be negative"),
        (weights_with(with_value(9.0)), "must be symmetric"),
        (weights_with(lambda w: w[:, :5]), "must be a square matrix"),
        (weights_with(lambda w: 0 * w), "no connection at all"),
    ],
)
def test_bad_input_gets_one_clear_error_and_no_output(
    files, tmp_path, capsys, write, message
):
    write(files, tmp_path)
    assert fit(tmp_path, tmp_path / "fitted") == 4
    said = capsys.readouterr().err
    assert message in said and str(tmp_path) in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bold.npy", "sc.tsv"]


def test_a_folder_with_results_is_not_overwritten(files, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    assert fit(files, tmp_path) == 4 and "already exists" in capsys.readouterr().err
    assert (
        main(
            [
                "simulate",
                "--weights",
                str(files / "sc.tsv"),
                "--tr",
                "2",
                "--duration",
                "20",
                "--set",
                "strenght=1",
                "--out",
                str(tmp_path / "x.npy"),
            ]
        )
        == 4
    )
    assert "Did you mean 'strength'" in capsys.readouterr().err
