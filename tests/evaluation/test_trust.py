"""What must be known before a verdict is read: one answer to every row, a better baseline, unclear names."""

import html

import numpy as np
import pytest

from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.records import TFIDF
from finetune_eval.evaluation.sections import sections
from finetune_eval.reports.card import write_card
from finetune_eval.reports.html import report


def test_one_answer_to_every_row_is_the_first_thing_said():
    y = [0] * 9 + [1] * 4 + [2] * 27
    p = np.tile([0.2, 0.15, 0.65], (40, 1))
    result = evaluate_predictions(y, p, labels=["neg", "neutral", "pos"])
    said = str(result).splitlines()
    first = "The model answers 'pos' to every row; 27 of 40 rows right: accuracy 0.675, 95 % interval"
    assert " ".join(said[:2]).startswith(first)
    # The majority class is 'pos' as well: 27 of 40, on the same rows.
    assert result.baselines[0].verdict == "This model gives every row the same answer as the majority class."
    assert "No difference detected" not in str(result).split("Against simple models")[1].split("\n\n")[0]
    assert sections(result)[0].sentences[0].startswith(first)
    assert max(map(len, said)) <= 80


def test_answers_that_differ_or_are_all_right_are_not_remarked_on():
    for y, p in (([1, 1, 1], [0.9] * 3), ([0, 1], [0.1, 0.9]), ([0], [0.9])):
        assert str(evaluate_predictions(y, p)).split()[1] == "of"


def test_multilabel_rows_with_one_answer():
    y = np.array([[1, 0], [0, 1], [1, 1]])
    none = evaluate_predictions(y, np.full((3, 2), 0.2), labels=["a", "b"], task="multilabel")
    assert str(none).startswith("The model gives no row a label; 0 of 3 rows right in every label: accuracy")
    both = evaluate_predictions(y, np.full((3, 2), 0.7), labels=["a", "b"], task="multilabel")
    assert str(both).startswith(
        "The model gives every row the same labels, a + b; 1 of 3 rows right in every\nlabel: accuracy"
    )


def test_nearly_one_answer_is_a_warning_where_the_rows_are_of_other_classes_too():
    y = np.repeat([0, 1], [194, 6])
    rare = np.where(np.arange(200) == 199, 0.9, 0.1)
    said = "The model answers '0' to 199 of 200 rows, though 6 are of another class."
    assert said in evaluate_predictions(y, rare).warnings
    assert not any("The model answers" in line for line in evaluate_predictions(y, 0.1 + 0.8 * y).warnings)
    as_rare = np.repeat([0, 1], [198, 2])  # two rows of 1, and two answers: nothing to remark on
    assert not any("answers" in line for line in evaluate_predictions(as_rare, 0.1 + 0.8 * as_rare).warnings)


def rows_that_words_tell(right, rows=200):
    """Return (y, p, keywords): words tell each row's class, and the first `right` rows of p are right."""
    random = np.random.default_rng(0)
    y, y_train = random.integers(0, 2, rows), random.integers(0, 2, 300)
    texts, train = (
        [f"{'good' if k else 'bad'} film {part}{i}" for i, k in enumerate(labels)]
        for labels, part in ((y, "x"), (y_train, "t"))
    )
    p = 0.5 + (y - 0.5) * np.where(np.arange(rows) < right, 0.5, -0.5)
    return y, p, {"texts": texts, "train": (train, y_train)}


def test_a_better_simple_model_is_the_first_thing_said(tmp_path):
    y, p, more = rows_that_words_tell(120)
    result = evaluate_predictions(y, p, **more)
    # The record has this model less the simple one; the sentence has the simple one less this model.
    tfidf = next(one for one in result.baselines if one.name == TFIDF)
    low, high = -100 * tfidf.difference.high, -100 * tfidf.difference.low
    said = (
        "TF-IDF + logistic regression, a far simpler model, is better than this model on the same rows: "
        f"accuracy 1.000 against 0.600, +40.0 points [{low:+.1f}, {high:+.1f}] (paired 95 % interval). Train "
        'on more rows or with recipe="careful", or use the simpler model.'
    )
    assert " ".join(str(result).replace("\n  ", " ").split()).startswith(f"! {said} 120 of 200 rows right")
    assert sections(result)[0].warnings == (said,)
    card = write_card(result, tmp_path / "card.md", name="m").read_text("utf-8").replace("\\", "")
    assert card.startswith(f"# m\n\n**{said}**\n\n120 of 200 rows right")
    page = html.unescape(report(result, tmp_path / "r.html").read_text("utf-8"))
    assert page.index(said) < page.index("120 of 200 rows right")


def test_a_simple_model_that_is_ahead_by_chance_is_said_first_too():
    y, p, more = rows_that_words_tell(197)  # McNemar: 0 against 3 rows, which is no evidence
    (said,) = sections(evaluate_predictions(y, p, **more))[0].warnings
    assert said.startswith("TF-IDF + logistic regression, a far simpler model, is ahead of this model")
    assert "accuracy 1.000 against 0.985, +1.5 points" in said
    assert "The interval includes 0, so these rows do not show that this model is worth its cost." in said


def test_no_simple_model_is_named_first_where_none_is_ahead():
    y, p, more = rows_that_words_tell(200)
    assert sections(evaluate_predictions(y, p, **more))[0].warnings == ()
    rare = np.repeat([0, 1], [95, 5])  # always "0" is right on 0.95, this model on 0.94: of no matter here
    answers = np.where(np.isin(np.arange(100), [0, 1, 2, 95, 96]), 0.9, 0.1)
    assert sections(evaluate_predictions(rare, answers))[0].warnings == ()


def test_the_commonest_class_is_named_first_where_it_is_better():
    y = np.repeat([0, 1], [80, 20])
    (said,) = sections(evaluate_predictions(y, np.repeat([0.9, 0.1], [40, 60])))[0].warnings
    assert said.startswith("Always answering the commonest class is better than this model on the same rows")
    assert said.endswith('Train on more rows or with recipe="careful".')


@pytest.mark.parametrize("name", ["R + D", "a +", "+ b", "+"])
def test_multilabel_names_that_cannot_be_joined_are_refused(name):
    with pytest.raises(ValueError) as error:
        evaluate_predictions(np.eye(2), np.eye(2), labels=["x", name], task="multilabel")
    assert str(error.value) == (
        "`labels` must be names without ' + ' where task='multilabel', since it joins the labels of a row; "
        f"got {name!r}. Call it something else."
    )


def test_a_class_of_the_rows_that_training_never_saw_is_named():
    more = {"labels": ["a", "b", "c", "d"], "train": (["x"] * 3, ["a", "b", "a"])}
    result = evaluate_predictions(list("abcc"), np.eye(4)[[0, 1, 0, 1]], **more)  # "d" is in neither
    assert "No training row is c (2 rows here): the model can hardly be right there." in result.warnings
    weighted = evaluate_predictions(list("abcc"), np.eye(4)[[0, 1, 0, 1]], sample_weight=[1, 1, 0, 0], **more)
    assert not any("No training row" in sentence for sentence in weighted.warnings)
    several = evaluate_predictions(
        [[1, 1], [1, 0]], [[0.9, 0.1], [0.9, 0.2]], labels=["a", "b"], task="multilabel", texts=["x", "y"],
        train=(["x"] * 2, [[1, 0], [0, 0]]),
    )  # fmt: skip
    assert "No training row is b (1 row here): the model can hardly be right there." in several.warnings
