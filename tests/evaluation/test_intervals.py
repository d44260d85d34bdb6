"""Intervals against other libraries and published formulas, and what must hold for every input."""

import math
import time
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation import intervals
from finetune_eval.evaluation.intervals import (
    Estimate,
    Interval,
    agresti_coull,
    bias_corrected,
    bootstrap,
    clopper_pearson,
    delong,
    f1_interval,
    newcombe_auc,
    newcombe_difference,
    newcombe_paired_difference,
    paired_difference,
    resample_class_counts,
    resample_confusion,
    resample_sums,
    wilson,
)
from finetune_eval.evaluation.metrics import class_counts, confusion_matrix, from_confusion

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


def pairwise_delong(y, s):
    """DeLong et al. 1988 as it stands in the paper: every positive against every negative, O(mn)."""
    positive, negative = s[y == 1], s[y == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    by_positive, by_negative = wins.mean(axis=1), wins.mean(axis=0)
    variance = by_positive.var(ddof=1) / len(positive) + by_negative.var(ddof=1) / len(negative)
    return wins.mean(), variance


def welch_df(y, s):
    wins = (s[y == 1][:, None] > s[y == 0]) + 0.5 * (s[y == 1][:, None] == s[y == 0])
    with warnings.catch_warnings():
        # Where all rows of one class are ranked alike, SciPy warns of a variance that is 0 up to rounding.
        warnings.filterwarnings("ignore", "Precision loss occurred in moment calculation", RuntimeWarning)
        return scipy.stats.ttest_ind(wins.mean(axis=1), wins.mean(axis=0), equal_var=False).df


@given(st.integers(0, 10_000), st.integers(5, 60), st.sampled_from([0, 1, 2]))
@settings(max_examples=60)
def test_delong_equals_all_pairs(seed, n, digits):
    random = np.random.default_rng(seed)
    y = np.r_[0, 0, 1, 1, random.integers(0, 2, n)]
    s = (random.normal(size=len(y)) + 0.5 * y).round(digits)  # rounding makes ties
    value, variance = pairwise_delong(y, s)
    found = delong(y, s)
    assert found.value == pytest.approx(value) == pytest.approx(sklearn.metrics.roc_auc_score(y, s))
    _, influence = intervals.auc_influence(y == 1, s)
    found_variance, df = intervals.delong_variance(y == 1, influence)
    assert found_variance == pytest.approx(variance)
    if variance > 1e-12:  # two samples of placements: Welch's test has the same degrees of freedom
        assert df == pytest.approx(welch_df(y, s))
    if 0.1 <= value <= 0.9 and variance > 1e-12 and "logit" not in found.method:
        assert (found.high - found.low) / 2 == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-5)
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.high > found.low


def test_delong_near_one_is_on_the_logit_scale():
    random = np.random.default_rng(0)
    y = np.repeat([0, 1], 100)
    s = random.normal(size=200) + 3 * y
    value, variance = pairwise_delong(y, s)
    assert value > 0.95
    found = delong(y, s)
    logit, half = math.log(value / (1 - value)), 1.959964 * math.sqrt(variance) / (value * (1 - value))
    expected = (1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit)))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-5)
    assert found.method == "DeLong, logit scale"


@pytest.mark.parametrize("scores", [[1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 1, 1, 1, 1, 1]])
def test_delong_without_variance_falls_back_and_says_so(scores):
    found = delong([0, 0, 0, 1, 1, 1], scores)
    assert found.high - found.low > 0.3
    assert found.method == "DeLong, Clopper-Pearson on 3 rows: no variance to see"
    if found.value == 1:  # three of three: (0.05 / 2) ** (1 / 3)
        assert (found.low, found.high) == pytest.approx((0.025 ** (1 / 3), 1.0))


def test_delong_of_one_class_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"^`y_true` must have rows of both classes for a ROC-AUC; all 2 are 1\.$"
    ):
        delong([1, 1], [0.1, 0.2])
    with pytest.raises(
        ValueError, match=r"^`y_true` must be 0 or 1 \(1 is positive\); row 1 is np.int64\(2\)\.$"
    ):
        delong([1, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"^`scores` has NaN in row 0; a score is needed\.$"):
        delong([1, 0], [math.nan, 0.2])


def test_influences_are_derivatives_by_the_weight_of_a_row():
    random = np.random.default_rng(1)
    positive, w = random.random(80) < 0.4, random.random(80) + 0.1
    s = (random.normal(size=80) + positive).round(1)
    for function, score in (
        (intervals.auc_influence, sklearn.metrics.roc_auc_score),
        (intervals.average_precision_influence, sklearn.metrics.average_precision_score),
    ):
        value, influence = function(positive, s, w)
        assert value == pytest.approx(score(positive, s, sample_weight=w))
        assert influence.sum() == pytest.approx(0, abs=1e-12)
        for row in (0, 7, 33):
            more, less = w.copy(), w.copy()
            more[row] += 1e-5
            less[row] -= 1e-5
            slope = (score(positive, s, sample_weight=more) - score(positive, s, sample_weight=less)) / 2e-5
            assert influence[row] == pytest.approx(w[row] * slope, rel=1e-4, abs=1e-8)


def test_linearised_pr_auc_agrees_with_the_row_bootstrap():
    random = np.random.default_rng(2)
    positive = random.random(400) < 0.3
    s = random.normal(size=400) + 1.2 * positive
    value, influence = intervals.average_precision_influence(positive, s)
    deviation = math.sqrt(intervals.clustered_variance(influence, None)[0])
    draws = []
    for _ in range(400):
        row = random.integers(0, 400, 400)
        draws.append(sklearn.metrics.average_precision_score(positive[row], s[row]))
    assert deviation == pytest.approx(
        np.std(draws), rel=0.15
    )  # 400 draws: 3.5 % of noise; the rest is curvature


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc"])
def test_rankings_of_several_classes_equal_scikit_learn(name):
    random = np.random.default_rng(3)
    y, p = random.integers(0, 3, 100), random.dirichlet(np.ones(3), 100)
    one_hot = np.eye(3)[y]
    score = {"roc_auc": sklearn.metrics.roc_auc_score, "pr_auc": sklearn.metrics.average_precision_score}[
        name
    ]
    for average in ("macro", "weighted", "micro"):
        value, influence, _, classes = intervals.ranking_influence(name, y, p, average)
        assert classes == 3
        assert value == pytest.approx(score(one_hot, p, average=average))
        assert influence.sum() == pytest.approx(0, abs=1e-12)
        multilabel = intervals.ranking_influence(name, one_hot, p, average).value
        assert multilabel == pytest.approx(value)
    assert intervals.ranking_influence(name, np.zeros(5, int), p[:5], "macro") is None


def takahashi_macro(table):
    """Macro-F1 and its variance as Takahashi et al. 2022 (Applied Intelligence 52:4961) write it.

    With p_ij the cells, F1_i = 2 p_ii / (p_i. + p_.i); the derivatives by the cells are
    (1 / r) 2 (p_i. + p_.i - 2 p_ii) / (p_i. + p_.i)**2 for the diagonal and
    -(1 / r) 2 [p_ii / (p_i. + p_.i)**2 + p_jj / (p_j. + p_.j)**2] off it.
    """
    n, r = table.sum(), len(table)
    p = table / n
    hits, margin = np.diag(p), p.sum(axis=0) + p.sum(axis=1)
    weight = hits / margin**2
    derivative = -2 / r * (weight[:, None] + weight[None, :])
    derivative[np.diag_indices(r)] = 2 / r * (margin - 2 * hits) / margin**2
    variance = ((p * derivative**2).sum() - (p * derivative).sum() ** 2) / n
    return (2 * hits / margin).mean(), variance


def test_the_delta_method_equals_takahashi():
    table = np.array([[50, 6, 2], [5, 60, 9], [3, 4, 40]])
    value, variance = takahashi_macro(table)
    found = f1_interval(table, average="macro", method="delta")
    assert found.value == pytest.approx(value)
    half = 1.959964 * math.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((value - half, value + half), rel=1e-6)
    # Micro-F1 of single labels is the accuracy: variance p (1 - p) / n (Takahashi et al., section 3.2).
    micro = f1_interval(table, average="micro", method="delta")
    p = 150 / 179
    assert (micro.high - micro.low) / 2 == pytest.approx(1.959964 * math.sqrt(p * (1 - p) / 179), rel=1e-6)


def test_the_bootstrap_of_f1_is_near_takahashi():
    table = np.array([[500, 60, 20], [50, 600, 90], [30, 40, 400]])
    value, variance = takahashi_macro(table)
    for method in ("bootstrap", "percentile", "dirichlet"):
        found = f1_interval(table, average="macro", method=method, n_resamples=20_000)
        half = 1.959964 * math.sqrt(variance)
        # 20,000 draws put a quantile within 2 % of its distance from the middle; the limits of the bootstrap
        # and of the posterior (with its prior row) are skewed, by an order 1 / n, where those are symmetric.
        assert (found.low, found.high) == pytest.approx((value - half, value + half), abs=0.08 * half)


def test_f1_of_one_class_is_wilson_through_the_jaccard_share():
    # 9 hits of 12 rows that are of the class or predicted so: J in Wilson(9, 12), F1 = 2 J / (1 + J)
    share = scipy.stats.binomtest(9, 12).proportion_ci(0.95, method="wilson")
    found = f1_interval([[8, 2], [1, 9]], average="binary", method="wilson")
    assert found.value == pytest.approx(18 / 21)
    expected = [2 * j / (1 + j) for j in (share.low, share.high)]
    assert (found.low, found.high) == pytest.approx(expected)


def test_combined_limits_of_two_classes_by_arithmetic():
    # Balanced accuracy of 9 of 10 and 30 of 40: distances from the Wilson limits, squared, added, halved.
    a = scipy.stats.binomtest(9, 10).proportion_ci(0.95, method="wilson")
    b = scipy.stats.binomtest(30, 40).proportion_ci(0.95, method="wilson")
    low = 0.825 - math.hypot(0.9 - a.low, 0.75 - b.low) / 2
    high = 0.825 + math.hypot(a.high - 0.9, b.high - 0.75) / 2
    table = np.array([[9.0, 1.0], [10.0, 30.0]])
    found = intervals.resampled_interval(
        lambda tables: from_confusion("balanced_accuracy", tables, "macro"),
        table,
        resample_confusion(table, 200, 0).astype(float),
        confidence=0.95,
        macro="balanced_accuracy",
    )
    assert found.method == "Wilson limits of the classes, combined"
    assert (found.low, found.high) == pytest.approx((low, high))


def test_resampled_tables_are_the_row_bootstrap():
    random = np.random.default_rng(4)
    y, p = random.integers(0, 3, 300), random.integers(0, 3, 300)
    p = np.where(random.random(300) < 0.6, y, p)
    table = confusion_matrix(y, p, 3)
    drawn = resample_confusion(table, 4000, 0)
    assert (drawn.sum(axis=(1, 2)) == 300).all()
    rows = random.integers(0, 300, (4000, 300))
    direct = np.stack([confusion_matrix(y[row], p[row], 3) for row in rows])
    # A cell's count is binomial: mean c, variance c (1 - c / n); 4,000 draws see the deviation to 1.1 %.
    expected = np.sqrt(table * (1 - table / 300))
    assert drawn.std(axis=0) == pytest.approx(expected, rel=0.06)
    assert direct.std(axis=0) == pytest.approx(expected, rel=0.06)
    assert drawn.mean(axis=0) == pytest.approx(table, abs=1)


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


def mean_of(rows, **keywords):
    return intervals.mean_interval(np.asarray(rows, float), confidence=0.95, bounds=(-9, 99), **keywords)


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
    assert "unreliable" not in intervals.mean_interval(rows, confidence=0.95, bounds=(0, rows.max())).method
    assert "unreliable" not in mean_of(np.tile(rows, 4)).method


def test_the_mean_of_groups_and_weights_is_of_units():
    rows = np.random.default_rng(9).exponential(size=30)

    def of_units(rows, groups=None, weights=None):
        options = {"confidence": 0.95, "bounds": (-9, 99), "n_resamples": 1000, "seed": 3}
        return intervals.mean_of_units(rows, groups=groups, sample_weight=weights, **options)

    once = of_units(rows, groups=np.arange(30))
    copies = of_units(np.repeat(rows, 4), groups=np.repeat(np.arange(30), 4))
    assert (copies.low, copies.high) == pytest.approx((once.low, once.high))
    assert copies.method == "BCa bootstrap of groups (unreliable: only 30 groups)"
    weighted = of_units(rows, weights=np.full(30, 7.0))
    assert (weighted.low, weighted.high) == pytest.approx((once.low, once.high))
    # Hesterberg 2015: of 30 units the percentiles are those of 96.2 %, and 95 % is what is said.
    wider = bootstrap(rows, confidence=intervals.expanded_confidence(0.95, 30), n_resamples=1000, seed=3)
    assert (once.low, once.high, once.confidence) == (wider.low, wider.high, 0.95)


tables = st.integers(2, 4).flatmap(
    lambda k: (
        st.lists(st.integers(0, 12), min_size=k * k, max_size=k * k)
        .filter(any)
        .map(lambda cells: np.array(cells).reshape(k, k))
    )
)


@given(tables, st.sampled_from(["bootstrap", "percentile", "dirichlet", "delta"]))
@settings(max_examples=100, deadline=None)
def test_an_f1_interval_has_width_and_holds_its_value(table, method):
    for average in ("macro", "micro", "weighted"):
        found = f1_interval(table, average=average, method=method, n_resamples=100)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 1e-6


@pytest.mark.parametrize(
    "table",
    [
        np.diag([3, 4, 5]),  # perfect
        [[0, 3], [4, 0]],  # all wrong
        [[7, 0], [0, 0]],  # one class
        [[1, 0], [0, 0]],  # one row, right
        [[0, 1], [0, 0]],  # one row, wrong
    ],
)
def test_no_errors_or_no_hits_fall_back_and_say_so(table):
    for average in ("macro", "weighted", "micro"):
        found = f1_interval(table, average=average)
        assert found.value in (0.0, 1.0)
        assert found.high - found.low > 0.05
        assert "resamples do not vary" in found.method


def test_a_tiny_class_is_called_unreliable():
    found = f1_interval([[90, 5, 1], [6, 80, 2], [1, 1, 1]], average="macro")
    plain = f1_interval([[90, 5, 1], [6, 80, 2], [1, 1, 1]], average="macro", method="percentile")
    assert found.method == (
        "wider of bootstrap and Wilson limits of the classes, combined (unreliable: a class has 3 rows)"
    )
    assert found.high - found.low >= 0.95 * (plain.high - plain.low)
    assert "unreliable: a class has 0 rows" in f1_interval([[9, 0, 1], [1, 8, 0], [0, 0, 0]]).method


@pytest.mark.parametrize(("wrong", "said"), [(4, "only 4 rows wrong"), (12, None)])
def test_few_errors_widen_the_interval_and_say_so(wrong, said):
    table = [[100 - wrong // 2, wrong // 2], [wrong // 2, 100 - wrong // 2]]
    found, plain = (f1_interval(table, average="macro", method=m) for m in ("bootstrap", "percentile"))
    if said is None:
        assert found.method == "bias-corrected bootstrap of confusion matrix"
    else:
        assert found.method == f"wider of bootstrap and Wilson limits of the classes, combined ({said})"
        assert found.high - found.low > plain.high - plain.low


def test_the_same_seed_gives_the_same_interval():
    table = [[50, 6, 2], [5, 60, 9], [3, 4, 40]]
    assert f1_interval(table, seed=3) == f1_interval(table, seed=3) != f1_interval(table, seed=4)


def test_twice_the_rows_give_a_narrower_interval_of_the_same_value():
    once, twice = (f1_interval(times * np.array([[50, 6], [9, 40]]), average="macro") for times in (1, 2))
    assert once.value == pytest.approx(twice.value)
    ratio = (once.high - once.low) / (twice.high - twice.low)
    assert ratio == pytest.approx(math.sqrt(2), rel=0.1)


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


def test_newcombes_auc_limits_solve_his_equation():
    # Newcombe 2006, method 5: |value - a| = z sqrt(V(a)) with Hanley and McNeil's exponential variance
    for value, m, n in ((0.96, 20, 980), (0.7, 12, 15)):
        for limit in newcombe_auc(value, m, n, 0.95):
            q1, q2, each = limit / (2 - limit), 2 * limit**2 / (1 + limit), (m + n) / 2
            variance = limit * (1 - limit) + (each - 1) * (q1 - limit**2 + q2 - limit**2)
            assert abs(value - limit) == pytest.approx(1.959964 * math.sqrt(variance / (m * n)), abs=1e-6)


def test_degrees_of_freedom_are_those_that_the_kurtosis_tells():
    # Box 1953: the variance of a variance is that of 2 n / (kurtosis - 1) normal values
    units = np.random.default_rng(10).normal(size=400)
    units -= units.mean()
    kurtosis = scipy.stats.kurtosis(units, fisher=False)
    assert intervals.degrees_of_freedom(units) == pytest.approx(min(800 / (kurtosis - 1), 399))
    few = np.r_[np.ones(5), -np.ones(5), np.zeros(990)]  # ten rows carry it: kurtosis 100
    assert intervals.degrees_of_freedom(few) == pytest.approx(2000 / 99)
    assert intervals.degrees_of_freedom(np.array([1.0, -1.0])) == 1


def test_an_area_where_few_rows_are_ranked_wrongly_is_widened_and_says_so():
    random = np.random.default_rng(11)
    y = (np.arange(500) < 20).astype(int)
    p = random.normal(size=500) + 3 * y
    found = intervals.ranking_interval("roc_auc", y, np.column_stack([-p, p]), "binary", confidence=0.95)
    value, variance = pairwise_delong(y, p)
    t = scipy.stats.t.ppf(0.975, welch_df(y, p))
    middle, half = math.log(value / (1 - value)), t * math.sqrt(variance) / (value * (1 - value))
    own, other = 1 / (1 + math.exp(half - middle)), newcombe_auc(value, 20, 480, 0.95)[0]
    assert other < own
    assert found.low == pytest.approx(other)
    assert found.method == (
        "DeLong, logit scale, t; widened by Newcombe's method 5 (few of 20 rows ranked wrongly)"
    )


def test_class_counts_are_drawn_as_the_tables_are():
    table = np.zeros((30, 30), int)
    table[np.arange(30), np.arange(30)], table[3, 4], table[5, 3] = 4, 7, 2
    for drawn, other in zip(
        resample_class_counts(table, 50, 3), class_counts(resample_confusion(table, 50, 3)), strict=True
    ):
        np.testing.assert_array_equal(drawn, other)


@pytest.mark.parametrize("classes", [3, 40])
def test_class_counts_of_the_posterior_have_the_moments_of_a_dirichlet(classes):
    # A sum of cells with weight a of A in all has mean a / A and variance a (A - a) / (A^2 (A + 1)).
    table = np.zeros((classes, classes))
    table[0, 0], table[0, 1], table[1, 1] = 3, 1, 2
    drawn = intervals.dirichlet_counts(table, 40_000, 0)
    prior, total = 1 / classes**2, 7.0
    weights = (
        np.diag(table) + prior,
        table.sum(axis=0) + prior * classes,
        table.sum(axis=1) + prior * classes,
    )
    for share, weight in zip(drawn, weights, strict=True):
        variance = weight * (total - weight) / (total**2 * (total + 1))
        # 40,000 draws: a mean is seen to half a percent of the deviation
        assert share.mean(axis=0) / 6 == pytest.approx(weight / total, abs=0.02 * math.sqrt(variance.max()))
        # a class of one empty cell in 1,600 draws a long tail: only the sums over classes are steady
        np.testing.assert_allclose((share / 6).var(axis=0)[:2], variance[:2], rtol=0.05)
        assert (share / 6)[:, 2:].var(axis=0).sum() == pytest.approx(variance[2:].sum(), rel=0.15)
    assert drawn.true.sum(axis=1) == pytest.approx(np.full(40_000, 6.0))


def test_many_classes_cost_little():
    # It took seconds when every one of 40,000 cells was drawn; the bound is for slow machines.
    table = np.eye(200, dtype=int)
    start = time.process_time()
    found = f1_interval(table, average="weighted")
    assert time.process_time() - start < 3
    assert found.value == 1 and found.low < 1


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
