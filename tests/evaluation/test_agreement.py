"""Agreement of judges, against the values that are printed where the measures were described."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

import finetune_eval as fe
from finetune_eval.evaluation.agreement import agreement

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", example D: four observers, twelve units.
FOUR_OBSERVERS = {
    "A": "1 2 3 3 2 1 4 1 2 . . .",
    "B": "1 2 3 3 2 2 4 1 2 5 . 3",
    "C": ". 3 3 3 2 3 4 2 2 5 1 .",
    "D": "1 2 3 3 2 4 4 1 2 5 1 .",
}


def table(lines):
    return {name: [None if word == "." else word for word in line.split()] for name, line in lines.items()}


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorffs_four_observers(level, alpha):
    found = agreement(table(FOUR_OBSERVERS), labels=["1", "2", "3", "4", "5"], level=level)
    assert found.alpha.value == pytest.approx(alpha, abs=5e-4)
    assert (found.n, found.left_out, found.judges) == (11, 1, ("A", "B", "C", "D"))


@pytest.mark.parametrize(
    ("first", "second", "alpha"),
    [
        ("a a b b d c c c e d d a", "b a b b b c c c e d d d", 0.692),  # the same paper, example B
        ("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0", 0.095),  # and example A
    ],
)
def test_alpha_of_krippendorffs_two_observers(first, second, alpha):
    found = agreement(table({"Meg": first, "Owen": second}))
    assert found.alpha.value == pytest.approx(alpha, abs=5e-4)
    assert found.kappa.value == pytest.approx(cohen_kappa_score(first.split(), second.split()))


def test_kappa_is_scikit_learns_mean_over_the_pairs():
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 80)
    said = np.where(random.random((80, 3)) < 0.8, truth[:, None], random.integers(0, 3, (80, 3)))
    found = agreement(pd.DataFrame(said, columns=["x", "y", "z"]))
    pairs = [(0, 1), (0, 2), (1, 2)]
    each = [cohen_kappa_score(said[:, a], said[:, b]) for a, b in pairs]
    assert [pair.kappa.value for pair in found.pairs] == pytest.approx(each)
    assert found.kappa.value == pytest.approx(np.mean(each))
    same = np.mean([(said[:, a] == said[:, b]).mean() for a, b in pairs])
    assert found.agreement.value == pytest.approx(same)


def test_the_ceiling_is_reached_by_what_it_bounds():
    # Every item has a label that 4 of 5 of all judges would give: two agree with .8^2 + .2^2 = .68.
    random = np.random.default_rng(1)
    found = agreement((random.random((20_000, 2)) < 0.8).astype(int), labels=["0", "1"])
    assert found.agreement.value == pytest.approx(0.68, abs=0.01)
    assert found.ceiling.value == pytest.approx(0.8, abs=0.01)
    # three labels given with .6, .2, .2: .44, and the largest is .6
    three = random.choice(3, (20_000, 2), p=[0.6, 0.2, 0.2])
    assert agreement(three).ceiling.value == pytest.approx(0.6, abs=0.01)
    # judges at chance level: a half
    assert agreement(random.integers(0, 2, (20_000, 2))).ceiling.value == pytest.approx(0.5, abs=0.06)


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 4))
def test_no_model_exceeds_the_ceiling(seed, classes, items):
    """For any chances that the judges give each label, the best answers are right at most so often."""
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.full(classes, 0.5), items)
    agree, best = (p**2).sum(axis=1).mean(), p.max(axis=1).mean()
    assert best <= (1 + np.sqrt(max((classes - 1) * (classes * agree - 1), 0))) / classes + 1e-9


def test_perfect_agreement_has_an_interval_of_some_width():
    found = agreement({"a": [0, 1] * 10, "b": [0, 1] * 10, "c": [0, 1] * 10})
    for one in (found.agreement, found.alpha, found.kappa, found.ceiling):
        assert one.value == 1 == one.high and one.low < 0.95
    assert "only 0 items disagree" in found.alpha.method


def test_a_single_label_tells_nothing():
    found = agreement([["x", "x"], ["x", "x"]], labels=["x", "y"])
    assert (found.alpha.value, found.alpha.low, found.alpha.high) == (0, -1, 1)
    assert found.alpha.method == "undefined: only one label occurs"


def test_order_of_judges_and_items_does_not_matter():
    columns = table(FOUR_OBSERVERS)
    found = agreement(columns)
    again = agreement({name: columns[name][::-1] for name in "DBCA"})
    assert again.alpha.value == pytest.approx(found.alpha.value)
    assert again.kappa.value == pytest.approx(found.kappa.value)


def test_missing_labels_in_every_form_and_numbers_that_are_names():
    text = agreement({"a": ["1", "2", "", "2"], "b": ["1", "2", "1", None]}, labels=["1", "2"])
    number = agreement({"a": [1, 2, np.nan, 2], "b": [1.0, 2.0, 1.0, float("nan")]}, labels=[1, 2])
    assert text.alpha == number.alpha and (text.n, text.left_out) == (2, 2)


def test_what_is_printed():
    text = str(agreement(table(FOUR_OBSERVERS), labels=["1", "2", "3", "4", "5"]))
    assert text.startswith("4 judges, 11 items with two labels or more (1 other item with fewer)\n")
    assert "alpha of Krippendorff (nominal)   0.743 [" in text and "kappa (mean of 6 pairs)" in text
    assert "another judge is right on 0.818 of the items" in " ".join(text.split())
    assert "<pre>4 judges" in fe.agreement(table(FOUR_OBSERVERS))._repr_html_()


@pytest.mark.parametrize(
    ("ratings", "options", "kind", "message"),
    [
        ({"a": ["x", "y"]}, {}, ValueError, "a column for each of at least two judges; got 1"),
        ([["x", None], [None, "y"]], {}, ValueError, "has no item with two labels"),
        ([[None, None]], {}, ValueError, "has no label at all"),
        ([["x", "y"], ["x", "z"]], {"labels": ["x", "y"]}, ValueError, "unknown label 'z'"),
        ({"a": ["x"], "b": ["x", "y"]}, {}, ValueError, r"as many items for each judge; got \[1, 2\]"),
        ([["x", "y"]], {"level": "ordinal"}, ValueError, "`level` 'ordinal' needs `labels` in their order"),
        ([["x", "y"]], {"level": "interval"}, ValueError, "needs labels that are numbers"),
        ([["x", "y"]], {"level": "ratio"}, ValueError, "`level` must be one of"),
        (["x", "y"], {}, TypeError, r"a table of shape \(items, judges\)"),
    ],
)
def test_ratings_that_do_not_fit(ratings, options, kind, message):
    with pytest.raises(kind, match=message):
        agreement(ratings, **options)
