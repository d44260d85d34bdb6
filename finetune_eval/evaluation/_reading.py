"""Tables of rows with labels and probabilities: which column is what, and how it is read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_eval import _labels, _rows
from finetune_eval._text import counted, in_words, listed, quoted
from finetune_eval.data.readers import as_numbers
from finetune_eval.evaluation._counts import MISSING
from finetune_eval.evaluation._inputs import read_part

if TYPE_CHECKING:
    import pyarrow as pa

# What the columns of a file may be called, as in `load_predictions`.
TRUTH = ("label", "y_true", "target")
SECOND = ("probability", "score", "p")
ANSWER = ("prediction", "predicted", "predicted_label", "pred_label", "y_pred", "pred")
REFUSED = {
    "weight": "Rows with weights cannot be counted: their intervals need every row.",
    "group": "Rows in groups cannot be counted: their intervals need the sums of each group.",
}
_REPORTED_ROW = re.compile(r" in row \d+")  # of the list of different labels, which nobody sees
_OTHER_TASK = "Pass task='multilabel' for labels that do not exclude each other; divide"
MOST_CLASSES = 2_000  # whose statistics take about 120 MB
AT_ONCE = 32_768  # rows; their arrays stay in a processor's cache


def classes_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return class names, checked, of which counts can be kept."""
    names = _labels.class_names(labels)
    if len(names) > MOST_CLASSES:
        raise ValueError(
            f"`labels` may name {MOST_CLASSES:,} classes at most where rows are counted, because every "
            f"pair of classes has a count; got {len(names):,}."
        )
    return names


def readings_of(
    before: dict[str, int], seen: dict[str, int], labels: tuple[str, ...], source: str
) -> dict[str, int]:
    """Return all labels that were seen, each of which must be the same class as before.

    A number may be a name or a place, and which it is depends on the other labels.

    Args:
        before: Each different label of the rows so far, as JSON, and its class.
        seen: The same of further rows.
        labels: The K class names.
        source: What the further rows are of.
    """
    if seen.items() <= before.items():
        return before
    together = {**before, **seen}
    values = [json.loads(value) for value in together]
    start = f" (from {source!r} on)" if source else ""
    try:
        places = dict(zip(together, _labels.read("label", values, labels).tolist(), strict=True))
    except (TypeError, ValueError) as error:
        sentence = _REPORTED_ROW.sub("", str(error))
        raise ValueError(f"The labels of the parts do not fit together{start}: {sentence}") from None
    changed = [
        value for reading in (before, seen) for value, place in reading.items() if places[value] != place
    ]
    if changed:
        meant = quoted(labels[places[changed[0]]])
        raise ValueError(
            f"The label {changed[0]} means {meant} beside the labels of the other parts, and another "
            f"class by itself{start}: write class names, as texts, in all parts."
        )
    return together


def column_names(metadata: Sequence[str]) -> tuple[str, ...]:
    if isinstance(metadata, str) or not isinstance(metadata, (list, tuple)):
        raise TypeError(f"`metadata` must be a list of names of columns; got {metadata!r}.")
    for name in metadata:
        if not isinstance(name, str):
            raise TypeError(f"`metadata` must be names of columns; got {name!r}.")
    if len(set(metadata)) < len(metadata):
        raise ValueError(f"`metadata` names a column twice: {listed(metadata)}.")
    return tuple(metadata)


def as_arrow(table: Any) -> pa.Table:
    """Return a table of any kind as pyarrow's."""
    import pyarrow as pa

    if isinstance(table, pa.RecordBatch):
        return pa.Table.from_batches([table])
    if isinstance(table, pa.Table):
        return table
    if isinstance(table, dict) or (hasattr(table, "columns") and hasattr(table, "iloc")):
        names = list(table) if isinstance(table, dict) else list(table.columns)
        if len(set(map(str, names))) < len(names):
            raise ValueError(f"`table` has two columns of one name; it has {listed(names)}.")
        columns = {str(name): _arrow_column(str(name), table[name]) for name in names}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"`table` must have as many rows in each column; got {lengths}.")
        return pa.table(columns)
    raise TypeError(
        "`table` must be a pyarrow Table or RecordBatch, a DataFrame or a dictionary of columns; got "
        f"{type(table).__name__}."
    )


def _arrow_column(name: str, values: Any) -> Any:
    """Return a column of any kind as pyarrow's."""
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    array = _rows.one_a_row(name, values)
    try:
        return pa.array(array, from_pandas=True)
    except Exception as error:  # of pyarrow, NumPy or the value itself, whatever it is
        kinds = sorted({type(value).__name__ for value in array.tolist()})
        raise TypeError(
            f"`{name}` must hold values of one kind; it has {listed(kinds, quote=False)} ({error})."
        ) from None


class Reader:
    """Which column of a table is what, and how a slice of it becomes labels and probabilities.

    Attributes:
        truth: The column with the true class.
        probabilities: The column of each class, or one of the second of two.
    """

    def __init__(
        self, names: Sequence[str], labels: tuple[str, ...], metadata: Sequence[str], source: str
    ) -> None:
        self.labels, self.metadata = labels, tuple(metadata)
        self.truth, self.probabilities = columns_of(names, labels, metadata, source)
        self.id = "id" if "id" in names else None

    def rows(
        self, part: pa.Table
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64], dict[str, int]]:
        """Return (n,) classes, (n, K) probabilities, the sums that were mended, and the labels that occur."""
        y, seen = self._classes(part.column(self.truth))
        columns = [self._numbers(part, name) for name in self.probabilities]
        p, mended = read_part(columns[0] if len(columns) == 1 else np.column_stack(columns))
        return y, p, mended, seen

    def _classes(self, column: Any) -> tuple[NDArray[np.int64], dict[str, int]]:
        import pyarrow as pa

        one = column.combine_chunks()
        if isinstance(one, pa.ChunkedArray):  # of dictionaries that differ
            one = pa.concat_arrays([chunk.dictionary_decode() for chunk in one.chunks])
        if isinstance(one, pa.DictionaryArray):
            one = one.dictionary_decode()
        if one.null_count:
            row = int(one.is_null().to_numpy(zero_copy_only=False).argmax())
            raise ValueError(f"`{self.truth}` has no label in row {row}; drop the row or give it a label.")
        coded = one.dictionary_encode()
        values = coded.dictionary.to_pylist()
        places = _labels.read(self.truth, values, self.labels)
        words = [value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in values]
        seen = {json.dumps(word, default=str): k for word, k in zip(words, places.tolist(), strict=True)}
        return places[_array(coded.indices)], seen

    def _numbers(self, part: pa.Table, name: str) -> NDArray[Any]:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = part.column(name)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            try:
                column = pc.cast(column, pa.float64())
            except pa.ArrowInvalid:  # other spellings, or no number at all
                return np.asarray(as_numbers(part.select([name]).to_pandas(), [name])[name])
        if pa.types.is_decimal(column.type):
            column = pc.cast(column, pa.float64())
        return _array(column)

    def values(self, part: pa.Table) -> dict[str, tuple[NDArray[np.int64], list[str]]]:
        """Return the place of each row's value, and the values, of the columns of metadata."""
        import pyarrow as pa

        out = {}
        for name in self.metadata:
            one = part.column(name).combine_chunks()
            if isinstance(one, pa.ChunkedArray):
                one = pa.concat_arrays([chunk.dictionary_decode() for chunk in one.chunks])
            if isinstance(one, pa.DictionaryArray):
                one = one.dictionary_decode()
            coded = one.dictionary_encode(null_encoding="encode")
            words = [MISSING if _is_nothing(value) else str(value) for value in coded.dictionary.to_pylist()]
            index = {word: place for place, word in enumerate(dict.fromkeys(words))}
            places = np.array([index[word] for word in words], dtype=np.int64)
            out[name] = (places[_array(coded.indices)], list(index))
        return out

    def ids(self, part: pa.Table) -> Callable[[NDArray[np.int64]], list[str]] | None:
        """Return the function from rows to their ids, or None where they have none."""
        if self.id is None:
            return None
        column = part.column(self.id)
        return lambda rows: ["" if value is None else str(value) for value in column.take(rows).to_pylist()]


def _array(column: Any) -> NDArray[Any]:
    """Return a column as an array, without loading pandas where it is one of numbers: that takes 50 MB."""
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if column.null_count == 0 and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.from_dlpack(column)
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _is_nothing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def columns_of(
    names: Sequence[str], labels: tuple[str, ...], metadata: Sequence[str], source: str = ""
) -> tuple[str, tuple[str, ...]]:
    """Return the column of the truth and those of the probabilities, or say what a table lacks.

    Args:
        names: The columns of the table.
        labels: The K class names.
        metadata: Further columns that are needed.
        source: The name of the file, for errors.
    """
    where = repr(source) if source else "The table"
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{where} has two columns named {twice!r}; rename one.")
    for name, why in REFUSED.items():
        if name in names:
            raise ValueError(
                f"{where} has a column {name!r}. {why} Use `load_predictions` on rows that memory holds, or "
                f"leave the column out where it is no {name}."
            )
    truths = [name for name in TRUTH if name in names]
    if other := next((name for name in truths[1:] if name not in metadata), None):
        raise ValueError(
            f"{where} has {truths[0]!r} and {other!r}, and each may be the truth; rename or leave out "
            "what is not."
        )
    truth = next(iter(truths), None)
    if truth is None:
        raise ValueError(
            f"{where} needs a column 'label' (or 'y_true', 'target') with the truth; it has {listed(names)}."
        )
    absent = [name for name in metadata if name not in names]
    if absent:
        raise ValueError(
            f"{where} has no column {absent[0]!r}, which `metadata` names; it has {listed(names)}."
        )
    each = [f"p_{label}" for label in labels]
    missing = [name for name in each if name not in names]
    if not missing:
        return truth, tuple(each)
    one = next((name for name in SECOND if name in names), None)
    answer = next((name for name in ANSWER if name in names), None)
    if one is not None and len(labels) == 2 and len(missing) == 2:
        if answer is None:
            return truth, (one,)
        raise ValueError(
            f"{where}: {one!r} may be the probability of {quoted(labels[1])} or of the class in {answer!r}; "
            "give a column p_<class> for each class, or leave the answers out."
        )
    if not any(name.startswith("p_") for name in names) and one is None:
        raise ValueError(
            f"{where} needs a column p_<class> for each class, or a column 'probability' of the second of "
            f"two; it has {listed(names)}. Answers without probabilities are scored by `load_predictions`."
        )
    raise ValueError(
        f"{where} has no {in_words([repr(name) for name in missing[:5]])} for the labels "
        f"{listed(labels)}; its columns are {listed(names)}."
    )


def located(error: Exception, reader: Reader, part: pa.Table, source: str, start: int) -> Exception:
    """Return the error with the file and the row of the first row that is wrong."""
    low, high = 0, part.num_rows  # the first `low` rows are right, and the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            reader.rows(part.slice(0, middle))
            low = middle
        except (TypeError, ValueError):
            high = middle
    where = f"{source!r}: " if source else ""
    try:
        reader.rows(part.slice(low, 1))
    except (TypeError, ValueError) as alone:
        at = "" if " row 0" in str(alone) else f"row {start + low}: "
        sentence = str(alone).replace(" row 0", f" row {start + low}").replace(_OTHER_TASK, "Divide")
        return type(error)(f"{where}{at}{sentence}")
    among = (
        f"among {counted(high, 'row')} from row {start} on, of which row {start + low} is the first wrong: "
    )
    return type(error)(f"{where}{among}{error}")
