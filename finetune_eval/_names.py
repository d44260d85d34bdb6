"""Names of classes: which name a value is written as, and which number a name spells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from finetune_eval import _rows

_TRUTH = {"false": False, "true": True}


def default_names(classes: int) -> tuple[str, ...]:
    """Return the names of classes that were given none: "0", "1", ..."""
    return tuple(str(place) for place in range(classes))


def class_names(labels: Any, name: str = "labels") -> tuple[str, ...]:
    """Return the names of the classes, in the order of their places.

    Args:
        labels: A list, tuple, array or Series of names (texts, whole numbers or booleans); or a dictionary
            from place to name (`id2label`) or from name to place (`label2id`).
        name: What the caller's argument is called, for the error.

    Raises:
        TypeError: It is one text, a set (which has no order), or no collection at all.
        ValueError: A name is missing, empty or there twice, or there are fewer than two.

    Example:
        >>> class_names([1, 2, 3]), class_names({1: "good", 0: "bad"}), class_names({"bad": 0, "good": 1})
        (('1', '2', '3'), ('bad', 'good'), ('bad', 'good'))
    """
    if isinstance(labels, (str, bytes)):
        raise TypeError(f"`{name}` must be a list of class names; got the single text {labels!r}.")
    if isinstance(labels, (set, frozenset)):
        raise TypeError(f"`{name}` must be in the order of the classes; a set has no order: pass a list.")
    if isinstance(labels, Mapping):
        labels = _in_order(name, labels)
    elif not isinstance(labels, Iterable) or getattr(labels, "ndim", 1) != 1:
        raise TypeError(f"`{name}` must be a list of class names; got {labels!r}.")
    values = labels.tolist() if isinstance(labels, np.ndarray) else labels
    names = tuple(_name(name, place, value) for place, value in enumerate(values))
    if len(names) < 2:
        raise ValueError(f"`{name}` must name at least two classes; got {list(names)}.")
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise ValueError(f"`{name}` must differ from each other; {twice!r} is there twice.")
    return names


def _in_order(name: str, labels: Mapping[Any, Any]) -> list[Any]:
    """Return the names of a dictionary {place: name} or {name: place} in the order of the places."""
    for places, names in ((labels.keys(), labels.values()), (labels.values(), labels.keys())):
        at = {number_of(place): each for place, each in zip(places, names, strict=True)}
        if at and set(at) == set(range(len(labels))):
            return [at[place] for place in range(len(labels))]
    raise ValueError(
        f"`{name}` as a dictionary must give each class one of the places 0 to {len(labels) - 1} "
        f"({{0: 'negative', 1: 'positive'}}); got {dict(labels)!r}."
    )


def _name(name: str, row: int, value: Any) -> str:
    """Return a class's name as text: 1 and 1.0 are "1", True is "True"."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = str(value)  # np.str_ is a str of its own
        if not text.strip():
            raise ValueError(f"`{name}` has an empty class name at place {row}; every class needs a name.")
        if _rows.has_half_a_pair(text):
            raise ValueError(
                f"`{name}` must hold valid Unicode; the class {text!r} has half a surrogate pair. Write it "
                "as `text.encode('utf-8', 'replace').decode()`."
            )
        return text
    if _rows.is_missing(value):
        raise ValueError(f"`{name}` has no class name at place {row} ({value!r}); every class needs one.")
    if isinstance(value, (list, tuple, dict, set, np.ndarray)):
        raise TypeError(f"`{name}` must be texts or numbers; place {row} is {value!r}.")
    return written(value)


def written(value: Any) -> str:
    """Return how a value that is no text is written as a name."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def number_of(value: Any) -> float | int | bool | None:
    """Return the number that a label or a name is or spells, or None."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    word = value.strip()
    if word.lower() in _TRUTH:
        return _TRUTH[word.lower()]
    digits = word.removeprefix("-").removeprefix("+")
    if digits.isascii() and digits.isdigit():
        return int(word)
    try:
        number = float(word) if word.isascii() and "_" not in word else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def numbers_are_places(labels: Sequence[str]) -> bool:
    """Return whether a number can only be a place: each name is no number, or the number of its own place.

    Example:
        >>> [numbers_are_places(labels) for labels in (["bad", "good"], ["0", "1"], ["1", "2"])]
        [True, True, False]
    """
    return all(number_of(each) in (None, place) for place, each in enumerate(labels))


def are_numbers(y: Any) -> bool:
    """Return whether every label is or spells a number or a truth value, so that it needs no list of names.

    Example:
        >>> are_numbers(["0", "1"]), are_numbers([True]), are_numbers(["0", "neg"])
        (True, True, False)
    """
    return all(number_of(value) is not None for value in set(np.asarray(y, dtype=object).ravel().tolist()))


def plain_number(word: str) -> str:
    """Return "1" for "1.0" and the like, as whole numbers are written once one of their column was missing.

    Example:
        >>> plain_number("1.0"), plain_number("-3."), plain_number("1.5"), plain_number("01")
        ('1', '-3', '1.5', '01')
    """
    whole, point, rest = word.partition(".")
    return whole if point and not rest.strip("0") and whole.removeprefix("-").isdecimal() else word


def as_compared(word: str) -> str:
    """Return a word as it is compared: 1.0 as 1, and "TRUE" as True."""
    return word.lower() if word.lower() in _TRUTH else plain_number(word)
