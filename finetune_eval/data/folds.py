"""Parts of rows for cross-validation and learning curves: stratified, and never parting a group of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune_eval import _pairs
from finetune_eval._text import counted
from finetune_eval.data import assignment


def units_of_rows(
    x: np.ndarray, *, groups: Any = None, near_duplicates: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Number the rows so that those that stay together have one number, as in `split`.

    Args:
        x: (n,) texts or (n, d) numbers, checked.
        groups: (n,) values, or None.
        near_duplicates: Whether nearly the same texts stay together, as the same texts do.

    Returns:
        (n,) numbers, and sentences to know.
    """
    units, _, _, sentences = assignment.units_of_rows(
        x, groups, near_duplicates=near_duplicates and _pairs.one_text(x).ndim == 1
    )
    return units, sentences


def parts_of_rows(
    x: np.ndarray,
    y: np.ndarray,
    sizes: Sequence[int],
    *,
    units: np.ndarray,
    classes: int,
    seed: int = 0,
) -> np.ndarray:
    """Deal rows out to parts, each with the class shares of the whole.

    Args:
        x: (n,) texts or (n, d) numbers, checked.
        y: (n,) class indices.
        sizes: Rows of each part; they make n together. Units of several rows may change them.
        units: (n,) number of what stays together.
        classes: How many classes there are.
        seed: Another seed, other parts.

    Returns:
        (n,) the part of each row, from 0.
    """
    keys = assignment.keys_of_rows(x, seed)[:, 0]
    # `assign` gets no part that takes the rest: the emptiest part takes a unit that fits nowhere.
    return assignment.assign(y, units, keys, list(sizes), classes, len(sizes))


def fold_of_rows(
    x: np.ndarray,
    y: np.ndarray,
    folds: int,
    *,
    units: np.ndarray,
    classes: int,
    seed: int = 0,
) -> np.ndarray:
    """Return the fold of each row, from 0; see `parts_of_rows`.

    Raises:
        ValueError: There are fewer rows, or fewer units of rows, than folds.
    """
    n = len(x)
    if n < folds:
        raise ValueError(f"`folds` must be at most the {counted(n, 'row')}; got {folds}.")
    sizes = [n // folds + (fold < n % folds) for fold in range(folds)]
    part = parts_of_rows(x, y, sizes, units=units, classes=classes, seed=seed)
    many = len(np.unique(units))
    if many < folds or len(np.unique(part)) < folds:
        text = _pairs.one_text(x).ndim == 1
        raise ValueError(
            f"`folds` is {folds}, but the {counted(n, 'row')} fall into {many:,} that can be parted (rows of "
            f"one group, or with {'nearly ' if text else ''}the same {'text' if text else 'values'}, stay "
            "together), and a fold would be empty. Ask for fewer folds"
            + (", or pass near_duplicates=False." if text else ".")
        )
    return part
