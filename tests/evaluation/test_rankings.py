"""Intervals of areas under curves, against all pairs of rows and other libraries."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.precision_bias import average_precision_bias
from finetune_eval.evaluation.rankings import (
    auc_influence,
    average_precision_influence,
    delong,
    delong_variance,
    newcombe_auc,
    ranking_influence,
    ranking_interval,
)
from finetune_eval.evaluation.units import clustered_variance


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
    _, influence = auc_influence(y == 1, s)
    found_variance, df = delong_variance(y == 1, influence)
    assert found_variance == pytest.approx(variance)
    if variance > 1e-12:  # two samples of placements: Welch's test has the same degrees of freedom
        assert df == pytest.approx(welch_df(y, s))
    half = 1.959964 * math.sqrt(variance)
    if variance > 1e-12:
        assert (found.low, found.high) == pytest.approx(
            (max(value - half, 0), min(value + half, 1)), rel=1e-5
        )
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.high > found.low


def test_delongs_limits_near_one_are_on_the_plain_scale_as_other_programs_have_them():
    random = np.random.default_rng(0)
    y = np.repeat([0, 1], 100)
    s = random.normal(size=200) + 3 * y
    value, variance = pairwise_delong(y, s)
    assert value > 0.95
    found, half = delong(y, s), 1.959964 * math.sqrt(variance)
    assert (found.low, found.high) == pytest.approx((value - half, min(value + half, 1)), rel=1e-5)
    assert found.method == "DeLong"


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
        (auc_influence, sklearn.metrics.roc_auc_score),
        (average_precision_influence, sklearn.metrics.average_precision_score),
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
    value, influence = average_precision_influence(positive, s)
    deviation = math.sqrt(clustered_variance(influence, None)[0])
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
        value, influence, _, classes, _ = ranking_influence(name, y, p, average)
        assert classes == 3
        assert value == pytest.approx(score(one_hot, p, average=average))
        assert influence.sum() == pytest.approx(0, abs=1e-12)
        multilabel = ranking_influence(name, one_hot, p, average).value
        assert multilabel == pytest.approx(value)
    assert ranking_influence(name, np.zeros(5, int), p[:5], "macro") is None


def test_newcombes_auc_limits_solve_his_equation():
    # Newcombe 2006, method 5: |value - a| = z sqrt(V(a)) with Hanley and McNeil's exponential variance
    for value, m, n in ((0.96, 20, 980), (0.7, 12, 15)):
        for limit in newcombe_auc(value, m, n, 0.95):
            q1, q2, each = limit / (2 - limit), 2 * limit**2 / (1 + limit), (m + n) / 2
            variance = limit * (1 - limit) + (each - 1) * (q1 - limit**2 + q2 - limit**2)
            assert abs(value - limit) == pytest.approx(1.959964 * math.sqrt(variance / (m * n)), abs=1e-6)


def two_columns(scores):
    return np.column_stack([-scores, scores])


def area(y, scores, **options):
    return ranking_interval("roc_auc", y, two_columns(scores), "binary", **({"confidence": 0.95} | options))


def kurtosis_freedom(y, scores):
    """Box 1953, of DeLong's components, each divided by the rows of its class."""
    _, moves = auc_influence(y == 1, scores)
    return max(2 * len(y) / (len(y) * (moves**4).sum() / (moves**2).sum() ** 2 - 1), 3)


def logit_limits_of(y, scores):
    value, variance = pairwise_delong(y, scores)
    t = scipy.stats.t.ppf(0.975, min(welch_df(y, scores), kurtosis_freedom(y, scores)))
    middle, half = math.log(value / (1 - value)), t * math.sqrt(variance) / (value * (1 - value))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def test_an_area_has_students_t_limits_on_the_logit_scale():
    random = np.random.default_rng(12)
    y = (np.arange(200) < 60).astype(int)
    scores = random.normal(size=200) + 1.2 * y
    found = area(y, scores)
    assert (found.low, found.high) == pytest.approx(logit_limits_of(y, scores))
    assert found.method == "DeLong, logit scale, t"


def test_an_area_where_few_rows_are_ranked_wrongly_is_widened_and_says_so():
    random = np.random.default_rng(11)
    y = (np.arange(500) < 20).astype(int)
    scores = random.normal(size=500) + 3 * y
    found, own = area(y, scores), logit_limits_of(y, scores)
    other = newcombe_auc(found.value, 20, 480, 0.95)
    assert (found.low, found.high) == pytest.approx((min(own[0], other[0]), max(own[1], other[1])))
    assert found.method == (
        "DeLong, logit scale, t; widened by Newcombe's method 5, which is conservative (few of 20 rows are "
        "ranked wrongly)"
    )


def test_an_area_that_rests_on_few_rows_says_so():
    # 4 of 100 positives are below all 200 negatives. A misranked one has influence (0 - .96) / 100, another
    # (1 - .96) / 100: carried by (4 * .96**2 + 96 * .04**2)**2 / (4 * .96**4 + 96 * .04**4) = 4.34 rows.
    y = np.repeat([0, 1], [200, 100])
    scores = np.r_[np.linspace(0, 1, 200), np.full(96, 2.0), np.full(4, -1.0)]
    assert area(y, scores).method == "DeLong, logit scale, t (unreliable: it rests on about 4 rows)"


def test_average_precision_is_too_high_by_what_each_row_counts_itself():
    # Positives come first and third of four. Above the first there is no other row. Two others score as high
    # as the third, one of them positive: q = 1/2, and the row itself adds (1 - 1/2) / 3. The mean is 1/12.
    positive, scores = np.array([True, False, True, False]), np.array([4.0, 3.0, 2.0, 1.0])
    assert average_precision_bias(positive, scores) == pytest.approx(1 / 12)
    assert average_precision_bias(positive, scores, np.full(4, 7.0)) == pytest.approx(1 / 12)
    # Rows that are there twice, each pair a group, are the rows once.
    twice = np.repeat(positive, 2), np.repeat(scores, 2)
    assert average_precision_bias(*twice, groups=np.repeat(np.arange(4), 2)) == pytest.approx(1 / 12)
    # The first and the third are one group: of the other groups one row scores as high as the third, and it
    # is negative, so that the group makes 2 / 3 of the precision; above the first there is no other.
    assert average_precision_bias(positive, scores, groups=np.array([0, 1, 0, 2])) == pytest.approx(1 / 3)
    # Of means over classes the lower limit is moved down by it, on the logit scale; the upper one stays.
    random = np.random.default_rng(14)
    y = random.choice(4, 80, p=[0.7, 0.1, 0.1, 0.1])
    p = random.dirichlet(np.ones(4), 80) + 0.3 * np.eye(4)[y]
    found = ranking_interval("pr_auc", y, p, "macro", confidence=0.95)
    bias = np.mean([average_precision_bias(y == k, p[:, k]) for k in range(4)])
    value, moves, *_ = ranking_influence("pr_auc", y, p, "macro")
    variance, freedom = clustered_variance(moves, None)
    half = scipy.stats.t.ppf(0.975, freedom) * math.sqrt(variance) / (value * (1 - value))
    limits = [math.log(v / (1 - v)) + side * half for v, side in ((value - bias, -1), (value, 1))]
    assert (found.low, found.high) == pytest.approx(tuple(1 / (1 + np.exp(-np.array(limits)))))


def test_a_perfect_ranking_is_bounded_by_newcombe_or_of_few_rows_by_clopper_and_pearson():
    y = np.repeat([0, 1], [80, 30])
    found = area(y, y * 1.0)
    assert (found.low, found.high) == pytest.approx(newcombe_auc(1.0, 30, 80, 0.95))
    assert found.method == "Newcombe's method 5: no variance to see (none of 30 rows is ranked wrongly)"
    few = area(y[70:90], y[70:90] * 1.0)
    assert (few.low, few.high) == pytest.approx((0.025 ** (1 / 10), 1.0))
    assert few.method == "DeLong, Clopper-Pearson on 10 rows: no variance to see"


@given(st.integers(0, 10_000), st.integers(12, 60))
@settings(max_examples=80, deadline=None)
def test_no_area_is_above_one_or_outside_its_interval_however_weights_round(seed, n):
    random = np.random.default_rng(seed)
    y = np.r_[0, 1, random.integers(0, 2, n - 2)]
    scores = np.where(random.random(n) < seed % 2 / 10, -1, 1) * (2.0 * y - 1) + random.random(n) / 2
    weights = random.choice([0.1, 0.3, 0.7, 1.1, 2.3, 1e4], n)
    for name in ("roc_auc", "pr_auc"):
        found = ranking_interval(name, y, two_columns(scores), "binary", confidence=0.95, weights=weights)
        assert 0 <= found.low <= found.value <= found.high <= 1 and found.high > found.low
        if seed % 2 == 0:
            assert found.value == 1.0


def test_a_mean_over_classes_says_which_are_rare_or_missing():
    random = np.random.default_rng(15)
    y = np.repeat([0, 1, 2], [60, 30, 4])
    p = random.dirichlet(np.ones(4), 94) + np.eye(4)[y]
    for name in ("roc_auc", "pr_auc"):
        found = ranking_interval(name, y, p[:, :3], "macro", confidence=0.95)
        assert found.method.endswith(" (unreliable: a class has 4 rows)")
        found = ranking_interval(name, y, p, "macro", confidence=0.95, groups=np.arange(94) // 2)
        assert found.method.endswith(" (unreliable: a class is in 2 groups), over 3 of 4 classes")
        found = ranking_interval(name, y[:90], p[:90, :2], "macro", confidence=0.95)
        assert "unreliable" not in found.method and "classes" not in found.method
