"""Intervals of means, against Student and Hall."""

import math

import numpy as np
import pytest
import scipy.stats

from finetune_eval.evaluation.means import mean_interval, mean_of_units
from finetune_eval.evaluation.resampling import bootstrap
from finetune_eval.evaluation.units import expanded_confidence


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


def test_the_mean_of_groups_and_weights_is_of_units():
    rows = np.random.default_rng(9).exponential(size=30)

    def of_units(rows, groups=None, weights=None):
        options = {"confidence": 0.95, "bounds": (-9, 99), "n_resamples": 1000, "seed": 3}
        return mean_of_units(rows, groups=groups, sample_weight=weights, **options)

    once = of_units(rows, groups=np.arange(30))
    copies = of_units(np.repeat(rows, 4), groups=np.repeat(np.arange(30), 4))
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high))
    assert copies.method == "BCa bootstrap of groups (unreliable: only 30 groups)"
    weighted = of_units(rows, weights=np.full(30, 7.0))
    assert (weighted.low, weighted.high) == pytest.approx((once.low, once.high))
    # Hesterberg 2015: of 30 units the percentiles are those of 96.2 %, and 95 % is what is said.
    wider = bootstrap(rows, confidence=expanded_confidence(0.95, 30), n_resamples=1000, seed=3)
    assert (once.low, once.high, once.confidence) == (wider.low, wider.high, 0.95)
