"""What a caller may hand to a function by mistake, or on purpose."""

import datetime
import decimal
import linecache
import os
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import strategies as st

TIMES = int(os.environ.get("HOSTILE_TIMES", "1"))  # how many times the examples of the gate (make faults: 10)
DOCUMENTED = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    ImportError,
    OSError,
    FloatingPointError,
)


class Unruly:
    """Has a length and nothing else; whatever is asked of it fails."""

    def __len__(self):
        return 4

    def __repr__(self):
        return "<Unruly>"


def _arrays():
    return [
        np.zeros(4), np.zeros((4, 2)), np.zeros((4, 2, 2)), np.zeros((0,)), np.zeros((0, 2)), np.zeros(()),
        np.array([np.nan, 0, 1, np.inf]), np.array([1 + 2j] * 4), np.array(["a", "b", "c", "d"]),
        np.array([b"a", b"\xff", b"c", b"d"]), np.array([None, "a", 1, np.nan], dtype=object),
        np.array(["2020-01-01"] * 4, dtype="datetime64[D]"), np.array(["NaT"] * 4, dtype="timedelta64[s]"),
        np.ma.masked_array([0, 1, 0, 1], mask=[0, 1, 0, 0]), np.arange(4, dtype="uint64") + 2**63,
        np.float16([0.5, 0.5, 0.25, 1]), np.array([True, False, True, False]),
        np.zeros(4, dtype=[("a", "f4")]), np.array([[0.5, 0.5], [1, 0], [0.1, 0.9], [2, -1]]),
        np.float64(0.5), np.int8(3), np.bool_(True),
    ]  # fmt: skip


def _objects():
    frame = pd.DataFrame({"a": [0.1, 0.9, 0.5, 0.2], "b": [0.9, 0.1, 0.5, 0.8]})
    return [
        frame, frame.iloc[::-1], frame["a"], frame[["a"]], frame.iloc[:0], frame["a"].iloc[::-1],
        pd.Series([1, None, 0, 1], dtype="Int64"), pd.Series(["a", None, "b", "c"], dtype="string"),
        pd.Categorical(["a", "b", "a", None]), pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"]),
        pd.date_range("2020", periods=4), pd.NA, pd.NaT, Unruly(), object(), int, len, iter("abcd"),
        (each for each in "abcd"), range(4), {"a": [1, 2, 3, 4]}, {0: "a", 1: "b"}, {}, set("abcd"),
        frozenset(), Path("/nowhere/at/all"), Path("/dev/null"), datetime.date(2020, 1, 1),
        decimal.Decimal("0.5"), memoryview(b"abcd"), bytearray(b"abcd"), np.random.default_rng(0),
        Exception("an exception"), [[1, 2], [3]], [[]], [None] * 4, ["a", 1, None, 2.5], [{}, [], (), set()],
        ("a", "b", "c", "d"), [np.zeros(2)] * 4, [Unruly()] * 4, ["\ud800", "a", "b", "c"],
        ["", " ", "\0", "\x1b[31m"], ["x" * 100_000] * 4, [2**70, -(2**70), 0, 1], [True, 1, "1", 1.0],
        ["0", "1", "0", "1"], [0, 1, 0, 1], [1e308] * 4, [5e-324] * 4, [-0.0, 0.0, -0.0, 0.0],
    ]  # fmt: skip


SCALARS = [
    None, True, False, 0, 1, -1, 2, 10**30, -(10**30), 0.5, 1e-320, -0.5, float("nan"), float("inf"), 1 + 2j,
    "", "a", "auto", "balanced", "macro", "\0", "\ud800", "../..", "~", "a" * 5000, "f1", "recall>=0.9",
    "=1+1", "{0}", "%s", b"", b"abc", [], (), "/dev/full", "/proc/self/mem", ".", "tfds:", "movie_reviews/", "hf://",
    "a.csv", "a.parquet",
]  # fmt: skip

# Made anew for each example: some are used up, others could be changed.
values = st.one_of(
    st.sampled_from(range(len(SCALARS))).map(lambda place: SCALARS[place]),
    st.sampled_from(range(len(_arrays()))).map(lambda place: _arrays()[place]),
    st.sampled_from(range(len(_objects()))).map(lambda place: _objects()[place]),
    st.integers(), st.floats(), st.text(max_size=6),
    st.lists(st.one_of(st.integers(-1, 2), st.floats(0, 1), st.text(max_size=2), st.none()), max_size=5),
)  # fmt: skip


@st.composite
def calls(draw, valid):
    """Return a valid call with one or two of its arguments replaced."""
    arguments = dict(valid)
    names = draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True))
    for name in names:
        arguments[name] = draw(values)
    return names, arguments


def refused_or_done(function, arguments, documented=DOCUMENTED, *, own_words=True):
    """Call; only documented exceptions, raised by the library's own code, in words of its own.

    What NumPy, pandas or Python says ("truth value of an array", "unhashable type") names no argument.
    `own_words=False` is for what Keras is handed as it came, such as a dictionary of arrays.
    """
    try:
        return function(**arguments)
    except documented as error:
        assert str(error).strip(), f"{type(error).__name__} without a word"
        *_, place = traceback.extract_tb(error.__traceback__)
        ours = "finetune_eval" in Path(place.filename).parts and "raise" in _statement(place)
        assert ours or not own_words, f"{type(error).__name__} of {place.filename}:{place.lineno}: {error}"
        return error


def _statement(place):
    """Return the lines from the one that raised on; a failing expression has no `raise` in its place."""
    return "\n".join(linecache.getlines(place.filename)[place.lineno - 1 : place.end_lineno])
