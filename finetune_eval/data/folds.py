"""Parts of rows for cross-validation and learning curves: stratified, what belongs together in one part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune_eval._text import counted
from finetune_eval.data.splits import _as_rows, _assign, _keys, _units

__all__ = ["checked_rows", "fold_of_rows", "parts_of_rows"]


def checked_rows(x: Any) -> np.ndarray:
    """Return (n,) texts or (n, d) numbers, or raise as `split` does."""
    return _as_rows(x)


def parts_of_rows(
    x: np.ndarray,
    y: np.ndarray,
    sizes: Sequence[int],
    *,
    classes: int,
    groups: Any = None,
    near_duplicates: bool = False,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Deal rows out to parts, each with the class shares of the whole.

    Rows of the same text (or values), of nearly the same text or of the same group are in one part, as in
    `split`; the sizes may then differ from those asked for.

    Args:
        x: (n,) texts or (n, d) numbers, checked.
        y: (n,) class indices.
        sizes: Rows of each part; they make n together.
        classes: How many classes there are.
        groups: (n,) values, or None.
        near_duplicates: Whether nearly the same texts stay together.
        seed: Another seed, other parts.

    Returns:
        (n,) the part of each row; (n,) the number of what stays together with it; sentences to know.
    """
    units, _, _, sentences = _units(x, groups, near_duplicates=near_duplicates and x.ndim == 1)
    keys = _keys(x, seed)[:, 0]
    # `_assign` gets no part that takes the rest: the emptiest part takes a unit that fits nowhere.
    return _assign(y, units, keys, list(sizes), classes, len(sizes)), units, sentences


def fold_of_rows(
    x: np.ndarray,
    y: np.ndarray,
    folds: int,
    *,
    classes: int,
    groups: Any = None,
    near_duplicates: bool = False,
    seed: int = 0,
) -> tuple[np.ndarray, list[str]]:
    """Return the fold of each row, from 0, and sentences to know; see `parts_of_rows`.

    Raises:
        ValueError: There are fewer rows, or fewer of what can be parted, than folds.
    """
    n = len(x)
    if n < folds:
        raise ValueError(f"`folds` must be at most the {counted(n, 'row')}; got {folds}.")
    sizes = [n // folds + (fold < n % folds) for fold in range(folds)]
    part, units, sentences = parts_of_rows(
        x, y, sizes, classes=classes, groups=groups, near_duplicates=near_duplicates, seed=seed
    )
    many = len(np.unique(units))
    if many < folds or len(np.unique(part)) < folds:
        near = " or pass near_duplicates=False" if near_duplicates and x.ndim == 1 else ""
        raise ValueError(
            f"`folds` is {folds}, but the {counted(n, 'row')} fall into {many:,} that can be parted (rows of "
            "one group, or with the same text, stay together), and a fold would be empty. Ask for fewer "
            f"folds{near}."
        )
    return part, sentences
