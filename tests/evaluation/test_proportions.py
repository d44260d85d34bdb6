"""Intervals of shares against other libraries and published formulas, and what must hold for every input."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.proportions import (
    agresti_coull,
    clopper_pearson,
    modified_wilson_limits,
    newcombe_difference,
    newcombe_paired_difference,
    paired_difference,
    wilson,
)
from finetune_eval.evaluation.records import Estimate, Interval

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


confidences = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@given(counts, confidences)
def test_wilson_and_clopper_pearson_equal_scipy(count, confidence):
    k, n = count
    for function, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = scipy.stats.binomtest(k, n).proportion_ci(confidence, method=method)
        found = function(k, n, confidence=confidence)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert found.low <= found.value <= found.high
        assert found.high > found.low


@given(counts, counts, confidences)
def test_newcombe_contains_its_value_and_flips_with_the_models(a, b, confidence):
    found = newcombe_difference(*a, *b, confidence=confidence)
    other = newcombe_difference(*b, *a, confidence=confidence)
    assert -1 <= found.low <= found.value <= found.high <= 1 and found.high > found.low
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any), confidences)
def test_the_paired_difference_contains_its_value_and_flips_with_the_models(cells, confidence):
    both, only_a, only_b, neither = cells
    found = newcombe_paired_difference(both, only_a, only_b, neither, confidence=confidence)
    other = newcombe_paired_difference(both, only_b, only_a, neither, confidence=confidence)
    assert -1 <= found.low <= found.value + 1e-12 and found.value - 1e-12 <= found.high <= 1
    assert found.high > found.low
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize(("w", "low", "high"), [(0, -0.020, 0.120), (20, 0.018, 0.087)])
def test_the_paired_difference_of_two_totals(w, low, high):
    # 200 rows, 180 and 170 right, w wrong in both: worked example, to a tenth of a point.
    found = newcombe_paired_difference(150 + w, 30 - w, 20 - w, w)
    assert found.value == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4)


def test_an_estimate_prints_and_is_a_number():
    estimate = Estimate(0.79, 0.7284, 0.8405, "Wilson")
    assert (float(estimate), str(estimate)) == (0.79, "0.790 [0.728, 0.841]")
    assert str(Interval(0.1, 0.25, "by hand")) == "[0.100, 0.250]"


@given(st.tuples(*[st.integers(0, 60)] * 4).filter(any), confidences)
@settings(deadline=None)
def test_other_paired_differences_contain_their_value_and_flip_with_the_models(cells, confidence):
    both, only_a, only_b, neither = cells
    for method in ("tango", "bonett_price"):
        keywords = {"method": method, "confidence": confidence}
        found = paired_difference(both, only_a, only_b, neither, **keywords)
        other = paired_difference(both, only_b, only_a, neither, **keywords)
        assert -1 <= found.low <= found.value <= found.high <= 1 and found.high > found.low
        assert (other.low, other.high) == pytest.approx((-found.high, -found.low), abs=1e-9)


@pytest.mark.parametrize(("n", "z"), [(10, 1.959964), (200, 1.959964)])
def test_tango_without_disagreement_is_wilson_of_none(n, z):
    # Only a = only b = 0: the score is -+ n d / sqrt(n |d| (1 - |d|) + ...), Wilson's of 0 of n (Tango 1998)
    found = paired_difference(n, 0, 0, 0, method="tango")
    assert (found.low, found.high) == pytest.approx((-(z**2) / (n + z**2), z**2 / (n + z**2)), abs=1e-6)


@given(counts, confidences)
@settings(deadline=None)
def test_agresti_coull_holds_wilson(count, confidence):
    k, n = count
    wide, narrow = (function(k, n, confidence=confidence) for function in (agresti_coull, wilson))
    assert wide.low <= narrow.low + 1e-12 and narrow.high <= wide.high + 1e-12


def test_few_hits_or_errors_move_the_limit_next_to_0_or_1():
    # Brown, Cai and DasGupta 2001, section 4.1.1: half the 5 % quantile of chi-squared with 2 x degrees of
    # freedom, divided by n: .0513 for one hit, .3554 for two, .8177 for three.
    for hits, mean in ((1, 0.051293), (2, 0.355362), (3, 0.817691)):
        (low, high), method = modified_wilson_limits(hits, 200, 1.959964, 0.95)
        assert (low, high) == pytest.approx((mean / 200, wilson(hits, 200).high), rel=1e-5)
        assert "modified" in method
        mirrored, _ = modified_wilson_limits(200 - hits, 200, 1.959964, 0.95)
        assert mirrored == pytest.approx((1 - high, 1 - low))
    for hits, n in ((0, 200), (4, 200), (100, 200), (196, 200), (3, 50), (200, 200)):
        limits, method = modified_wilson_limits(hits, n, 1.959964, 0.95)
        assert limits == pytest.approx((wilson(hits, n).low, wilson(hits, n).high), abs=1e-7)
        assert method == "Wilson"


@pytest.mark.parametrize("n", [60, 90, 300, 2000])
def test_few_expected_errors_are_covered(n):
    # Exact coverage, summed over the binomial distribution. Wilson's own is as low as .84.
    hits = np.arange(n + 1)
    low, high = np.array([modified_wilson_limits(k, n, 1.959964, 0.95)[0] for k in hits]).T
    plain = np.array([(wilson(int(k), n).low, wilson(int(k), n).high) for k in hits]).T
    shares = np.geomspace(0.01 / n, 0.5, 400)
    chance = scipy.stats.binom.pmf(hits, n, shares[:, None])
    covered = (chance * ((low <= shares[:, None]) & (shares[:, None] <= high))).sum(axis=1)
    before = (chance * ((plain[0] <= shares[:, None]) & (shares[:, None] <= plain[1]))).sum(axis=1)
    assert covered.min() > 0.925 and before.min() < 0.85
    assert (covered >= before - 1e-12).all()
