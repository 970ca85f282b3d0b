"""Families: left out together, exchanged as a whole, from Python and from `predict`."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cingulum import evaluate_ratings
from cingulum.cli import main
from cingulum.errors import InputError
from cingulum.prediction.scans import Scans, paired_scans

FAMILIES = np.repeat([f"f{k}" for k in range(10)], 2)


def siblings(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ten families of two whose features and ratings are alike, and unrelated."""
    rng = np.random.default_rng(seed)
    features = np.repeat(rng.normal(size=(10, 1, 8)), 2, 0)
    ratings = np.repeat(rng.normal(size=(10, 1)), 2, 0)
    x = features + 0.1 * rng.normal(size=(20, 2, 8))
    return x, 50 + 10 * ratings + rng.normal(size=(20, 2))


def p_of(seed: int, blocks: np.ndarray | None) -> float:
    x, y = siblings(seed)
    names = [str(i) for i in range(20)]
    options = {"folds": 5, "permutations": 39, "jobs": 1, "seed": seed}
    return evaluate_ratings(
        {"a": x}, y, names, on="features", blocks=blocks, **options
    ).p


def test_siblings_are_no_evidence():
    """Without families, noise passes in most cohorts; with them in one of twenty: at
    most 4 of 24 has a false-alarm rate of .005."""
    seeds = range(24)
    alone = sum(p_of(seed, None) <= 0.05 for seed in seeds)
    together = sum(p_of(seed, FAMILIES) <= 0.05 for seed in seeds)
    assert alone >= 12 and together <= 4


def test_a_family_is_in_one_fold_and_keeps_its_ratings_together():
    ratings = np.arange(40.0).reshape(20, 2)
    scans = paired_scans(ratings, [str(i) for i in range(20)], None, FAMILIES)
    folds = scans.folds(5, np.random.default_rng(0))
    assert (folds[::2] == folds[1::2]).all()
    permuted = scans.exchanged(50, np.random.default_rng(1)).T.reshape(50, 10, 4)
    original = ratings.reshape(10, 4)
    for rows in permuted.reshape(-1, 4):
        assert any(np.array_equal(rows, family) for family in original)


def test_nobody_to_exchange_with():
    states = np.array([0, 0, 1, 0, 1, 2])
    patients = np.array([0, 1, 1, 2, 2, 2])
    scans = Scans(patients, states, np.arange(6.0), ["a", "b", "c"])
    with pytest.raises(InputError, match="nobody to exchange"):
        scans.exchanged(10, np.random.default_rng(0))


@pytest.mark.parametrize("design", ["paired", "between"])
def test_predict_takes_families(tmp_path, design):
    x, y = siblings(3)
    rows = [
        {
            "participant_id": f"p{i:02d}",
            "session_id": f"ses-{v + 1}",
            "family": FAMILIES[i],
            "pain": y[i, v],
            **{f"f{k}": x[i, v, k] for k in range(8)},
        }
        for i in range(20)
        for v in (0, 1)
    ]
    path = tmp_path / "t.tsv"
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    command = f"predict {path} --outcome pain --family family --design {design}"
    options = f"--permutations 19 --n-jobs 1 --out {tmp_path / 'out'}"
    assert main(f"{command} {options}".split()) == 0
    table = pd.read_csv(tmp_path / "out" / "predictions.tsv", sep="\t")
    family = table["participant_id"].map(
        lambda name: FAMILIES[int(str(name).removeprefix("p"))]
    )
    assert (table.groupby(family)["fold"].nunique() == 1).all()
