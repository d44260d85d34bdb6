"""Stratified, grouped and duplicate-aware splits.

A row goes where its content and the seed send it, not where it stood in the file: the same rows in another
order give the same split. Rows that must not be parted (the same text, the same group) move as one unit.
"""

from __future__ import annotations

import hashlib
import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune_eval import _checks
from finetune_eval.data.leakage import NEAR, near_duplicate_clusters
from finetune_eval.data.ledger import DataTrace, Step, counted, normalise, rows_hash

_PARTS = ("train", "validation", "test")
DEFAULT_VALIDATION = 0.1
DEFAULT_TEST = 0.2


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one split. Iterating gives `x`, then `y`, so that `model.fit(*rows)` works; `len` counts rows.

    Attributes:
        x: (n,) texts (object array of str), or (n, d) numbers.
        y: (n,) int64 class indices into `labels`.
        labels: The class names. With two, the second is the positive class.
        ids: (n,) int64, where each row stood in its source, from 0.
        metadata: The source's other columns, a pandas DataFrame of n rows, or None.
    """

    x: np.ndarray
    y: np.ndarray
    labels: tuple[str, ...]
    ids: np.ndarray
    metadata: Any = None

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
        names = [repr(name) if name.lstrip("-").isdigit() else name for name in self.labels]
        listed = [f"{count:,} {name}" for name, count in zip(names, counts.tolist(), strict=True)]
        return textwrap.shorten(f"{counted(len(self), 'row')}: " + ", ".join(listed), 69, placeholder=" ...")


@dataclass(frozen=True, eq=False)
class Dataset:
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
        parts = [f"{name:<10} {getattr(self, name)}" for name in _PARTS]
        for sentence in self.warnings:
            parts += textwrap.wrap(f"warning: {sentence}", 80, subsequent_indent="         ")
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

    Each part has the class shares of the whole, to within one row. Rows with the same text (after NFKC, case
    folding and collapsing white space; for numbers: the same values) or of the same group are never parted;
    where that changes a size the warnings say so. The result depends on the rows and the seed, not on the
    order of the rows. Each part comes shuffled.

    Args:
        x: (n,) texts, or (n, d) numbers.
        y: (n,) class names or class indices; where every value is in `labels`, they are names.
        labels: The class names in index order, the positive class second; None takes them from `y`, sorted.
        train: Rows of training: a whole number, or a fraction of all rows in [0, 1]; None is all the rest.
        validation: The same for validation; 0 for none.
        test: The same for test; 0 for none.
        groups: (n,) values; rows with the same value stay together. None: every row is its own group.
        near_duplicates: Whether texts that are nearly the same (Jaccard similarity of their character 5-grams
            at least 0.8, directly or through others) stay together as well.
        seed: Another seed, another split.
        ids: (n,) int64 to be kept with the rows; None numbers them from 0.
        metadata: A pandas DataFrame of n rows to be kept with the rows.
        trace: Steps that came before.

    Raises:
        ValueError: A row without text or label, not enough rows, or a part that would be empty.
        TypeError: A size is neither a whole number nor a fraction.

    Example:
        >>> texts = [f"review number {i}" for i in range(100)]
        >>> parts = split(texts, [i % 2 for i in range(100)], labels=["bad", "good"], test=20)
        >>> print(parts)
        train      70 rows: 35 bad, 35 good
        validation 10 rows: 5 bad, 5 good
        test       20 rows: 10 bad, 10 good
        >>> x_test, y_test = parts.test
    """
    x = _as_rows(x)
    _checks.not_empty("x", x)
    n = len(x)
    if y is not None:
        _checks.same_length("x", x, "y", y)
    y, names = class_indices("y", y, labels)
    seed = _checks.positive_int("seed", seed, minimum=0)
    sizes = _sizes(n, {"train": train, "validation": validation, "test": test})
    for name, column in (("groups", groups), ("ids", ids), ("metadata", metadata)):
        if column is not None:
            _checks.same_length(name, column, "x", x)
    row_ids = np.arange(n, dtype=np.int64) if ids is None else np.asarray(ids, dtype=np.int64)

    same = _codes([normalise(text) for text in x.tolist()] if x.ndim == 1 else _row_bytes(x))
    crowd_warnings: list[str] = []
    units, together = same, ["text" if x.ndim == 1 else "values"]
    if near_duplicates:
        near, crowd_warnings = _near_codes(x, same)
        units = _connected(same, near)
        together = ["text", "nearly the same text"]
    if groups is not None:
        units = _connected(units, _group_codes(groups))
        together.append("group")
    reason = f"rows of the same {' or '.join(together)} stay together"
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
        made.append(Rows(x[rows], y[rows], names, row_ids[rows], kept))
        columns = made[-1].columns
        trace = trace.add(
            Step(
                "split", name, n, columns, len(rows), columns, rule if name == "train" else "", made[-1].hash
            )
        )
    unused = n - sum(map(len, made))
    if unused:
        trace = trace.add(Step("split", "not used", n, made[0].columns, unused, made[0].columns))
    return Dataset(made[0], made[1], made[2], names, trace, tuple(warnings))


def class_indices(name: str, y: Any, labels: Sequence[str] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return class indices and class names, found in `y` where `labels` is None.

    Args:
        name: What the caller's argument is called, for the error.
        y: (n,) class names, whole numbers or booleans; with `labels` also indices into them.
        labels: The class names in index order, or None: the distinct values, sorted (numbers by value).

    Returns:
        (n,) int64 indices, and the K names.

    Raises:
        ValueError: A label is missing, fractional or unknown, or there are fewer than two classes.

    Example:
        >>> class_indices("y", [7, 10, 7], None)
        (array([0, 1, 0]), ('7', '10'))
        >>> class_indices("y", ["bad", "good"], ["good", "bad"])
        (array([1, 0]), ('good', 'bad'))
    """
    if y is None:
        raise ValueError(f"`{name}` is None; labels are needed: one class index or class name for each row.")
    array = _checks.row_array(y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    given = _given_labels(labels)
    if array.ndim != 1:
        if given is None:
            raise ValueError(
                f"`{name}` must have one label a row, shape (rows,); got {array.shape}. "
                "Pass `labels` to use one-hot rows."
            )
        return _checks.label_indices(name, array, given), given
    named = [_class_name(name, row, value) for row, value in enumerate(array.tolist())]
    distinct = set(named)
    # A column of whole numbers in which some were missing comes back as "1.0" here and "1" there: one class.
    known = distinct if given is None else set(given)
    same = {word: plain_number(word) for word in distinct if word not in known or given is None}
    same = {word: plain for word, plain in same.items() if plain != word and plain in known}
    if same:
        named = [same.get(word, word) for word in named]
        distinct = set(named)
    if given is None:
        if len(distinct) < 2:
            raise ValueError(
                f"`{name}` has only one class, {next(iter(distinct), 'none')!r}; at least two are needed. "
                "If these rows are only to be tested on, pass all the class names in `labels`."
            )
        given = tuple(sorted(distinct, key=_sort_key(distinct)))
    if distinct <= set(given):
        index = {label: i for i, label in enumerate(given)}
        return np.fromiter((index[value] for value in named), np.int64, len(named)), given
    whole = all(isinstance(value, (int, float)) for value in array.tolist())
    if whole and not distinct & set(given):
        return _checks.label_indices(name, np.array(array.tolist(), dtype=np.float64), given), given
    return _checks.label_indices(name, np.array(named, dtype=object), given), given


def label_warnings(labels: Sequence[str]) -> list[str]:
    """Return a sentence for each pair of class names that may be one: but for case, spaces, leading zeros."""
    seen: dict[tuple[str, str], str] = {}
    sentences = []
    for label in labels:
        plain = normalise(label)
        keys = {"differ only in case or spaces": plain}
        if plain.isdecimal():
            keys["are one number"] = plain.lstrip("0")
        pairs = [(seen.setdefault((what, key), label), what) for what, key in keys.items()]
        found = next(((first, what) for first, what in pairs if first != label), None)
        if found is not None:
            sentences.append(f"The labels {found[0]!r} and {label!r} {found[1]}; are they one class?")
    return sentences


def is_missing(value: Any) -> bool:
    """Return whether a cell is empty: None, NaN, NaT or pandas.NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA will not say whether it differs from itself
        return True
    except ValueError:  # an array: not a scalar at all
        return False


def _given_labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str):
        raise TypeError(f"`labels` must be a list of class names; got the string {labels!r}.")
    given = tuple(str(label) for label in labels)
    if len(given) < 2 or len(set(given)) < len(given):
        raise ValueError(f"`labels` must be at least two different class names; got {list(given)!r}.")
    return given


def plain_number(word: str) -> str:
    """Return "1" for "1.0" and the like, and any other word as it is.

    Example:
        >>> plain_number("1.0"), plain_number("-3."), plain_number("1.5"), plain_number("01")
        ('1', '-3', '1.5', '01')
    """
    whole, point, rest = word.partition(".")
    return whole if point and not rest.strip("0") and whole.removeprefix("-").isdecimal() else word


def _class_name(name: str, row: int, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if is_missing(value):
        raise ValueError(f"`{name}` has no label in row {row}; drop the row or give it a label.")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(
                f"`{name}` must hold classes, not measurements; row {row} is {value!r}. "
                "Sort the values into named bins."
            )
        return str(int(value))
    return str(value)


def _sort_key(names: set[str]) -> Any:
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in names):
        return lambda name: (int(name), name)
    return str


def _as_rows(x: Any) -> np.ndarray:
    if isinstance(x, str):
        raise TypeError("`x` must be a list of texts, one a row; got one string.")
    array = _checks.row_array(x)
    if array.ndim == 1 and (array.dtype.kind in "OUT" or not len(array)):
        out = np.empty(len(array), dtype=object)
        for row, value in enumerate(array.tolist()):
            if not isinstance(value, str) or not value.strip():
                what = "is empty" if isinstance(value, str) else f"is {value!r} ({type(value).__name__})"
                raise ValueError(
                    f"`x` must hold a text in every row; row {row} {what}. Drop the row or fill it."
                )
            out[row] = value
        return out
    if array.ndim < 2 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"`x` must be (rows,) texts or (rows, columns) numbers; got shape {array.shape} "
            f"and dtype {array.dtype}."
        )
    if array.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if bad.size:
            raise ValueError(
                f"`x` must hold finite numbers; NaN or infinity in {counted(bad.size, 'row')}, the first is "
                f"row {bad[0]}. Drop such rows or fill them."
            )
    return array


def _sizes(n: int, asked: dict[str, int | float | None]) -> dict[str, int]:
    """Turn rows, fractions and None into whole numbers of rows."""
    sizes: dict[str, int] = {}
    for name, size in asked.items():
        if size is None:
            continue
        if isinstance(size, (float, np.floating)):
            sizes[name] = math.floor(_checks.number(name, size, at_least=0, at_most=1) * n + 0.5)
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
    flat = np.ascontiguousarray(x.reshape(len(x), -1).astype("<f8") + 0.0)
    return [row.tobytes() for row in flat]


def _codes(values: list[Any]) -> np.ndarray:
    """Number the distinct values from 0, in order of appearance."""
    seen: dict[Any, int] = {}
    return np.fromiter((seen.setdefault(value, len(seen)) for value in values), np.int64, len(values))


def _near_codes(x: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, list[str]]:
    if x.ndim != 1:
        raise ValueError("`near_duplicates` is for texts; the rows are numbers. Leave it out.")
    _, first = np.unique(same, return_index=True)
    clusters, crowded = near_duplicate_clusters([normalise(x[row]) for row in first.tolist()], NEAR)
    sentence = (
        f"{crowded:,} texts resemble hundreds of others each; some near-duplicates among these may have been "
        "parted."
    )
    return clusters[same], [sentence] if crowded else []


def _group_codes(groups: Any) -> np.ndarray:
    values = np.asarray(groups)
    if values.ndim != 1:
        raise ValueError(f"`groups` must have one value a row, shape (rows,); got {values.shape}.")
    listed = values.tolist()
    for row, value in enumerate(listed):
        if is_missing(value):
            raise ValueError(f"`groups` has no value in row {row}; give every row a group.")
    return _codes(listed)


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
    text = (
        " ".join(row.split())
        if isinstance(row, str)
        else np.array2string(np.asarray(row).ravel()[:4], precision=4)
    )
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


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
