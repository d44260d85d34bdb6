"""DataTrace: rows, columns and hashes at every step of the flow.

What a row *is* is decided here, once: its hash, the hash of many, and the form in which two texts
count as the same.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from finetune_eval import _checks, _columns, _files, _text
from finetune_eval._text import Shown
from finetune_eval._text import counted as counted

_HASH_CHARACTERS = 16  # 64 bits: two of a million different rows collide with probability 3e-8
_NARROWEST_NAME = 8  # cells for what a step is about; with fewer each step has lines of its own
_FORMAT = 1  # of data.json; the first with a checksum


def text_hash(text: str) -> str:
    """Return the first 16 hexadecimal characters of the SHA-256 of a text in UTF-8.

    Args:
        text: Any text; nothing is normalised, a changed space is a changed hash.

    Example:
        >>> text_hash("abc")
        'ba7816bf8f01cfea'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]


def rows_hash(x: Any, y: Any = None) -> str:
    """Return a 16-character hash of rows and their labels, in their order.

    The same values give the same hash whether they come as a list, an array or a Series, in float32 or
    (where it is the same number) float64, on any machine.

    Args:
        x: (n,) texts, or (n, d) numbers.
        y: (n,) class indices or names; None hashes `x` alone.

    Example:
        >>> rows_hash(["a", "b"], [0, 1]) == rows_hash(np.array(["a", "b"], dtype=object), np.array([0, 1]))
        True
        >>> rows_hash(["a", "b"], [0, 1]) == rows_hash(["b", "a"], [1, 0])
        False
    """
    digest = hashlib.sha256()
    for part in (x,) if y is None else (x, y):
        array = _columns.as_lines(part) if _columns.are_columns(part) else np.asarray(part)
        if array.dtype.kind in "OUST":
            digest.update(f"text{array.shape}".encode())
            for value in array.ravel().tolist():
                encoded = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
                digest.update(len(encoded).to_bytes(8, "little"))  # so that ["ab", "c"] is not ["a", "bc"]
                digest.update(encoded)
        elif array.dtype.kind in "bui":
            digest.update(f"int{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype="<i8").data)
        else:
            digest.update(f"float{array.shape}".encode())
            digest.update(np.ascontiguousarray(array.astype("<f8") + 0.0).data)  # + 0.0 turns -0.0 into 0.0
    return digest.hexdigest()[:_HASH_CHARACTERS]


def normalise(text: str) -> str:
    r"""Return the form in which two texts count as the same: NFKC, case-folded, white space collapsed.

    Example:
        >>> normalise("  Une ﬁlm\tCAFÉ ")
        'une film café'
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Step:
    """One thing that happened to the rows.

    Attributes:
        stage: The stage of the flow: "read", "drop", "split", "tokenise", ...
        name: What happened, or to which part: a file name, "train".
        rows_in: Rows before.
        columns_in: Columns before, the label among them.
        rows_out: Rows after.
        columns_out: Columns after, the label among them.
        note: A sentence a person should read; may be empty.
        hash: `rows_hash` of what came out; may be empty.
    """

    stage: str
    name: str
    rows_in: int
    columns_in: int
    rows_out: int
    columns_out: int
    note: str = ""
    hash: str = ""


@dataclass(frozen=True)
class DataTrace(Shown):
    """What happened to the rows, step by step, from the source to the model.

    Example:
        >>> trace = DataTrace().add(Step("read", "reviews.csv", 1000, 5, 1000, 2, hash="ba7816bf8f01cfea"))
        >>> trace = trace.add(Step("split", "test", 1000, 2, 200, 2, note="stratified, seed 0"))
        >>> print(trace)
        stage  what            rows x columns in -> out             hash
        read   reviews.csv       1,000 x 5 -> 1,000 x 2 ba7816bf8f01cfea
        split  test              1,000 x 2 -> 200 x 2
                 stratified, seed 0
    """

    steps: tuple[Step, ...] = ()

    def add(self, *steps: Step) -> DataTrace:
        """Return a trace with `steps` at its end."""
        return DataTrace((*self.steps, *steps))

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to a JSON file, whole or not at all, and return its path."""
        target = _checks.path("path", path)
        record = {"steps": [asdict(step) for step in self.steps]}
        _files.write_json(target, record, format=_FORMAT)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DataTrace:
        """Read a trace that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a data trace.
        """
        target = _checks.path("path", path)
        if not target.is_file():
            raise FileNotFoundError(
                f"`path` must be a data trace written by DataTrace.save; {target} does not exist."
            )
        known = {field.name for field in fields(Step)}
        record = _files.read_json(target, newest_format=_FORMAT, checked_from=_FORMAT)
        try:
            return cls(
                tuple(Step(**{k: v for k, v in step.items() if k in known}) for step in record["steps"])
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"`path` must be a data trace written by DataTrace.save; {target} is not one ({error})."
            ) from None

    def __str__(self) -> str:
        return "\n".join(_table(self.steps))


def _table(steps: Iterable[Step]) -> list[str]:
    rows = [
        (
            _text.shorten(_line(step.stage), 10, middle=True),
            _line(step.name),
            f"{step.rows_in:,} x {step.columns_in}",
            f"{step.rows_out:,} x {step.columns_out}",
            step.hash,
            _text.visible(step.note),
        )
        for step in steps
    ]
    stage = max([5, *(cell_len(row[0]) for row in rows)])
    before = max([8, *(len(row[2]) for row in rows)])
    after = max([8, *(len(row[3]) for row in rows)])
    shape = max(before + 4 + after, len("rows x columns in -> out"))
    room = _text.width() - stage - shape - _HASH_CHARACTERS - 4
    if room < _NARROWEST_NAME:
        return [line for row in rows for line in _stacked(*row)]
    what = min(max([15, *(cell_len(row[1]) for row in rows)]), room)
    lines = [f"{'stage':<{stage}}  {'what':<{what}} {'rows x columns in -> out':>{shape}} {'hash':>16}"]
    for name, label, rows_in, rows_out, digest, note in rows:
        flow = f"{rows_in:>{shape - after - 4}} -> {rows_out:<{after}}"
        label = _text.pad(_text.shorten(label, what, middle=True), what)
        lines.append(f"{_text.pad(name, stage)}  {label} {flow} {digest:>16}".rstrip())
        lines += _text.wrap(note, indent=" " * (stage + 4))
    return lines


def _stacked(stage: str, name: str, rows_in: str, rows_out: str, digest: str, note: str) -> list[str]:
    """Return a step in lines of its own, for a narrow terminal."""
    return [
        _text.shorten(f"{stage} {name}", _text.width(), middle=True),
        *_text.wrap(f"{rows_in} -> {rows_out}", indent="  "),
        *([f"  hash {digest}"] if digest else []),
        *_text.wrap(note, indent="    "),
    ]


def _line(text: str) -> str:
    """Return a name from outside as it can be printed in a line."""
    return " ".join(_text.visible(text).split())


__all__ = ["DataTrace", "Step", "normalise", "rows_hash", "text_hash"]
