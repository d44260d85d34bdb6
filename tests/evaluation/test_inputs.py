"""Which class a label means: by its name, by its place, or refused where both are possible."""

import re

import numpy as np
import pandas as pd
import pytest

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.evaluate import Evaluation, evaluate_predictions
from finetune_eval.evaluation.saved import load_predictions


def certain(y, classes):
    """Return probabilities that are right in every row."""
    return np.eye(classes)[y] * 0.7 + 0.3 / classes


@pytest.mark.parametrize(
    ("header", "labels", "right"),
    [
        ("1,0", ["1", "0"], [0, 1]),  # names, although the columns are in another order
        ("1,2,3", ["1", "3", "2"], [0, 2, 1]),
        ("1,2,3", ["1", "2", "1"], [0, 1, 0]),  # 1 and 2 would be places too
        ("0,1", ["1.0", "0.0"], [1, 0]),
        ("10,9,8,7,6,5,4,3,2,1,0", ["10", "3"], [0, 7]),
        ("True,False", ["True", "False"], [0, 1]),
        ("true,false", ["True", "False"], [0, 1]),
        ("no,yes", ["0", "1"], [0, 1]),  # places: no class is called 0
        ("no,yes", ["False", "True"], [0, 1]),
        ("NA,null", ["null", "NA"], [1, 0]),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_label_in_a_file_is_a_name_before_it_is_a_place(tmp_path, header, labels, right, ending):
    names = header.split(",")
    p = certain(right, len(names))
    frame = pd.DataFrame({"label": labels, **{f"p_{name}": p[:, k] for k, name in enumerate(names)}})
    path = tmp_path / f"predictions.{ending}"
    if ending == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    result = load_predictions(path)
    assert result.labels == tuple(names)
    assert result.predictions["label"].tolist() == [names[k] for k in right]
    assert result.accuracy == 1


def test_a_label_that_is_neither_is_refused(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("label,p_1,p_2\n1,0.9,0.1\n3,0.9,0.1\n")
    with pytest.raises(ValueError, match="unknown label '3' in row 1"):
        load_predictions(path)


def test_labels_put_the_columns_of_a_file_into_another_order(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("label,p_spam,p_ham\nspam,0.9,0.1\nham,0.2,0.8\n")
    result = load_predictions(path, labels=["ham", "spam"])
    assert (result.labels, result.confusion_matrix.tolist()) == (("ham", "spam"), [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="`labels` must name the classes of .*, spam, ham; got no, yes."):
        load_predictions(path, labels=["no", "yes"])


def test_columns_with_names_are_put_into_the_order_of_labels():
    y = np.array([0, 1, 2, 1])
    frame = pd.DataFrame(certain(y, 3), columns=["a", "b", "c"])[["c", "a", "b"]]
    result = evaluate_predictions(np.array(["a", "b", "c"])[y], frame, labels=["a", "b", "c"])
    assert (result.labels, result.accuracy) == (("a", "b", "c"), 1.0)


def test_numbers_beside_columns_that_are_numbers():
    frame = pd.DataFrame(certain([0, 2, 1], 3), columns=[1, 2, 3])
    assert evaluate_predictions([1, 3, 2], frame).accuracy == 1
    assert evaluate_predictions([0, 2, 1], frame).accuracy == 1
    assert evaluate_predictions(["1", "3", "2"], frame).accuracy == 1
    with pytest.raises(ValueError, match="numbers that may be names or places of the classes"):
        evaluate_predictions([1, 2, 1], frame)


def test_a_set_has_no_order():
    with pytest.raises(TypeError, match="a set has no order: pass a list"):
        evaluate_predictions([0, 1], [0.1, 0.9], labels={"a", "b"})


def test_a_prediction_that_the_probabilities_do_not_give_is_said(tmp_path):
    decided = evaluate_predictions([0, 1, 1], [0.2, 0.4, 0.9], labels=["ham", "spam"], threshold=0.3)
    decided.save(tmp_path)
    again = load_predictions(tmp_path / "predictions.parquet")
    assert (decided.accuracy, round(again.accuracy, 3)) == (1.0, 0.667)
    assert any("In 1 of 3 rows the file's column 'prediction'" in text for text in again.warnings)
    same = load_predictions(tmp_path / "predictions.parquet", threshold=0.3)
    assert same.accuracy == 1 and not any("column 'prediction'" in text for text in same.warnings)


def test_groups_stay_with_an_evaluation(tmp_path):
    random = np.random.default_rng(0)
    y = np.repeat(random.integers(0, 2, 40), 10)  # 40 customers with ten times the same row each
    groups = np.repeat([f"customer {i}" for i in range(40)], 10)
    a, b = (np.repeat(random.random(40), 10) * 0.5 + y * shift for shift in (0.5, 0.2))
    made = [evaluate_predictions(y, p, groups=groups) for p in (a, b)]
    plain = [evaluate_predictions(y, p) for p in (a, b)]
    grouped = compare(*made).pairs[0]
    assert grouped == compare(*plain, groups=groups).pairs[0]
    assert grouped.p_value > compare(*plain).pairs[0].p_value
    made[0].save(tmp_path)
    assert compare(Evaluation.load(tmp_path), plain[1]).pairs[0] == grouped
    assert load_predictions(tmp_path / "predictions.parquet")["accuracy"] == made[0]["accuracy"]
    with pytest.raises(ValueError, match="A and B were made with different groups; pass `groups`"):
        compare(made[0], evaluate_predictions(y, b, groups=np.arange(400) % 7))


@pytest.mark.parametrize("groups", [["a", None, "b"], ["a", "", "b"], [1.0, np.nan, 2.0]])
def test_a_row_without_a_group_is_refused(groups):
    with pytest.raises(ValueError, match="`groups` has no group in row 1"):
        evaluate_predictions([0, 1, 1], [0.2, 0.4, 0.9], groups=groups)


def test_a_file_of_another_program_is_read_or_refused_with_what_to_do(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("label;p_caf\xe9;p_no\ncaf\xe9;0.9;0.1\n", encoding="latin-1")
    with pytest.raises(ValueError, match="is not utf-8: byte 0xe9 in line 1.*encoding='cp1252'"):
        load_predictions(path)
    with pytest.raises(ValueError, match="if its delimiter is ';', pass delimiter=';'"):
        load_predictions(path, encoding="cp1252")
    assert load_predictions(path, encoding="cp1252", delimiter=";").labels == ("caf\xe9", "no")
    path.write_text("label,p_a,p_a\na,0.9,0.1\n")
    with pytest.raises(ValueError, match="two columns named 'p_a'; rename one"):
        load_predictions(path)


STARS = ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("dtype", ["int64", "float64", "object", "str"])
def test_stars_score_the_same_in_every_dtype_or_are_refused(dtype):
    stars = np.array([1, 2, 5, 4, 3])
    y = pd.Series(stars).astype(dtype)
    p = certain(stars - 1, 5)
    assert evaluate_predictions(y, p, labels=STARS).accuracy == 1  # 5 is no place: all are names
    few = y[:2].reset_index(drop=True)
    if dtype == "str":
        assert evaluate_predictions(few, p[:2], labels=STARS).accuracy == 1
    else:  # 1 and 2 are names and places
        with pytest.raises(ValueError, match="`y_true` holds numbers that may be names or places"):
            evaluate_predictions(few, p[:2], labels=STARS)
        with pytest.raises(ValueError, match="`train` holds numbers that may be names or places"):
            evaluate_predictions(y, p, labels=STARS, texts=list("abcde"), train=(["a", "b"], few))


def test_labels_may_be_an_array_a_series_or_id2label():
    y, p = ["spam", "ham"], [0.9, 0.2]
    for labels in (
        np.array(["ham", "spam"]),
        pd.Series(["ham", "spam"]),
        {1: "spam", 0: "ham"},
        {"spam": 1, "ham": 0},
    ):
        assert evaluate_predictions(y, p, labels=labels).accuracy == 1


def test_the_truth_as_columns_in_another_order():
    truth = pd.DataFrame({"spam": [1, 0], "ham": [0, 1]})
    assert evaluate_predictions(truth, [[0.1, 0.9], [0.8, 0.2]], labels=["ham", "spam"]).accuracy == 1
    many = pd.DataFrame({"late": [1, 0], "angry": [0, 0]})
    p = pd.DataFrame({"angry": [0.1, 0.2], "late": [0.9, 0.1]})
    assert evaluate_predictions(many, p, task="multilabel").accuracy == 1


@pytest.mark.parametrize("name", ["probabilities", "groups", "sample_weight", "texts", "ids", "metadata"])
def test_rows_of_another_order_are_refused(name):
    y = pd.Series([0, 1, 1], index=["a", "b", "c"])
    column = {
        "groups": ["x", "y", "x"],
        "texts": ["q", "r", "s"],
        "ids": [1, 2, 3],
        "metadata": ["u", "v", "w"],
    }
    values = pd.Series(column.get(name, [0.2, 0.9, 0.4]), index=["c", "b", "a"])
    given = {"probabilities": [0.2, 0.9, 0.4], name: values.to_frame() if name == "metadata" else values}
    with pytest.raises(
        ValueError, match=f"`y_true` and `{name}` name their rows differently: row 0 is 'a' in one"
    ):
        evaluate_predictions(y, given.pop("probabilities"), **given)


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"texts": {"a", "b", "c"}}, "`texts` is a set, which has no order"),
        ({"ids": {1, 2, 3}}, "`ids` is a set, which has no order"),
        ({"ids": ["a", None, "c"]}, "`ids` has no id in row 1; give every row one."),
        ({"texts": ["a", float("nan"), "c"]}, "`texts` has no text in row 1"),
        (
            {"sample_weight": np.ma.array([1.0, 2.0, 3.0], mask=[0, 0, 1])},
            r"`sample_weight` has a masked .* row 2",
        ),
        ({"sample_weight": [1.0, float("nan"), 1.0]}, "`sample_weight` has no weight in row 1"),
        ({"metadata": {"city": "Rome"}}, "`metadata` must be columns of values; 'city' is a str"),
        ({"lockbox": True}, "`lockbox` needs `texts` or `ids`"),
    ],
)
def test_what_is_beside_the_rows_is_checked(keywords, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        evaluate_predictions([0, 1, 1], [0.2, 0.9, 0.4], **keywords)


def test_masked_truth_and_probabilities_are_missing():
    for y, p in [
        (np.ma.array([0, 1], mask=[0, 1]), [0.1, 0.9]),
        ([0, 1], np.ma.array([0.1, 0.9], mask=[1, 0])),
    ]:
        with pytest.raises(ValueError, match=r"has a masked \(missing\) entry in row"):
            evaluate_predictions(y, p)


def test_rounding_is_no_error():
    assert evaluate_predictions([0, 1], [-2e-16, 1 + 2e-16]).accuracy == 1
    thirds = evaluate_predictions([0, 1, 2], np.full((3, 3), 0.33))
    assert thirds.loss == pytest.approx(np.log(3))  # each row divided by 0.99
    assert thirds.warnings[-1] == (
        "The probabilities of 3 of 3 rows sum to 0.990 to 0.990, not to 1, as rounded ones do: each was "
        "divided by the sum."
    )
    with pytest.raises(
        ValueError, match="sums to 1.8. Pass task='multilabel' for labels that do not exclude"
    ):
        evaluate_predictions([0, 1], [[0.9, 0.9], [0.1, 0.9]])


def test_rows_that_a_sampler_repeated_are_said():
    result = evaluate_predictions([0, 1, 1, 0], [0.1, 0.8, 0.8, 0.8], ids=[7, 8, 8, 8])
    assert (
        "2 of 4 rows repeat the ids of other rows and count twice; 1 id has more than one label."
        in result.warnings
    )


def test_identifiers_of_a_file_are_text(tmp_path):
    for name, ids in (("a", ["007", "", "12345678901234567890"]), ("b", ["7", "8", "12345678901234567891"])):
        lines = [f"{i},{y},{p}" for i, y, p in zip(ids, (0, 1, 1), (0.2, 0.9, 0.4), strict=True)]
        (tmp_path / f"{name}.csv").write_text("id,label,probability\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="`ids` has no id in row 1"):
        load_predictions(tmp_path / "a.csv")
    assert load_predictions(tmp_path / "b.csv").predictions["id"].tolist() == [
        "7",
        "8",
        "12345678901234567891",
    ]


@pytest.mark.parametrize("answer", ["prediction", "predicted", "y_pred"])
def test_the_score_of_a_pipeline_is_that_of_its_answer(tmp_path, answer):
    path = tmp_path / "p.csv"
    rows = [("neg", "neg", 0.9), ("neg", "pos", 0.7), ("pos", "pos", 0.8), ("pos", "pos", 0.95)]
    path.write_text(f"label,{answer},score\n" + "\n".join(f"{y},{a},{s}" for y, a, s in rows) + "\n")
    result = load_predictions(path, labels=["neg", "pos"])
    assert result.accuracy == 0.75
    assert result.predictions["p_pos"].round(3).tolist() == [0.1, 0.7, 0.8, 0.95]
    assert any("is read as the probability of the class in" in text for text in result.warnings)
    path.write_text(f"label,{answer},score\nneg,neg,0.2\npos,pos,0.9\n")  # of the second class
    assert load_predictions(path, labels=["neg", "pos"]).accuracy == 1
    path.write_text(f"label,{answer},score\nneg,pos,0.2\npos,neg,0.9\n")
    with pytest.raises(
        ValueError, match=f"'score' may be the probability of 'pos' or of the class in '{answer}'"
    ):
        load_predictions(path, labels=["neg", "pos"])


def test_columns_whose_names_only_begin_like_probabilities(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("label,p_neg,p_pos,p_value\nneg,0.9,0.1,0.3\npos,0.2,0.8,0.3\n")
    assert load_predictions(path, labels=["neg", "pos"]).accuracy == 1
    with pytest.raises(
        ValueError, match="The columns 'p_neg', 'p_pos', 'p_value' were taken for the probabilities"
    ):
        load_predictions(path)
    path.write_text("label,probability,p_value\nneg,0.1,0.3\npos,0.8,0.3\n")
    assert load_predictions(path, labels=["neg", "pos"]).accuracy == 1


def test_a_code_is_not_the_number_that_it_looks_like(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("label,p_0117,p_9604\n117,0.9,0.1\n9604,0.2,0.8\n")
    with pytest.raises(ValueError, match="unknown label '117' in row 0; the labels are '0117', '9604'"):
        load_predictions(path)


def test_columns_of_labels_that_do_not_exclude_each_other_may_have_any_order():
    y = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0]])
    frame = pd.DataFrame(y * 0.8 + 0.1, columns=["a", "b", "c"])
    for given in (frame, frame[["c", "a", "b"]], frame[["b", "c", "a"]].add_prefix("p_")):
        found = evaluate_predictions(y, given, labels=["a", "b", "c"], task="multilabel", n_resamples=100)
        assert found.accuracy == 1  # without the names: 0


RIGHT = certain(np.array([0, 1, 1, 0]), 2)


@pytest.mark.parametrize(
    "columns, labels",
    [
        ([1.0, 0.0], [0, 1]),  # whole numbers, as a column of them becomes once one is missing
        ([1, 0], ["neg", "pos"]),  # places
        (["p_pos", "p_neg"], ["neg", "pos"]),
        ([True, False], [False, True]),
    ],
)
def test_columns_are_read_by_their_names_whatever_these_are(columns, labels):
    y = [0, 1, 1, 0]
    p = pd.DataFrame(RIGHT[:, ::-1], columns=columns)
    assert evaluate_predictions(y, p, labels=labels, baselines=False, n_resamples=100).accuracy == 1
    if not isinstance(columns[0], str):
        truth = pd.DataFrame(np.eye(2)[y][:, ::-1], columns=columns)
        assert (
            evaluate_predictions(truth, RIGHT, labels=labels, baselines=False, n_resamples=100).accuracy == 1
        )


@pytest.mark.parametrize("columns", [["pos_score", "neg_score"], ["Pos", "Neg"], ["pos", "other"]])
def test_columns_with_other_names_than_the_classes_are_refused(columns):
    p = pd.DataFrame(RIGHT[:, ::-1], columns=columns)
    sentence = (
        "`probabilities` must have one column for each class, named 'neg', 'pos'; its columns are "
        f"{columns[0]!r}, {columns[1]!r}. Rename them, or pass `.to_numpy()` where they are in the order of "
        "the classes."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        evaluate_predictions([0, 1, 1, 0], p, labels=["neg", "pos"])


def test_probabilities_are_no_answers():
    sentence = (
        "`predicted` must hold answers; row 1 is 0.25, which names no class. Pass `probabilities` instead if "
        "these are probabilities."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        evaluate_predictions(["a", "b"], predicted=[1.0, 0.25], labels=["a", "b"])


def test_a_p_value_is_no_probability_of_a_class(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("label,p_neg,p_pos,p_value\nneg,0.9,0.1,0.03\npos,0.2,0.8,0.04\n")
    sentence = (
        f"{str(path)!r}: 'p_value' may be no probability of a class: no row is labelled so, and the other "
        "columns sum to 1 without it. Pass `labels`, or rename the column."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        load_predictions(path)
    found = load_predictions(path, labels=["neg", "pos"], baselines=False, n_resamples=100)
    assert found.labels == ("neg", "pos") and found.loss == pytest.approx(-np.log([0.9, 0.8]).mean())
    path.write_text(
        "label,p_neg,p_pos,p_rare\nneg,0.87,0.1,0.03\npos,0.2,0.76,0.04\n"
    )  # a class without rows
    assert load_predictions(path, baselines=False, n_resamples=100).labels == ("neg", "pos", "rare")
