"""Thresholds, against every threshold tried one by one with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.thresholds import choose_threshold

scored = st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1, width=32)), min_size=2, max_size=30).filter(
    lambda rows: len({y for y, _ in rows}) == 2
)


def decide(p, threshold):
    return (np.asarray(p) >= threshold).astype(int)


@settings(max_examples=60, deadline=None)
@given(scored, st.sampled_from(["f1", "accuracy", "balanced_accuracy", "cost"]))
def test_no_threshold_does_better(rows, goal):
    y, p = np.array([y for y, _ in rows]), np.array([p for _, p in rows], dtype=np.float32)

    def cost(y, decided):  # a false alarm costs 1, a miss 5
        return -(((decided == 1) & (y == 0)).sum() + 5 * ((decided == 0) & (y == 1)).sum()) / len(y)

    score = {
        "f1": lambda y, d: sk.f1_score(y, d, zero_division=0),
        "accuracy": sk.accuracy_score,
        "balanced_accuracy": sk.balanced_accuracy_score,
        "cost": cost,
    }[goal]
    costs = {"false_positive_cost": 1, "false_negative_cost": 5} if goal == "cost" else {}
    chosen = choose_threshold(y, p, goal=goal, **costs)
    tried = [
        score(y, decide(p, t)) for t in [*np.unique(p[(p > 0) & (p < 1)]), 1e-45, np.float32(1 - 2**-24)]
    ]
    decided = decide(p, chosen.value)
    assert score(y, decided) >= max(tried) - 1e-9
    assert 0 < chosen.value < 1
    assert chosen.f1 == pytest.approx(sk.f1_score(y, decided, zero_division=0))
    assert chosen.accuracy == pytest.approx(sk.accuracy_score(y, decided))
    # float32 and float64 probabilities are decided alike
    np.testing.assert_array_equal(decided, decide(p.astype(np.float64), chosen.value))
    if goal == "cost":
        assert chosen.cost == pytest.approx(-cost(y, decided))


@settings(max_examples=60, deadline=None)
@given(scored, st.floats(0.05, 1.0))
def test_bounds_are_kept_and_the_rest_is_best(rows, bound):
    y, p = np.array([y for y, _ in rows]), np.array([p for _, p in rows])
    for name, other in (("recall", sk.precision_score), ("precision", sk.recall_score)):
        bounded = {"recall": sk.recall_score, "precision": sk.precision_score}[name]
        options = [
            other(y, decide(p, t), zero_division=0)
            for t in np.unique(p)
            if 0 < t < 1 and bounded(y, decide(p, t), zero_division=0) >= bound
        ]
        try:
            chosen = choose_threshold(y, p, goal=f"{name}>={bound}")
        except ValueError as error:
            assert not options and "is reached by no threshold" in str(error)
            continue
        decided = decide(p, chosen.value)
        assert bounded(y, decided) >= bound - 1e-9
        assert other(y, decided) >= max(options, default=0) - 1e-9


def test_neighbouring_float32_probabilities_are_separated():
    low = np.float32(0.3)
    high = np.nextafter(low, np.float32(1))
    p = np.array([low, high], dtype=np.float32)
    assert decide(p, choose_threshold([0, 1], p).value).tolist() == [0, 1]


def test_by_hand():
    # Descending: .9 (1), .8 (1), .6 (0), .5 (1), .2 (0). F1 is 2/2.5 = .8 from .8 on, 6/7 = .857 from .5 on.
    chosen = choose_threshold([1, 1, 0, 1, 0], [0.9, 0.8, 0.6, 0.5, 0.2])
    assert (chosen.value, chosen.f1) == pytest.approx((0.35, 6 / 7))
    assert str(chosen).startswith(
        "threshold 0.35, chosen for f1 on 5 rows\n(there: precision 0.750, recall 1.000"
    )


def test_evaluate_uses_it_and_says_so():
    y, p = [1, 1, 0, 1, 0], [0.9, 0.8, 0.6, 0.5, 0.2]
    chosen = choose_threshold(y, p)
    other = evaluate_predictions([0, 1, 1], [0.1, 0.4, 0.9], labels=["ham", "spam"], threshold=chosen)
    assert other.threshold == chosen.value and other.accuracy == 1.0
    assert "'spam' is predicted from a probability of 0.35 on, chosen for f1 on 5 rows." in str(other)
    assert not any("optimistic" in line for line in other.warnings)
    same = evaluate_predictions(y, p, threshold=chosen)
    assert any(line.startswith("The threshold was chosen on these very rows") for line in same.warnings)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"goal": "F-1"},
            "`goal` must be one of 'f1', 'accuracy', 'balanced_accuracy', 'cost', 'recall>=0.9', "
            "'precision>=0.9'; got 'F-1'.",
        ),
        ({"goal": "recall>=90"}, "`goal` must ask for a share above 0 and at most 1; got 'recall>=90'."),
        ({"goal": "cost"}, "`goal` 'cost' needs `false_positive_cost` and `false_negative_cost`."),
        (
            {"goal": "precision>=0.9"},
            "`goal` 'precision>=0.9' is reached by no threshold; the highest precision on these rows is 0.5.",
        ),
        (
            {"goal": "f1", "false_positive_cost": 1},
            "`false_positive_cost` and `false_negative_cost` must be given together.",
        ),
    ],
)
def test_bad_goals(keywords, message):
    with pytest.raises(ValueError) as error:
        choose_threshold([0, 1], [0.9, 0.1], **keywords)
    assert str(error.value) == message


def test_one_class_and_three_classes_are_refused():
    with pytest.raises(ValueError, match="must have rows of both classes to choose a threshold; all 2 are 1"):
        choose_threshold([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="must be of two classes for a threshold; got 3 classes"):
        choose_threshold([1, 0], [[0.2, 0.3, 0.5]] * 2)
