"""Files that are whole or absent, and say so when they are damaged.

A file is written under a temporary name, flushed to the disk and renamed: a reader sees the old file or the
new one. Files that belong together appear together. Records become JSON that carries a format number and a
checksum.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import itertools
import json
import math
import os
import shutil
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

_WRITING = ".writing"  # in the names of unfinished files and folders
_PENDING = ".pending"  # a folder of finished files that only wait to be moved beside it
_ONE_BY_ONE = itertools.count()
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF)  # NFS, Lustre


# ------------------------------------------------------------------------------------------
# Whole files
# ------------------------------------------------------------------------------------------


def write(path: Path, fill: Callable[[Path], Any]) -> None:
    """Let `fill` write a temporary file beside `path`, then put it in its place.

    Raises:
        OSError: The disk is full or the folder cannot be written; nothing is left behind, an older file is as
        it was.
    """
    _make(path.parent, path)
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a folder; pass the name of a file.")
    temporary = path.parent / (_temporary_name() + path.suffix)  # Keras looks at the ending
    try:
        fill(temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as Parquet, each of its pages with a checksum; for the `fill` of `write`."""
    table.to_parquet(path, index=False, write_page_checksum=True)


def write_together(folder: Path, files: Mapping[str, Callable[[Path], Any]]) -> None:
    """Write several files of a folder so that a reader sees all of the old ones or all of the new ones.

    The files are written in a folder of their own; renaming that is the moment at which they exist. A process
    that is killed afterwards leaves them there, and the next reader or writer moves them (`settle`).
    """
    _make(folder, folder)
    with locked(folder):
        settle(folder)
        new = folder / _temporary_name()
        try:
            new.mkdir()
            for name, fill in files.items():
                fill(new / name)
                _flush(new / name)
            _flush(new)
            os.rename(new, folder / _PENDING)
        except OSError as error:
            raise _named(error, folder) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        settle(folder)


def settle(folder: Path) -> None:
    """Finish what a killed `write_together` had begun to put into the folder."""
    pending = folder / _PENDING
    if pending.is_symlink() or not pending.is_dir():  # what a link points at is not ours to move
        return
    for file in sorted(pending.iterdir()):
        os.replace(file, folder / file.name)
    _flush(folder)
    pending.rmdir()


@contextlib.contextmanager
def together(folder: Path) -> Iterator[Callable[[str], Path]]:
    """Give the paths of files that `write_together` wrote, while no other process changes them.

    In a folder that this process may not write, finished files are read from where they wait.
    """
    with locked(folder, shared=True):
        pending = folder / _PENDING
        yield lambda name: pending / name if (pending / name).is_file() else folder / name


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of killed writers; only for a folder that no other process writes to."""
    for path in folder.glob(f".*{_WRITING}*"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[int]:
    """Hold the lock of a file or folder; it is free again when the process ends, however that ends.

    Some network file systems have no locks: there, as on Windows, nobody is kept out.

    Args:
        path: What to lock; it must exist. The lock is advisory: `locked` respects it, other programs do not.
        shared: Whether others may hold a shared lock at the same time.
        wait: False: raise BlockingIOError at once where another process holds it.

    Yields:
        The open file.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(ImportError):  # Windows: a rename over an open file fails, readers are safe
            import fcntl

            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            try:
                fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Hold a lock file that is made here and removed at the end.

    Raises:
        BlockingIOError: Another process holds it. One that was killed holds nothing.
        OSError: It cannot be made, or is a symbolic link.
    """
    with contextlib.ExitStack() as stack:
        while not _took(path, stack):
            pass
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _took(path: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a lock file; False if its last owner removed it meanwhile, for then it guards nothing."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666))
    with contextlib.ExitStack() as attempt, contextlib.suppress(FileNotFoundError):
        handle = attempt.enter_context(locked(path, wait=False))
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            stack.push(attempt.pop_all())
            return True
    return False


def read(path: Path) -> bytes:
    """Return what a file holds; an error of the disk names the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise _named(error, path, "read") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; an error of the disk names the file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _named(error, path, "read") from error


def _make(folder: Path, path: Path) -> None:
    """Make the folder in which `path` is to be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileExistsError(
            f"{str(path)!r} could not be written: {str(folder)!r} is no folder, but a file."
        ) from None
    except OSError as error:
        raise _named(error, path) from error


def _temporary_name() -> str:
    # Not `tempfile`: its files are readable by their owner only, and so would be the ones that they become.
    return f".{os.getpid()}-{threading.get_ident()}-{next(_ONE_BY_ONE)}{_WRITING}"


def _flush(path: Path) -> None:
    """Have the disk hold what was written, so that a power cut after the rename loses nothing."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _named(error: OSError, path: Path, what: str = "written") -> OSError:
    """Return an error that says which file could not be written, or read."""
    named = type(error)(f"{str(path)!r} could not be {what} ({error.strerror or error}).")
    named.errno = error.errno
    return named


# ------------------------------------------------------------------------------------------
# Records
# ------------------------------------------------------------------------------------------


def write_json(path: Path, data: Mapping[str, Any], *, format: int) -> None:
    """Write JSON data, indented for people, with its format number and a checksum."""
    write_text(path, json_text(data, format=format))


def json_text(data: Mapping[str, Any], *, format: int) -> str:
    """Return what `write_json` writes."""
    whole = {"format": format, **data}
    whole["checksum"] = _checksum(whole)
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, *, newest_format: int, checked_from: int = 0) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Args:
        path: The file.
        newest_format: The newest format that this version knows.
        checked_from: The first format whose files carry a checksum.

    Raises:
        ValueError: It is cut, changed, of another kind, or of a newer version; the sentence names the file.
    """
    shown = repr(str(path))
    try:
        data = json.loads(read(path).decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{shown} is damaged or was cut: it is not whole JSON ({error}). Restore it from a copy, or "
            "make it again."
        ) from None
    if not isinstance(data, dict):
        raise ValueError(
            f"{shown} is no record of this library: its JSON is a {type(data).__name__}, not an object."
        )
    format, checksum = data.get("format", 0), data.pop("checksum", None)
    if not isinstance(format, int) or (
        format <= newest_format and checksum is None and format >= checked_from > 0
    ):
        raise ValueError(f"{shown} is damaged: its format number or its checksum is gone.")
    if format > newest_format:
        raise ValueError(f"{shown} was written by a newer finetune-eval; upgrade to read it.")
    if checksum is not None and checksum != _checksum(data):
        raise ValueError(
            f"{shown} is damaged or was changed: its contents do not fit its checksum. Restore it from a "
            "copy, or make it "
            "again."
        )
    data.pop("format", None)
    return data


def _checksum(data: Any) -> str:
    plain = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def json_line(record: Mapping[str, Any]) -> str:
    """Return a record as a line of strict JSON with its checksum and a line break."""
    line = {**record, "checksum": _checksum(record)}
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def append_line(path: Path, record: Mapping[str, Any], *, flush: bool = True) -> None:
    """Append a record to a file of JSON lines, each with its checksum.

    Args:
        path: The file; made if it is not there.
        record: What to append.
        flush: Whether to wait until the disk holds it, so that it outlives a power cut.

    Raises:
        OSError: The path is a symbolic link, or the line could not be written whole.
    """
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        text = json_line(record).encode()
        if os.write(handle, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if flush:
            os.fsync(handle)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        os.close(handle)


def record_of_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line that `json_line` made, or None where it is damaged or no record."""
    try:
        record = json.loads(line)
        whole = isinstance(record, dict) and record.pop("checksum", None) in (None, _checksum(record))
    except (ValueError, RecursionError):
        return None
    return record if whole else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read what `append_line` wrote; a last line that a killed process left unfinished is left out.

    Raises:
        ValueError: A line is damaged; the sentence names the file and the line.
    """
    lines = read(path).split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        record = record_of_line(line)
        if record is None and number == len(lines):  # without a line break at its end: never finished
            break
        if record is None:
            raise ValueError(
                f"{str(path)!r} is damaged in line {number}: it is no record, or does not fit its checksum."
            )
        records.append(record)
    return records


def to_json(value: Any) -> Any:
    """Return records, tuples, dicts, numbers and arrays as JSON data that `from_json` rebuilds exactly."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": to_json(value.tolist())}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # strict JSON has no NaN and no infinity; float("nan") reads them back
    return value


def from_json(kind: Any, data: Any, **others: Any) -> Any:
    """Rebuild a value of type `kind` from what `to_json` made of it; `others` are fields of its own."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if data is None:
            return None
        choices = [choice for choice in arguments if choice is not type(None)]
        if len(choices) == 1:
            return from_json(choices[0], data)
        if float in choices and isinstance(data, str) and str not in choices:
            return float(data)
        if isinstance(data, list) and (held := [c for c in choices if typing.get_origin(c) is tuple]):
            return from_json(held[0], data)
        return data
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(from_json(arguments[0], item) for item in data)
        return tuple(from_json(part, item) for part, item in zip(arguments, data, strict=True))
    if origin is dict:
        return {key: from_json(arguments[1], item) for key, item in data.items()}
    if kind is float:
        return float(data)
    if np.ndarray in (kind, origin):
        if (dtype := np.dtype(data["dtype"])).kind not in "biuf":  # a text of a gigabyte for each value
            raise ValueError(f"{data['dtype']!r} is no type of numbers")
        return np.array(data["values"], dtype=dtype)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        # Tables are not in the JSON; pandas need not be loaded to read the hints of what is.
        hints = typing.get_type_hints(kind, localns={"pd": types.SimpleNamespace(DataFrame=object)})
        names = [field.name for field in dataclasses.fields(kind) if field.name in data]
        return kind(**{name: from_json(hints[name], data[name]) for name in names}, **others)
    return data
