import hashlib
import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from finetune_eval.data.ledger import DataTrace, Step, normalise, rows_hash, text_hash


def test_text_hash_is_the_published_sha256():
    # FIPS 180-2, appendix B.1: SHA-256("abc") = ba7816bf 8f01cfea 414140de ...
    assert text_hash("abc") == "ba7816bf8f01cfea"


@given(st.text())
def test_text_hash_takes_any_text_even_lone_surrogates(text):
    assert text_hash(text) == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def test_rows_hash_is_of_values_not_of_containers():
    texts, labels = ["one", "two"], [0, 1]
    expected = rows_hash(texts, labels)
    assert len(expected) == 16
    assert rows_hash(np.array(texts, dtype=object), np.array(labels, dtype=np.int32)) == expected
    assert rows_hash(pd.Series(texts), pd.Series(labels)) == expected
    numbers = [[0.5, -2.0], [0.0, 3.0]]
    assert rows_hash(np.array(numbers, np.float32)) == rows_hash(np.array(numbers, np.float64))
    assert rows_hash(np.array([[-0.0, 1.0]])) == rows_hash(np.array([[0.0, 1.0]]))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (["ab", "c"], [0, 1]),  # against ["a", "bc"]: the lengths must be part of the hash
        (["bc", "a"], [0, 1]),
        (["a", "bc"], [1, 0]),
        (["a", "bc"], None),
        (["a", "bc "], [0, 1]),
        ([["a", "bc"]], [0, 1]),
    ],
)
def test_rows_hash_sees_every_difference(x, y):
    assert rows_hash(x, y) != rows_hash(["a", "bc"], [0, 1])


@given(st.text())
def test_normalise_is_stable_and_forgets_case_form_and_spaces(text):
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(f"  {text}\n") == once
    assert normalise(unicodedata.normalize("NFD", text)) == once


def test_normalise_by_hand():
    assert normalise("The  FILM\tis\r\nGood\u00a0!") == "the film is good !"
    assert normalise("Stra\u00dfe \ufb01n \uff21") == "strasse fin a"  # ss, the ligature fi, full-width A


def steps(note="three words here"):
    return [
        Step("read", "reviews.csv", 33_530, 3, 8_530, 2, hash="0123456789abcdef"),
        Step("split", "train", 8_530, 2, 1_000, 2, note=note),
    ]


def test_trace_prints_as_a_table():
    assert str(DataTrace().add(*steps())) == (
        "stage  what            rows x columns in -> out             hash\n"
        "read   reviews.csv      33,530 x 3 -> 8,530 x 2 0123456789abcdef\n"
        "split  train             8,530 x 2 -> 1,000 x 2\n"
        "         three words here"
    )


def test_what_comes_from_outside_is_printed_as_escapes():
    trace = DataTrace().add(Step("read", "a\x1b[2J\n\u202eb.csv", 3, 2, 3, 2, note="column '\x1b[31m'"))
    printed = str(trace)
    assert "\x1b" not in printed and "\u202e" not in printed and len(printed.splitlines()) == 3
    assert r"a\x1b[2J \u202eb.csv" in printed


def test_a_narrow_terminal_gets_lines_for_each_step(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    assert str(DataTrace().add(*steps())) == (
        "read reviews.csv\n"
        "  33,530 x 3 -> 8,530 x 2\n"
        "  hash 0123456789abcdef\n"
        "split train\n"
        "  8,530 x 2 -> 1,000 x 2\n"
        "    three words here"
    )


@given(
    st.lists(
        st.builds(
            Step,
            st.text(max_size=40),
            st.text(max_size=200),
            *[st.integers(0, 10**9), st.integers(0, 10**4)] * 2,
            st.text(max_size=200),
            st.just("f" * 16),
        ),
        max_size=4,
    )
)
def test_no_line_of_the_table_is_wider_than_the_terminal(made):
    for columns in (40, 80):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            assert all(cell_len(line) <= columns for line in str(DataTrace(tuple(made))).splitlines())


def test_trace_survives_saving(tmp_path):
    trace = DataTrace().add(*steps("café"))
    path = trace.save(tmp_path / "run" / "data.json")
    assert DataTrace.load(path) == trace
    assert json.loads(path.read_text(encoding="utf-8"))["steps"][0]["rows_out"] == 8_530
    assert [p.name for p in path.parent.iterdir()] == ["data.json"]  # no temporary file is left


def test_load_says_what_is_wrong(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="`path` must be a data trace written by DataTrace.save; .* does not exist"
    ):
        DataTrace.load(tmp_path / "nothing.json")
    (tmp_path / "other.json").write_text('{"steps": [{"stage": "read"}]}')
    with pytest.raises(
        ValueError, match="`path` must be a data trace written by DataTrace.save; .* is not one"
    ):
        DataTrace.load(tmp_path / "other.json")
