"""Draws of rows and groups, the bootstrap, and what is refused."""

import math

import numpy as np
import pytest
import scipy.stats

from finetune_eval.evaluation.proportions import (
    clopper_pearson,
    newcombe_paired_difference,
    paired_difference,
    wilson,
)
from finetune_eval.evaluation.resampling import bias_corrected, bootstrap, resample_sums
from finetune_eval.evaluation.tables import f1_interval
from finetune_eval.evaluation.units import degrees_of_freedom, expanded_confidence


def test_many_units_in_blocks_vary_as_much_as_single_ones():
    random = np.random.default_rng(5)
    values = random.exponential(size=60_000)
    found = resample_sums(np.column_stack([values, np.ones(60_000)]), 1500, 0)
    means = found[:, 0] / found[:, 1]
    assert means.mean() == pytest.approx(values.mean(), rel=0.001)
    # 1,500 draws see a standard deviation to 1.8 %.
    assert means.std() == pytest.approx(values.std() / math.sqrt(60_000), rel=0.08)


def test_bias_corrected_is_the_percentile_interval_where_there_is_no_bias():
    draws = np.linspace(-3, 5, 10_001)
    assert bias_corrected(1.0, draws, 0.95) == pytest.approx(
        tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-3
    )


def test_bias_corrected_limits_by_arithmetic():
    # 60 % of the draws below: z0 = .2533; limits at Phi(.5067 -+ 1.96) = .0731 and .9932 of a uniform.
    draws = (np.arange(100_000) + 0.5) / 100_000
    assert bias_corrected(0.6, draws, 0.95) == pytest.approx((0.0731, 0.9932), abs=2e-4)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_bootstrap_of_a_mean_equals_scipy(method):
    rows = np.random.default_rng(6).lognormal(size=80)
    expected = scipy.stats.bootstrap(
        (rows,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(0)
    ).confidence_interval
    found = bootstrap(rows, method=method, n_resamples=20_000)
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_any_statistic_of_weighted_rows():
    rows = np.random.default_rng(7).normal(size=100)

    def mean(values, weights):
        return weights @ values / weights.sum(axis=1)

    for method in ("percentile", "bias_corrected", "bca"):
        found, expected = (bootstrap(rows, statistic, method=method) for statistic in (mean, "mean"))
        assert found.value == pytest.approx(expected.value)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)


def test_groups_are_drawn_whole():
    # 30 customers with 20 equal rows each are worth 30 rows, not 600.
    of_group = np.random.default_rng(8).normal(size=30)
    rows, groups = np.repeat(of_group, 20), np.repeat(np.arange(30), 20)
    found, thirty = bootstrap(rows, groups=groups), bootstrap(of_group)
    assert (found.low, found.high) == pytest.approx((thirty.low, thirty.high))
    alone = bootstrap(rows)
    # sqrt(20) = 4.5 times narrower
    assert (found.high - found.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(20), rel=0.1)
    assert found.method == "BCa bootstrap of groups"


def test_weights_of_rows_count_like_repeated_rows_in_the_value():
    found = bootstrap([1.0, 2.0, 4.0], sample_weight=[1, 2, 1])
    assert found.value == pytest.approx((1 + 2 + 2 + 4) / 4)
    assert found.low < found.value < found.high


def test_rows_that_do_not_vary_are_bounded_by_what_may_be_unseen():
    # 10 rows: up to 1 - .025 ** (1 / 10) = .3085 of rows may be unlike these, each as far off as can be
    found = bootstrap([0.5] * 10, bounds=(0, 2))
    unlike = 1 - 0.025**0.1
    assert (found.low, found.high) == pytest.approx((0.5 - unlike * 0.5, 0.5 + unlike * 1.5))
    assert found.method == "Clopper-Pearson: the resamples of rows do not vary"
    assert bootstrap([0.5]).low == -math.inf


def test_degrees_of_freedom_are_those_that_the_kurtosis_tells():
    # Box 1953: the variance of a variance is that of 2 n / (kurtosis - 1) normal values
    units = np.random.default_rng(10).normal(size=400)
    units -= units.mean()
    kurtosis = scipy.stats.kurtosis(units, fisher=False)
    assert degrees_of_freedom(units) == pytest.approx(min(800 / (kurtosis - 1), 399))
    few = np.r_[np.ones(5), -np.ones(5), np.zeros(990)]  # ten rows carry it: kurtosis 100
    assert degrees_of_freedom(few) == pytest.approx(2000 / 99)
    assert degrees_of_freedom(np.array([1.0, -1.0])) == 1


def test_a_bootstrap_of_few_units_is_widened_to_students_t():
    # Hesterberg 2015: t of 29 degrees of freedom (2.045230) times sqrt(30 / 29) is a normal quantile of
    # 2.080196, with 96.249 % between it and its opposite.
    assert expanded_confidence(0.95, 30) == pytest.approx(0.96249, abs=1e-5)
    assert expanded_confidence(0.95, math.inf) == 0.95


def test_bad_arguments_are_one_sentence():
    with pytest.raises(
        ValueError, match=r"^`method` must be one of .* got 'tanga'\. Did you mean 'tango'\?$"
    ):
        paired_difference(1, 1, 1, 1, method="tanga")
    with pytest.raises(ValueError, match=r"^`successes` must be at most `n`; got 5 of 4\.$"):
        wilson(5, 4)
    with pytest.raises(ValueError, match=r"^`n` must be at least 1; got 0\.$"):
        clopper_pearson(0, 0)
    with pytest.raises(
        ValueError, match=r"^`confidence` must be a finite number above 0 and below 1; got 95\.$"
    ):
        wilson(3, 4, confidence=95)
    with pytest.raises(ValueError, match=r"^`confusion` must hold whole counts of rows, none negative; "):
        f1_interval([[1.5, 0], [0, 1]])
    with pytest.raises(ValueError, match=r"^`confusion` has no rows; at least one is needed\.$"):
        f1_interval([[0, 0], [0, 0]])
    with pytest.raises(
        ValueError, match=r"^`method` must be one of .* got 'bootstrp'\. Did you mean 'bootstrap'\?$"
    ):
        f1_interval([[1, 0], [0, 1]], method="bootstrp")
    with pytest.raises(
        ValueError, match=r"^`method` 'wilson' needs `average` 'binary' or 'micro'; got 'macro'\.$"
    ):
        f1_interval([[1, 0], [0, 1]], average="macro", method="wilson")
    with pytest.raises(ValueError, match=r"^`values` has no rows; at least one is needed\.$"):
        bootstrap([])
    with pytest.raises(
        ValueError, match=r"^`groups` must have one entry for each of the 3 rows; got shape \(2,\)\.$"
    ):
        bootstrap([1, 2, 3], groups=["a", "b"])
    with pytest.raises(ValueError, match=r"are all 0; at least one row is needed\.$"):
        newcombe_paired_difference(0, 0, 0, 0)
