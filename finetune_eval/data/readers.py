"""Files of rows become frames, or one sentence says what is wrong with the file.

A CSV file holds words. The columns that the caller names stay words, and so does `id`. Any other column
becomes numbers where nothing is lost by that: where writing the numbers down again gives the same words.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from collections.abc import Collection, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_eval import _files, _text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
# Words that programs write for a missing value, in lower case. In a column of numbers they are missing
# values. In a column of words they may be words ("none", or "NA" for North America) and are kept.
NOTHING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "null", "none"})
_ID = "id"  # this column holds names of rows, whatever they look like

# Programs write the numbers of a column in one of three ways: as short as possible (0.5, 12, as spreadsheets
# do), as Python does (0.5, 12.0), or with as many decimals in every cell (0.50, 12.00). A column that mixes
# them may hold two words for one number (1.1 and 1.10 are two versions of a program): its cells stay words.
_POWER = r"[1-9](?:\.\d*[1-9])?e[-+]\d+"
_SHORTEST = rf"^-?(?:(?:0|[1-9]\d{{0,17}})(?:\.\d*[1-9])?|{_POWER})$"
_PYTHON = rf"^-?(?:(?:0|[1-9]\d*)\.(?:\d*[1-9]|0)|{_POWER})$"
_FIXED = r"^-?(?:0|[1-9]\d*)\.\d+$"
_WHOLE = r"^(?:0|-?[1-9]\d{0,17})$"  # 18 digits always fit into 64 bits
_NUMBER = re.compile(rf"-?(?:0|[1-9]\d*)(?:\.\d+)?|-?{_POWER}")  # a word of any of them
_EXACT_LENGTH = 15  # floats tell all decimal numbers of 15 digits apart
_LARGEST_BLOCK = 2**31 - 1  # bytes; pyarrow parses no more at once
_LOOKED_AT_FIRST = 5  # cells; they tell most columns of words
_CELLS_AT_ONCE = 500_000  # one call looks at many short columns: a table may have a hundred thousand


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """What a source gave: a frame, and what the source itself knows about it."""

    frame: pd.DataFrame
    name: str
    rows_in: int  # in the source, before a subset was taken
    columns_in: int
    text: str = "text"
    label: str = "label"
    labels: tuple[str, ...] | None = None
    parts: np.ndarray | None = None  # (n,) "train", "validation" or "test", where the source is already split
    warnings: tuple[str, ...] = ()


def read_table(
    path: Path,
    strings: Collection[str],
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoted: bool = True,
) -> pd.DataFrame:
    """Read a file of rows, or raise one sentence that says what is wrong with it.

    Args:
        path: A .csv, .tsv, .jsonl, .ndjson, .json or .parquet file.
        strings: Columns of a CSV file that are text whatever they hold: "NA", "007" and "" stay as they are.
            The column `id` is always one.
        encoding: Of a text file.
        delimiter: Of a CSV file; None is a tab for .tsv and a comma otherwise.
        quoted: Whether quotes in a CSV file enclose fields.

    Returns:
        The rows, numbered from 0.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The ending is unknown, or the file cannot be read as what it says it is.
    """
    return read(path, strings, encoding=encoding, delimiter=delimiter, quoted=quoted).frame


def read(
    path: Path,
    strings: Collection[str],
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    quoted: bool = True,
) -> Table:
    """Read a file of rows as `read_table` does, and say what a person should know about the file."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} does not exist; pass a file that does.")
    if suffix not in ENDINGS:
        raise ValueError(f"{str(path)!r} must end in {', '.join(ENDINGS)}.")
    name = _text.visible(path.name).replace("\n", r"\n")
    data = _files.read(path)
    warnings: tuple[str, ...] = ()
    if suffix == ".parquet":
        frame = _read_parquet(name, data)
    elif suffix in (".csv", ".tsv"):
        data = _as_utf8(name, data, encoding)
        usual = "," if suffix == ".csv" else "\t"
        frame = _read_csv(name, data, strings, usual if delimiter is None else delimiter, quoted)
        if not data.endswith((b"\n", b"\r", b'"' if quoted else b"\n")):
            warnings = (f"{name} does not end with a line break; if it was cut off, its last row is wrong.",)
    else:
        frame = _read_json(name, _as_utf8(name, data, encoding))
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{name} has two columns named {twice[0]!r}; rename one.")
    return Table(frame, name, len(frame), frame.shape[1], warnings=warnings)


def as_numbers(frame: pd.DataFrame, columns: Sequence[Any]) -> pd.DataFrame:
    """Return a frame in which the cells of the named columns are numbers, however they are written.

    It is for columns that must be numbers (features, probabilities): there 007, 1e5 and 0.10 can only mean 7,
    100000 and 0.1. A cell that spells no number stays the word that it is.
    """
    import pandas as pd

    numbers = {}
    for column in columns:
        if column in frame.columns and not pd.api.types.is_numeric_dtype(frame[column].dtype):
            cells = [_number(cell) for cell in frame[column].to_numpy(dtype=object).tolist()]
            numbers[column] = pd.Series(cells, dtype=object).infer_objects()
    return frame.assign(**numbers) if numbers else frame


def _number(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    if not cell.strip() or cell.strip().lower() in NOTHING:
        return math.nan
    return float(cell) if spells_number(cell) else cell


def spells_number(word: str) -> bool:
    """Return whether a word is a finite number, in any spelling that files have.

    Example:
        >>> [spells_number(word) for word in ("007", "1e5", " .5", "1_0", "nan", "1,5")]
        [True, True, True, False, False, False]
    """
    try:
        return word.isascii() and "_" not in word and math.isfinite(float(word))
    except ValueError:
        return False


def _as_utf8(name: str, data: bytes, encoding: str) -> bytes:
    """Return the file's text in UTF-8 without a byte-order mark; UTF-16 is known by its mark."""
    if encoding == "utf-8" and data.isascii():
        return data
    if encoding == "utf-8" and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    try:
        decoded = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{name} is not {encoding}: byte 0x{data[error.start]:02x} in line {line} does not fit. "
            "Save the file as UTF-8, or pass its encoding, for example encoding='cp1252'."
        ) from None
    except (LookupError, TypeError):
        raise ValueError(
            f"`encoding` must be one that Python knows, such as 'utf-8' or 'cp1252'; got {encoding!r}."
        ) from None
    return (
        data.removeprefix(b"\xef\xbb\xbf") if encoding == "utf-8" else decoded.removeprefix("\ufeff").encode()
    )


# ------------------------------------------------------------------------------------------
# CSV
# ------------------------------------------------------------------------------------------


def _read_csv(name: str, data: bytes, strings: Collection[str], delimiter: str, quoted: bool) -> pd.DataFrame:
    if not data.strip():
        raise ValueError(f"{name} is empty; a header line and at least one row are needed.")
    if delimiter not in set(map(chr, range(128))) - set('"\r\n'):
        raise ValueError(f"`delimiter` must be one ASCII character; got {delimiter!r}.")
    header = _header(data, quoted)
    if delimiter.encode() not in header:  # said first: split elsewhere, its quotes and fields only look wrong
        words = header.decode().strip()
        other = next((other for other in (";", "\t", ",", "|") if other in words), None)
        if other is not None:
            raise ValueError(
                f"{name} has one column, {words[:60]!r}, when split at {delimiter!r}; "
                f"if its delimiter is {other!r}, pass delimiter={other!r}."
            )
    if quoted:
        _check_quotes(name, data, delimiter.encode())
    columns: list[str] = []
    table = _words(name, header + b"\n", columns, delimiter, quoted)
    while columns != table.column_names:
        columns = table.column_names
        table = _words(name, data, columns, delimiter, quoted)
    texts = {*strings, _ID}
    read = [  # an empty cell is missing, but among texts it is an empty text
        words.fill_null("") if column in texts else words
        for column, words in zip(columns, table.columns, strict=True)
    ]
    likely = [
        place for place, column in enumerate(columns) if column not in texts and _may_be_numbers(read[place])
    ]
    width = max(1, _CELLS_AT_ONCE // max(1, table.num_rows))
    for start in range(0, len(likely), width):
        places = likely[start : start + width]
        for i, numbers in _numbers([read[place] for place in places]).items():
            read[places[i]] = numbers
    names = [column or f"Unnamed: {place}" for place, column in enumerate(columns)]  # as pandas calls them
    return _frame(table.from_arrays(read, names=names))


def _header(data: bytes, quoted: bool) -> bytes:
    """Return the first line that is not blank; a quoted name in it may hold line breaks."""
    start = quotes = 0
    for end in re.finditer(rb"[\r\n]|\Z", data):
        quotes += data.count(b'"', start, end.start()) if quoted else 0
        start = end.start()
        if quotes % 2 == 0 and data[:start].strip():
            return data[:start].lstrip(b"\r\n")
    return data


def _words(name: str, data: bytes, columns: Collection[str], delimiter: str, quoted: bool) -> pa.Table:
    """Return the named columns of a CSV file as they are written, with nulls for empty cells."""
    import pyarrow as pa
    import pyarrow.csv

    # pyarrow parses a megabyte at a time; in tables of many columns that would be a row or two.
    block = min(max(1 << 20, 1_000 * data.find(b"\n")), len(data) + 1, _LARGEST_BLOCK)
    while True:
        try:
            return pyarrow.csv.read_csv(
                pa.BufferReader(data),
                read_options=pyarrow.csv.ReadOptions(block_size=block),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=quoted
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(columns, pa.string()),
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            reason = str(error).partition("\n")[0]
            if "straddling" in reason and block < min(len(data), _LARGEST_BLOCK):  # a row is longer
                block = min(8 * block, _LARGEST_BLOCK)
                continue
            raise ValueError(
                f"{name} is not a table: {_text.shorten(_text.visible(reason), 200)}. Every row needs as "
                "many fields as the header; put quotes round fields that hold the delimiter or a line break."
            ) from None


def _check_quotes(name: str, data: bytes, delimiter: bytes) -> None:
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
            f"{name} has a quote that does not close properly in the row that begins in line {started} "
            f"({error}). Double the quotes inside quoted fields, or pass quoted=False if quotes are ordinary "
            "characters."
        ) from None
    finally:
        csv.field_size_limit(limit)


def _may_be_numbers(words: pa.ChunkedArray) -> bool:
    """Return whether the first cells of a column look like numbers, which most texts do not."""
    first = [word for word in words.slice(0, _LOOKED_AT_FIRST).to_pylist() if word is not None]
    return words.null_count < len(words) and all(_NUMBER.fullmatch(w) or w.lower() in NOTHING for w in first)


def _numbers(columns: list[pa.ChunkedArray]) -> dict[int, pa.Array]:
    """Return, by their places, the columns that writing down as numbers turns into the same words again."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = len(columns[0])
    words = pa.concat_arrays([chunk for column in columns for chunk in column.chunks])
    nothing = pc.is_in(pc.ascii_lower(words), value_set=pa.array(sorted(NOTHING)))
    words = pc.if_else(nothing, None, words)
    known = _by_column(words.is_valid(), rows).any(axis=1)
    found = {}
    whole = known & _written_as(_WHOLE, words, rows)
    for place in np.flatnonzero(whole).tolist():
        found[place] = words.slice(place * rows, rows).cast(pa.int64())
    rest = np.flatnonzero(known & ~whole)
    if rest.size:
        words = pa.concat_arrays([words.slice(place * rows, rows) for place in rest.tolist()])
        fits = _of_fixed_decimals(words, rows)
        for style in (_SHORTEST, _PYTHON):
            fits = fits if fits.all() else fits | _written_as(style, words, rows)
        numbers = pc.if_else(pa.array(np.repeat(fits, rows)), words, None).cast(pa.float64())
        fits[_inexact(words, numbers, rows)] = False
        with_powers = fits & _by_column(pc.match_substring(words, "e").fill_null(False), rows).any(axis=1)
        for i in np.flatnonzero(with_powers).tolist():  # 1e-05 and 0.00001 are two words for one number
            part = slice(i * rows, (i + 1) * rows)
            fits[i] = pc.count_distinct(words[part]) == pc.count_distinct(numbers[part])
        found |= {int(rest[i]): numbers.slice(i * rows, rows) for i in np.flatnonzero(fits).tolist()}
    return found


def _by_column(cells: pa.Array, rows: int) -> np.ndarray:
    return np.asarray(cells.to_numpy(zero_copy_only=False)).reshape(-1, rows)


def _written_as(style: str, words: pa.Array, rows: int) -> np.ndarray:
    """Return for each column whether all its words that are not null are written in a style."""
    import pyarrow.compute as pc

    return np.asarray(_by_column(pc.match_substring_regex(words, style).fill_null(True), rows).all(axis=1))


def _of_fixed_decimals(words: pa.Array, rows: int) -> np.ndarray:
    """Return for each column whether all its words are numbers with the same number of decimals."""
    import pyarrow.compute as pc

    after_point = pc.subtract(pc.binary_length(words), pc.find_substring(words, "."))
    decimals = _by_column(after_point.fill_null(-1), rows)
    same = ((decimals == decimals.max(axis=1, keepdims=True)) | (decimals < 0)).all(axis=1)
    return np.asarray(same & _written_as(_FIXED, words, rows)) if same.any() else same


def _inexact(words: pa.Array, numbers: pa.Array, rows: int) -> list[int]:
    """Return the places of columns in which a word has more digits than a float holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    long = pc.and_(pc.greater(pc.binary_length(words), _EXACT_LENGTH), numbers.is_valid())
    places = np.flatnonzero(long.fill_null(False).to_numpy(zero_copy_only=False))
    words, back = words.take(pa.array(places)), numbers.take(pa.array(places)).cast(pa.string())
    found: set[int] = set()
    for i in np.flatnonzero(pc.not_equal(words, back).to_numpy(zero_copy_only=False)).tolist():
        column, word = int(places[i] // rows), str(words[i])
        if column not in found and Decimal(word) != Decimal(repr(float(word))):  # 0.50 is 0.5, only longer
            found.add(column)
    return sorted(found)


# ------------------------------------------------------------------------------------------
# JSON and Parquet
# ------------------------------------------------------------------------------------------


def _read_json(name: str, data: bytes) -> pd.DataFrame:
    import pandas as pd

    content = data.decode()
    if content.lstrip().startswith("["):
        try:
            records = json.loads(content, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is not JSON: {error}.") from None
        places = [f"item {i}" for i in range(len(records))]
    else:
        lines = {
            f"line {number}": line for number, line in enumerate(content.split("\n"), start=1) if line.strip()
        }
        places, records = list(lines), [_json_line(name, *line, content) for line in lines.items()]
    for place, record in zip(places, records, strict=True):
        if not isinstance(record, dict):
            raise ValueError(f"{name}: {place} is not a JSON object but {str(record)[:60]!r}.")
    columns = dict.fromkeys(key for record in records for key in record)
    return pd.DataFrame({key: _json_column([record.get(key) for record in records]) for key in columns})


def _json_line(name: str, place: str, line: str, content: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        reason = f"{error.msg}, column {error.colno}"
        if _is_json(content):
            raise ValueError(
                f"{name} is one JSON value over several lines; a list of objects, or one object on each "
                "line, is needed."
            ) from None
    except (ValueError, RecursionError) as error:  # a name twice, thousands of digits, endless nesting
        reason = str(error)
    raise ValueError(
        f"{name} is not JSON Lines: {place} is not JSON ({reason}). Put one whole JSON object on each line."
    )


def _is_json(content: str) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, or raise where two values have one name, of which Python would keep the last."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has two values named {twice!r}")
    return record


def _json_column(values: list[Any]) -> pd.Series:
    """Return a column of a JSON file: of numbers if all its values are, else of whatever JSON holds."""
    import pandas as pd
    import pyarrow as pa

    if set(map(type, values)) - {type(None)} in ({int}, {float}, {int, float}):
        try:
            return _frame(pa.table({"": pa.array(values)}))[""]
        except (pa.ArrowInvalid, OverflowError):  # a whole number that 64 bits cannot hold
            pass
    return pd.Series(values, dtype=object)


def _read_parquet(name: str, data: bytes) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        table.validate(full=True)  # that texts are UTF-8, which is seen only where they are used
        named = [
            place
            for place, column in enumerate(table.column_names)
            if not re.fullmatch(r"__index_level_\d+__", column)  # how pandas writes an index without a name
        ]
        return _frame(table.select(named))
    except Exception as error:  # a damaged file makes the reader raise many things
        reason = _text.shorten(_text.visible(str(error).partition("\n")[0]), 200)
        raise ValueError(
            f"{name} is not a Parquet file, or it is damaged: {reason or type(error).__name__}."
        ) from None


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a frame in which whole numbers stay whole beside missing ones."""
    import pandas as pd
    import pyarrow as pa

    gaps = [
        place
        for place, values in enumerate(table.columns)
        if pa.types.is_integer(values.type) and values.null_count
    ]
    if not gaps:
        return table.to_pandas(ignore_metadata=True)
    others = np.setdiff1d(np.arange(table.num_columns), gaps).tolist()
    whole = table.select(gaps).to_pandas(
        ignore_metadata=True,
        types_mapper=lambda kind: pd.UInt64Dtype() if kind == pa.uint64() else pd.Int64Dtype(),
    )
    both = pd.concat([table.select(others).to_pandas(ignore_metadata=True), whole], axis=1)
    return both.iloc[:, np.argsort([*others, *gaps])]
