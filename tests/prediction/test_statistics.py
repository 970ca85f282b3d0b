"""Figures against published ones."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cingulum.prediction.compiled_statistics import mirrored_auc
from cingulum.prediction.statistics import (
    delong,
    exact_interval,
    mcnemar,
)

OVARIAN = """
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0
3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1
3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1
4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0
2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1
3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1
3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1
3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0
3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1
2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1
3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1
"""
"""Albumin, total protein, K-G score and outcome of the ovarian cancer patients of
DeLong et al. 1988, as the manual of SAS gives them ("Comparing Receiver Operating
Characteristic Curves")."""


def test_delong_equals_the_published_example():
    """SAS/STAT: areas .7366, .6478, .7258; standard errors .0927, .1000, .1028; albumin
    against K-G score p = .9102, total protein against it p = .4561."""
    data = np.array(OVARIAN.split(), float).reshape(-1, 4)
    data[:, 2] = 10 - data[:, 2]
    comparison = delong(data[data[:, 3] == 1, :3].T, data[data[:, 3] == 0, :3].T)
    np.testing.assert_allclose(comparison.aucs, [0.7366, 0.6478, 0.7258], atol=5e-5)
    np.testing.assert_allclose(
        np.sqrt(np.diag(comparison.covariance)), [0.0927, 0.1000, 0.1028], atol=5e-5
    )
    assert comparison.p(0, 2) == pytest.approx(0.9102, abs=5e-5) and comparison.p(
        1, 2
    ) == pytest.approx(0.4561, abs=5e-5)
    assert comparison.interval(0).low == pytest.approx(
        0.7366 - 1.95996 * 0.0927, abs=2e-4
    )
    assert delong(data[:5, 0], data[5:, 0]).p(0, 0) == 1.0


@pytest.mark.parametrize(
    ("correct", "percent", "low", "high"),
    [
        (43, 81.13, 0.686, 0.894),
        (42, 79.25, 0.665, 0.880),
        (36, 67.92, 0.545, 0.789),
        (48, 90.57, 0.797, 0.959),
        (46, 86.79, 0.752, 0.935),
        (49, 92.45, 0.821, 0.970),
    ],
)
def test_published_accuracies_are_counts_of_53(correct, percent, low, high):
    """lee2019.md §3.2, with Wilson's intervals, which the exact one encloses
    narrowly."""
    assert round(100 * correct / 53, 2) == percent
    interval = exact_interval(correct, 53)
    assert (
        low - 0.02 < interval.low < low + 1e-3
        and high - 1e-3 < interval.high < high + 0.02
    )


def test_mirrored_auc_of_heart_rate_variability_follows_from_its_moments():
    """−0.29 ± 0.47 gives .8086 (published .8067); a normal sample has it too."""
    assert norm.cdf(np.sqrt(2) * 0.29 / 0.47) == pytest.approx(0.8086, abs=1e-3)
    d = np.random.default_rng(0).normal(0.29, 0.47, size=4000)
    assert mirrored_auc(d[None])[0] == pytest.approx(
        0.8086, abs=0.015
    )  # 3 standard errors (.0046 by bootstrap)


def test_who_knows_only_the_state_predicts_the_published_ratings(lee2019_folder):
    """r = .53 ± .02 on the digitised ratings."""
    ratings = pd.read_csv(lee2019_folder / "pain_ratings_digitised.csv")[
        ["pre_lbp", "post_lbp"]
    ].to_numpy()
    guess = np.tile(ratings.mean(0), (len(ratings), 1))
    assert np.corrcoef(guess.ravel(), ratings.ravel())[0, 1] == pytest.approx(
        0.53, abs=0.02
    )


def test_mcnemar_counts_only_those_on_whom_models_disagree():
    a, b = (
        np.array([1, 1, 1, 1, 1, 1, -1, 1]),
        np.array([-1, -1, -1, -1, -1, -1, -1, 1]),
    )
    assert mcnemar(a, b) == pytest.approx(2 * 0.5**6) and mcnemar(a, a) == 1.0
