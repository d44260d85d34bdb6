"""Which class a label means: by its name, by its place, or refused where both are possible."""

import numpy as np
import pandas as pd
import pytest

from finetune_eval.evaluation.comparison import compare
from finetune_eval.evaluation.evaluate import Evaluation, evaluate_predictions, load_predictions


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
    with pytest.raises(ValueError, match="row 1 is 3"):
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
    with pytest.raises(ValueError, match="may be the names or the places of the columns"):
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
