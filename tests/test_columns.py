"""Rows of a text with numbers and categories beside it: how they are read, and what is learnt of them."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import finetune_eval as fe
from finetune_eval import _columns
from finetune_eval._columns import MOST_VALUES, Columns
from finetune_eval.data.ledger import rows_hash

KINDS = {"price": "number", "country": "category"}
DECLARED = Columns.declared(KINDS)


def rows(n=40, seed=0):
    """Return rows of all three kinds, some with a missing number or category."""
    random = np.random.default_rng(seed)
    price = random.lognormal(3, 1, n)
    price[::7] = np.nan
    country = random.choice(np.array(["FR", "DE", "US", None], dtype=object), n)
    return {"text": [f"review {row}" for row in range(n)], "price": price, "country": country}


def test_columns_are_told_by_their_names_in_whatever_container():
    x = rows()
    read = DECLARED.read("x", x)
    assert read.dtype.names == ("text", "country", "price") and read.shape == (40,)
    shuffled = {name: x[name] for name in ("price", "country", "text")}
    records = [dict(zip(x, row, strict=True)) for row in zip(*x.values(), strict=True)]
    for same in (shuffled, pd.DataFrame(shuffled), records, read, fe.rows_of_columns(x, KINDS)):
        other = DECLARED.read("x", same)
        assert _columns.as_lines(other).tolist() == _columns.as_lines(read).tolist()
    assert Columns.declared({"country": "category", "price": "number"}) == DECLARED
    named = Columns.declared({"review": "text", **KINDS})
    assert named.read("x", pd.DataFrame(x).rename(columns={"text": "review"})).dtype.names[0] == "review"
    assert Columns.of_rows(read) == DECLARED


def test_a_number_is_brought_to_mean_0_and_spread_1_as_scikit_learn_does():
    x = DECLARED.read("x", rows())
    found = DECLARED.learn(x).inputs("x", x)
    there = ~np.isnan(x["price"])
    scaler = StandardScaler().fit(x["price"][there, None])
    np.testing.assert_allclose(
        found[there, -2], scaler.transform(x["price"][there, None])[:, 0], rtol=0, atol=1e-6
    )
    assert (found[~there, -2] == 0).all() and np.array_equal(found[:, -1], ~there)


def test_a_category_is_the_one_hot_code_of_scikit_learn():
    x = DECLARED.read("x", rows())
    learnt = DECLARED.learn(x)
    codes = learnt.inputs("x", x)[:, : MOST_VALUES + 2]
    encoder = OneHotEncoder(categories=[[*learnt.learnt[0], None]], sparse_output=False)
    expected = encoder.fit_transform(x["country"][:, None])
    assert np.array_equal(codes[:, [0, 1, 2, MOST_VALUES + 1]], expected)
    assert (codes.sum(axis=1) == 1).all()
    new = {"text": ["a", "b"], "price": [1, 2], "country": ["GB", ""]}
    unseen, blank = learnt.inputs("x", learnt.read("x", new))[:, : MOST_VALUES + 2].argmax(axis=1)
    assert (unseen, blank) == (MOST_VALUES, MOST_VALUES + 1)


def test_the_most_frequent_values_have_an_input_of_their_own_and_ties_go_by_name():
    words = [f"c{place:02}" for place in range(40)]
    country = [*words[::-1], "c39", "c38", "c38"]
    x = DECLARED.read("x", {"text": ["a"] * 43, "price": range(43), "country": country})
    values = DECLARED.learn(x).learnt[0]
    assert values == ("c38", "c39", *words[: MOST_VALUES - 2])


def test_the_order_of_the_rows_changes_no_bit_and_rows_of_weight_0_do_not_count():
    x = DECLARED.read("x", rows(500))
    x["price"] *= 10.0 ** np.random.default_rng(1).integers(-3, 9, 500)  # sums that depend on their order
    turned = np.random.default_rng(2).permutation(500)
    assert DECLARED.learn(x[turned]).learnt == DECLARED.learn(x).learnt
    weights = np.where(np.arange(500) < 300, 2.5, 0)
    assert DECLARED.learn(x, weights).learnt == DECLARED.learn(x[:300]).learnt


@pytest.mark.parametrize("price", [[7.0] * 4, [0.1] * 4, [1e9, 1e9, 1e9, 1e9 + 1e-7], [None] * 4])
def test_a_constant_or_empty_column_gives_0(price):
    x = DECLARED.read("x", {"text": list("abcd"), "price": price, "country": [None] * 4})
    learnt = DECLARED.learn(x)
    assert (learnt.inputs("x", x)[:, -2] == 0).all()
    other = learnt.read("x", {"text": ["a"], "price": [3.0], "country": ["DE"]})
    assert learnt.inputs("x", other)[0, -2] == 0


def test_one_value_is_one_category_however_it_is_written():
    alike = [[1, 0], [1.0, 0.0], ["1", "0"], ["1.0", "0.0"], [True, False], ["True", "false"], [b"1", b"0"]]
    for values in [*alike, pd.Series([1, 0], dtype="Int64"), pd.Categorical([1, 0])]:
        found = fe.rows_of_columns({"text": ["a", "b"], "country": values}, {"country": "category"})
        assert found["country"].tolist() == ["1", "0"]
    kept = fe.rows_of_columns({"text": ["a"] * 3, "country": ["01", "DE ", "None"]}, {"country": "category"})
    assert kept["country"].tolist() == ["01", "DE ", "None"]


def test_numbers_of_all_kinds_are_read_and_what_is_missing_is_nan():
    for values in ([1, 0, None], [True, False, None], pd.Series([1, 0, None], dtype="Int64")):
        found = fe.rows_of_columns({"text": ["a", "b", "c"], "price": values}, {"price": "number"})
        np.testing.assert_array_equal(found["price"], [1.0, 0.0, np.nan])


ONE = {"text": ["a", "b"], "price": [1.0, 2.0], "country": ["DE", "FR"]}


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (["a", "b"], "`x` must be a dictionary, a DataFrame or a list of dictionaries with the columns "
         "'text', 'country', 'price', which the model reads by their names; got list."),
        ({"text": ["a"], "Price": [1], "country": ["DE"]}, "`x` has no column 'price', which the model reads "
         "as a number; it has 'text', 'Price', 'country'. Did you mean 'Price'?"),
        ({**ONE, "stars": [1, 2]}, "`x` has a column that the model does not read: 'stars'. Pass 'text', "
         "'country', 'price' alone, or build the model with the others in `columns`."),
        ([{"text": "a", "price": 1, "country": "DE"}, {"text": "a", "price": 1}], "`x[1]` has no column "
         "'country', which the model reads as a category; it has 'text', 'price'."),
        ({**ONE, "price": [1.0]}, "`x` must have as many rows in every column; 'text' has 2 and "
         "'price' has 1."),
        ({**ONE, "price": [1.0, "12 EUR"]}, "`x['price']` must hold numbers; row 1 is '12 EUR' (str). "
         "Convert the column, or declare it a 'category'."),
        ({**ONE, "price": [1.0, np.inf]}, "`x['price']` must hold numbers that float32 can hold; row 1 is "
         "inf. Drop the row, or leave the number missing (NaN)."),
        ({**ONE, "price": [1, 10**400]}, "`x['price']` must hold numbers that float32 can hold; row 1 "
         f"is {'1' + '0' * 56}.... Drop the row, or leave the number missing (NaN)."),
        ({**ONE, "country": ["DE", 0.5]}, "`x['country']` must hold texts, whole numbers or truth values; "
         "row 1 is 0.5 (float). Write it as a text, or declare the column a 'number'."),
        ({**ONE, "text": ["a", None]}, "`x['text']` has no text in row 1 (None); drop the row, or write '' "
         "where a text is empty."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence(x, sentence):
    with pytest.raises((TypeError, ValueError)) as refused:
        DECLARED.read("x", x)
    assert str(refused.value) == sentence


def test_columns_of_series_whose_rows_have_other_names_are_refused():
    price = pd.Series([1.0, 2.0], index=["b", "a"])
    with pytest.raises(ValueError, match=r"^`x\['text'\]` and `x\['price'\]` name their rows differently"):
        DECLARED.read("x", {**ONE, "text": pd.Series(["a", "b"], index=["a", "b"]), "price": price})


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (["price"], "`columns` must be a dictionary from the name of a column to its kind, such as {'price': "
         "'number', 'country': 'category'}; got list."),
        ({"price": "numbr"}, "`columns['price']` must be one of 'text', 'number', 'category'; got 'numbr'. "
         "Did you mean 'number'?"),
        ({1: "number"}, "`columns` must name columns by texts; got 1."),
        ({"a": "text", "b": "text", "c": "number"}, "`columns` must have one text; it has 'a', 'b'. Join "
         "them to one."),
        ({"text": "number"}, "`columns` has 'text' as a number and says of no column that it is the "
         "text; add its name, such as 'review': 'text'."),
        ({"a": "text"}, "`columns` must have a number or a category beside the text; leave it out else."),
    ],
)  # fmt: skip
def test_what_is_declared_wrongly_is_one_sentence(columns, sentence):
    with pytest.raises((TypeError, ValueError)) as refused:
        Columns.declared(columns)
    assert str(refused.value) == sentence


def test_nothing_is_made_of_columns_before_they_were_learnt_and_nothing_that_overflows():
    x = DECLARED.read("x", {**ONE, "price": [0.0, 1e-100]})
    with pytest.raises(ValueError, match="^The model does not know the columns 'country', 'price' yet"):
        DECLARED.inputs("x", x)
    far = DECLARED.read("x", ONE)
    with pytest.raises(
        ValueError, match=r"^`x\['price'\]` has .* in row 0, which is too far from the 5e-101 of"
    ):
        DECLARED.learn(x).inputs("x", far)


def test_what_was_learnt_and_the_rows_come_back_from_json_to_the_bit():
    x = DECLARED.read("x", rows(300))
    learnt = DECLARED.learn(x)
    assert Columns.of_config(json.loads(json.dumps(learnt.config()))) == learnt
    back = learnt.of_lines(_columns.as_lines(x))
    assert back.dtype == x.dtype and back["price"].tobytes() == x["price"].tobytes()
    assert back["country"].tolist() == x["country"].tolist()


def test_rows_are_split_hashed_and_searched_for_leaks_by_their_texts():
    x = fe.rows_of_columns(rows(60), KINDS)
    y = [row % 2 for row in range(60)]
    parts, texts = fe.split(x, y, test=10), fe.split(x["text"], y, test=10)
    assert parts.test.x["text"].tolist() == texts.test.x.tolist() and parts.test.columns == 4
    dearer = x.copy()
    dearer["price"] += 1
    assert rows_hash(x) == rows_hash(x.copy()) != rows_hash(dearer)
    leaks = fe.find_leaks(x, dearer[:3])
    assert leaks.test_rows.tolist() == [0, 1, 2] and leaks.examples[0][3] == "review 0"
    for table in (pd.DataFrame(rows()), rows()):
        with pytest.raises(
            TypeError, match="^`x` has named columns of several kinds; say which they are: `rows"
        ):
            fe.split(table, y[:40])
    with pytest.raises(TypeError, match=r"^`old` has a text and columns beside it; .* pass `old\['text'\]`"):
        fe.check_drift(x, x)


class _Constant:
    """Answers that need nothing but rows of columns."""

    def predict(self, x):
        assert x.dtype.names == ("text", "country", "price")
        return np.tile([0.4, 0.6], (len(x), 1))


def test_folds_of_columns_are_judged_and_the_baselines_are_said_to_read_the_text():
    x, y = fe.rows_of_columns(rows(60), KINDS), np.arange(60) % 2
    crossed = fe.cross_evaluate(lambda x, y, seed: _Constant(), x, y, folds=2, verbose=False, n_resamples=100)
    note = "TF-IDF reads the texts alone; the models that are judged read 'country', 'price' too."
    assert note in crossed.evaluation.warnings
    assert crossed.evaluation.predictions["text"].tolist() == x["text"].tolist()
