"""The one check of rows: a value for each row, whatever container it comes in.

Every public function that takes rows calls these functions once, at its edge. They return plain NumPy arrays
and
never guess: what is missing, masked, unordered or in another order than its neighbour is refused in one
sentence that names the first such row.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXACT = 2**53  # floats hold every whole number up to here
_NEVER_MISSING = {str, bytes, int, bool}


def is_missing(value: Any) -> bool:
    """Return whether a single value stands for "nothing here": None, NaN, NaT, pandas.NA or a masked entry.

    Example:
        >>> [is_missing(value) for value in (None, float("nan"), np.datetime64("NaT"), np.ma.masked, "", 0)]
        [True, True, True, True, False, False]
    """
    if value is None or value is np.ma.masked:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA does not say whether it differs from itself
        return True
    except ValueError:  # an array is no single value
        return False


def missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return (n,) booleans: which entries of a one-dimensional array are missing."""
    if values.dtype.kind in "biuUS":
        return np.zeros(len(values), dtype=bool)
    if values.dtype.kind == "f":
        return np.asarray(np.isnan(values))
    listed = values.tolist()
    if set(map(type, listed)) <= _NEVER_MISSING:  # millions of texts are quick
        return np.zeros(len(values), dtype=bool)
    return np.fromiter((is_missing(value) for value in listed), bool, len(values))


def dimensions(values: Any) -> int:
    """Return how many dimensions values have; 1 for a list whose parts differ in length."""
    try:
        return np.ndim(values)
    except ValueError:
        return 1


def column(name: str, values: Any) -> NDArray[Any]:
    """Return rows as an array of shape (n, ...) that holds exactly what the caller's container holds.

    Texts, mixed values and whole numbers too large for a float come as an object array, so that NumPy turns
    none of them into something else.

    Args:
        name: What the caller's argument is called, for the error.
        values: A list, tuple, array, pandas Series or DataFrame, Arrow array or tensor.

    Raises:
        TypeError: It has no order, no length, or is a single text.
        ValueError: It is None, ragged, or a masked array in which an entry is masked.

    Example:
        >>> column("x", ["a", float("nan"), 3]).tolist()
        ['a', nan, 3]
    """
    if values is None:
        raise ValueError(f"`{name}` is None; one value for each row is needed.")
    if isinstance(values, (str, bytes)):
        raise TypeError(
            f"`{name}` is a single text; pass a list with one value for each row, even for one row: [{name}]."
        )
    if isinstance(values, (set, frozenset)):
        raise TypeError(
            f"`{name}` is a set, which has no order: it cannot be told which value is of which row. "
            "Pass a list or an array."
        )
    if isinstance(values, Mapping):
        raise TypeError(
            f"`{name}` is a dictionary; pass a list, array or Series with one value for each row."
        )
    if not hasattr(values, "__len__"):
        raise TypeError(
            f"`{name}` must be a list, array or Series with one value for each row; got "
            f"{type(values).__name__}."
        )
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        if hidden.any():
            row = np.argwhere(hidden.reshape(len(values), -1))[0, 0]
            raise ValueError(
                f"`{name}` has a masked (missing) entry in row {row}; drop the row or fill it with "
                "`.filled(...)`."
            )
        return np.asarray(values.data)
    if hasattr(values, "to_pylist"):  # an Arrow array: NumPy would make floats of whole numbers beside a null
        values = values.to_pylist()
    elif (
        hasattr(values, "iloc") and getattr(values, "ndim", 1) == 1 and not isinstance(values.dtype, np.dtype)
    ):
        values = values.to_numpy(dtype=object)  # a nullable column, for the same reason
    if isinstance(values, (list, tuple)):
        return _of_list(name, values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` cannot be read as rows: {error}.") from None
    if array.ndim == 0:
        raise TypeError(f"`{name}` must have one value for each row; got the single value {array.item()!r}.")
    return array


def _of_list(name: str, values: list[Any] | tuple[Any, ...]) -> NDArray[Any]:
    kinds = set(map(type, values))
    numbers = all(issubclass(kind, (bool, int, float, complex, np.generic)) for kind in kinds)
    texts = any(issubclass(kind, (str, bytes)) for kind in kinds)  # np.str_ is both a text and np.generic
    if numbers and not texts:
        array = np.asarray(values)
        whole = all(issubclass(kind, (bool, int, np.integer, np.bool_)) for kind in kinds)
        if array.dtype.kind != "f" or (not whole and np.nanmax(np.abs(array), initial=0) <= _EXACT):
            return array
    elif kinds and all(issubclass(kind, (list, tuple)) or hasattr(kind, "__array__") for kind in kinds):
        try:
            array = np.asarray(values)
        except ValueError:
            raise ValueError(
                f"`{name}` has rows of different lengths; every row needs as many values."
            ) from None
        if array.dtype.kind not in "US":
            return array
        return np.array(values, dtype=object)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def one_a_row(name: str, values: Any, rows: int | None = None) -> NDArray[Any]:
    """Return (n,) values; (n, 1) is flattened.

    Args:
        name: What the caller's argument is called, for the error.
        values: As for `column`.
        rows: How many there must be; None for any number.
    """
    array = column(name, values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"`{name}` must have one value a row, shape (rows,); got {array.shape}.")
    if rows is not None and len(array) != rows:
        raise ValueError(f"`{name}` must have one value for each of the {rows} rows; got {len(array)}.")
    return array


def texts(name: str, values: Any, *, blank: bool = True) -> NDArray[np.object_]:
    """Return (n,) texts as an object array of str.

    Args:
        name: What the caller's argument is called, for the error.
        values: (n,) or (n, 1) texts; bytes are read as UTF-8.
        blank: Whether a text may be empty or white space only.

    Raises:
        TypeError: A row is no text.
        ValueError: A row is missing, blank, not UTF-8, or holds half a surrogate pair.
    """
    array = one_a_row(name, values)
    listed = array.tolist()
    out = np.empty(len(array), dtype=object)
    plain = set(map(type, listed)) == {str} and (blank or all(map(str.strip, listed)))
    if plain and not any(
        map(has_half_a_pair, listed)
    ):  # nothing else to look at: millions of texts are quick
        out[:] = listed
        return out
    for row, value in enumerate(listed):
        value = decoded(name, row, value)
        if not isinstance(value, str):
            if is_missing(value):
                then = ", or write '' where a text is empty" if blank else " or fill it"
                raise ValueError(f"`{name}` has no text in row {row} ({value!r}); drop the row{then}.")
            raise TypeError(
                f"`{name}` must hold texts; row {row} is {_shown(value)} ({type(value).__name__})."
            )
        if not blank and not value.strip():
            raise ValueError(
                f"`{name}` must hold a text in every row; row {row} is empty. Drop the row or fill it."
            )
        if has_half_a_pair(value):
            raise ValueError(
                f"`{name}` must hold valid Unicode; row {row} is {value[:40]!r}, with half a surrogate pair. "
                "Write it as `text.encode('utf-8', 'replace').decode()`."
            )
        out[row] = value
    return out


def decoded(name: str, row: int, value: Any) -> Any:
    """Return the text that bytes are in UTF-8; any other value as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ValueError(f"`{name}` has bytes in row {row} that are not UTF-8; decode them first.") from None


def has_half_a_pair(text: str) -> bool:
    """Return whether a text holds half a surrogate pair, which no file of UTF-8 can hold."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def are_texts(values: Any) -> bool:
    """Return whether rows are one text each, told by the first that is not missing; nothing is checked."""
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__len__"):
        return False
    if getattr(values, "ndim", 1) == 2 and np.shape(values)[1] == 1:
        values = values.iloc[:, 0] if hasattr(values, "iloc") else np.asarray(values)[:, 0]
    if getattr(values, "ndim", 1) != 1:
        return False
    kind = getattr(getattr(values, "dtype", None), "kind", "O")
    if kind not in "OUST":
        return False
    listed = np.asarray(values, dtype=object)
    if listed.ndim == 0:  # it has a length, but no rows
        return False
    first = next((value for value in listed if not is_missing(value)), None)
    return isinstance(first, (str, bytes))


def numbers(name: str, values: Any) -> NDArray[Any]:
    """Return rows of finite real numbers, (n, ...), in the dtype that they come in.

    Raises:
        TypeError: They are texts, dates, complex numbers or objects.
        ValueError: A number is missing or infinite; the sentence names the row.
    """
    array = column(name, values)
    odd: Any = array.reshape(-1)
    if array.dtype.kind == "O":  # lists with None, nullable columns
        odd = [value for value in odd if not is_missing(value) and not is_real(value)]
        if not odd:
            flat = [np.nan if is_missing(value) else value for value in array.reshape(-1)]
            array = np.array(flat, dtype=np.float64).reshape(array.shape)
    if array.dtype.kind not in "biuf" and str(array.dtype) != "bfloat16":
        what = f"got {_shown(odd[0])}" if len(odd) else "got none"
        raise TypeError(f"`{name}` must hold real numbers; {what} (dtype {array.dtype}).")
    if array.dtype.kind != "b" and array.dtype.kind not in "iu":
        finite = np.isfinite(array)
        if not finite.all():
            at = np.argwhere(~finite)[0]
            where = f"row {at[0]}" + "".join(f", column {place}" for place in at[1:])
            what = "NaN" if np.isnan(array[tuple(at)]) else "infinity"
            raise ValueError(f"`{name}` has {what} in {where}; drop the row or fill it.")
    return array


def float32(name: str, values: Any) -> NDArray[np.float32]:
    """Return rows of finite numbers as float32, or raise where one is too large for it."""
    array = numbers(name, values)
    with np.errstate(over="ignore"):
        out: NDArray[np.float32] = array.astype(np.float32)
    if not np.isfinite(out).all():
        at = tuple(np.argwhere(~np.isfinite(out))[0])
        raise ValueError(
            f"`{name}` must hold numbers that float32 can hold; row {at[0]} has {array[at].item()!r}."
        )
    return out


def weights(name: str, values: Any, rows: int, *, zeros: bool = False) -> NDArray[np.float64]:
    """Return (rows,) weights of rows: finite, not negative and, unless `zeros`, not all 0."""
    array = one_a_row(name, values, rows)
    absent = np.flatnonzero(missing(array))
    if absent.size:
        raise ValueError(f"`{name}` has no weight in row {absent[0]}; give every row one.")
    if array.dtype.kind == "O" and not all(is_real(value) for value in array.tolist()):
        wrong = next(value for value in array.tolist() if not is_real(value))
        raise TypeError(f"`{name}` must hold numbers; got {_shown(wrong)} ({type(wrong).__name__}).")
    if array.dtype.kind not in "Obiuf":
        raise TypeError(f"`{name}` must hold numbers; got dtype {array.dtype}.")
    out = array.astype(np.float64)
    bad = np.flatnonzero(~(np.isfinite(out) & (out >= 0)))
    if bad.size:
        raise ValueError(f"`{name}` must be finite and not negative; row {bad[0]} is {out[bad[0]].item()!r}.")
    with np.errstate(over="ignore"):
        total = out.sum()
    if total == 0 and zeros:
        return out
    if total == 0:
        raise ValueError(f"`{name}` is 0 in every row; at least one row must count.")
    if not np.isfinite(total) or total < np.finfo(np.float64).tiny:
        raise ValueError(
            f"`{name}` adds up to more or less than a float can hold ({total!r}); divide all weights by "
            "their maximum."
        )
    return out


def groups(name: str, values: Any, rows: int) -> NDArray[np.int64]:
    """Return (rows,) numbers of groups: equal values, equal number, in the order of the sorted values."""
    array = one_a_row(name, values, rows)
    listed = array.tolist()
    empty = missing(array) | np.fromiter((isinstance(v, str) and not v.strip() for v in listed), bool, rows)
    if empty.any():
        raise ValueError(f"`{name}` has no group in row {int(empty.argmax())}; give every row one.")
    for row, value in enumerate(listed):
        if isinstance(value, (list, dict, set, np.ndarray)):
            raise TypeError(
                f"`{name}` must hold a text or a number in every row; row {row} is {_shown(value)}."
            )
    try:
        distinct: list[Any] = sorted(set(listed))
    except TypeError:  # numbers beside texts: any fixed order will do
        distinct = sorted(set(listed), key=lambda value: (type(value).__name__, str(value)))
    number = {value: code for code, value in enumerate(distinct)}
    return np.fromiter((number[value] for value in listed), np.int64, rows)


def same_order(**named: Any) -> None:
    """Raise ValueError where two pandas objects name their rows differently.

    Rows are paired by their order. A Series or DataFrame whose index says otherwise (the same names in
    another order, or some of them) would be paired wrongly in silence. An index that just counts from 0 names
    nothing, unless another one holds the same numbers in another order.
    """
    indexes = {name: value.index for name, value in named.items() if hasattr(value, "iloc")}
    for (first, index), (second, other) in itertools.combinations(indexes.items(), 2):
        if len(index) != len(other) or index.equals(other):
            continue
        counting = [_counts_from_zero(part) for part in (index, other)]
        if any(counting) and not _counts_from_zero((other if counting[0] else index).sort_values()):
            continue
        if not index.isin(other).any():  # names of different kinds
            continue
        row = next(i for i, (a, b) in enumerate(zip(index, other, strict=True)) if a != b)
        named_so, otherwise = index.tolist()[row], other.tolist()[row]
        raise ValueError(
            f"`{first}` and `{second}` name their rows differently: row {row} is {named_so!r} in one index "
            "and "
            f"{otherwise!r} in the other. Bring one into the order of the other "
            f"(`{second} = {second}.loc[{first}.index]`), or, where their rows are in the same order "
            "already, "
            "call `.reset_index(drop=True)` on both."
        )


def same_columns(**named: Any) -> None:
    """Raise ValueError where DataFrames that are read by place have the same columns in another order."""
    frames = {
        name: value.columns
        for name, value in named.items()
        if getattr(value, "ndim", 1) == 2 and hasattr(value, "columns")
    }
    for (first, columns), (second, other) in itertools.combinations(frames.items(), 2):
        if columns.equals(other) or len(columns) != len(other) or set(columns) != set(other):
            continue
        place = next(i for i, (a, b) in enumerate(zip(columns, other, strict=True)) if a != b)
        raise ValueError(
            f"`{first}` and `{second}` have their columns in another order: column {place} is "
            f"{columns[place]!r} in one and {other[place]!r} in the other. Bring one into the order of the "
            f"other (`{second} = {second}[{first}.columns]`)."
        )


def _counts_from_zero(index: Any) -> bool:
    try:
        return bool((np.asarray(index) == np.arange(len(index))).all())
    except TypeError:
        return False


def is_real(value: Any) -> bool:
    """Return whether a single value is a real number, which a truth value is too, and a duration is not."""
    number = isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating))
    return number and not isinstance(value, np.timedelta64)  # which NumPy takes for an integer


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
