"""predict and trace: a trained model's answers."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from finetune_eval import _pairs, _rows
from finetune_eval.commands import options
from finetune_eval.commands.loading import load_model
from finetune_eval.evaluation.abstention import WITHHELD
from finetune_eval.reports import console
from finetune_eval.runs import Run


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder or a .keras file.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="The texts to label, a pair as 'one text ||| the other', columns as a JSON object; - reads "
            "one a line from standard input."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A .csv, .jsonl or .parquet file of texts.")
    ] = None,
    text: options.Text = None,
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    quoted: options.Quoted = True,
    as_json: options.Json = False,
) -> None:
    """Print the label and its probability for each text.

    Where the model withholds unsure answers, the label is "(none of these)", or null as JSON.

    Example: finetune-eval predict runs/demo "A warm, funny film." "Two hours I want back."
    """
    words: list[str] = []
    for given in texts or []:
        words += options.in_lines(sys.stdin) if given == "-" else [given]
    if not words and file is None:
        raise typer.BadParameter("give at least one text, or --file.", param_hint="TEXTS")
    empty = next((place for place, row in enumerate(words, start=1) if not row.strip()), None)
    if empty is not None:
        raise ValueError(f"text {empty} of {len(words):,} is empty; leave it out.")
    reading: dict[str, Any] = {"delimiter": delimiter, "encoding": encoding, "quoted": quoted}
    model = load_model(run)
    parts = [options.rows_of_words(model, words)] if words else []
    parts += [] if file is None else [options.rows_of_model(model, file, text, **reading)]
    given_rows = np.concatenate([_rows.column("texts", part) for part in parts])
    rows, probabilities = _pairs.one_text(given_rows).tolist(), model.predict(given_rows, verbose=0)
    if not np.isfinite(probabilities).all():
        raise ValueError(
            f"{str(run)!r} gives NaN instead of probabilities: its weights are damaged, or diverged."
        )
    for row, p, index in zip(rows, probabilities, model.decide(probabilities), strict=True):
        if model.multilabel:
            _show_labels(row, p, model.labels, np.flatnonzero(index), as_json)
            continue
        label = None if index < 0 else model.labels[index]
        if as_json:
            scores = dict(zip(model.labels, map(float, p), strict=True))
            console.show_json({"text": row, "label": label, "probabilities": scores})
        else:
            word = WITHHELD if label is None else " ".join(label.split())
            console.show(f"{word}\t{p.max() if label is None else p[index]:.3f}\t{' '.join(row.split())}")


def _show_labels(row: str, p: Any, labels: Sequence[str], given: Any, as_json: bool) -> None:
    """Print the labels of a row that may have several, each with its probability."""
    if as_json:
        scores = dict(zip(labels, map(float, p), strict=True))
        console.show_json({"text": row, "labels": [labels[k] for k in given], "probabilities": scores})
        return
    found = ", ".join(f"{' '.join(labels[k].split())} {p[k]:.3f}" for k in given) or "no label"
    console.show(f"{found}\t{' '.join(row.split())}")


def trace(
    run: Annotated[Path, typer.Argument(help="A run folder or a .keras file.")],
    text: Annotated[
        str, typer.Argument(help="The text to follow, a pair as 'one ||| the other', columns as JSON.")
    ],
    as_json: options.Json = False,
) -> None:
    """Show how one text becomes tokens, layers and an answer.

    Example: finetune-eval trace runs/demo "A warm, funny film."
    """
    if not text.strip():
        raise ValueError("'text' is empty; there is nothing to trace.")
    model = load_model(run)
    from finetune_eval.models.tracing import trace_prediction

    manifest = Run(run).manifest
    moved = Run(run).read_manifest().get("moved") if manifest.is_file() else None
    row = options.rows_of_words(model, [text])[0]
    found = trace_prediction(model, row, moved=moved)
    if as_json:
        console.show_json(dataclasses.asdict(found))
    else:
        console.show(str(found))
