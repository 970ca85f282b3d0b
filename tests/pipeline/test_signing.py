"""Signatures meet datasets: published weights on synthetic and null data, own weights
out and in again."""

import json

import numpy as np
import pandas as pd
import pytest

from cingulum.cli import main
from cingulum.io.images import read_image, write_image


def apply(signature, bids, out):
    code = main(
        [
            "signature",
            "apply",
            "--signature",
            str(signature),
            "--bids",
            str(bids),
            "--out",
            str(out),
            "--n-jobs",
            "1",
        ]
    )
    return code, json.loads((out / "summary.json").read_text()) if (
        out / "summary.json"
    ).exists() else None


def test_published_weights_score_a_dataset(lee2019_folder, small_cohort, tmp_path):
    code, found = apply(lee2019_folder, small_cohort, tmp_path / "out")
    assert (
        code == 0
        and found["participants"] == 10
        and found["participants_with_two_visits"] == 10
    )
    assert (
        set(found["models"]) == {"rcbf", "s1conn", "hfhrv"}
        and "fused" not in found["models"]
    )
    table = pd.read_csv(tmp_path / "out" / "decisions.tsv", sep="\t")
    scores = pd.read_csv(tmp_path / "out" / "scores.tsv", sep="\t").query(
        "modality == 'hfhrv'"
    )
    first, second = scores["score"].to_numpy().reshape(10, 2).T
    np.testing.assert_allclose(table["hfhrv"], second - first, rtol=1e-9)
    assert found["models"]["hfhrv"]["accuracy"] == np.mean(table["hfhrv"] > 0)
    assert (table["pain_change"] > 0).all() and scores["coverage"].eq(1).all()


@pytest.mark.slow
def test_own_weights_are_exported_and_say_what_they_were_trained_on(
    small_cohort, tmp_path, capsys
):
    run, signed = tmp_path / "run", tmp_path / "signed"
    assert (
        main(
            [
                "run",
                str(small_cohort),
                str(run),
                "group",
                "--permutations",
                "19",
                "--modalities",
                "rcbf",
                "hfhrv",
            ]
        )
        == 0
    )
    assert (
        main(["signature", "export", str(run), "--out", str(signed), "--name", "test"])
        == 0
    )
    card = (signed / "model_card.md").read_text()
    assert card.startswith("# test") and "not a diagnosis" in card and "Units" in card
    code, found = apply(signed, small_cohort, tmp_path / "again")
    assert code == 0 and found["models"]["fused"]["decided"] == 10
    assert any("trained on 10 of these participants" in flag for flag in found["flags"])
    weights = np.asarray(read_image(run / "model" / "rcbf_weights.nii.gz", 3).dataobj)
    maps = [
        np.asarray(
            read_image(
                next((run / "sub-01").rglob(f"*ses-{s}*relative_cbf.nii.gz")), 3
            ).dataobj
        )
        for s in ("pre", "post")
    ]
    table = pd.read_csv(
        tmp_path / "again" / "decisions.tsv", sep="\t", dtype={"participant_id": str}
    )
    assert table.loc[0, "rcbf"] == pytest.approx(
        float((weights * (maps[1] - maps[0])).sum()), rel=1e-4
    )
    assert (
        main(["signature", "export", str(tmp_path), "--out", str(tmp_path / "x")]) == 4
    )
    assert "has no model/" in capsys.readouterr().err


@pytest.mark.slow
def test_weights_that_new_data_cannot_meet_are_not_signed(
    small_cohort, tmp_path, capsys
):
    run = tmp_path / "run"
    options = [
        "run",
        str(small_cohort),
        str(run),
        "group",
        "--permutations",
        "19",
        "--modalities",
        "rcbf",
        "hfhrv",
    ]
    for more, message in (
        (["--confounds", "rate"], "confounds that were regressed out"),
        (["--fuse-controls"], "rate"),
    ):
        assert main([*options, *more]) == 0
        assert (
            main(["signature", "export", str(run), "--out", str(tmp_path / "signed")])
            == 4
        )
        assert message in capsys.readouterr().err
    assert main([*options, "--fusion", "log_odds"]) == 0
    told = json.loads((run / "model" / "model.json").read_text())
    decisions = pd.read_csv(run / "predictions.tsv", sep="\t").query(
        "model == 'hfhrv'"
    )["decision"]
    assert told["Fusion"]["hfhrv"] == pytest.approx(
        max(0, 2 * decisions.mean() / decisions.var())
    )


def test_tables_of_maps_are_scored_and_absolute_flow_is_refused(
    lee2019_folder, tmp_path, capsys
):
    weights = read_image(lee2019_folder / "s1back_roi.nii.gz", 3)
    from cingulum.prediction.signature import read_signature

    part, rows = read_signature(lee2019_folder).parts["rcbf"], []
    brain, rng = part.weights != 0, np.random.default_rng(0)
    for i, session in enumerate(("pre", "post")):
        flow = np.where(
            brain, 1 + 0.05 * rng.normal(size=brain.shape) + 100 * i * part.weights, 0
        )
        write_image(
            tmp_path / f"{session}.nii.gz",
            (flow / flow[brain].mean() * brain).astype(np.float32),
            weights.affine,
        )
        rows.append(
            {
                "participant_id": "01",
                "session_id": session,
                "rcbf": f"{session}.nii.gz",
                "hfhrv": 6 - i,
                "pain": 30 + i,
            }
        )
    pd.DataFrame(rows).to_csv(tmp_path / "scans.tsv", sep="\t", index=False)
    options = [
        "signature",
        "apply",
        "--signature",
        str(lee2019_folder),
        "--scans",
        str(tmp_path / "scans.tsv"),
        "--out",
    ]
    assert main([*options, str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "decisions.tsv", sep="\t")
    assert table.loc[0, "rcbf"] > 0 and table.loc[0, "hfhrv"] == pytest.approx(
        2.17344043
    )

    # The same with a row for every modality, and the pain in one of them only.
    apart = [{**row, "hfhrv": None, "pain": None} for row in rows]
    apart += [{**row, "rcbf": None} for row in rows]
    pd.DataFrame(apart).to_csv(tmp_path / "scans.tsv", sep="\t", index=False)
    assert main([*options, str(tmp_path / "apart")]) == 0
    for name in ("scores.tsv", "decisions.tsv"):
        assert (tmp_path / "apart" / name).read_text() == (
            tmp_path / "out" / name
        ).read_text()

    image = read_image(tmp_path / "post.nii.gz", 3)
    write_image(tmp_path / "post.nii.gz", np.asarray(image.dataobj) * 55, image.affine)
    assert main([*options, str(tmp_path / "other")]) == 4
    assert "ml/100 g/min" in capsys.readouterr().err


@pytest.mark.slow
def test_published_weights_say_nothing_on_null_data(lee2019_folder, tmp_path):
    """40 patients without effects: accuracies between .25 and .75 (a fair coin leaves
    that range once in 1,000)."""
    bids = tmp_path / "null"
    assert (
        main(
            [
                "synthesize",
                str(bids),
                "--patients",
                "40",
                "--effect",
                "none",
                "--voxel",
                "9",
                "--volumes",
                "50",
                "--tr",
                "2",
            ]
        )
        == 0
    )
    code, found = apply(lee2019_folder, bids, tmp_path / "out")
    assert code == 0
    for name, figures in found["models"].items():
        assert 0.25 <= figures["accuracy"] <= 0.75, name
