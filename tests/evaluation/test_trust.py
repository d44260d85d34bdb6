"""What must be known before a verdict is read: one answer to every row, a better baseline, unclear names."""

import numpy as np
import pytest

from finetune_eval.evaluation.evaluate import evaluate_predictions
from finetune_eval.evaluation.sections import sections


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


def test_a_better_baseline_stands_in_the_first_sentence_and_in_the_trust_block():
    random = np.random.default_rng(0)
    y, y_train = random.integers(0, 2, 200), random.integers(0, 2, 300)
    texts, train = (
        [f"{'good' if k else 'bad'} film {part}{i}" for i, k in enumerate(labels)]
        for labels, part in ((y, "x"), (y_train, "t"))
    )
    p = np.clip(0.5 + (y - 0.5) * np.where(random.random(200) < 0.6, 0.5, -0.5), 0, 1)
    result = evaluate_predictions(y, p, texts=texts, train=(train, y_train))
    right = int(((p > 0.5) == y).sum())
    accuracy = result.estimates["accuracy"]
    first = " ".join(str(result).split("\n\n")[0].split())
    assert first.startswith(
        f"{right} of 200 rows right: accuracy {accuracy.value:.3f}, 95 % interval {accuracy.low:.3f} to "
        f"{accuracy.high:.3f}; TF-IDF + logistic regression (1.000) is better on the same rows. Always"
    )
    assert "! This model is worse than TF-IDF + logistic regression" in str(result)
    (trust,) = (section for section in sections(result) if section.key == "trust")
    assert trust.warnings[0].startswith("This model is worse than TF-IDF + logistic regression")


@pytest.mark.parametrize("name", ["R + D", "a +", "+ b", "+"])
def test_multilabel_names_that_cannot_be_joined_are_refused(name):
    with pytest.raises(ValueError) as error:
        evaluate_predictions(np.eye(2), np.eye(2), labels=["x", name], task="multilabel")
    assert str(error.value) == (
        "`labels` must be names without ' + ' where task='multilabel', since it joins the labels of a row; "
        f"got {name!r}. Call it something else."
    )
