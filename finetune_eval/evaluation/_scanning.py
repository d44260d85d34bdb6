"""Files of predictions, read a part at a time: where the parts are, and the processes that count them."""

from __future__ import annotations

import glob
import os
import pickle
import signal
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from finetune_eval import _checks
from finetune_eval._text import counted, listed, shorten, visible
from finetune_eval.evaluation._reading import columns_of
from finetune_eval.evaluation.large import Statistics

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET, CSV = (".parquet",), (".csv", ".tsv")
# Of files in a folder: they may hold rows, and are not read.
_UNREAD = (*(".gz", ".bz2", ".xz", ".zst", ".zip"), *(".json", ".jsonl", ".ndjson", ".arrow", ".feather"))
_PART = 4_000_000  # rows of a part of a Parquet file, unless a row group has more
_BATCH = 65_536  # rows read at once
_BUFFER = 1 << 20  # bytes of a column that are read at once: a row group may be larger than memory
_BLOCK = 1 << 24  # bytes of a CSV file that are parsed at once; a row must fit


@dataclass(frozen=True)
class Part:
    """Rows of one file, or fragment of a dataset, that are counted at once.

    Attributes:
        name: What the rows are of, for errors and in the list of the worst rows.
        identity: What tells that the rows have changed: path, bytes, time of change, and which row groups.
        columns: The columns that are read.
        start: The row of the file that the first of these is.
        rows: How many rows there are; None where only reading tells.
        groups: The row groups of a Parquet file: the first, and the one after the last.
        fragment: A fragment of a dataset, in the place of a path.
        schema: The schema of that dataset.
        delimiter: Of a CSV file.
        encoding: Of a CSV file.
    """

    name: str
    identity: tuple[Any, ...]
    columns: tuple[str, ...]
    start: int = 0
    rows: int | None = None
    groups: tuple[int, int] | None = None
    fragment: Any = None
    schema: Any = None
    delimiter: str = ","
    encoding: str = "utf-8"

    def tables(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, a batch at a time."""
        try:
            if self.fragment is not None:
                yield from self.fragment.to_batches(
                    schema=self.schema, columns=list(self.columns), batch_size=_BATCH
                )
            elif self.groups is not None:
                import pyarrow.parquet as pq

                with pq.ParquetFile(
                    self.name, page_checksum_verification=True, pre_buffer=False, buffer_size=_BUFFER
                ) as file:
                    yield from file.iter_batches(
                        _BATCH, range(*self.groups), columns=list(self.columns), use_threads=False
                    )
            else:
                yield from _csv(self.name, self.columns, self.delimiter, self.encoding)
        except (OSError, UnicodeError) as error:
            raise ValueError(_unreadable(self.name, error)) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] != "pyarrow":
                raise
            raise ValueError(_unreadable(self.name, error)) from None

    def count(self, empty: Statistics) -> Statistics:
        """Return the statistics of the rows.

        Raises:
            ValueError: A row is wrong, or the file cannot be read or was changed meanwhile.
        """
        made, start = empty.empty(), self.start
        for batch in self.tables():
            made.count(batch, source=self.name, start=start)
            start += batch.num_rows
        if self.fragment is None and _identity(Path(self.name)) != self.identity[:3]:
            raise ValueError(f"{self.name!r} was changed while it was read; evaluate again.")
        if self.fragment is None and self.groups is None:
            _no_line_breaks_in_cells(self.name, made.n, self.encoding)
        return made


def _unreadable(name: str, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{name!r} is not written in {error.encoding!r} ({error.reason}); pass the right `encoding`."
    reason = shorten(visible(str(error).partition("\n")[0]), 300)
    return f"{name!r} cannot be read: {reason}{'' if reason.endswith('.') else '.'}"


def _no_line_breaks_in_cells(path: str, rows: int, encoding: str) -> None:
    """Raise where a CSV file has other than one line a row: a quote that does not close swallows rows."""
    with open(path, encoding=encoding, errors="replace") as file:
        lines = sum(1 for line in file if line.strip())
    if lines != rows + 1:
        raise ValueError(
            f"{path!r} has {counted(lines, 'line')}, blank ones not counted, and "
            f"{counted(rows, 'row')}: a quote does not close, or cells hold line breaks. Write it as "
            "Parquet, or take the line breaks out."
        )


def _csv(path: str, columns: Sequence[str], delimiter: str, encoding: str) -> Iterator[pa.RecordBatch]:
    """Yield the named columns of a CSV file as they are written, with nulls for empty cells."""
    import pyarrow as pa
    import pyarrow.csv

    types = dict.fromkeys(columns, pa.string())
    with pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK, encoding=encoding, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types=types, include_columns=list(columns), strings_can_be_null=True, null_values=[""]
        ),
    ) as reader:
        yield from reader


# ------------------------------------------------------------------------------------------
# Which files, and their parts
# ------------------------------------------------------------------------------------------


def paths_of(files: Any) -> list[Path]:
    """Return the files that an argument means, in order: of paths, patterns and folders.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is of another kind, or there twice.
    """
    given = [files] if isinstance(files, (str, Path)) else files
    if not isinstance(given, (list, tuple)) or not given:
        raise TypeError(
            "`files` must be a file, a folder, a pattern such as 'predictions/*.parquet', a list of these or "
            f"a pyarrow Dataset; got {files!r}."
        )
    found: list[Path] = []
    for one in given:
        path = _checks.path("files", one)
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if _is_data(file, path)]
            if not inside:
                raise FileNotFoundError(f"`files` {str(path)!r} has no .parquet, .csv or .tsv file.")
            found += inside
        elif path.exists():
            found.append(path)
        elif inside := sorted(map(Path, glob.glob(str(path), recursive=True))):
            found += [file for file in inside if file.is_file()]
        else:
            raise FileNotFoundError(
                f"`files` {str(path)!r} does not exist, and no file fits it as a pattern."
            )
    real: dict[Path, Path] = {}
    for path in found:
        if path.suffix.lower() not in PARQUET + CSV:
            raise ValueError(f"{str(path)!r} must end in .parquet, .csv or .tsv.")
        if (same := real.setdefault(path.resolve(), path)) is not path:
            twice = "" if same == path else f", as {str(same)!r}, too"
            raise ValueError(f"`files` has {str(path)!r} twice{twice}; its rows would count twice.")
    return found


def _passed_over(files: Any) -> list[str]:
    """Return the names of files in folders that may hold rows, but are of a kind that is not read."""
    given = [files] if isinstance(files, (str, Path)) else files
    folders = [Path(each) for each in given if Path(each).is_dir()]
    return [
        file.name
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if _is_data(file, folder, _UNREAD)
    ]


def _is_data(file: Path, folder: Path, kinds: tuple[str, ...] = PARQUET + CSV) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in kinds and file.is_file()


def _identity(path: Path) -> tuple[Any, ...]:
    status = path.stat()
    return (str(path.resolve()), status.st_size, status.st_mtime_ns)


def labels_of(columns: Sequence[str], name: str) -> tuple[str, ...]:
    """Return the classes that a file's columns `p_<class>` name, where `labels` were not given."""
    found = tuple(column.removeprefix("p_") for column in columns if column.startswith("p_"))
    if len(found) < 2:
        raise ValueError(
            f"`labels` is needed: {name!r} has no columns p_<class> that tell the classes; its columns are "
            f"{listed(columns)}."
        )
    return found


def _classes(columns: Sequence[str]) -> set[str]:
    return {column for column in columns if column.startswith("p_")}


def is_dataset(files: Any) -> bool:
    """Return whether an argument is a pyarrow Dataset; pyarrow is not loaded to find out."""
    dataset = sys.modules.get("pyarrow.dataset")
    return dataset is not None and isinstance(files, dataset.Dataset)


def parts_of(
    files: Any,
    labels: tuple[str, ...] | None,
    metadata: Sequence[str],
    *,
    delimiter: str | None,
    encoding: str,
) -> tuple[list[Part], tuple[str, ...], list[str]]:
    """Return the parts of the files, the class names, and what to warn of; every file's columns are checked.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file cannot be read, or lacks a column.
    """
    if is_dataset(files):
        names = files.schema.names
        labels = labels or labels_of(names, "the dataset")
        return _of_dataset(files, _needed(names, labels, metadata, "")), labels, []
    parts: list[Part] = []
    notes: list[str] = []
    empty: list[str] = []
    first: Path | None = None  # the file whose columns tell the classes
    for path in paths_of(files):
        parquet = path.suffix.lower() in PARQUET
        comma = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
        names, groups = _footer(path) if parquet else (_header(path, comma, encoding), [])
        given = labels is not None
        labels = labels or labels_of(names, str(path))
        if not given:
            first = path
        elif first is not None and _classes(names) != _classes([f"p_{label}" for label in labels]):
            raise ValueError(
                f"{str(path)!r} has other columns p_<class> than {str(first)!r}: {listed(names)}. Pass "
                "`labels` to say which classes there are."
            )
        columns = _needed(names, labels, metadata, str(path))
        if parquet:
            parts += _of_parquet(path, columns, groups)
            if not sum(groups):
                empty.append(str(path))
        else:
            parts.append(Part(str(path), _identity(path), columns, delimiter=comma, encoding=encoding))
            if not _ends_with_a_line(path):
                notes.append(
                    f"{path.name} does not end with a line break; if it was cut off, its last row is wrong."
                )
    if passed := _passed_over(files):
        were = "was" if len(passed) == 1 else "were"
        notes.append(
            f"{counted(len(passed), 'file')} in the folders {were} not read, being no .parquet, .csv or "
            f".tsv: {listed(passed, 4)}."
        )
    if empty:
        verb = "has" if len(empty) == 1 else "have"
        notes.append(f"{counted(len(empty), 'file')} {verb} no rows: {listed(empty, 4)}.")
    assert labels is not None
    return parts, labels, notes


def _needed(
    names: Sequence[str], labels: tuple[str, ...], metadata: Sequence[str], name: str
) -> tuple[str, ...]:
    truth, probabilities = columns_of(names, labels, metadata, name)
    wanted = (truth, *probabilities, *(("id",) if "id" in names else ()), *metadata)
    return tuple(dict.fromkeys(wanted))


def _footer(path: Path) -> tuple[list[str], list[int]]:
    """Return the columns of a Parquet file and the rows of its row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            data = file.metadata
            return file.schema_arrow.names, [data.row_group(i).num_rows for i in range(data.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise ValueError(_unreadable(str(path), error)) from None


def _header(path: Path, delimiter: str, encoding: str) -> list[str]:
    """Return the columns of a CSV file."""
    import pyarrow as pa
    import pyarrow.csv

    if not path.stat().st_size:
        raise ValueError(f"{str(path)!r} is empty; a header line and at least one row are needed.")
    try:
        with pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK, encoding=encoding, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        ) as reader:
            names = list(reader.schema.names)
    except (OSError, LookupError, UnicodeError, pa.ArrowException) as error:
        raise ValueError(_unreadable(str(path), error)) from None
    if len(names) == 1 and (other := next((c for c in ";\t,|" if c in names[0]), None)):
        raise ValueError(
            f"{str(path)!r} has one column, {names[0][:60]!r}, when split at {delimiter!r}; if its delimiter "
            f"is {other!r}, pass delimiter={other!r}."
        )
    return names


def _ends_with_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-min(4, path.stat().st_size), os.SEEK_END)
        return file.read().rstrip(b"\0")[-1:] in b'\n\r"'  # of UTF-16 and UTF-32 too


def _of_parquet(path: Path, columns: tuple[str, ...], groups: list[int]) -> Iterator[Part]:
    """Yield parts of a few million rows each."""
    identity, first, start, rows = _identity(path), 0, 0, 0
    for group, size in enumerate(groups):
        rows += size
        if rows >= _PART or (group == len(groups) - 1 and rows):
            inside = (first, group + 1)
            yield Part(str(path), (*identity, *inside), columns, start, rows, inside)
            first, start, rows = group + 1, start + rows, 0


def _of_dataset(dataset: Any, columns: tuple[str, ...]) -> list[Part]:
    parts = []
    for number, fragment in enumerate(dataset.get_fragments()):
        path = getattr(fragment, "path", None)
        identity: tuple[Any, ...] = ()
        if path is not None:
            info = fragment.filesystem.get_file_info(path)
            identity = (path, info.size, info.mtime_ns, str(fragment.partition_expression))
        name = f"fragment {number}" if path is None else path
        parts.append(Part(name, identity, columns, fragment=fragment, schema=dataset.schema))
    return parts


# ------------------------------------------------------------------------------------------
# The process that counts
# ------------------------------------------------------------------------------------------


def send(pipe: IO[bytes], data: bytes) -> None:
    """Write a message with its length."""
    pipe.write(struct.pack("<Q", len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes | None:
    """Read a message that `send` wrote; None where the other side has ended."""
    head = pipe.read(8)
    if len(head) < 8:
        return None
    (size,) = struct.unpack("<Q", head)
    data = pipe.read(size)
    return data if len(data) == size else None


def main() -> None:
    """Count the parts that the parent process sends, and send back what they add up to."""
    import pyarrow as pa

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    pa.set_memory_pool(pa.system_memory_pool())  # which gives memory back, where pyarrow's own keeps it
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no message
    while (message := receive(sys.stdin.buffer)) is not None:
        empty, part = pickle.loads(message)  # written by the parent, for this process alone
        try:
            answer = b"S" + part.count(empty).to_bytes()
        except (TypeError, ValueError, OSError) as error:
            answer = b"E" + pickle.dumps((type(error), str(error)))
        send(pipe, answer)


if __name__ == "__main__":
    main()
