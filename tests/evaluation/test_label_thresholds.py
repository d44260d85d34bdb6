"""Thresholds of single labels: each label's best one, drawn towards the one that is best for all."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

import finetune_eval as fe
from finetune_eval.evaluation.label_thresholds import LabelThresholds, choose_label_thresholds
from finetune_eval.evaluation.thresholds import choose_threshold

LABELS = ("plot", "cast", "music")


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def rows(n=120, seed=0):
    """Return y (n, 3) and p (n, 3): labels of 40, 20 and 5 % of the rows, the logits of the last too low."""
    random = np.random.default_rng(seed)
    y = (random.random((n, 3)) < [0.4, 0.2, 0.05]).astype(int)
    y[0] = 1
    logits = random.normal(size=y.shape) + 2 * y - [1, 1.5, 3]
    return y, 1 / (1 + np.exp(-logits))


def logit(p):
    return np.log(p / (1 - p))


def by_hand(y, p):
    """Return the common threshold for F1 and each label's value, by trying every one."""
    edges = np.concatenate([[0], np.unique(p), [1]])
    cuts = (edges[1:] + edges[:-1]) / 2
    scores = np.array(
        [[f1_score(y[:, k], p[:, k] >= cut, zero_division=0) for k in range(3)] for cut in cuts]
    )

    def nearest(mean):
        best = cuts[mean >= mean.max() - 1e-12]
        return best[np.abs(best - 0.5).argmin()]

    common, positives = nearest(scores.mean(axis=1)), y.sum(axis=0)
    own = np.array([choose_threshold(y[:, k], p[:, k]).value for k in range(3)])
    mean = (positives * logit(own) + 5 * logit(common)) / (positives + 5)
    return common, 1 / (1 + np.exp(-mean))


def test_a_threshold_is_the_mean_of_the_labels_own_and_the_common_one():
    y, p = rows(60)
    chosen = choose_label_thresholds(y, p, labels=LABELS)
    common, values = by_hand(y, p)
    assert chosen.common == pytest.approx(common, rel=1e-6)
    assert chosen.values == pytest.approx(values, rel=1e-5)
    assert chosen.positives == tuple(y.sum(axis=0)) and chosen.n == 60
    assert chosen.f1 == pytest.approx(f1_score(y, p >= np.array(chosen.values), average="macro"))


def test_a_label_that_no_row_has_gets_the_common_threshold_and_a_common_label_nearly_its_own():
    y, p = rows(400)
    y[:, 2] = 0
    chosen = choose_label_thresholds(y, p)
    assert chosen.values[2] == chosen.common
    own = choose_threshold(y[:, 0], p[:, 0]).value
    far = abs(logit(chosen.common) - logit(own))
    assert abs(logit(chosen.values[0]) - logit(own)) == pytest.approx(far * 5 / (5 + y[:, 0].sum()), abs=1e-6)


def test_a_bound_on_recall_is_kept_by_the_common_threshold():
    y, p = rows(300)
    chosen = choose_label_thresholds(y, p, goal="recall>=0.8")
    assert recall_score(y, p >= chosen.common, average="macro") >= 0.8
    own = choose_threshold(y[:, 1], p[:, 1], goal="recall>=0.8").value
    assert min(own, chosen.common) - 1e-6 <= chosen.values[1] <= max(own, chosen.common) + 1e-6
    assert choose_label_thresholds(y, p, goal="accuracy").goal == "accuracy"


@given(
    n=st.integers(2, 12), seed=st.integers(0, 10_000), sure=st.booleans(),
    goal=st.sampled_from(["f1", "accuracy", "balanced_accuracy", "recall>=0.7"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_thresholds_are_inside_0_and_1_and_decide_float32_as_float64(n, seed, sure, goal):
    random = np.random.default_rng(seed)
    y, p = random.integers(0, 2, (n, 3)), random.random((n, 3)).astype("float32")
    if sure:
        p = p.round()
    y[0], y[1] = 0, 1
    values = np.array(choose_label_thresholds(y, p, goal=goal).values)
    assert ((values > 0) & (values < 1)).all()
    np.testing.assert_array_equal(p >= values, p >= values.astype("float32"))


@pytest.mark.parametrize("goal", ["precision>=0.9", "recall>=0.9@95%"])
def test_goals_that_single_labels_cannot_have_are_refused(goal):
    sentence = (
        "`goal` must be 'f1', 'accuracy', 'balanced_accuracy' or a bound such as 'recall>=0.9' where a row "
        f"may have several labels; got {goal!r}. Thresholds that are drawn towards a common one guarantee "
        "nothing for a single label."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        choose_label_thresholds(*rows(20), goal=goal)


def test_rows_that_show_nothing_are_refused():
    y, p = rows(20)
    sentence = (
        "`y_true` must have a label that some rows have and others have not, to choose thresholds; of "
        "'plot', 'cast', 'music' there is none."
    )
    with pytest.raises(ValueError, match=exactly(sentence)):
        choose_label_thresholds(y * 0 + [1, 0, 1], p, labels=LABELS)


# --- in an evaluation ---


@pytest.fixture(scope="module")
def chosen():
    return choose_label_thresholds(*rows(seed=1), labels=LABELS)


def evaluated(threshold, **settings):
    y, p = rows()
    return fe.evaluate_predictions(
        y, p, labels=LABELS, task="multilabel", threshold=threshold, n_resamples=100, baselines=False,
        **settings,
    )  # fmt: skip


def test_an_evaluation_gives_each_label_from_its_own_threshold_on(chosen, tmp_path):
    y, p = rows()
    result = evaluated(chosen)
    given_labels = p >= np.array(chosen.values)
    assert result["f1"].value == pytest.approx(f1_score(y, given_labels, average="macro"))
    assert result.threshold == chosen.values
    cuts = ", ".join(f"{label} {cut:.4g}" for label, cut in zip(LABELS, chosen.values, strict=True))
    sentence = (
        f"A label is predicted from a probability of its own on ({cuts}), chosen for f1 on 120 rows, each "
        f"drawn towards the common threshold {chosen.common:.4g}, the more the fewer rows have its label."
    )
    assert sentence in " ".join(str(result).split())
    assert fe.Evaluation.load(result.save(tmp_path / "e")).threshold == chosen.values
    plain = evaluated(list(chosen.values))
    assert plain["f1"] == result["f1"] and plain.threshold_origin is None
    frame = pd.DataFrame(p, columns=LABELS)
    other_y, other_p = rows(seed=1)
    named = choose_label_thresholds(other_y, pd.DataFrame(other_p, columns=LABELS))
    assert fe.evaluate_predictions(
        y, frame, task="multilabel", threshold=named, n_resamples=100, baselines=False
    )["f1"] == result["f1"]  # fmt: skip


def test_the_same_rows_are_noticed(chosen):
    y, p = rows(seed=1)
    result = fe.evaluate_predictions(
        y, p, labels=LABELS, task="multilabel", threshold=chosen, n_resamples=100, baselines=False
    )
    assert any("The threshold was chosen on these very rows" in each for each in result.warnings)
    assert not any("these very rows" in each for each in evaluated(chosen).warnings)


@pytest.mark.parametrize(
    "threshold, error, sentence",
    [
        ([0.5, 0.4], ValueError, "`threshold` must be one number, or one for each of the 3 labels; got 2."),
        ([0.5, 0.4, 1.0], ValueError, "`threshold[2]` must be a finite number above 0 and below 1; got 1.0."),
        ([0.5, 0.4, "a"], TypeError, "`threshold[2]` must be a number; got 'a' (str)."),
    ],
)
def test_thresholds_that_fit_no_labels_are_refused(threshold, error, sentence):
    with pytest.raises(error) as said:
        evaluated(threshold)
    assert str(said.value) == sentence


def test_thresholds_of_other_labels_or_for_one_class_a_row_are_refused(chosen):
    y, p = rows()
    other = LabelThresholds(**{**vars(chosen), "labels": ("a", "b", "c")})
    with pytest.raises(
        ValueError, match="^`threshold` was chosen for the labels 'a', 'b', 'c'; these are 'p"
    ):
        evaluated(other)
    for threshold in (chosen, [0.4, 0.5]):
        with pytest.raises(
            ValueError, match="^`threshold` must be one number where a row has one class; got"
        ):
            fe.evaluate_predictions([0, 1, 0, 1], [0.1, 0.7, 0.2, 0.6], threshold=threshold)
