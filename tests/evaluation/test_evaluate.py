"""Evaluation of predictions and of models, against scikit-learn, Keras' formulas and arithmetic."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune_eval.evaluation.evaluate import Evaluation, evaluate, evaluate_predictions
from finetune_eval.evaluation.prevalence import at_prevalence
from finetune_eval.evaluation.rankings import delong
from finetune_eval.evaluation.saved import load_predictions


def rows(n, classes, seed=0, skill=1.0):
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    logits = random.normal(size=(n, classes))
    logits[np.arange(n), y] += skill
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return y, p.astype(np.float32)


class Model:
    """What `evaluate` needs of a model of this library."""

    def __init__(self, probabilities, labels=("negative", "positive"), threshold=None):
        self.probabilities, self.labels, self.threshold, self.calls = probabilities, labels, threshold, 0

    def predict(self, x):
        self.calls += 1
        return self.probabilities


class Foreign:
    """A Keras model as far as `evaluate` looks: output_shape, loss, layers, predict."""

    def __init__(self, output, loss=None, ending=None):
        self.output, self.loss, self.calls = np.asarray(output, dtype=np.float32), loss, 0
        self.output_shape = (None, self.output.shape[1])
        activation = type(ending, (), {}) if ending else None
        self.layers = [type("Layer", (), {"activation": activation})]

    def predict(self, x, batch_size=None, verbose="auto"):
        self.calls += 1
        return self.output


class Loss:
    def __init__(self, name, **settings):
        self._fn_kwargs = settings
        self.__name__ = name


# --- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_value_is_scikit_learns(classes, weighted):
    y, p = rows(300, classes)
    weights = np.random.default_rng(1).random(300) if weighted else None
    result = evaluate_predictions(y, p, sample_weight=weights)
    predicted, exact = p.argmax(axis=1), p.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    average = "binary" if classes == 2 else "macro"
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        y, predicted, average=average, sample_weight=weights
    )
    one = np.eye(classes)[y]
    score = exact[:, 1] if classes == 2 else exact
    expected = {
        "loss": sk.log_loss(y, exact, sample_weight=weights),
        "accuracy": sk.accuracy_score(y, predicted, sample_weight=weights),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "balanced_accuracy": sk.balanced_accuracy_score(y, predicted, sample_weight=weights),
        "mcc": sk.matthews_corrcoef(y, predicted, sample_weight=weights),
        "kappa": sk.cohen_kappa_score(y, predicted, sample_weight=weights),
        "roc_auc": sk.roc_auc_score(y, score, multi_class="ovr", sample_weight=weights),
        "pr_auc": sk.average_precision_score(y if classes == 2 else one, score, sample_weight=weights),
        "brier": np.average(
            (exact[:, 1] - y) ** 2 if classes == 2 else ((exact - one) ** 2).sum(axis=1), weights=weights
        ),
    }
    assert set(expected) == set(result.estimates)
    for name, value in expected.items():
        assert result[name].value == pytest.approx(value, abs=2e-6), name
        assert result[name].low < result[name].high, name
        assert result[name].low <= result[name].value <= result[name].high, name
    assert (result.loss, result.accuracy) == (result["loss"].value, result["accuracy"].value)
    np.testing.assert_allclose(
        result.confusion_matrix, sk.confusion_matrix(y, predicted, sample_weight=weights)
    )
    per_class = sk.precision_recall_fscore_support(y, predicted, sample_weight=weights)
    for k, score in enumerate(result.per_class):
        numbers = [score.precision.value, score.recall.value, score.f1.value, score.support]
        np.testing.assert_allclose(numbers, [column[k] for column in per_class])


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_multilabel_values_are_scikit_learns(average):
    random = np.random.default_rng(0)
    y = random.integers(0, 2, (200, 4))
    p = np.clip(0.3 * y + 0.7 * random.random((200, 4)), 0, 1)
    result = evaluate_predictions(y, p, task="multilabel", labels=list("abcd"), average=average)
    predicted = (p >= 0.5).astype(int)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(y, predicted, average=average)
    assert result.accuracy == sk.accuracy_score(y, predicted)
    assert (result.precision, result.recall, result.f1) == pytest.approx((precision, recall, f1))
    assert result.loss == pytest.approx(np.mean([sk.log_loss(y[:, k], p[:, k]) for k in range(4)]))
    assert result["roc_auc"].value == pytest.approx(sk.roc_auc_score(y, p))
    np.testing.assert_array_equal(result.confusion_matrix, sk.multilabel_confusion_matrix(y, predicted))
    assert result.predictions["label"][0] == " + ".join(np.array(list("abcd"))[y[0] == 1])


def test_accuracy_has_the_wilson_interval_and_its_headline():
    # 158 of 200: (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2 / 4)) / (n + z^2) with z = 1.959964
    # = (159.9207 -+ 11.4510) / 203.8415 = 0.7284, 0.8407
    y = np.array([0] * 100 + [1] * 100)
    p = np.full(200, 0.2)
    p[100:] = 0.7
    p[:21] = 0.6
    p[100:121] = 0.1
    result = evaluate_predictions(y, p, labels=["negative", "positive"])
    assert (result.n, result.right, result["accuracy"].method) == (200, 158, "Wilson")
    assert (result["accuracy"].low, result["accuracy"].high) == pytest.approx((0.7284, 0.8407), abs=2e-4)
    text = str(result)
    assert text.startswith(
        "158 of 200 rows right: accuracy 0.790, 95 % interval 0.728 to 0.841. Always\n"
        "answering 'negative' would be right on 100 of 200 (0.500): the whole interval is\nabove that.\n\n"
    )
    # +-2 points need z^2 p (1 - p) / 0.02^2 = 3.8415 * 0.1659 / 0.0004 = 1593 rows
    assert (
        "With 200 rows the accuracy is known to about +-5.6 percentage points; +-2 would\ntake about 1,600 "
        "rows in all." in text
    )
    assert max(map(len, text.splitlines())) <= 80


def test_f1_interval_is_that_of_the_confusion_matrix():
    from finetune_eval.evaluation.tables import f1_interval

    y, p = rows(300, 3)
    result = evaluate_predictions(y, p)
    assert result["f1"] == f1_interval(result.confusion_matrix, average="macro")


def documented_methods():
    """First estimate of each row of the table of docs/statistics.md -> `.method`."""
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    table = text.split("## Intervals")[1].split("\n\n")[1]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert lines[0][2] == "`.method`"
    return {re.split("[;,]", line[0])[0]: line[2] for line in lines[2:]}


def test_every_interval_is_made_as_the_table_in_the_docs_says():
    y, p = rows(400, 3)
    further = ["f0.5", "f2", "linear_kappa", "quadratic_kappa"]
    two = evaluate_predictions(*rows(400, 2), metrics=[*further, "specificity", "npv"])
    macro, micro, weighted = (
        evaluate_predictions(y, p, average=a, metrics=[*further, "top_2_accuracy"])
        for a in ("macro", "micro", "weighted")
    )
    labels = evaluate_predictions(np.eye(3, dtype=int)[y], p, task="multilabel", metrics=["samples_f1"])
    classes = [*two.per_class, *macro.per_class, *labels.per_class]
    printed = {
        "accuracy": [
            *(result["accuracy"] for result in (two, macro, micro, weighted, labels)),
            *(getattr(score, name) for score in classes for name in ("precision", "recall")),
            *(two[name] for name in ("precision", "recall")),
            *(micro[name] for name in ("precision", "recall", "f1")),
            weighted["recall"],
        ],
        "F1 of one class": [two["f1"], *(score.f1 for score in classes)],
        "macro precision": [macro["precision"], macro["recall"], macro["balanced_accuracy"]],
        "macro and weighted F1": [
            *(macro[name] for name in ("f1", "mcc", "kappa")),
            *(weighted[name] for name in ("f1", "precision")),
        ],
        "F0.5": [result[name] for result in (two, macro, weighted) for name in further],
        "specificity": [two["specificity"], two["npv"], macro["top_2_accuracy"]],
        "mean F1 of multilabel rows": [labels["samples_f1"]],
        "precision": [*at_prevalence(two, 0.02).values()],
        "ROC-AUC": [two["roc_auc"], macro["roc_auc"]],
        "PR-AUC": [two["pr_auc"], macro["pr_auc"], labels["pr_auc"]],
        "log-loss": [two["loss"], macro["loss"], two["brier"], labels["brier"]],
    }
    methods = documented_methods()
    assert set(methods) == set(printed)
    for name, estimates in printed.items():
        assert {estimate.method for estimate in estimates} == {methods[name]}, name


def test_f1_of_one_class_is_wilsons_by_hand():
    # 9 hits, 1 miss, 2 false alarms: J = 9 / 12. Wilson, z = 1.959964, z^2 = 3.841459:
    # (9 + 1.920729 -+ 1.959964 sqrt(9 * 3 / 12 + 3.841459 / 4)) / 15.841459
    # = (10.920729 -+ 3.511771) / 15.841459 = 0.467694, 0.911057; F1 = 2J / (1 + J): 0.637319, 0.953459
    y = [1] * 10 + [0] * 10
    p = [0.9] * 9 + [0.2] + [0.8] * 2 + [0.1] * 8
    f1 = evaluate_predictions(y, p)["f1"]
    assert (f1.value, f1.low, f1.high) == pytest.approx((18 / 21, 0.637319, 0.953459), abs=1e-6)


def test_rankings_are_delongs_and_a_single_row_of_a_class_tells_little():
    y, p = rows(200, 2)
    exact = p[:, 1].astype(np.float64)
    found, plain = evaluate_predictions(y, p)["roc_auc"], delong(y, exact)
    assert found.value == plain.value
    # DeLong's standard error, on the logit scale, with about as many degrees of freedom as there are rows
    assert plain.method == "DeLong"
    half = (plain.high - plain.low) / 2 / (plain.value * (1 - plain.value))
    middle = np.log(plain.value / (1 - plain.value))
    logit = 1 / (1 + np.exp([half - middle, -half - middle]))
    assert (found.low, found.high) == pytest.approx(logit, abs=0.001)
    # one positive among 50: nothing says how other positive rows would rank
    lone = evaluate_predictions([0] * 50 + [1], [*np.linspace(0.1, 0.6, 50), 0.55])
    for name in ("roc_auc", "pr_auc"):
        assert lone[name].high - lone[name].low > 0.9, name
        assert lone[name].method.endswith("Clopper-Pearson on 1 row: no variance to see")


def test_a_perfect_ranking_of_groups_is_as_sure_as_there_are_groups():
    # 10 groups of 10 equal rows a class: the lower limit of 10 of 10 is .025 ** (1 / 10) = 0.69150
    y = np.repeat(np.arange(20) % 2, 10)
    p = np.where(y == 1, 0.9, 0.1)
    result = evaluate_predictions(y, p, groups=np.repeat(np.arange(20), 10))
    assert result["roc_auc"].low == pytest.approx(0.69150, abs=1e-5)
    assert result["roc_auc"].method == "DeLong, by groups, Clopper-Pearson on 10 groups: no variance to see"


def test_binary_scores_and_those_of_the_second_class_are_the_same():
    result = evaluate_predictions(*rows(100, 2))
    assert [result[name] for name in ("precision", "recall", "f1")] == [
        getattr(result.per_class[1], name) for name in ("precision", "recall", "f1")
    ]


def test_grouped_rows_have_wider_intervals():
    # Each row ten times: as many independent rows as before, so intervals as wide as before.
    y, p = rows(60, 2)
    once = evaluate_predictions(y, p)
    copies = evaluate_predictions(
        np.repeat(y, 10), np.repeat(p, 10, axis=0), groups=np.repeat(np.arange(60), 10)
    )
    naive = evaluate_predictions(np.repeat(y, 10), np.repeat(p, 10, axis=0))
    for name in ("accuracy", "f1", "loss", "mcc", "brier", "roc_auc", "pr_auc"):
        assert copies[name].value == pytest.approx(once[name].value)
        width = copies[name].high - copies[name].low
        assert width == pytest.approx(once[name].high - once[name].low, rel=0.2), name
        assert naive[name].high - naive[name].low < width / 2, name


def test_many_rows_in_few_groups_are_counted_in_groups():
    # 600 rows in 60 groups of ten: no class and no outcome is rare in groups, so a group bootstrap it is.
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 10)
    y = random.choice(4, 600, p=[0.4, 0.3, 0.22, 0.08])
    wrong = random.random(600) < random.beta(1.5, 3, 60)[group]
    p = np.full((600, 4), 0.1)
    p[np.arange(600), np.where(wrong, (y + 1) % 4, y)] = 0.7
    result = evaluate_predictions(y, p, groups=group)
    # An independent group bootstrap, percentile: draw groups, concatenate their rows, scikit-learn's F1.
    from sklearn.metrics import f1_score

    predicted, drawn = p.argmax(axis=1), []
    for _ in range(400):
        picked = (random.integers(0, 60, 60)[:, None] * 10 + np.arange(10)).ravel()
        drawn.append(f1_score(y[picked], predicted[picked], average="macro"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert result["f1"].method == result["mcc"].method == "bias-corrected bootstrap of groups"
    assert result["f1"].high - result["f1"].low == pytest.approx(high - low, rel=0.15)
    # A class in four of the groups is rare, however many rows it has there.
    rare = np.where(group < 4, 1, 0)
    q = np.where(random.random(600)[:, None] < 0.8, np.eye(2)[rare], np.eye(2)[1 - rare]) * 0.8 + 0.1
    method = evaluate_predictions(rare, q, groups=group)["mcc"].method
    assert method.endswith("(unreliable: a class is in 4 groups)"), method
    # And so are wrong rows that are all in three groups.
    p = np.where((group < 3)[:, None], 1 - np.eye(2)[y % 2], np.eye(2)[y % 2])
    method = evaluate_predictions(y % 2, p, groups=group)["mcc"].method
    assert method.endswith("(wrong rows in only 3 groups)"), method


def test_threshold_decides_and_is_reported():
    y, p = [0, 0, 1, 1], [0.1, 0.3, 0.3, 0.9]
    result = evaluate_predictions(y, p, labels=["ham", "spam"], threshold=0.3)
    assert result.predictions["prediction"].tolist() == ["ham", "spam", "spam", "spam"]
    assert result.confusion_matrix.tolist() == [[1, 1], [0, 2]]
    assert "'spam' is predicted from a probability of 0.3 on." in str(result)


def test_ties_go_to_the_first_class_and_are_counted():
    result = evaluate_predictions([0, 1], [[0.5, 0.5], [0.5, 0.5]])
    assert result.predictions["prediction"].tolist() == ["0", "0"]
    assert any("2 of 2 rows have two equally probable classes" in line for line in result.warnings)


def test_probability_zero_for_the_truth_is_said():
    result = evaluate_predictions([0, 1] * 10, [[1.0, 0.0]] * 20)
    assert result.loss == pytest.approx(126 * math.log(2) / 2)  # the smallest normal float32 is 2**-126
    assert any(
        line.startswith("10 of 20 rows give their true class a probability too small")
        for line in result.warnings
    )


def test_duplicates_and_conflicts_are_said():
    result = evaluate_predictions([0, 1, 1, 0], [0.1, 0.9, 0.9, 0.1], texts=["a", "b", "b", "b"])
    assert "2 of 4 rows repeat the text of another row: they count twice." in result.warnings
    assert any(
        line.startswith("1 of the repeated texts stands there with different") for line in result.warnings
    )


def test_repeats_are_those_of_a_split_and_broken_characters_are_named():
    p = np.tile([0.4, 0.6], (4, 1))
    result = evaluate_predictions([0, 1, 0, 1], p, texts=["A film", "a  FILM", "\u00e9", "e\u0301"])
    assert "2 of 4 rows repeat the text of another row: they count twice." in result.warnings
    assert any(line.startswith("2 of the repeated texts stand there") for line in result.warnings)
    once = evaluate_predictions([0, 1, 0, 1], p, texts=["a", "a", "b", "c"])
    assert "1 of 4 rows repeats the text of another row: it counts twice." in once.warnings
    with pytest.raises(
        ValueError,
        match=r"^`texts` must hold valid Unicode; row 1 is 'b .*ud83d', with half a surrogate pair",
    ):
        evaluate_predictions([0, 1, 0, 1], p, texts=["a", "b \ud83d", "c", "d"])


def test_small_and_absent_classes_are_said():
    result = evaluate_predictions([0] * 6 + [1], np.full((7, 3), 1 / 3), labels=["a", "b", "c"])
    assert any(line.startswith("No row is c:") for line in result.warnings)
    assert any(line.startswith("Fewer than 5 rows of b (1):") for line in result.warnings)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_what_takes_grouped_rows_for_independent_ones_is_said(task):
    y, p = rows(60, 3)
    y = np.eye(3, dtype=int)[y] if task == "multilabel" else y
    texts = [f"{i} " + "word " * (i % 20) for i in range(60)]
    weighted = evaluate_predictions(y, p, task=task, texts=texts, sample_weight=np.arange(60))
    assert (weighted.calibration is None) == (task == "multilabel")
    assert all(one.accuracy.method.endswith("effective rows") for one in weighted.slices)
    assert len(weighted.slices) > 0
    assert not any("Left out" in line or "independent" in line for line in weighted.warnings)
    parts = ["calibration", "weak parts of the rows"][task == "multilabel" :]
    grouped = evaluate_predictions(y, p, task=task, texts=texts, groups=np.arange(60) // 3)
    assert grouped.warnings[-1].startswith(
        f"Computed as if the rows of a group were independent: {', '.join(parts)}."
    )


@pytest.mark.parametrize("kind", [str, Path])
def test_the_folder_of_a_run_stands_for_its_training_rows(tmp_path, kind):
    y, p = rows(40, 2)
    texts = [
        f"{'good' if label else 'bad'} " + chr(97 + i % 26) * 9 + str(i) * 5 for i, label in enumerate(y)
    ]
    x_train = [*(f"{word} other thing {i}" for i in range(15) for word in ("good", "bad")), texts[3]]
    y_train = [*(["pos", "neg"] * 15), ("neg", "pos")[y[3]]]
    pd.DataFrame({"text": x_train, "label": y_train}).to_parquet(tmp_path / "train.parquet", index=False)
    keywords = {"labels": ["neg", "pos"], "texts": texts}
    result = evaluate_predictions(y, p, train=kind(tmp_path), **keywords)
    assert result == evaluate_predictions(y, p, train=(x_train, y_train), **keywords)
    assert result.leaks.rows == (3,)
    assert len(result.baselines) == 2
    assert evaluate(Model(p, ("neg", "pos")), texts, y, train=kind(tmp_path)) == result


def test_a_folder_without_training_rows_is_one_sentence(tmp_path):
    then = "; pass the folder of a run that kept its training rows, or the rows themselves as a pair (x, y)."
    for folder, said in ((tmp_path, "has no train.parquet"), (tmp_path / "no", "is no folder")):
        with pytest.raises(FileNotFoundError) as error:
            evaluate_predictions([0, 1], [0.2, 0.9], train=folder)
        assert str(error.value) == f"`train` {str(folder)!r} {said}{then}"
    pd.DataFrame({"x": ["a"], "label": ["0"]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="needs the columns 'text' and 'label'; it has 'x', 'label'.$"):
        evaluate_predictions([0, 1], [0.2, 0.9], train=tmp_path)


# --- what goes in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 1],
        np.array([[0], [1], [1]]),
        [[1, 0], [0, 1], [0, 1]],
        ["ham", "spam", "spam"],
        pd.Series(["ham", "spam", "spam"], index=[7, 8, 9]),
        np.array([0.0, 1.0, 1.0]),
        [False, True, True],
    ],
)
@pytest.mark.parametrize(
    "p",
    [
        [0.2, 0.9, 0.4],
        [[0.2], [0.9], [0.4]],
        [[0.8, 0.2], [0.1, 0.9], [0.6, 0.4]],
        pd.DataFrame({"p_ham": [0.8, 0.1, 0.6], "p_spam": [0.2, 0.9, 0.4]}, index=[3, 4, 5]),
        np.array([0.2, 0.9, 0.4], dtype=np.float16),
    ],
)
def test_labels_and_probabilities_in_every_form(y, p):
    result = evaluate_predictions(y, p, labels=["ham", "spam"])
    assert result.confusion_matrix.tolist() == [[1, 0], [1, 1]]
    # -(ln 0.8 + ln 0.9 + ln 0.4) / 3 = (0.223144 + 0.105361 + 0.916291) / 3
    assert result.loss == pytest.approx(0.414_931, abs=3e-4)


def test_names_without_labels_come_from_the_columns_or_are_refused():
    frame = pd.DataFrame({"spam": [0.2, 0.9], "ham": [0.8, 0.1]})
    assert evaluate_predictions(["ham", "spam"], frame).accuracy == 1.0
    with pytest.raises(ValueError, match="`labels` is needed when `y_true` holds class names"):
        evaluate_predictions(["ham", "spam"], [0.2, 0.9])


BAD = {
    "no rows": (([], []), {}, "`probabilities` has no rows; at least one is needed."),
    "lengths": (
        ([0, 1, 1], [0.1, 0.9]),
        {},
        "`y_true` and `probabilities` must have the same number of rows; got 3 and 2.",
    ),
    "NaN": (
        ([0, 1], [0.1, math.nan]),
        {},
        "`probabilities` has NaN in row 1; drop the row or fill it.",
    ),
    "logits": (
        ([0, 1], [[3.0, -2.0], [0.0, 1.0]]),
        {},
        "`probabilities` must lie in [0, 1]; row 0 is [3, -2]. If these are logits, take "
        "their softmax (of one column: their sigmoid) first.",
    ),
    "sums": (
        ([0, 1], [[0.5, 0.5], [0.9, 0.3]]),
        {},
        "`probabilities` must sum to 1 in each row; row 1, [0.9, 0.3], sums to 1.2. Pass "
        "task='multilabel' for labels that do not exclude each other; divide each row by its sum where a "
        "class or a "
        "digit was left out.",
    ),
    "K": (
        ([0, 1], [[0.5, 0.5], [0.9, 0.1]]),
        {"labels": ["a", "b", "c"]},
        "`probabilities` must have one column for each of the 3 labels (a, b, c); got 2 columns.",
    ),
    "no y": (
        (None, [0.5]),
        {},
        "`y_true` is None; labels are needed: one class index or class name for each row.",
    ),
    "threshold of three": (
        ([0], [[0.2, 0.3, 0.5]]),
        {"threshold": 0.4},
        "`threshold` needs exactly two classes (or task='multilabel'); got 3 classes.",
    ),
    "threshold": (
        ([0], [0.5]),
        {"threshold": 1.0},
        "`threshold` must be a finite number above 0 and below 1; got 1.0.",
    ),
    "average": (
        ([0], [0.5]),
        {"average": "marco"},
        "`average` must be one of 'auto', 'binary', 'macro', 'micro', 'weighted'; got 'marco'. "
        "Did you mean 'macro'?",
    ),
    "weights": (
        ([0, 1], [0.5, 0.5]),
        {"sample_weight": [1, -1]},
        "`sample_weight` must be finite and not negative; row 1 is -1.0.",
    ),
    "no weight": (
        ([0, 1], [0.5, 0.5]),
        {"sample_weight": [0, 0]},
        "`sample_weight` is 0 in every row; at least one row must count.",
    ),
    "texts": (
        ([0, 1], [0.5, 0.5]),
        {"texts": ["a"]},
        "`texts` must have one value for each of the 2 rows; got 1.",
    ),
    "twice": (
        ([0], [0.5]),
        {"labels": ["a", "a"]},
        "`labels` must differ from each other; 'a' is there twice.",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case):
    arguments, keywords, message = BAD[case]
    with pytest.raises(ValueError) as error:
        evaluate_predictions(*arguments, **keywords)
    assert str(error.value) == message


# --- a model -----------------------------------------------------------------------------------------


def test_predict_is_called_once_and_agrees_with_evaluate_predictions():
    y, p = rows(50, 2)
    model = Model(p)
    texts = [f"text {i}" for i in range(50)]
    assert evaluate(model, texts, y) == evaluate_predictions(y, p, labels=model.labels, texts=texts)
    assert model.calls == 1
    assert evaluate(model, pd.Series(texts), y) == evaluate(model, np.array(texts, dtype=object), y)


def test_the_models_threshold_is_used():
    result = evaluate(Model(np.array([[0.7, 0.3], [0.6, 0.4]]), threshold=0.35), ["a", "b"], [0, 1])
    assert (result.threshold, result.accuracy) == (0.35, 1.0)


@pytest.mark.parametrize(
    ("x", "y", "keywords", "kind", "message"),
    [
        (["a"], None, {}, ValueError, "`y` is missing: evaluate needs the true label of each row of `x`."),
        ([], [], {}, ValueError, "`x` has no rows; at least one is needed."),
        (["a", "b"], [0], {}, ValueError, "`x` and `y` must have the same number of rows; got 2 and 1."),
        (
            ["a"],
            [2],
            {},
            ValueError,
            "`y` must be class indices from 0 to 1 or class names ('negative', 'positive'); row 0 is 2.",
        ),
        (
            ["a"],
            [0],
            {"treshold": 1},
            TypeError,
            "evaluate() got an unexpected keyword argument 'treshold'",
        ),
        (
            ["a"],
            [0],
            {"confidence": 95},
            ValueError,
            "`confidence` must be a finite number above 0 and below 1; got 95.",
        ),
        (
            np.array([[math.nan]]),
            [0],
            {},
            ValueError,
            "`x` has NaN in row 0, column 0; drop the row or fill it.",
        ),
    ],
)
def test_bad_input_is_refused_before_the_forward_pass(x, y, keywords, kind, message):
    model = Model(np.array([[0.5, 0.5]]))
    with pytest.raises(kind) as error:
        evaluate(model, x, y, **keywords)
    assert (str(error.value), model.calls) == (message, 0)


LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
SOFTMAX = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    "model",
    [
        Foreign(SOFTMAX, "sparse_categorical_crossentropy"),
        Foreign(SOFTMAX, None),
        Foreign(SOFTMAX, Loss("categorical_crossentropy", from_logits=True)),  # Keras looks behind a softmax
        Foreign(LOGITS, Loss("sparse_categorical_crossentropy", from_logits=True)),
        Foreign(LOGITS, [Loss("categorical_crossentropy", from_logits=True)]),
    ],
)
def test_outputs_of_three_columns(model):
    result = evaluate(model, np.zeros((2, 4)), [0, 1])
    # mean of log(sum exp z) - z_true = (0.241311 + 0.169846) / 2
    assert result.loss == pytest.approx(0.2055786, abs=1e-6)
    assert (result.labels, result.accuracy) == (("0", "1", "2"), 1.0)


@pytest.mark.parametrize(
    "model",
    [
        Foreign([[0.2], [0.9]], "binary_crossentropy"),
        Foreign([[0.2], [0.9]], None, ending="sigmoid"),
        Foreign([[0.2], [0.9]], Loss("binary_crossentropy", from_logits=True), ending="sigmoid"),
        Foreign(np.log([[0.25], [9.0]]), Loss("binary_crossentropy", from_logits=True)),
    ],
)
def test_outputs_of_one_column(model):
    result = evaluate(model, np.zeros((2, 4)), [0, 1])
    # -(ln 0.8 + ln 0.9) / 2
    assert result.loss == pytest.approx(0.1642520, abs=1e-6)
    assert result.predictions["p_1"].tolist() == pytest.approx([0.2, 0.9])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Foreign(LOGITS, "sparse_categorical_crossentropy"), "does not say that they are logits"),
        (Foreign(LOGITS, None), "not compiled"),
        (Foreign([[0.2], [0.9]], None), "may be logits or probabilities"),
        (
            Foreign([[0.2], [0.9]], "sparse_categorical_crossentropy"),
            "always 1; use a binary cross-entropy loss",
        ),
        (Foreign([[math.nan, 0.5], [0.5, 0.5]], None), "for row 0: not finite"),
        (Foreign(SOFTMAX[:1], None), "gave 1 row for 2 rows"),
    ],
)
def test_outputs_that_cannot_be_read_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, np.zeros((2, 4)), [0, 1])


def test_a_loss_that_differs_from_the_models_is_said():
    smoothed = Foreign(SOFTMAX, Loss("categorical_crossentropy", label_smoothing=0.1))
    assert "label smoothing 0.1" in evaluate(smoothed, np.zeros((2, 4)), [0, 1]).warnings[-1]
    plain = Foreign(SOFTMAX, Loss("categorical_crossentropy", label_smoothing=0.0))
    assert not any("compiled" in line for line in evaluate(plain, np.zeros((2, 4)), [0, 1]).warnings)


# --- what comes out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", ["plain", "weighted", "multilabel", "texts", "names"])
def test_save_and_load_round_trip_to_the_bit(tmp_path, extra):
    y, p = rows(40, 3)
    keywords = {
        "plain": {},
        "weighted": {"sample_weight": np.arange(40) / 7},
        "multilabel": {"task": "multilabel"},
        "texts": {"texts": [f"Größe {i}, “ok”\n" for i in range(40)], "threshold": None},
        "names": {"ids": [f"row {i}" for i in range(40)], "labels": ["ä", "b c", "d/e"]},
    }[extra]
    if extra == "multilabel":
        y = (p > 0.3).astype(int)
    result = evaluate_predictions(y, p, **keywords)
    assert Evaluation.load(result.save(tmp_path / "run")) == result
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "evaluation.json",
        "predictions.parquet",
    ]
    assert result != evaluate_predictions(y, p, **keywords, seed=1)
    json.loads((tmp_path / "run" / "evaluation.json").read_text(), parse_constant=pytest.fail)


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="has no evaluation.json; pass a folder that Evaluation.save wrote"
    ):
        Evaluation.load(tmp_path)


def test_predictions_hold_what_was_predicted():
    y, p = rows(5, 2)
    frame = evaluate_predictions(
        y, p, labels=["no", "yes"], texts=list("abcde"), ids=[5, 6, 7, 8, 9]
    ).predictions
    assert frame.columns.tolist() == [
        "id",
        "label",
        "prediction",
        "p_no",
        "p_yes",
        "loss",
        "text_hash",
        "text",
    ]
    np.testing.assert_array_equal(frame[["p_no", "p_yes"]].to_numpy(), p)
    np.testing.assert_allclose(frame["loss"], -np.log(p[np.arange(5), y].astype(float)))
    assert frame["text_hash"][0] == "ca978112ca1bbdca"  # sha256sum of "a"


def test_to_frame_and_item():
    result = evaluate_predictions(*rows(30, 3))
    frame = result.to_frame()
    assert len(frame) == len(result.estimates) + 3 * 3
    assert frame.set_index(["class", "metric"]).loc[("all", "f1"), "value"] == result.f1
    with pytest.raises(KeyError, match="Did you mean 'accuracy'"):
        result["acuracy"]


@pytest.mark.parametrize("classes", [2, 3, 12, 40])
def test_text_fits_a_terminal(classes):
    y, p = rows(400, classes)
    labels = [f"a class with quite a long name {k}" for k in range(classes)]
    text = str(evaluate_predictions(y, p, labels=labels, sample_weight=np.full(400, 1234.5)))
    assert max(map(len, text.splitlines())) <= 80


# --- for every input ---------------------------------------------------------------------------------

small = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.integers(2, 4),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
        st.lists(st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4), min_size=n, max_size=n),
    )
)


@settings(max_examples=40, deadline=None)
@given(small)
def test_no_input_crashes_or_gives_a_zero_width(case):
    classes, y, p = case
    y = np.array(y) % classes
    p = np.array(p)[:, :classes] + 1e-3
    p = p / p.sum(axis=1, keepdims=True)
    result = evaluate_predictions(y, p, n_resamples=100)
    for name, estimate in result.estimates.items():
        assert estimate.high - estimate.low > 1e-6, name
        assert math.isfinite(estimate.low) and math.isfinite(estimate.high), name
    for score in result.per_class:
        assert all(item.high - item.low > 1e-6 for item in (score.precision, score.recall, score.f1))
    assert max(map(len, str(result).splitlines())) <= 80
    order = np.random.default_rng(0).permutation(len(y))
    shuffled = evaluate_predictions(y[order], p[order], n_resamples=100)
    for name, estimate in result.estimates.items():
        assert shuffled[name].value == pytest.approx(estimate.value, abs=1e-9), name


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("n", [1, 2, 200])
def test_perfect_and_all_wrong_are_not_certain(right, n):
    y = np.arange(n) % 2
    p = np.eye(2)[y if right else 1 - y]
    result = evaluate_predictions(y, p, n_resamples=200)
    assert result.accuracy == float(right)
    for name, estimate in result.estimates.items():
        assert estimate.high - estimate.low > 1e-3, name


def test_nothing_heavy_is_imported():
    code = (
        "import sys, finetune_eval.evaluation.evaluate; "
        "print([m for m in ('tensorflow', 'keras', 'pandas', 'sklearn', 'scipy.stats') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_scoring_and_comparing_files_imports_nothing_slow(tmp_path):
    y, p = rows(200, 2)
    for name, shift in (("a", 0.0), ("b", 0.1)):
        second = np.clip(p[:, 1].astype(float) - shift, 0, 1)
        frame = pd.DataFrame({"label": y, "text": [f"text {i}" for i in y], "p_0": 1 - second, "p_1": second})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    code = (
        "import sys; from finetune_eval.evaluation.saved import load_predictions; "
        "from finetune_eval.evaluation.comparison import compare; "
        "a, b = map(load_predictions, sys.argv[1:]); text = str(a) + str(compare(a, b)); "
        "slow = ('tensorflow', 'keras', 'sklearn', 'scipy.stats', 'scipy.sparse', 'jinja2', 'matplotlib'); "
        "print([name for name in slow if name in sys.modules])"
    )
    files = [str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# --- files of predictions ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl"])
def test_predictions_of_any_framework_are_scored_from_a_file(tmp_path, ending):
    y, p = rows(40, 3)
    names = np.array(["NA", "low", "high"])
    frame = pd.DataFrame({"id": np.arange(40), "label": names[y]})
    for k, name in enumerate(names):
        frame[f"p_{name}"] = p[:, k].astype(np.float64)
    frame["weight"] = 1.0 + np.arange(40) % 3
    path = tmp_path / f"predictions.{ending}"
    {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "parquet": lambda: frame.to_parquet(path),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True, double_precision=15),
    }[ending]()
    loaded = load_predictions(path)
    direct = evaluate_predictions(
        y, p.astype(np.float64), labels=names, sample_weight=frame["weight"], ids=frame["id"]
    )
    assert loaded.labels == ("NA", "low", "high")
    np.testing.assert_array_equal(loaded.confusion_matrix, direct.confusion_matrix)
    assert loaded.loss == pytest.approx(direct.loss, rel=1e-12)
    assert loaded["f1"] == direct["f1"]


def test_one_probability_column(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("target,score\nspam,0.9\nham,0.2\nspam,0.4\n")
    with pytest.raises(ValueError, match="`labels` is needed when `y_true` holds class names"):
        load_predictions(path)
    result = load_predictions(path, labels=["ham", "spam"])
    assert (result.labels, result.confusion_matrix.tolist()) == (("ham", "spam"), [[1, 0], [1, 1]])
    path.write_text("y_true,probability\n1,0.9\n0,0.2\n1,0.4\n")
    assert load_predictions(path, labels=["ham", "spam"]).confusion_matrix.tolist() == [[1, 0], [1, 1]]


def test_a_saved_evaluation_is_scored_again(tmp_path):
    result = evaluate_predictions(*rows(50, 3), labels=["a", "b", "c"], texts=[f"t {i}" for i in range(50)])
    result.save(tmp_path)
    assert load_predictions(tmp_path / "predictions.parquet") == result


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("no.csv", None, FileNotFoundError, "does not exist; pass a file that does."),
        ("a.xls", "x", ValueError, "must end in .csv, .tsv, .jsonl, .ndjson, .json, .parquet."),
        (
            "a.csv",
            "p_a,p_b\n0.5,0.5\n",
            ValueError,
            "needs a column 'label' (or 'y_true', 'target') with the truth; it has 'p_a', 'p_b'.",
        ),
        ("b.csv", "label,x\na,0.5\n", ValueError, "it has 'label', 'x'."),
        ("c.csv", "label,p_a,p_b\n,0.5,0.5\n", ValueError, "`label` has no label in row 0"),
    ],
)
def test_files_that_cannot_be_scored(tmp_path, name, content, kind, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(kind) as error:
        load_predictions(tmp_path / name)
    assert message in str(error.value)


# --- invariances -------------------------------------------------------------------------------------


def test_renaming_labels_changes_nothing_but_the_names():
    y, p = rows(150, 3)
    plain, named = evaluate_predictions(y, p), evaluate_predictions(y, p, labels=["x", "y", "z"])
    assert plain.estimates == named.estimates
    assert plain.calibration == named.calibration


@pytest.mark.parametrize("classes", [2, 4])
def test_duplicating_all_rows_keeps_the_values_and_narrows_the_intervals(classes):
    y, p = rows(150, classes)
    once, twice = evaluate_predictions(y, p), evaluate_predictions(np.tile(y, 4), np.tile(p, (4, 1)))
    for name in once.estimates:
        assert twice[name].value == pytest.approx(once[name].value, abs=1e-9), name
        # four times the rows: half the width
        narrower = (twice[name].high - twice[name].low) / (once[name].high - once[name].low)
        assert 0.4 < narrower < 0.62, name


def test_a_row_of_weight_two_counts_like_two_rows():
    y, p = rows(80, 3)
    weights = np.random.default_rng(0).integers(1, 4, 80)
    weighted = evaluate_predictions(y, p, sample_weight=weights)
    repeated = evaluate_predictions(np.repeat(y, weights), np.repeat(p, weights, axis=0))
    for name in repeated.estimates:
        assert weighted[name].value == pytest.approx(repeated[name].value, abs=1e-9), name


@settings(max_examples=30, deadline=None)
@given(small, st.sampled_from(["weights", "groups", "both", "multilabel"]), st.integers(0, 9))
def test_no_zero_width_for_weights_groups_and_labels_that_do_not_exclude_each_other(case, kind, seed):
    classes, y, p = case
    random = np.random.default_rng(seed)
    y, p = np.array(y) % classes, np.array(p)[:, :classes] + 1e-3
    keywords = {"n_resamples": 100, "baselines": False}
    if kind == "multilabel":
        y, p = random.integers(0, 2, (len(y), classes)), np.minimum(p, 1.0)
        keywords["task"] = "multilabel"
    else:
        p = p / p.sum(axis=1, keepdims=True)
    if kind in ("weights", "both"):
        keywords["sample_weight"] = random.random(len(y)) + 0.01
    if kind in ("groups", "both") and len(y) > 1:
        keywords["groups"] = np.arange(len(y)) % 2 if seed % 2 else np.arange(len(y))
    result = evaluate_predictions(y, p, **keywords)
    for name, estimate in result.estimates.items():
        assert estimate.high - estimate.low > 1e-6, name
        assert estimate.low <= estimate.value <= estimate.high, name
    assert max(map(len, str(result).splitlines())) <= 80


def test_a_verdict_says_what_is_a_sum_of_weights():
    # Weights 2, 2, 1, 1: right are the rows of 2 + 1, and 'a' has 4 of 6.
    result = evaluate_predictions(
        [0, 0, 1, 1], [0.1, 0.9, 0.2, 0.8], labels=["a", "b"], sample_weight=[2, 2, 1, 1], n_resamples=100
    )
    text = " ".join(str(result).split())
    assert text.startswith("2 of 4 rows right: weighted accuracy 0.500, 95 % interval ")
    assert (
        "Always answering 'a' would be right on 4 of 6 by weight (0.667): the interval includes that." in text
    )


def test_a_loss_is_marked_as_best_where_it_is_low():
    result = evaluate_predictions([0, 1, 1], [0.2, 0.9, 0.4], labels=["ham", "spam"], n_resamples=100)
    lines = [line.split("  ")[0].rstrip() for line in str(result).splitlines()]
    assert {"log-loss (lower is better)", "Brier (lower is better)", "accuracy", "ROC-AUC"} <= set(lines)
    assert "undefined: no row is predicted as the class" in str(evaluate_predictions([0, 1], [0.2, 0.1]))
