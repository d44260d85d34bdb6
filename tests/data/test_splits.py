import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from finetune_eval._labels import read
from finetune_eval.data.leakage import find_leaks
from finetune_eval.data.ledger import normalise
from finetune_eval.data.splits import label_warnings, split

PARTS = ("train", "validation", "test")
quick = settings(max_examples=60, deadline=None)


def distinct_rows(n, classes, seed=0):
    y = np.random.default_rng(seed).integers(0, classes, n)
    y[:classes] = np.arange(classes)
    return [f"text {i}" for i in range(n)], y


def parts_of(made):
    return [getattr(made, name) for name in PARTS]


@st.composite
def problems(draw):
    """Rows with repeated texts in other spellings, and groups; sizes that may or may not leave rows over."""
    n = draw(st.integers(8, 60))
    words = draw(st.lists(st.integers(0, draw(st.integers(3, 80))), min_size=n, max_size=n))
    spelling = draw(st.lists(st.sampled_from(["w{}", "W{}", " w{} ", "\uff57{}"]), min_size=n, max_size=n))
    texts = [form.format(word) for form, word in zip(spelling, words, strict=True)]
    y = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    groups = draw(st.none() | st.lists(st.integers(0, 30), min_size=n, max_size=n))
    train = draw(st.none() | st.integers(1, n // 2))
    validation, test = draw(st.integers(0, n // 4)), draw(st.integers(0, n // 4 - 1))
    return texts, y, {"groups": groups, "train": train, "validation": validation, "test": test}


def try_split(texts, y, **options):
    try:
        return split(texts, y, labels=["a", "b", "c"], **options)
    except ValueError as error:  # the one thing that may go wrong here: all rows are one unit
        assert "would be empty" in str(error)
        return None


@quick
@given(problems(), st.integers(0, 3))
def test_parts_are_disjoint_and_nothing_is_invented(problem, seed):
    texts, y, options = problem
    made = try_split(texts, y, seed=seed, **options)
    if made is None:
        return
    ids = np.concatenate([part.ids for part in parts_of(made)])
    assert len(set(ids.tolist())) == len(ids)
    for part in parts_of(made):
        assert part.x.tolist() == [texts[i] for i in part.ids]
        assert part.y.tolist() == [y[i] for i in part.ids]
    if options["train"] is None:
        assert len(ids) == len(texts)
    else:
        unused = [step.rows_out for step in made.trace if step.name == "not used"]
        assert len(ids) + sum(unused) == len(texts)


@quick
@given(problems(), st.integers(0, 3))
def test_no_text_and_no_group_is_on_two_sides(problem, seed):
    texts, y, options = problem
    made = try_split(texts, y, seed=seed, **options)
    if made is None:
        return
    side = {}
    for name in PARTS:
        for i in getattr(made, name).ids:
            assert side.setdefault(normalise(texts[i]), name) == name
            if options["groups"] is not None:
                assert side.setdefault(("group", options["groups"][i]), name) == name


@quick
@given(problems(), st.integers(0, 3))
def test_a_size_that_is_not_as_asked_is_said(problem, seed):
    texts, y, options = problem
    made = try_split(texts, y, seed=seed, **options)
    if made is None:
        return
    asked = {**options, "train": options["train"] or len(texts) - options["validation"] - options["test"]}
    for name in PARTS:
        said = any(
            sentence.startswith(f"{name} has ") and "asked for" in sentence for sentence in made.warnings
        )
        assert said == (len(getattr(made, name)) != asked[name])


@quick
@given(problems(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(problem, seed, random):
    texts, y, options = problem
    order = list(range(len(texts)))
    random.shuffle(order)
    moved = {
        **options,
        "groups": None if options["groups"] is None else [options["groups"][i] for i in order],
    }
    first = try_split(texts, y, seed=seed, **options)
    second = try_split([texts[i] for i in order], [y[i] for i in order], seed=seed, **moved)
    assert (first is None) == (second is None)
    for a, b in zip(parts_of(first), parts_of(second), strict=True) if first is not None else ():
        assert a.hash == b.hash  # the same rows in the same order


@quick
@given(st.integers(20, 300), st.integers(2, 6), st.integers(0, 5), st.data())
def test_class_shares_are_within_a_row_of_the_ideal(n, classes, seed, data):
    texts, y = distinct_rows(n, classes, seed)
    sizes = data.draw(st.tuples(st.integers(1, n // 3), st.integers(0, n // 3), st.integers(0, n // 3)))
    made = split(texts, y, train=sizes[0], validation=sizes[1], test=sizes[2], seed=seed)
    shares = np.bincount(y, minlength=classes) / n
    for part, size in zip(parts_of(made), sizes, strict=True):
        assert len(part) == size
        assert np.abs(np.bincount(part.y, minlength=classes) - size * shares).max() < 1


def test_seeds():
    texts, y = distinct_rows(200, 2)
    assert split(texts, y, seed=3).test.hash == split(texts, y, seed=3).test.hash
    assert set(split(texts, y, seed=3).test.ids) != set(split(texts, y, seed=4).test.ids)


def test_parts_come_shuffled_though_the_rows_are_sorted_by_class():
    # Wald-Wolfowitz: 100 + 100 shuffled rows have 101 runs on average with variance
    # 2 * 100^2 * (2 * 100^2 - 200) / (200^2 * 199) = 49.7; the mean of ten then has deviation 2.2.
    texts, y = [f"text {i}" for i in range(10_000)], np.repeat([0, 1], 5_000)
    runs = []
    for seed in range(10):
        part = split(texts, y, train=3_000, validation=0, test=200, seed=seed).test
        runs.append(1 + np.count_nonzero(np.diff(part.y)))
    assert abs(np.mean(runs) - 101) < 4 * 2.2


def test_sizes_by_fraction_rows_and_default():
    texts, y = distinct_rows(1_000, 2)
    assert [len(part) for part in parts_of(split(texts, y))] == [700, 100, 200]
    assert [len(p) for p in parts_of(split(texts, y, train=0.5, validation=30, test=0))] == [500, 30, 0]
    ten, y_ten = distinct_rows(10, 2)
    # .25 of 10 is 2.5, rounded to 3 twice; with .5 that makes 11, so the largest part gives one up.
    assert [len(p) for p in parts_of(split(ten, y_ten, train=0.5, validation=0.25, test=0.25))] == [4, 3, 3]
    only_test = split(texts, y, train=0, validation=0, test=1.0)
    assert [len(part) for part in parts_of(only_test)] == [0, 0, 1_000]


def test_a_group_larger_than_its_part_goes_where_it_fits():
    groups = [0] * 50 + list(range(1, 51))
    made = split(*distinct_rows(100, 2), groups=groups, validation=10, test=20)
    assert [len(part) for part in parts_of(made)] == [70, 10, 20]
    assert np.count_nonzero(made.train.ids < 50) == 50


def test_when_groups_make_a_size_impossible_the_rows_still_add_up():
    made = split(*distinct_rows(100, 2), groups=np.arange(100) // 10, validation=15, test=25)
    sizes = [len(part) for part in parts_of(made)]
    assert sum(sizes) == 100 and all(size % 10 == 0 for size in sizes)
    assert (
        f"test has {sizes[2]} rows, not the 25 asked for, because rows of the same text or group stay "
        "together." in made.warnings
    )


def test_repeats_and_conflicts_are_reported_with_an_example():
    texts = ["Good film", "good  FILM", *(f"text {i}" for i in range(8))]
    made = split(texts, ["pos", "neg"] * 5, validation=2, test=2)
    assert made.warnings == (
        "Of 10 rows 1 repeats the text of another row; they stay on one side of the split.",
        "1 text with more than one label: for example 'Good film' is 'pos' in row 0 and 'neg' in row 1.",
    )


def test_a_missing_class_is_reported():
    made = split([f"text {i}" for i in range(20)], [0] * 19 + [1], labels=["no", "yes"], validation=0, test=4)
    assert made.warnings == ("test has no row of class 'yes'.",)


def test_numbers_and_metadata():
    x = np.arange(40.0).reshape(20, 2)
    x[1] = x[0]
    frame = pd.DataFrame({"city": list("abcdefghijklmnopqrst")})
    made = split(x, [0, 1] * 10, metadata=frame, ids=np.arange(100, 120), validation=4, test=6)
    assert made.train.columns == 3 and made.train.x.shape == (10, 2)
    for part in parts_of(made):
        assert part.metadata["city"].tolist() == [frame["city"][i - 100] for i in part.ids]
    assert sum({100, 101} <= set(part.ids.tolist()) for part in parts_of(made)) == 1
    assert "1 row of values with more than one label: for example '[0. 1.]'" in made.warnings[1]


def test_rows_unpack_and_print():
    made = split(*distinct_rows(50, 2), labels=["negative", "positive"])
    x, y = made.test
    assert len(made.test) == len(x) == len(y) == 10
    assert x.dtype == object and y.dtype == np.int64
    assert str(made).splitlines()[0].startswith("train      35 rows: ")
    assert all(len(line) <= 80 for line in str(split(*distinct_rows(900, 300))).splitlines())


def test_the_trace_tells_rows_in_and_out():
    made = split(*distinct_rows(100, 2), train=50, validation=10, test=20, seed=7)
    assert [(s.stage, s.name, s.rows_in, s.columns_in, s.rows_out, s.columns_out) for s in made.trace] == [
        ("split", "train", 100, 2, 50, 2),
        ("split", "validation", 100, 2, 10, 2),
        ("split", "test", 100, 2, 20, 2),
        ("split", "not used", 100, 2, 20, 2),
    ]
    assert [step.hash for step in made.trace][:3] == [part.hash for part in parts_of(made)]
    assert made.trace.steps[0].note == "stratified, seed 7; rows of the same text stay together"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"train": 90},
            "Not enough rows: train 90, validation 10, test 20 make 120, and there are 100. Ask for fewer.",
        ),
        (
            {"validation": 50, "test": 0.5},
            "Not enough rows: validation 50, test 50 make 100 of 100, which leaves none for training. "
            "Ask for fewer, or pass train=0.",
        ),
        ({"test": 0.001}, "Not enough rows: `test`=0.001 of 100 rows is none. Ask for more, or pass 0."),
        ({"test": 1.5}, "`test` must be a whole number of rows, or a share of them from 0 to 1; got 1.5."),
        ({"test": -1}, "`test` must be at least 0; got -1."),
        ({"groups": [1]}, "`groups` must have one value for each of the 100 rows; got 1."),
        ({"groups": [None] * 100}, "`groups` has no group in row 0; give every row one."),
        (
            {"groups": [1] * 100},
            "`train` would be empty: 70 rows were asked for, but rows of the same text or group stay "
            "together, and none of those units is small enough. Ask for a larger part.",
        ),
        ({"labels": ["a"]}, "`labels` must name at least two classes; got ['a']."),
    ],
)
def test_one_clear_sentence(options, sentence):
    with pytest.raises(ValueError) as caught:
        split(*distinct_rows(100, 2), **options)
    if "would be empty" in sentence:  # which part the one unit went to is not the point
        assert re.sub("`.*?` would be empty: \\d+", "", str(caught.value)) == re.sub(
            "`.*?` would be empty: \\d+", "", sentence
        )
    else:
        assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("x", "y", "kind", "sentence"),
    [
        ([], [], ValueError, "`x` has no rows; at least one is needed."),
        (
            "text",
            [0],
            TypeError,
            "`x` is a single text; pass a list with one value for each row, even for one row: [x].",
        ),
        (
            ["a", ""],
            [0, 1],
            ValueError,
            "`x` must hold a text in every row; row 1 is empty. Drop the row or fill it.",
        ),
        (
            ["a", None],
            [0, 1],
            ValueError,
            "`x` has no text in row 1 (None); drop the row or fill it.",
        ),
        (
            [1.0, 2.0],
            [0, 1],
            ValueError,
            "`x` must be (rows,) texts or (rows, columns) numbers; got shape (2,) and dtype float64.",
        ),
        (
            [[1.0], [np.nan]],
            [0, 1],
            ValueError,
            "`x` has NaN in row 1, column 0; drop the row or fill it.",
        ),
        (
            ["a", "b"],
            None,
            ValueError,
            "`y` is None; one value for each row is needed.",
        ),
        (["a", "b"], [0], ValueError, "`x` and `y` must have the same number of rows; got 2 and 1."),
        (["a", "b"], [0, np.nan], ValueError, "`y` has no label in row 1; drop the row or give it a label."),
        (
            ["a", "b"],
            [0, 1.7],
            ValueError,
            "`y` must hold classes, not measurements; row 1 is 1.7. Sort the values into named bins, or read "
            "the column as text.",
        ),
        (
            ["a", "b"],
            [1, 1],
            ValueError,
            "`y` has only one class, '1'; at least two are needed. If these rows are only to be tested on, "
            "pass all the class names in `labels`.",
        ),
    ],
)
def test_bad_rows(x, y, kind, sentence):
    with pytest.raises(kind) as caught:
        split(x, y)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("y", "labels", "indices", "names"),
    [
        (["pos", "neg", "pos"], None, [1, 0, 1], ("neg", "pos")),
        ([10, 9, 10], None, [1, 0, 1], ("9", "10")),  # by value: as words "10" would come first
        (["10", "9"], None, [1, 0], ("9", "10")),
        ([1.0, 0.0], None, [1, 0], ("0", "1")),
        ([True, False], None, [1, 0], ("False", "True")),
        ([0, 1], ["negative", "positive"], [0, 1], ("negative", "positive")),
        (["b", "a"], ["b", "a"], [0, 1], ("b", "a")),
        ([[0, 1], [1, 0]], ["a", "b"], [1, 0], ("a", "b")),
        ([1, 1], ["a", "b"], [1, 1], ("a", "b")),
        (["1", "1.0", "2"], None, [0, 0, 1], ("1", "2")),
        (["02134", "1_2", "1e3"], None, [0, 1, 2], ("02134", "1_2", "1e3")),
    ],
)
def test_class_indices(y, labels, indices, names):
    rows = split([f"t{i}" for i in range(len(y))], y, labels=labels, validation=0, test=0).train
    assert rows.y[np.argsort(rows.ids)].tolist() == indices and rows.labels == names


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_rows_with_several_labels_are_refused_as_such(labels):
    with pytest.raises(ValueError) as error:
        split([f"t{i}" for i in range(4)], [[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 0]], labels=labels)
    assert str(error.value) == (
        "`y` must have one class a row; row 1 has 2 of 3 labels. Pass one name for each set of labels, such "
        "as 'acting + plot'."
    )


def test_an_unknown_label_is_named():
    with pytest.raises(
        ValueError, match=r"`y` has an unknown label 'positve' in row 1; .* Did you mean 'positive'\?"
    ):
        split(["a", "b"], ["negative", "positve"], labels=["negative", "positive"])
    with pytest.raises(ValueError, match="`y` must be class indices from 0 to 1 .*; row 1 is 2"):
        split(["a", "b"], [1, 2], labels=["negative", "positive"])
    with pytest.raises(ValueError, match="0 in row 0 is the name of one class and the place of another"):
        split(["a", "b"], [0, 1], labels=["1", "0"])


def test_labels_that_differ_in_case_are_pointed_out():
    assert label_warnings(["Spam", "ham", "spam "]) == [
        "The labels 'Spam' and 'spam ' differ only in case or spaces; if they are one class, pass "
        "merge_labels=True to load_dataset."
    ]
    assert label_warnings(["ham", "ham\u200b"]) == [
        "The labels 'ham' and 'ham\\u200b' differ only in characters that are not seen; are they one class?"
    ]


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_a_missing_value_in_a_list_never_becomes_the_text_nan(missing):
    texts, words = [f"text {i}" for i in range(30)], ["bad", "good"] * 15
    with pytest.raises(ValueError, match="`x` has no text in row 30 "):
        split([*texts, missing], [*words, "bad"])
    with pytest.raises(ValueError, match="row 30"):
        split([*texts, "one more"], [*words, missing])
    with pytest.raises(ValueError, match="`test` must hold a text in every row; row 1 is "):
        find_leaks(["nan"], ["a text", missing])
    with pytest.raises(ValueError, match="row 1"):
        read("y", ["a", missing], ["a", "nan"])


TEXTS, WORDS = [f"text {i}" for i in range(20)], ["bad", "good"] * 10


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ({"x": set(TEXTS)}, TypeError, "`x` is a set, which has no order"),
        (
            {"x": dict(enumerate(TEXTS))},
            TypeError,
            "`x` has named columns of several kinds; say which they are",
        ),
        ({"x": (text for text in TEXTS)}, TypeError, "`x` must be a list, array or Series"),
        ({"x": [*TEXTS[1:], 3]}, TypeError, r"`x` must hold texts; row 19 is 3 \(int\)."),
        ({"x": [*TEXTS[1:], "\ud83d"]}, ValueError, "`x` must hold valid Unicode; row 19 is"),
        (
            {"x": np.ma.array(np.eye(20), mask=np.eye(20))},
            ValueError,
            r"`x` has a masked \(missing\) entry in row 0",
        ),
        ({"x": np.ones((20, 2)) * 1j}, TypeError, "`x` must hold real numbers"),
        ({"x": np.full((20, 2), "2020-01-01", dtype="M8[D]")}, TypeError, "`x` must hold real numbers"),
        (
            {"x": pd.DataFrame({"a": pd.array([None] * 20, "Int64")})},
            ValueError,
            "`x` has NaN in row 0, column 0",
        ),
        (
            {"x": pd.DataFrame({"a": range(20), "b": TEXTS})},
            TypeError,
            "`x` has named columns of several kinds; say which they are",
        ),
        ({"y": set(WORDS)}, TypeError, "`y` is a set, which has no order"),
        ({"y": dict(enumerate(WORDS))}, TypeError, "`y` is a dictionary"),
        ({"y": np.ma.array([0, 1] * 10, mask=[1] + [0] * 19)}, ValueError, "`y` has a masked .* in row 0"),
        (
            {"labels": {"bad", "good"}},
            TypeError,
            "`labels` must be in the order of the classes; a set has no order",
        ),
        ({"groups": [*range(19), float("nan")]}, ValueError, "`groups` has no group in row 19"),
        ({"groups": ["a"] * 19 + [None]}, ValueError, "`groups` has no group in row 19"),
        ({"groups": pd.array([1] * 19 + [None], "Int64")}, ValueError, "`groups` has no group in row 19"),
        ({"groups": ["a"] * 19 + [""]}, ValueError, "`groups` has no group in row 19"),
        (
            {"groups": np.ma.array(range(20), mask=[1] + [0] * 19)},
            ValueError,
            "`groups` has a masked .* in row 0",
        ),
        ({"groups": set(range(20))}, TypeError, "`groups` is a set"),
        (
            {"groups": pd.Series([[1]] * 20)},
            TypeError,
            r"`groups` must hold a text or a number .*; row 0 is \[1\]",
        ),
        ({"ids": TEXTS}, TypeError, "`ids` must be whole numbers; row 0 is 'text 0'. Keep names of rows in"),
        ({"ids": [*range(19), None]}, TypeError, "`ids` must be whole numbers; row 19 is None"),
        (
            {"ids": np.arange(20, dtype=np.uint64) + 2**63},
            TypeError,
            "`ids` must be whole numbers; row 0 is 9223",
        ),
        ({"metadata": {"a": WORDS}}, TypeError, "`metadata` must be a pandas DataFrame; got dict"),
        ({"metadata": pd.Series(WORDS)}, TypeError, "`metadata` must be a pandas DataFrame; got Series"),
        (
            {"metadata": pd.DataFrame({"a": [1]})},
            ValueError,
            "`metadata` must have one row for each of the 20 rows",
        ),
    ],
)
def test_what_is_no_column_of_rows_is_refused(arguments, kind, sentence):
    with pytest.raises(kind, match=sentence):
        split(**{"x": TEXTS, "y": WORDS, **arguments})


@pytest.mark.parametrize("name", ["y", "groups", "ids", "metadata"])
def test_pandas_rows_in_another_order_are_refused(name):
    x = pd.Series(TEXTS, index=range(100, 120))
    other = {
        "y": pd.Series(WORDS, index=x.index),
        "groups": pd.Series(range(20), index=x.index),
        "ids": pd.Series(range(20), index=x.index),
        "metadata": pd.DataFrame({"a": WORDS}, index=x.index),
    }
    columns = {"y": WORDS, name: other[name]}
    assert len(split(x, **columns).test) == 4
    with pytest.raises(
        ValueError, match=f"`x` and `{name}` name their rows differently: row 0 is 100 in one"
    ):
        split(x, **{**columns, name: other[name][::-1]})
    assert len(split(x, **{**columns, name: other[name].reset_index(drop=True)}).test) == 4


def test_whole_numbers_beyond_a_float_are_not_one_row():
    # 2^53 and 2^53 + 1 are one number to a 64-bit float; 20 rows in pairs of them repeat nothing.
    x = np.array([[2**53 + i] for i in range(20)])
    made = split(x, WORDS)
    assert made.warnings == () and [len(part) for part in parts_of(made)] == [14, 2, 4]
    assert split(x[::-1], WORDS[::-1]).test.hash == made.test.hash
    small = x - 2**53  # whole numbers that floats hold go where the floats go
    assert split(small, WORDS).test.ids.tolist() == split(small.astype(float), WORDS).test.ids.tolist()


def test_printed_rows_follow_the_terminal(monkeypatch):
    labels = ["a\x1b[31mb", "数据" * 30, "\u202eevil"]
    made = split([f"t{i}" for i in range(60)], [i % 3 for i in range(60)], labels=labels)
    for columns in (40, 60, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        printed = str(made)
        assert max(map(cell_len, printed.splitlines())) <= columns
        assert "\x1b" not in printed and "\u202e" not in printed
