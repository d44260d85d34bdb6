"""Frozen records to JSON and back, exactly.

Python's JSON keeps every float to the last bit; what it cannot keep (NaN, infinities, tuples, arrays) is
rebuilt from the type hints of the record.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from finetune_eval.data.ledger import write_text_atomically

Record = TypeVar("Record")


def to_json(value: Any) -> Any:
    """Return `value` (records, tuples, dicts, numbers, arrays) as plain JSON data."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": to_json(value.tolist())}
    if isinstance(value, dict):
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
        return np.array(data["values"], dtype=data["dtype"])
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        # Tables are not in the JSON; pandas need not be loaded to read the hints of what is.
        hints = typing.get_type_hints(kind, localns={"pd": types.SimpleNamespace(DataFrame=object)})
        names = [field.name for field in dataclasses.fields(kind) if field.name in data]
        return kind(**{name: from_json(hints[name], data[name]) for name in names}, **others)
    return data


def write_json(path: Path, data: Any) -> None:
    """Write JSON data to `path` atomically, indented for people."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_text_atomically(path, text)


def read_json(path: Path, *, newest_format: int) -> dict[str, Any]:
    """Read JSON data from `path`, or raise where a newer version of this library wrote it."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if data.pop("format", 0) > newest_format:
        raise ValueError(f"{str(path)!r} was written by a newer finetune-eval; upgrade to read it.")
    return data
