"""Intervals of functions of the confusion matrix, against formulas and draws of rows."""

import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.evaluation.cells import cells_of
from finetune_eval.evaluation.metrics import from_confusion
from finetune_eval.evaluation.tables import f1_interval, table_interval


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
    assert found.method == ("wider of bootstrap and Dirichlet posterior (unreliable: a class has 3 rows)")
    assert found.high - found.low >= 0.95 * (plain.high - plain.low)
    assert "unreliable: a class has 0 rows" in f1_interval([[9, 0, 1], [1, 8, 0], [0, 0, 0]]).method


@pytest.mark.parametrize(("wrong", "said"), [(4, "only 4 rows wrong"), (12, None)])
def test_few_errors_widen_the_interval_and_say_so(wrong, said):
    table = [[100 - wrong // 2, wrong // 2], [wrong // 2, 100 - wrong // 2]]
    found, plain = (f1_interval(table, average="macro", method=m) for m in ("bootstrap", "percentile"))
    if said is None:
        assert found.method == "bias-corrected bootstrap of confusion matrix"
    else:
        assert found.method == f"wider of bootstrap and Dirichlet posterior ({said})"
        assert found.high - found.low > plain.high - plain.low


def interval_of(name, table, **options):
    options = {"bounds": (-1.0, 1.0), "confidence": 0.95} | options
    return table_interval(lambda counts: from_confusion(name, counts, "macro"), cells_of(table), **options)


@pytest.mark.parametrize("name", ["mcc", "kappa", "f1"])
def test_a_class_with_rows_and_without_a_hit_may_still_have_been_hit(name):
    # Two of 350 rows are predicted as the class and eleven are of it, none both. Clopper and Pearson leave
    # room for a recall of 1 - .025**(1/11) = .285: with one or two hits more, macro-F1 would be
    # (0.98 + 2 / 15) / 2 = .56 or more, and MCC and kappa above .1.
    found = interval_of(name, [[337, 2], [11, 0]])
    assert found.high > (0.55 if name == "f1" else 0.1)
    assert found.method == "wider of bootstrap and Dirichlet posterior (no row of a class right)"


@pytest.mark.parametrize(
    "table", [[[138, 2], [1, 9]], [[98, 1], [1, 100]], [[493, 2], [2, 3]], [[5, 1], [0, 4]]]
)
def test_what_was_seen_is_not_ruled_out(table):
    for name in ("mcc", "kappa", "f1"):
        lowest = 0.0 if name == "f1" else -1.0
        found = interval_of(name, table, bounds=(lowest, 1.0))
        assert found.value < found.high < 1  # an error was seen
        swapped = interval_of(name, np.array(table)[:, ::-1], bounds=(lowest, 1.0))
        assert lowest < swapped.low < swapped.value  # a hit was seen


def test_the_same_seed_gives_the_same_interval():
    table = [[50, 6, 2], [5, 60, 9], [3, 4, 40]]
    assert f1_interval(table, seed=3) == f1_interval(table, seed=3) != f1_interval(table, seed=4)


def test_twice_the_rows_give_a_narrower_interval_of_the_same_value():
    once, twice = (f1_interval(times * np.array([[50, 6], [9, 40]]), average="macro") for times in (1, 2))
    assert once.value == pytest.approx(twice.value)
    ratio = (once.high - once.low) / (twice.high - twice.low)
    assert ratio == pytest.approx(math.sqrt(2), rel=0.1)


def test_many_classes_cost_little():
    # It took seconds when every one of 40,000 cells was drawn; the bound is for slow machines.
    table = np.eye(200, dtype=int)
    start = time.process_time()
    found = f1_interval(table, average="weighted")
    assert time.process_time() - start < 3
    assert found.value == 1 and found.low < 1
