"""The parts of the rows that are looked at: lengths of texts, words, values of columns."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval.data.words import unspaced, words

if TYPE_CHECKING:
    import pandas as pd

_LENGTHS = 5
_QUANTILES = 4
_MANY_VALUES = 50  # of one column; beyond it rare values are pooled
_FEWEST = 20  # rows a word, or a value among many, must be in to be looked at
_MOST_WORDS = 2000  # the commonest
_MOST_TEXTS = 50_000  # texts whose words are looked at: a random sample of more
_MISSING, _OTHERS = "(missing)", "(other values)"
_NAMES_A_ROW = re.compile(r"(^|[\W_])(id|uuid|guid|index)$|Id$|ID$")


@dataclass(frozen=True)
class Part:
    """Rows that have something in common: what was looked at, its value, and which rows."""

    column: str
    value: str
    rows: NDArray[np.int64]


def _with_code(column: str, codes: NDArray[Any], names: Sequence[str]) -> Iterator[Part]:
    """Yield the rows of each code that has some and not all of them."""
    order = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[order], np.arange(len(names) + 1))
    for code, name in enumerate(names):
        rows = order[edges[code] : edges[code + 1]]
        if 0 < len(rows) < len(codes):
            yield Part(column, name, rows)


def _quantiles(values: NDArray[Any], parts: int, shown: Callable[[Any], str]) -> tuple[Any, list[str]]:
    """Return the number of each value's quantile, and what the quantiles are called."""
    edges = np.unique(np.quantile(values, np.arange(1, parts) / parts, method="inverted_cdf"))
    codes = np.searchsorted(edges, values, side="left")
    names = []
    for code in range(len(edges) + 1):
        inside = values[codes == code]
        low, high = (shown(inside.min()), shown(inside.max())) if len(inside) else ("", "")
        names.append(low if low == high else f"{low} to {high}")
    return codes, names


def of_lengths(texts: Sequence[str], n: int) -> Iterator[Part]:
    """Yield the texts by their length, in fifths: in words, or in characters where scripts have no spaces."""
    if len(texts) != n:
        raise ValueError(f"`texts` must have one text for each of the {n} rows; got {len(texts)}.")
    by_characters = unspaced(texts)
    pieces = [text.split() for text in texts]
    lengths = np.array([len("".join(words)) if by_characters else len(words) for words in pieces])
    codes, names = _quantiles(lengths, _LENGTHS, str)
    unit = "characters" if by_characters else "words"
    yield from _with_code("length", codes, [f"{name} {unit}" for name in names])


def of_columns(metadata: Any, n: int) -> tuple[list[Part], list[tuple[str, str]]]:
    """Return the values of each column, and the columns that are left out, each with the reason."""
    import pandas as pd

    if isinstance(metadata, pd.DataFrame):
        columns = [(str(name), metadata.iloc[:, i]) for i, name in enumerate(metadata.columns)]
    else:
        columns = [(str(name), pd.Series(values)) for name, values in metadata.items()]
    parts: list[Part] = []
    left_out: list[tuple[str, str]] = []
    for column, values in columns:
        if len(values) != n:
            raise ValueError(f"`metadata` must have one row for each of the {n} rows; got {len(values)}.")
        found = _values(column, values)
        if isinstance(found, str):
            left_out.append((column, found))
        else:
            codes, names = found
            parts += _with_code(column, codes, names)
    return parts, left_out


def _values(column: str, values: pd.Series[Any]) -> tuple[NDArray[np.int64], list[str]] | str:
    """Return the number of each row's value and the values, or why the column says nothing."""
    missing = _missing(values)
    known = np.flatnonzero(~missing)
    found = _known_values(column, values.iloc[known])
    if isinstance(found, str):
        return found
    inside, names = found
    codes = np.full(len(values), len(names), dtype=np.int64)
    codes[known] = inside
    return codes, [*names, _MISSING]


def _missing(values: pd.Series[Any]) -> NDArray[np.bool_]:
    """Mark None, NaN, NaT, pandas.NA, what a mask hides, and texts of nothing but white space."""
    import pandas as pd

    missing = values.isna().to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return np.asarray(missing)
    empty = [isinstance(value, str) and not value.strip() for value in values.tolist()]
    return np.asarray(missing | np.array(empty))


def _known_values(column: str, values: pd.Series[Any]) -> tuple[Any, list[str]] | str:
    import pandas as pd

    n = len(values)
    if pd.api.types.is_datetime64_any_dtype(values) and values.nunique() > 2 * _QUANTILES:
        days = bool((values == values.dt.normalize()).all())
        numbers = values.dt.tz_localize(None).to_numpy().astype("datetime64[s]").astype(np.int64)
        return _quantiles(numbers, _QUANTILES, lambda second: _moment(second, days))
    if _is_number(values):
        numbers = values.to_numpy(dtype=np.float64)
        distinct = np.unique(numbers)
        if _names_rows(column, numbers, distinct):
            return "another number in every row"
        if len(distinct) > 2 * _QUANTILES:
            return _quantiles(numbers, _QUANTILES, lambda number: f"{number:g}")
    codes, uniques = pd.factorize(values.astype("str"))
    names = [str(name) for name in uniques]
    if 2 * len(names) > n and len(names) > 2 * _QUANTILES:
        return f"{len(names):,} values in {n:,} rows"
    if len(names) <= _MANY_VALUES:
        return codes, names
    kept = _commonest(np.bincount(codes))
    if not len(kept):
        return f"{len(names):,} values, none in {_FEWEST} rows or more"
    rank = np.full(len(names), len(kept))
    rank[kept] = np.arange(len(kept))
    return rank[codes], [*(names[code] for code in kept), _OTHERS]


def _commonest(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of the values that are looked at one by one, of a column with many."""
    kept = np.argsort(-counts, kind="stable")[:_MANY_VALUES]
    return np.asarray(kept[counts[kept] >= _FEWEST])


def pooled(values: dict[str, tuple[int, int]], n: int) -> dict[str, tuple[int, int]] | str:
    """Pool the rare values of a column, or return why the column says nothing, as `of_columns` does.

    Args:
        values: Value to rows that have it, and right rows.
        n: How many rows there are.
    """
    names = sorted(values, key=lambda value: (-values[value][0], value))
    if 2 * len(names) > n and len(names) > 2 * _QUANTILES:
        return f"{len(names):,} values in {n:,} rows"
    if len(names) <= _MANY_VALUES:
        return {name: values[name] for name in names}
    kept = _commonest(np.array([values[name][0] for name in names]))
    if not len(kept):
        return f"{len(names):,} values, none in {_FEWEST} rows or more"
    out = {names[place]: values[names[place]] for place in kept.tolist()}
    others = [values[name] for name in names if name not in out]
    out[_OTHERS] = (sum(rows for rows, _ in others), sum(right for _, right in others))
    return out


def _is_number(values: pd.Series[Any]) -> bool:
    import pandas as pd

    types = pd.api.types
    return bool(
        types.is_numeric_dtype(values)
        and not types.is_bool_dtype(values)
        and not types.is_complex_dtype(values)
    )


def _names_rows(column: str, numbers: NDArray[np.float64], distinct: NDArray[np.float64]) -> bool:
    """Return whether whole numbers do nothing but tell rows apart: a running number, or an id by its name."""
    if len(distinct) <= 2 * _QUANTILES or 10 * len(distinct) < 9 * len(numbers):
        return False
    if not (np.isfinite(distinct).all() and (distinct == np.floor(distinct)).all()):
        return False
    return bool(distinct[-1] - distinct[0] < 2 * len(numbers)) or _NAMES_A_ROW.search(column) is not None


def _moment(second: int, days: bool) -> str:
    moment = str(np.datetime64(int(second), "s"))
    return moment.partition("T")[0] if days else moment.replace("T", " ")


def of_words(
    texts: Sequence[str], sums_of: NDArray[np.float64], seed: int
) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return the common words, the sums of `sums_of` over the rows of each, and over all rows looked at."""
    rows = np.arange(len(texts))
    if len(texts) > _MOST_TEXTS:
        rows = np.sort(np.random.default_rng(seed).choice(len(texts), _MOST_TEXTS, replace=False))
    number: dict[str, int] = {}
    found, sizes = array("q"), []
    for row in rows.tolist():
        # A single letter says nothing; a single symbol may.
        here = {word for word in words(texts[row]) if len(word) > 1 or not word.isalnum()}
        found.extend([number.setdefault(word, len(number)) for word in here])
        sizes.append(len(here))
    place, of_row = np.array(found, dtype=np.int64), sums_of[np.repeat(rows, sizes)]
    sums = np.zeros((len(number), sums_of.shape[1]))
    for i, column in enumerate(of_row.T):
        sums[:, i] = np.bincount(place, column, len(number))
    seen: NDArray[np.float64] = sums_of[rows].sum(axis=0)
    common = [word for word, i in number.items() if _FEWEST <= sums[i, 0] and sums[i, 0] < seen[0]]
    common = sorted(common, key=lambda word: (-sums[number[word], 0], word))[:_MOST_WORDS]
    return common, sums[[number[word] for word in common]].reshape(-1, sums_of.shape[1]), seen
