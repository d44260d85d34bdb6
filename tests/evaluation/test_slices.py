"""Weak spots, against planted ones, Fisher's test and confident learning by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, fisher_exact, hypergeom

from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.proportions import wilson
from finetune_eval.evaluation.slices import (
    _fisher_lower,
    confused_pairs,
    find_slices,
    possible_label_errors,
    worst_rows,
)


def mid_p(hits, n, other_hits, other_n):
    """Fisher's test, one-sided, by scipy: half of what is as extreme as what was seen counts."""
    exact = fisher_exact([[hits, n - hits], [other_hits, other_n - other_hits]], alternative="less").pvalue
    return exact - hypergeom.pmf(hits, n + other_n, hits + other_hits, n) / 2


def planted(n=2000, seed=0):
    """Rows right with probability .9; those with the word "not" or from "forum" with .6."""
    random = np.random.default_rng(seed)
    words = np.array(["film", "plot", "actor", "scene", "music", "end"])
    texts = [" ".join(random.choice(words, random.integers(1, 12))) for _ in range(n)]
    has_not = random.random(n) < 0.1
    # "not" takes the place of a word, so that it says nothing about the length
    texts = [
        " ".join(["Not", *text.split()[1:]]) if flag else text
        for text, flag in zip(texts, has_not, strict=True)
    ]
    source = random.choice(["press", "blog", "forum"], n, p=[0.5, 0.4, 0.1])
    correct = random.random(n) < np.where(has_not | (source == "forum"), 0.6, 0.9)
    return correct, texts, pd.DataFrame({"source": source, "stars": random.normal(size=n)})


def test_planted_weak_slices_are_found_and_no_others():
    correct, texts, metadata = planted()
    slices = find_slices(correct, texts=texts, metadata=metadata)
    assert {(one.column, one.value) for one in slices if one.weak} == {("word", "not"), ("source", "forum")}
    of_column = {
        column: [s for s in slices if s.column == column] for column in ("length", "source", "stars")
    }
    assert [len(of_column[name]) for name in ("source", "stars")] == [3, 4]
    for column in of_column.values():
        assert sum(one.n for one in column) == 2000
    assert [one.q_value for one in slices] == sorted(one.q_value for one in slices)


def test_weights_of_one_are_no_weights_and_twice_the_weight_changes_nothing():
    correct, texts, metadata = planted()
    plain = find_slices(correct, texts=texts, metadata=metadata)
    for weight in (1.0, 0.1):
        weighted = find_slices(correct, texts=texts, metadata=metadata, sample_weight=np.full(2000, weight))
        for one, other in zip(plain, weighted, strict=True):
            assert (one.column, one.value, one.n, one.small) == (
                other.column,
                other.value,
                other.n,
                other.small,
            )
            assert (one.accuracy.low, one.accuracy.high, one.rest, one.p_value) == pytest.approx(
                (other.accuracy.low, other.accuracy.high, other.rest, other.p_value), abs=1e-9
            )


def test_numbers_of_a_weighted_slice():
    # Slice "y": weights 1 x 20 (16 right) and 4 x 5 (2 right). Weight 40, of right rows 16 + 8 = 24: 0.6.
    # Kish: 40**2 / (20 + 80) = 16 effective rows. Fisher of them: 0.6 * 16 = 9.6, up to 10 right of 16.
    # The rest: weights 2 x 50, 40 right: 50 effective rows, 40 right.
    correct = [True] * 16 + [False] * 4 + [True] * 2 + [False] * 3 + [True] * 40 + [False] * 10
    where, weights = ["y"] * 25 + ["x"] * 50, [1.0] * 20 + [4.0] * 5 + [2.0] * 50
    slices = {
        one.value: one for one in find_slices(correct, metadata={"where": where}, sample_weight=weights)
    }
    one = slices["y"]
    assert (one.n, one.accuracy.value, one.rest, one.small) == (25, 0.6, 0.8, True)
    assert one.accuracy.method == "Wilson on 16 effective rows" and not one.weak
    assert one.p_value == pytest.approx(mid_p(10, 16, 40, 50))
    # Wilson by hand, z = 1.959964: (9.6 + z**2 / 2 -+ z sqrt(9.6 * .4 + z**2 / 4)) / (16 + z**2)
    assert one.accuracy.low == pytest.approx((11.520729 - 1.959964 * 4.800365**0.5) / 19.841459, abs=1e-5)
    assert one.accuracy.high == pytest.approx((11.520729 + 1.959964 * 4.800365**0.5) / 19.841459, abs=1e-5)


def test_weighted_slices_raise_no_more_false_alarms_than_they_say():
    random = np.random.default_rng(1)
    p = []
    for _ in range(300):
        correct, weights = random.random(400) < 0.8, random.lognormal(0, 1, 400)
        where = np.where(random.random(400) < 0.3, "x", "y")
        p += [one.p_value for one in find_slices(correct, metadata={"where": where}, sample_weight=weights)]
    # One-sided tests at 5 % of 600 slices; the noise of a share of .05 of 300 pairs is .0126.
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2 * 0.0126


@pytest.mark.parametrize(
    ("weak", "plain", "word"),
    [
        ("यह फिल्म अच्छी नहीं है", "यह फिल्म बहुत अच्छी है", "नहीं"),
        ("die na\u0308he hier", "die ferne hier", "nähe"),
        ("电影不好", "电影很好", "不好"),
        ("it is so so \U0001f621", "it is so so", "\U0001f621"),
    ],
)
def test_weak_words_are_whole_in_every_script(weak, plain, word):
    texts = [weak if i % 4 == 0 else plain for i in range(200)]
    right = [i % 4 != 0 or i % 8 == 0 for i in range(200)]
    assert word in [one.value for one in find_slices(right, texts=texts) if one.column == "word" and one.weak]


def test_numbers_of_a_slice():
    correct = np.array([True] * 70 + [False] * 30)
    where = ["x"] * 50 + ["y"] * 20 + ["x"] * 10 + ["y"] * 20
    slices = {one.value: one for one in find_slices(correct, metadata={"where": where})}
    one = slices["y"]  # 20 right of 40; the rest: 50 of 60
    assert (one.n, one.accuracy.value, one.rest) == (40, 0.5, 50 / 60)
    assert slices["x"].accuracy == wilson(50, 60)
    p = {"y": mid_p(20, 40, 50, 60), "x": mid_p(50, 60, 20, 40)}
    q = dict(zip(p, false_discovery_control(list(p.values())), strict=True))
    for value in p:
        assert slices[value].p_value == pytest.approx(p[value])
        assert slices[value].q_value == pytest.approx(q[value])
    assert not one.small and str(one).startswith("where: y   ")


def test_no_false_alarms_on_even_rows():
    weak = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        metadata = {"a": random.integers(0, 5, 300).astype(str), "b": random.normal(size=300)}
        weak += any(one.weak for one in find_slices(random.random(300) < 0.8, metadata=metadata))
    assert weak <= 7  # at a false discovery rate of 5 %: at most 2 of 40 expected, plus three standard errors


def test_small_and_missing_values():
    ages = np.random.default_rng(0).integers(20, 50, 60)
    metadata = {"kind": ["a"] * 10 + ["b"] * 50 + [None] * 10, "age": [np.nan] * 10 + ages.tolist()}
    slices = find_slices([True, False] * 35, metadata=metadata)
    assert {one.value: one.small for one in slices if one.column == "kind"}["a"] is True
    assert {one.value: one.small for one in slices if one.column == "kind"}["b"] is False
    assert sum(one.n for one in slices if one.column == "age") == 70
    assert {one.n for one in slices if one.value == "(missing)"} == {10}
    assert find_slices([True]) == () and find_slices([True, False], metadata={"same": [1, 1]}) == ()
    with pytest.raises(ValueError, match="`metadata` must have one row for each of the 2 rows; got 1."):
        find_slices([True, False], metadata={"a": [1]})


def test_evaluation_carries_slices_and_the_text_shows_the_weak_ones(tmp_path):
    correct, texts, metadata = planted()
    result = evaluate_predictions(
        np.ones(2000), np.where(correct, 0.9, 0.1), texts=texts, metadata=metadata, labels=["no", "yes"]
    )
    assert result.slices == find_slices(correct, texts=texts, metadata=metadata)
    assert "word: not" in str(result) and "word: film" not in str(result)
    assert type(result).load(result.save(tmp_path)) == result


def test_worst_rows_come_by_loss():
    result = evaluate_predictions([1, 1, 0, 0], [0.1, 0.9, 0.8, 0.3], texts=list("abcd"))
    worst = worst_rows(result, n=2)
    assert worst["text"].tolist() == ["a", "c"]  # -ln .1 = 2.30, -ln .2 = 1.61, -ln .7, -ln .9
    assert result.worst_rows["text"].tolist() == ["a", "c", "d", "b"]


def test_confused_pairs():
    p = np.eye(3)[[0, 1, 1, 1, 2, 0, 0]]
    pairs = confused_pairs(evaluate_predictions([0, 0, 0, 1, 2, 2, 1], p, labels=["a", "b", "c"]))
    assert [(one.label, one.prediction, one.n) for one in pairs] == [
        ("a", "b", 2),
        ("b", "a", 1),
        ("c", "a", 1),
    ]
    assert pairs[0].share == wilson(2, 3)


def test_possible_label_errors_by_hand():
    # Class a: mean p_a = (.9 + .8 + .1) / 3 = .6; class b: mean p_b = (.9 + .7 + .35) / 3 = .65.
    # Row 2 (a) has p_b = .9 >= .65: listed. Row 5 (b) has p_a = .65 >= .6: listed. Margins -.8, -.3.
    p_b = [0.1, 0.2, 0.9, 0.9, 0.7, 0.35]
    result = evaluate_predictions([0, 0, 0, 1, 1, 1], p_b, labels=["a", "b"], texts=list("uvwxyz"))
    found = possible_label_errors(result)
    assert found["id"].tolist() == [2, 5]
    assert found["suggested"].tolist() == ["b", "a"] and found["text"].tolist() == ["w", "z"]
    assert found["p_label"].tolist() == pytest.approx([0.1, 0.35])


def test_no_label_error_is_suggested_that_is_less_probable_than_the_label():
    # Class c: mean p_c = .3. Rows 0 and 1 are confidently c (.35 and .3), but a is as probable or more so.
    p = [[0.6, 0.05, 0.35], [0.4, 0.2, 0.4], [0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.05, 0.65, 0.3]]
    result = evaluate_predictions([0, 0, 2, 1, 1], p, labels=["a", "b", "c"])
    # Row 2 (c) has p_b = .6 < mean p_b of the b rows (.725): confidently of no class.
    assert possible_label_errors(result).empty


def test_a_class_of_probability_zero_is_never_suggested():
    # Nobody gives class c any probability: its mean is 0, and every probability reaches that.
    p = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.1, 0.9, 0.0], [0.6, 0.4, 0.0]])
    found = possible_label_errors(evaluate_predictions([0, 0, 1, 2], p, labels=["a", "b", "c"]))
    assert found.empty


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(2, 60))
def test_suggested_classes_are_more_probable_than_the_label(seed, classes, n):
    random = np.random.default_rng(seed)
    p = random.multinomial(20, random.dirichlet(np.full(classes, 0.3), n)) / 20  # many ties, many zeros
    result = evaluate_predictions(random.integers(0, classes, n), p, baselines=False)
    found = possible_label_errors(result, n=n)
    assert (found["p_suggested"] > found["p_label"]).all() and (found["p_suggested"] > 0).all()


def test_planted_label_errors_are_found():
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 600)
    p = np.full((600, 3), 0.05)
    p[np.arange(600), y] = 0.9
    given = y.copy()
    flipped = random.choice(600, 30, replace=False)
    given[flipped] = (given[flipped] + 1) % 3
    found = possible_label_errors(evaluate_predictions(given, p), n=100)
    assert set(found["id"]) == set(flipped.tolist())
    assert len(possible_label_errors(evaluate_predictions(y, p))) == 0


def test_the_p_value_is_the_hypergeometric_distributions():
    random = np.random.default_rng(0)
    total, right = 20_000, 15_000
    n = random.integers(1, 19_999, 200)
    hits = random.hypergeometric(right, total - right, n)
    ours = _fisher_lower(hits, n, right - hits, total - n)
    expected = hypergeom.cdf(hits, total, right, n) - hypergeom.pmf(hits, total, right, n) / 2
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-12)
