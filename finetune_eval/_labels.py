"""The one reading of labels: which class a row is of, whatever the label looks like.

A class has a name (a text) and a place (0, 1, ...). A text is a name. A number may be either: it is read as
the only one of the two that fits, and refused where both fit and say different things. The dtype decides
nothing: 1, 1.0, "1" and True as `int64`, `float32` or `object` are read alike wherever they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _checks, _rows
from finetune_eval._names import (
    are_numbers,
    as_compared,
    class_names,
    default_names,
    number_of,
    numbers_are_places,
    plain_number,
    written,
)
from finetune_eval._text import listed

_PROBABILITY_SLACK = 1e-3  # how far the sum of a row of float32 or rounded probabilities may be from 1
_EXACT = 2**53  # from here on a float does not hold every whole number
_NO_LABEL = (list, tuple, dict, set, np.ndarray, complex)


class ClassIndices(np.ndarray):
    """Places of classes that know of which names: (n,) int64, with `labels`.

    `Rows.y` is one, so that classes named "1", "2", "3", or in another order than a model's, cannot be
    misread. Slices keep the names; results of arithmetic are plain arrays.
    """

    labels: tuple[str, ...] | None

    def __new__(cls, indices: Any, labels: Sequence[str]) -> ClassIndices:
        """Return a view of `indices` that knows its `labels`."""
        array = np.asarray(indices, dtype=np.int64).view(cls)
        array.labels = tuple(labels)
        return array

    def __array_finalize__(self, source: Any) -> None:
        self.labels = getattr(source, "labels", None)

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        return *reduced[:2], (reduced[2], self.labels)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.labels = state[1]

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return array[()] if return_scalar else np.asarray(array)


# ------------------------------------------------------------------------------------------
# Labels of rows
# ------------------------------------------------------------------------------------------


def read(name: str, y: Any, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each row's class.

    Args:
        name: What the caller's argument is called, for the error.
        y: (n,) or (n, 1) class names or places; or (n, K) one-hot rows. A DataFrame whose K columns are the
            class names may have them in any order.
        labels: The K class names in the order of their places.

    Returns:
        (n,) int64, each in [0, K).

    Raises:
        TypeError: It is no column of labels: a single text, a set, dates, complex numbers.
        ValueError: A label is missing, unknown, fractional or out of range, or numbers may be read as names
            and as places. The sentence gives the first such row.

    Example:
        >>> read("y", [1, 5, 5], ["1", "2", "3", "4", "5"]).tolist()
        [0, 4, 4]
        >>> read("y", ["good", "bad"], ["bad", "good"]).tolist(), read("y", [1, 0], ["bad", "good"]).tolist()
        ([1, 0], [1, 0])
    """
    names = tuple(labels)
    if y is None:
        raise ValueError(f"`{name}` is None; labels are needed: one class index or class name for each row.")
    known = known_names(y)
    if known is not None:
        places = _all_answered(name, y)
        return places if known == names else _renamed(name, places, known, names)
    array = _rows.column(name, _columns_in_order(name, y, names))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] == len(names):
        return _of_one_hot(name, array)
    if array.ndim != 1:
        raise ValueError(
            f"`{name}` must have shape (rows,), (rows, 1) or one-hot (rows, {len(names)}); got {array.shape}."
        )
    if array.dtype.kind in "iu" and numbers_are_places(names):
        # No name can be meant, and nothing is missing: millions of rows are quick.
        if array.size and not (0 <= array.min() and array.max() < len(names)):
            row = int(((array < 0) | (array >= len(names))).argmax())
            _refuse(name, row, array[row].item(), names)
        return array.astype(np.int64)
    values, first, codes = _distinct(name, array)
    return np.array(_places(name, values, first, names), dtype=np.int64)[codes]


def read_soft(name: str, y: Any, labels: Sequence[str]) -> NDArray[np.float32] | None:
    """Return (n, K) probabilities of the classes where labels are such; None where they are anything else.

    Raises:
        ValueError: A row's are negative, not finite, or do not add up to 1; the sentence gives the first.
    """
    names = tuple(labels)
    if _rows.dimensions(y) != 2 or np.shape(y)[1] != len(names):
        return None
    array = _rows.column(name, _columns_in_order(name, y, names))
    if array.dtype.kind != "f" or np.isin(array, (0, 1)).all():
        return None
    values = array.astype(np.float64)
    totals = values.sum(axis=1)
    fine = (values >= 0).all(axis=1) & (np.abs(totals - 1) <= _PROBABILITY_SLACK)
    if not fine.all():
        row = int((~fine).argmax())
        raise ValueError(
            f"`{name}` holds a probability for each class, and those of row {row} are {array[row].tolist()}: "
            "they must be at least 0 and add up to 1."
        )
    return np.asarray(values / totals[:, np.newaxis], dtype=np.float32)


def read_many(name: str, y: Any, labels: Sequence[str]) -> NDArray[np.int64]:
    """Return (n, K) zeros and ones of rows with several labels each; DataFrame columns in any order."""
    names = tuple(labels)
    if y is None:
        raise ValueError(f"`{name}` is None; zeros and ones of shape (rows, {len(names)}) are needed.")
    array = _rows.column(name, _columns_in_order(name, y, names))
    if array.ndim == 2 and array.dtype.kind in "OUT":  # columns of several dtypes, nullable ones, texts
        cells = [[number_of(each) for each in row] for row in array.tolist()]
        wrong = next((row for row, values in enumerate(cells) if None in values), None)
        if wrong is not None:
            raise ValueError(f"`{name}` must be zeros and ones; row {wrong} is {array[wrong].tolist()}.")
        array = np.array(cells).reshape(array.shape)
    if array.ndim != 2 or array.shape[1] != len(names) or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`{name}` must be zeros and ones of shape (rows, {len(names)}) where task='multilabel'; "
            f"got shape {array.shape}, dtype {array.dtype}."
        )
    bad = np.flatnonzero(~((array == 0) | (array == 1)).all(axis=1))
    if bad.size:
        raise ValueError(f"`{name}` must be zeros and ones; row {bad[0]} is {array[bad[0]].tolist()}.")
    return array.astype(np.int64)


def find(name: str, y: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return places and names of classes that nobody listed: the distinct labels, sorted (numbers by value).

    Texts are named as they are written; but where "1" is a label, "1.0" is it too (a column of whole numbers
    in which some were missing comes back as "1.0" here and "1" there).

    Raises:
        ValueError: A label is missing, a measurement (0.25) rather than a class, or there are fewer than two
            classes.

    Example:
        >>> find("y", [7, 10, 7])
        (array([0, 1, 0]), ('7', '10'))
    """
    known = known_names(y)
    if known is not None:
        return _all_answered(name, y), known
    array = _rows.column(name, y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"`{name}` must have one label a row, shape (rows,); got {array.shape}. Pass `labels` to use "
            "one-hot rows."
        )
    values, first, codes = _distinct(name, array)
    for value, row in zip(values, first, strict=True):
        if isinstance(value, float) and not (value.is_integer() and abs(value) < _EXACT):
            what = "numbers that a float holds exactly" if value.is_integer() else "classes, not measurements"
            raise ValueError(
                f"`{name}` must hold {what}; row {row} is {value!r}. Sort the values into named bins, or "
                "read the column as text."
            )
    words = [value if isinstance(value, str) else written(value) for value in values]
    words = [plain_number(word) if plain_number(word) in words else word for word in words]
    if len(set(words)) < 2:
        raise ValueError(
            f"`{name}` has only one class, {next(iter(words), 'none')!r}; at least two are needed. "
            "If these rows are only to be tested on, pass all the class names in `labels`."
        )
    names = tuple(sorted(set(words), key=_sort_key(words)))
    index = {each: place for place, each in enumerate(names)}
    return np.array([index[word] for word in words], dtype=np.int64)[codes], names


def unseen(y: NDArray[Any], classes: int, weights: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """Return the places of the classes that no row has, or only rows of weight 0.

    Args:
        y: (n,) places, or (n, classes) zeros and ones.
        classes: How many classes there are.
        weights: (n,) weights of the rows, or None.
    """
    counted = y if weights is None else y[weights > 0]
    rows = counted.sum(axis=0) if counted.ndim == 2 else np.bincount(counted, minlength=classes)
    return np.flatnonzero(rows == 0)


def _sort_key(words: Iterable[str]) -> Any:
    if all(word.isascii() and word.removeprefix("-").isdigit() for word in words):
        return lambda word: (int(word), word)
    return str


def refuse_several(name: str, y: Any, instead: str) -> None:
    """Raise where rows are zeros and ones of several labels; `instead` says what to do in this function."""
    array = _rows.column(name, y)
    if array.ndim != 2 or array.shape[1] < 2 or not np.isin(array, (0, 1)).all():
        return
    ones = array.astype(np.int64).sum(axis=1)
    if (ones != 1).any():
        row = int((ones != 1).argmax())
        raise ValueError(
            f"`{name}` must have one class a row; row {row} has {ones[row]} of {array.shape[1]} labels. "
            f"{instead}"
        )


def find_many(name: str, y: Any) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return zeros and ones of rows with several labels each, and the names of the columns, or "0", "1", ...

    Raises:
        ValueError: As for `read_many`.
    """
    words = column_words(y)
    names = class_names(words) if words else default_names(np.shape(y)[1] if _rows.dimensions(y) == 2 else 1)
    return read_many(name, y, names), names


def known_names(y: Any) -> tuple[str, ...] | None:
    """Return the names that the places in `y` are of, where `y` knows them and still holds places.

    -1 is one of them: there `Classifier.decide` withheld its answer.
    """
    if (
        not isinstance(y, ClassIndices)
        or y.labels is None
        or y.dtype.kind not in "iuf"
        or y.ndim not in (1, 2)
    ):
        return None
    places = np.isin(np.asarray(y), np.arange(-1, len(y.labels)))
    return y.labels if y.size == len(y) and places.all() else None


def _all_answered(name: str, y: ClassIndices) -> NDArray[np.int64]:
    """Return (n,) places of labels whose names are known, or raise where one was withheld."""
    places = np.array(y, dtype=np.int64).reshape(-1)
    if (places < 0).any():
        raise ValueError(
            f"`{name}` has no label in row {int((places < 0).argmax())}: the answer was withheld there (-1). "
            "Drop such rows or give them a label."
        )
    return places


def _renamed(
    name: str, places: NDArray[np.int64], theirs: tuple[str, ...], names: tuple[str, ...]
) -> NDArray[np.int64]:
    """Return places in `names` of places in `theirs`."""
    if (
        len(theirs) == len(names)
        and set(theirs) != set(names)
        and default_names(len(names)) in (theirs, names)
    ):
        return places  # one side was never given names
    index = {each: place for place, each in enumerate(names)}
    new = np.array([index.get(each, -1) for each in theirs], dtype=np.int64)[places]
    if (new < 0).any():
        row = int((new < 0).argmax())
        _refuse(name, row, theirs[places[row]], names)
    return new


def _columns_in_order(name: str, y: Any, names: tuple[str, ...]) -> Any:
    """Put the columns of a DataFrame into the order of the classes, by their names."""
    words = column_words(y)
    if words is None or len(words) != len(names):
        return y
    return y.iloc[:, column_order(name, words, names)]


def column_words(values: Any) -> tuple[str, ...] | None:
    """Return how the columns of a DataFrame are called, as names of classes are written; None of others."""
    columns = getattr(values, "columns", None)
    if columns is None or not hasattr(values, "iloc") or values.ndim != 2:
        return None
    return tuple(column if isinstance(column, str) else written(column) for column in columns)


def column_order(name: str, words: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where each class is among columns that are called by the names of the classes, or their places.

    Raises:
        ValueError: They are called otherwise: the order of the columns alone says nothing certain.
    """
    for called in (tuple(names), default_names(len(names))):
        if set(words) == set(called) and len(words) == len(called):
            return [list(words).index(each) for each in called]
    raise ValueError(
        f"`{name}` must have one column for each class, named {listed(names)}; its columns are "
        f"{listed(words)}. Rename them, or pass `.to_numpy()` where they are in the order of the classes."
    )


def _of_one_hot(name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    bad = np.flatnonzero(~(((array == 0) | (array == 1)).all(axis=1) & ((array == 1).sum(axis=1) == 1)))
    if bad.size:
        raise ValueError(
            f"`{name}` with {array.shape[1]} columns must be one-hot, with exactly one 1 in each row and the "
            f"rest 0; row {bad[0]} is {array[bad[0]].tolist()}. Rows that may have several labels need "
            "`task='multilabel'`."
        )
    return np.asarray((array == 1).argmax(axis=1), dtype=np.int64)


def _distinct(name: str, array: NDArray[Any]) -> tuple[list[Any], list[int], NDArray[np.int64]]:
    """Return the distinct labels, the first row of each, and (n,) which of them each row has."""
    if array.dtype.kind not in "biufOUST":
        raise TypeError(f"`{name}` must hold class indices or class names; got dtype {array.dtype}.")
    absent = _rows.missing(array)
    if absent.any():
        raise ValueError(
            f"`{name}` has no label in row {int(absent.argmax())}; drop the row or give it a label."
        )
    if array.dtype.kind in "biuf":
        numbers, rows, codes = np.unique(array, return_index=True, return_inverse=True)
        return numbers.tolist(), rows.tolist(), codes.astype(np.int64)
    listed = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in array.tolist()]
    kinds = set(map(type, listed))
    if any(issubclass(kind, _NO_LABEL) for kind in kinds):
        row = next(row for row, value in enumerate(listed) if isinstance(value, _NO_LABEL))
        raise TypeError(
            f"`{name}` must hold one class index or class name a row; row {row} is {listed[row]!r} "
            f"({type(listed[row]).__name__})."
        )
    # True and 1 are one key to Python and two labels to a person.
    keys: list[Any] = listed if kinds == {str} else [(isinstance(v, (bool, np.bool_)), v) for v in listed]
    number = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    codes = np.fromiter(map(number.__getitem__, keys), np.int64, len(keys))
    first = np.empty(len(number), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    values = [listed[row] for row in first.tolist()]
    for value, row in zip(values, first.tolist(), strict=True):
        if isinstance(value, str) and not value.strip():
            raise ValueError(
                f"`{name}` has no label in row {row} ({value!r}); drop the row or give it a label."
            )
        if isinstance(value, str) and _rows.has_half_a_pair(value):
            raise ValueError(
                f"`{name}` must hold valid Unicode; row {row} is {value!r}, with half a surrogate pair."
            )
    return values, first.tolist(), codes


def _places(name: str, values: list[Any], first: list[int], names: tuple[str, ...]) -> list[int]:
    """Return the place of each distinct label."""
    are_texts = [isinstance(value, str) for value in values]
    if all(are_texts):
        return _places_of_texts(name, values, first, names)
    if not any(are_texts):
        return places_of_numbers(name, values, first, names)
    places = named(values, names)
    if None in places:
        at = places.index(None)
        raise ValueError(
            f"`{name}` holds texts and numbers, which are then all read as class names; {values[at]!r} in "
            f"row {first[at]} is none of {listed(names)}."
        )
    return [place for place in places if place is not None]


def _places_of_texts(name: str, words: list[str], first: list[int], names: tuple[str, ...]) -> list[int]:
    """Read texts as names; or as places, where they are numbers or truth values and no name is."""
    numbers = [number_of(word) for word in words]
    if None not in numbers and not any(place is not None for place in named(words, names)):
        if numbers_are_places(names):
            return places_of_numbers(name, numbers, first, names)
    places = named(words, names)
    if None in places:
        _refuse(name, first[places.index(None)], words[places.index(None)], names)
    return [place for place in places if place is not None]


def named(values: Iterable[Any], names: tuple[str, ...]) -> list[int | None]:
    """Return the class that each label names, or None: 1, 1.0 and "1.0" (if no class itself) name "1"."""
    index = {each: place for place, each in enumerate(names)}
    plain: dict[str, int | None] = {}
    for each, place in index.items():
        plain[as_compared(each)] = None if as_compared(each) in plain else place
    words = [value if isinstance(value, str) else written(value) for value in values]
    return [index[word] if word in index else plain.get(as_compared(word)) for word in words]


def places_of_numbers(name: str, values: list[Any], first: list[int], names: tuple[str, ...]) -> list[int]:
    """Read numbers as places or as names: as what fits; where both do, they must agree."""
    classes = len(names)
    as_places = [int(value) if value in range(classes) else None for value in values]
    numbers = [number_of(each) for each in names]
    if numbers_are_places(names):
        as_names: list[int | None] = as_places
    else:
        as_names = named(values, names)
        if all(isinstance(value, bool) for value in values) and None not in as_names:
            as_places = as_names  # True is the class "True", wherever that stands
        elif None in as_names and None not in as_places:
            # 1 does not name "01", but whoever wrote it may have meant that.
            as_names = [numbers.index(value) if numbers.count(value) == 1 else None for value in values]
    clash = _first(place != named for place, named in zip(as_places, as_names, strict=True))
    if None not in as_places and None not in as_names and clash is not None:
        raise ValueError(
            f"`{name}` holds numbers that may be names or places of the classes {listed(names)}: "
            f"{values[clash]!r} in row {first[clash]} is the name of one class and the place of another. "
            "Pass the names as text, or arrange the classes so that names and places agree."
        )
    places = as_names if None in as_places else as_places
    unread = _first(place is None for place in places)
    if unread is None:
        return [place for place in places if place is not None]
    no_place = as_places.index(None)
    if as_places[unread] is not None:  # a place, but another number is a name
        raise ValueError(
            f"`{name}` holds numbers that are neither all names nor all places of the classes "
            f"{listed(names)}: {values[unread]!r} in row {first[unread]} is no name, {values[no_place]!r} in "
            f"row {first[no_place]} is no place (0 to {classes - 1})."
        )
    _refuse(name, first[unread], values[unread], names)


def _first(flags: Iterable[bool]) -> int | None:
    return next((at for at, flag in enumerate(flags) if flag), None)


def _refuse(name: str, row: int, value: Any, names: tuple[str, ...]) -> NoReturn:
    """Raise for a label of no class."""
    if isinstance(value, str):
        raise ValueError(
            f"`{name}` has an unknown label {value!r} in row {row}; the labels are {listed(names)}."
            f"{_checks.nearest(value, names)}"
        )
    raise ValueError(
        f"`{name}` must be class indices from 0 to {len(names) - 1} or class names ({listed(names)}); "
        f"row {row} is {value!r}."
    )


__all__ = [  # what callers need of names stands here, too
    "ClassIndices", "are_numbers", "class_names", "column_order", "column_words", "default_names", "find",
    "known_names", "named", "number_of", "numbers_are_places", "places_of_numbers", "plain_number", "read",
    "read_many", "written",
]  # fmt: skip
