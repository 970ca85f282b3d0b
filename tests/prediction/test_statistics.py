"""Figures against published ones."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cingulum.prediction.compiled_statistics import mirrored_auc
from cingulum.prediction.intervals import exact_interval
from cingulum.prediction.statistics import mcnemar


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
