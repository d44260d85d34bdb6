"""Stratified, grouped and duplicate-aware splits.

A row goes where its content and the seed send it, not where it stood in the file: the same rows in another
order give the same split. Rows that must not be parted (the same text, the same group) move as one unit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_eval import _checks, _labels, _rows, _text
from finetune_eval._labels import ClassIndices
from finetune_eval._text import Shown, counted
from finetune_eval.data.leakage import NEAR, near_duplicate_clusters, row_keys
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
        x: (n,) texts (object array of str), or (n, d) numbers.
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
        x: (n,) texts, or (n, d) numbers.
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
    x = _as_rows(x)
    n = len(x)
    _checks.same_length("x", x, "y", _rows.column("y", y))
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

    units, same, reason, crowd_warnings = _units(x, groups, near_duplicates=near_duplicates)
    keys, places = _keys(x, seed).T
    sink = len(_PARTS) if train is not None else 0
    part = _assign(y, units, keys, [sizes[name] for name in _PARTS], len(names), sink)

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


def _units(
    x: np.ndarray, groups: Any, *, near_duplicates: bool
) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """Number the rows that stay together, and the distinct rows; say why they stay, and what to know."""
    same = _codes([same_text(text) for text in x.tolist()] if x.ndim == 1 else row_keys(x))
    crowd_warnings: list[str] = []
    units, together = same, ["text" if x.ndim == 1 else "values"]
    if near_duplicates:
        near, crowd_warnings = _near_codes(x, same)
        units = _connected(same, near)
        together = ["text", "nearly the same text"]
    if groups is not None:
        units = _connected(units, _rows.groups("groups", groups, len(x)))
        together.append("group")
    return units, same, f"rows of the same {' or '.join(together)} stay together", crowd_warnings


def _as_rows(x: Any) -> np.ndarray:
    array = _rows.column("x", x)
    _checks.not_empty("x", array)
    if _rows.are_texts(array):
        return _rows.texts("x", array, blank=False)
    if array.ndim < 2:
        raise ValueError(
            f"`x` must be (rows,) texts or (rows, columns) numbers; got shape {array.shape} "
            f"and dtype {array.dtype}."
        )
    return _rows.numbers("x", array)


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


def _row_bytes(x: np.ndarray) -> list[bytes]:
    """Return bytes that are equal where the numbers of two rows are."""
    flat = x.reshape(len(x), -1)
    if flat.dtype.kind in "iu" and flat.size and (flat.max() > 2**53 or flat.min() < -(2**53)):
        flat = np.ascontiguousarray(flat)  # floats would not tell such numbers apart
    else:
        flat = np.ascontiguousarray(flat.astype("<f8") + 0.0)  # + 0.0 turns -0.0 into 0.0
    return [row.tobytes() for row in flat]


def _codes(values: list[Any]) -> np.ndarray:
    """Number the distinct values from 0, in order of appearance."""
    seen: dict[Any, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64, len(values))


def _near_codes(x: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, list[str]]:
    if x.ndim != 1:
        raise ValueError("`near_duplicates` is for texts; the rows are numbers. Leave it out.")
    _, first = np.unique(same, return_index=True)
    clusters, crowded = near_duplicate_clusters([same_text(x[row]) for row in first.tolist()], NEAR)
    sentence = (
        f"{crowded:,} texts resemble hundreds of others each; some near-duplicates among these may have been "
        "parted."
    )
    return clusters[same], [sentence] if crowded else []


def _connected(*codes: np.ndarray) -> np.ndarray:
    """Number the units: rows that share a value in any of `codes`, directly or through other rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(codes[0])
    offsets = np.cumsum([n, *(int(code.max()) + 1 for code in codes)])
    rows = np.tile(np.arange(n), len(codes))
    values = np.concatenate([code + offset for code, offset in zip(codes, offsets[:-1], strict=True)])
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, values)), shape=(offsets[-1], offsets[-1]))
    return np.asarray(connected_components(graph, directed=False)[1][:n], dtype=np.int64)


def _keys(x: np.ndarray, seed: int) -> np.ndarray:
    """Return (n, 2) pseudo-random numbers made from each row's content and the seed.

    Two, because a part is a range of the first, a slightly different range for each class: in the order of
    the same number a part would come almost sorted by class.
    """
    salt = f"{seed}:".encode()
    content = [text.encode("utf-8", "surrogatepass") for text in x.tolist()] if x.ndim == 1 else _row_bytes(x)
    digests = b"".join(hashlib.blake2b(salt + row, digest_size=16).digest() for row in content)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def _assign(
    y: np.ndarray, units: np.ndarray, keys: np.ndarray, sizes: list[int], classes: int, sink: int
) -> np.ndarray:
    """Return for each row the number of its part; the last number, after the asked parts, is "not used".

    Units of several rows are placed first, the largest first, each where the most is still missing of its
    classes; then single rows fill every part exactly.
    """
    n = len(y)
    capacity = np.array([*sizes, n - sum(sizes)], dtype=np.int64)
    totals = np.bincount(y, minlength=classes)
    ideal = capacity[:, None] * totals[None, :] / n
    missing = ideal.copy()
    part = np.full(n, -1, dtype=np.int64)

    _, units, counts = np.unique(units, return_inverse=True, return_counts=True)
    order = np.lexsort((keys, units))
    starts = np.concatenate([[0], np.cumsum(counts)])
    several = np.flatnonzero(counts > 1)
    first_key = keys[order[starts[several]]]
    for unit in several[np.lexsort((first_key, -counts[several]))]:
        rows = order[starts[unit] : starts[unit + 1]]
        of_class = np.bincount(y[rows], minlength=classes)
        need = ((missing / np.maximum(ideal, 1.0)) * of_class).sum(axis=1)
        fits = capacity >= len(rows)
        # Where nothing has room the rest takes it; where there is no rest to speak of, the emptiest part.
        target = int(np.argmax(np.where(fits, need, -np.inf))) if fits.any() else _overflow(capacity, sink)
        part[rows] = target
        capacity[target] -= len(rows)
        missing[target] -= of_class

    free = np.flatnonzero(part < 0)
    free = free[np.lexsort((y[free], keys[free]))]
    for short in np.flatnonzero(capacity < 0):  # a unit larger than its part: the others give up rows
        while capacity[short] < 0:
            giver = sink if sink != short and capacity[sink] > 0 else int(np.argmax(capacity))
            given = min(-capacity[short], capacity[giver])
            capacity[giver] -= given
            capacity[short] += given
    table = _fill(missing, capacity, np.bincount(y[free], minlength=classes))
    for k in range(classes):
        part[free[y[free] == k]] = np.repeat(np.arange(len(capacity)), table[:, k])
    return part


def _overflow(capacity: np.ndarray, sink: int) -> int:
    return sink if capacity[sink] > 0 else int(np.argmax(capacity))


def _fill(wanted: np.ndarray, row_sums: np.ndarray, column_sums: np.ndarray) -> np.ndarray:
    """Return the whole-number table with the given margins that is nearest to `wanted`.

    Without duplicates or groups `wanted` has these margins itself, and every cell is then its floor or its
    ceiling (controlled rounding; such a table always exists).

    Reference:
        Bacharach, M. (1966). Matrix rounding problems. Management Science 12(9):732-742.
    """
    if not column_sums.any():
        return np.zeros(wanted.shape, dtype=np.int64)
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    parts, classes = wanted.shape
    floor = np.maximum(np.floor(wanted + 1e-9), 0.0)
    rest = np.clip(wanted - floor, 0.0, 1.0)
    # Three pieces of a convex cost a cell: up to the floor, from there to the ceiling, beyond it. The outer
    # slopes only have to beat the inner ones (at most 1); small cells are dearer, they feel a row more.
    steep = 10.0 + 1.0 / np.maximum(wanted, 1.0)
    cost = np.stack([-steep, 1.0 - 2.0 * rest, steep])
    upper = np.stack([floor, np.ones_like(floor), np.full_like(floor, np.inf)])
    cell = np.arange(parts * classes)
    row, column = np.divmod(cell, classes)
    equations = np.concatenate([row, parts + column])
    matrix = coo_array(
        (
            np.ones(6 * len(cell)),
            (np.tile(equations, 3), np.concatenate([np.tile(cell, 2) + i * len(cell) for i in range(3)])),
        ),
    ).tocsr()
    answer = linprog(
        cost.ravel(),
        A_eq=matrix,
        b_eq=np.concatenate([row_sums, column_sums]),
        bounds=np.stack([np.zeros(cost.size), upper.ravel()], axis=1),
        method="highs-ds",  # ends in a corner, and all corners of a transport problem are whole numbers
    )
    table: np.ndarray = np.rint(answer.x.reshape(3, parts, classes).sum(axis=0)).astype(np.int64)
    if not (np.array_equal(table.sum(axis=1), row_sums) and np.array_equal(table.sum(axis=0), column_sums)):
        raise RuntimeError(
            "The split's table of rows by class does not add up; please report this with your data's shape."
        )
    return table


def _duplicate_warnings(
    x: np.ndarray, y: np.ndarray, labels: tuple[str, ...], same: np.ndarray, ids: np.ndarray
) -> list[str]:
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
