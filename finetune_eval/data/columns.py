"""Rows of a text with numbers and categories beside it, for what takes rows without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from finetune_eval._columns import Columns


def rows_of_columns(x: Any, columns: Mapping[str, str]) -> NDArray[Any]:
    """Put a text and the numbers and categories beside it into one array, a row each.

    `split`, `cross_evaluate`, `learning_curve` and `find_leaks` take such rows where they take texts. A model
    that was built with `columns` reads them too, though it reads dictionaries and DataFrames itself.

    Args:
        x: A dictionary of columns, a DataFrame, or a list of dictionaries (one a row), with the columns that
            are declared and no others.
        columns: As for `build_model`.

    Returns:
        A structured array of shape (n,): the text first, then the other columns by name. Numbers are float64,
        NaN where missing; categories are texts, None where missing.

    Raises:
        TypeError, ValueError: A column is missing or too many, or has a value that cannot be used; the
            sentence names the row.

    Example:
        >>> x = {"price": [9, None], "text": ["Fine.", "Dull."]}
        >>> rows_of_columns(x, {"price": "number"}).tolist()
        [('Fine.', 9.0), ('Dull.', nan)]
    """
    return Columns.declared(columns).read("x", x)


__all__ = ["rows_of_columns"]
