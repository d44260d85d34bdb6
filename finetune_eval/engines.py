"""Prediction and evaluation on the engines that hold the rows: Spark, Ray Data and Dask.

Prediction: every worker process loads a saved model once and adds the columns `p_<class>` and `predicted` to
the rows that it is given. Evaluation: each part of the rows becomes a megabyte of statistics where it is, and
only these travel. Integer fields are equal to the bit to those of `evaluate_files` on the same rows. The
workers need this package. Evaluation needs no TensorFlow there.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import finetune_eval
from finetune_eval import _checks, _files
from finetune_eval._text import listed
from finetune_eval.evaluation.large import Statistics
from finetune_eval.evaluation.thresholds import Threshold
from finetune_eval.runs import Run

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "dask_predictions",
    "dask_statistics",
    "ray_predictions",
    "ray_statistics",
    "spark_predictions",
    "spark_statistics",
]

_PREDICTED = "predicted"
_ROWS = 4096  # that Ray hands a worker at once: enough to batch texts of like length
_ONE_AT_A_TIME = threading.Lock()  # Dask's threads share a process, and with it one model


# ------------------------------------------------------------------------------------------
# Prediction
# ------------------------------------------------------------------------------------------


def spark_predictions(frame: Any, model: str | Path, *, text: str = "text") -> Any:
    """Predict the rows of a Spark DataFrame with a fine-tuned model, each partition where it is.

    Spark computes when the result is asked for, and again each time: write it, or `.cache()` it.

    Args:
        frame: A `pyspark.sql.DataFrame` with a column of texts; all its columns are kept.
        model: Where the model was saved, as for `load_model`: a path at which every worker finds the same
            files. This process loads it, too, to learn its classes.
        text: The column of texts.

    Returns:
        A `pyspark.sql.DataFrame` with a column `p_<class>` (float32) for each class, as `model.predict` gives
        them, and `predicted`, the class that `model.decide` names: null where the model withholds it.

    Raises:
        TypeError: It is no Spark DataFrame.
        ValueError: A column is missing or would be overwritten, two columns differ only in case, or the model
            takes no texts or gives several labels a row.
        FileNotFoundError: There is no model.
    """
    _of_kind("frame", frame, "mapInArrow", "pyspark.sql.DataFrame")
    saved = _Saved.of(model, text, frame.columns, "frame")
    if str(frame.sparkSession.conf.get("spark.sql.caseSensitive")).lower() != "true":
        _check_case([*frame.columns, *(f"p_{label}" for label in saved.labels), _PREDICTED])

    def partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            yield from saved.predict(pa.Table.from_batches([batch])).to_batches()

    types = importlib.import_module("pyspark.sql.types")
    added = [types.StructField(f"p_{label}", types.FloatType()) for label in saved.labels]
    added.append(types.StructField(_PREDICTED, types.StringType()))
    return frame.mapInArrow(partition, types.StructType([*frame.schema.fields, *added]))


def _check_case(columns: Sequence[str]) -> None:
    """Raise where two columns of a result are one to Spark, which could then name neither."""
    seen: dict[str, str] = {}
    for name in columns:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(
                f"The columns {other!r} and {name!r} of the predictions differ only in case, so that Spark "
                "can name neither; rename the column or the class, or set spark.sql.caseSensitive to true."
            )


def ray_predictions(
    dataset: Any, model: str | Path, *, text: str = "text", workers: int = 1, num_gpus: float = 0
) -> Any:
    """Predict the rows of a Ray Data dataset with a fine-tuned model, by a pool of actors.

    Args:
        dataset: A `ray.data.Dataset` with a column of texts; all its columns are kept.
        model: As for `spark_predictions`.
        text: The column of texts.
        workers: How many actors predict at most; each holds the model. Reading the rows needs a CPU besides.
        num_gpus: Of each actor, as Ray counts them.

    Returns:
        A `ray.data.Dataset` with the columns that `spark_predictions` adds. Ray computes when the rows are
        asked for.

    Raises:
        TypeError: It is no Ray dataset.
        ValueError: As for `spark_predictions`.
        FileNotFoundError: There is no model.
    """
    _of_kind("dataset", dataset, "map_batches", "ray.data.Dataset")
    most = _checks.positive_int("workers", workers)
    # Not as many from the start: actors that hold every CPU leave none to read the rows, and wait forever.
    pool = importlib.import_module("ray.data").ActorPoolStrategy(min_size=1, max_size=most)
    gpus = _checks.number("num_gpus", num_gpus, at_least=0)
    return dataset.map_batches(
        _Predictor,
        fn_constructor_args=(_Saved.of(model, text, dataset.columns(), "dataset"),),
        batch_format="pyarrow",
        batch_size=_ROWS,
        compute=pool,
        num_gpus=gpus,
    )


def dask_predictions(frame: Any, model: str | Path, *, text: str = "text") -> Any:
    """Predict the rows of a Dask DataFrame with a fine-tuned model, each partition where it is.

    Args:
        frame: A `dask.dataframe.DataFrame` with a column of texts; all its columns are kept.
        model: As for `spark_predictions`.
        text: The column of texts.

    Returns:
        A `dask.dataframe.DataFrame` with the columns that `spark_predictions` adds. Dask computes when the
        rows are asked for.

    Raises:
        TypeError: It is no Dask DataFrame.
        ValueError: As for `spark_predictions`.
        FileNotFoundError: There is no model.
    """
    _of_kind("frame", frame, "map_partitions", "dask.dataframe.DataFrame")
    saved = _Saved.of(model, text, list(frame.columns), "frame")
    return frame.map_partitions(saved.predict_frame, meta=saved.add_to(frame._meta, *saved.of_no_rows()))


@dataclass(frozen=True)
class _Saved:
    """A saved model: what travels to the workers is where it is, and not its weights.

    Attributes:
        path: Where it was saved.
        sha256: Of its files, so that no worker predicts with others that stand at the same path.
        text: The column of texts.
        labels: The K class names.
    """

    path: str
    sha256: str
    text: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, path: Any, text: str, columns: Sequence[str], argument: str) -> _Saved:
        """Check that a model can predict the rows of a frame, before any worker starts."""
        _checks.path("model", path)
        model = finetune_eval.load_model(path)
        if not model.takes_text or model.multilabel or model.columns is not None:
            what = "gives several labels a row" if model.multilabel else "takes numbers, not texts"
            if model.columns is not None:
                what = "reads columns beside the text"
            raise ValueError(
                f"`model` {str(path)!r} {what}; engines predict one class of a text. Call `model.predict` on "
                "parts of the rows."
            )
        if text not in columns:
            raise ValueError(f"`{argument}` has no column {text!r} of texts; it has {listed(columns)}.")
        added = [*(f"p_{label}" for label in model.labels), _PREDICTED]
        if taken := next((name for name in added if name in columns), None):
            raise ValueError(
                f"`{argument}` has a column {taken!r} already, which the predictions would overwrite; rename "
                "it or leave it out."
            )
        place = os.path.abspath(path)
        return cls(place, _sha256(place), text, tuple(model.labels))

    def predict(self, rows: pa.Table) -> pa.Table:
        """Return a table with the columns of its predictions added."""
        import pyarrow as pa

        p, predicted = self._answers(rows.column(self.text).to_pylist()) if len(rows) else self.of_no_rows()
        for k, label in enumerate(self.labels):
            rows = rows.append_column(pa.field(f"p_{label}", pa.float32()), [pa.array(p[:, k], pa.float32())])
        return rows.append_column(pa.field(_PREDICTED, pa.string()), [pa.array(predicted, pa.string())])

    def predict_frame(self, rows: Any) -> Any:
        """Return a pandas DataFrame with the columns of its predictions added."""
        return self.add_to(rows, *(self._answers(rows[self.text]) if len(rows) else self.of_no_rows()))

    def _answers(self, texts: Any) -> tuple[Any, list[str | None]]:
        with _ONE_AT_A_TIME:
            model = _loaded(self.path, self.sha256)
            p = model.predict(texts, verbose=0)
        return p, [None if k < 0 else self.labels[k] for k in model.decide(p).tolist()]

    def of_no_rows(self) -> tuple[Any, list[str | None]]:
        return np.empty((0, len(self.labels)), np.float32), []

    def add_to(self, rows: Any, p: Any, predicted: list[str | None]) -> Any:
        import pandas as pd

        columns = {f"p_{label}": p[:, k] for k, label in enumerate(self.labels)}
        return rows.assign(**columns, **{_PREDICTED: pd.array(predicted, dtype="string")})


class _Predictor:
    """An actor of Ray: it holds the model that it was made with."""

    def __init__(self, saved: _Saved) -> None:
        self._saved = saved

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self._saved.predict(rows)


@functools.lru_cache(maxsize=1)
def _loaded(path: str, sha256: str) -> Any:
    """Load a model once in a process.

    Raises:
        ValueError: Its files are not those that the process that asked for the predictions has.
    """
    if _sha256(path) != sha256:
        raise ValueError(
            f"{path!r} holds another model for this worker than where the prediction was asked for: it was "
            "changed meanwhile, or the machines have different files at that path."
        )
    return finetune_eval.load_model(path)


def _sha256(path: str) -> str:
    """Hash the files of a model that was saved in any of the ways that `load_model` knows."""
    place = Path(path)
    files = [file for file in (place, Run(place).model, place / "model.keras") if file.is_file()][:1]
    files = files or sorted(file for file in place.rglob("*") if file.is_file())
    sums = [f"{file.relative_to(place)} {_files.sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


# ------------------------------------------------------------------------------------------
# Evaluation
# ------------------------------------------------------------------------------------------


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
    total, count = _counting(labels, threshold, metadata)

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
        labels: As for `spark_statistics`.
        threshold: As for `spark_statistics`.
        metadata: As for `spark_statistics`.

    Returns:
        The statistics of all rows; `.finish()` makes the evaluation.

    Raises:
        TypeError: It is no Ray dataset.
    """
    _of_kind("dataset", dataset, "map_batches", "ray.data.Dataset")
    total, count = _counting(labels, threshold, metadata)

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
        labels: As for `spark_statistics`.
        threshold: As for `spark_statistics`.
        metadata: As for `spark_statistics`.

    Returns:
        The statistics of all rows; `.finish()` makes the evaluation.

    Raises:
        TypeError: It is no Dask DataFrame.
    """
    _of_kind("frame", frame, "to_delayed", "dask.dataframe.DataFrame")
    dask = importlib.import_module("dask")
    total, count = _counting(labels, threshold, metadata)
    delayed = [dask.delayed(lambda part: count([part]))(part) for part in frame.to_delayed()]
    for data in dask.compute(*delayed):
        total.add_bytes(data)
    return total


def _counting(
    labels: Sequence[str], threshold: float | Threshold | None, metadata: Sequence[str]
) -> tuple[Statistics, Callable[[Iterable[Any]], bytes]]:
    """Return statistics of no rows, and the function that counts the tables of a part in a worker process."""
    total = Statistics(labels, threshold=threshold, metadata=metadata)
    empty = total.empty()

    def count(tables: Iterable[Any]) -> bytes:
        made = empty.empty()
        for table in tables:
            made.count(table)
        return made.to_bytes()

    return total, count


def _of_kind(name: str, value: Any, method: str, kind: str) -> None:
    if not hasattr(value, method):
        raise TypeError(f"`{name}` must be a {kind}; got {type(value).__name__}.")
