"""Pairs of texts: a row that is two texts, as an array of shape (n, 2), or written as one text.

What asks for one text a row (the files of predictions, the search for leaks, TF-IDF) reads a pair as
"first ||| second", the form in which aligned corpora write two sentences in one line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _columns, _rows

_BETWEEN = " ||| "
_MARK = re.compile(r"(?<!\|)\|\|\|(?!\|)")
_BARS = re.compile(r"\|{3,}")
_HOW = "pass a list of pairs, [(first, second), ...]"


def are_pairs(values: Any) -> bool:
    """Return whether rows are two texts each, told by the first that is not missing; nothing is checked."""
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        return False
    if hasattr(values, "iloc"):
        if values.ndim == 2 and values.shape[1] != 2:
            return False
        values = values.to_numpy()
    if getattr(getattr(values, "dtype", None), "kind", "O") not in "OUST":
        return False
    for row in values:
        if not isinstance(row, (list, tuple, np.ndarray)) or len(row) != 2:
            return False
        known = [value for value in row if not _rows.is_missing(value)]
        if known:
            return isinstance(known[0], (str, bytes))
    return False


def pairs(name: str, values: Any, *, blank: bool = True) -> NDArray[np.object_]:
    """Return pairs of texts as an (n, 2) object array of str.

    Args:
        name: What the caller's argument is called, for the error.
        values: (n, 2) texts: a list of pairs, an array, or a DataFrame of two columns, read by place; or (n,)
            texts that `joined` made of pairs.
        blank: Whether a text may be empty or white space only.

    Raises:
        TypeError: A row is no pair, or it cannot be told what is a row.
        ValueError: A text is missing, blank, or no Unicode; the sentence names the row.
    """
    if isinstance(values, Mapping):
        raise TypeError(
            f"`{name}` is a dictionary, and the two texts of a pair are told by their place; {_HOW}."
        )
    if isinstance(values, tuple) and len(values) == 2:
        raise TypeError(
            f"`{name}` is a tuple of two, which may be two rows or two columns of texts; {_HOW}: "
            "list(zip(firsts, seconds)), and for one row [(first, second)]."
        )
    if isinstance(values, (list, tuple)) or (hasattr(values, "iloc") and values.ndim == 1):
        array = _of_list(name, list(values))
    else:
        array = _rows.column(name, values)
    if array.ndim == 1:
        return parted(name, array)
    if array.ndim != 2 or array.shape[1] != 2:
        raise TypeError(
            f"`{name}` must hold two texts a row, shape (rows, 2), since the model reads pairs; got shape "
            f"{array.shape}: {_HOW}."
        )
    columns = [_rows.texts(f"{name}[:, {place}]", array[:, place], blank=blank) for place in (0, 1)]
    return np.stack(columns, axis=1)


def _of_list(name: str, rows: list[Any]) -> NDArray[Any]:
    """Return a list of pairs as (n, 2) values; of single texts as (n,)."""
    texts = sum(isinstance(row, (str, bytes)) for row in rows)
    if texts == len(rows):
        return _rows.column(name, rows)
    array = np.empty((len(rows), 2), dtype=object)
    for place, row in enumerate(rows):
        if not isinstance(row, (list, tuple, np.ndarray)) or len(row) != 2:
            raise TypeError(_no_pair(name, place, row))
        array[place] = row
    return array


def _no_pair(name: str, row: int, value: Any) -> str:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return (
        f"`{name}` must hold two texts a row, since the model reads pairs; row {row} is {shown} "
        f"({type(value).__name__}): {_HOW}."
    )


def joined(rows: NDArray[Any]) -> NDArray[np.object_]:
    """Return each pair of (n, 2) texts as one text, from which `parted` gets the pair back.

    Three bars or more in a text get one more, so that two different pairs never become the same text.

    Example:
        >>> joined(np.array([["It rains.", "a|||b"]], dtype=object)).tolist()
        ['It rains. ||| a||||b']
    """
    out = np.empty(len(rows), dtype=object)
    out[:] = [_BETWEEN.join(_BARS.sub(r"\g<0>|", text) for text in row) for row in rows.tolist()]
    return out


def parted(name: str, values: NDArray[Any]) -> NDArray[np.object_]:
    """Return (n, 2) texts of which `joined` made (n,) texts, or raise TypeError where a row is no pair."""
    out = np.empty((len(values), 2), dtype=object)
    for place, text in enumerate(_rows.texts(name, values)):
        marks = list(_MARK.finditer(text))
        if len(marks) != 1:
            raise TypeError(_no_pair(name, place, text))
        parts = text[: marks[0].start()].removesuffix(" "), text[marks[0].end() :].removeprefix(" ")
        out[place] = [_BARS.sub(lambda bars: bars[0][1:], part) for part in parts]
    return out


def one_text(rows: NDArray[Any]) -> NDArray[Any]:
    """Return checked rows with every pair joined, and of rows of columns the text; others as they are."""
    if _columns.are_columns(rows):
        return _columns.text_of(rows)
    return joined(rows) if rows.dtype == object and rows.ndim == 2 else rows


def texts(name: str, values: Any, *, blank: bool = True) -> NDArray[np.object_]:
    """Return (n,) texts, as `_rows.texts` does; pairs of texts are joined."""
    return (
        joined(pairs(name, values, blank=blank))
        if are_pairs(values)
        else _rows.texts(name, values, blank=blank)
    )
