"""One reading of labels: a number, a text or a truth value names a class or is its place, never both."""

import copy
import pickle
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from finetune_eval._labels import ClassIndices, class_names, find, read, read_many

STARS = ("1", "2", "3", "4", "5")
WORDS = ("negative", "positive")


@pytest.mark.parametrize(
    ("y", "labels", "places"),
    [
        # Names that are numbers: 5 can only be a name, 0 can only be a place.
        ([5, 4, 1], STARS, [4, 3, 0]),
        ([0, 1, 4], STARS, [0, 1, 4]),
        ([1.0, 5.0], STARS, [0, 4]),
        (["1", "2"], STARS, [0, 1]),
        (["1.0", "5.0"], STARS, [0, 4]),
        ([0.5, 1.0], ("0.5", "1", "1.5"), [0, 1]),
        # 0 and 1 are both, and mean the same both ways; 10 is a name, 2 a place.
        ([0, 1], ("0", "1", "10"), [0, 1]),
        ([0, 1, 10], ("0", "1", "10"), [0, 1, 2]),
        ([0, 1, 2], ("0", "1", "10"), [0, 1, 2]),
        (["0", "1", "10"], ("0", "1", "10"), [0, 1, 2]),
        ([0, 1], ("00", "01"), [0, 1]),
        # Truth values.
        ([True, False], ("True", "False"), [0, 1]),
        ([True, False], WORDS, [1, 0]),
        ([True, False], ("0", "1"), [1, 0]),
        (["True", "False"], WORDS, [1, 0]),
        ([0, 1], ("False", "True"), [0, 1]),
        # Names that are no numbers.
        ([0, 1], WORDS, [0, 1]),
        (["0", "1"], WORDS, [0, 1]),
        (["positive", b"negative"], WORDS, [1, 0]),
        ([1, "2"], ("1", "2"), [0, 1]),
    ],
)
@pytest.mark.parametrize(
    "container", [list, np.array, pd.Series, lambda y: np.array(y, dtype=object), pa.array]
)
def test_one_reading_for_every_dtype_and_container(y, labels, places, container):
    kinds = {type(value) for value in y}
    if len(kinds) > 1 and container in (np.array, pa.array):
        pytest.skip("these containers hold one type only")
    assert read("y", container(y), labels).tolist() == places


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int64", "float32", "float64", "object", "Int64", "category"]
)
@pytest.mark.parametrize(
    ("y", "labels"),
    [
        ([1, 2, 3, 4], STARS),
        ([1, 0], ("1", "0")),
        ([0, 1], ("01", "00")),
        ([1], ("1", "2")),
        ([0, 1], ("True", "False")),
    ],
)
def test_numbers_with_two_readings_are_refused(y, labels, dtype):
    with pytest.raises(ValueError, match="holds numbers that may be names or places"):
        read("y", pd.Series(y, dtype=dtype), labels)


def test_the_refusal_says_which_number_and_what_to_do():
    with pytest.raises(ValueError) as error:
        read("y_true", [1, 2, 3, 4], STARS)
    assert str(error.value) == (
        "`y_true` holds numbers that may be names or places of the classes '1', '2', '3', '4', '5': 1 in "
        "row 0 is the "
        "name of one class and the place of another. Pass the names as text, or arrange the classes so "
        "that names and "
        "places agree."
    )


@pytest.mark.parametrize(
    ("y", "labels", "sentence"),
    [
        (["117"], ("0117", "0118"), "`y` has an unknown label '117' in row 0"),
        (
            [117],
            ("0117", "0118"),
            "`y` must be class indices from 0 to 1 or class names ('0117', '0118'); row 0 is 117",
        ),
        (["1.1"], ("1.10", "1.2"), "`y` has an unknown label '1.1' in row 0"),
        (["neg", "neg "], ("neg", "pos"), "`y` has an unknown label 'neg ' in row 1; .* Did you mean 'neg'?"),
        ([0, 5], STARS, "0 in row 0 is no name, 5 in row 1 is no place (0 to 4)"),
        ([0, "positive"], WORDS, "0 in row 0 is none of 'negative', 'positive'"),
        ([0, 2], WORDS, "row 1 is 2"),
        ([0.5], WORDS, "row 0 is 0.5"),
        ([-1], WORDS, "row 0 is -1"),
        ([[1, 1]], WORDS, "with exactly one 1 in each row and the rest 0; row 0 is [1, 1]"),
        ([[0.4, 0.6]], WORDS, "with exactly one 1 in each row and the rest 0; row 0 is [0.4, 0.6]"),
        ([["a"]] * 2 + [["a", "b"]], WORDS, "rows of different lengths"),
        (None, WORDS, "`y` is None"),
    ],
)
def test_a_label_of_no_class_is_refused_by_row(y, labels, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence).replace(r"\.\*", ".*")):
        read("y", y, labels)


@pytest.mark.parametrize("gone", [None, float("nan"), pd.NA, pd.NaT, np.ma.masked, "", " "])
def test_a_missing_label_is_refused(gone):
    with pytest.raises(ValueError, match="`y` has no label in row 1"):
        read("y", [0, gone], WORDS)


def test_masked_and_null_labels_are_refused():
    with pytest.raises(ValueError, match=r"`y` has a masked \(missing\) entry in row 1"):
        read("y", np.ma.array([1, 0], mask=[False, True]), WORDS)
    for null in (pd.Series([1, None], dtype="Int64"), pa.array([1, None]), pd.Series(["positive", None])):
        with pytest.raises(ValueError, match="`y` has no label in row 1"):
            read("y", null, WORDS)


@pytest.mark.parametrize("y", [{"negative", "positive"}, {0: "negative"}, "positive", 1, iter([0, 1])])
def test_what_is_no_column_is_refused(y):
    with pytest.raises(TypeError, match="`y` "):
        read("y", y, WORDS)


def test_dates_and_complex_numbers_are_no_labels():
    for y in (np.array(["2020-01-01"], dtype="datetime64[D]"), np.array([1 + 0j])):
        with pytest.raises(TypeError, match="`y` must hold class indices or class names"):
            read("y", y, WORDS)


def test_one_hot_rows_and_their_columns_by_name():
    assert read("y", np.eye(2), WORDS).tolist() == [0, 1]
    turned = pd.DataFrame(np.eye(2), columns=["positive", "negative"])
    assert read("y", turned, WORDS).tolist() == [1, 0]
    assert read("y", turned.astype(bool), WORDS).tolist() == [1, 0]
    assert read("y", pd.DataFrame(np.eye(2)), WORDS).tolist() == [0, 1]  # columns 0 and 1 are places
    with pytest.raises(
        ValueError, match="`y` must have one column for each class, named 'negative', 'positive'"
    ):
        read("y", pd.DataFrame(np.eye(2), columns=["bad", "good"]), WORDS)
    many = pd.DataFrame([[1, 0], [1, 1]], columns=["late", "angry"])
    assert read_many("y", many, ("angry", "late")).tolist() == [[0, 1], [1, 1]]


def test_places_that_know_their_names_cannot_be_misread():
    y = ClassIndices([0, 1, 1], ("1", "0"))
    assert read("y", y, ("1", "0")).tolist() == [0, 1, 1]
    assert read("y", y[1:], ("0", "1")).tolist() == [0, 0]  # by name: the class "0" has another place there
    assert read("y", ClassIndices([0, 1], ("bad", "good")), ("good", "bad")).tolist() == [1, 0]
    assert read("y", ClassIndices([0, 1], ("bad", "good")), ("0", "1")).tolist() == [0, 1]  # no names there
    with pytest.raises(ValueError, match="`y` has an unknown label 'fair' in row 1"):
        read("y", ClassIndices([0, 2], ("bad", "good", "fair")), ("bad", "good", "other"))


def test_what_is_computed_from_places_is_an_ordinary_array():
    y = ClassIndices([0, 1, 1], ("bad", "good"))
    assert type(y == 1) is type(1 - y) is np.ndarray
    assert type(y.sum()) is np.int64
    assert y[[2, 0]].labels == ("bad", "good")
    assert read("y", 1 - y, ("bad", "good")).tolist() == [1, 0, 0]


def test_places_keep_their_names_on_the_way():
    y = ClassIndices([0, 1, 1], ("bad", "good"))
    copies = [pickle.loads(pickle.dumps(y)), copy.deepcopy(y), y.copy(), y.astype("int32"), y.reshape(-1, 1)]
    for same in (*copies, y.astype("float32")):
        assert same.labels == ("bad", "good")
        assert read("y", same, ("good", "bad")).tolist() == [1, 0, 0]
        assert find("y", same)[0].tolist() == [0, 1, 1] and find("y", same)[1] == ("bad", "good")
    assert type(np.concatenate([y, ClassIndices([0], ("good", "bad"))])) is np.ndarray  # no one's names


def test_half_a_surrogate_pair_is_no_label():
    with pytest.raises(
        ValueError, match="`y` must hold valid Unicode; row 1 is '.ud83d', with half a surrogate"
    ):
        find("y", ["a", "\ud83d"])


def test_class_names():
    assert class_names(np.array([1, 2])) == class_names(pd.Series([1.0, 2.0])) == ("1", "2")
    assert class_names([False, True]) == ("False", "True")
    assert class_names({1: "good", 0: "bad"}) == class_names({"good": 1, "bad": 0}) == ("bad", "good")
    assert class_names({"1": "good", "0": "bad"}) == ("bad", "good")  # JSON has no number as a key
    for labels, error, sentence in [
        ({"a", "b"}, TypeError, "a set has no order"),
        ("ab", TypeError, "the single text 'ab'"),
        (2.5, TypeError, "must be a list of class names"),
        (["a"], ValueError, "at least two classes"),
        (
            ["a", "\ud800"],
            ValueError,
            "must hold valid Unicode; the class '\\ud800' has half a surrogate pair",
        ),
        ([1, "1"], ValueError, "'1' is there twice"),
        (["a", None], ValueError, "no class name at place 1"),
        (["a", ""], ValueError, "empty class name at place 1"),
        ({0: "a", 2: "b"}, ValueError, "one of the places 0 to 1"),
    ]:
        with pytest.raises(error, match=re.escape(sentence)):
            class_names(labels)


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (["02134", "2134"], ("02134", "2134")),  # a postcode keeps its zeros
        (["1_2", "12"], ("12", "1_2")),
        (["1e3", "1000"], ("1000", "1e3")),
        (["123456789012345678", "123456789012345679"], ("123456789012345678", "123456789012345679")),
        ([123456789012345678, 123456789012345679], ("123456789012345678", "123456789012345679")),
        (["1", "1.0", "2"], ("1", "2")),
        (["1.10", "1.1"], ("1.1", "1.10")),
        ([10, 7], ("7", "10")),
        ([True, False], ("False", "True")),
    ],
)
def test_classes_are_named_as_the_data_name_them(y, names):
    assert find("y", y)[1] == names


def test_measurements_are_no_classes():
    for y, sentence in [
        ([0.25, 1], "row 0 is 0.25"),
        ([1e20, 1.0], "numbers that a float holds exactly; row 0"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            find("y", y)
    with pytest.raises(ValueError, match="`y` has only one class, 'a'"):
        find("y", ["a", "a"])


def test_a_withheld_answer_is_no_label():
    """`decide` gives -1, which is neither a class called "-1" nor the last of a tuple of names."""
    withheld = ClassIndices([1, -1, 0], WORDS)
    sentence = r"^`y` has no label in row 1: the answer was withheld there \(-1\). Drop such rows or give "
    for labels in (WORDS, WORDS[::-1], ("-1", "0", "1")):
        with pytest.raises(ValueError, match=sentence):
            read("y", withheld, labels)
    with pytest.raises(ValueError, match=sentence):
        find("y", withheld)
    assert read("y", withheld[withheld >= 0], WORDS[::-1]).tolist() == [0, 1]


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"b": [True, False, True], "a": [0, 1, 1]}),  # NumPy makes objects of bool beside int
        pd.DataFrame({"b": [1, 0, 1], "a": [0, 1, 1]}).astype("Int64"),
        pd.DataFrame({"b": ["1", "0", "1"], "a": ["0", "1", "1"]}),
    ],
    ids=["mixed", "nullable", "texts"],
)
def test_zeros_and_ones_are_read_whatever_their_dtype(table):
    assert read_many("y", table, ("a", "b")).tolist() == [[0, 1], [1, 0], [1, 1]]
    odd = table.astype(object)
    odd.iloc[1, 0] = None
    with pytest.raises(ValueError, match=r"^`y` must be zeros and ones; row 1 is \["):
        read_many("y", odd, ("a", "b"))
