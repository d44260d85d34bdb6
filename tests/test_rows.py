"""One check of rows: every container means the same; what is missing, masked or out of order is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_eval import _rows

CONTAINERS = [
    list,
    tuple,
    lambda v: np.array(v, dtype=object),
    lambda v: pd.Series(v, dtype=object),
    pa.array,
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_missing_text_never_becomes_the_word_nan(container):
    with pytest.raises(ValueError, match=r"`texts` has no text in row 1 \((None|nan)\); drop the row"):
        _rows.texts("texts", container(["a", None]))


@pytest.mark.parametrize("gone", [float("nan"), None, pd.NA, pd.NaT, np.datetime64("NaT")])
def test_what_is_missing(gone):
    assert _rows.is_missing(gone)
    with pytest.raises(ValueError, match="`texts` has no text in row 1"):
        _rows.texts("texts", ["a", gone])
    with pytest.raises(ValueError, match="`groups` has no group in row 0; give every row one."):
        _rows.groups("groups", [gone, "a"], 2)
    with pytest.raises(ValueError, match="`sample_weight` has no weight in row 1; give every row one."):
        _rows.weights("sample_weight", [1.0, gone], 2)


@pytest.mark.parametrize("check", [_rows.texts, _rows.numbers, lambda n, v: _rows.weights(n, v, 2)])
def test_masked_entries_are_missing(check):
    with pytest.raises(ValueError, match=r"`w` has a masked \(missing\) entry in row 1"):
        check("w", np.ma.array([1.0, 2.0], mask=[False, True]))


def test_a_masked_array_without_masked_entries_is_an_array():
    assert _rows.numbers("x", np.ma.array([1.0, 2.0])).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("rows", [{"a", "b"}, {"a": 1}, "ab", b"ab", 3, iter("ab")])
def test_what_is_no_column_is_refused(rows):
    with pytest.raises(TypeError, match="`x` "):
        _rows.column("x", rows)


def test_texts():
    assert _rows.texts("x", [np.str_("a"), b"b", ""]).tolist() == ["a", "b", ""]
    assert _rows.texts("x", pd.DataFrame({"t": ["a", "b"]})).tolist() == ["a", "b"]
    for rows, error, sentence in [
        (["a", 3], TypeError, r"`x` must hold texts; row 1 is 3 \(int\)."),
        (["a", b"\xff"], ValueError, "`x` has bytes in row 1 that are not UTF-8"),
        (["a", "\ud83d"], ValueError, "`x` must hold valid Unicode; row 1 is"),
        ([["a", "b"]], ValueError, r"`x` must have one value a row, shape \(rows,\); got \(1, 2\)."),
    ]:
        with pytest.raises(error, match=sentence):
            _rows.texts("x", rows)
    with pytest.raises(ValueError, match="`x` must hold a text in every row; row 1 is empty."):
        _rows.texts("x", ["a", " "], blank=False)


def test_texts_of_every_script_are_looked_at():
    many = ["नहीं", "ascii", "café"] * 100
    assert _rows.texts("x", many).tolist() == many
    with pytest.raises(ValueError, match="`x` must hold valid Unicode; row 301 is"):
        _rows.texts("x", [*many, "b", "\ud83d"])
    with pytest.raises(ValueError, match=r"`x` has no text in row 1 \(None\); drop the row or fill it."):
        _rows.texts("x", ["a", None], blank=False)


@pytest.mark.parametrize("cell", [[1], {"a": 1}, {1}, np.array([1])])
def test_a_group_is_a_single_value(cell):
    cells = pd.Series(["a", cell])
    with pytest.raises(TypeError, match="`groups` must hold a text or a number in every row; row 1 is "):
        _rows.groups("groups", cells, 2)


def test_numbers():
    for rows, error, sentence in [
        ([[1.0, np.nan]], ValueError, "`x` has NaN in row 0, column 1; drop the row or fill it."),
        ([1.0, np.inf], ValueError, "`x` has infinity in row 1"),
        ([1, None], ValueError, "`x` has NaN in row 1"),
        (pd.Series([1, None], dtype="Int64"), ValueError, "`x` has NaN in row 1"),
        ([1 + 2j], TypeError, "`x` must hold real numbers"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), TypeError, "`x` must hold real numbers"),
        (["1", "2"], TypeError, "`x` must hold real numbers; got '1'"),
        ([[1, "2"]], TypeError, "`x` must hold real numbers; got '2'"),
        ([[1], [1, 2]], ValueError, "`x` has rows of different lengths"),
    ]:
        with pytest.raises(error, match=sentence):
            _rows.numbers("x", rows)
    with pytest.raises(ValueError, match="`x` must hold numbers that float32 can hold; row 1 has 1e\\+39."):
        _rows.float32("x", [1.0, 1e39])


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([1.0, -1.0], "`w` must be finite and not negative; row 1 is -1.0."),
        ([1.0, np.inf], "row 1 is inf"),
        ([0.0, 0.0], "`w` is 0 in every row; at least one row must count."),
        ([1e308, 1e308], "divide all weights by their maximum"),
        ([5e-324, 5e-324], "divide all weights by their maximum"),
        ([1.0], "`w` must have one value for each of the 2 rows; got 1."),
    ],
)
def test_weights(weights, sentence):
    with pytest.raises(ValueError, match=sentence):
        _rows.weights("w", weights, 2)


@given(st.lists(st.one_of(st.integers(), st.text(min_size=1).filter(str.strip), st.booleans()), min_size=1))
def test_equal_values_and_no_others_are_one_group(values):
    codes = _rows.groups("g", values, len(values)).tolist()
    for a, first in zip(values, codes, strict=True):
        for b, second in zip(values, codes, strict=True):
            assert (a == b) == (first == second)


def test_identifiers_of_twenty_digits_stay_apart():
    ids = [12345678901234567890, 12345678901234567891]
    for column in (
        ids,
        pd.Series([*ids, None], dtype="UInt64"),
        pa.array([*ids, None], pa.uint64()),
        [*ids, 0.5],
    ):
        assert len(set(map(str, _rows.column("ids", column)[:2]))) == 2


def test_rows_that_are_named_in_another_order_are_refused():
    y = pd.Series([1, 0, 1], index=["a", "b", "c"])
    p = pd.DataFrame({"p": [0.1, 0.2, 0.3]}, index=["c", "a", "b"])
    with pytest.raises(ValueError) as error:
        _rows.same_order(y_true=y, probabilities=p)
    assert str(error.value) == (
        "`y_true` and `probabilities` name their rows differently: row 0 is 'a' in one index and 'c' in "
        "the other. "
        "Bring one into the order of the other (`probabilities = probabilities.loc[y_true.index]`), or, "
        "where their "
        "rows are in the same order already, call `.reset_index(drop=True)` on both."
    )
    _rows.same_order(y_true=y, probabilities=p.loc[y.index])
    with pytest.raises(ValueError, match="name their rows differently"):  # 0, 1, 2 in another order
        _rows.same_order(y_true=pd.Series([1, 0, 1], index=[2, 0, 1]), probabilities=p.reset_index(drop=True))


def test_an_index_that_only_counts_names_nothing():
    part = pd.Series([1, 0, 1], index=[7, 2, 9])  # some rows of a larger table
    _rows.same_order(y_true=part, probabilities=pd.DataFrame({"p": [0.1, 0.2, 0.3]}))
    _rows.same_order(y_true=part, probabilities=np.zeros(3), texts=["a", "b", "c"])
    _rows.same_order(
        y_true=part, groups=pd.Series(["x", "y", "y"], index=["a", "b", "c"])
    )  # other names altogether
    with pytest.raises(ValueError, match="row 1 is 2 in one index and 3 in the other"):
        _rows.same_order(y_true=part, groups=pd.Series(["x", "y", "y"], index=[7, 3, 9]))


@pytest.mark.parametrize("container", CONTAINERS)
def test_texts_are_told_from_numbers(container):
    assert _rows.are_texts(container([None, "a"]))
    assert not _rows.are_texts(container([1, 2]))
    assert not _rows.are_texts(np.zeros((2, 3)))
    assert not _rows.are_texts({"token_ids": [1]})


def test_columns_in_another_order():
    a = pd.DataFrame({"height": [1.0, 2.0], "weight": [3.0, 4.0]})
    _rows.same_columns(old=a, new=a)
    _rows.same_columns(old=a, new=a.to_numpy())
    _rows.same_columns(old=a, new=a.set_axis(["x", "y"], axis="columns"))  # nothing certain
    with pytest.raises(ValueError) as error:
        _rows.same_columns(old=a, new=a[["weight", "height"]])
    assert str(error.value) == (
        "`old` and `new` have their columns in another order: column 0 is 'height' in one and 'weight' in "
        "the other. Bring one into the order of the other (`new = new[old.columns]`)."
    )
