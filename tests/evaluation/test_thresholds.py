"""Thresholds against every threshold tried one by one with scikit-learn; guarantees against simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm
from sklearn import metrics as sk

from finetune_eval.evaluation import thresholds
from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.goals import Goal, parse_goal
from finetune_eval.evaluation.guarantees import proven
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
@given(scored, st.floats(0.05, 0.99))
def test_bounds_are_kept_and_the_rest_is_best(rows, bound):
    y, p = np.array([y for y, _ in rows]), np.array([p for _, p in rows])
    for name, other in (("recall", sk.precision_score), ("precision", sk.recall_score)):
        bounded = {"recall": sk.recall_score, "precision": sk.precision_score}[name]
        # A precision rests on at least so many rows that they could show it: bound ** rows <= 0.05.
        fewest = 1 if name == "recall" else math.ceil(math.log(0.05) / math.log(bound))
        options = [
            other(y, decide(p, t), zero_division=0)
            for t in np.unique(p)
            if 0 < t < 1
            and bounded(y, decide(p, t), zero_division=0) >= bound
            and decide(p, t).sum() >= fewest
        ]
        try:
            chosen = choose_threshold(y, p, goal=f"{name}>={bound}")
        except ValueError as error:
            assert not options and "is reached by no threshold" in str(error)
            continue
        decided = decide(p, chosen.value)
        assert bounded(y, decided) >= bound - 1e-9 and decided.sum() >= fewest
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
            "`goal` must be one of 'f1', 'accuracy', 'balanced_accuracy', 'cost', or a bound such as "
            "'recall>=0.9', 'precision>=0.9' or 'recall>=0.9@95%'; got 'F-1'. Did you mean 'f1'?",
        ),
        ({"goal": "recall>=90"}, "`goal` must ask for a share above 0 and at most 1; got 'recall>=90'."),
        ({"goal": "cost"}, "`goal` 'cost' needs `false_positive_cost` and `false_negative_cost`."),
        (
            {"goal": "precision>=0.9"},
            "`goal` 'precision>=0.9' is reached by no threshold that predicts 29 rows or more, the fewest "
            "that could show it; none does.",
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


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("f1", Goal("f1")),
        ("cost", Goal("cost")),
        ("recall>=0.9", Goal("recall", 0.9)),
        (" precision >= 90 % ", Goal("precision", 0.9)),
        ("recall>=0.9@95%", Goal("recall", 0.9, 0.95)),
        ("recall>=0.9@95", Goal("recall", 0.9, 0.95)),
        ("precision>=.8@0.99", Goal("precision", 0.8, 0.99)),
        ("recall>=1", Goal("recall", 1.0)),
    ],
)
def test_goals_are_read(text, goal):
    assert parse_goal(text) == goal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "recal>=0.9",
            "`threshold_for` can bound 'recall' or 'precision'; got 'recal>=0.9'. Did you mean 'recall'?",
        ),
        ("f1>=0.9", "`threshold_for` can bound 'recall' or 'precision'; got 'f1>=0.9'."),
        ("recall>=0", "`threshold_for` must ask for a share above 0 and at most 1; got 'recall>=0'."),
        ("recall>=e", "`threshold_for` must ask for a share above 0 and at most 1; got 'recall>=e'."),
        (
            "recall>=0.9@100%",
            "`threshold_for` must ask for a confidence of at least 50 % and under 100 %; got "
            "'recall>=0.9@100%'.",
        ),
        (
            "recall>=1@95%",
            "`threshold_for` 'recall>=1@95%' could be shown by no number of rows; ask for less than 1.",
        ),
        (
            "precision>=1",
            "`threshold_for` 'precision>=1' could be shown by no number of rows; ask for less than 1.",
        ),
        (
            "recall<=0.9",
            "`threshold_for` must be one of 'f1', 'accuracy', 'balanced_accuracy', 'cost', or a bound such "
            "as 'recall>=0.9', 'precision>=0.9' or 'recall>=0.9@95%'; got 'recall<=0.9'.",
        ),
        (
            None,
            "`threshold_for` must be one of 'f1', 'accuracy', 'balanced_accuracy', 'cost', or a bound such "
            "as 'recall>=0.9', 'precision>=0.9' or 'recall>=0.9@95%'; got None.",
        ),
    ],
)
def test_goals_that_cannot_be_read(text, message):
    with pytest.raises(ValueError) as error:
        parse_goal(text, "threshold_for")
    assert str(error.value) == message


def test_one_or_two_rows_are_no_proof_of_a_precision():
    # The two surest rows are right, the rest is a coin: the old rule took 1 of 1 for a precision of 1.
    y = np.r_[[1, 1], np.tile([0, 1], 50)]
    p = np.linspace(0.99, 0.01, 102)
    with pytest.raises(ValueError) as error:
        choose_threshold(y, p, goal="precision>=0.9")
    # Of 29 rows or more the best precision is that of the first 30 (index 3, 5, ... are right): 16 of 30.
    assert str(error.value) == (
        "`goal` 'precision>=0.9' is reached by no threshold that predicts 29 rows or more, the fewest that "
        "could show it; the highest there is 0.5333."
    )


def test_a_point_estimate_says_so():
    # 50 rows of the second class, 45 found (recall 0.9 exactly): the true recall has a Beta(45, 6)
    # distribution.
    y, p = np.r_[np.ones(50, int), np.zeros(50, int)], np.r_[np.linspace(0.5, 0.9, 45), np.full(55, 0.1)]
    p[45:50] = 0.05
    chosen = choose_threshold(y, p, goal="recall>=0.9")
    low, under = beta.ppf(0.05, 45, 6), beta.cdf(0.9, 45, 6)
    said = (
        f"This is a point estimate: recall was 0.900 on 50 rows of the second class and is at least "
        f"{low:.3f} with 95 % confidence. In {100 * under:.0f} % of such choices the true recall is under "
        f"0.9; ask for "
        '"recall>=0.9@95%" to rely on it'
    )
    assert (low, under) == (pytest.approx(0.801, abs=1e-3), pytest.approx(0.616, abs=1e-3))
    assert said in str(chosen)
    result = evaluate_predictions([0, 1, 1], [0.1, 0.4, 0.9], labels=["ham", "spam"], threshold=chosen)
    assert f", chosen for recall>=0.9 on 100 rows. {said}." in " ".join(str(result).split())


def test_a_precision_that_was_looked_for_says_so():
    y, p = np.r_[np.ones(40, int), np.zeros(60, int)], np.r_[np.full(40, 0.9), np.full(60, 0.2)]
    chosen = choose_threshold(y, p, goal="precision>=0.9")
    assert chosen.promise == (
        f"This is a point estimate: precision was 1.000 on 40 rows predicted as the second class; had the "
        f"threshold been given beforehand, it would be at least {beta.ppf(0.05, 40, 1):.3f} with 95 % "
        f"confidence. Of many thresholds a lucky one was taken: the true precision is lower more often "
        f"than not; ask for "
        '"precision>=0.9@95%" to rely on it.'
    )


@pytest.mark.parametrize(("m", "misses"), [(29, 0), (50, 1), (100, 4), (200, 12)])
def test_guaranteed_recall_misses_so_many_rows_at_most(m, misses):
    assert binom.cdf(misses, m, 0.1) <= 0.05 < binom.cdf(misses + 1, m, 0.1)
    random = np.random.default_rng(m)
    y, p = (
        np.r_[np.ones(m, int), np.zeros(m, int)],
        random.random(2 * m) * 0.5 + 0.5 * np.arange(2 * m).__lt__(m),
    )
    p[:m] -= 0.3  # so that the classes overlap
    p = np.clip(p, 0.001, 0.999)
    chosen = choose_threshold(y, p, goal="recall>=0.9@95%")
    lost = int((p[:m] < chosen.value).sum())
    assert lost <= misses
    # No threshold that misses so few is more precise.
    best = max(sk.precision_score(y, decide(p, t)) for t in np.unique(p) if (p[:m] < t).sum() <= misses)
    assert chosen.precision == pytest.approx(best)
    assert chosen.promise == (
        "With 95 % confidence the true recall is at least 0.9, for rows from the same source."
    )


def test_proven_precision_is_two_fixed_sequences():
    # By hand, with scipy's binomial distribution: from 31 rows on at .04, from 3 * 44 = 132 on at .01.
    random = np.random.default_rng(3)
    found = 0
    for _ in range(40):
        right = random.random(400) < np.linspace(1.0, 0.85, 400)
        rows, hits = np.arange(1.0, 401), np.cumsum(right).astype(float)
        expected = np.zeros(400, dtype=bool)
        for alpha, start in ((0.04, 31), (0.01, 132)):
            for i in range(start - 1, 400):
                if binom.sf(hits[i] - 1, rows[i], 0.9) > alpha:
                    break
                expected[i] = True
        np.testing.assert_array_equal(proven(hits, rows, 0.9, 0.05), expected)
        found += expected.any()
    assert 0 < found


def misses_of_the_goal(goal, bound, positives, sets, seed):
    """The share of validation sets whose threshold misses the goal in truth; normal scores, 1 in 3
    positive."""
    random, missed = np.random.default_rng(seed), 0
    for _ in range(sets):
        y = np.r_[np.ones(positives, int), np.zeros(2 * positives, int)]
        random.shuffle(y)
        score = 3 * y + random.normal(size=len(y))
        try:
            cut = choose_threshold(y, norm.cdf(score, 1.5, 2), goal=goal).value
        except ValueError:
            continue
        cut = norm.ppf(cut, 1.5, 2)
        recall, alarm = norm.sf(cut - 3), norm.sf(cut)
        true = recall if goal.startswith("recall") else recall / (recall + 2 * alarm)
        missed += true < bound
    return missed / sets


@pytest.mark.parametrize("goal", ["recall>=0.9@95%", "precision>=0.9@95%"])
def test_guarantees_are_kept(goal):
    # At most 5 % may miss; the noise of a share of .05 of 300 is .0126.
    assert misses_of_the_goal(goal, 0.9, 60, 300, seed=1) <= 0.05 + 2.5 * 0.0126


def test_the_point_estimate_misses_its_goal_about_every_second_time():
    assert misses_of_the_goal("recall>=0.9", 0.9, 60, 200, seed=1) > 0.35  # and says so


@pytest.mark.parametrize(
    ("y", "p", "goal", "message"),
    [
        (
            [1] * 20 + [0] * 20,
            np.linspace(0.99, 0.01, 40),
            "recall>=0.9@95%",
            "`goal` 'recall>=0.9@95%' needs at least 29 rows of the second class, none of them missed; "
            "there are 20.",
        ),
        (
            [1] * 50 + [0] * 50,
            [0.0] * 3 + [0.9] * 47 + [0.1] * 50,
            "recall>=0.9@95%",
            "`goal` 'recall>=0.9@95%' is reached by no threshold: 3 of 50 rows of the second class have a "
            "probability of 0 or nearly 0, and 1 may be missed.",
        ),
        (
            [1] * 15 + [0] * 15,
            np.linspace(0.99, 0.01, 30),
            "precision>=0.9@95%",
            "`goal` 'precision>=0.9@95%' needs at least 31 rows predicted as the second class, all of them "
            "right; there are 30 rows to predict.",
        ),
        (
            [0, 1] * 50,
            np.linspace(0.99, 0.01, 100),
            "precision>=0.9@95%",
            # Rows 2, 4, ... are right: 16 of 32 and of every even number.
            "`goal` 'precision>=0.9@95%' is proven for no threshold: the best of those that predict 31 "
            "rows or more has a precision of 0.500. Ask for less, or for a better model.",
        ),
        (
            [1] * 20 + [0] + [1] * 19 + [0] * 60,
            np.linspace(0.99, 0.01, 100),
            "precision>=0.9@95%",
            # 39 of 40 are right. Tried in steps of 5 %, at .04: 60 of 62 rows or more have a probability of
            # .0455 where .9 is true, 64 of 66 of .0332; 66 rows predicted are those of 165 rows.
            "`goal` 'precision>=0.9@95%' is proven for no threshold: the best of those that predict 31 "
            "rows or more has a precision of 0.975 on 40 rows. About 160 rows like these 100 would show it.",
        ),
    ],
)
def test_guarantees_out_of_reach(y, p, goal, message):
    with pytest.raises(ValueError) as error:
        choose_threshold(y, p, goal=goal)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "goal", ["f1", "accuracy", "balanced_accuracy", "recall>=0.8", "precision>=0.5", "cost"]
)
def test_a_row_of_weight_three_counts_like_three_rows(goal):
    random = np.random.default_rng(4)
    y, p, weights = random.integers(0, 2, 120), random.random(120), random.integers(0, 4, 120)
    costs = {"false_positive_cost": 1, "false_negative_cost": 3} if goal == "cost" else {}
    once = choose_threshold(y, p, goal=goal, sample_weight=weights, **costs)
    kept = weights > 0
    thrice = choose_threshold(np.repeat(y, weights), np.repeat(p, weights), goal=goal, **costs)
    np.testing.assert_array_equal(decide(p, once.value)[kept], decide(p, thrice.value)[kept])
    assert (once.precision, once.recall, once.f1, once.accuracy) == pytest.approx(
        (thrice.precision, thrice.recall, thrice.f1, thrice.accuracy)
    )


def test_weights_and_a_guarantee_exclude_each_other():
    with pytest.raises(
        ValueError, match="^`goal` with a confidence needs rows that count alike; leave `sample_we"
    ):
        choose_threshold([0, 1], [0.1, 0.9], goal="recall>=0.9@95%", sample_weight=[1, 2])
    with pytest.raises(
        ValueError, match="`y_true` and `sample_weight` must have the same number of rows; got 2 an"
    ):
        choose_threshold([0, 1], [0.1, 0.9], sample_weight=[1])


def test_the_sentence_about_a_threshold_is_one_for_all_tasks():
    two = evaluate_predictions([0, 1], [0.2, 0.8], labels=["ham", "spam"], threshold=0.3)
    several = evaluate_predictions(np.eye(2), np.eye(2), task="multilabel", threshold=0.3)
    end = (
        "predicted from a probability of 0.3 on. It is honest only if it was chosen on other rows than these."
    )
    assert (
        thresholds.sentence(two) == f"'spam' is {end}" and thresholds.sentence(several) == f"A label is {end}"
    )
    for result in (two, several):
        assert thresholds.sentence(result) in " ".join(str(result).split())
    assert thresholds.sentence(evaluate_predictions([0, 1], [0.2, 0.8])) == ""
