"""Answers without probabilities: which label they are, what they are worth, and what they cannot have."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

import finetune_eval as fe
from finetune_eval._labels import ClassIndices
from finetune_eval.evaluation._answers import read_answers
from finetune_eval.evaluation.saved import load_predictions
from finetune_eval.evaluation.slices import confused_pairs, possible_label_errors, worst_rows

LABELS = ["bad", "fair", "good"]
OTHER = ["Good", "I would say good.", None, ""]


def judged(n=150, seed=0, unlabelled=True, right=0.8):
    """Class indices, and a model's words: most right, some wrong, some no label."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    said = np.where(random.random(n) < right, y, random.integers(0, 3, n))
    words = [LABELS[k] for k in said]
    if unlabelled:
        for place, row in enumerate(range(0, n, 8)):
            words[row] = OTHER[place % len(OTHER)]
    return y, words


def as_words(words):
    """The same answers with one word for all that are no label, as scikit-learn can count them."""
    return np.array([word if word in LABELS else "none of them" for word in words])


# --- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "labels", "places"),
    [
        (["good", " good\n", "Good", "good.", "", None, "bad"], LABELS, [2, 2, 3, 3, 3, 3, 0]),
        ([0, 2, -1, 3, 1.0], LABELS, [0, 2, 3, 3, 1]),
        ([0.5, float("nan"), 2], LABELS, [3, 3, 2]),
        (["0", "2", "-1"], LABELS, [0, 2, 3]),  # indices, as `y_true` may be written in a file
        (["0", "good"], LABELS, [3, 2]),  # a name is there: 0 is none
        (["1", "5", "1.0", "6"], ["1", "2", "3", "4", "5"], [0, 4, 0, 5]),  # names
        ([5, 1, -1], ["1", "2", "3", "4", "5"], [4, 0, 5]),
        ([True, False], ["no", "yes"], [1, 0]),
        ([" a", "a"], [" a", "b"], [0, 2]),  # a name with white space is not stripped
        ([b"good", np.str_("bad")], LABELS, [2, 0]),
        (pd.Series(["good", pd.NA]), LABELS, [2, 3]),
        (ClassIndices([1, 0, 2], ["good", "bad", "terrible"]), LABELS, [0, 2, 3]),
    ],
)
def test_an_answer_is_a_label_or_none(answers, labels, places):
    assert read_answers("predicted", answers, labels).places.tolist() == places


def test_numbers_are_read_as_the_truth_is():
    stars = ["1", "2", "3", "4", "5"]
    with pytest.raises(ValueError, match="`predicted` holds numbers that may be names or places"):
        read_answers("predicted", [1, 2], stars)
    assert read_answers("predicted", [1, 2], stars, np.array([5, 1])).places.tolist() == [0, 1]
    assert read_answers("predicted", ["1", "good"], LABELS, ["0", "1"]).places.tolist() == [1, 2]


def test_what_was_done_to_answers_is_said():
    result = fe.evaluate_predictions(
        ["good", "bad"] * 4, predicted=["good ", "Bad", "good", None, "good", "bad?", "good", "bad"],
        labels=["bad", "good"],
    )  # fmt: skip
    assert result.warnings[:3] == (
        "3 of 8 answers are no label and count as wrong: no answer (1), 'Bad' (1) and 'bad?' (1).",
        "1 of the answers that are no label differs from a label in upper and lower case only. Answers must "
        "match a label exactly; change their case first if you want to count them.",
        "1 answer had white space around it, which was removed.",
    )
    assert result.predictions["prediction"].tolist()[:6] == ["good", "Bad", "good", "", "good", "bad?"]


def test_without_labels_the_classes_are_those_of_the_truth():
    result = fe.evaluate_predictions(["a", "b", "b"], predicted=["a", "b", "c"])
    assert (result.labels, result.accuracy, result.no_label.counts) == (("a", "b"), 2 / 3, (0.0, 1.0))
    assert any(text.startswith("The labels are those that occur in the truth") for text in result.warnings)
    numbers = fe.evaluate_predictions([0, 2, 2], predicted=[0, 2, 1])
    assert (numbers.labels, numbers.no_label.examples) == (("0", "2"), (("1", 1),))
    known = fe.evaluate_predictions(ClassIndices([0, 1], LABELS), predicted=["bad", "good"])
    assert known.labels == tuple(LABELS) and known.no_label is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"^Exactly one of `probabilities` .* got neither\.$"),
        ({"probabilities": [0.1, 0.9], "predicted": [0, 1]}, r"got both\.$"),
        ({"predicted": [0, 1], "threshold": 0.3}, r"^`threshold` needs probabilities; leave it out"),
        (
            {"predicted": [0, 1, 1]},
            r"^`y_true` and `predicted` must have the same number of rows; got 2 and 3",
        ),
        ({"predicted": [[0.1, 0.9], [0.2, 0.8]]}, r"^`predicted` must hold one answer a row.*probabilities"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        fe.evaluate_predictions([0, 1], **arguments)


# --- the numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_those_of_scikit_learn(average, weighted):
    y, words = judged()
    weights = np.random.default_rng(1).integers(1, 4, len(y)) if weighted else None
    result = fe.evaluate_predictions(
        y, predicted=words, labels=LABELS, average=average, sample_weight=weights
    )
    truth, said = np.array(LABELS)[y], as_words(words)
    prf = sk.precision_recall_fscore_support(
        truth, said, labels=LABELS, average=average, sample_weight=weights
    )
    expected = dict(zip(("precision", "recall", "f1"), prf[:3], strict=True))
    expected["accuracy"] = sk.accuracy_score(truth, said, sample_weight=weights)
    expected["mcc"] = sk.matthews_corrcoef(truth, said, sample_weight=weights)
    expected["kappa"] = sk.cohen_kappa_score(truth, said, sample_weight=weights)
    expected["balanced_accuracy"] = sk.recall_score(
        truth, said, labels=LABELS, average="macro", sample_weight=weights
    )
    assert {name: one.value for name, one in result.estimates.items()} == pytest.approx(expected)
    assert all(one.low <= one.value <= one.high for one in result.estimates.values())
    table = sk.confusion_matrix(truth, said, labels=[*LABELS, "none of them"], sample_weight=weights)
    np.testing.assert_allclose(result.confusion_matrix, table[:3, :3])
    np.testing.assert_allclose(result.no_label.counts, table[:3, 3])
    assert result.total == pytest.approx(table.sum())
    each = sk.precision_recall_fscore_support(truth, said, labels=LABELS, sample_weight=weights)
    for place, name in enumerate(("precision", "recall", "f1")):
        assert [getattr(one, name).value for one in result.per_class] == pytest.approx(each[place])


def test_answers_that_are_all_labels_score_as_the_same_answers_with_probabilities():
    y, words = judged(unlabelled=False)
    p = np.eye(3)[[LABELS.index(word) for word in words]] * 0.7 + 0.1
    with_p = fe.evaluate_predictions(y, p, labels=LABELS)
    result = fe.evaluate_predictions(y, predicted=words, labels=LABELS)
    assert result.no_label is None and not result.has_probabilities
    for name, estimate in result.estimates.items():
        assert estimate == with_p[name], name
    assert set(with_p.estimates) - set(result.estimates) == {"loss", "brier", "roc_auc", "pr_auc"}
    assert result.baselines[0].difference == with_p.baselines[0].difference


def test_two_classes():
    words = ["ham", "spam", "dunno", "spam", "ham", "spam"]
    result = fe.evaluate_predictions([0, 1, 1, 1, 0, 0], predicted=words, labels=["ham", "spam"])
    # of spam: 2 hits, 1 false alarm, 1 miss that is no label
    assert (result.precision, result.recall, result.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_many_classes_of_few_rows_keep_answers_that_are_no_label_apart():
    labels = [f"c{k}" for k in range(40)]
    result = fe.evaluate_predictions(["c0", "c1", "c2"] * 4, predicted=["c0", "c1", "?"] * 4, labels=labels)
    assert result["f1"].value == pytest.approx(2 / 3)
    truth, said = ["c0", "c1", "c2"] * 4, ["c0", "c1", "?"] * 4
    assert result["mcc"].value == pytest.approx(sk.matthews_corrcoef(truth, said))


def test_nothing_is_a_label():
    result = fe.evaluate_predictions([0, 1] * 10, predicted=["?"] * 20, labels=["a", "b"])
    assert (result.accuracy, result.f1, result["mcc"].value) == (0, 0, 0)
    assert result["accuracy"].high < 0.2
    assert "The model answers '?' to every row" in str(result)
    none = fe.evaluate_predictions([0, 1] * 10, predicted=[None] * 20, labels=["a", "b"])
    assert "The model gives no row an answer" in str(none)


def test_multilabel_answers():
    random = np.random.default_rng(2)
    y, said = random.integers(0, 2, (2, 60, 3))
    result = fe.evaluate_predictions(y, predicted=said, labels=LABELS, task="multilabel")
    assert result.accuracy == sk.accuracy_score(y, said)
    assert result["f1"].value == pytest.approx(sk.f1_score(y, said, average="macro"))
    assert "loss" not in result.estimates and str(result)


def test_groups_slices_leaks_and_the_lockbox_need_no_probabilities(tmp_path):
    y, words = judged()
    texts = [f"row {row} is {LABELS[k]}" for row, k in enumerate(y)]
    result = fe.evaluate_predictions(
        y, predicted=words, labels=LABELS, texts=texts, train=(texts[:30], y[:30]), lockbox=tmp_path,
        groups=np.arange(len(y)) // 3, metadata={"half": np.arange(len(y)) // 75},
    )  # fmt: skip
    assert len(result.leaks.rows) == 30 and set(result.leaks.without) == set(result.estimates)
    assert {part.column for part in result.slices} >= {"half", "word"}
    assert [one.name for one in result.baselines] == ["the majority class", "TF-IDF + logistic regression"]
    assert (result.looks.count, result.looks.models) == (1, 1)
    again = fe.evaluate_predictions(y, predicted=words[::-1], labels=LABELS, texts=texts, lockbox=tmp_path)
    assert (again.looks.count, again.looks.models) == (2, 2)
    grouped = next(text for text in result.warnings if text.startswith("Computed as if the rows of a group"))
    assert "calibration" not in grouped


# --- what is shown -------------------------------------------------------------------------------------


def test_what_needs_probabilities_is_absent_and_says_why(tmp_path):
    y, words = judged()
    result = fe.evaluate_predictions(y, predicted=words, labels=LABELS)
    because = "The model gave answers and no probabilities"
    page, card = tmp_path / "page.html", tmp_path / "card.md"
    fe.report(result, page)
    fe.write_card(result, card)
    text = " ".join(str(result).split())
    for shown in (text, page.read_text(), card.read_text()):
        assert because in shown and "no label" in shown and "I would say good." in shown
        assert "Brier score 0" not in shown and "nan" not in shown.lower()
    with pytest.raises(KeyError, match=because):
        result["loss"]
    with pytest.raises(KeyError, match=because):
        _ = result.loss
    with pytest.raises(KeyError, match="no metric 'lose'"):
        result["lose"]
    with pytest.raises(ValueError, match="this model gave answers only"):
        possible_label_errors(result)
    assert result.calibration is None and "loss" not in repr(result)
    wrong = result.predictions[result.predictions["label"] != result.predictions["prediction"]]
    assert result.worst_rows["id"].tolist() == wrong["id"].tolist()[:20]
    assert worst_rows(result, n=2)["id"].tolist() == wrong["id"].tolist()[:2]


def test_the_confusion_matrix_has_a_column_more():
    result = fe.evaluate_predictions([0, 0, 1, 1, 1], predicted=["a", "?", "b", "?", "a"], labels=["a", "b"])
    lines = str(result).splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("Confusion matrix"))
    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        ["a", "b", "(no", "label)"],
        ["a", "1", "0", "1"],
        ["b", "1", "1", "1"],
    ]
    assert "answering 'b' would be right on 3 of 5 (0.600): " in str(result)
    pairs = [(pair.label, pair.prediction, pair.n, pair.share.value) for pair in confused_pairs(result)]
    assert pairs[0] == ("a", "no label", 1, 0.5)


def test_a_figure_of_the_confusion_matrix_has_it_too():
    from finetune_eval.reports.plots import confusion

    result = fe.evaluate_predictions([0, 1], predicted=["a", "?"], labels=["a", "b"])
    axes = confusion(result).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "(no label)"]
    assert [text.get_text() for text in axes.texts] == ["1", "0", "0", "0", "0", "1"]


def test_an_answer_cannot_write_markup_or_move_the_cursor(tmp_path):
    words = ["a", "<script>alert(1)</script>", "\x1b[31mb", "b", "\ud800"]
    result = fe.evaluate_predictions([0, 1, 1, 1, 0], predicted=words, labels=["a", "b"])
    page = tmp_path / "page.html"
    fe.report(result, page)
    assert "<script>alert" not in page.read_text() and "\x1b" not in str(result)
    result.save(tmp_path / "saved")
    assert fe.Evaluation.load(tmp_path / "saved") == result


def test_saved_and_loaded_to_the_last_bit(tmp_path):
    y, words = judged()
    weights = np.random.default_rng(0).random(len(y))
    result = fe.evaluate_predictions(y, predicted=words, labels=LABELS, sample_weight=weights)
    result.save(tmp_path)
    again = fe.Evaluation.load(tmp_path)
    assert again == result and str(again) == str(result)
    assert load_predictions(tmp_path / "predictions.parquet", labels=LABELS)["mcc"] == result["mcc"]


# --- comparison ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["accuracy", "f1", "precision", "mcc", "kappa", "balanced_accuracy"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_model_with_probabilities_against_words(metric, weighted):
    y, words = judged()
    weights = np.random.default_rng(4).random(len(y)) if weighted else None
    p = np.eye(3)[np.where(np.arange(len(y)) % 10 == 0, (y + 1) % 3, y)] * 0.7 + 0.1
    tuned = fe.evaluate_predictions(y, p, labels=LABELS, sample_weight=weights)
    words_of = fe.evaluate_predictions(y, predicted=words, labels=LABELS, sample_weight=weights)
    result = fe.compare(tuned, words_of, metric=metric, names=["tuned", "LLM"])
    assert result.values == pytest.approx((tuned[metric].value, words_of[metric].value))
    assert result.difference.value == pytest.approx(tuned[metric].value - words_of[metric].value)
    assert result.outcome == "better" and not any("log-loss" in note for note in result.notes)
    assert str(result)


def test_a_metric_that_needs_probabilities_is_refused():
    y, words = judged()
    tuned = fe.evaluate_predictions(y, np.eye(3)[y] * 0.7 + 0.1, labels=LABELS)
    said = fe.evaluate_predictions(y, predicted=words, labels=LABELS)
    for metric in ("loss", "brier", "roc_auc"):
        with pytest.raises(ValueError, match=f"`metric` '{metric}' needs probabilities, and B gave answers"):
            fe.compare(tuned, said, metric=metric)


def test_seeds_of_answers():
    y, words = judged()
    runs = [
        fe.evaluate_predictions(y, predicted=judged(seed=0, right=r)[1], labels=LABELS) for r in (0.7, 0.9)
    ]
    assert fe.evaluate_seeds(runs, metric="f1").values == tuple(run.f1 for run in runs)
    with pytest.raises(ValueError, match="are all the same to the last digit"):
        fe.evaluate_seeds([runs[0], runs[0]])


def test_rows_are_paired_by_their_ids():
    y, words = judged()
    ids = np.array([f"review {row}" for row in range(len(y))])
    order = np.random.default_rng(5).permutation(len(y))
    p = np.eye(3)[np.where(np.arange(len(y)) % 10 == 0, (y + 1) % 3, y)] * 0.7 + 0.1
    groups = np.arange(len(y)) // 2
    for more in ({}, {"sample_weight": groups + 1.0}, {"groups": groups}):
        shuffled = {name: values[order] for name, values in more.items()}
        said = fe.evaluate_predictions(y, predicted=words, labels=LABELS, ids=ids, **more)
        same = fe.evaluate_predictions(y, p, labels=LABELS, ids=ids, **more)
        other = fe.evaluate_predictions(y[order], p[order], labels=LABELS, ids=ids[order], **shuffled)
        for metric in ("accuracy", "f1"):
            assert fe.compare(said, other, metric=metric) == fe.compare(said, same, metric=metric)
    loss = fe.compare(same, other, metric="loss")
    assert loss.outcome == "identical answers" and not any("paired by their order" in n for n in loss.notes)


def test_ids_that_nobody_gave_pair_nothing():
    y = np.array([0, 1, 1, 0])
    counted = fe.evaluate_predictions(y, predicted=y)
    named = fe.evaluate_predictions(y[::-1], predicted=y[::-1], ids=[3, 2, 1, 0])
    with pytest.raises(ValueError, match="row 0 has id '0' in A and '3' in B"):
        fe.compare(counted, named)
    twice = fe.evaluate_predictions(y, predicted=y, ids=["a", "a", "b", "c"])
    other = fe.evaluate_predictions(y[::-1], predicted=y[::-1], ids=["c", "b", "a", "a"])
    with pytest.raises(ValueError, match="sort both alike, or give every row of both an id of its own"):
        fe.compare(twice, other)


# --- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "labels", "accuracy", "unused"),
    [
        ("label,predicted\nneg,neg\npos,Pos\npos,pos\nneg,", None, 0.5, ""),
        ("label,prediction,p_value\nneg,neg,.3\npos,pos,.2", None, 1.0, "'p_value'"),
        ("label,y_pred,p_tokens,p_cost\na,b,.3,.7\nb,b,.7,.3", None, 0.5, "'p_tokens', 'p_cost'"),
        ("label,predicted,score\nneg,neg,3\npos,neg,4", ["neg", "pos"], 0.5, "'score'"),
        ("label,predicted,score\nneg,neg,.3\npos,maybe,.4", ["neg", "pos"], 0.5, "'score'"),
        ("label,predicted,score\n0,0,.3\n1,1,.2\n1,0,.1\n0,0,.8", None, 0.75, "'score'"),
        ("label,predicted,score\na,b,.3\nb,b,.7\nc,c,.1", None, 2 / 3, "'score'"),
        ("target,pred\n0,1\n1,1", ["neg", "pos"], 0.5, ""),
    ],
)
def test_a_file_of_answers(tmp_path, lines, labels, accuracy, unused):
    path = tmp_path / "answers.csv"
    path.write_text(lines + "\n")
    result = load_predictions(path, labels=labels)
    assert result.accuracy == accuracy and not result.has_probabilities
    assert any(f"The file's {unused} w" in text for text in result.warnings) == bool(unused)


def test_columns_that_are_probabilities_stay_so(tmp_path):
    path = tmp_path / "both.csv"
    path.write_text("label,predicted,p_a,p_b\na,b,.3,.7\nb,b,.2,.8\n")
    assert load_predictions(path).has_probabilities
    path.write_text("label,predicted,probability\n0,0,.3\n1,1,.8\n")
    assert load_predictions(path).has_probabilities
    path.write_text("label,predicted,score\n0,0,.3\n1,1,.8\n")
    assert load_predictions(path).has_probabilities


def test_withheld_answers_keep_the_names_of_the_others():
    """Of five rows two are answered rightly and one is withheld: 2 / 5, whatever the order of the labels."""
    names = ("bad", "good")
    truth = ClassIndices([0, 0, 1, 1, 1], names)
    answers = ClassIndices([0, 1, 1, 0, -1], names)
    for labels in (None, names, names[::-1]):
        found = fe.evaluate_predictions(truth, predicted=answers, labels=labels, baselines=False)
        assert found.accuracy == 0.4
        assert any(
            "1 of 5 answers is no label and counts as wrong: no answer (1)" in w for w in found.warnings
        )
