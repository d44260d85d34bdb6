"""Stratified, grouped and duplicate-aware splits.

A row goes where its content and the seed send it, not where it stood in the file: the same rows in another
order give the same split. Rows that must not be parted (the same text, the same group) move as one unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_eval import _checks, _labels, _pairs, _rows, _text
from finetune_eval._labels import ClassIndices
from finetune_eval._text import Shown, counted
from finetune_eval.data.assignment import assign, checked_rows, keys_of_rows, units_of_rows
from finetune_eval.data.ledger import DataTrace, Step, normalise, rows_hash
from finetune_eval.data.words import same_text

_PARTS = ("train", "validation", "test")
DEFAULT_VALIDATION = 0.1
DEFAULT_TEST = 0.2
_NAMED = len("validation ")  # what stands before the rows of a part


@dataclass(frozen=True, eq=False)
class Rows(Shown):
    """Rows of one split. Iterating gives `x`, then `y`, so that `model.fit(*rows)` works; `len` counts rows.

    Attributes:
        x: (n,) texts (object array of str), (n, 2) texts where a row is a pair, (n, d) numbers, or (n,) rows
            of a text and columns beside it (a structured array, as `rows_of_columns` makes it).
        y: (n,) int64 class indices into `labels`, which they know: a model with its classes in another order
            reads them by name.
        labels: The class names. With two, the second is the positive class.
        ids: (n,) int64, where each row stood in its source, from 0.
        metadata: The source's other columns, a pandas DataFrame of n rows, or None.
    """

    x: np.ndarray
    y: ClassIndices
    labels: tuple[str, ...]
    ids: np.ndarray
    metadata: Any = None

    def __post_init__(self) -> None:
        y = _labels.read("y", self.y, self.labels) if isinstance(self.y, ClassIndices) else self.y
        object.__setattr__(self, "y", ClassIndices(y, self.labels))

    def __iter__(self) -> Iterator[np.ndarray]:
        yield self.x
        yield self.y

    def __len__(self) -> int:
        return len(self.y)

    @property
    def columns(self) -> int:
        """How many columns the rows have, the label among them."""
        if self.x.dtype.names:
            return len(self.x.dtype.names) + 1
        return 2 if self.x.ndim == 1 else int(np.prod(self.x.shape[1:])) + 1

    @property
    def hash(self) -> str:
        """`rows_hash` of `x` and `y`: 16 hexadecimal characters."""
        return rows_hash(self.x, self.y)

    def __str__(self) -> str:
        counts = np.bincount(self.y, minlength=len(self.labels))
        names = [repr(name) if name.lstrip("-").isdigit() else _text.visible(name) for name in self.labels]
        listed = ", ".join(f"{count:,} {name}" for name, count in zip(names, counts.tolist(), strict=True))
        room = _text.width() - _NAMED
        first, *more = _text.wrap(f"{counted(len(self), 'row')}: {listed}", columns=room)
        return f"{_text.wrap(first, columns=room - 4)[0]} ..." if more else first


@dataclass(frozen=True, eq=False)
class Dataset(Shown):
    """Rows split into training, validation and test, and what happened to them on the way.

    Attributes:
        train: Rows to learn from.
        validation: Rows to choose with: epoch, threshold, temperature.
        test: Rows to report on.
        labels: The class names.
        trace: Every step with its rows, columns and hashes.
        warnings: What a person should know before trusting the rows; one sentence each.
    """

    train: Rows
    validation: Rows
    test: Rows
    labels: tuple[str, ...]
    trace: DataTrace
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{name:<{_NAMED - 1}} {getattr(self, name)}" for name in _PARTS]
        for sentence in self.warnings:
            parts += _text.wrap(_text.visible(sentence), indent="warning: ")
        return "\n".join(parts)


def split(
    x: Any,
    y: Any,
    *,
    labels: Sequence[str] | None = None,
    train: int | float | None = None,
    validation: int | float = DEFAULT_VALIDATION,
    test: int | float = DEFAULT_TEST,
    groups: Any = None,
    near_duplicates: bool = False,
    seed: int = 0,
    ids: Any = None,
    metadata: Any = None,
    trace: DataTrace | None = None,
) -> Dataset:
    """Split rows into training, validation and test.

    Each part has the class shares of the whole, to within one row. Rows of the same group or with the same
    text (after NFKC, case folding, collapsing white space and leaving out characters that are not seen; for
    numbers: the same values) are never parted; where that changes a size the warnings say so. The result
    depends on the rows and the seed, not on the order of the rows. Each part comes shuffled.

    Args:
        x: (n,) texts, (n, 2) texts where a row is a pair, or (n, d) numbers; or what `rows_of_columns` makes,
            of which the texts tell what stays together.
        y: (n,) class names; or class indices where `labels` gives the names.
        labels: The class names in index order, the positive class second; None takes them from `y`, sorted.
        train: Rows of training: a whole number, or a fraction of all rows in [0, 1]; None is all the rest.
        validation: The same for validation; 0 for none.
        test: The same for test; 0 for none.
        groups: (n,) values; rows with the same value stay together. None: every row is its own group.
        near_duplicates: Whether texts that are nearly the same (Jaccard similarity of their character 5-grams
            at least 0.8, directly or through others) stay together as well.
        seed: Another seed, another split.
        ids: (n,) whole numbers to be kept with the rows; None numbers them from 0.
        metadata: A pandas DataFrame of n rows to be kept with the rows.
        trace: Steps that came before.

    Returns:
        The three parts, each of which unpacks into x and y, with the steps that led to them.

    Raises:
        ValueError: A row has no text, label or group; two pandas objects name their rows differently; there
            are not enough rows; or a part would be empty.
        TypeError: An argument is no column of rows (a set, a dictionary), or a size is neither a whole number
            nor a fraction.

    Example:
        >>> texts = [f"review number {i}" for i in range(100)]
        >>> parts = split(texts, [i % 2 for i in range(100)], labels=["bad", "good"], test=20)
        >>> print(parts)
        train      70 rows: 35 bad, 35 good
        validation 10 rows: 5 bad, 5 good
        test       20 rows: 10 bad, 10 good
        >>> x_test, y_test = parts.test
    """
    _rows.same_order(x=x, y=y, groups=groups, ids=ids, metadata=metadata)
    x = checked_rows(x)
    n = len(x)
    _checks.same_length("x", x, "y", _rows.column("y", y))
    _labels.refuse_several("y", y, "Pass one name for each set of labels, such as 'acting + plot'.")
    if labels is None:
        y, names = _labels.find("y", y)
    else:
        names = _labels.class_names(labels)
        y = _labels.read("y", y, names)
    seed = _checks.positive_int("seed", seed, minimum=0)
    near_duplicates = _checks.flag("near_duplicates", near_duplicates)
    for name, size in (("validation", validation), ("test", test)):
        if size is None:
            raise TypeError(f"`{name}` must be a number of rows or a share of them, 0 for none; got None.")
    sizes = _sizes(n, {"train": train, "validation": validation, "test": test})
    row_ids = _as_ids(ids, n)
    if metadata is not None:
        _check_metadata(metadata, n)

    units, same, reason, crowd_warnings = units_of_rows(x, groups, near_duplicates=near_duplicates)
    keys, places = keys_of_rows(x, seed).T
    sink = len(_PARTS) if train is not None else 0
    part = assign(y, units, keys, [sizes[name] for name in _PARTS], len(names), sink)

    order = np.lexsort((row_ids, y, places))
    chosen = [order[part[order] == i] for i in range(len(_PARTS))]
    warnings = [*label_warnings(names), *crowd_warnings, *_duplicate_warnings(x, y, names, same, row_ids)]
    for name, rows in zip(_PARTS, chosen, strict=True):
        warnings += _part_warnings(name, sizes[name], y[rows], names, reason)

    trace = trace or DataTrace()
    made = []
    rule = f"stratified, seed {seed}; {reason}"
    for name, rows in zip(_PARTS, chosen, strict=True):
        kept = None if metadata is None else metadata.iloc[rows].reset_index(drop=True)
        made.append(Rows(x[rows], ClassIndices(y[rows], names), names, row_ids[rows], kept))
        columns = made[-1].columns
        note = rule if name == "train" else ""
        trace = trace.add(Step("split", name, n, columns, len(rows), columns, note, made[-1].hash))
    unused = n - sum(map(len, made))
    if unused:
        trace = trace.add(Step("split", "not used", n, made[0].columns, unused, made[0].columns))
    return Dataset(made[0], made[1], made[2], names, trace, tuple(warnings))


def label_warnings(labels: Sequence[str]) -> list[str]:
    """Return a sentence for each pair of class names that may be one, but for case or what is not seen."""
    spaces = "differ only in case or spaces; if they are one class, pass merge_labels=True to load_dataset."
    zeros = "are one number; are they one class?"
    unseen = "differ only in characters that are not seen; are they one class?"
    seen: dict[tuple[str, str], str] = {}
    sentences = []
    for label in labels:
        plain = normalise(label)
        keys = [(spaces, plain), (unseen, same_text(label))]
        keys += [(zeros, plain.lstrip("0"))] if plain.isdecimal() else []
        pairs = [(seen.setdefault(key, label), key[0]) for key in keys]
        same = next((pair for pair in pairs if pair[0] != label), None)
        if same is not None:
            first, second = (_text.shorten(repr(each), 60) for each in (same[0], label))
            sentences.append(f"The labels {first} and {second} {same[1]}")
    return sentences


def _as_ids(ids: Any, n: int) -> np.ndarray:
    if ids is None:
        return np.arange(n, dtype=np.int64)
    array = _rows.one_a_row("ids", ids, n)
    if array.dtype == np.int64:
        return array
    for row, value in enumerate(array.tolist()):
        if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
            raise TypeError(
                f"`ids` must be whole numbers; row {row} is {value!r}. Keep names of rows in `metadata`."
            )
    return array.astype(np.int64)


def _check_metadata(metadata: Any, n: int) -> None:
    if not hasattr(metadata, "iloc") or metadata.ndim != 2:
        raise TypeError(f"`metadata` must be a pandas DataFrame; got {type(metadata).__name__}.")
    if len(metadata) != n:
        raise ValueError(f"`metadata` must have one row for each of the {n} rows; got {len(metadata)}.")


def _sizes(n: int, asked: dict[str, int | float | None]) -> dict[str, int]:
    """Turn rows, fractions and None into whole numbers of rows."""
    sizes: dict[str, int] = {}
    for name, size in asked.items():
        if size is None:
            continue
        if isinstance(size, (float, np.floating)):
            if not 0 <= size <= 1:
                raise ValueError(
                    f"`{name}` must be a whole number of rows, or a share of them from 0 to 1; got {size!r}."
                )
            sizes[name] = math.floor(float(size) * n + 0.5)
        else:
            sizes[name] = _checks.positive_int(name, size, minimum=0)
    fractions = [size for size in asked.values() if isinstance(size, (float, np.floating))]
    excess = sum(sizes.values()) - n
    if len(fractions) == len(asked) and math.isclose(sum(fractions), 1.0):
        sizes[max(sizes, key=lambda name: sizes[name])] -= excess  # .25, .25 and .5 of 10 rows round to 11
        excess = 0
    listed = ", ".join(f"{name} {sizes[name]:,}" for name in _PARTS if name in sizes)
    if excess > 0:
        raise ValueError(
            f"Not enough rows: {listed} make {sum(sizes.values()):,}, and there are {n:,}. Ask for fewer."
        )
    if asked["train"] is None:
        if excess == 0:
            raise ValueError(
                f"Not enough rows: {listed} make {sum(sizes.values()):,} of {n:,}, which leaves none for "
                "training. Ask for fewer, or pass train=0."
            )
        sizes["train"] = -excess
    for name, size in asked.items():
        if size and not sizes[name]:
            raise ValueError(
                f"Not enough rows: `{name}`={size!r} of {n:,} rows is none. Ask for more, or pass 0."
            )
    return sizes


def _duplicate_warnings(
    x: np.ndarray, y: np.ndarray, labels: tuple[str, ...], same: np.ndarray, ids: np.ndarray
) -> list[str]:
    x = _pairs.one_text(x)
    what, units = ("text", "text") if x.ndim == 1 else ("values", "row of values")
    repeated = len(same) - len(np.unique(same))
    if not repeated:
        return []
    sentences = [
        f"Of {len(same):,} rows {repeated:,} {'repeats' if repeated == 1 else 'repeat'} the {what} of "
        "another row; they stay on one side of the split."
    ]
    order = np.lexsort((ids, same))
    edge = np.flatnonzero((same[order][1:] == same[order][:-1]) & (y[order][1:] != y[order][:-1]))
    if edge.size:
        a, b = order[edge[0]], order[edge[0] + 1]
        sentences.append(
            f"{counted(len(np.unique(same[order][edge])), units)} with more than one label: for example "
            f"{_excerpt(x[a])} is {labels[y[a]]!r} in row {ids[a]} and {labels[y[b]]!r} in row {ids[b]}."
        )
    return sentences


def _excerpt(row: Any) -> str:
    return _text.quoted(
        row if isinstance(row, str) else np.array2string(np.asarray(row).ravel()[:4], precision=4)
    )


def _part_warnings(name: str, asked: int, y: np.ndarray, labels: tuple[str, ...], reason: str) -> list[str]:
    if asked and not len(y):
        raise ValueError(
            f"`{name}` would be empty: {asked:,} rows were asked for, but {reason}, and none of those units "
            "is small enough. Ask for a larger part."
        )
    sentences = []
    if len(y) != asked:
        sentences.append(
            f"{name} has {counted(len(y), 'row')}, not the {asked:,} asked for, because {reason}."
        )
    absent = np.flatnonzero(np.bincount(y, minlength=len(labels)) == 0)
    if len(y) and absent.size:
        listed = ", ".join(repr(labels[k]) for k in absent[:3]) + (", ..." if absent.size > 3 else "")
        sentences.append(f"{name} has no row of {'class' if absent.size == 1 else 'the classes'} {listed}.")
    return sentences


__all__ = ["Dataset", "Rows", "split"]
