"""Argument and data checks: the one place that words an error.

Every message says which argument, what the rule is, what was received, and what to do.
"""

from __future__ import annotations

import difflib
import errno
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST_RESAMPLES = 1_000_000
_NO_NUMBERS = (bool, np.timedelta64)  # to Python a boolean is an int; to NumPy a span of time is an integer


class TextsCut(UserWarning):
    """Texts are longer than the model reads: what is beyond the sequence length has no say in the answer."""


def nearest(value: object, options: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the option that `value` begins or is nearest to, or nothing."""
    options = list(options)
    begun = [option for option in options if len(str(value)) > 1 and option.startswith(str(value))]
    close = begun if len(begun) == 1 else difflib.get_close_matches(str(value), options, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def one_of(name: str, value: object, options: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `options`."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"`{name}` must be one of {listed}; got {value!r}.{nearest(value, options)}")


def instance(name: str, value: object, kind: type, made_by: str) -> None:
    """Raise TypeError unless `value` is a `kind`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise TypeError(
            f"`{name}` must be {article} {kind.__name__}, as {made_by} gives; got {_shown(value)} "
            f"({type(value).__name__})."
        )


def evaluations(name: str, values: Any) -> None:
    """Raise TypeError unless `values` is a list of evaluations."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(
            f"`{name}` must be a list of evaluations, as `evaluate` gives; got {type(values).__name__}."
        )
    for place, value in enumerate(values):
        if not hasattr(value, "estimates"):  # by its looks: the class is above this module
            raise TypeError(
                f"`{name}` must be evaluations, as `evaluate` gives; number {place} is {_shown(value)} "
                f"({type(value).__name__})."
            )


def flag(name: str, value: object) -> bool:
    """Return `value` as a bool, or raise where it is none."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` must be True or False; got {_shown(value)}.")
    return bool(value)


def path(name: str, value: object) -> Path:
    """Return a path, or raise where an argument is none."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(text := os.fspath(value), str):
        raise TypeError(f"`{name}` must be a path; got {_shown(value)} ({type(value).__name__}).")
    if not text.strip() or "\0" in text:
        raise ValueError(f"`{name}` must be a path; got {text!r}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"`{name}` must be a path; got {text!r}, which has half a character.") from None
    try:
        os.lstat(text)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"`{name}` must be a path; {_shown(text)} is too long a name.") from None
    return Path(text)


def _shown(value: object) -> str:
    shown = " ".join(repr(value).split())
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def positive_int(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Return `value` as an int, or raise unless it is a whole number from `minimum` to `maximum`."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"`{name}` must be a whole number; got {_shown(value)} ({type(value).__name__}).")
    if value < minimum:
        raise ValueError(f"`{name}` must be at least {minimum}; got {value}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"`{name}` must be at most {maximum:,}; got {value}.")
    return int(value)


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return `value` as a finite float inside the given bounds, or raise."""
    if isinstance(value, _NO_NUMBERS) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"`{name}` must be a number; got {_shown(value)} ({type(value).__name__}).")
    bounds = [
        (above, "above", above is not None and not value > above),
        (at_least, "at least", at_least is not None and not value >= at_least),
        (below, "below", below is not None and not value < below),
        (at_most, "at most", at_most is not None and not value <= at_most),
    ]
    if not math.isfinite(value) or any(broken for _, _, broken in bounds):
        rule = " and ".join(f"{word} {bound:g}" for bound, word, _ in bounds if bound is not None)
        raise ValueError(f"`{name}` must be a finite number{' ' + rule if rule else ''}; got {value!r}.")
    return float(value)


def class_weight(value: object) -> None:
    """Raise unless `value` is a dictionary of class weights or "balanced"."""
    if isinstance(value, str):
        one_of("class_weight", value, ("balanced",))
    elif not isinstance(value, Mapping):
        raise TypeError(
            "`class_weight` must be a dictionary from class to weight, or 'balanced'; got "
            f"{type(value).__name__}. Write {{class: weight, ...}}."
        )


def same_length(name_a: str, a: Any, name_b: str, b: Any) -> None:
    """Raise ValueError unless `a` and `b` have as many rows as each other."""
    if len(a) != len(b):
        raise ValueError(
            f"`{name_a}` and `{name_b}` must have the same number of rows; got {len(a)} and {len(b)}."
        )


def not_empty(name: str, value: Any) -> None:
    """Raise ValueError if `value` has no rows."""
    if len(value) == 0:
        raise ValueError(f"`{name}` has no rows; at least one is needed.")
