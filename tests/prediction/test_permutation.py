import numpy as np
import pytest

from cingulum.errors import InputError
from cingulum.prediction.permutation import (
    exchanges,
    fdr,
    max_statistic_p,
    p_value,
    sequential_p,
    sign_flips,
)


def test_p_values_count_ties_against_the_effect_and_are_never_nil():
    null = np.array([0.1, 0.2, 0.5, 0.5])
    assert p_value(0.5, null) == 3 / 5 and p_value(0.6, null) == 1 / 5
    assert (
        p_value(0.1, null, "less") == 2 / 5
        and p_value(0.05, null, "two-sided") == 2 / 5
    )
    assert p_value(0.2, null, "two-sided") == 1.0
    with pytest.raises(InputError, match="greater, less or two-sided"):
        p_value(0.0, null, "both")


def test_early_stopping_is_exact():
    """P(p ≤ α) = α for α among its values: 20,000 draws of exchangeable statistics, h =
    5, m = 99; 3.5 standard errors of a share (false alarm 5 in 10,000 a threshold)."""
    rng = np.random.default_rng(0)
    p = []
    for _ in range(20_000):
        values = rng.normal(size=100)
        p.append(sequential_p(values[0], values[1:], 5)[0])
    for level in (0.02, 0.05, 5 / 60, 5 / 20, 5 / 10):
        error = np.sqrt(level * (1 - level) / len(p))
        assert np.mean(np.array(p) <= level + 1e-12) == pytest.approx(
            level, abs=3.5 * error
        )
    assert sequential_p(0.0, np.ones(99), 5) == (1.0, 5)


def test_blocks_flip_together_and_sites_keep_their_own():
    rng = np.random.default_rng(0)
    blocks = np.array(["a", "a", "b", "c", "c"])
    signs = sign_flips(200, 5, rng, blocks)
    assert (signs[:, 0] == signs[:, 1]).all() and (signs[:, 3] == signs[:, 4]).all()
    assert abs(np.mean(signs[:, 0] == signs[:, 2]) - 0.5) < 0.15
    sites = np.array([0, 0, 0, 1, 1])
    orders = exchanges(300, 5, rng, sites)
    assert (np.sort(orders, 1) == np.arange(5)).all() and (sites[orders] == sites).all()
    assert len(np.unique(orders[:, :3], axis=0)) == 6


def test_the_largest_of_each_permutation_bounds_the_family():
    p = max_statistic_p(np.array([1.0, 3.0, 9.0]), np.array([2.0, 3.0, 4.0, 5.0]))
    np.testing.assert_allclose(p, [1.0, 0.8, 0.2])


def test_false_discovery_rates_skip_what_is_not_known():
    q = fdr(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(q, [0.03, np.nan, 0.04, 0.04])
