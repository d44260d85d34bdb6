"""Which rows stay together as one unit, and which part of a split each unit is put into."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from finetune_eval import _checks, _columns, _pairs, _rows
from finetune_eval.data.leakage import NEAR, near_duplicate_clusters, row_keys
from finetune_eval.data.words import same_text


def checked_rows(x: Any, *, name: str = "x") -> np.ndarray:
    """Return (n,) texts or rows of columns, (n, 2) texts of pairs or (n, d) numbers, or raise as `split`."""
    if _columns.are_columns(x):
        _checks.not_empty(name, x)
        return _columns.Columns.of_rows(x).read(name, x, blank=False)
    _columns.refuse_table(name, x)
    if _pairs.are_pairs(x):
        return _pairs.pairs(name, x, blank=False)
    array = _rows.column(name, x)
    _checks.not_empty(name, array)
    if _rows.are_texts(array):
        return _rows.texts(name, array, blank=False)
    if array.ndim < 2:
        raise ValueError(
            f"`{name}` must be (rows,) texts or (rows, columns) numbers; got shape {array.shape} "
            f"and dtype {array.dtype}."
        )
    return _rows.numbers(name, array)


def units_of_rows(
    x: np.ndarray, groups: Any, *, near_duplicates: bool
) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """Number the rows that stay together, and the distinct rows.

    Returns:
        (n,) the number of each row's unit; (n,) the number of its distinct text or values; why rows stay
        together, in words; and warnings.
    """
    x = _pairs.one_text(x)
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


def keys_of_rows(x: np.ndarray, seed: int) -> np.ndarray:
    """Return (n, 2) pseudo-random numbers made from each row's content and the seed.

    Two, because a part is a range of the first, a slightly different range for each class: in the order of
    the same number a part would come almost sorted by class.
    """
    salt, x = f"{seed}:".encode(), _pairs.one_text(x)
    content = [text.encode("utf-8", "surrogatepass") for text in x.tolist()] if x.ndim == 1 else _row_bytes(x)
    digests = b"".join(hashlib.blake2b(salt + row, digest_size=16).digest() for row in content)
    return np.frombuffer(digests, dtype="<u8").reshape(-1, 2)


def assign(
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
