"""Intervals of means, against Student, Hall, Wilson and Jeffreys, and moments added up over outcomes."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.losses import (
    brier_costs,
    expected_loss,
    log_costs,
    row_brier,
    row_loss,
    ruled_out,
)
from finetune_eval.evaluation.means import loss_interval, mean_interval
from finetune_eval.evaluation.resampling import bootstrap


def mean_of(rows, **keywords):
    return mean_interval(np.asarray(rows, float), confidence=0.95, bounds=(-9, 99), **keywords)


def test_the_interval_of_a_mean_without_skewness_is_students_t():
    rows = np.r_[np.arange(20), -np.arange(20)] / 10
    expected = scipy.stats.ttest_1samp(rows, 0).confidence_interval(0.95)
    found = mean_of(rows)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.method == "Student's t of rows, skewness removed (unreliable: only 40 rows)"


def test_the_limits_of_a_skewed_mean_are_where_halls_polynomial_is_students_t():
    # Hall 1992, JRSS B 54:221: g(x) = x + s x^2 / 3 + s^2 x^3 / 27 + s / (6 n) of x = (mean - mu) / sd
    # is compared with -+ t / sqrt(n): 2.262157 at 9 degrees of freedom.
    rows = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.5, 0.7, 3.0]
    skewness, found = scipy.stats.skew(rows), mean_of(rows)
    for limit, t in ((found.low, 2.262157), (found.high, -2.262157)):
        x = (np.mean(rows) - limit) / np.std(rows, ddof=1)
        g = x + skewness * x**2 / 3 + skewness**2 * x**3 / 27 + skewness / 60
        assert g == pytest.approx(t / math.sqrt(10), abs=1e-6)
    # The long tail is above: so is the longer side.
    assert found.high - found.value > 2 * (found.value - found.low)


def test_what_cannot_be_much_worse_than_the_worst_row_is_not_called_unreliable():
    rows = np.random.default_rng(9).exponential(size=30)
    assert mean_of(rows).method.endswith("(unreliable: only 30 rows)")
    assert "unreliable" not in mean_interval(rows, confidence=0.95, bounds=(0, rows.max())).method
    assert "unreliable" not in mean_of(np.tile(rows, 4)).method


def loss_of(rows, **keywords):
    return loss_interval(np.asarray(rows, float), **({"confidence": 0.95, "high": 87.3} | keywords))


def freedom_of(rows):
    n = len(rows)
    return min(max(2 * n / (scipy.stats.kurtosis(rows, fisher=False) - 1), 3), n - 1)


def test_a_limit_is_t_standard_errors_away_that_grow_as_those_of_a_share():
    rows = np.random.default_rng(1).exponential(size=300)
    found, mean, error = loss_of(rows), rows.mean(), rows.std(ddof=1) / math.sqrt(300)
    t = scipy.stats.t.ppf(0.975, freedom_of(rows))
    for limit in (found.low, found.high):
        grown = error * math.sqrt(limit * (87.3 - limit) / (mean * (87.3 - mean)))
        assert abs(limit - mean) == pytest.approx(t * grown, rel=1e-6)
    assert found.method == "Student's t of rows, variance growing with the mean"


def test_a_mean_of_zeros_and_ones_is_wilsons():
    # The variance of n - 1, and Student's t, are all that differs: 40 rows, 30 of them 1.
    rows = np.repeat([0.0, 1.0], [10, 30])
    t = scipy.stats.t.ppf(0.975, freedom_of(rows))
    expected = scipy.stats.binomtest(30, 40).proportion_ci(
        1 - 2 * scipy.stats.norm.sf(t * math.sqrt(40 / 39)), method="wilson"
    )
    found = loss_of(rows, high=1.0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_few_rows_that_carry_the_loss_make_it_unreliable():
    rows = np.r_[np.full(197, 0.01), np.full(3, 4.0)]
    # Three rows, 3.93 above the mean, carry it: each moves it by 3.93 / 200 (less what the others weigh).
    assert loss_of(rows).method.endswith(
        "(unreliable: it rests on about 3 rows; one more would move it by 0.019)"
    )
    assert "unreliable" not in loss_of(np.r_[rows, np.full(20, 4.0)]).method


def test_what_the_probabilities_expect_holds_where_no_row_is_wrong_yet():
    # 100 rows of .99, all right: the loss is .01005. One of them is expected to be wrong and to cost 4.605,
    # so that the loss would be .05600, with variance .01 * .99 * log(99)**2 = .20904 a row.
    p = np.tile([0.01, 0.99], (100, 1))
    rows = row_loss(np.ones(100, int), p)
    found = loss_of(rows, expected=expected_loss(p, log_costs))
    variance = 0.01005034 / 0.0560015 * 0.2090350 / 99
    for limit in (found.low, found.high):
        grown = variance * limit * (87.3 - limit) / (0.01005034 * (87.3 - 0.01005034))
        assert abs(limit - 0.01005034) == pytest.approx(
            scipy.stats.t.ppf(0.975, 99) * math.sqrt(grown), rel=1e-4
        )
    assert found.method.endswith(
        "(unreliable: by its probabilities it rests on about 1 row; one more would move it by 0.045)"
    )
    # Without probabilities only the end of the scale bounds the rows that have not been seen.
    assert loss_of(rows).method == "Clopper-Pearson: the rows do not vary"


def test_expected_losses_are_the_moments_over_the_classes():
    random = np.random.default_rng(2)
    p = random.dirichlet(np.ones(3), 4)
    for costs, score in ((log_costs, row_loss), (brier_costs, row_brier)):
        each = np.stack([score(np.full(4, k), p) for k in range(3)], axis=1)
        found = expected_loss(p, costs)
        for power, moment in ((2, found.variance), (3, found.third), (4, found.fourth)):
            away = (each - (p * each).sum(axis=1, keepdims=True)) ** power
            np.testing.assert_allclose(moment, (p * away).sum(axis=1))
        np.testing.assert_allclose(found.mean, (p * each).sum(axis=1))


def test_expected_losses_of_labels_are_those_of_their_mean():
    # All 4 outcomes of two independent labels, weighed by their probabilities.
    p = np.array([[0.9, 0.3]])
    outcomes = np.array([[a, b] for a in (0, 1) for b in (0, 1)])
    share = np.where(outcomes, p, 1 - p).prod(axis=1)
    for costs, score in ((log_costs, row_loss), (brier_costs, row_brier)):
        losses = score(outcomes, np.repeat(p, 4, axis=0))
        found, mean = expected_loss(p, costs, multilabel=True), share @ losses
        assert found.mean[0] == pytest.approx(mean)
        for power, moment in ((2, found.variance), (3, found.third), (4, found.fourth)):
            assert moment[0] == pytest.approx(share @ (losses - mean) ** power)


def test_rows_that_give_a_class_0_are_counted_and_may_be_more():
    # 60 of 100 rows say .00 of a class, 40 say .05: rounded to hundredths, 60 zeros stand for .3 rows.
    p = np.tile([1.0, 0.0], (100, 1))
    p[60:] = [0.95, 0.05]
    y = np.zeros(100, int)
    ruled = ruled_out(y, p)
    assert (ruled.out.sum(), ruled.happened.sum(), ruled.cost) == (60, 0, pytest.approx(126 * math.log(2)))
    assert ruled.hidden.sum() == pytest.approx(60 * 0.05 / 2)
    found = loss_of(row_loss(y, p), ruled=ruled)
    # Jeffreys: up to beta.ppf(.975, .5, 60.5) of the 60 rows may be of the class they rule out.
    up = scipy.stats.beta.ppf(0.975, 0.5, 60.5) * 0.6 * 126 * math.log(2)
    rest = loss_of(row_loss(y, p))
    assert found.high == pytest.approx(rest.value + math.hypot(up, rest.high - rest.value))
    assert (
        "; 60 rows give a class 0, and one more such row of that class would move it by 0.87" in found.method
    )
    # Float32's smallest numbers hide nothing.
    p[:60] = [1.0, 0.0]
    p[60:] = [1 - 1e-30, 1e-30]
    assert "give a class 0" not in loss_of(row_loss(y, p), ruled=ruled_out(y, p)).method
    y[0] = 1  # but for a row that happened
    assert "give a class 0" in loss_of(row_loss(y, p), ruled=ruled_out(y, p)).method


@given(st.integers(0, 200), st.sampled_from([10.0, 150.0, 1e6, 1e-9]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_one_heavy_row_leaves_the_mean_in_its_interval(seed, heavy, grouped):
    random = np.random.default_rng(seed)
    rows, weights = random.exponential(size=40), np.r_[heavy, np.ones(39)]
    groups = np.arange(40) // 3 if grouped else None
    found = loss_of(rows, weights=weights, groups=groups)
    assert 0 <= found.low <= found.value <= found.high <= 87.3 and found.high > found.low
    assert found.value == pytest.approx(np.average(rows, weights=weights))
    scaled = loss_of(rows, weights=weights * 1e-5, groups=groups)
    assert (scaled.low, scaled.high) == pytest.approx((found.low, found.high))
    drawn = bootstrap(rows, sample_weight=weights, groups=groups, n_resamples=200)
    assert drawn.low <= drawn.value <= drawn.high


@pytest.mark.parametrize(("costs", "function"), [(log_costs, row_loss), (brier_costs, row_brier)])
@pytest.mark.parametrize("digits", [2, 6])
def test_copies_in_groups_are_the_rows_themselves_for_what_is_expected(costs, function, digits):
    # 99 % right: what the probabilities expect makes the interval, and of two digits the rounded zeros do.
    random = np.random.default_rng(4)
    p = random.beta(0.05, 0.05, 80).clip(1e-6, 1 - 1e-6).round(digits)
    y, p = (random.random(80) < p).astype(int), np.column_stack([1 - p, p])

    def found(rows, groups=None):
        return loss_of(
            function(y[rows], p[rows]),
            high=87.3 if function is row_loss else 1.0,
            expected=expected_loss(p[rows], costs),
            ruled=ruled_out(y[rows], p[rows]) if function is row_loss else None,
            groups=groups,
        )

    every = np.arange(80)
    copied = found(np.repeat(every, 4), np.repeat(every, 4))
    assert (copied.low, copied.high) == pytest.approx((found(every).low, found(every).high))
    pairs = found(np.tile(every, 3), np.tile(every // 2, 3))
    once = found(every, every // 2)
    assert (pairs.low, pairs.high) == pytest.approx((once.low, once.high))


def test_copies_in_groups_are_the_rows_themselves():
    rows = np.random.default_rng(3).exponential(size=30)
    once = loss_of(rows)
    copies = loss_of(np.repeat(rows, 4), groups=np.repeat(np.arange(30), 4))
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high))
