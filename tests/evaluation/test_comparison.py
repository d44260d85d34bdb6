"""Paired tests against scipy and arithmetic; verdicts; a simulation of the type-I error."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval import evaluate_predictions
from finetune_eval.evaluation.comparison import (
    benjamini_hochberg,
    cochran_q,
    compare,
    compare_totals,
    holm,
    mcnemar,
    mcnemar_power,
    mcnemar_sample_size,
    minimum_detectable_difference,
    paired_bootstrap,
    planned_difference,
    randomisation_test,
)
from finetune_eval.evaluation.metrics import METRICS, confusion_matrix, from_confusion

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
    assert found.method == "sign-flip randomisation, normal limit"


def test_paired_bootstrap_equals_drawing_rows():
    random = np.random.default_rng(1)
    y = random.integers(0, 3, 300)
    a, b = (np.where(random.random(300) < share, y, random.integers(0, 3, 300)) for share in (0.8, 0.7))
    for metric in ("f1", "mcc", "accuracy"):
        found = paired_bootstrap(y, a, b, metric=metric, n_resamples=5000)
        draws = []
        for _ in range(1500):
            row = random.integers(0, 300, 300)
            of_a, of_b = (confusion_matrix(y[row], p[row], 3) for p in (a, b))
            draws.append(float(from_confusion(metric, of_a, "macro") - from_confusion(metric, of_b, "macro")))
        low, high = np.quantile(draws, [0.025, 0.975])
        # Both quantiles carry Monte-Carlo noise of some 3 % of the width.
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.1 * (high - low))
        whole = [confusion_matrix(y, p, 3) for p in (a, b)]
        assert found.value == pytest.approx(
            float(from_confusion(metric, whole[0], "macro") - from_confusion(metric, whole[1], "macro"))
        )


@pytest.mark.parametrize("metric", ["f1", "mcc", "kappa", "balanced_accuracy", "accuracy"])
def test_a_paired_bootstrap_of_equal_predictions_has_width(metric):
    y = np.arange(60) % 3
    found = paired_bootstrap(y, y, y, metric=metric)
    assert found.value == 0 and found.low < -1e-4 and found.high > 1e-4
    assert found.method == "wider of paired bootstrap and Dirichlet posterior (resamples do not vary)"


def test_holm_by_arithmetic():
    # Sorted .005, .01, .03, .04: times 4, 3, 2, 1 = .02, .03, .06, .04, never falling: .02, .03, .06, .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_benjamini_hochberg_equals_scipy(p):
    assert benjamini_hochberg(p) == pytest.approx(scipy.stats.false_discovery_control(p))
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


def test_power_is_what_a_simulation_of_the_test_finds():
    random = np.random.default_rng(2)
    for only_a, only_b, n in ((0.12, 0.05, 300), (0.25, 0.15, 200)):
        cells = random.multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=3000)
        share = np.mean([mcnemar(int(a), int(b), method="chi2").p_value <= 0.05 for a, b, _ in cells])
        # 3,000 runs: standard deviation .009; Connor's approximation is good to about a point here.
        assert mcnemar_power(only_a, only_b, n) == pytest.approx(share, abs=0.035)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("a", "b"), [(0.1, 0.05), (0.45, 0.05), (0.02, 0.0)])
def test_sample_size_power_and_detectable_difference_agree(a, b, sides):
    n = mcnemar_sample_size(a, b, power=0.8, sides=sides)
    assert mcnemar_power(a, b, n, sides=sides) >= 0.8 - 1e-12
    if n > 2:
        assert mcnemar_power(a, b, n - 1, sides=sides) < 0.8
    found = minimum_detectable_difference(a + b, n, power=0.8, sides=sides)
    assert found <= abs(a - b) + 1e-9
    assert found == pytest.approx(abs(a - b), rel=0.05)


def test_the_detectable_difference_of_few_rows_is_everything():
    assert minimum_detectable_difference(0.5, 1) == 1.0


def test_a_difference_needs_at_least_as_much_disagreement():
    # Models that agreed on all 200 rows: a difference d takes disagreement d, and Connor's formula at 80 %
    # power is 200 d**2 = (1.95996 sqrt(d) + .84162 sqrt(d - d**2))**2.
    found = minimum_detectable_difference(0.0, 200)
    right = (1.95996 * math.sqrt(found) + 0.84162 * math.sqrt(found - found**2)) ** 2
    assert 200 * found**2 == pytest.approx(right, rel=1e-4)
    assert 0.03 < found < 0.05


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


def test_better_and_worse():
    a, b = two_models(200, 170, 10, 0)
    found = compare(a, b)
    assert (found.outcome, compare(b, a).outcome) == ("better", "worse")
    assert found.difference.value == pytest.approx(0.05)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.018, 0.087), abs=5e-4)
    # Ten rows, all one way: mid-p 2 * (1/2) * (1/2)**10 = .00098
    assert found.p_value == pytest.approx(0.5**10)
    assert found.verdict == (
        "A is better than B: accuracy 0.900 against 0.850, +5.0 points [+1.8, +8.7] on 200 rows, p = 0.001. "
        f"Of true differences of {100 * found.detectable:.1f} points, tests on 200 rows find 4 in 5; smaller "
        "ones are found less often."
    )
    # 5 % of rows differ: the least difference is the one mcnemar_power gives 80 % of
    assert found.detectable == pytest.approx(minimum_detectable_difference(0.05, 200))


def test_underpowered_and_no_difference_detected():
    small, large = compare(*two_models(200, 150, 20, 18)), compare(*two_models(20_000, 17_000, 420, 400))
    assert small.outcome == "underpowered"
    assert small.verdict.startswith(
        "Underpowered, no difference detected between A and B: accuracy 0.850 against 0.840"
    )
    assert small.verdict.endswith(f"differences under {100 * small.detectable:.1f} points could be missed.")
    assert large.outcome == "no difference detected"
    assert large.verdict.startswith("No difference detected between A and B: ")
    assert compare(*two_models(200, 150, 20, 18), matters=0.2).outcome == "no difference detected"


def test_a_small_p_is_not_enough_where_the_interval_holds_zero():
    # 12 against 4 of 100 rows: mid-p 2 (P(X <= 3) + P(X = 4) / 2) of 16 coin flips = .0490
    found = compare(*two_models(100, 80, 12, 4))
    assert found.p_value == pytest.approx(2 * (697 + 1820 / 2) / 2**16)
    assert found.p_value < 0.05 and found.difference.low < 0 < found.difference.high
    assert found.outcome == "underpowered"


def test_holm_adjusts_every_pair():
    # The pairs differ on 7, 12 and 5 rows, all one way: mid-p .5**7, .5**12, .5**5; Holm: times 2, 3 and 1
    y = np.arange(100) % 2
    found = compare(*(scored(y, np.arange(100) < right) for right in (92, 85, 80)))
    adjusted = [2 * 0.5**7, 3 * 0.5**12, 0.5**5]
    assert [pair.p_value for pair in found.pairs] == pytest.approx(adjusted, rel=1e-9)
    assert [pair.test.p_value for pair in found.pairs] == pytest.approx([0.5**7, 0.5**12, 0.5**5], rel=1e-9)


def test_loss_and_accuracy_disagree():
    # Accuracy .90 and .85 of 200 rows. Loss: a wrong row costs -ln(1 - c), a right one -ln c.
    y = np.arange(200) % 2
    a = scored(y, np.arange(200) < 180, confidence=0.9036)
    right = np.arange(200) < 170
    b = scored(y, right, confidence=np.where(right, 0.93, 0.61))
    assert (a.accuracy, b.accuracy) == (0.9, 0.85)
    assert a.loss == pytest.approx(-0.9 * math.log(0.9036) - 0.1 * math.log(1 - 0.9036))
    assert b.loss == pytest.approx(-0.85 * math.log(0.93) - 0.15 * math.log(0.39))
    assert b.loss < a.loss
    found = compare(a, b)
    (note,) = [note for note in found.notes if note.startswith("Loss and accuracy disagree")]
    assert "A has more rows right (0.900 against 0.850)" in note
    assert "B is better calibrated, or less over-confident where it is wrong" in note
    assert "The metric declared to decide is accuracy." in note
    assert found.outcome == "better"
    assert compare(a, b, metric="loss").difference.value == pytest.approx(a.loss - b.loss)
    assert not [n for n in compare(a, scored(y, right, confidence=0.7)).notes if "disagree" in n]


def test_totals_alone():
    found = compare_totals(180, 170, 200, loss_a=0.25, loss_b=0.20)
    assert found.both_wrong == (0, 20)
    # Exact McNemar of 30 against 20, and of 10 against 0 (2 / 2**10)
    assert found.p_values[0] == pytest.approx(scipy.stats.binomtest(20, 50).pvalue)
    assert found.p_values[0] == pytest.approx(0.203, abs=5e-4)
    assert found.p_values[20] == pytest.approx(2 / 2**10)
    assert found.significant_from == 15
    assert found.p_values[14] > 0.05 >= found.p_values[15]
    assert (found.differences[0].low, found.differences[0].high) == pytest.approx((-0.020, 0.120), abs=5e-4)
    assert (found.differences[1].low, found.differences[1].high) == pytest.approx((0.018, 0.087), abs=5e-4)
    assert found.verdict == (
        "These totals cannot tell whether the difference is more than chance: accuracy 0.900 against 0.850 "
        "on 200 rows; p may be anything from 0.002 to 0.203, and is at most 0.05 only if at least 15 rows "
        "are wrong in both."
    )
    assert any("B is better calibrated" in note for note in found.notes)
    assert max(map(len, str(found).splitlines())) <= 80


def test_totals_that_decide():
    assert compare_totals(100, 100, 200).verdict.startswith("A and B cannot be told apart: ")
    assert compare_totals(20, 180, 200).verdict.startswith("B is better than A: ")


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
        "new has the highest accuracy of 3 models on 300 rows and is better than old, other (Holm-adjusted)."
    )
    assert max(map(len, str(found).splitlines())) <= 80


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize("classes", [2, 3])
def test_every_metric_has_a_verdict_that_fits_the_screen(metric, classes):
    random = np.random.default_rng(3)
    y = np.arange(150) % classes
    a, b = (
        scored(y, random.random(150) < share, random.uniform(0.6, 0.99, 150), classes) for share in (0.9, 0.6)
    )
    found = compare(a, b, metric=metric)
    assert found.outcome == "better"
    assert compare(b, a, metric=metric).outcome == "worse"
    assert found.difference.low < found.difference.value < found.difference.high
    assert found.values[0] - found.values[1] == pytest.approx(found.difference.value)
    assert found.values[0] == pytest.approx(a.estimates[metric].value)
    assert max(map(len, str(found).splitlines())) <= 80


@pytest.mark.parametrize("metric", list(METRICS))
@pytest.mark.parametrize(
    ("y", "right"),
    [([0, 1] * 10, [1] * 20), ([0, 1] * 10, [0] * 20), ([0, 1], [1, 0]), ([0, 1, 2] * 5, [1] * 15)],
    ids=["perfect", "all wrong", "two rows", "three classes"],
)
def test_a_model_against_itself_is_never_different_and_never_certain(metric, y, right):
    classes = max(y) + 1
    found = compare(scored(y, right, classes=classes), scored(y, right, classes=classes), metric=metric)
    assert found.outcome in ("no difference detected", "underpowered")
    assert found.difference.value == 0
    assert found.difference.high - found.difference.low > 1e-6
    assert found.p_value == 1.0


@pytest.mark.parametrize("metric", ["accuracy", "f1", "mcc", "loss", "brier"])
def test_one_row_and_one_class_do_not_crash(metric):
    for y in ([0], [1], [1, 1, 1]):
        right = [1] * len(y)
        found = compare(scored(y, right, 0.9), scored(y, [0] * len(y), 0.8), metric=metric)
        assert found.difference.high > found.difference.low
        assert found.outcome == "underpowered" or len(y) == 3


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
    assert grouped.pairs[0].test.method == "approximate randomisation of groups"


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


def test_different_rows_are_refused():
    y = np.arange(50) % 2
    a = scored(y, y == y, ids=[f"r{i}" for i in range(50)])
    other = scored(y, y == y, ids=[f"r{i}" for i in [1, 0, *range(2, 50)]])
    with pytest.raises(
        ValueError,
        match=r"^A and B were not scored on the same rows in the same order: row 0 has id 'r0' in A and "
        r"'r1' in B\. The rows are the same, their order is not: sort both alike\.$",
    ):
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
    with pytest.raises(
        ValueError, match=r"^`p_only_a` and `p_only_b` must differ; both are 0\.1, and no number of rows"
    ):
        mcnemar_sample_size(0.1, 0.1)
    with pytest.raises(
        ValueError, match=r"^`p_only_a` and `p_only_b` must add up to at most 1; got 0\.7 and 0\.6\.$"
    ):
        mcnemar_power(0.7, 0.6, 10)
    with pytest.raises(ValueError, match=r"^`sides` must be 1 or 2; got 3\.$"):
        mcnemar_power(0.1, 0.2, 10, sides=3)
    with pytest.raises(ValueError, match=r"^`only_a` must be at least 0; got -1\.$"):
        mcnemar(-1, 3)
    with pytest.raises(ValueError, match=r"^`p_values` must be \(m,\) numbers from 0 to 1; got others\.$"):
        holm([0.1, 1.2])
    with pytest.raises(
        ValueError, match=r"^`correct` must hold 0 \(wrong\) and 1 \(right\); got other values\.$"
    ):
        cochran_q([[0, 2], [1, 1]])
    with pytest.raises(ValueError, match=r"^`right_a` must be at most `n`; got 7 of 5\.$"):
        compare_totals(7, 3, 5)
    with pytest.raises(ValueError, match=r"^`differences` must be finite numbers; row 1 is nan\.$"):
        randomisation_test([1.0, math.nan])


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


@pytest.mark.parametrize(("wrong", "n"), [(0, 200), (0, 1), (30, 200), (200, 200)])
def test_the_planned_difference_assumes_a_disagreement_that_can_be_said(wrong, n):
    disagreement, difference = planned_difference(1 - wrong / n, n)
    assert disagreement == pytest.approx(max(wrong, 1) / n)
    # n rows are what Connor's sample size asks for, to a row; 1 where even that would be missed
    apart = max(disagreement, difference)
    sides = (apart + difference) / 2, (apart - difference) / 2
    assert difference == 1.0 if n == 1 else abs(mcnemar_sample_size(*sides) - n) <= 1
    p = np.where(np.arange(n) < wrong, 0.9, 0.1)
    text = " ".join(str(evaluate_predictions(np.zeros(n, int), p, labels=["a", "b"])).split())
    if n == 1:
        assert (
            "No difference to another model, however large, would be found on this one row 4 times in 5."
            in text
        )
        return
    assert (
        f"about {100 * difference:.1f} points better or worse in accuracy for a comparison on these 200 rows"
        in text
    )
    said = {0: "0.5", 30: "15", 200: "100"}[wrong]
    assert f"if the two disagree on {said} % of the rows" in text


def test_no_difference_is_planned_where_rows_are_no_independent_equals():
    y, p = [0, 1] * 10, [0.2, 0.9] * 10
    assert "Another model" in str(evaluate_predictions(y, p))
    for keywords in ({"sample_weight": [1, 2] * 10}, {"groups": np.arange(20) // 2}):
        assert "Another model" not in str(evaluate_predictions(y, p, **keywords))
