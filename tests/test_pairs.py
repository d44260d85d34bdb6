"""Pairs of texts without a model: how they are given, written as one text, split, searched and scored."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import finetune_eval as fe
from finetune_eval import _pairs

ROWS = [("A man sleeps.", "A man is awake."), ("It rains.", "It is wet."), ("Dogs run.", "Cats sit.")]


def exactly(sentence):
    return f"^{re.escape(sentence)}$"


def many(n=60):
    """Different pairs, with a label each."""
    rows = [(f"premise number {i} of {n}", f"claim {7 * i} about it") for i in range(n)]
    return rows, [i % 2 for i in range(n)]


@pytest.mark.parametrize(
    "form",
    [
        list,
        np.array,
        lambda rows: np.array(rows, dtype=object),
        lambda rows: [list(row) for row in rows],
        tuple,  # of three rows, which cannot be two columns
        lambda rows: pd.DataFrame(rows, columns=["premise", "claim"]),
        pd.Series,
        lambda rows: [tuple(text.encode() for text in row) for row in rows],
        lambda rows: _pairs.joined(np.array(rows, dtype=object)).tolist(),
    ],
)
def test_every_form_of_pairs_is_read_the_same(form):
    read = _pairs.pairs("x", form(ROWS))
    assert read.dtype == object and read.tolist() == [list(row) for row in ROWS]


HOW = "pass a list of pairs, [(first, second), ...]"
MODEL = "must hold two texts a row"


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (
            ("It rains.", "It is wet."),
            TypeError,
            "`x` is a tuple of two, which may be two rows or two columns of texts; "
            f"{HOW}: list(zip(firsts, seconds)), and for one row [(first, second)].",
        ),
        (
            (["a", "b"], ["c", "d"]),
            TypeError,
            "`x` is a tuple of two, which may be two rows or two columns of texts; "
            f"{HOW}: list(zip(firsts, seconds)), and for one row [(first, second)].",
        ),
        (
            ["It rains.", "It is wet."],
            TypeError,
            f"`x` {MODEL}, since the model reads pairs; row 0 is 'It rains.' (str): {HOW}.",
        ),
        (
            [("a", "b"), ("a", "b", "c")],
            TypeError,
            f"`x` {MODEL}, since the model reads pairs; row 1 is ('a', 'b', 'c') (tuple): {HOW}.",
        ),
        (
            [["a", "b", "c"], ["d", "e", "f"]],  # two columns
            TypeError,
            f"`x` {MODEL}, since the model reads pairs; row 0 is ['a', 'b', 'c'] (list): {HOW}.",
        ),
        (
            np.array([["a", "b", "c"]]),
            TypeError,
            f"`x` {MODEL}, shape (rows, 2), since the model reads pairs; got shape (1, 3): {HOW}.",
        ),
        (
            {"premise": ["a"], "claim": ["b"]},
            TypeError,
            f"`x` is a dictionary, and the two texts of a pair are told by their place; {HOW}.",
        ),
        (
            [("a", "b"), ("c", None)],
            ValueError,
            "`x[:, 1]` has no text in row 1 (None); drop the row, or write '' where a text is empty.",
        ),
        ([("a", "b"), (3, "c")], TypeError, "`x[:, 0]` must hold texts; row 1 is 3 (int)."),
    ],
)  # fmt: skip
def test_what_is_no_pair_or_ambiguous_is_one_sentence(x, error, sentence):
    with pytest.raises(error, match=exactly(sentence)):
        _pairs.pairs("x", x)


def test_two_columns_in_a_list_are_no_rows():
    for columns in ([pd.Series(["a", "b"]), pd.Series(["c", "d"])], [iter("ab"), iter("cd")]):
        with pytest.raises(TypeError, match="^`x` must hold two texts a row, .*row 0 is "):
            _pairs.pairs("x", columns)


@pytest.mark.parametrize(
    ("values", "are"),
    [
        (ROWS, True),
        (np.array(ROWS), True),
        ([(None, None), ("a", "b")], True),
        (["a", "b"], False),
        ([(1.0, 2.0)], False),
        (np.zeros((3, 2)), False),
        ([("a", "b", "c")], False),
        ([], False),
        ("ab", False),
        ({"a": ["b"]}, False),
        (pd.DataFrame({"a": [1], "b": [2]}), False),
    ],
)
def test_pairs_are_told_from_texts_and_numbers(values, are):
    assert _pairs.are_pairs(values) is are


BARS = st.text(alphabet="|a ", max_size=9)


@given(st.lists(st.tuples(BARS, BARS), min_size=1, max_size=5))
def test_a_pair_written_as_one_text_is_read_back(rows):
    array = np.array(rows, dtype=object)
    assert _pairs.parted("x", _pairs.joined(array)).tolist() == [list(row) for row in rows]


def test_different_pairs_are_different_texts():
    rows = np.array([("a ||| b", "c"), ("a", "b ||| c"), ("a b", "c"), ("a", "b c")], dtype=object)
    assert len(set(_pairs.joined(rows))) == 4


def test_a_split_keeps_the_same_pairs_together_and_parts_others():
    rows, y = many()
    rows += [(f"  {rows[3][0].upper()} ", rows[3][1]), (rows[3][1], rows[3][0])]
    parts = fe.split(rows, [*y, y[3], y[3]], labels=["no", "yes"], test=12, validation=12)
    at = {int(i): name for name in ("train", "validation", "test") for i in getattr(parts, name).ids}
    assert at[60] == at[3]  # but for case and spaces the same
    assert parts.warnings[0].startswith("Of 62 rows 1 repeats the text of another row")
    assert parts.train.x.shape == (38, 2) and parts.train.columns == 3
    assert sorted(map(tuple, np.concatenate([parts.train.x, parts.validation.x, parts.test.x]))) == sorted(
        map(tuple, rows)
    )
    again = fe.split(rows[::-1], [*y, y[3], y[3]][::-1], labels=["no", "yes"], test=12, validation=12)
    assert again.test.hash == parts.test.hash  # whatever the order


def test_a_blank_text_of_a_pair_is_no_row_to_split():
    rows, y = many()
    rows[4] = (rows[4][0], " ")
    with pytest.raises(
        ValueError, match=re.escape("`x[:, 1]` must hold a text in every row; row 4 is empty")
    ):
        fe.split(rows, y, labels=["no", "yes"])


def test_a_leak_is_a_row_with_both_texts_the_same():
    rows, _ = many()
    test = [rows[5], ("premise number 6 of 60", "A CLAIM of quite another kind, much longer"), rows[7][::-1]]
    leaks = fe.find_leaks(rows, test)
    assert (leaks.test_rows.tolist(), leaks.train_rows.tolist()) == ([0], [5])
    assert leaks.examples[0][3] == "premise number 5 of 60 ||| claim 35 about it"
    upper = fe.find_leaks(rows, [tuple(text.upper() for text in rows[5])])
    assert upper.kind.tolist() == ["normalised"]
    with pytest.raises(ValueError, match="must both hold texts"):
        fe.find_leaks(rows, np.zeros((3, 2)))


def test_pairs_with_the_same_long_first_text_count_as_near():
    premise = "In 1990 the town council decided by a large majority to build a bridge over the river, "
    premise += "and that every house on both of its banks should pay a tenth of what it costs."
    leaks = fe.find_leaks([(premise, "It was built.")], [(premise, "Nobody voted.")])
    assert leaks.kind.tolist() == ["near"]


def test_an_evaluation_of_pairs_keeps_them_as_one_text_and_compares_with_tf_idf(tmp_path):
    rows, y = many()
    p = np.random.default_rng(0).uniform(size=60)
    result = fe.evaluate_predictions(
        y, p, labels=["no", "yes"], texts=rows, train=(rows[:20], y[:20]), n_resamples=100
    )
    assert result.predictions["text"][1] == "premise number 1 of 60 ||| claim 7 about it"
    assert result.leaks.counts["exact"] == 20
    assert [baseline.name for baseline in result.baselines][1].startswith("TF-IDF")
    joined = _pairs.joined(np.array(rows, dtype=object)).tolist()
    as_texts = fe.evaluate_predictions(
        y, p, labels=["no", "yes"], texts=joined, train=(joined[:20], y[:20]), n_resamples=100
    )
    assert as_texts.baselines == result.baselines
    result.save(tmp_path)
    assert fe.Evaluation.load(tmp_path).predictions["text"].tolist() == joined


def test_training_rows_of_single_texts_beside_pairs_are_refused():
    rows, y = many()
    with pytest.raises(TypeError, match="`train` must hold two texts a row"):
        fe.evaluate_predictions(y, [0.5] * 60, labels=["no", "yes"], texts=rows, train=(["a", "b"], [0, 1]))


@pytest.fixture
def frame():
    rows, y = many()
    return pd.DataFrame({"claim": [b for _, b in rows], "premise": [a for a, _ in rows], "label": y})


@pytest.mark.parametrize("ending", ["frame", "csv", "jsonl", "parquet"])
def test_two_columns_of_a_table_make_pairs_in_the_order_that_is_asked_for(frame, tmp_path, ending):
    source = frame
    if ending != "frame":
        source = tmp_path / f"rows.{ending}"
        write = {"csv": frame.to_csv, "parquet": frame.to_parquet}.get(ending)
        write(source, index=False) if write else frame.to_json(source, orient="records", lines=True)
    data = fe.load_dataset(source, text=("premise", "claim"))
    expected = frame[["premise", "claim"]].to_numpy()[data.train.ids]
    assert data.train.x.tolist() == expected.tolist() and data.train.metadata is None
    assert data.trace.steps[0].columns_out == 3


def test_columns_that_make_no_pair_are_one_sentence(frame):
    for text in (("premise",) * 2, ("premise", "claim", "label"), []):
        sentence = f"`text` must name one column, or two different ones for pairs of texts; got {text!r}."
        with pytest.raises(ValueError, match=exactly(sentence)):
            fe.load_dataset(frame, text=text)
    with pytest.raises(ValueError, match="`text` must be a column of DataFrame; there is no 'clam'"):
        fe.load_dataset(frame, text=("premise", "clam"))
    with pytest.raises(ValueError, match="`text` and `label` must be different columns; both are 'label'"):
        fe.load_dataset(frame, text=("premise", "label"))
    frame.loc[3, "claim"] = None
    with pytest.raises(ValueError, match=re.escape("1 has no text in column 'claim' (first: row 3)")):
        fe.load_dataset(frame, text=("premise", "claim"))
    assert len(fe.load_dataset(frame, text=("premise", "claim"), drop_missing=True).train.x) < 60
