"""What a cell of a file becomes: a word, a number, or nothing; and what is said of a damaged file."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.data import readers
from finetune_eval.data.readers import as_numbers, read, read_table


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def csv_of(tmp_path, *columns, names=None):
    """Write columns of words to a CSV file."""
    names = names or [f"c{i}" for i in range(len(columns))]
    lines = [",".join(row) for row in zip(*columns, strict=True)]
    return write(tmp_path, "a.csv", "\n".join([",".join(names), *lines]) + "\n")


def refuse(path, **options):
    with pytest.raises(ValueError) as caught:
        read_table(path, {"text", "label"}, **options)
    return str(caught.value)


# Numbers and words.


LOSES = [
    ["02134", "10001"],  # postal codes
    ["007", "7"],
    ["11898508762506083287", "11898508762506083288"],  # equal as 64-bit floats, too large as integers
    ["9223372036854775808", "1"],  # 2^63
    ["1e5", "2e5"],
    ["1_000", "2_000"],
    ["0x1F", "31"],
    ["+1", "2"],
    [" 1", "2"],
    ["1.1", "1.10"],  # versions: two words for one number
    ["1e-05", "0.00001"],
    ["1", "1.0"],
    ["0.1234567890123456789", "0.1"],  # more digits than a float holds: it would be 0.12345678901234568
    ["123456789012345678.5", "1.5"],
    ["inf", "1"],
    ["true", "false"],
    ["2020-01-01", "2021-02-03"],
    ["1,5", "2,5"],
    ["NA", "EU"],
    ["a", "1"],
]
LOSES_NOTHING = [
    (["3", "-7", "0"], [3, -7, 0]),
    (["999999999999999999", "-999999999999999999"], [10**18 - 1, 1 - 10**18]),
    (["0.5", "12", "-3.25"], [0.5, 12.0, -3.25]),  # as spreadsheets write
    (["0.5", "12.0", "1e-05", "1.5e+16"], [0.5, 12.0, 1e-05, 1.5e16]),  # as Python writes
    (["12.50", "3.00", "0.75"], [12.5, 3.0, 0.75]),  # prices
    (["0.30000000000000004", "0.1"], [0.1 + 0.2, 0.1]),  # 17 digits that a float does hold
    (["0.50000000000000000000", "0.25000000000000000000"], [0.5, 0.25]),
]


@pytest.mark.parametrize("words", LOSES)
def test_what_a_number_would_lose_stays_words(tmp_path, words):
    path = csv_of(tmp_path, [f'"{word}"' for word in words])
    assert read_table(path, set())["c0"].tolist() == words


@pytest.mark.parametrize(("words", "numbers"), LOSES_NOTHING)
def test_numbers_that_are_written_back_the_same_are_numbers(tmp_path, words, numbers):
    column = read_table(csv_of(tmp_path, words), set())["c0"]
    assert column.dtype.kind in "if" and column.tolist() == numbers
    assert read_table(csv_of(tmp_path, words), {"c0"})["c0"].tolist() == words


def test_each_column_is_judged_by_itself(tmp_path):
    columns = [*LOSES, *(words[:2] for words, _ in LOSES_NOTHING)]
    frame = read_table(csv_of(tmp_path, *([f'"{word}"' for word in words] for words in columns)), set())
    expected = [*LOSES, *(numbers[:2] for _, numbers in LOSES_NOTHING)]
    assert [frame[name].tolist() for name in frame] == expected


@pytest.mark.parametrize("nothing", ["", "NA", "NaN", "n/a", "NULL", "None", "<NA>", "#N/A"])
def test_a_missing_number_makes_no_floats_of_whole_ones(tmp_path, nothing):
    path = csv_of(tmp_path, ["9007199254740993", nothing], ["0.5", nothing], names=["whole", "half"])
    frame = read_table(path, set())
    assert frame["whole"].tolist() == [2**53 + 1, pd.NA]  # 2^53 + 1 is no float
    assert frame["half"].isna().tolist() == [False, True]


def test_an_empty_cell_among_words_is_missing_but_for_texts(tmp_path):
    path = csv_of(tmp_path, ["a", "", "NA"], ["b", "", "NA"], ["7", "", "007"], names=["text", "city", "id"])
    frame = read_table(path, {"text"})
    assert frame["text"].tolist() == ["a", "", "NA"]
    assert frame["id"].tolist() == ["7", "", "007"]  # ids are words without being asked for
    assert frame["city"].isna().tolist() == [False, True, False]


def test_a_column_without_any_value_is_missing_throughout(tmp_path):
    frame = read_table(csv_of(tmp_path, ["1", "2"], ["", ""], ["NA", ""]), set())
    assert frame["c1"].isna().all() and frame["c2"].tolist()[0] == "NA"


digits = st.text("0123456789", min_size=1, max_size=20)
words = st.one_of(
    st.from_regex(r"-?[0-9]{1,4}(\.[0-9]{0,3})?(e[-+]?[0-9]{1,2})?", fullmatch=True),
    digits,
    st.tuples(digits, digits).map(".".join),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**65), 2**65).map(str),
    st.sampled_from(["", "NA", "a", "-", ".", "1e400"]),
)
ones = st.sampled_from(
    ["1", "1.0", "1.00", "01", "1.1", "1.10", "+1", "1e+0", "-1", "1.", "10e-1", "1e0", "2.5"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(words, min_size=1, max_size=6) | st.lists(ones, min_size=1, max_size=3))
def test_two_words_never_become_one_number(tmp_path_factory, column):
    path = csv_of(tmp_path_factory.mktemp("csv"), [str(i) for i in range(len(column))], column)
    cells = read_table(path, set())["c1"]
    if cells.dtype.kind not in "iufM":
        assert [word or None for word in column] == [None if pd.isna(cell) else cell for cell in cells]
        return
    given = {word for word in column if word.lower() not in {"", *readers.NOTHING}}
    zeros = {word for word in given if float(word) == 0}  # -0.0 and 0.0 are equal
    assert cells.isna().tolist() == [word not in given for word in column]
    assert len(set(cells.dropna().tolist())) == len(given) - max(0, len(zeros) - 1)
    for word, cell in zip(column, cells.tolist(), strict=True):
        assert word not in given or (int(word) if isinstance(cell, int) else float(word)) == cell


def test_columns_that_must_be_numbers_are_read_in_any_spelling(tmp_path):
    path = csv_of(tmp_path, ["0.8", "0.20", "1e-3", "NA", ""], ["007", "1", "2", "3", "x"])
    frame = as_numbers(read_table(path, set()), ["c0", "c1", "absent"])
    np.testing.assert_equal(frame["c0"].to_numpy(), [0.8, 0.2, 0.001, np.nan, np.nan])
    assert frame["c1"].tolist() == [7.0, 1.0, 2.0, 3.0, "x"]  # whoever needs numbers names the cell


def test_many_columns_and_many_rows(tmp_path):
    """Columns are looked at a hundred thousand cells at a time; each must come back as itself."""
    wide = [[f"{i}.5" if i % 3 else f"0{i}", f"{i}.25"] for i in range(20_000)]
    frame = read_table(csv_of(tmp_path, *wide), set())
    assert frame["c19999"].tolist() == [19999.5, 19999.25] and frame["c3"].tolist() == ["03", "3.25"]
    assert frame.dtypes.map(lambda dtype: dtype.kind).value_counts().to_dict() == {"f": 13_333, "O": 6_667}
    long = [str(i) for i in range(600_000)]
    frame = read_table(csv_of(tmp_path, long, [*long[:-1], "007"], long), set())
    assert frame["c0"].tolist() == frame["c2"].tolist() == list(range(600_000))
    assert frame["c1"].tolist() == [*long[:-1], "007"]


# Files with something unusual or wrong in them.


def test_a_text_of_megabytes(tmp_path):
    texts = ["x, y" * 1_000_000, "short", "z" * 3_000_000]
    path = write(tmp_path, "a.csv", "text,label\n" + "".join(f'"{text}",a\n' for text in texts))
    assert read_table(path, {"text", "label"})["text"].tolist() == texts


def test_a_file_that_was_cut_in_its_last_field_is_doubted(tmp_path):
    whole = 'text,label\na,good\n"b",better\n'
    assert read(write(tmp_path, "a.csv", whole), {"text", "label"}).warnings == ()
    cut = read(write(tmp_path, "a.csv", whole[:-3]), {"text", "label"})
    assert cut.frame["label"].tolist() == ["good", "bett"]
    assert cut.warnings == (
        "a.csv does not end with a line break; if it was cut off, its last row is wrong.",
    )
    assert read(write(tmp_path, "a.csv", 'text,label\na,"good"'), set()).warnings == ()  # the field is whole
    assert read(write(tmp_path, "a.csv", 'text,label\na,"good"'), set(), quoted=False).warnings


def test_columns_without_a_name_and_columns_with_one_name(tmp_path):
    frame = read_table(write(tmp_path, "spam.csv", "v1,v2,,\nham,Go,,\nspam,Win,x,\n"), {"v1", "v2"})
    assert frame.columns.tolist() == ["v1", "v2", "Unnamed: 2", "Unnamed: 3"]  # as pandas calls them
    assert refuse(write(tmp_path, "a.csv", "text,label,label\na,b,c\n")) == (
        "a.csv has two columns named 'label'; rename one."
    )
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert refuse(tmp_path / "a.parquet") == "a.parquet has two columns named 'text'; rename one."
    assert refuse(write(tmp_path, "a.jsonl", '{"text": "a", "text": "b"}\n')) == (
        "a.jsonl is not JSON Lines: line 1 is not JSON (an object has two values named 'text'). Put one "
        "whole JSON object on each line."
    )


@pytest.mark.parametrize(
    "content",
    [
        'text,"a\nb"\nx,007\n',
        "\n\ntext,c\nx,007\n",
        "text,c\rx,007\r",
        'text,5" disk\nx,007\n',
        "text,c\r\nx,007\r\n",
    ],
)
def test_headers(tmp_path, content):
    frame = read_table(write(tmp_path, "a.csv", content), {"text"})
    assert frame.to_numpy().tolist() == [["x", "007"]]


def test_a_name_that_would_move_the_cursor_is_written_as_escapes(tmp_path):
    path = write(tmp_path, "a\x1b[31m\n\u202eb.csv", b"\xff")
    assert refuse(path).startswith("a\\x1b[31m\\n\\u202eb.csv is not utf-8")
    path = write(tmp_path, "a.csv", "text,label\na\x1b[2Jb\n")
    assert "\x1b" not in refuse(path) and "a\\x1b[2Jb" in refuse(path)


# JSON.


def test_numbers_of_json_are_numbers(tmp_path):
    rows = [
        {"whole": 1, "gap": 2**53 + 1, "half": 0.5, "mixed": 1, "large": 10**20, "truth": True, "list": [1]},
        {"whole": 2, "gap": None, "half": None, "mixed": 0.5, "large": 1, "truth": None, "list": {"a": 1}},
    ]
    frame = read_table(write(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows))), set())
    assert frame["whole"].tolist() == [1, 2] and frame["whole"].dtype == np.int64
    assert frame["gap"].tolist() == [2**53 + 1, pd.NA]
    assert frame["half"].dtype == frame["mixed"].dtype == np.float64
    for column in ("large", "truth", "list"):
        assert frame[column].tolist() == [row[column] for row in rows]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": "b', "a.jsonl is not JSON Lines: line 2 is not JSON ("),
        ("a.json", '[{"text": "a"}, {"tex', "a.json is not JSON: "),
        ("a.json", "[" * 100_000, "a.json is not JSON: maximum recursion depth exceeded"),
        ("a.jsonl", '{"a":' * 100_000, "a.jsonl is not JSON Lines: line 1 is not JSON (maximum recursion"),
        (
            "a.jsonl",
            '{"a": ' + "1" * 5_000 + "}",
            "a.jsonl is not JSON Lines: line 1 is not JSON (Exceeds the",
        ),
        (
            "a.json",
            '{\n "rows": [\n  {"text": "a"}\n ]\n}',
            "a.json is one JSON value over several lines; a list of objects, or one object on each line, is "
            "needed.",
        ),
        ("a.json", '[{"text": "a"}, 5]', "a.json: item 1 is not a JSON object but '5'."),
    ],
)
def test_json_that_is_not_right(tmp_path, name, content, sentence):
    assert refuse(write(tmp_path, name, content)).startswith(sentence)


# Parquet.


def parquet(tmp_path, frame, **options):
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", **options)
    return tmp_path / "a.parquet"


def test_whole_numbers_of_parquet_stay_whole_beside_gaps(tmp_path):
    table = pa.table(
        {"a": pa.array([2**53 + 1, None]), "b": pa.array([2**64 - 1, None], pa.uint64()), "c": [1, 2]}
    )
    frame = read_table(parquet(tmp_path, table), set())
    assert frame.columns.tolist() == ["a", "b", "c"] and frame["c"].dtype == np.int64
    assert frame["a"].tolist() == [2**53 + 1, pd.NA] and frame["b"].tolist() == [2**64 - 1, pd.NA]


def test_an_index_with_a_name_is_a_column(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b"]}, index=pd.Index([7, 3], name="id"))
    assert read_table(parquet(tmp_path, frame), set())["id"].tolist() == [7, 3]
    assert read_table(parquet(tmp_path, frame.rename_axis(None)), set()).columns.tolist() == ["text"]


def test_a_damaged_parquet_file_is_named(tmp_path):
    frame = pd.DataFrame({"text": [f"film {i}" for i in range(50)], "label": ["a", "b"] * 25, "n": range(50)})
    path = parquet(tmp_path, frame, write_page_checksum=True)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    expected = read_table(path, set())
    refused = 0
    for cut in rng.integers(0, len(whole), 30).tolist():
        path.write_bytes(whole[:cut])
        assert refuse(path).startswith("a.parquet is not a Parquet file, or it is damaged: ")
    for place in rng.integers(0, len(whole), 200).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(bytes(damaged))
        try:
            got = read_table(path, set())
        except ValueError as error:
            assert str(error).startswith("a.parquet ")
            refused += 1
        else:  # the flipped bit is of the page's statistics, or of a name
            assert got.to_numpy().tolist() == expected.to_numpy().tolist()
    assert refused > 50


def test_texts_that_are_not_utf_8_are_refused(tmp_path):
    table = pa.table({"text": pa.array([b"caf\xe9"]).view(pa.binary())})
    broken = pa.Table.from_arrays([table["text"].combine_chunks().view(pa.string())], names=["text"])
    assert refuse(parquet(tmp_path, broken)).startswith("a.parquet is not a Parquet file, or it is damaged: ")
