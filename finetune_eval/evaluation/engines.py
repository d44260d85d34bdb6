"""Evaluation on the engines that hold the rows: Spark, Ray Data and Dask count where the rows are.

Each part of the rows becomes a megabyte of statistics there, and only these travel. Integer fields are equal
to the bit to those of `evaluate_files` on the same rows. The workers need this package, and no TensorFlow.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from finetune_eval.evaluation.large import Statistics
from finetune_eval.evaluation.thresholds import Threshold

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["dask_statistics", "ray_statistics", "spark_statistics"]


def spark_statistics(
    frame: Any,
    labels: Sequence[str],
    *,
    threshold: float | Threshold | None = None,
    metadata: Sequence[str] = (),
) -> Statistics:
    """Count the rows of a Spark DataFrame, each partition where it is (`mapInArrow`).

    Args:
        frame: A `pyspark.sql.DataFrame` with the columns that `Statistics.of` reads.
        labels: The K class names, in the order of their places.
        threshold: As for `evaluate_predictions`.
        metadata: Names of columns in whose values weak parts of the rows are looked for.

    Returns:
        The statistics of all rows; `.finish()` makes the evaluation.

    Raises:
        TypeError: It is no Spark DataFrame.
    """
    _of_kind("frame", frame, "mapInArrow", "pyspark.sql.DataFrame")
    total = Statistics(labels, threshold=threshold, metadata=metadata)
    count = _counter(total)

    def partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        yield pa.RecordBatch.from_pydict({"statistics": pa.array([count(batches)], pa.binary())})

    for row in frame.mapInArrow(partition, "statistics binary").toLocalIterator():
        total.add_bytes(bytes(row["statistics"]))
    return total


def ray_statistics(
    dataset: Any,
    labels: Sequence[str],
    *,
    threshold: float | Threshold | None = None,
    metadata: Sequence[str] = (),
) -> Statistics:
    """Count the rows of a Ray Data dataset, each block where it is (`map_batches`).

    Args:
        dataset: A `ray.data.Dataset` with the columns that `Statistics.of` reads.
        labels: The K class names, in the order of their places.
        threshold: As for `evaluate_predictions`.
        metadata: Names of columns in whose values weak parts of the rows are looked for.

    Returns:
        The statistics of all rows; `.finish()` makes the evaluation.

    Raises:
        TypeError: It is no Ray dataset.
    """
    _of_kind("dataset", dataset, "map_batches", "ray.data.Dataset")
    total = Statistics(labels, threshold=threshold, metadata=metadata)
    count = _counter(total)

    def block(table: pa.Table) -> pa.Table:
        import pyarrow as pa

        return pa.table({"statistics": pa.array([count([table])], pa.binary())})

    parts = dataset.map_batches(block, batch_format="pyarrow", batch_size=None)
    for row in parts.iter_rows():
        total.add_bytes(row["statistics"])
    return total


def dask_statistics(
    frame: Any,
    labels: Sequence[str],
    *,
    threshold: float | Threshold | None = None,
    metadata: Sequence[str] = (),
) -> Statistics:
    """Count the rows of a Dask DataFrame, each partition where it is (`to_delayed`).

    Args:
        frame: A `dask.dataframe.DataFrame` with the columns that `Statistics.of` reads.
        labels: The K class names, in the order of their places.
        threshold: As for `evaluate_predictions`.
        metadata: Names of columns in whose values weak parts of the rows are looked for.

    Returns:
        The statistics of all rows; `.finish()` makes the evaluation.

    Raises:
        TypeError: It is no Dask DataFrame.
    """
    _of_kind("frame", frame, "to_delayed", "dask.dataframe.DataFrame")
    dask = importlib.import_module("dask")
    total = Statistics(labels, threshold=threshold, metadata=metadata)
    count = _counter(total)
    delayed = [dask.delayed(lambda part: count([part]))(part) for part in frame.to_delayed()]
    for data in dask.compute(*delayed):
        total.add_bytes(data)
    return total


def _counter(total: Statistics) -> Callable[[Iterable[Any]], bytes]:
    """Return the function that counts the tables of a part, for a worker process."""
    empty = total.empty()

    def count(tables: Iterable[Any]) -> bytes:
        made = empty.empty()
        for table in tables:
            made.count(table)
        return made.to_bytes()

    return count


def _of_kind(name: str, value: Any, method: str, kind: str) -> None:
    if not hasattr(value, method):
        raise TypeError(f"`{name}` must be a {kind}; got {type(value).__name__}.")
