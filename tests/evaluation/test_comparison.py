"""Verdicts on two and more models: one voice of test, interval and words, whatever the rows."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from finetune_eval import compare, evaluate, evaluate_predictions
from finetune_eval.evaluation._paired_differences import of_means, of_shares, of_weighted_means
from finetune_eval.evaluation._paired_rows import Settings
from finetune_eval.evaluation.metrics import METRICS
from finetune_eval.evaluation.power import minimum_detectable_difference
from finetune_eval.evaluation.proportions import paired_difference
from finetune_eval.evaluation.significance import cochran_q, holm_levels

PLAIN = Settings("loss", "binary", 100, 0, None)


def compared(classes):
    """Metrics that `compare` takes of so many classes; top-k accuracy has a test of its own."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.source not in ("order", "labels")
        and not name.startswith("top_")
        and metric.classes[0] <= classes <= metric.classes[1]
    ]


def scored(y, right, confidence=0.9, classes=2, **options):
    """An evaluation in which row i is right as `right` says, at the given confidence."""
    y, right = np.asarray(y), np.asarray(right, dtype=bool)
    predicted = np.where(right, y, (y + 1) % classes)
    p = np.full((len(y), classes), 0.0)
    p[:] = ((1 - np.broadcast_to(confidence, len(y))) / (classes - 1))[:, None]
    p[np.arange(len(y)), predicted] = confidence
    return evaluate_predictions(y, p, labels=[f"c{k}" for k in range(classes)], **options)


def two_models(n, both, only_a, only_b):
    a = np.r_[np.ones(both), np.ones(only_a), np.zeros(only_b), np.zeros(n - both - only_a - only_b)]
    b = np.r_[np.ones(both), np.zeros(only_a), np.ones(only_b), np.zeros(n - both - only_a - only_b)]
    y = np.arange(n) % 2
    return scored(y, a), scored(y, b)


def tango_score(only_a, only_b, n, difference):
    """Tango's score; the share of rows that only b has right is searched for: the most likely one."""

    def unlikely(q):
        shares = q + difference, q, 1 - 2 * q - difference
        counts = only_a, only_b, n - only_a - only_b
        return -sum(k * math.log(max(share, 1e-300)) for k, share in zip(counts, shares, strict=True) if k)

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (only_a - only_b - n * difference) / math.sqrt(n * (2 * q + difference - difference**2))


def test_better_and_worse():
    a, b = two_models(200, 170, 10, 0)
    found = compare(a, b)
    assert (found.outcome, compare(b, a).outcome) == ("better", "worse")
    assert found.difference.value == pytest.approx(0.05)
    # Tango's limits: the differences at which his score is the .975 quantile of the normal distribution
    assert tango_score(10, 0, 200, found.difference.low) == pytest.approx(1.959964, abs=1e-3)
    assert tango_score(10, 0, 200, found.difference.high) == pytest.approx(-1.959964, abs=1e-3)
    # Ten rows, all one way: mid-p 2 * (1/2) * (1/2)**10 = .00098
    assert found.p_value == pytest.approx(0.5**10)
    assert found.verdict == (
        "A is better than B: accuracy 0.900 against 0.850, +5.0 points [+2.7, +9.0] on 200 rows, p < 0.001."
    )
    # 5 % of rows differ: the least difference is the one mcnemar_power gives 80 % of
    assert found.detectable == pytest.approx(minimum_detectable_difference(0.05, 200))
    assert (
        "A test on 200 rows detects a true difference of 4.4 points with 80 % probability, if the models "
        "disagree on 5 % of the rows." in " ".join(str(found).split())
    )


@pytest.mark.parametrize(
    ("both", "only_a", "only_b", "neither", "outcome", "verdict"),
    [
        (
            917,
            33,
            33,
            17,
            "no difference that matters",
            "There is no difference that matters between A and B: accuracy 0.950 against 0.950, +0.0 points "
            "[-1.6, +1.6] on 1,000 rows, p = 1.000. The interval holds no difference above 2.0 points.",
        ),
        (
            935,
            31,
            18,
            16,
            "cannot tell yet",
            "These rows cannot tell yet whether A or B is better: accuracy 0.966 against 0.953, +1.3 points "
            "[-0.1, +2.8] on 1,000 rows, p = 0.065. There may be no difference or one above 2.0 points, "
            "which would matter.",
        ),
        (
            150,
            20,
            18,
            12,
            "cannot tell yet",
            "These rows cannot tell yet whether A or B is better: accuracy 0.850 against 0.840, +1.0 points "
            "[-5.2, +7.2] on 200 rows, p = 0.749. There may be no difference or one above 2.0 points, "
            "which would matter. About 1,900 rows like these in all would narrow the interval to 2.0 points "
            "either way.",
        ),
        (
            936,
            14,
            5,
            45,
            "better",
            "A is better than B: accuracy 0.950 against 0.941, +0.9 points [+0.1, +1.9] on 1,000 rows, p = "
            "0.041. The difference is more than chance, but too small to matter (below 2.0 points).",
        ),
    ],
)
def test_the_interval_decides_against_what_matters(both, only_a, only_b, neither, outcome, verdict):
    n = both + only_a + only_b + neither
    a, b = two_models(n, both, only_a, only_b)
    found = compare(a, b)
    assert (found.outcome, found.verdict) == (outcome, verdict)
    assert compare(b, a).outcome == {"better": "worse"}.get(outcome, outcome)


def test_what_matters_is_for_the_user_to_say():
    models = two_models(200, 150, 20, 18)
    assert compare(*models, matters=0.2).outcome == "no difference that matters"
    assert compare(*models, matters=0).outcome == "cannot tell yet"
    assert (
        "About" not in compare(*models, matters=0).verdict
    )  # no number of rows shows a difference of nothing
    # Of a loss: 5 % of the smaller one, .8 ln(1 / .9) + ... of 160 and 158 rows right
    losses = compare(*models, metric="loss")
    assert losses.matters == pytest.approx(0.05 * min(losses.values))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 400), st.sampled_from([0.2, 0.05, 0.01, 0.001]))
@settings(max_examples=300)
def test_test_and_interval_of_shares_agree(only_a, only_b, others, level):
    difference = of_shares(others, only_a, only_b, 0)
    found = difference.interval(level)
    assert (difference.test.p_value <= level) == (found.low > 0 or found.high < 0)
    assert found.low <= found.value <= found.high
    # Only the limit next to 0 is ever moved, and never far: the two tests differ by less than a row.
    tango = paired_difference(others, only_a, only_b, 0, method="tango", confidence=1 - level)
    rows = only_a + only_b + others
    assert abs(found.low - tango.low) <= 1 / rows and abs(found.high - tango.high) <= 1 / rows


def test_the_test_decides_about_0():
    # Four rows, all one way: chi-squared 4 > 3.84, and so Tango's limit, but mid-p .5**4 = .0625
    found = compare(*two_models(100, 90, 4, 0))
    assert paired_difference(90, 4, 0, 6, method="tango").low > 0
    assert (found.p_value, found.difference.low, found.outcome) == (0.0625, 0.0, "cannot tell yet")
    assert found.difference.method == "Tango score; the test decides about 0"


def test_a_small_p_and_the_interval_both_say_better():
    # 12 against 4 of 100 rows: mid-p 2 (P(X <= 3) + P(X = 4) / 2) of 16 coin flips = .0490
    found = compare(*two_models(100, 80, 12, 4))
    assert found.p_value == pytest.approx(2 * (697 + 1820 / 2) / 2**16)
    assert found.difference.low > 0 and found.outcome == "better"


@pytest.mark.parametrize("metric", compared(2))
@pytest.mark.parametrize("kind", ["plain", "groups", "weights", "rare"])
def test_p_never_contradicts_the_interval(metric, kind):
    random = np.random.default_rng(1)
    for n in (12, 100):
        y = (np.arange(n) % (9 if kind == "rare" else 2) == 0).astype(int)
        options = {"groups": np.arange(n) // 3} if kind == "groups" else {}
        if kind == "weights":
            options = {"sample_weight": random.lognormal(0, 1, n)}
        for worse in (0.0, 0.2):
            a, b = (
                scored(y, random.random(n) < share, random.uniform(0.6, 0.95, n), **options)
                for share in (0.9, 0.9 - worse)
            )
            for alpha in (0.05, 0.3):
                found = compare(a, b, metric=metric, alpha=alpha, n_resamples=100)
                low, high = found.difference.low, found.difference.high
                assert (
                    (found.p_value <= alpha)
                    == (low > 0 or high < 0)
                    == (found.outcome in ("better", "worse"))
                )
                assert low <= found.difference.value <= high


# --- several models ----------------------------------------------------------------------------------


def test_holm_adjusts_every_p_value_and_every_interval():
    # The pairs differ on 7, 12 and 5 rows, all one way: mid-p .5**7, .5**12, .5**5; Holm: times 2, 3 and 1,
    # that is at the levels .05 / 2, .05 / 3 and .05
    y = np.arange(100) % 2
    found = compare(*(scored(y, np.arange(100) < right) for right in (92, 85, 80)))
    adjusted = [2 * 0.5**7, 3 * 0.5**12, 0.5**5]
    assert [pair.p_value for pair in found.pairs] == pytest.approx(adjusted, rel=1e-9)
    assert [pair.test.p_value for pair in found.pairs] == pytest.approx([0.5**7, 0.5**12, 0.5**5], rel=1e-9)
    confidences = [1 - 0.05 / 2, 1 - 0.05 / 3, 0.95]
    assert [pair.difference.confidence for pair in found.pairs] == pytest.approx(confidences)
    first = paired_difference(85, 7, 0, 8, method="tango", confidence=confidences[0])
    assert (found.pairs[0].difference.low, found.pairs[0].difference.high) == pytest.approx(
        (first.low, first.high)
    )
    # What a test of the first of three pairs detects: at .05 / 3
    expected = minimum_detectable_difference(0.07, 100, alpha=0.05 / 3)
    assert found.pairs[0].detectable == pytest.approx(expected)
    text = " ".join(str(found).split())
    assert "(97.5 % interval, adjusted by Holm, n = 100)" in text
    assert (
        "A test on 100 rows at the level 0.017 (alpha shared by all pairs) detects a true difference of"
        in text
    )
    assert (
        "The intervals and p-values allow for the choice of these rows only, not for training seeds" in text
    )
    assert text.count("p is the probability of a result at least this extreme") == 1
    assert "All models together, Cochran's Q: statistic " in text


def test_five_models_have_one_voice():
    random = np.random.default_rng(7)
    y, shared = np.arange(300) % 2, random.normal(size=300)
    models = [
        scored(y, shared + 0.5 * random.normal(size=300) < limit) for limit in (1.5, 1.2, 1.15, 0.9, 0.5)
    ]
    found = compare(*models)
    levels = holm_levels([pair.test.p_value for pair in found.pairs], 0.05)
    decided = 0
    for pair, level in zip(found.pairs, levels, strict=True):
        excludes = pair.difference.low > 0 or pair.difference.high < 0
        assert (pair.p_value <= 0.05) == excludes == (pair.outcome in ("better", "worse"))
        assert pair.difference.confidence == pytest.approx(1 - level)
        decided += excludes
    assert 0 < decided < 10


def test_more_than_two_models():
    y = np.arange(300) % 2
    a, b, c = (scored(y, np.arange(300) < right) for right in (280, 240, 238))
    found = compare(a, b, c, names=["new", "old", "other"])
    correct = np.array([np.arange(300) < right for right in (280, 240, 238)]).T
    assert found.overall == cochran_q(correct.astype(int))
    assert [pair.names for pair in found.pairs] == [("new", "old"), ("new", "other"), ("old", "other")]
    # 40, 42 and 2 rows, all one way: mid-p .5**40, .5**42, .5**2; Holm: times 2, 3 and 1
    assert [pair.p_value for pair in found.pairs] == pytest.approx([2 * 0.5**40, 3 * 0.5**42, 0.25])
    assert [pair.outcome for pair in found.pairs[:2]] == ["better", "better"]
    assert found.verdict == (
        "new has the highest accuracy of 3 models on 300 rows. It is better than old and other. p-values and "
        "intervals are adjusted for 3 pairs (Holm)."
    )
    second = compare(b, c, a, names="xyz")
    assert second.verdict.startswith(
        "z has the highest accuracy of 3 models on 300 rows. It is better than x and y."
    )
    alike = compare(b, c, b, names="xyz").verdict
    assert alike.startswith("x has the highest accuracy of 3 models on 300 rows, as has z. ")
    assert (
        "These rows cannot tell yet whether it is better than y. It gives every row the same answer as z."
        in alike
    )
    assert max(map(len, str(found).splitlines())) <= 80


@pytest.mark.parametrize(("metric", "classes"), [(name, k) for k in (2, 3) for name in compared(k)])
def test_every_metric_has_a_verdict_that_fits_the_screen(metric, classes):
    random = np.random.default_rng(3)
    y = np.arange(150) % classes
    further = [metric] if METRICS[metric].asked else []
    a, b = (
        scored(y, random.random(150) < share, random.uniform(0.6, 0.99, 150), classes, metrics=further)
        for share in (0.9, 0.6)
    )
    found = compare(a, b, metric=metric)
    assert found.outcome == "better"
    assert compare(b, a, metric=metric).outcome == "worse"
    assert found.difference.low < found.difference.value < found.difference.high
    assert found.values[0] - found.values[1] == pytest.approx(found.difference.value)
    assert found.values[0] == pytest.approx(a.estimates[metric].value)
    assert max(map(len, str(found).splitlines())) <= 80


def test_old_readers_find_every_field():
    found = dataclasses.asdict(compare(*two_models(200, 170, 10, 0)))
    assert {
        "names",
        "metric",
        "values",
        "n",
        "alpha",
        "matters",
        "pairs",
        "overall",
        "verdict",
        "notes",
    } <= set(found)
    fields = {"names", "values", "difference", "test", "p_value", "outcome", "detectable"}
    assert fields <= set(found["pairs"][0])


# --- losses and weighted means -----------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["loss", "brier"])
def test_losses_of_like_models_are_compared_by_students_t(metric):
    random = np.random.default_rng(2)
    y = np.arange(150) % 2
    seen = 1.5 * (2 * y - 1) + random.normal(size=150)
    p = [1 / (1 + np.exp(-(seen + random.normal(size=150)))) for _ in range(2)]
    found = compare(*(evaluate_predictions(y, one, baselines=False) for one in p), metric=metric)
    rows = [(one - y) ** 2 if metric == "brier" else -np.log(np.where(y == 1, one, 1 - one)) for one in p]
    expected = scipy.stats.ttest_rel(*rows)
    limits = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((limits.low, limits.high))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.pairs[0].test.statistic == pytest.approx(expected.statistic)
    assert found.difference.method == "Student's t of paired rows"


def test_where_one_model_is_surer_the_interval_is_not_narrower_than_students_t():
    random = np.random.default_rng(3)
    y = np.arange(120) % 2
    seen = 1.5 * (2 * y - 1) + random.normal(size=120)
    a, b = (evaluate_predictions(y, 1 / (1 + np.exp(-seen * k)), baselines=False) for k in (1, 4))
    found = compare(a, b, metric="loss")
    rows = a.predictions["loss"].to_numpy() - b.predictions["loss"].to_numpy()
    limits = scipy.stats.ttest_1samp(rows, 0).confidence_interval(0.95)
    assert found.difference.low <= limits.low and found.difference.high >= limits.high
    assert found.difference.high - found.difference.low > limits.high - limits.low
    assert (
        found.difference.method
        == "wider of Student's t with and without skewness removed: B is surer of its answers"
    )
    # p is where the interval begins to exclude 0
    at_p = of_means(rows, 87.0, "B").limits(1 - found.p_value)
    assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "value"), [(6, 0.3), (200, -0.01), (5, 0.3)])
def test_rows_that_all_differ_by_the_same_are_a_sign_test(n, value):
    difference = of_means(np.full(n, value), 87.0)
    assert difference.test.p_value == pytest.approx(2 * 0.5**n)
    found = difference.interval(0.05)
    assert (found.low > 0 or found.high < 0) == (n > 5)
    assert found.low < value < found.high


def test_equal_weights_give_students_t():
    rows = np.random.default_rng(4).normal(0.2, 1, 40)
    found = of_weighted_means(rows, 87.0, np.ones(40), PLAIN).limits(0.9)
    expected = scipy.stats.ttest_1samp(rows, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_one_heavy_row_is_no_evidence():
    # One row of a thousand counts as much as ten thousand: that A is right there and B is not says little.
    y, n = np.arange(1000) % 2, 1000
    w = np.where(np.arange(n) == 0, 10_000.0, 1.0)
    right = np.arange(n) % 5 > 0
    found = compare(*(scored(y, one, sample_weight=w) for one in (right | (np.arange(n) == 0), right)))
    assert found.difference.value > 0.9
    assert found.outcome == "cannot tell yet" and found.p_value > 0.3
    assert found.difference.low <= 0 <= found.difference.high


@pytest.mark.parametrize("metric", ["accuracy", "f1", "loss", "roc_auc"])
def test_the_unit_of_weights_does_not_matter(metric):
    random = np.random.default_rng(5)
    y, w = np.arange(120) % 2, random.lognormal(0, 1, 120)
    right = [random.random(120) < share for share in (0.9, 0.75)]
    sure = random.uniform(0.6, 0.95, 120)

    def compared(*units):
        models = (scored(y, r, sure, sample_weight=w * unit) for r, unit in zip(right, units, strict=True))
        return compare(*models, metric=metric, n_resamples=200)

    found = compared(1, 1)
    for units in ((1e-9, 1e-9), (1e9, 1e9), (1, 7)):
        other = compared(*units)
        assert other.p_value == pytest.approx(found.p_value, abs=2e-4)
        assert other.difference.value == pytest.approx(found.difference.value, abs=1e-9)
        assert (other.difference.low, other.difference.high) == pytest.approx(
            (found.difference.low, found.difference.high), abs=1e-6
        )
    # Equal weights are none.
    equal = compare(*(scored(y, r, sure, sample_weight=np.full(120, 3.0)) for r in right), metric=metric)
    assert equal.pairs == compare(*(scored(y, r, sure) for r in right), metric=metric).pairs


@pytest.mark.parametrize("metric", ["accuracy", "loss"])
def test_groups_that_all_come_out_even_are_not_certain(metric):
    # In each of 30 groups A is right where B is wrong and the other way round: no group tells them apart.
    y, right = np.zeros(60, int), np.arange(60) % 2 == 0
    found = compare(scored(y, right), scored(y, ~right), metric=metric, groups=np.arange(60) // 2)
    assert (found.difference.value, found.p_value) == (pytest.approx(0, abs=1e-12), 1.0)
    assert found.difference.low < -0.01 and found.difference.high > 0.01


def test_rounding_puts_no_difference_beyond_its_limits():
    y = np.arange(49) % 2
    for seed in range(20):  # some of these weights add up to 1.0000000000000002 of themselves
        w = np.random.default_rng(seed).random(49)
        found = compare(scored(y, y == y, sample_weight=w), scored(y, y != y, sample_weight=w))
        assert found.difference.low <= found.difference.value <= found.difference.high <= 1.0


def test_names_cannot_move_the_cursor():
    found = compare(*two_models(20, 15, 2, 1), names=["good\x1b[31m", "b"])
    assert "\x1b" not in str(found) and "good\\x1b[31m" in found.verdict


# --- no variance -------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_a_perfect_ranking_against_a_constant_one(classes):
    y = np.arange(60 * classes) % classes
    sure = np.full((len(y), classes), 0.1)
    sure[np.arange(len(y)), y] = 1.1 - 0.1 * classes
    perfect = evaluate_predictions(y, sure)
    constant = evaluate_predictions(y, np.full((len(y), classes), 1 / classes))
    found = compare(perfect, constant, metric="roc_auc")
    assert (found.outcome, compare(constant, perfect, metric="roc_auc").outcome) == ("better", "worse")
    # Sixty rows of a class, each of which would have to be ranked otherwise: 2 (1 - .5)**60; the permutation
    # test of Mann and Whitney is surer still, 2 / C(120, 60).
    assert found.p_value == pytest.approx(2 * 0.5**60)
    assert 2 / math.comb(120, 60) < found.p_value < 0.05


def test_a_perfect_ranking_against_itself_reversed():
    y = np.array([0, 1] * 30)
    models = (evaluate_predictions(y, np.where(y == k, 0.9, 0.1)) for k in (1, 0))
    found = compare(*models, metric="roc_auc")
    assert found.outcome == "better" and found.difference.value == 1.0 and 0 < found.p_value < 1e-100


def test_one_positive_row_decides_nothing():
    y = (np.arange(50) == 7).astype(int)
    a, b = (evaluate_predictions(y, np.where(np.arange(50) == 7, p, 0.3)) for p in (0.9, 0.1))
    found = compare(a, b, metric="roc_auc")
    assert found.difference.value == 1.0 and found.difference.high == 1.0
    b = evaluate_predictions(y, np.full(50, 0.3))
    found = compare(a, b, metric="roc_auc")
    assert (found.p_value, found.outcome) == (1.0, "cannot tell yet")


def test_a_model_that_always_answers_the_commonest_class_is_that_baseline():
    y = np.arange(90) % 3 // 2
    result = evaluate_predictions(y, np.full(90, 0.2), labels=["no", "yes"])
    (baseline,) = result.baselines
    assert baseline.outcome == "identical answers"
    assert (
        "gives every row the same answer" in baseline.verdict
        or "give every row the same answer" in baseline.verdict
    )


@pytest.mark.parametrize("metric", compared(3))
@pytest.mark.parametrize(
    ("y", "right"),
    [([0, 1] * 10, [1] * 20), ([0, 1] * 10, [0] * 20), ([0, 1], [1, 0]), ([0, 1, 2] * 5, [1] * 15)],
    ids=["perfect", "all wrong", "two rows", "three classes"],
)
def test_a_model_against_itself_is_never_different_and_never_certain(metric, y, right):
    classes = max(y) + 1
    found = compare(scored(y, right, classes=classes), scored(y, right, classes=classes), metric=metric)
    assert found.outcome == "identical answers"
    assert found.difference.value == 0
    assert found.difference.high - found.difference.low > 1e-6
    assert found.p_value == 1.0


@pytest.mark.parametrize("metric", ["accuracy", "f1", "mcc", "loss", "brier"])
def test_one_row_and_one_class_do_not_crash(metric):
    for y in ([0], [1], [1, 1, 1]):
        right = [1] * len(y)
        found = compare(scored(y, right, 0.9), scored(y, [0] * len(y), 0.8), metric=metric)
        assert found.difference.high > found.difference.low
        assert found.outcome == "cannot tell yet"


def test_permuting_the_rows_of_both_changes_nothing():
    random = np.random.default_rng(4)
    y, order = random.integers(0, 2, 200), random.permutation(200)
    right = [random.random(200) < share for share in (0.85, 0.8)]
    for metric in ("accuracy", "f1", "roc_auc"):
        found = compare(*(scored(y, r) for r in right), metric=metric)
        moved = compare(*(scored(y[order], r[order]) for r in right), metric=metric)
        assert moved.difference.value == pytest.approx(found.difference.value)
        assert (moved.difference.low, moved.difference.high) == pytest.approx(
            (found.difference.low, found.difference.high)
        )
        assert moved.p_value == pytest.approx(found.p_value)


# --- groups and weights ------------------------------------------------------------------------------


def test_groups_and_weights():
    y, random = np.arange(240) % 2, np.random.default_rng(5)
    customers = np.repeat(np.arange(40), 6)
    a, b = np.repeat(random.random(40) < 0.9, 6), np.repeat(random.random(40) < 0.7, 6)
    alone, grouped = (
        compare(scored(y, a), scored(y, b)),
        compare(scored(y, a), scored(y, b), groups=customers),
    )
    # Six equal rows a customer are worth one: sqrt(6) = 2.4 times wider
    ratio = (grouped.difference.high - grouped.difference.low) / (
        alone.difference.high - alone.difference.low
    )
    assert ratio == pytest.approx(math.sqrt(6), rel=0.2)
    assert grouped.p_value > alone.p_value
    w = random.uniform(0.5, 2, 240)
    weighted = compare(scored(y, a, sample_weight=w), scored(y, b, sample_weight=w))
    assert weighted.difference.value == pytest.approx((w @ a - w @ b) / w.sum())


@pytest.mark.parametrize("metric", ["f1", "mcc"])
def test_copies_in_a_group_are_worth_one_row(metric):
    # Each row six times, grouped: the difference, its interval and p are those of the rows taken once.
    random = np.random.default_rng(5)
    y = random.integers(0, 2, 120)
    a, b = random.random(120) < 0.9, random.random(120) < 0.75
    once = compare(scored(y, a), scored(y, b), metric=metric)
    six = [np.repeat(values, 6) for values in (y, a, b)]
    grouped = compare(
        scored(six[0], six[1]), scored(six[0], six[2]), metric=metric, groups=np.repeat(np.arange(120), 6)
    )
    assert grouped.difference.value == pytest.approx(once.difference.value)
    assert grouped.difference.low == pytest.approx(once.difference.low, abs=0.02)
    assert grouped.difference.high == pytest.approx(once.difference.high, abs=0.02)
    assert grouped.p_value == pytest.approx(once.p_value, abs=0.005)
    assert grouped.pairs[0].test.method == "approximate randomisation of groups, mid-p"


@pytest.mark.parametrize("metric", ["f1", "mcc"])
def test_a_row_of_weight_two_moves_a_comparison_like_two_rows(metric):
    random = np.random.default_rng(6)
    y, w = random.integers(0, 2, 200), random.integers(1, 4, 200)
    a, b = random.random(200) < 0.9, random.random(200) < 0.8
    weighted = compare(scored(y, a, sample_weight=w), scored(y, b, sample_weight=w), metric=metric)
    more = [np.repeat(values, w) for values in (y, a, b)]
    repeated = compare(scored(more[0], more[1]), scored(more[0], more[2]), metric=metric)
    assert weighted.difference.value == pytest.approx(repeated.difference.value)
    assert weighted.values == pytest.approx(repeated.values)
    # but copies of a row are no new rows
    assert (
        weighted.difference.high - weighted.difference.low
        > repeated.difference.high - repeated.difference.low
    )


@pytest.mark.parametrize("metric", ["accuracy", "f1", "loss", "roc_auc"])
@pytest.mark.parametrize("grouped", [False, True])
def test_rows_of_weight_0_are_as_rows_that_are_not_there(metric, grouped):
    random = np.random.default_rng(7)
    y, w = random.integers(0, 2, 80), np.where(np.arange(80) % 4 == 0, 0.0, 2.0)
    right = random.random((2, 80)) < [[0.9], [0.7]]
    more = {"n_resamples": 200, "groups": np.arange(80) // 5} if grouped else {"n_resamples": 200}
    ids = np.arange(100, 180)
    all_rows = compare(*(scored(y, r, sample_weight=w, ids=ids) for r in right), metric=metric, **more)
    if grouped:
        more["groups"] = more["groups"][w > 0]
    left = compare(*(scored(y[w > 0], r[w > 0], ids=ids[w > 0]) for r in right), metric=metric, **more)
    assert all_rows.n == left.n == 60
    assert all_rows.values == pytest.approx(left.values) and all_rows.p_value == pytest.approx(left.p_value)
    assert all_rows.difference.low == pytest.approx(left.difference.low)
    assert all_rows.difference.method == left.difference.method and all_rows.notes == left.notes


def test_answers_to_rows_of_weight_0_decide_nothing():
    y, w = np.arange(20) % 2, np.where(np.arange(20) < 2, 0.0, 1.0)
    a, b = (scored(y, right, sample_weight=w) for right in (np.arange(20) > 3, np.arange(20) > 3))
    assert compare(a, b).outcome == "identical answers"
    other = scored(y, np.isin(np.arange(20), [2, 3], invert=True), sample_weight=w)  # rows 0 and 1 differ
    assert compare(a, other).outcome == "identical answers"
    assert "paired by their order" in " ".join(compare(a, other).notes)  # the other rows have no names
    with pytest.raises(ValueError, match="their row weights differ \\(first in row 1\\)"):
        compare(a, scored(y, y == y, sample_weight=np.where(np.arange(20) == 0, 0.0, 1.0)))


def test_rows_that_are_each_a_group_are_plain_rows():
    y, random = np.arange(60) % 2, np.random.default_rng(8)
    a, b = (scored(y, random.random(60) < share) for share in (0.9, 0.7))
    assert compare(a, b, groups=np.arange(60)[::-1]).pairs == compare(a, b).pairs


# --- which row is which ------------------------------------------------------------------------------


def test_different_rows_are_refused():
    y = np.arange(50) % 2
    a = scored(y, y == y, ids=[f"r{i}" for i in range(50)])
    # the same ids in another order are paired by them; here rows r0 and r1 then have each other's label
    other = scored(y, y == y, ids=[f"r{i}" for i in [1, 0, *range(2, 50)]])
    with pytest.raises(ValueError, match=r"row 0 has label 'c0' in A and 'c1' in B\."):
        compare(a, other)
    with pytest.raises(
        ValueError, match=r"row 0 has id 'r0' in A and 's0' in B\. Evaluate both on the same test rows\.$"
    ):
        compare(a, scored(y, y == y, ids=[f"s{i}" for i in range(50)]))
    with pytest.raises(ValueError, match=r"they have 50 and 49 rows\."):
        compare(a, scored(y[:49], y[:49] == y[:49]))
    with pytest.raises(ValueError, match=r"row 0 has label 'c0' in A and 'c1' in B\."):
        compare(scored(y, y == y), scored(1 - y, y == y))
    with pytest.raises(ValueError, match=r"their classes are \('c0', 'c1'\) and \('c0', 'c1', 'c2'\)\."):
        compare(a, scored(y, y == y, classes=3))
    texts = [f"text {i}" for i in range(50)]
    with pytest.raises(ValueError, match=r"row 3 has text_hash "):
        compare(scored(y, y == y, texts=texts), scored(y, y == y, texts=[*texts[:3], "else", *texts[4:]]))


def test_rows_paired_by_their_order_alone_are_said_to_be():
    y = np.arange(40) % 2
    texts, ids = [f"text {i}" for i in range(40)], [f"r{i}" for i in range(40)]

    def noted(first, second):
        found = compare(scored(y, y == y, **first), scored(y, y == 1, **second))
        return any("nothing but their labels says which row is which" in note for note in found.notes)

    assert noted({}, {}) and noted({"texts": texts}, {}) and noted({"ids": range(40)}, {})
    assert not noted({"texts": texts}, {"texts": texts}) and not noted({"ids": ids}, {"ids": ids})
    assert not noted({"ids": range(40)}, {"ids": range(40)})


def test_rows_of_numbers_are_told_apart_by_what_they_hold():
    class Model:
        labels = ("a", "b")

        def predict(self, x):
            return np.column_stack([1 - x[:, 0], x[:, 0]])

    x, y = np.random.default_rng(9).random((40, 3)), np.zeros(40, int)
    a, b = evaluate(Model(), x, y), evaluate(Model(), x[::-1], y)
    assert not any("which row is which" in note for note in compare(a, a).notes)
    with pytest.raises(
        ValueError, match=r"^A and B were not scored on the same rows in the same order: what the"
    ):
        compare(a, b)


def test_bad_arguments_are_one_sentence():
    y = np.arange(20) % 2
    a = scored(y, y == y)
    with pytest.raises(ValueError, match=r"^`evaluations` must be at least two to compare; got 1\.$"):
        compare(a)
    with pytest.raises(
        ValueError, match=r"^`metric` must be one of .* got 'acuracy'\. Did you mean 'accuracy'\?$"
    ):
        compare(a, a, metric="acuracy")
    with pytest.raises(
        ValueError, match=r"^`names` must be 2 different names, one for each evaluation; got "
    ):
        compare(a, a, names=["x", "x"])
    with pytest.raises(ValueError, match=r"^`matters` must be a finite number at least 0; got -1\.$"):
        compare(a, a, matters=-1)
    for missing in (None, float("nan"), ""):
        with pytest.raises(ValueError, match=r"^`groups` has no group in row 3; give every row one\.$"):
            compare(a, a, groups=[1, 1, 2, missing, *range(16)])
    with pytest.raises(ValueError, match=r"^`groups` puts every row in one group; at least two groups are"):
        compare(a, a, groups=[1] * 20)


@pytest.mark.parametrize("metric", ["roc_auc", "pr_auc"])
@pytest.mark.parametrize("average", ["auto", "macro", "micro"])
def test_rankings_are_compared_as_the_evaluations_print_them(metric, average):
    random = np.random.default_rng(5)
    y = random.integers(0, 2, 120)
    a, b = (
        evaluate_predictions(y, np.clip(0.2 * y + 0.8 * random.random(120), 0, 1), average=average)
        for _ in range(2)
    )
    pair = compare(a, b, metric=metric).pairs[0]
    assert pair.values == pytest.approx((a[metric].value, b[metric].value), abs=1e-6)
