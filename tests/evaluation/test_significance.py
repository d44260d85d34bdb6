"""Paired tests and adjustments of p-values, against scipy and arithmetic."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.significance import (
    benjamini_hochberg,
    cochran_q,
    holm,
    holm_levels,
    mcnemar,
    randomisation_test,
)

few = st.integers(0, 60)


@given(few, few)
def test_mcnemar_equals_the_binomial_test(a, b):
    expected = scipy.stats.binomtest(a, a + b, 0.5).pvalue if a + b else 1.0
    exact, midp = mcnemar(a, b, method="exact"), mcnemar(a, b)
    assert exact.p_value == pytest.approx(expected)
    assert mcnemar(b, a) == midp
    assert 0 < midp.p_value <= exact.p_value
    if a != b:  # the mid-p takes half the probability of what was seen off each tail
        assert midp.p_value == pytest.approx(expected - scipy.stats.binom.pmf(a, a + b, 0.5))


def test_cochran_q_of_two_models_is_mcnemars_chi2():
    correct = np.repeat([[1, 1], [1, 0], [0, 1], [0, 0]], [20, 12, 5, 8], axis=0)
    q, chi2 = cochran_q(correct), mcnemar(12, 5, method="chi2")
    assert (q.statistic, q.p_value) == pytest.approx((chi2.statistic, chi2.p_value))
    assert cochran_q([[1, 1], [0, 0]]).p_value == 1.0


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=9))
@settings(max_examples=30)
def test_the_randomisation_test_is_near_all_sign_flips(rows):
    found = randomisation_test(rows, n_resamples=9999)
    flips = np.array(list(itertools.product((-1, 1), repeat=len(rows)))) @ rows
    exact = np.mean(np.abs(flips) >= abs(sum(rows)) - 1e-9)
    # 9,999 flips: standard deviation of a p-value at most .005
    assert found.p_value == pytest.approx(exact, abs=0.025)
    assert found.statistic == pytest.approx(np.mean(rows))


def test_the_randomisation_test_of_groups_flips_whole_groups():
    # Six groups of five equal rows: 2 of the 64 flips are as extreme, p = 1 / 32, and not 1 / 2**29.
    rows, groups = np.ones(30), np.repeat(list("abcdef"), 5)
    assert randomisation_test(rows, groups=groups).p_value == pytest.approx(1 / 32, abs=0.006)
    assert randomisation_test(rows).p_value == pytest.approx(1 / 10_000)


def test_very_many_sizes_use_the_normal_limit_and_say_so():
    rows = np.random.default_rng(0).normal(0.02, 1, 30_000)
    found, z = randomisation_test(rows), rows.sum() / np.sqrt((rows**2).sum())
    assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(z)))
    assert found.method == "sign flips, normal limit"


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=9))
@settings(max_examples=30)
def test_mid_p_of_sign_flips_counts_ties_half(rows):
    found = randomisation_test(rows, n_resamples=9999, method="midp")
    flips = np.abs(np.array(list(itertools.product((-1, 1), repeat=len(rows)))) @ rows)
    beyond, ties = flips > abs(sum(rows)) + 1e-9, np.abs(flips - abs(sum(rows))) <= 1e-9
    expected = 1.0 if abs(sum(rows)) < 1e-9 else np.mean(beyond) + np.mean(ties) / 2
    assert found.p_value == pytest.approx(expected, abs=0.025)


def test_mid_p_of_equal_differences_is_mcnemars():
    # Nine rows for the first and two for the second: sign flips of ones are coin flips, as in McNemar's test.
    rows = np.repeat([1.0, -1.0, 0.0], [9, 2, 30])
    found = randomisation_test(rows, n_resamples=99_999, method="midp")
    assert found.p_value == pytest.approx(mcnemar(9, 2).p_value, abs=0.003)


def test_holm_by_arithmetic():
    # Sorted .005, .01, .03, .04: times 4, 3, 2, 1 = .02, .03, .06, .04, never falling: .02, .03, .06, .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_a_p_value_is_at_most_its_level_exactly_where_holm_adjusts_it_to_at_most_alpha(p, alpha):
    within = np.asarray(p) <= holm_levels(p, alpha) * (1 + 1e-12)
    assert within.tolist() == (holm(p) <= alpha * (1 + 1e-12)).tolist()


def test_holm_levels_by_arithmetic():
    # Sorted .01 <= .05 / 3, .03 > .05 / 2: the second and the third are both tested at .05 / 2.
    assert holm_levels([0.01, 0.04, 0.03], 0.05) == pytest.approx([0.05 / 3, 0.025, 0.025])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_equals_scipy(p):
    assert benjamini_hochberg(p) == pytest.approx(scipy.stats.false_discovery_control(p))
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


def test_bad_arguments_are_one_sentence():
    with pytest.raises(ValueError, match=r"^`only_a` must be at least 0; got -1\.$"):
        mcnemar(-1, 3)
    with pytest.raises(ValueError, match=r"^`p_values` must be \(m,\) numbers from 0 to 1; got others\.$"):
        holm([0.1, 1.2])
    with pytest.raises(
        ValueError, match=r"^`correct` must hold 0 \(wrong\) and 1 \(right\); got other values\.$"
    ):
        cochran_q([[0, 2], [1, 1]])
    with pytest.raises(ValueError, match=r"^`differences` must be finite numbers; row 1 is nan\.$"):
        randomisation_test([1.0, math.nan])
    with pytest.raises(ValueError, match=r"^`groups` has no group in row 1; give every row one\.$"):
        randomisation_test([1.0, 2.0, 3.0], groups=["a", None, "b"])
    with pytest.raises(ValueError, match=r"^`method` must be one of 'exact', 'midp'; got 'mid'\."):
        randomisation_test([1.0, 2.0], method="mid")
