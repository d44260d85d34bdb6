"""What commands load: a model, an evaluation."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from finetune_eval.runs import Run

if TYPE_CHECKING:
    from finetune_eval.evaluation.evaluate import Evaluation


def load_model(path: Path) -> Any:
    """Load the model of a run folder or of a .keras file."""
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist; pass a run folder or a .keras file.")
    if path.is_file() and path.suffix != ".keras":
        raise ValueError(f"{str(path)!r} is no model; pass a run folder or a .keras file.")
    with quiet_tensorflow():
        from finetune_eval.models import build
    return build.load_model(path)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Keep TensorFlow's start-up notes, which it writes before it can be told not to, off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w", encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)


def load_evaluation(path: Path, order: Sequence[str] = (), **options: Any) -> Evaluation:
    """Load the evaluation of a run folder, or score a file of predictions, its classes in this order."""
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.evaluation.saved import load_predictions

    options = {name: value for name, value in options.items() if value is not None}
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist; pass a run folder or a file of predictions.")
    if path.is_dir():
        defaults = {"encoding": "utf-8", "quoted": True}
        asked = next((name for name, value in options.items() if value != defaults.get(name)), None)
        if asked is not None:
            raise typer.BadParameter(
                f"is for files; to score this run anew pass {str(path / 'predictions.parquet')!r}.",
                param_hint=f"--{asked}",
            )
        run = Run(path)
        if run.manifest.is_file() and not run.evaluation.is_file() and not (path / ".pending").is_dir():
            raise FileNotFoundError(_not_evaluated(run))
        return Evaluation.load(path)
    result = load_predictions(path, **options)
    if result.labels != tuple(order) and set(result.labels) == set(order):
        result = load_predictions(path, **{**options, "labels": order})
    return result


def _not_evaluated(run: Run) -> str:
    said = f"{str(run.path)!r} has no evaluation: it {run.account()}."
    if run.weights is None:
        return f"{said} Train again, into another folder."
    return f"{said} To score its model, pass rows: finetune-eval evaluate {run.path} --data FILE"
