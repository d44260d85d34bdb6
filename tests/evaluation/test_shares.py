"""Intervals of means of shares: Wilson's of one, score limits of several, effective rows."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.shares import effective_shares, score_limits

Z = 1.959964
classes = st.lists(
    st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), min_size=1, max_size=8
)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_of_one_share_they_are_wilsons(count):
    k, n = count
    expected = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    found = score_limits(np.array([float(k)]), np.array([float(n)]), scipy.stats.norm.ppf(0.975))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(classes)
@settings(deadline=None)
def test_they_hold_the_mean_and_turn_over_with_hits_and_misses(counts):
    hits, trials = np.array(counts, dtype=float).T
    low, high = score_limits(hits, trials, Z)
    mean = (hits / trials).mean()
    assert 0 <= low <= mean <= high <= 1 and high > low
    assert (low == 0) == (not hits.any()) and (high == 1) == (hits == trials).all()
    turned = score_limits(trials - hits, trials, Z)
    assert turned == pytest.approx((1 - high, 1 - low), abs=1e-9)


@pytest.mark.parametrize(
    "counts", [((9, 10), (30, 40)), ((3, 60), (20, 21), (7, 15)), ((58, 60), (30, 30), (19, 20), (2, 2))]
)
def test_a_limit_is_z_standard_errors_away_by_the_most_likely_shares(counts):
    hits, trials = np.array(counts, dtype=float).T
    seen = (hits / trials).mean()

    def unlikely(shares):
        return -(hits * np.log(shares) + (trials - hits) * np.log1p(-shares)).sum()

    for limit in score_limits(hits, trials, Z):
        start = np.clip(hits / trials + limit - seen, 0.02, 0.98)
        best = scipy.optimize.minimize(
            unlikely,
            start,
            bounds=[(1e-9, 1 - 1e-9)] * len(hits),
            constraints={"type": "eq", "fun": lambda shares, limit=limit: shares.mean() - limit},
            options={"ftol": 1e-14, "maxiter": 500},
        ).x
        error = math.sqrt((best * (1 - best) / trials).sum()) / len(hits)
        assert abs(seen - limit) == pytest.approx(Z * error, rel=2e-3)


def test_without_a_miss_the_smallest_class_moves_alone():
    # Multiplier m: 40 of 40 moves to 40 / m where m - 40 = z**2; 50 of 50 stays, since m = 43.84 is below 50.
    low, high = score_limits(np.array([40.0, 50.0]), np.array([40.0, 50.0]), Z)
    assert (low, high) == pytest.approx(((40 / (40 + Z**2) + 1) / 2, 1.0), abs=1e-9)


def test_equal_rows_are_worth_one_less_and_as_much_less_as_t_is_wider():
    right = np.arange(41) < 33
    found = effective_shares(right, np.zeros(41, int), np.ones(41), None, 0.95)
    assert found.values[0] == pytest.approx(33 / 41)
    # kurtosis of the influences: (1 - 3 p (1 - p)) / (p (1 - p)); Box's degrees of freedom 2 n / (k - 1)
    p = 33 / 41
    freedom = 2 * 41 / ((1 - 3 * p * (1 - p)) / (p * (1 - p)) - 1)
    t = scipy.stats.t.ppf(0.975, min(freedom, 40))
    assert found.trials[0] == pytest.approx(40 * (Z / t) ** 2, rel=1e-5)


def test_copies_of_rows_in_groups_are_worth_what_the_rows_are():
    random = np.random.default_rng(0)
    right, classes = random.random(60) < 0.8, random.integers(0, 3, 60)
    once = effective_shares(right, classes, np.ones(60), None, 0.95)
    copies = effective_shares(
        np.repeat(right, 4), np.repeat(classes, 4), np.ones(240), np.repeat(np.arange(60), 4), 0.95
    )
    np.testing.assert_allclose(copies.values, once.values)
    np.testing.assert_allclose(copies.trials, once.trials)


def test_rows_that_do_not_differ_are_worth_their_units():
    weights, none = np.array([1.0, 1, 1, 3]), np.zeros(4, int)
    alone = effective_shares(np.ones(4, bool), none, weights, None, 0.95)
    assert alone.trials[0] == pytest.approx(36 / 12)  # Kish: the square of the sum by the sum of squares
    grouped = effective_shares(np.ones(4, bool), none, weights, np.array([0, 0, 1, 1]), 0.95)
    assert grouped.trials[0] == pytest.approx(36 / (2**2 + 4**2))


@given(st.floats(1e-6, 1e6), st.integers(0, 50))
@settings(max_examples=30)
def test_the_unit_of_weights_is_nobodys_business(unit, seed):
    random = np.random.default_rng(seed)
    right, weights = random.random(30) < 0.7, random.lognormal(0, 1, 30)
    found, other = (
        effective_shares(right, np.zeros(30, int), w, None, 0.95) for w in (weights, weights * unit)
    )
    assert other.trials[0] == pytest.approx(found.trials[0], rel=1e-9)
