"""Rows of named columns: a text with numbers and categories beside it, and what a model makes of those.

Checked rows are a NumPy structured array of shape (n,), so that they are counted, sliced, masked and joined
as texts are. Its first field is the text; the other columns follow by name: a number is a float64, NaN where
it is missing, and a category is a text, None where it is missing.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _rows
from finetune_eval._names import plain_number
from finetune_eval._text import listed, shorten, visible

KINDS = ("text", "number", "category")
_TRUTH = {"true": "1", "false": "0"}
# Values of a category that have an input of their own; the rarer ones share one.
MOST_VALUES = 32
_LARGEST = float(np.finfo(np.float32).max)
_EXACT = 2**53  # floats hold every whole number up to here
_EPSILON = float(np.finfo(np.float64).eps)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns a row has, and what was learnt of them from the training rows.

    Attributes:
        kinds: Name and kind of each column; the one text comes first, the others by name.
        learnt: For each column after the text, in order: (mean, spread) of a number, the values of a category
            that have an input of their own; None before anything was learnt.
    """

    kinds: tuple[tuple[str, str], ...]
    learnt: tuple[tuple[Any, ...], ...] | None = None

    @classmethod
    def declared(cls, columns: Any) -> Columns:
        """Return the columns that a caller declares, such as {"price": "number", "country": "category"}.

        Raises:
            TypeError, ValueError: It is no such dictionary; the sentence says why.
        """
        if not isinstance(columns, Mapping):
            raise TypeError(
                "`columns` must be a dictionary from the name of a column to its kind, such as "
                f"{{'price': 'number', 'country': 'category'}}; got {type(columns).__name__}."
            )
        for name, kind in columns.items():
            if not isinstance(name, str) or not name.strip():
                raise TypeError(f"`columns` must name columns by texts; got {name!r}.")
            if kind not in KINDS:
                raise ValueError(
                    f"`columns[{name!r}]` must be one of {', '.join(map(repr, KINDS))}; got {kind!r}."
                    f"{_checks.nearest(kind, KINDS)}"
                )
        texts = [name for name, kind in columns.items() if kind == "text"]
        if len(texts) > 1:
            raise ValueError(f"`columns` must have one text; it has {listed(texts)}. Join them to one.")
        if not texts and "text" in columns:
            raise ValueError(
                f"`columns` has 'text' as a {columns['text']} and says of no column that it is the text; add "
                "its name, such as 'review': 'text'."
            )
        others = sorted((name, kind) for name, kind in columns.items() if kind != "text")
        if not others:
            raise ValueError("`columns` must have a number or a category beside the text; leave it out else.")
        return cls((((texts or ["text"])[0], "text"), *others))

    @classmethod
    def of_rows(cls, rows: NDArray[Any]) -> Columns:
        """Return the columns of checked rows, whose types tell the kinds."""
        text, *others = rows.dtype.names or ()
        kinds = [(name, "number" if rows.dtype[name].kind == "f" else "category") for name in others]
        return cls(((text, "text"), *kinds))

    @classmethod
    def of_config(cls, config: Sequence[Any]) -> Columns:
        """Return what `config` was made of."""
        kinds, learnt = config
        return cls(
            tuple((name, kind) for name, kind in kinds),
            None if learnt is None else tuple(map(tuple, learnt)),
        )

    def config(self) -> list[Any]:
        """Return lists of texts and numbers, which JSON keeps to the bit."""
        learnt = None if self.learnt is None else [list(each) for each in self.learnt]
        return [[list(pair) for pair in self.kinds], learnt]

    @property
    def text(self) -> str:
        """The name of the column of texts."""
        return self.kinds[0][0]

    @property
    def names(self) -> list[str]:
        """The names of all columns, the text first."""
        return [name for name, _ in self.kinds]

    @property
    def width(self) -> int:
        """How many inputs the columns beside the text have."""
        return sum(2 if kind == "number" else MOST_VALUES + 2 for _, kind in self.kinds[1:])

    # --- reading ---------------------------------------------------------------

    def read(self, name: str, x: Any, *, blank: bool = True) -> NDArray[Any]:
        """Return rows as a structured array; columns are told by their names, in whatever order they come.

        Args:
            name: What the caller's argument is called, for the error.
            x: A dictionary of columns, a DataFrame, a list of dictionaries (one a row), or checked rows.
            blank: Whether a text may be empty or white space only.

        Raises:
            TypeError: It has no named columns, or a column holds something else than was declared.
            ValueError: A column is missing, too many or of another length, or has a value that is unusable.
        """
        columns = self._by_name(name, x)
        _rows.same_order(**{f"{name}[{each!r}]": values for each, values in columns.items()})
        read = {
            "text": lambda of, values: _rows.texts(of, values, blank=blank),
            "number": _numbers,
            "category": _categories,
        }
        found = {each: read[kind](f"{name}[{each!r}]", columns[each]) for each, kind in self.kinds}
        n = len(found[self.text])
        for each, values in found.items():
            if len(values) != n:
                raise ValueError(
                    f"`{name}` must have as many rows in every column; {self.text!r} has {n} and {each!r} "
                    f"has {len(values)}."
                )
        return self._put_together(found, n)

    def _put_together(self, found: Mapping[str, Any], n: int) -> NDArray[Any]:
        kinds = [(each, np.float64 if kind == "number" else object) for each, kind in self.kinds]
        rows = np.empty(n, dtype=kinds)
        for each, values in found.items():
            rows[each] = values
        return rows

    def _by_name(self, name: str, x: Any) -> dict[str, Any]:
        """Return the columns of what may hold them, or raise where they are not those declared."""
        if isinstance(x, np.ndarray) and x.dtype.names:
            columns = {each: x[each] for each in x.dtype.names}
        elif isinstance(x, Mapping):
            columns = dict(x)
        elif _is_frame(x):
            if x.columns.has_duplicates:
                twice = x.columns[x.columns.duplicated()][0]
                raise ValueError(f"`{name}` has two columns named {twice!r}; rename one.")
            columns = {each: x[each] for each in x.columns}
        elif isinstance(x, (list, tuple)) and len(x) and all(isinstance(row, Mapping) for row in x):
            for place, row in enumerate(x):
                self._check_names(f"{name}[{place}]", row)
            columns = {each: [row[each] for row in x] for each in self.names}
        else:
            raise TypeError(
                f"`{name}` must be a dictionary, a DataFrame or a list of dictionaries with the columns "
                f"{listed(self.names)}, which the model reads by their names; got {type(x).__name__}."
            )
        self._check_names(name, columns)
        return columns

    def _check_names(self, name: str, columns: Mapping[Any, Any]) -> None:
        came = ", ".join(repr(each) for each in [*columns][:8]) + (", ..." if len(columns) > 8 else "")
        for each, kind in self.kinds:
            if each not in columns:
                raise ValueError(
                    f"`{name}` has no column {each!r}, which the model reads as a {kind}; it has "
                    f"{came or 'none'}."
                    f"{_checks.nearest(each, [other for other in columns if isinstance(other, str)])}"
                )
        if more := [each for each in columns if each not in self.names]:
            raise ValueError(
                f"`{name}` has {'columns' if len(more) > 1 else 'a column'} that the model does not read: "
                f"{', '.join(map(repr, more[:8]))}. Pass {listed(self.names)} alone, or build the model with "
                "the others in `columns`."
            )

    def of_lines(self, lines: Iterable[str]) -> NDArray[Any]:
        """Return the rows that `as_lines` made lines of."""
        values = [json.loads(line) for line in lines]
        found = {each: [row[place] for row in values] for place, each in enumerate(self.names)}
        for each, kind in self.kinds:
            if kind == "number":
                found[each] = [math.nan if value is None else value for value in found[each]]
        return self._put_together(found, len(values))

    # --- learning --------------------------------------------------------------

    def learn(self, rows: NDArray[Any], weights: NDArray[Any] | None = None) -> Columns:
        """Return the columns with the mean and the spread of each number, and the values of each category.

        Rows of weight 0 do not count; all others count alike, and in whatever order they come.
        """
        counted = rows if weights is None else rows[np.asarray(weights) > 0]
        learnt: list[tuple[Any, ...]] = []
        for each, kind in self.kinds[1:]:
            values = counted[each]
            learnt.append(_mean_and_spread(values) if kind == "number" else _most_frequent(values))
        return dataclasses.replace(self, learnt=tuple(learnt))

    def inputs(self, name: str, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return (n, width) float32, the inputs of the head.

        Of a number: its distance from the mean in spreads, and whether it is missing. Of a category: a 1 for
        its value, for "other" or for "missing", and 0 for the rest.

        Raises:
            ValueError: Nothing was learnt yet, or a number is too far from the mean for float32.
        """
        if self.learnt is None:
            raise ValueError(
                f"The model does not know the columns {listed(self.names[1:])} yet: it learns the mean of a "
                "number and the values of a category from its training rows. Call `fine_tune`, or before "
                "Keras' `fit` call `model.learn_columns(x)` with the training rows."
            )
        parts = []
        for (each, kind), known in zip(self.kinds[1:], self.learnt, strict=True):
            make = _of_number if kind == "number" else _of_category
            parts.append(make(f"{name}[{each!r}]", rows[each], known))
        return np.concatenate(parts, axis=1)


def are_columns(rows: Any) -> bool:
    """Return whether rows are checked rows of named columns."""
    return isinstance(rows, np.ndarray) and rows.dtype.names is not None


def refuse_table(name: str, x: Any) -> None:
    """Raise where `x` has columns of several kinds, of which only a model knows what they are."""
    kinds = {getattr(dtype, "kind", "O") in "biuf" for dtype in x.dtypes} if _is_frame(x) else ()
    if isinstance(x, Mapping) or len(kinds) > 1:
        raise TypeError(
            f"`{name}` has named columns of several kinds; say which they are: "
            "`rows_of_columns(x, {'price': 'number', 'country': 'category'})` makes rows of a text and what "
            "is beside it."
        )


def _is_frame(x: Any) -> bool:
    return hasattr(x, "iloc") and hasattr(x, "columns")


def text_of(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the texts of checked rows of named columns."""
    return np.asarray(rows[(rows.dtype.names or ("",))[0]])


def as_lines(rows: NDArray[Any]) -> NDArray[np.object_]:
    """Return each of the checked rows as a line of JSON, from which `Columns.of_lines` gets it back."""
    numbers = [rows.dtype[name].kind == "f" for name in rows.dtype.names or ()]
    lines = np.empty(len(rows), dtype=object)
    lines[:] = [
        json.dumps(
            [None if number and value != value else value for value, number in zip(row, numbers, strict=True)]
        )
        for row in rows.tolist()
    ]
    return lines


# --- one column -------------------------------------------------------------------------------------------


def _numbers(name: str, values: Any) -> NDArray[np.float64]:
    """Return (n,) float64 numbers, NaN where they are missing."""
    array = _rows.one_a_row(name, values)
    missing = _rows.missing(array)
    if array.dtype.kind in "biuf":
        found = array.astype(np.float64)
    else:
        found = np.full(len(array), np.nan)
        for row, value in enumerate(array.tolist()):
            if missing[row]:
                continue
            if not _rows.is_real(value):
                raise TypeError(
                    f"`{name}` must hold numbers; row {row} is {_shown(value)} ({type(value).__name__}). "
                    "Convert the column, or declare it a 'category'."
                )
            found[row] = value if -_LARGEST <= value <= _LARGEST else math.inf
    wrong = ~missing & ~(np.abs(found) <= _LARGEST)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"`{name}` must hold numbers that float32 can hold; row {row} is {_shown(array.tolist()[row])}. "
            "Drop the row, or leave the number missing (NaN)."
        )
    return found + 0.0  # turns -0.0 into 0.0


def _shown(value: Any) -> str:
    return shorten(visible(repr(value)), 60)


def _categories(name: str, values: Any) -> NDArray[np.object_]:
    """Return (n,) texts, None where they are missing or blank.

    1, 1.0, "1", "1.0" and True are one value, as they are of labels: which of them a file or a DataFrame
    holds often depends on whether another row of the column is missing.
    """
    array = _rows.one_a_row(name, values)
    missing = _rows.missing(array)
    found = np.empty(len(array), dtype=object)
    for row, value in enumerate(array.tolist()):
        if not missing[row]:
            found[row] = _category(name, row, value)
    return found


def _category(name: str, row: int, value: Any) -> str | None:
    value = _rows.decoded(name, row, value)
    if isinstance(value, str):
        if _rows.has_half_a_pair(value):
            raise ValueError(f"`{name}` must hold valid Unicode; row {row} has half a surrogate pair.")
        word = _TRUTH.get(value.strip().lower(), plain_number(str(value)))
        return word if word.strip() else None
    if _rows.is_real(value):
        whole = not isinstance(value, (float, np.floating))
        if whole or (float(value).is_integer() and abs(value) < _EXACT):
            return str(int(value))
    raise TypeError(
        f"`{name}` must hold texts, whole numbers or truth values; row {row} is {_shown(value)} "
        f"({type(value).__name__}). Write it as a text, or declare the column a 'number'."
    )


def _mean_and_spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of the numbers that are there and their standard deviation, 0 where they are all one.

    Sums are rounded once (`math.fsum`), so that the order of the rows changes no bit.
    """
    there = values[~np.isnan(values)]
    if not len(there):
        return 0.0, 0.0
    mean = math.fsum(there) / len(there)
    spread = math.sqrt(math.fsum((there - mean) ** 2) / len(there))
    constant = there.min() == there.max() or spread <= 10 * _EPSILON * abs(mean)
    return mean, 0.0 if constant else spread


def _most_frequent(values: NDArray[np.object_]) -> tuple[str, ...]:
    """Return the most frequent values, of equally frequent ones the first by name."""
    counts = Counter(value for value in values.tolist() if value is not None)
    return tuple(sorted(counts, key=lambda value: (-counts[value], value))[:MOST_VALUES])


def _of_number(name: str, values: NDArray[np.float64], known: tuple[float, float]) -> NDArray[np.float32]:
    mean, spread = known
    missing = np.isnan(values)
    away = np.zeros(len(values))
    if spread:
        away[~missing] = (values[~missing] - mean) / spread
    if (far := np.abs(away) > _LARGEST).any():
        row = int(far.argmax())
        raise ValueError(
            f"`{name}` has {values[row]!r} in row {row}, which is too far from the {mean:g} of the training "
            "rows for float32."
        )
    return np.stack([away, missing], axis=1).astype(np.float32)


def _of_category(name: str, values: NDArray[np.object_], known: tuple[str, ...]) -> NDArray[np.float32]:
    places: dict[Any, int] = {value: place for place, value in enumerate(known)} | {None: MOST_VALUES + 1}
    of_rows = [places.get(value, MOST_VALUES) for value in values.tolist()]
    return np.eye(MOST_VALUES + 2, dtype=np.float32)[np.array(of_rows, dtype=np.int64)]
